//! What a full zone costs in memory: a node that holds a zone of a sixteenth of the greatest weight, with registry, tables
//! and index, counted byte by byte. Alone in its process, so that nothing else allocates meanwhile.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use aop::proto::card::{AgentCard, Scope};
use aop::proto::codec;
use aop::proto::config::Config;
use aop::proto::identity::Identity;
use aop::proto::io::{Command, Input};
use aop::proto::limits::{CARD_LIFE, SLOTS, TOMBSTONE_LIFE, ZONE_WEIGHT_MAX};
use aop::proto::name::{AgentName, ZoneName};
use aop::proto::node::Node;
use aop::proto::persistence::Stored;
use aop::proto::query::Find;
use aop::proto::record::{Author, Header, Record, RecordKind, SignedRecord};
use aop::proto::search::Query;
use aop::proto::time::{Stamp, Timestamp};
use peak_alloc::PeakAlloc;
use serde_bytes::ByteBuf;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const NOW: Timestamp = Timestamp(1_700_000_000_000);
/// What the zones of this test weigh: enough for what every node has to be nothing beside it, and signed in seconds.
const WEIGHT: usize = ZONE_WEIGHT_MAX / 16;
/// Records of one identity where a zone has few of them.
const OF_ONE_HOST: u64 = 5_000;

/// Records of one kind, as many as there is room for.
struct Fill {
    what: &'static str,
    /// Most bytes of memory for a byte of weight.
    times_max: f64,
    /// Records that one identity writes.
    of_one_host: u64,
    record: fn(Header) -> (Header, Vec<u8>),
}

/// The longest label that begins with a number.
fn long(at: u64) -> AgentName {
    format!("{at:x<63}").parse().unwrap()
}

fn buried(header: Header) -> Header {
    Header { expires_at: NOW + TOMBSTONE_LIFE, ..header }
}

fn tombstone(header: Header) -> (Header, Vec<u8>) {
    (buried(header), Vec::new())
}

/// As many bytes as a tombstone can have without grants, so that it weighs what a small one does.
fn long_tombstone(header: Header) -> (Header, Vec<u8>) {
    let (kind, name) = (RecordKind::Unknown(long(0)), long(header.seq));
    (Header { kind, name, ..buried(header) }, Vec::new())
}

/// Grants are not looked at here: what they say costs nobody memory.
fn tombstone_with_grants(header: Header) -> (Header, Vec<u8>) {
    let grants = vec![ByteBuf::from(vec![7; 275]); 6];
    (Header { grants, ..buried(header) }, Vec::new())
}

fn card_of(header: Header, bytes: usize) -> (Header, Vec<u8>) {
    // Words of a small vocabulary, as prose has them: the schema is not searched.
    let word = |at: u64| format!("word{} ", (at * at + header.seq * 31) % 5_000);
    let description = (0..bytes as u64 / 50).map(word).collect();
    let input_schema = Some("x".repeat(bytes - bytes / 5)).filter(|_| bytes > 0);
    let tags = vec![format!("tag{}", header.seq % 60)];
    let body = codec::encode(&AgentCard { description, tags, input_schema, ..AgentCard::default() });
    (header, body)
}

fn small_card(header: Header) -> (Header, Vec<u8>) {
    card_of(header, 0)
}

fn usual_card(header: Header) -> (Header, Vec<u8>) {
    card_of(header, 1_600)
}

fn large_record(header: Header) -> (Header, Vec<u8>) {
    let original = Some("x".repeat(47 * 1024));
    (header, codec::encode(&AgentCard { original, ..AgentCard::default() }))
}

fn worded_card(header: Header) -> (Header, Vec<u8>) {
    let description = (0..800).map(|at| format!("{:04x} ", (header.seq * 801 + at) % 65_536)).collect();
    (header, codec::encode(&AgentCard { description, ..AgentCard::default() }))
}

fn labelled_card(header: Header) -> (Header, Vec<u8>) {
    let tags = (0..64).map(|at| format!("{:x}", header.seq * 64 + at)).collect();
    (header, codec::encode(&AgentCard { tags, ..AgentCard::default() }))
}

fn signed(host: &Identity, number: u64, fill: &Fill) -> Arc<Record> {
    let header = Header {
        network: "world".into(),
        zone: ZoneName::root(),
        kind: RecordKind::Agent,
        name: format!("a{number}").parse().unwrap(),
        owner: host.key(),
        host: host.key(),
        author: Author { key: host.key(), epoch: 1 },
        seq: number + 1,
        stamp: Stamp { wall: NOW, counter: 0 },
        generation: 0,
        expires_at: NOW + CARD_LIFE,
        scope: Scope::Public,
        slot: (number % u64::from(SLOTS)) as u16,
        grants: Vec::new(),
    };
    let (header, body) = (fill.record)(header);
    SignedRecord::sign(header, &body, host).unwrap().trust_sealed()
}

fn host(number: u64) -> Identity {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    Identity::from_seed(seed)
}

/// Memory of a node that holds such records and was asked for them, and what they weigh, how many they are, their bytes.
fn measure(fill: &Fill) -> (usize, usize, usize, usize) {
    let before = ALLOCATOR.current_usage();
    let (mut stored, mut weight, mut bytes) = (Stored::default(), 0, 0);
    let mut writer = host(0);
    for number in 0.. {
        if number % fill.of_one_host == 0 {
            writer = host(number);
        }
        let record = signed(&writer, number, fill);
        weight += record.weight();
        bytes += record.bytes().len();
        if weight > WEIGHT {
            break;
        }
        stored.others.push(record);
    }
    let count = stored.others.len();
    let config = Config { network: "world".into(), ..Config::default() };
    let mut node = Node::new(Identity::from_seed([1; 32]), config, [3; 32], stored, NOW);
    let query = Query { text: "word1".into(), ..Query::default() };
    let command = Command::Find(Find { query, limit: 1, after: None, local: true });
    node.handle(NOW, Input::Command { id: 1, command });
    while node.poll_output().is_some() {}
    let memory = ALLOCATOR.current_usage() - before;
    drop(node);
    (memory, weight, count, bytes)
}

#[test]
#[cfg_attr(
    debug_assertions,
    ignore = "signs and indexes for minutes without optimisation; CI runs it with it"
)]
fn a_full_zone_takes_no_more_memory_than_the_operators_are_told() {
    let fill = |what, times_max, of_one_host, record| Fill { what, times_max, of_one_host, record };
    let fills = [
        fill("smallest tombstones", 1.5, OF_ONE_HOST, tombstone),
        fill("smallest tombstones, one of a host", 1.85, 1, tombstone),
        fill("longest tombstones without grants", 2.0, OF_ONE_HOST, long_tombstone),
        fill("tombstones of 2 KiB", 1.25, OF_ONE_HOST, tombstone_with_grants),
        fill("smallest cards", 1.7, OF_ONE_HOST, small_card),
        fill("smallest cards, one of a host", 1.9, 1, small_card),
        fill("cards of 2 KiB", 1.5, OF_ONE_HOST, usual_card),
        fill("records of 48 KiB", 1.05, OF_ONE_HOST, large_record),
        fill("cards of many words", 4.0, OF_ONE_HOST, worded_card),
        fill("cards of many labels", 23.0, OF_ONE_HOST, labelled_card),
    ];
    let mut beyond = Vec::new();
    for fill in fills {
        let (memory, weight, count, bytes) = measure(&fill);
        let times = memory as f64 / weight as f64;
        let (bytes, each) = (bytes / count, memory / count);
        println!(
            "{}: {count} of {bytes} bytes, {each} bytes of memory each, {times:.2} of the weight",
            fill.what
        );
        if times > fill.times_max {
            beyond.push((fill.what, times));
        }
    }
    assert!(beyond.is_empty(), "{beyond:?}");
}
