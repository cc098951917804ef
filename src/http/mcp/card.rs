//! The server card: where clients of MCP learn that this node is a server. The manifest of the host names it.

use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use rmcp::model::ProtocolVersion;
use serde_json::json;

use crate::http::surface::base;

const CARD: &str = "application/mcp-server-card+json";

/// `GET /mcp/server-card`.
pub(super) async fn card(headers: HeaderMap) -> Response {
    let versions: Vec<&str> = ProtocolVersion::KNOWN_VERSIONS.iter().map(ProtocolVersion::as_str).collect();
    let card = json!({
        "$schema": "https://static.modelcontextprotocol.io/schemas/v1/server-card.schema.json",
        "name": "aop.node/registry",
        "title": "AOP registry node",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "Finds and calls agents of a peer-to-peer registry",
        "remotes": [{
            "type": "streamable-http",
            "url": format!("{}/mcp", base(&headers)),
            "supportedProtocolVersions": versions,
        }],
    });
    ([(header::CONTENT_TYPE, CARD)], card.to_string()).into_response()
}
