//! Made-up agents of about 2 KiB a signed record, and stores filled with them. The same seed gives the same agents.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use aop::net::store::Store;
use aop::proto::card::Scope;
use aop::proto::codec;
use aop::proto::config::Config;
use aop::proto::identity::{Identity, PeerKey};
use aop::proto::io::{GossipId, Input, Output, Received};
use aop::proto::message::Envelope;
use aop::proto::name::ZoneName;
use aop::proto::node::Node;
use aop::proto::persistence::Stored;
use aop::proto::record::{Author, Header, RecordKind, SignedRecord};
use aop::proto::time::{Stamp, Timestamp};
use serde_bytes::ByteBuf;

#[path = "cards.rs"]
mod cards;

pub(crate) use cards::Cards;

/// The network of all benches.
pub(crate) const NETWORK: &str = "bench";
const AUTHORS: usize = 100;

/// Such records as a zone has room for.
const ZONE_RECORDS: usize = 45_000;

/// Signed records of 100 authors in turn, one zone after the other.
pub(crate) fn records(count: usize) -> impl Iterator<Item = Vec<u8>> {
    let mut cards = Cards::new();
    let authors: Vec<Identity> = (0..AUTHORS as u8).map(author).collect();
    let (wall, zones) = (wall_clock(), zones(count));
    (0..count).map(move |at| {
        let author = &authors[at % AUTHORS];
        let seq = (at % ZONE_RECORDS / AUTHORS + 1) as u64;
        sign(author, &zones[at / ZONE_RECORDS], at, seq, wall, &codec::encode(&cards.card()))
    })
}

/// The zones that so many records take.
pub(crate) fn zones(count: usize) -> Vec<ZoneName> {
    let beside = (1..count.div_ceil(ZONE_RECORDS)).map(|at| format!("z{at}.org").parse().expect("a zone"));
    std::iter::once(ZoneName::root()).chain(beside).collect()
}

/// None of the nodes of the benches, whose seeds are one byte repeated.
fn author(at: u8) -> Identity {
    let mut seed = [255; 32];
    seed[0] = at;
    Identity::from_seed(seed)
}

fn sign(author: &Identity, zone: &ZoneName, at: usize, seq: u64, wall: Timestamp, body: &[u8]) -> Vec<u8> {
    let header = Header {
        network: NETWORK.into(),
        zone: zone.clone(),
        kind: RecordKind::Agent,
        name: format!("agent-{at}").parse().expect("a label"),
        owner: author.key(),
        host: author.key(),
        author: Author { key: author.key(), epoch: 1 },
        seq,
        stamp: Stamp { wall, counter: 0 },
        generation: 0,
        expires_at: Timestamp(wall.0 + 6 * 86_400_000),
        scope: Scope::Public,
        // The versions of an author count its records.
        slot: (seq - 1) as u16,
        grants: Vec::new(),
    };
    SignedRecord::sign(header, body, author).expect("signed").bytes().to_vec()
}

/// A node and its store, without a network.
pub(crate) struct Keeper {
    pub(crate) node: Node,
    store: Store,
    pub(crate) now: Timestamp,
}

impl Keeper {
    /// A node of these zones with a new store in `dir`.
    pub(crate) fn new(dir: &Path, seed: u8, zones: Vec<ZoneName>) -> Keeper {
        let store = Store::open(dir).expect("opened").0;
        let now = wall_clock();
        let mut keeper = Keeper { node: node(seed, zones, Stored::default(), now), store, now };
        keeper.perform();
        keeper
    }

    /// Takes one gossip message, writes included.
    pub(crate) fn take(&mut self, zone: ZoneName, message: Vec<u8>) {
        self.take_ahead(zone, message, Vec::new());
    }

    /// As `take`, with the records of the message as they were judged before.
    pub(crate) fn take_ahead(&mut self, zone: ZoneName, message: Vec<u8>, records: Vec<SignedRecord>) {
        let (peer, id) = (PeerKey([9; 32]), GossipId([0; 20]));
        let input = Input::Gossip { id, peer, zone, bytes: message };
        self.node.handle(self.now, Received { input, records });
        self.perform();
    }

    /// Writes what is to be written; gives the other outputs.
    pub(crate) fn perform(&mut self) -> Vec<Output> {
        let mut others = Vec::new();
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Persist(writes) => self.store.write(writes).expect("written"),
                other => others.push(other),
            }
        }
        others
    }

    /// Agents held.
    pub(crate) fn agents(&mut self) -> usize {
        self.node.zone_states(self.now).iter().map(|zone| zone.agents).sum()
    }

    /// Writes the rest.
    pub(crate) fn close(self) {
        self.store.close().expect("closed");
    }
}

/// A node of the bench network.
pub(crate) fn node(seed: u8, zones: Vec<ZoneName>, stored: Stored, now: Timestamp) -> Node {
    let config = Config { network: NETWORK.into(), zones, ..Config::default() };
    Node::new(Identity::from_seed([seed; 32]), config, [3; 32], stored, now)
}

/// One record as one gossip message.
pub(crate) fn message(record: Vec<u8>) -> Vec<u8> {
    Envelope::Records(vec![ByteBuf::from(record)]).encode()
}

/// Fills the store of the node with this seed.
pub(crate) fn fill(dir: &Path, seed: u8, count: usize) {
    let zones = zones(count);
    let mut keeper = Keeper::new(dir, seed, zones.clone());
    for (at, record) in records(count).enumerate() {
        keeper.take(zones[at / ZONE_RECORDS].clone(), message(record));
    }
    assert_eq!(keeper.agents(), count);
    keeper.close();
}

pub(crate) fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Timestamp(since.as_millis() as u64)
}
