//! Naming a zone in the one above: its delegation is written, renewed and taken back.

use std::sync::Arc;

use serde_bytes::ByteBuf;

use super::walk::{ASK_PATIENCE, Reached, Walker};
use super::{Overlay, ask, delegated};
use crate::proto::ask::Contact;
use crate::proto::card::Scope;
use crate::proto::codec;
use crate::proto::context::Context;
use crate::proto::fingerprint;
use crate::proto::grant::Grant;
use crate::proto::identity::PeerKey;
use crate::proto::io::{Protocol, Via};
use crate::proto::limits::{DELEGATION_LIFE, DELEGATION_TOMBSTONE_LIFE};
use crate::proto::message::{SyncFrame, SyncRequest};
use crate::proto::name::{ZoneId, ZoneName};
use crate::proto::record::{Delegation, Header, Record, RecordKind, SignedRecord};
use crate::proto::time::{Stamp, Timestamp};
use crate::proto::zone::Zones;

impl Overlay {
    /// Names the zone to its parent, unless that knows it for long enough.
    pub(super) fn delegate(
        &mut self,
        ctx: &mut Context<'_>,
        zones: &mut Zones,
        name: &ZoneName,
        reached: &Reached,
    ) {
        let Some(walker) = self.offices.get_mut(name) else { return };
        let target = ctx.config.zone_id(name);
        let is_own =
            |record: &&Arc<Record>| record.host == ctx.key() && delegated(record) == Some(target.clone());
        let held = reached.way.iter().find(is_own).cloned();
        let is_good = |record: &Record| {
            record.delegation().is_some_and(|it| it.addresses == ctx.addresses)
                && record.stamp.wall + DELEGATION_LIFE / 2 > ctx.now
        };
        if held.as_ref().is_some_and(|held| is_good(held)) {
            walker.given = held;
            return;
        }
        // Whoever does not name what was given did not hear of it, names others in its place, or lies: it is given as it is, for
        // a new one each time would go to everybody in that zone.
        let is_meant = |given: &Record| {
            delegated(given).is_some_and(|of| of == target)
                && (&given.name.zone, given.slot) == (&reached.zone.zone, reached.slot)
                && given.granted_by == reached.zone.key.or(target.key)
        };
        let given = walker.given.clone().filter(|given| held.is_none() && is_meant(given) && is_good(given));
        if let Some(given) = given {
            return self.give(ctx, zones, name, &reached.zone, &reached.gateway, given);
        }
        let earlier = held.or_else(|| walker.given.clone());
        let body = codec::encode(&Delegation { zone: name.clone(), addresses: ctx.addresses.to_vec() });
        let Some(record) = sign(ctx, &target, &reached.zone, earlier.as_deref(), reached.slot, &body) else {
            return;
        };
        walker.given = Some(record.clone());
        self.give(ctx, zones, name, &reached.zone, &reached.gateway, record);
    }

    /// What was delegated is taken back.
    pub(super) fn bury(&mut self, ctx: &mut Context<'_>, zones: &mut Zones, walker: Walker) {
        let Walker { parent: Some(parent), given: Some(given), .. } = walker else { return };
        let Some(target) = delegated(&given).filter(|_| given.name.zone == parent.zone.zone) else { return };
        if let Some(record) = sign(ctx, &target, &parent.zone, Some(&given), given.slot, &[]) {
            self.give(ctx, zones, &target.zone, &parent.zone, &parent.gateway, record);
        }
    }

    fn give(
        &mut self,
        ctx: &mut Context<'_>,
        zones: &mut Zones,
        name: &ZoneName,
        parent: &ZoneId,
        gateway: &Contact,
        record: Arc<Record>,
    ) {
        if let Some(zone) = zones.get_mut(&parent.zone).filter(|zone| zone.id() == parent) {
            zone.records.merge(ctx, record.clone(), Via::Local);
            return zone.records.publish_later(record);
        }
        let records = vec![ByteBuf::from(record.bytes().to_vec())];
        let request = SyncRequest::Give { records, publish: true };
        let frame = SyncFrame { zone: parent.clone(), as_of: fingerprint::as_of(ctx.now), request };
        let id = ask(ctx, gateway, Protocol::Sync, frame.encode());
        if let Some(walker) = self.offices.get_mut(name) {
            walker.giving = Some((id, ctx.now + ASK_PATIENCE));
        }
    }
}

/// A delegation of a zone in one above, or its tombstone; none if this host has no right to make it, or its clock is wrong.
fn sign(
    ctx: &mut Context<'_>,
    target: &ZoneId,
    above: &ZoneId,
    earlier: Option<&Record>,
    slot: u16,
    body: &[u8],
) -> Option<Arc<Record>> {
    if ctx.unsafe_offset.is_some() {
        return None;
    }
    let grants = ctx.config.delegation_grants.get(&target.zone).cloned().unwrap_or_default();
    let owner = target.key.unwrap_or(ctx.key());
    // What a zone with a key vouches for begins with that key; what is in an open zone begins with the key of the zone named.
    let first_of = |key: PeerKey| {
        grants.iter().position(|grant| Grant::read(grant).is_ok_and(|grant| grant.issuer == key))
    };
    let first = match (above.key, target.key) {
        (Some(key), _) | (None, Some(key)) => first_of(key)?,
        (None, None) => grants.len(),
    };
    let grants = grants[first..].to_vec();
    let read = || grants.iter().filter_map(|grant| Grant::read(grant).ok());
    let ends = read().map(|grant| grant.expires_at).fold(Timestamp(u64::MAX), Timestamp::min);
    let granted = read().find(|grant| grant.issuer == owner).map(|grant| grant.generation);
    let held = earlier.filter(|it| it.name.zone == above.zone);
    let present = Stamp { wall: ctx.now, counter: 0 };
    let stamp = held.map_or(present, |held| held.stamp.successor().max(present));
    let expires_at = match body.is_empty() {
        true => stamp.wall + DELEGATION_TOMBSTONE_LIFE,
        false => (stamp.wall + DELEGATION_LIFE).min(ends),
    };
    let header = Header {
        network: ctx.config.network.clone(),
        zone: above.zone.clone(),
        kind: RecordKind::Delegation,
        name: target.zone.delegated_in(&above.zone)?,
        owner,
        host: ctx.key(),
        author: ctx.author,
        seq: 0,
        stamp,
        generation: granted.unwrap_or_else(|| held.map_or(0, |held| held.generation)),
        expires_at,
        scope: Scope::Public,
        slot,
        grants,
    };
    let signed = SignedRecord::sign(header, body, ctx.identity).ok()?;
    signed.verify_with(ctx.now, &mut ctx.cache.keys).ok()
}
