//! What records of others take of the memory, and of the start: `cargo bench --bench ingest`. How fast they are taken is in
//! the bench `limits`.
//!
//! Memory a record (aim: at most 8 KiB), and the parts of a start with stored records (aim: 100,000 in 1.5 s). Each
//! runs in its own process.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use aop::net::read_rows;
use aop::net::store::Store;
use aop::proto::name::ZoneName;

#[path = "samples/agents.rs"]
mod agents;
#[path = "samples/cpu.rs"]
mod cpu;

use agents::{Cards, Keeper, NETWORK, fill, message, node, records, wall_clock, zones};
use cpu::process_cpu;

const RECORDS: usize = 10_000;
const RUNS: usize = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|it| it != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => {
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
        ["memory"] => memory(),
        ["fill", dir, count] => fill(Path::new(dir), 100, count.parse().expect("a number")),
        ["start", dir, count] => start(Path::new(dir), count.parse().expect("a number")),
        _ => panic!("memory, fill DIR COUNT, or start DIR COUNT"),
    }
}

fn in_child(arguments: &[&str]) {
    let program = std::env::current_exe().expect("this program");
    assert!(Command::new(program).args(arguments).status().expect("started").success());
}

/// Records are made one by one, so that only what the node keeps stays.
fn memory() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut keeper = Keeper::new(dir.path(), 100, vec![ZoneName::root()]);
    let supply = records(RECORDS);
    // The supply's own words and keys are no part of the node.
    std::hint::black_box(Cards::new().prose(1));
    let empty = resident_bytes();
    for record in supply {
        keeper.take(ZoneName::root(), message(record));
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
    let (store, mut loaded) = Store::open(dir).expect("opened");
    let (opened, now) = (began.elapsed(), wall_clock());
    let (stored, rewritten) = read_rows(&mut loaded, NETWORK, now);
    assert!(rewritten.is_empty());
    let bytes: usize = stored.others.iter().map(|record| record.bytes().len()).sum();
    let parsed = began.elapsed();
    let node = node(100, zones(count), stored, now);
    let ready = began.elapsed();
    drop(loaded);
    assert_eq!(node.zone_states(now).iter().map(|zone| zone.agents).sum::<usize>(), count);
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "start with {count}: {:.0} ms (store {:.0}, rows and index {:.0}, node {:.0}; CPU of all threads {:.0} ms), \
         {} MiB resident for {} MiB of records",
        ms(ready),
        ms(opened),
        ms(parsed - opened),
        ms(ready - parsed),
        ms(process_cpu()),
        resident_bytes() >> 20,
        bytes >> 20
    );
    drop(store);
}

/// Resident memory of this process; 0 where the system does not say.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}
