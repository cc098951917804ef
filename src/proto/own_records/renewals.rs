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

    /// The next one that is due by `now`; it is planned no longer.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Option<KeyHash> {
        let (_, key) = *self.due.first().filter(|(at, _)| *at <= now)?;
        self.cancel(&key);
        Some(key)
    }
}
