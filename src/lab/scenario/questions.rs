//! What the clients of a scenario ask.

use std::time::Duration;

use serde::Deserialize;

use super::values::{count, optional_duration};
use crate::proto::name::ZoneName;

/// Questions of clients, each at a random node that is up; every answer is judged. Nodes of such a world can be dialed, so that
/// its zones have gateways.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Questions {
    /// How many in all.
    #[serde(deserialize_with = "count")]
    pub count: usize,
    /// How many a second, all nodes together.
    pub rate: f64,
    /// When the first is asked; by default as soon as the world stands.
    #[serde(default, deserialize_with = "optional_duration")]
    pub at: Option<Duration>,
    /// Share of them that ask for one agent by its full name, 0 to 1. The others search: half of them everywhere, half in some
    /// zone and below.
    #[serde(default = "some")]
    pub names: f64,
    /// Only nodes that serve this zone are asked.
    #[serde(default)]
    pub zone: Option<ZoneName>,
    /// Where all of them search.
    #[serde(default)]
    pub scope: Option<ZoneName>,
    /// The exponent of Zipf's law, by which some things are asked more often than others; without one all are asked alike.
    #[serde(default)]
    pub zipf: Option<f64>,
}

fn some() -> f64 {
    0.3
}
