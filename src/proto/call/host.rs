//! The calls that this node takes: who is let in, when the input may be sent, when the work begins and ends.
//!
//! A call has its permit from its offer on, and keeps it until its answer is read or not asked for any more. Its input is drawn
//! when it has a place of its agent, so what waits for one has not begun, and ends with its stream. Work that has begun goes on
//! for a while when its stream is lost, and its caller may ask for it on another. It is named by the stream on which it was
//! accepted, whatever becomes of that.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::refusals::{lost_answer, stopped, voided, waited_in_vain};
use super::registry::{CallPermit, CallRegistry, Known};
use super::{
    Access, CallAttach, CallFailure, CallId, CallOffer, InboundStream, Incarnation, Outcome, Output,
};
use crate::proto::address_block::Source;
use crate::proto::code::Code;
use crate::proto::identity::PeerKey;
use crate::proto::limits::{
    CALL_ALIVE_INTERVAL, CALL_ATTACH_KEPT, CALL_BYTES_MAX, CALL_ENDS_AHEAD, CALL_ENDS_KEPT_MAX,
    CALL_ENDS_KEPT_PER_PEER_MAX, CALL_INPUT_BYTES_PER_SECOND, CALL_INPUT_PATIENCE,
    CALL_OUTPUTS_KEPT_BYTES_MAX, CALL_OUTPUTS_KEPT_BYTES_PER_PEER_MAX, CALL_WORK_LEAST,
};

/// The calls that a node takes; as many as the registry admits.
#[derive(Debug)]
pub(super) struct Host {
    registry: CallRegistry,
    /// By the stream on which each was offered.
    calls: BTreeMap<InboundStream, InboundCall>,
    /// Which call each stream that is open is for.
    streams: BTreeMap<InboundStream, InboundStream>,
    /// The call of each id, so that an earlier offer makes way for a later, and who asks again finds it.
    ids: BTreeMap<(PeerKey, CallId), InboundStream>,
    /// When something is due for a call; one entry for each for which something is.
    timers: BTreeSet<(Duration, InboundStream)>,
    /// Ends that could not be told, of each caller and of all.
    kept: BTreeMap<PeerKey, Kept>,
    kept_of_all: Kept,
}

/// Ends of calls that are kept for their callers.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    ends: usize,
    bytes: usize,
}

/// One call that was let in.
#[derive(Debug)]
struct InboundCall {
    peer: PeerKey,
    call: CallId,
    permit: CallPermit,
    /// The stream on which its caller listens; none while that is lost.
    stream: Option<InboundStream>,
    deadline: Duration,
    is_detached: bool,
    size: usize,
    /// When it was offered, and from then on when it was accepted.
    accepted_at: Duration,
    /// When more of the input must be here.
    input_until: Duration,
    /// When the caller is told next that it is here.
    alive_at: Duration,
    /// When it is forgotten, while its stream is lost.
    lost_until: Duration,
    /// Bytes of its output that count as kept, from the first time on that it could not be told.
    kept: Option<usize>,
    stage: Stage,
    /// Its entry among the timers.
    timer: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// It waits for a place of its agent.
    Waiting,
    /// Its input comes.
    Input,
    Running,
    /// It was refused before it began: the last word is on its way to the caller.
    Refused,
    /// The agent ended, with an output of so many bytes or a failure.
    Ended(Result<usize, CallFailure>),
}

impl Host {
    pub(super) fn new(incarnation: Incarnation) -> Host {
        Host {
            registry: CallRegistry::new(incarnation),
            calls: BTreeMap::new(),
            streams: BTreeMap::new(),
            ids: BTreeMap::new(),
            timers: BTreeSet::new(),
            kept: BTreeMap::new(),
            kept_of_all: Kept::default(),
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
        let mut admitted = access.check(offer).and_then(|()| self.registry.admit(now, peer, source, offer));
        if admitted.as_ref().is_err_and(|failure| failure.code == Code::Busy)
            && let Some(late) = self.registry.to_replace(now, peer, source)
            && let Some(work) = self.ids.get(&late).copied()
        {
            let message =
                "others wait for the place of this call, which has not begun; try again in a moment";
            self.refuse(work, CallFailure::new(Code::Busy, Outcome::NotStarted, message), outputs);
            admitted = self.registry.admit(now, peer, source, offer);
        }
        let (permit, time) = match admitted {
            Ok(admitted) => admitted,
            Err(failure) => return outputs.push_back(Output::Refuse { stream, failure }),
        };
        // The registry took the permit of an earlier offer of this call.
        if let Some(earlier) = self.ids.get(&(peer, offer.call)).copied() {
            self.drop_call(earlier, outputs);
        }
        // The registry lets nothing in that is larger than a `usize` can be.
        let size = usize::try_from(offer.size).unwrap_or(usize::MAX);
        let deadline = now + time.saturating_sub(CALL_ENDS_AHEAD).max(time / 2);
        let call = InboundCall {
            peer,
            call: offer.call,
            permit,
            stream: Some(stream),
            deadline,
            is_detached: offer.detached,
            size,
            accepted_at: now,
            input_until: deadline,
            alive_at: now + CALL_ALIVE_INTERVAL,
            lost_until: Duration::MAX,
            kept: None,
            stage: Stage::Waiting,
            timer: deadline,
        };
        self.calls.insert(stream, call);
        self.streams.insert(stream, stream);
        self.ids.insert((peer, offer.call), stream);
        self.set_timer(stream);
        outputs.push_back(Output::WantPlace { stream, agent: offer.agent_id() });
    }

    /// A caller asks for a call whose stream was lost. What has not begun never will, and it is told so.
    pub(super) fn handle_attached(
        &mut self,
        now: Duration,
        stream: InboundStream,
        peer: PeerKey,
        attach: &CallAttach,
        outputs: &mut VecDeque<Output>,
    ) {
        let mut refuse = |failure| outputs.push_back(Output::Refuse { stream, failure });
        match self.registry.attach(now, peer, attach) {
            Err(failure) => refuse(failure),
            Ok(Known::Begun { is_done }) => match self.ids.get(&(peer, attach.call)).copied() {
                Some(work) => self.resume(now, stream, work, outputs),
                None if is_done => refuse(lost_answer()),
                None => refuse(stopped()),
            },
            Ok(Known::Voided) => {
                refuse(voided());
                if let Some(work) = self.ids.get(&(peer, attach.call)).copied() {
                    self.drop_call(work, outputs);
                }
            }
        }
    }

    /// The caller of work listens on another stream from now on.
    fn resume(
        &mut self,
        now: Duration,
        stream: InboundStream,
        work: InboundStream,
        outputs: &mut VecDeque<Output>,
    ) {
        let Some(call) = self.calls.get_mut(&work) else { return };
        // The caller says that its stream is lost, and this end may not have noticed yet.
        if let Some(earlier) = call.stream.replace(stream) {
            self.streams.remove(&earlier);
            outputs.push_back(Output::Drop(earlier));
        }
        self.streams.insert(stream, work);
        call.alive_at = now + CALL_ALIVE_INTERVAL;
        match &call.stage {
            Stage::Ended(Ok(size)) => outputs.push_back(Output::Answer { stream, work, size: *size }),
            Stage::Ended(Err(failure)) => {
                outputs.push_back(Output::Refuse { stream, failure: failure.clone() });
            }
            _ => outputs.push_back(Output::Resume { stream, work }),
        }
        self.set_timer(work);
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
            return self.drop_call(stream, outputs);
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
            return self.drop_call(stream, outputs);
        }
        call.stage = Stage::Running;
        outputs.push_back(Output::Run { stream, deadline: call.deadline });
        self.set_timer(stream);
    }

    pub(super) fn handle_work_ended(
        &mut self,
        now: Duration,
        work: InboundStream,
        ended: Result<usize, CallFailure>,
        outputs: &mut VecDeque<Output>,
    ) {
        let Some(call) = self.calls.get_mut(&work).filter(|call| call.stage == Stage::Running) else {
            return;
        };
        if ended.is_ok() {
            self.registry.know(call.peer);
        }
        // What the deadline cut off did not come to an end of its own.
        if ended.as_ref().err().is_none_or(|failure| failure.outcome == Outcome::Done) {
            self.registry.note_done(call.permit);
        }
        // The work is done even where its output cannot be sent; to call again would do it twice.
        let failed = |code, message| Err(CallFailure::new(code, Outcome::Done, message));
        let ended = match ended {
            Ok(size) if size > CALL_BYTES_MAX => {
                failed(Code::TooLarge, format!("the output has {size} bytes, more than {CALL_BYTES_MAX}"))
            }
            // The permit stays: the output fills memory until the caller has read it.
            Ok(size) if !self.registry.hold(call.permit, size) => {
                failed(Code::Busy, "too many large outputs wait to be read; ask for fewer at once".into())
            }
            Ok(size) => Ok(size),
            Err(failure) => Err(failure.bounded()),
        };
        call.stage = Stage::Ended(ended.clone());
        match (call.stream, ended) {
            (Some(stream), Ok(size)) => outputs.push_back(Output::Answer { stream, work, size }),
            (Some(stream), Err(failure)) => outputs.push_back(Output::Refuse { stream, failure }),
            (None, ended) => self.keep(now, work, ended.unwrap_or_default(), outputs),
        }
        self.set_timer(work);
    }

    /// An end that could not be told is kept as long as the id; it holds no place meanwhile.
    fn keep(&mut self, now: Duration, work: InboundStream, size: usize, outputs: &mut VecDeque<Output>) {
        let Some(call) = self.calls.get_mut(&work) else { return };
        let peer = call.peer;
        if call.kept.is_none() {
            call.kept = Some(size);
            call.lost_until = self.registry.kept_until(call.permit).unwrap_or(now);
            self.registry.end(call.permit);
            self.kept.entry(peer).or_default().add(size);
            self.kept_of_all.add(size);
        }
        self.set_timer(work);
        let of_peer = Kept { ends: CALL_ENDS_KEPT_PER_PEER_MAX, bytes: CALL_OUTPUTS_KEPT_BYTES_PER_PEER_MAX };
        while self.kept.get(&peer).is_some_and(|kept| kept.exceeds(of_peer)) {
            self.forget_oldest(|call| call.peer == peer, outputs);
        }
        let of_all = Kept { ends: CALL_ENDS_KEPT_MAX, bytes: CALL_OUTPUTS_KEPT_BYTES_MAX };
        while self.kept_of_all.exceeds(of_all) {
            self.forget_oldest(|_| true, outputs);
        }
    }

    fn forget_oldest(&mut self, of: impl Fn(&InboundCall) -> bool, outputs: &mut VecDeque<Output>) {
        let oldest = self.calls.iter().find(|(_, call)| call.kept.is_some() && of(call));
        if let Some(work) = oldest.map(|(work, _)| *work) {
            self.drop_call(work, outputs);
        }
    }

    /// The caller waits no more, and said so.
    pub(super) fn handle_cancelled(&mut self, stream: InboundStream, outputs: &mut VecDeque<Output>) {
        if let Some(work) = self.streams.get(&stream).copied() {
            self.forget(work, outputs);
        }
    }

    /// The caller has the answer.
    pub(super) fn handle_delivered(&mut self, stream: InboundStream, outputs: &mut VecDeque<Output>) {
        if let Some(work) = self.streams.get(&stream).copied()
            && self.calls.get(&work).is_some_and(|call| matches!(call.stage, Stage::Ended(_)))
        {
            self.forget(work, outputs);
        }
    }

    pub(super) fn handle_gone(
        &mut self,
        now: Duration,
        stream: InboundStream,
        outputs: &mut VecDeque<Output>,
    ) {
        let Some(work) = self.streams.remove(&stream) else { return };
        let Some(call) = self.calls.get_mut(&work) else { return };
        call.stream = None;
        match call.stage {
            // Nothing of it has run: it ends with its stream. Whoever sent an input may ask again, and is told that it did not
            // begin: a late copy of the offer must not run it.
            Stage::Input => {
                self.registry.void(call.permit);
                self.forget(work, outputs);
            }
            Stage::Waiting | Stage::Refused => self.forget(work, outputs),
            Stage::Running => {
                call.lost_until = if call.is_detached { Duration::MAX } else { now + CALL_ATTACH_KEPT };
                self.set_timer(work);
            }
            Stage::Ended(Ok(size)) => self.keep(now, work, size, outputs),
            Stage::Ended(Err(_)) => self.keep(now, work, 0, outputs),
        }
    }

    /// Inputs that did not come in time do not come any more, and callers are told that this node still has their calls. What
    /// runs is ended by whoever runs it, unless its caller is gone for too long.
    pub(super) fn handle_timeout(&mut self, now: Duration, outputs: &mut VecDeque<Output>) {
        while let Some((_, work)) = self.timers.first().copied().filter(|(due, _)| *due <= now) {
            let Some(call) = self.calls.get_mut(&work) else { return };
            let Some(stream) = call.stream else {
                self.forget(work, outputs);
                continue;
            };
            if call.stage == Stage::Running || now < call.input_until {
                call.alive_at = now + CALL_ALIVE_INTERVAL;
                outputs.push_back(Output::SayAlive(stream));
                self.set_timer(work);
                continue;
            }
            let message = "the input did not come in time; call again over a faster link, or with less";
            let failure = match call.stage {
                Stage::Waiting => waited_in_vain(),
                _ => CallFailure::new(Code::Deadline, Outcome::NotStarted, message),
            };
            self.refuse(work, failure, outputs);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Nothing of the call has run, and nothing will: the place is free at once, and the caller is told.
    fn refuse(&mut self, work: InboundStream, failure: CallFailure, outputs: &mut VecDeque<Output>) {
        let Some(call) = self.calls.get_mut(&work) else { return };
        call.stage = Stage::Refused;
        self.registry.void(call.permit);
        if let Some(stream) = call.stream {
            outputs.push_back(Output::Refuse { stream, failure });
        }
        self.set_timer(work);
    }

    fn set_timer(&mut self, work: InboundStream) {
        let Some(call) = self.calls.get_mut(&work) else { return };
        self.timers.remove(&(call.timer, work));
        call.timer = match (call.stream, &call.stage) {
            (None, _) => call.lost_until,
            (_, Stage::Waiting | Stage::Input) => call.alive_at.min(call.input_until),
            (_, Stage::Running) => call.alive_at,
            (_, Stage::Refused | Stage::Ended(_)) => Duration::MAX,
        };
        if call.timer < Duration::MAX {
            self.timers.insert((call.timer, work));
        }
    }

    fn drop_call(&mut self, work: InboundStream, outputs: &mut VecDeque<Output>) {
        // Nothing follows a `Drop`, so the place is freed here and not when the driver says so.
        let stream = self.calls.get(&work).and_then(|call| call.stream);
        self.forget(work, outputs);
        outputs.extend(stream.map(Output::Drop));
    }

    /// Nothing more is done or said of a call.
    fn forget(&mut self, work: InboundStream, outputs: &mut VecDeque<Output>) {
        let Some(call) = self.calls.remove(&work) else { return };
        self.registry.end(call.permit);
        self.timers.remove(&(call.timer, work));
        if self.ids.get(&(call.peer, call.call)) == Some(&work) {
            self.ids.remove(&(call.peer, call.call));
        }
        if let Some(stream) = call.stream {
            self.streams.remove(&stream);
        }
        if let Some(size) = call.kept {
            self.kept_of_all.take(size);
            let of_peer = self.kept.entry(call.peer).or_default();
            of_peer.take(size);
            if of_peer.ends == 0 {
                self.kept.remove(&call.peer);
            }
        }
        match call.stage {
            Stage::Running => outputs.push_back(Output::Stop { work }),
            Stage::Ended(Ok(_)) => outputs.push_back(Output::Forget { work }),
            Stage::Waiting | Stage::Input | Stage::Refused | Stage::Ended(Err(_)) => {}
        }
    }
}

impl Kept {
    fn add(&mut self, size: usize) {
        (self.ends, self.bytes) = (self.ends + 1, self.bytes + size);
    }

    fn take(&mut self, size: usize) {
        (self.ends, self.bytes) = (self.ends - 1, self.bytes - size);
    }

    fn exceeds(self, most: Kept) -> bool {
        self.ends > most.ends || self.bytes > most.bytes
    }
}

/// How long so many bytes take over a slow link.
pub(super) fn transfer_time(size: usize) -> Duration {
    Duration::from_secs_f64(size as f64 / CALL_INPUT_BYTES_PER_SECOND as f64)
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
            again: false,
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
        host.handle_gone(NOW, STREAMS[0], &mut outputs);
        host.handle_input(STREAMS[1], 3, &mut outputs);
        let deadline = NOW + Duration::from_secs(30) - CALL_ENDS_AHEAD;
        assert_eq!(outputs, [Output::Run { stream: STREAMS[1], deadline }]);
        assert_eq!((host.calls.len(), host.streams.len(), host.timers.len()), (1, 1, 1));
        outputs.clear();
        host.handle_gone(NOW, STREAMS[1], &mut outputs);
        assert!(outputs.is_empty(), "what has begun goes on for a while");
        host.handle_timeout(NOW + CALL_ATTACH_KEPT, &mut outputs);
        assert_eq!(outputs, [Output::Stop { work: STREAMS[1] }]);
        assert_eq!((host.calls.len(), host.streams.len(), host.ids.len(), host.timers.len()), (0, 0, 0, 0));
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
        host.handle_work_ended(NOW, STREAMS[0], Ok(1), &mut outputs);
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
        let ended = [Output::Stop { work: STREAMS[0] }, Output::Drop(STREAMS[0])];
        assert_eq!(outputs, ended, "nothing comes after the input");
    }

    fn begun(host: &mut Host, outputs: &mut VecDeque<Output>) -> PeerKey {
        offered(host, STREAMS[0], 1, Access::Granted);
        host.handle_input(STREAMS[0], 3, outputs);
        outputs.clear();
        Identity::from_seed([1; 32]).key()
    }

    fn attach() -> CallAttach {
        CallAttach { call: CallId([1; 16]), incarnation: Incarnation(7) }
    }

    fn refusal(output: Option<Output>) -> (Code, Outcome) {
        let Some(Output::Refuse { stream, failure }) = output else { panic!("{output:?}") };
        assert_eq!(stream, STREAMS[1]);
        (failure.code, failure.outcome)
    }

    #[test]
    fn who_lost_the_stream_of_its_call_listens_on_another_whether_the_host_noticed_or_not() {
        for has_noticed in [true, false] {
            let (mut host, mut outputs) = (Host::new(Incarnation(7)), VecDeque::new());
            let peer = begun(&mut host, &mut outputs);
            if has_noticed {
                host.handle_gone(NOW, STREAMS[0], &mut outputs);
            }
            host.handle_attached(NOW, STREAMS[1], peer, &attach(), &mut outputs);
            let resume = Output::Resume { stream: STREAMS[1], work: STREAMS[0] };
            let drop = (!has_noticed).then_some(Output::Drop(STREAMS[0]));
            assert_eq!(
                outputs.drain(..).collect::<Vec<_>>(),
                drop.into_iter().chain([resume]).collect::<Vec<_>>()
            );
            host.handle_gone(NOW, STREAMS[0], &mut outputs);
            host.handle_timeout(NOW + CALL_ATTACH_KEPT, &mut outputs);
            assert!(!outputs.contains(&Output::Stop { work: STREAMS[0] }), "it has a stream: {outputs:?}");
            outputs.clear();
            host.handle_work_ended(NOW, STREAMS[0], Ok(9), &mut outputs);
            let answer = Output::Answer { stream: STREAMS[1], work: STREAMS[0], size: 9 };
            assert_eq!(outputs.pop_front(), Some(answer));
            host.handle_delivered(STREAMS[1], &mut outputs);
            assert_eq!(outputs, [Output::Forget { work: STREAMS[0] }]);
            assert_eq!((host.calls.len(), host.timers.len(), host.kept.len()), (0, 0, 0));
        }
    }

    #[test]
    fn an_end_that_could_not_be_told_is_told_to_who_asks_again_as_long_as_its_id_is_known() {
        for ended in [Ok(9), Err(CallFailure::new(Code::AgentFailed, Outcome::Done, "no"))] {
            let (mut host, mut outputs) = (Host::new(Incarnation(7)), VecDeque::new());
            let peer = begun(&mut host, &mut outputs);
            host.handle_gone(NOW, STREAMS[0], &mut outputs);
            host.handle_work_ended(NOW, STREAMS[0], ended.clone(), &mut outputs);
            assert!(outputs.is_empty());
            host.handle_attached(NOW, STREAMS[1], peer, &attach(), &mut outputs);
            match ended {
                Ok(size) => {
                    let answer = Output::Answer { stream: STREAMS[1], work: STREAMS[0], size };
                    assert_eq!(outputs.pop_front(), Some(answer));
                }
                Err(_) => assert_eq!(refusal(outputs.pop_front()), (Code::AgentFailed, Outcome::Done)),
            }
            host.handle_gone(NOW, STREAMS[1], &mut outputs);
            host.handle_timeout(host.poll_timeout().unwrap(), &mut outputs);
            assert_eq!((host.calls.len(), host.timers.len(), host.kept.len()), (0, 0, 0));
            outputs.clear();
            host.handle_attached(NOW, STREAMS[1], peer, &attach(), &mut outputs);
            assert_eq!(
                refusal(outputs.pop_front()),
                (Code::AnswerLost, Outcome::Done),
                "it is not kept any more"
            );
        }
    }

    #[test]
    fn what_has_not_begun_is_voided_by_who_asks_for_it_and_another_run_knows_nothing() {
        let (mut host, mut outputs) = (Host::new(Incarnation(7)), VecDeque::new());
        offered(&mut host, STREAMS[0], 1, Access::Granted);
        let peer = Identity::from_seed([1; 32]).key();
        host.handle_attached(NOW, STREAMS[1], peer, &attach(), &mut outputs);
        assert_eq!(refusal(outputs.pop_front()), (Code::Unreachable, Outcome::NotStarted));
        assert_eq!(outputs.pop_front(), Some(Output::Drop(STREAMS[0])));
        // Nor is it run by what comes late.
        host.handle_input(STREAMS[0], 3, &mut outputs);
        assert!(outputs.is_empty());
        assert_eq!(refusal(offered(&mut host, STREAMS[1], 1, Access::Granted).pop()).0, Code::DuplicateCall);
        assert_eq!(
            offered(&mut host, STREAMS[1], 2, Access::Granted),
            [accepted(STREAMS[1])],
            "another offer is"
        );
        let mut host = Host::new(Incarnation(8));
        host.handle_attached(NOW, STREAMS[1], peer, &attach(), &mut outputs);
        assert_eq!(refusal(outputs.pop_front()), (Code::HostRestarted, Outcome::Unknown));
    }

    #[test]
    fn who_asks_for_calls_that_were_never_made_leaves_nothing_behind() {
        let (mut host, mut outputs) = (Host::new(Incarnation(7)), VecDeque::new());
        let before = format!("{host:?}");
        let peer = Identity::from_seed([1; 32]).key();
        for number in 0..100 {
            let attach = CallAttach { call: CallId([number; 16]), ..attach() };
            host.handle_attached(NOW, STREAMS[1], peer, &attach, &mut outputs);
            assert_eq!(refusal(outputs.pop_front()), (Code::Unreachable, Outcome::NotStarted));
        }
        assert_eq!(format!("{host:?}"), before);
    }

    #[test]
    fn one_caller_has_so_many_ends_kept_and_no_place_is_held_for_them() {
        let (mut host, mut outputs) = (Host::new(Incarnation(7)), VecDeque::new());
        let peer = Identity::from_seed([1; 32]).key();
        for number in 0..CALL_ENDS_KEPT_PER_PEER_MAX as u64 + 10 {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&number.to_be_bytes());
            let (stream, offer) = (InboundStream(number), CallOffer { call: CallId(id), ..offer(1) });
            host.handle_offer(NOW, stream, (peer, None), &offer, Access::Granted, &mut outputs);
            host.handle_placed(NOW, stream, &mut outputs);
            host.handle_input(stream, 3, &mut outputs);
            host.handle_work_ended(NOW, stream, Ok(1), &mut outputs);
            host.handle_gone(NOW, stream, &mut outputs);
        }
        assert_eq!(host.calls.len(), CALL_ENDS_KEPT_PER_PEER_MAX);
        let forgotten = outputs.iter().filter(|output| matches!(output, Output::Forget { .. })).count();
        assert_eq!(forgotten, 10, "the oldest");
        assert_eq!(host.calls.keys().next(), Some(&InboundStream(10)));
    }
}
