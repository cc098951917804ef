//! How many records the log of this process had: there is one log, however many nodes.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use tracing::Level;

/// Levels that are counted, the gravest first; what is below is for whoever looks for a fault.
const LEVELS: [(Level, &str); 4] =
    [(Level::ERROR, "error"), (Level::WARN, "warn"), (Level::INFO, "info"), (Level::DEBUG, "debug")];
static COUNTS: [AtomicU64; LEVELS.len()] = [const { AtomicU64::new(0) }; LEVELS.len()];

/// Counts a record of this level.
pub(crate) fn count(level: Level) {
    if let Some(at) = LEVELS.iter().position(|(known, _)| *known == level) {
        COUNTS[at].fetch_add(1, Relaxed);
    }
}

/// The counts, by level.
pub(crate) fn read() -> [(&'static str, u64); LEVELS.len()] {
    std::array::from_fn(|at| (LEVELS[at].1, COUNTS[at].load(Relaxed)))
}
