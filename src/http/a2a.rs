//! A2A servers, 1.0 and 0.3 (<https://a2a-protocol.org>): every agent that this host runs and every other agent of the mesh that
//! can be called, at `/a2a/AGENT`, where its card is, too. JSON-RPC in both versions, and the HTTP binding of 1.0.
//!
//! Nothing is kept here: tasks are those of the node, which last over a restart, and a context is a conversation, whose calls
//! go to one host while it is there.

mod card;
pub(super) mod error;
mod request;
mod work;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use form_urlencoded::parse;
use futures::StreamExt;
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use self::error::{A2aError, ErrorKind};
use self::request::{Request, other_version, version_of};
use self::work::{Follower, answer};
use super::body;
use super::failure::Failure;
use super::policy::Asker;
use super::surface::{base, cacheable};
use crate::a2a::{Method, Version};
use crate::agents::CALL_BYTES_MAX;
use crate::host::{CatalogClient, Handle, NamedAgent};
use crate::proto::code::Code;

/// What the HTTP binding speaks.
const KIND: &str = "application/a2a+json";
/// Largest body: the largest input of a call and its envelope.
const BODY_BYTES_MAX: usize = CALL_BYTES_MAX + 64 * 1024;
/// Streams open at once; each holds a connection.
const STREAMS_MAX: usize = 256;
/// A silent stream says this often that it is alive; proxies close after 30 s and more.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const VERSION: &str = "a2a-version";

/// What the routes share.
struct A2a {
    handle: Handle,
    closing: watch::Receiver<bool>,
    streams: Arc<Semaphore>,
    needs_token: bool,
}

pub(super) fn router(handle: Handle, closing: watch::Receiver<bool>, needs_token: bool) -> Router {
    let streams = Arc::new(Semaphore::new(STREAMS_MAX));
    Router::new()
        .route("/a2a/{agent}", post(rpc))
        // Some clients put a slash behind every address.
        .route("/a2a/{agent}/", post(rpc))
        .route("/a2a/{agent}/.well-known/agent-card.json", get(show_card))
        // Where clients of versions before 0.3 look.
        .route("/a2a/{agent}/.well-known/agent.json", get(show_card))
        .route("/a2a/{agent}/extendedAgentCard", get(extended_card))
        .route("/a2a/{agent}/message:send", post(send))
        .route("/a2a/{agent}/message:stream", post(stream))
        .route("/a2a/{agent}/tasks", get(tasks))
        .route("/a2a/{agent}/tasks/{task}", get(task).post(change_task))
        .with_state(Arc::new(A2a { handle, closing, streams, needs_token }))
}

impl A2a {
    /// The agent that is served there.
    async fn agent(&self, named: Result<String, PathRejection>) -> Result<NamedAgent, Failure> {
        let name = named.map_err(|rejection| {
            Failure::new(Code::BadRequest, rejection.body_text(), "percent-encode the agent as one segment")
        })?;
        let named = CatalogClient::new(&self.handle).named(&name).await?;
        if !named.agent.card.callable {
            let message = format!("{} is a listing: it is served outside the mesh", named.agent.name);
            let fix = "its own card says where; `aop adopt` lets a host of the mesh answer for it";
            return Err(Failure::new(Code::NotCallable, message, fix));
        }
        Ok(named)
    }

    fn stream_place(&self) -> Result<OwnedSemaphorePermit, A2aError> {
        self.streams.clone().try_acquire_owned().map_err(|_| {
            A2aError::new(
                ErrorKind::Unavailable,
                format!("{STREAMS_MAX} streams are open already; ask for the task"),
            )
        })
    }
}

type Named = Result<Path<String>, PathRejection>;

fn unpacked(named: Named) -> Result<String, PathRejection> {
    named.map(|Path(name)| name)
}

/// `GET /a2a/{agent}/.well-known/agent-card.json`.
async fn show_card(
    State(a2a): State<Arc<A2a>>,
    asker: Asker,
    headers: HeaderMap,
    named: Named,
) -> Result<Response, Failure> {
    let named = a2a.agent(unpacked(named)).await?;
    if asker == Asker::Anybody && !named.is_public {
        let message = "there is no such agent for everybody";
        return Err(Failure::new(Code::NotFound, message, "send the token of this node"));
    }
    let url = format!("{}/a2a/{}", base(&headers), named.called);
    let card = card::card(&named.agent, &url, a2a.needs_token);
    Ok(cacheable(&headers, "application/json", card.to_string()))
}

/// `POST /a2a/{agent}`: JSON-RPC.
async fn rpc(
    State(a2a): State<Arc<A2a>>,
    headers: HeaderMap,
    named: Named,
    RawQuery(raw): RawQuery,
    body: Body,
) -> Result<Response, Failure> {
    let named = a2a.agent(unpacked(named)).await?;
    let bytes = body::read(body, BODY_BYTES_MAX, "send an address of the data instead of the data").await?;
    let message: Value = match serde_json::from_slice(&bytes) {
        Ok(message) => message,
        Err(error) => {
            let error = A2aError::new(ErrorKind::NotJson, format!("the body is not JSON: {error}"));
            return Ok(refused(&Value::Null, &error, Version::V1));
        }
    };
    let id = message.get("id").filter(|id| id.is_string() || id.is_number()).cloned().unwrap_or_default();
    let asked = named_version(&headers, raw.as_deref());
    let version = version_of(&asked);
    let told_in = version.unwrap_or(Version::V1);
    let request = match version {
        Some(version) => read_rpc(&message, version),
        None => Err(other_version(&asked)),
    };
    let answered = match request {
        Ok(request) => answer(&a2a, &named, &headers, request).await,
        Err(error) => Err(error),
    };
    Ok(match answered.map(|answer| answer.document(told_in)) {
        Ok(Ok(result)) => Json(json!({"jsonrpc": "2.0", "id": id, "result": result})).into_response(),
        Ok(Err(follower)) => {
            let enveloped = move |event: Value| json!({"jsonrpc": "2.0", "id": id, "result": event});
            followed(*follower, told_in, enveloped)
        }
        Err(error) => refused(&id, &error, told_in),
    })
}

fn refused(id: &Value, error: &A2aError, version: Version) -> Response {
    Json(json!({"jsonrpc": "2.0", "id": id, "error": error.rpc(version)})).into_response()
}

fn read_rpc(message: &Value, version: Version) -> Result<Request, A2aError> {
    let method = message.get("method").and_then(Value::as_str);
    let (Some(method), Some("2.0")) = (method, message.get("jsonrpc").and_then(Value::as_str)) else {
        let why = "the body is no request of JSON-RPC 2.0: `jsonrpc` and `method` are needed, and batches are not taken";
        return Err(A2aError::new(ErrorKind::InvalidRequest, why));
    };
    let params = match message.get("params") {
        None | Some(Value::Null) => &Value::Object(Map::new()),
        Some(params @ Value::Object(_)) => params,
        Some(_) => return Err(A2aError::new(ErrorKind::InvalidParams, "`params` is no object")),
    };
    match (Method::parse(method), version) {
        (Some((method, of)), version) if of == version => Request::read(method, params),
        (Some((_, Version::V1)), _) => Err(A2aError::new(
            ErrorKind::OtherVersion,
            format!("`{method}` is of A2A 1.0: send the header `A2A-Version: 1.0`"),
        )),
        _ if method.contains("ushNotification") => Err(no_push()),
        _ if method == "GetExtendedAgentCard" => Err(A2aError::new(ErrorKind::Unsupported, NO_EXTENDED_CARD)),
        _ if method == "agent/getAuthenticatedExtendedCard" => {
            Err(A2aError::new(ErrorKind::NoExtendedCard, NO_EXTENDED_CARD))
        }
        _ => Err(A2aError::new(ErrorKind::NoMethod, "Method not found")),
    }
}

const NO_EXTENDED_CARD: &str = "the card says all there is";

fn no_push() -> A2aError {
    A2aError::new(ErrorKind::NoPushNotifications, "nothing is pushed: follow the stream, or ask for the task")
}

/// The version that a request names, in its header or its query.
fn named_version(headers: &HeaderMap, raw: Option<&str>) -> String {
    let in_header = headers.get(VERSION).map(|version| version.to_str().unwrap_or("?").to_owned());
    let in_query = || {
        let mut query = parse(raw.unwrap_or_default().as_bytes());
        query.find(|(name, _)| name.eq_ignore_ascii_case(VERSION)).map(|(_, version)| version.into_owned())
    };
    in_header.or_else(in_query).unwrap_or_default()
}

/// What becomes of a task, one event after the other.
fn followed(
    follower: Follower,
    version: Version,
    enveloped: impl Fn(Value) -> Value + Send + 'static,
) -> Response {
    let events =
        follower.events().map(move |event| sse::Event::default().json_data(enveloped(event.write(version))));
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

/// `POST /a2a/{agent}/message:send`.
async fn send(
    state: State<Arc<A2a>>,
    headers: HeaderMap,
    named: Named,
    body: Body,
) -> Result<Response, Failure> {
    by_body(state, &headers, named, body, Method::Send).await
}

/// `POST /a2a/{agent}/message:stream`.
async fn stream(
    state: State<Arc<A2a>>,
    headers: HeaderMap,
    named: Named,
    body: Body,
) -> Result<Response, Failure> {
    by_body(state, &headers, named, body, Method::Stream).await
}

async fn by_body(
    State(a2a): State<Arc<A2a>>,
    headers: &HeaderMap,
    named: Named,
    body: Body,
    method: Method,
) -> Result<Response, Failure> {
    let named = a2a.agent(unpacked(named)).await?;
    let bytes = body::read(body, BODY_BYTES_MAX, "send an address of the data instead of the data").await?;
    let params: Result<Value, _> = serde_json::from_slice(&bytes);
    Ok(match params {
        Ok(params) => rest(&a2a, &named, headers, method, &params).await,
        Err(error) => A2aError::new(ErrorKind::NotJson, format!("the body is not JSON: {error}")).rest(),
    })
}

/// `GET /a2a/{agent}/tasks`.
async fn tasks(
    State(a2a): State<Arc<A2a>>,
    headers: HeaderMap,
    named: Named,
    RawQuery(raw): RawQuery,
) -> Result<Response, Failure> {
    let named = a2a.agent(unpacked(named)).await?;
    Ok(rest(&a2a, &named, &headers, Method::ListTasks, &of_query(raw.as_deref())).await)
}

type NamedTask = Result<Path<(String, String)>, PathRejection>;

/// `GET /a2a/{agent}/tasks/{task}`.
async fn task(
    State(a2a): State<Arc<A2a>>,
    headers: HeaderMap,
    named: NamedTask,
    RawQuery(raw): RawQuery,
) -> Result<Response, Failure> {
    let mut params = of_query(raw.as_deref());
    let named = match named {
        Ok(Path((agent, task))) => {
            params["id"] = task.into();
            a2a.agent(Ok(agent)).await?
        }
        Err(rejection) => a2a.agent(Err(rejection)).await?,
    };
    Ok(rest(&a2a, &named, &headers, Method::GetTask, &params).await)
}

/// `POST /a2a/{agent}/tasks/{task}:cancel` and `:subscribe`.
async fn change_task(
    State(a2a): State<Arc<A2a>>,
    headers: HeaderMap,
    named: NamedTask,
) -> Result<Response, Failure> {
    let (agent, task) = match named {
        Ok(Path((agent, task))) => (Ok(agent), task),
        Err(rejection) => (Err(rejection), String::new()),
    };
    let named = a2a.agent(agent).await?;
    let (id, method) = match task.rsplit_once(':') {
        Some((id, "cancel")) => (id, Method::CancelTask),
        Some((id, "subscribe")) => (id, Method::Subscribe),
        Some((_, push)) if push.contains("ushNotification") => return Ok(no_push().rest()),
        _ => {
            return Ok(A2aError::new(
                ErrorKind::NoMethod,
                "`:cancel` and `:subscribe` are what is done to a task",
            )
            .rest());
        }
    };
    Ok(rest(&a2a, &named, &headers, method, &json!({ "id": id })).await)
}

/// `GET /a2a/{agent}/extendedAgentCard`.
async fn extended_card() -> Response {
    A2aError::new(ErrorKind::Unsupported, NO_EXTENDED_CARD).rest()
}

fn of_query(raw: Option<&str>) -> Value {
    let given = parse(raw.unwrap_or_default().as_bytes());
    Value::Object(given.map(|(name, value)| (name.into_owned(), value.into_owned().into())).collect())
}

async fn rest(
    a2a: &A2a,
    named: &NamedAgent,
    headers: &HeaderMap,
    method: Method,
    params: &Value,
) -> Response {
    let asked = named_version(headers, None);
    // The binding is of 1.0: who names no version can mean no other.
    if !asked.is_empty() && version_of(&asked) != Some(Version::V1) {
        return other_version(&asked).rest();
    }
    let answered = match Request::read(method, params) {
        Ok(request) => answer(a2a, named, headers, request).await,
        Err(error) => Err(error),
    };
    match answered.map(|answer| answer.document(Version::V1)) {
        Ok(Ok(document)) => ([(header::CONTENT_TYPE, KIND)], document.to_string()).into_response(),
        Ok(Err(follower)) => followed(*follower, Version::V1, |event| event),
        Err(error) => error.rest(),
    }
}
