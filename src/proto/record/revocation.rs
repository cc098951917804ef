//! Revocations: an owner takes back what another host wrote for it (protocol section 2).
//!
//! A revocation is a record with a key and a shelf of its own: it displaces nothing of what it names, so neither slots nor
//! stamps nor renewals of the host undo it. While it is held, what it names is held on and shown to nobody.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::RecordKind;
use crate::proto::codec;
use crate::proto::identity::PeerKey;
use crate::proto::name::{AgentName, ZoneName};

/// The body of a revocation: what is taken back of the owner who signs it, in the zone of the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// The host that wrote it; never the owner.
    pub host: PeerKey,
    /// The one record meant. If none, all that the host wrote for the owner, and all that carries a grant it passed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<RevokedRecord>,
}

/// What a host wrote, of one owner in one zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedRecord {
    /// What it is about.
    pub kind: RecordKind,
    /// Its name.
    pub name: AgentName,
}

impl Revocation {
    /// The name that it must stand under: a hash of what it takes back, so that there is one for each.
    pub fn name(&self, zone: &ZoneName, owner: PeerKey) -> AgentName {
        let meant = match &self.record {
            Some(RevokedRecord { kind, name }) => codec::encode(&(zone, kind, name, owner, self.host)),
            None => codec::encode(&(owner, self.host)),
        };
        let hash = Sha256::new_with_prefix(b"aop-revocation-v1\0").chain_update(meant).finalize();
        let label = data_encoding::BASE32_NOPAD.encode(&hash).to_ascii_lowercase();
        label.parse().expect("52 letters and digits are a name")
    }
}
