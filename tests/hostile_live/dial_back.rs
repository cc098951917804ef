//! Attacks on a node that tries for others whether they are reached: what it may be made to dial.

use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::Duration;

use aop::host::{Options, ReachOptions};
use futures::StreamExt;
use futures::future::join_all;
use libp2p::autonat::v2::client;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::identity::Keypair;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, SwarmEvent, THandlerInEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId, identify};
use tokio::time::timeout;

use super::attacker::identity_of;
use super::victim::{PATIENCE, Victim, alone};
use crate::strangers::{door, swarm};

/// Who claims, and how many addresses each: as many as are tried on one connection.
const CLAIMANTS: u8 = 100;
const CLAIMS_EACH: usize = 10;

/// Claims addresses of somebody else.
#[derive(NetworkBehaviour)]
struct Claimant {
    claims: Claims,
    identify: identify::Behaviour,
    tries: client::Behaviour,
}

struct Claims(VecDeque<Multiaddr>);

impl NetworkBehaviour for Claims {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = std::convert::Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: std::convert::Infallible) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.0.pop_front() {
            Some(address) => Poll::Ready(ToSwarm::NewExternalAddrCandidate(address)),
            None => Poll::Pending,
        }
    }
}

/// Has all of its claims tried.
async fn claim(seed: u8, node: Multiaddr, door: Multiaddr) {
    let claimed = (0..CLAIMS_EACH).map(|_| door.clone().with_p2p(PeerId::random()).unwrap()).collect();
    let tries = client::Config::default().with_max_candidates(CLAIMS_EACH);
    let tries = tries.with_probe_interval(Duration::from_millis(20));
    let mut claimant = swarm(Keypair::ed25519_from_bytes([seed; 32]).unwrap(), |keypair| Claimant {
        claims: Claims(claimed),
        identify: identity_of(keypair),
        tries: client::Behaviour::new(rand::make_rng(), tries),
    });
    claimant.dial(node).unwrap();
    let mut answered = 0;
    while answered < CLAIMS_EACH {
        if let SwarmEvent::Behaviour(ClaimantEvent::Tries(event)) = claimant.select_next_some().await {
            assert!(event.result.is_err(), "{} was reached", event.tested_addr);
            answered += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_askings_open_no_door_of_somebody_else() {
    let _alone = alone().await;
    let reach = ReachOptions { tries_others: true, ..ReachOptions::default() };
    let victim = Victim::with(1, |options| Options { reach, ..options }).await;
    let (door, knocks) = door().await;
    let claims = (0..CLAIMANTS).map(|nth| claim(100 + nth, victim.address(), door.clone()));
    timeout(PATIENCE, join_all(claims)).await.expect("each is answered");
    victim.register("meanwhile").await;
    let refused = victim.metric("aop_refused_total{reason=\"dial_reach\"}").await;
    assert_eq!(refused, u64::from(CLAIMANTS) * CLAIMS_EACH as u64);
    assert_eq!(*knocks.borrow(), 0);
    victim.node.stop().await.unwrap();
}
