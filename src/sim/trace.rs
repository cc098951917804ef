//! A running hash over everything that is delivered and decided: equal for equal runs, and only for them.

use super::network::Payload;
use crate::proto::io::{Event, Input, Output, Reply};
use crate::proto::name::ZoneId;

/// Makes each step of the hash depend on all before: 2^64 divided by the golden ratio, made odd.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Words folded by multiplication, 64 bits: it tells runs apart and guards against nothing. It does not depend on the
/// node, and a message counts by its content hash, which was made anyway.
#[derive(Clone, Copy, Debug)]
pub(super) struct TraceHash(u64);

impl Default for TraceHash {
    fn default() -> TraceHash {
        TraceHash(0xcbf2_9ce4_8422_2325)
    }
}

impl TraceHash {
    /// The hash so far.
    pub(super) fn value(&self) -> u64 {
        self.0
    }

    /// Something reached a node.
    pub(super) fn input(&mut self, now: u64, node: usize, input: &Input) {
        self.head(now, node);
        match input {
            Input::Command { id, .. } => self.part(1, &id.to_be_bytes()),
            Input::Connected { peer, .. } => self.part(13, &peer.0),
            Input::PeerJoined { peer, .. } => self.part(2, &peer.0),
            Input::PeerLeft { peer, .. } => self.part(3, &peer.0),
            Input::Gossip { id, .. } => self.part(4, &id.0),
            Input::Request { bytes, .. } => self.part(5, bytes),
            Input::Response { bytes, .. } => self.part(6, bytes),
            Input::RequestFailed { conversation } => self.part(7, &conversation.0.to_be_bytes()),
            Input::ZonePeers { zone, .. } => self.part(11, zone.as_str().as_bytes()),
            Input::Addresses(addresses) => self.part(14, &[addresses.len() as u8]),
            Input::PeerAddresses { peer, .. } => self.part(15, &peer.0),
            Input::Resumed => self.part(10, &[]),
            Input::StoreFailed { reason, .. } => self.part(12, reason.as_bytes()),
            Input::Store { forgotten, .. } => self.part(13, &[u8::from(*forgotten)]),
        }
    }

    /// A node's timer fired.
    pub(super) fn timer(&mut self, now: u64, node: usize) {
        self.head(now, node);
        self.part(8, &[]);
    }

    /// A message was lost on its way.
    pub(super) fn lost(&mut self, now: u64, node: usize, payload: &Payload) {
        self.head(now, node);
        match payload {
            Payload::Packet(packet) => self.part(9, &packet.id.0),
            Payload::Frame(frame) => self.part(9, &frame.bytes),
        }
    }

    /// A node decided something.
    pub(super) fn output(&mut self, now: u64, node: usize, output: &Output) {
        self.head(now, node);
        match output {
            Output::Persist(writes) => {
                for write in writes {
                    self.part(20, &write.key);
                    self.part(21, write.value.as_deref().unwrap_or_default());
                }
            }
            Output::Publish { bytes, .. } => self.part(22, bytes),
            Output::Verdict { verdict, .. } => self.part(23, &[*verdict as u8]),
            Output::Reach(contact) => self.part(36, &contact.peer.0),
            Output::Request { bytes, .. } => self.part(24, bytes),
            Output::EndConversation { conversation } => self.part(25, &conversation.0.to_be_bytes()),
            Output::Respond { bytes, .. } => self.part(26, bytes),
            Output::Reply { id, reply } => {
                self.part(27, &id.to_be_bytes());
                self.part(27, &[is_success(reply)]);
            }
            Output::Penalize { offence, .. } => self.part(28, offence.text().as_bytes()),
            Output::JoinZone(ZoneId { zone, .. }) | Output::LeaveZone(zone) => {
                self.part(34, zone.as_str().as_bytes());
            }
            Output::Provide(zone) | Output::FindPeers(zone) => self.part(35, zone.as_str().as_bytes()),
            Output::Event(event) => self.event(event),
        }
    }

    /// Something happened to a call at a node.
    pub(super) fn call(&mut self, now: u64, node: usize, what: u8, call: &[u8; 16]) {
        self.head(now, node);
        self.part(40 + what, call);
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::AgentChanged { record, .. } => self.part(30, &record.hash().0),
            Event::AgentRemoved { record, .. } => self.part(31, &record.hash().0),
            Event::Synced { received, sent, .. } => self.part(32, &[*received as u8, *sent as u8]),
            Event::Alert(_) => self.part(33, &[]),
        }
    }

    fn head(&mut self, now: u64, node: usize) {
        self.fold(now);
        self.fold(node as u64);
    }

    fn part(&mut self, kind: u8, bytes: &[u8]) {
        // The length is part of it, or bytes could move into the next part unseen.
        self.fold(u64::from(kind) << 56 | bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.fold(u64::from_le_bytes(*word)));
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.fold(u64::from_le_bytes(word));
        }
    }

    fn fold(&mut self, word: u64) {
        // Both halves of the product count: the low one alone loses the high bits of a word.
        let product = u128::from(self.0 ^ word) * u128::from(FACTOR);
        // Both halves: in the lower one a word's highest bit changes nothing but the highest bit.
        self.0 = (product as u64 ^ (product >> 64) as u64).rotate_left(29).wrapping_add(word);
    }
}

fn is_success(reply: &Reply) -> u8 {
    match reply {
        Reply::Registered(results) => u8::from(results.iter().all(Result::is_ok)),
        Reply::Published(results) => u8::from(results.iter().all(Result::is_ok)),
        Reply::Deregistered(result) | Reply::Adopted(result) => u8::from(result.is_ok()),
        Reply::Zone(result) => u8::from(result.is_ok()),
        Reply::Found(_)
        | Reply::Tree(_)
        | Reply::Resolved(_)
        | Reply::Owners(_)
        | Reply::Owner(_)
        | Reply::ImportsNamed
        | Reply::Left => 2,
    }
}
