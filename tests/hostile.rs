//! The protocol among hostile machines: drawn worlds, and one directed world for each kind of hostility.
//!
//! `AOP_SIM_SEEDS=1000` plays more drawn worlds, `AOP_SIM_SEED=7 … replay` plays one again.

use aop::proto::name::AgentName;
use aop::proto::registry::Quota;
use aop::sim::{Conditions, Conduct, Fault, Memory, Setup, Wish, World};

/// Drawn worlds played by default.
const SEEDS: u64 = 100;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn broken(seed: u64) -> Option<String> {
    match std::panic::catch_unwind(|| World::play_hostile(seed)) {
        Ok(Ok(_)) => None,
        Ok(Err(violation)) => Some(violation.to_string()),
        Err(_) => Some(format!("seed {seed} panicked")),
    }
}

#[test]
fn honest_nodes_keep_their_promises_among_hostile_ones() {
    let seeds = number("AOP_SIM_SEEDS").unwrap_or(SEEDS);
    let half = |odd: u64| {
        move || -> Vec<String> { (0..seeds).filter(|seed| seed % 2 == odd).filter_map(broken).collect() }
    };
    let (even, odd) = (std::thread::spawn(half(0)), std::thread::spawn(half(1)));
    let broken: Vec<String> =
        [even, odd].into_iter().flat_map(|thread| thread.join().expect("a thread that plays")).collect();
    assert!(broken.is_empty(), "{} of {seeds} seeds:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn replay() {
    let Some(seed) = number("AOP_SIM_SEED") else { return };
    let (story, played) = World::play_hostile_told(seed);
    println!("{}", story.join("\n"));
    println!("{played:#?}");
    if let Err(violation) = played {
        panic!("{violation}");
    }
}
