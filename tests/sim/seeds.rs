//! Worlds drawn from seeds: many are played, one is replayed.
//!
//! `AOP_SIM_SEEDS=1000` plays more of them, `AOP_SIM_SEED=7 … replay` plays one again, `AOP_SIM_FAIL_FAST=1` stops at the
//! first that breaks.

use std::panic::{AssertUnwindSafe, catch_unwind};

use aop::sim::{Outcome, Violation};

use crate::actions::number;

/// Plays seeds on two threads: so many, unless another number is asked for. A panic of a node is one more way to break.
/// `replay` names the test that plays one again.
pub(crate) fn play_seeds(seeds: u64, replay: &str, play: impl Fn(u64) -> Result<(), Violation> + Sync) {
    let seeds = number("AOP_SIM_SEEDS").unwrap_or(seeds);
    let most = if number("AOP_SIM_FAIL_FAST").is_some() { 1 } else { usize::MAX };
    let broken = |seed: u64| match catch_unwind(AssertUnwindSafe(|| play(seed))) {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => {
            let replay = format!("cargo test --test sim -- --exact {replay} --nocapture");
            Some(format!("{violation}; replay with AOP_SIM_SEED={seed} {replay}"))
        }
        Err(_) => Some(format!("seed {seed} panicked")),
    };
    let half = |odd: u64| -> Vec<String> {
        (0..seeds).filter(|seed| seed % 2 == odd).filter_map(&broken).take(most).collect()
    };
    let begun = std::time::Instant::now();
    let broken = std::thread::scope(|threads| {
        let halves = [threads.spawn(|| half(0)), threads.spawn(|| half(1))];
        halves.map(|half| half.join().expect("a thread that plays")).concat()
    });
    println!("{seeds} seeds in {:.1?}", begun.elapsed());
    assert!(broken.is_empty(), "{} of {seeds} seeds:\n{}", broken.len(), broken.join("\n"));
}

/// Plays the seed that is asked for, if one is, and tells the run.
pub(crate) fn replay(play: impl Fn(u64) -> (Vec<String>, Result<Outcome, Violation>)) {
    let Some(seed) = number("AOP_SIM_SEED") else { return };
    let (story, played) = play(seed);
    println!("{}", story.join("\n"));
    println!("{played:#?}");
    if let Err(violation) = played {
        panic!("{violation}");
    }
}
