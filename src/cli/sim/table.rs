//! Results for a terminal: for each scenario its question, its answer, how its claims and expectations stand, its cells.

use std::io::{IsTerminal, stdout};

use comfy_table::{Cell, Color, ColumnConstraint, ContentArrangement, Table, presets};

use super::run::measured;
use crate::cli::failure::Failure;
use crate::cli::output::{clean, write};
use crate::lab::harness::headlines;
use crate::lab::measure::{Better, Unit};
use crate::lab::results::{Answered, BrokenRun, CellResult, Results, Run, Summary, Verdict};
use crate::lab::scenario::Document;

/// Columns where stdout is no terminal, or one that does not know its width.
const WIDTH: u16 = 100;
/// Columns below which a terminal is not believed.
const WIDTH_MIN: u16 = 40;
/// Columns that a metric of a cell takes.
const FIGURE_WIDTH: usize = 24;
/// Metrics shown of a cell where there are several, at most.
const FIGURES_MAX: usize = 4;

/// Broken runs shown of a scenario: the first ones say what the others do.
const BROKEN_MAX: usize = 5;

/// Prints all scenarios.
pub(super) fn print(results: &Results) -> Result<(), Failure> {
    let blocks: Vec<String> = results.scenarios.iter().map(|it| block(it, &results.runs)).collect();
    write(&blocks.join("\n"))
}

fn block(answered: &Answered, runs: &[Run]) -> String {
    let played: usize = answered.cells.iter().map(|cell| cell.runs).sum();
    let Answered { name, claim, tier, .. } = answered;
    let runs_text = if played == 1 { "1 run".into() } else { format!("{played} runs") };
    let mut text = format!("{} · {} · {tier} · {runs_text}\n", clean(name), clean(claim));
    let mut facts = borderless();
    facts.add_row(vec![Cell::new("question"), Cell::new(clean(&answered.question))]);
    facts.add_row(vec![Cell::new("answer"), Cell::new(clean(&answered.answer))]);
    for claim in &answered.claims {
        let colour = if claim.met { Color::Green } else { Color::Yellow };
        facts.add_row(vec![coloured("claimed", colour), judged(claim, "holds", "does not hold")]);
    }
    for expected in &answered.expectations {
        let colour = if expected.met { Color::Green } else { Color::Red };
        facts.add_row(vec![coloured("expected", colour), judged(expected, "met", "NOT MET")]);
    }
    let broken = runs.iter().filter(|run| run.scenario == *name);
    let broken: Vec<_> = broken.filter_map(|run| Some((run.broken.as_ref()?, &run.replay))).collect();
    for (broken, replay) in broken.iter().take(BROKEN_MAX) {
        let BrokenRun { check, at_ms, detail, .. } = broken;
        let told = format!("{check} failed after {at_ms} ms: {detail}\nreplay: {replay}");
        facts.add_row(vec![coloured("checker", Color::Red), Cell::new(clean_lines(&told))]);
    }
    if let more @ 1.. = broken.len().saturating_sub(BROKEN_MAX) {
        facts.add_row(vec![coloured("checker", Color::Red), Cell::new(format!("and {more} more runs"))]);
    }
    if let [cell] = answered.cells.as_slice()
        && let Some((full, low, high)) = cell.full
    {
        // To a tenth of a percent: the runs of a cell carry no more digits.
        let share = |value: f64| Unit::Share.show((value * 1e3).round() / 1e3);
        let (low, high) = (share(low), share(high));
        let told = format!("{full} of {} runs (95 %: {low} to {high})", cell.runs);
        facts.add_row(["full".to_string(), told]);
    }
    if let Some(column) = facts.column_mut(0) {
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    text.push_str(&lines(&facts));
    if answered.cells.iter().all(|cell| cell.metrics.is_empty()) {
        return text;
    }
    text.push('\n');
    text.push_str(&match answered.cells.as_slice() {
        [cell] => lines(&metrics_of(cell)),
        cells => cells_of(answered, cells),
    });
    text
}

fn judged(verdict: &Verdict, good: &str, bad: &str) -> Cell {
    let wanted = &verdict.wanted;
    let (held, all) = verdict.held;
    Cell::new(clean_lines(&if verdict.met {
        format!("{wanted}: {good}, {held} of {all} {}", verdict.counts)
    } else {
        format!("{wanted}: {bad}, {}\nreplay: {}", measured(verdict), verdict.replay)
    }))
}

/// A row for each metric of the only cell.
fn metrics_of(cell: &CellResult) -> Table {
    let mut table = borderless();
    let heads = ["METRIC", "MEAN", "± 95 %", "WORST", "SEED", "THEORY"];
    let kept = if cell.theory.is_empty() { 5 } else { 6 };
    table.set_header(&heads[..kept]);
    for (metric, summary) in &cell.metrics {
        let unit = Unit::of(metric);
        let worst = if Better::of(metric) == Better::More { summary.min } else { summary.max };
        let theory = cell.theory.get(metric).map_or_else(String::new, |it| unit.show(*it));
        let half = half(metric, summary, cell.runs).unwrap_or_default();
        let row = [
            metric.clone(),
            unit.show(summary.mean),
            half,
            unit.show(worst),
            summary.worst_seed.to_string(),
            theory,
        ];
        table.add_row(row.into_iter().take(kept));
    }
    if let Some(column) = table.column_mut(0) {
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    table
}

/// A row for each cell, with the metrics that the scenario is about, as many as fit.
fn cells_of(answered: &Answered, cells: &[CellResult]) -> String {
    let mut table = borderless();
    let keys: Vec<&String> = cells.iter().flat_map(|cell| cell.parameters.keys()).collect();
    let keys: std::collections::BTreeSet<&String> = keys.into_iter().collect();
    let document = Document::read(&answered.source, &[]).ok();
    let wanted = document.as_ref().map(|document| headlines(&document.scenario)).unwrap_or_default();
    let measured = |metric: &&str| cells.iter().any(|cell| cell.metrics.contains_key(*metric));
    let wanted: Vec<&str> = wanted.into_iter().filter(measured).collect();
    let width = usize::from(table.width().unwrap_or(WIDTH));
    // The 10 are the column `FULL` and the gaps around it.
    let taken: usize = 10 + keys.iter().map(|key| short(key).len() + 2).sum::<usize>();
    // One at least even where it does not fit: a row without a figure says nothing.
    let fitting = (width.saturating_sub(taken) / FIGURE_WIDTH).clamp(1, FIGURES_MAX);
    let shown: Vec<&str> = wanted.iter().copied().take(fitting).collect();
    let mut heads: Vec<String> = keys.iter().map(|key| short(key).to_uppercase()).collect();
    heads.push("FULL".into());
    heads.extend(shown.iter().map(|metric| metric.to_uppercase()));
    table.set_header(heads);
    for cell in cells {
        let mut row: Vec<String> =
            keys.iter().map(|key| cell.parameters.get(*key).map_or_else(String::new, plain_text)).collect();
        row.push(cell.full.map_or_else(String::new, |(full, ..)| format!("{full}/{}", cell.runs)));
        row.extend(shown.iter().map(|metric| {
            let summary = cell.metrics.get(*metric);
            summary.map_or_else(|| "—".into(), |summary| compact(metric, summary, cell.runs))
        }));
        table.add_row(row);
    }
    format!("{} mean ± 95 %, #worst seed; all metrics: --format json, or --out DIR\n", lines(&table))
}

/// `94.08 % ± 0.05 %  #7`.
fn compact(metric: &str, summary: &Summary, runs: usize) -> String {
    let half = half(metric, summary, runs).map(|half| format!(" ± {half}")).unwrap_or_default();
    let differ = runs > 1 && summary.min != summary.max;
    let seed = if differ { format!("  #{}", summary.worst_seed) } else { String::new() };
    format!("{}{half}{seed}", Unit::of(metric).show(summary.mean))
}

/// Half of the interval, to two digits; none where one run says nothing of it, or all say the same.
fn half(metric: &str, summary: &Summary, runs: usize) -> Option<String> {
    let half = (summary.high - summary.low) / 2.0;
    if runs < 2 || half <= 0.0 {
        return None;
    }
    // The floor of the logarithm is the place of the first digit, so one less leaves two.
    let scale = 10_f64.powf(half.log10().floor() - 1.0);
    Some(Unit::of(metric).show((half / scale).round() * scale))
}

/// The metric that `wanted` speaks of decides how a value is written.
pub(super) fn figure(wanted: &str, value: f64) -> String {
    let metric = wanted.strip_prefix("mean ").unwrap_or(wanted).split(' ').next().unwrap_or_default();
    Unit::of(metric).show(value)
}

/// `network.loss.rate` is read as `loss.rate`, and the table stays narrow.
fn short(key: &str) -> &str {
    key.split_once('.').map_or(key, |(_, rest)| rest)
}

fn plain_text(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), clean)
}

fn coloured(text: &str, colour: Color) -> Cell {
    let cell = Cell::new(text);
    let refused = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
    if refused || !stdout().is_terminal() { cell } else { cell.fg(colour) }
}

fn clean_lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}

/// A table without lines, as wide as the terminal.
pub(super) fn borderless() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if table.width().is_none_or(|width| width < WIDTH_MIN) {
        table.set_width(WIDTH);
    }
    table
}

/// Its lines, each with its end.
pub(super) fn lines(table: &Table) -> String {
    table.trim_fmt().lines().map(|line| format!(" {line}\n")).collect()
}
