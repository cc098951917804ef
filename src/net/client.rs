//! How everybody but the driver asks the node: a queue of bounded length, and the answers.

use std::time::Duration;

use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{mpsc, oneshot};

use crate::net::driver::{ReadContext, Request};
use crate::net::wall_clock;
use crate::proto::identity::PeerKey;
use crate::proto::io::{Command, Reply};
use crate::proto::query::PeerProfile;

/// How long a client waits for room in the driver's queue. A burst is over long before, at a few microseconds a request;
/// a queue that stays full is an overload, which nobody who waits longer would shorten.
const QUEUE_TIME_MAX: Duration = Duration::from_secs(1);

/// Asks the driver. Cheap to clone.
#[derive(Clone)]
pub(crate) struct NodeClient {
    requests: mpsc::Sender<Request>,
}

/// How long a request waits for room in the driver's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// For [`QUEUE_TIME_MAX`]: a client is told to come again.
    Client,
    /// As long as it takes: nobody else would ask again.
    Endless,
}

/// Why there is no answer. Nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// As many requests as this wait for the driver.
    Busy(usize),
    /// The node is stopping. A command that was taken before may have been carried out.
    Stopped,
}

impl NodeClient {
    pub(crate) fn new(requests: mpsc::Sender<Request>) -> NodeClient {
        NodeClient { requests }
    }

    /// Has the node carry out a command.
    pub(crate) async fn command(&self, command: Command, patience: Patience) -> Result<Reply, Unanswered> {
        let (reply, replied) = oneshot::channel();
        self.send(Request::Command(Box::new(command), reply), patience).await?;
        replied.await.map_err(|_| Unanswered::Stopped)
    }

    /// Looks at the state of node and network.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        patience: Patience,
        question: impl FnOnce(&mut ReadContext<'_>) -> T + Send + 'static,
    ) -> Result<T, Unanswered> {
        let (reply, replied) = oneshot::channel();
        let read = Box::new(move |seen: &mut ReadContext<'_>| {
            // Who asked may have gone meanwhile.
            let _gone = reply.send(question(seen));
        });
        self.send(Request::Read(read), patience).await?;
        replied.await.map_err(|_| Unanswered::Stopped)
    }

    /// What a peer is, as far as this node knows; nothing once it is stopping.
    pub(crate) async fn profile(&self, peer: PeerKey) -> PeerProfile {
        let profile = move |seen: &mut ReadContext<'_>| seen.node.profile(&peer, wall_clock());
        self.read(Patience::Endless, profile).await.unwrap_or_default()
    }

    /// Looks for a peer whose address is not known; returns when it is connected or was not found. A node that is stopping
    /// finds nobody.
    pub(crate) async fn search(&self, peer: PeerKey) {
        let (over, waiting) = oneshot::channel();
        let search = move |seen: &mut ReadContext<'_>| seen.network.look_up(&peer, over);
        let _stopped = self.read(Patience::Endless, search).await;
        // However the search ended, the next opening shows whether the host was found.
        let _over = waiting.await;
    }

    /// How many requests wait for the driver.
    pub(crate) fn waiting(&self) -> usize {
        self.requests.max_capacity() - self.requests.capacity()
    }

    /// Resolves when the node has stopped.
    pub(crate) async fn stopped(&self) {
        self.requests.closed().await;
    }

    /// How many requests there is room for.
    #[cfg(test)]
    pub(crate) fn room(&self) -> usize {
        self.requests.capacity()
    }

    async fn send(&self, request: Request, patience: Patience) -> Result<(), Unanswered> {
        match patience {
            Patience::Endless => self.requests.send(request).await.map_err(|_| Unanswered::Stopped),
            Patience::Client => {
                self.requests.send_timeout(request, QUEUE_TIME_MAX).await.map_err(|error| match error {
                    SendTimeoutError::Timeout(_) => Unanswered::Busy(self.requests.max_capacity()),
                    SendTimeoutError::Closed(_) => Unanswered::Stopped,
                })
            }
        }
    }
}
