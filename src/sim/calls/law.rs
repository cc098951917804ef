//! The law of calls, checked with every step: a call runs at most once, nobody claims what is not so, and whoever waits has
//! an outcome by the deadline.

use std::collections::BTreeMap;

use super::ClientCall;
use crate::proto::call::{CallEnd, CallId, Outcome};
use crate::sim::checkers::Check;
use crate::sim::kernel::Kernel;

/// What a timer may be late, milliseconds: the world counts whole ones.
const SLACK_MS: u64 = 1;

/// What became of the calls of a world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallCounts {
    /// Made by clients.
    pub made: u64,
    /// Offers that were made of them.
    pub offers: u64,
    /// Work that began.
    pub begun: u64,
    /// Clients that were told an answer.
    pub answered: u64,
    /// Clients that were told that nothing was started.
    pub not_started: u64,
    /// Clients that were told that nobody knows.
    pub unknown: u64,
    /// Clients that were told that the agent failed.
    pub done: u64,
    /// Clients that did not wait, or whose node stopped.
    pub unheard: u64,
    /// Clients that wait.
    pub waiting: u64,
}

/// What became of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallEnding {
    /// Where it was made.
    pub caller: usize,
    /// When, virtual milliseconds.
    pub made_ms: u64,
    /// When its work began last, if it did.
    pub begun_ms: Option<u64>,
    /// When its client was told, if it was.
    pub ended_ms: Option<u64>,
    /// Whether it was told an answer.
    pub is_answered: bool,
    /// Offers that were made of it.
    pub offers: u32,
    /// How often its work began.
    pub runs: u32,
    /// How long that took in all at a host of common speed, milliseconds.
    pub work_ms: u64,
}

/// What happened to every call, seen from outside.
#[derive(Default)]
pub(in crate::sim) struct CallLaw {
    calls: BTreeMap<CallId, Watched>,
    counts: CallCounts,
    /// The first broken promise.
    broken: Option<(Check, String)>,
}

struct Watched {
    end: CallEnding,
    caller: usize,
    /// Hosts that run its agent beside that of its record.
    also: Vec<usize>,
    size: usize,
    deadline_ms: u64,
    is_waited_for: bool,
    offers: u32,
    begun: u32,
    /// Whether the agent came to an end of its own.
    is_complete: bool,
    was_told_not_started: bool,
    /// Whether the agent may run it more than once.
    is_idempotent: bool,
    /// Whether nobody waits at it, so that it may outlast its node.
    is_detached: bool,
}

impl CallLaw {
    pub(super) fn make(
        &mut self,
        call: CallId,
        caller: usize,
        (made_ms, deadline_ms): (u64, u64),
        client: &ClientCall,
    ) {
        self.counts.made += 1;
        let watched = Watched {
            end: CallEnding { caller, made_ms, ..CallEnding::default() },
            caller,
            also: client.also.clone(),
            size: client.size,
            deadline_ms,
            is_waited_for: true,
            offers: 0,
            begun: 0,
            is_complete: false,
            was_told_not_started: false,
            is_idempotent: client.is_idempotent,
            is_detached: client.is_detached,
        };
        self.calls.insert(call, watched);
    }

    /// What became of the calls so far.
    pub(in crate::sim) fn counts(&self) -> CallCounts {
        let waiting = self.calls.values().filter(|watched| watched.is_waited_for).count() as u64;
        CallCounts { waiting, ..self.counts }
    }

    /// How long the work takes that begins.
    pub(super) fn note_work(&mut self, call: CallId, work_ms: u64) {
        if let Some(watched) = self.calls.get_mut(&call) {
            watched.end.work_ms += work_ms;
        }
    }

    /// What became of each call.
    pub(in crate::sim) fn ends(&self) -> impl Iterator<Item = &CallEnding> {
        self.calls.values().map(|watched| &watched.end)
    }

    /// Whether a node runs the agent of a call though no record says so.
    pub(super) fn runs_at(&self, call: CallId, node: usize) -> bool {
        self.calls.get(&call).is_some_and(|watched| watched.also.contains(&node))
    }

    /// Whether it outlasts a restart of its caller.
    pub(super) fn is_detached(&self, call: CallId) -> bool {
        self.calls.get(&call).is_some_and(|watched| watched.is_detached)
    }

    /// Its caller is up again before its deadline, which is told then: it hears of its end after all.
    pub(super) fn ask_again(&mut self, call: CallId, now: u64) -> Option<u64> {
        let watched = self.calls.get_mut(&call).filter(|watched| now < watched.deadline_ms)?;
        (watched.is_waited_for, watched.offers) = (true, 0);
        self.counts.unheard -= 1;
        Some(watched.deadline_ms)
    }

    /// Bytes of its input.
    pub(super) fn size(&self, call: CallId) -> usize {
        self.calls.get(&call).map_or(0, |watched| watched.size)
    }

    pub(super) fn offer(&mut self, call: CallId) {
        self.counts.offers += 1;
        if let Some(watched) = self.calls.get_mut(&call) {
            watched.offers += 1;
            watched.end.offers += 1;
        }
    }

    /// The agent sees the input.
    pub(super) fn begin(&mut self, call: CallId, now: u64) {
        self.counts.begun += 1;
        let Some(watched) = self.calls.get_mut(&call) else { return };
        watched.begun += 1;
        (watched.end.begun_ms, watched.end.runs) = (Some(now), watched.begun);
        let (begun, was_told_not_started) = (watched.begun, watched.was_told_not_started);
        if begun > 1 && !watched.is_idempotent {
            self.fail(Check::CallRunsOnce, format!("{call} runs {begun} times"));
        }
        if was_told_not_started {
            self.fail(Check::CallClaims, format!("{call} runs after its client was told that it did not"));
        }
    }

    /// The agent ended, with an answer or a failure.
    pub(super) fn complete(&mut self, call: CallId) {
        if let Some(watched) = self.calls.get_mut(&call) {
            watched.is_complete = true;
        }
    }

    /// The client was told how the call ended, at a node that slept until `slept_until_ms`.
    pub(super) fn end(&mut self, call: CallId, end: &CallEnd, now: u64, slept_until_ms: u64) {
        let outcome = end.failure.as_ref().map(|failure| failure.outcome);
        let count = match outcome {
            None => &mut self.counts.answered,
            Some(Outcome::NotStarted) => &mut self.counts.not_started,
            Some(Outcome::Unknown) => &mut self.counts.unknown,
            Some(Outcome::Done) => &mut self.counts.done,
        };
        *count += 1;
        let Some(watched) = self.calls.get_mut(&call) else { return };
        watched.was_told_not_started = outcome == Some(Outcome::NotStarted);
        (watched.end.ended_ms, watched.end.is_answered) = (Some(now), outcome.is_none());
        let is_first = std::mem::replace(&mut watched.is_waited_for, false);
        let is_true = match outcome {
            None | Some(Outcome::Done) => watched.is_complete,
            Some(Outcome::NotStarted) => watched.begun == 0,
            // It claims nothing.
            Some(Outcome::Unknown) => true,
        };
        // Who slept through a deadline can tell only after waking.
        let (begun, offers, due) =
            (watched.begun, watched.offers, watched.deadline_ms.max(slept_until_ms) + SLACK_MS);
        let is_complete = watched.is_complete;
        if !is_true {
            let detail = format!("{call} ended with {end:?}: begun {begun} times, complete: {is_complete}");
            self.fail(Check::CallClaims, detail);
        }
        if end.attempts != offers {
            self.fail(Check::CallClaims, format!("{call} was offered {offers} times, and said {end:?}"));
        }
        if now > due || !is_first {
            self.fail(Check::CallEnds, format!("{call} ended at {now} ms, due at {due} ms: {end:?}"));
        }
    }

    pub(super) fn give_up(&mut self, call: CallId) {
        if let Some(watched) = self.calls.get_mut(&call).filter(|watched| watched.is_waited_for) {
            watched.is_waited_for = false;
            self.counts.unheard += 1;
        }
    }

    /// A node stopped, and its clients with it.
    pub(super) fn forget_caller(&mut self, at: usize) {
        let waiting = self.calls.values_mut().filter(|watched| watched.caller == at && watched.is_waited_for);
        for watched in waiting {
            watched.is_waited_for = false;
            self.counts.unheard += 1;
        }
    }

    /// Nodes sleep; `slept_until` tells until when at most.
    pub(super) fn check_overdue(&mut self, now: u64, slept_until: impl Fn(usize) -> u64) {
        let overdue = self.calls.iter().find(|(_, watched)| {
            let due = watched.deadline_ms.max(slept_until(watched.caller)) + SLACK_MS;
            watched.is_waited_for && now > due
        });
        if let Some((call, watched)) = overdue {
            let detail = format!("{call} has no end at {now} ms, due at {} ms", watched.deadline_ms);
            self.fail(Check::CallEnds, detail);
        }
    }

    pub(super) fn fail(&mut self, check: Check, detail: String) {
        self.broken.get_or_insert((check, detail));
    }

    /// Ends the run if a promise is broken.
    pub(super) fn report(&mut self, kernel: &mut Kernel) {
        if let Some((check, detail)) = self.broken.take() {
            kernel.fail(check, detail);
        }
    }
}
