//! Conversations over links: streams that deliver in order or break.
//!
//! A stream carries frames of one [`Protocol`], whichever it is: what they say is bytes here.

use std::collections::BTreeMap;

use rand::RngExt;

use super::{Conditions, Network, Payload};
use crate::proto::io::{ConversationId, Input, Protocol};
use crate::sim::kernel::Kernel;
use crate::sim::nodes::Nodes;
use crate::sim::queue::Due;

/// How long a stream that stalls takes for one frame at most, milliseconds: longer than the deadline of a sync.
const STALL_MS_MAX: u64 = 90_000;

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) enum Toward {
    /// To the side that answers.
    Answerer,
    /// To the side that asked.
    Asker,
}

/// A part of a conversation on its way.
pub(in crate::sim) struct Frame {
    pub(in crate::sim) stream: u64,
    pub(in crate::sim) protocol: Protocol,
    pub(in crate::sim) toward: Toward,
    pub(in crate::sim) bytes: Vec<u8>,
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

/// The streams of a world, and what is asked over them.
#[derive(Default)]
pub(super) struct Streams {
    open: BTreeMap<u64, Stream>,
    /// Streams that their asking side has not closed; those no longer in `open` are broken.
    by_conversation: BTreeMap<(usize, ConversationId), u64>,
    next: u64,
    /// Questions on their way through a node, by the number the world gave them.
    asked: BTreeMap<u64, u64>,
    next_asked: u64,
}

impl Streams {
    pub(super) fn is_open(&self, stream: u64) -> bool {
        self.open.contains_key(&stream)
    }

    /// Whether some node owes an answer that it has to give at once.
    pub(super) fn is_asked(&self) -> bool {
        let is_due = |stream: &u64| self.open.get(stream).is_some_and(|it| it.protocol == Protocol::Sync);
        self.asked.values().any(is_due)
    }

    /// A question that a node is about to be asked; its number.
    fn ask(&mut self, stream: u64) -> u64 {
        let id = self.next_asked;
        self.next_asked += 1;
        self.asked.insert(id, stream);
        id
    }

    fn insert(&mut self, stream: Stream) -> u64 {
        let id = self.next;
        self.next += 1;
        self.by_conversation.insert((stream.asker, stream.conversation), id);
        self.open.insert(id, stream);
        id
    }

    fn over(&self, link: usize, epoch: u32) -> Vec<u64> {
        let over = self.open.iter().filter(|(_, stream)| (stream.link, stream.epoch) == (link, epoch));
        over.map(|(id, _)| *id).collect()
    }
}

impl Network {
    /// A node asks in a conversation of its own.
    pub(in crate::sim) fn request(
        &mut self,
        (asker, conversation): (usize, ConversationId),
        answerer: usize,
        protocol: Protocol,
        bytes: Vec<u8>,
        nodes: &Nodes,
        kernel: &mut Kernel,
    ) {
        let stream = match self.streams.by_conversation.get(&(asker, conversation)) {
            Some(stream) => *stream,
            None => self.open_stream((asker, conversation), answerer, protocol, nodes, kernel),
        };
        self.send_frame(Frame { stream, protocol, toward: Toward::Answerer, bytes }, nodes, kernel);
    }

    /// Without a link the stream is broken from the start.
    fn open_stream(
        &mut self,
        (asker, conversation): (usize, ConversationId),
        answerer: usize,
        protocol: Protocol,
        nodes: &Nodes,
        kernel: &mut Kernel,
    ) -> u64 {
        let link = self.links.between(asker, answerer);
        let epoch = link.and_then(|link| self.links.epoch(link));
        // No link has this number, so none takes the stream down with it.
        let (link, is_up) = (link.unwrap_or(usize::MAX), epoch.is_some());
        let (epoch, last) = (epoch.unwrap_or(0), [kernel.now(); 2]);
        let id = self.streams.insert(Stream { asker, conversation, answerer, protocol, link, epoch, last });
        // Noticed a millisecond later and not at once: the asking node has not yet finished asking.
        if !is_up {
            // Not at once: the node is in the midst of the turn in which it asks.
            self.break_stream(id, 1, nodes, kernel);
        }
        id
    }

    /// The question of a number is answered: over which stream, and what that speaks. None if it was before.
    pub(in crate::sim) fn take_asked(&mut self, id: u64) -> Option<u64> {
        self.streams.asked.remove(&id)
    }

    /// An answer goes back over a stream.
    pub(in crate::sim) fn respond(
        &mut self,
        stream: u64,
        bytes: Vec<u8>,
        nodes: &Nodes,
        kernel: &mut Kernel,
    ) {
        let Some(Stream { protocol, .. }) = self.streams.open.get(&stream) else { return };
        let protocol = *protocol;
        self.send_frame(Frame { stream, protocol, toward: Toward::Asker, bytes }, nodes, kernel);
    }

    /// In which conversation of which node a question came that is not answered yet.
    pub(in crate::sim) fn asked_in(&self, id: u64) -> Option<(usize, ConversationId)> {
        let stream = self.streams.open.get(self.streams.asked.get(&id)?)?;
        Some((stream.asker, stream.conversation))
    }

    /// Who opened a stream that is not broken.
    pub(in crate::sim) fn asker_of(&self, stream: u64) -> Option<usize> {
        self.streams.open.get(&stream).map(|stream| stream.asker)
    }

    /// A node stopped: its conversations are over, and those with it break.
    pub(in crate::sim) fn forget_streams(&mut self, of: usize) {
        self.streams.by_conversation.retain(|(asker, _), _| *asker != of);
        self.streams.open.retain(|_, stream| stream.asker != of);
    }

    /// The asking side is done; what is on its way is lost.
    pub(in crate::sim) fn close_stream(&mut self, at: usize, conversation: ConversationId) {
        if let Some(stream) = self.streams.by_conversation.remove(&(at, conversation)) {
            self.streams.open.remove(&stream);
        }
    }

    fn send_frame(&mut self, frame: Frame, nodes: &Nodes, kernel: &mut Kernel) {
        let Some(stream) = self.streams.open.get(&frame.stream) else { return };
        let (from, to) = match frame.toward {
            Toward::Answerer => (stream.asker, stream.answerer),
            Toward::Asker => (stream.answerer, stream.asker),
        };
        let latency = self.latency(from, to, &mut kernel.rng);
        let Conditions { breaks, stalls, .. } = self.conditions;
        // Drawn in this order for every frame; what is impossible draws nothing.
        let stalled = if kernel.chance(stalls) { kernel.rng.random_range(0..STALL_MS_MAX) } else { 0 };
        let breaks = kernel.chance(breaks);
        kernel.metrics.sent_frame(from, &frame);
        let now = kernel.now();
        let Some(stream) = self.streams.open.get_mut(&frame.stream) else { return };
        // In order: a frame never overtakes the one before it.
        let last = &mut stream.last[frame.toward as usize];
        *last = (*last).max(now + latency + stalled);
        let (in_ms, link, epoch, id) = (*last - now, stream.link, stream.epoch, frame.stream);
        // Sent even if it breaks the stream: it is on its way, and is lost at its end.
        self.send(in_ms, to, link, epoch, Payload::Frame(Box::new(frame)), kernel);
        // After it is on its way: it counts as sent, and is lost where it arrives.
        if breaks {
            self.break_stream(id, latency, nodes, kernel);
        }
    }

    /// A link broke, and with it all streams over it.
    pub(super) fn break_streams_over(
        &mut self,
        link: usize,
        epoch: u32,
        noticed_ms: u64,
        nodes: &Nodes,
        kernel: &mut Kernel,
    ) {
        for stream in self.streams.over(link, epoch) {
            self.break_stream(stream, noticed_ms, nodes, kernel);
        }
    }

    fn break_stream(&mut self, id: u64, noticed_ms: u64, nodes: &Nodes, kernel: &mut Kernel) {
        let Some(Stream { asker, conversation, .. }) = self.streams.open.remove(&id) else { return };
        let incarnation = nodes[asker].incarnation;
        let input = Box::new(Input::RequestFailed { conversation });
        kernel.schedule(noticed_ms, Due::Tell { node: asker, incarnation, input });
    }

    /// What a frame is to the node that it reaches.
    pub(in crate::sim) fn input_of(&mut self, frame: Frame, from: usize, nodes: &Nodes) -> Option<Input> {
        let Frame { stream, protocol, toward, bytes } = frame;
        Some(match toward {
            Toward::Answerer => {
                let id = self.streams.ask(stream);
                Input::Request { id, peer: nodes[from].key, protocol, bytes }
            }
            Toward::Asker => {
                Input::Response { conversation: self.streams.open.get(&stream)?.conversation, bytes }
            }
        })
    }
}
