//! Synchronous rounds of one update on the complete graph, for as many nodes as memory holds.
//!
//! A node is a bit and, once it knows the update, a place in the list of those who do. The list is in the order of
//! learning, so the senders of a round are a stretch of it. What is sent in a round is known at its end.

use std::ops::Range;

use super::dice::{Chance, Dice, Order, Purpose, Rolls, Trace};
use super::tally::{Axis, ENVELOPE_BYTES, Tally};
use crate::lab::measure::Measured;
use crate::lab::scenario::{Kind, LossMode, Rounds, Scenario};

/// Rounds of a run whose length is not given: push with fan-out 1 at a loss of 99 % needs 3,000 for 10^7 nodes.
const ROUNDS_MAX: u64 = 10_000;

/// One run in play.
struct Spread {
    nodes: u32,
    fanout: usize,
    chance: Chance,
    mode: LossMode,
    record_bytes: u64,
    peers: Dice,
    /// Who knows the update.
    known: Bits,
    /// The same nodes, in the order in which they learnt it.
    informed: Vec<u32>,
    /// Where in `informed` those begin who learnt it in each round.
    starts: Vec<usize>,
    /// Receivers of copies that were lost and are sent again.
    late: Vec<u32>,
    tally: Tally,
    trace: Trace,
}

/// Plays a scenario of one update without latency, faults and reconciliation.
pub(super) fn play(scenario: &Scenario, seed: u64, rounds_max: Option<u64>) -> Measured {
    let nodes = scenario.network.nodes;
    let mut spread = Spread {
        nodes: nodes as u32,
        fanout: scenario.protocol.fanout(),
        chance: Chance::new(scenario.network.loss.rate),
        mode: scenario.network.loss.mode,
        record_bytes: scenario.workload.record_bytes as u64,
        peers: Dice::new(seed, Purpose::Peer),
        known: Bits::new(nodes),
        informed: Vec::with_capacity(nodes),
        starts: vec![0],
        late: Vec::new(),
        tally: Tally::new(Axis::Rounds, nodes, 1),
        trace: Trace::new(seed),
    };
    let author = Order::new(Dice::new(seed, Purpose::Author), 0, nodes).at(0);
    spread.known.set(author);
    spread.informed.push(author);
    spread.tally.wrote(author, 0);
    for round in 1..=rounds_max.unwrap_or(ROUNDS_MAX) {
        let senders = spread.senders(scenario.protocol.rounds);
        if spread.informed.len() == nodes || senders.is_empty() && spread.late.is_empty() {
            break;
        }
        spread.starts.push(spread.informed.len());
        for (number, receiver) in std::mem::take(&mut spread.late).into_iter().enumerate() {
            let mut rolls = spread.peers.rolls(number as u64 | 1 << 32, round << 32);
            spread.deliver(receiver, round, &mut rolls);
        }
        match scenario.protocol.kind {
            Kind::PushPull => spread.contact(senders, round),
            Kind::Push | Kind::Mesh => spread.push(senders, round),
        }
    }
    spread.finish(scenario.network.regions.is_some())
}

impl Spread {
    /// Who sends in the next round: those who learnt the update within the last so many.
    fn senders(&self, rounds: Rounds) -> Range<usize> {
        let first = match rounds {
            Rounds::Forever => 0,
            Rounds::Times(times) => self.starts.len().saturating_sub(times as usize),
        };
        self.starts.get(first).copied().unwrap_or(self.informed.len())..self.informed.len()
    }

    fn push(&mut self, senders: Range<usize>, round: u64) {
        let mut peers = Vec::new();
        for at in senders {
            let sender = self.informed[at];
            let mut rolls = self.peers.rolls(u64::from(sender), round << 32);
            rolls.peers(sender, self.nodes, self.fanout, &mut peers);
            for peer in &peers {
                self.send(*peer, round, &mut rolls);
            }
        }
    }

    /// Every node contacts some peers. A sender gives each a copy; one who lacks the update asks, and who sends answers.
    fn contact(&mut self, senders: Range<usize>, round: u64) {
        let (before, mut sends) = (self.known.clone(), Bits::new(self.nodes as usize));
        for at in senders {
            sends.set(self.informed[at]);
        }
        let mut peers = Vec::new();
        for node in 0..self.nodes {
            let mut rolls = self.peers.rolls(u64::from(node), round << 32);
            rolls.peers(node, self.nodes, self.fanout, &mut peers);
            let (has, gives) = (before.has(node), sends.has(node));
            for peer in &peers {
                if gives {
                    self.send(*peer, round, &mut rolls);
                    continue;
                }
                self.tally.bytes += ENVELOPE_BYTES;
                if !has && sends.has(*peer) {
                    self.send(node, round, &mut rolls);
                }
            }
        }
    }

    fn send(&mut self, receiver: u32, round: u64, rolls: &mut Rolls) {
        self.tally.copies_sent += 1;
        self.tally.bytes += self.record_bytes + ENVELOPE_BYTES;
        self.deliver(receiver, round, rolls);
    }

    fn deliver(&mut self, receiver: u32, round: u64, rolls: &mut Rolls) {
        if rolls.happens(self.chance) {
            self.trace.note(round << 1, u64::from(receiver));
            match self.mode {
                LossMode::Drop => self.tally.dropped += 1,
                LossMode::Retransmit => {
                    self.tally.bytes += self.record_bytes + ENVELOPE_BYTES;
                    self.late.push(receiver);
                }
            }
            return;
        }
        self.tally.copies_received += 1;
        self.trace.note(round << 1 | 1, u64::from(receiver));
        if !self.known.has(receiver) {
            self.known.set(receiver);
            self.informed.push(receiver);
            self.tally.learnt(receiver, 0, round);
        }
    }

    fn finish(mut self, has_regions: bool) -> Measured {
        let arrived = self.tally.copies_received + self.tally.dropped + self.late.len() as u64;
        debug_assert_eq!(self.tally.copies_sent, arrived, "copies sent are received, lost or on their way");
        self.trace.note(self.tally.copies_sent, self.informed.len() as u64);
        let complete = self.informed.len() as f64 / f64::from(self.nodes);
        let mut measured = self.tally.measured(self.trace.value(), has_regions);
        measured.metrics.insert("complete".into(), complete);
        measured
    }
}

/// A bit for each node.
#[derive(Clone, Debug)]
struct Bits(Vec<u64>);

impl Bits {
    fn new(count: usize) -> Bits {
        Bits(vec![0; count.div_ceil(64)])
    }

    fn has(&self, at: u32) -> bool {
        self.0[at as usize / 64] & 1 << (at % 64) != 0
    }

    fn set(&mut self, at: u32) {
        self.0[at as usize / 64] |= 1 << (at % 64);
    }
}
