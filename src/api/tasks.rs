//! Tasks: calls that are asked for now and looked at later, and batches.

use serde::{Deserialize, Serialize};

use super::CallAnswer;
pub use crate::proto::task::TaskStatus;

/// Answer of `POST /v1/call/{agent}?async=true`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Submitted {
    /// Names the task from now on.
    pub task_id: String,
    /// `submitted`.
    pub status: TaskStatus,
}

/// Answer of `GET` and `DELETE /v1/tasks/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its id.
    pub task_id: String,
    /// The agent, as it was asked for.
    pub agent: String,
    /// How it stands.
    pub status: TaskStatus,
    /// The conversation that it is part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<String>,
    /// When it was asked for, milliseconds since the Unix epoch.
    pub submitted_ms: u64,
    /// When it is given up at the latest, milliseconds since the Unix epoch.
    pub deadline_ms: u64,
    /// When it ended, milliseconds since the Unix epoch; null where it has not.
    pub ended_ms: Option<u64>,
    /// How many calls wait before it; only where it is queued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<u32>,
    /// PeerId of the host that has it; null where none has.
    pub served_by: Option<String>,
    /// What the agent last said of its progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How its call ended; left out in lists, and where it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<CallAnswer>,
}

/// Answer of `GET /v1/tasks`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskPage {
    /// Newest first, without their answers.
    pub tasks: Vec<Task>,
    /// Pass it back for the next page; null on the last.
    pub cursor: Option<String>,
}

/// Body of `POST /v1/batch`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// At most 1,000.
    pub calls: Vec<BatchCall>,
}

/// One call of a [`Batch`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchCall {
    /// The agent.
    pub agent: String,
    /// Its own input document.
    #[serde(default)]
    pub input: serde_json::Value,
}

/// Answer of `POST /v1/batch`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BatchAnswer {
    /// How each call ended, in the order of the calls.
    pub results: Vec<CallAnswer>,
}
