//! A question as it is ranked: made of its text and of the table of meanings alone, so that a record has one score on every
//! node, whatever else that node holds.

use std::collections::{BTreeMap, BTreeSet};

use super::meaning::{ONE, RARITY_UNKNOWN, Sum, Vector, table};
use super::slips::{Slipped, letters};
use super::{Entry, Index, QUERY_BYTES_MAX, QUERY_WORDS_MAX, Why, token};
use crate::proto::limits::LABELS_MAX;

/// From this rarity on a word of the table may be a slip of another: among texts on agents it stood in two at most.
const RARITY_RARE: f32 = 14.0;
/// Words of a question that may be slips of others: each is compared with all words of an index that begin alike.
const CORRECTED_MAX: usize = 4;
/// Words of the table that one such word may stand for.
const MEANT_MAX: usize = 2;
/// Fewest letters of a word that another begins with.
const PREFIX_MIN: usize = 5;
/// Fewest letters of either half of a word that is two written together.
const HALF_MIN: usize = 4;
/// What a word is worth that stands for the asked one: as it stands there, with one slip, with two.
pub(super) const AS_ASKED: f32 = 1.0;
pub(super) const ONE_SLIP: f32 = 0.8;
const TWO_SLIPS: f32 = 0.6;
/// How often a word of the question counts in its meaning; a corrected one by its worth.
const MEANING_TIMES: f32 = 10.0;

/// A question.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The words that decide, in their order.
    pub(super) terms: Vec<Term>,
    /// Function and request words, where there are no others: they count where they are a name.
    pub(super) idle: Vec<String>,
    /// What all of it means.
    pub(super) meaning: Vector,
}

/// A word that decides, as it is stemmed, or a pair of letters.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Term {
    pub(super) word: String,
    /// As it stands in the question, folded.
    unstemmed: String,
    /// How much it decides: its rarity, powers of two.
    pub(super) weight: f32,
    /// It and a neighbour written together: who has that has both.
    pub(super) joined: Vec<String>,
    /// Words of the table that it may stand for if few know it, each with its worth.
    pub(super) others: Vec<(String, f32)>,
    /// Whether words few slips away stand for it.
    pub(super) is_rare: bool,
}

impl Asked {
    /// Reads a text, of which [`QUERY_BYTES_MAX`] bytes and [`QUERY_WORDS_MAX`] words count.
    pub fn of(text: &str) -> Asked {
        let words = words_asked(text);
        let stems: Vec<String> = words.iter().map(|word| token::stem(word).into_owned()).collect();
        let mut asked = Asked { terms: Vec::new(), idle: Vec::new(), meaning: Vector::NONE };
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        let mut corrected = 0;
        for (word, stem) in words.iter().zip(&stems) {
            if token::is_idle(stem) || places.contains_key(&**stem) {
                continue;
            }
            // The first words count: people put what they want first, and what follows is mostly detail.
            if asked.terms.len() == QUERY_WORDS_MAX {
                break;
            }
            places.insert(stem, asked.terms.len());
            asked.terms.push(Term::of(word, stem, &mut corrected));
        }
        let mut whole: Vec<String> = Vec::new();
        for (words, stems) in words.windows(2).zip(stems.windows(2)) {
            let Some(joined) = joined(words, stems) else { continue };
            for place in stems.iter().filter_map(|stem| places.get(&**stem)) {
                asked.terms[*place].joined.push(joined.clone());
            }
            whole.push(joined);
        }
        asked.meaning = asked.meant(whole);
        if asked.terms.is_empty() {
            asked.idle = stems;
            asked.idle.sort();
            asked.idle.dedup();
            asked.idle.truncate(QUERY_WORDS_MAX);
        }
        asked
    }

    /// What two questions have in common that find the same, whatever their spelling.
    pub(in crate::proto) fn sense(&self) -> String {
        let words = self.terms.iter().flat_map(|term| std::iter::once(&term.word).chain(&term.joined));
        let words: Vec<&str> = words.chain(&self.idle).map(String::as_str).collect();
        words.join(" ")
    }

    /// Why an entry answers it.
    pub fn why(&self, entry: &Entry<'_>) -> Why {
        let mut index = Index::new();
        index.insert(*entry);
        let nearness = index.meanings.first().map_or(0, |meaning| meaning.nearness(&self.meaning));
        Why { words: self.found_in(entry), meaning: nearness.max(0) as f32 / ONE as f32 }
    }

    /// Whether a text has a word of it, or one that stands for such. A question that decides nothing is in every text.
    pub fn is_in(&self, text: &str) -> bool {
        let mut words: BTreeSet<String> = BTreeSet::new();
        token::each_word(text, |word| {
            words.insert(word.to_owned());
        });
        let has = |term: &Term| match token::pair(&term.word) {
            Some((first, second)) => words.contains(first) && words.contains(second),
            None => words.iter().any(|word| term.worth_of(word).is_some()),
        };
        self.terms.is_empty() || self.terms.iter().any(has)
    }

    /// How much speaks for a text that stands for many, as the name of a zone does: a word of the question in it, then how near
    /// its meaning is.
    pub(in crate::proto) fn evidence(&self, text: &str) -> i32 {
        let mut sum = Sum::new();
        token::each_word(text, |word| {
            if let Some(number) = table().number(word) {
                sum.add(number, 1);
            }
        });
        let word = if !self.terms.is_empty() && self.is_in(text) { ONE } else { 0 };
        word + sum.vector().nearness(&self.meaning).max(0)
    }

    /// Words of the question that an entry has, each as it stands in the question and as the entry has it: the best there is.
    fn found_in(&self, entry: &Entry<'_>) -> Vec<(String, String)> {
        let labels = entry.tags.iter().take(LABELS_MAX).chain(entry.capabilities.iter().take(LABELS_MAX));
        let labels = labels.map(String::as_str);
        let texts = [entry.title, entry.original_name, entry.skills].into_iter().flatten();
        let texts = texts.chain([entry.name.agent.as_str(), entry.description]).chain(labels);
        let mut words: BTreeMap<String, String> = BTreeMap::new();
        for text in texts {
            let mut add = |word: &str| {
                words.entry(token::stem(word).into_owned()).or_insert_with(|| word.to_owned());
            };
            token::each_unstemmed(text, &mut add);
            token::each_part(text, &mut add);
        }
        let found_for = |term: &Term| {
            if let Some((first, second)) = token::pair(&term.word) {
                let has_both = words.contains_key(first) && words.contains_key(second);
                return has_both.then(|| (term.unstemmed.clone(), term.word.clone()));
            }
            let worth = words.iter().filter_map(|(stem, word)| Some((term.worth_of(stem)?, word)));
            let best =
                worth.max_by(|one, other| one.0.total_cmp(&other.0).then_with(|| other.1.cmp(one.1)))?;
            Some((term.unstemmed.clone(), best.1.clone()))
        };
        self.terms.iter().filter_map(found_for).collect()
    }

    fn meant(&self, joined: Vec<String>) -> Vector {
        let mut sum = Sum::new();
        let mut add = |word: &str, times: f32| {
            if let Some(number) = table().number(word) {
                sum.add(number, (times * MEANING_TIMES).round().max(1.0) as i32);
            }
        };
        for term in &self.terms {
            match table().number(&term.word) {
                Some(_) => add(&term.word, AS_ASKED),
                None => {
                    let share = 1.0 / term.others.len().max(1) as f32;
                    term.others.iter().for_each(|(word, worth)| add(word, worth * share));
                }
            }
        }
        if !self.terms.is_empty() {
            joined.iter().for_each(|word| add(word, AS_ASKED));
        }
        sum.vector()
    }
}

/// The words of a question in their order, folded: parts in the place of words in camelCase, pairs of letters where there are
/// no spaces.
///
/// Cut before it is read: the cost of splitting a text into words must not follow what a stranger sends.
fn words_asked(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    token::each_asked(&text[..text.floor_char_boundary(QUERY_BYTES_MAX)], |word| {
        if words.len() < 2 * QUERY_WORDS_MAX {
            words.push(word.to_owned());
        }
    });
    words
}

/// Two neighbours written together. With a word that decides nothing only what is known to be one: `you tube`, and no `the text`.
fn joined(words: &[String], stems: &[String]) -> Option<String> {
    let word = words.concat();
    if !word.is_ascii() || word.len() > token::WORD_BYTES_MAX || stems[0] == stems[1] {
        return None;
    }
    let joined = token::stem(&word).into_owned();
    let is_known = || table().number(&joined).is_some();
    (!stems.iter().any(|stem| token::is_idle(stem)) || is_known()).then_some(joined)
}

impl Term {
    fn of(word: &str, stem: &str, corrected: &mut usize) -> Term {
        let number = table().number(stem);
        let weight = number.map_or(RARITY_UNKNOWN, |number| table().rarity(number));
        let is_letters = token::pair(stem).is_some() || token::is_letter(stem);
        let is_rare = weight >= RARITY_RARE && !is_letters && *corrected < CORRECTED_MAX;
        *corrected += usize::from(is_rare);
        let others = if is_rare { stood_for(word, stem) } else { Vec::new() };
        Term {
            word: stem.to_owned(),
            unstemmed: word.to_owned(),
            weight,
            joined: Vec::new(),
            others,
            is_rare,
        }
    }

    /// What a stem of a record is worth: none if it is another word.
    pub(super) fn worth_of(&self, stem: &str) -> Option<f32> {
        if self.word == stem || self.joined.iter().any(|joined| joined == stem) {
            return Some(AS_ASKED);
        }
        // Who slips at the first letter of a name that no table knows is not helped: all words of an index would be compared.
        let slipped = if self.is_rare { Slipped::new(&self.word) } else { None };
        let slipped = slipped.filter(|it| stem.starts_with(it.first_letter()));
        let slips =
            slipped.and_then(|slipped| slipped.from(letters(stem), || stem)).filter(|slips| *slips > 0);
        let begun = || (self.is_rare && prefixes(&self.word).any(|begin| begin == stem)).then_some(ONE_SLIP);
        let other = || self.others.iter().find(|(word, _)| word == stem).map(|(_, worth)| *worth);
        slips.map(Term::worth).or_else(begun).or_else(other)
    }

    /// What a word of a record is worth that is so many slips away.
    pub(super) fn worth(slips: usize) -> f32 {
        match slips {
            0 => AS_ASKED,
            1 => ONE_SLIP,
            _ => TWO_SLIPS,
        }
    }
}

/// Words of the table that a rare one may stand for: few slips away, and the longest that it begins with; its halves where
/// there are none.
fn stood_for(word: &str, stem: &str) -> Vec<(String, f32)> {
    let mut others = few_slips_away(stem);
    let is_common =
        |begin: &&str| table().number(begin).is_some_and(|number| table().rarity(number) < RARITY_RARE);
    let begin = prefixes(stem).find(is_common).map(|begin| vec![begin.to_owned()]);
    let is_known = !others.is_empty() || begin.is_some() || table().number(stem).is_some();
    let more = begin.or_else(|| halves(word).filter(|_| !is_known)).unwrap_or_default();
    for word in more {
        if others.iter().all(|(known, _)| *known != word) {
            others.push((word, ONE_SLIP));
        }
    }
    others
}

/// What a word begins with, the longest first: it may have an ending that the stemmer does not know.
pub(super) fn prefixes(stem: &str) -> impl Iterator<Item = &str> {
    let shortest = stem.char_indices().nth(PREFIX_MIN).map_or(stem.len(), |(end, _)| end);
    (shortest..stem.len()).rev().filter(|end| stem.is_char_boundary(*end)).map(|end| &stem[..end])
}

/// The words of the table nearest to a slipped one: those with its first letter, and one slip away if there are none.
fn few_slips_away(stem: &str) -> Vec<(String, f32)> {
    let Some(slipped) = Slipped::new(stem) else { return Vec::new() };
    let near = |slipped: &Slipped<'_>, numbers: std::ops::Range<usize>| -> Vec<(usize, f32, usize)> {
        let slips = |number| slipped.from(table().letters()[number], || table().word(number));
        numbers.filter_map(|number| Some((slips(number)?, table().rarity(number), number))).collect()
    };
    let alike = table().begun_by(slipped.first_letter());
    let mut found = near(&slipped, alike);
    if found.is_empty() {
        found = near(&slipped.by_one(), 0..table().len());
    }
    found.sort_by(|one, other| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)).then(one.2.cmp(&other.2)));
    let least = found.first().map_or(0, |(slips, ..)| *slips);
    let best = found.into_iter().filter(|(slips, ..)| *slips == least && least > 0).take(MEANT_MAX);
    best.map(|(slips, _, number)| (table().word(number).to_owned(), Term::worth(slips))).collect()
}

/// Two words written together: where the rarer half is the most common.
fn halves(word: &str) -> Option<Vec<String>> {
    let ends = word.char_indices().map(|(end, _)| end).skip(HALF_MIN);
    let known = ends.filter(|end| word[*end..].chars().nth(HALF_MIN - 1).is_some()).filter_map(|end| {
        let halves: Vec<String> =
            [&word[..end], &word[end..]].iter().map(|half| token::stem(half).into_owned()).collect();
        let rarities: Option<Vec<f32>> =
            halves.iter().map(|half| Some(table().rarity(table().number(half)?))).collect();
        Some((rarities?.into_iter().fold(0.0, f32::max), halves))
    });
    known.min_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, halves)| halves)
}
