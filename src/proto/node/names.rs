//! Names that are not held here: asked of others, and answered to them (protocol section 4).

use super::ask::{Questions, Told, bytes_of};
use crate::proto::ask::{self, Contact, Knowledge, Question};
use crate::proto::identity::AgentId;
use crate::proto::io::{Output, Reply};
use crate::proto::limits::{ASK_TIME, ASKED_NAMES_MAX};
use crate::proto::name::{AgentName, FullName, ZoneName};
use crate::proto::query::{Found, Resolution, ZoneStatus};
use crate::proto::record::Record;
use crate::proto::resolver::{Open, Origin};

/// Candidates that an answer names, as where names are local.
const CANDIDATES_MAX: usize = 10;

impl Questions<'_, '_> {
    pub(super) fn answer_names(&mut self, names: &[FullName]) -> ask::Answer {
        let mut ids: Vec<(AgentId, ZoneName)> = Vec::new();
        for name in names {
            let of = self.0.directory.by_name(self.0.zones, name);
            ids.extend(of.into_iter().map(|id| (id, name.zone.clone())));
        }
        let (records, _) = self.records_of(ids.into_iter());
        let zones = names.iter().map(|name| self.knowledge_of(&name.zone)).collect();
        let gateways = names.iter().filter_map(|name| self.gateways_below(&name.zone).into_iter().next());
        ask::Answer::Named {
            zones,
            gateways: gateways.take(ASKED_NAMES_MAX).collect(),
            alive: self.alive_of(&records),
            records: bytes_of(&records),
        }
    }

    /// What this node knows of a zone.
    fn knowledge_of(&self, zone: &ZoneName) -> Knowledge {
        let is_fine = |status: ZoneStatus| status.is_fine();
        if let Some(zone) = self.zones.get(zone) {
            let whole = is_fine(zone.answer(self.links, self.ctx.config, self.ctx.now).status);
            return if whole { Knowledge::Whole } else { Knowledge::Unknown };
        }
        let replicas = self.zones.below().keys().filter(|id| id.zone == *zone);
        let answers = replicas.map(|id| self.overlay.below().answer(id, self.ctx.config, self.ctx.now));
        let statuses: Vec<ZoneStatus> = answers.map(|answer| answer.status).collect();
        match statuses.first() {
            Some(_) if statuses.iter().all(|status| is_fine(*status)) => Knowledge::Lately,
            Some(_) => Knowledge::Unknown,
            // Whoever would delegate it is whole, and does not.
            None if self.is_whole_here(zone) => Knowledge::NoZone,
            None => Knowledge::Unknown,
        }
    }

    fn gateways_below(&self, zone: &ZoneName) -> Vec<Contact> {
        let replicas = self.zones.below().keys().filter(|id| id.zone == *zone);
        replicas.flat_map(|id| self.overlay.below().gateways(id)).cloned().collect()
    }

    /// Whom a text means, if that has to be asked elsewhere: the question is under way then.
    pub(super) fn ask_for(&mut self, id: u64, text: &str, for_call: bool) -> bool {
        let home = self.ctx.config.home_zone();
        let names: Vec<FullName> = match (text.parse::<FullName>(), text.parse::<AgentName>()) {
            (Ok(name), _) => vec![name],
            (_, Ok(agent)) => agent.search_list(&home).collect(),
            _ => return false,
        };
        let unknown: Vec<FullName> = names
            .into_iter()
            .filter(|name| !matches!(self.knowledge_of(&name.zone), Knowledge::Whole | Knowledge::NoZone))
            .take(ASKED_NAMES_MAX)
            .collect();
        let Some(first) = unknown.first() else { return false };
        // A zone that is followed is asked itself: what is newer than the replica only it knows.
        let mut of = self.gateways_below(&first.zone);
        of.truncate(2);
        if of.is_empty() {
            of = self.ways_up(&first.zone);
        }
        if of.is_empty() || !self.0.resolver.has_room() {
            return false;
        }
        let origin = Origin::Resolve { id, text: text.to_owned(), for_call };
        let question = Question::Names { names: unknown, left_ms: ASK_TIME.as_millis() as u32 };
        self.0.resolver.ask(&mut self.0.ctx, origin, question, of, ASK_TIME);
        true
    }

    pub(super) fn close_resolution(&mut self, mut open: Open, id: u64, text: &str, for_call: bool) {
        let resolution = match self.resolved(&mut open) {
            // Names that are held here may have been meant.
            Some(Resolution::Unknown(_)) => match self.0.resolve(text) {
                Resolution::Unknown(similar) => Resolution::Unknown(similar),
                _ => Resolution::Unknown(Vec::new()),
            },
            Some(resolution) => resolution,
            None => {
                let of = confirming(&open);
                open.is_confirmed = true;
                return self.0.resolver.go_on(&mut self.0.ctx, open, of);
            }
        };
        if for_call {
            self.note_called(&resolution, text);
        }
        self.finish();
        self.ctx.out.push(Output::Reply { id, reply: Reply::Resolved(resolution) });
    }

    /// Whom a text means by what others answered; none if a zone of which a replica knows nothing is to be asked itself.
    fn resolved(&mut self, open: &mut Open) -> Option<Resolution> {
        let Question::Names { names, .. } = &open.question else { return Some(Resolution::NotSynced) };
        let names = names.clone();
        let mut told = Told::default();
        let mut known = vec![Knowledge::Unknown; names.len()];
        for (peer, answer) in std::mem::take(&mut open.answers) {
            if let ask::Answer::Named { records, zones, alive, .. } = &answer {
                let is_asked = |record: &Record| names.contains(&record.name);
                if zones.len() == names.len() && self.take_told(peer, records, alive, is_asked, &mut told) {
                    for (known, told) in known.iter_mut().zip(zones) {
                        *known = better(*known, *told);
                    }
                    open.answers.push((peer, answer));
                }
            }
        }
        for (name, known) in names.iter().zip(known) {
            let of: Vec<Found> = told
                .records
                .iter()
                .filter(|(_, records)| records.iter().any(|record| record.name == *name))
                .filter_map(|(id, records)| self.directory.told(*id, records, &told.alive, 0.0))
                .collect();
            if !of.is_empty() {
                return Some(self.picked(name, of));
            }
            match known {
                Knowledge::Whole | Knowledge::NoZone => {}
                Knowledge::Lately if open.is_confirmed || confirming(open).is_empty() => {}
                Knowledge::Lately => return None,
                Knowledge::Unknown => return Some(Resolution::NotSynced),
            }
        }
        Some(Resolution::Unknown(Vec::new()))
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

/// Gateways of zones whose replica knew nothing of a name.
fn confirming(open: &Open) -> Vec<Contact> {
    let mut of: Vec<Contact> = Vec::new();
    for (_, answer) in &open.answers {
        if let ask::Answer::Named { gateways, .. } = answer {
            of.extend(
                gateways
                    .iter()
                    .filter(|it| of.iter().all(|known| known.peer != it.peer))
                    .cloned()
                    .collect::<Vec<_>>(),
            );
        }
    }
    of.truncate(2);
    of
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
