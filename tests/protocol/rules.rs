//! The rules of the protocol, each as a few nodes show it.

pub(crate) mod cluster;

use std::collections::BTreeSet;
use std::time::Duration;

use aop::proto::card::{AgentCard, Offer, Scope};
use aop::proto::code::Code;
use aop::proto::codec;
use aop::proto::config::Config;
use aop::proto::fingerprint::{self, Digest, Prefix};
use aop::proto::grant::{Grant, Reach};
use aop::proto::io::{
    Command, ConversationId, Dialed, Event, Input, NodeAlert, Output, Protocol, Reply, Verdict,
};
use aop::proto::limits::{CARD_LIFE, STAMP_AHEAD_MAX, TOMBSTONE_LIFE, TOMBSTONE_LIFE_LONG};
use aop::proto::message::{Beacon, Envelope, Gateway, SyncAnswer, SyncFrame, SyncRequest};
use aop::proto::name::{FullName, ZoneId, ZoneName};
use aop::proto::record::{Author, Header, RecordKind};
use aop::proto::registration::{Withdraw, WriteError};
use aop::proto::time::{Stamp, Timestamp};
use cluster::{Cluster, DAY, NOW, SECOND, identity, key, name, offer, signed};
use serde_bytes::ByteBuf;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// A slot for each name of these tests; the first for "a", which is what a host's first agent has.
fn slot_of(agent: &str) -> u16 {
    let hash = |text: &str| text.bytes().fold(0u16, |slot, byte| (slot * 31 + u16::from(byte)) % 1_000);
    (hash(agent) + 1_000 - hash("a")) % 1_000
}

pub(crate) fn header(author: usize, agent: &str, wall: Timestamp) -> Header {
    Header {
        network: "world".into(),
        zone: ZoneName::root(),
        kind: RecordKind::Agent,
        name: agent.parse().unwrap(),
        owner: key(author),
        host: key(author),
        author: Author { key: key(author), epoch: 77 },
        seq: 1,
        stamp: Stamp { wall, counter: 0 },
        generation: 0,
        expires_at: wall + CARD_LIFE,
        scope: Scope::Public,
        slot: slot_of(agent),
        grants: Vec::new(),
    }
}

pub(crate) fn body(description: &str) -> Vec<u8> {
    codec::encode(&AgentCard { description: description.into(), ..AgentCard::default() })
}

pub(crate) fn message(header: Header, body: &[u8], author: usize) -> Vec<u8> {
    envelope(&[signed(header, body, author).bytes()])
}

fn envelope(records: &[&std::sync::Arc<[u8]>]) -> Vec<u8> {
    Envelope::Records(records.iter().map(|bytes| ByteBuf::from(bytes.to_vec())).collect()).encode()
}

pub(crate) fn beacon(author: usize, epoch: u64, counter: u64, clock: Timestamp, seq: u64) -> Vec<u8> {
    let beacon = Beacon {
        network: "world".into(),
        zone: ZoneName::root(),
        author: Author { key: key(author), epoch },
        counter,
        clock,
        interval_ms: 20_000,
        seq,
        gateway: Gateway::Auto,
        name: None,
    };
    Envelope::Beacon(beacon.sign(&identity(author))).encode()
}

fn grant(owner: usize, host: usize, generation: u64, life: std::time::Duration) -> Vec<u8> {
    Grant {
        network: "world".into(),
        issuer: key(owner),
        subject: key(host),
        zone: ZoneName::root(),
        reach: Reach::Zone,
        kinds: vec![RecordKind::Agent],
        may_delegate: true,
        issued_at: NOW - DAY,
        expires_at: NOW + life,
        generation,
        slots: None,
    }
    .sign(&identity(owner))
}

fn granted(agent: &str, grants: Vec<Vec<u8>>) -> Offer {
    Offer { grants, ..offer(agent, "granted") }
}

fn penalties(cluster: &Cluster, at: usize, since: usize) -> Vec<&'static str> {
    let reason = |output: &&Output| match output {
        Output::Penalize { offence, .. } => Some(offence.text()),
        _ => None,
    };
    cluster.outputs(at, since).iter().filter_map(reason).collect()
}

pub(crate) fn asks(cluster: &Cluster, at: usize, since: usize) -> usize {
    cluster.outputs(at, since).iter().filter(|output| matches!(output, Output::Request { .. })).count()
}

#[test]
fn a_write_is_kept_then_published_then_acknowledged() {
    let mut cluster = Cluster::new(2);
    cluster.link(0, 1);
    let since = cluster.log.len();
    cluster.register(0, offer("a", "one")).unwrap();
    let order: Vec<&str> = cluster
        .outputs(0, since)
        .iter()
        .filter_map(|output| match output {
            Output::Persist(writes) => writes.iter().any(|write| write.durable).then_some("persist"),
            Output::Publish { .. } => Some("publish"),
            Output::Reply { .. } => Some("reply"),
            Output::Event(_) => Some("event"),
            _ => None,
        })
        .collect();
    assert_eq!(order, ["persist", "event", "publish", "reply"]);
    let forwarded = cluster.outputs(1, since);
    assert!(matches!(forwarded[0], Output::Persist(_)), "{forwarded:?}");
    assert!(
        forwarded.iter().any(|output| matches!(output, Output::Verdict { verdict: Verdict::Accept, .. }))
    );
    assert!(cluster.shows(1, "a"));
}

#[test]
fn a_registration_equal_to_what_is_held_writes_nothing() {
    let mut cluster = Cluster::new(2);
    cluster.link(0, 1);
    let first = cluster.register(0, offer("a", "one"));
    let since = cluster.log.len();
    assert_eq!(cluster.register(0, offer("a", "one")), first);
    assert!(cluster.outputs(0, since).iter().all(|output| matches!(output, Output::Reply { .. })));
    cluster.register(0, offer("a", "two")).unwrap();
    assert_eq!(cluster.published_since(0, since).len(), 1);
}

#[test]
fn a_new_grant_that_carries_no_better_writes_nothing() {
    let mut cluster = Cluster::new(1);
    let with = |generation, life| granted("a", vec![grant(1, 0, generation, life)]);
    cluster.register(0, with(0, 30 * DAY)).unwrap();
    let since = cluster.log.len();
    cluster.register(0, with(0, 31 * DAY)).unwrap();
    assert!(cluster.outputs(0, since).iter().all(|output| matches!(output, Output::Reply { .. })));
    cluster.register(0, with(1, 31 * DAY)).unwrap();
    assert_eq!(cluster.held(0, 0, "a").map(|held| held.generation), Some(1), "a generation is worth a write");
}

#[test]
fn versions_are_dense_in_a_zone_and_the_node_scope_takes_none_and_never_leaves() {
    let mut cluster = Cluster::new(2);
    cluster.link(0, 1);
    let empty = cluster.fingerprint(0);
    let hidden = Offer { scope: Scope::Node, ..offer("hidden", "mine") };
    let since = cluster.log.len();
    cluster.register(0, hidden).unwrap();
    assert!(cluster.shows(0, "hidden") && cluster.published_since(0, since).is_empty());
    assert_eq!(cluster.held(0, 0, "hidden").unwrap().seq, 0);
    assert_eq!(cluster.fingerprint(0), empty);
    for (agent, seq) in [("a", 1), ("b", 2)] {
        cluster.register(0, offer(agent, "x")).unwrap();
        assert_eq!(cluster.held(0, 0, agent).unwrap().seq, seq);
    }
    cluster.deregister(0, "a").unwrap();
    assert_eq!(cluster.held(0, 0, "a").unwrap().seq, 3);
    cluster.pass(5 * MINUTE);
    assert!(cluster.held(1, 0, "hidden").is_none() && cluster.held(1, 0, "b").is_some());
    let before = cluster.rows[0].clone();
    cluster.restart(0, before);
    cluster.register(0, offer("c", "x")).unwrap();
    assert_eq!(cluster.held(0, 0, "c").unwrap().seq, 4);
    assert!(cluster.shows(0, "hidden"));
}

#[test]
fn a_stamp_grows_with_its_own_key_and_no_other_key_moves_it() {
    let mut cluster = Cluster::new(1);
    let five_days = 5 * 86_400_000;
    cluster.clocks[0] = five_days;
    cluster.register(0, offer("ahead", "x")).unwrap();
    cluster.clocks[0] = 0;
    cluster.register(0, offer("other", "x")).unwrap();
    assert_eq!(cluster.held(0, 0, "other").unwrap().stamp, Stamp { wall: NOW, counter: 0 });
    cluster.register(0, offer("other", "y")).unwrap();
    assert_eq!(cluster.held(0, 0, "other").unwrap().stamp, Stamp { wall: NOW, counter: 1 });
}

#[test]
fn what_a_clock_far_ahead_wrote_is_written_again_when_it_steps_back_and_may_be_changed() {
    for (ahead, minutes) in [(5 * 86_400_000, 0), (3_650 * 86_400_000, 1)] {
        let mut cluster = Cluster::new(2);
        cluster.link(0, 1);
        cluster.register(0, offer("kept", "x")).unwrap();
        cluster.clocks[0] = ahead;
        cluster.register(0, offer("kept", "y")).unwrap();
        cluster.register(0, offer("gone", "x")).unwrap();
        cluster.deregister(0, "gone").unwrap();
        cluster.pass(MINUTE * minutes);
        assert!(cluster.nodes[1].refused().contains_key(&Code::Future));
        cluster.clocks[0] = 0;
        cluster.pass(MINUTE);
        for at in [0, 1] {
            let kept = cluster.held(at, 0, "kept").unwrap();
            assert_eq!((kept.card().unwrap().description.as_str(), kept.generation), ("y", 1), "at {at}");
            assert!(kept.stamp.wall <= cluster.now, "a clock {ahead} ms ahead, at {at}");
        }
        cluster.register(0, offer("gone", "again")).unwrap();
        cluster.register(0, offer("kept", "z")).unwrap();
        cluster.deregister(0, "kept").unwrap();
        assert!(cluster.shows(1, "gone") && !cluster.shows(1, "kept"));
        let buried = cluster.held(1, 0, "kept").unwrap();
        assert_eq!(buried.expires_at, buried.stamp.wall + TOMBSTONE_LIFE_LONG, "longer than what it buries");
    }
}

#[test]
fn what_a_clock_far_ahead_wrote_under_a_grant_is_overruled_by_a_grant_of_a_higher_generation() {
    let mut cluster = Cluster::new(3);
    cluster.link(0, 1);
    let by = |generation| granted("a", vec![grant(2, 0, generation, 60 * DAY)]);
    cluster.clocks[0] = 5 * 86_400_000;
    cluster.register(0, by(0)).unwrap();
    cluster.clocks[0] = 0;
    cluster.pass(MINUTE);
    assert_eq!(
        cluster.problems(0),
        [NodeAlert::StampedAhead],
        "nobody takes it, and the host cannot change that"
    );
    assert_eq!(cluster.register(0, by(0)), Err(WriteError::StampedAhead(name("a"))));
    cluster.register(0, by(1)).unwrap();
    assert!(cluster.shows(1, "a"));
    assert_eq!(cluster.problems(0), []);
    cluster.deregister(0, "a").unwrap();
    assert!(!cluster.shows(1, "a"));
}

#[test]
fn a_node_that_starts_with_agents_stamped_ahead_says_so_until_they_are_written_again() {
    let mut cluster = Cluster::given_peers(2);
    cluster.cut(0, 1);
    cluster.clocks[0] = 3_600_000;
    cluster.register(0, offer("a", "x")).unwrap();
    cluster.clocks[0] = 0;
    let rows = cluster.rows[0].clone();
    cluster.restart(0, rows);
    assert_eq!(cluster.problems(0), [NodeAlert::StampedAhead]);
    cluster.link(0, 1);
    assert!(!cluster.shows(1, "a"));
    cluster.pass(2 * MINUTE);
    assert!(cluster.shows(1, "a"));
    assert_eq!(cluster.problems(0), []);
}

#[test]
fn a_jump_of_the_clock_renews_nothing_until_a_peer_confirms_it_or_it_lasts() {
    let mut cluster = Cluster::new(2);
    cluster.register(0, offer("a", "x")).unwrap();
    let written = cluster.held(0, 0, "a").unwrap().stamp;
    cluster.clocks[0] = 8 * 86_400_000;
    cluster.pass(MINUTE);
    assert_eq!(cluster.held(0, 0, "a").map(|held| held.stamp), None, "its lease ended by this clock");
    cluster.clocks[0] = 0;
    cluster.link(0, 1);
    cluster.pass(MINUTE);
    assert_eq!([0, 1].map(|at| cluster.held(at, 0, "a").unwrap().stamp), [written, written], "as it was");
    cluster.cut(0, 1);
    cluster.now = cluster.now + 8 * DAY;
    cluster.pass(MINUTE);
    assert!(!cluster.shows(0, "a"), "a suspension of a week: nobody has confirmed the time");
    cluster.link(0, 1);
    cluster.pass(MINUTE);
    assert!(cluster.shows(0, "a") && cluster.shows(1, "a"), "a peer has");
}

#[test]
fn a_stamp_is_greater_than_the_own_last_one_even_after_a_restart_with_the_clock_back() {
    let mut cluster = Cluster::new(1);
    cluster.register(0, offer("a", "one")).unwrap();
    cluster.clocks[0] = -30_000;
    let rows = cluster.rows[0].clone();
    cluster.restart(0, rows);
    cluster.register(0, offer("a", "two")).unwrap();
    assert_eq!(cluster.held(0, 0, "a").unwrap().stamp, Stamp { wall: NOW, counter: 1 });
}

#[test]
fn a_key_belongs_to_its_host_and_its_owner_may_only_revoke_it() {
    let mut cluster = Cluster::new(3);
    cluster.link(0, 1);
    cluster.register(1, granted("a", vec![grant(0, 1, 0, 30 * DAY)])).unwrap();
    for author in [0, 2] {
        let foreign = Header { owner: key(0), host: key(1), ..header(author, "a", cluster.now + SECOND) };
        assert_eq!(cluster.gossip(0, 1, message(foreign.clone(), &body("x"), author)), Verdict::Reject);
        let lease = foreign.stamp.wall + TOMBSTONE_LIFE;
        let buries = message(Header { expires_at: lease, ..foreign }, &[], author);
        assert_eq!(cluster.gossip(1, 0, buries), Verdict::Reject);
    }
    cluster.deregister(0, "a").unwrap();
    let shown = |cluster: &mut Cluster| [0, 1].map(|at| cluster.shows(at, "a"));
    assert_eq!(shown(&mut cluster), [false, false]);
    assert!(cluster.held(1, 1, "a").is_some_and(|held| !held.is_tombstone()), "held on, and shown to nobody");
    let name = FullName { agent: "a".parse().unwrap(), zone: ZoneName::root() };
    assert_eq!(cluster.problems(1), [NodeAlert::Revoked(name.clone())]);
    let again = cluster.register(1, granted("a", vec![grant(0, 1, 0, 31 * DAY)]));
    assert_eq!(again, Err(WriteError::Revoked(name)));
    cluster.pass(4 * DAY + 12 * 60 * MINUTE);
    let rows = cluster.rows[1].clone();
    cluster.restart(1, rows);
    cluster.link(0, 1);
    assert_eq!(shown(&mut cluster), [false, false], "a host does not speak against its owner");
    cluster.register(1, granted("a", vec![grant(0, 1, 1, 60 * DAY)])).unwrap();
    assert_eq!(shown(&mut cluster), [true, true], "the owner gave it back");
}

#[test]
fn a_record_carries_the_generation_of_its_first_grant() {
    let mut cluster = Cluster::new(3);
    let second = Grant {
        issuer: key(1),
        subject: key(2),
        generation: 0,
        may_delegate: false,
        ..Grant::read(&grant(0, 1, 3, 30 * DAY)).unwrap()
    };
    let chain = vec![grant(0, 1, 3, 30 * DAY), second.sign(&identity(1))];
    cluster.register(2, granted("a", chain)).unwrap();
    assert_eq!(cluster.held(2, 2, "a").unwrap().generation, 3);
    let lower = cluster.register(2, granted("a", vec![grant(0, 2, 2, 30 * DAY)]));
    assert!(matches!(lower, Err(WriteError::Superseded(_))), "{lower:?}");
    cluster.register(2, granted("a", vec![grant(0, 2, 4, 30 * DAY)])).unwrap();
    assert_eq!(cluster.held(2, 2, "a").unwrap().generation, 4);
}

#[test]
fn a_card_never_ends_before_the_own_card_it_replaces() {
    let mut cluster = Cluster::new(2);
    cluster.register(1, granted("a", vec![grant(0, 1, 0, 5 * DAY)])).unwrap();
    assert_eq!(cluster.held(1, 1, "a").unwrap().expires_at, NOW + 5 * DAY);
    let shorter = cluster.register(1, granted("a", vec![grant(0, 1, 0, 4 * DAY)]));
    assert!(matches!(shorter, Err(WriteError::GrantTooShort(_))), "{shorter:?}");
    cluster.register(1, granted("a", vec![grant(0, 1, 0, 6 * DAY)])).unwrap();
    assert_eq!(cluster.held(1, 1, "a").unwrap().expires_at, NOW + 6 * DAY);
}

#[test]
fn a_host_may_withdraw_what_it_offers_by_a_grant() {
    for generation in [0, 1] {
        let mut cluster = Cluster::new(2);
        cluster.link(0, 1);
        cluster.register(1, granted("a", vec![grant(0, 1, generation, 6 * DAY)])).unwrap();
        let withdrawn = cluster.deregister(1, "a");
        assert!(withdrawn.is_ok(), "generation {generation}: {withdrawn:?}");
        assert!(!cluster.shows(0, "a"));
    }
}

#[test]
fn a_foreign_write_under_an_own_key_is_corrected_once_and_then_reported() {
    let mut cluster = Cluster::new(2);
    cluster.link(0, 1);
    cluster.register(0, offer("a", "mine")).unwrap();
    let foreign = |cluster: &Cluster, ahead: u32, text: &str| {
        let wall = cluster.now + SECOND * ahead;
        message(Header { seq: 9, ..header(0, "a", wall) }, &body(text), 0)
    };
    cluster.gossip(0, 1, foreign(&cluster, 1, "foreign"));
    let corrected = cluster.held(0, 0, "a").unwrap();
    assert_eq!(corrected.card().unwrap().description, "mine");
    assert_eq!(corrected.stamp, Stamp { wall: NOW + SECOND, counter: 1 });
    assert_eq!(cluster.held(1, 0, "a").unwrap().hash(), corrected.hash());
    assert!(cluster.problems(0).is_empty());
    cluster.gossip(0, 1, foreign(&cluster, 2, "again"));
    assert_eq!(cluster.held(0, 0, "a").unwrap().card().unwrap().description, "again");
    assert_eq!(cluster.problems(0), [NodeAlert::DuplicateIdentity(name("a"))]);
    assert_eq!(cluster.register(0, offer("a", "mine")), Err(WriteError::DuplicateIdentity));
}

#[test]
fn a_correction_is_allowed_again_after_ten_minutes() {
    let mut cluster = Cluster::new(2);
    cluster.link(0, 1);
    cluster.register(0, offer("a", "mine")).unwrap();
    for _ in 0..2 {
        // Neither is a sign of a process that runs now: of the time of the start, and of minutes ago.
        let wall = (NOW + SECOND).max(cluster.now - 4 * MINUTE);
        let foreign = Header { seq: 9, ..header(0, "a", wall) };
        cluster.gossip(0, 1, message(foreign, &body("foreign"), 0));
        assert_eq!(cluster.held(0, 0, "a").unwrap().card().unwrap().description, "mine");
        cluster.pass(10 * MINUTE + SECOND);
    }
    assert!(cluster.problems(0).is_empty());
}

#[test]
fn a_record_from_the_future_is_ignored_and_blames_nobody() {
    let mut cluster = Cluster::new(2);
    cluster.link(0, 1);
    let since = cluster.log.len();
    let wall = NOW + STAMP_AHEAD_MAX + SECOND;
    let future = message(header(1, "a", wall), &body("x"), 1);
    assert_eq!(cluster.gossip(0, 1, future.clone()), Verdict::Ignore);
    let state = &cluster.nodes[0].zone_states(NOW)[0];
    assert!(state.records == 0 && state.authors == 0);
    assert!(penalties(&cluster, 0, since).is_empty());
    assert_eq!(cluster.nodes[0].refused()[&Code::Future], 1);
    cluster.now = NOW + SECOND;
    assert_eq!(cluster.gossip(0, 1, future), Verdict::Accept);
}

#[test]
fn verdicts_tell_new_from_stale_from_forged() {
    let mut cluster = Cluster::new(2);
    let new = message(header(1, "a", NOW), &body("x"), 1);
    assert_eq!(cluster.gossip(0, 1, new.clone()), Verdict::Accept);
    assert_eq!(cluster.gossip(0, 1, new), Verdict::Ignore);
    let stale = Header { seq: 2, ..header(1, "a", NOW - SECOND) };
    assert_eq!(cluster.gossip(0, 1, message(stale, &body("x"), 1)), Verdict::Ignore);
    let since = cluster.log.len();
    let forged = Header { author: Author { key: key(1), epoch: 77 }, ..header(1, "b", NOW) };
    assert_eq!(cluster.gossip(0, 1, message(forged, &body("x"), 0)), Verdict::Reject);
    assert_eq!(penalties(&cluster, 0, since), ["bad_signature"]);
    assert_eq!(cluster.gossip(0, 1, vec![0xff; 40]), Verdict::Reject);
    assert_eq!(cluster.nodes[0].records(&ZoneName::root()).count(), 1);
}

#[test]
fn a_record_of_another_scope_is_never_taken_from_the_network() {
    let mut cluster = Cluster::new(2);
    let hidden = Header { scope: Scope::Node, seq: 0, ..header(1, "a", NOW) };
    assert_eq!(cluster.gossip(0, 1, message(hidden, &body("x"), 1)), Verdict::Reject);
    assert_eq!(cluster.nodes[0].records(&ZoneName::root()).count(), 0);
}

#[test]
fn only_an_author_batches_and_a_batch_is_forwarded_if_half_of_it_is_new() {
    let mut cluster = Cluster::new(3);
    let one = |author: usize, at: usize| {
        let it = Header { seq: at as u64 + 1, ..header(author, &format!("a{at}"), NOW) };
        signed(it, &body("x"), author).bytes().clone()
    };
    assert_eq!(cluster.gossip(0, 1, envelope(&[&one(1, 0), &one(2, 1)])), Verdict::Reject);
    let own: Vec<_> = (0..6).map(|at| one(1, at)).collect();
    assert_eq!(cluster.gossip(0, 1, envelope(&[&own[0], &own[1]])), Verdict::Accept, "half is new");
    assert_eq!(cluster.gossip(0, 1, envelope(&[&own[0], &own[1], &own[2]])), Verdict::Ignore);
    assert_eq!(cluster.gossip(0, 1, envelope(&[])), Verdict::Ignore);
    assert_eq!(cluster.nodes[0].records(&ZoneName::root()).count(), 3);
}

#[test]
fn a_node_with_a_wrong_clock_refuses_writes_and_still_answers() {
    let config = Config { bootstrap_peers: vec![key(1)], ..Config::default() };
    let mut cluster = Cluster::with(vec![config, Config::default()]);
    cluster.register(1, offer("a", "x")).unwrap();
    cluster.clocks[0] = 31_000;
    cluster.link(0, 1);
    let refused = cluster.register(0, offer("b", "x"));
    assert!(matches!(&refused, Err(error) if error.code() == Code::ClockUnsafe), "{refused:?}");
    assert_eq!(refused, Err(WriteError::ClockUnsafe(-31_000)));
    assert!(cluster.shows(0, "a"));
    assert!(cluster.problems(0).contains(&NodeAlert::ClockUnsafe(-31_000)));
    cluster.clocks[0] = 29_000;
    cluster.pass(MINUTE);
    cluster.register(0, offer("b", "x")).unwrap();
    assert!(cluster.problems(0).is_empty());
    cluster.clocks[1] = 300_000;
    cluster.register(1, offer("c", "x")).unwrap();
}

#[test]
fn a_clock_that_drifts_is_one_problem_however_many_writes_are_refused() {
    let config = Config { bootstrap_peers: vec![key(1)], ..Config::default() };
    let mut cluster = Cluster::with(vec![config, Config::default()]);
    cluster.link(0, 1);
    for ahead in 31..41 {
        cluster.clocks[0] = ahead * 1_000;
        cluster.pass(MINUTE);
        cluster.register(0, offer("a", "x")).unwrap_err();
    }
    assert_eq!(cluster.problems(0), [NodeAlert::ClockUnsafe(-31_000)]);
}

#[test]
fn a_restored_backup_takes_a_new_epoch_and_keeps_its_agents() {
    let mut cluster = Cluster::new(2);
    cluster.link(0, 1);
    cluster.register(0, offer("old", "one")).unwrap();
    let backup = cluster.rows[0].clone();
    let before = cluster.nodes[0].author();
    cluster.register(0, offer("old", "two")).unwrap();
    cluster.register(0, offer("lost", "x")).unwrap();
    cluster.restart(0, backup);
    assert_eq!(cluster.nodes[0].author(), before);
    cluster.link(0, 1);
    assert_ne!(cluster.nodes[0].author(), before);
    assert_eq!(cluster.problems(0), [NodeAlert::RestoredBackup]);
    for at in [0, 1] {
        assert_eq!(cluster.held(at, 0, "old").unwrap().card().unwrap().description, "two", "not corrected");
        assert!(cluster.shows(at, "lost"));
    }
    assert!(!NodeAlert::RestoredBackup.degrades());
    cluster.pass(10 * MINUTE);
    assert_eq!(cluster.problems(0), [], "what was lost is back");
    cluster.register(0, offer("new", "x")).unwrap();
    let new = cluster.held(1, 0, "new").unwrap();
    assert_eq!((new.author().epoch, new.seq), (cluster.nodes[0].author().epoch, 1));
    let rows = cluster.rows[0].clone();
    cluster.restart(0, rows);
    cluster.pass(4 * DAY + 12 * 60 * MINUTE);
    assert!(cluster.held(0, 0, "lost").unwrap().author().epoch != before.epoch, "adopted, so renewed");
}

#[test]
fn a_lost_write_that_comes_by_gossip_is_adopted_and_not_corrected() {
    let mut cluster = Cluster::new(2);
    cluster.register(0, offer("a", "one")).unwrap();
    let backup = cluster.rows[0].clone();
    let since = cluster.log.len();
    cluster.register(0, offer("a", "two")).unwrap();
    let lost = cluster.published_since(0, since).remove(0);
    cluster.restart(0, backup);
    cluster.gossip(0, 1, lost);
    assert_eq!(cluster.held(0, 0, "a").unwrap().card().unwrap().description, "two");
    assert_eq!(cluster.problems(0), [NodeAlert::RestoredBackup]);
}

/// Meets peer 1, which says `answer` to the first question; the conversation in which it was asked.
fn met_by(cluster: &mut Cluster, answer: &SyncAnswer) -> ConversationId {
    let since = cluster.log.len();
    cluster.give(0, Input::PeerJoined { peer: key(1), zone: ZoneName::root(), dialed: Dialed::ByUs });
    // Without a link nobody answers by itself.
    let mut asked = None;
    while let Some(output) = cluster.nodes[0].poll_output() {
        if let Output::Request { conversation, .. } = &output
            && asked.is_none()
        {
            asked = Some(*conversation);
            cluster.give(0, Input::Response { conversation: *conversation, bytes: answer.encode() });
        }
        cluster.log.push((0, output));
    }
    assert!(asks(cluster, 0, since) > 0);
    asked.unwrap()
}

#[test]
fn a_peers_word_on_our_head_ends_one_epoch_if_the_operator_named_it_and_else_none() {
    for (bootstrap_peers, epochs_max) in [(vec![], 1), (vec![key(1)], 2)] {
        let mut cluster = Cluster::with(vec![Config { bootstrap_peers, ..Config::default() }]);
        let mut epochs = std::collections::BTreeSet::from([cluster.nodes[0].author()]);
        for _ in 0..5 {
            let clock = cluster.clock(0);
            let liar = SyncAnswer::Opened {
                root: Digest::default(),
                head: u64::MAX,
                clock,
                heard: None,
                whole: true,
                alive: Vec::new(),
            };
            met_by(&mut cluster, &liar);
            epochs.insert(cluster.nodes[0].author());
            cluster.give(0, Input::PeerLeft { peer: key(1), zone: None });
        }
        assert_eq!(epochs.len(), epochs_max);
    }
}

#[test]
fn a_peers_word_on_our_head_counts_no_more_though_the_notice_of_a_restore_has_ended() {
    let config = Config { bootstrap_peers: vec![key(1)], ..Config::default() };
    let mut cluster = Cluster::with(vec![config, Config::default()]);
    cluster.link(0, 1);
    cluster.register(0, offer("old", "x")).unwrap();
    let rows = cluster.rows[0].clone();
    cluster.register(0, offer("lost", "x")).unwrap();
    cluster.restart(0, rows);
    cluster.link(0, 1);
    assert_eq!(cluster.problems(0), [NodeAlert::RestoredBackup]);
    cluster.pass(10 * MINUTE);
    assert_eq!(cluster.problems(0), []);
    cluster.cut(0, 1);
    let author = cluster.nodes[0].author();
    let clock = cluster.clock(0);
    met_by(
        &mut cluster,
        &SyncAnswer::Opened {
            root: Digest::default(),
            head: u64::MAX,
            clock,
            heard: None,
            whole: true,
            alive: Vec::new(),
        },
    );
    assert_eq!((cluster.nodes[0].author(), cluster.problems(0)), (author, vec![]));
}

#[test]
fn a_claim_on_our_head_that_no_record_bears_out_is_told_until_all_zones_were_compared_again() {
    let config = Config { bootstrap_peers: vec![key(1)], ..Config::default() };
    let mut cluster = Cluster::with(vec![config, Config::default()]);
    let clock = cluster.clock(0);
    let (root, head, heard, alive) = (Digest::default(), u64::MAX, None, Vec::new());
    met_by(&mut cluster, &SyncAnswer::Opened { root, head, clock, heard, whole: true, alive });
    cluster.give(0, Input::PeerLeft { peer: key(1), zone: None });
    assert_eq!(cluster.problems(0), [NodeAlert::ClaimedHead]);
    cluster.link(0, 1);
    assert_eq!(cluster.problems(0), [NodeAlert::ClaimedHead], "the first peer may lack it");
    cluster.pass(10 * MINUTE);
    assert_eq!(cluster.problems(0), []);
}

#[test]
fn a_record_that_has_ended_keeps_no_other_out_of_its_slot() {
    for (first, second) in [("a", "b"), ("b", "a")] {
        let mut cluster = Cluster::new(2);
        cluster.link(0, 1);
        let in_slot =
            |name: &str, seq, wall| message(Header { seq, slot: 7, ..header(1, name, wall) }, &body("x"), 1);
        cluster.gossip(0, 1, in_slot(first, 1, NOW));
        assert!(cluster.shows(0, first));
        cluster.pass(7 * DAY + SECOND);
        assert!(cluster.held(0, 1, first).is_some(), "hidden, and kept for some minutes");
        let later = in_slot(second, 2, cluster.now);
        assert_eq!(cluster.gossip(0, 1, later), Verdict::Accept, "{second} after {first}");
        assert!(cluster.shows(0, second) && !cluster.shows(0, first));
    }
}

#[test]
fn a_peer_that_is_busy_is_asked_again_when_it_said_and_nobody_is_blamed() {
    let mut cluster = Cluster::new(1);
    let since = cluster.log.len();
    met_by(&mut cluster, &SyncAnswer::Busy { wait_ms: 700 });
    assert_eq!(asks(&cluster, 0, since), 1);
    cluster.pass(Duration::from_millis(650));
    assert_eq!(asks(&cluster, 0, since), 1);
    cluster.pass(Duration::from_millis(100));
    assert_eq!(asks(&cluster, 0, since), 2);
    let blamed = |cluster: &Cluster| {
        cluster.outputs(0, since).iter().any(|output| matches!(output, Output::Penalize { .. }))
    };
    assert!(!blamed(&cluster));
    // So long that the conversation ends; it is not put off for longer than it would be anyway.
    for wait_ms in [10_000, u64::MAX] {
        let mut cluster = Cluster::new(1);
        let since = cluster.log.len();
        met_by(&mut cluster, &SyncAnswer::Busy { wait_ms });
        let ended = |output: &&&Output| matches!(output, Output::EndConversation { .. });
        assert_eq!(cluster.outputs(0, since).iter().filter(ended).count(), 1);
        cluster.pass(40 * SECOND);
        assert!(asks(&cluster, 0, since) >= 2 && !blamed(&cluster), "{wait_ms}");
    }
}

#[test]
fn a_peer_whose_clock_is_minutes_off_learns_so_and_nothing_else() {
    let mut cluster = Cluster::new(2);
    let ask = |cluster: &mut Cluster, minutes: i64, request: SyncRequest| {
        let now = cluster.now;
        let as_of = fingerprint::as_of(Timestamp(now.0.saturating_add_signed(minutes * 60_000)));
        let frame = SyncFrame { zone: ZoneId::open(ZoneName::root()), as_of, request };
        let (since, bytes) = (cluster.log.len(), frame.encode());
        cluster.give(0, Input::Request { id: 7, peer: key(1), protocol: Protocol::Sync, bytes });
        cluster.settle();
        let answer = |output: &&Output| match output {
            Output::Respond { bytes, .. } => Some(SyncAnswer::decode(bytes).unwrap()),
            _ => None,
        };
        cluster.outputs(0, since).iter().find_map(answer).unwrap()
    };
    let root = || SyncRequest::Children { prefixes: vec![Prefix::ROOT] };
    for minutes in [-60 * 24, -4, 4, 60 * 24 * 8] {
        assert_eq!(ask(&mut cluster, minutes, root()), SyncAnswer::Refused, "{minutes}");
        let open = SyncRequest::Open { author: cluster.nodes[1].author(), clock: cluster.now };
        let clock = cluster.now;
        let opened = ask(&mut cluster, minutes, open);
        assert!(matches!(opened, SyncAnswer::Opened { clock: told, .. } if told == clock), "{opened:?}");
    }
    for minutes in [-2, 0, 2] {
        assert!(matches!(ask(&mut cluster, minutes, root()), SyncAnswer::Children(_)), "{minutes}");
    }
}

#[test]
fn renewals_wait_for_the_first_sync_where_peers_are_expected() {
    let mut cluster = Cluster::given_peers(2);
    cluster.register(0, offer("a", "x")).unwrap();
    let backup = cluster.rows[0].clone();
    cluster.deregister(0, "a").unwrap();
    cluster.restart(0, backup);
    cluster.pass(5 * DAY);
    assert_eq!(cluster.held(0, 0, "a").unwrap().seq, 1, "not renewed");
    cluster.link(0, 1);
    cluster.pass(MINUTE);
    assert!(!cluster.shows(0, "a") && !cluster.shows(1, "a"), "a deleted agent came back");
}

#[test]
fn renewal_is_made_near_half_life_and_keeps_the_agent_for_ever() {
    let mut cluster = Cluster::new(2);
    cluster.link(0, 1);
    cluster.register(0, offer("a", "x")).unwrap();
    cluster.pass(CARD_LIFE.mul_f64(0.39));
    assert_eq!(cluster.held(1, 0, "a").unwrap().seq, 1);
    cluster.pass(CARD_LIFE.mul_f64(0.22));
    assert_eq!(cluster.held(1, 0, "a").unwrap().seq, 2);
}

#[test]
fn what_a_grant_ends_is_not_written_again_before_it_ends() {
    let mut cluster = Cluster::new(1);
    cluster.register(0, granted("a", vec![grant(1, 0, 0, SECOND * 2)])).unwrap();
    let since = cluster.log.len();
    cluster.pass(SECOND * 10);
    assert_eq!(cluster.published_since(0, since).len(), 0);
    assert!(!cluster.shows(0, "a"));
}

#[test]
fn a_lapsed_card_is_hidden_at_once_and_leaves_no_memory() {
    let mut cluster = Cluster::new(2);
    let greater = Header { expires_at: NOW + MINUTE, ..header(1, "a", NOW) };
    cluster.gossip(0, 1, message(greater, &body("greater"), 1));
    cluster.now = NOW + MINUTE - SECOND;
    assert!(cluster.shows(0, "a"));
    cluster.now = NOW + MINUTE;
    assert!(!cluster.shows(0, "a"));
    let lesser = Header { seq: 2, ..header(1, "a", NOW - SECOND) };
    assert_eq!(cluster.gossip(0, 1, message(lesser, &body("lesser"), 1)), Verdict::Accept);
    assert!(cluster.shows(0, "a"));
}

#[test]
fn a_name_gone_from_the_files_at_a_restart_is_withdrawn_and_a_refused_one_stays() {
    let mut cluster = Cluster::new(2);
    cluster.link(0, 1);
    cluster.register(0, offer("by-hand", "x")).unwrap();
    cluster.command(0, files(vec![offer("a", "x"), offer("b", "x")], Withdraw::Others));
    let rows = cluster.rows[0].clone();
    cluster.restart(0, rows);
    cluster.link(0, 1);
    let refused = offer("b", &"x".repeat(5_000));
    let reply = cluster.command(0, files(vec![refused], Withdraw::Others));
    assert!(matches!(reply, Reply::Registered(results) if results[0].is_err()));
    for at in [0, 1] {
        assert_eq!(["a", "b", "by-hand"].map(|agent| cluster.shows(at, agent)), [false, true, true]);
    }
}

fn files(offers: Vec<Offer>, withdraw: Withdraw) -> Command {
    Command::OfferFiles { offers, withdraw }
}

#[test]
fn what_files_offered_before_stays_until_it_is_known_to_be_gone() {
    let mut cluster = Cluster::new(1);
    let all = ["time", "time_now", "timer", "b"];
    let offers = || all.map(|name| offer(name, "x")).to_vec();
    let shown = |cluster: &mut Cluster| all.map(|agent| cluster.shows(0, agent));
    cluster.command(0, files(offers(), Withdraw::Others));
    let rows = cluster.rows[0].clone();
    cluster.restart(0, rows);
    cluster.command(0, files(vec![], Withdraw::Only(BTreeSet::from([name("b")]))));
    assert_eq!(shown(&mut cluster), [true, true, true, false], "only what is known to be gone goes");
    cluster.command(0, files(vec![offer("b", "x")], Withdraw::OthersBut(BTreeSet::from([name("time")]))));
    assert_eq!(shown(&mut cluster), [true, true, false, true], "an agent and what is below it stays");
    let rows = cluster.rows[0].clone();
    cluster.restart(0, rows);
    cluster.command(0, files(vec![offer("time", "x")], Withdraw::Others));
    assert_eq!(shown(&mut cluster), [true, false, false, false], "what stayed is still known to be of files");
}

#[test]
fn others_agents_and_other_zones_are_not_written() {
    let mut cluster = Cluster::new(2);
    cluster.link(0, 1);
    cluster.register(1, offer("a", "x")).unwrap();
    assert_eq!(cluster.deregister(0, "a"), Err(WriteError::NotYours(name("a"), key(1))));
    assert_eq!(cluster.deregister(0, "b"), Err(WriteError::NotFound(name("b"))));
    let zone: ZoneName = "acme.org".parse().unwrap();
    let elsewhere = Offer { zone: Some(zone.clone()), ..offer("a", "x") };
    assert_eq!(cluster.register(0, elsewhere), Err(WriteError::ZoneNotServed(zone)));
    cluster.register(0, offer("a", "y")).unwrap();
    cluster.deregister(0, "a").unwrap();
    assert!(cluster.shows(0, "a") && !cluster.held(0, 1, "a").unwrap().is_tombstone());
}

#[test]
fn an_owner_deletes_its_agent_on_every_host() {
    let mut cluster = Cluster::new(3);
    cluster.link(0, 1);
    cluster.link(0, 2);
    for host in [1, 2] {
        cluster.register(host, granted("a", vec![grant(0, host, 0, 30 * DAY)])).unwrap();
    }
    cluster.deregister(0, "a").unwrap();
    cluster.pass(MINUTE);
    assert!((0..3).all(|at| !cluster.shows(at, "a")));
}

#[test]
fn a_beacon_ahead_of_what_is_held_starts_a_sync_after_patience_and_backs_off() {
    let config = Config { sync_interval: 30 * DAY, ..Config::default() };
    let mut cluster = Cluster::with(vec![config.clone(), config]);
    for _ in 0..5 {
        // Equal registries were compared before: that says nothing of beacons.
        cluster.link(0, 1);
        cluster.pass(MINUTE);
        cluster.cut(0, 1);
    }
    cluster.link(0, 1);
    cluster.pass(MINUTE);
    let since = cluster.log.len();
    assert_eq!(cluster.gossip(0, 1, beacon(2, 5, 1, cluster.now, 9)), Verdict::Accept);
    cluster.pass(SECOND * 2);
    assert_eq!(asks(&cluster, 0, since), 0, "left to the mesh");
    cluster.pass(SECOND + SECOND / 2);
    assert_eq!(asks(&cluster, 0, since), 1);
    let mut counts = Vec::new();
    for counter in 2..12 {
        cluster.gossip(0, 1, beacon(2, 5, counter, cluster.now, 9));
        let since = cluster.log.len();
        cluster.pass(MINUTE);
        counts.push(asks(&cluster, 0, since));
    }
    assert!(counts[0] >= 2 && counts.iter().skip(5).sum::<usize>() <= 2, "{counts:?}");
}

#[test]
fn a_small_repair_is_published_again_one_a_message_and_a_large_one_is_not() {
    for (count, published) in [(1, 1), (200, 200), (300, 0)] {
        let mut cluster = Cluster::new(3);
        cluster.link(0, 1);
        cluster.pass(MINUTE);
        let many = (0..count).map(|at| offer(&format!("a{at}"), "x")).collect();
        cluster.command(2, Command::Register(many));
        cluster.pass(MINUTE);
        let since = cluster.log.len();
        cluster.link(0, 2);
        let again = cluster.published_since(0, since);
        let single = |bytes: &Vec<u8>| match Envelope::decode(bytes).unwrap() {
            Envelope::Records(records) => Some(records.len()),
            Envelope::Beacon(_) => None,
        };
        let sizes: Vec<usize> = again.iter().filter_map(single).collect();
        assert!(sizes.iter().all(|size| *size == 1));
        assert_eq!(sizes.len(), published, "{count} repaired");
        assert_eq!(cluster.held(1, 2, "a0").is_some(), published > 0);
        cluster.pass(2 * MINUTE);
        assert!(cluster.held(1, 2, "a0").is_some(), "the truth comes by sync");
    }
}

#[test]
fn prefixes_are_adopted_after_a_sync_and_fingerprints_agree_across_an_expiry() {
    let mut cluster = Cluster::new(2);
    for text in ["one", "two", "three"] {
        cluster.register(0, offer("a", text)).unwrap();
    }
    cluster.link(1, 0);
    let author = cluster.nodes[0].author();
    assert_eq!(cluster.nodes[1].versions(&ZoneName::root()), [(author, 3)]);
    let short = Header { expires_at: NOW + 90 * SECOND, ..header(2, "short", NOW) };
    cluster.gossip(0, 1, message(short, &body("x"), 2));
    cluster.now = NOW + 45 * SECOND;
    assert!(cluster.shows(0, "short") && cluster.held(1, 2, "short").is_none());
    let as_of = aop::proto::fingerprint::as_of(cluster.now);
    assert!(as_of >= NOW + 90 * SECOND, "it ends before {as_of}");
    assert_eq!(cluster.fingerprint(0), cluster.fingerprint(1));
}

#[test]
fn forks_of_strangers_are_counted_and_those_this_node_relies_on_are_an_alarm() {
    let config = Config { bootstrap_peers: vec![key(2)], ..Config::default() };
    let mut cluster = Cluster::with(vec![config, Config::default()]);
    let forked = |host| NodeAlert::ForkedAuthor(Author { key: key(host), epoch: 77 });
    let callable = codec::encode(&AgentCard { callable: true, ..AgentCard::default() });
    let fork = |cluster: &mut Cluster, host: usize| {
        for agent in ["a", "b"] {
            let message = message(header(host, &format!("{agent}{host}"), NOW), &callable, host);
            assert_eq!(cluster.gossip(0, 1, message), Verdict::Accept);
        }
    };
    fork(&mut cluster, 1);
    assert_eq!(cluster.problems(0), []);
    assert_eq!(cluster.nodes[0].forks().collect::<Vec<_>>(), [(Author { key: key(1), epoch: 77 }, NOW)]);
    assert_eq!(cluster.nodes[0].refused()[&Code::ForkedAuthor], 1);
    cluster.command(0, Command::ResolveForCall("a1".into()));
    assert_eq!(cluster.problems(0), [forked(1)], "its host is called from here");
    fork(&mut cluster, 2);
    assert_eq!(cluster.problems(0), [forked(1), forked(2)], "a bootstrap peer");
    cluster.now = cluster.now + MINUTE;
    for stranger in 3..250 {
        fork(&mut cluster, stranger);
    }
    cluster.command(0, Command::ResolveForCall("a249".into()));
    assert_eq!(cluster.problems(0).len(), 3);
    assert!(cluster.nodes[0].alerts().contains(&(forked(249), NOW + MINUTE)), "since it was noticed");
}

#[test]
fn a_clock_off_from_peers_that_nobody_named_is_told_and_refuses_nothing() {
    let mut cluster = Cluster::new(2);
    cluster.clocks[1] = 40_000;
    cluster.link(0, 1);
    let problems = cluster.problems(0);
    assert!(matches!(problems.as_slice(), [NodeAlert::ClockOff(off)] if *off > 39_000), "{problems:?}");
    assert!(!problems[0].degrades());
    cluster.register(0, offer("a", "x")).unwrap();
    cluster.clocks[1] = 0;
    cluster.pass(MINUTE);
    assert_eq!(cluster.problems(0), []);
}

#[test]
fn a_forged_record_in_a_sync_ends_it_and_is_not_taken() {
    let mut cluster = Cluster::new(2);
    let now = cluster.clock(0);
    let forged = signed(header(1, "a", NOW), &body("x"), 0);
    let joined = aop::proto::io::Dialed::ByUs;
    cluster.nodes[0].handle(
        now,
        aop::proto::io::Input::PeerJoined { peer: key(1), zone: ZoneName::root(), dialed: joined },
    );
    let mut closed = false;
    while let Some(output) = cluster.nodes[0].poll_output() {
        if let Output::Request { conversation, bytes, .. } = &output {
            let full = aop::proto::fingerprint::Digest([1; 32]);
            let answer = match SyncFrame::decode(bytes).unwrap().request {
                SyncRequest::Open { .. } => SyncAnswer::Opened {
                    root: full,
                    head: 0,
                    clock: now,
                    heard: None,
                    whole: true,
                    alive: Vec::new(),
                },
                SyncRequest::Children { prefixes } => SyncAnswer::Children(vec![full; prefixes.len() * 16]),
                _ => {
                    SyncAnswer::Records { records: vec![ByteBuf::from(forged.bytes().to_vec())], next: None }
                }
            };
            let bytes = answer.encode();
            cluster.nodes[0]
                .handle(now, aop::proto::io::Input::Response { conversation: *conversation, bytes });
        }
        closed |= matches!(output, Output::EndConversation { .. });
        cluster.log.push((0, output));
    }
    assert!(closed);
    assert_eq!(penalties(&cluster, 0, 0), ["bad_signature", "bad_sync"]);
    assert_eq!(cluster.nodes[0].records(&ZoneName::root()).count(), 0);
}

#[test]
fn an_agent_made_private_leaves_the_world() {
    let mut cluster = Cluster::new(2);
    cluster.link(0, 1);
    cluster.register(0, offer("a", "x")).unwrap();
    cluster.register(0, Offer { scope: Scope::Node, ..offer("a", "x") }).unwrap();
    cluster.pass(MINUTE);
    assert!(cluster.shows(0, "a") && !cluster.shows(1, "a"));
    assert_eq!(cluster.fingerprint(0), cluster.fingerprint(1));
}

#[test]
fn a_suspended_node_syncs_at_once_and_takes_even_the_newest() {
    let mut cluster = Cluster::new(2);
    cluster.link(0, 1);
    cluster.pass(MINUTE);
    let fresh = Header { seq: 1, ..header(2, "a", cluster.now + 40 * SECOND) };
    cluster.now = cluster.now + 40 * SECOND;
    cluster.gossip(1, 0, message(fresh, &body("x"), 2));
    let now = cluster.clock(0);
    cluster.nodes[0].handle_timeout(now);
    cluster.settle();
    assert!(cluster.shows(0, "a"));
    let synced = |output: &Output| matches!(output, Output::Event(Event::Synced { .. }));
    assert!(cluster.log.iter().any(|(at, output)| *at == 0 && synced(output)));
}
