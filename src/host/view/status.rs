//! Health, zones, connections, and the same as numbers.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ms;
use super::problem::{forked_strangers, network_problem, no_peers, problem, store_problem, trend_problem};
use crate::api::{self, Health, ZoneRole};
use crate::net::driver::{ReadContext, Trend};
use crate::net::store::StoreIncident;
use crate::net::swarm::{NetworkAlert, OwnReach, ReachState, Traffic, own_reach};
use crate::net::wall_clock;
use crate::proto::code::Code;
use crate::proto::fingerprint::{self, Digest};
use crate::proto::identity::PeerKey;
use crate::proto::io::{NodeAlert, Role, Taken, Via};
use crate::proto::name::ZoneName;
use crate::proto::node::Node;
use crate::proto::node_name::NodeName;
use crate::proto::query::QuestionCounts;
use crate::proto::record::Author;
use crate::proto::search::TABLE;
use crate::proto::time::Timestamp;
use crate::proto::zone::ZoneState;

/// Records that a scrape hashes at most: 3 ms, for which everybody waits. Of a large registry that is new a few scrapes do all.
const HASHED_MAX: usize = 8_192;
/// Agents of an earlier folder that a problem names.
const RESTORED_SHOWN: usize = 10;

/// What the driver looks up for a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host) enum Detail {
    /// With the fingerprints of the zones, as far as they are made in a moment: a scraper comes again.
    Numbers,
    /// With the fingerprints of the zones.
    Fingerprints,
    /// With the version vectors, too.
    Vectors,
}

/// A status as it leaves the driver: numbers and keys. The text is made by whoever asked, who may ask for megabytes.
pub(in crate::host) struct Snapshot {
    pub(super) now: Timestamp,
    pub(super) uptime: Duration,
    pub(super) key: PeerKey,
    name: Option<NodeName>,
    pub(super) network: String,
    pub(super) clock_offset_ms: i64,
    pub(super) listen: Vec<String>,
    pub(super) reach: OwnReach,
    pub(super) zones: Vec<ZoneSnapshot>,
    pub(super) traffic: Traffic,
    incidents: Vec<StoreIncident>,
    alerts: Vec<(NodeAlert, Timestamp)>,
    network_alerts: Vec<(NetworkAlert, Timestamp)>,
    forks: Vec<(Author, Timestamp)>,
    cut_off_since: Option<Timestamp>,
    /// Names of agents that an earlier data folder offered.
    restored: String,
    pub(super) refused: BTreeMap<Code, u64>,
    pub(super) taken: BTreeMap<(Via, Taken), u64>,
    pub(super) questions: QuestionCounts,
}

pub(super) struct ZoneSnapshot {
    pub(super) state: ZoneState,
    as_of: Timestamp,
    pub(super) fingerprint: Option<Digest>,
    versions: Option<Vec<(Author, u64)>>,
}

impl Snapshot {
    /// Hashes some of what a status shows the fingerprints of; whether that is all.
    pub(in crate::host) fn prepare(seen: &mut ReadContext<'_>) -> bool {
        let (as_of, mut work) = (fingerprint::as_of(wall_clock()), HASHED_MAX);
        let zones: Vec<ZoneName> = seen.node.zones().map(|zone| zone.name().clone()).collect();
        zones.iter().all(|zone| seen.node.fingerprint_within(zone, as_of, &mut work).is_some())
    }

    pub(in crate::host) fn take(seen: &mut ReadContext<'_>, detail: Detail) -> Snapshot {
        let now = wall_clock();
        let as_of = fingerprint::as_of(now);
        let traffic = seen.network.traffic();
        // Whoever finds only itself behind the addresses that it was given has nobody to miss.
        let misses_others = seen.node.config().expects_peers
            && traffic.bootstrap.iter().any(|(state, count)| *state != "self" && *count > 0);
        let node = &mut *seen.node;
        let mut work = if detail == Detail::Numbers { HASHED_MAX } else { usize::MAX };
        let zones = node.zone_states(now).into_iter().map(|state| ZoneSnapshot {
            fingerprint: node.fingerprint_within(&state.zone, as_of, &mut work),
            versions: (detail == Detail::Vectors).then(|| node.versions(&state.zone)),
            as_of,
            state,
        });
        Snapshot {
            network_alerts: seen.network.problems(),
            reach: own_reach(seen.network),
            listen: seen.network.addresses.borrow().iter().map(ToString::to_string).collect(),
            zones: zones.collect(),
            now,
            uptime: seen.started.elapsed(),
            key: seen.node.key(),
            name: seen.node.config().name.clone(),
            network: seen.node.config().network.clone(),
            clock_offset_ms: seen.node.clock_offset_ms(),
            traffic,
            incidents: seen.incidents.to_vec(),
            alerts: seen.node.alerts(),
            forks: seen.node.forks().collect(),
            restored: restored_names(seen.node),
            cut_off_since: seen.node.cut_off_since().filter(|_| misses_others),
            refused: seen.node.refused().clone(),
            taken: seen.node.taken().clone(),
            questions: seen.node.question_counts(),
        }
    }

    /// What is wrong, and since when.
    pub(in crate::host) fn problems(&self, trends: &[(Trend, Timestamp)]) -> Vec<api::Problem> {
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
            .chain(trends.iter().map(|(trend, since)| trend_problem(trend, *since)))
            .collect();
        for restored in problems.iter_mut().filter(|problem| problem.code == Code::RestoredKey) {
            restored.message.push_str(&format!(" ({})", self.restored));
        }
        problems
    }

    /// Health and zones.
    pub(in crate::host) fn status(self, trends: &[(Trend, Timestamp)]) -> api::Status {
        let problems = self.problems(trends);
        let degraded = problems.iter().any(|problem| problem.degrades);
        api::Status {
            peer_id: self.key.to_string(),
            name: self.name.map(|name| name.to_string()),
            version: env!("CARGO_PKG_VERSION").into(),
            search_table: TABLE.into(),
            uptime_s: self.uptime.as_secs(),
            zones: self.zones.iter().map(|zone| zone_report(zone, self.now)).collect(),
            join: join_line(&self.listen, &self.network),
            listen: self.listen,
            network: self.network,
            clock_offset_ms: self.clock_offset_ms,
            reach: reach(&self.reach),
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
        .map(|peer| (peer, seen.node.heard(&peer.key)))
        .map(|(peer, heard)| api::Peer {
            peer: peer.key.to_string(),
            name: heard.and_then(|(_, name)| name).map(ToString::to_string),
            addresses: peer.seen_at.iter().map(ToString::to_string).collect(),
            relayed: peer.is_relayed(),
            bootstrap: peer.bootstrap,
            zones: zones_of(seen.node, &peer.key),
            gateway_of: spoken_for.get(&peer.key).cloned().unwrap_or_default(),
            rtt_ms: peer.rtt.map(ms),
            clock_offset_ms: seen.node.clock_offset_of(&peer.key),
            seen_ms_ago: heard.map(|(at, _)| now.since(at).as_millis() as u64),
            connected: true,
        })
        .collect();
    peers.sort_by(|a, b| (!a.bootstrap, &a.peer).cmp(&(!b.bootstrap, &b.peer)));
    api::Peers { peers }
}

fn reach(own: &OwnReach) -> api::Reach {
    api::Reach {
        state: match own.state {
            ReachState::Public => api::ReachState::Public,
            ReachState::Relayed => api::ReachState::Relayed,
            ReachState::Private => api::ReachState::Private,
            ReachState::Unknown => api::ReachState::Unknown,
        },
        addresses: own.addresses.iter().map(ToString::to_string).collect(),
        relays: own.relays.iter().map(ToString::to_string).collect(),
    }
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
