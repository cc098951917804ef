//! The server card: where clients of MCP learn that this node is a server, and the catalogue that names the card.

use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use rmcp::model::ProtocolVersion;
use serde_json::json;

const CARD: &str = "application/mcp-server-card+json";
const CATALOG: &str = "application/ai-catalog+json";

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

/// `GET /.well-known/ai-catalog.json`.
pub(super) async fn catalog(headers: HeaderMap) -> Response {
    let entry = json!({
        "identifier": "urn:air:aop.node:mcp:registry",
        "type": CARD,
        "url": format!("{}/mcp/server-card", base(&headers)),
    });
    ([(header::CONTENT_TYPE, CATALOG)], json!({"entries": [entry]}).to_string()).into_response()
}

/// The address under which the client reached this node. Only itself hears what its proxy said of the scheme.
fn base(headers: &HeaderMap) -> String {
    let secure = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
    // The pipeline has judged it.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    format!("{}://{host}", if secure { "https" } else { "http" })
}
