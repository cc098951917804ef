//! Peers that serve the DHT of the network and lie there: whatever they are asked, they name hosts that are not there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use libp2p::identity::Keypair;
use libp2p::kad::store::{MemoryStore, RecordStore};
use libp2p::kad::{self, InboundRequest, ProviderRecord, RecordKey};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, identify};
use sha2::{Digest, Sha256};
use tokio::sync::broadcast;

use crate::strangers::swarm;

/// More than there are nodes, and than a record of a provider has copies: all of those nearest to a key may be liars.
const LIARS: u8 = 20;
/// Hosts that are not there, of each zone and in each table.
const GHOSTS: usize = 20;

#[derive(NetworkBehaviour)]
struct Liar {
    identify: identify::Behaviour,
    kad: kad::Behaviour<MemoryStore>,
}

/// All of them.
pub(super) struct Liars {
    dial: broadcast::Sender<Multiaddr>,
    asked: Arc<AtomicUsize>,
}

impl Liars {
    /// They lie about the zones with these topics.
    pub(super) async fn start(topics: &[String]) -> Liars {
        let (dial, _) = broadcast::channel(64);
        let liars = Liars { dial, asked: Arc::default() };
        let mut others: Vec<(PeerId, Multiaddr)> = Vec::new();
        for _ in 0..LIARS {
            let mut liar = liar(topics, &others);
            liar.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
            let address = loop {
                if let SwarmEvent::NewListenAddr { address, .. } = liar.select_next_some().await {
                    break address;
                }
            };
            others.push((*liar.local_peer_id(), address));
            tokio::spawn(lie(liar, liars.dial.subscribe(), liars.asked.clone()));
        }
        liars
    }

    /// All of them connect with a node.
    pub(super) fn meet(&self, address: Multiaddr) {
        self.dial.send(address).unwrap();
    }

    /// How often they were asked who serves a zone, or who is near some place.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn liar(topics: &[String], others: &[(PeerId, Multiaddr)]) -> Swarm<Liar> {
    let mut swarm = swarm(Keypair::generate_ed25519(), |keypair| {
        let id = keypair.public().to_peer_id();
        let mut config = kad::Config::new(StreamProtocol::new("/aop/test/kad/1"));
        // What honest nodes provide is kept by none of them.
        config.set_record_filtering(kad::StoreInserts::FilterBoth);
        let mut kad = kad::Behaviour::with_config(id, MemoryStore::new(id), config);
        kad.set_mode(Some(kad::Mode::Server));
        Liar {
            identify: identify::Behaviour::new(identify::Config::new("/aop/test/1".into(), keypair.public())),
            kad,
        }
    });
    let nowhere: Multiaddr = "/ip4/127.0.0.1/tcp/9".parse().unwrap();
    let kad = &mut swarm.behaviour_mut().kad;
    for topic in topics {
        for _ in 0..GHOSTS {
            let key = RecordKey::new(&Sha256::digest(topic));
            let record = ProviderRecord::new(key, PeerId::random(), vec![nowhere.clone()]);
            kad.store_mut().add_provider(record).unwrap();
        }
    }
    for (other, address) in others {
        kad.add_address(other, address.clone());
    }
    for _ in 0..GHOSTS {
        kad.add_address(&PeerId::random(), nowhere.clone());
    }
    swarm
}

async fn lie(mut liar: Swarm<Liar>, mut dial: broadcast::Receiver<Multiaddr>, asked: Arc<AtomicUsize>) {
    loop {
        tokio::select! {
            event = liar.select_next_some() => {
                let SwarmEvent::Behaviour(LiarEvent::Kad(kad::Event::InboundRequest { request })) = event else {
                    continue;
                };
                if let InboundRequest::GetProvider { .. } | InboundRequest::FindNode { .. } = request {
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(address) = dial.recv() => drop(liar.dial(address)),
            else => return,
        }
    }
}
