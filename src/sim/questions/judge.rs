//! Whether an answer is right, by what the whole world knows (protocol section 4).
//!
//! An answer is judged against what clients were told `age` and [`SLACK_MS`] before it, and only against what a node holds that
//! ran by then and that the asker reaches. For [`HEALING_MS`] after a partition nothing is demanded of it. Where some know no
//! questions only what can be known is (`heard_of`).

use std::collections::BTreeSet;

use super::heard_of::HeardOf;
use crate::proto::name::{FullName, ZoneName};
use crate::proto::query::{Answer, Found, Resolution, ZoneStatus};
use crate::proto::record::{KeyHash, Order, Record};
use crate::sim::checkers::{Check, History, ReferenceModel, Word};
use crate::sim::fabric::Fabric;

/// How much older than its age an answer may be, milliseconds: two rounds of comparisons below, and what links take.
const SLACK_MS: u64 = 45_000;
/// How old a denial may be, milliseconds: as old as a replica that is fresh, and half a minute for whoever remembers it.
const DENIAL_AGE_MS: u64 = 150_000;
/// How long the halves of a world need after a partition, milliseconds.
const HEALING_MS: u64 = 120_000;
/// How long nothing must have gone wrong before everybody finds everything, milliseconds: a zone whose parent died asks its
/// way once a minute, three gateways that are silent delay it, and what it tells is compared after that.
const QUIET_MS: u64 = 150_000;
/// And before every answer is complete: who starts with all others of its zone speaks for it after more than a minute.
const WHOLE_MS: u64 = 270_000;
/// How old a replica may be whose turn did not come yet, milliseconds: nine gateways, each after some 20 s.
const TURN_MS_MAX: u64 = 240_000;
/// And how long before that it must have been written.
const WRITTEN_MS: u64 = 145_000;
/// Records that end within this are not demanded: clocks differ.
const ENDING_MS: u64 = 120_000;

/// What is said of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    Right,
    /// Against which promise, and how.
    Wrong(Check, String),
}

/// An answer that is judged, and what it is judged by.
pub(super) struct Case<'a> {
    pub(super) asker: usize,
    /// When it was asked, virtual milliseconds.
    pub(super) at_ms: u64,
    /// Whether it was read page by page since then, so that what changed meanwhile may be missed.
    pub(super) is_read: bool,
    /// How long nothing had gone wrong by then; not at all if something did while it was read.
    pub(super) quiet_ms: u64,
    /// How long the world had been one by then; none while it is parted.
    pub(super) united_ms: Option<u64>,
    /// What can be known to it; everything, where none.
    pub(super) heard_of: Option<HeardOf>,
    pub(super) reference: &'a ReferenceModel,
    pub(super) fabric: &'a mut Fabric,
}

impl Case<'_> {
    /// An answer that has all agents of a scope, if it says so.
    pub(super) fn judge_answer(&mut self, scope: &ZoneName, answer: &Answer) -> Judgement {
        let shown = answer.found.iter().map(|found| &found.record);
        if let Some(stray) = shown.clone().find(|record| !record.name.zone.is_within(scope)) {
            return Judgement::Wrong(Check::AnswerIsTrue, format!("{stray:?} is shown"));
        }
        let ended = self.fabric.kernel.wall().saturating_sub(ENDING_MS);
        if let Some(ended) = shown.clone().find(|record| record.expires_at.0 < ended) {
            return Judgement::Wrong(Check::AnswerIsTrue, format!("{ended:?} is shown, which ended"));
        }
        let age_ms = answer.age().map(|age| age.as_millis() as u64);
        if let Some(age_ms) = age_ms
            && let Some(detail) = shown.clone().find_map(|record| self.outlived(record, age_ms))
        {
            return Judgement::Wrong(
                Check::AnswerIsTrue,
                format!("{detail} is shown, {}", self.told(answer)),
            );
        }
        if answer.is_complete() && !self.has_met_anybody() {
            let detail = format!("complete though it met nobody, {}", self.told(answer));
            return Judgement::Wrong(Check::AnswerIsComplete, detail);
        }
        // Whoever gets a page knows that there is more.
        if answer.next.is_some() || self.is_healing() {
            return Judgement::Right;
        }
        let lacking = |age_ms: u64| self.lacking(scope, &answer.found, age_ms + SLACK_MS);
        let of_complete = age_ms.filter(|_| answer.is_complete());
        if let Some(agent) = of_complete.and_then(lacking) {
            let detail = format!("{agent} is missing, {}", self.told(answer));
            return Judgement::Wrong(Check::AnswerIsComplete, detail);
        }
        if !self.is_quiet() {
            return Judgement::Right;
        }
        if let Some(agent) = self.lacking(scope, &answer.found, WRITTEN_MS) {
            return Judgement::Wrong(
                Check::FoundEverywhere,
                format!("{agent} is not found, {}", self.told(answer)),
            );
        }
        if !is_nearly_complete(answer) && self.quiet_ms >= WHOLE_MS && self.are_all_up() {
            return Judgement::Wrong(Check::FoundEverywhere, format!("not complete, {}", self.told(answer)));
        }
        Judgement::Right
    }

    /// Whom a full name is said to mean.
    pub(super) fn judge_resolution(&mut self, name: &FullName, resolution: &Resolution) -> Judgement {
        if let Resolution::One(found) = resolution {
            if found.record.name != *name {
                return Judgement::Wrong(Check::AnswerIsTrue, format!("{:?} is shown", found.record));
            }
            let outlived = self.outlived(&found.record, DENIAL_AGE_MS);
            return outlived.map_or(Judgement::Right, |detail| {
                Judgement::Wrong(Check::AnswerIsTrue, format!("{detail} is shown"))
            });
        }
        if self.is_healing() {
            return Judgement::Right;
        }
        let is_meant = |history: &History<'_>| history.name == name;
        let lacking = |before_ms: u64| {
            let mut demanded = self.demanded(before_ms).filter(is_meant);
            demanded.next().map(|it| format!("{} of node {}", it.name, it.host))
        };
        if let (Resolution::Unknown, Some(agent)) = (resolution, lacking(DENIAL_AGE_MS + SLACK_MS)) {
            return Judgement::Wrong(Check::AnswerIsTrue, format!("{agent} is denied"));
        }
        if let (true, false, Some(agent)) = (self.is_quiet(), is_decided(resolution), lacking(WRITTEN_MS)) {
            return Judgement::Wrong(Check::FoundEverywhere, format!("{agent} is not found"));
        }
        Judgement::Right
    }

    /// What an answer says of zones, and who said it.
    fn told(&self, answer: &Answer) -> String {
        let told = answer.zones.iter().map(|zone| {
            let by = zone.by.and_then(|peer| self.fabric.nodes.number_of(&peer));
            let by = by.map(|node| format!(" by {node}")).unwrap_or_default();
            format!("{} {:?} {:?}{by}", zone.zone, zone.status, zone.age.unwrap_or_default())
        });
        told.collect::<Vec<_>>().join(", ")
    }

    /// An agent that should be shown and is not.
    fn lacking(&self, scope: &ZoneName, found: &[Found], before_ms: u64) -> Option<String> {
        let shown: BTreeSet<(&FullName, usize)> = found
            .iter()
            .flat_map(|found| {
                let hosts = found.replicas.iter().map(|replica| replica.peer()).chain([found.record.host]);
                hosts.filter_map(|host| Some((&found.record.name, self.fabric.nodes.number_of(&host)?)))
            })
            .collect();
        let mut of_scope = self.demanded(before_ms).filter(|it| it.name.zone.is_within(scope));
        let lacking = of_scope.find(|it| !shown.contains(&(it.name, it.host)));
        lacking.map(|it| format!("{} of node {}", it.name, it.host))
    }

    /// Agents that were offered so long before the question, are offered still, and held by somebody whom the asker reaches.
    fn demanded(&self, before_ms: u64) -> impl Iterator<Item = History<'_>> {
        let until = self.at_ms.checked_sub(before_ms);
        let ends = self.fabric.kernel.wall() + ENDING_MS;
        self.reference.histories().filter(move |history| {
            let Some((first, last)) = since(history.words) else { return false };
            let is_live = |record: &Record| !record.is_tombstone() && record.expires_at.0 > ends;
            !history.is_exempt
                && until.is_some_and(|until| {
                    let is_old = first.at_ms <= until && (!self.is_read || last.at_ms <= until);
                    is_old && self.is_held_near(until, &history.name.zone, (&last.key, &first.order), is_live)
                })
        })
    }

    /// Whether a record had been deleted or replaced for long, and somebody whom the asker reaches knows.
    fn outlived(&self, record: &Record, age_ms: u64) -> Option<String> {
        let until = self.at_ms.checked_sub(age_ms + SLACK_MS)?;
        let host = self.fabric.nodes.number_of(&record.host)?;
        let mut histories = self.reference.histories();
        let history = histories.find(|it| it.host == host && *it.name == record.name)?;
        let later = history.words.iter().rev().find(|word| word.at_ms <= until)?;
        let is_later = later.key == record.key() && later.order > record.order();
        let is_known = || self.is_held_near(until, &record.name.zone, (&later.key, &later.order), |_| true);
        let is_wrong = is_later && !history.is_forgotten && !self.is_healing() && is_known();
        is_wrong.then(|| format!("{record:?} of node {host}, which wrote {later:?}"))
    }

    /// Whether a node that runs since then, and that the asker reaches, holds something as new of a key: what only a node holds
    /// that has just come back is as good as just written.
    fn is_held_near(
        &self,
        since_ms: u64,
        zone: &ZoneName,
        (key, order): (&KeyHash, &Order),
        counts: impl Fn(&Record) -> bool,
    ) -> bool {
        let Fabric { nodes, network, .. } = &*self.fabric;
        let runs_since = |at: usize| nodes[at].zones.values().min().is_some_and(|since| *since <= since_ms);
        let is_known = |at: usize| self.heard_of.as_ref().is_none_or(|it| it.reaches(at, zone));
        let is_near = |at: usize| self.fabric.is_up(at) && !network.is_parted(self.asker, at) && is_known(at);
        let mut near = nodes.running().filter(|(at, _)| is_near(*at) && runs_since(*at));
        near.any(|(_, node)| {
            node.record(zone, key).is_some_and(|record| record.order() >= *order && counts(record))
        })
    }

    /// Whether some part of the world did not yet meet the others again.
    fn is_healing(&self) -> bool {
        self.united_ms.is_some_and(|united_ms| united_ms < HEALING_MS && united_ms < self.at_ms)
    }

    /// Whether nothing went wrong for long, the root answers, and gateways have room for what lies below.
    fn is_quiet(&self) -> bool {
        let root = ZoneName::root();
        let mut members = self.fabric.nodes.members(&root);
        let is_rooted = members.any(|at| self.fabric.is_up(at));
        let has_room = self.fabric.nodes.are_dialable && self.fabric.nodes[self.asker].config.room_below > 0;
        self.quiet_ms >= QUIET_MS && self.united_ms.is_some() && is_rooted && has_room
    }

    fn are_all_up(&self) -> bool {
        (0..self.fabric.nodes.count()).all(|at| self.fabric.is_up(at))
    }

    /// Whether the asker was connected with anybody since it started.
    fn has_met_anybody(&self) -> bool {
        let Fabric { nodes, network, .. } = &*self.fabric;
        network.has_met(self.asker, nodes[self.asker].incarnation)
    }
}

/// Whether nothing is missing but what a turn of comparisons brings. Of a zone that more nodes than its gateways delegated when
/// it began all are compared in turn, which takes longer than a replica is fresh.
fn is_nearly_complete(answer: &Answer) -> bool {
    answer.zones.iter().all(|zone| {
        let is_late = zone.age.is_some_and(|age| age.as_millis() as u64 <= TURN_MS_MAX);
        zone.status.is_fine() || zone.status == ZoneStatus::Stale && is_late
    })
}

/// Whether a name was found, or denied for certain.
pub(super) fn is_decided(resolution: &Resolution) -> bool {
    !matches!(resolution, Resolution::NotSynced)
}

/// Since which word an agent is offered without a break, and the last word; none if it is not.
fn since(words: &[Word]) -> Option<(&Word, &Word)> {
    let first = words.iter().rev().take_while(|word| word.is_offered).last()?;
    Some((first, words.last()?))
}
