//! Worlds of real nodes: `cargo bench --no-default-features --bench worlds`.
//!
//! A large world: 1,000 nodes start, 100 records are written, 60 virtual seconds pass, all promises are checked; wall and
//! CPU seconds, and memory a node (aim: 5 s and 100 kB). Then a steady zone of 20 nodes: virtual node-hours a CPU-minute
//! (aim: 1,000). Each runs in a process of its own.

use std::process::Command;
use std::time::{Duration, Instant};

use aop::proto::config::Config;
use aop::sim::{Memory, Setup, Wish, World};

const NODES: usize = 1_000;
const RECORDS: usize = 100;
const AUTHORS: usize = 20;
const RECORD_BYTES: usize = 1_500;
const ZONE_NODES: usize = 20;
const RUNS: usize = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|it| it != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => {
            println!("cargo bench --no-default-features --bench worlds");
            (0..RUNS).for_each(|_| in_child(&["large"]));
            (0..RUNS).for_each(|_| in_child(&["steady"]));
        }
        ["large"] => large(),
        ["steady"] => steady(),
        _ => panic!("large, or steady"),
    }
}

fn in_child(arguments: &[&str]) {
    let program = std::env::current_exe().expect("this program");
    assert!(Command::new(program).args(arguments).status().expect("started").success());
}

fn large() {
    let (before, wall) = (memory_kb(), Instant::now());
    let mut world = world(NODES);
    run(&mut world, 15_000);
    let filler = "x".repeat(RECORD_BYTES - 500);
    for record in 0..RECORDS {
        let name = format!("agent-{record}").parse().expect("a label");
        world.wish(
            record % AUTHORS * (NODES / AUTHORS),
            Wish::Offer(vec![(name, format!("agent {record} {filler}"))]),
        );
    }
    run(&mut world, 60_000);
    world.check().unwrap_or_else(|violation| panic!("{violation}"));
    let held = (0..NODES).filter(|node| agents(&mut world, *node) == RECORDS).count();
    let memory = (memory_kb() - before) as f64 / NODES as f64;
    println!(
        "  {NODES} nodes, {RECORDS} records: {:.2} s wall, {:.2} s CPU, {memory:.1} kB a node; {held} nodes have all; {:?}",
        wall.elapsed().as_secs_f64(),
        cpu().as_secs_f64(),
        world.outcome().counts,
    );
}

fn steady() {
    let mut world = world(ZONE_NODES);
    run(&mut world, 15_000);
    for record in 0..RECORDS {
        let name = format!("agent-{record}").parse().expect("a label");
        world.wish(record % ZONE_NODES, Wish::Offer(vec![(name, format!("agent {record}"))]));
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
    let config = Config { expects_peers: true, ..Config::default() };
    let mut world = World::new(1, Setup { machines, config, ..Setup::default() });
    for machine in 0..machines {
        world.start(machine, Memory::Disk);
    }
    world
}

fn run(world: &mut World, for_ms: u64) {
    world.run(for_ms).unwrap_or_else(|violation| panic!("{violation}"));
}

fn agents(world: &mut World, machine: usize) -> usize {
    let Some((node, now)) = world.node(machine) else { return 0 };
    node.zone_states(now).iter().map(|zone| zone.agents).sum()
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
