//! One index takes in another, so that parts of many entries can be made beside each other.
//!
//! Reading texts is most of the work of an entry, and that is done: what is left is to find each word of the other once, and to
//! give every entry another id.

use super::{Index, Row, zone_path};

/// Stands for the new id of what is not taken in.
const GONE: u32 = u32::MAX;

impl Index {
    /// Takes in the entries of `other`, but for agents that have one here. It is then as if each had been inserted.
    pub fn absorb(&mut self, other: Index) {
        if self.is_empty() {
            *self = other;
            return;
        }
        let mut take = |row: &Option<Row>| {
            let id = row.as_ref().map(|row| row.key.id).filter(|id| !self.entry_ids.contains_key(id));
            id.map_or(GONE, |id| self.take_entry_id(id))
        };
        let places: Vec<u32> = other.rows.iter().map(&mut take).collect();
        let words = self.words.absorb(other.words, &places);
        let labels = [
            self.tags.absorb(other.tags, &places),
            self.capabilities.absorb(other.capabilities, &places),
            self.residencies.absorb(other.residencies, &places),
        ];
        for (word, entry_ids) in other.idle_names {
            let taken: Vec<u32> = entry_ids.iter().filter_map(|entry_id| place(&places, entry_id)).collect();
            if !taken.is_empty() {
                self.idle_names.entry(word).or_default().extend(taken);
            }
        }
        for ((row, meaning), place) in other.rows.into_iter().zip(other.meanings).zip(places) {
            let Some(mut row) = row.filter(|_| place != GONE) else { continue };
            self.names.insert(row.key.clone(), place);
            self.grams.insert(row.key.name.agent.as_str(), place);
            self.zones.entry(zone_path(&row.key.name.zone)).or_default().insert(place);
            self.originals.extend(row.original.iter().map(|original| (original.clone(), place)));
            self.meanings[place as usize] = meaning;
            renumber(&mut row.words, &words);
            let [tags, capabilities, residencies] = &labels;
            renumber(&mut row.tags, tags);
            renumber(&mut row.capabilities, capabilities);
            renumber(&mut row.residency, residencies);
            self.rows[place as usize] = Some(row);
        }
    }
}

/// The new id of an entry that is taken in.
pub(super) fn place(places: &[u32], entry_id: u32) -> Option<u32> {
    Some(places[entry_id as usize]).filter(|place| *place != GONE)
}

fn renumber(ids: &mut [u32], new: &[u32]) {
    ids.iter_mut().for_each(|id| *id = new[*id as usize]);
    ids.sort_unstable();
}
