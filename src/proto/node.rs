//! The node as a value: every decision of the protocol, and the only place where its machines meet.
//!
//! An interpreter (live or simulated) calls `handle_*` with the time and something that happened, then drains
//! [`Node::poll_output`] and performs the outputs **in order**: a [`Output::Persist`] comes before the publication and
//! the reply it justifies, so nothing is acknowledged or shown before it is durable. [`Node::poll_timeout`] is the one
//! deadline of the whole node. Reads ([`Node::find`] and its like) are answered from memory at any time.
//!
//! Files below: `own` (this node's own writes), `spread` (gossip and beacons), `repair` (sync), `read` (questions).

mod own;
mod read;
mod repair;
mod spread;
mod stored;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use own::{Registered, Withdraw, WriteError};
pub use read::{Found, Replica, Resolution, Standing, ZoneState};
pub use stored::{Damage, Lost, LostVersions, Stored};

use super::card::Offer;
use super::code::Code;
use super::config::Config;
use super::identity::{AgentId, Identity, PeerKey};
use super::index::Index;
use super::liveness::Liveness;
use super::memo::Memo;
use super::name::{FullName, ZoneName};
use super::offence::Offence;
use super::record::{Author, KeyHash, Record, Refusal};
use super::registry::{Quota, Registry};
use super::sync::Sync;
use super::time::Timestamp;

/// Identifies a gossip message towards the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GossipId(pub [u8; 20]);

/// Identifies a conversation that this node drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A local client wants something; the reply carries the same number.
    Command {
        /// Chosen by the interpreter.
        id: u64,
        /// What is wanted.
        command: Command,
    },
    /// A connected peer serves a zone.
    PeerJoined {
        /// Who.
        peer: PeerKey,
        /// Which zone.
        zone: ZoneName,
        /// Who made the connection.
        dialed: Dialed,
    },
    /// A peer no longer serves a zone, or the last connection to it closed.
    PeerLeft {
        /// Who.
        peer: PeerKey,
        /// Which zone; all if none.
        zone: Option<ZoneName>,
    },
    /// A gossip message; answered with a verdict.
    Gossip {
        /// The mesh's name for it.
        id: GossipId,
        /// Who forwarded it.
        peer: PeerKey,
        /// The topic's zone.
        zone: ZoneName,
        /// An encoded envelope.
        bytes: Vec<u8>,
    },
    /// A peer asks on a sync stream; answered with `SyncAnswer` of the same number.
    SyncAsked {
        /// Chosen by the interpreter.
        id: u64,
        /// Who asks.
        peer: PeerKey,
        /// An encoded frame.
        bytes: Vec<u8>,
    },
    /// An answer in a conversation of this node, in the order of its requests.
    SyncAnswered {
        /// Which conversation.
        session: SessionId,
        /// An encoded answer.
        bytes: Vec<u8>,
    },
    /// A conversation broke.
    SyncFailed {
        /// Which.
        session: SessionId,
    },
    /// The process was suspended or frozen for a while: what it missed is asked for at once.
    Resumed,
}

/// Which side made a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialed {
    /// This node.
    ByUs,
    /// The peer.
    ByThem,
}

/// A wish of a local client that changes something.
#[derive(Clone, Debug)]
pub enum Command {
    /// Offer agents.
    Register(Vec<Offer>),
    /// Offer the agents of the configured files, and withdraw those that were configured before and no longer are.
    OfferFiles {
        /// What the files offer.
        offers: Vec<Offer>,
        /// What of the rest goes.
        withdraw: Withdraw,
    },
    /// Withdraw an agent.
    Deregister(FullName),
    /// Say goodbye to all zones.
    Leave,
}

/// Answer to a [`Command`].
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To `Register` and `OfferFiles`: one result an offer, in order.
    Registered(Vec<Result<Registered, WriteError>>),
    /// To `Deregister`.
    Deregistered(Result<Registered, WriteError>),
    /// To `Leave`.
    Left,
}

/// Something to be done, in order.
#[derive(Clone, Debug)]
pub enum Output {
    /// Change the store. Returns when every durable write is on disk.
    Persist(Vec<Write>),
    /// Give a message to the mesh of a zone.
    Publish {
        /// Whose mesh.
        zone: ZoneName,
        /// An encoded envelope.
        bytes: Vec<u8>,
    },
    /// Judge a gossip message.
    Verdict {
        /// Which.
        id: GossipId,
        /// What of it.
        verdict: Verdict,
    },
    /// Ask in a conversation; the first request of a session opens its stream.
    SyncAsk {
        /// Which conversation.
        session: SessionId,
        /// With whom.
        peer: PeerKey,
        /// An encoded frame.
        bytes: Vec<u8>,
    },
    /// A conversation is over: close its stream.
    SyncClose {
        /// Which.
        session: SessionId,
    },
    /// Answer a peer's question.
    SyncAnswer {
        /// The number it came with.
        id: u64,
        /// An encoded answer.
        bytes: Vec<u8>,
    },
    /// Answer a local client.
    Reply {
        /// The number the command came with.
        id: u64,
        /// The answer.
        reply: Reply,
    },
    /// A peer broke the protocol.
    Penalize {
        /// Who.
        peer: PeerKey,
        /// What it did.
        offence: Offence,
    },
    /// Tell whoever watches.
    Event(Event),
}

/// One change of the store, which knows nothing of what it keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Row name.
    pub key: Vec<u8>,
    /// Row value; none removes it.
    pub value: Option<Arc<[u8]>>,
    /// Whether it must be on disk before anything that follows.
    pub durable: bool,
}

/// What the mesh is told of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// New here: forward it.
    Accept,
    /// Nothing new, or not for us: do not forward, blame nobody.
    Ignore,
    /// Forged or malformed: do not forward, blame whoever sent it.
    Reject,
}

/// By which way a record came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// Written here.
    Local,
    /// From the mesh.
    Gossip,
    /// From a conversation with a peer.
    Sync,
    /// From the own store.
    Store,
}

/// What watchers are told.
#[derive(Clone, Debug)]
pub enum Event {
    /// An agent appeared or changed on a host.
    AgentChanged {
        /// The winning record.
        record: Arc<Record>,
        /// How it came.
        via: Via,
    },
    /// An agent left a host.
    AgentRemoved {
        /// The record that stood for it, or its tombstone.
        record: Arc<Record>,
        /// Whether it was deleted; otherwise its lease ended.
        deleted: bool,
    },
    /// A sync of this node ended well.
    Synced {
        /// With whom.
        peer: PeerKey,
        /// Of which zone.
        zone: ZoneName,
        /// Records that came.
        received: usize,
        /// Records that went.
        sent: usize,
    },
    /// Something an operator should know.
    Problem(Problem),
}

/// Something an operator should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// The local clock is off from the median of the bootstrap peers by this many milliseconds.
    ClockUnsafe(i64),
    /// Another process writes under this node's key.
    DuplicateIdentity(FullName),
    /// An author signed two records with one version.
    ForkedAuthor(Author),
    /// The data folder is an older copy of itself; a new epoch was taken.
    RestoredBackup,
}

/// One registry node.
pub struct Node {
    identity: Identity,
    config: Config,
    rng: ChaCha8Rng,
    epoch: u64,
    /// Versions of earlier epochs of this folder that were lost with its last writes.
    former: BTreeMap<u64, LostVersions>,
    zones: BTreeMap<ZoneName, Box<Zone>>,
    index: Index,
    /// The last own write of each key: tombstones too, until they expire.
    own: BTreeMap<KeyHash, Arc<Record>>,
    memo: Memo,
    file_offers: BTreeSet<FullName>,
    corrected_at: BTreeMap<KeyHash, Timestamp>,
    renewals: BTreeSet<(Timestamp, KeyHash)>,
    /// When each own offer is to be renewed: its one entry in `renewals`.
    renewal_of: BTreeMap<KeyHash, Timestamp>,
    syncs: BTreeMap<SessionId, Box<Sync>>,
    next_session: u64,
    /// Clocks of peers minus ours, milliseconds, where something later than their last beacon told them.
    clock_offsets: BTreeMap<PeerKey, i64>,
    refused: BTreeMap<Code, u64>,
    problems: BTreeSet<Problem>,
    outputs: VecDeque<Output>,
    writes: Vec<Write>,
    last_now: Timestamp,
}

/// One replicated zone.
struct Zone {
    member: bool,
    registry: Registry,
    /// Agents with a live card.
    agents: BTreeSet<AgentId>,
    /// Agents whose entry in the index waits, and the time as of which their cards are judged.
    unindexed: BTreeMap<AgentId, Timestamp>,
    liveness: Liveness,
    peers: BTreeSet<PeerKey>,
    /// Last own version.
    seq: u64,
    unpublished: Vec<Arc<Record>>,
    catch_up: BTreeSet<PeerKey>,
    next_sync: Timestamp,
    next_beacon: Timestamp,
    beacon_counter: u64,
    /// Since when some author is known to have written more than is held, and when a sync may be started for it.
    behind_since: Option<Timestamp>,
    behind_after: Timestamp,
    fruitless: u32,
    synced_at: Option<Timestamp>,
}

impl Node {
    /// A node with what its store held. `seed` feeds its random choices; the same inputs then give the same outputs.
    pub fn new(identity: Identity, config: Config, seed: [u8; 32], stored: Stored, now: Timestamp) -> Node {
        Node::with_quota(identity, config, seed, stored, now, Quota::default())
    }

    /// As [`Node::new`], with other quotas; for tests.
    pub fn with_quota(
        identity: Identity,
        config: Config,
        seed: [u8; 32],
        stored: Stored,
        now: Timestamp,
        quota: Quota,
    ) -> Node {
        let mut node = Node {
            identity,
            config,
            rng: ChaCha8Rng::from_seed(seed),
            epoch: 0,
            former: BTreeMap::new(),
            zones: BTreeMap::new(),
            index: Index::new(),
            own: BTreeMap::new(),
            memo: Memo::default(),
            file_offers: BTreeSet::new(),
            corrected_at: BTreeMap::new(),
            renewals: BTreeSet::new(),
            renewal_of: BTreeMap::new(),
            syncs: BTreeMap::new(),
            next_session: 0,
            clock_offsets: BTreeMap::new(),
            refused: BTreeMap::new(),
            problems: BTreeSet::new(),
            outputs: VecDeque::new(),
            writes: Vec::new(),
            last_now: now,
        };
        let members = node.config.zones.clone().into_iter().map(|zone| (zone, true));
        let follows = node.config.follows.clone().into_iter().map(|zone| (zone, false));
        for (name, member) in follows.chain(members) {
            let zone = node.empty_zone(member, quota, now);
            node.zones.insert(name, Box::new(zone));
        }
        node.load(stored, now);
        node.flush();
        node
    }

    /// Changes memos with whoever runs many nodes: lent before a call, taken back after it.
    pub fn lend(&mut self, memo: &mut Memo) {
        std::mem::swap(&mut self.memo, memo);
    }

    /// Takes something that happened.
    pub fn handle(&mut self, now: Timestamp, input: Input) {
        self.observe_clock(now);
        match input {
            Input::Command { id, command } => self.handle_command(now, id, command),
            Input::PeerJoined { peer, zone, dialed } => self.handle_peer_joined(now, peer, &zone, dialed),
            Input::PeerLeft { peer, zone } => self.handle_peer_left(peer, zone.as_ref()),
            Input::Gossip { id, peer, zone, bytes } => self.handle_gossip(now, id, peer, &zone, &bytes),
            Input::SyncAsked { id, peer, bytes } => self.handle_sync_asked(now, id, peer, &bytes),
            Input::SyncAnswered { session, bytes } => self.handle_sync_answered(now, session, &bytes),
            Input::SyncFailed { session } => self.end_sync(now, session, None),
            Input::Resumed => self.handle_resumed(now),
        }
        self.flush();
    }

    /// Lets time pass. May be called at any time; needed when [`Node::poll_timeout`] is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.observe_clock(now);
        self.expire(now);
        self.renew(now);
        self.expire_syncs(now);
        for name in self.zone_names() {
            self.beacon_if_due(now, &name);
            self.sync_if_due(now, &name);
        }
        self.flush();
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Node::handle_timeout`] wants to be called, on the clock that `now` is read from.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let zones = self.zones.iter().flat_map(|(name, zone)| {
            let behind =
                zone.behind_since.map(|since| (since + self.config.behind_patience).max(zone.behind_after));
            let idle = !self.is_syncing(name);
            let sync = (idle && !zone.peers.is_empty()).then_some(zone.next_sync);
            let behind = behind.filter(|_| idle && !zone.peers.is_empty());
            let beacon = zone.member.then_some(zone.next_beacon);
            [sync, behind, beacon, zone.registry.next_lapse()]
        });
        let renewal = self.renewals.first().map(|(at, _)| *at).filter(|_| self.may_renew());
        let syncs = self.syncs.values().map(|sync| sync.started_at + self.config.sync_deadline);
        zones.flatten().chain(renewal).chain(syncs).min()
    }

    /// Key of this node.
    pub fn key(&self) -> PeerKey {
        self.identity.key()
    }

    /// This node as an author.
    pub fn author(&self) -> Author {
        Author { key: self.key(), epoch: self.epoch }
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Refused records since the start, by reason.
    pub fn refused(&self) -> &BTreeMap<Code, u64> {
        &self.refused
    }

    fn empty_zone(&mut self, member: bool, quota: Quota, now: Timestamp) -> Zone {
        let beacon_in = Duration::from_millis(self.rng.random_range(100..1_000));
        Zone {
            member,
            registry: Registry::new(quota),
            agents: BTreeSet::new(),
            unindexed: BTreeMap::new(),
            liveness: Liveness::default(),
            peers: BTreeSet::new(),
            seq: 0,
            unpublished: Vec::new(),
            catch_up: BTreeSet::new(),
            next_sync: now + self.config.sync_interval,
            next_beacon: now + beacon_in,
            beacon_counter: 0,
            behind_since: None,
            behind_after: now,
            fruitless: 0,
            synced_at: None,
        }
    }

    fn handle_command(&mut self, now: Timestamp, id: u64, command: Command) {
        let reply = match command {
            Command::Register(offers) => Reply::Registered(self.register(now, offers)),
            Command::OfferFiles { offers, withdraw } => {
                Reply::Registered(self.offer_files(now, offers, &withdraw))
            }
            Command::Deregister(name) => Reply::Deregistered(self.deregister(now, &name)),
            Command::Leave => {
                self.say_goodbye(now);
                Reply::Left
            }
        };
        self.flush();
        self.outputs.push_back(Output::Reply { id, reply });
    }

    /// Own writes go to the store first, then to the mesh.
    fn flush(&mut self) {
        if !self.writes.is_empty() {
            let writes = std::mem::take(&mut self.writes);
            // Before everything already queued, but for earlier writes: what is shown must be kept first.
            match self.outputs.front_mut() {
                Some(Output::Persist(earlier)) => earlier.extend(writes),
                Some(_) | None => self.outputs.push_front(Output::Persist(writes)),
            }
        }
        self.publish_own();
    }

    /// A clock that goes back must not leave timers in a far future.
    fn observe_clock(&mut self, now: Timestamp) {
        let step = self.last_now.since(now);
        self.last_now = now;
        if step < Duration::from_secs(1) {
            return;
        }
        for zone in self.zones.values_mut() {
            zone.next_sync = zone.next_sync - step;
            zone.next_beacon = zone.next_beacon - step;
            zone.behind_since = zone.behind_since.map(|since| since - step);
            zone.behind_after = zone.behind_after - step;
            zone.synced_at = zone.synced_at.map(|at| at - step);
            zone.liveness.shift(step);
        }
        for sync in self.syncs.values_mut() {
            sync.started_at = sync.started_at - step;
        }
        for at in self.corrected_at.values_mut() {
            *at = *at - step;
        }
        for offset in self.clock_offsets.values_mut() {
            *offset = offset.saturating_add_unsigned(step.as_millis() as u64);
        }
        self.judge_clock();
        self.plan_renewals();
    }

    /// Hides and drops what ended; an own agent whose lease ended is offered again.
    fn expire(&mut self, now: Timestamp) {
        for name in self.zone_names() {
            let Some(zone) = self.zones.get_mut(&name) else { continue };
            let lapses = zone.registry.expire(now);
            for record in lapses.hidden.iter().chain(&lapses.shown) {
                self.reindex(record, now);
            }
            for record in lapses.hidden {
                self.guard_own_key(now, &record.key(), &name);
                if !record.is_tombstone() {
                    self.outputs.push_back(Output::Event(Event::AgentRemoved { record, deleted: false }));
                }
            }
            for record in lapses.dropped {
                self.forget(&record);
            }
        }
    }

    /// Removes the rows of a dropped record; an own offer stays, to be written again.
    fn forget(&mut self, record: &Record) {
        self.writes.push(stored::remove_other(record.key()));
        let own_is_gone = self.own.get(&record.key()).is_some_and(|own| own.is_tombstone());
        if own_is_gone {
            self.own.remove(&record.key());
            self.writes.push(stored::remove_own(record.key()));
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        *self.refused.entry(refusal.code()).or_default() += 1;
    }

    fn report(&mut self, problem: Problem) {
        let strangers = matches!(problem, Problem::ForkedAuthor(_));
        if (!strangers || self.problems.len() < PROBLEMS_MAX) && self.problems.insert(problem.clone()) {
            self.outputs.push_back(Output::Event(Event::Problem(problem)));
        }
    }

    fn zone_names(&self) -> Vec<ZoneName> {
        self.zones.keys().cloned().collect()
    }

    fn is_syncing(&self, zone: &ZoneName) -> bool {
        self.syncs.values().any(|sync| sync.zone == *zone)
    }

    /// `duration` ± 20 %, so that nodes started together drift apart.
    fn jitter(&mut self, duration: Duration) -> Duration {
        duration.mul_f64(self.rng.random_range(0.8..1.2))
    }
}

/// Problems of other authors that are remembered; each is told once. Those of this node are few: one for an own name.
const PROBLEMS_MAX: usize = 256;
