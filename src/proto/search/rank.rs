//! How well an entry answers a question.
//!
//! A score is what the words of the question are worth in the entry, plus what the meaning of one is worth beside the other.
//! The first is BM25 over fields, weighed by how rare each word is, as a share of the weight of all words, and halved towards
//! none of the words. A field gives half of its weight for having the word and the other half by BM25's saturating count.
//!
//! Lengths are compared with a fixed typical length, rarities are those of the table of meanings, and what a word that nobody
//! knows may stand for is judged by question and entry alone: an entry has one score on every node, and answers of several
//! are merged by sorting them. All of it is integers or single operations on floats in a fixed order.

use std::collections::BinaryHeap;

use roaring::RoaringBitmap;

use super::meaning::{ONE, Vector};
use super::postings::{BLOCK_ENTRIES, Posting, Postings};

/// Where a word stands in an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Field {
    Name,
    Labels,
    Description,
}

/// What a field counts for: its weight, and its typical length in words.
const FIELDS: [(Field, f32, f32); 3] =
    [(Field::Name, 1.5, 3.0), (Field::Labels, 1.2, 8.0), (Field::Description, 1.0, 40.0)];
/// BM25's `k1`: how soon repetition stops counting. The usual value.
const SATURATION: f32 = 1.2;
/// BM25's `b`: how much a long field dilutes a word. The usual value.
const DILUTION: f32 = 0.75;
/// What equal meaning counts. Having every word in a description counts about 1.
const MEANING: f32 = 1.5;
/// Nearness from which on an entry without any word of the question is found: three tenths.
const MEANING_MIN: i32 = ONE * 3 / 10 + 1;
/// Entries that are looked at together whether anything of them is found.
const STRETCH: usize = 32;
/// Scores are whole multiples of one part in so many.
const SCORE_STEPS: f32 = 65_536.0;

/// Words counted in each field, by [`Field`].
pub(super) type Counts = [u16; 3];

/// How much the length of each field of an entry dilutes a word in it.
pub(super) struct Lengths([f32; 3]);

impl Lengths {
    /// Of fields of so many words.
    pub(super) fn of(words: Counts) -> Lengths {
        Lengths(FIELDS.map(|(field, _, typical)| {
            let length = f32::from(words[field as usize]);
            SATURATION * (1.0 - DILUTION + DILUTION * length / typical)
        }))
    }
}

/// How well a word describes an entry, above 0, from how often its fields have it and their lengths.
pub(super) fn impact(counts: Counts, lengths: &Lengths) -> f32 {
    let of_field = |(field, weight, _): (Field, f32, f32)| {
        let count = f32::from(counts[field as usize]);
        let norm = lengths.0[field as usize];
        // Having the word at all is half of its worth: repeating it in a description must not beat a name.
        if count == 0.0 { 0.0 } else { weight * (0.5 + 0.5 * count / (count + norm)) }
    };
    FIELDS.map(of_field).iter().sum()
}

/// The score of an entry; none of one that is not found. `gained` is the sum of what the words that it has are worth, of
/// `terms` that weigh `weight` together.
pub(super) fn score(gained: f32, had: u8, terms: &Weights, nearness: i32) -> Option<f32> {
    if had == 0 && nearness < MEANING_MIN {
        return None;
    }
    let words = match had {
        0 => 0.0,
        _ => gained / terms.weight * (1.0 + f32::from(had) / terms.count) / 2.0,
    };
    let value = words + MEANING * (nearness.max(0) as f32 / ONE as f32);
    // It is not negative: what is cut off rounds down.
    Some((value * SCORE_STEPS) as u32 as f32 / SCORE_STEPS)
}

/// The words of a question together.
pub(super) struct Weights {
    /// Their number.
    pub(super) count: f32,
    /// The sum of their weights.
    pub(super) weight: f32,
}

/// The entries that have a word of a question: those of one list, or of a pair those in both.
#[derive(Clone, Copy)]
pub(super) enum Matches<'a> {
    Word(&'a Postings),
    Pair(&'a Postings, &'a Postings),
}

impl Matches<'_> {
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

/// A word of a question with the entries that have it or what stands for it, each list with its worth.
pub(super) struct Term<'a> {
    pub(super) lists: Vec<(Matches<'a>, f32)>,
    pub(super) weight: f32,
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

impl Term<'_> {
    /// Whether an entry has it.
    pub(super) fn is_had(&self, entry_id: u32) -> bool {
        self.lists.iter().any(|(matches, _)| match matches {
            Matches::Word(list) => list.has(entry_id),
            Matches::Pair(first, second) => first.has(entry_id) && second.has(entry_id),
        })
    }
}

/// What is scored.
pub(super) struct Scored<'a> {
    pub(super) terms: &'a [Term<'a>],
    pub(super) weights: &'a Weights,
    pub(super) meaning: &'a Vector,
    /// The meaning of each entry, by its id.
    pub(super) meanings: &'a [Vector],
    /// Which ids, if not all.
    pub(super) only: Option<&'a RoaringBitmap>,
}

/// Gives each entry that is found, with its score.
pub(super) fn score_all(scored: &Scored<'_>, take: &mut impl FnMut(u32, f32)) {
    let mut tally = Tally::new();
    // Block by block for all words: the scores of a block stay in the cache, and their array is of fixed size.
    for (number, meanings) in scored.meanings.chunks(BLOCK_ENTRIES).enumerate() {
        let start = (number * BLOCK_ENTRIES) as u32;
        scored.terms.iter().for_each(|term| tally.add(term, number));
        let mut give = |tally: &Tally, offset: usize, nearness: i32| {
            if let Some(score) = score(tally.gained[offset], tally.had[offset], scored.weights, nearness) {
                take(start + offset as u32, score);
            }
        };
        match scored.only {
            None => {
                scored.meaning.each_nearness(meanings, &mut tally.nearness);
                // Of most stretches nothing is found.
                let stretches = tally.nearness.chunks(STRETCH).zip(tally.had.chunks(STRETCH)).enumerate();
                for (stretch, (nearness, had)) in stretches {
                    let is_near = nearness.iter().fold(i32::MIN, |most, it| most.max(*it)) >= MEANING_MIN;
                    if is_near || had.iter().fold(0, |any, had| any | had) > 0 {
                        let offsets = (stretch * STRETCH..).zip(nearness);
                        offsets.for_each(|(offset, nearness)| give(&tally, offset, *nearness));
                    }
                }
            }
            Some(only) => {
                let allowed = only.range(start..start + BLOCK_ENTRIES as u32);
                for offset in allowed.map(|entry_id| (entry_id - start) as usize) {
                    give(&tally, offset, scored.meaning.nearness(&meanings[offset]));
                }
            }
        }
        tally.clear();
    }
}

/// What the entries of one block have gained.
struct Tally {
    gained: Box<[f32; BLOCK_ENTRIES]>,
    had: Box<[u8; BLOCK_ENTRIES]>,
    /// The best of the lists of one term.
    best: Box<[f32; BLOCK_ENTRIES]>,
    touched: Vec<u32>,
    nearness: Vec<i32>,
}

impl Tally {
    fn new() -> Tally {
        Tally {
            gained: Box::new([0.0; BLOCK_ENTRIES]),
            had: Box::new([0; BLOCK_ENTRIES]),
            best: Box::new([0.0; BLOCK_ENTRIES]),
            touched: Vec::new(),
            nearness: Vec::new(),
        }
    }

    fn add(&mut self, term: &Term<'_>, number: usize) {
        let Tally { gained, had, best, touched, .. } = self;
        if let [(matches, worth)] = &term.lists[..] {
            let weight = term.weight * worth;
            return matches.each_of_block(number, |Posting { entry_id, impact }| {
                let offset = entry_id as usize % BLOCK_ENTRIES;
                gained[offset] += weight * impact;
                had[offset] += 1;
            });
        }
        for (matches, worth) in &term.lists {
            matches.each_of_block(number, |Posting { entry_id, impact }| {
                let offset = entry_id as usize % BLOCK_ENTRIES;
                if best[offset] == 0.0 {
                    touched.push(offset as u32);
                }
                best[offset] = best[offset].max(term.weight * worth * impact);
            });
        }
        for offset in touched.drain(..) {
            let offset = offset as usize % BLOCK_ENTRIES;
            gained[offset] += std::mem::take(&mut best[offset]);
            had[offset] += 1;
        }
    }

    fn clear(&mut self) {
        self.gained.fill(0.0);
        self.had.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn repeating_a_word_in_a_description_does_not_beat_a_name() {
        let once = |field: Field| {
            let mut counts = [0; 3];
            counts[field as usize] = 1;
            impact(counts, &Lengths::of([3, 8, 40]))
        };
        assert!(once(Field::Name) > once(Field::Labels) && once(Field::Labels) > once(Field::Description));
        assert!(impact([0, 0, 500], &Lengths::of([0, 0, 500])) < once(Field::Name));
        assert!(impact([0, 0, 1], &Lengths::of([0, 0, u16::MAX])) > 0.0);
    }

    #[test]
    fn an_entry_without_a_word_is_found_from_three_tenths_of_the_meaning_on() {
        let weights = Weights { count: 2.0, weight: 20.0 };
        let near = |tenths: f32| (tenths / 10.0 * ONE as f32) as i32;
        assert_eq!(score(0.0, 0, &weights, near(2.9)), None);
        assert!(score(0.0, 0, &weights, near(3.1)).is_some());
        assert!(score(10.0, 1, &weights, -500).is_some(), "what is opposed takes nothing away");
        assert!(score(20.0, 2, &weights, 0) > score(10.0, 1, &weights, 0).map(|one| 2.0 * one));
    }
}
