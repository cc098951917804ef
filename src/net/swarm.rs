//! The network of one node: libp2p in, named events out. Bytes in, bytes out: it knows no record and decides no
//! question of the protocol.
//!
//! One task owns [`Network`] and polls [`Network::next`], which may be dropped at any await without losing an event.
//! For each peer [`NetworkEvent::Connected`] and [`NetworkEvent::Disconnected`] alternate, and subscriptions lie between
//! them; a peer is connected once it has said (identify) that it is of this network. Gossip and requests may come a
//! little earlier: their topic and protocol name the network too. Every gossip message waits for one verdict; without
//! it the message is not forwarded. Zones come and go while the node runs; nothing is told of a zone once it was left.
//!
//! Below: `gossip` (messages, subscriptions, zones), `connections` (who is connected and who is dialed), `dht` (lookups).
//! What each of them remembers has an owner of its own: `topics`, `routing`, `providers`, `peer_scores`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use libp2p::swarm::{self, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, Transport, gossipsub, identify};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, timeout};

use crate::net::addresses::{is_relayed, peer_id, peer_key};
use crate::net::bootstrap::BootstrapDialer;
use crate::net::budget::{Allowance, Bucket};
use crate::net::handshakes::BoundedHandshakes;
use crate::net::peers::{PEERS_LOW, Peer};
use crate::net::refusals::Refusals;
use crate::net::streams::InboundRequest;
use crate::net::streams::budget::RequestBudget;
use crate::net::streams::calls::OpenCalls;
use crate::net::streams::sources::PeerSources;
use crate::net::transport::Wires;
use crate::net::wall_clock;
use crate::proto::address_block::TrustedNets;
use crate::proto::identity::PeerKey;
use crate::proto::io::Offence;
use crate::proto::name::ZoneName;
use crate::proto::time::Timestamp;
use crate::telemetry::metrics::Metrics;

mod admission;
mod behaviour;
mod candidates;
mod circuits;
mod connections;
mod dht;
mod dial_back;
mod direct_only;
mod event;
mod gossip;
mod gossip_budget;
mod listening;
mod named_dials;
mod options;
mod peer_scores;
mod prefer_direct;
mod providers;
mod reach;
mod reached;
mod relays;
mod remembered;
mod routing;
mod streams;
mod topics;

pub use crate::proto::io::{GossipId, Verdict};
use behaviour::{Behaviour, BehaviourEvent, ProtocolNames};
pub use event::{NetworkAlert, NetworkEvent, Published, Traffic};
use gossip::Received;
pub use gossip_budget::Dropped;
use listening::Listening;
pub use options::{Discovery, NetworkError, NetworkOptions};
use peer_scores::{PeerScores, Penalty};
use reach::Reachability;
pub(crate) use reach::own_reach;
pub use reach::{OwnReach, ReachState};
use reached::ReachedPeers;
pub(crate) use reached::reach;
use remembered::RememberedPeers;
use routing::RoutingTable;
use streams::serve_requests;
use topics::ZoneTopics;

/// Requests of peers that wait for the driver; the streams feel the back-pressure.
pub const INBOUND_REQUESTS_MAX: usize = 64;
/// Microseconds that requests of peers take of the driver: half of its time, whoever asks, and no more than 10 ms in one
/// go, so that nobody here waits long for an answer.
const REQUEST_TIME: Allowance<1> = Allowance { per_second: [500_000.0], burst: [10_000.0] };
/// How often bootstrap peers, excess connections and the number of peers are looked at.
const TICK: Duration = Duration::from_secs(1);
/// A tick this late, by either clock, means that the process or the machine was suspended.
const SUSPENDED_AFTER: Duration = Duration::from_secs(3);
/// Peers in one zone below which new ones are looked for: the low mark of the gossip mesh.
const ZONE_PEERS_LOW: usize = 5;
/// Blocked peers that a status names: keys cost nothing, and a list of thousands helps nobody.
const BLOCKED_TOLD_MAX: usize = 10;
/// How long a clean shutdown waits for its connections to close.
const SHUTDOWN_MAX: Duration = Duration::from_secs(2);
/// How long the bound addresses are waited for after the sockets are open.
const BIND_MAX: Duration = Duration::from_secs(10);

/// The network of one node.
pub struct Network {
    /// Where it is reached, as [`Network::listening`] gives it, kept up with the interfaces of the machine.
    pub addresses: watch::Receiver<Vec<Multiaddr>>,
    swarm: Swarm<Behaviour>,
    names: ProtocolNames,
    topics: ZoneTopics,
    routing: RoutingTable,
    dialer: BootstrapDialer,
    peers: BTreeMap<PeerId, Peer>,
    /// Runs of peers that gave way to another run, each with the end of that one's turn.
    gave_way: BTreeMap<PeerId, (String, Instant)>,
    peer_scores: PeerScores,
    /// Messages without a verdict, oldest first.
    pending_validation: VecDeque<Received>,
    ready: VecDeque<NetworkEvent>,
    requests: mpsc::Receiver<InboundRequest>,
    request_budget: RequestBudget,
    /// What is left of the driver's time to requests of all peers.
    request_time: Bucket<1>,
    trusted_nets: TrustedNets,
    calls: OpenCalls,
    listening: Listening,
    remembered: RememberedPeers,
    reached: ReachedPeers,
    reach: Reachability,
    ticker: Interval,
    ticked: (Instant, SystemTime),
    began: (Instant, Timestamp),
    traffic: Traffic,
    refusals: Refusals,
    sources: PeerSources,
    /// What this node counts; its transport may count into the same.
    pub(crate) metrics: Arc<Metrics>,
}

impl Network {
    /// Opens the listening sockets and starts to dial. Needs a tokio runtime; nothing moves until [`Network::next`].
    pub fn new(options: NetworkOptions, wires: impl Into<Wires>) -> Result<Network, NetworkError> {
        Network::with_gossip(options, wires.into(), behaviour::gossip_settings())
    }

    fn with_gossip(
        options: NetworkOptions,
        wires: Wires,
        gossip: gossipsub::ConfigBuilder,
    ) -> Result<Network, NetworkError> {
        let keypair = options.keypair()?;
        let names = ProtocolNames::new(&options.network)?;
        let topics = ZoneTopics::new(&options.network);
        let gossip = gossip.build().map_err(|error| NetworkError::Setup(error.to_string()))?;
        let refusals = Refusals::default();
        let behaviour =
            Behaviour::new(&options, &names, &topics, gossip, refusals.clone(), wires.relay_client)?;
        let transport =
            BoundedHandshakes::new(wires.transport, options.trusted_nets.clone(), refusals.clone()).boxed();
        let settings = swarm::Config::with_tokio_executor()
            .with_idle_connection_timeout(behaviour::IDLE_MAX)
            // QUIC and IPv6 get a head start, and an address that
            // does not answer delays the others by a moment only.
            .with_smart_dial();
        let mut swarm = Swarm::new(transport, behaviour, keypair.public().to_peer_id(), settings);
        let reach = Reachability::new(options.announce.clone(), options.reach.relay);
        let listening = Listening::open(&mut swarm, options.listen, options.announce)?;
        let sources = PeerSources::default();
        let request_budget = RequestBudget::default();
        let requests = serve_requests(&swarm, &names, &sources, &refusals, &request_budget)?;
        let (now, mut ticker) = (Instant::now(), interval(TICK));
        let trusted_nets = options.trusted_nets.clone();
        let remembered = RememberedPeers::open(options.peers_file, &options.network, trusted_nets, now);
        // The default would make up for every tick of a suspension at once.
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut network = Network {
            addresses: listening.told.subscribe(),
            swarm,
            names,
            topics,
            routing: RoutingTable::new(now),
            dialer: BootstrapDialer::new(options.bootstrap, now),
            peers: BTreeMap::new(),
            gave_way: BTreeMap::new(),
            peer_scores: PeerScores::default(),
            pending_validation: VecDeque::new(),
            ready: VecDeque::new(),
            requests,
            request_budget,
            request_time: Bucket::new(REQUEST_TIME, now),
            trusted_nets: options.trusted_nets,
            calls: OpenCalls::default(),
            listening,
            remembered,
            reached: ReachedPeers::default(),
            reach,
            ticker,
            ticked: (now, SystemTime::now()),
            began: (now, wall_clock()),
            traffic: Traffic::default(),
            refusals,
            sources,
            metrics: Arc::default(),
        };
        options.zones.iter().for_each(|zone| network.join_zone(zone));
        Ok(network)
    }

    /// Waits until every socket has told its addresses, and gives all of them with `/p2p/`, first those that are announced,
    /// then by reach: loopback comes last. `0.0.0.0` has one per interface.
    pub async fn listening(&mut self) -> Vec<Multiaddr> {
        let deadline = Instant::now() + BIND_MAX;
        // One interface that never comes up must not keep the node from the others.
        while let Some(wait) = self.listening.wait(deadline) {
            // Peers may connect meanwhile; what they cause waits in `ready`.
            if let Ok(event) = timeout(wait, self.swarm.select_next_some()).await {
                self.handle_swarm(event);
            }
        }
        self.addresses.borrow().clone()
    }

    /// The next event. May be dropped while it waits; nothing is lost.
    pub async fn next(&mut self) -> NetworkEvent {
        loop {
            // Before anything new is polled, so that `ready` stays short and events keep their order.
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            let rest = self.request_time.wait(Instant::now());
            tokio::select! {
                event = self.swarm.select_next_some() => self.handle_swarm(event),
                Some(request) = self.requests.recv(), if rest.is_zero() => return NetworkEvent::Request(request),
                // Those that wait are looked at again.
                () = sleep(rest), if !rest.is_zero() => {}
                _ = self.ticker.tick() => self.handle_tick(),
            }
        }
    }

    /// A request of a peer took so long.
    pub(crate) fn charge_request(&mut self, peer: &PeerKey, worked: Duration) {
        self.request_budget.charge(peer, 0, 0, worked);
        self.request_time.charge([worked.as_secs_f64() * 1e6]);
    }

    /// Holds an offence outside of gossip against a peer: it is listened to less, and blocked when it goes on.
    pub fn penalize(&mut self, peer: PeerKey, offence: Offence) {
        self.metrics.offended(match offence {
            Offence::Record(_) => "record",
            Offence::Request => "request",
            Offence::Sync => "sync",
            Offence::Answer => "answer",
            Offence::Greedy => "greedy",
        });
        let Some(id) = peer_id(&peer) else { return };
        match self.peer_scores.add(id, offence, Instant::now()) {
            Penalty::Scored(score) => {
                self.set_score(&id, score);
            }
            Penalty::Blocked => {
                tracing::warn!(event = "peer_blocked", %peer, ?offence, "peer blocked");
                // This closes its connections as well, and refuses new ones in both directions.
                self.swarm.behaviour_mut().blocked.block_peer(id);
                self.ready.push_back(NetworkEvent::Alert(NetworkAlert::Blocked { peer }));
            }
        }
    }

    /// The connected peers of our network.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values().filter(|peer| peer.identified)
    }

    /// What is wrong now, and since when: bootstrap peers with whom there is no connection, sockets that were lost, peers that
    /// are blocked.
    pub fn problems(&self) -> Vec<(NetworkAlert, Timestamp)> {
        let blocked = self
            .peer_scores
            .blocked()
            .filter_map(|(peer, since)| Some((NetworkAlert::Blocked { peer: peer_key(&peer)? }, since)));
        let lost = self.listening.lost.iter().cloned();
        let unreached = self.reach.private_since().map(|since| (NetworkAlert::NotReachable, since));
        let all = self.dialer.troubles().chain(lost).chain(blocked.take(BLOCKED_TOLD_MAX)).chain(unreached);
        // From one moment that both clocks told, so that what stands does not move.
        let (began, wall) = self.began;
        all.map(|(alert, since)| (alert, wall + since.saturating_duration_since(began))).collect()
    }

    /// Counters and sizes.
    pub fn traffic(&self) -> Traffic {
        let gossip = &self.swarm.behaviour().gossip;
        let mesh =
            self.topics.iter().map(|(zone, topic)| (zone.clone(), gossip.mesh_peers(&topic.hash()).count()));
        let info = self.swarm.network_info();
        Traffic {
            peers: self.peers().count(),
            connections: info.connection_counters().num_established() as usize,
            blocked: self.peer_scores.blocked().count(),
            bootstrap: self.dialer.states(),
            mesh: mesh.collect(),
            refused: self.refusals.counts(),
            gossip_dropped: gossip.budget().dropped(),
            requests_waited: self.request_budget.waited(),
            ..self.traffic.clone()
        }
    }

    /// Closes all connections, so that the peers notice at once. Takes at most two seconds.
    pub async fn shutdown(mut self) {
        // Peers that see a clean end need not wait for lost
        // pings to take this node's agents for unreachable.
        let open: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in open {
            // An error says that it is gone already.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closed = async {
            while self.swarm.connected_peers().next().is_some() {
                // What still happens is told to nobody: the driver has ended.
                let _ = self.swarm.select_next_some().await;
            }
        };
        let _ = timeout(SHUTDOWN_MAX, closed).await;
        self.remembered.close().await;
    }

    fn handle_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.handle_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                if endpoint.is_dialer() {
                    self.metrics.dialed("ok");
                }
                self.handle_connected(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, .. } => {
                self.handle_closed(peer_id, connection_id, num_established);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.handle_dial_failed(connection_id, &error);
            }
            SwarmEvent::NewListenAddr { listener_id, .. } => self.listening.bound(&self.swarm, listener_id),
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                if !is_relayed(&address) {
                    self.reach.moved(&mut self.swarm);
                }
                self.listening.tell(&self.swarm);
            }
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                if reach::lost_relay(self, listener_id) {
                    return;
                }
                self.listening.bound(&self.swarm, listener_id);
                let reason = reason.err().map_or("closed".into(), |error| error.to_string());
                let lost = NetworkAlert::ListenerLost { reason };
                self.listening.lost.push((lost.clone(), Instant::now()));
                self.ready.push_back(NetworkEvent::Alert(lost));
            }
            _ => {}
        }
    }

    fn handle_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Gossip(event) => self.handle_gossip(event),
            BehaviourEvent::Identify(identify::Event::Received { connection_id, peer_id, info }) => {
                self.handle_identified(peer_id, connection_id, info);
            }
            BehaviourEvent::Ping(event) => self.handle_ping(event),
            BehaviourEvent::Kad(event) => self.handle_kad(event),
            BehaviourEvent::Relay(event) => reach::handle_relay(self, &event),
            BehaviourEvent::RelayClient(event) => reach::handle_relay_client(self, &event),
            BehaviourEvent::HolePunching(event) => reach::handle_hole_punching(&event),
            BehaviourEvent::Candidates(event) => reach::handle_tried(self, event),
            BehaviourEvent::Neighbours(event) => reach::handle_neighbours(self, event),
            _ => {}
        }
    }

    fn handle_tick(&mut self) {
        let now = Instant::now();
        // First, because it makes peers due that are dialed further below in the same tick.
        self.notice_suspension(now);
        for (peer, score) in self.peer_scores.fade(now) {
            self.set_score(&peer, score);
        }
        self.score_silent_peers(now);
        for peer in self.peer_scores.released(now) {
            self.swarm.behaviour_mut().blocked.unblock_peer(peer);
        }
        self.routing.flush(self.swarm.behaviour_mut().kad.as_mut(), now);
        self.dial_bootstrap_peers(now);
        // After those, and not them again.
        self.remembered.dial(&mut self.swarm, self.peers.len(), now);
        self.remembered.keep(&self.peers, now);
        self.close_excess(now);
        reach::review(self, now);
        // Eight peers of other zones are no help to a zone with a mesh of two.
        let enough = self.peers.len() >= PEERS_LOW && !is_lonely(&self.topics, &self.peers);
        let kad = self.swarm.behaviour_mut().kad.as_mut();
        self.routing.walk_unless(enough, kad, now);
        let kad = self.swarm.behaviour_mut().kad.as_mut();
        self.routing.publish_provided(kad, &self.topics);
    }

    /// A process that was stopped, or a machine that slept, finds its connections dead: everything is dialed at once.
    fn notice_suspension(&mut self, now: Instant) {
        let (monotonic, wall) = std::mem::replace(&mut self.ticked, (now, SystemTime::now()));
        // The monotonic clock stands still while Linux sleeps,
        // and the wall clock may be set back: the greater counts.
        let slept = self.ticked.1.duration_since(wall).unwrap_or_default().max(now - monotonic);
        // A wall clock that was set forward looks the same, and costs a few dials.
        if slept >= TICK + SUSPENDED_AFTER {
            self.dialer.retry_now(now);
            self.remembered.retry_now(now);
            self.routing.walk_now(now);
            self.ready.push_back(NetworkEvent::Alert(NetworkAlert::Suspended { duration: slept - TICK }));
        }
    }
}

/// Whether some zone of this node has too few connected peers.
fn is_lonely(topics: &ZoneTopics, peers: &BTreeMap<PeerId, Peer>) -> bool {
    let is_member = |peer: &&Peer, zone: &ZoneName| peer.identified && peer.zones.contains(zone);
    let members = |zone: &ZoneName| peers.values().filter(|peer| is_member(peer, zone)).count();
    topics.iter().any(|(zone, _)| members(zone) < ZONE_PEERS_LOW)
}

#[cfg(test)]
mod hostile_tests;

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
                zones: vec![crate::proto::name::ZoneId::open(ZoneName::root())],
                bootstrap: std::mem::take(&mut bootstrap),
                listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
                announce: Vec::new(),
                peers_file: None,
                trusted_nets: TrustedNets::default(),
                discovery: Discovery::Dht,
                reach: Default::default(),
            };
            let mut gossip = settings();
            if seed == 1 {
                gossip.mesh_outbound_min(0).mesh_n_low(0).mesh_n(0).mesh_n_high(0);
            }
            let transport = transport(&options.keypair().unwrap()).unwrap();
            let mut node = Network::with_gossip(options, transport.into(), gossip).unwrap();
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
        sender.leave_zone(&ZoneName::root());
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

    #[tokio::test]
    async fn what_was_not_told_of_a_zone_when_it_was_left_is_told_no_more() {
        let (mut sender, mut receiver) = lazy_pair(behaviour::gossip_settings).await;
        let patience = Duration::from_secs(30);
        let subscribed = |event: &NetworkEvent| matches!(event, NetworkEvent::Subscribed { .. });
        assert!(until(&mut receiver, &mut sender, patience, subscribed).await);
        sender.publish(&ZoneName::root(), b"late".to_vec());
        let arrived = async {
            while receiver.pending_validation.is_empty() {
                tokio::select! {
                    _ = sender.next() => {}
                    event = receiver.swarm.select_next_some() => receiver.handle_swarm(event),
                }
            }
        };
        timeout(patience, arrived).await.expect("the message arrives");
        receiver.leave_zone(&ZoneName::root());
        assert!(receiver.pending_validation.is_empty(), "it is judged");
        assert!(receiver.ready.iter().all(|event| event.zone().is_none()), "{:?}", receiver.ready);
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
