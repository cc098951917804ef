//! Resources: `agent://ZONE/NAME` is everything known of an agent, `zone://ZONE` the state of a zone that this node
//! holds. Held zones and their agents are listed; any agent of the registry can be read.

use rmcp::ErrorData;
use rmcp::model::{Resource, ResourceContents, ResourceTemplate};
use serde_json::{Value, json};

use super::ServerState;
use super::discovery::advice;
use crate::api::{Agent, ApiError};
use crate::proto::code::Code;
use crate::proto::name::FullName;
use crate::sanitize::{clean_json, clean_short};

/// Resources a page.
const PAGE: usize = 100;
/// Longest description in the list, bytes.
const LINE_BYTES_MAX: usize = 320;
const AGENT: &str = "agent://";
const ZONE: &str = "zone://";
const JSON: &str = "application/json";

/// What can be read beside what is listed.
pub(super) fn templates() -> Vec<ResourceTemplate> {
    vec![
        ResourceTemplate::new("agent://{zone}/{name}", "agent")
            .with_description("Everything known of the agent name@zone")
            .with_mime_type(JSON),
        ResourceTemplate::new("zone://{zone}", "zone")
            .with_description("State of a zone that this node holds")
            .with_mime_type(JSON),
    ]
}

/// The page after `cursor`.
pub(super) async fn page(
    node: &ServerState,
    cursor: Option<String>,
) -> Result<(Vec<Resource>, Option<String>), ErrorData> {
    let is_first = cursor.is_none();
    let page = node.handle.agents(None, PAGE, cursor).await.map_err(|error| match error.code {
        Code::BadRequest => ErrorData::invalid_params(error.message, None),
        _ => internal(error),
    })?;
    // Zones are few and stand on the first page, so that a cursor need only name an agent.
    let mut resources = if is_first { zones(node).await? } else { Vec::new() };
    // Of several owners' agents of one name the uri means one, or none of them.
    resources.extend(page.results.iter().filter_map(|agent| listed(node, agent)));
    Ok((resources, page.cursor))
}

fn listed(node: &ServerState, agent: &Agent) -> Option<Resource> {
    let name: FullName = agent.agent.parse().ok()?;
    let described = node.shown(&agent.owner, &agent.description, LINE_BYTES_MAX);
    let title = agent.original_name.as_deref().map(|title| clean_short(title, LINE_BYTES_MAX));
    let resource =
        Resource::new(uri(&name), name.to_string()).with_description(described).with_mime_type(JSON);
    Some(match title {
        Some(title) => resource.with_title(title),
        None => resource,
    })
}

async fn zones(node: &ServerState) -> Result<Vec<Resource>, ErrorData> {
    let status = node.handle.status().await.map_err(internal)?;
    let listed = |zone: &str| {
        let resource = Resource::new(format!("{ZONE}{zone}"), zone);
        resource.with_description("State of a zone that this node holds").with_mime_type(JSON)
    };
    Ok(status.zones.iter().map(|zone| listed(&zone.zone)).collect())
}

fn uri(name: &FullName) -> String {
    format!("{AGENT}{}/{}", name.zone.as_str(), name.agent.as_str())
}

/// What lies under `uri`.
pub(super) async fn read(node: &ServerState, uri: &str) -> Result<ResourceContents, ErrorData> {
    let document = match (uri.strip_prefix(AGENT), uri.strip_prefix(ZONE)) {
        (Some(path), _) => agent(node, path).await?,
        (_, Some(zone)) => held_zone(node, zone).await?,
        _ => None,
    };
    let document = document.ok_or_else(|| {
        let shown = clean_short(uri, LINE_BYTES_MAX);
        ErrorData::resource_not_found(format!("there is no resource {shown}"), Some(json!({"uri": uri})))
    })?;
    // Cleaned as a whole: any part of it may come from another host.
    Ok(ResourceContents::text(clean_json(document).to_string(), uri).with_mime_type(JSON))
}

async fn agent(node: &ServerState, path: &str) -> Result<Option<Value>, ErrorData> {
    let name = path.split_once('/').map(|(zone, name)| format!("{name}@{zone}"));
    let Some(name) = name.and_then(|name| name.parse::<FullName>().ok()) else { return Ok(None) };
    match node.handle.show(&name.to_string()).await {
        Ok(mut detail) => {
            let shown = node.shown(&detail.agent.owner, &detail.agent.description, usize::MAX);
            detail.agent.description = shown;
            Ok(Some(serde_json::to_value(detail).unwrap_or_default()))
        }
        Err(error) if error.code == Code::NotFound => Ok(None),
        Err(error) => Err(internal(error)),
    }
}

async fn held_zone(node: &ServerState, zone: &str) -> Result<Option<Value>, ErrorData> {
    let status = node.handle.status().await.map_err(internal)?;
    let held = status.zones.into_iter().find(|held| held.zone == zone);
    Ok(held.map(|held| serde_json::to_value(held).unwrap_or_default()))
}

fn internal(error: ApiError) -> ErrorData {
    let advice = advice(error.code, &error.fix);
    ErrorData::internal_error(format!("{}; {advice}", error.message), None)
}
