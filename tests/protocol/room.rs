//! Room in a zone: slots, shelves, and what a folder does that does not know what stands on its own.

use std::collections::BTreeMap;

use aop::proto::io::{Command, NodeAlert, Reply, Verdict};
use aop::proto::limits::SLOTS_UNKNOWN_FROM;
use aop::proto::name::ZoneName;
use aop::proto::record::Header;
use aop::proto::registration::WriteError;

use crate::rules::cluster::{Cluster, DAY, NOW, name, offer};
use crate::rules::{MINUTE, body, header, message};

/// What a zone may weigh that has room for three of the cards here.
const ROOM_FOR_THREE: usize = 3_600;

#[test]
fn a_full_zone_keeps_the_first_slots_in_any_order_of_arrival() {
    let slotted = |at: u16| Header { seq: u64::from(at) + 1, slot: at, ..header(1, &format!("a{at}"), NOW) };
    let records: Vec<_> = (0..8).map(|at| message(slotted(at), &body("x"), 1)).collect();
    for order in [[0, 1, 2, 3, 4, 5, 6, 7], [7, 6, 5, 4, 3, 2, 1, 0], [3, 0, 7, 1, 6, 2, 5, 4]] {
        let mut cluster = Cluster::new(1);
        cluster.nodes[0] = cluster.open(0, ROOM_FOR_THREE);
        for at in order {
            assert_ne!(cluster.gossip(0, 1, records[at].clone()), Verdict::Reject);
        }
        let mut kept: Vec<u16> = cluster.nodes[0].records(&ZoneName::root()).map(|it| it.slot).collect();
        kept.sort_unstable();
        assert_eq!(kept, [0, 1, 2]);
        assert_eq!(cluster.rows[0].keys().filter(|row| row[0] == b'r').count(), 3);
    }
}

#[test]
fn a_new_key_takes_the_lowest_free_slot_and_keeps_it_in_renewals_and_in_its_tombstone() {
    let mut cluster = Cluster::new(1);
    for name in ["a", "b", "c"] {
        cluster.register(0, offer(name, "x")).unwrap();
    }
    cluster.deregister(0, "b").unwrap();
    cluster.register(0, offer("d", "x")).unwrap();
    cluster.register(0, offer("a", "y")).unwrap();
    let slot = |cluster: &Cluster, name: &str| cluster.held(0, 0, name).unwrap().slot;
    assert_eq!(["a", "b", "c", "d"].map(|name| slot(&cluster, name)), [0, 1, 2, 3]);
    cluster.pass(8 * DAY);
    cluster.register(0, offer("e", "x")).unwrap();
    assert_eq!(slot(&cluster, "e"), 1, "its tombstone has ended");
    assert_eq!(["a", "c", "d"].map(|name| slot(&cluster, name)), [0, 2, 3]);
}

#[test]
fn an_own_write_without_room_is_refused_and_what_is_squeezed_out_stands_again_when_there_is_room() {
    let mut cluster = Cluster::new(1);
    cluster.nodes[0] = cluster.open(0, ROOM_FOR_THREE);
    for name in ["a", "b", "c"] {
        cluster.register(0, offer(name, "x")).unwrap();
    }
    let root = ZoneName::root();
    assert_eq!(cluster.register(0, offer("d", "x")), Err(WriteError::ZoneFull(root.clone())));
    assert!(!cluster.shows(0, "d"));
    let strangers = [1, 2].map(|stranger| {
        let short = Header { slot: 0, expires_at: NOW + 60 * MINUTE, ..header(stranger, "z", NOW) };
        message(short, &body("x"), stranger)
    });
    for (at, stranger) in strangers.into_iter().enumerate() {
        cluster.gossip(0, at + 1, stranger);
    }
    assert!(cluster.shows(0, "a") && !cluster.shows(0, "b") && !cluster.shows(0, "c"));
    assert_eq!(cluster.problems(0), [NodeAlert::ZoneFull(root)]);
    let own = cluster.rows[0].keys().filter(|row| row[0] == b'o').count();
    assert_eq!(own, 3, "what was acknowledged is kept");
    cluster.pass(90 * MINUTE);
    assert!(cluster.shows(0, "b") && cluster.shows(0, "c"), "tried again when there is room");
}

#[test]
fn a_saved_key_on_a_new_disk_keeps_its_agents_and_neither_renews_nor_buries_them_unasked() {
    let mut cluster = Cluster::given_peers(2);
    for name in ["a", "b", "c", "d"] {
        cluster.register(0, offer(name, "x")).unwrap();
    }
    cluster.deregister(0, "d").unwrap();
    cluster.pass(MINUTE);
    let before = cluster.nodes[1].records(&ZoneName::root()).cloned().collect::<Vec<_>>();
    cluster.restart(0, BTreeMap::new());
    cluster.register(0, offer("new", "x")).unwrap();
    assert_eq!(cluster.held(0, 0, "new").unwrap().slot, SLOTS_UNKNOWN_FROM, "below may stand what it forgot");
    assert_eq!(cluster.deregister(0, "new"), Err(WriteError::Pending(name("new"))));
    cluster.link(0, 1);
    cluster.pass(60 * MINUTE);
    for record in &before {
        for at in [0, 1] {
            let held = cluster.nodes[at].record(&ZoneName::root(), &record.key());
            assert_eq!(held.map(|held| held.hash()), Some(record.hash()), "{record:?} at {at}");
        }
    }
    assert_eq!(cluster.held(1, 0, "new").unwrap().slot, 4, "at its place since the first sync");
    assert_eq!(cluster.problems(0), [NodeAlert::RestoredKey]);
    assert_eq!(cluster.nodes[0].restored().count(), 3);
    let adopted = |cluster: &mut Cluster, agent: &str| match cluster.command(0, Command::Adopt(name(agent))) {
        Reply::Adopted(result) => result,
        other => panic!("{other:?}"),
    };
    adopted(&mut cluster, "a").unwrap();
    cluster.register(0, offer("b", "y")).unwrap();
    cluster.deregister(0, "c").unwrap();
    assert_eq!(adopted(&mut cluster, "d"), Err(WriteError::NotFound(name("d"))));
    assert!(cluster.problems(0).is_empty());
    cluster.pass(5 * DAY);
    assert!(cluster.held(1, 0, "a").unwrap().author().epoch != before[0].author().epoch, "renewed");
    assert_eq!(
        ["a", "b", "c", "d", "new"].map(|name| cluster.shows(1, name)),
        [true, true, false, false, true]
    );
}

#[test]
fn agents_of_a_saved_key_that_nobody_adopts_end_with_their_leases() {
    let mut cluster = Cluster::new(2);
    cluster.link(0, 1);
    cluster.register(0, offer("a", "x")).unwrap();
    cluster.restart(0, BTreeMap::new());
    cluster.link(0, 1);
    let rows = cluster.rows[0].clone();
    cluster.restart(0, rows);
    assert_eq!(cluster.problems(0), [NodeAlert::RestoredKey], "told again after a restart");
    cluster.link(0, 1);
    cluster.pass(7 * DAY + 10 * MINUTE);
    assert!(cluster.held(0, 0, "a").is_none() && cluster.held(1, 0, "a").is_none());
    assert!(cluster.problems(0).is_empty());
}

#[test]
fn a_restored_backup_does_not_take_an_earlier_write_back_over_a_later_one() {
    let mut cluster = Cluster::given_peers(2);
    cluster.register(0, offer("kept", "x")).unwrap();
    let backup = cluster.rows[0].clone();
    for text in ["lost", "lost with the disk"] {
        cluster.register(0, offer("a", text)).unwrap();
    }
    cluster.restart(0, backup);
    cluster.pass(MINUTE);
    cluster.register(0, offer("a", "later")).unwrap();
    assert_eq!(cluster.held(0, 0, "a").unwrap().slot, SLOTS_UNKNOWN_FROM, "the lost one stands below");
    cluster.link(0, 1);
    cluster.pass(MINUTE);
    for at in [0, 1] {
        let held = cluster.held(at, 0, "a").unwrap();
        assert_eq!((held.card().unwrap().description.as_str(), held.slot), ("later", 1), "at {at}");
    }
}

#[test]
fn what_was_put_far_up_in_a_full_zone_comes_to_its_place_although_there_is_never_room_far_up() {
    let mut cluster = Cluster::given_peers(2);
    cluster.register(0, offer("old", "x")).unwrap();
    cluster.restart(0, BTreeMap::new());
    for at in [0, 1] {
        cluster.nodes[at] = cluster.open(at, 2 * ROOM_FOR_THREE);
    }
    cluster.register(0, offer("new", "x")).unwrap();
    for slot in 0..8 {
        let filling = Header { seq: u64::from(slot) + 1, slot, ..header(2, &format!("f{slot}"), NOW) };
        let bytes = message(filling, &body("x"), 2);
        for at in [0, 1] {
            cluster.gossip(at, 1 - at, bytes.clone());
        }
    }
    assert!(!cluster.shows(0, "new"));
    cluster.link(0, 1);
    cluster.pass(10 * MINUTE);
    assert_eq!(cluster.held(1, 0, "new").map(|new| new.slot), Some(1));
}

#[test]
fn a_peer_that_knows_nothing_makes_no_saved_key_take_the_slots_of_its_own_agents() {
    let mut cluster = Cluster::given_peers(3);
    cluster.register(0, offer("old", "x")).unwrap();
    cluster.restart(0, BTreeMap::new());
    cluster.link(0, 2);
    cluster.pass(MINUTE / 2);
    cluster.register(0, offer("new", "x")).unwrap();
    cluster.link(0, 1);
    cluster.pass(5 * MINUTE);
    for at in [0, 1, 2] {
        let slots = ["old", "new"].map(|name| cluster.held(at, 0, name).map(|held| held.slot));
        assert_eq!(slots, [Some(0), Some(1)], "at {at}");
    }
}
