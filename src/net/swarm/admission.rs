//! Which inbound connections get a place: a share of the places for each address and block, and a reserve for peers that the
//! operator named and those known for long.
//!
//! When there is no place, who comes takes that of another: one of his own address or block when that has its share, else one of
//! the block that has the most. Peers that are needed (gossip mesh, calls), configured or long known lose no place, nor
//! does a connection that is younger than [`KEPT_MIN`]; where only such are left, the newcomer is refused. So a crowd of
//! identities that does nothing keeps nobody out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};
use tokio::time::Instant;

use crate::net::addresses::{ip_of, is_relayed};
use crate::net::peers::INBOUND_MAX;
use crate::net::refusals::{Reason, Refusals};
use crate::proto::address_block::{AddressBlock, Share, Shares, Source, TrustedNets};

/// Of the [`INBOUND_MAX`] places, those of one address and of one block: an office or a small cluster behind one address.
const SHARE: Share = Share { per_address: 32, per_block: 64 };
/// How long a connection keeps its place at least: time to say who it is and for a first comparison.
const KEPT_MIN: Duration = Duration::from_secs(2);
/// After so long a connection its peer is known, and finds a place when it comes back.
const KNOWN_AFTER: Duration = Duration::from_secs(600);
/// Known peers that are remembered; who comes later is not, so that a crowd pushes nobody out.
const KNOWN_MAX: usize = 64;
/// A known peer is forgotten when it has been away for so long.
const KNOWN_FOR: Duration = Duration::from_secs(86_400);

/// Lets inbound connections in, or not.
pub(super) struct Admission {
    trusted_nets: TrustedNets,
    places: BTreeMap<ConnectionId, Place>,
    shares: Shares,
    /// Peers of the configuration.
    named: BTreeSet<PeerId>,
    /// Known peers, and when they were last connected.
    known: BTreeMap<PeerId, Instant>,
    /// Peers that lose no place for now.
    needed: BTreeSet<PeerId>,
    closing: VecDeque<(PeerId, ConnectionId)>,
    refusals: Refusals,
}

#[derive(Clone, Debug)]
struct Place {
    peer: PeerId,
    source: Option<Source>,
    /// The block, of a trusted address too.
    block: Option<AddressBlock>,
    since: Instant,
}

impl Admission {
    pub(super) fn new(trusted_nets: TrustedNets, refusals: Refusals) -> Admission {
        Admission {
            trusted_nets,
            places: BTreeMap::new(),
            shares: Shares::new(SHARE),
            named: BTreeSet::new(),
            known: BTreeMap::new(),
            needed: BTreeSet::new(),
            closing: VecDeque::new(),
            refusals,
        }
    }

    /// The peer is one of the configuration: it always finds a place.
    pub(super) fn name(&mut self, peer: PeerId) {
        self.named.insert(peer);
    }

    /// Notes which peers are needed, and which have been connected for long.
    pub(super) fn review(&mut self, needed: BTreeSet<PeerId>, now: Instant) {
        self.needed = needed;
        for place in
            self.places.values().filter(|place| now.saturating_duration_since(place.since) > KNOWN_AFTER)
        {
            if self.known.contains_key(&place.peer) || self.known.len() < KNOWN_MAX {
                self.known.insert(place.peer, now);
            }
        }
        self.known.retain(|_, seen| now.saturating_duration_since(*seen) < KNOWN_FOR);
    }

    /// Lets a connection in; `draw` gives random numbers, which spread the choice of who makes room.
    fn admit(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        from: &Multiaddr,
        now: Instant,
        draw: &mut dyn FnMut() -> usize,
    ) -> Result<(), Reason> {
        let ip = ip_of(from);
        // Reserved ones come beyond all places: they are few, and each has few connections.
        let is_reserved = self.is_reserved(&peer);
        let source = ip.filter(|_| !is_reserved).and_then(|ip| self.trusted_nets.source(ip));
        let place = Place { peer, source, block: ip.map(AddressBlock::of), since: now };
        if !is_reserved {
            while let Some(reason) = self.shortage(source) {
                let share_of = source.filter(|_| reason == Reason::ConnectionShare);
                let victim = self.victim(share_of, now, draw).ok_or(reason)?;
                if let Some(place) = self.release(victim) {
                    self.closing.push_back((place.peer, victim));
                    self.refusals.count(Reason::ConnectionReplaced);
                }
            }
            self.shares.add(source, 1);
        }
        self.places.insert(connection, place);
        Ok(())
    }

    fn is_reserved(&self, peer: &PeerId) -> bool {
        self.named.contains(peer) || self.known.contains_key(peer)
    }

    /// What there is too little of for one more connection.
    fn shortage(&self, source: Option<Source>) -> Option<Reason> {
        let taken = self.places.values().filter(|place| !self.is_reserved(&place.peer)).count();
        if !self.shares.has_room(source, 1) {
            Some(Reason::ConnectionShare)
        } else if taken >= INBOUND_MAX {
            Some(Reason::ConnectionPlaces)
        } else {
            None
        }
    }

    /// The connection that makes room: of the own address, or block, where that has its share; else of the block with the most.
    fn victim(
        &self,
        share_of: Option<Source>,
        now: Instant,
        draw: &mut dyn FnMut() -> usize,
    ) -> Option<ConnectionId> {
        let may_go = |place: &&Place| {
            let is_kept = self.needed.contains(&place.peer) || self.is_reserved(&place.peer);
            !is_kept && now.saturating_duration_since(place.since) >= KEPT_MIN
        };
        let mut pick = |of: &dyn Fn(&Place) -> bool| {
            let places: Vec<ConnectionId> =
                self.places.iter().filter(|(_, it)| may_go(it) && of(it)).map(|(id, _)| *id).collect();
            places.get(draw() % places.len().max(1)).copied()
        };
        if let Some(source) = share_of {
            let is_own = |it: &Place| it.source.is_some_and(|it| it.address == source.address);
            let is_near = |it: &Place| it.source.is_some_and(|it| it.block == source.block);
            return pick(&is_own).or_else(|| pick(&is_near));
        }
        let mut blocks: BTreeMap<Option<AddressBlock>, usize> = BTreeMap::new();
        for place in self.places.values().filter(may_go) {
            *blocks.entry(place.block).or_default() += 1;
        }
        let most = blocks.into_iter().max_by_key(|(_, count)| *count)?.0;
        pick(&|it| it.block == most)
    }

    fn release(&mut self, connection: ConnectionId) -> Option<Place> {
        let place = self.places.remove(&connection)?;
        self.shares.remove(place.source, 1);
        Some(place)
    }
}

impl NetworkBehaviour for Admission {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        from: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        // Who comes through a relay shares its place.
        let from = if is_relayed(local) { local } else { from };
        let mut draw = || rand::random_range(0..usize::MAX);
        match self.admit(connection, peer, from, Instant::now(), &mut draw) {
            Ok(()) => Ok(dummy::ConnectionHandler),
            Err(reason) => {
                self.refusals.count(reason);
                Err(ConnectionDenied::new(io::Error::other(reason.text())))
            }
        }
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(closed) => drop(self.release(closed.connection_id)),
            // Another protocol refused it after it was let in here.
            FromSwarm::ListenFailure(failed) => drop(self.release(failed.connection_id)),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        // Filled only while the swarm asks this behaviour about a connection, after which it polls.
        match self.closing.pop_front() {
            Some((peer_id, id)) => {
                Poll::Ready(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::One(id) })
            }
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Doors at a virtual time, with connections numbered from 1.
    struct Doors {
        admission: Admission,
        now: Instant,
        last: usize,
    }

    impl Doors {
        fn new() -> Doors {
            let admission = Admission::new(TrustedNets::NONE, Refusals::default());
            Doors { admission, now: Instant::now(), last: 0 }
        }

        fn come(&mut self, peer: PeerId, ip: &str) -> Result<ConnectionId, Reason> {
            self.last += 1;
            let (id, last) = (ConnectionId::new_unchecked(self.last), self.last);
            let from = format!("/ip4/{ip}/tcp/1").parse().unwrap();
            self.admission.admit(id, peer, &from, self.now, &mut || last * 7).map(|()| id)
        }

        fn stranger(&mut self, ip: &str) -> Result<ConnectionId, Reason> {
            self.come(PeerId::random(), ip)
        }

        fn fill(&mut self) {
            for block in 0..INBOUND_MAX / SHARE.per_address {
                for _ in 0..SHARE.per_address {
                    self.stranger(&format!("10.0.{block}.1")).unwrap();
                }
            }
        }
    }

    #[test]
    fn the_identities_of_one_address_make_room_for_each_other_and_for_nobody_elses() {
        let mut doors = Doors::new();
        let honest = doors.stranger("198.51.100.1").unwrap();
        for _ in 0..SHARE.per_address {
            doors.stranger("192.0.2.1").unwrap();
        }
        assert_eq!(doors.stranger("192.0.2.1"), Err(Reason::ConnectionShare), "all of them are young");
        doors.now += KEPT_MIN;
        for _ in 0..300 {
            let _ = doors.stranger("192.0.2.1");
            doors.now += KEPT_MIN;
        }
        assert_eq!(doors.admission.places.len(), SHARE.per_address + 1);
        assert!(doors.admission.places.contains_key(&honest));
    }

    #[test]
    fn a_joiner_finds_a_place_among_as_many_identities_as_there_are_places() {
        let mut doors = Doors::new();
        doors.fill();
        assert_eq!(doors.stranger("198.51.100.1"), Err(Reason::ConnectionPlaces), "all of them are young");
        doors.now += KEPT_MIN;
        let joiner = doors.stranger("198.51.100.1").unwrap();
        assert_eq!(doors.admission.closing.len(), 1);
        assert_eq!(doors.admission.places.len(), INBOUND_MAX);
        doors.now += KEPT_MIN;
        for _ in 0..INBOUND_MAX {
            doors.stranger("203.0.113.1").unwrap();
            doors.now += KEPT_MIN;
        }
        assert!(doors.admission.places.contains_key(&joiner), "the blocks with the most pay");
    }

    #[test]
    fn needed_peers_keep_their_places_and_named_and_known_ones_find_one() {
        let mut doors = Doors::new();
        let (named, known) = (PeerId::random(), PeerId::random());
        doors.admission.name(named);
        let old = doors.come(known, "10.0.0.1").unwrap();
        doors.now += KNOWN_AFTER * 2;
        doors.admission.review(BTreeSet::new(), doors.now);
        doors.admission.release(old);
        doors.fill();
        doors.come(named, "10.0.0.1").unwrap();
        doors.come(known, "10.0.0.1").unwrap();
        let everybody = doors.admission.places.values().map(|place| place.peer).collect();
        doors.now += KEPT_MIN;
        doors.admission.review(everybody, doors.now);
        assert_eq!(
            doors.stranger("198.51.100.1"),
            Err(Reason::ConnectionPlaces),
            "a call may run on any of them"
        );
        doors.now += KNOWN_FOR;
        doors.admission.places.clear();
        doors.admission.review(BTreeSet::new(), doors.now);
        assert!(!doors.admission.is_reserved(&known), "who stays away is forgotten");
    }

    #[test]
    fn what_was_let_in_and_left_leaves_no_share_behind() {
        let mut doors = Doors::new();
        let named = PeerId::random();
        let before = doors.come(named, "192.0.2.1").unwrap();
        doors.admission.name(named);
        let after = doors.come(named, "192.0.2.1").unwrap();
        doors.admission.release(before);
        doors.admission.release(after);
        assert!(doors.admission.shares.is_empty() && doors.admission.places.is_empty());
    }
}
