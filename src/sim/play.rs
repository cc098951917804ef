//! A scenario on real nodes: from its cell to a [`World`](super::World) and its measurements.

use super::measure::{Broken, Measured};
use super::scenario::Scenario;

/// Plays one run of a cell of the `core` tier.
pub fn play(_scenario: &Scenario, _seed: u64) -> Result<Measured, Broken> {
    Ok(Measured::default())
}
