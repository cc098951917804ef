//! This node's own writes: offers, withdrawals, renewals, and the guard over its own keys (protocol section 2).
//!
//! A write is acknowledged only if it passed the whole pipeline here and won the local merge. A host speaks for its own
//! keys: what others claim under its PeerId is corrected, never against the owner's tombstone.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_bytes::ByteBuf;

use super::{Event, Node, NodeAlert, Via, stored};
use crate::proto::card::{Offer, Scope};
use crate::proto::code::Code;
use crate::proto::codec;
use crate::proto::config::{CARD_LIFE, STAMP_AHEAD_MAX};
use crate::proto::grant::{Claim, Grant, GrantError, verify_chain};
use crate::proto::identity::{AgentId, PeerKey};
use crate::proto::message::Envelope;
use crate::proto::name::{FullName, ZoneName};
use crate::proto::record::{Header, KeyHash, Kind, Record, Refusal, SignedRecord};
use crate::proto::registry::Merge;
use crate::proto::time::{Stamp, Timestamp};

/// An agent of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its full name.
    pub name: FullName,
    /// Its id.
    pub id: AgentId,
}

/// Which agents that files offered before, in this run of the process or an earlier one, are withdrawn when they are
/// not offered again. What stays is asked about again with the next offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Withdraw {
    /// All: what the files offer is known.
    Others,
    /// All but these, and but those below them, whose names go on with `_`: their tools are not known yet.
    OthersBut(BTreeSet<FullName>),
    /// Only these: some file could not be read, and what it offered in an earlier run is not known.
    Only(BTreeSet<FullName>),
}

/// Why a write was not made. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The zone is not served here.
    #[error(
        "this node does not serve the zone {0}; start it with `--zone {0}`, or register at a node that does"
    )]
    ZoneNotServed(ZoneName),
    /// The local clock cannot be trusted.
    #[error("the clock of this node is {0} ms off from its bootstrap peers; set the clock, then try again")]
    ClockUnsafe(i64),
    /// The held record is stamped so far ahead that a new one would be refused everywhere.
    #[error(
        "{0} was last written with a clock far ahead; wait until {1} (Unix ms), or let its owner delete it"
    )]
    StampedAhead(FullName, Timestamp),
    /// A greater generation or another writer holds the key.
    #[error("{0} is held by a greater record; use a grant of a higher generation")]
    Superseded(FullName),
    /// The grants carry nothing here.
    #[error("the grant chain is not usable: {0}")]
    BadGrant(GrantError),
    /// The grant ends before the record that the write replaces.
    #[error(
        "the grant for {0} ends before the record it would replace; get a longer one, or let the record lapse"
    )]
    GrantTooShort(FullName),
    /// The record broke a rule.
    #[error("{0}")]
    Refused(Refusal),
    /// A quota is full.
    #[error("the quota of this zone is full for this node; deregister agents first")]
    QuotaExceeded,
    /// `zone` scope in a zone without a key.
    #[error("the scope `zone` needs an owned zone, and {0} is open; use `public` or `node`")]
    OpenZone(ZoneName),
    /// Another process writes under this node's key.
    #[error(
        "another process writes under this node's key; stop it, or give one of the two a new key and data folder"
    )]
    DuplicateIdentity,
    /// No such agent here.
    #[error("no agent {0} is registered here")]
    NotFound(FullName),
    /// It is another host's, and another owner's.
    #[error("{0} is offered by {1}; only its host or its owner may deregister it")]
    NotYours(FullName, PeerKey),
}

/// What is to be written under an own key.
struct Draft {
    name: FullName,
    owner: PeerKey,
    host: PeerKey,
    scope: Scope,
    grants: Vec<ByteBuf>,
    /// Empty for a tombstone.
    body: Vec<u8>,
}

impl WriteError {
    /// Stable code.
    pub fn code(&self) -> Code {
        match self {
            WriteError::ZoneNotServed(_) => Code::ZoneNotServed,
            WriteError::ClockUnsafe(_) | WriteError::StampedAhead(..) => Code::ClockUnsafe,
            WriteError::Superseded(_) => Code::Superseded,
            WriteError::BadGrant(_) | WriteError::GrantTooShort(_) => Code::BadGrant,
            WriteError::Refused(refusal) => refusal.code(),
            WriteError::QuotaExceeded => Code::QuotaExceeded,
            WriteError::OpenZone(_) => Code::BadScope,
            WriteError::DuplicateIdentity => Code::DuplicateIdentity,
            WriteError::NotFound(_) => Code::NotFound,
            WriteError::NotYours(..) => Code::NotYours,
        }
    }
}

impl Node {
    pub(super) fn register(
        &mut self,
        now: Timestamp,
        offers: Vec<Offer>,
    ) -> Vec<Result<Registered, WriteError>> {
        offers.into_iter().map(|offer| self.register_one(now, offer)).collect()
    }

    pub(super) fn offer_files(
        &mut self,
        now: Timestamp,
        offers: Vec<Offer>,
        withdraw: &Withdraw,
    ) -> Vec<Result<Registered, WriteError>> {
        // A name that the files still hold stays, even if its new card is refused.
        let home = self.home_zone();
        let name = |offer: &Offer| FullName {
            agent: offer.name.clone(),
            zone: offer.zone.clone().unwrap_or_else(|| home.clone()),
        };
        let mut names: BTreeSet<FullName> = offers.iter().map(name).collect();
        let registered = self.register(now, offers);
        let others = self.file_offers.difference(&names).cloned();
        let (gone, kept): (Vec<FullName>, Vec<FullName>) = others.partition(|name| withdraw.includes(name));
        names.extend(kept);
        let before = std::mem::replace(&mut self.file_offers, names);
        for name in gone {
            // One that is no longer held needs no tombstone.
            let _not_found = self.deregister(now, &name);
        }
        if before != self.file_offers {
            self.writes.push(stored::file_offers_row(&self.file_offers));
        }
        registered
    }

    fn register_one(&mut self, now: Timestamp, offer: Offer) -> Result<Registered, WriteError> {
        let zone = offer.zone.clone().unwrap_or_else(|| self.home_zone());
        if !self.zones.get(&zone).is_some_and(|zone| zone.member) {
            return Err(WriteError::ZoneNotServed(zone));
        }
        if offer.scope == Scope::Zone {
            return Err(WriteError::OpenZone(zone));
        }
        let owner = match offer.grants.first() {
            None => self.key(),
            Some(grant) => Grant::read(grant).map_err(WriteError::BadGrant)?.issuer,
        };
        let name = FullName { agent: offer.name, zone };
        let draft = Draft {
            owner,
            host: self.key(),
            scope: offer.scope,
            grants: offer.grants.into_iter().map(ByteBuf::from).collect(),
            body: codec::encode(&offer.card),
            name: name.clone(),
        };
        let registered = Registered { id: AgentId::of(owner, &name), name };
        if !self.is_offered_already(now, &draft) {
            let elsewhere = draft.key_in_other_scope(self);
            self.write(now, draft)?;
            self.bury_own(now, &elsewhere, &registered.name.zone)?;
        }
        Ok(registered)
    }

    pub(super) fn deregister(&mut self, now: Timestamp, name: &FullName) -> Result<Registered, WriteError> {
        let ids = self.indexed().by_name(name);
        let zone = self.zones.get(&name.zone).ok_or_else(|| WriteError::ZoneNotServed(name.zone.clone()))?;
        let held: Vec<Arc<Record>> =
            ids.iter().flat_map(|id| zone.registry.replicas(id, now)).cloned().collect();
        let key = self.key();
        let mut mine: Vec<&Arc<Record>> =
            held.iter().filter(|record| record.host == key || record.owner == key).collect();
        // An own offer whose lease ended would come back with its renewal.
        let lapsed: Vec<Arc<Record>> = self.lapsed_offers(name, now);
        mine.extend(&lapsed);
        let Some(first) = mine.first() else {
            return Err(match held.first() {
                Some(record) => WriteError::NotYours(name.clone(), record.host),
                None => WriteError::NotFound(name.clone()),
            });
        };
        let registered = Registered { name: name.clone(), id: first.agent_id() };
        for record in mine {
            self.bury(now, record)?;
        }
        Ok(registered)
    }

    fn lapsed_offers(&self, name: &FullName, now: Timestamp) -> Vec<Arc<Record>> {
        let own = self.own.values().filter(|own| own.name == *name && !own.is_tombstone());
        own.filter(|own| own.is_expired(now)).cloned().collect()
    }

    /// An agent that became public or private is no longer what it was before.
    fn bury_own(&mut self, now: Timestamp, key: &KeyHash, zone: &ZoneName) -> Result<(), WriteError> {
        let held = self.zones.get(zone).and_then(|zone| zone.registry.get(key)).cloned();
        match held.filter(|held| !held.is_tombstone() && !held.is_expired(now)) {
            Some(held) => self.bury(now, &held),
            None => Ok(()),
        }
    }

    fn bury(&mut self, now: Timestamp, record: &Record) -> Result<(), WriteError> {
        let grants = if record.owner == self.key() { Vec::new() } else { record.grants() };
        self.write(
            now,
            Draft {
                name: record.name.clone(),
                owner: record.owner,
                host: record.host,
                scope: record.scope,
                grants,
                body: Vec::new(),
            },
        )
    }

    /// A registration equal to what is held and not due for renewal writes nothing.
    fn is_offered_already(&self, now: Timestamp, draft: &Draft) -> bool {
        let key = draft.key(self);
        let Some(own) = self.own.get(&key) else { return false };
        let held = self.zones.get(&draft.name.zone).and_then(|zone| zone.registry.get(&key));
        held.is_some_and(|held| held.hash() == own.hash())
            && own.body() == draft.body
            && own.scope == draft.scope
            && (own.grants() == draft.grants || is_carried_as_well(own, draft))
            && renewal_at(own) > now
    }

    fn write(&mut self, now: Timestamp, draft: Draft) -> Result<(), WriteError> {
        if let Some(offset) = self.unsafe_clock_offset() {
            self.report(NodeAlert::ClockUnsafe(offset));
            return Err(WriteError::ClockUnsafe(offset));
        }
        let key = draft.key(self);
        let named = NodeAlert::DuplicateIdentity(draft.name.clone());
        if self.problems.contains(&named) {
            return Err(WriteError::DuplicateIdentity);
        }
        let name = draft.name.clone();
        let header = self.header(now, draft.key(self), &draft)?;
        let seq = header.seq;
        let signed = SignedRecord::sign(header, &draft.body, &self.identity).map_err(WriteError::Refused)?;
        self.memo.keep(&signed);
        let record = signed.verify_with(now, &mut self.memo.keys).map_err(WriteError::Refused)?;
        match self.merge(record, &name.zone, now, Via::Local) {
            Merge::New { .. } => {}
            Merge::Stale | Merge::Duplicate => return Err(WriteError::Superseded(name)),
            Merge::OverQuota => return Err(WriteError::QuotaExceeded),
        }
        let Some(zone) = self.zones.get_mut(&name.zone) else { return Ok(()) };
        let Some(record) = zone.registry.get(&key).cloned() else { return Err(WriteError::QuotaExceeded) };
        self.writes.push(stored::own_row(&record));
        if seq > 0 {
            zone.seq = seq;
            zone.unpublished.push(record.clone());
            self.writes.push(stored::seq_row(&name.zone, seq));
        }
        self.own.insert(key, record);
        self.plan_renewal(&key);
        Ok(())
    }

    /// Stamp, generation and lease of a new own write: greater than all it replaces, and never outlived by it.
    fn header(&self, now: Timestamp, key: KeyHash, draft: &Draft) -> Result<Header, WriteError> {
        let zone =
            self.zones.get(&draft.name.zone).ok_or_else(|| WriteError::NotFound(draft.name.clone()))?;
        let replaced: Vec<&Arc<Record>> =
            zone.registry.get(&key).into_iter().chain(self.own.get(&key)).collect();
        let tombstone = draft.body.is_empty();
        let present = Stamp { wall: now, counter: 0 };
        let mut stamp =
            replaced.iter().map(|record| record.stamp.successor()).fold(present, |latest, it| latest.max(it));
        let mut generation = replaced.iter().map(|record| record.generation).max().unwrap_or(0);
        if stamp.wall > now + STAMP_AHEAD_MAX {
            // An earlier wrong clock harms only this key; its owner overrules the stamp by a generation.
            if draft.owner != self.key() {
                return Err(WriteError::StampedAhead(draft.name.clone(), stamp.wall));
            }
            (stamp, generation) = (present, generation + 1);
        }
        let mut expires_at = match tombstone {
            true => Header::tombstone_expires_at(stamp, generation),
            false => stamp.wall + CARD_LIFE,
        };
        if let Some(chain) = self.chain_of(draft, stamp)? {
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
        if outlived && draft.owner == self.key() {
            return Err(WriteError::StampedAhead(draft.name.clone(), expires_at));
        } else if outlived {
            return Err(WriteError::GrantTooShort(draft.name.clone()));
        }
        Ok(Header {
            network: self.config.network.clone(),
            zone: draft.name.zone.clone(),
            kind: Kind::Agent,
            name: draft.name.agent.clone(),
            owner: draft.owner,
            host: draft.host,
            author: self.author(),
            seq: if draft.scope == Scope::Node { 0 } else { zone.seq + 1 },
            stamp,
            generation,
            expires_at,
            scope: draft.scope,
            grants: draft.grants.clone(),
        })
    }

    fn chain_of(
        &self,
        draft: &Draft,
        stamp: Stamp,
    ) -> Result<Option<crate::proto::grant::Chain>, WriteError> {
        if draft.owner == self.key() {
            return Ok(None);
        }
        let claim = Claim {
            network: &self.config.network,
            owner: draft.owner,
            author: self.key(),
            zone: &draft.name.zone,
            name: &draft.name.agent,
            kind: &Kind::Agent,
            stamped_at: stamp.wall,
        };
        verify_chain(&draft.grants, &claim).map(Some).map_err(WriteError::BadGrant)
    }

    /// Corrects what stands under an own key and was not written in this folder.
    pub(super) fn guard_own_key(&mut self, now: Timestamp, key: &KeyHash, zone: &ZoneName) {
        let Some(registry) = self.zones.get(zone).map(|zone| &zone.registry) else { return };
        let held = registry.get(key).filter(|held| !held.is_expired(now)).cloned();
        let own = self.own.get(key).cloned();
        let offered = own.as_ref().filter(|own| !own.is_tombstone()).cloned();
        match (held, offered) {
            (Some(held), _) if own.as_ref().is_some_and(|own| own.hash() == held.hash()) => {}
            (Some(held), _) if held.host != self.key() => {}
            (Some(held), _) if held.is_tombstone() && held.author.key == held.owner => self.withdraw(key),
            (Some(held), _) if self.is_lost_write(&held) => {
                self.writes.push(stored::own_row(&held));
                self.own.insert(*key, held);
                self.plan_renewal(key);
            }
            (Some(held), offered) => self.correct(now, &held, offered.as_deref()),
            (None, Some(offered)) if self.may_renew() => self.rewrite(now, &offered),
            (None, _) => {}
        }
    }

    /// The owner deleted the agent: this host offers it no longer.
    fn withdraw(&mut self, key: &KeyHash) {
        if self.own.remove(key).is_some() {
            self.writes.push(stored::remove_own(*key));
        }
    }

    fn correct(&mut self, now: Timestamp, held: &Record, offered: Option<&Record>) {
        let last = self.corrected_at.get(&held.key());
        if last.is_some_and(|last| now.since(*last) < self.config.own_key_interval) {
            return self.report(NodeAlert::DuplicateIdentity(held.name.clone()));
        }
        self.corrected_at.retain(|_, at| now.since(*at) < self.config.own_key_interval);
        self.corrected_at.insert(held.key(), now);
        match offered {
            Some(offered) => self.rewrite(now, offered),
            // What cannot be buried lapses by itself.
            None => drop(self.bury(now, held)),
        }
    }

    /// Writes an own offer again with a new stamp and lease. A refusal leaves the held record to lapse.
    fn rewrite(&mut self, now: Timestamp, offered: &Record) {
        let draft = Draft {
            name: offered.name.clone(),
            owner: offered.owner,
            host: offered.host,
            scope: offered.scope,
            grants: offered.grants(),
            body: offered.body().to_vec(),
        };
        if self.write(now, draft).is_err() {
            // Tried again at the next chance: the clock may be set, the stamp may come due.
            self.renew_at(now + self.config.own_key_interval, offered.key());
        }
    }

    /// Renews own leases that are due.
    pub(super) fn renew(&mut self, now: Timestamp) {
        if !self.may_renew() {
            return;
        }
        while let Some(&(at, key)) = self.renewals.first().filter(|(at, _)| *at <= now) {
            self.renewals.remove(&(at, key));
            self.renewal_of.remove(&key);
            if let Some(own) = self.own.get(&key).filter(|own| !own.is_tombstone()).cloned() {
                if self.renewal_due(&own) <= now {
                    self.rewrite(now, &own);
                } else {
                    self.plan_renewal(&key);
                }
            }
        }
    }

    /// Before the first sync an own agent may have been deleted elsewhere (a restored backup): do not renew it.
    pub(super) fn may_renew(&self) -> bool {
        !self.config.expects_peers || self.is_synced()
    }

    pub(super) fn plan_renewal(&mut self, key: &KeyHash) {
        if let Some(own) = self.own.get(key).filter(|own| !own.is_tombstone()) {
            self.renew_at(self.renewal_due(own), *key);
        }
    }

    fn renew_at(&mut self, at: Timestamp, key: KeyHash) {
        if let Some(before) = self.renewal_of.insert(key, at) {
            self.renewals.remove(&(before, key));
        }
        self.renewals.insert((at, key));
    }

    /// When an own offer is to be written again: at once if it is not held, as after a clock that was ahead dropped it.
    fn renewal_due(&self, own: &Record) -> Timestamp {
        let zone = self.zones.get(&own.name.zone);
        let is_held = zone.is_some_and(|zone| zone.registry.get(&own.key()).is_some());
        if is_held { renewal_at(own) } else { Timestamp::default() }
    }

    /// Plans all renewals anew: what was put off under a wrong clock is tried again at once.
    pub(super) fn plan_renewals(&mut self) {
        self.renewals.clear();
        self.renewal_of.clear();
        for key in self.own.keys().copied().collect::<Vec<_>>() {
            self.plan_renewal(&key);
        }
    }

    /// Own records travel in batches: all that one command wrote, in messages of bounded size.
    pub(super) fn publish_own(&mut self) {
        for name in self.zone_names() {
            let Some(zone) = self.zones.get_mut(&name) else { continue };
            let unpublished = std::mem::take(&mut zone.unpublished);
            for records in batches(&unpublished) {
                let bytes = Envelope::Records(records).encode();
                self.outputs.push_back(super::Output::Publish { zone: name.clone(), bytes });
            }
        }
    }

    /// Another incarnation of this folder was ahead of it.
    pub(super) fn note_own_head(&mut self, now: Timestamp, zone: &ZoneName, head: u64) {
        let Some(own) = self.zones.get(zone) else { return };
        if head > own.seq {
            self.retire_epoch(&[(zone.clone(), head)].into(), now);
            self.report(NodeAlert::RestoredBackup);
        }
    }

    /// The offset of the local clock from the median of the bootstrap peers, if it is too large to write.
    pub(super) fn unsafe_clock_offset(&self) -> Option<i64> {
        let peers = self.config.bootstrap_peers.iter();
        let mut offsets: Vec<i64> = peers.filter_map(|peer| self.clock_offset_of(peer)).collect();
        offsets.sort_unstable();
        let median = *offsets.get(offsets.len() / 2)?;
        (median.unsigned_abs() > self.config.clock_offset_max.as_millis() as u64).then_some(median)
    }

    pub(super) fn home_zone(&self) -> ZoneName {
        self.config.zones.first().cloned().unwrap_or_else(ZoneName::root)
    }

    pub(super) fn announce(&mut self, record: &Arc<Record>, via: Via) {
        if record.kind != Kind::Agent || via == Via::Store {
            return;
        }
        let event = match record.is_tombstone() {
            true => Event::AgentRemoved { record: record.clone(), deleted: true },
            false => Event::AgentChanged { record: record.clone(), via },
        };
        self.outputs.push_back(super::Output::Event(event));
    }
}

impl Withdraw {
    fn includes(&self, name: &FullName) -> bool {
        match self {
            Withdraw::Others => true,
            Withdraw::OthersBut(kept) => !kept.iter().any(|kept| name.is_or_below(kept)),
            Withdraw::Only(gone) => gone.contains(name),
        }
    }
}

impl Draft {
    fn key(&self, node: &Node) -> KeyHash {
        self.key_in(self.scope, node)
    }

    fn key_in_other_scope(&self, node: &Node) -> KeyHash {
        let other = if self.scope == Scope::Node { Scope::Public } else { Scope::Node };
        self.key_in(other, node)
    }

    fn key_in(&self, scope: Scope, node: &Node) -> KeyHash {
        Header {
            network: String::new(),
            zone: self.name.zone.clone(),
            kind: Kind::Agent,
            name: self.name.agent.clone(),
            owner: self.owner,
            host: self.host,
            author: node.author(),
            seq: 0,
            stamp: Stamp::default(),
            generation: 0,
            expires_at: Timestamp::default(),
            scope,
            grants: Vec::new(),
        }
        .key()
    }
}

/// Whether the grants that an own record travels with do as well as those of a new draft: a host that grants itself
/// with its owner's key makes a new grant at every start.
fn is_carried_as_well(own: &Record, draft: &Draft) -> bool {
    let generation =
        draft.grants.first().and_then(|grant| Grant::read(grant).ok()).map(|grant| grant.generation);
    generation == Some(own.generation) && own.expires_at == own.stamp.wall + CARD_LIFE
}

/// Half of the lease ± 20 %, drawn from the record's hash so that it is the same after a restart.
fn renewal_at(own: &Record) -> Timestamp {
    let lease = own.expires_at.since(own.stamp.wall);
    let draw = f64::from(own.hash().0[0]) / 255.0;
    own.stamp.wall + lease.mul_f64(0.5 * (0.8 + 0.4 * draw))
}

/// Messages of own records, each within the batch size; one record of full size travels alone.
fn batches(records: &[Arc<Record>]) -> Vec<Vec<ByteBuf>> {
    let mut batches: Vec<Vec<ByteBuf>> = Vec::new();
    let mut bytes = usize::MAX;
    for record in records {
        let size = record.bytes().len() + 4;
        if bytes.saturating_add(size) > crate::proto::config::BATCH_BYTES_MAX {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(batch) = batches.last_mut() {
            batch.push(ByteBuf::from(record.bytes().to_vec()));
        }
    }
    batches
}
