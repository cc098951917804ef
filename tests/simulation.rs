//! The protocol under faults: many seeds, each a world of its own.
//!
//! `AOP_SIM_SEEDS=1000` plays more of them, `AOP_SIM_SEED=7 … replay` plays one again.

use aop::sim::{Outcome, Violation, World};

/// Seeds played by default: less than a minute unoptimised on two cores.
const SEEDS: u64 = 40;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Plays seeds on two threads; what broke.
fn play_all(seeds: u64) -> Vec<String> {
    let half = |odd: u64| {
        move || -> Vec<String> { (0..seeds).filter(|seed| seed % 2 == odd).filter_map(broken).collect() }
    };
    let (even, odd) = (std::thread::spawn(half(0)), std::thread::spawn(half(1)));
    [even, odd].into_iter().flat_map(|thread| thread.join().expect("a thread that plays")).collect()
}

/// What broke in one run; a panic of the node is one more way to break.
fn broken(seed: u64) -> Option<String> {
    match std::panic::catch_unwind(|| World::play(seed)) {
        Ok(Ok(_)) => None,
        Ok(Err(violation)) => Some(violation.to_string()),
        Err(_) => Some(format!("seed {seed} panicked")),
    }
}

#[test]
fn five_nodes_keep_their_promises_through_every_fault() {
    let seeds = number("AOP_SIM_SEEDS").unwrap_or(SEEDS);
    let begun = std::time::Instant::now();
    let broken = play_all(seeds);
    println!("{seeds} seeds in {:.1?}", begun.elapsed());
    assert!(broken.is_empty(), "{} of {seeds} seeds:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn replay() {
    let played: Option<Result<Outcome, Violation>> = number("AOP_SIM_SEED").map(World::play);
    println!("{played:#?}");
    if let Some(Err(violation)) = played {
        panic!("{violation}");
    }
}
