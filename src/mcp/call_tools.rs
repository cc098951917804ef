//! What the tools that call agents, and those that look after tasks, say of themselves.

use rmcp::model::{Tool, ToolAnnotations};
use serde_json::json;

use super::discovery::reads;
use super::schema::object;

/// `call_agent`.
pub(super) fn call_agent() -> Tool {
    let schema = json!({
        "type": "object",
        "properties": {
            "agent": {"type": "string", "description": "full name agent@zone, as search_agents gives it"},
            "task": {"type": "string", "description": "the task, for agents that take one"},
            "input": {"description": "the agent's own input document, instead of task"},
            "timeout": {"type": "number", "exclusiveMinimum": 0, "description": "seconds, 86400 at most"},
            "async": {"type": "boolean", "description": "answer at once with a task_id for get_task_status"},
            "conversation": {"type": "string", "description": "names a conversation: its calls go to one host"},
            "priority": {"type": "integer", "minimum": -128, "maximum": 127, "description": "higher goes first"},
        },
        "required": ["agent"],
        "additionalProperties": false,
    });
    let description = "Call any agent of the world, with a task or with its own input document. What takes long is \
        answered with a task_id: get_task_status has the answer later.";
    let hints = ToolAnnotations::new().read_only(false).open_world(true);
    Tool::new("call_agent", description, object(schema)).with_title("Call an agent").with_annotations(hints)
}

/// `call_agents`.
pub(super) fn call_agents() -> Tool {
    let call = json!({
        "type": "object",
        "properties": {
            "agent": {"type": "string", "description": "full name agent@zone"},
            "task": {"type": "string", "description": "the task, for agents that take one"},
            "input": {"description": "the agent's own input document, instead of task"},
        },
        "required": ["agent"],
        "additionalProperties": false,
    });
    let schema = json!({
        "type": "object",
        "properties": {
            "calls": {"type": "array", "items": call, "maxItems": 1000},
            "timeout": {"type": "number", "exclusiveMinimum": 0, "description": "seconds for all of them, 300 at most"},
        },
        "required": ["calls"],
        "additionalProperties": false,
    });
    let hints = ToolAnnotations::new().read_only(false).open_world(true);
    Tool::new(
        "call_agents",
        "Call many agents at once; results come in the order of the calls.",
        object(schema),
    )
    .with_title("Call several agents")
    .with_annotations(hints)
}

/// `get_task_status`.
pub(super) fn get_task_status() -> Tool {
    let text = |what: &str| json!({"type": "string", "description": what});
    reads(
        "get_task_status",
        "Look at a task",
        "How a task stands, and its answer once it is there. Tasks are calls that take long: call_agent gives their id.",
        json!({
            "task_id": text("as call_agent gave it"),
            "agent_name": text("not needed"),
            "wait": {"type": "number", "minimum": 0, "maximum": 50, "description": "seconds to wait for its end"},
        }),
        &["task_id"],
    )
}

/// `cancel_task`.
pub(super) fn cancel_task() -> Tool {
    let text = |what: &str| json!({"type": "string", "description": what});
    let schema = json!({
        "type": "object",
        "properties": {"task_id": text("as call_agent gave it"), "agent_name": text("not needed")},
        "required": ["task_id"],
        "additionalProperties": false,
    });
    let hints = ToolAnnotations::new().read_only(false).destructive(true).idempotent(true).open_world(true);
    Tool::new("cancel_task", "End a task; the work of its agent stops.", object(schema))
        .with_title("End a task")
        .with_annotations(hints)
}
