//! The streams of calls between simulated nodes: each delivers in order, until it breaks. Its ends learn of that one by
//! one, or never. Where nodes are parted nothing passes, and what is sent breaks its stream.

use std::collections::BTreeMap;

use rand::{Rng, RngExt};

use super::{CallConditions, CallEvent, CallWorld, What, schedule};
use crate::proto::call::{CallId, CallReply, InboundStream, OutboundStream};
use crate::proto::identity::PeerKey;
use crate::sim::fabric::Fabric;

/// How long a frame that stalls takes at most, milliseconds: longer than most calls.
const STALL_MS_MAX: u64 = 90_000;

/// How long a host waits for the word that its answer is taken, milliseconds.
const TAKEN_MS_MAX: u64 = 10_000;

/// The end of a stream that something is on its way to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Toward {
    Caller,
    Host,
}

/// What travels on a stream.
#[derive(Debug)]
pub(super) enum Frame {
    /// An offer, or what the host says.
    Said(Vec<u8>),
    /// An input or an output of so many bytes.
    Document(usize),
}

/// What reaches an end of a stream.
#[derive(Debug)]
pub(super) enum Arrival {
    /// The stream itself; at the caller, that it is open.
    Stream,
    /// Nobody takes it.
    Refused,
    Frame(Frame),
    /// The other side closed the stream.
    Closed,
    /// This end learns by itself that nothing more passes.
    Gone,
}

/// One stream; when both ends are closed it is forgotten.
struct Stream {
    outbound: OutboundStream,
    caller: End,
    host: End,
    is_broken: bool,
}

struct End {
    node: usize,
    /// The run of the node that holds it.
    run: u64,
    is_open: bool,
    /// When what is on its way there arrives at the latest.
    last_ms: u64,
}

/// All streams, by a number that no two share in a world.
#[derive(Default)]
pub(super) struct Streams {
    streams: BTreeMap<InboundStream, Stream>,
    by_outbound: BTreeMap<OutboundStream, InboundStream>,
    numbered: u64,
}

impl Stream {
    fn end(&mut self, toward: Toward) -> &mut End {
        match toward {
            Toward::Caller => &mut self.caller,
            Toward::Host => &mut self.host,
        }
    }
}

impl Streams {
    /// The number at the host of a stream that its caller named.
    pub(super) fn inbound(&self, stream: OutboundStream) -> Option<InboundStream> {
        self.by_outbound.get(&stream).copied()
    }

    /// The call of a stream that is not forgotten.
    pub(super) fn call(&self, id: InboundStream) -> Option<CallId> {
        self.streams.get(&id).map(|stream| stream.outbound.call)
    }

    /// The stream as its caller names it, and the node of its caller, if that end is open.
    pub(super) fn open_end(&self, id: InboundStream, toward: Toward) -> Option<(OutboundStream, usize)> {
        let stream = self.streams.get(&id)?;
        let end = if toward == Toward::Caller { &stream.caller } else { &stream.host };
        end.is_open.then_some((stream.outbound, stream.caller.node))
    }

    /// An end is closed; true if it was open.
    pub(super) fn close(&mut self, id: InboundStream, toward: Toward) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return false };
        let was_open = std::mem::replace(&mut stream.end(toward).is_open, false);
        if !stream.caller.is_open && !stream.host.is_open {
            self.by_outbound.remove(&stream.outbound);
            self.streams.remove(&id);
        }
        was_open
    }

    /// A node stopped: its ends are closed at once, and the others learn of it as of a stream that breaks.
    pub(super) fn drop_ends_of(
        &mut self,
        at: usize,
        conditions: &CallConditions,
        rng: &mut impl Rng,
    ) -> Vec<(u64, CallEvent)> {
        let of = |stream: &Stream| stream.caller.node == at || stream.host.node == at;
        let ids: Vec<InboundStream> =
            self.streams.iter().filter(|(_, stream)| of(stream)).map(|(id, _)| *id).collect();
        let mut notices = Vec::new();
        for id in ids {
            notices.extend(self.break_stream(id, conditions, rng));
            for toward in [Toward::Caller, Toward::Host] {
                if self.streams.get_mut(&id).is_some_and(|stream| stream.end(toward).node == at) {
                    self.close(id, toward);
                }
            }
        }
        notices
    }

    /// Nothing more passes; when its ends learn of it, if they do.
    fn break_stream(
        &mut self,
        id: InboundStream,
        conditions: &CallConditions,
        rng: &mut impl Rng,
    ) -> Vec<(u64, CallEvent)> {
        let Some(stream) = self.streams.get_mut(&id) else { return Vec::new() };
        if std::mem::replace(&mut stream.is_broken, true) {
            return Vec::new();
        }
        let mut notices = Vec::new();
        for toward in [Toward::Caller, Toward::Host] {
            // Both are drawn for either end, open or not, so that neither moves the other's luck.
            let (is_noticed, after) =
                (!rng.random_bool(conditions.unnoticed), rng.random_range(0..=conditions.detection_ms_max));
            let End { node, run, is_open, .. } = *stream.end(toward);
            if is_noticed && is_open {
                let what = What::Stream(id, toward, Arrival::Gone);
                notices.push((after, CallEvent { node, run: Some(run), what }));
            }
        }
        notices
    }
}

impl CallWorld {
    /// A caller opens a stream: it reaches the host after half a round trip, and the caller hears of that after a whole one.
    pub(super) fn open(&mut self, at: usize, outbound: OutboundStream, host: PeerKey, fabric: &mut Fabric) {
        let Some(host) = fabric.nodes.number_of(&host) else { return };
        self.streams.numbered += 1;
        let id = InboundStream(self.streams.numbered);
        let end = |node, run, is_open| End { node, run, is_open, last_ms: fabric.kernel.now() };
        // Which run of the host it meets is known only when it gets there.
        let (caller, host_end) = (end(at, fabric.nodes[at].incarnation, true), end(host, 0, false));
        let stream = Stream { outbound, caller, host: host_end, is_broken: false };
        self.streams.streams.insert(id, stream);
        self.streams.by_outbound.insert(outbound, id);
        let what = What::Stream(id, Toward::Host, Arrival::Stream);
        let latency = self.latency(fabric);
        schedule(latency, CallEvent { node: host, run: None, what }, fabric);
    }

    /// A new stream reaches its host, which may be parted from the caller, down, or too busy to see it.
    pub(super) fn reach_host(&mut self, at: usize, id: InboundStream, fabric: &mut Fabric) {
        let Some(conditions) = self.conditions else { return };
        let latency = self.latency(fabric);
        let Some(stream) = self.streams.streams.get_mut(&id) else { return };
        // Over a cut nobody even refuses: only the caller's patience ends this.
        if fabric.network.is_parted(at, stream.caller.node) {
            return;
        }
        let is_up = fabric.nodes[at].node.is_some();
        if !is_up || self.rng.random_bool(conditions.refused) {
            return self.deliver(id, Toward::Caller, Arrival::Refused, latency, fabric);
        }
        let is_dropped = self.rng.random_bool(conditions.dropped);
        // To the caller a dropped stream is open first: the transport says so before the queue is asked.
        (stream.host.run, stream.host.is_open) = (fabric.nodes[at].incarnation, !is_dropped);
        self.deliver(id, Toward::Caller, Arrival::Stream, latency, fabric);
        if is_dropped {
            self.deliver(id, Toward::Caller, Arrival::Closed, latency, fabric);
        }
    }

    pub(super) fn send_out(&mut self, stream: OutboundStream, frame: Frame, fabric: &mut Fabric) {
        if let Some(id) = self.streams.inbound(stream) {
            self.send(id, Toward::Host, frame, fabric);
        }
    }

    pub(super) fn send_back(&mut self, id: InboundStream, frame: Frame, fabric: &mut Fabric) {
        self.send(id, Toward::Caller, frame, fabric);
    }

    pub(super) fn reply(&mut self, id: InboundStream, reply: CallReply, fabric: &mut Fabric) {
        self.send(id, Toward::Caller, Frame::Said(reply.encode()), fabric);
    }

    fn send(&mut self, id: InboundStream, toward: Toward, frame: Frame, fabric: &mut Fabric) {
        let Some(conditions) = self.conditions else { return };
        let latency = self.latency(fabric);
        // Drawn before it is known whether the stream still stands, so that a broken one draws as much.
        let is_stalled = self.rng.random_bool(conditions.stalls);
        let stalled = if is_stalled { self.rng.random_range(0..STALL_MS_MAX) } else { 0 };
        let breaks = self.rng.random_bool(conditions.breaks);
        let Some(stream) = self.streams.streams.get(&id).filter(|stream| !stream.is_broken) else { return };
        if breaks || fabric.network.is_parted(stream.caller.node, stream.host.node) {
            return self.break_stream(id, fabric);
        }
        self.deliver(id, toward, Arrival::Frame(frame), latency + stalled, fabric);
    }

    /// Whether what comes to an end of a stream gets there; a frame that does not breaks its stream.
    pub(super) fn passes(&mut self, id: InboundStream, arrival: &Arrival, fabric: &mut Fabric) -> bool {
        let Some(stream) = self.streams.streams.get(&id) else { return false };
        if matches!(arrival, Arrival::Gone) || !fabric.network.is_parted(stream.caller.node, stream.host.node)
        {
            return !stream.is_broken || !matches!(arrival, Arrival::Frame(_));
        }
        if matches!(arrival, Arrival::Frame(_)) {
            self.break_stream(id, fabric);
        }
        false
    }

    fn break_stream(&mut self, id: InboundStream, fabric: &mut Fabric) {
        let Some(conditions) = self.conditions else { return };
        for (after, event) in self.streams.break_stream(id, &conditions, &mut self.rng) {
            schedule(after, event, fabric);
        }
    }

    /// This side closes its end; the other side, if it still can, learns of it after all that was sent before.
    pub(super) fn close(&mut self, id: InboundStream, toward: Toward, fabric: &mut Fabric) {
        let own = if toward == Toward::Host { Toward::Caller } else { Toward::Host };
        let latency = self.latency(fabric);
        let Some(stream) = self.streams.streams.get(&id) else { return };
        if !stream.is_broken && !fabric.network.is_parted(stream.caller.node, stream.host.node) {
            self.deliver(id, toward, Arrival::Closed, latency, fabric);
        }
        self.streams.close(id, own);
    }

    /// The host has said its last word: its end is gone some time after that has left, if its caller says nothing more.
    pub(super) fn finish(&mut self, at: usize, id: InboundStream, fabric: &mut Fabric) {
        let Some(stream) = self.streams.streams.get(&id) else { return };
        let left = stream.caller.last_ms.saturating_sub(fabric.kernel.now()) + TAKEN_MS_MAX;
        let run = Some(fabric.nodes[at].incarnation);
        let what = What::Stream(id, Toward::Host, Arrival::Gone);
        schedule(left, CallEvent { node: at, run, what }, fabric);
    }

    /// In order: nothing overtakes what was sent before.
    fn deliver(
        &mut self,
        id: InboundStream,
        toward: Toward,
        arrival: Arrival,
        in_ms: u64,
        fabric: &mut Fabric,
    ) {
        let Some(stream) = self.streams.streams.get_mut(&id) else { return };
        let end = stream.end(toward);
        end.last_ms = end.last_ms.max(fabric.kernel.now() + in_ms);
        let event = CallEvent { node: end.node, run: Some(end.run), what: What::Stream(id, toward, arrival) };
        schedule(end.last_ms - fabric.kernel.now(), event, fabric);
    }

    fn latency(&mut self, fabric: &Fabric) -> u64 {
        let (least, most) = fabric.network.conditions.latency_ms;
        self.rng.random_range(least..=most)
    }
}
