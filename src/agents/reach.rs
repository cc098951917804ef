//! Which addresses a server may name for this host to ask.
//!
//! An address in an agent's file is its operator's word and asked wherever it is. One that a server names instead, in a card for
//! example, could lead anywhere in this host's own network. So it is asked as the operator's only on the machine that the
//! operator named; elsewhere it must be public, is judged where its name is resolved, and gets none of the file's headers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::net::lookup_host;

use super::web::is_loopback;

/// How an address is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// As the operator named it: anywhere, with the headers of the agent's file.
    Named,
    /// On the word of a server: public addresses alone, without those headers.
    Public,
}

impl Reach {
    /// How `told` is asked, which a server at the operator's `named` names.
    ///
    /// # Errors
    /// It is not asked at all: why, for the log.
    pub(super) fn of(named: &Url, told: &Url) -> Result<Reach, String> {
        if !["http", "https"].contains(&told.scheme()) {
            return Err(format!("it names an address of the scheme {:?}", told.scheme()));
        }
        // What was to be encrypted is not sent in clear because a server says so.
        let is_weaker = named.scheme() == "https" && told.scheme() != "https";
        let is_same_machine = named.host() == told.host() || is_loopback(named) && is_loopback(told);
        if is_same_machine && !is_weaker {
            return Ok(Reach::Named);
        }
        let host = told.host_str().unwrap_or_default();
        let is_public = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) => is_public(address),
            // Resolved when it is asked.
            Err(_) => !host.is_empty(),
        };
        if is_public {
            return Ok(Reach::Public);
        }
        Err(format!(
            "it names {host:?}, which is no public address and not the host that the agent's file names"
        ))
    }
}

/// Whether a URL names an address of this machine or of a network of its own, as far as that can be seen in it.
pub(crate) fn names_own_network(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let address = url.host_str().unwrap_or_default().trim_matches(['[', ']']).parse::<IpAddr>();
    is_loopback(&url) || address.is_ok_and(|address| !is_public(address))
}

/// Resolves names to public addresses alone. The connection is made to what was judged here.
pub(super) struct PublicAddresses;

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
fn is_public(address: IpAddr) -> bool {
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

    fn reach(named: &str, told: &str) -> Option<Reach> {
        Reach::of(&named.parse().unwrap(), &told.parse().unwrap()).ok()
    }

    #[test]
    fn what_a_server_names_is_the_operators_host_or_public() {
        let named = "https://agents.example/x/card.json";
        assert_eq!(reach(named, "https://Agents.example:8443/rpc"), Some(Reach::Named));
        assert_eq!(reach(named, "http://agents.example/rpc"), Some(Reach::Public), "no longer encrypted");
        assert_eq!(reach(named, "https://other.example/rpc"), Some(Reach::Public));
        assert_eq!(reach(named, "https://1.1.1.1/rpc"), Some(Reach::Public));
        for own in ["http://127.0.0.1:7400/v1/agents", "http://[::1]/", "http://10.0.0.1/", "http://0x7f.1/"]
        {
            assert_eq!(reach(named, own), None, "{own}");
        }
        assert_eq!(reach("http://10.0.0.1/card", "http://10.0.0.1:81/rpc"), Some(Reach::Named));
        assert_eq!(reach("http://10.0.0.1/card", "http://10.0.0.2/rpc"), None);
        assert_eq!(reach("http://10.0.0.1/card", "http://[::ffff:10.0.0.2]/rpc"), None);
        assert_eq!(reach("http://127.0.0.1:1/card", "http://localhost:2/rpc"), Some(Reach::Named));
    }

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
