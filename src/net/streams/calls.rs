//! Streams of calls: how they are opened, and with whom calls are under way, in either direction. Connections to those peers
//! are not closed as excess.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::AsyncReadExt;
use futures::future::Either;
use libp2p::{Stream, StreamProtocol};
use libp2p_stream::{Control, IncomingStreams, OpenStreamError};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use super::kept::{KeptStreams, OpenStream};
use super::sources::PeerSources;
use crate::net::addresses::peer_id;
use crate::net::refusals::Refusals;
use crate::proto::identity::PeerKey;

/// Bytes that wait in a stream within this node, either way.
const OWN_STREAM_BYTES: usize = 64 * 1024;

/// Streams within this node that wait to be served.
pub(crate) const OWN_STREAMS_MAX: usize = 32;

/// A stream of a call: to or from a peer, or within this node.
pub(crate) type CallStream = Either<Stream, Compat<DuplexStream>>;

/// Those that peers open, and those that this node opens to itself.
pub(crate) type InboundCalls = (IncomingStreams, mpsc::Receiver<CallStream>);

/// Opens call streams. Cheap to clone, usable from any task.
#[derive(Clone)]
pub(crate) struct CallStreams {
    pub(crate) own: PeerKey,
    /// Takes the far ends of the streams within this node.
    pub(crate) inward: mpsc::Sender<CallStream>,
    pub(crate) control: Control,
    pub(crate) protocol: StreamProtocol,
    pub(crate) open_calls: OpenCalls,
    pub(crate) kept: KeptStreams,
    pub(crate) sources: PeerSources,
    pub(crate) refusals: Refusals,
}

/// Counts the open calls of each peer. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct OpenCalls(Arc<Mutex<BTreeMap<PeerKey, usize>>>);

/// A call under way, until it is dropped.
pub(crate) struct OpenCall {
    calls: OpenCalls,
    peer: PeerKey,
}

impl CallStreams {
    /// Opens a stream to a host, this node itself included; how long that may take is for the caller to say.
    pub(crate) async fn open(&self, host: PeerKey) -> Result<OpenStream, String> {
        // Before it is opened: what changes meanwhile may or may not have changed its way.
        let upgrades = self.kept.upgrades();
        let stream = self.open_one(host).await?;
        Ok(OpenStream { halves: stream.split(), upgrades })
    }

    async fn open_one(&self, host: PeerKey) -> Result<CallStream, String> {
        if host == self.own {
            let (near, far) = duplex(OWN_STREAM_BYTES);
            let taken = self.inward.send(Either::Right(far.compat())).await;
            return taken.map(|()| Either::Right(near.compat())).map_err(|_| "this node stops".into());
        }
        // No retry as in conversations: the caller's machine counts its offers itself.
        let peer = peer_id(&host).ok_or("its key names no peer")?;
        let opened = self.control.clone().open_stream(peer, self.protocol.clone()).await;
        opened.map(Either::Left).map_err(|error| {
            tracing::debug!(%host, %error, "no call stream");
            let why = match error {
                OpenStreamError::UnsupportedProtocol(_) => "it takes no calls of this network",
                OpenStreamError::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                    "it did not answer"
                }
                _ => "none of its addresses answers",
            };
            why.into()
        })
    }
}

impl OpenCalls {
    pub(crate) fn open(&self, peer: PeerKey) -> OpenCall {
        *self.lock().entry(peer).or_default() += 1;
        OpenCall { calls: self.clone(), peer }
    }

    /// The peers with whom calls are under way.
    pub(crate) fn peers(&self) -> Vec<PeerKey> {
        self.lock().keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerKey, usize>> {
        // Every change is one step, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let mut peers = self.calls.lock();
        // Each call in flight was counted when it was opened, so the count is at least one.
        let left = peers.get_mut(&self.peer).map(|calls| {
            *calls -= 1;
            *calls
        });
        if left == Some(0) {
            peers.remove(&self.peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::identity::Identity;

    #[test]
    fn a_peer_is_named_until_its_last_call_ends() {
        let (calls, peer) = (OpenCalls::default(), Identity::from_seed([1; 32]).key());
        let (first, second) = (calls.open(peer), calls.open(peer));
        drop(first);
        assert_eq!(calls.peers(), [peer]);
        drop(second);
        assert!(calls.peers().is_empty());
    }
}
