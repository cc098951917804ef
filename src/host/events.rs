//! Live events for watchers: what the driver tells, in the words of the API.

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::view;
use crate::api;
use crate::net::driver::Event;

/// Receives events, from the moment it was made on.
pub struct Events(broadcast::Receiver<Event>);

impl Events {
    pub(super) fn new(events: broadcast::Receiver<Event>) -> Events {
        Events(events)
    }

    /// The next event.
    ///
    /// # Errors
    /// So many events were missed, or there will be no more.
    pub async fn recv(&mut self) -> Result<api::Event, RecvError> {
        self.0.recv().await.map(|event| view::event(&event))
    }
}
