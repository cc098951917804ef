//! The calls that this node makes: which host is asked, how often, and how long each step may take.
//!
//! A call waits for one of the streams that may be open to its host, opens one, offers itself, and is offered anew while the
//! host leaves it without an answer: a later offer voids the one before, so a host that stood still does not run it later.
//! Once an offer is accepted there is no other; what may be said of the call is decided by its [`Attempts`]. Whatever
//! happens, it ends at its deadline.

use std::cmp::min;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::attempts::{Attempts, Step, accept_patience};
use super::{CallEnd, CallFailure, CallId, CallReply, Loss, OutboundStream, Outcome, Output, Wanted};
use crate::proto::code::Code;
use crate::proto::identity::PeerKey;
use crate::proto::limits::{
    CALL_OFFERS_MAX, CALL_OPEN_DEADLINE, CALL_OPEN_PATIENCE, CALL_OPENINGS_MAX, CALL_REOPEN_MS,
    CALL_SEARCH_TIME_MAX, CALLS_MADE_MAX, CALLS_PER_HOST_MAX,
};
use crate::proto::liveness::Presence;

/// The calls that a node makes, and the hosts they are for.
#[derive(Debug)]
pub(super) struct Caller {
    own: PeerKey,
    rng: ChaCha8Rng,
    /// At most [`CALLS_MADE_MAX`].
    calls: BTreeMap<CallId, OutboundCall>,
    /// Hosts of calls, with those that wait for a stream in the order in which they came.
    hosts: BTreeMap<PeerKey, HostStreams>,
    /// When something is due for a call; one entry for each.
    timers: BTreeSet<(Duration, CallId)>,
}

/// How many of the streams to one host are taken, and who waits for one.
#[derive(Debug, Default)]
struct HostStreams {
    taken: usize,
    waiting: VecDeque<CallId>,
}

/// One call on its way.
#[derive(Debug)]
struct OutboundCall {
    wanted: Wanted,
    host: PeerKey,
    attempts: Attempts,
    stage: Stage,
    /// Streams opened for it; the last is the present one.
    streams: u32,
    /// When no more streams are opened.
    opens_until: Duration,
    unanswered: u32,
    was_searched: bool,
    /// Why there was no answer yet.
    why: String,
    /// Its entry among the timers.
    timer: Duration,
}

/// What a call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// One of the streams to its host.
    Queued,
    /// The stream that was wished for at `since`.
    Opening { since: Duration, until: Duration },
    /// Word of where the host is.
    Searching { until: Duration },
    /// The time of the next opening.
    Pausing { until: Duration },
    /// The host's answer to the offer.
    Offered { until: Duration },
    /// The host's word on how the work ended.
    Accepted,
    /// The bytes of the output.
    TakingOutput,
}

impl Caller {
    pub(super) fn new(own: PeerKey, rng: ChaCha8Rng) -> Caller {
        Caller { own, rng, calls: BTreeMap::new(), hosts: BTreeMap::new(), timers: BTreeSet::new() }
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
        let Some(host) = choose(&wanted.replicas, self.own) else {
            return outputs.push_back(refused(Code::NotFound, "no host runs this agent any more"));
        };
        // A timer from the first moment on: a call that waits for a stream ends at its deadline, too.
        let timer = wanted.deadline;
        let call = OutboundCall {
            wanted,
            host,
            attempts: Attempts::new(id),
            stage: Stage::Queued,
            streams: 0,
            opens_until: Duration::ZERO,
            unanswered: 0,
            was_searched: false,
            why: "the host took no stream in time".into(),
            timer,
        };
        self.timers.insert((timer, id));
        self.calls.insert(id, call);
        let streams = self.hosts.entry(host).or_default();
        // A stream is free only while nobody waits for one, so a new call overtakes none.
        if streams.taken < CALLS_PER_HOST_MAX {
            streams.taken += 1;
            self.begin(now, id, outputs);
        } else {
            streams.waiting.push_back(id);
        }
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
        let Some(call) = self.present(stream) else { return };
        let Stage::Opening { since, .. } = call.stage else { return };
        let patience = accept_patience(now.saturating_sub(since), call.unanswered);
        let Wanted { agent, name, size, deadline, .. } = &call.wanted;
        // The time left is reckoned when the offer leaves: the opening may have taken seconds of it.
        let offer = call.attempts.offer(*agent, name.clone(), *size, deadline.saturating_sub(now));
        call.stage = Stage::Offered { until: now + patience };
        outputs.push_back(Output::Offer { stream, offer });
        self.set_timer(stream.call);
    }

    /// A host that cannot be dialed is looked for once.
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
        // A host that was found and still cannot be dialed is not found better by a second search.
        if std::mem::replace(&mut call.was_searched, true) {
            return self.give_up_host(now, stream.call, outputs);
        }
        call.stage = Stage::Searching { until: now + CALL_SEARCH_TIME_MAX };
        outputs.push_back(Output::Search { call: stream.call, host: call.host });
        self.set_timer(stream.call);
    }

    pub(super) fn handle_searched(&mut self, now: Duration, id: CallId, outputs: &mut VecDeque<Output>) {
        if self.calls.get(&id).is_some_and(|call| matches!(call.stage, Stage::Searching { .. })) {
            self.open(now, id, outputs);
        }
    }

    pub(super) fn handle_reply(
        &mut self,
        now: Duration,
        stream: OutboundStream,
        reply: CallReply,
        outputs: &mut VecDeque<Output>,
    ) {
        let Some(call) = self.present(stream) else { return };
        if !matches!(call.stage, Stage::Offered { .. } | Stage::Accepted) {
            return;
        }
        match call.attempts.handle(reply) {
            Step::SendInput => {
                call.stage = Stage::Accepted;
                outputs.push_back(Output::SendInput(stream));
            }
            Step::Progress(progress) => outputs.push_back(Output::Progress { stream, progress }),
            Step::TakeOutput(size) => {
                call.stage = Stage::TakingOutput;
                outputs.push_back(Output::TakeOutput { stream, size });
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
        if self.present(stream).is_some_and(|call| call.stage == Stage::TakingOutput) {
            self.end(now, stream.call, None, outputs);
        }
    }

    /// A host's queue of new streams may hold one and drop the rest without a word: a stream that closes before any answer
    /// was not seen by the host, and another is opened.
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
            (Stage::Offered { .. }, Loss::Closed(why)) => {
                call.why = format!("the host serves no call stream: {why}");
                call.stage = Stage::Pausing { until: now + pause };
                self.set_timer(stream.call);
            }
            // A host in the middle of a frame may stand still as well as one that says nothing.
            (Stage::Offered { .. }, Loss::TooSlow(_)) => self.leave_unanswered(now, stream.call, outputs),
            // Of an offer only a violation is left here: a host that speaks nonsense is not asked again.
            (Stage::Offered { .. } | Stage::Accepted | Stage::TakingOutput, loss) => {
                let failure = call.attempts.lose(loss.code(), format!("the call broke off: {loss}"));
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
            // The old stream goes first, since a call has one at a time.
            Stage::Opening { .. } => {
                outputs.push_back(Output::Close(OutboundStream { call: id, number: call.streams }));
                self.open(now, id, outputs);
            }
            Stage::Searching { .. } | Stage::Pausing { .. } => self.open(now, id, outputs),
            Stage::Offered { .. } => self.leave_unanswered(now, id, outputs),
            // They have no timer but the deadline.
            Stage::Queued | Stage::Accepted | Stage::TakingOutput => {}
        }
    }

    /// The call has one of the streams to its host.
    fn begin(&mut self, now: Duration, id: CallId, outputs: &mut VecDeque<Output>) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        // Counted from here and not from the call's beginning: the wait in the queue is not the host's fault.
        call.opens_until = now + CALL_OPEN_DEADLINE;
        self.open(now, id, outputs);
    }

    /// Opens the next stream, if there is to be one.
    fn open(&mut self, now: Duration, id: CallId, outputs: &mut VecDeque<Output>) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if call.streams >= CALL_OPENINGS_MAX || call.opens_until <= now {
            return self.give_up_host(now, id, outputs);
        }
        // The number makes all that earlier streams may still report stale.
        call.streams += 1;
        call.stage = Stage::Opening { since: now, until: min(now + CALL_OPEN_PATIENCE, call.opens_until) };
        let stream = OutboundStream { call: id, number: call.streams };
        outputs.push_back(Output::Open { stream, host: call.host });
        self.set_timer(id);
    }

    fn leave_unanswered(&mut self, now: Duration, id: CallId, outputs: &mut VecDeque<Output>) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.why = "the host did not accept the call in time; it may be overloaded".into();
        call.unanswered += 1;
        if call.unanswered >= CALL_OFFERS_MAX {
            return self.give_up_host(now, id, outputs);
        }
        // A closed stream tells a host that wakes late that nobody waits for its word on this one.
        outputs.push_back(Output::Close(OutboundStream { call: id, number: call.streams }));
        self.open(now, id, outputs);
    }

    fn give_up_host(&mut self, now: Duration, id: CallId, outputs: &mut VecDeque<Output>) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let why = std::mem::take(&mut call.why);
        let failure = call.attempts.lose(Code::Unreachable, why);
        self.end(now, id, Some(failure), outputs);
    }

    fn end(
        &mut self,
        now: Duration,
        id: CallId,
        failure: Option<CallFailure>,
        outputs: &mut VecDeque<Output>,
    ) {
        let Some(call) = self.calls.get(&id) else { return };
        let end = CallEnd { host: Some(call.host), attempts: call.attempts.made(), failure };
        outputs.push_back(Output::Ended { call: id, end });
        self.remove(now, id, outputs);
    }

    /// Forgets a call; its stream goes to who waits longest for one.
    fn remove(&mut self, now: Duration, id: CallId, outputs: &mut VecDeque<Output>) {
        let Some(call) = self.calls.remove(&id) else { return };
        self.timers.remove(&(call.timer, id));
        if call.streams > 0 {
            outputs.push_back(Output::Close(OutboundStream { call: id, number: call.streams }));
        }
        let Some(streams) = self.hosts.get_mut(&call.host) else { return };
        if call.stage == Stage::Queued {
            return streams.waiting.retain(|waiting| *waiting != id);
        }
        // Handed on without being counted as free, so that no new call can step in between.
        match streams.waiting.pop_front() {
            Some(next) => self.begin(now, next, outputs),
            None => {
                streams.taken -= 1;
                // Nobody waits either: hosts are kept only while calls use them, which bounds the map.
                if streams.taken == 0 {
                    self.hosts.remove(&call.host);
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

impl Stage {
    /// When something is done about it though nothing happens; none where only the call's deadline counts.
    fn until(self) -> Option<Duration> {
        match self {
            Stage::Opening { until, .. }
            | Stage::Searching { until }
            | Stage::Pausing { until }
            | Stage::Offered { until } => Some(until),
            Stage::Queued | Stage::Accepted | Stage::TakingOutput => None,
        }
    }
}

/// The host that is asked: another than this node, rather one that is not known to be unreachable.
fn choose(replicas: &[(PeerKey, Presence)], own: PeerKey) -> Option<PeerKey> {
    let others = replicas.iter().filter(|(peer, _)| *peer != own);
    // Unknown is as good as reachable, for silence proves nothing where no beacon was expected;
    // of equals the first is taken, so the order in which they are given decides.
    others.min_by_key(|(_, presence)| *presence == Presence::Unreachable).map(|(peer, _)| *peer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::call::{Calls, Input};
    use crate::proto::identity::{AgentId, Identity};

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
        let replicas = replicas.iter().map(|(seed, presence)| (key(*seed), *presence)).collect();
        let (agent, name) = (AgentId([0; 20]), "a@.".parse().unwrap());
        let wanted = Wanted { agent, name, replicas, size: 3, deadline: DEADLINE };
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
            (&[(1, Reachable), (2, Unreachable), (3, Reachable), (4, Reachable)][..], 3),
            (&[(2, Unreachable), (3, Unknown)], 3),
            (&[(1, Reachable), (2, Unreachable)], 2),
        ] {
            assert_eq!(opened(&call(&mut calls(), 1, replicas)).1, key(asked));
        }
        let nobody = ended(&call(&mut calls(), 1, &[(1, Reachable)]));
        assert_eq!(nobody, (Code::NotFound, Outcome::NotStarted, 0));
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
        let most = CALLS_PER_HOST_MAX as u32;
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
        assert_eq!(tell(&mut calls, NOW, Input::GiveUp { call: id(most) }), [], "it had no stream");
        let freed = tell(&mut calls, NOW, Input::GiveUp { call: id(0) });
        let next = OutboundStream { call: id(most + 1), number: 1 };
        assert_eq!(freed, [Output::Close(streams[0]), Output::Open { stream: next, host: key(2) }]);
        calls.handle_timeout(DEADLINE);
        let ends = outputs(&mut calls).into_iter().filter(|output| matches!(output, Output::Ended { .. }));
        assert_eq!(ends.count(), most as usize + 2);
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
