//! What it costs to take records of others: `cargo bench --bench ingest`.
//!
//! Ingest is decode, verify, merge, index and row to a store on disk. Its rate stands beside the bare `verify_strict`
//! of the same signatures, in blocks that alternate in one run (aims: gossip in bursts at least 0.8 of it, sync 1.3, and 2 by the
//! clock where one thread judges signatures and another takes them). What forgeries cost whoever judges them (aims: 1.8 times
//! single checks at first, 1.1 over a minute). Then memory a record (aim: at
//! most 8 KiB), and a start with stored records (aim: 100,000 in under 4 s). Each of those runs in its own process.

use std::collections::VecDeque;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use aop::net::store::{Authenticated, Store};
use aop::proto::identity::{Identity, PeerKey};
use aop::proto::io::{Dialed, Input, Output, Protocol, Received};
use aop::proto::message::{SyncFrame, SyncRequest};
use aop::proto::name::ZoneName;
use aop::proto::persistence::Stored;
use aop::proto::record::{SignedRecord, verify_each, verify_together};
use aop::proto::{ahead, fingerprint};
use ed25519_dalek::{Signature, VerifyingKey};
use serde_bytes::ByteBuf;

#[path = "samples/agents.rs"]
mod agents;
#[path = "samples/times.rs"]
mod times;

use agents::{Cards, Keeper, NETWORK, fill, message, node, records, wall_clock};
use times::Times;

const RECORDS: usize = 10_000;
/// Records of one block: bare, gossip and sync take turns.
const BLOCK: usize = 50;
const RUNS: usize = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|it| it != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => {
            times::head("cargo bench --bench ingest");
            in_child(&["rate"]);
            in_child(&["memory"]);
            for count in ["10000", "100000"] {
                let dir = tempfile::tempdir().expect("a folder");
                let dir = dir.path().display().to_string();
                in_child(&["fill", &dir, count]);
                for _ in 0..RUNS {
                    in_child(&["start", &dir, count]);
                }
            }
        }
        ["rate"] => (0..RUNS).for_each(|_| rate()),
        ["memory"] => memory(),
        ["fill", dir, count] => fill(Path::new(dir), 100, count.parse().expect("a number")),
        ["start", dir, count] => start(Path::new(dir), count.parse().expect("a number")),
        _ => panic!("rate, memory, fill DIR COUNT, or start DIR COUNT"),
    }
}

fn in_child(arguments: &[&str]) {
    let program = std::env::current_exe().expect("this program");
    assert!(Command::new(program).args(arguments).status().expect("started").success());
}

/// A signature with what is needed to judge it, and nothing else to do.
struct Bare {
    key: VerifyingKey,
    signature: Signature,
    content: Vec<u8>,
}

impl Bare {
    fn of(record: &[u8]) -> Bare {
        let parsed = SignedRecord::parse(record, NETWORK).expect("a record");
        let signature = record[1..65].try_into().expect("64 bytes");
        Bare {
            key: VerifyingKey::from_bytes(&parsed.header().author.key.0).expect("a key"),
            signature: Signature::from_bytes(signature),
            content: [b"aop-record-v1\0", &record[65..]].concat(),
        }
    }

    fn verify(&self) {
        self.key.verify_strict(&self.content, &self.signature).expect("signed");
    }
}

/// Time of a way of taking records: of the calling thread alone, and by the clock.
#[derive(Default)]
struct Spent {
    cpu: Duration,
    wall: Times,
}

impl Spent {
    fn on<T>(&mut self, run: impl FnOnce() -> T) -> T {
        let (cpu, wall) = (thread_cpu(), Instant::now());
        let result = run();
        self.wall.add(wall.elapsed());
        self.cpu += thread_cpu() - cpu;
        result
    }

    /// Microseconds a record: of the thread, and by the clock in the median block.
    fn each(&mut self) -> (f64, f64) {
        let micros = |time: Duration, count: usize| time.as_secs_f64() * 1e6 / count as f64;
        (micros(self.cpu, RECORDS), micros(self.wall.at(0.5), BLOCK))
    }
}

fn line(name: &str, (cpu, wall): (f64, f64), bare: (f64, f64)) {
    println!(
        "  {name:<20} CPU {cpu:>6.1} µs a record ({:.2} of bare), clock {wall:>6.1} µs in the median block ({:.2})",
        bare.0 / cpu,
        bare.1 / wall
    );
}

fn rate() {
    let records: Vec<Vec<u8>> = records(RECORDS).collect();
    let bytes: usize = records.iter().map(Vec::len).sum();
    println!("{RECORDS} records of {} bytes", bytes / RECORDS);
    let bare: Vec<Bare> = records.iter().map(|record| Bare::of(record)).collect();
    let dirs: Vec<_> = (0..5).map(|_| tempfile::tempdir().expect("a folder")).collect();
    let mut keepers: Vec<Keeper> =
        dirs.iter().enumerate().map(|(at, dir)| Keeper::new(dir.path(), 100 + at as u8)).collect();
    let (mut verified, mut gossiped, mut given) = (Spent::default(), Spent::default(), Spent::default());
    let (mut alone, mut threaded) = (Spent::default(), keepers.pop().expect("a fifth"));
    for (bare, records) in bare.chunks(BLOCK).zip(records.chunks(BLOCK)) {
        verified.on(|| bare.iter().for_each(Bare::verify));
        let messages: Vec<Vec<u8>> = records.iter().cloned().map(message).collect();
        let burst = messages.clone();
        gossiped.on(|| {
            let read: Vec<Vec<SignedRecord>> = burst.iter().map(|it| ahead::of_gossip(it, NETWORK)).collect();
            judge(&read.concat(), &keepers[0]);
            burst.into_iter().zip(read).for_each(|(message, read)| keepers[0].take_ahead(message, read))
        });
        alone.on(|| messages.into_iter().for_each(|message| keepers[3].take(message)));
        let asked = give(&keepers[1], records);
        given.on(|| take_request(&mut keepers[1], asked));
    }
    let bare_each = verified.each();
    line("bare verify_strict", bare_each, bare_each);
    line("gossip, a burst", gossiped.each(), bare_each);
    line("gossip, one each", alone.each(), bare_each);
    line("sync, Give", given.each(), bare_each);
    gossiped.wall.line(&format!("gossip, {BLOCK} records"));
    pull(&mut keepers, &bare);
    on_two_threads(&mut threaded, &records, &bare);
    forged(&records, &bare);
    for mut keeper in keepers.into_iter().chain([threaded]) {
        assert_eq!(keeper.agents(), RECORDS);
        keeper.close();
    }
}

fn judge(records: &[SignedRecord], keeper: &Keeper) {
    verify_together(records, keeper.now, &mut rand::rng());
}

fn take_request(keeper: &mut Keeper, asked: Input) {
    let Input::Request { bytes, .. } = &asked else { return };
    let read = ahead::of_request(bytes, NETWORK);
    judge(&read, keeper);
    keeper.node.handle(keeper.now, Received { input: asked, records: read });
    keeper.perform();
}

/// One thread judges, the other takes what is judged, as a live node does: by the clock.
fn on_two_threads(keeper: &mut Keeper, records: &[Vec<u8>], bare: &[Bare]) {
    let began = Instant::now();
    bare.iter().for_each(Bare::verify);
    let alone = began.elapsed();
    let now = keeper.now;
    let asked: Vec<Input> = records.chunks(BLOCK).map(|records| give(keeper, records)).collect();
    let began = Instant::now();
    std::thread::scope(|scope| {
        let (judged, taken) = std::sync::mpsc::sync_channel(8);
        scope.spawn(move || {
            for asked in asked {
                let Input::Request { bytes, .. } = &asked else { continue };
                let read = ahead::of_request(bytes, NETWORK);
                verify_together(&read, now, &mut rand::rng());
                judged.send((asked, read)).expect("taken");
            }
        });
        for (asked, read) in taken {
            keeper.node.handle(now, Received { input: asked, records: read });
            keeper.perform();
        }
    });
    let took = began.elapsed();
    let each = |time: Duration| time.as_secs_f64() * 1e6 / RECORDS as f64;
    println!(
        "  {:<20} clock {:>6.1} µs a record ({:.2} of bare)",
        "sync, two threads",
        each(took),
        each(alone) / each(took)
    );
}

/// Batches with one forgery each, and what comes after from whoever is suspected.
fn forged(records: &[Vec<u8>], bare: &[Bare]) {
    let (mut verified, mut failed, mut suspected) = (Spent::default(), Spent::default(), Spent::default());
    let now = wall_clock();
    let read = |records: &[Vec<u8>]| -> Vec<SignedRecord> {
        let mut records = records.to_vec();
        // The last, so that nothing is spared.
        records[BLOCK - 1][40] ^= 1;
        records.iter().map(|record| SignedRecord::parse(record, NETWORK).expect("a record")).collect()
    };
    for (bare, records) in bare.chunks(BLOCK).zip(records.chunks(BLOCK)) {
        verified.on(|| bare.iter().for_each(Bare::verify));
        let (first, then) = (read(records), read(records));
        failed.on(|| verify_together(&first, now, &mut rand::rng()));
        suspected.on(|| verify_each(&then, now));
    }
    let alone = verified.each();
    line("one forged, at first", failed.each(), alone);
    line("one forged, then", suspected.each(), alone);
}

fn give(keeper: &Keeper, records: &[Vec<u8>]) -> Input {
    let records = records.iter().cloned().map(ByteBuf::from).collect();
    let request = SyncRequest::Give { records, publish: false };
    let frame = SyncFrame {
        zone: aop::proto::name::ZoneId::open(ZoneName::root()),
        as_of: fingerprint::as_of(keeper.now),
        request,
    };
    Input::Request { id: 1, peer: PeerKey([9; 32]), protocol: Protocol::Sync, bytes: frame.encode() }
}

/// The third asks the first for everything; only its own work counts. Bare verification goes on in between.
fn pull(keepers: &mut [Keeper], bare: &[Bare]) {
    let (mut verified, mut pulled) = (Spent::default(), Spent::default());
    let [holder, _, asker, _] = keepers else { return };
    let (peer, mut now) = (Identity::from_seed([100; 32]).key(), asker.now);
    asker.node.handle(now, Input::PeerJoined { peer, zone: ZoneName::root(), dialed: Dialed::ByUs });
    let mut outputs = VecDeque::from(asker.perform());
    let mut bare = bare.chunks(BLOCK).cycle();
    let mut verifications = 0;
    while asker.agents() < RECORDS {
        let Some(output) = outputs.pop_front() else {
            // A tree is hashed in turns: the asker comes again.
            now = asker.node.poll_timeout().expect("it waits for something");
            asker.node.handle_timeout(now);
            outputs.extend(asker.perform());
            continue;
        };
        let Output::Request { conversation, bytes, .. } = output else { continue };
        holder.node.handle(now, Input::Request { id: 1, peer, protocol: Protocol::Sync, bytes });
        for answer in holder.perform() {
            let Output::Respond { bytes, .. } = answer else { continue };
            let block = bare.next().unwrap_or_default();
            verified.on(|| block.iter().for_each(Bare::verify));
            verifications += block.len();
            outputs.extend(pulled.on(|| {
                let read = ahead::of_answer(&bytes, NETWORK);
                judge(&read, asker);
                let input = Input::Response { conversation, bytes };
                asker.node.handle(now, Received { input, records: read });
                asker.perform()
            }));
        }
    }
    let alone = verified.cpu.as_secs_f64() * 1e6 / verifications as f64;
    let cpu = pulled.cpu.as_secs_f64() * 1e6 / RECORDS as f64;
    println!("  {:<20} CPU {cpu:>6.1} µs a record ({:.2} of bare)", "sync, Records", alone / cpu);
}

/// Records are made one by one, so that only what the node keeps stays.
fn memory() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut keeper = Keeper::new(dir.path(), 100);
    let supply = records(RECORDS);
    // The supply's own words and keys are no part of the node.
    std::hint::black_box(Cards::new().prose(1));
    let empty = resident_bytes();
    for record in supply {
        keeper.take(message(record));
    }
    let full = resident_bytes();
    println!("memory above an empty node, store included: {} bytes a record", (full - empty) / RECORDS);
    keeper.close();
    println!(
        "the same with the store closed: {} bytes a record",
        (resident_bytes().max(empty) - empty) / RECORDS
    );
}

fn start(dir: &Path, count: usize) {
    let began = Instant::now();
    let (store, loaded) = Store::open(dir).expect("opened");
    let opened = began.elapsed();
    let (mut stored, now) = (Stored::default(), wall_clock());
    for row in &loaded.rows {
        assert!(stored.take_row(&row.key, &row.value, row.authenticated == Authenticated::Yes, NETWORK, now));
    }
    let parsed = began.elapsed();
    let node = node(100, stored, now);
    let ready = began.elapsed();
    drop(loaded);
    assert_eq!(node.zone_states(now)[0].agents, count);
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "start with {count}: {:.0} ms (store {:.0}, rows {:.0}, node {:.0}; CPU {:.0} ms), {} MiB resident",
        ms(ready),
        ms(opened),
        ms(parsed - opened),
        ms(ready - parsed),
        ms(thread_cpu()),
        resident_bytes() >> 20
    );
    drop(store);
}

/// CPU time of this thread: other programs on the machine do not count.
fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Resident memory of this process; 0 where the system does not say.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}
