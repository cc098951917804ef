//! The routes of zones.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};

use super::body;
use super::failure::Failure;
use super::routes::{Answer, Api};
use crate::api::{JoinZone, ZoneChange, Zones};
use crate::proto::code::Code;

/// Largest body that names a zone, bytes: the longest name has 253.
const JOIN_BYTES_MAX: usize = 1024;

pub(super) async fn zones(State(api): State<Arc<Api>>) -> Answer<Zones> {
    Ok(Json(api.handle.zones().await?))
}

pub(super) async fn join(State(api): State<Arc<Api>>, body: Body) -> Answer<ZoneChange> {
    let bytes = body::read(body, JOIN_BYTES_MAX, "send one zone and a role").await?;
    let JoinZone { zone, role } = serde_json::from_slice(&bytes).map_err(|error| {
        let message = format!("the body does not say which zone to join in which role: {error}");
        Failure::new(Code::BadRequest, message, "send {\"zone\": \"acme.org\", \"role\": \"member\"}")
    })?;
    Ok(Json(api.handle.join_zone(&zone, role).await?))
}

pub(super) async fn leave(
    State(api): State<Arc<Api>>,
    zone: Result<Path<String>, PathRejection>,
) -> Answer<ZoneChange> {
    let Path(zone) = zone.map_err(|rejection| {
        Failure::new(Code::BadRequest, rejection.body_text(), "name the zone as `acme.org`, percent-encoded")
    })?;
    Ok(Json(api.handle.leave_zone(&zone).await?))
}

/// Clients take a lone dot out of a path, and with it the name of the root.
pub(super) async fn leave_root(State(api): State<Arc<Api>>) -> Answer<ZoneChange> {
    Ok(Json(api.handle.leave_zone(".").await?))
}
