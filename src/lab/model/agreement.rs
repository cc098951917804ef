//! How far the nodes of a run agree, summed over its time.

/// How far the nodes that are up agree.
#[derive(Debug, Default)]
pub(super) struct Agreement {
    /// Nodes that are up.
    pub(super) up: u64,
    /// Pairs of such a node and a written update that it lacks.
    pub(super) lacking: u64,
    /// From when on staleness counts; none before the first update.
    pub(super) from: Option<u64>,
    pub(super) last: u64,
    /// Share of pairs lacking, summed over ticks.
    pub(super) stale: f64,
    /// When all agreed after the last fault.
    pub(super) healed: Option<u64>,
}

impl Agreement {
    /// Time passes.
    pub(super) fn advance(&mut self, now: u64, written: u64) {
        if let Some(from) = self.from {
            // Time before `from` counts nothing, and the last look may lie in it.
            let passed = now.saturating_sub(self.last.max(from));
            let pairs = self.up * written;
            // All may be away at once.
            if pairs > 0 {
                self.stale += passed as f64 * self.lacking as f64 / pairs as f64;
            }
        }
        self.last = now;
    }
}
