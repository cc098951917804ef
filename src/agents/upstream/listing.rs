//! The tools of one server, read from its `tools/list`, page after page.
//!
//! The list is read as plain JSON: one tool that breaks the specification must not hide the others. What a card cannot
//! hold is cut or replaced, with a warning.

use std::collections::{BTreeMap, BTreeSet};

use rmcp::model::{ClientRequest, ErrorCode, ListToolsRequest, PaginatedRequestParams, ServerResult};
use rmcp::service::{Peer, RoleClient, ServiceError};
use serde_json::Value;

use super::Tool;
use crate::document::loosened;
use crate::proto::limits::DESCRIPTION_BYTES_MAX;

/// Pages of a list: a hundred of the smallest pages in use (10 tools) fill [`TOOLS_MAX`].
const PAGES_MAX: usize = 100;
/// Tools of one server: ten times what any model host shows, and with the sizes below at most 40 MiB.
const TOOLS_MAX: usize = 1_000;
/// Bytes of a tool's name, as MCP advises.
const NAME_BYTES_MAX: usize = 128;
/// Bytes of a title: a line.
const TITLE_BYTES_MAX: usize = 256;

/// Reads the whole list, sorted by name; empty for a server that has prompts and resources alone.
pub(super) async fn read(peer: &Peer<RoleClient>) -> Result<Vec<Tool>, ServiceError> {
    let mut tools = BTreeMap::new();
    let (mut cursor, mut seen) = (None::<String>, BTreeSet::new());
    for _ in 0..PAGES_MAX {
        let is_first = cursor.is_none();
        let mut page = match read_page(peer, cursor.take()).await {
            Ok(page) => page,
            Err(error) if is_first && has_no_tools(peer, &error) => return Ok(Vec::new()),
            // What was read is worth more than nothing; a connection that broke is another matter.
            Err(ServiceError::McpError(_)) if !is_first => {
                tracing::warn!("an MCP server refuses the rest of its tools");
                break;
            }
            Err(error) => return Err(error),
        };
        let next = page.get("nextCursor").and_then(Value::as_str).unwrap_or_default().to_owned();
        // An empty one is how some libraries write that there is none, and one that was followed leads in a circle.
        cursor = Some(next).filter(|next| !next.is_empty() && seen.insert(next.clone()));
        let raw = match page.get_mut("tools").map(Value::take) {
            Some(Value::Array(raw)) => raw,
            _ => return Err(ServiceError::UnexpectedResponse),
        };
        // Compiling schemas that somebody else wrote takes as long as they like.
        let span = tracing::Span::current();
        let read = move || {
            let _entered = span.enter();
            // Of each page too, because one page may hold any number of tools.
            raw.iter().take(TOOLS_MAX).filter_map(read_tool).collect::<Vec<_>>()
        };
        for tool in tokio::task::spawn_blocking(read).await.unwrap_or_default() {
            // The first of a name counts, as among servers: later pages cannot replace it.
            tools.entry(tool.name.clone()).or_insert(tool);
        }
        if cursor.is_none() || tools.len() >= TOOLS_MAX {
            break;
        }
    }
    if cursor.is_some() || tools.len() > TOOLS_MAX {
        tracing::warn!(TOOLS_MAX, PAGES_MAX, "an MCP server lists too many tools; the rest is left out");
    }
    Ok(tools.into_values().take(TOOLS_MAX).collect())
}

/// Whether the server says that it lists none at all.
fn has_no_tools(peer: &Peer<RoleClient>, error: &ServiceError) -> bool {
    let ServiceError::McpError(error) = error else { return false };
    let says_none = || peer.peer_info().is_some_and(|server| server.capabilities.tools.is_none());
    error.code == ErrorCode::METHOD_NOT_FOUND || says_none()
}

async fn read_page(peer: &Peer<RoleClient>, cursor: Option<String>) -> Result<Value, ServiceError> {
    let request = ListToolsRequest {
        method: Default::default(),
        params: Some(PaginatedRequestParams::default().with_cursor(cursor)),
        extensions: Default::default(),
    };
    match peer.send_request(ClientRequest::ListToolsRequest(request)).await? {
        ServerResult::CustomResult(page) => Ok(page.0),
        page => serde_json::to_value(page).map_err(|_| ServiceError::UnexpectedResponse),
    }
}

fn read_tool(raw: &Value) -> Option<Tool> {
    let text = |key: &str| raw.get(key).and_then(Value::as_str);
    let name = text("name").unwrap_or_default();
    // Cut, a name would call another tool or none, so it is not cut like the other texts.
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(char::is_control) {
        tracing::warn!(NAME_BYTES_MAX, "a tool of an MCP server has no usable name; it is left out");
        return None;
    }
    let schema = |key: &str| Some(read_schema(name, key, raw.get(key).filter(|schema| schema.is_object())?));
    let title = text("title").or_else(|| raw.pointer("/annotations/title")?.as_str());
    Some(Tool {
        name: name.to_owned(),
        title: title.map(|title| cut(title, TITLE_BYTES_MAX).to_owned()),
        description: cut(text("description").unwrap_or_default(), DESCRIPTION_BYTES_MAX).to_owned(),
        input_schema: of_object(schema("inputSchema").unwrap_or_default()),
        output_schema: schema("outputSchema"),
    })
}

/// A tool takes an object, whatever was left of its schema.
fn of_object(mut schema: Value) -> Value {
    if schema.get("type").is_none() {
        schema["type"] = "object".into();
    }
    schema
}

/// What can be used of a schema. The server judges its input itself, so less of it is no harm.
fn read_schema(tool: &str, key: &str, schema: &Value) -> Value {
    let (part, left_out) = loosened(schema);
    if !left_out.is_empty() {
        let left_out = left_out.join(", ");
        tracing::warn!(tool, left_out, "the {key} of a tool of an MCP server is used without what cannot be");
    }
    part
}

/// The longest beginning of the text that fits.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}
