//! What a node answers from memory: all that it knows, for looking only. Any number may look at once, beside whoever writes,
//! as long as nothing waits for the index ([`Turn::catch_up`](super::turn::Turn::catch_up)).

use std::sync::Arc;

use super::Node;
use super::names::is_denied;
use super::unite::condensed;
use crate::proto::ask::Knowledge;
use crate::proto::config::Config;
use crate::proto::directory::{self, Directory, Names};
use crate::proto::documents::{DocumentQuery, Vouched};
use crate::proto::identity::{AgentId, PeerKey};
use crate::proto::io::{Command, Reply};
use crate::proto::links::Links;
use crate::proto::name::{AgentName, FullName, ZoneName};
use crate::proto::overlay::Overlay;
use crate::proto::own_records::OwnRecords;
use crate::proto::owners::Owners;
use crate::proto::query::{Answer, Find, PeerProfile, Resolution, Uses, ZoneAnswer, ZoneStatus};
use crate::proto::record::Record;
use crate::proto::resolver::MemoryCounts;
use crate::proto::search::Query;
use crate::proto::time::Timestamp;
use crate::proto::zone::{Zone, Zones};

/// All that a node knows at a time.
#[derive(Clone, Copy)]
pub struct Memory<'a> {
    pub(super) now: Timestamp,
    pub(super) config: &'a Config,
    /// As of [`Context`](crate::proto::context::Context).
    pub(super) unsafe_offset: Option<i64>,
    pub(super) zones: &'a Zones,
    pub(super) links: &'a Links,
    pub(super) own: &'a OwnRecords,
    pub(super) owners: &'a Owners,
    pub(super) directory: &'a Directory,
    pub(super) overlay: &'a Overlay,
    pub(super) counts: &'a MemoryCounts,
}

impl Node {
    /// What this node knows at `now`.
    pub fn memory(&self, now: Timestamp) -> Memory<'_> {
        Memory {
            now,
            config: &self.local.config,
            unsafe_offset: self.clock.unsafe_offset(),
            zones: &self.zones,
            links: &self.links,
            own: &self.own,
            owners: &self.owners,
            directory: &self.directory,
            overlay: &self.overlay,
            counts: &self.resolver.from_memory,
        }
    }
}

impl Memory<'_> {
    /// The answer to a question, as the node itself would give it; none where others have to be asked, or something changes, and
    /// while records wait for the index.
    pub fn answer(&self, question: &Command) -> Option<Reply> {
        if self.directory.is_behind(self.zones) {
            return None;
        }
        match question {
            Command::Find(find) => self.search(find, false).map(Reply::Found),
            Command::List(find) => self.search(find, true).map(Reply::Found),
            Command::Resolve(text) => self.decided(text).map(Reply::Resolved),
            Command::Owners => Some(self.known_owners()),
            _ => None,
        }
    }

    /// Published documents that this node answers for, one of each name, by name. Zones that are held here alone are asked.
    pub fn documents(&self, query: &DocumentQuery) -> Vec<Arc<Record>> {
        self.vouched().list(self.zones, self.directory, query)
    }

    /// The published document of a name, if this node answers for one.
    pub fn document(&self, name: &str) -> Option<Arc<Record>> {
        self.vouched().named(self.zones, self.directory, name)
    }

    fn vouched(&self) -> Vouched<'_> {
        let own = self.own.author().key;
        Vouched::new(self.now, own, &self.own.imports, self.config, self.owners)
    }

    /// Names of agents held here that somebody who wrote `text` may have meant, the nearest first, at most five.
    pub fn similar_names(&self, text: &str) -> Vec<FullName> {
        self.directory.similar_names(self.zones, text)
    }

    /// What a peer is.
    pub fn profile(&self, peer: &PeerKey) -> PeerProfile {
        directory::profile(self.now, self.zones, peer)
    }

    /// What is held here of a search, where that is all of it or others are not to be asked.
    fn search(&self, find: &Find, by_name: bool) -> Option<Answer> {
        let zones = self.cover(find);
        if self.asks_others(find, &zones) {
            return None;
        }
        self.counts.client();
        Some(self.alone_answer(find, by_name, zones))
    }

    /// Whether others may know more than what is held here.
    pub(super) fn asks_others(&self, find: &Find, zones: &[ZoneAnswer]) -> bool {
        !find.local && (self.is_unsure(&scope(find)) || zones.iter().any(|zone| !zone.status.is_fine()))
    }

    /// The answer where nobody else is asked, with what is said of the zones.
    pub(super) fn alone_answer(&self, find: &Find, by_name: bool, zones: Vec<ZoneAnswer>) -> Answer {
        let zones = self.alone(find, zones);
        self.count_replicas(&zones);
        let Answer { found, next, zones } = self.found_here(find, by_name, zones);
        Answer { found, next, zones: condensed(&scope(find), zones) }
    }

    /// What memory answers.
    pub(super) fn found_here(&self, find: &Find, by_name: bool, zones: Vec<ZoneAnswer>) -> Answer {
        let (found, page) = match by_name {
            true => self.directory.list(self.now, self.zones, find),
            false => self.directory.find(self.now, self.zones, find),
        };
        Answer { found, next: page.next, zones }
    }

    /// Counts an answer out of memory that replicas had a part in.
    pub(super) fn count_replicas(&self, zones: &[ZoneAnswer]) {
        let is_replica =
            |it: &ZoneAnswer| !self.zones.contains_key(&it.zone) && self.overlay.below().follows(&it.zone);
        let worst = zones.iter().filter(|it| is_replica(it)).map(|it| match it.status {
            ZoneStatus::Unreachable => Uses { misses: 1, ..Uses::default() },
            ZoneStatus::Stale => Uses { stale: 1, ..Uses::default() },
            _ => Uses { hits: 1, ..Uses::default() },
        });
        if let Some(uses) = worst.max_by_key(|uses| (uses.misses, uses.stale)) {
            self.counts.replicas(uses);
        }
    }

    /// Whom a text means by what is held here.
    pub(super) fn resolve(&self, text: &str) -> Resolution {
        let home = self.config.home_zone();
        let is_unheard =
            |zone: &Zone| zone.answer(self.links, self.config, self.now).status == ZoneStatus::Unreachable;
        let unheard =
            self.zones.values().filter(|zone| is_unheard(zone)).map(|zone| zone.name().clone()).collect();
        let names = Names { home: &home, owners: self.owners, unheard: &unheard };
        match self.directory.resolve(self.now, self.zones, &names, text) {
            Resolution::Unknown if !unheard.is_empty() => Resolution::NotSynced,
            resolution => resolution,
        }
    }

    /// The same where nobody else could say more.
    fn decided(&self, text: &str) -> Option<Resolution> {
        let resolution = self.resolve(text);
        let is_open = match &resolution {
            Resolution::One(_) | Resolution::Ambiguous { .. } => false,
            Resolution::Unknown | Resolution::NotSynced => {
                text.parse::<AgentId>().is_ok() || !self.open_names(text).is_empty()
            }
        };
        if is_open {
            return None;
        }
        if matches!(resolution, Resolution::Unknown | Resolution::NotSynced) {
            self.counts.client();
        }
        Some(resolution)
    }

    /// Whom names mean here, by name.
    pub(super) fn known_owners(&self) -> Reply {
        Reply::Owners(self.owners.iter().cloned().collect())
    }

    /// The names that a text may stand for, without those that are known to be nobody's; none where it is no name.
    pub(super) fn open_names(&self, text: &str) -> Vec<FullName> {
        let names: Vec<FullName> = match (text.parse::<FullName>(), text.parse::<AgentName>()) {
            (Ok(name), _) => vec![name],
            (_, Ok(agent)) => agent.search_list(&self.config.home_zone()).collect(),
            _ => return Vec::new(),
        };
        let is_open = |name: &FullName| !is_denied(self.knowledge_of(&name.zone));
        names.into_iter().filter(is_open).collect()
    }

    /// Whether a zone is held, with nothing delegated below it.
    pub(super) fn is_whole_here(&self, scope: &ZoneName) -> bool {
        let find = Find { query: Query { zone: Some(scope.clone()), ..Query::default() }, ..Find::default() };
        self.cover_alone(&find).iter().all(|zone| zone.status.is_fine())
    }

    /// What this node knows of a zone.
    pub(super) fn knowledge_of(&self, zone: &ZoneName) -> Knowledge {
        let is_fine = |status: ZoneStatus| status.is_fine();
        if let Some(zone) = self.zones.get(zone) {
            let whole = is_fine(zone.answer(self.links, self.config, self.now).status);
            return if whole { Knowledge::Whole } else { Knowledge::Unknown };
        }
        let replicas = self.zones.below().named(zone);
        let answers = replicas.map(|zone| self.overlay.below().answer(zone.id(), self.config, self.now));
        let statuses: Vec<ZoneStatus> = answers.map(|answer| answer.status).collect();
        match statuses.first() {
            Some(_) if statuses.iter().all(|status| is_fine(*status)) => Knowledge::Lately,
            Some(_) => Knowledge::Unknown,
            // Whoever would delegate it is whole, and does not.
            None if self.is_whole_here(zone) => Knowledge::NoZone,
            None => Knowledge::Unknown,
        }
    }
}

/// The zone that a question is about, with those below it.
pub(super) fn scope(find: &Find) -> ZoneName {
    find.query.zone.clone().unwrap_or_else(ZoneName::root)
}
