//! Names that are not held here: asked of others, and answered to them (protocol section 4).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ask::{Page, Questions, bytes_of};
use super::unite::gathered;
use crate::proto::ask::{self, Contact, Knowledge, Question};
use crate::proto::identity::{AgentId, PeerKey};
use crate::proto::io::Output;
use crate::proto::limits::{ANSWER_AGE, ANSWER_HOSTS_MAX, ASK_TIME, ASKED_NAMES_MAX};
use crate::proto::name::{FullName, ZoneName};
use crate::proto::query::{Found, Resolution};
use crate::proto::record::Record;
use crate::proto::resolver::{Consulted, Level, Origin, Told};

/// Gateways of a zone that are asked after a replica.
const CONFIRMING_MAX: usize = 2;
/// Hosts of an agent that are dialed before it is called.
const HOSTS_REACHED_MAX: usize = 4;
/// Candidates that an answer names, as where names are local.
const CANDIDATES_MAX: usize = 10;

impl Questions<'_, '_> {
    pub(super) fn answer_names(&mut self, names: &[FullName]) -> ask::Answer {
        let mut ids: Vec<(AgentId, ZoneName)> = Vec::new();
        for name in names {
            let of = self.0.directory.by_name(self.0.zones, name);
            ids.extend(of.into_iter().map(|id| (id, name.zone.clone())));
        }
        let Page { records, proofs, .. } = self.records_of(ids.into_iter());
        let zones = names.iter().map(|name| self.memory().knowledge_of(&name.zone)).collect();
        let gateways = names.iter().filter_map(|name| self.gateways_below(&name.zone).into_iter().next());
        ask::Answer::Named {
            zones,
            gateways: gateways.take(ASKED_NAMES_MAX).collect(),
            hosts: self.contacts_of_hosts(&records),
            alive: self.alive_of(&records),
            records: bytes_of(&records),
            proofs: bytes_of(&proofs),
        }
    }

    fn gateways_below(&self, zone: &ZoneName) -> Vec<Contact> {
        let replicas = self.zones.below().named(zone);
        replicas.flat_map(|zone| self.overlay.below().gateways(zone.id())).cloned().collect()
    }

    pub(super) fn answer_agent(&mut self, id: AgentId) -> ask::Answer {
        let held = self.0.directory.agent(self.0.ctx.now, self.0.zones, &id, 0.0);
        let Page { records, proofs, .. } =
            self.records_of(held.map(|found| (id, found.record.name.zone.clone())).into_iter());
        let is_whole = self.memory().is_whole_here(&ZoneName::root());
        ask::Answer::Named {
            zones: vec![if is_whole { Knowledge::Whole } else { Knowledge::Unknown }],
            gateways: Vec::new(),
            hosts: self.contacts_of_hosts(&records),
            alive: self.alive_of(&records),
            records: bytes_of(&records),
            proofs: bytes_of(&proofs),
        }
    }

    /// Whom a text means that means nobody who is held here, by what others say; none while they are asked.
    pub(super) fn ask_for(
        &mut self,
        id: u64,
        text: &str,
        for_call: bool,
        held: Resolution,
    ) -> Option<Resolution> {
        let (left_ms, max_age_ms) = (ASK_TIME.as_millis() as u32, ANSWER_AGE.as_millis() as u32);
        self.0.resolver.counts.of_clients += 1;
        let (question, mut of) = if let Ok(id) = text.parse::<AgentId>() {
            (Question::Agent { id, left_ms, max_age_ms }, Vec::new())
        } else {
            let mut names = self.memory().open_names(text);
            names.truncate(ASKED_NAMES_MAX);
            let Some(first) = names.first() else { return Some(held) };
            // A zone that is followed is asked itself: what is newer than the replica only it knows.
            let gateways = self.gateways_below(&first.zone);
            (Question::Names { names, left_ms, max_age_ms }, gateways)
        };
        of.truncate(2);
        if of.is_empty() {
            let scope = match &question {
                Question::Names { names, .. } => names.first().map(|name| name.zone.clone()),
                _ => None,
            };
            of = self.ways_up(&scope.unwrap_or_else(ZoneName::root));
        }
        let now = self.ctx.now;
        if let Some(consulted) = self.0.resolver.recall(&question, Level::L1, now) {
            let resolution = self.resolution(&consulted, &question, text);
            if for_call {
                self.reach_hosts(&consulted, &resolution);
            }
            return Some(resolution);
        }
        if of.is_empty() || !self.0.resolver.has_room() {
            return Some(self.unasked(&question, held));
        }
        let origin = Origin::Resolve { id, text: text.to_owned(), for_call };
        self.0.resolver.ask(&mut self.0.ctx, origin, question, of, ASK_TIME);
        None
    }

    /// Whom a text means where nobody is asked: of a zone that is not held here nothing is denied.
    fn unasked(&self, question: &Question, held: Resolution) -> Resolution {
        let Question::Names { names, .. } = question else { return held };
        let is_beyond = names.iter().any(|name| !self.zones.contains_key(&name.zone));
        let is_first = self.links.begins_world(self.ctx.config);
        match held {
            Resolution::Unknown if is_beyond && !is_first => Resolution::NotSynced,
            held => held,
        }
    }

    /// Where the hosts of some records are dialed, as far as that is known here.
    fn contacts_of_hosts(&self, records: &[Arc<Record>]) -> Vec<Contact> {
        let mut hosts: BTreeMap<PeerKey, Contact> = BTreeMap::new();
        for record in records {
            hosts.extend(
                self.contact_of_host(&record.name.zone, record.host).map(|contact| (record.host, contact)),
            );
        }
        hosts.into_values().take(ANSWER_HOSTS_MAX).collect()
    }

    fn contact_of_host(&self, zone: &ZoneName, host: PeerKey) -> Option<Contact> {
        let below = self.zones.below().named(zone);
        let named =
            below.flat_map(|zone| self.overlay.below().gateways(zone.id())).find(|it| it.peer == host);
        let contact = match host == self.ctx.key() {
            true => Contact { peer: host, addresses: self.ctx.addresses.to_vec() },
            false => self.links.contact(host),
        };
        [Some(contact), named.cloned()].into_iter().flatten().find(|contact| !contact.addresses.is_empty())
    }

    /// Whether it is known here where an agent of a zone below, which is about to be called, is reached; its hosts are dialed
    /// then.
    pub(super) fn reaches(&mut self, found: &Found) -> bool {
        let zone = &found.record.name.zone;
        let is_near = |host: PeerKey| host == self.ctx.key() || self.links.contains(&host);
        let is_below = self.zones.get(zone).is_none();
        if !is_below || found.replicas.iter().any(|replica| is_near(replica.peer())) {
            return true;
        }
        let known = found.replicas.iter().filter_map(|replica| self.contact_of_host(zone, replica.peer()));
        let known: Vec<Contact> = known.take(HOSTS_REACHED_MAX).collect();
        let is_known = !known.is_empty();
        for host in known {
            self.ctx.out.push(Output::Reach(host));
        }
        is_known
    }

    /// Hosts of an agent that is called are dialed where others say that they are: the DHT may know nothing.
    pub(super) fn reach_hosts(&mut self, consulted: &Consulted, resolution: &Resolution) {
        let Resolution::One(found) = resolution else { return };
        let hosts: Vec<Contact> = told_hosts(consulted)
            .filter(|it| found.replicas.iter().any(|replica| replica.peer() == it.peer))
            .filter(|it| !self.links.contains(&it.peer))
            .take(HOSTS_REACHED_MAX)
            .cloned()
            .collect();
        for host in hosts {
            self.ctx.out.push(Output::Reach(host));
        }
    }

    /// Who is asked where hosts are dialed of which nobody said so yet: the gateways of their zone, who are connected with them.
    pub(super) fn knowing_hosts(&self, consulted: &Consulted) -> Vec<Contact> {
        let records = || consulted.heard.iter().flat_map(|heard| &heard.records);
        let is_known = |host: &PeerKey| {
            *host == self.ctx.key()
                || self.links.contains(host)
                || told_hosts(consulted).any(|it| it.peer == *host)
        };
        if records().any(|record| is_known(&record.host)) {
            return Vec::new();
        }
        let asks = records().next().is_some();
        told_gateways(consulted).filter(|_| asks).take(CONFIRMING_MAX).cloned().collect()
    }

    /// Whom a text means by what others answered.
    pub(super) fn resolution(
        &mut self,
        consulted: &Consulted,
        question: &Question,
        text: &str,
    ) -> Resolution {
        self.catch_up();
        match self.resolved(consulted, question) {
            // Nobody could say more than what is held.
            Resolution::NotSynced => match self.memory().resolve(text) {
                found @ Resolution::One(_) => found,
                _ => Resolution::NotSynced,
            },
            resolution => resolution,
        }
    }

    fn resolved(&self, consulted: &Consulted, question: &Question) -> Resolution {
        let told = gathered(consulted, self.ctx.now);
        let known = known_of(consulted, question);
        let names = match question {
            Question::Names { names, .. } => names,
            Question::Agent { id, .. } => {
                let records = told.records.get(id);
                let found = records.and_then(|records| self.directory.told(*id, records, &told.alive, 0.0));
                return match (found, known.first()) {
                    (Some(found), _) => Resolution::One(found),
                    (None, Some(Knowledge::Whole)) => Resolution::Unknown,
                    (None, _) => Resolution::NotSynced,
                };
            }
            Question::Walk { .. } | Question::Find(_) | Question::Tree { .. } => {
                return Resolution::NotSynced;
            }
        };
        for (name, known) in names.iter().zip(known) {
            let of: Vec<Found> = told
                .records
                .iter()
                .filter(|(_, records)| records.iter().any(|record| record.name == *name))
                .filter_map(|(id, records)| self.directory.told(*id, records, &told.alive, 0.0))
                .collect();
            if !of.is_empty() {
                return self.picked(name, of);
            }
            // What a replica lately held, and its gateways were asked to confirm.
            if known == Knowledge::Unknown {
                return Resolution::NotSynced;
            }
        }
        Resolution::Unknown
    }

    /// Gateways of the first zone whose replica knew nothing of a name, where no zone before it decides: what is newer only
    /// they know.
    pub(super) fn confirming(&self, consulted: &Consulted, question: &Question) -> Vec<Contact> {
        let Question::Names { names, .. } = question else { return Vec::new() };
        let has = |name: &FullName| {
            consulted.heard.iter().flat_map(|heard| &heard.records).any(|record| record.name == *name)
        };
        let open = names.iter().zip(known_of(consulted, question));
        let mut undecided = open.filter(|(name, known)| has(name) || !is_denied(*known));
        if !undecided.next().is_some_and(|(name, known)| known == Knowledge::Lately && !has(name)) {
            return Vec::new();
        }
        let mut of: Vec<Contact> = Vec::new();
        for gateway in told_gateways(consulted) {
            if of.iter().all(|known| known.peer != gateway.peer) {
                of.push(gateway.clone());
            }
        }
        of.truncate(CONFIRMING_MAX);
        of
    }

    /// Which of the agents of one name is meant: that of the owner the name stands for, else the only one.
    fn picked(&self, name: &FullName, of: Vec<Found>) -> Resolution {
        let known = self.owners.get(name);
        let meant = known.map(|known| AgentId::of(known.owner, &known.name));
        let picked = match meant {
            Some(meant) => of.iter().find(|found| found.id == meant),
            None => of.first().filter(|_| of.len() == 1),
        };
        match picked {
            Some(found) => Resolution::One(found.clone()),
            None => Resolution::Ambiguous {
                candidates: of.iter().map(|found| found.id).take(CANDIDATES_MAX).collect(),
                count: of.len(),
                known: known.cloned(),
            },
        }
    }
}

/// Where hosts are dialed, as others said.
fn told_hosts(consulted: &Consulted) -> impl Iterator<Item = &Contact> {
    consulted.heard.iter().flat_map(|heard| match &heard.told {
        Told::Named { hosts, .. } => hosts.as_slice(),
        Told::Found { .. } | Told::Tree { .. } => &[],
    })
}

/// Gateways of the zones whose replica answered.
fn told_gateways(consulted: &Consulted) -> impl Iterator<Item = &Contact> {
    consulted.heard.iter().flat_map(|heard| match &heard.told {
        Told::Named { gateways, .. } => gateways.as_slice(),
        Told::Found { .. } | Told::Tree { .. } => &[],
    })
}

/// Whether whoever is not named is not there.
pub(super) fn is_denied(known: Knowledge) -> bool {
    matches!(known, Knowledge::Whole | Knowledge::NoZone)
}

/// What all answers together say of the zone of each name.
fn known_of(consulted: &Consulted, question: &Question) -> Vec<Knowledge> {
    let mut known = vec![Knowledge::Unknown; question.names()];
    for heard in &consulted.heard {
        if let Told::Named { zones, .. } = &heard.told {
            for (known, told) in known.iter_mut().zip(zones) {
                *known = better(*known, *told);
            }
        }
    }
    known
}

/// What two answers together say of a zone: a copy that held it counts, a denial only where nobody knows better.
fn better(one: Knowledge, other: Knowledge) -> Knowledge {
    let rank = |it: &Knowledge| match it {
        Knowledge::Whole => 3,
        Knowledge::Lately => 2,
        Knowledge::NoZone => 1,
        Knowledge::Unknown => 0,
    };
    if rank(&one) >= rank(&other) { one } else { other }
}
