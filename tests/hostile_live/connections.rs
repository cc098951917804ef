//! Attacks by connections that say nothing, and by addresses of somebody else.

use std::time::Duration;

use aop::net::addresses::peer_id;
use aop::net::streams::SYNC_LIMITS;
use futures::StreamExt;
use libp2p::identity::Keypair;
use libp2p::kad::store::MemoryStore;
use libp2p::swarm::{NetworkBehaviour, Swarm};
use libp2p::{Multiaddr, PeerId, StreamProtocol, connection_limits, identify, kad};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::victim::{Victim, alone};
use crate::strangers::{RawPeer, SYNC, door, knock, socket_of, swarm};

/// Within this time a joiner is complete, whoever else is there.
const WELCOME: Duration = Duration::from_secs(20);
/// Knocks at a door that was named for any number of peers: once for one of them, and again for a peer whose answer may be lost.
const KNOCKS_MAX: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_joiner_is_complete_beside_silent_sockets_and_silent_conversations() {
    let _alone = alone().await;
    let victim = Victim::start(1, Vec::new()).await;
    for number in 0..50 {
        victim.register(&format!("before-{number}")).await;
    }
    let mut held = Vec::new();
    for seed in 0..SYNC_LIMITS.served_max / SYNC_LIMITS.served_per_peer_max {
        let peer = RawPeer::connect(SYNC, 100 + seed as u8, victim.node.handle.key(), victim.address()).await;
        for _ in 0..SYNC_LIMITS.served_per_peer_max {
            held.push(peer.converse().await);
        }
    }
    let mut sockets = JoinSet::new();
    for _ in 0..300 {
        sockets.spawn(knock([127, 0, 0, 1], socket_of(&victim.address())));
    }
    let refused = "aop_refused_total{reason=\"handshake_places\"}";
    victim.until("the door is crowded", async || victim.metric(refused).await > 0).await;
    let joiner = Victim::start(4, vec![victim.address()]).await;
    let complete = joiner.until("the joiner is complete", async || joiner.found().await.len() >= 50);
    timeout(WELCOME, complete).await.expect("a joiner is complete in seconds");
    // It was served itself, too: one that said nothing made room.
    let made_room = "aop_refused_total{reason=\"stream_idle\"}";
    victim.until("a silent conversation made room", async || victim.metric(made_room).await > 0).await;
    victim.register("meanwhile").await;
    drop((held, sockets));
    joiner.node.stop().await.unwrap();
    victim.node.stop().await.unwrap();
}

/// A peer of the DHT that names one address for hundreds of peers, and for itself.
#[derive(NetworkBehaviour)]
struct Namer {
    // It dials nobody itself: whoever knocks is sent.
    limits: connection_limits::Behaviour,
    identify: identify::Behaviour,
    kad: kad::Behaviour<MemoryStore>,
}

fn namer(named: &Multiaddr) -> Swarm<Namer> {
    let mut swarm = swarm(Keypair::generate_ed25519(), |keypair| {
        let id = keypair.public().to_peer_id();
        let none = connection_limits::ConnectionLimits::default().with_max_pending_outgoing(Some(0));
        let mut kad = kad::Behaviour::with_config(
            id,
            MemoryStore::new(id),
            kad::Config::new(StreamProtocol::new("/aop/test/kad/1")),
        );
        kad.set_mode(Some(kad::Mode::Server));
        for _ in 0..300 {
            kad.add_address(&PeerId::random(), named.clone());
        }
        let config = identify::Config::new("/aop/test/1".into(), keypair.public());
        Namer {
            limits: connection_limits::Behaviour::new(none),
            identify: identify::Behaviour::new(config),
            kad,
        }
    });
    swarm.add_external_address(named.clone());
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    swarm
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_named_for_hundreds_of_peers_is_knocked_at_a_few_times() {
    let _alone = alone().await;
    let (named, knocks) = door().await;
    let mut namer = namer(&named);
    let address = loop {
        if let libp2p::swarm::SwarmEvent::NewListenAddr { address, .. } = namer.select_next_some().await {
            break address.with_p2p(*namer.local_peer_id()).unwrap();
        }
    };
    let victim = Victim::start(1, vec![address]).await;
    let victim_id = peer_id(&victim.node.handle.key()).unwrap();
    let naming = async {
        loop {
            namer.select_next_some().await;
            namer.behaviour_mut().identify.push([victim_id]);
        }
    };
    let refused = "aop_refused_total{reason=\"dial_budget\"}";
    let knocked = || *knocks.borrow();
    let told = async {
        let is_told = async || victim.metric(refused).await >= 20 || knocked() > KNOCKS_MAX;
        victim.until("hundreds were named", is_told).await;
        victim.register("meanwhile").await;
    };
    tokio::select! {
        () = told => {}
        () = naming => {}
    }
    assert!(knocked() <= KNOCKS_MAX, "{}", knocked());
    victim.node.stop().await.unwrap();
}
