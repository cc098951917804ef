//! The seam of the machine of calls: all that can happen to it, and all that it can want done.
//!
//! Bytes of inputs and outputs stay with whoever drives the machine; only their sizes pass here.

use std::fmt;
use std::time::Duration;

use super::{CallAttach, CallContext, CallFailure, CallId, CallOffer, CallReply, Incarnation, Progress};
use crate::proto::address_block::Source;
use crate::proto::card::Balance;
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
    pub replicas: Vec<Replica>,
    /// Bytes of the input.
    pub size: usize,
    /// When the caller gives up, on the machine's clock.
    pub deadline: Duration,
    /// What it is part of.
    pub context: CallContext,
    /// Whether the caller wants output before the work ends.
    pub stream: bool,
    /// Whether the work goes on though the caller is gone for a time.
    pub is_detached: bool,
    /// In which order hosts are asked.
    pub balance: Balance,
    /// What may be done again.
    pub repeats: Repeats,
    /// The host to which the input left in an earlier run of this node, and in which run of that: it is asked for the call
    /// before anything else.
    pub sent: Option<(PeerKey, Incarnation)>,
}

impl Wanted {
    /// A call by the order and with the repeats of an agent that says nothing of them, that is part of nothing and of which
    /// nobody hears before its end.
    pub fn new(
        agent: AgentId,
        name: FullName,
        replicas: Vec<Replica>,
        size: usize,
        deadline: Duration,
    ) -> Wanted {
        Wanted {
            agent,
            name,
            replicas,
            size,
            deadline,
            context: CallContext::default(),
            stream: false,
            is_detached: false,
            balance: Balance::default(),
            repeats: Repeats::default(),
            sent: None,
        }
    }
}

/// A host that offers an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The host.
    pub host: PeerKey,
    /// Whether it is there, by its beacons.
    pub presence: Presence,
    /// How much it can do beside others, 1 where it does not say.
    pub weight: u32,
}

impl Replica {
    /// A host of which nothing is known.
    pub fn unknown(host: PeerKey) -> Replica {
        Replica { host, presence: Presence::Unknown, weight: 1 }
    }
}

/// What of a call may be done again. What was not started moves on to other hosts without it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repeats {
    /// How often, at most: rounds in which hosts that had no place are asked anew, and further runs.
    pub max: u32,
    /// Whether the agent may run it again when nobody knows whether it did, or when it failed.
    pub is_idempotent: bool,
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
    /// It had carried another call before, and was closed before the host said anything of this one.
    Stale,
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
    /// A peer asks for a call that it offered on a stream that was lost.
    Attached { stream: InboundStream, peer: PeerKey, attach: CallAttach },
    /// The caller waits for the call of this stream no more.
    Cancelled(InboundStream),
    /// The caller has all of the answer.
    Delivered(InboundStream),
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
    /// Send the input, and tell the next reply. Before a byte of it leaves, what must outlive this run of the node is on disk:
    /// which host has the call, and which run of it.
    SendInput { stream: OutboundStream, host: PeerKey, incarnation: Incarnation },
    /// Ask for a call that was lost, on the open stream, and tell the reply.
    Attach { stream: OutboundStream, attach: CallAttach },
    /// Say that nobody waits for the call any more, and close the stream.
    Cancel(OutboundStream),
    /// Say that the answer is here, whole, and close the stream.
    Taken(OutboundStream),
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
    /// Run the agent, until the deadline on the machine's clock: `WorkEnded` follows by then, for the stream on which the call
    /// was accepted, whatever becomes of that. Reports, each [bounded](Progress::bounded), go to the caller as they come.
    Run { stream: InboundStream, deadline: Duration },
    /// What is told of this work goes to the caller on this stream from now on; the first word is that the call is still here.
    Resume { stream: InboundStream, work: InboundStream },
    /// End this work: nobody waits for it any more. Nothing follows.
    Stop { work: InboundStream },
    /// Say that the call is still here, so that its caller knows that this node is.
    SayAlive(InboundStream),
    /// Say that the output of this work follows, send it and close the stream: `Delivered` or `Gone` follows. It is kept.
    Answer { stream: InboundStream, work: InboundStream, size: usize },
    /// The output of this work is not asked for any more.
    Forget { work: InboundStream },
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
            Loss::Stale | Loss::Closed(_) | Loss::TooSlow(_) => Code::Unreachable,
            Loss::Violation(_) => Code::Internal,
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loss::Stale => f.write_str("the peer closed the stream"),
            Loss::Closed(why) => write!(f, "the peer closed the stream: {why}"),
            Loss::TooSlow(why) | Loss::Violation(why) => f.write_str(why),
        }
    }
}
