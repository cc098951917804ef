//! How many lines the log has of calls: whoever may call an agent may call it thousands of times a second.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines of calls in each second.
const LINES_MAX: u32 = 100;
const PERIOD: Duration = Duration::from_secs(1);

/// Lines that were left out before one that is written, where there are any.
pub(crate) type LeftOut = Option<u64>;

/// Counts the lines of one node.
pub(crate) struct CallLog(Mutex<Lines>);

struct Lines {
    since: Instant,
    written: u32,
    left_out: u64,
}

impl CallLog {
    pub(super) fn new() -> CallLog {
        CallLog(Mutex::new(Lines { since: Instant::now(), written: 0, left_out: 0 }))
    }

    /// Whether one more line is written, and with it how many were left out since the last, if any.
    pub(crate) fn admit(&self) -> Option<LeftOut> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<LeftOut> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(lines.since) >= PERIOD {
            (lines.since, lines.written) = (now, 0);
        }
        if lines.written >= LINES_MAX {
            lines.left_out += 1;
            return None;
        }
        lines.written += 1;
        Some(Some(std::mem::take(&mut lines.left_out)).filter(|count| *count > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_calls_is_counted_and_not_written() {
        let log = CallLog::new();
        let now = Instant::now();
        assert!((0..LINES_MAX).all(|_| log.admit_at(now) == Some(None)));
        assert!((0..7).all(|_| log.admit_at(now).is_none()));
        let later = now + PERIOD;
        assert_eq!((log.admit_at(later), log.admit_at(later)), (Some(Some(7)), Some(None)));
    }
}
