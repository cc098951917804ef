//! The sentence that answers a scenario's question.

use std::collections::BTreeSet;

use super::sum::Group;
use super::verdict::is_at;
use crate::lab::measure::Unit;
use crate::lab::results::Verdict;
use crate::lab::scenario::{Figure, Scenario, Template, label};

/// Metrics that a generated sentence names where the scenario expects nothing, as far as they were measured.
const HEADLINES: [&str; 4] = ["coverage", "rounds", "latency_ms.p99", "messages_per_node"];
/// Metrics in a generated sentence: more is a table.
const HEADLINES_MAX: usize = 3;

/// The file's sentence with its figures, or a generated one; what failed comes first.
pub(super) fn answer(scenario: &Scenario, groups: &[Group<'_>], expectations: &[Verdict]) -> String {
    let mut sentences = broken(groups);
    sentences.extend(expectations.iter().filter(|verdict| !verdict.met).map(failed));
    sentences.push(match scenario.answer.as_deref().map(Template::parse) {
        Some(Ok(template)) => template.fill(|figure| mean(figure, groups)),
        // A template that cannot be read was refused before anything ran.
        Some(Err(_)) | None => generated(scenario, groups),
    });
    sentences.join(" ")
}

fn broken(groups: &[Group<'_>]) -> Vec<String> {
    let runs = groups.iter().flat_map(|group| &group.runs);
    let broken: Vec<_> = runs.clone().filter_map(|run| run.outcome.as_ref().err()).collect();
    let names: BTreeSet<&str> = broken.iter().map(|it| it.check.as_str()).collect();
    let told = |name: &str| {
        let many = broken.iter().filter(|it| it.check == name).count();
        format!("The checker {name} failed in {many} of {} runs.", runs.clone().count())
    };
    names.into_iter().map(told).collect()
}

fn failed(verdict: &Verdict) -> String {
    let wanted = &verdict.wanted;
    // `verdict` writes the metric first, behind `mean` where it judges one.
    let metric = wanted.strip_prefix("mean ").unwrap_or(wanted).split(' ').next().unwrap_or_default();
    let at =
        if verdict.worst_cell.is_empty() { String::new() } else { format!(" at {}", verdict.worst_cell) };
    match verdict.unmeasured {
        0 => {
            let measured = Unit::of(metric).show(verdict.worst);
            format!("Measured {metric} {measured}{at}, wanted {wanted}.")
        }
        unmeasured => {
            format!("Measured no {metric} in {unmeasured} of {}{at}, wanted {wanted}.", verdict.held.1)
        }
    }
}

fn mean(figure: &Figure, groups: &[Group<'_>]) -> Option<f64> {
    let groups = groups.iter().filter(|group| is_at(&figure.at, group.parameters));
    let values: Vec<f64> = groups.flat_map(|group| group.values(&figure.metric)).map(|(_, it)| it).collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// "coverage 94.08 % (theory 94.05 %), rounds 12.1 over 50 runs."
fn generated(scenario: &Scenario, groups: &[Group<'_>]) -> String {
    let runs: usize = groups.iter().map(|group| group.runs.len()).sum();
    let figures: Vec<String> = headlines(scenario)
        .into_iter()
        .filter_map(|metric| figure(metric, groups))
        .take(HEADLINES_MAX)
        .collect();
    if figures.is_empty() {
        format!("Nothing was measured in {runs} runs.")
    } else {
        format!("{} ({runs} {}).", figures.join(", "), if runs == 1 { "run" } else { "runs" })
    }
}

/// What the scenario judges, else the usual ones; each once.
pub fn headlines(scenario: &Scenario) -> Vec<&str> {
    let judged = scenario.expectations.iter().chain(&scenario.claims).map(|it| it.metric.as_str());
    let mut names: Vec<&str> = Vec::new();
    for name in judged.chain(HEADLINES) {
        // A set would sort them, and what is judged has to come first.
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// A mean, or the least and the greatest of several cells.
fn figure(metric: &str, groups: &[Group<'_>]) -> Option<String> {
    let unit = Unit::of(metric);
    let means: Vec<(f64, &Group<'_>)> =
        groups.iter().filter_map(|group| Some((group.summary(metric)?.mean, group))).collect();
    let least = means.iter().min_by(|a, b| a.0.total_cmp(&b.0))?;
    let most = means.iter().max_by(|a, b| a.0.total_cmp(&b.0))?;
    if least.0 == most.0 {
        // Cells that measured the same may have different theories.
        let theory = least.1.theory.get(metric).filter(|_| means.len() == 1);
        let theory = theory.map_or_else(String::new, |it| format!(" (theory {})", unit.show(*it)));
        return Some(format!("{metric} {}{theory}", unit.show(least.0)));
    }
    let end =
        |(mean, group): &(f64, &Group<'_>)| format!("{} at {}", unit.show(*mean), label(group.parameters));
    Some(format!("{metric} {} to {}", end(least), end(most)))
}
