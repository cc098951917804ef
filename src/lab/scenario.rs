//! A scenario: one question about the protocol, the world in which it is asked, and what is expected of the answer.
//!
//! A file of `simulations/` is one [`Scenario`]. Unknown keys are errors, a time has a unit, and what a tier cannot
//! do is refused (`check`). Its sweep multiplies it into cells (`file`), each a scenario of its own without a sweep.
//! Where the paper says something that can be measured, a [`Claim`](Scenario::claims) tests its own words, while an
//! [`Expectation`](Scenario::expectations) says what this implementation must show: a claim may fail, an expectation
//! may not.

mod answer;
mod calls;
mod check;
mod fault;
mod file;
mod questions;
mod values;
mod zone;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

pub use answer::{Figure, Template};
pub use calls::{Calls, Crowd, Gone, How};
pub use fault::{Fault, FaultKind, Groups, Who};
pub use file::{Cell, Document, Flaw};
pub use questions::Questions;
pub use values::{Latency, Rounds, label, plain};
pub use zone::{NodeSet, Zone};

pub use crate::sim::LossMode;
pub use crate::sim::regions::Regions;

use crate::sim::Graph;
use values::{count, dotted, optional_count, optional_duration};

/// What plays a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// The tight epidemic model: 10^3 to 10^7 nodes, one record or many, no clocks and no content.
    Model,
    /// Real [`Node`](crate::proto::node::Node)s on a virtual clock: up to about 10^4.
    Core,
    /// Whole live nodes over real libp2p in virtual time: up to 10^3, in a program of their own.
    Mesh,
}

impl Tier {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Tier::Model => "model",
            Tier::Core => "core",
            Tier::Mesh => "mesh",
        }
    }
}

/// One question, the world it is asked in, what is measured.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// One label, the same as the file's.
    pub name: String,
    /// What is to be found out, in a sentence.
    pub question: String,
    /// Whose claim it tests, for example `paper 7.6`.
    pub claim: String,
    /// The answer with places for figures: a [`Template`].
    #[serde(default)]
    pub answer: Option<String>,
    /// What plays it.
    pub tier: Tier,
    /// Which seeds; each is a run.
    #[serde(default)]
    pub seeds: Seeds,
    /// Virtual time at which a run ends at the latest; by default as long as the tier needs.
    #[serde(default, deserialize_with = "optional_duration")]
    pub until: Option<Duration>,
    /// Nodes and links.
    pub network: Network,
    /// How updates spread.
    pub protocol: Protocol,
    /// Zones and who serves them; without any, all nodes are members of the root zone.
    #[serde(default, rename = "zone")]
    pub zones: Vec<Zone>,
    /// What is written.
    #[serde(default)]
    pub workload: Workload,
    /// What clients ask; nothing if none.
    #[serde(default)]
    pub questions: Option<Questions>,
    /// What clients call; nothing if none.
    #[serde(default)]
    pub calls: Option<Calls>,
    /// What goes wrong.
    #[serde(default, rename = "fault")]
    pub faults: Vec<Fault>,
    /// Keys of this file and the values each takes in turn; several keys make a cross product.
    #[serde(default, deserialize_with = "dotted")]
    pub sweep: BTreeMap<String, Vec<toml::Value>>,
    /// The formula to draw beside the curves.
    #[serde(default)]
    pub theory: Option<Theory>,
    /// What the paper says, as a test: reported, never a failure.
    #[serde(default, rename = "claims")]
    pub claims: Vec<Expectation>,
    /// What must be measured: not met is a failure.
    #[serde(default, rename = "expect")]
    pub expectations: Vec<Expectation>,
}

impl Scenario {
    /// With each zone that stands for many as these.
    fn dealt(mut self) -> Scenario {
        let nodes = self.network.nodes;
        self.zones = self.zones.into_iter().flat_map(|zone| zone.dealt(nodes)).collect();
        self
    }
}

/// Seeds `from`, `from + 1`, …, `count` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seeds {
    /// The first.
    #[serde(default = "one")]
    pub from: u64,
    /// How many.
    #[serde(deserialize_with = "count")]
    pub count: usize,
}

impl Default for Seeds {
    fn default() -> Seeds {
        Seeds { from: 1, count: 10 }
    }
}

impl Seeds {
    /// All of them.
    pub fn iter(self) -> impl Iterator<Item = u64> {
        // Seeds are names and no amounts: behind the greatest comes 0.
        (0..self.count as u64).map(move |at| self.from.wrapping_add(at))
    }
}

/// Nodes and links.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// How many nodes.
    #[serde(deserialize_with = "count")]
    pub nodes: usize,
    /// Where they are; then latency is that between regions, plus each node's last mile and jitter.
    #[serde(default)]
    pub regions: Option<Regions>,
    /// One-way latency of every link, where there are no regions. Without either the model counts in rounds.
    #[serde(default)]
    pub latency: Option<Latency>,
    /// What links lose.
    #[serde(default)]
    pub loss: Loss,
}

/// What links lose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table: loss = { rate = 0.1, mode = \"drop\" }")]
pub struct Loss {
    /// Share of messages, 0 to 1.
    pub rate: f64,
    /// What then happens.
    #[serde(default)]
    pub mode: LossMode,
}

/// How updates spread.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protocol {
    /// Whom a node sends to.
    pub kind: SpreadProtocol,
    /// `push`, `pushpull`: peers a node contacts in a round (the paper's k).
    #[serde(default, deserialize_with = "optional_count")]
    pub fanout: Option<usize>,
    /// `mesh`: links of a node over which it forwards.
    #[serde(default, deserialize_with = "optional_count")]
    pub degree: Option<usize>,
    /// `push`, `pushpull`: in how many rounds a node that knows an update sends it.
    #[serde(default)]
    pub rounds: Rounds,
    /// Length of a round where there is latency.
    #[serde(default, deserialize_with = "optional_duration")]
    pub interval: Option<Duration>,
    /// `mesh`: whether a node tells others in heartbeats what it has (gossipsub's IHAVE).
    #[serde(default = "yes")]
    pub lazy: bool,
    /// Whether and how often a node reconciles with a random peer.
    #[serde(default)]
    pub anti_entropy: AntiEntropy,
    /// What a node says it has when it reconciles.
    #[serde(default)]
    pub digest: Digest,
}

impl Protocol {
    /// The paper's k.
    pub const FANOUT: usize = 3;

    /// Peers contacted in a round.
    pub fn fanout(&self) -> usize {
        self.fanout.unwrap_or(Protocol::FANOUT)
    }

    /// Links of a node.
    pub fn degree(&self) -> usize {
        self.degree.unwrap_or(Graph::DEGREE)
    }
}

/// Whom a node sends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpreadProtocol {
    /// Random peers, anew each round (paper, Algorithm 4).
    Push,
    /// As `Push`, and each contact also answers with what it has.
    PushPull,
    /// The same peers always, as gossipsub.
    Mesh,
}

/// Reconciliation with random peers: `false`, or `{ every = "30s", on_join = true }`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AntiEntropy {
    /// Mean time between two; none: never.
    pub every: Option<Duration>,
    /// Whether a node that comes back does so at once.
    pub on_join: bool,
}

/// What a node says it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Digest {
    /// The versions up to the first gap of each author.
    #[default]
    Prefix,
    /// The greatest version of each author (paper, eq. 9).
    Max,
}

/// What is written.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Workload {
    /// Updates in all.
    #[serde(deserialize_with = "count")]
    pub updates: usize,
    /// Nodes that write them, in turns.
    #[serde(deserialize_with = "optional_count")]
    pub authors: Option<usize>,
    /// Updates a second, all authors together; none: all at once.
    pub rate: Option<f64>,
    /// When the first is written; by default as soon as the world stands.
    #[serde(deserialize_with = "optional_duration")]
    pub at: Option<Duration>,
    /// Bytes of a record.
    #[serde(deserialize_with = "count")]
    pub record_bytes: usize,
    /// Share of the written agents that are withdrawn again, 0 to 1, in the middle of the run.
    pub withdrawn: f64,
}

impl Default for Workload {
    fn default() -> Workload {
        Workload { updates: 1, authors: None, rate: None, at: None, record_bytes: 1_500, withdrawn: 0.0 }
    }
}

/// The formula that is drawn beside a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Theory {
    /// Which.
    pub curve: Curve,
}

/// A family of formulas; `theory` has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Curve {
    /// Push for ever or for some rounds.
    Push,
    /// Push and pull.
    PushPull,
    /// Flooding over a random graph of fixed degree.
    Mesh,
}

/// What a metric must be.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "values::ExpectationText")]
pub struct Expectation {
    /// Which metric.
    pub metric: String,
    /// Compared with what.
    pub wanted: Wanted,
    /// Of which of its values.
    pub of: Of,
    /// Only in cells where these keys have these values; everywhere if empty.
    pub at: BTreeMap<String, toml::Value>,
}

/// What a metric is compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wanted {
    /// A number.
    Than(Op, f64),
    /// The theory's value of the same metric, give or take.
    WithinOfTheory(f64),
}

/// Which values must be so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Of {
    /// That of every run.
    Every,
    /// The mean of a cell.
    Mean,
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Op {
    /// At least.
    #[serde(rename = ">=")]
    AtLeast,
    /// At most.
    #[serde(rename = "<=")]
    AtMost,
    /// More.
    #[serde(rename = ">")]
    Above,
    /// Less.
    #[serde(rename = "<")]
    Below,
    /// The same.
    #[serde(rename = "==")]
    Equal,
}

impl Op {
    /// Whether a measured value stands so to the wanted one.
    pub fn holds(self, measured: f64, wanted: f64) -> bool {
        match self {
            Op::AtLeast => measured >= wanted,
            Op::AtMost => measured <= wanted,
            Op::Above => measured > wanted,
            Op::Below => measured < wanted,
            Op::Equal => measured == wanted,
        }
    }

    /// As it is written.
    pub fn text(self) -> &'static str {
        match self {
            Op::AtLeast => ">=",
            Op::AtMost => "<=",
            Op::Above => ">",
            Op::Below => "<",
            Op::Equal => "==",
        }
    }
}

fn one() -> u64 {
    1
}

fn yes() -> bool {
    true
}
