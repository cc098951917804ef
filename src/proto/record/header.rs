//! What a record says about itself: the signed part before the body.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::key::{KeyHash, RecordKey, RecordKind};
use crate::proto::card::Scope;
use crate::proto::codec;
use crate::proto::identity::PeerKey;
use crate::proto::limits::GRANTS_MAX;
use crate::proto::name::{AgentName, ZoneName};
use crate::proto::time::{Stamp, Timestamp};

/// `j` of the paper's vector: a key and the epoch of its data folder, so that a node that lost its disk is a new author.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Author {
    /// The signing key.
    pub key: PeerKey,
    /// Random, made with the data folder.
    pub epoch: u64,
}

/// What a record says about itself; the signed part before the body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The world it belongs to.
    pub network: String,
    /// Zone of the name.
    pub zone: ZoneName,
    /// What it is about.
    pub kind: RecordKind,
    /// Name in the zone.
    pub name: AgentName,
    /// On whose behalf it is registered: the host itself without grants, else the first issuer.
    pub owner: PeerKey,
    /// The node that offers it.
    pub host: PeerKey,
    /// Who signed.
    pub author: Author,
    /// Version counter 1, 2, 3 … of the author in the zone; 0 in `node` scope.
    pub seq: u64,
    /// When it was written.
    pub stamp: Stamp,
    /// Overrules any stamp of a lower generation.
    pub generation: u64,
    /// End of the lease, wall milliseconds.
    pub expires_at: Timestamp,
    /// How far it may spread.
    pub scope: Scope,
    /// Its place on the shelf of its owner and host, below [`SLOTS`](crate::proto::limits::SLOTS).
    pub slot: u16,
    /// Signed grants from owner to author.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(deserialize_with = "codec::at_most::<GRANTS_MAX, _, _>")]
    pub grants: Vec<ByteBuf>,
}

impl Header {
    /// Hash of its key.
    pub fn key(&self) -> KeyHash {
        let Header { zone, kind, name, owner, host, scope, .. } = self;
        RecordKey { zone, kind, name, owner: *owner, host: *host, scope: *scope }.hash()
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:x}", self.key, self.epoch)
    }
}
