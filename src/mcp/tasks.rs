//! Tasks through MCP: the tools `get_task_status` and `cancel_task`, named and answered as those of the paper's authors; and the
//! tasks extension of the newest revision. Both look into the node's one book of tasks.

use std::time::{Duration, UNIX_EPOCH};

use rmcp::ErrorData;
use rmcp::model::{
    CallToolResult, CreateTaskResult, DetailedTask, GetTaskResult, JsonObject, Task, TaskPayload,
    TaskStatus as Status,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::ServerState;
use super::calls::{MESSAGE_BYTES_MAX, answered};
use super::discovery::{Answer, bad_input, read, refused};
use super::schema::object;
use crate::api::{self, TaskStatus};
use crate::proto::code::Code;
use crate::sanitize::clean_short;

/// Longest `wait` of `get_task_status`: below what clients wait for an answer.
const WAIT_MAX: Duration = Duration::from_secs(50);
/// How often a client that polls is advised to ask.
const POLL_MS: u64 = 2_000;
/// How long a task is there at the longest: a day of work, and an hour for its answer.
const TTL_MS: u64 = 25 * 60 * 60 * 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    task_id: String,
    /// Clients of the authors' tools name the queue; here an id is enough.
    #[serde(default, rename = "agent_name")]
    _agent: Option<String>,
    #[serde(default)]
    wait: Option<f64>,
}

/// `get_task_status`.
pub(super) async fn status(node: &ServerState, arguments: &JsonObject) -> Answer {
    let asked: Asked = read(arguments)?;
    let seconds = asked.wait.unwrap_or(0.0);
    let wait = Duration::try_from_secs_f64(seconds).ok().filter(|wait| *wait <= WAIT_MAX);
    let wait = wait.ok_or_else(|| {
        bad_input(format!("`wait`: {seconds} is no number of seconds from 0 to {}", WAIT_MAX.as_secs()))
    })?;
    let task = node.tasks.show(&asked.task_id, wait).await.map_err(refused)?;
    Ok(record(&task))
}

/// `cancel_task`.
pub(super) async fn cancel(node: &ServerState, arguments: &JsonObject) -> Answer {
    let asked: Asked = read(arguments)?;
    if asked.wait.is_some() {
        return Err(bad_input("`wait`: a cancel waits for the end anyway".into()));
    }
    let task = node.tasks.cancel(&asked.task_id).await.map_err(refused)?;
    let message = match task.status {
        TaskStatus::Cancelled => "the task was cancelled".to_owned(),
        status => format!("the task had ended before: {}", status.text()),
    };
    Ok(json!({
        "success": task.status == TaskStatus::Cancelled,
        "task_id": task.task_id,
        "status": task.status,
        "message": message,
    }))
}

/// What a call reads as that goes on as a task.
pub(super) fn handed_over(task_id: &str, status: TaskStatus) -> Value {
    json!({"status": status, "task_id": task_id, "next": "get_task_status"})
}

/// A task in our words, and under `task` in those of the authors.
fn record(task: &api::Task) -> Value {
    let answer = task.answer.as_ref();
    let error = answer.and_then(|answer| answer.error.as_ref());
    let result = answer.filter(|answer| answer.success).map(|answer| &answer.result);
    let theirs = match task.status {
        TaskStatus::Submitted | TaskStatus::Queued => "pending",
        TaskStatus::Working => "processing",
        TaskStatus::Completed => "completed",
        TaskStatus::Failed | TaskStatus::Unknown => "failed",
        TaskStatus::Cancelled => "cancelled",
    };
    let message = error.map(|error| clean_short(&error.message, MESSAGE_BYTES_MAX));
    let said = task.message.as_ref().map(|said| clean_short(said, MESSAGE_BYTES_MAX));
    let mut shown = object(json!({
        "success": true,
        "task_id": task.task_id,
        "agent_name": task.agent,
        "status": task.status,
        "served_by": task.served_by,
        "task": {
            "task_id": task.task_id,
            "status": theirs,
            "created_at": task.submitted_ms as f64 / 1_000.0,
            "result": result,
            "error": message,
        },
    }));
    let more = [
        ("ahead", json!(task.ahead)),
        ("message", json!(said)),
        ("result", json!(result)),
        ("error", json!(message)),
        ("code", json!(error.map(|error| error.code))),
        ("outcome", json!(answer.and_then(|answer| answer.outcome))),
    ];
    shown.extend(
        more.into_iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.to_owned(), value)),
    );
    if !task.status.is_end() {
        shown.insert("next".into(), "get_task_status".into());
    }
    Value::Object(shown)
}

/// The answer to a client that knows tasks, whose call goes on as this one.
pub(super) fn created(task: &api::Task) -> CreateTaskResult {
    CreateTaskResult::new(head(task))
}

/// `tasks/get` of the extension.
pub(super) async fn get(node: &ServerState, id: &str) -> Result<GetTaskResult, ErrorData> {
    let task = node.tasks.show(id, Duration::ZERO).await.map_err(unknown)?;
    let payload = match task.status {
        TaskStatus::Submitted | TaskStatus::Queued | TaskStatus::Working => TaskPayload::Working,
        TaskStatus::Cancelled => TaskPayload::Cancelled,
        TaskStatus::Unknown => {
            let message = task.answer.as_ref().and_then(|answer| answer.error.as_ref());
            let message =
                message.map_or("nobody knows whether the agent did it", |error| error.message.as_str());
            // Not a result: a model must not take it for an answer of the agent.
            TaskPayload::Failed { error: object(json!({"code": -32603, "message": message})) }
        }
        TaskStatus::Completed | TaskStatus::Failed => {
            let tool = node.tasks.note_of(id);
            let result = answered(node, tool.as_deref(), task.answer.clone().unwrap_or_default());
            TaskPayload::Completed { result: object(json!(result)) }
        }
    };
    Ok(GetTaskResult::new(DetailedTask::new(head(&task), payload)))
}

/// `tasks/cancel` of the extension.
pub(super) async fn end(node: &ServerState, id: &str) -> Result<(), ErrorData> {
    node.tasks.cancel(id).await.map(|_ended| ()).map_err(unknown)
}

fn unknown(error: api::ApiError) -> ErrorData {
    match error.code {
        Code::NotFound => ErrorData::invalid_params(error.message, None),
        _ => ErrorData::internal_error(error.message, None),
    }
}

fn head(task: &api::Task) -> Task {
    let now = UNIX_EPOCH + Duration::from_millis(task.ended_ms.unwrap_or(task.submitted_ms));
    let created = UNIX_EPOCH + Duration::from_millis(task.submitted_ms);
    let date = |at| humantime::format_rfc3339_millis(at).to_string();
    let mut head = Task::new(task.task_id.as_str(), Status::Working, date(created), date(now))
        .with_status_message(standing(task))
        .with_poll_interval_ms(POLL_MS);
    head.ttl_ms = Some(TTL_MS);
    head
}

fn standing(task: &api::Task) -> String {
    match (task.status, task.ahead, &task.served_by) {
        (TaskStatus::Queued, Some(ahead), _) => format!("queued, {ahead} ahead"),
        (TaskStatus::Working, _, Some(host)) => format!("working at {host}"),
        (status, ..) => status.text().to_owned(),
    }
}

/// A call that became a task at once, as a tool answers it.
pub(super) fn submitted(submitted: &api::Submitted) -> CallToolResult {
    CallToolResult::structured(handed_over(&submitted.task_id, submitted.status))
}
