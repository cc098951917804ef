//! `aop watch`: the node's server-sent events, one line each, until ctrl-c.

use std::io::{BufRead, Read};

#[cfg(unix)]
use rustix::event::{PollFd, PollFlags, poll};

use super::args::WatchArgs;
use super::client::Client;
use super::failure::{Exit, Failure};
use super::output::{Console, clean, print_json_line, shown_name, write};
use super::process::end_with_signal;
use crate::api::{Event, SeenCall};

/// Longest line read, bytes; events are far shorter.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

/// Streams events until the node stops or a signal comes.
pub(super) fn watch(args: &WatchArgs, console: Console) -> Result<Exit, Failure> {
    let mut stream = Client::new(&args.client)?.stream("/v1/events")?;
    // Only now: a signal while connecting must not end as a success.
    end_with_signal()?;
    end_with_reader();
    console.print("watching; ctrl-c ends it");
    let mut line = String::new();
    loop {
        line.clear();
        // A line without end must not fill the memory; its pieces are no events and are passed over.
        let read = stream.by_ref().take(LINE_BYTES_MAX).read_line(&mut line);
        match read {
            Ok(0) => return Err(lost("the node ended the stream")),
            Ok(_) => print_line(&line, args.jsonl || args.client.json)?,
            Err(error) => return Err(lost(&format!("the stream broke: {error}"))),
        }
    }
}

/// Ends the process well when nobody reads what it prints any more, as after `head -1`: the next event, by which writing
/// would tell, may come in hours.
#[cfg(unix)]
fn end_with_reader() {
    std::thread::spawn(|| {
        let stdout = std::io::stdout();
        // Nothing is waited for but the end, of which the system tells unasked; files and terminals have none.
        let mut end = [PollFd::new(&stdout, PollFlags::empty())];
        while poll(&mut end, None).is_ok_and(|ended| ended == 0) {}
        if end[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
            std::process::exit(Exit::Done as i32);
        }
    });
}

#[cfg(not(unix))]
fn end_with_reader() {}

fn lost(why: &str) -> Failure {
    Failure::new(Exit::Unreachable, why, "look with `aop status`, then watch again")
}

/// Comments and blank lines keep the stream alive and say nothing; an event of a later version is passed on as it is.
fn print_line(line: &str, json: bool) -> Result<(), Failure> {
    let Some(data) = line.strip_prefix("data:") else { return Ok(()) };
    let Ok(value) = serde_json::from_str::<serde_json::Value>(data) else { return Ok(()) };
    match serde_json::from_value::<Event>(value.clone()) {
        Ok(event) if !json => write(&format!("{}\n", row(&event).map(|cell| clean(&cell)).join("\t"))),
        _ => print_json_line(&value),
    }
}

/// What happened, to whom, and how.
fn row(event: &Event) -> [String; 3] {
    let (kind, whom, how) = match event {
        Event::AgentChanged { agent, host, via, .. } => {
            ("changed", shown_name(agent).into(), format!("on {host} by {via}"))
        }
        Event::AgentRemoved { agent, host, reason, .. } => {
            ("removed", shown_name(agent).into(), format!("on {host}, {reason}"))
        }
        Event::AgentState { agent, state } => ("state", shown_name(agent).into(), state.to_string()),
        Event::PeerConnected { peer } => ("connected", peer.clone(), String::new()),
        Event::PeerDisconnected { peer } => ("disconnected", peer.clone(), String::new()),
        Event::Synced { peer, zone, received, sent } => {
            ("synced", peer.clone(), format!("{zone}: {received} received, {sent} sent"))
        }
        Event::Problem(problem) => {
            ("problem", problem.code.text().into(), format!("{}; {}", problem.message, problem.fix))
        }
        Event::CallStarted(call) => {
            ("calls", shown_name(&call.agent).into(), format!("{} {}", call.side, call.call))
        }
        Event::CallEnded(call) => ("called", shown_name(&call.agent).into(), ended(call)),
        Event::CallsUnseen { count } => ("calls", count.to_string(), "more than are told".into()),
        Event::Missed { count } => ("missed", count.to_string(), "this reader was too slow".into()),
    };
    [kind.into(), whom, how]
}

fn ended(call: &SeenCall) -> String {
    let code = call.code.map(|code| format!(" ({code})")).unwrap_or_default();
    format!("{} {}: {}{code} after {:.1} ms", call.side, call.call, call.outcome, call.took_ms)
}
