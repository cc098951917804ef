//! The tree of zones.

use super::age_ms;
use super::agent::zone_status;
use super::status::zone_role;
use crate::api;
use crate::proto::query::TreeZone;

/// The tree of zones, in the order in which the node sees it.
pub(in crate::host) fn tree(tree: &[TreeZone]) -> api::Zones {
    api::Zones { zones: tree.iter().map(zone).collect() }
}

fn zone(zone: &TreeZone) -> api::Zone {
    api::Zone {
        zone: zone.id.zone.to_string(),
        key: zone.id.key.map(|key| key.to_string()),
        role: zone_role(zone.role),
        status: zone_status(zone.status),
        age_ms: age_ms(zone.age),
        agents: zone.agents,
        bytes: zone.bytes,
        members: zone.members,
        gateways: zone.gateways.iter().map(ToString::to_string).collect(),
        gateway: zone.is_gateway,
        parent: zone.parent.as_ref().map(|parent| parent.zone.to_string()),
    }
}
