//! Queues: what the agents of a node have to do, and what its operator did with that.

use serde::{Deserialize, Serialize};

/// Answer of `GET /v1/queues/{agent}` and of the routes below it, as it is then.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Queue {
    /// Full name of the agent.
    pub agent: String,
    /// Calls with a place: at work, or with their inputs on the way.
    pub running: usize,
    /// Calls that wait for a place.
    pub queued: usize,
    /// Calls that it works on at once at most.
    pub places: usize,
    /// Whether no call is begun until the queue is resumed.
    pub paused: bool,
    /// What a call takes in the mean, milliseconds; null before the first has ended.
    pub mean_work_ms: Option<f64>,
    /// Runs that failed through the agent: in a row, or since it is held to fail.
    pub failing: u32,
    /// Runs that succeeded since the agent runs here as its file says now.
    pub completed: u64,
    /// Runs that failed through the agent since then.
    pub failed: u64,
    /// Waiting calls that this request ended; only in the answer to `clear`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleared: Option<usize>,
}

/// Answer of `GET /v1/queues`, and of what is done to all queues.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Queues {
    /// Of every agent that runs here, by name.
    pub queues: Vec<Queue>,
    /// Waiting calls that this request ended in all of them; only in the answer to `clear`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleared: Option<usize>,
}
