//! The node as a value: every decision of the protocol, and the only place where its machines meet.
//!
//! An interpreter (live or simulated) calls [`Node::handle`] with the time and something that happened, then drains
//! [`Node::poll_output`] and performs the outputs **in order** ([`super::io`] says why). [`Node::poll_timeout`] is the one
//! deadline of the whole node.
//!
//! The node routes: each zone is a machine of its own; beside them stand its own records, what it knows of clocks, and the
//! directory that answers questions. What a zone leaves as a notice is answered here, before anything else is heard.

mod reads;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::clock::{Clock, ClockChange};
use super::config::Config;
use super::context::{Context, Outbox};
use super::directory::{Directory, Resolution};
use super::fingerprint;
use super::identity::{Identity, PeerKey};
use super::io::{
    Command, ConversationId, GossipId, Input, NodeAlert, Offence, Output, Protocol, Reply, Verdict,
};
use super::memo::Memo;
use super::message::{SyncAnswer, SyncFrame, SyncRequest};
use super::name::ZoneName;
use super::own_records::OwnRecords;
use super::persistence::Stored;
use super::time::Timestamp;
use super::zone::{Notice, Role, Zone, ZoneError, Zones};

/// One registry node.
pub struct Node {
    local: Local,
    zones: Zones,
    own: OwnRecords,
    clock: Clock,
    directory: Directory,
    out: Outbox,
}

/// What every machine of this node may use.
struct Local {
    identity: Identity,
    config: Config,
    rng: ChaCha8Rng,
    memo: Memo,
}

impl Node {
    /// A node with what its store held. `seed` feeds its random choices; the same inputs then give the same outputs.
    pub fn new(identity: Identity, config: Config, seed: [u8; 32], stored: Stored, now: Timestamp) -> Node {
        let key = identity.key();
        let rng = ChaCha8Rng::from_seed(seed);
        let mut node = Node {
            local: Local { identity, config, rng, memo: Memo::default() },
            zones: Zones::new(),
            own: OwnRecords::new(key),
            clock: Clock::new(now),
            directory: Directory::new(key),
            out: Outbox::default(),
        };
        let Config { zones, follows, .. } = &node.local.config;
        let follows = follows.iter().map(|zone| (zone.clone(), Role::Follower));
        let roles: Vec<(ZoneName, Role)> =
            follows.chain(zones.iter().map(|zone| (zone.clone(), Role::Member))).collect();
        for (name, role) in roles {
            let zone = Zone::new(name.clone(), role, &mut node.turn(now).ctx);
            node.zones.insert(name, Box::new(zone));
        }
        let Turn { mut ctx, zones, own, .. } = node.turn(now);
        own.load(&mut ctx, zones, stored);
        node.finish(now);
        node
    }

    /// Changes memos with whoever runs many nodes: lent before a call, taken back after it.
    pub fn lend(&mut self, memo: &mut Memo) {
        std::mem::swap(&mut self.local.memo, memo);
    }

    /// Takes something that happened.
    pub fn handle(&mut self, now: Timestamp, input: Input) {
        self.observe_clock(now);
        match input {
            Input::Command { id, command } => self.handle_command(now, id, command),
            Input::PeerJoined { peer, zone, dialed } => {
                self.with_zone(now, &zone, |zone, ctx| zone.handle_peer_joined(ctx, peer, dialed));
            }
            Input::PeerLeft { peer, zone: Some(zone) } => {
                self.with_zone(now, &zone, |zone, _| zone.handle_peer_left(&peer));
            }
            Input::PeerLeft { peer, zone: None } => {
                self.zones.values_mut().for_each(|zone| zone.handle_peer_left(&peer));
            }
            Input::Gossip { id, peer, zone, bytes } => self.handle_gossip(now, id, peer, &zone, &bytes),
            Input::Request { id, peer, protocol: Protocol::Sync, bytes } => {
                self.handle_sync_request(now, id, peer, &bytes);
            }
            Input::Response { conversation, bytes } => {
                if let Some(zone) = self.leader_of(conversation) {
                    self.with_zone(now, &zone, |zone, ctx| zone.handle_response(ctx, &bytes));
                    self.with_zone(now, &zone, |zone, ctx| zone.advance(ctx, conversation));
                }
            }
            Input::RequestFailed { conversation } => {
                if let Some(zone) = self.leader_of(conversation) {
                    self.with_zone(now, &zone, Zone::handle_request_failed);
                }
            }
            Input::ZonePeers { zone, peers } => {
                self.with_zone(now, &zone, |zone, ctx| zone.handle_found(ctx, &peers));
            }
            Input::Resumed => self.with_zones(now, Zone::handle_resumed),
        }
        self.finish(now);
    }

    /// Lets time pass. May be called at any time; needed when [`Node::poll_timeout`] is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.observe_clock(now);
        self.with_zones(now, Zone::expire);
        let Turn { mut ctx, zones, own, .. } = self.turn(now);
        own.renew(&mut ctx, zones);
        self.with_zones(now, Zone::handle_timeout);
        self.finish(now);
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop()
    }

    /// When [`Node::handle_timeout`] wants to be called, on the clock that `now` is read from.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let zones = self.zones.values().filter_map(|zone| zone.poll_timeout(&self.local.config));
        zones.chain(self.own.poll_timeout(&self.local.config, &self.zones)).min()
    }

    fn handle_command(&mut self, now: Timestamp, id: u64, command: Command) {
        let Turn { mut ctx, zones, own, directory } = self.turn(now);
        let reply = match command {
            Command::Find(find) => Reply::Found(directory.find(now, zones, &find)),
            Command::List(find) => Reply::Found(directory.list(now, zones, &find)),
            Command::Resolve(text) => Reply::Resolved(self.resolve(now, &text)),
            Command::Register(offers) => Reply::Registered(own.register(&mut ctx, zones, offers)),
            Command::OfferFiles { offers, withdraw } => {
                Reply::Registered(own.offer_files(&mut ctx, zones, directory, offers, &withdraw))
            }
            Command::Deregister(name) => {
                Reply::Deregistered(own.deregister(&mut ctx, zones, directory, &name))
            }
            Command::JoinZone { zone, role } => Reply::Zone(self.join(now, zone, role)),
            Command::LeaveZone(zone) => Reply::Zone(self.leave(now, &zone)),
            Command::Leave => {
                zones.values_mut().for_each(|zone| zone.say_goodbye(&mut ctx));
                Reply::Left
            }
        };
        self.finish(now);
        self.out.push(Output::Reply { id, reply });
    }

    fn resolve(&mut self, now: Timestamp, text: &str) -> Resolution {
        let home = self.local.config.home_zone();
        let waits = self.local.config.expects_peers && !self.is_synced();
        match self.directory.resolve(now, &mut self.zones, &home, text) {
            Resolution::Unknown(_) if waits => Resolution::NotSynced,
            resolution => resolution,
        }
    }

    /// Takes part in a zone from now on.
    fn join(&mut self, now: Timestamp, name: ZoneName, role: Role) -> Result<(), ZoneError> {
        if let Some(zone) = self.zones.get_mut(&name) {
            return if zone.role() == role { Ok(()) } else { Err(ZoneError::OtherRole(name)) };
        }
        let zone = Zone::new(name.clone(), role, &mut self.turn(now).ctx);
        self.zones.insert(name.clone(), Box::new(zone));
        let Turn { mut ctx, zones, own, .. } = self.turn(now);
        own.join(&mut ctx, zones, &name);
        // The mesh knows the zone before anything is published there.
        self.out.push(Output::JoinZone(name.clone()));
        self.out.push(Output::FindPeers(name.clone()));
        if role == Role::Member {
            self.out.push(Output::Provide(name));
        }
        Ok(())
    }

    /// Says goodbye and forgets the zone. What this node offered there is withdrawn first.
    fn leave(&mut self, now: Timestamp, name: &ZoneName) -> Result<(), ZoneError> {
        if *name == self.local.config.home_zone() {
            return Err(ZoneError::Home(name.clone()));
        }
        if !self.zones.contains_key(name) {
            return Err(ZoneError::NotServed(name.clone()));
        }
        let Turn { mut ctx, zones, own, .. } = self.turn(now);
        own.withdraw_from(&mut ctx, zones, name);
        self.finish(now);
        self.with_zone(now, name, |zone, ctx| zone.close(ctx));
        if let Some(zone) = self.zones.remove(name) {
            self.directory.forget(zone.agents());
            self.own.leave(&zone);
        }
        self.out.push(Output::LeaveZone(name.clone()));
        self.judge_clock();
        Ok(())
    }

    fn handle_gossip(&mut self, now: Timestamp, id: GossipId, peer: PeerKey, zone: &ZoneName, bytes: &[u8]) {
        if self.zones.contains_key(zone) {
            self.with_zone(now, zone, |zone, ctx| zone.handle_gossip(ctx, id, peer, bytes));
        } else {
            self.out.push(Output::Verdict { id, verdict: Verdict::Ignore });
        }
    }

    fn handle_sync_request(&mut self, now: Timestamp, id: u64, peer: PeerKey, bytes: &[u8]) {
        let answer = match SyncFrame::decode(bytes) {
            Ok(frame) => self.answer(now, peer, frame),
            Err(_) => {
                self.out.penalize(peer, Offence::Request);
                SyncAnswer::Refused
            }
        };
        // What a gift changed is kept before its giver hears so.
        self.finish(now);
        self.out.push(Output::Respond { id, bytes: answer.encode() });
    }

    fn answer(&mut self, now: Timestamp, peer: PeerKey, frame: SyncFrame) -> SyncAnswer {
        if !fingerprint::is_plausible(frame.as_of, now) {
            return SyncAnswer::Refused;
        }
        if let SyncRequest::Open { clock, .. } = frame.request {
            self.note_clock(now, peer, clock);
        }
        let zone = frame.zone.clone();
        self.with_zone(now, &zone, |zone, ctx| zone.handle_request(ctx, peer, frame))
            .unwrap_or(SyncAnswer::Refused)
    }

    /// Lets a zone do something, then answers to what it noticed.
    fn with_zone<T>(
        &mut self,
        now: Timestamp,
        name: &ZoneName,
        act: impl FnOnce(&mut Zone, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let Turn { mut ctx, zones, .. } = self.turn(now);
        let done = act(zones.get_mut(name)?, &mut ctx);
        self.answer_notices(now, name);
        Some(done)
    }

    fn with_zones(&mut self, now: Timestamp, act: impl Fn(&mut Zone, &mut Context<'_>)) {
        for name in self.zones.keys().cloned().collect::<Vec<_>>() {
            self.with_zone(now, &name, &act);
        }
    }

    fn answer_notices(&mut self, now: Timestamp, name: &ZoneName) {
        loop {
            let notices = self.zones.get_mut(name).map(|zone| zone.take_notices()).unwrap_or_default();
            if notices.is_empty() {
                return;
            }
            for notice in notices {
                self.answer_notice(now, name, notice);
            }
        }
    }

    fn answer_notice(&mut self, now: Timestamp, name: &ZoneName, notice: Notice) {
        let Turn { mut ctx, zones, own, .. } = self.turn(now);
        match notice {
            Notice::OwnKey(key) => own.guard(&mut ctx, zones, &key, name),
            Notice::Dropped(key) => own.forget(&mut ctx, &key),
            Notice::OwnHead(author, head) if author == own.author() => {
                own.note_head(&mut ctx, zones, name, head);
            }
            // A peer's word alone counts once: a liar could else end one epoch after the other.
            Notice::ClaimedHead(author, head)
                if author == own.author() && !ctx.out.has_alert(&NodeAlert::RestoredBackup) =>
            {
                own.note_head(&mut ctx, zones, name, head);
            }
            // The epoch ended since.
            Notice::OwnHead(..) | Notice::ClaimedHead(..) => {}
            Notice::SyncEnded => own.renew_after_first_sync(&mut ctx, zones, name),
            Notice::Clock(peer, clock) => self.note_clock(now, peer, clock),
            Notice::BeaconClock(peer) => {
                self.clock.forget(&peer);
                self.judge_clock_by(&peer);
            }
        }
    }

    /// The zone that leads a conversation.
    fn leader_of(&self, conversation: ConversationId) -> Option<ZoneName> {
        self.zones.values().find(|zone| zone.leads(conversation)).map(|zone| zone.name().clone())
    }

    /// A clock that goes back must not leave timers in a far future.
    fn observe_clock(&mut self, now: Timestamp) {
        let Some(step) = self.clock.observe(now) else { return };
        self.zones.values_mut().for_each(|zone| zone.shift(step));
        self.own.shift(step);
        self.clock.shift(step);
        self.judge_clock();
        self.own.plan_renewals(&self.zones);
    }

    fn note_clock(&mut self, now: Timestamp, peer: PeerKey, clock: Timestamp) {
        self.clock.note(peer, clock, now);
        self.judge_clock_by(&peer);
    }

    /// A peer told its clock: only those of bootstrap peers judge ours.
    fn judge_clock_by(&mut self, peer: &PeerKey) {
        if self.local.config.bootstrap_peers.contains(peer) {
            self.judge_clock();
        }
    }

    fn judge_clock(&mut self) {
        match self.clock.judge(&self.zones, &self.local.config, &mut self.out) {
            ClockChange::Trusted => self.own.plan_renewals(&self.zones),
            ClockChange::None => {}
        }
    }

    /// Ends a turn: own writes go to the store first, then to the mesh.
    fn finish(&mut self, now: Timestamp) {
        self.out.persist();
        let Turn { mut ctx, zones, directory, .. } = self.turn(now);
        zones.values_mut().for_each(|zone| zone.publish_own(&mut ctx));
        directory.keep_up(zones);
    }

    /// Lends each machine what it needs, without the others.
    fn turn(&mut self, now: Timestamp) -> Turn<'_> {
        let Local { identity, config, rng, memo } = &mut self.local;
        let (author, unsafe_offset) = (self.own.author(), self.clock.unsafe_offset());
        let ctx = Context { now, identity, author, config, rng, memo, unsafe_offset, out: &mut self.out };
        Turn { ctx, zones: &mut self.zones, own: &mut self.own, directory: &mut self.directory }
    }
}

/// What is lent for one turn.
struct Turn<'a> {
    ctx: Context<'a>,
    zones: &'a mut Zones,
    own: &'a mut OwnRecords,
    directory: &'a mut Directory,
}
