//! The calls that this node makes: which host is asked, how often, and how long each step may take.
//!
//! A call goes from host to host until one accepts it: what was not accepted ran nothing, so it moves freely (`candidates`),
//! those that can be reached and have less to do first (`hosts`). Where it has to wait for a place it is offered to a second host
//! beside, and the first place wins. At each host it waits for one of the streams that may be open there, opens one, and offers
//! itself; a later offer to a host voids the one before, so a host that stood still does not run it later. Once an offer is
//! accepted there is no other: if its stream is lost the host is asked for the call on another. What may be said of the call is
//! decided by its [`Attempts`]. Whatever happens, it ends at its deadline.

mod legs;

use std::cmp::{max, min};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::attempts::{Attempts, Ran, Step, accept_patience};
use super::balance::rendezvous;
use super::budget::Budget;
use super::candidates::Candidates;
use super::host::transfer_time;
use super::hosts::Hosts;
use super::outbound::{
    Leg, Lost, OutboundCall, Stage, circuit_open, is_of_the_agent, may_again, may_another, may_later,
};
use super::{CallEnd, CallFailure, CallId, CallReply, Loss, OutboundStream, Outcome, Output, Report, Wanted};
use crate::proto::code::Code;
use crate::proto::identity::PeerKey;
use crate::proto::limits::{
    CALL_ACCEPT_PATIENCE_MAX, CALL_ATTACH_AFTER_SILENCE, CALL_ATTACH_KEPT, CALL_FAILING_PAUSES,
    CALL_REOPEN_MS, CALL_REPEAT_PAUSE, CALL_REPEAT_PAUSE_MAX, CALL_SILENCE_MAX, CALLS_MADE_MAX,
};

type Outputs = VecDeque<Output>;

/// The calls that a node makes, and the hosts they are for.
#[derive(Debug)]
pub(super) struct Caller {
    rng: ChaCha8Rng,
    /// At most [`CALLS_MADE_MAX`].
    calls: BTreeMap<CallId, OutboundCall>,
    hosts: Hosts,
    budget: Budget,
    /// When something is due for a call; one entry for each.
    timers: BTreeSet<(Duration, CallId)>,
}

impl Caller {
    pub(super) fn new(rng: ChaCha8Rng) -> Caller {
        let (calls, hosts, timers) = (BTreeMap::new(), Hosts::default(), BTreeSet::new());
        Caller { rng, calls, hosts, budget: Budget::new(), timers }
    }

    /// See [`Hosts::all_unreached`].
    pub(super) fn unreached(&self, now: Duration) -> impl Iterator<Item = PeerKey> {
        self.hosts.all_unreached(now)
    }

    pub(super) fn handle_call(&mut self, now: Duration, id: CallId, wanted: Wanted, outputs: &mut Outputs) {
        let refused = |code, message| {
            let failure = Some(CallFailure::new(code, Outcome::NotStarted, message));
            Output::Ended { call: id, end: CallEnd { host: None, attempts: 0, failure } }
        };
        if self.calls.len() >= CALLS_MADE_MAX {
            let message = "this node has as many calls under way as it keeps; try again in a moment";
            return outputs.push_back(refused(Code::Busy, message));
        }
        let (hosts, rng) = (&self.hosts, &mut self.rng);
        let conversation = wanted.context.conversation.as_ref();
        let turn = |host: &PeerKey| conversation.map(|conversation| rendezvous(conversation, host));
        let rank = |candidate: &_| hosts.rank(now, candidate, &wanted.agent, wanted.balance);
        let found = Candidates::of(&wanted.replicas, || rng.random(), turn, rank);
        let Some(candidates) = found else {
            return outputs.push_back(refused(Code::NotFound, "no host runs this agent any more"));
        };
        self.budget.call();
        let was_paused = self.hosts.paused_until(now, candidates.hosts()).is_some_and(|until| until > now);
        let sent = wanted.sent;
        // A timer from the first moment on: a call that waits for a stream ends at its deadline, too.
        let timer = wanted.deadline;
        let call = OutboundCall {
            wanted,
            candidates,
            attempts: sent.map_or(Attempts::new(id), |(host, run)| Attempts::sent(id, host, run)),
            legs: Vec::new(),
            streams: 0,
            repeats: 0,
            repeats_at: None,
            why: "the host took no stream in time".into(),
            refusal: None,
            was_paused,
            timer,
        };
        self.timers.insert((timer, id));
        self.calls.insert(id, call);
        match sent {
            Some((host, _)) => self.ask_again_for(now, id, host, outputs),
            None => self.go_on(now, id, outputs),
        }
    }

    /// A call that this node made in an earlier run: its host is asked for it.
    fn ask_again_for(&mut self, now: Duration, id: CallId, host: PeerKey, outputs: &mut Outputs) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        match call.candidates.position(&host) {
            Some(at) => {
                let lost = Some(Lost { until: call.wanted.deadline, failures: 0 });
                call.legs.push(Leg { lost, ..Leg::new(at) });
                call.candidates.get_mut(at).is_asked = true;
                self.visit(now, id, 0, outputs);
            }
            // The driver names it among the replicas; without it nobody can say what became of the call.
            None => {
                let failure =
                    call.attempts.lose(Code::Unreachable, "the host of the call is not known any more");
                self.end(now, id, None, Some(failure), outputs);
            }
        }
    }

    pub(super) fn handle_give_up(&mut self, now: Duration, id: CallId, outputs: &mut Outputs) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if let Some(leg) = call.legs.iter_mut().find(|leg| leg.stage.is_accepted()) {
            outputs.push_back(Output::Cancel(OutboundStream { call: id, number: leg.stream }));
            leg.stream = 0;
        }
        self.remove(now, id, outputs);
    }

    pub(super) fn handle_opened(&mut self, now: Duration, stream: OutboundStream, outputs: &mut Outputs) {
        let Some(call) = self.calls.get_mut(&stream.call) else { return };
        let Some(leg) = call.leg_of(stream) else { return };
        let Stage::Opening { since, .. } = call.legs[leg].stage else { return };
        if let Some(lost) = call.legs[leg].lost {
            let Some(attach) = call.attempts.attach() else { return };
            let until = min(now + CALL_ACCEPT_PATIENCE_MAX, lost.until);
            call.legs[leg].stage = Stage::Accepted { since, until };
            outputs.push_back(Output::Attach { stream, attach });
            return self.set_timer(stream.call);
        }
        let (opening, candidate) = (now.saturating_sub(since), call.candidates.get(call.legs[leg].at));
        let until = if call.candidates.is_thorough {
            now + accept_patience(opening, candidate.unanswered)
        } else {
            // What is far has as long as its stream took, though others wait to be asked.
            max(since + self.hosts.patience(&candidate.host()), now + opening)
        };
        // The time left is reckoned when the offer leaves: the opening may have taken seconds of it.
        let left = call.wanted.deadline.saturating_sub(now);
        let offer = call.attempts.offer(candidate.host(), &call.wanted, left);
        call.legs[leg].stage = Stage::Offered { since: now, until };
        outputs.push_back(Output::Offer { stream, offer });
        self.set_timer(stream.call);
    }

    /// A host that cannot be dialed is looked for once, when others did not take the call.
    pub(super) fn handle_not_opened(
        &mut self,
        now: Duration,
        stream: OutboundStream,
        why: &str,
        outputs: &mut Outputs,
    ) {
        let Some(call) = self.calls.get_mut(&stream.call) else { return };
        let Some(leg) = call.leg_of(stream) else { return };
        if !matches!(call.legs[leg].stage, Stage::Opening { .. }) {
            return;
        }
        call.why = format!("the host cannot be reached: {why}");
        // There is nothing to close.
        call.legs[leg].stream = 0;
        let host = call.host(leg);
        self.hosts.unreached(now, &host);
        if call.legs[leg].lost.is_some() {
            outputs.push_back(Output::LookFor { call: stream.call, host });
            return self.make_up_for(now, stream.call, leg, outputs);
        }
        let is_thorough = call.candidates.is_thorough;
        call.candidates.get_mut(call.legs[leg].at).note_not_opened();
        if !is_thorough {
            outputs.push_back(Output::LookFor { call: stream.call, host });
        }
        self.leave(now, stream.call, leg, outputs);
        self.go_on(now, stream.call, outputs);
    }

    pub(super) fn handle_searched(&mut self, now: Duration, id: CallId, outputs: &mut Outputs) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let searching = call.legs.iter().position(|leg| matches!(leg.stage, Stage::Searching { .. }));
        if let Some(leg) = searching {
            call.candidates.get_mut(call.legs[leg].at).note_searched();
            self.visit(now, id, leg, outputs);
        }
    }

    pub(super) fn handle_reply(
        &mut self,
        now: Duration,
        stream: OutboundStream,
        reply: CallReply,
        outputs: &mut Outputs,
    ) {
        let id = stream.call;
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some(leg) = call.leg_of(stream) else { return };
        let (host, agent) = (call.host(leg), call.wanted.agent);
        match &mut call.legs[leg].stage {
            Stage::Offered { since, .. } => self.hosts.reached(&host, now.saturating_sub(*since)),
            // Whoever speaks is there.
            Stage::Waiting { until } | Stage::Accepted { until, .. } => *until = now + CALL_SILENCE_MAX,
            _ => return,
        }
        call.legs[leg].lost = None;
        if let CallReply::Queued { word, .. } | CallReply::Accepted { word, .. } = reply {
            self.hosts.heard(now, &host, &agent, word);
        }
        let fails = matches!(reply, CallReply::Accepted { word, .. } if u32::from(word.failing) >= CALL_FAILING_PAUSES);
        if fails && self.may_decline(now, id, leg) {
            self.leave(now, id, leg, outputs);
            return self.go_on(now, id, outputs);
        }
        let Some(call) = self.calls.get_mut(&id) else { return };
        match call.attempts.handle(host, reply) {
            Step::SendInput(incarnation) => {
                // Nothing is heard before all of it has left.
                let until = now + CALL_SILENCE_MAX + transfer_time(call.wanted.size);
                call.legs[leg].stage = Stage::Accepted { since: now, until };
                // The others before the input: of two places only one is ever used.
                self.leave_others(now, id, stream, outputs);
                outputs.push_back(Output::Report { call: id, report: Report::Working { host } });
                outputs.push_back(Output::SendInput { stream, host, incarnation });
            }
            Step::Listen => outputs.push_back(Output::Listen(stream)),
            Step::Wait(ahead) => {
                call.legs[leg].stage = Stage::Waiting { until: now + CALL_SILENCE_MAX };
                outputs.push_back(Output::Report { call: id, report: Report::Queued { ahead } });
                outputs.push_back(Output::Listen(stream));
                self.ask_beside(now, id, outputs);
            }
            Step::Report(report) => {
                outputs.push_back(Output::Report { call: id, report });
                outputs.push_back(Output::Listen(stream));
            }
            Step::TakeOutput(size) => {
                let since = call.legs[leg].stage.since(now);
                let until = now + CALL_SILENCE_MAX + transfer_time(size);
                call.legs[leg].stage = Stage::TakingOutput { since, until };
                outputs.push_back(Output::TakeOutput { stream, size });
            }
            Step::End(failure, ran) => {
                if call.legs[leg].stage.is_accepted() {
                    call.legs[leg].stream = 0;
                    outputs.push_back(Output::Taken(stream));
                }
                return self.fail(now, id, leg, (failure, ran), outputs);
            }
        }
        self.set_timer(id);
    }

    pub(super) fn handle_output_taken(
        &mut self,
        now: Duration,
        stream: OutboundStream,
        outputs: &mut Outputs,
    ) {
        let Some(call) = self.calls.get_mut(&stream.call) else { return };
        let Some(leg) = call.leg_of(stream) else { return };
        let Stage::TakingOutput { since, .. } = call.legs[leg].stage else { return };
        call.legs[leg].stream = 0;
        outputs.push_back(Output::Taken(stream));
        let (host, agent) = (call.host(leg), call.wanted.agent);
        self.hosts.ran(now, &host, &agent, now.saturating_sub(since), false);
        self.end(now, stream.call, Some(host), None, outputs);
    }

    /// A host's queue of new streams may hold one and drop the rest without a word: a stream that closes before any answer
    /// was not seen by the host, and another is opened, to another host where there is one.
    pub(super) fn handle_lost(
        &mut self,
        now: Duration,
        stream: OutboundStream,
        loss: Loss,
        outputs: &mut Outputs,
    ) {
        // Drawn first, because a call borrows all of the caller; a draw in vain harms no replay.
        let pause = Duration::from_millis(self.rng.random_range(CALL_REOPEN_MS));
        let id = stream.call;
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some(leg) = call.leg_of(stream) else { return };
        let stage = call.legs[leg].stage;
        match (stage, loss) {
            // That a stream was closed after its last call says nothing of this one, nor of the host.
            (Stage::Offered { .. }, Loss::Stale) => self.open(now, id, leg, outputs),
            (Stage::Offered { .. } | Stage::Waiting { .. }, Loss::Closed(why)) => {
                call.why = format!("the host serves no call stream: {why}");
                if call.candidates.is_thorough {
                    call.legs[leg].stage = Stage::Pausing { until: now + pause };
                    self.set_timer(id);
                } else {
                    self.leave(now, id, leg, outputs);
                    self.go_on(now, id, outputs);
                }
            }
            // A host in the middle of a frame may stand still as well as one that says nothing.
            (Stage::Offered { .. } | Stage::Waiting { .. }, Loss::TooSlow(_)) => {
                self.leave_unanswered(now, id, leg, outputs);
            }
            // A host that speaks nonsense is not asked again.
            (Stage::Offered { .. } | Stage::Waiting { .. }, loss)
            | (Stage::Accepted { .. } | Stage::TakingOutput { .. }, loss @ Loss::Violation(_)) => {
                let ran = Ran::of(stage.is_accepted());
                let failure = call.attempts.lose(loss.code(), format!("the call broke off: {loss}"));
                self.fail(now, id, leg, (failure, ran), outputs);
            }
            (Stage::Accepted { .. } | Stage::TakingOutput { .. }, loss) => {
                call.why = format!("the call broke off: {loss}");
                let host = call.host(leg);
                let patience = match loss {
                    _ if call.wanted.is_detached => call.wanted.deadline,
                    Loss::TooSlow(_) => now + CALL_ATTACH_AFTER_SILENCE,
                    _ => now + CALL_ATTACH_KEPT,
                };
                call.legs[leg].lost.get_or_insert(Lost { until: patience, failures: 0 });
                self.hosts.unreached(now, &host);
                self.make_up_for(now, id, leg, outputs);
            }
            // A stream that is not open yet, or not any more, has nothing to lose.
            (Stage::Queued | Stage::Opening { .. } | Stage::Searching { .. } | Stage::Pausing { .. }, _) => {}
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Duration, outputs: &mut Outputs) {
        // Each turn ends its call or moves its timer beyond `now`, so the loop comes to an end.
        while let Some((_, id)) = self.timers.first().copied().filter(|(due, _)| *due <= now) {
            self.handle_call_timeout(now, id, outputs);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.timers.first().map(|(due, _)| *due)
    }

    fn handle_call_timeout(&mut self, now: Duration, id: CallId, outputs: &mut Outputs) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        // Before the stages: no step may begin once the deadline has passed.
        if call.wanted.deadline <= now {
            let failure = call.attempts.lose(Code::Deadline, "the host did not answer before the deadline");
            let host = call.legs.first().map(|leg| call.candidates.get(leg.at).host());
            return self.end(now, id, host, Some(failure), outputs);
        }
        if call.repeats_at.take_if(|at| *at <= now).is_some() {
            return self.go_on(now, id, outputs);
        }
        let due = call.legs.iter().position(|leg| leg.stage.until().is_some_and(|until| until <= now));
        let Some(leg) = due else { return self.set_timer(id) };
        let stream = OutboundStream { call: id, number: call.legs[leg].stream };
        match call.legs[leg].stage {
            Stage::Opening { .. } => {
                let host = call.host(leg);
                self.hosts.slow_to_open(now, &host);
                if call.legs[leg].lost.is_some() {
                    return self.make_up_for(now, id, leg, outputs);
                }
                self.leave(now, id, leg, outputs);
                self.go_on(now, id, outputs);
            }
            Stage::Searching { .. } => self.handle_searched(now, id, outputs),
            Stage::Pausing { .. } if call.legs[leg].lost.is_some() => self.open(now, id, leg, outputs),
            Stage::Pausing { .. } if call.candidates.get(call.legs[leg].at).is_open(now) => {
                self.open(now, id, leg, outputs);
            }
            Stage::Pausing { .. } => {
                self.leave(now, id, leg, outputs);
                self.go_on(now, id, outputs);
            }
            Stage::Offered { .. } | Stage::Waiting { .. } => self.leave_unanswered(now, id, leg, outputs),
            Stage::Accepted { .. } | Stage::TakingOutput { .. } => {
                let loss = Loss::TooSlow("the host fell silent in the midst of the call".into());
                self.handle_lost(now, stream, loss, outputs);
            }
            // It has no timer but the deadline.
            Stage::Queued => {}
        }
    }

    /// A host said how its part of the call ended, or nobody can say it any more.
    fn fail(
        &mut self,
        now: Duration,
        id: CallId,
        leg: usize,
        (failure, ran): (CallFailure, Ran),
        outputs: &mut Outputs,
    ) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let (host, agent) = (call.host(leg), call.wanted.agent);
        if let Stage::Accepted { since, .. } = call.legs[leg].stage
            && is_of_the_agent(failure.code)
        {
            self.hosts.ran(now, &host, &agent, now.saturating_sub(since), true);
        }
        let is_free = ran == Ran::Nothing && may_another(&failure);
        let is_again = ran == Ran::Perhaps && call.wanted.repeats.is_idempotent && may_again(&failure);
        if !is_free && !is_again {
            return self.end(now, id, Some(host), Some(failure), outputs);
        }
        call.candidates.get_mut(call.legs[leg].at).has_refused = true;
        call.refusal = Some(failure);
        self.leave(now, id, leg, outputs);
        match is_again {
            true => self.repeat(now, id, outputs),
            false => self.go_on(now, id, outputs),
        }
    }

    /// Asks hosts anew, after a pause: those that had no place, and for a further run all of them.
    fn repeat(&mut self, now: Duration, id: CallId, outputs: &mut Outputs) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some(refusal) = call.refusal.as_ref() else { return };
        let (is_later, host_says) = (may_later(refusal), refusal.retry_after_ms.map(Duration::from_millis));
        let may = call.repeats < call.wanted.repeats.max;
        let longest = (CALL_REPEAT_PAUSE * 2u32.pow(call.repeats.min(16))).min(CALL_REPEAT_PAUSE_MAX);
        let drawn = longest.mul_f64(self.rng.random_range(0.0..1.0));
        let at = now + host_says.filter(|_| is_later).unwrap_or_default().max(drawn);
        if !may || at >= call.wanted.deadline || !self.budget.take() {
            return self.end_refused(now, id, outputs);
        }
        call.repeats += 1;
        call.candidates.begin_again();
        call.repeats_at = Some(at);
        self.set_timer(id);
    }

    /// No host takes the call.
    fn end_refused(&mut self, now: Duration, id: CallId, outputs: &mut Outputs) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        // What somebody said tells more than the silence of others.
        let refusal = call.refusal.take().unwrap_or_else(|| {
            let why = std::mem::take(&mut call.why);
            let failure = call.attempts.lose(Code::Unreachable, why);
            match self.hosts.paused_until(now, call.candidates.hosts()).filter(|_| call.was_paused) {
                Some(at) => circuit_open(failure, at.saturating_sub(now)),
                None => failure,
            }
        });
        let host = call.candidates.last_asked;
        self.end(now, id, host, Some(refusal), outputs);
    }

    fn end(
        &mut self,
        now: Duration,
        id: CallId,
        host: Option<PeerKey>,
        failure: Option<CallFailure>,
        outputs: &mut Outputs,
    ) {
        let Some(call) = self.calls.get(&id) else { return };
        let host = host.or(call.candidates.last_asked);
        let end = CallEnd { host, attempts: call.attempts.made(), failure };
        outputs.push_back(Output::Ended { call: id, end });
        self.remove(now, id, outputs);
    }

    /// Forgets a call.
    fn remove(&mut self, now: Duration, id: CallId, outputs: &mut Outputs) {
        while self.calls.get(&id).is_some_and(|call| !call.legs.is_empty()) {
            self.leave(now, id, 0, outputs);
        }
        if let Some(call) = self.calls.remove(&id) {
            self.timers.remove(&(call.timer, id));
        }
    }

    fn set_timer(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let due = call.due();
        if due != call.timer {
            self.timers.remove(&(call.timer, id));
            self.timers.insert((due, id));
            call.timer = due;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::call::{Calls, Incarnation, Input, Replica, Word};
    use crate::proto::identity::{AgentId, Identity};
    use crate::proto::limits::{
        CALL_ACCEPT_PATIENCE, CALL_OFFERS_MAX, CALL_SEARCH_TIME_MAX, CALLS_PER_AGENT_MAX,
    };
    use crate::proto::liveness::Presence;

    const NOW: Duration = Duration::from_secs(5);
    const DEADLINE: Duration = Duration::from_secs(65);

    fn key(seed: u8) -> PeerKey {
        Identity::from_seed([seed; 32]).key()
    }

    fn calls() -> Calls {
        Calls::new(7)
    }

    fn id(number: u32) -> CallId {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        CallId(id)
    }

    fn replica(seed: u8, presence: Presence) -> Replica {
        Replica { host: key(seed), presence, weight: 1 }
    }

    fn call(calls: &mut Calls, number: u32, replicas: &[(u8, Presence)]) -> Vec<Output> {
        call_of(calls, number, AgentId([0; 20]), replicas)
    }

    fn call_of(calls: &mut Calls, number: u32, agent: AgentId, replicas: &[(u8, Presence)]) -> Vec<Output> {
        let replicas = replicas.iter().map(|(seed, presence)| replica(*seed, *presence)).collect();
        let wanted = Wanted::new(agent, "a@.".parse().unwrap(), replicas, 3, DEADLINE);
        tell(calls, NOW, Input::Call { call: id(number), wanted })
    }

    fn tell(calls: &mut Calls, now: Duration, input: Input) -> Vec<Output> {
        calls.handle(now, input);
        outputs(calls)
    }

    fn outputs(calls: &mut Calls) -> Vec<Output> {
        std::iter::from_fn(|| calls.poll_output()).collect()
    }

    fn opened(outputs: &[Output]) -> (OutboundStream, PeerKey) {
        let [Output::Open { stream, host }] = outputs else { panic!("{outputs:?}") };
        (*stream, *host)
    }

    fn ended(outputs: &[Output]) -> (Code, Outcome, u32) {
        let end = outputs.iter().find_map(|output| match output {
            Output::Ended { end, .. } => Some(end),
            _ => None,
        });
        let end = end.unwrap_or_else(|| panic!("{outputs:?}"));
        let failure = end.failure.as_ref().unwrap();
        (failure.code, failure.outcome, end.attempts)
    }

    #[test]
    fn a_host_that_answers_is_asked_before_one_that_does_not() {
        use Presence::{Reachable, Unknown, Unreachable};
        for (replicas, asked) in [
            (&[(2, Unreachable), (3, Reachable), (4, Unreachable)][..], 3),
            (&[(2, Unreachable), (3, Unknown)], 3),
            (&[(2, Unreachable)], 2),
        ] {
            assert_eq!(opened(&call(&mut calls(), 1, replicas)).1, key(asked));
        }
        let nobody = ended(&call(&mut calls(), 1, &[]));
        assert_eq!(nobody, (Code::NotFound, Outcome::NotStarted, 0));
    }

    const FROZEN: [(u8, Presence); 3] =
        [(2, Presence::Reachable), (3, Presence::Reachable), (4, Presence::Reachable)];

    /// What comes of the next timer.
    fn wait(calls: &mut Calls) -> (Duration, Vec<Output>) {
        let due = calls.poll_timeout().unwrap();
        calls.handle_timeout(due);
        (due, outputs(calls))
    }

    fn open_of(outputs: &[Output]) -> (OutboundStream, PeerKey) {
        let open = outputs.iter().find_map(|output| match output {
            Output::Open { stream, host } => Some((*stream, *host)),
            _ => None,
        });
        open.unwrap_or_else(|| panic!("{outputs:?}"))
    }

    #[test]
    fn a_call_leaves_silent_hosts_quickly_for_others_and_later_calls_ask_them_last() {
        let mut calls = calls();
        let (first, stopped) = opened(&call(&mut calls, 1, &FROZEN));
        // The connection stands, and nobody reads from it.
        tell(&mut calls, NOW, Input::Opened(first));
        let (at, moved) = wait(&mut calls);
        assert_eq!((at, &moved[0]), (NOW + CALL_ACCEPT_PATIENCE, &Output::Close(first)));
        // The next takes no stream at all.
        let (second, silent) = open_of(&moved);
        let (at, moved) = wait(&mut calls);
        assert_eq!((at, &moved[0]), (NOW + 2 * CALL_ACCEPT_PATIENCE, &Output::Close(second)));
        let (third, alive) = open_of(&moved);
        assert_eq!(BTreeSet::from([stopped, silent, alive]).len(), 3);
        tell(&mut calls, at, Input::Opened(third));
        let accepted =
            CallReply::Accepted { incarnation: Incarnation(7), word: Word::default(), keeps: false };
        let sent = tell(&mut calls, at, Input::Reply { stream: third, reply: accepted });
        let working = Output::Report { call: third.call, report: Report::Working { host: alive } };
        let send = Output::SendInput { stream: third, host: alive, incarnation: Incarnation(7) };
        assert_eq!(sent, [working, send]);
        for number in 2..20 {
            let (stream, host) = opened(&call(&mut calls, number, &FROZEN));
            assert_eq!(host, alive, "the others pause, however much it has to do");
            tell(&mut calls, at, Input::GiveUp { call: stream.call });
        }
    }

    #[test]
    fn a_host_that_falls_silent_in_the_midst_of_a_call_leaves_it_in_doubt_and_one_that_speaks_keeps_it() {
        let mut calls = calls();
        let (stream, _) = opened(&call(&mut calls, 1, &FROZEN));
        tell(&mut calls, NOW, Input::Opened(stream));
        let accepted =
            CallReply::Accepted { incarnation: Incarnation(7), word: Word::default(), keeps: false };
        tell(&mut calls, NOW, Input::Reply { stream, reply: accepted });
        let mut now = NOW;
        for reply in [CallReply::Alive, CallReply::Other] {
            now += CALL_SILENCE_MAX - Duration::from_millis(1);
            calls.handle_timeout(now);
            assert_eq!(tell(&mut calls, now, Input::Reply { stream, reply }), [Output::Listen(stream)]);
        }
        // It is asked for the call on another stream, and given up when it takes none.
        now += CALL_SILENCE_MAX;
        calls.handle_timeout(now);
        let asked = outputs(&mut calls);
        assert_eq!(asked[0], Output::Close(stream));
        open_of(&asked);
        calls.handle_timeout(now + CALL_ATTACH_AFTER_SILENCE);
        assert_eq!(ended(&outputs(&mut calls)), (Code::Unreachable, Outcome::Unknown, 1));
    }

    #[test]
    fn a_call_that_no_host_takes_at_once_is_offered_to_all_of_them_patiently() {
        let mut calls = calls();
        let (mut outputs, mut asked, mut now) = (call(&mut calls, 1, &FROZEN), Vec::new(), NOW);
        while !outputs.iter().any(|output| matches!(output, Output::Ended { .. })) {
            let (stream, host) = open_of(&outputs);
            asked.push(host);
            tell(&mut calls, now, Input::Opened(stream));
            (now, outputs) = wait(&mut calls);
        }
        let (code, outcome, attempts) = ended(&outputs);
        assert_eq!((code, outcome, attempts as usize), (Code::Unreachable, Outcome::NotStarted, asked.len()));
        for (host, _) in FROZEN {
            let times = asked.iter().filter(|asked| **asked == key(host)).count();
            assert_eq!(times, CALL_OFFERS_MAX as usize);
        }
        let each_once: BTreeSet<PeerKey> = asked[..3].iter().copied().collect();
        assert_eq!(each_once.len(), 3, "each is asked before any is asked again");
    }

    #[test]
    fn what_one_host_does_not_take_is_offered_to_the_next_and_what_nobody_would_take_is_not() {
        let say = |code, outcome| CallReply::Failed(CallFailure::new(code, outcome, "so it is"));
        let mut calls = calls();
        let mut outputs = call(&mut calls, 1, &FROZEN);
        for number in 1..=3 {
            let (stream, _) = open_of(&outputs);
            assert_eq!(stream.number, number);
            tell(&mut calls, NOW, Input::Opened(stream));
            let reply = say(Code::Busy, Outcome::NotStarted);
            outputs = tell(&mut calls, NOW, Input::Reply { stream, reply });
        }
        assert_eq!(ended(&outputs), (Code::Busy, Outcome::NotStarted, 3), "all of them said so");
        for (code, outcome) in [
            (Code::BadInput, Outcome::NotStarted),
            (Code::AgentFailed, Outcome::Done),
            (Code::Busy, Outcome::Unknown),
        ] {
            let (stream, _) = opened(&call(&mut calls, 2, &FROZEN));
            tell(&mut calls, NOW, Input::Opened(stream));
            let over = tell(&mut calls, NOW, Input::Reply { stream, reply: say(code, outcome) });
            assert_eq!(ended(&over), (code, outcome, 1));
        }
    }

    #[test]
    fn a_host_that_cannot_be_dialed_is_looked_for_after_others_were_asked() {
        let mut calls = calls();
        let (stream, dead) = opened(&call(&mut calls, 1, &FROZEN[..2]));
        let moved = tell(&mut calls, NOW, Input::NotOpened { stream, why: "refused".into() });
        assert_eq!(moved[0], Output::LookFor { call: id(1), host: dead }, "for calls to come");
        let (stream, other) = open_of(&moved);
        assert_ne!(dead, other);
        let moved = tell(&mut calls, NOW, Input::NotOpened { stream, why: "refused".into() });
        let waits_for = |host| moved[1..] == [Output::Search { call: id(1), host }];
        assert!(waits_for(dead) || waits_for(other), "{moved:?}");
    }

    #[test]
    fn a_host_that_cannot_be_dialed_is_looked_for_once() {
        let mut calls = calls();
        let (stream, _) = opened(&call(&mut calls, 1, &[(2, Presence::Reachable)]));
        let unreached = tell(&mut calls, NOW, Input::NotOpened { stream, why: "no address".into() });
        assert_eq!(unreached, [Output::Search { call: id(1), host: key(2) }]);
        calls.handle_timeout(NOW + CALL_SEARCH_TIME_MAX);
        let (stream, _) = opened(&outputs(&mut calls));
        let unreached = tell(&mut calls, NOW, Input::NotOpened { stream, why: "no address".into() });
        assert_eq!(ended(&unreached), (Code::Unreachable, Outcome::NotStarted, 0));
    }

    #[test]
    fn calls_beyond_the_streams_of_a_host_wait_in_turn_and_end_at_their_deadline() {
        let mut calls = calls();
        let host = [(2, Presence::Reachable)];
        let most = CALLS_PER_AGENT_MAX as u32;
        let streams: Vec<OutboundStream> =
            (0..most).map(|number| opened(&call(&mut calls, number, &host)).0).collect();
        for number in most..most + 3 {
            assert_eq!(call(&mut calls, number, &host), []);
        }
        assert_eq!(
            opened(&call(&mut calls, most + 3, &[(3, Presence::Reachable)])).1,
            key(3),
            "another host"
        );
        let other = call_of(&mut calls, most + 4, AgentId([1; 20]), &host);
        assert_eq!(opened(&other).1, key(2), "another agent there");
        assert_eq!(tell(&mut calls, NOW, Input::GiveUp { call: id(most) }), [], "it had no stream");
        let freed = tell(&mut calls, NOW, Input::GiveUp { call: id(0) });
        let next = OutboundStream { call: id(most + 1), number: 1 };
        assert_eq!(freed, [Output::Close(streams[0]), Output::Open { stream: next, host: key(2) }]);
        calls.handle_timeout(DEADLINE);
        let ends = outputs(&mut calls).into_iter().filter(|output| matches!(output, Output::Ended { .. }));
        assert_eq!(ends.count(), most as usize + 3);
        assert_eq!(calls.poll_timeout(), None);
    }

    #[test]
    fn a_node_makes_only_so_many_calls_at_once() {
        let mut calls = calls();
        for number in 0..CALLS_MADE_MAX as u32 {
            call(&mut calls, number, &[(2, Presence::Reachable)]);
        }
        let refused = call(&mut calls, u32::MAX, &[(2, Presence::Reachable)]);
        assert_eq!(ended(&refused), (Code::Busy, Outcome::NotStarted, 0));
    }
}
