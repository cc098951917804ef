//! What a call through a second node costs on the loopback of one machine: `cargo bench --bench calls`.
//!
//! Both nodes share this process and its cores. The same agent, which answers with its task, is called where it runs and
//! from the other node, in turns: the difference is what the mesh costs. In turns with both a bare stream is opened for as
//! many bytes: what libp2p costs alone (aim: as fast, 0.8 of it for 64 KiB, 0.9 for 1 MiB). Then 64 calls at once, 16
//! clients that call one after the other, and one client beside agents that are slow, crash, take memory, fork or never end.

use std::path::Path;
use std::time::{Duration, Instant};

use aop::agents::HostedAgent;
use aop::document::run_config::{Builtin, ProcessLimits, Program, RunConfig, Runner};
use aop::host::{CallOptions, Running};
use aop::proto::card::{AgentCard, CallLimits, Offer, Scope};
use futures::future::join_all;
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// What the nodes of the benches take from the sample agents.
mod agents {
    pub(crate) const NETWORK: &str = "bench";
}
#[path = "samples/bare.rs"]
mod bare;
#[path = "samples/hosted.rs"]
mod hosted;
#[path = "samples/nodes.rs"]
mod nodes;
#[path = "samples/pair.rs"]
mod pair;
#[path = "samples/times.rs"]
mod times;

use bare::Bare;
use hosted::hosted;
use pair::{call, host_and_caller};
use times::Times;

const CALLS: usize = 2_000;
const WARM_UP: usize = 200;
const AT_ONCE: usize = 64;
const ROUNDS: usize = 20;
const CLIENTS: usize = 16;
const TURNS: usize = 5;
const TURN: Duration = Duration::from_secs(4);
/// Agents that misbehave: how, and whether they take more than they may.
const BAD: [(&str, &str, bool); 5] = [
    ("slow", "sleep 60", false),
    ("crash", "exit 3", false),
    ("hog", "exec python3 -c 'x = b\"x\" * (200 << 20); import time; time.sleep(60)'", true),
    ("forks", "for n in 1 2 3 4 5 6 7 8; do sleep 60 & done; wait", true),
    ("endless", "while :; do sleep 0.1; done", false),
];
const SIZES: [(&str, usize); 3] = [("20 bytes", 20), ("64 KiB", 64 * 1024), ("1 MiB", 1024 * 1024)];

fn main() {
    times::head("cargo bench --bench calls");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure());
}

async fn measure() {
    let folders = [TempDir::new().expect("a folder"), TempDir::new().expect("a folder")];
    let mut all = BAD.map(|(name, script, is_hungry)| bad(name, script, is_hungry)).to_vec();
    all.push(hosted("echo", Builtin::Echo));
    let (host, caller) = host_and_caller(&folders, all).await;
    let bare = Bare::start().await;
    for (name, bytes) in SIZES {
        let calls = if bytes > 1_000 { CALLS / 10 } else { CALLS };
        in_turns(name, bytes, calls, (&host, &caller, &bare)).await;
    }
    at_once(&caller).await;
    clients(&caller).await;
    beside_bad_agents(&host).await;
    caller.stop().await.expect("stopped");
    host.stop().await.expect("stopped");
}

async fn in_turns(name: &str, bytes: usize, calls: usize, (host, caller, bare): (&Running, &Running, &Bare)) {
    let (mut here, mut there, mut alone) = (Times::default(), Times::default(), Times::default());
    let text = "x".repeat(bytes);
    for at in 0..WARM_UP.min(calls) + calls {
        let took = [call(host, &text).await, call(caller, &text).await, bare.ask(bytes).await];
        if at >= WARM_UP.min(calls) {
            [&mut here, &mut there, &mut alone]
                .into_iter()
                .zip(took)
                .for_each(|(times, took)| times.add(took));
        }
    }
    println!("one call at a time, {name}");
    here.line("on the node that runs the agent");
    there.line("from the other node");
    alone.line("a bare stream");
    let [here, there, alone] = [here, there, alone].map(|mut times| times.at(0.5).as_secs_f64() * 1e3);
    let (costs, ratio) = (there - here, alone / there);
    println!(
        "  the mesh costs {costs:.3} ms; medians: a bare stream takes {ratio:.2} of a call from the other node"
    );
}

async fn at_once(caller: &Running) {
    let (mut all, mut each) = (Times::default(), Times::default());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let took = join_all((0..AT_ONCE).map(|_| call(caller, "x"))).await;
        all.add(began.elapsed());
        took.into_iter().for_each(|took| each.add(took));
    }
    println!("{AT_ONCE} calls at once from the other node");
    each.line("each");
    all.line("all of them");
}

async fn clients(caller: &Running) {
    let began = Instant::now();
    let client = async || {
        let mut times = Vec::with_capacity(CALLS);
        for _ in 0..CALLS {
            times.push(call(caller, "x").await);
        }
        times
    };
    let mut each = Times::default();
    for took in join_all((0..CLIENTS).map(|_| client())).await.into_iter().flatten() {
        each.add(took);
    }
    let rate = (CLIENTS * CALLS) as f64 / began.elapsed().as_secs_f64();
    println!("{CLIENTS} clients at the other node, each one call at a time: {rate:.0} calls/s");
    each.line("each");
}

/// Calls of the healthy agent alone and beside the bad ones, in turns of a second.
async fn beside_bad_agents(host: &Running) {
    let (mut alone, mut beside) = (Times::default(), Times::default());
    for _ in 0..TURNS {
        for (times, is_beside) in [(&mut alone, false), (&mut beside, true)] {
            let bad = BAD[..if is_beside { BAD.len() } else { 0 }].iter().map(|(name, ..)| {
                let handle = host.handle.clone();
                tokio::spawn(async move {
                    loop {
                        let called = handle.call(name, json!({"task": ""}), CallOptions::default()).await;
                        assert!(!called.expect("known").success, "{name} is ended");
                    }
                })
            });
            let bad: Vec<JoinHandle<()>> = bad.collect();
            let began = Instant::now();
            while began.elapsed() < TURN {
                times.add(call(host, "x").await);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            bad.iter().for_each(JoinHandle::abort);
        }
    }
    println!("a healthy agent on its own node, a call each millisecond");
    alone.line("alone");
    beside.line("beside five that misbehave");
    let [alone, beside] = [alone.at(0.99), beside.at(0.99)].map(|time| time.as_secs_f64() * 1e3);
    println!("  ratio of the 99th percentiles {:.1}", beside / alone);
}

/// An agent that misbehaves in its own way: it is ended after a second, or for what it takes.
fn bad(name: &str, script: &str, is_hungry: bool) -> HostedAgent {
    let limits = CallLimits { timeout_s: 1, max_retries: 0, max_concurrency: 1, ..CallLimits::DEFAULT };
    let card = AgentCard { callable: true, limits: Some(limits), ..AgentCard::default() };
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let runner = Runner::Command(Program { command, ..Program::default() });
    let mut run_config = RunConfig::new(runner, Path::new("."));
    if is_hungry {
        let (max_memory, max_processes) = (Some(64 * 1024 * 1024), Some(4));
        run_config.process_limits = ProcessLimits { max_memory, max_processes };
    }
    let name = name.parse().expect("a label");
    let offer = Offer { name, zone: None, scope: Scope::Public, card, grants: Vec::new() };
    HostedAgent { offer, run_config: Some(run_config) }
}
