//! Calls at another node beside a bare libp2p stream that is opened for as many bytes, all in this process.

use std::time::Instant;

use aop::document::run_config::Builtin;
use aop::host::Running;
use futures::future::join_all;

use crate::bare::Bare;
use crate::figure::{Aim, Figure, median, ms};
use crate::hosted::hosted;
use crate::pair::{call, host_and_caller};

/// Names, bytes of the document, calls, and the share of the bare rate.
const SIZES: [(&str, usize, usize, f64); 3] =
    [("20 B", 20, 1_000, 1.0), ("64 KiB", 64 * 1024, 300, 0.8), ("1 MiB", 1024 * 1024, 100, 0.9)];
const WARM_UP: usize = 50;
const AT_ONCE: usize = 64;
const ROUNDS: usize = 30;

pub(crate) fn remote() -> Vec<Figure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
        let (host, caller) = host_and_caller(&folders, vec![hosted("echo", Builtin::Echo)]).await;
        let bare = Bare::start().await;
        let mut figures = Vec::new();
        for (name, bytes, calls, least) in SIZES {
            let (ours, theirs) = in_turns(bytes, calls, &caller, &bare).await;
            let of = format!("{ours:.3} of {theirs:.3} ms, p50");
            let what = format!("a call of {name} at another node, of a bare stream's rate");
            figures.push(Figure::new("calls", &what, theirs / ours, "", Aim::AtLeast(least)).of(of));
        }
        let at_once = at_once(&caller).await;
        figures.push(Figure::new("calls", "64 of 20 B at once", at_once, "ms", Aim::AtMost(7.0)));
        caller.stop().await.expect("stopped");
        host.stop().await.expect("stopped");
        figures
    })
}

/// Milliseconds in the median: a call, and the bare stream.
async fn in_turns(bytes: usize, calls: usize, caller: &Running, bare: &Bare) -> (f64, f64) {
    let text = "x".repeat(bytes);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for at in 0..WARM_UP + calls {
        let (call, stream) = (call(caller, &text).await, bare.ask(bytes).await);
        if at >= WARM_UP {
            ours.push(ms(call));
            theirs.push(ms(stream));
        }
    }
    (median(&ours), median(&theirs))
}

async fn at_once(caller: &Running) -> f64 {
    let text = "x".repeat(SIZES[0].1);
    let mut all = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        join_all((0..AT_ONCE).map(|_| call(caller, &text))).await;
        all.push(ms(began.elapsed()));
    }
    median(&all)
}
