//! Valid records of a few hosts and owners, as many as wanted.

use std::time::Duration;

use aop::proto::card::{AgentCard, Scope};
use aop::proto::codec;
use aop::proto::fingerprint::leaf_of;
use aop::proto::grant::{Grant, Reach};
use aop::proto::identity::{Identity, PeerKey};
use aop::proto::limits::{CARD_LIFE, TOMBSTONE_LIFE, TOMBSTONE_LIFE_LONG};
use aop::proto::name::{AgentName, ZoneName};
use aop::proto::record::{Author, Header, Record, RecordKind, Revocation, RevokedRecord, SignedRecord};
use aop::proto::time::{Stamp, Timestamp};
use proptest::prelude::*;
use serde_bytes::ByteBuf;

pub(crate) const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// What a generated record says. Equal specs are equal bytes.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) host: u8,
    pub(crate) owner: u8,
    pub(crate) by: By,
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
    pub(crate) name: u8,
    pub(crate) age_ms: u64,
    pub(crate) counter: u32,
    pub(crate) generation: u64,
    pub(crate) life: Duration,
    pub(crate) padding: usize,
    pub(crate) slot: u16,
}

/// Who signs what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Host,
    HostBuries,
    OwnerRevokes,
}

pub(crate) fn identity(seed: u8) -> Identity {
    Identity::from_seed([seed; 32])
}

pub(crate) fn key(seed: u8) -> PeerKey {
    identity(seed).key()
}

pub(crate) fn author(seed: u8, epoch: u64) -> Author {
    Author { key: key(seed), epoch }
}

/// A card of host `host` under its own name, stamped an hour ago.
pub(crate) fn card(host: u8, name: u8) -> Record {
    plain(host, name).record()
}

pub(crate) fn plain(host: u8, name: u8) -> Spec {
    Spec {
        host,
        owner: host,
        by: By::Host,
        epoch: 1,
        seq: 1 + u64::from(name),
        name,
        age_ms: 3_600_000,
        counter: 0,
        generation: 0,
        life: CARD_LIFE,
        padding: 0,
        slot: u16::from(name),
    }
}

pub(crate) fn spec() -> impl Strategy<Value = Spec> {
    let who = (1u8..4, 1u8..4, prop_oneof![Just(By::Host), Just(By::HostBuries), Just(By::OwnerRevokes)]);
    let version = (1u64..3, 1u64..12, 0u8..5);
    let order = (0u64..3, 0u32..2, 0u64..2);
    (who, version, order, 1u64..10_080, 0usize..400).prop_map(
        |((host, owner, by), (epoch, seq, name), (age_ms, counter, generation), minutes, padding)| {
            // A record of the host's own generation 1 is one that its owner signs: host and owner are the same.
            let owner = if by == By::HostBuries { host } else { owner };
            let life = Duration::from_secs(60 * minutes);
            // One slot for each key, as an honest host keeps it: an owner has a revocation for each host and name.
            let slot = u16::from(name) * 4 + if by == By::OwnerRevokes { u16::from(host) } else { 0 };
            Spec { host, owner, by, epoch, seq, name, age_ms, counter, generation, life, padding, slot }
        },
    )
}

pub(crate) fn specs(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Spec>> {
    prop::collection::vec(spec(), count)
}

/// Of a card in a slot of its owner's own shelf, with the version that counts the slots.
pub(crate) fn card_header(writer: &Identity, slot: u16, name: &str) -> Header {
    Header {
        network: "world".into(),
        zone: ZoneName::root(),
        kind: RecordKind::Agent,
        name: name.parse().unwrap(),
        owner: writer.key(),
        host: writer.key(),
        author: Author { key: writer.key(), epoch: 1 },
        seq: u64::from(slot) + 1,
        stamp: Stamp { wall: NOW, counter: 0 },
        generation: 0,
        expires_at: NOW + CARD_LIFE,
        scope: Scope::Public,
        slot,
        grants: Vec::new(),
    }
}

/// Records whose keys all lie in the first leaf: whoever may choose names may choose leaves. The file lists the numbers
/// for which the name `a<number>` of host 1 lies there.
pub(crate) fn crowd(count: usize) -> Vec<Record> {
    let writer = identity(1);
    let numbers = include_str!("../../data/one-leaf.txt").lines().take(count);
    let header =
        |(slot, at): (u16, u64)| Header { seq: at + 1, ..card_header(&writer, slot, &format!("a{at}")) };
    let body = codec::encode(&AgentCard::default());
    let crowded = (0..).zip(numbers.map(|number| number.parse().unwrap())).map(header);
    let sign = |it: Header| SignedRecord::sign(it, &body, &writer).unwrap().verify(NOW).unwrap();
    crowded.inspect(|it| assert_eq!(leaf_of(it.key()), 0)).map(sign).collect()
}

impl Spec {
    pub(crate) fn signed(&self) -> SignedRecord {
        let stamp = Stamp { wall: Timestamp(NOW.0 - self.age_ms), counter: self.counter };
        // Of two hosts, or the owner's of the other: what an owner wrote itself it does not revoke.
        let revoked = if self.host == self.owner { self.host % 3 + 1 } else { self.host };
        let meant = RevokedRecord { kind: RecordKind::Agent, name: self.agent() };
        let revocation = Revocation { host: key(revoked), record: Some(meant) };
        let writer = if self.by == By::OwnerRevokes { self.owner } else { self.host };
        let (kind, name, life, body) = match self.by {
            By::Host => {
                let description = "x".repeat(self.padding);
                let card = AgentCard { description, ..AgentCard::default() };
                (RecordKind::Agent, self.agent(), self.life, codec::encode(&card))
            }
            By::HostBuries => (RecordKind::Agent, self.agent(), TOMBSTONE_LIFE, Vec::new()),
            By::OwnerRevokes => {
                let name = revocation.name(&ZoneName::root(), key(self.owner));
                (RecordKind::Revocation, name, TOMBSTONE_LIFE_LONG, codec::encode(&revocation))
            }
        };
        let header = Header {
            network: "world".into(),
            zone: ZoneName::root(),
            kind,
            name,
            owner: key(self.owner),
            host: key(writer),
            author: author(writer, self.epoch),
            seq: self.seq,
            stamp,
            generation: self.generation,
            expires_at: stamp.wall + life,
            scope: Scope::Public,
            slot: self.slot,
            grants: if writer == self.owner { Vec::new() } else { vec![self.grant()] },
        };
        SignedRecord::sign(header, &body, &identity(writer)).unwrap()
    }

    fn agent(&self) -> AgentName {
        format!("agent-{}", self.name).parse().unwrap()
    }

    pub(crate) fn record(&self) -> Record {
        self.signed().verify(NOW).unwrap()
    }

    fn grant(&self) -> ByteBuf {
        let owner = identity(self.owner);
        let grant = Grant {
            network: "world".into(),
            issuer: owner.key(),
            subject: key(self.host),
            zone: ZoneName::root(),
            reach: Reach::Zone,
            kinds: vec![RecordKind::Agent],
            may_delegate: false,
            issued_at: Timestamp(NOW.0 - 10_000_000),
            expires_at: NOW + CARD_LIFE * 2,
            generation: self.generation,
            slots: None,
        };
        ByteBuf::from(grant.sign(&owner))
    }
}
