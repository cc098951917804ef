//! A node as it runs on a host: the network, the agents of this host, and the [`Handle`] through which the surfaces reach
//! both. What a node knows becomes JSON and sentences in `view`, and nowhere else.

mod agent_states;
mod described;
mod events;
mod handle;
mod imports;
mod joined;
mod limits;
mod monitor;
mod problem_log;
mod store_files;
mod tasks;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use rand::Rng;
use serde_bytes::ByteBuf;
use tokio::sync::{RwLock, broadcast, mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinHandle};

pub use self::events::Events;
use self::handle::HandleOf;
pub use self::handle::{
    AgentReads, BATCH_CALLS_MAX, CallOptions, CatalogAgent, CatalogClient, CatalogPage, CatalogQuery,
    DriverState, Handle, HealthClient, ImportClient, ImportSettings, NamedAgent, OpenCall, PublishedServer,
    QueueClient, ServerDocuments, ServerQuery, TASK_WAIT_MAX, TaskClient, call_batch,
};
pub use self::imports::UnreadableImports;
use self::joined::JoinedZones;
pub use self::joined::UnreadableZones;
pub use self::limits::limits;
pub use self::view::{HttpReadings, join_line, unmade_checks};
use crate::agents::Agents;
use crate::document::CardKeys;
pub use crate::net::addresses::ReachOptions;
use crate::net::addresses::{is_of_world, named_peer, peer_key};
use crate::net::client::NodeClient;
use crate::net::driver::Driver;
pub use crate::net::refusals::{Reason, Refusals};
pub use crate::net::store::{FLOOR_BYTES, Holder, free_bytes, holder};
use crate::net::store::{Loaded, Store, StoreError};
use crate::net::store_keeper::StoreKeeper;
use crate::net::swarm::{Discovery, Network, NetworkError, NetworkOptions};
use crate::net::transport::{PeerTransport, counted_transport};
use crate::net::verifier::Verifier;
use crate::net::{EVENTS_MAX, REQUESTS_MAX, calls, read_rows, wall_clock};
use crate::private_file::FolderError;
use crate::proto::address_block::TrustedNets;
use crate::proto::card::Residency;
use crate::proto::config::Config;
use crate::proto::identity::{Identity, PeerKey};
use crate::proto::io::Role;
use crate::proto::message::Gateway;
use crate::proto::name::ZoneName;
use crate::proto::node::Node;
use crate::proto::node_name::NodeName;

/// The file of a data folder in which peers are remembered.
const PEERS_FILE: &str = "peers.json";
/// A clock is set and a quota gets room by itself: what was refused is offered again after this long.
const OFFER_AGAIN: Duration = Duration::from_secs(60);

/// What a node needs to start.
pub struct Options {
    /// Its key.
    pub identity: Identity,
    /// Whether the key was made for this data folder just now. If not, peers may hold what an earlier folder wrote with it.
    pub new_key: bool,
    /// What people call it.
    pub name: Option<NodeName>,
    /// The world it belongs to.
    pub network: String,
    /// Zones it serves; the first is its home zone.
    pub zones: Vec<ZoneName>,
    /// Zones it replicates without serving them.
    pub follows: Vec<ZoneName>,
    /// The keys of zones that have one, as the operator names them.
    pub zone_keys: BTreeMap<ZoneName, PeerKey>,
    /// For zones with a key, the grants by which this node names them to the zone above.
    pub delegation_grants: BTreeMap<ZoneName, Vec<ByteBuf>>,
    /// Whether it may be a gateway of its zones.
    pub gateway: Gateway,
    /// Peers to stay connected to.
    pub bootstrap: Vec<Multiaddr>,
    /// Where it listens.
    pub listen: Vec<Multiaddr>,
    /// Where others reach it beside that, such as the address of a router that forwards to it.
    pub announce: Vec<Multiaddr>,
    /// What it does for reach, its own and that of others.
    pub reach: ReachOptions,
    /// Nets whose addresses have no share of what peers may take.
    pub trusted_nets: TrustedNets,
    /// Where it keeps its records.
    pub data_dir: PathBuf,
    /// The agents of this host; those it offered before and no longer has are withdrawn.
    pub agents: Agents,
    /// Where data stays, by their cards, at the hosts to which inputs may be sent; everywhere if there is none.
    pub residency: Vec<Residency>,
    /// Keys by which signatures of A2A cards are verified.
    pub card_keys: CardKeys,
    /// Registries that it imports regularly.
    pub imports: Vec<ImportSettings>,
    /// Its timings and limits; what the other fields say stands above what it says of that.
    pub timings: Config,
}

impl Options {
    /// A node of the root zone that is reachable on this host alone, by a free port, knows nobody and offers nothing; its key
    /// was made for its data folder.
    pub fn new(identity: Identity, network: &str, data_dir: impl Into<PathBuf>) -> Options {
        Options {
            identity,
            new_key: true,
            name: None,
            network: network.into(),
            zones: vec![ZoneName::root()],
            follows: Vec::new(),
            zone_keys: BTreeMap::new(),
            delegation_grants: BTreeMap::new(),
            gateway: Gateway::Auto,
            bootstrap: Vec::new(),
            listen: vec![Multiaddr::from(Ipv4Addr::LOCALHOST).with(Protocol::Tcp(0))],
            announce: Vec::new(),
            reach: ReachOptions::default(),
            trusted_nets: TrustedNets::default(),
            data_dir: data_dir.into(),
            agents: Agents::new(ZoneName::root()),
            residency: Vec::new(),
            card_keys: CardKeys::default(),
            imports: Vec::new(),
            timings: Config::default(),
        }
    }
}

/// Whether hosts outside of a node's own networks may dial an address that it tells; of a name it is believed.
pub fn is_dialable_by_all(address: &str) -> bool {
    address.parse().is_ok_and(|address| is_of_world(&address))
}

/// Why a node did not start, or did not stop cleanly.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The zones that were joined in an earlier run.
    #[error(transparent)]
    Zones(#[from] UnreadableZones),
    /// The imports of earlier runs.
    #[error(transparent)]
    Imports(#[from] UnreadableImports),
    /// The folder of the tasks.
    #[error(transparent)]
    Tasks(#[from] FolderError),
    /// The sockets.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The driver ended with this message.
    #[error("{0}")]
    Stopped(String),
}

/// A running node. Dropping it ends the node without a goodbye.
pub struct Running {
    /// To talk to it.
    pub handle: Handle,
    /// Where it could be reached when it started, with `/p2p/`: what it announces first, loopback last.
    pub listen: Vec<Multiaddr>,
    /// The same as it is now.
    pub addresses: watch::Receiver<Vec<Multiaddr>>,
    /// The zones that it served when it started, its home zone first.
    pub zones: Vec<ZoneName>,
    stop: oneshot::Sender<()>,
    driver: JoinHandle<Result<(), StoreError>>,
    /// How the driver ended, once that was asked: a task tells it once.
    ended: Option<Result<(), StartError>>,
}

/// Whether this machine has IPv6: one where it is switched off has not even its loopback address.
pub fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// Opens the store, binds the sockets and starts the driver on the present tokio runtime.
pub async fn start(mut options: Options) -> Result<Running, StartError> {
    let dir = options.data_dir.clone();
    let opened = tokio::task::spawn_blocking(move || Store::open(&dir)).await;
    let (store, loaded) = opened.map_err(|error| StartError::Stopped(error.to_string()))??;
    let joined = JoinedZones::unkept(&options.zones, &options.follows).read(&options.data_dir)?;
    options.zones.extend(joined.beside_settings(Role::Member).cloned());
    options.follows.extend(joined.beside_settings(Role::Follower).cloned());
    let peers_file = Some(options.data_dir.join(PEERS_FILE));
    let network = NetworkOptions { peers_file, ..network_options(&options, Discovery::Dht) };
    let metrics = Arc::default();
    let transport = counted_transport(&network.keypair()?, &metrics)?;
    let mut network = Network::new(network, transport)?;
    network.metrics = metrics;
    let (dir, world) = (options.data_dir.clone(), options.network.clone());
    let imports = std::mem::take(&mut options.imports);
    let running = assemble(options, network, store, loaded, joined).await?;
    tokio::spawn(store_files::measure(running.handle.clone(), dir.clone()));
    TaskClient::new(running.handle.clone()).resume(&dir).await?;
    ImportClient::new(running.handle.clone()).resume(&dir, &world, imports).await?;
    Ok(running)
}

/// As [`start`], with another way to find peers, and with a transport and a store from outside; neither peers nor zones that
/// are joined are remembered.
pub async fn start_with(
    options: Options,
    discovery: Discovery,
    transport: PeerTransport,
    store: Store,
    loaded: Loaded,
) -> Result<Running, StartError> {
    let network = Network::new(network_options(&options, discovery), transport)?;
    let joined = JoinedZones::unkept(&options.zones, &options.follows);
    assemble(options, network, store, loaded, joined).await
}

async fn assemble(
    options: Options,
    mut network: Network,
    mut store: Store,
    mut loaded: Loaded,
    joined: JoinedZones,
) -> Result<Running, StartError> {
    let (streams, inbound_calls) = network.take_calls(options.identity.key())?;
    let (listen, addresses) = (network.listening().await, network.addresses.clone());
    let config = node_config(&options);
    let now = wall_clock();
    let (stored, rewritten) = read_rows(&mut loaded, &options.network, now);
    // What is not written now is verified again at the next start; how the store is, its keeper tells.
    _ = store.write(rewritten);
    let mut seed = [0; 32];
    rand::rng().fill_bytes(&mut seed);
    let node = Node::new(options.identity.clone(), config, seed, stored, now);
    let (requests, requested) = mpsc::channel(REQUESTS_MAX);
    let (events, _) = broadcast::channel(EVENTS_MAX);
    let (stop, stopped) = oneshot::channel();
    let store = StoreKeeper::new(store);
    let metrics = network.metrics.clone();
    let verifier = Verifier::new(options.network.clone());
    let node = Arc::new(RwLock::new(node));
    let driver =
        Driver::new(node.clone(), network, verifier, store, requested, events.clone(), loaded.incidents);
    let expects_peers = expects_peers(&options);
    let (key, agents) = (options.identity.key(), options.agents);
    let client = NodeClient::new(node, requests);
    let calls = calls::start(key, agents.clone(), client.clone(), streams, inbound_calls, metrics.clone());
    let told = events.clone();
    let (card_keys, residency) = (options.card_keys, options.residency);
    let of = HandleOf {
        node: client,
        events,
        key,
        expects_peers,
        agents,
        calls,
        joined,
        residency,
        card_keys,
        metrics,
    };
    let handle = Handle::new(of);
    let driver = tokio::spawn(driver.run(stopped));
    // What changes during the first offer counts.
    let changes = handle.local_agents().changes();
    let refusals = handle.offer_local_agents(&BTreeSet::new()).await;
    tokio::spawn(offer_changes(handle.clone(), changes, refusals));
    tokio::spawn(problem_log::tell(handle.clone()));
    tokio::spawn(agent_states::tell(handle.clone(), told.clone()));
    tokio::spawn(monitor::keep(handle.clone(), told));
    tokio::spawn(events::tell_of_calls(handle.clone()));
    Ok(Running { handle, listen, addresses, zones: options.zones, stop, driver, ended: None })
}

/// Offers the local agents again whenever they change, and what was refused from time to time.
async fn offer_changes(handle: Handle, mut changes: watch::Receiver<u64>, mut refusals: BTreeSet<String>) {
    loop {
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(OFFER_AGAIN), if !refusals.is_empty() => {}
            () = handle.stopped() => return,
        }
        refusals = handle.offer_local_agents(&refusals).await;
    }
}

impl Running {
    /// Says goodbye to the zones, closes connections, flushes the store. Takes at most 5 s.
    pub async fn stop(self) -> Result<(), StartError> {
        // A driver that ended before has dropped the receiver; its result says why.
        let _ended = self.stop.send(());
        match self.ended {
            Some(ended) => ended,
            None => driver_result(self.driver.await),
        }
    }

    /// Resolves with the reason when the node ends by itself.
    pub async fn failed(&mut self) -> String {
        if self.ended.is_none() {
            self.ended = Some(driver_result((&mut self.driver).await));
        }
        match &self.ended {
            Some(Err(error)) => error.to_string(),
            Some(Ok(())) | None => "the node stopped".into(),
        }
    }
}

fn driver_result(ended: Result<Result<(), StoreError>, JoinError>) -> Result<(), StartError> {
    match ended {
        Ok(closed) => closed.map_err(StartError::Store),
        Err(error) => Err(StartError::Stopped(format!("the node broke down: {error}"))),
    }
}

fn network_options(options: &Options, discovery: Discovery) -> NetworkOptions {
    NetworkOptions {
        identity: options.identity.clone(),
        network: options.network.clone(),
        zones: {
            let config = node_config(options);
            options.zones.iter().chain(&options.follows).map(|zone| config.zone_id(zone)).collect()
        },
        bootstrap: options.bootstrap.clone(),
        listen: options.listen.clone(),
        announce: options.announce.clone(),
        peers_file: None,
        trusted_nets: options.trusted_nets.clone(),
        discovery,
        reach: options.reach,
    }
}

/// Whether somebody else is named to begin with. One list may serve all nodes of a site, and the first of it finds itself there.
fn expects_peers(options: &Options) -> bool {
    let own = options.identity.key();
    options.bootstrap.iter().any(|address| named_peer(address).and_then(|peer| peer_key(&peer)) != Some(own))
}

fn node_config(options: &Options) -> Config {
    let bootstrap_peers: Vec<PeerKey> =
        options.bootstrap.iter().filter_map(named_peer).filter_map(|peer| peer_key(&peer)).collect();
    Config {
        network: options.network.clone(),
        zones: options.zones.clone(),
        follows: options.follows.clone(),
        zone_keys: options.zone_keys.clone(),
        delegation_grants: options.delegation_grants.clone(),
        gateway: options.gateway,
        name: options.name.clone(),
        bootstrap_peers,
        expects_peers: expects_peers(options),
        new_key: options.new_key,
        ..options.timings.clone()
    }
}
