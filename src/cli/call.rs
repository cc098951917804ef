//! `aop call`: one call through the node, its result on stdout; or a task, or a batch.

mod batch;
mod stream;

use std::io::Read;

use serde_json::{Value, json};

use super::args::CallArgs;
use super::client::{Client, segment};
use super::failure::{Exit, Failure};
use super::output::{Console, print_json, print_json_indented, print_text, shown_name};
use super::process::at_signals;
use super::usage::print_error;
use crate::agents::CALL_BYTES_MAX;
use crate::api::{CallAnswer, CallError, Outcome, Submitted};
use crate::proto::code::Code;

/// Calls an agent, or several.
pub(super) fn call(args: &CallArgs, console: Console) -> Result<Exit, Failure> {
    let query = query(args);
    if let Some(file) = &args.batch {
        return batch::call(file, &query, args, console);
    }
    let input = read_input(args)?;
    let path = format!("/v1/call/{}", segment(agent(args))?);
    let client = Client::new(&args.client)?;
    if args.is_async {
        return submit(&client, &path, &query, &input, args, console);
    }
    // The node ends a call whose caller is gone, and only the caller can say so.
    at_signals(tell_interrupted(agent(args), args.client.json))?;
    if args.stream {
        return stream::call(&client, &path, &query, &input, args, console);
    }
    let answer: CallAnswer = client.call(&path, &query, &input)?;
    print_answer(answer, args, console)
}

/// The agent; where a batch has no one agent, none is asked for.
fn agent(args: &CallArgs) -> &str {
    args.agent.as_deref().unwrap_or_default()
}

fn query(args: &CallArgs) -> Vec<(&'static str, String)> {
    let timeout = args.timeout.map(|seconds| ("timeout", seconds.to_string()));
    let conversation = args.conversation.clone().map(|id| ("conversation", id));
    let priority = args.priority.map(|priority| ("priority", priority.to_string()));
    let balance = args.balance.map(|balance| ("balance", balance.text().to_owned()));
    let residency = args.residency.clone().map(|residency| ("residency", residency));
    let is_async = args.is_async.then(|| ("async", "true".to_owned()));
    [timeout, conversation, priority, balance, residency, is_async].into_iter().flatten().collect()
}

fn submit(
    client: &Client,
    path: &str,
    query: &[(&'static str, String)],
    input: &[u8],
    args: &CallArgs,
    console: Console,
) -> Result<Exit, Failure> {
    let submitted: Submitted = client.call(path, query, input)?;
    if args.client.json {
        print_json(&submitted)?;
        return Ok(Exit::Done);
    }
    print_text(&submitted.task_id)?;
    console.print(&format!("look at it with `aop task show {} --wait 60`", submitted.task_id));
    Ok(Exit::Done)
}

/// Prints how a call ended.
fn print_answer(answer: CallAnswer, args: &CallArgs, console: Console) -> Result<Exit, Failure> {
    // All of it even where the call failed: a script finds the reason in it, and the exit code says so.
    if args.client.json {
        print_json(&answer)?;
        return Ok(exit_of(&answer));
    }
    if let Some(error) = answer.error {
        // Before the failure, whose advice speaks of them.
        error.endpoints.iter().for_each(|it| console.warn(&format!("endpoint: {} {}", it.kind, it.address)));
        return Err(failed(&error, answer.outcome, args));
    }
    print_result(&answer.result)?;
    tell_end(&answer, console);
    Ok(Exit::Done)
}

/// A text comes without quotes, so that it can be piped on.
pub(super) fn print_result(result: &Value) -> Result<(), Failure> {
    match result {
        Value::String(text) => print_text(text),
        document => print_json_indented(document),
    }
}

fn tell_end(answer: &CallAnswer, console: Console) {
    let host = answer.served_by.as_deref().unwrap_or_default();
    console.print(&format!("{:.1} ms at {host}, call {}", answer.elapsed_ms, answer.task_id));
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

fn failed(error: &CallError, outcome: Option<Outcome>, args: &CallArgs) -> Failure {
    let agent = shown_name(agent(args));
    let advice = match outcome {
        _ if error.code == Code::BadInput && args.task.is_none() && args.input.is_none() => {
            format!(
                "say what it is to do: `aop call {agent} --task \"…\"`; `aop show {agent}` prints its input schema"
            )
        }
        _ if error.code == Code::BadInput => format!("`aop show {agent}` prints its input schema"),
        _ if error.code == Code::NotCallable && error.endpoints.is_empty() => {
            "ask its publisher where it is served, or find another with `aop find`: it names no endpoint"
                .into()
        }
        _ if error.code == Code::NotCallable => {
            format!(
                "make it callable through a host of yours: `aop adopt {agent}`; or use one of its endpoints"
            )
        }
        _ => advice(outcome).into(),
    };
    Failure::new(exit(error, outcome), error.message.as_str(), advice).coded(error.code)
}

/// What to do about a call of which so much is known.
pub(super) fn advice(outcome: Option<Outcome>) -> &'static str {
    match outcome {
        Some(Outcome::NotStarted) => "the agent never saw the input: calling again is safe",
        Some(Outcome::Unknown) => "the agent may have done the work: look before you call again",
        _ => "",
    }
}

/// What a signal does to calls that are on their way.
fn tell_interrupted(agent: &str, json: bool) -> impl FnMut() + Send + 'static {
    let whose = if agent.is_empty() { "the batch".to_owned() } else { format!("the call of {agent}") };
    move || {
        let message = format!("{whose} was interrupted: the node ends it and drops its answer");
        let failure = Failure::new(
            Exit::Interrupted,
            message,
            "the agent may have done some of the work: look before you call again",
        );
        if json {
            print_error(failure)
        } else {
            failure.print()
        }
        // The main thread waits for the answer; the connection ends with the process, and the call with it.
        std::process::exit(Exit::Interrupted as i32);
    }
}

/// How a command ends whose call ended so.
pub(super) fn exit_of(answer: &CallAnswer) -> Exit {
    answer.error.as_ref().map_or(Exit::Done, |error| exit(error, answer.outcome))
}

pub(super) fn exit(error: &CallError, outcome: Option<Outcome>) -> Exit {
    match error.code.exit() {
        Exit::Unreachable => Exit::Unreachable,
        // Like no answer: the caller has to look before it calls again.
        _ if outcome == Some(Outcome::Unknown) => Exit::Unreachable,
        _ => Exit::Failure,
    }
}
