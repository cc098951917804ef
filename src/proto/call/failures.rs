//! Whether the runs of an agent fail, as its host sees them, whoever called (protocol section 5).
//!
//! A host that fails at once seems idle and would draw all calls. Its agent is held to fail after some failures in a row, and
//! where half of its last runs failed: a host on which every second run fails would else be trusted again and again. Callers
//! then go elsewhere, and one of them all tries it once in a while, longer each time; a success is followed by the next try
//! at once, and some of them end it.

use std::time::Duration;

use crate::proto::limits::{
    CALL_AGENT_PAUSE, CALL_AGENT_PAUSE_MAX, CALL_FAILING_PAUSES, CALL_PROVEN_RUNS, CALL_RUNS_COUNTED,
};

/// How the runs of one agent ended.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// Failed runs: in a row, or since the agent is held to fail.
    count: u32,
    /// Whether each of the last [`CALL_RUNS_COUNTED`] failed, the latest first.
    last: u32,
    /// Runs in a row that succeeded, of an agent that is held to fail.
    proven: u32,
    /// Whether somebody tries it, and since when; or when the last run ended.
    is_tried: bool,
    since: Duration,
}

impl Failures {
    /// A run came to its end.
    pub(super) fn note(&mut self, now: Duration, has_failed: bool) {
        (self.is_tried, self.since) = (false, now);
        self.last = (self.last << 1 | u32::from(has_failed)) & ((1 << CALL_RUNS_COUNTED) - 1);
        if has_failed {
            (self.count, self.proven) = (self.count.saturating_add(1), 0);
            if self.last.count_ones() * 2 >= CALL_RUNS_COUNTED {
                self.count = self.count.max(CALL_FAILING_PAUSES);
            }
            return;
        }
        self.proven += 1;
        if self.count < CALL_FAILING_PAUSES {
            self.count = 0;
        } else if self.proven >= CALL_PROVEN_RUNS {
            *self = Failures::default();
        }
    }

    /// How many failed: from [`CALL_FAILING_PAUSES`] on the agent is held to fail.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Whether the caller that is given a place now tries whether it works again: it is not told that it fails.
    pub(super) fn try_again(&mut self, now: Duration) -> bool {
        let Some(more) = self.count.checked_sub(CALL_FAILING_PAUSES) else { return false };
        let pause = (CALL_AGENT_PAUSE * 2u32.pow(more.min(16))).min(CALL_AGENT_PAUSE_MAX);
        let is_due = self.proven > 0 && !self.is_tried || now.saturating_sub(self.since) >= pause;
        if is_due {
            (self.is_tried, self.since) = (true, now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);
    const SECOND: Duration = Duration::from_secs(1);

    fn after(ends: &[bool]) -> Failures {
        let mut failures = Failures::default();
        ends.iter().for_each(|has_failed| failures.note(NOW, *has_failed));
        failures
    }

    #[test]
    fn failures_in_a_row_and_half_of_the_last_runs_hold_an_agent_to_fail() {
        assert_eq!(after(&[true; 4]).count(), 4);
        assert_eq!(after(&[true, true, true, true, false]).count(), 0);
        assert_eq!(after(&[true; 5]).count(), 5);
        let every_second = [true, false].repeat(5);
        assert_eq!(after(&every_second[..8]).count(), 0, "four of eight");
        assert_eq!(after(&every_second[..9]).count(), 5, "five of nine");
        let every_third = [true, false, false].repeat(20);
        assert_eq!(after(&every_third).count(), 0);
    }

    #[test]
    fn one_caller_tries_it_once_in_a_while_and_at_once_after_a_success() {
        let mut failures = after(&[true; 5]);
        let due = NOW + CALL_AGENT_PAUSE;
        assert_eq!([due - SECOND, due, due].map(|now| failures.try_again(now)), [false, true, false]);
        failures.note(due, true);
        let due = due + 2 * CALL_AGENT_PAUSE;
        assert_eq!([due - SECOND, due].map(|now| failures.try_again(now)), [false, true], "twice as long");
        failures.note(due, false);
        assert_eq!([due, due].map(|now| failures.try_again(now)), [true, false], "one after the other");
        failures.note(due, false);
        assert_eq!(failures.count(), 6, "still held to fail");
        failures.note(due, false);
        assert_eq!(failures.count(), 0);
        assert!(!failures.try_again(due), "as any other");
    }

    #[test]
    fn a_failure_ends_a_row_of_tries_that_succeeded() {
        let mut failures = after(&[true, true, true, true, true, false, false, true, false, false]);
        assert_eq!(failures.count(), 6);
        assert!(failures.try_again(NOW));
        failures.note(NOW, false);
        assert_eq!(failures.count(), 0);
    }
}
