//! What a node writes again: offers whose leases run out, and own keys under which another writer's record stands.

use std::sync::Arc;

use super::write::Draft;
use super::{OwnRecords, may_renew};
use crate::proto::context::Context;
use crate::proto::io::NodeAlert;
use crate::proto::limits::CARD_LIFE;
use crate::proto::name::ZoneName;
use crate::proto::persistence;
use crate::proto::record::{KeyHash, Record};
use crate::proto::time::Timestamp;
use crate::proto::zone::Zones;

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
        let offered = own.as_ref().filter(|own| !own.is_tombstone()).cloned();
        match (held, offered) {
            (Some(held), _) if own.as_ref().is_some_and(|own| own.hash() == held.hash()) => {}
            (Some(held), _) if held.host != ctx.key() => {}
            // The owner's word stands over the host's.
            (Some(held), _) if held.is_tombstone() && held.author.key == held.owner => {
                self.withdraw(ctx, key);
            }
            // Before it is overruled: burying what this folder itself wrote would lose an acknowledged agent.
            (Some(held), _) if self.is_lost_write(&held) => self.adopt(ctx, zones, held),
            (Some(held), offered) => self.overrule(ctx, zones, &held, offered.as_deref()),
            (None, Some(offered)) if may_renew(ctx.config, zones) => self.reassert(ctx, zones, &offered),
            (None, _) => {}
        }
    }

    /// The owner deleted the agent: this host offers it no longer.
    fn withdraw(&mut self, ctx: &mut Context<'_>, key: &KeyHash) {
        if self.records.remove(key).is_some() {
            ctx.out.write(persistence::remove_own(*key));
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
        self.records.insert(key, held);
        self.plan_renewal(zones, &key);
    }

    fn overrule(
        &mut self,
        ctx: &mut Context<'_>,
        zones: &mut Zones,
        held: &Record,
        offered: Option<&Record>,
    ) {
        // Nothing can be said against it; all own keys are looked at once the store keeps writes again.
        if ctx.out.store_failure().is_some() {
            return;
        }
        let interval = ctx.config.own_key_interval;
        let last = self.reasserted_at.get(&held.key());
        if last.is_some_and(|last| ctx.now.since(*last) < interval) {
            return ctx.out.alert(NodeAlert::DuplicateIdentity(held.name.clone()));
        }
        // Bounds the list by what happened within one interval.
        self.reasserted_at.retain(|_, at| ctx.now.since(*at) < interval);
        self.reasserted_at.insert(held.key(), ctx.now);
        match offered {
            Some(offered) => self.reassert(ctx, zones, offered),
            // What cannot be buried lapses by itself.
            None => _ = self.bury(ctx, zones, held),
        }
    }

    /// Writes an own offer again with a new stamp and lease. A refusal leaves the held record to lapse.
    fn reassert(&mut self, ctx: &mut Context<'_>, zones: &mut Zones, offered: &Record) {
        if self.write(ctx, zones, Draft::again(offered)).is_err() {
            // Tried again at the next chance: the clock may be set, the stamp may come due.
            self.renew_at(ctx.now + ctx.config.own_key_interval, offered.key());
        }
    }

    /// Renews own leases that are due.
    pub(in crate::proto) fn renew(&mut self, ctx: &mut Context<'_>, zones: &mut Zones) {
        if !may_renew(ctx.config, zones) {
            return;
        }
        while let Some(&(at, key)) = self.renewals.due.first().filter(|(at, _)| *at <= ctx.now) {
            // Taken out first: writing plans the next renewal of the same key.
            self.renewals.due.remove(&(at, key));
            self.renewals.of.remove(&key);
            if let Some(own) = self.records.get(&key).filter(|own| !own.is_tombstone()).cloned() {
                if renewal_due(zones, &own) <= ctx.now {
                    self.reassert(ctx, zones, &own);
                } else {
                    self.plan_renewal(zones, &key);
                }
            }
        }
    }

    /// Own offers that lapsed while this node was away were held back until it had heard the world.
    pub(in crate::proto) fn renew_after_first_sync(
        &mut self,
        ctx: &mut Context<'_>,
        zones: &mut Zones,
        zone: &ZoneName,
    ) {
        if !may_renew(ctx.config, zones) {
            return;
        }
        let lapsed: Vec<KeyHash> = self
            .records
            .iter()
            .filter(|(_, own)| own.name.zone == *zone && own.is_expired(ctx.now) && !own.is_tombstone())
            .map(|(key, _)| *key)
            .collect();
        for key in lapsed {
            self.guard(ctx, zones, &key, zone);
        }
    }

    /// Looks at every own key, as at the start: what could not be written is written now.
    pub(in crate::proto) fn guard_all(&mut self, ctx: &mut Context<'_>, zones: &mut Zones) {
        let keys: Vec<(KeyHash, ZoneName)> =
            self.records.iter().map(|(key, own)| (*key, own.name.zone.clone())).collect();
        for (key, zone) in keys {
            self.plan_renewal(zones, &key);
            self.guard(ctx, zones, &key, &zone);
        }
    }

    pub(super) fn plan_renewal(&mut self, zones: &Zones, key: &KeyHash) {
        if let Some(own) = self.records.get(key).filter(|own| !own.is_tombstone()) {
            self.renew_at(renewal_due(zones, own), *key);
        }
    }

    /// Plans all renewals anew: what was put off under a wrong clock is tried again at once.
    pub(in crate::proto) fn plan_renewals(&mut self, zones: &Zones) {
        self.renewals.due.clear();
        self.renewals.of.clear();
        for key in self.records.keys().copied().collect::<Vec<_>>() {
            self.plan_renewal(zones, &key);
        }
    }

    fn renew_at(&mut self, at: Timestamp, key: KeyHash) {
        if let Some(before) = self.renewals.of.insert(key, at) {
            self.renewals.due.remove(&(before, key));
        }
        self.renewals.due.insert((at, key));
    }
}

/// When an own offer is to be written again: at once if it is not held, as after a clock that was ahead dropped it.
fn renewal_due(zones: &Zones, own: &Record) -> Timestamp {
    let is_held = zones.get(&own.name.zone).is_some_and(|zone| zone.registry().get(&own.key()).is_some());
    if is_held { renewal_at(own) } else { Timestamp::default() }
}

/// Half of the lease ± 20 %, drawn from the record's hash so that it is the same after a restart.
pub(super) fn renewal_at(own: &Record) -> Timestamp {
    let lease = own.expires_at.since(own.stamp.wall);
    // A grant ends it: what is written again would end then as well, at ever shorter intervals.
    if lease < CARD_LIFE {
        return own.expires_at;
    }
    // Agents that were registered together are spread over the weeks, and no generator has to be kept.
    let draw = f64::from(own.hash().0[0]) / 255.0;
    own.stamp.wall + lease.mul_f64(0.5 * (0.8 + 0.4 * draw))
}
