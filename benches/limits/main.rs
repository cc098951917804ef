//! How close the node comes to what the machine can do: `cargo bench --bench limits [-- ROW ...] [--json]`.
//!
//! Each row measures the same work ours and bare, in turns, and gives ratios of medians: what else runs on the machine slows
//! both. Each runs in a process of its own. Times of the processor are of all threads of a process. Progress goes to stderr,
//! the table, or a JSON array of the same, to stdout. All of it takes some eight minutes.

use std::io::Read;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

#[path = "../samples/agents.rs"]
mod agents;
#[path = "../samples/bare.rs"]
mod bare;
mod beside;
mod calls;
#[path = "../samples/cpu.rs"]
mod cpu;
mod figure;
mod find;
#[path = "../samples/hosted.rs"]
mod hosted;
mod ingest;
mod join;
#[path = "../samples/joins.rs"]
mod joins;
#[path = "../samples/load.rs"]
mod load;
mod mcp;
#[path = "../samples/nodes.rs"]
mod nodes;
#[path = "../samples/offers.rs"]
mod offers;
#[path = "../samples/pair.rs"]
mod pair;
#[path = "../samples/process.rs"]
mod process;
#[path = "../samples/requests.rs"]
mod requests;
#[path = "../samples/server.rs"]
mod server;
mod start;
#[path = "../samples/tools.rs"]
mod tools;
mod web;
mod writes;

use figure::Figure;

/// Longest that a row may take; it is ended then.
const ROW_TIME_MAX: Duration = Duration::from_secs(140);

/// Measures a row.
type Measure = fn() -> Vec<Figure>;

/// The rows by name.
const ROWS: [(&str, Measure); 12] = [
    ("find", web::find),
    ("requests", web::requests),
    ("text", web::text),
    ("scaling", find::scaling),
    ("beside", beside::find_beside_ingest),
    ("ingest", ingest::rates),
    ("join", join::fresh_node),
    ("start", start::with_many),
    ("trickle", writes::trickle),
    ("register", writes::register),
    ("mcp", mcp::calls),
    ("calls", calls::remote),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|it| it != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--row", name] => {
            let (_, measure) = ROWS.iter().find(|(row, _)| *row == name).expect("a row");
            println!("{}", serde_json::to_string(&measure()).expect("JSON"));
        }
        ["--ask", dir, askers] => find::ask_for_a_while(dir.as_ref(), askers.parse().expect("a number")),
        ["--publish", address] => beside::publish(address),
        _ => return all(&arguments),
    }
    ExitCode::SUCCESS
}

fn all(arguments: &[String]) -> ExitCode {
    let wanted: Vec<&str> = arguments.iter().map(String::as_str).filter(|it| *it != "--json").collect();
    let names = ROWS.map(|(name, _)| name);
    if let Some(other) = wanted.iter().find(|it| !names.contains(it)) {
        eprintln!("no row {other}; there are {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    let mut figures = Vec::new();
    for name in names.into_iter().filter(|name| wanted.is_empty() || wanted.contains(name)) {
        let began = Instant::now();
        let measured = in_child(name);
        eprintln!("{name}: {} figures, {:.0} s", measured.len(), began.elapsed().as_secs_f64());
        figures.extend(measured);
    }
    if arguments.iter().any(|it| it == "--json") {
        println!("{}", serde_json::to_string_pretty(&figures).expect("JSON"));
    } else {
        figure::print_table(&figures);
    }
    ExitCode::SUCCESS
}

/// Measures a row in a process of its own; none of its figures if it failed or took too long.
fn in_child(name: &str) -> Vec<Figure> {
    let program = std::env::current_exe().expect("this program");
    let row = Command::new(program).args(["--row", name]).stdout(Stdio::piped()).spawn();
    let mut row = row.expect("started");
    let mut stdout = row.stdout.take().expect("piped");
    let (told, heard) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut text = String::new();
        // Nobody listens any more if it took too long.
        let _gone = stdout.read_to_string(&mut text).map(|_| told.send(text));
    });
    let text = heard.recv_timeout(ROW_TIME_MAX).unwrap_or_else(|_| {
        end_children_of(row.id());
        // It may have ended by itself.
        let _ended = row.kill();
        String::new()
    });
    let status = row.wait().expect("ended");
    serde_json::from_str(&text).unwrap_or_else(|_| {
        eprintln!("{name}: FAILED, {status}");
        vec![Figure::failed(name)]
    })
}

/// Ends the processes that a process has started: one that is ended from outside cannot do it.
fn end_children_of(process: u32) {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    for task in tasks {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|it| it.parse().ok()) {
            let Some(child) = rustix::process::Pid::from_raw(child) else { continue };
            // It may have ended by itself.
            let _ended = rustix::process::kill_process(child, rustix::process::Signal::KILL);
        }
    }
}
