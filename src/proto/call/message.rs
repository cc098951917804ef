//! What caller and host say to each other on a stream.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use ciborium::Value;
use serde::{Deserialize, Serialize};

use super::CallContext;
use crate::proto::code::Code;
use crate::proto::codec::{self, Malformed};
use crate::proto::identity::AgentId;
use crate::proto::limits::{CALL_FRAME_BYTES_MAX, CALL_MESSAGE_BYTES_MAX, CALL_PARTIAL_BYTES_MAX};
use crate::proto::name::FullName;

/// Names one call wherever it is offered: random, drawn by the caller. Shown as hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CallId(#[serde(with = "serde_bytes")] pub [u8; 16]);

/// Names one run of a host's process: random, drawn at its start. Another incarnation remembers no calls of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

/// What a caller says first; the input follows once the offer is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallRequest {
    /// Asks for a call.
    Offer(Box<CallOffer>),
    /// Asks for a call that was accepted on a stream that was lost since: the host answers as on that stream.
    Attach(CallAttach),
    /// Gives up the call of this stream.
    Cancel,
    /// Has the answer that came on this stream: the host need not keep it.
    Taken,
}

/// A call that is asked for again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallAttach {
    /// The call.
    pub call: CallId,
    /// The run of the host that accepted it: any other knows nothing of it.
    pub incarnation: Incarnation,
}

/// What a host that takes or refuses an offer says of the load of the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// Calls at work.
    pub running: u16,
    /// Calls that wait for a place.
    pub queued: u16,
    /// Calls that it works on at once.
    pub places: u16,
    /// Runs in a row, whoever called, that failed through the agent.
    pub failing: u16,
    /// What a run takes in the mean, milliseconds; 0 before the first.
    pub mean_ms: u32,
}

/// A call as it is offered to a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallOffer {
    /// The call.
    pub call: CallId,
    /// The agent, whose owner is part of the id.
    #[serde(with = "serde_bytes")]
    pub agent: [u8; 20],
    /// Its full name.
    pub name: FullName,
    /// Milliseconds until the caller gives up. Clocks differ, so no point in time travels.
    pub left_ms: u64,
    /// Bytes of the input.
    pub size: u64,
    /// How often this call has been offered, this offer included.
    pub attempt: u32,
    /// The run of the host that accepted an earlier offer of this call: any other must not run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Incarnation>,
    /// What it is part of.
    #[serde(default, skip_serializing_if = "CallContext::is_empty")]
    pub context: CallContext,
    /// Whether the work goes on until the deadline though its caller is gone: who offered it may attach again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub detached: bool,
    /// Whether the caller wants output before the work ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stream: bool,
    /// Whether it may have run before, and the agent may run it again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

/// What a host says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum CallReply {
    /// All places of the agent are taken. Nothing was done yet; another word follows.
    Queued {
        /// How many calls wait before this one.
        ahead: u32,
        /// The load of the agent.
        #[serde(default)]
        word: Word,
    },
    /// Send the input. Nothing was done yet.
    Accepted {
        /// This run of the host.
        incarnation: Incarnation,
        /// The load of the agent.
        #[serde(default)]
        word: Word,
        /// Whether the host takes another offer on this stream once its answer is taken.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        keeps: bool,
    },
    /// The offer is not accepted, or the accepted call gave no output.
    Failed(CallFailure),
    /// The host still has the call.
    Alive,
    /// The work goes on.
    Progress(Progress),
    /// A piece of the output, which follows whole when the work ends. At most [`CALL_PARTIAL_BYTES_MAX`] bytes.
    Partial(String),
    /// The output follows.
    Answered {
        /// Its bytes.
        size: u64,
    },
    /// Something that only a later version says; passed over.
    #[serde(skip)]
    Other,
}

/// The kinds of replies that are known.
const REPLY_KINDS: [&str; 7] = ["Queued", "Accepted", "Failed", "Alive", "Progress", "Partial", "Answered"];

/// What is known of the work when a call gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The agent never saw the input; calling again is safe.
    NotStarted,
    /// The agent may have done some or all of the work.
    Unknown,
    /// The agent ended, with a failure.
    Done,
}

impl Outcome {
    /// As it is written.
    pub fn text(self) -> &'static str {
        match self {
            Outcome::NotStarted => "not_started",
            Outcome::Unknown => "unknown",
            Outcome::Done => "done",
        }
    }
}

/// A call that gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message} ({code})")]
pub struct CallFailure {
    /// Stable code; one that another host made up, or a later version, is read as [`Code::Internal`].
    pub code: Code,
    /// What, why, and what to do.
    pub message: String,
    /// What is known of the work.
    pub outcome: Outcome,
    /// After how many milliseconds the same may be tried again, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl CallFailure {
    /// A failure; the message says what to do where there is something to do.
    pub fn new(code: Code, outcome: Outcome, message: impl Into<String>) -> CallFailure {
        CallFailure { code, message: message.into(), outcome, retry_after_ms: None }
    }

    /// The same may be tried again after that time.
    #[must_use]
    pub fn with_retry(self, after: Duration) -> CallFailure {
        let ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        CallFailure { retry_after_ms: Some(ms), ..self }
    }

    /// As it may travel, and as one from another host is believed: a message of bounded length without control characters.
    #[must_use]
    pub fn bounded(self) -> CallFailure {
        CallFailure { message: bounded_text(self.message), ..self }
    }
}

/// Text of bounded length without control characters.
fn bounded_text(mut text: String) -> String {
    // A cut within a character would panic.
    text.truncate(text.floor_char_boundary(CALL_MESSAGE_BYTES_MAX));
    // A blank is never longer than what it replaces, so the length stays within the bound.
    if text.contains(char::is_control) {
        text = text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    }
    text
}

/// How far the work of a call is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Grows with every report.
    pub progress: f64,
    /// What `progress` reaches at the end, if known.
    pub total: Option<f64>,
    /// For people.
    pub message: Option<String>,
}

impl Progress {
    /// As it may travel, and as one from another host is believed; none if its numbers are no numbers.
    #[must_use]
    pub fn bounded(self) -> Option<Progress> {
        // JSON, in which clients get reports, can write neither NaN nor an infinity.
        let numbers = self.progress.is_finite() && self.total.is_none_or(f64::is_finite);
        numbers.then(|| Progress { message: self.message.map(bounded_text), ..self })
    }
}

impl CallReply {
    /// Pieces of output, each of a size that may travel.
    pub fn partials(text: &str) -> impl Iterator<Item = CallReply> {
        let mut left = text;
        std::iter::from_fn(move || {
            let (piece, rest) = left.split_at(left.floor_char_boundary(CALL_PARTIAL_BYTES_MAX));
            left = rest;
            (!piece.is_empty()).then(|| CallReply::Partial(piece.to_owned()))
        })
    }
}

impl CallOffer {
    /// The agent.
    pub fn agent_id(&self) -> AgentId {
        AgentId(self.agent)
    }
}

impl CallRequest {
    /// Bytes for the stream.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a request of bounded size.
    pub fn decode(bytes: &[u8]) -> Result<CallRequest, Malformed> {
        decode_frame(bytes)
    }
}

impl CallReply {
    /// Bytes for the stream.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a reply of bounded size. One of an unknown kind is [`CallReply::Other`].
    pub fn decode(bytes: &[u8]) -> Result<CallReply, Malformed> {
        decode_frame(bytes).or_else(|malformed| match decode_frame(bytes).as_ref().map(kind) {
            Ok(Some(kind)) if !REPLY_KINDS.contains(&kind) => Ok(CallReply::Other),
            _ => Err(malformed),
        })
    }
}

/// The kind of a reply as it is written: alone, or as the only key of a map.
fn kind(reply: &Value) -> Option<&str> {
    match reply {
        Value::Text(kind) => Some(kind),
        Value::Map(entries) => entries.iter().next().filter(|_| entries.len() == 1)?.0.as_text(),
        _ => None,
    }
}

fn decode_frame<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    if bytes.len() > CALL_FRAME_BYTES_MAX { Err(Malformed) } else { codec::decode(bytes) }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

/// Why a text names no call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a call is named by 32 hexadecimal digits")]
pub struct NotACallId;

impl FromStr for CallId {
    type Err = NotACallId;

    fn from_str(text: &str) -> Result<CallId, NotACallId> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| NotACallId)?;
        bytes.try_into().map(CallId).map_err(|_| NotACallId)
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::name::LABEL_BYTES_MAX;

    fn offer() -> CallOffer {
        let zone = [["z".repeat(LABEL_BYTES_MAX).as_str(); 3].join("."), "y".repeat(60)].join(".");
        CallOffer {
            call: CallId([255; 16]),
            agent: [255; 20],
            name: format!("{}@{zone}", "a".repeat(LABEL_BYTES_MAX)).parse().unwrap(),
            left_ms: u64::MAX,
            size: u64::MAX,
            attempt: u32::MAX,
            expected: Some(Incarnation(u64::MAX)),
            context: CallContext::default(),
            detached: false,
            stream: false,
            again: false,
        }
    }

    #[test]
    fn the_longest_offer_and_the_longest_failure_fit_a_frame() {
        let request = CallRequest::Offer(Box::new(offer()));
        assert_eq!(CallRequest::decode(&request.encode()), Ok(request));
        let failure =
            CallFailure::new(Code::UpstreamFailed, Outcome::Unknown, "\u{7}ß".repeat(CALL_FRAME_BYTES_MAX))
                .bounded();
        assert!(failure.message.len() <= CALL_MESSAGE_BYTES_MAX && failure.message.starts_with(" ß"));
        let reply = CallReply::Failed(failure);
        assert_eq!(CallReply::decode(&reply.encode()), Ok(reply));
    }

    #[test]
    fn what_a_later_version_adds_is_passed_over() {
        #[derive(Serialize)]
        struct Later {
            #[serde(flatten)]
            offer: CallOffer,
            mood: u8,
        }
        #[derive(Serialize)]
        enum Request {
            Offer(Later),
        }
        let bytes = codec::encode(&Request::Offer(Later { offer: offer(), mood: 7 }));
        assert_eq!(CallRequest::decode(&bytes), Ok(CallRequest::Offer(Box::new(offer()))));
    }

    #[test]
    fn a_reply_of_an_unknown_kind_is_passed_over_and_a_broken_one_of_a_known_kind_is_not() {
        #[derive(Serialize)]
        enum Later {
            Bored,
            Painted { size: u64 },
            Accepted { incarnation: &'static str },
            Answered,
        }
        for later in [Later::Bored, Later::Painted { size: 3 }] {
            assert_eq!(CallReply::decode(&codec::encode(&later)), Ok(CallReply::Other));
        }
        for broken in [Later::Accepted { incarnation: "seven" }, Later::Answered] {
            assert_eq!(CallReply::decode(&codec::encode(&broken)), Err(Malformed));
        }
        assert_eq!(CallReply::decode(&codec::encode(&7)), Err(Malformed));
        assert_eq!(CallReply::decode(&CallReply::Alive.encode()), Ok(CallReply::Alive));
    }

    #[test]
    fn a_code_of_another_version_is_internal_and_its_message_stays() {
        #[derive(Serialize)]
        struct Later {
            code: &'static str,
            message: &'static str,
            outcome: Outcome,
        }
        #[derive(Serialize)]
        enum Reply {
            Failed(Later),
        }
        for (code, read) in
            [("agent_failed", Code::AgentFailed), ("bored", Code::Internal), ("\u{1b}[2J", Code::Internal)]
        {
            let bytes = codec::encode(&Reply::Failed(Later { code, message: "why", outcome: Outcome::Done }));
            let failure = CallFailure::new(read, Outcome::Done, "why");
            assert_eq!(CallReply::decode(&bytes), Ok(CallReply::Failed(failure)), "{code:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = CallRequest::decode(&bytes);
            let _ = CallReply::decode(&bytes);
        }
    }
}
