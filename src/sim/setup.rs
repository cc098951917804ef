//! How a world begins.

use std::collections::BTreeMap;

use serde_bytes::ByteBuf;

use super::calls::CallConditions;
use super::network::{Conditions, Graph};
use super::owned::{Granted, identity_of};
use super::regions::Regions;
use crate::proto::config::Config;
use crate::proto::identity::PeerKey;
use crate::proto::limits::ZONE_WEIGHT_MAX;
use crate::proto::name::ZoneName;

/// How a world begins.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Number of nodes.
    pub nodes: usize,
    /// Settings of every node; `bootstrap_peers` are set by [`Setup::bootstrapped`].
    pub config: Config,
    /// Constant clock errors are drawn from plus or minus this, milliseconds.
    pub skew_ms_max: i64,
    /// Whether the clocks of the nodes it may be linked with judge a node's own.
    pub bootstrapped: bool,
    /// The network at the start.
    pub conditions: Conditions,
    /// Who may be linked with whom.
    pub graph: Graph,
    /// Where nodes are; then latency is that between regions.
    pub regions: Option<Regions>,
    /// What the records of a zone may weigh at every node.
    pub zone_weight_max: usize,
    /// How calls go; none if nobody calls.
    pub calls: Option<CallConditions>,
    /// Whether nodes can be dialed, and so may be gateways of their zones.
    pub dialable: bool,
    /// Whether those of them that know nobody of their zones look for them, and find them: by a search, as in a live world.
    pub searching: bool,
    /// Zones and who serves them; nodes that are members of none are members of the root zone.
    pub zones: Vec<ZoneSetup>,
    /// Zones in two halves, nodes of even and of odd number, that never heard of each other: no link leads from one to the other
    /// at the start, and no search of one finds members of the other.
    pub halved: Vec<ZoneName>,
    /// Zones with a key, and whom that grants to write there; members that are not among them may not.
    pub owned: BTreeMap<ZoneName, Granted>,
}

/// A zone at the start of a world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneSetup {
    /// Which.
    pub name: ZoneName,
    /// Nodes that serve it and offer agents in it; the first zone that has a node is its home.
    pub members: Vec<usize>,
    /// Nodes that hold it without being members.
    pub followers: Vec<usize>,
}

impl Setup {
    /// Whether two nodes are of a zone whose halves never heard of each other, and not of the same half.
    pub(super) fn are_strangers(&self, one: usize, other: usize) -> bool {
        let has_both = |zone: &&ZoneSetup| zone.members.contains(&one) && zone.members.contains(&other);
        let mut shared = self.zones.iter().filter(has_both);
        !self.halved.is_empty() && one % 2 != other % 2 && shared.any(|zone| self.halved.contains(&zone.name))
    }

    fn granted_to(&self, node: usize) -> impl Iterator<Item = (&ZoneName, &Granted)> {
        self.owned.iter().filter(move |(_, granted)| granted.nodes.contains(&node))
    }

    /// The grants by which a node offers agents in zones with keys.
    pub(super) fn grants_of(&self, node: usize, key: PeerKey) -> BTreeMap<ZoneName, ByteBuf> {
        self.granted_to(node).map(|(zone, granted)| (zone.clone(), granted.to_write(zone, key))).collect()
    }

    /// The settings of one node.
    pub(super) fn config_of(&self, node: usize, key: PeerKey, bootstrap_peers: Vec<PeerKey>) -> Config {
        let of = |nodes: fn(&ZoneSetup) -> &Vec<usize>| -> Vec<ZoneName> {
            let zones = self.zones.iter().filter(|zone| nodes(zone).contains(&node));
            zones.map(|zone| zone.name.clone()).collect()
        };
        let zone_keys = self.owned.keys().map(|zone| (zone.clone(), identity_of(zone).key())).collect();
        let grants = self.granted_to(node);
        let delegation_grants = grants
            .map(|(zone, granted)| (zone.clone(), granted.to_delegate(zone, key, &self.owned)))
            .collect();
        let unindexed_max = usize::MAX;
        let config =
            Config { bootstrap_peers, zone_keys, delegation_grants, unindexed_max, ..self.config.clone() };
        match of(|zone| &zone.members) {
            // The default stays, which is the root zone.
            members if members.is_empty() => Config { follows: of(|zone| &zone.followers), ..config },
            zones => Config { zones, follows: of(|zone| &zone.followers), ..config },
        }
    }
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            nodes: 5,
            config: Config { expects_peers: true, ..Config::default() },
            skew_ms_max: 0,
            bootstrapped: false,
            conditions: Conditions::default(),
            graph: Graph::Random(Graph::DEGREE),
            regions: None,
            zone_weight_max: ZONE_WEIGHT_MAX,
            calls: None,
            dialable: false,
            searching: true,
            zones: Vec::new(),
            halved: Vec::new(),
            owned: BTreeMap::new(),
        }
    }
}
