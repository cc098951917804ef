//! Two processes with one key (protocol section 2): each that hears of the other refuses its own writes and says why; nobody
//! who only kept what a node said can make it refuse.

use std::collections::BTreeMap;

use aop::proto::io::NodeAlert;
use aop::proto::record::Header;
use aop::proto::registration::WriteError;
use aop::proto::time::Timestamp;

use crate::rules::cluster::{Cluster, SECOND, key, offer};
use crate::rules::{beacon, body, header, message};

/// Longer than a sign of another process counts.
const SIGN_LIFE_AND_MORE: std::time::Duration = SECOND.saturating_mul(185);

/// A node, its peer, and some time since its start.
fn running() -> Cluster {
    let mut cluster = Cluster::new(2);
    cluster.link(0, 1);
    cluster.register(0, offer("mine", "x")).unwrap();
    cluster.pass(10 * SECOND);
    cluster
}

/// What another process with the key of node 0 says of itself at that time.
fn sign(clock: Timestamp) -> Vec<u8> {
    beacon(0, 77, clock.0 + 5, clock, 3)
}

#[test]
fn a_beacon_of_the_own_key_that_another_process_sent_refuses_writes_for_as_long_as_such_come() {
    let mut cluster = running();
    for _ in 0..3 {
        let sent = sign(cluster.now);
        cluster.gossip(0, 1, sent);
        assert_eq!(cluster.problems(0), [NodeAlert::KeyInUse]);
        assert_eq!(cluster.register(0, offer("late", "x")), Err(WriteError::DuplicateIdentity));
        assert_eq!(cluster.deregister(0, "mine"), Err(WriteError::DuplicateIdentity));
        cluster.pass(100 * SECOND);
    }
    assert!(cluster.shows(0, "mine") && cluster.shows(1, "mine"), "what was written before is served");
    cluster.pass(SIGN_LIFE_AND_MORE);
    assert_eq!(cluster.problems(0), []);
    cluster.register(0, offer("late", "x")).unwrap();
    assert!(cluster.shows(1, "late"));
}

#[test]
fn what_a_node_said_itself_shows_no_other_process_in_this_run_nor_in_the_next() {
    let mut cluster = running();
    cluster.pass(60 * SECOND);
    let said = cluster.published_since(0, 0);
    assert!(said.len() > 3, "beacons and a record");
    for bytes in &said {
        cluster.gossip(0, 1, bytes.clone());
        assert_eq!(cluster.problems(0), []);
    }
    let rows = cluster.rows[0].clone();
    cluster.restart(0, rows);
    cluster.link(0, 1);
    cluster.pass(SECOND);
    for bytes in said {
        cluster.gossip(0, 1, bytes);
        assert_eq!(cluster.problems(0), []);
    }
    cluster.register(0, offer("late", "x")).unwrap();
    // A new folder knows none of it.
    cluster.restart(0, BTreeMap::new());
    cluster.link(0, 1);
    cluster.pass(5 * SECOND);
    assert_eq!(cluster.problems(0), [NodeAlert::RestoredKey]);
}

#[test]
fn a_sign_counts_only_as_signed_near_in_time_and_of_this_network_and_zone() {
    let now = running().now;
    let mut forged = sign(now);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let minutes = |count: u32| 60 * SECOND * count;
    for (what, bytes) in [
        ("of another key", beacon(1, 77, now.0 + 5, now, 3)),
        ("far ahead", sign(now + minutes(5))),
        ("long ago", sign(now - minutes(5))),
        ("forged", forged),
    ] {
        let mut cluster = running();
        cluster.gossip(0, 1, bytes);
        assert_eq!(cluster.problems(0), [], "{what}");
    }
}

#[test]
fn a_peer_that_hears_both_shows_each_the_other() {
    let mut cluster = running();
    let sent = sign(cluster.now);
    // Over a connection of the same peer, as far as node 1 can tell.
    cluster.gossip(1, 0, sent);
    assert_eq!(cluster.problems(0), []);
    // Where two processes have one key, each has the other's connections closed.
    cluster.cut(0, 1);
    cluster.pass(SECOND);
    cluster.link(0, 1);
    cluster.pass(5 * SECOND);
    assert_eq!(cluster.problems(0), [NodeAlert::KeyInUse]);
}

#[test]
fn a_record_that_another_process_wrote_is_a_sign_and_becomes_nobodys_own_without_a_word_of_the_operator() {
    let mut cluster = running();
    let author = cluster.nodes[0].author();
    // The copied folder goes on in the same epoch, with the same versions.
    let theirs = Header { author, seq: 9, ..header(0, "theirs", cluster.now) };
    cluster.gossip(0, 1, message(theirs, &body("x"), 0));
    assert_eq!(cluster.problems(0), [NodeAlert::KeyInUse, NodeAlert::RestoredKey]);
    assert_eq!(cluster.register(0, offer("late", "x")), Err(WriteError::DuplicateIdentity));
    assert_ne!(cluster.nodes[0].author(), author, "from now on the versions of the two are told apart");
    cluster.pass(SIGN_LIFE_AND_MORE);
    assert_eq!(
        cluster.problems(0),
        [NodeAlert::RestoredKey],
        "it is for the operator to say what becomes of it"
    );
    cluster.register(0, offer("late", "x")).unwrap();
    let late = cluster.held(0, 0, "late").unwrap();
    assert_eq!((late.author().key, late.seq), (key(0), 1));
}

#[test]
fn a_record_of_a_copied_folder_is_a_sign_though_its_slot_is_taken() {
    let mut cluster = running();
    let own = cluster.held(0, 0, "mine").unwrap();
    // Later in the order of content than the own record of the slot, and earlier.
    for byte in 0..8 {
        let name = format!("theirs-{byte}");
        let copied =
            Header { author: own.author(), seq: own.seq, slot: own.slot, ..header(0, &name, cluster.now) };
        let mut cluster = running();
        cluster.gossip(0, 1, message(copied, &body("x"), 0));
        assert!(cluster.problems(0).contains(&NodeAlert::KeyInUse), "{name}: {:?}", cluster.problems(0));
    }
    assert_eq!(cluster.problems(0), []);
    cluster.register(0, offer("more", "x")).unwrap();
}

#[test]
fn a_write_over_an_own_agent_is_answered_when_nothing_is_heard_of_the_other_process_any_more() {
    let mut cluster = running();
    let slot = cluster.held(0, 0, "mine").unwrap().slot;
    let theirs = Header { seq: 9, slot, ..header(0, "mine", cluster.now) };
    cluster.gossip(0, 1, message(theirs, &body("theirs"), 0));
    let description =
        |cluster: &Cluster, at| cluster.held(at, 0, "mine").unwrap().card().unwrap().description.clone();
    assert_eq!(description(&cluster, 0), "theirs");
    assert_eq!(cluster.problems(0), [NodeAlert::KeyInUse]);
    cluster.pass(SIGN_LIFE_AND_MORE);
    assert_eq!([0, 1].map(|at| description(&cluster, at)), ["x", "x"]);
    assert_eq!(cluster.problems(0), []);
}
