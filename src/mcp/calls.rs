//! Calls of agents through MCP: this host's own by their tools, any of the world by `call_agent`.
//!
//! A failed agent is an answer that the model sees (`isError`), never a protocol error. Progress is told only to who
//! asked for it. A cancelled request drops the future, which ends the work.

use std::future::Future;
use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{CallToolResult, ContentBlock, JsonObject, ProgressNotificationParam, ProgressToken};
use rmcp::service::{Peer, RequestContext};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::ServerState;
use super::catalog::OwnTool;
use super::discovery::{bad_input, read, refused};
use super::schema::{Output, object};
use crate::api::CallAnswer;
use crate::host::CallOptions;
use crate::proto::call::{CallFailure, Report};
use crate::sanitize::clean_short;

/// Reports of progress on their way; a reader that is slower loses some.
const REPORTS_MAX: usize = 16;
/// Longest error and longest message of progress, bytes: other hosts write them.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    agent: String,
    #[serde(default)]
    task: Option<String>,
    #[serde(default)]
    input: Option<Value>,
    #[serde(default)]
    timeout: Option<f64>,
}

/// Calls an agent of this host by its tool.
pub(super) async fn own(
    node: &ServerState,
    own: &OwnTool,
    arguments: JsonObject,
    cx: &RequestContext<RoleServer>,
) -> CallToolResult {
    let (agent, input) = (own.agent.to_string(), own.input.take(arguments));
    // The arguments are the agent's own and have no place for a timeout: its limits hold.
    let called = told(cx, |reports| {
        node.handle.call(&agent, input, CallOptions { reports, ..CallOptions::default() })
    })
    .await;
    match called {
        Ok(answer) if answer.success => {
            let blocks = content_blocks(&answer.result);
            with_blocks(CallToolResult::structured(own.output.give(answer.result)), blocks)
        }
        Ok(answer) => within_schema(own, unanswered(answer)),
        Err(error) => within_schema(own, failed(&refused(error))),
    }
}

/// Some clients hold even a failure against the tool's schema, and an agent's own schema knows no failures.
fn within_schema(own: &OwnTool, mut failure: CallToolResult) -> CallToolResult {
    if own.output == Output::Whole {
        failure.structured_content = None;
    }
    failure
}

/// `call_agent`.
pub(super) async fn any(
    node: &ServerState,
    arguments: &JsonObject,
    cx: &RequestContext<RoleServer>,
) -> CallToolResult {
    let call = match read::<Call>(arguments).and_then(judge) {
        Ok(call) => call,
        Err(failure) => return failed(&failure),
    };
    let options = |reports| CallOptions { timeout: call.timeout, reports, ..CallOptions::default() };
    let called = told(cx, |reports| node.handle.call(&call.agent, call.input, options(reports))).await;
    match called {
        Ok(answer) if answer.success => {
            let blocks = content_blocks(&answer.result);
            with_blocks(CallToolResult::structured(json!(answer)), blocks)
        }
        Ok(answer) => unanswered(answer),
        Err(error) => failed(&refused(error)),
    }
}

/// A result that is what another MCP server said: blocks of content, not all of them text. A host shows a block by its kind.
fn content_blocks(result: &Value) -> Option<Vec<ContentBlock>> {
    // Content may stand beside a structure, and is worth its kind then even where all of it is text.
    let beside = result.get("structuredContent").and_then(|_| result.get("content")?.as_array());
    let alone = result.as_array().filter(|blocks| blocks.iter().any(|block| block["type"] != "text"));
    let blocks = beside.or(alone)?;
    blocks.iter().map(|block| ContentBlock::deserialize(block).ok()).collect()
}

fn with_blocks(mut result: CallToolResult, blocks: Option<Vec<ContentBlock>>) -> CallToolResult {
    if let Some(blocks) = blocks {
        result.content = blocks;
    }
    result
}

/// A judged call.
struct Judged {
    agent: String,
    input: Value,
    timeout: Option<Duration>,
}

fn judge(call: Call) -> Result<Judged, CallFailure> {
    let input = match (call.task, call.input) {
        (Some(task), None) => json!({"task": task}),
        (None, Some(input)) => input,
        // With both, nobody could say which of them counts.
        _ => return Err(bad_input("give either `task` or `input`".into())),
    };
    let timeout = call.timeout.map(|seconds| {
        // Zero would end the call before it begins.
        let timeout = Duration::try_from_secs_f64(seconds).ok().filter(|timeout| !timeout.is_zero());
        timeout.ok_or_else(|| bad_input(format!("`timeout`: {seconds} is no number of seconds above 0")))
    });
    Ok(Judged { agent: call.agent, input, timeout: timeout.transpose()? })
}

/// Does the work and tells its progress where the client gave a token.
async fn told<T, F: Future<Output = T>>(
    cx: &RequestContext<RoleServer>,
    work: impl FnOnce(Option<mpsc::Sender<Report>>) -> F,
) -> T {
    let Some(token) = cx.meta.get_progress_token() else { return work(None).await };
    let (sender, reports) = mpsc::channel(REPORTS_MAX);
    tokio::select! {
        // The work first: once it is done, reports that still wait must not hold the answer up.
        biased;
        done = work(Some(sender)) => done,
        never = forward(reports, token, &cx.peer) => match never {},
    }
}

async fn forward(
    mut reports: mpsc::Receiver<Report>,
    token: ProgressToken,
    peer: &Peer<RoleServer>,
) -> std::convert::Infallible {
    while let Some(report) = reports.recv().await {
        let Report::Progress(report) = report else { continue };
        let mut param = ProgressNotificationParam::new(token.clone(), report.progress);
        param.total = report.total;
        param.message = report.message.map(|message| clean_short(&message, MESSAGE_BYTES_MAX));
        // A client that has gone is noticed where the answer is sent.
        let _gone = peer.notify_progress(param).await;
    }
    // The reports may end before the work does, but only its answer may win the race.
    std::future::pending().await
}

/// How a call reads that gave no result: the error as a text, everything else beside it.
fn unanswered(mut answer: CallAnswer) -> CallToolResult {
    let error = answer.error.take().unwrap_or_default();
    let mut document = object(json!(answer));
    let message = clean_short(&error.message, MESSAGE_BYTES_MAX);
    document.insert("error".into(), message.into());
    document.insert("code".into(), error.code.text().into());
    if !error.endpoints.is_empty() {
        document.insert("endpoints".into(), json!(error.endpoints));
    }
    CallToolResult::structured_error(Value::Object(document))
}

/// How a call reads that never began.
pub(super) fn failed(failure: &CallFailure) -> CallToolResult {
    CallToolResult::structured_error(json!({
        "success": false,
        "error": failure.message,
        "code": failure.code,
        "outcome": failure.outcome,
    }))
}
