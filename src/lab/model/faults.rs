//! What goes wrong in the model: who is away or mute, and who cannot reach whom.

use std::time::Duration;

use super::counter_rng::{CounterRng, Order, Purpose, below, unit};
use super::links::TICKS_MS;
use crate::lab::scenario::{Fault, FaultKind, Groups, Who};
use crate::sim::regions::{REGIONS, region};

/// It has not started yet.
const LATE: u16 = 1;
/// It forwards nothing.
const MUTE: u16 = 2;
/// It left, because of the first fault; further faults have the bits above. More than 14 share bits.
const AWAY: u16 = 4;
const AWAY_BITS: usize = 14;

/// The state of all nodes and links.
#[derive(Debug)]
pub(super) struct ActiveFaults<'a> {
    faults: &'a [Fault],
    nodes: usize,
    /// Of each node; empty in a world without faults.
    flags: Vec<u16>,
    /// Partitions that are in force, by number of the fault.
    partitions: Vec<usize>,
    /// Faults that are not over.
    open: usize,
    group: CounterRng,
    victim: CounterRng,
    churn: CounterRng,
}

/// Ticks of a time.
pub(super) fn ticks(time: Duration) -> u64 {
    (time.as_micros() / 100) as u64
}

impl<'a> ActiveFaults<'a> {
    /// The world before anything went wrong: who joins later is not there yet.
    pub(super) fn new(faults: &'a [Fault], nodes: usize, authors: &[u32], seed: u64) -> ActiveFaults<'a> {
        let mut active = ActiveFaults {
            faults,
            nodes,
            flags: if faults.is_empty() { Vec::new() } else { vec![0; nodes] },
            partitions: Vec::new(),
            open: faults.len(),
            group: CounterRng::new(seed, Purpose::Group),
            victim: CounterRng::new(seed, Purpose::Victim),
            churn: CounterRng::new(seed, Purpose::Churn),
        };
        for (number, fault) in faults.iter().enumerate() {
            if let FaultKind::Join { who } = fault.kind {
                active.set(LATE, number, who, authors);
            }
        }
        active
    }

    /// Whether all faults are over.
    pub(super) fn are_over(&self) -> bool {
        self.open == 0
    }

    /// When the last fault ends, ticks; none without faults or if one lasts to the end.
    pub(super) fn end(&self) -> Option<u64> {
        let ends = self.faults.iter().map(ActiveFaults::end_of).collect::<Option<Vec<u64>>>()?;
        ends.into_iter().max()
    }

    /// When a fault ends; none: not before the run does.
    pub(super) fn end_of(fault: &Fault) -> Option<u64> {
        let lasts = match fault.kind {
            FaultKind::Partition { lasts, .. } => lasts,
            FaultKind::Churn { lasts, .. } => lasts?,
            _ => Duration::ZERO,
        };
        Some(ticks(fault.at) + ticks(lasts))
    }

    pub(super) fn is_up(&self, node: u32) -> bool {
        self.flags.get(node as usize).is_none_or(|flags| flags & !MUTE == 0)
    }

    pub(super) fn is_mute(&self, node: u32) -> bool {
        self.flags.get(node as usize).is_some_and(|flags| flags & MUTE != 0)
    }

    /// Whether no partition lies between two nodes.
    pub(super) fn are_linked(&self, a: u32, b: u32) -> bool {
        // Asked twice for every message, and mostly there is no partition.
        self.partitions.is_empty() || self.are_on_one_side(a, b)
    }

    fn are_on_one_side(&self, a: u32, b: u32) -> bool {
        self.partitions.iter().all(|number| self.side(*number, a) == self.side(*number, b))
    }

    fn side(&self, number: usize, node: u32) -> u64 {
        match self.faults[number].kind {
            FaultKind::Partition { groups: Groups::Random(groups), .. } => {
                below(self.group.draw(u64::from(node), number as u64), groups as u64)
            }
            _ => u64::from(region(node as usize) < REGIONS / 2),
        }
    }

    /// Nodes that are to start with this fault.
    pub(super) fn late(&self, number: usize, authors: &[u32]) -> Vec<u32> {
        match self.faults[number].kind {
            FaultKind::Join { who } => self.victims(number, who, authors).collect(),
            _ => Vec::new(),
        }
    }

    /// They have started.
    pub(super) fn start(&mut self, node: u32) {
        self.flags[node as usize] &= !LATE;
    }

    /// A partition or silence begins.
    pub(super) fn begin(&mut self, number: usize, authors: &[u32]) {
        match self.faults[number].kind {
            FaultKind::Partition { .. } => self.partitions.push(number),
            FaultKind::Mute { who } => self.set(MUTE, number, who, authors),
            _ => {}
        }
    }

    /// A fault is over.
    pub(super) fn heal(&mut self, number: usize) {
        self.open -= 1;
        self.partitions.retain(|partition| *partition != number);
    }

    /// A node leaves or comes back.
    pub(super) fn toggle(&mut self, number: usize, node: u32) {
        self.flags[node as usize] ^= AWAY << (number % AWAY_BITS);
    }

    /// Whether a fault keeps a node away.
    pub(super) fn is_away(&self, number: usize, node: u32) -> bool {
        self.flags[node as usize] & AWAY << (number % AWAY_BITS) != 0
    }

    /// Whether a node is away when a churn begins.
    pub(super) fn begins_away(&self, number: usize, node: u32) -> bool {
        let FaultKind::Churn { share, .. } = self.faults[number].kind else { return false };
        unit(self.victim.draw(u64::from(node), number as u64)) <= share
    }

    /// When a node leaves or comes back next: times away and at home have the same spread as a decay's, so who is away
    /// at any time says nothing about how long.
    pub(super) fn next_toggle(&self, number: usize, node: u32, now: u64) -> Option<u64> {
        let FaultKind::Churn { share, mean_off, .. } = self.faults[number].kind else { return None };
        let end = ActiveFaults::end_of(&self.faults[number]);
        let away = self.is_away(number, node);
        // So much longer at home that the share away stays what it is at the start.
        let mean = ticks(mean_off) as f64 * if away { 1.0 } else { (1.0 - share) / share };
        let draw = self.churn.draw(u64::from(node), now << 8 ^ number as u64);
        // Never at the same tick: the draw for it would be the same, for ever.
        let next = now + 1 + (-libm::log(unit(draw)) * mean) as u64;
        match end {
            // Who is away is back at the end, and who is at home leaves no more.
            Some(end) if away => Some(next.min(end).max(now + 1)),
            Some(end) => Some(next).filter(|next| *next < end),
            None => Some(next),
        }
    }

    fn set(&mut self, flag: u16, number: usize, who: Who, authors: &[u32]) {
        for victim in self.victims(number, who, authors).collect::<Vec<_>>() {
            self.flags[victim as usize] |= flag;
        }
    }

    /// Whom a fault strikes. Authors come last: a run in which nobody speaks asks nothing.
    fn victims(&self, number: usize, who: Who, authors: &[u32]) -> impl Iterator<Item = u32> {
        let order = Order::new(self.victim, number as u64, self.nodes);
        // Every node of a large world is asked, so the world has sorted them once.
        let is_author = |node: &u32| authors.binary_search(node).is_ok();
        let others = (0..self.nodes).map(move |place| order.at(place)).filter(move |node| !is_author(node));
        others.chain(authors.iter().copied()).take(who.of(self.nodes))
    }
}

/// Ticks as milliseconds.
pub(super) fn ms(ticks: u64) -> f64 {
    ticks as f64 / TICKS_MS as f64
}
