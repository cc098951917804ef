//! How long links are: one latency for all, one for each drawn from the seed, or the distance between regions.

use aop::lab::scenario::{Latency, Network, Regions};
use aop::sim::regions::{LAST_MILE_MS, REGIONS, ROUND_TRIP_MS, region};

use crate::wire::unit;

/// What QUIC adds to its probe timeout for a delayed acknowledgement, milliseconds.
const ACK_DELAY_MS: u64 = 25;

/// The links of one run. Both directions of a link are alike.
#[derive(Clone, Debug)]
pub struct Links {
    length: Length,
    seed: u64,
}

#[derive(Clone, Copy, Debug)]
enum Length {
    /// Milliseconds: from and to.
    Between(u64, u64),
    Cloud8,
}

impl Links {
    /// The links of a scenario's network.
    pub fn new(network: &Network, seed: u64) -> Links {
        let length = match (network.regions, network.latency) {
            (Some(Regions::Cloud8), _) => Length::Cloud8,
            (None, Some(Latency { least, most })) => {
                Length::Between(least.as_millis() as u64, most.as_millis() as u64)
            }
            (None, None) => Length::Between(0, 0),
        };
        Links { length, seed }
    }

    /// Region of a node; none without regions.
    pub fn region(&self, node: usize) -> Option<usize> {
        matches!(self.length, Length::Cloud8).then_some(region(node))
    }

    /// Whether a node lives in the first half of the regions.
    pub fn is_in_first_half(&self, node: usize) -> bool {
        self.region(node).is_some_and(|region| region < REGIONS / 2)
    }

    /// One way.
    pub fn latency_ms(&self, a: usize, b: usize) -> u64 {
        match self.length {
            Length::Between(least, most) => within(least, most, self.draw(a.min(b), a.max(b))),
            Length::Cloud8 => {
                let (least, most) = LAST_MILE_MS;
                let last_mile = |node| within(least.into(), most.into(), self.draw(node, node));
                self.between_regions_ms(a, b) + last_mile(a) + last_mile(b)
            }
        }
    }

    /// How much later a chunk may come: up to a sixteenth of the way between regions.
    pub fn jitter_ms(&self, a: usize, b: usize) -> u64 {
        match self.length {
            Length::Between(..) => 0,
            Length::Cloud8 => self.between_regions_ms(a, b) / 16,
        }
    }

    fn between_regions_ms(&self, a: usize, b: usize) -> u64 {
        u64::from(ROUND_TRIP_MS[region(a)][region(b)]).div_ceil(2)
    }

    /// How long a sender waits before it sends again: QUIC's first probe timeout.
    pub fn retransmit_ms(&self, a: usize, b: usize) -> u64 {
        3 * self.latency_ms(a, b) + ACK_DELAY_MS
    }

    fn draw(&self, a: usize, b: usize) -> f64 {
        unit(mix(self.seed ^ mix(((a as u64) << 32) | b as u64)))
    }
}

/// A whole number between two, both included, by a draw from 0 to below 1.
pub fn within(least: u64, most: u64, draw: f64) -> u64 {
    least + (draw * (most - least + 1) as f64) as u64
}

/// The finalizer of SplitMix64: neighbouring numbers become unlike ones.
pub fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
