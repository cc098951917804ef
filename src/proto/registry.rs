//! The registry of one zone: merge, room, expiry, fingerprint. It knows no peers.
//!
//! Invariants: of the records of one key the greatest in [`Precedence`](super::record::Precedence) is held, whatever the
//! order of arrival; a lapsed lease leaves no memory. Room is shared out by slots (protocol section 1): one record stands
//! in a slot of a shelf, and a full zone keeps those that come first in one order, `Rank`, made of content alone. What
//! would itself have to go is not merged, so every merge moves the registry up in that order, and registries that exchange
//! what they hold, in any order and however often, end with one set.

mod place;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use self::place::{End, Slot, Version};
use super::card::Scope;
use super::fingerprint::{self, Digest, Prefix, Records, Tree};
use super::grant::Grant;
use super::identity::{AgentId, PeerKey};
use super::limits::{AUTHORS_MAX, EXPIRED_KEPT, ZONE_WEIGHT_MAX};
use super::record::{
    Author, KeyHash, NoRoom, Record, RecordHash, RecordKey, RecordKind, Revocation, RevokedRecord, Shelf,
};
use super::sorted::{Place, Sorted};
use super::time::Timestamp;
use super::version::VersionVector;

/// The least and the greatest key there could be.
const KEY_MIN: KeyHash = KeyHash([0; 32]);
const KEY_MAX: KeyHash = KeyHash([0xff; 32]);

/// The least and the greatest hash.
const HASH_MIN: RecordHash = RecordHash([0; 32]);
const HASH_MAX: RecordHash = RecordHash([0xff; 32]);

/// Records of one zone.
pub struct Registry {
    records: Records,
    tree: Tree,
    vector: VersionVector,
    /// Agents' cards.
    by_agent: BTreeSet<(AgentId, KeyHash)>,
    /// Public records in the order in which a full zone keeps them: the last go.
    ranks: Sorted<Rank>,
    /// What stands in each slot.
    shelves: Sorted<Slot>,
    /// How many revocations each owner has.
    revocations: BTreeMap<PeerKey, usize>,
    /// Held records by version; two of one version prove a forked author.
    by_version: Sorted<Version>,
    /// Leases not yet ended at the last call of `expire`, and those ended but not yet dropped.
    live: Sorted<End>,
    lapsed: Sorted<End>,
    bytes: usize,
    /// Of the public records, and what they may weigh.
    weight: usize,
    weight_max: usize,
}

/// Place in the order of a full zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    slot: u16,
    /// Revocations come before others.
    is_revocation: Reverse<bool>,
    key: KeyHash,
}

/// What became of a verified record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Merge {
    /// It is held now, in place of `replaced`; `evicted` left for it.
    New {
        /// The record of the same key that lost.
        replaced: Option<Arc<Record>>,
        /// Records that have no room any more.
        evicted: Vec<(Arc<Record>, NoRoom)>,
    },
    /// A greater record of its key is held.
    Stale,
    /// The same bytes are held.
    Duplicate,
    /// There is no room for it; nothing changed.
    NoRoom(NoRoom),
}

/// What passing time did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expirations {
    /// Leases that ended: hidden from now on.
    pub hidden: Vec<Arc<Record>>,
    /// Leases that run again because the clock went back.
    pub shown: Vec<Arc<Record>>,
    /// Dropped for good.
    pub dropped: Vec<Arc<Record>>,
}

impl Default for Registry {
    fn default() -> Registry {
        Registry::new(ZONE_WEIGHT_MAX)
    }
}

impl Registry {
    /// An empty registry whose public records may weigh `weight_max`.
    pub fn new(weight_max: usize) -> Registry {
        Registry {
            records: Records::default(),
            tree: Tree::default(),
            vector: VersionVector::default(),
            by_agent: BTreeSet::new(),
            ranks: Sorted::default(),
            shelves: Sorted::default(),
            revocations: BTreeMap::new(),
            by_version: Sorted::default(),
            live: Sorted::default(),
            lapsed: Sorted::default(),
            bytes: 0,
            weight: 0,
            weight_max,
        }
    }

    /// Merges a verified record. Its version counts as seen even if the record is stale.
    pub fn merge(&mut self, record: impl Into<Arc<Record>>, now: Timestamp) -> Merge {
        self.merge_shared(record.into(), now)
    }

    fn merge_shared(&mut self, record: Arc<Record>, now: Timestamp) -> Merge {
        if self.knows_author(&record.author()) {
            self.vector.observe(record.author(), record.seq);
        }
        // A lapsed lease leaves no memory: what has ended does not keep a lesser record out.
        let held = self.get(&record.key()).filter(|held| !held.is_expired(now)).cloned();
        if let Some(held) = &held {
            // Asked before the order: equal bytes are no stale record, and nobody is to blame for either.
            if held.hash() == record.hash() {
                return Merge::Duplicate;
            }
            if held.precedence() > record.precedence() {
                self.forget_author_without_records(&record.author());
                return Merge::Stale;
            }
        }
        if let Some(reason) = self.room_for(&record, now) {
            self.forget_author_without_records(&record.author());
            return Merge::NoRoom(reason);
        }
        // Out before in: the same key must never be counted twice, not even within a call.
        let replaced = self.remove(&record.key());
        let mut evicted = Vec::new();
        if let Some(other) = self.other_in_slot(&record).map(|other| other.key()) {
            evicted.extend(self.remove(&other).map(|gone| (gone, NoRoom::SlotTaken)));
        }
        self.insert(record);
        evicted.extend(self.shrink().into_iter().map(|gone| (gone, NoRoom::ZoneFull)));
        for gone in replaced.iter().chain(evicted.iter().map(|(gone, _)| gone)) {
            self.forget_author_without_records(&gone.author());
        }
        Merge::New { replaced, evicted }
    }

    /// Takes back a merge of which nobody was told: `before` stands under the key again, or nothing does.
    pub(super) fn take_back(&mut self, key: &KeyHash, before: Option<Arc<Record>>) -> Option<Arc<Record>> {
        let taken = self.remove(key);
        if let Some(before) = before {
            self.insert(before);
        }
        taken
    }

    /// Hides leases that ended by `now`, shows those that run again, drops what ended 5 minutes before.
    pub fn expire(&mut self, now: Timestamp) -> Expirations {
        let mut expirations = Expirations::default();
        while let Some(ended) = self.live.first().filter(|first| first.is_expired(now)).cloned() {
            self.live.remove(&ended);
            self.lapsed.insert(ended.clone());
            expirations.hidden.push(ended);
        }
        // The clock went back: hidden leases run again rather than being lost to a wrong clock.
        while let Some(shown) = self.lapsed.last().filter(|last| !last.is_expired(now)).cloned() {
            self.lapsed.remove(&shown);
            self.live.insert(shown.clone());
            expirations.shown.push(shown);
        }
        let is_over = |first: &&Arc<Record>| first.expires_at + EXPIRED_KEPT <= now;
        while let Some(key) = self.lapsed.first().filter(is_over).map(|first| first.key()) {
            expirations.dropped.extend(self.remove(&key));
        }
        for gone in &expirations.dropped {
            self.forget_author_without_records(&gone.author());
        }
        expirations
    }

    /// When `expire` has work again.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        let ends = self.live.first().map(|first| first.expires_at);
        let drops = self.lapsed.first().map(|first| first.expires_at + EXPIRED_KEPT);
        ends.into_iter().chain(drops).min()
    }

    /// The held record of a key, expired or not.
    pub fn get(&self, key: &KeyHash) -> Option<&Arc<Record>> {
        self.records.get(*key)
    }

    /// Live cards of an agent that its owner did not take back, one a host.
    pub fn replicas(&self, agent: &AgentId, now: Timestamp) -> impl Iterator<Item = &Arc<Record>> {
        let keys = self.by_agent.range((*agent, KEY_MIN)..=(*agent, KEY_MAX));
        let cards = keys.filter_map(|(_, key)| self.get(key));
        cards.filter(move |card| !card.is_expired(now) && !self.is_revoked(card, now))
    }

    /// Whether the owner took it back from its host: it is held on, with its slot and its weight, and shown to nobody.
    pub fn is_revoked(&self, record: &Record, now: Timestamp) -> bool {
        if !self.revocations.contains_key(&record.owner) || record.host == record.owner {
            return false;
        }
        let name = &record.name;
        let stands = |revocation: Revocation| {
            let key = RecordKey {
                zone: &name.zone,
                kind: &RecordKind::Revocation,
                name: &revocation.name(&name.zone, record.owner),
                owner: record.owner,
                host: record.owner,
                scope: Scope::Public,
            };
            let held = self.get(&key.hash()).filter(|held| !held.is_tombstone() && !held.is_expired(now));
            held.is_some_and(|held| held.generation >= record.generation)
        };
        let exactly = RevokedRecord { kind: record.kind.clone(), name: name.agent.clone() };
        let by_host = |host| stands(Revocation { host, record: None });
        stands(Revocation { host: record.host, record: Some(exactly) })
            || by_host(record.host)
            || passed_on_by(record).into_iter().any(by_host)
    }

    /// What a revocation names and is held here, revoked or not.
    pub fn named_by(&self, revocation: &Record) -> Vec<Arc<Record>> {
        let Some(Revocation { host, record }) = revocation.revocation() else { return Vec::new() };
        let owner = revocation.owner;
        if let Some(RevokedRecord { kind, name }) = record {
            let zone = &revocation.name.zone;
            let key = RecordKey { zone, kind: &kind, name: &name, owner, host, scope: Scope::Public }.hash();
            return self.get(&key).cloned().into_iter().collect();
        }
        let first = Shelf { owner, host: PeerKey([0; 32]), revocations: false };
        let records = self.shelves.range(Slot(first, 0)..).take_while(|record| record.shelf().owner == owner);
        records
            .filter(|record| record.host == host || passed_on_by(record).contains(&host))
            .cloned()
            .collect()
    }

    /// What stands in a slot.
    pub fn in_slot(&self, shelf: Shelf, slot: u16) -> Option<&Arc<Record>> {
        self.shelves.get(Slot(shelf, slot))
    }

    /// What stands on a shelf, by slot.
    pub fn on_shelf(&self, shelf: Shelf) -> impl Iterator<Item = &Arc<Record>> {
        self.shelves.range(Slot(shelf, 0)..=Slot(shelf, u16::MAX))
    }

    /// All held records, by key.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.records.iter()
    }

    /// Records of one leaf or more that a fingerprint at `as_of` covers, by key, those after `after` only.
    pub fn covered(
        &self,
        prefix: Prefix,
        as_of: Timestamp,
        after: Option<KeyHash>,
    ) -> impl Iterator<Item = &Arc<Record>> {
        self.below(prefix, after).filter(move |record| fingerprint::covers(record, as_of))
    }

    /// All records of one leaf or more, by key, those after `after` only.
    pub fn below(&self, prefix: Prefix, after: Option<KeyHash>) -> impl Iterator<Item = &Arc<Record>> {
        let (start, end) = prefix.keys();
        let start = match (start, after) {
            (Bound::Included(first), Some(after)) if after >= first => Bound::Excluded(after),
            (start, _) => start,
        };
        let records = self.records.range((start, Bound::Unbounded));
        records.take_while(move |record| (Bound::Unbounded, end).contains(&record.key()))
    }

    /// Fingerprint of a part of the registry.
    pub fn digest(&mut self, prefix: Prefix, as_of: Timestamp) -> Digest {
        self.tree.digest(prefix, as_of, &self.records)
    }

    /// As [`Registry::digest`], if that takes no more than to hash about `work` records; what was hashed is kept.
    pub fn digest_within(&mut self, prefix: Prefix, as_of: Timestamp, work: &mut usize) -> Option<Digest> {
        self.tree.digest_within(prefix, as_of, &self.records, work)
    }

    /// What was seen of each author.
    pub fn vector(&self) -> &VersionVector {
        &self.vector
    }

    /// The version of an author up to which it can be said that nothing is missing. Of authors beyond the vector's table that
    /// is the highest held: its gaps are not known, and what a sync finds does not need them.
    pub fn seen_up_to(&self, author: &Author) -> u64 {
        if self.vector.signed_max(author) > 0 {
            return self.vector.prefix(author);
        }
        self.versions_of(author).next_back().map_or(0, |last| last.seq)
    }

    /// The highest version that was verified of an author, as far as that is known.
    pub fn head(&self, author: &Author) -> u64 {
        let held = self.versions_of(author).next_back().map_or(0, |last| last.seq);
        held.max(self.vector.signed_max(author))
    }

    /// What a host wrote, in whatever epoch, without its delegations.
    pub fn of_host(&self, host: &PeerKey) -> impl Iterator<Item = &Arc<Record>> {
        let author = |epoch| Author { key: *host, epoch };
        let all = Version(author(0), 0, HASH_MIN)..=Version(author(u64::MAX), u64::MAX, HASH_MAX);
        self.by_version.range(all)
    }

    fn versions_of(&self, author: &Author) -> impl DoubleEndedIterator<Item = &Arc<Record>> {
        self.by_version.range(Version(*author, 0, HASH_MIN)..=Version(*author, u64::MAX, HASH_MAX))
    }

    /// A peer whose registry equals this one covers `author` up to `prefix`.
    pub fn adopt(&mut self, author: Author, prefix: u64) {
        self.vector.adopt(author, prefix);
    }

    /// Whether another record of this author and version is held: proof of a forked author.
    pub fn is_fork(&self, record: &Record) -> bool {
        // Delegations take no version.
        if record.seq == 0 {
            return false;
        }
        let version = |hash| Version(record.author(), record.seq, hash);
        let mut held = self.by_version.range(version(HASH_MIN)..=version(HASH_MAX));
        held.any(|held| held.hash() != record.hash())
    }

    /// Number of records, tombstones included.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of all records.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the public records weigh; never more than the zone has room for.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Whether a sixteenth of the room is free: what had none may be tried again, and nobody need be warned.
    pub fn has_ample_room(&self) -> bool {
        self.weight <= self.weight_max - self.weight_max / 16
    }

    fn knows_author(&self, author: &Author) -> bool {
        // Beyond the limit new authors are held and not counted: convergence does not depend on the vector.
        self.vector.len() < AUTHORS_MAX || self.vector.signed_max(author) > 0
    }

    /// Why there is no room for a record, judged as if the one that it replaces were gone already.
    fn room_for(&self, record: &Record, now: Timestamp) -> Option<NoRoom> {
        if !record.is_public() {
            return None;
        }
        let other = self.other_in_slot(record);
        // One that has ended stands in nobody's way, though it is kept for some minutes.
        if other.is_some_and(|other| !other.is_expired(now) && other.key() < record.key()) {
            return Some(NoRoom::SlotTaken);
        }
        let gone: Vec<KeyHash> = other.map(|other| other.key()).into_iter().chain([record.key()]).collect();
        let freed: usize = gone.iter().filter_map(|key| self.get(key)).map(|gone| gone.weight()).sum();
        let excess = (self.weight - freed + record.weight()).saturating_sub(self.weight_max);
        if self.can_free(excess, &Rank::of(record), &gone) { None } else { Some(NoRoom::ZoneFull) }
    }

    /// Whether what comes after `rank`, without those that are gone anyway, weighs at least `excess`.
    fn can_free(&self, excess: usize, rank: &Rank, gone: &[KeyHash]) -> bool {
        let after = self.ranks.iter().rev().take_while(|other| Rank::of(other) > *rank);
        let mut weights = after.filter(|other| !gone.contains(&other.key())).map(|other| other.weight());
        let mut freed = 0;
        while freed < excess {
            let Some(weight) = weights.next() else { return false };
            freed += weight;
        }
        true
    }

    /// What stands in the slot of a public record, if it has another key.
    fn other_in_slot(&self, record: &Record) -> Option<&Arc<Record>> {
        let held = self.in_slot(record.shelf(), record.slot).filter(|_| record.is_public());
        held.filter(|held| held.key() != record.key())
    }

    /// The last go until the rest has room.
    fn shrink(&mut self) -> Vec<Arc<Record>> {
        let mut gone = Vec::new();
        while self.weight > self.weight_max {
            let Some(last) = self.ranks.last().map(|last| last.key()) else { break };
            gone.extend(self.remove(&last));
        }
        gone
    }

    fn insert(&mut self, record: Arc<Record>) {
        let (key, leaf) = (record.key(), fingerprint::leaf_of(record.key()));
        self.bytes += record.bytes().len();
        self.live.insert(record.clone());
        if is_card(&record) {
            self.by_agent.insert((record.agent_id(), key));
        }
        if record.is_public() {
            self.weight += record.weight();
            self.ranks.insert(record.clone());
            self.shelves.insert(record.clone());
        }
        if record.kind == RecordKind::Revocation {
            *self.revocations.entry(record.owner).or_default() += 1;
        }
        if record.seq > 0 {
            self.by_version.insert(record.clone());
        }
        self.records.insert(record);
        self.tree.invalidate(leaf);
    }

    fn remove(&mut self, key: &KeyHash) -> Option<Arc<Record>> {
        let leaf = fingerprint::leaf_of(*key);
        let record = self.records.get(*key)?.clone();
        self.records.remove(&record);
        self.tree.invalidate(leaf);
        self.bytes -= record.bytes().len();
        self.live.remove(&record);
        self.lapsed.remove(&record);
        if is_card(&record) {
            self.by_agent.remove(&(record.agent_id(), *key));
        }
        if record.is_public() {
            self.weight -= record.weight();
            self.ranks.remove(&record);
            self.shelves.remove(&record);
        }
        if record.kind == RecordKind::Revocation {
            match self.revocations.get(&record.owner) {
                Some(more @ 2..) => drop(self.revocations.insert(record.owner, more - 1)),
                Some(_) | None => drop(self.revocations.remove(&record.owner)),
            }
        }
        self.by_version.remove(&record);
        Some(record)
    }

    /// An entry of the vector goes with its author's last record.
    fn forget_author_without_records(&mut self, author: &Author) {
        // A vector without an end would grow with every epoch that ever wrote.
        if self.versions_of(author).next().is_none() {
            self.vector.remove(author);
        }
    }
}

impl Place for Rank {
    fn of(record: &Record) -> Rank {
        Rank {
            slot: record.slot,
            is_revocation: Reverse(record.kind == RecordKind::Revocation),
            key: record.key(),
        }
    }
}

fn is_card(record: &Record) -> bool {
    record.is_agent() && !record.is_tombstone()
}

/// The hosts between owner and author that passed the right to write it on.
fn passed_on_by(record: &Record) -> BTreeSet<PeerKey> {
    let grants = record.grants();
    grants.iter().skip(1).filter_map(|grant| Grant::read(grant).ok()).map(|grant| grant.issuer).collect()
}
