//! Links that come and go between the nodes of a world, and what passes over them.
//!
//! A message is lost if its link is not, at its end, the link it left on. Below: `links` (which there may be, and how each
//! stands), `streams` (conversations), `topology` (where nodes are).

mod links;
mod streams;
mod topology;

use rand::seq::IteratorRandom;
use rand::{Rng, RngExt};

pub use links::Graph;
pub(super) use links::{LinkState, Links};
pub(super) use streams::{Frame, Toward};
pub(super) use topology::Topology;

use std::sync::Arc;

use super::checkers::Check;
use super::kernel::Kernel;
use super::mesh::Packet;
use super::nodes::Nodes;
use super::queue::Due;
use super::setup::Setup;
use crate::proto::identity::PeerKey;
use crate::proto::io::{Dialed, Input};
use crate::proto::name::ZoneName;
use streams::Streams;

/// How long nodes wait at most before they connect, milliseconds.
const CONNECT_MS_MAX: u64 = 3_000;

/// Members of a zone that a node finds at once, at most: the links that a node has on average.
const FOUND_MAX: usize = Graph::DEGREE;

/// How good the network is.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// Share of mesh messages that get lost, 0 to 1.
    pub loss: f64,
    /// What happens to those.
    pub loss_mode: LossMode,
    /// Share of mesh messages that arrive twice, 0 to 1.
    pub duplication: f64,
    /// Shortest and longest time on a link, milliseconds, where nodes are in no regions.
    pub latency_ms: (u64, u64),
    /// Share of frames that break their stream, 0 to 1.
    pub breaks: f64,
    /// Share of frames that stall, 0 to 1.
    pub stalls: f64,
    /// How long the end of a broken link may go unnoticed, milliseconds.
    pub detection_ms_max: u64,
}

impl Default for Conditions {
    fn default() -> Conditions {
        Conditions {
            loss: 0.0,
            loss_mode: LossMode::Drop,
            duplication: 0.0,
            latency_ms: (5, 50),
            breaks: 0.0,
            stalls: 0.0,
            detection_ms_max: 1_000,
        }
    }
}

/// What happens to a message that is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossMode {
    /// It is gone, as from a full queue.
    #[default]
    Drop,
    /// It comes later, as over TCP and QUIC.
    Retransmit,
}

/// Messages of a run; what was sent was delivered, dropped by plan, or is on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Put on a link.
    pub sent: u64,
    /// Handed to the node at its end.
    pub delivered: u64,
    /// Lost by chance, by a broken link or stream, or because a node was down.
    pub dropped: u64,
}

/// What travels over a link.
pub(super) enum Payload {
    /// A copy of a mesh message.
    Packet(Arc<Packet>),
    /// A part of a conversation.
    Frame(Box<Frame>),
}

/// Links and streams between nodes.
pub(super) struct Network {
    pub(super) conditions: Conditions,
    pub(super) counts: Counts,
    pub(super) links: Links,
    /// Where nodes are; without it all links are alike.
    topology: Option<Topology>,
    /// The part of a partition each node is in.
    groups: Vec<u8>,
    /// The node that meets hostile ones only.
    eclipsed: Option<usize>,
    streams: Streams,
}

impl Network {
    pub(super) fn new(setup: &Setup, topology: Option<Topology>, rng: &mut impl Rng) -> Network {
        let are_strangers = |one, other| setup.are_strangers(one, other);
        Network {
            conditions: setup.conditions,
            counts: Counts::default(),
            links: Links::new(setup.nodes, setup.graph, are_strangers, rng),
            topology,
            groups: vec![0; setup.nodes],
            eclipsed: None,
            streams: Streams::default(),
        }
    }

    /// The region of each node; nothing without regions.
    pub(super) fn regions(&self) -> &[u8] {
        self.topology.as_ref().map_or(&[], Topology::regions)
    }

    /// Whether a partition lies between two nodes.
    pub(super) fn is_parted(&self, a: usize, b: usize) -> bool {
        self.groups[a] != self.groups[b]
    }

    /// Whether a run of a node was connected with anybody.
    pub(super) fn has_met(&self, at: usize, incarnation: u64) -> bool {
        let links = (0..self.links.degree(at)).map(|number| self.links.get(self.links.at(at, number).1));
        let mut runs =
            links.map(|link| if link.ends.0 == at { link.incarnations.0 } else { link.incarnations.1 });
        runs.any(|run| run == incarnation)
    }

    /// Whether a node is connected with another that is in the mesh of a zone.
    pub(super) fn is_linked_into(&self, at: usize, zone: &ZoneName, nodes: &Nodes) -> bool {
        let mut links = (0..self.links.degree(at)).map(|number| self.links.at(at, number));
        links.any(|(other, link)| self.links.epoch(link).is_some() && nodes[other].serves(zone))
    }

    /// No loss, no partition; links come back when nodes connect.
    pub(super) fn repair(&mut self) {
        self.conditions = Conditions { latency_ms: self.conditions.latency_ms, ..Conditions::default() };
        self.groups.fill(0);
        self.eclipsed = None;
    }

    /// Parts nodes: those of different groups do not reach each other. All of one group ends a partition.
    pub(super) fn part(&mut self, groups: Vec<u8>, nodes: &Nodes, kernel: &mut Kernel) {
        self.groups = groups;
        for link in 0..self.links.len() {
            let (a, b) = self.links.get(link).ends;
            if self.groups[a] != self.groups[b] {
                self.sever(link, nodes, kernel);
            } else {
                self.plan_connection(link, nodes, kernel);
            }
        }
    }

    /// All links of a node lead to hostile nodes from now on; none ends it.
    pub(super) fn eclipse(&mut self, victim: Option<usize>, nodes: &Nodes, kernel: &mut Kernel) {
        let before = std::mem::replace(&mut self.eclipsed, victim);
        if let Some(victim) = victim {
            // Added first, so that they are among the links that it then tries.
            for other in (0..nodes.count()).filter(|at| !nodes.is_honest(*at)) {
                // Its own links may all lead to honest nodes, and then it would see nobody at all.
                self.links.add(victim, other);
            }
            self.sever_all(victim, nodes, kernel);
            self.connect_all(victim, nodes, kernel);
        }
        if let Some(before) = before {
            self.connect_all(before, nodes, kernel);
        }
    }

    /// The ends of all links of a node will try to connect.
    pub(super) fn connect_all(&mut self, at: usize, nodes: &Nodes, kernel: &mut Kernel) {
        for number in 0..self.links.degree(at) {
            self.plan_connection(self.links.at(at, number).1, nodes, kernel);
        }
    }

    /// All links of a node break.
    pub(super) fn sever_all(&mut self, at: usize, nodes: &Nodes, kernel: &mut Kernel) {
        for number in 0..self.links.degree(at) {
            self.sever(self.links.at(at, number).1, nodes, kernel);
        }
    }

    /// The ends of a link connect, if they can: what each is told, in order.
    pub(super) fn connect(&mut self, link: usize, nodes: &Nodes, kernel: &mut Kernel) -> Vec<(usize, Input)> {
        let (a, b) = self.links.get(link).ends;
        // Judged again: much may have happened since it was planned.
        if !self.is_possible(a, b, nodes, kernel.now()) {
            return Vec::new();
        }
        let incarnations = (nodes[a].incarnation, nodes[b].incarnation);
        let link = self.links.get_mut(link);
        if link.state != LinkState::Down {
            return Vec::new();
        }
        // A new epoch: what left over the old link does not arrive over this one.
        (link.state, link.epoch, link.incarnations) = (LinkState::Up, link.epoch + 1, incarnations);
        // Either side may have dialed; who did compares first, and both must work.
        link.dialer = if kernel.rng.random() { a } else { b };
        let dialer = link.dialer;
        let told = [(a, b), (b, a)].into_iter().flat_map(|(at, other)| {
            let dialed = if dialer == at { Dialed::ByUs } else { Dialed::ByThem };
            let first = (at, Input::Connected { peer: nodes[other].key, dialed });
            let shared = nodes[at].zones.keys().filter(move |zone| nodes[other].serves(zone)).cloned();
            std::iter::once(first)
                .chain(shared.map(move |zone| (at, joined(nodes[other].key, zone, dialer == at))))
        });
        told.collect()
    }

    /// A node entered the mesh of a zone, or left it: those in that mesh to whom it has a link hear so as soon as a message
    /// takes. Who enters hears of them at once: they said where they are when the link came up.
    pub(super) fn tell_zone(&self, at: usize, zone: &ZoneName, nodes: &Nodes, kernel: &mut Kernel) {
        let zone = Box::new(zone.clone());
        for number in 0..self.links.degree(at) {
            let (other, link) = self.links.at(at, number);
            let Some(epoch) = self.links.epoch(link).filter(|_| nodes[other].serves(&zone)) else { continue };
            let latency = self.latency(at, other, &mut kernel.rng);
            // Through the queue also at once: the node is in the middle of its outputs.
            kernel.schedule(0, Due::ZoneTold { to: at, link, epoch, zone: zone.clone() });
            kernel.schedule(latency, Due::ZoneTold { to: other, link, epoch, zone: zone.clone() });
        }
    }

    /// What a node hears of the other end of a link about a zone. It is what holds when it is heard, so the last word is
    /// right in whatever order words come; nothing if the link is not what it was.
    pub(super) fn zone_told(
        &self,
        to: usize,
        (link, epoch): (usize, u32),
        zone: ZoneName,
        nodes: &Nodes,
    ) -> Option<Input> {
        self.links.epoch(link).filter(|now| *now == epoch && nodes[to].serves(&zone))?;
        let link = self.links.get(link);
        let other = if link.ends.0 == to { link.ends.1 } else { link.ends.0 };
        let peer = nodes[other].key;
        Some(if nodes[other].serves(&zone) {
            joined(peer, zone, link.dialer == to)
        } else {
            Input::PeerLeft { peer, zone: Some(zone) }
        })
    }

    /// A node looks for members of a zone and dials those it finds; who they are.
    pub(super) fn find_peers(
        &mut self,
        at: usize,
        zone: &ZoneName,
        nodes: &Nodes,
        kernel: &mut Kernel,
    ) -> Vec<PeerKey> {
        let is_found = |it: &usize| *it != at && !nodes.are_apart(zone, at, *it);
        let members = nodes.members(zone).filter(is_found);
        // A lookup finds providers, not links: whether they can be reached is seen when they are dialed.
        let found = members.sample(&mut kernel.rng, FOUND_MAX);
        for other in &found {
            self.links.add(at, *other);
            if let Some(link) = self.links.between(at, *other) {
                self.plan_connection(link, nodes, kernel);
            }
        }
        found.into_iter().map(|other| nodes[other].key).collect()
    }

    /// A node dials another that it is about to ask, if it can.
    pub(super) fn reach(&mut self, at: usize, other: usize, nodes: &Nodes, kernel: &mut Kernel) {
        self.links.add(at, other);
        let Some(link) = self.links.between(at, other) else { return };
        for (node, input) in self.connect(link, nodes, kernel) {
            // Through the queue: the node is in the middle of its outputs.
            let due = Due::Tell { node, incarnation: nodes[node].incarnation, input: Box::new(input) };
            kernel.schedule(0, due);
        }
    }

    /// Both ends notice that a link is gone, and look whether it can come back.
    pub(super) fn closed(&mut self, number: usize, epoch: u32, nodes: &Nodes, kernel: &mut Kernel) {
        let link = self.links.get_mut(number);
        if link.state != LinkState::Closing || link.epoch != epoch {
            return;
        }
        link.state = LinkState::Down;
        let ((a, b), (of_a, of_b)) = (link.ends, link.incarnations);
        // Only a run that heard of the link hears of its end.
        for (node, incarnation, other) in [(a, of_a, b), (b, of_b, a)] {
            let input = Box::new(Input::PeerLeft { peer: nodes[other].key, zone: None });
            kernel.schedule(0, Due::Tell { node, incarnation, input });
        }
        self.plan_connection(number, nodes, kernel);
    }

    fn sever(&mut self, number: usize, nodes: &Nodes, kernel: &mut Kernel) {
        let link = self.links.get_mut(number);
        if link.state != LinkState::Up {
            return;
        }
        link.state = LinkState::Closing;
        let epoch = link.epoch;
        // Both ends and all streams over the link notice at the same time: it is one connection.
        let noticed = kernel.rng.random_range(0..=self.conditions.detection_ms_max);
        kernel.schedule(noticed, Due::Closed { link: number, epoch });
        self.break_streams_over(number, epoch, noticed, nodes, kernel);
    }

    fn is_possible(&self, a: usize, b: usize, nodes: &Nodes, now: u64) -> bool {
        let apart = self.groups[a] != self.groups[b] || self.is_eclipsed(a, b, nodes);
        nodes[a].is_up(now) && nodes[b].is_up(now) && !apart
    }

    /// Whether an eclipse keeps two nodes apart.
    fn is_eclipsed(&self, a: usize, b: usize, nodes: &Nodes) -> bool {
        match self.eclipsed {
            Some(victim) if victim == a => nodes.is_honest(b),
            Some(victim) if victim == b => nodes.is_honest(a),
            Some(_) | None => false,
        }
    }

    fn plan_connection(&mut self, link: usize, nodes: &Nodes, kernel: &mut Kernel) {
        let (a, b) = self.links.get(link).ends;
        if self.is_possible(a, b, nodes, kernel.now()) {
            // Never at once: whoever caused this has first to finish what it does.
            let delay = kernel.rng.random_range(1..=CONNECT_MS_MAX);
            kernel.schedule(delay, Due::Connect { link });
        }
    }

    /// A message is on its way, to arrive in so many milliseconds.
    pub(super) fn send(
        &mut self,
        in_ms: u64,
        to: usize,
        link: usize,
        epoch: u32,
        payload: Payload,
        kernel: &mut Kernel,
    ) {
        self.counts.sent += 1;
        kernel.schedule(in_ms, Due::Arrive { to: to as u32, link: link as u32, epoch, payload });
    }

    /// A message reached the end of its link: from whom it comes. None if link or stream are not what they were; then it is
    /// lost.
    pub(super) fn arrive(
        &mut self,
        to: usize,
        link: usize,
        epoch: u32,
        payload: Payload,
        kernel: &mut Kernel,
    ) -> Option<(usize, Payload)> {
        let gone = match &payload {
            Payload::Packet(_) => false,
            Payload::Frame(frame) => !self.streams.is_open(frame.stream),
        };
        if gone || self.links.epoch(link) != Some(epoch) {
            self.lose(to, &payload, kernel);
            return None;
        }
        self.counts.delivered += 1;
        let (a, b) = self.links.get(link).ends;
        Some((if to == a { b } else { a }, payload))
    }

    /// A message is sent and lost at once.
    pub(super) fn drop_sent(&mut self, to: usize, payload: &Payload, kernel: &mut Kernel) {
        self.counts.sent += 1;
        self.lose(to, payload, kernel);
    }

    fn lose(&mut self, to: usize, payload: &Payload, kernel: &mut Kernel) {
        self.counts.dropped += 1;
        kernel.trace.lost(kernel.clock.now(), to, payload);
    }

    /// How long a message takes from one node to another.
    pub(super) fn latency(&self, from: usize, to: usize, rng: &mut impl Rng) -> u64 {
        if let Some(topology) = &self.topology {
            return topology.latency_ms(from, to, rng);
        }
        let (least, most) = self.conditions.latency_ms;
        // A draw without a choice would still move those of others.
        if least == most { least } else { rng.random_range(least..=most) }
    }

    /// Sent is delivered, dropped or on its way; nothing waits for an answer between two events.
    pub(super) fn check_messages(&self, kernel: &mut Kernel) {
        let in_flight = kernel.in_flight();
        let Counts { sent, delivered, dropped } = self.counts;
        if sent != delivered + dropped + in_flight {
            let detail =
                format!("{sent} sent, {delivered} delivered, {dropped} dropped, {in_flight} on their way");
            kernel.fail(Check::MessagesConserved, detail);
        }
        if self.streams.is_asked() {
            kernel.fail(Check::QueuesBounded, "no answer came to a question".into());
        }
    }
}

/// What a node hears of a peer that serves a zone.
fn joined(peer: PeerKey, zone: ZoneName, dialed: bool) -> Input {
    Input::PeerJoined { peer, zone, dialed: if dialed { Dialed::ByUs } else { Dialed::ByThem } }
}
