//! Who may call an agent of this host: whoever knows it, or whom it names, peers, owners, zones.
//!
//! A key means the peer of that key, and every peer that offers an agent on behalf of that owner: its grants came with
//! the record. A zone means the peers that serve it or a zone below it. In an open zone whoever says so serves it, so
//! there a zone keeps out those who came by mistake and nobody else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::agents::{Agents, HostedAgent};
use crate::net::client::NodeClient;
use crate::proto::call::{Access, CallOffer};
use crate::proto::card::Scope;
use crate::proto::grant::Grant;
use crate::proto::identity::{AgentId, PeerKey};
use crate::proto::name::{FullName, ZoneName};
use crate::proto::query::PeerProfile;

/// How long what a peer is counts. Finding out takes a look at every record, which no peer may cause often.
const PROFILE_KEPT: Duration = Duration::from_secs(10);
/// Peers whose profile is kept; as many as may be connected.
const PROFILES_MAX: usize = 512;

/// The agents of this host, and what the peers that called are. The node is asked only where an agent names its callers, so
/// calls go on while it is busy with its registry.
pub(super) struct AccessControl {
    agents: Agents,
    own: PeerKey,
    node: NodeClient,
    profiles: PeerProfileCache,
}

#[derive(Default)]
struct PeerProfileCache(Mutex<BTreeMap<PeerKey, (Instant, Arc<PeerProfile>)>>);

impl AccessControl {
    pub(super) fn new(agents: Agents, own: PeerKey, node: NodeClient) -> AccessControl {
        AccessControl { agents, own, node, profiles: PeerProfileCache::default() }
    }

    /// Whether the agent runs here and this peer may call it. Clients of this node may call what is here.
    pub(super) async fn of(&self, peer: PeerKey, offer: &CallOffer) -> Access {
        let list = self.agents.list();
        let offered = list.get(&offer.name).filter(|local| self.offers(&offer.name, local, offer.agent_id()));
        let Some(run_config) = offered.and_then(|local| local.run_config.as_ref()) else {
            return Access::NotFound;
        };
        let callers = &run_config.callers;
        if callers.is_empty() || peer == self.own || self.includes(callers, peer).await {
            Access::Granted
        } else {
            Access::NotAllowed
        }
    }

    /// Whether the world may know that this host offers the agent of this id. An agent of `node` scope is as unknown as
    /// one that is not there.
    fn offers(&self, name: &FullName, local: &HostedAgent, id: AgentId) -> bool {
        // Read and not verified: the grants are this node's own, and only the owner's key is needed.
        let first = local.offer.grants.first().map(|signed| Grant::read(signed));
        let owner = match first {
            None => self.own,
            Some(Ok(grant)) => grant.issuer,
            Some(Err(_)) => return false,
        };
        local.offer.scope == Scope::Public && AgentId::of(owner, name) == id
    }

    /// Whether one of `callers` means this peer.
    async fn includes(&self, callers: &[String], peer: PeerKey) -> bool {
        // A peer that is named itself needs no profile, so the node is not asked.
        if callers.iter().any(|caller| caller.parse() == Ok(peer)) {
            return true;
        }
        let profile = self.profiles.of(&self.node, peer).await;
        // No text is both: every PeerId has capitals, and no zone has any.
        callers.iter().any(|caller| match (caller.parse::<PeerKey>(), caller.parse::<ZoneName>()) {
            (Ok(owner), _) => profile.owners.contains(&owner),
            (_, Ok(zone)) => profile.zones.iter().any(|served| served.is_within(&zone)),
            _ => false,
        })
    }
}

impl PeerProfileCache {
    async fn of(&self, node: &NodeClient, peer: PeerKey) -> Arc<PeerProfile> {
        // The lock ends with this statement: asking the node may take a while, and two may ask at once.
        let known = self.lock().get(&peer).filter(|(since, _)| since.elapsed() < PROFILE_KEPT).cloned();
        if let Some((_, profile)) = known {
            return profile;
        }
        let profile = Arc::new(node.profile(peer).await);
        let mut known = self.lock();
        // Swept only when full: until then an old profile costs no more than its place.
        if known.len() >= PROFILES_MAX {
            known.retain(|_, (since, _)| since.elapsed() < PROFILE_KEPT);
        }
        // Where all others are fresh, this peer is simply asked about again.
        if known.len() < PROFILES_MAX {
            known.insert(peer, (Instant::now(), profile.clone()));
        }
        profile
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerKey, (Instant, Arc<PeerProfile>)>> {
        // Every change of the map is one step, so a panic under the lock leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
