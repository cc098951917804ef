//! Clocks: the true one of a world, and those of its nodes, which may be wrong.

use crate::proto::time::Timestamp;

/// True time at which every run begins.
pub const START: Timestamp = Timestamp(1_800_000_000_000);

/// The clock of a world. Virtual time is what monotonic clocks count; wall time passes too while everybody sleeps.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WorldClock {
    /// Virtual milliseconds since the start.
    now_ms: u64,
    /// Wall time that passed while everything was suspended, milliseconds.
    skipped_ms: u64,
}

impl WorldClock {
    /// Virtual milliseconds since the start.
    pub(super) fn now(&self) -> u64 {
        self.now_ms
    }

    /// True wall time, milliseconds.
    pub(super) fn wall(&self) -> u64 {
        START.0 + self.skipped_ms + self.now_ms
    }

    /// Virtual time is this from now on.
    pub(super) fn advance(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// Wall time passes while everybody sleeps.
    pub(super) fn skip(&mut self, for_ms: u64) {
        self.skipped_ms += for_ms;
    }
}

/// The wall clock of one node.
#[derive(Clone, Debug)]
pub(super) struct NodeClock {
    /// Its constant error, milliseconds.
    skew_ms: i64,
    /// Its present error beyond the constant one, milliseconds.
    error_ms: i64,
    shown_max: Timestamp,
}

impl NodeClock {
    pub(super) fn new(skew_ms: i64) -> NodeClock {
        NodeClock { skew_ms, error_ms: 0, shown_max: Timestamp::default() }
    }

    /// What it shows to its node when the true time is `wall`.
    pub(super) fn read(&mut self, wall: u64) -> Timestamp {
        let shown = self.peek(wall);
        // Kept when the clock goes back: what ended on it once may have been dropped then.
        self.shown_max = self.shown_max.max(shown);
        shown
    }

    /// What it would show.
    pub(super) fn peek(&self, wall: u64) -> Timestamp {
        Timestamp(wall.saturating_add_signed(self.skew_ms).saturating_add_signed(self.error_ms))
    }

    /// The greatest time it showed in this run of its node.
    pub(super) fn shown_max(&self) -> Timestamp {
        self.shown_max
    }

    /// It is wrong by this much more than its constant error from now on.
    pub(super) fn set_error(&mut self, error_ms: i64) {
        self.error_ms = error_ms;
    }

    /// Its node starts again.
    pub(super) fn restart(&mut self) {
        self.shown_max = Timestamp::default();
    }
}
