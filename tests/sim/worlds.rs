//! Scenarios on real nodes: what a run of the `core` tier does and measures.

use std::time::Duration;

use aop::lab::measure::{METRICS, Measured, Missing};
use aop::lab::play::{LIVENESS_MS_MAX, play, play_told};
use aop::lab::scenario::{Document, Scenario, Tier};

/// A scenario of real nodes; `more` is TOML that follows its tables.
fn scenario(nodes: usize, network: &str, more: &str) -> Scenario {
    let text = format!(
        "name = \"world\"\nquestion = \"Does it hold?\"\nclaim = \"none\"\ntier = \"core\"\n\
         [network]\nnodes = {nodes}\n{network}\n\
         [protocol]\nkind = \"mesh\"\ndegree = 4\nanti_entropy = {{ every = \"30s\", on_join = true }}\n{more}"
    );
    Document::read(&text, &[]).unwrap_or_else(|flaw| panic!("{flaw}\n{text}")).scenario
}

fn played(scenario: &Scenario, seed: u64) -> Measured {
    play(scenario, seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken:?}"))
}

fn metric(measured: &Measured, name: &str) -> f64 {
    *measured.metrics.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", measured.metrics))
}

const LATENCY: &str = "latency = { least = \"5ms\", most = \"50ms\" }";
/// What only a world with an adversary measures.
const OF_ADVERSARIES: [&str; 3] = ["foreign_records", "forks_seen", "penalties"];
/// How the names of those begin that only a world with questions measures.
const OF_QUESTIONS: [&str; 4] = ["question", "root_", "member_", "calls"];

#[test]
fn a_run_measures_everything_its_tier_promises_and_nothing_else() {
    let parted = "[workload]\nupdates = 4\n[[fault]]\nkind = \"partition\"\nat = \"20s\"\nlasts = \"5s\"";
    let measured = played(&scenario(8, LATENCY, parted), 1);
    let promised =
        METRICS.iter().filter(|metric| metric.tiers.contains(&Tier::Core)).map(|metric| metric.name);
    let is_of_questions = |name: &&str| OF_QUESTIONS.iter().any(|begin| name.starts_with(begin));
    let mut promised: Vec<&str> =
        promised.filter(|name| !OF_ADVERSARIES.contains(name) && !is_of_questions(name)).collect();
    promised.sort_unstable();
    assert_eq!(measured.metrics.keys().map(String::as_str).collect::<Vec<_>>(), promised);
    assert!(measured.metrics.values().all(|value| value.is_finite()));
}

#[test]
fn equal_seeds_play_equal_runs_on_any_thread_and_others_do_not() {
    let churning = "[workload]\nupdates = 10\nrate = 1\n[[fault]]\nkind = \"churn\"\nat = \"15s\"\nshare = 0.3\n\
                    mean_off = \"5s\"\nlasts = \"20s\"";
    let run =
        |seed: u64| played(&scenario(10, "regions = \"cloud-8\"\nloss = { rate = 0.1 }", churning), seed);
    let threads: Vec<_> = [7, 7, 8].map(|seed| std::thread::spawn(move || run(seed))).into();
    let runs: Vec<Measured> = threads.into_iter().map(|it| it.join().expect("a thread that plays")).collect();
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0].trace, runs[2].trace);
}

#[test]
fn an_update_reaches_the_far_regions_later_and_its_curve_ends_with_all_nodes() {
    let measured = played(&scenario(40, "regions = \"cloud-8\"", "[workload]\nupdates = 5"), 1);
    let (half, all) = (metric(&measured, "latency_ms.p50"), metric(&measured, "latency_ms.p100"));
    assert!((40.0..=300.0).contains(&half) && half < all && all <= 800.0, "{half} {all}");
    let spread = measured.spread.expect("a small world");
    assert_eq!((spread.seen.len(), spread.regions.len()), (40, 40));
    assert_eq!(spread.seen.iter().filter(|seen| **seen == Some(0)).count(), 1, "its author");
    let (first, last) = (measured.curve[0], measured.curve[measured.curve.len() - 1]);
    assert_eq!((first, last.1), ((0.0, 1.0 / 40.0), 1.0));
    assert_eq!(Some(last.0), spread.seen.iter().flatten().max().map(|last| f64::from(*last)));
    assert!(measured.curve.is_sorted_by(|one, next| one.0 <= next.0 && one.1 < next.1));
}

#[test]
fn what_the_mesh_drops_comes_by_sync_and_what_it_sends_again_comes_by_the_mesh() {
    let lossy = |mode: &str| {
        let network = format!("{LATENCY}\nloss = {{ rate = 0.4, mode = \"{mode}\" }}");
        played(&scenario(24, &network, "[workload]\nupdates = 10"), 1)
    };
    let (dropping, repeating) = (lossy("drop"), lossy("retransmit"));
    for measured in [&dropping, &repeating] {
        assert_eq!((metric(measured, "coverage"), metric(measured, "complete")), (1.0, 1.0));
    }
    assert!(metric(&dropping, "repaired") > 0.0);
    assert_eq!(metric(&repeating, "repaired"), 0.0);
    assert!(metric(&repeating, "latency_ms.p100") > 200.0, "a message that is lost comes late");
    assert!(metric(&dropping, "latency_ms.p100") > metric(&repeating, "latency_ms.p100"));
}

#[test]
fn a_partition_heals_in_seconds_and_brings_no_withdrawn_agent_back() {
    let parted = "[workload]\nupdates = 20\nrate = 1\nwithdrawn = 0.5\n[[fault]]\nkind = \"partition\"\nat = \"25s\"\n\
                  lasts = \"60s\"\ngroups = 3";
    for seed in 1..=3 {
        let measured = played(&scenario(12, LATENCY, parted), seed);
        assert!(metric(&measured, "latency_ms.p100") > 40_000.0, "the parts do not reach each other");
        assert!((100.0..10_000.0).contains(&metric(&measured, "healed_ms")));
        assert!(metric(&measured, "repaired") > 0.0);
        assert_eq!((metric(&measured, "coverage"), metric(&measured, "zombies")), (1.0, 0.0));
        assert_eq!(metric(&measured, "lost_writes"), 0.0);
    }
}

#[test]
fn agents_of_lost_disks_and_of_backups_are_neither_lost_nor_buried() {
    let crashed = |memory: &str| {
        let more = format!(
            "[workload]\nupdates = 12\nwithdrawn = 0.25\n[[fault]]\nkind = \"backup\"\nat = \"20s\"\nnodes = 4\n\
             [[fault]]\nkind = \"crash\"\nat = \"40s\"\nnodes = 4\nmemory = \"{memory}\"\nlasts = \"10s\""
        );
        played(&scenario(12, LATENCY, &more), 1)
    };
    for memory in ["lost", "backup"] {
        let measured = crashed(memory);
        assert_eq!((metric(&measured, "lost_writes"), metric(&measured, "zombies")), (0.0, 0.0), "{memory}");
    }
}

#[test]
fn a_clock_that_is_far_off_writes_nothing_and_one_that_is_near_does_no_harm() {
    let wrong = |error: &str| {
        let more = format!(
            "[workload]\nupdates = 24\nrate = 1\n[[fault]]\nkind = \"clock\"\nat = \"1s\"\nshare = 0.5\n\
             error = \"{error}\""
        );
        played(&scenario(12, LATENCY, &more), 1)
    };
    let near = wrong("+3s");
    assert_eq!((metric(&near, "refused_writes"), metric(&near, "coverage")), (0.0, 1.0));
    assert!(metric(&near, "latency_ms.p100") < 1_000.0);
    for error in ["-1h", "+1h"] {
        let far = wrong(error);
        assert!(metric(&far, "refused_writes") >= 4.0, "{error}: {:?}", far.metrics);
        assert_eq!(metric(&far, "blamed"), 0.0);
    }
}

#[test]
fn who_joins_late_was_asleep_or_comes_and_goes_has_everything_in_the_end() {
    for fault in [
        "kind = \"join\"\nat = \"40s\"\nnodes = 3",
        "kind = \"freeze\"\nat = \"12s\"\nnodes = 3\nlasts = \"40s\"",
        "kind = \"sleep\"\nat = \"20s\"\nlasts = \"20d\"",
        "kind = \"churn\"\nat = \"12s\"\nshare = 0.3\nmean_off = \"10s\"\nlasts = \"40s\"",
    ] {
        let more = format!("[workload]\nupdates = 12\nrate = 2\n[[fault]]\n{fault}");
        let measured = played(&scenario(12, LATENCY, &more), 1);
        assert_eq!((metric(&measured, "coverage"), metric(&measured, "complete")), (1.0, 1.0), "{fault}");
        assert!(metric(&measured, "healed_ms") < 20_000.0, "{fault}");
        if fault.contains("join") {
            let repaired = metric(&measured, "repaired");
            assert_eq!(repaired, 3.0, "three of twelve nodes had to be told of twelve updates");
        }
    }
}

#[test]
fn a_world_that_does_not_come_to_agree_lacks_progress() {
    // Nearly all of the mesh is lost, and nobody compares for a day.
    let network = format!("{LATENCY}\nloss = {{ rate = 0.995 }}");
    let mut scenario = scenario(12, &network, "[workload]\nupdates = 12");
    scenario.protocol.anti_entropy.every = Some(std::time::Duration::from_secs(86_400));
    let broken = play(&scenario, 1).expect_err("no way for the updates");
    assert_eq!((broken.check.as_str(), broken.missing), ("liveness-after-heal", Missing::Progress));
    assert!(broken.at_ms >= LIVENESS_MS_MAX);
}

#[test]
fn records_are_as_large_as_asked_and_a_mesh_sends_each_a_few_times() {
    for bytes in [600, 1_500, 20_000] {
        let more = format!("[workload]\nupdates = 4\nrecord_bytes = {bytes}");
        let measured = played(&scenario(16, LATENCY, &more), 1);
        let copies = metric(&measured, "messages_per_node");
        assert!((2.5..=3.5).contains(&copies), "{copies} copies over four links, but for the one it came by");
        let each = metric(&measured, "bytes_per_node") / copies;
        assert!((each - f64::from(bytes)).abs() < 40.0, "{each} bytes for {bytes}");
        assert!((copies - 1.0 - metric(&measured, "duplicates")).abs() < 0.1);
    }
}

#[test]
fn what_a_node_writes_by_itself_at_the_very_end_is_no_disagreement() {
    let world = |until_ms: u64| {
        let tree = "[[zone]]\nname = \".\"\nmembers = \"0-3\"\n[[zone]]\nname = \"far\"\nmembers = \"4-5\"\n\
             [questions]\ncount = 1\nrate = 1\nat = \"60s\"\n[workload]\nupdates = 1\n";
        let mut scenario = scenario(6, LATENCY, tree);
        scenario.until = Some(Duration::from_millis(until_ms));
        scenario
    };
    // What names the zone above it is written anew after half an hour.
    let (told, played_long) = play_told(&world(2_000_000), 1);
    assert!(played_long.is_ok(), "{played_long:?}");
    let is_renewal = |line: &&String| line.contains("publish [record far@.");
    let times = told.iter().filter(is_renewal).filter_map(|line| line.split(' ').next()?.parse::<u64>().ok());
    let renewed_at = times.filter(|at| *at > 1_000_000).min().expect("a renewal");
    for after_ms in [1, 5, 10, 20] {
        played(&world(renewed_at + after_ms), 1);
    }
}
