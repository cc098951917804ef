//! The standards that this server speaks beside its own API: which paths are whose, who may read them, and in which shape
//! their clients are told of an error.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::a2a;
use crate::api::ApiError;

/// The origin of Visual Studio Code, which no page of the web can have.
const EDITOR_ORIGIN: &str = "vscode-file://vscode-app";
/// How long a browser keeps what it was told of this, seconds.
const CORS_AGE: &str = "600";
/// How long readers keep a document before they ask whether it has changed: less than a change takes through the mesh is little
/// use, and longer shows agents that are gone.
const CACHED: &str = "max-age=60";
/// Bytes of the hash that tells whether a document has changed.
const ETAG_BYTES: usize = 16;

/// Who may read what catalogues show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RegistryAccess {
    /// Whoever may use the node, and the editor that runs beside it.
    #[default]
    Own,
    /// Everybody, from every page, without the token.
    Public,
}

/// What a path is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Surface {
    /// This node's own API, its page and MCP.
    Node,
    /// The reading API of the MCP registry.
    McpRegistry,
    /// Agentic Resource Discovery: the manifest and the registry.
    Ard,
    /// An A2A server.
    A2a,
    /// Its card.
    A2aCard,
}

impl Surface {
    pub(super) fn of(path: &str) -> Surface {
        let is_below =
            |base: &str| path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        match path {
            "/.well-known/ard.json" | "/.well-known/ai-catalog.json" | "/robots.txt" => Surface::Ard,
            _ if is_below("/ard") => Surface::Ard,
            _ if is_below("/v0.1/servers") => Surface::McpRegistry,
            _ if is_below("/a2a") && path.contains("/.well-known/agent") => Surface::A2aCard,
            _ if is_below("/a2a") => Surface::A2a,
            _ => Surface::Node,
        }
    }

    /// Whether a request of this method changes nothing here, so that it may be open to everybody.
    pub(super) fn is_reading(self, method: &Method) -> bool {
        match self {
            Surface::Node | Surface::A2a => false,
            Surface::McpRegistry | Surface::A2aCard => {
                matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
            }
            // A search is a POST.
            Surface::Ard => true,
        }
    }

    /// Whether a body of this media type is taken, none of which a form of a page can send.
    pub(super) fn takes(self, media_type: &str) -> bool {
        let is_json = media_type.eq_ignore_ascii_case("application/json");
        is_json || self == Surface::A2a && media_type.eq_ignore_ascii_case("application/a2a+json")
    }

    /// Whether the editor asks for this.
    pub(super) fn is_asked_by_editor(self, headers: &HeaderMap) -> bool {
        self == Surface::McpRegistry && is_editor(headers)
    }

    /// An error in the shape that clients of this standard read.
    pub(super) fn shape(self, mut response: Response) -> Response {
        let Some(error) = response.extensions_mut().remove::<ApiError>() else { return response };
        let status = response.status();
        let told = match self {
            Surface::Node => return response,
            Surface::McpRegistry => mcp_registry_error(status, &error),
            Surface::Ard => json!({"errorCode": ard_code(status), "message": sentence(&error)}),
            Surface::A2a | Surface::A2aCard => a2a::error::of_pipeline(status, &error),
        };
        // The router has written that of the body which it had.
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.map(|_| Body::from(told.to_string()))
    }
}

/// The schema has `error`, the official server `title` and its siblings; clients read the status.
fn mcp_registry_error(status: StatusCode, error: &ApiError) -> Value {
    let (title, detail) = (status.canonical_reason().unwrap_or_default(), sentence(error));
    json!({"error": detail, "title": title, "status": status.as_u16(), "detail": detail})
}

fn ard_code(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "UNAUTHENTICATED",
        StatusCode::FORBIDDEN => "PERMISSION_DENIED",
        StatusCode::NOT_FOUND => "NOT_FOUND",
        StatusCode::TOO_MANY_REQUESTS => "RATE_LIMIT_EXCEEDED",
        StatusCode::SERVICE_UNAVAILABLE => "UNAVAILABLE",
        status if status.is_server_error() => "INTERNAL_ERROR",
        _ => "INVALID_ARGUMENT",
    }
}

/// What happened and what to do.
pub(super) fn sentence(error: &ApiError) -> String {
    match error.fix.is_empty() {
        true => error.message.clone(),
        false => format!("{}; {}", error.message, error.fix),
    }
}

/// Pages read an answer only where it says that they may.
pub(super) async fn say_who_may_read(
    State(access): State<RegistryAccess>,
    request: Request,
    next: Next,
) -> Response {
    let surface = Surface::of(request.uri().path());
    let is_editor = surface.is_asked_by_editor(request.headers());
    let mut response = next.run(request).await;
    let allowed = match access {
        RegistryAccess::Public => Some("*"),
        RegistryAccess::Own => is_editor.then_some(EDITOR_ORIGIN),
    };
    if let Some(allowed) = allowed {
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static(allowed));
        response.headers_mut().append(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}

/// Answer to a browser that asks what a page may send to a catalogue.
pub(super) async fn preflight(request: Request) -> Response {
    let methods = match Surface::of(request.uri().path()) {
        Surface::Ard => "GET, POST, OPTIONS",
        Surface::Node | Surface::McpRegistry | Surface::A2a | Surface::A2aCard => "GET, OPTIONS",
    };
    let told = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, methods),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, Content-Type"),
        (header::ACCESS_CONTROL_MAX_AGE, CORS_AGE),
    ];
    (StatusCode::NO_CONTENT, told).into_response()
}

fn is_editor(headers: &HeaderMap) -> bool {
    headers.get(header::ORIGIN).is_some_and(|origin| origin == EDITOR_ORIGIN)
}

/// The address under which the client reached this node. Only itself hears what its proxy said of the scheme.
pub(super) fn base(headers: &HeaderMap) -> String {
    let secure = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
    // The pipeline has judged it.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    format!("{}://{host}", if secure { "https" } else { "http" })
}

/// A document that changes seldom: readers that have it are told so in a line.
pub(super) fn cacheable(asked: &HeaderMap, kind: &'static str, document: String) -> Response {
    let tag = format!("\"{}\"", HEXLOWER.encode(&Sha256::digest(&document)[..ETAG_BYTES]));
    let told = [(header::ETAG, tag.as_str()), (header::CACHE_CONTROL, CACHED), (header::CONTENT_TYPE, kind)];
    let known = asked.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok()).unwrap_or_default();
    let is_known =
        known.split(',').any(|known| known.trim().trim_start_matches("W/") == tag || known.trim() == "*");
    match is_known {
        true => (StatusCode::NOT_MODIFIED, told).into_response(),
        false => (told, document).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_known_by_their_first_parts() {
        for (path, surface) in [
            ("/v0.1/servers", Surface::McpRegistry),
            ("/v0.1/servers/a%2Fb/versions", Surface::McpRegistry),
            ("/v0.1/serversx", Surface::Node),
            ("/v0.1", Surface::Node),
            ("/ard/search", Surface::Ard),
            ("/.well-known/ard.json", Surface::Ard),
            ("/ardor", Surface::Node),
            ("/a2a/echo", Surface::A2a),
            ("/a2a/echo/.well-known/agent-card.json", Surface::A2aCard),
            ("/v1/find", Surface::Node),
        ] {
            assert_eq!(Surface::of(path), surface, "{path}");
        }
    }
}
