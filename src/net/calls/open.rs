//! With whom calls are under way, in either direction: connections to those peers are not closed as excess.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::proto::identity::PeerKey;

/// Counts the open calls of each peer. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct OpenCalls(Arc<Mutex<BTreeMap<PeerKey, usize>>>);

/// A call under way, until it is dropped.
pub(crate) struct OpenCall {
    calls: OpenCalls,
    peer: PeerKey,
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let mut peers = self.calls.lock();
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
