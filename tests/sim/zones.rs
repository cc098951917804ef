//! Several zones in one world: each is replicated by itself, also at a node that serves more than one.

use aop::proto::io::Role;
use aop::proto::name::ZoneName;
use aop::sim::{ClientOp, Fault, Graph, RestartFrom, Setup, World, ZoneSetup};

use crate::actions::{names, offer, run, settle};
use crate::seeds::{self, play_seeds};

/// Drawn worlds played by default.
const SEEDS: u64 = 60;

fn zone(name: &str) -> ZoneName {
    name.parse().expect("a zone's name")
}

#[test]
fn nodes_of_several_zones_keep_their_promises_in_each_through_every_fault() {
    play_seeds(SEEDS, "zones::replay", |seed| aop::sim::play_zoned(seed).map(drop));
}

#[test]
fn replay() {
    seeds::replay(aop::sim::play_zoned_told);
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

#[test]
fn a_node_that_joins_a_zone_hears_what_was_written_there_and_writes_there_itself() {
    let mut world = two_zones();
    world.submit_in(0, 3, zone("west.example"), offer("before", "text"));
    run(&mut world, 20_000);
    world.submit_in(0, 0, zone("west.example"), ClientOp::JoinZone(Role::Member));
    run(&mut world, 10_000);
    assert_eq!(sorted(&mut world, 0), ["before@west.example"], "by the first comparison");
    world.submit_in(0, 0, zone("west.example"), offer("guest", "text"));
    run(&mut world, 10_000);
    assert_eq!(sorted(&mut world, 4), ["before@west.example", "guest@west.example"], "over its mesh");
    // It is written into the settings: a restart does not undo it.
    world.fault(Fault::Crash { node: 0, from: RestartFrom::Disk, down_ms: 5_000 });
    settle(&mut world);
    assert_eq!(sorted(&mut world, 0), ["before@west.example", "guest@west.example"]);
}

#[test]
fn a_node_that_leaves_a_zone_forgets_it_and_is_forgotten_there() {
    let mut world = two_zones();
    for home in ["east.example", "west.example"] {
        world.submit_in(0, 2, zone(home), offer("both", "text"));
    }
    run(&mut world, 20_000);
    assert_eq!(sorted(&mut world, 3), ["both@west.example"]);
    world.submit_in(0, 2, zone("west.example"), ClientOp::LeaveZone);
    run(&mut world, 10_000);
    assert_eq!(sorted(&mut world, 2), ["both@east.example"]);
    assert_eq!(
        sorted(&mut world, 3),
        Vec::<String>::new(),
        "with its last words it withdrew what it offered"
    );
    world.submit_in(0, 3, zone("west.example"), offer("after", "text"));
    settle(&mut world);
    assert_eq!(sorted(&mut world, 2), ["both@east.example"], "nothing of that zone comes here any more");
}

#[test]
fn a_node_without_a_link_into_a_zone_finds_its_members() {
    let lone = ZoneSetup { name: zone("lone.example"), members: vec![11], followers: Vec::new() };
    let all = ZoneSetup { name: zone("."), members: (0..12).collect(), followers: Vec::new() };
    let setup = Setup { nodes: 12, graph: Graph::Random(2), zones: vec![all, lone], ..Setup::default() };
    let mut world = World::new(1, setup);
    for node in 0..12 {
        world.start(node, RestartFrom::Disk);
    }
    world.submit_in(5_000, 11, zone("lone.example"), offer("hermit", "text"));
    run(&mut world, 10_000);
    for node in 0..11 {
        world.submit_in(0, node, zone("lone.example"), ClientOp::JoinZone(Role::Follower));
    }
    run(&mut world, 20_000);
    for node in 0..11 {
        assert_eq!(sorted(&mut world, node), ["hermit@lone.example"], "node {node}");
    }
}
