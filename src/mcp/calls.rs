//! Calls of agents through MCP: this host's own by their tools, any of the world by `call_agent`.
//!
//! A failed agent is an answer that the model sees (`isError`), never a protocol error. Progress is told only to who
//! asked for it. A cancelled request drops the future, which ends the work.

use std::future::Future;
use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{CallToolResult, JsonObject, ProgressNotificationParam, ProgressToken};
use rmcp::service::{Peer, RequestContext};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Node;
use super::catalog::{OwnTool, patience};
use super::discovery::{bad_input, read};
use super::schema::Output;
use crate::agents::Task;
use crate::proto::call::{CallFailure, Outcome, Progress};
use crate::proto::name::FullName;

/// Reports of progress on their way; a reader that is slower loses some.
const REPORTS_MAX: usize = 16;

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
    node: &Node,
    own: &OwnTool,
    arguments: JsonObject,
    cx: &RequestContext<RoleServer>,
) -> CallToolResult {
    let input = own.input.take(arguments);
    let deadline = Instant::now() + own.patience;
    let agents = node.handle.local_agents();
    let done = told(cx, |progress| agents.call(&own.agent, Task { input, deadline, progress })).await;
    match done {
        Ok(output) => CallToolResult::structured(own.output.give(output)),
        Err(failure) => own_failed(own, &failure),
    }
}

/// Some clients hold even a failure against the tool's schema, and an agent's own schema knows no failures.
fn own_failed(own: &OwnTool, failure: &CallFailure) -> CallToolResult {
    let mut answer = failed(failure);
    if own.output == Output::Whole {
        answer.structured_content = None;
    }
    answer
}

/// `call_agent`.
pub(super) async fn any(
    node: &Node,
    arguments: &JsonObject,
    cx: &RequestContext<RoleServer>,
) -> CallToolResult {
    let call = match read::<Call>(arguments).and_then(judge) {
        Ok(call) => call,
        Err(failure) => return failed(&failure),
    };
    let started = Instant::now();
    match told(cx, |progress| local(node, call, progress)).await {
        Ok(output) => CallToolResult::structured(json!({
            "result": output,
            "success": true,
            "elapsed_ms": started.elapsed().as_secs_f64() * 1_000.0,
        })),
        Err(failure) => failed(&failure),
    }
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
        _ => return Err(bad_input("give either `task` or `input`".into())),
    };
    let timeout = call.timeout.map(|seconds| {
        let timeout = Duration::try_from_secs_f64(seconds).ok().filter(|timeout| !timeout.is_zero());
        timeout.ok_or_else(|| bad_input(format!("`timeout`: {seconds} is no number of seconds above 0")))
    });
    Ok(Judged { agent: call.agent, input, timeout: timeout.transpose()? })
}

async fn local(
    node: &Node,
    call: Judged,
    progress: Option<mpsc::Sender<Progress>>,
) -> Result<Value, CallFailure> {
    let agents = node.handle.local_agents();
    let list = agents.list();
    let named = |name: &&FullName| name.to_string() == call.agent || name.agent.as_str() == call.agent;
    let Some(name) = list.keys().find(named) else {
        let message = format!("there is no agent `{}`; look with search_agents", call.agent);
        return Err(CallFailure::new("not_found", Outcome::NotStarted, message));
    };
    let limit = patience(list.get(name).and_then(|local| local.offer.card.limits));
    let deadline = Instant::now() + call.timeout.map_or(limit, |timeout| timeout.min(limit));
    agents.call(name, Task { input: call.input, deadline, progress }).await
}

/// Does the work and tells its progress where the client gave a token.
async fn told<T, F: Future<Output = T>>(
    cx: &RequestContext<RoleServer>,
    work: impl FnOnce(Option<mpsc::Sender<Progress>>) -> F,
) -> T {
    let Some(token) = cx.meta.get_progress_token() else { return work(None).await };
    let (sender, reports) = mpsc::channel(REPORTS_MAX);
    tokio::select! {
        biased;
        done = work(Some(sender)) => done,
        never = forward(reports, token, &cx.peer) => match never {},
    }
}

async fn forward(
    mut reports: mpsc::Receiver<Progress>,
    token: ProgressToken,
    peer: &Peer<RoleServer>,
) -> std::convert::Infallible {
    while let Some(report) = reports.recv().await {
        let mut param = ProgressNotificationParam::new(token.clone(), report.progress);
        param.total = report.total;
        param.message = report.message;
        // A client that has gone is noticed where the answer is sent.
        let _gone = peer.notify_progress(param).await;
    }
    std::future::pending().await
}

/// How a failed call reads.
pub(super) fn failed(failure: &CallFailure) -> CallToolResult {
    CallToolResult::structured_error(json!({
        "success": false,
        "error": failure.message,
        "code": failure.code,
        "outcome": failure.outcome,
    }))
}
