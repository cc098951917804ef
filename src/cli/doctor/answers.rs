//! Checks of what answers: the node, what its clients meet there, and bootstrap peers where no node dials them.

use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use tokio::time::timeout;

use super::examined::{Answer, Examined};
use super::{left, start};
use crate::api::{Finding, Status};
use crate::cli::failure::Failure;
use crate::cli::mcp::{Era, count_tools};
use crate::cli::process::run;
use crate::config::Settings;

/// How long a client may wait for its tools, or for metrics.
const CLIENT_TIME_MAX: Duration = Duration::from_millis(1_800);
/// How long a bootstrap peer may take to be found and to answer.
const DIAL_TIME_MAX: Duration = Duration::from_millis(1_800);
/// Characters that are shown of a line that is none of metrics.
const LINE_CHARS_MAX: usize = 80;
/// Bootstrap peers that are dialed, all at once.
const DIALS_MAX: usize = 16;

/// Whether a node answers.
pub(super) fn answers(examined: &Examined) -> Vec<Finding> {
    vec![match &examined.answer {
        Answer::Told { .. } | Answer::Refused(_) => {
            Finding::ok(format!("a node answers at {}", examined.client.base()))
        }
        Answer::Nobody(finding) | Answer::Stranger(finding) => finding.clone(),
    }]
}

/// Whether it takes the token, or asks for none.
pub(super) fn token(examined: &Examined) -> Vec<Finding> {
    vec![match &examined.answer {
        Answer::Refused(finding) => finding.clone(),
        Answer::Told { .. } if examined.client.token().is_some() => Finding::ok("the token is accepted"),
        Answer::Told { .. } => Finding::ok("none is asked for"),
        other => Finding::skip(other.why_unmade()),
    }]
}

/// Whether it is the version of this program.
pub(super) fn version(_: &Examined, status: &Status) -> Vec<Finding> {
    let (theirs, ours) = (&status.version, env!("CARGO_PKG_VERSION"));
    vec![if theirs == ours {
        Finding::ok(format!("{ours}, as this program"))
    } else {
        let evidence = format!("the node is of version {theirs}, this program of {ours}");
        Finding::warn(evidence, "start the node again with the program that was installed")
    }]
}

/// Tools of a client of the revisions with a handshake.
pub(super) fn mcp_handshake(examined: &Examined, _: &Status) -> Vec<Finding> {
    vec![tools(examined, Era::Handshake)]
}

/// Tools of a client whose requests stand alone.
pub(super) fn mcp_stateless(examined: &Examined, _: &Status) -> Vec<Finding> {
    vec![tools(examined, Era::Alone)]
}

fn tools(examined: &Examined, era: Era) -> Finding {
    let (base, token) = (examined.client.base(), examined.client.token().cloned());
    let patience = CLIENT_TIME_MAX.min(left(examined.ends));
    let asked = run(async {
        let counted = timeout(patience, count_tools(base, token, era)).await;
        let counted = counted.unwrap_or_else(|_| Err(format!("no answer within {patience:?}")));
        Ok::<_, Failure>(counted)
    });
    match asked {
        Ok(Ok(0)) => Finding::fail("no tool is listed", "start the node again: it has some of its own"),
        Ok(Ok(count)) => Finding::ok(format!("{count} tools on the first page")),
        Ok(Err(why)) => Finding::fail(why, "the log of the node says more; `aop mcp` is what a host starts"),
        Err(failure) => Finding::skip(failure.to_string()),
    }
}

/// Whether its metrics are what Prometheus reads.
pub(super) fn metrics(examined: &Examined, _: &Status) -> Vec<Finding> {
    let client = examined.client.within(CLIENT_TIME_MAX.min(left(examined.ends)));
    let text = match client.get_text("/metrics") {
        Ok(text) => text,
        Err(failure) => return vec![Finding::fail(failure.to_string(), "the log of the node says more")],
    };
    let samples = || text.lines().filter(|line| !line.starts_with('#'));
    let is_sample = |line: &&str| {
        line.starts_with(|first: char| first.is_ascii_alphabetic())
            && line.rsplit_once(' ').is_some_and(|(_, value)| value.parse::<f64>().is_ok())
    };
    vec![match samples().find(|line| !is_sample(line)) {
        None => Finding::ok(format!("{} series", samples().count())),
        Some(line) => Finding::fail(
            format!("a line is no sample: {line:.LINE_CHARS_MAX$}"),
            "start the node again with this version",
        ),
    }]
}

/// Whether somebody is where the bootstrap peers should be. A node that answers knows more.
pub(super) fn bootstrap(examined: &Examined, settings: &Settings) -> Vec<Finding> {
    if matches!(examined.answer, Answer::Told { theirs: Some(_), .. }) {
        return Vec::new();
    }
    if settings.bootstrap.is_empty() {
        return vec![Finding::skip("no bootstrap peer is configured")];
    }
    let patience = DIAL_TIME_MAX.min(left(examined.ends));
    let dial = |address: &Multiaddr| {
        (address.clone(), tcp_of(address).map(|to| start(move || reached(to, patience))))
    };
    let dials: Vec<_> = settings.bootstrap.iter().take(DIALS_MAX).map(dial).collect();
    let found = dials.into_iter().map(|(address, dialed)| {
        let Some(dialed) = dialed else {
            return Finding::skip(format!("{address} is dialed by nodes alone"));
        };
        // A name may take longer to be looked up than a dial.
        let reached = dialed.recv_timeout(left(examined.ends).min(patience + patience / 8));
        match reached.unwrap_or_else(|_| Err(format!("no answer within {patience:?}"))) {
            Ok(()) => Finding::ok(format!("somebody answers at {address}; who, a node will tell")),
            Err(why) => Finding::fail(
                format!("nobody answers at {address}: {why}"),
                "check the address and that the peer runs; a node dials it again by itself",
            ),
        }
    });
    found.collect()
}

/// The name and port of an address of TCP alone.
fn tcp_of(address: &Multiaddr) -> Option<(String, u16)> {
    let mut parts = address.iter();
    let host = match parts.next()? {
        Protocol::Ip4(ip) => ip.to_string(),
        Protocol::Ip6(ip) => ip.to_string(),
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => name.into_owned(),
        _ => return None,
    };
    match (parts.next()?, parts.next()) {
        (Protocol::Tcp(port), None | Some(Protocol::P2p(_))) => Some((host, port)),
        _ => None,
    }
}

fn reached(to: (String, u16), patience: Duration) -> Result<(), String> {
    let addresses = to.to_socket_addrs().map_err(|error| error.to_string())?;
    let mut last = "the name has no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(_) => return Ok(()),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_tcp_are_dialed_and_no_others() {
        let tcp = |address: &str| tcp_of(&address.parse().unwrap());
        let peer = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
        assert_eq!(tcp("/ip4/192.0.2.1/tcp/7401"), Some(("192.0.2.1".into(), 7401)));
        assert_eq!(tcp(&format!("/ip6/::1/tcp/1/p2p/{peer}")), Some(("::1".into(), 1)));
        assert_eq!(tcp("/dns4/example.org/tcp/1"), Some(("example.org".into(), 1)));
        for other in ["/ip4/192.0.2.1/udp/1/quic-v1", "/dnsaddr/example.org", "/ip4/192.0.2.1/tcp/1/ws"] {
            assert_eq!(tcp(other), None, "{other}");
        }
    }
}
