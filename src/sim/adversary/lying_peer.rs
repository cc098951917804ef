//! What a lying peer says: about what it holds, in place of what it was asked, and as records that are none.
//!
//! Every lie is drawn anew, and some answers are true: a peer that always lied would be found out by its first.

use std::sync::Arc;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde_bytes::ByteBuf;

use crate::proto::card::{AgentCard, Scope};
use crate::proto::codec;
use crate::proto::fingerprint::Digest;
use crate::proto::identity::{Identity, PeerKey};
use crate::proto::limits::{CARD_LIFE, SYNC_FRAME_BYTES_MAX};
use crate::proto::message::{Envelope, Item, SyncAnswer, SyncFrame, SyncRequest};
use crate::proto::name::ZoneName;
use crate::proto::record::{Author, Header, KeyHash, Record, RecordHash, RecordKind, SignedRecord};
use crate::proto::time::{Stamp, Timestamp};

const HOUR: std::time::Duration = std::time::Duration::from_secs(3_600);
const MONTH: std::time::Duration = std::time::Duration::from_secs(30 * 86_400);

/// A liar at one moment.
pub(super) struct LyingPeer<'a> {
    pub(super) rng: &'a mut ChaCha8Rng,
    pub(super) identity: &'a Identity,
    pub(super) network: &'a str,
    /// Where what it makes up is said to lie.
    pub(super) zone: ZoneName,
    pub(super) now: Timestamp,
    /// A record that it holds, to forge others from.
    pub(super) model: Option<Arc<Record>>,
}

impl LyingPeer<'_> {
    /// The frames that answer a question whose true answer is `bytes`, asked by one whose registry has this root.
    pub(super) fn answers(&mut self, bytes: &[u8], root: Digest) -> Vec<Vec<u8>> {
        let truth = bytes.to_vec();
        match self.rng.random_range(0..12) {
            // The asker waits until it gives up.
            0 => Vec::new(),
            1 => vec![self.noise()],
            2 => vec![SyncAnswer::Taken.encode()],
            3 => vec![SyncAnswer::Children(Vec::new()).encode()],
            // The second answers the next question.
            4 => vec![truth.clone(), truth],
            // As often as not for longer than the asker waits.
            5 => vec![SyncAnswer::Busy { wait_ms: self.rng.random_range(0..10_000) }.encode()],
            6 | 7 => vec![truth],
            _ => match SyncAnswer::decode(bytes) {
                Ok(answer) => vec![self.distorted(answer, root).encode()],
                Err(_) => vec![truth],
            },
        }
    }

    /// A question in place of another.
    pub(super) fn question(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        let Ok(mut frame) = SyncFrame::decode(&bytes) else { return bytes };
        match self.rng.random_range(0..10) {
            0 => return self.noise(),
            1 => frame.as_of = Timestamp(self.rng.random()),
            2..=5 => {
                let records = vec![self.forged_of_own()];
                frame.request = SyncRequest::Give { records, publish: true };
            }
            _ => return bytes,
        }
        frame.encode()
    }

    /// A message of the mesh with one bit turned, or with a forged record in it.
    pub(super) fn message(&mut self, bytes: &[u8]) -> Vec<u8> {
        match Envelope::decode(bytes) {
            Ok(Envelope::Records(records)) if self.rng.random() => {
                let records = records.iter().map(|record| self.forged(record)).collect();
                Envelope::Records(records).encode()
            }
            _ => self.flipped(bytes),
        }
    }

    fn distorted(&mut self, answer: SyncAnswer, root: Digest) -> SyncAnswer {
        match answer {
            SyncAnswer::Opened { root: ours, clock, heard, .. } => {
                // Nothing to compare, a head that nobody wrote, a clock of another time.
                let root = if self.rng.random() { root } else { ours };
                let head = if self.rng.random() { u64::MAX } else { 0 };
                let clock = if self.rng.random() { Timestamp(self.rng.random()) } else { clock };
                // Whatever it lacks, it speaks for the zone.
                SyncAnswer::Opened { root, head, clock, heard, whole: true, alive: Vec::new() }
            }
            SyncAnswer::Versions { prefixes, .. } => {
                SyncAnswer::Versions { root, prefixes: vec![u64::MAX; prefixes.len()] }
            }
            SyncAnswer::Children(digests) => SyncAnswer::Children(self.some_other(digests, |liar| {
                if liar.rng.random() { Digest::default() } else { Digest(liar.rng.random()) }
            })),
            SyncAnswer::Items { mut items, next } => {
                items.retain(|_| self.rng.random());
                let none = Item {
                    key: KeyHash([0; 32]),
                    slot: 0,
                    generation: 0,
                    wall: self.now,
                    counter: 0,
                    hash: RecordHash([0; 32]),
                };
                let like = items.first().copied().unwrap_or(none);
                let (key, hash) = (KeyHash(self.rng.random()), RecordHash(self.rng.random()));
                items.push(Item { key, hash, ..like });
                // Out of order they would be refused before anybody believed the lie.
                items.sort_by_key(|item| item.key);
                SyncAnswer::Items { items, next }
            }
            SyncAnswer::Records { mut records, next } => {
                records.retain(|_| self.rng.random());
                let forged = match records.first() {
                    Some(first) => self.forged(&first.clone()),
                    None => self.forged_of_own(),
                };
                records.push(forged);
                SyncAnswer::Records { records, next }
            }
            SyncAnswer::Taken | SyncAnswer::Refused | SyncAnswer::Busy { .. } => SyncAnswer::Refused,
        }
    }

    fn some_other<T>(&mut self, all: Vec<T>, mut other: impl FnMut(&mut Self) -> T) -> Vec<T> {
        all.into_iter().map(|it| if self.rng.random() { other(self) } else { it }).collect()
    }

    /// What is no answer at all, or larger than any may be.
    fn noise(&mut self) -> Vec<u8> {
        let huge = self.rng.random_ratio(1, 8);
        let length = if huge { SYNC_FRAME_BYTES_MAX + 1 } else { self.rng.random_range(0..200) };
        let first: [u8; 32] = self.rng.random();
        first.into_iter().cycle().take(length).collect()
    }

    fn flipped(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut flipped = bytes.to_vec();
        if !flipped.is_empty() {
            let at = self.rng.random_range(0..flipped.len());
            flipped[at] ^= 1 << self.rng.random_range(0..8);
        }
        flipped
    }

    fn forged_of_own(&mut self) -> ByteBuf {
        let model = self.model.as_ref().map(|model| model.bytes().clone());
        self.forged(model.as_deref().unwrap_or_default())
    }

    /// Something that is no valid record, made from another record where that is possible.
    fn forged(&mut self, model: &[u8]) -> ByteBuf {
        let choice = self.rng.random_range(0..10);
        let forged = match (choice, SignedRecord::parse(model, self.network)) {
            (0..=2, Ok(_)) => self.flipped(model),
            // In the name of its author, of a moment later, signed by the liar.
            (3..=5, Ok(signed)) if signed.header().author.key != self.identity.key() => {
                self.signed(Header { stamp: signed.header().stamp.successor(), ..signed.header().clone() })
            }
            _ => self.own_forgery(),
        };
        ByteBuf::from(forged)
    }

    /// A record that the liar signed itself and that breaks one rule.
    fn own_forgery(&mut self) -> Vec<u8> {
        let right = self.own_header();
        let stranger = PeerKey(self.rng.random());
        let stamped = |wall: Timestamp| Header {
            stamp: Stamp { wall, counter: 0 },
            expires_at: wall + CARD_LIFE,
            ..right.clone()
        };
        match self.rng.random_range(0..7) {
            // Past its end.
            0 => self.signed(stamped(self.now - CARD_LIFE - HOUR)),
            // Further ahead than clocks may differ.
            1 => self.signed(stamped(self.now + HOUR)),
            2 => self.signed(Header { network: "elsewhere".into(), ..right }),
            // In the name of a host that did not sign it.
            3 => self.signed(Header { host: stranger, ..right }),
            // Longer than a card may live.
            4 => self.signed(Header { expires_at: self.now + MONTH, ..right }),
            // Of a scope that never leaves its node.
            5 => self.signed(Header { scope: Scope::Node, seq: 0, ..right }),
            // The right format, so that what follows is read.
            _ => [vec![1], self.noise()].concat(),
        }
    }

    fn own_header(&mut self) -> Header {
        let key = self.identity.key();
        Header {
            network: self.network.into(),
            zone: self.zone.clone(),
            kind: RecordKind::Agent,
            name: "lie".parse().expect("a label"),
            owner: key,
            host: key,
            author: Author { key, epoch: self.rng.random() },
            seq: self.rng.random_range(1..1_000),
            stamp: Stamp { wall: self.now, counter: 0 },
            generation: 0,
            expires_at: self.now + CARD_LIFE,
            scope: Scope::Public,
            slot: 0,
            grants: Vec::new(),
        }
    }

    fn signed(&mut self, header: Header) -> Vec<u8> {
        let card = AgentCard { description: "a lie".into(), ..AgentCard::default() };
        let signed = SignedRecord::sign(header, &codec::encode(&card), self.identity);
        signed.map(|signed| signed.bytes().to_vec()).unwrap_or_default()
    }
}
