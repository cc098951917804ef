//! How a record of this node is made: greater than all it replaces, never outlived by it, and merged here before anybody
//! else sees it.

use std::sync::Arc;

use serde_bytes::ByteBuf;

use super::guard::{is_ahead, tell_stamped_ahead};
use super::unkept::Before;
use super::{OwnRecords, is_offer};
use crate::proto::card::Scope;
use crate::proto::codec;
use crate::proto::context::Context;
use crate::proto::grant::{Chain, Claim, Grant, verify_chain};
use crate::proto::identity::PeerKey;
use crate::proto::io::{NodeAlert, Via};
use crate::proto::limits::{CARD_LIFE, STAMP_AHEAD_MAX, TOMBSTONE_LIFE, TOMBSTONE_LIFE_LONG};
use crate::proto::name::FullName;
use crate::proto::persistence;
use crate::proto::record::{
    Header, KeyHash, Record, RecordKey, RecordKind, Refusal, Revocation, RevokedRecord, Shelf, SignedRecord,
};
use crate::proto::registration::WriteError;
use crate::proto::registry::Merge;
use crate::proto::time::{Stamp, Timestamp};
use crate::proto::zone::Zones;

/// What is to be written under an own key.
pub(super) struct Draft {
    pub(super) name: FullName,
    pub(super) owner: PeerKey,
    pub(super) host: PeerKey,
    pub(super) kind: RecordKind,
    pub(super) scope: Scope,
    /// At least; never less than that of what it replaces.
    pub(super) generation: u64,
    pub(super) grants: Vec<ByteBuf>,
    /// Empty for a tombstone.
    pub(super) body: Vec<u8>,
}

impl Draft {
    /// The same as a record says.
    pub(super) fn again(record: &Record) -> Draft {
        Draft {
            name: record.name.clone(),
            owner: record.owner,
            host: record.host,
            kind: record.kind.clone(),
            scope: record.scope,
            generation: record.generation,
            grants: record.grants(),
            body: record.body().to_vec(),
        }
    }

    /// What takes a record of another host back, for its owner.
    pub(super) fn revocation(record: &Record) -> Draft {
        let meant = RevokedRecord { kind: record.kind.clone(), name: record.name.agent.clone() };
        let revocation = Revocation { host: record.host, record: Some(meant) };
        let zone = record.name.zone.clone();
        Draft {
            name: FullName { agent: revocation.name(&zone, record.owner), zone },
            owner: record.owner,
            host: record.owner,
            kind: RecordKind::Revocation,
            scope: Scope::Public,
            generation: record.generation,
            grants: Vec::new(),
            body: codec::encode(&revocation),
        }
    }

    pub(super) fn key(&self) -> KeyHash {
        self.key_in(self.scope)
    }

    pub(super) fn keys_in_other_scopes(&self) -> Vec<KeyHash> {
        let scopes = [Scope::Public, Scope::Zone, Scope::Node].into_iter();
        scopes.filter(|scope| *scope != self.scope).map(|scope| self.key_in(scope)).collect()
    }

    pub(super) fn shelf(&self) -> Shelf {
        Shelf { owner: self.owner, host: self.host, revocations: self.kind == RecordKind::Revocation }
    }

    fn is_tombstone(&self) -> bool {
        self.body.is_empty()
    }

    fn key_in(&self, scope: Scope) -> KeyHash {
        RecordKey {
            zone: &self.name.zone,
            kind: &self.kind,
            name: &self.name.agent,
            owner: self.owner,
            host: self.host,
            scope,
        }
        .hash()
    }
}

impl OwnRecords {
    /// A registration equal to what is held and not due for renewal writes nothing.
    pub(super) fn is_offered_already(&self, now: Timestamp, zones: &Zones, draft: &Draft) -> bool {
        let key = draft.key();
        let Some(own) = self.records.get(&key) else { return false };
        let Some(registry) = zones.get(&draft.name.zone).map(|zone| zone.registry()) else { return false };
        registry.get(&key).is_some_and(|held| held.hash() == own.hash())
            && !registry.is_revoked(own, now)
            && own.body() == draft.body
            && own.scope == draft.scope
            && (own.grants() == draft.grants || is_carried_as_well(own, draft))
            && own.renewal_at() > now
            && !is_ahead(now, own)
    }

    pub(super) fn write(
        &mut self,
        ctx: &mut Context<'_>,
        zones: &mut Zones,
        draft: Draft,
    ) -> Result<(), WriteError> {
        check_writes(ctx)?;
        if ctx.out.has_alert(&NodeAlert::DuplicateIdentity(draft.name.clone())) {
            return Err(WriteError::DuplicateIdentity);
        }
        let name = draft.name.clone();
        let key = draft.key();
        let header = self.header(ctx, zones, key, &draft)?;
        let signed = SignedRecord::sign(header, &draft.body, ctx.identity).map_err(WriteError::Refused)?;
        ctx.cache.keep(&signed);
        // Through the gate that everybody else's records pass: what peers would refuse is refused here, with its reason.
        let record = signed.verify_with(ctx.now, &mut ctx.cache.keys).map_err(|refusal| match refusal {
            // It is on the shelf, but beyond the slots of the grant.
            Refusal::BadSlot => WriteError::QuotaExceeded,
            refusal => WriteError::Refused(refusal),
        })?;
        let zone = zones.get_mut(&name.zone).ok_or_else(|| WriteError::ZoneNotServed(name.zone.clone()))?;
        if !zone.records.is_granted(&record) {
            return Err(WriteError::NotGranted(name.zone));
        }
        if zone.registry().is_revoked(&record, ctx.now) && !record.is_tombstone() {
            return Err(WriteError::Revoked(name));
        }
        let before = Before {
            zone: name.zone.clone(),
            own: self.records.get(&key).cloned(),
            held: zone.registry().get(&key).cloned(),
        };
        match zone.records.merge(ctx, record.clone(), Via::Local) {
            Merge::New { .. } => {}
            Merge::Stale | Merge::Duplicate => return Err(WriteError::Superseded(name)),
            Merge::NoRoom(_) if is_offer(&record) => return Err(WriteError::ZoneFull(name.zone)),
            // What takes back stays here until it ends: whoever holds what it names has room for it.
            Merge::NoRoom(_) => {}
        }
        // The record's row before its version's: after a crash between them the version is read from the record.
        ctx.out.write(persistence::own_row(&record));
        if record.seq > 0 {
            ctx.out.write(zone.records.written(&record));
        }
        self.keep(record);
        self.unkept.note(key, before);
        self.restored.forget(ctx, &key);
        self.plan_renewal(ctx.now, zones, &key);
        if ctx.out.has_alert(&NodeAlert::StampedAhead) {
            tell_stamped_ahead(self, ctx);
        }
        Ok(())
    }

    /// Stamp, generation and lease of a new own write.
    fn header(
        &mut self,
        ctx: &Context<'_>,
        zones: &Zones,
        key: KeyHash,
        draft: &Draft,
    ) -> Result<Header, WriteError> {
        let zone = zones.get(&draft.name.zone).ok_or_else(|| WriteError::NotFound(draft.name.clone()))?;
        let own = self.records.get(&key).map(|own| &**own);
        let present = Stamp { wall: ctx.now, counter: 0 };
        let given = chain_of(ctx, draft, present)?.and_then(|chain| chain.slots);
        let slot = self.shelves.slot_for(draft, own, zone.registry(), given)?;
        // Both what is held and what was last written here: either may be the later one after a restart.
        let replaced: Vec<&Arc<Record>> =
            zone.registry().get(&key).into_iter().chain(self.records.get(&key)).collect();
        let successors = replaced.iter().map(|record| record.stamp.successor());
        let mut stamp = successors.fold(present, Stamp::max);
        let highest = replaced.iter().map(|record| record.generation).max().unwrap_or(0);
        let mut generation = highest.max(draft.generation);
        // Such a stamp would be refused by everybody until it is due.
        if stamp.wall > ctx.now + STAMP_AHEAD_MAX {
            // An earlier wrong clock harms only this key: a generation overrules the stamp, the owner's or that of his grant.
            let raised = if draft.owner == ctx.key() { generation + 1 } else { granted_generation(draft) };
            if raised <= highest {
                return Err(WriteError::StampedAhead(draft.name.clone()));
            }
            (stamp, generation) = (present, raised);
        }
        let chain = chain_of(ctx, draft, stamp)?;
        if let Some(granted) = chain.and_then(|chain| chain.generation) {
            // The owner has since signed a higher one, to take this host's right away.
            if granted < generation {
                return Err(WriteError::Superseded(draft.name.clone()));
            }
            generation = granted;
        }
        let raises = generation > highest && !replaced.is_empty();
        let expires_at = match draft.kind {
            // A generation may have overruled what a wrong clock stamped, which lasts as much longer.
            _ if draft.is_tombstone() && generation > 0 => stamp.wall + TOMBSTONE_LIFE_LONG,
            _ if draft.is_tombstone() => stamp.wall + TOMBSTONE_LIFE,
            RecordKind::Revocation => stamp.wall + TOMBSTONE_LIFE_LONG,
            RecordKind::Agent | RecordKind::Delegation | RecordKind::Unknown(_) => {
                let ends = stamp.wall + CARD_LIFE;
                chain.map_or(ends, |chain| ends.min(chain.expires_at))
            }
        };
        // A card that would come back after this one lapsed must not be replaced by it, but by a higher generation: only so
        // is overruled what a clock far ahead wrote.
        let outlived = replaced.iter().any(|record| !record.is_tombstone() && record.expires_at > expires_at);
        if outlived && !raises {
            return Err(WriteError::GrantTooShort(draft.name.clone()));
        }
        Ok(Header {
            network: ctx.config.network.clone(),
            zone: draft.name.zone.clone(),
            kind: draft.kind.clone(),
            name: draft.name.agent.clone(),
            owner: draft.owner,
            host: draft.host,
            author: self.author,
            seq: if draft.scope == Scope::Node { 0 } else { zone.records.seq() + 1 },
            stamp,
            generation,
            expires_at,
            scope: draft.scope,
            slot,
            grants: draft.grants.clone(),
        })
    }
}

/// Whether this host may write anything now.
pub(super) fn check_writes(ctx: &Context<'_>) -> Result<(), WriteError> {
    // First: a stamp from a wrong clock would stand over right ones for as long as the clock was ahead.
    if let Some(offset) = ctx.unsafe_offset {
        return Err(WriteError::ClockUnsafe(offset));
    }
    // Two processes that overrule each other would write for ever; the operator has to end one.
    if ctx.out.has_alert(&NodeAlert::KeyInUse) {
        return Err(WriteError::DuplicateIdentity);
    }
    match ctx.out.store_failure() {
        Some(reason) => Err(WriteError::StoreFailed(reason.to_owned())),
        None => Ok(()),
    }
}

fn chain_of(ctx: &Context<'_>, draft: &Draft, stamp: Stamp) -> Result<Option<Chain>, WriteError> {
    if draft.owner == ctx.key() && draft.grants.is_empty() {
        return Ok(None);
    }
    let claim = Claim {
        network: &ctx.config.network,
        owner: draft.owner,
        author: ctx.key(),
        zone: &draft.name.zone,
        name: &draft.name.agent,
        kind: &draft.kind,
        stamped_at: stamp.wall,
    };
    verify_chain(&draft.grants, &claim).map(Some).map_err(WriteError::BadGrant)
}

fn granted_generation(draft: &Draft) -> u64 {
    let mut grants = draft.grants.iter().filter_map(|grant| Grant::read(grant).ok());
    grants.find(|grant| grant.issuer == draft.owner).map_or(0, |grant| grant.generation)
}

/// Whether the grants that an own record travels with do as well as those of a new draft: a host that grants itself
/// with its owner's key makes a new grant at every start.
fn is_carried_as_well(own: &Record, draft: &Draft) -> bool {
    granted_generation(draft) == own.generation && own.expires_at == own.stamp.wall + CARD_LIFE
}
