//! Addresses at which this node may be reached from everywhere, tried by peers that offer it (AutoNAT v2).
//!
//! Candidates are what peers say that they see, so anybody makes them up: only addresses of the world are tried, few of them,
//! and none that leads through a relay. Nor is it for the library to believe who says that he reached one.

use std::collections::BTreeSet;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::autonat::v2::client::{self, Behaviour};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use crate::net::addresses::{Reach, is_relayed, reach_of_named};

/// Candidates that are ever tried of one run: both transports at some addresses.
const CANDIDATES_MAX: usize = 16;
/// How often what was not tried is tried. Each try may cost this node 100 KB of upload.
const INTERVAL: Duration = Duration::from_secs(60);

/// Lets peers try few addresses.
pub(super) struct Candidates {
    client: Behaviour,
    known: BTreeSet<Multiaddr>,
}

impl Candidates {
    pub(super) fn new() -> Candidates {
        let config =
            client::Config::default().with_max_candidates(CANDIDATES_MAX).with_probe_interval(INTERVAL);
        Candidates { client: Behaviour::new(rand::make_rng(), config), known: BTreeSet::new() }
    }

    /// Whether an address is tried.
    fn admit(&mut self, address: &Multiaddr) -> bool {
        let is_public = reach_of_named(address) == Reach::World && !is_relayed(address);
        is_public
            && (self.known.contains(address)
                || self.known.len() < CANDIDATES_MAX && self.known.insert(address.clone()))
    }
}

impl NetworkBehaviour for Candidates {
    type ConnectionHandler = THandler<Behaviour>;
    type ToSwarm = client::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.client.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.client.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::NewExternalAddrCandidate(candidate) = &event
            && !self.admit(candidate.addr)
        {
            return;
        }
        self.client.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.client.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            match self.client.poll(cx) {
                // Whether that counts is judged by who tried.
                Poll::Ready(ToSwarm::ExternalAddrConfirmed(_)) => {}
                other => return other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_few_addresses_of_the_world_are_tried_whoever_names_how_many() {
        let mut candidates = Candidates::new();
        let mut admitted = |text: &str| candidates.admit(&text.parse().unwrap());
        let peer = PeerId::random();
        for refused in [
            "/ip4/127.0.0.1/tcp/1".to_owned(),
            "/ip4/10.0.0.1/tcp/1".to_owned(),
            "/dns4/example.org/tcp/1".to_owned(),
            format!("/ip4/203.0.113.1/tcp/1/p2p/{peer}/p2p-circuit"),
        ] {
            assert!(!admitted(&refused), "{refused}");
        }
        let all = (0..200).filter(|port| admitted(&format!("/ip4/203.0.113.1/tcp/{port}"))).count();
        assert_eq!(all, CANDIDATES_MAX);
        assert!(admitted("/ip4/203.0.113.1/tcp/3"), "again");
    }
}
