//! What a node may choose for itself: who it is in the world, and its timings. Limits that all nodes share are in
//! [`super::limits`].

use std::time::Duration;

use super::identity::PeerKey;
use super::limits::{RECORDS_PER_AUTHOR_MAX, ZONE_BYTES_MAX};
use super::name::ZoneName;

/// Settings of one node: who it is in the world, and its timings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The world this node belongs to; records of another are refused.
    pub network: String,
    /// The zones this node serves as a member; the first is its home zone.
    pub zones: Vec<ZoneName>,
    /// Zones it replicates without being a member: it sends no beacon there.
    pub follows: Vec<ZoneName>,
    /// Peers from the configuration. Their clocks judge ours; with none a wrong clock only warns.
    pub bootstrap_peers: Vec<PeerKey>,
    /// Whether other nodes are configured. Then leases are not renewed before the first sync: an own agent may have
    /// been deleted since this copy of the data was made.
    pub expects_peers: bool,
    /// Mean time between two syncs with a random peer, jittered by 20 %. Shorter repairs sooner and costs 200 bytes each.
    pub sync_interval: Duration,
    /// A timer later than this was suspended: sync at once.
    pub suspended_after: Duration,
    /// A zone that was compared with a peer longer ago than this is stale: what it holds may lack anything written since.
    pub stale_after: Duration,
    /// How long a node that is connected to the world must meet nobody who serves a zone, before it is the first of it.
    pub alone_after: Duration,
    /// How long a peer's beacon may be ahead of what is held here before a sync is started for it.
    pub lag_patience: Duration,
    /// Least time between two syncs started by beacons; doubles while they find nothing.
    pub lag_interval: Duration,
    /// Periodic sync leaves keys stamped within this time to the mesh.
    pub mesh_grace: Duration,
    /// Shortest beacon interval.
    pub beacon_interval: Duration,
    /// Beacons a zone may send in a second, all members together, as long as none waits for more than
    /// [`BEACON_INTERVAL_MAX`](super::limits::BEACON_INTERVAL_MAX).
    pub beacons_per_second: f64,
    /// A clock further than this from the median of the bootstrap peers refuses own writes.
    pub clock_offset_max: Duration,
    /// Least time between two corrections of one own key that another writer changed.
    pub own_key_interval: Duration,
    /// How long one sync may take before it is given up.
    pub sync_deadline: Duration,
    /// How much each zone may hold. Part of the protocol; smaller in tests and simulations only.
    pub quota: Quota,
    /// Repairs up to this many records are published again, so that the rest of the mesh need not wait for its timers.
    pub republish_max: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            network: "world".into(),
            zones: vec![ZoneName::root()],
            follows: Vec::new(),
            bootstrap_peers: Vec::new(),
            expects_peers: false,
            sync_interval: Duration::from_secs(30),
            suspended_after: Duration::from_secs(3),
            // Three syncs missed; one that meets a silent peer ends after 30 s, so a single liar makes nobody stale.
            stale_after: Duration::from_secs(90),
            // Whoever is connected has told within a round trip which zones it serves.
            alone_after: Duration::from_secs(10),
            lag_patience: Duration::from_secs(3),
            lag_interval: Duration::from_secs(5),
            mesh_grace: Duration::from_secs(5),
            // Three missed ones count as gone: a minute where the zone is small.
            beacon_interval: Duration::from_secs(20),
            // For the whole zone: up to 120 members what a member reads of beacons does not grow with the zone.
            beacons_per_second: 2.0,
            // Half of what a stamp may be ahead: nodes off in opposite directions still agree on writes.
            clock_offset_max: Duration::from_secs(30),
            own_key_interval: Duration::from_secs(600),
            sync_deadline: Duration::from_secs(60),
            quota: Quota::default(),
            republish_max: 256,
        }
    }
}

impl Config {
    /// The zone in which names without one are looked up first.
    pub fn home_zone(&self) -> ZoneName {
        self.zones.first().cloned().unwrap_or_else(ZoneName::root)
    }
}

/// How much a zone may hold.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    /// Records of one author key.
    pub records_per_author: usize,
    /// Bytes of all records.
    pub bytes: usize,
}

impl Default for Quota {
    fn default() -> Quota {
        Quota { records_per_author: RECORDS_PER_AUTHOR_MAX, bytes: ZONE_BYTES_MAX }
    }
}
