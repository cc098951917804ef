//! What a host says where a call has no place, or no end to tell.

use super::{Access, CallFailure, CallOffer, Outcome};
use crate::proto::code::Code;

impl Access {
    pub(super) fn check(self, offer: &CallOffer) -> Result<(), CallFailure> {
        let name = &offer.name;
        let (code, message) = match self {
            Access::Granted => match offer.context.check(&offer.agent_id()) {
                Ok(()) => return Ok(()),
                Err(error) => (Code::CallChain, error.to_string()),
            },
            Access::NotFound => (Code::NotFound, format!("{name} is not run by this host")),
            Access::NotAllowed => {
                (Code::NotAllowed, format!("the host of {name} does not let this peer call it"))
            }
        };
        Err(CallFailure::new(code, Outcome::NotStarted, message))
    }
}

pub(super) fn waited_in_vain() -> CallFailure {
    let message = "the call waited for a free place of the agent until its deadline";
    CallFailure::new(Code::Deadline, Outcome::NotStarted, message)
}

pub(super) fn voided() -> CallFailure {
    let message = "the connection broke before all of the input was here; call again";
    CallFailure::new(Code::Unreachable, Outcome::NotStarted, message)
}

pub(super) fn lost_answer() -> CallFailure {
    let message = "the agent ended, and its answer is not kept any more; look before you call again";
    CallFailure::new(Code::AnswerLost, Outcome::Done, message)
}

pub(super) fn stopped() -> CallFailure {
    let message = "the work was ended because nobody asked for it in time; look before you call again";
    CallFailure::new(Code::Unreachable, Outcome::Unknown, message)
}
