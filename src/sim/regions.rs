//! Where simulated nodes are: eight regions of a public cloud, and how far they lie apart.
//!
//! The figures are rounded public round trips, not our own measurements. Every tier that knows regions uses this table,
//! so that their results can be laid over one another.

/// Where nodes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
pub enum Regions {
    /// Eight regions of a public cloud, nodes spread evenly; rounded round trips between them.
    #[serde(rename = "cloud-8")]
    Cloud8,
}

/// How many.
pub const REGIONS: usize = 8;

/// Where each is.
pub const NAMES: [&str; REGIONS] =
    ["Virginia", "Oregon", "São Paulo", "Ireland", "Frankfurt", "Mumbai", "Tokyo", "Sydney"];

/// Round trips, milliseconds. A partition by region separates the first four from the rest.
pub const ROUND_TRIP_MS: [[u16; REGIONS]; REGIONS] = [
    [1, 65, 115, 70, 90, 190, 160, 200],
    [65, 1, 175, 125, 145, 220, 100, 140],
    [115, 175, 1, 180, 200, 300, 260, 310],
    [70, 125, 180, 1, 25, 120, 205, 255],
    [90, 145, 200, 25, 1, 110, 225, 280],
    [190, 220, 300, 120, 110, 1, 120, 150],
    [160, 100, 260, 205, 225, 120, 1, 105],
    [200, 140, 310, 255, 280, 150, 105, 1],
];

/// A node's own stretch to the cloud, one way, milliseconds: least and most. Both ends of a link have one.
pub const LAST_MILE_MS: (u16, u16) = (1, 5);

/// Region of a node: nodes are spread evenly.
pub fn region(node: usize) -> usize {
    // Round robin: any number of first nodes is spread as well as all.
    node % REGIONS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_there_is_as_long_as_the_way_back() {
        for (a, row) in ROUND_TRIP_MS.iter().enumerate() {
            for (b, ms) in row.iter().enumerate() {
                assert_eq!(*ms, ROUND_TRIP_MS[b][a]);
                assert_eq!(*ms == 1, a == b);
            }
        }
    }
}
