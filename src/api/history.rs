//! How the last hour or day went.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Query of `GET /v1/history`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct HistoryQuery {
    /// Seconds of a step: 10 for an hour, which is the default, or 120 for a day.
    #[serde(default)]
    pub step: Option<u64>,
    /// `zone:NAME` or `agent:NAME@ZONE` for an hour of one of them by minutes.
    #[serde(default)]
    pub of: Option<String>,
}

/// Answer of `GET /v1/history`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Seconds from one value to the next.
    pub step_s: u64,
    /// When the last step ended, milliseconds since the Unix epoch.
    pub end_ms: u64,
    /// Values of each series, oldest first; null where nothing is known.
    pub series: BTreeMap<String, Vec<Option<f32>>>,
}
