//! The MCP server of a node: `cargo bench --bench mcp [-- list|busy|many]`. The bench `limits` has a call beside bare rmcp.
//!
//! `list`: the first page of `tools/list` with 10,000 agents known (aim: 2 ms). `busy`: `tools/list` and `find` while 100
//! agents work 2 s each (aim: p99 10 ms). `many`: a node with 1,000 agents of files, as a process (aim: ready in 0.5 s,
//! 0.5 % CPU at rest).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use aop::agents::HostedAgent;
use aop::document::run_config::Builtin;
use aop::host;
use serde_json::{Value, json};
use tokio::net::TcpStream;

#[path = "samples/agents.rs"]
mod agents;
#[path = "samples/hosted.rs"]
mod hosted;
#[path = "samples/nodes.rs"]
mod nodes;
#[path = "samples/process.rs"]
mod process;
#[path = "samples/requests.rs"]
mod requests;
#[path = "samples/server.rs"]
mod server;
#[path = "samples/times.rs"]
mod times;
#[path = "samples/tools.rs"]
mod tools;

use agents::fill;
use hosted::hosted;
use nodes::options;
use process::NodeProcess;
use requests::{Request, ask, get};
use server::Server;
use times::Times;
use tools::post;

const KNOWN: usize = 10_000;
const LISTS: usize = 500;
const BUSY_AGENTS: usize = 100;
const BUSY_MS: u64 = 2_000;
const MANY: usize = 1_000;
const REST: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(30);

fn main() {
    let mut parts: Vec<String> = std::env::args().skip(1).filter(|it| it != "--bench").collect();
    if parts.is_empty() {
        parts = ["list", "busy", "many"].map(String::from).to_vec();
    }
    times::head("cargo bench --bench mcp");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    for part in parts {
        match part.as_str() {
            "list" => runtime.block_on(list_with_many_known()),
            "busy" => runtime.block_on(ask_while_busy()),
            "many" => start_with_many(),
            other => panic!("no part `{other}`"),
        }
    }
}

/// A node that knows so many agents of others, and has some of its own.
struct World {
    addr: SocketAddr,
    _server: Server,
    _dir: tempfile::TempDir,
}

impl World {
    async fn start(records: usize, own: Vec<HostedAgent>) -> World {
        let dir = tempfile::tempdir().expect("a folder");
        fill(dir.path(), 100, records);
        let options = options(100, dir.path(), &[]);
        options.agents.replace(own);
        let server = Server::of(host::start(options).await.expect("started")).await;
        World { addr: server.addr, _server: server, _dir: dir }
    }
}

async fn list_with_many_known() {
    let own = (0..BUSY_AGENTS).map(|at| hosted(&format!("own-{at}"), Builtin::Echo)).collect();
    let node = World::start(KNOWN, own).await;
    let (mut times, bytes) = ask_often(node.addr, &post(node.addr, "tools/list", None, Value::Null)).await;
    println!("first page of tools/list, {KNOWN} agents known, {bytes} bytes");
    times.line("tools/list");
}

async fn ask_often(addr: SocketAddr, asked: &Request) -> (Times, usize) {
    let mut stream = TcpStream::connect(addr).await.expect("connected");
    let (mut times, mut buffer, mut bytes) = (Times::default(), Vec::new(), 0);
    for _ in 0..LISTS {
        let asking = Instant::now();
        bytes = ask(&mut stream, asked, &mut buffer).await;
        times.add(asking.elapsed());
    }
    (times, bytes)
}

/// A hundred sleepers over MCP at once; meanwhile lists and searches, one after the other.
async fn ask_while_busy() {
    let own = (0..BUSY_AGENTS).map(|at| hosted(&format!("sleeper-{at}"), Builtin::Sleep)).collect();
    let node = World::start(KNOWN, own).await;
    let addr = node.addr;
    let busy: Vec<_> = (0..BUSY_AGENTS)
        .map(|at| {
            let asked = post(
                addr,
                "tools/call",
                Some(&format!("sleeper-{at}")),
                json!({"task": BUSY_MS.to_string()}),
            );
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(addr).await.expect("connected");
                ask(&mut stream, &asked, &mut Vec::new()).await
            })
        })
        .collect();
    let find = get(addr, "/v1/find?q=sample&limit=10");
    let list = post(addr, "tools/list", None, Value::Null);
    let (mut lists, mut finds) = (Times::default(), Times::default());
    let mut stream = TcpStream::connect(addr).await.expect("connected");
    let mut buffer = Vec::new();
    while !busy.iter().all(tokio::task::JoinHandle::is_finished) {
        for (asked, times) in [(&list, &mut lists), (&find, &mut finds)] {
            let asking = Instant::now();
            ask(&mut stream, asked, &mut buffer).await;
            times.add(asking.elapsed());
        }
    }
    for call in busy {
        call.await.expect("answered");
    }
    println!("while {BUSY_AGENTS} agents work {BUSY_MS} ms each, {KNOWN} agents known");
    lists.line("tools/list");
    finds.line("GET /v1/find");
}

/// A node with a thousand agent files, from outside.
fn start_with_many() {
    let dir = tempfile::tempdir().expect("a folder");
    let files = dir.path().join("agents");
    std::fs::create_dir(&files).expect("a folder");
    for at in 0..MANY {
        let text = format!(
            "[agent]\nname = \"agent-{at}\"\ndescription = \"Sample {at}\"\n[agent.run]\nbuiltin = \"echo\"\n"
        );
        std::fs::write(files.join(format!("{at}.toml")), text).expect("written");
    }
    println!("a node with {MANY} agents of files");
    for start in ["first start, everything is signed and written", "start again"] {
        let files = files.display().to_string();
        let node = NodeProcess::start(&dir.path().join("data"), &["--agents", &files]);
        println!("  {start}: ready at {} after {:.3} s", node.addr, node.ready.as_secs_f64());
        std::thread::sleep(REST);
        let before = node.cpu();
        std::thread::sleep(IDLE);
        let share = (node.cpu() - before) / IDLE.as_secs_f64();
        println!("  at rest: {:.3} % of one core, {} MiB resident", share * 100.0, node.resident_mib());
    }
}
