//! How bytes travel: TCP with noise and yamux, QUIC beside it, names resolved by DNS.
//!
//! The transport is made apart from the swarm, so that a test can hand in another one.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::{AsyncRead, AsyncWrite, FutureExt, TryFutureExt};
use libp2p::core::ConnectedPoint;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, PortUse, TransportError, TransportEvent};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, Transport, dns, noise, quic, relay, tcp, yamux};

use super::counted::CountedMuxer;
use crate::net::swarm::NetworkError;
use crate::telemetry::metrics::{self, Metrics};

/// A transport as the swarm takes it: authenticated and multiplexed.
pub type PeerTransport = Boxed<(PeerId, StreamMuxerBox)>;

/// Most streams of one TCP connection; QUIC's own limit is 256 too. A busy pair uses about 20.
const STREAMS_PER_CONNECTION_MAX: usize = 256;

/// The transport of a node with this key: `/ip4|ip6|dns…/…/tcp/…`, `/udp/…/quic-v1` and `/dnsaddr/…`. Needs a tokio
/// runtime.
pub fn transport(keypair: &Keypair) -> Result<PeerTransport, NetworkError> {
    Ok(by_name(by_address(keypair, &Arc::default())?))
}

/// The same with `…/p2p-circuit`, through relays; its connections are counted.
pub(crate) fn counted_transport(keypair: &Keypair, metrics: &Arc<Metrics>) -> Result<Wires, NetworkError> {
    let (circuits, relay_client) = relay::client::new(keypair.public().to_peer_id());
    let circuits = over(circuits, keypair)?.map(counted(metrics, metrics::Transport::Relay));
    // Circuits first: the others would take the address of the relay for that of the peer behind it.
    let both = circuits.or_transport(by_address(keypair, metrics)?).map(|either, _| either.into_inner());
    Ok(Wires { transport: by_name(both.boxed()), relay_client: Some(relay_client) })
}

/// What a network runs on.
pub struct Wires {
    pub(crate) transport: PeerTransport,
    /// What opens the circuits of the transport, where it has such.
    pub(crate) relay_client: Option<relay::client::Behaviour>,
}

impl From<PeerTransport> for Wires {
    fn from(transport: PeerTransport) -> Wires {
        Wires { transport, relay_client: None }
    }
}

fn by_name(transport: PeerTransport) -> PeerTransport {
    ByName(Shared(Arc::new(Mutex::new(transport)))).boxed()
}

fn counted(
    metrics: &Arc<Metrics>,
    transport: metrics::Transport,
) -> impl FnOnce((PeerId, StreamMuxerBox), ConnectedPoint) -> (PeerId, StreamMuxerBox) + Clone + use<> {
    let metrics = metrics.clone();
    move |(peer, muxer), point| {
        let metrics = metrics.connected(point.is_listener(), transport);
        (peer, StreamMuxerBox::new(CountedMuxer::new(muxer, metrics)))
    }
}

/// Counts here, where it is known which of the two a name led to.
fn by_address(keypair: &Keypair, metrics: &Arc<Metrics>) -> Result<PeerTransport, NetworkError> {
    let tcp = over(Tcp::new(), keypair)?.map(counted(metrics, metrics::Transport::Tcp));
    let quic = quic::tokio::Transport::new(quic::Config::new(keypair))
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .map(counted(metrics, metrics::Transport::Quic));
    Ok(quic.or_transport(tcp).map(|either, _| either.into_inner()).boxed())
}

/// Noise and yamux over connections of plain bytes, as a node speaks them over TCP.
pub fn over<T>(plain: T, keypair: &Keypair) -> Result<PeerTransport, NetworkError>
where
    T: Transport + Send + Unpin + 'static,
    T::Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    let noise = noise::Config::new(keypair).map_err(|error| NetworkError::Setup(error.to_string()))?;
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(STREAMS_PER_CONNECTION_MAX);
    // Lazy: with noise alone to propose, the dialer need not wait for it to be confirmed.
    Ok(plain.upgrade(Version::V1Lazy).authenticate(noise).multiplex(yamux).boxed())
}

/// Names, resolved as the machine's settings say at the time of the dial: a node is started before its network is up, and
/// moves between networks. They are read for each dial of a name; few are, and none often.
struct ByName(Shared);

impl Transport for ByName {
    type Output = <PeerTransport as Transport>::Output;
    type Error = io::Error;
    type ListenerUpgrade = <PeerTransport as Transport>::ListenerUpgrade;
    type Dial = <PeerTransport as Transport>::Dial;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.0.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.0.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        if !is_name(&address) {
            return self.0.dial(address, options);
        }
        let unusable = |error| {
            io::Error::other(format!(
                "this machine has no usable DNS settings ({error}), and names need them"
            ))
        };
        let mut named = dns::tokio::Transport::system(self.0.clone())
            .map_err(|error| TransportError::Other(unusable(error)))?;
        match named.dial(address, options) {
            Ok(dial) => Ok(dial.map_err(io::Error::other).boxed()),
            Err(error) => Err(error.map(io::Error::other)),
        }
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut self.0).poll(cx)
    }
}

fn is_name(address: &Multiaddr) -> bool {
    let is_name = |part| {
        matches!(part, Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_))
    };
    address.iter().any(is_name)
}

/// A transport that the dials of names use beside the swarm.
#[derive(Clone)]
struct Shared(Arc<Mutex<PeerTransport>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, PeerTransport> {
        // Nothing is half done in between: each call is one of the transport's own.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for Shared {
    type Output = <PeerTransport as Transport>::Output;
    type Error = io::Error;
    type ListenerUpgrade = <PeerTransport as Transport>::ListenerUpgrade;
    type Dial = <PeerTransport as Transport>::Dial;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.lock().listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.lock().remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        self.lock().dial(address, options)
    }

    fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut *self.lock()).poll(cx)
    }
}

/// TCP that dials from the port it listens on, so that peers see where it can be reached, or from any where that one is taken.
struct Tcp(tcp::tokio::Transport);

type TcpStream = <tcp::tokio::Transport as Transport>::Output;
type TcpUpgrade = <tcp::tokio::Transport as Transport>::ListenerUpgrade;

impl Tcp {
    fn new() -> Tcp {
        // Requests are small and wait for their answers, which Nagle's algorithm would hold back.
        Tcp(tcp::tokio::Transport::new(tcp::Config::default().nodelay(true)))
    }
}

/// Whether what is sent into it comes out of it.
fn is_its_own_peer(stream: &TcpStream) -> bool {
    let ends = stream.0.local_addr().ok().zip(stream.0.peer_addr().ok());
    ends.is_some_and(|(own, other)| own == other)
}

impl Transport for Tcp {
    type Output = TcpStream;
    type Error = io::Error;
    type ListenerUpgrade = TcpUpgrade;
    type Dial = BoxFuture<'static, io::Result<TcpStream>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.0.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.0.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        let dial = self.0.dial(address.clone(), options)?;
        Ok(async move {
            let dialed = dial.await;
            let from_elsewhere = match &dialed {
                // The library binds to every address of the machine. So any socket of another program that has this port on
                // another address, an old connection of it too, would keep this node from dialing whomever.
                Err(error) => error.kind() == io::ErrorKind::AddrInUse,
                // From the port where it listens to that very port: the socket is its own peer, and nobody answers.
                Ok(stream) => is_its_own_peer(stream),
            };
            if !from_elsewhere {
                return dialed;
            }
            let options = DialOpts { port_use: PortUse::New, ..options };
            match Tcp::new().0.dial(address, options) {
                Ok(again) => again.await,
                Err(_) => dialed,
            }
        }
        .boxed())
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<TcpUpgrade, io::Error>> {
        Pin::new(&mut self.0).poll(cx)
    }
}
