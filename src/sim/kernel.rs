//! The kernel of a world: its clock, what is due, its one source of randomness, and what is noted of the run.
//!
//! Events are ordered by time and, within a millisecond, by when they were planned. Whoever draws draws from here, so the
//! order of events decides the order of draws and a run is a function of its seed.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::checkers::{Check, Violation};
use super::clock::WorldClock;
use super::event_log::EventLog;
use super::metrics::RunMetrics;
use super::queue::{Due, Queue};
use super::trace::TraceHash;

/// Clock, queue and randomness of a run, and its notes.
pub(super) struct Kernel {
    seed: u64,
    pub(super) rng: ChaCha8Rng,
    pub(super) clock: WorldClock,
    queue: Queue,
    steps: u64,
    /// Steps before the present millisecond.
    steps_before: u64,
    pub(super) trace: TraceHash,
    pub(super) log: EventLog,
    pub(super) metrics: RunMetrics,
    violation: Option<Violation>,
}

impl Kernel {
    pub(super) fn new(seed: u64, nodes: usize) -> Kernel {
        Kernel {
            seed,
            rng: ChaCha8Rng::seed_from_u64(seed),
            clock: WorldClock::default(),
            queue: Queue::default(),
            steps: 0,
            steps_before: 0,
            trace: TraceHash::default(),
            log: EventLog::default(),
            metrics: RunMetrics::new(nodes),
            violation: None,
        }
    }

    /// Virtual milliseconds since the start.
    pub(super) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// True wall time, milliseconds.
    pub(super) fn wall(&self) -> u64 {
        self.clock.wall()
    }

    /// Events so far.
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    pub(super) fn schedule(&mut self, in_ms: u64, due: Due) {
        self.queue.push(self.now() + in_ms, due);
    }

    /// The next thing that is due by `until`; it is then that time. None once a promise is broken. More than `steps_a_ms`
    /// events of one millisecond are a loop.
    pub(super) fn next(&mut self, until: u64, steps_a_ms: u64) -> Option<Due> {
        if self.violation.is_some() {
            return None;
        }
        let (at, due) = self.queue.pop(until)?;
        // Steps are counted anew in each millisecond: a loop is many of them without time passing.
        if at > self.now() {
            self.steps_before = self.steps;
        }
        self.clock.advance(at);
        self.steps += 1;
        if self.steps - self.steps_before > steps_a_ms {
            self.fail(Check::QueuesBounded, "a millisecond does not end".into());
        }
        Some(due)
    }

    /// Messages that have not reached the end of their link.
    pub(super) fn in_flight(&self) -> u64 {
        // Counted anew each time: a counter kept beside the others could be wrong as they are.
        self.queue.iter().filter(|due| matches!(due, Due::Arrive { .. })).count() as u64
    }

    /// Whether something of this probability happens. What never happens draws nothing.
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.random_bool(probability)
    }

    /// A promise is broken; the first one ends the run.
    pub(super) fn fail(&mut self, check: Check, detail: String) {
        // What breaks later mostly follows from it.
        // What breaks later is mostly a consequence of what broke first.
        if self.violation.is_none() {
            self.violation = Some(Violation { check, seed: self.seed, at_ms: self.now(), detail });
        }
    }

    pub(super) fn violated(&self) -> Result<(), Violation> {
        self.violation.clone().map_or(Ok(()), Err)
    }
}
