//! Calls in simulated worlds: lost and stalled streams, killed, frozen and restarted nodes, partitions, clocks that jump.
//! The law of calls is checked with every step of every run.

use std::sync::Mutex;

use aop::proto::card::Balance;
use aop::sim::{
    CallConditions, CallCounts, ClientCall, Conditions, Fault, RestartFrom, Setup, WorkLength, World,
};

use crate::actions::{offer, run};
use crate::seeds;

/// Drawn worlds played by default.
const SEEDS: u64 = 40;

#[test]
fn calls_keep_their_law_through_every_fault() {
    let sums = Mutex::new(CallCounts::default());
    seeds::play_seeds(SEEDS, "calls::replay", |seed| {
        let counts = aop::sim::play_calls(seed)?.calls;
        let mut sums = sums.lock().expect("nobody panics with it");
        *sums = sum(*sums, counts);
        Ok(())
    });
    let sums = sums.into_inner().expect("nobody panicked with it");
    println!("{sums:?}");
    // The law would hold in worlds where nothing ever runs, or nothing ever fails.
    let CallCounts { made, offers, begun, answered, not_started, unknown, done, unheard, waiting } = sums;
    assert!(offers > begun, "{sums:?}");
    assert_eq!(made, answered + not_started + unknown + done + unheard + waiting, "{sums:?}");
    assert!(waiting <= made / 1_000, "a node may have slept until its run was nearly over: {sums:?}");
    for (part, of) in [(answered, 4), (not_started, 20), (unknown, 20), (done, 100), (unheard, 100)] {
        assert!(part > made / of, "{part} of {made}: {sums:?}");
    }
}

#[test]
fn replay() {
    seeds::replay(aop::sim::play_calls_told);
}

#[test]
fn a_seed_replays_one_run_and_the_calls_of_a_run_change_nothing_of_the_rest() {
    let played = |seed| aop::sim::play_calls(seed).expect("a run that keeps its promises");
    let first = played(1);
    assert_eq!(first, played(1));
    assert_ne!(first.trace, played(2).trace);
    let quiet = |calls| {
        let mut world = World::new(7, Setup { calls, ..Setup::default() });
        (0..5).for_each(|node| world.start(node, RestartFrom::Disk));
        world.submit(0, offer("agent", "text"));
        run(&mut world, 60_000);
        world.outcome().trace
    };
    assert_eq!(quiet(None), quiet(Some(CallConditions::default())), "conditions of calls that nobody makes");
}

#[test]
fn calls_of_an_undisturbed_world_are_answered_at_their_first_offer() {
    let mut world = serving(CallConditions { work: WorkLength::UpTo(1_000), ..conditions() });
    (0..100).for_each(|at| call(&mut world, at * 50, 60_000));
    run(&mut world, 120_000);
    let CallCounts { made, offers, begun, answered, .. } = world.outcome().calls;
    assert_eq!((made, offers, begun, answered), (100, 100, 100, 100), "{:?}", world.outcome().calls);
}

#[test]
fn a_host_that_is_killed_in_the_midst_of_work_leaves_all_of_it_unknown_and_runs_none_of_it_again() {
    let mut world = serving(CallConditions { work: WorkLength::UpTo(1 << 30), ..conditions() });
    (0..50).for_each(|_| call(&mut world, 0, 250_000));
    run(&mut world, 1_000);
    let begun = world.outcome().calls.begun;
    assert!(begun > 20, "{:?}", world.outcome().calls);
    world.fault(Fault::Crash { node: 0, from: RestartFrom::Disk, down_ms: 10 });
    run(&mut world, 300_000);
    let CallCounts { made, unknown, answered, not_started, .. } = world.outcome().calls;
    assert_eq!((made, world.outcome().calls.begun), (50, begun));
    assert_eq!(unknown + answered + not_started, 50, "{:?}", world.outcome().calls);
    assert!(unknown > 10, "{:?}", world.outcome().calls);
}

#[test]
fn a_call_that_a_frozen_host_did_not_accept_was_not_started_and_does_not_run_when_it_thaws() {
    let mut world = serving(CallConditions { work: WorkLength::UpTo(10), ..conditions() });
    call(&mut world, 0, 60_000);
    // The stream is open on the host's side, and the offer is on its way.
    run(&mut world, 15);
    world.fault(Fault::Suspend(0, 30_000));
    run(&mut world, 90_000);
    let CallCounts { made, offers, begun, not_started, .. } = world.outcome().calls;
    assert_eq!((made, offers, begun, not_started), (1, 1, 0, 1));
}

#[test]
fn what_waits_for_a_place_has_not_begun_and_its_callers_know_that() {
    let mut world = serving(CallConditions { work: WorkLength::UpTo(1 << 30), places: 4, ..conditions() });
    (0..70).for_each(|_| call(&mut world, 0, 12_000));
    run(&mut world, 15_000);
    let CallCounts { made, begun, answered, done, not_started, unknown, .. } = world.outcome().calls;
    assert_eq!((made, begun), (70, answered + done + unknown), "{:?}", world.outcome().calls);
    assert!(begun >= 4 && unknown <= 4 && not_started == 70 - begun, "{:?}", world.outcome().calls);
}

#[test]
fn a_host_that_freezes_in_the_midst_of_work_is_given_up_within_twenty_seconds() {
    let mut world = serving(CallConditions { work: WorkLength::UpTo(1 << 30), ..conditions() });
    (0..50).for_each(|_| call(&mut world, 0, 250_000));
    run(&mut world, 1_000);
    let begun = world.outcome().calls;
    assert!(begun.waiting > 20, "{begun:?}");
    world.fault(Fault::Suspend(0, 200_000));
    run(&mut world, 20_000);
    let CallCounts { waiting, unknown, .. } = world.outcome().calls;
    assert!(waiting == 0 && unknown > 20, "{:?}", world.outcome().calls);
}

#[test]
fn two_of_three_hosts_fail_and_the_third_serves_all_calls() {
    let faults: [fn(usize) -> Fault; 2] = [
        |node| Fault::Suspend(node, 600_000),
        |node| Fault::Crash { node, from: RestartFrom::Disk, down_ms: 600_000 },
    ];
    for fault in faults {
        let mut world = serving_at(4, CallConditions { work: WorkLength::UpTo(50), ..conditions() });
        let call_all = |world: &mut World, count: u64| {
            (0..count).for_each(|at| call_any(world, at * 50, &[2, 3]));
            run(world, count * 50 + 35_000);
            world.outcome().calls
        };
        let before = call_all(&mut world, 100);
        assert_eq!(before.answered, 100, "{before:?}");
        (2..4).for_each(|node| world.fault(fault(node)));
        let after = call_all(&mut world, 2_000);
        let (answered, offers) = (after.answered - before.answered, after.offers - before.offers);
        assert_eq!((answered, after.waiting), (2_000, 0), "{after:?}");
        assert!(offers < 2_500, "who is gone is asked from time to time: {after:?}");
    }
}

/// Agents with places for all calls of a test.
fn conditions() -> CallConditions {
    CallConditions { places: 100, queue_max: 100, ..CallConditions::default() }
}

/// A world in which node 1 knows the agent of node 0.
fn serving(calls: CallConditions) -> World {
    serving_at(2, calls)
}

fn serving_at(nodes: usize, calls: CallConditions) -> World {
    let conditions = Conditions { latency_ms: (10, 10), ..Conditions::default() };
    let mut world = World::new(1, Setup { nodes, conditions, calls: Some(calls), ..Setup::default() });
    (0..nodes).for_each(|node| world.start(node, RestartFrom::Disk));
    world.submit(0, offer("worker", "text"));
    run(&mut world, 20_000);
    world
}

fn call(world: &mut World, in_ms: u64, patience_ms: u64) {
    world.call_in(in_ms, 1, client_call(Vec::new(), patience_ms));
}

/// A call of an agent that runs at these hosts, too.
fn call_any(world: &mut World, in_ms: u64, also: &[usize]) {
    world.call_in(in_ms, 1, client_call(also.to_vec(), 30_000));
}

fn client_call(also: Vec<usize>, patience_ms: u64) -> ClientCall {
    let agent = "worker@.".parse().expect("a full name");
    ClientCall {
        host: 0,
        agent,
        also,
        size: 10,
        patience_ms,
        gives_up_ms: None,
        is_detached: false,
        balance: Balance::Load,
        repeats_max: 0,
        is_idempotent: false,
    }
}

fn sum(a: CallCounts, b: CallCounts) -> CallCounts {
    CallCounts {
        made: a.made + b.made,
        offers: a.offers + b.offers,
        begun: a.begun + b.begun,
        answered: a.answered + b.answered,
        not_started: a.not_started + b.not_started,
        unknown: a.unknown + b.unknown,
        done: a.done + b.done,
        unheard: a.unheard + b.unheard,
        waiting: a.waiting + b.waiting,
    }
}
