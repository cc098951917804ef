//! Calls (protocol section 4): what caller and host say to each other, and how a call ended.
//!
//! One stream carries one offer of a call. The host answers it before it does anything, and works only when all of the
//! input has arrived; so until the offer is accepted nothing can have run, and from then on only the host knows
//! ([`Attempts`]). The host runs no call twice ([`CallRegistry`]). Frames are CBOR; the input and the output go as they
//! are, each in one frame of the size announced before. Unknown fields are passed over, so that later versions may say more.

mod attempts;
mod message;
mod registry;

pub use self::attempts::{Attempts, Step, accept_patience};
pub use self::message::{
    CallFailure, CallId, CallOffer, CallReply, CallRequest, Incarnation, Outcome, Progress,
};
pub use self::registry::{CallPermit, CallRegistry};
