//! The fingerprint of a registry: a 16-ary hash tree with 4,096 leaves over the hashes of its records.
//!
//! It covers every held public record, tombstones included, that expires after `as_of`, a time a little ahead that both
//! sides of a comparison use, so that clocks near an expiry do not matter. A node of the tree is the hash of its
//! children and never their sum: 257 chosen records would collide under XOR (protocol section 3). A record's place
//! follows from its key, so records that compete share a leaf.

use std::fmt;
use std::ops::Bound;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::record::{KeyHash, Record};
use super::sorted::Sorted;
use super::time::Timestamp;

/// Children of a node.
pub const FANOUT: usize = 16;
/// Levels below the root; the last are the leaves.
pub const DEPTH: u8 = 3;
/// Records of a registry whose lower levels are not cached: a part of one sixteenth is then hashed anew in about 10 µs.
const SMALL: usize = 256;
/// Levels that are cached always, from the root: every comparison starts there.
const CACHED_DEPTH: u8 = 1;
const MINUTE_MS: u64 = 60_000;
/// How far a peer's clock may be from ours for its `as_of` to be answered: twice what a stamp may be ahead, and so few whole
/// minutes that what is hashed for each is bounded.
const SKEW_MAX: Duration = Duration::from_secs(120);

/// Records of a registry, by key: those of one leaf lie side by side.
pub type Records = Sorted<KeyHash>;

/// Hash of a part of a registry; all zero for an empty part.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(#[serde(with = "serde_bytes")] pub [u8; 32]);

/// A node of the tree: its depth and, as a number, the path from the root to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "(u8, u16)", into = "(u8, u16)")]
pub struct Prefix {
    depth: u8,
    path: u16,
}

/// Cached hashes of a registry's tree, by depth and path. A level is empty until something of it is cached, so a small
/// registry has a small tree.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    levels: [Vec<Option<Cached>>; DEPTH as usize + 1],
    /// A leaf that takes more than one call to hash. It is finished before another is begun, or two who ask for two of them by
    /// turns would never have an answer.
    unfinished: Option<Box<UnfinishedLeaf>>,
}

/// A leaf whose records up to a key are hashed.
#[derive(Clone, Debug)]
struct UnfinishedLeaf {
    prefix: Prefix,
    as_of: Timestamp,
    hash: Sha256,
    count: usize,
    from: Timestamp,
    until: Timestamp,
    last: Option<KeyHash>,
}

/// A hash and the span of `as_of` for which it holds: from the end of the last record that is not covered until the next
/// covered one ends.
#[derive(Clone, Copy, Debug)]
struct Cached {
    digest: Digest,
    from: Timestamp,
    until: Timestamp,
}

/// The `as_of` a node uses at `now`: a whole minute, 60 to 120 seconds ahead.
pub fn as_of(now: Timestamp) -> Timestamp {
    // A whole minute, so that many comparisons use one value and cached digests stay valid; at least one minute ahead, so that
    // nothing that is compared ends while it is on its way.
    Timestamp((now.0 / MINUTE_MS).saturating_add(2).saturating_mul(MINUTE_MS))
}

/// Whether a peer's `as_of` is one that its clock, at most `SKEW_MAX` from ours, could have chosen.
pub fn is_plausible(as_of: Timestamp, now: Timestamp) -> bool {
    as_of.0.is_multiple_of(MINUTE_MS)
        && as_of + SKEW_MAX >= now
        && as_of <= now + SKEW_MAX + Duration::from_millis(2 * MINUTE_MS)
}

/// The leaf of a key.
pub fn leaf_of(key: KeyHash) -> usize {
    usize::from(u16::from_be_bytes([key.0[0], key.0[1]]) >> 4)
}

impl Digest {
    /// Whether nothing is covered.
    pub fn is_empty(&self) -> bool {
        *self == Digest::default()
    }
}

impl Prefix {
    /// The whole tree.
    pub const ROOT: Prefix = Prefix { depth: 0, path: 0 };

    /// The 16 nodes below; none below a leaf.
    pub fn children(self) -> impl Iterator<Item = Prefix> {
        let count = if self.is_leaf() { 0 } else { FANOUT as u16 };
        (0..count).map(move |at| Prefix { depth: self.depth + 1, path: self.path * FANOUT as u16 + at })
    }

    /// Whether it is a leaf.
    pub fn is_leaf(self) -> bool {
        self.depth == DEPTH
    }

    /// The leaves it spans.
    pub fn leaves(self) -> std::ops::Range<usize> {
        let span = FANOUT.pow(u32::from(DEPTH - self.depth));
        let first = usize::from(self.path) * span;
        first..first + span
    }

    /// The keys it spans.
    pub fn keys(self) -> (Bound<KeyHash>, Bound<KeyHash>) {
        let leaves = self.leaves();
        let first_of = |leaf: usize| {
            let mut key = KeyHash([0; 32]);
            key.0[..2].copy_from_slice(&((leaf as u16) << 4).to_be_bytes());
            key
        };
        let beyond = self.depth == 0 || leaves.end == Prefix::ROOT.leaves().end;
        let end = if beyond { Bound::Unbounded } else { Bound::Excluded(first_of(leaves.end)) };
        (Bound::Included(first_of(leaves.start)), end)
    }
}

impl TryFrom<(u8, u16)> for Prefix {
    type Error = &'static str;
    fn try_from((depth, path): (u8, u16)) -> Result<Prefix, &'static str> {
        // Checked as it is read: a prefix from the network is used as an index.
        if depth > DEPTH || usize::from(path) >= FANOUT.pow(u32::from(depth)) {
            return Err("not a node of the fingerprint tree");
        }
        Ok(Prefix { depth, path })
    }
}

impl From<Prefix> for (u8, u16) {
    fn from(prefix: Prefix) -> (u8, u16) {
        (prefix.depth, prefix.path)
    }
}

impl Tree {
    /// Hashes a leaf, or the one that was begun before and then this one.
    fn leaf(
        &mut self,
        prefix: Prefix,
        as_of: Timestamp,
        records: &Records,
        work: &mut usize,
    ) -> Option<Cached> {
        loop {
            let begun = self.unfinished.take();
            let mut leaf = begun.unwrap_or_else(|| Box::new(UnfinishedLeaf::new(prefix, as_of)));
            let Some(made) = leaf.go_on(records, work) else {
                self.unfinished = Some(leaf);
                return None;
            };
            if (leaf.prefix, leaf.as_of) == (prefix, as_of) {
                return Some(made);
            }
            // What somebody else began: its hash is kept for whoever that was.
            self.levels[usize::from(DEPTH)].resize(FANOUT.pow(u32::from(DEPTH)), None);
            self.levels[usize::from(DEPTH)][usize::from(leaf.prefix.path)] = Some(made);
        }
    }

    /// A record of this leaf came or went.
    pub fn invalidate(&mut self, leaf: usize) {
        self.unfinished = self.unfinished.take().filter(|begun| begun.prefix.leaves().start != leaf);
        for (depth, level) in self.levels.iter_mut().enumerate() {
            // Four bits a level; a level that was never filled is empty and has nothing to forget.
            if let Some(cached) = level.get_mut(leaf >> (4 * (usize::from(DEPTH) - depth))) {
                *cached = None;
            }
        }
    }

    /// Hash of the part below `prefix` at `as_of`. Cost follows what changed since the last call.
    pub fn digest(&mut self, prefix: Prefix, as_of: Timestamp, records: &Records) -> Digest {
        // All there is: a hash is never missing for lack of work.
        self.digest_within(prefix, as_of, records, &mut { usize::MAX }).unwrap_or_default()
    }

    /// As [`Tree::digest`], if that takes no more than to hash `work` records. What was done is kept, so that the next call goes
    /// on from there.
    pub fn digest_within(
        &mut self,
        prefix: Prefix,
        as_of: Timestamp,
        records: &Records,
        work: &mut usize,
    ) -> Option<Digest> {
        self.cached(prefix, as_of, records, work).map(|cached| cached.digest)
    }

    fn cached(
        &mut self,
        prefix: Prefix,
        as_of: Timestamp,
        records: &Records,
        work: &mut usize,
    ) -> Option<Cached> {
        let (depth, path) = (usize::from(prefix.depth), usize::from(prefix.path));
        let cached = self.levels[depth].get(path).copied().flatten();
        // Valid as long as no record of it ends: the same ones are covered for any `as_of` between.
        if let Some(cached) = cached.filter(|it| it.from <= as_of && as_of < it.until) {
            return Some(cached);
        }
        let made = if records.range(prefix.keys()).next().is_none() {
            Cached { digest: Digest::default(), from: Timestamp(0), until: Timestamp(u64::MAX) }
        } else if prefix.is_leaf() {
            self.leaf(prefix, as_of, records, work)?
        } else {
            let children: Option<Vec<Cached>> =
                prefix.children().map(|child| self.cached(child, as_of, records, work)).collect();
            inner_digest(&children?)
        };
        // A small registry is hashed again from its top levels: a full tree would weigh more than its records, in every one of
        // ten thousand simulated nodes.
        if records.len() > SMALL || prefix.depth <= CACHED_DEPTH {
            let level = &mut self.levels[depth];
            level.resize(FANOUT.pow(depth as u32), None);
            level[path] = Some(made);
        }
        Some(made)
    }
}

/// Whether a fingerprint at `as_of` covers a held record.
pub fn covers(record: &Record, as_of: Timestamp) -> bool {
    record.is_public() && record.expires_at > as_of
}

impl UnfinishedLeaf {
    fn new(prefix: Prefix, as_of: Timestamp) -> UnfinishedLeaf {
        let (from, until) = (Timestamp(0), Timestamp(u64::MAX));
        UnfinishedLeaf { prefix, as_of, hash: Sha256::new(), count: 0, from, until, last: None }
    }

    /// Hashes `work` records at most; the hash of the leaf once that was the last.
    fn go_on(&mut self, records: &Records, work: &mut usize) -> Option<Cached> {
        let (start, end) = self.prefix.keys();
        let mut rest = records.range((self.last.map_or(start, Bound::Excluded), end));
        while *work > 0 {
            let Some(record) = rest.next() else { return Some(self.finished()) };
            *work -= 1;
            self.last = Some(record.key());
            if covers(record, self.as_of) {
                self.hash.update(record.hash().0);
                self.until = self.until.min(record.expires_at);
                self.count += 1;
            } else if record.is_public() {
                self.from = self.from.max(record.expires_at);
            }
        }
        rest.next().is_none().then(|| self.finished())
    }

    fn finished(&mut self) -> Cached {
        let hash = self.hash.finalize_reset();
        let digest = if self.count == 0 { Digest::default() } else { Digest(hash.into()) };
        Cached { digest, from: self.from, until: self.until }
    }
}

fn inner_digest(children: &[Cached]) -> Cached {
    let from = children.iter().map(|child| child.from).max().unwrap_or(Timestamp(0));
    let until = children.iter().map(|child| child.until).min().unwrap_or(Timestamp(u64::MAX));
    // Nothing is nothing at every depth, so that a joiner's empty root equals an empty branch of anybody.
    if children.iter().all(|child| child.digest.is_empty()) {
        return Cached { digest: Digest::default(), from, until };
    }
    // A prefix of its own: an inner node can then never be passed off as a leaf.
    let mut hash = Sha256::new_with_prefix(b"aop-tree-v1\0");
    for child in children {
        hash.update(child.digest.0);
    }
    Cached { digest: Digest(hash.finalize().into()), from, until }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", data_encoding::HEXLOWER.encode(&self.0[..6]))
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeBounds;

    use super::*;

    #[test]
    fn prefixes_span_their_leaves() {
        assert_eq!(Prefix::ROOT.leaves(), 0..4_096);
        let child = Prefix::ROOT.children().nth(3).unwrap();
        assert_eq!(child.leaves(), 768..1_024);
        let leaf = child.children().last().unwrap().children().last().unwrap();
        assert!(leaf.is_leaf());
        assert_eq!(leaf.leaves(), 1_023..1_024);
        assert_eq!(leaf.children().count(), 0);
        for prefix in Prefix::ROOT.children().chain(child.children()).chain([Prefix::ROOT, leaf]) {
            let spanned = |key: KeyHash| prefix.leaves().contains(&leaf_of(key));
            let (start, end) = prefix.keys();
            for leaf in 0..4_096u16 {
                let mut key = KeyHash([0xff; 32]);
                key.0[..2].copy_from_slice(&(leaf << 4 | 0xf).to_be_bytes());
                assert_eq!((start, end).contains(&key), spanned(key), "{prefix:?} {leaf}");
            }
        }
        assert!(Prefix::try_from((3, 4_096)).is_err());
        assert!(Prefix::try_from((4, 0)).is_err());
    }

    #[test]
    fn as_of_is_a_whole_minute_one_to_two_minutes_ahead() {
        for now in [0, 1, 59_999, 60_000, 1_700_000_012_345] {
            let ahead = as_of(Timestamp(now)).0 - now;
            assert!((60_000..=120_000).contains(&ahead), "{now}: {ahead}");
            assert_eq!(as_of(Timestamp(now)).0 % 60_000, 0);
        }
        let now = Timestamp(1_700_000_012_345);
        assert!(is_plausible(as_of(now), now));
        assert!(!is_plausible(Timestamp(as_of(now).0 + 1), now));
        assert!(!is_plausible(Timestamp(u64::MAX / 60_000 * 60_000), now));
        assert!(!is_plausible(Timestamp(0), now));
        // What clocks two minutes apart choose, and nothing beyond.
        let plausible: Vec<u64> = (0..10_000)
            .map(|minute| minute * 60_000)
            .filter(|off| is_plausible(Timestamp((now.0 / 60_000 - 5_000) * 60_000 + off), now))
            .collect();
        assert_eq!(plausible.len(), 6);
        for clock in [now + SKEW_MAX, Timestamp(now.0 - SKEW_MAX.as_millis() as u64)] {
            assert!(is_plausible(as_of(clock), now));
        }
    }
}
