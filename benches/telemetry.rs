//! What counting costs: `cargo bench --bench telemetry`, `-- call` for calls and searches alone, `-- scrape` for the scrape.
//!
//! Everything that is counted of one call of an own agent, and of one search, is counted bare, by the same code, in turns with
//! calls and searches through a [`Handle`] (aim: 3 % at most). Then a scrape of a node whose zone is nearly full: what it takes,
//! and what of that the driver works, for which everybody waits (aim: 5 ms at most).

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use aop::agents::{Agents, HostedAgent};
use aop::api::FindQuery;
use aop::document::run_config::{Builtin, RunConfig, Runner};
use aop::host::{self, CallOptions, Handle, HealthClient, HttpReadings, Options};
use aop::proto;
use aop::proto::call::CallId;
use aop::proto::card::{AgentCard, Offer, Scope};
use aop::proto::name::{FullName, ZoneName};
use aop::proto::time::Timestamp;
use aop::telemetry::exposition::Format;
use serde_json::json;

#[path = "samples/agents.rs"]
mod agents;
#[path = "samples/nodes.rs"]
mod nodes;
/// As the node has it: it is no part of what a library shows.
#[path = "../src/telemetry"]
#[expect(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "a bench counts less than a node, and shows nobody how"
)]
mod telemetry {
    pub(crate) mod context;
    pub(crate) mod histogram;
    pub(crate) mod metrics;
    pub(crate) mod recent_calls;
}
#[path = "samples/times.rs"]
mod times;

use agents::{Cards, fill};
use nodes::options;
use telemetry::histogram::{AGENT, FAST, Histogram};
use telemetry::metrics::{Metrics, Side};
use telemetry::recent_calls::CallSubject;
use times::Times;

const FOUND_AMONG: usize = 10_000;
/// Records of 2 KiB that a zone has room for, nearly.
const SCRAPED: usize = 45_000;
const ROUNDS: usize = 40;
const CALLS: usize = 2_000;
const SCRAPES: usize = 30;
/// Records that come between two scrapes: a busy world, scraped four times a minute.
const CHANGES: usize = 400;

fn main() {
    times::head("cargo bench --bench telemetry");
    let part = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    if part.as_deref() != Some("scrape") {
        runtime.block_on(count_and_work());
    }
    if part.as_deref() != Some("call") {
        runtime.block_on(scrape());
    }
}

async fn count_and_work() {
    let folder = tempfile::tempdir().expect("a folder");
    fill(folder.path(), 100, FOUND_AMONG);
    let agents = Agents::new(ZoneName::root());
    agents.replace(vec![echo()]);
    let node = host::start(Options { agents, ..options(100, folder.path(), &[]) }).await.expect("started");
    let (metrics, waits, took) = (Metrics::default(), Histogram::new(FAST), Histogram::new(AGENT));
    let agent: FullName = "echo@.".parse().expect("a name");
    let count_call = || {
        let subject = CallSubject { call: CallId([7; 16]), agent: agent.clone(), peer: None, trace: None };
        let call = metrics.calls.begin(Side::Local, subject, Timestamp(black_box(7)));
        let stage = call.stage();
        waits.observe(Duration::from_nanos(black_box(300)));
        stage.begin_work();
        took.observe(Duration::from_micros(black_box(3)));
        call.end(None);
    };
    let count_find =
        || metrics.found(Duration::from_micros(black_box(50)), black_box(true), ["held"].into_iter());
    let (mut calls, mut finds) = (Pair::default(), Pair::default());
    let mut cards = Cards::new();
    for _ in 0..ROUNDS {
        calls.work.add(each(CALLS, async || call(&node.handle).await).await);
        calls.count.add(each(CALLS, async || count_call()).await);
        finds.work.add(each(CALLS, async || find(&node.handle, &mut cards).await).await);
        finds.count.add(each(CALLS, async || count_find()).await);
    }
    println!("one at a time, {ROUNDS} rounds of {CALLS}");
    calls.line("a call of an own agent");
    finds.line(&format!("a search by a tag and a capability, {FOUND_AMONG} records"));
    node.stop().await.expect("stopped");
}

/// The mean of so many, one after the other.
async fn each(count: usize, mut work: impl AsyncFnMut()) -> Duration {
    let began = Instant::now();
    for _ in 0..count {
        work().await;
    }
    began.elapsed() / count as u32
}

/// What something takes, and what it takes to count it.
#[derive(Default)]
struct Pair {
    work: Times,
    count: Times,
}

impl Pair {
    fn line(&mut self, name: &str) {
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        let at = |times: &mut Times| [0.1, 0.5, 0.9].map(|share| us(times.at(share)));
        let (work, count) = (at(&mut self.work), at(&mut self.count));
        println!("  {name}: {:.2} us ({:.2}-{:.2} in the middle 80 %)", work[1], work[0], work[2]);
        println!(
            "    counted: {:.3} us ({:.3}-{:.3}), {:.2} % of it",
            count[1],
            count[0],
            count[2],
            count[1] / work[1] * 100.0
        );
    }
}

async fn call(handle: &Handle) {
    let called = handle.call("echo@.", json!({"task": "x"}), CallOptions::default()).await;
    assert!(called.expect("known").success);
}

async fn find(handle: &Handle, cards: &mut Cards) {
    let query = FindQuery {
        tag: vec![cards.label("tag")],
        capability: vec![cards.label("can")],
        limit: Some(10),
        ..FindQuery::default()
    };
    handle.find(query).await.expect("found");
}

fn echo() -> HostedAgent {
    let card =
        AgentCard { callable: true, description: "Answers with its task".into(), ..AgentCard::default() };
    let offer = Offer {
        name: "echo".parse().expect("a label"),
        zone: None,
        scope: Scope::Public,
        card,
        grants: Vec::new(),
    };
    let run_config = RunConfig::new(Runner::Builtin(Builtin::Echo), Path::new("."));
    HostedAgent { offer, run_config: Some(run_config) }
}

async fn scrape() {
    let folder = tempfile::tempdir().expect("a folder");
    fill(folder.path(), 100, SCRAPED);
    let node = host::start(options(100, folder.path(), &[])).await.expect("started");
    let health = HealthClient::new(node.handle.clone());
    let http = HttpReadings::default();
    let began = Instant::now();
    let mut before = health.metrics(Format::Text, &http).await.expect("told");
    let first = began.elapsed();
    let (mut all, mut driver) = (Times::default(), Times::default());
    for _ in 0..SCRAPES {
        let began = Instant::now();
        let text = health.metrics(Format::Text, &http).await.expect("told");
        all.add(began.elapsed());
        driver.add(worked(&text).saturating_sub(worked(&before)));
        before = text;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let (mut changed, mut cards) = (Times::default(), Cards::new());
    for round in 0..ROUNDS {
        let offers = (0..CHANGES).map(|at| Offer {
            name: format!("changed-{round}-{at}").parse().expect("a label"),
            zone: None,
            scope: Scope::Public,
            card: cards.card(),
            grants: Vec::new(),
        });
        node.handle.register(None, offers.collect()).await.expect("registered");
        let began = Instant::now();
        health.metrics(Format::Text, &http).await.expect("told");
        changed.add(began.elapsed());
    }
    println!("a scrape of a node that holds {SCRAPED} records, {} bytes", before.len());
    println!("  the first: {:.1} ms", first.as_secs_f64() * 1e3);
    all.line("from question to text");
    driver.line("work of the driver from one to the next");
    changed.line(&format!("after {CHANGES} more records, from question to text"));
    node.stop().await.expect("stopped");
}

/// How long the driver worked in all.
fn worked(text: &str) -> Duration {
    let sum = text.lines().find_map(|line| line.strip_prefix("aop_driver_turn_seconds_sum "));
    Duration::from_secs_f64(sum.and_then(|sum| sum.parse().ok()).expect("a sum"))
}
