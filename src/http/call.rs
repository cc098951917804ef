//! `POST /v1/call/{agent}`: the body is the agent's own input document. A client that goes away ends the call, unless it is a
//! task. Where it asks for events it is told how the call stands until the answer comes.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, stream};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tracing::Span;

use super::body;
use super::correlation::{REQUEST_ID, trace_parent};
use super::failure::Failure;
use super::query::{self, CallQuery};
use super::routes::{Answer, Api, named};
use crate::agents::CALL_BYTES_MAX;
use crate::api::{ApiError, Batch, BatchAnswer, CallAnswer, ErrorBody};
use crate::host::{CallOptions, TaskClient, call_batch};
use crate::proto::call::Report;
use crate::proto::code::Code;
use crate::proto::limits::CALL_TIME_MAX;
use crate::telemetry::context::pass_on;

/// The longest call, and what the node needs besides.
pub(super) const TIME_MAX: Duration = CALL_TIME_MAX.saturating_add(Duration::from_secs(5));
/// Calls at once whose callers are told how they stand; each holds a connection.
pub(super) const CALL_STREAMS_MAX: usize = 256;
/// Batches at work at once: each makes many calls, and holds their results.
pub(super) const BATCHES_MAX: usize = 8;
/// Largest batch, bytes.
const BATCH_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Reports of one call on their way to its caller; a slower reader loses some, and never holds the work up.
const REPORTS_MAX: usize = 64;
/// A silent stream says this often that it is alive; proxies close after 30 s and more.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Names the call at work in whose course this one is made.
const CALL_ID: &str = "aop-call-id";

/// Calls the agent; 200 however the call ended, 202 for a task.
pub(super) async fn call(
    State(api): State<Arc<Api>>,
    agent: Result<Path<String>, PathRejection>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    // Name and query before the body: a call that is refused anyway reads no megabytes.
    let agent = named(agent)?;
    let query = query::call(raw.as_deref())?;
    let is_task = query.is_async;
    let options = options(query, &headers);
    let instead = "give the agent a reference to the data instead of the data";
    let bytes = body::read(body, CALL_BYTES_MAX, instead).await?;
    let input: Value = serde_json::from_slice(&bytes).map_err(|error| {
        let fix = "send the agent's own input document, such as {\"task\": \"...\"}";
        Failure::new(Code::BadRequest, format!("the body is not JSON: {error}"), fix)
    })?;
    if is_task {
        let submitted = TaskClient::new(api.handle.clone()).submit(&agent, &input, options, None).await?;
        return Ok((StatusCode::ACCEPTED, Json(submitted)).into_response());
    }
    if wants_events(&headers) {
        return Ok(told(&api, agent, input, options)?.into_response());
    }
    Ok(Json(api.handle.call(&agent, input, options).await?).into_response())
}

/// `POST /v1/batch`.
pub(super) async fn batch(
    State(api): State<Arc<Api>>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Answer<BatchAnswer> {
    let options = options(query::batch(raw.as_deref())?, &headers);
    let _place = api.batches.try_acquire().map_err(|_| Failure::busy("batches", BATCHES_MAX))?;
    let bytes = body::read(body, BATCH_BYTES_MAX, "send it in several batches").await?;
    let batch: Batch = serde_json::from_slice(&bytes).map_err(|error| {
        let fix = "send {\"calls\": [{\"agent\": \"name@zone\", \"input\": {\"task\": \"...\"}}]}";
        Failure::new(Code::BadRequest, format!("the body is no batch: {error}"), fix)
    })?;
    Ok(Json(call_batch(&api.handle, batch.calls, options).await?))
}

fn options(query: CallQuery, headers: &HeaderMap) -> CallOptions {
    let CallQuery { timeout, balance, .. } = query;
    let mut options = CallOptions { timeout, balance, ..in_course_of(headers) };
    options.context.conversation = query.conversation;
    query.residency.into_iter().for_each(|demanded| options.context.demand(demanded));
    options.context.priority = query.priority;
    options
}

/// A call that is part of what its headers name.
pub(super) fn in_course_of(headers: &HeaderMap) -> CallOptions {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let mut options = CallOptions::default();
    options.context.trace = trace_parent(headers);
    // The call may go on in a task of its own.
    pass_on(&Span::current(), &mut options.context.trace);
    options.request = text(REQUEST_ID.as_str()).map(str::to_owned);
    options.within = text(CALL_ID).and_then(|call| call.parse().ok());
    options
}

fn wants_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|kind| {
        kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/event-stream")
    })
}

/// A call whose caller is told how it stands. Dropped with the stream, which ends the work.
struct ToldCall {
    work: Option<BoxFuture<'static, Result<CallAnswer, ApiError>>>,
    reports: mpsc::Receiver<Report>,
    closing: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

fn told(
    api: &Api,
    agent: String,
    input: Value,
    options: CallOptions,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, axum::Error>> + use<>>, Failure> {
    let place = api.call_streams.clone().try_acquire_owned();
    let place = place.map_err(|_| Failure::busy("calls with events", CALL_STREAMS_MAX))?;
    let (sender, reports) = mpsc::channel(REPORTS_MAX);
    let options = CallOptions { reports: Some(sender), stream: true, ..options };
    let handle = api.handle.clone();
    let work = async move { handle.call(&agent, input, options).await }.boxed();
    let call = ToldCall { work: Some(work), reports, closing: api.closing.clone(), _place: place };
    // Something at once, so that proxies pass the head on now and not with the first event.
    let hello = stream::once(async { Ok(sse::Event::default().comment("aop")) });
    let events = stream::unfold(call, next);
    Ok(Sse::new(futures::StreamExt::chain(hello, events)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

async fn next(mut call: ToldCall) -> Option<(Result<sse::Event, axum::Error>, ToldCall)> {
    // None once the answer was told.
    let mut work = call.work.take()?;
    let ended = tokio::select! {
        // Reports that wait come before the answer that they lead to.
        biased;
        () = super::closed(&mut call.closing) => return None,
        Some(report) = call.reports.recv() => {
            call.work = Some(work);
            return Some((event(&report), call));
        }
        ended = &mut work => ended,
    };
    let answer = sse::Event::default();
    let answer = match ended {
        Ok(ended) => answer.event("answer").json_data(ended),
        Err(error) => answer.event("error").json_data(ErrorBody { error }),
    };
    Some((answer, call))
}

fn event(report: &Report) -> Result<sse::Event, axum::Error> {
    let (kind, data) = match report {
        Report::Queued { ahead } => ("queued", json!({ "ahead": ahead })),
        Report::Working { host } => ("working", json!({ "served_by": host.to_string() })),
        Report::Progress(progress) => ("progress", json!(progress)),
        Report::Partial(text) => ("partial", json!({ "text": text })),
    };
    sse::Event::default().event(kind).json_data(data)
}
