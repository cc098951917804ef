//! `aop task`: how tasks stand, what they answered, and their end.

use std::time::{Duration, Instant};

use super::args::{TaskCancelArgs, TaskCommand, TaskListArgs, TaskShowArgs};
use super::call::{advice, exit, exit_of, print_result};
use super::client::{Client, segment};
use super::failure::{Exit, Failure};
use super::output::{Console, Rows, print_json, print_text, shown_name};
use super::time::{distance, now_ms};
use crate::api::{Task, TaskPage, TaskStatus};
use crate::host::TASK_WAIT_MAX;

/// Runs one of the commands.
pub(super) fn task(command: &TaskCommand, console: Console) -> Result<Exit, Failure> {
    match command {
        TaskCommand::Show(args) => show(args, console),
        TaskCommand::List(args) => list(args, console),
        TaskCommand::Cancel(args) => cancel(args),
    }
}

fn show(args: &TaskShowArgs, console: Console) -> Result<Exit, Failure> {
    let wait = Duration::try_from_secs_f64(args.wait).map_err(|_| {
        Failure::new(Exit::Usage, format!("--wait {} is no number of seconds", args.wait), "--wait 60")
    })?;
    let client = Client::new(&args.client)?;
    let path = format!("/v1/tasks/{}", segment(&args.id)?);
    let began = Instant::now();
    // A question lasts only so long; whoever waits longer asks again.
    let task = loop {
        let left = wait.saturating_sub(began.elapsed());
        let asked = left.min(TASK_WAIT_MAX);
        let task: Task = client.get(&path, &[("wait", asked.as_secs_f64().to_string())])?;
        if task.status.is_end() || left <= asked {
            break task;
        }
    };
    if args.client.json {
        print_json(&task)?;
        return Ok(task.answer.as_ref().map_or(Exit::Done, exit_of));
    }
    match task.answer {
        Some(answer) => match &answer.error {
            None => print_result(&answer.result).map(|()| Exit::Done),
            Some(error) => {
                let failure =
                    Failure::new(exit(error, answer.outcome), error.message.as_str(), advice(answer.outcome));
                Err(failure.coded(error.code))
            }
        },
        None => {
            print_text(&standing(&task))?;
            console.print(&format!("asked for {}", distance(task.submitted_ms, now_ms())));
            Ok(Exit::Done)
        }
    }
}

/// How an open task stands, in words.
fn standing(task: &Task) -> String {
    match (task.status, task.ahead, &task.served_by, &task.message) {
        (TaskStatus::Queued, Some(ahead), ..) => format!("queued, {ahead} ahead"),
        (TaskStatus::Working, _, Some(host), Some(message)) => format!("working at {host}: {message}"),
        (TaskStatus::Working, _, Some(host), None) => format!("working at {host}"),
        (status, ..) => status.text().to_owned(),
    }
}

fn list(args: &TaskListArgs, console: Console) -> Result<Exit, Failure> {
    let limit = ("limit", args.limit.to_string());
    let cursor = args.cursor.iter().map(|cursor| ("cursor", cursor.clone()));
    let query: Vec<_> = std::iter::once(limit).chain(cursor).collect();
    let page: TaskPage = Client::new(&args.client)?.get("/v1/tasks", &query)?;
    if args.client.json {
        print_json(&page)?;
        return Ok(Exit::Done);
    }
    let (now, mut rows) = (now_ms(), Rows::new(&["TASK", "AGENT", "STATUS", "ASKED FOR"]));
    for task in page.tasks {
        let asked = distance(task.submitted_ms, now);
        rows.push([task.task_id, shown_name(&task.agent).into(), task.status.text().into(), asked]);
    }
    rows.print()?;
    if let Some(cursor) = page.cursor {
        console.print(&format!("there are more: --cursor {cursor}"));
    }
    Ok(Exit::Done)
}

fn cancel(args: &TaskCancelArgs) -> Result<Exit, Failure> {
    let path = format!("/v1/tasks/{}", segment(&args.id)?);
    let task: Task = Client::new(&args.client)?.delete(&path)?;
    if args.client.json {
        print_json(&task)?;
    } else {
        print_text(task.status.text())?;
    }
    Ok(Exit::Done)
}
