//! The post: takes messages, loses some, brings the others in time, and counts them all.

use super::event::{Event, Kind};
use super::links::{Fate, Links};
use super::tally::{ENVELOPE_BYTES, Tally};
use super::trouble::Troubles;
use super::wheel::Queue;

/// Bytes by which an update is named in IHAVE and IWANT: gossip ids of the live node.
const ID_BYTES: u64 = 20;
/// Bytes of the hash that opens a reconciliation: equal hashes end it.
pub(super) const ROOT_BYTES: u64 = 32;

/// What is on its way, and the clock.
#[derive(Debug)]
pub(super) struct Post<'a, Q> {
    pub(super) queue: Q,
    pub(super) links: Links,
    pub(super) troubles: Troubles<'a>,
    pub(super) tally: Tally,
    /// Ticks since the start.
    pub(super) now: u64,
    pub(super) record_bytes: u64,
    /// Messages sent that neither arrived nor got lost yet.
    pub(super) in_flight: u64,
}

impl<Q: Queue<Event>> Post<'_, Q> {
    /// A node sends something to another.
    pub(super) fn send(&mut self, kind: Kind, from: u32, to: u32, update: u32, hops: u32) {
        if let Some(at) = self.launch(kind, from, to, update) {
            self.in_flight += 1;
            self.queue.push(at, Event::new(kind, from, to, update, hops));
        }
    }

    /// As `send`, for the question of an exchange. Where time is counted in rounds, question and answer fit into one:
    /// true says that the question is there already.
    pub(super) fn ask(&mut self, kind: Kind, from: u32, to: u32) -> bool {
        let Some(at) = self.launch(kind, from, to, 0) else { return false };
        let this_round = self.links.round().is_some_and(|round| at <= (self.now / round + 1) * round);
        if this_round {
            return self.receives(from, to);
        }
        self.in_flight += 1;
        self.queue.push(at, Event::new(kind, from, to, 0, 0));
        false
    }

    /// When it arrives, if it does not get lost.
    fn launch(&mut self, kind: Kind, from: u32, to: u32, update: u32) -> Option<u64> {
        let bytes = match kind {
            Kind::Copy | Kind::Repair => self.record_bytes + ENVELOPE_BYTES,
            // Many ids share an envelope, which the sender adds.
            Kind::IHave => ID_BYTES,
            Kind::IWant => ID_BYTES + ENVELOPE_BYTES,
            Kind::Reconcile => ROOT_BYTES + ENVELOPE_BYTES,
            _ => ENVELOPE_BYTES,
        };
        self.tally.sent += 1;
        self.tally.copies_sent += u64::from(kind.is_copy());
        self.tally.bytes += bytes;
        let content = u64::from(update) << 4 | kind as u64;
        match self.links.fate(self.now, from, to, content) {
            Fate::Arrives(at, losses) if self.troubles.are_linked(from, to) => {
                self.tally.bytes += bytes * u64::from(losses);
                Some(at)
            }
            Fate::Arrives(..) | Fate::Lost => {
                self.tally.dropped += 1;
                None
            }
        }
    }

    /// A message comes out of the queue: whether its receiver takes it.
    pub(super) fn arrives(&mut self, from: u32, to: u32) -> bool {
        self.in_flight -= 1;
        self.receives(from, to)
    }

    fn receives(&mut self, from: u32, to: u32) -> bool {
        let received = self.troubles.is_up(to) && self.troubles.are_linked(from, to);
        self.tally.delivered += u64::from(received);
        self.tally.dropped += u64::from(!received);
        received
    }

    /// Whether every message is accounted for.
    pub(super) fn is_balanced(&self) -> bool {
        self.tally.sent == self.tally.delivered + self.tally.dropped + self.in_flight
    }
}
