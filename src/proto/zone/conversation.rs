//! Conversations of one zone: the one that this node leads, and the answers to those of others (protocol section 3).

use std::time::Duration;

use rand::RngExt;
use serde_bytes::ByteBuf;

use super::beacon::note_own_beacon;
use super::completeness::may_speak;
use super::gateways::alive as hosts_alive;
use super::schedule::Ended;
use super::{Notice, Outcome, Zone, ZoneRecords};
use crate::proto::config::Config;
use crate::proto::context::Context;
use crate::proto::fingerprint;
use crate::proto::identity::PeerKey;
use crate::proto::io::{ConversationId, Event, Offence, Output, Protocol, Role};
use crate::proto::links::Links;
use crate::proto::message::{Envelope, SignedBeacon, SyncAnswer, SyncFrame, SyncRequest};
use crate::proto::sync::{self, Grace, Opened, Progress, Step, Sync, SyncError, SyncMode};
use crate::proto::time::Timestamp;

/// A comparison that this node leads. A zone leads one at a time: two would fetch the same records twice.
pub(super) struct Conversation {
    id: ConversationId,
    sync: Sync,
    /// Whether nothing is left to the mesh.
    is_thorough: bool,
}

impl Conversation {
    fn deadline(&self, config: &Config) -> Timestamp {
        self.sync.started_at + config.sync_deadline
    }

    /// When it is to be given up, or the peer is no longer busy.
    pub(super) fn due(&self, config: &Config) -> Timestamp {
        self.sync
            .resume_at()
            .into_iter()
            .chain([self.deadline(config)])
            .fold(Timestamp(u64::MAX), Timestamp::min)
    }

    pub(super) fn shift(&mut self, step: Duration) {
        self.sync.shift(step);
    }
}

impl Zone {
    /// The conversation that this zone leads.
    pub(in crate::proto) fn leading(&self) -> Option<ConversationId> {
        self.conversation.as_ref().map(|conversation| conversation.id)
    }

    /// An answer in the conversation that it leads. [`Zone::advance`] goes on, after the notices of this one were answered.
    pub(in crate::proto) fn handle_response(&mut self, ctx: &mut Context<'_>, bytes: &[u8]) {
        let Some(conversation) = &mut self.conversation else { return };
        let peer = conversation.sync.peer;
        let stepped = SyncAnswer::decode(bytes)
            .map_err(|_| SyncError::Unfitting)
            .and_then(|answer| conversation.sync.handle(answer, &mut self.records.registry, ctx.now));
        let taken = stepped.and_then(|step| self.take_step(ctx, peer, step));
        if let Err(error) = taken {
            self.end_sync(ctx, Some(error));
        }
    }

    /// Asks on, or ends the conversation if nothing is left to ask.
    pub(in crate::proto) fn advance(&mut self, ctx: &mut Context<'_>) {
        self.send_requests(ctx);
        let Some(conversation) = &mut self.conversation else { return };
        match conversation.sync.progress(&self.records.registry) {
            Progress::Running => self.send_requests(ctx),
            Progress::Finished => self.end_sync(ctx, None),
        }
    }

    /// The conversation that it leads broke.
    pub(in crate::proto) fn handle_request_failed(&mut self, ctx: &mut Context<'_>) {
        self.end_sync(ctx, None);
    }

    /// The zone is left: nothing is asked any more.
    pub(in crate::proto) fn abandon(&mut self, ctx: &mut Context<'_>) {
        if let Some(conversation) = self.conversation.take() {
            ctx.out.push(Output::EndConversation { conversation: conversation.id });
        }
    }

    /// A request of a peer.
    pub(in crate::proto) fn handle_request(
        &mut self,
        ctx: &mut Context<'_>,
        links: &Links,
        peer: PeerKey,
        frame: SyncFrame,
    ) -> SyncAnswer {
        // Before a gift is taken: the answer to a gift says only that it came.
        let mut answer = sync::answer(&frame, &mut self.records.registry, ctx.now);
        if let SyncAnswer::Opened { heard, whole, alive, .. } = &mut answer {
            *heard = self.heard.of(&peer);
            *whole = may_speak(self, links, ctx.config, ctx.now);
            // Members hear beacons themselves.
            if !self.peers.contains(&peer) {
                *alive = hosts_alive(self, ctx.now);
            }
        }
        if let SyncRequest::Give { records, publish } = frame.request {
            match self.records.take_records(ctx, peer, records) {
                Ok(fresh) if publish => publish_again(&self.records, ctx, fresh),
                Ok(_) => {}
                Err(_) => return SyncAnswer::Refused,
            }
        }
        answer
    }

    /// The process was suspended: what was missed is asked for at once.
    pub(in crate::proto) fn handle_resumed(&mut self, ctx: &mut Context<'_>) {
        self.schedule.resumed(ctx);
        self.sync_if_due(ctx);
    }

    /// Whether members are known to have written more than is held.
    pub(super) fn note_lag(&mut self, now: Timestamp) {
        let registry = &self.records.registry;
        let lag = self.liveness.lag(|author| registry.seen_up_to(author), registry.vector().forgotten());
        self.schedule.note_lag(lag, now);
    }

    pub(super) fn sync_if_due(&mut self, ctx: &mut Context<'_>) {
        self.sync_next(ctx);
        if self.conversation.is_some() {
            return;
        }
        // Without a beacon as well: a vector forgets authors whose last record ended.
        self.note_lag(ctx.now);
        if self.peers.is_empty() {
            return;
        }
        let Some(grace) = self.schedule.due_now(ctx) else { return };
        // At random: a lying peer delays one sync and not all of them.
        let at = ctx.rng.random_range(0..self.peers.len());
        if let Some(peer) = self.peers.iter().nth(at).copied() {
            self.start_sync(ctx, peer, grace);
        }
    }

    /// New links are compared one after the other.
    pub(super) fn sync_next(&mut self, ctx: &mut Context<'_>) {
        if self.conversation.is_none()
            && let Some(peer) = self.schedule.next_in_queue()
        {
            self.start_sync(ctx, peer, Grace::None);
        }
    }

    /// A conversation that takes too long is given up; one whose peer was busy goes on.
    pub(super) fn handle_conversation_due(&mut self, ctx: &mut Context<'_>) {
        let Some(conversation) = self.conversation.as_ref().filter(|it| it.due(ctx.config) <= ctx.now) else {
            return;
        };
        if conversation.deadline(ctx.config) <= ctx.now {
            self.end_sync(ctx, None);
        } else {
            self.advance(ctx);
        }
    }

    pub(in crate::proto) fn start_sync(&mut self, ctx: &mut Context<'_>, peer: PeerKey, grace: Grace) {
        self.schedule.started(ctx);
        let as_of = fingerprint::as_of(ctx.now);
        let mode = SyncMode { grace, republish_max: ctx.config.republish_max };
        let sync = Sync::new(peer, self.id().clone(), ctx.author, as_of, mode, ctx.now);
        let (id, is_thorough) = (ctx.out.next_conversation(), grace == Grace::None);
        self.conversation = Some(Box::new(Conversation { id, sync, is_thorough }));
        self.send_requests(ctx);
    }

    fn send_requests(&mut self, ctx: &mut Context<'_>) {
        let Some(conversation) = &mut self.conversation else { return };
        let peer = conversation.sync.peer;
        while let Some(frame) = conversation.sync.poll(&self.records.registry, ctx.now) {
            let (conversation, protocol, bytes) = (conversation.id, Protocol::Sync, frame.encode());
            ctx.out.push(Output::Request { conversation, peer, protocol, bytes });
        }
    }

    fn take_step(&mut self, ctx: &mut Context<'_>, peer: PeerKey, step: Step) -> Result<(), SyncError> {
        if let Some(Opened { author, head, clock, heard, whole, alive }) = step.opened {
            self.company.told(peer, whole);
            self.told_alive.note(&alive, ctx.now);
            // First: versions that another process wrote under this key are none that this folder lost.
            if let Some(beacon) = heard.and_then(|heard| SignedBeacon::read(heard).ok()) {
                note_own_beacon(self, ctx, &beacon);
            }
            // Of a stranger only a record that this node signed counts. The operator's peers are believed, ahead of what their
            // records lead to: those of a lost epoch are then known as this folder's own.
            if ctx.config.bootstrap_peers.contains(&peer) {
                self.records.notices.push(Notice::ClaimedHead(author, head));
            }
            self.records.notices.push(Notice::Clock(peer, clock));
        }
        for (author, prefix) in step.adopt {
            self.records.registry.adopt(author, prefix);
        }
        let fresh = self.records.take_records(ctx, peer, step.records).map_err(|_| SyncError::Unfitting)?;
        if let Some(conversation) = &mut self.conversation {
            conversation.sync.note_repaired(fresh);
        }
        Ok(())
    }

    /// Ends the conversation: well if its work is done, else with the reason or because the stream broke.
    fn end_sync(&mut self, ctx: &mut Context<'_>, error: Option<SyncError>) {
        let Some(ended) = self.conversation.take() else { return };
        let Conversation { id: conversation, mut sync, is_thorough } = *ended;
        // A peer that is busy is left alone for as long as it says, but never longer than it would be anyway.
        let pause = match error {
            Some(SyncError::Busy(wait)) => wait.clamp(ctx.config.lag_patience, ctx.config.sync_interval),
            _ => ctx.config.lag_patience,
        };
        // Jittered: a peer that dropped a hundred conversations must not meet them all again at once.
        let retry = ctx.now + ctx.jitter(pause);
        ctx.out.push(Output::EndConversation { conversation });
        // A stream that broke after the last answer was read has lost nothing.
        let finished = error.is_none() && sync.progress(&self.records.registry) == Progress::Finished;
        // A joiner has nothing to tell: what it receives the mesh had before.
        if self.schedule.synced_at().is_some() {
            publish_again(&self.records, ctx, sync.repaired);
        }
        let (received, sent) = (sync.received, sync.sent);
        let ended = if finished { Ended::Finished } else { Ended::Broken };
        if self.role == Role::Below {
            let is_whole = self.company.is_whole_peer(&sync.peer);
            self.outcome = Some(Outcome { peer: sync.peer, ended, is_whole });
        }
        self.schedule.ended(ended, ctx.now, retry);
        if finished {
            self.company.compared(&sync.peer, ctx.config, ctx.now);
            if is_thorough {
                let registry = &self.records.registry;
                self.liveness.doubt(|author| registry.seen_up_to(author), sync.started_at);
            }
            if self.role != Role::Below {
                ctx.out.event(Event::Synced { peer: sync.peer, zone: self.name().clone(), received, sent });
            }
        }
        if error.is_some_and(SyncError::is_offence) {
            ctx.out.penalize(sync.peer, Offence::Sync);
        }
        self.note_lag(ctx.now);
        self.schedule.back_off(received + sent == 0, ctx);
        // Also if it broke off: another zone's first sync may have been what own renewals wait for.
        self.records.notices.push(Notice::SyncEnded);
        self.sync_next(ctx);
    }
}

/// Publishes repaired records again, one per message, so that equal repairs are equal messages.
fn publish_again(zone: &ZoneRecords, ctx: &mut Context<'_>, records: Vec<ByteBuf>) {
    for record in records {
        zone.publish(ctx, &Envelope::Records(vec![record]));
    }
}
