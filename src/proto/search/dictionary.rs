//! Texts interned once, each with what is known of it.
//!
//! Strangers choose the texts, and may choose each for one agent alone. So a text has no allocation of its own: its bytes lie
//! beside those of all others, its id in a block of the order, and what is known of it in a slot.

use super::growth::make_room;

/// Ids of one block of the order: finding one reads few of them, and entering one moves at most 2 KiB.
const BLOCK_IDS: usize = 512;
/// Bytes of released texts that may lie between the others, beside a quarter of all: a small dictionary is not rewritten.
const HOLES_MAX: usize = 4096;
/// Ids that may be free, beside a quarter of all: a small dictionary is not numbered anew.
const FREE_MAX: usize = 64;
/// Stands for the new id of a free one.
const GONE: u32 = u32::MAX;

/// Texts and what is known of each. Ids are reused after release.
#[derive(Debug, Default)]
pub(super) struct Dictionary<T> {
    texts: String,
    /// Bytes in `texts` that belong to none.
    holes: usize,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    /// Ids in the order of their texts, in blocks of which none is empty.
    order: Vec<Vec<u32>>,
}

#[derive(Debug, Default)]
struct Slot<T> {
    /// Where the text begins: the room of zones bounds all of them far below 4 GiB.
    at: u32,
    length: u16,
    /// Of the owner, where there is room: 0 at first.
    mark: u16,
    value: T,
}

/// Where a text stands in the order, or would.
struct Place {
    block: usize,
    at: usize,
    is_there: bool,
}

impl<T: Default> Dictionary<T> {
    pub(super) fn find(&self, text: &str) -> Option<&T> {
        let place = self.place(text);
        place.is_there.then(|| &self.slots[self.order[place.block][place.at] as usize].value)
    }

    /// The id of a text of at most 64 KiB, a new one if need be.
    pub(super) fn intern(&mut self, text: &str) -> u32 {
        let place = self.place(text);
        if place.is_there {
            return self.order[place.block][place.at];
        }
        make_room_for(&mut self.texts, text.len());
        let slot =
            Slot { at: self.texts.len() as u32, length: text.len() as u16, mark: 0, value: T::default() };
        self.texts.push_str(text);
        let id = match self.free.pop() {
            Some(id) => {
                self.slots[id as usize] = slot;
                id
            }
            None => {
                make_room(&mut self.slots);
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        self.enter(place, id);
        id
    }

    /// The interned text itself; empty once released.
    pub(super) fn text(&self, id: u32) -> &str {
        let Slot { at, length, .. } = self.slots[id as usize];
        &self.texts[at as usize..at as usize + usize::from(length)]
    }

    /// Marks an interned text with a number.
    pub(super) fn mark(&mut self, id: u32, mark: u16) {
        self.slots[id as usize].mark = mark;
    }

    /// The number with which an interned text is marked; 0 where it is not.
    pub(super) fn marked(&self, id: u32) -> u16 {
        self.slots[id as usize].mark
    }

    /// The texts that begin with a letter, in their order.
    pub(super) fn begun_by(&self, letter: char) -> impl Iterator<Item = &str> {
        let first = self.place(letter.encode_utf8(&mut [0; 4]));
        let blocks = self.order.iter().skip(first.block).enumerate();
        let ids = blocks.flat_map(move |(block, ids)| &ids[if block == 0 { first.at } else { 0 }..]);
        ids.map(|id| self.text(*id)).take_while(move |text| text.starts_with(letter))
    }

    /// What is known of an interned text.
    pub(super) fn at(&mut self, id: u32) -> &mut T {
        &mut self.slots[id as usize].value
    }

    /// Forgets an interned text.
    pub(super) fn release(&mut self, id: u32) {
        let place = self.place(self.text(id));
        self.leave(&place);
        self.holes += usize::from(std::mem::take(&mut self.slots[id as usize]).length);
        make_room(&mut self.free);
        self.free.push(id);
        if self.holes > HOLES_MAX + self.texts.len() / 4 {
            self.close_holes();
        }
    }

    /// Numbers the texts anew, in the order of their ids, where too many ids are free; the new id of each old one. Without
    /// this, memory would stay as great as it ever was.
    pub(super) fn renumber(&mut self) -> Option<Vec<u32>> {
        if self.free.len() <= FREE_MAX + self.slots.len() / 4 {
            return None;
        }
        let mut left = Vec::with_capacity(self.len());
        let mut ids = vec![0; self.slots.len()];
        std::mem::take(&mut self.free).into_iter().for_each(|id| ids[id as usize] = GONE);
        for (slot, id) in std::mem::take(&mut self.slots).into_iter().zip(&mut ids) {
            if *id != GONE {
                *id = left.len() as u32;
                left.push(slot);
            }
        }
        self.slots = left;
        self.order.iter_mut().flatten().for_each(|id| *id = ids[*id as usize]);
        Some(ids)
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// One above the highest id.
    pub(super) fn ids_end(&self) -> usize {
        self.slots.len()
    }

    /// All ids, in the order of their texts.
    pub(super) fn sorted_ids(&self) -> Vec<u32> {
        self.order.iter().flatten().copied().collect()
    }

    fn place(&self, text: &str) -> Place {
        let later = self.order.partition_point(|ids| self.text(ids[0]) <= text);
        let block = later.saturating_sub(1);
        let ids = self.order.get(block).map_or(&[][..], Vec::as_slice);
        let found = ids.binary_search_by(|id| self.text(*id).cmp(text));
        Place { block, at: found.unwrap_or_else(|at| at), is_there: found.is_ok() }
    }

    fn enter(&mut self, place: Place, id: u32) {
        let Place { mut block, mut at, .. } = place;
        if self.order.is_empty() {
            self.order.push(Vec::new());
        }
        if self.order[block].len() == BLOCK_IDS {
            // Texts that come in their order fill block after block; all others halve one.
            let is_last = block + 1 == self.order.len() && at == BLOCK_IDS;
            let middle = if is_last { BLOCK_IDS } else { BLOCK_IDS / 2 };
            let upper = self.order[block].split_off(middle);
            self.order[block].shrink_to_fit();
            make_room(&mut self.order);
            self.order.insert(block + 1, upper);
            if at >= middle {
                (block, at) = (block + 1, at - middle);
            }
        }
        make_room(&mut self.order[block]);
        self.order[block].insert(at, id);
    }

    fn leave(&mut self, place: &Place) {
        let ids = &mut self.order[place.block];
        ids.remove(place.at);
        if ids.len() >= BLOCK_IDS / 4 {
            return;
        }
        // Blocks that are nearly empty would be most of what a dictionary takes after its texts were exchanged.
        ids.shrink_to(2 * ids.len());
        let left = ids.len();
        let fits =
            |block: usize| self.order.get(block).is_some_and(|other| other.len() + left <= BLOCK_IDS * 3 / 4);
        if left == 0 {
            self.order.remove(place.block);
        } else if fits(place.block + 1) {
            let upper = self.order.remove(place.block + 1);
            self.order[place.block].extend(upper);
        }
    }

    fn close_holes(&mut self) {
        let mut texts = String::with_capacity(self.texts.len() - self.holes);
        for slot in &mut self.slots {
            let (at, end) = (slot.at as usize, slot.at as usize + usize::from(slot.length));
            slot.at = texts.len() as u32;
            texts.push_str(&self.texts[at..end]);
        }
        (self.texts, self.holes) = (texts, 0);
    }
}

fn make_room_for(texts: &mut String, length: usize) {
    if texts.capacity() - texts.len() < length {
        texts.reserve_exact(length + texts.len() / 8);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_released_text_is_forgotten_and_its_id_reused() {
        let mut words: Dictionary<u8> = Dictionary::default();
        let id = words.intern("alpha");
        *words.at(id) = 7;
        assert_eq!((words.intern("alpha"), words.find("alpha")), (id, Some(&7)));
        words.release(id);
        assert_eq!((words.find("alpha"), words.len()), (None, 0));
        assert_eq!((words.intern("beta"), words.find("beta")), (id, Some(&0)));
    }

    #[test]
    fn of_texts_that_went_little_is_left() {
        let mut words: Dictionary<u8> = Dictionary::default();
        let text = |at: u64| format!("{:08x}", at * 2_654_435_761);
        let ids: Vec<u32> = (0..50_000).map(|at| words.intern(&text(at))).collect();
        ids.iter().filter(|id| *id % 500 > 0).for_each(|id| words.release(*id));
        let renumbered = words.renumber().unwrap();
        assert_eq!((words.len(), words.renumber()), (100, None));
        for at in (0..50_000).step_by(500) {
            let id = renumbered[ids[at as usize] as usize];
            assert_eq!(words.intern(&text(at)), id);
            assert_eq!(words.text(id), text(at));
        }
        assert!(words.texts.capacity() <= 800 + 2 * HOLES_MAX, "{} bytes of texts", words.texts.capacity());
        let places: usize = words.order.iter().map(Vec::capacity).sum();
        assert!(places <= 400, "{places} places of the order");
        let slots = words.slots.capacity() + words.free.capacity();
        assert!(slots <= 200, "{slots} slots");
    }

    fn check(words: &Dictionary<u32>, model: &BTreeMap<String, (u32, u32)>) -> Result<(), TestCaseError> {
        prop_assert_eq!(words.len(), model.len());
        for (text, (id, number)) in model {
            prop_assert_eq!((words.text(*id), words.find(text)), (text.as_str(), Some(number)));
        }
        prop_assert!(words.order.iter().all(|ids| (1..=BLOCK_IDS).contains(&ids.len())));
        let ordered: Vec<&str> = words.order.iter().flatten().map(|id| words.text(*id)).collect();
        prop_assert!(ordered.is_sorted_by(|a, b| a < b));
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn a_dictionary_is_a_map_whatever_comes_and_goes(
            steps in prop::collection::vec((0..6000u32, 0..5u8), 0..9000), ascending in any::<bool>(),
        ) {
            let (mut words, mut model) = (Dictionary::<u32>::default(), BTreeMap::new());
            if ascending {
                for at in 0..2000 {
                    let text = format!("w{at:04}");
                    model.insert(text.clone(), (words.intern(&text), 0));
                }
            }
            for (number, step) in steps {
                let text = format!("w{number:04}");
                if step == 0 {
                    if let Some((id, _)) = model.remove(&text) {
                        words.release(id);
                        prop_assert_eq!(words.text(id), "");
                    }
                } else {
                    let id = words.intern(&text);
                    *words.at(id) = number;
                    let before = model.insert(text, (id, number));
                    prop_assert!(before.is_none_or(|(before, _)| before == id));
                }
            }
            check(&words, &model)?;
            let mut at = 0;
            model.retain(|_, (id, _)| {
                at += 1;
                let stays = at % 20 == 0;
                if !stays { words.release(*id); }
                stays
            });
            check(&words, &model)?;
        }
    }
}
