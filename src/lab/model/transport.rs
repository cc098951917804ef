//! The transport: takes messages, loses some, brings the others in time, and counts them all.

use super::event::{Event, EventKind};
use super::faults::ActiveFaults;
use super::links::{Delivery, Links};
use super::run_metrics::{ENVELOPE_BYTES, RunMetrics};
use super::timing_wheel::TimingWheel;

/// Bytes by which an update is named in IHAVE and IWANT: gossip ids of the live node.
const ID_BYTES: u64 = 20;
/// Bytes of the hash that opens a reconciliation: equal hashes end it.
pub(super) const ROOT_BYTES: u64 = 32;

/// What is on its way, and the clock.
#[derive(Debug)]
pub(super) struct Transport<'a> {
    pub(super) queue: TimingWheel<Event>,
    pub(super) links: Links,
    pub(super) faults: ActiveFaults<'a>,
    pub(super) metrics: RunMetrics,
    /// Ticks since the start.
    pub(super) now: u64,
    pub(super) record_bytes: u64,
    /// Messages sent that neither arrived nor got lost yet.
    pub(super) in_flight: u64,
}

impl Transport<'_> {
    /// A node sends something to another.
    pub(super) fn send(&mut self, kind: EventKind, from: u32, to: u32, update: u32, hops: u32) {
        if let Some(at) = self.launch(kind, from, to, update) {
            self.in_flight += 1;
            self.queue.push(at, Event::new(kind, from, to, update, hops));
        }
    }

    /// As `send`, for the question of an exchange. Where time is counted in rounds, question and answer fit into one:
    /// true says that the question is there already.
    pub(super) fn ask(&mut self, kind: EventKind, from: u32, to: u32) -> bool {
        let Some(at) = self.launch(kind, from, to, 0) else { return false };
        // A question that was lost comes a round later, as any other message.
        let this_round = self.links.round().is_some_and(|round| at <= (self.now / round + 1) * round);
        if this_round {
            return self.receives(from, to);
        }
        self.in_flight += 1;
        self.queue.push(at, Event::new(kind, from, to, 0, 0));
        false
    }

    /// When it arrives, if it does not get lost.
    fn launch(&mut self, kind: EventKind, from: u32, to: u32, update: u32) -> Option<u64> {
        let bytes = match kind {
            EventKind::Copy | EventKind::Repair => self.record_bytes + ENVELOPE_BYTES,
            // Many ids share an envelope, which the sender adds.
            EventKind::IHave => ID_BYTES,
            EventKind::IWant => ID_BYTES + ENVELOPE_BYTES,
            EventKind::Reconcile => ROOT_BYTES + ENVELOPE_BYTES,
            _ => ENVELOPE_BYTES,
        };
        self.metrics.sent += 1;
        self.metrics.copies_sent += u64::from(kind.is_copy());
        self.metrics.bytes += bytes;
        // Twelve kinds take four bits; with 24 of the update that stays within 32.
        let content = u64::from(update) << 4 | kind as u64;
        match self.links.deliver(self.now, from, to, content) {
            // Judged here and at arrival: a cut also takes what was under way when it came.
            Delivery::Arrives(at, losses) if self.faults.are_linked(from, to) => {
                self.metrics.bytes += bytes * u64::from(losses);
                Some(at)
            }
            Delivery::Arrives(..) | Delivery::Lost => {
                self.metrics.dropped += 1;
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
        let received = self.faults.is_up(to) && self.faults.are_linked(from, to);
        self.metrics.delivered += u64::from(received);
        self.metrics.dropped += u64::from(!received);
        received
    }

    /// Whether every message is accounted for.
    pub(super) fn is_balanced(&self) -> bool {
        self.metrics.sent == self.metrics.delivered + self.metrics.dropped + self.in_flight
    }
}
