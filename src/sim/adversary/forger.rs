//! What an adversary signs with keys of its own that are no nodes: records that fill a zone, beacons of members that are not.
//!
//! Keys are free, so each of these is valid by itself. What they may cost others is a matter of room and of standing.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde_bytes::ByteBuf;

use super::Adversary;
use crate::proto::card::{AgentCard, Scope};
use crate::proto::codec;
use crate::proto::identity::Identity;
use crate::proto::limits::{CARD_LIFE, DELEGATION_LIFE, MESSAGE_RECORDS_MAX, TOMBSTONE_LIFE_LONG};
use crate::proto::message::{Beacon, Envelope, Gateway};
use crate::proto::name::{AgentName, ZoneName};
use crate::proto::record::{Author, Delegation, Header, RecordKind, SignedRecord};
use crate::proto::time::{Stamp, Timestamp};
use crate::sim::fabric::Fabric;

/// Records, or beacons, that are forged at once: a hundred a second.
const FORGED_BATCH: u32 = 20;
/// An address at which nobody listens.
const NOWHERE: &[u8] = b"nowhere";
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
struct Forger<'a> {
    rng: &'a mut ChaCha8Rng,
    network: &'a str,
    zone: ZoneName,
    now: Timestamp,
}

impl Adversary {
    /// The records of one key at a time, for nobody batches those of others.
    pub(super) fn fill(
        &mut self,
        at: usize,
        records: u32,
        identities: u32,
        names: Names,
        fabric: &mut Fabric,
    ) {
        // What nobody is there to send is not used up.
        if fabric.nodes[at].node.is_none() {
            return;
        }
        let state = &mut self.states[at];
        let (batch, slot) = (state.offered / FORGED_BATCH, state.offered / FORGED_BATCH / identities);
        let from = (slot * FORGED_BATCH) as u16;
        let many = FORGED_BATCH.min(records - state.offered);
        state.offered += many;
        let mut forger = forger(at, fabric);
        if state.identities.len() <= (batch % identities) as usize {
            state.identities.push(forger.identity());
        }
        let author = &state.identities[(batch % identities) as usize];
        let bytes = forger.records(author, from..from + many as u16, names);
        let home = fabric.nodes[at].home_zone();
        fabric.publish(at, home, bytes, true);
    }

    /// Beacons of members that are none.
    pub(super) fn pretend(&mut self, at: usize, beacons: u32, fabric: &mut Fabric) {
        if fabric.nodes[at].node.is_none() {
            return;
        }
        let many = FORGED_BATCH.min(beacons - self.states[at].offered);
        self.states[at].offered += many;
        for _ in 0..many {
            let bytes = forger(at, fabric).beacon();
            let home = fabric.nodes[at].home_zone();
            fabric.publish(at, home, bytes, false);
        }
    }

    /// Delegations of zones that nobody serves, by a host that nobody is.
    pub(super) fn invent(&mut self, at: usize, zones: u32, fabric: &mut Fabric) {
        if fabric.nodes[at].node.is_none() {
            return;
        }
        let state = &mut self.states[at];
        let many = FORGED_BATCH.min(zones - state.offered);
        let slots = state.offered as u16..(state.offered + many) as u16;
        state.offered += many;
        let mut forger = forger(at, fabric);
        if state.identities.is_empty() {
            state.identities.push(forger.identity());
        }
        let bytes = forger.delegations(&state.identities[0], slots);
        let home = fabric.nodes[at].home_zone();
        fabric.publish(at, home, bytes, true);
    }
}

impl Forger<'_> {
    /// A message with the records of one identity in these slots: cards, tombstones and what nobody knows, in turn.
    fn records(&mut self, author: &Identity, slots: std::ops::Range<u16>, names: Names) -> Vec<u8> {
        debug_assert!(slots.len() <= MESSAGE_RECORDS_MAX);
        let records = slots.filter_map(|slot| self.record(author, slot, names));
        Envelope::Records(records.collect()).encode()
    }

    /// A message with delegations of zones that are made up, one in each of these slots.
    fn delegations(&mut self, host: &Identity, slots: std::ops::Range<u16>) -> Vec<u8> {
        let below = if self.zone.is_root() { String::new() } else { format!(".{}", self.zone) };
        let named = slots.filter_map(|slot| Some((slot, format!("bogus-{slot}{below}").parse().ok()?)));
        let delegations = named.filter_map(|(slot, zone): (u16, ZoneName)| {
            let header = Header {
                kind: RecordKind::Delegation,
                seq: 0,
                expires_at: self.now + DELEGATION_LIFE,
                ..self.header(host, slot, zone.delegated_in(&self.zone)?)
            };
            let addresses = vec![ByteBuf::from(NOWHERE.to_vec())];
            let body = codec::encode(&Delegation { zone, addresses });
            let signed = SignedRecord::sign(header, &body, host).ok()?;
            Some(ByteBuf::from(signed.bytes().to_vec()))
        });
        Envelope::Records(delegations.collect()).encode()
    }

    /// A message with the beacon of an identity that nobody met.
    fn beacon(&mut self) -> Vec<u8> {
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
            name: None,
        };
        Envelope::Beacon(beacon.sign(&stranger)).encode()
    }

    fn identity(&mut self) -> Identity {
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
        let header = |name: AgentName| Header {
            kind: kind.clone(),
            generation,
            expires_at: self.now + life,
            ..self.header(author, slot, name)
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

    /// What stands in each record that an identity signs.
    fn header(&self, author: &Identity, slot: u16, name: AgentName) -> Header {
        let key = author.key();
        Header {
            network: self.network.into(),
            zone: self.zone.clone(),
            kind: RecordKind::Agent,
            name,
            owner: key,
            host: key,
            author: Author { key, epoch: 1 },
            seq: u64::from(slot) + 1,
            stamp: Stamp { wall: self.now, counter: 0 },
            generation: 0,
            expires_at: self.now + CARD_LIFE,
            scope: Scope::Public,
            slot,
            grants: Vec::new(),
        }
    }
}

fn forger(at: usize, fabric: &mut Fabric) -> Forger<'_> {
    let wall = fabric.kernel.wall();
    let (host, rng) = (&mut fabric.nodes[at], &mut fabric.kernel.rng);
    let (now, zone) = (host.clock.read(wall), host.home_zone());
    Forger { rng, network: &host.config.network, zone, now }
}
