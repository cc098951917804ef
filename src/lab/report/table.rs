//! CSV: one row a run, one row a point of a curve.

use std::collections::{BTreeMap, BTreeSet};

use super::super::results::{CellResult, Results};
use super::{label, plain};

/// Runs with a column for every parameter and every metric that any run has.
pub(super) fn runs(results: &Results) -> String {
    let runs = &results.runs;
    let parameters: BTreeSet<&str> =
        runs.iter().flat_map(|run| run.parameters.keys().map(String::as_str)).collect();
    let metrics: BTreeSet<&str> =
        runs.iter().flat_map(|run| run.metrics.keys().map(String::as_str)).collect();
    let mut head = vec!["scenario", "tier", "seed"];
    head.extend(parameters.iter().chain(&metrics));
    head.extend(["trace_hash", "broken"]);
    let rows = runs.iter().map(|run| {
        let mut row = vec![run.scenario.clone(), run.tier.clone(), run.seed.to_string()];
        row.extend(parameters.iter().map(|key| run.parameters.get(*key).map(plain).unwrap_or_default()));
        row.extend(metrics.iter().map(|name| run.metrics.get(*name).map(f64::to_string).unwrap_or_default()));
        row.push(run.trace_hash.clone());
        row.push(run.broken.as_ref().map(|broken| broken.check.clone()).unwrap_or_default());
        row
    });
    written(&head, rows)
}

/// Points of every cell's curve; where only one of measurement and theory has a point, the others are empty.
pub(super) fn curves(results: &Results) -> String {
    let rows = results.scenarios.iter().flat_map(|answered| {
        answered.cells.iter().flat_map(|cell| {
            points(cell).into_iter().map(|(x, [p5, p50, p95, theory])| {
                let text = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
                let name = answered.name.clone();
                vec![
                    name,
                    label(&cell.parameters),
                    x.to_string(),
                    text(p5),
                    text(p50),
                    text(p95),
                    text(theory),
                ]
            })
        })
    });
    written(&["scenario", "cell", "x", "p5", "p50", "p95", "theory"], rows)
}

fn points(cell: &CellResult) -> Vec<(f64, [Option<f64>; 4])> {
    let mut points: BTreeMap<u64, (f64, [Option<f64>; 4])> = BTreeMap::new();
    // Non-negative floats are ordered as their bits are.
    let key = |x: f64| (x + 0.0).to_bits();
    for band in &cell.band {
        points.insert(key(band.x), (band.x, [Some(band.p5), Some(band.p50), Some(band.p95), None]));
    }
    for (x, share) in &cell.theory_curve {
        points.entry(key(*x)).or_insert((*x, [None; 4])).1[3] = Some(*share);
    }
    points.into_values().collect()
}

fn written(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let head = head.iter().map(|name| (*name).to_owned()).collect();
    for row in std::iter::once(head).chain(rows) {
        // Memory takes every write, and all rows are as long as their head.
        if writer.write_record(&row).is_err() {
            break;
        }
    }
    let bytes = writer.into_inner().unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}
