//! Addresses and names of peers: which can be dialed, which of a peer's are worth keeping, and PeerId ↔ [`PeerKey`].

mod public;

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, identity};
use reqwest::Url;
use serde_bytes::ByteBuf;

pub(crate) use self::public::{PublicAddresses, is_public};
use crate::proto::identity::PeerKey;
use crate::proto::limits::{CONTACT_ADDRESSES_MAX, DELEGATION_ADDRESS_BYTES_MAX};

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

/// What a node does to be reached, and for others who are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReachOptions {
    /// Whether it relays for others while it is reached from everywhere.
    pub relay: bool,
    /// Whether it looks for nodes in the local network.
    pub mdns: bool,
    /// Whether it tries for others from where they are reached.
    pub tries_others: bool,
}

/// Why an address cannot be dialed, and what to write instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undialable {
    /// It begins with none of what leads to a machine.
    #[error("it begins with no IP address or name: write `/ip4/192.0.2.1/…` or `/dns4/seed.example.org/…`")]
    NoHost,
    /// It begins with the address that stands for all of the own machine.
    #[error("it names no machine but every address of the own one: write the address at which it is reached")]
    Unspecified,
    /// It names no port.
    #[error("it names no port: write `…/tcp/7401` or `…/udp/7401/quic-v1`")]
    NoPort,
    /// Its port is 0.
    #[error("port 0 is where nobody can be reached: write the port that `aop status` of that node shows")]
    PortZero,
    /// It is UDP and not QUIC.
    #[error("it names UDP without QUIC: write `…/udp/7401/quic-v1`")]
    NoQuic,
    /// It goes on with what nodes do not speak.
    #[error(
        "nodes speak TCP and QUIC, and nothing above or behind them: end it with the port, or `/quic-v1`"
    )]
    Spoken,
}

/// Whether a node can dial it: an IP address or a name, TCP or QUIC, a port, and maybe `/p2p/` with the peer.
///
/// # Errors
/// What is wrong with it.
pub fn check_dialable(address: &Multiaddr) -> Result<(), Undialable> {
    let mut parts = address.iter().filter(|part| !matches!(part, Protocol::P2p(_)));
    match parts.next() {
        Some(Protocol::Ip4(ip)) if ip.is_unspecified() => return Err(Undialable::Unspecified),
        Some(Protocol::Ip6(ip)) if ip.is_unspecified() => return Err(Undialable::Unspecified),
        Some(Protocol::Ip4(_) | Protocol::Ip6(_)) => {}
        Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_)) => {}
        // What lies behind the name names port and transport itself.
        Some(Protocol::Dnsaddr(_)) => return parts.next().map_or(Ok(()), |_| Err(Undialable::Spoken)),
        _ => return Err(Undialable::NoHost),
    }
    match parts.next() {
        Some(Protocol::Tcp(0) | Protocol::Udp(0)) => return Err(Undialable::PortZero),
        Some(Protocol::Tcp(_)) => {}
        Some(Protocol::Udp(_)) if parts.next() == Some(Protocol::QuicV1) => {}
        Some(Protocol::Udp(_)) => return Err(Undialable::NoQuic),
        None => return Err(Undialable::NoPort),
        Some(_) => return Err(Undialable::Spoken),
    }
    parts.next().map_or(Ok(()), |_| Err(Undialable::Spoken))
}

/// Addresses as a contact names them: few, short, and without the peer.
pub(crate) fn as_contact(addresses: &[Multiaddr]) -> Vec<ByteBuf> {
    let bare = addresses.iter().map(|address| without_peer(address).to_vec());
    let mut named: Vec<ByteBuf> = Vec::new();
    for bytes in bare.filter(|bytes| bytes.len() <= DELEGATION_ADDRESS_BYTES_MAX).map(ByteBuf::from) {
        if named.len() < CONTACT_ADDRESSES_MAX && !named.contains(&bytes) {
            named.push(bytes);
        }
    }
    named
}

/// The address without the peer that it ends with.
pub(crate) fn without_peer(address: &Multiaddr) -> Multiaddr {
    let mut place = address.clone();
    if matches!(place.iter().last(), Some(Protocol::P2p(_))) {
        place.pop();
    }
    place
}

/// Addresses at which this node listens, those first that most others can use: the farthest reach, IPv4 before IPv6, loopback
/// last; without those that mean nothing to anybody else (IPv6 link-local ones, which name no link).
pub(crate) fn by_reach(addresses: impl Iterator<Item = Multiaddr>) -> Vec<Multiaddr> {
    let is_linked =
        |address: &Multiaddr| matches!(ip_of(address), Some(IpAddr::V6(ip)) if ip.is_unicast_link_local());
    let mut told: Vec<Multiaddr> = addresses.filter(|address| !is_linked(address)).collect();
    told.sort_by_cached_key(|address| {
        // By its text in the end, so that equal machines tell the same.
        (Reverse(reach_of_met(address)), ip_of(address).is_none_or(|ip| ip.is_ipv6()), address.to_string())
    });
    told
}

/// Whether it leads through a relay.
pub(crate) fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
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
/// [`ADDRESSES_PER_PEER_MAX`]: first those of the machine where it was met, then those that reach farthest.
pub fn worth_keeping(seen_at: &Multiaddr, mut announced: Vec<Multiaddr>) -> Vec<Multiaddr> {
    // Only downwards: who is met on this host may well be reachable from the world too.
    let (least, met) = (reach_of_met(seen_at), ip_of(seen_at));
    // They come in no order, and there may be more of them than are kept.
    announced.sort_by_key(|address| (ip_of(address) != met, Reverse(reach_of_named(address))));
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

/// The address of a registry as it may be typed: where it is, and nothing that is a secret.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn registry_url(text: &str) -> Result<Url, String> {
    let url =
        Url::parse(text.trim()).map_err(|error| format!("{error}; write `https://registry.example.org`"))?;
    if !["http", "https"].contains(&url.scheme()) || url.host_str().is_none() {
        return Err("a registry is read over https or http; write `https://registry.example.org`".into());
    }
    if !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err(
            "user, password and parameters are no part of it; give a key as `header_env` of an `[[import]]`"
                .into(),
        );
    }
    Ok(url)
}

/// Whether hosts outside of this one's own networks may dial an address; of a name it is believed.
pub(crate) fn is_of_world(address: &Multiaddr) -> bool {
    let is_name = |protocol| {
        matches!(protocol, Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_))
    };
    reach(address) == Some(Reach::World) || address.iter().next().is_some_and(is_name)
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
    fn what_no_node_can_dial_is_refused_with_its_reason() {
        use Undialable::{NoHost, NoPort, NoQuic, PortZero, Spoken, Unspecified};
        let peer = PeerId::random();
        for good in [
            "/ip4/192.0.2.1/tcp/7401",
            "/ip6/2001:db8::1/udp/7401/quic-v1",
            "/dns4/seed.example.org/tcp/7401",
            "/dnsaddr/seed.example.org",
        ] {
            assert_eq!(check_dialable(&good.parse().unwrap()), Ok(()), "{good}");
            assert_eq!(check_dialable(&format!("{good}/p2p/{peer}").parse().unwrap()), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("/ip4/192.0.2.1", NoPort),
            ("/dns/seed.example.org", NoPort),
            ("/ip4/192.0.2.1/tcp/7401/ws", Spoken),
            ("/dns4/seed.example.org/tcp/443/wss", Spoken),
            ("/ip4/192.0.2.1/udp/7401", NoQuic),
            ("/ip4/192.0.2.1/udp/7401/quic", NoQuic),
            ("/ip4/192.0.2.1/udp/7401/quic-v1/webtransport", Spoken),
            ("/ip4/192.0.2.1/sctp/7401", Spoken),
            ("/ip4/0.0.0.0/tcp/7401", Unspecified),
            ("/ip6/::/tcp/7401", Unspecified),
            ("/ip4/192.0.2.1/tcp/0", PortZero),
            ("/ip4/192.0.2.1/udp/0/quic-v1", PortZero),
            ("/tcp/7401", NoHost),
            ("/memory/7", NoHost),
        ] {
            assert_eq!(check_dialable(&bad.parse().unwrap()), Err(why), "{bad}");
        }
        let relayed = format!("/ip4/192.0.2.1/tcp/7401/p2p/{peer}/p2p-circuit/p2p/{peer}");
        assert_eq!(check_dialable(&relayed.parse().unwrap()), Err(Spoken));
    }

    #[test]
    fn addresses_that_others_can_use_come_first_and_loopback_last() {
        let listened = addresses(&[
            "/ip6/::1/tcp/1",
            "/ip4/127.0.0.1/udp/1/quic-v1",
            "/ip4/127.0.0.1/tcp/1",
            "/ip6/fe80::1/tcp/1",
            "/ip4/10.0.0.1/tcp/1",
            "/ip6/2001:db8::1/tcp/1",
            "/ip4/5.6.7.8/tcp/1",
        ]);
        let expected = [
            "/ip4/5.6.7.8/tcp/1",
            "/ip6/2001:db8::1/tcp/1",
            "/ip4/10.0.0.1/tcp/1",
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/127.0.0.1/udp/1/quic-v1",
            "/ip6/::1/tcp/1",
        ];
        assert_eq!(by_reach(listened.into_iter()), addresses(&expected));
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

    #[test]
    fn among_too_many_addresses_those_where_the_peer_was_met_are_kept() {
        let bridge = |n| format!("/ip4/172.17.{n}.1/tcp/1").parse().unwrap();
        let announced: Vec<Multiaddr> =
            (0..20).map(bridge).chain(addresses(&["/ip4/10.0.0.7/tcp/1"])).collect();
        let kept = worth_keeping(&"/ip4/10.0.0.7/tcp/40000".parse().unwrap(), announced);
        assert_eq!(kept[0], addresses(&["/ip4/10.0.0.7/tcp/1"])[0]);
    }
}
