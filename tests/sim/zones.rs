//! Several zones in one world: each is replicated by itself, also at a node that serves more than one.
//!
//! `AOP_SIM_SEEDS=1000` plays more drawn worlds, `AOP_SIM_SEED=7 … zones::replay` plays one again.

use aop::proto::name::ZoneName;
use aop::sim::{Fault, RestartFrom, Setup, World, ZoneSetup};

use crate::actions::{names, number, offer, run, settle};

/// Drawn worlds played by default.
const SEEDS: u64 = 60;

fn zone(name: &str) -> ZoneName {
    name.parse().expect("a zone's name")
}

fn broken(seed: u64) -> Option<String> {
    match std::panic::catch_unwind(|| aop::sim::play_zoned(seed)) {
        Ok(Ok(_)) => None,
        Ok(Err(violation)) => {
            let replay = "cargo test --test sim -- --exact zones::replay --nocapture";
            Some(format!("{violation}; replay with AOP_SIM_SEED={seed} {replay}"))
        }
        Err(_) => Some(format!("seed {seed} panicked")),
    }
}

#[test]
fn nodes_of_several_zones_keep_their_promises_in_each_through_every_fault() {
    let seeds = number("AOP_SIM_SEEDS").unwrap_or(SEEDS);
    let broken: Vec<String> = (0..seeds).filter_map(broken).collect();
    assert!(broken.is_empty(), "{} of {seeds} seeds:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn replay() {
    let Some(seed) = number("AOP_SIM_SEED") else { return };
    let (log, played) = aop::sim::play_zoned_told(seed);
    println!("{}", log.join("\n"));
    println!("{played:#?}");
    if let Err(violation) = played {
        panic!("{violation}");
    }
}

/// Nodes 0 to 2 serve the east, 2 to 4 the west; 4 follows the east.
fn two_zones() -> World {
    let zones = vec![
        ZoneSetup { name: zone("east.example"), members: vec![0, 1, 2], followers: vec![4] },
        ZoneSetup { name: zone("west.example"), members: vec![2, 3, 4], followers: Vec::new() },
    ];
    let mut world = World::new(1, Setup { nodes: 5, zones, ..Setup::default() });
    for node in 0..5 {
        world.start(node, RestartFrom::Disk);
    }
    run(&mut world, 10_000);
    world
}

#[test]
fn a_node_of_two_zones_holds_both_and_carries_nothing_from_one_to_the_other() {
    let mut world = two_zones();
    for node in 0..5 {
        for zone in world.member_of(node).to_vec() {
            world.submit_in(0, node, zone, offer(&format!("agent-{node}"), "text"));
        }
    }
    run(&mut world, 20_000);
    world.fault(Fault::Part(vec![0, 0, 0, 1, 1]));
    run(&mut world, 20_000);
    world.submit_in(0, 0, zone("east.example"), offer("late", "text"));
    settle(&mut world);
    let east = ["agent-0@east.example", "agent-1@east.example", "agent-2@east.example", "late@east.example"];
    let west = ["agent-2@west.example", "agent-3@west.example", "agent-4@west.example"];
    for (node, zones) in [(0, vec![&east[..]]), (1, vec![&east]), (2, vec![&east, &west]), (3, vec![&west])] {
        assert_eq!(sorted(&mut world, node), zones.concat(), "node {node}");
    }
    assert_eq!(sorted(&mut world, 4), [&east[..], &west].concat(), "a follower holds what members offer");
}

#[test]
fn what_is_written_in_a_zone_is_sent_to_nobody_outside_of_it() {
    let mut world = two_zones();
    let before = world.metrics().copies;
    world.submit_in(0, 3, zone("west.example"), offer("agent", "text"));
    run(&mut world, 5_000);
    // Three nodes, each linked with the two others: the author sends two copies, each of the others one.
    assert_eq!(world.metrics().copies - before, 4);
}

/// Full names of all agents a node serves, in order.
fn sorted(world: &mut World, node: usize) -> Vec<String> {
    let mut names = names(world, node);
    names.sort_by_key(|name| name.split_once('@').map(|(agent, zone)| (zone.to_owned(), agent.to_owned())));
    names
}
