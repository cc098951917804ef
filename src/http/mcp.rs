//! `/mcp`: an MCP server behind the same pipeline as every route, with the limits that its library lacks.
//!
//! Sessions, event streams, bodies and requests at work are counted against named limits; a limit is judged before
//! any handler runs. Host, Origin and token were judged by the pipeline, so an Origin that comes this far may read the
//! answer. At a stop, streams that listen are told so, then everything else is cut.

mod card;
mod events;
mod limits;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use futures::StreamExt;
use rmcp::ServerHandler;
use rmcp::transport::streamable_http_server::session::local::{LocalSessionManager, SessionConfig};
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use self::events::EventFilter;
use self::limits::{Limited, McpLimits};
use super::body;
use super::failure::Failure;
use crate::agents::CALL_BYTES_MAX;
use crate::proto::code::Code;
use crate::telemetry::metrics::Metrics;

/// Largest body: the largest input of a call and its envelope.
const BODY_BYTES_MAX: usize = CALL_BYTES_MAX + 64 * 1024;
/// Bodies at work at once, KiB: ten of the largest, or thousands of the usual ones. A parsed body may take thirty times
/// its length, and all of them together a gigabyte.
const BODIES_KIB_MAX: usize = 32 * 1024;
/// Sessions of clients of the older revisions. One holds about 50 KiB; more than a thousand desktops use no one node.
const SESSIONS_MAX: usize = 1_000;
/// A session that asks nothing for this long is closed: people think for minutes, few for half an hour.
const SESSION_IDLE_MAX: Duration = Duration::from_secs(30 * 60);
/// Event streams open at once. Each holds a connection, and the server has 1024.
const STREAMS_MAX: usize = 256;
/// How long listeners have to be told of a stop before their connections are cut.
const FAREWELL: Duration = Duration::from_millis(250);

const SESSION_ID: &str = "mcp-session-id";
/// What a page of an allowed origin may send and read.
const CORS_METHODS: &str = "GET, POST, DELETE, OPTIONS";
const CORS_SENT: &str = "authorization, content-type, accept, last-event-id, mcp-session-id, mcp-protocol-version, \
                         mcp-method, mcp-name";
const CORS_READ: &str = "mcp-session-id, mcp-protocol-version, www-authenticate";
/// Longest refusal of the library that is passed on, bytes; its own are a line.
const REFUSAL_BYTES_MAX: usize = 16 * 1024;
/// The first revision that knows events without data: they prime a client to come back to a stream.
const EMPTY_EVENTS_SINCE: &str = "2025-11-25";
/// Seconds for which a browser remembers that.
const CORS_AGE: &str = "600";

/// Routes of an MCP server; `closing` ends its sessions and streams.
pub(super) fn router<H: ServerHandler + Clone>(
    handler: H,
    closing: watch::Receiver<bool>,
    metrics: Arc<Metrics>,
) -> Router {
    let mount = Arc::new(Mount::new(handler, closing, metrics, (SESSIONS_MAX, SESSION_IDLE_MAX)));
    Router::new()
        .route("/mcp", any(answer::<H>))
        // Frameworks that mount an app write their addresses so, and people copy them.
        .route("/mcp/", any(answer::<H>))
        .route("/mcp/server-card", get(card::card))
        .with_state(mount)
}

/// One MCP server on its route.
struct Mount<H> {
    service: StreamableHttpService<Limited<H>, LocalSessionManager>,
    sessions: Arc<LocalSessionManager>,
    sessions_max: usize,
    streams: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
}

impl<H: ServerHandler + Clone> Mount<H> {
    fn new(
        handler: H,
        closing: watch::Receiver<bool>,
        metrics: Arc<Metrics>,
        (sessions_max, idle): (usize, Duration),
    ) -> Mount<H> {
        let mut session = SessionConfig::default();
        session.keep_alive = Some(idle);
        let mut sessions = LocalSessionManager::default();
        sessions.session_config = session;
        let sessions = Arc::new(sessions);
        let stopped = CancellationToken::new();
        let config = StreamableHttpServerConfig::default()
            // One document where nothing but the answer is sent: it needs no stream.
            .with_json_response(true)
            // The pipeline has judged both by the rules of this node, which a list of names cannot express.
            .disable_allowed_hosts()
            .disable_allowed_origins()
            .with_max_request_body_bytes(BODY_BYTES_MAX)
            .with_cancellation_token(stopped.clone());
        let streams = Arc::new(Semaphore::new(STREAMS_MAX));
        // Streams of sessions and those of the newest revision take the same places.
        let limits = McpLimits::new(streams.clone(), closing.clone(), metrics);
        let limited = move || Ok(Limited::new(handler.clone(), limits.clone()));
        let service = StreamableHttpService::new(limited, sessions.clone(), config);
        tokio::spawn(stop(closing, stopped));
        Mount { service, sessions, sessions_max, streams, bodies: Arc::new(Semaphore::new(BODIES_KIB_MAX)) }
    }

    async fn pass(&self, request: Request) -> Result<Response, Failure> {
        // A body or a stream is what a client can make the node hold; other methods hold neither.
        let by_header = revision_of(request.headers());
        let (request, place, asked) = match *request.method() {
            Method::POST => self.take_body(request).await?,
            Method::GET => (request, self.take_stream()?, None),
            _ => (request, None, None),
        };
        let is_delete = request.method() == Method::DELETE;
        let mut response = self.service.handle(request).await.map(Body::new);
        // Nothing of the session goes on, and clients take "accepted" for a failure.
        if is_delete && response.status() == StatusCode::ACCEPTED {
            *response.status_mut() = StatusCode::NO_CONTENT;
        }
        let revision = asked.or(by_header);
        let drops_empty = revision.is_none_or(|revision| revision.as_str() < EMPTY_EVENTS_SINCE);
        Ok(hold(in_error_shape(response).await, place, EventFilter::new(drops_empty)))
    }

    /// A place for a stream on which the server speaks by itself. Those of the newest revision are counted where they
    /// listen.
    fn take_stream(&self) -> Result<Option<OwnedSemaphorePermit>, Failure> {
        let place = self.streams.clone().try_acquire_owned();
        place.map(Some).map_err(|_| Failure::busy("event streams", STREAMS_MAX))
    }

    /// The request with its body in memory, the place that the body takes there, and the revision that it asks for.
    async fn take_body(&self, request: Request) -> Result<Taken, Failure> {
        // The pipeline has read it, so that its size is known.
        let place = self.bodies.clone().try_acquire_many_owned(kib(request.body()));
        let place = place.map_err(|_| Failure::busy("KiB of requests", BODIES_KIB_MAX))?;
        let (head, body) = request.into_parts();
        let bytes = body::read(body, BODY_BYTES_MAX, "call with less, or give the agent a URL").await?;
        // After the body, because only it says whether a session is to be opened.
        let opening = Opening::read(&bytes);
        self.judge_session(&head.headers, opening.is_some()).await?;
        let revision = opening.and_then(|opening| opening.params.revision);
        Ok((Request::from_parts(head, Body::from(with_arguments(bytes))), Some(place), revision))
    }

    /// Refuses a new session where there are enough. Some may come in between: as many as requests are at work.
    async fn judge_session(&self, headers: &HeaderMap, opens: bool) -> Result<(), Failure> {
        // The library counts no sessions: memory would grow with every `initialize`.
        if headers.contains_key(SESSION_ID) || self.sessions.sessions.read().await.len() < self.sessions_max {
            return Ok(());
        }
        match opens {
            false => Ok(()),
            true => Err(Failure::new(
                Code::Unavailable,
                format!("{} MCP sessions are open", self.sessions_max),
                "close one with DELETE, wait until idle ones are closed, or use revision 2026-07-28, which has none",
            )),
        }
    }
}

/// KiB of memory that a body takes, or the most where its size is not known.
fn kib(body: &Body) -> u32 {
    let size = body.size_hint().exact().and_then(|size| usize::try_from(size).ok());
    // One more, so that many small bodies count as well; the minimum keeps the cast safe.
    (size.unwrap_or(BODY_BYTES_MAX).min(BODY_BYTES_MAX) / 1024 + 1) as u32
}

/// A refusal of the library is a text; all other errors of this API are JSON.
async fn in_error_shape(response: Response) -> Response {
    let status = response.status();
    let is_text = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_none_or(|kind| kind.to_str().is_ok_and(|kind| kind.starts_with("text/plain")));
    if !(status.is_client_error() || status.is_server_error()) || !is_text {
        return response;
    }
    let text = axum::body::to_bytes(response.into_body(), REFUSAL_BYTES_MAX).await.unwrap_or_default();
    Failure::foreign(status, String::from_utf8_lossy(&text).trim()).into_response()
}

/// A request, the place of its body, and the revision that it asks for.
type Taken = (Request, Option<OwnedSemaphorePermit>, Option<String>);

/// What opens a session.
#[derive(Deserialize)]
struct Opening {
    method: String,
    #[serde(default)]
    params: OpeningParams,
}

#[derive(Default, Deserialize)]
struct OpeningParams {
    #[serde(default, rename = "protocolVersion")]
    revision: Option<String>,
}

impl Opening {
    fn read(body: &[u8]) -> Option<Opening> {
        serde_json::from_slice::<Opening>(body).ok().filter(|opening| opening.method == "initialize")
    }
}

fn revision_of(headers: &HeaderMap) -> Option<String> {
    headers.get("mcp-protocol-version").and_then(|revision| revision.to_str().ok()).map(str::to_owned)
}

/// The body, in which arguments that a model wrote as a text of JSON are the object that the text holds.
fn with_arguments(body: Vec<u8>) -> Vec<u8> {
    const ARGUMENTS: &[u8] = b"\"arguments\"";
    let mut places = body.windows(ARGUMENTS.len()).enumerate().filter(|(_, part)| *part == ARGUMENTS);
    // Looked for first, because parsing costs and nearly all bodies are as they should be.
    let is_text = places.any(|(at, _)| {
        let value = body[at + ARGUMENTS.len()..].trim_ascii_start();
        value.strip_prefix(b":").is_some_and(|value| value.trim_ascii_start().starts_with(b"\""))
    });
    if !is_text {
        return body;
    }
    let Ok(mut message) = serde_json::from_slice::<Value>(&body) else { return body };
    if message["method"] != "tools/call" {
        return body;
    }
    let Some(arguments) = message.pointer_mut("/params/arguments") else { return body };
    let object = arguments.as_str().and_then(|text| match text.trim() {
        "" => Some(Value::Object(Map::new())),
        text => serde_json::from_str::<Value>(text).ok().filter(Value::is_object),
    });
    let Some(object) = object else { return body };
    *arguments = object;
    message.to_string().into_bytes()
}

/// The response, which keeps its place until its stream has ended; a document is whole already.
fn hold(response: Response, place: Option<OwnedSemaphorePermit>, filter: EventFilter) -> Response {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if !kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
        return response;
    }
    response.map(|body| {
        let parts = body.into_data_stream().map(Some).chain(futures::stream::iter([None]));
        let mut filter = filter;
        Body::from_stream(parts.map(move |part| {
            // Captured, so that the place is freed when the stream is dropped, however it ends.
            let _held = &place;
            match part {
                Some(part) => part.map(|part| filter.feed(&part)),
                None => Ok(filter.end()),
            }
        }))
    })
}

async fn stop(mut closing: watch::Receiver<bool>, stopped: CancellationToken) {
    super::closed(&mut closing).await;
    tokio::time::sleep(FAREWELL).await;
    stopped.cancel();
}

async fn answer<H: ServerHandler + Clone>(State(mount): State<Arc<Mount<H>>>, request: Request) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = match *request.method() {
        // Answered here, because the library refuses the method.
        Method::OPTIONS => preflight(),
        _ => mount.pass(request).await.unwrap_or_else(IntoResponse::into_response),
    };
    // Refusals as well: without these headers a page could not read why.
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(CORS_READ));
        // A cache must not give one origin the answer that names another.
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
    }
    response
}

/// Answer to a browser that asks what a page may send.
fn preflight() -> Response {
    let headers = [
        (header::ALLOW, CORS_METHODS),
        (header::ACCESS_CONTROL_ALLOW_METHODS, CORS_METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, CORS_SENT),
        (header::ACCESS_CONTROL_MAX_AGE, CORS_AGE),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Plain;

    impl ServerHandler for Plain {}

    async fn open(mount: &Arc<Mount<Plain>>) -> StatusCode {
        let client =
            r#"{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}"#;
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{client}}}"#);
        let request = Request::post("/mcp")
            .header("host", "localhost")
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        answer(State(mount.clone()), request.body(Body::from(body)).unwrap()).await.status()
    }

    #[tokio::test]
    async fn idle_sessions_make_room_for_others() {
        let (_closing, closed) = watch::channel(false);
        let mount = Arc::new(Mount::new(Plain, closed, Arc::default(), (2, Duration::from_millis(300))));
        assert_eq!((open(&mount).await, open(&mount).await), (StatusCode::OK, StatusCode::OK));
        assert_eq!(open(&mount).await, StatusCode::SERVICE_UNAVAILABLE);
        let room = async {
            while open(&mount).await != StatusCode::OK {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), room).await.unwrap();
    }

    #[test]
    fn a_body_without_a_length_takes_the_place_of_the_largest() {
        let unknown = Body::from_stream(futures::stream::empty::<Result<Vec<u8>, std::io::Error>>());
        assert_eq!(kib(&unknown) as usize, BODY_BYTES_MAX / 1024 + 1);
        assert_eq!(kib(&Body::from(vec![0; 1_500])), 2);
    }
}
