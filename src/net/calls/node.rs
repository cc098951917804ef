//! What calls ask the node: what a peer is, and where it is.

use tokio::sync::{mpsc, oneshot};

use crate::net::driver::{ReadContext, Request};
use crate::net::wall_clock;
use crate::proto::identity::PeerKey;
use crate::proto::query::PeerProfile;

/// Asks the driver. Cheap to clone.
#[derive(Clone)]
pub(crate) struct NodeClient {
    requests: mpsc::Sender<Request>,
}

impl NodeClient {
    pub(crate) fn new(requests: mpsc::Sender<Request>) -> NodeClient {
        NodeClient { requests }
    }

    /// What a peer is, as far as this node knows; nothing once it is stopping.
    pub(super) async fn profile(&self, peer: PeerKey) -> PeerProfile {
        self.read(move |seen| seen.node.profile(&peer, wall_clock())).await.unwrap_or_default()
    }

    /// Looks for a peer whose address is not known; returns when it is connected or was not found. A node that is stopping
    /// finds nobody.
    pub(super) async fn search(&self, peer: PeerKey) {
        let (over, waiting) = oneshot::channel();
        let _stopped = self.read(move |seen| seen.network.look_up(&peer, over)).await;
        // However the search ended, the next opening shows whether the host was found.
        let _over = waiting.await;
    }

    /// Resolves when the node has stopped.
    pub(super) async fn stopped(&self) {
        self.requests.closed().await;
    }

    /// None if the node is stopping.
    async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut ReadContext<'_>) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, replied) = oneshot::channel();
        let read = Box::new(move |seen: &mut ReadContext<'_>| {
            // Who asked may have gone meanwhile.
            let _gone = reply.send(question(seen));
        });
        self.requests.send(Request::Read(read)).await.ok()?;
        replied.await.ok()
    }
}
