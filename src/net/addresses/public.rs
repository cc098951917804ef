//! Public addresses: those where a stranger may send this host, for they are not in a network of its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::net::lookup_host;

/// Resolves names to public addresses alone. The connection is made to what was judged here.
#[derive(Debug)]
pub(crate) struct PublicAddresses;

impl Resolve for PublicAddresses {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(format!("{} has no public address", name.as_str()).into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

/// Whether an address belongs to the internet at large, and not to a machine, a network of somebody's own, or a purpose.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match address.segments() {
            // The same machines by another name: mapped, and translated (RFC 6052).
            [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => is_public_v4(last_four(address)),
            // Teredo and 6to4 lead to IPv4 addresses, documentation nowhere.
            [0x2001, 0 | 0xdb8, ..] | [0x2002, ..] => false,
            // All of the rest that was ever given out.
            [first, ..] => first & 0xe000 == 0x2000,
        },
    }
}

fn last_four(address: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = address.octets();
    Ipv4Addr::new(a, b, c, d)
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    // Beside what has a name: carriers' own networks, protocol assignments, benchmarks, this network, and what is reserved.
    let is_special = matches!((first, second, third), (100, 64..=127, _) | (192, 0, 0) | (198, 18..=19, _))
        || first == 0
        || first >= 240;
    !(is_special
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_somebodys_own_network_is_not_public() {
        for own in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "2001:db8::1",
            "2002:a00:1::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "ff02::1",
            "::127.0.0.1",
        ] {
            assert!(!is_public(own.parse().unwrap()), "{own}");
        }
        for public in
            ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::1.1.1.1", "::ffff:1.1.1.1"]
        {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_into_this_machine_is_not_resolved() {
        let resolved = PublicAddresses.resolve("localhost".parse().unwrap()).await;
        assert!(resolved.err().unwrap().to_string().contains("no public address"));
    }
}
