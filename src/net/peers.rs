//! The connected peers: what is known of each, and which connections are excess.
//!
//! Kademlia dials whomever a lookup meets; left alone, fifty nodes on one machine become a full mesh. The rule here:
//! **who opened a connection closes it.** A node with more than [`PEERS_HIGH`] peers closes the connections it opened
//! itself and needs for nothing, a few a second, down to [`PEERS_TARGET`]. Peers from the configuration, peers in the
//! gossip mesh and peers with whom calls are under way are never excess. Inbound connections are left to their openers:
//! of the [`INBOUND_MAX`] places a newcomer may take one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};
use tokio::time::Instant;

use crate::net::addresses::is_relayed;
use crate::proto::identity::PeerKey;
use crate::proto::name::ZoneName;

/// More peers than this and own excess connections are closed. The mesh takes 6 to 12.
pub const PEERS_HIGH: usize = 16;
/// Closing stops at this many peers: a usual mesh of 7, and some for lazy gossip and to graft from when others leave.
pub const PEERS_TARGET: usize = 12;
/// Fewer peers than this and new ones are looked for.
pub const PEERS_LOW: usize = 8;
/// Places for inbound connections; at 0.1 MB each about 26 MB.
pub const INBOUND_MAX: usize = 256;
/// A connection younger than this may be in use for the lookup it was opened for, or not yet grafted.
pub const SETTLING: Duration = Duration::from_secs(10);
/// A second connection with one peer (both dialed at once) is closed at this age, by the side with the smaller PeerId.
/// Old enough for the first sync to be over, which may run on either.
pub const DUPLICATE_KEPT: Duration = Duration::from_secs(30);
/// Most connections closed in one second: all nodes of a young network decide at the same time on stale counts.
pub const CLOSED_PER_SECOND_MAX: usize = 2;
/// Who has not said within this time who it is (identify) is disconnected.
pub const IDENTIFY_DEADLINE: Duration = Duration::from_secs(15);

/// What is known of a connected peer.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its key.
    pub key: PeerKey,
    /// Its remote addresses, one for each open connection.
    pub seen_at: Vec<Multiaddr>,
    /// Where it says it listens, filtered by `addresses::worth_keeping`.
    pub listens_at: Vec<Multiaddr>,
    /// Whether this node opened the first connection.
    pub outbound: bool,
    /// Whether it is one of the configured bootstrap peers.
    pub bootstrap: bool,
    /// Program and version it names, and after a space its run; empty before it did.
    pub agent: String,
    /// The last round trip; `None` before the first ping.
    pub rtt: Option<Duration>,
    /// Our zones that it subscribed to.
    pub zones: BTreeSet<ZoneName>,
    /// When the first connection was made.
    pub since: Instant,
    /// Whether identify confirmed that it belongs to our network.
    pub(crate) identified: bool,
    /// Whether identify said that it belongs to another.
    pub(crate) is_foreign: bool,
    pub(crate) connections: BTreeMap<ConnectionId, (Multiaddr, Instant)>,
    pub(crate) pings_lost: u32,
    /// Where it is dialed again once it is disconnected.
    pub(crate) renew_at: Option<Multiaddr>,
    /// When it last was the first to bring a message that was accepted.
    pub(crate) brought: Instant,
    /// Whether it says that it relays for others.
    pub(crate) offers_relay: bool,
    /// Whether it held a place in a mesh where others wait, and brought nothing for long.
    pub(crate) is_silent: bool,
}

impl Peer {
    pub(crate) fn new(key: PeerKey, outbound: bool, bootstrap: bool, since: Instant) -> Peer {
        Peer {
            key,
            seen_at: Vec::new(),
            listens_at: Vec::new(),
            outbound,
            bootstrap,
            agent: String::new(),
            rtt: None,
            zones: BTreeSet::new(),
            since,
            identified: false,
            is_foreign: false,
            connections: BTreeMap::new(),
            pings_lost: 0,
            renew_at: None,
            brought: since,
            offers_relay: false,
            is_silent: false,
        }
    }

    /// Whether it is reached through a relay alone.
    pub fn is_relayed(&self) -> bool {
        self.seen_at.iter().all(is_relayed)
    }

    pub(crate) fn opened(&mut self, connection: ConnectionId, address: Multiaddr, now: Instant) {
        self.connections.insert(connection, (address, now));
        self.list_addresses();
    }

    pub(crate) fn closed(&mut self, connection: ConnectionId) {
        self.connections.remove(&connection);
        self.list_addresses();
    }

    fn list_addresses(&mut self) {
        self.seen_at = self.connections.values().map(|(address, _)| address.clone()).collect();
    }
}

/// The peers to disconnect now: strangers that never identified themselves, and excess.
///
/// `needed` are the peers in the gossip mesh of any zone and those with whom calls are under way, `start` is a random
/// number that spreads the choice.
pub(crate) fn excess(
    peers: &BTreeMap<PeerId, Peer>,
    needed: &BTreeSet<PeerId>,
    now: Instant,
    start: usize,
) -> Vec<PeerId> {
    let age = |peer: &Peer| now.saturating_duration_since(peer.since);
    // Strangers are no part of the pace below: they serve nobody, and a flood of them must not take turns.
    let strangers = peers.iter().filter(|(_, peer)| !peer.identified && age(peer) > IDENTIFY_DEADLINE);
    let mut closing: Vec<PeerId> = strangers.map(|(id, _)| *id).collect();
    // Two marks: with one, a node at the limit would close and dial by turns for ever.
    let excess = if peers.len() > PEERS_HIGH { peers.len() - PEERS_TARGET } else { 0 };
    let idle = |id: &PeerId, peer: &Peer| {
        peer.identified && peer.outbound && !peer.bootstrap && !needed.contains(id) && age(peer) > SETTLING
    };
    let mut idle: Vec<PeerId> = peers.iter().filter(|(id, peer)| idle(id, peer)).map(|(id, _)| *id).collect();
    if !idle.is_empty() {
        // In the order of ids the same peers would be dropped by everybody.
        let middle = start % idle.len();
        idle.rotate_left(middle);
    }
    closing.extend(idle.into_iter().take(excess.min(CLOSED_PER_SECOND_MAX)));
    closing
}

/// The connections that `own` has to close because an older one leads to the same peer, or a direct one where this leads
/// through a relay. A call that is under way with a peer in `calling` may run on either, so both stay.
pub(crate) fn duplicate_connections(
    peers: &BTreeMap<PeerId, Peer>,
    own: PeerId,
    calling: &BTreeSet<PeerId>,
    now: Instant,
) -> Vec<ConnectionId> {
    let newer = |peer: &Peer| {
        let old_enough = |since: Instant| now.saturating_duration_since(since) > DUPLICATE_KEPT;
        // Ids of connections rise, so the first of the map is the oldest.
        let mut all: Vec<_> = peer.connections.iter().collect();
        all.sort_by_key(|(_, (address, _))| is_relayed(address));
        let kept_since = all.first().map_or(now, |(_, (_, since))| *since);
        let newer = all.into_iter().skip(1);
        newer
            .filter(|(_, (_, since))| old_enough((*since).max(kept_since)))
            .map(|(id, _)| *id)
            .collect::<Vec<_>>()
    };
    peers
        .iter()
        // Each side counts its connections by itself: were both to close one, both might go.
        .filter(|(id, _)| own < **id && !calling.contains(id))
        .flat_map(|(_, peer)| newer(peer))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(count: usize, outbound: bool, since: Instant) -> BTreeMap<PeerId, Peer> {
        let peer = |n: usize| {
            let mut peer = Peer::new(PeerKey([n as u8; 32]), outbound, false, since);
            peer.identified = true;
            (PeerId::random(), peer)
        };
        (0..count).map(peer).collect()
    }

    /// Closes excess until nothing more is closed.
    fn settle(
        mut peers: BTreeMap<PeerId, Peer>,
        mesh: &BTreeSet<PeerId>,
        now: Instant,
    ) -> BTreeMap<PeerId, Peer> {
        for start in 0.. {
            let closing = excess(&peers, mesh, now, start);
            if closing.is_empty() {
                break;
            }
            assert!(closing.len() <= CLOSED_PER_SECOND_MAX);
            for id in &closing {
                peers.remove(id);
            }
        }
        peers
    }

    #[test]
    fn own_excess_is_closed_down_to_the_target_and_the_mesh_is_spared() {
        let since = Instant::now();
        let peers = world(50, true, since);
        let mesh: BTreeSet<PeerId> = peers.keys().take(12).copied().collect();
        let left = settle(peers, &mesh, since + SETTLING * 2);
        assert!(
            left.len() > PEERS_TARGET - CLOSED_PER_SECOND_MAX && left.len() <= PEERS_HIGH,
            "{}",
            left.len()
        );
        assert!(mesh.iter().all(|id| left.contains_key(id)));
    }

    #[test]
    fn inbound_connections_are_left_to_their_openers() {
        let since = Instant::now();
        let left = settle(world(100, false, since), &BTreeSet::new(), since + SETTLING * 2);
        assert_eq!(left.len(), 100);
    }

    #[test]
    fn young_and_configured_peers_are_never_excess() {
        let since = Instant::now();
        let mut peers = world(40, true, since);
        assert!(excess(&peers, &BTreeSet::new(), since, 0).is_empty());
        peers.values_mut().for_each(|peer| peer.bootstrap = true);
        assert!(excess(&peers, &BTreeSet::new(), since + SETTLING * 2, 0).is_empty());
    }

    #[test]
    fn one_side_closes_the_newer_of_two_connections() {
        let since = Instant::now();
        let (mut low, mut high) = (PeerId::random(), PeerId::random());
        if high < low {
            std::mem::swap(&mut low, &mut high);
        }
        let mut peer = Peer::new(PeerKey([1; 32]), true, false, since);
        for id in [4, 7] {
            peer.opened(ConnectionId::new_unchecked(id), "/ip4/127.0.0.1/tcp/1".parse().unwrap(), since);
        }
        let now = since + DUPLICATE_KEPT * 2;
        let (none, calling) = (BTreeSet::new(), BTreeSet::from([high]));
        assert_eq!(
            duplicate_connections(&BTreeMap::from([(high, peer.clone())]), low, &none, now),
            [ConnectionId::new_unchecked(7)]
        );
        assert!(
            duplicate_connections(&BTreeMap::from([(high, peer.clone())]), low, &calling, now).is_empty()
        );
        assert!(duplicate_connections(&BTreeMap::from([(high, peer.clone())]), low, &none, since).is_empty());
        assert!(duplicate_connections(&BTreeMap::from([(low, peer)]), high, &none, now).is_empty());
    }

    #[test]
    fn a_direct_connection_takes_the_place_of_an_older_one_through_a_relay() {
        let since = Instant::now();
        let (low, high) = {
            let (one, other) = (PeerId::random(), PeerId::random());
            (one.min(other), one.max(other))
        };
        let mut peer = Peer::new(PeerKey([1; 32]), true, false, since);
        let relayed = format!("/ip4/192.0.2.1/tcp/1/p2p/{low}/p2p-circuit");
        peer.opened(ConnectionId::new_unchecked(4), relayed.parse().unwrap(), since);
        assert!(peer.is_relayed());
        let direct_since = since + DUPLICATE_KEPT;
        peer.opened(ConnectionId::new_unchecked(7), "/ip4/127.0.0.1/tcp/1".parse().unwrap(), direct_since);
        assert!(!peer.is_relayed());
        let peers = BTreeMap::from([(high, peer)]);
        let closed = |now| duplicate_connections(&peers, low, &BTreeSet::new(), now);
        assert_eq!(closed(direct_since + DUPLICATE_KEPT / 2), [], "what began on it may still run");
        assert_eq!(closed(direct_since + DUPLICATE_KEPT * 2), [ConnectionId::new_unchecked(4)]);
    }

    #[test]
    fn who_never_says_who_it_is_is_disconnected() {
        let since = Instant::now();
        let mut peers = world(3, false, since);
        peers.values_mut().next().unwrap().identified = false;
        assert_eq!(excess(&peers, &BTreeSet::new(), since + IDENTIFY_DEADLINE * 2, 0).len(), 1);
    }
}
