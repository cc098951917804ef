//! `/v1/queues`: what the agents of this node have to do, and its operator's hand on that.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::Uri;

use super::failure::Failure;
use super::routes::{Answer, Api, named, unknown_route};
use crate::api::{Queue, QueueChange, Queues};
use crate::host::QueueClient;

/// `GET /v1/queues`.
pub(super) async fn list(State(api): State<Arc<Api>>) -> Json<Queues> {
    Json(QueueClient::new(&api.handle).list())
}

/// `GET /v1/queues/{agent}`.
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    agent: Result<Path<String>, PathRejection>,
) -> Answer<Queue> {
    Ok(Json(QueueClient::new(&api.handle).show(&named(agent)?)?))
}

/// `POST /v1/queues/pause`, `resume` and `clear`.
pub(super) async fn change_all(
    State(api): State<Arc<Api>>,
    change: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Answer<Queues> {
    let change = read(&named(change)?, uri).await?;
    Ok(Json(QueueClient::new(&api.handle).change_all(change)))
}

/// `POST /v1/queues/{agent}/pause`, `resume` and `clear`.
pub(super) async fn change(
    State(api): State<Arc<Api>>,
    path: Result<Path<(String, String)>, PathRejection>,
    uri: Uri,
) -> Answer<Queue> {
    let (agent, change) = named(path)?;
    let change = read(&change, uri).await?;
    Ok(Json(QueueClient::new(&api.handle).change(&agent, change)?))
}

async fn read(change: &str, uri: Uri) -> Result<QueueChange, Failure> {
    match change {
        "pause" => Ok(QueueChange::Pause),
        "resume" => Ok(QueueChange::Resume),
        "clear" => Ok(QueueChange::Clear),
        _ => Err(unknown_route(uri).await),
    }
}
