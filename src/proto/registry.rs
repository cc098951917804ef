//! The registry of one zone: merge, expiry, fingerprint. It knows no peers.
//!
//! Invariants: of the records of one key the greatest in [`Order`](super::record::Order) is held, whatever the order of
//! arrival; a lapsed lease leaves no memory; what a count or size quota keeps follows from content alone. A full quota
//! lets a record in only if those of greater key hash can make room for it, so a merge never loses anything at or below
//! its own key: two registries that exchange what differs become equal, full or not.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use super::config::Quota;
use super::fingerprint::{self, Digest, Prefix, Records, Tree};
use super::identity::{AgentId, PeerKey};
use super::limits::{AUTHORS_MAX, EXPIRED_KEPT};
use super::record::{Author, KeyHash, Record, RecordKind};
use super::time::Timestamp;
use super::version::VersionVector;

/// Half of a record's hash: enough to tell records of one version apart.
type Mark = [u8; 16];

/// The least and the greatest key there could be.
const KEY_MIN: KeyHash = KeyHash([0; 32]);
const KEY_MAX: KeyHash = KeyHash([0xff; 32]);

/// Records of one zone.
pub struct Registry {
    records: Records,
    tree: Tree,
    vector: VersionVector,
    by_agent: BTreeSet<(AgentId, KeyHash)>,
    by_author: BTreeSet<(PeerKey, KeyHash)>,
    /// How many records each author key has.
    counts: BTreeMap<PeerKey, usize>,
    /// Held records by version; two of one version prove a forked author.
    by_version: BTreeSet<(Author, u64, Mark)>,
    /// Leases not yet ended at the last call of `expire`, and those ended but not yet dropped.
    live: BTreeSet<(Timestamp, KeyHash)>,
    lapsed: BTreeSet<(Timestamp, KeyHash)>,
    bytes: usize,
    quota: Quota,
}

/// What became of a verified record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Merge {
    /// It is held now, in place of `replaced`; `evicted` left because of a quota.
    New {
        /// The record of the same key that lost.
        replaced: Option<Arc<Record>>,
        /// Records that a quota no longer keeps.
        evicted: Vec<Arc<Record>>,
    },
    /// A greater record of its key is held.
    Stale,
    /// The same bytes are held.
    Duplicate,
    /// A quota keeps it out; nothing changed.
    OverQuota,
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
        Registry::new(Quota::default())
    }
}

impl Registry {
    /// An empty registry.
    pub fn new(quota: Quota) -> Registry {
        Registry {
            records: Records::new(),
            tree: Tree::default(),
            vector: VersionVector::default(),
            by_agent: BTreeSet::new(),
            by_author: BTreeSet::new(),
            counts: BTreeMap::new(),
            by_version: BTreeSet::new(),
            live: BTreeSet::new(),
            lapsed: BTreeSet::new(),
            bytes: 0,
            quota,
        }
    }

    /// Merges a verified record. Its version counts as seen even if the record is stale.
    pub fn merge(&mut self, record: impl Into<Arc<Record>>, now: Timestamp) -> Merge {
        self.merge_shared(record.into(), now)
    }

    fn merge_shared(&mut self, record: Arc<Record>, now: Timestamp) -> Merge {
        if self.knows_author(&record.author) {
            self.vector.observe(record.author, record.seq);
        }
        // A lapsed lease leaves no memory: what has ended does not keep a lesser record out.
        let held = self.get(&record.key()).filter(|held| !held.is_expired(now)).cloned();
        if let Some(held) = &held {
            // Asked before the order: equal bytes are no stale record, and nobody is to blame for either.
            if held.hash() == record.hash() {
                return Merge::Duplicate;
            }
            if held.order() > record.order() {
                self.forget_author_without_records(&record.author);
                return Merge::Stale;
            }
        }
        if self.is_over_quota(&record) {
            self.forget_author_without_records(&record.author);
            return Merge::OverQuota;
        }
        // Out before in: the same key must never be counted twice, not even within a call.
        let replaced = self.remove(&record.key());
        let author = record.author.key;
        self.insert(record);
        // After it is in, for its own weight counts; what goes follows from content alone, and may be the record itself.
        let evicted = self.evict(author);
        for gone in replaced.iter().chain(&evicted) {
            self.forget_author_without_records(&gone.author);
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
        while let Some(&(ends, key)) = self.live.first().filter(|(ends, _)| *ends <= now) {
            self.live.remove(&(ends, key));
            self.lapsed.insert((ends, key));
            expirations.hidden.extend(self.get(&key).cloned());
        }
        // The clock went back: hidden leases run again rather than being lost to a wrong clock.
        while let Some(&(ends, key)) = self.lapsed.last().filter(|(ends, _)| *ends > now) {
            self.lapsed.remove(&(ends, key));
            self.live.insert((ends, key));
            expirations.shown.extend(self.get(&key).cloned());
        }
        while let Some(&(_, key)) = self.lapsed.first().filter(|(ends, _)| *ends + EXPIRED_KEPT <= now) {
            expirations.dropped.extend(self.remove(&key));
        }
        for gone in &expirations.dropped {
            self.forget_author_without_records(&gone.author);
        }
        expirations
    }

    /// When `expire` has work again.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        let ends = self.live.first().map(|(ends, _)| *ends);
        let drops = self.lapsed.first().map(|(ends, _)| *ends + EXPIRED_KEPT);
        ends.into_iter().chain(drops).min()
    }

    /// The held record of a key, expired or not.
    pub fn get(&self, key: &KeyHash) -> Option<&Arc<Record>> {
        self.records.get(key)
    }

    /// Live cards of an agent, one a host.
    pub fn replicas(&self, agent: &AgentId, now: Timestamp) -> impl Iterator<Item = &Arc<Record>> {
        let keys = self.by_agent.range((*agent, KEY_MIN)..=(*agent, KEY_MAX));
        keys.filter_map(|(_, key)| self.get(key)).filter(move |record| {
            record.kind == RecordKind::Agent && !record.is_tombstone() && !record.is_expired(now)
        })
    }

    /// All held records, by key.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.records.values()
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
        let records = records.take_while(move |(key, _)| (Bound::Unbounded, end).contains(*key));
        records.map(|(_, record)| record)
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
        self.versions_of(author).next_back().map_or(0, |(_, seq, _)| *seq)
    }

    /// The highest version that was verified of an author, as far as that is known.
    pub fn head(&self, author: &Author) -> u64 {
        let held = self.versions_of(author).next_back().map_or(0, |(_, seq, _)| *seq);
        held.max(self.vector.signed_max(author))
    }

    fn versions_of(&self, author: &Author) -> impl DoubleEndedIterator<Item = &(Author, u64, Mark)> {
        self.by_version.range((*author, 0, [0; 16])..=(*author, u64::MAX, [0xff; 16]))
    }

    /// A peer whose registry equals this one covers `author` up to `prefix`.
    pub fn adopt(&mut self, author: Author, prefix: u64) {
        self.vector.adopt(author, prefix);
    }

    /// Whether another record of this author and version is held: proof of a forked author.
    pub fn is_fork(&self, record: &Record) -> bool {
        let version = |mark| (record.author, record.seq, mark);
        let mut held = self.by_version.range(version([0; 16])..=version([0xff; 16]));
        held.any(|(_, _, mark)| *mark != mark_of(record))
    }

    /// Number of records, tombstones included.
    pub fn len(&self) -> usize {
        self.live.len() + self.lapsed.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all records.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn knows_author(&self, author: &Author) -> bool {
        // Beyond the limit new authors are held and not counted: convergence does not depend on the vector.
        self.vector.len() < AUTHORS_MAX || self.vector.signed_max(author) > 0
    }

    /// Whether a quota has no room for a record below what it may evict: keys of greater hash.
    fn is_over_quota(&self, record: &Record) -> bool {
        let held = self.get(&record.key());
        let counted = held.is_some_and(|held| held.author.key == record.author.key);
        let author = record.author.key;
        let count_full = !counted
            && self.count(&author) >= self.quota.records_per_author
            && self.last_of(&author).is_some_and(|last| last < record.key());
        let bytes = self.bytes - held.map_or(0, |held| held.bytes().len()) + record.bytes().len();
        count_full || !self.can_free(bytes.saturating_sub(self.quota.bytes), &record.key())
    }

    /// Whether the records of keys beyond `key` have at least `bytes`.
    fn can_free(&self, bytes: usize, key: &KeyHash) -> bool {
        let mut sizes = self.descending().take_while(|held| held.key() > *key).map(|held| held.bytes().len());
        let mut freed = 0;
        while freed < bytes {
            let Some(size) = sizes.next() else { return false };
            freed += size;
        }
        true
    }

    fn evict(&mut self, author: PeerKey) -> Vec<Arc<Record>> {
        let mut evicted = Vec::new();
        while self.count(&author) > self.quota.records_per_author {
            let Some(key) = self.last_of(&author) else { break };
            evicted.extend(self.remove(&key));
        }
        while self.bytes > self.quota.bytes {
            let Some(key) = self.descending().next().map(|last| last.key()) else { break };
            evicted.extend(self.remove(&key));
        }
        evicted
    }

    fn descending(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.records.values().rev()
    }

    fn count(&self, author: &PeerKey) -> usize {
        self.counts.get(author).copied().unwrap_or(0)
    }

    /// The greatest key of an author.
    fn last_of(&self, author: &PeerKey) -> Option<KeyHash> {
        let keys = self.by_author.range((*author, KEY_MIN)..=(*author, KEY_MAX));
        keys.last().map(|(_, key)| *key)
    }

    fn insert(&mut self, record: Arc<Record>) {
        let (key, leaf) = (record.key(), fingerprint::leaf_of(record.key()));
        self.bytes += record.bytes().len();
        self.live.insert((record.expires_at, key));
        self.by_agent.insert((record.agent_id(), key));
        self.by_author.insert((record.author.key, key));
        *self.counts.entry(record.author.key).or_default() += 1;
        if record.seq > 0 {
            self.by_version.insert((record.author, record.seq, mark_of(&record)));
        }
        self.records.insert(key, record);
        self.tree.invalidate(leaf);
    }

    fn remove(&mut self, key: &KeyHash) -> Option<Arc<Record>> {
        let leaf = fingerprint::leaf_of(*key);
        let record = self.records.remove(key)?;
        self.tree.invalidate(leaf);
        self.bytes -= record.bytes().len();
        self.live.remove(&(record.expires_at, *key));
        self.lapsed.remove(&(record.expires_at, *key));
        self.by_agent.remove(&(record.agent_id(), *key));
        self.by_author.remove(&(record.author.key, *key));
        match self.count(&record.author.key) {
            0 | 1 => drop(self.counts.remove(&record.author.key)),
            more => drop(self.counts.insert(record.author.key, more - 1)),
        }
        self.by_version.remove(&(record.author, record.seq, mark_of(&record)));
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

fn mark_of(record: &Record) -> Mark {
    std::array::from_fn(|at| record.hash().0[at])
}
