//! What is due, by time and, within a millisecond, in the order in which it was planned.

use std::collections::{BTreeMap, VecDeque};

use super::Due;

/// Emptied lists that are kept to be filled again: about as many milliseconds as have something due at once.
const SPARE_MAX: usize = 256;
/// Longer ones are not kept: they are of a rare burst.
const SPARE_LENGTH_MAX: usize = 64;

/// Everything that is due.
#[derive(Default)]
pub(super) struct Queue {
    later: BTreeMap<u64, VecDeque<Due>>,
    spare: Vec<VecDeque<Due>>,
}

impl Queue {
    pub(super) fn push(&mut self, at: u64, due: Due) {
        let spare = &mut self.spare;
        self.later.entry(at).or_insert_with(|| spare.pop().unwrap_or_default()).push_back(due);
    }

    /// The next thing that is due by `until`, and when.
    pub(super) fn pop(&mut self, until: u64) -> Option<(u64, Due)> {
        loop {
            let mut first = self.later.first_entry().filter(|first| *first.key() <= until)?;
            let at = *first.key();
            if let Some(due) = first.get_mut().pop_front() {
                return Some((at, due));
            }
            let empty = first.remove();
            if self.spare.len() < SPARE_MAX && empty.capacity() <= SPARE_LENGTH_MAX {
                self.spare.push(empty);
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Due> {
        self.later.values().flatten()
    }
}
