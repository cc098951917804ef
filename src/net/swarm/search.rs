//! Looking for a peer that is wanted now and whose address may not be known: a walk through the DHT towards its key.
//! The walk asks the peers closest to the key, and dials whom it hears of, the wanted peer among them.

use std::collections::BTreeMap;

use libp2p::{PeerId, kad};
use tokio::sync::oneshot;

use super::Network;
use crate::net::addresses::peer_id;
use crate::proto::identity::PeerKey;

/// Peers looked for at once; each costs a few dozen small messages.
const SEARCHES_MAX: usize = 16;

/// The running searches.
#[derive(Default)]
pub(super) struct Searches(BTreeMap<PeerId, Search>);

struct Search {
    query: kad::QueryId,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Network {
    /// Looks for the peer; `over` is told, or dropped, when it is connected or the search has ended.
    pub(crate) fn search(&mut self, peer: &PeerKey, over: oneshot::Sender<()>) {
        let Some(id) = peer_id(peer).filter(|id| !self.swarm.is_connected(id)) else { return };
        if let Some(search) = self.searches.0.get_mut(&id) {
            search.waiting.push(over);
        } else if self.searches.0.len() < SEARCHES_MAX {
            let query = self.swarm.behaviour_mut().kad.get_closest_peers(id);
            self.searches.0.insert(id, Search { query, waiting: vec![over] });
        }
    }
}

impl Searches {
    /// The peer is connected: the wait is over, though the walk may go on.
    pub(super) fn connected(&mut self, peer: &PeerId) {
        if let Some(search) = self.0.get_mut(peer) {
            search.waiting.clear();
        }
    }

    /// A walk has ended.
    pub(super) fn ended(&mut self, query: kad::QueryId) {
        self.0.retain(|_, search| search.query != query);
    }
}
