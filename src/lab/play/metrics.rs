//! What is measured of a run, by looking at its nodes in the end and at what was counted on the way.

use std::collections::BTreeSet;

use super::super::measure::{CURVE_MAX, Measured, Metrics, SPREAD_MAX, Spread, percentile};
use super::Run;
use crate::proto::name::ZoneName;
use crate::proto::zone::Zone;
use crate::sim::Update;

const HOUR_MS: f64 = 3_600_000.0;

/// Everything that the `core` tier measures.
pub(super) fn measure(run: &mut Run<'_>) -> Measured {
    let mut metrics = metrics(run);
    if run.scenario.questions.is_some() {
        metrics.extend(of_questions(run));
    }
    if let Some(calls) = &run.scenario.calls {
        metrics.extend(super::calls::measure(&run.world, calls));
    }
    let world = &run.world;
    let first = world.metrics().updates.first();
    let spread = first
        .filter(|_| world.size() <= SPREAD_MAX)
        .map(|update| Spread { seen: update.seen().collect(), regions: world.regions().to_vec() });
    Measured {
        trace: world.outcome().trace,
        metrics,
        curve: first.map(|update| curve(run, update)).unwrap_or_default(),
        spread,
    }
}

fn metrics(run: &mut Run<'_>) -> Metrics {
    let mut metrics = Metrics::new();
    let mut put = |name: &str, value: f64| {
        metrics.insert(name.into(), value);
    };
    let kept = run.world.promises();
    let (world, counted) = (&run.world, run.world.metrics());
    let nodes = world.size() as f64;
    let (coverage, complete) = reached(run);
    put("coverage", coverage);
    put("complete", complete);
    let mut latencies: Vec<f64> = honest(run).flat_map(|update| update.latencies()).collect();
    latencies.sort_by(f64::total_cmp);
    for (name, share) in [("latency_ms.p50", 0.5), ("latency_ms.p99", 0.99), ("latency_ms.p100", 1.0)] {
        if let Some(latency) = percentile(&latencies, share) {
            put(name, latency);
        }
    }
    // Withdrawals and renewals are updates too, and are sent as such.
    let written = (world.reference().writes() as f64).max(1.0);
    put("messages_per_node", counted.copies as f64 / nodes / written);
    put("bytes_per_node", (counted.copy_bytes + counted.repair_bytes) as f64 / nodes / written);
    put("duplicates", counted.duplicates as f64 / nodes / written);
    if let Some(healed_ms) = run.healed_ms {
        put("healed_ms", healed_ms as f64);
    }
    let hours = counted.lived_ms(world.now_ms()) as f64 / HOUR_MS;
    put("repaired", counted.repaired as f64 / nodes);
    put("traffic_bytes_per_s", mean(run.rest_bytes.iter().copied()).unwrap_or_default());
    put("syncs", counted.syncs as f64 / hours);
    put("zombies", kept.zombies as f64);
    put("lost_writes", kept.lost as f64);
    put("refused_writes", world.reference().refused.values().sum::<u64>() as f64);
    put("blamed", counted.blamed.len() as f64);
    put("node_hours", hours);
    if run.scenario.faults.iter().any(|fault| fault.kind.is_hostile()) {
        let adversary_report = world.adversary_report();
        put("penalties", adversary_report.blamed.values().sum::<u64>() as f64);
        put("foreign_records", adversary_report.foreign_records);
        put("forks_seen", adversary_report.forks_seen);
    }
    metrics
}

/// What questions came to, and what nodes send that are gateways and that are none.
fn of_questions(run: &mut Run<'_>) -> Metrics {
    let counts = run.world.questions().clone();
    let mut metrics = Metrics::new();
    let mut put = |name: &str, value: f64| {
        metrics.insert(name.into(), value);
    };
    let answered = counts.messages.len().max(1) as f64;
    let share = |part: u64, whole: u64| if whole == 0 { 1.0 } else { part as f64 / whole as f64 };
    put("questions", counts.messages.len() as f64);
    put("questions_complete", share(counts.complete, counts.searches));
    put("questions_wrong", counts.wrong as f64);
    put("questions_decided", share(counts.decided, counts.names));
    let sorted = |values: &[u32]| {
        let mut values: Vec<f64> = values.iter().map(|it| f64::from(*it)).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let (took, messages) = (sorted(&counts.took_ms), sorted(&counts.messages));
    let figures = [
        ("question_ms.p50", percentile(&took, 0.5)),
        ("question_ms.p99", percentile(&took, 0.99)),
        ("question_messages.p50", percentile(&messages, 0.5)),
        ("question_messages.p99", percentile(&messages, 0.99)),
        ("question_messages.p100", percentile(&messages, 1.0)),
    ];
    figures.into_iter().for_each(|(name, value)| put(name, value.unwrap_or_default()));
    let (root, nodes) = (ZoneName::root(), run.world.size());
    let of_root: Vec<usize> = (0..nodes).filter(|at| run.world.member_of(*at).contains(&root)).collect();
    let is_gateway = |at: &usize, run: &mut Run<'_>| {
        run.world.node(*at).is_some_and(|(node, now)| node.tree(now).iter().any(|zone| zone.is_gateway))
    };
    let members: Vec<usize> = (0..nodes).filter(|at| !is_gateway(at, run)).collect();
    let asked = of_root.iter().map(|at| counts.asked[*at] as f64 / answered);
    put("root_questions", mean(asked).unwrap_or_default());
    put("root_bytes_per_s", mean(of_root.iter().map(|at| run.rest_bytes[*at])).unwrap_or_default());
    put("member_bytes_per_s", mean(members.iter().map(|at| run.rest_bytes[*at])).unwrap_or_default());
    metrics
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> Option<f64> {
    let count = values.len();
    (count > 0).then(|| values.sum::<f64>() / count as f64)
}

/// Shares of (node, update) pairs that came together, of those in which the node holds the update's zone, and of nodes that
/// have every update they should. A node has an update if it learnt it once, holds what is at least as great in the end, or
/// shows nothing of it where it was withdrawn.
fn reached(run: &Run<'_>) -> (f64, f64) {
    let updates: Vec<&Update> = honest(run).collect();
    let (mut pairs, mut together, mut complete, mut nodes) = (0_u64, 0_u64, 0_u64, 0_u64);
    let withdrawn = run.world.reference().withdrawn();
    // Once for all nodes: an update's list would else be walked anew for each.
    let seen: Vec<Vec<Option<u32>>> = updates.iter().map(|update| update.seen().collect()).collect();
    for (at, node) in run.world.nodes() {
        let zones: BTreeSet<&ZoneName> = node.zones().map(Zone::name).collect();
        let wanted = || updates.iter().enumerate().filter(|(_, update)| zones.contains(&update.zone));
        let has = |(number, update): &(usize, &&Update)| {
            let held = node.record(&update.zone, &update.key);
            seen[*number][at].is_some()
                || held.is_some_and(|held| held.order() >= update.order)
                || (held.is_none() && withdrawn.contains(&update.key))
        };
        let (all, count) = (wanted().count(), wanted().filter(has).count());
        nodes += 1;
        pairs += all as u64;
        together += count as u64;
        // Where a zone has no updates its nodes have them all.
        complete += u64::from(count == all && !updates.is_empty());
    }
    let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    (share(together, pairs), share(complete, nodes))
}

/// What an adversary writes counts for nothing.
fn honest<'a>(run: &'a Run<'_>) -> impl Iterator<Item = &'a Update> {
    run.world.metrics().updates.iter().filter(|update| run.world.is_honest(update.author))
}

/// Share of the nodes that hold its zone which know an update, by milliseconds since it was written.
fn curve(run: &Run<'_>, update: &Update) -> Vec<(f64, f64)> {
    let nodes = match run.scenario.zones.as_slice() {
        [] => run.world.size(),
        _ => run
            .world
            .nodes()
            .filter(|(_, node)| node.zones().map(Zone::name).any(|it| *it == update.zone))
            .count(),
    };
    let mut times: Vec<u32> = update.seen().flatten().collect();
    times.sort_unstable();
    let known = |at: usize| (f64::from(times[at]), (at + 1) as f64 / nodes as f64);
    let points = times.len().min(CURVE_MAX);
    // There are no more points than times, so the quotient is at least 1.
    (1..=points).map(|point| known(point * times.len() / points - 1)).collect()
}
