//! The tight epidemic model: up to 10^7 nodes, no content, no clocks.
//!
//! A node is what it holds, a message is twelve bytes. One update in synchronous rounds on the complete graph (`rounds`)
//! is what the literature's formulas speak of; everything else is played event by event in virtual time (`world`), with
//! the same rounds where links have no latency. A run is one thread's work and a function of its seed: all randomness is
//! counted (`counter_rng`), and what is due at the same tick happens in the order in which it was sent.
//!
//! Files below: `rounds`; `world` with its parts `event`, `timing_wheel` (what is due), `graph` (who has links), `links` (how
//! long and how lossy), `transport` (messages and their accounts), `update_bitmap` (who has what), `timer` (what nodes do
//! periodically), `faults` (faults); `run_metrics` (what is measured).

mod agreement;
mod counter_rng;
mod event;
mod faults;
mod graph;
mod links;
mod rounds;
mod run_metrics;
mod timer;
mod timing_wheel;
mod transport;
mod update_bitmap;
mod world;

use std::time::Duration;

use super::measure::Measured;
use super::scenario::{Scenario, SpreadProtocol};
use event::{NODES_MAX, UPDATES_MAX};
use faults::ticks;

/// Length of a round where the scenario gives none.
const INTERVAL: Duration = Duration::from_secs(1);
/// Virtual time after which a run ends where the scenario does not say when.
const UNTIL: Duration = Duration::from_secs(60);

/// Plays one run of a cell.
///
/// # Panics
///
/// With 2^30 nodes or 2^24 updates and more: they do not fit into the numbers that messages carry.
pub fn play(scenario: &Scenario, seed: u64) -> Measured {
    let network = &scenario.network;
    assert!(network.nodes < NODES_MAX, "the model plays fewer than {NODES_MAX} nodes");
    assert!(scenario.workload.updates < UPDATES_MAX, "the model plays fewer than {UPDATES_MAX} updates");
    let in_rounds = network.regions.is_none() && network.latency.is_none();
    // `rounds` takes a fraction of the memory, and knows neither faults nor a second update.
    let alone = scenario.workload.updates == 1
        && scenario.faults.is_empty()
        && scenario.protocol.anti_entropy.every.is_none();
    if in_rounds && alone && scenario.protocol.kind != SpreadProtocol::Mesh {
        let rounds_max = scenario.until.map(|until| ticks(until) / interval(scenario));
        return rounds::play(scenario, seed, rounds_max);
    }
    world::play(scenario, seed, ticks(scenario.until.unwrap_or(UNTIL)))
}

/// Length of a round, ticks.
fn interval(scenario: &Scenario) -> u64 {
    // A round takes two ticks: one in which it is sent, one in which it arrives.
    ticks(scenario.protocol.interval.unwrap_or(INTERVAL)).max(2)
}
