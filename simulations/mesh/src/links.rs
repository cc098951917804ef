//! How long links are: one latency for all, one for each drawn from the seed, or the distance between regions.

use aop::sim::scenario::{Latency, Network, Regions};

use crate::wire::unit;

/// Round trips between regions of a public cloud, milliseconds, rounded: Virginia, Oregon, São Paulo, Ireland,
/// Frankfurt, Mumbai, Tokyo, Sydney. Within a region: 1.
const CLOUD_8_RTT_MS: [[u16; REGIONS]; REGIONS] = [
    [1, 65, 115, 70, 90, 190, 160, 200],
    [65, 1, 175, 125, 145, 220, 100, 140],
    [115, 175, 1, 180, 200, 300, 260, 310],
    [70, 125, 180, 1, 25, 120, 205, 255],
    [90, 145, 200, 25, 1, 110, 225, 280],
    [190, 220, 300, 120, 110, 1, 120, 150],
    [160, 100, 260, 205, 225, 120, 1, 105],
    [200, 140, 310, 255, 280, 150, 105, 1],
];
const REGIONS: usize = 8;
/// The last mile of a node, milliseconds: from and to.
const LAST_MILE_MS: (u64, u64) = (1, 5);
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
        matches!(self.length, Length::Cloud8).then_some(node % REGIONS)
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
                let last_mile = |node: usize| within(least, most, self.draw(node, node));
                let rtt = u64::from(CLOUD_8_RTT_MS[a % REGIONS][b % REGIONS]);
                rtt.div_ceil(2) + last_mile(a) + last_mile(b)
            }
        }
    }

    /// How long a sender waits before it sends again: QUIC's first probe timeout.
    pub fn retransmit_ms(&self, a: usize, b: usize) -> u64 {
        3 * self.latency_ms(a, b) + ACK_DELAY_MS
    }

    fn draw(&self, a: usize, b: usize) -> f64 {
        unit(mix(self.seed ^ mix(((a as u64) << 32) | b as u64)))
    }
}

fn within(least: u64, most: u64, draw: f64) -> u64 {
    least + (draw * (most - least + 1) as f64) as u64
}

/// The finalizer of SplitMix64: neighbouring numbers become unlike ones.
pub fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
