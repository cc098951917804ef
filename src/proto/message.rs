//! What nodes say to each other: gossip envelopes, beacons, sync requests and answers.
//!
//! Gossip envelopes are unsigned; the records and beacons in them carry their own signatures. Sync is a conversation of
//! requests and answers over one stream: the asking side drives, the answering side keeps no state.

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::codec::{self, Malformed};
use super::fingerprint::{Digest, FANOUT, Prefix};
use super::identity::{Identity, PeerKey};
use super::limits::{
    BEACON_BYTES_MAX, GOSSIP_BYTES_MAX, MESSAGE_RECORDS_MAX, SYNC_ANSWER_BYTES, SYNC_FRAME_BYTES_MAX,
};
use super::name::{ZoneId, ZoneName};
use super::node_name::NodeName;
use super::record::{Author, KeyHash, RecordHash};
use super::signature::Keys;
use super::time::Timestamp;

/// Separates signatures over beacons from all other uses of a key.
const BEACON_DOMAIN: &[u8] = b"aop-beacon-v1\0";

/// Most prefixes, leaves, keys or authors in one sync request.
pub const SYNC_ASK_MAX: usize = 256;
/// Encoded size of an [`Item`], at most.
const ITEM_BYTES: usize = 96;
/// Most items in one sync answer.
pub const SYNC_ITEMS_MAX: usize = SYNC_ANSWER_BYTES / ITEM_BYTES;
/// Hosts that one answer names alive.
pub const ALIVE_MAX: usize = 256;
/// Digests of the children of as many prefixes as may be asked.
const SYNC_DIGESTS_MAX: usize = SYNC_ASK_MAX * FANOUT;

/// One gossip message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Envelope {
    /// Signed records: one of any author, or a batch of one author's own.
    #[serde(rename = "r")]
    Records(#[serde(deserialize_with = "codec::at_most::<MESSAGE_RECORDS_MAX, _, _>")] Vec<ByteBuf>),
    /// A signed beacon: 64 bytes of signature, then the signed bytes.
    #[serde(rename = "b")]
    Beacon(ByteBuf),
}

/// "I am here", from each member of a zone in turn (protocol section 3). Short names: two a second reach every member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beacon {
    /// The world.
    #[serde(rename = "n")]
    pub network: String,
    /// The zone.
    #[serde(rename = "z")]
    pub zone: ZoneName,
    /// Who speaks.
    #[serde(rename = "a")]
    pub author: Author,
    /// Greater than in every earlier beacon of the author.
    #[serde(rename = "c")]
    pub counter: u64,
    /// The author's clock.
    #[serde(rename = "t")]
    pub clock: Timestamp,
    /// Milliseconds until its next beacon; 0 says goodbye.
    #[serde(rename = "i")]
    pub interval_ms: u64,
    /// Its last version in the zone.
    #[serde(rename = "s")]
    pub seq: u64,
    /// Whether it is a gateway of the zone if it comes first.
    #[serde(rename = "g", default, skip_serializing_if = "Gateway::is_usual")]
    pub gateway: Gateway,
    /// What people call the author.
    #[serde(
        rename = "m",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "NodeName::of_peer"
    )]
    pub name: Option<NodeName>,
}

/// Whether a member may be a gateway of its zone (protocol section 4). On the wire a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
pub enum Gateway {
    /// Never: it cannot be dialed, or its operator wants it so.
    Never,
    /// Where it comes first among the members.
    #[default]
    Auto,
    /// Before those.
    First,
}

impl Gateway {
    fn is_usual(&self) -> bool {
        *self == Gateway::Auto
    }
}

impl From<Gateway> for u8 {
    fn from(gateway: Gateway) -> u8 {
        match gateway {
            Gateway::Never => 0,
            Gateway::Auto => 1,
            Gateway::First => 2,
        }
    }
}

impl From<u8> for Gateway {
    /// What is not known here is nothing special.
    fn from(number: u8) -> Gateway {
        match number {
            0 => Gateway::Never,
            2 => Gateway::First,
            _ => Gateway::Auto,
        }
    }
}

/// A question on a sync stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncRequest {
    /// Opens the conversation.
    Open {
        /// The asking author: what did you see of me?
        author: Author,
        /// The asker's clock.
        clock: Timestamp,
    },
    /// Hashes of the 16 children of each prefix.
    Children {
        /// At most [`SYNC_ASK_MAX`], ascending.
        #[serde(deserialize_with = "codec::ascending::<SYNC_ASK_MAX, _, _>")]
        prefixes: Vec<Prefix>,
    },
    /// Keys and orders of the records of each leaf.
    Items {
        /// At most [`SYNC_ASK_MAX`], ascending.
        #[serde(deserialize_with = "codec::ascending::<SYNC_ASK_MAX, _, _>")]
        leaves: Vec<Prefix>,
        /// Continue after this key.
        after: Option<KeyHash>,
    },
    /// The records of these keys.
    Records {
        /// At most [`SYNC_ASK_MAX`], ascending.
        #[serde(deserialize_with = "codec::ascending::<SYNC_ASK_MAX, _, _>")]
        keys: Vec<KeyHash>,
    },
    /// All records below a prefix, for a side that holds nothing there.
    Subtree {
        /// Where.
        prefix: Prefix,
        /// Continue after this key.
        after: Option<KeyHash>,
        /// Leave out those stamped later: they are on their way.
        stamped_by: Option<Timestamp>,
    },
    /// Records that the answering side lacks.
    Give {
        /// Signed records, within a frame.
        #[serde(deserialize_with = "codec::at_most::<MESSAGE_RECORDS_MAX, _, _>")]
        records: Vec<ByteBuf>,
        /// Whether the whole repair is so small that what is new should be published again.
        publish: bool,
    },
    /// Prefixes of these authors, and the root to judge them by.
    Versions {
        /// At most [`SYNC_ASK_MAX`].
        #[serde(deserialize_with = "codec::at_most::<SYNC_ASK_MAX, _, _>")]
        authors: Vec<Author>,
    },
}

/// The answer to the request of the same place in the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncAnswer {
    /// To `Open`.
    Opened {
        /// Fingerprint of the whole zone.
        root: Digest,
        /// Highest version seen of the asking author.
        head: u64,
        /// The answerer's clock.
        clock: Timestamp,
        /// The last beacon heard of the asker's key, as it was signed: one that the asker did not send is another process's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        heard: Option<ByteBuf>,
        /// Whether the answerer may speak for the zone.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        whole: bool,
        /// Hosts of the zone that the answerer sees alive, those heard last first.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[serde(deserialize_with = "codec::at_most::<ALIVE_MAX, _, _>")]
        alive: Vec<Alive>,
    },
    /// To `Children`: 16 for each prefix, in the order asked.
    Children(#[serde(deserialize_with = "codec::at_most::<SYNC_DIGESTS_MAX, _, _>")] Vec<Digest>),
    /// To `Items`: what fits a frame, by key.
    Items {
        /// At most [`SYNC_ITEMS_MAX`].
        #[serde(deserialize_with = "codec::at_most::<SYNC_ITEMS_MAX, _, _>")]
        items: Vec<Item>,
        /// Ask again after this key, whether or not anything came; `None` if that was all.
        next: Option<KeyHash>,
    },
    /// To `Records` and `Subtree`: what fits a frame.
    Records {
        /// Signed records, by key.
        #[serde(deserialize_with = "codec::at_most::<MESSAGE_RECORDS_MAX, _, _>")]
        records: Vec<ByteBuf>,
        /// Ask again after this key; `None` if that was all.
        next: Option<KeyHash>,
    },
    /// To `Give`.
    Taken,
    /// To `Versions`: the root at this moment, and a prefix for each author.
    Versions {
        /// Fingerprint of the whole zone, at the `as_of` of the conversation.
        root: Digest,
        /// In the order asked.
        #[serde(deserialize_with = "codec::at_most::<SYNC_ASK_MAX, _, _>")]
        prefixes: Vec<u64>,
    },
    /// The zone is not held here, or the request makes no sense here.
    Refused,
    /// Nothing was done: the asker took its share, or an answer takes more than one turn. The same may be asked again then.
    Busy {
        /// After so many milliseconds.
        wait_ms: u64,
    },
}

/// A host that is alive: its key, and the seconds since it was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alive(pub PeerKey, pub u16);

/// A held record in a comparison. On the wire a list of six, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ItemOnWire", into = "ItemOnWire")]
pub struct Item {
    /// Hash of its key.
    pub key: KeyHash,
    /// Its place on its shelf: of two versions of a key the smaller one wins.
    pub slot: u16,
    /// See [`Order`](super::record::Order).
    pub generation: u64,
    /// Wall clock of its stamp.
    pub wall: Timestamp,
    /// Counter of its stamp.
    pub counter: u32,
    /// Hash of its bytes.
    pub hash: RecordHash,
}

type ItemOnWire = (KeyHash, u16, u64, Timestamp, u32, RecordHash);

impl From<ItemOnWire> for Item {
    fn from((key, slot, generation, wall, counter, hash): ItemOnWire) -> Item {
        Item { key, slot, generation, wall, counter, hash }
    }
}

impl From<Item> for ItemOnWire {
    fn from(Item { key, slot, generation, wall, counter, hash }: Item) -> ItemOnWire {
        (key, slot, generation, wall, counter, hash)
    }
}

/// A request with what every request of a conversation repeats, so that the answering side keeps no state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncFrame {
    /// The registry.
    pub zone: ZoneId,
    /// Which records the fingerprints cover.
    pub as_of: Timestamp,
    /// The question.
    pub request: SyncRequest,
}

impl Envelope {
    /// Bytes for the mesh.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a gossip message of bounded size.
    pub fn decode(bytes: &[u8]) -> Result<Envelope, Malformed> {
        if bytes.len() > GOSSIP_BYTES_MAX { Err(Malformed) } else { codec::decode(bytes) }
    }
}

/// What a beacon says of its author: all that is remembered of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Who speaks.
    pub author: Author,
    /// Greater than in every earlier beacon of the author.
    pub counter: u64,
    /// The author's clock.
    pub clock: Timestamp,
    /// Milliseconds until its next beacon; 0 says goodbye.
    pub interval_ms: u64,
    /// Its last version in the zone.
    pub seq: u64,
    /// Whether it may be a gateway of the zone.
    pub gateway: Gateway,
    /// What people call the author.
    pub name: Option<NodeName>,
}

/// A beacon that came. Clones share one judgement of its signature, which is made only if it is asked for: a stale beacon
/// costs no verification.
#[derive(Clone, Debug)]
pub struct SignedBeacon(Arc<ParsedBeacon>);

#[derive(Debug)]
struct ParsedBeacon {
    beacon: Beacon,
    heartbeat: Arc<Heartbeat>,
    signed: ByteBuf,
    verified: OnceLock<bool>,
}

/// A gossip message that was read.
#[derive(Clone, Debug)]
pub enum Message {
    /// Bytes that claim to be records.
    Records(Arc<[ByteBuf]>),
    /// A beacon, if it is one.
    Beacon(Result<SignedBeacon, Malformed>),
}

impl Message {
    /// Reads a gossip message of bounded size.
    pub fn read(bytes: &[u8]) -> Result<Message, Malformed> {
        Ok(match Envelope::decode(bytes)? {
            Envelope::Records(records) => Message::Records(records.into()),
            Envelope::Beacon(signed) => Message::Beacon(SignedBeacon::read(signed)),
        })
    }
}

impl SignedBeacon {
    pub(super) fn read(signed: ByteBuf) -> Result<SignedBeacon, Malformed> {
        let beacon = Beacon::read(&signed)?;
        let heartbeat = Arc::new(beacon.heartbeat());
        Ok(SignedBeacon(Arc::new(ParsedBeacon { beacon, heartbeat, signed, verified: OnceLock::new() })))
    }

    /// What was read.
    pub fn beacon(&self) -> &Beacon {
        &self.0.beacon
    }

    /// What it says of its author.
    pub fn heartbeat(&self) -> &Arc<Heartbeat> {
        &self.0.heartbeat
    }

    /// The bytes, with their signature before them.
    pub(super) fn bytes(&self) -> &ByteBuf {
        &self.0.signed
    }

    /// Whether its author signed it, with the keys met before.
    pub fn is_signed(&self, keys: &mut Keys) -> bool {
        *self.0.verified.get_or_init(|| self.0.beacon.is_signed_with(&self.0.signed, keys))
    }
}

impl Heartbeat {
    /// Key of the node that speaks.
    pub fn peer(&self) -> PeerKey {
        self.author.key
    }

    /// Whether the author says goodbye.
    pub fn is_goodbye(&self) -> bool {
        self.interval_ms == 0
    }
}

impl Beacon {
    /// What it says of its author.
    pub fn heartbeat(&self) -> Heartbeat {
        let Beacon { author, counter, clock, interval_ms, seq, gateway, .. } = *self;
        Heartbeat { author, counter, clock, interval_ms, seq, gateway, name: self.name.clone() }
    }

    /// Signs it.
    pub fn sign(&self, author: &Identity) -> ByteBuf {
        let content = codec::encode(self);
        ByteBuf::from([&author.sign(BEACON_DOMAIN, &content)[..], &content[..]].concat())
    }

    /// Reads a beacon without judging its signature, so that a stale one costs no verification.
    pub fn read(signed: &[u8]) -> Result<Beacon, Malformed> {
        // Before decoding: a beacon is the cheapest message there is, and strangers may send many.
        if signed.len() > BEACON_BYTES_MAX {
            return Err(Malformed);
        }
        codec::decode(signed.get(64..).ok_or(Malformed)?)
    }

    /// Whether its author signed these bytes.
    pub fn is_signed(&self, signed: &[u8]) -> bool {
        self.is_signed_with(signed, &mut Keys::default())
    }

    fn is_signed_with(&self, signed: &[u8], keys: &mut Keys) -> bool {
        let Some((signature, content)) = signed.split_first_chunk::<64>() else { return false };
        keys.verify(&self.author.key, BEACON_DOMAIN, content, signature)
    }
}

impl SyncFrame {
    /// Bytes for the stream.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a request of bounded size and count.
    pub fn decode(bytes: &[u8]) -> Result<SyncFrame, Malformed> {
        decode_frame(bytes)
    }
}

impl SyncAnswer {
    /// Bytes for the stream.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads an answer of bounded size.
    pub fn decode(bytes: &[u8]) -> Result<SyncAnswer, Malformed> {
        decode_frame(bytes)
    }
}

fn decode_frame<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    if bytes.len() > SYNC_FRAME_BYTES_MAX { Err(Malformed) } else { codec::decode(bytes) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_beacon_is_small_and_counts_only_as_signed() {
        let identity = Identity::from_seed([1; 32]);
        let beacon = Beacon {
            network: "world".into(),
            zone: ZoneName::root(),
            author: Author { key: identity.key(), epoch: u64::MAX },
            counter: u64::MAX,
            clock: Timestamp(1_700_000_000_000),
            interval_ms: 25_000,
            seq: 20_000,
            gateway: Gateway::Never,
            name: "atlas".parse().ok(),
        };
        let mut signed = beacon.sign(&identity).into_vec();
        assert!(signed.len() < 220, "{}", signed.len());
        assert_eq!(Beacon::read(&signed), Ok(beacon.clone()));
        assert!(beacon.is_signed(&signed));
        let last = signed.len() - 1;
        signed[last] ^= 1;
        assert!(!beacon.is_signed(&signed));
    }

    #[test]
    fn more_is_not_asked_at_once_than_one_answer_may_cost() {
        let is_read = |leaves: &[Prefix]| {
            let request = SyncRequest::Items { leaves: leaves.to_vec(), after: None };
            SyncFrame::decode(
                &SyncFrame { zone: ZoneId::open(ZoneName::root()), as_of: Timestamp(0), request }.encode(),
            )
            .is_ok()
        };
        let below = |prefixes: Vec<Prefix>| -> Vec<Prefix> {
            prefixes.into_iter().flat_map(|prefix| prefix.children()).collect()
        };
        let leaves = (0..3).fold(vec![Prefix::ROOT], |prefixes, _| below(prefixes));
        assert!(is_read(&leaves[..SYNC_ASK_MAX]) && !is_read(&leaves[..SYNC_ASK_MAX + 1]));
        // Nor anything twice.
        assert!(!is_read(&[leaves[7], leaves[7]]) && !is_read(&[leaves[8], leaves[7]]));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Envelope::decode(&bytes);
            let _ = Beacon::read(&bytes);
            let _ = SyncFrame::decode(&bytes);
            let _ = SyncAnswer::decode(&bytes);
        }
    }
}
