//! Results as a table.

use std::collections::BTreeMap;

use aop::sim::results::{Results, Run};

/// Every cell with its metrics over all seeds: mean, least and greatest.
pub fn table(results: &Results) -> String {
    let mut cells: BTreeMap<String, Vec<&Run>> = BTreeMap::new();
    for run in &results.runs {
        let parameters = run.parameters.iter().map(|(key, value)| format!(", {key} = {value}"));
        let cell = format!("{}{}", run.scenario, parameters.collect::<String>());
        cells.entry(cell).or_default().push(run);
    }
    cells.iter().map(|(name, runs)| cell(name, runs)).collect::<Vec<_>>().join("\n\n")
}

fn cell(name: &str, runs: &[&Run]) -> String {
    let mut lines = vec![format!("{name}: {} runs", runs.len())];
    let mut values: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for run in runs {
        for (metric, value) in &run.metrics {
            values.entry(metric).or_default().push(*value);
        }
        match &run.broken {
            Some(broken) => lines.push(format!(
                "  seed {}: {} at {} ms: {}\n    {}",
                run.seed, broken.check, broken.at_ms, broken.detail, run.replay
            )),
            None => lines.push(format!("  seed {}: trace {}", run.seed, run.trace_hash)),
        }
    }
    lines.push(format!("  {:<20} {:>12} {:>12} {:>12}", "metric", "mean", "least", "greatest"));
    for (metric, values) in values {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        lines.push(format!("  {metric:<20} {mean:>12.3} {least:>12.3} {greatest:>12.3}"));
    }
    lines.join("\n")
}
