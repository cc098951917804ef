//! `POST /v1/call/{agent}`: the body is the agent's own input document. A client that goes away ends the call.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};

use super::body;
use super::failure::Failure;
use super::query;
use super::routes::{Answer, Api, named};
use crate::agents::CALL_BYTES_MAX;
use crate::api::CallAnswer;
use crate::host::CallOptions;
use crate::proto::code::Code;
use crate::proto::limits::CALL_TIME_MAX;

/// The longest call, and what the node needs besides.
pub(super) const TIME_MAX: Duration = CALL_TIME_MAX.saturating_add(Duration::from_secs(5));

/// Calls the agent; 200 however the call ended.
pub(super) async fn call(
    State(api): State<Arc<Api>>,
    agent: Result<Path<String>, PathRejection>,
    RawQuery(raw): RawQuery,
    body: Body,
) -> Answer<CallAnswer> {
    // Name and timeout before the body: a call that is refused anyway reads no megabytes.
    let agent = named(agent)?;
    let timeout = query::timeout(raw.as_deref())?;
    let instead = "give the agent a reference to the data instead of the data";
    let bytes = body::read(body, CALL_BYTES_MAX, instead).await?;
    let input = serde_json::from_slice(&bytes).map_err(|error| {
        let fix = "send the agent's own input document, such as {\"task\": \"...\"}";
        Failure::new(Code::BadRequest, format!("the body is not JSON: {error}"), fix)
    })?;
    Ok(Json(api.handle.call(&agent, input, CallOptions { timeout, ..CallOptions::default() }).await?))
}
