//! The reading commands: ask, print.

mod detail;
mod peers;
mod way;
mod zones;

use std::collections::{BTreeMap, BTreeSet};

pub(super) use self::peers::peers;
use self::way::way;
pub(super) use self::zones::zones;
use super::args::{AgentsArgs, FindArgs, ShowArgs, StatusArgs};
use super::client::{Client, segment};
use super::failure::{Exit, Failure};
use super::output::{Console, Rows, print_json, shown_name};
use super::time::{date, span};
use crate::api::{
    Agent, AgentDetail, AgentPage, FindAnswer, FoundWord, Health, Peers, Status, Why, ZoneAnswer, ZoneReport,
};

/// Agents asked for at once where all are wanted.
const PAGE_LIMIT: u32 = 1000;
/// Share of the best score below which people are not shown a result: it has some of the words in passing.
const FAR_BELOW: f32 = 0.45;
/// Before the description of a result that has no word of the search.
const BY_MEANING: &str = "≈ ";
/// Digits of a fingerprint that people compare: two of different registries are equal once in 2^48.
const FINGERPRINT_DIGITS: usize = 12;
/// Letters at the end of a PeerId by which people tell a few of them apart: equal by chance once in 40 billion.
const PEER_LETTERS: usize = 6;
/// Slips of the keyboard within which a zone is offered for another.
const ZONE_SLIPS_MAX: usize = 2;

/// `aop find`.
pub(super) fn find(args: &FindArgs, verbose: u8, console: Console) -> Result<Exit, Failure> {
    let mut query = vec![("q", args.words.join(" ")), ("limit", args.limit.to_string())];
    query.extend(args.zone.iter().map(|zone| ("zone", zone.clone())));
    query.extend(args.tags.iter().map(|tag| ("tag", tag.clone())));
    query.extend(args.capabilities.iter().map(|capability| ("capability", capability.clone())));
    query.extend(args.residency.iter().map(|residency| ("residency", residency.clone())));
    query.extend(args.cursor.iter().map(|cursor| ("cursor", cursor.clone())));
    if args.local {
        query.push(("local", "true".into()));
    }
    if verbose > 0 {
        query.push(("why", "true".into()));
    }
    if args.fresh {
        query.push(("max_age_ms", "0".into()));
    }
    let client = Client::new(&args.client)?;
    let answer: FindAnswer = client.get("/v1/find", &query)?;
    let exit = exit(answer.complete, &answer.zones);
    if args.client.json {
        print_json(&answer)?;
        return Ok(exit);
    }
    // Who asks for a further page wants what matches less.
    let near = if args.cursor.is_none() { near_the_best(&answer.results) } else { answer.results.len() };
    print_agents(&answer.results[..near])?;
    console.print(&format!("{near} agents, {:.1} ms", answer.elapsed_ms));
    if answer.results[..near].iter().any(|agent| agent.by_meaning) {
        console.print("≈ has no word of the search, and means nearly the same");
    }
    if verbose > 0 {
        way(&answer.zones, &PeerNames::get(&client)?).tell(console);
    }
    print_missing(&answer.zones, args.zone.as_deref(), &client, console);
    match (answer.results.len() - near, answer.cursor.as_deref()) {
        (0, cursor) => print_cursor(cursor, console),
        (left_out, cursor) => {
            let behind = if cursor.is_some() { " and what comes behind them" } else { "" };
            console.print(&format!("left out: {left_out} that match far less{behind}; --json has them"));
        }
    }
    Ok(exit)
}

/// An answer of no zone at all, as of one that is not held, lacks what was asked for.
fn exit(complete: bool, zones: &[ZoneAnswer]) -> Exit {
    if complete && !zones.is_empty() { Exit::Done } else { Exit::Degraded }
}

/// How many of these, best first, are not far below the best.
fn near_the_best(results: &[Agent]) -> usize {
    let best = results.first().map_or(0.0, |best| best.score);
    results.partition_point(|agent| agent.score >= best * FAR_BELOW)
}

/// `aop show`.
pub(super) fn show(args: &ShowArgs) -> Result<Exit, Failure> {
    let path = format!("/v1/agents/{}", segment(&args.agent)?);
    let detail: AgentDetail = Client::new(&args.client)?.get(&path, &[])?;
    match args.client.json {
        true => print_json(&detail)?,
        false => detail::print(&detail)?,
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
    let exit = exit(page.complete, &page.zones);
    if args.client.json {
        print_json(&page)?;
        return Ok(exit);
    }
    print_agents(&page.results)?;
    console.print(&format!("{} agents", page.results.len()));
    print_missing(&page.zones, args.zone.as_deref(), &client, console);
    print_cursor(page.cursor.as_deref(), console);
    Ok(exit)
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
    const HEADS: [&str; 5] = ["AGENT", "STATE", "DESCRIPTION", "TAGS", "WHY"];
    let has_why = agents.iter().any(|agent| agent.why.is_some());
    let mut rows = Rows::new(&HEADS[..if has_why { 5 } else { 4 }]);
    let zones = || agents.iter().filter_map(|agent| agent.agent.split_once('@'));
    let elsewhere: BTreeSet<&str> =
        zones().filter(|(_, zone)| *zone != ".").map(|(label, _)| label).collect();
    for agent in agents {
        // Beside an agent of another zone that is called the same, the root zone is told like any other.
        let short = shown_name(&agent.agent);
        let name = if elsewhere.contains(short) { &agent.agent } else { short };
        let name = own_name(agent, name);
        let mark = if agent.by_meaning { BY_MEANING } else { "" };
        let description = format!("{mark}{}", agent.description);
        let row = [name, state(agent), description, agent.tags.join(" ")];
        rows.push(row.into_iter().chain(agent.why.as_ref().map(why)));
    }
    rows.print()
}

/// Why a result is there: the words of the search that it has, those that it has otherwise with what it has, and how near its
/// meaning is.
fn why(why: &Why) -> String {
    let of_word = |word: &FoundWord| match word.asked == word.found {
        true => word.asked.clone(),
        false => format!("{}→{}", word.asked, word.found),
    };
    let words = why.words.iter().map(of_word);
    let meaning = Some(format!("meaning {:.0} %", 100.0 * why.meaning)).filter(|_| why.meaning > 0.0);
    words.chain(meaning).collect::<Vec<_>>().join(", ")
}

/// What an agent calls itself, and the name it has here.
fn own_name(agent: &Agent, name: &str) -> String {
    match &agent.original_name {
        Some(original) => format!("{original} ({name})"),
        None => name.to_owned(),
    }
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

/// What a reader of the results should know: which zones may have more than these, and which are held if that is not the
/// asked one.
fn print_missing(zones: &[ZoneAnswer], asked: Option<&str>, client: &Client, console: Console) {
    let named = |zone: &ZoneAnswer| match zone.age_ms {
        Some(ms) => format!("{} ({}, compared {})", zone.zone, zone.status, age(Some(ms))),
        None => format!("{} ({})", zone.zone, zone.status),
    };
    let missing: Vec<_> = zones.iter().filter(|zone| !zone.status.is_whole()).map(named).collect();
    match (missing.is_empty(), asked.filter(|_| zones.is_empty())) {
        (true, None) => match asked.filter(|asked| is_served_by_nobody(zones, asked)) {
            Some(asked) => console.print(&format!("nobody serves the zone {asked}")),
            None => return,
        },
        (true, Some(asked)) => console.print(&format!("not complete: nothing of {asked} is held here")),
        (false, _) => console.print(&format!("not complete: {}; `aop status` shows why", missing.join(", "))),
    }
    // Only to help: without this answer the line above is all that is known.
    if let Some(asked) = asked
        && let Ok(status) = client.get::<Status>("/v1/status", &[])
    {
        let held: Vec<String> = status.zones.into_iter().map(|zone| zone.zone).collect();
        if !held.iter().any(|zone| zone == asked) {
            console.print(&other_zones(asked, held));
        }
    }
}

/// Whether an answer that lacks nothing speaks of no zone that is the asked one or lies below: it would be delegated.
fn is_served_by_nobody(zones: &[ZoneAnswer], asked: &str) -> bool {
    let is_within = |zone: &str| {
        asked == "." || zone == asked || zone.strip_suffix(asked).is_some_and(|head| head.ends_with('.'))
    };
    !zones.iter().any(|zone| is_within(&zone.zone))
}

/// The zones that are held, the nearest first, and whether it may be meant.
fn other_zones(asked: &str, mut held: Vec<String>) -> String {
    let slips = |zone: &String| strsim::osa_distance(zone, asked);
    held.sort_by_key(slips);
    let is_part =
        |zone: &str, of: &str| of.split('.').next() == Some(zone) || zone.split('.').next() == Some(of);
    let near = held.iter().find(|zone| {
        *zone != "."
            && (slips(zone) <= ZONE_SLIPS_MAX.min(asked.len() / 3)
                || is_part(zone, asked)
                || is_part(asked, zone))
    });
    let meant = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    format!("held here: {}{meant}", held.join(", "))
}

fn print_cursor(cursor: Option<&str>, console: Console) {
    if let Some(cursor) = cursor {
        console.print(&format!("more with --cursor {cursor}"));
    }
}

fn status_rows(status: &Status) -> Rows {
    let mut rows = Rows::new(&["FIELD", "VALUE"]);
    let mut put = |field: &str, value: String| rows.push([field.to_string(), value]);
    put("health", status.health.to_string());
    for problem in &status.problems {
        let what = if problem.degrades { "problem" } else { "notice" };
        put(what, format!("{} ({}); {}", problem.message, problem.code, problem.fix));
    }
    if let Some(name) = &status.name {
        put("name", name.clone());
    }
    put("peer id", status.peer_id.clone());
    put("version", status.version.clone());
    put("search table", status.search_table.clone());
    put("network", status.network.clone());
    put("uptime", span(status.uptime_s.saturating_mul(1000)));
    put("clock offset", format!("{:+} ms", status.clock_offset_ms));
    for address in &status.listen {
        put("listen", address.clone());
    }
    let via = match status.reach.relays.len() {
        0 => String::new(),
        count => format!(" through {count} relay{}", if count == 1 { "" } else { "s" }),
    };
    put("reach", format!("{}{via}", status.reach.state));
    put("join", status.join.clone().unwrap_or("-".into()));
    put("connections", status.connections.to_string());
    for zone in &status.zones {
        let counts = format!("{} agents, {} records of {} authors", zone.agents, zone.records, zone.authors);
        put(
            "zone",
            format!("{} {}: {counts}, {}, lag {} ms", zone.zone, zone.role, members(zone), zone.lag_ms),
        );
        let fingerprint = zone.fingerprint.get(..FINGERPRINT_DIGITS).unwrap_or(&zone.fingerprint);
        let as_of = zone.as_of.parse().map_or_else(|_| zone.as_of.clone(), date);
        put("fingerprint", format!("{} {fingerprint} as of {as_of}", zone.zone));
        for (author, version) in zone.version_vector.iter().flatten() {
            put("version", format!("{} {author} {version}", zone.zone));
        }
    }
    for (reason, count) in &status.refused {
        put("refused", format!("{reason} {count}"));
    }
    rows
}

/// Who else serves a zone, and whether this node compared its records with theirs.
fn members(zone: &ZoneReport) -> String {
    // This node is a member, too; a follower of whom nobody heard is none.
    let others = zone.members.saturating_sub(1).max(zone.peers);
    let compared = match (zone.last_sync_ms_ago, others) {
        (Some(ms), _) => format!("compared {}", age(Some(ms))),
        (None, 0) => "nobody to compare with".into(),
        (None, _) => "not compared from here yet".into(),
    };
    format!("{} of {others} other members connected, {compared}", zone.peers)
}

fn age(ms: Option<u64>) -> String {
    ms.map_or("never".into(), |ms| format!("{} ago", span(ms)))
}

/// What connected peers call themselves, by their PeerIds.
#[derive(Default)]
struct PeerNames(BTreeMap<String, String>);

impl PeerNames {
    fn get(client: &Client) -> Result<PeerNames, Failure> {
        let known: Peers = client.get("/v1/peers", &[])?;
        Ok(PeerNames(known.peers.into_iter().filter_map(|peer| Some((peer.peer, peer.name?))).collect()))
    }

    /// What tells a few PeerIds apart, for all begin alike; behind the name, which anybody may take.
    fn shortened(&self, peer: &str) -> String {
        let letters = peer.chars().count();
        let end: String = peer.chars().skip(letters.saturating_sub(PEER_LETTERS)).collect();
        let id = if letters > PEER_LETTERS { format!("…{end}") } else { end };
        self.0.get(peer).map(|name| format!("{name} {id}")).unwrap_or(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(scores: &[f32]) -> Vec<Agent> {
        scores.iter().map(|score| Agent { score: *score, ..Agent::default() }).collect()
    }

    #[test]
    fn what_is_far_below_the_best_is_left_out() {
        assert_eq!(near_the_best(&scored(&[2.8, 2.1, 1.6, 1.2, 1.1])), 3);
        assert_eq!(near_the_best(&scored(&[1.9, 1.1, 0.9])), 3);
        assert_eq!(near_the_best(&scored(&[0.0, 0.0])), 2, "a list is no ranking");
        assert_eq!(near_the_best(&[]), 0);
    }

    #[test]
    fn a_result_says_its_words_and_what_stands_for_others() {
        let word = |asked: &str, found: &str| FoundWord { asked: asked.into(), found: found.into() };
        let both = Why { words: vec![word("send", "send"), word("emial", "email")], meaning: 0.414 };
        assert_eq!(why(&both), "send, emial→email, meaning 41 %");
        assert_eq!(why(&Why { words: Vec::new(), meaning: 0.0 }), "");
    }

    #[test]
    fn a_zone_that_may_be_meant_is_offered_and_no_other() {
        let held = || vec![".".into(), "lab.example.org".into(), "acme.org".into()];
        assert!(other_zones("acme.ogr", held()).ends_with("did you mean acme.org?"));
        assert!(other_zones("acme", held()).ends_with("did you mean acme.org?"));
        assert!(other_zones("labs.example.org", held()).starts_with("held here: lab.example.org, "));
        let far = other_zones("zebra.net", held());
        assert!(!far.contains("mean") && far.contains("lab.example.org"), "{far}");
    }

    #[test]
    fn a_zone_without_others_does_not_read_as_one_that_fails() {
        let zone = |peers, members, last_sync_ms_ago| members_of(peers, members, last_sync_ms_ago);
        assert_eq!(zone(0, 1, None), "0 of 0 other members connected, nobody to compare with");
        assert_eq!(zone(4, 5, None), "4 of 4 other members connected, not compared from here yet");
        assert_eq!(zone(2, 1, Some(3_000)), "2 of 2 other members connected, compared 3.0 s ago");
    }

    fn members_of(peers: usize, members: usize, last_sync_ms_ago: Option<u64>) -> String {
        super::members(&ZoneReport { peers, members, last_sync_ms_ago, ..ZoneReport::default() })
    }
}
