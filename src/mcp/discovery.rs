//! The discovery tools: names, arguments and answer fields are those of the paper authors' implementation, so that a
//! client written for it works; what a host keeps to itself is null. Behind them is the registry of the whole world.
//!
//! Everything that other hosts wrote is data here: cleaned of what nobody sees, cut, and marked with its owner.

use std::sync::LazyLock;

use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::catalog::{Tools, limits_json};
use super::schema::object;
use super::search::{self, FIELDS};
use super::{ServerState, call_tools, queues, tasks};
use crate::api::{Agent, AgentDetail, ApiError, QueueChange};
use crate::proto::call::{CallFailure, Outcome};
use crate::proto::code::Code;
use crate::proto::name::FullName;
use crate::sanitize::{clean_json, clean_short};

/// Names that no agent's tool may take: those of this file, and those of the queue and task tools.
pub(super) const RESERVED: [&str; 17] = [
    "search_agents",
    "discover_agents",
    "get_agent_details",
    "get_agents_info",
    "list_agents",
    "call_agent",
    "get_server_info",
    "call_agents",
    "get_task_status",
    "cancel_task",
    "get_queue_stats",
    "pause_agent_queue",
    "resume_agent_queue",
    "clear_agent_queue",
    "pause_all_queues",
    "resume_all_queues",
    "clear_all_queues",
];

/// Longest description in a list, bytes: one line; `get_agent_details` has all of it.
const LINE_BYTES_MAX: usize = 320;
/// Most results of a search, agents on a page of `discover_agents`, and agents asked for by name: one answer stays
/// below what models take.
pub(super) const LIMIT_MAX: usize = 100;
/// Agents on a page of `discover_agents` where nothing is said: a model reads all of them.
const DISCOVERED: usize = 20;
/// Names on a page of `list_agents`.
const NAMES_MAX: usize = 1_000;

/// What a tool answers.
pub(super) type Answer = Result<Value, CallFailure>;

/// Definitions in the order in which they are listed.
pub(super) static TOOLS: LazyLock<Vec<Tool>> = LazyLock::new(|| {
    let text = |what: &str| json!({"type": "string", "description": what});
    let texts = |what: &str| json!({"type": "array", "items": {"type": "string"}, "description": what});
    let number = |what: &str| json!({"type": "integer", "minimum": 1, "description": what});
    let page = json!({"zone": text("only this zone and those below it"), "limit": number("most agents"),
        "cursor": text("next_cursor of the page before")});
    let mut discover = object(json!({"agent_name": text("only this agent; all without it")}));
    discover.extend(object(page.clone()));
    discover.insert("limit".into(), number("most agents, 20 if not given, 100 at most"));
    let mut tools = vec![
        reads(
            "search_agents",
            "Search agents",
            "Search the registry of the whole world for agents. Call what it finds with call_agent.",
            json!({
                "query": text("words; more of them is better; none matches all"),
                "search_fields": {"type": "array", "items": {"enum": FIELDS}, "description": "only matches in these"},
                "limit": number("most results, 20 if not given, 100 at most"),
                "tags": texts("all of these tags"),
                "zone": text("only this zone and those below it"),
                "cursor": text("cursor of the answer before, to go on"),
            }),
            &["query"],
        ),
        reads(
            "discover_agents",
            "Discover agents",
            "Describe one agent, or those that this node holds.",
            discover.into(),
            &[],
        ),
        reads(
            "get_agent_details",
            "Show an agent",
            "Everything known of one agent: schemas, limits, hosts.",
            json!({"agent_name": text("full name agent@zone, bare name or id")}),
            &["agent_name"],
        ),
        reads(
            "get_agents_info",
            "Show several agents",
            "Everything known of several agents.",
            json!({"agent_names": texts("full names, bare names or ids, 100 at most")}),
            &["agent_names"],
        ),
        reads("list_agents", "List agents", "Full names of the agents that this node holds.", page, &[]),
        call_tools::call_agent(),
        reads(
            "get_server_info",
            "Show this node",
            "This node: its zones, health and own agents.",
            json!({}),
            &[],
        ),
        call_tools::call_agents(),
        call_tools::get_task_status(),
        call_tools::cancel_task(),
    ];
    tools.extend(queues::tools());
    tools
});

pub(super) fn reads(
    name: &'static str,
    title: &'static str,
    description: &'static str,
    properties: Value,
    required: &[&str],
) -> Tool {
    let schema = json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
    let hints = ToolAnnotations::new().read_only(true).destructive(false).idempotent(true).open_world(true);
    Tool::new(name, description, object(schema)).with_title(title).with_annotations(hints)
}

/// Models write one word where a list of words is asked for.
pub(super) fn one_or_several<'de, D: serde::Deserializer<'de>>(given: D) -> Result<Vec<String>, D::Error> {
    struct Words;
    impl<'de> serde::de::Visitor<'de> for Words {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list of strings")
        }

        fn visit_str<E>(self, word: &str) -> Result<Vec<String>, E> {
            Ok(vec![word.to_owned()])
        }

        fn visit_unit<E>(self) -> Result<Vec<String>, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, words: A) -> Result<Vec<String>, A::Error> {
            Deserialize::deserialize(serde::de::value::SeqAccessDeserializer::new(words))
        }
    }
    given.deserialize_any(Words)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Discover {
    #[serde(default)]
    agent_name: Option<String>,
    #[serde(default)]
    zone: Option<String>,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    cursor: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    #[serde(default)]
    zone: Option<String>,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    cursor: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct One {
    pub(super) agent_name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Several {
    #[serde(deserialize_with = "one_or_several")]
    agent_names: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// Answers the discovery tool `name`; `None` if it is none.
pub(super) async fn answer(node: &ServerState, name: &str, arguments: &JsonObject) -> Option<Answer> {
    let answer = match name {
        "search_agents" => search::search(node, arguments).await,
        "discover_agents" => discover(node, arguments).await,
        "get_agent_details" => details(node, arguments).await,
        "get_agents_info" => several(node, arguments).await,
        "list_agents" => list(node, arguments).await,
        "get_server_info" => server_info(node, arguments).await,
        "get_task_status" => return Some(tasks::status(node, arguments).await),
        "cancel_task" => tasks::cancel(node, arguments).await,
        "get_queue_stats" => queues::stats(node, arguments),
        "pause_agent_queue" => queues::change_one(node, arguments, QueueChange::Pause),
        "resume_agent_queue" => queues::change_one(node, arguments, QueueChange::Resume),
        "clear_agent_queue" => queues::change_one(node, arguments, QueueChange::Clear),
        "pause_all_queues" => queues::change_all(node, arguments, QueueChange::Pause),
        "resume_all_queues" => queues::change_all(node, arguments, QueueChange::Resume),
        "clear_all_queues" => queues::change_all(node, arguments, QueueChange::Clear),
        _ => return None,
    };
    // Whatever other hosts wrote goes through here.
    Some(answer.map(clean_json))
}

/// Arguments as `T`, or what is wrong with which of them.
pub(super) fn read<T: DeserializeOwned>(arguments: &JsonObject) -> Result<T, CallFailure> {
    serde_path_to_error::deserialize(arguments).map_err(|error| {
        let path = error.path().to_string();
        let at = if path == "." { "the arguments".to_owned() } else { format!("`{path}`") };
        bad_input(format!("{at}: {}", error.into_inner()))
    })
}

pub(super) fn bad_input(message: String) -> CallFailure {
    CallFailure::new(Code::BadInput, Outcome::NotStarted, message)
}

/// An error of the node, as a model reads it.
pub(super) fn refused(error: ApiError) -> CallFailure {
    let mut message = error.message;
    if !error.suggestions.is_empty() {
        message = format!("{message}; suggestions: {}", error.suggestions.join(", "));
    }
    let advice = advice(error.code, &error.fix);
    if !advice.is_empty() {
        message = format!("{message}; {advice}");
    }
    CallFailure::new(error.code, Outcome::NotStarted, message)
}

/// What a model can do: it has tools, and no shell in which commands could be typed.
pub(super) fn advice(code: Code, fix: &str) -> &str {
    match code {
        _ if !fix.contains("`aop ") => fix,
        Code::NotFound if fix.contains("aop task") => {
            "call_agent gives the ids of tasks; ended ones are kept for an hour"
        }
        Code::NotFound if fix.contains("aop queue") => {
            "get_queue_stats without agent_name lists the agents that this node runs"
        }
        Code::NotFound => "find agents with search_agents",
        Code::BadRequest if fix.contains("--async") => "call it with call_agent and `async`: true",
        Code::Ambiguous => "get_agent_details shows whose each one is; call it by its id",
        Code::Unavailable | Code::TimedOut | Code::Busy => {
            "try again in a moment; get_server_info shows the node's health"
        }
        _ => "get_server_info shows the node's health",
    }
}

async fn discover(node: &ServerState, arguments: &JsonObject) -> Answer {
    let asked: Discover = read(arguments)?;
    let tools = node.catalog.tools();
    if let Some(name) = asked.agent_name.filter(|name| !name.is_empty()) {
        let detail = show(node, &tools, &name).await?;
        return Ok(json!({"success": true, "agents": [discovery_info(node, &tools, &detail.agent)]}));
    }
    let limit = asked.limit.unwrap_or(DISCOVERED).clamp(1, LIMIT_MAX);
    let page = node.handle.agents(asked.zone, limit, asked.cursor).await.map_err(refused)?;
    let agents: Vec<Value> = page.results.iter().map(|agent| discovery_info(node, &tools, agent)).collect();
    Ok(json!({
        "success": true,
        "agents": agents,
        "next_cursor": page.cursor,
        "complete": page.complete,
        "age_ms": page.age_ms,
        "zones": page.zones,
    }))
}

async fn details(node: &ServerState, arguments: &JsonObject) -> Answer {
    let asked: One = read(arguments)?;
    let tools = node.catalog.tools();
    let detail = show(node, &tools, &asked.agent_name).await?;
    Ok(json!({
        "success": true,
        "agent_info": agent_info(node, &tools, &detail),
        "discovery_info": discovery_info(node, &tools, &detail.agent),
    }))
}

async fn several(node: &ServerState, arguments: &JsonObject) -> Answer {
    let asked: Several = read(arguments)?;
    if asked.agent_names.len() > LIMIT_MAX {
        return Err(bad_input(format!("`agent_names`: more than {LIMIT_MAX}; ask in several calls")));
    }
    let tools = node.catalog.tools();
    let (mut infos, mut not_found) = (Vec::new(), Vec::new());
    for name in &asked.agent_names {
        match show(node, &tools, name).await {
            Ok(detail) => infos.push(json!({
                "agent_name": name,
                "agent_info": agent_info(node, &tools, &detail),
                "discovery_info": discovery_info(node, &tools, &detail.agent),
            })),
            // An unknown name does not spoil the other answers; a node that fails does.
            Err(failure) if failure.code == Code::NotFound => not_found.push(name),
            Err(failure) => return Err(failure),
        }
    }
    Ok(json!({
        "success": true,
        "total_found": infos.len(),
        "total_requested": asked.agent_names.len(),
        "agents_info": infos,
        "not_found": not_found,
    }))
}

async fn list(node: &ServerState, arguments: &JsonObject) -> Answer {
    let asked: Page = read(arguments)?;
    let limit = asked.limit.unwrap_or(NAMES_MAX).clamp(1, NAMES_MAX);
    let first = asked.cursor.is_none();
    let page = node.handle.agents(asked.zone.clone(), limit, asked.cursor).await.map_err(refused)?;
    let names: Vec<&str> = page.results.iter().map(|agent| agent.agent.as_str()).collect();
    // A first page without a second is all there is, and nobody needs to be asked.
    let total = match first && page.cursor.is_none() {
        true => names.len(),
        false => held(node, asked.zone.as_deref()).await?,
    };
    Ok(json!({
        "success": true,
        "agent_names": names,
        "total_count": total,
        "next_cursor": page.cursor,
        "complete": page.complete,
        "age_ms": page.age_ms,
        "zones": page.zones,
    }))
}

/// How many agents this node holds in a zone and below.
async fn held(node: &ServerState, zone: Option<&str>) -> Result<usize, CallFailure> {
    let status = node.handle.status().await.map_err(refused)?;
    // With the dot before it, or `notacme.org` would lie in `acme.org`.
    let below = zone.filter(|zone| *zone != ".").map(|zone| format!(".{zone}"));
    let counted = status.zones.iter().filter(|held| match (&below, zone) {
        (Some(below), Some(zone)) => held.zone == zone || held.zone.ends_with(below.as_str()),
        _ => true,
    });
    Ok(counted.map(|held| held.agents).sum())
}

async fn server_info(node: &ServerState, arguments: &JsonObject) -> Answer {
    let Nothing {} = read(arguments)?;
    let status = node.handle.status().await.map_err(refused)?;
    let tools = node.catalog.tools();
    let own: Vec<&str> = tools.names().map(|(_, name)| name).take(NAMES_MAX).collect();
    let config = |(agent, name): (&FullName, &str)| (String::from(name), own_config(node, agent, name));
    // Details are long, so fewer agents have them here than names; `discover_agents` pages through all.
    let details: JsonObject = tools.names().take(LIMIT_MAX).map(config).collect();
    let zones: Vec<Value> = status
        .zones
        .iter()
        .map(|zone| json!({"zone": zone.zone, "role": zone.role, "agents": zone.agents, "peers": zone.peers}))
        .collect();
    let network = json!({"monitoring": true, "connections": status.connections, "health": status.health,
        "name": status.network, "problems": status.problems});
    Ok(json!({"success": true, "server_info": {
        "server_name": "aop",
        "description": "A peer-to-peer registry node for agents",
        "version": status.version,
        "peer_id": status.peer_id,
        "uptime": status.uptime_s,
        "total_tools": tools.len(),
        "tools": own,
        "transport": "streamable-http",
        "verbose": null,
        "traceback_enabled": null,
        "log_level": null,
        "queue_enabled": true,
        "queue_config": null,
        "queue_stats": queues::all_stats(node).0,
        "persistence": {"persistence_enabled": true},
        "network": network,
        "zones": zones,
        "tool_details": details,
    }}))
}

/// Settings of an agent of this host, without asking the registry.
fn own_config(node: &ServerState, agent: &FullName, tool: &str) -> Value {
    let list = node.handle.local_agents().list();
    let Some(local) = list.get(agent) else { return Value::Null };
    let (timeout, max_retries) = limits_json(local.offer.card.limits);
    json!({
        "tool_name": tool,
        "agent_name": agent.to_string(),
        "tool_description": clean_short(&local.offer.card.description, LINE_BYTES_MAX),
        "model_name": local.offer.card.model,
        "timeout": timeout,
        "max_retries": max_retries,
        "verbose": local.run_config.as_ref().map(|run_config| run_config.verbose),
        "traceback_enabled": local.run_config.as_ref().map(|run_config| run_config.traceback_enabled),
    })
}

/// One agent by the name of its tool here, or by any name that the registry knows.
async fn show(node: &ServerState, tools: &Tools, name: &str) -> Result<AgentDetail, CallFailure> {
    let own = tools.own(name).map(|own| own.agent.to_string());
    node.handle.show(own.as_deref().unwrap_or(name)).await.map_err(refused)
}

/// What the authors call discovery information, and what this registry adds.
pub(super) fn discovery_info(node: &ServerState, tools: &Tools, agent: &Agent) -> Value {
    json!({
        "tool_name": tools.name_of(&agent.agent),
        "agent_name": agent.agent,
        "description": node.shown(&agent.owner, &agent.description, LINE_BYTES_MAX),
        "short_system_prompt": null,
        "tags": agent.tags,
        "capabilities": agent.capabilities,
        "role": agent.role,
        "model_name": agent.model,
        "max_loops": null,
        "temperature": null,
        "max_tokens": null,
        "id": agent.id,
        "owner": agent.owner,
        "callable": agent.callable,
        "score": agent.score,
        "by_meaning": agent.by_meaning,
        "endpoints": agent.endpoints,
    })
}

/// What the authors call agent information: the settings, and both schemas.
fn agent_info(node: &ServerState, tools: &Tools, detail: &AgentDetail) -> Value {
    let agent = &detail.agent;
    let own = node.handle.local_agents().list();
    let run_config = agent.agent.parse().ok().and_then(|name| own.get(&name)?.run_config.as_ref());
    let limits = serde_json::from_value(detail.card.get("limits").cloned().unwrap_or_default()).ok();
    let (timeout, max_retries) = limits_json(limits);
    let description = node.shown(&agent.owner, &agent.description, usize::MAX);
    json!({
        "tool_name": tools.name_of(&agent.agent),
        "agent_name": agent.agent,
        "agent_description": description,
        "tool_description": description,
        "model_name": agent.model,
        "max_loops": null,
        "input_schema": detail.input_schema,
        "output_schema": detail.output_schema,
        "timeout": timeout,
        "max_retries": max_retries,
        "verbose": run_config.map(|run_config| run_config.verbose),
        "traceback_enabled": run_config.map(|run_config| run_config.traceback_enabled),
        "origin": agent.origin,
        "original_name": agent.original_name,
        "version": detail.card.get("version"),
        "replicas": agent.replicas,
        "expires_at": detail.expires_at,
    })
}

#[cfg(test)]
mod tests {
    use super::super::search::Search;
    use super::*;

    #[test]
    fn the_first_tools_are_those_of_the_paper_in_a_fixed_order() {
        let names: Vec<&str> = TOOLS.iter().map(|tool| tool.name.as_ref()).collect();
        assert_eq!(names, RESERVED);
        let reads = TOOLS
            .iter()
            .filter(|tool| tool.annotations.as_ref().is_some_and(|hints| hints.read_only_hint == Some(true)));
        assert_eq!(reads.count(), 8, "all but the calls, the end of a task, and changes of queues");
    }

    #[test]
    fn wrong_arguments_are_told_with_path_and_rule() {
        let arguments = object(json!({"query": "x", "tags": ["a", 1]}));
        let failure = read::<Search>(&arguments).err().unwrap();
        assert!(failure.message.contains("`tags[1]`") && failure.message.contains("string"), "{failure}");
        let failure = read::<Search>(&object(json!({"query": "x", "tag": "y"}))).err().unwrap();
        assert!(failure.message.contains("unknown field `tag`"), "{failure}");
        let failure = read::<One>(&object(json!({}))).err().unwrap();
        assert!(failure.message.contains("missing field `agent_name`"), "{failure}");
    }
}
