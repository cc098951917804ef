//! The calls that this node takes: who is let in, when the input may be sent, when the work begins and ends.
//!
//! A call has its permit before its input is sent, and keeps it until its stream is closed, which ends the work too.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::registry::{CallPermit, CallRegistry};
use super::{Access, CallFailure, CallId, CallOffer, InboundStream, Incarnation, Outcome, Output};
use crate::proto::address_block::Source;
use crate::proto::code::Code;
use crate::proto::identity::PeerKey;
use crate::proto::limits::{
    CALL_ALIVE_INTERVAL, CALL_BYTES_MAX, CALL_ENDS_AHEAD, CALL_INPUT_BYTES_PER_SECOND, CALL_INPUT_PATIENCE,
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
    /// When all of the input must be here.
    input_until: Duration,
    /// When the caller is told next that it is here.
    alive_at: Duration,
    stage: Stage,
    /// Its entry among the timers.
    timer: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its input comes, of this size.
    Input(usize),
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
            let message = "the input did not come, and others wait for the place; try again in a moment";
            self.refuse_input(stream, CallFailure::new(Code::Busy, Outcome::NotStarted, message), outputs);
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
        let input_until = now + time.min(CALL_INPUT_PATIENCE + transfer_time(size));
        let call = InboundCall {
            peer,
            call: offer.call,
            permit,
            deadline,
            input_until,
            alive_at: now + CALL_ALIVE_INTERVAL,
            stage: Stage::Input(size),
            timer: input_until,
        };
        self.calls.insert(stream, call);
        self.streams.insert((peer, offer.call), stream);
        self.set_timer(stream);
        outputs.push_back(Output::Accept { stream, incarnation: self.registry.incarnation(), size });
    }

    /// So many bytes of the input are here by now; the work begins with the last of them.
    pub(super) fn handle_input(
        &mut self,
        stream: InboundStream,
        size: usize,
        outputs: &mut VecDeque<Output>,
    ) {
        let Some(call) = self.calls.get_mut(&stream) else { return };
        let Stage::Input(announced) = call.stage else { return self.drop_stream(stream, outputs) };
        if size > announced {
            return self.drop_stream(stream, outputs);
        }
        if !self.registry.take_bytes(call.permit, size) {
            let message = "the host has no room for the input; try again in a moment, with less at once";
            let failure = CallFailure::new(Code::Busy, Outcome::NotStarted, message);
            return self.refuse_input(stream, failure, outputs);
        }
        if size < announced {
            return;
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
            self.refuse_input(
                stream,
                CallFailure::new(Code::Deadline, Outcome::NotStarted, message),
                outputs,
            );
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Nothing of the call has run, and nothing will: the place is free at once, and the caller is told.
    fn refuse_input(&mut self, stream: InboundStream, failure: CallFailure, outputs: &mut VecDeque<Output>) {
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
            Stage::Input(_) => call.alive_at.min(call.input_until),
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
    use crate::proto::identity::Identity;

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
        }
    }

    fn offered(host: &mut Host, stream: InboundStream, attempt: u32, access: Access) -> Vec<Output> {
        let mut outputs = VecDeque::new();
        let peer = Identity::from_seed([1; 32]).key();
        host.handle_offer(NOW, stream, (peer, None), &offer(attempt), access, &mut outputs);
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
        let input_until = NOW + CALL_INPUT_PATIENCE + transfer_time(3);
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
    fn an_input_has_time_by_its_size_and_no_more() {
        let mut host = Host::new(Incarnation(7));
        let long = CallOffer { left_ms: 300_000, ..offer(1) };
        for (size, seconds) in [(1, 5), (3 * 1024 * 1024, 53)] {
            let mut outputs = VecDeque::new();
            let offer = CallOffer { size, call: CallId([size as u8; 16]), ..long.clone() };
            let peer = Identity::from_seed([1; 32]).key();
            host.handle_offer(NOW, InboundStream(size), (peer, None), &offer, Access::Granted, &mut outputs);
            assert_eq!((until_refused(&mut host) - NOW).as_secs(), seconds, "{size}");
        }
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
