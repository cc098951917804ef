//! What an answer from memory speaks for (protocol section 4): every zone of the asked scope, every zone that is delegated in
//! any of these, and the zone that would delegate the scope.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::memory::Memory;
use crate::proto::ask::{Contact, Referral};
use crate::proto::name::{ZoneId, ZoneName};
use crate::proto::overlay::{contact_of, counts, delegated};
use crate::proto::query::{Find, ZoneAnswer, ZoneStatus};
use crate::proto::record::Record;
use crate::proto::time::Timestamp;
use crate::proto::zone::{Zone, Zones};

/// What is written spreads within a few seconds.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

impl Memory<'_> {
    /// What this node can say of the zones of the asked scope. By a wrong clock it takes for ended what is not.
    pub(super) fn cover(&self, find: &Find) -> Vec<ZoneAnswer> {
        let mut answers = self.cover_by_clock(find);
        if self.unsafe_offset.is_some() {
            answers.iter_mut().filter(|it| it.status.is_fine()).for_each(|it| it.status = ZoneStatus::Stale);
        }
        answers
    }

    /// The same where nobody else is asked: what lies below a zone those above it may know, and who speaks for it was told so.
    pub(super) fn cover_alone(&self, find: &Find) -> Vec<ZoneAnswer> {
        self.alone(find, self.cover(find))
    }

    /// What was covered, where nobody else is asked.
    pub(super) fn alone(&self, find: &Find, mut answers: Vec<ZoneAnswer>) -> Vec<ZoneAnswer> {
        let asked = find.query.zone.clone().unwrap_or_else(ZoneName::root);
        if !find.local && self.is_unsure(&asked) && answers.iter().all(|it| it.status.is_fine()) {
            answers.push(untold(self.zones, &asked));
        }
        answers
    }

    /// Whether more may lie below a zone than is known here. At the root there is nobody above; and the first node of a world
    /// that met nobody knows all of it.
    pub(super) fn is_unsure(&self, asked: &ZoneName) -> bool {
        let is_first = self.links.begins_world(self.config);
        !asked.is_root() && !is_first && !self.overlay.is_gateway_above(asked)
    }

    fn cover_by_clock(&self, find: &Find) -> Vec<ZoneAnswer> {
        let root = ZoneName::root();
        let asked = find.query.zone.as_ref().unwrap_or(&root);
        let served = || self.zones.values().filter(|zone| zone.name().is_within(asked));
        if find.local {
            return served().map(|zone| self.answer_of(zone)).collect();
        }
        if self.overlay.is_gateway_above(asked) {
            return self.cover_of_gateway(asked);
        }
        let mut answers: Vec<ZoneAnswer> = Vec::new();
        // Whoever holds the asked zone knows what lies below it; else the nearest zone above that would delegate it.
        let above = std::iter::once(asked.clone()).chain(asked.ancestors());
        let knower = above.filter_map(|name| self.zones.get(&name)).next();
        let mut open: Vec<ZoneId> = served().map(|zone| zone.id().clone()).collect();
        match knower {
            Some(zone) => open.push(zone.id().clone()),
            None => answers.push(ZoneAnswer::here(asked.clone(), ZoneStatus::Unreachable, None)),
        }
        let mut seen: BTreeSet<ZoneId> = BTreeSet::new();
        while let Some(id) = open.pop() {
            if !seen.insert(id.clone()) {
                continue;
            }
            let served = self.zones.get(&id.zone).filter(|zone| *zone.id() == id);
            answers.push(match served {
                Some(zone) => self.answer_of(zone),
                None => self.overlay.below().answer(&id, self.config, self.now),
            });
            let registry = self.zones.registry_of(&id);
            open.extend(registry.into_iter().flat_map(|zone| self.delegated_in(zone, asked)));
        }
        answers.sort_by(|one, other| one.zone.cmp(&other.zone));
        answers
    }

    /// A gateway follows every zone that is delegated below its own, and so in any of those; of those that came a moment ago it
    /// has nothing yet.
    fn cover_of_gateway(&self, asked: &ZoneName) -> Vec<ZoneAnswer> {
        let below = self.overlay.below();
        // Of a zone that nobody serves those above it would know.
        let is_known = self.zones.contains_key(asked) || below.follows(asked);
        let concerns = |zone: &ZoneName| zone.is_within(asked) || !is_known && asked.is_within(zone);
        let served =
            self.zones.values().filter(|zone| concerns(zone.name())).map(|zone| self.answer_of(zone));
        let followed = below.ids().filter(|id| concerns(&id.zone));
        let followed = followed.map(|id| below.answer(id, self.config, self.now));
        let mut answers: Vec<ZoneAnswer> = served.chain(followed).collect();
        for id in self.delegated_just_now().filter(|id| id.zone.is_within(asked)) {
            if answers.iter().all(|it| it.zone != id.zone) {
                answers.push(ZoneAnswer::here(id.zone, ZoneStatus::Unreachable, None));
            }
        }
        // What lies below a zone of this node those above it may know, and did not tell yet.
        let of_untold = self.zones.names().into_iter().filter(|name| {
            let is_untold = self.overlay.is_gateway(name) && !self.overlay.knows_below(name);
            !self.links.begins_world(self.config)
                && is_untold
                && (name.is_within(asked) || asked.is_within(name))
        });
        for unknown in of_untold.map(|name| untold(self.zones, &name)) {
            if !answers.contains(&unknown) {
                answers.push(unknown);
            }
        }
        // What is named beyond those that are followed; and some, maybe, that nobody looked at yet.
        let beyond = below.beyond() + usize::from(!below.is_looked_at());
        if beyond > 0 {
            let unknown = ZoneAnswer::here(asked.clone(), ZoneStatus::Unreachable, None);
            answers.push(ZoneAnswer { count: beyond, ..unknown });
        }
        answers.sort_by(|one, other| one.zone.cmp(&other.zone));
        answers
    }

    pub(super) fn answer_of(&self, zone: &Zone) -> ZoneAnswer {
        zone.answer(self.links, self.config, self.now)
    }

    /// Whether this node follows a zone, and nothing of it is missing.
    pub(super) fn is_fresh_below(&self, zone: &ZoneName) -> bool {
        let mut answers = self.zones.below().named(zone).map(|zone| {
            let answer = self.overlay.below().answer(zone.id(), self.config, self.now);
            answer.status.is_fine()
        });
        answers.next().is_some_and(|first| first && answers.all(|it| it))
    }

    /// Zones of a scope that are delegated here for the first time within `age`: who answered out of what was so long ago does
    /// not know them.
    pub(super) fn delegated_lately(&self, asked: &ZoneName, age: Duration) -> Vec<Referral> {
        let mut gateways: BTreeMap<ZoneId, (Timestamp, Vec<Contact>)> = BTreeMap::new();
        for zone in self.zones.values() {
            for (id, record) in self.delegated_zones(zone).filter(|(id, _)| id.zone.is_within(asked)) {
                let (first, of) = gateways.entry(id).or_insert((record.stamp.wall, Vec::new()));
                *first = record.stamp.wall.min(*first);
                of.extend(contact_of(record));
            }
        }
        let since = self.now - age - SETTLED_AFTER;
        let late = gateways.into_iter().filter(|(_, (first, _))| *first > since);
        late.map(|(id, (_, gateways))| Referral { zone: id.zone, gateways }).collect()
    }

    /// Zones of new delegations that are not followed yet.
    fn delegated_just_now(&self) -> impl Iterator<Item = ZoneId> {
        let fresh = self.zones.delegating().flat_map(|zone| {
            zone.records.delegations.fresh().filter_map(|key| self.counted(zone, zone.registry().get(key)?))
        });
        let is_served = |id: &ZoneId| self.zones.get(&id.zone).is_some_and(|zone| zone.id() == id);
        fresh.map(|(id, _)| id).filter(move |id| !is_served(id) && !self.overlay.below().contains(id))
    }

    /// The live delegations of a registry that count, each with the zone that it names.
    pub(super) fn delegated_zones<'z>(
        &'z self,
        zone: &'z Zone,
    ) -> impl Iterator<Item = (ZoneId, &'z Record)> {
        let keys = zone.records.delegations.below(zone.name());
        keys.filter_map(|key| self.counted(zone, zone.registry().get(key)?))
    }

    fn counted<'z>(&self, zone: &Zone, record: &'z Record) -> Option<(ZoneId, &'z Record)> {
        let is_over = record.is_expired(self.now) || zone.registry().is_revoked(record, self.now);
        let id = delegated(record).filter(|_| !is_over)?;
        counts(self.config, record, &id).then_some((id, record))
    }

    /// The zones that a registry delegates and that concern the asked scope: those in it, and those above it.
    fn delegated_in(&self, zone: &Zone, asked: &ZoneName) -> Vec<ZoneId> {
        let counted = self.delegated_zones(zone).map(|(id, _)| id);
        let named: BTreeSet<ZoneId> = counted.collect();
        named.into_iter().filter(|id| id.zone.is_within(asked) || asked.is_within(&id.zone)).collect()
    }
}

/// What names that nobody above told what lies below a zone: the root, which would know, unless that is held here.
pub(super) fn untold(held: &Zones, zone: &ZoneName) -> ZoneAnswer {
    let root = ZoneName::root();
    let named = if held.contains_key(&root) { zone.clone() } else { root };
    ZoneAnswer::here(named, ZoneStatus::Unreachable, None)
}
