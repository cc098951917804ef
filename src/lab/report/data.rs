//! The figures of a page as JSON, small: curves as columns, the spread as counts, commands without their shared parts.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::super::measure::{METRICS, Unit};
use super::super::results::{Answered, CellResult, Results, Run, Summary};
use super::{first_curves, first_metric, has_long_tail, label, metrics, plain, swept};
use crate::sim::regions;

/// Digits of a curve's points: enough to tell one node of a hundred thousand.
const CURVE_DIGITS: usize = 6;
/// Digits of a figure: enough to tell one node of ten million.
const FIGURE_DIGITS: usize = 9;

/// Everything that the script draws, safe inside a `script` element.
pub(super) fn block(results: &Results) -> String {
    // Sorted out once: thousands of runs looked through for each cell are millions.
    let mut runs: BTreeMap<(&str, &str, String), Vec<&Run>> = BTreeMap::new();
    for run in &results.runs {
        runs.entry((&run.scenario, &run.tier, label(&run.parameters))).or_default().push(run);
    }
    let scenarios: Vec<Value> = results
        .scenarios
        .iter()
        .map(|answered| {
            let of = |cell: &CellResult| {
                runs.get(&(&*answered.name, &*answered.tier, label(&cell.parameters)))
                    .map_or(&[][..], Vec::as_slice)
            };
            let cells: Vec<Value> = answered.cells.iter().map(|cell| self::cell(cell, of(cell))).collect();
            json!({
                "name": answered.name, "axis": answered.axis, "tail": has_long_tail(answered),
                "keys": swept(answered), "metrics": metrics(answered), "first": first_metric(answered),
                "curves": first_curves(answered), "cells": cells,
            })
        })
        .collect();
    let data = json!({"metrics": described(&results.scenarios), "scenarios": scenarios});
    // Inside a string of JSON, where alone it can stand, it may as well be written so; and no element ends here.
    data.to_string().replace('<', "\\u003c")
}

/// Each metric's meaning and what it counts in: `share`, `ms`, `bytes`, `bytes/s` or nothing.
fn described(scenarios: &[Answered]) -> Map<String, Value> {
    let names = scenarios.iter().flat_map(metrics);
    names
        .map(|name| {
            let says = METRICS.iter().find(|metric| metric.name == name).map_or("", |metric| metric.says);
            let unit = match Unit::of(name) {
                Unit::Share => "share",
                Unit::Ms => "ms",
                Unit::Bytes if name.ends_with("_per_s") => "bytes/s",
                Unit::Bytes => "bytes",
                Unit::Number => "",
            };
            (name.to_owned(), json!([says, unit]))
        })
        .collect()
}

fn cell(cell: &CellResult, runs: &[&Run]) -> Value {
    let (before, after) = shared(runs);
    let runs: Vec<Value> = runs.iter().map(|run| self::run(run, before.len(), after.len())).collect();
    let summaries: Map<String, Value> =
        cell.metrics.iter().map(|(name, summary)| (name.clone(), self::summary(summary))).collect();
    let theory: Map<String, Value> =
        cell.theory.iter().map(|(name, value)| (name.clone(), short(*value, FIGURE_DIGITS))).collect();
    json!({
        "at": cell.parameters.values().map(|value| if value.is_number() { value.clone() } else { plain(value).into() })
            .collect::<Vec<Value>>(),
        "runs": cell.runs, "full": cell.full, "metrics": summaries, "theory": theory,
        "band": columns(&cell.band, &[|it| it.x, |it| it.p5, |it| it.p50, |it| it.p95]),
        "curve": columns(&cell.theory_curve, &[|it| it.0, |it| it.1]),
        "spread": spread(cell), "replay": [before, after], "played": runs,
    })
}

fn summary(summary: &Summary) -> Value {
    let numbers = [summary.mean, summary.low, summary.high, summary.min, summary.max];
    let mut row: Vec<Value> = numbers.map(|number| short(number, FIGURE_DIGITS)).into();
    // A seed may be beyond what a script counts exactly.
    row.push(summary.worst_seed.to_string().into());
    row.into()
}

/// What differs in the command between the parts that all runs of the cell share, hash, and the checker that failed.
fn run(run: &Run, before: usize, after: usize) -> Value {
    // What all have in common is cut between characters of each, and overlaps in none.
    let middle = &run.replay[before..run.replay.len() - after];
    let mut row = vec![json!(run.seed.to_string()), json!(run.trace_hash), json!(middle)];
    row.extend(run.broken.as_ref().map(|broken| json!(broken.check)));
    row.into()
}

/// The longest beginning and end that the commands of all runs have in common.
fn shared<'a>(runs: &[&'a Run]) -> (&'a str, &'a str) {
    let Some((first, others)) = runs.split_first() else { return ("", "") };
    let first = first.replay.as_str();
    // Commands are compared as bytes, and a cut within a character would panic.
    let cut = |at: usize| (0..=at).rev().find(|at| first.is_char_boundary(*at)).unwrap_or(0);
    let alike = |other: &str| first.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    let before = cut(others.iter().map(|run| alike(&run.replay)).min().unwrap_or(0));
    let rest = |other: &str| {
        let pairs = first.bytes().rev().zip(other.bytes().rev()).take_while(|(a, b)| a == b).count();
        // In a short command beginning and end could be the same bytes.
        pairs.min(first.len() - before).min(other.len() - before)
    };
    let mut after = others.iter().map(|run| rest(&run.replay)).min().unwrap_or(0);
    // Ends at the latest behind the text, which is a boundary.
    while !first.is_char_boundary(first.len() - after) {
        after -= 1;
    }
    (&first[..before], &first[first.len() - after..])
}

fn columns<T>(rows: &[T], columns: &[fn(&T) -> f64]) -> Value {
    columns.iter().map(|of| rows.iter().map(|row| short(of(row), CURVE_DIGITS)).collect::<Value>()).collect()
}

/// For each region how many nodes learnt it when, as [how much later than those before, how many, …], and how many never.
fn spread(cell: &CellResult) -> Value {
    let mut regions: BTreeMap<u8, (BTreeMap<u32, usize>, usize)> = BTreeMap::new();
    for (node, seen) in cell.seen.iter().enumerate() {
        let region = regions.entry(cell.regions.get(node).copied().unwrap_or(0)).or_default();
        match seen {
            Some(at) => *region.0.entry(*at).or_default() += 1,
            None => region.1 += 1,
        }
    }
    let counts = |(times, never): &(BTreeMap<u32, usize>, usize)| {
        // Keys ascend, so differences are never negative, and mostly a digit or two.
        let before = std::iter::once(0).chain(times.keys().copied());
        let later =
            times.iter().zip(before).flat_map(|((at, count), before)| [(at - before) as usize, *count]);
        json!([later.collect::<Vec<usize>>(), never])
    };
    let name = |region: u8| {
        regions::NAMES.get(usize::from(region)).map_or(format!("Region {region}"), |it| (*it).to_owned())
    };
    regions.iter().map(|(region, nodes)| json!([name(*region), counts(nodes)])).collect()
}

/// A number with so many digits.
fn short(value: f64, digits: usize) -> Value {
    let rounded: f64 = format!("{value:.*e}", digits - 1).parse().unwrap_or(value);
    // Without a point it is shorter, and below 2^53 no digit is lost.
    if rounded.fract() == 0.0 && rounded.abs() < 1e15 { json!(rounded as i64) } else { json!(rounded) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replayed(command: &str) -> Run {
        Run { replay: command.to_owned(), ..Run::default() }
    }

    #[test]
    fn commands_are_put_together_again_as_they_were() {
        let sets: [&[&str]; 5] = [
            &["replay a --seed 7", "replay a --seed 17 --x", "replay a --seed 70"],
            &["same", "same"],
            &["", "x"],
            &["aa", "aaa"],
            &["é1", "è1"],
        ];
        for set in sets {
            let runs: Vec<Run> = set.iter().map(|it| replayed(it)).collect();
            let runs: Vec<&Run> = runs.iter().collect();
            let (before, after) = shared(&runs);
            for one in &runs {
                let middle = run(one, before.len(), after.len())[2].as_str().unwrap_or("none").to_owned();
                assert_eq!(format!("{before}{middle}{after}"), one.replay);
            }
        }
    }
}
