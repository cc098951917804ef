//! Results for people: one HTML file that opens offline, static SVGs, CSV.
//!
//! Everything here is a function of the results alone: equal results give equal bytes. Text that comes from scenario
//! files is escaped where it is written, figures go into the page as one block of JSON, and the page's policy lets a
//! browser run only the scripts that stand in it. Parts: `page` (the HTML), `data` (its figures), `chart` (SVG),
//! `table` (CSV), `text` (escaping and numbers).

mod chart;
mod data;
mod page;
mod table;
mod text;

use std::collections::BTreeMap;

use serde_json::Value;

use super::measure::METRICS;
use super::results::{Answered, CellResult, Results};

/// Cells whose curves are shown at first; more in one chart cannot be told apart.
const CURVES_SHOWN: usize = 6;

/// One page with everything in it.
pub fn html(results: &Results) -> String {
    page::page(results)
}

/// The charts of a scenario as (name without extension, SVG).
pub fn svg(answered: &Answered) -> Vec<(String, String)> {
    chart::charts(answered)
}

/// One row a run.
pub fn runs_csv(results: &Results) -> String {
    table::runs(results)
}

/// One row a point of a curve.
pub fn curve_csv(results: &Results) -> String {
    table::curves(results)
}

/// The keys that are swept.
fn swept(answered: &Answered) -> Vec<&str> {
    answered
        .cells
        .first()
        .map(|cell| cell.parameters.keys().map(String::as_str).collect())
        .unwrap_or_default()
}

/// Metrics of a scenario, in the order of [`METRICS`], others behind.
fn metrics(answered: &Answered) -> Vec<&str> {
    let mut names: Vec<&str> =
        answered.cells.iter().flat_map(|cell| cell.metrics.keys().map(String::as_str)).collect();
    let rank = |name: &str| METRICS.iter().position(|metric| metric.name == name).unwrap_or(METRICS.len());
    names.sort_by_key(|name| (rank(name), *name));
    names.dedup();
    names
}

/// The metric that is shown first: the first one judged that differs between cells, else any that differs, else the first
/// one judged, else the first.
fn first_metric(answered: &Answered) -> Option<&str> {
    let names = metrics(answered);
    let verdicts = answered.claims.iter().chain(&answered.expectations);
    // A verdict has its metric only as a word of what was wanted.
    let words = verdicts.flat_map(|verdict| verdict.wanted.split_whitespace());
    let judged: Vec<&str> =
        words.filter_map(|word| names.iter().copied().find(|name| *name == word)).collect();
    let differs = |name: &&&str| {
        let mut means = answered.cells.iter().filter_map(|cell| cell.metrics.get(**name)).map(|it| it.mean);
        means.next().is_some_and(|first| means.any(|mean| mean != first))
    };
    let found = judged.iter().find(differs).or_else(|| names.iter().find(differs)).or(judged.first());
    found.or(names.first()).copied()
}

/// Indices of the cells whose curves are shown at first: all if they are few, else some that span them.
fn first_curves(answered: &Answered) -> Vec<usize> {
    let drawn: Vec<usize> =
        (0..answered.cells.len()).filter(|at| !answered.cells[*at].band.is_empty()).collect();
    if drawn.len() <= CURVES_SHOWN {
        return drawn;
    }
    // The first and the last are always among them.
    (0..CURVES_SHOWN).map(|at| drawn[at * (drawn.len() - 1) / (CURVES_SHOWN - 1)]).collect()
}

/// Whether the last few nodes take so much longer than all others that only a logarithmic axis shows both: nine tenths of
/// a curve lie within a tenth of the time.
fn has_long_tail(answered: &Answered) -> bool {
    let ends = answered.cells.iter().filter_map(|cell| cell.band.last());
    let end = ends.map(|last| last.x).fold(0.0, f64::max);
    answered.axis == "ms"
        && answered.cells.iter().any(|cell| {
            let top = cell.band.last().map_or(0.0, |last| last.p50);
            cell.band.iter().find(|band| band.p50 >= 0.9 * top).is_some_and(|band| band.x < 0.1 * end)
        })
}

/// A cell in words: `key = value`, several joined by commas; empty without a sweep.
fn label(parameters: &BTreeMap<String, Value>) -> String {
    let words = parameters.iter().map(|(key, value)| format!("{key} = {}", plain(value)));
    words.collect::<Vec<String>>().join(", ")
}

/// The same with the last two words of each key, for where there is little room; a number is told with what it counts.
fn brief(parameters: &BTreeMap<String, Value>) -> String {
    let last = |key: &str| {
        let words: Vec<&str> = key.split('.').collect();
        let from = words.len().saturating_sub(2);
        let from = if words[from].parse::<usize>().is_ok() { from.saturating_sub(1) } else { from };
        words[from..].join(".")
    };
    let words = parameters.iter().map(|(key, value)| format!("{} = {}", last(key), plain(value)));
    words.collect::<Vec<String>>().join(", ")
}

/// A value without the quotes of JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The values a key takes, in the order of the cells.
fn values<'a>(cells: &[&'a CellResult], key: &str) -> Vec<&'a Value> {
    let mut found: Vec<&Value> = Vec::new();
    for value in cells.iter().filter_map(|cell| cell.parameters.get(key)) {
        if !found.contains(&value) {
            found.push(value);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swept_key_is_told_by_its_last_words_and_a_number_with_what_it_counts() {
        for (key, told) in [
            ("network.nodes", "network.nodes = 2"),
            ("network.loss.rate", "loss.rate = 2"),
            ("fault.0.lasts", "fault.0.lasts = 2"),
            ("tier", "tier = 2"),
        ] {
            assert_eq!(brief(&BTreeMap::from([(key.to_owned(), Value::from(2))])), told);
        }
    }
}
