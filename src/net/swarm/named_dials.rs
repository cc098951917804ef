//! What is dialed on the word of peers: the addresses that the DHT gives for a peer, filtered.
//!
//! Kademlia takes what it is told and dials all of it, so anybody could have this node knock at any door. An address that a peer
//! named is dialed only in the reach in which the peers that could have named it were met, once, and within a budget of all
//! such dials. Which answer named an address Kademlia does not tell, so the farthest reach of all connected peers counts,
//! but for those of the configuration; of a peer that was met, its own.

use std::collections::BTreeMap;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use tokio::time::Instant;

use super::routing::Kad;
use crate::net::addresses::{ADDRESSES_PER_PEER_MAX, Reach, reach_of_met, reach_of_named, without_peer};
use crate::net::refusals::{Reason, Refusals};

/// Addresses dialed on the word of peers at once, and in each second after: a young node meets some dozens of peers.
const BURST: f64 = 128.0;
const PER_SECOND: f64 = 2.0;
/// How long an address is not dialed for another peer after it was for one: who names one address for many peers gets it
/// dialed once.
const OTHERS_AFTER: Duration = Duration::from_secs(60);
/// And for the same peer, whose answer may have been lost: twice as long after each time, up to the former.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Addresses remembered for that; what the budget hands out within the longer of the two fits.
const TRIED_MAX: usize = 1_024;

/// The DHT, whose addresses are filtered before they are dialed.
pub(super) struct NamedDials {
    kad: Toggle<Kad>,
    dials: Dials,
}

/// What may be dialed.
#[derive(Debug)]
struct Dials {
    /// Reaches in which peers are connected, but those of the configuration.
    met: BTreeMap<ConnectionId, Reach>,
    tried: BTreeMap<Multiaddr, Try>,
    level: f64,
    at: Instant,
    refusals: Refusals,
}

/// An address was dialed for a peer.
#[derive(Debug)]
struct Try {
    peer: PeerId,
    at: Instant,
    /// How long it is not dialed again for that peer.
    wait: Duration,
}

impl NamedDials {
    pub(super) fn new(kad: Option<Kad>, refusals: Refusals) -> NamedDials {
        NamedDials { kad: kad.into(), dials: Dials::new(refusals, Instant::now()) }
    }

    pub(super) fn as_ref(&self) -> Option<&Kad> {
        self.kad.as_ref()
    }

    pub(super) fn as_mut(&mut self) -> Option<&mut Kad> {
        self.kad.as_mut()
    }

    /// A connection leads to a peer of the configuration, which may name what it wants.
    pub(super) fn trust(&mut self, connection: ConnectionId) {
        self.dials.met.remove(&connection);
    }

    /// Those of the addresses that somebody named for a peer that may be dialed now.
    pub(super) fn filter_named(
        &mut self,
        peer: PeerId,
        named: Vec<Multiaddr>,
        now: Instant,
    ) -> Vec<Multiaddr> {
        let entered = self.entered(peer);
        self.dials.filter(peer, named, &entered, now)
    }

    /// Addresses under which a peer was entered into the table. They were filtered by where it was met.
    fn entered(&mut self, peer: PeerId) -> Vec<Multiaddr> {
        let bucket = self.kad.as_mut().and_then(|kad| kad.kbucket(peer));
        let entry =
            bucket.iter().flat_map(|bucket| bucket.iter()).find(|entry| *entry.node.key.preimage() == peer);
        entry.map_or_else(Vec::new, |entry| entry.node.value.iter().cloned().collect())
    }
}

impl Dials {
    fn new(refusals: Refusals, now: Instant) -> Dials {
        Dials { met: BTreeMap::new(), tried: BTreeMap::new(), level: BURST, at: now, refusals }
    }

    /// Those of the addresses named for a peer that are dialed; `entered` are those that it named itself where it was met.
    fn filter(
        &mut self,
        peer: PeerId,
        named: Vec<Multiaddr>,
        entered: &[Multiaddr],
        now: Instant,
    ) -> Vec<Multiaddr> {
        let least = self.met.values().max().copied().unwrap_or(Reach::Host);
        let mut dialed: Vec<Multiaddr> = Vec::new();
        for address in named {
            let place = without_peer(&address);
            if dialed.len() >= ADDRESSES_PER_PEER_MAX || dialed.iter().any(|it| without_peer(it) == place) {
                continue;
            }
            if reach_of_named(&address) < least && !entered.contains(&address) {
                self.refusals.count(Reason::DialReach);
            } else if self.was_tried(&place, peer, now) || !self.take(now) {
                self.refusals.count(Reason::DialBudget);
            } else {
                self.note(place, peer, now);
                dialed.push(address);
            }
        }
        dialed
    }

    fn was_tried(&self, place: &Multiaddr, peer: PeerId, now: Instant) -> bool {
        self.tried.get(place).is_some_and(|last| {
            let after = if last.peer == peer { last.wait } else { OTHERS_AFTER };
            now.saturating_duration_since(last.at) < after
        })
    }

    fn note(&mut self, place: Multiaddr, peer: PeerId, now: Instant) {
        if self.tried.len() >= TRIED_MAX {
            self.tried.retain(|_, last| now.saturating_duration_since(last.at) < OTHERS_AFTER);
        }
        let last = self.tried.get(&place).filter(|last| last.peer == peer);
        let wait = last.map_or(AGAIN_AFTER, |last| (2 * last.wait).min(OTHERS_AFTER));
        if self.tried.len() < TRIED_MAX {
            self.tried.insert(place, Try { peer, at: now, wait });
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.level, self.at) = ((self.level + passed * PER_SECOND).min(BURST), now);
        let has_one = self.level >= 1.0;
        if has_one {
            self.level -= 1.0;
        }
        has_one
    }

    /// Somebody answers there: it is no door of a stranger.
    fn answered(&mut self, address: &Multiaddr) {
        self.tried.remove(&without_peer(address));
    }
}

impl NetworkBehaviour for NamedDials {
    type ConnectionHandler = <Toggle<Kad> as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = <Toggle<Kad> as NetworkBehaviour>::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        from: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.kad.handle_pending_inbound_connection(connection, local, from)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        from: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.kad.handle_established_inbound_connection(connection, peer, local, from)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let mut named = self.kad.handle_pending_outbound_connection(connection, peer, addresses, role)?;
        let Some(peer) = peer else { return Ok(named) };
        // What is dialed anyway needs no second time.
        named.retain(|address| addresses.iter().all(|it| without_peer(it) != without_peer(address)));
        let entered = self.entered(peer);
        Ok(self.dials.filter(peer, named, &entered, Instant::now()))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.kad.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match &event {
            FromSwarm::ConnectionEstablished(opened) => {
                let address = opened.endpoint.get_remote_address();
                self.dials.met.insert(opened.connection_id, reach_of_met(address));
                self.dials.answered(address);
            }
            FromSwarm::ConnectionClosed(closed) => drop(self.dials.met.remove(&closed.connection_id)),
            _ => {}
        }
        self.kad.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.kad.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.kad.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dials() -> Dials {
        Dials::new(Refusals::default(), Instant::now())
    }

    fn addresses(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn what_a_stranger_of_the_world_names_is_never_dialed_on_this_host_or_in_its_networks() {
        let near =
            ["/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip4/169.254.1.1/tcp/1", "/ip6/fd00::1/tcp/1"];
        let odd =
            ["/dns4/localhost/tcp/1", "/ip6/::ffff:127.0.0.1/tcp/1", "/ip4/0.0.0.0/tcp/1", "/ip6/::1/tcp/1"];
        let named = addresses(&[&near[..], &odd, &["/ip4/5.6.7.8/tcp/1"]].concat());
        let (mut dials, now) = (dials(), Instant::now());
        dials.met.insert(ConnectionId::new_unchecked(1), Reach::World);
        // One who was met near does not open the way for the other.
        dials.met.insert(ConnectionId::new_unchecked(2), Reach::Host);
        let dialed = dials.filter(PeerId::random(), named.clone(), &[], now);
        assert_eq!(dialed, addresses(&["/ip4/5.6.7.8/tcp/1"]));
        assert_eq!(dials.refusals.counts()[&Reason::DialReach], 8);
        let entered = addresses(&near[1..2]);
        assert_eq!(dials.filter(PeerId::random(), named.clone(), &entered, now), entered, "it was met there");
        dials.met.remove(&ConnectionId::new_unchecked(1));
        assert_eq!(dials.filter(PeerId::random(), addresses(&near), &[], now).len(), 3, "one was just tried");
    }

    #[test]
    fn one_address_for_many_peers_is_dialed_once_and_many_for_one_a_few_times() {
        let (mut dials, now) = (dials(), Instant::now());
        let victim = || addresses(&["/ip4/5.6.7.8/tcp/1"; 8]);
        let crowd = |dials: &mut Dials, at| -> usize {
            (0..50).map(|_| dials.filter(PeerId::random(), victim(), &[], at).len()).sum()
        };
        assert_eq!(crowd(&mut dials, now), 1);
        assert_eq!(crowd(&mut dials, now + OTHERS_AFTER), 1);
        dials.answered(&victim()[0]);
        assert_eq!(crowd(&mut dials, now + OTHERS_AFTER), 1, "an answer is no second door");
        let many = (1..=50).map(|port| format!("/ip4/5.6.7.8/tcp/{port}").parse().unwrap()).collect();
        assert_eq!(
            dials.filter(PeerId::random(), many, &[], now + OTHERS_AFTER).len(),
            ADDRESSES_PER_PEER_MAX
        );
    }

    #[test]
    fn a_peer_whose_answer_was_lost_is_dialed_again_soon() {
        let (mut dials, now, peer) = (dials(), Instant::now(), PeerId::random());
        let mut dial = |at| dials.filter(peer, addresses(&["/ip4/5.6.7.8/tcp/1"]), &[], at).len();
        assert_eq!([dial(now), dial(now), dial(now + AGAIN_AFTER)], [1, 0, 1]);
    }

    #[test]
    fn a_peer_that_never_answers_is_dialed_less_and_less_often_down_to_once_a_minute() {
        let (mut dials, now, peer) = (dials(), Instant::now(), PeerId::random());
        let mut knocks = |minute: u32| -> usize {
            let second = |n| now + OTHERS_AFTER * minute + Duration::from_secs(n);
            (0..60)
                .map(|n| dials.filter(peer, addresses(&["/ip4/5.6.7.8/tcp/1"]), &[], second(n)).len())
                .sum()
        };
        assert_eq!([knocks(0), knocks(1), knocks(2), knocks(3)], [5, 1, 1, 1]);
    }

    #[test]
    fn all_that_peers_name_is_dialed_within_a_budget() {
        let (mut dials, now) = (dials(), Instant::now());
        let mut flood = |seconds: u64, block: u8| -> usize {
            let address = |n: u16| format!("/ip4/5.{block}.{}.{}/tcp/1", n / 200, n % 200).parse().unwrap();
            let at = now + Duration::from_secs(seconds);
            (0..1_000).map(|n| dials.filter(PeerId::random(), vec![address(n)], &[], at).len()).sum()
        };
        assert_eq!([flood(0, 1), flood(0, 2), flood(10, 3)], [BURST as usize, 0, 20]);
        assert!(dials.tried.len() <= TRIED_MAX);
    }
}
