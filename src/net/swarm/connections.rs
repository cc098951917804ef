//! Who is connected: connections come and go, peers say who they are, bootstrap peers are dialed, what is too much is
//! closed.

use std::collections::BTreeSet;
use std::error::Error;
use std::io;
use std::time::Duration;

use libp2p::core::ConnectedPoint;
use libp2p::core::transport::TransportError;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError};
use libp2p::{Multiaddr, PeerId, identify, ping, relay};
use tokio::time::Instant;

use super::reach::is_neighbour;
use super::{Network, NetworkAlert, NetworkEvent};
use crate::net::addresses::{Undialable, ip_of, named_peer, peer_id, peer_key, without_peer, worth_keeping};
use crate::net::bootstrap::{RETRY_LAST, Trouble};
use crate::net::peers::{self, Peer};
use crate::proto::name::ZoneName;
use crate::sanitize::clean_short;

/// How long a run of a peer that gave way to another one is not let in again at most: the other tries again by then.
const GAVE_WAY_FOR: Duration = Duration::from_secs(RETRY_LAST.as_secs() + 10);
/// The same from when the other is there: it compares registries.
const TURN: Duration = Duration::from_secs(5);
/// Such runs that are remembered; each costs its peer two connections.
const GAVE_WAY_MAX: usize = 64;
/// What is kept of the name of another network, bytes: whoever reads it knows his own, which has 63 at most.
const SPEAKS_BYTES_MAX: usize = 64;
/// What is kept of the reason why a peer was not reached, bytes: one line.
const REASON_BYTES_MAX: usize = 160;
/// Pings in a row that may fail; the second closes the connections. At 20 s a ping and 20 s of patience: within 80 s.
const PINGS_LOST_MAX: u32 = 2;

impl Network {
    pub(super) fn handle_connected(
        &mut self,
        id: PeerId,
        connection: ConnectionId,
        endpoint: &ConnectedPoint,
    ) {
        let outbound = endpoint.is_dialer();
        let address = match endpoint {
            // Who comes through a relay has no address of his own; the relay has one.
            ConnectedPoint::Listener { local_addr, .. } if endpoint.is_relayed() => local_addr,
            _ => endpoint.get_remote_address(),
        };
        let now = Instant::now();
        let bootstrap = self.dialer.connected(connection, id, now);
        self.remembered.connected(connection);
        self.routing.connected(&id);
        let Some(key) = peer_key(&id) else {
            // Only Ed25519 is compiled in, so that no other key gets this far.
            let _ = self.swarm.disconnect_peer_id(id);
            return;
        };
        if bootstrap {
            // Strangers may fill every place; a peer that the operator named still gets in.
            let behaviour = self.swarm.behaviour_mut();
            behaviour.limits.bypass_peer_id(&id);
            behaviour.admission.name(id);
            behaviour.kad.trust(connection);
        }
        let source = ip_of(address).and_then(|ip| self.trusted_nets.source(ip));
        self.sources.connected(key, source);
        let block = source.map(|source| source.block);
        self.swarm.behaviour().gossip.budget().connected(id, block, now);
        self.request_budget.connected(key, block, now);
        let peer = self.peers.entry(id).or_insert_with(|| Peer::new(key, outbound, bootstrap, now));
        // It may have dialed us first, and be known for a configured peer by a later connection only.
        peer.bootstrap |= bootstrap;
        peer.opened(connection, address.clone(), now);
    }

    pub(super) fn handle_closed(&mut self, id: PeerId, connection: ConnectionId, left: u32) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.closed(connection);
        }
        // The driver is told of peers and not of connections, so only the last one counts.
        if left > 0 {
            return;
        }
        self.dialer.disconnected(id, Instant::now(), rand::random());
        let Some(peer) = self.peers.remove(&id) else { return };
        self.remembered.left(&id, &peer, Instant::now());
        if !peer.identified && !peer.is_foreign {
            let left = Trouble::NoAnswer("it ended the connection before it said who it is".into());
            let news = self.dialer.refused(&id, left, Instant::now());
            self.ready.extend(news.into_iter().map(NetworkEvent::Alert));
        }
        self.sources.disconnected(&peer.key);
        self.swarm.behaviour().gossip.budget().disconnected(&id);
        self.request_budget.disconnected(&peer.key);
        if peer.identified {
            self.ready.push_back(NetworkEvent::Disconnected { peer: peer.key });
        }
        if let Some(address) = peer.renew_at {
            // A failure is the library's to forget: the peer has our address too.
            let _ = self.swarm.dial(DialOpts::peer_id(id).addresses(vec![address]).build());
        }
    }

    pub(super) fn handle_dial_failed(&mut self, connection: ConnectionId, error: &DialError) {
        self.remembered.failed(connection, error);
        let is_own = match error {
            DialError::LocalPeerId { .. } => true,
            // The library leaves out where this node listens; of a configured address nothing else is left out.
            DialError::NoAddresses => {
                self.dialer.dialed(connection).is_some_and(|at| named_peer(at).is_none())
            }
            _ => false,
        };
        self.metrics.dialed(match error {
            _ if is_own => "self",
            DialError::Denied { .. } | DialError::DialPeerConditionFalse(_) => "refused",
            _ => "failed",
        });
        if is_own {
            // A list of all nodes, the own one included, is a usual configuration and no fault to report.
            return self.dialer.is_myself(connection);
        }
        // Where another connection with the peer was quicker, nothing is wrong with this address.
        let is_needless = matches!(error, DialError::DialPeerConditionFalse(_));
        let own = *self.swarm.local_peer_id();
        let trouble = |address: &Multiaddr| match error {
            DialError::NoAddresses => Some(Trouble::OtherPeer(own)),
            error => (!is_needless).then(|| trouble_of(error, address)),
        };
        let news = self.dialer.failed(connection, trouble, Instant::now(), rand::random());
        self.ready.extend(news.map(NetworkEvent::Alert));
    }

    pub(super) fn handle_identified(&mut self, id: PeerId, connection: ConnectionId, info: identify::Info) {
        // What a peer said may be read after its last connection was closed.
        let seen_at = self.peers.get(&id).and_then(|peer| peer.seen_at.first().cloned());
        let Some(seen_at) = seen_at else { return };
        let is_neighbour = is_neighbour(self, &id, &seen_at);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if info.protocol_version != self.names.identify {
            // Two worlds on one machine find each other through
            // old addresses: told, and not held against the peer.
            let (key, speaks) = (peer.key, clean_short(&info.protocol_version, SPEAKS_BYTES_MAX));
            peer.is_foreign = true;
            let is_found_there = is_neighbour && !peer.bootstrap;
            if !is_found_there {
                tracing::info!(event = "peer_of_other_network", peer = %key, speaks, "peer of another network disconnected");
            }
            if is_found_there {
                // Whoever speaks libp2p answers in a local network.
            } else if peer.bootstrap {
                let news = self.dialer.refused(&id, Trouble::OtherNetwork(speaks), Instant::now());
                self.ready.extend(news.into_iter().map(NetworkEvent::Alert));
            } else {
                let other = NetworkAlert::OtherNetwork { peer: key, address: seen_at, speaks };
                self.ready.push_back(NetworkEvent::Alert(other));
            }
            let _ = self.swarm.disconnect_peer_id(id);
            return;
        }
        let now = Instant::now();
        self.gave_way.retain(|_, (_, until)| now < *until);
        if self.gave_way.get(&id).is_some_and(|(run, _)| *run == info.agent_version) {
            self.swarm.close_connection(connection);
            return;
        }
        if peer.identified && peer.agent != info.agent_version {
            // Or there are two processes with one key. Then each has its turn, in which it hears of the other.
            if self.gave_way.len() < GAVE_WAY_MAX {
                self.gave_way.insert(id, (peer.agent.clone(), now + GAVE_WAY_FOR));
            }
            // It was restarted and its old connection still looks alive. Gossip tells its subscriptions on the first
            // connection of a peer only, so the new run would never hear of ours: start afresh.
            // Dialed where it was reached before and nowhere else: who dialed us dials again, and where it says that it listens
            // somebody else may.
            peer.renew_at = peer.outbound.then_some(seen_at);
            let _ = self.swarm.disconnect_peer_id(id);
            return;
        }
        if let Some((_, until)) = self.gave_way.get_mut(&id) {
            *until = (*until).min(now + TURN);
        }
        peer.agent = info.agent_version;
        peer.offers_relay = info.protocols.contains(&relay::HOP_PROTOCOL_NAME);
        let own = self.swarm.listeners();
        self.reach.observed(&seen_at, peer.bootstrap, &info.observed_addr, own);
        // Filtered before the table sees it: a private address of theirs may be another machine of ours.
        peer.listens_at = worth_keeping(&seen_at, info.listen_addrs);
        // Kademlia learns no address by itself, and only a peer that serves it belongs into the table.
        if info.protocols.contains(&self.names.kad) {
            self.routing.met(id, peer.listens_at.clone());
        }
        self.remembered.met(id, peer);
        for address in self.dialer.welcomed(&id) {
            tracing::info!(event = "bootstrap_reached", %address, "bootstrap peer reached");
        }
        // Identify comes again with each connection and each change of addresses; the peer is welcomed once.
        if !std::mem::replace(&mut peer.identified, true) {
            self.ready.extend(connected_events(peer));
        }
        self.routing.flush(self.swarm.behaviour_mut().kad.as_mut(), Instant::now());
    }

    pub(super) fn handle_ping(&mut self, ping::Event { peer: id, result, .. }: ping::Event) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        match result {
            Ok(rtt) => {
                (peer.rtt, peer.pings_lost) = (Some(rtt), 0);
                self.metrics.rtt.observe(rtt);
            }
            // One loss alone may be a busy machine, and a closed
            // connection costs a handshake and a comparison.
            Err(_) => peer.pings_lost += 1,
        }
        if peer.pings_lost >= PINGS_LOST_MAX {
            let _ = self.swarm.disconnect_peer_id(id);
        }
    }

    /// A running lookup would dial again what is closed under it, so it is waited for.
    pub(super) fn close_excess(&mut self, now: Instant) {
        // A call lives on one connection and is lost with it, unlike gossip, which any other peer repairs.
        let calling: BTreeSet<PeerId> = self.calls.peers().iter().filter_map(peer_id).collect();
        // Closing those of the mesh would only have it graft others, which may be closed next.
        for over in self.reached.take_over(now) {
            if !self.dialer.contains(&over) {
                self.swarm.behaviour_mut().limits.remove_peer_id(&over);
            }
        }
        let mesh = self.swarm.behaviour().gossip.all_mesh_peers();
        let needed = mesh.chain(&calling).chain(self.reached.iter());
        let needed: BTreeSet<PeerId> = needed.chain(self.reach.relays.all()).copied().collect();
        self.swarm.behaviour_mut().admission.review(needed.clone(), now);
        if self.swarm.behaviour().kad.as_ref().is_none_or(|kad| kad.iter_queries().next().is_none()) {
            for peer in peers::excess(&self.peers, &needed, now, rand::random_range(0..usize::MAX)) {
                let _ = self.swarm.disconnect_peer_id(peer);
            }
        }
        for connection in
            peers::duplicate_connections(&self.peers, *self.swarm.local_peer_id(), &calling, now)
        {
            self.swarm.close_connection(connection);
        }
    }

    pub(super) fn dial_bootstrap_peers(&mut self, now: Instant) {
        for index in self.dialer.due(now) {
            let bootstrap = self.dialer.get(index);
            let address = bootstrap.address.clone();
            let options: DialOpts = match named_peer(&address) {
                Some(peer) => DialOpts::peer_id(peer)
                    // The peer may have dialed us meanwhile; a second connection would only be closed again.
                    .condition(PeerCondition::DisconnectedAndNotDialing)
                    .addresses(vec![address])
                    // It may have moved: what peers say of it is tried beside the configured address.
                    .extend_addresses_through_behaviour()
                    .build(),
                None => address.into(),
            };
            let connection = options.connection_id();
            // Before the dial, which may fail at once: the failure is looked up by this connection.
            self.dialer.dialing(index, connection);
            if let Err(error) = self.swarm.dial(options) {
                self.handle_dial_failed(connection, &error);
            }
        }
    }
}

/// Why a dial of a configured address failed. Other addresses of its peer may have been tried beside it.
fn trouble_of(error: &DialError, address: &Multiaddr) -> Trouble {
    let cause = match error {
        DialError::WrongPeerId { obtained, .. } => return Trouble::OtherPeer(*obtained),
        DialError::Transport(failures) => {
            let own = |(tried, _): &&(Multiaddr, _)| without_peer(tried) == without_peer(address);
            match failures.iter().find(own).or(failures.first()) {
                Some((_, TransportError::Other(error))) => innermost(error),
                Some((_, TransportError::MultiaddrNotSupported(_))) => Undialable::Spoken.to_string(),
                None => error.to_string(),
            }
        }
        DialError::Denied { cause } => innermost(cause),
        error => error.to_string(),
    };
    // Some errors say what the other side said.
    Trouble::NoAnswer(clean_short(&cause, REASON_BYTES_MAX))
}

/// What an error is about in the end: those around it only repeat it.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let inner =
        error.downcast_ref::<io::Error>().and_then(io::Error::get_ref).map(|inner| inner as &dyn Error);
    match inner.or(error.source()) {
        Some(inner) => innermost(inner),
        None => {
            let text = error.to_string();
            let text = text.split(" (os error ").next().unwrap_or_default();
            // It goes on behind a colon; what is written large to its end, as DNS, stays.
            let mut letters = text.chars();
            match (letters.next(), letters.clone().next()) {
                (Some(first), Some(second)) if second.is_lowercase() => {
                    first.to_lowercase().chain(letters).collect()
                }
                _ => text.to_owned(),
            }
        }
    }
}

fn connected_events(peer: &Peer) -> Vec<NetworkEvent> {
    let key = peer.key;
    // Before the subscriptions: the driver keeps from it who dialed, which each of them asks for.
    let addresses = peer.listens_at.clone();
    let connected = NetworkEvent::Connected { peer: key, outbound: peer.outbound, addresses };
    let subscribed = |zone: &ZoneName| NetworkEvent::Subscribed { peer: key, zone: zone.clone() };
    std::iter::once(connected).chain(peer.zones.iter().map(subscribed)).collect()
}
