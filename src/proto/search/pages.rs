//! Pages of what matches: by name, or by score and then by name.

use super::order::Key;
use super::rank::{self, Matches, RankKey, Statistics, Top};
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
        self.page(&best, limit, Statistics::default())
    }

    pub(super) fn page_by_score(
        &self,
        words: &[String],
        allowed: &Allowed,
        limit: usize,
        after: Option<&Cursor>,
        statistics: Option<&Statistics>,
    ) -> Page {
        let limit = limit.clamp(1, PAGE_HITS_MAX);
        let matches: Vec<Option<Matches<'_>>> = words.iter().map(|word| self.matches(word)).collect();
        // Scores of a later page are made with the statistics of the first: what was written in between would move records
        // over the border between two pages, and some would be shown twice and others never.
        let given = after.map(|cursor| &cursor.statistics).or(statistics);
        let statistics = match given {
            Some(given) if given.found.len() == words.len() => given.clone(),
            _ => self.statistics(&matches),
        };
        let start = after.map(|cursor| (cursor.score, self.names.rank_up_to(&key_of(cursor))));
        let only = match allowed {
            Allowed::All => None,
            Allowed::Only(entry_ids) => Some(entry_ids),
        };
        let mut top = Top::new(limit + 1, start);
        let terms = rank::terms(matches, &statistics);
        rank::score_all(&terms, only, self.rows.len(), |entry_id, score| {
            // Ranks of names are looked up only for what can still enter: most entries that match fall below the bar.
            if top.admits(score) {
                top.offer(RankKey::new(score, self.names.rank(entry_id), entry_id));
            }
        });
        let best: Vec<(f32, u32)> =
            top.into_best_first().iter().map(|place| (place.score(), place.entry_id())).collect();
        self.page(&best, limit, statistics)
    }

    /// The entries that have a word as queries ask for it.
    fn matches(&self, word: &str) -> Option<Matches<'_>> {
        let find = |word: &str| self.words.stems.find(word);
        match token::pair(word) {
            Some((first, second)) => Some(Matches::Pair(find(first)?, find(second)?)),
            None => find(word).map(Matches::Word),
        }
    }

    fn statistics(&self, matches: &[Option<Matches<'_>>]) -> Statistics {
        let found = matches.iter().map(|it| it.map_or(0, |it| it.len() as u32)).collect();
        Statistics { entries: self.len() as u32, found }
    }

    /// The first `limit` of `best`, with a cursor if there are more.
    fn page(&self, best: &[(f32, u32)], limit: usize, statistics: Statistics) -> Page {
        let mut shown =
            best.iter().take(limit).filter_map(|(score, entry_id)| Some((*score, self.key(*entry_id)?)));
        let hits: Vec<Hit> = shown.clone().map(|(score, key)| Hit { id: key.id, score }).collect();
        let last = if best.len() > limit { shown.next_back() } else { None };
        let end = |(score, key): (f32, &Key)| Cursor {
            score,
            name: key.name.clone(),
            id: key.id,
            statistics: statistics.clone(),
        };
        Page { hits, next: last.map(end), statistics }
    }
}

fn key_of(cursor: &Cursor) -> Key {
    Key { name: cursor.name.clone(), id: cursor.id }
}
