//! What a member of one zone sends and reads does not grow with the number of other zones.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aop::api::FindQuery;
use aop::proto::message::Gateway;
use aop::proto::name::ZoneName;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::world::{Site, offer, quick, until};

/// How long bytes are counted: some rounds of everything that a member does by itself.
const COUNTED: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_reads_and_sends_as_much_beside_fifty_zones_as_beside_five() {
    let (few, many) = tokio::join!(traffic_beside(5, 50), traffic_beside(50, 80));
    println!("beside 5 zones {few} bytes, beside 50 {many}");
    assert!(few > 1_000, "{few} bytes: nothing was counted");
    let ratio = many as f64 / few as f64;
    assert!((0.8..=1.2).contains(&ratio), "{few} and {many} bytes");
}

/// Who serves the other zones.
const PEERS: usize = 5;

/// Bytes between a member of acme.org and everybody else while so many other zones are served.
async fn traffic_beside(zones: usize, seed: u8) -> u64 {
    let site = |name, at, zone| Site::new(name, seed + at, zone, quick()).without_dht();
    let root = site("r1", 0, ".").started().await;
    let mut others = Vec::new();
    for number in 0..PEERS {
        let names = move || {
            (0..zones / PEERS).map(move |at| format!("z{number}x{at}.net").parse::<ZoneName>().unwrap())
        };
        let site = site("z", 10 + number as u8, ".").with(move |options| options.zones = names().collect());
        let site = site.knowing(&[&root]).started().await;
        for zone in names() {
            let registered = site.handle().register(Some(zone), vec![offer("there")]).await.unwrap();
            assert!(registered[0].is_ok());
        }
        others.push(site);
    }
    let gateway = site("a1", 2, "acme.org").with(|options| options.gateway = Gateway::First);
    let gateway = gateway.knowing(&[&root]).started().await;
    gateway.register(vec![offer("mine")]).await;
    let bytes = Arc::new(AtomicU64::new(0));
    let member = site("a2", 3, "acme.org").with(|options| options.gateway = Gateway::Never);
    let member = member.at(counted(gateway.address(), bytes.clone()).await).started().await;
    // The member itself asks nothing: that would lead it to others, past the counter.
    until("the world is whole", Duration::from_secs(60), async || {
        let own = member.find(FindQuery { local: true, ..FindQuery::default() }).await;
        let seen = gateway.everything().await;
        let is_whole = own.complete && seen.complete && seen.agents.len() == zones + 1;
        if is_whole { Ok(()) } else { Err(format!("{:?} {:?}", own.zones, seen.zones)) }
    })
    .await;
    let before = bytes.load(Ordering::Relaxed);
    sleep(COUNTED).await;
    assert_eq!(member.handle().peers().await.unwrap().peers.len(), 1, "all of it was counted");
    bytes.load(Ordering::Relaxed) - before
}

/// An address that leads to another and counts what passes, both ways.
async fn counted(to: Multiaddr, bytes: Arc<AtomicU64>) -> Multiaddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own_port = listener.local_addr().unwrap().port();
    let port = to.iter().find_map(|part| if let Protocol::Tcp(port) = part { Some(port) } else { None });
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(("127.0.0.1", port.unwrap())).await.unwrap();
            let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
            tokio::spawn(pass(near_read, far_write, bytes.clone()));
            tokio::spawn(pass(far_read, near_write, bytes.clone()));
        }
    });
    let other = |part| if let Protocol::Tcp(_) = part { Protocol::Tcp(own_port) } else { part };
    to.iter().map(other).collect()
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, bytes: Arc<AtomicU64>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        bytes.fetch_add(count as u64, Ordering::Relaxed);
    }
}
