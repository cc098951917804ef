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

use super::code::Code;
use super::config::Config;
use super::identity::{AgentId, Identity, PeerKey};
use super::index::Index;
use super::io::{
    Command, ConversationId, Dialed, Event, GossipId, Input, NodeAlert, Offence, Output, Protocol, Reply,
    Verdict, Via, Write,
};
use super::liveness::Liveness;
use super::memo::Memo;
use super::name::{FullName, ZoneName};
use super::record::{Author, KeyHash, Record, Refusal};
use super::registry::{Quota, Registry};
use super::sync::Sync;
use super::time::Timestamp;

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
    syncs: BTreeMap<ConversationId, Box<Sync>>,
    next_conversation: u64,
    /// Clocks of peers minus ours, milliseconds, where something later than their last beacon told them.
    clock_offsets: BTreeMap<PeerKey, i64>,
    refused: BTreeMap<Code, u64>,
    problems: BTreeSet<NodeAlert>,
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
            next_conversation: 0,
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
            Input::Request { id, peer, protocol: Protocol::Sync, bytes } => {
                self.handle_sync_request(now, id, peer, &bytes)
            }
            Input::Response { conversation, bytes } => self.handle_sync_response(now, conversation, &bytes),
            Input::RequestFailed { conversation } => self.end_sync(now, conversation, None),
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

    fn report(&mut self, problem: NodeAlert) {
        let strangers = matches!(problem, NodeAlert::ForkedAuthor(_));
        if (!strangers || self.problems.len() < PROBLEMS_MAX) && self.problems.insert(problem.clone()) {
            self.outputs.push_back(Output::Event(Event::Alert(problem)));
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
