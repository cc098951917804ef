//! The way from bytes to a record: parsed, then verified, cheapest checks first (protocol section 2).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::weight::weight;
use super::{Delegation, Header, KeyHash, Record, RecordHash, RecordKind, Refusal, Revocation};
use crate::proto::card::{AgentCard, Scope};
use crate::proto::codec;
use crate::proto::grant::{Chain, Claim, GrantError, first_issuer, verify_chain};
use crate::proto::identity::Identity;
use crate::proto::limits::{
    CARD_LIFE, DELEGATION_LIFE, DELEGATION_TOMBSTONE_LIFE, DESCRIPTION_BYTES_MAX, ENDPOINTS_MAX,
    LABEL_TEXT_BYTES_MAX, LABELS_MAX, NETWORK_BYTES_MAX, RECORD_BYTES_MAX, REVOCATION_BYTES_MAX,
    SCHEMA_BYTES_MAX, SHORT_TEXT_BYTES_MAX, SKILLS_BYTES_MAX, SLOTS, STAMP_AHEAD_MAX, TOMBSTONE_BYTES_MAX,
    TOMBSTONE_LIFE, TOMBSTONE_LIFE_LONG,
};
use crate::proto::name::{FullName, ZoneName};
use crate::proto::signature::{Batch, Keys};
use crate::proto::time::Timestamp;

/// The record format this node speaks.
pub(super) const FORMAT: u8 = 1;
/// Separates signatures over records from all other uses of a key.
const RECORD_DOMAIN: &[u8] = b"aop-record-v1\0";
const SIGNATURE_AT: usize = 1;
const SIGNED_AT: usize = SIGNATURE_AT + 64;
pub(super) const HEADER_AT: usize = SIGNED_AT + 2;

/// Parsed and not yet verified. Clones share one judgement of what does not depend on time.
#[derive(Clone, Debug)]
pub struct SignedRecord(Arc<Parsed>);

#[derive(Debug)]
struct Parsed {
    bytes: Arc<[u8]>,
    header: Header,
    body_at: usize,
    key: KeyHash,
    hash: RecordHash,
    verified: OnceLock<Result<Arc<Record>, Refusal>>,
}

impl SignedRecord {
    /// Signs a header and a body; an empty body is a tombstone.
    pub fn sign(header: Header, body: &[u8], author: &Identity) -> Result<SignedRecord, Refusal> {
        let encoded = codec::encode(&header);
        let length = u16::try_from(encoded.len()).map_err(|_| Refusal::TooLarge)?;
        let signed = [&length.to_be_bytes()[..], &encoded, body].concat();
        let signature = author.sign(RECORD_DOMAIN, &signed);
        let bytes = [&[FORMAT][..], &signature, &signed].concat();
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        Ok(SignedRecord::of(header, HEADER_AT + encoded.len(), bytes.into()))
    }

    /// Reads bytes: size, format, network, kind and names. Nothing is verified yet.
    pub fn parse(bytes: &[u8], network: &str) -> Result<SignedRecord, Refusal> {
        let (header, body_at) = read_header(bytes, network)?;
        Ok(SignedRecord::of(header, body_at, bytes.into()))
    }

    /// As [`SignedRecord::parse`], of bytes that are held already.
    pub fn parse_held(bytes: Arc<[u8]>, network: &str) -> Result<SignedRecord, Refusal> {
        let (header, body_at) = read_header(&bytes, network)?;
        Ok(SignedRecord::of(header, body_at, bytes))
    }

    /// Judges everything that does not depend on other records, cheapest first (protocol section 2): lease against the
    /// clock, time bound, rules of the key and the lease, body, signature, grants.
    pub fn verify(self, now: Timestamp) -> Result<Record, Refusal> {
        self.verify_with(now, &mut Keys::default()).map(Arc::unwrap_or_clone)
    }

    /// As [`SignedRecord::verify`], with the keys met before. Clones of one record give the same one.
    pub fn verify_with(&self, now: Timestamp, keys: &mut Keys) -> Result<Arc<Record>, Refusal> {
        // Time first, and outside of what is remembered: the same bytes may be right at another hour.
        self.check_time(now)?;
        self.0.verified.get_or_init(|| self.verify_timeless(keys)).clone()
    }

    /// Whether it was judged and its signature was wrong.
    pub fn is_forged(&self) -> bool {
        matches!(self.0.verified.get(), Some(Err(Refusal::BadSignature)))
    }

    /// Puts its signature into a batch, if that is all that is open: gives its card, for [`SignedRecord::conclude`].
    pub(super) fn enter(&self, now: Timestamp, batch: &mut Batch) -> Option<Option<AgentCard>> {
        if self.0.verified.get().is_some() || self.check_time(now).is_err() {
            return None;
        }
        match self.check_rules() {
            Ok(card) => {
                let (signature, signed) = self.signed()?;
                batch.add(&self.header().author.key, RECORD_DOMAIN, signed, signature);
                Some(card)
            }
            Err(refusal) => {
                // Judged on another thread meanwhile: the verdict is the same.
                let _judged = self.0.verified.set(Err(refusal));
                None
            }
        }
    }

    /// The verdict on its signature is there: judges the rest.
    pub(super) fn conclude(&self, card: Option<&AgentCard>, is_signed: bool) {
        let verdict = if is_signed { self.accept(card) } else { Err(Refusal::BadSignature) };
        let _judged = self.0.verified.set(verdict);
    }

    /// A record of the own store, verified when it was written and sealed since.
    pub fn trust_sealed(self) -> Arc<Record> {
        match self.0.verified.get() {
            Some(Ok(record)) => record.clone(),
            Some(Err(_)) | None => self.trust_sealed_with_card().0,
        }
    }

    /// As [`SignedRecord::trust_sealed`], with the card, which is decoded for that.
    pub fn trust_sealed_with_card(&self) -> (Arc<Record>, Option<AgentCard>) {
        let card = self.card().ok().flatten();
        (Arc::new(self.record(card.as_ref())), card)
    }

    /// Hash of its key.
    pub fn key(&self) -> KeyHash {
        self.0.key
    }

    /// Hash of its bytes.
    pub fn hash(&self) -> RecordHash {
        self.0.hash
    }

    /// What it says about itself, unverified.
    pub fn header(&self) -> &Header {
        &self.0.header
    }

    /// The bytes on the wire.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.0.bytes
    }

    fn of(header: Header, body_at: usize, bytes: Arc<[u8]>) -> SignedRecord {
        let hash = RecordHash(Sha256::digest(&bytes).into());
        SignedRecord(Arc::new(Parsed {
            key: header.key(),
            hash,
            header,
            body_at,
            bytes,
            verified: OnceLock::new(),
        }))
    }

    /// What is true of these bytes at any time.
    fn verify_timeless(&self, keys: &mut Keys) -> Result<Arc<Record>, Refusal> {
        // Rules before the signature: they cost a fraction of it.
        let card = self.check_rules()?;
        let (signature, signed) = self.signed().ok_or(Refusal::Malformed)?;
        if !keys.verify(&self.header().author.key, RECORD_DOMAIN, signed, signature) {
            return Err(Refusal::BadSignature);
        }
        self.accept(card.as_ref())
    }

    /// The record, if its grants let it in: after the signature, for a chain of six grants costs six more of them, which no
    /// forgery may cause.
    fn accept(&self, card: Option<&AgentCard>) -> Result<Arc<Record>, Refusal> {
        self.check_grants()?;
        Ok(Arc::new(self.record(card)))
    }

    /// Its signature, and what that covers.
    fn signed(&self) -> Option<(&[u8; 64], &[u8])> {
        self.bytes()[SIGNATURE_AT..].split_first_chunk()
    }

    fn check_time(&self, now: Timestamp) -> Result<(), Refusal> {
        let header = self.header();
        if header.expires_at <= now {
            return Err(Refusal::Expired);
        }
        if header.stamp.wall > now + STAMP_AHEAD_MAX {
            return Err(Refusal::Future);
        }
        Ok(())
    }

    /// The card, if it is one.
    fn check_rules(&self) -> Result<Option<AgentCard>, Refusal> {
        let Header { host, author, scope, seq, slot, .. } = *self.header();
        if author.key != host {
            return Err(Refusal::BadAuthor);
        }
        if slot >= SLOTS {
            return Err(Refusal::BadSlot);
        }
        if self.bytes().len() > self.bytes_max() {
            return Err(Refusal::TooLarge);
        }
        if !self.lease_is_right() {
            return Err(Refusal::BadLease);
        }
        // A delegation is written in a zone of which its author is no member, whose versions nobody has to follow.
        let is_delegation = self.header().kind == RecordKind::Delegation;
        if (seq == 0) != (scope == Scope::Node || is_delegation) || is_delegation && scope != Scope::Public {
            return Err(Refusal::BadScope);
        }
        let card = self.card()?;
        card.as_ref().map_or(Ok(()), check_card)?;
        self.check_revocation()?;
        self.check_delegation()?;
        Ok(card)
    }

    fn bytes_max(&self) -> usize {
        match self.header().kind {
            RecordKind::Revocation => REVOCATION_BYTES_MAX,
            _ if self.is_tombstone() => TOMBSTONE_BYTES_MAX,
            RecordKind::Agent | RecordKind::Delegation | RecordKind::Unknown(_) => RECORD_BYTES_MAX,
        }
    }

    fn lease_is_right(&self) -> bool {
        let Header { stamp, expires_at, ref kind, .. } = *self.header();
        let is_exactly = |life: Duration| expires_at == stamp.wall + life;
        let is_within = |life: Duration| expires_at > stamp.wall && expires_at <= stamp.wall + life;
        match kind {
            RecordKind::Delegation if self.is_tombstone() => is_exactly(DELEGATION_TOMBSTONE_LIFE),
            _ if self.is_tombstone() => is_exactly(TOMBSTONE_LIFE) || is_exactly(TOMBSTONE_LIFE_LONG),
            RecordKind::Revocation => is_exactly(TOMBSTONE_LIFE_LONG),
            RecordKind::Delegation => is_within(DELEGATION_LIFE),
            RecordKind::Agent | RecordKind::Unknown(_) => is_within(CARD_LIFE),
        }
    }

    fn card(&self) -> Result<Option<AgentCard>, Refusal> {
        let is_card = self.header().kind == RecordKind::Agent && !self.is_tombstone();
        is_card.then(|| codec::decode(self.body()).map_err(|_| Refusal::Malformed)).transpose()
    }

    fn check_revocation(&self) -> Result<(), Refusal> {
        let Header { zone, kind, name, owner, host, .. } = self.header();
        if *kind != RecordKind::Revocation || self.is_tombstone() {
            return Ok(());
        }
        let revocation: Revocation = codec::decode(self.body()).map_err(|_| Refusal::Malformed)?;
        // Its name is a hash of what it takes back: one for each, and none that names what it does not hold.
        let is_right = host == owner && revocation.host != *owner && revocation.name(zone, *owner) == *name;
        if is_right { Ok(()) } else { Err(Refusal::BadRevocation) }
    }

    fn check_delegation(&self) -> Result<(), Refusal> {
        let Header { zone, kind, name, .. } = self.header();
        if *kind != RecordKind::Delegation || self.is_tombstone() {
            return Ok(());
        }
        let delegation: Delegation = codec::decode(self.body()).map_err(|_| Refusal::Malformed)?;
        let is_right =
            delegation.zone.delegated_in(zone).as_ref() == Some(name) && delegation.is_within_limits();
        if is_right { Ok(()) } else { Err(Refusal::BadDelegation) }
    }

    /// The zone that the grants must cover: that of the record, of a delegation the zone that it names.
    fn granted_zone(&self) -> Result<ZoneName, Refusal> {
        let Header { zone, kind, name, .. } = self.header();
        match kind {
            RecordKind::Delegation if self.is_tombstone() => {
                ZoneName::of_delegation(name, zone).ok_or(Refusal::BadGrant)
            }
            RecordKind::Delegation => {
                let delegation: Delegation = codec::decode(self.body()).map_err(|_| Refusal::Malformed)?;
                Ok(delegation.zone)
            }
            RecordKind::Agent | RecordKind::Revocation | RecordKind::Unknown(_) => Ok(zone.clone()),
        }
    }

    fn body(&self) -> &[u8] {
        &self.bytes()[self.0.body_at..]
    }

    fn is_tombstone(&self) -> bool {
        self.bytes().len() == self.0.body_at
    }

    fn check_grants(&self) -> Result<(), Refusal> {
        let header = self.header();
        if header.author.key == header.owner && header.grants.is_empty() {
            // The owner needs no grant and may choose any generation.
            return Ok(());
        }
        let granted_zone = self.granted_zone()?;
        let claim = Claim {
            network: &header.network,
            owner: header.owner,
            author: header.author.key,
            zone: &granted_zone,
            name: &header.name,
            kind: &header.kind,
            stamped_at: header.stamp.wall,
        };
        let Chain { generation, expires_at, slots } =
            verify_chain(&header.grants, &claim).map_err(|_: GrantError| Refusal::BadGrant)?;
        if generation.is_some_and(|generation| header.generation != generation) {
            return Err(Refusal::BadGeneration);
        }
        // What is granted of the zone below says nothing of the zone above.
        if header.kind != RecordKind::Delegation && slots.is_some_and(|slots| header.slot >= slots) {
            return Err(Refusal::BadSlot);
        }
        // A tombstone buries for longer than most grants last, and offers nothing: it is enough that it was allowed.
        let ends = if self.is_tombstone() { header.stamp.wall } else { header.expires_at };
        if ends > expires_at {
            return Err(Refusal::BadLease);
        }
        Ok(())
    }

    fn record(&self, card: Option<&AgentCard>) -> Record {
        let Parsed { bytes, header, body_at, key, hash, verified: _ } = &*self.0;
        let weight = weight(header, bytes.len(), self.is_tombstone(), card);
        Record {
            bytes: bytes.clone(),
            // Some times the largest record at most.
            weight: weight as u32,
            // The header's length has two bytes.
            body_at: *body_at as u32,
            key: *key,
            hash: *hash,
            name: FullName { agent: header.name.clone(), zone: header.zone.clone() },
            kind: header.kind.clone(),
            owner: header.owner,
            host: header.host,
            epoch: header.author.epoch,
            seq: header.seq,
            stamp: header.stamp,
            generation: header.generation,
            expires_at: header.expires_at,
            scope: header.scope,
            slot: header.slot,
            granted_by: first_issuer(&header.grants),
        }
    }
}

/// The header of a record's bytes, and where the body begins.
fn read_header(bytes: &[u8], network: &str) -> Result<(Header, usize), Refusal> {
    // Size, then format: both cost nothing, and an unknown format may have any layout behind its first byte.
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(Refusal::TooLarge);
    }
    if bytes.first() != Some(&FORMAT) {
        return Err(if bytes.is_empty() { Refusal::Malformed } else { Refusal::UnknownFormat });
    }
    let length = bytes.get(SIGNED_AT..HEADER_AT).ok_or(Refusal::Malformed)?;
    let body_at = HEADER_AT + usize::from(u16::from_be_bytes([length[0], length[1]]));
    let encoded = bytes.get(HEADER_AT..body_at).ok_or(Refusal::Malformed)?;
    let header: Header = codec::decode(encoded).map_err(|_| Refusal::Malformed)?;
    if header.network != network || network.len() > NETWORK_BYTES_MAX {
        return Err(Refusal::ForeignNetwork);
    }
    Ok((header, body_at))
}

/// The limits of a card that every node checks.
pub fn check_card(card: &AgentCard) -> Result<(), Refusal> {
    let schemas = [&card.input_schema, &card.output_schema];
    let labels = card.tags.iter().chain(&card.capabilities);
    let titles = [&card.title, &card.original_name];
    let within = card.description.len() <= DESCRIPTION_BYTES_MAX
        && card.skills.as_ref().is_none_or(|skills| skills.len() <= SKILLS_BYTES_MAX)
        && schemas.into_iter().flatten().all(|schema| schema.len() <= SCHEMA_BYTES_MAX)
        && card.tags.len() <= LABELS_MAX
        && card.capabilities.len() <= LABELS_MAX
        && card.endpoints.len() <= ENDPOINTS_MAX
        && titles.into_iter().flatten().all(|title| title.len() <= SHORT_TEXT_BYTES_MAX)
        && labels.into_iter().all(|label| label.len() <= LABEL_TEXT_BYTES_MAX);
    if within { Ok(()) } else { Err(Refusal::BadCard) }
}
