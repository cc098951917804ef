//! Walks through the DHT: towards a peer that is wanted now and whose address may not be known, and to refresh the
//! routing table. A walk asks the peers closest to a key, and dials whom it hears of, the wanted peer among them.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::{PeerId, kad};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Network;
use crate::net::addresses::peer_id;
use crate::net::peers::PEERS_LOW;
use crate::proto::identity::PeerKey;

/// Peers looked for at once; each costs a few dozen small messages.
const LOOKUPS_MAX: usize = 16;

/// How long a complete refresh of the routing table counts; shorter than the interval of the periodic one.
const REFRESH_KEPT: Duration = Duration::from_secs(20 * 60);

/// The running searches.
#[derive(Default)]
pub(super) struct PeerLookups(BTreeMap<PeerId, PeerLookup>);

struct PeerLookup {
    query: kad::QueryId,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Network {
    /// Looks for the peer; `over` is told, or dropped, when it is connected or the search has ended.
    pub(crate) fn look_up(&mut self, peer: &PeerKey, over: oneshot::Sender<()>) {
        let Some(id) = peer_id(peer).filter(|id| !self.swarm.is_connected(id)) else { return };
        if let Some(lookup) = self.lookups.0.get_mut(&id) {
            lookup.waiting.push(over);
        } else if self.lookups.0.len() < LOOKUPS_MAX
            && let Some(kad) = self.swarm.behaviour_mut().kad.as_mut()
        {
            let query = kad.get_closest_peers(id);
            self.lookups.0.insert(id, PeerLookup { query, waiting: vec![over] });
        }
    }

    /// The library starts a refresh of the whole routing table after every entry into a small one. One in
    /// [`REFRESH_KEPT`] is enough; the others end after their first lookup.
    pub(super) fn handle_refresh(&mut self, id: kad::QueryId, done: bool) {
        let now = Instant::now();
        let fresh = self.refreshed.is_some_and(|at| now.saturating_duration_since(at) < REFRESH_KEPT);
        if done && !fresh {
            self.refreshed = Some(now);
        } else if fresh
            && self.peers.len() >= PEERS_LOW
            && let Some(mut query) =
                self.swarm.behaviour_mut().kad.as_mut().and_then(|kad| kad.query_mut(&id))
        {
            query.finish();
        }
    }
}

impl PeerLookups {
    /// The peer is connected: the wait is over, though the walk may go on.
    pub(super) fn connected(&mut self, peer: &PeerId) {
        if let Some(lookup) = self.0.get_mut(peer) {
            lookup.waiting.clear();
        }
    }

    /// A walk has ended.
    pub(super) fn ended(&mut self, query: kad::QueryId) {
        self.0.retain(|_, lookup| lookup.query != query);
    }
}
