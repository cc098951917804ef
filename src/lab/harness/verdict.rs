//! Whether what was measured is what was wanted.

use std::collections::BTreeMap;

use serde_json::Value;

use super::command::replay;
use super::sum::Group;
use crate::lab::measure::Metrics;
use crate::lab::results::Verdict;
use crate::lab::scenario::{Expectation, Of, Op, Wanted, label, plain};

/// A value that is judged, and the run to look at.
struct Judged {
    value: Option<f64>,
    /// How far it is on the wrong side; less than 0 on the right one.
    wrong_by: f64,
    holds: bool,
    cell: String,
    replay: String,
}

/// Judges an expectation over the cells it is for; none if none of them was played.
pub(super) fn verdict(expectation: &Expectation, groups: &[Group<'_>], command: &str) -> Option<Verdict> {
    let judged: Vec<Judged> = groups
        .iter()
        .filter(|group| is_at(&expectation.at, group.parameters))
        .flat_map(|group| judge(expectation, group, command))
        .collect();
    let measured = judged.iter().filter(|it| it.value.is_some());
    let unmeasured = judged.iter().find(|it| it.value.is_none());
    let worst = measured.clone().reduce(|worst, it| if it.wrong_by > worst.wrong_by { it } else { worst });
    // A run without a value is further off than any that has one.
    let shown = unmeasured.or(worst)?;
    Some(Verdict {
        wanted: wanted(expectation),
        met: judged.iter().all(|it| it.holds),
        held: (judged.iter().filter(|it| it.holds).count(), judged.len()),
        counts: if expectation.of == Of::Every { "runs" } else { "cells" }.into(),
        unmeasured: judged.len() - measured.count(),
        worst: worst.and_then(|it| it.value).unwrap_or(0.0),
        worst_cell: shown.cell.clone(),
        replay: shown.replay.clone(),
    })
}

fn judge(expectation: &Expectation, group: &Group<'_>, command: &str) -> Vec<Judged> {
    let judged = |value: Option<f64>, seed: u64| {
        let (holds, wrong_by) = match value {
            Some(value) => compare(expectation, value, &group.theory),
            // Nothing measured is nothing met: an expectation must not pass because its runs broke.
            None => (false, f64::INFINITY),
        };
        let replay = replay(command, group.parameters, seed);
        Judged { value, wrong_by, holds, cell: label(group.parameters), replay }
    };
    let metric = &expectation.metric;
    match expectation.of {
        Of::Every => group.runs.iter().map(|run| judged(run.value(metric), run.seed)).collect(),
        // A mean over some of the runs is no mean of the cell.
        Of::Mean => {
            let missing = group.runs.iter().find(|run| run.value(metric).is_none());
            let summary = group.summary(metric);
            vec![match (missing, summary) {
                (Some(run), _) => judged(None, run.seed),
                (None, Some(summary)) => judged(Some(summary.mean), worst_seed(expectation, group)),
                (None, None) => return Vec::new(),
            }]
        }
    }
}

/// The run furthest on the wrong side.
fn worst_seed(expectation: &Expectation, group: &Group<'_>) -> u64 {
    let runs = group.runs.iter().filter_map(|run| {
        let value = run.value(&expectation.metric)?;
        Some((compare(expectation, value, &group.theory).1, run.seed))
    });
    runs.reduce(|worst, it| if it.0 > worst.0 { it } else { worst }).map_or(0, |(_, seed)| seed)
}

fn compare(expectation: &Expectation, value: f64, theory: &Metrics) -> (bool, f64) {
    match expectation.wanted {
        Wanted::Than(op, wanted) => {
            let wrong_by = match op {
                Op::AtLeast | Op::Above => wanted - value,
                Op::AtMost | Op::Below => value - wanted,
                Op::Equal => (value - wanted).abs(),
            };
            (op.holds(value, wanted), wrong_by)
        }
        Wanted::WithinOfTheory(within) => match theory.get(&expectation.metric) {
            Some(theory) => ((value - theory).abs() <= within, (value - theory).abs() - within),
            None => (false, f64::INFINITY),
        },
    }
}

/// `mean coverage >= 0.9 where network.loss.rate = 0.3`.
fn wanted(expectation: &Expectation) -> String {
    let metric = &expectation.metric;
    let text = match (expectation.wanted, expectation.of) {
        (Wanted::Than(op, value), Of::Every) => format!("{metric} {} {value}", op.text()),
        (Wanted::Than(op, value), Of::Mean) => format!("mean {metric} {} {value}", op.text()),
        (Wanted::WithinOfTheory(within), _) => format!("{metric} within {within} of theory"),
    };
    let at: BTreeMap<String, Value> =
        expectation.at.iter().map(|(key, value)| (key.clone(), plain(value))).collect();
    if at.is_empty() { text } else { format!("{text} where {}", label(&at)) }
}

/// Whether a cell has all these values.
pub(super) fn is_at(at: &BTreeMap<String, toml::Value>, parameters: &BTreeMap<String, Value>) -> bool {
    // Both as results write them, so that `1e3` in the one finds 1000 in the other.
    at.iter().all(|(key, value)| parameters.get(key) == Some(&plain(value)))
}
