//! The tight epidemic model against theory, under loss and faults, and against itself.

use aop::lab::measure::Measured;
use aop::lab::scenario::{Document, Scenario};
use aop::lab::{model, theory};

fn scenario(text: &str) -> Scenario {
    let head = "name = 'model'\nquestion = 'Does it?'\nclaim = 'none'\ntier = 'model'\n";
    let document =
        Document::read(&format!("{head}{text}"), &[]).unwrap_or_else(|flaw| panic!("{flaw}\n{text}"));
    document.scenario
}

fn push(nodes: usize, more: &str) -> Scenario {
    scenario(&format!(
        "[network]\nnodes = {nodes}\n[protocol]\nkind = 'push'\n{more}\n[theory]\ncurve = 'push'"
    ))
}

/// A mesh of 1,000 nodes in eight regions; `before` goes to the network, `more` to the protocol and after it.
fn mesh(before: &str, more: &str) -> Scenario {
    scenario(&format!(
        "[network]\nnodes = 1000\nregions = 'cloud-8'\n{before}\n[protocol]\nkind = 'mesh'\n{more}"
    ))
}

/// Mean of a metric over seeds from 1; all must have it.
fn mean(scenario: &Scenario, seeds: u64, metric: &str) -> f64 {
    let value = |seed| metric_of(&model::play(scenario, seed), metric, seed);
    (1..=seeds).map(value).sum::<f64>() / seeds as f64
}

fn metric_of(measured: &Measured, metric: &str, seed: u64) -> f64 {
    *measured
        .metrics
        .get(metric)
        .unwrap_or_else(|| panic!("seed {seed} has no {metric}: {:?}", measured.metrics))
}

#[track_caller]
fn assert_near(found: f64, wanted: f64, within: f64) {
    assert!((found - wanted).abs() <= within, "{found} instead of {wanted} ± {within}");
}

#[test]
fn three_peers_once_reach_as_many_nodes_as_theory_says_at_every_loss() {
    for (loss, band) in [(0.0, 0.01), (0.1, 0.01), (0.3, 0.05)] {
        let mut once = push(5_000, "rounds = 1");
        once.network.loss.rate = loss;
        assert_near(mean(&once, 10, "coverage"), theory::metrics(&once)["coverage"], band);
        assert!(mean(&once, 10, "complete") < 1.0);
    }
}

#[test]
fn repeated_push_takes_the_rounds_of_theory_and_one_more() {
    for (nodes, loss) in [(1_000, 0.0), (10_000, 0.0), (10_000, 0.3)] {
        let mut forever = push(nodes, "");
        forever.network.loss.rate = loss;
        let theory = theory::metrics(&forever);
        assert_eq!(mean(&forever, 5, "coverage"), 1.0);
        assert_near(mean(&forever, 5, "rounds") - theory["rounds"], 0.8, 0.7);
        assert_near(mean(&forever, 5, "rounds.p50"), theory["rounds.p50"], 0.8);
    }
    let mut both = push(10_000, "fanout = 1");
    both.protocol.kind = aop::lab::scenario::SpreadProtocol::PushPull;
    both.theory = Some(aop::lab::scenario::Theory { curve: aop::lab::scenario::Curve::PushPull });
    assert_near(mean(&both, 5, "rounds"), theory::metrics(&both)["rounds"], 0.8);
}

#[test]
fn rounds_of_many_updates_are_played_as_those_of_one() {
    // Two authors force the engine of virtual time; each update then spreads as one alone does.
    let alone = push(2_000, "rounds = 2");
    let many = push(2_000, "rounds = 2\n[workload]\nupdates = 4\nauthors = 2");
    for metric in ["coverage", "rounds.p50", "messages_per_node"] {
        assert_near(mean(&many, 4, metric), mean(&alone, 16, metric), 0.05 * mean(&alone, 16, metric));
    }
    let forever = push(2_000, "[workload]\nupdates = 2");
    assert_near(mean(&forever, 4, "rounds"), mean(&push(2_000, ""), 8, "rounds"), 1.0);
}

#[test]
fn a_lost_message_that_is_sent_again_costs_time_and_no_coverage() {
    let (mut dropped, mut late) = (push(2_000, "rounds = 1"), push(2_000, "rounds = 1"));
    (dropped.network.loss.rate, late.network.loss.rate) = (0.4, 0.4);
    late.network.loss.mode = aop::lab::scenario::LossMode::Retransmit;
    assert!(mean(&dropped, 5, "coverage") < 0.8);
    assert_near(mean(&late, 5, "coverage"), 0.94, 0.02);
    let lossless = mean(&push(2_000, "rounds = 1"), 5, "rounds.p50");
    assert!(mean(&late, 5, "rounds.p50") > lossless + 1.0);
}

#[test]
fn degree_8_bears_a_loss_of_30_percent_and_degree_3_does_not() {
    let loss = "loss = { rate = 0.3 }";
    assert!(mean(&mesh(loss, "degree = 8\nlazy = false"), 10, "coverage") > 0.999);
    assert!(mean(&mesh(loss, "degree = 3\nlazy = false"), 10, "coverage") < 0.95);
    let told = mean(&mesh(loss, "degree = 3"), 10, "coverage");
    assert!(told > 0.99, "heartbeats that say what a node has repair most of it: {told}");
}

#[test]
fn a_flood_over_equal_links_takes_the_hops_and_copies_of_theory() {
    let text =
        "[network]\nnodes = 2000\nlatency = '50ms'\n[protocol]\nkind = 'mesh'\ndegree = 8\nlazy = false
[theory]\ncurve = 'mesh'";
    let flood = scenario(text);
    let theory = theory::metrics(&flood);
    assert_near(mean(&flood, 5, "hops"), theory["hops"], 1.0);
    assert_near(mean(&flood, 5, "messages_per_node"), theory["messages_per_node"], 0.01);
    assert_near(mean(&flood, 5, "latency_ms.p50"), theory["latency_ms.p50"], 50.0);
    assert_eq!(mean(&flood, 5, "latency_ms.p100"), mean(&flood, 5, "hops") * 50.0);
}

#[test]
fn a_flood_between_regions_takes_the_time_of_theory() {
    let mut flood = mesh("", "degree = 8\nlazy = false\n[theory]\ncurve = 'mesh'");
    flood.network.nodes = 4_000;
    let theory = theory::metrics(&flood);
    assert_near(mean(&flood, 16, "latency_ms.p50"), theory["latency_ms.p50"], 25.0);
    assert_near(mean(&flood, 16, "latency_ms.p99"), theory["latency_ms.p99"], 25.0);
}

const PARTITION: &str = "[[fault]]\nkind = 'partition'\nat = '0s'\nby = 'region'\nlasts = '10s'";

#[test]
fn a_partition_heals_by_reconciliation_and_never_without() {
    let alone = model::play(&mesh("", &format!("degree = 8\n{PARTITION}")), 1);
    assert_eq!(alone.metrics["coverage"], 0.5, "one side never hears of it");
    assert!(!alone.metrics.contains_key("healed_ms"));
    let every = "degree = 8\nanti_entropy = { every = '10s' }";
    let healed = model::play(&mesh("", &format!("{every}\n{PARTITION}")), 1);
    assert_eq!((healed.metrics["coverage"], healed.metrics["complete"]), (1.0, 1.0));
    let took = healed.metrics["healed_ms"];
    assert!(took > 0.0 && took < 15_000.0, "{took} ms");
    // One repair is forwarded over the mesh to most of the other side.
    assert!(healed.metrics["latency_ms.p50"] < 12_000.0, "{:?}", healed.metrics);
}

#[test]
fn a_random_partition_keeps_its_groups_apart() {
    let groups = "[[fault]]\nkind = 'partition'\nat = '0s'\ngroups = 4\nlasts = '50s'";
    let measured = model::play(&mesh("", &format!("degree = 20\n{groups}")), 3);
    assert_near(measured.metrics["coverage"], 0.25, 0.06);
}

/// Twenty authors write fifty updates each, which are pushed in some rounds and reconciled in each.
fn versions(rounds: u32, digest: &str) -> Scenario {
    let protocol = format!("rounds = {rounds}\nanti_entropy = {{ every = '1s' }}\ndigest = '{digest}'");
    push(200, &format!("{protocol}\n[workload]\nupdates = 1000\nauthors = 20\nrate = 100"))
}

#[test]
fn the_greatest_version_leaves_holes_for_ever_and_the_prefix_none() {
    let greatest = model::play(&versions(3, "max"), 1).metrics;
    assert!((0.2..0.8).contains(&greatest["complete"]), "{greatest:?}");
    assert!(greatest["holes"] > 0.0002, "{greatest:?}");
    assert_near(greatest["holes"], 1.0 - greatest["coverage"], 1e-9);
    assert!(model::play(&versions(1, "max"), 1).metrics["holes"] > 0.03);
    for rounds in [1, 3] {
        let prefix = model::play(&versions(rounds, "prefix"), 1).metrics;
        assert_eq!((prefix["complete"], prefix["holes"]), (1.0, 0.0), "{prefix:?}");
    }
}

#[test]
fn a_node_that_returns_and_asks_at_once_is_seldom_stale() {
    let churn = "[[fault]]\nkind = 'churn'\nat = '0s'\nshare = 0.2\nmean_off = '10s'";
    let stale =
        |anti_entropy: &str| mean(&mesh("", &format!("degree = 8\n{anti_entropy}\n{churn}")), 3, "stale");
    let never = stale("");
    let periodic = stale("anti_entropy = { every = '10s' }");
    let on_join = stale("anti_entropy = { every = '10s', on_join = true }");
    assert!(
        never > 0.05 && periodic > 0.0 && periodic < never / 5.0 && on_join < periodic / 4.0,
        "{never} {periodic} {on_join}"
    );
}

#[test]
fn a_churn_that_ends_brings_everybody_back() {
    let churn = "[[fault]]\nkind = 'churn'\nat = '0s'\nshare = 0.5\nmean_off = '5s'\nlasts = '20s'";
    let measured = model::play(
        &mesh("", &format!("degree = 8\nanti_entropy = {{ every = '5s', on_join = true }}\n{churn}")),
        2,
    );
    assert_eq!(measured.metrics["complete"], 1.0, "{:?}", measured.metrics);
    assert!(measured.metrics["healed_ms"] < 2_000.0, "{:?}", measured.metrics);
}

#[test]
fn mute_nodes_take_and_never_forward() {
    let mute = |share: f64| {
        format!("degree = 4\nlazy = false\n[[fault]]\nkind = 'mute'\nat = '0s'\nshare = {share}")
    };
    let (few, many) =
        (mean(&mesh("", &mute(0.1)), 5, "coverage"), mean(&mesh("", &mute(0.5)), 5, "coverage"));
    assert!(few > 0.99 && many < 0.95 && many > 0.4, "{few} {many}");
    // With everybody but the author mute only its own links bring it.
    let alone = model::play(&mesh("", &mute(1.0).replace("share = 1", "nodes = 999")), 1);
    assert_eq!(alone.metrics["coverage"], 5.0 / 1_000.0);
    let copies = alone.metrics["messages_per_node"] * 1_000.0;
    assert_near(copies, 4.0, 1e-9);
}

#[test]
fn who_joins_late_learns_what_was_written_before_only_by_reconciliation() {
    let join = "[[fault]]\nkind = 'join'\nat = '10s'\nnodes = 50";
    let alone = mean(&mesh("", &format!("degree = 8\n{join}")), 2, "coverage");
    assert_near(alone, 0.95, 1e-9);
    // Some of the newcomers ask one another first.
    let on_join = "degree = 8\nanti_entropy = { every = '20s', on_join = true }";
    let measured = model::play(&mesh("", &format!("{on_join}\n{join}")), 1);
    assert_eq!(measured.metrics["complete"], 1.0);
    assert!(measured.metrics["healed_ms"] < 21_000.0, "{:?}", measured.metrics);
}

#[test]
fn the_curve_and_the_spread_tell_the_same_story() {
    for scenario in [push(3_000, ""), mesh("loss = { rate = 0.1 }", "degree = 6")] {
        let measured = model::play(&scenario, 4);
        let spread = measured.spread.unwrap();
        assert_eq!(spread.seen.len(), scenario.network.nodes);
        assert_eq!(spread.seen.iter().filter(|seen| **seen == Some(0)).count(), 1, "the author");
        let known = spread.seen.iter().flatten().count() as f64 / spread.seen.len() as f64;
        assert_eq!(measured.curve.last().unwrap().1, known);
        assert_eq!(known, measured.metrics["coverage"]);
        assert!(measured.curve.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1), "{:?}", measured.curve);
        let regions = if scenario.network.regions.is_some() { scenario.network.nodes } else { 0 };
        assert_eq!(spread.regions.len(), regions);
    }
}

/// Everything at once: loss, regions, many updates, each kind of fault.
fn storm() -> Scenario {
    let mut faults = String::from("degree = 6\nanti_entropy = { every = '5s', on_join = true }\n");
    faults += "[workload]\nupdates = 40\nauthors = 7\nrate = 4\n";
    for fault in [
        "kind = 'churn'\nat = '1s'\nshare = 0.2\nmean_off = '3s'\nlasts = '15s'",
        "kind = 'partition'\nat = '2s'\ngroups = 2\nlasts = '5s'",
        "kind = 'mute'\nat = '0s'\nshare = 0.1",
        "kind = 'join'\nat = '8s'\nshare = 0.1",
    ] {
        faults += &format!("[[fault]]\n{fault}\n");
    }
    let mut storm = mesh("loss = { rate = 0.1, mode = 'retransmit' }", &faults);
    storm.network.nodes = 300;
    storm
}

#[test]
fn equal_seeds_play_equal_runs_on_any_thread_and_other_seeds_others() {
    for scenario in [storm(), push(2_000, "rounds = 3"), versions(1, "max")] {
        let here = model::play(&scenario, 9);
        let there = std::thread::scope(|scope| {
            let threads =
                [scope.spawn(|| model::play(&scenario, 9)), scope.spawn(|| model::play(&scenario, 10))];
            threads.map(|thread| thread.join().unwrap())
        });
        assert_eq!(here, there[0]);
        assert_ne!(here.trace, there[1].trace);
    }
}

#[test]
fn after_a_storm_everybody_agrees() {
    for seed in 1..=5 {
        let metrics = model::play(&storm(), seed).metrics;
        assert_eq!(metrics["complete"], 1.0, "seed {seed}: {metrics:?}");
        assert!(metrics["healed_ms"] < 20_000.0, "seed {seed}: {metrics:?}");
    }
}
