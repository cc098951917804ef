//! What an agent is told of its call beside the input: who calls, which call it is, in which conversation and trace.
//!
//! The names are fixed ([`CallLabel`]), and each value has a type of visible ASCII, so nothing of the network becomes a name, a
//! path or a second line.

use super::Invocation;
use crate::document::run_config::CallLabel;

/// What [`CallLabel::Caller`] says of a client of this node.
const LOCAL: &str = "local";

/// The labels of a call that have a value.
pub(super) fn labels(invocation: &Invocation) -> Vec<(CallLabel, String)> {
    let (caller, context) = (invocation.caller, &invocation.context);
    [
        (CallLabel::Caller, Some(caller.map_or_else(|| LOCAL.to_owned(), |peer| peer.to_string()))),
        (CallLabel::CallId, Some(invocation.call.to_string())),
        (CallLabel::Conversation, context.conversation.as_ref().map(ToString::to_string)),
        (CallLabel::Trace, context.trace.as_ref().map(|trace| trace.as_str().to_owned())),
    ]
    .into_iter()
    .filter_map(|(label, value)| Some((label, value?)))
    .collect()
}
