//! Searches through a [`Handle`] beside the bare round trip between two tasks: `cargo bench --bench find`.
//!
//! Two tasks ask a live node that holds 10,000 records, one question after the other. The bare round trip is a message
//! to a task that answers at once, by the same channels. Rounds alternate.

use std::time::{Duration, Instant};

use aop::api::FindQuery;
use aop::host::{self, Handle};
use tokio::sync::{mpsc, oneshot};

#[path = "samples/agents.rs"]
mod agents;
#[path = "samples/nodes.rs"]
mod nodes;
#[path = "samples/times.rs"]
mod times;

use agents::{Cards, fill};
use nodes::options;
use times::Times;

const HELD: usize = 10_000;
const ASKERS: usize = 2;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);

fn main() {
    times::head("cargo bench --bench find");
    let dir = tempfile::tempdir().expect("a folder");
    fill(dir.path(), 100, HELD);
    let options = options(100, dir.path(), &[]);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let node = host::start(options).await.expect("started");
        compare(&node.handle).await;
        node.stop().await.expect("stopped");
    });
}

async fn compare(handle: &Handle) {
    let (asked, questions) = mpsc::channel(256);
    tokio::spawn(echo(questions));
    let names = ["bare round trip", "find by a tag and a capability", "find by one to three words"];
    let mut measured = names.map(|_| (0, Times::default()));
    let cards = Cards::new();
    for _ in 0..ROUNDS {
        for (kind, (count, times)) in measured.iter_mut().enumerate() {
            let askers: Vec<_> = (0..ASKERS)
                .map(|_| tokio::spawn(ask_for_a_while(kind, asked.clone(), handle.clone(), cards.clone())))
                .collect();
            for asker in askers {
                let took = asker.await.expect("asked");
                *count += took.len();
                took.into_iter().for_each(|time| times.add(time));
            }
        }
    }
    println!("{ASKERS} tasks, {HELD} records");
    let bare = measured[0].0 as f64;
    for (name, (count, times)) in names.iter().zip(&mut measured) {
        times.line(name);
        let rate = *count as f64 / (ROUNDS as f64 * ROUND.as_secs_f64());
        println!("    {rate:.0} a second, {:.3} of bare", *count as f64 / bare);
    }
}

/// One question after the other; how long each took.
async fn ask_for_a_while(
    kind: usize,
    asked: mpsc::Sender<oneshot::Sender<u64>>,
    handle: Handle,
    mut cards: Cards,
) -> Vec<Duration> {
    let (began, mut times) = (Instant::now(), Vec::new());
    while began.elapsed() < ROUND {
        let query = match kind {
            1 => FindQuery {
                tag: vec![cards.label("tag")],
                capability: vec![cards.label("can")],
                ..FindQuery::default()
            },
            _ => FindQuery { q: cards.prose(8), ..FindQuery::default() },
        };
        let asking = Instant::now();
        match kind {
            0 => ask(&asked).await,
            _ => drop(std::hint::black_box(handle.find(query).await.expect("found"))),
        }
        times.push(asking.elapsed());
    }
    times
}

async fn echo(mut questions: mpsc::Receiver<oneshot::Sender<u64>>) {
    while let Some(question) = questions.recv().await {
        // The asker waits for it.
        let _gone = question.send(7);
    }
}

async fn ask(asked: &mpsc::Sender<oneshot::Sender<u64>>) {
    let (answer, answered) = oneshot::channel();
    asked.send(answer).await.expect("a task");
    answered.await.expect("an answer");
}
