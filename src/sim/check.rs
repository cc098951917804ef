//! What must hold, and a reference model of what clients were told.
//!
//! Some checks run with every output (order, durability, blame), some every few seconds (vectors, no step back), the
//! rest once the world is repaired and quiet (agreement, no zombie, no lost write). Each is named; each exemption is an
//! [`Exemption`] with its reason.

mod rights;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::World;
use super::hostile::Conduct;
use super::machine::{Machine, Memory};
use super::workload::full_name;
use crate::proto::card::Scope;
use crate::proto::config::STAMP_AHEAD_MAX;
use crate::proto::identity::{AgentId, PeerKey};
use crate::proto::message::Envelope;
use crate::proto::name::{AgentName, ZoneName};
use crate::proto::node::{Event, Node, Reply, Write};
use crate::proto::record::{Author, Header, KeyHash, Kind, Order, Record, RecordHash, SignedRecord};
use crate::proto::time::{Stamp, Timestamp};

/// Records that end within this are not compared: some hold them and some do not, rightly.
const ENDING_MS: u64 = 120_000;
/// Records stamped further ahead than this may be refused by a clock a little behind: less than the time bound by more
/// than twice the largest skew.
const DUE_MS: u64 = 50_000;

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
    /// Outputs end, timers do not spin, nothing waits for ever.
    QueuesBounded,
    /// Sent is delivered, dropped by plan or on its way.
    MessagesConserved,
    /// Nobody honest is blamed by anybody honest.
    NobodyBlamed,
    /// What is held of an author, and in all, is within the quotas.
    WithinQuota,
    /// Who holds two records of one version has told of the fork.
    ForksShown,
    /// What is served in the name of a host is what it offers.
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

#[derive(Clone, Debug)]
struct Acknowledged {
    operation: Operation,
    step: u64,
    key: KeyHash,
    /// The record it made.
    order: Order,
    exempt: Option<Exemption>,
}

/// One own write of some node.
#[derive(Clone, Copy, Debug)]
struct Written {
    key: KeyHash,
    order: Order,
    expires_at: Timestamp,
}

/// What a node held of a key when it was last looked at.
type Held = BTreeMap<KeyHash, (Order, Timestamp)>;

/// What clients were told, and what was ever written.
#[derive(Default)]
pub(super) struct Reference {
    pub(super) acknowledged: u64,
    pub(super) refused: BTreeMap<&'static str, u64>,
    agents: BTreeMap<(usize, AgentName), Acknowledged>,
    /// Forked authors write one version twice.
    written: BTreeMap<(Author, u64), Vec<Written>>,
    verified: BTreeSet<RecordHash>,
    held: BTreeMap<usize, Held>,
    /// Tombstones that each node took in its present run.
    buried: BTreeMap<usize, BTreeMap<KeyHash, Order>>,
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

    /// Whether the author of a record wrote another one with the same version.
    fn is_forked(&self, order: &Order) -> bool {
        let versions = self.written.range((order.author, 0)..=(order.author, u64::MAX));
        versions.map(|(_, written)| written).any(|written| {
            written.iter().any(|it| it.order.hash == order.hash)
                && written.iter().any(|it| it.order.hash != order.hash)
        })
    }

    /// A machine stopped: what it held in memory is gone.
    pub(super) fn stopped(&mut self, at: usize) {
        self.held.remove(&at);
        self.buried.remove(&at);
    }

    /// A machine is about to start with less than it knew.
    pub(super) fn started(&mut self, at: usize, memory: Memory, machines: &[Machine]) {
        let backup = machines[at].backup.as_ref();
        for ((host, _), agent) in &mut self.agents {
            if *host != at || agent.exempt.is_some() {
                continue;
            }
            let forgotten = match (memory, backup) {
                (Memory::Lost, _) => agent.operation != Operation::Withdrawn,
                (Memory::Backup | Memory::Torn, Some(backup)) => {
                    let wrote = backup.wrote(agent.order.author.epoch);
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
    let nodes = honest.filter_map(|machine| machine.node.as_ref());
    nodes
        .flat_map(|node| node.records(&root))
        .any(|record| record.key() == agent.key && record.order() >= agent.order)
}

impl World {
    /// A node writes a row: own records are remembered for later checks.
    pub(super) fn note_write(&mut self, at: usize, write: &Write) {
        let machine = &self.machines[at];
        let (Some(b'o'), Some(value)) = (write.key.first(), &write.value) else { return };
        let Ok(signed) = SignedRecord::parse(value, &machine.config.network) else {
            return self.fail(Check::Verified, format!("machine {at} writes a row that is no record"));
        };
        let author = signed.header().author;
        let record = signed.trust_sealed();
        let written = Written { key: record.key(), order: record.order(), expires_at: record.expires_at };
        if author.key == machine.key {
            self.reference.written.entry((author, record.seq)).or_default().push(written);
        }
    }

    /// A node publishes: its own records must have been written before.
    pub(super) fn check_persisted(&mut self, at: usize, bytes: &[u8]) {
        let Ok(Envelope::Records(records)) = Envelope::decode(bytes) else { return };
        let Some(author) = self.machines[at].node.as_ref().map(|node| node.author()) else { return };
        for bytes in records {
            let Ok(signed) = SignedRecord::parse(&bytes, &self.machines[at].config.network) else {
                return self.fail(Check::Verified, format!("machine {at} publishes what is no record"));
            };
            let version = (signed.header().author, signed.header().seq);
            let written = self.reference.written.get(&version).into_iter().flatten();
            if version.0 == author && !written.into_iter().any(|it| it.order.hash == signed.hash()) {
                return self
                    .fail(Check::PersistFirst, format!("machine {at} publishes version {}", version.1));
            }
        }
    }

    /// A node tells of a change: what it took must not be ahead of its clock, and not be what it knew to be deleted.
    pub(super) fn check_event(&mut self, at: usize, event: &Event) {
        let (Event::AgentChanged { record, .. } | Event::AgentRemoved { record, deleted: true }) = event
        else {
            return;
        };
        let wall = self.wall();
        let machine = &mut self.machines[at];
        if record.stamp.wall > machine.clock(wall) + STAMP_AHEAD_MAX {
            self.fail(Check::TimeBound, format!("machine {at} takes {record:?}"));
        } else if record.is_tombstone() {
            self.reference.buried.entry(at).or_default().insert(record.key(), record.order());
        } else {
            // A lease that had ended on this clock before it went back may show again until the tombstone comes too.
            let ended = record.expires_at <= machine.wall_max;
            let buried = self.reference.buried.get(&at).and_then(|buried| buried.get(&record.key()));
            if !ended && buried.is_some_and(|tombstone| *tombstone > record.order()) {
                self.fail(Check::NoZombie, format!("machine {at} forgot a tombstone and takes {record:?}"));
            }
        }
    }

    /// A client is told: from now on it is a promise.
    pub(super) fn note_reply(&mut self, at: usize, id: u64, reply: Reply) {
        let operations = self.reference.pending.remove(&id).unwrap_or_default();
        let results = match reply {
            Reply::Registered(results) => results,
            Reply::Deregistered(result) => vec![result],
            Reply::Left => Vec::new(),
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
        let row = self.machines[at].disk.rows().get(&[b"o", &key.0[..]].concat()).cloned();
        let kept = row.and_then(|row| SignedRecord::parse(&row, &self.machines[at].config.network).ok());
        let kept = kept.map(SignedRecord::trust_sealed);
        let is_kept = match (&operation, &kept) {
            (Operation::Offered(text), Some(kept)) => {
                kept.card().is_some_and(|card| card.description == *text)
            }
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
            let agent = Acknowledged { operation, step, key, order, exempt: None };
            self.reference.agents.insert((at, name), agent);
        }
    }

    /// What must hold at any time.
    pub(super) fn check_always(&mut self) {
        for at in self.honest() {
            self.check_machine(at);
            self.check_quota(at);
        }
        self.check_signatures();
        self.check_messages();
    }

    fn check_machine(&mut self, at: usize) {
        let machine = &self.machines[at];
        let wall_max = machine.wall_max;
        let Some(node) = machine.node.as_ref() else { return };
        let held = held_by(node);
        let before = self.reference.held.insert(at, held.clone()).unwrap_or_default();
        let back = before.iter().find(|(key, (order, expires_at))| {
            *expires_at > wall_max
                && held.get(key).is_none_or(|(held, _)| held < order)
                && !self.is_evicted(at, **key, order, &held)
        });
        if let Some((key, before)) = back {
            let detail = format!("machine {at} held {before:?}, now {:?}", held.get(key));
            self.fail(Check::NoStepBack, detail);
        }
        if !self.is_lied_to() {
            self.check_versions(at);
        }
    }

    /// What a machine claims to have seen of honest authors. Where somebody lies it holds only once all agree: a peer that
    /// names the asker's own root is believed, and what the asker lacks comes with the next comparison.
    fn check_versions(&mut self, at: usize) {
        let wall = self.wall();
        let machine = &mut self.machines[at];
        let (now, wall_max) = (machine.clock(wall), machine.wall_max);
        let Some(node) = machine.node.as_mut() else { return };
        let held = held_by(node);
        let claims: Vec<(Author, u64)> =
            node.zone_states(now).into_iter().flat_map(|zone| zone.versions).collect();
        for (author, prefix) in claims.into_iter().filter(|(author, _)| self.is_honest_key(&author.key)) {
            if let Some(seq) = (1..=prefix).find(|seq| !self.is_covered(author, *seq, &held, wall_max)) {
                let whose = self.by_key.get(&author.key);
                let detail =
                    format!("machine {at} claims {prefix} versions of machine {whose:?} and lacks {seq}");
                return self.fail(Check::VectorIsTrue, detail);
            }
        }
    }

    fn is_covered(&self, author: Author, seq: u64, held: &Held, wall_max: Timestamp) -> bool {
        let written = self.reference.written.get(&(author, seq)).into_iter().flatten();
        written.into_iter().any(|written| {
            written.expires_at <= wall_max
                || self.is_untold(written)
                || held.get(&written.key).is_some_and(|(order, _)| *order >= written.order)
                || self.was_superseded(written, wall_max)
        })
    }

    /// Whether a liar's word may stand for a write: one that nobody else may hold before it is due.
    fn is_untold(&self, written: &Written) -> bool {
        self.is_lied_to() && written.order.stamp.wall.0 > self.wall() + DUE_MS
    }

    /// Whether something greater stood under the key and has ended since: a card may replace a tombstone that would
    /// have lived longer.
    fn was_superseded(&self, lost: &Written, wall_max: Timestamp) -> bool {
        let mut written = self.reference.written.values().flatten();
        written.any(|it| it.key == lost.key && it.order > lost.order && it.expires_at <= wall_max)
    }

    /// What must hold once the world is repaired and quiet.
    pub(super) fn check_settled(&mut self) {
        self.check_always();
        self.check_agreement();
        for at in self.honest() {
            self.check_versions(at);
            self.check_forks(at);
            self.check_own_keys(at);
        }
        let agents: Vec<((usize, AgentName), Acknowledged)> =
            self.reference.agents.iter().map(|(name, agent)| (name.clone(), agent.clone())).collect();
        for ((host, name), agent) in agents {
            for at in if self.is_honest(host) { self.honest() } else { Vec::new() } {
                self.check_agent(at, host, &name, &agent);
            }
        }
    }

    /// Everybody serves what was last promised of an agent. Exempt is also a write whose version its author used twice,
    /// as a restored backup does that writes before it hears of its own head: the node sees and shows the fork, and
    /// cannot know which of the two was its own.
    fn check_agent(&mut self, at: usize, host: usize, name: &AgentName, agent: &Acknowledged) {
        if agent.exempt.is_some() || self.reference.is_forked(&agent.order) {
            return;
        }
        let id = AgentId::of(self.machines[host].key, &full_name(name.clone()));
        let due_until = Timestamp(self.wall() + DUE_MS);
        let own = self.machines[host].node.as_ref().and_then(|node| {
            node.records(&ZoneName::root()).find(|record| record.key() == agent.key).cloned()
        });
        // Written with a clock ahead: refused elsewhere until it is due.
        let due = own.as_ref().is_none_or(|own| own.stamp.wall <= due_until);
        let Some((node, now)) = self.node(at) else { return };
        let served = node.agent(now, &id);
        let text = served.as_ref().map(|found| found.card().description);
        let seen = served.map(|found| found.record);
        match &agent.operation {
            Operation::Withdrawn if seen.is_some() && (due || at == host) => {
                let detail =
                    format!("machine {at} serves {name} of machine {host}: {seen:?}; host has {own:?}");
                self.fail(Check::NoZombie, detail);
            }
            Operation::Offered(promised) if text.as_ref() != Some(promised) && (due || at == host) => {
                let detail = format!(
                    "machine {at} serves {seen:?} ({text:?}) for {name} of machine {host}, not {promised:?}; host has {own:?}"
                );
                self.fail(Check::NoLostWrite, detail);
            }
            Operation::Withdrawn | Operation::Offered(_) => {}
        }
    }

    fn check_agreement(&mut self) {
        let wall = self.wall();
        let root = ZoneName::root();
        let comparable = |record: &Record| record.is_public() && record.expires_at.0 > wall + ENDING_MS;
        let held: Vec<BTreeMap<KeyHash, &Record>> = self
            .honest()
            .into_iter()
            .filter_map(|at| self.machines[at].node.as_ref())
            .map(|node| node.records(&root))
            .map(|records| records.map(|record| (record.key(), &**record)).collect())
            .collect();
        let ahead: BTreeSet<KeyHash> = held
            .iter()
            .flat_map(|held| held.values().filter(|record| record.stamp.wall.0 > wall + DUE_MS))
            .map(|record| record.key())
            .collect();
        let views: Vec<BTreeMap<KeyHash, &Record>> = held
            .into_iter()
            .map(|held| held.into_iter().filter(|(key, it)| comparable(it) && !ahead.contains(key)).collect())
            .collect();
        let differ = views.windows(2).enumerate().find_map(|(at, pair)| {
            let keys: BTreeSet<&KeyHash> = pair[0].keys().chain(pair[1].keys()).collect();
            let key = keys.into_iter().find(|key| pair[0].get(key) != pair[1].get(key))?;
            Some(format!(
                "of {at} and its next, one holds {:?}, one {:?}",
                pair[0].get(key),
                pair[1].get(key)
            ))
        });
        match differ {
            Some(detail) => self.fail(Check::Agreement, detail),
            None if ahead.is_empty() => self.check_fingerprints(),
            None => {}
        }
    }

    fn check_fingerprints(&mut self) {
        let mut roots = BTreeSet::new();
        for at in self.honest() {
            if let Some((node, now)) = self.node(at) {
                roots.extend(node.zone_states(now).into_iter().map(|zone| (zone.as_of, zone.fingerprint.0)));
            }
        }
        if roots.len() > 1 {
            self.fail(Check::Agreement, format!("{} fingerprints of equal registries", roots.len()));
        }
    }

    fn check_signatures(&mut self) {
        let network = self.machines[0].config.network.clone();
        let nodes = self.honest().into_iter().filter_map(|at| self.machines[at].node.as_ref());
        let (mut forged, root) = (None, ZoneName::root());
        for record in nodes.flat_map(|node| node.records(&root)) {
            if !self.reference.verified.insert(record.hash()) {
                continue;
            }
            let signed = SignedRecord::parse(record.bytes(), &network);
            if !signed.is_ok_and(|signed| signed.verify(record.stamp.wall).is_ok()) {
                forged = Some(format!("{record:?} is held and does not verify"));
            }
        }
        if let Some(detail) = forged {
            self.fail(Check::Verified, detail);
        }
    }
}

fn held_by(node: &Node) -> Held {
    let root = ZoneName::root();
    node.records(&root).map(|record| (record.key(), (record.order(), record.expires_at))).collect()
}

/// Key of an agent that its host owns.
fn key_of(host: PeerKey, name: &AgentName) -> KeyHash {
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
    .key()
}
