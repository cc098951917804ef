//! How nodes find each other again, and what they say of where they are: seeds that move, restarts, addresses, and peers of
//! the configuration that are not there.

use std::path::Path;
use std::time::Duration;

use aop::api::{Problem, Status};
use aop::host::{self, Options, Running};
use aop::net::peers::PEERS_LOW;
use aop::proto::identity::Identity;
use futures::future::join_all;
use libp2p::Multiaddr;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

/// Within this time a mesh that was whole is whole again.
const WHOLE: Duration = Duration::from_secs(15);
/// Far more than anything else takes on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);
const TCP: &str = "/ip4/127.0.0.1/tcp/0";

fn folders<const N: usize>() -> [TempDir; N] {
    std::array::from_fn(|_| TempDir::new().unwrap())
}

fn options(seed: u8, dir: &Path, bootstrap: &[Multiaddr]) -> Options {
    Options { bootstrap: bootstrap.to_vec(), ..Options::new(Identity::from_seed([seed; 32]), "test", dir) }
}

async fn start(seed: u8, dir: &Path, bootstrap: &[Multiaddr]) -> Running {
    host::start(options(seed, dir, bootstrap)).await.unwrap()
}

async fn status(node: &Running) -> Status {
    node.handle.status().await.unwrap()
}

async fn peers(node: &Running) -> Vec<String> {
    node.handle.peers().await.unwrap().peers.into_iter().map(|peer| peer.peer).collect()
}

/// Waits until something that nothing tells of is so.
async fn until(patience: Duration, what: &str, is_met: impl AsyncFn() -> bool) {
    let met = async {
        while !is_met().await {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(patience, met).await.unwrap_or_else(|_| panic!("not in {patience:?}: {what}"));
}

async fn until_whole(nodes: &[&Running]) {
    for node in nodes {
        let whole = async || peers(node).await.len() == nodes.len() - 1;
        until(WHOLE, "everybody is connected", whole).await;
    }
}

async fn problem(node: &Running, code: &str) -> Option<Problem> {
    status(node).await.problems.into_iter().find(|problem| problem.code.text() == code)
}

async fn until_problem(node: &Running, code: &str) -> Problem {
    until(PATIENCE, code, async || problem(node, code).await.is_some()).await;
    problem(node, code).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_that_moved_finds_those_whom_it_knew() {
    let [dir_a, dir_b, dir_c] = folders();
    let a = start(1, dir_a.path(), &[]).await;
    let seed = a.listen.clone();
    let (b, c) = (start(2, dir_b.path(), &seed).await, start(3, dir_c.path(), &seed).await);
    until_whole(&[&a, &b, &c]).await;
    a.stop().await.unwrap();
    let a = start(1, dir_a.path(), &[]).await;
    assert_ne!(a.listen, seed, "it has another port");
    until_whole(&[&a, &b, &c]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mesh_whose_seed_is_gone_is_whole_after_a_restart_of_all_others() {
    let [dir_a, dir_b, dir_c] = folders();
    let a = start(1, dir_a.path(), &[]).await;
    let seed = a.listen.clone();
    let (b, c) = (start(2, dir_b.path(), &seed).await, start(3, dir_c.path(), &seed).await);
    until_whole(&[&a, &b, &c]).await;
    let [at_b, at_c] = [&b, &c].map(|node| node.listen.clone());
    for node in [a, b, c] {
        node.stop().await.unwrap();
    }
    // Each at its old port, as services are.
    let again = |seed_of, dir: &TempDir, listen: &[Multiaddr]| {
        let listen = listen.iter().map(|address| address.iter().take(2).collect()).collect();
        host::start(Options { listen, ..options(seed_of, dir.path(), &seed) })
    };
    let (b, c) = (again(2, &dir_b, &at_b).await.unwrap(), again(3, &dir_c, &at_c).await.unwrap());
    until_whole(&[&b, &c]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_list_of_peers_is_passed_over_and_replaced() {
    for text in
        ["", "{\"version\":1}", "\0\0\0", "[1,2", "{\"version\":1,\"network\":\"other\",\"peers\":[]}"]
    {
        let [dir_a, dir_b] = folders();
        std::fs::write(dir_b.path().join("peers.json"), text).unwrap();
        let a = start(1, dir_a.path(), &[]).await;
        let b = start(2, dir_b.path(), &a.listen).await;
        until_whole(&[&a, &b]).await;
        b.stop().await.unwrap();
        let kept: Value =
            serde_json::from_slice(&std::fs::read(dir_b.path().join("peers.json")).unwrap()).unwrap();
        assert_eq!(kept["peers"][0]["peer"], status(&a).await.peer_id);
    }
}

/// It listens on many ports, and says all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_with_many_addresses_pushes_nobody_out_of_memory() {
    let [dir_a, dir_b, dir_loud] = folders();
    let a = start(1, dir_a.path(), &[]).await;
    let loud = Options { listen: vec![TCP.parse().unwrap(); 300], ..options(9, dir_loud.path(), &a.listen) };
    let loud = host::start(loud).await.unwrap();
    until_whole(&[&a, &loud]).await;
    let b = start(2, dir_b.path(), &a.listen).await;
    until_whole(&[&a, &b, &loud]).await;
    a.stop().await.unwrap();
    let kept: Value =
        serde_json::from_slice(&std::fs::read(dir_a.path().join("peers.json")).unwrap()).unwrap();
    let addresses: Vec<usize> = kept["peers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|peer| peer["addresses"].as_array().unwrap().len())
        .collect();
    assert_eq!(addresses.len(), 2, "{kept}");
    assert!(addresses.iter().all(|count| (1..=4).contains(count)), "{kept}");
    let a = start(1, dir_a.path(), &[]).await;
    until_whole(&[&a, &b, &loud]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_peer_that_is_not_there_stands_in_the_status_beside_one_that_is_until_it_comes() {
    let [dir_a, dir_b, dir_c] = folders();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let missing: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", gone.port()).parse().unwrap();
    let a = start(1, dir_a.path(), &[]).await;
    let b = start(2, dir_b.path(), &[a.listen[0].clone(), missing.clone()]).await;
    let told = until_problem(&b, "bootstrap_unreachable").await;
    assert_eq!(told.message, format!("bootstrap peer {missing} cannot be reached: connection refused"));
    assert!(told.since > 0 && told.degrades && told.fix.contains("check the address"));
    until_whole(&[&a, &b]).await;
    let later = until_problem(&b, "bootstrap_unreachable").await;
    assert_eq!(later.since, told.since);
    let c = host::start(Options { listen: vec![missing], ..options(3, dir_c.path(), &[]) }).await.unwrap();
    let over = async || problem(&b, "bootstrap_unreachable").await.is_none();
    until(PATIENCE, "it ends", over).await;
    assert!(peers(&b).await.contains(&status(&c).await.peer_id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_peer_and_another_network_at_a_bootstrap_address_are_named() {
    let [dir_a, dir_b, dir_c] = folders();
    let a = start(1, dir_a.path(), &[]).await;
    let (there, expected) = (Identity::from_seed([1; 32]).key(), Identity::from_seed([9; 32]).key());
    let place = a.listen[0].iter().take(2).fold(Multiaddr::empty(), Multiaddr::with);
    let wrong: Multiaddr = format!("{place}/p2p/{expected}").parse().unwrap();
    let b = start(2, dir_b.path(), &[wrong]).await;
    let told = until_problem(&b, "bootstrap_unreachable").await;
    assert!(told.message.ends_with(&format!("the node there is {there}")), "{}", told.message);
    assert!(told.fix.contains(&format!("/p2p/{there}")), "{}", told.fix);

    // The same of an address where the node itself listens, which is not even dialed.
    let own = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let own: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", own.port()).parse().unwrap();
    let listed = format!("{own}/p2p/{expected}").parse().unwrap();
    let [dir_d] = folders();
    let d = Options { listen: vec![own], ..options(4, dir_d.path(), &[listed]) };
    let d = host::start(d).await.unwrap();
    let told = until_problem(&d, "bootstrap_unreachable").await;
    let this = Identity::from_seed([4; 32]).key();
    assert!(told.message.ends_with(&format!("the node there is {this}")), "{}", told.message);

    let foreign = Options { network: "lab".into(), ..options(3, dir_c.path(), &a.listen) };
    let c = host::start(foreign).await.unwrap();
    let told = until_problem(&c, "other_network").await;
    assert!(told.degrades && told.message.contains("/aop/test/1"), "{}", told.message);
    assert!(told.fix.contains("--network test"), "{}", told.fix);
}

/// It takes the connection, and says nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_peer_that_never_speaks_is_given_up_and_told() {
    let [dir] = folders();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", silent.local_addr().unwrap().port());
    let node = start(1, dir.path(), &[address.parse().unwrap()]).await;
    let told = until_problem(&node, "bootstrap_unreachable").await;
    assert!(told.message.ends_with("timed out"), "{}", told.message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_on_all_interfaces_tells_every_address_at_once_and_loopback_last() {
    for _ in 0..5 {
        let [dir] = folders();
        let listen =
            ["/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1"].map(|text| text.parse().unwrap()).to_vec();
        let node = host::start(Options { listen, ..options(1, dir.path(), &[]) }).await.unwrap();
        sleep(Duration::from_millis(500)).await;
        assert_eq!(node.listen, *node.addresses.borrow(), "none came later");
        let is_loopback = |address: &Multiaddr| address.to_string().contains("/127.");
        let loopback = node.listen.iter().filter(|address| is_loopback(address)).count();
        assert!(
            loopback >= 2 && node.listen.iter().rev().take(loopback).all(is_loopback),
            "{:?}",
            node.listen
        );
        let status = status(&node).await;
        assert_eq!(status.listen, node.listen.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(status.join.unwrap(), format!("aop node --bootstrap {} --network test", node.listen[0]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_announced_comes_first_and_leads_to_the_node() {
    let [dir_a, dir_b] = folders();
    // As behind a router: the address that leads to the node is none of its sockets.
    let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let announced: Multiaddr =
        format!("/ip4/127.0.0.1/tcp/{}", door.local_addr().unwrap().port()).parse().unwrap();
    let a = Options { announce: vec![announced.clone()], ..options(1, dir_a.path(), &[]) };
    let a = host::start(a).await.unwrap();
    assert_eq!(a.listen[0].iter().take(2).fold(Multiaddr::empty(), Multiaddr::with), announced);
    let inside = a.listen[1].iter().nth(1).unwrap().to_string();
    let inside: u16 = inside.trim_start_matches("/tcp/").parse().unwrap();
    tokio::spawn(async move {
        while let Ok((mut outside, _)) = door.accept().await {
            let mut inside = tokio::net::TcpStream::connect(("127.0.0.1", inside)).await.unwrap();
            tokio::spawn(async move { _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await });
        }
    });
    let b = start(2, dir_b.path(), &a.listen[..1]).await;
    until_whole(&[&a, &b]).await;
    b.stop().await.unwrap();
    let kept = std::fs::read_to_string(dir_b.path().join("peers.json")).unwrap();
    assert!(kept.contains(&announced.to_string()), "{kept}");
}

/// Twice as many as a node looks for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_restarted_at_once_finds_everybody_again_without_the_seed() {
    let dirs: Vec<TempDir> = (0..2 * PEERS_LOW).map(|_| TempDir::new().unwrap()).collect();
    let [dir_seed] = folders();
    let seed = start(100, dir_seed.path(), &[]).await;
    let bootstrap = seed.listen.clone();
    let all = (1u8..).zip(&dirs).map(|(n, dir)| start(n, dir.path(), &bootstrap));
    let nodes = join_all(all).await;
    for node in &nodes {
        until(PATIENCE, "some peers", async || peers(node).await.len() >= 3).await;
    }
    let listen: Vec<Vec<Multiaddr>> = nodes.iter().map(|node| node.listen.clone()).collect();
    join_all(nodes.into_iter().map(Running::stop)).await;
    seed.stop().await.unwrap();
    let again = (1u8..).zip(&dirs).zip(listen).map(|((n, dir), listen)| {
        let listen = listen.iter().map(|address| address.iter().take(2).collect()).collect();
        host::start(Options { listen, ..options(n, dir.path(), &bootstrap) })
    });
    let nodes: Vec<Running> = join_all(again).await.into_iter().map(Result::unwrap).collect();
    for node in &nodes {
        until(WHOLE, "some peers again", async || peers(node).await.len() >= 3).await;
    }
}
