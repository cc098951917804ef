//! Live events for watchers: what the driver tells, in the words of the API.

use std::sync::Arc;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::view;
use crate::api;
use crate::net::driver::Event;
use crate::telemetry::metrics::Metrics;

/// Receives events, from the moment it was made on.
pub struct Events {
    events: broadcast::Receiver<Event>,
    metrics: Arc<Metrics>,
}

impl Events {
    pub(super) fn new(events: broadcast::Receiver<Event>, metrics: Arc<Metrics>) -> Events {
        Events { events, metrics }
    }

    /// The next event.
    ///
    /// # Errors
    /// So many events were missed, or there will be no more.
    pub async fn recv(&mut self) -> Result<api::Event, RecvError> {
        let event = self.events.recv().await;
        if let Err(RecvError::Lagged(count)) = event {
            self.metrics.events_missed.inc_by(count);
        }
        event.map(|event| view::event(&event))
    }
}
