//! One call on its way: the hosts that it is offered to, and where each of these offers stands.

use std::time::Duration;

use super::attempts::Attempts;
use super::candidates::Candidates;
use super::{CallFailure, OutboundStream, Wanted};
use crate::proto::code::Code;
use crate::proto::identity::PeerKey;

/// A call that a node makes.
#[derive(Debug)]
pub(super) struct OutboundCall {
    pub(super) wanted: Wanted,
    pub(super) candidates: Candidates,
    pub(super) attempts: Attempts,
    /// Those hosts that are asked now; one from the moment on that one accepted the call.
    pub(super) legs: Vec<Leg>,
    /// Streams opened for it.
    pub(super) streams: u32,
    /// Rounds and further runs beyond the first.
    pub(super) repeats: u32,
    /// When the next of these begins, while there is no leg.
    pub(super) repeats_at: Option<Duration>,
    /// Why there was no answer yet.
    pub(super) why: String,
    /// What the last host said that was reached and did not take it, or failed in it.
    pub(super) refusal: Option<CallFailure>,
    /// Whether all hosts paused when it was made.
    pub(super) was_paused: bool,
    /// Its entry among the timers.
    pub(super) timer: Duration,
}

/// One host that is asked.
#[derive(Debug)]
pub(super) struct Leg {
    /// The number of its candidate.
    pub(super) at: usize,
    /// The last stream that was opened to it; 0 before the first.
    pub(super) stream: u32,
    pub(super) stage: Stage,
    /// Once its stream was lost in the midst of the call.
    pub(super) lost: Option<Lost>,
    /// How often streams of it were lost in the midst of the call.
    pub(super) losses: u32,
}

/// A stream that was lost, and is made up for by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lost {
    /// When it is given up.
    pub(super) until: Duration,
    /// How often in a row the host was out of reach since.
    pub(super) failures: u32,
}

/// What a leg waits for. From `Opening` on, but for `Searching`, it has one of the streams to its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
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
    Accepted { since: Duration, until: Duration },
    /// The bytes of the output.
    TakingOutput { since: Duration, until: Duration },
}

impl OutboundCall {
    /// When something is due though nothing happens.
    pub(super) fn due(&self) -> Duration {
        let stages = self.legs.iter().filter_map(|leg| leg.stage.until());
        // No step outlasts its call, however patient the step is.
        stages.chain(self.repeats_at).chain([self.wanted.deadline]).min().unwrap_or(self.wanted.deadline)
    }

    /// The number of the leg that uses this stream.
    pub(super) fn leg_of(&self, stream: OutboundStream) -> Option<usize> {
        self.legs.iter().position(|leg| leg.stream == stream.number)
    }

    /// The number of the leg to this host.
    pub(super) fn leg_to(&self, host: &PeerKey) -> Option<usize> {
        self.legs.iter().position(|leg| self.candidates.get(leg.at).host() == *host)
    }

    pub(super) fn host(&self, leg: usize) -> PeerKey {
        self.candidates.get(self.legs[leg].at).host()
    }
}

impl Leg {
    pub(super) fn new(at: usize) -> Leg {
        Leg { at, stream: 0, stage: Stage::Queued, lost: None, losses: 0 }
    }
}

impl Stage {
    /// When something is done about it though nothing happens; none where only the call's deadline counts.
    pub(super) fn until(self) -> Option<Duration> {
        match self {
            Stage::Opening { until, .. }
            | Stage::Searching { until }
            | Stage::Pausing { until }
            | Stage::Offered { until, .. }
            | Stage::Waiting { until }
            | Stage::Accepted { until, .. }
            | Stage::TakingOutput { until, .. } => Some(until),
            Stage::Queued => None,
        }
    }

    /// Since when the host has the call.
    pub(super) fn since(self, now: Duration) -> Duration {
        match self {
            Stage::Accepted { since, .. } | Stage::TakingOutput { since, .. } => since,
            _ => now,
        }
    }

    /// Whether the host accepted the call.
    pub(super) fn is_accepted(self) -> bool {
        matches!(self, Stage::Accepted { .. } | Stage::TakingOutput { .. })
    }
}

/// Whether another host may take what one did not.
pub(super) fn may_another(failure: &CallFailure) -> bool {
    !matches!(failure.code, Code::BadInput | Code::TooLarge | Code::Deadline | Code::CallChain)
}

/// Whether the agent failed and not its caller, its host's load or the way there.
pub(super) fn is_of_the_agent(code: Code) -> bool {
    matches!(code, Code::AgentFailed | Code::UpstreamFailed | Code::StartFailed | Code::BadOutput)
}

/// Whether a further run may do better than one that ended so, or whose end nobody knows.
pub(super) fn may_again(failure: &CallFailure) -> bool {
    is_of_the_agent(failure.code)
        || matches!(failure.code, Code::Unreachable | Code::HostRestarted | Code::Internal)
}

/// Whether a host that said this may take the call in a moment.
pub(super) fn may_later(failure: &CallFailure) -> bool {
    matches!(failure.code, Code::Busy | Code::RateLimited)
}

/// What is said where all hosts paused and none was reached: when one is tried next.
pub(super) fn circuit_open(failure: CallFailure, probe: Duration) -> CallFailure {
    let wait = probe.as_secs_f64().max(0.1);
    let message = format!(
        "{}; no host of the agent was reached lately, and one is tried in {wait:.1} s",
        failure.message
    );
    CallFailure { code: Code::CircuitOpen, message, ..failure }.with_retry(probe)
}
