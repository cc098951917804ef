//! The entries that have a word.
//!
//! Entries are known by id, a small number that is reused after removal. A posting list is sorted by id and cut
//! into blocks of [`BLOCK_ENTRIES`] ids, which bounds both what one insertion moves and the scratch space of a query.

use super::growth::{give_back, make_room};

/// Slots of one block. 4096 scores fit the first-level cache, and an insertion moves at most 32 KiB.
pub(super) const BLOCK_ENTRIES: usize = 4096;

/// One entry that has a word.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Posting {
    pub(super) entry_id: u32,
    /// How well the word describes the entry, above 0; see `rank`.
    pub(super) impact: f32,
}

/// All entries that have a word. Most words are had by one, and strangers can make up any number of those.
#[derive(Debug, Default)]
pub(super) enum Postings {
    #[default]
    None,
    One(Posting),
    More(Box<List>),
}

/// The postings of a word that several entries had at a time.
#[derive(Debug)]
pub(super) enum List {
    /// Up to [`BLOCK_ENTRIES`] of them, in one list.
    Few(Vec<Posting>),
    /// Block `entry_id / BLOCK_ENTRIES` holds the posting of `entry_id`.
    Many { blocks: Vec<Vec<Posting>>, len: usize },
}

impl Postings {
    pub(super) fn len(&self) -> usize {
        match self {
            Postings::None => 0,
            Postings::One(_) => 1,
            Postings::More(list) => list.len(),
        }
    }

    /// Adds the entry at `entry_id`, or changes its impact.
    pub(super) fn put(&mut self, entry_id: u32, impact: f32) {
        let posting = Posting { entry_id, impact };
        match self {
            Postings::More(list) => list.put(posting),
            Postings::One(only) if only.entry_id != entry_id => {
                let mut list = List::Few(vec![*only]);
                list.put(posting);
                *self = Postings::More(Box::new(list));
            }
            Postings::None | Postings::One(_) => *self = Postings::One(posting),
        }
    }

    /// Takes the entry at `entry_id` out.
    pub(super) fn remove(&mut self, entry_id: u32) {
        match self {
            Postings::One(only) if only.entry_id == entry_id => *self = Postings::None,
            Postings::None | Postings::One(_) => {}
            Postings::More(list) => {
                list.remove(entry_id);
                // A list of one takes several times as much.
                if let List::Few(left) = &**list
                    && let [only] = left[..]
                {
                    *self = Postings::One(only);
                }
            }
        }
    }

    /// Whether the entry at `entry_id` has the word.
    pub(super) fn has(&self, entry_id: u32) -> bool {
        let block = self.block(block_of(entry_id));
        block.binary_search_by_key(&entry_id, |posting| posting.entry_id).is_ok()
    }

    /// All of them, by id.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Posting> {
        let (all, blocks) = match self {
            Postings::None => (&[][..], &[][..]),
            Postings::One(only) => (std::slice::from_ref(only), &[][..]),
            Postings::More(list) => match &**list {
                List::Few(all) => (&all[..], &[][..]),
                List::Many { blocks, .. } => (&[][..], &blocks[..]),
            },
        };
        all.iter().chain(blocks.iter().flatten())
    }

    /// The postings whose ids lie in block `number`.
    pub(super) fn block(&self, number: usize) -> &[Posting] {
        match self {
            Postings::One(only) if block_of(only.entry_id) == number => std::slice::from_ref(only),
            Postings::None | Postings::One(_) => &[],
            Postings::More(list) => list.block(number),
        }
    }
}

impl List {
    fn len(&self) -> usize {
        match self {
            List::Few(list) => list.len(),
            List::Many { len, .. } => *len,
        }
    }

    fn put(&mut self, posting: Posting) {
        let entry_id = posting.entry_id;
        let list = self.list_of(entry_id);
        if list.last().is_none_or(|last| last.entry_id < entry_id) {
            make_room(list);
            list.push(posting);
            return self.count_added();
        }
        match list.binary_search_by_key(&entry_id, |posting| posting.entry_id) {
            Ok(at) => list[at] = posting,
            Err(at) => {
                make_room(list);
                list.insert(at, posting);
                self.count_added();
            }
        }
    }

    fn remove(&mut self, entry_id: u32) {
        let list = self.list_of(entry_id);
        if let Ok(at) = list.binary_search_by_key(&entry_id, |posting| posting.entry_id) {
            list.remove(at);
            give_back(list);
            if let List::Many { len, .. } = self {
                *len -= 1;
            }
        }
    }

    fn block(&self, number: usize) -> &[Posting] {
        match self {
            List::Few(list) => {
                let start = list.partition_point(|posting| block_of(posting.entry_id) < number);
                let end =
                    start + list[start..].partition_point(|posting| block_of(posting.entry_id) == number);
                &list[start..end]
            }
            List::Many { blocks, .. } => blocks.get(number).map_or(&[], Vec::as_slice),
        }
    }

    fn list_of(&mut self, entry_id: u32) -> &mut Vec<Posting> {
        match self {
            List::Few(list) => list,
            List::Many { blocks, .. } => {
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
            List::Few(list) if list.len() > BLOCK_ENTRIES => {
                let mut blocks = Vec::new();
                for chunk in list.chunk_by(|a, b| block_of(a.entry_id) == block_of(b.entry_id)) {
                    blocks.resize_with(block_of(chunk[0].entry_id), Vec::new);
                    blocks.push(chunk.to_vec());
                }
                *self = List::Many { len: list.len(), blocks };
            }
            List::Few(_) => {}
            List::Many { len, .. } => *len += 1,
        }
    }
}

fn block_of(entry_id: u32) -> usize {
    entry_id as usize / BLOCK_ENTRIES
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn all(postings: &Postings) -> Vec<(u32, f32)> {
        (0..8)
            .flat_map(|number| postings.block(number))
            .map(|posting| (posting.entry_id, posting.impact))
            .collect()
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
            prop_assert_eq!(all(&postings), model.clone().into_iter().collect::<Vec<_>>());
            while let Some((entry_id, _)) = model.pop_last() {
                postings.remove(entry_id);
                if model.len() < 3 {
                    prop_assert_eq!(all(&postings), model.clone().into_iter().collect::<Vec<_>>());
                }
            }
            prop_assert_eq!(postings.len(), 0);
        }
    }
}
