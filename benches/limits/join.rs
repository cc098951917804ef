//! A fresh node joins one that holds 10,000 records of 100 authors, both in this process.

use std::time::{Duration, Instant};

use aop::host;
use tokio::time::{sleep, timeout};

use crate::agents::{fill, records};
use crate::figure::{Aim, Figure, median};
use crate::ingest::Bare;
use crate::joins::complete;
use crate::nodes::options;

const HELD: usize = 10_000;
const JOINS: u8 = 5;
/// Longest wait for all of them.
const PATIENCE: Duration = Duration::from_secs(20);
/// The holder has looked for peers by then.
const SETTLING: Duration = Duration::from_secs(3);

pub(crate) fn fresh_node() -> Vec<Figure> {
    let bare: Vec<Bare> = records(HELD).map(|record| Bare::of(&record)).collect();
    let dir = tempfile::tempdir().expect("a folder");
    fill(dir.path(), 100, HELD);
    let (mut whole, mut after_start, mut verified) = (Vec::new(), Vec::new(), Vec::new());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let holder = host::start(options(100, dir.path(), &[])).await.expect("started");
        sleep(SETTLING).await;
        for join in 0..JOINS {
            let began = Instant::now();
            bare.iter().for_each(Bare::verify);
            verified.push(began.elapsed().as_secs_f64());
            let dir = tempfile::tempdir().expect("a folder");
            let began = Instant::now();
            let fresh = host::start(options(200 + join, dir.path(), &[&holder])).await.expect("started");
            let started = began.elapsed();
            timeout(PATIENCE, complete(&fresh, &holder, HELD)).await.expect("complete");
            whole.push(began.elapsed().as_secs_f64());
            after_start.push((began.elapsed() - started).as_secs_f64());
            fresh.stop().await.expect("stopped");
        }
        holder.stop().await.expect("stopped");
    });
    let (whole, after_start, verified) = (median(&whole), median(&after_start), median(&verified));
    let of = format!("{after_start:.3} s after its start, verify_strict on one core {verified:.3} s");
    vec![
        Figure::new("join", "a fresh node has 10,000 records", whole, "s", Aim::AtMost(0.45)),
        Figure::new(
            "join",
            "the same by the clock, both nodes, of verify_strict's rate",
            verified / after_start,
            "",
            Aim::AtLeast(2.0),
        )
        .of(of),
    ]
}
