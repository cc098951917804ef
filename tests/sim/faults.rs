//! The protocol under faults: many seeds, each a world of its own; `seeds.rs` says how to play more, or one again.

use aop::proto::io::NodeAlert;
use aop::proto::record::RecordHash;
use aop::sim::{ClientOp, Conditions, Fault, RestartFrom, Setup, World};

use crate::actions::{agents as found, name, names, offer, offer_and_withdraw, offer_one_each, run, settle};
use crate::seeds;

/// Seeds played by default: less than a minute unoptimised on two cores.
const SEEDS: u64 = 100;

#[test]
fn five_nodes_keep_their_promises_through_every_fault() {
    seeds::play_seeds(SEEDS, "faults::replay", |seed| aop::sim::play(seed).map(|_| ()));
}

#[test]
fn replay() {
    seeds::replay(aop::sim::play_told);
}

#[test]
fn a_seed_replays_one_run_and_no_other() {
    let trace = |seed| aop::sim::play(seed).expect("a run that keeps its promises").trace;
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}

#[test]
fn a_partition_of_any_length_heals() {
    const HOUR_MS: u64 = 3_600_000;
    for (seed, asleep_ms) in
        [0, HOUR_MS, 71 * HOUR_MS, 8 * 24 * HOUR_MS, 40 * 24 * HOUR_MS].into_iter().enumerate()
    {
        let mut world = begun(seed as u64, 6, 6);
        for machine in 0..6 {
            world.submit(machine, offer(&format!("before-{machine}"), "before"));
            world.submit(machine, offer(&format!("deleted-{machine}"), "before"));
        }
        run(&mut world, 20_000);
        world.fault(Fault::Part(vec![0, 0, 1, 1, 2, 2]));
        run(&mut world, 60_000);
        for machine in 0..6 {
            world.submit(machine, offer(&format!("before-{machine}"), "during"));
            world.submit(machine, offer(&format!("new-{machine}"), "during"));
            world.submit(machine, ClientOp::Withdraw(name(&format!("deleted-{machine}"))));
        }
        world.skip(asleep_ms);
        run(&mut world, 120_000);
        assert!(!names(&mut world, 0).contains(&"new-5@.".into()), "the parts do not see each other");
        settle(&mut world);
        for machine in 0..6 {
            let found = names(&mut world, machine);
            assert_eq!(found.len(), 12, "{found:?}");
            assert!(found.iter().all(|name| !name.starts_with("deleted")), "{found:?}");
        }
    }
}

#[test]
fn a_joiner_becomes_complete_in_one_sync() {
    const RECORDS: usize = 2_000;
    let mut world = begun(1, 3, 2);
    for batch in 0..RECORDS / 100 {
        let offers = (0..100).map(|number| (name(&format!("agent-{batch}-{number}")), "text".into()));
        world.submit(batch % 2, ClientOp::Offer(offers.collect()));
    }
    run(&mut world, 60_000);
    assert_eq!(agents(&mut world, 1), RECORDS);
    world.start(2, RestartFrom::Disk);
    // Connecting takes up to three seconds; the stream takes the rest.
    run(&mut world, 8_000);
    assert_eq!(agents(&mut world, 2), RECORDS);
    settle(&mut world);
}

#[test]
fn a_late_joiner_sees_no_deleted_agent() {
    let mut world = begun(1, 4, 3);
    offer_and_withdraw(&mut world, 3, 30_000);
    world.start(3, RestartFrom::Disk);
    run(&mut world, 10_000);
    assert_eq!(names(&mut world, 3), ["kept-0@.", "kept-1@.", "kept-2@."]);
    settle(&mut world);
}

#[test]
fn a_restored_backup_does_not_bring_a_deleted_agent_back() {
    let mut world = begun(1, 3, 3);
    world.submit(0, offer("deleted", "text"));
    run(&mut world, 10_000);
    world.fault(Fault::BackUp(0));
    run(&mut world, 1_000);
    world.submit(0, ClientOp::Withdraw(name("deleted")));
    run(&mut world, 10_000);
    world.fault(Fault::Crash { node: 0, from: RestartFrom::Backup, down_ms: 60_000 });
    run(&mut world, 30_000);
    // The lease in the backup is past its half life, and the tombstone of the others still lives.
    world.skip(5 * 24 * 3_600_000);
    run(&mut world, 60_000);
    settle(&mut world);
    for machine in 0..3 {
        assert_eq!(names(&mut world, machine), Vec::<String>::new());
    }
}

#[test]
fn a_saved_key_on_a_new_disk_takes_nothing_from_others_renews_nothing_and_brings_nothing_back() {
    const DAY_MS: u64 = 24 * 3_600_000;
    // After five days leases are past half of their life, and whoever offers something renews it.
    for away_ms in [0, 5 * DAY_MS] {
        let mut world = begun(1, 4, 4);
        for label in ["kept-0", "kept-1", "deleted"] {
            world.submit(0, offer(label, "text"));
        }
        run(&mut world, 10_000);
        world.submit(0, ClientOp::Withdraw(name("deleted")));
        run(&mut world, 10_000);
        let before = records(&mut world, 1);
        assert_eq!(before.len(), 2);
        world.fault(Fault::Crash { node: 0, from: RestartFrom::Lost, down_ms: 60_000 });
        run(&mut world, 1_000);
        world.skip(away_ms);
        run(&mut world, 3_600_000);
        for machine in 0..4 {
            // The very same records: not gone, and not written again.
            assert_eq!(records(&mut world, machine), before, "machine {machine} after {away_ms} ms");
        }
        let (node, _) = world.node(0).expect("it runs");
        let alert = node.alerts().into_iter().find(|(alert, _)| *alert == NodeAlert::RestoredKey);
        assert!(alert.is_some(), "the operator is asked");
        settle(&mut world);
        // Nobody was told to keep them, so they end with their leases.
        world.skip(8 * DAY_MS - away_ms);
        settle(&mut world);
        for machine in 0..4 {
            assert_eq!(names(&mut world, machine), Vec::<String>::new(), "machine {machine}");
        }
    }
}

#[test]
fn a_clock_that_was_past_every_lease_takes_back_what_it_dropped() {
    let mut world = begun(1, 3, 3);
    offer_one_each(&mut world, 2);
    run(&mut world, 10_000);
    world.fault(Fault::Jump(2, 8 * 24 * 3_600_000));
    run(&mut world, 600_000);
    assert_eq!(names(&mut world, 2), Vec::<String>::new());
    world.fault(Fault::Jump(2, 0));
    settle(&mut world);
    assert_eq!(names(&mut world, 2), ["agent-0@.", "agent-1@."]);
}

#[test]
fn thirty_nodes_in_a_sparse_mesh_agree_in_spite_of_loss() {
    let conditions = Conditions { loss: 0.3, duplication: 0.1, ..Conditions::default() };
    let mut world = World::new(1, Setup { nodes: 30, conditions, ..Setup::default() });
    for machine in 0..30 {
        world.start(machine, RestartFrom::Disk);
    }
    run(&mut world, 10_000);
    offer_one_each(&mut world, 30);
    run(&mut world, 90_000);
    for machine in 0..30 {
        assert_eq!(agents(&mut world, machine), 30, "machine {machine}");
    }
}

/// A world of which the first `up` machines are connected.
fn begun(seed: u64, machines: usize, up: usize) -> World {
    let mut world = World::new(seed, Setup { nodes: machines, ..Setup::default() });
    for machine in 0..up {
        world.start(machine, RestartFrom::Disk);
    }
    run(&mut world, 10_000);
    world
}

/// The records of all agents a machine serves.
fn records(world: &mut World, machine: usize) -> Vec<RecordHash> {
    found(world, machine).iter().map(|found| found.record.hash()).collect()
}

/// How many agents a machine serves.
fn agents(world: &mut World, machine: usize) -> usize {
    let Some((node, now)) = world.node(machine) else { return 0 };
    node.zone_states(now).iter().map(|zone| zone.agents).sum()
}
