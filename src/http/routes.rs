//! The routes: each takes its request apart, asks the [`Handle`] once, and puts the answer together.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderValue, Method, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use tokio::sync::{Semaphore, watch};

use super::body;
use super::call;
use super::events;
use super::failure::Failure;
use super::health::ServerCounts;
use super::imports;
use super::page;
use super::query;
use super::queues;
use super::tasks;
use super::zones;
use crate::api::{
    Diagnosis, History, Owner, Owners, Peers, Refused, RegisterAnswer, Registered, SeenCalls, Status,
    TrustOwner,
};
use crate::document::{self, Reading, Refusal, documents_in, read_all};
use crate::host::{AgentReads, Handle, HealthClient};
use crate::proto::code::Code;
use crate::proto::name::ZoneName;

/// Largest body of documents, bytes: the whole public MCP registry fits in one request.
const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bodies in memory at once; more wait. Four of 32 MiB and their parsed form stay under half a gigabyte.
const UPLOADS_MAX: usize = 4;
/// Largest body that names an owner, bytes: a PeerId has 52.
const OWNER_BYTES_MAX: usize = 1024;
/// Nobody who can send a document makes the node run anything.
const NOT_RUN: &str = "`[agent.run]` takes effect only in a file given to the node with `--agents PATH`; this is \
                       registered as a listing, which nobody can call";
/// The description of the API, for generators of clients.
const OPENAPI: &str = include_str!("openapi.json");

pub(super) type Answer<T> = Result<Json<T>, Failure>;
/// JSON that is made.
struct Made(Vec<u8>);

impl IntoResponse for Made {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], self.0).into_response()
    }
}

/// A document as it was read.
type Document = Result<Reading, Refusal>;

/// What the handlers share.
pub(super) struct Api {
    pub(super) handle: Handle,
    pub(super) closing: watch::Receiver<bool>,
    pub(super) streams: Arc<Semaphore>,
    pub(super) call_streams: Arc<Semaphore>,
    pub(super) batches: Semaphore,
    uploads: Semaphore,
}

/// All routes over `handle`, and those of `mcp`; `closing` ends the event streams, whose places are counted in `counts`.
pub(super) fn router(
    handle: Handle,
    closing: watch::Receiver<bool>,
    counts: &ServerCounts,
    mcp: Router,
) -> Router {
    let api = Api {
        handle,
        closing,
        streams: counts.events.clone(),
        call_streams: counts.calls.clone(),
        batches: Semaphore::new(call::BATCHES_MAX),
        uploads: Semaphore::new(UPLOADS_MAX),
    };
    Router::new()
        .route("/", get(page::page))
        .route("/v1/find", get(find))
        .route("/v1/agents", get(agents).post(register))
        // A wildcard, so that original names such as `ai.exa/exa` need no escaping.
        .route("/v1/agents/{*agent}", get(show).delete(deregister))
        .route("/v1/adopt/{*agent}", post(adopt))
        .route("/v1/call/{*agent}", post(call::call))
        .route("/v1/batch", post(call::batch))
        .route("/v1/tasks", get(tasks::list))
        .route("/v1/tasks/{id}", get(tasks::show).delete(tasks::cancel))
        .route("/v1/queues", get(queues::list))
        // One route for what is done to all and for an agent: an agent may have the name of what is done.
        .route("/v1/queues/{agent}", get(queues::show).post(queues::change_all))
        .route("/v1/queues/{agent}/{change}", post(queues::change))
        .route("/v1/imports", get(imports::list).post(imports::start))
        // A wildcard, so that an address needs no escaping.
        .route("/v1/imports/{*url}", delete(imports::remove))
        .route("/v1/owners", get(owners))
        .route("/v1/owners/{*name}", put(trust_owner).delete(forget_owner))
        .route("/v1/zones", get(zones::zones).post(zones::join))
        .route("/v1/zones/", delete(zones::leave_root))
        .route("/v1/zones/{zone}", delete(zones::leave))
        .route("/v1/status", get(status))
        .route("/v1/peers", get(peers))
        .route("/v1/history", get(history))
        .route("/v1/calls", get(calls))
        .route("/v1/doctor", get(doctor))
        .route("/v1/events", get(events::events))
        .route("/openapi.json", get(openapi))
        .fallback(unknown_route)
        .method_not_allowed_fallback(bad_method)
        .with_state(Arc::new(api))
        // After the state, because these routes have one of their own.
        .merge(mcp)
}

async fn find(State(api): State<Arc<Api>>, RawQuery(raw): RawQuery) -> Result<Made, Failure> {
    let query = query::find(raw.as_deref())?;
    Ok(Made(AgentReads::new(&api.handle).find(query).await?))
}

async fn agents(State(api): State<Arc<Api>>, RawQuery(raw): RawQuery) -> Result<Made, Failure> {
    let page = query::page(raw.as_deref())?;
    Ok(Made(AgentReads::new(&api.handle).agents(page.zone, page.limit, page.cursor).await?))
}

async fn show(
    State(api): State<Arc<Api>>,
    agent: Result<Path<String>, PathRejection>,
) -> Result<Made, Failure> {
    Ok(Made(AgentReads::new(&api.handle).show(&named(agent)?).await?))
}

async fn deregister(
    State(api): State<Arc<Api>>,
    agent: Result<Path<String>, PathRejection>,
) -> Answer<Registered> {
    Ok(Json(api.handle.deregister(&named(agent)?).await?))
}

async fn adopt(
    State(api): State<Arc<Api>>,
    agent: Result<Path<String>, PathRejection>,
) -> Answer<Registered> {
    Ok(Json(api.handle.adopt(&named(agent)?).await?))
}

async fn owners(State(api): State<Arc<Api>>) -> Answer<Owners> {
    Ok(Json(api.handle.owners().await?))
}

async fn trust_owner(
    State(api): State<Arc<Api>>,
    name: Result<Path<String>, PathRejection>,
    body: Body,
) -> Answer<Owner> {
    let name = named(name)?;
    let bytes = body::read(body, OWNER_BYTES_MAX, "send one PeerId").await?;
    let trusted: TrustOwner = serde_json::from_slice(&bytes).map_err(|error| {
        let message = format!("the body does not name an owner: {error}");
        Failure::new(Code::BadRequest, message, "send {\"owner\": \"12D3…\"}")
    })?;
    Ok(Json(api.handle.trust_owner(&name, &trusted.owner).await?))
}

async fn forget_owner(
    State(api): State<Arc<Api>>,
    name: Result<Path<String>, PathRejection>,
) -> Answer<Owner> {
    Ok(Json(api.handle.forget_owner(&named(name)?).await?))
}

async fn status(State(api): State<Arc<Api>>, RawQuery(raw): RawQuery) -> Answer<Status> {
    Ok(Json(match query::vector(raw.as_deref())? {
        true => api.handle.status_with_vectors().await?,
        false => api.handle.status().await?,
    }))
}

async fn peers(State(api): State<Arc<Api>>) -> Answer<Peers> {
    Ok(Json(api.handle.peers().await?))
}

async fn history(State(api): State<Arc<Api>>, RawQuery(raw): RawQuery) -> Answer<History> {
    Ok(Json(api.handle.history(&query::history(raw.as_deref())?)?))
}

async fn calls(State(api): State<Arc<Api>>, RawQuery(raw): RawQuery) -> Answer<SeenCalls> {
    let query = query::calls(raw.as_deref())?;
    Ok(Json(HealthClient::new(api.handle.clone()).calls(&query)))
}

async fn doctor(State(api): State<Arc<Api>>) -> Answer<Diagnosis> {
    Ok(Json(HealthClient::new(api.handle.clone()).diagnose().await?))
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

pub(super) async fn unknown_route(uri: Uri) -> Failure {
    Failure::new(
        Code::UnknownRoute,
        format!("there is no `{}` here", uri.path().escape_debug()),
        "GET /openapi.json lists what there is",
    )
}

pub(super) async fn bad_method(method: Method, uri: Uri) -> Failure {
    Failure::new(
        Code::BadMethod,
        format!("`{}` does not take {method}", uri.path().escape_debug()),
        "GET /openapi.json lists what it takes",
    )
}

async fn register(
    State(api): State<Arc<Api>>,
    RawQuery(raw): RawQuery,
    body: Body,
) -> Answer<RegisterAnswer> {
    // Judged before the upload: a mistake in it must not cost 32 MiB.
    let query = query::register(raw.as_deref())?;
    let zone = query.zone.map(|zone| zone.parse::<ZoneName>()).transpose();
    let zone =
        zone.map_err(|error| Failure::new(Code::BadRequest, error.to_string(), "zone=research.acme.org"))?;
    // Held until the answer is there, because the parsed form takes the most memory.
    let _place = api.uploads.acquire().await.map_err(|_| Failure::busy("uploads", UPLOADS_MAX))?;
    let instead = "send the documents in several requests, as `aop register` does";
    let bytes = body::read(body, BODY_BYTES_MAX, instead).await?;
    // Megabytes of JSON take a second of one core: not on a thread that answers others.
    let parsed =
        tokio::task::spawn_blocking(move || parse(&bytes)).await.map_err(|_| Failure::panicked())??;
    Ok(Json(register_parsed(&api.handle, zone, query.replace, parsed).await?))
}

fn parse(bytes: &[u8]) -> Result<Vec<Document>, Failure> {
    let body = document::parse(bytes).map_err(|error| {
        Failure::new(Code::BadRequest, format!("the body is {error}"), "send one document or an array")
    })?;
    let documents = documents_in(body);
    let mut read = read_all(&documents);
    for (document, outcome) in documents.iter().zip(&mut read) {
        if let Ok(reading) = outcome
            && document.pointer("/agent/run").is_some_and(|run| !run.is_null())
        {
            reading.notes.push(NOT_RUN.into());
        }
    }
    Ok(read)
}

/// Registers what could be read and answers with positions in the request, whatever was left out on the way.
async fn register_parsed(
    handle: &Handle,
    zone: Option<ZoneName>,
    replace: bool,
    parsed: Vec<Document>,
) -> Result<RegisterAnswer, Failure> {
    let mut answer = RegisterAnswer::default();
    let (mut positions, mut notes, mut offers) = (Vec::new(), Vec::new(), Vec::new());
    for (index, document) in parsed.into_iter().enumerate() {
        match document {
            // Before anything is registered: a newer version that is deleted must not stand in the way of an older one.
            Ok(Reading { offer, deleted: Some(refusal), .. }) => {
                match handle.withdraw_version(zone.clone(), offer).await? {
                    Some(withdrawn) => answer.withdrawn.push(withdrawn),
                    None => answer.refused.push(refused_document(index, refusal)),
                }
            }
            Ok(reading) => {
                positions.push(index);
                notes.push(reading.notes);
                offers.push(reading.offer);
            }
            Err(refusal) => answer.refused.push(refused_document(index, refusal)),
        }
    }
    if !offers.is_empty() {
        let outcomes = match replace {
            true => handle.replace(zone, offers).await?,
            false => handle.register(zone, offers).await?,
        };
        for ((index, notes), outcome) in positions.into_iter().zip(notes).zip(outcomes) {
            match outcome {
                Ok(registered) => answer.registered.push(Registered { notes, ..registered }),
                Err(refusal) => answer.refused.push(refused_document(index, refusal)),
            }
        }
    }
    // Refusals of the reader and of the node meet here, and a client looks for them by position.
    answer.refused.sort_by_key(|refused| refused.index);
    Ok(answer)
}

fn refused_document(index: usize, refusal: Refusal) -> Refused {
    Refused { index, name: refusal.name, code: refusal.code, message: refusal.message }
}

pub(super) fn named<T>(path: Result<Path<T>, PathRejection>) -> Result<T, Failure> {
    path.map(|Path(named)| named).map_err(|rejection| {
        Failure::new(
            Code::BadRequest,
            rejection.body_text(),
            "name the agent as `name@zone`, percent-encoded",
        )
    })
}
