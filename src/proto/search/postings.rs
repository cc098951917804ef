//! Interned words, and for each the entries that have it.
//!
//! Entries are known by id, a small number that is reused after removal. A posting list is sorted by id and cut
//! into blocks of [`BLOCK_ENTRIES`] ids, which bounds both what one insertion moves and the scratch space of a query.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Slots of one block. 4096 scores fit the first-level cache, and an insertion moves at most 32 KiB.
pub(super) const BLOCK_ENTRIES: usize = 4096;

/// One entry that has a word.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Posting {
    pub(super) entry_id: u32,
    /// How well the word describes the entry, above 0 and below 1; see `rank`.
    pub(super) impact: f32,
}

/// All entries that have a word.
#[derive(Debug)]
pub(super) enum Postings {
    /// Up to [`BLOCK_ENTRIES`] of them, in one list.
    Few(Vec<Posting>),
    /// Block `entry_id / BLOCK_ENTRIES` holds the posting of `entry_id`.
    Many { blocks: Vec<Vec<Posting>>, len: usize },
}

impl Default for Postings {
    fn default() -> Postings {
        Postings::Few(Vec::new())
    }
}

impl Postings {
    pub(super) fn len(&self) -> usize {
        match self {
            Postings::Few(list) => list.len(),
            Postings::Many { len, .. } => *len,
        }
    }

    /// Adds the entry at `entry_id`, or changes its impact.
    pub(super) fn put(&mut self, entry_id: u32, impact: f32) {
        let list = self.list_of(entry_id);
        let posting = Posting { entry_id, impact };
        if list.last().is_none_or(|last| last.entry_id < entry_id) {
            grow(list);
            list.push(posting);
            return self.count_added();
        }
        match list.binary_search_by_key(&entry_id, |posting| posting.entry_id) {
            Ok(at) => list[at] = posting,
            Err(at) => {
                grow(list);
                list.insert(at, posting);
                self.count_added();
            }
        }
    }

    /// Takes the entry at `entry_id` out.
    pub(super) fn remove(&mut self, entry_id: u32) {
        let list = self.list_of(entry_id);
        if let Ok(at) = list.binary_search_by_key(&entry_id, |posting| posting.entry_id) {
            list.remove(at);
            if let Postings::Many { len, .. } = self {
                *len -= 1;
            }
        }
    }

    /// The postings whose ids lie in block `number`.
    pub(super) fn block(&self, number: usize) -> &[Posting] {
        match self {
            Postings::Few(list) => {
                let start = list.partition_point(|posting| block_of(posting.entry_id) < number);
                let end =
                    start + list[start..].partition_point(|posting| block_of(posting.entry_id) == number);
                &list[start..end]
            }
            Postings::Many { blocks, .. } => blocks.get(number).map_or(&[], Vec::as_slice),
        }
    }

    fn list_of(&mut self, entry_id: u32) -> &mut Vec<Posting> {
        match self {
            Postings::Few(list) => list,
            Postings::Many { blocks, .. } => {
                let number = block_of(entry_id);
                if blocks.len() <= number {
                    blocks.resize_with(number + 1, Vec::new);
                }
                &mut blocks[number]
            }
        }
    }

    fn count_added(&mut self) {
        match self {
            Postings::Few(list) if list.len() > BLOCK_ENTRIES => {
                let mut blocks = Vec::new();
                for chunk in list.chunk_by(|a, b| block_of(a.entry_id) == block_of(b.entry_id)) {
                    blocks.resize_with(block_of(chunk[0].entry_id), Vec::new);
                    blocks.push(chunk.to_vec());
                }
                *self = Postings::Many { len: list.len(), blocks };
            }
            Postings::Few(_) => {}
            Postings::Many { len, .. } => *len += 1,
        }
    }
}

fn block_of(entry_id: u32) -> usize {
    entry_id as usize / BLOCK_ENTRIES
}

/// Makes room for one more by a quarter, since most of the memory of an index is posting lists.
fn grow(list: &mut Vec<Posting>) {
    if list.len() == list.capacity() {
        list.reserve_exact(1 + list.len() / 4);
    }
}

/// Texts interned once, each with what is known of it. Ids are reused after release.
#[derive(Debug)]
pub(super) struct Dictionary<T> {
    ids: BTreeMap<Arc<str>, u32>,
    values: Vec<(Arc<str>, T)>,
    free: Vec<u32>,
}

impl<T: Default> Dictionary<T> {
    pub(super) fn new() -> Dictionary<T> {
        Dictionary { ids: BTreeMap::new(), values: Vec::new(), free: Vec::new() }
    }

    pub(super) fn find(&self, text: &str) -> Option<&T> {
        self.ids.get(text).map(|id| &self.values[*id as usize].1)
    }

    /// The id of `text`, a new one if need be.
    pub(super) fn intern(&mut self, text: &str) -> u32 {
        if let Some(id) = self.ids.get(text) {
            return *id;
        }
        let text: Arc<str> = text.into();
        let fresh = (text.clone(), T::default());
        let id = match self.free.pop() {
            Some(id) => {
                self.values[id as usize] = fresh;
                id
            }
            None => {
                self.values.push(fresh);
                (self.values.len() - 1) as u32
            }
        };
        self.ids.insert(text, id);
        id
    }

    /// The interned text itself; empty once released.
    pub(super) fn text(&self, id: u32) -> &Arc<str> {
        &self.values[id as usize].0
    }

    /// What is known of an interned text.
    pub(super) fn at(&mut self, id: u32) -> &mut T {
        &mut self.values[id as usize].1
    }

    /// Forgets an interned text.
    pub(super) fn release(&mut self, id: u32) {
        let (text, _) = std::mem::take(&mut self.values[id as usize]);
        self.ids.remove(&text);
        self.free.push(id);
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(postings: &Postings) -> Vec<(u32, f32)> {
        (0..8)
            .flat_map(|number| postings.block(number))
            .map(|posting| (posting.entry_id, posting.impact))
            .collect()
    }

    #[test]
    fn a_released_text_is_forgotten_and_its_id_reused() {
        let mut words: Dictionary<u8> = Dictionary::new();
        let id = words.intern("alpha");
        *words.at(id) = 7;
        assert_eq!((words.intern("alpha"), words.find("alpha")), (id, Some(&7)));
        words.release(id);
        assert_eq!((words.find("alpha"), words.len()), (None, 0));
        assert_eq!((words.intern("beta"), words.find("beta")), (id, Some(&0)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn postings_are_a_sorted_map_before_and_after_they_are_cut_into_blocks(
            entry_ids in prop::collection::vec(0..30_000u32, 0..9000),
            gone in prop::collection::vec(0..30_000u32, 0..3000),
        ) {
            let (mut postings, mut model) = (Postings::default(), BTreeMap::new());
            for (at, entry_id) in entry_ids.iter().enumerate() {
                postings.put(*entry_id, at as f32);
                model.insert(*entry_id, at as f32);
            }
            for entry_id in &gone {
                postings.remove(*entry_id);
                model.remove(entry_id);
            }
            prop_assert_eq!(postings.len(), model.len());
            prop_assert_eq!(all(&postings), model.into_iter().collect::<Vec<_>>());
        }
    }
}
