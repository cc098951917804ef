//! Worlds of real nodes: `cargo bench --no-default-features --features lab --bench worlds`.
//!
//! A large world is one run of a scenario: 1,000 nodes start and warm up for 15 virtual seconds, 100 records of 1,500 bytes
//! are written, 60 seconds pass, then all promises are checked and 150 more seconds of rest are measured (aim: 5 s of wall
//! time and 100 kB a node). Then a zone of 20 nodes at rest: virtual node-hours a CPU-minute (aim: 1,000). Each runs in a
//! process of its own. In one world equal bytes are decoded, verified and held once, whichever nodes they reach.

use std::process::Command;
use std::time::{Duration, Instant};

use aop::lab::play::play;
use aop::lab::scenario::Document;
use aop::sim::{ClientOp, RestartFrom, Setup, World};

const LARGE: &str = r#"
name = "large"
question = "What does a large world cost?"
claim = "none"
tier = "core"
until = "75s"
[network]
nodes = 1000
latency = { least = "5ms", most = "50ms" }
[protocol]
kind = "mesh"
degree = 6
anti_entropy = { every = "30s", on_join = true }
[workload]
updates = 100
authors = 20
record_bytes = 1500
"#;
const ZONE_NODES: usize = 20;
const ZONE_RECORDS: usize = 100;
const RUNS: usize = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|it| it != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => {
            println!("cargo bench --no-default-features --features lab --bench worlds");
            (0..RUNS).for_each(|_| in_child(&["large"]));
            (0..RUNS).for_each(|_| in_child(&["steady"]));
        }
        ["large", settings @ ..] => large(LARGE, settings),
        ["play", file, settings @ ..] => large(&std::fs::read_to_string(file).expect("a scenario"), settings),
        ["steady"] => steady(),
        _ => {
            panic!("large, or play and a scenario's file, perhaps with KEY=VALUE of the scenario; or steady")
        }
    }
}

fn in_child(arguments: &[&str]) {
    let program = std::env::current_exe().expect("this program");
    assert!(Command::new(program).args(arguments).status().expect("started").success());
}

fn large(text: &str, settings: &[&str]) {
    let settings = settings.iter().filter_map(|setting| setting.split_once('='));
    let settings: Vec<(String, String)> = settings.map(|(key, value)| (key.into(), value.into())).collect();
    let scenario = Document::read(text, &settings).expect("a scenario").scenario;
    let (before, wall) = (memory_kb(), Instant::now());
    let measured = play(&scenario, 1).unwrap_or_else(|broken| panic!("{broken:?}"));
    let nodes = scenario.network.nodes as f64;
    println!(
        "  {nodes} nodes, {} records: {:.2} s wall, {:.2} s CPU, {:.1} kB a node; coverage {}, p50 {} ms",
        scenario.workload.updates,
        wall.elapsed().as_secs_f64(),
        cpu().as_secs_f64(),
        (memory_kb() - before) as f64 / nodes,
        measured.metrics["coverage"],
        measured.metrics["latency_ms.p50"],
    );
}

fn steady() {
    let mut world = world(ZONE_NODES);
    run(&mut world, 15_000);
    for record in 0..ZONE_RECORDS {
        let name = format!("agent-{record}").parse().expect("a label");
        world.submit(record % ZONE_NODES, ClientOp::Offer(vec![(name, format!("agent {record}"))]));
    }
    run(&mut world, 60_000);
    let (spent, mut hours) = (cpu(), 0);
    while cpu() - spent < Duration::from_secs(4) {
        run(&mut world, 3_600_000);
        hours += 1;
    }
    let minutes = (cpu() - spent).as_secs_f64() / 60.0;
    println!(
        "  a steady zone of {ZONE_NODES}: {:.0} node-hours a CPU-minute",
        (hours * ZONE_NODES) as f64 / minutes
    );
}

fn world(machines: usize) -> World {
    let mut world = World::new(1, Setup { nodes: machines, ..Setup::default() });
    for machine in 0..machines {
        world.start(machine, RestartFrom::Disk);
    }
    world
}

fn run(world: &mut World, for_ms: u64) {
    world.run(for_ms).unwrap_or_else(|violation| panic!("{violation}"));
}

/// The most memory this process had, kilobytes.
fn memory_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("a line");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
}

/// Time of this thread, which is all there is.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
