//! Calls of a plan: the faults and the work of any other run, and nodes that are killed while clients call their agents.

use std::collections::BTreeSet;

use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};

use super::Plan;
use crate::proto::card::Balance;
use crate::proto::limits::CALL_BYTES_MAX;
use crate::proto::name::{FullName, ZoneName};
use crate::sim::{CallConditions, ClientCall, ClientOp, Fault, RestartFrom, WorkLength};

/// When every node offers its agent, milliseconds.
const OFFERED_MS: u64 = 1_000;

impl Plan {
    /// Adds calls to a run, and nodes that are killed or stand still meanwhile.
    pub(super) fn add_calls(&mut self, rng: &mut impl Rng) {
        let (nodes, span_ms) = (self.setup.nodes, self.span_ms);
        self.setup.calls = Some(conditions(rng));
        for host in 0..nodes {
            let offer = ClientOp::Offer(vec![(agent_of(host).agent, "takes calls".into())]);
            self.operations.push((OFFERED_MS, host, ZoneName::root(), offer));
        }
        for _ in 0..rng.random_range(1..8) {
            let (node, at) = (rng.random_range(0..nodes), rng.random_range(OFFERED_MS..span_ms));
            // From back before anybody notices to gone as long as most callers wait.
            let down_ms = *[1, 100, 5_000, 60_000].choose(rng).unwrap_or(&1);
            self.faults.push((at, Fault::Crash { node, from: RestartFrom::Disk, down_ms }));
        }
        for _ in 0..rng.random_range(0..8) {
            let (node, at) = (rng.random_range(0..nodes), rng.random_range(OFFERED_MS..span_ms));
            let for_ms = *[300, 2_000, 30_000].choose(rng).unwrap_or(&300);
            self.faults.push((at, Fault::Suspend(node, for_ms)));
        }
        for _ in 0..rng.random_range(50..300) {
            let (host, caller) = (rng.random_range(0..nodes), rng.random_range(0..nodes));
            // Most agents run at one host, some at several.
            let hosts = *[1, 1, 2, 4].choose(rng).unwrap_or(&1);
            let also = (1..hosts).map(|_| rng.random_range(0..nodes)).filter(|other| *other != host);
            let also = BTreeSet::<usize>::from_iter(also).into_iter().collect();
            let patience_ms = *[500, 5_000, 60_000, 300_000].choose(rng).unwrap_or(&5_000);
            let call = ClientCall {
                host,
                agent: agent_of(host),
                also,
                size: *[0, 100, CALL_BYTES_MAX].choose(rng).unwrap_or(&100),
                patience_ms,
                gives_up_ms: rng.random_bool(0.1).then(|| rng.random_range(0..patience_ms)),
                is_detached: rng.random_bool(0.3),
                balance: *Balance::ALL.choose(rng).unwrap_or(&Balance::Load),
                repeats_max: rng.random_range(0..3),
                is_idempotent: rng.random_bool(0.2),
            };
            self.calls.push((rng.random_range(OFFERED_MS..span_ms), caller, call));
        }
    }
}

fn agent_of(host: usize) -> FullName {
    FullName { agent: format!("worker-{host}").parse().expect("a label"), zone: ZoneName::root() }
}

fn conditions(rng: &mut impl Rng) -> CallConditions {
    let mut some = |most: f64| if rng.random() { rng.random_range(0.0..most) } else { 0.0 };
    let (refused, dropped, breaks, stalls) = (some(0.2), some(0.3), some(0.1), some(0.1));
    let (unnoticed, fails) = (some(1.0), some(0.5));
    let detection_ms_max = *[0, 1_000, 30_000].choose(rng).unwrap_or(&0);
    // The last is longer than any patience, so that deadlines fall into the midst of work.
    let work_ms_max = *[100, 10_000, 400_000].choose(rng).unwrap_or(&100);
    let places = *[1, 4, 100].choose(rng).unwrap_or(&1);
    let queue_max = *[0, 10, 1_000].choose(rng).unwrap_or(&10);
    CallConditions {
        places,
        queue_max,
        refused,
        dropped,
        breaks,
        stalls,
        unnoticed,
        detection_ms_max,
        work: WorkLength::UpTo(work_ms_max),
        fails,
    }
}
