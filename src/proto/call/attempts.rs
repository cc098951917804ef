//! The caller's side of a call: what may be said of the work at any moment.
//!
//! A call may be offered several times, one after the other. An offer that was not accepted ran nothing; one whose input
//! may have left may have run, and stays in doubt until a host says how it ended. What is in doubt once is in doubt for
//! the whole call.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{CallFailure, CallId, CallOffer, CallReply, Incarnation, Outcome, Progress, Wanted};
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
    stage: Stage,
    /// Of each host that accepted an offer of this call, in which run.
    spoke_to: BTreeMap<PeerKey, Incarnation>,
    /// Whether an earlier offer ran or may have run.
    in_doubt: bool,
}

/// Where the latest offer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Waits for the host's word; nothing can have run.
    Offered,
    /// The input may have left.
    Sent,
    /// The host said how it ended, or nobody waits for it any more.
    Over,
}

/// What a caller does next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Send the input.
    SendInput,
    /// Wait for the next reply.
    Listen,
    /// Wait for it, since all places are taken and so many calls wait before.
    Wait(u32),
    /// Pass this on, and wait for the next reply.
    Progress(Progress),
    /// Pass this piece of the output on, and wait for the next reply.
    Partial(String),
    /// Read the output of so many bytes.
    TakeOutput(usize),
    /// Nothing more will come on this stream.
    End(CallFailure),
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
        // As after an end: what was never offered cannot be in doubt.
        Attempts { id, offers: 0, stage: Stage::Over, spoke_to: BTreeMap::new(), in_doubt: false }
    }

    /// The next offer. The one before must have ended.
    pub(super) fn offer(&mut self, host: PeerKey, wanted: &Wanted, left: Duration) -> CallOffer {
        self.stage = Stage::Offered;
        self.offers += 1;
        CallOffer {
            call: self.id,
            agent: wanted.agent.0,
            name: wanted.name.clone(),
            left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            size: wanted.size as u64,
            attempt: self.offers,
            expected: self.spoke_to.get(&host).copied(),
            context: wanted.context.clone(),
            detached: wanted.detached,
            stream: wanted.stream,
        }
    }

    /// How many offers were made.
    pub(super) fn made(&self) -> u32 {
        self.offers
    }

    /// Takes what the host says to which it was offered last.
    pub(super) fn handle(&mut self, host: PeerKey, reply: CallReply) -> Step {
        match (self.stage, reply) {
            (Stage::Offered, CallReply::Accepted { incarnation, .. })
                if self.may_speak_to(&host, incarnation) =>
            {
                // Before a byte of the input has left: when a stream breaks, nobody knows how far it came.
                self.stage = Stage::Sent;
                self.spoke_to.insert(host, incarnation);
                Step::SendInput
            }
            (Stage::Offered | Stage::Sent, CallReply::Failed(failure)) => Step::End(self.failed(failure)),
            (Stage::Offered | Stage::Sent, CallReply::Alive | CallReply::Other) => Step::Listen,
            (Stage::Offered, CallReply::Queued { ahead, .. }) => Step::Wait(ahead),
            (Stage::Sent, CallReply::Progress(progress)) => match progress.bounded() {
                Some(progress) => Step::Progress(progress),
                None => self.broke_protocol(),
            },
            (Stage::Sent, CallReply::Partial(text)) if text.len() <= CALL_PARTIAL_BYTES_MAX => {
                Step::Partial(text)
            }
            // The stage stays: an output that does not arrive whole leaves the outcome in doubt.
            (Stage::Sent, CallReply::Answered { size }) if size <= CALL_BYTES_MAX as u64 => {
                Step::TakeOutput(size as usize)
            }
            // Another run's acceptance ends here, too: it cannot know whether the run before did the work.
            _ => self.broke_protocol(),
        }
    }

    /// The stream ended, or is given up, before the host said how the call ended.
    pub(super) fn lose(&mut self, code: Code, message: impl Into<String>) -> CallFailure {
        // Only ever set: no later offer can undo what an earlier one may have done.
        self.in_doubt |= self.stage == Stage::Sent;
        self.stage = Stage::Over;
        CallFailure::new(code, self.judge(Outcome::NotStarted), message)
    }

    fn may_speak_to(&self, host: &PeerKey, incarnation: Incarnation) -> bool {
        self.spoke_to.get(host).is_none_or(|known| *known == incarnation)
    }

    fn failed(&mut self, failure: CallFailure) -> CallFailure {
        self.stage = Stage::Over;
        // Believed of an offer that was not accepted, too: `duplicate_call` speaks of an earlier one.
        self.in_doubt |= failure.outcome != Outcome::NotStarted;
        let failure = failure.bounded();
        CallFailure { outcome: self.judge(failure.outcome), ..failure }
    }

    fn broke_protocol(&mut self) -> Step {
        Step::End(self.lose(Code::Internal, "the host broke the protocol of calls; tell its operator"))
    }

    /// The same as seen from the whole call.
    fn judge(&self, outcome: Outcome) -> Outcome {
        if self.in_doubt && outcome == Outcome::NotStarted { Outcome::Unknown } else { outcome }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::call::{CallContext, Word};
    use crate::proto::identity::AgentId;

    const LEFT: Duration = Duration::from_secs(1);
    const HOST: PeerKey = PeerKey([1; 32]);

    fn offered() -> Attempts {
        let mut call = Attempts::new(CallId([1; 16]));
        call.offer(HOST, &wanted(), LEFT);
        call
    }

    fn wanted() -> Wanted {
        Wanted {
            agent: AgentId([0; 20]),
            name: "a@.".parse().unwrap(),
            replicas: Vec::new(),
            size: 3,
            deadline: LEFT,
            is_brief: false,
            context: CallContext::default(),
            stream: false,
            detached: false,
        }
    }

    fn accepted(run: u64) -> CallReply {
        CallReply::Accepted { incarnation: Incarnation(run), word: Word::default() }
    }

    #[test]
    fn an_offer_that_was_not_accepted_ran_nothing_and_one_that_was_may_have_run() {
        assert_eq!(offered().lose(Code::Unreachable, "").outcome, Outcome::NotStarted);
        let mut call = offered();
        assert_eq!(call.handle(HOST, accepted(7)), Step::SendInput);
        assert_eq!(call.lose(Code::Deadline, "").outcome, Outcome::Unknown);
    }

    #[test]
    fn doubt_lasts_over_the_next_offer_which_names_the_run_it_spoke_to() {
        let mut call = offered();
        call.handle(HOST, accepted(7));
        call.lose(Code::Unreachable, "");
        let offer = call.offer(HOST, &wanted(), LEFT);
        assert_eq!((offer.attempt, offer.expected), (2, Some(Incarnation(7))));
        let other = call.clone().offer(PeerKey([2; 32]), &wanted(), LEFT);
        assert_eq!((other.attempt, other.expected), (3, None), "another host had no part in that");
        let busy = CallReply::Failed(CallFailure::new(Code::Busy, Outcome::NotStarted, ""));
        assert!(matches!(call.clone().handle(HOST, busy), Step::End(it) if it.outcome == Outcome::Unknown));
        assert!(matches!(call.handle(HOST, accepted(8)), Step::End(it) if it.outcome == Outcome::Unknown));
    }

    #[test]
    fn what_comes_out_of_turn_or_is_too_large_ends_the_call() {
        let report = |progress| CallReply::Progress(Progress { progress, total: None, message: None });
        for reply in [report(1.0), CallReply::Answered { size: 1 }] {
            assert!(
                matches!(offered().handle(HOST, reply), Step::End(it) if it.outcome == Outcome::NotStarted)
            );
        }
        let large = CallReply::Answered { size: CALL_BYTES_MAX as u64 + 1 };
        for reply in [accepted(7), report(f64::NAN), large] {
            let mut call = offered();
            call.handle(HOST, accepted(7));
            assert!(matches!(call.handle(HOST, reply), Step::End(it) if it.outcome == Outcome::Unknown));
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
