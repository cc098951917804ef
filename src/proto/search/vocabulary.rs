//! The words of an index. Finding the id of a word means stemming it and walking a tree of all words; as texts repeat
//! few words often, those met lately are remembered as they stood in the text.
//!
//! The memory changes no answer: it is checked against the dictionary at each use. It holds two words a place, so that
//! words chosen to collide cost no more than words not remembered.

use std::borrow::Cow;

use super::absorb::place as place_of;
use super::dictionary::Dictionary;
use super::meaning::{Sum, table};
use super::postings::Postings;
use super::slips::{Slipped, letters};
use super::token;

/// Words that a slipped one may stand for; a crowd that makes up more is not looked at.
const NEAR_MAX: usize = 64;

/// Longest word that is remembered, bytes; few are longer.
const REMEMBERED_BYTES_MAX: usize = 16;
/// Bytes of a stem that its word does not have there, at most: English stems end with an `i`, `ie`, `ate`.
const ENDING_BYTES_MAX: usize = 3;
/// Words remembered, at most: 384 KiB, which fits the second-level cache; texts draw most words from fewer.
const REMEMBERED_MAX: usize = 16_384;
/// Words remembered at first; a simulation has thousands of small indexes.
const REMEMBERED_MIN: usize = 64;
/// Spreads words over the places: 2^64 divided by the golden ratio, the usual factor of multiplicative hashing.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// All words, by stem, each with its postings.
#[derive(Debug)]
pub(super) struct Vocabulary {
    pub(super) stems: Dictionary<Postings>,
    recent: Vec<Recent>,
}

/// A word met lately. Its stem tells whether the id was given to another since. In numbers of eight bytes: a larger one would
/// leave eight more empty.
#[derive(Clone, Copy, Debug, Default)]
struct Recent {
    word: [u64; 2],
    id: u32,
    ending: Ending,
}

/// How a stem follows from its word: so many bytes of the word stay, and others come behind them; 0 stand for none.
#[derive(Clone, Copy, Debug, Default)]
struct Ending {
    stays: u8,
    behind: [u8; ENDING_BYTES_MAX],
}

impl Vocabulary {
    pub(super) fn new() -> Vocabulary {
        Vocabulary { stems: Dictionary::default(), recent: Vec::new() }
    }

    /// The id of a folded word that is not stemmed yet.
    pub(super) fn intern_unstemmed(&mut self, word: &str) -> u32 {
        let Some(packed) = pack(word) else { return self.intern(&token::stem(word)) };
        if self.recent.is_empty() {
            self.recent = vec![Recent::default(); REMEMBERED_MIN];
        }
        if let Some(id) = self.remembered(packed) {
            return id;
        }
        let stem = token::stem(word);
        let id = self.intern(&stem);
        if let Some(ending) = Ending::of(word, &stem) {
            let place = place(packed, self.recent.len());
            // Of the two that may stand here the one goes that came first.
            self.recent[place + 1] = self.recent[place];
            self.recent[place] = Recent { word: halves(packed), id, ending };
        }
        self.grow_memory();
        id
    }

    /// The stem of a folded word.
    pub(super) fn stem<'a>(&'a self, word: &'a str) -> Cow<'a, str> {
        match pack(word).and_then(|packed| self.remembered(packed)) {
            Some(id) => self.stems.text(id).into(),
            None => token::stem(word),
        }
    }

    /// The id of a word, if it is remembered and its stem still has that id.
    fn remembered(&self, packed: u128) -> Option<u32> {
        let place = place(packed, self.recent.len());
        let two = self.recent.get(place..place + 2)?;
        let recent = two.iter().find(|recent| recent.word == halves(packed))?;
        let stem = recent.ending.stem(packed);
        (pack(self.stems.text(recent.id)) == Some(stem)).then_some(recent.id)
    }

    /// The id of a stem; a new one is marked with its place in the table of meanings, so that it is looked up once.
    fn intern(&mut self, stem: &str) -> u32 {
        let words = self.stems.len();
        let id = self.stems.intern(stem);
        if self.stems.len() > words
            && let Some(number) = table().number(stem)
            && let Ok(mark) = u16::try_from(number + 1)
        {
            self.stems.mark(id, mark);
        }
        id
    }

    /// Takes in the words of another index, whose entries have other ids here; the new id of each word by the old one.
    pub(super) fn absorb(&mut self, mut other: Vocabulary, places: &[u32]) -> Vec<u32> {
        let mut ids = vec![u32::MAX; other.stems.ids_end()];
        // In the order of stems: the places where they go here are then near each other.
        for old in other.stems.sorted_ids() {
            let postings = std::mem::take(other.stems.at(old));
            let mut taken =
                postings.iter().filter_map(|it| Some((place_of(places, it.entry_id)?, it.impact)));
            let Some((entry_id, impact)) = taken.next() else { continue };
            let id = self.intern(other.stems.text(old));
            let here = self.stems.at(id);
            here.put(entry_id, impact);
            taken.for_each(|(entry_id, impact)| here.put(entry_id, impact));
            ids[old as usize] = id;
        }
        ids
    }

    /// The entries that have a stem.
    pub(super) fn find(&self, stem: &str) -> Option<&Postings> {
        self.stems.find(stem)
    }

    /// Adds what a word means to the meaning of a text that has it so many times.
    pub(super) fn add_meaning(&self, id: u32, times: usize, sum: &mut Sum) {
        if let Some(number) = self.stems.marked(id).checked_sub(1) {
            sum.add(usize::from(number), times as i32);
        }
    }

    /// The words with the first letter of a slipped one that are few slips away, the nearest first: [`NEAR_MAX`] at most.
    pub(super) fn near(&self, slipped: &Slipped<'_>) -> Vec<(usize, &str)> {
        let alike = self.stems.begun_by(slipped.first_letter());
        let slips = |text: &str| slipped.from(letters(text), || text).filter(|slips| *slips > 0);
        let mut near: Vec<(usize, &str)> = alike.filter_map(|text| Some((slips(text)?, text))).collect();
        near.sort_unstable();
        near.truncate(NEAR_MAX);
        near
    }

    /// As [`Dictionary::renumber`].
    pub(super) fn renumber(&mut self) -> Option<Vec<u32>> {
        let ids = self.stems.renumber()?;
        self.recent.fill(Recent::default());
        Some(ids)
    }

    /// Keeps the memory as large as the vocabulary, within its limits. It starts empty: it fills by itself.
    fn grow_memory(&mut self) {
        let size = self.recent.len();
        if size < REMEMBERED_MAX && size < self.stems.len() {
            self.recent = vec![Recent::default(); 2 * size];
        }
    }
}

impl Ending {
    /// None where the two are less alike.
    fn of(word: &str, stem: &str) -> Option<Ending> {
        let stays = word.bytes().zip(stem.bytes()).take_while(|(one, other)| one == other).count();
        let mut behind = [0; ENDING_BYTES_MAX];
        behind.get_mut(..stem.len() - stays)?.copy_from_slice(&stem.as_bytes()[stays..]);
        Some(Ending { stays: stays as u8, behind })
    }

    /// The stem of a word, both as numbers.
    fn stem(self, word: u128) -> u128 {
        let bits = 8 * u32::from(self.stays);
        let [a, b, c] = self.behind;
        // Of a word of the greatest length nothing is cut off, and what would stand behind it is no part of the number.
        let left = word & !u128::MAX.checked_shl(bits).unwrap_or(0);
        left | u128::from(u32::from_le_bytes([a, b, c, 0])).checked_shl(bits).unwrap_or(0)
    }
}

/// A short word as a number. Words have no zero bytes, so no two are equal.
fn pack(word: &str) -> Option<u128> {
    let mut bytes = [0; REMEMBERED_BYTES_MAX];
    bytes.get_mut(..word.len())?.copy_from_slice(word.as_bytes());
    Some(u128::from_le_bytes(bytes))
}

fn halves(packed: u128) -> [u64; 2] {
    [packed as u64, (packed >> 64) as u64]
}

/// The first of two places of a word in a memory whose size is a power of two; of none in an empty one.
fn place(packed: u128, size: usize) -> usize {
    let mixed = (packed as u64).wrapping_mul(SPREAD) ^ ((packed >> 64) as u64);
    let bits = size.checked_ilog2().unwrap_or(1);
    (mixed.wrapping_mul(SPREAD) >> (64 - bits)) as usize & !1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_stem_is_made_of_its_word_again(word in "[a-z]{1,12}(ational|fulness|ogi|ies|ying|ed|ly|e|y|s)?") {
            let stem = token::stem(&word);
            if let (Some(packed), Some(ending)) = (pack(&word), Ending::of(&word, &stem)) {
                prop_assert_eq!(Some(ending.stem(packed)), pack(&stem));
                let mut words = Vocabulary::new();
                let id = words.intern_unstemmed(&word);
                prop_assert_eq!(words.remembered(packed), Some(id));
                prop_assert_eq!(words.stem(&word), stem);
            }
        }

        #[test]
        fn a_remembered_word_has_the_id_the_dictionary_gives(
            steps in prop::collection::vec(("[abé]{1,3}(ing|s)?|[a-c]{17}", any::<bool>()), 0..300),
        ) {
            let mut words = Vocabulary::new();
            for (word, keep) in steps {
                let id = words.intern_unstemmed(&word);
                prop_assert_eq!(words.stems.text(id), &*token::stem(&word));
                prop_assert_eq!(words.stem(&word), token::stem(&word));
                if !keep { words.stems.release(id); }
            }
        }
    }
}
