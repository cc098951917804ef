//! The agents of all zones held here, and the questions that are answered from them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::identity::{AgentId, PeerKey};
use super::liveness::Presence;
use super::name::{AgentName, FullName, ZoneName};
use super::query::{Answer, Find, Found, PeerProfile, Replica, Resolution, ZoneAnswer, ZoneStatus};
use super::record::Record;
use super::search::{Entry, Index};
use super::time::Timestamp;
use super::zone::{Zone, Zones};

/// Similar names offered for an unknown one.
const SUGGESTIONS_MAX: usize = 5;
/// Agents that may wait for the index: as many as enter it in about 5 ms, which whoever asks next then waits.
const UNINDEXED_MAX: usize = 256;

/// The index over all zones, kept as late as questions allow.
pub(super) struct Directory {
    key: PeerKey,
    index: Index,
}

impl Directory {
    /// Of the node with this key, which is reachable for itself.
    pub(super) fn new(key: PeerKey) -> Directory {
        Directory { key, index: Index::new() }
    }

    /// Agents that match, best first, and where the next page begins.
    pub(super) fn find(
        &mut self,
        now: Timestamp,
        zones: &mut Zones,
        find: &Find,
        answer: impl Fn(&Zone) -> ZoneAnswer,
    ) -> Answer {
        let page = self.indexed(zones).search(&find.query, find.limit, find.after.as_ref());
        let found = page.hits.iter().filter_map(|hit| self.agent(now, zones, &hit.id, hit.score)).collect();
        Answer { found, next: page.next, zones: scope(zones, find, answer) }
    }

    /// Every agent of a zone and those below, or of all held zones, by name.
    pub(super) fn list(
        &mut self,
        now: Timestamp,
        zones: &mut Zones,
        find: &Find,
        answer: impl Fn(&Zone) -> ZoneAnswer,
    ) -> Answer {
        let page = self.indexed(zones).list(find.query.zone.as_ref(), find.limit, find.after.as_ref());
        let found = page.hits.iter().filter_map(|hit| self.agent(now, zones, &hit.id, 0.0)).collect();
        Answer { found, next: page.next, zones: scope(zones, find, answer) }
    }

    /// What a user means: a full name, a bare name (home zone, then its ancestors), an id, or an original name.
    pub(super) fn resolve(
        &mut self,
        now: Timestamp,
        zones: &mut Zones,
        home: &ZoneName,
        text: &str,
    ) -> Resolution {
        // An id means one agent whatever names there are, and needs no index.
        if let Some(found) = text.parse().ok().and_then(|id| self.agent(now, zones, &id, 0.0)) {
            return Resolution::One(found);
        }
        self.indexed(zones);
        let named = match text.parse::<FullName>() {
            Ok(name) => self.index.by_name(&name),
            Err(_) => self.by_bare_name(home, text),
        };
        // Original names last: a published document may call itself like somebody's agent.
        let ids = if named.is_empty() { self.index.by_original_name(text) } else { named };
        match ids.as_slice() {
            [] => Resolution::Unknown(self.index.similar_names(text, SUGGESTIONS_MAX)),
            [id] => self.agent(now, zones, id, 0.0).map_or(Resolution::Unknown(Vec::new()), Resolution::One),
            _ => Resolution::Ambiguous(ids),
        }
    }

    /// The agents of this name, by id.
    pub(super) fn by_name(&mut self, zones: &mut Zones, name: &FullName) -> Vec<AgentId> {
        self.indexed(zones).by_name(name)
    }

    /// Enters what waits where too much does.
    pub(super) fn keep_up(&mut self, zones: &mut Zones) {
        if zones.values().any(|zone| zone.records.unindexed() > UNINDEXED_MAX) {
            self.indexed(zones);
        }
    }

    /// Nothing of a zone is held any more.
    pub(super) fn forget(&mut self, agents: &BTreeSet<AgentId>) {
        agents.iter().for_each(|id| self.index.remove(id));
    }

    /// The index, with everything that waited for it.
    fn indexed(&mut self, zones: &mut Zones) -> &Index {
        for zone in zones.values_mut() {
            for (id, since) in zone.records.take_unindexed() {
                // One entry an agent: of several hosts' cards the greatest speaks for all.
                let best = zone.registry().replicas(&id, since).max_by_key(|replica| replica.order());
                let Some((best, card)) = best.and_then(|best| best.card().map(|card| (best, card))) else {
                    self.index.remove(&id);
                    continue;
                };
                self.index.insert(Entry {
                    id,
                    name: &best.name,
                    title: card.title.as_deref(),
                    original_name: card.original_name.as_deref(),
                    tags: &card.tags,
                    capabilities: &card.capabilities,
                    description: &card.description,
                });
            }
        }
        &self.index
    }

    fn by_bare_name(&self, home: &ZoneName, text: &str) -> Vec<AgentId> {
        let Ok(agent) = text.parse::<AgentName>() else { return Vec::new() };
        let mut names = std::iter::once(home.clone())
            .chain(home.ancestors())
            .map(|zone| FullName { agent: agent.clone(), zone });
        names
            .find_map(|name| Some(self.index.by_name(&name)).filter(|ids| !ids.is_empty()))
            .unwrap_or_default()
    }

    pub(super) fn agent(&self, now: Timestamp, zones: &Zones, id: &AgentId, score: f32) -> Option<Found> {
        let zone = zones.values().find(|zone| zone.registry().replicas(id, now).next().is_some())?;
        let hosts: Vec<&Arc<Record>> = zone.registry().replicas(id, now).collect();
        let record = hosts.iter().max_by_key(|record| record.order()).copied()?.clone();
        let mut replicas: Vec<Replica> = hosts.iter().map(|host| self.replica(now, zone, host)).collect();
        // Unknown counts as reachable: a host that was never heard may have joined a moment ago.
        replicas.sort_by_key(|replica| (replica.presence == Presence::Unreachable, replica.peer));
        Some(Found { id: *id, record, score, replicas })
    }

    fn replica(&self, now: Timestamp, zone: &Zone, record: &Record) -> Replica {
        let peer = record.host;
        if peer == self.key {
            return Replica { peer, presence: Presence::Reachable, seen_ms_ago: Some(0) };
        }
        let seen_ms_ago = zone.liveness().heard_at(&peer).map(|at| now.since(at).as_millis() as u64);
        Replica { peer, presence: zone.liveness().presence(&peer, now), seen_ms_ago }
    }
}

/// What this node can say of the zones of the asked scope.
fn scope(zones: &Zones, find: &Find, answer: impl Fn(&Zone) -> ZoneAnswer) -> Vec<ZoneAnswer> {
    let root = ZoneName::root();
    let asked = find.query.zone.as_ref().unwrap_or(&root);
    let held = zones.values().filter(|zone| zone.name().is_within(asked));
    let mut answers: Vec<ZoneAnswer> = held.map(|zone| answer(zone)).collect();
    // What lies above the held zones, or the asked zone itself, is not known here.
    if !find.local && !zones.contains_key(asked) {
        answers.push(ZoneAnswer { zone: asked.clone(), status: ZoneStatus::Unreachable, age: None });
    }
    answers
}

/// What a peer is. Looks at every held record.
pub(super) fn profile(now: Timestamp, zones: &Zones, peer: &PeerKey) -> PeerProfile {
    let offers =
        |record: &&Arc<Record>| record.host == *peer && !record.is_tombstone() && !record.is_expired(now);
    let serves = |zone: &Zone| {
        zone.peers().contains(peer) || zone.liveness().presence(peer, now) == Presence::Reachable
    };
    let records = zones.values().flat_map(|zone| zone.registry().iter());
    PeerProfile {
        owners: records.filter(offers).map(|record| record.owner).collect(),
        zones: zones.values().filter(|zone| serves(zone)).map(|zone| zone.name().clone()).collect(),
    }
}
