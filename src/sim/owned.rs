//! Zones with keys: what the key of each grants, and to whom. Everybody knows the keys, as anchors of his settings.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

use super::clock::START;
use crate::proto::grant::{Grant, Reach};
use crate::proto::identity::{Identity, PeerKey};
use crate::proto::name::ZoneName;
use crate::proto::record::RecordKind;
use crate::proto::time::Timestamp;

/// How long before a world begins its grants were given, and how long they last unless something else is said.
const GIVEN_BEFORE: Duration = Duration::from_secs(3_600);
const LASTING: Duration = Duration::from_secs(60 * 86_400);

/// What the key of a zone grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Who may write there, and speak for the zone.
    pub nodes: Vec<usize>,
    /// When that ends, virtual milliseconds; not in the run if none.
    pub ends_ms: Option<u64>,
}

impl Granted {
    /// When the grants end.
    pub(super) fn ends_at(&self) -> Timestamp {
        START + self.ends_ms.map_or(LASTING, Duration::from_millis)
    }

    fn grant(&self, zone: &ZoneName, kind: RecordKind, subject: PeerKey, issuer: &Identity) -> ByteBuf {
        let grant = Grant {
            network: "world".into(),
            issuer: issuer.key(),
            subject,
            zone: zone.clone(),
            reach: Reach::Zone,
            kinds: vec![kind],
            may_delegate: true,
            issued_at: START - GIVEN_BEFORE,
            expires_at: self.ends_at(),
            generation: 0,
            slots: None,
        };
        ByteBuf::from(grant.sign(issuer))
    }

    /// The grant by which a node offers agents in the zone.
    pub(super) fn to_write(&self, zone: &ZoneName, node: PeerKey) -> ByteBuf {
        self.grant(zone, RecordKind::Agent, node, &identity_of(zone))
    }

    /// The grants by which a node names the zone above: from the key of the nearest zone there that has one, if any has.
    pub(super) fn to_delegate(
        &self,
        zone: &ZoneName,
        node: PeerKey,
        owned: &BTreeMap<ZoneName, Granted>,
    ) -> Vec<ByteBuf> {
        let own = identity_of(zone);
        let above = zone.ancestors().find(|it| owned.contains_key(it));
        let vouched =
            above.map(|above| self.grant(zone, RecordKind::Delegation, own.key(), &identity_of(&above)));
        vouched.into_iter().chain([self.grant(zone, RecordKind::Delegation, node, &own)]).collect()
    }
}

/// Who has the key of a zone: it is made of the name, so that no draw of a world depends on it.
pub(super) fn identity_of(zone: &ZoneName) -> Identity {
    Identity::from_seed(Sha256::digest(zone.as_str()).into())
}
