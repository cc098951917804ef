//! Entries in name order, each with a rank: a number that grows along the order, so that a search compares two entries
//! without touching their names.
//!
//! A new entry takes a rank between its neighbours. Where there is no room, the smallest aligned range of ranks around
//! it that is sparse enough is spread evenly; demanding more room of larger ranges keeps that logarithmic on average,
//! whatever the order of insertions (Bender, Cole, Demaine, Farach-Colton, Zito: "Two simplified algorithms for
//! maintaining order in a list").

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use super::growth::make_room;
use crate::proto::identity::AgentId;
use crate::proto::name::FullName;

/// Ranks lie above 0 and below this.
const RANK_END: u64 = 1 << 62;
/// Room left when an entry becomes the first or last, so that entries in sorted order need no spreading.
const STEP: u64 = 1 << 32;
/// How much fuller a range may be than one twice its size. With 1.4, ranks last for 2^32 entries.
const CROWDING: f64 = 1.4;

/// What orders entries: the name, then the id, as one name may have several owners.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) name: FullName,
    pub(super) id: AgentId,
}

/// The ids of all entries by key, and the rank of each id.
#[derive(Debug, Default)]
pub(super) struct NameOrder {
    entry_ids: BTreeMap<Arc<Key>, u32>,
    ranks: Vec<u64>,
}

impl NameOrder {
    /// Adds a key that is not in the order.
    pub(super) fn insert(&mut self, key: Arc<Key>, entry_id: u32) {
        // Spreading is rare and dear; a free rank between two neighbours is nearly always there.
        let rank = self.free_rank(&key).unwrap_or_else(|| {
            self.spread(&key);
            self.free_rank(&key).unwrap_or(RANK_END)
        });
        while self.ranks.len() <= entry_id as usize {
            make_room(&mut self.ranks);
            self.ranks.push(0);
        }
        self.ranks[entry_id as usize] = rank;
        self.entry_ids.insert(key, entry_id);
    }

    pub(super) fn remove(&mut self, key: &Key) {
        self.entry_ids.remove(key);
    }

    /// The rank of an entry; holds until the next insertion.
    pub(super) fn rank(&self, entry_id: u32) -> u64 {
        self.ranks[entry_id as usize]
    }

    /// The rank of `key`, or of the last before it where it is not in the order; 0 before the first.
    pub(super) fn rank_up_to(&self, key: &Key) -> u64 {
        self.entry_ids.range::<Key, _>(..=key).next_back().map_or(0, |(_, entry_id)| self.rank(*entry_id))
    }

    /// Entries behind `key`, or all, in order.
    pub(super) fn after(&self, key: Option<&Key>) -> impl Iterator<Item = (&Key, u32)> {
        let start = key.map_or(Unbounded, Excluded);
        self.entry_ids.range::<Key, _>((start, Unbounded)).map(|(key, entry_id)| (&**key, *entry_id))
    }

    /// Entries before `key`, the nearest first.
    pub(super) fn before(&self, key: &Key) -> impl Iterator<Item = (&Key, u32)> {
        self.entry_ids.range::<Key, _>(..key).rev().map(|(key, entry_id)| (&**key, *entry_id))
    }

    /// Entries of this name, by id.
    pub(super) fn named<'a>(&'a self, name: &'a FullName) -> impl Iterator<Item = &'a Key> {
        let first = Key { name: name.clone(), id: AgentId([0; 20]) };
        let from = self.entry_ids.range::<Key, _>(first..).map(|(key, _)| &**key);
        from.take_while(move |key| key.name == *name)
    }

    /// A rank between the neighbours of `key`, if there is one.
    fn free_rank(&self, key: &Key) -> Option<u64> {
        let before = self.before(key).next().map(|(_, entry_id)| self.rank(entry_id));
        let behind = self.after(Some(key)).next().map(|(_, entry_id)| self.rank(entry_id));
        let (low, high) = match (before, behind) {
            (None, None) => (0, RANK_END),
            // Not the middle of all that is left: names that arrive in order would halve the room each time.
            (Some(last), None) => (last, RANK_END.min(last + 2 * STEP)),
            (None, Some(first)) => (first.saturating_sub(2 * STEP), first),
            (Some(low), Some(high)) => (low, high),
        };
        let rank = low + (high - low) / 2;
        (rank > low).then_some(rank)
    }

    /// Makes room around the place of `key` by giving the entries of a sparse range even ranks.
    fn spread(&mut self, key: &Key) {
        let mut before = self.before(key).map(|(_, entry_id)| entry_id).peekable();
        let mut behind = self.after(Some(key)).map(|(_, entry_id)| entry_id).peekable();
        let centre = before.peek().or(behind.peek()).map_or(0, |entry_id| self.rank(*entry_id));
        let (mut inside, mut size, mut room) = (VecDeque::new(), 1, 1.0);
        let start = loop {
            // From the smallest range up: its cost is what it holds, and crowding is local.
            size *= 2;
            room *= 2.0 / CROWDING;
            let start = centre & !(size - 1);
            while let Some(entry_id) = before.next_if(|entry_id| self.ranks[*entry_id as usize] >= start) {
                inside.push_front(entry_id);
            }
            while let Some(entry_id) =
                behind.next_if(|entry_id| self.ranks[*entry_id as usize] < start + size)
            {
                inside.push_back(entry_id);
            }
            if size == RANK_END || (inside.len() as u64 + 1) * 4 <= size && inside.len() as f64 <= room {
                break start;
            }
        };
        drop((before, behind));
        let step = size / (inside.len() as u64 + 1);
        for (at, entry_id) in inside.into_iter().enumerate() {
            self.ranks[entry_id as usize] = start + step * (at as u64 + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(number: u32) -> Key {
        Key { name: format!("n{number:09}@acme.org").parse().unwrap(), id: AgentId([0; 20]) }
    }

    fn assert_ranks_grow(order: &NameOrder) {
        let ranks: Vec<u64> = order.after(None).map(|(_, entry_id)| order.rank(entry_id)).collect();
        assert!(ranks.iter().all(|rank| (1..RANK_END).contains(rank)));
        assert!(ranks.is_sorted_by(|a, b| a < b), "{ranks:?}");
    }

    fn filled(numbers: impl Iterator<Item = u32>) -> NameOrder {
        let mut order = NameOrder::default();
        for (entry_id, number) in numbers.enumerate() {
            order.insert(Arc::new(key(number)), entry_id as u32);
        }
        order
    }

    #[test]
    fn ranks_grow_however_the_names_arrive() {
        assert_ranks_grow(&filled(0..3000));
        assert_ranks_grow(&filled((0..3000).rev()));
        assert_ranks_grow(&filled([0, 9000].into_iter().chain(1..3000)));
        assert_ranks_grow(&filled([0, 9000].into_iter().chain((1..3000).rev())));
        assert_ranks_grow(&filled((0..1500).flat_map(|near| [near, 9000 - near])));
    }

    #[test]
    fn a_missing_key_has_the_rank_of_the_last_before_it() {
        let order = filled([10, 20].into_iter());
        assert_eq!(order.rank_up_to(&key(9)), 0);
        assert_eq!(order.rank_up_to(&key(10)), order.rank(0));
        assert_eq!(order.rank_up_to(&key(15)), order.rank(0));
        assert_eq!(order.rank_up_to(&key(99)), order.rank(1));
    }

    proptest! {
        #[test]
        fn ranks_grow_under_random_insertions_and_removals(steps in prop::collection::vec((0..400u32, any::<bool>()), 0..800)) {
            let mut order = NameOrder::default();
            for (number, keep) in steps {
                order.remove(&key(number));
                if keep { order.insert(Arc::new(key(number)), number); }
            }
            assert_ranks_grow(&order);
        }
    }
}
