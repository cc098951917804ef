//! What a mesh of real nodes does on the loopback of one machine: `cargo bench --bench mesh [-- spread|idle|join]`.
//!
//! All nodes share this process and its cores. `spread`: a registration seen on all of 10 nodes (aim: p50 10 ms, p99
//! 50 ms) and of 50 (50 ms, 250 ms). `idle`: traffic and CPU of 50 nodes at rest (aim: 4 KiB/s each way and 1 % a
//! node). `join`: a fresh node takes 10,000 records from one peer and from three (aim: 2 s). One durable registration beside
//! a bare append and sync is in the bench `limits`.
//!
//! On Linux it runs in a network namespace of its own where that is allowed, so that only its own traffic is counted.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use aop::api;
use aop::host::{self, Running};
use tempfile::TempDir;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

#[path = "samples/agents.rs"]
mod agents;
#[path = "samples/cpu.rs"]
mod cpu;
#[path = "samples/joins.rs"]
mod joins;
#[path = "samples/nodes.rs"]
mod nodes;
#[path = "samples/offers.rs"]
mod offers;
#[path = "samples/times.rs"]
mod times;

use agents::{Cards, fill};
use cpu::process_cpu;
use joins::{complete, zone};
use nodes::options;
use offers::offer;
use times::Times;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// Rest before anything is measured: handshakes, first syncs and beacons are over.
const SETTLING: Duration = Duration::from_secs(20);
const IDLE: Duration = Duration::from_secs(60);
const REGISTRATIONS: usize = 150;
const JOINS: u8 = 5;
const HELD: usize = 10_000;
/// Set in the child that runs in a namespace of its own.
const ISOLATED: &str = "AOP_BENCH_ISOLATED";

fn main() {
    if std::env::var_os(ISOLATED).is_none() && can_isolate() {
        return isolate();
    }
    let mut parts: Vec<String> = std::env::args().skip(1).filter(|it| it != "--bench").collect();
    if parts.is_empty() {
        parts = ["join", "spread", "idle"].map(String::from).to_vec();
    }
    times::head("cargo bench --bench mesh");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        for part in parts {
            match part.as_str() {
                "join" => {
                    join(1).await;
                    join(3).await;
                }
                "spread" => {
                    spread(10).await;
                    spread(50).await;
                }
                "idle" => idle(50).await,
                other => panic!("{other} is none of join, spread, idle"),
            }
        }
    });
}

fn can_isolate() -> bool {
    let probe = Command::new("unshare").args(["-rn", "ip", "link", "set", "lo", "up"]).status();
    probe.is_ok_and(|status| status.success())
}

fn isolate() {
    let program = std::env::current_exe().expect("this program");
    let up_then_run = r#"ip link set lo up && exec "$@""#;
    let mut child = Command::new("unshare");
    child.args(["-rn", "sh", "-c", up_then_run, "sh"]).arg(program).args(std::env::args().skip(1));
    let status = child.env(ISOLATED, "1").status().expect("started");
    assert!(status.success());
}

/// Nodes on loopback TCP; all but the first bootstrap from the first.
struct Mesh {
    nodes: Vec<Running>,
    _dirs: Vec<TempDir>,
    /// Node, agent, and when it was seen there.
    seen: mpsc::Receiver<(usize, String, Instant)>,
}

async fn start(seed: u8, dir: &Path, bootstrap: &[&Running]) -> Running {
    host::start(options(seed, dir, bootstrap)).await.expect("started")
}

async fn mesh_peers(node: &Running) -> usize {
    let health = aop::host::HealthClient::new(node.handle.clone());
    let none = aop::host::HttpReadings::default();
    let metrics = health.metrics(aop::telemetry::exposition::Format::Text, &none).await.expect("metrics");
    let gauge = metrics.lines().find_map(|line| line.strip_prefix("aop_gossip_mesh_peers{zone=\".\"} "));
    gauge.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn span(mut counts: Vec<usize>) -> String {
    counts.sort_unstable();
    format!("{} to {}, median {}", counts[0], counts[counts.len() - 1], counts[counts.len() / 2])
}

impl Mesh {
    async fn start(count: usize) -> Mesh {
        let dirs: Vec<TempDir> = (0..count).map(|_| TempDir::new().expect("a folder")).collect();
        let mut nodes = vec![start(100, dirs[0].path(), &[]).await];
        for (at, dir) in dirs.iter().enumerate().skip(1) {
            nodes.push(start(100 + at as u8, dir.path(), &[&nodes[0]]).await);
        }
        let (seen_by, seen) = mpsc::channel(65_536);
        for (at, node) in nodes.iter().enumerate() {
            tokio::spawn(watch(at, node.handle.events(), seen_by.clone()));
        }
        let mesh = Mesh { nodes, _dirs: dirs, seen };
        mesh.settle().await;
        mesh
    }

    async fn settle(&self) {
        let enough = 5.min(self.nodes.len() - 1);
        let began = Instant::now();
        for node in &self.nodes {
            while zone(node).await.peers < enough && began.elapsed() < PATIENCE {
                sleep(Duration::from_millis(100)).await;
            }
        }
        sleep(SETTLING).await;
        let (mut peers, mut mesh) = (Vec::new(), Vec::new());
        for node in &self.nodes {
            peers.push(zone(node).await.peers);
            mesh.push(mesh_peers(node).await);
        }
        println!(
            "{} nodes, settled after {:.0} s; connected members: {}; in the gossip mesh: {}",
            self.nodes.len(),
            began.elapsed().as_secs_f64(),
            span(peers),
            span(mesh)
        );
    }

    async fn stop(self) {
        for node in self.nodes {
            node.stop().await.expect("stopped");
        }
    }
}

async fn watch(at: usize, mut events: host::Events, seen: mpsc::Sender<(usize, String, Instant)>) {
    loop {
        match events.recv().await {
            Ok(api::Event::AgentChanged { agent, .. }) => {
                if seen.send((at, agent, Instant::now())).await.is_err() {
                    return;
                }
            }
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

async fn spread(count: usize) {
    let mut mesh = Mesh::start(count).await;
    let mut cards = Cards::new();
    let (mut all, mut each, mut own) = (Times::default(), Times::default(), Times::default());
    let cpu = process_cpu();
    let mut lost = 0;
    for at in 0..REGISTRATIONS {
        let offer = offer(&mut cards, format!("agent-{at}"));
        let name = format!("agent-{at}@.");
        let host = at * 7 % count;
        let began = Instant::now();
        let answers = mesh.nodes[host].handle.register(None, vec![offer]).await.expect("registered");
        assert!(answers[0].is_ok(), "{answers:?}");
        own.add(began.elapsed());
        let times = timeout(PATIENCE / 6, arrivals(&mut mesh.seen, &name, count)).await.unwrap_or_default();
        lost += count.saturating_sub(times.len());
        times.iter().for_each(|time| each.add(*time - began));
        all.add(times.iter().max().map_or(PATIENCE / 6, |last| *last - began));
        sleep(Duration::from_millis(50)).await;
    }
    println!("a record registered on one of {count} nodes, {lost} not seen within {:?}", PATIENCE / 6);
    own.line("registered (durable there)");
    each.line("seen on a node");
    all.line("seen on all nodes");
    let share = (process_cpu() - cpu).as_secs_f64() * 1e3 / REGISTRATIONS as f64;
    println!("  CPU of all nodes, gaps included: {share:.1} ms a registration");
    mesh.stop().await;
}

/// When each of `count` nodes saw the agent.
async fn arrivals(
    seen: &mut mpsc::Receiver<(usize, String, Instant)>,
    name: &str,
    count: usize,
) -> Vec<Instant> {
    let mut times = Vec::new();
    while times.len() < count {
        match seen.recv().await {
            Some((_, agent, time)) if agent == name => times.push(time),
            Some(_) => {}
            None => break,
        }
    }
    times
}

async fn idle(count: usize) {
    let mesh = Mesh::start(count).await;
    // The last walks through the DHT in search of peers take longer than the rest.
    sleep(IDLE).await;
    for _ in 0..3 {
        let (bytes, packets, cpu) = loopback_and_cpu();
        sleep(IDLE).await;
        let (bytes_after, packets_after, cpu_after) = loopback_and_cpu();
        let share = |total: f64| total / IDLE.as_secs_f64() / count as f64;
        println!(
            "  idle for {IDLE:?}: {:.0} B/s each way and {:.1} packets/s a node, CPU {:.2} % of a core a node",
            share((bytes_after - bytes) as f64),
            share((packets_after - packets) as f64),
            share((cpu_after - cpu).as_secs_f64()) * 100.0
        );
    }
    mesh.stop().await;
}

/// Bytes and packets sent over the loopback since it is up, headers included, and the CPU time of this process.
fn loopback_and_cpu() -> (u64, u64, Duration) {
    let text = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let line = text.lines().find_map(|line| line.trim().strip_prefix("lo:")).unwrap_or_default();
    let numbers: Vec<u64> = line.split_whitespace().filter_map(|it| it.parse().ok()).collect();
    let at = |place: usize| numbers.get(place).copied().unwrap_or(0);
    (at(8), at(9), process_cpu())
}

async fn join(holders: u8) {
    let dirs: Vec<TempDir> = (0..holders).map(|_| TempDir::new().expect("a folder")).collect();
    let mut nodes: Vec<Running> = Vec::new();
    for (at, dir) in dirs.iter().enumerate() {
        let seed = 100 + at as u8;
        let path = dir.path().to_path_buf();
        tokio::task::spawn_blocking(move || fill(&path, seed, HELD)).await.expect("filled");
        let first: Vec<&Running> = nodes.iter().take(1).collect();
        nodes.push(start(seed, dir.path(), &first).await);
    }
    sleep(SETTLING).await;
    println!("a fresh node joins {holders} holders of {HELD} records; CPU is of all nodes");
    for run in 0..JOINS {
        let dir = TempDir::new().expect("a folder");
        let bootstrap: Vec<&Running> = nodes.iter().collect();
        let (began, cpu) = (Instant::now(), process_cpu());
        let fresh = start(200 + run, dir.path(), &bootstrap).await;
        let started = began.elapsed();
        let whole = timeout(PATIENCE, complete(&fresh, &nodes[0], HELD)).await;
        let took = began.elapsed().as_secs_f64() * 1e3;
        let cpu = (process_cpu() - cpu).as_secs_f64() * 1e3;
        println!(
            "  {} after {took:.0} ms (of that the start {:.0} ms), CPU {cpu:.0} ms",
            if whole.is_ok() { "complete" } else { "NOT complete" },
            started.as_secs_f64() * 1e3
        );
        fresh.stop().await.expect("stopped");
    }
    for node in nodes {
        node.stop().await.expect("stopped");
    }
}
