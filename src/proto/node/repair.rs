//! When to sync with whom, and what a sync's answers lead to (protocol section 3).

use std::time::Duration;

use serde_bytes::ByteBuf;

use super::spread::Ingested;
use super::{ConversationId, Event, Node, NodeAlert, Offence, Output, Protocol, Via};
use crate::proto::fingerprint;
use crate::proto::identity::PeerKey;
use crate::proto::message::{SyncAnswer, SyncFrame, SyncRequest};
use crate::proto::name::ZoneName;
use crate::proto::record::{Blame, Refusal};
use crate::proto::sync::{self, Manner, Patience, Progress, Step, Sync, SyncError};
use crate::proto::time::Timestamp;

use rand::RngExt;

/// Syncs of one zone that find nothing double the pause after beacons up to 2^6 times.
const FRUITLESS_MAX: u32 = 6;
/// How far a peer's clock may be from ours for its `as_of` to be answered.
const AS_OF_SKEW: Duration = Duration::from_secs(8 * 86_400);

impl Node {
    /// Some member wrote more than is held here: a sync is started if that lasts.
    pub(super) fn note_behind(&mut self, now: Timestamp, zone: &ZoneName) {
        let Some(held) = self.zones.get_mut(zone) else { return };
        let behind = held.liveness.is_ahead(held.registry.vector());
        match (behind, held.behind_since) {
            (true, None) => held.behind_since = Some(now),
            (false, Some(_)) => (held.behind_since, held.fruitless) = (None, 0),
            (true, Some(_)) | (false, None) => {}
        }
    }

    pub(super) fn sync_if_due(&mut self, now: Timestamp, zone: &ZoneName) {
        if self.is_syncing(zone) {
            return;
        }
        self.start_catch_up(now, zone);
        if self.is_syncing(zone) {
            return;
        }
        self.note_behind(now, zone);
        let (patience, suspended_after) = (self.config.behind_patience, self.config.suspended_after);
        let Some(held) = self.zones.get(zone).filter(|held| !held.peers.is_empty()) else { return };
        let behind =
            held.behind_since.is_some_and(|since| since + patience <= now) && held.behind_after <= now;
        if !behind && held.next_sync > now {
            return;
        }
        let suspended = held.next_sync + suspended_after < now;
        let wait = if behind || suspended { Patience::None } else { Patience::Grace(self.config.mesh_grace) };
        let at = self.rng.random_range(0..held.peers.len());
        let peer = self.zones.get(zone).and_then(|held| held.peers.iter().nth(at).copied());
        if let Some(peer) = peer {
            self.start_sync(now, zone, peer, wait);
        }
    }

    /// New links are compared one after the other.
    pub(super) fn start_catch_up(&mut self, now: Timestamp, zone: &ZoneName) {
        if self.is_syncing(zone) {
            return;
        }
        let peer = self.zones.get_mut(zone).and_then(|held| held.catch_up.pop_first());
        if let Some(peer) = peer {
            self.start_sync(now, zone, peer, Patience::None);
        }
    }

    /// Timers of a suspended process are late, whenever they were due.
    pub(super) fn handle_resumed(&mut self, now: Timestamp) {
        let late = now - self.config.suspended_after - Duration::from_millis(1);
        for zone in self.zone_names() {
            if let Some(held) = self.zones.get_mut(&zone) {
                held.next_sync = held.next_sync.min(late);
            }
            self.sync_if_due(now, &zone);
        }
    }

    fn start_sync(&mut self, now: Timestamp, zone: &ZoneName, peer: PeerKey, patience: Patience) {
        let interval = self.config.sync_interval;
        let next = now + self.jitter(interval);
        let author = self.author();
        let Some(held) = self.zones.get_mut(zone) else { return };
        // A joiner looks again soon: what was on its way during the first comparison may have missed it.
        held.next_sync = if held.synced_at.is_none() { now + self.config.mesh_grace } else { next };
        let conversation = ConversationId(self.next_conversation);
        self.next_conversation += 1;
        let as_of = fingerprint::as_of(now);
        let manner = Manner { patience, republish_max: self.config.republish_max };
        let sync = Sync::new(peer, zone.clone(), author, as_of, manner, now);
        self.syncs.insert(conversation, Box::new(sync));
        self.send_sync(conversation);
    }

    fn send_sync(&mut self, conversation: ConversationId) {
        let Some(sync) = self.syncs.get_mut(&conversation) else { return };
        let peer = sync.peer;
        let frames: Vec<SyncFrame> = std::iter::from_fn(|| sync.poll()).collect();
        for frame in frames {
            self.outputs.push_back(Output::Request {
                conversation,
                peer,
                protocol: Protocol::Sync,
                bytes: frame.encode(),
            });
        }
    }

    pub(super) fn handle_sync_response(
        &mut self,
        now: Timestamp,
        conversation: ConversationId,
        bytes: &[u8],
    ) {
        let Some(sync) = self.syncs.get_mut(&conversation) else { return };
        let (zone, peer) = (sync.zone.clone(), sync.peer);
        let Some(held) = self.zones.get_mut(&zone) else { return };
        let stepped = SyncAnswer::decode(bytes)
            .map_err(|_| SyncError::Unfitting)
            .and_then(|answer| sync.handle(answer, &mut held.registry, now));
        let step = match stepped {
            Ok(step) => step,
            Err(error) => return self.end_sync(now, conversation, Some(error)),
        };
        self.take_step(now, conversation, &zone, peer, step);
        self.go_on(now, conversation);
    }

    fn take_step(
        &mut self,
        now: Timestamp,
        conversation: ConversationId,
        zone: &ZoneName,
        peer: PeerKey,
        step: Step,
    ) {
        if let Some((author, head, clock)) = step.opened {
            // The epoch may have ended since the question. A peer's word alone counts once: a liar could else end one
            // epoch after the other.
            if author == self.author() && !self.problems.contains(&NodeAlert::RestoredBackup) {
                self.note_own_head(now, zone, head);
            }
            self.note_clock(peer, clock, now);
        }
        if let Some(held) = self.zones.get_mut(zone) {
            for (author, prefix) in step.adopt {
                held.registry.adopt(author, prefix);
            }
        }
        let Ok(fresh) = self.take_records(now, zone, peer, step.records) else {
            return self.end_sync(now, conversation, Some(SyncError::Unfitting));
        };
        if let Some(sync) = self.syncs.get_mut(&conversation) {
            sync.note_repaired(fresh);
        }
    }

    /// Merges records from a conversation; returns those that were new. A forged one ends the conversation.
    fn take_records(
        &mut self,
        now: Timestamp,
        zone: &ZoneName,
        peer: PeerKey,
        records: Vec<ByteBuf>,
    ) -> Result<Vec<ByteBuf>, Refusal> {
        let mut fresh = Vec::new();
        for bytes in records {
            let ingested = match self.memo.record(&bytes, &self.config.network) {
                Ok(signed) => self.ingest(now, zone, &signed, Via::Sync),
                Err(refusal) => {
                    self.refuse(refusal);
                    Ingested::Refused(refusal)
                }
            };
            match ingested {
                Ingested::New => fresh.push(bytes),
                Ingested::Known => {}
                Ingested::Refused(refusal) if refusal.blame() == Blame::None => {}
                Ingested::Refused(refusal) => {
                    self.outputs.push_back(Output::Penalize { peer, offence: Offence::Record(refusal) });
                    return Err(refusal);
                }
            }
        }
        Ok(fresh)
    }

    fn go_on(&mut self, now: Timestamp, conversation: ConversationId) {
        self.send_sync(conversation);
        let Some(sync) = self.syncs.get_mut(&conversation) else { return };
        let Some(held) = self.zones.get(&sync.zone) else { return };
        match sync.progress(&held.registry) {
            Progress::Running => self.send_sync(conversation),
            Progress::Finished => self.end_sync(now, conversation, None),
        }
    }

    /// Ends a conversation: well if its work is done, else with the reason or because the stream broke.
    pub(super) fn end_sync(
        &mut self,
        now: Timestamp,
        conversation: ConversationId,
        error: Option<SyncError>,
    ) {
        let Some(mut sync) = self.syncs.remove(&conversation) else { return };
        let retry = self.jitter(self.config.behind_patience);
        self.outputs.push_back(Output::EndConversation { conversation });
        let Some(held) = self.zones.get_mut(&sync.zone) else { return };
        let finished = error.is_none() && sync.progress(&held.registry) == Progress::Finished;
        let fruitless = sync.received + sync.sent == 0;
        held.behind_since = None;
        // A joiner has nothing to tell: what it receives the mesh had before.
        let joining = held.synced_at.is_none();
        let (peer, zone) = (sync.peer, sync.zone);
        if !joining {
            self.publish_again(&zone, sync.repaired);
        }
        let Some(held) = self.zones.get_mut(&zone) else { return };
        if finished {
            held.synced_at = Some(now);
            let (received, sent) = (sync.received, sync.sent);
            self.event(Event::Synced { peer, zone: zone.clone(), received, sent });
        } else {
            held.next_sync = held.next_sync.min(now + retry);
        }
        if error.is_some_and(|error| error != SyncError::Refused) {
            self.outputs.push_back(Output::Penalize { peer, offence: Offence::Sync });
        }
        self.note_behind(now, &zone);
        self.back_off(now, &zone, fruitless);
        self.renew_after_first_sync(now, &zone);
        self.start_catch_up(now, &zone);
    }

    /// Beacons that no sync can satisfy start ever fewer; a comparison of equal registries is no sign of that.
    fn back_off(&mut self, now: Timestamp, zone: &ZoneName, fruitless: bool) {
        let Some(held) = self.zones.get_mut(zone) else { return };
        let in_vain = fruitless && held.behind_since.is_some();
        held.fruitless = if in_vain { (held.fruitless + 1).min(FRUITLESS_MAX) } else { 0 };
        held.behind_after = now + self.config.behind_interval * 2u32.pow(held.fruitless);
    }

    /// Own offers that lapsed while this node was away were held back until it had heard the world.
    fn renew_after_first_sync(&mut self, now: Timestamp, zone: &ZoneName) {
        if !self.may_renew() {
            return;
        }
        let lapsed: Vec<_> = self
            .own
            .iter()
            .filter(|(_, own)| own.name.zone == *zone && own.is_expired(now) && !own.is_tombstone())
            .map(|(key, _)| *key)
            .collect();
        for key in lapsed {
            self.guard_own_key(now, &key, zone);
        }
    }

    pub(super) fn expire_syncs(&mut self, now: Timestamp) {
        let deadline = self.config.sync_deadline;
        let late: Vec<ConversationId> = self
            .syncs
            .iter()
            .filter(|(_, sync)| sync.started_at + deadline <= now)
            .map(|(conversation, _)| *conversation)
            .collect();
        for conversation in late {
            self.end_sync(now, conversation, None);
        }
    }

    pub(super) fn handle_sync_request(&mut self, now: Timestamp, id: u64, peer: PeerKey, bytes: &[u8]) {
        let answer = match SyncFrame::decode(bytes) {
            Ok(frame) => self.answer(now, peer, frame),
            Err(_) => {
                self.outputs.push_back(Output::Penalize { peer, offence: Offence::Request });
                SyncAnswer::Refused
            }
        };
        self.flush();
        self.outputs.push_back(Output::Respond { id, bytes: answer.encode() });
    }

    fn answer(&mut self, now: Timestamp, peer: PeerKey, frame: SyncFrame) -> SyncAnswer {
        if !fingerprint::is_plausible(frame.as_of, now, AS_OF_SKEW) {
            return SyncAnswer::Refused;
        }
        if let SyncRequest::Open { clock, .. } = frame.request {
            self.note_clock(peer, clock, now);
        }
        let Some(held) = self.zones.get_mut(&frame.zone) else { return SyncAnswer::Refused };
        let answer = sync::answer(&frame, &mut held.registry, now);
        if let SyncRequest::Give { records, publish } = frame.request {
            match self.take_records(now, &frame.zone, peer, records) {
                Ok(fresh) if publish => self.publish_again(&frame.zone, fresh),
                Ok(_) => {}
                Err(_) => return SyncAnswer::Refused,
            }
        }
        answer
    }
}
