//! What the network needs to start, and why it could not.

use std::io::ErrorKind;
use std::net::{IpAddr, TcpListener};
use std::path::PathBuf;

use libp2p::core::transport::ListenerId;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, Swarm, TransportError};

use super::behaviour::Behaviour;
use crate::net::addresses::ReachOptions;
use crate::proto::address_block::TrustedNets;
use crate::proto::identity::Identity;
use crate::proto::name::ZoneId;

/// How the transports put it when a port is in use; the error kind is lost on the way up.
const IN_USE: &str = "in use";

/// Who the node is, in which network and zones, and where it listens and dials.
#[derive(Clone, Debug)]
pub struct NetworkOptions {
    /// Its key; the same seed gives the libp2p identity.
    pub identity: Identity,
    /// The name of the network; nodes of others are refused.
    pub network: String,
    /// The zones whose gossip it takes part in, one topic each.
    pub zones: Vec<ZoneId>,
    /// Peers to stay connected to, with or without `/p2p/`.
    pub bootstrap: Vec<Multiaddr>,
    /// Where to listen, for example `/ip4/0.0.0.0/udp/7700/quic-v1`. None: only dial.
    pub listen: Vec<Multiaddr>,
    /// Where others reach it beside the addresses that its sockets have, as `addresses::check_dialable` takes them.
    pub announce: Vec<Multiaddr>,
    /// The file in which peers are remembered for the next start; none for a node that remembers nobody.
    pub peers_file: Option<PathBuf>,
    /// Nets whose addresses have no share of what peers may take.
    pub trusted_nets: TrustedNets,
    /// How peers beyond those of `bootstrap` are found.
    pub discovery: Discovery,
    /// What it does for reach, its own and that of others.
    pub reach: ReachOptions,
}

/// How a node finds peers it was not told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// Through the DHT, in which it takes part.
    Dht,
    /// Not at all: it stays with its bootstrap peers and with those that have it as theirs, as in a network that is
    /// planned link by link. Without a routing table it takes 1 MB less.
    Off,
}

impl NetworkOptions {
    /// The libp2p keypair of the identity, for [`crate::net::transport::transport`].
    pub fn keypair(&self) -> Result<Keypair, NetworkError> {
        Keypair::ed25519_from_bytes(self.identity.seed())
            .map_err(|error| NetworkError::Setup(error.to_string()))
    }
}

/// Why the network could not start. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The port is in use.
    #[error(
        "cannot listen on {0}: the port is in use; stop the other program or choose another port (0 picks a free one)"
    )]
    PortTaken(Multiaddr),
    /// The operating system refused.
    #[error(
        "cannot listen on {0}: {1}; use a port above 1023 and an address of this machine, such as 0.0.0.0"
    )]
    Listen(Multiaddr, String),
    /// The address is no listen address for TCP or QUIC.
    #[error("cannot listen on {0}: use /ip4/0.0.0.0/udp/PORT/quic-v1 or /ip4/0.0.0.0/tcp/PORT")]
    Unsupported(Multiaddr),
    /// A setting that the library refuses.
    #[error("the network cannot be set up: {0}")]
    Setup(String),
}

/// Opens the listening sockets.
pub(super) fn listen(
    swarm: &mut Swarm<Behaviour>,
    addresses: Vec<Multiaddr>,
) -> Result<Vec<ListenerId>, NetworkError> {
    // All before any is opened: the probe of `::` takes what is open on `0.0.0.0` for another program's.
    match addresses.iter().find(|address| is_taken(address)) {
        Some(taken) => Err(NetworkError::PortTaken(taken.clone())),
        None => addresses.into_iter().map(|address| open(swarm, address)).collect(),
    }
}

fn open(swarm: &mut Swarm<Behaviour>, address: Multiaddr) -> Result<ListenerId, NetworkError> {
    swarm.listen_on(address.clone()).map_err(|error| match error {
        TransportError::MultiaddrNotSupported(_) => NetworkError::Unsupported(address),
        // UDP sockets are not shared, so a taken port of QUIC shows here.
        TransportError::Other(error) if error.to_string().contains(IN_USE) => {
            NetworkError::PortTaken(address)
        }
        TransportError::Other(error) => NetworkError::Listen(address, error.to_string()),
    })
}

/// libp2p opens TCP ports with SO_REUSEPORT: two nodes on one port would both start and share the callers between
/// them. A plain socket notices.
fn is_taken(address: &Multiaddr) -> bool {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next() {
        Some(Protocol::Ip4(ip)) => ip.into(),
        Some(Protocol::Ip6(ip)) => ip.into(),
        _ => return false,
    };
    let Some(Protocol::Tcp(port)) = parts.next() else { return false };
    // Port 0 passes: the probe gets one that is free, and the node later another.
    TcpListener::bind((ip, port)).is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
}
