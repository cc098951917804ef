//! Pages of what matches: by name, or by score and then by name.

use std::collections::{BTreeMap, BTreeSet};

use super::asked::{self, Asked};
use super::order::Key;
use super::rank::{self, Matches, RankKey, Scored, Term, Top, Weights};
use super::slips::Slipped;
use super::{Allowed, Cursor, Hit, Index, PAGE_HITS_MAX, Page, token};

impl Index {
    pub(super) fn page_by_name(&self, allowed: &Allowed, limit: usize, after: Option<&Cursor>) -> Page {
        let limit = limit.clamp(1, PAGE_HITS_MAX);
        let after = after.map(key_of);
        let best: Vec<(f32, u32)> = match allowed {
            Allowed::All => self
                .names
                .after(after.as_ref())
                // One more than asked tells whether there is a next page.
                .take(limit + 1)
                .map(|(_, entry_id)| (0.0, entry_id))
                .collect(),
            Allowed::Only(entry_ids) => {
                let mut top = Top::new(limit + 1, after.map(|key| (0.0, self.names.rank_up_to(&key))));
                entry_ids
                    .iter()
                    .for_each(|entry_id| top.offer(RankKey::new(0.0, self.names.rank(entry_id), entry_id)));
                top.into_best_first().iter().map(|place| (0.0, place.entry_id())).collect()
            }
        };
        self.page(&best, limit, |_| false)
    }

    pub(super) fn page_by_score(
        &self,
        asked: &Asked,
        allowed: &Allowed,
        limit: usize,
        after: Option<&Cursor>,
    ) -> Page {
        let limit = limit.clamp(1, PAGE_HITS_MAX);
        let start = after.map(|cursor| (cursor.score, self.names.rank_up_to(&key_of(cursor))));
        let mut top = Top::new(limit + 1, start);
        let terms = self.terms(asked);
        let mut offer = |entry_id: u32, score: f32| {
            // Ranks of names are looked up only for what can still enter: most entries that match fall below the bar.
            if top.admits(score) {
                top.offer(RankKey::new(score, self.names.rank(entry_id), entry_id));
            }
        };
        if asked.terms.is_empty() {
            self.each_called(&asked.idle, allowed, &mut offer);
        } else {
            let weight = asked.terms.iter().map(|term| term.weight).sum();
            let only = match allowed {
                Allowed::All => None,
                Allowed::Only(entry_ids) => Some(entry_ids),
            };
            let scored = Scored {
                terms: &terms,
                weights: &Weights { count: asked.terms.len() as f32, weight },
                meaning: &asked.meaning,
                meanings: &self.meanings,
                only,
            };
            rank::score_all(&scored, &mut offer);
        }
        let best: Vec<(f32, u32)> =
            top.into_best_first().iter().map(|place| (place.score(), place.entry_id())).collect();
        let is_of_words = |entry_id: u32| terms.iter().any(|term| term.is_had(entry_id));
        self.page(&best, limit, |entry_id| !terms.is_empty() && !is_of_words(entry_id))
    }

    /// Entries with names that are made of words that decide nothing, by how many of these they have.
    fn each_called(&self, idle: &[String], allowed: &Allowed, offer: &mut impl FnMut(u32, f32)) {
        let mut scores: BTreeMap<u32, f32> = BTreeMap::new();
        for entry_ids in idle.iter().filter_map(|word| self.idle_names.get(word)) {
            entry_ids.iter().for_each(|entry_id| *scores.entry(entry_id).or_default() += 1.0);
        }
        let is_allowed = |entry_id: u32| match allowed {
            Allowed::All => true,
            Allowed::Only(entry_ids) => entry_ids.contains(entry_id),
        };
        scores.into_iter().filter(|(it, _)| is_allowed(*it)).for_each(|(it, score)| offer(it, score));
    }

    /// The lists of entries that have the words of a question, or what stands for them.
    fn terms(&self, asked: &Asked) -> Vec<Term<'_>> {
        let of_term = |term: &asked::Term| {
            let mut lists: Vec<(Matches<'_>, f32)> = Vec::new();
            let mut seen: BTreeSet<&str> = BTreeSet::new();
            lists.extend(self.matches(&term.word).map(|it| (it, asked::AS_ASKED)));
            seen.insert(&term.word);
            let slipped = Slipped::new(&term.word).filter(|_| term.is_rare);
            let near = slipped.map(|slipped| self.words.near(&slipped)).unwrap_or_default();
            let alike = near.into_iter().map(|(slips, word)| (word, asked::Term::worth(slips)));
            let joined = term.joined.iter().map(|word| (&**word, asked::AS_ASKED));
            let begun = asked::prefixes(&term.word).filter(|_| term.is_rare).map(|it| (it, asked::ONE_SLIP));
            let others = term.others.iter().map(|(word, worth)| (&**word, *worth));
            for (word, worth) in joined.chain(alike).chain(begun).chain(others) {
                if seen.insert(word) {
                    lists.extend(self.words.find(word).map(|it| (Matches::Word(it), worth)));
                }
            }
            Term { lists, weight: term.weight }
        };
        asked.terms.iter().map(of_term).collect()
    }

    /// The entries that have a word as questions ask for it.
    fn matches(&self, word: &str) -> Option<Matches<'_>> {
        match token::pair(word) {
            Some((first, second)) => Some(Matches::Pair(self.words.find(first)?, self.words.find(second)?)),
            None => self.words.find(word).map(Matches::Word),
        }
    }

    /// The first `limit` of `best`, with a cursor if there are more.
    fn page(&self, best: &[(f32, u32)], limit: usize, by_meaning: impl Fn(u32) -> bool) -> Page {
        let shown = best.iter().take(limit);
        let mut shown = shown.filter_map(|(score, entry_id)| Some((*score, *entry_id, self.key(*entry_id)?)));
        let hit = |(score, entry_id, key): (f32, u32, &Key)| Hit {
            id: key.id,
            score,
            by_meaning: by_meaning(entry_id),
        };
        let hits: Vec<Hit> = shown.clone().map(hit).collect();
        let last = if best.len() > limit { shown.next_back() } else { None };
        let end = |(score, _, key): (f32, u32, &Key)| Cursor { score, name: key.name.clone(), id: key.id };
        Page { hits, next: last.map(end) }
    }
}

fn key_of(cursor: &Cursor) -> Key {
    Key { name: cursor.name.clone(), id: cursor.id }
}
