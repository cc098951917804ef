//! The registry of one zone: merge, expiry, fingerprint. It knows no peers.
//!
//! Invariants: of the records of one key the greatest in [`Order`](super::record::Order) is held, whatever the order of
//! arrival; a lapsed lease leaves no memory; what a count or size quota keeps follows from content alone. A full quota
//! lets a record in only if those of greater key hash can make room for it, so a merge never loses anything at or below
//! its own key: two registries that exchange what differs become equal, full or not.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::config::{AUTHORS_MAX, EXPIRED_KEPT, RECORDS_PER_AUTHOR_MAX, ZONE_BYTES_MAX};
use super::fingerprint::{self, Digest, LEAVES, Leaf, Prefix, Tree};
use super::identity::{AgentId, PeerKey};
use super::record::{Author, KeyHash, Kind, Record, RecordHash};
use super::time::Timestamp;
use super::version::VersionVector;

/// Records of one zone.
pub struct Registry {
    leaves: Vec<Leaf>,
    tree: Tree,
    vector: VersionVector,
    by_agent: BTreeMap<AgentId, BTreeSet<KeyHash>>,
    by_author: BTreeMap<PeerKey, BTreeSet<KeyHash>>,
    /// Held records by version; two of one version prove a forked author.
    by_version: BTreeSet<(Author, u64, RecordHash)>,
    /// Leases not yet ended at the last call of `expire`, and those ended but not yet dropped.
    live: BTreeSet<(Timestamp, KeyHash)>,
    lapsed: BTreeSet<(Timestamp, KeyHash)>,
    bytes: usize,
    quota: Quota,
}

/// How much a zone may hold. Part of the protocol; smaller in tests only.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    /// Records of one author key.
    pub records_per_author: usize,
    /// Bytes of all records.
    pub bytes: usize,
}

impl Default for Quota {
    fn default() -> Quota {
        Quota { records_per_author: RECORDS_PER_AUTHOR_MAX, bytes: ZONE_BYTES_MAX }
    }
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
pub struct Lapses {
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
            leaves: vec![Leaf::new(); LEAVES],
            tree: Tree::default(),
            vector: VersionVector::default(),
            by_agent: BTreeMap::new(),
            by_author: BTreeMap::new(),
            by_version: BTreeSet::new(),
            live: BTreeSet::new(),
            lapsed: BTreeSet::new(),
            bytes: 0,
            quota,
        }
    }

    /// Merges a verified record. Its version counts as seen even if the record is stale.
    pub fn merge(&mut self, record: Record, now: Timestamp) -> Merge {
        if self.knows_author(&record.author) {
            self.vector.observe(record.author, record.seq);
        }
        let held = self.get(&record.key()).filter(|held| !held.is_expired(now)).cloned();
        if let Some(held) = &held {
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
        let replaced = self.remove(&record.key());
        let author = record.author.key;
        self.insert(Arc::new(record));
        let evicted = self.evict(author);
        for gone in replaced.iter().chain(&evicted) {
            self.forget_author_without_records(&gone.author);
        }
        Merge::New { replaced, evicted }
    }

    /// Hides leases that ended by `now`, shows those that run again, drops what ended 5 minutes before.
    pub fn expire(&mut self, now: Timestamp) -> Lapses {
        let mut lapses = Lapses::default();
        while let Some(&(ends, key)) = self.live.first().filter(|(ends, _)| *ends <= now) {
            self.live.remove(&(ends, key));
            self.lapsed.insert((ends, key));
            lapses.hidden.extend(self.get(&key).cloned());
        }
        while let Some(&(ends, key)) = self.lapsed.last().filter(|(ends, _)| *ends > now) {
            self.lapsed.remove(&(ends, key));
            self.live.insert((ends, key));
            lapses.shown.extend(self.get(&key).cloned());
        }
        while let Some(&(_, key)) = self.lapsed.first().filter(|(ends, _)| *ends + EXPIRED_KEPT <= now) {
            lapses.dropped.extend(self.remove(&key));
        }
        for gone in &lapses.dropped {
            self.forget_author_without_records(&gone.author);
        }
        lapses
    }

    /// When `expire` has work again.
    pub fn next_lapse(&self) -> Option<Timestamp> {
        let ends = self.live.first().map(|(ends, _)| *ends);
        let drops = self.lapsed.first().map(|(ends, _)| *ends + EXPIRED_KEPT);
        ends.into_iter().chain(drops).min()
    }

    /// The held record of a key, expired or not.
    pub fn get(&self, key: &KeyHash) -> Option<&Arc<Record>> {
        self.leaves[fingerprint::leaf_of(*key)].get(key)
    }

    /// Live cards of an agent, one a host.
    pub fn replicas(&self, agent: &AgentId, now: Timestamp) -> impl Iterator<Item = &Arc<Record>> {
        let keys = self.by_agent.get(agent).into_iter().flatten();
        keys.filter_map(|key| self.get(key)).filter(move |record| {
            record.kind == Kind::Agent && !record.is_tombstone() && !record.is_expired(now)
        })
    }

    /// All held records, by key.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.leaves.iter().flat_map(|leaf| leaf.values())
    }

    /// Records of one leaf or more that a fingerprint at `as_of` covers, by key, those after `after` only.
    pub fn covered(
        &self,
        prefix: Prefix,
        as_of: Timestamp,
        after: Option<KeyHash>,
    ) -> impl Iterator<Item = &Arc<Record>> {
        let from = after.map_or(0, fingerprint::leaf_of);
        let span = prefix.leaves();
        let beyond = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        self.leaves[span.start.max(from).min(span.end)..span.end]
            .iter()
            .flat_map(move |leaf| leaf.range::<KeyHash, _>(beyond))
            .map(|(_, record)| record)
            .filter(move |record| fingerprint::covers(record, as_of))
    }

    /// Fingerprint of a part of the registry.
    pub fn digest(&mut self, prefix: Prefix, as_of: Timestamp) -> Digest {
        self.tree.digest(prefix, as_of, &self.leaves)
    }

    /// What was seen of each author.
    pub fn vector(&self) -> &VersionVector {
        &self.vector
    }

    /// A peer whose registry equals this one covers `author` up to `prefix`.
    pub fn adopt(&mut self, author: Author, prefix: u64) {
        self.vector.adopt(author, prefix);
    }

    /// Whether another record of this author and version is held: proof of a forked author.
    pub fn is_fork(&self, record: &Record) -> bool {
        let version = |hash| (record.author, record.seq, RecordHash(hash));
        let mut held = self.by_version.range(version([0; 32])..=version([0xff; 32]));
        held.any(|(_, _, hash)| *hash != record.hash())
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
        self.vector.len() < AUTHORS_MAX || self.vector.signed_max(author) > 0
    }

    /// Whether a quota has no room for a record below what it may evict: keys of greater hash.
    fn is_over_quota(&self, record: &Record) -> bool {
        let held = self.get(&record.key());
        let counted = held.is_some_and(|held| held.author.key == record.author.key);
        let of_author = self.by_author.get(&record.author.key).filter(|_| !counted);
        let count_full = of_author.is_some_and(|keys| {
            keys.len() >= self.quota.records_per_author
                && keys.last().is_some_and(|last| *last < record.key())
        });
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
        while let Some(key) = self
            .by_author
            .get(&author)
            .filter(|keys| keys.len() > self.quota.records_per_author)
            .and_then(|keys| keys.last().copied())
        {
            evicted.extend(self.remove(&key));
        }
        while self.bytes > self.quota.bytes {
            let Some(key) = self.descending().next().map(|last| last.key()) else { break };
            evicted.extend(self.remove(&key));
        }
        evicted
    }

    fn descending(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.leaves.iter().rev().flat_map(|leaf| leaf.values().rev())
    }

    fn insert(&mut self, record: Arc<Record>) {
        let (key, leaf) = (record.key(), fingerprint::leaf_of(record.key()));
        self.bytes += record.bytes().len();
        self.live.insert((record.expires_at, key));
        self.by_agent.entry(record.agent_id()).or_default().insert(key);
        self.by_author.entry(record.author.key).or_default().insert(key);
        if record.seq > 0 {
            self.by_version.insert((record.author, record.seq, record.hash()));
        }
        self.leaves[leaf].insert(key, record);
        self.tree.invalidate(leaf);
    }

    fn remove(&mut self, key: &KeyHash) -> Option<Arc<Record>> {
        let leaf = fingerprint::leaf_of(*key);
        let record = self.leaves[leaf].remove(key)?;
        self.tree.invalidate(leaf);
        self.bytes -= record.bytes().len();
        self.live.remove(&(record.expires_at, *key));
        self.lapsed.remove(&(record.expires_at, *key));
        remove_from(&mut self.by_agent, &record.agent_id(), key);
        remove_from(&mut self.by_author, &record.author.key, key);
        self.by_version.remove(&(record.author, record.seq, record.hash()));
        Some(record)
    }

    /// An entry of the vector goes with its author's last record.
    fn forget_author_without_records(&mut self, author: &Author) {
        let version = |seq, hash| (*author, seq, RecordHash(hash));
        let mut held = self.by_version.range(version(0, [0; 32])..=version(u64::MAX, [0xff; 32]));
        if held.next().is_none() {
            self.vector.remove(author);
        }
    }
}

fn remove_from<K: Ord>(map: &mut BTreeMap<K, BTreeSet<KeyHash>>, at: &K, key: &KeyHash) {
    if let Some(keys) = map.get_mut(at) {
        keys.remove(key);
        if keys.is_empty() {
            map.remove(at);
        }
    }
}
