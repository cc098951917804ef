//! Calls (protocol section 5): a machine beside the node, for both sides of a call, and what they say to each other.
//!
//! One stream carries one offer of a call. The host answers it before it does anything, and works only when all of the
//! input has arrived; so until the offer is accepted nothing can have run, and from then on only the host knows
//! (`attempts`). The host runs no call twice (`registry`). Frames are CBOR; the input and the output go as they are, each in
//! one frame of the size announced before. Unknown fields are passed over, so that later versions may say more.
//!
//! [`Calls`] decides which host is asked, how often and how long it is waited for, who is let in, and what is said in the
//! end; whoever drives it opens streams, carries frames and runs agents. `net` drives it on sockets, `sim` on a virtual clock.

mod attempts;
mod balance;
mod budget;
mod caller;
mod candidates;
mod context;
mod failures;
mod host;
mod hosts;
mod io;
mod message;
mod outbound;
mod queue;
mod refusals;
mod registry;

use std::collections::VecDeque;
use std::time::Duration;

use crate::proto::identity::PeerKey;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use self::caller::Caller;
pub use self::context::{CallContext, ChainError, Conversation, NotAConversation, NotATrace, TraceParent};
use self::host::Host;
pub use self::io::{
    Access, CallEnd, InboundStream, Input, Loss, OutboundStream, Output, Repeats, Replica, Report, Wanted,
};
pub use self::message::{
    CallAttach, CallFailure, CallId, CallOffer, CallReply, CallRequest, Incarnation, NotACallId, Outcome,
    Progress, Word,
};
pub use self::queue::{Full, Load, Queue, Turn};

/// The calls of one run of a node, those that it makes and those that it takes.
///
/// As with the node: give it what happens ([`Calls::handle`], [`Calls::handle_timeout`] once [`Calls::poll_timeout`] is
/// reached), then perform every output in order ([`Calls::poll_output`]), before anything else happens to the machine.
///
/// Its clock is the time since the run began, by a clock that is never set: a wall clock that jumps must neither end a call
/// nor bring back the id of one that ran.
#[derive(Debug)]
pub struct Calls {
    caller: Caller,
    host: Host,
    outputs: VecDeque<Output>,
}

impl Calls {
    /// No calls yet. What is random in this run of a node follows from `seed`, its incarnation too, so two runs must not have
    /// one seed.
    pub fn new(seed: u64) -> Calls {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let incarnation = Incarnation(rng.random());
        Calls { caller: Caller::new(rng), host: Host::new(incarnation), outputs: VecDeque::new() }
    }

    /// Takes what happened.
    pub fn handle(&mut self, now: Duration, input: Input) {
        let Calls { caller, host, outputs } = self;
        match input {
            Input::Call { call, wanted } => caller.handle_call(now, call, wanted, outputs),
            Input::GiveUp { call } => caller.handle_give_up(now, call, outputs),
            Input::Opened(stream) => caller.handle_opened(now, stream, outputs),
            Input::NotOpened { stream, why } => caller.handle_not_opened(now, stream, &why, outputs),
            Input::Searched { call } => caller.handle_searched(now, call, outputs),
            Input::Reply { stream, reply } => caller.handle_reply(now, stream, reply, outputs),
            Input::OutputTaken(stream) => caller.handle_output_taken(now, stream, outputs),
            Input::Lost { stream, loss } => caller.handle_lost(now, stream, loss, outputs),
            Input::Offered { stream, peer, source, offer, access } => {
                host.handle_offer(now, stream, (peer, source), &offer, access, outputs);
            }
            Input::Placed { stream } => host.handle_placed(now, stream, outputs),
            Input::Waits { stream, ahead } => host.handle_waits(stream, ahead, outputs),
            Input::NotPlaced { stream, failure } => host.handle_not_placed(stream, failure, outputs),
            Input::InputArrived { stream, size } => host.handle_input(stream, size, outputs),
            Input::WorkEnded { stream, ended } => host.handle_work_ended(now, stream, ended, outputs),
            Input::Attached { stream, peer, attach } => {
                host.handle_attached(now, stream, peer, &attach, outputs)
            }
            Input::Cancelled(stream) => host.handle_cancelled(stream, outputs),
            Input::Delivered(stream) => host.handle_delivered(stream, outputs),
            Input::Gone(stream) => host.handle_gone(now, stream, outputs),
        }
    }

    /// Takes note that time has passed.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.caller.handle_timeout(now, &mut self.outputs);
        self.host.handle_timeout(now, &mut self.outputs);
    }

    /// Hosts that the last call in vain looked for, a moment ago: whatever others hear of them, this node does not reach them.
    pub fn unreached(&self, now: Duration) -> impl Iterator<Item = PeerKey> {
        self.caller.unreached(now)
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Calls::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Duration> {
        [self.caller.poll_timeout(), self.host.poll_timeout()].into_iter().flatten().min()
    }
}
