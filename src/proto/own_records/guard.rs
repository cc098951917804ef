//! What a node writes again: offers whose leases run out, and own keys under which another writer's record stands.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::renewals::Renewals;
use super::shelf::Knowledge;
use super::write::Draft;
use super::{OwnRecords, is_offer, is_synced, may_renew};
use crate::proto::context::Context;
use crate::proto::io::{NodeAlert, Via};
use crate::proto::limits::STAMP_AHEAD_MAX;
use crate::proto::name::ZoneName;
use crate::proto::persistence;
use crate::proto::record::{KeyHash, NoRoom, Record};
use crate::proto::registry::Merge;
use crate::proto::time::Timestamp;
use crate::proto::zone::Zones;

/// The wait between two records that move to their places: a full shelf takes minutes, and no peer's budget.
const MOVE_INTERVAL: Duration = Duration::from_millis(50);

impl OwnRecords {
    /// Overrules what stands under an own key and was not written in this folder.
    pub(in crate::proto) fn guard(
        &mut self,
        ctx: &mut Context<'_>,
        zones: &mut Zones,
        key: &KeyHash,
        zone: &ZoneName,
    ) {
        let Some(registry) = zones.get(zone).map(|zone| zone.registry()) else { return };
        // What has ended says nothing any more, though it is kept for some minutes.
        let held = registry.get(key).filter(|held| !held.is_expired(ctx.now)).cloned();
        let own = self.records.get(key).cloned();
        if let Some(own) = own.as_ref().filter(|own| is_offer(own) && registry.is_revoked(own, ctx.now)) {
            ctx.out.alert(NodeAlert::Revoked(own.name.clone()));
        }
        match (held, own) {
            (Some(held), Some(own)) if own.hash() == held.hash() => {}
            (Some(held), _) if held.host != ctx.key() => {}
            // Before it is overruled: burying what this folder itself wrote would lose an acknowledged agent. Where it may
            // have forgotten some of its writes, the later one counts.
            (Some(held), own)
                if own.as_ref().is_none_or(|own| own.order() < held.order())
                    && (self.is_lost_write(&held)
                        || own.is_some() && self.shelves.knowledge() == Knowledge::Incomplete) =>
            {
                self.adopt(ctx, zones, held);
            }
            (Some(held), Some(own)) => self.overrule(ctx, zones, &held, &own),
            (Some(held), None) => self.restored.note(ctx, &held),
            (None, Some(own)) => self.stand(ctx, zones, own),
            (None, None) => self.restored.forget(ctx, key),
        }
    }

    /// What this folder wrote and lost is its own write again.
    fn adopt(&mut self, ctx: &mut Context<'_>, zones: &Zones, held: Arc<Record>) {
        let key = held.key();
        // What a peer only claimed is shown by a record now.
        if ctx.out.clear_alerts(|alert| *alert == NodeAlert::ClaimedHead) {
            ctx.out.alert(NodeAlert::RestoredBackup);
        }
        ctx.out.write(persistence::own_row(&held));
        self.keep(held);
        self.plan_renewal(ctx.now, zones, &key);
    }

    /// Writes this folder's last word again, over another record of the key.
    fn overrule(&mut self, ctx: &mut Context<'_>, zones: &mut Zones, held: &Record, own: &Record) {
        // Nothing can be said against it; all own keys are looked at once writes are possible again.
        if ctx.out.store_failure().is_some() || ctx.out.has_alert(&NodeAlert::KeyInUse) {
            return;
        }
        // An older one, which stands by its smaller slot, tells of no other writer.
        if held.order() > own.order() {
            let interval = ctx.config.own_key_interval;
            let last = self.reasserted_at.get(&held.key());
            if last.is_some_and(|last| ctx.now.since(*last) < interval) {
                return ctx.out.alert(NodeAlert::DuplicateIdentity(held.name.clone()));
            }
            // Bounds the list by what happened within one interval.
            self.reasserted_at.retain(|_, at| ctx.now.since(*at) < interval);
            self.reasserted_at.insert(held.key(), ctx.now);
        }
        self.reassert(ctx, zones, own);
    }

    /// An own record is not held: it ended, or there was no room for it.
    fn stand(&mut self, ctx: &mut Context<'_>, zones: &mut Zones, own: Arc<Record>) {
        let key = own.key();
        if own.is_expired(ctx.now) && !is_offer(&own) {
            return self.remove(ctx, &key);
        }
        if own.is_expired(ctx.now) || own.renewal_at() <= ctx.now {
            if may_renew(ctx, zones) {
                self.reassert(ctx, zones, &own);
            }
            return;
        }
        let may_renew = may_renew(ctx, zones);
        // Far up there may never be room for it again, and in its place there is. Where that cannot be written now, it stands
        // as it is, or is told.
        if may_renew && self.shelves.is_out_of_place(own.slot) && self.reassert(ctx, zones, &own) {
            return;
        }
        let Some(zone) = zones.get_mut(&own.name.zone) else { return };
        match zone.records.merge(ctx, own.clone(), Via::Store) {
            Merge::New { .. } => {
                zone.records.publish_later(own);
                self.plan_renewal(ctx.now, zones, &key);
            }
            Merge::NoRoom(NoRoom::SlotTaken) if is_offer(&own) && may_renew => {
                // That key is written again first, so that it stands there for as long as a version of this one could,
                // which then takes another slot.
                let other = zone.registry().in_slot(own.shelf(), own.slot).cloned();
                if let Some(other) = other.filter(|other| self.records.contains_key(&other.key())) {
                    self.reassert(ctx, zones, &other);
                }
                self.reassert(ctx, zones, &own);
            }
            not_held @ (Merge::NoRoom(_) | Merge::Stale | Merge::Duplicate) => {
                if matches!(not_held, Merge::NoRoom(_)) && is_offer(&own) {
                    ctx.out.alert(NodeAlert::ZoneFull(own.name.zone.clone()));
                }
                self.renewals.plan(ctx.now + ctx.config.own_key_interval, key);
            }
        }
    }

    /// Writes an own record again with a new stamp and lease; whether it could. A refusal leaves what is held to lapse.
    fn reassert(&mut self, ctx: &mut Context<'_>, zones: &mut Zones, offered: &Record) -> bool {
        let is_written = self.write(ctx, zones, Draft::again(offered)).is_ok();
        if !is_written {
            // Tried again at the next chance: the clock may be set, the stamp may come due.
            self.renewals.plan(ctx.now + ctx.config.own_key_interval, offered.key());
        }
        is_written
    }

    /// Renews own leases that are due, and tries again what could not be written or had no room.
    pub(in crate::proto) fn renew(&mut self, ctx: &mut Context<'_>, zones: &mut Zones) {
        if self.key_use.is_over(ctx) {
            self.guard_all(ctx, zones);
        }
        if !may_renew(ctx, zones) {
            return;
        }
        self.know_shelf(ctx);
        // Each once: what is due again at once must not hold up the rest of the node.
        let due = self.renewals.take_due(ctx.now);
        if due.is_empty() {
            return;
        }
        for key in due {
            let Some(own) = self.records.get(&key).cloned() else { continue };
            let held = zones.get(&own.name.zone).and_then(|zone| zone.registry().get(&key));
            if held.is_none_or(|held| held.hash() != own.hash()) {
                let zone = own.name.zone.clone();
                self.guard(ctx, zones, &key, &zone);
            } else if renewal_due(ctx.now, zones, &own) <= ctx.now || self.shelves.is_out_of_place(own.slot) {
                self.reassert(ctx, zones, &own);
            } else {
                self.plan_renewal(ctx.now, zones, &key);
            }
        }
        tell_stamped_ahead(self, ctx);
    }

    /// Own offers that lapsed while this node was away were held back until it had heard the world.
    pub(in crate::proto) fn renew_after_first_sync(
        &mut self,
        ctx: &mut Context<'_>,
        zones: &mut Zones,
        zone: &ZoneName,
    ) {
        // An older copy of the folder is told by its epoch; whoever knows that it forgot something hears more than one peer.
        if self.shelves.knowledge() == Knowledge::Unconfirmed && is_synced(ctx.config, zones) {
            self.know_shelf(ctx);
        }
        if !may_renew(ctx, zones) {
            return;
        }
        let lapsed: Vec<KeyHash> = self
            .records
            .iter()
            .filter(|(_, own)| own.name.zone == *zone && own.is_expired(ctx.now) && is_offer(own))
            .map(|(key, _)| *key)
            .collect();
        for key in lapsed {
            self.guard(ctx, zones, &key, zone);
        }
    }

    /// Peers told what stands under this node's key: records that were put far up move to their places, one after the other.
    fn know_shelf(&mut self, ctx: &mut Context<'_>) {
        if self.shelves.knowledge() == Knowledge::Complete {
            return;
        }
        ctx.out.writes(self.shelves.set_knowledge(Knowledge::Complete));
        let far =
            self.records.values().filter(|own| self.shelves.is_out_of_place(own.slot)).map(|own| own.key());
        for (place, key) in far.collect::<Vec<_>>().into_iter().enumerate() {
            self.renewals.plan(ctx.now + MOVE_INTERVAL * place as u32, key);
        }
    }

    /// Looks at every own key, as at the start: what could not be written is written now.
    pub(in crate::proto) fn guard_all(&mut self, ctx: &mut Context<'_>, zones: &mut Zones) {
        self.plan_renewals(ctx, zones);
        // Own keys that this folder does not know, too: an earlier one may have written them.
        let own = self.records.iter().map(|(key, own)| (*key, own.name.zone.clone()));
        let held =
            zones.values().flat_map(|zone| zone.registry().iter()).filter(|held| held.host == ctx.key());
        let held = held.map(|held| (held.key(), held.name.zone.clone()));
        for (key, zone) in own.chain(held).collect::<BTreeSet<_>>() {
            self.guard(ctx, zones, &key, &zone);
        }
    }

    pub(super) fn plan_renewal(&mut self, now: Timestamp, zones: &Zones, key: &KeyHash) {
        let Some(own) = self.records.get(key) else { return };
        // A tombstone or revocation ends with its lease, but for one that a wrong clock stamped.
        if is_offer(own) || is_ahead(now, own) {
            self.renewals.plan(renewal_due(now, zones, own), *key);
        } else {
            self.renewals.cancel(key);
        }
    }

    /// Plans all renewals anew: what was put off under a wrong clock, or stamped by it, is written again at once.
    pub(in crate::proto) fn plan_renewals(&mut self, ctx: &mut Context<'_>, zones: &Zones) {
        self.renewals = Renewals::default();
        for key in self.records.keys().copied().collect::<Vec<_>>() {
            self.plan_renewal(ctx.now, zones, &key);
        }
        tell_stamped_ahead(self, ctx);
    }
}

/// Until they are written again nobody takes them.
pub(super) fn tell_stamped_ahead(own: &OwnRecords, ctx: &mut Context<'_>) {
    if own.records.values().any(|own| is_ahead(ctx.now, own)) {
        ctx.out.alert(NodeAlert::StampedAhead);
    } else {
        ctx.out.clear_alerts(|alert| *alert == NodeAlert::StampedAhead);
    }
}

/// When an own record is to be written again: at once if it is not held, as after a clock that was ahead dropped it, or if
/// everybody else refuses its stamp.
fn renewal_due(now: Timestamp, zones: &Zones, own: &Record) -> Timestamp {
    let is_held = zones.get(&own.name.zone).is_some_and(|zone| zone.registry().get(&own.key()).is_some());
    if is_held && !is_ahead(now, own) { own.renewal_at() } else { Timestamp::default() }
}

/// Whether everybody else refuses it still.
pub(super) fn is_ahead(now: Timestamp, own: &Record) -> bool {
    own.stamp.wall > now + STAMP_AHEAD_MAX
}
