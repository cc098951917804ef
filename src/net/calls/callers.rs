//! Who may call an agent that names its callers: peers, owners, zones.
//!
//! A key means the peer of that key, and every peer that offers an agent on behalf of that owner: its grants came with
//! the record. A zone means the peers that serve it or a zone below it. In an open zone whoever says so serves it, so
//! there a zone keeps out those who came by mistake and nobody else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::net::Handle;
use crate::proto::directory::PeerProfile;
use crate::proto::identity::PeerKey;
use crate::proto::name::ZoneName;

/// How long what a peer is counts. Finding out takes a look at every record, which no peer may cause often.
const STANDING_KEPT: Duration = Duration::from_secs(10);
/// Peers whose standing is kept; as many as may be connected.
const STANDINGS_MAX: usize = 512;

/// What the peers that called are.
#[derive(Default)]
pub(super) struct Standings(Mutex<BTreeMap<PeerKey, (Instant, Arc<PeerProfile>)>>);

impl Standings {
    /// Whether one of `callers` means this peer.
    pub(super) async fn includes(&self, handle: &Handle, callers: &[String], peer: PeerKey) -> bool {
        if callers.iter().any(|caller| caller.parse() == Ok(peer)) {
            return true;
        }
        let standing = self.of(handle, peer).await;
        callers.iter().any(|caller| match (caller.parse::<PeerKey>(), caller.parse::<ZoneName>()) {
            (Ok(owner), _) => standing.owners.contains(&owner),
            (_, Ok(zone)) => standing.zones.iter().any(|served| served.is_within(&zone)),
            _ => false,
        })
    }

    async fn of(&self, handle: &Handle, peer: PeerKey) -> Arc<PeerProfile> {
        let known = self.lock().get(&peer).filter(|(since, _)| since.elapsed() < STANDING_KEPT).cloned();
        if let Some((_, standing)) = known {
            return standing;
        }
        let standing = Arc::new(handle.standing(peer).await);
        let mut known = self.lock();
        if known.len() >= STANDINGS_MAX {
            known.retain(|_, (since, _)| since.elapsed() < STANDING_KEPT);
        }
        if known.len() < STANDINGS_MAX {
            known.insert(peer, (Instant::now(), standing.clone()));
        }
        standing
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerKey, (Instant, Arc<PeerProfile>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
