//! Entries by three letters of their agents' names that stand together: what has few slips has some of them in common with what
//! was meant. Strangers choose the names, so all there may be share few sets: what a question reads is bounded.

use roaring::RoaringBitmap;

/// Sets, a power of two. Different letters share one: a question counts how many a name has in common.
const SETS: usize = 4_096;
/// Sets of one name: of a longer one a choice, which is much the same for names that are much the same. All of them would
/// take more memory than the words of such names.
const SETS_OF_ONE_MAX: usize = 8;
/// Ids that a question reads, of the smallest sets first.
pub(super) const READ_MAX: usize = 512;
/// Of these, of one set: a larger one says little.
const READ_OF_ONE_MAX: usize = 256;

/// The sets. None are made before the first name.
#[derive(Debug, Default)]
pub(super) struct Grams(Vec<RoaringBitmap>);

impl Grams {
    pub(super) fn insert(&mut self, name: &str, entry_id: u32) {
        self.0.resize_with(SETS, RoaringBitmap::new);
        for set in sets(name) {
            self.0[set].insert(entry_id);
        }
    }

    pub(super) fn remove(&mut self, name: &str, entry_id: u32) {
        for set in sets(name) {
            if let Some(ids) = self.0.get_mut(set) {
                ids.remove(entry_id);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(RoaringBitmap::is_empty)
    }

    /// At most so many entries with the most in common with a text, the nearest first.
    pub(super) fn nearest(&self, text: &str, most: usize) -> Vec<u32> {
        let mut of: Vec<&RoaringBitmap> =
            sets(text).filter_map(|set| self.0.get(set)).filter(|ids| !ids.is_empty()).collect();
        of.sort_by_cached_key(|ids| ids.len());
        let mut ids: Vec<u32> = Vec::with_capacity(READ_MAX);
        for set in of {
            let left = READ_MAX - ids.len();
            ids.extend(set.iter().take(left.min(READ_OF_ONE_MAX)));
        }
        ids.sort_unstable();
        let mut counted: Vec<(usize, u32)> =
            ids.chunk_by(|one, other| one == other).map(|same| (same.len(), same[0])).collect();
        counted.sort_unstable_by_key(|(count, id)| (std::cmp::Reverse(*count), *id));
        counted.into_iter().take(most).map(|(_, id)| id).collect()
    }
}

/// The sets of a name, each once: the first of them, whose numbers depend on the letters alone.
fn sets(name: &str) -> impl Iterator<Item = usize> {
    let mut letters = Vec::with_capacity(name.len() + 2);
    // The ends count as letters, so that a slip there leaves something.
    letters.push(0);
    letters.extend_from_slice(name.as_bytes());
    letters.push(0);
    let mut sets: Vec<usize> = letters.windows(3).map(|gram| set(gram[0], gram[1], gram[2])).collect();
    sets.sort_unstable();
    sets.dedup();
    sets.truncate(SETS_OF_ONE_MAX);
    sets.into_iter()
}

fn set(one: u8, two: u8, three: u8) -> usize {
    let gram = u32::from_le_bytes([one, two, three, 0]);
    // The upper bits of a product depend on all of its factor.
    (gram.wrapping_mul(0x9E37_79B1) >> 20) as usize % SETS
}
