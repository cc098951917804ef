//! Search over agents: by words, tags, capabilities and zone, ranked, in pages (interface, section Search).
//!
//! Invariants: an entry is found by its id exactly once; answers are totally ordered (score, then full name, then id)
//! and depend only on the entries and the query, except that a cursor carries the word statistics of its first page;
//! no text, however hostile, panics or costs more than the limits below allow.
//!
//! Entries live in slots. Tags, capabilities and zones map to sets of slots, words to posting lists of slots; names
//! are kept in order, with a rank for each slot.

mod close;
mod cursor;
mod order;
mod postings;
mod rank;
pub mod token;
mod vocabulary;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use roaring::{MultiOps, RoaringBitmap};

use self::order::{Key, NameOrder};
use self::postings::{Dictionary, Postings};
use self::rank::{Counts, Field, Place, Statistics, Top};
use self::vocabulary::Vocabulary;
use super::config::LABELS_MAX;
use super::identity::AgentId;
use super::name::{FullName, ZoneName};

pub use self::cursor::{Cursor, CursorError};

/// Bytes of a query text that count; the rest is ignored. Three times what the longest sentence in use has.
pub const QUERY_BYTES_MAX: usize = 1024;
/// Distinct words of a query that count, in the order they stand. Each costs a pass over all entries that have it.
pub const QUERY_WORDS_MAX: usize = 32;
/// Most hits of a page; more asked is the same as this.
pub const PAGE_HITS_MAX: usize = 1000;

/// What the index reads of an agent. Texts are taken as they are; the index copies what it needs.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The agent.
    pub id: AgentId,
    /// Its full name. The agent's part is searched, the zone is a filter.
    pub name: &'a FullName,
    /// Searched like the name.
    pub title: Option<&'a str>,
    /// Searched like the name, and found whole by [`Index::by_original_name`].
    pub original_name: Option<&'a str>,
    /// Filters and words; the first 64 count, as in a card.
    pub tags: &'a [String],
    /// Filters and words; the first 64 count, as in a card.
    pub capabilities: &'a [String],
    /// Searched, with the least weight.
    pub description: &'a str,
}

/// A question to the index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Words, of which an entry has at least one. Blank matches all; a text without any letter or digit matches none.
    pub text: String,
    /// Only this zone and those below it.
    pub zone: Option<ZoneName>,
    /// All of these, compared whole without case and accents; blank ones are ignored.
    pub tags: Vec<String>,
    /// All of these, compared like tags.
    pub capabilities: Vec<String>,
}

/// An agent that matches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// The agent.
    pub id: AgentId,
    /// Number of query words it has, function words aside, plus a fraction below 1 for how well it has them. Scores
    /// of one query order the hits of several indexes. 0 where nothing was searched for.
    pub score: f32,
}

/// Some hits of an answer, best first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// At most as many as asked.
    pub hits: Vec<Hit>,
    /// Where the next page starts; `None` on the last.
    pub next: Option<Cursor>,
}

/// A set of agents that can be searched.
pub struct Index {
    slots: BTreeMap<AgentId, u32>,
    rows: Vec<Option<Row>>,
    free: Vec<u32>,
    names: NameOrder,
    zones: BTreeMap<String, RoaringBitmap>,
    originals: BTreeSet<(Arc<str>, u32)>,
    words: Vocabulary,
    tags: Dictionary<RoaringBitmap>,
    capabilities: Dictionary<RoaringBitmap>,
}

/// Where a slot is to be taken out when its entry goes. Ids are sorted.
struct Row {
    key: Arc<Key>,
    original: Option<Arc<str>>,
    words: Box<[u32]>,
    tags: Box<[u32]>,
    capabilities: Box<[u32]>,
}

/// Which slots a query's filters leave.
enum Allowed {
    All,
    Only(RoaringBitmap),
}

impl Index {
    /// An index of nothing.
    pub fn new() -> Index {
        Index {
            slots: BTreeMap::new(),
            rows: Vec::new(),
            free: Vec::new(),
            names: NameOrder::default(),
            zones: BTreeMap::new(),
            originals: BTreeSet::new(),
            words: Vocabulary::new(),
            tags: Dictionary::new(),
            capabilities: Dictionary::new(),
        }
    }

    /// Adds an entry, or replaces the one of equal id.
    pub fn insert(&mut self, entry: Entry<'_>) {
        let slot = match self.slots.get(&entry.id) {
            Some(slot) => *slot,
            None => self.take_slot(entry.id),
        };
        let old = self.rows[slot as usize].take();
        let key = self.place(slot, &entry, old.as_ref());
        let row = self.enter(slot, &entry, key, old.as_ref());
        if let Some(old) = old {
            self.withdraw(slot, &old, Some(&row));
        }
        self.rows[slot as usize] = Some(row);
    }

    /// Takes an entry out; does nothing if there is none.
    pub fn remove(&mut self, id: &AgentId) {
        let Some(slot) = self.slots.remove(id) else { return };
        if let Some(row) = self.rows[slot as usize].take() {
            self.withdraw(slot, &row, None);
            self.displace(slot, &row.key);
        }
        self.free.push(slot);
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The best `limit` (1 … [`PAGE_HITS_MAX`], clamped) entries that match, behind `after` if given.
    pub fn search(&self, query: &Query, limit: usize, after: Option<&Cursor>) -> Page {
        let allowed = self.allowed(query);
        let text = &query.text[..query.text.floor_char_boundary(QUERY_BYTES_MAX)];
        if text.trim().is_empty() {
            return self.page_by_name(&allowed, limit, after);
        }
        self.page_by_score(&rank::query_words(text), &allowed, limit, after)
    }

    /// A page of every entry, or those of `zone` and below, by full name, then id. `limit` as in [`Index::search`].
    pub fn list(&self, zone: Option<&ZoneName>, limit: usize, after: Option<&Cursor>) -> Page {
        let allowed = self.within(zone).map_or(Allowed::All, Allowed::Only);
        self.page_by_name(&allowed, limit, after)
    }

    /// The agents of this name, by id; more than one where several owners registered it.
    pub fn by_name(&self, name: &FullName) -> Vec<AgentId> {
        self.names.named(name).map(|key| key.id).collect()
    }

    /// The agents whose imported document had exactly this name, by full name, then id.
    pub fn by_original_name(&self, name: &str) -> Vec<AgentId> {
        let start = (Arc::from(name), 0);
        let same = self.originals.range(start..).take_while(|(original, _)| **original == *name);
        let mut keys: Vec<&Key> = same.filter_map(|(_, slot)| self.key(*slot)).collect();
        keys.sort();
        keys.into_iter().map(|key| key.id).collect()
    }

    /// Up to `limit` distinct names that somebody who wrote `text` may have meant, nearest first. The work is bounded
    /// whatever the size of the index.
    pub fn close_names(&self, text: &str, limit: usize) -> Vec<FullName> {
        close::close_names(self, text, limit)
    }

    /// The name of an entry.
    fn name(&self, id: &AgentId) -> Option<&FullName> {
        self.slots.get(id).and_then(|slot| self.key(*slot)).map(|key| &key.name)
    }

    /// Names near the place of `key` in the order, at most `count`; from the start without a key.
    fn names_around(&self, key: Option<&Key>, count: usize) -> impl Iterator<Item = &FullName> {
        let before = key.into_iter().flat_map(|key| self.names.before(key)).take(count / 2);
        before.chain(self.names.after(key).take(count / 2)).map(|(key, _)| &key.name)
    }

    fn key(&self, slot: u32) -> Option<&Key> {
        self.rows[slot as usize].as_ref().map(|row| &*row.key)
    }

    fn take_slot(&mut self, id: AgentId) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.rows.push(None);
            (self.rows.len() - 1) as u32
        });
        self.slots.insert(id, slot);
        slot
    }

    /// Puts the slot under its name and zone, away from those of `old` where they differ.
    fn place(&mut self, slot: u32, entry: &Entry<'_>, old: Option<&Row>) -> Arc<Key> {
        match old {
            Some(old) if old.key.name == *entry.name => return old.key.clone(),
            Some(old) => self.displace(slot, &old.key),
            None => {}
        }
        let key = Arc::new(Key { name: entry.name.clone(), id: entry.id });
        self.names.insert(key.clone(), slot);
        self.zones.entry(zone_path(&key.name.zone)).or_default().insert(slot);
        key
    }

    fn displace(&mut self, slot: u32, key: &Key) {
        self.names.remove(key);
        let path = zone_path(&key.name.zone);
        if let Some(slots) = self.zones.get_mut(&path) {
            slots.remove(slot);
            if slots.is_empty() {
                self.zones.remove(&path);
            }
        }
    }

    /// Enters the slot under words, labels and original name; what stood there before is overwritten in place.
    fn enter(&mut self, slot: u32, entry: &Entry<'_>, key: Arc<Key>, old: Option<&Row>) -> Row {
        let words = self.count_words(entry);
        for (word, impact) in &words {
            self.words.at(*word).put(slot, *impact);
        }
        let original = match old.and_then(|old| old.original.clone()) {
            Some(same) if entry.original_name == Some(&same) => Some(same),
            _ => entry.original_name.map(Arc::from),
        };
        self.originals.extend(original.iter().map(|original| (original.clone(), slot)));
        Row {
            key,
            original,
            words: words.into_iter().map(|(word, _)| word).collect(),
            tags: enter_labels(&mut self.tags, entry.tags, slot),
            capabilities: enter_labels(&mut self.capabilities, entry.capabilities, slot),
        }
    }

    /// The distinct words of an entry by id, each with its impact.
    fn count_words(&mut self, entry: &Entry<'_>) -> Vec<(u32, f32)> {
        let names = [Some(entry.name.agent.as_str()), entry.title, entry.original_name];
        let names = names.into_iter().flatten().map(|text| (Field::Name, text));
        let labels = entry.tags.iter().take(LABELS_MAX).chain(entry.capabilities.iter().take(LABELS_MAX));
        let labels = labels.map(|text| (Field::Labels, text.as_str()));
        let mut seen: Vec<(u32, Field)> = Vec::with_capacity(64);
        for (field, text) in names.chain(labels).chain([(Field::Description, entry.description)]) {
            token::each_unstemmed(text, |word| seen.push((self.words.intern_unstemmed(word), field)));
        }
        seen.sort_unstable();
        let lengths = count(&seen);
        let of_word = |same: &[(u32, Field)]| (same[0].0, rank::impact(count(same), lengths));
        seen.chunk_by(|a, b| a.0 == b.0).map(of_word).collect()
    }

    /// Takes the slot out from under everything that `old` has and `kept` has not.
    fn withdraw(&mut self, slot: u32, old: &Row, kept: Option<&Row>) {
        for word in gone(&old.words, kept.map(|row| &row.words)) {
            self.words.at(word).remove(slot);
            if self.words.at(word).len() == 0 {
                self.words.release(word);
            }
        }
        withdraw_labels(&mut self.tags, gone(&old.tags, kept.map(|row| &row.tags)), slot);
        let capabilities = gone(&old.capabilities, kept.map(|row| &row.capabilities));
        withdraw_labels(&mut self.capabilities, capabilities, slot);
        if let Some(original) = &old.original
            && kept.is_none_or(|row| row.original != old.original)
        {
            self.originals.remove(&(original.clone(), slot));
        }
    }

    /// The slots that have all labels of the query and lie in its zone.
    fn allowed(&self, query: &Query) -> Allowed {
        let tags = asked(&self.tags, &query.tags);
        let capabilities = asked(&self.capabilities, &query.capabilities);
        let Some(mut sets) = tags.zip(capabilities).map(|(tags, capabilities)| [tags, capabilities].concat())
        else {
            return Allowed::Only(RoaringBitmap::new());
        };
        let zone = self.within(query.zone.as_ref());
        sets.extend(&zone);
        if sets.is_empty() { Allowed::All } else { Allowed::Only(sets.intersection()) }
    }

    /// The slots in `zone` and below; `None` where that is no restriction.
    fn within(&self, zone: Option<&ZoneName>) -> Option<RoaringBitmap> {
        let path = zone_path(zone.filter(|zone| !zone.is_root())?);
        let below = self.zones.range(path.clone()..).take_while(|(zone, _)| zone.starts_with(&path));
        let slots = below.map(|(_, slots)| slots).union();
        (slots.len() < self.len() as u64).then_some(slots)
    }

    fn page_by_name(&self, allowed: &Allowed, limit: usize, after: Option<&Cursor>) -> Page {
        let limit = limit.clamp(1, PAGE_HITS_MAX);
        let after = after.map(key_of);
        let best: Vec<(f32, u32)> = match allowed {
            Allowed::All => {
                self.names.after(after.as_ref()).take(limit + 1).map(|(_, slot)| (0.0, slot)).collect()
            }
            Allowed::Only(slots) => {
                let mut top = Top::new(limit + 1, after.map(|key| (0.0, self.names.rank_up_to(&key))));
                slots.iter().for_each(|slot| top.offer(Place::new(0.0, self.names.rank(slot), slot)));
                top.into_best_first().iter().map(|place| (0.0, place.slot())).collect()
            }
        };
        self.page(&best, limit, Statistics::default())
    }

    fn page_by_score(
        &self,
        words: &[String],
        allowed: &Allowed,
        limit: usize,
        after: Option<&Cursor>,
    ) -> Page {
        let limit = limit.clamp(1, PAGE_HITS_MAX);
        let postings: Vec<Option<&Postings>> = words.iter().map(|word| self.words.find(word)).collect();
        let statistics = match after {
            Some(cursor) if cursor.statistics.found.len() == words.len() => cursor.statistics.clone(),
            _ => self.statistics(&postings),
        };
        let start = after.map(|cursor| (cursor.score, self.names.rank_up_to(&key_of(cursor))));
        let only = match allowed {
            Allowed::All => None,
            Allowed::Only(slots) => Some(slots),
        };
        let mut top = Top::new(limit + 1, start);
        let terms = rank::terms(words, postings, &statistics);
        rank::score_all(&terms, only, self.rows.len(), |slot, score| {
            if top.admits(score) {
                top.offer(Place::new(score, self.names.rank(slot), slot));
            }
        });
        let best: Vec<(f32, u32)> =
            top.into_best_first().iter().map(|place| (place.score(), place.slot())).collect();
        self.page(&best, limit, statistics)
    }

    fn statistics(&self, postings: &[Option<&Postings>]) -> Statistics {
        let found = postings.iter().map(|list| list.map_or(0, |list| list.len() as u32)).collect();
        Statistics { entries: self.len() as u32, found }
    }

    /// The first `limit` of `best`, with a cursor if there are more.
    fn page(&self, best: &[(f32, u32)], limit: usize, statistics: Statistics) -> Page {
        let shown = best.iter().take(limit).filter_map(|(score, slot)| Some((*score, self.key(*slot)?)));
        let hits: Vec<Hit> = shown.clone().map(|(score, key)| Hit { id: key.id, score }).collect();
        let last = if best.len() > limit { shown.last() } else { None };
        let next = last.map(|(score, key)| Cursor { score, name: key.name.clone(), id: key.id, statistics });
        Page { hits, next }
    }
}

impl Default for Index {
    fn default() -> Index {
        Index::new()
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").field("entries", &self.len()).field("words", &self.words.len()).finish()
    }
}

fn key_of(cursor: &Cursor) -> Key {
    Key { name: cursor.name.clone(), id: cursor.id }
}

/// The labels of a zone from the top down, each closed by a dot: the zones below one are those that start with it.
fn zone_path(zone: &ZoneName) -> String {
    let labels = zone.as_str().rsplit('.').filter(|label| !label.is_empty());
    labels.flat_map(|label| [label, "."]).collect()
}

fn count(seen: &[(u32, Field)]) -> Counts {
    let mut counts: Counts = [0; 3];
    for (_, field) in seen {
        counts[*field as usize] = counts[*field as usize].saturating_add(1);
    }
    counts
}

fn enter_labels(labels: &mut Dictionary<RoaringBitmap>, texts: &[String], slot: u32) -> Box<[u32]> {
    let folded: BTreeSet<String> = texts.iter().take(LABELS_MAX).map(|text| token::label(text)).collect();
    let mut ids: Vec<u32> = folded.iter().map(|text| labels.intern(text)).collect();
    ids.iter().for_each(|id| _ = labels.at(*id).insert(slot));
    ids.sort_unstable();
    ids.into()
}

fn withdraw_labels(labels: &mut Dictionary<RoaringBitmap>, ids: impl Iterator<Item = u32>, slot: u32) {
    for id in ids {
        labels.at(id).remove(slot);
        if labels.at(id).is_empty() {
            labels.release(id);
        }
    }
}

/// The sets of the asked labels; `None` if one is unknown, so that nothing matches.
fn asked<'a>(labels: &'a Dictionary<RoaringBitmap>, texts: &[String]) -> Option<Vec<&'a RoaringBitmap>> {
    let folded: BTreeSet<String> = texts.iter().map(|text| token::label(text)).collect();
    folded.iter().filter(|text| !text.is_empty()).map(|text| labels.find(text)).collect()
}

/// The ids of `old` that are not in `kept`; both are sorted.
fn gone(old: &[u32], kept: Option<&Box<[u32]>>) -> impl Iterator<Item = u32> {
    old.iter().copied().filter(move |id| kept.is_none_or(|kept| kept.binary_search(id).is_err()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(super) fn name(text: &str) -> FullName {
        text.parse().unwrap()
    }

    pub(super) fn bare(name: &FullName) -> Entry<'_> {
        let id = AgentId([0; 20]);
        Entry { id, name, title: None, original_name: None, tags: &[], capabilities: &[], description: "" }
    }

    /// An index of agents with ids 1, 2, … and nothing but a name.
    pub(super) fn index_of(names: &[&str]) -> Index {
        let mut index = Index::new();
        for (at, text) in names.iter().enumerate() {
            index.insert(Entry { id: AgentId([at as u8 + 1; 20]), ..bare(&name(text)) });
        }
        index
    }
}
