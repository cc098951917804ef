//! What a record is about: records of one key compete (protocol section 1).

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::proto::card::Scope;
use crate::proto::codec;
use crate::proto::identity::PeerKey;
use crate::proto::name::{AgentName, NameError, ZoneName};

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RecordKind {
    /// An agent card.
    Agent,
    /// A zone delegation.
    Delegation,
    /// An owner takes back what another host wrote for it.
    Revocation,
    /// A kind of a later version: kept and forwarded, never interpreted.
    Unknown(AgentName),
}

/// Hash of `(zone, kind, name, owner, host, scope)`: equal for records that compete.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyHash(#[serde(with = "serde_bytes")] pub [u8; 32]);

/// What a record is about, whoever wrote it and when: records of one key compete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordKey<'a> {
    /// Zone of the name.
    pub zone: &'a ZoneName,
    /// What it is about.
    pub kind: &'a RecordKind,
    /// Name in the zone.
    pub name: &'a AgentName,
    /// On whose behalf it is registered.
    pub owner: PeerKey,
    /// The node that offers it.
    pub host: PeerKey,
    /// How far it may spread.
    pub scope: Scope,
}

impl RecordKey<'_> {
    /// The key in the encoding of the header, behind a prefix of its own. The scope belongs to it: what becomes private
    /// does not compete with what others hold of the same agent, it buries that.
    pub fn hash(&self) -> KeyHash {
        let RecordKey { zone, kind, name, owner, host, scope } = self;
        let key = codec::encode(&(zone, kind, name, owner, host, scope));
        KeyHash(Sha256::new_with_prefix(b"aop-key-v1\0").chain_update(key).finalize().into())
    }
}

impl From<RecordKind> for String {
    fn from(kind: RecordKind) -> String {
        match kind {
            RecordKind::Agent => "agent".into(),
            RecordKind::Delegation => "delegation".into(),
            RecordKind::Revocation => "revocation".into(),
            RecordKind::Unknown(label) => label.into(),
        }
    }
}

impl TryFrom<String> for RecordKind {
    type Error = NameError;
    fn try_from(text: String) -> Result<RecordKind, NameError> {
        Ok(match text.as_str() {
            "agent" => RecordKind::Agent,
            "delegation" => RecordKind::Delegation,
            "revocation" => RecordKind::Revocation,
            _ => RecordKind::Unknown(text.parse()?),
        })
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", data_encoding::HEXLOWER.encode(&self.0[..6]))
    }
}
