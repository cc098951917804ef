//! Gossip: messages, who is subscribed to which zone, and zones that come and go.

use std::collections::VecDeque;
use std::time::Duration;

use libp2p::PeerId;
use libp2p::gossipsub::{self, MessageAcceptance, MessageId, PublishError};
use tokio::time::Instant;

use super::behaviour::{MESH_HIGH, topic_score};
use super::gossip_budget::GossipEvent;
use super::{GossipId, Network, NetworkEvent, Published, Verdict};
use crate::net::addresses::peer_key;
use crate::proto::io::Offence;
use crate::proto::limits::GOSSIP_BYTES_MAX;
use crate::proto::name::{ZoneId, ZoneName};

/// How long a peer may bring nothing. A member tells that it is there every 20 s, and at least once a minute in a zone so large
/// that others are heard through it meanwhile.
const SILENT_AFTER: Duration = Duration::from_secs(45);
/// The score of silence: more than the rewards of a topic, so that it costs the place in the mesh, and less than what costs
/// anything else.
const SILENCE: f64 = -4.0;
/// Gossip messages that wait for their verdict. The oldest is given up (not forwarded) when there are more; at 500
/// messages a second the driver is then 8 s behind, and the mesh has forgotten the message anyway.
const VERDICTS_MAX: usize = 4_096;

/// A message that waits for its verdict.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) id: GossipId,
    /// The peer that sent the first copy.
    pub(super) from: PeerId,
    pub(super) bytes: usize,
}

impl Network {
    /// Takes part in a zone from now on. Connected peers that are in it already are told as if they came now.
    pub fn join_zone(&mut self, zone: &ZoneId) {
        let Some(topic) = self.topics.join(zone) else { return };
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        gossip.budget().want(topic.hash(), true);
        // The score must know the topic before the first peer is grafted. It is switched on for every node, and the
        // filter takes every topic of this network, so that neither can fail.
        let scored = gossip.set_topic_params(topic.clone(), topic_score()).map_err(str::to_owned);
        let subscribed = scored.and_then(|()| gossip.subscribe(&topic).map_err(|error| error.to_string()));
        if let Err(error) = subscribed {
            tracing::error!(event = "zone_not_joined", %zone, error, "zone not joined");
        }
        // Peers told their subscriptions when they connected and say nothing anew because of this node.
        let topic = topic.hash();
        let there: Vec<PeerId> = self
            .swarm
            .behaviour()
            .gossip
            .all_peers()
            .filter(|(_, topics)| topics.contains(&&topic))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in there {
            self.handle_subscription(peer, &topic, true);
        }
    }

    /// Takes part in a zone no more. Nothing is told of it any more; who was in it is forgotten.
    pub fn leave_zone(&mut self, zone: &ZoneName) {
        let Some(topic) = self.topics.leave(zone) else { return };
        self.stop_providing(zone);
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        gossip.unsubscribe(&topic);
        gossip.budget().want(topic.hash(), false);
        for peer in self.peers.values_mut() {
            peer.zones.remove(zone);
        }
        // Events that were not handed out yet would tell of a zone that the driver has just left.
        let ready = std::mem::take(&mut self.ready).into_iter();
        let (untold, kept): (VecDeque<_>, _) = ready.partition(|event| event.zone() == Some(zone));
        self.ready = kept;
        for id in untold.iter().filter_map(NetworkEvent::gossip) {
            // The driver never hears of these, so nobody else would ever judge them.
            self.report(&id, Verdict::Ignore);
        }
    }

    /// Gossips `bytes` to the zone.
    pub fn publish(&mut self, zone: &ZoneName, bytes: Vec<u8>) -> Published {
        let Some(topic) = self.topics.joined(zone) else { return Published::OtherZone };
        // The library's own limit is that of a whole RPC and
        // much larger; peers would reject what lies between.
        if bytes.len() > GOSSIP_BYTES_MAX {
            return Published::TooLarge;
        }
        let (gossip, size) = (&mut self.swarm.behaviour_mut().gossip, bytes.len());
        match gossip.publish(topic.hash(), bytes) {
            Ok(_) => {
                gossip.budget().remember(Instant::now());
                // Neighbours that had it from others send it back.
                gossip.budget().accepted(size);
                self.traffic.gossip_published += 1;
                Published::Sent
            }
            Err(PublishError::Duplicate) => Published::Duplicate,
            Err(PublishError::AllQueuesFull(_)) => Published::QueuesFull,
            Err(PublishError::MessageTooLarge) => Published::TooLarge,
            // Anonymous messages are neither signed nor transformed, so nothing else is left.
            Err(_) => Published::NobodyListens,
        }
    }

    /// Judges a message. The first verdict counts, later ones and unknown ids do nothing.
    pub fn report(&mut self, id: &GossipId, verdict: Verdict) {
        // Verdicts come about in the order of the messages, so the search ends near the front.
        let Some(place) = self.pending_validation.iter().position(|waiting| waiting.id == *id) else {
            return;
        };
        if let Some(message) = self.pending_validation.remove(place) {
            if verdict == Verdict::Accept
                && let Some(peer) = self.peers.get_mut(&message.from)
            {
                peer.brought = Instant::now();
            }
            self.report_validation(message, verdict);
        }
    }

    /// Peers that hold a place in the mesh and bring nothing lose it where others of the zone wait for one, and get none before
    /// they bring something. An honest member tells at least that it is there; peers of the configuration are left alone.
    pub(super) fn score_silent_peers(&mut self, now: Instant) {
        let gossip = &self.swarm.behaviour().gossip;
        let mut changed = Vec::new();
        for (zone, topic) in self.topics.iter() {
            let members = self.peers.values().filter(|peer| peer.zones.contains(zone)).count();
            if members <= MESH_HIGH {
                continue;
            }
            changed.extend(gossip.mesh_peers(&topic.hash()).filter(|id| {
                let peer = self.peers.get(id).filter(|peer| !peer.bootstrap && !peer.is_silent);
                peer.is_some_and(|peer| now.saturating_duration_since(peer.brought) > SILENT_AFTER)
            }));
        }
        for (id, peer) in &mut self.peers {
            let is_heard = now.saturating_duration_since(peer.brought) <= SILENT_AFTER;
            if peer.is_silent && is_heard {
                changed.push(*id);
            }
        }
        for id in changed {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.is_silent = now.saturating_duration_since(peer.brought) > SILENT_AFTER;
                tracing::debug!(peer = %id, silent = peer.is_silent, "mesh");
            }
            self.set_score(&id, self.peer_scores.score(&id, now));
        }
    }

    /// Sets what the mesh thinks of a peer: its offences, and its silence.
    pub(super) fn set_score(&mut self, id: &PeerId, offences: f64) {
        let is_silent = self.peers.get(id).is_some_and(|peer| peer.is_silent);
        let silence = if is_silent { SILENCE } else { 0.0 };
        self.swarm.behaviour_mut().gossip.set_application_score(id, offences + silence);
    }

    pub(super) fn handle_gossip(&mut self, event: GossipEvent) {
        match event {
            GossipEvent::Library(event) => self.handle_library(event),
            GossipEvent::Greedy(peer) => {
                tracing::debug!(%peer, "peer gossips far more than comes to anything");
                if let Some(peer) = peer_key(&peer) {
                    self.penalize(peer, Offence::Greedy);
                }
            }
        }
    }

    fn handle_library(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                self.handle_message(propagation_source, message_id, message);
            }
            gossipsub::Event::Subscribed { peer_id, topic } => {
                self.handle_subscription(peer_id, &topic, true)
            }
            gossipsub::Event::Unsubscribed { peer_id, topic } => {
                self.handle_subscription(peer_id, &topic, false)
            }
            gossipsub::Event::SlowPeer { peer_id, failed_messages } => {
                // The score counts it already, lightly: slow is not hostile.
                tracing::debug!(peer = %peer_id, ?failed_messages, "peer does not read fast enough");
            }
            // Whether it belongs here is for identify to say; it may still serve lookups and calls.
            gossipsub::Event::GossipsubNotSupported { .. } => {}
        }
    }

    fn handle_message(&mut self, from: PeerId, id: MessageId, message: gossipsub::Message) {
        // A zone that was left a moment ago: without a verdict
        // the message is not forwarded, and the mesh forgets it.
        let (Some(peer), Some(zone)) = (peer_key(&from), self.topics.zone(&message.topic)) else { return };
        let Ok(id) = id.0.as_slice().try_into().map(GossipId) else { return };
        self.traffic.gossip_received += 1;
        self.swarm.behaviour().gossip.budget().remember(Instant::now());
        let received = Received { id, from, bytes: message.data.len() };
        // An honest peer forwards only what it accepted, and nobody accepts this: the sender is to blame.
        if message.data.len() > GOSSIP_BYTES_MAX {
            return self.report_validation(received, Verdict::Reject);
        }
        // The oldest and not the newest: its verdict would come too late for the mesh anyway.
        if self.pending_validation.len() >= VERDICTS_MAX
            && let Some(oldest) = self.pending_validation.pop_front()
        {
            self.traffic.gossip_unvalidated += 1;
            self.report_validation(oldest, Verdict::Ignore);
        }
        self.pending_validation.push_back(received);
        self.ready.push_back(NetworkEvent::Gossip { id, peer, zone, bytes: message.data });
    }

    fn report_validation(&mut self, message: Received, verdict: Verdict) {
        let Received { id, from, bytes } = message;
        let (acceptance, text) = match verdict {
            Verdict::Accept => (MessageAcceptance::Accept, "accept"),
            Verdict::Ignore => (MessageAcceptance::Ignore, "ignore"),
            Verdict::Reject => (MessageAcceptance::Reject, "reject"),
        };
        self.metrics.judged(text);
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        if verdict == Verdict::Accept {
            gossip.budget().accepted(bytes);
        }
        // False: the verdict came after the mesh forgot the message. Sync will spread it.
        let _ = gossip.report_message_validation_result(&MessageId::new(&id.0), &from, acceptance);
    }

    /// Subscriptions of a peer that has not identified itself yet are told with its welcome.
    fn handle_subscription(&mut self, id: PeerId, topic: &gossipsub::TopicHash, joined: bool) {
        let Some(zone) = self.topics.zone(topic) else { return };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        // Joining a zone tells of who is in it from the
        // library's memory, and the peer's own word may follow.
        let changed = if joined { peer.zones.insert(zone.clone()) } else { peer.zones.remove(&zone) };
        if changed && peer.identified {
            let peer = peer.key;
            self.ready.push_back(if joined {
                NetworkEvent::Subscribed { peer, zone }
            } else {
                NetworkEvent::Unsubscribed { peer, zone }
            });
        }
    }
}
