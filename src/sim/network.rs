//! Links that come and go, and sync streams over them.
//!
//! A stream delivers in order or breaks. A message is lost if its link is not, at its end, the link it left on.

use std::collections::BTreeMap;

use rand::{Rng, RngExt};

use super::links::{Graph, LinkState, Links};
use super::mesh::LossMode;
use super::places::Places;
use super::{Cargo, Check, Due, Frame, World};
use crate::proto::identity::PeerKey;
use crate::proto::io::{ConversationId, Dialed, Input, Protocol};
use crate::proto::name::ZoneName;

/// How long machines wait at most before they connect, milliseconds.
const CONNECT_MS_MAX: u64 = 3_000;
/// How long a stream that stalls takes for one frame at most, milliseconds: longer than the deadline of a sync.
const STALL_MS_MAX: u64 = 90_000;

/// How good the network is.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// Share of mesh messages that get lost, 0 to 1.
    pub loss: f64,
    /// What happens to those.
    pub loss_mode: LossMode,
    /// Share of mesh messages that arrive twice, 0 to 1.
    pub duplication: f64,
    /// Shortest and longest time on a link, milliseconds, where machines have no places.
    pub latency_ms: (u64, u64),
    /// Share of sync frames that break their stream, 0 to 1.
    pub breaks: f64,
    /// Share of sync frames that stall, 0 to 1.
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

/// Messages of a run; what was sent was delivered, dropped by plan, or is on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Put on a link.
    pub sent: u64,
    /// Handed to the machine at its end.
    pub delivered: u64,
    /// Lost by chance, by a broken link or stream, or because a machine was down.
    pub dropped: u64,
}

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Toward {
    /// To the side that answers.
    Answerer,
    /// To the side that asked.
    Asker,
}

struct Stream {
    asker: usize,
    conversation: ConversationId,
    answerer: usize,
    protocol: Protocol,
    link: usize,
    epoch: u32,
    /// When the last frame of each direction arrives.
    last: [u64; 2],
}

/// Links and streams between machines.
pub(super) struct Network {
    pub(super) conditions: Conditions,
    pub(super) counts: Counts,
    pub(super) links: Links,
    /// Where machines are; without places all links are alike.
    pub(super) places: Option<Places>,
    /// The part of a partition each machine is in.
    groups: Vec<u8>,
    /// The machine that meets hostile ones only.
    pub(super) eclipsed: Option<usize>,
    streams: BTreeMap<u64, Stream>,
    /// Streams that their asking side has not closed; those no longer in `streams` are broken.
    by_conversation: BTreeMap<(usize, ConversationId), u64>,
    next_stream: u64,
    /// Questions on their way through a node, by the number the world gave them.
    pub(super) asked: BTreeMap<u64, u64>,
    next_asked: u64,
}

impl Network {
    pub(super) fn new(
        machines: usize,
        conditions: Conditions,
        graph: Graph,
        places: Option<Places>,
        rng: &mut impl Rng,
    ) -> Network {
        Network {
            conditions,
            counts: Counts::default(),
            links: Links::new(machines, graph, rng),
            places,
            groups: vec![0; machines],
            eclipsed: None,
            streams: BTreeMap::new(),
            by_conversation: BTreeMap::new(),
            next_stream: 0,
            asked: BTreeMap::new(),
            next_asked: 0,
        }
    }

    /// No loss, no partition; links come back when machines connect.
    pub(super) fn repair(&mut self) {
        self.conditions = Conditions { latency_ms: self.conditions.latency_ms, ..Conditions::default() };
        self.groups.fill(0);
        self.eclipsed = None;
    }

    /// Who opened a stream that is not broken.
    pub(super) fn asker_of(&self, stream: u64) -> Option<usize> {
        self.streams.get(&stream).map(|stream| stream.asker)
    }
}

impl World {
    /// Parts machines: those of different groups do not reach each other. All of one group ends a partition.
    pub(super) fn part(&mut self, groups: Vec<u8>) {
        self.network.groups = groups;
        for link in 0..self.network.links.len() {
            let (a, b) = self.network.links.get(link).ends;
            if self.network.groups[a] != self.network.groups[b] {
                self.sever(link);
            } else {
                self.plan_connection(link);
            }
        }
    }

    pub(super) fn connect_all(&mut self, at: usize) {
        for number in 0..self.network.links.degree(at) {
            self.plan_connection(self.network.links.at(at, number).1);
        }
    }

    pub(super) fn sever_all(&mut self, at: usize) {
        for number in 0..self.network.links.degree(at) {
            self.sever(self.network.links.at(at, number).1);
        }
    }

    pub(super) fn connect(&mut self, link: usize) {
        let (a, b) = self.network.links.get(link).ends;
        if !self.is_possible(a, b) {
            return;
        }
        let incarnations = (self.machines[a].incarnation, self.machines[b].incarnation);
        let link = self.network.links.get_mut(link);
        if link.state != LinkState::Down {
            return;
        }
        (link.state, link.epoch, link.incarnations) = (LinkState::Up, link.epoch + 1, incarnations);
        let dialer = if self.rng.random() { a } else { b };
        for (at, other) in [(a, b), (b, a)] {
            let dialed = if at == dialer { Dialed::ByUs } else { Dialed::ByThem };
            let peer = self.machines[other].key;
            self.tell(at, Input::PeerJoined { peer, zone: ZoneName::root(), dialed });
        }
    }

    /// Both ends notice that a link is gone, and look whether it can come back.
    pub(super) fn closed(&mut self, number: usize, epoch: u32) {
        let link = self.network.links.get_mut(number);
        if link.state != LinkState::Closing || link.epoch != epoch {
            return;
        }
        link.state = LinkState::Down;
        let ((a, b), (of_a, of_b)) = (link.ends, link.incarnations);
        for (machine, incarnation, other) in [(a, of_a, b), (b, of_b, a)] {
            let peer = self.machines[other].key;
            let input = Box::new(Input::PeerLeft { peer, zone: None });
            self.schedule(0, Due::Tell { machine, incarnation, input });
        }
        self.plan_connection(number);
    }

    fn sever(&mut self, number: usize) {
        let link = self.network.links.get_mut(number);
        if link.state != LinkState::Up {
            return;
        }
        link.state = LinkState::Closing;
        let epoch = link.epoch;
        let noticed = self.rng.random_range(0..=self.network.conditions.detection_ms_max);
        self.schedule(noticed, Due::Closed { link: number, epoch });
        let streams = self.network.streams.iter();
        let broken: Vec<u64> = streams
            .filter(|(_, stream)| (stream.link, stream.epoch) == (number, epoch))
            .map(|(id, _)| *id)
            .collect();
        for stream in broken {
            self.break_stream(stream, noticed);
        }
    }

    fn is_possible(&self, a: usize, b: usize) -> bool {
        let awake =
            |at: usize| self.machines[at].node.is_some() && self.machines[at].suspended_until <= self.now;
        let apart = self.network.groups[a] != self.network.groups[b] || self.is_eclipsed(a, b);
        awake(a) && awake(b) && !apart
    }

    pub(super) fn plan_connection(&mut self, link: usize) {
        let (a, b) = self.network.links.get(link).ends;
        if self.is_possible(a, b) {
            let delay = self.rng.random_range(1..=CONNECT_MS_MAX);
            self.schedule(delay, Due::Connect { link });
        }
    }

    pub(super) fn ask(
        &mut self,
        at: usize,
        conversation: ConversationId,
        peer: PeerKey,
        protocol: Protocol,
        bytes: Vec<u8>,
    ) {
        let stream = match self.network.by_conversation.get(&(at, conversation)) {
            Some(stream) => *stream,
            None => self.open_stream(at, conversation, self.by_key[&peer], protocol),
        };
        self.send_frame(Frame { stream, toward: Toward::Answerer, bytes });
    }

    /// Without a link the stream is broken from the start.
    fn open_stream(
        &mut self,
        asker: usize,
        conversation: ConversationId,
        answerer: usize,
        protocol: Protocol,
    ) -> u64 {
        let id = self.network.next_stream;
        self.network.next_stream += 1;
        self.network.by_conversation.insert((asker, conversation), id);
        let link = self.network.links.between(asker, answerer);
        let epoch = link.and_then(|link| self.network.links.epoch(link));
        let (link, is_up) = (link.unwrap_or(usize::MAX), epoch.is_some());
        let stream = Stream {
            asker,
            conversation,
            answerer,
            protocol,
            link,
            epoch: epoch.unwrap_or(0),
            last: [self.now; 2],
        };
        self.network.streams.insert(id, stream);
        if !is_up {
            self.break_stream(id, 1);
        }
        id
    }

    pub(super) fn answer(&mut self, at: usize, id: u64, bytes: Vec<u8>) {
        let Some(stream) = self.network.asked.remove(&id) else {
            return self.fail(Check::QueuesBounded, format!("machine {at} answers a question twice"));
        };
        self.send_frame(Frame { stream, toward: Toward::Asker, bytes });
    }

    /// A machine stopped: its conversations are over, and those with it break.
    pub(super) fn forget_streams(&mut self, of: usize) {
        self.network.by_conversation.retain(|(asker, _), _| *asker != of);
        self.network.streams.retain(|_, stream| stream.asker != of);
    }

    /// The asking side is done; what is on its way is lost.
    pub(super) fn close_stream(&mut self, at: usize, conversation: ConversationId) {
        if let Some(stream) = self.network.by_conversation.remove(&(at, conversation)) {
            self.network.streams.remove(&stream);
        }
    }

    pub(super) fn send_frame(&mut self, frame: Frame) {
        let Some(stream) = self.network.streams.get(&frame.stream) else { return };
        let (from, to) = match frame.toward {
            Toward::Answerer => (stream.asker, stream.answerer),
            Toward::Asker => (stream.answerer, stream.asker),
        };
        let latency = self.latency(from, to);
        let Conditions { breaks, stalls, .. } = self.network.conditions;
        let stalled = if self.chance(stalls) { self.rng.random_range(0..STALL_MS_MAX) } else { 0 };
        let breaks = self.chance(breaks);
        self.tally.sent_frame(&frame);
        let Some(stream) = self.network.streams.get_mut(&frame.stream) else { return };
        // In order: a frame never overtakes the one before it.
        let last = &mut stream.last[frame.toward as usize];
        *last = (*last).max(self.now + latency + stalled);
        let (at, link, epoch, id) = (*last, stream.link, stream.epoch, frame.stream);
        self.network.counts.sent += 1;
        let (to, link, cargo) = (to as u32, link as u32, Cargo::Frame(Box::new(frame)));
        self.schedule(at - self.now, Due::Arrive { to, link, epoch, cargo });
        if breaks {
            self.break_stream(id, latency);
        }
    }

    fn break_stream(&mut self, id: u64, noticed_ms: u64) {
        let Some(Stream { asker, conversation, .. }) = self.network.streams.remove(&id) else { return };
        let incarnation = self.machines[asker].incarnation;
        let input = Box::new(Input::RequestFailed { conversation });
        self.schedule(noticed_ms, Due::Tell { machine: asker, incarnation, input });
    }

    /// A message reached the end of its link.
    pub(super) fn arrive(&mut self, to: usize, link: usize, epoch: u32, cargo: Cargo) {
        let gone = match &cargo {
            Cargo::Packet(_) => false,
            Cargo::Frame(frame) => !self.network.streams.contains_key(&frame.stream),
        };
        if gone || self.network.links.epoch(link) != Some(epoch) {
            return self.lose(to, &cargo);
        }
        self.network.counts.delivered += 1;
        let (a, b) = self.network.links.get(link).ends;
        let from = if to == a { b } else { a };
        match cargo {
            Cargo::Packet(packet) => self.arrive_packet(from, to, packet),
            Cargo::Frame(frame) => self.arrive_frame(from, to, *frame),
        }
    }

    fn arrive_frame(&mut self, from: usize, to: usize, Frame { stream, toward, bytes }: Frame) {
        match toward {
            Toward::Answerer => {
                let (id, peer) = (self.network.next_asked, self.machines[from].key);
                let protocol = self.network.streams[&stream].protocol;
                self.network.next_asked += 1;
                self.network.asked.insert(id, stream);
                self.tell(to, Input::Request { id, peer, protocol, bytes });
            }
            Toward::Asker => {
                let conversation = self.network.streams[&stream].conversation;
                self.tell(to, Input::Response { conversation, bytes });
            }
        }
    }

    pub(super) fn lose(&mut self, to: usize, cargo: &Cargo) {
        self.network.counts.dropped += 1;
        self.trace.lost(self.now, to, cargo);
    }

    pub(super) fn latency(&mut self, from: usize, to: usize) -> u64 {
        if let Some(places) = &self.network.places {
            return places.latency_ms(from, to, &mut self.rng);
        }
        let (least, most) = self.network.conditions.latency_ms;
        if least == most { least } else { self.rng.random_range(least..=most) }
    }

    /// Sent is delivered, dropped or on its way; nothing waits for a verdict or an answer between two events.
    pub(super) fn check_messages(&mut self) {
        let on_their_way = self.queue.iter().filter(|due| matches!(due, Due::Arrive { .. })).count() as u64;
        let Counts { sent, delivered, dropped } = self.network.counts;
        if sent != delivered + dropped + on_their_way {
            let detail =
                format!("{sent} sent, {delivered} delivered, {dropped} dropped, {on_their_way} on their way");
            self.fail(Check::MessagesConserved, detail);
        }
        if !self.network.asked.is_empty() {
            self.fail(Check::QueuesBounded, "no answer came to a question".into());
        }
    }
}
