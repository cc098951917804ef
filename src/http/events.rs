//! Live events as server-sent events: one `data:` line of JSON each, whose `event` field says what it is.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{self, KeepAlive, Sse};
use futures::{Stream, stream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::failure::Failure;
use super::routes::Api;
use crate::api::Event;
use crate::host::Events;

/// Streams open at once; each holds a connection and a place in the node's event ring.
pub(super) const STREAMS_MAX: usize = 64;
/// A silent stream says this often that it is alive; proxies close after 30 s and more.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One open stream.
struct Reader {
    events: Events,
    closing: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

/// `GET /v1/events`.
pub(super) async fn events(
    State(api): State<Arc<Api>>,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, axum::Error>>>, Failure> {
    let place =
        api.streams.clone().try_acquire_owned().map_err(|_| Failure::busy("event streams", STREAMS_MAX))?;
    // Subscribed before the greeting goes out: who has read it misses nothing from then on.
    let reader = Reader { events: api.handle.events(), closing: api.closing.clone(), _place: place };
    // Something at once, so that proxies pass the head on now and not with the first event.
    let hello = stream::once(async { Ok(sse::Event::default().comment("aop")) });
    let events = stream::unfold(reader, next);
    Ok(Sse::new(futures::StreamExt::chain(hello, events)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

async fn next(mut reader: Reader) -> Option<(Result<sse::Event, axum::Error>, Reader)> {
    let event = tokio::select! {
        () = super::closed(&mut reader.closing) => return None,
        event = reader.events.recv() => event,
    };
    Some((sse::Event::default().json_data(told(event)?), reader))
}

/// What the reader is told: the event, or that it missed some. `None` when there will be no more.
fn told(event: Result<Event, RecvError>) -> Option<Event> {
    match event {
        Ok(event) => Some(event),
        // A slow reader loses events and is told how many; holding them back would fill the memory.
        Err(RecvError::Lagged(count)) => Some(Event::Missed { count }),
        Err(RecvError::Closed) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_reader_is_told_how_many_events_it_missed() {
        let (sender, mut receiver) = tokio::sync::broadcast::channel(2);
        for peer in ["a", "b", "c", "d", "e"] {
            sender.send(Event::PeerConnected { peer: peer.into() }).unwrap();
        }
        assert_eq!(told(receiver.recv().await), Some(Event::Missed { count: 3 }));
        assert_eq!(told(receiver.recv().await), Some(Event::PeerConnected { peer: "d".into() }));
        drop((sender, receiver.recv().await));
        assert_eq!(told(receiver.recv().await), None);
    }
}
