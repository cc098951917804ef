//! `aop call`: one call through the node, its result on stdout.

use std::io::Read;

use serde_json::{Value, json};

use super::args::CallArgs;
use super::client::{Client, segment};
use super::failure::{Exit, Failure};
use super::output::{Console, print_json, print_json_indented, print_text};
use crate::agents::CALL_BYTES_MAX;
use crate::api::{CallAnswer, CallError, Outcome};
use crate::proto::code::Code;

/// Calls an agent.
pub(super) fn call(args: &CallArgs, console: Console) -> Result<Exit, Failure> {
    let input = read_input(args)?;
    let query: Vec<_> = args.timeout.iter().map(|seconds| ("timeout", seconds.to_string())).collect();
    let path = format!("/v1/call/{}", segment(&args.agent));
    let answer: CallAnswer = Client::new(&args.client)?.post(&path, &query, &input)?;
    // All of it even where the call failed: a script finds the reason in it, and the exit code says so.
    if args.client.json {
        print_json(&answer)?;
        return Ok(answer.error.map_or(Exit::Done, |error| exit(&error, answer.outcome)));
    }
    if let Some(error) = answer.error {
        // Before the failure, whose advice speaks of them.
        error.endpoints.iter().for_each(|it| console.warn(&format!("endpoint: {} {}", it.kind, it.address)));
        return Err(failed(&error, answer.outcome));
    }
    // A text comes without quotes, so that it can be piped on.
    match &answer.result {
        Value::String(text) => print_text(text)?,
        document => print_json_indented(document)?,
    }
    let host = answer.served_by.unwrap_or_default();
    console.print(&format!("{:.1} ms at {host}, call {}", answer.elapsed_ms, answer.task_id));
    Ok(Exit::Done)
}

fn read_input(args: &CallArgs) -> Result<Vec<u8>, Failure> {
    if let Some(task) = &args.task {
        return Ok(json!({ "task": task }).to_string().into_bytes());
    }
    let input = match args.input.as_deref() {
        None => b"{}".to_vec(),
        Some("-") => read_stdin()?,
        Some(text) => text.as_bytes().to_vec(),
    };
    // Parsed only to be refused early: the text itself is sent, so numbers keep their digits.
    match serde_json::from_slice::<Value>(&input) {
        Ok(_) => Ok(input),
        Err(error) => Err(Failure::new(
            Exit::Usage,
            format!("the input is not JSON: {error}"),
            "give a JSON document, or text with --task",
        )),
    }
}

fn read_stdin() -> Result<Vec<u8>, Failure> {
    let mut input = Vec::new();
    // One byte more than allowed tells too much from just enough.
    let read = std::io::stdin().lock().take(CALL_BYTES_MAX as u64 + 1).read_to_end(&mut input);
    read.map_err(|error| Failure::plain(Exit::Failure, &format!("cannot read stdin: {error}")))?;
    if input.len() > CALL_BYTES_MAX {
        let message = format!("the input has more than {CALL_BYTES_MAX} bytes");
        return Err(Failure::new(Exit::Usage, message, "give the agent a reference to the data instead"));
    }
    Ok(input)
}

fn failed(error: &CallError, outcome: Option<Outcome>) -> Failure {
    let advice = match outcome {
        _ if error.code == Code::BadInput => "`aop show AGENT` prints its input schema",
        _ if error.code == Code::NotCallable && error.endpoints.is_empty() => {
            "`aop find` may know another agent that does the same"
        }
        _ if error.code == Code::NotCallable => "use one of its endpoints",
        Some(Outcome::NotStarted) => "the agent never saw the input: calling again is safe",
        Some(Outcome::Unknown) => "the agent may have done the work: look before you call again",
        _ => "",
    };
    Failure::new(exit(error, outcome), format!("{} ({})", error.message, error.code), advice)
}

fn exit(error: &CallError, outcome: Option<Outcome>) -> Exit {
    match error.code.exit() {
        Exit::Unreachable => Exit::Unreachable,
        // Like no answer: the caller has to look before it calls again.
        _ if outcome == Some(Outcome::Unknown) => Exit::Unreachable,
        _ => Exit::Failure,
    }
}
