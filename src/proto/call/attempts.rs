//! The caller's side of a call: what may be said of the work at any moment.
//!
//! A call may be offered to several hosts, and is accepted by one at a time. An offer that was not accepted ran nothing; one
//! whose input may have left may have run, and stays in doubt until its host says how it ended. What is in doubt once is in
//! doubt for the whole call, and offered again only where the agent may do the work twice.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{CallAttach, CallFailure, CallId, CallOffer, CallReply, Incarnation, Outcome, Report, Wanted};
use crate::proto::code::Code;
use crate::proto::identity::PeerKey;
use crate::proto::limits::{
    CALL_ACCEPT_PATIENCE, CALL_ACCEPT_PATIENCE_MAX, CALL_BYTES_MAX, CALL_PARTIAL_BYTES_MAX,
};

/// The offers made of one call, and what may be said of its work.
#[derive(Clone, Debug)]
pub(super) struct Attempts {
    id: CallId,
    offers: u32,
    /// The host to which the input may have left, until it said how the work ended or is not waited for any more. Offers to
    /// others are open only while there is none.
    sent_to: Option<PeerKey>,
    /// Of each host that accepted an offer of this call, in which run.
    spoke_to: BTreeMap<PeerKey, Incarnation>,
    /// Whether an earlier offer ran or may have run.
    in_doubt: bool,
}

/// What a caller does next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Send the input, to this run of the host.
    SendInput(Incarnation),
    /// Wait for the next reply.
    Listen,
    /// Wait for it, since all places are taken and so many calls wait before.
    Wait(u32),
    /// Pass this on, and wait for the next reply.
    Report(Report),
    /// Read the output of so many bytes.
    TakeOutput(usize),
    /// Nothing more will come on this stream; and whether the offer on it ran anything.
    End(CallFailure, Ran),
}

/// What one offer of a call can have run, whatever others did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ran {
    Nothing,
    Perhaps,
}

impl Ran {
    pub(super) fn of(is_accepted: bool) -> Ran {
        if is_accepted { Ran::Perhaps } else { Ran::Nothing }
    }
}

/// How long an offer may wait for its acceptance on a stream that took `opening` to open, after so many offers to this
/// host that were not answered.
pub(super) fn accept_patience(opening: Duration, unanswered: u32) -> Duration {
    // The cap comes last: neither a slow opening nor repeated silence leads beyond it.
    ((opening * 2).max(CALL_ACCEPT_PATIENCE) * 2u32.saturating_pow(unanswered)).min(CALL_ACCEPT_PATIENCE_MAX)
}

impl Attempts {
    /// A call that was not offered yet.
    pub(super) fn new(id: CallId) -> Attempts {
        Attempts { id, offers: 0, sent_to: None, spoke_to: BTreeMap::new(), in_doubt: false }
    }

    /// One whose input left before this run of the node.
    pub(super) fn sent(id: CallId, host: PeerKey, incarnation: Incarnation) -> Attempts {
        let spoke_to = BTreeMap::from([(host, incarnation)]);
        Attempts { sent_to: Some(host), spoke_to, ..Attempts::new(id) }
    }

    /// The next offer, while no host has accepted one.
    pub(super) fn offer(&mut self, host: PeerKey, wanted: &Wanted, left: Duration) -> CallOffer {
        self.offers += 1;
        // Who may do the work again does it in any run.
        let again = self.in_doubt;
        CallOffer {
            call: self.id,
            agent: wanted.agent.0,
            name: wanted.name.clone(),
            left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            size: wanted.size as u64,
            attempt: self.offers,
            expected: self.spoke_to.get(&host).copied().filter(|_| !again),
            context: wanted.context.clone(),
            detached: wanted.is_detached,
            stream: wanted.stream,
            again,
        }
    }

    /// What the host that accepted the call is asked for, whose stream was lost.
    pub(super) fn attach(&self) -> Option<CallAttach> {
        let incarnation = *self.spoke_to.get(&self.sent_to?)?;
        Some(CallAttach { call: self.id, incarnation })
    }

    /// How many offers were made.
    pub(super) fn made(&self) -> u32 {
        self.offers
    }

    /// Takes what a host says to which it was offered.
    pub(super) fn handle(&mut self, host: PeerKey, reply: CallReply) -> Step {
        match (self.sent_to.is_some(), reply) {
            (false, CallReply::Accepted { incarnation, .. }) if self.may_speak_to(&host, incarnation) => {
                // Before a byte of the input has left: when a stream breaks, nobody knows how far it came.
                self.sent_to = Some(host);
                self.spoke_to.insert(host, incarnation);
                Step::SendInput(incarnation)
            }
            (_, CallReply::Failed(failure)) => {
                let ran = Ran::of(failure.outcome != Outcome::NotStarted);
                Step::End(self.failed(failure), ran)
            }
            (_, CallReply::Alive | CallReply::Other) => Step::Listen,
            (false, CallReply::Queued { ahead, .. }) => Step::Wait(ahead),
            (true, CallReply::Progress(progress)) => match progress.bounded() {
                Some(progress) => Step::Report(Report::Progress(progress)),
                None => self.broke_protocol(),
            },
            (true, CallReply::Partial(text)) if text.len() <= CALL_PARTIAL_BYTES_MAX => {
                Step::Report(Report::Partial(text))
            }
            // It stays sent: an output that does not arrive whole leaves the outcome in doubt.
            (true, CallReply::Answered { size }) if size <= CALL_BYTES_MAX as u64 => {
                Step::TakeOutput(size as usize)
            }
            // Another run's acceptance ends here, too: it cannot know whether the run before did the work.
            _ => self.broke_protocol(),
        }
    }

    /// The stream ended, or is given up, before the host said how the call ended.
    pub(super) fn lose(&mut self, code: Code, message: impl Into<String>) -> CallFailure {
        // Only ever set: no later offer can undo what an earlier one may have done.
        self.in_doubt |= self.sent_to.take().is_some();
        CallFailure::new(code, self.judge(Outcome::NotStarted), message)
    }

    fn may_speak_to(&self, host: &PeerKey, incarnation: Incarnation) -> bool {
        self.in_doubt || self.spoke_to.get(host).is_none_or(|known| *known == incarnation)
    }

    fn failed(&mut self, failure: CallFailure) -> CallFailure {
        self.sent_to = None;
        // Believed of an offer that was not accepted, too: `duplicate_call` speaks of an earlier one.
        self.in_doubt |= failure.outcome != Outcome::NotStarted;
        let failure = failure.bounded();
        CallFailure { outcome: self.judge(failure.outcome), ..failure }
    }

    fn broke_protocol(&mut self) -> Step {
        let ran = Ran::of(self.sent_to.is_some());
        Step::End(self.lose(Code::Internal, "the host broke the protocol of calls; tell its operator"), ran)
    }

    /// The same as seen from the whole call.
    fn judge(&self, outcome: Outcome) -> Outcome {
        if self.in_doubt && outcome == Outcome::NotStarted { Outcome::Unknown } else { outcome }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::call::{Progress, Word};
    use crate::proto::identity::AgentId;

    const LEFT: Duration = Duration::from_secs(1);
    const HOST: PeerKey = PeerKey([1; 32]);

    fn offered() -> Attempts {
        let mut call = Attempts::new(CallId([1; 16]));
        call.offer(HOST, &wanted(), LEFT);
        call
    }

    fn wanted() -> Wanted {
        Wanted::new(AgentId([0; 20]), "a@.".parse().unwrap(), Vec::new(), 3, LEFT)
    }

    fn accepted(run: u64) -> CallReply {
        CallReply::Accepted { incarnation: Incarnation(run), word: Word::default(), keeps: false }
    }

    #[test]
    fn an_offer_that_was_not_accepted_ran_nothing_and_one_that_was_may_have_run() {
        assert_eq!(offered().lose(Code::Unreachable, "").outcome, Outcome::NotStarted);
        let mut call = offered();
        assert_eq!(call.handle(HOST, accepted(7)), Step::SendInput(Incarnation(7)));
        assert_eq!(call.lose(Code::Deadline, "").outcome, Outcome::Unknown);
    }

    #[test]
    fn doubt_lasts_over_the_next_offer_which_says_that_the_work_may_have_been_done() {
        let mut call = offered();
        call.handle(HOST, accepted(7));
        assert_eq!(call.attach(), Some(CallAttach { call: CallId([1; 16]), incarnation: Incarnation(7) }));
        call.lose(Code::Unreachable, "");
        assert_eq!(call.attach(), None, "nobody waits for it any more");
        let offer = call.offer(HOST, &wanted(), LEFT);
        assert_eq!((offer.attempt, offer.expected, offer.again), (2, None, true));
        let busy = CallReply::Failed(CallFailure::new(Code::Busy, Outcome::NotStarted, ""));
        assert!(
            matches!(call.clone().handle(HOST, busy), Step::End(it, _) if it.outcome == Outcome::Unknown)
        );
        assert_eq!(call.handle(HOST, accepted(8)), Step::SendInput(Incarnation(8)));
    }

    #[test]
    fn what_a_host_voided_is_not_in_doubt_and_is_offered_to_it_only_in_the_same_run() {
        let mut call = offered();
        call.handle(HOST, accepted(7));
        let voided = CallFailure::new(Code::Unreachable, Outcome::NotStarted, "it had not begun");
        let said = call.handle(HOST, CallReply::Failed(voided));
        assert!(matches!(said, Step::End(it, _) if it.outcome == Outcome::NotStarted));
        let other = call.clone().offer(PeerKey([2; 32]), &wanted(), LEFT);
        assert_eq!((other.attempt, other.expected, other.again), (2, None, false));
        assert_eq!(call.offer(HOST, &wanted(), LEFT).expected, Some(Incarnation(7)));
        assert!(matches!(call.handle(HOST, accepted(8)), Step::End(..)));
    }

    #[test]
    fn what_comes_out_of_turn_or_is_too_large_ends_the_call() {
        let report = |progress| CallReply::Progress(Progress { progress, total: None, message: None });
        for reply in [report(1.0), CallReply::Answered { size: 1 }] {
            assert!(
                matches!(offered().handle(HOST, reply), Step::End(it, _) if it.outcome == Outcome::NotStarted)
            );
        }
        let large = CallReply::Answered { size: CALL_BYTES_MAX as u64 + 1 };
        for reply in [accepted(7), report(f64::NAN), large] {
            let mut call = offered();
            call.handle(HOST, accepted(7));
            assert!(matches!(call.handle(HOST, reply), Step::End(it, _) if it.outcome == Outcome::Unknown));
        }
    }

    #[test]
    fn a_far_host_gets_more_patience_than_a_near_one() {
        assert_eq!(accept_patience(Duration::from_millis(1), 0), CALL_ACCEPT_PATIENCE);
        assert_eq!(accept_patience(Duration::from_millis(300), 0), Duration::from_millis(600));
        assert_eq!(accept_patience(Duration::from_secs(9), 0), CALL_ACCEPT_PATIENCE_MAX);
        assert_eq!(accept_patience(Duration::from_millis(1), 2), CALL_ACCEPT_PATIENCE * 4);
    }
}
