//! Searches in process: whether two askers on two cores get twice as many answers as one on one core.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use aop::api::FindQuery;
use aop::host::{self, Handle};

use crate::agents::{Cards, fill};
use crate::figure::{Aim, Figure, median};
use crate::nodes::options;

const HELD: usize = 10_000;
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(2);
/// Cores as `taskset` takes them, and askers.
const WAYS: [(&str, usize); 4] = [("0", 1), ("0", 2), ("0,1", 1), ("0,1", 2)];

pub(crate) fn scaling() -> Vec<Figure> {
    let dir = tempfile::tempdir().expect("a folder");
    fill(dir.path(), 100, HELD);
    let mut rates = WAYS.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for ((cores, askers), rates) in WAYS.iter().zip(&mut rates) {
            rates.push(rate_on(cores, *askers, dir.path()));
        }
    }
    let [one_one, one_two, two_one, two_two] = rates.each_ref().map(|rates| median(rates));
    let of = format!(
        "a second, one and two askers: {one_one:.0} and {one_two:.0} on one core, {two_one:.0} and {two_two:.0} on two"
    );
    let growth = two_two / one_one.max(one_two);
    vec![
        Figure::new("scaling", "find in process, from one core to two", growth, "x", Aim::AtLeast(1.7))
            .of(of),
    ]
}

/// Answers a second in a process that may use these cores.
fn rate_on(cores: &str, askers: usize, dir: &Path) -> f64 {
    let program = std::env::current_exe().expect("this program");
    let mut asker = Command::new("taskset");
    asker.args(["-c", cores]).arg(program).arg("--ask").arg(dir).arg(askers.to_string());
    let output = asker.stderr(std::process::Stdio::inherit()).output().expect("util-linux");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
}

/// What such a process does: it starts the node of the folder, asks, and prints the answers a second.
pub(crate) fn ask_for_a_while(dir: &Path, askers: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let node = host::start(options(100, dir, &[])).await.expect("started");
        let began = Instant::now();
        let tasks: Vec<_> = (0..askers).map(|_| tokio::spawn(ask(node.handle.clone()))).collect();
        let mut answers = 0;
        for task in tasks {
            answers += task.await.expect("asked");
        }
        println!("{}", answers as f64 / began.elapsed().as_secs_f64());
        node.stop().await.expect("stopped");
    });
}

async fn ask(handle: Handle) -> usize {
    let (mut cards, began, mut answers) = (Cards::new(), Instant::now(), 0);
    while began.elapsed() < ROUND {
        std::hint::black_box(handle.find(query(&mut cards)).await.expect("found"));
        answers += 1;
    }
    answers
}

/// By a tag and a capability.
pub(crate) fn query(cards: &mut Cards) -> FindQuery {
    FindQuery {
        tag: vec![cards.label("tag")],
        capability: vec![cards.label("can")],
        limit: Some(10),
        ..FindQuery::default()
    }
}
