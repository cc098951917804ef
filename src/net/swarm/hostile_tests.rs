//! Peers that say far too much: what they cost is bounded.

use libp2p::gossipsub::{self, IdentTopic, MessageAuthenticity, MessageId, ValidationMode};
use libp2p::kad::store::{MemoryStore, RecordStore};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{StreamProtocol, Swarm, SwarmBuilder, kad, noise, tcp, yamux};
use sha2::{Digest, Sha256};

use super::*;
use crate::net::streams::budget::Waited;
use crate::net::transport::transport;
use crate::proto::address_block::TrustedNets;
use crate::proto::identity::Identity;
use crate::proto::io::Protocol;
use crate::proto::message::SyncAnswer;

/// Far more than anything takes on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn victim() -> (Network, Multiaddr) {
    node(1, Vec::new()).await
}

async fn node(seed: u8, bootstrap: Vec<Multiaddr>) -> (Network, Multiaddr) {
    let options = NetworkOptions {
        identity: Identity::from_seed([seed; 32]),
        network: "test".into(),
        zones: vec![crate::proto::name::ZoneId::open(ZoneName::root())],
        bootstrap,
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        announce: Vec::new(),
        peers_file: None,
        trusted_nets: TrustedNets::default(),
        discovery: Discovery::Dht,
        reach: Default::default(),
    };
    let transport = transport(&options.keypair().unwrap()).unwrap();
    let mut node = Network::new(options, transport).unwrap();
    let address = node.listening().await.remove(0);
    (node, address)
}

fn rogue<B: NetworkBehaviour>(behaviour: impl FnOnce(PeerId) -> B) -> Swarm<B> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|keypair| behaviour(keypair.public().to_peer_id()))
        .unwrap()
        .build()
}

/// Gossip of the library as it is, with room for all that is published at once.
fn gossiper(_: PeerId) -> gossipsub::Behaviour {
    let mut config = gossipsub::ConfigBuilder::default();
    config
        .validation_mode(ValidationMode::Anonymous)
        .message_id_fn(|message| MessageId::new(&Sha256::digest(&message.data)))
        .connection_handler_queue_len(50_000);
    gossipsub::Behaviour::new(MessageAuthenticity::Anonymous, config.build().unwrap()).unwrap()
}

/// Runs both until `is_over` of the victim.
async fn run_until<B: NetworkBehaviour>(
    victim: &mut Network,
    rogue: &mut Swarm<B>,
    mut is_over: impl FnMut(&mut Network, &mut Swarm<B>) -> bool,
) {
    let run = async {
        while !is_over(victim, rogue) {
            tokio::select! {
                event = victim.swarm.select_next_some() => victim.handle_swarm(event),
                _ = rogue.select_next_some() => {}
            }
        }
    };
    timeout(PATIENCE, run).await.expect("the peer is at its limit");
}

#[tokio::test]
async fn a_peer_that_subscribes_to_thousands_of_zones_is_remembered_in_a_thousand() {
    let (mut victim, address) = victim().await;
    let topic = |zone: String| IdentTopic::new(format!("/aop/test/zone/{zone}"));
    let mut rogue = rogue(gossiper);
    let id = *rogue.local_peer_id();
    rogue.dial(address).unwrap();
    let kept = move |victim: &Network| {
        let peer = victim.swarm.behaviour().gossip.all_peers().find(|(peer, _)| **peer == id);
        peer.map_or(0, |(_, topics)| topics.len())
    };
    rogue.behaviour_mut().subscribe(&topic(".".into())).unwrap();
    run_until(&mut victim, &mut rogue, |victim, _| kept(victim) == 1).await;
    // One message each: the rogue's first word is of one zone, the others follow.
    for number in 0..2_000 {
        rogue.behaviour_mut().subscribe(&topic(format!("z{number}"))).unwrap();
        // What is of another network or no name is nothing to remember.
        rogue.behaviour_mut().subscribe(&IdentTopic::new(format!("/aop/other/zone/z{number}"))).unwrap();
    }
    // The last word, which is heard after all the others: it leaves the root zone.
    rogue.behaviour_mut().unsubscribe(&topic(".".into()));
    let mut most = 0;
    run_until(&mut victim, &mut rogue, |victim, _| {
        most = most.max(kept(victim));
        most == 1_000 && kept(victim) == 999
    })
    .await;
    let ours = |peer: &Peer| peer.zones.len();
    assert_eq!(victim.peers.values().map(ours).sum::<usize>(), 0, "of foreign zones nothing is told");
}

#[tokio::test]
async fn a_peer_that_floods_is_heard_for_its_share_and_then_blocked() {
    let (mut victim, address) = victim().await;
    let mut rogue = rogue(gossiper);
    let id = *rogue.local_peer_id();
    let topic = IdentTopic::new("/aop/test/zone/.");
    rogue.behaviour_mut().subscribe(&topic).unwrap();
    rogue.dial(address).unwrap();
    let joined =
        |rogue: &Swarm<gossipsub::Behaviour>| rogue.behaviour().all_peers().any(|(_, of)| !of.is_empty());
    run_until(&mut victim, &mut rogue, |_, rogue| joined(rogue)).await;
    let began = Instant::now();
    for number in 0..20_000_u64 {
        // 24 bytes, none of which is a message.
        let bytes = [number.to_be_bytes(), [1; 8], [2; 8]].concat();
        rogue.behaviour_mut().publish(topic.hash(), bytes).unwrap();
    }
    let (mut heard, mut blocked) = (0, false);
    run_until(&mut victim, &mut rogue, |victim, _| {
        while let Some(event) = victim.ready.pop_front() {
            match event {
                NetworkEvent::Gossip { id, .. } => {
                    heard += 1;
                    victim.report(&id, Verdict::Ignore);
                }
                NetworkEvent::Alert(NetworkAlert::Blocked { .. }) => blocked = true,
                _ => {}
            }
        }
        blocked && !victim.swarm.is_connected(&id)
    })
    .await;
    let share = 512.0 + 50.0 * began.elapsed().as_secs_f64() + 1.0;
    assert!(heard <= share as usize, "{heard} of {share}");
    let dropped = victim.traffic().gossip_dropped[&Dropped::OverBudget];
    assert!(dropped >= 8_000, "an offence each time that its patience ends: {dropped}");
}

#[tokio::test]
async fn a_peer_that_took_too_much_is_told_when_to_come_again_and_its_question_takes_nobodys_time() {
    let (mut victim, address) = victim().await;
    let (mut client, _) = node(2, vec![address]).await;
    let [owner, asker] = [1, 2].map(|seed| Identity::from_seed([seed; 32]).key());
    let run = async {
        while victim.peers().next().is_none() || client.peers().next().is_none() {
            tokio::select! {
                _ = victim.next() => {}
                _ = client.next() => {}
            }
        }
        // As if it had taken a whole zone, several times.
        victim.request_budget.charge(&asker, 0, 1 << 30, Duration::ZERO);
        let requests = client.request_client(Protocol::Sync);
        let asking = async { requests.open(owner).await.unwrap().request(b"?".to_vec()).await.unwrap() };
        let mut asking = std::pin::pin!(asking);
        loop {
            tokio::select! {
                event = victim.next() => assert!(!matches!(event, NetworkEvent::Request(_)), "{event:?}"),
                _ = client.next() => {}
                answer = &mut asking => return answer,
            }
        }
    };
    let answer = SyncAnswer::decode(&timeout(PATIENCE, run).await.expect("an answer"));
    assert!(matches!(answer, Ok(SyncAnswer::Busy { wait_ms }) if wait_ms > 60_000), "{answer:?}");
    assert_eq!(victim.traffic().requests_waited[&Waited::Busy], 1);
    assert!(victim.peer_scores.fade(Instant::now()).is_empty(), "nobody is blamed");
}

#[tokio::test]
async fn a_peer_that_provides_hundreds_of_keys_is_kept_for_a_few() {
    let (mut victim, address) = victim().await;
    let owner = *victim.swarm.local_peer_id();
    let mut rogue = rogue(|id| {
        let config = kad::Config::new(StreamProtocol::new("/aop/test/kad/1"));
        kad::Behaviour::with_config(id, MemoryStore::new(id), config)
    });
    let id = *rogue.local_peer_id();
    rogue.behaviour_mut().add_address(&owner, address.clone());
    rogue.dial(address).unwrap();
    let keys: Vec<kad::RecordKey> =
        (0..300_u32).map(|number| kad::RecordKey::new(&Sha256::digest(number.to_le_bytes()))).collect();
    let mut next = keys.iter();
    // As many questions at once as one connection takes.
    for key in next.by_ref().take(16) {
        rogue.behaviour_mut().start_providing(key.clone()).unwrap();
    }
    let (mut told, mut over) = (0, false);
    let run = async {
        while !over {
            tokio::select! {
                event = victim.swarm.select_next_some() => victim.handle_swarm(event),
                event = rogue.select_next_some() => {
                    if let SwarmEvent::Behaviour(kad::Event::OutboundQueryProgressed { step, .. }) = event
                        && step.last
                    {
                        told += 1;
                        if let Some(key) = next.next() {
                            rogue.behaviour_mut().start_providing(key.clone()).unwrap();
                        }
                        over = told >= keys.len();
                    }
                }
            }
        }
    };
    timeout(PATIENCE, run).await.expect("every key was told");
    let store = victim.swarm.behaviour_mut().kad.as_mut().unwrap().store_mut();
    let of_rogue = |key: &&kad::RecordKey| store.providers(key).iter().any(|record| record.provider == id);
    let kept = keys.iter().filter(of_rogue).count();
    assert!((1..=64).contains(&kept), "{kept}");
}
