//! Version vectors: which writes of each author were seen (paper 6.2, eq. 9).
//!
//! Eq. 9 takes the maximum, which forgets updates that were overtaken. Here `V[j]` is the **gap-free prefix** of what
//! was seen of author `j`, plus a few ranges beyond it; eq. 9 holds for the prefix. An entry also keeps the highest
//! version that the author itself signed: nobody's word moves the prefix above it.

use std::collections::BTreeMap;

use super::limits::VERSION_RANGES_MAX;
use super::record::Author;

/// What was seen of each author of one zone.
#[derive(Clone, Debug, Default)]
pub struct VersionVector {
    entries: BTreeMap<Author, Seen>,
    forgotten: u64,
}

/// What was seen of one author.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    prefix: u64,
    /// Inclusive, ascending, apart from the prefix and from each other.
    beyond: Vec<(u64, u64)>,
    signed_max: u64,
}

impl VersionVector {
    /// A record of `author` with version `seq` was verified, even if it is stale. Version 0 is none.
    pub fn observe(&mut self, author: Author, seq: u64) {
        // Records of `node` scope take no version.
        if seq > 0 {
            self.entries.entry(author).or_default().observe(seq);
        }
    }

    /// A peer whose registry equals ours covers `author` up to `prefix`. Counts only for authors something was
    /// verified of, and never above what they signed.
    pub fn adopt(&mut self, author: Author, prefix: u64) {
        // Never an entry for an author of whom nothing was verified: a peer could invent thousands.
        if let Some(seen) = self.entries.get_mut(&author) {
            // Nobody's word moves the prefix above what the author itself signed.
            seen.cover(prefix.min(seen.signed_max));
        }
    }

    /// The gap-free prefix, 0 if nothing was seen.
    pub fn prefix(&self, author: &Author) -> u64 {
        self.entries.get(author).map_or(0, |seen| seen.prefix)
    }

    /// Whether version `seq` of `author` was seen.
    pub fn contains(&self, author: &Author, seq: u64) -> bool {
        self.entries.get(author).is_some_and(|seen| {
            seq <= seen.prefix || seen.beyond.iter().any(|&(first, last)| first <= seq && seq <= last)
        })
    }

    /// The highest version verified of `author`.
    pub fn signed_max(&self, author: &Author) -> u64 {
        self.entries.get(author).map_or(0, |seen| seen.signed_max)
    }

    /// Authors with a gap below their highest version.
    pub fn gaps(&self) -> impl Iterator<Item = Author> {
        self.entries.iter().filter(|(_, seen)| seen.prefix < seen.signed_max).map(|(author, _)| *author)
    }

    /// Forgets an author: its last record is gone.
    pub fn remove(&mut self, author: &Author) {
        self.forgotten += u64::from(self.entries.remove(author).is_some());
    }

    /// How many authors were forgotten since the start: only then does any prefix shrink.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Authors and their prefixes.
    pub fn iter(&self) -> impl Iterator<Item = (&Author, u64)> {
        self.entries.iter().map(|(author, seen)| (author, seen.prefix))
    }

    /// Number of authors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was seen.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Seen {
    fn observe(&mut self, seq: u64) {
        self.signed_max = self.signed_max.max(seq);
        if seq <= self.prefix || self.beyond.iter().any(|&(first, last)| first <= seq && seq <= last) {
            return;
        }
        // The usual case costs no search: gossip brings an author's writes in order.
        if seq == self.prefix.saturating_add(1) {
            return self.cover(seq);
        }
        let at = self.beyond.partition_point(|&(first, _)| first < seq);
        self.beyond.insert(at, (seq, seq));
        self.join_at(at);
        // What is dropped here is only forgotten: it counts again when it is seen again, or when a sync covers it.
        self.beyond.truncate(VERSION_RANGES_MAX);
        // Without this, authors that leave gaps on purpose would each have room for twice as many.
        self.beyond.shrink_to(VERSION_RANGES_MAX);
    }

    fn cover(&mut self, prefix: u64) {
        self.prefix = self.prefix.max(prefix);
        while let Some(&(first, last)) = self.beyond.first() {
            if first > self.prefix.saturating_add(1) {
                break;
            }
            self.prefix = self.prefix.max(last);
            self.beyond.remove(0);
        }
    }

    fn join_at(&mut self, at: usize) {
        // Behind first: joining in front would move `at`.
        if at + 1 < self.beyond.len() && self.beyond[at].1 + 1 == self.beyond[at + 1].0 {
            self.beyond[at].1 = self.beyond.remove(at + 1).1;
        }
        if at > 0 && self.beyond[at - 1].1 + 1 == self.beyond[at].0 {
            self.beyond[at - 1].1 = self.beyond.remove(at).1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::proto::identity::PeerKey;

    const AUTHOR: Author = Author { key: PeerKey([1; 32]), epoch: 1 };

    #[test]
    fn an_overtaken_version_is_still_missing() {
        let mut vector = VersionVector::default();
        vector.observe(AUTHOR, 1);
        vector.observe(AUTHOR, 3);
        assert_eq!(vector.prefix(&AUTHOR), 1);
        assert!(!vector.contains(&AUTHOR, 2) && vector.contains(&AUTHOR, 3));
        vector.observe(AUTHOR, 2);
        assert_eq!(vector.prefix(&AUTHOR), 3);
        assert_eq!(vector.gaps().count(), 0);
    }

    #[test]
    fn a_peers_word_never_exceeds_what_the_author_signed() {
        let mut vector = VersionVector::default();
        vector.adopt(AUTHOR, 9);
        assert_eq!(vector.prefix(&AUTHOR), 0, "nothing was verified of this author");
        vector.observe(AUTHOR, 4);
        vector.adopt(AUTHOR, 9);
        assert_eq!(vector.prefix(&AUTHOR), 4);
    }

    #[test]
    fn the_greatest_version_there_can_be_is_one_like_others() {
        let mut vector = VersionVector::default();
        vector.observe(AUTHOR, u64::MAX - 2);
        vector.observe(AUTHOR, u64::MAX);
        vector.adopt(AUTHOR, u64::MAX);
        vector.observe(AUTHOR, u64::MAX);
        assert_eq!((vector.prefix(&AUTHOR), vector.gaps().count()), (u64::MAX, 0));
    }

    proptest! {
        #[test]
        fn the_vector_says_what_a_set_says(seqs in prop::collection::vec(1u64..120, 0..120)) {
            let mut vector = VersionVector::default();
            let mut set = BTreeSet::new();
            for seq in seqs {
                vector.observe(AUTHOR, seq);
                set.insert(seq);
            }
            for seq in 1..120 {
                prop_assert_eq!(vector.contains(&AUTHOR, seq), set.contains(&seq));
            }
            let prefix = (1..).take_while(|seq| set.contains(seq)).last().unwrap_or(0);
            prop_assert_eq!(vector.prefix(&AUTHOR), prefix);
        }

        #[test]
        fn many_gaps_stay_bounded_and_never_claim_the_unseen(seqs in prop::collection::vec(1u64..4_000, 0..600)) {
            let mut vector = VersionVector::default();
            let set: BTreeSet<u64> = seqs.iter().copied().collect();
            for seq in seqs { vector.observe(AUTHOR, seq); }
            if let Some(seen) = vector.entries.get(&AUTHOR) { prop_assert!(seen.beyond.capacity() <= VERSION_RANGES_MAX); }
            for seq in 1..4_000 { prop_assert!(!vector.contains(&AUTHOR, seq) || set.contains(&seq)); }
        }
    }
}
