//! A libp2p peer that is no node: it says in the mesh of a zone, and on streams, whatever it is given.

use std::time::Duration;

use aop::net::addresses::peer_id;
use aop::proto::card::{AgentCard, Scope};
use aop::proto::codec;
use aop::proto::identity::{Identity, PeerKey};
use aop::proto::limits::CARD_LIFE;
use aop::proto::message::{Beacon, Envelope, Gateway};
use aop::proto::name::{ZoneId, ZoneName};
use aop::proto::record::{Author, Header, RecordKind, SignedRecord};
use aop::proto::time::Stamp;
use futures::StreamExt;
use libp2p::gossipsub::{
    self, IdentTopic, Message, MessageAuthenticity, MessageId, PublishError, ValidationMode,
};
use libp2p::identity::Keypair;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify};
use libp2p_stream::IncomingStreams;
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::victim::PATIENCE;
use crate::strangers::{SYNC, now, swarm};

/// Messages that wait in this peer before the node has read them.
const QUEUE: usize = 1_000;

#[derive(NetworkBehaviour)]
pub(crate) struct Voice {
    gossip: gossipsub::Behaviour,
    identify: Toggle<identify::Behaviour>,
    streams: libp2p_stream::Behaviour,
}

pub(crate) struct Attacker {
    pub(crate) identity: Identity,
    swarm: Swarm<Voice>,
    node: PeerId,
    topic: IdentTopic,
}

/// How an attack ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Everything was said.
    Said,
    /// The node closed the connection.
    Cut,
}

impl Attacker {
    /// Connects and takes part in the mesh of the root zone.
    pub(crate) async fn join(seed: u8, node: PeerKey, address: Multiaddr) -> Attacker {
        Attacker::join_zone(&ZoneId::open(ZoneName::root()), seed, node, address).await
    }

    /// The same in the mesh of some zone.
    pub(crate) async fn join_zone(zone: &ZoneId, seed: u8, node: PeerKey, address: Multiaddr) -> Attacker {
        let mut attacker = Attacker::of_zone(zone, seed, node, false);
        attacker.enter(address).await;
        attacker
    }

    /// The same of one that was made before.
    pub(crate) async fn enter(&mut self, address: Multiaddr) {
        self.swarm.dial(address).unwrap();
        let in_mesh = async {
            loop {
                let event = self.swarm.select_next_some().await;
                if let SwarmEvent::Behaviour(VoiceEvent::Gossip(gossipsub::Event::Subscribed { .. })) = event
                {
                    return;
                }
            }
        };
        timeout(PATIENCE, in_mesh).await.expect("the node is in the mesh of the zone");
    }

    /// One that says who it is is compared with as a member of the zone; one that does not is cut off after a while.
    pub(crate) fn new(seed: u8, node: PeerKey, says_who: bool) -> Attacker {
        Attacker::of_zone(&ZoneId::open(ZoneName::root()), seed, node, says_who)
    }

    fn of_zone(zone: &ZoneId, seed: u8, node: PeerKey, says_who: bool) -> Attacker {
        let keypair = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
        let topic = IdentTopic::new(format!("/aop/test/zone/{zone}"));
        let mut settings = gossipsub::ConfigBuilder::default();
        settings.validation_mode(ValidationMode::Anonymous).connection_handler_queue_len(2 * QUEUE);
        settings.message_id_fn(|message: &Message| MessageId::from(Sha256::digest(&message.data).to_vec()));
        let settings = settings.build().unwrap();
        let mut gossip = gossipsub::Behaviour::new(MessageAuthenticity::Anonymous, settings).unwrap();
        gossip.subscribe(&topic).unwrap();
        let swarm = swarm(keypair, |keypair| Voice {
            gossip,
            identify: says_who.then(|| identity_of(keypair)).into(),
            streams: libp2p_stream::Behaviour::new(),
        });
        Attacker { identity: Identity::from_seed([seed; 32]), swarm, node: peer_id(&node).unwrap(), topic }
    }

    /// The conversations of sync that the node opens with it from now on.
    pub(crate) fn asked(&mut self) -> IncomingStreams {
        self.swarm.behaviour().streams.new_control().accept(SYNC).unwrap()
    }

    /// Says all of it in the mesh, as fast as it is taken.
    pub(crate) async fn say(&mut self, messages: impl IntoIterator<Item = Vec<u8>>) -> Ended {
        for message in messages {
            while self.is_connected() {
                match self.swarm.behaviour_mut().gossip.publish(self.topic.clone(), message.clone()) {
                    Ok(_) | Err(PublishError::Duplicate) => break,
                    // The queue is full: something of it leaves first.
                    Err(_) => self.breathe().await,
                }
            }
            if !self.is_connected() {
                return Ended::Cut;
            }
        }
        Ended::Said
    }

    /// Stays there until `over` resolves or the node cuts it off.
    pub(crate) async fn linger(&mut self, over: impl Future<Output = ()>) -> Ended {
        tokio::pin!(over);
        while self.is_connected() {
            tokio::select! {
                () = &mut over => return Ended::Said,
                _ = self.swarm.select_next_some() => {}
            }
        }
        Ended::Cut
    }

    fn is_connected(&self) -> bool {
        self.swarm.is_connected(&self.node)
    }

    async fn breathe(&mut self) {
        // A connection that neither takes nor closes is looked at again.
        let _quiet = timeout(Duration::from_millis(50), self.swarm.select_next_some()).await;
    }
}

pub(crate) fn identity_of(keypair: &Keypair) -> identify::Behaviour {
    identify::Behaviour::new(identify::Config::new("/aop/test/1".into(), keypair.public()))
}

/// What a card says of itself: its slot is the first that its version can have.
pub(crate) fn header(host: &Identity, name: &str, seq: u64) -> Header {
    let stamp = Stamp { wall: now(), counter: 0 };
    Header {
        network: "test".into(),
        zone: ZoneName::root(),
        kind: RecordKind::Agent,
        name: name.parse().unwrap(),
        owner: host.key(),
        host: host.key(),
        author: Author { key: host.key(), epoch: 1 },
        seq,
        stamp,
        generation: 0,
        expires_at: stamp.wall + CARD_LIFE,
        scope: Scope::Public,
        slot: (seq - 1) as u16,
        grants: Vec::new(),
    }
}

/// Signed by its host; of a kind that nobody knows the body is no card, and nobody looks.
pub(crate) fn signed(header: Header, host: &Identity) -> SignedRecord {
    let body = AgentCard { description: "a stranger's".into(), ..AgentCard::default() };
    SignedRecord::sign(header, &codec::encode(&body), host).unwrap()
}

/// An agent's card as its host signs it.
pub(crate) fn card(host: &Identity, name: &str, seq: u64) -> SignedRecord {
    signed(header(host, name, seq), host)
}

/// Some records of one author at once.
pub(crate) fn batch(records: &[SignedRecord]) -> Vec<u8> {
    let bytes = records.iter().map(|record| ByteBuf::from(record.bytes().to_vec()));
    Envelope::Records(bytes.collect()).encode()
}

pub(crate) fn message(record: Vec<u8>) -> Vec<u8> {
    Envelope::Records(vec![ByteBuf::from(record)]).encode()
}

/// A beacon of somebody who is not there.
pub(crate) fn beacon(of: &Identity, interval: Duration) -> Vec<u8> {
    let beacon = Beacon {
        network: "test".into(),
        zone: ZoneName::root(),
        author: Author { key: of.key(), epoch: 1 },
        counter: now().0,
        clock: now(),
        interval_ms: interval.as_millis() as u64,
        seq: 0,
        gateway: Gateway::Auto,
        name: None,
    };
    Envelope::Beacon(beacon.sign(of)).encode()
}
