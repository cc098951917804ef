//! The calls that this node makes: which host is asked, how often, and how long each step may take.
//!
//! A call goes from host to host until one accepts it: what was not accepted ran nothing, so it moves freely (`candidates`),
//! those that can be reached and have less to do first (`hosts`). At each host it waits for one of the streams that may be open
//! there, opens one, and offers itself; a later offer to a host voids the one before, so a host that stood still does not run
//! it later. Once an offer is accepted there is no other; what may be said of the call is decided by its [`Attempts`]. Whatever
//! happens, it ends at its deadline.

use std::cmp::{max, min};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::attempts::{Attempts, Step, accept_patience};
use super::candidates::{Candidates, Next};
use super::host::transfer_time;
use super::hosts::Hosts;
use super::{CallEnd, CallFailure, CallId, CallReply, Loss, OutboundStream, Outcome, Output, Report, Wanted};
use crate::proto::code::Code;
use crate::proto::identity::PeerKey;
use crate::proto::limits::{
    CALL_OPEN_PATIENCE, CALL_REOPEN_MS, CALL_SEARCH_TIME_MAX, CALL_SILENCE_MAX, CALLS_MADE_MAX,
};

/// The calls that a node makes, and the hosts they are for.
#[derive(Debug)]
pub(super) struct Caller {
    own: PeerKey,
    rng: ChaCha8Rng,
    /// At most [`CALLS_MADE_MAX`].
    calls: BTreeMap<CallId, OutboundCall>,
    hosts: Hosts,
    /// When something is due for a call; one entry for each.
    timers: BTreeSet<(Duration, CallId)>,
}

/// One call on its way.
#[derive(Debug)]
struct OutboundCall {
    wanted: Wanted,
    candidates: Candidates,
    attempts: Attempts,
    stage: Stage,
    /// Streams opened for it; the last is the present one.
    streams: u32,
    /// Why there was no answer yet.
    why: String,
    /// What the last host said that was reached and did not take it.
    refusal: Option<CallFailure>,
    /// Its entry among the timers.
    timer: Duration,
}

/// What a call waits for. From `Opening` on, but for `Searching`, it has one of the streams to its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// One of the streams to its host.
    Queued,
    /// Word of where the host is.
    Searching { until: Duration },
    /// The stream that was wished for at `since`.
    Opening { since: Duration, until: Duration },
    /// The time of the next opening.
    Pausing { until: Duration },
    /// The host's answer to the offer.
    Offered { since: Duration, until: Duration },
    /// A place at the host, which says that it still waits.
    Waiting { until: Duration },
    /// The host's word on how the work ended, or that it goes on.
    Accepted { until: Duration },
    /// The bytes of the output.
    TakingOutput { until: Duration },
}

impl Caller {
    pub(super) fn new(own: PeerKey, rng: ChaCha8Rng) -> Caller {
        let (calls, hosts, timers) = (BTreeMap::new(), Hosts::default(), BTreeSet::new());
        Caller { own, rng, calls, hosts, timers }
    }

    pub(super) fn handle_call(
        &mut self,
        now: Duration,
        id: CallId,
        wanted: Wanted,
        outputs: &mut VecDeque<Output>,
    ) {
        let refused = |code, message| {
            let failure = Some(CallFailure::new(code, Outcome::NotStarted, message));
            Output::Ended { call: id, end: CallEnd { host: None, attempts: 0, failure } }
        };
        if self.calls.len() >= CALLS_MADE_MAX {
            let message = "this node has as many calls under way as it keeps; try again in a moment";
            return outputs.push_back(refused(Code::Busy, message));
        }
        let (hosts, rng, is_choice) = (&self.hosts, &mut self.rng, wanted.replicas.len() > 1);
        // Of equals any, so that callers who know nothing of each other do not all take the same.
        let rank = |host: &PeerKey, presence| {
            (hosts.rank(now, host, &wanted.agent, presence), if is_choice { rng.random::<u32>() } else { 0 })
        };
        let Some(candidates) = Candidates::of(&wanted.replicas, self.own, wanted.is_brief, rank) else {
            return outputs.push_back(refused(Code::NotFound, "no host runs this agent any more"));
        };
        // A timer from the first moment on: a call that waits for a stream ends at its deadline, too.
        let timer = wanted.deadline;
        let call = OutboundCall {
            wanted,
            candidates,
            attempts: Attempts::new(id),
            stage: Stage::Queued,
            streams: 0,
            why: "the host took no stream in time".into(),
            refusal: None,
            timer,
        };
        self.timers.insert((timer, id));
        self.calls.insert(id, call);
        self.go_on(now, id, outputs);
    }

    pub(super) fn handle_give_up(&mut self, now: Duration, id: CallId, outputs: &mut VecDeque<Output>) {
        self.remove(now, id, outputs);
    }

    pub(super) fn handle_opened(
        &mut self,
        now: Duration,
        stream: OutboundStream,
        outputs: &mut VecDeque<Output>,
    ) {
        let Some(call) = self.calls.get_mut(&stream.call).filter(|call| call.streams == stream.number) else {
            return;
        };
        let Stage::Opening { since, .. } = call.stage else { return };
        let (opening, candidate) = (now.saturating_sub(since), call.candidates.present());
        let until = if call.candidates.is_thorough {
            now + accept_patience(opening, candidate.unanswered)
        } else {
            // What is far has as long as its stream took, though others wait to be asked.
            max(since + self.hosts.patience(&candidate.host), now + opening)
        };
        // The time left is reckoned when the offer leaves: the opening may have taken seconds of it.
        let left = call.wanted.deadline.saturating_sub(now);
        let offer = call.attempts.offer(candidate.host, &call.wanted, left);
        call.stage = Stage::Offered { since: now, until };
        outputs.push_back(Output::Offer { stream, offer });
        self.set_timer(stream.call);
    }

    /// A host that cannot be dialed is looked for once, when others did not take the call.
    pub(super) fn handle_not_opened(
        &mut self,
        now: Duration,
        stream: OutboundStream,
        why: &str,
        outputs: &mut VecDeque<Output>,
    ) {
        let Some(call) = self.present(stream) else { return };
        if !matches!(call.stage, Stage::Opening { .. }) {
            return;
        }
        call.why = format!("the host cannot be reached: {why}");
        let is_thorough = call.candidates.is_thorough;
        let candidate = call.candidates.present_mut();
        candidate.note_not_opened();
        let host = candidate.host;
        if !is_thorough {
            outputs.push_back(Output::LookFor { call: stream.call, host });
        }
        self.hosts.unreached(now, &host);
        self.leave_host(now, stream.call, outputs);
        self.go_on(now, stream.call, outputs);
    }

    pub(super) fn handle_searched(&mut self, now: Duration, id: CallId, outputs: &mut VecDeque<Output>) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if matches!(call.stage, Stage::Searching { .. }) {
            call.candidates.present_mut().note_searched();
            self.visit(now, id, outputs);
        }
    }

    pub(super) fn handle_reply(
        &mut self,
        now: Duration,
        stream: OutboundStream,
        reply: CallReply,
        outputs: &mut VecDeque<Output>,
    ) {
        let Some(call) = self.calls.get_mut(&stream.call).filter(|call| call.streams == stream.number) else {
            return;
        };
        match call.stage {
            Stage::Offered { since, .. } => {
                self.hosts.reached(&call.candidates.present().host, now.saturating_sub(since));
            }
            Stage::Waiting { .. } | Stage::Accepted { .. } => {}
            _ => return,
        }
        // Whoever speaks is there.
        if let Stage::Waiting { until } | Stage::Accepted { until } = &mut call.stage {
            *until = now + CALL_SILENCE_MAX;
        }
        match call.attempts.handle(call.candidates.present().host, reply) {
            Step::SendInput => {
                // Nothing is heard before all of it has left.
                let until = now + CALL_SILENCE_MAX + transfer_time(call.wanted.size);
                call.stage = Stage::Accepted { until };
                let report = Report::Working { host: call.candidates.present().host };
                outputs.push_back(Output::Report { call: stream.call, report });
                outputs.push_back(Output::SendInput(stream));
            }
            Step::Listen => outputs.push_back(Output::Listen(stream)),
            Step::Wait(_) if call.wanted.is_brief => {
                outputs.push_back(Output::Close(stream));
                self.leave_host(now, stream.call, outputs);
                return self.go_on(now, stream.call, outputs);
            }
            Step::Wait(ahead) => {
                call.stage = Stage::Waiting { until: now + CALL_SILENCE_MAX };
                outputs.push_back(Output::Report { call: stream.call, report: Report::Queued { ahead } });
                outputs.push_back(Output::Listen(stream));
            }
            Step::Progress(progress) => {
                let report = Report::Progress(progress);
                outputs.extend([Output::Report { call: stream.call, report }, Output::Listen(stream)]);
            }
            Step::Partial(text) => {
                let report = Report::Partial(text);
                outputs.extend([Output::Report { call: stream.call, report }, Output::Listen(stream)]);
            }
            Step::TakeOutput(size) => {
                call.stage = Stage::TakingOutput { until: now + CALL_SILENCE_MAX + transfer_time(size) };
                outputs.push_back(Output::TakeOutput { stream, size });
            }
            Step::End(failure) if may_another(&failure) => {
                call.candidates.present_mut().has_refused = true;
                call.refusal = Some(failure);
                outputs.push_back(Output::Close(stream));
                self.leave_host(now, stream.call, outputs);
                return self.go_on(now, stream.call, outputs);
            }
            Step::End(failure) => return self.end(now, stream.call, Some(failure), outputs),
        }
        self.set_timer(stream.call);
    }

    pub(super) fn handle_output_taken(
        &mut self,
        now: Duration,
        stream: OutboundStream,
        outputs: &mut VecDeque<Output>,
    ) {
        if self.present(stream).is_some_and(|call| matches!(call.stage, Stage::TakingOutput { .. })) {
            self.end(now, stream.call, None, outputs);
        }
    }

    /// A host's queue of new streams may hold one and drop the rest without a word: a stream that closes before any answer
    /// was not seen by the host, and another is opened, to another host where there is one.
    pub(super) fn handle_lost(
        &mut self,
        now: Duration,
        stream: OutboundStream,
        loss: Loss,
        outputs: &mut VecDeque<Output>,
    ) {
        // Drawn first, because `present` borrows all of the caller; a draw in vain harms no replay.
        let pause = Duration::from_millis(self.rng.random_range(CALL_REOPEN_MS));
        let Some(call) = self.present(stream) else { return };
        match (call.stage, loss) {
            (Stage::Offered { .. } | Stage::Waiting { .. }, Loss::Closed(why)) => {
                call.why = format!("the host serves no call stream: {why}");
                if call.candidates.is_thorough {
                    call.stage = Stage::Pausing { until: now + pause };
                    self.set_timer(stream.call);
                } else {
                    self.leave_host(now, stream.call, outputs);
                    self.go_on(now, stream.call, outputs);
                }
            }
            // A host in the middle of a frame may stand still as well as one that says nothing.
            (Stage::Offered { .. } | Stage::Waiting { .. }, Loss::TooSlow(_)) => {
                self.leave_unanswered(now, stream.call, outputs);
            }
            // Of an offer only a violation is left here: a host that speaks nonsense is not asked again.
            (
                Stage::Offered { .. }
                | Stage::Waiting { .. }
                | Stage::Accepted { .. }
                | Stage::TakingOutput { .. },
                loss,
            ) => {
                let failure = call.attempts.lose(loss.code(), format!("the call broke off: {loss}"));
                let host = call.candidates.present().host;
                if !matches!(loss, Loss::Violation(_)) {
                    self.hosts.unreached(now, &host);
                }
                self.end(now, stream.call, Some(failure), outputs);
            }
            // A stream that is not open yet, or not any more, has nothing to lose.
            (Stage::Queued | Stage::Opening { .. } | Stage::Searching { .. } | Stage::Pausing { .. }, _) => {}
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Duration, outputs: &mut VecDeque<Output>) {
        // Each turn ends its call or moves its timer beyond `now`, so the loop comes to an end.
        while let Some((_, id)) = self.timers.first().copied().filter(|(due, _)| *due <= now) {
            self.handle_call_timeout(now, id, outputs);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.timers.first().map(|(due, _)| *due)
    }

    fn handle_call_timeout(&mut self, now: Duration, id: CallId, outputs: &mut VecDeque<Output>) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        // Before the stages: no step may begin once the deadline has passed.
        if call.wanted.deadline <= now {
            let failure = call.attempts.lose(Code::Deadline, "the host did not answer before the deadline");
            return self.end(now, id, Some(failure), outputs);
        }
        match call.stage {
            Stage::Opening { .. } => {
                let host = call.candidates.present().host;
                self.hosts.slow_to_open(now, &host);
                // The old stream goes first, since a call has one at a time.
                outputs.push_back(Output::Close(OutboundStream { call: id, number: call.streams }));
                self.leave_host(now, id, outputs);
                self.go_on(now, id, outputs);
            }
            Stage::Searching { .. } => self.handle_searched(now, id, outputs),
            Stage::Pausing { .. } if call.candidates.present().is_open(now) => self.open(now, id, outputs),
            Stage::Pausing { .. } => {
                self.leave_host(now, id, outputs);
                self.go_on(now, id, outputs);
            }
            Stage::Offered { .. } | Stage::Waiting { .. } => self.leave_unanswered(now, id, outputs),
            Stage::Accepted { .. } | Stage::TakingOutput { .. } => {
                let loss = Loss::TooSlow("the host fell silent in the midst of the call".into());
                let stream = OutboundStream { call: id, number: call.streams };
                self.handle_lost(now, stream, loss, outputs);
            }
            // It has no timer but the deadline.
            Stage::Queued => {}
        }
    }

    /// Turns to the next host. The call has no stream to any.
    fn go_on(&mut self, now: Duration, id: CallId, outputs: &mut VecDeque<Output>) {
        let Caller { calls, hosts, .. } = self;
        let Some(call) = calls.get_mut(&id) else { return };
        let agent = call.wanted.agent;
        match call.candidates.next(now, |host, presence| hosts.rank(now, host, &agent, presence)) {
            Some(Next::Ask(_)) => self.visit(now, id, outputs),
            Some(Next::LookFor(host)) => {
                call.stage = Stage::Searching { until: now + CALL_SEARCH_TIME_MAX };
                outputs.push_back(Output::Search { call: id, host });
                self.set_timer(id);
            }
            None => {
                // What somebody said tells more than the silence of others.
                let failure = call.refusal.take().unwrap_or_else(|| {
                    let why = std::mem::take(&mut call.why);
                    call.attempts.lose(Code::Unreachable, why)
                });
                self.end(now, id, Some(failure), outputs);
            }
        }
    }

    /// Asks the host that is present, once there is a stream for it.
    fn visit(&mut self, now: Duration, id: CallId, outputs: &mut VecDeque<Output>) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if self.hosts.take(now, call.candidates.present().host, call.wanted.agent, id) {
            return self.open(now, id, outputs);
        }
        call.stage = Stage::Queued;
        if call.wanted.is_brief {
            call.candidates.present_mut().has_refused = true;
            self.leave_host(now, id, outputs);
            return self.go_on(now, id, outputs);
        }
        self.set_timer(id);
    }

    /// Opens the next stream.
    fn open(&mut self, now: Duration, id: CallId, outputs: &mut VecDeque<Output>) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        // The number makes all that earlier streams may still report stale.
        call.streams += 1;
        let candidate = call.candidates.present_mut();
        let (host, opens_until) = (candidate.host, candidate.note_opening(now));
        let patience =
            if call.candidates.is_thorough { CALL_OPEN_PATIENCE } else { self.hosts.patience(&host) };
        call.stage = Stage::Opening { since: now, until: min(now + patience, opens_until) };
        outputs.push_back(Output::Open { stream: OutboundStream { call: id, number: call.streams }, host });
        self.set_timer(id);
    }

    fn leave_unanswered(&mut self, now: Duration, id: CallId, outputs: &mut VecDeque<Output>) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.why = "the host did not accept the call in time; it may be overloaded".into();
        let candidate = call.candidates.present_mut();
        candidate.unanswered += 1;
        let host = candidate.host;
        // A closed stream tells a host that wakes late that nobody waits for its word on this one.
        outputs.push_back(Output::Close(OutboundStream { call: id, number: call.streams }));
        self.hosts.unreached(now, &host);
        self.leave_host(now, id, outputs);
        self.go_on(now, id, outputs);
    }

    fn end(
        &mut self,
        now: Duration,
        id: CallId,
        failure: Option<CallFailure>,
        outputs: &mut VecDeque<Output>,
    ) {
        let Some(call) = self.calls.get(&id) else { return };
        let host = Some(call.candidates.present().host);
        let end = CallEnd { host, attempts: call.attempts.made(), failure };
        outputs.push_back(Output::Ended { call: id, end });
        self.remove(now, id, outputs);
    }

    /// Forgets a call.
    fn remove(&mut self, now: Duration, id: CallId, outputs: &mut VecDeque<Output>) {
        let Some(call) = self.calls.get(&id) else { return };
        self.timers.remove(&(call.timer, id));
        if call.streams > 0 {
            outputs.push_back(Output::Close(OutboundStream { call: id, number: call.streams }));
        }
        self.leave_host(now, id, outputs);
        self.calls.remove(&id);
    }

    /// The call needs no stream to its host any more: it goes to who waits longest for one.
    fn leave_host(&mut self, now: Duration, id: CallId, outputs: &mut VecDeque<Output>) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let host = call.candidates.present().host;
        match call.stage {
            Stage::Queued => self.hosts.leave(&host, id),
            Stage::Searching { .. } => {}
            _ => {
                call.stage = Stage::Queued;
                if let Some(next) = self.hosts.release(&host, &call.wanted.agent, id) {
                    self.open(now, next, outputs);
                }
            }
        }
    }

    /// The call of a stream, if that is the one it uses now.
    fn present(&mut self, stream: OutboundStream) -> Option<&mut OutboundCall> {
        self.calls.get_mut(&stream.call).filter(|call| call.streams == stream.number)
    }

    fn set_timer(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        // No step outlasts its call, however patient the step is.
        let due = call.stage.until().map_or(call.wanted.deadline, |until| min(until, call.wanted.deadline));
        if due != call.timer {
            self.timers.remove(&(call.timer, id));
            self.timers.insert((due, id));
            call.timer = due;
        }
    }
}

/// Whether another host may take what one did not.
fn may_another(failure: &CallFailure) -> bool {
    let is_of_the_call = matches!(failure.code, Code::BadInput | Code::TooLarge | Code::Deadline);
    failure.outcome == Outcome::NotStarted && !is_of_the_call
}

impl Stage {
    /// When something is done about it though nothing happens; none where only the call's deadline counts.
    fn until(self) -> Option<Duration> {
        match self {
            Stage::Opening { until, .. }
            | Stage::Searching { until }
            | Stage::Pausing { until }
            | Stage::Offered { until, .. }
            | Stage::Waiting { until }
            | Stage::Accepted { until }
            | Stage::TakingOutput { until } => Some(until),
            Stage::Queued => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::call::{CallContext, Calls, Incarnation, Input, Word};
    use crate::proto::identity::{AgentId, Identity};
    use crate::proto::limits::{CALL_ACCEPT_PATIENCE, CALL_OFFERS_MAX, CALLS_PER_AGENT_MAX};
    use crate::proto::liveness::Presence;

    const NOW: Duration = Duration::from_secs(5);
    const DEADLINE: Duration = Duration::from_secs(65);

    fn key(seed: u8) -> PeerKey {
        Identity::from_seed([seed; 32]).key()
    }

    fn calls() -> Calls {
        Calls::new(key(1), 7)
    }

    fn id(number: u32) -> CallId {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        CallId(id)
    }

    fn call(calls: &mut Calls, number: u32, replicas: &[(u8, Presence)]) -> Vec<Output> {
        call_of(calls, number, AgentId([0; 20]), replicas)
    }

    fn call_of(calls: &mut Calls, number: u32, agent: AgentId, replicas: &[(u8, Presence)]) -> Vec<Output> {
        let replicas = replicas.iter().map(|(seed, presence)| (key(*seed), *presence)).collect();
        let name = "a@.".parse().unwrap();
        let wanted = Wanted {
            agent,
            name,
            replicas,
            size: 3,
            deadline: DEADLINE,
            is_brief: false,
            context: CallContext::default(),
            stream: false,
            detached: false,
        };
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
    fn a_host_that_answers_is_asked_before_one_that_does_not_and_the_own_host_never() {
        use Presence::{Reachable, Unknown, Unreachable};
        for (replicas, asked) in [
            (&[(1, Reachable), (2, Unreachable), (3, Reachable), (4, Unreachable)][..], 3),
            (&[(2, Unreachable), (3, Unknown)], 3),
            (&[(1, Reachable), (2, Unreachable)], 2),
        ] {
            assert_eq!(opened(&call(&mut calls(), 1, replicas)).1, key(asked));
        }
        let nobody = ended(&call(&mut calls(), 1, &[(1, Reachable)]));
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
        let accepted = CallReply::Accepted { incarnation: Incarnation(7), word: Word::default() };
        let sent = tell(&mut calls, at, Input::Reply { stream: third, reply: accepted });
        assert_eq!(sent, [Output::SendInput(third)]);
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
        let accepted = CallReply::Accepted { incarnation: Incarnation(7), word: Word::default() };
        tell(&mut calls, NOW, Input::Reply { stream, reply: accepted });
        let mut now = NOW;
        for reply in [CallReply::Alive, CallReply::Other, CallReply::Alive] {
            now += CALL_SILENCE_MAX - Duration::from_millis(1);
            calls.handle_timeout(now);
            assert_eq!(tell(&mut calls, now, Input::Reply { stream, reply }), [Output::Listen(stream)]);
        }
        calls.handle_timeout(now + CALL_SILENCE_MAX);
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
    fn a_call_that_can_be_made_otherwise_is_offered_to_each_host_once_and_waits_at_none() {
        let mut calls = calls();
        let replicas = vec![(key(2), Presence::Reachable), (key(3), Presence::Reachable)];
        let (agent, name) = (AgentId([0; 20]), "a@.".parse().unwrap());
        let wanted = Wanted {
            agent,
            name,
            replicas,
            size: 3,
            deadline: DEADLINE,
            is_brief: true,
            context: CallContext::default(),
            stream: false,
            detached: false,
        };
        let (stream, _) = opened(&tell(&mut calls, NOW, Input::Call { call: id(1), wanted }));
        tell(&mut calls, NOW, Input::Opened(stream));
        let reply = CallReply::Queued { ahead: 1, word: Word::default() };
        let (stream, _) = open_of(&tell(&mut calls, NOW, Input::Reply { stream, reply }));
        tell(&mut calls, NOW, Input::Opened(stream));
        let (at, over) = wait(&mut calls);
        assert_eq!(at, NOW + CALL_ACCEPT_PATIENCE);
        assert_eq!(ended(&over), (Code::Unreachable, Outcome::NotStarted, 2));
        // Nor for a stream, where all are taken.
        for number in 10..10 + CALLS_PER_AGENT_MAX as u32 {
            call(&mut calls, number, &[(5, Presence::Reachable)]);
        }
        let replicas = vec![(key(5), Presence::Reachable)];
        let name = "a@.".parse().unwrap();
        let wanted = Wanted {
            agent,
            name,
            replicas,
            size: 3,
            deadline: DEADLINE,
            is_brief: true,
            context: CallContext::default(),
            stream: false,
            detached: false,
        };
        let over = tell(&mut calls, NOW, Input::Call { call: id(2), wanted });
        assert_eq!(ended(&over), (Code::Unreachable, Outcome::NotStarted, 0));
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
