//! Addresses and names of peers: which of a peer's addresses are worth keeping, and PeerId ↔ [`PeerKey`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, identity};

use crate::proto::identity::PeerKey;

/// Addresses kept of one peer. A host with two interfaces, both IP versions and both transports announces eight.
pub const ADDRESSES_PER_PEER_MAX: usize = 8;

/// How far an address can be reached from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// This machine only.
    Host,
    /// The local network only.
    Site,
    /// Anywhere.
    World,
}

/// The key behind a PeerId; `None` for ids that are no inlined Ed25519 key.
pub fn peer_key(peer: &PeerId) -> Option<PeerKey> {
    let key = identity::PublicKey::try_decode_protobuf(peer.as_ref().digest()).ok()?;
    Some(PeerKey(key.try_into_ed25519().ok()?.to_bytes()))
}

/// The libp2p id of a key; `None` never happens for a key that was read from a PeerId.
pub fn peer_id(key: &PeerKey) -> Option<PeerId> {
    key.to_string().parse().ok()
}

/// The peer an address ends with, if it names one.
pub fn named_peer(address: &Multiaddr) -> Option<PeerId> {
    // The last part and no other: in a relayed address the first `/p2p/` names the relay.
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

/// The IP address that an address begins with, if it names one.
pub fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => Some(ip.into()),
        Some(Protocol::Ip6(ip)) => Some(ip.into()),
        _ => None,
    }
}

/// Those of the addresses a peer announces that mean something to whoever sees it at `seen_at`: a peer met in the
/// open is not looked for at its loopback or private addresses, where somebody else may live. Each once, at most
/// [`ADDRESSES_PER_PEER_MAX`].
pub fn worth_keeping(seen_at: &Multiaddr, announced: Vec<Multiaddr>) -> Vec<Multiaddr> {
    // Only downwards: who is met on this host may well be reachable from the world too.
    let least = reach_of_met(seen_at);
    let mut kept: Vec<Multiaddr> = Vec::new();
    for address in announced.into_iter().filter(|address| reach_of_named(address) >= least) {
        if kept.len() < ADDRESSES_PER_PEER_MAX && !kept.contains(&address) {
            kept.push(address);
        }
    }
    kept
}

/// The reach in which a peer was met at this address. Who is met by a DNS name is one of the configuration; its other names
/// are those of the world.
pub(crate) fn reach_of_met(address: &Multiaddr) -> Reach {
    reach(address).unwrap_or(Reach::World)
}

/// The reach of an address that a peer named. Nobody knows to what a DNS name leads before it is dialed, so it counts as the
/// nearest.
pub(crate) fn reach_of_named(address: &Multiaddr) -> Reach {
    reach(address).unwrap_or(Reach::Host)
}

fn reach(address: &Multiaddr) -> Option<Reach> {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => Some(reach_ip4(ip)),
        Some(Protocol::Ip6(ip)) => Some(ip.to_ipv4_mapped().map_or_else(|| reach_ip6(ip), reach_ip4)),
        Some(Protocol::Memory(_)) => Some(Reach::Host),
        _ => None,
    }
}

fn reach_ip4(ip: Ipv4Addr) -> Reach {
    // 0.0.0.0/8 leads to this host on most systems, and 100.64.0.0/10 is private to a provider.
    let [first, second, ..] = ip.octets();
    if ip.is_loopback() || first == 0 {
        Reach::Host
    } else if ip.is_private() || ip.is_link_local() || (first == 100 && (64..128).contains(&second)) {
        Reach::Site
    } else {
        Reach::World
    }
}

fn reach_ip6(ip: Ipv6Addr) -> Reach {
    if ip.is_loopback() || ip.is_unspecified() {
        Reach::Host
    } else if ip.is_unique_local() || ip.is_unicast_link_local() {
        Reach::Site
    } else {
        Reach::World
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::identity::Identity;

    fn addresses(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_key_and_its_peer_id_name_each_other() {
        let key = Identity::from_seed([3; 32]).key();
        let id = peer_id(&key).unwrap();
        assert_eq!(id.to_string(), key.to_string());
        assert_eq!(peer_key(&id), Some(key));
    }

    #[test]
    fn a_peer_met_in_the_open_is_not_looked_for_on_this_host() {
        let announced = addresses(&["/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.7/tcp/1", "/ip4/5.6.7.8/tcp/1"]);
        let kept = |seen: &str| worth_keeping(&seen.parse().unwrap(), announced.clone()).len();
        assert_eq!(kept("/ip4/9.9.9.9/tcp/2"), 1);
        assert_eq!(kept("/ip4/10.0.0.8/tcp/2"), 2);
        assert_eq!(kept("/ip4/127.0.0.1/tcp/2"), 3);
    }

    #[test]
    fn names_that_lead_nobody_knows_where_are_looked_for_only_where_their_peer_was_met_on_this_host() {
        let announced = addresses(&[
            "/dns4/localhost/tcp/1",
            "/dnsaddr/x.example/tcp/1",
            "/ip6/::ffff:127.0.0.1/tcp/1",
            "/ip4/0.1.2.3/tcp/1",
            "/ip4/100.64.0.1/tcp/1",
            "/ip6/fe80::1/tcp/1",
        ]);
        let kept = |seen: &str| worth_keeping(&seen.parse().unwrap(), announced.clone()).len();
        assert_eq!([kept("/ip4/9.9.9.9/tcp/2"), kept("/dns4/seed.example/tcp/2")], [0, 0]);
        assert_eq!(kept("/ip4/10.0.0.8/tcp/2"), 2);
        assert_eq!(kept("/ip4/127.0.0.1/tcp/2"), announced.len());
    }

    #[test]
    fn equal_addresses_are_kept_once() {
        let announced = vec!["/ip4/5.6.7.8/tcp/1".parse().unwrap(); 50];
        assert_eq!(worth_keeping(&"/ip4/9.9.9.9/tcp/2".parse().unwrap(), announced).len(), 1);
    }

    #[test]
    fn a_flood_of_announced_addresses_is_cut() {
        let announced = (1..200).map(|port| format!("/ip4/5.6.7.8/tcp/{port}").parse().unwrap()).collect();
        let kept = worth_keeping(&"/ip4/9.9.9.9/tcp/2".parse().unwrap(), announced);
        assert_eq!(kept.len(), ADDRESSES_PER_PEER_MAX);
    }
}
