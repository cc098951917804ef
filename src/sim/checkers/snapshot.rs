//! What a node held of a zone when it was looked at, and what may become of that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::proto::identity::PeerKey;
use crate::proto::limits::{RECORD_BYTES_MAX, RECORD_WEIGHT};
use crate::proto::name::ZoneName;
use crate::proto::record::{Author, KeyHash, Record, RecordKind};
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

    /// What was held and is no more, though its lease had not ended and it had room, with what is held in its place.
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
            let is_less =
                held.is_none_or(|held| !Arc::ptr_eq(held, old) && held.precedence() < old.precedence());
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
                // A delegation takes no version, and outlives the records of an earlier folder.
                record.author() == *author
                    && record.kind != RecordKind::Delegation
                    && record.expires_at > wall_max
                    && self.get(&record.key()).is_some_and(|it| it.hash() == record.hash())
            };
            (author.key != own && prefix < *old && before.held.iter().any(kept))
                .then_some((*author, *old, prefix))
        })
    }

    /// What is held beyond the room of a zone.
    pub(super) fn beyond(&self, weight_max: usize) -> Option<String> {
        let mut slots = BTreeSet::new();
        let shared = self.public().find(|record| !slots.insert((record.shelf(), record.slot)));
        let shared = shared.map(|record| format!("{record:?} in a slot with another"));
        shared
            .or_else(|| (self.weight() > weight_max).then(|| format!("records that weigh {}", self.weight())))
    }

    /// Whether the rule of room may have taken a record: its host may have put another key into its slot, or the zone is full.
    pub(super) fn is_evicted(&self, gone: &Record, weight_max: usize, shares_slot: bool) -> bool {
        // Full is what the next record might not fit into, as nobody knows which one was refused. The cards of worlds are short:
        // with all that is searched of them none weighs more than the largest that is not searched.
        let is_full = self.weight() + RECORD_BYTES_MAX + RECORD_WEIGHT > weight_max;
        // Its host may have moved the key to another slot since.
        let is_gone = self.get(&gone.key()).is_none_or(|held| held.order() > gone.order());
        // Without its slot it leaves no memory, so that even an earlier version may stand where there is one.
        shares_slot || (is_gone && is_full)
    }

    fn public(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.held.iter().filter(|record| record.is_public())
    }

    fn weight(&self) -> usize {
        self.public().map(|record| record.weight()).sum()
    }
}
