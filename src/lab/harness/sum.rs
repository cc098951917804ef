//! From finished runs to the result document.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::command::replay;
use super::statistics::{bands, summary, wilson};
use super::{Finished, Job, answer, verdict};
use crate::lab::measure::{Broken, Measured, Metrics, Missing};
use crate::lab::results::{Answered, BrokenRun, CellResult, Results, Run, SCHEMA, Summary};
use crate::lab::scenario::Tier;
use crate::lab::theory;

/// Runs of one cell.
pub(super) struct Group<'a> {
    pub(super) parameters: &'a BTreeMap<String, Value>,
    pub(super) runs: Vec<SeedRun<'a>>,
    pub(super) theory: Metrics,
    cell: usize,
}

/// A run and its seed.
pub(super) struct SeedRun<'a> {
    pub(super) seed: u64,
    pub(super) outcome: &'a Result<Measured, Broken>,
}

impl SeedRun<'_> {
    /// A metric of it; none if it broke or did not measure that.
    pub(super) fn value(&self, metric: &str) -> Option<f64> {
        let measured = self.outcome.as_ref().ok()?;
        measured.metrics.get(metric).copied().filter(|value| value.is_finite())
    }
}

impl Group<'_> {
    /// Values of a metric with their seeds.
    pub(super) fn values(&self, metric: &str) -> Vec<(u64, f64)> {
        self.runs.iter().filter_map(|run| Some((run.seed, run.value(metric)?))).collect()
    }

    /// All of them in few numbers.
    pub(super) fn summary(&self, metric: &str) -> Option<Summary> {
        summary(metric, &self.values(metric))
    }

    fn measured(&self) -> impl Iterator<Item = &Measured> {
        self.runs.iter().filter_map(|run| run.outcome.as_ref().ok())
    }
}

/// What runs add up to. Those that are missing were interrupted; the order of the others does not matter. `command` is what
/// makes the document again.
pub fn results(jobs: &[Job], finished: &[Finished], command: &str) -> Results {
    let mut groups: BTreeMap<(usize, usize), Vec<SeedRun<'_>>> = BTreeMap::new();
    for run in finished {
        let seen = SeedRun { seed: run.seed, outcome: &run.outcome };
        groups.entry((run.job, run.cell)).or_default().push(seen);
    }
    let mut results = Results {
        schema: SCHEMA,
        command: command.into(),
        build: env!("CARGO_PKG_VERSION").into(),
        unfinished: jobs.iter().map(Job::runs).sum::<usize>().saturating_sub(finished.len()),
        ..Results::default()
    };
    for (at, job) in jobs.iter().enumerate() {
        let groups: Vec<Group<'_>> = (0..job.cells.len())
            .filter_map(|cell| {
                let mut runs = groups.remove(&(at, cell))?;
                // Threads end runs in any order; the document has that of the file.
                let order = |seed: u64| job.seeds.iter().position(|it| *it == seed);
                runs.sort_by_key(|run| order(run.seed));
                let theory = theory::metrics(&job.cells[cell].scenario);
                Some(Group { parameters: &job.parameters[cell], runs, theory, cell })
            })
            .collect();
        if groups.is_empty() {
            continue;
        }
        let runs = groups.iter().flat_map(|group| group.runs.iter().map(|seen| run(job, group, seen)));
        results.runs.extend(runs);
        results.scenarios.push(answered(job, &groups));
    }
    results
}

fn run(job: &Job, group: &Group<'_>, seen: &SeedRun<'_>) -> Run {
    let mut run = Run {
        scenario: job.scenario().name.clone(),
        tier: job.scenario().tier.name().into(),
        seed: seen.seed,
        parameters: group.parameters.clone(),
        replay: replay(&job.replay, group.parameters, seen.seed),
        ..Run::default()
    };
    match seen.outcome {
        Ok(measured) => {
            run.trace_hash = format!("{:016x}", measured.trace);
            // JSON has no infinity.
            run.metrics = measured.metrics.clone();
            run.metrics.retain(|_, value| value.is_finite());
        }
        Err(broken) => {
            run.broken = Some(BrokenRun {
                check: broken.check.clone(),
                at_ms: broken.at_ms,
                detail: broken.detail.clone(),
                progress: broken.missing == Missing::Progress,
            });
        }
    }
    run
}

fn answered(job: &Job, groups: &[Group<'_>]) -> Answered {
    let scenario = job.scenario();
    let by_round = counts_rounds(job);
    let judge = |expectations: &Vec<_>| {
        expectations.iter().filter_map(|it| verdict::verdict(it, groups, &job.replay)).collect::<Vec<_>>()
    };
    let expectations = judge(&scenario.expectations);
    // Broken runs have no metrics: a cell judged by the others alone might look as it should.
    let any_broken = groups.iter().flat_map(|group| &group.runs).any(|run| run.outcome.is_err());
    Answered {
        name: scenario.name.clone(),
        question: scenario.question.clone(),
        claim: scenario.claim.clone(),
        tier: scenario.tier.name().into(),
        axis: if by_round { "rounds" } else { "ms" }.into(),
        answer: answer::answer(scenario, groups, &expectations),
        met: !any_broken && expectations.iter().all(|it| it.met),
        claims: judge(&scenario.claims),
        expectations,
        cells: groups.iter().map(|group| cell(job, group, by_round)).collect(),
        source: job.document.source(),
    }
}

/// Only the model counts in rounds, and only where links take no time.
fn counts_rounds(job: &Job) -> bool {
    let network = &job.cells[0].scenario.network;
    job.scenario().tier == Tier::Model && network.regions.is_none() && network.latency.is_none()
}

fn cell(job: &Job, group: &Group<'_>, by_round: bool) -> CellResult {
    let names: BTreeSet<&String> = group.measured().flat_map(|measured| measured.metrics.keys()).collect();
    let metrics = names.iter().filter_map(|name| Some(((*name).clone(), group.summary(name)?)));
    let curves: Vec<&[(f64, f64)]> = group.measured().map(|measured| measured.curve.as_slice()).collect();
    // Of a cell's runs only the first has kept one.
    let spread = group.measured().next().and_then(|measured| measured.spread.clone()).unwrap_or_default();
    CellResult {
        parameters: group.parameters.clone(),
        runs: group.runs.len(),
        full: full(group),
        metrics: metrics.collect(),
        theory: group.theory.clone(),
        band: bands(&curves, by_round),
        theory_curve: theory::curve(&job.cells[group.cell].scenario),
        seen: spread.seen,
        regions: spread.regions,
    }
}

/// Runs in which every node had everything; a broken run is not one.
fn full(group: &Group<'_>) -> Option<(usize, f64, f64)> {
    // Where `complete` was not measured a coverage of 1 says the same.
    let metric = ["complete", "coverage"].into_iter().find(|it| !group.values(it).is_empty())?;
    let full = group.values(metric).iter().filter(|(_, share)| *share >= 1.0).count();
    let (low, high) = wilson(full, group.runs.len());
    Some((full, low, high))
}
