//! Records that were judged before a node was told of them change nothing of what it does.

use std::sync::Arc;
use std::time::Duration;

use aop::proto::ahead;
use aop::proto::config::Config;
use aop::proto::fingerprint;
use aop::proto::io::{GossipId, Input, Protocol, Received};
use aop::proto::message::{Envelope, SyncFrame, SyncRequest};
use aop::proto::name::{ZoneId, ZoneName};
use aop::proto::node::Node;
use aop::proto::persistence::Stored;
use aop::proto::record::{SignedRecord, verify_each, verify_together};
use aop::proto::time::Timestamp;
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_bytes::ByteBuf;

use crate::rules::cluster::{NOW, identity, key, signed};
use crate::rules::{body, header};

/// A record of an author as a peer sends it: whole, with a wrong byte, expired, of another zone, or no record at all.
fn sent(kind: u8, author: usize, agent: u8) -> Vec<u8> {
    let wall = if kind == 1 { NOW - Duration::from_secs(8 * 86_400) } else { NOW };
    let mut header = header(author, &format!("a{agent}"), wall);
    (header.seq, header.slot) = (u64::from(agent) + 1, u16::from(agent));
    if kind == 2 {
        header.zone = "acme.org".parse().unwrap();
    }
    let mut bytes = signed(header, &body("Summarises"), author).bytes().to_vec();
    match kind {
        3 => bytes[30] ^= 1,
        4 => bytes.truncate(80),
        _ => {}
    }
    bytes
}

fn node() -> Node {
    Node::new(identity(200), Config::default(), [7; 32], Stored::default(), NOW)
}

/// What a node does, as text, and what it counted.
fn done(node: &mut Node, now: Timestamp) -> Vec<String> {
    let mut outputs: Vec<String> =
        std::iter::from_fn(|| node.poll_output()).map(|it| format!("{it:?}")).collect();
    outputs.push(format!("{:?}", node.zone_states(now)));
    outputs
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_node_does_the_same_whether_records_were_judged_before_or_not(
        inputs in prop::collection::vec(
            (any::<bool>(), 0..3usize, prop::collection::vec((0..12u8, 0..2usize, 0..6u8), 1..8), 0..3u8), 1..8),
        seed in any::<u64>(),
    ) {
        let (mut alone, mut given) = (node(), node());
        prop_assert_eq!(done(&mut alone, NOW), done(&mut given, NOW));
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        for (number, (is_gossip, author, drawn, way)) in inputs.into_iter().enumerate() {
            let records: Vec<Vec<u8>> =
                drawn.into_iter().map(|(kind, other, agent)| sent(kind, author + other / 2, agent)).collect();
            let (peer, zone) = (key(100), ZoneName::root());
            let records: Vec<ByteBuf> = records.into_iter().map(ByteBuf::from).collect();
            let (input, read) = if is_gossip {
                let bytes = Envelope::Records(records).encode();
                let read = ahead::of_gossip(&bytes, "world");
                (Input::Gossip { id: GossipId([number as u8; 20]), peer, zone, bytes }, read)
            } else {
                let request = SyncRequest::Give { records, publish: true };
                let frame = SyncFrame { zone: ZoneId::open(zone), as_of: fingerprint::as_of(NOW), request };
                let bytes = frame.encode();
                let read = ahead::of_request(&bytes, "world");
                (Input::Request { id: number as u64, peer, protocol: Protocol::Sync, bytes }, read)
            };
            let read: Vec<SignedRecord> = match way {
                0 => { verify_together(&read, NOW, rng); read }
                1 => { verify_each(&read, NOW); read }
                // Whatever is handed over: what fits the input is used, and the rest is not.
                _ => { verify_together(&read, NOW, rng); read.into_iter().rev().skip(1).collect() }
            };
            alone.handle(NOW, input.clone());
            given.handle(NOW, Received { input, records: read });
            prop_assert_eq!(done(&mut alone, NOW), done(&mut given, NOW));
        }
    }
}

#[test]
fn rows_whose_seals_could_not_be_checked_are_taken_together_as_each_alone() {
    let kinds = [0, 3, 5, 4, 6, 1, 2, 3, 7];
    let records = kinds.iter().zip(0..).map(|(kind, agent)| sent(*kind, usize::from(agent) % 2, agent));
    let mut rows: Vec<(Vec<u8>, Vec<u8>)> = records
        .enumerate()
        .map(|(at, value)| (if at % 2 == 0 { vec![b'o', at as u8] } else { vec![b'r', at as u8] }, value))
        .collect();
    rows.insert(3, (b"e".to_vec(), 7_u64.to_be_bytes().to_vec()));
    rows.push((b"x".to_vec(), Vec::new()));
    let (mut alone, mut together) = (Stored::default(), Stored::default());
    let each: Vec<bool> =
        rows.iter().map(|(key, value)| alone.take_row(key, value, false, "world", NOW)).collect();
    let held: Vec<(&[u8], Arc<[u8]>)> =
        rows.iter().map(|(key, value)| (&key[..], value[..].into())).collect();
    let borrowed: Vec<(&[u8], &Arc<[u8]>)> = held.iter().map(|(key, value)| (*key, value)).collect();
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    assert_eq!(together.index_unsealed_rows(&borrowed, "world", NOW, rng), each);
    assert_eq!(each, [true, false, true, true, false, true, false, true, false, true, false]);
    assert_eq!((&together.own, &together.others, together.epoch), (&alone.own, &alone.others, Some(7)));
}
