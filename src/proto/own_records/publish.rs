//! Records that this host signed with keys of its imports: they pass the same pipeline as its own, are kept before anybody hears
//! of them, and spread like them. Nothing else of the own records is theirs: no version of the node, no guard, no renewal.

use super::OwnRecords;
use super::unkept::Before;
use super::write::check_writes;
use crate::proto::context::Context;
use crate::proto::io::{Role, StoreCondition, Via};
use crate::proto::persistence;
use crate::proto::record::{NoRoom, Refusal, SignedRecord};
use crate::proto::registration::WriteError;
use crate::proto::registry::Merge;
use crate::proto::zone::Zones;

/// Takes records of the keys that were named; one result each.
pub(in crate::proto) fn publish(
    own_records: &mut OwnRecords,
    ctx: &mut Context<'_>,
    zones: &mut Zones,
    signed: &[SignedRecord],
) -> Vec<Result<(), WriteError>> {
    signed.iter().map(|signed| publish_one(own_records, ctx, zones, signed)).collect()
}

fn publish_one(
    own_records: &mut OwnRecords,
    ctx: &mut Context<'_>,
    zones: &mut Zones,
    signed: &SignedRecord,
) -> Result<(), WriteError> {
    check_writes(ctx)?;
    // What room is left is for what has no other home.
    if let StoreCondition::Short(reason) = ctx.out.backlog().condition() {
        return Err(WriteError::StoreFailed(reason.clone()));
    }
    let name = &signed.header().zone;
    let zone = zones.get_mut(name).filter(|zone| zone.role() == Role::Member);
    let zone = zone.ok_or_else(|| WriteError::ZoneNotServed(name.clone()))?;
    // The node's own key has versions of its own, and whoever else signed it tells of it himself.
    if !own_records.imports.contains(&signed.header().host) {
        return Err(WriteError::Refused(Refusal::BadAuthor));
    }
    let record = signed.verify_with(ctx.now, &mut ctx.cache.keys).map_err(WriteError::Refused)?;
    if !record.is_public() {
        return Err(WriteError::Refused(Refusal::BadScope));
    }
    if !zone.records.is_granted(&record) {
        return Err(WriteError::NotGranted(record.name.zone.clone()));
    }
    let key = record.key();
    let held = zone.registry().get(&key).cloned();
    match zone.records.merge(ctx, record.clone(), Via::Local) {
        Merge::New { .. } => {}
        Merge::Duplicate => return Ok(()),
        Merge::Stale | Merge::NoRoom(NoRoom::SlotTaken) => {
            return Err(WriteError::Superseded(record.name.clone()));
        }
        Merge::NoRoom(NoRoom::ZoneFull) => return Err(WriteError::ZoneFull(record.name.zone.clone())),
    }
    ctx.out.write(persistence::imported_row(&record));
    own_records.unkept.note(key, Before { zone: record.name.zone.clone(), own: None, held });
    zone.records.publish_later(record);
    Ok(())
}
