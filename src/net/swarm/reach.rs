//! From where this node is reached, as far as it knows: by what its operator announces, what others tried, and how peers see it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use libp2p::autonat::v2::client;
use libp2p::core::transport::ListenerId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId, Swarm, dcutr, kad, mdns, relay};
use tokio::time::Instant;

use super::Network;
use super::behaviour::Behaviour;
use super::circuits::Circuits;
use super::relays::{Relays, Wanted};
use crate::net::addresses::{Reach, ip_of, peer_key, reach_of_met};
use crate::net::refusals::Reason;
use crate::proto::address_block::AddressBlock;

/// Address blocks whose peers must see this node elsewhere than it is, before it believes that: one stranger moves nothing.
const WITNESSES_MIN: usize = 2;
/// How long a node that is not reached looks for a relay before it says so.
const RELAY_PATIENCE: Duration = Duration::from_secs(30);
/// Programs of the local network that are known: an office, and nobody who invents them fills the memory.
const NEIGHBOURS_MAX: usize = 64;
/// Blocks that are remembered for that.
const WITNESSES_MAX: usize = 64;

/// From where a node is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReachState {
    /// From everywhere, by what was announced or tried.
    Public,
    /// Through relays.
    Relayed,
    /// Only from its own network.
    Private,
    /// Nobody said.
    #[default]
    Unknown,
}

impl ReachState {
    /// Every state.
    pub const ALL: [ReachState; 4] =
        [ReachState::Public, ReachState::Relayed, ReachState::Private, ReachState::Unknown];

    /// Its text.
    pub fn text(self) -> &'static str {
        match self {
            ReachState::Public => "public",
            ReachState::Relayed => "relayed",
            ReachState::Private => "private",
            ReachState::Unknown => "unknown",
        }
    }
}

/// How a node is reached now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnReach {
    /// From where.
    pub state: ReachState,
    /// At which addresses from everywhere: announced ones, and those that others tried.
    pub addresses: Vec<Multiaddr>,
    /// Through whom.
    pub relays: Vec<PeerId>,
    /// How many circuits it relays for others.
    pub circuits: usize,
}

/// What is known of that.
#[derive(Debug, Default)]
pub(super) struct Reachability {
    /// Who was found in the local network. Every program that speaks libp2p answers there, whatever its world.
    neighbours: BTreeSet<PeerId>,
    announced: Vec<Multiaddr>,
    /// Whether the operator lets it relay for others.
    may_relay: bool,
    /// Tried by others, with success.
    confirmed: BTreeSet<Multiaddr>,
    /// Whether others tried in vain since the last success.
    is_refuted: bool,
    /// Whether this node is behind a translation of addresses, by the peers of a block; those of the operator count for all.
    translated: BTreeMap<Option<AddressBlock>, bool>,
    pub(super) relays: Relays,
    /// What this node relays for others.
    circuits: Circuits,
    /// Since when it is reached from its own network alone.
    private_since: Option<Instant>,
}

impl Reachability {
    /// Of a node at these announced addresses, which `relays` for others where it can.
    pub(super) fn new(announced: Vec<Multiaddr>, relays: bool) -> Reachability {
        Reachability { announced, may_relay: relays, ..Reachability::default() }
    }

    pub(super) fn state(&self) -> ReachState {
        if !self.announced.is_empty() || !self.confirmed.is_empty() {
            ReachState::Public
        } else if self.relays.accepted().next().is_some() {
            ReachState::Relayed
        } else if self.is_refuted || self.is_translated() {
            ReachState::Private
        } else {
            ReachState::Unknown
        }
    }

    pub(super) fn told(&self) -> OwnReach {
        OwnReach {
            state: self.state(),
            addresses: self.announced.iter().chain(&self.confirmed).cloned().collect(),
            relays: self.relays.accepted().copied().collect(),
            circuits: self.circuits.len(),
        }
    }

    /// Since when only its own network reaches this node, where it had time to find a relay.
    pub(super) fn private_since(&self) -> Option<Instant> {
        self.private_since.filter(|since| since.elapsed() >= RELAY_PATIENCE)
    }

    fn is_translated(&self) -> bool {
        match self.translated.get(&None) {
            Some(by_operators_peer) => *by_operators_peer,
            None => {
                let (behind, open): (Vec<bool>, Vec<bool>) = self.translated.values().partition(|it| **it);
                behind.len() >= WITNESSES_MIN && behind.len() > open.len()
            }
        }
    }

    /// A peer that was met at `met` sees this node at `observed`; `own` are the addresses where it listens.
    pub(super) fn observed<'a>(
        &mut self,
        met: &Multiaddr,
        is_bootstrap: bool,
        observed: &Multiaddr,
        mut own: impl Iterator<Item = &'a Multiaddr>,
    ) {
        // Who sees it from a network of its own says nothing of the world.
        let is_of_world =
            |address: &Multiaddr| ip_of(address).is_some() && reach_of_met(address) == Reach::World;
        let Some(ip) = ip_of(met).filter(|_| is_of_world(met) && is_of_world(observed)) else { return };
        let witness = (!is_bootstrap).then(|| AddressBlock::of(ip));
        let is_translated = own.all(|address| ip_of(address) != ip_of(observed));
        if self.translated.len() < WITNESSES_MAX || self.translated.contains_key(&witness) {
            self.translated.insert(witness, is_translated);
        }
    }

    /// An address of this node is gone: what others saw and tried may have been through it.
    pub(super) fn moved(&mut self, swarm: &mut Swarm<Behaviour>) {
        std::mem::take(&mut self.confirmed).iter().for_each(|address| swarm.remove_external_address(address));
        self.is_refuted = false;
        self.translated.clear();
    }

    /// Somebody who is believed tried an address of this node.
    fn tried(&mut self, address: Multiaddr, is_reached: bool) {
        if is_reached {
            self.is_refuted = false;
            self.confirmed.insert(address);
        } else {
            self.confirmed.remove(&address);
            self.is_refuted = self.confirmed.is_empty();
        }
    }
}

/// Finds relays, leaves them, and relays for others, by where this node is reached from now.
pub(super) fn review(network: &mut Network, now: Instant) {
    let state = network.reach.state();
    let since = network.reach.private_since.unwrap_or(now);
    network.reach.private_since = (state == ReachState::Private).then_some(since);
    let is_public = state == ReachState::Public;
    let behaviour = network.swarm.behaviour_mut();
    if let Some(relay) = behaviour.relay.as_mut() {
        let is_on = network.reach.may_relay && is_public;
        relay.set_status(Some(if is_on { relay::Status::Enable } else { relay::Status::Disable }));
    }
    if let Some(kad) = behaviour.kad.as_mut() {
        // Where nobody reaches it, it is in nobody's way; and where nobody knows, as in a local network, somebody must serve.
        let is_hidden = network.reach.private_since().is_some();
        let mode = if is_hidden { kad::Mode::Client } else { kad::Mode::Server };
        if kad.mode() != mode {
            kad.set_mode(Some(mode));
        }
    }
    let needed =
        behaviour.relay_client.is_enabled() && matches!(state, ReachState::Private | ReachState::Relayed);
    for wanted in network.reach.relays.review(needed, &network.peers, now) {
        match wanted {
            Wanted::Leave(listener) => _ = network.swarm.remove_listener(listener),
            Wanted::Listen(peer, address) => match network.swarm.listen_on(address) {
                Ok(listener) => network.reach.relays.asked(peer, listener, now),
                Err(_) => network.reach.relays.fail(peer, now),
            },
        }
    }
}

/// A peer tried an address of this node. Those of the operator are believed: anybody else could have it tell the address of a
/// third as its own, or hide.
pub(super) fn handle_tried(network: &mut Network, event: client::Event) {
    if !network.peers.get(&event.server).is_some_and(|peer| peer.bootstrap) {
        return;
    }
    let is_reached = event.result.is_ok();
    if is_reached {
        network.swarm.add_external_address(event.tested_addr.clone());
    } else {
        network.swarm.remove_external_address(&event.tested_addr);
    }
    network.reach.tried(event.tested_addr, is_reached);
}

/// A listener was closed; whether it was one at a relay.
pub(super) fn lost_relay(network: &mut Network, listener: ListenerId) -> bool {
    let lost = network.reach.relays.closed(listener, Instant::now());
    if let Some(relay) = lost.and_then(|peer| peer_key(&peer)) {
        tracing::info!(event = "relay_lost", %relay, "this node is reached through this relay no more");
    }
    lost.is_some()
}

pub(super) fn handle_relay(network: &mut Network, event: &relay::Event) {
    match event {
        relay::Event::CircuitReqAccepted { src_peer_id, .. } => {
            let seen_at = network.peers.get(src_peer_id).and_then(|peer| peer.seen_at.first());
            let source = seen_at.and_then(ip_of).and_then(|ip| network.trusted_nets.source(ip));
            if !network.reach.circuits.opened(*src_peer_id, source.map(|source| source.block)) {
                network.refusals.count(Reason::CircuitShare);
                // The circuit goes with the connection on which it was asked for.
                let _ = network.swarm.disconnect_peer_id(*src_peer_id);
            }
        }
        relay::Event::CircuitClosed { src_peer_id, .. } => network.reach.circuits.closed(src_peer_id),
        _ => {}
    }
}

pub(super) fn handle_relay_client(network: &mut Network, event: &relay::client::Event) {
    if let relay::client::Event::ReservationReqAccepted { relay_peer_id, .. } = event
        && network.reach.relays.accept(relay_peer_id)
        && let Some(relay) = peer_key(relay_peer_id)
    {
        tracing::info!(event = "relay_found", %relay, "this node is reached through a relay");
    }
}

/// Programs of the local network are there, or no more: those that are there are dialed. What they are shows then.
pub(super) fn handle_neighbours(network: &mut Network, event: mdns::Event) {
    match event {
        mdns::Event::Discovered(found) => {
            for (peer, address) in found {
                let has_room = network.reach.neighbours.len() < NEIGHBOURS_MAX;
                if !has_room && !network.reach.neighbours.contains(&peer) {
                    continue;
                }
                network.reach.neighbours.insert(peer);
                let options = DialOpts::peer_id(peer)
                    .condition(PeerCondition::DisconnectedAndNotDialing)
                    .addresses(vec![address]);
                // Who does not answer is found again.
                let _undialed = network.swarm.dial(options.build());
            }
        }
        mdns::Event::Expired(gone) => {
            gone.iter().for_each(|(peer, _)| _ = network.reach.neighbours.remove(peer));
        }
    }
}

/// Whether a peer was found in the local network, or found this node there first.
pub(super) fn is_neighbour(network: &Network, peer: &PeerId, seen_at: &Multiaddr) -> bool {
    network.reach.neighbours.contains(peer)
        || network.swarm.behaviour().neighbours.is_enabled() && reach_of_met(seen_at) != Reach::World
}

/// From where this node is reached.
pub(crate) fn own_reach(network: &Network) -> OwnReach {
    network.reach.told()
}

pub(super) fn handle_hole_punching(event: &dcutr::Event) {
    let Some(peer) = peer_key(&event.remote_peer_id) else { return };
    match &event.result {
        Ok(_) => tracing::info!(event = "hole_punched", %peer, "direct connection behind a relayed one"),
        Err(error) => tracing::debug!(%peer, %error, "no direct connection"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    /// What a node with one private address makes of peers that see it at another, given where each was met.
    fn seen_from(peers: &[(&str, bool)], observed: &str) -> ReachState {
        let (own, observed) = ([address("/ip4/10.0.0.2/tcp/1")], address(observed));
        let mut reach = Reachability::default();
        for (met, is_bootstrap) in peers {
            reach.observed(&address(met), *is_bootstrap, &observed, own.iter());
        }
        reach.state()
    }

    #[test]
    fn one_stranger_moves_nothing_and_two_blocks_or_the_operators_peer_do() {
        let elsewhere = "/ip4/203.0.113.2/tcp/9";
        assert_eq!(seen_from(&[("/ip4/198.51.100.1/tcp/1", false); 9], elsewhere), ReachState::Unknown);
        let two = [("/ip4/198.51.100.1/tcp/1", false), ("/ip4/192.0.2.1/tcp/1", false)];
        assert_eq!(seen_from(&two, elsewhere), ReachState::Private);
        assert_eq!(seen_from(&[("/ip4/198.51.100.1/tcp/1", true)], elsewhere), ReachState::Private);
        assert_eq!(
            seen_from(&two, "/ip4/10.0.0.2/tcp/1"),
            ReachState::Unknown,
            "that is no address of the world"
        );
        assert_eq!(seen_from(&[("/ip4/10.0.0.1/tcp/1", true)], elsewhere), ReachState::Unknown);
        assert_eq!(seen_from(&[("/p2p-circuit", true)], elsewhere), ReachState::Unknown);
    }

    #[test]
    fn what_was_announced_or_tried_counts_more_than_what_peers_see() {
        let mut reach = Reachability::default();
        let at = address("/ip4/203.0.113.2/tcp/1");
        reach.tried(at.clone(), false);
        assert_eq!(reach.state(), ReachState::Private);
        reach.tried(at.clone(), true);
        assert_eq!((reach.state(), reach.told().addresses), (ReachState::Public, vec![at.clone()]));
        reach.tried(at.clone(), false);
        assert_eq!(reach.state(), ReachState::Private);
        assert_eq!(Reachability::new(vec![at], true).state(), ReachState::Public);
    }
}
