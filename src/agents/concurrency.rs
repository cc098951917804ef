//! The places of one agent and the queue before them, in tokio's time; no call waits beyond its deadline.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::state::{AgentEvent, AgentState};
use crate::proto::call::{CallFailure, Full, Outcome, Queue, Turn, Word};
use crate::proto::code::Code;
use crate::proto::identity::PeerKey;

/// What a call is told at most: that its input may come, and that it begins.
const TURNS_MAX: usize = 2;

/// Queue and state of one agent.
pub(super) struct ConcurrencyLimiter {
    queued: Mutex<Queued>,
    /// The queue's clock counts from here.
    started: Instant,
    state: Mutex<AgentState>,
}

struct Queued {
    queue: Queue<u64>,
    /// Of each ticket.
    mailboxes: BTreeMap<u64, mpsc::Sender<Turn<u64>>>,
    numbered: u64,
}

/// A place of an agent, or the wait for one. Dropping it gives it up.
pub(super) struct Ticket {
    limiter: Arc<ConcurrencyLimiter>,
    number: u64,
    turns: mpsc::Receiver<Turn<u64>>,
    /// How many calls waited before it.
    pub(super) ahead: usize,
    has_input: bool,
    /// It was, before anybody waited for its place.
    turned_away: Option<Full>,
}

impl ConcurrencyLimiter {
    /// `count` calls at work and a queue of `waiting_max`, of an agent that is offered and may be called.
    pub(super) fn new(count: usize, waiting_max: usize) -> ConcurrencyLimiter {
        let state = AgentState::Init.after(AgentEvent::Registration).after(AgentEvent::Start);
        let queue = Queue::new(count, waiting_max);
        ConcurrencyLimiter {
            queued: Mutex::new(Queued { queue, mailboxes: BTreeMap::new(), numbered: 0 }),
            started: Instant::now(),
            state: Mutex::new(state),
        }
    }

    /// Takes a place, or one in the queue, for a call of a peer or of a client of this node, whose input `is_here` or is drawn
    /// when it has a place.
    pub(super) fn ask(
        self: &Arc<Self>,
        caller: Option<PeerKey>,
        is_here: bool,
    ) -> Result<Ticket, CallFailure> {
        let (mailbox, turns) = mpsc::channel(TURNS_MAX);
        let (number, offered) = self.with(|queued, now| {
            queued.numbered += 1;
            queued.mailboxes.insert(queued.numbered, mailbox);
            (queued.numbered, queued.queue.offer(now, caller, queued.numbered, is_here))
        });
        // Without a place, too: dropping it takes its mailbox away.
        let limiter = self.clone();
        let ticket = |ahead| Ticket { limiter, number, turns, ahead, has_input: is_here, turned_away: None };
        match offered {
            Ok(ahead) => Ok(ticket(ahead)),
            Err(full) => {
                drop(ticket(0));
                Err(turned_away(full))
            }
        }
    }

    /// Lets the queue do something, and tells everybody whose turn it is.
    fn with<R>(&self, act: impl FnOnce(&mut Queued, std::time::Duration) -> R) -> R {
        let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        let done = act(&mut queued, self.started.elapsed());
        while let Some(turn) = queued.queue.poll() {
            let (Turn::Load(number) | Turn::Run(number) | Turn::Leave(number, _)) = turn;
            if let Some(mailbox) = queued.mailboxes.get(&number) {
                // Whoever has gone is about to give its place up.
                let _gone = mailbox.try_send(turn);
            }
        }
        self.note(if queued.queue.is_busy() { AgentEvent::Full } else { AgentEvent::Vacant });
        done
    }

    /// Whether all places are taken.
    pub(super) fn is_busy(&self) -> bool {
        self.queued.lock().unwrap_or_else(PoisonError::into_inner).queue.is_busy()
    }

    /// What is said of the load.
    pub(super) fn word(&self) -> Word {
        self.queued.lock().unwrap_or_else(PoisonError::into_inner).queue.word()
    }

    /// Takes note of what happened.
    pub(super) fn note(&self, event: AgentEvent) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.after(event);
    }

    /// Where the agent is in its life.
    pub(super) fn state(&self) -> AgentState {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Whether the call has a place by now.
    pub(super) fn is_placed(&mut self) -> bool {
        match self.turns.try_recv() {
            Ok(Turn::Load(_) | Turn::Run(_)) => true,
            Ok(Turn::Leave(_, full)) => {
                self.turned_away = Some(full);
                false
            }
            Err(_) => false,
        }
    }

    /// Waits for a place.
    pub(super) async fn placed(&mut self) -> Result<(), CallFailure> {
        if let Some(full) = self.turned_away {
            return Err(turned_away(full));
        }
        match self.turns.recv().await {
            Some(Turn::Load(_) | Turn::Run(_)) => Ok(()),
            Some(Turn::Leave(_, full)) => Err(turned_away(full)),
            // The queue keeps the other end as long as there is this ticket.
            None => Err(CallFailure::new(Code::Internal, Outcome::NotStarted, "the agent's queue is gone")),
        }
    }

    /// The input is here: waits until the call may begin.
    pub(super) async fn begin(&mut self, deadline: Instant) -> Result<(), CallFailure> {
        if !std::mem::replace(&mut self.has_input, true) {
            let number = self.number;
            self.limiter.with(|queued, now| queued.queue.input(now, number));
        }
        if self.is_placed() {
            return Ok(());
        }
        timeout_at(deadline, self.placed()).await.unwrap_or_else(|_| {
            let message = "the call waited for a free place of the agent until its deadline";
            Err(CallFailure::new(Code::Deadline, Outcome::NotStarted, message))
        })
    }

    /// The work has come to its end.
    pub(super) fn end(&self) {
        self.limiter.with(|queued, now| queued.queue.ended(now, self.number));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.limiter.with(|queued, now| {
            queued.mailboxes.remove(&self.number);
            queued.queue.leave(now, self.number);
        });
    }
}

fn turned_away(full: Full) -> CallFailure {
    let message = format!(
        "all places of the agent are taken and its queue is full; try again in {:.1} s, or raise `max_concurrency` or \
         `max_queue`",
        full.retry_after.as_secs_f64().max(0.1)
    );
    CallFailure::new(Code::Busy, Outcome::NotStarted, message).with_retry(full.retry_after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_turned_away_before_anybody_waits_hears_of_it_and_who_goes_makes_room() {
        let limiter = Arc::new(ConcurrencyLimiter::new(1, 2));
        let [first, other] = [1, 2].map(|number| Some(PeerKey([number; 32])));
        let mut at_work = limiter.ask(None, true).unwrap();
        assert!(at_work.is_placed());
        let (mut waits, mut late) = (limiter.ask(first, false).unwrap(), limiter.ask(first, false).unwrap());
        let newcomer = limiter.ask(other, false).unwrap();
        assert!(!late.is_placed() && !waits.is_placed());
        assert_eq!(late.placed().await.unwrap_err().code, Code::Busy);
        assert!(limiter.ask(first, false).is_err(), "two wait");
        drop(newcomer);
        drop(at_work);
        waits.placed().await.unwrap();
        waits.begin(Instant::now() + std::time::Duration::from_secs(10)).await.unwrap();
        waits.end();
        assert!(!limiter.is_busy());
    }
}
