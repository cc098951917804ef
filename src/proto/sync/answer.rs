//! The answering side of a comparison: it keeps no state, and no answer takes longer than some milliseconds.

use std::sync::Arc;

use super::push::Batch;
use crate::proto::fingerprint::{self, Prefix};
use crate::proto::limits::SYNC_LOOKED_MAX;
use crate::proto::message::{Item, SYNC_ITEMS_MAX, SyncAnswer, SyncFrame, SyncRequest};
use crate::proto::record::Record;
use crate::proto::registry::Registry;
use crate::proto::time::Timestamp;

/// The wait of an asker while the tree is hashed anew for it, which takes several turns.
const HASHING_MS: u64 = 10;

/// The answering side: what `registry` says to a request, in a few milliseconds whatever it is: what takes longer ends with a
/// place to go on from, or is to be asked again. `Give` is answered by the caller, who merges first.
pub fn answer(frame: &SyncFrame, registry: &mut Registry, now: Timestamp) -> SyncAnswer {
    try_answer(frame, registry, now).unwrap_or(SyncAnswer::Busy { wait_ms: HASHING_MS })
}

/// Nothing, if more is to be hashed first than one turn may take.
fn try_answer(frame: &SyncFrame, registry: &mut Registry, now: Timestamp) -> Option<SyncAnswer> {
    let (as_of, mut work) = (frame.as_of, SYNC_LOOKED_MAX);
    Some(match &frame.request {
        SyncRequest::Open { author, .. } => SyncAnswer::Opened {
            root: registry.digest_within(Prefix::ROOT, as_of, &mut work)?,
            head: registry.head(author),
            clock: now,
            // Not of the registry: who answers adds it.
            heard: None,
            whole: false,
            alive: Vec::new(),
        },
        SyncRequest::Children { prefixes } => {
            let mut children = prefixes.iter().flat_map(|prefix| prefix.children());
            let digests = children.try_fold(Vec::new(), |mut digests, child| {
                digests.push(registry.digest_within(child, as_of, &mut work)?);
                Some(digests)
            });
            SyncAnswer::Children(digests?)
        }
        SyncRequest::Items { leaves, after } => {
            let below =
                leaves.iter().filter(|leaf| leaf.is_leaf()).flat_map(|leaf| registry.below(*leaf, *after));
            items_that_fit(below, |held| fingerprint::covers(held, as_of) && !held.is_expired(now))
        }
        SyncRequest::Records { keys } => {
            let held = keys.iter().filter_map(|key| registry.get(key));
            records_that_fit(held, |held| held.is_public() && !held.is_expired(now))
        }
        SyncRequest::Subtree { prefix, after, stamped_by } => {
            let is_due = |held: &Record| stamped_by.is_none_or(|by| held.stamp.wall <= by);
            let below = registry.below(*prefix, *after);
            records_that_fit(below, |held| fingerprint::covers(held, as_of) && is_due(held))
        }
        SyncRequest::Give { .. } => SyncAnswer::Taken,
        SyncRequest::Versions { authors } => SyncAnswer::Versions {
            root: registry.digest_within(Prefix::ROOT, as_of, &mut work)?,
            prefixes: authors.iter().map(|author| registry.vector().prefix(author)).collect(),
        },
    })
}

fn items_that_fit<'a>(
    mut held: impl Iterator<Item = &'a Arc<Record>>,
    is_wanted: impl Fn(&Record) -> bool,
) -> SyncAnswer {
    let (mut items, mut last) = (Vec::new(), None);
    for record in held.by_ref().take(SYNC_LOOKED_MAX) {
        last = Some(record.key());
        if is_wanted(record) {
            items.push(Item::of(record));
        }
        if items.len() == SYNC_ITEMS_MAX {
            break;
        }
    }
    SyncAnswer::Items { items, next: held.next().and(last) }
}

fn records_that_fit<'a>(
    mut held: impl Iterator<Item = &'a Arc<Record>>,
    is_wanted: impl Fn(&Record) -> bool,
) -> SyncAnswer {
    let (mut batch, mut last) = (Batch::default(), None);
    let mut is_over = true;
    for record in held.by_ref().take(SYNC_LOOKED_MAX) {
        if is_wanted(record) && !batch.take(record) {
            is_over = false;
            break;
        }
        last = Some(record.key());
    }
    let next = if is_over { held.next().and(last) } else { last };
    SyncAnswer::Records { records: batch.bytes(), next }
}
