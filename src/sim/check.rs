//! What must hold at any time, and a reference model of what clients were told.
//!
//! Some checks run with every output (order, durability, blame), some every few seconds (vectors, no step back). What must
//! hold once the world is repaired and quiet is in `settle`. Each is named; each exemption is an [`Exemption`] with its
//! reason.

mod rights;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::World;
use super::hostile::Conduct;
use super::machine::{Machine, Memory};
use super::workload::text_of;
use crate::proto::card::Scope;
use crate::proto::config::STAMP_AHEAD_MAX;
use crate::proto::identity::PeerKey;
use crate::proto::io::{Event, NodeAlert, Reply, Write};
use crate::proto::message::Envelope;
use crate::proto::name::{AgentName, ZoneName};
use crate::proto::record::{Author, Header, KeyHash, Kind, Order, Record, RecordHash, SignedRecord};
use crate::proto::time::{Stamp, Timestamp};

/// Machines that are looked at in one round of checks, in turn: all of a small world, some of a large one.
const LOOKED_AT_MAX: usize = 8;

/// A promise of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// After healing all hold the same.
    Agreement,
    /// A deleted agent stays deleted.
    NoZombie,
    /// An acknowledged offer of a host that kept its disk is served everywhere.
    NoLostWrite,
    /// A version vector claims only what is held, superseded or ended.
    VectorIsTrue,
    /// Nothing stamped more than a minute ahead of its own clock is taken by a node.
    TimeBound,
    /// Held records carry the right signature.
    Verified,
    /// What is acknowledged is on disk.
    Durable,
    /// Own records are on disk before they are published.
    PersistFirst,
    /// A run of a node never holds a smaller record of a key than before, unless a lease ended.
    NoStepBack,
    /// While a node holds a record of an author, its versions of that author only grow.
    MonotoneVersions,
    /// Everything was healed, and after a bounded time all agree.
    LivenessAfterHeal,
    /// Outputs end, timers do not spin, nothing waits for ever.
    QueuesBounded,
    /// Sent is delivered, dropped by plan or on its way.
    MessagesConserved,
    /// An author writes each version once, unless its disk went back.
    VersionsUnique,
    /// Nobody honest is blamed by anybody honest.
    NobodyBlamed,
    /// What is held of an author, and in all, is within the quotas.
    WithinQuota,
    /// Who holds two records of one version has told of the fork.
    ForksShown,
    /// What stands in the name of a host is what it offers.
    HostSpeaks,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub check: Check,
    /// Seed of the run.
    pub seed: u64,
    /// When, virtual milliseconds.
    pub at_ms: u64,
    /// What was seen.
    pub detail: String,
}

impl Check {
    /// Its name, kebab-case.
    pub fn name(self) -> &'static str {
        match self {
            Check::Agreement => "agreement",
            Check::NoZombie => "no-zombie",
            Check::NoLostWrite => "no-lost-write",
            Check::VectorIsTrue => "vector-is-true",
            Check::TimeBound => "time-bound",
            Check::Verified => "verified",
            Check::Durable => "durable",
            Check::PersistFirst => "persist-first",
            Check::NoStepBack => "no-step-back",
            Check::MonotoneVersions => "monotone-versions",
            Check::LivenessAfterHeal => "liveness-after-heal",
            Check::QueuesBounded => "queues-bounded",
            Check::MessagesConserved => "messages-conserved",
            Check::VersionsUnique => "versions-unique",
            Check::NobodyBlamed => "nobody-blamed",
            Check::WithinQuota => "within-quota",
            Check::ForksShown => "forks-shown",
            Check::HostSpeaks => "host-speaks",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { check, seed, at_ms, detail } = self;
        write!(f, "{check:?} broken by seed {seed} at {at_ms} ms: {detail}")
    }
}

/// What a client asked for and was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// Offered with this description.
    Offered(String),
    /// Withdrawn.
    Withdrawn,
}

/// Why the last acknowledged operation of a host need not show any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exemption {
    /// The host lost its disk after it was told to offer the agent: it cannot know, and buries what it does not offer.
    DiskLost,
    /// The host's disk went back to before the operation, and no running node knew of it, or the restored folder
    /// never had the epoch of the operation and cannot tell it from another's.
    BackupIsOlder,
}

/// The last operation on an agent that its client was told of.
#[derive(Clone, Debug)]
pub(super) struct Acknowledged {
    pub(super) operation: Operation,
    step: u64,
    pub(super) key: KeyHash,
    /// The record it made.
    pub(super) order: Order,
    /// The host's disk went back to before it, and nobody has told the host yet.
    unheard: bool,
    exempt: Option<Exemption>,
}

/// One own write of some node.
#[derive(Clone, Copy, Debug)]
struct Written {
    key: KeyHash,
    order: Order,
    expires_at: Timestamp,
}

/// What a node held when it was last looked at: records by key, and the versions it claimed of each author.
#[derive(Default)]
struct Look {
    held: Vec<Arc<Record>>,
    prefixes: BTreeMap<Author, u64>,
}

impl Look {
    fn get(&self, key: &KeyHash) -> Option<&Arc<Record>> {
        let at = self.held.binary_search_by_key(key, |record| record.key()).ok()?;
        Some(&self.held[at])
    }

    /// What was held and is no more, though its lease had not ended and no quota took it, with what is held in its place.
    fn lost_since<'a>(
        &'a self,
        before: &'a Look,
        wall_max: Timestamp,
        evicted: impl Fn(&Record) -> bool,
    ) -> Option<(&'a Record, Option<&'a Record>)> {
        let mut now = self.held.iter().peekable();
        before.held.iter().find_map(|old| {
            while now.next_if(|it| it.key() < old.key()).is_some() {}
            let held = now.peek().filter(|it| it.key() == old.key());
            let is_less = held.is_none_or(|held| !Arc::ptr_eq(held, old) && held.order() < old.order());
            (is_less && old.expires_at > wall_max && !evicted(old))
                .then_some((&**old, held.map(|held| &***held)))
        })
    }

    /// An author other than `own` whose versions shrank though one of its records was held all the time: its lease never
    /// ended on this clock, which may have gone forth and back. Of itself a node knows how much it wrote, until it takes a
    /// new epoch: then it tells of the old one what it sees of it.
    fn shrunk_since(&self, before: &Look, own: PeerKey, wall_max: Timestamp) -> Option<(Author, u64, u64)> {
        before.prefixes.iter().find_map(|(author, old)| {
            let prefix = self.prefixes.get(author).copied().unwrap_or(0);
            let kept = |record: &Arc<Record>| {
                record.author == *author
                    && record.expires_at > wall_max
                    && self.get(&record.key()).is_some_and(|it| it.hash() == record.hash())
            };
            (author.key != own && prefix < *old && before.held.iter().any(kept))
                .then_some((*author, *old, prefix))
        })
    }
}

/// What clients were told, and what was ever written.
#[derive(Default)]
pub struct Reference {
    /// Acknowledged writes.
    pub acknowledged: u64,
    /// Refused writes, by code.
    pub refused: BTreeMap<&'static str, u64>,
    pub(super) agents: BTreeMap<(usize, AgentName), Acknowledged>,
    /// Forked authors write one version twice.
    written: BTreeMap<(Author, u64), Vec<Written>>,
    pub(super) verified: BTreeSet<RecordHash>,
    looks: BTreeMap<usize, Look>,
    /// The machine that is looked at next.
    next_look: usize,
    /// Tombstones that each node took in its present run.
    buried: BTreeMap<usize, BTreeMap<KeyHash, Order>>,
    /// Machines whose disk went back to a backup at some time.
    restored: BTreeSet<usize>,
    /// Machines whose clock forbade them to write at some time since their disk was last lost: what stood in their name then
    /// is on it, and is not met anew.
    silenced: BTreeSet<usize>,
    pending: BTreeMap<u64, Vec<(AgentName, Operation)>>,
    next_id: u64,
}

impl Reference {
    /// A command with these operations is about to be given; returns its number.
    pub(super) fn expect_reply(&mut self, operations: Vec<(AgentName, Operation)>) -> u64 {
        self.next_id += 1;
        self.pending.insert(self.next_id, operations);
        self.next_id
    }

    /// Records that nodes wrote: offers, withdrawals and renewals.
    pub fn writes(&self) -> usize {
        self.written.values().map(Vec::len).sum()
    }

    /// Keys of agents that were withdrawn last.
    pub fn withdrawn(&self) -> BTreeSet<KeyHash> {
        let withdrawn = self.agents.values().filter(|agent| agent.operation == Operation::Withdrawn);
        withdrawn.map(|agent| agent.key).collect()
    }

    /// Whether the author of a record wrote another one with the same version.
    pub(super) fn is_forked(&self, order: &Order) -> bool {
        let versions = self.written.range((order.author, 0)..=(order.author, u64::MAX));
        versions.map(|(_, written)| written).any(|written| {
            written.iter().any(|it| it.order.hash == order.hash)
                && written.iter().any(|it| it.order.hash != order.hash)
        })
    }

    /// A host holds a record of its own agent: perhaps what it wrote before its disk went back, or a renewal of it.
    fn heard(&mut self, host: usize, record: &Record) {
        let agent = self.agents.get_mut(&(host, record.name.agent.clone()));
        let agent = agent.filter(|it| it.key == record.key() && it.order.author == record.author);
        if let Some(agent) = agent.filter(|it| it.order <= record.order()) {
            agent.unheard = false;
        }
    }

    /// Whether an operation need not show when the true time is `wall`: by an exemption, or as an offer whose every lease
    /// ended before anybody could tell the host of it, as when everybody sleeps for a week.
    pub(super) fn is_exempt(&self, agent: &Acknowledged, wall: u64) -> bool {
        // What the host wrote since in a new epoch follows from what its disk went back to.
        let of_epoch = self.written.range((agent.order.author, 0)..=(agent.order.author, u64::MAX));
        let mut leases = of_epoch.flat_map(|(_, written)| written).filter(|it| it.key == agent.key);
        agent.exempt.is_some()
            || agent.unheard
                && matches!(agent.operation, Operation::Offered(_))
                && leases.all(|it| it.expires_at.0 <= wall)
    }

    /// A machine stopped: what it held in memory is gone.
    pub(super) fn stopped(&mut self, at: usize) {
        self.looks.remove(&at);
        self.buried.remove(&at);
    }

    /// A machine is about to start with less than it knew.
    pub(super) fn started(&mut self, at: usize, memory: Memory, machines: &[Machine]) {
        if memory == Memory::Lost {
            self.silenced.remove(&at);
        }
        let backup = machines[at].backup.as_ref();
        if matches!(memory, Memory::Backup | Memory::Torn) && backup.is_some() {
            self.restored.insert(at);
        }
        for ((host, _), agent) in &mut self.agents {
            if *host != at || agent.exempt.is_some() {
                continue;
            }
            let forgotten = match (memory, backup) {
                (Memory::Lost, _) => agent.operation != Operation::Withdrawn,
                (Memory::Backup | Memory::Torn, Some(backup)) => {
                    let wrote = backup.wrote(agent.order.author.epoch);
                    agent.unheard |= agent.step > backup.step;
                    agent.step > backup.step && !(wrote && is_known(agent, machines))
                }
                (Memory::Disk | Memory::Backup | Memory::Torn, _) => false,
            };
            let exemption =
                if memory == Memory::Lost { Exemption::DiskLost } else { Exemption::BackupIsOlder };
            agent.exempt = forgotten.then_some(exemption);
        }
    }
}

/// Whether some running node holds what an operation wrote, or something greater.
fn is_known(agent: &Acknowledged, machines: &[Machine]) -> bool {
    let root = ZoneName::root();
    let honest = machines.iter().filter(|machine| machine.malice.conduct == Conduct::Honest);
    let mut nodes = honest.filter_map(|machine| machine.node.as_ref());
    nodes.any(|node| node.record(&root, &agent.key).is_some_and(|record| record.order() >= agent.order))
}

impl World {
    /// A node writes a row: own records are remembered for later checks.
    pub(super) fn note_write(&mut self, at: usize, write: &Write) {
        let machine = &self.machines[at];
        let (Some(b'o'), Some(value)) = (write.key.first(), &write.value) else { return };
        let Ok(signed) = self.memo.record(value, &machine.config.network) else {
            return self.fail(Check::Verified, format!("machine {at} writes a row that is no record"));
        };
        let author = signed.header().author;
        let record = signed.trust_sealed();
        let written = Written { key: record.key(), order: record.order(), expires_at: record.expires_at };
        if author.key == machine.key {
            let writes = self.reference.written.entry((author, record.seq)).or_default();
            let differ = writes.iter().any(|it| it.order.hash != written.order.hash);
            writes.push(written);
            if differ && !self.reference.restored.contains(&at) && self.is_honest(at) {
                self.fail(Check::VersionsUnique, format!("machine {at} writes another {record:?}"));
            }
        }
    }

    /// A node publishes: its own records must have been written before. Whether there are records at all.
    pub(super) fn check_persisted(&mut self, at: usize, bytes: &[u8]) -> bool {
        let Ok(Envelope::Records(records)) = Envelope::decode(bytes) else { return false };
        let Some(author) = self.machines[at].node.as_ref().map(|node| node.author()) else { return true };
        for bytes in records {
            let Ok(signed) = self.memo.record(&bytes, &self.machines[at].config.network) else {
                self.fail(Check::Verified, format!("machine {at} publishes what is no record"));
                break;
            };
            let version = (signed.header().author, signed.header().seq);
            let written = self.reference.written.get(&version).into_iter().flatten();
            let is_written = written.into_iter().any(|it| it.order.hash == signed.hash());
            if version.0 == author && !is_written && self.is_honest(at) {
                self.fail(Check::PersistFirst, format!("machine {at} publishes version {}", version.1));
                break;
            }
        }
        true
    }

    /// A node tells of a change: what it took must not be ahead of its clock, and not be what it knew to be deleted.
    pub(super) fn check_event(&mut self, at: usize, event: &Event) {
        let record = match event {
            Event::AgentChanged { record, .. } | Event::AgentRemoved { record, deleted: true } => record,
            Event::Alert(NodeAlert::ClockUnsafe(_)) => {
                self.reference.silenced.insert(at);
                return;
            }
            Event::AgentRemoved { .. } | Event::Synced { .. } | Event::Alert(_) => return,
        };
        self.check_signature(at, record);
        let wall = self.wall();
        let machine = &mut self.machines[at];
        if record.host == machine.key {
            self.reference.heard(at, record);
        }
        if record.stamp.wall > machine.clock(wall) + STAMP_AHEAD_MAX {
            self.fail(Check::TimeBound, format!("machine {at} takes {record:?}"));
        } else if record.is_tombstone() {
            self.reference.buried.entry(at).or_default().insert(record.key(), record.order());
        } else {
            // A lease that had ended on this clock before it went back may show again until the tombstone comes too.
            let ended = record.expires_at <= machine.wall_max;
            let buried = self.reference.buried.entry(at).or_default();
            match buried.get(&record.key()) {
                Some(tombstone) if !ended && *tombstone > record.order() => {
                    let detail = format!("machine {at} forgot a tombstone and takes {record:?}");
                    self.fail(Check::NoZombie, detail);
                }
                // A card took its place. If that was written with a clock gone back it ends before the tombstone would have.
                Some(tombstone) if *tombstone < record.order() => drop(buried.remove(&record.key())),
                Some(_) | None => {}
            }
        }
    }

    /// A client is told: from now on it is a promise.
    pub(super) fn note_reply(&mut self, at: usize, id: u64, reply: Reply) {
        let operations = self.reference.pending.remove(&id).unwrap_or_default();
        let results = match reply {
            Reply::Registered(results) => results,
            Reply::Deregistered(result) => vec![result],
            Reply::Found(_) | Reply::Resolved(_) | Reply::Zone(_) | Reply::Left => Vec::new(),
        };
        for ((name, operation), result) in operations.into_iter().zip(results) {
            match result {
                Ok(_) => self.acknowledge(at, name, operation),
                Err(error) => *self.reference.refused.entry(error.code()).or_default() += 1,
            }
        }
    }

    fn acknowledge(&mut self, at: usize, name: AgentName, operation: Operation) {
        let key = key_of(self.machines[at].key, &name);
        let row = self.machines[at].disk.rows().get(&[b"o", &key.0[..]].concat()[..]).cloned();
        let kept = row.and_then(|row| SignedRecord::parse(&row, &self.machines[at].config.network).ok());
        let kept = kept.map(SignedRecord::trust_sealed);
        let is_kept = match (&operation, &kept) {
            (Operation::Offered(text), Some(kept)) => kept.card().is_some_and(|card| text_of(&card) == *text),
            (Operation::Withdrawn, Some(kept)) => kept.is_tombstone(),
            (_, None) => false,
        };
        if !is_kept {
            self.fail(
                Check::Durable,
                format!("machine {at}: {name} {operation:?} acknowledged, disk has {kept:?}"),
            );
        }
        self.reference.acknowledged += 1;
        let step = self.steps;
        if let Some(order) = kept.map(|kept| kept.order()) {
            if matches!(operation, Operation::Offered(_)) {
                self.tally.acknowledge(at, key, order, self.now);
            }
            let agent = Acknowledged { operation, step, key, order, unheard: false, exempt: None };
            self.reference.agents.insert((at, name), agent);
        }
    }

    /// What must hold at any time: of all machines of a small world, of some of a large one.
    pub(super) fn check_always(&mut self) {
        let machines = self.machines.len();
        for _ in 0..machines.min(LOOKED_AT_MAX) {
            self.reference.next_look = (self.reference.next_look + 1) % machines;
            let at = self.reference.next_look;
            if let Some(look) = self.check_machine(at) {
                self.reference.looks.insert(at, look);
            }
        }
        self.check_messages();
    }

    /// What must hold at any time, of all machines.
    pub(super) fn check_all_machines(&mut self) {
        for at in 0..self.machines.len() {
            self.check_machine(at);
        }
        self.check_messages();
    }

    fn look_at(&mut self, at: usize) -> Option<Look> {
        let (node, now) = self.node(at)?;
        let held = node.records(&ZoneName::root()).cloned().collect();
        let prefixes = node.zone_states(now).into_iter().flat_map(|zone| zone.versions).collect();
        Some(Look { held, prefixes })
    }

    fn check_machine(&mut self, at: usize) -> Option<Look> {
        if !self.is_honest(at) {
            return None;
        }
        let look = self.look_at(at)?;
        let wall_max = self.machines[at].wall_max;
        let before = self.reference.looks.remove(&at).unwrap_or_default();
        let evicted = |record: &Record| look.is_evicted(record, &self.quota);
        if let Some((before, held)) = look.lost_since(&before, wall_max, evicted) {
            self.fail(Check::NoStepBack, format!("machine {at} held {before:?}, now {held:?}"));
        }
        if let Some((author, before, now)) = look.shrunk_since(&before, self.machines[at].key, wall_max) {
            let whose = self.by_key.get(&author.key);
            let detail = format!("machine {at} had {before} versions of machine {whose:?}, now {now}");
            self.fail(Check::MonotoneVersions, detail);
        }
        if let Some(detail) = look.beyond(&self.quota) {
            self.fail(Check::WithinQuota, format!("machine {at} holds {detail}"));
        }
        if !self.is_lied_to() {
            self.check_claims(at, &look, &before);
        }
        Some(look)
    }

    /// What a machine claims to have seen in the end. Where somebody lies claims are true only then: a peer that names the
    /// asker's own root is believed, and what the asker lacks comes with the next comparison.
    pub(super) fn check_claims_of_all(&mut self, at: usize) {
        if let Some(look) = self.look_at(at).filter(|_| self.is_lied_to()) {
            self.check_claims(at, &look, &Look::default());
        }
    }

    /// What a machine claims to have seen of honest authors; a hostile one may have signed anything.
    fn check_claims(&mut self, at: usize, look: &Look, before: &Look) {
        let wall_max = self.machines[at].wall_max;
        let of_honest = look.prefixes.iter().filter(|(author, _)| self.is_honest_key(&author.key));
        for (author, prefix) in of_honest.collect::<Vec<_>>() {
            // A small world is looked at whole. In a large one what was covered at the last look still is, as nothing steps
            // back.
            let covered =
                if self.machines.len() <= LOOKED_AT_MAX { None } else { before.prefixes.get(author) };
            let first = covered.map_or(1, |covered| covered + 1);
            if let Some(seq) = (first..=*prefix).find(|seq| !self.is_covered(*author, *seq, look, wall_max)) {
                let whose = self.by_key.get(&author.key);
                let detail =
                    format!("machine {at} claims {prefix} versions of machine {whose:?} and lacks {seq}");
                self.fail(Check::VectorIsTrue, detail);
                break;
            }
        }
    }

    fn is_covered(&self, author: Author, seq: u64, look: &Look, wall_max: Timestamp) -> bool {
        let written = self.reference.written.get(&(author, seq)).into_iter().flatten();
        written.into_iter().any(|written| {
            written.expires_at <= wall_max
                || self.is_untold(written)
                || look.get(&written.key).is_some_and(|held| held.order() >= written.order)
                || self.was_superseded(written, wall_max)
        })
    }

    /// Whether a liar's word may stand for a write: one that nobody else may hold before it is due.
    fn is_untold(&self, written: &Written) -> bool {
        self.is_lied_to() && written.order.stamp.wall.0 > self.wall() + super::settle::DUE_MS
    }

    /// Whether something greater stood under the key and has ended since: a card may replace a tombstone that would
    /// have lived longer.
    fn was_superseded(&self, lost: &Written, wall_max: Timestamp) -> bool {
        let mut written = self.reference.written.values().flatten();
        written.any(|it| it.key == lost.key && it.order > lost.order && it.expires_at <= wall_max)
    }
}

/// Key of an agent that its host owns.
fn key_of(host: PeerKey, name: &AgentName) -> KeyHash {
    header_of(host, name).key()
}

fn header_of(host: PeerKey, name: &AgentName) -> Header {
    Header {
        network: String::new(),
        zone: ZoneName::root(),
        kind: Kind::Agent,
        name: name.clone(),
        owner: host,
        host,
        author: Author { key: host, epoch: 0 },
        seq: 0,
        stamp: Stamp::default(),
        generation: 0,
        expires_at: Timestamp::default(),
        scope: Scope::Public,
        grants: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proto::identity::Identity;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);
    const LEASE: Duration = Duration::from_secs(60);

    /// A record of the agent `name` with version `seq`, of which higher ones are greater.
    fn record(name: &str, seq: u64) -> Arc<Record> {
        let identity = Identity::from_seed([1; 32]);
        let (host, name) = (identity.key(), name.parse().expect("a label"));
        let stamp = Stamp { wall: NOW, counter: seq as u32 };
        let author = Author { key: host, epoch: 1 };
        let header = Header { seq, stamp, author, expires_at: NOW + LEASE, ..header_of(host, &name) };
        SignedRecord::sign(header, b"body", &identity).expect("signed").trust_sealed()
    }

    fn look(held: &[&Arc<Record>], prefix: u64) -> Look {
        let mut held: Vec<Arc<Record>> = held.iter().map(|record| Arc::clone(record)).collect();
        held.sort_by_key(|record| record.key());
        let author = Author { key: Identity::from_seed([1; 32]).key(), epoch: 1 };
        Look { held, prefixes: [(author, prefix)].into() }
    }

    #[test]
    fn a_node_that_holds_less_than_before_stepped_back_unless_the_lease_ended() {
        let (old, new, other) = (record("a", 1), record("a", 2), record("b", 3));
        let before = look(&[&new, &other], 3);
        for (after, lost) in [
            (look(&[&new, &other], 3), false),
            (look(&[&other], 3), true),
            (look(&[&old, &other], 3), true),
            (look(&[&new, &other, &record("c", 4)], 4), false),
        ] {
            assert_eq!(after.lost_since(&before, NOW, |_| false).is_some(), lost);
            assert!(after.lost_since(&before, NOW + LEASE, |_| false).is_none());
        }
        let earlier = look(&[&old], 1);
        assert!(before.lost_since(&earlier, NOW, |_| false).is_none(), "a greater record is no loss");
        let after = look(&[&other], 3);
        assert!(after.lost_since(&before, NOW, |_| true).is_none(), "what a quota took is no loss");
    }

    #[test]
    fn versions_may_shrink_only_with_the_last_record_of_their_author() {
        let (one, two) = (record("a", 1), record("b", 2));
        const SOMEBODY: PeerKey = PeerKey([9; 32]);
        let before = look(&[&one, &two], 2);
        assert!(look(&[&one, &two], 2).shrunk_since(&before, SOMEBODY, NOW).is_none());
        assert!(look(&[&two], 1).shrunk_since(&before, SOMEBODY, NOW).is_some());
        assert!(look(&[], 0).shrunk_since(&before, SOMEBODY, NOW).is_none(), "forgotten");
        assert!(
            look(&[&record("c", 3)], 1).shrunk_since(&before, SOMEBODY, NOW).is_none(),
            "forgotten and met again"
        );
    }

    #[test]
    fn an_offer_need_not_show_once_every_lease_ended_before_its_restored_host_heard_of_it() {
        let (offered, renewed) = (record("a", 1), record("a", 2));
        let mut reference = Reference::default();
        let write = |reference: &mut Reference, record: &Record, expires_at: Timestamp| {
            let written = Written { key: record.key(), order: record.order(), expires_at };
            reference.written.entry((record.author, record.seq)).or_default().push(written);
        };
        write(&mut reference, &offered, NOW + LEASE);
        let (key, order) = (offered.key(), offered.order());
        let operation = Operation::Offered("text".into());
        let agent = Acknowledged { operation, step: 1, key, order, unheard: true, exempt: None };
        let exempt =
            |reference: &Reference, agent: &Acknowledged, at: Timestamp| reference.is_exempt(agent, at.0);
        assert!(!exempt(&reference, &agent, NOW) && exempt(&reference, &agent, NOW + LEASE));
        let withdrawn = Acknowledged { operation: Operation::Withdrawn, ..agent.clone() };
        assert!(!exempt(&reference, &withdrawn, NOW + LEASE), "a deletion is kept");
        write(&mut reference, &renewed, NOW + 2 * LEASE);
        assert!(!exempt(&reference, &agent, NOW + LEASE), "somebody holds the renewal");
        let name: AgentName = "a".parse().expect("a label");
        reference.agents.insert((0, name.clone()), agent);
        reference.heard(0, &renewed);
        assert!(!exempt(&reference, &reference.agents[&(0, name)], NOW + 3 * LEASE), "it heard");
    }
}
