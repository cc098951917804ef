//! Synchronous rounds of one update on the complete graph, for as many nodes as memory holds.
//!
//! A node is a bit and, once it knows the update, a place in the list of those who do. The list is in the order of
//! learning, so the senders of a round are a stretch of it. What is sent in a round is known at its end.

use std::ops::Range;

use super::counter_rng::{Chance, CounterRng, Draws, Order, Purpose, TraceHash};
use super::run_metrics::{Axis, ENVELOPE_BYTES, RunMetrics};
use crate::lab::measure::Measured;
use crate::lab::scenario::{LossMode, Rounds, Scenario, SpreadProtocol};

/// Rounds of a run whose length is not given: push with fan-out 1 at a loss of 99 % needs 3,000 for 10^7 nodes.
const ROUNDS_MAX: u64 = 10_000;

/// One run in play.
struct Spread {
    nodes: u32,
    fanout: usize,
    chance: Chance,
    mode: LossMode,
    record_bytes: u64,
    peers: CounterRng,
    /// Who knows the update.
    known: Bits,
    /// The same nodes, in the order in which they learnt it.
    informed: Vec<u32>,
    /// Where in `informed` those begin who learnt it in each round.
    starts: Vec<usize>,
    /// Receivers of copies that were lost and are sent again.
    late: Vec<u32>,
    metrics: RunMetrics,
    trace: TraceHash,
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
        peers: CounterRng::new(seed, Purpose::Peer),
        known: Bits::new(nodes),
        informed: Vec::with_capacity(nodes),
        starts: vec![0],
        late: Vec::new(),
        metrics: RunMetrics::new(Axis::Rounds, nodes, 1),
        trace: TraceHash::new(seed),
    };
    let author = Order::new(CounterRng::new(seed, Purpose::Author), 0, nodes).at(0);
    spread.known.set(author);
    spread.informed.push(author);
    spread.metrics.wrote(author, 0);
    for round in 1..=rounds_max.unwrap_or(ROUNDS_MAX) {
        let senders = spread.senders(scenario.protocol.rounds);
        if spread.informed.len() == nodes || senders.is_empty() && spread.late.is_empty() {
            break;
        }
        spread.starts.push(spread.informed.len());
        // What is sent again comes first: who learns by it has no need to ask in this round.
        for (number, receiver) in std::mem::take(&mut spread.late).into_iter().enumerate() {
            // Numbers of nodes end below 2^32, so no sender of this round has these draws.
            let mut draws = spread.peers.draws(number as u64 | 1 << 32, round << 32);
            spread.deliver(receiver, round, &mut draws);
        }
        match scenario.protocol.kind {
            SpreadProtocol::PushPull => spread.contact(senders, round),
            SpreadProtocol::Push | SpreadProtocol::Mesh => spread.push(senders, round),
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
        // By index, as the list grows behind this stretch meanwhile.
        for at in senders {
            let sender = self.informed[at];
            let mut draws = self.peers.draws(u64::from(sender), round << 32);
            draws.peers(sender, self.nodes, self.fanout, &mut peers);
            for peer in &peers {
                self.send(*peer, round, &mut draws);
            }
        }
    }

    /// Every node contacts some peers. A sender gives each a copy; one who lacks the update asks, and who sends answers.
    fn contact(&mut self, senders: Range<usize>, round: u64) {
        // Contacts of a round are simultaneous: who learns in it neither gives yet nor stops asking.
        let (before, mut sends) = (self.known.clone(), Bits::new(self.nodes as usize));
        for at in senders {
            sends.set(self.informed[at]);
        }
        let mut peers = Vec::new();
        for node in 0..self.nodes {
            let mut draws = self.peers.draws(u64::from(node), round << 32);
            draws.peers(node, self.nodes, self.fanout, &mut peers);
            let (has, gives) = (before.has(node), sends.has(node));
            for peer in &peers {
                if gives {
                    self.send(*peer, round, &mut draws);
                    continue;
                }
                self.metrics.bytes += ENVELOPE_BYTES;
                if !has && sends.has(*peer) {
                    self.send(node, round, &mut draws);
                }
            }
        }
    }

    fn send(&mut self, receiver: u32, round: u64, draws: &mut Draws) {
        self.metrics.copies_sent += 1;
        self.metrics.bytes += self.record_bytes + ENVELOPE_BYTES;
        self.deliver(receiver, round, draws);
    }

    fn deliver(&mut self, receiver: u32, round: u64, draws: &mut Draws) {
        if draws.happens(self.chance) {
            // The lowest bit tells what was lost from what arrived.
            self.trace.note(round << 1, u64::from(receiver));
            match self.mode {
                LossMode::Drop => self.metrics.dropped += 1,
                LossMode::Retransmit => {
                    // Its bytes are spent anew, but it stays the one copy that was sent.
                    self.metrics.bytes += self.record_bytes + ENVELOPE_BYTES;
                    self.late.push(receiver);
                }
            }
            return;
        }
        self.metrics.copies_received += 1;
        self.trace.note(round << 1 | 1, u64::from(receiver));
        if !self.known.has(receiver) {
            self.known.set(receiver);
            self.informed.push(receiver);
            self.metrics.learnt(receiver, 0, round);
        }
    }

    fn finish(mut self, has_regions: bool) -> Measured {
        let arrived = self.metrics.copies_received + self.metrics.dropped + self.late.len() as u64;
        debug_assert_eq!(self.metrics.copies_sent, arrived, "copies sent are received, lost or on their way");
        self.trace.note(self.metrics.copies_sent, self.informed.len() as u64);
        let complete = self.informed.len() as f64 / f64::from(self.nodes);
        let mut measured = self.metrics.measured(self.trace.value(), has_regions);
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
