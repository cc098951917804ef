//! The DHT: peers that are wanted now, and peers of a zone, found and told.

use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{PeerId, kad};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::routing::Lookup;
use super::{Network, NetworkEvent};
use crate::net::addresses::{peer_id, peer_key};
use crate::proto::identity::PeerKey;
use crate::proto::name::ZoneName;

impl Network {
    /// Looks for the peer; `over` is told, or dropped, when it is connected or the lookup has ended.
    pub(crate) fn look_up(&mut self, peer: &PeerKey, over: oneshot::Sender<()>) {
        // Returning drops `over`, which ends the wait like any other outcome.
        let Some(id) = peer_id(peer).filter(|id| !self.swarm.is_connected(id)) else { return };
        self.routing.look_up(self.swarm.behaviour_mut().kad.as_mut(), id, over);
    }

    /// Looks for peers that provide a zone, dials those it finds and tells them as [`NetworkEvent::ZonePeers`]: maybe
    /// several times, and once with nobody if it finds nobody. A hint, for a provider proves nothing by being one.
    ///
    /// While a lookup for the zone runs no other is started, and while too many run it counts as one that found nobody.
    /// Without a DHT nothing is told.
    pub fn find_peers(&mut self, zone: &ZoneName) {
        let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() else { return };
        if self.routing.find_providers(kad, &self.topics, zone) == Lookup::TurnedAway {
            self.ready.push_back(NetworkEvent::ZonePeers { zone: zone.clone(), peers: Vec::new() });
        }
    }

    /// Lets this node be found as one that serves the zone, until [`Network::stop_providing`] or
    /// [`Network::leave_zone`].
    pub fn provide(&mut self, zone: &ZoneName) {
        // Kept as a wish first: the table may still be empty, and the next tick tries again.
        self.routing.provide(zone);
        self.routing.publish_provided(self.swarm.behaviour_mut().kad.as_mut(), &self.topics);
    }

    /// Lets this node be found no more once what it told has expired.
    pub fn stop_providing(&mut self, zone: &ZoneName) {
        self.routing.stop_providing(self.swarm.behaviour_mut().kad.as_mut(), &self.topics, zone);
    }

    pub(super) fn handle_kad(&mut self, event: kad::Event) {
        match event {
            kad::Event::OutboundQueryProgressed {
                id,
                result: kad::QueryResult::Bootstrap(Ok(_)),
                step,
                ..
            } => {
                let kad = self.swarm.behaviour_mut().kad.as_mut();
                self.routing.handle_refresh(kad, id, step.last, self.peers.len(), Instant::now());
            }
            // A lookup tells of each answer; its place is free again after the last step only.
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => {
                if let kad::QueryResult::GetProviders(Ok(found)) = result
                    && let kad::GetProvidersOk::FoundProviders { providers, .. } = found
                {
                    self.handle_providers(&id, providers);
                }
                if step.last
                    && let Some(zone) = self.routing.ended(id)
                {
                    self.ready.push_back(NetworkEvent::ZonePeers { zone, peers: Vec::new() });
                }
            }
            kad::Event::InboundRequest {
                request: kad::InboundRequest::AddProvider { record: Some(record) },
            } => {
                if let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() {
                    // What has no room is not kept; whoever put it is none the wiser.
                    let _ = kad::store::RecordStore::add_provider(kad.store_mut(), record);
                }
            }
            // Filtered inserts come here and end here: no value that a peer puts into the table is kept.
            _ => {}
        }
    }

    /// The addresses of a provider are known while its lookup runs and not longer, so it is dialed at once.
    fn handle_providers(&mut self, query: &kad::QueryId, providers: impl IntoIterator<Item = PeerId>) {
        // Who provides a zone and looks for others in it finds itself.
        let own = *self.swarm.local_peer_id();
        let others = providers.into_iter().filter(|peer| *peer != own);
        let Some((zone, found)) = self.routing.found(query, others) else { return };
        for peer in &found {
            let options = DialOpts::peer_id(*peer).condition(PeerCondition::DisconnectedAndNotDialing);
            // A peer that is connected, or that nobody knows an address of, is not dialed.
            let _ = self.swarm.dial(options.build());
        }
        let peers = found.iter().filter_map(peer_key).collect();
        self.ready.push_back(NetworkEvent::ZonePeers { zone, peers });
    }
}
