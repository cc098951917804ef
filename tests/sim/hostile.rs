//! The protocol among hostile machines: drawn worlds, and one directed world for each kind of hostility. `seeds.rs` says how
//! to play more of the drawn ones, or one again.

mod collision;

use aop::proto::code::Code;
use aop::proto::limits::MESSAGE_RECORDS_MAX;
use aop::proto::message::Envelope;
use aop::sim::{Behaviour, ClientOp, Conditions, Fault, Graph, Names, RestartFrom, Setup, World};

use crate::actions::{agents, name, names, offer, offer_and_withdraw, offer_one_each, run, settle};
use crate::seeds;
use serde_bytes::ByteBuf;

/// Drawn worlds played by default.
const SEEDS: u64 = 100;

#[test]
fn honest_nodes_keep_their_promises_among_hostile_ones() {
    seeds::play_seeds(SEEDS, "hostile::replay", |seed| aop::sim::play_hostile(seed).map(|_| ()));
}

#[test]
fn replay() {
    seeds::replay(aop::sim::play_hostile_told);
}

#[test]
fn nodes_that_forward_nothing_hold_up_nobody_for_long() {
    const MACHINES: usize = 24;
    let is_mute = |machine: usize| !machine.is_multiple_of(3);
    let graph = Graph::Random(4);
    let mut world = World::new(1, Setup { nodes: MACHINES, graph, ..Setup::default() });
    for machine in (0..MACHINES).filter(|at| is_mute(*at)) {
        world.corrupt(machine, Behaviour::Mute);
    }
    start(&mut world, 0..MACHINES);
    offer_one_each(&mut world, MACHINES);
    run(&mut world, 60_000);
    for machine in (0..MACHINES).filter(|at| !is_mute(*at)) {
        assert_eq!(names(&mut world, machine).len(), MACHINES, "machine {machine}");
    }
    settle(&mut world);
}

#[test]
fn a_flood_of_sybils_takes_later_slots_than_honest_nodes_need_and_pushes_out_nothing() {
    let mut world = World::new(1, Setup { nodes: 12, zone_weight_max: 160 * 1024, ..Setup::default() });
    for machine in 6..12 {
        world.corrupt(machine, Behaviour::Sybil { offers: 60 });
    }
    start(&mut world, 0..12);
    for machine in 0..6 {
        let offers = (0..10).map(|number| (name(&format!("own-{machine}-{number}")), "text".into()));
        world.submit(machine, ClientOp::Offer(offers.collect()));
    }
    run(&mut world, 30_000);
    for machine in 0..6 {
        assert_eq!(names_of_nodes(&mut world, machine), 60, "machine {machine}");
    }
    settle(&mut world);
    let foreign = world.adversary_report().foreign_records;
    assert!((60.0..150.0).contains(&foreign), "{foreign}: the zone is full, and 60 more are honest");
}

#[test]
fn a_zone_that_a_flood_fills_up_is_the_same_everywhere() {
    let mut world = World::new(1, Setup { nodes: 7, zone_weight_max: 32 * 1024, ..Setup::default() });
    for machine in 4..7 {
        world.corrupt(machine, Behaviour::Sybil { offers: 60 });
    }
    start(&mut world, 0..7);
    settle(&mut world);
    let held = world.adversary_report().foreign_records;
    assert!((20.0..60.0).contains(&held), "{held} records of some 1,150 in 32 KiB");
}

#[test]
fn keys_that_fill_a_zone_from_their_first_slots_up_push_out_nobodys_first_ones() {
    // Each of the keys has as many first slots as an honest node needs, and all of these fit.
    for (identities, names) in [(1, Names::Plain), (1, Names::Ground), (4, Names::Ground)] {
        let mut world = World::new(1, Setup { nodes: 8, zone_weight_max: 160 * 1024, ..Setup::default() });
        for machine in 6..8 {
            world.corrupt(machine, Behaviour::Fill { records: 400, identities, names });
        }
        start(&mut world, 0..8);
        // What fills it is there first, and more than it holds.
        run(&mut world, 10_000);
        for machine in 0..6 {
            let offers = (0..10).map(|number| (name(&format!("own-{machine}-{number}")), "text".into()));
            world.submit(machine, ClientOp::Offer(offers.collect()));
        }
        run(&mut world, 30_000);
        for machine in 0..6 {
            let own = names_of_nodes(&mut world, machine);
            assert_eq!(own, 60, "machine {machine} beside {identities} keys with {names:?} names");
        }
        settle(&mut world);
        let foreign = world.adversary_report().foreign_records;
        assert!((60.0..200.0).contains(&foreign), "{foreign}: of 800 some have room beside 60 honest ones");
    }
}

#[test]
fn beacons_of_keys_that_nobody_met_make_no_members_and_slow_nobody_down() {
    let mut world = World::new(1, Setup { nodes: 6, ..Setup::default() });
    world.corrupt(5, Behaviour::FalseBeacons { beacons: 3_000 });
    start(&mut world, 0..6);
    run(&mut world, 60_000);
    for machine in 0..5 {
        let (node, now) = world.node(machine).expect("it runs");
        assert_eq!(node.zone_states(now)[0].members, 6, "machine {machine}");
        let ignored = node.refused().get(&Code::ExcessBeacon).copied().unwrap_or(0);
        assert!(ignored > 2_000, "machine {machine} ignored {ignored}");
    }
    settle(&mut world);
}

#[test]
fn peers_that_stall_keep_nobody_from_what_others_hold() {
    // The mesh loses everything: what is known comes by comparison.
    let conditions = Conditions { loss: 1.0, ..Conditions::default() };
    let mut world = World::new(1, Setup { nodes: 7, conditions, graph: Graph::Whole, ..Setup::default() });
    for machine in 4..7 {
        world.corrupt(machine, Behaviour::Stall);
    }
    start(&mut world, 0..7);
    offer_one_each(&mut world, 4);
    run(&mut world, 300_000);
    for machine in 0..4 {
        assert_eq!(names(&mut world, machine).len(), 4, "machine {machine}");
    }
    settle(&mut world);
}

#[test]
fn a_restored_backup_that_first_hears_a_peer_who_knows_nothing_renews_nothing_that_was_deleted() {
    let mut world = World::new(1, Setup { nodes: 5, graph: Graph::Whole, ..Setup::default() });
    world.corrupt(4, Behaviour::Stale);
    start(&mut world, 0..5);
    world.submit(0, offer("deleted", "text"));
    run(&mut world, 10_000);
    world.fault(Fault::BackUp(0));
    run(&mut world, 1_000);
    world.submit(0, ClientOp::Withdraw(name("deleted")));
    run(&mut world, 10_000);
    world.fault(Fault::Eclipse(Some(0)));
    world.fault(Fault::Crash { node: 0, from: RestartFrom::Backup, down_ms: 30_000 });
    run(&mut world, 10_000);
    // The lease in the backup is past its half life, and the tombstone of the others still lives.
    world.skip(5 * 24 * 3_600_000);
    run(&mut world, 50_000);
    let (node, _) = world.node(0).expect("it runs");
    assert!(node.is_synced(), "it was compared with the peer who knows nothing");
    world.fault(Fault::Eclipse(None));
    run(&mut world, 60_000);
    settle(&mut world);
    for machine in 0..4 {
        assert_eq!(names(&mut world, machine), Vec::<String>::new(), "machine {machine}");
    }
}

#[test]
fn a_node_that_saw_only_an_adversary_becomes_complete_once_it_sees_another() {
    for behaviour in [Behaviour::Stale, Behaviour::Mute] {
        let mut world = World::new(1, Setup { nodes: 8, ..Setup::default() });
        world.corrupt(5, Behaviour::Stale);
        start(&mut world, 0..8);
        for machine in 0..5 {
            world.submit(machine, offer(&format!("before-{machine}"), "text"));
        }
        run(&mut world, 10_000);
        world.corrupt(6, Behaviour::Stale);
        world.corrupt(7, behaviour);
        world.fault(Fault::Eclipse(Some(0)));
        run(&mut world, 10_000);
        for machine in 0..5 {
            world.submit(machine, offer(&format!("during-{machine}"), "text"));
        }
        world.submit(1, ClientOp::Withdraw(name("before-1")));
        run(&mut world, 60_000);
        if behaviour == Behaviour::Stale {
            assert!(!names(&mut world, 0).contains(&"during-1@.".into()), "nobody tells the victim");
            assert!(!names(&mut world, 1).contains(&"during-0@.".into()), "nobody hears of the victim");
        }
        world.fault(Fault::Eclipse(None));
        run(&mut world, 10_000);
        for machine in 0..5 {
            let found = names(&mut world, machine);
            assert_eq!(found.len(), 9, "machine {machine}: {found:?}");
        }
        settle(&mut world);
    }
}

#[test]
fn two_records_of_one_version_part_nobody_and_everybody_sees_the_fork() {
    let mut world = World::new(1, Setup { nodes: 8, graph: Graph::Whole, ..Setup::default() });
    world.corrupt(0, Behaviour::Equivocate);
    start(&mut world, 0..8);
    for number in 0..6 {
        world.submit(0, offer(&format!("forked-{number}"), "text"));
        world.submit(7, offer(&format!("plain-{number}"), "text"));
        run(&mut world, 5_000);
    }
    settle(&mut world);
    assert_eq!(world.adversary_report().forks_seen, 1.0);
    // Three of the twins have keys of their own, two of these the slots of the others: one of two stands.
    assert_eq!(world.adversary_report().foreign_records, 7.0);
    let seen = names(&mut world, 1);
    assert!((2..8).all(|machine| names(&mut world, machine) == seen));
}

#[test]
fn a_lying_peer_is_blamed_and_keeps_nobody_from_the_truth() {
    // Where the mesh loses everything all comes by comparison.
    for loss in [0.0, 1.0] {
        let conditions = Conditions { loss, ..Conditions::default() };
        let mut world = World::new(1, Setup { nodes: 7, conditions, ..Setup::default() });
        for machine in 4..7 {
            world.corrupt(machine, Behaviour::Lie);
        }
        start(&mut world, [0, 1, 2, 4, 5, 6]);
        offer_and_withdraw(&mut world, 3, 120_000);
        // A joiner that hears of six peers of which three lie.
        world.start(3, RestartFrom::Disk);
        run(&mut world, 240_000);
        for machine in 0..4 {
            assert_eq!(names(&mut world, machine), ["kept-0@.", "kept-1@.", "kept-2@."], "machine {machine}");
        }
        settle(&mut world);
        let blamed = world.adversary_report().blamed;
        for reason in ["bad_sync", "malformed", "bad_signature", "foreign_network", "bad_lease"] {
            assert!(blamed.contains_key(reason), "loss {loss}: {reason} is not among {blamed:?}");
        }
        let for_time = blamed.keys().find(|reason| matches!(**reason, "expired" | "future"));
        assert_eq!(for_time, None);
    }
}

#[test]
fn chosen_records_with_one_sum_do_not_hide_that_two_halves_differ() {
    let [one, other] = collision::sets();
    let mut world = World::new(1, Setup { nodes: 6, ..Setup::default() });
    world.corrupt(2, Behaviour::Stale);
    world.corrupt(5, Behaviour::Stale);
    start(&mut world, 0..6);
    world.fault(Fault::Part(vec![0, 0, 0, 1, 1, 1]));
    run(&mut world, 10_000);
    for (machine, records) in [(2, &one), (5, &other)] {
        for batch in records.chunks(MESSAGE_RECORDS_MAX) {
            let batch = batch.iter().map(|bytes| ByteBuf::from(bytes.clone())).collect();
            world.inject(machine, Envelope::Records(batch).encode());
        }
    }
    run(&mut world, 10_000);
    assert_eq!(world.adversary_report().foreign_records, one.len() as f64);
    assert_ne!(texts(&mut world, 0), texts(&mut world, 3));
    world.fault(Fault::Part(vec![0; 6]));
    settle(&mut world);
    assert_eq!(texts(&mut world, 0), texts(&mut world, 3));
}

#[test]
fn a_hostile_world_replays_from_its_seed() {
    let trace = |seed| aop::sim::play_hostile(seed).expect("a run that keeps its promises").trace;
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}

/// Starts machines and lets them connect.
fn start(world: &mut World, machines: impl IntoIterator<Item = usize>) {
    for machine in machines {
        world.start(machine, RestartFrom::Disk);
    }
    run(world, 10_000);
}

/// How many agents of honest nodes a machine serves.
fn names_of_nodes(world: &mut World, machine: usize) -> usize {
    names(world, machine).iter().filter(|name| name.starts_with("own-")).count()
}

/// Descriptions of all agents a machine serves, by name.
fn texts(world: &mut World, machine: usize) -> Vec<String> {
    agents(world, machine).iter().map(|found| found.card().description).collect()
}
