//! Strangers at the doors of a node: silent sockets, crowds of identities, silent streams, addresses of somebody else. Each keeps
//! nobody out, and gets what its limit says.

use std::collections::BTreeSet;
use std::time::Duration;

use aop::net::addresses::peer_id;
use aop::net::peers::INBOUND_MAX;
use aop::net::refusals::Reason;
use aop::net::streams::SYNC_LIMITS;
use aop::net::swarm::{Discovery, Network, NetworkEvent, NetworkOptions};
use aop::net::transport::transport;
use aop::proto::address_block::TrustedNets;
use aop::proto::identity::{Identity, PeerKey};
use aop::proto::io::Protocol;
use aop::proto::name::ZoneName;
use futures::StreamExt;
use futures::future::join_all;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol as Part;
use libp2p::swarm::Swarm;
use libp2p::{Multiaddr, PeerId, identify};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::strangers::{RawPeer, SYNC, door, knock, polled, socket_of, swarm};

/// Far more than anything takes on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Within this time whoever is honest gets in, whoever else is there.
const WELCOME: Duration = Duration::from_secs(20);

/// A node that answers every request with itself, until it is dropped.
struct Node {
    key: PeerKey,
    address: Multiaddr,
    tasks: tokio::sync::mpsc::Sender<Task>,
}

type Task = Box<dyn FnOnce(&mut Network) + Send>;

impl Node {
    async fn start(seed: u8, trusted_nets: TrustedNets, bootstrap: Vec<Multiaddr>) -> Node {
        let options = NetworkOptions {
            identity: Identity::from_seed([seed; 32]),
            network: "test".into(),
            zones: vec![aop::proto::name::ZoneId::open(ZoneName::root())],
            bootstrap,
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            announce: Vec::new(),
            peers_file: None,
            trusted_nets,
            discovery: Discovery::Dht,
            reach: Default::default(),
        };
        let key = options.identity.key();
        let transport = transport(&options.keypair().unwrap()).unwrap();
        let mut network = Network::new(options, transport).unwrap();
        let address = network.listening().await.remove(0);
        let (tasks, mut asked) = tokio::sync::mpsc::channel::<Task>(16);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    event = network.next() => if let NetworkEvent::Request(request) = event {
                        _ = request.reply.send(request.bytes);
                    },
                    task = asked.recv() => match task {
                        Some(task) => task(&mut network),
                        None => return,
                    },
                }
            }
        });
        Node { key, address, tasks }
    }

    async fn with<T: Send + 'static>(&self, task: impl FnOnce(&mut Network) -> T + Send + 'static) -> T {
        let (sender, receiver) = oneshot::channel();
        let task: Task = Box::new(move |network| _ = sender.send(task(network)));
        self.tasks.send(task).await.ok().unwrap();
        receiver.await.unwrap()
    }

    async fn refused(&self, reason: Reason) -> u64 {
        self.with(move |network| network.traffic().refused.get(&reason).copied().unwrap_or(0)).await
    }

    async fn until(&self, what: &str, is: impl Fn(&mut Network) -> bool + Clone + Send + 'static) {
        let reached = async {
            while !self.with(is.clone()).await {
                // Nothing tells of sizes; they are looked at.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    async fn is_joined(&self, to: &Node) -> bool {
        let key = to.key;
        let joined = self.until("joined", move |network| network.peers().any(|peer| peer.key == key));
        timeout(WELCOME, joined).await.is_ok()
    }
}

/// An identity that says who it is, and nothing more.
fn stranger() -> Swarm<identify::Behaviour> {
    swarm(Keypair::generate_ed25519(), |keypair| {
        identify::Behaviour::new(identify::Config::new("/aop/test/1".into(), keypair.public()))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_gets_in_beside_a_thousand_silent_sockets_trusted_or_not() {
    for (trusted, reason) in
        [(TrustedNets::default(), Reason::HandshakePlaces), (TrustedNets::NONE, Reason::HandshakeShare)]
    {
        let node = Node::start(1, trusted, Vec::new()).await;
        let mut sockets = JoinSet::new();
        for _ in 0..1_000 {
            sockets.spawn(knock([127, 0, 1, 1], socket_of(&node.address)));
        }
        node.until("crowded", move |network| network.traffic().refused.contains_key(&reason)).await;
        let joiner = Node::start(2, TrustedNets::default(), vec![node.address.clone()]).await;
        assert!(joiner.is_joined(&node).await, "{reason:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_and_a_peer_of_the_configuration_get_in_beside_as_many_identities_as_there_are_places() {
    let (named, joiner) = (Identity::from_seed([3; 32]), 2);
    let named_id = peer_id(&named.key()).unwrap();
    // It is not there yet, and its address is nobody's.
    let unreachable: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
    let node = Node::start(1, TrustedNets::default(), vec![unreachable.with(Part::P2p(named_id))]).await;
    for _ in 0..INBOUND_MAX {
        let mut stranger = stranger();
        stranger.dial(node.address.clone()).unwrap();
        polled(stranger);
    }
    node.until("full", |network| network.traffic().connections >= INBOUND_MAX).await;
    let joiner = Node::start(joiner, TrustedNets::default(), vec![node.address.clone()]).await;
    assert!(joiner.is_joined(&node).await);
    let named = Node::start(3, TrustedNets::default(), vec![node.address.clone()]).await;
    assert!(named.is_joined(&node).await);
    assert!(node.refused(Reason::ConnectionReplaced).await >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_is_served_beside_silent_conversations_that_hold_every_place() {
    let node = Node::start(1, TrustedNets::default(), Vec::new()).await;
    let mut held = Vec::new();
    for seed in 0..SYNC_LIMITS.served_max / SYNC_LIMITS.served_per_peer_max {
        let rogue = RawPeer::connect(SYNC, 100 + seed as u8, node.key, node.address.clone()).await;
        for _ in 0..SYNC_LIMITS.served_per_peer_max {
            held.push(rogue.converse().await);
        }
    }
    let joiner = Node::start(2, TrustedNets::default(), vec![node.address.clone()]).await;
    assert!(joiner.is_joined(&node).await);
    let client = joiner.with(|network| network.request_client(Protocol::Sync)).await;
    let key = node.key;
    let asked = async { client.open(key).await.unwrap().request(b"x".to_vec()).await.unwrap() };
    assert_eq!(timeout(WELCOME, asked).await.unwrap(), b"x");
    assert!(node.refused(Reason::StreamIdle).await >= 1);
    drop(held);
}

/// A peer that names a victim's address eight times, says that it was restarted, and comes back, fifty times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_names_a_victims_address_makes_nobody_knock_there() {
    let node = Node::start(1, TrustedNets::default(), Vec::new()).await;
    let (address, knocks) = door().await;
    let keypair = Keypair::generate_ed25519();
    for round in 0..50 {
        let run = |agent: String| {
            let mut rogue = swarm(keypair.clone(), |keypair| {
                let config = identify::Config::new("/aop/test/1".into(), keypair.public());
                identify::Behaviour::new(config.with_agent_version(agent))
            });
            for _ in 0..8 {
                rogue.add_external_address(address.clone());
            }
            rogue.dial(node.address.clone()).unwrap();
            tokio::spawn(async move { while rogue.next().await.is_some() {} })
        };
        let both = [run(format!("x/{round}")), run(format!("y/{round}"))];
        let id = PeerId::from(keypair.public());
        node.until("met", move |network| {
            let met =
                network.peers().find(|peer| peer_id(&peer.key) == Some(id)).map(|peer| peer.agent.clone());
            met.is_none_or(|agent| !agent.is_empty())
        })
        .await;
        both.iter().for_each(|run| run.abort());
    }
    assert!(*knocks.borrow() <= 2, "{}", *knocks.borrow());
}

/// The mesh of a node is full of peers that forward nothing: what is written at it reaches everybody at once all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_writes_reaches_peers_outside_of_its_mesh_at_once() {
    let node = Node::start(1, TrustedNets::default(), Vec::new()).await;
    let peers: Vec<Node> =
        join_all((2..16).map(|seed| Node::start(seed, TrustedNets::default(), vec![node.address.clone()])))
            .await;
    let all: BTreeSet<PeerKey> = peers.iter().map(|peer| peer.key).collect();
    let count = all.len();
    node.until("all of them are in the zone", move |network| {
        let root = ZoneName::root();
        network.peers().filter(|peer| peer.zones.contains(&root)).count() >= count
    })
    .await;
    let before =
        join_all(peers.iter().map(|peer| peer.with(|network| network.traffic().gossip_received))).await;
    node.with(|network| network.publish(&ZoneName::root(), b"news".to_vec())).await;
    let began = tokio::time::Instant::now();
    for (peer, before) in peers.iter().zip(before) {
        peer.until("heard", move |network| network.traffic().gossip_received > before).await;
    }
    // Lazy repair waits for a heartbeat, sync for longer.
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
}
