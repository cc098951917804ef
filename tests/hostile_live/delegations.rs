//! Delegations of zones that nobody serves, at addresses where others are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aop::api::{FindQuery, Health};
use aop::host::{self, Options};
use aop::proto::card::Scope;
use aop::proto::codec;
use aop::proto::identity::Identity;
use aop::proto::limits::DELEGATION_LIFE;
use aop::proto::name::ZoneName;
use aop::proto::record::{Delegation, Header, RecordKind, SignedRecord};
use libp2p::Multiaddr;
use serde_bytes::ByteBuf;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use super::attacker::{Attacker, Ended, header, message};
use super::victim::{PATIENCE, Victim, alone};

/// Zones that are made up, each with a host of its own.
const ZONES: usize = 1_000;
/// How long dials are counted.
const COUNTED: Duration = Duration::from_secs(20);
/// How often one address may be dialed in that time, whoever names it.
const DIALS_MAX: usize = 30;

/// A zone that somebody claims to serve at `address`.
fn claim(number: usize, address: &Multiaddr) -> SignedRecord {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&(number as u64).to_be_bytes());
    let host = Identity::from_seed(seed);
    let zone: ZoneName = format!("z{number}").parse().unwrap();
    let named = header(&host, &format!("z{number}"), 1);
    let header = Header {
        kind: RecordKind::Delegation,
        seq: 0,
        slot: 0,
        scope: Scope::Public,
        expires_at: named.stamp.wall + DELEGATION_LIFE,
        ..named
    };
    let body = Delegation { zone, addresses: vec![ByteBuf::from(address.to_vec())] };
    SignedRecord::sign(header, &codec::encode(&body), &host).unwrap()
}

/// The port of somebody who has no part in it, and how often it was dialed.
async fn bystander() -> (Multiaddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port());
    let dialed = Arc::new(AtomicUsize::new(0));
    let counter = dialed.clone();
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    (address.parse().unwrap(), dialed)
}

#[tokio::test(flavor = "multi_thread")]
async fn made_up_zones_cost_few_dials_and_no_honest_zone_its_place() {
    let _alone = alone().await;
    let victim = Victim::start(61, Vec::new()).await;
    let (address, dialed) = bystander().await;
    let mut attacker = Attacker::join(62, victim.node.handle.key(), victim.address()).await;
    let claims: Vec<SignedRecord> = (0..ZONES).map(|number| claim(number, &address)).collect();
    let started = Instant::now();
    let ended = attacker.say(claims.iter().map(|claim| message(claim.bytes().to_vec()))).await;
    let known = async {
        while victim.node.handle.zones().await.unwrap().zones.len() < ZONES / 2 {
            sleep(Duration::from_millis(100)).await;
        }
    };
    let talking =
        tokio::spawn(async move { (ended == Ended::Said).then_some(attacker.linger(sleep(COUNTED)).await) });
    timeout(PATIENCE, known).await.expect("most of them are believed until they are tried");
    println!("known after {:?}", started.elapsed());

    let folder = tempfile::tempdir().unwrap();
    let honest = host::start(Options {
        zones: vec!["acme.org".parse().unwrap()],
        bootstrap: vec![victim.address()],
        ..Options::new(Identity::from_seed([63; 32]), "test", folder.path())
    });
    let honest = honest.await.unwrap();
    let offer = super::victim::offer("mine");
    honest.handle.register(None, vec![offer]).await.unwrap().remove(0).unwrap();
    let found = async {
        loop {
            let query = FindQuery { zone: Some("acme.org".into()), ..FindQuery::default() };
            let answer = victim.node.handle.find(query).await.unwrap();
            if answer.complete && answer.results.iter().any(|found| found.agent == "mine@acme.org") {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, found).await.expect("the honest zone is found");
    println!("the honest zone is found {:?} after the attack began", started.elapsed());

    sleep(COUNTED.saturating_sub(started.elapsed())).await;
    let zones = victim.node.handle.zones().await.unwrap().zones.len();
    let dials = dialed.load(Ordering::Relaxed);
    println!("{dials} dials for {zones} zones in {:?}; {:?}", started.elapsed(), talking.await.unwrap());
    assert!(dials <= DIALS_MAX, "{dials} dials");
    let status = victim.node.handle.status().await.unwrap();
    assert_eq!(status.health, Health::Ok, "{:?}", status.problems);
    victim.register("still-here").await;
    assert!(victim.found().await.contains(&"still-here@.".to_owned()));
    honest.stop().await.unwrap();
}
