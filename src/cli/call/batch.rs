//! `aop call --batch`: lines of calls in, lines of answers out, in order.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, stdin};

use super::{exit_of, tell_interrupted};
use crate::agents::CALL_BYTES_MAX;
use crate::api::{Batch, BatchAnswer, BatchCall};
use crate::cli::args::CallArgs;
use crate::cli::client::{Client, Query};
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Console, print_json_line};
use crate::cli::process::at_signals;
use crate::host::BATCH_CALLS_MAX;

/// Longest line, bytes: the largest input and its envelope.
const LINE_BYTES_MAX: u64 = CALL_BYTES_MAX as u64 + 64 * 1024;
/// Bytes of the lines that are sent in one batch; a larger one would not be taken.
const PART_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Makes all calls of a file, a part at a time.
pub(super) fn call(file: &str, query: Query<'_>, args: &CallArgs, console: Console) -> Result<Exit, Failure> {
    let mut lines: Box<dyn BufRead> = match file {
        "-" => Box::new(BufReader::new(stdin())),
        path => Box::new(BufReader::new(File::open(path).map_err(|error| unreadable(path, &error))?)),
    };
    let client = Client::new(&args.client)?;
    at_signals(tell_interrupted("", args.client.json))?;
    let (mut exit, mut number, mut failed) = (Exit::Done, 0, 0);
    loop {
        let calls = next_part(&mut lines, file, &mut number)?;
        if calls.is_empty() {
            if failed > 0 {
                console.print(&format!("{failed} of the calls failed"));
            }
            return Ok(exit);
        }
        let body =
            serde_json::to_vec(&Batch { calls }).map_err(|error| Failure::plain(Exit::Failure, &error))?;
        let answer: BatchAnswer = client.call("/v1/batch", query, &body)?;
        for result in &answer.results {
            print_json_line(result)?;
            failed += usize::from(!result.success);
            // What nobody knows is worse than what failed.
            exit = match (exit, exit_of(result)) {
                (Exit::Unreachable, _) | (_, Exit::Unreachable) => Exit::Unreachable,
                (Exit::Done, ended) => ended,
                (before, _) => before,
            };
        }
    }
}

/// The calls of the next lines; none at the end.
fn next_part(lines: &mut dyn BufRead, file: &str, number: &mut usize) -> Result<Vec<BatchCall>, Failure> {
    let (mut calls, mut bytes) = (Vec::new(), 0);
    while calls.len() < BATCH_CALLS_MAX && bytes < PART_BYTES_MAX {
        let mut line = String::new();
        let read = Read::take(&mut *lines, LINE_BYTES_MAX).read_line(&mut line);
        if read.map_err(|error| unreadable(file, &error))? == 0 {
            break;
        }
        *number += 1;
        if line.trim().is_empty() {
            continue;
        }
        let call = serde_json::from_str::<BatchCall>(&line).map_err(|error| {
            let message = format!("line {number} of {file} is no call: {error}");
            let fix = "write one call a line: {\"agent\": \"name@zone\", \"input\": {\"task\": \"…\"}}";
            Failure::new(Exit::Usage, message, fix)
        })?;
        bytes += line.len();
        calls.push(call);
    }
    Ok(calls)
}

fn unreadable(path: &str, error: &std::io::Error) -> Failure {
    Failure::new(
        Exit::Usage,
        format!("cannot read {path}: {error}"),
        "give a file of calls, one a line, or -",
    )
}
