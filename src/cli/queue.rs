//! `aop queue`: what the agents of a node have to do, and the operator's hand on that.

use serde::de::DeserializeOwned;

use super::args::{QueueArgs, QueueCommand};
use super::client::{Client, segment};
use super::failure::{Exit, Failure};
use super::output::{Console, Rows, print_json, shown_name};
use super::time::span;
use crate::api::{Queue, QueueChange, Queues};

/// Runs one of the commands.
pub(super) fn queue(command: &QueueCommand, console: Console) -> Result<Exit, Failure> {
    match command {
        QueueCommand::Show(args) => run(args, None, console),
        QueueCommand::Pause(args) => run(args, Some(QueueChange::Pause), console),
        QueueCommand::Resume(args) => run(args, Some(QueueChange::Resume), console),
        QueueCommand::Clear(args) => run(args, Some(QueueChange::Clear), console),
    }
}

/// Looks at the queues, or changes them and shows how they are then.
fn run(args: &QueueArgs, change: Option<QueueChange>, console: Console) -> Result<Exit, Failure> {
    let client = Client::new(&args.client)?;
    let shown = match &args.agent {
        Some(agent) => {
            let queue: Queue = ask(&client, &format!("/{}", segment(agent)?), change)?;
            if args.client.json {
                return print_json(&queue).map(|()| Exit::Done);
            }
            Queues { cleared: queue.cleared, queues: vec![queue] }
        }
        None => {
            let all: Queues = ask(&client, "", change)?;
            if args.client.json {
                return print_json(&all).map(|()| Exit::Done);
            }
            all
        }
    };
    if shown.queues.is_empty() {
        console.print("this node runs no agents");
    }
    if let Some(cleared) = shown.cleared {
        console.print(&format!("{cleared} waiting calls were ended"));
    }
    rows(shown.queues).print()?;
    Ok(Exit::Done)
}

fn ask<T: DeserializeOwned>(client: &Client, of: &str, change: Option<QueueChange>) -> Result<T, Failure> {
    match change {
        None => client.get(&format!("/v1/queues{of}"), &[]),
        Some(change) => client.post(&format!("/v1/queues{of}/{change}"), &[], b"{}"),
    }
}

fn rows(queues: Vec<Queue>) -> Rows {
    let mut rows = Rows::new(&["AGENT", "QUEUE", "AT WORK", "WAITING", "MEAN WORK", "COMPLETED", "FAILED"]);
    for queue in queues {
        rows.push([
            shown_name(&queue.agent).into(),
            if queue.paused { "paused" } else { "running" }.into(),
            format!("{}/{}", queue.running, queue.places),
            queue.queued.to_string(),
            queue.mean_work_ms.map_or_else(|| "-".into(), |mean| span(mean as u64)),
            queue.completed.to_string(),
            queue.failed.to_string(),
        ]);
    }
    rows
}
