//! What libp2p uses of futures-timer, on tokio's clock: a paused runtime decides when it is due.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// A future that is ready after a time.
#[derive(Debug)]
pub struct Delay(Pin<Box<Sleep>>);

impl Delay {
    /// Needs a tokio runtime.
    pub fn new(wait: Duration) -> Delay {
        Delay(Box::pin(sleep(wait)))
    }

    /// Starts anew.
    pub fn reset(&mut self, wait: Duration) {
        self.0.as_mut().reset(Instant::now() + wait);
    }
}

impl Future for Delay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }
}
