//! The reference model: what clients were told, and what nodes ever wrote.

use std::collections::{BTreeMap, BTreeSet};

use crate::proto::card::Scope;
use crate::proto::identity::PeerKey;
use crate::proto::limits::SLOTS_UNKNOWN_FROM;
use crate::proto::name::{FullName, ZoneName};
use crate::proto::record::{Author, Header, KeyHash, Order, Precedence, Record, RecordKind, Shelf};
use crate::proto::time::{Stamp, Timestamp};
use crate::sim::nodes::Nodes;
use crate::sim::sim_node::RestartFrom;

/// What a client asked for and was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sim) enum Operation {
    /// Offered with this description.
    Offered(String),
    /// Withdrawn.
    Withdrawn,
}

/// Why the last acknowledged operation of a host need not show any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exemption {
    /// The host lost its disk, and no running node knew of the operation.
    DiskLost,
    /// The host's disk went back to before the operation, and no running node knew of it, or the restored folder
    /// never had the epoch of the operation and cannot tell it from another's.
    BackupIsOlder,
    /// A new folder wrote it, with a clock behind the last stamp that an earlier one had put under the key.
    Outstamped,
    /// The host left the zone while its clock forbade it to write: what it offered there ends with its lease.
    LeftUnwritten,
}

/// The last operation on an agent that its client was told of.
#[derive(Clone, Debug)]
pub(super) struct Acknowledged {
    pub(super) operation: Operation,
    pub(super) step: u64,
    pub(super) key: KeyHash,
    /// The record it made.
    pub(super) order: Order,
    /// The host's disk went back to before it, and nobody has told the host yet.
    pub(super) unheard: bool,
    /// The host lost its disk since: what it offered ends with its lease, unless it is told again.
    pub(super) lapses: bool,
    pub(super) exempt: Option<Exemption>,
    /// The host withdrew it and left the zone: only those who heard know of that.
    pub(super) left: bool,
}

/// What a client was told of an agent at some time.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim) struct Word {
    /// When, virtual milliseconds.
    pub(in crate::sim) at_ms: u64,
    /// Whether it was offered; else it was withdrawn.
    pub(in crate::sim) is_offered: bool,
    /// The key of its record.
    pub(in crate::sim) key: KeyHash,
    /// The record that was made.
    pub(in crate::sim) order: Order,
}

/// All that clients were told of an agent of one host.
pub(in crate::sim) struct History<'a> {
    pub(in crate::sim) host: usize,
    pub(in crate::sim) name: &'a FullName,
    /// The first word first.
    pub(in crate::sim) words: &'a [Word],
    /// Whether the last word need not show.
    pub(in crate::sim) is_exempt: bool,
    /// Whether the host forgot what it wrote, so that something older may show.
    pub(in crate::sim) is_forgotten: bool,
}

/// One own write of some node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) key: KeyHash,
    pub(super) order: Order,
    pub(super) precedence: Precedence,
    place: (Shelf, u16),
    pub(super) expires_at: Timestamp,
}

/// What was written to one zone, by author and version. Forked authors write one version twice.
type Versions = BTreeMap<(Author, u64), Vec<Written>>;

impl Written {
    /// Whether it makes room first: written before its host knew which slots are free.
    pub(super) fn stands_last(&self) -> bool {
        self.place.1 >= SLOTS_UNKNOWN_FROM
    }
}

/// What clients were told, and what was ever written.
#[derive(Default)]
pub struct ReferenceModel {
    /// Acknowledged writes.
    pub acknowledged: u64,
    /// Refused writes, by code.
    pub refused: BTreeMap<&'static str, u64>,
    /// By the host's number and the agent's name.
    pub(super) agents: BTreeMap<(usize, FullName), Acknowledged>,
    words: BTreeMap<(usize, FullName), Vec<Word>>,
    written: BTreeMap<ZoneName, Versions>,
    /// Nodes whose disk went back to a backup at some time.
    restored: BTreeSet<usize>,
    /// The last key that was put into each slot, and until when one may stand there.
    slots: BTreeMap<(ZoneName, (Shelf, u16)), (KeyHash, Timestamp)>,
    /// Slots into which a host put two keys.
    contested: BTreeSet<(ZoneName, (Shelf, u16))>,
    pending: BTreeMap<u64, Vec<(FullName, Operation)>>,
    next_id: u64,
    /// When the grants of zones with keys end, and with them all that is offered there.
    pub(super) grants_end: BTreeMap<ZoneName, Timestamp>,
}

impl ReferenceModel {
    /// A command with these operations is about to be given; returns its number.
    pub(in crate::sim) fn expect_reply(&mut self, operations: Vec<(FullName, Operation)>) -> u64 {
        self.next_id += 1;
        self.pending.insert(self.next_id, operations);
        self.next_id
    }

    /// What the command of a number was to do.
    pub(super) fn take_pending(&mut self, id: u64) -> Vec<(FullName, Operation)> {
        self.pending.remove(&id).unwrap_or_default()
    }

    /// A client was told that its operation is done; of what the host then held under the agent's key, key and order.
    pub(super) fn acknowledge(
        &mut self,
        agent: (usize, FullName),
        operation: Operation,
        (key, order): (KeyHash, Option<Order>),
        (at_ms, step): (u64, u64),
    ) {
        self.acknowledged += 1;
        if let Some(order) = order {
            let is_offered = matches!(operation, Operation::Offered(_));
            self.words.entry(agent.clone()).or_default().push(Word { at_ms, is_offered, key, order });
            let (unheard, lapses, left) = (false, false, false);
            let is_before = |it: &Written| {
                it.key == key && it.order.author.epoch != order.author.epoch && it.order > order
            };
            let exempt = self.all_written(&agent.1.zone).any(is_before).then_some(Exemption::Outstamped);
            let acknowledged = Acknowledged { operation, step, key, order, unheard, lapses, exempt, left };
            self.agents.insert(agent, acknowledged);
        }
    }

    /// What clients were told of each agent, by its host's number and its name.
    pub(in crate::sim) fn histories(&self) -> impl Iterator<Item = History<'_>> {
        self.words.iter().map(|((host, name), words)| {
            let last = self.agents.get(&(*host, name.clone()));
            let is_exempt = last.is_none_or(|it| it.exempt.is_some() || it.left);
            let is_forgotten = is_exempt || last.is_some_and(|it| it.unheard || it.lapses);
            History { host: *host, name, words, is_exempt, is_forgotten }
        })
    }

    /// A node wrote an own record. Whether it may: one version is written once, unless a disk went back.
    pub(super) fn note_write(&mut self, at: usize, record: &Record) -> bool {
        let written = Written {
            key: record.key(),
            order: record.order(),
            precedence: record.precedence(),
            place: (record.shelf(), record.slot),
            expires_at: record.expires_at,
        };
        let place = (record.name.zone.clone(), written.place);
        let (key, until) = self.slots.entry(place.clone()).or_insert((written.key, record.expires_at));
        // A folder that forgot what it wrote may put two keys into one slot; then one of them has no room.
        if *key != written.key && *until > record.stamp.wall {
            self.contested.insert(place);
        }
        (*key, *until) = (written.key, record.expires_at.max(*until));
        let of_zone = self.written.entry(record.name.zone.clone()).or_default();
        let writes = of_zone.entry((record.author(), record.seq)).or_default();
        let differ = writes.iter().any(|it| it.order.hash != written.order.hash);
        writes.push(written);
        !differ || self.restored.contains(&at)
    }

    /// What an author wrote to a zone with a version.
    pub(super) fn written(
        &self,
        zone: &ZoneName,
        author: Author,
        seq: u64,
    ) -> impl Iterator<Item = &Written> {
        self.written.get(zone).and_then(|of_zone| of_zone.get(&(author, seq))).into_iter().flatten()
    }

    /// Everything that was written to a zone.
    pub(super) fn all_written(&self, zone: &ZoneName) -> impl Iterator<Item = &Written> {
        self.written.get(zone).into_iter().flat_map(BTreeMap::values).flatten()
    }

    /// Whether a record may have no room because its host put another key into its slot.
    pub(super) fn is_contested(&self, record: &Record) -> bool {
        self.contested.contains(&(record.name.zone.clone(), (record.shelf(), record.slot)))
    }

    /// As [`ReferenceModel::is_contested`], of what a node wrote.
    pub(super) fn was_contested(&self, zone: &ZoneName, written: &Written) -> bool {
        self.contested.contains(&(zone.clone(), written.place))
    }

    /// Records that nodes wrote: offers, withdrawals and renewals.
    pub fn writes(&self) -> usize {
        self.written.values().flat_map(BTreeMap::values).map(Vec::len).sum()
    }

    /// Keys of agents that were withdrawn last.
    pub fn withdrawn(&self) -> BTreeSet<KeyHash> {
        let withdrawn = self.agents.values().filter(|agent| agent.operation == Operation::Withdrawn);
        withdrawn.map(|agent| agent.key).collect()
    }

    fn by_author(&self, zone: &ZoneName, author: Author) -> impl Iterator<Item = &Vec<Written>> {
        let of_zone = self.written.get(zone).into_iter();
        of_zone.flat_map(move |it| it.range((author, 0)..=(author, u64::MAX))).map(|(_, written)| written)
    }

    /// Whether the author of a record wrote another one with the same version.
    pub(super) fn is_forked(&self, zone: &ZoneName, order: &Order) -> bool {
        self.by_author(zone, order.author).any(|written| {
            written.iter().any(|it| it.order.hash == order.hash)
                && written.iter().any(|it| it.order.hash != order.hash)
        })
    }

    /// A host holds a record of its own agent: perhaps what it wrote before its disk went back, or a renewal of it.
    pub(super) fn heard(&mut self, host: usize, record: &Record) {
        let agent = self.agents.get_mut(&(host, record.name.clone()));
        // A record of another epoch does not show that this one was heard of.
        let agent = agent.filter(|it| it.key == record.key() && it.order.author == record.author());
        if let Some(agent) = agent.filter(|it| it.order <= record.order()) {
            agent.unheard = false;
        }
    }

    /// Whether an operation need not show when the true time is `wall`: by an exemption, after its grant, or as an offer whose
    /// every lease ended before anybody could tell the host of it, as when everybody sleeps for a week.
    pub(super) fn is_exempt(&self, zone: &ZoneName, agent: &Acknowledged, wall: u64) -> bool {
        // What the host wrote since in a new epoch follows from what its disk went back to.
        let of_epoch = self.by_author(zone, agent.order.author);
        let mut leases = of_epoch.flatten().filter(|it| it.key == agent.key && it.order >= agent.order);
        agent.exempt.is_some()
            || self.grants_end.get(zone).is_some_and(|end| end.0 <= wall)
            || (agent.unheard || agent.lapses)
                && matches!(agent.operation, Operation::Offered(_))
                && leases.all(|it| it.expires_at.0 <= wall)
    }

    /// A host left a zone: its agents there are withdrawn, as far as it could write so.
    pub(super) fn left(&mut self, at: usize, zone: &ZoneName, nodes: &Nodes) {
        for ((host, name), agent) in &mut self.agents {
            if *host != at || name.zone != *zone {
                continue;
            }
            match nodes[at].own_record(&agent.key).filter(|kept| kept.is_tombstone()) {
                Some(tombstone) => {
                    (agent.operation, agent.order, agent.left) =
                        (Operation::Withdrawn, tombstone.order(), true);
                }
                None if agent.operation == Operation::Withdrawn => agent.left = true,
                None => agent.exempt = Some(Exemption::LeftUnwritten),
            }
        }
    }

    /// A node is about to start with less than it knew.
    pub(super) fn started(&mut self, at: usize, from: RestartFrom, nodes: &Nodes) {
        let backup = nodes[at].backup.as_ref();
        if matches!(from, RestartFrom::Backup | RestartFrom::Torn) && backup.is_some() {
            self.restored.insert(at);
        }
        for ((host, name), agent) in &mut self.agents {
            // An exemption stands until another operation is acknowledged.
            if *host != at || agent.exempt.is_some() {
                continue;
            }
            let forgotten = match (from, backup) {
                (RestartFrom::Lost, _) => {
                    agent.lapses = true;
                    !is_known(&name.zone, agent, nodes)
                }
                (RestartFrom::Backup | RestartFrom::Torn, Some(backup)) => {
                    let wrote = backup.wrote(agent.order.author.epoch);
                    // Whoever restored an old disk has forgotten it, and may hear of it from others until every lease has ended.
                    agent.unheard |= agent.step > backup.step;
                    agent.step > backup.step && !(wrote && is_known(&name.zone, agent, nodes))
                }
                (RestartFrom::Disk | RestartFrom::Backup | RestartFrom::Torn, _) => false,
            };
            let exemption =
                if from == RestartFrom::Lost { Exemption::DiskLost } else { Exemption::BackupIsOlder };
            agent.exempt = forgotten.then_some(exemption);
        }
    }
}

/// Whether some running node holds what an operation wrote, or something greater.
pub(super) fn is_known(zone: &ZoneName, agent: &Acknowledged, nodes: &Nodes) -> bool {
    let mut nodes = nodes.running();
    nodes.any(|(_, node)| node.record(zone, &agent.key).is_some_and(|record| record.order() >= agent.order))
}

/// Key of an agent that its host owns.
pub(super) fn key_of(host: PeerKey, name: &FullName) -> KeyHash {
    header_of(host, name).key()
}

/// The least that a header of an agent says.
pub(super) fn header_of(host: PeerKey, name: &FullName) -> Header {
    Header {
        network: String::new(),
        zone: name.zone.clone(),
        kind: RecordKind::Agent,
        name: name.agent.clone(),
        owner: host,
        host,
        author: Author { key: host, epoch: 0 },
        seq: 0,
        stamp: Stamp::default(),
        generation: 0,
        expires_at: Timestamp::default(),
        scope: Scope::Public,
        slot: 0,
        grants: Vec::new(),
    }
}
