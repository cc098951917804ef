//! The routing table of the DHT and the lookups that run through it: towards a peer that is wanted now and whose address may
//! not be known, for peers of a zone, at random, and to refresh the table. A lookup asks the peers closest to a key, and
//! dials whom it hears of.
//!
//! Without a DHT nothing here happens, and nothing fails.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use libp2p::{Multiaddr, PeerId, kad};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::providers::{ProviderStore, zone_key};
use super::topics::ZoneTopics;
use crate::net::peers::PEERS_LOW;
use crate::proto::name::ZoneName;

/// Peers looked for at once; each costs a few dozen small messages.
const PEER_LOOKUPS_MAX: usize = 16;
/// Zones whose peers are looked for at once.
const ZONE_LOOKUPS_MAX: usize = 16;
/// Peers that one lookup for a zone finds: more than the gossip mesh takes. Each is dialed, so that a liar's answer costs
/// no more dials than this.
const ZONE_PEERS_MAX: usize = 16;
/// How long a complete refresh of the routing table counts; shorter than the interval of the periodic one.
const REFRESH_KEPT: Duration = Duration::from_secs(20 * 60);
/// The first and the longest wait between two walks through the DHT in search of peers. It doubles while there are too
/// few: a network of three nodes will never have eight.
const RANDOM_WALK: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
/// How often peers are entered into the routing table: at once when nobody was for this long.
const FLUSH_INTERVAL: Duration = Duration::from_secs(3);

/// The behaviour that runs the DHT.
pub(super) type Kad = kad::Behaviour<ProviderStore>;

/// What is to be done in the DHT, and what is under way.
pub(super) struct RoutingTable {
    /// Peers that wait for their entry, and when they are entered next.
    pending: BTreeMap<PeerId, Vec<Multiaddr>>,
    flush_at: Instant,
    /// When the table was last refreshed completely.
    refreshed: Option<Instant>,
    /// When to walk next, and the wait after that.
    random_walk: (Instant, Duration),
    peer_lookups: BTreeMap<PeerId, PeerLookup>,
    zone_lookups: BTreeMap<ZoneName, ZoneLookup>,
    /// Zones to be provided as soon as there is somebody to tell.
    unpublished: BTreeSet<ZoneName>,
}

/// What became of the wish to look for the providers of a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// It is looked for, since now or before.
    Running,
    /// Too many zones are looked for.
    TurnedAway,
}

struct PeerLookup {
    query: kad::QueryId,
    waiting: Vec<oneshot::Sender<()>>,
}

struct ZoneLookup {
    query: kad::QueryId,
    found: BTreeSet<PeerId>,
}

impl RoutingTable {
    pub(super) fn new(now: Instant) -> RoutingTable {
        RoutingTable {
            pending: BTreeMap::new(),
            flush_at: now,
            refreshed: None,
            random_walk: (now + RANDOM_WALK.0, RANDOM_WALK.0),
            peer_lookups: BTreeMap::new(),
            zone_lookups: BTreeMap::new(),
            unpublished: BTreeSet::new(),
        }
    }

    /// A peer that serves the DHT was met; [`RoutingTable::flush`] enters it.
    pub(super) fn met(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        self.pending.insert(peer, addresses);
    }

    /// Enters the peers met since the last time. The library answers every entry into a small table with a round of
    /// lookups half a second later; entered one by one, fifty nodes that start together spend their first half minute
    /// on nothing else.
    pub(super) fn flush(&mut self, kad: Option<&mut Kad>, now: Instant) {
        if now < self.flush_at || self.pending.is_empty() {
            return;
        }
        self.flush_at = now + FLUSH_INTERVAL;
        let pending = std::mem::take(&mut self.pending);
        // Taken out before: without a DHT what was met would pile up here.
        let Some(kad) = kad else { return };
        for (peer, addresses) in pending {
            for address in addresses {
                kad.add_address(&peer, address);
            }
        }
    }

    /// The library starts a refresh of the whole table after every entry into a small one. One in [`REFRESH_KEPT`] is
    /// enough for a node with `peers` enough; the others end after their first lookup.
    pub(super) fn handle_refresh(
        &mut self,
        kad: Option<&mut Kad>,
        query: kad::QueryId,
        done: bool,
        peers: usize,
        now: Instant,
    ) {
        let fresh = self.refreshed.is_some_and(|at| now.saturating_duration_since(at) < REFRESH_KEPT);
        if done && !fresh {
            // Only a refresh that ran to its end counts; one
            // that was cut short has seen a part of the table.
            self.refreshed = Some(now);
        } else if fresh
            && peers >= PEERS_LOW
            && let Some(mut query) = kad.and_then(|kad| kad.query_mut(&query))
        {
            query.finish();
        }
    }

    /// Walks to a random place while there are too few peers at all or in a zone.
    pub(super) fn walk_unless(&mut self, enough: bool, kad: Option<&mut Kad>, now: Instant) {
        let (next, wait) = self.random_walk;
        if enough {
            self.random_walk = (now + RANDOM_WALK.0, RANDOM_WALK.0);
        } else if now >= next
            && let Some(kad) = kad
        {
            self.random_walk =
                // A quarter either way, so that nodes which started together do not go on walking together.
                (now + wait.mul_f64(rand::random_range(0.75..1.25)), (wait * 2).min(RANDOM_WALK.1));
            // Any place does: a lookup dials whom it meets, and that is what is wanted of it.
            kad.get_closest_peers(PeerId::random());
        }
    }

    /// The next walk is due at once.
    pub(super) fn walk_now(&mut self, now: Instant) {
        self.random_walk = (now, RANDOM_WALK.0);
    }

    /// Looks for a peer; `over` is told, or dropped, when it is connected or the lookup has ended.
    pub(super) fn look_up(&mut self, kad: Option<&mut Kad>, peer: PeerId, over: oneshot::Sender<()>) {
        if let Some(lookup) = self.peer_lookups.get_mut(&peer) {
            // One lookup serves all who wait for the peer: a second would ask the same nodes.
            lookup.waiting.push(over);
        } else if self.peer_lookups.len() < PEER_LOOKUPS_MAX
            && let Some(kad) = kad
        {
            let query = kad.get_closest_peers(peer);
            self.peer_lookups.insert(peer, PeerLookup { query, waiting: vec![over] });
        }
    }

    /// The peer is connected: the wait for it is over, though the lookup may go on.
    pub(super) fn connected(&mut self, peer: &PeerId) {
        if let Some(lookup) = self.peer_lookups.get_mut(peer) {
            // Dropping the senders wakes whoever waits.
            lookup.waiting.clear();
        }
    }

    /// Looks for the providers of a zone.
    pub(super) fn find_providers(&mut self, kad: &mut Kad, topics: &ZoneTopics, zone: &ZoneName) -> Lookup {
        if self.zone_lookups.contains_key(zone) {
            return Lookup::Running;
        }
        if self.zone_lookups.len() >= ZONE_LOOKUPS_MAX {
            return Lookup::TurnedAway;
        }
        let query = kad.get_providers(zone_key(topics, zone));
        self.zone_lookups.insert(zone.clone(), ZoneLookup { query, found: BTreeSet::new() });
        Lookup::Running
    }

    /// Providers that a lookup has found: its zone, and those of them that are new.
    pub(super) fn found(
        &mut self,
        query: &kad::QueryId,
        providers: impl IntoIterator<Item = PeerId>,
    ) -> Option<(ZoneName, Vec<PeerId>)> {
        let (zone, lookup) = self.zone_lookups.iter_mut().find(|(_, lookup)| lookup.query == *query)?;
        let mut new: Vec<PeerId> =
            providers.into_iter().filter(|peer| !lookup.found.contains(peer)).collect();
        // The library's set has no order. Sorted, the same run in virtual time dials the same peers.
        new.sort_unstable();
        // `found` grows here alone and by no more than this, so the difference is never negative.
        new.truncate(ZONE_PEERS_MAX - lookup.found.len());
        lookup.found.extend(&new);
        (!new.is_empty()).then(|| (zone.clone(), new))
    }

    /// A lookup has ended; its zone if it was for one and found nobody.
    pub(super) fn ended(&mut self, query: kad::QueryId) -> Option<ZoneName> {
        // Dropping a lookup drops its senders: who waited learns that there is nothing more to wait for.
        self.peer_lookups.retain(|_, lookup| lookup.query != query);
        let (zone, lookup) = self.zone_lookups.extract_if(.., |_, lookup| lookup.query == query).next()?;
        lookup.found.is_empty().then_some(zone)
    }

    /// Tells the DHT that this node serves a zone, again and again until [`RoutingTable::stop_providing`].
    pub(super) fn provide(&mut self, zone: &ZoneName) {
        self.unpublished.insert(zone.clone());
    }

    /// Tells the DHT no more; what was told expires.
    pub(super) fn stop_providing(&mut self, kad: Option<&mut Kad>, topics: &ZoneTopics, zone: &ZoneName) {
        self.unpublished.remove(zone);
        if let Some(kad) = kad {
            kad.stop_providing(&zone_key(topics, zone));
        }
    }

    /// Tells of the zones that wait for it. A table without an entry knows nobody to tell, and the library would try
    /// again half an hour later.
    pub(super) fn publish_provided(&mut self, kad: Option<&mut Kad>, topics: &ZoneTopics) {
        if self.unpublished.is_empty() {
            return;
        }
        let Some(kad) = kad else { return };
        if kad.kbuckets().next().is_none() {
            return;
        }
        // Once is enough: the library tells it again by itself from here on.
        for zone in std::mem::take(&mut self.unpublished) {
            if let Err(error) = kad.start_providing(zone_key(topics, &zone)) {
                tracing::warn!(%zone, %error, "zone not provided");
            }
        }
    }
}
