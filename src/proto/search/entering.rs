//! How an entry is entered and taken out: its words with their impacts, what it means, its labels, its names.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::meaning::{Sum, Vector};
use super::order::Key;
use super::rank::{self, Counts, Field};
use super::vocabulary::Vocabulary;
use super::{Entry, Index, Row, token, zone_path};
use crate::proto::limits::LABELS_MAX;

/// Bytes of an entry's texts for each of its words, where parts of words in camelCase are among them: what is paid for a
/// byte ([`crate::proto::limits::SEARCHED_BYTE_WEIGHT`]) is reckoned for words of five bytes with what cuts them off, and a part
/// is cut off by nothing.
pub(super) const BYTES_PER_WORD: usize = 5;
/// Parts of words in camelCase that an entry may have in any case: room for two names in a text of a few bytes.
pub(super) const PARTS_MIN: usize = 4;

impl Index {
    /// Puts the id under its name and zone, away from those of `old` where they differ.
    pub(super) fn place(&mut self, entry_id: u32, entry: &Entry<'_>, old: Option<&Row>) -> Arc<Key> {
        match old {
            Some(old) if old.key.name == *entry.name => return old.key.clone(),
            Some(old) => self.displace(entry_id, &old.key),
            None => {}
        }
        // Shared by the order of names and the row: names are most of what an entry weighs.
        let key = Arc::new(Key { name: entry.name.clone(), id: entry.id });
        self.names.insert(key.clone(), entry_id);
        self.grams.insert(key.name.agent.as_str(), entry_id);
        self.zones.entry(zone_path(&key.name.zone)).or_default().insert(entry_id);
        key
    }

    pub(super) fn displace(&mut self, entry_id: u32, key: &Key) {
        self.names.remove(key);
        self.grams.remove(key.name.agent.as_str(), entry_id);
        let path = zone_path(&key.name.zone);
        if let Some(entry_ids) = self.zones.get_mut(&path) {
            entry_ids.remove(entry_id);
            // An empty set would be walked by every question that names a zone above it.
            if entry_ids.is_empty() {
                self.zones.remove(&path);
            }
        }
    }

    /// Enters the id under words, labels and original name; what stood there before is overwritten in place.
    pub(super) fn enter(
        &mut self,
        entry_id: u32,
        entry: &Entry<'_>,
        key: Arc<Key>,
        old: Option<&Row>,
    ) -> Row {
        let (words, meaning) = self.count_words(entry);
        self.meanings[entry_id as usize] = meaning;
        if old.is_some() {
            self.forget_idle_names(entry_id);
        }
        let names = [Some(entry.name.agent.as_str()), entry.title, entry.original_name];
        let idle = names.into_iter().flatten().flat_map(|name| idle_words(&self.words, name));
        for word in idle {
            self.idle_names.entry(word).or_default().insert(entry_id);
        }
        for (word, impact) in &words {
            self.words.stems.at(*word).put(entry_id, *impact);
        }
        let original = match old.and_then(|old| old.original.clone()) {
            Some(same) if entry.original_name == Some(&same) => Some(same),
            _ => entry.original_name.map(Arc::from),
        };
        self.originals.extend(original.iter().map(|original| (original.clone(), entry_id)));
        Row {
            key,
            original,
            words: words.into_iter().map(|(word, _)| word).collect(),
            tags: self.tags.enter(entry.tags, entry_id),
            capabilities: self.capabilities.enter(entry.capabilities, entry_id),
            residency: self.residencies.enter(entry.residency.map(str::to_owned).as_slice(), entry_id),
        }
    }

    pub(super) fn forget_idle_names(&mut self, entry_id: u32) {
        self.idle_names.retain(|_, entry_ids| {
            entry_ids.remove(entry_id);
            !entry_ids.is_empty()
        });
    }

    /// The distinct words of an entry by id, each with its impact, and what all of them mean.
    fn count_words(&mut self, entry: &Entry<'_>) -> (Vec<(u32, f32)>, Vector) {
        let names = [Some(entry.name.agent.as_str()), entry.title, entry.original_name];
        let names = names.into_iter().flatten().map(|text| (Field::Name, text));
        let labels = entry.tags.iter().take(LABELS_MAX).chain(entry.capabilities.iter().take(LABELS_MAX));
        let labels = labels.map(|text| (Field::Labels, text.as_str()));
        let prose = [Some(entry.description), entry.skills].into_iter().flatten();
        let prose = prose.map(|text| (Field::Description, text));
        // A sorted list and not a map: a card has some dozens of words, and sorting them touches memory once.
        let mut seen: Vec<(u32, Field)> = Vec::with_capacity(64);
        let (mut bytes, mut parts) = (0, BTreeSet::new());
        for (field, text) in names.chain(labels).chain(prose) {
            bytes += text.len();
            token::each_unstemmed(text, |word| seen.push((self.words.intern_unstemmed(word), field)));
            token::each_part(text, |part| {
                parts.insert((field, part.to_owned()));
            });
        }
        seen.sort_unstable();
        if !parts.is_empty() {
            let distinct = seen.chunk_by(|a, b| a.0 == b.0).count();
            let room = PARTS_MIN + (bytes / BYTES_PER_WORD).saturating_sub(distinct);
            let parts = parts.iter().take(room);
            seen.extend(parts.map(|(field, part)| (self.words.intern_unstemmed(part), *field)));
            seen.sort_unstable();
        }
        let lengths = rank::Lengths::of(count(&seen));
        let mut sum = Sum::new();
        for same in seen.chunk_by(|a, b| a == b) {
            // A name, a title and an original name say the same again.
            let times = if same[0].1 == Field::Name { 1 } else { same.len() };
            self.words.add_meaning(same[0].0, times, &mut sum);
        }
        let of_word = |same: &[(u32, Field)]| (same[0].0, rank::impact(count(same), &lengths));
        (seen.chunk_by(|a, b| a.0 == b.0).map(of_word).collect(), sum.vector())
    }

    /// Takes the id out from under everything that `old` has and `kept` has not.
    pub(super) fn withdraw(&mut self, entry_id: u32, old: &Row, kept: Option<&Row>) {
        for word in gone(&old.words, kept.map(|row| &*row.words)) {
            self.words.stems.at(word).remove(entry_id);
            // Words of deleted agents are forgotten, or a stranger could grow the vocabulary for ever by renaming one agent.
            if self.words.stems.at(word).len() == 0 {
                self.words.stems.release(word);
            }
        }
        self.tags.withdraw(gone(&old.tags, kept.map(|row| &*row.tags)), entry_id);
        let capabilities = gone(&old.capabilities, kept.map(|row| &*row.capabilities));
        self.capabilities.withdraw(capabilities, entry_id);
        let residency = gone(&old.residency, kept.map(|row| &*row.residency));
        self.residencies.withdraw(residency, entry_id);
        if let Some(original) = &old.original
            && kept.is_none_or(|row| row.original != old.original)
        {
            self.originals.remove(&(original.clone(), entry_id));
        }
    }
}

/// The words of a name that decide nothing, where half of its words or more are such: it is found by them.
pub(super) fn idle_words(words: &Vocabulary, name: &str) -> BTreeSet<String> {
    let (mut idle, mut all, mut distinct) = (0, 0, BTreeSet::new());
    let mut take = |word: &str| {
        let stem = words.stem(word);
        all += 1;
        if token::is_idle(&stem) {
            idle += 1;
            distinct.insert(stem.into_owned());
        }
    };
    token::each_unstemmed(name, &mut take);
    token::each_part(name, &mut take);
    if 2 * idle >= all { distinct } else { BTreeSet::new() }
}

fn count(seen: &[(u32, Field)]) -> Counts {
    let mut counts: Counts = [0; 3];
    for (_, field) in seen {
        counts[*field as usize] = counts[*field as usize].saturating_add(1);
    }
    counts
}

/// The ids of `old` that are not in `kept`; both are sorted.
fn gone(old: &[u32], kept: Option<&[u32]>) -> impl Iterator<Item = u32> {
    old.iter().copied().filter(move |id| kept.is_none_or(|kept| kept.binary_search(id).is_err()))
}
