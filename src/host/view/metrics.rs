//! What is read when metrics are asked for: sizes, states and the counters of parts that count for themselves.

use std::collections::BTreeMap;

use super::problem::PROBLEM_CODES;
use super::status::{Snapshot, ZoneSnapshot};
use crate::agents::{AgentState, Agents};
use crate::net::driver::Trend;
use crate::net::refusals::Reason;
use crate::net::streams::budget::Waited;
use crate::net::swarm::{Dropped, ReachState, Traffic};
use crate::proto::arrival::{Taken, Via};
use crate::proto::query::{QuestionCounts, Uses};
use crate::proto::time::Timestamp;
use crate::telemetry::exposition::Readings;
use crate::telemetry::histogram::{AGENT, Histogram};
use crate::telemetry::log_counts;
use crate::telemetry::metrics::OTHER;
use crate::telemetry::otel;
use crate::telemetry::process::Process;

/// Own agents with series of their own, the first by name; the rest are one more together.
const AGENTS_MAX: usize = 100;
/// MCP servers with series of their own; the rest are one more together.
const SERVERS_MAX: usize = 64;

/// What the HTTP server counts by itself.
#[derive(Debug, Default)]
pub struct HttpReadings {
    /// What it refused, by reason.
    pub refused: BTreeMap<Reason, u64>,
    /// How many streams are open, by kind.
    pub streams: Vec<(&'static str, usize)>,
}

/// All of it.
pub(in crate::host) fn metrics(
    snapshot: &Snapshot,
    trends: &[(Trend, Timestamp)],
    agents: &Agents,
    http: &HttpReadings,
) -> Readings {
    let mut readings = Readings::default();
    // Empty, which is no label, where the build did not say.
    let build = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("revision", option_env!("AOP_REVISION").unwrap_or_default()),
    ];
    readings.gauge(
        "aop_build_info",
        "The version of this node, and the revision that it was built from",
        &build,
        1.0,
    );
    let uptime = snapshot.uptime.as_secs_f64();
    readings.gauge("aop_uptime_seconds", "Time since the node started", &[], uptime);
    if let Some(process) = Process::look() {
        process.tell(&mut readings);
    }
    tell_http(&mut readings, http);
    if let Some(dropped) = otel::dropped() {
        readings.counter("aop_spans_dropped", "Spans that no collector got", &[], dropped);
    }
    tell_problems(&mut readings, snapshot, trends);
    for state in ReachState::ALL {
        readings.gauge(
            "aop_reachability",
            "From where this node is reached, one for what holds",
            &[("state", state.text())],
            f64::from(u8::from(state == snapshot.reach.state)),
        );
    }
    let circuits = snapshot.reach.circuits as f64;
    readings.gauge("aop_relay_circuits", "Circuits that this node relays for others", &[], circuits);
    tell_traffic(&mut readings, &snapshot.traffic);
    tell_registry(&mut readings, snapshot);
    tell_questions(&mut readings, snapshot.questions);
    tell_agents(&mut readings, agents);
    tell_upstreams(&mut readings, agents.upstream_servers());
    tell_log(&mut readings);
    readings
}

/// The counts, and 0 of what was not counted yet: only so has a rate its first event.
fn from_zero<K: Ord + Copy>(all: impl IntoIterator<Item = K>, counts: &BTreeMap<K, u64>) -> BTreeMap<K, u64> {
    let none = all.into_iter().map(|kind| (kind, 0));
    none.chain(counts.iter().map(|(kind, count)| (*kind, *count))).collect()
}

fn tell_http(readings: &mut Readings, http: &HttpReadings) {
    for (reason, count) in from_zero(Reason::OF_CLIENTS, &http.refused) {
        let help = "HTTP requests and connections refused under a limit";
        readings.counter("aop_http_refused", help, &[("reason", reason.text())], count);
    }
    for (kind, open) in &http.streams {
        readings.gauge("aop_http_streams", "Open event streams", &[("kind", kind)], *open as f64);
    }
}

fn tell_problems(readings: &mut Readings, snapshot: &Snapshot, trends: &[(Trend, Timestamp)]) {
    let problems = snapshot.problems(trends);
    let degrading = problems.iter().filter(|problem| problem.degrades).count();
    readings.gauge("aop_problems", "Problems for which the node works less well", &[], degrading as f64);
    for code in PROBLEM_CODES {
        let is_there = problems.iter().any(|problem| problem.code == *code);
        let help = "Whether the node has this problem; `aop status` says what to do";
        readings.gauge("aop_problem", help, &[("code", code.text())], f64::from(u8::from(is_there)));
    }
    let offset = snapshot.clock_offset_ms as f64 / 1_000.0;
    readings.gauge("aop_clock_offset_seconds", "Clocks of the peers, minus the own one", &[], offset);
}

fn tell_traffic(readings: &mut Readings, traffic: &Traffic) {
    readings.gauge("aop_peers", "Connected peers of this network", &[], traffic.peers as f64);
    readings.gauge(
        "aop_peers_blocked",
        "Peers that are blocked for breaches of the protocol",
        &[],
        traffic.blocked as f64,
    );
    for (state, count) in &traffic.bootstrap {
        readings.gauge(
            "aop_bootstrap_peers",
            "Addresses of the configuration, by state",
            &[("state", state)],
            *count as f64,
        );
    }
    let count = |readings: &mut Readings, name, help, labels: &[(&'static str, &str)], value| {
        readings.counter(name, help, labels, value);
    };
    count(readings, "aop_gossip_published", "Own messages handed to the mesh", &[], traffic.gossip_published);
    count(
        readings,
        "aop_gossip_received",
        "Messages received, each counted once",
        &[],
        traffic.gossip_received,
    );
    count(
        readings,
        "aop_gossip_unjudged",
        "Messages given up without a verdict",
        &[],
        traffic.gossip_unvalidated,
    );
    for (reason, number) in from_zero(Reason::OF_PEERS, &traffic.refused) {
        let help = "What was refused under a limit";
        count(readings, "aop_refused", help, &[("reason", reason.text())], number);
    }
    for (reason, number) in from_zero(Dropped::ALL, &traffic.gossip_dropped) {
        let help = "Messages dropped before anybody looked at them";
        count(readings, "aop_gossip_dropped", help, &[("reason", reason.text())], number);
    }
    for (how, number) in from_zero(Waited::ALL, &traffic.requests_waited) {
        let help = "Requests of peers that had to wait";
        count(readings, "aop_requests_waited", help, &[("how", how.text())], number);
    }
    for (zone, mesh) in &traffic.mesh {
        let labels = [("zone", &*zone.to_string())];
        readings.gauge("aop_gossip_mesh_peers", "Peers in the gossip mesh of a zone", &labels, *mesh as f64);
    }
}

fn tell_registry(readings: &mut Readings, snapshot: &Snapshot) {
    for (reason, count) in &snapshot.refused {
        let help = "Records of others that were not taken";
        readings.counter("aop_refused_records", help, &[("reason", reason.text())], *count);
    }
    let ways = Via::ALL.into_iter().flat_map(|via| Taken::ALL.map(|taken| (via, taken)));
    for ((via, taken), count) in from_zero(ways, &snapshot.taken) {
        let labels = [("via", via.text()), ("result", taken.text())];
        let help = "Records that came, by their way and by what was made of them";
        readings.counter("aop_records", help, &labels, count);
    }
    for zone in &snapshot.zones {
        tell_zone(readings, zone, snapshot);
    }
}

fn tell_zone(readings: &mut Readings, zone: &ZoneSnapshot, snapshot: &Snapshot) {
    let (state, now) = (&zone.state, snapshot.now);
    let name = state.zone.to_string();
    let labels = [("zone", name.as_str())];
    for (metric, help, value) in [
        ("aop_registry_records", "Records held, tombstones included", state.records),
        ("aop_registry_agents", "Agents held", state.agents),
        ("aop_registry_bytes", "Bytes of the records held", state.bytes),
        ("aop_registry_authors", "Authors whose versions are known", state.authors),
        ("aop_zone_members", "Members of the zone that answer, this node included", state.members),
        (
            "aop_members_unreachable",
            "Members that were heard, said no goodbye and answer no more",
            state.unreachable,
        ),
    ] {
        readings.gauge(metric, help, &labels, value as f64);
    }
    let lag = state.lagging_since.map_or(0.0, |since| now.since(since).as_secs_f64());
    readings.gauge(
        "aop_registry_lag_seconds",
        "For how long a member is known to have written more",
        &labels,
        lag,
    );
    if let Some(at) = state.synced_at {
        let help = "The end of the last comparison with a peer, seconds since the Unix epoch";
        readings.gauge("aop_registry_last_sync_timestamp_seconds", help, &labels, at.0 as f64 / 1_000.0);
    }
    if let Some(print) = zone.fingerprint {
        // Exact in a double, so that nodes with equal registries tell equal numbers.
        let print = print.0.iter().take(6).fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        let help = "The first 48 bits of the fingerprint of a registry: equal where two nodes hold the same";
        readings.gauge("aop_registry_fingerprint", help, &labels, print as f64);
    }
}

fn tell_questions(readings: &mut Readings, questions: QuestionCounts) {
    let QuestionCounts { of_clients, of_peers, asked, asked_for_peers, l1, l2, l3 } = questions;
    for (origin, questions, messages) in [("client", of_clients, asked), ("peer", of_peers, asked_for_peers)]
    {
        let labels = [("origin", origin)];
        readings.counter("aop_questions", "Questions across zones", &labels, questions);
        readings.counter("aop_questions_asked", "Messages to other zones for them", &labels, messages);
    }
    for (cache, Uses { hits, stale, misses }) in [("l1", l1), ("l2", l2), ("l3", l3)] {
        for (result, uses) in [("hit", hits), ("stale", stale), ("miss", misses)] {
            let labels = [("cache", cache), ("result", result)];
            readings.counter("aop_cache_requests", "Looks into the caches of answers", &labels, uses);
        }
    }
}

/// Those beyond the bound are up together or not.
fn tell_upstreams(readings: &mut Readings, mut servers: Vec<(String, bool)>) {
    if servers.len() > SERVERS_MAX {
        let others = servers.split_off(SERVERS_MAX);
        servers.push((OTHER.into(), others.iter().all(|(_, is_up)| *is_up)));
    }
    for (server, is_up) in servers {
        let help = "Whether calls reach an MCP server of this host";
        readings.gauge("aop_upstream_up", help, &[("server", &server)], f64::from(u8::from(is_up)));
    }
}

fn tell_log(readings: &mut Readings) {
    for (level, count) in log_counts::read() {
        let help = "Records of the log, those left out as too many included";
        readings.counter("aop_log_records", help, &[("level", level)], count);
    }
}

fn tell_agents(readings: &mut Readings, agents: &Agents) {
    let totals = agents.totals();
    for (state, count) in &totals.agents {
        readings.gauge(
            "aop_agents",
            "Agents of this host, by state",
            &[("state", state.text())],
            *count as f64,
        );
    }
    readings.gauge("aop_agents_paused", "Agents that the operator has paused", &[], totals.paused as f64);
    for (stage, calls) in [("running", totals.running), ("queued", totals.queued)] {
        readings.gauge(
            "aop_agent_calls_in_flight",
            "Calls of agents of this host",
            &[("stage", stage)],
            calls as f64,
        );
    }
    for (result, runs) in [("completed", totals.completed), ("failed", totals.failed)] {
        let help = "Runs of agents of this host; those of agents that have gone, too";
        readings.counter("aop_agent_runs", help, &[("result", result)], runs);
    }
    let help = "From the wish for a place of an agent to the place";
    readings.metric("aop_call_wait_seconds", help, agents.waits().clone());
    let mut others: Option<Histogram> = None;
    let mut took = Vec::new();
    for (at, (name, work)) in agents.work().into_iter().enumerate() {
        let name = if at < AGENTS_MAX { name.to_string() } else { OTHER.into() };
        for (outcome, count) in [("ok", work.completed), ("failed", work.failed), ("refused", work.refused)] {
            // A hundred series that mostly say nothing; no alert takes the rate of these.
            if (outcome, count) == ("refused", 0) {
                continue;
            }
            let labels = [("agent", name.as_str()), ("outcome", outcome)];
            let help = "Calls of an agent of this host, by how they ended; refused ones were not started";
            readings.counter("aop_agent_calls", help, &labels, count);
        }
        if at < AGENTS_MAX {
            for state in [AgentState::Active, AgentState::Busy, AgentState::Error] {
                let labels = [("agent", name.as_str()), ("state", state.text())];
                let is_it = f64::from(u8::from(work.state == state));
                readings.gauge("aop_agent_state", "Whether the agent is in this state", &labels, is_it);
            }
            took.push((name, work.took));
        } else {
            others.get_or_insert_with(|| Histogram::new(AGENT)).add(&work.took);
        }
    }
    took.extend(others.map(|others| (OTHER.into(), others)));
    readings.histograms("aop_agent_call_duration_seconds", "How long runs of an agent took", "agent", took);
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use serde_json::json;
    use tokio::time::Instant;

    use super::*;
    use crate::agents::{HostedAgent, Invocation};
    use crate::document::run_config::{Builtin, RunConfig, Runner};
    use crate::proto::call::CallId;
    use crate::proto::card::{AgentCard, Offer, Scope};
    use crate::proto::name::ZoneName;
    use crate::telemetry::exposition::Format;
    use crate::telemetry::metrics::Metrics;

    /// The lines of a metric.
    fn lines<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
        text.lines().filter(|line| line.starts_with(&format!("{name}{{"))).collect()
    }

    fn sum(lines: &[&str]) -> f64 {
        lines.iter().map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    #[tokio::test]
    async fn of_a_thousand_agents_a_hundred_have_series_and_no_call_is_left_out() {
        let agents = Agents::new(ZoneName::root());
        let agent = |number: usize| {
            let name = format!("agent-{number}").parse().unwrap();
            let card = AgentCard { callable: true, ..AgentCard::default() };
            let run_config = RunConfig::new(Runner::Builtin(Builtin::Echo), Path::new("."));
            let offer = Offer { name, zone: None, scope: Scope::Public, card, grants: Vec::new() };
            HostedAgent { offer, run_config: Some(run_config) }
        };
        agents.replace((0..1_000).map(agent).collect());
        let deadline = Instant::now() + Duration::from_secs(60);
        for (name, number) in agents.list().keys().zip(0_u128..) {
            let call = CallId(number.to_be_bytes());
            agents.call(name, Invocation::new(call, json!({"task": "x"}), deadline)).await.unwrap();
        }
        let mut readings = Readings::default();
        tell_agents(&mut readings, &agents);
        let text = readings.write(&Metrics::default(), Format::Text);
        let calls = lines(&text, "aop_agent_calls_total");
        assert_eq!((calls.len(), sum(&calls)), (2 * (AGENTS_MAX + 1), 1_000.0));
        let took = lines(&text, "aop_agent_call_duration_seconds_count");
        assert_eq!((took.len(), sum(&took)), (AGENTS_MAX + 1, 1_000.0));
        assert_eq!(lines(&text, "aop_agent_state").len(), 3 * AGENTS_MAX);
    }

    #[test]
    fn mcp_servers_beyond_the_bound_are_up_if_all_of_them_are() {
        for (last, expected) in [(true, 1.0), (false, 0.0)] {
            let servers = (0..1_000).map(|number| (format!("s-{number:04}@."), number < 999 || last));
            let mut readings = Readings::default();
            tell_upstreams(&mut readings, servers.collect());
            let text = readings.write(&Metrics::default(), Format::Text);
            let told = lines(&text, "aop_upstream_up");
            assert_eq!((told.len(), sum(&told)), (SERVERS_MAX + 1, SERVERS_MAX as f64 + expected));
        }
    }
}
