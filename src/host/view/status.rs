//! Health, zones, connections, and the same as numbers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::ms;
use super::problem::{forked_strangers, network_problem, no_peers, problem, store_problem};
use crate::agents::Totals;
use crate::api::{self, Health, ZoneRole};
use crate::net::driver::ReadContext;
use crate::net::store::StoreIncident;
use crate::net::swarm::{NetworkAlert, Traffic};
use crate::net::wall_clock;
use crate::proto::code::Code;
use crate::proto::fingerprint::{self, Digest};
use crate::proto::identity::PeerKey;
use crate::proto::io::{NodeAlert, Role};
use crate::proto::node::Node;
use crate::proto::query::{QuestionCounts, Uses};
use crate::proto::record::Author;
use crate::proto::time::Timestamp;
use crate::proto::zone::ZoneState;

/// Agents of an earlier folder that a problem names.
const RESTORED_SHOWN: usize = 10;

/// What the driver looks up for a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host) enum Detail {
    /// Counts alone, as metrics need them.
    Counts,
    /// With the fingerprints of the zones.
    Fingerprints,
    /// With the version vectors, too.
    Vectors,
}

/// A status as it leaves the driver: numbers and keys. The text is made by whoever asked, who may ask for megabytes.
pub(in crate::host) struct Snapshot {
    now: Timestamp,
    uptime: Duration,
    key: PeerKey,
    network: String,
    clock_offset_ms: i64,
    listen: Vec<String>,
    zones: Vec<ZoneSnapshot>,
    traffic: Traffic,
    incidents: Vec<StoreIncident>,
    alerts: Vec<(NodeAlert, Timestamp)>,
    network_alerts: Vec<(NetworkAlert, Timestamp)>,
    forks: Vec<(Author, Timestamp)>,
    cut_off_since: Option<Timestamp>,
    /// Names of agents that an earlier data folder offered.
    restored: String,
    refused: BTreeMap<Code, u64>,
    questions: QuestionCounts,
}

struct ZoneSnapshot {
    state: ZoneState,
    as_of: Timestamp,
    fingerprint: Option<Digest>,
    versions: Option<Vec<(Author, u64)>>,
}

impl Snapshot {
    pub(in crate::host) fn take(seen: &mut ReadContext<'_>, detail: Detail) -> Snapshot {
        let now = wall_clock();
        let as_of = fingerprint::as_of(now);
        let node = &mut *seen.node;
        let zones = node.zone_states(now).into_iter().map(|state| ZoneSnapshot {
            fingerprint: (detail != Detail::Counts).then(|| node.fingerprint(&state.zone, as_of)).flatten(),
            versions: (detail == Detail::Vectors).then(|| node.versions(&state.zone)),
            as_of,
            state,
        });
        Snapshot {
            network_alerts: seen.network.problems(),
            listen: seen.network.addresses.borrow().iter().map(ToString::to_string).collect(),
            zones: zones.collect(),
            now,
            uptime: seen.started.elapsed(),
            key: seen.node.key(),
            network: seen.node.config().network.clone(),
            clock_offset_ms: seen.node.clock_offset_ms(),
            traffic: seen.network.traffic(),
            incidents: seen.incidents.to_vec(),
            alerts: seen.node.alerts(),
            forks: seen.node.forks().collect(),
            restored: restored_names(seen.node),
            cut_off_since: seen.node.cut_off_since().filter(|_| seen.node.config().expects_peers),
            refused: seen.node.refused().clone(),
            questions: seen.node.question_counts(),
        }
    }

    /// What is wrong, and since when.
    fn problems(&self) -> Vec<api::Problem> {
        let started_at = self.now - self.uptime;
        let incidents = self.incidents.iter().map(|incident| store_problem(incident, started_at));
        let alerts = self.alerts.iter().map(|(alert, since)| problem(alert, *since));
        let is_told =
            |author: &Author| self.alerts.iter().any(|(alert, _)| *alert == NodeAlert::ForkedAuthor(*author));
        let strangers = self.forks.iter().filter(|(author, _)| !is_told(author));
        let forks = strangers.clone().map(|(_, since)| *since).min();
        let mut problems: Vec<api::Problem> = incidents
            .chain(alerts)
            .chain(self.network_alerts.iter().map(|(alert, since)| network_problem(alert, *since)))
            .chain(forks.map(|since| forked_strangers(strangers.count(), since)))
            .chain(self.cut_off_since.map(no_peers))
            .collect();
        for restored in problems.iter_mut().filter(|problem| problem.code == Code::RestoredKey) {
            restored.message.push_str(&format!(" ({})", self.restored));
        }
        problems
    }

    /// Health and zones.
    pub(in crate::host) fn status(self) -> api::Status {
        let problems = self.problems();
        let degraded = problems.iter().any(|problem| problem.degrades);
        api::Status {
            peer_id: self.key.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_s: self.uptime.as_secs(),
            zones: self.zones.iter().map(|zone| zone_report(zone, self.now)).collect(),
            join: join_line(&self.listen, &self.network),
            listen: self.listen,
            network: self.network,
            clock_offset_ms: self.clock_offset_ms,
            connections: self.traffic.connections,
            health: if degraded { Health::Degraded } else { Health::Ok },
            problems,
            refused: self.refused,
        }
    }
}

/// The command with which another node joins through one that is reached at these addresses, the best first. It names one
/// that needs no IPv6 beside one that does.
pub fn join_line(listen: &[String], network: &str) -> Option<String> {
    let is_ipv6 = |address: &&String| address.starts_with("/ip6/");
    let first = listen.first()?;
    let other = listen.iter().find(|address| !is_ipv6(address)).filter(|_| is_ipv6(&first));
    let mut line = "aop node".to_owned();
    for address in std::iter::once(first).chain(other) {
        line += &format!(" --bootstrap {address}");
    }
    let is_word = |text: &str| text.chars().all(|it| it.is_ascii_alphanumeric() || "._-".contains(it));
    match network {
        "world" => {}
        word if is_word(word) => line += &format!(" --network {word}"),
        // For a POSIX shell; elsewhere such names are rare.
        other => line += &format!(" --network '{}'", other.replace('\'', r"'\''")),
    }
    Some(line)
}

/// Which agents wait for a word of the operator, the first few by name.
fn restored_names(node: &Node) -> String {
    let names: Vec<String> = node.restored().take(RESTORED_SHOWN).map(|it| it.name.to_string()).collect();
    match node.restored().count() - names.len() {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

fn zone_report(zone: &ZoneSnapshot, now: Timestamp) -> api::ZoneReport {
    let ZoneSnapshot { state, as_of, fingerprint, versions } = zone;
    let text = |versions: &Vec<(Author, u64)>| {
        versions.iter().map(|(author, prefix)| (author.to_string(), *prefix)).collect()
    };
    api::ZoneReport {
        zone: state.zone.to_string(),
        role: zone_role(state.role),
        records: state.records,
        agents: state.agents,
        fingerprint: fingerprint.map(|root| root.to_string()).unwrap_or_default(),
        as_of: as_of.to_string(),
        peers: state.peers.len(),
        members: state.members,
        lag_ms: state.lagging_since.map_or(0, |since| now.since(since).as_millis() as u64),
        last_sync_ms_ago: state.synced_at.map(|at| now.since(at).as_millis() as u64),
        authors: state.authors,
        version_vector: versions.as_ref().map(text),
    }
}

/// What this node is to a zone.
pub(super) fn zone_role(role: Role) -> ZoneRole {
    match role {
        Role::Member => ZoneRole::Member,
        Role::Follower => ZoneRole::Follower,
        Role::Below => ZoneRole::Below,
    }
}

/// Connected peers, bootstrap peers first.
pub(in crate::host) fn peers(seen: &mut ReadContext<'_>) -> api::Peers {
    let now = wall_clock();
    let spoken_for = spoken_for(seen.node, now);
    let mut peers: Vec<api::Peer> = seen
        .network
        .peers()
        .map(|peer| api::Peer {
            peer: peer.key.to_string(),
            addresses: peer.seen_at.iter().map(ToString::to_string).collect(),
            bootstrap: peer.bootstrap,
            zones: zones_of(seen.node, &peer.key),
            gateway_of: spoken_for.get(&peer.key).cloned().unwrap_or_default(),
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

/// The zones that each peer speaks for, as far as is known here.
fn spoken_for(node: &mut Node, now: Timestamp) -> BTreeMap<PeerKey, Vec<String>> {
    let mut zones: BTreeMap<PeerKey, Vec<String>> = BTreeMap::new();
    for zone in node.tree(now) {
        for gateway in &zone.gateways {
            zones.entry(*gateway).or_default().push(zone.id.zone.to_string());
        }
    }
    zones
}

/// Prometheus text.
pub(in crate::host) fn metrics(snapshot: Snapshot, agents: &Totals) -> String {
    let (traffic, questions) = (snapshot.traffic.clone(), snapshot.questions);
    let status = snapshot.status();
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
    let QuestionCounts { of_clients, of_peers, asked, asked_for_peers, l1, l2, l3 } = questions;
    for (origin, questions, messages) in [("client", of_clients, asked), ("peer", of_peers, asked_for_peers)]
    {
        let labels = format!("{{origin=\"{origin}\"}}");
        line("aop_questions_total", "counter", &labels, questions);
        line("aop_questions_asked_total", "counter", &labels, messages);
    }
    for (cache, Uses { hits, stale, misses }) in [("l1", l1), ("l2", l2), ("l3", l3)] {
        for (result, uses) in [("hit", hits), ("stale", stale), ("miss", misses)] {
            let labels = format!("{{cache=\"{cache}\",result=\"{result}\"}}");
            line("aop_cache_requests_total", "counter", &labels, uses);
        }
    }
    for zone in &status.zones {
        let labels = format!("{{zone=\"{}\"}}", zone.zone);
        line("aop_registry_records", "gauge", &labels, zone.records as u64);
        line("aop_registry_agents", "gauge", &labels, zone.agents as u64);
        line("aop_zone_members", "gauge", &labels, zone.members as u64);
        line("aop_registry_authors", "gauge", &labels, zone.authors as u64);
        line("aop_registry_lag_milliseconds", "gauge", &labels, zone.lag_ms);
    }
    for (zone, mesh) in &traffic.mesh {
        line("aop_gossip_mesh_peers", "gauge", &format!("{{zone=\"{zone}\"}}"), *mesh as u64);
    }
    // All together: an agent's name as a label would be one series for each, and there may be thousands.
    for (state, count) in &agents.agents {
        line("aop_agents", "gauge", &format!("{{state=\"{}\"}}", state.text()), *count as u64);
    }
    line("aop_agents_paused", "gauge", "", agents.paused as u64);
    for (stage, calls) in [("running", agents.running), ("queued", agents.queued)] {
        line("aop_agent_calls", "gauge", &format!("{{stage=\"{stage}\"}}"), calls as u64);
    }
    for (result, runs) in [("completed", agents.completed), ("failed", agents.failed)] {
        line("aop_agent_runs_total", "counter", &format!("{{result=\"{result}\"}}"), runs);
    }
    let degrading = status.problems.iter().filter(|problem| problem.degrades).count();
    line("aop_problems", "gauge", "", degrading as u64);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_joins_is_given_an_address_without_ipv6_and_the_network() {
        let line = |listen: &[&str], network: &str| {
            join_line(&listen.iter().map(ToString::to_string).collect::<Vec<_>>(), network)
        };
        let (six, four, near) = ("/ip6/2001:db8::1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/1");
        assert_eq!(line(&[], "world"), None);
        assert_eq!(line(&[four, near], "world").unwrap(), format!("aop node --bootstrap {four}"));
        let both = format!("aop node --bootstrap {six} --bootstrap {four} --network lab");
        assert_eq!(line(&[six, four, near], "lab").unwrap(), both);
        let quoted = format!(r"aop node --bootstrap {four} --network 'it'\''s'");
        assert_eq!(line(&[four], "it's").unwrap(), quoted);
    }
}
