//! The program as its users see it: what a run says is a function of the scenario and its seed.

use std::process::{Command, Output};

use aop::lab::results::Results;

/// A world of twenty nodes that find each other through Kademlia.
const SMALL: &str = r#"
name = "small"
question = "Does the same seed play the same run?"
claim = "repeatable"
tier = "mesh"
seeds = { from = 1, count = 1 }
[network]
nodes = 20
latency = { least = "5ms", most = "50ms" }
[protocol]
kind = "mesh"
[workload]
updates = 10
rate = 5
"#;

/// What [`SMALL`] hashes to with seed 1, on Linux on x86-64, with the versions of Cargo.lock.
const SMALL_TRACE: &str = "c9aac47f8d48fdc2";

/// Plays a scenario; the caller's name keeps files of tests apart.
fn run(name: &str, scenario: &str, arguments: &[&str]) -> Output {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.toml"));
    std::fs::write(&file, scenario).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_aop-mesh"));
    command.arg(&file).args(["--format", "json"]).args(arguments).output().expect("started")
}

fn results(name: &str, scenario: &str, arguments: &[&str]) -> Results {
    let output = run(name, scenario, arguments);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {told}", output.status);
    serde_json::from_slice(&output.stdout).expect("results")
}

#[test]
fn a_seed_plays_the_same_run_in_every_process_and_another_seed_another() {
    let traces = |run: &str| -> Vec<String> {
        let results = results(&format!("seeds-{run}"), SMALL, &["--seeds", "2"]);
        results.runs.into_iter().map(|run| run.trace_hash).collect()
    };
    let (first, second) = (traces("first"), traces("second"));
    assert_eq!(first, second);
    assert_ne!(first[0], first[1]);
}

#[test]
fn the_trace_is_the_one_that_is_known() {
    let results = results("known", SMALL, &[]);
    assert_eq!(
        results.runs[0].trace_hash, SMALL_TRACE,
        "the same seed plays another run than before. If src/net, src/proto, this program or Cargo.lock changed, nodes \
         do something else now: see that the metrics of `simulations/*.toml` of tier mesh are still as they should be, \
         then put the new hash here. If nothing changed, something is no longer drawn from the seed or timed by tokio's \
         clock: see \"Conditions\" in README.md"
    );
}

#[test]
fn every_node_learns_every_update_over_the_real_stack() {
    let results = results("all", SMALL, &[]);
    let metrics = &results.runs[0].metrics;
    assert_eq!(metrics["coverage"], 1.0);
    assert_eq!(metrics["complete"], 1.0);
    assert!(metrics["latency_ms.p50"] >= 5.0, "{metrics:?}");
    // A copy for each node at least, and in a mesh some more; records are 1,500 bytes each.
    let copies = metrics["messages_per_node"];
    assert!((0.95..8.0).contains(&copies), "{metrics:?}");
    let bytes = metrics["bytes_per_node"] / copies;
    assert!((1_500.0..1_700.0).contains(&bytes), "{bytes} bytes a copy");
}

#[test]
fn a_partition_heals() {
    let scenario = SMALL.replace("rate = 5", "rate = 1\nat = \"20s\"")
        + "[[fault]]\nkind = \"partition\"\nat = \"18s\"\nlasts = \"40s\"\n";
    let results = results("partition", &scenario, &[]);
    let metrics = &results.runs[0].metrics;
    assert_eq!(metrics["coverage"], 1.0);
    // Written between 20 s and 29 s, and not to be had on the other side before 58 s.
    assert!(metrics["latency_ms.p100"] > 29_000.0, "{metrics:?}");
    // Within two of the reconciliations that every node makes twice a minute.
    assert!((1.0..60_000.0).contains(&metrics["healed_ms"]), "{metrics:?}");
}

#[test]
fn a_node_that_joins_late_gets_what_it_missed() {
    let scenario = SMALL.to_owned() + "[[fault]]\nkind = \"join\"\nat = \"40s\"\nnodes = 3\n";
    let results = results("join", &scenario, &[]);
    assert_eq!(results.runs[0].metrics["complete"], 1.0);
    assert!(results.runs[0].metrics["healed_ms"] > 0.0);
}

#[test]
fn what_is_lost_below_a_stream_comes_later() {
    let lossy = SMALL.replace("[protocol]", "loss = { rate = 0.2, mode = \"retransmit\" }\n[protocol]");
    let latency = |name: &str, scenario: &str| results(name, scenario, &[]).runs[0].metrics["latency_ms.p99"];
    assert!(latency("lossy", &lossy) > 1.2 * latency("lossless", SMALL));
}

#[test]
fn what_live_nodes_cannot_do_is_refused_before_anything_runs() {
    let dropping = SMALL.replace("[protocol]", "loss = { rate = 0.2, mode = \"drop\" }\n[protocol]");
    let narrow = SMALL.replace("kind = \"mesh\"", "kind = \"mesh\"\ndegree = 3");
    let core = SMALL
        .replace("tier = \"mesh\"", "tier = \"core\"")
        .replace("kind = \"mesh\"", "kind = \"mesh\"\nanti_entropy = { every = \"30s\" }");
    for (name, scenario, told) in [
        ("drop", dropping, "retransmit"),
        ("narrow", narrow, "protocol.degree"),
        ("core", core, "aop sim run"),
    ] {
        let output = run(name, &scenario, &[]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(told), "{said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn an_expectation_that_fails_is_an_exit_code_with_results() {
    let impossible = SMALL.to_owned() + "[[expect]]\nmetric = \"latency_ms.p100\"\nop = \"<\"\nvalue = 5\n";
    let output = run("impossible", &impossible, &[]);
    assert_eq!(output.status.code(), Some(1));
    let results: Results = serde_json::from_slice(&output.stdout).expect("results");
    assert!(!results.scenarios[0].met);
}
