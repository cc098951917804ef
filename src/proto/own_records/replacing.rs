//! What a registration takes the place of on its own host (protocol section 1): the same agent in the same or an earlier
//! version, unless it is told to take any.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::write::Draft;
use super::{OwnRecords, offers_named};
use crate::proto::card::{AgentCard, Offer, Origin, version};
use crate::proto::context::Context;
use crate::proto::directory::Directory;
use crate::proto::name::FullName;
use crate::proto::record::{KeyHash, Record};
use crate::proto::registration::{Registered, WriteError};
use crate::proto::time::Timestamp;
use crate::proto::zone::Zones;

/// What a registration may take the place of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::proto) enum Replace {
    /// The same agent, in the same or an earlier version.
    Versions,
    /// Whatever this node offers under the name.
    Anything,
}

/// Refuses a draft that would replace another agent, or a newer version; `own` are the last own writes.
pub(super) fn check_replaced(
    own: &BTreeMap<KeyHash, Arc<Record>>,
    now: Timestamp,
    zones: &Zones,
    draft: &Draft,
    card: &AgentCard,
) -> Result<(), WriteError> {
    let registry = zones.get(&draft.name.zone).map(|zone| zone.registry());
    for key in std::iter::once(draft.key()).chain(draft.keys_in_other_scopes()) {
        let held = registry.and_then(|registry| registry.get(&key)).or_else(|| own.get(&key));
        let Some(held) = held.filter(|held| !held.is_expired(now)).and_then(|held| held.card()) else {
            continue;
        };
        if !card.is_same_agent(&held) {
            return Err(WriteError::NameTaken(draft.name.clone(), described(&held)));
        }
        if let (Some(version), Some(held)) = (&card.version, &held.version)
            && version::is_older(version, held)
        {
            let (version, held) = (version.clone(), held.clone());
            return Err(WriteError::OlderVersion { name: draft.name.clone(), version, held });
        }
    }
    Ok(())
}

/// Withdraws an agent of which a registry has deleted this version; another version of it stays.
pub(in crate::proto) fn withdraw_version(
    own: &mut OwnRecords,
    ctx: &mut Context<'_>,
    zones: &mut Zones,
    directory: &mut Directory,
    offer: Offer,
) -> Result<Registered, WriteError> {
    let name = FullName { agent: offer.name, zone: offer.zone.unwrap_or_else(|| ctx.config.home_zone()) };
    let is_it = |held: AgentCard| held.is_same_agent(&offer.card) && held.version == offer.card.version;
    match offers_named(&own.records, &name).iter().filter_map(|own| own.card()).any(is_it) {
        true => own.deregister(ctx, zones, directory, &name),
        false => Err(WriteError::NotFound(name)),
    }
}

/// What distinguishes an agent from others of its name.
fn described(card: &AgentCard) -> String {
    let document = match card.origin {
        Origin::Native => "of an agent's file",
        Origin::ServerJson | Origin::ServerCard => "an MCP server",
        Origin::A2a => "an A2A agent",
        Origin::Oasf => "of an OASF record",
    };
    let name = card.original_name.as_ref().map(|name| format!(" called `{name}`")).unwrap_or_default();
    let address = card.main_address().map(|address| format!(" at {address}")).unwrap_or_default();
    format!("{document}{name}{address}")
}
