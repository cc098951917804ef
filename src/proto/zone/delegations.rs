//! The delegations that a registry holds, by the zones that they name.

use std::collections::BTreeSet;

use crate::proto::name::ZoneName;
use crate::proto::record::{KeyHash, Record};

/// Delegations that came and are told apart from the others.
const FRESH_MAX: usize = 1_024;

/// Keys of delegations, in the order of the tree of zones: what lies below a zone stands behind it, without a gap.
#[derive(Debug, Default)]
pub(in crate::proto) struct Delegations {
    keys: BTreeSet<(ZonePath, KeyHash)>,
    /// Those that came since somebody last looked at all of them; none where they are too many to be told apart.
    fresh: Option<Vec<KeyHash>>,
    /// Grows with every change.
    changes: u64,
}

/// A zone as the labels from the root down, each with what ends it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ZonePath(Vec<u8>);

impl ZonePath {
    fn of(zone: &ZoneName) -> ZonePath {
        if zone.is_root() {
            return ZonePath(Vec::new());
        }
        // Zero sorts before whatever stands in a label, so that a zone comes right before those below it.
        let labels = zone.as_str().rsplit('.');
        ZonePath(labels.flat_map(|label| label.bytes().chain([0])).collect())
    }

    /// What sorts behind everything below.
    fn end(&self) -> ZonePath {
        let mut end = self.0.clone();
        end.push(u8::MAX);
        ZonePath(end)
    }
}

impl Delegations {
    /// A delegation is held, or its tombstone in its place.
    pub(super) fn insert(&mut self, record: &Record) {
        if let Some(delegation) = record.delegation() {
            self.keys.insert((ZonePath::of(&delegation.zone), record.key()));
            self.fresh = self.fresh.take().filter(|fresh| fresh.len() < FRESH_MAX);
            if let Some(fresh) = &mut self.fresh {
                fresh.push(record.key());
            }
        }
        self.changes += 1;
    }

    /// A record is held no more.
    pub(super) fn remove(&mut self, record: &Record) {
        if let Some(delegation) = record.delegation() {
            self.keys.remove(&(ZonePath::of(&delegation.zone), record.key()));
        }
        self.changes += 1;
    }

    pub(in crate::proto) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How often they changed since the start.
    pub(in crate::proto) fn changes(&self) -> u64 {
        self.changes
    }

    /// Somebody looked at all of them.
    pub(in crate::proto) fn note_seen(&mut self) {
        self.fresh = Some(Vec::new());
    }

    /// Those that came since then, or all; some may be gone again.
    pub(in crate::proto) fn fresh(&self) -> impl Iterator<Item = &KeyHash> {
        let all = self.fresh.is_none().then(|| self.keys.iter().map(|(_, key)| key));
        self.fresh.iter().flatten().chain(all.into_iter().flatten())
    }

    /// Those of a zone.
    pub(in crate::proto) fn of(&self, zone: &ZoneName) -> impl Iterator<Item = &KeyHash> {
        let path = ZonePath::of(zone);
        let first = (path.clone(), KeyHash([0; 32]));
        self.keys.range(first..).take_while(move |(of, _)| *of == path).map(|(_, key)| key)
    }

    /// Those of zones strictly below a zone.
    pub(in crate::proto) fn below(&self, zone: &ZoneName) -> impl Iterator<Item = &KeyHash> {
        let path = ZonePath::of(zone);
        let (first, end) = ((path.clone(), KeyHash([0; 32])), (path.end(), KeyHash([0; 32])));
        self.keys.range(first..end).filter(move |(of, _)| *of != path).map(|(_, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_below_a_zone_stands_behind_it_without_a_gap() {
        let names = [".", "org", "acme.org", "x.acme.org", "acme-x.org", "acme0.org", "org2"];
        let mut paths: Vec<(ZonePath, &str)> =
            names.iter().map(|name| (ZonePath::of(&name.parse().unwrap()), *name)).collect();
        paths.sort();
        for of in names {
            let zone: ZoneName = of.parse().unwrap();
            let (path, is_below) =
                (ZonePath::of(&zone), |name: &str| name.parse::<ZoneName>().unwrap().is_within(&zone));
            for (other, name) in &paths {
                assert_eq!(*other >= path && *other < path.end(), is_below(name), "{name} in {of}");
            }
        }
    }
}
