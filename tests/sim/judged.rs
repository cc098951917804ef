//! Questions in drawn trees of zones: every answer is judged by what the whole world knows.

use aop::proto::name::ZoneName;
use aop::proto::time::Timestamp;
use aop::sim::{
    Asked, Behaviour, Fault, Graph, Listing, RestartFrom, Setup, World, ZoneSetup, play_tree, play_tree_told,
};

use crate::actions::{offer, run};
use crate::seeds::{self, play_seeds};

/// Drawn worlds played by default.
const SEEDS: u64 = 20;

fn zone(name: &str) -> ZoneName {
    name.parse().expect("a zone's name")
}

/// Three nodes of the root, three of acme.org, three of other.net, each with an agent in its zone.
fn small(seed: u64) -> World {
    let of = |name: &str, members: std::ops::Range<usize>| ZoneSetup {
        name: zone(name),
        members: members.collect(),
        followers: Vec::new(),
    };
    let zones = vec![of(".", 0..3), of("acme.org", 3..6), of("other.net", 6..9)];
    let setup = Setup { nodes: 9, zones, graph: Graph::Whole, dialable: true, ..Setup::default() };
    let mut world = World::new(seed, setup);
    for node in 0..9 {
        world.start(node, RestartFrom::Disk);
        let home = world.member_of(node)[0].clone();
        world.submit_in(5_000, node, home, offer(&format!("agent-{node}"), "text"));
    }
    run(&mut world, 180_000);
    world
}

#[test]
fn every_answer_is_true_through_every_fault_and_complete_when_all_is_well() {
    play_seeds(SEEDS, "judged::replay", |seed| play_tree(seed).map(drop));
}

#[test]
fn replay() {
    seeds::replay(play_tree_told);
}

#[test]
fn a_question_is_counted_with_what_it_costs() {
    let mut world = small(1);
    for node in 0..6 {
        world.question_in(0, node, Asked::Agents(ZoneName::root()));
        world.question_in(10, node, Asked::Name("agent-3@acme.org".parse().expect("a full name")));
    }
    run(&mut world, 5_000);
    let counts = world.questions();
    assert_eq!((counts.searches, counts.complete, counts.names, counts.decided), (6, 6, 6, 6));
    // Who holds what is asked for sends nothing; the others ask the root, and nobody takes the question further.
    assert_eq!(counts.messages.len(), 12);
    assert!(counts.messages.iter().all(|messages| *messages <= 2), "{:?}", counts.messages);
    assert!(counts.asked.iter().sum::<u64>() >= 3 && counts.asked[3..].iter().sum::<u64>() <= 6);
    assert!(counts.took_ms.iter().all(|ms| *ms <= 400), "{:?}", counts.took_ms);
}

#[test]
fn lists_are_read_to_their_end_page_by_page_at_one_node_or_at_one_after_the_other() {
    let mut world = small(3);
    for (node, text, moves) in [(0, "", false), (3, "text", false), (5, "", true), (8, "text", true)] {
        let listing = Listing { zone: ZoneName::root(), text: text.into(), moves };
        world.question_in(0, node, Asked::Pages(listing));
    }
    run(&mut world, 10_000);
    let counts = world.questions();
    assert_eq!((counts.lists, counts.messages.len()), (4, 12), "nine agents are three pages");
}

/// Nodes of other zones ask after all of the root became such.
fn asked_of(seed: u64, behaviour: Behaviour, asked: &Asked) -> World {
    let mut world = small(seed);
    for node in 0..3 {
        world.fault(Fault::Corrupt(node, behaviour));
    }
    run(&mut world, 1_000);
    for node in 3..6 {
        world.question_in(0, node, asked.clone());
    }
    run(&mut world, 5_000);
    assert_eq!(world.questions().searches, 3);
    world
}

#[test]
fn who_knows_no_questions_is_no_answer_and_is_not_blamed() {
    let world = asked_of(4, Behaviour::Older, &Asked::Agents(ZoneName::root()));
    assert_eq!(world.questions().complete, 0, "{:?}", world.questions());
    assert!(world.adversary_report().blamed.is_empty());
}

#[test]
fn who_hides_what_lies_below_is_believed_where_nobody_else_is_asked() {
    let world = asked_of(5, Behaviour::Hide, &Asked::Agents("other.net".parse().expect("a zone")));
    assert_eq!(world.questions().wrong, 3, "{:?}", world.questions());
}

#[test]
fn what_liars_make_others_believe_is_counted_and_ends_no_run() {
    let world = asked_of(2, Behaviour::Hollow, &Asked::Agents(ZoneName::root()));
    assert_eq!(world.questions().wrong, 3, "{:?}", world.questions());
}

/// When each delegation that a node holds of a zone below the root was written.
fn delegated_at(world: &mut World, node: usize) -> Vec<Timestamp> {
    let (node, _) = world.node(node).expect("it is up");
    let root = node.zone(&ZoneName::root()).expect("a member of the root");
    root.registry().iter().filter(|it| it.delegation().is_some()).map(|it| it.stamp.wall).collect()
}

#[test]
fn a_delegation_that_a_liar_does_not_name_is_not_written_anew_at_every_walk() {
    let mut world = small(10);
    let before = delegated_at(&mut world, 0);
    assert_eq!(before.len(), 6);
    (0..3).for_each(|node| world.fault(Fault::Corrupt(node, Behaviour::Hollow)));
    run(&mut world, 300_000);
    assert_eq!(delegated_at(&mut world, 0), before);
}

/// A world of these zones, each with its members and a node that follows it, in which each node has an agent in its first zone.
fn world_of(seed: u64, zones: &[(&str, &[usize], Option<usize>)], halved: Option<&str>) -> World {
    let of = |(name, members, follower): &(&str, &[usize], Option<usize>)| ZoneSetup {
        name: zone(name),
        members: members.to_vec(),
        followers: follower.iter().copied().collect(),
    };
    let nodes = zones.iter().flat_map(|(_, members, _)| *members).max().map_or(0, |last| last + 1);
    let setup = Setup {
        nodes,
        zones: zones.iter().map(of).collect(),
        halved: halved.map(zone).into_iter().collect(),
        graph: Graph::Whole,
        dialable: true,
        ..Setup::default()
    };
    let mut world = World::new(seed, setup);
    for node in 0..nodes {
        world.start(node, RestartFrom::Disk);
        let home = world.member_of(node)[0].clone();
        world.submit_in(5_000, node, home, offer(&format!("agent-{node}"), "text"));
    }
    world
}

/// How many of three nodes of another zone are rightly told of the agent of the one honest node of the root, which speaks for
/// nothing, and of an agent of their own zone's neighbour, where all who speak for the root are such.
fn decided_of(behaviour: Behaviour) -> [u64; 2] {
    let zones: [(&str, &[usize], _); 3] =
        [(".", &[0, 1, 2, 3], None), ("acme.org", &[4, 5, 6], None), ("other.net", &[7, 8], None)];
    let mut world = world_of(11, &zones, None);
    run(&mut world, 180_000);
    let speaks = |world: &mut World, at: usize| {
        let (node, now) = world.node(at).expect("it is up");
        node.tree(now).iter().any(|zone| zone.is_gateway)
    };
    let silent = (0..4).find(|at| !speaks(&mut world, *at)).expect("three of four speak for it");
    (0..4).filter(|at| *at != silent).for_each(|at| world.fault(Fault::Corrupt(at, behaviour)));
    // A denial may be as old as a replica that is fresh.
    run(&mut world, 30_000);
    [format!("agent-{silent}@."), "agent-7@other.net".into()].map(|name| {
        let before = world.questions().decided;
        (4..7).for_each(|at| world.question_in(0, at, Asked::Name(name.parse().expect("a full name"))));
        run(&mut world, 5_000);
        world.questions().decided - before
    })
}

#[test]
fn who_hides_what_lies_below_tells_of_its_own_zone_and_who_is_hollow_of_nothing() {
    assert_eq!(decided_of(Behaviour::Hide), [3, 0]);
    assert_eq!(decided_of(Behaviour::Hollow), [0, 0], "to deny who is there is not to decide");
}

/// Some nodes ask, one after the other; how many answers were complete, and how many of these lacked something.
fn ask_all(world: &mut World, askers: std::ops::Range<usize>, asked: &str) -> (u64, u64) {
    let before = world.questions().clone();
    for node in askers {
        world.question_in(0, node, Asked::Agents(zone(asked)));
    }
    run(world, 5_000);
    let counts = world.questions();
    (counts.complete - before.complete, counts.wrong - before.wrong)
}

#[test]
fn without_a_root_nobody_claims_to_know_what_lies_below_a_zone_or_denies_it() {
    // Three gateways and a member that is none; those below find nobody to name their zone to.
    let zones: [(&str, &[usize], _); 2] =
        [("other.net", &[0, 1, 2, 3], None), ("team.other.net", &[4, 5], None)];
    let mut world = world_of(6, &zones, None);
    run(&mut world, 180_000);
    assert_eq!(ask_all(&mut world, 0..4, "other.net"), (0, 0));
    for node in 0..4 {
        world.question_in(0, node, Asked::Name("agent-4@team.other.net".parse().expect("a full name")));
    }
    run(&mut world, 5_000);
    assert_eq!((world.questions().names, world.questions().decided), (4, 0), "{:?}", world.questions());
}

#[test]
fn an_agent_is_demanded_wherever_some_know_no_questions_as_long_as_its_zone_can_be_known() {
    let mut world = small(7);
    // Two of the three that speak for it; what the third tells is hidden by all of the root.
    world.fault(Fault::Corrupt(6, Behaviour::Older));
    world.fault(Fault::Corrupt(7, Behaviour::Older));
    (0..3).for_each(|node| world.fault(Fault::Corrupt(node, Behaviour::Hide)));
    run(&mut world, 1_000);
    assert_eq!(ask_all(&mut world, 3..6, "other.net"), (3, 3));
}

#[test]
fn an_agent_of_a_zone_whose_gateways_all_know_no_questions_is_demanded_of_those_alone_that_serve_it() {
    // Node 4 holds what lies in the zone, and speaks for it as little as its members.
    let zones: [(&str, &[usize], _); 3] =
        [(".", &[0, 1], None), ("acme.org", &[2, 3, 4], None), ("lone.org", &[5, 6], Some(4))];
    let mut world = world_of(8, &zones, None);
    world.fault(Fault::Corrupt(5, Behaviour::Older));
    world.fault(Fault::Corrupt(6, Behaviour::Older));
    run(&mut world, 180_000);
    assert_eq!(ask_all(&mut world, 0..4, "."), (4, 0));
}

#[test]
fn an_agent_of_a_node_that_is_linked_with_none_that_know_questions_is_demanded_of_nobody_else() {
    // No link joins nodes of even and of odd number that are in far.net; the other one is linked with all.
    let zones: [(&str, &[usize], _); 3] =
        [(".", &[0, 2, 3], None), ("lone.org", &[1], None), ("far.net", &[0, 1, 2], None)];
    let mut world = world_of(9, &zones, Some("far.net"));
    world.fault(Fault::Corrupt(3, Behaviour::Older));
    run(&mut world, 180_000);
    assert_eq!(ask_all(&mut world, 0..1, "."), (1, 0));
    assert_eq!(ask_all(&mut world, 1..2, "lone.org"), (0, 0), "it cannot know what lies below");
}
