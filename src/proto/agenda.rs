//! What is due when, of many of a kind: what is due first is at hand, however many there are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::time::Timestamp;

/// Times at which each of many is due.
#[derive(Debug)]
pub(super) struct Agenda<K> {
    times: BTreeMap<K, Timestamp>,
    order: BTreeSet<(Timestamp, K)>,
}

impl<K> Default for Agenda<K> {
    fn default() -> Agenda<K> {
        Agenda { times: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Agenda<K> {
    /// One of them is due then, and not when it was before; or never.
    pub(super) fn set(&mut self, key: &K, at: Option<Timestamp>) {
        let before = match at {
            Some(at) => self.times.insert(key.clone(), at),
            None => self.times.remove(key),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.order.remove(&(before, key.clone()));
        }
        self.order.extend(at.map(|at| (at, key.clone())));
    }

    /// As [`Agenda::set`], unless it is due before.
    pub(super) fn hurry(&mut self, key: &K, at: Timestamp) {
        let before = self.times.get(key).copied();
        self.set(key, Some(before.map_or(at, |before| before.min(at))));
    }

    /// When the first is due.
    pub(super) fn first(&self) -> Option<Timestamp> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Those that are due, by their keys.
    pub(super) fn due(&self, now: Timestamp) -> Vec<K> {
        let due = self.order.iter().take_while(|(at, _)| *at <= now);
        let mut due: Vec<K> = due.map(|(_, key)| key.clone()).collect();
        due.sort_unstable();
        due
    }

    /// The clock went back by `step`.
    pub(super) fn shift(&mut self, step: Duration) {
        self.times.values_mut().for_each(|at| *at = *at - step);
        self.order = self.times.iter().map(|(key, at)| (*at, key.clone())).collect();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_tells_what_a_list_would(
            changes in prop::collection::vec((0u8..6, prop::option::of(0u64..20), 0u8..3), 0..60),
            now in 0u64..20,
        ) {
            let (mut agenda, mut list) = (Agenda::default(), BTreeMap::<u8, u64>::new());
            for (key, at, kind) in changes {
                match (kind, at) {
                    (0, Some(at)) => {
                        agenda.hurry(&key, Timestamp(at));
                        let known = list.entry(key).or_insert(at);
                        *known = at.min(*known);
                    }
                    (1, Some(step)) if list.values().all(|at| *at >= step) => {
                        agenda.shift(Duration::from_millis(step));
                        list.values_mut().for_each(|at| *at -= step);
                    }
                    (_, at) => {
                        agenda.set(&key, at.map(Timestamp));
                        match at {
                            Some(at) => list.insert(key, at),
                            None => list.remove(&key),
                        };
                    }
                }
                prop_assert_eq!(agenda.first(), list.values().min().copied().map(Timestamp));
                let due: Vec<u8> = list.iter().filter(|(_, at)| **at <= now).map(|(key, _)| *key).collect();
                prop_assert_eq!(agenda.due(Timestamp(now)), due);
            }
        }
    }
}
