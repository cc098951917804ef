//! The zones below those that this node is a gateway of: which there are, and when each is compared with which of its
//! gateways.
//!
//! What is below stands in the delegations of all these registries, those of the replicas included. A replica is **fresh** while
//! every gateway of its zone that answers as whole was compared lately, and one does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::walk::contact_of;
use super::{Overlay, counts, delegated};
use crate::proto::agenda::Agenda;
use crate::proto::ask::{Contact, Referral};
use crate::proto::config::Config;
use crate::proto::context::Context;
use crate::proto::identity::PeerKey;
use crate::proto::io::{Output, Role};
use crate::proto::limits::{REFERRALS_MAX, WAY_GATEWAYS_MAX};
use crate::proto::name::{ZoneId, ZoneName};
use crate::proto::query::{ZoneAnswer, ZoneStatus};
use crate::proto::record::Record;
use crate::proto::sync::Grace;
use crate::proto::time::Timestamp;
use crate::proto::zone::{Ended, Outcome, Zone, Zones};

/// Zones that are followed; those beyond are named as zones of which nothing is known.
const ZONES_MAX: usize = 10_000;
/// Gateways of one zone that are compared: some of those that answer, and those named last. Of a zone that changes much many
/// are dead; where strangers name themselves, those that were there before stay.
const GATEWAYS_MAX: usize = 9;
/// Of these, those that answer.
const PROVEN_MAX: usize = 6;
/// Comparisons that begin in one turn: 200 a second where turns are this far apart.
const STARTS_MAX: usize = 20;
const TURN: Duration = Duration::from_millis(100);
/// The wait after a comparison that failed, and after many.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
/// No number of changes: nobody looked yet.
const LOOK_ANEW: u64 = u64::MAX;
/// How often it is looked which zones there are, at most.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// And at least: delegations lapse.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(30);
/// A zone that answers below one with a key stays for so many walks after the last that named it is gone: what it hung on may
/// have ended with a grant, and its gateways hang it on another when they walk next.
const UNNAMED_WALKS_MAX: u32 = 2;

/// What lies below.
pub(in crate::proto) struct Below {
    zones: BTreeMap<ZoneId, Followed>,
    /// When each is compared again.
    agenda: Agenda<ZoneId>,
    /// The gateways of all of them.
    peers: BTreeSet<PeerKey>,
    /// How many zones are named beyond those.
    beyond: usize,
    /// How often all delegations had changed when it was last looked which zones there are.
    seen: u64,
    look_at: Timestamp,
    looked_at: Timestamp,
}

/// A zone below.
#[derive(Default)]
struct Followed {
    /// Its gateways, those named last first.
    gateways: Vec<Contact>,
    /// How each of them was met last.
    met: BTreeMap<PeerKey, Met>,
    /// Whose turn it is.
    turn: usize,
    failures: u32,
    /// The last comparison that finished.
    compared_at: Option<Timestamp>,
    /// What its replica weighed, where there is no room for it.
    turned_away: Option<usize>,
    /// When a delegation named it last, and whether a zone with a key lay above it then.
    named_at: Timestamp,
    is_below_key: bool,
}

/// A comparison with a gateway.
#[derive(Clone, Copy)]
struct Met {
    at: Timestamp,
    /// Whether it may speak for its zone.
    is_whole: bool,
    /// Whether it answered when it was asked last.
    answers: bool,
}

impl Below {
    pub(super) fn new(now: Timestamp) -> Below {
        Below {
            zones: BTreeMap::new(),
            agenda: Agenda::default(),
            peers: BTreeSet::new(),
            beyond: 0,
            seen: 0,
            look_at: now,
            looked_at: now,
        }
    }

    /// Whether it was looked which zones there are since this node speaks for those above them.
    pub(in crate::proto) fn is_looked_at(&self) -> bool {
        self.seen != LOOK_ANEW
    }

    /// What lies below is looked for at once.
    pub(super) fn look_anew(&mut self, now: Timestamp) {
        (self.look_at, self.seen) = (now, LOOK_ANEW);
    }

    pub(super) fn due(&self) -> Option<Timestamp> {
        self.agenda.first().into_iter().chain([self.look_at]).min()
    }

    pub(super) fn shift(&mut self, step: Duration) {
        self.look_at = self.look_at - step;
        self.looked_at = self.looked_at - step;
        self.agenda.shift(step);
        for zone in self.zones.values_mut() {
            zone.named_at = zone.named_at - step;
            zone.compared_at = zone.compared_at.map(|at| at - step);
            zone.met.values_mut().for_each(|met| met.at = met.at - step);
        }
    }

    /// The gateways of a zone below, those named last first.
    pub(in crate::proto) fn gateways(&self, zone: &ZoneId) -> &[Contact] {
        self.zones.get(zone).map_or(&[], |zone| &zone.gateways)
    }

    /// How many zones are named beyond those that are followed.
    pub(in crate::proto) fn beyond(&self) -> usize {
        self.beyond
    }

    /// Which zones there are.
    pub(in crate::proto) fn ids(&self) -> impl Iterator<Item = &ZoneId> {
        self.zones.keys()
    }

    pub(in crate::proto) fn contains(&self, zone: &ZoneId) -> bool {
        self.zones.contains_key(zone)
    }

    /// Whether a zone of this name is followed.
    pub(in crate::proto) fn follows(&self, zone: &ZoneName) -> bool {
        self.named(zone).next().is_some()
    }

    /// Zones of a scope that whoever asks has to ask itself: those for which there is no room here, and those that were not
    /// compared yet. What lately answered nobody here is left out: it would cost every asker its time.
    pub(in crate::proto) fn referrals(&self, scope: &ZoneName, ctx: &Context<'_>) -> Vec<Referral> {
        let asked = self.zones.iter().filter(|(id, followed)| {
            id.zone.is_within(scope)
                && !followed.freshness(ctx.config, ctx.now).0.is_fine()
                && (followed.failures as usize) < followed.gateways.len()
        });
        let referral = |(id, followed): (&ZoneId, &Followed)| {
            let answers = |it: &&Contact| followed.met.get(&it.peer).is_none_or(|met| met.answers);
            let (first, then): (Vec<&Contact>, Vec<&Contact>) = followed.gateways.iter().partition(answers);
            let gateways = first.into_iter().chain(then).take(WAY_GATEWAYS_MAX).cloned().collect();
            Referral { zone: id.zone.clone(), gateways }
        };
        asked.map(referral).take(REFERRALS_MAX).collect()
    }

    /// Whether a peer speaks for some zone below.
    pub(in crate::proto) fn is_gateway_of_any(&self, peer: &PeerKey) -> bool {
        self.peers.contains(peer)
    }

    fn named(&self, zone: &ZoneName) -> impl Iterator<Item = &Followed> {
        let first = ZoneId::open(zone.clone());
        self.zones.range(first..).take_while(|(id, _)| id.zone == *zone).map(|(_, followed)| followed)
    }

    /// What an answer out of the replica of a zone is worth.
    pub(in crate::proto) fn answer(&self, zone: &ZoneId, config: &Config, now: Timestamp) -> ZoneAnswer {
        let followed = self.zones.get(zone);
        let (status, age) = followed.map_or((ZoneStatus::Unreachable, None), |it| it.freshness(config, now));
        ZoneAnswer::here(zone.zone.clone(), status, age)
    }
}

impl Followed {
    fn freshness(&self, config: &Config, now: Timestamp) -> (ZoneStatus, Option<Duration>) {
        let whole = || self.met.values().filter(|met| met.is_whole);
        // The oldest of those that answer: halves of a zone that never met are heard in turn.
        let oldest = whole().filter(|met| met.answers).map(|met| now.since(met.at)).max();
        match oldest.or_else(|| whole().map(|met| now.since(met.at)).min()) {
            Some(age) if oldest.is_some() && age <= config.fresh_for => (ZoneStatus::Held, Some(age)),
            Some(age) => (ZoneStatus::Stale, Some(age)),
            None => (ZoneStatus::Unreachable, None),
        }
    }

    /// Those of all that are named that are compared.
    fn pick(&self, named: Vec<Contact>) -> Vec<Contact> {
        let is_proven = |it: &Contact| self.met.get(&it.peer).is_some_and(|met| met.answers && met.is_whole);
        let (mut picked, others): (Vec<Contact>, Vec<Contact>) = named.into_iter().partition(is_proven);
        picked.truncate(PROVEN_MAX);
        picked.extend(others);
        picked.truncate(GATEWAYS_MAX);
        picked
    }

    /// Who is compared next: those that are there in turn, those that failed again when nobody else is left.
    fn next(&mut self) -> Option<Contact> {
        if self.gateways.is_empty() {
            return None;
        }
        self.turn = (self.turn + 1) % self.gateways.len();
        self.gateways.get(self.turn).cloned()
    }

    /// A comparison ended; when the next is due.
    fn take(&mut self, outcome: Outcome, ctx: &mut Context<'_>) -> Timestamp {
        let Outcome { peer, ended, is_whole } = outcome;
        let wait = match ended {
            Ended::Finished => {
                self.met.insert(peer, Met { at: ctx.now, is_whole, answers: true });
                (self.compared_at, self.failures) = (Some(ctx.now), 0);
                // Those that were not met yet come at once.
                let others = self.gateways.iter().filter(|it| !self.met.contains_key(&it.peer)).count();
                // All of them within half of the time for which they count.
                let turn = ctx.config.fresh_for / 2 / self.gateways.len().max(1) as u32;
                if others > 0 { RETRY.0 } else { ctx.config.follow_interval.min(turn) }
            }
            Ended::Broken => {
                if let Some(met) = self.met.get_mut(&peer) {
                    met.answers = false;
                }
                self.failures += 1;
                let rounds = self.failures / self.gateways.len().max(1) as u32;
                (RETRY.0 * 2u32.saturating_pow(rounds.min(16))).min(RETRY.1)
            }
        };
        ctx.now + ctx.jitter(wait)
    }
}

impl Overlay {
    /// Compares the zones below that are due, each with the gateway whose turn it is.
    pub(super) fn follow_if_due(&mut self, ctx: &mut Context<'_>, zones: &mut Zones) {
        self.look_below(ctx, zones);
        self.make_room(ctx, zones);
        let mut starts = 0;
        for id in self.below.agenda.due(ctx.now) {
            let Some(followed) = self.below.zones.get_mut(&id) else {
                self.below.agenda.set(&id, None);
                continue;
            };
            let fits = |weight: usize| zones.below().weight() + weight <= ctx.config.room_below;
            let wait = if followed.turned_away.is_some_and(|weight| !fits(weight)) {
                RETRY.1
            } else if starts == STARTS_MAX {
                TURN
            } else if let Some(contact) = followed.next() {
                if followed.turned_away.take().is_some() {
                    let zone = Zone::new(id.clone(), Role::Below, ctx);
                    zones.below_mut().insert(zone, ctx.config);
                }
                starts += 1;
                ctx.out.push(Output::Reach(contact.clone()));
                zones.below_mut().with(ctx, &id, |zone, ctx| zone.start_sync(ctx, contact.peer, Grace::None));
                ctx.config.sync_deadline
            } else {
                // Nobody but this node names it.
                RETRY.1
            };
            self.below.agenda.set(&id, Some(ctx.now + wait));
        }
    }

    /// Where the replicas weigh too much, those go that weigh more than an equal part of what is left beside the zones whose keys
    /// the operator named: what one zone is full of costs no other its place. They are tried again where they would fit.
    fn make_room(&mut self, ctx: &mut Context<'_>, zones: &mut Zones) {
        if zones.below().weight() <= ctx.config.room_below {
            return;
        }
        let is_anchored = |zone: &&Zone| ctx.config.zone_keys.contains_key(zone.name());
        let (anchored, others): (Vec<&Zone>, Vec<&Zone>) = zones.below().values().partition(is_anchored);
        let weigh = |zone: &&Zone| zone.registry().weight();
        let room = ctx.config.room_below.saturating_sub(anchored.iter().map(weigh).sum());
        let mut weight: usize = others.iter().map(weigh).sum();
        let share = room / others.len().max(1);
        let weighed = others.iter().map(|zone| (weigh(zone), zone.id().clone()));
        let mut over: Vec<(usize, ZoneId)> = weighed.filter(|(weight, _)| *weight > share).collect();
        over.sort_unstable();
        while weight > room
            && let Some((its, id)) = over.pop()
        {
            weight -= its;
            self.drop_replica(ctx, zones, &id);
            if let Some(followed) = self.below.zones.get_mut(&id) {
                followed.met.clear();
                (followed.compared_at, followed.turned_away) = (None, Some(its));
                self.below.agenda.set(&id, Some(ctx.now + RETRY.1));
            }
        }
    }

    fn drop_replica(&mut self, ctx: &mut Context<'_>, zones: &mut Zones, id: &ZoneId) {
        if let Some(mut zone) = zones.below_mut().remove(id) {
            zone.abandon(ctx);
            self.dropped.extend(zone.records.agents());
        }
    }

    /// A comparison of a replica ended.
    pub(in crate::proto) fn handle_outcome(&mut self, ctx: &mut Context<'_>, id: &ZoneId, outcome: Outcome) {
        if let Some(followed) = self.below.zones.get_mut(id) {
            let due = followed.take(outcome, ctx);
            self.below.agenda.set(id, Some(due));
        }
    }

    /// Which zones there are below, if their delegations changed.
    fn look_below(&mut self, ctx: &mut Context<'_>, zones: &mut Zones) {
        if self.below.look_at > ctx.now {
            return;
        }
        let of_served = zones.values().map(|zone| zone.records.delegations.changes());
        let changes = of_served.sum::<u64>() + zones.below().delegation_changes();
        let is_old = self.below.looked_at + LOOK_INTERVAL_MAX <= ctx.now;
        self.below.look_at = ctx.now + LOOK_INTERVAL;
        if changes == self.below.seen && !is_old {
            return;
        }
        (self.below.seen, self.below.looked_at) = (changes, ctx.now);
        zones.values_mut().for_each(|zone| zone.records.delegations.note_seen());
        zones.below_mut().note_delegations_seen();
        let (named, beyond) = shared_out(self.named_below(ctx, zones), &ctx.config.zone_keys, ZONES_MAX);
        // What was not compared for so long is nothing any more, though its zone is still named.
        let (now, kept) = (ctx.now, ctx.config.replica_kept);
        let is_over = |it: &Followed| it.compared_at.is_some_and(|at| now.since(at) > kept);
        // Where there are too many, those that are named come first.
        let may_outlast = |id: &ZoneId, it: &Followed| beyond == 0 && self.outlasts(ctx, zones, id, it);
        let is_there = |id: &ZoneId, it: &Followed| named.contains_key(id) || may_outlast(id, it);
        let followed = self.below.zones.iter();
        let gone: Vec<ZoneId> = followed
            .filter(|(id, followed)| !is_there(id, followed) || is_over(followed))
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            self.below.zones.remove(&id);
            self.below.agenda.set(&id, None);
            self.drop_replica(ctx, zones, &id);
        }
        self.below.beyond = beyond;
        let with_keys: Vec<ZoneName> = {
            let all = named.keys().chain(zones.values().map(Zone::id));
            all.filter(|id| id.key.is_some()).map(|id| id.zone.clone()).collect()
        };
        for (id, named) in named {
            let followed = self.below.zones.entry(id.clone()).or_default();
            followed.named_at = ctx.now;
            followed.is_below_key =
                with_keys.iter().any(|above| *above != id.zone && id.zone.is_within(above));
            if followed.turned_away.is_none() && !zones.below().contains(&id) {
                let zone = Zone::new(id.clone(), Role::Below, ctx);
                zones.below_mut().insert(zone, ctx.config);
            }
            let gateways = followed.pick(named);
            let is_new = |contact: &Contact| followed.gateways.iter().all(|known| known.peer != contact.peer);
            if gateways.iter().any(is_new) {
                followed.failures = 0;
                self.below.agenda.hurry(&id, ctx.now);
            }
            followed.met.retain(|peer, _| gateways.iter().any(|it| it.peer == *peer));
            followed.gateways = gateways;
        }
        let gateways = self.below.zones.values().flat_map(|zone| &zone.gateways);
        self.below.peers = gateways.map(|gateway| gateway.peer).collect();
    }

    /// Whether a zone that nobody names any more is there still, below a zone of which this node is a gateway.
    fn outlasts(&self, ctx: &Context<'_>, zones: &Zones, id: &ZoneId, followed: &Followed) -> bool {
        let is_served = zones.get(&id.zone).is_some_and(|zone| zone.id() == id);
        let is_below = self.offices.keys().any(|above| *above != id.zone && id.zone.is_within(above));
        let is_lately_named =
            ctx.now.since(followed.named_at) <= ctx.config.walk_interval * UNNAMED_WALKS_MAX;
        is_below
            && followed.is_below_key
            && !is_served
            && is_lately_named
            && followed.freshness(ctx.config, ctx.now).0.is_fine()
    }

    /// Every zone that is delegated below one of which this node is a gateway, with those that name it, the last first.
    fn named_below(&self, ctx: &Context<'_>, zones: &Zones) -> BTreeMap<ZoneId, Vec<Contact>> {
        let mut named: BTreeMap<ZoneId, Vec<(Timestamp, Contact)>> = BTreeMap::new();
        let mut take = |record: &Record, above: &ZoneName| -> Option<ZoneId> {
            let id = delegated(record).filter(|_| !record.is_expired(ctx.now))?;
            let is_below = id.zone != *above && id.zone.is_within(above);
            // What this node takes part in itself it need not follow.
            let is_served = zones.get(&id.zone).is_some_and(|zone| *zone.id() == id);
            if !is_below || !counts(ctx.config, record, &id) {
                return None;
            }
            if is_served {
                return Some(id);
            }
            let contact = contact_of(record).filter(|contact| contact.peer != ctx.key());
            named.entry(id.clone()).or_default().extend(contact.map(|contact| (record.stamp.wall, contact)));
            Some(id)
        };
        for (name, walker) in &self.offices {
            let mut open: Vec<ZoneId> = vec![ctx.config.zone_id(name)];
            let mut seen: BTreeSet<ZoneId> = BTreeSet::new();
            open.extend(walker.told_below().iter().filter_map(|record| take(record, name)));
            while let Some(id) = open.pop() {
                if !seen.insert(id.clone()) {
                    continue;
                }
                let Some(zone) = zones.registry_of(&id) else { continue };
                let keys = zone.records.delegations.below(&id.zone);
                open.extend(
                    keys.filter_map(|key| zone.registry().get(key)).filter_map(|record| take(record, name)),
                );
            }
        }
        let newest = |mut contacts: Vec<(Timestamp, Contact)>| {
            contacts.sort_by_key(|(at, contact)| (std::cmp::Reverse(*at), contact.peer));
            let (mut gateways, mut seen): (Vec<Contact>, BTreeSet<PeerKey>) = Default::default();
            for (_, contact) in contacts {
                if seen.insert(contact.peer) {
                    gateways.push(contact);
                }
            }
            gateways
        };
        named.into_iter().map(|(id, contacts)| (id, newest(contacts))).collect()
    }
}

/// Those zones that are followed where there are too many, and how many are not: those whose keys the operator named, then the
/// first of each host, the second of each, and so on. Who names thousands pushes out nobody who names few.
fn shared_out(
    named: BTreeMap<ZoneId, Vec<Contact>>,
    anchors: &BTreeMap<ZoneName, PeerKey>,
    max: usize,
) -> (BTreeMap<ZoneId, Vec<Contact>>, usize) {
    if named.len() <= max {
        return (named, 0);
    }
    let mut of_host: BTreeMap<PeerKey, usize> = BTreeMap::new();
    let mut ranked: Vec<(usize, ZoneId, Vec<Contact>)> = Vec::new();
    for (id, contacts) in named {
        let mut place = |contact: &Contact| {
            let count = of_host.entry(contact.peer).or_default();
            *count += 1;
            *count
        };
        let first = contacts.iter().map(&mut place).min().unwrap_or(usize::MAX);
        ranked.push((if anchors.contains_key(&id.zone) { 0 } else { first }, id, contacts));
    }
    ranked.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
    let beyond = ranked.len() - max;
    ranked.truncate(max);
    (ranked.into_iter().map(|(_, id, contacts)| (id, contacts)).collect(), beyond)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contact(number: u8) -> Contact {
        Contact { peer: PeerKey([number; 32]), addresses: Vec::new() }
    }

    #[test]
    fn who_names_thousands_of_zones_pushes_out_nobody_who_names_few() {
        let id = |name: &str| ZoneId::open(name.parse().unwrap());
        let mut named: BTreeMap<ZoneId, Vec<Contact>> =
            (0..500).map(|number| (id(&format!("a{number}.org")), vec![contact(1)])).collect();
        // He names a zone of others, too.
        named.insert(id("z1.org"), vec![contact(1), contact(2)]);
        named.insert(id("z2.org"), vec![contact(2)]);
        named.insert(id("z3.org"), vec![contact(1)]);
        let anchors = BTreeMap::from([("z3.org".parse().unwrap(), PeerKey([9; 32]))]);
        let (kept, beyond) = shared_out(named, &anchors, 100);
        assert_eq!((kept.len(), beyond), (100, 403));
        assert!(["z1.org", "z2.org", "z3.org"].iter().all(|name| kept.contains_key(&id(name))));
    }

    #[test]
    fn gateways_that_answer_stay_whoever_names_himself_later() {
        let mut followed = Followed::default();
        let met = |answers| Met { at: Timestamp(0), is_whole: true, answers };
        followed.met = BTreeMap::from([(PeerKey([1; 32]), met(true)), (PeerKey([2; 32]), met(false))]);
        let named: Vec<Contact> = (3..40).chain([2, 1]).map(contact).collect();
        let picked = followed.pick(named);
        assert_eq!(picked.len(), GATEWAYS_MAX);
        assert_eq!(picked[0].peer, PeerKey([1; 32]));
        assert!(
            picked.iter().all(|it| it.peer != PeerKey([2; 32])),
            "who does not answer has no right to stay"
        );
    }
}
