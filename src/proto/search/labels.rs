//! Tags or capabilities, compared whole, each with the entries that have it.

use std::borrow::Cow;
use std::collections::BTreeSet;

use roaring::RoaringBitmap;

use super::absorb::place;
use super::dictionary::Dictionary;
use super::holders::Holders;
use super::token;
use crate::proto::limits::LABELS_MAX;

/// Labels, folded.
#[derive(Debug, Default)]
pub(super) struct Labels(Dictionary<Holders>);

impl Labels {
    /// Enters an entry under its labels, of which the first 64 count; their ids, sorted.
    pub(super) fn enter(&mut self, texts: &[String], entry_id: u32) -> Box<[u32]> {
        let labels = texts.iter().take(LABELS_MAX);
        let mut ids: Vec<u32> = labels.map(|text| self.0.intern(&token::label(text))).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.iter().for_each(|id| self.0.at(*id).insert(entry_id));
        ids.into()
    }

    /// Takes an entry out from under labels; what nobody has any more is forgotten.
    pub(super) fn withdraw(&mut self, ids: impl Iterator<Item = u32>, entry_id: u32) {
        for id in ids {
            self.0.at(id).remove(entry_id);
            if self.0.at(id).is_empty() {
                self.0.release(id);
            }
        }
    }

    /// Takes in the labels of another index, whose entries have other ids here; the new id of each label by the old one.
    pub(super) fn absorb(&mut self, other: Labels, places: &[u32]) -> Vec<u32> {
        let Labels(mut other) = other;
        let mut ids = vec![u32::MAX; other.ids_end()];
        for old in other.sorted_ids() {
            let holders = std::mem::take(other.at(old));
            let taken: Vec<u32> = holders.set().iter().filter_map(|it| place(places, it)).collect();
            if !taken.is_empty() {
                let id = self.0.intern(other.text(old));
                taken.into_iter().for_each(|entry_id| self.0.at(id).insert(entry_id));
                ids[old as usize] = id;
            }
        }
        ids
    }

    /// Who has each of the asked labels, blank ones aside; `None` if one is unknown, so that nothing matches.
    pub(super) fn asked(&self, texts: &[String]) -> Option<Vec<Cow<'_, RoaringBitmap>>> {
        let folded: BTreeSet<String> = texts.iter().map(|text| token::label(text)).collect();
        let named = folded.iter().filter(|text| !text.is_empty());
        named.map(|text| self.0.find(text).map(Holders::set)).collect()
    }

    /// As [`Dictionary::renumber`].
    pub(super) fn renumber(&mut self) -> Option<Vec<u32>> {
        self.0.renumber()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
