//! A zone with a key: what hosts without its word write there, and what they say of it above, counts nowhere.

use std::time::Duration;

use aop::api::FindQuery;
use aop::host::{self, Options, Running};
use aop::proto::codec;
use aop::proto::identity::Identity;
use aop::proto::limits::DELEGATION_LIFE;
use aop::proto::name::{ZoneId, ZoneName};
use aop::proto::record::{Delegation, Header, RecordKind, SignedRecord};
use libp2p::Multiaddr;
use serde_bytes::ByteBuf;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::attacker::{Attacker, header, message, signed};
use super::victim::{PATIENCE, alone, offer};
use crate::strangers::granted;

const DAY: Duration = Duration::from_secs(86_400);
/// How long a node is watched that may believe something later.
const WATCHED: Duration = Duration::from_secs(8);

fn key() -> Identity {
    Identity::from_seed([200; 32])
}

fn zone() -> ZoneName {
    "other.net".parse().unwrap()
}

async fn start(seed: u8, zone_name: &ZoneName, bootstrap: Vec<Multiaddr>) -> (Running, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity::from_seed([seed; 32]);
    let mut options = Options::new(identity, "test", folder.path());
    options.zones = vec![zone_name.clone()];
    options.bootstrap = bootstrap;
    options.zone_keys.insert(zone(), key().key());
    let grant = granted(&key(), options.identity.key(), &zone(), DAY);
    options.delegation_grants.insert(zone(), vec![grant]);
    (host::start(options).await.unwrap(), folder)
}

/// A card of a host in the zone, with these grants.
fn card(host: &Identity, grants: Vec<ByteBuf>) -> SignedRecord {
    let header = header(host, "forced", 1);
    signed(Header { zone: zone(), owner: key().key(), grants, ..header }, host)
}

/// What a host says of a zone in one above it, with these grants.
fn delegation(
    host: &Identity,
    (named, above): (&ZoneName, &ZoneName),
    slot: u16,
    grants: Vec<ByteBuf>,
) -> SignedRecord {
    let of = header(host, "x", 1);
    let header = Header {
        zone: above.clone(),
        kind: RecordKind::Delegation,
        name: named.delegated_in(above).unwrap(),
        owner: if grants.is_empty() { host.key() } else { key().key() },
        seq: 0,
        slot,
        expires_at: of.stamp.wall + DELEGATION_LIFE,
        grants,
        ..of
    };
    let body = Delegation { zone: named.clone(), addresses: Vec::new() };
    SignedRecord::sign(header, &codec::encode(&body), host).unwrap()
}

async fn refused(node: &Running) -> u64 {
    node.handle.status().await.unwrap().refused.values().sum()
}

/// What a node shows of the world, and which zones it knows.
async fn seen(node: &Running) -> (Vec<String>, bool, Vec<(String, Option<String>)>) {
    let query = FindQuery { max_age_ms: Some(0), ..FindQuery::default() };
    let answer = node.handle.find(query).await.unwrap();
    let zones = node.handle.zones().await.unwrap().zones;
    let zones = zones.into_iter().map(|zone| (zone.zone, zone.key)).collect();
    (answer.results.into_iter().map(|found| found.agent).collect(), answer.complete, zones)
}

/// A node of the root and two of the zone, whole, with one agent.
async fn world() -> Vec<(Running, TempDir)> {
    let (root, root_folder) = start(71, &ZoneName::root(), Vec::new()).await;
    let bootstrap = vec![root.listen[0].clone()];
    let (host, host_folder) = start(72, &zone(), bootstrap.clone()).await;
    let guest = start(73, &zone(), bootstrap).await;
    let grant = granted(&key(), host.handle.key(), &zone(), DAY);
    let welcome = aop::document::Offer { grants: vec![grant.into_vec()], ..offer("welcome") };
    host.handle.register(None, vec![welcome]).await.unwrap().remove(0).unwrap();
    let nodes = vec![(root, root_folder), (host, host_folder), guest];
    let whole = async {
        for (node, _) in &nodes {
            while !matches!(seen(node).await, (agents, true, _) if agents == ["welcome@other.net"]) {
                sleep(Duration::from_millis(100)).await;
            }
        }
    };
    timeout(PATIENCE * 3, whole).await.expect("the world is whole");
    nodes
}

/// Says it in the mesh of a zone and stays until the node has refused it.
async fn force(attacker: &mut Attacker, node: &Running, record: &SignedRecord) {
    let before = refused(node).await;
    attacker.say([message(record.bytes().to_vec())]).await;
    let is_refused = async {
        while refused(node).await == before {
            sleep(Duration::from_millis(50)).await;
        }
    };
    // Whoever is cut off for it was refused as well.
    let ended = timeout(PATIENCE, attacker.linger(is_refused)).await;
    assert!(ended.is_ok() && refused(node).await > before, "not refused: {record:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_without_the_word_of_a_zones_key_write_nothing_there_and_name_it_in_vain() {
    let _alone = alone().await;
    let nodes = world().await;
    let mut known = Vec::new();
    for (node, _) in &nodes {
        known.push(seen(node).await.2);
    }
    let own = Identity::from_seed([80; 32]);
    let of = |by: &Identity, to: &Identity| granted(by, to.key(), &zone(), DAY);
    let inside = ZoneId { zone: zone(), key: Some(key().key()) };
    let (root, below): (ZoneName, ZoneName) = (ZoneName::root(), "x.other.net".parse().unwrap());
    let forged = |host: &Identity| {
        vec![
            card(host, Vec::new()),
            card(host, vec![of(&own, host)]),
            card(host, vec![of(&key(), &own)]),
            card(host, vec![granted(&key(), host.key(), &below, DAY)]),
            delegation(host, (&below, &zone()), 0, vec![of(&own, host)]),
        ]
    };
    // Each by a stranger of its own: who is caught once is cut off.
    let mut seed = 100;
    for (node, _) in &nodes[1..] {
        for number in 0..forged(&own).len() {
            seed += 1;
            let record = forged(&Identity::from_seed([seed; 32])).swap_remove(number);
            let (key, address) = (node.handle.key(), node.listen[0].clone());
            let mut attacker = Attacker::join_zone(&inside, seed, key, address).await;
            force(&mut attacker, node, &record).await;
        }
    }
    // In the root, which is open, anybody may name it; nobody who knows its key follows that.
    let top = &nodes[0].0;
    let mut attacker = Attacker::join(99, top.handle.key(), top.listen[0].clone()).await;
    let held = async || top.handle.status().await.unwrap().zones[0].records;
    let before = held().await;
    for (slot, named) in [&zone(), &below].into_iter().enumerate() {
        let claim = delegation(&attacker.identity, (named, &root), slot as u16, Vec::new());
        attacker.say([message(claim.bytes().to_vec())]).await;
    }
    let are_held = async {
        while held().await < before + 2 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, attacker.linger(are_held)).await.expect("the claims are held");
    let forced = delegation(&attacker.identity, (&zone(), &root), 0, vec![of(&own, &attacker.identity)]);
    force(&mut attacker, top, &forced).await;
    sleep(WATCHED).await;
    for ((node, _), known) in nodes.iter().zip(known) {
        assert_eq!(seen(node).await, (vec!["welcome@other.net".to_owned()], true, known));
        assert!(node.handle.show("forced@other.net").await.is_err());
    }
    for (node, _folder) in nodes.into_iter().rev() {
        node.stop().await.unwrap();
    }
}
