//! The tiers beside each other: the same question to whole nodes over real libp2p, to real nodes on a modelled mesh, and
//! to the epidemic model. The first is the measure; the others must come within a band of it.
//!
//! The bands say how well the quick tiers stand for the real stack.

use std::process::Command;

use aop::lab::measure::{Measured, Metrics};
use aop::lab::results::Results;
use aop::lab::scenario::{Document, Scenario};
use aop::lab::{model, play};

/// The question; tier and size are set from outside.
const QUESTION: &str = include_str!("../../calibration.toml");

/// A quotient of another tier's mean and the mesh tier's: from and to.
struct Band {
    metric: &'static str,
    from: f64,
    to: f64,
}

/// Latencies go in steps of the 25 ms of a link: a step at the median, and the last node of few a step earlier. Modelled nodes
/// forward to every link but the one it came by; real ones are told by some peers in time that they have it (IDONTWANT),
/// and save a third of the copies. Own records go to every peer of the zone at once, which the quick tiers do not model: in a
/// small world that is half of it, and the median half of what they say.
const BANDS: [Band; 3] = [
    Band { metric: "latency_ms.p50", from: 0.8, to: 2.1 },
    Band { metric: "latency_ms.p100", from: 0.7, to: 1.6 },
    Band { metric: "messages_per_node", from: 1.0, to: 1.7 },
];

/// A world's size, and what the mesh tier measures of it.
struct Tiers {
    nodes: usize,
    mesh: Vec<Metrics>,
}

impl Tiers {
    fn live(nodes: usize, seeds: usize) -> Tiers {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../calibration.toml");
        let (nodes_set, seeds) = (format!("network.nodes={nodes}"), seeds.to_string());
        let mut command = Command::new(env!("CARGO_BIN_EXE_aop-mesh"));
        command.args([file, "--format", "json", "--set", &nodes_set, "--seeds", &seeds]);
        let output = command.output().expect("started");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {told}", output.status);
        let results: Results = serde_json::from_slice(&output.stdout).expect("results");
        Tiers { nodes, mesh: results.runs.into_iter().map(|run| run.metrics).collect() }
    }

    fn compare(&self, tier: &str, play: impl Fn(&Scenario, u64) -> Measured) {
        let settings = [("network.nodes".into(), self.nodes.to_string()), ("tier".into(), tier.into())];
        let document = Document::read(QUESTION, &settings).expect("a scenario");
        let cell = &document.cells().expect("one cell")[0];
        let other: Vec<Metrics> = (1..=10).map(|seed| play(&cell.scenario, seed).metrics).collect();
        for Band { metric, from, to } in &BANDS {
            let (mesh, other) = (mean(&self.mesh, metric), mean(&other, metric));
            let (nodes, quotient) = (self.nodes, other / mesh);
            println!("{nodes} nodes, {metric}: mesh {mesh:.2}, {tier} {other:.2}, quotient {quotient:.2}");
            assert!(
                (*from..=*to).contains(&quotient),
                "{nodes} nodes, {metric}: the mesh tier measures {mesh:.2} and the {tier} tier {other:.2}, a quotient of \
                 {quotient:.2}, which is not within {from} to {to}. One of the two changed; if that is right, set the band anew"
            );
        }
    }
}

fn mean(runs: &[Metrics], metric: &str) -> f64 {
    runs.iter().map(|metrics| metrics[metric]).sum::<f64>() / runs.len() as f64
}

fn core(scenario: &Scenario, seed: u64) -> Measured {
    play::play(scenario, seed).expect("no checker failed")
}

#[test]
fn fifty_nodes_do_the_same_in_all_three_tiers() {
    let tiers = Tiers::live(50, 3);
    tiers.compare("model", model::play);
    tiers.compare("core", core);
}

#[test]
fn two_hundred_and_fifty_nodes_do_the_same_in_all_three_tiers() {
    let tiers = Tiers::live(250, 1);
    tiers.compare("model", model::play);
    tiers.compare("core", core);
}
