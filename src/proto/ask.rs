//! What nodes of different zones ask each other (protocol section 4): one question a conversation, answered from memory or
//! from what a zone above answers.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::codec::{self, Malformed};
use super::identity::PeerKey;
use super::limits::{
    ANSWER_BYTES_MAX, CONTACT_ADDRESSES_MAX, QUESTION_BYTES_MAX, WAY_BELOW_MAX, WAY_GATEWAYS_MAX,
    WAY_RECORDS_MAX,
};
use super::name::ZoneId;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// What leads from a zone to one below it?
    #[serde(rename = "w")]
    Walk {
        /// Where to look.
        zone: ZoneId,
        /// What is looked for.
        target: ZoneId,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To `Walk`, of a member of the zone.
    #[serde(rename = "w")]
    Way(Box<Way>),
    /// This node cannot say; these may.
    #[serde(rename = "e")]
    Elsewhere {
        /// Who.
        #[serde(deserialize_with = "codec::at_most::<WAY_GATEWAYS_MAX, _, _>")]
        gateways: Vec<Contact>,
    },
    /// This node cannot say, and knows nobody who can.
    #[serde(rename = "r")]
    Refused,
    /// The asker took its share.
    #[serde(rename = "b")]
    Busy {
        /// The same may be asked again after so many milliseconds.
        wait_ms: u64,
    },
}

/// What leads from a zone to one below it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// Whether the answerer may speak for the zone.
    pub whole: bool,
    /// Who else may be asked of it.
    #[serde(deserialize_with = "codec::at_most::<WAY_GATEWAYS_MAX, _, _>")]
    pub gateways: Vec<Contact>,
    /// Delegations of the zones between, and of the one that is looked for.
    #[serde(deserialize_with = "codec::at_most::<WAY_RECORDS_MAX, _, _>")]
    pub way: Vec<ByteBuf>,
    /// Delegations of what lies below that.
    #[serde(deserialize_with = "codec::at_most::<WAY_BELOW_MAX, _, _>")]
    pub below: Vec<ByteBuf>,
    /// The slot in which the asker's delegation of the zone that it looks for stands, or may stand.
    pub slot: u16,
}

/// A node, and where it is dialed: the word of whoever names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Contact {
    /// Who.
    #[serde(rename = "p")]
    pub peer: PeerKey,
    /// Encoded multiaddresses without the peer.
    #[serde(rename = "a", default, skip_serializing_if = "Vec::is_empty")]
    #[serde(deserialize_with = "codec::at_most::<CONTACT_ADDRESSES_MAX, _, _>")]
    pub addresses: Vec<ByteBuf>,
}

impl Question {
    /// Bytes for the stream.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a question of bounded size.
    pub fn decode(bytes: &[u8]) -> Result<Question, Malformed> {
        if bytes.len() > QUESTION_BYTES_MAX { Err(Malformed) } else { codec::decode(bytes) }
    }
}

impl Answer {
    /// Bytes for the stream.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads an answer of bounded size.
    pub fn decode(bytes: &[u8]) -> Result<Answer, Malformed> {
        if bytes.len() > ANSWER_BYTES_MAX { Err(Malformed) } else { codec::decode(bytes) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Question::decode(&bytes);
            let _ = Answer::decode(&bytes);
        }
    }
}
