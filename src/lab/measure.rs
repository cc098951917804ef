//! What a run is measured by: named numbers, the curve of its spread, and who learnt it when.

mod figure;

use std::collections::BTreeMap;

pub use figure::{Better, Unit};

use super::scenario::Tier;

/// A named number of a run.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// As it stands in files and results.
    pub name: &'static str,
    /// What it says, with its unit.
    pub says: &'static str,
    /// The tiers that measure it.
    pub tiers: &'static [Tier],
}

const ALL: &[Tier] = &[Tier::Model, Tier::Core, Tier::Mesh];
const MODEL: &[Tier] = &[Tier::Model];
const CORE: &[Tier] = &[Tier::Core];

const fn metric(name: &'static str, says: &'static str, tiers: &'static [Tier]) -> Metric {
    Metric { name, says, tiers }
}

/// Every metric there is.
pub const METRICS: &[Metric] = &[
    metric("coverage", "share of (node, update) pairs that came together in the end", ALL),
    metric("complete", "share of nodes that have every update in the end", ALL),
    metric("rounds", "rounds until the last node that is reached knows the last update", MODEL),
    metric("rounds.p50", "rounds until half of the nodes know an update", MODEL),
    metric("rounds.p99", "rounds until 99 % of the nodes know an update", MODEL),
    metric("latency_ms.p50", "milliseconds from writing an update to a node's learning it, median", ALL),
    metric(
        "latency_ms.p99",
        "milliseconds from writing an update to a node's learning it, 99th percentile",
        ALL,
    ),
    metric(
        "latency_ms.p100",
        "milliseconds from writing an update until the last node that is reached learns it",
        ALL,
    ),
    metric("hops", "most links on the way of an update to a node", MODEL),
    metric("messages_per_node", "copies of updates sent per node and update", ALL),
    metric("bytes_per_node", "bytes sent per node and update", ALL),
    metric("duplicates", "copies of an update a node receives beyond the first, mean", ALL),
    metric("holes", "share of (node, update) pairs that repair will never bring together", MODEL),
    metric("stale", "share of online nodes that lack an update, mean over time", MODEL),
    metric("healed_ms", "milliseconds from the end of the last fault until all agree", ALL),
    metric("repaired", "records that came by sync and not by the mesh, per node", CORE),
    metric("traffic_bytes_per_s", "bytes a node sends per second of rest, registry traffic", CORE),
    metric("syncs", "reconciliations per node and hour", CORE),
    metric("zombies", "withdrawn agents that some node still serves in the end", CORE),
    metric("lost_writes", "acknowledged offers that some node does not serve in the end", CORE),
    metric("refused_writes", "own writes that nodes refused, with a clear error", CORE),
    metric("blamed", "honest nodes that an honest node blamed", CORE),
    metric("penalties", "times that an honest node blamed a node of an adversary", CORE),
    metric("foreign_records", "records of an adversary held per honest node in the end", CORE),
    metric("forks_seen", "share of honest nodes that saw the proof of a forked author", CORE),
    metric("questions", "questions of clients that were answered", CORE),
    metric("questions_complete", "share of the answers to searches that call themselves complete", CORE),
    metric("questions_wrong", "answers that call themselves complete and lack something", CORE),
    metric("questions_decided", "share of the names asked for that were found, or rightly denied", CORE),
    metric("question_ms.p50", "milliseconds until a question is answered, median", CORE),
    metric("question_ms.p99", "milliseconds until a question is answered, 99th percentile", CORE),
    metric("question_messages.p50", "messages that nodes send for a question, median", CORE),
    metric("question_messages.p99", "messages that nodes send for a question, 99th percentile", CORE),
    metric("question_messages.p100", "messages that nodes send for a question, most", CORE),
    metric(
        "root_questions",
        "questions that a node of the root is asked by others, for each of a client",
        CORE,
    ),
    metric("root_bytes_per_s", "bytes a node of the root sends per second of rest", CORE),
    metric("member_bytes_per_s", "bytes a node that is no gateway sends per second of rest", CORE),
    metric("calls", "calls that clients made, of those that count", CORE),
    metric("calls_ok", "share of the calls that were answered", CORE),
    metric("calls_others_ok", "the same without those of the greedy caller", CORE),
    metric("calls_wait_ms.p50", "milliseconds until the agent begins, median of the answered calls", CORE),
    metric(
        "calls_wait_ms.p99",
        "milliseconds until the agent begins, 99th percentile of the answered calls",
        CORE,
    ),
    metric("calls_others_wait_ms.p99", "the same without those of the greedy caller", CORE),
    metric("calls_goodput", "work that was answered, of what the hosts that do not fail could do", CORE),
    metric("calls_wasted", "share of the work that nobody had an answer from", CORE),
    metric("calls_offers", "offers that were made for a call, mean", CORE),
    metric("calls_after_crowd_ok", "share of the calls answered from a minute after the crowd on", CORE),
    metric("calls_late_ok", "share of the calls answered of the last third of the time", CORE),
    metric("calls_unknown", "calls of which nobody can say whether they ran", CORE),
    metric("node_hours", "hours that nodes lived, virtual", CORE),
];

/// Metrics by name.
pub type Metrics = BTreeMap<String, f64>;

/// What a run found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// Hash over everything that happened: equal for equal runs, and only for them.
    pub trace: u64,
    /// Named numbers.
    pub metrics: Metrics,
    /// Share of nodes that know the first update, by time: (round or milliseconds, share).
    pub curve: Vec<(f64, f64)>,
    /// When each node learnt the first update, if there are few enough to draw.
    pub spread: Option<Spread>,
}

/// When each node learnt an update, for an animation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spread {
    /// Milliseconds (or rounds) after it was written; none: never.
    pub seen: Vec<Option<u32>>,
    /// Region of each node; empty without regions.
    pub regions: Vec<u8>,
}

/// Nodes of which a spread is kept.
pub const SPREAD_MAX: usize = 10_000;
/// Points of which a curve consists at most.
pub const CURVE_MAX: usize = 200;

/// Why a run ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The checker's name, kebab-case.
    pub check: String,
    /// Virtual milliseconds since the start.
    pub at_ms: u64,
    /// What was seen.
    pub detail: String,
    /// What it is that is missing.
    pub missing: Missing,
}

/// What a broken run lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A promise that must hold at any time did not.
    Safety,
    /// Everything was healed, and the world did not come to agree.
    Progress,
}

/// The value below which this share of sorted values lies; the greatest for 1.
pub fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    // Rounded up to a value that was measured, not to a mean between two.
    Some(sorted[((last as f64 * share).ceil() as usize).min(last)])
}
