//! All hosts of a world: who they are, who runs, who is honest, and the way into their nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Index, IndexMut};

use super::adversary::Behaviour;
use super::clock::WorldClock;
use super::meshes::{MeshNumber, Meshes};
use super::setup::Setup;
use super::sim_node::{RestartFrom, SimNode};
use crate::proto::config::Config;
use crate::proto::identity::PeerKey;
use crate::proto::io::{Input, Output};
use crate::proto::name::ZoneName;
use crate::proto::node::Node;
use crate::proto::persistence::{Damage, Stored};
use crate::proto::record::{Refusal, SignedRecord};
use crate::proto::time::Timestamp;
use crate::proto::verification_cache::VerificationCache;
use crate::proto::zone::Zone;

/// All hosts of a world, by number.
pub(super) struct Nodes {
    all: Vec<SimNode>,
    by_key: BTreeMap<PeerKey, usize>,
    /// Equal bytes are decoded, verified and held once in this world.
    cache: VerificationCache,
    /// What a zone may hold at every honest node.
    pub(super) zone_weight_max: usize,
    /// Whether nodes can be dialed, and know it.
    pub(super) are_dialable: bool,
    /// Whether they look for those of their zones.
    pub(super) are_searching: bool,
    /// Zones whose halves never heard of each other.
    halved: Vec<ZoneName>,
    /// As the zones of each say.
    meshes: Meshes,
    /// The nodes that are members of each zone when they run, as their settings say.
    homes: BTreeMap<ZoneName, BTreeSet<usize>>,
}

impl Index<usize> for Nodes {
    type Output = SimNode;

    fn index(&self, at: usize) -> &SimNode {
        &self.all[at]
    }
}

impl IndexMut<usize> for Nodes {
    fn index_mut(&mut self, at: usize) -> &mut SimNode {
        &mut self.all[at]
    }
}

impl Nodes {
    pub(super) fn new(all: Vec<SimNode>, setup: &Setup) -> Nodes {
        let by_key = all.iter().enumerate().map(|(at, node)| (node.key, at)).collect();
        let mut homes: BTreeMap<ZoneName, BTreeSet<usize>> = BTreeMap::new();
        for (at, zone) in
            all.iter().enumerate().flat_map(|(at, it)| it.config.zones.iter().map(move |zone| (at, zone)))
        {
            homes.entry(zone.clone()).or_default().insert(at);
        }
        Nodes {
            all,
            by_key,
            cache: VerificationCache::shared(),
            zone_weight_max: setup.zone_weight_max,
            are_dialable: setup.dialable,
            are_searching: setup.dialable && setup.searching,
            halved: setup.halved.clone(),
            meshes: Meshes::default(),
            homes,
        }
    }

    /// Nodes that run as members of a zone, by number.
    pub(super) fn members<'a>(&'a self, zone: &'a ZoneName) -> impl Iterator<Item = usize> + 'a {
        let members = self.homes.get(zone).into_iter().flatten().copied();
        members.filter(|at| self.all[*at].is_member(zone))
    }

    /// How many there are, up or down.
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// The number of the mesh of a zone.
    pub(super) fn mesh_of(&mut self, zone: &ZoneName) -> MeshNumber {
        self.meshes.number(zone)
    }

    /// Whether a node is in a mesh.
    pub(super) fn is_in_mesh(&self, at: usize, mesh: MeshNumber) -> bool {
        self.meshes.contains(mesh, at)
    }

    /// A node enters the mesh of a zone.
    pub(super) fn enter(&mut self, at: usize, zone: ZoneName, now: u64) {
        self.meshes.enter(at, &zone);
        self.all[at].enter(zone, now);
    }

    /// A node leaves the mesh of a zone.
    pub(super) fn exit(&mut self, at: usize, zone: &ZoneName) {
        self.meshes.exit(at, zone);
        if let Some(members) = self.homes.get_mut(zone) {
            members.remove(&at);
        }
        self.all[at].exit(zone);
    }

    /// A node is a member of a zone that it is in the mesh of.
    pub(super) fn provide(&mut self, at: usize, zone: ZoneName) {
        self.homes.entry(zone.clone()).or_default().insert(at);
        self.all[at].provide(zone);
    }

    /// The process of a node ends; what its disk keeps is decided by the caller.
    pub(super) fn stop(&mut self, at: usize) {
        self.all[at].zones.keys().for_each(|zone| self.meshes.exit(at, zone));
        self.all[at].stop();
    }

    /// Whether a search in a zone by one node never finds the other.
    pub(super) fn are_apart(&self, zone: &ZoneName, one: usize, other: usize) -> bool {
        one % 2 != other % 2 && self.halved.contains(zone)
    }

    /// Nodes that run and are honest.
    pub(super) fn running(&self) -> impl Iterator<Item = (usize, &Node)> {
        let honest = self.all.iter().enumerate().filter(|(_, it)| it.behaviour == Behaviour::Honest);
        honest.filter_map(|(at, it)| Some((at, it.node.as_ref()?)))
    }

    /// As [`Nodes::running`], to be asked for what they compute when they are asked.
    pub(super) fn running_mut(&mut self) -> impl Iterator<Item = &mut Node> {
        let honest = self.all.iter_mut().filter(|it| it.behaviour == Behaviour::Honest);
        honest.filter_map(|it| it.node.as_mut())
    }

    /// Zones that some honest node holds.
    pub(super) fn held_zones(&self) -> Vec<ZoneName> {
        let held: BTreeSet<&ZoneName> =
            self.running().flat_map(|(_, node)| node.zones().map(Zone::name)).collect();
        held.into_iter().cloned().collect()
    }

    /// Whether a node deals with others as the protocol says.
    pub(super) fn is_honest(&self, at: usize) -> bool {
        self.all[at].behaviour == Behaviour::Honest
    }

    /// Nodes that keep to the protocol, up or down.
    pub(super) fn honest(&self) -> Vec<usize> {
        (0..self.all.len()).filter(|at| self.is_honest(*at)).collect()
    }

    /// Whether a key is that of an honest node.
    pub(super) fn is_honest_key(&self, key: &PeerKey) -> bool {
        self.by_key.get(key).is_some_and(|at| self.is_honest(*at))
    }

    /// Whether some node lies: then a prefix of versions may be a liar's word, until the next comparison.
    pub(super) fn is_lied_to(&self) -> bool {
        self.all.iter().any(|it| it.behaviour == Behaviour::Lie)
    }

    /// The number of a key.
    pub(super) fn number_of(&self, key: &PeerKey) -> Option<usize> {
        self.by_key.get(key).copied()
    }

    /// A node that runs, and the time on its clock when the true time is `wall`.
    pub(super) fn read(&mut self, at: usize, wall: u64) -> Option<(&mut Node, Timestamp)> {
        let host = self.all.get_mut(at)?;
        let now = host.clock.read(wall);
        host.node.as_mut().map(|node| (node, now))
    }

    /// Gives a node an input, if it runs.
    pub(super) fn handle(&mut self, at: usize, wall: u64, input: Input) {
        self.with(at, wall, |node, now| node.handle(now, input));
    }

    /// Lets a node's time pass, if it runs.
    pub(super) fn handle_timeout(&mut self, at: usize, wall: u64) {
        self.with(at, wall, Node::handle_timeout);
    }

    /// The next thing that a node wants done.
    pub(super) fn poll_output(&mut self, at: usize) -> Option<Output> {
        self.all[at].node.as_mut().and_then(Node::poll_output)
    }

    /// Reads a record that a node writes or sends.
    pub(super) fn decode(&mut self, at: usize, bytes: &[u8]) -> Result<SignedRecord, Refusal> {
        self.cache.record(bytes, &self.all[at].config.network)
    }

    fn with(&mut self, at: usize, wall: u64, act: impl FnOnce(&mut Node, Timestamp)) {
        let host = &mut self.all[at];
        let now = host.clock.read(wall);
        if let Some(node) = host.node.as_mut() {
            // Swapped in and out: one cache serves all nodes, and none holds a lock.
            node.lend(&mut self.cache);
            // One cache goes round: a record is verified once in a world, however many nodes hold it.
            act(node, now);
            node.lend(&mut self.cache);
        }
    }

    /// A host that is down starts with what `from` says. How many of its own rows it cannot read.
    pub(super) fn boot(&mut self, at: usize, from: RestartFrom, clock: WorldClock, seed: [u8; 32]) -> usize {
        let host = &mut self.all[at];
        match (from, &host.backup) {
            (RestartFrom::Lost, _) => host.disk.replace(BTreeMap::new()),
            (RestartFrom::Backup | RestartFrom::Torn, Some(backup)) => host.disk.replace(backup.rows.clone()),
            (RestartFrom::Disk | RestartFrom::Backup | RestartFrom::Torn, _) => {}
        }
        // Before it is read, for that reading is the first of the new run.
        // A new process does not remember how far its clock once was.
        host.clock.restart();
        let now = host.clock.read(clock.wall());
        let damage = if from == RestartFrom::Torn { Damage::OwnWritesMissing } else { Damage::None };
        let mut stored = Stored { damage, ..Stored::default() };
        let (network, cache) = (&host.config.network, &mut self.cache);
        let rows = host.disk.rows().iter();
        let unread = rows.filter(|(key, value)| !stored.take_shared_row(key, value, network, cache)).count();
        let (identity, config) = (host.identity.clone(), host.config.clone());
        host.zones =
            config.zones.iter().chain(&config.follows).map(|zone| (zone.clone(), clock.now())).collect();
        host.zones.keys().for_each(|zone| self.meshes.enter(at, zone));
        let zone_weight_max = host.behaviour.zone_weight_max(self.zone_weight_max);
        // Only the first folder is as old as its key.
        let config = Config { zone_weight_max, new_key: host.incarnation == 0, ..config };
        host.node = Some(Node::new(identity, config, seed, stored, now));
        host.incarnation += 1;
        unread
    }
}
