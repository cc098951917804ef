//! Search over agents: by words, tags, capabilities and zone, ranked, in pages.
//!
//! Invariants: an entry is found by its id exactly once; answers are totally ordered (score, then full name, then id); the
//! score of an entry depends on the entry and the query alone; no text, however hostile, panics or costs more than the limits
//! below allow.
//!
//! Entries have ids, small numbers that are used again. Tags, capabilities and zones map to sets of ids, words to posting
//! lists of ids; names are kept in order, with a rank for each id.

mod absorb;
mod asked;
mod cursor;
mod dictionary;
mod entering;
mod grams;
mod growth;
mod holders;
mod labels;
mod meaning;
mod order;
mod pages;
mod postings;
mod rank;
mod similar;
mod slips;
pub mod token;
mod vocabulary;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use roaring::{MultiOps, RoaringBitmap};

pub use self::asked::Asked;
use self::grams::Grams;
use self::growth::make_room;
use self::labels::Labels;
pub use self::meaning::TABLE;
use self::meaning::Vector;
use self::order::{Key, NameOrder};
pub(super) use self::token::label;
use self::vocabulary::Vocabulary;
use super::card::{AgentCard, Residency};
use super::identity::AgentId;
use super::name::{FullName, ZoneName};

pub use self::cursor::{Cursor, CursorError};

/// Bytes of a query text that count; the rest is ignored. Room for a paragraph, which is more than people ask with.
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
    /// A filter: what reads as a [`Residency`].
    pub residency: Option<&'a str>,
    /// Searched, with the least weight.
    pub description: &'a str,
    /// Searched like the description.
    pub skills: Option<&'a str>,
}

/// What the index reads of an agent with this card.
pub fn entry<'a>(id: AgentId, name: &'a FullName, card: &'a AgentCard) -> Entry<'a> {
    Entry {
        id,
        name,
        title: card.title.as_deref(),
        original_name: card.original_name.as_deref(),
        tags: &card.tags,
        capabilities: &card.capabilities,
        residency: card.residency.as_deref().filter(|text| text.parse::<Residency>().is_ok()),
        description: &card.description,
        skills: card.skills.as_deref(),
    }
}

/// A question to the index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Words, of which an entry has at least one, or means nearly the same. Function and request words ("the", "find") count
    /// only where there are no others, and only where a name is made of such. Blank matches all; a text without any letter or
    /// digit matches none.
    pub text: String,
    /// Only this zone and those below it.
    pub zone: Option<ZoneName>,
    /// Only these very zones; any if there are none.
    pub zones: Vec<ZoneName>,
    /// All of these, compared whole without case and accents; blank ones are ignored.
    pub tags: Vec<String>,
    /// All of these, compared like tags.
    pub capabilities: Vec<String>,
    /// What their cards say of where data stays: that of the greatest record, where hosts differ.
    pub residency: Option<Residency>,
}

/// An agent that matches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// The agent.
    pub id: AgentId,
    /// How well it answers, the same in every index: at most about 5. 0 where nothing was searched for.
    pub score: f32,
    /// Whether it has no word of the question, and means nearly the same.
    pub by_meaning: bool,
}

/// Why an entry answers a question.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Why {
    /// Words of the question, each with the one of the entry that stands for it.
    pub words: Vec<(String, String)>,
    /// How near their meanings are: 1 for the same, 0 for what has nothing in common.
    pub meaning: f32,
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
    entry_ids: BTreeMap<AgentId, u32>,
    rows: Vec<Option<Row>>,
    free: Vec<u32>,
    names: NameOrder,
    /// For names that are not there.
    grams: Grams,
    zones: BTreeMap<String, RoaringBitmap>,
    originals: BTreeSet<(Arc<str>, u32)>,
    words: Vocabulary,
    /// What each entry means, by id.
    meanings: Vec<Vector>,
    /// Entries by the words of their names that decide nothing elsewhere, where half of a name is such.
    idle_names: BTreeMap<String, RoaringBitmap>,
    tags: Labels,
    capabilities: Labels,
    residencies: Labels,
}

/// Where an id is to be taken out when its entry goes. Ids are sorted.
struct Row {
    key: Arc<Key>,
    original: Option<Arc<str>>,
    words: Box<[u32]>,
    tags: Box<[u32]>,
    capabilities: Box<[u32]>,
    /// At most one.
    residency: Box<[u32]>,
}

/// Which ids a query's filters leave.
enum Allowed {
    All,
    Only(RoaringBitmap),
}

impl Index {
    /// An index of nothing.
    pub fn new() -> Index {
        Index {
            entry_ids: BTreeMap::new(),
            rows: Vec::new(),
            free: Vec::new(),
            names: NameOrder::default(),
            grams: Grams::default(),
            zones: BTreeMap::new(),
            originals: BTreeSet::new(),
            words: Vocabulary::new(),
            meanings: Vec::new(),
            idle_names: BTreeMap::new(),
            tags: Labels::default(),
            capabilities: Labels::default(),
            residencies: Labels::default(),
        }
    }

    /// Adds an entry, or replaces the one of equal id.
    pub fn insert(&mut self, entry: Entry<'_>) {
        let entry_id = match self.entry_ids.get(&entry.id) {
            Some(entry_id) => *entry_id,
            None => self.take_entry_id(entry.id),
        };
        // The old row is taken out first and compared with the new one last: most replacements change a stamp and no word,
        // so what both have is overwritten in place and neither removed nor entered again.
        let old = self.rows[entry_id as usize].take();
        let key = self.place(entry_id, &entry, old.as_ref());
        let row = self.enter(entry_id, &entry, key, old.as_ref());
        if let Some(old) = old {
            self.withdraw(entry_id, &old, Some(&row));
        }
        self.rows[entry_id as usize] = Some(row);
        self.renumber();
    }

    /// Takes an entry out; does nothing if there is none.
    pub fn remove(&mut self, id: &AgentId) {
        let Some(entry_id) = self.entry_ids.remove(id) else { return };
        if let Some(row) = self.rows[entry_id as usize].take() {
            self.withdraw(entry_id, &row, None);
            self.displace(entry_id, &row.key);
            self.meanings[entry_id as usize] = Vector::NONE;
            self.forget_idle_names(entry_id);
        }
        // Only now: a row that is still linked must not have its id given to another entry.
        self.free.push(entry_id);
        self.renumber();
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entry_ids.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entry_ids.is_empty()
    }

    /// The best `limit` (1 … [`PAGE_HITS_MAX`], clamped) entries that match, behind `after` if given.
    pub fn search(&self, query: &Query, limit: usize, after: Option<&Cursor>) -> Page {
        let allowed = self.allowed(query);
        if query.text.trim().is_empty() {
            return self.page_by_name(&allowed, limit, after);
        }
        self.page_by_score(&Asked::of(&query.text), &allowed, limit, after)
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
        // The least pair with this name: the set is ordered by name, then by id.
        let start = (Arc::from(name), 0);
        let same = self.originals.range(start..).take_while(|(original, _)| **original == *name);
        let mut keys: Vec<&Key> = same.filter_map(|(_, entry_id)| self.key(*entry_id)).collect();
        keys.sort();
        keys.into_iter().map(|key| key.id).collect()
    }

    /// The names of imported documents after `after`, bytewise, each with its agents.
    pub fn originals_after(&self, after: Option<&str>) -> impl Iterator<Item = (Arc<str>, Vec<AgentId>)> {
        let start = after.map_or(Unbounded, |after| Excluded((Arc::from(after), u32::MAX)));
        let mut pairs = self.originals.range((start, Unbounded)).peekable();
        std::iter::from_fn(move || {
            let name = pairs.peek()?.0.clone();
            let same = std::iter::from_fn(|| pairs.next_if(|(original, _)| *original == name));
            let ids: Vec<AgentId> =
                same.filter_map(|(_, entry_id)| self.key(*entry_id)).map(|key| key.id).collect();
            Some((name, ids))
        })
    }

    /// Up to `limit` distinct names that somebody who wrote `text` may have meant, nearest first. The work is bounded
    /// whatever the size of the index.
    pub fn similar_names(&self, text: &str, limit: usize) -> Vec<FullName> {
        similar::similar_names(self, text, limit)
    }

    /// The name of an entry.
    pub(super) fn name(&self, id: &AgentId) -> Option<&FullName> {
        self.entry_ids.get(id).and_then(|entry_id| self.key(*entry_id)).map(|key| &key.name)
    }

    /// Names near the place of `key` in the order, at most `count`; from the start without a key.
    fn names_around(&self, key: Option<&Key>, count: usize) -> impl Iterator<Item = &FullName> {
        let before = key.into_iter().flat_map(|key| self.names.before(key)).take(count / 2);
        before.chain(self.names.after(key).take(count / 2)).map(|(key, _)| &key.name)
    }

    fn key(&self, entry_id: u32) -> Option<&Key> {
        self.rows[entry_id as usize].as_ref().map(|row| &*row.key)
    }

    fn take_entry_id(&mut self, id: AgentId) -> u32 {
        let entry_id = self.free.pop().unwrap_or_else(|| {
            make_room(&mut self.rows);
            self.rows.push(None);
            make_room(&mut self.meanings);
            self.meanings.push(Vector::NONE);
            // A zone's quota of bytes bounds the entries far below 2^32.
            (self.rows.len() - 1) as u32
        });
        self.entry_ids.insert(id, entry_id);
        entry_id
    }

    /// Gives memory of words and labels back where most of them are gone.
    fn renumber(&mut self) {
        let mut change = |ids: Option<Vec<u32>>, of_row: fn(&mut Row) -> &mut [u32]| {
            let Some(ids) = ids else { return };
            // New ids are in the order of the old ones: what is sorted stays so.
            let rows = self.rows.iter_mut().flatten();
            rows.flat_map(of_row).for_each(|id| *id = ids[*id as usize]);
        };
        change(self.words.renumber(), |row| &mut row.words);
        change(self.tags.renumber(), |row| &mut row.tags);
        change(self.capabilities.renumber(), |row| &mut row.capabilities);
        change(self.residencies.renumber(), |row| &mut row.residency);
    }

    /// The ids that have all labels of the query and lie in its zone.
    fn allowed(&self, query: &Query) -> Allowed {
        let tags = self.tags.asked(&query.tags);
        let capabilities = self.capabilities.asked(&query.capabilities);
        let residency = query.residency.clone().map(String::from);
        let residency = self.residencies.asked(residency.as_slice());
        // One label that nobody has leaves nothing, whatever else was asked.
        let (Some(tags), Some(capabilities), Some(residency)) = (tags, capabilities, residency) else {
            return Allowed::Only(RoaringBitmap::new());
        };
        let mut sets = [tags, capabilities, residency].concat();
        let zone = self.within(query.zone.as_ref());
        sets.extend(zone.map(Cow::Owned));
        if !query.zones.is_empty() {
            let named = query.zones.iter().filter_map(|zone| self.zones.get(&zone_path(zone)));
            sets.push(Cow::Owned(named.union()));
        }
        let sets = sets.iter().map(|set| &**set);
        if sets.len() == 0 { Allowed::All } else { Allowed::Only(sets.intersection()) }
    }

    /// The ids in `zone` and below; `None` where that is no restriction.
    fn within(&self, zone: Option<&ZoneName>) -> Option<RoaringBitmap> {
        let path = zone_path(zone.filter(|zone| !zone.is_root())?);
        let below = self.zones.range(path.clone()..).take_while(|(zone, _)| zone.starts_with(&path));
        let entry_ids = below.map(|(_, entry_ids)| entry_ids).union();
        // Where every entry lies below, no filter is faster than one that filters nothing.
        (entry_ids.len() < self.len() as u64).then_some(entry_ids)
    }
}

impl Default for Index {
    fn default() -> Index {
        Index::new()
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").field("entries", &self.len()).field("words", &self.words.stems.len()).finish()
    }
}

/// The labels of a zone from the top down, each closed by a dot: the zones below one are those that start with it.
fn zone_path(zone: &ZoneName) -> String {
    let labels = zone.as_str().rsplit('.').filter(|label| !label.is_empty());
    labels.flat_map(|label| [label, "."]).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::cmp::Ordering;

    use proptest::prelude::*;

    use super::entering::{BYTES_PER_WORD, PARTS_MIN, idle_words};
    use super::meaning::Sum;
    use super::rank::Counts;
    use super::*;

    pub(super) fn name(text: &str) -> FullName {
        text.parse().unwrap()
    }

    pub(super) fn bare(name: &FullName) -> Entry<'_> {
        let id = AgentId([0; 20]);
        Entry {
            id,
            name,
            title: None,
            original_name: None,
            tags: &[],
            capabilities: &[],
            residency: None,
            description: "",
            skills: None,
        }
    }

    /// An index of agents with ids 1, 2, … and nothing but a name.
    pub(super) fn index_of(names: &[&str]) -> Index {
        let mut index = Index::new();
        for (at, text) in names.iter().enumerate() {
            index.insert(Entry { id: AgentId([at as u8 + 1; 20]), ..bare(&name(text)) });
        }
        index
    }

    /// An entry that owns its texts.
    #[derive(Clone, Debug)]
    struct Agent {
        id: u8,
        name: String,
        title: Option<String>,
        original: Option<String>,
        tags: Vec<String>,
        capabilities: Vec<String>,
        residency: Option<String>,
        description: String,
        skills: Option<String>,
    }

    impl Agent {
        fn new(id: u8, name: &str) -> Agent {
            let (tags, capabilities) = (Vec::new(), Vec::new());
            let (name, description, residency) = (name.into(), String::new(), None);
            let (title, original, skills) = (None, None, None);
            Agent { id, name, title, original, tags, capabilities, residency, description, skills }
        }

        fn id(&self) -> AgentId {
            AgentId([self.id; 20])
        }

        fn insert_into(&self, index: &mut Index) {
            index.insert(Entry {
                id: self.id(),
                name: &name(&self.name),
                title: self.title.as_deref(),
                original_name: self.original.as_deref(),
                tags: &self.tags,
                capabilities: &self.capabilities,
                residency: self.residency.as_deref(),
                description: &self.description,
                skills: self.skills.as_deref(),
            });
        }

        /// Texts of each field, by weight.
        fn texts(&self) -> [Vec<&str>; 3] {
            let agent = self.name.split('@').next().unwrap();
            let names = [Some(agent), self.title.as_deref(), self.original.as_deref()];
            let labels = self.tags.iter().chain(&self.capabilities).map(String::as_str);
            let prose = [Some(&*self.description), self.skills.as_deref()].into_iter().flatten();
            [names.into_iter().flatten().collect(), labels.collect(), prose.collect()]
        }
    }

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| text.to_string()).collect()
    }

    fn index(agents: &[Agent]) -> Index {
        let mut index = Index::new();
        agents.iter().for_each(|agent| agent.insert_into(&mut index));
        index
    }

    fn words(text: &str) -> Query {
        Query { text: text.into(), ..Query::default() }
    }

    /// Ids of the hits as the numbers they were made from.
    fn ids(page: &Page) -> Vec<u8> {
        page.hits.iter().map(|hit| hit.id.0[0]).collect()
    }

    fn found(index: &Index, text: &str) -> Vec<u8> {
        ids(&index.search(&words(text), 100, None))
    }

    /// Those that have a word of the text.
    fn found_by_words(index: &Index, text: &str) -> Vec<u8> {
        let hits = index.search(&words(text), 100, None).hits;
        hits.iter().filter(|hit| !hit.by_meaning).map(|hit| hit.id.0[0]).collect()
    }

    #[test]
    fn one_word_of_the_query_is_enough_in_any_form_and_any_field() {
        let index = index(&[
            Agent { description: "Summarizes long documents".into(), ..Agent::new(1, "a@.") },
            Agent { tags: strings(&["Summaries"]), ..Agent::new(2, "b@.") },
            Agent { capabilities: strings(&["summarize text"]), ..Agent::new(3, "c@.") },
            Agent { title: Some("The Summarizer".into()), ..Agent::new(4, "d@.") },
            Agent { original: Some("ai.exa/Summarize".into()), ..Agent::new(5, "e@.") },
            Agent::new(6, "text_summarizer@."),
            Agent::new(7, "weather@."),
        ]);
        let mut all = found_by_words(&index, "SUMMARIZING nonsense");
        all.sort();
        assert_eq!(all, [1, 3, 4, 5, 6]);
        assert_eq!(found_by_words(&index, "summary"), [2]);
        assert_eq!(found(&index, "nonsense"), [0u8; 0]);
        assert_eq!(found(&index, "!?"), [0u8; 0], "a text without words");
    }

    #[test]
    fn a_blank_query_matches_all_in_the_order_of_names_with_score_0() {
        let index = index_of(&["b@org", "a@zoo.org", "a@acme.org", "a-b@."]);
        let page = index.search(&words("  "), 100, None);
        assert_eq!(ids(&page), [3, 2, 4, 1]);
        assert!(page.hits.iter().all(|hit| hit.score == 0.0));
        assert_eq!(page, index.list(None, 100, None));
    }

    #[test]
    fn a_name_beats_a_label_and_a_label_beats_a_description_that_repeats_the_word() {
        let index = index(&[
            Agent { description: "weather ".repeat(50), ..Agent::new(1, "a@.") },
            Agent { tags: strings(&["weather"]), ..Agent::new(2, "b@.") },
            Agent { capabilities: strings(&["weather"]), ..Agent::new(3, "c@.") },
            Agent { title: Some("Weather".into()), ..Agent::new(4, "d@.") },
            Agent::new(5, "weather@."),
        ]);
        assert_eq!(found(&index, "weather"), [5, 4, 2, 3, 1]);
    }

    #[test]
    fn more_of_the_words_beats_one_of_them_in_the_name() {
        let index = index(&[
            Agent { tags: strings(&["weather"]), ..Agent::new(1, "weather@.") },
            Agent { description: "news, tides and the weather forecast".into(), ..Agent::new(2, "z@.") },
        ]);
        assert_eq!(found(&index, "weather forecast"), [2, 1]);
    }

    #[test]
    fn words_that_decide_nothing_match_where_there_are_no_others_and_a_name_is_made_of_them() {
        let index = index(&[
            Agent { description: "a tool that is for you".into(), ..Agent::new(1, "a@.") },
            Agent { description: "forecasts".into(), ..Agent::new(2, "b-forecasts@.") },
            Agent { title: Some("Who?".into()), ..Agent::new(3, "who@.") },
            Agent { title: Some("The Copy Shop".into()), ..Agent::new(4, "copies@.") },
            Agent::new(5, "find@."),
        ]);
        assert_eq!(found(&index, "is that for forecasts"), [2]);
        assert_eq!(found(&index, "for you"), [0u8; 0], "no name is made of them");
        assert_eq!(found(&index, "who is it"), [3]);
        assert_eq!(found(&index, "the"), [0u8; 0], "a name that has one among others is not called so");
        assert_eq!((found(&index, "find"), found(&index, "please find me")), (vec![5], vec![5]));
        let elsewhere = Query { zone: Some("acme.org".parse().unwrap()), ..words("who") };
        assert_eq!(ids(&index.search(&elsewhere, 10, None)), [0u8; 0]);
        assert_eq!(found(&index, &format!("{} forecasts", FUNCTION_WORDS_MANY)), [2]);
    }

    /// More function words than words of a query count.
    const FUNCTION_WORDS_MANY: &str = "a about am an and any are as at be by can could do for from has have how i in into \
                                       is it me my of on or some that the these this to was what";

    #[test]
    fn parts_of_words_in_camel_case_are_found_as_far_as_the_text_pays_for_them() {
        let index = index(&[
            Agent { title: Some("getWeather".into()), ..Agent::new(1, "getweather@.") },
            Agent { description: "Calls convertUnits and HTTPServer".into(), ..Agent::new(2, "b@.") },
            Agent { skills: Some("parseInvoice".into()), ..Agent::new(3, "c@.") },
        ]);
        for (text, id) in
            [("weather", 1), ("getWeather", 1), ("units", 2), ("convertunits", 2), ("convertUnits", 2)]
        {
            assert_eq!(found(&index, text)[0], id, "{text}");
        }
        assert_eq!((found(&index, "http"), found(&index, "server")), (vec![2], vec![2]));
        assert_eq!((found(&index, "invoices"), found(&index, "parseinvoice")), (vec![3], vec![3]));
        let dense = (0..500).map(|at| format!("Abc{at:03}Def{at:03}Ghi{at:03} ")).collect::<String>();
        let mut index = Index::new();
        Agent { description: dense.clone(), ..Agent::new(1, "a@.") }.insert_into(&mut index);
        assert!(index.words.stems.len() <= PARTS_MIN + 2 + dense.len() / BYTES_PER_WORD, "{index:?}");
    }

    #[test]
    fn a_word_is_found_in_scripts_that_do_not_set_words_apart() {
        let described =
            |id, text: &str| Agent { description: text.into(), ..Agent::new(id, &format!("a{id}@.")) };
        let index = index(&[
            described(1, "서울 날씨를 알려드립니다"),
            described(2, "날짜 계산기"),
            described(3, "明日の天気予報を伝える"),
            described(4, "天文台の写真"),
            described(5, "查询城市的天气预报"),
            described(6, "พยากรณ์อากาศประจำวัน"),
            described(7, "ແປພາສາລາວ"),
            described(8, "ការព្យាករណ៍អាកាសធាតុ"),
        ]);
        for (text, first) in [
            ("날씨", 1),
            ("날짜", 2),
            ("天気", 3),
            ("天文", 4),
            ("天气", 5),
            ("อากาศ", 6),
            ("ພາສາ", 7),
            ("អាកាស", 8),
        ] {
            assert_eq!(found(&index, text), [first], "{text}");
        }
        assert_eq!(found(&index, "予報"), [3]);
        assert_eq!(found(&index, "날"), [2, 1], "a letter alone is what it is");
        assert_eq!(found(&index, "天気予報")[0], 3);
        assert_eq!(found(&index, "日気"), [3], "neighbours are not held apart from others");
        assert_eq!(found(&index, "날개"), [0u8; 0]);
    }

    #[test]
    fn a_rare_word_counts_more_than_a_common_one() {
        let mut agents: Vec<Agent> = (1..20).map(|id| Agent::new(id, &format!("agent{id}@."))).collect();
        agents.iter_mut().for_each(|agent| agent.description = "common".into());
        agents[18].description = "rare".into();
        assert_eq!(found(&index(&agents), "common rare")[0], 19);
    }

    #[test]
    fn a_slip_a_split_and_a_joined_word_find_what_was_meant() {
        let of = |id, name: &str, description: &str| Agent {
            description: description.into(),
            ..Agent::new(id, name)
        };
        let index = index(&[
            of(1, "trips@.", "Books flights and hotels"),
            of(2, "issues@.", "Looks after a GitHub repository"),
            of(3, "mail@.", "sendEmail to anybody"),
            of(4, "halvora@.", "Keeps bees"),
            of(5, "terraform-runner@.", "Plans and applies"),
        ]);
        for (text, first) in [
            ("flihgts", 1),
            ("git hub", 2),
            ("gitHub", 2),
            ("send an email", 3),
            ("sendemail", 3),
            ("halvroa", 4),
            ("halvorax", 4),
            ("hal vora", 4),
            ("terrafrom", 5),
        ] {
            assert_eq!(found(&index, text).first(), Some(&first), "{text}");
        }
        assert_eq!(found(&index, "bees")[0], 4);
        assert!(!found(&index, "kees").contains(&4), "what is too short to be a slip");
    }

    #[test]
    fn what_means_the_same_is_found_without_a_word_in_common_and_says_so() {
        let of = |id, name: &str, description: &str| Agent {
            description: description.into(),
            ..Agent::new(id, name)
        };
        let index = index(&[
            of(1, "till@.", "Accepts payments and refunds through a merchant account"),
            of(2, "sky@.", "Weather forecast, temperature and rain"),
        ]);
        let page = index.search(&words("charge a customer's credit card"), 10, None);
        assert_eq!((ids(&page), page.hits[0].by_meaning), (vec![1], true));
        let page = index.search(&words("payments by credit card"), 10, None);
        assert_eq!((ids(&page), page.hits[0].by_meaning), (vec![1], false));
    }

    #[test]
    fn a_result_says_why_it_is_there() {
        let name = name("mailer@.");
        let entry =
            Entry { title: Some("sendEmail"), description: "Posts letters to an inbox", ..bare(&name) };
        let told = Asked::of("please send emial to the mailbox").why(&entry);
        let pairs: Vec<(&str, &str)> = told.words.iter().map(|(asked, has)| (&**asked, &**has)).collect();
        assert_eq!(pairs, [("send", "send"), ("emial", "email")]);
        assert!(told.meaning > 0.3, "{told:?}");
        assert_eq!(Asked::of("weather").why(&entry).words, []);
    }

    #[test]
    fn equal_scores_are_ordered_by_full_name_then_id() {
        let mut index = index_of(&["x@zoo.org", "x@acme.org"]);
        index.insert(Entry { id: AgentId([0; 20]), ..bare(&name("x@zoo.org")) });
        assert_eq!(found(&index, "x"), [2, 0, 1]);
    }

    #[test]
    fn filters_compare_whole_labels_without_case_and_accents() {
        let index = index(&[
            Agent {
                tags: strings(&["text", "Résumé"]),
                capabilities: strings(&["x"]),
                ..Agent::new(1, "a@.")
            },
            Agent { tags: strings(&["texts", "text mining"]), ..Agent::new(2, "b@.") },
            Agent { capabilities: strings(&["text"]), ..Agent::new(3, "c@.") },
        ]);
        let tagged = |tags: &[&str], capabilities: &[&str]| {
            let query =
                Query { tags: strings(tags), capabilities: strings(capabilities), ..Query::default() };
            ids(&index.search(&query, 10, None))
        };
        assert_eq!(tagged(&["Text"], &[]), [1]);
        assert_eq!(tagged(&["TEXT MINING "], &[]), [2]);
        assert_eq!(tagged(&["text", "resume"], &[""]), [1]);
        assert_eq!(tagged(&["text", "text mining"], &[]), [0u8; 0]);
        assert_eq!(tagged(&[], &["text"]), [3]);
        assert_eq!(tagged(&["text"], &["X"]), [1]);
        assert_eq!(tagged(&["unknown"], &[]), [0u8; 0]);
    }

    #[test]
    fn a_zone_means_its_subtree() {
        let index =
            index_of(&["a@acme.org", "b@research.acme.org", "c@acmes.org", "d@org", "e@.", "f@acme.com"]);
        let within = |zone: &str| {
            let zone: ZoneName = zone.parse().unwrap();
            let listed = ids(&index.list(Some(&zone), 10, None));
            assert_eq!(ids(&index.search(&Query { zone: Some(zone), ..Query::default() }, 10, None)), listed);
            listed
        };
        assert_eq!(within("acme.org"), [1, 2]);
        assert_eq!(within("org"), [1, 2, 3, 4]);
        assert_eq!(within("."), [1, 2, 3, 4, 5, 6]);
        assert_eq!(within("research.acme"), [0u8; 0]);
    }

    #[test]
    fn words_and_filters_meet_in_every_block_of_a_large_index() {
        let mut index = Index::new();
        let count = 2 * postings::BLOCK_ENTRIES as u32 + 100;
        for number in 0..count {
            let name = name(&format!("weather-{number}@."));
            let tags = if number % 1000 == 5 { strings(&["odd"]) } else { Vec::new() };
            let mut id = AgentId([0; 20]);
            id.0[..4].copy_from_slice(&number.to_be_bytes());
            index.insert(Entry { id, tags: &tags, ..bare(&name) });
        }
        let query = Query { tags: strings(&["odd"]), ..words("weather") };
        let hits = index.search(&query, PAGE_HITS_MAX, None).hits.into_iter();
        let mut numbers: Vec<u32> =
            hits.map(|hit| u32::from_be_bytes(*hit.id.0.first_chunk().unwrap())).collect();
        numbers.sort();
        assert_eq!(numbers, (0..count).filter(|number| number % 1000 == 5).collect::<Vec<_>>());
        assert_eq!(
            pages(|after| index.search(&words("weather"), PAGE_HITS_MAX, after)).len(),
            count as usize
        );
    }

    #[test]
    fn an_entry_of_equal_id_is_replaced_in_all_it_had() {
        let old = Agent {
            tags: strings(&["old"]),
            original: Some("old/original".into()),
            description: "ancient".into(),
            ..Agent::new(1, "oldname@acme.org")
        };
        let mut index = index(&[old]);
        Agent { tags: strings(&["new"]), ..Agent::new(1, "newname@zoo.org") }.insert_into(&mut index);
        assert_eq!(index.len(), 1);
        for gone in ["old", "ancient", "oldname", "original"] {
            assert_eq!(found_by_words(&index, gone), [0u8; 0], "{gone}");
        }
        assert_eq!(found(&index, "newname new"), [1]);
        assert_eq!(index.by_original_name("old/original"), []);
        assert_eq!(index.by_name(&name("oldname@acme.org")), []);
        assert_eq!(ids(&index.list(Some(&"acme.org".parse().unwrap()), 10, None)), [0u8; 0]);
        let tagged = Query { tags: strings(&["old"]), ..Query::default() };
        assert_eq!(ids(&index.search(&tagged, 10, None)), [0u8; 0]);
    }

    #[test]
    fn what_is_removed_leaves_nothing_behind() {
        let full = Agent {
            tags: strings(&["a", "b"]),
            capabilities: strings(&["c"]),
            original: Some("x/y".into()),
            title: Some("Who, what".into()),
            description: "one two three".into(),
            ..Agent::new(1, "name@acme.org")
        };
        let mut index = index(std::slice::from_ref(&full));
        index.remove(&full.id());
        index.remove(&full.id());
        assert!(index.is_empty() && index.zones.is_empty() && index.originals.is_empty());
        assert!(index.idle_names.is_empty() && index.meanings == [Vector::NONE]);
        let kept = [index.words.stems.len(), index.tags.len(), index.capabilities.len()];
        assert_eq!((kept, index.names.after(None).count()), ([0; 3], 0));
        full.insert_into(&mut index);
        assert_eq!((index.rows.len(), found(&index, "two")), (1, vec![1]), "the entry_id is used again");
    }

    #[test]
    fn what_is_left_after_most_is_gone_is_found_and_replaced_as_before() {
        let of_words = |id: u8| {
            let (tags, can) = (strings(&[&format!("tag{id}")]), strings(&[&format!("can{id}")]));
            let description = (0..20).map(|at| format!("{id:03}{at:03} ")).collect();
            Agent { tags, capabilities: can, description, ..Agent::new(id, &format!("a{id}@.")) }
        };
        let all: Vec<Agent> = (1..=200).map(of_words).collect();
        let mut index = index(&all);
        all[..99].iter().for_each(|agent| index.remove(&agent.id()));
        for agent in &all[99..190] {
            Agent { description: "plain".into(), ..Agent::new(agent.id, &agent.name) }
                .insert_into(&mut index);
        }
        let kept = [index.words.stems.len(), index.tags.len(), index.capabilities.len()];
        assert_eq!(kept, [1 + 91 + 10 * 23, 10, 10]);
        for id in 191..=200 {
            assert_eq!(found(&index, &format!("{id:03}007")), [id]);
            let labelled = Query {
                tags: strings(&[&format!("tag{id}")]),
                capabilities: strings(&[&format!("can{id}")]),
                ..Query::default()
            };
            assert_eq!(ids(&index.search(&labelled, 10, None)), [id]);
        }
        of_words(200).insert_into(&mut index);
        Agent::new(199, "a199@.").insert_into(&mut index);
        all[3].insert_into(&mut index);
        for (word, id) in [("200019", vec![200]), ("199019", vec![]), ("004000", vec![4]), ("100100", vec![])]
        {
            assert_eq!(found(&index, word), id, "{word}");
        }
        assert_eq!(found(&index, "plain").len(), 91);
    }

    #[test]
    fn every_owner_of_a_name_is_found_by_it() {
        let index = index_of(&["a@org", "b@org", "a@org", "a@com"]);
        assert_eq!(index.by_name(&name("a@org")), [AgentId([1; 20]), AgentId([3; 20])]);
        assert_eq!(index.by_name(&name("c@org")), []);
    }

    #[test]
    fn an_original_name_is_found_whole_and_exact() {
        let original =
            |id, name, original: &str| Agent { original: Some(original.into()), ..Agent::new(id, name) };
        let index = index(&[
            original(1, "b@.", "ai.exa/exa"),
            original(2, "a@.", "ai.exa/exa"),
            original(3, "c@.", "ai.exa/exa2"),
        ]);
        assert_eq!(index.by_original_name("ai.exa/exa"), [AgentId([2; 20]), AgentId([1; 20])]);
        assert_eq!(index.by_original_name("ai.exa/Exa"), []);
    }

    #[test]
    fn a_limit_is_clamped_and_the_last_page_has_no_cursor() {
        let index = index_of(&["a@.", "b@.", "c@."]);
        assert_eq!(ids(&index.list(None, 0, None)), [1]);
        assert_eq!(index.list(None, 3, None).next, None);
        assert_eq!(index.list(None, usize::MAX, None).next, None);
        let page = index.list(None, 2, None);
        assert_eq!(ids(&index.list(None, 2, page.next.as_ref())), [3]);
    }

    #[test]
    fn hostile_queries_cost_little_and_never_panic() {
        let index = index_of(&["a@.", "weather@."]);
        let many_words: String = (0..100_000).map(|word| format!("w{word} ")).collect();
        for text in [
            "\0",
            "\u{202e}\u{200b}",
            &"\u{301}".repeat(100_000),
            &"\u{fdfa}".repeat(1000),
            &many_words,
            &"a".repeat(1 << 20),
        ] {
            found(&index, text);
        }
        assert_eq!(
            found(&index, &format!("{} weather", "x ".repeat(QUERY_BYTES_MAX))),
            [0u8; 0],
            "beyond the limit"
        );
        let many_tags = Query { tags: vec!["a".into(); 100_000], ..Query::default() };
        assert_eq!(ids(&index.search(&many_tags, 10, None)), [0u8; 0]);
    }

    #[test]
    fn a_cursor_of_another_query_neither_panics_nor_adds_what_does_not_match() {
        let index = index_of(&["weather@.", "forecast@.", "weather-forecast@.", "forecast-b@."]);
        let cursor = index.search(&words("weather forecast"), 1, None).next.unwrap();
        for text in ["", "forecast", "forecast weather paris"] {
            let page = index.search(&words(text), 10, Some(&cursor));
            let all = index.search(&words(text), 10, None);
            assert!(page.hits.iter().all(|hit| all.hits.iter().any(|other| other.id == hit.id)), "{text}");
        }
    }

    /// Small alphabets, so that entries and queries meet.
    fn agents() -> impl Strategy<Value = Agent> {
        let name = (
            "([ab]{1,2}(-fox|-the)?|jumps|the|git-hub|github)",
            prop::sample::select(vec![".", "org", "x.org", "y.x.org", "com"]),
        );
        let label =
            prop::collection::vec(prop::sample::select(vec!["Fox", "fox", "dog jumps", "cat", "ÇAT"]), 0..3);
        let texts = prop::option::of("(fox|dog|the) [ab]");
        let description = "((fox|dogs|jumping|the|cat|catdog|invoice|credit card|githb) ){0,6}";
        let residency = prop::option::of(prop::sample::select(vec!["EU", "eu", "us"]));
        (0..40u8, name, texts.clone(), texts, label.clone(), label, residency, description).prop_map(
            |(id, (agent, zone), title, original, tags, capabilities, residency, description)| Agent {
                title,
                original,
                tags: strings(&tags),
                capabilities: strings(&capabilities),
                residency: residency.map(str::to_owned),
                description,
                ..Agent::new(id, &format!("{agent}@{zone}"))
            },
        )
    }

    fn queries() -> impl Strategy<Value = Query> {
        let zone = prop::option::of(prop::sample::select(vec![".", "org", "x.org", "com", "net"]));
        let label = || prop::collection::vec(prop::sample::select(vec!["FOX", "dog jumps", "cat", ""]), 0..2);
        let residency = prop::option::weighted(0.2, prop::sample::select(vec!["eu", "US", "br"]));
        (
            "((fox|dogs|the|a|jump|b|owl|jumpin|payments|cat dog|jmup|github|find) ){0,4}",
            zone,
            label(),
            label(),
            residency,
        )
            .prop_map(|(text, zone, tags, capabilities, residency)| Query {
                text,
                zone: zone.map(|zone| zone.parse().unwrap()),
                zones: Vec::new(),
                tags: strings(&tags),
                capabilities: strings(&capabilities),
                residency: residency.map(|text| text.parse().unwrap()),
            })
    }

    #[derive(Clone, Debug)]
    enum Change {
        Insert(Agent),
        Remove(u8),
    }

    fn changes(count: usize) -> impl Strategy<Value = Vec<Change>> {
        let change =
            prop_oneof![3 => agents().prop_map(Change::Insert), 1 => (0..40u8).prop_map(Change::Remove)];
        prop::collection::vec(change, 0..count)
    }

    fn apply(index: &mut Index, model: &mut BTreeMap<u8, Agent>, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Insert(agent) => {
                    agent.insert_into(index);
                    model.insert(agent.id, agent);
                }
                Change::Remove(id) => {
                    index.remove(&AgentId([id; 20]));
                    model.remove(&id);
                }
            }
        }
    }

    /// How often each field has each word, the lengths of the fields, and what all of it means.
    fn model_words(agent: &Agent) -> (BTreeMap<String, Counts>, Counts, Vector) {
        let (mut words, mut lengths, mut sum) = (BTreeMap::<String, Counts>::new(), [0; 3], Sum::new());
        for (field, texts) in agent.texts().into_iter().enumerate() {
            texts.into_iter().for_each(|text| {
                token::each_word(text, |word| {
                    lengths[field] += 1;
                    words.entry(word.to_owned()).or_default()[field] += 1;
                })
            });
        }
        for (word, [names, labels, prose]) in &words {
            if let Some(number) = meaning::table().number(word) {
                sum.add(number, i32::from((*names).min(1) + labels + prose));
            }
        }
        (words, lengths, sum.vector())
    }

    /// The score of one agent, by itself.
    fn model_score(agent: &Agent, asked: &Asked) -> Option<f32> {
        let (words, lengths, meaning) = model_words(agent);
        if asked.terms.is_empty() {
            let called: BTreeSet<String> =
                agent.texts()[0].iter().flat_map(|name| idle_words(&Vocabulary::new(), name)).collect();
            let had = asked.idle.iter().filter(|word| called.contains(*word)).count();
            return (had > 0).then_some(had as f32);
        }
        let (mut gained, mut had) = (0.0, 0);
        for term in &asked.terms {
            let of_word = |(word, counts): (&String, &Counts)| {
                Some(term.weight * term.worth_of(word)? * rank::impact(*counts, &rank::Lengths::of(lengths)))
            };
            if let Some(best) = words.iter().filter_map(of_word).reduce(f32::max) {
                gained += best;
                had += 1;
            }
        }
        let weight = asked.terms.iter().map(|term| term.weight).sum();
        let weights = rank::Weights { count: asked.terms.len() as f32, weight };
        rank::score(gained, had, &weights, meaning.nearness(&asked.meaning))
    }

    fn model_allows(agent: &Agent, query: &Query) -> bool {
        let has = |have: &[String], asked: &[String]| {
            let asked = asked.iter().map(|text| token::label(text)).filter(|text| !text.is_empty());
            asked.into_iter().all(|text| have.iter().any(|label| token::label(label) == text))
        };
        has(&agent.tags, &query.tags)
            && has(&agent.capabilities, &query.capabilities)
            && query.residency.as_ref().is_none_or(|asked| {
                agent.residency.as_ref().is_some_and(|text| text.parse().as_ref() == Ok(asked))
            })
            && query.zone.as_ref().is_none_or(|zone| name(&agent.name).zone.is_within(zone))
    }

    /// Every hit of a query, one entry after the other.
    fn model_search(model: &BTreeMap<u8, Agent>, query: &Query) -> Vec<(AgentId, f32)> {
        let asked = Asked::of(&query.text);
        let score = |agent: &Agent| match query.text.trim().is_empty() {
            true => Some(0.0),
            false => model_score(agent, &asked),
        };
        let allowed = model.values().filter(|agent| model_allows(agent, query));
        let mut hits: Vec<(f32, FullName, AgentId)> =
            allowed.filter_map(|agent| Some((score(agent)?, name(&agent.name), agent.id()))).collect();
        hits.sort_by(|a, b| {
            b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal).then_with(|| (&a.1, a.2).cmp(&(&b.1, b.2)))
        });
        hits.into_iter().map(|(score, _, id)| (id, score)).collect()
    }

    /// All pages of an answer, cursors passed as text.
    fn pages(mut page_after: impl FnMut(Option<&Cursor>) -> Page) -> Vec<(AgentId, f32)> {
        let (mut hits, mut after) = (Vec::new(), None);
        loop {
            let page = page_after(after.as_ref());
            hits.extend(page.hits.iter().map(|hit| (hit.id, hit.score)));
            assert!(hits.len() < 10_000, "pages come round again");
            match page.next {
                Some(next) => after = Some(next.to_string().parse().unwrap()),
                None => return hits,
            }
        }
    }

    fn check(
        index: &Index,
        model: &BTreeMap<u8, Agent>,
        queries: Vec<Query>,
        limit: usize,
    ) -> Result<(), TestCaseError> {
        prop_assert_eq!(index.len(), model.len());
        for query in queries {
            let expected = model_search(model, &query);
            prop_assert_eq!(&pages(|after| index.search(&query, limit, after)), &expected, "{:?}", query);
            let listed = model_search(model, &Query { zone: query.zone.clone(), ..Query::default() });
            prop_assert_eq!(pages(|after| index.list(query.zone.as_ref(), limit, after)), listed);
        }
        for agent in model.values() {
            let alike = index.grams.nearest(name(&agent.name).agent.as_str(), usize::MAX);
            let mut alike = alike.into_iter().filter_map(|entry_id| index.key(entry_id));
            prop_assert!(alike.any(|key| key.id == agent.id()), "{} by its letters", agent.name);
            let same = model.values().filter(|other| other.name == agent.name).map(Agent::id);
            prop_assert_eq!(index.by_name(&name(&agent.name)), same.collect::<Vec<_>>());
            if let Some(original) = &agent.original {
                let mut found = index.by_original_name(original);
                found.sort();
                let same = model.values().filter(|other| other.original == agent.original).map(Agent::id);
                prop_assert_eq!(found, same.collect::<Vec<_>>());
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn search_list_and_paging_agree_with_looking_at_every_entry(
            changes in changes(80), queries in prop::collection::vec(queries(), 4), limit in 1..7usize,
        ) {
            let (mut index, mut model) = (Index::new(), BTreeMap::new());
            apply(&mut index, &mut model, changes);
            check(&index, &model, queries, limit)?;
        }

        #[test]
        fn an_index_that_takes_in_another_is_as_if_its_entries_had_been_inserted(
            here in changes(60), there in changes(60), later in changes(60),
            queries in prop::collection::vec(queries(), 4), limit in 1..7usize,
        ) {
            let (mut index, mut model) = (Index::new(), BTreeMap::new());
            let (mut other, mut others) = (Index::new(), BTreeMap::new());
            apply(&mut index, &mut model, here);
            apply(&mut other, &mut others, there);
            index.absorb(other);
            others.into_iter().for_each(|(id, agent)| _ = model.entry(id).or_insert(agent));
            check(&index, &model, queries.clone(), limit)?;
            apply(&mut index, &mut model, later);
            check(&index, &model, queries, limit)?;
            model.keys().for_each(|id| index.remove(&AgentId([*id; 20])));
            let left = index.words.stems.len() + index.tags.len() + index.capabilities.len() + index.residencies.len();
            prop_assert_eq!((left, index.zones.len(), index.idle_names.len(), index.originals.len()), (0, 0, 0, 0));
            prop_assert!(index.grams.is_empty());
        }

        #[test]
        fn paging_neither_repeats_nor_skips_what_did_not_change(
            before in changes(80), between in prop::collection::vec(changes(6), 12), query in queries(), limit in 1..5usize,
        ) {
            let (mut index, mut model) = (Index::new(), BTreeMap::new());
            apply(&mut index, &mut model, before);
            let expected = model_search(&model, &query);
            let mut changed = BTreeSet::new();
            let mut between = between.into_iter();
            let seen = pages(|after| {
                let page = index.search(&query, limit, after);
                let changes = between.next().unwrap_or_default();
                changed.extend(changes.iter().map(|change| match change {
                    Change::Insert(agent) => agent.id(),
                    Change::Remove(id) => AgentId([*id; 20]),
                }));
                apply(&mut index, &mut model, changes);
                page
            });
            let unchanged = |hits: Vec<(AgentId, f32)>| -> Vec<(AgentId, f32)> {
                hits.into_iter().filter(|(id, _)| !changed.contains(id)).collect()
            };
            prop_assert_eq!(unchanged(seen), unchanged(expected));
        }
    }
}
