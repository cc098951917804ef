//! What must hold at any time, in the end, and what clients were promised.
//!
//! Some checks run with every output (order, durability, blame), some every few seconds (vectors, no step back). What must
//! hold once the world is repaired and quiet is in `quiescence`, what honest nodes are promised among hostile ones in
//! `rights`. `reference` is the model of what clients were told, `snapshot` what a node held when it was last looked at.
//! Each check is named; each exemption is an [`reference::Exemption`] with its reason.

mod check;
mod quiescence;
mod reference;
mod rights;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::clients::text_of;
use super::fabric::Fabric;
use super::nodes::Nodes;
use super::setup::Setup;
use super::sim_node::RestartFrom;
use crate::proto::io::{Event, NodeAlert, Removal, Reply, Write};
use crate::proto::limits::STAMP_AHEAD_MAX;
use crate::proto::message::Envelope;
use crate::proto::name::{FullName, ZoneName};
use crate::proto::record::{Author, KeyHash, Record, RecordHash, RecordKind};
use crate::proto::time::Timestamp;
pub use check::{Check, Violation};
pub use quiescence::Promises;
pub use reference::ReferenceModel;
use reference::Written;
pub(super) use reference::{History, Operation, Word};
use snapshot::Snapshot;

/// Nodes that are looked at in one round of checks, in turn: all of a small world, some of a large one.
const LOOKED_AT_MAX: usize = 8;

/// The checkers of a world, always on.
#[derive(Default)]
pub(super) struct Checkers {
    pub(super) reference: ReferenceModel,
    /// Records whose signatures were verified, by nothing that the nodes used.
    verified: BTreeSet<RecordHash>,
    /// What each node held of each zone when it was last looked at.
    snapshots: BTreeMap<(usize, ZoneName), Snapshot>,
    /// The node that was looked at last.
    looked_at: usize,
    /// Tombstones that each node took in each zone in its present run.
    buried: BTreeMap<(usize, ZoneName), BTreeMap<KeyHash, Arc<Record>>>,
    /// Nodes whose clock forbade them to write at some time since their disk was last lost: what stood in their name then
    /// is on it, and is not met anew.
    silenced: BTreeSet<usize>,
    /// Zones that each node compared with somebody in its present run.
    compared: BTreeSet<(usize, ZoneName)>,
    /// Zones in which some node had no room for an own record.
    full: BTreeSet<ZoneName>,
    /// Versions of records that a full disk did not keep.
    unkept: BTreeSet<(ZoneName, Author, u64)>,
}

impl Checkers {
    /// Those of a world that begins so.
    pub(super) fn of(setup: &Setup) -> Checkers {
        let mut checkers = Checkers::default();
        let ends = setup.owned.iter().map(|(zone, granted)| (zone.clone(), granted.ends_at()));
        checkers.reference.grants_end.extend(ends);
        checkers
    }

    /// A node is about to start with what `from` says.
    pub(super) fn started(&mut self, at: usize, from: RestartFrom, nodes: &Nodes) {
        if from == RestartFrom::Lost {
            self.silenced.remove(&at);
        }
        self.reference.started(at, from, nodes);
    }

    /// A node stopped: what it held in memory is gone.
    pub(super) fn stopped(&mut self, at: usize) {
        self.snapshots.retain(|(node, _), _| *node != at);
        self.buried.retain(|(node, _), _| *node != at);
        self.compared.retain(|(node, _)| *node != at);
    }

    /// A node left a zone: what it held there is gone, and what it offered is withdrawn.
    pub(super) fn left(&mut self, at: usize, zone: &ZoneName, fabric: &Fabric) {
        self.snapshots.remove(&(at, zone.clone()));
        self.buried.remove(&(at, zone.clone()));
        self.reference.left(at, zone, &fabric.nodes);
    }

    /// A node writes a row: own records are remembered for later checks.
    pub(super) fn note_write(&mut self, at: usize, write: &Write, fabric: &mut Fabric) {
        // Rows of own records have names that begin so.
        let (Some(b'o'), Some(value)) = (write.key.first(), &write.value) else { return };
        let Fabric { nodes, kernel, .. } = fabric;
        let Ok(signed) = nodes.decode(at, value) else {
            return kernel.fail(Check::Verified, format!("node {at} writes a row that is no record"));
        };
        let record = signed.trust_sealed();
        if record.author().key == nodes[at].key
            && !self.reference.note_write(at, &record)
            && nodes.is_honest(at)
        {
            kernel.fail(Check::VersionsUnique, format!("node {at} writes another {record:?}"));
        }
    }

    /// A node publishes: its own records must have been written before. Whether there are records at all.
    pub(super) fn check_persisted(&self, at: usize, bytes: &[u8], fabric: &mut Fabric) -> bool {
        let Ok(Envelope::Records(records)) = Envelope::decode(bytes) else { return false };
        let Fabric { nodes, kernel, .. } = fabric;
        // Only its present epoch: records of an earlier one are repaired as those of anybody.
        let Some(author) = nodes[at].node.as_ref().map(|node| node.author()) else { return true };
        for bytes in records {
            let Ok(signed) = nodes.decode(at, &bytes) else {
                kernel.fail(Check::Verified, format!("node {at} publishes what is no record"));
                break;
            };
            let header = signed.header();
            let mut written = self.reference.written(&header.zone, header.author, header.seq);
            let is_written = written.any(|it| it.order.hash == signed.hash());
            // A delegation takes no version, and is no loss: the next walk makes it anew.
            let is_versioned = header.kind != RecordKind::Delegation;
            if header.author == author && is_versioned && !is_written && nodes.is_honest(at) {
                kernel.fail(Check::PersistFirst, format!("node {at} publishes version {}", header.seq));
                break;
            }
        }
        true
    }

    /// A node tells of a change: what it took must not be ahead of its clock, and not be what it knew to be deleted.
    pub(super) fn check_event(&mut self, at: usize, event: &Event, fabric: &mut Fabric) {
        let record = match event {
            Event::AgentChanged { record, .. } | Event::AgentRemoved { record, reason: Removal::Deleted } => {
                record
            }
            Event::Alert(NodeAlert::ClockUnsafe(_)) => {
                self.silenced.insert(at);
                return;
            }
            Event::Synced { zone, .. } => {
                self.compared.insert((at, zone.clone()));
                return;
            }
            Event::Alert(NodeAlert::ZoneFull(zone)) => {
                self.full.insert(zone.clone());
                return;
            }
            Event::AgentRemoved { .. } | Event::Alert(_) => return,
        };
        self.check_signature(at, record, fabric);
        if !fabric.nodes[at].serves(&record.name.zone) {
            let detail = format!("node {at} tells of {record:?}, whose zone it does not serve");
            fabric.kernel.fail(Check::WithinZone, detail);
        }
        let wall = fabric.kernel.wall();
        let host = &mut fabric.nodes[at];
        if record.host == host.key {
            self.reference.heard(at, record);
        }
        let place = (at, record.name.zone.clone());
        if record.stamp.wall > host.clock.read(wall) + STAMP_AHEAD_MAX {
            fabric.kernel.fail(Check::TimeBound, format!("node {at} takes {record:?}"));
        } else if record.is_tombstone() {
            self.buried.entry(place).or_default().insert(record.key(), record.clone());
        } else {
            // A lease that had ended on this clock before it went back may show again until the tombstone comes too.
            let ended = record.expires_at <= host.clock.shown_max();
            let buried = self.buried.entry(place).or_default();
            match buried.get(&record.key()) {
                Some(tombstone)
                    if !ended
                        && tombstone.precedence() > record.precedence()
                        // A later write may have moved to another slot.
                        && tombstone.order() > record.order()
                        // A host that forgot what it wrote may have put another key into the slot of either.
                        && ![tombstone, record].into_iter().any(|it| self.reference.is_contested(it)) =>
                {
                    let detail = format!("node {at} forgot a tombstone and takes {record:?}");
                    fabric.kernel.fail(Check::NoZombie, detail);
                }
                // A card took its place. If that was written with a clock gone back it ends before the tombstone would have.
                Some(tombstone)
                    if tombstone.precedence() < record.precedence() || tombstone.order() < record.order() =>
                {
                    drop(buried.remove(&record.key()))
                }
                Some(_) | None => {}
            }
        }
    }

    /// A client is told: from now on it is a promise.
    pub(super) fn note_reply(&mut self, at: usize, id: u64, reply: Reply, fabric: &mut Fabric) {
        let operations = self.reference.take_pending(id);
        let results = match reply {
            Reply::Registered(results) => results,
            Reply::Deregistered(result) | Reply::Adopted(result) => vec![result],
            Reply::Found(_)
            | Reply::Resolved(_)
            | Reply::Tree(_)
            | Reply::Owners(_)
            | Reply::Owner(_)
            | Reply::ImportsNamed
            | Reply::Published(_)
            | Reply::Zone(_)
            | Reply::Left => Vec::new(),
        };
        for ((name, operation), result) in operations.into_iter().zip(results) {
            match result {
                Ok(_) => self.acknowledge(at, name, operation, fabric),
                Err(error) => *self.reference.refused.entry(error.code().text()).or_default() += 1,
            }
        }
    }

    fn acknowledge(&mut self, at: usize, name: FullName, operation: Operation, fabric: &mut Fabric) {
        let Fabric { nodes, kernel, .. } = fabric;
        let host = &nodes[at];
        let key = reference::key_of(host.key, &name);
        // From what a crash would leave now: that the node has it in memory proves nothing.
        let kept = host.own_record(&key);
        let is_kept = match (&operation, &kept) {
            (Operation::Offered(text), Some(kept)) => kept.card().is_some_and(|card| text_of(&card) == *text),
            (Operation::Withdrawn, Some(kept)) => kept.is_tombstone(),
            (_, None) => false,
        };
        if !is_kept {
            let agent = &name.agent;
            let detail = format!("node {at}: {agent} {operation:?} acknowledged, disk has {kept:?}");
            kernel.fail(Check::Durable, detail);
        }
        let order = kept.map(|kept| kept.order());
        if let Some(order) = order.filter(|_| matches!(operation, Operation::Offered(_))) {
            let zone = name.zone.clone();
            kernel.metrics.acknowledge(at, zone, key, order, kernel.clock.now());
        }
        self.reference.acknowledge((at, name), operation, (key, order), (kernel.now(), kernel.steps()));
    }

    /// What must hold at any time: of all nodes of a small world, of some of a large one.
    pub(super) fn check_some(&mut self, fabric: &mut Fabric) {
        let nodes = fabric.nodes.count();
        for _ in 0..nodes.min(LOOKED_AT_MAX) {
            // In turns: every node is looked at, and the looks are as far apart as the world is large.
            self.looked_at = (self.looked_at + 1) % nodes;
            for (zone, snapshot) in self.check_node(self.looked_at, fabric) {
                self.snapshots.insert((self.looked_at, zone), snapshot);
            }
        }
        fabric.network.check_messages(&mut fabric.kernel);
    }

    /// What must hold at any time, of all nodes.
    pub(super) fn check_all(&mut self, fabric: &mut Fabric) {
        for at in 0..fabric.nodes.count() {
            self.check_node(at, fabric);
        }
        fabric.network.check_messages(&mut fabric.kernel);
    }

    /// Looks at an honest node that runs, zone by zone, and compares it with what it was before.
    fn check_node(&mut self, at: usize, fabric: &mut Fabric) -> Vec<(ZoneName, Snapshot)> {
        if !fabric.nodes.is_honest(at) {
            return Vec::new();
        }
        let snapshots = snapshot::of(at, fabric);
        let Fabric { nodes, kernel, .. } = &mut *fabric;
        // Both are sorted by name, so that one walk compares them.
        if nodes[at].node.is_some() && !snapshots.iter().map(|(zone, _)| zone).eq(nodes[at].zones.keys()) {
            let held: Vec<_> = snapshots.iter().map(|(zone, _)| zone).collect();
            let detail =
                format!("node {at} serves {held:?} and is in the meshes of {:?}", nodes[at].zones.keys());
            kernel.fail(Check::WithinZone, detail);
        }
        self.check_standing(at, fabric);
        for (zone, now) in &snapshots {
            // Taken out: only a look in turn puts the new state in its place.
            let before = self.snapshots.remove(&(at, zone.clone())).unwrap_or_default();
            self.check_zone(at, zone, now, &before, fabric);
        }
        snapshots
    }

    fn check_zone(&self, at: usize, zone: &ZoneName, now: &Snapshot, before: &Snapshot, fabric: &mut Fabric) {
        let Fabric { nodes, kernel, .. } = &mut *fabric;
        let (host, weight_max) = (&nodes[at], nodes.zone_weight_max);
        let shown_max = host.clock.shown_max();
        // What a hostile host puts into one slot nobody keeps account of.
        let shares_slot =
            |record: &Record| !nodes.is_honest_key(&record.host) || self.reference.is_contested(record);
        // A clock set back writes again with a higher generation and an earlier end: between two looks that came and ended.
        let was_replaced = |record: &Record| {
            let mut written = self.reference.all_written(zone);
            written
                .any(|it| it.key == record.key() && it.order > record.order() && it.expires_at <= shown_max)
        };
        let evicted =
            |record: &Record| now.is_evicted(record, weight_max, shares_slot(record)) || was_replaced(record);
        if let Some((before, held)) = now.lost_since(before, shown_max, evicted) {
            kernel.fail(Check::NoStepBack, format!("node {at} held {before:?}, now {held:?}"));
        }
        if let Some((author, before, now)) = now.shrunk_since(before, host.key, shown_max) {
            let whose = nodes.number_of(&author.key);
            let detail = format!("node {at} had {before} versions of node {whose:?}, now {now}");
            kernel.fail(Check::MonotoneVersions, detail);
        }
        if let Some(stray) = now.held.iter().find(|record| record.name.zone != *zone) {
            kernel.fail(Check::WithinZone, format!("node {at} holds {stray:?} in {zone}"));
        }
        if let Some(detail) = now.beyond(weight_max) {
            kernel.fail(Check::WithinRoom, format!("node {at} holds {detail}"));
        }
        if !nodes.is_lied_to() {
            self.check_claims(at, zone, now, before, fabric);
        }
    }

    /// What a node claims to have seen in the end. Where somebody lies claims are true only then: a peer that names the
    /// asker's own root is believed, and what the asker lacks comes with the next comparison.
    fn check_claims_of_all(&self, at: usize, fabric: &mut Fabric) {
        if fabric.nodes.is_lied_to() {
            for (zone, now) in snapshot::of(at, fabric) {
                self.check_claims(at, &zone, &now, &Snapshot::default(), fabric);
            }
        }
    }

    /// What a node claims to have seen of honest authors; a hostile one may have signed anything.
    fn check_claims(
        &self,
        at: usize,
        zone: &ZoneName,
        now: &Snapshot,
        before: &Snapshot,
        fabric: &mut Fabric,
    ) {
        let Fabric { nodes, kernel, .. } = fabric;
        let of_honest = now.prefixes.iter().filter(|(author, _)| nodes.is_honest_key(&author.key));
        for (author, prefix) in of_honest {
            // A small world is looked at whole. In a large one what was covered at the last look still is, as nothing steps
            // back.
            let covered = if nodes.count() <= LOOKED_AT_MAX { None } else { before.prefixes.get(author) };
            let first = covered.map_or(1, |covered| covered + 1);
            let claims = Claims {
                reference: &self.reference,
                zone,
                now,
                was_full: self.full.contains(zone),
                shown_max: nodes[at].clock.shown_max(),
                told_until: nodes.is_lied_to().then_some(kernel.wall() + quiescence::DUE_MS),
            };
            let is_kept = |seq: &u64| !self.unkept.contains(&(zone.clone(), *author, *seq));
            let lacks = |seq: &u64| is_kept(seq) && !claims.is_covered(*author, *seq);
            if let Some(seq) = (first..=*prefix).find(lacks) {
                let whose = nodes.number_of(&author.key);
                let detail = format!("node {at} claims {prefix} versions of node {whose:?} and lacks {seq}");
                kernel.fail(Check::VectorIsTrue, detail);
                break;
            }
        }
    }
}

/// What the claims of a node about one zone are held against.
struct Claims<'a> {
    reference: &'a ReferenceModel,
    zone: &'a ZoneName,
    now: &'a Snapshot,
    /// Whether some host had no room in the zone.
    was_full: bool,
    shown_max: Timestamp,
    /// Where somebody lies: a liar's word may stand for writes due after this, which nobody else may hold.
    told_until: Option<u64>,
}

impl Claims<'_> {
    /// Whether a version was rightly claimed: its record is held, or superseded, its lease has ended, or it had no room.
    fn is_covered(&self, author: Author, seq: u64) -> bool {
        self.reference.written(self.zone, author, seq).any(|written| {
            written.expires_at <= self.shown_max
                || self.told_until.is_some_and(|until| written.order.stamp.wall.0 > until)
                || self.now.get(&written.key).is_some_and(|held| {
                    // By its slot, or as a later write that moved to another one.
                    held.precedence() >= written.precedence || held.order() >= written.order
                })
                || self.was_full && written.stands_last()
                || self.was_superseded(written)
                || self.reference.was_contested(self.zone, written)
        })
    }

    /// Whether something greater stood under the key and has ended since: a card may replace a tombstone that would
    /// have lived longer.
    fn was_superseded(&self, lost: &Written) -> bool {
        let mut written = self.reference.all_written(self.zone);
        written.any(|it| {
            it.key == lost.key && it.precedence > lost.precedence && it.expires_at <= self.shown_max
        })
    }
}

#[cfg(test)]
mod tests;
