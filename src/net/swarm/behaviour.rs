//! The protocols a node speaks and their settings. Every number that differs from the library's default says why.
//!
//! The network's name is part of the identify version, of the protocol names of Kademlia and sync, and of the gossip
//! topics, so that two worlds never mix even when somebody connects them.

use std::num::NonZeroUsize;
use std::time::Duration;

use libp2p::gossipsub::{
    self, MaxCountSubscriptionFilter, Message, MessageAuthenticity, MessageId, PeerScoreParams,
    PeerScoreThresholds, TopicScoreParams, ValidationMode, score_parameter_decay,
};
use libp2p::identity::Keypair;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{
    PeerId, StreamProtocol, allow_block_list, connection_limits, dcutr, identify, kad, mdns, ping, relay,
};
use sha2::{Digest, Sha256};

use super::admission::Admission;
use super::candidates::Candidates;
use super::dial_back::DialBack;
use super::gossip_budget::{BudgetedGossip, GossipBudget};
use super::named_dials::NamedDials;
use super::prefer_direct::PreferDirect;
use super::providers::ProviderStore;
use super::routing::Kad;
use super::topics::{ZoneTopicFilter, ZoneTopics};
use crate::net::addresses::named_peer;
use crate::net::peers::INBOUND_MAX;
use crate::net::refusals::Refusals;
use crate::net::swarm::{Discovery, NetworkError, NetworkOptions};
use crate::proto::io::Protocol;
use crate::proto::limits::{CALL_TIME_MAX, GOSSIP_BYTES_MAX};

/// Connections this node opened. A young node passes through many before it closes what it has in excess; at 24 the
/// refused lookups of a network of 50 starting at once cost more CPU time than the connections.
const OUTBOUND_MAX: u32 = 48;
/// Outbound handshakes under way. Inbound ones are bounded below the swarm (`handshakes`).
const DIALING_MAX: u32 = 64;
/// Connections with one peer: both dial at the same time, over two transports at worst.
const PER_PEER_MAX: u32 = 3;

/// Largest gossip RPC. More than the largest control message and, with 8 KiB to spare, than the largest payload: the
/// decoder measures its whole read buffer.
const RPC_BYTES_MAX: usize = 512 * 1024;
/// Largest control part of an RPC that is accepted. The default of 16 KiB is below what a stock sender packs into one
/// IHAVE; the receiver then drops its side of the stream, and that direction is dead without an event or an error.
const CONTROL_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a message id.
const GOSSIP_ID_BYTES: usize = 20;
/// Most ids in one IHAVE sent: 500 ids of 20 bytes stay below 16 KiB, so that receivers with default settings live too.
const CONTROL_IDS_MAX: usize = 500;
// An IHAVE fits a default receiver; a control part fits an RPC; a payload fits with 8 KiB to spare.
const _: () = assert!(CONTROL_IDS_MAX * (GOSSIP_ID_BYTES + 2) < 16 * 1024);
const _: () = assert!(CONTROL_BYTES_MAX < RPC_BYTES_MAX && GOSSIP_BYTES_MAX + 8 * 1024 <= RPC_BYTES_MAX);
/// Messages queued for one peer; what finds no room is for sync to bring. A peer that reads nothing costs as many of 56 KiB, and
/// a mesh full of such peers at most 64 MiB.
const QUEUE_MAX: usize = 64;
const _: () = assert!(MESH_HIGH * QUEUE_MAX * GOSSIP_BYTES_MAX <= 64 * 1024 * 1024);

/// Most peers in the mesh of a zone.
pub(super) const MESH_HIGH: usize = 8;

/// Answers of a Kademlia query and copies of an entry. 20 is for a public DHT of strangers with hours of churn.
const KAD_REPLICATION: usize = 8;
/// Largest Kademlia message: 20 peers with 8 addresses each fit.
const KAD_PACKET_BYTES_MAX: usize = 16 * 1024;
/// How often the routing table is refreshed. A refresh dials most of a small network, so not often.
const KAD_REFRESH: Duration = Duration::from_secs(30 * 60);
/// How long others are told that a peer provides a zone, and how often it says so again: two of its messages may be lost.
const PROVIDER_TTL: Duration = Duration::from_secs(2 * 3_600);
const PROVIDER_INTERVAL: Duration = Duration::from_secs(40 * 60);

/// How often each connection is measured. Pings are nearly all the traffic of an idle node.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// A connection that no protocol claims is closed after this time by whoever notices. A backstop: the one who opened a
/// connection closes it long before (`peers`). A shorter time would cut bootstrap peers off, and leave gossip nobody
/// outside its mesh to repair from.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(3_600);

/// Circuits that this node relays for others, and those of one peer.
const CIRCUITS_MAX: usize = 32;
const CIRCUITS_PER_PEER_MAX: usize = 4;
/// How long a circuit may stand, and what may go through it: the longest call, and ten with the largest input and output one
/// after the other. With less a call would be cut in the midst of usual work.
const CIRCUIT_TIME: Duration = Duration::from_secs(CALL_TIME_MAX.as_secs() + 30);
const CIRCUIT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// All protocols of a node. The limits come first: they refuse before the others allocate.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) limits: connection_limits::Behaviour,
    pub(super) blocked: allow_block_list::Behaviour<allow_block_list::BlockedPeers>,
    pub(super) admission: Admission,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: ping::Behaviour,
    pub(super) gossip: BudgetedGossip,
    pub(super) kad: NamedDials,
    pub(super) streams: PreferDirect,
    pub(super) relay: Toggle<relay::Behaviour>,
    pub(super) relay_client: Toggle<relay::client::Behaviour>,
    pub(super) hole_punching: Toggle<dcutr::Behaviour>,
    pub(super) candidates: Toggle<Candidates>,
    pub(super) dial_back: Toggle<DialBack>,
    pub(super) neighbours: Toggle<mdns::tokio::Behaviour>,
}

pub(super) type Gossip = gossipsub::Behaviour<GossipBudget, MaxCountSubscriptionFilter<ZoneTopicFilter>>;

impl Behaviour {
    pub(super) fn new(
        options: &NetworkOptions,
        names: &ProtocolNames,
        topics: &ZoneTopics,
        gossip: gossipsub::Config,
        refusals: Refusals,
        relay_client: Option<relay::client::Behaviour>,
    ) -> Result<Behaviour, NetworkError> {
        let (keypair, reach) = (options.keypair()?, options.reach);
        let peer = keypair.public().to_peer_id();
        let mut admission = Admission::new(options.trusted_nets.clone(), refusals.clone());
        options.bootstrap.iter().filter_map(named_peer).for_each(|peer| admission.name(peer));
        let kad = match options.discovery {
            Discovery::Dht => Some(kad_behaviour(&keypair, names.kad.clone())),
            Discovery::Off => None,
        };
        let is_reached = relay_client.is_some();
        let neighbours = reach.mdns.then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), peer));
        let neighbours =
            neighbours.transpose().map_err(|error| NetworkError::Setup(format!("mdns: {error}")))?;
        Ok(Behaviour {
            limits: connection_limits::Behaviour::new(limits()),
            blocked: allow_block_list::Behaviour::default(),
            admission,
            identify: identify::Behaviour::new(
                identify::Config::new(names.identify.clone(), keypair.public())
                    .with_agent_version(agent())
                    // Identify speaks once; an address that comes
                    // later would stay unknown to who is connected.
                    .with_push_listen_addr_updates(true)
                    // The library would dial whatever peers name; what is kept of it is kept here, filtered.
                    .with_cache_size(0),
            ),
            ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_INTERVAL)),
            gossip: gossip_behaviour(topics, gossip)?,
            kad: NamedDials::new(kad, refusals.clone()),
            streams: PreferDirect::new(),
            relay: is_reached.then(|| relay_behaviour(peer)).into(),
            hole_punching: is_reached.then(|| dcutr::Behaviour::new(peer)).into(),
            relay_client: relay_client.into(),
            candidates: is_reached.then(Candidates::new).into(),
            dial_back: reach.tries_others.then(|| DialBack::new(refusals)).into(),
            neighbours: neighbours.into(),
        })
    }
}

/// The protocol names of a network.
#[derive(Clone, Debug)]
pub(super) struct ProtocolNames {
    /// The identify protocol version: equal or not of our network.
    pub(super) identify: String,
    pub(super) kad: StreamProtocol,
    sync: StreamProtocol,
    ask: StreamProtocol,
    pub(super) call: StreamProtocol,
}

impl ProtocolNames {
    pub(super) fn new(network: &str) -> Result<ProtocolNames, NetworkError> {
        let protocol = |name: String| {
            StreamProtocol::try_from_owned(name).map_err(|error| NetworkError::Setup(error.to_string()))
        };
        Ok(ProtocolNames {
            identify: format!("/aop/{network}/1"),
            kad: protocol(format!("/aop/{network}/kad/1"))?,
            sync: protocol(format!("/aop/{network}/sync/1"))?,
            ask: protocol(format!("/aop/{network}/ask/2"))?,
            call: protocol(format!("/aop/{network}/call/1"))?,
        })
    }

    /// The name of a protocol's streams.
    pub(super) fn of(&self, protocol: Protocol) -> &StreamProtocol {
        match protocol {
            Protocol::Sync => &self.sync,
            Protocol::Ask => &self.ask,
        }
    }
}

/// Program, version and, after a space, a random number of this run: by it peers notice a restart.
fn agent() -> String {
    format!("{} {:016x}", concat!("aop/", env!("CARGO_PKG_VERSION")), rand::random::<u64>())
}

fn limits() -> connection_limits::ConnectionLimits {
    connection_limits::ConnectionLimits::default()
        .with_max_pending_outgoing(Some(DIALING_MAX))
        .with_max_established_outgoing(Some(OUTBOUND_MAX))
        .with_max_established_per_peer(Some(PER_PEER_MAX))
}

/// The gossip settings. `history_length` stays 5 heartbeats: a verdict later than 5 s is too late to forward.
pub(super) fn gossip_settings() -> gossipsub::ConfigBuilder {
    let mut settings = gossipsub::ConfigBuilder::default();
    settings
        // A narrower mesh and less lazy gossip than the library's 12, 6 and 0.25: at 50 idle nodes half the bytes. What a
        // lost message leaves open is sync's to repair.
        .mesh_n(6)
        .mesh_n_low(5)
        .mesh_n_high(MESH_HIGH)
        .gossip_lazy(3)
        .gossip_factor(0.1)
        .heartbeat_interval(Duration::from_secs(1))
        .heartbeat_initial_delay(Duration::from_millis(100))
        // Nothing goes on before the node's verdict: a forgery ends at the first honest peer.
        .validate_messages()
        // A signature of the envelope would be checked for every copy, a record's own is checked once.
        .validation_mode(ValidationMode::Anonymous)
        .message_id_fn(content_id)
        .max_transmit_size(RPC_BYTES_MAX)
        .max_control_message_size(CONTROL_BYTES_MAX)
        .max_control_messages_sent(CONTROL_IDS_MAX)
        .connection_handler_queue_len(QUEUE_MAX)
        // Twice the default: a copy that arrives later than this is handed out a second time.
        .duplicate_cache_time(Duration::from_secs(120))
        // Own messages go to every peer of the zone: a mesh of peers that forward nothing then holds back nothing that is
        // written here. A hub pays for it with a copy for each of its peers.
        .flood_publish(true)
        // Places of the mesh that stay with peers that this node chose itself.
        .mesh_outbound_min(2);
    settings
}

/// Equal bytes in equal zones are one message, whoever sends them: 20 bytes of a hash over topic and data.
fn content_id(message: &Message) -> MessageId {
    let digest = Sha256::new()
        .chain_update(message.topic.as_str())
        // No topic contains a zero byte, so none can be continued by its data into another pair.
        .chain_update([0])
        .chain_update(&message.data)
        .finalize();
    MessageId::new(&digest[..GOSSIP_ID_BYTES])
}

/// Without a zone so far: each is subscribed to when the node joins it.
fn gossip_behaviour(topics: &ZoneTopics, config: gossipsub::Config) -> Result<BudgetedGossip, NetworkError> {
    let failed = |error: &str| NetworkError::Setup(error.into());
    let anonymous = MessageAuthenticity::Anonymous;
    let budget = GossipBudget::default();
    let (filter, transform) = (topics.filter(), budget.clone());
    let made = Gossip::new_with_subscription_filter_and_transform(anonymous, config, filter, transform);
    let mut gossip = made.map_err(failed)?;
    // The score must be switched on before the first subscription.
    gossip.with_peer_score(score(), thresholds()).map_err(|error| failed(&error))?;
    Ok(BudgetedGossip::new(gossip, budget))
}

/// Scores punish proven misbehaviour and nothing else.
///
/// Off: too few deliveries (P3, P3b), because a registry is quiet for hours and silence alone is not a fault (who is silent where
/// others wait for its place is scored by `gossip`); many peers on
/// one IP address, because a machine, a cluster or an office behind one NAT is the normal small network (the default
/// weight cuts off the 12th node of an address). Rewards are kept small, so that no credit outweighs a forgery.
fn score() -> PeerScoreParams {
    PeerScoreParams {
        app_specific_weight: 1.0,
        ip_colocation_factor_weight: 0.0,
        // A loaded node breaks a promise now and then; the penalty is the square of what lies above the threshold.
        behaviour_penalty_threshold: 6.0,
        // Slow is not hostile: 1,000 dropped messages cost what one forged message costs.
        slow_peer_weight: -0.01,
        ..PeerScoreParams::default()
    }
}

/// The score of each topic, of every zone alike.
pub(super) fn topic_score() -> TopicScoreParams {
    TopicScoreParams {
        topic_weight: 1.0,
        // Rewards of a topic end at 3, one for time and two
        // for first deliveries: a rejected message costs 10.
        time_in_mesh_weight: 0.01,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 100.0,
        first_message_deliveries_weight: 0.1,
        first_message_deliveries_cap: 20.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        // An honest node forwards nothing it has not verified. One rejected message loses the lazy gossip of that peer
        // (below -10 with the rewards gone), three cut it off.
        invalid_message_deliveries_weight: -10.0,
        invalid_message_deliveries_decay: score_parameter_decay(Duration::from_secs(600)),
        ..TopicScoreParams::default()
    }
}

fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        // Rejected messages count squared, so one, two and
        // three cost 10, 40 and 90: each bound lies just above.
        gossip_threshold: -9.0,
        publish_threshold: -35.0,
        graylist_threshold: -80.0,
        // Without effect here: peers are exchanged by the DHT and never by gossip.
        accept_px_threshold: 0.0,
        opportunistic_graft_threshold: 0.5,
    }
}

/// Off until the node is reached from everywhere.
fn relay_behaviour(peer: PeerId) -> relay::Behaviour {
    let config = relay::Config {
        // A reservation is an entry beside a connection, whose places are shared out by block.
        max_reservations: INBOUND_MAX,
        max_reservations_per_peer: 1,
        max_circuits: CIRCUITS_MAX,
        max_circuits_per_peer: CIRCUITS_PER_PEER_MAX,
        max_circuit_duration: CIRCUIT_TIME,
        max_circuit_bytes: CIRCUIT_BYTES_MAX,
        ..relay::Config::default()
    };
    let mut relay = relay::Behaviour::new(peer, config);
    relay.set_status(Some(relay::Status::Disable));
    relay
}

fn kad_behaviour(keypair: &Keypair, protocol: StreamProtocol) -> Kad {
    let peer = keypair.public().to_peer_id();
    let mut config = kad::Config::new(protocol);
    config
        .set_replication_factor(NonZeroUsize::new(KAD_REPLICATION).unwrap_or(NonZeroUsize::MIN))
        .set_max_packet_size(KAD_PACKET_BYTES_MAX)
        // Only a peer that identified itself as one of this network, and that serves the DHT, is entered.
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        // While a query runs no excess connection is closed, so one that hangs must end soon.
        .set_query_timeout(Duration::from_secs(30))
        .set_periodic_bootstrap_interval(Some(KAD_REFRESH))
        // Values are not stored; of provider records the store takes what its limits allow.
        .set_provider_record_ttl(Some(PROVIDER_TTL))
        .set_provider_publication_interval(Some(PROVIDER_INTERVAL))
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_record_ttl(None)
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_caching(kad::Caching::Disabled);
    let mut kad = kad::Behaviour::with_config(peer, ProviderStore::new(peer), config);
    // Unforced, a node serves only after an external address was confirmed. On a loopback or in a local network that
    // never happens: nobody would be in anybody's table, and no error would say so.
    kad.set_mode(Some(kad::Mode::Server));
    kad
}
