//! What `--format json` prints and `compare` reads: every run, and for every scenario its cells, verdicts and answer.
//!
//! The mesh tier's program writes the same document, so results of different tiers can be laid over one another.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::measure::Metrics;

/// Grows when a field changes its meaning.
pub const SCHEMA: u32 = 1;

/// One document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`SCHEMA`] of the program that wrote it.
    pub schema: u32,
    /// The command that makes it again.
    pub command: String,
    /// Version of the program.
    pub build: String,
    /// Every run, in the order of scenario, cell, seed.
    pub runs: Vec<Run>,
    /// Runs that were planned and not finished, as somebody interrupted.
    #[serde(default, skip_serializing_if = "is_none")]
    pub unfinished: usize,
    /// Every scenario.
    pub scenarios: Vec<Answered>,
}

impl Results {
    /// What is kept to compare with later: the figures of every cell and the trace of its first run, no curves.
    pub fn baseline(&self) -> Results {
        let mut kept = self.clone();
        let mut last = None;
        kept.runs.retain_mut(|run| {
            run.replay.clear();
            // Runs come cell by cell, so the first of one differs from the run before it.
            let cell = Some((run.scenario.clone(), run.parameters.clone()));
            let is_first = last != cell;
            last = cell;
            is_first
        });
        for answered in &mut kept.scenarios {
            answered.source.clear();
            for cell in &mut answered.cells {
                cell.band.clear();
                cell.theory_curve.clear();
                cell.seen.clear();
                cell.regions.clear();
            }
        }
        kept
    }
}

/// One run: a cell of a scenario and a seed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its scenario's name.
    pub scenario: String,
    /// What played it: `model`, `core`, `mesh`.
    pub tier: String,
    /// The seed.
    pub seed: u64,
    /// The swept keys and their values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, Value>,
    /// Equal for equal runs, and only for them: 16 hexadecimal digits. Empty if a checker ended the run.
    pub trace_hash: String,
    /// Named numbers; `measure::METRICS` says what each is.
    pub metrics: Metrics,
    /// The checker that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<BrokenRun>,
    /// The command that plays this run again.
    #[serde(default)]
    pub replay: String,
}

/// A checker that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokenRun {
    /// Its name.
    pub check: String,
    /// Virtual milliseconds since the start.
    pub at_ms: u64,
    /// What was seen.
    pub detail: String,
    /// Whether progress is missing, and not safety.
    pub progress: bool,
}

/// A scenario, answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// Its name.
    pub name: String,
    /// Its question.
    pub question: String,
    /// Whose claim it tests.
    pub claim: String,
    /// What played it.
    pub tier: String,
    /// What a curve's horizontal axis counts: `rounds` or `ms`.
    pub axis: String,
    /// The answer, in a sentence with figures.
    pub answer: String,
    /// Whether every expectation was met and no checker failed.
    pub met: bool,
    /// What the paper says, tested.
    pub claims: Vec<Verdict>,
    /// What had to be measured.
    pub expectations: Vec<Verdict>,
    /// One for each combination of swept values.
    pub cells: Vec<CellResult>,
    /// The whole file after `--set`, as TOML.
    pub source: String,
}

/// A test of a metric and how it went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// For example `coverage >= 1` or `rounds within 1.5 of theory`.
    pub wanted: String,
    /// Whether it held in every cell it is for.
    pub met: bool,
    /// Values (runs or cells) it held for, and all.
    pub held: (usize, usize),
    /// Of all, how many have no such value, as the run broke or never came to it: it does not hold for these.
    #[serde(default, skip_serializing_if = "is_none")]
    pub unmeasured: usize,
    /// What these values are: `runs` or `cells`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub counts: String,
    /// The value furthest from what was wanted; 0 if none was measured.
    pub worst: f64,
    /// The cell of that value, as `key = value`; empty without a sweep.
    pub worst_cell: String,
    /// The command that plays that value's run again.
    pub replay: String,
}

/// All runs of one cell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CellResult {
    /// The swept keys and their values.
    pub parameters: BTreeMap<String, Value>,
    /// Runs.
    pub runs: usize,
    /// Runs in which every node had everything, if that was measured, with the bounds of Wilson's 95 % interval.
    pub full: Option<(usize, f64, f64)>,
    /// Each metric over all runs.
    pub metrics: BTreeMap<String, Summary>,
    /// What theory says of a metric.
    pub theory: Metrics,
    /// Curve over all runs.
    pub band: Vec<Band>,
    /// Theory's curve.
    pub theory_curve: Vec<(f64, f64)>,
    /// When each node of the first run learnt the first update (none: never), if there are few enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<Option<u32>>,
    /// Region of each of these nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<u8>,
}

/// A metric over runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Mean.
    pub mean: f64,
    /// Student's 95 % interval of the mean; the mean itself where there is only one run.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// Least value.
    pub min: f64,
    /// Greatest value.
    pub max: f64,
    /// Seed of the run with the worst value: the least where more is better, else the greatest.
    pub worst_seed: u64,
}

/// Share of nodes at one point of the axis, over all runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Band {
    /// Where.
    pub x: f64,
    /// Fifth percentile.
    pub p5: f64,
    /// Median.
    pub p50: f64,
    /// Ninety-fifth percentile.
    pub p95: f64,
}

fn is_none(count: &usize) -> bool {
    *count == 0
}
