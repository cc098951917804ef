//! How a record of this node is made: greater than all it replaces, never outlived by it, and merged here before anybody
//! else sees it.

use std::sync::Arc;

use serde_bytes::ByteBuf;

use super::OwnRecords;
use super::guard::renewal_at;
use super::unkept::Before;
use crate::proto::card::Scope;
use crate::proto::context::Context;
use crate::proto::grant::{Chain, Claim, Grant, verify_chain};
use crate::proto::identity::PeerKey;
use crate::proto::io::{NodeAlert, Via};
use crate::proto::limits::{CARD_LIFE, STAMP_AHEAD_MAX};
use crate::proto::name::FullName;
use crate::proto::persistence;
use crate::proto::record::{Header, KeyHash, Record, RecordKey, RecordKind, SignedRecord};
use crate::proto::registration::WriteError;
use crate::proto::registry::Merge;
use crate::proto::time::{Stamp, Timestamp};
use crate::proto::zone::Zones;

/// What is to be written under an own key.
pub(super) struct Draft {
    pub(super) name: FullName,
    pub(super) owner: PeerKey,
    pub(super) host: PeerKey,
    pub(super) scope: Scope,
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
            scope: record.scope,
            grants: record.grants(),
            body: record.body().to_vec(),
        }
    }

    pub(super) fn key(&self) -> KeyHash {
        self.key_in(self.scope)
    }

    pub(super) fn key_in_other_scope(&self) -> KeyHash {
        self.key_in(if self.scope == Scope::Node { Scope::Public } else { Scope::Node })
    }

    fn key_in(&self, scope: Scope) -> KeyHash {
        RecordKey {
            zone: &self.name.zone,
            kind: &RecordKind::Agent,
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
        let held = zones.get(&draft.name.zone).and_then(|zone| zone.registry().get(&key));
        held.is_some_and(|held| held.hash() == own.hash())
            && own.body() == draft.body
            && own.scope == draft.scope
            && (own.grants() == draft.grants || is_carried_as_well(own, draft))
            && renewal_at(own) > now
    }

    pub(super) fn write(
        &mut self,
        ctx: &mut Context<'_>,
        zones: &mut Zones,
        draft: Draft,
    ) -> Result<(), WriteError> {
        // Checked first: a stamp from a wrong clock would stand over right ones for as long as the clock was ahead.
        if let Some(offset) = ctx.unsafe_offset {
            ctx.out.alert(NodeAlert::ClockUnsafe(offset));
            return Err(WriteError::ClockUnsafe(offset));
        }
        // Two processes that overrule each other would write for ever; the operator has to end one.
        if ctx.out.has_alert(&NodeAlert::DuplicateIdentity(draft.name.clone())) {
            return Err(WriteError::DuplicateIdentity);
        }
        if let Some(reason) = ctx.out.store_failure() {
            return Err(WriteError::StoreFailed(reason.to_owned()));
        }
        let name = draft.name.clone();
        let key = draft.key();
        let header = self.header(ctx, zones, key, &draft)?;
        let signed = SignedRecord::sign(header, &draft.body, ctx.identity).map_err(WriteError::Refused)?;
        ctx.cache.keep(&signed);
        // Through the gate that everybody else's records pass: what peers would refuse is refused here, with its reason.
        let record = signed.verify_with(ctx.now, &mut ctx.cache.keys).map_err(WriteError::Refused)?;
        let zone = zones.get_mut(&name.zone).ok_or_else(|| WriteError::ZoneNotServed(name.zone.clone()))?;
        let before = Before {
            zone: name.zone.clone(),
            own: self.records.get(&key).cloned(),
            held: zone.registry().get(&key).cloned(),
        };
        match zone.records.merge(ctx, record, Via::Local) {
            Merge::New { .. } => {}
            Merge::Stale | Merge::Duplicate => return Err(WriteError::Superseded(name)),
            Merge::OverQuota => return Err(WriteError::QuotaExceeded),
        }
        // Its own eviction may have made it room for nobody.
        let record = zone.registry().get(&key).cloned().ok_or(WriteError::QuotaExceeded)?;
        // The record's row before its version's: after a crash between them the version is read from the record.
        ctx.out.write(persistence::own_row(&record));
        if record.seq > 0 {
            ctx.out.write(zone.records.written(&record));
        }
        self.records.insert(key, record);
        self.unkept.note(key, before);
        self.plan_renewal(zones, &key);
        Ok(())
    }

    /// Stamp, generation and lease of a new own write.
    fn header(
        &self,
        ctx: &Context<'_>,
        zones: &Zones,
        key: KeyHash,
        draft: &Draft,
    ) -> Result<Header, WriteError> {
        let zone = zones.get(&draft.name.zone).ok_or_else(|| WriteError::NotFound(draft.name.clone()))?;
        let replaced: Vec<&Arc<Record>> =
            // Both what is held and what was last written here: either may be the later one after a restart.
            zone.registry().get(&key).into_iter().chain(self.records.get(&key)).collect();
        let tombstone = draft.body.is_empty();
        let present = Stamp { wall: ctx.now, counter: 0 };
        let successors = replaced.iter().map(|record| record.stamp.successor());
        let mut stamp = successors.fold(present, Stamp::max);
        let mut generation = replaced.iter().map(|record| record.generation).max().unwrap_or(0);
        // Such a stamp would be refused by everybody until it is due.
        if stamp.wall > ctx.now + STAMP_AHEAD_MAX {
            // An earlier wrong clock harms only this key; its owner overrules the stamp by a generation.
            if draft.owner != ctx.key() {
                return Err(WriteError::StampedAhead(draft.name.clone(), stamp.wall));
            }
            (stamp, generation) = (present, generation + 1);
        }
        let mut expires_at =
            if tombstone { Header::tombstone_expires_at(stamp, generation) } else { stamp.wall + CARD_LIFE };
        if let Some(chain) = chain_of(ctx, draft, stamp)? {
            // The owner has since signed a higher one, to take this host's right away.
            if chain.generation < generation {
                return Err(WriteError::Superseded(draft.name.clone()));
            }
            generation = chain.generation;
            expires_at = if tombstone {
                Header::tombstone_expires_at(stamp, generation)
            } else {
                expires_at.min(chain.expires_at)
            };
        }
        // A card that would come back after this one lapsed must not be replaced by it.
        let outlived = replaced.iter().any(|record| !record.is_tombstone() && record.expires_at > expires_at);
        if outlived && draft.owner == ctx.key() {
            return Err(WriteError::StampedAhead(draft.name.clone(), expires_at));
        } else if outlived {
            return Err(WriteError::GrantTooShort(draft.name.clone()));
        }
        Ok(Header {
            network: ctx.config.network.clone(),
            zone: draft.name.zone.clone(),
            kind: RecordKind::Agent,
            name: draft.name.agent.clone(),
            owner: draft.owner,
            host: draft.host,
            author: self.author,
            seq: if draft.scope == Scope::Node { 0 } else { zone.records.seq() + 1 },
            stamp,
            generation,
            expires_at,
            scope: draft.scope,
            grants: draft.grants.clone(),
        })
    }
}

fn chain_of(ctx: &Context<'_>, draft: &Draft, stamp: Stamp) -> Result<Option<Chain>, WriteError> {
    if draft.owner == ctx.key() {
        return Ok(None);
    }
    let claim = Claim {
        network: &ctx.config.network,
        owner: draft.owner,
        author: ctx.key(),
        zone: &draft.name.zone,
        name: &draft.name.agent,
        kind: &RecordKind::Agent,
        stamped_at: stamp.wall,
    };
    verify_chain(&draft.grants, &claim).map(Some).map_err(WriteError::BadGrant)
}

/// Whether the grants that an own record travels with do as well as those of a new draft: a host that grants itself
/// with its owner's key makes a new grant at every start.
fn is_carried_as_well(own: &Record, draft: &Draft) -> bool {
    let generation =
        draft.grants.first().and_then(|grant| Grant::read(grant).ok()).map(|grant| grant.generation);
    generation == Some(own.generation) && own.expires_at == own.stamp.wall + CARD_LIFE
}
