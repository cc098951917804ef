//! `/v1/tasks`: calls that were asked for with `async=true`, looked at and cancelled.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};

use super::query;
use super::routes::{Answer, Api, named};
use crate::api::{Task, TaskPage};
use crate::host::TaskClient;

/// `GET /v1/tasks`.
pub(super) async fn list(State(api): State<Arc<Api>>, RawQuery(raw): RawQuery) -> Answer<TaskPage> {
    let page = query::tasks(raw.as_deref())?;
    Ok(Json(TaskClient::new(api.handle.clone()).list(page.limit, page.cursor.as_deref())?))
}

/// `GET /v1/tasks/{id}`.
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    id: Result<Path<String>, PathRejection>,
    RawQuery(raw): RawQuery,
) -> Answer<Task> {
    let wait = query::wait(raw.as_deref())?.unwrap_or(Duration::ZERO);
    Ok(Json(TaskClient::new(api.handle.clone()).show(&named(id)?, wait).await?))
}

/// `DELETE /v1/tasks/{id}`.
pub(super) async fn cancel(
    State(api): State<Arc<Api>>,
    id: Result<Path<String>, PathRejection>,
) -> Answer<Task> {
    Ok(Json(TaskClient::new(api.handle.clone()).cancel(&named(id)?).await?))
}
