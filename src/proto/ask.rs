//! What nodes of different zones ask each other (protocol section 4): one question a conversation, answered from memory or
//! from what a zone above answers.

mod cover;

use std::time::Duration;

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

pub use self::cover::{Cover, Referral};
use super::card::Residency;
use super::codec::{self, Malformed};
use super::identity::{AgentId, PeerKey};
use super::limits::{
    ANSWER_BYTES_MAX, ANSWER_HOSTS_MAX, ANSWER_RECORDS_MAX, ASK_TIME_MAX, ASKED_LABELS_MAX, ASKED_NAMES_MAX,
    ASKED_TEXT_BYTES_MAX, CONTACT_ADDRESSES_MAX, DELEGATION_ADDRESS_BYTES_MAX, PROOFS_MAX,
    QUESTION_BYTES_MAX, TREE_ZONES_MAX, WAY_BELOW_MAX, WAY_GATEWAYS_MAX, WAY_RECORDS_MAX,
};
use super::message::{ALIVE_MAX, Alive};
use super::name::{FullName, ZoneId, ZoneName};
use super::query::{Find, TreeZone, ZoneStatus};
use super::record::Record;
use super::search::{Asked, Cursor, PAGE_HITS_MAX, Query, label};

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
    /// Which agents match?
    #[serde(rename = "f")]
    Find(Box<Search>),
    /// Who has these names?
    #[serde(rename = "n")]
    Names {
        /// Of a bare name the whole search list.
        #[serde(deserialize_with = "codec::at_most::<ASKED_NAMES_MAX, _, _>")]
        names: Vec<FullName>,
        /// Milliseconds within which the answer is of use.
        left_ms: u32,
        /// What was answered longer ago is of no use, milliseconds.
        max_age_ms: u32,
    },
    /// Which zones are there?
    #[serde(rename = "t")]
    Tree {
        /// A zone, with all that lies below.
        zone: ZoneName,
        /// Milliseconds within which the answer is of use.
        left_ms: u32,
        /// What was answered longer ago is of no use, milliseconds.
        max_age_ms: u32,
    },
    /// Who is this agent? Answered as one name is.
    #[serde(rename = "a")]
    Agent {
        /// Its id.
        id: AgentId,
        /// Milliseconds within which the answer is of use.
        left_ms: u32,
        /// What was answered longer ago is of no use, milliseconds.
        max_age_ms: u32,
    },
}

/// A search that is asked elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Search {
    /// The words.
    pub text: String,
    /// The zone, with all that lies below.
    pub zone: ZoneName,
    /// All of these.
    #[serde(deserialize_with = "codec::at_most::<ASKED_LABELS_MAX, _, _>")]
    pub tags: Vec<String>,
    /// All of these.
    #[serde(deserialize_with = "codec::at_most::<ASKED_LABELS_MAX, _, _>")]
    pub capabilities: Vec<String>,
    /// What their cards say of where data stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub residency: Option<Residency>,
    /// Most agents, 1 … [`PAGE_HITS_MAX`].
    pub limit: u16,
    /// Where an earlier page ended, as its text.
    pub after: Option<String>,
    /// Milliseconds within which the answer is of use.
    pub left_ms: u32,
    /// What is older is of no use, milliseconds, as far as there is anything newer.
    pub max_age_ms: u32,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To `Walk`, of a member of the zone.
    #[serde(rename = "w")]
    Way(Box<Way>),
    /// To `Find`.
    #[serde(rename = "f")]
    Found {
        /// Records of the agents that match, all hosts of an agent together, the best agent first.
        #[serde(deserialize_with = "codec::at_most::<ANSWER_RECORDS_MAX, _, _>")]
        records: Vec<ByteBuf>,
        /// Whether there are more agents behind these.
        more: bool,
        /// What the answer speaks for.
        cover: Cover,
        /// Hosts of these agents that are alive.
        #[serde(deserialize_with = "codec::at_most::<ALIVE_MAX, _, _>")]
        alive: Vec<Alive>,
        /// The delegations that lead to zones with keys among those of the records.
        #[serde(default, deserialize_with = "codec::at_most::<PROOFS_MAX, _, _>")]
        #[serde(skip_serializing_if = "Vec::is_empty")]
        proofs: Vec<ByteBuf>,
    },
    /// To `Names` and `Agent`.
    #[serde(rename = "n")]
    Named {
        /// Records of all agents with one of the names, or of the agent.
        #[serde(deserialize_with = "codec::at_most::<ANSWER_RECORDS_MAX, _, _>")]
        records: Vec<ByteBuf>,
        /// What is known of the zone of each name, in the order asked.
        #[serde(deserialize_with = "codec::at_most::<ASKED_NAMES_MAX, _, _>")]
        zones: Vec<Knowledge>,
        /// Who else may be asked of the zones whose replica answered: their gateways.
        #[serde(deserialize_with = "codec::at_most::<ASKED_NAMES_MAX, _, _>")]
        gateways: Vec<Contact>,
        /// Where hosts of the records are dialed, as far as whoever answers knows.
        #[serde(default, deserialize_with = "codec::at_most::<ANSWER_HOSTS_MAX, _, _>")]
        #[serde(skip_serializing_if = "Vec::is_empty")]
        hosts: Vec<Contact>,
        /// Hosts of these agents that are alive.
        #[serde(deserialize_with = "codec::at_most::<ALIVE_MAX, _, _>")]
        alive: Vec<Alive>,
        /// As of `Found`.
        #[serde(default, deserialize_with = "codec::at_most::<PROOFS_MAX, _, _>")]
        #[serde(skip_serializing_if = "Vec::is_empty")]
        proofs: Vec<ByteBuf>,
    },
    /// To `Tree`.
    #[serde(rename = "t")]
    Tree {
        /// The registries that whoever answers holds.
        #[serde(deserialize_with = "codec::at_most::<TREE_ZONES_MAX, _, _>")]
        zones: Vec<Branch>,
        /// How many there are beside these.
        more: u32,
    },
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

/// A registry of the tree of zones, by the word of whoever holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// Which.
    #[serde(rename = "z")]
    pub id: ZoneId,
    /// What an answer out of it is worth: the age of what is held, and whether nothing is missing.
    #[serde(rename = "a")]
    pub age_ms: Option<u32>,
    /// See `age_ms`.
    #[serde(rename = "w")]
    pub is_whole: bool,
    /// Live agents.
    #[serde(rename = "n")]
    pub agents: u32,
    /// Bytes of its records.
    #[serde(rename = "b")]
    pub bytes: u64,
    /// Live members, where that is known.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub members: Option<u32>,
    /// Who speaks for it.
    #[serde(rename = "g", deserialize_with = "codec::at_most::<WAY_GATEWAYS_MAX, _, _>")]
    pub gateways: Vec<PeerKey>,
    /// The zone that names it to the rest of the world.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ZoneId>,
}

/// What whoever answers knows of the zone of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Knowledge {
    /// All of it: who is not named is not there.
    #[serde(rename = "h")]
    Whole,
    /// What a replica held lately: what is newer its gateways know.
    #[serde(rename = "l")]
    Lately,
    /// That nobody serves it.
    #[serde(rename = "z")]
    NoZone,
    /// Not enough.
    #[serde(rename = "u")]
    Unknown,
}

impl Search {
    /// A search as it is asked elsewhere; `None` for what only this node can answer.
    pub fn of(find: &Find, left: Duration) -> Option<Search> {
        let Find { query, limit, after, max_age, .. } = find;
        let text = &query.text[..query.text.floor_char_boundary(ASKED_TEXT_BYTES_MAX)];
        let labels = |labels: &Vec<String>| (labels.len() <= ASKED_LABELS_MAX).then(|| labels.clone());
        Some(Search {
            text: text.to_owned(),
            zone: query.zone.clone().unwrap_or_else(ZoneName::root),
            tags: labels(&query.tags)?,
            capabilities: labels(&query.capabilities)?,
            residency: query.residency.clone(),
            limit: (*limit).clamp(1, PAGE_HITS_MAX) as u16,
            after: after.as_ref().map(ToString::to_string),
            left_ms: millis(left),
            max_age_ms: millis(*max_age),
        })
    }

    /// What is searched for, and behind what; `None` if it makes no sense.
    pub fn query(&self) -> Option<(Query, Option<Cursor>)> {
        let after = self.after.as_ref().map(|text| text.parse()).transpose().ok()?;
        let Search { text, zone, tags, capabilities, residency, .. } = self.clone();
        Some((Query { text, zone: Some(zone), zones: Vec::new(), tags, capabilities, residency }, after))
    }
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
    #[serde(deserialize_with = "short_addresses")]
    pub addresses: Vec<ByteBuf>,
}

impl Branch {
    /// As it is told to others.
    pub fn of(zone: &TreeZone) -> Branch {
        Branch {
            id: zone.id.clone(),
            age_ms: zone.age.map(millis),
            is_whole: zone.status.is_fine(),
            agents: zone.agents as u32,
            bytes: zone.bytes as u64,
            members: zone.members.map(|members| members as u32),
            gateways: zone.gateways.iter().take(WAY_GATEWAYS_MAX).copied().collect(),
            parent: zone.parent.clone(),
        }
    }

    /// As it is shown, by whom, `passed` later.
    pub fn zone(&self, by: PeerKey, passed: Duration, answered: ZoneStatus) -> TreeZone {
        let age = self.age_ms.map(|ms| Duration::from_millis(u64::from(ms)) + passed);
        TreeZone {
            id: self.id.clone(),
            role: None,
            status: match age {
                _ if self.is_whole => answered,
                Some(_) => ZoneStatus::Stale,
                None => ZoneStatus::Unreachable,
            },
            age,
            by: Some(by),
            agents: self.agents as usize,
            bytes: self.bytes as usize,
            members: self.members.map(|members| members as usize),
            gateways: self.gateways.clone(),
            is_gateway: false,
            parent: self.parent.clone(),
        }
    }
}

/// What was so many milliseconds old, `passed` later.
pub(super) fn later(age_ms: u32, passed: Duration) -> u32 {
    age_ms.saturating_add(millis(passed))
}

/// Milliseconds as they are told.
fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// Few, and short: an answer has room for addresses that would fill the memory of whoever keeps them.
fn short_addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ByteBuf>, D::Error> {
    let addresses = codec::at_most::<CONTACT_ADDRESSES_MAX, ByteBuf, D>(deserializer)?;
    match addresses.iter().all(|address| address.len() <= DELEGATION_ADDRESS_BYTES_MAX) {
        true => Ok(addresses),
        false => Err(D::Error::custom("an address that is too long")),
    }
}

impl Question {
    /// How long its answer is of use.
    pub fn left(&self) -> Duration {
        let left_ms = match self {
            Question::Walk { .. } => return ASK_TIME_MAX,
            Question::Find(search) => search.left_ms,
            Question::Names { left_ms, .. }
            | Question::Agent { left_ms, .. }
            | Question::Tree { left_ms, .. } => *left_ms,
        };
        Duration::from_millis(u64::from(left_ms)).min(ASK_TIME_MAX)
    }

    /// How old the answer may be.
    pub fn max_age(&self) -> Duration {
        let max_age_ms = match self {
            Question::Walk { .. } => 0,
            Question::Find(search) => search.max_age_ms,
            Question::Names { max_age_ms, .. }
            | Question::Agent { max_age_ms, .. }
            | Question::Tree { max_age_ms, .. } => *max_age_ms,
        };
        Duration::from_millis(u64::from(max_age_ms))
    }

    /// The same with less time.
    pub fn with_left(self, left: Duration) -> Question {
        let max_age = self.max_age();
        self.within(left, max_age)
    }

    fn within(mut self, left: Duration, max_age: Duration) -> Question {
        let (left, max_age) = (millis(left), millis(max_age));
        match &mut self {
            Question::Walk { .. } => {}
            Question::Find(search) => (search.left_ms, search.max_age_ms) = (left, max_age),
            Question::Names { left_ms, max_age_ms, .. }
            | Question::Agent { left_ms, max_age_ms, .. }
            | Question::Tree { left_ms, max_age_ms, .. } => {
                (*left_ms, *max_age_ms) = (left, max_age);
            }
        }
        self
    }

    /// How many names an answer speaks of.
    pub(super) fn names(&self) -> usize {
        match self {
            Question::Walk { .. } | Question::Find(_) | Question::Tree { .. } => 0,
            Question::Names { names, .. } => names.len(),
            Question::Agent { .. } => 1,
        }
    }

    /// Whether a record of an agent is asked for.
    pub(super) fn is_answered_by(&self, record: &Record) -> bool {
        match self {
            Question::Walk { .. } | Question::Tree { .. } => false,
            Question::Find(search) => record.name.zone.is_within(&search.zone),
            Question::Names { names, .. } => names.contains(&record.name),
            Question::Agent { id, .. } => record.agent_id() == *id,
        }
    }

    /// What two questions have in common that one answer answers, whatever their spelling, their time and the age they allow.
    pub(super) fn sense(&self) -> Vec<u8> {
        let mut question = self.clone().within(Duration::ZERO, Duration::ZERO);
        if let Question::Find(search) = &mut question {
            search.text = Asked::of(&search.text).sense();
            for labels in [&mut search.tags, &mut search.capabilities] {
                labels.iter_mut().for_each(|it| *it = label(it));
                labels.sort();
                labels.dedup();
            }
        }
        question.encode()
    }

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

    #[test]
    fn who_names_a_node_names_few_and_short_addresses() {
        let is_read = |addresses: Vec<ByteBuf>| {
            let gateways = vec![Contact { peer: PeerKey([1; 32]), addresses }];
            Answer::decode(&Answer::Elsewhere { gateways }.encode()).is_ok()
        };
        let address = |bytes: usize| ByteBuf::from(vec![4; bytes]);
        assert!(is_read(vec![address(DELEGATION_ADDRESS_BYTES_MAX); CONTACT_ADDRESSES_MAX]));
        assert!(!is_read(vec![address(8); CONTACT_ADDRESSES_MAX + 1]));
        assert!(!is_read(vec![address(DELEGATION_ADDRESS_BYTES_MAX + 1)]));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Question::decode(&bytes);
            let _ = Answer::decode(&bytes);
        }
    }
}
