//! A tool that answers with a task (MCP tasks extension): its state is asked for until it has a result.

use std::time::Duration;

use rmcp::model::{CancelTaskParams, GetTaskParams, Task, TaskPayload};
use serde_json::Value;
use tokio::time::sleep;

use super::answer;
use super::session::Connection;
use crate::agents::Invocation;
use crate::proto::call::{CallFailure, Outcome, Progress, Report};

/// Shortest pause between two questions, whatever a server asks for: twenty a second for each call.
const PAUSE_LEAST: Duration = Duration::from_millis(50);
/// Longest, so that a result is not left lying.
const PAUSE_MOST: Duration = Duration::from_secs(10);
/// The pause where the server asks for none.
const PAUSE: Duration = Duration::from_secs(1);

/// Waits for the result of a task. Dropping the future cancels the task at the server.
pub(super) async fn follow(
    connection: &Connection,
    task: Task,
    invocation: &Invocation,
) -> Result<Value, CallFailure> {
    let mut open = OpenTask { connection, id: Some(task.task_id.clone()) };
    let (id, mut pause, mut asked) = (task.task_id, task.poll_interval_ms, 0);
    let ended = loop {
        let wait = pause.map_or(PAUSE, Duration::from_millis).clamp(PAUSE_LEAST, PAUSE_MOST);
        tokio::select! {
            () = sleep(wait) => {}
            () = connection.closed.cancelled() => {
                // Nobody is left to cancel it at.
                open.id = None;
                return Err(answer::upstream_failed(Outcome::Unknown, "was lost while the call was waiting"));
            }
        }
        let state = connection.peer.get_task(GetTaskParams::new(id.clone())).await;
        let state = state.map_err(|error| begun(connection.failure(&error)))?.task;
        asked += 1;
        match state.payload {
            TaskPayload::Completed { result } => {
                break answer::read_document(Value::Object(result), &connection.secrets);
            }
            TaskPayload::Failed { error } => break Err(failed_with(&Value::Object(error), connection)),
            TaskPayload::Cancelled => {
                break Err(answer::failed("the MCP server cancelled the task of the tool"));
            }
            TaskPayload::InputRequired { .. } => {
                // Ends with the task cancelled: nobody will ever answer.
                return Err(answer::failed("the tool asks for more input, which a call cannot give"));
            }
            _ => tell(invocation, asked, state.task.status_message.as_deref(), connection),
        }
        pause = state.task.poll_interval_ms;
    };
    open.id = None;
    ended
}

/// Whatever becomes of the questions, the work has begun.
fn begun(failure: CallFailure) -> CallFailure {
    match failure.outcome {
        Outcome::NotStarted => CallFailure { outcome: Outcome::Unknown, ..failure },
        _ => failure,
    }
}

fn failed_with(error: &Value, connection: &Connection) -> CallFailure {
    let words = error.get("message").and_then(Value::as_str).unwrap_or_default();
    let words = connection.secrets.hide(words);
    answer::failed(if words.is_empty() { "the tool's task failed and does not say why" } else { &words })
}

/// A server that says how it stands is passed on; reports are only a hint.
fn tell(invocation: &Invocation, asked: u32, message: Option<&str>, connection: &Connection) {
    if let (Some(reports), Some(message)) = (&invocation.reports, message) {
        let message = Some(connection.secrets.hide(message));
        let progress = Progress { progress: f64::from(asked), total: None, message };
        let _full = reports.try_send(Report::Progress(progress));
    }
}

/// A task that has not ended. Dropped, it is cancelled at the server.
struct OpenTask<'a> {
    connection: &'a Connection,
    id: Option<String>,
}

impl Drop for OpenTask<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        // A drop while the runtime ends has nobody left to send the cancellation.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let peer = self.connection.peer.clone();
            runtime.spawn(async move {
                if let Err(error) = peer.cancel_task(CancelTaskParams::new(id)).await {
                    tracing::debug!(%error, "a task of an MCP server is not cancelled");
                }
            });
        }
    }
}
