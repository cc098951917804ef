//! How bytes travel: TCP with noise and yamux, QUIC beside it, names resolved by DNS.
//!
//! The transport is made apart from the swarm, so that a test can hand in another one.

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{PeerId, Transport, dns, noise, quic, tcp, yamux};

use crate::net::swarm::NetworkError;

/// A transport as the swarm takes it: authenticated and multiplexed.
pub type PeerTransport = Boxed<(PeerId, StreamMuxerBox)>;

/// Most streams of one TCP connection; QUIC's own limit is 256 too. A busy pair uses about 20.
const STREAMS_PER_CONNECTION_MAX: usize = 256;

/// The transport of a node with this key: `/ip4|ip6|dns…/…/tcp/…`, `/udp/…/quic-v1` and `/dnsaddr/…`.
///
/// A machine without a resolver configuration gets one that takes IP addresses only. Needs a tokio runtime.
pub fn transport(keypair: &Keypair) -> Result<PeerTransport, NetworkError> {
    if let Ok(named) = dns::tokio::Transport::system(by_address(keypair)?) {
        return Ok(named.boxed());
    }
    tracing::warn!("no usable DNS configuration on this machine: peers can be dialed by IP address only");
    // The first transport went with the attempt, so another one is made.
    by_address(keypair)
}

fn by_address(keypair: &Keypair) -> Result<PeerTransport, NetworkError> {
    // Requests are small and wait for their answers, which Nagle's algorithm would hold back.
    let tcp = over(tcp::tokio::Transport::new(tcp::Config::default().nodelay(true)), keypair)?;
    let quic = quic::tokio::Transport::new(quic::Config::new(keypair))
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
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
