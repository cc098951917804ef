//! Who is connected, whatever zones it serves: a node with no link that it chose itself is cut off from the world.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_bytes::ByteBuf;

use super::ask::Contact;
use super::config::Config;
use super::identity::PeerKey;
use super::io::Dialed;
use super::time::Timestamp;

/// Links that are remembered: more than a node has connections. One more is not, and vouches for nothing.
const LINKS_MAX: usize = 1_024;

/// The connected peers.
pub(super) struct Links {
    of: BTreeMap<PeerKey, Link>,
    /// Since when there is none, while there is none.
    none_since: Timestamp,
}

/// A connection.
struct Link {
    since: Timestamp,
    dialed: Dialed,
    /// Where it says that it is dialed.
    addresses: Vec<ByteBuf>,
}

impl Links {
    pub(super) fn new(now: Timestamp) -> Links {
        Links { of: BTreeMap::new(), none_since: now }
    }

    pub(super) fn connected(&mut self, peer: PeerKey, dialed: Dialed, now: Timestamp) {
        if self.of.len() < LINKS_MAX {
            self.of.entry(peer).or_insert(Link { since: now, dialed, addresses: Vec::new() });
        }
    }

    pub(super) fn disconnected(&mut self, peer: &PeerKey, now: Timestamp) {
        if self.of.remove(peer).is_some() && self.of.is_empty() {
            self.none_since = now;
        }
    }

    /// Where a connected peer says that it is dialed.
    pub(super) fn set_addresses(&mut self, peer: &PeerKey, addresses: Vec<ByteBuf>) {
        if let Some(link) = self.of.get_mut(peer) {
            link.addresses = addresses;
        }
    }

    /// A peer as others may be told of it.
    pub(super) fn contact(&self, peer: PeerKey) -> Contact {
        Contact { peer, addresses: self.of.get(&peer).map(|link| link.addresses.clone()).unwrap_or_default() }
    }

    pub(super) fn contains(&self, peer: &PeerKey) -> bool {
        self.of.contains_key(peer)
    }

    /// Since when nobody is connected.
    pub(super) fn none_since(&self) -> Option<Timestamp> {
        self.of.is_empty().then_some(self.none_since)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &PeerKey> {
        self.of.keys()
    }

    /// The operator's peers first, then whoever is connected longest: strangers that come later stand behind, whatever keys
    /// they chose.
    pub(super) fn longest_first(&self, config: &Config) -> impl Iterator<Item = PeerKey> {
        let mut peers: Vec<(&PeerKey, &Link)> = self.of.iter().collect();
        peers.sort_by_key(|(peer, link)| (!config.bootstrap_peers.contains(peer), link.since, **peer));
        peers.into_iter().map(|(peer, _)| *peer)
    }

    /// Whether the node is connected, and long enough to have heard which zones the other serves, with a peer that it dialed
    /// or was given: a stranger that calls proves nothing of the world.
    pub(super) fn reaches_world(&self, config: &Config, now: Timestamp) -> bool {
        self.of.iter().any(|(peer, link)| {
            let chosen = link.dialed == Dialed::ByUs || config.bootstrap_peers.contains(peer);
            chosen && link.since + config.alone_after <= now
        })
    }

    /// Whether this is the first node of a world, and met nobody: nobody knows more than it does.
    pub(super) fn begins_world(&self, config: &Config) -> bool {
        !config.expects_peers && self.of.is_empty()
    }

    /// The local clock went back by `step`.
    pub(super) fn shift(&mut self, step: Duration) {
        self.none_since = self.none_since - step;
        for link in self.of.values_mut() {
            link.since = link.since - step;
        }
    }
}
