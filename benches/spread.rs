//! What it costs to simulate the spread of one update: `cargo bench --no-default-features --features lab --bench spread`.
//!
//! The model on one core. Over a mesh of degree 8 in eight regions, set-up included (aim at 10^6 nodes: at most 1.5 s,
//! 300 MB, at least 8 million events a second; time an event within a factor of 2 from 10^4 to 10^6 nodes); in rounds with
//! fan-out 3 (aim at 10^7 nodes: at most 5 s). Events are copies of the update; what heartbeats say comes on top. Each
//! size runs in its own process, which says its peak of memory.

use std::process::Command;
use std::time::{Duration, Instant};

use aop::lab::model;
use aop::lab::scenario::{Document, Scenario};

#[path = "samples/times.rs"]
#[expect(dead_code, reason = "this bench needs its first line only")]
mod times;

const RUNS: u64 = 5;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|it| it != "--bench").collect();
    match arguments.as_slice() {
        [] => {
            times::head("cargo bench --no-default-features --features lab --bench spread");
            println!(
                "{:<24} {:>10} {:>9} {:>9} {:>12} {:>8}",
                "", "nodes", "CPU s", "clock s", "M events/s", "MB"
            );
            for (way, sizes) in [
                ("mesh", &["10000", "100000", "1000000", "3000000"][..]),
                ("eager", &["10000", "1000000"]),
                ("lossy", &["1000000"]),
                ("updates", &["1000"]),
                ("rounds", &["1000000", "10000000"]),
                ("pull", &["1000000"]),
            ] {
                sizes.iter().for_each(|size| in_child(&[way, size]));
            }
        }
        [way, nodes] => measure(way, nodes),
        _ => panic!("no arguments, or WAY NODES"),
    }
}

fn in_child(arguments: &[&str]) {
    let program = std::env::current_exe().expect("this program");
    assert!(Command::new(program).args(arguments).status().expect("started").success());
}

/// Best of some runs: what the machine's other work takes away is not the model's cost.
fn measure(way: &str, nodes: &str) {
    let (title, text) = match way {
        "mesh" => ("mesh, degree 8", MESH),
        "eager" => ("the same, no heartbeats", EAGER),
        "lossy" => ("loss 0.3, sync every 5 s", LOSSY),
        "updates" => ("2,000 updates, degree 8", UPDATES),
        "rounds" => ("push in rounds, k = 3", PUSH),
        "pull" => ("push-pull in rounds", PULL),
        _ => panic!("mesh, eager, lossy, updates, rounds or pull"),
    };
    let scenario = scenario(text, nodes);
    let runs = (1..=RUNS).map(|seed| {
        let (cpu, wall) = (thread_cpu(), Instant::now());
        let measured = model::play(&scenario, seed);
        let spent = (thread_cpu() - cpu, wall.elapsed());
        let pairs = (scenario.network.nodes * scenario.workload.updates) as f64;
        assert!(measured.metrics["coverage"] > 0.9999, "{:?}", measured.metrics);
        (spent, measured.metrics["messages_per_node"] * pairs)
    });
    let ((cpu, wall), events) = runs.min_by_key(|((cpu, _), _)| *cpu).expect("a run");
    println!(
        "{title:<24} {nodes:>10} {:>9.3} {:>9.3} {:>12.1} {:>8}",
        cpu.as_secs_f64(),
        wall.as_secs_f64(),
        events / cpu.as_secs_f64() / 1e6,
        peak_bytes() / 1_000_000
    );
}

const MESH: &str = "regions = 'cloud-8'\n[protocol]\nkind = 'mesh'\ndegree = 8";
const EAGER: &str = "regions = 'cloud-8'\n[protocol]\nkind = 'mesh'\ndegree = 8\nlazy = false";
const LOSSY: &str = "regions = 'cloud-8'\nloss = { rate = 0.3 }\n[protocol]\nkind = 'mesh'\ndegree = 8
anti_entropy = { every = '5s' }";
const UPDATES: &str =
    "regions = 'cloud-8'\n[protocol]\nkind = 'mesh'\ndegree = 8\n[workload]\nupdates = 2000\nrate = 500";
const PUSH: &str = "[protocol]\nkind = 'push'\nfanout = 3";
const PULL: &str = "[protocol]\nkind = 'pushpull'\nfanout = 3";

fn scenario(text: &str, nodes: &str) -> Scenario {
    let head = "name = 'spread'\nquestion = 'How fast?'\nclaim = 'none'\ntier = 'model'\n";
    let text = format!("{head}[network]\nnodes = {nodes}\n{text}\n");
    Document::read(&text, &[]).expect("a scenario").scenario
}

/// CPU time of this thread: other programs on the machine do not count.
fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The most memory this process ever had; 0 where the system does not say.
fn peak_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|it| it.split_whitespace().next()?.parse::<usize>().ok()).unwrap_or(0) * 1_024
}
