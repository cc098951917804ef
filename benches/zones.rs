//! A gateway of a world of many zones, and a member of one of them: `cargo bench --bench zones`.
//!
//! Three processes on loopback. One serves all zones and their agents, this one is the gateway of the root that follows them,
//! the third is a member of a zone of its own and asks the gateway. Figures: what a search costs at the gateway, at the member
//! uncached and cached; what the gateway and the member take of memory and of a core at rest, and what is sent
//! meanwhile. `AOP_BENCH_ZONES` is the number of zones (1,000), each of 100 agents.

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use aop::api::{FindAnswer, FindQuery};
use aop::host::{self, Handle, Options, Running};
use aop::proto::card::{Offer, Scope};
use aop::proto::identity::Identity;
use aop::proto::name::ZoneName;
use libp2p::Multiaddr;

#[path = "samples/agents.rs"]
#[expect(dead_code, reason = "the store is filled by the node itself here")]
mod agents;
#[path = "samples/times.rs"]
mod times;

use agents::{Cards, NETWORK};
use times::Times;

/// What a member says when it asks no more.
const RESTS: &str = "rests";
const AGENTS: usize = 100;
const ASKED: usize = 2_000;
/// How long a process is watched at rest.
const REST: Duration = Duration::from_secs(60);
/// The unit of `/proc/self/stat` on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

fn main() {
    let zones = std::env::var("AOP_BENCH_ZONES").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000);
    let part = std::env::var("AOP_BENCH_PART").unwrap_or_default();
    let bootstrap = std::env::var("AOP_BENCH_BOOTSTRAP").ok().map(|text| text.parse().expect("an address"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        match part.as_str() {
            "source" => source(zones, bootstrap).await,
            "member" => member(bootstrap).await,
            _ => gateway(zones).await,
        }
    });
}

/// Serves all zones until its input ends.
async fn source(zones: usize, bootstrap: Option<Multiaddr>) {
    let folder = tempfile::tempdir().expect("a folder");
    let names: Vec<ZoneName> = (0..zones).map(|at| format!("z{at}.org").parse().expect("a zone")).collect();
    let node = start(2, folder.path(), names.clone(), bootstrap).await;
    let mut cards = Cards::new();
    for zone in names {
        let offers = (0..AGENTS).map(|at| Offer {
            name: format!("agent-{at}").parse().expect("a label"),
            zone: None,
            scope: Scope::Public,
            card: cards.card(),
            grants: Vec::new(),
        });
        let registered = node.handle.register(Some(zone), offers.collect()).await.expect("registered");
        assert!(registered.iter().all(Result::is_ok));
    }
    println!("ready");
    end_of_input();
    node.stop().await.expect("stopped");
}

/// A member of a zone of its own: searches when it is told to, then rests.
async fn member(bootstrap: Option<Multiaddr>) {
    let folder = tempfile::tempdir().expect("a folder");
    let node = start(3, folder.path(), vec!["asker.net".parse().expect("a zone")], bootstrap).await;
    println!("ready");
    end_of_input();
    let (mut fresh, mut cached, mut cards) = (Times::default(), Times::default(), Cards::new());
    let mut incomplete = 0;
    for _ in 0..ASKED {
        let words = cards.prose(8);
        // What is asked anew is kept, for who asks the same again.
        for (max_age_ms, times) in [(0, &mut fresh), (300_000, &mut cached)] {
            let (answer, took) = find(&node.handle, words.clone(), max_age_ms).await;
            incomplete += usize::from(!answer.complete);
            times.add(took);
        }
    }
    println!("at a member of another zone, over loopback ({incomplete} incomplete)");
    fresh.line("asked anew");
    println!("    {} searches: {}", 2 * ASKED, counted(&node.handle).await);
    cached.line("answered before");
    println!("{RESTS}");
    rest("the member").await;
    node.stop().await.expect("stopped");
}

async fn gateway(zones: usize) {
    times::head("cargo bench --bench zones");
    let folder = tempfile::tempdir().expect("a folder");
    let node = start(1, folder.path(), vec![ZoneName::root()], None).await;
    let address = node.listen.first().expect("it listens").clone();
    let began = Instant::now();
    let mut source = child("source", &address);
    source.wait_ready();
    println!("{zones} zones of {AGENTS} agents, registered in {:.1} s", began.elapsed().as_secs_f64());
    let began = Instant::now();
    loop {
        let (answer, _) = find(&node.handle, String::new(), 0).await;
        let held: usize = answer.zones.iter().map(|zone| zone.count.unwrap_or(1)).sum();
        if answer.complete && held > zones {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("followed, complete {:.1} s later", began.elapsed().as_secs_f64());
    let (mut times, mut cards) = (Times::default(), Cards::new());
    for _ in 0..ASKED {
        times.add(find(&node.handle, cards.prose(8), 0).await.1);
    }
    println!("at the gateway, in process");
    times.line("a search over all");
    rest("the gateway").await;
    let mut member = child("member", &address);
    member.wait_ready();
    // It delegates its zone, and is followed.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let (cpu, sent) = (cpu_ticks(), loopback_bytes());
    member.go_on();
    member.show_until(RESTS);
    let (ticks, bytes) = ((cpu_ticks() - cpu) as f64, (loopback_bytes() - sent) as f64);
    println!(
        "    each costs the gateway {:.2} ms of a core, and {:.1} kB on the way, all that is sent meanwhile included",
        1_000.0 * ticks / TICKS_PER_SECOND / ASKED as f64,
        bytes / 1_000.0 / ASKED as f64
    );
    member.finish();
    source.finish();
    node.stop().await.expect("stopped");
}

async fn start(
    seed: u8,
    folder: &std::path::Path,
    zones: Vec<ZoneName>,
    bootstrap: Option<Multiaddr>,
) -> Running {
    let bootstrap = bootstrap.into_iter().collect();
    let options =
        Options { zones, bootstrap, ..Options::new(Identity::from_seed([seed; 32]), NETWORK, folder) };
    host::start(options).await.expect("started")
}

async fn find(handle: &Handle, q: String, max_age_ms: u64) -> (FindAnswer, Duration) {
    let query = FindQuery { q, limit: Some(10), max_age_ms: Some(max_age_ms), ..FindQuery::default() };
    let began = Instant::now();
    let answer = handle.find(query).await.expect("found");
    (answer, began.elapsed())
}

/// Lines of `/metrics` on how often others were asked.
async fn counted(handle: &Handle) -> String {
    let health = aop::host::HealthClient::new(handle.clone());
    let none = aop::host::HttpReadings::default();
    let metrics = health.metrics(aop::telemetry::exposition::Format::Text, &none).await.expect("metrics");
    let of = |line: &&str| line.starts_with("aop_questions_asked_total{origin=\"client\"}");
    metrics.lines().find(of).unwrap_or_default().to_owned()
}

/// What this process takes while nobody asks, and what all of them send.
async fn rest(who: &str) {
    let (cpu, sent, began) = (cpu_ticks(), loopback_bytes(), Instant::now());
    tokio::time::sleep(REST).await;
    let seconds = began.elapsed().as_secs_f64();
    let share = (cpu_ticks() - cpu) as f64 / TICKS_PER_SECOND / seconds;
    let traffic = (loopback_bytes() - sent) as f64 / 1_000.0 / seconds;
    println!(
        "  {who} at rest: {:.0} MiB resident, {:.1} % of a core; all processes together send {traffic:.1} kB/s",
        resident_mib(),
        share * 100.0
    );
}

/// Bytes that went over the loopback of this machine, with the heads of their packets.
fn loopback_bytes() -> u64 {
    let devices = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let line = devices.lines().find_map(|line| line.trim().strip_prefix("lo:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(f64::NAN) / 1024.0
}

fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    fields.get(11..13).into_iter().flatten().filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// Another part of this bench, in a process of its own.
struct Part {
    child: Child,
    input: Option<ChildStdin>,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

fn child(part: &str, bootstrap: &Multiaddr) -> Part {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .env("AOP_BENCH_PART", part)
        .env("AOP_BENCH_BOOTSTRAP", bootstrap.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    Part { input: child.stdin.take(), lines, child }
}

impl Part {
    fn wait_ready(&mut self) {
        let line = self.lines.next().expect("a line").expect("text");
        assert_eq!(line, "ready");
    }

    /// Lets it go on.
    fn go_on(&mut self) {
        drop(self.input.take());
    }

    /// Shows what it measured until it says this.
    fn show_until(&mut self, last: &str) {
        let lines = self.lines.by_ref().map(|line| line.expect("text"));
        lines.take_while(|line| line != last).for_each(|line| println!("{line}"));
    }

    /// Lets it go on and end, and shows what it measured.
    fn finish(mut self) {
        self.go_on();
        self.show_until("");
        std::io::stdout().flush().expect("shown");
        self.child.wait().expect("ended");
    }
}

fn end_of_input() {
    let _lines = std::io::stdin().lock().lines().count();
}
