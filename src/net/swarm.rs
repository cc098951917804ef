//! The network of one node: libp2p in, named events out. Bytes in, bytes out: it knows no record and decides no
//! question of the protocol.
//!
//! One task owns [`Network`] and polls [`Network::next`], which may be dropped at any await without losing an event.
//! For each peer [`NetworkEvent::Connected`] and [`NetworkEvent::Disconnected`] alternate, and subscriptions lie between
//! them; a peer is connected once it has said (identify) that it is of this network. Gossip and questions may come a
//! little earlier: their topic and protocol name the network too. Every gossip message waits for one verdict; without
//! it the message is not forwarded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::gossipsub::{self, MessageAcceptance, MessageId, PublishError};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{self, ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify, kad, ping};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};

use crate::net::addresses::{ADDRESSES_PER_PEER_MAX, named_peer, peer_id, peer_key, worth_keeping};
use crate::net::bootstrap::BootstrapDialer;
use crate::net::calls::OpenCalls;
use crate::net::peers::{self, PEERS_LOW, Peer};
use crate::net::streams::{InboundRequest, SyncClient};
use crate::net::transport::PeerTransport;
use crate::proto::config::GOSSIP_BYTES_MAX;
use crate::proto::identity::PeerKey;
use crate::proto::name::ZoneName;

mod behaviour;
mod event;
mod lookup;
mod options;
mod peer_scores;
mod streams;

use crate::proto::io::Offence;
pub use crate::proto::io::{GossipId, Verdict};
use behaviour::{Behaviour, BehaviourEvent, Names};
pub use event::{NetworkAlert, NetworkEvent, Published, Traffic};
use lookup::PeerLookups;
use options::listen;
pub use options::{Discovery, NetworkError, NetworkOptions};
use peer_scores::{PeerScores, Penalty};
use streams::start_sync;

/// Gossip messages that wait for their verdict. The oldest is given up (not forwarded) when there are more; at 500
/// messages a second the driver is then 8 s behind, and the mesh has forgotten the message anyway.
pub const VERDICTS_MAX: usize = 4_096;
/// Questions of sync streams that wait for the driver; the streams feel the back-pressure.
pub const INBOUND_REQUESTS_MAX: usize = 64;
/// How often bootstrap peers, excess connections and the number of peers are looked at.
const TICK: Duration = Duration::from_secs(1);
/// A tick this late, by either clock, means that the process or the machine was suspended.
const SUSPENDED_AFTER: Duration = Duration::from_secs(3);
/// Pings in a row that may fail; the second closes the connections. At 20 s a ping and 20 s of patience: within 80 s.
const PINGS_LOST_MAX: u32 = 2;
/// The first and the longest wait between two walks through the DHT in search of peers. It doubles while there are too
/// few: a network of three nodes will never have eight.
const RANDOM_WALK: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
/// How often peers are entered into the routing table: at once when nobody was for this long.
const KAD_FLUSH_INTERVAL: Duration = Duration::from_secs(3);
/// Peers in one zone below which new ones are looked for: the low mark of the gossip mesh.
const ZONE_PEERS_LOW: usize = 5;
/// How long a clean shutdown waits for its connections to close.
const SHUTDOWN_MAX: Duration = Duration::from_secs(2);
/// How long the bound addresses are waited for after the sockets are open.
const BIND_MAX: Duration = Duration::from_secs(10);

/// The network of one node.
pub struct Network {
    swarm: Swarm<Behaviour>,
    names: Names,
    dialer: BootstrapDialer,
    peers: BTreeMap<PeerId, Peer>,
    peer_scores: PeerScores,
    /// Messages without a verdict, oldest first, with the peer that sent the first copy.
    pending_validation: VecDeque<(GossipId, PeerId)>,
    ready: VecDeque<NetworkEvent>,
    asked: mpsc::Receiver<InboundRequest>,
    sync: SyncClient,
    calls: OpenCalls,
    lookups: PeerLookups,
    unbound: Vec<ListenerId>,
    ticker: Interval,
    ticked: (Instant, SystemTime),
    random_walk: (Instant, Duration),
    /// Peers that wait for their entry into the routing table, and when they are entered next.
    kad_pending: BTreeMap<PeerId, Vec<Multiaddr>>,
    kad_flush_at: Instant,
    /// When the routing table was last refreshed completely.
    refreshed: Option<Instant>,
    traffic: Traffic,
}

impl Network {
    /// Opens the listening sockets and starts to dial. Needs a tokio runtime; nothing moves until [`Network::next`].
    pub fn new(options: NetworkOptions, transport: PeerTransport) -> Result<Network, NetworkError> {
        Network::with_gossip(options, transport, behaviour::gossip_settings())
    }

    fn with_gossip(
        options: NetworkOptions,
        transport: PeerTransport,
        gossip: gossipsub::ConfigBuilder,
    ) -> Result<Network, NetworkError> {
        let keypair = options.keypair()?;
        let names = Names::new(&options.network, options.zones.into_iter().collect())?;
        let gossip = gossip.build().map_err(|error| NetworkError::Setup(error.to_string()))?;
        let behaviour = Behaviour::new(&keypair, &names, gossip, options.discovery)?;
        let settings = swarm::Config::with_tokio_executor()
            .with_idle_connection_timeout(behaviour::IDLE_MAX)
            .with_smart_dial();
        let mut swarm = Swarm::new(transport, behaviour, keypair.public().to_peer_id(), settings);
        let mut unbound = Vec::new();
        for address in options.listen {
            unbound.push(listen(&mut swarm, address)?);
        }
        let (sync, asked) = start_sync(&swarm, &names)?;
        let (now, mut ticker) = (Instant::now(), interval(TICK));
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Network {
            swarm,
            names,
            dialer: BootstrapDialer::new(options.bootstrap, now),
            peers: BTreeMap::new(),
            peer_scores: PeerScores::default(),
            pending_validation: VecDeque::new(),
            ready: VecDeque::new(),
            asked,
            sync,
            calls: OpenCalls::default(),
            lookups: PeerLookups::default(),
            unbound,
            ticker,
            ticked: (now, SystemTime::now()),
            random_walk: (now + RANDOM_WALK.0, RANDOM_WALK.0),
            kad_pending: BTreeMap::new(),
            kad_flush_at: now,
            refreshed: None,
            traffic: Traffic::default(),
        })
    }

    /// Waits until every socket is bound, and gives all addresses with `/p2p/`: one per interface for `0.0.0.0`.
    pub async fn listening(&mut self) -> Vec<Multiaddr> {
        let bound = async {
            while !self.unbound.is_empty() {
                let event = self.swarm.select_next_some().await;
                self.handle_swarm(event);
            }
        };
        _ = timeout(BIND_MAX, bound).await;
        let peer = *self.swarm.local_peer_id();
        self.swarm.listeners().filter_map(|address| address.clone().with_p2p(peer).ok()).collect()
    }

    /// The next event. May be dropped while it waits; nothing is lost.
    pub async fn next(&mut self) -> NetworkEvent {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            tokio::select! {
                event = self.swarm.select_next_some() => self.handle_swarm(event),
                Some(InboundRequest { peer, request, reply }) = self.asked.recv() => {
                    return NetworkEvent::SyncAsked { peer, request, reply };
                }
                _ = self.ticker.tick() => self.handle_tick(),
            }
        }
    }

    /// Gossips `bytes` to the zone.
    pub fn publish(&mut self, zone: &ZoneName, bytes: Vec<u8>) -> Published {
        let Some(topic) = self.names.topic(zone) else { return Published::OtherZone };
        if bytes.len() > GOSSIP_BYTES_MAX {
            return Published::TooLarge;
        }
        match self.swarm.behaviour_mut().gossip.publish(topic, bytes) {
            Ok(_) => {
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
        let Some(place) = self.pending_validation.iter().position(|(waiting, _)| waiting == id) else {
            return;
        };
        if let Some((id, peer)) = self.pending_validation.remove(place) {
            self.report_validation(id, peer, verdict);
        }
    }

    /// Holds an offence outside of gossip against a peer: it is listened to less, and blocked when it goes on.
    pub fn penalize(&mut self, peer: PeerKey, why: Offence) {
        let Some(id) = peer_id(&peer) else { return };
        match self.peer_scores.add(id, why, Instant::now()) {
            Penalty::Scored(score) => _ = self.swarm.behaviour_mut().gossip.set_application_score(&id, score),
            Penalty::Blocked => {
                tracing::warn!(%peer, ?why, "peer blocked");
                self.swarm.behaviour_mut().blocked.block_peer(id);
                self.ready.push_back(NetworkEvent::Alert(NetworkAlert::Blocked { peer }));
            }
        }
    }

    /// Tells where a peer was seen in an earlier run, so that it can be found without a bootstrap peer. Dials nobody.
    pub fn learn(&mut self, peer: &PeerKey, addresses: Vec<Multiaddr>) {
        let Some(id) = peer_id(peer) else { return };
        let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() else { return };
        for address in addresses.into_iter().take(ADDRESSES_PER_PEER_MAX) {
            kad.add_address(&id, address);
        }
    }

    /// Announces an address that the node cannot see itself, such as the public side of a forwarded port.
    pub fn announce(&mut self, address: Multiaddr) {
        self.swarm.add_external_address(address);
    }

    /// Opens sync streams from any task.
    pub fn sync_client(&self) -> SyncClient {
        self.sync.clone()
    }

    /// The connected peers of our network.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values().filter(|peer| peer.identified)
    }

    /// Counters and sizes.
    pub fn traffic(&self) -> Traffic {
        let gossip = &self.swarm.behaviour().gossip;
        let mesh = |(zone, topic): &(ZoneName, gossipsub::IdentTopic)| {
            (zone.clone(), gossip.mesh_peers(&topic.hash()).count())
        };
        Traffic {
            peers: self.peers().count(),
            connections: self.swarm.network_info().connection_counters().num_established() as usize,
            mesh: self.names.zones.iter().map(mesh).collect(),
            ..self.traffic.clone()
        }
    }

    /// Closes all connections, so that the peers notice at once. Takes at most two seconds.
    pub async fn shutdown(mut self) {
        let open: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        open.into_iter().for_each(|peer| _ = self.swarm.disconnect_peer_id(peer));
        let closed = async {
            while self.swarm.connected_peers().next().is_some() {
                _ = self.swarm.select_next_some().await;
            }
        };
        _ = timeout(SHUTDOWN_MAX, closed).await;
    }

    fn handle_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.handle_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.handle_connected(
                    peer_id,
                    connection_id,
                    endpoint.is_dialer(),
                    endpoint.get_remote_address(),
                );
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, .. } => {
                self.handle_closed(peer_id, connection_id, num_established);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.handle_dial_failed(connection_id, &error);
            }
            SwarmEvent::NewListenAddr { listener_id, .. } => self.unbound.retain(|id| *id != listener_id),
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                self.unbound.retain(|id| *id != listener_id);
                let reason = reason.err().map_or("closed".into(), |error| error.to_string());
                self.ready.push_back(NetworkEvent::Alert(NetworkAlert::ListenerLost { reason }));
            }
            _ => {}
        }
    }

    fn handle_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Gossip(event) => self.handle_gossip(event),
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                self.handle_identified(peer_id, info);
            }
            BehaviourEvent::Ping(event) => self.handle_ping(event),
            BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                id,
                result: kad::QueryResult::Bootstrap(Ok(_)),
                step,
                ..
            }) => self.handle_refresh(id, step.last),
            BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed { id, step, .. }) if step.last => {
                self.lookups.ended(id);
            }
            // Filtered inserts come here and end here: nothing a peer puts into the table is kept.
            _ => {}
        }
    }

    fn handle_connected(
        &mut self,
        id: PeerId,
        connection: ConnectionId,
        outbound: bool,
        address: &Multiaddr,
    ) {
        let now = Instant::now();
        let bootstrap = self.dialer.connected(connection, id, now);
        self.lookups.connected(&id);
        let Some(key) = peer_key(&id) else {
            // Only Ed25519 is compiled in, so that no other key gets this far.
            _ = self.swarm.disconnect_peer_id(id);
            return;
        };
        if bootstrap {
            self.swarm.behaviour_mut().limits.bypass_peer_id(&id);
        }
        let peer = self.peers.entry(id).or_insert_with(|| Peer::new(key, outbound, bootstrap, now));
        peer.bootstrap |= bootstrap;
        peer.opened(connection, address.clone(), now);
    }

    fn handle_closed(&mut self, id: PeerId, connection: ConnectionId, left: u32) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.closed(connection);
        }
        if left > 0 {
            return;
        }
        self.dialer.disconnected(id, Instant::now(), rand::random());
        let Some(peer) = self.peers.remove(&id) else { return };
        if peer.identified {
            self.ready.push_back(NetworkEvent::Disconnected { peer: peer.key });
        }
        if peer.renewed {
            // A failure is the library's to forget: the peer has our address too.
            let options =
                DialOpts::peer_id(id).addresses(peer.listens_at).extend_addresses_through_behaviour();
            _ = self.swarm.dial(options.build());
        }
    }

    fn handle_dial_failed(&mut self, connection: ConnectionId, error: &DialError) {
        if let DialError::LocalPeerId { .. } = error {
            return self.dialer.is_myself(connection);
        }
        if let DialError::DialPeerConditionFalse(_) = error {
            // Another address of the same peer was quicker: nothing is wrong with this one.
            _ = self.dialer.failed(connection, Instant::now(), rand::random());
            return;
        }
        if let Some((address, failures)) = self.dialer.failed(connection, Instant::now(), rand::random()) {
            let reason = error.to_string();
            tracing::info!(%address, failures, reason, "bootstrap peer not reached");
            self.ready.push_back(NetworkEvent::Alert(NetworkAlert::BootstrapUnreachable {
                address,
                failures,
                reason,
            }));
        }
    }

    fn handle_identified(&mut self, id: PeerId, info: identify::Info) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(seen_at) = peer.seen_at.first().cloned() else { return };
        if info.protocol_version != self.names.identify {
            let (peer, speaks) = (peer.key, info.protocol_version);
            tracing::info!(%peer, speaks, "peer of another network disconnected");
            self.ready.push_back(NetworkEvent::Alert(NetworkAlert::OtherNetwork {
                peer,
                address: seen_at,
                speaks,
            }));
            _ = self.swarm.disconnect_peer_id(id);
            return;
        }
        if peer.identified && peer.agent != info.agent_version {
            // It was restarted and its old connection still looks alive. Gossip tells its subscriptions on the first
            // connection of a peer only, so the new run would never hear of ours: start afresh.
            peer.renewed = true;
            _ = self.swarm.disconnect_peer_id(id);
            return;
        }
        peer.agent = info.agent_version;
        peer.listens_at = worth_keeping(&seen_at, info.listen_addrs);
        // Kademlia learns no address by itself, and only a peer that serves it belongs into the table.
        if info.protocols.contains(&self.names.kad) {
            self.kad_pending.insert(id, peer.listens_at.clone());
        }
        if !std::mem::replace(&mut peer.identified, true) {
            self.ready.extend(connected_events(peer));
        }
        self.flush_kad_pending(Instant::now());
    }

    /// Enters the peers met since the last time into the routing table. The library answers every entry into a small
    /// table with a round of lookups half a second later; entered one by one, fifty nodes that start together spend
    /// their first half minute on nothing else.
    fn flush_kad_pending(&mut self, now: Instant) {
        if now < self.kad_flush_at || self.kad_pending.is_empty() {
            return;
        }
        self.kad_flush_at = now + KAD_FLUSH_INTERVAL;
        let kad_pending = std::mem::take(&mut self.kad_pending);
        let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() else { return };
        for (peer, addresses) in kad_pending {
            for address in addresses {
                kad.add_address(&peer, address);
            }
        }
    }

    fn handle_ping(&mut self, ping::Event { peer: id, result, .. }: ping::Event) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        match result {
            Ok(rtt) => (peer.rtt, peer.pings_lost) = (Some(rtt), 0),
            Err(_) => peer.pings_lost += 1,
        }
        if peer.pings_lost >= PINGS_LOST_MAX {
            _ = self.swarm.disconnect_peer_id(id);
        }
    }

    fn handle_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                self.handle_message(propagation_source, message_id, message);
            }
            gossipsub::Event::Subscribed { peer_id, topic } => self.handle_subscription(peer_id, topic, true),
            gossipsub::Event::Unsubscribed { peer_id, topic } => {
                self.handle_subscription(peer_id, topic, false)
            }
            gossipsub::Event::SlowPeer { peer_id, failed_messages } => {
                tracing::debug!(peer = %peer_id, ?failed_messages, "peer does not read fast enough");
            }
            gossipsub::Event::GossipsubNotSupported { .. } => {}
        }
    }

    fn handle_message(&mut self, from: PeerId, id: MessageId, message: gossipsub::Message) {
        let (Some(peer), Some(zone)) = (peer_key(&from), self.names.zone(&message.topic)) else { return };
        let Ok(id) = id.0.as_slice().try_into().map(GossipId) else { return };
        self.traffic.gossip_received += 1;
        if message.data.len() > GOSSIP_BYTES_MAX {
            return self.report_validation(id, from, Verdict::Reject);
        }
        if self.pending_validation.len() >= VERDICTS_MAX
            && let Some((oldest, source)) = self.pending_validation.pop_front()
        {
            self.traffic.gossip_unvalidated += 1;
            self.report_validation(oldest, source, Verdict::Ignore);
        }
        self.pending_validation.push_back((id, from));
        self.ready.push_back(NetworkEvent::Gossip { id, peer, zone, bytes: message.data });
    }

    fn report_validation(&mut self, id: GossipId, from: PeerId, verdict: Verdict) {
        let acceptance = match verdict {
            Verdict::Accept => MessageAcceptance::Accept,
            Verdict::Ignore => MessageAcceptance::Ignore,
            Verdict::Reject => MessageAcceptance::Reject,
        };
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        // False: the verdict came after the mesh forgot the message. Sync will spread it.
        _ = gossip.report_message_validation_result(&MessageId::new(&id.0), &from, acceptance);
    }

    /// Subscriptions of a peer that has not identified itself yet are told with its welcome.
    fn handle_subscription(&mut self, id: PeerId, topic: gossipsub::TopicHash, joined: bool) {
        let Some(zone) = self.names.zone(&topic) else { return };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let changed = if joined { peer.zones.insert(zone.clone()) } else { peer.zones.remove(&zone) };
        if changed && peer.identified {
            let peer = peer.key;
            self.ready.push_back(match joined {
                true => NetworkEvent::Subscribed { peer, zone },
                false => NetworkEvent::Unsubscribed { peer, zone },
            });
        }
    }

    fn handle_tick(&mut self) {
        let now = Instant::now();
        self.notice_suspension(now);
        for (peer, score) in self.peer_scores.fade(now) {
            self.swarm.behaviour_mut().gossip.set_application_score(&peer, score);
        }
        for peer in self.peer_scores.released(now) {
            self.swarm.behaviour_mut().blocked.unblock_peer(peer);
        }
        self.flush_kad_pending(now);
        self.dial_bootstrap_peers(now);
        self.close_excess(now);
        self.walk_if_lonely(now);
    }

    /// A running lookup would dial again what is closed under it, so it is waited for.
    fn close_excess(&mut self, now: Instant) {
        let calling: BTreeSet<PeerId> = self.calls.peers().iter().filter_map(peer_id).collect();
        if self.swarm.behaviour().kad.as_ref().is_none_or(|kad| kad.iter_queries().next().is_none()) {
            let mesh = self.swarm.behaviour().gossip.all_mesh_peers();
            let needed = mesh.chain(&calling).copied().collect();
            for peer in peers::excess(&self.peers, &needed, now, rand::random_range(0..usize::MAX)) {
                _ = self.swarm.disconnect_peer_id(peer);
            }
        }
        for connection in
            peers::duplicate_connections(&self.peers, *self.swarm.local_peer_id(), &calling, now)
        {
            self.swarm.close_connection(connection);
        }
    }

    /// A process that was stopped, or a machine that slept, finds its connections dead: everything is dialed at once.
    fn notice_suspension(&mut self, now: Instant) {
        let (monotonic, wall) = std::mem::replace(&mut self.ticked, (now, SystemTime::now()));
        let slept = self.ticked.1.duration_since(wall).unwrap_or_default().max(now - monotonic);
        if slept >= TICK + SUSPENDED_AFTER {
            self.dialer.retry_now(now);
            self.random_walk = (now, RANDOM_WALK.0);
            self.ready.push_back(NetworkEvent::Alert(NetworkAlert::Suspended { duration: slept - TICK }));
        }
    }

    fn dial_bootstrap_peers(&mut self, now: Instant) {
        for index in self.dialer.due(now) {
            let bootstrap = self.dialer.get(index);
            let address = bootstrap.address.clone();
            let options: DialOpts = match named_peer(&address) {
                Some(peer) => DialOpts::peer_id(peer)
                    .condition(PeerCondition::DisconnectedAndNotDialing)
                    .addresses(vec![address])
                    .extend_addresses_through_behaviour()
                    .build(),
                None => address.into(),
            };
            let connection = options.connection_id();
            self.dialer.dialing(index, connection);
            if let Err(error) = self.swarm.dial(options) {
                self.handle_dial_failed(connection, &error);
            }
        }
    }

    /// Walks to a random place in the DHT while there are too few peers at all or in a zone.
    fn walk_if_lonely(&mut self, now: Instant) {
        let (next, wait) = self.random_walk;
        let lonely = |(_, topic): &(ZoneName, gossipsub::IdentTopic)| {
            let zone = self.names.zone(&topic.hash());
            zone.is_some_and(|zone| {
                self.peers().filter(|peer| peer.zones.contains(&zone)).count() < ZONE_PEERS_LOW
            })
        };
        let enough = self.peers.len() >= PEERS_LOW && !self.names.zones.iter().any(lonely);
        if enough {
            self.random_walk = (now + RANDOM_WALK.0, RANDOM_WALK.0);
        } else if now >= next
            && let Some(kad) = self.swarm.behaviour_mut().kad.as_mut()
        {
            self.random_walk =
                (now + wait.mul_f64(rand::random_range(0.75..1.25)), (wait * 2).min(RANDOM_WALK.1));
            kad.get_closest_peers(PeerId::random());
        }
    }
}

fn connected_events(peer: &Peer) -> Vec<NetworkEvent> {
    let key = peer.key;
    let connected = NetworkEvent::Connected {
        peer: key,
        outbound: peer.outbound,
        bootstrap: peer.bootstrap,
        addresses: peer.listens_at.clone(),
    };
    let subscribed = |zone: &ZoneName| NetworkEvent::Subscribed { peer: key, zone: zone.clone() };
    std::iter::once(connected).chain(peer.zones.iter().map(subscribed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::transport::transport;
    use crate::proto::identity::Identity;

    /// Two nodes, the second of which takes nobody into its gossip mesh: all that the first publishes is announced to
    /// it in IHAVEs.
    async fn lazy_pair(settings: impl Fn() -> gossipsub::ConfigBuilder) -> (Network, Network) {
        let mut nodes = Vec::new();
        let mut bootstrap = Vec::new();
        for seed in [1, 2] {
            let options = NetworkOptions {
                identity: Identity::from_seed([seed; 32]),
                network: "test".into(),
                zones: vec![ZoneName::root()],
                bootstrap: std::mem::take(&mut bootstrap),
                listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
                discovery: Discovery::Dht,
            };
            let mut gossip = settings();
            if seed == 1 {
                gossip.mesh_outbound_min(0).mesh_n_low(0).mesh_n(0).mesh_n_high(0);
            }
            let transport = transport(&options.keypair().unwrap()).unwrap();
            let mut node = Network::with_gossip(options, transport, gossip).unwrap();
            bootstrap = node.listening().await;
            nodes.push(node);
        }
        let (Some(sender), Some(receiver)) = (nodes.pop(), nodes.pop()) else { unreachable!() };
        (sender, receiver)
    }

    /// Polls both until one event of the second is as wanted; false after `patience`.
    async fn until(
        sender: &mut Network,
        receiver: &mut Network,
        patience: Duration,
        wanted: impl Fn(&NetworkEvent) -> bool,
    ) -> bool {
        let found = async {
            loop {
                tokio::select! {
                    _ = sender.next() => {}
                    event = receiver.next() => if wanted(&event) { return },
                }
            }
        };
        timeout(patience, found).await.is_ok()
    }

    /// Publishes 2,000 messages within one heartbeat, then leaves the zone: does the peer hear of it?
    async fn hears_after_a_flood(settings: impl Fn() -> gossipsub::ConfigBuilder) -> bool {
        let patience = Duration::from_secs(30);
        let (mut sender, mut receiver) = lazy_pair(settings).await;
        let subscribed = |event: &NetworkEvent| matches!(event, NetworkEvent::Subscribed { .. });
        assert!(until(&mut receiver, &mut sender, patience, subscribed).await);
        for batch in 0..20u32 {
            for n in 0..100 {
                sender.publish(&ZoneName::root(), (batch * 100 + n).to_le_bytes().to_vec());
            }
            let gossip = |event: &NetworkEvent| matches!(event, NetworkEvent::Gossip { .. });
            assert!(until(&mut sender, &mut receiver, patience, gossip).await);
        }
        // Two heartbeats, each with its IHAVE.
        until(&mut sender, &mut receiver, Duration::from_millis(2_200), |_| false).await;
        let topic = sender.names.zones[0].1.clone();
        assert!(sender.swarm.behaviour_mut().gossip.unsubscribe(&topic));
        let left = |event: &NetworkEvent| matches!(event, NetworkEvent::Unsubscribed { .. });
        until(&mut sender, &mut receiver, Duration::from_secs(5), left).await
    }

    #[tokio::test]
    async fn a_flood_of_gossip_does_not_silence_the_connection() {
        assert!(hears_after_a_flood(behaviour::gossip_settings).await);
    }

    #[tokio::test]
    async fn a_node_that_slept_dials_at_once() {
        let (mut sender, mut receiver) = lazy_pair(behaviour::gossip_settings).await;
        let patience = Duration::from_secs(30);
        let connected = |event: &NetworkEvent| matches!(event, NetworkEvent::Connected { .. });
        assert!(until(&mut receiver, &mut sender, patience, connected).await);
        let slept = Duration::from_secs(60);
        sender.dialer.disconnected(*receiver.swarm.local_peer_id(), Instant::now() + slept, 1.0);
        assert!(sender.dialer.due(Instant::now()).is_empty());
        sender.ticked.1 -= slept;
        sender.notice_suspension(Instant::now());
        assert_eq!(sender.dialer.due(Instant::now()), [0]);
        let noticed = sender.ready.pop_back();
        let long = |duration: &Duration| *duration > slept / 2 && *duration < slept * 2;
        assert!(
            matches!(&noticed, Some(NetworkEvent::Alert(NetworkAlert::Suspended { duration })) if long(duration))
        );
    }

    /// The library's own limits, so that this test notices when the one above no longer tests anything.
    #[tokio::test]
    async fn with_the_default_control_limits_a_flood_silences_the_connection() {
        let stock = || {
            let (mut settings, stock) = (behaviour::gossip_settings(), gossipsub::Config::default());
            settings.max_control_messages_sent(stock.max_control_messages_sent());
            settings.max_control_message_size(stock.max_control_message_size());
            settings
        };
        assert!(!hears_after_a_flood(stock).await);
    }
}
