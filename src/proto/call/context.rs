//! What a call is part of, and what goes with it from the first caller to the agent.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use super::CallId;
use crate::proto::card::Residency;
use crate::proto::codec;
use crate::proto::identity::AgentId;
use crate::proto::limits::{CALL_CHAIN_MAX, CONVERSATION_BYTES_MAX, RESIDENCIES_MAX};

/// What a call is part of. An empty one takes no byte on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallContext {
    /// The conversation, whose calls go to the same host while it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<Conversation>,
    /// The trace; one that is malformed counts as none, as W3C Trace Context wants (section 3.2).
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "read_trace")]
    pub trace: Option<TraceParent>,
    /// Which of the calls of one caller that wait goes first: the highest.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i8,
    /// What every host must say in its card of where data stays: demanded here, or by a call in whose course this one is made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(deserialize_with = "codec::ascending::<RESIDENCIES_MAX, _, _>")]
    residency: Vec<Residency>,
    /// The first call, in whose course this one is made; none if this is the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<CallId>,
    /// The agents at work on whose behalf it is made, the first first; at most [`CALL_CHAIN_MAX`] with the agent of this call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    chain: Vec<ChainLink>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct ChainLink(#[serde(with = "serde_bytes")] [u8; 20]);

/// Why a call may not be made in the course of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The agent is at work in the same chain of calls.
    #[error(
        "the agent is at work already in the chain of calls that leads to this one; let it answer without calling itself"
    )]
    Circle,
    /// So many calls lead to it.
    #[error("more than {CALL_CHAIN_MAX} calls lead to this one, each made in the course of the one before")]
    TooLong,
}

/// Names a conversation: 1 to [`CONVERSATION_BYTES_MAX`] bytes of visible ASCII, so that it can be a header or a variable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Conversation(String);

/// Why a text names no conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a conversation is named by 1 to {CONVERSATION_BYTES_MAX} visible ASCII characters")]
pub struct NotAConversation;

/// `traceparent` of W3C Trace Context, level 1: version, trace, parent, flags; 55 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct TraceParent(String);

/// Why a text is no `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent of 55 bytes")]
pub struct NotATrace;

impl CallContext {
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        *self == CallContext::default()
    }

    /// That of a call which `agent` makes while it works on the call `call` of this context.
    pub fn within(&self, call: CallId, agent: AgentId) -> CallContext {
        let mut chain = self.chain.clone();
        chain.push(ChainLink(agent.0));
        CallContext { chain, root: Some(self.root.unwrap_or(call)), ..self.clone() }
    }

    /// What is said here of a call made in the course of `outer`, and what that leaves to it: its conversation and trace, unless
    /// they are said here, its priority likewise; and what it demands of where data stays, to which more may come.
    pub fn in_course_of(self, outer: CallContext) -> CallContext {
        let mut context = outer;
        self.residency.into_iter().for_each(|demanded| context.demand(demanded));
        context.conversation = self.conversation.or(context.conversation);
        context.trace = self.trace.or(context.trace);
        if self.priority != 0 {
            context.priority = self.priority;
        }
        context
    }

    /// Demands that its input goes only to hosts whose cards say that data stays there.
    pub fn demand(&mut self, residency: Residency) {
        if let Err(at) = self.residency.binary_search(&residency)
            && self.residency.len() < RESIDENCIES_MAX
        {
            self.residency.insert(at, residency);
        }
    }

    /// What is demanded of where data stays, each once.
    pub fn residency(&self) -> &[Residency] {
        &self.residency
    }

    /// Whether an agent may be called in it.
    ///
    /// # Errors
    /// It is at work in the same chain, or the chain is too long.
    pub fn check(&self, agent: &AgentId) -> Result<(), ChainError> {
        if self.chain.len() >= CALL_CHAIN_MAX {
            return Err(ChainError::TooLong);
        }
        let is_circle = self.chain.iter().any(|link| link.0 == agent.0);
        if is_circle { Err(ChainError::Circle) } else { Ok(()) }
    }
}

impl Conversation {
    /// As it was named.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Conversation {
    type Err = NotAConversation;

    fn from_str(text: &str) -> Result<Conversation, NotAConversation> {
        Conversation::try_from(text.to_owned())
    }
}

impl TryFrom<String> for Conversation {
    type Error = NotAConversation;

    fn try_from(text: String) -> Result<Conversation, NotAConversation> {
        let is_name = (1..=CONVERSATION_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_name { Ok(Conversation(text)) } else { Err(NotAConversation) }
    }
}

impl From<Conversation> for String {
    fn from(conversation: Conversation) -> String {
        conversation.0
    }
}

impl fmt::Display for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TraceParent {
    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trace, 32 hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        self.0.split('-').nth(1).unwrap_or_default()
    }
}

impl FromStr for TraceParent {
    type Err = NotATrace;

    fn from_str(text: &str) -> Result<TraceParent, NotATrace> {
        let parts: Vec<&str> = text.split('-').collect();
        let is_hex = |part: &&str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let [version, trace, parent, flags] = parts[..] else { return Err(NotATrace) };
        let sizes = [version, trace, parent, flags].map(str::len);
        let is_known =
            version != "ff" && [trace, parent].iter().all(|id| id.bytes().any(|byte| byte != b'0'));
        let is_good = sizes == [2, 32, 16, 2] && parts.iter().all(is_hex) && is_known;
        if is_good { Ok(TraceParent(text.to_owned())) } else { Err(NotATrace) }
    }
}

fn read_trace<'de, D: Deserializer<'de>>(input: D) -> Result<Option<TraceParent>, D::Error> {
    let text = Option::<String>::deserialize(input)?;
    Ok(text.and_then(|text| text.parse().ok()))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(priority: &i8) -> bool {
    *priority == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::codec;

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_chain_has_so_many_calls_and_no_agent_twice() {
        let agent = |number: usize| AgentId([number as u8; 20]);
        let mut context = CallContext { priority: 3, ..CallContext::default() };
        for number in 0..CALL_CHAIN_MAX {
            assert_eq!(context.check(&agent(number)), Ok(()));
            context = context.within(CallId([number as u8 + 1; 16]), agent(number));
            assert!(context.check(&agent(0)).is_err());
        }
        assert_eq!(context.root, Some(CallId([1; 16])), "the first");
        assert_eq!(context.check(&agent(99)), Err(ChainError::TooLong));
    }

    #[test]
    fn what_names_a_conversation_or_a_trace_can_be_a_header_and_nothing_else_is_taken() {
        for text in ["c", "session-7/ä".trim_end_matches('ä'), &"x".repeat(CONVERSATION_BYTES_MAX)] {
            assert_eq!(text.parse::<Conversation>().unwrap().as_str(), text);
        }
        for text in ["", "a b", "a\nb", "ä", &"x".repeat(CONVERSATION_BYTES_MAX + 1)] {
            assert_eq!(text.parse::<Conversation>(), Err(NotAConversation), "{text:?}");
        }
        assert_eq!(TRACE.parse::<TraceParent>().unwrap().as_str(), TRACE);
        let upper = TRACE.to_uppercase();
        let zero = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        for text in ["", &TRACE[1..], &upper, &zero, &TRACE.replace("00-4", "ff-4"), &format!("{TRACE}-x")] {
            assert_eq!(text.parse::<TraceParent>(), Err(NotATrace), "{text:?}");
        }
    }

    #[test]
    fn a_call_in_the_course_of_another_has_what_that_has_and_demands_what_both_demand() {
        let word = |text: &str| text.parse::<Residency>().unwrap();
        let mut outer = CallContext { priority: 3, conversation: "c".parse().ok(), ..CallContext::default() };
        outer.demand(word("EU"));
        outer.demand(word("eu"));
        let outer = codec::decode::<CallContext>(&codec::encode(&outer)).unwrap();
        let inner = CallContext::default().in_course_of(outer.within(CallId([1; 16]), AgentId([1; 20])));
        assert_eq!(
            (inner.priority, &inner.conversation, inner.residency()),
            (3, &outer.conversation, &[word("eu")][..])
        );
        let mut own = CallContext { priority: -1, conversation: "d".parse().ok(), ..CallContext::default() };
        own.demand(word("br"));
        let both = own.clone().in_course_of(outer);
        assert_eq!((both.priority, both.conversation), (-1, own.conversation));
        assert_eq!(both.residency, [word("br"), word("eu")], "which no card says");
        for residency in [&["us", "eu"][..], &["br", "eu", "us"], &["EU\n"]] {
            let sent = std::collections::BTreeMap::from([("residency", residency)]);
            assert!(codec::decode::<CallContext>(&codec::encode(&sent)).is_err(), "{residency:?}");
        }
    }

    #[test]
    fn a_malformed_trace_counts_as_none_and_a_malformed_conversation_as_an_error() {
        #[derive(Serialize)]
        struct Sent {
            trace: &'static str,
            conversation: &'static str,
        }
        let read =
            |trace, conversation| codec::decode::<CallContext>(&codec::encode(&Sent { trace, conversation }));
        let context = read("nonsense\r\n", "c").unwrap();
        assert_eq!((context.trace, context.conversation), (None, Some("c".parse().unwrap())));
        assert!(read(TRACE, "c").unwrap().trace.is_some());
        assert!(read(TRACE, "a\nb").is_err());
    }
}
