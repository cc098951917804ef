//! The hosts that a call asks at once: who is asked next, and who no more.

use std::cmp::min;
use std::time::Duration;

use super::super::attempts::Ran;
use super::super::candidates::Next;
use super::super::outbound::{Leg, OutboundCall, Stage, may_later};
use super::super::{CallId, OutboundStream, Output};
use super::{Caller, Outputs};
use crate::proto::code::Code;
use crate::proto::limits::{
    CALL_ACCEPT_PATIENCE, CALL_ATTACHES_MAX, CALL_OFFERS_AT_ONCE, CALL_OPEN_PATIENCE, CALL_SEARCH_TIME_MAX,
};

impl Caller {
    /// Turns to the next host, where none is asked.
    pub(super) fn go_on(&mut self, now: Duration, id: CallId, outputs: &mut Outputs) {
        let Caller { calls, hosts, .. } = self;
        let Some(call) = calls.get_mut(&id) else { return };
        if !call.legs.is_empty() {
            return self.ask_beside(now, id, outputs);
        }
        let (agent, balance) = (call.wanted.agent, call.wanted.balance);
        match call.candidates.next(now, |candidate| hosts.rank(now, candidate, &agent, balance)) {
            Some(Next::Ask(at)) => self.ask(now, id, at, outputs),
            Some(Next::LookFor(at)) => {
                let stage = Stage::Searching { until: now + CALL_SEARCH_TIME_MAX };
                call.legs.push(Leg { stage, ..Leg::new(at) });
                call.candidates.get_mut(at).is_asked = true;
                outputs.push_back(Output::Search { call: id, host: call.candidates.get(at).host() });
                self.set_timer(id);
            }
            None if call.refusal.as_ref().is_some_and(may_later) => self.repeat(now, id, outputs),
            None => self.end_refused(now, id, outputs),
        }
    }

    /// Offers a call that waits everywhere to one more host, if there is one that was not asked yet.
    pub(super) fn ask_beside(&mut self, now: Duration, id: CallId, outputs: &mut Outputs) {
        let Caller { calls, hosts, .. } = self;
        let Some(call) = calls.get_mut(&id) else { return };
        let waits = |leg: &Leg| matches!(leg.stage, Stage::Waiting { .. });
        let (agent, balance) = (call.wanted.agent, call.wanted.balance);
        if call.legs.len() < CALL_OFFERS_AT_ONCE
            && call.legs.iter().all(waits)
            && let Some(at) = call.candidates.beside(|it| hosts.rank(now, it, &agent, balance))
        {
            return self.ask(now, id, at, outputs);
        }
        self.set_timer(id);
    }

    fn ask(&mut self, now: Duration, id: CallId, at: usize, outputs: &mut Outputs) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.candidates.get_mut(at).is_asked = true;
        call.legs.push(Leg::new(at));
        let leg = call.legs.len() - 1;
        self.visit(now, id, leg, outputs);
    }

    /// Asks the host of a leg, once there is a stream for it.
    pub(super) fn visit(&mut self, now: Duration, id: CallId, leg: usize, outputs: &mut Outputs) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let host = call.host(leg);
        if self.hosts.take(now, host, call.wanted.agent, id) {
            return self.open(now, id, leg, outputs);
        }
        call.legs[leg].stage = Stage::Queued;
        self.set_timer(id);
    }

    /// Opens the next stream of a leg.
    pub(super) fn open(&mut self, now: Duration, id: CallId, leg: usize, outputs: &mut Outputs) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        // The number makes all that earlier streams of the leg may still report stale.
        call.streams += 1;
        let (stream, at) = (OutboundStream { call: id, number: call.streams }, call.legs[leg].at);
        call.legs[leg].stream = stream.number;
        let host = call.candidates.get(at).host();
        let opens_until = match call.legs[leg].lost {
            Some(lost) => lost.until,
            None => call.candidates.get_mut(at).note_opening(now),
        };
        let is_patient = call.candidates.is_thorough || call.legs[leg].lost.is_some();
        let patience = if is_patient { CALL_OPEN_PATIENCE } else { self.hosts.patience(&host) };
        call.legs[leg].stage = Stage::Opening { since: now, until: min(now + patience, opens_until) };
        outputs.push_back(Output::Open { stream, host });
        self.set_timer(id);
    }

    pub(super) fn leave_unanswered(&mut self, now: Duration, id: CallId, leg: usize, outputs: &mut Outputs) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.why = "the host did not accept the call in time; it may be overloaded".into();
        let host = call.host(leg);
        call.candidates.get_mut(call.legs[leg].at).unanswered += 1;
        self.hosts.unreached(now, &host);
        self.leave(now, id, leg, outputs);
        self.go_on(now, id, outputs);
    }

    /// All hosts but one are asked no more.
    pub(super) fn leave_others(
        &mut self,
        now: Duration,
        id: CallId,
        but: OutboundStream,
        outputs: &mut Outputs,
    ) {
        let other = |call: &OutboundCall| call.legs.iter().position(|leg| leg.stream != but.number);
        while let Some(leg) = self.calls.get(&id).and_then(other) {
            self.leave(now, id, leg, outputs);
        }
    }

    /// A host is asked no more: its stream is closed, which tells one that wakes late that nobody waits for its word on this one,
    /// and goes to who waits longest for one.
    pub(super) fn leave(&mut self, now: Duration, id: CallId, leg: usize, outputs: &mut Outputs) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Leg { at, stream, stage, .. } = call.legs.remove(leg);
        let (candidate, agent) = (call.candidates.get_mut(at), call.wanted.agent);
        candidate.is_asked = false;
        let host = candidate.host();
        call.candidates.last_asked = Some(host);
        if stream > 0 {
            outputs.push_back(Output::Close(OutboundStream { call: id, number: stream }));
        }
        match stage {
            Stage::Queued => self.hosts.leave(&host, id),
            Stage::Searching { .. } => {}
            _ => {
                if let Some(next) = self.hosts.release(&host, &agent, id) {
                    let leg = self.calls.get(&next).and_then(|call| call.leg_to(&host));
                    leg.into_iter().for_each(|leg| self.open(now, next, leg, outputs));
                }
            }
        }
    }

    /// The stream of an accepted call was lost: another is opened, at once at first, to ask for the call.
    pub(super) fn make_up_for(&mut self, now: Duration, id: CallId, leg: usize, outputs: &mut Outputs) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Leg { lost: Some(lost), losses, .. } = &mut call.legs[leg] else { return };
        // A host that takes the stream and drops it again is not asked without end.
        let pause = CALL_ACCEPT_PATIENCE * 2u32.pow((*losses).min(6));
        let (is_first, until) = (*losses == 0, lost.until);
        (*losses, lost.failures) = (*losses + 1, lost.failures + 1);
        let is_over = !call.wanted.is_detached && lost.failures > CALL_ATTACHES_MAX;
        if is_over || until <= now {
            let why = std::mem::take(&mut call.why);
            let failure = call.attempts.lose(Code::Unreachable, why);
            return self.fail(now, id, leg, (failure, Ran::Perhaps), outputs);
        }
        let stream = OutboundStream { call: id, number: call.legs[leg].stream };
        if stream.number > 0 {
            outputs.push_back(Output::Close(stream));
        }
        if is_first {
            return self.open(now, id, leg, outputs);
        }
        call.legs[leg].stage = Stage::Pausing { until: min(now + pause, until) };
        self.set_timer(id);
    }

    /// Whether a host whose agent fails is left though it has a place, since no input is there yet: as long as there is another
    /// that does not pause, though that has no place now.
    pub(super) fn may_decline(&mut self, now: Duration, id: CallId, leg: usize) -> bool {
        let Caller { calls, hosts, .. } = self;
        let Some(call) = calls.get_mut(&id) else { return false };
        let (at, agent, balance) = (call.legs[leg].at, call.wanted.agent, call.wanted.balance);
        let is_offered = matches!(call.legs[leg].stage, Stage::Offered { .. } | Stage::Waiting { .. });
        let may = is_offered && call.candidates.has_other(at, |it| hosts.rank(now, it, &agent, balance));
        call.candidates.get_mut(at).has_refused |= may;
        may
    }
}
