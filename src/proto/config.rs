//! What a node may choose for itself: who it is in the world, and its timings. Limits that all nodes share are in
//! [`super::limits`].

use std::collections::BTreeMap;
use std::time::Duration;

use serde_bytes::ByteBuf;

use super::identity::PeerKey;
use super::limits::ZONE_WEIGHT_MAX;
use super::message::Gateway;
use super::name::{ZoneId, ZoneName};
use super::node_name::NodeName;

/// Settings of one node: who it is in the world, and its timings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The world this node belongs to; records of another are refused.
    pub network: String,
    /// The zones this node serves as a member; the first is its home zone.
    pub zones: Vec<ZoneName>,
    /// Zones it replicates without being a member: it sends no beacon there.
    pub follows: Vec<ZoneName>,
    /// The keys of zones that have one, as the operator names them: without an entry a zone is open. Of whoever names a key a
    /// zone takes none.
    pub zone_keys: BTreeMap<ZoneName, PeerKey>,
    /// For each zone with a key in which this node may be a gateway, the grants by which it names that zone above.
    pub delegation_grants: BTreeMap<ZoneName, Vec<ByteBuf>>,
    /// Whether this node may be a gateway of its zones, if it can be dialed.
    pub gateway: Gateway,
    /// Mean time between two walks from the root to a zone of which this node is a gateway, jittered by 20 %.
    pub walk_interval: Duration,
    /// Mean time between two comparisons of a zone below, each with another of its gateways.
    pub follow_interval: Duration,
    /// A zone below whose gateways were compared longer ago than this is stale.
    pub fresh_for: Duration,
    /// What the replicas of all zones below may weigh together, bytes. Smaller in tests and simulations only.
    pub room_below: usize,
    /// Agents that may wait for the index of searches. None, so that what memory answers can be read beside whoever writes; any
    /// number in simulations: most of their nodes are asked nothing.
    pub unindexed_max: usize,
    /// A replica of a zone below that was not compared for this long is nothing any more.
    pub replica_kept: Duration,
    /// Peers from the configuration. Their clocks judge ours; with none a wrong clock only warns.
    pub bootstrap_peers: Vec<PeerKey>,
    /// Whether other nodes are configured. Then leases are not renewed before the first sync: an own agent may have
    /// been deleted since this copy of the data was made.
    pub expects_peers: bool,
    /// Whether the key of this node is as old as its data folder. If it is older, peers may hold what an earlier folder
    /// wrote with it, and nothing here knows of that before the first sync.
    pub new_key: bool,
    /// Mean time between two syncs with a random peer, jittered by 20 %. Shorter repairs sooner and costs 200 bytes each.
    pub sync_interval: Duration,
    /// A timer later than this was suspended: sync at once.
    pub suspended_after: Duration,
    /// A zone that was compared with a peer longer ago than this is stale: what it holds may lack anything written since.
    pub stale_after: Duration,
    /// How long a node that is connected to the world must meet nobody who serves a zone, before it is the first of it.
    pub alone_after: Duration,
    /// How long a node must have had company in a zone, none of which may speak for it, before it speaks for it itself: where
    /// all start at once, or lost their disks at once, nobody else will.
    pub company_after: Duration,
    /// How long a peer's beacon may be ahead of what is held here before a sync is started for it.
    pub lag_patience: Duration,
    /// Least time between two syncs started by beacons; doubles while they find nothing.
    pub lag_interval: Duration,
    /// Periodic sync leaves keys stamped within this time to the mesh.
    pub mesh_grace: Duration,
    /// Shortest beacon interval.
    pub beacon_interval: Duration,
    /// What people call this node.
    pub name: Option<NodeName>,
    /// Beacons a zone may send in a second, all members together, as long as none waits for more than
    /// [`BEACON_INTERVAL_MAX`](super::limits::BEACON_INTERVAL_MAX).
    pub beacons_per_second: f64,
    /// A clock further than this from the median of the bootstrap peers refuses own writes.
    pub clock_offset_max: Duration,
    /// Least time between two corrections of one own key that another writer changed.
    pub own_key_interval: Duration,
    /// How long one sync may take before it is given up.
    pub sync_deadline: Duration,
    /// What the public records of each zone may weigh. Part of the protocol; smaller in tests and simulations only.
    pub zone_weight_max: usize,
    /// Repairs up to this many records are published again, so that the rest of the mesh need not wait for its timers.
    pub republish_max: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            network: "world".into(),
            zones: vec![ZoneName::root()],
            follows: Vec::new(),
            zone_keys: BTreeMap::new(),
            delegation_grants: BTreeMap::new(),
            gateway: Gateway::Auto,
            walk_interval: Duration::from_secs(60),
            follow_interval: Duration::from_secs(20),
            // Three gateways in turn, and one that is missed.
            fresh_for: Duration::from_secs(120),
            room_below: 1024 * 1024 * 1024,
            unindexed_max: 0,
            replica_kept: Duration::from_secs(900),
            bootstrap_peers: Vec::new(),
            expects_peers: false,
            new_key: false,
            sync_interval: Duration::from_secs(30),
            suspended_after: Duration::from_secs(3),
            // Three syncs missed; one that meets a silent peer ends after 30 s, so a single liar makes nobody stale.
            stale_after: Duration::from_secs(90),
            // Whoever is connected has told within a round trip which zones it serves.
            alone_after: Duration::from_secs(10),
            // Two syncs and a half: by then whoever may speak was met by somebody who was met here.
            company_after: Duration::from_secs(75),
            lag_patience: Duration::from_secs(3),
            lag_interval: Duration::from_secs(5),
            mesh_grace: Duration::from_secs(5),
            // Three missed ones count as gone: a minute where the zone is small.
            beacon_interval: Duration::from_secs(20),
            // For the whole zone: up to 120 members what a member reads of beacons does not grow with the zone.
            beacons_per_second: 2.0,
            name: None,
            // Half of what a stamp may be ahead: nodes off in opposite directions still agree on writes.
            clock_offset_max: Duration::from_secs(30),
            own_key_interval: Duration::from_secs(600),
            sync_deadline: Duration::from_secs(60),
            zone_weight_max: ZONE_WEIGHT_MAX,
            republish_max: 256,
        }
    }
}

impl Config {
    /// The registry that a zone has here.
    pub fn zone_id(&self, zone: &ZoneName) -> ZoneId {
        ZoneId { zone: zone.clone(), key: self.zone_keys.get(zone).copied() }
    }

    /// The zone in which names without one are looked up first.
    pub fn home_zone(&self) -> ZoneName {
        self.zones.first().cloned().unwrap_or_else(ZoneName::root)
    }
}
