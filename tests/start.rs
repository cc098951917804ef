//! What a start costs in memory: the rows once, however they are read. One test alone in its process, so that nothing else
//! allocates meanwhile.

use std::sync::Arc;

use aop::net::store::{Store, Write};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Enough that what reading takes in any case, some 40 MiB, is little beside them.
const ROWS: u64 = 50_000;
const VALUE_BYTES: usize = 2_048;

fn row(number: u64) -> Write {
    // Scattered, as hashes are.
    let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    let value: Arc<[u8]> = scattered.iter().copied().cycle().take(VALUE_BYTES).collect();
    Write { key: scattered.to_vec(), value: Some(value), durable: false }
}

#[test]
fn a_store_is_opened_with_its_rows_held_once_and_a_part_of_them_beside() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    for first in (0..ROWS).step_by(500) {
        store.write((first..first + 500).map(row).collect::<Vec<_>>()).unwrap();
    }
    store.close().unwrap();

    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let (_store, loaded) = Store::open(dir.path()).unwrap();
    let times = |bytes: usize| (bytes - before) as f64 / (ROWS as usize * VALUE_BYTES) as f64;
    let (held, peak) = (times(ALLOCATOR.current_usage()), times(ALLOCATOR.peak_usage()));
    println!("{held:.2} times the rows, {peak:.2} at most on the way");
    assert_eq!(loaded.rows.len() as u64, ROWS);
    assert!(held < 1.7, "{held:.2} times the rows are held");
    assert!(peak < 2.0, "{peak:.2} times the rows on the way");
}
