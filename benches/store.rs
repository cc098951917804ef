//! What the store costs: a durable write beside the bare append and sync of the same bytes (aim: at most 1.3 times),
//! and a start with 100,000 rows of 2 KiB with their seals checked (aim: under 1 s).

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use aop::net::store::{Store, Write};
use divan::Bencher;

const VALUE_BYTES: usize = 2048;
/// What the journal appends for one such value: the heads of frame, entry and row, and the key.
const FRAME_BYTES: usize = 12 + 8 + 29 + KEY_BYTES + VALUE_BYTES;
const KEY_BYTES: usize = 8;
/// Keys the writes go round.
const KEYS: u64 = 1_000;
/// Pairs of writes that are compared.
const TURNS: u64 = 4_000;
const ROWS: u64 = 100_000;

fn main() {
    print_ratio();
    divan::main();
}

/// Takes turns between the two, so that whatever else uses the disk slows both.
fn print_ratio() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut file = File::create(dir.path().join("bare")).expect("a file");
    let mut store = open(&dir.path().join("store"));
    let (bytes, value) = (vec![7; FRAME_BYTES], Arc::from(vec![7; VALUE_BYTES]));
    let (mut bare, mut durable) = (Vec::new(), Vec::new());
    for number in 0..TURNS {
        let started = Instant::now();
        file.write_all(&bytes).and_then(|()| file.sync_data()).expect("written");
        bare.push(started.elapsed());
        let started = Instant::now();
        store.write(vec![write(number % KEYS, &value, true)]).expect("written");
        durable.push(started.elapsed());
    }
    bare.sort();
    durable.sort();
    for (name, part) in [("median", 50), ("90 %", 90)] {
        let at = bare.len() * part / 100;
        let ratio = durable[at].as_secs_f64() / bare[at].as_secs_f64();
        println!("{name}: bare {:.1?}, durable write {:.1?}, ratio {ratio:.2}", bare[at], durable[at]);
    }
}

fn write(key: u64, value: &Arc<[u8]>, durable: bool) -> Write {
    Write { key: key.to_be_bytes().to_vec(), value: Some(value.clone()), durable }
}

#[divan::bench(sample_count = 2_000, sample_size = 1)]
fn bare_append_and_sync(bencher: Bencher) {
    let dir = tempfile::tempdir().expect("a folder");
    let mut file = File::create(dir.path().join("bare")).expect("a file");
    let bytes = vec![7; FRAME_BYTES];
    bencher.bench_local(|| {
        file.write_all(&bytes).expect("written");
        file.sync_data().expect("synced");
    });
}

#[divan::bench(sample_count = 2_000, sample_size = 1)]
fn durable_write(bencher: Bencher) {
    write_one_by_one(bencher, true);
}

#[divan::bench(sample_count = 2_000, sample_size = 1)]
fn queued_write(bencher: Bencher) {
    write_one_by_one(bencher, false);
}

fn write_one_by_one(bencher: Bencher, durable: bool) {
    let dir = tempfile::tempdir().expect("a folder");
    let mut store = open(dir.path());
    let value: Arc<[u8]> = vec![7; VALUE_BYTES].into();
    let mut number = 0;
    bencher.bench_local(|| {
        number += 1;
        store.write(vec![write(number % KEYS, &value, durable)]).expect("written");
    });
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn start_with_100_000_rows(bencher: Bencher) {
    let dir = tempfile::tempdir().expect("a folder");
    let mut store = open(dir.path());
    let value: Arc<[u8]> = (0..VALUE_BYTES).map(|_| rand::random::<u8>()).collect();
    let row = |number: u64| {
        let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        write(scattered, &value, number.is_multiple_of(100))
    };
    for start in (0..ROWS).step_by(500) {
        store.write((start..start + 500).map(row).collect::<Vec<_>>()).expect("written");
    }
    store.close().expect("closed");
    bencher.bench_local(|| {
        let (store, loaded) = Store::open(dir.path()).expect("opened");
        assert_eq!((loaded.rows.len() as u64, loaded.incidents.len()), (ROWS, 0));
        (store, loaded)
    });
}

fn open(dir: &Path) -> Store {
    Store::open(dir).expect("opened").0
}
