//! Calls (protocol section 5): how one ended.

use serde::{Deserialize, Serialize};

/// What is known of the work when a call gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The agent never saw the input; calling again is safe.
    NotStarted,
    /// The agent may have done some or all of the work.
    Unknown,
    /// The agent ended, with a failure.
    Done,
}

/// A call that gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message} ({code})")]
pub struct CallFailure {
    /// Stable code: `bad_input`, `bad_output`, `busy`, `deadline`, `agent_failed`, `start_failed`, `upstream_failed`,
    /// `not_callable`, `not_allowed`, `unreachable`, `cancelled`, `not_found`, `too_large`, `internal`.
    pub code: String,
    /// What, why, and what to do.
    pub message: String,
    /// What is known of the work.
    pub outcome: Outcome,
}

impl CallFailure {
    /// A failure; the message says what to do where there is something to do.
    pub fn new(code: &str, outcome: Outcome, message: impl Into<String>) -> CallFailure {
        CallFailure { code: code.into(), message: message.into(), outcome }
    }
}

/// How far the work of a call is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Grows with every report.
    pub progress: f64,
    /// What `progress` reaches at the end, if known.
    pub total: Option<f64>,
    /// For people.
    pub message: Option<String>,
}
