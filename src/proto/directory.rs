//! The agents of all zones held here, and the questions that are answered from them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::identity::{AgentId, PeerKey};
use super::liveness::Presence;
use super::message::Alive;
use super::name::{AgentName, FullName, NameError, ZoneName};
use super::owners::Owners;
use super::persistence::Indexed;
use super::query::{Find, Found, PeerProfile, Replica, Resolution};
use super::record::Record;
use super::search::{Entry, Index, Page, Query, entry};
use super::time::Timestamp;
use super::zone::{Zone, Zones, presence};

/// Similar names offered for an unknown one.
const SUGGESTIONS_MAX: usize = 5;

/// Candidates that an answer names: each costs whoever reads it a look.
const CANDIDATES_MAX: usize = 10;
/// Agents of one original name that are looked at to see whether they have one name: a document has one, whoever publishes
/// it; a crowd that calls itself alike means nothing in particular.
const SAME_ORIGINAL_MAX: usize = 64;

/// What names depend on.
pub(super) struct Names<'a> {
    /// Where names without a zone are looked up first.
    pub(super) home: &'a ZoneName,
    pub(super) owners: &'a Owners,
    /// Zones of which nobody was heard yet: what they have is not known.
    pub(super) unheard: &'a BTreeSet<ZoneName>,
}

/// What a bare name stands for.
enum Bare {
    /// A name with its zone.
    Named(FullName),
    /// Nothing that is known.
    Unknown,
    /// It may stand for something in a zone that was not heard.
    Unheard,
}

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

    /// Takes what was indexed of the store's records before they were held: what stands of it need not be entered again.
    pub(super) fn begin_with(&mut self, zones: &mut Zones, indexed: Indexed) {
        let (index, mut entered) = indexed.into_parts();
        if entered.is_empty() {
            return;
        }
        self.index = index;
        zones.with_unindexed(|zone| {
            for (id, since) in zone.records.take_unindexed() {
                let record = entered.remove(&id);
                let best = best(zone, &id, since);
                if record.is_none() || record.map(|record| record.hash()) != best.map(|best| best.hash()) {
                    self.enter(id, best);
                }
            }
        });
        // They ended meanwhile, or there is no room for them.
        entered.keys().for_each(|id| self.index.remove(id));
    }

    /// Agents that match, best first, and the page that they are.
    pub(super) fn find(&self, now: Timestamp, zones: &Zones, find: &Find) -> (Vec<Found>, Page) {
        let query = Query { zones: only_served(zones, find), ..find.query.clone() };
        self.page(now, zones, &query, find)
    }

    /// Every agent of a zone and those below, or of all held zones, by name.
    pub(super) fn list(&self, now: Timestamp, zones: &Zones, find: &Find) -> (Vec<Found>, Page) {
        let zone = find.query.zone.clone();
        self.page(now, zones, &Query { zone, zones: only_served(zones, find), ..Query::default() }, find)
    }

    fn page(&self, now: Timestamp, zones: &Zones, query: &Query, find: &Find) -> (Vec<Found>, Page) {
        let page = self.up_to_date(zones).search(query, find.limit, find.after.as_ref());
        // By the zone of its name: a gateway has thousands, and a page is looked up in each.
        let found = page.hits.iter().filter_map(|hit| {
            let zone = &self.index.name(&hit.id)?.zone;
            let found = self.agent_in(now, zones.named(zone), &hit.id, hit.score)?;
            Some(Found { by_meaning: hit.by_meaning, ..found })
        });
        (found.collect(), page)
    }

    /// Agents of published documents after the name `after`, by the names that the documents have.
    pub(super) fn originals_after<'a>(
        &'a self,
        zones: &Zones,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = (Arc<str>, Vec<AgentId>)> + use<'a> {
        self.up_to_date(zones).originals_after(after)
    }

    /// The agents whose document has this name.
    pub(super) fn by_original_name(&self, zones: &Zones, name: &str) -> Vec<AgentId> {
        self.up_to_date(zones).by_original_name(name)
    }

    /// At most so many agents that are found by the words of a text.
    pub(super) fn ids_of(&self, zones: &Zones, text: &str, most: usize) -> BTreeSet<AgentId> {
        let query = Query { text: text.to_owned(), ..Query::default() };
        let hits = self.up_to_date(zones).search(&query, most, None).hits;
        hits.iter().filter(|hit| !hit.by_meaning).map(|hit| hit.id).collect()
    }

    /// What a user means: a full name, a bare name (home zone, then its ancestors), an id, or an original name.
    pub(super) fn resolve(&self, now: Timestamp, zones: &Zones, names: &Names<'_>, text: &str) -> Resolution {
        // An id means one agent whatever names there are, and needs no index.
        if let Some(found) = text.parse().ok().and_then(|id| self.agent(now, zones, &id, 0.0)) {
            return Resolution::One(found);
        }
        let index = self.up_to_date(zones);
        let named = match text.parse::<FullName>() {
            Ok(name) => Some(name).filter(|name| !index.by_name(name).is_empty()),
            Err(_) => match self.by_bare_name(zones, names, text) {
                Bare::Named(name) => Some(name),
                Bare::Unknown => None,
                // Never on after a failure: a name would mean something else while a zone cannot be asked.
                Bare::Unheard => return Resolution::NotSynced,
            },
        };
        if let Some(name) = named {
            let mut ids = index.by_name(&name);
            // What a bare name meant is gone: whoever has it in another zone of the list is a newcomer, too.
            if ids.is_empty() {
                ids = name.agent.search_list(names.home).flat_map(|name| index.by_name(&name)).collect();
            }
            return match ids.is_empty() {
                true => Resolution::Unknown,
                false => self.pick(now, zones, names, Some(&name), ids),
            };
        }
        // Original names last: a published document may call itself like somebody's agent.
        let ids = index.by_original_name(text);
        let looked_at = ids.iter().take(SAME_ORIGINAL_MAX).filter_map(|id| self.agent(now, zones, id, 0.0));
        let mut full: Vec<FullName> = looked_at.map(|found| found.record.name.clone()).collect();
        full.dedup();
        match full.as_slice() {
            [] => Resolution::Unknown,
            [name] => self.pick(now, zones, names, Some(name), ids),
            _ => self.pick(now, zones, names, None, ids),
        }
    }

    /// Which of the agents of one name is meant: the own host's, else that of the owner the name stands for, else the only
    /// one of a name that stands for nobody yet.
    fn pick(
        &self,
        now: Timestamp,
        zones: &Zones,
        names: &Names<'_>,
        name: Option<&FullName>,
        mut ids: Vec<AgentId>,
    ) -> Resolution {
        let is_own = |id: &AgentId| zones.values().any(|zone| zone.records.hosts(&self.key, id));
        let own: Vec<AgentId> = ids.iter().filter(|id| is_own(id)).copied().collect();
        let known = name.and_then(|name| names.owners.get(name)).filter(|_| own.len() != 1);
        let meant = known.map(|known| AgentId::of(known.owner, &known.name));
        if !own.is_empty() {
            ids = own;
        }
        let picked = match (meant, ids.as_slice()) {
            (Some(meant), ids) => ids.iter().find(|id| **id == meant),
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        if let Some(found) = picked.and_then(|id| self.agent(now, zones, id, 0.0)) {
            return Resolution::One(found);
        }
        let count = ids.len();
        // Ids can be ground: those of owners that are known for other names come first.
        let trusted: BTreeSet<AgentId> = name
            .map(|name| names.owners.iter().map(|known| AgentId::of(known.owner, name)).collect())
            .unwrap_or_default();
        ids.sort_by_key(|id| !trusted.contains(id));
        ids.truncate(CANDIDATES_MAX);
        Resolution::Ambiguous { candidates: ids, count, known: known.cloned() }
    }

    /// The full name under which a name is known as this owner's: a bare name is that of the nearest zone where he has such an
    /// agent, of the home zone if there is none. And whether it is bare.
    pub(super) fn name_of_owner(
        &mut self,
        zones: &mut Zones,
        home: &ZoneName,
        text: &str,
        owner: &PeerKey,
    ) -> Result<(FullName, bool), NameError> {
        if text.contains('@') {
            return Ok((text.parse()?, false));
        }
        let agent: AgentName = text.parse()?;
        self.catch_up(zones);
        let index = &self.index;
        let has_it = |name: &FullName| index.by_name(name).contains(&AgentId::of(*owner, name));
        let nearest = agent.search_list(home).find(has_it);
        Ok((nearest.unwrap_or_else(|| FullName { agent, zone: home.clone() }), true))
    }

    /// The agents of this name, by id.
    pub(super) fn by_name(&mut self, zones: &mut Zones, name: &FullName) -> Vec<AgentId> {
        self.catch_up(zones);
        self.index.by_name(name)
    }

    /// Enters what waits where more than `most` does.
    pub(super) fn keep_up(&mut self, zones: &mut Zones, most: usize) {
        if unindexed(zones) > most {
            self.catch_up(zones);
        }
    }

    /// Nothing of a zone is held any more.
    pub(super) fn forget<'a>(&mut self, agents: impl IntoIterator<Item = &'a AgentId>) {
        agents.into_iter().for_each(|id| self.index.remove(id));
    }

    /// Enters what waits, before anything is asked of the index.
    pub(super) fn catch_up(&mut self, zones: &mut Zones) {
        zones.with_unindexed(|zone| {
            for (id, since) in zone.records.take_unindexed() {
                self.enter(id, best(zone, &id, since));
            }
        });
    }

    /// Whether something waits for the index.
    pub(super) fn is_behind(&self, zones: &Zones) -> bool {
        unindexed(zones) > 0
    }

    /// Names that somebody who wrote `text` may have meant, the nearest first.
    pub(super) fn similar_names(&self, zones: &Zones, text: &str) -> Vec<FullName> {
        self.up_to_date(zones).similar_names(text, SUGGESTIONS_MAX)
    }

    /// The index, for whom nothing waits any more.
    fn up_to_date(&self, zones: &Zones) -> &Index {
        debug_assert!(!self.is_behind(zones), "records wait for the index");
        &self.index
    }

    fn enter(&mut self, id: AgentId, best: Option<&Arc<Record>>) {
        match best.and_then(|best| best.card().map(|card| (best, card))) {
            Some((best, card)) => self.index.insert(entry(id, &best.name, &card)),
            None => self.index.remove(&id),
        }
    }

    /// The zone in which a bare name is looked up: where this host has such an agent, else where the name was called before,
    /// else the first that has any.
    fn by_bare_name(&self, zones: &Zones, names: &Names<'_>, text: &str) -> Bare {
        let Ok(agent) = text.parse::<AgentName>() else { return Bare::Unknown };
        let is_own = |name: &FullName| {
            self.index
                .by_name(name)
                .iter()
                .any(|id| zones.get(&name.zone).is_some_and(|zone| zone.records.hosts(&self.key, id)))
        };
        let is_known = |name: &FullName| names.owners.get(name).is_some_and(|known| known.is_bare);
        let list = || agent.search_list(names.home);
        if let Some(name) = list().find(is_own).or_else(|| list().find(is_known)) {
            return Bare::Named(name);
        }
        for name in list() {
            if !self.index.by_name(&name).is_empty() {
                return Bare::Named(name);
            }
            if names.unheard.contains(&name.zone) {
                return Bare::Unheard;
            }
        }
        Bare::Unknown
    }

    pub(super) fn agent(&self, now: Timestamp, zones: &Zones, id: &AgentId, score: f32) -> Option<Found> {
        self.agent_in(now, zones.all(), id, score)
    }

    fn agent_in<'a>(
        &self,
        now: Timestamp,
        mut zones: impl Iterator<Item = &'a Zone>,
        id: &AgentId,
        score: f32,
    ) -> Option<Found> {
        let (zone, hosts) = zones.find_map(|zone| {
            let hosts: Vec<&Arc<Record>> = zone.registry().replicas(id, now).collect();
            (!hosts.is_empty()).then_some((zone, hosts))
        })?;
        let record = hosts.iter().max_by_key(|record| record.order()).copied()?.clone();
        let mut replicas: Vec<Replica> = hosts.iter().map(|host| self.replica(now, zone, host)).collect();
        // Unknown counts as reachable: a host that was never heard may have joined a moment ago.
        replicas.sort_by_key(|replica| (replica.presence == Presence::Unreachable, replica.peer()));
        Some(Found { id: *id, record, score, by_meaning: false, replicas })
    }

    /// An agent of which others sent these records, and said which hosts are alive.
    pub(super) fn told(
        &self,
        id: AgentId,
        records: &[Arc<Record>],
        alive: &[Alive],
        score: f32,
    ) -> Option<Found> {
        let record = records.iter().max_by_key(|record| record.order())?.clone();
        let replica = |record: &Arc<Record>| {
            let heard = alive.iter().find(|it| it.0 == record.host).map(|it| u64::from(it.1) * 1_000);
            let presence = if heard.is_some() { Presence::Reachable } else { Presence::Unknown };
            Replica { record: record.clone(), presence, seen_ms_ago: heard }
        };
        let mut replicas: Vec<Replica> = records.iter().map(replica).collect();
        replicas.sort_by_key(|replica| (replica.presence != Presence::Reachable, replica.peer()));
        Some(Found { id, record, score, by_meaning: false, replicas })
    }

    fn replica(&self, now: Timestamp, zone: &Zone, record: &Arc<Record>) -> Replica {
        let record = record.clone();
        if record.host == self.key {
            return Replica { record, presence: Presence::Reachable, seen_ms_ago: Some(0) };
        }
        let (presence, heard_at) = presence(zone, &record.host, now);
        let seen_ms_ago = heard_at.map(|at| now.since(at).as_millis() as u64);
        Replica { record, presence, seen_ms_ago }
    }
}

/// How many agents wait for the index.
fn unindexed(zones: &Zones) -> usize {
    let of_served = zones.values().map(|zone| zone.records.unindexed());
    of_served.sum::<usize>() + zones.below().unindexed()
}

/// One entry an agent: of several hosts' cards the greatest speaks for all.
fn best<'a>(zone: &'a Zone, id: &AgentId, since: Timestamp) -> Option<&'a Arc<Record>> {
    zone.registry().replicas(id, since).max_by_key(|replica| replica.order())
}

/// The zones to which a question is restricted that is about this node alone: replicas of zones below are none of its own.
fn only_served(zones: &Zones, find: &Find) -> Vec<ZoneName> {
    if find.local && !zones.below().is_empty() { zones.names() } else { Vec::new() }
}

/// Gives an index what it reads of an agent, by the greatest of its records.
pub(super) fn entry_of(id: AgentId, record: &Record, insert: impl FnOnce(Entry<'_>)) {
    if let Some(card) = record.card() {
        insert(entry(id, &record.name, &card));
    }
}

/// Since when a host was not heard, if it is alive by what a zone knows.
pub(super) fn presence_told(zone: &Zone, host: &PeerKey, now: Timestamp) -> Option<Duration> {
    match presence(zone, host, now) {
        (Presence::Reachable, Some(heard)) => Some(now.since(heard)),
        _ => None,
    }
}

/// What a peer is.
pub(super) fn profile(now: Timestamp, zones: &Zones, peer: &PeerKey) -> PeerProfile {
    let offers = |record: &&Arc<Record>| !record.is_tombstone() && !record.is_expired(now);
    let serves = |zone: &Zone| {
        zone.peers().contains(peer) || zone.liveness().presence(peer, now) == Presence::Reachable
    };
    let records = zones.values().flat_map(|zone| zone.registry().of_host(peer));
    PeerProfile {
        owners: records.filter(offers).map(|record| record.owner).collect(),
        zones: zones.values().filter(|zone| serves(zone)).map(|zone| zone.name().clone()).collect(),
    }
}
