//! What an adversary signs with keys of its own that are no nodes: records that fill a zone, beacons of members that are not.
//!
//! Keys are free, so each of these is valid by itself. What they may cost others is a matter of room and of standing.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde_bytes::ByteBuf;

use crate::proto::card::{AgentCard, Scope};
use crate::proto::codec;
use crate::proto::identity::Identity;
use crate::proto::limits::{CARD_LIFE, MESSAGE_RECORDS_MAX, TOMBSTONE_LIFE_LONG};
use crate::proto::message::{Beacon, Envelope, Gateway};
use crate::proto::name::{AgentName, ZoneName};
use crate::proto::record::{Author, Header, RecordKind, SignedRecord};
use crate::proto::time::{Stamp, Timestamp};

/// Names that are tried for each record whose key is to come first: its hash then begins with some four zero bits.
const GRINDS: usize = 16;
/// The interval that a false beacon announces: who believes it misses its sender after most of a day.
const FALSE_INTERVAL_MS: u64 = 6 * 3_600_000;
/// The versions that a false beacon claims, so that whoever believes it looks for them.
const FALSE_VERSIONS: u64 = 1_000_000;
/// Bytes of a record of a kind that nobody knows.
const UNKNOWN_BYTES: usize = 400;

/// How the names of records are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// One after the other.
    Plain,
    /// So that their keys have small hashes, and come first among those of their slot.
    Ground,
}

/// A forger at one moment.
pub(super) struct Forger<'a> {
    pub(super) rng: &'a mut ChaCha8Rng,
    pub(super) network: &'a str,
    pub(super) zone: ZoneName,
    pub(super) now: Timestamp,
}

impl Forger<'_> {
    /// A message with the records of one identity in these slots: cards, tombstones and what nobody knows, in turn.
    pub(super) fn records(
        &mut self,
        author: &Identity,
        slots: std::ops::Range<u16>,
        names: Names,
    ) -> Vec<u8> {
        debug_assert!(slots.len() <= MESSAGE_RECORDS_MAX);
        let records = slots.filter_map(|slot| self.record(author, slot, names));
        Envelope::Records(records.collect()).encode()
    }

    /// A message with the beacon of an identity that nobody met.
    pub(super) fn beacon(&mut self) -> Vec<u8> {
        let stranger = self.identity();
        let beacon = Beacon {
            network: self.network.into(),
            zone: self.zone.clone(),
            author: Author { key: stranger.key(), epoch: self.rng.random() },
            counter: self.now.0,
            clock: self.now,
            interval_ms: FALSE_INTERVAL_MS,
            seq: FALSE_VERSIONS,
            gateway: Gateway::First,
        };
        Envelope::Beacon(beacon.sign(&stranger)).encode()
    }

    pub(super) fn identity(&mut self) -> Identity {
        Identity::from_seed(self.rng.random())
    }

    fn record(&mut self, author: &Identity, slot: u16, names: Names) -> Option<ByteBuf> {
        let unknown = || RecordKind::Unknown("weather".parse().expect("a label"));
        let card = AgentCard { description: "worthless".into(), ..AgentCard::default() };
        // A tombstone of a greater generation lives longest of all, and costs least.
        let (kind, body, generation, life) = match slot % 3 {
            0 => (RecordKind::Agent, codec::encode(&card), 0, CARD_LIFE),
            1 => (RecordKind::Agent, Vec::new(), 1, TOMBSTONE_LIFE_LONG),
            _ => (unknown(), vec![0xf6; UNKNOWN_BYTES], 0, CARD_LIFE),
        };
        let key = author.key();
        let header = |name: AgentName| Header {
            network: self.network.into(),
            zone: self.zone.clone(),
            kind: kind.clone(),
            name,
            owner: key,
            host: key,
            author: Author { key, epoch: 1 },
            seq: u64::from(slot) + 1,
            stamp: Stamp { wall: self.now, counter: 0 },
            generation,
            expires_at: self.now + life,
            scope: Scope::Public,
            slot,
            grants: Vec::new(),
        };
        let tried = match names {
            Names::Plain => 1,
            Names::Ground => GRINDS,
        };
        let named = (0..tried).filter_map(|number| format!("fill-{slot}-{number}").parse().ok());
        let first = named.map(header).min_by_key(Header::key)?;
        let signed = SignedRecord::sign(first, &body, author).ok()?;
        Some(ByteBuf::from(signed.bytes().to_vec()))
    }
}
