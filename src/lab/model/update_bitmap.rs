//! Who holds which update: a bit for each pair of node and update.
//!
//! Updates are numbered author by author, so that an author's versions lie side by side. With a single update the bits
//! of all nodes are dense (10^6 nodes: 125 kB), and the question most asked, whether a copy is a duplicate, stays in a
//! core's cache.

use std::ops::Range;

use crate::lab::scenario::Digest;

/// The bits.
#[derive(Debug)]
pub(super) struct UpdateBitmap {
    updates: usize,
    /// Bits of a node.
    stride: usize,
    bits: Vec<u64>,
    /// First update of each author, and the end of the last one's.
    authors: Vec<u32>,
}

impl UpdateBitmap {
    /// Nobody holds anything.
    pub(super) fn new(nodes: usize, updates: usize, authors: usize) -> UpdateBitmap {
        // Whole words compare two nodes at once; for a single update they would be 63 bits of waste.
        let stride = if updates == 1 { 1 } else { updates.next_multiple_of(64) };
        let firsts = (0..=authors).map(|author| first(author, updates, authors)).collect();
        UpdateBitmap { updates, stride, bits: vec![0; (nodes * stride).div_ceil(64)], authors: firsts }
    }

    /// Authors.
    pub(super) fn authors(&self) -> usize {
        self.authors.len() - 1
    }

    /// The update that is the n-th to be written, as authors write in turns: all have as many, or one more.
    pub(super) fn nth_written(&self, number: usize) -> u32 {
        self.authors[number % self.authors()] + (number / self.authors()) as u32
    }

    /// Whether a node holds an update.
    pub(super) fn has(&self, node: u32, update: u32) -> bool {
        let at = node as usize * self.stride + update as usize;
        self.bits[at / 64] & 1 << (at % 64) != 0
    }

    /// A node now holds an update.
    pub(super) fn add(&mut self, node: u32, update: u32) {
        let at = node as usize * self.stride + update as usize;
        self.bits[at / 64] |= 1 << (at % 64);
    }

    /// How many a node holds.
    pub(super) fn count(&self, node: u32) -> usize {
        if self.stride == 1 {
            return usize::from(self.has(node, 0));
        }
        self.row(node).iter().map(|word| word.count_ones() as usize).sum()
    }

    /// All that a node holds.
    pub(super) fn list(&self, node: u32, found: &mut Vec<u32>) {
        found.clear();
        found.extend((0..self.updates as u32).filter(|update| self.has(node, *update)));
    }

    /// What `giver` holds and `taker` lacks and asks for by its digest.
    pub(super) fn lacking(&self, taker: u32, giver: u32, digest: Digest, found: &mut Vec<u32>) {
        found.clear();
        if self.stride == 1 {
            return found.extend((self.has(giver, 0) && !self.has(taker, 0)).then_some(0));
        }
        for (at, (theirs, ours)) in self.row(giver).iter().zip(self.row(taker)).enumerate() {
            let mut word = theirs & !ours;
            while word != 0 {
                found.push((at * 64) as u32 + word.trailing_zeros());
                word &= word - 1;
            }
        }
        // Below the greatest version that it names a taker is thought to have everything.
        if digest == Digest::Max && !found.is_empty() {
            let (mut author, mut greatest) = (0, self.greatest(taker, 0));
            found.retain(|update| {
                // What was found ascends, so each author is passed once.
                while self.authors[author + 1] <= *update {
                    author += 1;
                    greatest = self.greatest(taker, author);
                }
                greatest.is_none_or(|greatest| greatest < *update)
            });
        }
    }

    /// What a node lacks below the greatest version it has seen of each author: never asked for by eq. 9's digest.
    pub(super) fn holes(&self, node: u32) -> usize {
        let below_greatest = |author: usize| {
            let greatest = self.greatest(node, author)?;
            Some((self.authors[author]..greatest).filter(|update| !self.has(node, *update)).count())
        };
        (0..self.authors()).filter_map(below_greatest).sum()
    }

    /// The author's greatest update that a node holds.
    fn greatest(&self, node: u32, author: usize) -> Option<u32> {
        self.versions(author).rev().find(|update| self.has(node, *update))
    }

    fn versions(&self, author: usize) -> Range<u32> {
        self.authors[author]..self.authors[author + 1]
    }

    fn row(&self, node: u32) -> &[u64] {
        &self.bits[node as usize * self.stride / 64..][..self.updates.div_ceil(64)]
    }
}

fn first(author: usize, updates: usize, authors: usize) -> u32 {
    // The first few authors have one more where the division leaves a rest.
    (author * (updates / authors) + author.min(updates % authors)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacking(updates_held: &UpdateBitmap, digest: Digest) -> Vec<u32> {
        let mut found = Vec::new();
        updates_held.lacking(0, 1, digest, &mut found);
        found
    }

    #[test]
    fn the_greatest_version_hides_a_gap_and_the_prefix_shows_it() {
        // Three authors with 34, 33 and 33 updates.
        let mut updates_held = UpdateBitmap::new(2, 100, 3);
        for update in 0..100 {
            updates_held.add(1, update);
        }
        for update in (0..10).chain(12..20).chain(40..50) {
            updates_held.add(0, update);
        }
        let beyond: Vec<u32> = (20..34).chain(50..100).collect();
        assert_eq!(lacking(&updates_held, Digest::Max), beyond);
        let all: Vec<u32> = (10..12).chain(20..40).chain(50..100).collect();
        assert_eq!(lacking(&updates_held, Digest::Prefix), all);
        assert_eq!(updates_held.holes(0), 2 + 6);
        assert_eq!((updates_held.holes(1), updates_held.count(1)), (0, 100));
    }

    #[test]
    fn authors_write_in_turns_and_each_update_is_written_once() {
        let updates_held = UpdateBitmap::new(2, 11, 3);
        let mut written: Vec<u32> = (0..11).map(|number| updates_held.nth_written(number)).collect();
        assert_eq!(written[..4], [0, 4, 8, 1]);
        written.sort_unstable();
        assert!(written.iter().enumerate().all(|(at, update)| at == *update as usize));
    }

    #[test]
    fn a_single_update_takes_one_bit_a_node() {
        let mut updates_held = UpdateBitmap::new(1_000_000, 1, 1);
        assert_eq!(updates_held.bits.len(), 15_625);
        updates_held.add(1, 0);
        assert_eq!(lacking(&updates_held, Digest::Prefix), [0]);
        assert_eq!(updates_held.count(1) + updates_held.count(0), 1);
    }
}
