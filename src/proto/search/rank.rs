//! How well an entry answers a query.
//!
//! The score of a hit is the number of distinct query words it has, plus a fraction below 1 that says how well it has
//! them. So more of the words is always better, and one number orders hits, also those of several nodes. Function
//! words ("the", "for") are left out of a query that has others: a record that has all of a sentence but its subject is
//! no answer.
//!
//! The fraction is BM25 over fields, weighed by how rare each word is, and divided by the best a query can get. A field
//! gives half of its weight for having the word and the other half by BM25's saturating count; the weights are such
//! that for one word a name always beats labels, and labels always beat a description, however often it is repeated
//! there. Lengths are compared with a fixed typical length, not with the present mean: an entry's impact is then known
//! when it is inserted, and equal on all nodes.

use std::collections::{BTreeSet, BinaryHeap};

use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};

use super::QUERY_WORDS_MAX;
use super::postings::{BLOCK_ENTRIES, Posting, Postings};
use super::token;
use crate::proto::codec;

/// Where a word stands in an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Field {
    Name,
    Labels,
    Description,
}

/// What a field counts for: its weight, and its typical length in words. Half a weight is more than the weights of
/// all lesser fields together.
const FIELDS: [(Field, f32, f32); 3] =
    [(Field::Name, 8.0, 3.0), (Field::Labels, 2.5, 8.0), (Field::Description, 1.0, 40.0)];
/// Above the sum of the weights, so that the fraction stays below 1 in spite of rounding.
const WEIGHTS: f32 = 11.6;
/// BM25's `k1`: how soon repetition stops counting. The usual value.
const SATURATION: f32 = 1.2;
/// BM25's `b`: how much a long field dilutes a word. The usual value.
const DILUTION: f32 = 0.75;

/// Words counted in each field, by [`Field`].
pub(super) type Counts = [u16; 3];

/// How well a word describes an entry, above 0 and below 1, from how often its fields have it and their lengths.
pub(super) fn impact(counts: Counts, lengths: Counts) -> f32 {
    let of_field = |(field, weight, typical): (Field, f32, f32)| {
        let count = f32::from(counts[field as usize]);
        let length = f32::from(lengths[field as usize]);
        let norm = SATURATION * (1.0 - DILUTION + DILUTION * length / typical);
        // Having the word at all is half of its worth: repeating it in a description must not beat a name.
        if count == 0.0 { 0.0 } else { weight * (0.5 + 0.5 * count / (count + norm)) }
    };
    FIELDS.map(of_field).iter().sum::<f32>() / WEIGHTS
}

/// What the rarity of query words was judged by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Entries in the index.
    #[serde(rename = "n")]
    pub entries: u32,
    /// For each word, entries that have it.
    #[serde(rename = "f", deserialize_with = "codec::at_most::<QUERY_WORDS_MAX, _, _>")]
    pub found: Vec<u32>,
}

impl Statistics {
    /// The weight of each word; together they are 1.
    pub(super) fn weights(&self) -> Vec<f32> {
        let rarities: Vec<f32> = self.found.iter().map(|found| rarity(*found, self.entries)).collect();
        let sum: f32 = rarities.iter().sum();
        rarities.into_iter().map(|rarity| rarity / sum).collect()
    }
}

/// BM25's inverse document frequency, above 0. The logarithm is read from the bits of the number, linear between
/// powers of two: close enough, and unlike a library's logarithm the same on every platform.
fn rarity(found: u32, entries: u32) -> f32 {
    let ratio = (entries as f32 + 1.0) / (found as f32 + 0.5);
    // The exponent of a float is its logarithm; the mantissa interpolates. A library's logarithm differs by platform, and
    // two nodes would rank the same records differently.
    let log2 = ratio.to_bits() as f32 / (1 << 23) as f32 - 127.0;
    // A word that nearly all have still decides between records that are equal otherwise.
    log2.max(0.01)
}

/// The distinct words of a query text in a fixed order, at most [`QUERY_WORDS_MAX`]. Function words only where there are no
/// others: somebody may look for an agent called "the".
pub(super) fn query_words(text: &str) -> Vec<String> {
    let (mut words, mut function_words) = (BTreeSet::new(), BTreeSet::new());
    token::each_asked(text, |word| {
        let words = if token::is_function_word(word) { &mut function_words } else { &mut words };
        // The first words count: people put what they want first, and what follows is mostly detail.
        if words.len() < QUERY_WORDS_MAX {
            words.insert(word.to_owned());
        }
    });
    if words.is_empty() { function_words } else { words }.into_iter().collect()
}

/// The entries that have a word of a query: those of one list, or of a pair those in both.
#[derive(Clone, Copy)]
pub(super) enum Matches<'a> {
    Word(&'a Postings),
    Pair(&'a Postings, &'a Postings),
}

impl Matches<'_> {
    /// How many there are, at most.
    pub(super) fn len(self) -> usize {
        match self {
            Matches::Word(list) => list.len(),
            Matches::Pair(first, second) => first.len().min(second.len()),
        }
    }

    /// Gives those whose ids lie in block `number`; of a pair, as well as its lesser letter.
    fn each_of_block(self, number: usize, mut take: impl FnMut(Posting)) {
        match self {
            Matches::Word(list) => list.block(number).iter().for_each(|posting| take(*posting)),
            Matches::Pair(first, second) => {
                let mut second = second.block(number).iter().peekable();
                for Posting { entry_id, impact } in first.block(number) {
                    while second.next_if(|other| other.entry_id < *entry_id).is_some() {}
                    if let Some(other) = second.next_if(|other| other.entry_id == *entry_id) {
                        take(Posting { entry_id: *entry_id, impact: impact.min(other.impact) });
                    }
                }
            }
        }
    }
}

/// A word of a query with its entries and what one of them gains by having it, beside the 1 for each.
pub(super) struct Term<'a> {
    matches: Matches<'a>,
    weight: f32,
}

/// The words of a query that some entry has; `matches` is parallel to `statistics`.
pub(super) fn terms<'a>(matches: Vec<Option<Matches<'a>>>, statistics: &Statistics) -> Vec<Term<'a>> {
    let found = matches.into_iter().zip(statistics.weights());
    found.filter_map(|(matches, weight)| Some(Term { matches: matches?, weight })).collect()
}

/// A candidate's place in an answer; less is better. From the highest bit: the score upside down (scores are not
/// negative, so their bits order them), the rank of the name, the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RankKey(u128);

impl RankKey {
    pub(super) fn new(score: f32, rank: u64, entry_id: u32) -> RankKey {
        // One integer to compare instead of three values: the heap does little else.
        RankKey(u128::from(!score.to_bits()) << 96 | u128::from(rank) << 32 | u128::from(entry_id))
    }

    pub(super) fn score(self) -> f32 {
        f32::from_bits(!((self.0 >> 96) as u32))
    }

    pub(super) fn entry_id(self) -> u32 {
        self.0 as u32
    }
}

/// The best places seen, of those behind the last page.
pub(super) struct Top {
    size: usize,
    after: RankKey,
    best: BinaryHeap<RankKey>,
    /// A place must be less than this to be kept.
    bar: RankKey,
}

impl Top {
    /// Keeps the `size` best (at least one) behind `after`, a score and a rank.
    pub(super) fn new(size: usize, after: Option<(f32, u64)>) -> Top {
        // The greatest id: everything with this score and rank belongs to the page before.
        let after = after.map_or(RankKey(0), |(score, rank)| RankKey::new(score, rank, u32::MAX));
        Top { size, after, best: BinaryHeap::with_capacity(size), bar: RankKey(u128::MAX) }
    }

    /// Whether anything of this score may still be kept: spares the look-up of its rank.
    pub(super) fn admits(&self, score: f32) -> bool {
        // Equal scores are let in: their names decide.
        score >= self.bar.score()
    }

    pub(super) fn offer(&mut self, place: RankKey) {
        if place < self.bar && place > self.after {
            self.keep(place);
        }
    }

    fn keep(&mut self, place: RankKey) {
        if self.best.len() == self.size {
            self.best.pop();
        }
        self.best.push(place);
        if self.best.len() == self.size {
            self.bar = self.best.peek().copied().unwrap_or(self.bar);
        }
    }

    pub(super) fn into_best_first(self) -> Vec<RankKey> {
        self.best.into_sorted_vec()
    }
}

/// Scores all entries that have one of the words and, where `only` is given, lie in it. `entry_ids` is one above the
/// highest id.
pub(super) fn score_all(
    terms: &[Term<'_>],
    only: Option<&RoaringBitmap>,
    entry_ids: usize,
    mut take: impl FnMut(u32, f32),
) {
    let mut tally =
        Tally { scores: Box::new([0.0; BLOCK_ENTRIES]), touched: Vec::with_capacity(BLOCK_ENTRIES) };
    let mut open = [false; BLOCK_ENTRIES];
    // Block by block for all words: the scores of a block stay in the cache, and their array is of fixed size.
    for number in 0..entry_ids.div_ceil(BLOCK_ENTRIES) {
        match only {
            None => terms.iter().for_each(|term| tally.add(term, number, |_| true)),
            Some(only) => {
                let start = (number * BLOCK_ENTRIES) as u32;
                let allowed = || {
                    only.range(start..start + BLOCK_ENTRIES as u32)
                        .map(|entry_id| (entry_id - start) as usize)
                };
                allowed().for_each(|offset| open[offset] = true);
                terms.iter().for_each(|term| tally.add(term, number, |offset| open[offset]));
                // Put back one by one: clearing the whole array would cost more than a narrow filter saves.
                allowed().for_each(|offset| open[offset] = false);
            }
        }
        tally.drain(number, &mut take);
    }
}

/// The scores of one block of ids.
struct Tally {
    scores: Box<[f32; BLOCK_ENTRIES]>,
    touched: Vec<u32>,
}

impl Tally {
    fn add(&mut self, term: &Term<'_>, number: usize, is_open: impl Fn(usize) -> bool) {
        term.matches.each_of_block(number, |Posting { entry_id, impact }| {
            let offset = entry_id as usize % BLOCK_ENTRIES;
            if is_open(offset) {
                // A score is never 0 once it was added to, so 0 means untouched.
                if self.scores[offset] == 0.0 {
                    self.touched.push(offset as u32);
                }
                self.scores[offset] += 1.0 + term.weight * impact;
            }
        });
    }

    fn drain(&mut self, number: usize, take: &mut impl FnMut(u32, f32)) {
        for offset in self.touched.drain(..) {
            let score = std::mem::take(&mut self.scores[offset as usize % BLOCK_ENTRIES]);
            take((number * BLOCK_ENTRIES) as u32 + offset, score);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_rarer_word_weighs_more_and_no_word_weighs_nothing() {
        assert!(rarity(1, 1000) > rarity(10, 1000));
        assert!(rarity(u32::MAX, u32::MAX) > 0.0 && rarity(0, 0) > 0.0);
        let sum: f32 = Statistics { entries: 9, found: vec![0, 3, 9] }.weights().iter().sum();
        assert!((sum - 1.0).abs() < 1e-5);
    }

    #[test]
    fn only_the_best_behind_the_last_page_are_kept_in_order() {
        let mut top = Top::new(2, Some((3.0, 5)));
        for (score, rank) in [(1.0, 1), (3.0, 6), (4.0, 1), (3.0, 5), (2.0, 1), (3.0, 4)] {
            top.offer(RankKey::new(score, rank, rank as u32));
        }
        let best: Vec<_> =
            top.into_best_first().iter().map(|place| (place.score(), place.entry_id())).collect();
        assert_eq!(best, [(3.0, 6), (2.0, 1)]);
    }

    proptest! {
        #[test]
        fn a_better_field_beats_all_lesser_ones_at_any_count_and_length(
            worse in (0..9999u16, 0..9999u16), better in 1..9999u16, other in 1..9999u16,
            lengths in (1..9999u16, 1..9999u16, 1..9999u16),
        ) {
            let lengths = [lengths.0, lengths.1, lengths.2];
            let lesser = impact([0, worse.0, worse.1], [other; 3]);
            prop_assert!(impact([better, 0, 0], lengths) > lesser);
            prop_assert!(impact([0, better, 0], lengths) > impact([0, 0, worse.1], [other; 3]));
            let all = impact([better, worse.0, worse.1], lengths);
            prop_assert!(0.0 < all && all < 0.995);
        }
    }
}
