//! What a world is made of: hosts, the network between them, the mesh over that, and the kernel that moves them.
//!
//! Each part has its own state and its own methods, which are given the others as they need them; here is what takes
//! several of them at once.

use std::sync::Arc;

use rand::RngExt;

use super::fault::Fault;
use super::kernel::Kernel;
use super::mesh::{self, Mesh, Packet};
use super::network::Network;
use super::nodes::Nodes;
use super::queue::Due;
use super::sim_node::RestartFrom;
use crate::proto::identity::PeerKey;
use crate::proto::io::{ConversationId, Input, Protocol};
use crate::proto::name::ZoneName;
use crate::proto::node::Node;
use crate::proto::time::Timestamp;

/// A suspension longer than this closes connections, milliseconds.
const SUSPENSION_NOTICED_MS: u64 = 10_000;

/// How long a node dials an address at which nobody answers, milliseconds.
const UNANSWERED_MS: u64 = 5_000;

/// How long a search for the members of a zone takes, milliseconds: some round trips.
const FIND_MS: (u64, u64) = (100, 2_000);

/// The parts of a world.
pub(super) struct Fabric {
    pub(super) kernel: Kernel,
    pub(super) nodes: Nodes,
    pub(super) network: Network,
    pub(super) mesh: Mesh,
}

impl Fabric {
    /// A node that runs, and the time on its clock.
    pub(super) fn read(&mut self, at: usize) -> Option<(&mut Node, Timestamp)> {
        self.nodes.read(at, self.kernel.wall())
    }

    /// Whether a node runs and does not sleep.
    pub(super) fn is_up(&self, at: usize) -> bool {
        self.nodes[at].is_up(self.kernel.now())
    }

    /// A host that is down starts; how many of its own rows it cannot read.
    pub(super) fn boot(&mut self, at: usize, from: RestartFrom, seed: [u8; 32]) -> usize {
        let unread = self.nodes.boot(at, from, self.kernel.clock, seed);
        self.kernel.metrics.wakes(at, self.kernel.clock.now());
        unread
    }

    /// A node stops at once; of its unflushed writes some reached the disk.
    pub(super) fn crash(&mut self, at: usize) {
        let now = self.kernel.now();
        let host = &mut self.nodes[at];
        let unflushed = host.disk.unflushed(now);
        // A part of the unflushed writes survives: it may die while it flushes.
        let kept = self.kernel.rng.random_range(0..=unflushed);
        host.disk.crash(kept);
        // Before its streams break: what they tell it of that is then for no run at all.
        self.nodes.stop(at);
        self.mesh.forget(at);
        self.kernel.metrics.sleeps(at, now);
        // Links break before conversations are forgotten: peers notice broken streams, the host itself notices nothing any more.
        self.network.sever_all(at, &self.nodes, &mut self.kernel);
        self.network.forget_streams(at);
    }

    /// A node does nothing for a while; if that is long its peers notice.
    pub(super) fn suspend(&mut self, at: usize, for_ms: u64) {
        let now = self.kernel.now();
        self.nodes[at].suspended_until = now + for_ms;
        self.kernel.metrics.sleeps(at, now);
        if for_ms > SUSPENSION_NOTICED_MS {
            self.network.sever_all(at, &self.nodes, &mut self.kernel);
        }
        self.kernel.schedule(for_ms, Due::Resume(at));
    }

    /// The end of all faults: links up and clean, clocks right but for their constant skew, room on all disks, all nodes up.
    pub(super) fn repair(&mut self) {
        self.network.repair();
        for at in 0..self.nodes.count() {
            let host = &mut self.nodes[at];
            // Only the constant skew stays: a clock that is right within seconds is all that a node is promised.
            host.clock.set_error(0);
            host.suspended_until = self.kernel.now();
            if host.disk.is_full() {
                self.kernel.schedule(0, Due::Fault(Box::new(Fault::Room { node: at, ample: true })));
            }
            if host.node.is_none() {
                self.kernel.schedule(0, Due::Start(at, RestartFrom::Disk));
            } else {
                self.connect_all(at);
            }
        }
    }

    /// The ends of all links of a node will try to connect.
    pub(super) fn connect_all(&mut self, at: usize) {
        self.network.connect_all(at, &self.nodes, &mut self.kernel);
    }

    /// A node enters the mesh of a zone.
    pub(super) fn enter(&mut self, at: usize, zone: ZoneName) {
        self.nodes.enter(at, zone.clone(), self.kernel.now());
        self.network.tell_zone(at, &zone, &self.nodes, &mut self.kernel);
    }

    /// A node leaves the mesh of a zone.
    pub(super) fn exit(&mut self, at: usize, zone: &ZoneName) {
        self.nodes.exit(at, zone);
        self.network.tell_zone(at, zone, &self.nodes, &mut self.kernel);
    }

    /// A node looks for members of a zone: it hears of those that are found, and of nobody if there are none.
    pub(super) fn find_peers(&mut self, at: usize, zone: ZoneName) {
        // Found now and told later: some may be gone by then, as in any search.
        let peers = self.network.find_peers(at, &zone, &self.nodes, &mut self.kernel);
        let in_ms = self.kernel.rng.random_range(FIND_MS.0..=FIND_MS.1);
        let input = Box::new(Input::ZonePeers { zone, peers });
        self.kernel.schedule(in_ms, Due::Tell { node: at, incarnation: self.nodes[at].incarnation, input });
    }

    /// A node looks for the members of each of its zones of whom it is connected with none.
    pub(super) fn look_for_mates(&mut self, at: usize) {
        if !self.nodes.are_searching || !self.is_up(at) {
            return;
        }
        let zones: Vec<ZoneName> = self.nodes[at].zones.keys().cloned().collect();
        for zone in zones {
            if !self.network.is_linked_into(at, &zone, &self.nodes) {
                self.network.find_peers(at, &zone, &self.nodes, &mut self.kernel);
            }
        }
    }

    /// Sets a node's timer as it wants it.
    pub(super) fn set_timer(&mut self, at: usize) {
        let (now, wall) = (self.kernel.now(), self.kernel.wall());
        if let Some((in_ms, generation)) = self.nodes[at].set_timer(now, wall) {
            self.kernel.schedule(in_ms, Due::Timer { node: at, generation });
        }
    }

    /// A message for the mesh.
    pub(super) fn packet(&mut self, zone: ZoneName, bytes: Vec<u8>, has_records: bool) -> Arc<Packet> {
        self.mesh.packet(zone, bytes, has_records, &mut self.nodes, &self.kernel)
    }

    /// The mesh of a zone takes a message from the node that made it.
    pub(super) fn publish(&mut self, at: usize, zone: ZoneName, bytes: Vec<u8>, has_records: bool) {
        let packet = self.packet(zone, bytes, has_records);
        // The same bytes within a minute are one message, also to the node that made it.
        if self.mesh.is_first(at, &packet) {
            self.spread(at, None, &packet);
        }
    }

    /// Sends a message over all links of a node but that to its source.
    pub(super) fn spread(&mut self, at: usize, source: Option<usize>, packet: &Arc<Packet>) {
        mesh::spread(at, source, packet, &self.nodes, &mut self.network, &mut self.kernel);
    }

    /// A node is about to ask a peer.
    pub(super) fn reach(&mut self, at: usize, peer: &PeerKey) {
        if let Some(other) = self.nodes.number_of(peer) {
            self.network.reach(at, other, &self.nodes, &mut self.kernel);
        }
    }

    /// A node asks a peer in a conversation of its own.
    pub(super) fn request(
        &mut self,
        at: usize,
        conversation: ConversationId,
        peer: &PeerKey,
        protocol: Protocol,
        bytes: Vec<u8>,
    ) {
        match self.nodes.number_of(peer) {
            Some(answerer) => {
                let asker = (at, conversation);
                self.network.request(asker, answerer, protocol, bytes, &self.nodes, &mut self.kernel);
            }
            None => self.fail(at, conversation, UNANSWERED_MS),
        }
    }

    /// Whoever is asked in a conversation knows nothing of its protocol.
    pub(super) fn refuse(&mut self, asker: usize, conversation: ConversationId) {
        self.fail(asker, conversation, 1);
    }

    /// A conversation comes to nothing, as is noticed in so many milliseconds: never at once, in the turn in which it is begun.
    fn fail(&mut self, asker: usize, conversation: ConversationId, in_ms: u64) {
        let input = Box::new(Input::RequestFailed { conversation });
        let incarnation = self.nodes[asker].incarnation;
        self.kernel.schedule(in_ms, Due::Tell { node: asker, incarnation, input });
    }

    /// An answer goes back over a stream.
    pub(super) fn respond(&mut self, stream: u64, bytes: Vec<u8>) {
        self.network.respond(stream, bytes, &self.nodes, &mut self.kernel);
    }
}
