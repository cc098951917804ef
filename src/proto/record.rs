//! Records: the one type that carries everything that spreads (protocol section 1).
//!
//! On the wire a record is `version (1) ‖ signature (64) ‖ header length (2, big endian) ‖ header (CBOR) ‖ body`. The
//! signature covers all that follows it, exactly as received: nothing is encoded again to be verified. An empty body is
//! a tombstone. [`SignedRecord::verify`] is the only way from network bytes to a [`Record`], so an unverified record
//! cannot be merged. Bodies of unknown kinds are stored and forwarded as bytes and never interpreted.

mod delegation;
mod header;
mod key;
mod refusal;
mod revocation;
mod signed;
mod together;
mod weight;

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

pub use self::delegation::Delegation;
pub use self::header::{Author, Header};
pub use self::key::{KeyHash, RecordKey, RecordKind};
pub use self::refusal::{Blame, NoRoom, Refusal};
pub use self::revocation::{Revocation, RevokedRecord};
use self::signed::HEADER_AT;
pub use self::signed::{SignedRecord, check_card};
pub use self::together::{verify_each, verify_together};
use super::card::{AgentCard, Scope};
use super::codec;
use super::identity::{AgentId, PeerKey};
use super::limits::CARD_LIFE;
use super::name::FullName;
use super::time::{Stamp, Timestamp};

/// Hash of a record's bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecordHash(#[serde(with = "serde_bytes")] pub [u8; 32]);

/// How new a record of a key is, whatever its slot: total, and from content alone (protocol section 2).
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

/// Position in the total order of the records of one key (protocol section 2); the greatest wins. The smaller slot comes
/// first of all, so that nothing worsens the place of what it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence {
    slot: Reverse<u16>,
    order: Order,
}

/// Where records share slots: what one host keeps in a zone for one owner; revocations have a shelf apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shelf {
    /// On whose behalf; of a delegation the host.
    pub owner: PeerKey,
    /// Who writes.
    pub host: PeerKey,
    /// Whether it is that of revocations.
    pub revocations: bool,
}

/// A verified record. The body stays encoded: the bytes are held once.
#[derive(Clone)]
pub struct Record {
    bytes: Arc<[u8]>,
    body_at: u32,
    weight: u32,
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
    epoch: u64,
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
    /// Its place on its shelf.
    pub slot: u16,
    /// Who signed the first of its grants: its owner, or the key of its zone. None if it has none.
    pub granted_by: Option<PeerKey>,
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

    /// Who signed: always its host.
    pub fn author(&self) -> Author {
        Author { key: self.host, epoch: self.epoch }
    }

    /// Whether it deletes its key.
    pub fn is_tombstone(&self) -> bool {
        self.body().is_empty()
    }

    /// Whether it may leave the process to anybody.
    pub fn is_public(&self) -> bool {
        self.scope == Scope::Public
    }

    /// Whether its lease has ended at `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at <= now
    }

    /// When its author writes it again: at half of its lease ± 20 %, drawn from its hash so that it is the same after a restart.
    pub fn renewal_at(&self) -> Timestamp {
        let lease = self.expires_at.since(self.stamp.wall);
        // A grant ends it: what is written again would end then as well, at ever shorter intervals.
        if lease < CARD_LIFE {
            return self.expires_at;
        }
        // What was written together is spread over the weeks, and no generator has to be kept.
        let draw = f64::from(self.hash.0[0]) / 255.0;
        self.stamp.wall + lease.mul_f64(0.5 * (0.8 + 0.4 * draw))
    }

    /// How new it is among the records of its key.
    pub fn order(&self) -> Order {
        Order { generation: self.generation, stamp: self.stamp, author: self.author(), hash: self.hash }
    }

    /// Position among the records of its key.
    pub fn precedence(&self) -> Precedence {
        Precedence { slot: Reverse(self.slot), order: self.order() }
    }

    /// The shelf that its slot is on.
    pub fn shelf(&self) -> Shelf {
        let owner = if self.kind == RecordKind::Delegation { self.host } else { self.owner };
        Shelf { owner, host: self.host, revocations: self.kind == RecordKind::Revocation }
    }

    /// What it takes of the room of its zone.
    pub fn weight(&self) -> usize {
        self.weight as usize
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
            RecordKind::Agent if !self.is_tombstone() => codec::decode(self.body()).ok(),
            RecordKind::Agent | RecordKind::Delegation | RecordKind::Revocation | RecordKind::Unknown(_) => {
                None
            }
        }
    }

    /// What it takes back; `None` for tombstones and other kinds.
    pub fn revocation(&self) -> Option<Revocation> {
        match self.kind {
            RecordKind::Revocation if !self.is_tombstone() => codec::decode(self.body()).ok(),
            RecordKind::Agent | RecordKind::Delegation | RecordKind::Revocation | RecordKind::Unknown(_) => {
                None
            }
        }
    }

    /// What it delegates; `None` for tombstones and other kinds.
    pub fn delegation(&self) -> Option<Delegation> {
        match self.kind {
            RecordKind::Delegation if !self.is_tombstone() => codec::decode(self.body()).ok(),
            RecordKind::Agent | RecordKind::Delegation | RecordKind::Revocation | RecordKind::Unknown(_) => {
                None
            }
        }
    }

    /// The encoded body; empty for a tombstone.
    pub fn body(&self) -> &[u8] {
        &self.bytes[self.body_at as usize..]
    }

    /// The signed grants it travels with.
    pub fn grants(&self) -> Vec<ByteBuf> {
        let header: Option<Header> = codec::decode(&self.bytes[HEADER_AT..self.body_at as usize]).ok();
        header.map(|header| header.grants).unwrap_or_default()
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.is_tombstone() { "tombstone" } else { "record" };
        write!(f, "{what} {} seq {} at {}.{}", self.name, self.seq, self.stamp.wall, self.stamp.counter)
    }
}

impl PartialEq for Record {
    fn eq(&self, other: &Record) -> bool {
        self.hash == other.hash
    }
}

impl Eq for Record {}

impl fmt::Debug for RecordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", data_encoding::HEXLOWER.encode(&self.0[..6]))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::signed::FORMAT;
    use super::*;
    use crate::proto::grant::{Grant, Reach};
    use crate::proto::identity::Identity;
    use crate::proto::limits::{
        DESCRIPTION_BYTES_MAX, RECORD_BYTES_MAX, SHORT_TEXT_BYTES_MAX, SLOTS, STAMP_AHEAD_MAX,
        TOMBSTONE_LIFE, TOMBSTONE_LIFE_LONG,
    };
    use crate::proto::name::ZoneName;

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
            slot: 0,
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
    fn only_the_host_writes_under_its_key() {
        let other = Identity::from_seed([2; 32]);
        let author = Author { key: other.key(), epoch: 1 };
        let foreign = Header { author, ..header() };
        assert_eq!(judge(foreign.clone(), &body(), &other).err(), Some(Refusal::BadAuthor));
        let buries = Header { expires_at: NOW + TOMBSTONE_LIFE, owner: other.key(), ..foreign };
        assert_eq!(judge(buries, &[], &other).err(), Some(Refusal::BadAuthor), "its owner revokes instead");
    }

    #[test]
    fn a_revocation_stands_under_the_hash_of_what_its_owner_takes_back_from_another_host() {
        let other = Identity::from_seed([2; 32]).key();
        let record = Some(RevokedRecord { kind: RecordKind::Agent, name: "a".parse().unwrap() });
        let revocation = Revocation { host: other, record };
        let name = |it: &Revocation| it.name(&ZoneName::root(), host().key());
        let header = |name| Header {
            kind: RecordKind::Revocation,
            name,
            expires_at: NOW + TOMBSTONE_LIFE_LONG,
            ..header()
        };
        let all = Revocation { record: None, ..revocation.clone() };
        for right in [&revocation, &all] {
            let record = judge(header(name(right)), &codec::encode(right), &host()).unwrap();
            assert_eq!(record.revocation().as_ref(), Some(right));
        }
        let own = Revocation { host: host().key(), ..revocation.clone() };
        for (wrong, under) in [(&revocation, name(&all)), (&own, name(&own))] {
            let judged = judge(header(under), &codec::encode(wrong), &host());
            assert_eq!(judged.err(), Some(Refusal::BadRevocation));
        }
        let short = Header { expires_at: NOW + TOMBSTONE_LIFE, ..header(name(&revocation)) };
        assert_eq!(judge(short, &codec::encode(&revocation), &host()).err(), Some(Refusal::BadLease));
    }

    #[test]
    fn a_shelf_ends_and_what_offers_nothing_is_small() {
        assert!(judge(Header { slot: SLOTS - 1, ..header() }, &body(), &host()).is_ok());
        let beyond = judge(Header { slot: SLOTS, ..header() }, &body(), &host());
        assert_eq!(beyond.err(), Some(Refusal::BadSlot));
        let owner = Identity::from_seed([2; 32]);
        let grant = Grant {
            network: "world".into(),
            issuer: owner.key(),
            subject: host().key(),
            zone: "a-rather-long-label-of-some-zone.in-a-domain.of-a-domain".parse().unwrap(),
            reach: Reach::Zone,
            kinds: vec![RecordKind::Agent; 8],
            may_delegate: false,
            issued_at: NOW,
            expires_at: NOW + CARD_LIFE,
            generation: 0,
            slots: None,
        };
        let grants = vec![ByteBuf::from(grant.sign(&owner)); 6];
        let large = Header { grants, owner: owner.key(), expires_at: NOW + TOMBSTONE_LIFE, ..header() };
        assert_eq!(judge(large, &[], &host()).err(), Some(Refusal::TooLarge));
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
                slots: None,
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
        for (life, right) in [
            (TOMBSTONE_LIFE, true),
            (TOMBSTONE_LIFE_LONG, true),
            (TOMBSTONE_LIFE - SECOND, false),
            (TOMBSTONE_LIFE + SECOND, false),
            (TOMBSTONE_LIFE_LONG + SECOND, false),
        ] {
            let judged = judge(Header { expires_at: NOW + life, ..header() }, &[], &host());
            assert_eq!(judged.is_ok(), right, "{life:?}");
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
        let title = |bytes| AgentCard { title: Some("x".repeat(bytes)), ..AgentCard::default() };
        let judge_title = |bytes| judge(header(), &codec::encode(&title(bytes)), &host()).err();
        assert_eq!(judge_title(SHORT_TEXT_BYTES_MAX), None);
        assert_eq!(judge_title(SHORT_TEXT_BYTES_MAX + 1), Some(Refusal::BadCard));
        let original_name = title(SHORT_TEXT_BYTES_MAX + 1).title;
        let named = AgentCard { original_name, ..AgentCard::default() };
        assert_eq!(judge(header(), &codec::encode(&named), &host()).err(), Some(Refusal::BadCard));
        let huge = vec![1; RECORD_BYTES_MAX];
        assert_eq!(SignedRecord::sign(header(), &huge, &host()).err(), Some(Refusal::TooLarge));
        assert_eq!(
            SignedRecord::parse(&vec![1; RECORD_BYTES_MAX + 1], "world").err(),
            Some(Refusal::TooLarge)
        );
    }

    #[test]
    fn a_record_weighs_its_bytes_and_what_its_holder_keeps_of_it_from_the_store_as_from_the_wire() {
        let beside = |header: Header, body: &[u8]| {
            let signed = SignedRecord::sign(header, body, &host()).unwrap();
            let record = SignedRecord::parse(signed.bytes(), "world").unwrap().verify(NOW).unwrap();
            let stored = SignedRecord::parse(signed.bytes(), "world").unwrap().trust_sealed();
            assert_eq!(record.weight(), stored.weight());
            record.weight() - record.bytes().len()
        };
        let card = |card: AgentCard| beside(header(), &codec::encode(&card));
        let text = |bytes: usize| "x".repeat(bytes);
        let bare = 768 + 6 * "summarizer".len();
        assert_eq!(card(AgentCard::default()), bare);
        assert_eq!(card(AgentCard { description: text(100), ..AgentCard::default() }), bare + 600);
        assert_eq!(card(AgentCard { title: Some(text(100)), ..AgentCard::default() }), bare + 600);
        assert_eq!(card(AgentCard { original_name: Some(text(100)), ..AgentCard::default() }), bare + 600);
        let (tags, capabilities) = (vec![text(10), text(20)], vec![text(30)]);
        let labelled = AgentCard { tags, capabilities, ..AgentCard::default() };
        assert_eq!(card(labelled), bare + 6 * 60 + 3 * 32);
        // Nobody searches these.
        let others =
            AgentCard { input_schema: Some(text(999)), role: Some(text(99)), ..AgentCard::default() };
        assert_eq!(card(others), bare);
        assert_eq!(beside(Header { expires_at: NOW + TOMBSTONE_LIFE, ..header() }, &[]), 512);
        let kind = RecordKind::try_from("weather".to_string()).unwrap();
        assert_eq!(beside(Header { kind, ..header() }, b"anything"), 768);
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
