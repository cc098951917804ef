//! Results for people: one HTML file that opens offline, static SVGs, CSV.

use super::results::{Answered, Results};

/// One page with everything in it.
pub fn html(_results: &Results) -> String {
    String::new()
}

/// The charts of a scenario as (name without extension, SVG).
pub fn svg(_answered: &Answered) -> Vec<(String, String)> {
    Vec::new()
}

/// One row a run.
pub fn runs_csv(_results: &Results) -> String {
    String::new()
}

/// One row a point of a curve.
pub fn curve_csv(_results: &Results) -> String {
    String::new()
}
