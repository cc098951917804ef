//! A protocol that is spoken over direct connections alone: what goes through a relay is for calls, and its relay counts it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::derive_prelude::Either;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

use crate::net::addresses::is_relayed;

/// Keeps relayed connections from a protocol, which must name the connection whenever it tells a handler something.
pub(super) struct DirectOnly<B> {
    inner: B,
    relayed: BTreeMap<PeerId, BTreeSet<ConnectionId>>,
}

impl<B> DirectOnly<B> {
    pub(super) fn new(inner: B) -> DirectOnly<B> {
        DirectOnly { inner, relayed: BTreeMap::new() }
    }

    fn relayed_of(&self, peer: &PeerId) -> usize {
        self.relayed.get(peer).map_or(0, BTreeSet::len)
    }
}

impl<B> Deref for DirectOnly<B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.inner
    }
}

impl<B> DerefMut for DirectOnly<B> {
    fn deref_mut(&mut self) -> &mut B {
        &mut self.inner
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for DirectOnly<B> {
    type ConnectionHandler = Either<THandler<B>, dummy::ConnectionHandler>;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        from: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(connection, local, from)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if is_relayed(local) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.inner.handle_established_inbound_connection(connection, peer, local, remote).map(Either::Left)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner.handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if is_relayed(address) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.inner
            .handle_established_outbound_connection(connection, peer, address, role, port)
            .map(Either::Left)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let event = match event {
            FromSwarm::ConnectionEstablished(opened) if opened.endpoint.is_relayed() => {
                self.relayed.entry(opened.peer_id).or_default().insert(opened.connection_id);
                return;
            }
            // What is the first direct connection counts as the first.
            FromSwarm::ConnectionEstablished(opened) => {
                let other_established =
                    opened.other_established.saturating_sub(self.relayed_of(&opened.peer_id));
                FromSwarm::ConnectionEstablished(ConnectionEstablished { other_established, ..opened })
            }
            FromSwarm::ConnectionClosed(closed) if closed.endpoint.is_relayed() => {
                if let Some(relayed) = self.relayed.get_mut(&closed.peer_id) {
                    relayed.remove(&closed.connection_id);
                    if relayed.is_empty() {
                        self.relayed.remove(&closed.peer_id);
                    }
                }
                return;
            }
            FromSwarm::ConnectionClosed(closed) => {
                let remaining_established =
                    closed.remaining_established.saturating_sub(self.relayed_of(&closed.peer_id));
                FromSwarm::ConnectionClosed(ConnectionClosed { remaining_established, ..closed })
            }
            FromSwarm::AddressChange(change) if change.new.is_relayed() => return,
            other => other,
        };
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {
            Either::Left(event) => self.inner.on_connection_handler_event(peer, connection, event),
            Either::Right(never) => match never {},
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.inner.poll(cx).map(|event| event.map_in(Either::Left))
    }
}
