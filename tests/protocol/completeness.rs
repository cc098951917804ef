//! What an answer says of itself: nobody calls complete what may lack something, and no stranger makes it incomplete.

use std::time::Duration;

use aop::proto::config::Config;
use aop::proto::io::{Command, Dialed, Input, Reply};
use aop::proto::name::ZoneName;
use aop::proto::query::{Answer, Find, Resolution, ZoneStatus};

use crate::rules::beacon;
use crate::rules::cluster::{Cluster, SECOND, key, offer};

const MINUTE: Duration = Duration::from_secs(60);

fn given_peers() -> Config {
    Config { expects_peers: true, ..Config::default() }
}

fn find(cluster: &mut Cluster, at: usize, zone: &ZoneName) -> Answer {
    let query = aop::proto::search::Query { zone: Some(zone.clone()), ..Default::default() };
    match cluster.command(at, Command::Find(Find { query, limit: 10, ..Find::default() })) {
        Reply::Found(answer) => answer,
        other => panic!("{other:?}"),
    }
}

/// What its own replica of the root zone is worth, and the seconds since which something may be missing; where nobody better
/// is there to be asked, an answer is worth as much.
fn answered(cluster: &mut Cluster, at: usize) -> (ZoneStatus, Option<u64>) {
    let now = cluster.clock(at);
    let own = cluster.nodes[at].zone_answer(&ZoneName::root(), now).unwrap();
    let answer = find(cluster, at, &ZoneName::root());
    assert!(answer.is_complete() || own.status != ZoneStatus::Held);
    if answer.zones.iter().all(|zone| zone.by.is_none()) {
        assert_eq!(answer.is_complete(), own.status == ZoneStatus::Held);
        assert_eq!(answer.age(), own.age);
    }
    (own.status, own.age.map(|age| age.as_secs()))
}

fn is_held(cluster: &mut Cluster, at: usize) -> bool {
    answered(cluster, at).0 == ZoneStatus::Held
}

/// Whether members are known to have written more than is held.
fn lags(cluster: &mut Cluster, at: usize) -> bool {
    let now = cluster.clock(at);
    cluster.nodes[at].zone_states(now)[0].lagging_since.is_some()
}

#[test]
fn a_node_that_was_given_peers_calls_nothing_complete_before_its_first_sync() {
    let mut cluster = Cluster::with(vec![given_peers(), Config::default()]);
    cluster.register(1, offer("hers", "text")).unwrap();
    cluster.register(0, offer("own", "text")).unwrap();
    for _ in 0..3 {
        assert_eq!(answered(&mut cluster, 0), (ZoneStatus::Unreachable, None));
        assert_eq!(
            find(&mut cluster, 0, &ZoneName::root()).found.len(),
            1,
            "what it holds is told all the same"
        );
        let asked = cluster.command(0, Command::Resolve("hers".into()));
        assert_eq!(asked, Reply::Resolved(Resolution::NotSynced));
        cluster.pass(MINUTE);
        // One that connects and serves nothing, one that serves the zone and never answers.
        cluster.give(0, Input::Connected { peer: key(5), dialed: Dialed::ByThem });
        cluster.give(0, Input::PeerJoined { peer: key(6), zone: ZoneName::root(), dialed: Dialed::ByThem });
    }
    cluster.link(0, 1);
    assert_eq!(answered(&mut cluster, 0), (ZoneStatus::Held, Some(0)));
    assert_eq!(find(&mut cluster, 0, &ZoneName::root()).found.len(), 2);
}

#[test]
fn an_answer_ages_from_the_last_sync_and_is_stale_when_three_are_missed() {
    let mut cluster = Cluster::with(vec![given_peers(), Config::default()]);
    cluster.link(0, 1);
    cluster.pass(SECOND * 15);
    assert_eq!(answered(&mut cluster, 0), (ZoneStatus::Held, Some(10)), "a joiner looks again after 5 s");
    cluster.pass(MINUTE * 10);
    let (status, age) = answered(&mut cluster, 0);
    assert!(status == ZoneStatus::Held && age.unwrap() <= 36, "{age:?}");
    cluster.cut(0, 1);
    cluster.pass(SECOND * (89 - age.unwrap() as u32));
    assert_eq!(answered(&mut cluster, 0), (ZoneStatus::Held, Some(89)));
    cluster.pass(SECOND * 2);
    assert_eq!(answered(&mut cluster, 0), (ZoneStatus::Stale, Some(91)));
    cluster.pass(MINUTE * 60);
    assert_eq!(answered(&mut cluster, 0), (ZoneStatus::Stale, Some(91 + 3600)));
    cluster.link(0, 1);
    cluster.pass(SECOND * 40);
    assert_eq!(
        answered(&mut cluster, 0).0,
        ZoneStatus::Stale,
        "a third may have written, and neither may speak for it"
    );
    cluster.pass(MINUTE);
    assert!(is_held(&mut cluster, 0));
}

#[test]
fn who_lost_its_disk_speaks_for_nobody_until_it_met_one_who_may() {
    let mut cluster = Cluster::with(vec![given_peers(), given_peers(), Config::default()]);
    cluster.link(0, 1);
    cluster.pass(MINUTE);
    assert!([0, 1].into_iter().all(|at| answered(&mut cluster, at) == (ZoneStatus::Unreachable, None)));
    cluster.link(1, 2);
    assert!(is_held(&mut cluster, 1) && !is_held(&mut cluster, 0));
    cluster.pass(SECOND * 36);
    assert!(is_held(&mut cluster, 0), "by the next comparison");
}

#[test]
fn where_all_start_at_once_a_while_of_company_has_to_do() {
    let mut cluster = Cluster::with(vec![given_peers(), given_peers()]);
    cluster.link(0, 1);
    cluster.pass(SECOND * 70);
    assert!(!is_held(&mut cluster, 0) && !is_held(&mut cluster, 1));
    cluster.pass(SECOND * 42);
    assert!(is_held(&mut cluster, 0) && is_held(&mut cluster, 1));
    cluster.pass(MINUTE * 10);
    assert!(is_held(&mut cluster, 0) && is_held(&mut cluster, 1));
}

#[test]
fn a_follower_makes_nobody_whole_and_keeps_no_member_from_being_so() {
    let follower = Config { zones: Vec::new(), follows: vec![ZoneName::root()], ..given_peers() };
    let mut cluster = Cluster::with(vec![Config::default(), follower]);
    cluster.link(1, 0);
    cluster.pass(MINUTE * 10);
    assert!(is_held(&mut cluster, 0) && is_held(&mut cluster, 1));
}

#[test]
fn a_peer_that_never_answers_keeps_nobody_complete() {
    for config in [given_peers(), Config::default()] {
        let mut cluster = Cluster::with(vec![config, Config::default()]);
        cluster.link(0, 1);
        cluster.cut(0, 1);
        cluster.give(0, Input::PeerJoined { peer: key(6), zone: ZoneName::root(), dialed: Dialed::ByThem });
        cluster.pass(SECOND * 91);
        assert_eq!(answered(&mut cluster, 0), (ZoneStatus::Stale, Some(91)));
    }
}

#[test]
fn the_first_of_a_world_is_complete_until_somebody_comes_and_again_when_all_have_said_goodbye() {
    let mut cluster = Cluster::new(3);
    cluster.pass(MINUTE * 60);
    assert_eq!(answered(&mut cluster, 0), (ZoneStatus::Held, Some(0)));
    cluster.give(0, Input::PeerJoined { peer: key(6), zone: ZoneName::root(), dialed: Dialed::ByThem });
    cluster.pass(SECOND * 90);
    assert_eq!(answered(&mut cluster, 0), (ZoneStatus::Held, Some(90)), "what came later may be missing");
    cluster.pass(SECOND);
    assert_eq!(answered(&mut cluster, 0), (ZoneStatus::Stale, Some(91)));
    cluster.link(1, 0);
    cluster.pass(MINUTE);
    assert!(is_held(&mut cluster, 0));
    cluster.give(0, Input::PeerLeft { peer: key(6), zone: None });
    cluster.command(1, Command::Leave);
    cluster.cut(0, 1);
    cluster.pass(MINUTE * 2);
    assert_eq!(answered(&mut cluster, 0).0, ZoneStatus::Stale, "one was lost without a goodbye");
    cluster.link(2, 0);
    cluster.pass(MINUTE);
    cluster.command(2, Command::Leave);
    cluster.cut(0, 2);
    cluster.pass(MINUTE * 60);
    assert_eq!(answered(&mut cluster, 0), (ZoneStatus::Held, Some(0)));
}

#[test]
fn the_first_of_a_zone_is_complete_once_the_world_is_reached_and_nobody_serves_it() {
    let acme: ZoneName = "acme.org".parse().unwrap();
    let config = Config { zones: vec![acme.clone()], ..given_peers() };
    let mut cluster = Cluster::with(vec![config]);
    let status = |cluster: &mut Cluster| {
        let answer = find(cluster, 0, &acme);
        assert!(!answer.is_complete(), "what lies below it those above it may know");
        answer.zones.iter().find(|it| it.zone == acme).unwrap().status
    };
    cluster.give(0, Input::Connected { peer: key(5), dialed: Dialed::ByThem });
    cluster.pass(MINUTE);
    assert_eq!(status(&mut cluster), ZoneStatus::Unreachable, "whoever calls proves nothing of the world");
    cluster.give(0, Input::Connected { peer: key(6), dialed: Dialed::ByUs });
    cluster.pass(SECOND * 9);
    assert_eq!(status(&mut cluster), ZoneStatus::Unreachable);
    cluster.pass(SECOND);
    assert_eq!(status(&mut cluster), ZoneStatus::Held);
    cluster.give(0, Input::PeerLeft { peer: key(6), zone: None });
    assert_eq!(status(&mut cluster), ZoneStatus::Unreachable);
}

#[test]
fn a_member_known_to_have_written_more_makes_an_answer_stale_until_a_sync_has_looked_for_it() {
    let mut cluster = Cluster::new(2);
    cluster.link(0, 1);
    cluster.pass(SECOND);
    cluster.gossip(0, 1, beacon(1, 5, 1, cluster.now, 9));
    assert!(answered(&mut cluster, 0).0 == ZoneStatus::Stale && lags(&mut cluster, 0));
    cluster.pass(SECOND * 10);
    assert!(is_held(&mut cluster, 0) && !lags(&mut cluster, 0), "nobody has it");
    cluster.gossip(0, 1, beacon(1, 5, 2, cluster.now, 10));
    assert!(is_held(&mut cluster, 0), "its word counts again when what it said was true");
}

#[test]
fn what_a_stranger_claims_to_have_written_is_looked_for_and_makes_nothing_stale() {
    let mut cluster = Cluster::new(2);
    cluster.link(0, 1);
    cluster.pass(MINUTE);
    let since = cluster.log.len();
    cluster.gossip(0, 1, beacon(7, 5, 1, cluster.now, u64::MAX));
    assert!(is_held(&mut cluster, 0) && !lags(&mut cluster, 0));
    cluster.pass(SECOND * 4);
    assert!(crate::rules::asks(&cluster, 0, since) >= 1, "looked for");
    assert!(is_held(&mut cluster, 0) && !lags(&mut cluster, 0));
}

#[test]
fn a_suspended_node_is_stale_until_it_has_compared_itself_and_a_clock_set_back_changes_no_age() {
    let mut cluster = Cluster::with(vec![given_peers(), Config::default()]);
    cluster.link(0, 1);
    cluster.now = cluster.now + MINUTE * 10;
    assert_eq!(answered(&mut cluster, 0), (ZoneStatus::Stale, Some(600)));
    cluster.give(0, Input::Resumed);
    cluster.settle();
    assert_eq!(answered(&mut cluster, 0), (ZoneStatus::Stale, Some(600)), "all of them slept");
    cluster.pass(SECOND * 112);
    assert!(is_held(&mut cluster, 0));
    cluster.clocks[0] = -3_600_000;
    cluster.pass(SECOND * 20);
    let (status, age) = answered(&mut cluster, 0);
    assert!(status == ZoneStatus::Held && age.is_some_and(|age| age <= 36), "{age:?}");
}
