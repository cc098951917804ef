//! The calls that this node takes: who is let in, when the input may be sent, when the work begins and ends.
//!
//! A call has its permit from its offer on, and keeps it until its stream is closed, which ends the work too. Its input is drawn
//! when it has a place of its agent, so what waits for one has not begun.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::registry::{CallPermit, CallRegistry};
use super::{Access, CallFailure, CallId, CallOffer, InboundStream, Incarnation, Outcome, Output};
use crate::proto::address_block::Source;
use crate::proto::code::Code;
use crate::proto::identity::PeerKey;
use crate::proto::limits::{
    CALL_ALIVE_INTERVAL, CALL_BYTES_MAX, CALL_ENDS_AHEAD, CALL_INPUT_BYTES_PER_SECOND, CALL_INPUT_PATIENCE,
    CALL_WORK_LEAST,
};
use crate::proto::name::FullName;

/// The calls that a node takes; as many as the registry admits.
#[derive(Debug)]
pub(super) struct Host {
    registry: CallRegistry,
    calls: BTreeMap<InboundStream, InboundCall>,
    /// The stream of each call, so that an earlier one makes way for a later.
    streams: BTreeMap<(PeerKey, CallId), InboundStream>,
    /// When something is due for a call; one entry for each that is not over.
    timers: BTreeSet<(Duration, InboundStream)>,
}

/// One call that was let in.
#[derive(Debug)]
struct InboundCall {
    peer: PeerKey,
    call: CallId,
    permit: CallPermit,
    deadline: Duration,
    size: usize,
    /// When it was offered, and from then on when it was accepted.
    accepted_at: Duration,
    /// When more of the input must be here.
    input_until: Duration,
    /// When the caller is told next that it is here.
    alive_at: Duration,
    stage: Stage,
    /// Its entry among the timers.
    timer: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It waits for a place of its agent.
    Waiting,
    /// Its input comes.
    Input,
    Running,
    /// The last word is on its way to the caller.
    Ended,
}

impl Host {
    pub(super) fn new(incarnation: Incarnation) -> Host {
        Host {
            registry: CallRegistry::new(incarnation),
            calls: BTreeMap::new(),
            streams: BTreeMap::new(),
            timers: BTreeSet::new(),
        }
    }

    pub(super) fn handle_offer(
        &mut self,
        now: Duration,
        stream: InboundStream,
        (peer, source): (PeerKey, Option<Source>),
        offer: &CallOffer,
        access: Access,
        outputs: &mut VecDeque<Output>,
    ) {
        // Access first: who may not call takes no place and learns nothing of the load.
        let mut admitted =
            access.check(&offer.name).and_then(|()| self.registry.admit(now, peer, source, offer));
        if admitted.as_ref().is_err_and(|failure| failure.code == Code::Busy)
            && let Some(late) = self.registry.to_replace(now, peer, source)
            && let Some(stream) = self.streams.get(&late).copied()
        {
            let message =
                "others wait for the place of this call, which has not begun; try again in a moment";
            self.refuse(stream, CallFailure::new(Code::Busy, Outcome::NotStarted, message), outputs);
            admitted = self.registry.admit(now, peer, source, offer);
        }
        let (permit, time) = match admitted {
            Ok(admitted) => admitted,
            Err(failure) => return outputs.push_back(Output::Refuse { stream, failure }),
        };
        // The registry took the permit of an earlier offer of this call.
        if let Some(earlier) = self.streams.get(&(peer, offer.call)).copied() {
            self.drop_stream(earlier, outputs);
        }
        // The registry lets nothing in that is larger than a `usize` can be.
        let size = usize::try_from(offer.size).unwrap_or(usize::MAX);
        let deadline = now + time.saturating_sub(CALL_ENDS_AHEAD).max(time / 2);
        let call = InboundCall {
            peer,
            call: offer.call,
            permit,
            deadline,
            size,
            accepted_at: now,
            input_until: deadline,
            alive_at: now + CALL_ALIVE_INTERVAL,
            stage: Stage::Waiting,
            timer: deadline,
        };
        self.calls.insert(stream, call);
        self.streams.insert((peer, offer.call), stream);
        self.set_timer(stream);
        outputs.push_back(Output::WantPlace { stream, agent: offer.agent_id() });
    }

    /// The call has a place: its input may come.
    pub(super) fn handle_placed(
        &mut self,
        now: Duration,
        stream: InboundStream,
        outputs: &mut VecDeque<Output>,
    ) {
        let Some(call) = self.calls.get_mut(&stream).filter(|call| call.stage == Stage::Waiting) else {
            return;
        };
        let had = call.deadline.saturating_sub(call.accepted_at);
        if call.deadline.saturating_sub(now) < CALL_WORK_LEAST.min(had / 4) {
            return self.refuse(stream, waited_in_vain(), outputs);
        }
        (call.stage, call.accepted_at) = (Stage::Input, now);
        call.input_until = call.deadline.min(now + CALL_INPUT_PATIENCE);
        let (incarnation, size) = (self.registry.incarnation(), call.size);
        outputs.push_back(Output::Accept { stream, incarnation, size });
        self.set_timer(stream);
    }

    pub(super) fn handle_waits(
        &mut self,
        stream: InboundStream,
        ahead: usize,
        outputs: &mut VecDeque<Output>,
    ) {
        if self.calls.get(&stream).is_some_and(|call| call.stage == Stage::Waiting) {
            outputs.push_back(Output::SayQueued { stream, ahead });
        }
    }

    pub(super) fn handle_not_placed(
        &mut self,
        stream: InboundStream,
        failure: CallFailure,
        outputs: &mut VecDeque<Output>,
    ) {
        if self.calls.get(&stream).is_some_and(|call| call.stage == Stage::Waiting) {
            self.refuse(stream, failure, outputs);
        }
    }

    /// So many bytes of the input are here by now; the work begins with the last of them.
    pub(super) fn handle_input(
        &mut self,
        stream: InboundStream,
        size: usize,
        outputs: &mut VecDeque<Output>,
    ) {
        let Some(call) = self.calls.get_mut(&stream) else { return };
        if call.stage != Stage::Input || size > call.size {
            return self.drop_stream(stream, outputs);
        }
        if !self.registry.take_bytes(call.permit, size) {
            let message = "the host has no room for the input; try again in a moment, with less at once";
            let failure = CallFailure::new(Code::Busy, Outcome::NotStarted, message);
            return self.refuse(stream, failure, outputs);
        }
        if size < call.size {
            // Whoever sends nothing holds a place for seconds, whatever it announced.
            let until = call.accepted_at + CALL_INPUT_PATIENCE + transfer_time(size);
            call.input_until = call.deadline.min(until);
            return self.set_timer(stream);
        }
        // The size first: `begin` already marks the call as one that may have run.
        if !self.registry.begin(call.permit) {
            return self.drop_stream(stream, outputs);
        }
        call.stage = Stage::Running;
        outputs.push_back(Output::Run { stream, deadline: call.deadline });
        self.set_timer(stream);
    }

    pub(super) fn handle_work_ended(
        &mut self,
        stream: InboundStream,
        ended: Result<usize, CallFailure>,
        outputs: &mut VecDeque<Output>,
    ) {
        let Some(call) = self.calls.get_mut(&stream).filter(|call| call.stage == Stage::Running) else {
            return;
        };
        // The permit stays: the output fills memory until the caller has read it.
        call.stage = Stage::Ended;
        self.timers.remove(&(call.timer, stream));
        if ended.is_ok() {
            self.registry.know(call.peer);
        }
        // The work is done even where its output cannot be sent; to call again would do it twice.
        let failed = |code, message| Err(CallFailure::new(code, Outcome::Done, message));
        let ended = match ended {
            Ok(size) if size > CALL_BYTES_MAX => {
                failed(Code::TooLarge, format!("the output has {size} bytes, more than {CALL_BYTES_MAX}"))
            }
            Ok(size) if !self.registry.hold(call.permit, size) => {
                failed(Code::Busy, "too many large outputs wait to be read; ask for fewer at once".into())
            }
            ended => ended,
        };
        outputs.push_back(match ended {
            Ok(size) => Output::Answer { stream, size },
            Err(failure) => Output::Refuse { stream, failure: failure.bounded() },
        });
    }

    pub(super) fn handle_gone(&mut self, stream: InboundStream) {
        let Some(call) = self.calls.remove(&stream) else { return };
        self.registry.end(call.permit);
        self.timers.remove(&(call.timer, stream));
        if self.streams.get(&(call.peer, call.call)) == Some(&stream) {
            self.streams.remove(&(call.peer, call.call));
        }
    }

    /// Inputs that did not come in time do not come any more, and callers are told that this node still has their calls. What
    /// runs is ended by whoever runs it.
    pub(super) fn handle_timeout(&mut self, now: Duration, outputs: &mut VecDeque<Output>) {
        while let Some((_, stream)) = self.timers.first().copied().filter(|(due, _)| *due <= now) {
            let Some(call) = self.calls.get_mut(&stream) else { return };
            if call.stage == Stage::Running || now < call.input_until {
                call.alive_at = now + CALL_ALIVE_INTERVAL;
                outputs.push_back(Output::SayAlive(stream));
                self.set_timer(stream);
                continue;
            }
            let message = "the input did not come in time; call again over a faster link, or with less";
            let failure = match call.stage {
                Stage::Waiting => waited_in_vain(),
                _ => CallFailure::new(Code::Deadline, Outcome::NotStarted, message),
            };
            self.refuse(stream, failure, outputs);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Nothing of the call has run, and nothing will: the place is free at once, and the caller is told.
    fn refuse(&mut self, stream: InboundStream, failure: CallFailure, outputs: &mut VecDeque<Output>) {
        let Some(call) = self.calls.get_mut(&stream) else { return };
        call.stage = Stage::Ended;
        self.timers.remove(&(call.timer, stream));
        self.registry.void(call.permit);
        outputs.push_back(Output::Refuse { stream, failure });
    }

    fn set_timer(&mut self, stream: InboundStream) {
        let Some(call) = self.calls.get_mut(&stream) else { return };
        self.timers.remove(&(call.timer, stream));
        call.timer = match call.stage {
            Stage::Waiting | Stage::Input => call.alive_at.min(call.input_until),
            Stage::Running | Stage::Ended => call.alive_at,
        };
        self.timers.insert((call.timer, stream));
    }

    fn drop_stream(&mut self, stream: InboundStream, outputs: &mut VecDeque<Output>) {
        // Nothing follows a `Drop`, so the place is freed here and not when the driver says so.
        self.handle_gone(stream);
        outputs.push_back(Output::Drop(stream));
    }
}

fn waited_in_vain() -> CallFailure {
    let message = "the call waited for a free place of the agent until its deadline";
    CallFailure::new(Code::Deadline, Outcome::NotStarted, message)
}

/// How long so many bytes take over a slow link.
pub(super) fn transfer_time(size: usize) -> Duration {
    Duration::from_secs_f64(size as f64 / CALL_INPUT_BYTES_PER_SECOND as f64)
}

impl Access {
    fn check(self, name: &FullName) -> Result<(), CallFailure> {
        let (code, message) = match self {
            Access::Granted => return Ok(()),
            Access::NotFound => (Code::NotFound, format!("{name} is not run by this host")),
            Access::NotAllowed => {
                (Code::NotAllowed, format!("the host of {name} does not let this peer call it"))
            }
        };
        Err(CallFailure::new(code, Outcome::NotStarted, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::call::CallContext;
    use crate::proto::identity::{AgentId, Identity};

    const NOW: Duration = Duration::from_secs(5);
    const STREAMS: [InboundStream; 2] = [InboundStream(1), InboundStream(2)];

    fn offer(attempt: u32) -> CallOffer {
        CallOffer {
            call: CallId([1; 16]),
            agent: [0; 20],
            name: "a@.".parse().unwrap(),
            left_ms: 30_000,
            size: 3,
            attempt,
            expected: None,
            context: CallContext::default(),
            detached: false,
            stream: false,
        }
    }

    fn offered(host: &mut Host, stream: InboundStream, attempt: u32, access: Access) -> Vec<Output> {
        let mut outputs = VecDeque::new();
        let peer = Identity::from_seed([1; 32]).key();
        host.handle_offer(NOW, stream, (peer, None), &offer(attempt), access, &mut outputs);
        if outputs.back() == Some(&Output::WantPlace { stream, agent: AgentId([0; 20]) }) {
            outputs.pop_back();
            host.handle_placed(NOW, stream, &mut outputs);
        }
        outputs.into()
    }

    fn accepted(stream: InboundStream) -> Output {
        Output::Accept { stream, incarnation: Incarnation(7), size: 3 }
    }

    #[test]
    fn what_may_not_be_called_takes_no_permit() {
        let mut host = Host::new(Incarnation(7));
        for (access, code) in [(Access::NotFound, Code::NotFound), (Access::NotAllowed, Code::NotAllowed)] {
            let outputs = offered(&mut host, STREAMS[0], 1, access);
            assert!(matches!(&outputs[..], [Output::Refuse { failure, .. }] if failure.code == code));
        }
        assert_eq!(offered(&mut host, STREAMS[0], 1, Access::Granted), [accepted(STREAMS[0])]);
    }

    #[test]
    fn a_later_offer_takes_the_place_of_one_whose_input_is_not_here() {
        let mut host = Host::new(Incarnation(7));
        offered(&mut host, STREAMS[0], 1, Access::Granted);
        let outputs = offered(&mut host, STREAMS[1], 2, Access::Granted);
        assert_eq!(outputs, [Output::Drop(STREAMS[0]), accepted(STREAMS[1])]);
        let mut outputs = VecDeque::new();
        host.handle_input(STREAMS[0], 3, &mut outputs);
        assert!(outputs.is_empty(), "it is void");
        host.handle_gone(STREAMS[0]);
        host.handle_input(STREAMS[1], 3, &mut outputs);
        let deadline = NOW + Duration::from_secs(30) - CALL_ENDS_AHEAD;
        assert_eq!(outputs, [Output::Run { stream: STREAMS[1], deadline }]);
        assert_eq!((host.calls.len(), host.streams.len(), host.timers.len()), (1, 1, 1));
        host.handle_gone(STREAMS[1]);
        assert_eq!((host.calls.len(), host.streams.len()), (0, 0));
    }

    #[test]
    fn an_input_of_another_size_or_none_by_the_deadline_runs_nothing() {
        let mut host = Host::new(Incarnation(7));
        let mut outputs = VecDeque::new();
        offered(&mut host, STREAMS[0], 1, Access::Granted);
        host.handle_input(STREAMS[0], 4, &mut outputs);
        offered(&mut host, STREAMS[1], 1, Access::Granted);
        assert_eq!(outputs.pop_front(), Some(Output::Drop(STREAMS[0])));
        let input_until = NOW + CALL_INPUT_PATIENCE;
        host.handle_timeout(input_until, &mut outputs);
        let said = outputs.pop_front();
        let is_late =
            |failure: &CallFailure| (failure.code, failure.outcome) == (Code::Deadline, Outcome::NotStarted);
        assert!(matches!(&said, Some(Output::Refuse { failure, .. }) if is_late(failure)), "{said:?}");
        host.handle_input(STREAMS[1], 3, &mut outputs);
        assert_eq!(outputs, [Output::Drop(STREAMS[1])], "it runs no more");
        assert_eq!((host.calls.len(), host.poll_timeout()), (0, None));
    }

    /// When an input is waited for no more.
    fn until_refused(host: &mut Host) -> Duration {
        loop {
            let (due, mut outputs) = (host.poll_timeout().unwrap(), VecDeque::new());
            host.handle_timeout(due, &mut outputs);
            match outputs.pop_front() {
                Some(Output::SayAlive(_)) => {}
                Some(Output::Refuse { .. }) => return due,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_caller_hears_from_its_host_every_few_seconds_as_long_as_the_call_is_there() {
        let mut host = Host::new(Incarnation(7));
        let mut outputs = VecDeque::new();
        offered(&mut host, STREAMS[0], 1, Access::Granted);
        host.handle_input(STREAMS[0], 3, &mut outputs);
        outputs.clear();
        for times in 1..5 {
            let due = host.poll_timeout().unwrap();
            assert_eq!(due, NOW + CALL_ALIVE_INTERVAL * times);
            host.handle_timeout(due, &mut outputs);
            assert_eq!(outputs.pop_front(), Some(Output::SayAlive(STREAMS[0])));
        }
        host.handle_work_ended(STREAMS[0], Ok(1), &mut outputs);
        assert_eq!(host.poll_timeout(), None);
    }

    #[test]
    fn an_input_has_time_by_what_is_here_of_it_and_no_more() {
        const SIZE: usize = 3 * 1024 * 1024;
        for (arrived, seconds) in [(0, 2), (64 * 1024, 3), (SIZE - 1, 49)] {
            let mut host = Host::new(Incarnation(7));
            let mut outputs = VecDeque::new();
            let offer = CallOffer { size: SIZE as u64, left_ms: 300_000, ..offer(1) };
            let peer = Identity::from_seed([1; 32]).key();
            host.handle_offer(NOW, STREAMS[0], (peer, None), &offer, Access::Granted, &mut outputs);
            host.handle_placed(NOW, STREAMS[0], &mut outputs);
            host.handle_input(STREAMS[0], arrived, &mut outputs);
            assert_eq!((until_refused(&mut host) - NOW).as_secs(), seconds, "{arrived}");
        }
    }

    #[test]
    fn a_call_that_waits_for_a_place_has_not_begun_and_says_so_at_its_deadline() {
        let mut host = Host::new(Incarnation(7));
        let mut outputs = VecDeque::new();
        let peer = Identity::from_seed([1; 32]).key();
        host.handle_offer(NOW, STREAMS[0], (peer, None), &offer(1), Access::Granted, &mut outputs);
        outputs.clear();
        host.handle_waits(STREAMS[0], 3, &mut outputs);
        assert_eq!(outputs.pop_front(), Some(Output::SayQueued { stream: STREAMS[0], ahead: 3 }));
        assert_eq!(until_refused(&mut host), NOW + Duration::from_secs(30) - CALL_ENDS_AHEAD);
        host.handle_placed(NOW, STREAMS[0], &mut outputs);
        host.handle_input(STREAMS[0], 3, &mut outputs);
        assert_eq!(outputs, [Output::Drop(STREAMS[0])], "a place that comes too late runs nothing");
        let mut host = Host::new(Incarnation(7));
        host.handle_offer(NOW, STREAMS[0], (peer, None), &offer(1), Access::Granted, &mut outputs);
        host.handle_placed(NOW + Duration::from_millis(29_900), STREAMS[0], &mut outputs);
        let is_refused = |output: &Output| matches!(output, Output::Refuse { failure, .. } if failure.code == Code::Deadline);
        assert!(
            outputs.back().is_some_and(is_refused),
            "nor one that comes when there is no time left: {outputs:?}"
        );
    }

    #[test]
    fn an_input_that_comes_in_parts_runs_with_the_last_and_one_that_is_too_long_never() {
        let mut host = Host::new(Incarnation(7));
        let mut outputs = VecDeque::new();
        offered(&mut host, STREAMS[0], 1, Access::Granted);
        host.handle_input(STREAMS[0], 1, &mut outputs);
        assert!(outputs.is_empty());
        host.handle_input(STREAMS[0], 3, &mut outputs);
        assert!(matches!(&outputs.pop_front(), Some(Output::Run { .. })));
        host.handle_input(STREAMS[0], 3, &mut outputs);
        assert_eq!(outputs, [Output::Drop(STREAMS[0])], "nothing comes after the input");
    }
}
