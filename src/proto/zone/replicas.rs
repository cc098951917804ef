//! Replicas of zones below, of which a gateway may follow thousands: what a turn looks up is kept at hand, so that it costs
//! what it touches and not what is held.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Zone;
use crate::proto::agenda::Agenda;
use crate::proto::config::Config;
use crate::proto::context::Context;
use crate::proto::io::ConversationId;
use crate::proto::name::{ZoneId, ZoneName};
use crate::proto::time::Timestamp;

/// The replicas of a node, and of all of them what is asked often.
#[derive(Default)]
pub(in crate::proto) struct Replicas {
    zones: BTreeMap<ZoneId, Replica>,
    agenda: Agenda<ZoneId>,
    leaders: BTreeMap<ConversationId, ZoneId>,
    /// Those with agents that wait for the index.
    unindexed: BTreeSet<ZoneId>,
    /// Those that hold a delegation.
    delegating: BTreeSet<ZoneId>,
    sums: Sums,
}

struct Replica {
    zone: Box<Zone>,
    noted: Noted,
}

/// What is kept at hand of one.
#[derive(Clone, Copy, Default)]
struct Noted {
    due: Option<Timestamp>,
    leads: Option<ConversationId>,
    has_delegations: bool,
    sums: Sums,
}

#[derive(Clone, Copy, Default)]
struct Sums {
    weight: usize,
    unindexed: usize,
    changes: u64,
}

impl Noted {
    fn of(zone: &Zone, config: &Config) -> Noted {
        let (records, delegations) = (&zone.records, &zone.records.delegations);
        Noted {
            due: zone.poll_timeout(config),
            leads: zone.leading(),
            has_delegations: !delegations.is_empty(),
            sums: Sums {
                weight: records.registry.weight(),
                unindexed: records.unindexed(),
                changes: delegations.changes(),
            },
        }
    }
}

impl Replicas {
    pub(in crate::proto) fn get(&self, id: &ZoneId) -> Option<&Zone> {
        self.zones.get(id).map(|replica| &*replica.zone)
    }

    pub(in crate::proto) fn contains(&self, id: &ZoneId) -> bool {
        self.zones.contains_key(id)
    }

    pub(in crate::proto) fn is_empty(&self) -> bool {
        self.zones.is_empty()
    }

    pub(in crate::proto) fn values(&self) -> impl Iterator<Item = &Zone> {
        self.zones.values().map(|replica| &*replica.zone)
    }

    /// Those of one name, which may be of several keys.
    pub(in crate::proto) fn named(&self, name: &ZoneName) -> impl Iterator<Item = &Zone> {
        let of_name = self.zones.range(ZoneId::open(name.clone())..).take_while(|(id, _)| id.zone == *name);
        of_name.map(|(_, replica)| &*replica.zone)
    }

    /// Those that hold a delegation, if only of what has ended.
    pub(in crate::proto) fn delegating(&self) -> impl Iterator<Item = &Zone> {
        self.delegating.iter().filter_map(|id| self.get(id))
    }

    /// Which one leads a conversation.
    pub(in crate::proto) fn leader(&self, id: ConversationId) -> Option<&ZoneId> {
        self.leaders.get(&id)
    }

    /// Those that want to be called by now.
    pub(in crate::proto) fn due(&self, now: Timestamp) -> Vec<ZoneId> {
        self.agenda.due(now)
    }

    /// When the first wants to be called.
    pub(in crate::proto) fn poll_timeout(&self) -> Option<Timestamp> {
        self.agenda.first()
    }

    /// What all of them weigh.
    pub(in crate::proto) fn weight(&self) -> usize {
        self.sums.weight
    }

    /// How many agents wait for the index.
    pub(in crate::proto) fn unindexed(&self) -> usize {
        self.sums.unindexed
    }

    /// How often the delegations of those that are held changed.
    pub(in crate::proto) fn delegation_changes(&self) -> u64 {
        self.sums.changes
    }

    pub(in crate::proto) fn insert(&mut self, zone: Zone, config: &Config) {
        let id = zone.id().clone();
        self.remove(&id);
        self.zones.insert(id.clone(), Replica { zone: Box::new(zone), noted: Noted::default() });
        self.note(&id, config);
    }

    pub(in crate::proto) fn remove(&mut self, id: &ZoneId) -> Option<Box<Zone>> {
        self.update(id, |_| Noted::default());
        self.zones.remove(id).map(|replica| replica.zone)
    }

    /// Lets one do something.
    pub(in crate::proto) fn with<T>(
        &mut self,
        ctx: &mut Context<'_>,
        id: &ZoneId,
        act: impl FnOnce(&mut Zone, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let done = act(&mut self.zones.get_mut(id)?.zone, ctx);
        self.note(id, ctx.config);
        Some(done)
    }

    /// Lets those with agents that wait for the index do something, for which they wait no more.
    pub(in crate::proto) fn with_unindexed(&mut self, mut act: impl FnMut(&mut Zone)) {
        for id in std::mem::take(&mut self.unindexed) {
            if let Some(replica) = self.zones.get_mut(&id) {
                act(&mut replica.zone);
                replica.noted.sums.unindexed = 0;
            }
        }
        self.sums.unindexed = 0;
    }

    /// Somebody looked at all delegations.
    pub(in crate::proto) fn note_delegations_seen(&mut self) {
        for id in &self.delegating {
            if let Some(replica) = self.zones.get_mut(id) {
                replica.zone.records.delegations.note_seen();
            }
        }
    }

    /// The local clock went back by `step`.
    pub(in crate::proto) fn shift(&mut self, step: Duration, config: &Config) {
        for id in self.zones.keys().cloned().collect::<Vec<_>>() {
            self.update(&id, |zone| {
                zone.shift(step);
                Noted::of(zone, config)
            });
        }
    }

    fn note(&mut self, id: &ZoneId, config: &Config) {
        self.update(id, |zone| Noted::of(zone, config));
    }

    fn update(&mut self, id: &ZoneId, noted: impl FnOnce(&mut Zone) -> Noted) {
        let Some(replica) = self.zones.get_mut(id) else { return };
        let now = noted(&mut replica.zone);
        let before = std::mem::replace(&mut replica.noted, now);
        self.agenda.set(id, now.due);
        if before.leads != now.leads {
            before.leads.map(|conversation| self.leaders.remove(&conversation));
            self.leaders.extend(now.leads.map(|conversation| (conversation, id.clone())));
        }
        keep(&mut self.unindexed, id, now.sums.unindexed > 0);
        keep(&mut self.delegating, id, now.has_delegations);
        let Sums { weight, unindexed, changes } = before.sums;
        self.sums.weight = self.sums.weight - weight + now.sums.weight;
        self.sums.unindexed = self.sums.unindexed - unindexed + now.sums.unindexed;
        self.sums.changes = self.sums.changes - changes + now.sums.changes;
    }
}

fn keep(set: &mut BTreeSet<ZoneId>, id: &ZoneId, is_in: bool) {
    match is_in {
        true if !set.contains(id) => drop(set.insert(id.clone())),
        true => {}
        false => drop(set.remove(id)),
    }
}
