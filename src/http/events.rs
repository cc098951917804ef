//! Live events as server-sent events: one `data:` line of JSON each, whose `event` field says what it is.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{self, KeepAlive, Sse};
use futures::{Stream, stream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, broadcast, watch};

use super::failure::Failure;
use super::routes::Api;
use crate::api::Event;

/// Streams open at once; each holds a connection and a place in the node's event ring.
pub(super) const STREAMS_MAX: usize = 64;
/// A silent stream says this often that it is alive; proxies close after 30 s and more.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One open stream.
struct Reader {
    events: broadcast::Receiver<Event>,
    closing: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

/// `GET /v1/events`.
pub(super) async fn events(
    State(api): State<Arc<Api>>,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, axum::Error>>>, Failure> {
    let place =
        api.streams.clone().try_acquire_owned().map_err(|_| Failure::busy("event streams", STREAMS_MAX))?;
    let reader = Reader { events: api.handle.events(), closing: api.closing.clone(), _place: place };
    let hello = stream::once(async { Ok(sse::Event::default().comment("aop")) });
    let events = stream::unfold(reader, next);
    Ok(Sse::new(futures::StreamExt::chain(hello, events)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

async fn next(mut reader: Reader) -> Option<(Result<sse::Event, axum::Error>, Reader)> {
    let event = tokio::select! {
        () = super::closed(&mut reader.closing) => return None,
        event = reader.events.recv() => event,
    };
    let event = match event {
        Ok(event) => event,
        Err(RecvError::Lagged(count)) => Event::Missed { count },
        Err(RecvError::Closed) => return None,
    };
    Some((sse::Event::default().json_data(event), reader))
}
