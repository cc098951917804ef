//! The tiers beside each other: the same question to whole nodes over real libp2p, to real nodes on a modelled mesh, and
//! to the epidemic model. The first is the measure; the others must come within a band of it.
//!
//! The bands say how well the quick tiers stand for the real stack: half of them was taken from what was measured when
//! they were set, half is room for other seeds.

use std::process::Command;

use aop::sim::measure::{Measured, Metrics};
use aop::sim::model;
use aop::sim::results::Results;
use aop::sim::scenario::{Document, Scenario};

/// The question; the tier is set from outside.
const QUESTION: &str = r#"
name = "calibration"
question = "Do the tiers agree on how an update spreads?"
claim = "calibration"
tier = "mesh"
seeds = { from = 1, count = 3 }
[network]
nodes = 50
latency = "25ms"
[protocol]
kind = "mesh"
[workload]
updates = 20
rate = 2
"#;

/// A quotient of another tier's mean and the mesh tier's: from and to.
struct Band {
    metric: &'static str,
    from: f64,
    to: f64,
}

const MODEL: [Band; 3] = [
    Band { metric: "latency_ms.p50", from: 0.6, to: 1.6 },
    Band { metric: "latency_ms.p100", from: 0.6, to: 1.6 },
    Band { metric: "messages_per_node", from: 0.7, to: 1.6 },
];

fn settings(nodes: usize, tier: &str) -> [(String, String); 2] {
    [("network.nodes".into(), nodes.to_string()), ("tier".into(), tier.into())]
}

/// Means over the seeds of the question.
fn mean(runs: &[Metrics], metric: &str) -> f64 {
    runs.iter().map(|metrics| metrics[metric]).sum::<f64>() / runs.len() as f64
}

fn live(nodes: usize) -> Vec<Metrics> {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("calibration-{nodes}.toml"));
    std::fs::write(&file, QUESTION).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_aop-mesh"));
    command.arg(&file).args(["--format", "json", "--set", &format!("network.nodes={nodes}")]);
    let output = command.output().expect("started");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {told}", output.status);
    let results: Results = serde_json::from_slice(&output.stdout).expect("results");
    results.runs.into_iter().map(|run| run.metrics).collect()
}

fn played(nodes: usize, tier: &str, play: impl Fn(&Scenario, u64) -> Measured) -> Vec<Metrics> {
    let document = Document::read(QUESTION, &settings(nodes, tier)).expect("a scenario");
    let cell = &document.cells().expect("one cell")[0];
    document.scenario.seeds.iter().map(|seed| play(&cell.scenario, seed).metrics).collect()
}

fn compare(nodes: usize, tier: &str, live: &[Metrics], other: &[Metrics], bands: &[Band]) {
    for Band { metric, from, to } in bands {
        let (real, modelled) = (mean(live, metric), mean(other, metric));
        println!("{nodes} nodes, {metric}: mesh {real:.2}, {tier} {modelled:.2}, quotient {:.2}", modelled / real);
        assert!(
            (*from..=*to).contains(&(modelled / real)),
            "{nodes} nodes, {metric}: the mesh tier measures {real:.2} and the {tier} tier {modelled:.2}: their quotient \
             is not within {from} to {to}. One of the two changed; if that is right, set the band anew"
        );
    }
}

#[test]
fn the_model_is_within_its_band_at_50_nodes() {
    compare(50, "model", &live(50), &played(50, "model", model::play), &MODEL);
}

#[test]
#[ignore = "takes minutes; run it with --ignored when gossip or the model changes"]
fn the_model_is_within_its_band_at_250_nodes() {
    compare(250, "model", &live(250), &played(250, "model", model::play), &MODEL);
}
