//! Calls of agents through MCP: this host's own by their tools, any of the world by `call_agent`.
//!
//! A failed agent is an answer that the model sees (`isError`), never a protocol error. How a call stands is told only to who
//! asked for it. A cancelled request drops the future, which ends the work. What takes longer than hosts of models wait becomes a
//! task: by the tasks extension where the client knows it, else the answer is its id.

use std::time::Duration;

use axum::http::request::Parts;
use rmcp::RoleServer;
use rmcp::model::{
    CallToolResponse, CallToolResult, ContentBlock, JsonObject, ProgressNotificationParam, ProgressToken,
};
use rmcp::service::{Peer, RequestContext};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tracing::Span;

use super::catalog::OwnTool;
use super::discovery::{bad_input, read, refused};
use super::schema::{Output, object};
use super::{ServerState, tasks};
use crate::api::{ApiError, BatchCall, CallAnswer, Task, TaskStatus};
use crate::host::{CallOptions, call_batch};
use crate::proto::call::{CallContext, CallFailure, Conversation, Progress, Report};
use crate::sanitize::clean_short;
use crate::telemetry::context::pass_on;

/// Reports of progress on their way; a reader that is slower loses some.
const REPORTS_MAX: usize = 16;
/// Longest error and longest message of progress, bytes: other hosts write them.
pub(super) const MESSAGE_BYTES_MAX: usize = 4 * 1024;

/// Names the call at work in whose course this one is made.
const CALL_ID: &str = "aop/callId";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    #[serde(alias = "agent_name")]
    agent: String,
    #[serde(default)]
    task: Option<String>,
    #[serde(default)]
    input: Option<Value>,
    #[serde(default)]
    timeout: Option<f64>,
    #[serde(default, rename = "async")]
    is_async: bool,
    #[serde(default)]
    conversation: Option<String>,
    #[serde(default)]
    priority: i8,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Calls {
    calls: Vec<CallOfBatch>,
    #[serde(default)]
    timeout: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallOfBatch {
    #[serde(alias = "agent_name")]
    agent: String,
    #[serde(default)]
    task: Option<String>,
    #[serde(default)]
    input: Option<Value>,
}

/// Calls an agent of this host by its tool.
pub(super) async fn own(
    node: &ServerState,
    own: &OwnTool,
    arguments: JsonObject,
    cx: &RequestContext<RoleServer>,
) -> CallToolResponse {
    let (agent, input) = (own.agent.to_string(), own.input.take(arguments));
    // The arguments are the agent's own and have no place for a timeout: its limits hold.
    let options = options(cx);
    let (after, tool) = (patience(node, cx), Some(own.tool.name.to_string()));
    let work = async |options| {
        if node.tasks.is_brief(&own.agent, &options, after) {
            return Ended::Answered(node.handle.call(&agent, input, options).await);
        }
        kept_after(node, (&agent, &input, options), after, tool).await
    };
    match told(node, cx, options, work).await {
        Ended::Answered(Ok(answer)) => of_own(own, answer).into(),
        Ended::Answered(Err(error)) => within_schema(own, failed(&refused(error))).into(),
        Ended::Kept(task) if knows_tasks(cx) => CallToolResponse::Task(tasks::created(&task)),
        Ended::Kept(task) => within_schema(own, handed_over(&task, own.output == Output::Whole)).into(),
    }
}

/// What a host reads that would not wait for the end. In an answer of an agent's own shape it has no place, and is told as what
/// is no answer: an error, whose text a model reads.
fn handed_over(task: &Task, is_error: bool) -> CallToolResult {
    let handle = tasks::handed_over(&task.task_id, TaskStatus::Working);
    if is_error { CallToolResult::structured_error(handle) } else { CallToolResult::structured(handle) }
}

/// How long the end of a call is waited for before it becomes a task.
fn patience(node: &ServerState, cx: &RequestContext<RoleServer>) -> Duration {
    match (knows_tasks(cx), cx.meta.get_progress_token()) {
        (true, _) => node.patience.task_after,
        (false, None) => node.patience.handle_after,
        (false, Some(_)) => node.patience.handle_after_reports,
    }
}

fn of_own(own: &OwnTool, answer: CallAnswer) -> CallToolResult {
    if !answer.success {
        return within_schema(own, unanswered(answer));
    }
    let blocks = content_blocks(&answer.result);
    with_blocks(CallToolResult::structured(own.output.give(answer.result)), blocks)
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
) -> CallToolResponse {
    let call = match read::<Call>(arguments).and_then(judge) {
        Ok(call) => call,
        Err(failure) => return failed(&failure).into(),
    };
    let mut options = options(cx);
    options.timeout = call.timeout;
    (options.context.conversation, options.context.priority) = (call.conversation, call.priority);
    if call.is_async {
        let submitted = node.tasks.submit(&call.agent, &call.input, options, None).await;
        return submitted.map_or_else(|error| failed(&refused(error)), |it| tasks::submitted(&it)).into();
    }
    let after = patience(node, cx);
    let work = async |options| kept_after(node, (&call.agent, &call.input, options), after, None).await;
    match told(node, cx, options, work).await {
        Ended::Answered(Ok(answer)) => of_any(answer).into(),
        Ended::Answered(Err(error)) => failed(&refused(error)).into(),
        Ended::Kept(task) if knows_tasks(cx) => CallToolResponse::Task(tasks::created(&task)),
        Ended::Kept(task) => handed_over(&task, false).into(),
    }
}

fn of_any(answer: CallAnswer) -> CallToolResult {
    if !answer.success {
        return unanswered(answer);
    }
    let blocks = content_blocks(&answer.result);
    with_blocks(CallToolResult::structured(json!(answer)), blocks)
}

/// How a call ended that goes on as a task, as the tool answers that it was made by; `call_agent` if none.
pub(super) fn answered(node: &ServerState, tool: Option<&str>, answer: CallAnswer) -> CallToolResult {
    let tools = node.catalog.tools();
    match tool.and_then(|tool| tools.own(tool)) {
        Some(own) => of_own(own, answer),
        None => of_any(answer),
    }
}

/// `call_agents`.
pub(super) async fn batch(
    node: &ServerState,
    arguments: &JsonObject,
    cx: &RequestContext<RoleServer>,
) -> CallToolResult {
    let judged = read::<Calls>(arguments).and_then(|calls| {
        let timeout = judge_timeout(calls.timeout)?;
        let calls = calls
            .calls
            .into_iter()
            .map(|call| Ok(BatchCall { agent: call.agent, input: input_of(call.task, call.input)? }));
        Ok((calls.collect::<Result<Vec<_>, CallFailure>>()?, timeout))
    });
    let (calls, timeout) = match judged {
        Ok(judged) => judged,
        Err(failure) => return failed(&failure),
    };
    let options = CallOptions { timeout, ..options(cx) };
    // What the calls report of themselves would be mixed: only that it goes on is told.
    let work = async |options: CallOptions| {
        let options = CallOptions { reports: None, ..options };
        call_batch(&node.handle, calls, options).await
    };
    match told(node, cx, options, work).await {
        Ok(answer) => CallToolResult::structured(json!(answer)),
        Err(error) => failed(&refused(error)),
    }
}

fn options(cx: &RequestContext<RoleServer>) -> CallOptions {
    let text = |name: &str| cx.meta.0.0.get(name).and_then(Value::as_str);
    let mut context = CallContext::default();
    context.trace = text("traceparent").and_then(|trace| trace.parse().ok());
    // The call may go on in a task of its own.
    pass_on(&Span::current(), &mut context.trace);
    let within = text(CALL_ID).and_then(|call| call.parse().ok());
    let request = cx.extensions.get::<Parts>().and_then(|head| head.headers.get("x-request-id"));
    let request = request.and_then(|request| request.to_str().ok()).map(str::to_owned);
    CallOptions { within, context, request, ..CallOptions::default() }
}

fn knows_tasks(cx: &RequestContext<RoleServer>) -> bool {
    cx.client_capabilities().is_some_and(|declared| declared.supports_tasks())
}

/// How the wait for a call ended.
enum Ended {
    Answered(Result<CallAnswer, ApiError>),
    Kept(Task),
}

/// Makes a call that becomes a task where it has not ended after so long.
async fn kept_after(
    node: &ServerState,
    (agent, input, options): (&str, &Value, CallOptions),
    after: Duration,
    tool: Option<String>,
) -> Ended {
    let mut call = match node.tasks.open(agent, input, options) {
        Ok(call) => call,
        Err(error) => return Ended::Answered(Err(error)),
    };
    if let Ok(answer) = timeout(after, call.ended()).await {
        return Ended::Answered(answer);
    }
    if let Err(error) = call.keep(tool).await {
        // Whoever waits goes on to wait.
        tracing::debug!(code = %error.code, "a call does not become a task: {}", error.message);
    }
    match call.task() {
        Some(task) => Ended::Kept(task),
        None => Ended::Answered(call.ended().await),
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
    is_async: bool,
    conversation: Option<Conversation>,
    priority: i8,
}

fn judge(call: Call) -> Result<Judged, CallFailure> {
    let input = input_of(call.task, call.input)?;
    let conversation = call.conversation.map(|id| id.parse::<Conversation>()).transpose();
    Ok(Judged {
        agent: call.agent,
        input,
        timeout: judge_timeout(call.timeout)?,
        is_async: call.is_async,
        conversation: conversation.map_err(|error| bad_input(format!("`conversation`: {error}")))?,
        priority: call.priority,
    })
}

fn input_of(task: Option<String>, input: Option<Value>) -> Result<Value, CallFailure> {
    match (task, input) {
        (Some(task), None) => Ok(json!({"task": task})),
        (None, Some(input)) => Ok(input),
        // With both, nobody could say which of them counts.
        _ => Err(bad_input("give either `task` or `input`".into())),
    }
}

fn judge_timeout(timeout: Option<f64>) -> Result<Option<Duration>, CallFailure> {
    let judge = |seconds| {
        // Zero would end the call before it begins.
        let timeout = Duration::try_from_secs_f64(seconds).ok().filter(|timeout| !timeout.is_zero());
        timeout.ok_or_else(|| bad_input(format!("`timeout`: {seconds} is no number of seconds above 0")))
    };
    timeout.map(judge).transpose()
}

/// Does the work and tells how it stands where the client gave a token.
async fn told<T>(
    node: &ServerState,
    cx: &RequestContext<RoleServer>,
    options: CallOptions,
    work: impl AsyncFnOnce(CallOptions) -> T,
) -> T {
    let Some(token) = cx.meta.get_progress_token() else { return work(options).await };
    let (sender, reports) = mpsc::channel(REPORTS_MAX);
    tokio::select! {
        // The work first: once it is done, reports that still wait must not hold the answer up.
        biased;
        done = work(CallOptions { reports: Some(sender), ..options }) => done,
        never = forward(reports, token, &cx.peer, node.patience.report_every) => match never {},
    }
}

/// Says at once, whenever something changes, and from time to time how a call stands: hosts count silence, also that of agents
/// that never say anything.
async fn forward(
    mut reports: mpsc::Receiver<Report>,
    token: ProgressToken,
    peer: &Peer<RoleServer>,
    every: Duration,
) -> std::convert::Infallible {
    let (began, mut message, mut is_open) = (Instant::now(), "submitted".to_owned(), true);
    let mut last = -1.0;
    loop {
        // Each has to be greater than the one before.
        let elapsed = began.elapsed().as_millis() as f64 / 1_000.0;
        last = if elapsed > last { elapsed } else { last + 0.001 };
        let mut param = ProgressNotificationParam::new(token.clone(), last);
        param.message = Some(clean_short(&message, MESSAGE_BYTES_MAX));
        // A client that has gone is noticed where the answer is sent.
        let _gone = peer.notify_progress(param).await;
        message = tokio::select! {
            report = reports.recv(), if is_open => match report {
                Some(report) => standing(report).unwrap_or(message),
                // The reports may end before the work does, but only its answer may win the race.
                None => {
                    is_open = false;
                    message
                }
            },
            () = sleep(every) => message,
        };
    }
}

/// How a call stands, in words; none where that is as before.
fn standing(report: Report) -> Option<String> {
    match report {
        Report::Queued { ahead } => Some(format!("queued, {ahead} ahead")),
        Report::Working { host } => Some(format!("working at {host}")),
        Report::Progress(Progress { message: Some(message), .. }) => Some(message),
        Report::Progress(Progress { progress, total: Some(total), .. }) => {
            Some(format!("{progress:.1} of {total:.1}"))
        }
        Report::Progress(Progress { progress, .. }) => Some(format!("{progress:.1}")),
        Report::Partial(_) => None,
    }
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
