//! Own agents that have fewer hosts than they ask for (`min_replicas`).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::proto::context::Context;
use crate::proto::directory::Directory;
use crate::proto::identity::AgentId;
use crate::proto::io::NodeAlert;
use crate::proto::liveness::Presence;
use crate::proto::name::FullName;
use crate::proto::record::{KeyHash, Record};
use crate::proto::time::Timestamp;
use crate::proto::zone::Zones;

/// How long after the start the other hosts may not be known yet.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often they are counted.
const COUNTED_EVERY: Duration = Duration::from_secs(5);

/// The own agents that ask for more hosts than this one.
pub(in crate::proto) struct ReplicaWatch {
    wanted: BTreeMap<KeyHash, Wanted>,
    next: Timestamp,
}

struct Wanted {
    agent: AgentId,
    name: FullName,
    hosts: u32,
}

impl ReplicaWatch {
    pub(super) fn new(now: Timestamp) -> ReplicaWatch {
        ReplicaWatch { wanted: BTreeMap::new(), next: now + PATIENCE }
    }

    /// This is the last own write of its key now.
    pub(super) fn note(&mut self, own: &Record) {
        let limits = own.card().and_then(|card| card.limits);
        match limits.map(|limits| limits.min_replicas).filter(|hosts| *hosts > 1) {
            Some(hosts) => {
                let (agent, name) = (AgentId::of(own.owner, &own.name), own.name.clone());
                self.wanted.insert(own.key(), Wanted { agent, name, hosts });
            }
            None => drop(self.wanted.remove(&own.key())),
        }
    }

    /// The clock went back by `step`.
    pub(super) fn shift(&mut self, step: Duration) {
        self.next = self.next - step;
    }

    /// Counts the hosts that are there, those never heard of included, and tells of agents that have too few. It looks when
    /// the node wakes for something else: beacons wake it often enough.
    pub(in crate::proto) fn count(&mut self, ctx: &mut Context<'_>, zones: &Zones, directory: &Directory) {
        if ctx.now < self.next {
            return;
        }
        self.next = ctx.now + COUNTED_EVERY;
        let mut short = Vec::new();
        for Wanted { agent, name, hosts } in self.wanted.values() {
            let Some(found) = directory.agent(ctx.now, zones, agent, 0.0) else { continue };
            let there = found.replicas.iter().filter(|it| it.presence != Presence::Unreachable).count();
            if there < *hosts as usize {
                short.push(NodeAlert::FewReplicas(name.clone(), *hosts));
            }
        }
        let is_over =
            |alert: &NodeAlert| matches!(alert, NodeAlert::FewReplicas(..)) && !short.contains(alert);
        ctx.out.clear_alerts(is_over);
        short.into_iter().for_each(|alert| ctx.out.alert(alert));
    }
}
