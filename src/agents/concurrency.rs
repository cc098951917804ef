//! How many calls one agent runs at once and how many wait; no call waits beyond its deadline.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::state::{AgentEvent, AgentState};
use crate::proto::call::{CallFailure, Outcome};
use crate::proto::code::Code;

/// ConcurrencyLimiter, queue and state of one agent.
pub(super) struct ConcurrencyLimiter {
    free: Semaphore,
    waiting: AtomicUsize,
    waiting_max: usize,
    state: Mutex<AgentState>,
}

/// One call at work; makes room for the next when dropped.
pub(super) struct Permit<'a> {
    limiter: &'a ConcurrencyLimiter,
    permit: Option<SemaphorePermit<'a>>,
}

/// One call in the queue; leaves it when dropped.
struct QueueTicket<'a>(&'a AtomicUsize);

impl Drop for QueueTicket<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ConcurrencyLimiter {
    /// `count` calls at work and a queue of `waiting_max`, of an agent that is offered and may be called.
    pub(super) fn new(count: usize, waiting_max: usize) -> ConcurrencyLimiter {
        let state = AgentState::Init.after(AgentEvent::Registration).after(AgentEvent::Start);
        ConcurrencyLimiter {
            free: Semaphore::new(count),
            waiting: AtomicUsize::new(0),
            waiting_max,
            state: Mutex::new(state),
        }
    }

    /// Admits a call, which waits its turn if the queue has room.
    pub(super) async fn acquire(&self, deadline: Instant) -> Result<Permit<'_>, CallFailure> {
        if let Ok(permit) = self.free.try_acquire() {
            return Ok(self.taken(permit));
        }
        // Counted first and judged then: two that come at once cannot both take the last place of the queue.
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        // Before any return, so that who is turned away is taken off again.
        let _waiting = QueueTicket(&self.waiting);
        if before >= self.waiting_max {
            return Err(self.full());
        }
        match timeout_at(deadline, self.free.acquire()).await {
            Ok(Ok(permit)) => Ok(self.taken(permit)),
            // The semaphore is never closed; its end would be the end of the agent.
            Ok(Err(_)) => Err(CallFailure::new(Code::NotFound, Outcome::NotStarted, "the agent was removed")),
            Err(_) => Err(CallFailure::new(
                Code::Deadline,
                Outcome::NotStarted,
                "the call waited for a free place of the agent until its deadline",
            )),
        }
    }

    fn taken<'a>(&'a self, permit: SemaphorePermit<'a>) -> Permit<'a> {
        if self.free.available_permits() == 0 {
            self.note(AgentEvent::Full);
        }
        Permit { limiter: self, permit: Some(permit) }
    }

    fn full(&self) -> CallFailure {
        let message = format!(
            "all places of the agent are taken and its queue of {} is full; try again, or raise `max_concurrency` or \
             `max_queue`",
            self.waiting_max
        );
        CallFailure::new(Code::Busy, Outcome::NotStarted, message)
    }

    /// Takes note of what happened.
    pub(super) fn note(&self, event: AgentEvent) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *state = state.after(event);
    }

    /// Where the agent is in its life.
    pub(super) fn state(&self) -> AgentState {
        *self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        // Given back before it is counted; the field's own drop would come after this body.
        self.permit.take();
        if self.limiter.free.available_permits() > 0 {
            self.limiter.note(AgentEvent::Vacant);
        }
    }
}
