//! Where machines are, and how long a message takes between them: rounded round trips between eight regions of a public
//! cloud, a last mile for each machine, and jitter.

use rand::{Rng, RngExt};

/// The regions, by number.
pub const REGIONS: [&str; 8] =
    ["us-east", "us-west", "sa-east", "eu-west", "eu-central", "ap-south", "ap-southeast", "ap-northeast"];

/// Round trips between regions, milliseconds, as public measurements of large clouds give them, rounded to 5.
const ROUND_TRIP_MS: [[u64; 8]; 8] = [
    [2, 65, 115, 70, 90, 190, 215, 150],
    [65, 2, 175, 130, 145, 220, 170, 105],
    [115, 175, 2, 180, 200, 300, 325, 255],
    [70, 130, 180, 2, 25, 120, 180, 210],
    [90, 145, 200, 25, 2, 110, 160, 225],
    [190, 220, 300, 120, 110, 2, 60, 125],
    [215, 170, 325, 180, 160, 60, 2, 70],
    [150, 105, 255, 210, 225, 125, 70, 2],
];

/// The longest way from a machine to the exchange of its region and back to another, one way, milliseconds.
const LAST_MILE_MS_MAX: u64 = 5;
/// Jitter is drawn up to this share of the rest, in hundredths, and at least 1 ms.
const JITTER_PERCENT_MAX: u64 = 10;

/// Where each machine is.
#[derive(Clone, Debug)]
pub(super) struct Places {
    regions: Vec<u8>,
    last_mile_ms: Vec<u8>,
}

impl Places {
    /// Spreads machines evenly over the regions.
    pub(super) fn spread(machines: usize, rng: &mut impl Rng) -> Places {
        let regions = (0..machines).map(|at| (at % REGIONS.len()) as u8).collect();
        let mut last_mile = || rng.random_range(0..=LAST_MILE_MS_MAX) as u8;
        Places { last_mile_ms: (0..machines).map(|_| last_mile()).collect(), regions }
    }

    /// The region of each machine.
    pub(super) fn regions(&self) -> &[u8] {
        &self.regions
    }

    /// How long a message takes from one machine to another.
    pub(super) fn latency_ms(&self, from: usize, to: usize, rng: &mut impl Rng) -> u64 {
        let round_trip = ROUND_TRIP_MS[usize::from(self.regions[from])][usize::from(self.regions[to])];
        let ends = u64::from(self.last_mile_ms[from]) + u64::from(self.last_mile_ms[to]);
        let way = round_trip / 2 + ends;
        way + rng.random_range(0..=(way * JITTER_PERCENT_MAX / 100).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_between_two_regions_take_equally_long_and_a_detour_is_no_great_shortcut() {
        for (a, row) in ROUND_TRIP_MS.iter().enumerate() {
            for (b, direct) in row.iter().enumerate() {
                assert_eq!(*direct, ROUND_TRIP_MS[b][a]);
                let around = (0..8)
                    .filter(|over| *over != a && *over != b)
                    .map(|over| row[over] + ROUND_TRIP_MS[over][b]);
                assert!(a == b || around.min().is_some_and(|around| around * 10 >= direct * 8), "{a} {b}");
            }
        }
    }
}
