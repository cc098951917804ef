//! Which addresses a server may name for this host to ask.
//!
//! An address in an agent's file is its operator's word and asked wherever it is. One that a server names instead, in a card for
//! example, could lead anywhere in this host's own network. So it is asked as the operator's only on the machine that the
//! operator named; elsewhere it must be public, is judged where its name is resolved, and gets none of the file's headers.

use std::net::IpAddr;

use reqwest::Url;

use super::web::is_loopback;
use crate::net::addresses::is_public;

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
}
