//! What theory says of a scenario.

use super::measure::Metrics;
use super::scenario::Scenario;

/// Metrics that the formulas of the scenario's `[theory]` give; empty without one.
pub fn metrics(_scenario: &Scenario) -> Metrics {
    Metrics::new()
}

/// Share of nodes by round or millisecond, as `Measured::curve`; empty without a theory.
pub fn curve(_scenario: &Scenario) -> Vec<(f64, f64)> {
    Vec::new()
}
