//! What is written: records of others that come one by one, and own ones that must not be lost.

use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use aop::host;
use aop::net::store::{Store, Write};
use rand::RngExt as _;

use crate::agents::Cards;
use crate::cpu::process_cpu;
use crate::figure::{Aim, Figure, median, ms};
use crate::nodes::options;
use crate::offers::offer;

const ROW_BYTES: usize = 2_080;
const KEY_BYTES: usize = 20;
/// Rows the store holds before.
const HELD: usize = 20_000;
const TRICKLED: usize = 600;
const EVERY: Duration = Duration::from_millis(100);
const REGISTRATIONS: usize = 600;
/// What one registration of such an agent leaves in the journal.
const JOURNAL_BYTES: usize = 2_300;

/// Rows with random keys, ten a second for a minute; what reached the disk by the time the store is closed.
pub(crate) fn trickle() -> Vec<Figure> {
    let dir = tempfile::tempdir().expect("a folder");
    let mut rng = rand::rng();
    let mut row = move || {
        let (mut key, mut value) = (vec![0; KEY_BYTES], vec![0; ROW_BYTES]);
        rng.fill(&mut key[..]);
        rng.fill(&mut value[..]);
        Write { key, value: Some(value.into()), durable: false }
    };
    let mut store = Store::open(dir.path()).expect("opened").0;
    for _ in 0..HELD / 100 {
        store.write((0..100).map(|_| row()).collect::<Vec<_>>()).expect("written");
    }
    store.close().expect("closed");
    let mut store = Store::open(dir.path()).expect("opened").0;
    let (bytes, cpu) = (written_bytes(), process_cpu());
    let mut due = Instant::now();
    for _ in 0..TRICKLED {
        store.write(vec![row()]).expect("written");
        due += EVERY;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    store.close().expect("closed");
    let kib = (written_bytes() - bytes) as f64 / 1024.0 / TRICKLED as f64;
    let cpu = ms(process_cpu() - cpu) / TRICKLED as f64;
    vec![
        Figure::new("trickle", "a foreign record of 2 KB on the disk", kib, "KiB", Aim::AtMost(12.0))
            .of(format!("{TRICKLED} rows, one each {EVERY:?}, {HELD} held")),
        Figure::new("trickle", "CPU of the store for it", cpu, "ms", Aim::AtMost(0.1)),
    ]
}

/// Bytes that this process has sent to disks.
fn written_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").expect("Linux");
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).expect("a number")
}

/// Registrations in turns with a bare append and sync of as many bytes.
pub(crate) fn register() -> Vec<Figure> {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    runtime.block_on(async {
        let node = host::start(options(100, dir.path(), &[])).await.expect("started");
        let mut file = File::create(dir.path().join("bare")).expect("a file");
        let mut cards = Cards::new();
        for at in 0..REGISTRATIONS {
            let began = Instant::now();
            file.write_all(&[7; JOURNAL_BYTES]).and_then(|()| file.sync_data()).expect("written");
            bare.push(ms(began.elapsed()));
            let offer = offer(&mut cards, format!("agent-{at}"));
            let began = Instant::now();
            let answers = node.handle.register(None, vec![offer]).await.expect("registered");
            ours.push(ms(began.elapsed()));
            assert!(answers[0].is_ok(), "{answers:?}");
        }
        node.stop().await.expect("stopped");
    });
    let (ours, bare) = (median(&ours), median(&bare));
    let what = "a durable registration, x append and fdatasync";
    vec![
        Figure::new("register", what, ours / bare, "", Aim::AtMost(1.3))
            .of(format!("{ours:.3} of {bare:.3} ms, p50")),
    ]
}
