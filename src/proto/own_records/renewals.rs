//! When each own record is to be written or tried again.

use std::collections::{BTreeMap, BTreeSet};

use crate::proto::record::KeyHash;
use crate::proto::time::Timestamp;

/// One time for each key.
#[derive(Default)]
pub(super) struct Renewals {
    due: BTreeSet<(Timestamp, KeyHash)>,
    /// Its one entry in `due`.
    of: BTreeMap<KeyHash, Timestamp>,
}

impl Renewals {
    pub(super) fn plan(&mut self, at: Timestamp, key: KeyHash) {
        self.cancel(&key);
        self.of.insert(key, at);
        self.due.insert((at, key));
    }

    pub(super) fn cancel(&mut self, key: &KeyHash) {
        if let Some(at) = self.of.remove(key) {
            self.due.remove(&(at, *key));
        }
    }

    pub(super) fn first(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Those that are due by `now`, first planned first; they are planned no longer.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Vec<KeyHash> {
        let mut due = Vec::new();
        while let Some((_, key)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.cancel(&key);
            due.push(key);
        }
        due
    }
}
