//! Own records that the store did not keep: they are taken back, for nobody was told of them.
//!
//! What was before a write is remembered until its turn has been performed. The versions of what is taken back are not used
//! again: the next start may find on the disk what was not known to be there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::OwnRecords;
use crate::proto::context::Context;
use crate::proto::io::Write;
use crate::proto::name::{FullName, ZoneName};
use crate::proto::persistence;
use crate::proto::record::{KeyHash, Record};
use crate::proto::zone::Zones;

/// What was before the writes that are not known to be kept.
#[derive(Default)]
pub(super) struct Unkept {
    before: BTreeMap<KeyHash, Before>,
    file_offers: Option<BTreeSet<FullName>>,
}

/// What stood under an own key.
pub(super) struct Before {
    pub(super) zone: ZoneName,
    /// As the last own write.
    pub(super) own: Option<Arc<Record>>,
    /// In the registry.
    pub(super) held: Option<Arc<Record>>,
}

impl Unkept {
    /// An own key was written.
    pub(super) fn note(&mut self, key: KeyHash, before: Before) {
        // Of several writes the first: what was before it is what is kept.
        self.before.entry(key).or_insert(before);
    }

    /// The names that files offer were written.
    pub(super) fn note_file_offers(&mut self, before: BTreeSet<FullName>) {
        self.file_offers.get_or_insert(before);
    }
}

impl OwnRecords {
    /// Everything that was written is kept.
    pub(in crate::proto) fn note_kept(&mut self) {
        self.unkept = Unkept::default();
    }

    /// Takes back what was written and is not kept. Answers with the writes of which memory stays ahead.
    pub(in crate::proto) fn take_back(
        &mut self,
        ctx: &mut Context<'_>,
        zones: &mut Zones,
        writes: Vec<Write>,
    ) -> Vec<Write> {
        let Unkept { before, file_offers } = std::mem::take(&mut self.unkept);
        let (mut ahead, mut undone) = (Vec::new(), BTreeSet::new());

        for write in writes {
            match persistence::written_key(&write) {
                Some(key) if before.contains_key(&key) => {
                    undone.insert(key);
                }
                _ if persistence::is_file_offers(&write) && file_offers.is_some() => {}
                _ => ahead.push(write),
            }
        }
        for (key, before) in before.into_iter().filter(|(key, _)| undone.contains(key)) {
            restore(self, ctx, zones, key, before);
        }
        if let Some(before) = file_offers {
            self.file_offers = before;
        }
        ahead
    }
}

fn restore(
    own_records: &mut OwnRecords,
    ctx: &mut Context<'_>,
    zones: &mut Zones,
    key: KeyHash,
    before: Before,
) {
    let Before { zone, own, held } = before;
    // The zone may have been left in the same turn.
    if let Some(zone) = zones.get_mut(&zone) {
        zone.records.take_back(&key, held, ctx.now);
    }
    match own {
        Some(own) => {
            own_records.keep(own);
            own_records.plan_renewal(ctx.now, zones, &key);
        }
        // Its renewal finds nothing to renew.
        None => {
            if let Some(own) = own_records.records.remove(&key) {
                own_records.shelves.release(&own);
            }
        }
    }
}
