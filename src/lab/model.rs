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
use event::{Event, NODES_MAX, UPDATES_MAX};
use faults::ticks;
use timing_wheel::{Queue, TimingWheel};

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
    let alone = scenario.workload.updates == 1
        && scenario.faults.is_empty()
        && scenario.protocol.anti_entropy.every.is_none();
    if in_rounds && alone && scenario.protocol.kind != SpreadProtocol::Mesh {
        let rounds_max = scenario.until.map(|until| ticks(until) / interval(scenario));
        return rounds::play(scenario, seed, rounds_max);
    }
    play_on::<TimingWheel<Event>>(scenario, seed)
}

fn play_on<Q: Queue<Event>>(scenario: &Scenario, seed: u64) -> Measured {
    world::play::<Q>(scenario, seed, ticks(scenario.until.unwrap_or(UNTIL)))
}

/// Length of a round, ticks.
fn interval(scenario: &Scenario) -> u64 {
    // A round takes two ticks: one in which it is sent, one in which it arrives.
    ticks(scenario.protocol.interval.unwrap_or(INTERVAL)).max(2)
}

#[cfg(test)]
mod tests {
    use super::timing_wheel::Heap;
    use super::*;
    use crate::lab::scenario::Document;

    #[test]
    fn a_run_is_the_same_on_the_wheel_and_on_a_plain_heap() {
        let faults = "
            [[fault]]
            kind = 'churn'
            at = '1s'
            share = 0.2
            mean_off = '3s'
            [[fault]]
            kind = 'partition'
            at = '2s'
            groups = 2
            lasts = '5s'";
        let mesh =
            "degree = 6\nanti_entropy = { every = '5s', on_join = true }\n[workload]\nupdates = 9\nrate = 1";
        let push = "rounds = 3\ninterval = '2s'\nanti_entropy = { every = '1s' }\n[workload]\nupdates = 9\nauthors = 3";
        for (network, kind, protocol) in [
            ("regions = 'cloud-8'\nloss = { rate = 0.2 }", "mesh", mesh),
            ("latency = { least = '1ms', most = '4s' }", "mesh", mesh),
            ("latency = '30ms'\nloss = { rate = 0.2, mode = 'retransmit' }", "push", push),
            ("loss = { rate = 0.2 }", "push", push),
            ("", "pushpull", push),
        ] {
            let head = "name = 'a'\nquestion = 'b'\nclaim = 'c'\ntier = 'model'\n[network]\nnodes = 300";
            let text = format!("{head}\n{network}\n[protocol]\nkind = '{kind}'\n{protocol}\n{faults}");
            let scenario = Document::read(&text, &[]).unwrap().scenario;
            let measured = play(&scenario, 7);
            assert!(measured.metrics["coverage"] > 0.5, "{text}: {:?}", measured.metrics);
            assert_eq!(measured, play_on::<Heap<Event>>(&scenario, 7), "{text}");
        }
    }
}
