//! Which slot an own record stands in (protocol section 1).
//!
//! A new key takes the lowest free slot of its shelf and keeps it, its tombstone too: of two versions of a key the smaller
//! slot wins, so a greater one would never stand. A folder that does not know what an earlier one wrote with its key begins
//! far above, until a peer has told it.

use std::collections::BTreeMap;

use super::write::Draft;
use crate::proto::io::Write;
use crate::proto::limits::{SLOTS, SLOTS_UNKNOWN_FROM};
use crate::proto::name::ZoneName;
use crate::proto::persistence;
use crate::proto::record::{KeyHash, Record, Shelf};
use crate::proto::registration::WriteError;
use crate::proto::registry::Registry;

/// Slots that this folder's own records take, in all zones.
#[derive(Default)]
pub(super) struct Shelves {
    of: BTreeMap<(ZoneName, Shelf), Slots>,
    knowledge: Knowledge,
}

#[derive(Default)]
struct Slots {
    taken: BTreeMap<u16, KeyHash>,
    /// No slot below is free.
    free_from: u16,
}

/// What this folder knows of the records that peers hold under its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Knowledge {
    /// All of them.
    #[default]
    Complete,
    /// All that it wrote, if it is not an older copy of itself: no peer was heard since the start.
    Unconfirmed,
    /// Some may be missing: it is new under an old key, or behind its own epoch. Kept on disk until a peer was heard.
    Incomplete,
}

impl Shelves {
    pub(super) fn knowledge(&self) -> Knowledge {
        self.knowledge
    }

    /// Takes what is known; the row to be written if that changes on disk.
    pub(super) fn set_knowledge(&mut self, knowledge: Knowledge) -> Option<Write> {
        let is_incomplete = |knowledge| knowledge == Knowledge::Incomplete;
        let before = std::mem::replace(&mut self.knowledge, knowledge);
        (is_incomplete(before) != is_incomplete(knowledge))
            .then(|| persistence::incomplete_row(is_incomplete(knowledge)))
    }

    pub(super) fn take(&mut self, record: &Record) {
        let slots = self.of.entry((record.name.zone.clone(), record.shelf())).or_default();
        slots.taken.insert(record.slot, record.key());
    }

    /// The record stands there no longer, unless another key took the slot since.
    pub(super) fn release(&mut self, record: &Record) {
        let Some(slots) = self.of.get_mut(&(record.name.zone.clone(), record.shelf())) else { return };
        if slots.taken.get(&record.slot) == Some(&record.key()) {
            slots.taken.remove(&record.slot);
            slots.free_from = slots.free_from.min(record.slot);
        }
    }

    /// The lowest slot of a shelf that is free here and in the registry.
    fn lowest_free(&mut self, zone: &ZoneName, shelf: Shelf, registry: &Registry, from: u16) -> Option<u16> {
        let slots = self.of.entry((zone.clone(), shelf)).or_default();
        let is_complete = self.knowledge == Knowledge::Complete;
        let first = if is_complete { slots.free_from } else { from };
        let is_free =
            |slot: &u16| !slots.taken.contains_key(slot) && registry.in_slot(shelf, *slot).is_none();
        let free = (first..SLOTS).find(is_free)?;
        if is_complete {
            slots.free_from = free;
        }
        Some(free)
    }

    /// The slot in which a draft is to stand; `own` is the last own write of its key, `given` the slots of its grant.
    pub(super) fn slot_for(
        &mut self,
        draft: &Draft,
        own: Option<&Record>,
        registry: &Registry,
        given: Option<u16>,
    ) -> Result<u16, WriteError> {
        let (key, shelf) = (draft.key(), draft.shelf());
        let stands = |slot: &u16| registry.in_slot(shelf, *slot).is_none_or(|other| other.key() == key);
        // Both what is held and what was last written here: a greater slot than either would lose against it. Where another key
        // stands no version of this one does, but what is held stands in its own.
        let held = registry.get(&key).map(|held| held.slot);
        let present = held.into_iter().chain(own.map(|own| own.slot)).filter(stands).min();
        if let Some(slot) = present.filter(|slot| !self.is_out_of_place(*slot)) {
            return Ok(slot);
        }
        // Far above what was forgotten; of the few that a zone's key gives in the upper half.
        let from = given.map_or(SLOTS_UNKNOWN_FROM, |given| given / 2);
        let free = self.lowest_free(&draft.name.zone, shelf, registry, from);
        free.into_iter().chain(present).min().ok_or(WriteError::QuotaExceeded)
    }

    /// Whether a slot was taken while the shelf was not known, which it is now.
    pub(super) fn is_out_of_place(&self, slot: u16) -> bool {
        slot >= SLOTS_UNKNOWN_FROM && self.knowledge == Knowledge::Complete
    }
}
