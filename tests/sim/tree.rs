//! The tree of zones: gateways that follow what lies below theirs, found by a walk from the root.

use std::time::Duration;

use aop::proto::config::Config;
use aop::proto::io::{Command, Reply};
use aop::proto::name::ZoneName;
use aop::proto::query::{Answer, Find, Resolution, ZoneStatus};
use aop::proto::search::Query;
use aop::sim::{Fault, Graph, Outcome, RestartFrom, Setup, Violation, World, ZoneSetup};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::actions::{offer, run};
use crate::seeds::{self, play_seeds};

/// Drawn worlds played by default.
const SEEDS: u64 = 12;

fn zone(name: &str) -> ZoneName {
    name.parse().expect("a zone's name")
}

/// Two nodes of the root, three of acme.org, two of research.acme.org, two of other.net.
fn tree(seed: u64) -> World {
    tree_by(seed, Config::default())
}

/// The same by other settings.
pub(crate) fn tree_by(seed: u64, config: Config) -> World {
    let of = |name: &str, members: std::ops::Range<usize>| ZoneSetup {
        name: zone(name),
        members: members.collect(),
        followers: Vec::new(),
    };
    let zones =
        vec![of(".", 0..2), of("acme.org", 2..5), of("research.acme.org", 5..7), of("other.net", 7..9)];
    // The two of the root know each other: who they are comes from settings, and no zone above could tell them.
    let graph = Graph::Whole;
    let mut world =
        World::new(seed, Setup { nodes: 9, config, zones, graph, dialable: true, ..Setup::default() });
    for node in 0..9 {
        world.start(node, RestartFrom::Disk);
    }
    for node in 0..9 {
        let home = world.member_of(node)[0].clone();
        world.submit_in(5_000, node, home, offer(&format!("agent-{node}"), "text"));
    }
    world
}

/// Asks a node, and lets time pass until it answers.
pub(crate) fn find(world: &mut World, node: usize, zone: Option<&str>) -> Answer {
    let query = Query { zone: zone.map(|zone| zone.parse().expect("a zone")), ..Query::default() };
    match ask(world, node, Command::Find(Find { query, limit: 1_000, ..Find::default() })) {
        Reply::Found(answer) => answer,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn ask(world: &mut World, node: usize, command: Command) -> Reply {
    let number = world.ask(node, command);
    for _ in 0..40 {
        if let Some(reply) = world.take_reply(number) {
            return reply;
        }
        run(world, 100);
    }
    panic!("no answer of node {node}");
}

pub(crate) fn agents(answer: &Answer) -> Vec<String> {
    let mut names: Vec<String> =
        answer.found.iter().map(|found| found.record.name.agent.to_string()).collect();
    names.sort();
    names
}

#[test]
fn the_gateways_of_a_zone_answer_for_all_that_lies_below() {
    let mut world = tree(1);
    run(&mut world, 180_000);
    for (node, of, count) in
        [(0, ".", 9), (1, ".", 9), (2, "acme.org", 5), (4, "acme.org", 5), (5, "research.acme.org", 2)]
    {
        let answer = find(&mut world, node, Some(of));
        assert_eq!(agents(&answer).len(), count, "node {node}: {:?}", answer.zones);
        assert!(answer.is_complete(), "node {node}: {:?}", answer.zones);
        assert!(answer.age().is_some_and(|age| age.as_secs() < 120), "{:?}", answer.age());
    }
    let below: Vec<ZoneStatus> = find(&mut world, 0, None).zones.iter().map(|zone| zone.status).collect();
    assert_eq!(below, [ZoneStatus::Held; 4]);
}

#[test]
fn every_node_answers_for_the_whole_world() {
    let mut world = tree(1);
    run(&mut world, 180_000);
    for node in 0..9 {
        let answer = find(&mut world, node, None);
        assert_eq!(agents(&answer).len(), 9, "node {node}: {:?}", answer.zones);
        assert!(answer.is_complete(), "node {node}: {:?}", answer.zones);
        for other in 0..9 {
            let home = world.member_of(other)[0].clone();
            let text = format!("agent-{other}@{home}");
            let reply = ask(&mut world, node, Command::Resolve(text.clone()));
            let is_it = matches!(&reply, Reply::Resolved(Resolution::One(found)) if found.record.name.to_string() == text);
            assert!(is_it, "{node} {text} {reply:?}");
        }
        for text in ["nobody@other.net", "nobody@nowhere.net", "nobody"] {
            let reply = ask(&mut world, node, Command::Resolve(text.into()));
            assert!(matches!(reply, Reply::Resolved(Resolution::Unknown)), "{node} {text} {reply:?}");
        }
    }
}

#[test]
fn a_zone_that_dies_is_named_and_what_lies_below_it_goes_on() {
    let mut world = tree(2);
    run(&mut world, 180_000);
    for node in 2..5 {
        world.fault(Fault::Crash { node, from: RestartFrom::Disk, down_ms: 400_000 });
    }
    run(&mut world, 45_000);
    let answer = find(&mut world, 7, None);
    assert!(!answer.is_complete() && agents(&answer).len() == 9, "it is told, and what it had is shown");
    run(&mut world, 155_000);
    let answer = find(&mut world, 0, None);
    let status = |name: &str| answer.zones.iter().find(|it| it.zone == zone(name)).map(|it| it.status);
    assert!(!answer.is_complete());
    assert!(status("acme.org") != Some(ZoneStatus::Held), "{:?}", answer.zones);
    assert_eq!(status("research.acme.org"), Some(ZoneStatus::Held), "it is delegated at the root by now");
    assert!(
        agents(&answer).contains(&"agent-5".to_owned()) && agents(&answer).contains(&"agent-6".to_owned())
    );
    run(&mut world, 400_000);
    let answer = find(&mut world, 0, None);
    assert!(answer.is_complete() && agents(&answer).len() == 9, "{:?} {:?}", answer.zones, agents(&answer));
}

#[test]
fn a_zone_whose_members_all_end_well_is_named_no_more_and_again_when_they_are_back() {
    let mut world = tree(3);
    run(&mut world, 180_000);
    for node in 7..9 {
        assert_eq!(ask(&mut world, node, Command::Leave), Reply::Left);
    }
    run(&mut world, 300);
    for node in 7..9 {
        world.fault(Fault::Crash { node, from: RestartFrom::Disk, down_ms: 120_000 });
    }
    run(&mut world, 30_000);
    let answer = find(&mut world, 3, None);
    assert!(answer.is_complete() && agents(&answer).len() == 7, "{:?}", answer.zones);
    assert!(answer.zones.iter().all(|it| it.zone != zone("other.net")), "{:?}", answer.zones);
    run(&mut world, 200_000);
    let answer = find(&mut world, 3, None);
    assert!(answer.is_complete() && agents(&answer).len() == 9, "{:?}", answer.zones);
}

/// A wrong `complete` is one without an agent that was acknowledged long before what the answer says it holds.
fn play(seed: u64) -> Result<Outcome, Violation> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut world = tree(seed);
    world.run(120_000)?;
    for _ in 0..rng.random_range(3..7) {
        let zone = [0..2, 2..5, 5..7, 7..9][rng.random_range(0..4)].clone();
        // One node, or all of a zone at once; what it wrote comes back with its disk, or not at all.
        let nodes: Vec<usize> = if rng.random() { zone.collect() } else { vec![rng.random_range(0..9)] };
        let down_ms = rng.random_range(5_000..150_000);
        for node in nodes {
            world.fault(Fault::Crash { node, from: RestartFrom::Disk, down_ms });
        }
        for _ in 0..40 {
            world.run(rng.random_range(500..4_000))?;
            let node = rng.random_range(0..9);
            if !world.is_up(node) {
                continue;
            }
            let answer = find(&mut world, node, None);
            let missing = 9 - agents(&answer).len();
            let long_ago = answer.age().is_some_and(|age| age < Duration::from_secs(60));
            assert!(
                missing == 0 || !(answer.is_complete() && long_ago),
                "seed {seed}: node {node} calls complete what lacks {missing} at {} ms: {:?}",
                world.now_ms(),
                answer.zones
            );
        }
    }
    // Whatever happened: two minutes after the last of it every node answers for all.
    world.run(400_000)?;
    for node in 0..9 {
        let answer = find(&mut world, node, None);
        assert!(
            answer.is_complete() && agents(&answer).len() == 9,
            "seed {seed}: node {node}: {:?}",
            answer.zones
        );
    }
    Ok(world.outcome())
}

#[test]
fn no_answer_is_complete_without_an_agent_and_all_are_when_everybody_is_back() {
    play_seeds(SEEDS, "tree::replay", |seed| play(seed).map(drop));
}

#[test]
fn replay() {
    seeds::replay(|seed| (Vec::new(), play(seed)));
}
