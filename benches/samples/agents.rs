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

/// Signed records of 100 authors in turn.
pub(crate) fn records(count: usize) -> impl Iterator<Item = Vec<u8>> {
    let mut cards = Cards::new();
    let authors: Vec<Identity> = (0..AUTHORS).map(|at| Identity::from_seed(seed_of_author(at))).collect();
    let wall = wall_clock();
    (0..count).map(move |at| {
        let author = &authors[at % AUTHORS];
        let seq = (at / AUTHORS + 1) as u64;
        sign(author, at, seq, wall, &codec::encode(&cards.card()))
    })
}

/// None of a node, whose seeds have equal bytes.
fn seed_of_author(at: usize) -> [u8; 32] {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&(at as u64 + 1).to_le_bytes());
    seed
}

fn sign(author: &Identity, at: usize, seq: u64, wall: Timestamp, body: &[u8]) -> Vec<u8> {
    let header = Header {
        network: NETWORK.into(),
        zone: ZoneName::root(),
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
    /// A node with a new store in `dir`.
    pub(crate) fn new(dir: &Path, seed: u8) -> Keeper {
        let store = Store::open(dir).expect("opened").0;
        let now = wall_clock();
        let mut keeper = Keeper { node: node(seed, Stored::default(), now), store, now };
        keeper.perform();
        keeper
    }

    /// Takes one gossip message, writes included.
    pub(crate) fn take(&mut self, message: Vec<u8>) {
        self.take_ahead(message, Vec::new());
    }

    /// As `take`, with the records of the message as they were judged before.
    pub(crate) fn take_ahead(&mut self, message: Vec<u8>, records: Vec<SignedRecord>) {
        let (peer, zone) = (PeerKey([9; 32]), ZoneName::root());
        let id = GossipId([0; 20]);
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
        self.node.zone_states(self.now)[0].agents
    }

    /// Writes the rest.
    pub(crate) fn close(self) {
        self.store.close().expect("closed");
    }
}

/// A node of the bench network.
pub(crate) fn node(seed: u8, stored: Stored, now: Timestamp) -> Node {
    let config = Config { network: NETWORK.into(), ..Config::default() };
    Node::new(Identity::from_seed([seed; 32]), config, [3; 32], stored, now)
}

/// One record as one gossip message.
pub(crate) fn message(record: Vec<u8>) -> Vec<u8> {
    Envelope::Records(vec![ByteBuf::from(record)]).encode()
}

/// Fills the store of the node with this seed.
pub(crate) fn fill(dir: &Path, seed: u8, count: usize) {
    let mut keeper = Keeper::new(dir, seed);
    for record in records(count) {
        keeper.take(message(record));
    }
    assert_eq!(keeper.agents(), count);
    keeper.close();
}

pub(crate) fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Timestamp(since.as_millis() as u64)
}
