//! What a node held of a zone when it was looked at, and what may become of that.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::proto::config::Quota;
use crate::proto::identity::PeerKey;
use crate::proto::limits::RECORD_BYTES_MAX;
use crate::proto::name::ZoneName;
use crate::proto::record::{Author, KeyHash, Record};
use crate::proto::time::Timestamp;
use crate::sim::fabric::Fabric;

/// Looks at a node: each zone that it holds. Nothing while it is down.
pub(super) fn of(at: usize, fabric: &mut Fabric) -> Vec<(ZoneName, Snapshot)> {
    let Some((node, now)) = fabric.read(at) else { return Vec::new() };
    let states = node.zone_states(now).into_iter();
    let snapshot = |zone: &ZoneName, versions: Vec<(Author, u64)>| Snapshot {
        held: node.records(zone).cloned().collect(),
        prefixes: versions.into_iter().collect(),
    };
    states.map(|state| (state.zone.clone(), snapshot(&state.zone, node.versions(&state.zone)))).collect()
}

/// What a node held when it was last looked at: records by key, and the versions it claimed of each author.
#[derive(Default)]
pub(super) struct Snapshot {
    pub(super) held: Vec<Arc<Record>>,
    pub(super) prefixes: BTreeMap<Author, u64>,
}

impl Snapshot {
    pub(super) fn get(&self, key: &KeyHash) -> Option<&Arc<Record>> {
        // A node gives its records in the order of their keys.
        let at = self.held.binary_search_by_key(key, |record| record.key()).ok()?;
        Some(&self.held[at])
    }

    /// What was held and is no more, though its lease had not ended and no quota took it, with what is held in its place.
    pub(super) fn lost_since<'a>(
        &'a self,
        before: &'a Snapshot,
        wall_max: Timestamp,
        evicted: impl Fn(&Record) -> bool,
    ) -> Option<(&'a Record, Option<&'a Record>)> {
        let mut now = self.held.iter().peekable();
        before.held.iter().find_map(|old| {
            // Both are in the order of keys: one walk through each will do.
            while now.next_if(|it| it.key() < old.key()).is_some() {}
            let held = now.peek().filter(|it| it.key() == old.key());
            // Mostly it is the very same record, and nothing need be compared.
            let is_less = held.is_none_or(|held| !Arc::ptr_eq(held, old) && held.order() < old.order());
            (is_less && old.expires_at > wall_max && !evicted(old))
                .then_some((&**old, held.map(|held| &***held)))
        })
    }

    /// An author other than `own` whose versions shrank though one of its records was held all the time: its lease never
    /// ended on this clock, which may have gone forth and back. Of itself a node knows how much it wrote, until it takes a
    /// new epoch: then it tells of the old one what it sees of it.
    pub(super) fn shrunk_since(
        &self,
        before: &Snapshot,
        own: PeerKey,
        wall_max: Timestamp,
    ) -> Option<(Author, u64, u64)> {
        before.prefixes.iter().find_map(|(author, old)| {
            let prefix = self.prefixes.get(author).copied().unwrap_or(0);
            let kept = |record: &Arc<Record>| {
                record.author == *author
                    && record.expires_at > wall_max
                    && self.get(&record.key()).is_some_and(|it| it.hash() == record.hash())
            };
            (author.key != own && prefix < *old && before.held.iter().any(kept))
                .then_some((*author, *old, prefix))
        })
    }

    /// What is held beyond a quota.
    pub(super) fn beyond(&self, quota: &Quota) -> Option<String> {
        let mut counts = BTreeMap::new();
        for record in &self.held {
            *counts.entry(record.author.key).or_insert(0usize) += 1;
        }
        let (most, bytes) = (counts.into_values().max().unwrap_or(0), self.bytes());
        let is_beyond = most > quota.records_per_author || bytes > quota.bytes;
        is_beyond.then(|| format!("{most} records of one author, {bytes} bytes in all"))
    }

    /// Whether a quota may have taken a record: its author has as many of smaller keys as it may have, or the zone is full.
    pub(super) fn is_evicted(&self, gone: &Record, quota: &Quota) -> bool {
        let smaller = self.held.iter().take_while(|record| record.key() < gone.key());
        let of_author = smaller.filter(|record| record.author.key == gone.author.key).count();
        // Full is what the next record might not fit into, as nobody knows which one was refused.
        let is_full = self.bytes() + RECORD_BYTES_MAX > quota.bytes;
        self.get(&gone.key()).is_none() && (of_author >= quota.records_per_author || is_full)
    }

    fn bytes(&self) -> usize {
        self.held.iter().map(|record| record.bytes().len()).sum()
    }
}
