//! Live events for watchers: what the driver tells and which calls there are, in the words of the API.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::{Handle, view};
use crate::api;
use crate::net::driver::Event;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::recent_calls::CallEvent;

/// Receives events, from the moment it was made on.
pub struct Events {
    events: broadcast::Receiver<Event>,
    calls: broadcast::Receiver<CallEvent>,
    metrics: Arc<Metrics>,
}

impl Events {
    pub(super) fn new(events: broadcast::Receiver<Event>, metrics: Arc<Metrics>) -> Events {
        Events { events, calls: metrics.calls.recent.watch(), metrics }
    }

    /// The next event.
    ///
    /// # Errors
    /// So many events were missed, or there will be no more.
    pub async fn recv(&mut self) -> Result<api::Event, RecvError> {
        // What is kept of calls lives as long as whoever watches; that the node has stopped is told by the other.
        let event = tokio::select! {
            event = self.events.recv() => event.map(|event| view::event(&event)),
            event = self.calls.recv() => event.map(view::call_event),
        };
        if let Err(RecvError::Lagged(count)) = event {
            self.metrics.events_missed.inc_by(count);
        }
        event
    }
}

/// Lets the calls tell once a second what takes long and what was left out, until the node stops.
pub(super) async fn tell_of_calls(handle: Handle) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = handle.stopped() => return,
        }
        handle.metrics.calls.recent.next_second(Instant::now());
    }
}
