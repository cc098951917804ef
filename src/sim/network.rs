//! Links, the modelled mesh and sync streams.
//!
//! The mesh does what gossipsub does with eager push alone: a first copy goes to the node, and onward only after it was
//! accepted; later copies are dropped by content hash. Lazy repair is left out, which makes loss worse than it is. A
//! stream delivers in order or breaks. A message is lost if its link is not, at its end, the link it left on.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::{Rng, RngExt};
use sha2::{Digest, Sha256};

use super::machine::{Awaiting, Seen};
use super::{Cargo, Check, Due, World};
use crate::proto::identity::PeerKey;
use crate::proto::name::ZoneName;
use crate::proto::node::{Dialed, GossipId, Input, SessionId, Verdict};

/// Up to this many machines everybody is linked to everybody; beyond it to about [`DEGREE`].
const FULL_MESH_MAX: usize = 8;
/// Links of a machine in a larger world, on average: the protocol's mesh degree.
const DEGREE: usize = 6;
/// How long machines wait at most before they connect, milliseconds.
const CONNECT_MS_MAX: u64 = 3_000;
/// How long a stream that stalls takes for one frame at most, milliseconds: longer than the deadline of a sync.
const STALL_MS_MAX: u64 = 90_000;

/// How good the network is.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// Share of mesh messages that get lost, 0 to 1.
    pub loss: f64,
    /// Share of mesh messages that arrive twice, 0 to 1.
    pub duplication: f64,
    /// Shortest and longest time on a link, milliseconds.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkState {
    Down,
    Up,
    /// Broken, and not yet noticed.
    Closing,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    state: LinkState,
    epoch: u64,
    /// The runs of both ends that were told of it.
    incarnations: (u64, u64),
}

struct Stream {
    asker: usize,
    session: SessionId,
    answerer: usize,
    epoch: u64,
    /// When the last frame of each direction arrives.
    last: [u64; 2],
}

/// Links and streams between machines.
pub(super) struct Network {
    pub(super) conditions: Conditions,
    pub(super) counts: Counts,
    links: BTreeMap<(usize, usize), Link>,
    /// The part of a partition each machine is in.
    groups: Vec<u8>,
    /// The machine that meets hostile ones only.
    pub(super) eclipsed: Option<usize>,
    streams: BTreeMap<u64, Stream>,
    /// Streams that their asking side has not closed; those no longer in `streams` are broken.
    by_session: BTreeMap<(usize, SessionId), u64>,
    next_stream: u64,
    /// Questions on their way through a node, by the number the world gave them.
    pub(super) asked: BTreeMap<u64, u64>,
    next_asked: u64,
}

impl Network {
    pub(super) fn new(machines: usize, conditions: Conditions, rng: &mut impl Rng) -> Network {
        let down = Link { state: LinkState::Down, epoch: 0, incarnations: (0, 0) };
        let mut links = BTreeMap::new();
        for a in 0..machines {
            if machines <= FULL_MESH_MAX {
                links.extend((a + 1..machines).map(|b| ((a, b), down)));
            } else {
                // A ring keeps the graph in one piece; the rest is chance.
                let chance = (0..DEGREE / 2 - 1).map(|_| rng.random_range(0..machines));
                let others: Vec<usize> = chance.chain([(a + 1) % machines]).collect();
                links.extend(others.into_iter().filter(|b| *b != a).map(|b| (pair(a, b), down)));
            }
        }
        Network {
            conditions,
            counts: Counts::default(),
            links,
            groups: vec![0; machines],
            eclipsed: None,
            streams: BTreeMap::new(),
            by_session: BTreeMap::new(),
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

    /// Makes links possible between a machine and others.
    pub(super) fn link(&mut self, at: usize, others: Vec<usize>) {
        let down = Link { state: LinkState::Down, epoch: 0, incarnations: (0, 0) };
        for other in others.into_iter().filter(|other| *other != at) {
            self.links.entry(pair(at, other)).or_insert(down);
        }
    }

    /// Who opened a stream that is not broken.
    pub(super) fn asker_of(&self, stream: u64) -> Option<usize> {
        self.streams.get(&stream).map(|stream| stream.asker)
    }

    pub(super) fn neighbours(&self, of: usize) -> Vec<usize> {
        let ends = self.links.keys().filter(|(a, b)| *a == of || *b == of);
        ends.map(|(a, b)| if *a == of { *b } else { *a }).collect()
    }

    /// Epoch of the link between two machines, if it is up.
    fn epoch(&self, a: usize, b: usize) -> Option<u64> {
        self.links.get(&pair(a, b)).filter(|link| link.state == LinkState::Up).map(|link| link.epoch)
    }
}

impl World {
    /// Parts machines: those of different groups do not reach each other. All of one group ends a partition.
    pub(super) fn part(&mut self, groups: Vec<u8>) {
        self.network.groups = groups;
        let pairs: Vec<(usize, usize)> = self.network.links.keys().copied().collect();
        for (a, b) in pairs {
            if self.network.groups[a] != self.network.groups[b] {
                self.sever((a, b));
            } else {
                self.plan_connection(a, b);
            }
        }
    }

    pub(super) fn connect_all(&mut self, at: usize) {
        for other in self.network.neighbours(at) {
            self.plan_connection(at, other);
        }
    }

    pub(super) fn sever_all(&mut self, at: usize) {
        for other in self.network.neighbours(at) {
            self.sever(pair(at, other));
        }
    }

    pub(super) fn connect(&mut self, a: usize, b: usize) {
        if !self.is_possible(a, b) {
            return;
        }
        let incarnations = (self.machines[a].incarnation, self.machines[b].incarnation);
        let Some(link) = self.network.links.get_mut(&(a, b)) else { return };
        if link.state != LinkState::Down {
            return;
        }
        *link = Link { state: LinkState::Up, epoch: link.epoch + 1, incarnations };
        let dialer = if self.rng.random() { a } else { b };
        for (at, other) in [(a, b), (b, a)] {
            let dialed = if at == dialer { Dialed::ByUs } else { Dialed::ByThem };
            let peer = self.machines[other].key;
            self.tell(at, Input::PeerJoined { peer, zone: ZoneName::root(), dialed });
        }
    }

    /// Both ends notice that a link is gone, and look whether it can come back.
    pub(super) fn closed(&mut self, (a, b): (usize, usize), epoch: u64) {
        let Some(link) = self.network.links.get_mut(&(a, b)) else { return };
        if link.state != LinkState::Closing || link.epoch != epoch {
            return;
        }
        link.state = LinkState::Down;
        let (of_a, of_b) = link.incarnations;
        for (machine, incarnation, other) in [(a, of_a, b), (b, of_b, a)] {
            let peer = self.machines[other].key;
            let input = Input::PeerLeft { peer, zone: None };
            self.schedule(0, Due::Tell { machine, incarnation, input });
        }
        self.plan_connection(a, b);
    }

    fn sever(&mut self, pair: (usize, usize)) {
        let Some(link) = self.network.links.get_mut(&pair).filter(|link| link.state == LinkState::Up) else {
            return;
        };
        link.state = LinkState::Closing;
        let epoch = link.epoch;
        let noticed = self.rng.random_range(0..=self.network.conditions.detection_ms_max);
        self.schedule(noticed, Due::Closed { pair, epoch });
        let broken: Vec<u64> = self
            .network
            .streams
            .iter()
            .filter(|(_, stream)| {
                (stream.asker.min(stream.answerer), stream.asker.max(stream.answerer)) == pair
                    && stream.epoch == epoch
            })
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

    fn plan_connection(&mut self, a: usize, b: usize) {
        let (a, b) = pair(a, b);
        if self.is_possible(a, b) {
            let delay = self.rng.random_range(1..=CONNECT_MS_MAX);
            self.schedule(delay, Due::Connect(a, b));
        }
    }

    /// The mesh takes a message from the node that made it.
    pub(super) fn publish(&mut self, at: usize, bytes: Vec<u8>) {
        let id = gossip_id(&bytes);
        if self.machines[at].see(self.now, id) == Seen::First {
            self.spread(at, None, &bytes.into());
        }
    }

    /// A message is forwarded only after its verdict. Nobody honest may be blamed.
    pub(super) fn judge(&mut self, at: usize, id: GossipId, verdict: Verdict) {
        let Some(Awaiting { from, bytes }) = self.machines[at].awaiting.remove(&id) else {
            return self.fail(Check::QueuesBounded, format!("machine {at} judges a message twice"));
        };
        match verdict {
            Verdict::Accept => self.spread(at, Some(from), &bytes),
            Verdict::Ignore => {}
            Verdict::Reject if self.is_honest(at) && self.is_honest(from) => {
                self.fail(Check::NobodyBlamed, format!("machine {at} rejects a message of machine {from}"));
            }
            Verdict::Reject => {}
        }
    }

    pub(super) fn spread(&mut self, at: usize, source: Option<usize>, bytes: &Arc<[u8]>) {
        for other in self.network.neighbours(at) {
            if Some(other) != source {
                self.send_copies(at, other, bytes);
            }
        }
    }

    /// Sends a message over one link, if it is up: once or twice, or in vain.
    pub(super) fn send_copies(&mut self, at: usize, other: usize, bytes: &Arc<[u8]>) {
        let Some(epoch) = self.network.epoch(at, other) else { return };
        let Conditions { loss, duplication, .. } = self.network.conditions;
        let copies = 1 + u64::from(self.rng.random_bool(duplication));
        for _ in 0..copies {
            let latency = self.latency();
            self.network.counts.sent += 1;
            if self.rng.random_bool(loss) {
                self.lose(other, &Cargo::Gossip(bytes.clone()));
            } else {
                let cargo = Cargo::Gossip(bytes.clone());
                self.schedule(latency, Due::Arrive { from: at, to: other, epoch, cargo });
            }
        }
    }

    pub(super) fn ask(&mut self, at: usize, session: SessionId, peer: PeerKey, bytes: Vec<u8>) {
        let stream = match self.network.by_session.get(&(at, session)) {
            Some(stream) => *stream,
            None => self.open_stream(at, session, self.by_key[&peer]),
        };
        self.send_frame(stream, Toward::Answerer, Cargo::Ask { stream, bytes });
    }

    /// Without a link the stream is broken from the start.
    fn open_stream(&mut self, asker: usize, session: SessionId, answerer: usize) -> u64 {
        let id = self.network.next_stream;
        self.network.next_stream += 1;
        self.network.by_session.insert((asker, session), id);
        let link = self.network.epoch(asker, answerer);
        let stream = Stream { asker, session, answerer, epoch: link.unwrap_or(0), last: [self.now; 2] };
        self.network.streams.insert(id, stream);
        if link.is_none() {
            self.break_stream(id, 1);
        }
        id
    }

    pub(super) fn answer(&mut self, at: usize, id: u64, bytes: Vec<u8>) {
        let Some(stream) = self.network.asked.remove(&id) else {
            return self.fail(Check::QueuesBounded, format!("machine {at} answers a question twice"));
        };
        self.send_frame(stream, Toward::Asker, Cargo::Answer { stream, bytes });
    }

    /// A machine stopped: its conversations are over, and those with it break.
    pub(super) fn forget_streams(&mut self, of: usize) {
        self.network.by_session.retain(|(asker, _), _| *asker != of);
        self.network.streams.retain(|_, stream| stream.asker != of);
    }

    /// The asking side is done; what is on its way is lost.
    pub(super) fn close_stream(&mut self, at: usize, session: SessionId) {
        if let Some(stream) = self.network.by_session.remove(&(at, session)) {
            self.network.streams.remove(&stream);
        }
    }

    pub(super) fn send_frame(&mut self, id: u64, toward: Toward, cargo: Cargo) {
        let latency = self.latency();
        let Conditions { breaks, stalls, .. } = self.network.conditions;
        let stalled = if self.rng.random_bool(stalls) { self.rng.random_range(0..STALL_MS_MAX) } else { 0 };
        let breaks = self.rng.random_bool(breaks);
        let Some(stream) = self.network.streams.get_mut(&id) else { return };
        let (from, to) = match toward {
            Toward::Answerer => (stream.asker, stream.answerer),
            Toward::Asker => (stream.answerer, stream.asker),
        };
        // In order: a frame never overtakes the one before it.
        let last = &mut stream.last[toward as usize];
        *last = (*last).max(self.now + latency + stalled);
        let (at, epoch) = (*last, stream.epoch);
        self.network.counts.sent += 1;
        self.schedule(at - self.now, Due::Arrive { from, to, epoch, cargo });
        if breaks {
            self.break_stream(id, latency);
        }
    }

    fn break_stream(&mut self, id: u64, noticed_ms: u64) {
        let Some(Stream { asker, session, .. }) = self.network.streams.remove(&id) else { return };
        let incarnation = self.machines[asker].incarnation;
        let input = Input::SyncFailed { session };
        self.schedule(noticed_ms, Due::Tell { machine: asker, incarnation, input });
    }

    /// A message reached the end of its link.
    pub(super) fn arrive(&mut self, from: usize, to: usize, epoch: u64, cargo: Cargo) {
        let gone = match &cargo {
            Cargo::Gossip(_) => false,
            Cargo::Ask { stream, .. } | Cargo::Answer { stream, .. } => {
                !self.network.streams.contains_key(stream)
            }
        };
        if gone || self.network.epoch(from, to) != Some(epoch) {
            return self.lose(to, &cargo);
        }
        self.network.counts.delivered += 1;
        match cargo {
            Cargo::Gossip(bytes) => {
                let (id, peer) = (gossip_id(&bytes), self.machines[from].key);
                if self.machines[to].see(self.now, id) == Seen::First {
                    self.machines[to].awaiting.insert(id, Awaiting { from, bytes: bytes.clone() });
                    let zone = ZoneName::root();
                    self.tell(to, Input::Gossip { id, peer, zone, bytes: bytes.to_vec() });
                }
            }
            Cargo::Ask { stream, bytes } => {
                let (id, peer) = (self.network.next_asked, self.machines[from].key);
                self.network.next_asked += 1;
                self.network.asked.insert(id, stream);
                self.tell(to, Input::SyncAsked { id, peer, bytes });
            }
            Cargo::Answer { stream, bytes } => {
                let session = self.network.streams[&stream].session;
                self.tell(to, Input::SyncAnswered { session, bytes });
            }
        }
    }

    fn lose(&mut self, to: usize, cargo: &Cargo) {
        self.network.counts.dropped += 1;
        self.trace.lost(self.now, to, cargo);
    }

    fn latency(&mut self) -> u64 {
        let (least, most) = self.network.conditions.latency_ms;
        self.rng.random_range(least..=most)
    }

    /// Sent is delivered, dropped or on its way; nothing waits for a verdict or an answer between two events.
    pub(super) fn check_messages(&mut self) {
        let on_their_way = self.queue.values().filter(|due| matches!(due, Due::Arrive { .. })).count() as u64;
        let Counts { sent, delivered, dropped } = self.network.counts;
        if sent != delivered + dropped + on_their_way {
            let detail =
                format!("{sent} sent, {delivered} delivered, {dropped} dropped, {on_their_way} on their way");
            self.fail(Check::MessagesConserved, detail);
        }
        let waiting = self.machines.iter().position(|machine| !machine.awaiting.is_empty());
        if waiting.is_some() || !self.network.asked.is_empty() {
            self.fail(Check::QueuesBounded, format!("no verdict or answer came; machine {waiting:?}"));
        }
    }
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

fn gossip_id(bytes: &[u8]) -> GossipId {
    let mut id = [0; 20];
    id.copy_from_slice(&Sha256::digest(bytes)[..20]);
    GossipId(id)
}
