//! Questions that are answered from memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Node, NodeAlert, Zone};
use crate::proto::card::AgentCard;
use crate::proto::fingerprint::{self, Digest, Prefix};
use crate::proto::identity::{AgentId, PeerKey};
use crate::proto::index::{Cursor, Query};
use crate::proto::liveness::Presence;
use crate::proto::name::{FullName, ZoneName};
use crate::proto::record::{Author, KeyHash, Record};
use crate::proto::time::Timestamp;

/// Similar names offered for an unknown one.
const SUGGESTIONS_MAX: usize = 5;

/// An agent with its hosts.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its id.
    pub id: AgentId,
    /// The greatest of its live records.
    pub record: Arc<Record>,
    /// Rank; 0 where nothing was searched for.
    pub score: f32,
    /// Its hosts, reachable ones first.
    pub replicas: Vec<Replica>,
}

/// One host of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The host.
    pub peer: PeerKey,
    /// Whether it answers.
    pub presence: Presence,
    /// Milliseconds since it was last heard; none if never.
    pub seen_ms_ago: Option<u64>,
}

/// What a name given by a user stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// One agent.
    One(AgentId),
    /// One name, several owners: a caller must pick by id.
    Ambiguous(Vec<AgentId>),
    /// No such agent in what is held here; names that are similar.
    Unknown(Vec<FullName>),
}

/// What a peer is, as far as the records and beacons held here tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The owners on whose behalf it offers agents; their grants were verified with the records.
    pub owners: BTreeSet<PeerKey>,
    /// The zones it serves, of those replicated here. In an open zone this is its own word.
    pub zones: BTreeSet<ZoneName>,
}

/// State of one replicated zone.
#[derive(Clone, Debug)]
pub struct ZoneState {
    /// The zone.
    pub zone: ZoneName,
    /// Whether this node is a member; else it follows.
    pub member: bool,
    /// Records held, tombstones included.
    pub records: usize,
    /// Agents held.
    pub agents: usize,
    /// Bytes of the records.
    pub bytes: usize,
    /// Fingerprint of what expires after `as_of`.
    pub fingerprint: Digest,
    /// See there.
    pub as_of: Timestamp,
    /// Connected peers that serve the zone.
    pub peers: Vec<PeerKey>,
    /// Live members, this node included if it is one.
    pub members: usize,
    /// Since when an author is known to have written more than is held.
    pub behind_since: Option<Timestamp>,
    /// The end of the last finished sync.
    pub synced_at: Option<Timestamp>,
    /// Gap-free prefix of each author, the own included.
    pub versions: Vec<(Author, u64)>,
}

impl Node {
    /// Agents that match, best first, and where the next page begins.
    pub fn find(
        &mut self,
        now: Timestamp,
        query: &Query,
        limit: usize,
        after: Option<&Cursor>,
    ) -> (Vec<Found>, Option<Cursor>) {
        let page = self.indexed().search(query, limit, after);
        let found = page.hits.iter().filter_map(|hit| self.found(now, &hit.id, hit.score)).collect();
        (found, page.next)
    }

    /// Every agent of a zone and those below, or of all held zones, by name.
    pub fn list(
        &mut self,
        now: Timestamp,
        zone: Option<&ZoneName>,
        limit: usize,
        after: Option<&Cursor>,
    ) -> (Vec<Found>, Option<Cursor>) {
        let page = self.indexed().list(zone, limit, after);
        (page.hits.iter().filter_map(|hit| self.found(now, &hit.id, 0.0)).collect(), page.next)
    }

    /// One agent by id.
    pub fn agent(&self, now: Timestamp, id: &AgentId) -> Option<Found> {
        self.found(now, id, 0.0)
    }

    /// What a user means: a full name, a bare name (home zone, then its ancestors), an id, or an original name.
    pub fn resolve(&mut self, text: &str) -> Resolution {
        if let Ok(id) = text.parse::<AgentId>()
            && self.zones.keys().any(|zone| self.holds(zone, &id))
        {
            return Resolution::One(id);
        }
        self.indexed();
        let named = match text.parse::<FullName>() {
            Ok(name) => self.index.by_name(&name),
            Err(_) => self.resolve_bare(text),
        };
        let ids = if named.is_empty() { self.index.by_original_name(text) } else { named };
        match ids.as_slice() {
            [] => Resolution::Unknown(self.index.similar_names(text, SUGGESTIONS_MAX)),
            [id] => Resolution::One(*id),
            _ => Resolution::Ambiguous(ids),
        }
    }

    /// State of every zone.
    pub fn zone_states(&mut self, now: Timestamp) -> Vec<ZoneState> {
        let own = self.author();
        let as_of = fingerprint::as_of(now);
        let state = |(name, zone): (&ZoneName, &mut Box<Zone>)| {
            let own_version = (zone.seq > 0).then_some((own, zone.seq));
            let seen = zone.registry.vector().iter().filter(|(author, _)| **author != own);
            let versions = seen.map(|(author, prefix)| (*author, prefix)).chain(own_version).collect();
            ZoneState {
                zone: name.clone(),
                member: zone.member,
                records: zone.registry.len(),
                agents: zone.agents.len(),
                bytes: zone.registry.bytes(),
                fingerprint: zone.registry.digest(Prefix::ROOT, as_of),
                as_of,
                peers: zone.peers.iter().copied().collect(),
                members: zone.liveness.live(now) + usize::from(zone.member),
                behind_since: zone.behind_since,
                synced_at: zone.synced_at,
                versions,
            }
        };
        self.zones.iter_mut().map(state).collect()
    }

    /// Whether every zone was compared with a peer since the start.
    pub fn is_synced(&self) -> bool {
        self.zones.values().all(|zone| zone.synced_at.is_some())
    }

    /// Zones replicated here.
    pub fn held_zones(&self) -> impl Iterator<Item = &ZoneName> {
        self.zones.keys()
    }

    /// Zones a connected peer serves, of those replicated here.
    pub fn zones_of(&self, peer: &PeerKey) -> impl Iterator<Item = &ZoneName> {
        self.zones.iter().filter(|(_, zone)| zone.peers.contains(peer)).map(|(name, _)| name)
    }

    /// What a peer is. Looks at every held record.
    pub fn standing(&self, peer: &PeerKey, now: Timestamp) -> Standing {
        let offers =
            |record: &&Arc<Record>| record.host == *peer && !record.is_tombstone() && !record.is_expired(now);
        let serves = |zone: &Zone| {
            zone.peers.contains(peer) || zone.liveness.presence(peer, now) == Presence::Reachable
        };
        let records = self.zones.values().flat_map(|zone| zone.registry.iter());
        Standing {
            owners: records.filter(offers).map(|record| record.owner).collect(),
            zones: self.zones.iter().filter(|(_, zone)| serves(zone)).map(|(name, _)| name.clone()).collect(),
        }
    }

    /// The local clock minus the median of the peers' clocks, milliseconds.
    pub fn clock_offset_ms(&self) -> i64 {
        let clocks = self.zones.values().flat_map(|zone| zone.liveness.clocks());
        let mut clocks: Vec<(PeerKey, Timestamp, i64)> = clocks.collect();
        clocks.sort_unstable();
        let heard = clocks.into_iter().map(|(peer, _, offset)| (peer, offset));
        let latest: BTreeMap<PeerKey, i64> = heard.chain(self.clock_offsets.clone()).collect();
        let mut offsets: Vec<i64> = latest.into_values().collect();
        offsets.sort_unstable();
        offsets.get(offsets.len() / 2).map_or(0, |offset| -offset)
    }

    /// A peer's clock minus ours, milliseconds.
    pub fn clock_offset_of(&self, peer: &PeerKey) -> Option<i64> {
        let heard = self.zones.values().filter_map(|zone| zone.liveness.clock_of(peer));
        self.clock_offsets.get(peer).copied().or_else(|| heard.max().map(|(_, _, offset)| offset))
    }

    /// When a peer's last beacon came.
    pub fn heard_at(&self, peer: &PeerKey) -> Option<Timestamp> {
        self.zones.values().filter_map(|zone| zone.liveness.heard_at(peer)).max()
    }

    /// What an operator should know.
    pub fn problems(&self) -> impl Iterator<Item = &NodeAlert> {
        self.problems.iter()
    }

    /// All held records of a zone, for checkers.
    pub fn records(&self, zone: &ZoneName) -> impl Iterator<Item = &Arc<Record>> {
        self.zones.get(zone).into_iter().flat_map(|zone| zone.registry.iter())
    }

    /// The held record of a key, for checkers.
    pub fn record(&self, zone: &ZoneName, key: &KeyHash) -> Option<&Arc<Record>> {
        self.zones.get(zone).and_then(|zone| zone.registry.get(key))
    }

    /// Fingerprint of a whole zone, for checkers.
    pub fn fingerprint(&mut self, zone: &ZoneName, as_of: Timestamp) -> Option<Digest> {
        self.zones.get_mut(zone).map(|zone| zone.registry.digest(Prefix::ROOT, as_of))
    }

    fn resolve_bare(&self, text: &str) -> Vec<AgentId> {
        let home = self.home_zone();
        let zones = std::iter::once(home.clone()).chain(home.ancestors());
        let Ok(agent) = text.parse() else { return Vec::new() };
        let mut names =
            zones.map(|zone| FullName { agent: crate::proto::name::AgentName::clone(&agent), zone });
        names
            .find_map(|name| Some(self.index.by_name(&name)).filter(|ids| !ids.is_empty()))
            .unwrap_or_default()
    }

    fn holds(&self, zone: &ZoneName, id: &AgentId) -> bool {
        self.zones.get(zone).is_some_and(|zone| zone.registry.replicas(id, self.last_now).next().is_some())
    }

    fn found(&self, now: Timestamp, id: &AgentId, score: f32) -> Option<Found> {
        let (name, zone) =
            self.zones.iter().find(|(_, zone)| zone.registry.replicas(id, now).next().is_some())?;
        let hosts: Vec<&Arc<Record>> = zone.registry.replicas(id, now).collect();
        let record = hosts.iter().max_by_key(|record| record.order()).copied()?.clone();
        let mut replicas: Vec<Replica> = hosts.iter().map(|host| self.replica(now, name, host)).collect();
        replicas.sort_by_key(|replica| (replica.presence == Presence::Unreachable, replica.peer));
        Some(Found { id: *id, record, score, replicas })
    }

    fn replica(&self, now: Timestamp, zone: &ZoneName, record: &Record) -> Replica {
        let peer = record.host;
        if peer == self.key() {
            return Replica { peer, presence: Presence::Reachable, seen_ms_ago: Some(0) };
        }
        let Some(liveness) = self.zones.get(zone).map(|zone| &zone.liveness) else {
            return Replica { peer, presence: Presence::Unknown, seen_ms_ago: None };
        };
        let seen_ms_ago = liveness.heard_at(&peer).map(|at| now.since(at).as_millis() as u64);
        Replica { peer, presence: liveness.presence(&peer, now), seen_ms_ago }
    }
}

impl Found {
    /// The card of the record. Decoded here and not where the node answers: that is one task for all askers.
    pub fn card(&self) -> AgentCard {
        self.record.card().unwrap_or_default()
    }
}
