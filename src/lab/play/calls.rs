//! The calls of a scenario: when they come, what is wrong with hosts meanwhile, and what they came to.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::measure::{Metrics, percentile};
use super::super::scenario::{Calls, How};
use crate::proto::name::{FullName, ZoneName};
use crate::sim::{CallConditions, CallEnding, ClientCall, ClientOp, Fault, HostTraits, RestartFrom, World};

/// When the agent is offered, and when all know it and the first call comes, milliseconds.
const OFFERED_MS: u64 = 2_000;
const FIRST_MS: u64 = 60_000;
/// From how long after a crowd on calls must fare as before it, milliseconds.
const AFTER_CROWD_MS: u64 = 60_000;
/// Calls that wait at a host at most: the default of an agent's file.
const QUEUE_MAX: usize = 1_000;

/// How calls go in the world of a scenario.
pub(super) fn conditions(calls: &Calls) -> CallConditions {
    CallConditions {
        work: calls.work,
        places: calls.places,
        queue_max: QUEUE_MAX,
        ..CallConditions::default()
    }
}

/// When the last call has its end, milliseconds.
pub(super) fn ends_ms(calls: &Calls) -> u64 {
    FIRST_MS + millis(calls.span) + millis(calls.patience) + 1_000
}

/// Plans all calls of a world, and what happens to the hosts.
pub(super) fn plan(world: &mut World, calls: &Calls, seed: u64) {
    // Another stream of numbers than the world's own and the timeline's.
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(3);
    world.submit_in(
        OFFERED_MS,
        0,
        ZoneName::root(),
        ClientOp::Offer(vec![(agent().agent, "takes calls".into())]),
    );
    for host in 0..calls.hosts {
        let fails_at_once = if host < calls.failing { calls.failing_share } else { 0.0 };
        world.set_host_traits(host, HostTraits { speed: speed(calls, host), fails_at_once });
    }
    let first_caller = world.size() - calls.callers;
    // What arrives in a second, of a load of 1.
    let whole = (calls.failing..calls.hosts).map(|host| speed(calls, host)).sum::<f64>()
        * calls.places as f64
        / calls.work.mean_ms()
        * 1e3;
    arrive(
        calls,
        &mut rng,
        |_| calls.load * whole,
        |rng, at| {
            let caller = first_caller + rng.random_range(0..calls.callers);
            world.call_in(at, caller, client_call(calls));
        },
    );
    if calls.greedy > 0.0 {
        arrive(
            calls,
            &mut rng,
            |_| calls.greedy * whole,
            |_, at| {
                world.call_in(at, first_caller, client_call(calls));
            },
        );
    }
    gone(world, calls);
}

/// Calls that come by chance, at so many a second.
fn arrive(
    calls: &Calls,
    rng: &mut ChaCha8Rng,
    rate: impl Fn(f64) -> f64,
    mut make: impl FnMut(&mut ChaCha8Rng, u64),
) {
    let (mut at, span) = (0.0, millis(calls.span) as f64);
    loop {
        let crowd =
            calls.crowd.filter(|it| (millis(it.at) as f64..millis(it.at + it.span) as f64).contains(&at));
        let rate = rate(at) * crowd.map_or(1.0, |crowd| crowd.times);
        at += -(1.0 - rng.random::<f64>()).ln() / rate * 1e3;
        if at >= span {
            return;
        }
        make(rng, FIRST_MS + at as u64);
    }
}

fn gone(world: &mut World, calls: &Calls) {
    let Some(gone) = calls.gone else { return };
    let (at, span) = (FIRST_MS + millis(gone.at), millis(gone.span));
    let hosts = calls.hosts - gone.hosts..calls.hosts;
    match gone.how {
        How::Kill => hosts.for_each(|node| {
            world.fault_in(at, Fault::Crash { node, from: RestartFrom::Disk, down_ms: span });
        }),
        How::Freeze => hosts.for_each(|node| world.fault_in(at, Fault::Suspend(node, span))),
        How::Cut => {
            let parts = (0..world.size()).map(|node| u8::from(hosts.contains(&node))).collect();
            world.fault_in(at, Fault::Part(parts));
            world.fault_in(at + span, Fault::Part(vec![0; world.size()]));
        }
    }
}

fn agent() -> FullName {
    FullName { agent: "worker".parse().expect("a label"), zone: ZoneName::root() }
}

fn speed(calls: &Calls, host: usize) -> f64 {
    if calls.speeds.is_empty() { 1.0 } else { calls.speeds[host % calls.speeds.len()] }
}

fn client_call(calls: &Calls) -> ClientCall {
    ClientCall {
        host: 0,
        agent: agent(),
        also: (1..calls.hosts).collect(),
        size: 1_000,
        patience_ms: millis(calls.patience),
        gives_up_ms: None,
        is_detached: calls.detached,
        balance: calls.balance,
        repeats_max: calls.repeats,
        is_idempotent: calls.idempotent,
    }
}

/// What the calls came to.
pub(super) fn measure(world: &World, calls: &Calls) -> Metrics {
    let greedy = (calls.greedy > 0.0).then(|| world.size() - calls.callers);
    let from = FIRST_MS + calls.from.map_or(0, millis);
    let counted: Vec<&CallEnding> = world.call_ends().filter(|call| call.made_ms >= from).collect();
    let others: Vec<&CallEnding> =
        counted.iter().filter(|call| Some(call.caller) != greedy).copied().collect();
    let answered: Vec<&CallEnding> = counted.iter().filter(|call| call.is_answered).copied().collect();
    let ok = |calls: &[&CallEnding]| {
        let answered = calls.iter().filter(|call| call.is_answered).count();
        answered as f64 / calls.len().max(1) as f64
    };
    let waits = |calls: &[&CallEnding]| {
        let mut waits: Vec<f64> = calls
            .iter()
            .filter(|it| it.is_answered)
            .filter_map(|it| Some((it.begun_ms? - it.made_ms) as f64))
            .collect();
        waits.sort_by(f64::total_cmp);
        waits
    };
    let since = |at: u64| counted.iter().filter(|call| call.made_ms >= at).copied().collect::<Vec<_>>();
    let work = |calls: &[&CallEnding]| calls.iter().map(|call| call.work_ms as f64).sum::<f64>();
    let until = FIRST_MS + millis(calls.span);
    let could = (calls.failing..calls.hosts).map(|host| speed(calls, host)).sum::<f64>()
        * calls.places as f64
        * (until - from) as f64;
    let after_crowd = calls.crowd.map(|it| FIRST_MS + millis(it.at + it.span) + AFTER_CROWD_MS);
    let mut metrics = Metrics::new();
    let mut put = |name: &str, value: f64| {
        metrics.insert(name.into(), value);
    };
    put("calls", counted.len() as f64);
    put("calls_ok", ok(&counted));
    put("calls_others_ok", ok(&others));
    let (all, of_others) = (waits(&counted), waits(&others));
    put("calls_wait_ms.p50", percentile(&all, 0.5).unwrap_or_default());
    put("calls_wait_ms.p99", percentile(&all, 0.99).unwrap_or_default());
    put("calls_others_wait_ms.p99", percentile(&of_others, 0.99).unwrap_or_default());
    put("calls_goodput", work(&answered) / could);
    put("calls_wasted", 1.0 - work(&answered) / work(&counted).max(1.0));
    put(
        "calls_offers",
        counted.iter().map(|call| f64::from(call.offers)).sum::<f64>() / counted.len().max(1) as f64,
    );
    if let Some(at) = after_crowd {
        put("calls_after_crowd_ok", ok(&since(at)));
    }
    put("calls_late_ok", ok(&since(from + (until - from) * 2 / 3)));
    put("calls_unknown", world.outcome().calls.unknown as f64);
    metrics
}

fn millis(duration: std::time::Duration) -> u64 {
    duration.as_millis() as u64
}
