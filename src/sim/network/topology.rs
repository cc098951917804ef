//! Where the nodes of a world are, and how long a message takes between them: the way between their regions, a last
//! mile for each, and jitter.

use rand::{Rng, RngExt};

use crate::sim::regions::{LAST_MILE_MS, ROUND_TRIP_MS, region};

/// Jitter is drawn up to this share of the rest, in hundredths, and at least 1 ms.
const JITTER_PERCENT_MAX: u64 = 10;

/// Where each node is.
#[derive(Clone, Debug)]
pub(in crate::sim) struct Topology {
    regions: Vec<u8>,
    last_mile_ms: Vec<u8>,
}

impl Topology {
    /// Spreads nodes evenly over the regions.
    pub(in crate::sim) fn spread(nodes: usize, rng: &mut impl Rng) -> Topology {
        let regions = (0..nodes).map(|at| region(at) as u8).collect();
        let mut last_mile = || rng.random_range(LAST_MILE_MS.0..=LAST_MILE_MS.1) as u8;
        Topology { last_mile_ms: (0..nodes).map(|_| last_mile()).collect(), regions }
    }

    /// The region of each node.
    pub(in crate::sim) fn regions(&self) -> &[u8] {
        &self.regions
    }

    /// How long a message takes from one node to another.
    pub(in crate::sim) fn latency_ms(&self, from: usize, to: usize, rng: &mut impl Rng) -> u64 {
        let round_trip = ROUND_TRIP_MS[usize::from(self.regions[from])][usize::from(self.regions[to])];
        let ends = u64::from(self.last_mile_ms[from]) + u64::from(self.last_mile_ms[to]);
        let way = u64::from(round_trip) / 2 + ends;
        way + rng.random_range(0..=(way * JITTER_PERCENT_MAX / 100).max(1))
    }
}
