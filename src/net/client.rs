//! How everybody but the driver asks the node. What memory answers is read beside the driver, by any number at once; what changes
//! something, what others have to be asked and what the network knows goes through a queue of bounded length.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{RwLock, RwLockReadGuard, mpsc, oneshot};

use crate::net::driver::{ReadContext, Request};
use crate::net::wall_clock;
use crate::proto::identity::PeerKey;
use crate::proto::io::{Command, Reply};
use crate::proto::node::Node;
use crate::proto::query::PeerProfile;

/// How long a client waits for room in the driver's queue. A burst is over long before, at a few microseconds a request;
/// a queue that stays full is an overload, which nobody who waits longer would shorten.
const QUEUE_TIME_MAX: Duration = Duration::from_secs(1);

/// Asks the node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct NodeClient {
    node: Arc<RwLock<Node>>,
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
    pub(crate) fn new(node: Arc<RwLock<Node>>, requests: mpsc::Sender<Request>) -> NodeClient {
        NodeClient { node, requests }
    }

    /// Has the node carry out a command.
    pub(crate) async fn command(&self, command: Command, patience: Patience) -> Result<Reply, Unanswered> {
        if command.is_question()
            && let Some(reply) = self.recall(&command).await?
        {
            return Ok(reply);
        }
        let (reply, replied) = oneshot::channel();
        self.send(Request::Command(Box::new(command), reply), patience).await?;
        replied.await.map_err(|_| Unanswered::Stopped)
    }

    /// What memory answers. Where the driver holds the node for too long the question queues with the others.
    async fn recall(&self, question: &Command) -> Result<Option<Reply>, Unanswered> {
        let held = match self.node.try_read() {
            Ok(node) => Some(node),
            Err(_) => tokio::time::timeout(QUEUE_TIME_MAX, self.node.read()).await.ok(),
        };
        let node = held.map(|node| self.if_running(node)).transpose()?;
        Ok(node.and_then(|node| node.memory(wall_clock()).answer(question)))
    }

    /// Looks at the node beside the driver. What takes long is to be asked in parts: nobody changes anything meanwhile.
    pub(crate) async fn look<T>(&self, question: impl FnOnce(&Node) -> T) -> Result<T, Unanswered> {
        let node = self.if_running(self.node.read().await)?;
        Ok(question(&node))
    }

    /// A driver that broke down may have left anything.
    fn if_running<'a>(
        &self,
        node: RwLockReadGuard<'a, Node>,
    ) -> Result<RwLockReadGuard<'a, Node>, Unanswered> {
        if self.requests.is_closed() { Err(Unanswered::Stopped) } else { Ok(node) }
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
        self.look(|node| node.memory(wall_clock()).profile(&peer)).await.unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::*;
    use crate::proto::config::Config;
    use crate::proto::identity::Identity;
    use crate::proto::persistence::Stored;
    use crate::proto::query::Find;

    fn node() -> Node {
        Node::new(Identity::from_seed([7; 32]), Config::default(), [7; 32], Stored::default(), wall_clock())
    }

    /// Eight that never stop reading, and one that never stops writing.
    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn neither_a_flood_of_reads_nor_one_of_writes_starves_the_other() {
        const TURNS: u64 = 200;
        let node = Arc::new(RwLock::new(node()));
        let (requests, _requested) = mpsc::channel(1);
        let client = NodeClient::new(node.clone(), requests);
        let (over, read) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let readers: Vec<_> = (0..8)
            .map(|_| {
                let (client, over, read) = (client.clone(), over.clone(), read.clone());
                tokio::spawn(async move {
                    let question = Command::List(Find { limit: 1, local: true, ..Find::default() });
                    while !over.load(Ordering::Relaxed) {
                        assert!(client.recall(&question).await.unwrap().is_some());
                        read.fetch_add(1, Ordering::Relaxed);
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        let seen = read.clone();
        let writer = tokio::spawn(async move {
            let mut turns = 0;
            while turns < TURNS || seen.load(Ordering::Relaxed) < TURNS {
                turns += 1;
                let mut node = node.write().await;
                node.handle_timeout(wall_clock());
                while node.poll_output().is_some() {}
            }
        });
        let both = tokio::time::timeout(Duration::from_secs(30), writer);
        both.await.expect("each lets the other in").unwrap();
        over.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.await.unwrap();
        }
    }

    #[tokio::test]
    async fn nobody_reads_what_a_broken_driver_left() {
        let (requests, requested) = mpsc::channel(1);
        let client = NodeClient::new(Arc::new(RwLock::new(node())), requests);
        assert_eq!(client.look(|node| node.key()).await, Ok(Identity::from_seed([7; 32]).key()));
        drop(requested);
        assert_eq!(client.look(|node| node.key()).await, Err(Unanswered::Stopped));
        assert_eq!(client.command(Command::Owners, Patience::Client).await.err(), Some(Unanswered::Stopped));
    }
}
