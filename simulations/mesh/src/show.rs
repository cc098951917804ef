//! Results as text: for each scenario its answer, how its claims and expectations stand, its cells and its traces.

use std::fmt::Write;

use aop::lab::results::{Answered, CellResult, Results, Run, Verdict};

/// All of them.
pub fn table(results: &Results) -> String {
    let blocks: Vec<String> = results.scenarios.iter().map(|it| block(it, &results.runs)).collect();
    blocks.join("\n")
}

fn block(answered: &Answered, runs: &[Run]) -> String {
    let Answered { name, claim, tier, question, answer, .. } = answered;
    let mut text = format!("{name} · {claim} · {tier}\n  question  {question}\n  answer    {answer}\n");
    let judged = answered.claims.iter().map(|it| ("claimed ", it));
    for (kind, verdict) in judged.chain(answered.expectations.iter().map(|it| ("expected", it))) {
        text += &verdict_line(kind, verdict);
    }
    for cell in &answered.cells {
        text += &cell_lines(cell);
    }
    for run in runs.iter().filter(|run| run.scenario == *name) {
        let parameters = parameters(&run.parameters);
        // Writing to a string does not fail.
        _ = match &run.broken {
            Some(broken) => writeln!(
                text,
                "  seed {}{parameters}: {} failed after {} ms: {}\n    {}",
                run.seed, broken.check, broken.at_ms, broken.detail, run.replay
            ),
            None => writeln!(text, "  seed {}{parameters}: trace {}", run.seed, run.trace_hash),
        };
    }
    text
}

fn verdict_line(kind: &str, verdict: &Verdict) -> String {
    let stands = match (kind, verdict.met) {
        ("claimed ", true) => "holds",
        ("claimed ", false) => "does not hold",
        (_, true) => "met",
        (_, false) => "NOT MET",
    };
    let Verdict { wanted, held: (held, all), counts, worst, worst_cell, replay, .. } = verdict;
    let place = if worst_cell.is_empty() { String::new() } else { format!(" where {worst_cell}") };
    let again = if verdict.met { String::new() } else { format!("            replay: {replay}\n") };
    format!("  {kind}  {wanted}: {stands}, {held} of {all} {counts}, worst {worst}{place}\n{again}")
}

fn cell_lines(cell: &CellResult) -> String {
    let parameters = parameters(&cell.parameters);
    let mut text = format!("  {} {}{parameters}\n", cell.runs, if cell.runs == 1 { "run" } else { "runs" });
    for (metric, it) in &cell.metrics {
        _ = writeln!(text, "    {metric:<20} {:>12.3}   {:.3} to {:.3}", it.mean, it.min, it.max);
    }
    text
}

fn parameters(parameters: &std::collections::BTreeMap<String, serde_json::Value>) -> String {
    parameters.iter().map(|(key, value)| format!(", {key} = {value}")).collect()
}
