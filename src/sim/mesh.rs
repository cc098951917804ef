//! The modelled mesh: what gossipsub does with eager push alone.
//!
//! A first copy goes to the node, and onward only after it was accepted; later copies are dropped by content hash. Lazy
//! repair is left out, which makes loss worse than it is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::kernel::Kernel;
use super::meshes::{MeshNumber, NodeSet};
use super::network::{LossMode, Network, Payload};
use super::nodes::Nodes;
use crate::proto::io::{GossipId, Input};
use crate::proto::name::ZoneName;

/// How long the mesh remembers the ids of messages, as in gossipsub, milliseconds. Counted from when a message was first
/// seen anywhere: it reaches everybody within seconds.
const SEEN_MS: u64 = 60_000;
/// How long a sender waits at least before it sends a lost message again, as TCP, milliseconds.
const RETRANSMIT_MS: u64 = 200;
/// Times a message is sent again at most; the wait doubles each time.
const RETRANSMITS_MAX: u32 = 8;

/// A mesh message on its way.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) id: GossipId,
    /// Whose mesh it goes through, and the number of that.
    pub(super) zone: ZoneName,
    mesh: MeshNumber,
    pub(super) bytes: Box<[u8]>,
    /// Whether it is no beacon.
    pub(super) has_records: bool,
    /// Its place among all messages of a run.
    number: u64,
}

/// A message that waits for its verdict.
pub(super) struct Awaiting {
    at: usize,
    pub(super) from: usize,
    pub(super) packet: Arc<Packet>,
}

/// Who saw which message.
#[derive(Default)]
pub(super) struct Mesh {
    /// Numbers of the messages that are remembered.
    numbers: BTreeMap<GossipId, u64>,
    /// When each was first seen, its id, and the nodes that saw it; the first has number `first`.
    seen: VecDeque<(u64, GossipId, NodeSet)>,
    first: u64,
    awaiting: Option<Awaiting>,
}

/// What a copy of a message is to whom it reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivery {
    First,
    Duplicate,
}

impl Mesh {
    /// A message for the mesh of a zone.
    pub(super) fn packet(
        &mut self,
        zone: ZoneName,
        bytes: Vec<u8>,
        has_records: bool,
        nodes: &mut Nodes,
        kernel: &Kernel,
    ) -> Arc<Packet> {
        // By content, as the live mesh names messages: who repeats a message repeats its id.
        let id = gossip_id(&bytes);
        let number = self.number(kernel.now(), id);
        let mesh = nodes.mesh_of(&zone);
        Arc::new(Packet { id, zone, mesh, bytes: bytes.into(), has_records, number })
    }

    /// Whether a message that a node makes is new to it.
    pub(super) fn is_first(&mut self, at: usize, packet: &Packet) -> bool {
        self.deliver(packet.number, at) == Some(Delivery::First)
    }

    /// A copy reached a node: what the node is given, if it is the first one. It then owes a verdict.
    pub(super) fn arrive(
        &mut self,
        from: usize,
        to: usize,
        packet: Arc<Packet>,
        nodes: &Nodes,
        kernel: &mut Kernel,
    ) -> Option<Input> {
        if !nodes.is_in_mesh(to, packet.mesh) {
            // It left the zone while this was on its way.
            return None;
        }
        let delivery = self.deliver(packet.number, to).or_else(|| {
            // Forgotten on its way, to a node that slept.
            let number = self.number(kernel.now(), packet.id);
            self.deliver(number, to)
        });
        if delivery != Some(Delivery::First) {
            kernel.metrics.duplicates += u64::from(delivery.is_some() && packet.has_records);
            return None;
        }
        let (id, peer, bytes) = (packet.id, nodes[from].key, packet.bytes.to_vec());
        let zone = packet.zone.clone();
        // Room for one: its verdict comes before anything else moves.
        // Before the node is told: it gives its verdict while it is.
        self.awaiting = Some(Awaiting { at: to, from, packet });
        Some(Input::Gossip { id, peer, zone, bytes })
    }

    /// A node gives its verdict of a message, or hears nothing of it. None if it owes none.
    pub(super) fn take_awaiting(&mut self, at: usize, id: GossipId) -> Option<Awaiting> {
        self.awaiting.take_if(|it| it.at == at && it.packet.id == id)
    }

    /// The message that waits for its verdict.
    pub(super) fn awaiting(&self) -> Option<&Arc<Packet>> {
        self.awaiting.as_ref().map(|awaiting| &awaiting.packet)
    }

    /// A node stopped: it remembers no message.
    pub(super) fn forget(&mut self, node: usize) {
        for (_, _, seen) in &mut self.seen {
            seen.remove(node);
        }
    }

    /// The number of a message; a new one if it is not remembered.
    fn number(&mut self, now: u64, id: GossipId) -> u64 {
        // They stand in the order in which they were first seen, so the front is the oldest.
        while let Some((_, old, _)) = self.seen.pop_front_if(|(at, ..)| *at + SEEN_MS <= now) {
            self.numbers.remove(&old);
            self.first += 1;
        }
        // A number is a place in the list of the whole run, whose front is forgotten.
        let next = self.first + self.seen.len() as u64;
        let number = *self.numbers.entry(id).or_insert(next);
        if number == next {
            self.seen.push_back((now, id, NodeSet::default()));
        }
        number
    }

    /// Notes that a node has a message.
    fn deliver(&mut self, number: u64, node: usize) -> Option<Delivery> {
        // Lower ones are forgotten.
        let at = number.checked_sub(self.first)?;
        let (_, _, seen) = self.seen.get_mut(at as usize)?;
        Some(if seen.insert(node) { Delivery::First } else { Delivery::Duplicate })
    }
}

/// Sends a message over all links of a node to others in the mesh of its zone, but that to its source.
pub(super) fn spread(
    at: usize,
    source: Option<usize>,
    packet: &Arc<Packet>,
    nodes: &Nodes,
    network: &mut Network,
    kernel: &mut Kernel,
) {
    for number in 0..network.links.degree(at) {
        let (other, link) = network.links.at(at, number);
        if Some(other) != source {
            send_copies(at, (other, link), packet, nodes, network, kernel);
        }
    }
}

/// Sends a message over one link, if it is up and its other end is in the mesh of the zone: once or twice.
pub(super) fn send_copies(
    at: usize,
    (other, link): (usize, usize),
    packet: &Arc<Packet>,
    nodes: &Nodes,
    network: &mut Network,
    kernel: &mut Kernel,
) {
    let Some(epoch) = network.links.epoch(link) else { return };
    if !nodes.is_in_mesh(other, packet.mesh) {
        return;
    }
    // One draw a link and not one a copy: a duplicate has the loss and latency of any message.
    let copies = 1 + u64::from(kernel.chance(network.conditions.duplication));
    for _ in 0..copies {
        send_packet(at, other, (link, epoch), packet.clone(), network, kernel);
    }
}

fn send_packet(
    from: usize,
    to: usize,
    (link, epoch): (usize, u32),
    packet: Arc<Packet>,
    network: &mut Network,
    kernel: &mut Kernel,
) {
    let mut latency = network.latency(from, to, &mut kernel.rng);
    // Taken from the way alone: `latency` grows below, and the wait would grow twice.
    let wait = RETRANSMIT_MS.max(3 * latency);
    // A copy that is lost was sent all the same.
    kernel.metrics.sent(from, &packet);
    let (loss, mode) = (network.conditions.loss, network.conditions.loss_mode);
    let mut losses = 0;
    while losses < RETRANSMITS_MAX && kernel.chance(loss) {
        match mode {
            LossMode::Drop => return network.drop_sent(to, &Payload::Packet(packet), kernel),
            // The wait doubles with each loss, as that of TCP.
            LossMode::Retransmit => latency += wait << losses,
        }
        losses += 1;
    }
    network.send(latency, to, link, epoch, Payload::Packet(packet), kernel);
}

fn gossip_id(bytes: &[u8]) -> GossipId {
    let mut id = [0; 20];
    id.copy_from_slice(&Sha256::digest(bytes)[..20]);
    GossipId(id)
}
