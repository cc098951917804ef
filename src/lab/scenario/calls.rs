//! What the clients of a scenario call, and how the hosts of the agent do.

use std::time::Duration;

use serde::Deserialize;

use super::values::{count, duration, optional_duration};
use crate::proto::card::Balance;
use crate::sim::WorkLength;

/// Calls of one agent that runs at the first nodes, by the last nodes. They begin when all know it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calls {
    /// Nodes that run the agent, from the first on.
    #[serde(deserialize_with = "count")]
    pub hosts: usize,
    /// Nodes that call it, up to the last; their clients come by chance, all alike.
    #[serde(deserialize_with = "count")]
    pub callers: usize,
    /// Calls that a host works on at once.
    #[serde(deserialize_with = "count")]
    pub places: usize,
    /// Calls that arrive, of those that the hosts that do not fail can do. 1 is all of it.
    pub load: f64,
    /// How long they arrive.
    #[serde(deserialize_with = "duration", rename = "for")]
    pub span: Duration,
    /// How long the agent works, before the speed of its host.
    pub work: WorkLength,
    /// How long a client waits.
    #[serde(deserialize_with = "duration")]
    pub patience: Duration,
    /// In which order hosts are asked.
    #[serde(default)]
    pub balance: Balance,
    /// How much faster each host is than the first, in turn; all alike by default.
    #[serde(default)]
    pub speeds: Vec<f64>,
    /// How often a call may be repeated, and whether it may run again.
    #[serde(default)]
    pub repeats: u32,
    /// See `repeats`.
    #[serde(default)]
    pub idempotent: bool,
    /// Whether the work goes on though the caller is gone for a time.
    #[serde(default)]
    pub detached: bool,
    /// Hosts whose agent fails at once, and the share of its runs that do; the first hosts.
    #[serde(default)]
    pub failing: usize,
    /// See `failing`.
    #[serde(default = "all")]
    pub failing_share: f64,
    /// A time in which more arrive, and how many times as many.
    #[serde(default)]
    pub crowd: Option<Crowd>,
    /// What the first of the callers asks for beyond its part, of what the hosts can do.
    #[serde(default)]
    pub greedy: f64,
    /// Hosts that are gone for a time, the last ones.
    #[serde(default)]
    pub gone: Option<Gone>,
    /// Only calls made from here on count, since the first.
    #[serde(default, deserialize_with = "optional_duration")]
    pub from: Option<Duration>,
}

/// More calls than usual.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crowd {
    /// When, since the first call.
    #[serde(deserialize_with = "duration")]
    pub at: Duration,
    /// How long.
    #[serde(deserialize_with = "duration", rename = "for")]
    pub span: Duration,
    /// How many times as many.
    pub times: f64,
}

/// Hosts that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gone {
    /// How many.
    #[serde(deserialize_with = "count")]
    pub hosts: usize,
    /// When, since the first call.
    #[serde(deserialize_with = "duration")]
    pub at: Duration,
    /// How long.
    #[serde(deserialize_with = "duration", rename = "for")]
    pub span: Duration,
    /// In which way.
    pub how: How,
}

/// How a host is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// Its process is killed, and started again after.
    Kill,
    /// It stands still.
    Freeze,
    /// Nothing passes between it and the callers.
    Cut,
}

fn all() -> f64 {
    1.0
}
