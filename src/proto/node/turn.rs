//! One turn of a node: all its machines, lent apart from each other, and what passes between them.

use std::time::Duration;

use super::ask::Questions;
use super::memory::Memory;
use crate::proto::clock::{Clock, ClockChange};
use crate::proto::context::Context;
use crate::proto::directory::Directory;
use crate::proto::fingerprint;
use crate::proto::forks::Forks;
use crate::proto::identity::PeerKey;
use crate::proto::io::{
    Command, ConversationId, Dialed, Event, GossipId, NodeAlert, Offence, Output, Reply, Role,
    StoreCondition, Verdict, Write, ZoneError,
};
use crate::proto::links::Links;
use crate::proto::message::{SyncAnswer, SyncFrame, SyncRequest};
use crate::proto::name::{ZoneId, ZoneName};
use crate::proto::overlay::Overlay;
use crate::proto::own_records::{OwnRecords, Replace, note_written, publish, withdraw_version};
use crate::proto::owners::Owners;
use crate::proto::persistence;
use crate::proto::query::{KnownOwner, OwnerError, Resolution};
use crate::proto::resolver::Resolver;
use crate::proto::zone::{Notice, Zone, Zones, note_others};

/// What was lost is back when a zone was compared so long after it was noticed: two syncs later, with another peer where
/// there is one.
const RESTORED_AFTER: Duration = Duration::from_secs(60);

/// All machines of a node for one turn.
pub(super) struct Turn<'a> {
    pub(super) ctx: Context<'a>,
    pub(super) zones: &'a mut Zones,
    pub(super) links: &'a mut Links,
    pub(super) own: &'a mut OwnRecords,
    pub(super) owners: &'a mut Owners,
    pub(super) forks: &'a mut Forks,
    pub(super) clock: &'a mut Clock,
    pub(super) directory: &'a mut Directory,
    pub(super) overlay: &'a mut Overlay,
    pub(super) resolver: &'a mut Resolver,
}

impl Turn<'_> {
    /// A clock that goes back must not leave timers in a far future.
    pub(super) fn observe_clock(&mut self) {
        let step = self.clock.observe(self.ctx.now);
        self.ctx.clock_settles = self.clock.settles();
        let Some(step) = step else { return };
        self.zones.values_mut().for_each(|zone| zone.shift(step));
        self.zones.below_mut().shift(step, self.ctx.config);
        self.overlay.shift(step);
        self.resolver.shift(step);
        self.own.shift(step);
        self.clock.shift(step);
        self.ctx.out.backlog().shift(step);
        self.links.shift(step);
        self.check_clock();
        self.own.plan_renewals(&mut self.ctx, self.zones);
    }

    pub(super) fn handle_command(&mut self, id: u64, command: Command) {
        let Turn { ctx, zones, own, directory, overlay, .. } = self;
        let reply = match command {
            Command::Find(find) => match Questions(self).search(id, find, false) {
                Some(reply) => reply,
                None => return,
            },
            Command::List(find) => match Questions(self).search(id, find, true) {
                Some(reply) => reply,
                None => return,
            },
            Command::Tree => match Questions(self).tree_or_ask(id) {
                Some(reply) => reply,
                None => return,
            },
            Command::Resolve(text) => match self.resolve_or_ask(id, &text, false) {
                Some(resolution) => Reply::Resolved(resolution),
                None => return,
            },
            Command::ResolveForCall(text) => match self.resolve_or_ask(id, &text, true) {
                Some(resolution) => {
                    self.note_called(&resolution, &text);
                    Reply::Resolved(resolution)
                }
                None => return,
            },
            Command::Owners => self.memory().known_owners(),
            Command::TrustOwner { name, owner } => Reply::Owner(trust_owner(self, &name, owner)),
            Command::ForgetOwner(name) => Reply::Owner(forget_owner(self, &name)),
            Command::Register(offers) => {
                Reply::Registered(own.register(ctx, zones, offers, Replace::Versions))
            }
            Command::Replace(offers) => {
                Reply::Registered(own.register(ctx, zones, offers, Replace::Anything))
            }
            Command::OfferFiles { offers, withdraw } => {
                Reply::Registered(own.offer_files(ctx, zones, directory, offers, &withdraw))
            }
            Command::Deregister(name) => Reply::Deregistered(own.deregister(ctx, zones, directory, &name)),
            Command::WithdrawVersion(offer) => {
                Reply::Deregistered(withdraw_version(own, ctx, zones, directory, *offer))
            }
            Command::NameImports(keys) => {
                own.imports = keys;
                Reply::ImportsNamed
            }
            Command::Publish(signed) => Reply::Published(publish(own, ctx, zones, &signed)),
            Command::Adopt(name) => Reply::Adopted(own.adopt_restored(ctx, zones, &name)),
            Command::JoinZone { zone, role } => Reply::Zone(self.join(zone, role)),
            Command::LeaveZone(zone) => Reply::Zone(self.leave(&zone)),
            Command::Leave => {
                for name in zones.names() {
                    overlay.leave(ctx, zones, &name);
                }
                zones.values_mut().for_each(|zone| zone.say_goodbye(ctx));
                Reply::Left
            }
        };
        // What was written is kept and published before the client hears so.
        self.finish();
        self.ctx.out.push(Output::Reply { id, reply });
    }

    pub(super) fn handle_peer_joined(&mut self, peer: PeerKey, zone: &ZoneName, dialed: Dialed) {
        self.links.connected(peer, dialed, self.ctx.now);
        if let Some(zone) = self.zones.get_mut(zone) {
            zone.handle_peer_joined(&mut self.ctx, self.links, peer, dialed);
        }
        self.answer_notices(zone);
    }

    pub(super) fn handle_gossip(&mut self, id: GossipId, peer: PeerKey, zone: &ZoneName, bytes: &[u8]) {
        if self.zones.contains_key(zone) {
            self.with_zone(zone, |zone, ctx| zone.handle_gossip(ctx, id, peer, bytes));
        } else {
            self.ctx.out.push(Output::Verdict { id, verdict: Verdict::Ignore });
        }
    }

    pub(super) fn handle_sync_request(&mut self, id: u64, peer: PeerKey, bytes: &[u8]) {
        let answer = match SyncFrame::decode(bytes) {
            Ok(frame) => self.answer(peer, frame),
            Err(_) => {
                self.ctx.out.penalize(peer, Offence::Request);
                SyncAnswer::Refused
            }
        };
        // What a gift changed is kept before its giver hears so.
        self.finish();
        self.ctx.out.push(Output::Respond { id, bytes: answer.encode() });
    }

    fn answer(&mut self, peer: PeerKey, mut frame: SyncFrame) -> SyncAnswer {
        if let SyncRequest::Open { clock, .. } = frame.request {
            self.answer_notice(&frame.zone.zone, Notice::Clock(peer, clock));
            // Whose clock is wrong learns so from the answer: only what it asks then is refused.
            if !fingerprint::is_plausible(frame.as_of, self.ctx.now) {
                frame.as_of = fingerprint::as_of(self.ctx.now);
            }
        }
        if !fingerprint::is_plausible(frame.as_of, self.ctx.now) {
            return SyncAnswer::Refused;
        }
        let id = frame.zone.clone();
        let zone = self.zones.get_mut(&id.zone).filter(|zone| *zone.id() == id);
        let Some(zone) = zone else { return SyncAnswer::Refused };
        let answer = zone.handle_request(&mut self.ctx, self.links, peer, frame);
        self.answer_notices(&id.zone);
        answer
    }

    pub(super) fn handle_response(&mut self, conversation: ConversationId, bytes: &[u8]) {
        if self.overlay.leads(conversation) {
            return self.overlay.handle_response(&mut self.ctx, self.zones, self.links, conversation, bytes);
        }
        if self.resolver.leads(conversation) {
            return Questions(self).handle_answer(conversation, Some(bytes));
        }
        self.with_leader(conversation, |zone, ctx| zone.handle_response(ctx, bytes));
        // Only now: own records are guarded before anything more is asked.
        self.with_leader(conversation, Zone::advance);
    }

    pub(super) fn handle_request_failed(&mut self, conversation: ConversationId) {
        if self.overlay.leads(conversation) {
            return self.overlay.handle_request_failed(&mut self.ctx, self.zones, self.links, conversation);
        }
        if self.resolver.leads(conversation) {
            return Questions(self).handle_answer(conversation, None);
        }
        self.with_leader(conversation, Zone::handle_request_failed);
    }

    /// Lets those replicas below do something whose time has come, and takes note of comparisons that ended.
    pub(super) fn handle_below_due(&mut self, act: impl Fn(&mut Zone, &mut Context<'_>)) {
        for id in self.zones.below().due(self.ctx.now) {
            self.with_below(&id, &act);
        }
    }

    fn with_below(&mut self, id: &ZoneId, act: impl FnOnce(&mut Zone, &mut Context<'_>)) {
        let outcome = self.zones.below_mut().with(&mut self.ctx, id, |zone, ctx| {
            act(zone, ctx);
            // Of a zone in which this node writes nothing there is nothing to be answered.
            zone.records.take_notices();
            zone.outcome.take()
        });
        if let Some(outcome) = outcome.flatten() {
            self.overlay.handle_outcome(&mut self.ctx, id, outcome);
        }
    }

    /// The store did not keep what the last turn wrote: own records are taken back, the rest waits.
    pub(super) fn handle_store_failed(&mut self, reason: String, writes: Vec<Write>) {
        let Turn { ctx, zones, own, .. } = self;
        let ahead = own.take_back(ctx, zones, writes);
        ctx.out.set_store(StoreCondition::Failed(reason));
        ctx.out.backlog().put_back(ahead);
    }

    pub(super) fn handle_store(&mut self, condition: StoreCondition, forgotten: bool) {
        let Turn { ctx, zones, own, .. } = self;
        let keeps_again = ctx.out.set_store(condition);
        if forgotten {
            let key = ctx.key();
            let records = zones.values().flat_map(|zone| zone.registry().iter());
            let others = records.filter(|record| record.author().key != key);
            ctx.out.backlog().put_back(others.map(|record| persistence::other_row(record)));
        }
        // What waits goes first: it is older than what is written now.
        ctx.out.catch_up(ctx.now);
        if keeps_again {
            own.guard_all(ctx, zones);
        }
    }

    /// All that this node knows, for looking only.
    pub(super) fn memory(&self) -> Memory<'_> {
        Memory {
            now: self.ctx.now,
            config: self.ctx.config,
            unsafe_offset: self.ctx.unsafe_offset,
            zones: self.zones,
            links: self.links,
            own: self.own,
            owners: self.owners,
            directory: self.directory,
            overlay: self.overlay,
            counts: &self.resolver.from_memory,
        }
    }

    /// Enters what waits for the index, before memory is asked for agents.
    pub(super) fn catch_up(&mut self) {
        self.directory.catch_up(self.zones);
    }

    /// Whom a text means; none where others are asked for what is not known here.
    fn resolve_or_ask(&mut self, id: u64, text: &str, for_call: bool) -> Option<Resolution> {
        self.catch_up();
        let resolution = self.memory().resolve(text);
        let is_open = match &resolution {
            Resolution::One(found) => for_call && !Questions(self).reaches(found),
            Resolution::Unknown | Resolution::NotSynced => true,
            Resolution::Ambiguous { .. } => false,
        };
        if is_open { Questions(self).ask_for(id, text, for_call, resolution) } else { Some(resolution) }
    }

    /// What is called by a name is meant by it from then on.
    pub(super) fn note_called(&mut self, resolution: &Resolution, text: &str) {
        let Resolution::One(found) = resolution else { return };
        if found.replicas.iter().any(|replica| replica.peer() == self.ctx.key()) || !found.card().callable {
            return;
        }
        for replica in &found.replicas {
            self.forks.called(replica.peer(), self.ctx.now);
        }
        let (name, owner) = (&found.record.name, found.record.owner);
        // An id is no name, and says nothing of what the name means.
        if found.id.to_string() != text {
            self.owners.called(&mut self.ctx, name, owner, text == name.agent.as_str());
        }
    }

    /// Takes part in a zone from now on.
    fn join(&mut self, name: ZoneName, role: Role) -> Result<(), ZoneError> {
        if let Some(zone) = self.zones.get(&name) {
            return if zone.role() == role { Ok(()) } else { Err(ZoneError::OtherRole(name)) };
        }
        let mut zone = Zone::new(self.ctx.config.zone_id(&name), role, &mut self.ctx);
        if self.links.none_since().is_none() {
            note_others(&mut zone);
        }
        self.zones.insert(zone);
        self.own.join(&mut self.ctx, self.zones, &name);
        // The mesh knows the zone before anything is published there.
        self.ctx.out.push(Output::JoinZone(self.ctx.config.zone_id(&name)));
        self.ctx.out.push(Output::FindPeers(name.clone()));
        if role == Role::Member {
            self.ctx.out.push(Output::Provide(name));
        }
        Ok(())
    }

    /// Withdraws what this node offers in a zone, says goodbye and forgets it.
    fn leave(&mut self, name: &ZoneName) -> Result<(), ZoneError> {
        // Bare names are looked up there; without it they would mean something else from one moment to the next.
        if *name == self.ctx.config.home_zone() {
            return Err(ZoneError::Home(name.clone()));
        }
        if !self.zones.contains_key(name) {
            return Err(ZoneError::NotServed(name.clone()));
        }
        self.own.withdraw_from(&mut self.ctx, self.zones, name);
        self.overlay.leave(&mut self.ctx, self.zones, name);
        self.finish();
        // The tombstones are out before the goodbye: members that hear it ask this node nothing more.
        self.with_zone(name, Zone::close);
        if let Some(zone) = self.zones.remove(name) {
            self.directory.forget(zone.records.agents().iter());
            self.own.leave(&zone);
            self.overlay.note_left(self.ctx.now);
        }
        self.ctx.out.push(Output::LeaveZone(name.clone()));
        self.check_clock();
        Ok(())
    }

    /// Lets a zone do something, then answers to what it noticed.
    pub(super) fn with_zone<T>(
        &mut self,
        name: &ZoneName,
        act: impl FnOnce(&mut Zone, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let done = act(self.zones.get_mut(name)?, &mut self.ctx);
        self.answer_notices(name);
        Some(done)
    }

    pub(super) fn with_zones(&mut self, act: impl Fn(&mut Zone, &mut Context<'_>)) {
        // The names first: answering a notice needs the zones for itself.
        for name in self.zones.names() {
            self.with_zone(&name, &act);
        }
    }

    /// As [`Turn::with_zone`], with the zone that leads a conversation, if it still does.
    pub(super) fn with_leader(
        &mut self,
        conversation: ConversationId,
        act: impl FnOnce(&mut Zone, &mut Context<'_>),
    ) {
        let is_leader = |zone: &&Zone| zone.leading() == Some(conversation);
        let served = self.zones.values().find(is_leader).map(|zone| zone.name().clone());
        if let Some(name) = served {
            self.with_zone(&name, act);
        } else if let Some(id) = self.zones.below().leader(conversation).cloned() {
            self.with_below(&id, act);
        }
    }

    /// Answers cause notices of their own: a record that this node writes may take the room of another.
    fn answer_notices(&mut self, name: &ZoneName) {
        loop {
            let notices =
                self.zones.get_mut(name).map(|zone| zone.records.take_notices()).unwrap_or_default();
            if notices.is_empty() {
                return;
            }
            for notice in notices {
                self.answer_notice(name, notice);
            }
        }
    }

    fn answer_notice(&mut self, name: &ZoneName, notice: Notice) {
        let Turn { ctx, zones, own, clock, owners, forks, .. } = self;
        match notice {
            Notice::OwnKey(key) => own.guard(ctx, zones, &key, name),
            Notice::Dropped(key) => own.forget(ctx, &key),
            Notice::OwnWrite(record) => note_written(own, ctx, &record),
            Notice::OwnBeacon(signed_at) => own.key_use.note(ctx, signed_at),
            Notice::OwnHead(author, head) if author == own.author() => {
                own.note_head(ctx, zones, name, head, NodeAlert::RestoredBackup);
            }
            // A peer's word alone counts once: a liar could else end one epoch after the other.
            Notice::ClaimedHead(author, head) if author == own.author() && !own.is_told_of_head => {
                own.note_head(ctx, zones, name, head, NodeAlert::ClaimedHead);
            }
            // The epoch ended since.
            Notice::OwnHead(..) | Notice::ClaimedHead(..) => {}
            Notice::Forked(author) => {
                if forks.note(author, own, owners, ctx.config, ctx.now) {
                    ctx.out.event(Event::Alert(NodeAlert::ForkedAuthor(author)));
                }
            }
            Notice::SyncEnded => {
                own.renew_after_first_sync(ctx, zones, name);
                self.end_restore();
            }
            Notice::Clock(peer, told) => {
                clock.note(peer, told, ctx.now);
                clock.confirm(told.offset_ms(ctx.now), ctx.config);
                ctx.clock_settles = clock.settles();
                self.check_clock_by(&peer);
            }
            Notice::BeaconClock(peer) => {
                clock.forget(&peer);
                self.check_clock_by(&peer);
            }
        }
    }

    /// A backup is restored once every zone was compared again after what told of it: the first peer may have lacked some of
    /// what was lost. What was only claimed, and stands in no record that came since, is over as well.
    fn end_restore(&mut self) {
        let Turn { ctx, zones, .. } = self;
        let is_restored =
            |alert: &NodeAlert| matches!(alert, NodeAlert::RestoredBackup | NodeAlert::ClaimedHead);
        let Some((_, since)) = ctx.out.alerts().find(|(alert, _)| is_restored(alert)) else { return };
        if zones.values().all(|zone| zone.synced_at().is_some_and(|at| at > since + RESTORED_AFTER)) {
            ctx.out.clear_alerts(is_restored);
        }
    }

    /// A peer told its clock: only those of bootstrap peers judge ours, those of connected peers warn.
    fn check_clock_by(&mut self, peer: &PeerKey) {
        if self.ctx.config.bootstrap_peers.contains(peer) || self.links.contains(peer) {
            self.check_clock();
        }
    }

    fn check_clock(&mut self) {
        let change = self.clock.check(self.zones, self.links, self.ctx.config, self.ctx.out);
        // Writes of the same turn must already know.
        self.ctx.unsafe_offset = self.clock.unsafe_offset();
        match change {
            ClockChange::Trusted => self.own.plan_renewals(&mut self.ctx, self.zones),
            ClockChange::None => {}
        }
    }

    /// Own writes go to the store first, then to the mesh.
    pub(super) fn finish(&mut self) {
        // Rows first: whatever this turn shows is kept before it is shown.
        self.ctx.out.persist();
        let ctx = &mut self.ctx;
        self.zones.values_mut().for_each(|zone| zone.records.publish_own(ctx));
        self.directory.forget(&self.overlay.take_dropped());
        self.directory.keep_up(self.zones, self.ctx.config.unindexed_max);
    }
}

fn trust_owner(turn: &mut Turn<'_>, name: &str, owner: PeerKey) -> Result<KnownOwner, OwnerError> {
    let home = turn.ctx.config.home_zone();
    let named = turn.directory.name_of_owner(turn.zones, &home, name, &owner);
    let (full, is_bare) = named.map_err(OwnerError::BadName)?;
    turn.owners.trust(&mut turn.ctx, full, owner, is_bare)
}

fn forget_owner(turn: &mut Turn<'_>, name: &str) -> Result<KnownOwner, OwnerError> {
    let named = turn.owners.name_known(&turn.ctx.config.home_zone(), name);
    turn.owners.forget(&mut turn.ctx, &named.map_err(OwnerError::BadName)?)
}
