//! The walk: a gateway asks its way from the root down to its own zone, and delegates it in the last zone that answers.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_bytes::ByteBuf;

use super::{Overlay, ask, counts, delegated, way};
use crate::proto::ask::{Answer, Contact, Question, Way};
use crate::proto::config::Config;
use crate::proto::context::Context;
use crate::proto::identity::PeerKey;
use crate::proto::io::{ConversationId, Offence, Output, Protocol};
use crate::proto::limits::PROOFS_MAX;
use crate::proto::links::Links;
use crate::proto::name::{ZoneId, ZoneName};
use crate::proto::record::{Record, Refusal};
use crate::proto::time::Timestamp;
use crate::proto::zone::{Zones, may_speak, note_unknown_above};

/// Questions of one walk: three gateways of each of eight zones.
const ASKS_MAX: usize = 24;
/// How long one of them may take.
pub(super) const ASK_PATIENCE: Duration = Duration::from_secs(5);
/// The wait after a walk that nobody answered.
const RETRY: Duration = Duration::from_secs(5);
/// The wait after the first connection: who begins in the same zone at the same time is met within it, and of two that ask their
/// way without each other both would be told that nobody else serves it.
const FIRST_PATIENCE: Duration = Duration::from_secs(3);
/// Connected peers that are asked in one walk who serves the root, where nobody is known; the next walk asks others.
const FIRST_ASKED: usize = 8;

/// The walks to one zone of which this node is a gateway.
pub(super) struct Walker {
    next: Timestamp,
    walk: Option<Walk>,
    /// Walks since one reached a zone above in which somebody was asked.
    in_vain: usize,
    pub(super) parent: Option<Parent>,
    /// Delegations above of what lies below the zone, as the last walk was told.
    told_below: Vec<Arc<Record>>,
    was_told: bool,
    /// Delegations with grants of the zone and of those above it, as the last walk was told.
    proofs: Vec<Arc<Record>>,
    /// Its own delegation, as it was given last.
    pub(super) given: Option<Arc<Record>>,
    pub(super) giving: Option<(ConversationId, Timestamp)>,
}

/// The nearest zone above that answers.
#[derive(Clone, Debug)]
pub(in crate::proto) struct Parent {
    /// Which.
    pub(in crate::proto) zone: ZoneId,
    /// The gateway that answered.
    pub(in crate::proto) gateway: Contact,
    /// When it answered.
    pub(in crate::proto) at: Timestamp,
}

/// One walk.
struct Walk {
    at: ZoneId,
    /// Whether this node itself was asked of the zone, which it may serve.
    asked_itself: bool,
    untried: VecDeque<Contact>,
    tried: BTreeSet<PeerKey>,
    /// Zones further down of which the last one told, the nearest first.
    nearer: VecDeque<(ZoneId, Vec<Contact>)>,
    asking: Option<(ConversationId, Contact, Timestamp)>,
    asks: usize,
    /// Delegations with grants on the way.
    proofs: Vec<Arc<Record>>,
    /// The last zone that answered.
    reached: Option<Reached>,
}

pub(super) struct Reached {
    pub(super) zone: ZoneId,
    pub(super) gateway: Contact,
    whole: bool,
    pub(super) way: Vec<Arc<Record>>,
    below: Vec<Arc<Record>>,
    pub(super) slot: u16,
}

impl Walker {
    pub(super) fn new(zone: &ZoneName, ctx: &Context<'_>) -> Walker {
        // Nothing lies above the root.
        let next = if zone.is_root() { Timestamp(u64::MAX) } else { ctx.now };
        Walker {
            next,
            walk: None,
            in_vain: 0,
            parent: None,
            told_below: Vec::new(),
            was_told: false,
            proofs: Vec::new(),
            given: None,
            giving: None,
        }
    }

    pub(super) fn parent(&self) -> Option<&Parent> {
        self.parent.as_ref()
    }

    /// Whether some walk reached a zone above.
    pub(super) fn was_told(&self) -> bool {
        self.was_told
    }

    pub(super) fn proofs(&self) -> &[Arc<Record>] {
        &self.proofs
    }

    pub(super) fn told_below(&self) -> &[Arc<Record>] {
        &self.told_below
    }

    pub(super) fn leads(&self, id: ConversationId) -> bool {
        let asks =
            self.walk.as_ref().and_then(|walk| walk.asking.as_ref()).is_some_and(|(asked, ..)| *asked == id);
        asks || self.giving.is_some_and(|(giving, _)| giving == id)
    }

    /// A conversation in which a delegation was given is over.
    pub(super) fn has_given(&mut self, id: ConversationId) -> bool {
        self.giving.take_if(|(giving, _)| *giving == id).is_some()
    }

    pub(super) fn due(&self) -> Option<Timestamp> {
        let asking = self.walk.as_ref().and_then(|walk| walk.asking.as_ref()).map(|(.., until)| *until);
        let next = asking.unwrap_or(self.next);
        let giving = self.giving.map(|(_, until)| until);
        giving.into_iter().chain([next]).min().filter(|at| *at < Timestamp(u64::MAX))
    }

    pub(super) fn abandon(&self, ctx: &mut Context<'_>) {
        let asking = self.walk.as_ref().and_then(|walk| walk.asking.as_ref()).map(|(id, ..)| *id);
        for conversation in asking.into_iter().chain(self.giving.map(|(id, _)| id)) {
            ctx.out.push(Output::EndConversation { conversation });
        }
    }

    pub(super) fn handle_peer_connected(&mut self, now: Timestamp, config: &Config) {
        if self.parent.is_none() && self.walk.is_none() && self.next < Timestamp(u64::MAX) {
            self.next = self.next.min(now + FIRST_PATIENCE.min(config.walk_interval));
        }
    }

    pub(super) fn handle_peer_lost(&mut self, peer: &PeerKey, now: Timestamp) {
        if self.parent.as_ref().is_some_and(|parent| parent.gateway.peer == *peer) {
            self.next = self.next.min(now);
        }
    }

    pub(super) fn shift(&mut self, step: Duration) {
        if self.next < Timestamp(u64::MAX) {
            self.next = self.next - step;
        }
        if let Some((.., until)) = self.walk.as_mut().and_then(|walk| walk.asking.as_mut()) {
            *until = *until - step;
        }
        if let Some((_, until)) = &mut self.giving {
            *until = *until - step;
        }
        if let Some(parent) = &mut self.parent {
            parent.at = parent.at - step;
        }
    }
}

impl Walk {
    fn new(at: ZoneId, untried: VecDeque<Contact>) -> Walk {
        Walk {
            at,
            asked_itself: false,
            untried,
            tried: BTreeSet::new(),
            nearer: VecDeque::new(),
            asking: None,
            asks: 0,
            proofs: Vec::new(),
            reached: None,
        }
    }

    fn enter(&mut self, zone: ZoneId, contacts: impl IntoIterator<Item = Contact>) {
        self.at = zone;
        self.asked_itself = false;
        self.untried = contacts.into_iter().collect();
        self.tried.clear();
    }
}

impl Overlay {
    pub(super) fn walk_if_due(
        &mut self,
        ctx: &mut Context<'_>,
        zones: &mut Zones,
        links: &Links,
        name: &ZoneName,
    ) {
        let Some(walker) = self.offices.get_mut(name) else { return };
        if let Some((conversation, _)) = walker.giving.take_if(|(_, until)| *until <= ctx.now) {
            ctx.out.push(Output::EndConversation { conversation });
        }
        let asking = walker.walk.as_ref().and_then(|walk| walk.asking.as_ref());
        if let Some((conversation, _, until)) = asking {
            if *until <= ctx.now {
                ctx.out.push(Output::EndConversation { conversation: *conversation });
                self.note_unanswered(name);
                self.walk_on(ctx, zones, links, name);
            }
            return;
        }
        if walker.next <= ctx.now {
            let root = ctx.config.zone_id(&ZoneName::root());
            let known = self.contacts.of(&root).iter().cloned();
            // Whoever serves the root is known to somebody who is connected.
            let connected = first_asked(links, ctx.config, walker.in_vain);
            walker.walk = Some(Walk::new(root, known.chain(connected).collect()));
            walker.next = ctx.now + ctx.jitter(ctx.config.walk_interval);
            self.walk_on(ctx, zones, links, name);
        }
    }

    /// Whoever was asked does not answer; who it was.
    pub(super) fn note_unanswered(&mut self, name: &ZoneName) -> Option<PeerKey> {
        let walk = self.offices.get_mut(name)?.walk.as_mut()?;
        let (_, contact, _) = walk.asking.take()?;
        self.contacts.failed(&walk.at, &contact);
        Some(contact.peer)
    }

    /// Asks the next who may know, goes on to the next zone, or ends the walk.
    pub(super) fn walk_on(
        &mut self,
        ctx: &mut Context<'_>,
        zones: &mut Zones,
        links: &Links,
        name: &ZoneName,
    ) {
        loop {
            let Some(walk) = self.offices.get_mut(name).and_then(|walker| walker.walk.as_mut()) else {
                return;
            };
            if walk.asking.is_some() {
                return;
            }
            let itself = zones.get(&walk.at.zone).filter(|zone| *zone.id() == walk.at && !walk.asked_itself);
            if let Some(zone) = itself.filter(|zone| may_speak(zone, links, ctx.config, ctx.now)) {
                walk.asked_itself = true;
                let own = Contact { peer: ctx.key(), addresses: ctx.addresses.to_vec() };
                let way = way(ctx, links, zone, &ctx.config.zone_id(name), &ctx.key());
                self.take_way(ctx, name, own, way);
            } else if walk.asks < ASKS_MAX
                && let Some(contact) = walk.untried.pop_front()
            {
                if contact.peer != ctx.key() && walk.tried.insert(contact.peer) {
                    walk.asks += 1;
                    let target = ctx.config.zone_id(name);
                    let question = Question::Walk { zone: walk.at.clone(), target };
                    let id = ask(ctx, &contact, Protocol::Ask, question.encode());
                    walk.asking = Some((id, contact, ctx.now + ASK_PATIENCE));
                }
            } else if let Some((zone, contacts)) = walk.nearer.pop_front() {
                let known = self.contacts.of(&zone).iter().cloned();
                walk.enter(zone, contacts.into_iter().chain(known));
            } else {
                return self.end_walk(ctx, zones, name);
            }
        }
    }

    /// An answer of whoever was asked.
    pub(super) fn handle_answer(
        &mut self,
        ctx: &mut Context<'_>,
        _zones: &mut Zones,
        name: &ZoneName,
        answer: Answer,
    ) {
        let Some(walk) = self.offices.get_mut(name).and_then(|walker| walker.walk.as_mut()) else { return };
        let Some((_, contact, _)) = walk.asking.take() else { return };
        match answer {
            Answer::Way(way) => {
                let peer = contact.peer;
                if !self.take_way(ctx, name, contact, *way) {
                    ctx.out.penalize(peer, Offence::Answer);
                }
            }
            Answer::Elsewhere { gateways } => {
                // First: who was asked knows more than whoever else is left.
                for contact in gateways.into_iter().rev() {
                    walk.untried.push_front(contact);
                }
            }
            Answer::Found { .. } | Answer::Named { .. } | Answer::Tree { .. } => {
                ctx.out.penalize(contact.peer, Offence::Answer)
            }
            Answer::Refused | Answer::Busy { .. } => {}
        }
    }

    /// A member of the zone that was asked told what it knows; whether all of it is what it claims to be.
    fn take_way(&mut self, ctx: &mut Context<'_>, name: &ZoneName, gateway: Contact, told: Way) -> bool {
        let Some(walk) = self.offices.get_mut(name).and_then(|walker| walker.walk.as_mut()) else {
            return true;
        };
        let at = walk.at.clone();
        let mut verify = |records: Vec<ByteBuf>| -> Result<Vec<Arc<Record>>, Refusal> {
            let verified: Result<Vec<_>, _> = records.iter().map(|bytes| verified(ctx, &at, bytes)).collect();
            Ok(verified?.into_iter().flatten().collect())
        };
        let (Ok(way), Ok(below)) = (verify(told.way), verify(told.below)) else { return false };
        let target = ctx.config.zone_id(name);
        let mut nearer: Vec<(ZoneId, Vec<Contact>)> = Vec::new();
        for record in &way {
            let Some(zone) = delegated(record).filter(|zone| counts(ctx.config, record, zone)) else {
                continue;
            };
            if !name.is_within(&zone.zone) {
                return false;
            }
            if zone == target || zone.zone == *name || record.is_expired(ctx.now) {
                continue;
            }
            match nearer.iter_mut().find(|(known, _)| *known == zone) {
                Some((_, contacts)) => contacts.extend(contact_of(record)),
                None => nearer.push((zone, contact_of(record).into_iter().collect())),
            }
        }
        // The nearest to where we are first: it knows best what lies below it. Of two registries of a name the one with a key.
        nearer.sort_by_key(|(zone, _)| (zone.zone.as_str().len(), zone.key.is_none()));
        self.contacts.answered(&at, gateway.clone(), &told.gateways);
        let granted = way.iter().filter(|record| record.granted_by.is_some());
        walk.proofs.extend(granted.take(PROOFS_MAX - walk.proofs.len().min(PROOFS_MAX)).cloned());
        walk.nearer = nearer.into();
        walk.untried.clear();
        walk.reached = Some(Reached { zone: at, gateway, whole: told.whole, way, below, slot: told.slot });
        true
    }

    fn end_walk(&mut self, ctx: &mut Context<'_>, zones: &mut Zones, name: &ZoneName) {
        let Some(walker) = self.offices.get_mut(name) else { return };
        let Some(Walk { reached, proofs, asks, .. }) = walker.walk.take() else { return };
        let Some(reached) = reached else {
            // That nobody who was asked knows the root does not say that nobody serves it, or what lies below this zone: whoever
            // serves a zone there found no way either.
            walker.in_vain += usize::from(asks > 0);
            walker.next = walker.next.min(ctx.now + ctx.jitter(RETRY));
            return;
        };
        (walker.proofs, walker.was_told, walker.in_vain) = (proofs, true, 0);
        let told: Vec<Arc<Record>> =
            reached.below.iter().filter(|record| is_of_below(ctx, record, name)).cloned().collect();
        let zones_of = |told: &[Arc<Record>]| -> BTreeSet<Option<ZoneId>> {
            told.iter().map(|record| delegated(record)).collect()
        };
        if !zones_of(&told).is_subset(&zones_of(&walker.told_below)) {
            self.below.look_anew(ctx.now);
        }
        walker.told_below = told;
        let target = ctx.config.zone_id(name);
        let own = ctx.key();
        let is_other = |record: &Arc<Record>| delegated(record) == Some(target.clone()) && record.host != own;
        if reached.whole
            && !reached.way.iter().any(is_other)
            && let Some(zone) = zones.get_mut(name)
        {
            note_unknown_above(zone, ctx.now);
        }
        // Those of the zone that were never met: halves of it become one.
        let strangers = reached.way.iter().filter(|record| is_other(record));
        let is_met = |peer: &PeerKey| zones.get(name).is_some_and(|zone| zone.peers().contains(peer));
        for contact in strangers.filter_map(|record| contact_of(record)).filter(|it| !is_met(&it.peer)) {
            ctx.out.push(Output::Reach(contact));
        }
        walker.parent =
            Some(Parent { zone: reached.zone.clone(), gateway: reached.gateway.clone(), at: ctx.now });
        self.delegate(ctx, zones, name, &reached);
    }
}

/// Some of the connected peers: the operator's in each walk, of the others some more after each walk `in_vain`, all of them in
/// turn. Strangers may be more than one walk asks, and know nobody.
fn first_asked(links: &Links, config: &Config, in_vain: usize) -> Vec<Contact> {
    let (given, others): (Vec<PeerKey>, Vec<PeerKey>) =
        links.longest_first(config).partition(|peer| config.bootstrap_peers.contains(peer));
    let from = in_vain * FIRST_ASKED % others.len().max(1);
    let in_turn = others.iter().cycle().skip(from).take(FIRST_ASKED.min(others.len()));
    given.iter().take(FIRST_ASKED).chain(in_turn).map(|peer| links.contact(*peer)).collect()
}

/// Whether a delegation that the walk was told of names a zone strictly below.
fn is_of_below(ctx: &Context<'_>, record: &Record, above: &ZoneName) -> bool {
    delegated(record)
        .is_some_and(|it| it.zone != *above && it.zone.is_within(above) && counts(ctx.config, record, &it))
}

/// A delegation of the registry that was asked, if it is one.
fn verified(ctx: &mut Context<'_>, of: &ZoneId, bytes: &[u8]) -> Result<Option<Arc<Record>>, Refusal> {
    let Some(record) = ctx.record_of_peer(bytes)? else { return Ok(None) };
    let is_granted = of.key.is_none_or(|key| record.granted_by == Some(key));
    let is_right = record.name.zone == of.zone && is_granted && record.delegation().is_some();
    if is_right { Ok(Some(record)) } else { Err(Refusal::BadDelegation) }
}

/// Where a delegation says that its host is dialed.
pub(in crate::proto) fn contact_of(record: &Record) -> Option<Contact> {
    record.delegation().map(|delegation| Contact { peer: record.host, addresses: delegation.addresses })
}
