//! What an earlier data folder wrote with the key of this node, and this one does not know (protocol section 2).
//!
//! A key that was saved and put on a new disk finds its agents in the world again. They are this host's, so nobody else
//! deletes or renews them; but whether they are still offered only the operator knows. So they are kept, shown under one
//! alert, and end with their leases unless the operator adopts, registers or deregisters them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::write::Draft;
use super::{OwnRecords, offers_named};
use crate::proto::context::Context;
use crate::proto::identity::AgentId;
use crate::proto::io::NodeAlert;
use crate::proto::name::FullName;
use crate::proto::record::{KeyHash, Record};
use crate::proto::registration::{Registered, WriteError};
use crate::proto::zone::Zones;

/// Keys of live cards under this node's key that wait for a word of the operator.
#[derive(Default)]
pub(in crate::proto) struct Restored(BTreeSet<KeyHash>);

impl OwnRecords {
    /// Offers what an earlier folder wrote, from now on: it is written again and renewed. What is offered already stays.
    pub(in crate::proto) fn adopt_restored(
        &mut self,
        ctx: &mut Context<'_>,
        zones: &mut Zones,
        name: &FullName,
    ) -> Result<Registered, WriteError> {
        let zone = zones.get(&name.zone).ok_or_else(|| WriteError::ZoneNotServed(name.zone.clone()))?;
        let held = self.restored.0.iter().filter_map(|key| zone.registry().get(key));
        let found: Vec<Arc<Record>> = held.filter(|record| record.name == *name).cloned().collect();
        for record in &found {
            self.write(ctx, zones, Draft::again(record))?;
        }
        let offered = offers_named(&self.records, name);
        let first = offered.first().ok_or_else(|| WriteError::NotFound(name.clone()))?;
        Ok(Registered { name: name.clone(), id: AgentId::of(first.owner, name) })
    }
}

impl Restored {
    /// One of them is held, or its tombstone.
    pub(super) fn note(&mut self, ctx: &mut Context<'_>, record: &Record) {
        if record.is_agent() && !record.is_tombstone() {
            self.0.insert(record.key());
            ctx.out.alert(NodeAlert::RestoredKey);
        } else {
            self.forget(ctx, &record.key());
        }
    }

    /// It ended, or the operator said what becomes of it.
    pub(super) fn forget(&mut self, ctx: &mut Context<'_>, key: &KeyHash) {
        if self.0.remove(key) && self.0.is_empty() {
            ctx.out.clear_alerts(|alert| *alert == NodeAlert::RestoredKey);
        }
    }

    pub(in crate::proto) fn keys(&self) -> &BTreeSet<KeyHash> {
        &self.0
    }
}
