//! `/v1/imports`: registries of others whose documents this node offers.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::body;
use super::failure::Failure;
use super::routes::{Answer, Api, named};
use crate::api::{Import, Imports, StartImport};
use crate::host::ImportClient;
use crate::proto::code::Code;

/// Largest body that names a registry and its zones, bytes.
const START_BYTES_MAX: usize = 16 * 1024;

/// `GET /v1/imports`.
pub(super) async fn list(State(api): State<Arc<Api>>) -> Json<Imports> {
    Json(ImportClient::new(api.handle.clone()).list())
}

/// `POST /v1/imports`: the reading goes on when the answer is here.
pub(super) async fn start(
    State(api): State<Arc<Api>>,
    body: Body,
) -> Result<(StatusCode, Json<Import>), Failure> {
    let bytes = body::read(body, START_BYTES_MAX, "send one address").await?;
    let wanted: StartImport = serde_json::from_slice(&bytes).map_err(|error| {
        let message = format!("the body does not say which registry to import: {error}");
        Failure::new(Code::BadRequest, message, "send {\"url\": \"https://registry.example.org\"}")
    })?;
    let import = ImportClient::new(api.handle.clone()).start(wanted).await?;
    Ok((StatusCode::ACCEPTED, Json(import)))
}

/// `DELETE /v1/imports/{url}`.
pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    url: Result<Path<String>, PathRejection>,
) -> Answer<Import> {
    Ok(Json(ImportClient::new(api.handle.clone()).remove(&named(url)?).await?))
}
