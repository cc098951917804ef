//! Records: the one type that carries everything that spreads (protocol section 1).
//!
//! On the wire a record is `version (1) ‖ signature (64) ‖ header length (2, big endian) ‖ header (CBOR) ‖ body`. The
//! signature covers all that follows it, exactly as received: nothing is encoded again to be verified. An empty body is
//! a tombstone. [`SignedRecord::verify`] is the only way from network bytes to a [`Record`], so an unverified record
//! cannot be merged. Bodies of unknown kinds are stored and forwarded as bytes and never interpreted.

use std::cmp::Ordering;
use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

use super::card::{AgentCard, Scope};
use super::code::Code;
use super::codec;
use super::config::{
    CARD_LIFE, DESCRIPTION_BYTES_MAX, ENDPOINTS_MAX, GRANTS_MAX, LABEL_TEXT_BYTES_MAX, LABELS_MAX,
    NETWORK_BYTES_MAX, RECORD_BYTES_MAX, SCHEMA_BYTES_MAX, STAMP_AHEAD_MAX, TOMBSTONE_LIFE,
    TOMBSTONE_LIFE_GENERATION,
};
use super::grant::{Chain, Claim, GrantError, verify_chain};
use super::identity::{AgentId, Identity, Keys, PeerKey};
use super::name::{AgentName, FullName, NameError, ZoneName};
use super::time::{Stamp, Timestamp};

/// The record format this node speaks.
const FORMAT: u8 = 1;
/// Separates signatures over records from all other uses of a key.
const RECORD_DOMAIN: &[u8] = b"aop-record-v1\0";
const SIGNATURE_AT: usize = 1;
const SIGNED_AT: usize = SIGNATURE_AT + 64;
const HEADER_AT: usize = SIGNED_AT + 2;

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RecordKind {
    /// An agent card.
    Agent,
    /// A zone delegation.
    Delegation,
    /// A kind of a later version: kept and forwarded, never interpreted.
    Unknown(AgentName),
}

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
    /// Signed grants from owner to author.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(deserialize_with = "codec::at_most::<GRANTS_MAX, _, _>")]
    pub grants: Vec<ByteBuf>,
}

/// Hash of `(zone, kind, name, owner, host)`: equal for records that compete.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyHash(#[serde(with = "serde_bytes")] pub [u8; 32]);

/// Hash of a record's bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecordHash(#[serde(with = "serde_bytes")] pub [u8; 32]);

/// Why a record is not taken. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// Larger than 48 KiB.
    #[error("record is larger than {RECORD_BYTES_MAX} bytes")]
    TooLarge,
    /// A format of another version; ignored without penalty.
    #[error("record has an unknown format")]
    UnknownFormat,
    /// Not the bytes of a record.
    #[error("record is malformed")]
    Malformed,
    /// Belongs to another network.
    #[error("record belongs to another network")]
    ForeignNetwork,
    /// Belongs to a zone that is not held here.
    #[error("record belongs to a zone that is not held here")]
    ForeignZone,
    /// Its lease has ended.
    #[error("record has expired")]
    Expired,
    /// Stamped more than a minute ahead of the local clock; it may come again when it is due.
    #[error("record is stamped in the future")]
    Future,
    /// The author did not sign it.
    #[error("signature is wrong")]
    BadSignature,
    /// The author may not write this key.
    #[error("the author may not write this key")]
    BadAuthor,
    /// The grants do not carry it.
    #[error("the grants do not carry the record")]
    BadGrant,
    /// The lease is longer than allowed, or the tombstone's is not exact.
    #[error("the lease is not one that this kind of record may have")]
    BadLease,
    /// The generation is not that of the first grant.
    #[error("the generation is not the one its owner signed")]
    BadGeneration,
    /// Must not come over the network in this scope.
    #[error("the scope forbids it here")]
    BadScope,
    /// The card breaks a limit.
    #[error("the card breaks a limit")]
    BadCard,
}

/// What a refusal means for whoever sent the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// An honest peer may send this: another clock, another version, another configuration.
    None,
    /// Forged or malformed: no honest peer forwards it.
    Sender,
}

/// Position in the total order of the records of one key (protocol section 2); the greatest wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order {
    /// First of all the generation.
    pub generation: u64,
    /// Then the stamp: wall clock and counter.
    pub stamp: Stamp,
    /// Then the author.
    pub author: Author,
    /// Then the bytes.
    pub hash: RecordHash,
}

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

/// A verified record. The body stays encoded: the bytes are held once.
#[derive(Clone)]
pub struct Record {
    bytes: Arc<[u8]>,
    body_at: usize,
    key: KeyHash,
    hash: RecordHash,
    /// Its full name.
    pub name: FullName,
    /// What it is about.
    pub kind: RecordKind,
    /// On whose behalf it is registered.
    pub owner: PeerKey,
    /// The node that offers it.
    pub host: PeerKey,
    /// Who signed.
    pub author: Author,
    /// Version counter of the author in the zone.
    pub seq: u64,
    /// When it was written.
    pub stamp: Stamp,
    /// Overrules any stamp of a lower generation.
    pub generation: u64,
    /// End of the lease.
    pub expires_at: Timestamp,
    /// How far it may spread.
    pub scope: Scope,
}

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
    /// What never leaves the process has a key of its own: it does not compete with what others hold of the same agent.
    pub fn hash(&self) -> KeyHash {
        let mut hash = Sha256::new_with_prefix(b"aop-key-v1\0");
        for text in [self.zone.as_str(), &String::from(self.kind.clone()), self.name.as_str()] {
            hash.update(text.as_bytes());
            hash.update([0]);
        }
        hash.update(self.owner.0);
        hash.update(self.host.0);
        if self.scope == Scope::Node {
            hash.update(b"node");
        }
        KeyHash(hash.finalize().into())
    }
}

impl Header {
    /// Hash of its key.
    pub fn key(&self) -> KeyHash {
        let Header { zone, kind, name, owner, host, scope, .. } = self;
        RecordKey { zone, kind, name, owner: *owner, host: *host, scope: *scope }.hash()
    }

    /// The lease a tombstone must have.
    pub fn tombstone_expires_at(stamp: Stamp, generation: u64) -> Timestamp {
        stamp.wall + if generation == 0 { TOMBSTONE_LIFE } else { TOMBSTONE_LIFE_GENERATION }
    }
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
        Ok(SignedRecord::of(header, body_at, bytes.into()))
    }

    /// Judges everything that does not depend on other records, cheapest first (protocol section 2): lease against the
    /// clock, time bound, rules of the key and the lease, body, signature, grants.
    pub fn verify(self, now: Timestamp) -> Result<Record, Refusal> {
        self.verify_with(now, &mut Keys::default()).map(Arc::unwrap_or_clone)
    }

    /// As [`SignedRecord::verify`], with the keys met before. Clones of one record give the same one.
    pub fn verify_with(&self, now: Timestamp, keys: &mut Keys) -> Result<Arc<Record>, Refusal> {
        let header = self.header();
        if header.expires_at <= now {
            return Err(Refusal::Expired);
        }
        if header.stamp.wall > now + STAMP_AHEAD_MAX {
            return Err(Refusal::Future);
        }
        self.0.verified.get_or_init(|| self.verify_timeless(keys)).clone()
    }

    /// A record of the own store, verified when it was written and sealed since.
    pub fn trust_sealed(self) -> Arc<Record> {
        match self.0.verified.get() {
            Some(Ok(record)) => record.clone(),
            Some(Err(_)) | None => Arc::new(self.record()),
        }
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
        self.check_rules()?;
        let (signature, signed) =
            self.bytes()[SIGNATURE_AT..].split_first_chunk::<64>().ok_or(Refusal::Malformed)?;
        if !keys.verify(&self.header().author.key, RECORD_DOMAIN, signed, signature) {
            return Err(Refusal::BadSignature);
        }
        self.check_grants()?;
        Ok(Arc::new(self.record()))
    }

    fn check_rules(&self) -> Result<(), Refusal> {
        let Header { owner, host, author, stamp, generation, expires_at, scope, seq, .. } = *self.header();
        let tombstone = self.is_tombstone();
        if author.key != host && !(tombstone && author.key == owner) {
            return Err(Refusal::BadAuthor);
        }
        let lease_is_right = match tombstone {
            true => expires_at == Header::tombstone_expires_at(stamp, generation),
            false => expires_at > stamp.wall && expires_at <= stamp.wall + CARD_LIFE,
        };
        if !lease_is_right {
            return Err(Refusal::BadLease);
        }
        if (seq == 0) != (scope == Scope::Node) {
            return Err(Refusal::BadScope);
        }
        if self.header().kind == RecordKind::Agent && !tombstone {
            let card = codec::decode(&self.bytes()[self.0.body_at..]).map_err(|_| Refusal::Malformed)?;
            check_card(&card)?;
        }
        Ok(())
    }

    fn is_tombstone(&self) -> bool {
        self.bytes().len() == self.0.body_at
    }

    fn check_grants(&self) -> Result<(), Refusal> {
        let header = self.header();
        if header.author.key == header.owner {
            // The owner needs no grant and may choose any generation.
            return if header.grants.is_empty() { Ok(()) } else { Err(Refusal::BadGrant) };
        }
        let claim = Claim {
            network: &header.network,
            owner: header.owner,
            author: header.author.key,
            zone: &header.zone,
            name: &header.name,
            kind: &header.kind,
            stamped_at: header.stamp.wall,
        };
        let Chain { generation, expires_at } =
            verify_chain(&header.grants, &claim).map_err(|_: GrantError| Refusal::BadGrant)?;
        if header.generation != generation {
            return Err(Refusal::BadGeneration);
        }
        // A tombstone buries for longer than most grants last, and names nothing: it is enough that it was allowed.
        let ends = if self.is_tombstone() { header.stamp.wall } else { header.expires_at };
        if ends > expires_at {
            return Err(Refusal::BadLease);
        }
        Ok(())
    }

    fn record(&self) -> Record {
        let Parsed { bytes, header, body_at, key, hash, verified: _ } = &*self.0;
        Record {
            bytes: bytes.clone(),
            body_at: *body_at,
            key: *key,
            hash: *hash,
            name: FullName { agent: header.name.clone(), zone: header.zone.clone() },
            kind: header.kind.clone(),
            owner: header.owner,
            host: header.host,
            author: header.author,
            seq: header.seq,
            stamp: header.stamp,
            generation: header.generation,
            expires_at: header.expires_at,
            scope: header.scope,
        }
    }
}

impl Record {
    /// The bytes on the wire.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// Hash of its key.
    pub fn key(&self) -> KeyHash {
        self.key
    }

    /// Hash of its bytes.
    pub fn hash(&self) -> RecordHash {
        self.hash
    }

    /// Whether it deletes its key.
    pub fn is_tombstone(&self) -> bool {
        self.bytes.len() == self.body_at
    }

    /// Whether it may leave the process to anybody.
    pub fn is_public(&self) -> bool {
        self.scope == Scope::Public
    }

    /// Whether its lease has ended at `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at <= now
    }

    /// Position among the records of its key.
    pub fn order(&self) -> Order {
        Order { generation: self.generation, stamp: self.stamp, author: self.author, hash: self.hash }
    }

    /// The agent it speaks of; replicas of one agent share it.
    pub fn agent_id(&self) -> AgentId {
        AgentId::of(self.owner, &self.name)
    }

    /// Whether it is about an agent.
    pub fn is_agent(&self) -> bool {
        self.kind == RecordKind::Agent
    }

    /// The agent card; `None` for tombstones and other kinds.
    pub fn card(&self) -> Option<AgentCard> {
        match self.kind {
            RecordKind::Agent if !self.is_tombstone() => codec::decode(&self.bytes[self.body_at..]).ok(),
            RecordKind::Agent | RecordKind::Delegation | RecordKind::Unknown(_) => None,
        }
    }

    /// The encoded body; empty for a tombstone.
    pub fn body(&self) -> &[u8] {
        &self.bytes[self.body_at..]
    }

    /// The signed grants it travels with.
    pub fn grants(&self) -> Vec<ByteBuf> {
        let header: Option<Header> = codec::decode(&self.bytes[HEADER_AT..self.body_at]).ok();
        header.map(|header| header.grants).unwrap_or_default()
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.is_tombstone() { "tombstone" } else { "record" };
        write!(f, "{what} {} seq {} at {}.{}", self.name, self.seq, self.stamp.wall, self.stamp.counter)
    }
}

impl PartialOrd for Record {
    fn partial_cmp(&self, other: &Record) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Record {
    fn cmp(&self, other: &Record) -> Ordering {
        self.order().cmp(&other.order())
    }
}

impl PartialEq for Record {
    fn eq(&self, other: &Record) -> bool {
        self.hash == other.hash
    }
}

impl Eq for Record {}

impl Refusal {
    /// Stable code for counters and messages.
    pub fn code(self) -> Code {
        match self {
            Refusal::TooLarge => Code::TooLarge,
            Refusal::UnknownFormat => Code::UnknownFormat,
            Refusal::Malformed => Code::Malformed,
            Refusal::ForeignNetwork => Code::ForeignNetwork,
            Refusal::ForeignZone => Code::ForeignZone,
            Refusal::Expired => Code::Expired,
            Refusal::Future => Code::Future,
            Refusal::BadSignature => Code::BadSignature,
            Refusal::BadAuthor => Code::BadAuthor,
            Refusal::BadGrant => Code::BadGrant,
            Refusal::BadLease => Code::BadLease,
            Refusal::BadGeneration => Code::BadGeneration,
            Refusal::BadScope => Code::BadScope,
            Refusal::BadCard => Code::BadCard,
        }
    }

    /// Whether an honest peer could have sent it. Never anybody's fault: time, because the wrong clock may be ours.
    pub fn blame(self) -> Blame {
        match self {
            Refusal::UnknownFormat | Refusal::Expired | Refusal::Future | Refusal::ForeignZone => Blame::None,
            Refusal::TooLarge
            | Refusal::Malformed
            | Refusal::ForeignNetwork
            | Refusal::BadSignature
            | Refusal::BadAuthor
            | Refusal::BadGrant
            | Refusal::BadLease
            | Refusal::BadGeneration
            | Refusal::BadScope
            | Refusal::BadCard => Blame::Sender,
        }
    }
}

/// The limits of a card that every node checks.
pub fn check_card(card: &AgentCard) -> Result<(), Refusal> {
    let schemas = [&card.input_schema, &card.output_schema];
    let labels = card.tags.iter().chain(&card.capabilities);
    let within = card.description.len() <= DESCRIPTION_BYTES_MAX
        && schemas.into_iter().flatten().all(|schema| schema.len() <= SCHEMA_BYTES_MAX)
        && card.tags.len() <= LABELS_MAX
        && card.capabilities.len() <= LABELS_MAX
        && card.endpoints.len() <= ENDPOINTS_MAX
        && labels.into_iter().all(|label| label.len() <= LABEL_TEXT_BYTES_MAX);
    if within { Ok(()) } else { Err(Refusal::BadCard) }
}

impl From<RecordKind> for String {
    fn from(kind: RecordKind) -> String {
        match kind {
            RecordKind::Agent => "agent".into(),
            RecordKind::Delegation => "delegation".into(),
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
            _ => RecordKind::Unknown(text.parse()?),
        })
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:x}", self.key, self.epoch)
    }
}

macro_rules! hash_text {
    ($type:ty) => {
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", data_encoding::HEXLOWER.encode(&self.0[..6]))
            }
        }
    };
}
hash_text!(KeyHash);
hash_text!(RecordHash);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::proto::grant::{Grant, Reach};

    const NOW: Timestamp = Timestamp(1_700_000_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    fn host() -> Identity {
        Identity::from_seed([1; 32])
    }

    fn header() -> Header {
        Header {
            network: "world".into(),
            zone: ZoneName::root(),
            kind: RecordKind::Agent,
            name: "summarizer".parse().unwrap(),
            owner: host().key(),
            host: host().key(),
            author: Author { key: host().key(), epoch: 1 },
            seq: 1,
            stamp: Stamp { wall: NOW, counter: 0 },
            generation: 0,
            expires_at: NOW + CARD_LIFE,
            scope: Scope::Public,
            grants: Vec::new(),
        }
    }

    fn body() -> Vec<u8> {
        codec::encode(&AgentCard { description: "Summarises".into(), ..AgentCard::default() })
    }

    fn judge(header: Header, body: &[u8], signer: &Identity) -> Result<Record, Refusal> {
        let signed = SignedRecord::sign(header, body, signer).unwrap();
        SignedRecord::parse(signed.bytes(), "world")?.verify(NOW)
    }

    #[test]
    fn a_record_reads_back_as_it_was_signed() {
        let record = judge(header(), &body(), &host()).unwrap();
        assert_eq!(record.card().unwrap().description, "Summarises");
        assert_eq!(record.key(), header().key());
        assert!(!record.is_tombstone());
    }

    #[test]
    fn only_the_host_writes_a_card_and_only_host_or_owner_a_tombstone() {
        let other = Identity::from_seed([2; 32]);
        let author = Author { key: other.key(), epoch: 1 };
        let foreign = Header { author, ..header() };
        assert_eq!(judge(foreign.clone(), &body(), &other).err(), Some(Refusal::BadAuthor));
        let lease = Header::tombstone_expires_at(foreign.stamp, 0);
        let buries = Header { expires_at: lease, ..foreign };
        assert_eq!(judge(buries.clone(), &[], &other).err(), Some(Refusal::BadAuthor));
        let by_owner = Header { owner: other.key(), ..buries };
        assert!(judge(by_owner, &[], &other).unwrap().is_tombstone());
    }

    #[test]
    fn a_host_writes_for_another_owner_only_by_grant_and_in_its_generation() {
        let owner = Identity::from_seed([2; 32]);
        let granted = |generation, record_generation, life| {
            let grant = Grant {
                network: "world".into(),
                issuer: owner.key(),
                subject: host().key(),
                zone: ZoneName::root(),
                reach: Reach::Zone,
                kinds: vec![RecordKind::Agent],
                may_delegate: false,
                issued_at: NOW,
                expires_at: NOW + life,
                generation,
            };
            let grants = vec![ByteBuf::from(grant.sign(&owner))];
            judge(
                Header { owner: owner.key(), grants, generation: record_generation, ..header() },
                &body(),
                &host(),
            )
        };
        assert!(granted(0, 0, 2 * CARD_LIFE).is_ok());
        assert_eq!(granted(0, 0, CARD_LIFE / 2).err(), Some(Refusal::BadLease), "outlives its grant");
        assert_eq!(granted(0, 1, 2 * CARD_LIFE).err(), Some(Refusal::BadGeneration));
        assert_eq!(granted(2, 1, 2 * CARD_LIFE).err(), Some(Refusal::BadGeneration));
        let bare = Header { owner: owner.key(), ..header() };
        assert_eq!(judge(bare, &body(), &host()).err(), Some(Refusal::BadGrant));
    }

    #[test]
    fn leases_are_bounded_and_tombstones_exact() {
        let long = Header { expires_at: NOW + CARD_LIFE + SECOND, ..header() };
        assert_eq!(judge(long, &body(), &host()).err(), Some(Refusal::BadLease));
        for (generation, life, right) in [
            (0, TOMBSTONE_LIFE, true),
            (0, TOMBSTONE_LIFE - SECOND, false),
            (0, TOMBSTONE_LIFE + SECOND, false),
            (1, TOMBSTONE_LIFE_GENERATION, true),
            (1, TOMBSTONE_LIFE, false),
        ] {
            let header = Header { generation, expires_at: NOW + life, ..header() };
            let judged = judge(header, &[], &host());
            assert_eq!(judged.is_ok(), right, "{generation} {life:?}");
        }
    }

    #[test]
    fn time_is_judged_before_signatures_and_blames_nobody() {
        let stamp = Stamp { wall: NOW + STAMP_AHEAD_MAX + SECOND, counter: 0 };
        let future = Header { stamp, expires_at: stamp.wall + SECOND, ..header() };
        let expired = Header { expires_at: NOW, stamp: Stamp { wall: NOW - SECOND, counter: 0 }, ..header() };
        let forger = Identity::from_seed([9; 32]);
        for (header, refusal) in [(future, Refusal::Future), (expired, Refusal::Expired)] {
            assert_eq!(judge(header, &body(), &forger).err(), Some(refusal));
            assert_eq!(refusal.blame(), Blame::None);
        }
        assert_eq!(judge(header(), &body(), &forger).err(), Some(Refusal::BadSignature));
    }

    #[test]
    fn other_networks_and_formats_are_told_apart() {
        let signed = SignedRecord::sign(header(), &body(), &host()).unwrap();
        assert_eq!(SignedRecord::parse(signed.bytes(), "other").err(), Some(Refusal::ForeignNetwork));
        let mut later = signed.bytes().to_vec();
        later[0] = 2;
        assert_eq!(SignedRecord::parse(&later, "world").err(), Some(Refusal::UnknownFormat));
        assert_eq!(Refusal::UnknownFormat.blame(), Blame::None);
    }

    #[test]
    fn a_kind_of_a_later_version_is_kept_as_bytes() {
        let kind = RecordKind::try_from("weather".to_string()).unwrap();
        let record = judge(Header { kind, ..header() }, b"\xff not cbor", &host()).unwrap();
        assert_eq!((record.card(), record.body()), (None, &b"\xff not cbor"[..]));
    }

    #[test]
    fn a_card_past_a_limit_is_refused() {
        let long = AgentCard { description: "x".repeat(DESCRIPTION_BYTES_MAX + 1), ..AgentCard::default() };
        assert_eq!(judge(header(), &codec::encode(&long), &host()).err(), Some(Refusal::BadCard));
        let huge = vec![1; RECORD_BYTES_MAX];
        assert_eq!(SignedRecord::sign(header(), &huge, &host()).err(), Some(Refusal::TooLarge));
        assert_eq!(
            SignedRecord::parse(&vec![1; RECORD_BYTES_MAX + 1], "world").err(),
            Some(Refusal::TooLarge)
        );
    }

    proptest! {
        #[test]
        fn any_altered_byte_is_refused(at in any::<prop::sample::Index>(), flip in 1u8..) {
            let mut bytes = SignedRecord::sign(header(), &body(), &host()).unwrap().bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let judged = SignedRecord::parse(&bytes, "world").and_then(|record| record.verify(NOW));
            prop_assert!(judged.is_err(), "byte {at}");
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), format in 0u8..3) {
            let bytes = [&[format][..], &bytes].concat();
            let _ = SignedRecord::parse(&bytes, "world").map(|record| record.verify(NOW));
        }

        #[test]
        fn arbitrary_headers_never_panic(header in prop::collection::vec(any::<u8>(), 0..300)) {
            let length = (header.len() as u16).to_be_bytes();
            let bytes = [&[FORMAT; 65][..], &length, &header].concat();
            let _ = SignedRecord::parse(&bytes, "world").map(|record| record.verify(NOW));
        }
    }
}
