//! What others answered before, what they refer to, and how often anybody is asked.

use std::time::Duration;

use aop::proto::config::Config;
use aop::proto::io::{Command, Reply};
use aop::proto::query::{Answer, Find, QuestionCounts, Resolution, ZoneStatus};
use aop::proto::search::Query;
use aop::sim::{Graph, Setup, World, ZoneSetup};

use crate::actions::{offer, run};
use crate::tree::{agents, ask, find, tree_by};

/// A member of other.net.
const ASKER: usize = 7;

fn counts(world: &mut World, node: usize) -> QuestionCounts {
    world.node(node).expect("it is up").0.question_counts()
}

fn find_fresh(world: &mut World, node: usize) -> Answer {
    let find = Find { limit: 1_000, max_age: Duration::ZERO, ..Find::default() };
    match ask(world, node, Command::Find(find)) {
        Reply::Found(answer) => answer,
        other => panic!("{other:?}"),
    }
}

/// The age of what others told.
fn told_age(answer: &Answer) -> Option<Duration> {
    answer.zones.iter().filter(|it| it.by.is_some()).filter_map(|it| it.age).max()
}

fn statuses(answer: &Answer) -> Vec<ZoneStatus> {
    answer.zones.iter().map(|zone| zone.status).collect()
}

#[test]
fn an_equal_question_is_answered_from_what_others_said_until_that_is_too_old() {
    let mut world = tree_by(1, Config::default());
    run(&mut world, 180_000);
    let first = find(&mut world, ASKER, None);
    assert!(first.is_complete() && statuses(&first).contains(&ZoneStatus::Answered), "{:?}", first.zones);
    let asked = counts(&mut world, ASKER).asked;
    run(&mut world, 1_000);
    let again = find(&mut world, ASKER, None);
    assert_eq!(counts(&mut world, ASKER).asked, asked, "nobody is asked again");
    assert!(again.is_complete() && statuses(&again).contains(&ZoneStatus::Cached), "{:?}", again.zones);
    assert_eq!(agents(&again), agents(&first));
    let second = Duration::from_secs(1);
    assert!(told_age(&again) >= told_age(&first).map(|age| age + second), "ages are added up");
    // Who wants to know what is so now asks again, and so does everybody once it is old.
    assert!(find_fresh(&mut world, ASKER).is_complete());
    assert!(counts(&mut world, ASKER).asked > asked);
    let asked = counts(&mut world, ASKER).asked;
    run(&mut world, 26_000);
    let later = find(&mut world, ASKER, None);
    assert!(counts(&mut world, ASKER).asked > asked && later.is_complete(), "{:?}", later.zones);
}

#[test]
fn what_is_written_elsewhere_is_found_within_a_round_of_comparisons_however_often_one_asks() {
    let mut world = tree_by(3, Config::default());
    run(&mut world, 180_000);
    assert_eq!(agents(&find(&mut world, ASKER, None)).len(), 9);
    let home = world.member_of(2)[0].clone();
    world.submit_in(0, 2, home, offer("late", "text"));
    let mut waited = 0;
    while agents(&find(&mut world, ASKER, None)).len() < 10 {
        run(&mut world, 500);
        waited += 500;
        assert!(waited <= 30_000, "not found after {waited} ms");
    }
    // By its name it is found at once: that there is no such agent is kept by nobody.
    let name = |text: &str| Command::Resolve(text.to_owned());
    let unknown = ask(&mut world, ASKER, name("later@acme.org"));
    assert!(matches!(unknown, Reply::Resolved(Resolution::Unknown)), "{unknown:?}");
    let home = world.member_of(2)[0].clone();
    world.submit_in(0, 2, home, offer("later", "text"));
    run(&mut world, 1_500);
    let known = ask(&mut world, ASKER, name("later@acme.org"));
    assert!(matches!(known, Reply::Resolved(Resolution::One(_))), "{known:?}");
}

#[test]
fn an_agent_of_another_zone_is_known_by_its_id() {
    let mut world = tree_by(4, Config::default());
    run(&mut world, 180_000);
    let id = find(&mut world, ASKER, None).found[0].id;
    assert!(world.node(5).is_some_and(|(node, now)| node.agent(now, &id).is_none()), "it is not held there");
    let known = ask(&mut world, 5, Command::Resolve(id.to_string()));
    assert!(matches!(&known, Reply::Resolved(Resolution::One(found)) if found.id == id), "{known:?}");
    let nobody = "a".repeat(32);
    let unknown = ask(&mut world, 5, Command::Resolve(nobody));
    assert!(matches!(unknown, Reply::Resolved(Resolution::Unknown)), "{unknown:?}");
}

#[test]
fn a_gateway_without_room_refers_and_the_asker_asks_itself() {
    let mut world = tree_by(5, Config { room_below: 0, ..Config::default() });
    run(&mut world, 180_000);
    let root = find(&mut world, 0, None);
    assert!(!root.is_complete(), "it follows nothing: {:?}", root.zones);
    let answer = find(&mut world, ASKER, None);
    assert_eq!(agents(&answer).len(), 9, "{:?}", answer.zones);
    assert!(answer.is_complete(), "{:?}", answer.zones);
}

#[test]
fn what_one_member_asked_its_gateway_tells_another() {
    let of = |name: &str, members: std::ops::Range<usize>| ZoneSetup {
        name: name.parse().expect("a zone"),
        members: members.collect(),
        followers: Vec::new(),
    };
    let zones = vec![of(".", 0..2), of("acme.org", 2..10)];
    let setup = Setup { nodes: 10, zones, graph: Graph::Whole, dialable: true, ..Setup::default() };
    let mut world = World::new(6, setup);
    for node in 0..10 {
        world.start(node, aop::sim::RestartFrom::Disk);
        let home = world.member_of(node)[0].clone();
        world.submit_in(5_000, node, home, offer(&format!("agent-{node}"), "text"));
    }
    run(&mut world, 180_000);
    let is_gateway = |world: &mut World, node: usize| {
        let (node, now) = world.node(node).expect("it is up");
        node.tree(now).iter().any(|zone| zone.is_gateway)
    };
    let others: Vec<usize> = (2..10).filter(|node| !is_gateway(&mut world, *node)).collect();
    assert_eq!(others.len(), 5, "three speak for the zone");
    let find = |world: &mut World, node: usize, text: &str| {
        let query = Query { text: text.into(), ..Query::default() };
        let find = Find { query, limit: 10, max_age: Duration::from_secs(300), ..Find::default() };
        match ask(world, node, Command::Find(find)) {
            Reply::Found(answer) => answer,
            other => panic!("{other:?}"),
        }
    };
    for (node, text) in others.iter().zip(["The text", "text", " TEXT text", "text", "text"]) {
        let answer = find(&mut world, *node, text);
        assert!(answer.is_complete() && answer.found.len() == 10, "{:?}", answer.zones);
    }
    let (hits, asked) = (2..10).fold((0, 0), |(hits, asked), node| {
        let counts = counts(&mut world, node);
        (hits + counts.l2.hits, asked + counts.asked_for_peers)
    });
    assert!(asked <= 3 && hits >= 2 && hits + asked == 5, "{hits} {asked}");
    // What it was told has grown older since.
    let first = find(&mut world, others[0], "agent");
    run(&mut world, 10_000);
    let later = find(&mut world, others[1], "agent");
    let aged = told_age(&first).map(|age| age + Duration::from_secs(10));
    assert!(told_age(&later) >= aged, "{:?} {:?}", first.zones, later.zones);
}

#[test]
fn every_node_sees_the_whole_tree() {
    let mut world = tree_by(8, Config::default());
    run(&mut world, 180_000);
    for node in 0..9 {
        let Reply::Tree(tree) = ask(&mut world, node, Command::Tree) else { panic!("no tree") };
        let shown: Vec<String> = tree
            .iter()
            .map(|it| format!("{} {} {:?}", it.id, it.agents, it.parent.as_ref().map(ToString::to_string)))
            .collect();
        let expected = [
            ". 2 None",
            "other.net 2 Some(\".\")",
            "acme.org 3 Some(\".\")",
            "research.acme.org 2 Some(\"acme.org\")",
        ];
        assert_eq!(shown, expected, "node {node}");
        assert!(tree.iter().all(|it| it.status.is_fine() && it.age.is_some()), "{node} {tree:?}");
        assert!(tree.iter().all(|it| it.role.is_some() != it.by.is_some()), "{node} {tree:?}");
        assert!(tree.iter().all(|it| !it.gateways.is_empty()), "{node} {tree:?}");
    }
}

/// One ranking of the world: the ten best, in their order and with their scores, from a gateway that holds all, from members
/// of other zones that ask, and page after page.
#[test]
fn a_gateway_a_member_and_one_that_holds_all_rank_alike() {
    let mut world = tree_by(11, Config::default());
    let descriptions = [
        "Books cheap flights and hotels",
        "Accepts credit card payments online",
        "Sends email to customers",
        "Reads invoices and receipts",
        "Weather forecast for any city",
        "sendEmail through a mail server",
        "Charges customers and refunds them",
        "Finds trains, flights and ferries",
        "Answers mail of an inbox",
        "Keeps a GitHub repository tidy",
        "Plans routes for drivers",
        "Stores notes and searches them",
    ];
    for (at, description) in descriptions.iter().cycle().take(48).enumerate() {
        let node = at % 9;
        let home = world.member_of(node)[0].clone();
        world.submit_in(5_000, node, home, offer(&format!("agent-{node}-{at}"), description));
    }
    run(&mut world, 240_000);
    let mut page = |node: usize, text: &str, limit: usize| -> Vec<(String, u32)> {
        let query = Query { text: text.into(), ..Query::default() };
        let (mut after, mut ranking) = (None, Vec::new());
        while ranking.len() < 10 {
            let find = Find { query: query.clone(), limit, after, ..Find::default() };
            let Reply::Found(answer) = ask(&mut world, node, Command::Find(find)) else {
                panic!("no answer")
            };
            assert!(answer.is_complete(), "{node}: {:?}", answer.zones);
            let hits = answer.found.iter();
            ranking.extend(hits.map(|found| (found.record.name.to_string(), found.score.to_bits())));
            after = answer.next;
            if after.is_none() {
                break;
            }
        }
        ranking.truncate(10);
        ranking
    };
    for text in ["charge a credit card", "send an emial", "cheap flihgts", "git hub", "take payments", "mail"]
    {
        let whole = page(0, text, 10);
        assert!(whole.len() > 3, "{text}: {whole:?}");
        for node in [1, 2, 4, 5, 6, 7, 8] {
            assert_eq!(page(node, text, 10), whole, "{text} at {node}");
        }
        assert_eq!(page(ASKER, text, 3), whole, "{text} in pages of three");
    }
}
