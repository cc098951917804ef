//! Gossip in and out: the accept pipeline, beacons, and who serves which zone (protocol sections 2 and 3).

use std::sync::Arc;
use std::time::Duration;

use serde_bytes::ByteBuf;

use super::{Dialed, Event, GossipId, Node, NodeAlert, Offence, Output, Verdict, Via, stored};
use crate::proto::code::Code;
use crate::proto::config::CATCH_UP_MAX;
use crate::proto::identity::PeerKey;
use crate::proto::index::{Entry, Index};
use crate::proto::liveness::Heard;
use crate::proto::message::{Beacon, Envelope, Message, SignedBeacon};
use crate::proto::name::ZoneName;
use crate::proto::record::{Blame, Kind, Record, Refusal, SignedRecord};
use crate::proto::registry::Merge;
use crate::proto::time::Timestamp;

/// Clock readings of peers that are kept beside those of their beacons.
const CLOCK_OFFSETS_MAX: usize = 1_024;

/// Agents that may wait for the index: as many as enter it in about 5 ms, which whoever asks next then waits.
const UNINDEXED_MAX: usize = 256;

/// What became of bytes that claim to be a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ingested {
    /// Held now.
    New,
    /// A greater one, or the same, is held; or a quota keeps it out.
    Known,
    /// Not taken.
    Refused(Refusal),
}

impl Node {
    pub(super) fn handle_gossip(
        &mut self,
        now: Timestamp,
        id: GossipId,
        peer: PeerKey,
        zone: &ZoneName,
        bytes: &[u8],
    ) {
        let verdict = match self.memo.message(bytes) {
            Err(_) => self.reject(peer, Refusal::Malformed),
            Ok(_) if !self.zones.contains_key(zone) => Verdict::Ignore,
            Ok(Message::Records(records)) => self.take_batch(now, peer, zone, &records),
            Ok(Message::Beacon(Ok(beacon))) => self.take_beacon(now, peer, zone, &beacon),
            Ok(Message::Beacon(Err(_))) => self.reject(peer, Refusal::Malformed),
        };
        self.outputs.push_back(Output::Verdict { id, verdict });
    }

    /// A batch is forwarded only if half of it is new here; one forged record condemns it.
    fn take_batch(&mut self, now: Timestamp, peer: PeerKey, zone: &ZoneName, records: &[ByteBuf]) -> Verdict {
        let mut fresh = 0;
        let mut author = None;
        for bytes in records {
            let signed = match self.memo.record(bytes, &self.config.network) {
                Ok(signed) => signed,
                Err(refusal) if refusal.blame() == Blame::Sender => return self.reject(peer, refusal),
                Err(refusal) => {
                    self.refuse(refusal);
                    continue;
                }
            };
            // Only an author batches, and only its own records.
            let key = signed.header().author.key;
            if *author.get_or_insert(key) != key {
                return self.reject(peer, Refusal::BadAuthor);
            }
            match self.ingest(now, zone, &signed, Via::Gossip) {
                Ingested::New => fresh += 1,
                Ingested::Refused(refusal) if refusal.blame() == Blame::Sender => {
                    return self.reject(peer, refusal);
                }
                Ingested::Known | Ingested::Refused(_) => {}
            }
        }
        if fresh > 0 && fresh * 2 >= records.len() { Verdict::Accept } else { Verdict::Ignore }
    }

    fn reject(&mut self, peer: PeerKey, refusal: Refusal) -> Verdict {
        self.refuse(refusal);
        self.outputs.push_back(Output::Penalize { peer, offence: Offence::Record(refusal) });
        Verdict::Reject
    }

    /// The accept pipeline of one parsed record (protocol section 2).
    pub(super) fn ingest(
        &mut self,
        now: Timestamp,
        zone: &ZoneName,
        signed: &SignedRecord,
        via: Via,
    ) -> Ingested {
        let Some(registry) = self.zones.get(zone).map(|zone| &zone.registry) else {
            return Ingested::Refused(Refusal::ForeignZone);
        };
        if registry.get(&signed.key()).is_some_and(|held| held.hash() == signed.hash()) {
            return Ingested::Known;
        }
        let judged = match &signed.header().zone == zone {
            true => signed.verify_with(now, &mut self.memo.keys),
            false => Err(Refusal::ForeignZone),
        };
        let judged =
            judged.and_then(|record| if record.is_public() { Ok(record) } else { Err(Refusal::BadScope) });
        match judged {
            Err(refusal) => {
                self.refuse(refusal);
                Ingested::Refused(refusal)
            }
            Ok(record) => match self.merge(record, zone, now, via) {
                Merge::New { .. } => Ingested::New,
                Merge::Stale | Merge::Duplicate | Merge::OverQuota => Ingested::Known,
            },
        }
    }

    /// Merges a verified record and does what follows from it.
    pub(super) fn merge(&mut self, record: Arc<Record>, zone: &ZoneName, now: Timestamp, via: Via) -> Merge {
        let key = record.key();
        let Some(held) = self.zones.get_mut(zone) else { return Merge::Stale };
        let (author, seq) = (record.author, record.seq);
        if held.registry.is_fork(&record) {
            self.problems_forked(author);
        }
        // Before the record is judged as an own one: it may be a write that this folder lost.
        if author == self.author() && matches!(via, Via::Gossip | Via::Sync) {
            self.note_own_head(now, zone, seq);
        }
        let Some(held) = self.zones.get_mut(zone) else { return Merge::Stale };
        let merged = held.registry.merge(record, now);
        if let Merge::New { replaced, evicted } = &merged {
            let record = held.registry.get(&key).cloned();
            for gone in replaced.iter().chain(evicted) {
                self.reindex(gone, now);
            }
            for gone in evicted {
                self.forget(gone);
            }
            if let Some(record) = record {
                self.hold(&record, now, via);
            }
        }
        merged
    }

    fn hold(&mut self, record: &Arc<Record>, now: Timestamp, via: Via) {
        self.reindex(record, now);
        self.announce(record, via);
        match via {
            Via::Local | Via::Store => {}
            Via::Gossip | Via::Sync => {
                self.writes.push(stored::other_row(record));
                if record.host == self.key() {
                    self.guard_own_key(now, &record.key(), &record.name.zone);
                }
            }
        }
    }

    fn problems_forked(&mut self, author: crate::proto::record::Author) {
        *self.refused.entry(Code::ForkedAuthor).or_default() += 1;
        self.report(NodeAlert::ForkedAuthor(author));
    }

    fn take_beacon(
        &mut self,
        now: Timestamp,
        peer: PeerKey,
        zone: &ZoneName,
        signed: &SignedBeacon,
    ) -> Verdict {
        let (beacon, pulse) = (signed.beacon(), signed.pulse());
        if beacon.network != self.config.network || beacon.zone != *zone {
            return self.reject(peer, Refusal::ForeignZone);
        }
        if pulse.peer() == self.key() {
            return Verdict::Ignore;
        }
        let Some(held) = self.zones.get_mut(zone) else { return Verdict::Ignore };
        match held.liveness.judge(pulse, now) {
            Heard::Stale => return Verdict::Ignore,
            Heard::ClockOff => {
                // The wrong clock may be ours: what it says about ours is noted if it is signed.
                if signed.is_signed(&mut self.memo.keys) {
                    self.note_clock(pulse.peer(), pulse.clock, now);
                }
                return Verdict::Ignore;
            }
            Heard::Fresh => {}
        }
        if !signed.is_signed(&mut self.memo.keys) {
            return self.reject(peer, Refusal::BadSignature);
        }
        held.liveness.hear(pulse, now);
        // The beacon that is remembered tells the clock.
        self.clock_offsets.remove(&pulse.peer());
        self.judge_clock_by(&pulse.peer());
        self.note_behind(now, zone);
        Verdict::Accept
    }

    pub(super) fn note_clock(&mut self, peer: PeerKey, clock: Timestamp, now: Timestamp) {
        if self.clock_offsets.len() < CLOCK_OFFSETS_MAX || self.clock_offsets.contains_key(&peer) {
            self.clock_offsets.insert(peer, clock.offset_ms(now));
        }
        self.judge_clock_by(&peer);
    }

    /// A peer told its clock: only those of bootstrap peers judge ours.
    fn judge_clock_by(&mut self, peer: &PeerKey) {
        if self.config.bootstrap_peers.contains(peer) {
            self.judge_clock();
        }
    }

    pub(super) fn judge_clock(&mut self) {
        let known = |problem: &NodeAlert| matches!(problem, NodeAlert::ClockUnsafe(_));
        match self.unsafe_clock_offset() {
            None if self.problems.iter().any(known) => {
                self.problems.retain(|problem| !known(problem));
                self.plan_renewals();
            }
            None => {}
            Some(_) if self.problems.iter().any(known) => {}
            Some(offset) => self.report(NodeAlert::ClockUnsafe(offset)),
        }
    }

    pub(super) fn handle_peer_joined(
        &mut self,
        now: Timestamp,
        peer: PeerKey,
        zone: &ZoneName,
        dialed: Dialed,
    ) {
        let Some(held) = self.zones.get_mut(zone) else { return };
        if !held.peers.insert(peer) {
            return;
        }
        // The side that dialed compares; the other would find the same, and looks for itself a little later.
        match dialed {
            Dialed::ByUs if held.catch_up.len() < CATCH_UP_MAX => drop(held.catch_up.insert(peer)),
            Dialed::ByUs | Dialed::ByThem => {}
        }
        if held.peers.len() == 1 {
            held.next_beacon = held.next_beacon.min(now + Duration::from_secs(1));
            held.next_sync = held.next_sync.min(now + self.config.mesh_grace);
        }
        self.start_catch_up(now, zone);
    }

    pub(super) fn handle_peer_left(&mut self, peer: PeerKey, zone: Option<&ZoneName>) {
        for (name, held) in &mut self.zones {
            if zone.is_none_or(|zone| zone == name) && held.peers.remove(&peer) {
                held.catch_up.remove(&peer);
                held.liveness.lose(&peer);
            }
        }
    }

    pub(super) fn beacon_if_due(&mut self, now: Timestamp, zone: &ZoneName) {
        let Some(held) = self.zones.get(zone).filter(|held| held.member && held.next_beacon <= now) else {
            return;
        };
        let members = held.liveness.live(now) + 1;
        let share = Duration::from_secs_f64(members as f64 / self.config.beacons_per_second);
        let interval = self.config.beacon_interval.max(share);
        let next = now + self.jitter(interval);
        if let Some(held) = self.zones.get_mut(zone) {
            held.next_beacon = next;
        }
        // The longest jittered interval, so that nobody counts a slow one as missed.
        self.send_beacon(now, zone, interval.mul_f64(1.2));
    }

    pub(super) fn say_goodbye(&mut self, now: Timestamp) {
        for zone in self.zone_names() {
            self.send_beacon(now, &zone, Duration::ZERO);
        }
    }

    fn send_beacon(&mut self, now: Timestamp, zone: &ZoneName, interval: Duration) {
        let (author, network) = (self.author(), self.config.network.clone());
        let Some(held) = self.zones.get_mut(zone).filter(|held| held.member && !held.peers.is_empty()) else {
            return;
        };
        // Wall time keeps the counter greater than in an earlier run of the same epoch.
        held.beacon_counter = now.0.max(held.beacon_counter + 1);
        let beacon = Beacon {
            network,
            zone: zone.clone(),
            author,
            counter: held.beacon_counter,
            clock: now,
            interval_ms: interval.as_millis() as u64,
            seq: held.seq,
        };
        let bytes = Envelope::Beacon(beacon.sign(&self.identity)).encode();
        self.outputs.push_back(Output::Publish { zone: zone.clone(), bytes });
    }

    /// Publishes repaired records again, one per message, so that equal repairs are equal messages.
    pub(super) fn publish_again(&mut self, zone: &ZoneName, records: Vec<ByteBuf>) {
        for record in records {
            let bytes = Envelope::Records(vec![record]).encode();
            self.outputs.push_back(Output::Publish { zone: zone.clone(), bytes });
        }
    }

    /// The best live card of an agent is to stand in the index, or the agent is to leave it. That waits until somebody
    /// asks: a record that is replaced before costs nothing, and a node that nobody asks keeps no index.
    pub(super) fn reindex(&mut self, record: &Record, now: Timestamp) {
        if record.kind != Kind::Agent {
            return;
        }
        let id = record.agent_id();
        let Some(zone) = self.zones.get_mut(&record.name.zone) else { return };
        match zone.registry.replicas(&id, now).next() {
            Some(_) => zone.agents.insert(id),
            None => zone.agents.remove(&id),
        };
        zone.unindexed.insert(id, now);
        if zone.unindexed.len() > UNINDEXED_MAX {
            self.index_waiting();
        }
    }

    /// The index, with everything that waited for it.
    pub(super) fn indexed(&mut self) -> &Index {
        self.index_waiting();
        &self.index
    }

    fn index_waiting(&mut self) {
        for zone in self.zones.values_mut() {
            for (id, since) in std::mem::take(&mut zone.unindexed) {
                let best = zone.registry.replicas(&id, since).max_by_key(|replica| replica.order());
                let Some((best, card)) = best.and_then(|best| best.card().map(|card| (best, card))) else {
                    self.index.remove(&id);
                    continue;
                };
                self.index.insert(Entry {
                    id,
                    name: &best.name,
                    title: card.title.as_deref(),
                    original_name: card.original_name.as_deref(),
                    tags: &card.tags,
                    capabilities: &card.capabilities,
                    description: &card.description,
                });
            }
        }
    }

    pub(super) fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }
}
