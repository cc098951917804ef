//! The tree of zones as one node sees it (protocol section 4): where its zones hang, and what lies below them.
//!
//! Any member may speak for its zone; its first three do, by rendezvous hashing, and are its **gateways**. A gateway asks its
//! way from the root down to its zone (`walk`), and delegates it in the last zone that answers: that is the parent. It
//! follows every zone that is delegated below its own (`below`), by comparisons alone and in memory, so that it answers for
//! all of them. Parents that die, lie or appear later need no other rule: the next walk finds what there is.

mod below;
mod contacts;
mod delegating;
mod walk;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use self::below::Below;
use self::contacts::Contacts;
pub(super) use self::walk::Parent;
use self::walk::Walker;
pub(super) use self::walk::contact_of;
use super::ask::{Answer, Contact, Question, Way};
use super::card::Scope;
use super::config::Config;
use super::context::Context;
use super::identity::{AgentId, PeerKey};
use super::io::{ConversationId, Offence, Output, Protocol, Role};
use super::limits::{SLOTS, SYNC_LOOKED_MAX, WAY_BELOW_MAX, WAY_GATEWAYS_MAX, WAY_RECORDS_MAX};
use super::links::Links;
use super::name::{ZoneId, ZoneName};
use super::record::{KeyHash, Record, RecordKey, RecordKind, Shelf};
use super::time::Timestamp;
use super::zone::{Zone, Zones, gateways, may_speak};

/// How often a node looks whether it is a gateway.
const OFFICE_INTERVAL: Duration = Duration::from_secs(5);
/// Delegations of one zone that an answer names: its gateways, and some that were.
const WAY_PER_ZONE_MAX: usize = 6;

/// What a node knows of the tree of zones.
pub(super) struct Overlay {
    /// When it is looked who the gateways are.
    look_at: Timestamp,
    /// The zones of this node of which it is a gateway.
    offices: BTreeMap<ZoneName, Walker>,
    below: Below,
    contacts: Contacts,
    /// Agents of replicas that were dropped since they were last taken.
    dropped: Vec<AgentId>,
}

impl Overlay {
    /// With the contacts that the store kept.
    pub(super) fn new(contacts: Vec<(ZoneId, Vec<Contact>)>, now: Timestamp) -> Overlay {
        Overlay {
            look_at: now,
            offices: BTreeMap::new(),
            below: Below::new(now),
            contacts: Contacts::new(contacts, now),
            dropped: Vec::new(),
        }
    }

    /// Lets time pass.
    pub(super) fn handle_timeout(&mut self, ctx: &mut Context<'_>, zones: &mut Zones, links: &Links) {
        if self.look_at <= ctx.now {
            self.look_at = ctx.now + OFFICE_INTERVAL;
            self.look_for_offices(ctx, zones);
            self.contacts.tend(ctx, zones.values(), links);
        }
        for name in self.offices.keys().cloned().collect::<Vec<_>>() {
            self.walk_if_due(ctx, zones, links, &name);
        }
        self.follow_if_due(ctx, zones);
    }

    /// When [`Overlay::handle_timeout`] has something to do.
    pub(super) fn poll_timeout(&self, addresses: &[serde_bytes::ByteBuf]) -> Option<Timestamp> {
        // Whoever cannot be dialed is no gateway, and was none.
        if addresses.is_empty() && self.offices.is_empty() {
            return None;
        }
        let walks = self.offices.values().filter_map(Walker::due);
        walks.chain(self.below.due()).chain([self.look_at]).min()
    }

    fn look_for_offices(&mut self, ctx: &mut Context<'_>, zones: &Zones) {
        let own = ctx.key();
        let is_gateway = |zone: &Zone| gateways(zone, ctx, ctx.own_gateway()).contains(&own);
        let members = zones.values().filter(|zone| zone.role() == Role::Member);
        let held: Vec<ZoneName> =
            members.filter(|zone| is_gateway(zone)).map(|zone| zone.name().clone()).collect();
        let gone: Vec<ZoneName> = self.offices.keys().filter(|name| !held.contains(name)).cloned().collect();
        for name in gone {
            if let Some(walker) = self.offices.remove(&name) {
                walker.abandon(ctx);
            }
        }
        for name in held {
            let below = &mut self.below;
            self.offices.entry(name.clone()).or_insert_with(|| {
                // What lies below a zone is known before anything is said of it.
                below.look_anew(ctx.now);
                Walker::new(&name, ctx)
            });
        }
    }

    /// A zone is left, or the node ends: its delegation is buried.
    pub(super) fn leave(&mut self, ctx: &mut Context<'_>, zones: &mut Zones, name: &ZoneName) {
        if let Some(walker) = self.offices.remove(name) {
            walker.abandon(ctx);
            self.bury(ctx, zones, walker);
        }
    }

    /// A zone was left: if it lies below one of this node's it is followed from now on, and until then nothing is known of it.
    pub(super) fn note_left(&mut self, now: Timestamp) {
        self.below.look_anew(now);
    }

    /// A peer came: who found nobody to ask his way asks now.
    pub(super) fn handle_peer_connected(&mut self, now: Timestamp, config: &Config) {
        self.offices.values_mut().for_each(|walker| walker.handle_peer_connected(now, config));
    }

    /// A peer left, and with it maybe a parent: the way is asked anew at once.
    pub(super) fn handle_peer_lost(&mut self, peer: &PeerKey, now: Timestamp) {
        self.offices.values_mut().for_each(|walker| walker.handle_peer_lost(peer, now));
    }

    /// The local clock went back by `step`.
    pub(super) fn shift(&mut self, step: Duration) {
        self.look_at = self.look_at - step;
        self.offices.values_mut().for_each(|walker| walker.shift(step));
        self.below.shift(step);
        self.contacts.shift(step);
    }

    /// Whether this node leads the conversation, to ask its way or to give what it wrote.
    pub(super) fn leads(&self, id: ConversationId) -> bool {
        self.offices.values().any(|walker| walker.leads(id))
    }

    pub(super) fn handle_response(
        &mut self,
        ctx: &mut Context<'_>,
        zones: &mut Zones,
        links: &Links,
        id: ConversationId,
        bytes: &[u8],
    ) {
        let Some((name, walker)) = self.offices.iter_mut().find(|(_, walker)| walker.leads(id)) else {
            return;
        };
        let name = name.clone();
        ctx.out.push(Output::EndConversation { conversation: id });
        if walker.has_given(id) {
            return;
        }
        match Answer::decode(bytes) {
            Ok(answer) => self.handle_answer(ctx, zones, &name, answer),
            Err(_) => {
                if let Some(peer) = self.note_unanswered(&name) {
                    ctx.out.penalize(peer, Offence::Answer);
                }
            }
        }
        self.walk_on(ctx, zones, links, &name);
    }

    pub(super) fn handle_request_failed(
        &mut self,
        ctx: &mut Context<'_>,
        zones: &mut Zones,
        links: &Links,
        id: ConversationId,
    ) {
        let Some((name, walker)) = self.offices.iter_mut().find(|(_, walker)| walker.leads(id)) else {
            return;
        };
        let name = name.clone();
        ctx.out.push(Output::EndConversation { conversation: id });
        if !walker.has_given(id) {
            self.note_unanswered(&name);
            self.walk_on(ctx, zones, links, &name);
        }
    }

    /// Answers a question of a peer.
    pub(super) fn answer(
        &self,
        ctx: &Context<'_>,
        zones: &Zones,
        links: &Links,
        asker: &PeerKey,
        question: &Question,
    ) -> Answer {
        let Question::Walk { zone: id, target } = question else { return Answer::Refused };
        let zone = zones.get(&id.zone).filter(|zone| zone.id() == id && zone.role() == Role::Member);
        if let Some(zone) = zone {
            // Whoever is no gateway holds nothing of what lies below: those that do are to be the parents, and to be asked.
            let mut gateways = other_gateways(zone, ctx, links);
            gateways.retain(|it| it.peer != *asker);
            if !self.is_gateway(zone.name()) && !gateways.is_empty() {
                return Answer::Elsewhere { gateways };
            }
            return Answer::Way(Box::new(way(ctx, links, zone, target, asker)));
        }
        let known = self.contacts.of(id).iter().chain(self.below.gateways(id));
        let mut gateways: Vec<Contact> =
            known.filter(|it| it.peer != *asker).take(WAY_GATEWAYS_MAX).cloned().collect();
        if gateways.is_empty() {
            // Whoever asks no way itself knows some who do.
            let asked_none =
                zones.values().filter(|it| it.role() == Role::Member && !self.is_gateway(it.name()));
            let of = asked_none.flat_map(|zone| other_gateways(zone, ctx, links));
            gateways = of.filter(|it| it.peer != *asker).take(WAY_GATEWAYS_MAX).collect();
        }
        if gateways.is_empty() { Answer::Refused } else { Answer::Elsewhere { gateways } }
    }

    /// What a zone hangs on of which this node is a gateway.
    pub(super) fn parent(&self, zone: &ZoneName) -> Option<&Parent> {
        self.offices.get(zone).and_then(Walker::parent)
    }

    /// Whether it is known what lies below a zone that this node speaks for: a walk told it.
    pub(super) fn knows_below(&self, zone: &ZoneName) -> bool {
        zone.is_root() || self.offices.get(zone).is_some_and(Walker::was_told)
    }

    /// The delegations with grants that the last walk to a zone was told on its way, of that zone and those above it.
    pub(super) fn proofs(&self, zone: &ZoneName) -> &[Arc<Record>] {
        self.offices.get(zone).map_or(&[], Walker::proofs)
    }

    /// Agents of replicas that were dropped since this was last called.
    pub(super) fn take_dropped(&mut self) -> Vec<AgentId> {
        std::mem::take(&mut self.dropped)
    }

    /// Who answered for a zone, or was named for it.
    pub(super) fn contacts_of(&self, zone: &ZoneId) -> &[Contact] {
        self.contacts.of(zone)
    }

    /// What lies below the zones that this node is a gateway of.
    pub(super) fn below(&self) -> &Below {
        &self.below
    }

    /// Whether this node is a gateway of a zone or of one above it.
    pub(super) fn is_gateway_above(&self, zone: &ZoneName) -> bool {
        self.is_gateway(zone) || zone.ancestors().any(|above| self.is_gateway(&above))
    }

    /// Whether this node is a gateway of a zone, and follows what lies below it.
    pub(super) fn is_gateway(&self, zone: &ZoneName) -> bool {
        self.offices.contains_key(zone)
    }
}

/// Connected members of a zone that speak for it, but for this node.
pub(super) fn other_gateways(zone: &Zone, ctx: &Context<'_>, links: &Links) -> Vec<Contact> {
    let of = gateways(zone, ctx, ctx.own_gateway()).into_iter();
    of.filter(|it| *it != ctx.key() && links.contains(it)).map(|peer| links.contact(peer)).collect()
}

/// What a member knows of the way from its zone to one below.
fn way(ctx: &Context<'_>, links: &Links, zone: &Zone, asked: &ZoneId, asker: &PeerKey) -> Way {
    let (above, target) = (zone.name(), &asked.zone);
    let registry = zone.registry();
    let held = |keys: Vec<KeyHash>| -> Vec<&Record> {
        let records = keys.iter().filter_map(|key| registry.get(key)).map(|record| &**record);
        let mut live: Vec<&Record> =
            records.filter(|it| !it.is_expired(ctx.now) && !registry.is_revoked(it, ctx.now)).collect();
        live.sort_by_key(|record| std::cmp::Reverse(record.order()));
        live
    };
    let delegations = &zone.records.delegations;
    let between = std::iter::once(target.clone()).chain(target.ancestors());
    let between: Vec<ZoneName> = between.filter(|it| it != above && it.is_within(above)).collect();
    // Nearest first: of a deep tree the asker goes on from there.
    let on_the_way = between.iter().rev().flat_map(|zone| {
        let of = held(delegations.of(zone).copied().collect());
        of.into_iter().take(WAY_PER_ZONE_MAX).collect::<Vec<_>>()
    });
    let bytes = |record: &Record| serde_bytes::ByteBuf::from(record.bytes().to_vec());
    let way = on_the_way.take(WAY_RECORDS_MAX).map(bytes).collect();
    // Some of them where there are many: the newest of these, as many as an answer holds.
    let below = held(delegations.below(target).take(SYNC_LOOKED_MAX).copied().collect());
    let others =
        gateways(zone, ctx, ctx.own_gateway()).into_iter().filter(|it| *it != ctx.key() && it != asker);
    Way {
        whole: may_speak(zone, links, ctx.config, ctx.now),
        gateways: others.take(WAY_GATEWAYS_MAX).map(|peer| links.contact(peer)).collect(),
        way,
        below: below.into_iter().take(WAY_BELOW_MAX).map(bytes).collect(),
        slot: slot_of(zone, asked, *asker),
    }
}

/// The slot of a host's delegation: that in which it stands, or what buried it, else the lowest that is free on its shelf.
fn slot_of(zone: &Zone, target: &ZoneId, host: PeerKey) -> u16 {
    let (registry, kind) = (zone.registry(), RecordKind::Delegation);
    let Some(name) = target.zone.delegated_in(zone.name()) else { return 0 };
    let owner = target.key.unwrap_or(host);
    let key = RecordKey { zone: zone.name(), kind: &kind, name: &name, owner, host, scope: Scope::Public };
    let present = registry.get(&key.hash()).map(|record| record.slot);
    let shelf = Shelf { owner: host, host, revocations: false };
    let free = || (0..SLOTS).find(|slot| registry.in_slot(shelf, *slot).is_none());
    present.or_else(free).unwrap_or(0)
}

/// Asks a node something in a conversation of its own.
fn ask(ctx: &mut Context<'_>, contact: &Contact, protocol: Protocol, bytes: Vec<u8>) -> ConversationId {
    let conversation = ctx.out.next_conversation();
    ctx.out.push(Output::Reach(contact.clone()));
    ctx.out.push(Output::Request { conversation, peer: contact.peer, protocol, bytes });
    conversation
}

/// The zone that a delegation names, and its key if it has one: its owner, where that is not its host.
pub(super) fn delegated(record: &Record) -> Option<ZoneId> {
    let key = (record.owner != record.host).then_some(record.owner);
    record.delegation().map(|delegation| ZoneId { zone: delegation.zone, key })
}

/// Whether a delegation counts: of a zone whose key the operator named only with that key, and below it, where it was found
/// above, only with what that key vouches for.
pub(super) fn counts(config: &Config, record: &Record, named: &ZoneId) -> bool {
    debug_assert_eq!(record.kind, RecordKind::Delegation);
    if let Some(key) = config.zone_keys.get(&named.zone) {
        return named.key == Some(*key);
    }
    let found_in = &record.name.zone;
    let between = named.zone.ancestors().take_while(|above| above != found_in);
    let anchor = between.filter_map(|above| config.zone_keys.get(&above)).next();
    anchor.is_none_or(|key| record.granted_by == Some(*key))
}
