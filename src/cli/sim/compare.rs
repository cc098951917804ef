//! `aop sim compare`: results beside a baseline, or tiers beside one another.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::files::read_results;
use super::table::{borderless, lines};
use crate::cli::args::SimCompareArgs;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Console, clean, print_json, write};
use crate::lab::measure::{Better, Unit};
use crate::lab::results::{Answered, CellResult, Results, Run, Summary};
use crate::lab::scenario::label;

/// Relative change that is marked where nobody says another.
const MARKED: f64 = 0.05;

/// One cell of the baseline beside the same cell of each other document.
#[derive(Serialize)]
struct Row {
    scenario: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    parameters: BTreeMap<String, Value>,
    tier: String,
    beside: Vec<Beside>,
}

/// A cell of another document; without a tier it has none.
#[derive(Serialize)]
struct Beside {
    tier: Option<String>,
    /// Runs of equal tier and seed whose trace is the same, and all of them.
    traces: (usize, usize),
    /// The baseline met all expectations of the scenario, and this does not.
    no_longer_met: bool,
    metrics: BTreeMap<String, Change>,
}

/// A metric's mean, before and after.
#[derive(Serialize)]
struct Change {
    base: Option<f64>,
    new: Option<f64>,
    /// Relative to the base; none from 0 or nothing.
    change: Option<f64>,
    verdict: Judged,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Judged {
    /// Within the threshold.
    Same,
    /// Beyond the threshold, and within what chance explains.
    Noise,
    Better,
    Worse,
    /// A difference that is neither: of tiers, or of what judges nothing.
    Differs,
}

/// `aop sim compare`.
pub(in crate::cli) fn compare(args: &SimCompareArgs, console: Console) -> Result<Exit, Failure> {
    let base = read_results(&args.base)?;
    let new = args.new.iter().map(|path| read_results(path)).collect::<Result<Vec<_>, _>>()?;
    let rows = rows(&base, &new, args.fail_on.unwrap_or(MARKED));
    if rows.is_empty() {
        let message = format!("{} has no scenario and cell that the others have", args.base.display());
        return Err(Failure::new(Exit::NotFound, message, "compare results of the same scenarios"));
    }
    let failures: usize = rows.iter().map(Row::failures).sum();
    let failed = args.fail_on.is_some() && failures > 0;
    if args.json {
        print_json(&serde_json::json!({"failed": failed, "cells": rows}))?;
    } else {
        write(&text(&rows, args))?;
    }
    tell_missing(&base, &new, args, console);
    if failed {
        console.warn(&format!("{failures} changes are for the worse beyond {}", percent(args.fail_on)));
        return Ok(Exit::Failure);
    }
    Ok(Exit::Done)
}

fn rows(base: &Results, new: &[Results], threshold: f64) -> Vec<Row> {
    let mut rows = Vec::new();
    for answered in &base.scenarios {
        for cell in &answered.cells {
            let key = (answered.name.as_str(), &cell.parameters);
            let others: Vec<Option<(&Answered, &CellResult)>> =
                new.iter().map(|results| find(results, key, &answered.tier)).collect();
            // A row of nothing but gaps says nothing; missing scenarios are named at the end.
            if others.iter().all(Option::is_none) {
                continue;
            }
            let beside = others.iter().zip(new).map(|(other, results)| {
                other.map_or_else(Beside::none, |(other, with)| Beside {
                    tier: Some(other.tier.clone()),
                    traces: traces(&base.runs, &results.runs, answered, other, cell),
                    no_longer_met: answered.met && !other.met,
                    metrics: changes(cell, with, threshold, answered.tier == other.tier),
                })
            });
            rows.push(Row {
                scenario: answered.name.clone(),
                parameters: cell.parameters.clone(),
                tier: answered.tier.clone(),
                beside: beside.collect(),
            });
        }
    }
    rows
}

/// The same cell, of the same tier if there is one.
fn find<'a>(
    results: &'a Results,
    (name, parameters): (&str, &BTreeMap<String, Value>),
    tier: &str,
) -> Option<(&'a Answered, &'a CellResult)> {
    let mut named: Vec<&Answered> = results.scenarios.iter().filter(|it| it.name == name).collect();
    // `false` sorts first, and the order is stable: the same tier leads, the others follow as they were.
    named.sort_by_key(|it| it.tier != tier);
    let mut cells = named
        .into_iter()
        .filter_map(|it| Some((it, it.cells.iter().find(|cell| cell.parameters == *parameters)?)));
    cells.next()
}

fn traces(
    before: &[Run],
    after: &[Run],
    old: &Answered,
    new: &Answered,
    cell: &CellResult,
) -> (usize, usize) {
    let of = |runs: &[Run], answered: &Answered| -> BTreeMap<u64, String> {
        let runs = runs.iter().filter(|run| {
            run.scenario == answered.name && run.tier == answered.tier && run.parameters == cell.parameters
        });
        runs.map(|run| (run.seed, run.trace_hash.clone())).collect()
    };
    // Tiers draw differently from one seed, so their traces never agree.
    if old.tier != new.tier {
        return (0, 0);
    }
    let (before, after) = (of(before, old), of(after, new));
    let both: Vec<_> = before.iter().filter_map(|(seed, hash)| Some((hash, after.get(seed)?))).collect();
    // A broken run has no trace, and two of them are not equal for that.
    (both.iter().filter(|(before, after)| before == after && !before.is_empty()).count(), both.len())
}

fn changes(
    base: &CellResult,
    new: &CellResult,
    threshold: f64,
    is_same_tier: bool,
) -> BTreeMap<String, Change> {
    let names = base.metrics.keys().chain(new.metrics.keys());
    let change = |name: &String| {
        let (before, after) = (base.metrics.get(name), new.metrics.get(name));
        let relative = match (before, after) {
            // Also from 0 to 0, which has no quotient.
            (Some(before), Some(after)) if before.mean == after.mean => Some(0.0),
            (Some(before), Some(after)) if before.mean != 0.0 => {
                // By its size, or a mean below 0 would turn the sign around.
                Some((after.mean - before.mean) / before.mean.abs())
            }
            _ => None,
        };
        Change {
            base: before.map(|it| it.mean),
            new: after.map(|it| it.mean),
            change: relative,
            verdict: judge(name, before, after, threshold, is_same_tier),
        }
    };
    names.map(|name| (name.clone(), change(name))).collect()
}

/// A change from nothing is beyond any threshold; a metric that vanished says that no run came to it.
fn judge(
    metric: &str,
    before: Option<&Summary>,
    after: Option<&Summary>,
    threshold: f64,
    is_same_tier: bool,
) -> Judged {
    let (before, after) = match (before, after) {
        (Some(before), Some(after)) => (before, after),
        (Some(_), None) if is_same_tier => return Judged::Worse,
        // What is new, or measured by one tier only, is neither better nor worse.
        _ => return Judged::Same,
    };
    let difference = after.mean - before.mean;
    if difference.abs() <= threshold * before.mean.abs() {
        return Judged::Same;
    }
    let within = |mean: f64, of: &Summary| of.low <= mean && mean <= of.high;
    if within(before.mean, after) || within(after.mean, before) {
        return Judged::Noise;
    }
    match Better::of(metric) {
        // First, because between tiers no direction is good or bad.
        _ if !is_same_tier => Judged::Differs,
        Better::Neither => Judged::Differs,
        Better::More if difference > 0.0 => Judged::Better,
        Better::Less if difference < 0.0 => Judged::Better,
        Better::More | Better::Less => Judged::Worse,
    }
}

impl Beside {
    fn none() -> Beside {
        Beside { tier: None, traces: (0, 0), no_longer_met: false, metrics: BTreeMap::new() }
    }

    fn is_unchanged(&self, tier: &str) -> bool {
        let same = self.metrics.values().all(|it| it.verdict == Judged::Same);
        self.tier.as_deref() == Some(tier) && same && self.traces.0 == self.traces.1 && !self.no_longer_met
    }
}

impl Row {
    /// Changes for the worse, and differences of tiers.
    fn failures(&self) -> usize {
        let of = |beside: &Beside| {
            let differs = |it: &&Change| {
                let is_other_tier = beside.tier.as_deref() != Some(&self.tier);
                it.verdict == Judged::Worse || is_other_tier && it.verdict == Judged::Differs
            };
            beside.metrics.values().filter(differs).count() + usize::from(beside.no_longer_met)
        };
        self.beside.iter().map(of).sum()
    }
}

/// A table for each cell; cells in which nothing changed are counted.
fn text(rows: &[Row], args: &SimCompareArgs) -> String {
    let is_unchanged = |row: &&Row| row.beside.iter().all(|it| it.is_unchanged(&row.tier));
    let mut text: String =
        rows.iter().filter(|row| !is_unchanged(row)).map(|row| block(row, args) + "\n").collect();
    let unchanged = rows.iter().filter(is_unchanged).count();
    let cells = if unchanged == 1 { "cell is" } else { "cells are" };
    text.push_str(&format!("{unchanged} {cells} the same, of {}\n", rows.len()));
    text
}

fn block(row: &Row, args: &SimCompareArgs) -> String {
    let mut table = borderless();
    let mut heads = vec!["METRIC".to_string(), format!("{} ({})", file_name(&args.base), row.tier)];
    for (beside, path) in row.beside.iter().zip(&args.new) {
        let tier = beside.tier.as_deref().unwrap_or("missing");
        heads.extend([format!("{} ({tier})", file_name(path)), "CHANGE".to_string()]);
    }
    table.set_header(heads);
    let names: std::collections::BTreeSet<&String> =
        row.beside.iter().flat_map(|it| it.metrics.keys()).collect();
    for name in names {
        let show = |value: Option<f64>| value.map_or_else(|| "—".into(), |it| Unit::of(name).show(it));
        // Each column brings the base along, but one without the cell has none.
        let base = row.beside.iter().find_map(|it| it.metrics.get(name)?.base);
        let mut cells = vec![name.clone(), show(base)];
        for beside in &row.beside {
            let change = beside.metrics.get(name);
            cells.push(show(change.and_then(|it| it.new)));
            cells.push(change.map_or_else(String::new, marked));
        }
        table.add_row(cells);
    }
    let mut text = clean(&row.scenario);
    if !row.parameters.is_empty() {
        text.push_str(&format!(" · {}", clean(&label(&row.parameters))));
    }
    text = format!("{text}\n{}", lines(&table));
    for (beside, path) in row.beside.iter().zip(&args.new) {
        if let (equal, all @ 1..) = beside.traces {
            text.push_str(&format!(" {equal} of {all} traces are equal in {}\n", path.display()));
        }
        if beside.no_longer_met {
            text.push_str(&format!(" expectations are no longer met in {}\n", path.display()));
        }
    }
    text
}

/// `+3.2 %`, with a word where it is more than that.
fn marked(change: &Change) -> String {
    let relative = match (change.change, change.base, change.new) {
        (Some(0.0), ..) => "=".into(),
        (Some(change), ..) => format!("{:+.1} %", change * 100.0),
        (None, Some(_), None) if change.verdict == Judged::Worse => "gone".into(),
        (None, None, _) | (None, _, None) => String::new(),
        (None, ..) => "from 0".into(),
    };
    match change.verdict {
        Judged::Same => relative,
        Judged::Noise => format!("{relative} (noise)"),
        Judged::Better => format!("{relative} better"),
        Judged::Worse => format!("{relative} WORSE"),
        Judged::Differs => format!("{relative} differs"),
    }
}

fn percent(share: Option<f64>) -> String {
    format!("{} %", share.unwrap_or(MARKED) * 100.0)
}

/// The folder's name for a folder of results, else the file's.
fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

fn tell_missing(base: &Results, new: &[Results], args: &SimCompareArgs, console: Console) {
    for (results, path) in new.iter().zip(&args.new) {
        let missing =
            base.scenarios.iter().filter(|it| !results.scenarios.iter().any(|new| new.name == it.name));
        let missing: Vec<&str> = missing.map(|it| it.name.as_str()).collect();
        if !missing.is_empty() {
            console.print(&format!("not in {}: {}", path.display(), missing.join(", ")));
        }
        let sources = base.scenarios.iter().filter(|it| {
            let same = |new: &&Answered| new.name == it.name && new.tier == it.tier;
            // A baseline keeps no sources.
            let both_known = |new: &Answered| !new.source.is_empty() && !it.source.is_empty();
            results.scenarios.iter().find(same).is_some_and(|new| both_known(new) && new.source != it.source)
        });
        for changed in sources {
            console.print(&format!("{} itself is different in {}", changed.name, path.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(mean: f64, half: f64) -> Summary {
        Summary { mean, low: mean - half, high: mean + half, ..Summary::default() }
    }

    fn judged(metric: &str, before: (f64, f64), after: (f64, f64), is_same_tier: bool) -> Judged {
        let (before, after) = (summary(before.0, before.1), summary(after.0, after.1));
        judge(metric, Some(&before), Some(&after), 0.05, is_same_tier)
    }

    #[test]
    fn a_change_counts_beyond_the_threshold_and_beyond_chance() {
        assert_eq!(judged("rounds", (10.0, 0.1), (10.4, 0.1), true), Judged::Same);
        assert_eq!(judged("rounds", (10.0, 0.1), (12.0, 0.1), true), Judged::Worse);
        assert_eq!(judged("rounds", (10.0, 0.1), (8.0, 0.1), true), Judged::Better);
        assert_eq!(judged("rounds", (10.0, 2.5), (12.0, 0.1), true), Judged::Noise);
        assert_eq!(judged("rounds", (10.0, 0.1), (12.0, 2.5), true), Judged::Noise);
        assert_eq!(judged("coverage", (1.0, 0.0), (0.9, 0.0), true), Judged::Worse);
        assert_eq!(judged("zombies", (0.0, 0.0), (1.0, 0.0), true), Judged::Worse);
        assert_eq!(judged("node_hours", (1.0, 0.0), (2.0, 0.0), true), Judged::Differs);
    }

    #[test]
    fn between_tiers_every_difference_counts_and_a_metric_may_be_missing() {
        assert_eq!(judged("rounds", (10.0, 0.1), (8.0, 0.1), false), Judged::Differs);
        let before = summary(10.0, 0.1);
        assert_eq!(judge("healed_ms", Some(&before), None, 0.05, false), Judged::Same);
        assert_eq!(judge("healed_ms", Some(&before), None, 0.05, true), Judged::Worse);
        assert_eq!(judge("healed_ms", None, Some(&before), 0.05, true), Judged::Same);
    }
}
