//! What the node knows, in the shapes of the API: the one place where protocol values become JSON and sentences.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

use crate::agents::{AgentState, Agents};
use crate::api::{self, ApiError, Health, Removal, ReplicaState, ZoneRole};
use crate::net::calls::CallResult;
use crate::net::driver::ReadContext;
use crate::net::swarm::{self, Traffic};
use crate::net::wall_clock;
use crate::proto::call::{CallFailure, CallId, Outcome};
use crate::proto::card::{AgentCard, Origin};
use crate::proto::code::Code;
use crate::proto::identity::{AgentId, PeerKey};
use crate::proto::io::{Event, NodeAlert, Role, Via};
use crate::proto::liveness::Presence;
use crate::proto::name::FullName;
use crate::proto::node::Node;
use crate::proto::query::{Answer, Found, Replica, ZoneAnswer, ZoneStatus};
use crate::proto::record::{Record, Refusal};
use crate::proto::registration::{Registered, WriteError};
use crate::proto::zone::ZoneState;

/// A peer's clock further from ours than this is worth a warning, milliseconds.
const CLOCK_WARNING_MS: u64 = 30_000;

/// PeerIds of one answer: many results share a host, and base58 is the dearest part of a result.
#[derive(Default)]
pub(super) struct PeerIds(BTreeMap<PeerKey, String>);

impl PeerIds {
    fn text(&mut self, key: PeerKey) -> String {
        self.0.entry(key).or_insert_with(|| key.to_string()).clone()
    }
}

/// This node as a host: of its own agents it knows more than that they are reachable.
pub(super) struct Own<'a> {
    pub(super) key: PeerKey,
    pub(super) agents: &'a Agents,
}

/// Milliseconds, in whole microseconds.
pub(super) fn ms(time: Duration) -> f64 {
    time.as_micros() as f64 / 1_000.0
}

/// Results of `find` or a list.
pub(super) fn agents(found: &[Found], own: &Own<'_>) -> Vec<api::Agent> {
    let mut ids = PeerIds::default();
    found.iter().map(|found| agent(found, found.card(), own, &mut ids)).collect()
}

fn agent(found: &Found, card: AgentCard, own: &Own<'_>, ids: &mut PeerIds) -> api::Agent {
    let here = || own.agents.state(&found.record.name).and_then(shown);
    api::Agent {
        agent: found.record.name.to_string(),
        id: found.id.to_string(),
        score: found.score,
        callable: card.callable,
        owner: ids.text(found.record.owner),
        origin: origin(card.origin),
        endpoints: endpoints(&card),
        replicas: found
            .replicas
            .iter()
            .map(|it| replica(it, card.callable, (it.peer == own.key).then(here).flatten(), ids))
            .collect(),
        description: card.description,
        tags: card.tags,
        capabilities: card.capabilities,
        role: card.role,
        model: card.model,
        original_name: card.original_name,
    }
}

/// Everything known of one agent.
pub(super) fn detail(found: &Found, own: &Own<'_>) -> api::AgentDetail {
    let (record, card) = (&found.record, found.card());
    let schema = |text: &Option<String>| {
        text.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    };
    api::AgentDetail {
        card: card_json(&card),
        input_schema: schema(&card.input_schema),
        output_schema: schema(&card.output_schema),
        version: api::Version {
            author: record.author.to_string(),
            seq: record.seq,
            stamp: format!("{}.{}", record.stamp.wall, record.stamp.counter),
        },
        expires_at: record.expires_at.0,
        agent: agent(found, card, own, &mut PeerIds::default()),
    }
}

/// What an answer knows of each zone.
pub(super) fn zones(answer: &Answer) -> Vec<api::ZoneAnswer> {
    let status = |status| match status {
        ZoneStatus::Held => api::ZoneStatus::Held,
        ZoneStatus::Unreachable => api::ZoneStatus::Unreachable,
    };
    let answered = |it: &ZoneAnswer| api::ZoneAnswer {
        zone: it.zone.to_string(),
        status: status(it.status),
        age_ms: 0,
        by: None,
    };
    answer.zones.iter().map(answered).collect()
}

/// Health and zones.
pub(super) fn status(seen: &mut ReadContext<'_>) -> api::Status {
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
pub(super) fn peers(seen: &mut ReadContext<'_>) -> api::Peers {
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

/// An event for watchers.
pub(super) fn event(event: &Event) -> api::Event {
    let named =
        |record: &Record| (record.name.to_string(), record.agent_id().to_string(), record.host.to_string());
    match event {
        Event::AgentChanged { record, via } => {
            let (agent, id, host) = named(record);
            let via = match via {
                Via::Local => api::Via::Local,
                Via::Gossip => api::Via::Gossip,
                Via::Sync => api::Via::Sync,
                Via::Store => api::Via::Store,
            };
            api::Event::AgentChanged { agent, id, host, via }
        }
        Event::AgentRemoved { record, deleted } => {
            let (agent, id, host) = named(record);
            let reason = if *deleted { Removal::Deleted } else { Removal::Expired };
            api::Event::AgentRemoved { agent, id, host, reason }
        }
        Event::Synced { peer, zone, received, sent } => api::Event::Synced {
            peer: peer.to_string(),
            zone: zone.to_string(),
            received: *received,
            sent: *sent,
        },
        Event::Alert(known) => api::Event::Problem(problem(known)),
    }
}

fn problem(known: &NodeAlert) -> api::Problem {
    let (code, message, fix) = match known {
        NodeAlert::ClockUnsafe(offset) => (
            Code::ClockUnsafe,
            format!("the bootstrap peers' clocks are {offset} ms from ours; own writes are refused"),
            "set the clock of this machine, for example with an NTP service",
        ),
        NodeAlert::DuplicateIdentity(name) => (
            Code::DuplicateIdentity,
            format!("another process writes {name} under this node's key"),
            "stop it, or give one of the two a new key and data folder",
        ),
        NodeAlert::ForkedAuthor(author) => (
            Code::ForkedAuthor,
            format!("{author} signed two different records with one version"),
            "tell its operator: a data folder was copied, or its key is in the wrong hands",
        ),
        NodeAlert::RestoredBackup => (
            Code::RestoredBackup,
            "the data folder was behind what peers know of it; a new epoch was taken".into(),
            "nothing: agents registered after the backup come back from peers",
        ),
    };
    api::Problem { code, message, fix: fix.into() }
}

fn no_peers() -> api::Problem {
    api::Problem {
        code: Code::NoPeers,
        message: "no peer is connected; answers come from what this node holds".into(),
        fix: "check the bootstrap addresses and the network; they are dialed again by themselves".into(),
    }
}

fn clock_warning(offset: i64) -> api::Problem {
    api::Problem {
        code: Code::ClockOff,
        message: format!("this clock is {offset} ms ahead of the median of its peers"),
        fix: "set the clock of this machine, for example with an NTP service".into(),
    }
}

/// What the network layer noticed.
pub(super) fn network_alert(alert: &swarm::NetworkAlert) -> api::Problem {
    let (code, message, fix) = match alert {
        swarm::NetworkAlert::BootstrapUnreachable { address, failures, reason } => (
            Code::BootstrapUnreachable,
            format!("bootstrap peer {address} cannot be reached ({failures} failures): {reason}"),
            "check the address; it is dialed again by itself",
        ),
        swarm::NetworkAlert::OtherNetwork { peer, address, speaks } => (
            Code::OtherNetwork,
            format!("{peer} at {address} belongs to another network ({speaks})"),
            "check `--network` and the bootstrap addresses",
        ),
        swarm::NetworkAlert::Blocked { peer } => (
            Code::PeerBlocked,
            format!("{peer} broke the protocol repeatedly and is blocked for ten minutes"),
            "nothing; tell its operator",
        ),
        swarm::NetworkAlert::ListenerLost { reason } => (
            Code::ListenerLost,
            format!("a listening socket was lost: {reason}"),
            "restart the node if peers cannot reach it",
        ),
        swarm::NetworkAlert::Suspended { duration } => (
            Code::Suspended,
            format!(
                "the process stood still for {:.0} s; it compares with a peer now",
                duration.as_secs_f64()
            ),
            "nothing",
        ),
    };
    api::Problem { code, message, fix: fix.into() }
}

/// A registered agent.
pub(super) fn registered(registered: &Registered) -> api::Registered {
    api::Registered { agent: registered.name.to_string(), id: registered.id.to_string(), note: None }
}

/// Why a write was not made.
pub(super) fn write_error(error: &WriteError) -> ApiError {
    ApiError {
        code: error.code(),
        message: error.to_string(),
        fix: write_fix(error).into(),
        suggestions: Vec::new(),
    }
}

/// What to do about a write that was not made.
pub(super) fn write_fix(error: &WriteError) -> &'static str {
    match error {
        WriteError::NotFound(_) => "list what is registered with `aop agents`",
        WriteError::NotYours(..) => "run the command at its host, or with its owner's key",
        WriteError::ClockUnsafe(_) | WriteError::StampedAhead(..) => "set the clock of this machine",
        WriteError::ZoneNotServed(_) => "`aop status` shows the zones that this node serves",
        WriteError::Superseded(_) | WriteError::BadGrant(_) | WriteError::GrantTooShort(_) => NEW_GRANT,
        WriteError::QuotaExceeded => "deregister what is no longer used, then try again",
        WriteError::OpenZone(_) => "register it with the scope `public` or `node`",
        WriteError::DuplicateIdentity => {
            "`aop keys new` makes a key; `aop status` names what is written twice"
        }
        WriteError::Refused(refusal) => match refusal {
            Refusal::TooLarge | Refusal::BadCard => {
                "shorten its description, its schemas or its lists of tags and capabilities"
            }
            Refusal::BadGrant | Refusal::BadLease | Refusal::BadGeneration | Refusal::BadAuthor => NEW_GRANT,
            Refusal::BadScope => "register it with the scope `public` or `node`",
            Refusal::Expired | Refusal::Future => "set the clock of this machine",
            Refusal::UnknownFormat
            | Refusal::Malformed
            | Refusal::ForeignNetwork
            | Refusal::ForeignZone
            | Refusal::BadSignature => "report it: a node does not write what it would refuse from others",
        },
    }
}

/// What a host needs that may no longer write for an owner.
const NEW_GRANT: &str = "ask the owner for a new grant (`aop keys grant`) and register the agent with it, or wait until its \
                         lease ends";

/// No such agent; names like it are suggested instead.
pub(super) fn not_found(text: &str, similar: &[FullName]) -> ApiError {
    let suggestions: Vec<String> = similar.iter().map(ToString::to_string).collect();
    let fix = match suggestions.first() {
        Some(first) => format!("did you mean {first}? Search with `aop find`"),
        None => "search with `aop find`".into(),
    };
    ApiError { code: Code::NotFound, message: format!("no agent `{text}` is known here"), fix, suggestions }
}

/// Nothing can be said yet.
pub(super) fn not_synced(text: &str) -> ApiError {
    ApiError {
        code: Code::Unavailable,
        message: format!("`{text}` is not held here, and no peer could be asked yet"),
        fix: "try again in a moment; `aop peers` shows the connections".into(),
        suggestions: Vec::new(),
    }
}

/// One name, several owners.
pub(super) fn ambiguous(text: &str, ids: &[AgentId]) -> ApiError {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    ApiError {
        code: Code::Ambiguous,
        message: format!("`{text}` is registered by {} owners", ids.len()),
        fix: format!("pick one by its id: {}", ids.join(", ")),
        suggestions: ids,
    }
}

/// A parameter that cannot be read.
pub(super) fn bad_request(message: String) -> ApiError {
    ApiError {
        code: Code::BadRequest,
        message,
        fix: "see /openapi.json for the parameters".into(),
        suggestions: Vec::new(),
    }
}

/// How a call ended; a host served it unless nothing was started.
pub(super) fn call_answer(ended: CallResult, call: CallId, started: Instant) -> api::CallAnswer {
    let (result, failure) = match ended.result {
        Ok(result) => (result, None),
        Err(failure) => (serde_json::Value::Null, Some(failure)),
    };
    let served = failure.as_ref().is_none_or(|failure| failure.outcome != Outcome::NotStarted);
    api::CallAnswer {
        result,
        success: failure.is_none(),
        outcome: failure.as_ref().map(|failure| failure.outcome),
        error: failure.map(|failure| api::CallError {
            code: failure.code,
            message: failure.message,
            endpoints: Vec::new(),
        }),
        task_id: call.to_string(),
        served_by: ended.host.filter(|_| served).map(|host| host.to_string()),
        attempts: ended.attempts,
        elapsed_ms: ms(started.elapsed()),
    }
}

/// A listing: who wants it called goes to its endpoints.
pub(super) fn not_callable(
    name: &FullName,
    card: &AgentCard,
    call: CallId,
    started: Instant,
) -> api::CallAnswer {
    let what =
        if card.endpoints.is_empty() { "and names no endpoint" } else { "at the endpoints given here" };
    let message = format!("{name} is a listing: it is served outside the mesh, {what}");
    let failure = CallFailure::new(Code::NotCallable, Outcome::NotStarted, message);
    let mut answer = call_answer(CallResult { result: Err(failure), host: None, attempts: 0 }, call, started);
    answer.error.iter_mut().for_each(|error| error.endpoints = endpoints(card));
    answer
}

/// Prometheus text.
pub(super) fn metrics(status: &api::Status, traffic: &Traffic) -> String {
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

fn replica(replica: &Replica, callable: bool, here: Option<ReplicaState>, ids: &mut PeerIds) -> api::Replica {
    let state = match replica.presence {
        Presence::Unreachable => ReplicaState::Unreachable,
        Presence::Reachable | Presence::Unknown if callable => here.unwrap_or(ReplicaState::Active),
        Presence::Reachable | Presence::Unknown => ReplicaState::Listed,
    };
    api::Replica { peer: ids.text(replica.peer), state, seen_ms_ago: replica.seen_ms_ago }
}

/// The state as replicas show it; none before it takes calls and after its end.
fn shown(state: AgentState) -> Option<ReplicaState> {
    match state {
        AgentState::Active => Some(ReplicaState::Active),
        AgentState::Busy => Some(ReplicaState::Busy),
        AgentState::Error => Some(ReplicaState::Error),
        AgentState::Init | AgentState::Registered | AgentState::Terminated => None,
    }
}

fn origin(origin: Origin) -> api::Origin {
    match origin {
        Origin::Native => api::Origin::Native,
        Origin::ServerJson => api::Origin::ServerJson,
        Origin::A2a => api::Origin::A2a,
    }
}

fn endpoints(card: &AgentCard) -> Vec<api::AgentEndpoint> {
    let endpoint = |it: &crate::proto::card::Endpoint| api::AgentEndpoint {
        kind: it.kind.clone(),
        address: it.address.clone(),
    };
    card.endpoints.iter().map(endpoint).collect()
}

/// The card as JSON, its JSON parts as JSON instead of text.
fn card_json(card: &AgentCard) -> serde_json::Value {
    let mut json = serde_json::to_value(card).unwrap_or_default();
    for field in ["input_schema", "output_schema", "original"] {
        if let Some(value) = json.get_mut(field)
            && let Some(parsed) = value.as_str().and_then(|text| serde_json::from_str(text).ok())
        {
            *value = parsed;
        }
    }
    json
}
