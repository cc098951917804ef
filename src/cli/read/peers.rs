//! `aop peers`: who is connected, and what it is to the zones of this node.

use super::age;
use crate::api::{Peer, Peers};
use crate::cli::args::ClientArgs;
use crate::cli::client::Client;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Rows, print_json};

/// `aop peers`.
pub(in crate::cli) fn peers(args: &ClientArgs) -> Result<Exit, Failure> {
    let peers: Peers = Client::new(args)?.get("/v1/peers", &[])?;
    if args.json {
        print_json(&peers)?;
        return Ok(Exit::Done);
    }
    let mut rows = Rows::new(&["NAME", "PEER", "STATE", "RTT", "CLOCK", "SEEN", "ROLES", "ADDRESSES"]);
    for peer in peers.peers {
        let state = match (peer.connected, peer.relayed) {
            (true, true) => "relayed",
            (true, false) => "connected",
            (false, _) => "away",
        };
        let roles = roles(&peer).join(", ");
        rows.push([
            peer.name.unwrap_or("-".into()),
            peer.peer,
            if peer.bootstrap { format!("{state}, bootstrap") } else { state.into() },
            peer.rtt_ms.map_or("-".into(), |rtt| format!("{rtt:.1} ms")),
            peer.clock_offset_ms.map_or("-".into(), |offset| format!("{offset:+} ms")),
            age(peer.seen_ms_ago),
            roles,
            peer.addresses.join(" "),
        ]);
    }
    rows.print()?;
    Ok(Exit::Done)
}

/// What a peer is in each zone of which that is known here.
fn roles(peer: &Peer) -> Vec<String> {
    let speaks_for = |zone: &String| peer.gateway_of.contains(zone);
    let own = peer.zones.iter();
    let own = own.map(|zone| format!("{zone} {}", if speaks_for(zone) { "gateway" } else { "member" }));
    // Of a zone that this node follows as a gateway of one above, the members are not known.
    let below = peer.gateway_of.iter().filter(|zone| !peer.zones.contains(zone));
    own.chain(below.map(|zone| format!("{zone} gateway below"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_member_a_gateway_or_the_gateway_of_a_zone_below() {
        let zones = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let peer =
            Peer { zones: zones(&[".", "lab"]), gateway_of: zones(&[".", "acme.org"]), ..Peer::default() };
        assert_eq!(roles(&peer), [". gateway", "lab member", "acme.org gateway below"]);
        assert!(roles(&Peer::default()).is_empty());
    }
}
