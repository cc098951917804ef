//! The tree of zones.

use std::collections::BTreeMap;

use super::age_ms;
use super::agent::zone_status;
use super::status::zone_role;
use crate::api::{self, ZoneRole};
use crate::proto::identity::PeerKey;
use crate::proto::name::ZoneName;
use crate::proto::query::TreeZone;

/// The tree of zones, in the order in which the node sees it; `anchors` are the keys that the operator named.
pub(in crate::host) fn tree(tree: &[TreeZone], anchors: &BTreeMap<ZoneName, PeerKey>) -> api::Zones {
    api::Zones { zones: tree.iter().map(|it| zone(it, anchors)).collect() }
}

fn zone(zone: &TreeZone, anchors: &BTreeMap<ZoneName, PeerKey>) -> api::Zone {
    api::Zone {
        zone: zone.id.zone.to_string(),
        key: zone.id.key.map(|key| key.to_string()),
        proved: zone.id.key.map(|key| anchors.get(&zone.id.zone) == Some(&key)),
        role: zone.role.map_or(ZoneRole::Known, zone_role),
        status: zone_status(zone.status),
        age_ms: age_ms(zone.age),
        by: zone.by.map(|peer| peer.to_string()),
        agents: zone.agents,
        bytes: zone.bytes,
        members: zone.members,
        gateways: zone.gateways.iter().map(ToString::to_string).collect(),
        gateway: zone.is_gateway,
        parent: zone.parent.as_ref().map(|parent| parent.zone.to_string()),
    }
}
