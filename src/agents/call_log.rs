//! How many lines the log has of calls: whoever may call an agent may call it thousands of times a second.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ring::hmac;
use serde_json::Value;

/// Lines of calls in each second.
const LINES_MAX: u32 = 100;
const PERIOD: Duration = Duration::from_secs(1);

/// Lines that were left out before one that is written, where there are any.
pub(crate) type LeftOut = Option<u64>;

/// Bytes of a hash that a line has: enough to tell apart the tasks of a log.
const HASH_BYTES: usize = 8;

/// Counts the lines of one node.
pub(crate) struct CallLog {
    lines: Mutex<Lines>,
    /// Of this run alone: equal tasks look alike, and none can be looked up.
    key: hmac::Key,
}

struct Lines {
    since: Instant,
    written: u32,
    left_out: u64,
}

impl CallLog {
    pub(super) fn new() -> CallLog {
        CallLog {
            lines: Mutex::new(Lines { since: Instant::now(), written: 0, left_out: 0 }),
            key: hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>()),
        }
    }

    /// Whether one more line is written, and with it how many were left out since the last, if any.
    pub(crate) fn admit(&self) -> Option<LeftOut> {
        self.admit_at(Instant::now())
    }

    /// What a line says of an input: its size in bytes, and a text that equal inputs share.
    pub(super) fn describe(&self, input: &Value) -> (usize, String) {
        let bytes = input.to_string();
        let hash = hmac::sign(&self.key, bytes.as_bytes());
        let mut text = String::new();
        for byte in &hash.as_ref()[..HASH_BYTES] {
            // Writing to a string cannot fail.
            let _infallible = write!(text, "{byte:02x}");
        }
        (bytes.len(), text)
    }

    fn admit_at(&self, now: Instant) -> Option<LeftOut> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
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
    fn equal_tasks_look_alike_in_one_run_only() {
        let (log, other) = (CallLog::new(), CallLog::new());
        let (task, same) =
            (serde_json::json!({"task": "a", "n": 1}), serde_json::json!({"task": "a", "n": 1}));
        assert_eq!(log.describe(&task), log.describe(&same));
        assert_ne!(log.describe(&task).1, log.describe(&serde_json::json!("a")).1);
        assert_ne!(log.describe(&task).1, other.describe(&task).1);
        assert_eq!((log.describe(&task).0, log.describe(&task).1.len()), (18, 16));
    }

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
