//! Streams to a peer that is connected directly and through a relay go over the direct connection: the library takes any.
//!
//! While there is a direct one, the library is told that the others are closed. Streams that are open on them go on to the end
//! of what they carry.

use std::collections::{BTreeMap, BTreeSet};
use std::task::{Context, Poll};

use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use libp2p_stream::Behaviour;

use crate::net::addresses::peer_key;
use crate::net::streams::kept::KeptStreams;

/// Peers that were met through a relay and are remembered for it; with others it is as if they were not.
const MET_MAX: usize = 1_024;

/// Opens streams.
pub(super) struct PreferDirect {
    streams: Behaviour,
    peers: BTreeMap<PeerId, Connections>,
    /// Peers that were met through a relay: connections with them may be tried beside what is asked for here.
    met: BTreeSet<PeerId>,
    /// Dials for streams to those.
    dials: BTreeSet<ConnectionId>,
    kept: KeptStreams,
}

/// The connections with a peer.
#[derive(Debug, Default)]
struct Connections {
    direct: usize,
    relayed: BTreeMap<ConnectionId, ConnectedPoint>,
}

impl PreferDirect {
    pub(super) fn new() -> PreferDirect {
        PreferDirect {
            streams: Behaviour::new(),
            peers: BTreeMap::new(),
            met: BTreeSet::new(),
            dials: BTreeSet::new(),
            kept: KeptStreams::default(),
        }
    }

    /// Streams that wait for their next call.
    pub(super) fn kept(&self) -> KeptStreams {
        self.kept.clone()
    }

    /// Opens streams and takes those of others.
    pub(super) fn new_control(&self) -> libp2p_stream::Control {
        self.streams.new_control()
    }

    fn opened(&mut self, opened: ConnectionEstablished<'_>) {
        self.dials.remove(&opened.connection_id);
        let peer = self.peers.entry(opened.peer_id).or_default();
        if opened.endpoint.is_relayed() {
            peer.relayed.insert(opened.connection_id, opened.endpoint.clone());
            if self.met.len() < MET_MAX {
                self.met.insert(opened.peer_id);
            }
            if peer.direct > 0 {
                return;
            }
        } else {
            peer.direct += 1;
            if peer.direct == 1 {
                if !peer.relayed.is_empty() {
                    peer_key(&opened.peer_id).iter().for_each(|peer| self.kept.met_directly(peer));
                }
                for (connection_id, endpoint) in &peer.relayed {
                    self.streams.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
                        peer_id: opened.peer_id,
                        connection_id: *connection_id,
                        endpoint,
                        cause: None,
                        remaining_established: 1,
                    }));
                }
            }
        }
        self.streams.on_swarm_event(FromSwarm::ConnectionEstablished(opened));
    }

    fn closed(&mut self, closed: ConnectionClosed<'_>) {
        let Some(peer) = self.peers.get_mut(&closed.peer_id) else { return };
        let was_hidden = peer.relayed.remove(&closed.connection_id).is_some() && peer.direct > 0;
        if !closed.endpoint.is_relayed() {
            peer.direct -= 1;
        }
        if !was_hidden {
            self.streams.on_swarm_event(FromSwarm::ConnectionClosed(closed));
        }
        if !closed.endpoint.is_relayed() && peer.direct == 0 {
            for (connection_id, endpoint) in &peer.relayed {
                self.streams.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                    peer_id: closed.peer_id,
                    connection_id: *connection_id,
                    endpoint,
                    failed_addresses: &[],
                    other_established: 0,
                }));
            }
        }
        if peer.direct == 0 && peer.relayed.is_empty() {
            self.peers.remove(&closed.peer_id);
        }
    }
}

impl NetworkBehaviour for PreferDirect {
    type ConnectionHandler = THandler<Behaviour>;
    type ToSwarm = <Behaviour as NetworkBehaviour>::ToSwarm;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.streams.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.streams.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(opened) => self.opened(opened),
            FromSwarm::ConnectionClosed(closed) => self.closed(closed),
            FromSwarm::DialFailure(failed) => {
                let is_own = self.dials.remove(&failed.connection_id);
                // That a router was not crossed says nothing of the way through the relay.
                if is_own || failed.peer_id.is_none_or(|peer| !self.met.contains(&peer)) {
                    self.streams.on_swarm_event(event);
                }
            }
            other => self.streams.on_swarm_event(other),
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.streams.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        let Poll::Ready(event) = self.streams.poll(cx) else { return Poll::Pending };
        let event = match event {
            ToSwarm::Dial { opts } => ToSwarm::Dial { opts: self.dial(opts) },
            other => other,
        };
        Poll::Ready(event)
    }
}

impl PreferDirect {
    /// A peer whose router is being crossed is dialed all the same: that takes long, and may fail.
    fn dial(&mut self, wanted: DialOpts) -> DialOpts {
        let Some(peer) = wanted.get_peer_id().filter(|peer| self.met.contains(peer)) else { return wanted };
        let dial = DialOpts::peer_id(peer).condition(PeerCondition::Disconnected).build();
        self.dials.insert(dial.connection_id());
        dial
    }
}

#[cfg(test)]
mod tests {
    use futures::AsyncReadExt;
    use futures::future::Either;
    use tokio::io::duplex;
    use tokio_util::compat::TokioAsyncReadCompatExt;

    use super::*;
    use crate::net::addresses::peer_id;
    use crate::net::streams::calls::CallStream;
    use crate::net::streams::kept::OpenStream;
    use crate::proto::identity::Identity;

    #[tokio::test]
    async fn streams_that_wait_are_left_once_a_relayed_peer_is_met_directly_and_by_no_other_connection() {
        let key = Identity::from_seed([1; 32]).key();
        let peer_id = peer_id(&key).unwrap();
        let relay = format!("/ip4/192.0.2.1/tcp/1/p2p/{peer_id}/p2p-circuit");
        let mut peers = PreferDirect::new();
        let (near, _far) = duplex(1);
        let halves = CallStream::split(Either::Right(near.compat()));
        let stream = OpenStream { halves, upgrades: peers.kept().upgrades() };
        peers.kept().put(key, stream);
        let met =
            [("/ip4/192.0.2.2/tcp/1", true), (&relay, true), (&relay, true), ("/ip4/192.0.2.2/tcp/1", false)];
        for (number, (address, is_kept)) in met.into_iter().enumerate() {
            if number == 1 {
                peers = PreferDirect { kept: peers.kept(), ..PreferDirect::new() };
            }
            let endpoint = ConnectedPoint::Dialer {
                address: address.parse().unwrap(),
                role_override: Endpoint::Dialer,
                port_use: PortUse::Reuse,
            };
            peers.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id: ConnectionId::new_unchecked(number),
                endpoint: &endpoint,
                failed_addresses: &[],
                other_established: number,
            }));
            let kept = peers.kept().take(&key);
            assert_eq!(kept.is_some(), is_kept, "{address}");
            kept.into_iter().for_each(|stream| peers.kept().put(key, stream));
        }
    }
}
