//! What the store could not be given: writes that wait until it keeps them again.
//!
//! A durable write waits in any case, for what is remembered must come to agree with what is kept; own records are no part of
//! it, because they are refused instead. Of the rest only so much waits: what is lost comes again from peers.

use std::collections::BTreeMap;
use std::time::Duration;

use super::io::{StoreCondition, Write};
use super::time::Timestamp;

/// Most writes that are not durable and wait: the records of a full zone, at 1 KiB each.
const WAITING_MAX: usize = 262_144;
/// Of these so many are given to the store at once.
const GIVEN_AT_ONCE: usize = 256;
/// The pause after each part: a store takes several thousand rows a second, and this is half of it.
const PAUSE: Duration = Duration::from_millis(100);

/// What the store can do, and what waits for it: of the writes of one row the last.
#[derive(Default)]
pub(super) struct Backlog {
    condition: StoreCondition,
    durable: BTreeMap<Vec<u8>, Write>,
    others: BTreeMap<Vec<u8>, Write>,
    /// When the store is given the next part.
    next: Timestamp,
}

impl Backlog {
    pub(super) fn condition(&self) -> &StoreCondition {
        &self.condition
    }

    /// Answers with what was in force before.
    pub(super) fn set_condition(&mut self, condition: StoreCondition) -> StoreCondition {
        std::mem::replace(&mut self.condition, condition)
    }

    /// Writes that are to be made: those that the store can be given now. The others wait.
    pub(super) fn admit(&mut self, writes: Vec<Write>) -> Vec<Write> {
        writes.into_iter().filter_map(|write| self.admit_one(write)).collect()
    }

    fn admit_one(&mut self, write: Write) -> Option<Write> {
        let kept = match self.condition {
            StoreCondition::Well => true,
            StoreCondition::Short(_) => write.durable,
            StoreCondition::Failed(_) => false,
        };
        // A write of its row that waits is older, and must not come after it.
        self.durable.remove(&write.key);
        self.others.remove(&write.key);
        if kept {
            return Some(write);
        }
        self.put_off(write);
        None
    }

    /// Writes that were not made wait, but for rows of which a later write does.
    pub(super) fn put_back(&mut self, writes: impl IntoIterator<Item = Write>) {
        for write in writes {
            if !self.durable.contains_key(&write.key) && !self.others.contains_key(&write.key) {
                self.put_off(write);
            }
        }
    }

    fn put_off(&mut self, write: Write) {
        if write.durable {
            self.durable.insert(write.key.clone(), write);
        } else if self.others.len() < WAITING_MAX {
            self.others.insert(write.key.clone(), write);
        }
    }

    /// When the store can be given something that waits.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        let waits = match self.condition {
            StoreCondition::Well => !self.durable.is_empty() || !self.others.is_empty(),
            StoreCondition::Short(_) => !self.durable.is_empty(),
            StoreCondition::Failed(_) => false,
        };
        waits.then_some(self.next)
    }

    /// The next that it is given, if that is due: what is durable first, and all of it at once.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Vec<Write> {
        if self.poll_timeout().is_none_or(|due| due > now) {
            return Vec::new();
        }
        if !self.durable.is_empty() {
            return std::mem::take(&mut self.durable).into_values().collect();
        }
        self.next = now + PAUSE;
        std::iter::from_fn(|| self.others.pop_first()).take(GIVEN_AT_ONCE).map(|(_, write)| write).collect()
    }

    /// The local clock went back by `step`.
    pub(super) fn shift(&mut self, step: Duration) {
        self.next = self.next - step;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(key: &[u8], value: u8, durable: bool) -> Write {
        Write { key: key.to_vec(), value: Some([value][..].into()), durable }
    }

    fn failed() -> StoreCondition {
        StoreCondition::Failed("full".into())
    }

    #[test]
    fn a_failed_store_is_given_nothing_and_later_the_last_write_of_each_row_the_durable_ones_first() {
        let mut backlog = Backlog::default();
        backlog.set_condition(failed());
        let first = vec![write(b"a", 1, true), write(b"b", 1, false), write(b"a", 2, true)];
        assert!(backlog.admit(first).is_empty() && backlog.poll_timeout().is_none());
        // What had failed before these is older than they are.
        backlog.put_back([write(b"a", 0, true), write(b"c", 0, true)]);
        backlog.set_condition(StoreCondition::Well);
        let now = Timestamp(1);
        assert_eq!(backlog.take_due(now), [write(b"a", 2, true), write(b"c", 0, true)]);
        assert_eq!(backlog.take_due(now), [write(b"b", 1, false)]);
        assert_eq!(backlog.poll_timeout(), None);
    }

    #[test]
    fn a_store_that_is_short_of_room_is_given_what_is_durable() {
        let mut backlog = Backlog::default();
        backlog.set_condition(StoreCondition::Short("little".into()));
        let admitted = backlog.admit(vec![write(b"a", 1, true), write(b"b", 1, false)]);
        assert_eq!(admitted, [write(b"a", 1, true)]);
        assert_eq!(backlog.poll_timeout(), None);
    }

    #[test]
    fn a_write_that_waits_is_forgotten_when_a_later_one_of_its_row_is_made() {
        let mut backlog = Backlog::default();
        backlog.set_condition(StoreCondition::Short("little".into()));
        backlog.admit(vec![write(b"b", 1, false)]);
        backlog.set_condition(StoreCondition::Well);
        assert_eq!(backlog.admit(vec![write(b"b", 2, false)]), [write(b"b", 2, false)]);
        assert_eq!(backlog.poll_timeout(), None);
    }

    #[test]
    fn what_waits_of_others_is_bounded_and_given_in_parts() {
        let mut backlog = Backlog::default();
        backlog.set_condition(failed());
        let keys = 0..WAITING_MAX as u64 + 10;
        backlog.admit(keys.map(|key| write(&key.to_be_bytes(), 1, false)).collect());
        backlog.set_condition(StoreCondition::Well);
        let (mut given, mut parts) = (0, 0);
        while let Some(due) = backlog.poll_timeout() {
            let part = backlog.take_due(due).len();
            assert!((1..=GIVEN_AT_ONCE).contains(&part));
            (given, parts) = (given + part, parts + 1);
        }
        assert_eq!((given, parts), (WAITING_MAX, WAITING_MAX / GIVEN_AT_ONCE));
    }
}
