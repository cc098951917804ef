//! The tools for the queues of this node's own agents, named and answered as those of the paper's authors: what there is to do,
//! and the operator's hand on it. Beside the authors' fields stand ours, as the HTTP API has them.

use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde::Deserialize;
use serde_json::{Value, json};

use super::ServerState;
use super::discovery::{Answer, LIMIT_MAX, Nothing, One, read, reads, refused};
use super::schema::object;
use crate::api::{Queue, QueueChange};
use crate::host::QueueClient;

/// The definitions, in the order in which they are listed.
pub(super) fn tools() -> [Tool; 7] {
    let agent = || json!({"agent_name": {"type": "string", "description": "an agent of this node"}});
    let one = |name, title, description, is_destructive| {
        changes(name, title, description, agent(), &["agent_name"], is_destructive)
    };
    let all = |name, title, description, is_destructive| {
        changes(name, title, description, json!({}), &[], is_destructive)
    };
    [
        reads(
            "get_queue_stats",
            "Show queues",
            "How many calls this node's own agents have at work and waiting, and how their runs ended.",
            json!({"agent_name": {"type": "string", "description": "only this agent; all without it"}}),
            &[],
        ),
        one(
            "pause_agent_queue",
            "Pause an agent",
            "Let an agent of this node begin no more calls until it is resumed: what comes waits.",
            false,
        ),
        one("resume_agent_queue", "Resume an agent", "Let an agent of this node begin calls again.", false),
        one(
            "clear_agent_queue",
            "Clear an agent's queue",
            "End all calls that wait for an agent of this node; what is at work comes to its end.",
            true,
        ),
        all("pause_all_queues", "Pause all agents", "Let no agent of this node begin calls.", false),
        all(
            "resume_all_queues",
            "Resume all agents",
            "Let all agents of this node begin calls again.",
            false,
        ),
        all("clear_all_queues", "Clear all queues", "End all calls that wait for agents of this node.", true),
    ]
}

fn changes(
    name: &'static str,
    title: &'static str,
    description: &'static str,
    properties: Value,
    required: &[&str],
    is_destructive: bool,
) -> Tool {
    let schema = json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
    // Of no world but this node's.
    let hints = ToolAnnotations::new().read_only(false).destructive(is_destructive).open_world(false);
    Tool::new(name, description, object(schema)).with_title(title).with_annotations(hints.idempotent(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(default)]
    agent_name: Option<String>,
}

/// `get_queue_stats`.
pub(super) fn stats(node: &ServerState, arguments: &JsonObject) -> Answer {
    let asked: Asked = read(arguments)?;
    if let Some(name) = asked.agent_name.filter(|name| !name.is_empty()) {
        let queue = QueueClient::new(&node.handle).show(&own_name(node, &name)).map_err(refused)?;
        return Ok(json!({"success": true, "agent_name": queue.agent, "stats": record(&queue)}));
    }
    let (stats, total) = all_stats(node);
    Ok(json!({"success": true, "total_agents": total, "left_out": total - stats.len(), "stats": stats}))
}

/// What the first agents by name have to do, by agent, and how many agents there are.
pub(super) fn all_stats(node: &ServerState) -> (JsonObject, usize) {
    let queues = QueueClient::new(&node.handle).list().queues;
    let stats = queues.iter().take(LIMIT_MAX).map(|queue| (queue.agent.clone(), record(queue)));
    (stats.collect(), queues.len())
}

/// `pause_agent_queue`, `resume_agent_queue`, `clear_agent_queue`.
pub(super) fn change_one(node: &ServerState, arguments: &JsonObject, change: QueueChange) -> Answer {
    let One { agent_name } = read(arguments)?;
    let queue =
        QueueClient::new(&node.handle).change(&own_name(node, &agent_name), change).map_err(refused)?;
    let message = match queue.cleared {
        Some(cleared) => format!("{cleared} calls that waited for {} were ended", queue.agent),
        None if queue.paused => format!("{} is paused: calls wait until it is resumed", queue.agent),
        None => format!("{} begins calls again", queue.agent),
    };
    let mut answer = object(json!({"success": true, "message": message, "agent_name": queue.agent}));
    answer.extend(queue.cleared.map(|cleared| ("cleared_tasks".into(), cleared.into())));
    answer.insert("stats".into(), record(&queue));
    Ok(Value::Object(answer))
}

/// `pause_all_queues`, `resume_all_queues`, `clear_all_queues`.
pub(super) fn change_all(node: &ServerState, arguments: &JsonObject, change: QueueChange) -> Answer {
    let Nothing {} = read(arguments)?;
    let changed = QueueClient::new(&node.handle).change_all(change);
    let total = changed.queues.len();
    let cleared = changed.cleared.unwrap_or_default();
    let (key, count, message) = match change {
        QueueChange::Pause => ("successful_pauses", total, format!("{total} agents are paused")),
        QueueChange::Resume => ("successful_resumes", total, format!("{total} agents begin calls again")),
        QueueChange::Clear => ("total_cleared", cleared, format!("{cleared} waiting calls were ended")),
    };
    let result = |queue: &Queue| (queue.agent.clone(), queue.cleared.map_or(Value::Bool(true), Value::from));
    let results: JsonObject = changed.queues.iter().take(LIMIT_MAX).map(result).collect();
    Ok(json!({
        "success": true,
        "message": message,
        "total_agents": total,
        "left_out": total - results.len(),
        "results": results,
        key: count,
    }))
}

/// The agent of a tool of this node, or whatever else names one.
fn own_name(node: &ServerState, name: &str) -> String {
    node.catalog.tools().own(name).map_or_else(|| name.to_owned(), |own| own.agent.to_string())
}

/// A queue in the words of the authors, and in ours.
fn record(queue: &Queue) -> Value {
    let at_hand = (queue.running + queue.queued) as u64;
    json!({
        "total_tasks": queue.completed + queue.failed + at_hand,
        "completed_tasks": queue.completed,
        "failed_tasks": queue.failed,
        "pending_tasks": queue.queued,
        "processing_tasks": queue.running,
        // Seconds. Theirs is 0 before the first; ours says that there is none.
        "average_processing_time": queue.mean_work_ms.unwrap_or_default() / 1_000.0,
        "queue_size": queue.queued,
        "queue_status": if queue.paused { "paused" } else { "running" },
        "running": queue.running,
        "queued": queue.queued,
        "places": queue.places,
        "paused": queue.paused,
        "mean_work_ms": queue.mean_work_ms,
        "failing": queue.failing,
        "completed": queue.completed,
        "failed": queue.failed,
    })
}
