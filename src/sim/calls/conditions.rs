//! How calls go in a world: what its streams do, how agents work, and what clients call.

use rand::{Rng, RngExt};
use serde::Deserialize;

use crate::proto::card::Balance;
use crate::proto::name::FullName;

/// How calls go in a world.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallConditions {
    /// Share of streams that cannot be opened though the host is there, 0 to 1.
    pub refused: f64,
    /// Share of streams that the host's queue of new streams drops without a word, 0 to 1.
    pub dropped: f64,
    /// Share of frames that break their stream, 0 to 1.
    pub breaks: f64,
    /// Share of frames that stall, 0 to 1.
    pub stalls: f64,
    /// Share of the ends of broken streams that never learn of it, 0 to 1.
    pub unnoticed: f64,
    /// How long the others take to learn of it at most, milliseconds.
    pub detection_ms_max: u64,
    /// How long agents work.
    pub work: WorkLength,
    /// Share of work that ends with the agent's failure, 0 to 1.
    pub fails: f64,
    /// Calls that an agent works on at once, at least 1.
    pub places: usize,
    /// Calls that wait for a place at most.
    pub queue_max: usize,
}

/// How long an agent works on a call, drawn for each.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkLength {
    /// Up to so many milliseconds: each length is as likely as one of half its size.
    UpTo(u64),
    /// So many milliseconds in the mean, exponentially.
    Exponential(f64),
    /// As a language model: lognormal around 4 s, from 0.5 to 60 s.
    Llm,
}

/// How a node runs its agents.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HostTraits {
    /// How much faster it works than others.
    pub speed: f64,
    /// Share of runs that fail at once, 0 to 1.
    pub fails_at_once: f64,
}

impl Default for WorkLength {
    fn default() -> WorkLength {
        WorkLength::UpTo(0)
    }
}

impl Default for HostTraits {
    fn default() -> HostTraits {
        HostTraits { speed: 1.0, fails_at_once: 0.0 }
    }
}

impl WorkLength {
    /// The mean of what is drawn, milliseconds.
    pub fn mean_ms(self) -> f64 {
        match self {
            WorkLength::UpTo(most) => most as f64 / (most.max(2) as f64).log2(),
            WorkLength::Exponential(mean) => mean,
            // By numbers: the cut takes little from the mean of e^(ln 4 s + 1/2).
            WorkLength::Llm => 6_500.0,
        }
    }

    pub(super) fn draw(self, rng: &mut impl Rng) -> u64 {
        let even = |rng: &mut dyn FnMut() -> f64| 1.0 - rng();
        match self {
            WorkLength::UpTo(most) => {
                let halvings = rng.random_range(0..=most.max(1).ilog2());
                rng.random_range(0..=most >> halvings)
            }
            WorkLength::Exponential(mean) => (-even(&mut || rng.random::<f64>()).ln() * mean).ceil() as u64,
            WorkLength::Llm => {
                let (one, other) = (even(&mut || rng.random::<f64>()), rng.random::<f64>());
                let normal = (-2.0 * one.ln()).sqrt() * (std::f64::consts::TAU * other).cos();
                (4_000.0 * normal.exp()).clamp(500.0, 60_000.0) as u64
            }
        }
    }
}

/// What a client of one node calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCall {
    /// The node that offered the agent.
    pub host: usize,
    /// The agent.
    pub agent: FullName,
    /// Other nodes that run it, too. No record says so: which hosts an owner let in is not what worlds of calls are about.
    pub also: Vec<usize>,
    /// Bytes of the input.
    pub size: usize,
    /// How long the client gives the call, milliseconds.
    pub patience_ms: u64,
    /// After how long it does not wait any more, milliseconds.
    pub gives_up_ms: Option<u64>,
    /// Whether the work goes on though the caller is gone for a time.
    pub is_detached: bool,
    /// In which order hosts are asked.
    pub balance: Balance,
    /// How often it may be repeated at most.
    pub repeats_max: u32,
    /// Whether the agent may run it again.
    pub is_idempotent: bool,
}
