//! The seam of the machine of calls: all that can happen to it, and all that it can want done.
//!
//! Bytes of inputs and outputs stay with whoever drives the machine; only their sizes pass here.

use std::fmt;
use std::time::Duration;

use super::{CallContext, CallFailure, CallId, CallOffer, CallReply, Incarnation, Progress};
use crate::proto::address_block::Source;
use crate::proto::code::Code;
use crate::proto::identity::{AgentId, PeerKey};
use crate::proto::liveness::Presence;
use crate::proto::name::FullName;

/// A stream on which a call is offered: the first, second … that was opened for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutboundStream {
    /// The call.
    pub call: CallId,
    /// Counts its streams, from 1.
    pub number: u32,
}

/// A stream on which another node offers a call; whoever drives the machine numbers them and uses no number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InboundStream(pub u64);

/// A call that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The agent.
    pub agent: AgentId,
    /// Its full name.
    pub name: FullName,
    /// Hosts that offer it.
    pub replicas: Vec<(PeerKey, Presence)>,
    /// Bytes of the input.
    pub size: usize,
    /// When the caller gives up, on the machine's clock.
    pub deadline: Duration,
    /// Whether only hosts that take it at once are asked, each once: the caller has another way.
    pub is_brief: bool,
    /// What it is part of.
    pub context: CallContext,
    /// Whether the caller wants output before the work ends.
    pub stream: bool,
    /// Whether it is the call of a task, for which nobody waits.
    pub detached: bool,
}

/// What a caller is told of its call before it ends.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// It waits for a place at a host, behind so many others.
    Queued {
        /// How many.
        ahead: u32,
    },
    /// A host took it.
    Working {
        /// Which.
        host: PeerKey,
    },
    /// How far the work is.
    Progress(Progress),
    /// A piece of the output, which follows whole at the end.
    Partial(String),
}

/// Whether the host lets a peer call the agent that it asks for. Neither of the refusals tells more than it says.
#[expect(missing_docs, reason = "the variants say it all, or their fields are of types that do")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Granted,
    /// The agent does not run here, or the world may not know that it does.
    NotFound,
    /// The agent names its callers, and this peer is none of them.
    NotAllowed,
}

/// How a stream of a call came to its end before the host said how the call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It ended or broke, for this reason.
    Closed(String),
    /// A frame took too long.
    TooSlow(String),
    /// What the host sent makes no sense.
    Violation(String),
}

/// What happens.
#[expect(missing_docs, reason = "the variants say it all, or their fields are of types that do")]
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A client of this node calls an agent of another host. Its id is new.
    Call { call: CallId, wanted: Wanted },
    /// The client does not wait any more. Nothing more is said of the call.
    GiveUp { call: CallId },
    /// The host's stream is open.
    Opened(OutboundStream),
    /// The host cannot be reached.
    NotOpened { stream: OutboundStream, why: String },
    /// The search for a host is over, whether it was found or not.
    Searched { call: CallId },
    /// The host said something.
    Reply { stream: OutboundStream, reply: CallReply },
    /// All of the output is here.
    OutputTaken(OutboundStream),
    /// Nothing more will come on this stream.
    Lost { stream: OutboundStream, loss: Loss },

    /// A peer offers a call.
    /// With the source whose share it counts against, if the peer has one.
    Offered { stream: InboundStream, peer: PeerKey, source: Option<Source>, offer: CallOffer, access: Access },
    /// The call has a place of its agent.
    Placed { stream: InboundStream },
    /// It waits for one behind so many others: `Placed` or `NotPlaced` follows.
    Waits { stream: InboundStream, ahead: usize },
    /// It gets none.
    NotPlaced { stream: InboundStream, failure: CallFailure },
    /// So many bytes of an input are here by now.
    InputArrived { stream: InboundStream, size: usize },
    /// The agent ended, with an output of so many bytes or a failure.
    WorkEnded { stream: InboundStream, ended: Result<usize, CallFailure> },
    /// The stream is closed, by this side or the other.
    Gone(InboundStream),
}

/// What is to be done.
#[expect(missing_docs, reason = "the variants say it all, or their fields are of types that do")]
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Open a stream to the host: `Opened` or `NotOpened` follows.
    Open { stream: OutboundStream, host: PeerKey },
    /// Offer the call on the open stream, and tell the reply.
    Offer { stream: OutboundStream, offer: CallOffer },
    /// Send the input, and tell the next reply.
    SendInput(OutboundStream),
    /// Tell the next reply.
    Listen(OutboundStream),
    /// Read an output of so many bytes: `OutputTaken` follows.
    TakeOutput { stream: OutboundStream, size: usize },
    /// Close the stream, or do not open it any more.
    Close(OutboundStream),
    /// Look for a host that cannot be reached: `Searched` follows.
    Search { call: CallId, host: PeerKey },
    /// Look for a host that cannot be reached, for calls to come: nothing follows.
    LookFor { call: CallId, host: PeerKey },
    /// Pass this on to the client. Nothing follows.
    Report { call: CallId, report: Report },
    /// The call is over: the last that is said of it.
    Ended { call: CallId, end: CallEnd },

    /// Take a place of the agent for the call, until its stream is gone: `Placed`, `Waits` or `NotPlaced` follows.
    WantPlace { stream: InboundStream, agent: AgentId },
    /// Say that the call waits for a place, behind so many others.
    SayQueued { stream: InboundStream, ahead: usize },
    /// Say that the offer is accepted, then read an input of so many bytes: `InputArrived` follows with each part.
    Accept { stream: InboundStream, incarnation: Incarnation, size: usize },
    /// Run the agent, until the deadline on the machine's clock: `WorkEnded` follows by then. Reports of progress, each
    /// [bounded](Progress::bounded), go to the caller as they come.
    Run { stream: InboundStream, deadline: Duration },
    /// Say that the call is still here, so that its caller knows that this node is.
    SayAlive(InboundStream),
    /// Say that the output follows, send it and close the stream: `Gone` follows.
    Answer { stream: InboundStream, size: usize },
    /// Say why there is no answer, read no more of the input but to drop it, and close the stream. `Gone` follows
    /// if an offer was accepted on it.
    Refuse { stream: InboundStream, failure: CallFailure },
    /// Close the stream without a word. Nothing follows.
    Drop(InboundStream),
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallEnd {
    /// The host it was offered to last; none if there is no host.
    pub host: Option<PeerKey>,
    /// How many offers were made.
    pub attempts: u32,
    /// Why there is no output; none if there is one.
    pub failure: Option<CallFailure>,
}

impl Loss {
    /// The code of a call that ended by it.
    pub(super) fn code(&self) -> Code {
        match self {
            Loss::Closed(_) | Loss::TooSlow(_) => Code::Unreachable,
            Loss::Violation(_) => Code::Internal,
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loss::Closed(why) => write!(f, "the peer closed the stream: {why}"),
            Loss::TooSlow(why) | Loss::Violation(why) => f.write_str(why),
        }
    }
}
