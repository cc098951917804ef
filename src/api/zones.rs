//! The tree of zones as one node sees it, and what is asked to take part in a zone.

use serde::{Deserialize, Serialize};

use super::{ZoneRole, ZoneStatus};

/// Answer of `GET /v1/zones`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Zones {
    /// From the root down, a zone before those below it. Registries of one name that have different keys stand beside each other.
    pub zones: Vec<Zone>,
}

/// One registry of the tree of zones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Zone {
    /// The zone.
    pub zone: String,
    /// PeerId of its key; left out where it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Whether that is the key which this node's operator named for it; left out where it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proved: Option<bool>,
    /// What this node is to it.
    pub role: ZoneRole,
    /// What an answer out of it is worth.
    pub status: ZoneStatus,
    /// What the zone held this long ago is in an answer; null if that cannot be said.
    pub age_ms: Option<u64>,
    /// PeerId of who told of it, where that was not this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Agents held.
    pub agents: usize,
    /// Bytes of its records.
    pub bytes: usize,
    /// Known live members, this node included; left out of a zone below, where they are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<usize>,
    /// PeerIds of who speaks for it, as far as is known here.
    pub gateways: Vec<String>,
    /// Whether this node does.
    pub gateway: bool,
    /// The nearest zone above that names it to the rest of the world, as far as is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
}

/// Body of `POST /v1/zones`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinZone {
    /// The zone.
    pub zone: String,
    /// Member or follower.
    #[serde(default)]
    pub role: ZoneRole,
}

/// Answer of `POST /v1/zones` and `DELETE /v1/zones/{zone}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ZoneChange {
    /// The zone.
    pub zone: String,
    /// What this node is to it from now on; null if it takes no part in it.
    pub role: Option<ZoneRole>,
    /// What the next start makes of it, where that is something else; one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}
