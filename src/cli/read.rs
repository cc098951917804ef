//! The reading commands: ask, print.

use super::args::{AgentsArgs, ClientArgs, FindArgs, ShowArgs, StatusArgs};
use super::client::{Client, segment};
use super::failure::{Exit, Failure};
use super::output::{Console, Rows, print_json};
use crate::api::{Agent, AgentDetail, AgentPage, FindAnswer, Health, Peers, Status, ZoneAnswer};

/// Agents asked for at once where all are wanted.
const PAGE_LIMIT: u32 = 1000;

/// `aop find`.
pub(super) fn find(args: &FindArgs, console: Console) -> Result<Exit, Failure> {
    let mut query = vec![("q", args.words.join(" ")), ("limit", args.limit.to_string())];
    query.extend(args.zone.iter().map(|zone| ("zone", zone.clone())));
    query.extend(args.tags.iter().map(|tag| ("tag", tag.clone())));
    query.extend(args.capabilities.iter().map(|capability| ("capability", capability.clone())));
    query.extend(args.cursor.iter().map(|cursor| ("cursor", cursor.clone())));
    if args.local {
        query.push(("local", "true".into()));
    }
    let answer: FindAnswer = Client::new(&args.client)?.get("/v1/find", &query)?;
    let exit = if answer.complete { Exit::Done } else { Exit::Degraded };
    if args.client.json {
        print_json(&answer)?;
        return Ok(exit);
    }
    print_agents(&answer.results)?;
    console.print(&format!("{} agents, {:.1} ms", answer.results.len(), answer.elapsed_ms));
    print_missing(&answer.zones, console);
    print_cursor(answer.cursor.as_deref(), console);
    Ok(exit)
}

/// `aop show`.
pub(super) fn show(args: &ShowArgs) -> Result<Exit, Failure> {
    let path = format!("/v1/agents/{}", segment(&args.agent));
    let detail: AgentDetail = Client::new(&args.client)?.get(&path, &[])?;
    if args.client.json {
        print_json(&detail)?;
    } else {
        detail_rows(&detail).print()?;
    }
    Ok(Exit::Done)
}

/// `aop agents`: without a limit it follows the pages to the end.
pub(super) fn agents(args: &AgentsArgs, console: Console) -> Result<Exit, Failure> {
    let client = Client::new(&args.client)?;
    let mut page = AgentPage { cursor: args.cursor.clone(), ..AgentPage::default() };
    loop {
        let wanted = args.limit.map_or(PAGE_LIMIT, |limit| limit.saturating_sub(page.results.len() as u32));
        let mut query = vec![("limit", wanted.min(PAGE_LIMIT).to_string())];
        query.extend(args.zone.iter().map(|zone| ("zone", zone.clone())));
        query.extend(page.cursor.iter().map(|cursor| ("cursor", cursor.clone())));
        let next: AgentPage = client.get("/v1/agents", &query)?;
        let was_empty = next.results.is_empty();
        let mut results = std::mem::take(&mut page.results);
        results.extend(next.results);
        // As complete as the last page says: it is asked for last.
        page = AgentPage { results, ..next };
        let enough = args.limit.is_some_and(|limit| page.results.len() as u32 >= limit);
        // An empty page that names a next one would be asked for without end.
        if page.cursor.is_none() || was_empty || enough {
            break;
        }
    }
    if args.client.json {
        print_json(&page)?;
        return Ok(Exit::Done);
    }
    print_agents(&page.results)?;
    console.print(&format!("{} agents", page.results.len()));
    print_missing(&page.zones, console);
    print_cursor(page.cursor.as_deref(), console);
    Ok(Exit::Done)
}

/// `aop peers`.
pub(super) fn peers(args: &ClientArgs) -> Result<Exit, Failure> {
    let peers: Peers = Client::new(args)?.get("/v1/peers", &[])?;
    if args.json {
        print_json(&peers)?;
        return Ok(Exit::Done);
    }
    let mut rows = Rows::new(&["PEER", "STATE", "RTT", "CLOCK", "SEEN", "ZONES", "ADDRESSES"]);
    for peer in peers.peers {
        let state = if peer.connected { "connected" } else { "away" };
        rows.push([
            peer.peer,
            if peer.bootstrap { format!("{state}, bootstrap") } else { state.into() },
            peer.rtt_ms.map_or("-".into(), |rtt| format!("{rtt:.1} ms")),
            peer.clock_offset_ms.map_or("-".into(), |offset| format!("{offset:+} ms")),
            age(peer.seen_ms_ago),
            peer.zones.join(" "),
            peer.addresses.join(" "),
        ]);
    }
    rows.print()?;
    Ok(Exit::Done)
}

/// `aop status`: a health check, by its exit code.
pub(super) fn status(args: &StatusArgs) -> Result<Exit, Failure> {
    let query: Vec<_> = args.vector.then(|| ("vector", "true".into())).into_iter().collect();
    let status: Status = Client::new(&args.client)?.get("/v1/status", &query)?;
    let exit = if status.health == Health::Ok { Exit::Done } else { Exit::Degraded };
    if args.client.json {
        print_json(&status)?;
    } else {
        status_rows(&status).print()?;
    }
    Ok(exit)
}

fn print_agents(agents: &[Agent]) -> Result<(), Failure> {
    let mut rows = Rows::new(&["AGENT", "STATE", "DESCRIPTION", "TAGS"]);
    for agent in agents {
        rows.push([agent.agent.clone(), state(agent), agent.description.clone(), agent.tags.join(" ")]);
    }
    rows.print()
}

/// The best state of its hosts, and how many there are if several.
fn state(agent: &Agent) -> String {
    let best = agent.replicas.iter().map(|replica| replica.state).min();
    match (best, agent.replicas.len()) {
        (None, _) => "-".into(),
        (Some(best), 1) => best.to_string(),
        (Some(best), count) => format!("{best} ×{count}"),
    }
}

/// What a reader of the results should know: which zones may have more than these.
fn print_missing(zones: &[ZoneAnswer], console: Console) {
    let named = |zone: &ZoneAnswer| match zone.age_ms {
        Some(ms) => format!("{} ({}, compared {})", zone.zone, zone.status, age(Some(ms))),
        None => format!("{} ({})", zone.zone, zone.status),
    };
    let missing: Vec<_> = zones.iter().filter(|zone| !zone.status.is_whole()).map(named).collect();
    if !missing.is_empty() {
        console.print(&format!("not complete: {}; `aop status` shows why", missing.join(", ")));
    }
}

fn print_cursor(cursor: Option<&str>, console: Console) {
    if let Some(cursor) = cursor {
        console.print(&format!("more with --cursor {cursor}"));
    }
}

fn detail_rows(detail: &AgentDetail) -> Rows {
    let agent = &detail.agent;
    let mut rows = Rows::new(&["FIELD", "VALUE"]);
    let mut put = |field: &str, value: String| {
        // A schema that is not there shows as the text `null`.
        if !value.is_empty() && value != "null" {
            rows.push([field.to_string(), value]);
        }
    };
    put("agent", agent.agent.clone());
    put("id", agent.id.clone());
    put("description", agent.description.clone());
    put("tags", agent.tags.join(" "));
    put("capabilities", agent.capabilities.join(" "));
    put("callable", agent.callable.to_string());
    put("owner", agent.owner.clone());
    put("origin", agent.origin.to_string());
    put("original name", agent.original_name.clone().unwrap_or_default());
    for endpoint in &agent.endpoints {
        put("endpoint", format!("{} {}", endpoint.kind, endpoint.address));
    }
    for replica in &agent.replicas {
        put("replica", format!("{} {} {}", replica.peer, replica.state, age(replica.seen_ms_ago)));
    }
    put("input schema", detail.input_schema.to_string());
    put("output schema", detail.output_schema.to_string());
    put("version", format!("{} {} {}", detail.version.author, detail.version.seq, detail.version.stamp));
    put("expires at", detail.expires_at.to_string());
    rows
}

fn status_rows(status: &Status) -> Rows {
    let mut rows = Rows::new(&["FIELD", "VALUE"]);
    let mut put = |field: &str, value: String| rows.push([field.to_string(), value]);
    put("health", status.health.to_string());
    for problem in &status.problems {
        let what = if problem.degrades { "problem" } else { "notice" };
        put(what, format!("{} ({}); {}", problem.message, problem.code, problem.fix));
    }
    put("peer id", status.peer_id.clone());
    put("version", status.version.clone());
    put("network", status.network.clone());
    put("uptime", format!("{} s", status.uptime_s));
    put("clock offset", format!("{:+} ms", status.clock_offset_ms));
    for address in &status.listen {
        put("listen", address.clone());
    }
    put("join", status.join.clone().unwrap_or("-".into()));
    put("connections", status.connections.to_string());
    for zone in &status.zones {
        let sync = age(zone.last_sync_ms_ago);
        let counts = format!(
            "{} agents, {} records of {} authors, {} of {} members",
            zone.agents, zone.records, zone.authors, zone.peers, zone.members
        );
        put("zone", format!("{} {}: {counts}, synced {sync}, lag {} ms", zone.zone, zone.role, zone.lag_ms));
        put("fingerprint", format!("{} {} as of {}", zone.zone, zone.fingerprint, zone.as_of));
        for (author, version) in zone.version_vector.iter().flatten() {
            put("version", format!("{} {author} {version}", zone.zone));
        }
    }
    for (reason, count) in &status.refused {
        put("refused", format!("{reason} {count}"));
    }
    rows
}

fn age(ms: Option<u64>) -> String {
    match ms {
        None => "never".into(),
        Some(ms) if ms < 10_000 => format!("{:.1} s ago", ms as f64 / 1000.0),
        Some(ms) if ms < 600_000 => format!("{} s ago", ms / 1000),
        Some(ms) => format!("{} min ago", ms / 60_000),
    }
}
