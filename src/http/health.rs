//! What orchestrators and scrapers ask: `/healthz`, `/readyz` and `/metrics`, beside the API and at an address of their own.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::call::CALL_STREAMS_MAX;
use super::events::STREAMS_MAX as EVENT_STREAMS_MAX;
use super::failure::Failure;
use super::mcp;
use super::routes::{Answer, bad_method};
use crate::host::{DriverState, Handle, HealthClient, HttpReadings, Refusals};
use crate::proto::code::Code;
use crate::telemetry::exposition::Format;

/// How long the driver may be silent before the process counts as hung: no turn takes as long, on a disk that is slow either.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What the HTTP servers of a node count by themselves: what they refused, and places of streams. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct ServerCounts {
    pub(super) refusals: Refusals,
    pub(super) events: Arc<Semaphore>,
    pub(super) calls: Arc<Semaphore>,
    pub(super) mcp: Arc<Semaphore>,
}

impl Default for ServerCounts {
    fn default() -> ServerCounts {
        let [events, calls, mcp] = [EVENT_STREAMS_MAX, CALL_STREAMS_MAX, mcp::STREAMS_MAX]
            .map(|most| Arc::new(Semaphore::new(most)));
        ServerCounts { refusals: Refusals::default(), events, calls, mcp }
    }
}

impl ServerCounts {
    fn readings(&self) -> HttpReadings {
        let streams = [
            ("events", EVENT_STREAMS_MAX, &self.events),
            ("calls", CALL_STREAMS_MAX, &self.calls),
            ("mcp", mcp::STREAMS_MAX, &self.mcp),
        ];
        let open = |(kind, most, free): (&'static str, usize, &Arc<Semaphore>)| {
            (kind, most - free.available_permits())
        };
        HttpReadings { refused: self.refusals.counts(), streams: streams.map(open).into() }
    }
}

struct Health {
    node: HealthClient,
    counts: ServerCounts,
}

/// The three routes; `counts` are those of this server and of those beside it.
pub(super) fn router(handle: Handle, counts: ServerCounts) -> Router {
    Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .method_not_allowed_fallback(bad_method)
        .with_state(Arc::new(Health { node: HealthClient::new(handle), counts }))
}

async fn health(State(health): State<Arc<Health>>) -> Answer<Value> {
    healthy(health.node.driver_state().await)
}

fn healthy(driver: DriverState) -> Answer<Value> {
    let hung = match driver {
        DriverState::Turning => return Ok(Json(json!({"status": "ok"}))),
        DriverState::Silent(silent) if silent < SILENCE_MAX => return Ok(Json(json!({"status": "slow"}))),
        DriverState::Silent(silent) => format!("the node has done nothing for {} s", silent.as_secs()),
        DriverState::Stopped => "the node has stopped".into(),
    };
    Err(Failure::new(Code::Unavailable, hung, "end the process and start it again; nothing durable is lost"))
}

async fn ready(State(health): State<Arc<Health>>) -> Answer<Value> {
    if health.node.ready().await {
        return Ok(Json(json!({"status": "ready"})));
    }
    Err(Failure::new(Code::Unavailable, "the first sync is not done", "wait: it takes 5 s at most"))
}

async fn metrics(State(health): State<Arc<Health>>, headers: HeaderMap) -> Result<Response, Failure> {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = Format::of(accept);
    let text = health.node.metrics(format, &health.counts.readings()).await?;
    Ok(([(header::CONTENT_TYPE, format.content_type())], text).into_response())
}

/// Answer of an address that has nothing else.
pub(super) async fn nothing_else(uri: Uri) -> Failure {
    Failure::new(
        Code::UnknownRoute,
        format!("there is no `{}` here", uri.path().escape_debug()),
        "GET /metrics, /healthz or /readyz; the rest is at the address of `http.addr`",
    )
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    #[test]
    fn a_driver_that_is_silent_for_half_a_minute_is_no_health() {
        let status = |driver| healthy(driver).into_response().status();
        assert_eq!(status(DriverState::Turning), StatusCode::OK);
        assert_eq!(status(DriverState::Silent(Duration::from_secs(29))), StatusCode::OK);
        assert_eq!(status(DriverState::Silent(Duration::from_secs(30))), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(status(DriverState::Stopped), StatusCode::SERVICE_UNAVAILABLE);
    }
}
