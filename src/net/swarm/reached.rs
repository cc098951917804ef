//! Peers that the node asks again and again though no zone is shared with them: parents and gateways of zones below. Where
//! they are dialed somebody said, so what is dialed passes the filter of all such words; while they are asked their connections
//! are needed.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId};
use tokio::time::Instant;

use super::Network;
use crate::net::addresses::peer_id;
use crate::proto::ask::Contact;

/// How long a connection is needed after its peer was asked: whoever is asked from time to time is asked within this.
const NEEDED_FOR: Duration = Duration::from_secs(150);
/// Such peers at once: three gateways of each zone below, of as many zones as one gateway follows at 0.1 MB a connection.
const REACHED_MAX: usize = 4_096;

/// Until when the connections of such peers are needed.
#[derive(Default)]
pub(super) struct ReachedPeers(BTreeMap<PeerId, Instant>);

impl ReachedPeers {
    /// A peer is asked now; whether there is room to need it.
    fn note(&mut self, peer: PeerId, now: Instant) -> bool {
        if self.0.len() >= REACHED_MAX && !self.0.contains_key(&peer) {
            return false;
        }
        self.0.insert(peer, now + NEEDED_FOR);
        true
    }

    /// Those that are needed no more since this was last called.
    pub(super) fn take_over(&mut self, now: Instant) -> Vec<PeerId> {
        self.0.extract_if(.., |_, until| *until <= now).map(|(peer, _)| peer).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &PeerId> {
        self.0.keys()
    }
}

/// A peer is about to be asked: it is dialed where it is said to be, if it is not connected, and stays connected for as long as
/// it is asked.
pub(crate) fn reach(network: &mut Network, contact: &Contact) {
    let swarm = &mut network.swarm;
    let Some(peer) = peer_id(&contact.peer).filter(|peer| peer != swarm.local_peer_id()) else { return };
    let now = Instant::now();
    if network.reached.note(peer, now) {
        // Beyond the places for connections that nobody asked for.
        swarm.behaviour_mut().limits.bypass_peer_id(&peer);
    }
    if swarm.is_connected(&peer) {
        return;
    }
    let named = contact.addresses.iter().filter_map(|bytes| Multiaddr::try_from(bytes.to_vec()).ok());
    let addresses = swarm.behaviour_mut().kad.filter_named(peer, named.collect(), now);
    let options = DialOpts::peer_id(peer)
        .condition(PeerCondition::DisconnectedAndNotDialing)
        .addresses(addresses)
        // It may have moved: what the DHT says of it is tried as well.
        .extend_addresses_through_behaviour();
    // Whether it is reached shows when it is asked.
    let _ = swarm.dial(options.build());
}
