//! What is counted while a run is played, and the metrics that come of it.

use std::collections::BTreeMap;

use crate::lab::measure::{CURVE_MAX, Measured, Metrics, SPREAD_MAX, Spread};
use crate::sim::regions::region;

/// Bytes around what a message carries: topic, lengths and the frames of multiplexer, encryption and transport.
pub(super) const ENVELOPE_BYTES: u64 = 100;
/// Delays that are counted one by one in a table: 105 s in ticks. The few longer ones are kept in a map.
const TABLE: u64 = 1 << 20;

/// How often each delay was seen. Exact, whatever the range.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    table: Vec<u64>,
    beyond: BTreeMap<u64, u64>,
    total: u64,
}

impl Histogram {
    /// A delay was seen so often.
    pub(super) fn add(&mut self, delay: u64, count: u64) {
        self.total += count;
        if delay >= TABLE {
            *self.beyond.entry(delay).or_default() += count;
            return;
        }
        // On demand: most spreads end long before a whole table would be of use.
        if self.table.len() <= delay as usize {
            self.table.resize(delay as usize + 1, 0);
        }
        self.table[delay as usize] += count;
    }

    /// All delays seen and how often, the shortest first.
    fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        let table = self.table.iter().enumerate().map(|(delay, count)| (delay as u64, *count));
        table.chain(self.beyond.iter().map(|(delay, count)| (*delay, *count))).filter(|(_, count)| *count > 0)
    }

    /// The delay within which this many were seen.
    fn reached(&self, wanted: u64) -> Option<u64> {
        let mut seen = 0;
        self.iter().find_map(|(delay, count)| {
            seen += count;
            (seen >= wanted).then_some(delay)
        })
    }

    fn greatest(&self) -> Option<u64> {
        self.reached(self.total).filter(|_| self.total > 0)
    }
}

/// What time is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axis {
    /// Rounds.
    Rounds,
    /// Ticks, of which a millisecond has `links::TICKS_MS`.
    Ticks,
}

/// Counts of one run. An update's author holds it at delay 0, which is in neither histogram.
#[derive(Debug)]
pub(super) struct RunMetrics {
    axis: Axis,
    nodes: usize,
    updates: usize,
    /// Updates written so far: each is held by its author.
    pub(super) written: u64,
    /// Messages of every kind: sent, taken by their receiver, and lost in between.
    pub(super) sent: u64,
    pub(super) delivered: u64,
    pub(super) dropped: u64,
    /// Copies of updates among them.
    pub(super) copies_sent: u64,
    pub(super) copies_received: u64,
    pub(super) bytes: u64,
    /// Most links on an update's way.
    pub(super) hops: Option<u32>,
    delays: Histogram,
    /// Of the first update.
    first: Histogram,
    seen: Vec<Option<u32>>,
}

impl RunMetrics {
    pub(super) fn new(axis: Axis, nodes: usize, updates: usize) -> RunMetrics {
        let seen = if nodes <= SPREAD_MAX { vec![None; nodes] } else { Vec::new() };
        RunMetrics {
            axis,
            nodes,
            updates,
            written: 0,
            sent: 0,
            delivered: 0,
            dropped: 0,
            copies_sent: 0,
            copies_received: 0,
            bytes: 0,
            hops: None,
            delays: Histogram::default(),
            first: Histogram::default(),
            seen,
        }
    }

    /// An author wrote an update.
    pub(super) fn wrote(&mut self, author: u32, update: u32) {
        self.written += 1;
        self.spread(author, update, 0);
    }

    /// A node learnt an update this long after it was written.
    pub(super) fn learnt(&mut self, node: u32, update: u32, delay: u64) {
        self.delays.add(delay, 1);
        if update == 0 {
            self.first.add(delay, 1);
        }
        self.spread(node, update, delay);
    }

    fn spread(&mut self, node: u32, update: u32, delay: u64) {
        if update == 0 && !self.seen.is_empty() {
            self.seen[node as usize] = Some(self.shown(delay).round() as u32);
        }
    }

    /// Pairs of node and update that came together.
    pub(super) fn pairs(&self) -> u64 {
        self.written + self.delays.total
    }

    /// A delay in rounds or milliseconds.
    fn shown(&self, delay: u64) -> f64 {
        match self.axis {
            Axis::Rounds => delay as f64,
            Axis::Ticks => delay as f64 / super::links::TICKS_MS as f64,
        }
    }

    /// What follows from the counts.
    pub(super) fn measured(self, trace: u64, has_regions: bool) -> Measured {
        let regions =
            if has_regions { (0..self.nodes).map(|node| region(node) as u8).collect() } else { Vec::new() };
        let (metrics, curve) = (self.metrics(), self.curve());
        let spread = (!self.seen.is_empty()).then_some(Spread { seen: self.seen, regions });
        Measured { trace, metrics, curve, spread }
    }

    fn metrics(&self) -> Metrics {
        let pairs = self.nodes as f64 * self.updates as f64;
        let duplicates = self.copies_received - self.delays.total.min(self.copies_received);
        let mut metrics = Metrics::from([
            ("coverage".into(), self.pairs() as f64 / pairs),
            ("messages_per_node".into(), self.copies_sent as f64 / pairs),
            ("bytes_per_node".into(), self.bytes as f64 / pairs),
            ("duplicates".into(), duplicates as f64 / pairs),
        ]);
        metrics.extend(self.hops.map(|hops| ("hops".into(), f64::from(hops))));
        let delays: [(&str, Option<u64>); 3] = match self.axis {
            Axis::Rounds => [
                ("rounds", self.delays.greatest()),
                ("rounds.p50", self.rounds_to(0.5)),
                ("rounds.p99", self.rounds_to(0.99)),
            ],
            Axis::Ticks => [
                ("latency_ms.p50", self.delay_within(0.5)),
                ("latency_ms.p99", self.delay_within(0.99)),
                ("latency_ms.p100", self.delays.greatest()),
            ],
        };
        metrics.extend(delays.into_iter().filter_map(|(name, it)| Some((name.into(), self.shown(it?)))));
        metrics
    }

    /// Rounds until a share of all nodes know an update; none if so many never do.
    fn rounds_to(&self, share: f64) -> Option<u64> {
        let wanted = (self.nodes as f64 * self.updates as f64 * share).ceil() as u64;
        if wanted <= self.written { Some(0) } else { self.delays.reached(wanted - self.written) }
    }

    /// The delay that a share of the nodes that learnt an update did not exceed.
    fn delay_within(&self, share: f64) -> Option<u64> {
        let wanted = (self.delays.total as f64 * share).ceil() as u64;
        self.delays.reached(wanted.max(1))
    }

    /// The spread of the first update. Half of the points are at equal steps of the share and half at equal steps of
    /// time, so that neither a steep rise nor a long wait is drawn over.
    fn curve(&self) -> Vec<(f64, f64)> {
        let first = u64::from(self.written > 0);
        // Never empty, so there is always a last entry, and one at or before any time.
        let mut all = vec![(0, first)];
        for (delay, count) in self.first.iter() {
            let known = all[all.len() - 1].1 + count;
            all.push((delay, known));
        }
        let (last, known) = all[all.len() - 1];
        let steps = (CURVE_MAX / 2 - 1) as u64;
        let mut chosen: Vec<(u64, u64)> = Vec::with_capacity(CURVE_MAX);
        for step in 0..=steps {
            let at = all.partition_point(|(_, share)| *share * steps < known * step);
            chosen.push(all[at.min(all.len() - 1)]);
            // Multiplied before divided, else short spreads collapse to 0; the product may pass 64 bits.
            let time = (u128::from(last) * u128::from(step) / u128::from(steps)) as u64;
            let at = all.partition_point(|(delay, _)| *delay <= time);
            chosen.push((time, all[at - 1].1));
        }
        chosen.sort_unstable();
        chosen.dedup();
        chosen
            .into_iter()
            .map(|(delay, known)| (self.shown(delay), known as f64 / self.nodes as f64))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_keeps_its_steep_rise_and_its_long_wait() {
        let mut metrics = RunMetrics::new(Axis::Ticks, 2_000, 1);
        metrics.wrote(0, 0);
        (1..1_000).for_each(|node| metrics.learnt(node, 0, 1_000 + u64::from(node)));
        (1_000..2_000).for_each(|node| metrics.learnt(node, 0, 600_000 + u64::from(node)));
        let curve = metrics.curve();
        assert!(curve.len() <= CURVE_MAX, "{} points", curve.len());
        assert_eq!((curve[0], curve[curve.len() - 1]), ((0.0, 0.000_5), (60_199.9, 1.0)));
        let share = |ms: f64| curve.iter().rfind(|(at, _)| *at <= ms).map_or(0.0, |(_, share)| *share);
        assert!((share(150.0) - 0.25).abs() < 0.02, "the rise: {}", share(150.0));
        let before = curve.iter().rfind(|(ms, _)| *ms < 60_000.0).unwrap();
        assert!(before.0 > 59_000.0 && before.1 == 0.5, "the wait ends with {before:?}");
    }

    #[test]
    fn percentiles_are_exact_on_both_sides_of_the_table() {
        let mut histogram = Histogram::default();
        histogram.add(3, 50);
        histogram.add(TABLE + 7, 49);
        histogram.add(u64::MAX, 1);
        assert_eq!(
            [50, 51, 99, 100].map(|it| histogram.reached(it)),
            [3, TABLE + 7, TABLE + 7, u64::MAX].map(Some)
        );
        assert_eq!(histogram.greatest(), Some(u64::MAX));
        assert_eq!(Histogram::default().greatest(), None);
    }
}
