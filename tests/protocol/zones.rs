//! Zones of one node: machines that never touch each other, and that come and go while the node runs.

use std::time::Duration;

use aop::proto::ask::{Answer, Contact, Question};
use aop::proto::config::Config;
use aop::proto::fingerprint::as_of;
use aop::proto::identity::{Identity, PeerKey};
use aop::proto::io::{Command, Dialed, GossipId, Input, Output, Protocol, Reply, Role, ZoneError};
use aop::proto::message::{Gateway, SyncAnswer, SyncFrame, SyncRequest};
use aop::proto::name::{ZoneId, ZoneName};
use aop::proto::node::Node;
use aop::proto::persistence::Stored;
use aop::proto::query::{Find, Resolution};
use aop::proto::time::Timestamp;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_bytes::ByteBuf;

use crate::rules::cluster::{Cluster, SECOND, key, offer};

fn zone(text: &str) -> ZoneName {
    text.parse().unwrap()
}

fn serving(zones: &[&str]) -> Config {
    Config { zones: zones.iter().map(|text| zone(text)).collect(), ..Config::default() }
}

fn register(cluster: &mut Cluster, at: usize, agent: &str, zone: &ZoneName) -> bool {
    let offer = aop::proto::card::Offer { zone: Some(zone.clone()), ..offer(agent, "text") };
    let Reply::Registered(results) = cluster.command(at, Command::Register(vec![offer])) else {
        panic!("no answer")
    };
    results.iter().all(Result::is_ok)
}

/// Both nodes are told that the other serves the zone.
fn meet(cluster: &mut Cluster, one: usize, other: usize, zone: &ZoneName) {
    cluster.link(one, other);
    for (at, peer, dialed) in [(one, other, Dialed::ByUs), (other, one, Dialed::ByThem)] {
        cluster.give(at, Input::PeerJoined { peer: key(peer), zone: zone.clone(), dialed });
        cluster.settle();
    }
}

/// All that a node shows and holds of a zone.
fn picture(cluster: &mut Cluster, at: usize, zone: &ZoneName) -> String {
    let now = cluster.clock(at);
    let node = &mut cluster.nodes[at];
    let state = node.zone_states(now).into_iter().find(|state| state.zone == *zone);
    let records: Vec<_> = node.zone(zone).unwrap().registry().iter().map(|record| record.hash()).collect();
    let root = node.fingerprint(zone, as_of(now));
    format!("{state:?} {root:?} {records:?}")
}

fn mentions(output: &Output, zone: &ZoneName) -> bool {
    match output {
        Output::Publish { zone: of, .. } => of == zone,
        Output::Request { bytes, .. } => SyncFrame::decode(bytes).is_ok_and(|frame| frame.zone.zone == *zone),
        _ => false,
    }
}

/// Something that happens in a zone, or claims to.
fn happen(cluster: &mut Cluster, zone: &ZoneName, rng: &mut ChaCha8Rng) {
    let bytes =
        |rng: &mut ChaCha8Rng| (0..rng.random_range(0..200)).map(|_| rng.random()).collect::<Vec<u8>>();
    let agent = format!("agent-{}", rng.random_range(0..20));
    let frame =
        |request| SyncFrame { zone: ZoneId::open(zone.clone()), as_of: as_of(cluster.now), request }.encode();
    let input = match rng.random_range(0..8) {
        0 | 1 => {
            register(cluster, rng.random_range(0..2), &agent, zone);
            return;
        }
        2 => {
            let name = format!("{agent}@{zone}").parse().unwrap();
            cluster.command(rng.random_range(0..2), Command::Deregister(name));
            return;
        }
        3 => Input::Gossip { id: GossipId([7; 20]), peer: key(1), zone: zone.clone(), bytes: bytes(rng) },
        4 => {
            let gift = SyncRequest::Give { records: vec![ByteBuf::from(bytes(rng))], publish: true };
            Input::Request { id: 1, peer: key(1), protocol: Protocol::Sync, bytes: frame(gift) }
        }
        5 => {
            let author = cluster.nodes[0].author();
            let open = SyncRequest::Open { author, clock: cluster.now };
            Input::Request { id: 1, peer: key(1), protocol: Protocol::Sync, bytes: frame(open) }
        }
        6 => Input::PeerLeft { peer: key(1), zone: Some(zone.clone()) },
        _ => Input::PeerJoined { peer: key(1), zone: zone.clone(), dialed: Dialed::ByUs },
    };
    cluster.give(0, input);
    cluster.settle();
}

#[test]
fn what_happens_in_one_zone_touches_no_other() {
    let (a, b) = (zone("a.org"), zone("b.org"));
    for seed in 0..20 {
        let mut cluster = Cluster::with(vec![
            serving(&["a.org", "b.org"]),
            serving(&["a.org", "b.org"]),
            serving(&["b.org"]),
        ]);
        meet(&mut cluster, 0, 1, &a);
        meet(&mut cluster, 0, 1, &b);
        meet(&mut cluster, 0, 2, &b);
        assert!(register(&mut cluster, 0, "own", &b) && register(&mut cluster, 2, "other", &b));
        cluster.pass(20 * SECOND);
        let (before, since) = (picture(&mut cluster, 0, &b), cluster.log.len());
        let elsewhere = picture(&mut cluster, 0, &a);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for step in 0..60 {
            happen(&mut cluster, &a, &mut rng);
            assert_eq!(picture(&mut cluster, 0, &b), before, "seed {seed}, step {step}");
        }
        assert_ne!(picture(&mut cluster, 0, &a), elsewhere, "seed {seed}: nothing happened");
        let strays = cluster.log[since..].iter().filter(|(_, output)| mentions(output, &b)).count();
        assert_eq!(strays, 0, "seed {seed}");
    }
}

#[test]
fn a_zone_that_is_joined_while_the_node_runs_is_served_like_any_other() {
    let late = zone("late.org");
    let mut cluster = Cluster::with(vec![Config::default(), serving(&["late.org"])]);
    assert!(register(&mut cluster, 1, "there-before", &late));
    assert!(!register(&mut cluster, 0, "mine", &late), "not served yet");
    let since = cluster.log.len();
    let join = Command::JoinZone { zone: late.clone(), role: Role::Member };
    assert_eq!(cluster.command(0, join.clone()), Reply::Zone(Ok(())));
    let wanted: Vec<&Output> = cluster.log[since..].iter().map(|(_, output)| output).collect();
    let told = |wanted: &[&Output], of: fn(&Output) -> Option<&ZoneName>| {
        wanted.iter().filter_map(|output| of(output)).any(|zone| *zone == late)
    };
    assert!(told(&wanted, |output| if let Output::JoinZone(id) = output { Some(&id.zone) } else { None }));
    assert!(told(&wanted, |output| if let Output::FindPeers(zone) = output { Some(zone) } else { None }));
    assert!(told(&wanted, |output| if let Output::Provide(zone) = output { Some(zone) } else { None }));
    meet(&mut cluster, 0, 1, &late);
    assert!(register(&mut cluster, 0, "mine", &late));
    for at in [0, 1] {
        for agent in ["there-before", "mine"] {
            let named = Command::Resolve(format!("{agent}@late.org"));
            let Reply::Resolved(resolution) = cluster.command(at, named) else { panic!("no answer") };
            assert!(matches!(resolution, Resolution::One(_)), "{agent} at {at}: {resolution:?}");
        }
    }
    // Joined twice is joined once; another role is a mistake.
    assert_eq!(cluster.command(0, join), Reply::Zone(Ok(())));
    let follow = Command::JoinZone { zone: late.clone(), role: Role::Follower };
    assert_eq!(cluster.command(0, follow), Reply::Zone(Err(ZoneError::OtherRole(late))));
}

#[test]
fn a_zone_that_is_left_is_forgotten_and_what_was_offered_there_is_withdrawn() {
    let late = zone("late.org");
    let mut cluster = Cluster::with(vec![serving(&[".", "late.org"]), serving(&["late.org"])]);
    meet(&mut cluster, 0, 1, &late);
    assert!(register(&mut cluster, 0, "mine", &late) && register(&mut cluster, 1, "theirs", &late));
    let listed = |cluster: &mut Cluster, at| {
        let find = Find { limit: 10, ..Find::default() };
        let Reply::Found(answer) = cluster.command(at, Command::List(find)) else { panic!("no answer") };
        answer.found.iter().map(|found| found.record.name.agent.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(listed(&mut cluster, 0), ["mine", "theirs"]);
    assert_eq!(cluster.command(0, Command::LeaveZone(late.clone())), Reply::Zone(Ok(())));
    assert_eq!(listed(&mut cluster, 0), Vec::<String>::new());
    assert_eq!(listed(&mut cluster, 1), ["theirs"]);
    let (last, output) = cluster.log.iter().rev().find(|(_, it)| matches!(it, Output::LeaveZone(_))).unwrap();
    assert!(*last == 0 && matches!(output, Output::LeaveZone(zone) if *zone == late));
    let rows = &cluster.rows[0];
    assert!(rows.keys().all(|row| row.first() != Some(&b'r')), "rows of others stay");
    let left = Err(ZoneError::NotServed(late.clone()));
    assert_eq!(cluster.command(0, Command::LeaveZone(late)), Reply::Zone(left));
    let root = ZoneName::root();
    let home = Err(ZoneError::Home(root.clone()));
    assert_eq!(cluster.command(0, Command::LeaveZone(root)), Reply::Zone(home));
}

/// Versions are dense in an epoch: peers that saw some of this node's would miss those that are used twice.
#[test]
fn a_zone_that_is_joined_again_goes_on_where_its_versions_ended() {
    let late = zone("late.org");
    for restarted in [false, true] {
        let mut cluster = Cluster::with(vec![Config::default(), serving(&["late.org"])]);
        let join = Command::JoinZone { zone: late.clone(), role: Role::Member };
        cluster.command(0, join.clone());
        meet(&mut cluster, 0, 1, &late);
        assert!(register(&mut cluster, 0, "first", &late));
        cluster.command(0, Command::LeaveZone(late.clone()));
        if restarted {
            cluster.restart(0, cluster.rows[0].clone());
        }
        cluster.cut(0, 1);
        cluster.command(0, join);
        meet(&mut cluster, 0, 1, &late);
        assert!(register(&mut cluster, 0, "second", &late));
        let author = cluster.nodes[0].author();
        let seqs = |at: usize| {
            let held = cluster.nodes[at].records(&late).filter(|record| record.author() == author);
            let mut seqs: Vec<u64> = held.map(|record| record.seq).collect();
            seqs.sort_unstable();
            seqs
        };
        // The card, its tombstone in its place, the second card.
        assert_eq!((seqs(0), seqs(1)), (vec![2, 3], vec![2, 3]), "restarted: {restarted}");
    }
}

#[test]
fn a_search_for_peers_that_found_nobody_is_made_again_until_somebody_is_there() {
    let late = zone("late.org");
    let mut cluster = Cluster::with(vec![Config::default(), serving(&["late.org"])]);
    cluster.command(0, Command::JoinZone { zone: late.clone(), role: Role::Follower });
    let searches = |cluster: &Cluster| {
        cluster.log.iter().filter(|(_, output)| matches!(output, Output::FindPeers(_))).count()
    };
    let none = Input::ZonePeers { zone: late.clone(), peers: Vec::new() };
    assert_eq!(searches(&cluster), 1);
    cluster.give(0, none.clone());
    cluster.pass(60 * SECOND);
    assert_eq!(searches(&cluster), 2, "one search is answered before the next");
    cluster.give(0, none.clone());
    meet(&mut cluster, 0, 1, &late);
    cluster.pass(60 * SECOND);
    assert_eq!(searches(&cluster), 2, "somebody is there");
    let follower = cluster.log.iter().any(|(at, output)| *at == 0 && matches!(output, Output::Provide(_)));
    assert!(!follower, "a follower is not found by the zone");
}

#[test]
fn a_response_that_nobody_waits_for_changes_nothing() {
    let mut cluster = Cluster::new(1);
    let before = picture(&mut cluster, 0, &ZoneName::root());
    let since = cluster.log.len();
    let bytes = SyncAnswer::Taken.encode();
    cluster.give(0, Input::Response { conversation: aop::proto::io::ConversationId(9), bytes });
    cluster.give(0, Input::RequestFailed { conversation: aop::proto::io::ConversationId(9) });
    cluster.settle();
    assert_eq!((picture(&mut cluster, 0, &ZoneName::root()), cluster.log.len()), (before, since));
}

#[test]
fn a_node_that_starts_again_dials_those_whom_it_met_in_its_zone() {
    let start = |stored: Stored| {
        let identity = Identity::from_seed([1; 32]);
        let mut node = Node::new(identity, serving(&["acme.org"]), [0; 32], stored, Timestamp(1_000_000));
        node.handle(Timestamp(1_000_000), Input::Addresses(vec![ByteBuf::from(b"own".to_vec())]));
        node
    };
    let outputs = |node: &mut Node| std::iter::from_fn(|| node.poll_output()).collect::<Vec<Output>>();
    let mut node = start(Stored::default());
    node.handle(Timestamp(1_000_100), Input::Connected { peer: key(2), dialed: Dialed::ByUs });
    let addresses = vec![ByteBuf::from(b"there".to_vec())];
    node.handle(Timestamp(1_000_100), Input::PeerAddresses { peer: key(2), addresses: addresses.clone() });
    let joined = Input::PeerJoined { peer: key(2), zone: zone("acme.org"), dialed: Dialed::ByUs };
    node.handle(Timestamp(1_000_100), joined);
    let mut stored = Stored::default();
    for at in (1_000_200..1_090_000).step_by(1_000) {
        node.handle_timeout(Timestamp(at));
        for output in outputs(&mut node) {
            let Output::Persist(writes) = output else { continue };
            for write in writes {
                let value = write.value.as_deref().unwrap_or_default();
                stored.take_row(&write.key, value, true, "world", Timestamp(at));
            }
        }
    }
    assert_eq!(
        stored.contacts,
        [(ZoneId::open(zone("acme.org")), vec![Contact { peer: key(2), addresses }])]
    );
    let mut again = start(stored.clone());
    again.handle_timeout(Timestamp(1_000_001));
    let known = Contact { peer: key(2), addresses: stored.contacts[0].1[0].addresses.clone() };
    let dials = |outputs: Vec<Output>| {
        outputs.iter().any(|output| matches!(output, Output::Reach(contact) if *contact == known))
    };
    assert!(dials(outputs(&mut again)), "nobody of the zone is met");
    again.handle_timeout(Timestamp(1_030_000));
    assert!(!dials(outputs(&mut again)), "not before a minute is over");
    again.handle_timeout(Timestamp(1_060_001));
    assert!(dials(outputs(&mut again)));
}

#[test]
fn who_speaks_for_no_zone_and_knows_nobody_of_the_root_names_who_speaks_for_its_own() {
    let mut configs = vec![serving(&["acme.org"]), serving(&["acme.org"]), serving(&["deep.acme.org"])];
    configs[0].gateway = Gateway::Never;
    let mut cluster = Cluster::with(configs);
    for at in 0..3 {
        let address = ByteBuf::from(format!("address {at}").into_bytes());
        cluster.give(at, Input::Addresses(vec![address]));
    }
    meet(&mut cluster, 0, 1, &zone("acme.org"));
    cluster.pass(SECOND * 60);
    let (root, target) = (ZoneId::open(ZoneName::root()), ZoneId::open(zone("deep.acme.org")));
    let bytes = Question::Walk { zone: root, target }.encode();
    let mut ask = |at: usize| {
        let since = cluster.log.len();
        let input = Input::Request { id: 1_000, peer: key(2), protocol: Protocol::Ask, bytes: bytes.clone() };
        cluster.give(at, input);
        cluster.settle();
        let answer = cluster.outputs(at, since).into_iter().find_map(|output| match output {
            Output::Respond { id: 1_000, bytes } => Some(Answer::decode(bytes).unwrap()),
            _ => None,
        });
        answer.unwrap()
    };
    let Answer::Elsewhere { gateways } = ask(0) else { panic!("it names nobody") };
    assert_eq!(gateways.into_iter().map(|it| it.peer).collect::<Vec<_>>(), [key(1)]);
    // Who asks the way itself has nobody to name: it would have asked.
    assert_eq!(ask(1), Answer::Refused);
}

/// Strangers that know nobody, with keys before those of all others.
fn crowd(count: u8) -> impl Iterator<Item = PeerKey> {
    (0..count).map(|at| PeerKey([&[0, at][..], &[7; 30]].concat().try_into().unwrap()))
}

/// How long a node of acme.org takes to ask the one of the root that it is connected with, among strangers that came before or
/// after it.
fn way_is_asked_within(config: Config, strangers: u8, come_first: bool) -> Option<Duration> {
    let mut cluster = Cluster::with(vec![Config { expects_peers: true, ..config }, serving(&["."])]);
    let addresses = vec![ByteBuf::from(b"/ip4/10.0.0.1/tcp/4001".to_vec())];
    cluster.give(0, Input::Addresses(addresses));
    let began = cluster.now;
    let crowd_in = |cluster: &mut Cluster| {
        for peer in crowd(strangers) {
            cluster.give(0, Input::Connected { peer, dialed: Dialed::ByUs });
        }
    };
    if come_first {
        crowd_in(&mut cluster);
        cluster.pass(SECOND);
    }
    cluster.give(0, Input::Connected { peer: key(1), dialed: Dialed::ByUs });
    cluster.pass(Duration::from_millis(10));
    if !come_first {
        crowd_in(&mut cluster);
    }
    let is_asked = |(at, output): &(usize, Output)| {
        *at == 0 && matches!(output, Output::Request { peer, protocol: Protocol::Ask, .. } if *peer == key(1))
    };
    while !cluster.log.iter().any(is_asked) {
        if began + SECOND * 300 < cluster.now {
            return None;
        }
        cluster.pass(SECOND);
    }
    Some(cluster.now.since(began))
}

#[test]
fn strangers_that_know_nobody_keep_no_zone_from_the_root() {
    let usual = || serving(&["acme.org"]);
    let takes = |config, strangers, come_first| way_is_asked_within(config, strangers, come_first).unwrap();
    assert!(takes(usual(), 200, false) <= SECOND * 10, "who was there before them is asked first");
    let given = Config { bootstrap_peers: vec![key(1)], ..usual() };
    assert!(takes(given, 200, true) <= SECOND * 10, "the operator's peer is asked first");
    let all = takes(usual(), 100, true);
    assert!(all > SECOND * 10 && all <= SECOND * 120, "{all:?}");
}
