//! Searches in process while another node tells of 5,000 records a second.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aop::document::Offer;
use aop::host::{self, Handle};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::agents::{Cards, fill};
use crate::figure::{Aim, Figure, ms, share};
use crate::find::query;
use crate::nodes::options;
use crate::offers::offer;

const HELD: usize = 10_000;
/// Between two searches.
const PACE: Duration = Duration::from_millis(2);
const MEASURED: Duration = Duration::from_secs(3);
/// Longest wait for the first record of the other node.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the other node registers at once, and how often: 5,000 a second. A host has slots for 20,000.
const BATCH: usize = 50;
const BATCH_EVERY: Duration = Duration::from_millis(10);
const BATCHES: usize = 380;

pub(crate) fn find_beside_ingest() -> Vec<Figure> {
    let dir = tempfile::tempdir().expect("a folder");
    fill(dir.path(), 100, HELD);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let node = host::start(options(100, dir.path(), &[])).await.expect("started");
        let quiet = search(&node.handle).await;
        let publisher = Publisher::start(&node.listen[0].to_string());
        let began = Instant::now();
        while agents(&node.handle).await < HELD + 10 * BATCH {
            assert!(began.elapsed() < PATIENCE, "nothing came from the other node");
            sleep(PACE).await;
        }
        let (before, began) = (agents(&node.handle).await, Instant::now());
        let busy = search(&node.handle).await;
        let ingested = (agents(&node.handle).await - before) as f64 / began.elapsed().as_secs_f64();
        drop(publisher);
        node.stop().await.expect("stopped");
        let (p99, quiet) = (share(&busy, 0.99), share(&quiet, 0.99));
        let of = format!("{p99:.3} of {quiet:.3} ms, a search every {PACE:?}");
        vec![
            Figure::new("beside", "records ingested a second meanwhile", ingested, "", Aim::AtLeast(4_500.0)),
            Figure::new(
                "beside",
                "find in process beside them, p99, x quiet",
                p99 / quiet,
                "",
                Aim::AtMost(3.0),
            )
            .of(of),
        ]
    })
}

/// Milliseconds of each search.
async fn search(handle: &Handle) -> Vec<f64> {
    let (mut cards, mut times, began) = (Cards::new(), Vec::new(), Instant::now());
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while began.elapsed() < MEASURED {
        pace.tick().await;
        let asking = Instant::now();
        std::hint::black_box(handle.find(query(&mut cards)).await.expect("found"));
        times.push(ms(asking.elapsed()));
    }
    times
}

async fn agents(handle: &Handle) -> usize {
    handle.status().await.expect("a status").zones[0].agents
}

/// Another process; ended when it is dropped.
struct Publisher(Child);

impl Publisher {
    fn start(address: &str) -> Publisher {
        let program = std::env::current_exe().expect("this program");
        let publisher = Command::new(program).args(["--publish", address]).stdin(Stdio::piped()).spawn();
        Publisher(publisher.expect("started"))
    }
}

impl Drop for Publisher {
    /// It ends, and cleans up, when nobody holds the other end any more.
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ended = self.0.wait();
    }
}

/// What the other process does: it joins the node there and registers, until its standard input ends.
pub(crate) fn publish(address: &str) {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let bootstrap = vec![address.parse().expect("an address")];
        let options = host::Options { bootstrap, ..options(101, dir.path(), &[]) };
        let node = host::start(options).await.expect("started");
        while agents(&node.handle).await < HELD {
            sleep(BATCH_EVERY).await;
        }
        let mut cards = Cards::new();
        let offers: Vec<Offer> =
            (0..BATCH * BATCHES).map(|at| offer(&mut cards, format!("told-{at}"))).collect();
        let mut pace = interval(BATCH_EVERY);
        for batch in offers.chunks(BATCH) {
            pace.tick().await;
            node.handle.register(None, batch.to_vec()).await.expect("registered");
        }
        let ended = || std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        tokio::task::spawn_blocking(ended).await.expect("waited").expect("ended");
        node.stop().await.expect("stopped");
    });
}
