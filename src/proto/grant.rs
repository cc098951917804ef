//! Grants: signed permission to write a name on somebody's behalf (protocol section 1).
//!
//! A chain runs from the owner to the author: each issuer is the previous subject, none exceeds the one before. In a zone with
//! a key it begins one grant earlier, with that key: whom the zone grants is the owner (section 4). A grant is judged by
//! content alone, never by the time of arrival.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::codec;
use super::identity::{Identity, PeerKey};
use super::limits::{GRANT_LIFE_MAX, GRANT_SLOTS, GRANTS_MAX, STAMP_AHEAD_MAX};
use super::name::{AgentName, ZoneName};
use super::record::RecordKind;
use super::time::Timestamp;

/// Separates signatures over grants from all other uses of a key.
const GRANT_DOMAIN: &[u8] = b"aop-grant-v1\0";
/// Most kinds one grant names.
const GRANT_KINDS_MAX: usize = 8;

/// What a grant allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The world it counts in.
    pub network: String,
    /// Who gives.
    pub issuer: PeerKey,
    /// Who may write.
    pub subject: PeerKey,
    /// Zone of the names.
    pub zone: ZoneName,
    /// Names of the zone it covers.
    pub reach: Reach,
    /// Kinds of record, at most 8.
    #[serde(deserialize_with = "codec::at_most::<GRANT_KINDS_MAX, _, _>")]
    pub kinds: Vec<RecordKind>,
    /// Whether the subject may pass it on.
    pub may_delegate: bool,
    /// When it was given, wall milliseconds.
    pub issued_at: Timestamp,
    /// When it ends, at most 90 days later.
    pub expires_at: Timestamp,
    /// Overrules any timestamp of a lower generation.
    pub generation: u64,
    /// Slots of a shelf that a zone's key gives, 1 to [`SLOTS`](super::limits::SLOTS); [`GRANT_SLOTS`] where it says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u16>,
}

/// Which names a grant covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// One name in the zone.
    Label(AgentName),
    /// Every name in the zone.
    Zone,
    /// Every name in the zone and the zones below.
    Subtree,
}

/// Why a chain of grants does not carry a record. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// More than 6 grants.
    #[error("more than {GRANTS_MAX} grants")]
    TooMany,
    /// Not the bytes of a grant.
    #[error("a grant is malformed")]
    Malformed,
    /// The issuer did not sign it.
    #[error("a grant's signature is wrong")]
    BadSignature,
    /// Issuer and subject do not join owner and author.
    #[error("the grants do not lead from the owner, or the zone's key, to the author")]
    Broken,
    /// Another network, zone, name, kind, or a wider grant than the one before.
    #[error("a grant does not cover the record, or exceeds the one before")]
    Exceeded,
    /// Longer than 90 days, or issued after the record.
    #[error("a grant's time is wrong: at most 90 days, issued before the record")]
    BadTime,
}

/// What a chain is asked to carry.
pub struct Claim<'a> {
    /// The record's network.
    pub network: &'a str,
    /// Its owner: the first issuer, or the first subject of a zone's key.
    pub owner: PeerKey,
    /// Its author, the last subject.
    pub author: PeerKey,
    /// Its zone.
    pub zone: &'a ZoneName,
    /// Its name.
    pub name: &'a AgentName,
    /// Its kind.
    pub kind: &'a RecordKind,
    /// Wall time of its stamp.
    pub stamped_at: Timestamp,
}

/// What a verified chain says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Generation of the first grant that the owner signed; none where the owner is the author, and chooses it.
    pub generation: Option<u64>,
    /// The earliest end of all grants.
    pub expires_at: Timestamp,
    /// The slots that a zone's key gave, the least of all grants; none where the chain begins with the owner.
    pub slots: Option<u16>,
}

impl Grant {
    /// Signs the grant: 64 bytes of signature, then the signed bytes.
    pub fn sign(&self, issuer: &Identity) -> Vec<u8> {
        let content = codec::encode(self);
        [&issuer.sign(GRANT_DOMAIN, &content)[..], &content[..]].concat()
    }

    /// Reads signed bytes without judging the signature, to show what a grant says.
    pub fn read(signed: &[u8]) -> Result<Grant, GrantError> {
        let content = signed.get(64..).ok_or(GrantError::Malformed)?;
        codec::decode(content).map_err(|_| GrantError::Malformed)
    }

    fn verify(signed: &[u8]) -> Result<Grant, GrantError> {
        let grant = Grant::read(signed)?;
        let (signature, content) = signed.split_first_chunk::<64>().ok_or(GrantError::Malformed)?;
        if !grant.issuer.verify(GRANT_DOMAIN, content, signature) {
            return Err(GrantError::BadSignature);
        }
        Ok(grant)
    }

    fn covers(&self, claim: &Claim) -> bool {
        self.network == claim.network
            && self.kinds.contains(claim.kind)
            && match &self.reach {
                Reach::Label(label) => self.zone == *claim.zone && label == claim.name,
                Reach::Zone => self.zone == *claim.zone,
                Reach::Subtree => claim.zone.is_within(&self.zone),
            }
    }

    /// Whether `self`, given by the subject of `parent`, stays within it.
    fn narrows(&self, parent: &Grant) -> bool {
        let reach = match (&parent.reach, &self.reach) {
            (Reach::Label(outer), Reach::Label(inner)) => outer == inner && parent.zone == self.zone,
            (Reach::Label(_), _) => false,
            (Reach::Zone, Reach::Subtree) => false,
            (Reach::Zone, _) => parent.zone == self.zone,
            // Whatever it reaches from a zone below lies below, too.
            (Reach::Subtree, _) => self.zone.is_within(&parent.zone),
        };
        reach
            && parent.may_delegate
            && self.expires_at <= parent.expires_at
            // A record has the generation of the first grant: none further on may claim more.
            && self.generation <= parent.generation
            && self.kinds.iter().all(|kind| parent.kinds.contains(kind))
    }

    fn time_is_sound(&self, stamped_at: Timestamp) -> bool {
        self.expires_at.since(self.issued_at) <= GRANT_LIFE_MAX
            // The clocks of issuer and author may differ, by as much as a stamp may be ahead.
            && self.issued_at <= stamped_at + STAMP_AHEAD_MAX
            // An end before the beginning counts as zero as well.
            && self.expires_at.since(self.issued_at) > Duration::ZERO
    }
}

/// Judges a non-empty chain of signed grants for `claim`; the cheap checks come before any signature.
pub fn verify_chain(signed: &[impl AsRef<[u8]>], claim: &Claim) -> Result<Chain, GrantError> {
    if signed.len() > GRANTS_MAX {
        return Err(GrantError::TooMany);
    }
    // Of a zone's key the first grant makes its subject the owner; an owner that is the author grants itself nothing.
    let first = signed.first().ok_or(GrantError::Broken).and_then(|bytes| Grant::read(bytes.as_ref()))?;
    let is_of_zone = first.issuer != claim.owner;
    let leads_from_owner =
        if is_of_zone { first.subject == claim.owner } else { claim.owner != claim.author };
    if !leads_from_owner {
        return Err(GrantError::Broken);
    }
    let mut expected_issuer = first.issuer;
    let mut previous: Option<Grant> = None;
    let mut chain = Chain { generation: None, expires_at: Timestamp(u64::MAX), slots: None };
    for bytes in signed {
        let grant = Grant::read(bytes.as_ref())?;
        if grant.issuer != expected_issuer {
            return Err(GrantError::Broken);
        }
        if !grant.covers(claim) || previous.as_ref().is_some_and(|parent| !grant.narrows(parent)) {
            return Err(GrantError::Exceeded);
        }
        if !grant.time_is_sound(claim.stamped_at) {
            return Err(GrantError::BadTime);
        }
        let grant = Grant::verify(bytes.as_ref())?;
        expected_issuer = grant.subject;
        if grant.issuer == claim.owner {
            chain.generation.get_or_insert(grant.generation);
        }
        if is_of_zone {
            let given = grant.slots.unwrap_or(GRANT_SLOTS);
            chain.slots = Some(chain.slots.map_or(given, |slots| slots.min(given)));
        }
        chain.expires_at = chain.expires_at.min(grant.expires_at);
        previous = Some(grant);
    }
    if expected_issuer == claim.author { Ok(chain) } else { Err(GrantError::Broken) }
}

/// Who signed the first grant of a chain that was verified: the owner, or the key of the zone.
pub fn first_issuer(signed: &[impl AsRef<[u8]>]) -> Option<PeerKey> {
    signed.first().and_then(|first| Grant::read(first.as_ref()).ok()).map(|grant| grant.issuer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn grant(issuer: &Identity, subject: &Identity) -> Grant {
        Grant {
            network: "world".into(),
            issuer: issuer.key(),
            subject: subject.key(),
            zone: "acme.org".parse().unwrap(),
            reach: Reach::Subtree,
            kinds: vec![RecordKind::Agent],
            may_delegate: true,
            issued_at: NOW,
            expires_at: NOW + 30 * DAY,
            generation: 3,
            slots: None,
        }
    }

    fn judge(signed: &[Vec<u8>], owner: &Identity, author: &Identity) -> Result<Chain, GrantError> {
        let claim = Claim {
            network: "world",
            owner: owner.key(),
            author: author.key(),
            zone: &"research.acme.org".parse().unwrap(),
            name: &"summarizer".parse().unwrap(),
            kind: &RecordKind::Agent,
            stamped_at: NOW,
        };
        verify_chain(signed, &claim)
    }

    #[test]
    fn a_chain_leads_from_owner_to_author() {
        let [owner, middle, host] = [1, 2, 3].map(|seed| Identity::from_seed([seed; 32]));
        let first = grant(&owner, &middle);
        let second = Grant { generation: 0, expires_at: NOW + DAY, ..grant(&middle, &host) };
        let signed = [first.sign(&owner), second.sign(&middle)];
        let chain = Chain { generation: Some(3), expires_at: NOW + DAY, slots: None };
        assert_eq!(judge(&signed, &owner, &host), Ok(chain));
        assert_eq!(judge(&signed[..1], &owner, &host), Err(GrantError::Broken));
        assert_eq!(judge(&signed[1..], &owner, &host), Err(GrantError::Broken));
        assert_eq!(judge(&[], &owner, &owner), Err(GrantError::Broken));
        let own = Grant { subject: owner.key(), ..first };
        assert_eq!(judge(&[own.sign(&owner)], &owner, &owner), Err(GrantError::Broken));
    }

    #[test]
    fn whom_a_zone_grants_is_the_owner_and_says_the_generation() {
        let [zone, owner, host] = [1, 2, 3].map(|seed| Identity::from_seed([seed; 32]));
        let first = grant(&zone, &owner);
        let second = Grant { generation: 2, slots: Some(9), ..grant(&owner, &host) };
        let signed = [first.sign(&zone), second.sign(&owner)];
        let chain = Chain { generation: Some(2), expires_at: NOW + 30 * DAY, slots: Some(9) };
        assert_eq!(judge(&signed, &owner, &host), Ok(chain));
        // The zone's key may stand for itself, as any owner.
        assert_eq!(judge(&signed, &zone, &host), Ok(Chain { generation: Some(3), slots: None, ..chain }));
        let chain = Chain { generation: None, slots: Some(GRANT_SLOTS), ..chain };
        assert_eq!(judge(&signed[..1], &owner, &owner), Ok(chain));
        assert_eq!(judge(&signed, &host, &host), Err(GrantError::Broken));
    }

    #[test]
    fn no_grant_exceeds_the_one_before() {
        let [owner, middle, host] = [1, 2, 3].map(|seed| Identity::from_seed([seed; 32]));
        let inner = grant(&middle, &host);
        let narrow: [fn(&mut Grant); 6] = [
            |parent| parent.may_delegate = false,
            |parent| parent.reach = Reach::Zone,
            |parent| parent.zone = "other.org".parse().unwrap(),
            |parent| parent.kinds = vec![RecordKind::Delegation],
            |parent| parent.expires_at = NOW + DAY,
            |parent| parent.generation = 2,
        ];
        for change in narrow {
            let mut parent = grant(&owner, &middle);
            change(&mut parent);
            let signed = [parent.sign(&owner), inner.sign(&middle)];
            assert_eq!(judge(&signed, &owner, &host), Err(GrantError::Exceeded), "{parent:?}");
        }
    }

    #[test]
    fn a_grant_of_another_signer_network_or_time_is_refused() {
        let [owner, host, other] = [1, 2, 3].map(|seed| Identity::from_seed([seed; 32]));
        let good = grant(&owner, &host);
        assert_eq!(judge(&[good.sign(&other)], &owner, &host), Err(GrantError::BadSignature));
        let foreign = Grant { network: "other".into(), ..good.clone() };
        assert_eq!(judge(&[foreign.sign(&owner)], &owner, &host), Err(GrantError::Exceeded));
        let long = Grant { expires_at: NOW + 91 * DAY, ..good.clone() };
        assert_eq!(judge(&[long.sign(&owner)], &owner, &host), Err(GrantError::BadTime));
        let later = Grant { issued_at: NOW + DAY, ..good };
        assert_eq!(judge(&[later.sign(&owner)], &owner, &host), Err(GrantError::BadTime));
        assert_eq!(judge(&vec![vec![0; 10]; 7], &owner, &host), Err(GrantError::TooMany));
        assert_eq!(judge(&[vec![0; 70]], &owner, &host), Err(GrantError::Malformed));
    }
}
