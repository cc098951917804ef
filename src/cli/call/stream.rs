//! `aop call --stream`: pieces of the answer as they come, and on stderr how the call stands.

use std::io::{BufRead, Read};

use serde_json::Value;

use super::{print_answer, tell_end};
use crate::agents::CALL_BYTES_MAX;
use crate::api::{CallAnswer, ErrorBody};
use crate::cli::args::CallArgs;
use crate::cli::client::{Client, Query};
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Console, print_json_line, print_part, print_text};

/// Longest line, bytes: the largest answer, escaped.
const LINE_BYTES_MAX: u64 = CALL_BYTES_MAX as u64 * 8;

/// Makes the call and prints what comes of it.
pub(super) fn call(
    client: &Client,
    path: &str,
    query: Query<'_>,
    input: &[u8],
    args: &CallArgs,
    console: Console,
) -> Result<Exit, Failure> {
    let mut events = client.call_events(path, query, input)?;
    let (mut line, mut kind, mut printed) = (String::new(), String::new(), String::new());
    loop {
        line.clear();
        match events.by_ref().take(LINE_BYTES_MAX).read_line(&mut line) {
            Ok(0) => return Err(lost("the node ended the stream")),
            Ok(_) => {}
            Err(error) => return Err(lost(&format!("the stream broke: {error}"))),
        }
        if let Some(name) = line.strip_prefix("event:") {
            name.trim().clone_into(&mut kind);
        }
        let Some(data) = line.strip_prefix("data:") else { continue };
        let data: Value = serde_json::from_str(data).map_err(|_| lost("the node sent what is no JSON"))?;
        match kind.as_str() {
            "answer" => {
                let answer = serde_json::from_value(data).map_err(|_| lost("the node sent no answer"))?;
                return end(answer, &printed, args, console);
            }
            "error" => {
                let body = serde_json::from_value::<ErrorBody>(data);
                return Err(
                    body.map_or_else(|_| lost("the call failed"), |body| Failure::answered(body.error))
                );
            }
            _ if args.client.json => print_json_line(&serde_json::json!({"event": kind, "data": data}))?,
            "partial" => {
                let text = data["text"].as_str().unwrap_or_default();
                print_part(text)?;
                printed.push_str(text);
            }
            "queued" => console.print(&format!("queued, {} ahead", data["ahead"])),
            "working" => {
                console.print(&format!("working at {}", data["served_by"].as_str().unwrap_or_default()))
            }
            "progress" => tell_progress(&data, console),
            // Of a later version.
            _ => {}
        }
    }
}

fn tell_progress(data: &Value, console: Console) {
    let of = data["total"].as_f64().map(|total| format!(" of {total}")).unwrap_or_default();
    let message = data["message"].as_str().map(|message| format!(": {message}")).unwrap_or_default();
    console.print(&format!("{}{of}{message}", data["progress"]));
}

/// The answer says again what came in pieces: only what did not come is printed.
fn end(answer: CallAnswer, printed: &str, args: &CallArgs, console: Console) -> Result<Exit, Failure> {
    let text = answer.result.as_str();
    let rest =
        text.and_then(|text| text.strip_prefix(printed)).filter(|_| !args.client.json && !printed.is_empty());
    match rest {
        Some(rest) if answer.success => {
            print_text(rest)?;
            tell_end(&answer, console);
            Ok(Exit::Done)
        }
        _ => {
            if !printed.is_empty() {
                print_text("")?;
            }
            print_answer(answer, args, console)
        }
    }
}

fn lost(why: &str) -> Failure {
    Failure::new(
        Exit::Unreachable,
        format!("{why} before the answer came"),
        "the agent may have done the work: look before you call again",
    )
}
