//! The places of one agent, the queue before them and how its runs ended, in tokio's time; no call waits beyond its deadline.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::rate_limit::RateLimit;
use super::state::{AgentEvent, AgentState};
use crate::document::run_config::Rate;
use crate::proto::call::{CallFailure, Full, Load, Outcome, Queue, Turn, Word};
use crate::proto::code::Code;
use crate::proto::identity::PeerKey;

/// What a call is told at most: that its input may come, and that it begins.
const TURNS_MAX: usize = 2;

/// What a call is told that waited in a queue which was cleared.
const CLEARED: &str =
    "the operator of the agent's host ended all calls that waited for it; nothing was begun";
/// What a call is told that waited for an agent which was paused and has another file now.
const REMOVED: &str = "the agent was changed while it was paused and the call waited; nothing was begun";

/// Queue and state of one agent.
pub(super) struct ConcurrencyLimiter {
    queued: Mutex<Queued>,
    /// The queue's clock counts from here.
    started: Instant,
    life: Mutex<Life>,
}

/// What an agent that runs here has to do, and how its runs ended since it has been run with its present settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueState {
    /// Calls with a place.
    pub running: usize,
    /// Calls that wait for one.
    pub queued: usize,
    /// Calls at once.
    pub places: usize,
    /// Whether no call is begun until the operator resumes it.
    pub is_paused: bool,
    /// What a call takes in the mean; none before the first has ended.
    pub mean_work: Option<Duration>,
    /// Runs that failed through the agent, whoever called: in a row, or since it is held to fail.
    pub failing: u32,
    /// Runs that succeeded.
    pub completed: u64,
    /// Runs that failed through the agent.
    pub failed: u64,
}

struct Queued {
    queue: Queue<u64>,
    rate: Option<RateLimit>,
    /// Of each ticket.
    mailboxes: BTreeMap<u64, mpsc::Sender<Turn<u64>>>,
    numbered: u64,
}

struct Life {
    state: AgentState,
    completed: u64,
    failed: u64,
}

/// A place of an agent, or the wait for one. Dropping it gives it up.
pub(super) struct Ticket {
    limiter: Arc<ConcurrencyLimiter>,
    caller: Option<PeerKey>,
    number: u64,
    turns: mpsc::Receiver<Turn<u64>>,
    /// How many calls waited before it.
    pub(super) ahead: usize,
    has_input: bool,
    has_begun: bool,
    /// It was, before anybody waited for its place.
    turned_away: Option<Full>,
}

impl ConcurrencyLimiter {
    /// `count` calls at work and a queue of `waiting_max`, of an agent that is offered and may be called.
    pub(super) fn new(count: usize, waiting_max: usize, rate: Option<Rate>) -> ConcurrencyLimiter {
        let state = AgentState::Init.after(AgentEvent::Registration).after(AgentEvent::Start);
        let (queue, rate) = (Queue::new(count, waiting_max), rate.map(RateLimit::new));
        ConcurrencyLimiter {
            queued: Mutex::new(Queued { queue, rate, mailboxes: BTreeMap::new(), numbered: 0 }),
            started: Instant::now(),
            life: Mutex::new(Life { state, completed: 0, failed: 0 }),
        }
    }

    /// Takes a place, or one in the queue, for a call of a peer or of a client of this node, whose input `is_here` or is drawn
    /// when it has a place.
    pub(super) fn ask(
        self: &Arc<Self>,
        caller: Option<PeerKey>,
        priority: i8,
        is_here: bool,
    ) -> Result<Ticket, CallFailure> {
        let (mailbox, turns) = mpsc::channel(TURNS_MAX);
        let (number, offered) = self.with(|queued, now| {
            if let Some(rate) = &mut queued.rate {
                rate.take(now, caller).map_err(too_often)?;
            }
            queued.numbered += 1;
            let number = queued.numbered;
            queued.mailboxes.insert(number, mailbox);
            Ok((number, queued.queue.offer(now, caller, priority, number, is_here)))
        })?;
        // Without a place, too: dropping it takes its mailbox away.
        let (limiter, has_input) = (self.clone(), is_here);
        let ticket = |ahead| Ticket {
            limiter,
            caller,
            number,
            turns,
            ahead,
            has_input,
            has_begun: false,
            turned_away: None,
        };
        match offered {
            Ok(ahead) => Ok(ticket(ahead)),
            Err(full) => {
                drop(ticket(0));
                Err(turned_away(full))
            }
        }
    }

    /// Lets the queue do something, and tells everybody whose turn it is.
    fn with<R>(&self, act: impl FnOnce(&mut Queued, Duration) -> R) -> R {
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

    /// Begins no call until [`ConcurrencyLimiter::resume`]; what has a place comes to its end.
    pub(super) fn pause(&self) {
        self.with(|queued, _| queued.queue.pause());
    }

    /// Begins calls again.
    pub(super) fn resume(&self) {
        self.with(|queued, now| queued.queue.resume(now));
    }

    /// Ends all calls that wait for a place; how many.
    pub(super) fn clear(&self) -> usize {
        self.with(|queued, _| {
            let cleared = queued.queue.clear();
            // Who waits sees the other end go.
            cleared.iter().for_each(|number| drop(queued.mailboxes.remove(number)));
            cleared.len()
        })
    }

    /// What there is to do and how runs ended.
    pub(super) fn queue_state(&self) -> QueueState {
        let Load { places, running, waiting, mean_work, is_paused, failing } =
            self.queued.lock().unwrap_or_else(PoisonError::into_inner).queue.load();
        let life = self.life();
        let (completed, failed) = (life.completed, life.failed);
        QueueState { running, queued: waiting, places, is_paused, mean_work, failing, completed, failed }
    }

    /// Whether a call that comes now waits.
    pub(super) fn is_busy(&self) -> bool {
        self.queued.lock().unwrap_or_else(PoisonError::into_inner).queue.is_busy()
    }

    /// What is said of the load.
    pub(super) fn word(&self, has_place: bool) -> Word {
        self.with(|queued, now| queued.queue.word(now, has_place))
    }

    /// Takes note of how a run ended.
    pub(super) fn note_run(&self, has_failed: bool) {
        self.note(if has_failed { AgentEvent::Failure } else { AgentEvent::Completion });
        self.with(|queued, now| queued.queue.note_run(now, has_failed));
    }

    /// Takes note of what happened.
    pub(super) fn note(&self, event: AgentEvent) {
        let mut life = self.life();
        life.state = life.state.after(event);
        match event {
            AgentEvent::Completion => life.completed += 1,
            AgentEvent::Failure => life.failed += 1,
            _ => {}
        }
    }

    /// Where the agent is in its life.
    pub(super) fn state(&self) -> AgentState {
        self.life().state
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
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
            // The queue keeps the other end as long as there is this ticket, unless it is cleared.
            None => {
                let is_removed = self.limiter.state() == AgentState::Terminated;
                let (code, why) = if is_removed { (Code::Busy, REMOVED) } else { (Code::Cancelled, CLEARED) };
                Err(CallFailure::new(code, Outcome::NotStarted, why))
            }
        }
    }

    /// The input is here: waits until the call may begin.
    pub(super) async fn begin(&mut self, deadline: Instant) -> Result<(), CallFailure> {
        if !std::mem::replace(&mut self.has_input, true) {
            let number = self.number;
            self.limiter.with(|queued, now| queued.queue.input(now, number));
        }
        if !self.is_placed() {
            timeout_at(deadline, self.placed()).await.unwrap_or_else(|_| {
                let message = "the call waited for a free place of the agent until its deadline";
                Err(CallFailure::new(Code::Deadline, Outcome::NotStarted, message))
            })?;
        }
        self.has_begun = true;
        Ok(())
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
            if let Some(rate) = queued.rate.as_mut().filter(|_| !self.has_begun) {
                rate.give_back(self.caller);
            }
        });
    }
}

fn too_often(wait: Duration) -> CallFailure {
    let message = format!(
        "this caller has made as many calls as the agent's `rate_limit` lets it; try again in {:.1} s",
        wait.as_secs_f64().max(0.1)
    );
    CallFailure::new(Code::RateLimited, Outcome::NotStarted, message).with_retry(wait)
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
        let limiter = Arc::new(ConcurrencyLimiter::new(1, 2, None));
        let [first, other] = [1, 2].map(|number| Some(PeerKey([number; 32])));
        let mut at_work = limiter.ask(None, 0, true).unwrap();
        assert!(at_work.is_placed());
        let [mut waits, mut late] = [0; 2].map(|_| limiter.ask(first, 0, false).unwrap());
        let newcomer = limiter.ask(other, 0, false).unwrap();
        assert!(!late.is_placed() && !waits.is_placed());
        assert_eq!(late.placed().await.unwrap_err().code, Code::Busy);
        assert!(limiter.ask(first, 0, false).is_err(), "two wait");
        drop(newcomer);
        drop(at_work);
        waits.placed().await.unwrap();
        waits.begin(Instant::now() + Duration::from_secs(10)).await.unwrap();
        waits.end();
        assert!(!limiter.is_busy());
    }

    #[tokio::test]
    async fn a_cleared_queue_tells_who_waits_and_keeps_who_works() {
        let limiter = Arc::new(ConcurrencyLimiter::new(1, 10, None));
        let mut at_work = limiter.ask(None, 0, true).unwrap();
        let (mut waits, mut peer) =
            (limiter.ask(None, 0, true).unwrap(), limiter.ask(Some(PeerKey([1; 32])), 0, false).unwrap());
        assert_eq!(limiter.clear(), 2);
        for ticket in [&mut waits, &mut peer] {
            let failure = ticket.placed().await.unwrap_err();
            assert_eq!((failure.code, failure.outcome), (Code::Cancelled, Outcome::NotStarted));
        }
        assert!(at_work.is_placed());
        assert_eq!((limiter.queue_state().running, limiter.queue_state().queued), (1, 0));
    }

    #[tokio::test]
    async fn a_call_that_never_began_takes_nothing_of_its_callers_rate() {
        let rate = Rate { count: 2, per: Duration::from_secs(3_600) };
        let limiter = Arc::new(ConcurrencyLimiter::new(1, 0, Some(rate)));
        let peer = Some(PeerKey([1; 32]));
        // Given up before it began, and turned away by a full queue.
        drop(limiter.ask(peer, 0, false).unwrap());
        let at_work = limiter.ask(None, 0, true).unwrap();
        assert_eq!(limiter.ask(peer, 0, false).err().map(|failure| failure.code), Some(Code::Busy));
        drop(at_work);
        for _ in 0..2 {
            let mut ticket = limiter.ask(peer, 0, true).unwrap();
            ticket.begin(Instant::now() + Duration::from_secs(10)).await.unwrap();
        }
        let refused = limiter.ask(peer, 0, true).err().unwrap();
        assert_eq!((refused.code, refused.outcome), (Code::RateLimited, Outcome::NotStarted));
        let wait = refused.retry_after_ms.unwrap();
        assert!((1_790_000..=1_800_000).contains(&wait), "{wait}");
        assert!(limiter.ask(None, 0, true).is_ok(), "others are not held to it");
    }

    #[test]
    fn runs_in_a_row_that_failed_are_counted_until_one_succeeds() {
        let limiter = ConcurrencyLimiter::new(1, 0, None);
        for has_failed in [false, true] {
            limiter.note_run(has_failed);
        }
        limiter.note(AgentEvent::Full);
        limiter.note_run(true);
        let state = limiter.queue_state();
        assert_eq!((state.failing, state.completed, state.failed), (2, 1, 2));
        limiter.note_run(false);
        let state = limiter.queue_state();
        assert_eq!((state.failing, state.completed, state.failed), (0, 2, 2));
    }
}
