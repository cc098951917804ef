//! What is counted while a world runs: who learnt which update when, what was sent, how long nodes lived.
//!
//! An update is an offer that its client was told of. A node has learnt it when it holds the record, or a greater one of
//! the same key.

use std::collections::{BTreeMap, BTreeSet};

use super::mesh::Packet;
use super::network::{Frame, Toward};
use crate::proto::io::{Event, Removal, Via};
use crate::proto::message::{SyncAnswer, SyncFrame, SyncRequest};
use crate::proto::name::ZoneName;
use crate::proto::record::{KeyHash, Order, Record};

/// Frames of no more bytes than this carry no record: the smallest there is takes more.
const RECORD_BYTES_MIN: usize = 256;
/// Never learnt.
const NEVER: u32 = 0;
/// Marks what was learnt by a node that was not up all the time since the write.
const AWAY: u32 = 1 << 31;

/// An update and who learnt it.
pub struct Update {
    /// The node that wrote it.
    pub author: usize,
    /// The zone it lies in.
    pub zone: ZoneName,
    /// The key of its record.
    pub key: KeyHash,
    /// Its place among the records of that key.
    pub order: Order,
    /// When its client was told, virtual milliseconds.
    at: u64,
    /// For each node: 1 + milliseconds until it learnt it, perhaps marked.
    seen: Vec<u32>,
}

/// Everything that is counted.
pub struct RunMetrics {
    /// Every update, as they were written.
    pub updates: Vec<Update>,
    /// The last update of each key.
    by_key: BTreeMap<KeyHash, usize>,
    /// Since when each node is up and awake; none while it is not.
    online_since: Vec<Option<u64>>,
    /// Milliseconds that nodes were up in all, those of the present runs not counted.
    lived_ms: u64,
    /// Copies of mesh messages with records that were sent.
    pub copies: u64,
    /// Bytes of those copies.
    pub copy_bytes: u64,
    /// Those of them that came to a node that had the message.
    pub duplicates: u64,
    /// Bytes of frames with records.
    pub repair_bytes: u64,
    /// Bytes of everything.
    pub bytes: u64,
    /// Of that what each node sent.
    pub bytes_of: Vec<u64>,
    /// Syncs that ended well.
    pub syncs: u64,
    /// Records that came by sync.
    pub repaired: u64,
    /// Machines that an honest node blamed.
    pub blamed: BTreeSet<usize>,
}

impl RunMetrics {
    pub(super) fn new(nodes: usize) -> RunMetrics {
        RunMetrics {
            updates: Vec::new(),
            by_key: BTreeMap::new(),
            online_since: vec![None; nodes],
            lived_ms: 0,
            copies: 0,
            copy_bytes: 0,
            duplicates: 0,
            repair_bytes: 0,
            bytes: 0,
            bytes_of: vec![0; nodes],
            syncs: 0,
            repaired: 0,
            blamed: BTreeSet::new(),
        }
    }

    /// A node begins to run, or to run again.
    pub(super) fn wakes(&mut self, node: usize, now: u64) {
        // Ends a stretch that is still open, so that no time counts twice.
        self.sleeps(node, now);
        self.online_since[node] = Some(now);
    }

    /// A node stops running.
    pub(super) fn sleeps(&mut self, node: usize, now: u64) {
        let since = self.online_since[node].take();
        self.lived_ms += since.map_or(0, |since| now - since);
    }

    /// Milliseconds that nodes were up in all.
    pub fn lived_ms(&self, now: u64) -> u64 {
        self.lived_ms + self.online_since.iter().flatten().map(|since| now - since).sum::<u64>()
    }

    /// A client was told that its offer is made.
    pub(super) fn acknowledge(
        &mut self,
        author: usize,
        zone: ZoneName,
        key: KeyHash,
        order: Order,
        now: u64,
    ) {
        let mut seen = vec![NEVER; self.online_since.len()];
        // Milliseconds plus one, as zero means never: its author knew it at once.
        seen[author] = 1;
        self.by_key.insert(key, self.updates.len());
        self.updates.push(Update { author, zone, key, order, at: now, seen });
    }

    /// A node that serves the zone of a record since some time holds the record.
    fn learns(&mut self, node: usize, record: &Record, serves_since: u64, now: u64) {
        let Some(update) = self.by_key.get(&record.key()).map(|at| &mut self.updates[*at]) else { return };
        if update.seen[node] == NEVER && record.order() >= update.order {
            let was_up = self.online_since[node].is_some_and(|since| since.max(serves_since) <= update.at);
            // One more still has to lie below the mark.
            // 31 bits of milliseconds are 24 days; what takes longer counts as that.
            let after = (now - update.at).min(u64::from(AWAY) - 2) as u32;
            update.seen[node] = (after + 1) | if was_up { 0 } else { AWAY };
        }
    }

    /// A node tells of an event; it serves each of these zones since some time.
    pub(super) fn event(&mut self, node: usize, event: &Event, zones: &BTreeMap<ZoneName, u64>, now: u64) {
        let since = |record: &Record| zones.get(&record.name.zone).copied().unwrap_or(now);
        match event {
            Event::AgentChanged { record, via } => {
                self.learns(node, record, since(record), now);
                self.repaired += u64::from(*via == Via::Sync);
            }
            Event::AgentRemoved { record, reason: Removal::Deleted } => {
                self.learns(node, record, since(record), now)
            }
            Event::Synced { .. } => self.syncs += 1,
            Event::AgentRemoved { .. } | Event::Alert(_) => {}
        }
    }

    /// A copy of a mesh message goes out.
    pub(super) fn sent(&mut self, from: usize, packet: &Packet) {
        let bytes = packet.bytes.len() as u64;
        self.bytes += bytes;
        self.bytes_of[from] += bytes;
        if packet.has_records {
            self.copies += 1;
            self.copy_bytes += bytes;
        }
    }

    /// A frame of a conversation goes out.
    pub(super) fn sent_frame(&mut self, from: usize, frame: &Frame) {
        self.bytes += frame.bytes.len() as u64;
        self.bytes_of[from] += frame.bytes.len() as u64;
        // By length first: most frames are small, and decoding each would be felt.
        // Most frames are small: only those that can hold a record are decoded to see whether they do.
        if frame.bytes.len() > RECORD_BYTES_MIN && has_records(frame) {
            self.repair_bytes += frame.bytes.len() as u64;
        }
    }
}

impl Update {
    /// Milliseconds after which each node learnt it.
    pub fn seen(&self) -> impl Iterator<Item = Option<u32>> {
        self.seen.iter().map(|seen| (seen & !AWAY).checked_sub(1))
    }

    /// Milliseconds after which the nodes learnt it that were up since it was written, its author left out.
    pub fn latencies(&self) -> impl Iterator<Item = f64> {
        let others = self.seen.iter().enumerate().filter(|(at, _)| *at != self.author);
        let online = others.filter(|(_, seen)| **seen != NEVER && **seen & AWAY == 0);
        online.map(|(_, seen)| f64::from(seen - 1))
    }
}

fn has_records(frame: &Frame) -> bool {
    match frame.toward {
        Toward::Answerer => SyncFrame::decode(&frame.bytes)
            .is_ok_and(|asked| matches!(asked.request, SyncRequest::Give { .. })),
        Toward::Asker => {
            SyncAnswer::decode(&frame.bytes).is_ok_and(|answer| matches!(answer, SyncAnswer::Records { .. }))
        }
    }
}
