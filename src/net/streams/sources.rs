//! Where connected peers come from, for whoever counts what they take.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::proto::address_block::Source;
use crate::proto::identity::PeerKey;

/// The source of each connected peer that has one. Cheap to clone; all clones are one table.
#[derive(Clone, Debug, Default)]
pub(crate) struct PeerSources(Arc<Mutex<BTreeMap<PeerKey, Source>>>);

impl PeerSources {
    /// A peer is connected; a second connection from elsewhere changes nothing.
    pub(crate) fn connected(&self, peer: PeerKey, source: Option<Source>) {
        if let Some(source) = source {
            self.lock().entry(peer).or_insert(source);
        }
    }

    /// The last connection of a peer is gone.
    pub(crate) fn disconnected(&self, peer: &PeerKey) {
        self.lock().remove(peer);
    }

    /// The source whose share a peer's streams and calls count against.
    pub(crate) fn of(&self, peer: &PeerKey) -> Option<Source> {
        self.lock().get(peer).copied()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerKey, Source>> {
        // Every change is one step, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
