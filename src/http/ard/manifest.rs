//! What a host says of itself where everybody looks: the manifest, under both names that clients ask for, and the file that
//! leads there.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Ard;
use super::entry::{entry, of_node};
use super::identifier::NodeEntry;
use crate::host::CatalogClient;
use crate::http::failure::Failure;
use crate::http::surface::{base, cacheable};

/// Where the manifest is.
pub(super) const PATH: &str = "/.well-known/ard.json";
/// Where clients of the AI catalogue look for it.
pub(super) const CATALOG_PATH: &str = "/.well-known/ai-catalog.json";
/// Agents that it names; the search knows the rest.
const AGENTS_MAX: usize = 1_000;

/// `GET /.well-known/ard.json`, and the same at `ai-catalog.json`.
pub(super) async fn manifest(State(ard): State<Arc<Ard>>, headers: HeaderMap) -> Result<Response, Failure> {
    let (key, base) = (ard.handle.key(), base(&headers));
    let agents = CatalogClient::new(&ard.handle).running_here(AGENTS_MAX).await?;
    let of_node = NodeEntry::ALL.map(|it| of_node(key, it, &base));
    let agents = agents.iter().map(|agent| entry(agent, &base));
    let entries: Vec<Value> =
        of_node.into_iter().chain(agents).map(|shown| Value::Object(shown.whole())).collect();
    let manifest = json!({
        // Without it some readers take nothing.
        "specVersion": "1.0",
        "host": {"displayName": "AOP registry node", "identifier": super::identifier::publisher(key)},
        "entries": entries,
    });
    Ok(cacheable(&headers, "application/json", manifest.to_string()))
}

/// `GET /robots.txt`: whoever crawls finds the manifest, and has no business elsewhere.
pub(super) async fn robots(headers: HeaderMap) -> Response {
    let text =
        format!("User-agent: *\nDisallow: /\nAllow: /.well-known/\nAgentmap: {}{PATH}\n", base(&headers));
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}
