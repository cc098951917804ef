//! Agents at work in the simulated world, and the queues before them. Read side by side with the live ones in `agents`.

use std::time::Duration;

use rand::RngExt;

use super::{CallConditions, CallWorld, HostTraits, Toward, What};
use crate::proto::call::{
    CallFailure, CallId, CallReply, InboundStream, Input, Outcome, Progress, Queue, Turn, Word,
};
use crate::proto::code::Code;
use crate::proto::identity::AgentId;
use crate::sim::fabric::Fabric;

/// Share of agents that report progress.
const REPORTING: f64 = 0.3;

/// A call that wants a place of an agent, or has one.
pub(super) struct Placed {
    pub(super) agent: AgentId,
    /// Until when it may work.
    pub(super) deadline: Duration,
    call: CallId,
    is_at_work: bool,
}

impl CallWorld {
    /// A call of another node wants to be worked on.
    pub(super) fn want_place(
        &mut self,
        at: usize,
        stream: InboundStream,
        agent: AgentId,
        fabric: &mut Fabric,
    ) {
        let Some(conditions) = self.conditions else { return };
        let queue = || Queue::new(conditions.places, conditions.queue_max);
        self.nodes[at].queues.entry(agent).or_insert_with(queue);
        let Some(call) = self.streams.call(stream) else { return };
        let placed = Placed { agent, deadline: Duration::ZERO, call, is_at_work: false };
        self.nodes[at].placed.insert(stream, placed);
        let caller = self.streams.open_end(stream, Toward::Host).map(|(_, caller)| fabric.nodes[caller].key);
        let offered = self.with_queue(at, agent, fabric, |queue, now| {
            let before = queue.waiting();
            // The first that waits has nobody ahead.
            let offered = queue.offer(now, caller, 0, stream, false);
            offered.map(|ahead| (ahead, ahead > 0 || queue.waiting() > before))
        });
        match offered {
            Some(Ok((_, false))) | None => {}
            Some(Ok((ahead, true))) => self.tell(at, Input::Waits { stream, ahead }, fabric),
            Some(Err(full)) => self.take_turn(at, Turn::Leave(stream, full), fabric),
        }
    }

    /// Lets the queue of an agent do something; what follows is taken up right after what happens now.
    pub(super) fn with_queue<R>(
        &mut self,
        at: usize,
        agent: AgentId,
        fabric: &mut Fabric,
        act: impl FnOnce(&mut Queue<InboundStream>, Duration) -> R,
    ) -> Option<R> {
        let now = self.clock(at, fabric.kernel.now());
        let queue = self.nodes[at].queues.get_mut(&agent)?;
        let done = act(queue, now);
        let turns: Vec<_> = std::iter::from_fn(|| queue.poll()).collect();
        for turn in turns {
            self.schedule(0, at, What::Turn(turn), fabric);
        }
        Some(done)
    }

    pub(super) fn take_turn(&mut self, at: usize, turn: Turn<InboundStream>, fabric: &mut Fabric) {
        let Some(conditions) = self.conditions else { return };
        match turn {
            Turn::Load(stream) => self.tell(at, Input::Placed { stream }, fabric),
            Turn::Run(stream) => {
                if let Some(placed) = self.nodes[at].placed.get_mut(&stream) {
                    placed.is_at_work = true;
                    let deadline = placed.deadline;
                    self.run_agent(at, stream, deadline, &conditions, fabric);
                }
            }
            Turn::Leave(stream, full) => {
                self.nodes[at].placed.remove(&stream);
                let failure = CallFailure::new(Code::Busy, Outcome::NotStarted, "the queue is full");
                let failure = failure.with_retry(full.retry_after);
                self.tell(at, Input::NotPlaced { stream, failure }, fabric);
            }
        }
    }

    /// A call whose input is here has not begun by its deadline.
    pub(super) fn end_overdue(&mut self, at: usize, stream: InboundStream, fabric: &mut Fabric) {
        if self.nodes[at].placed.get(&stream).is_some_and(|placed| !placed.is_at_work) {
            self.leave_queue(at, stream, fabric);
            let failure = CallFailure::new(Code::Deadline, Outcome::NotStarted, "no place in time");
            self.tell(at, Input::WorkEnded { stream, ended: Err(failure) }, fabric);
        }
    }

    /// The call's place is free.
    pub(super) fn leave_queue(&mut self, at: usize, stream: InboundStream, fabric: &mut Fabric) {
        if let Some(Placed { agent, .. }) = self.nodes[at].placed.remove(&stream) {
            self.with_queue(at, agent, fabric, |queue, now| queue.leave(now, stream));
        }
    }

    /// An agent works for a while.
    pub(super) fn run_agent(
        &mut self,
        at: usize,
        stream: InboundStream,
        deadline: Duration,
        conditions: &CallConditions,
        fabric: &mut Fabric,
    ) {
        let Some(call) = self.nodes[at].placed.get(&stream).map(|placed| placed.call) else { return };
        let left = deadline.saturating_sub(self.clock(at, fabric.kernel.now())).as_millis() as u64;
        let failed = |code, outcome| Err(CallFailure::new(code, outcome, "drawn"));
        let (takes, ended) = {
            fabric.kernel.trace.call(fabric.kernel.clock.now(), at, 3, &call.0);
            self.law.begin(call, fabric.kernel.now());
            let HostTraits { speed, fails_at_once } = self.nodes[at].traits;
            let drawn = conditions.work.draw(&mut self.rng);
            // Drawn only where it matters, so that worlds without such hosts stay as they are.
            let fails_now = fails_at_once > 0.0 && self.rng.random_bool(fails_at_once);
            let takes = if fails_now { 1 } else { (drawn as f64 / speed) as u64 };
            self.law.note_work(call, if fails_now { 0 } else { drawn });
            match takes {
                // The deadline ends the work wherever it was: nobody can say how much is done.
                takes if takes >= left => (left, failed(Code::Deadline, Outcome::Unknown)),
                takes if fails_now || self.rng.random_bool(conditions.fails) => {
                    (takes, failed(Code::AgentFailed, Outcome::Done))
                }
                takes => (takes, Ok(self.rng.random_range(0..10_000))),
            }
        };
        self.schedule(takes, at, What::WorkEnds(stream, ended), fabric);
        if self.rng.random_bool(REPORTING) {
            let progress = Progress { progress: 0.5, total: Some(1.0), message: None };
            self.reply(stream, CallReply::Progress(progress), fabric);
        }
    }

    /// The input of a call is here.
    pub(super) fn ready(
        &mut self,
        at: usize,
        stream: InboundStream,
        deadline: Duration,
        fabric: &mut Fabric,
    ) {
        let left = deadline.saturating_sub(self.clock(at, fabric.kernel.now()));
        if let Some(placed) = self.nodes[at].placed.get_mut(&stream) {
            placed.deadline = deadline;
            let agent = placed.agent;
            self.with_queue(at, agent, fabric, |queue, now| queue.input(now, stream));
            self.schedule(left.as_millis() as u64, at, What::Overdue(stream), fabric);
        }
    }

    /// Work that was stopped does not end.
    pub(super) fn end_work(
        &mut self,
        at: usize,
        stream: InboundStream,
        ended: Result<usize, CallFailure>,
        fabric: &mut Fabric,
    ) {
        let Some(Placed { agent, call, .. }) = self.nodes[at].placed.remove(&stream) else { return };
        // What the deadline cut off did not come to an end of its own.
        if ended.as_ref().map_or_else(|failure| failure.outcome == Outcome::Done, |_| true) {
            self.law.complete(call);
        }
        let has_failed = ended.as_ref().err().map(|failure| failure.code == Code::AgentFailed);
        self.with_queue(at, agent, fabric, |queue, now| {
            // What the deadline cut off says nothing of the agent.
            if has_failed != Some(false) {
                queue.note_run(now, has_failed == Some(true));
            }
            queue.ended(now, stream);
        });
        self.tell(at, Input::WorkEnded { stream, ended }, fabric);
    }
}

/// What the host of an agent says of its load to the call of a stream, which is given a place or waits.
pub(super) fn word(
    world: &mut CallWorld,
    at: usize,
    (stream, has_place): (InboundStream, bool),
    fabric: &mut Fabric,
) -> Word {
    let agent = world.nodes[at].placed.get(&stream).map(|placed| placed.agent);
    let said = |agent| world.with_queue(at, agent, fabric, |queue, now| queue.word(now, has_place));
    agent.and_then(said).unwrap_or_default()
}
