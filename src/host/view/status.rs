//! Health, zones, connections, and the same as numbers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::ms;
use super::problem::{clock_warning, no_peers, problem};
use crate::api::{self, Health, ZoneRole};
use crate::net::driver::ReadContext;
use crate::net::swarm::Traffic;
use crate::net::wall_clock;
use crate::proto::code::Code;
use crate::proto::identity::PeerKey;
use crate::proto::io::Role;
use crate::proto::node::Node;
use crate::proto::zone::ZoneState;

/// A peer's clock further from ours than this is worth a warning, milliseconds.
const CLOCK_WARNING_MS: u64 = 30_000;

/// Health and zones.
pub(in crate::host) fn status(seen: &mut ReadContext<'_>) -> api::Status {
    let zones: Vec<api::ZoneReport> = seen.node.zone_states(wall_clock()).iter().map(zone_report).collect();
    let offset = seen.node.clock_offset_ms();
    let mut problems: Vec<api::Problem> = seen.incidents.iter().map(api::Problem::from).collect();
    problems.extend(seen.node.alerts().map(problem));
    if offset.unsigned_abs() > CLOCK_WARNING_MS && problems.iter().all(|it| it.code != Code::ClockUnsafe) {
        problems.push(clock_warning(offset));
    }
    let connections = seen.network.traffic().connections;
    if seen.node.config().expects_peers && connections == 0 {
        problems.push(no_peers());
    }
    api::Status {
        peer_id: seen.node.key().to_string(),
        version: env!("CARGO_PKG_VERSION").into(),
        uptime_s: seen.started.elapsed().as_secs(),
        network: seen.node.config().network.clone(),
        clock_offset_ms: offset,
        zones,
        connections,
        health: if problems.is_empty() { Health::Ok } else { Health::Degraded },
        problems,
        refused: seen.node.refused().clone(),
    }
}

fn zone_report(zone: &ZoneState) -> api::ZoneReport {
    let now = wall_clock();
    let versions: BTreeMap<String, u64> =
        zone.versions.iter().map(|(author, prefix)| (author.to_string(), *prefix)).collect();
    api::ZoneReport {
        zone: zone.zone.to_string(),
        role: match zone.role {
            Role::Member => ZoneRole::Member,
            Role::Follower => ZoneRole::Follower,
        },
        records: zone.records,
        agents: zone.agents,
        fingerprint: zone.fingerprint.to_string(),
        as_of: zone.as_of.to_string(),
        peers: zone.peers.len(),
        members: zone.members,
        lag_ms: zone.lagging_since.map_or(0, |since| now.since(since).as_millis() as u64),
        last_sync_ms_ago: zone.synced_at.map(|at| now.since(at).as_millis() as u64),
        version_vector: versions,
    }
}

/// Connected peers, bootstrap peers first.
pub(in crate::host) fn peers(seen: &mut ReadContext<'_>) -> api::Peers {
    let now = wall_clock();
    let mut peers: Vec<api::Peer> = seen
        .network
        .peers()
        .map(|peer| api::Peer {
            peer: peer.key.to_string(),
            addresses: peer.seen_at.iter().map(ToString::to_string).collect(),
            bootstrap: peer.bootstrap,
            zones: zones_of(seen.node, &peer.key),
            rtt_ms: peer.rtt.map(ms),
            clock_offset_ms: seen.node.clock_offset_of(&peer.key),
            seen_ms_ago: seen.node.heard_at(&peer.key).map(|at| now.since(at).as_millis() as u64),
            connected: true,
        })
        .collect();
    peers.sort_by(|a, b| (!a.bootstrap, &a.peer).cmp(&(!b.bootstrap, &b.peer)));
    api::Peers { peers }
}

/// Zones that a connected peer serves, of those replicated here.
fn zones_of(node: &Node, peer: &PeerKey) -> Vec<String> {
    node.zones().filter(|zone| zone.peers().contains(peer)).map(|zone| zone.name().to_string()).collect()
}

/// Prometheus text.
pub(in crate::host) fn metrics(status: &api::Status, traffic: &Traffic) -> String {
    let mut text = String::new();
    let mut line = |name: &str, kind: &str, labels: &str, value: u64| {
        if !text.contains(&format!("# TYPE {name} ")) {
            // Writing to a string cannot fail.
            let _infallible = writeln!(text, "# TYPE {name} {kind}");
        }
        let _infallible = writeln!(text, "{name}{labels} {value}");
    };
    line("aop_uptime_seconds", "gauge", "", status.uptime_s);
    line("aop_peers", "gauge", "", traffic.peers as u64);
    line("aop_connections", "gauge", "", traffic.connections as u64);
    line("aop_gossip_published_total", "counter", "", traffic.gossip_published);
    line("aop_gossip_received_total", "counter", "", traffic.gossip_received);
    line("aop_gossip_unjudged_total", "counter", "", traffic.gossip_unvalidated);
    for (reason, count) in &traffic.refused {
        line("aop_refused_total", "counter", &format!("{{reason=\"{}\"}}", reason.text()), *count);
    }
    for (reason, count) in &traffic.gossip_dropped {
        let labels = format!("{{reason=\"{}\"}}", reason.text());
        line("aop_gossip_dropped_total", "counter", &labels, *count);
    }
    for (how, count) in &traffic.requests_waited {
        let labels = format!("{{how=\"{}\"}}", how.text());
        line("aop_requests_waited_total", "counter", &labels, *count);
    }
    for (reason, count) in &status.refused {
        line("aop_refused_records_total", "counter", &format!("{{reason=\"{reason}\"}}"), *count);
    }
    for zone in &status.zones {
        let labels = format!("{{zone=\"{}\"}}", zone.zone);
        line("aop_registry_records", "gauge", &labels, zone.records as u64);
        line("aop_registry_agents", "gauge", &labels, zone.agents as u64);
        line("aop_zone_members", "gauge", &labels, zone.members as u64);
        line("aop_registry_lag_milliseconds", "gauge", &labels, zone.lag_ms);
    }
    for (zone, mesh) in &traffic.mesh {
        line("aop_gossip_mesh_peers", "gauge", &format!("{{zone=\"{zone}\"}}"), *mesh as u64);
    }
    line("aop_problems", "gauge", "", status.problems.len() as u64);
    text
}
