//! What others answered, and what is held here, made one answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::ask::Questions;
use super::cover::untold;
use super::memory::scope;
use crate::proto::ask::{Contact, Cover, Question, Referral, Search};
use crate::proto::directory::entry_of;
use crate::proto::identity::AgentId;
use crate::proto::limits::{COVER_NAMED_MAX, REFERRED_ASKS_MAX};
use crate::proto::message::Alive;
use crate::proto::name::ZoneName;
use crate::proto::query::{Answer, Find, Found, ZoneAnswer, ZoneStatus};
use crate::proto::record::Record;
use crate::proto::resolver::{Consulted, Heard, Open, Told};
use crate::proto::search::{Asked, Cursor, Hit, Index, Page};
use crate::proto::time::Timestamp;

/// What other nodes sent of some agents, put together.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) records: BTreeMap<AgentId, Vec<Arc<Record>>>,
    pub(super) alive: Vec<Alive>,
}

impl Questions<'_, '_> {
    /// Zones that whoever answered has no room for, or has only begun to follow, and those that were delegated so lately that
    /// it may not know them.
    pub(super) fn referred(&self, open: &mut Open, search: &Search) -> Vec<(Contact, Question)> {
        let covers = open.consulted.heard.iter().filter_map(|heard| match &heard.told {
            Told::Found { cover, .. } => Some(cover),
            Told::Tree { .. } | Told::Named { .. } => None,
        });
        let covers: Vec<Cover> = covers.cloned().collect();
        let Some(age) = covers.iter().map(Cover::age).min() else { return Vec::new() };
        let told = covers.into_iter().flat_map(|cover| cover.refer);
        let lately = self.memory().delegated_lately(&search.zone, age + open.consulted.passed(self.ctx.now));
        let mut referrals: Vec<Referral> = Vec::new();
        for referral in told.chain(lately) {
            let Consulted { referred, skipped, .. } = &open.consulted;
            let is_new = referrals.iter().all(|known| known.zone != referral.zone)
                && referred.iter().chain(skipped).all(|known| *known != referral.zone);
            // Whoever holds a zone need not hold what lies below it.
            let is_held = (self.zones.contains_key(&referral.zone)
                || self.memory().is_fresh_below(&referral.zone))
                && self.memory().is_whole_here(&referral.zone);
            let is_asked = referral.zone.is_within(&search.zone) && !is_held;
            if is_new && is_asked {
                referrals.push(referral);
            }
        }
        if !search.text.trim().is_empty() {
            // Not all may have a place: first those that showed what answers the question, by an answer or by their names.
            let (asked, heard) = (Asked::of(&search.text), &open.consulted.heard);
            let has_shown = |zone: &ZoneName| {
                let records = heard.iter().flat_map(|heard| &heard.records);
                records.filter(|record| record.name.zone.is_within(zone)).count() > 0
            };
            let evidence = |it: &Referral| (has_shown(&it.zone), asked.evidence(it.zone.as_str()));
            referrals.sort_by_cached_key(|it| std::cmp::Reverse(evidence(it)));
        }
        // Two of each where there are few: one may be dead.
        let left = REFERRED_ASKS_MAX - open.referred_asks;
        let each = if 2 * referrals.len() <= left { 2 } else { 1 };
        let mut next = Vec::new();
        for Referral { zone, gateways } in referrals {
            let own = self.ctx.key();
            let of: Vec<Contact> = gateways.into_iter().filter(|it| it.peer != own).take(each).collect();
            if next.len() + of.len() > left {
                open.consulted.skipped.push(zone);
                continue;
            }
            let question = Question::Find(Box::new(Search { zone: zone.clone(), ..search.clone() }));
            next.extend(of.into_iter().map(|contact| (contact, question.clone())));
            open.consulted.referred.push(zone);
        }
        open.referred_asks += next.len();
        next
    }

    /// What is held here and what others answered, ranked as one.
    pub(super) fn united(
        &mut self,
        consulted: &Consulted,
        find: &Find,
        by_name: bool,
        status: ZoneStatus,
    ) -> Answer {
        self.catch_up();
        let scope = scope(find);
        let told = gathered(consulted, self.ctx.now);
        let has_more = |heard: &Heard| matches!(heard.told, Told::Found { more: true, .. });
        let mut more = consulted.heard.iter().any(has_more);
        let mut zones = zones_told(consulted, &scope, status, self.ctx.now);
        let here = if zones.is_empty() { self.memory().cover_alone(find) } else { self.memory().cover(find) };
        // What is held here is known better here; of the rest what others say counts.
        let counts = |it: &ZoneAnswer| it.status.is_fine() || self.zones.contains_key(&it.zone);
        let known: Vec<ZoneAnswer> =
            if zones.is_empty() { here } else { here.into_iter().filter(counts).collect() };
        zones.retain(|told| told.status.is_fine() || known.iter().all(|known| known.zone != told.zone));
        zones.extend(known);
        // Whoever holds a zone and does not speak for it knows nothing of what lies below, however whole it is.
        let is_open =
            self.memory().is_unsure(&scope) && !consulted.heard.iter().any(|it| speaks_for(it, &scope));
        if is_open && zones.iter().all(|zone| zone.status.is_fine()) {
            zones.push(untold(self.zones, &scope));
        }
        let Answer { found: own, next, .. } = self.memory().found_here(find, by_name, Vec::new());
        more |= next.is_some();
        // Equal questions rank alike, as long as nothing of this node's own comes between.
        let rank = || cut(ranked(&told, &own, find), consulted);
        let page = if own.is_empty() { consulted.page.get_or_init(rank).clone() } else { rank() };
        let last = page.hits.last().map(|hit| (hit.id, hit.score));
        let found: Vec<Found> =
            page.hits.iter().filter_map(|hit| self.told_or_held(&told, &own, hit)).collect();
        let end = last.filter(|_| more || page.next.is_some()).and_then(|(id, score)| {
            let name = found.iter().find(|found| found.id == id)?.record.name.clone();
            Some(Cursor::at(score, name, id))
        });
        Answer { found, next: end, zones: condensed(&scope, zones) }
    }

    fn told_or_held(&self, told: &Gathered, own: &[Found], hit: &Hit) -> Option<Found> {
        let Hit { id, score, by_meaning } = *hit;
        if let Some(found) = own.iter().find(|found| found.id == id) {
            return Some(Found { score, by_meaning, ..found.clone() });
        }
        let found = self.directory.told(id, told.records.get(&id)?, &told.alive, score)?;
        Some(Found { by_meaning, ..found })
    }
}

/// No further than the last agent of an answer that had more: what comes behind it there may come before the next one here.
fn cut(mut page: Page, consulted: &Consulted) -> Page {
    for heard in &consulted.heard {
        if !matches!(heard.told, Told::Found { more: true, .. }) {
            continue;
        }
        let told: BTreeSet<AgentId> = heard.records.iter().map(|record| record.agent_id()).collect();
        if let Some(last) = page.hits.iter().rposition(|hit| told.contains(&hit.id)) {
            page.hits.truncate(last + 1);
        }
    }
    page
}

/// The best of what others told and this node holds.
fn ranked(told: &Gathered, own: &[Found], find: &Find) -> Page {
    let mut index = Index::new();
    for (id, records) in &told.records {
        if let Some(best) = records.iter().max_by_key(|record| record.order()) {
            entry_of(*id, best, |entry| index.insert(entry));
        }
    }
    for found in own {
        entry_of(found.id, &found.record, |entry| index.insert(entry));
    }
    index.search(&find.query, find.limit, find.after.as_ref())
}

/// All that others answered of some agents.
pub(super) fn gathered(consulted: &Consulted, now: Timestamp) -> Gathered {
    let mut gathered = Gathered::default();
    for heard in &consulted.heard {
        for record in heard.records.iter().filter(|record| !record.is_expired(now)) {
            let of = gathered.records.entry(record.agent_id()).or_default();
            match of.iter_mut().find(|held| held.key() == record.key()) {
                Some(held) if held.precedence() < record.precedence() => *held = record.clone(),
                Some(_) => {}
                None => of.push(record.clone()),
            }
        }
        gathered.alive.extend(heard.alive_after(consulted.passed(now)));
    }
    gathered
}

/// Whether an answer says that nothing of a scope is missing that is not named.
fn speaks_for(heard: &Heard, scope: &ZoneName) -> bool {
    let Told::Found { scope: of, cover, .. } = &heard.told else { return false };
    scope.is_within(of)
        && cover.fine > 0
        && cover.more == 0
        && !cover.rest.iter().any(|(zone, _)| scope.is_within(zone))
}

/// What others say of the zones of a scope.
fn zones_told(
    consulted: &Consulted,
    scope: &ZoneName,
    status: ZoneStatus,
    now: Timestamp,
) -> Vec<ZoneAnswer> {
    let passed = consulted.passed(now);
    let mut zones: Vec<ZoneAnswer> = Vec::new();
    let mut asked: Vec<&ZoneName> = Vec::new();
    let mut heard: Vec<&Heard> = consulted.heard.iter().collect();
    // Who was asked of the deepest zone last: he knows best.
    heard.sort_by_key(|heard| match &heard.told {
        Told::Found { is_referred: true, scope, .. } => 1 + scope.ancestors().count(),
        _ => 0,
    });
    for heard in heard {
        let Told::Found { is_referred, scope: of, cover, .. } = &heard.told else { continue };
        // Who was asked of a zone itself knows of it what whoever referred to it did not.
        if *is_referred && !asked.contains(&of) {
            zones.retain(|it| it.status.is_fine() || !it.zone.is_within(of));
            asked.push(of);
        }
        let mut told = cover.zones(of, heard.peer, passed);
        told.retain(|it| it.zone.is_within(scope) || scope.is_within(&it.zone));
        for it in told.iter_mut().filter(|it| it.status == ZoneStatus::Answered) {
            it.status = status;
        }
        unite_zones(&mut zones, told);
    }
    let mut is_missing = |zone: &ZoneName, status: ZoneStatus| {
        if asked.contains(&zone) {
            return;
        }
        match zones.iter_mut().find(|it| it.zone == *zone && !it.status.is_fine()) {
            Some(known) if status == ZoneStatus::Skipped => known.status = status,
            Some(_) => {}
            None => zones.push(ZoneAnswer::here(zone.clone(), status, None)),
        }
    };
    consulted.referred.iter().for_each(|zone| is_missing(zone, ZoneStatus::Unreachable));
    consulted.skipped.iter().for_each(|zone| is_missing(zone, ZoneStatus::Skipped));
    zones
}

/// The zones of an answer as it is shown: of many that are fine one entry for all of them, of many others the first.
pub(super) fn condensed(scope: &ZoneName, mut zones: Vec<ZoneAnswer>) -> Vec<ZoneAnswer> {
    zones.sort_by(|one, other| one.zone.cmp(&other.zone));
    let (mut fine, mut rest): (Vec<ZoneAnswer>, Vec<ZoneAnswer>) =
        zones.into_iter().partition(|it| it.status.is_fine());
    for zones in [&mut fine, &mut rest] {
        if zones.len() > COVER_NAMED_MAX {
            let shown = if zones[0].status.is_fine() { 0 } else { COVER_NAMED_MAX };
            let others = zones.split_off(shown);
            let oldest = others.iter().map(|it| it.age).reduce(older).flatten();
            let count = others.iter().map(|it| it.count).sum();
            let first = others.into_iter().next();
            zones.extend(first.map(|it| ZoneAnswer { zone: scope.clone(), age: oldest, count, ..it }));
        }
    }
    fine.extend(rest);
    fine.sort_by(|one, other| one.zone.cmp(&other.zone));
    fine
}

/// What several answers say of zones. What is missing from one may be missing from all: one of them may lie, and which is not
/// known here.
fn unite_zones(zones: &mut Vec<ZoneAnswer>, told: Vec<ZoneAnswer>) {
    for it in told {
        let is_same =
            |known: &&mut ZoneAnswer| known.zone == it.zone && known.status.is_fine() == it.status.is_fine();
        match zones.iter_mut().find(is_same) {
            Some(known) => (known.age, known.count) = (older(known.age, it.age), known.count.max(it.count)),
            None => zones.push(it),
        }
    }
}

/// The greater age; none is none of any time.
fn older(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    Some(one?.max(other?))
}
