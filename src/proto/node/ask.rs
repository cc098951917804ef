//! Questions that this node cannot answer from memory, and those that peers ask it (protocol section 4).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use serde_bytes::ByteBuf;

use super::memory::scope;
use super::proofs::Vouched;
use super::turn::Turn;
use crate::proto::ask::{self, Contact, Cover, Question, Search};
use crate::proto::context::Context;
use crate::proto::directory::presence_told;
use crate::proto::identity::{AgentId, PeerKey};
use crate::proto::io::{ConversationId, Offence, Output, Reply, Role};
use crate::proto::limits::{ANSWER_RECORDS_BYTES_MAX, ANSWER_RECORDS_MAX, ASK_TIME, PROOFS_MAX};
use crate::proto::message::{ALIVE_MAX, Alive};
use crate::proto::name::ZoneName;
use crate::proto::overlay::other_gateways;
use crate::proto::query::{Answer, Find, ZoneStatus};
use crate::proto::record::{Record, Refusal};
use crate::proto::resolver::{Consulted, Heard, Level, Open, Origin, Told};
use crate::proto::zone::gateways;

/// Records as one answer holds them.
pub(super) struct Page {
    pub(super) records: Vec<Arc<Record>>,
    pub(super) proofs: Vec<Arc<Record>>,
    /// Of how many agents.
    pub(super) agents: usize,
}

/// What a turn does for questions.
pub(super) struct Questions<'t, 'a>(pub(super) &'t mut Turn<'a>);

impl<'a> Deref for Questions<'_, 'a> {
    type Target = Turn<'a>;

    fn deref(&self) -> &Turn<'a> {
        self.0
    }
}

impl<'a> DerefMut for Questions<'_, 'a> {
    fn deref_mut(&mut self) -> &mut Turn<'a> {
        self.0
    }
}

impl Questions<'_, '_> {
    /// Searches here, and asks others for what is not held here; no reply yet where they are waited for.
    pub(super) fn search(&mut self, id: u64, find: Find, by_name: bool) -> Option<Reply> {
        self.catch_up();
        let zones = self.memory().cover(&find);
        self.0.resolver.counts.of_clients += 1;
        let is_asked = self.memory().asks_others(&find, &zones);
        let ways = if is_asked { self.ways_up(&scope(&find)) } else { Vec::new() };
        let question = match ways.is_empty() {
            true => None,
            false => Search::of(&find, ASK_TIME).map(|search| Question::Find(Box::new(search))),
        };
        let Some(question) = question else {
            return Some(Reply::Found(self.memory().alone_answer(&find, by_name, zones)));
        };
        let now = self.ctx.now;
        if let Some(consulted) = self.0.resolver.recall(&question, Level::L1, now) {
            return Some(Reply::Found(self.united(&consulted, &find, by_name, ZoneStatus::Cached)));
        }
        if !self.0.resolver.has_room() {
            return Some(Reply::Found(self.memory().alone_answer(&find, by_name, zones)));
        }
        let origin = Origin::Find { id, find: Box::new(find), by_name };
        self.0.resolver.ask(&mut self.0.ctx, origin, question, ways, ASK_TIME);
        None
    }

    /// Whether this node answers for all of a scope: as a gateway of a zone that holds it.
    fn holds(&self, scope: &ZoneName) -> bool {
        self.overlay.is_gateway_above(scope)
    }

    /// Who is asked of what lies beyond: a gateway of the home zone, or of its parent; and in an open zone one at the top, so
    /// that one that lies is not believed alone.
    pub(super) fn ways_up(&self, scope: &ZoneName) -> Vec<Contact> {
        if self.holds(scope) {
            // Whoever speaks for a zone and lacks something of it asks another who does.
            let offices = std::iter::once(scope.clone()).chain(scope.ancestors());
            let held =
                offices.filter(|name| self.overlay.is_gateway(name)).find_map(|name| self.zones.get(&name));
            let lacking = held.filter(|zone| !self.memory().answer_of(zone).status.is_fine());
            let others = lacking.map(|zone| other_gateways(zone, &self.ctx, self.links));
            return others.unwrap_or_default().into_iter().take(1).collect();
        }
        let (ctx, own) = (&self.ctx, self.ctx.key());
        let home = ctx.config.home_zone();
        let parent = self.overlay.parent(&home).map(|parent| parent.gateway.clone());
        let zone = self.zones.get(&home);
        let gateways = zone.map(|zone| gateways(zone, ctx, ctx.own_gateway())).unwrap_or_default();
        let mates = gateways.into_iter().filter(|peer| *peer != own && self.links.contains(peer));
        let mut mates = mates.map(|peer| self.links.contact(peer));
        let mate = mates.next();
        let first = if self.overlay.is_gateway(&home) { parent } else { mate };
        // Who has no such mate asks whoever is there.
        let anybody = || self.links.longest_first(ctx.config).next().map(|peer| self.links.contact(peer));
        let first = first.or_else(anybody);
        let is_open = zone.is_none_or(|zone| zone.id().key.is_none());
        let root = ctx.config.zone_id(&ZoneName::root());
        // Who speaks for no zone knows nobody there, but another who does.
        let is_other =
            |it: &Contact| it.peer != own && first.as_ref().is_some_and(|first| first.peer != it.peer);
        let top = self.overlay.contacts_of(&root).iter().find(|it| is_other(it)).cloned();
        let second = top.or_else(|| mates.find(|it| is_other(it))).filter(|_| is_open);
        first.into_iter().chain(second).collect()
    }

    /// A question of a peer: answered from memory, or asked further up for peers of this node's zones and below.
    pub(super) fn handle_question(&mut self, id: u64, peer: PeerKey, bytes: &[u8]) {
        let answer = match Question::decode(bytes) {
            Ok(question) => match self.answer_question(id, peer, question) {
                Some(answer) => answer,
                None => return,
            },
            Err(_) => {
                self.ctx.out.penalize(peer, Offence::Request);
                ask::Answer::Refused
            }
        };
        self.ctx.out.push(Output::Respond { id, bytes: answer.encode() });
    }

    fn answer_question(&mut self, id: u64, peer: PeerKey, question: Question) -> Option<ask::Answer> {
        let scopes: Vec<ZoneName> = match &question {
            Question::Walk { .. } => {
                return Some(self.overlay.answer(&self.ctx, self.zones, self.links, &peer, &question));
            }
            Question::Find(search) => vec![search.zone.clone()],
            Question::Names { names, .. } => names.iter().map(|name| name.zone.clone()).collect(),
            Question::Tree { zone, .. } => vec![zone.clone()],
            Question::Agent { .. } => vec![ZoneName::root()],
        };
        let now = self.ctx.now;
        self.0.resolver.counts.of_peers += 1;
        let above = scopes.iter().find(|scope| !self.holds(scope) && !self.memory().is_whole_here(scope));
        let is_mate = self.zones.values().any(|zone| zone.peers().contains(&peer))
            || self.overlay.below().is_gateway_of_any(&peer);
        let parents = self.zones.values().filter_map(|zone| self.overlay.parent(zone.name()));
        let parent = parents
            .map(|parent| parent.gateway.clone())
            .find(|it| it.peer != peer && it.peer != self.ctx.key());
        let Some(parent) = parent.filter(|_| above.is_some() && is_mate) else {
            let elsewhere = above.map(|scope| self.gateways_of(scope)).filter(|it| !it.is_empty());
            let answer = self.answer_from_memory(&question);
            // Of an agent any copy is an answer.
            let has_it = matches!(&answer, ask::Answer::Named { records, .. } if !records.is_empty());
            return Some(match elsewhere {
                Some(gateways) if !has_it => ask::Answer::Elsewhere { gateways },
                _ => answer,
            });
        };
        if let Some(consulted) = self.0.resolver.recall(&question, Level::L2, now) {
            return Some(self.passed_on(&consulted, &question));
        }
        if !self.0.resolver.has_room() {
            return Some(self.answer_from_memory(&question));
        }
        let left = question.left();
        self.0.resolver.ask(&mut self.0.ctx, Origin::Peer { id }, question, vec![parent], left);
        None
    }

    /// Who holds what lies below a zone of which this node is a member and no gateway.
    fn gateways_of(&self, scope: &ZoneName) -> Vec<Contact> {
        let above = std::iter::once(scope.clone()).chain(scope.ancestors());
        let zone = above.filter_map(|name| self.zones.get(&name)).next();
        let of = zone.filter(|zone| zone.role() == Role::Member);
        of.map(|zone| other_gateways(zone, &self.ctx, self.links)).unwrap_or_default()
    }

    /// What others answered, for a peer; what memory has, if nobody did.
    fn passed_on(&mut self, consulted: &Consulted, question: &Question) -> ask::Answer {
        let now = self.ctx.now;
        match consulted.heard.first() {
            Some(heard) => heard.answer(consulted.passed(now), now),
            None => self.answer_from_memory(question),
        }
    }

    fn answer_from_memory(&mut self, question: &Question) -> ask::Answer {
        self.catch_up();
        match question {
            Question::Walk { .. } => ask::Answer::Refused,
            Question::Find(search) => {
                let Some((query, after)) = search.query() else { return ask::Answer::Refused };
                let find = Find { query, limit: usize::from(search.limit), after, ..Find::default() };
                let memory = self.memory();
                let zones = memory.cover_alone(&find);
                memory.count_replicas(&zones);
                let Answer { found, next, zones } = memory.found_here(&find, false, zones);
                let Page { records, proofs, agents } =
                    self.records_of(found.iter().map(|found| (found.id, found.record.name.zone.clone())));
                ask::Answer::Found {
                    more: next.is_some() || agents < found.len(),
                    proofs: bytes_of(&proofs),
                    alive: self.alive_of(&records),
                    records: bytes_of(&records),
                    cover: Cover::of(&zones, self.overlay.below().referrals(&search.zone, &self.ctx)),
                }
            }
            Question::Names { names, .. } => self.answer_names(names),
            Question::Tree { zone, .. } => self.answer_tree(zone),
            Question::Agent { id, .. } => self.answer_agent(*id),
        }
    }

    /// Records of these agents, each with its zone, as many as an answer holds.
    pub(super) fn records_of(&self, agents: impl Iterator<Item = (AgentId, ZoneName)>) -> Page {
        let (mut records, mut bytes, mut count) = (Vec::new(), 0, 0);
        let (mut proofs, mut proved) = (Vec::new(), BTreeSet::new());
        for (id, zone) in agents {
            if !proved.contains(&zone) {
                let of = self.proofs_of(&zone);
                if proofs.len() + of.len() > PROOFS_MAX {
                    break;
                }
                proofs.extend(of);
                proved.insert(zone.clone());
            }
            let of: Vec<&Arc<Record>> = self
                .zones
                .named(&zone)
                .flat_map(|zone| zone.registry().replicas(&id, self.ctx.now))
                .collect();
            bytes += of.iter().map(|record| record.bytes().len() + 4).sum::<usize>();
            if records.len() + of.len() > ANSWER_RECORDS_MAX || bytes > ANSWER_RECORDS_BYTES_MAX && count > 0
            {
                break;
            }
            records.extend(of.into_iter().cloned());
            count += 1;
        }
        Page { records, proofs, agents: count }
    }

    /// The hosts of these records that are alive.
    pub(super) fn alive_of(&self, records: &[Arc<Record>]) -> Vec<Alive> {
        let mut heard: BTreeMap<PeerKey, u16> = BTreeMap::new();
        for record in records {
            let host = record.host;
            let own = (host == self.ctx.key()).then_some(Duration::ZERO);
            let seen = || {
                self.zones
                    .named(&record.name.zone)
                    .filter_map(|zone| presence_told(zone, &host, self.ctx.now))
            };
            if let Some(since) = own.or_else(|| seen().min()) {
                let seconds = since.as_secs().min(u64::from(u16::MAX)) as u16;
                let known = heard.entry(host).or_insert(seconds);
                *known = seconds.min(*known);
            }
        }
        heard.into_iter().map(|(host, seconds)| Alive(host, seconds)).take(ALIVE_MAX).collect()
    }

    /// An answer to what this node asked others, or the end of waiting for it.
    pub(super) fn handle_answer(&mut self, conversation: ConversationId, bytes: Option<&[u8]>) {
        let Some((peer, question, is_referred)) = self.0.resolver.asked(conversation) else { return };
        let heard = match bytes.map(ask::Answer::decode) {
            Some(Ok(ask::Answer::Elsewhere { gateways })) => {
                // Once: whoever is asked then holds it, or knows nobody better.
                let own = self.ctx.key();
                let next = gateways.into_iter().find(|it| it.peer != own && it.peer != peer);
                if let Some(next) = next
                    && self.0.resolver.redirect(&mut self.0.ctx, conversation, next)
                {
                    return;
                }
                None
            }
            Some(Ok(answer)) => self.hear(peer, &question, is_referred, answer),
            Some(Err(_)) => {
                self.ctx.out.penalize(peer, Offence::Answer);
                None
            }
            None => None,
        };
        if let Some(open) = self.0.resolver.take(&mut self.0.ctx, conversation, heard) {
            self.close(open);
        }
    }

    /// Verifies what a peer answered; all of it is refused if anything is not what it claims to be.
    fn hear(
        &mut self,
        peer: PeerKey,
        question: &Question,
        is_referred: bool,
        answer: ask::Answer,
    ) -> Option<Heard> {
        let (records, alive, proofs, told) = match (answer, question) {
            (ask::Answer::Found { records, more, cover, alive, proofs }, Question::Find(search)) => {
                let scope = search.zone.clone();
                (records, alive, proofs, Told::Found { is_referred, scope, more, cover })
            }
            (ask::Answer::Named { records, zones, gateways, hosts, alive, proofs }, question)
                if question.names() == zones.len() =>
            {
                (records, alive, proofs, Told::Named { zones, gateways, hosts })
            }
            (ask::Answer::Tree { zones, more }, Question::Tree { zone, .. })
                if zones.iter().all(|it| it.id.zone.is_within(zone)) =>
            {
                (Vec::new(), Vec::new(), Vec::new(), Told::Tree { zones, more })
            }
            (ask::Answer::Elsewhere { .. } | ask::Answer::Refused | ask::Answer::Busy { .. }, _) => {
                return None;
            }
            _ => {
                self.ctx.out.penalize(peer, Offence::Answer);
                return None;
            }
        };
        let verified: Result<Vec<Option<Arc<Record>>>, Refusal> =
            records.iter().map(|bytes| verified(&mut self.0.ctx, bytes)).collect();
        let vouched = Vouched::by(&mut self.0.ctx, &proofs);
        let is_answer = |records: &Vec<Option<Arc<Record>>>| {
            records.iter().flatten().all(|record| question.is_answered_by(record))
        };
        let (Some(verified), Ok(vouched)) = (verified.ok().filter(is_answer), vouched) else {
            self.ctx.out.penalize(peer, Offence::Answer);
            return None;
        };
        // What no key vouches for is somebody's claim beside the zone, and no fault of whoever passed it on.
        let records = verified.into_iter().flatten().filter(|record| vouched.admits(record)).collect();
        Some(Heard { peer, records, alive, proofs, told })
    }

    /// Questions whose time is over are answered with what came.
    pub(super) fn answer_overdue(&mut self) {
        for open in self.0.resolver.take_overdue(&mut self.0.ctx) {
            self.close(open);
        }
    }

    fn close(&mut self, mut open: Open) {
        if open.has_time(self.ctx.now) {
            let next = self.next_round(&mut open);
            open.is_confirmed = true;
            if !next.is_empty() {
                return self.0.resolver.go_on(&mut self.0.ctx, open, next);
            }
        }
        let now = self.ctx.now;
        let consulted = Arc::new(open.take_consulted());
        self.0.resolver.keep(&open, consulted.clone(), now);
        for origin in std::mem::take(&mut open.origins) {
            match origin {
                Origin::Find { id, find, by_name } => {
                    let reply = Reply::Found(self.united(&consulted, &find, by_name, ZoneStatus::Answered));
                    self.ctx.out.push(Output::Reply { id, reply });
                }
                Origin::Tree { id } => {
                    let reply = Reply::Tree(self.tree_by(&consulted, ZoneStatus::Answered));
                    self.ctx.out.push(Output::Reply { id, reply });
                }
                Origin::Resolve { id, text, for_call } => {
                    let resolution = self.resolution(&consulted, &open.question, &text);
                    if for_call {
                        self.reach_hosts(&consulted, &resolution);
                        self.note_called(&resolution, &text);
                    }
                    self.finish();
                    self.ctx.out.push(Output::Reply { id, reply: Reply::Resolved(resolution) });
                }
                Origin::Peer { id } => {
                    let answer = self.passed_on(&consulted, &open.question);
                    self.ctx.out.push(Output::Respond { id, bytes: answer.encode() });
                }
            }
        }
    }

    /// Whom the answers lead to.
    fn next_round(&self, open: &mut Open) -> Vec<(Contact, Question)> {
        match (open.origins.first(), open.question.clone()) {
            (Some(Origin::Find { .. }), Question::Find(search)) => self.referred(open, &search),
            (Some(Origin::Resolve { for_call, .. }), question @ Question::Names { .. })
                if !open.is_confirmed =>
            {
                let mut gateways = self.confirming(&open.consulted, &question);
                if gateways.is_empty() && *for_call {
                    gateways = self.knowing_hosts(&open.consulted);
                }
                gateways.into_iter().map(|contact| (contact, question.clone())).collect()
            }
            _ => Vec::new(),
        }
    }
}

pub(super) fn bytes_of(records: &[Arc<Record>]) -> Vec<ByteBuf> {
    records.iter().map(|record| ByteBuf::from(record.bytes().to_vec())).collect()
}

/// A live agent's record, if it is one.
fn verified(ctx: &mut Context<'_>, bytes: &[u8]) -> Result<Option<Arc<Record>>, Refusal> {
    let record = ctx.record_of_peer(bytes)?;
    let is_agent = |it: &Arc<Record>| it.is_agent() && !it.is_tombstone() && it.is_public();
    if record.as_ref().is_none_or(is_agent) { Ok(record) } else { Err(Refusal::Malformed) }
}
