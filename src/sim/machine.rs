//! One simulated computer: a node or the lack of one, its disk, its clock, and what its mesh layer remembers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::disk::{Disk, Rows};
use super::hostile::Malice;
use crate::proto::config::Config;
use crate::proto::identity::{Identity, PeerKey};
use crate::proto::node::{GossipId, Node};
use crate::proto::time::Timestamp;

/// How long the mesh remembers the ids of messages, as in gossipsub, milliseconds.
const SEEN_MS: u64 = 60_000;

/// What a machine finds on its disk when it starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Memory {
    /// What was durable or flushed.
    Disk,
    /// Nothing but its key.
    Lost,
    /// The last backup, if one was made; else the disk. The node is not told.
    Backup,
    /// As `Backup`, and the store has noticed that the last own writes are missing.
    Torn,
}

/// Whether a message is new to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    First,
    Again,
}

/// A copy of a disk.
#[derive(Clone, Debug)]
pub(super) struct Backup {
    pub(super) rows: Rows,
    /// Position in the run at which it was made.
    pub(super) step: u64,
}

impl Backup {
    /// Whether it was made in this epoch.
    pub(super) fn wrote(&self, epoch: u64) -> bool {
        self.rows.get(&b"e"[..]).is_some_and(|row| row[..] == epoch.to_be_bytes())
    }
}

/// A message that waits for its verdict.
pub(super) struct Awaiting {
    pub(super) from: usize,
    pub(super) bytes: Arc<[u8]>,
}

/// One simulated computer.
pub(super) struct Machine {
    pub(super) identity: Identity,
    pub(super) key: PeerKey,
    pub(super) config: Config,
    /// None while it is down.
    pub(super) node: Option<Node>,
    /// Counts starts and stops, so that what was meant for an earlier run does not reach a later one.
    pub(super) incarnation: u64,
    pub(super) disk: Disk,
    pub(super) backup: Option<Backup>,
    /// Constant error of its clock, milliseconds.
    pub(super) skew_ms: i64,
    /// Present error beyond the constant one, milliseconds.
    pub(super) jump_ms: i64,
    /// The greatest time its clock showed in this run.
    pub(super) wall_max: Timestamp,
    /// Nothing happens here before this virtual time.
    pub(super) suspended_until: u64,
    /// When its timer fires, and which of the scheduled timers counts.
    pub(super) timer_at: Option<u64>,
    pub(super) timer_generation: u64,
    /// Timers that fired at one and the same time.
    pub(super) timers_now: (u64, u32),
    pub(super) awaiting: BTreeMap<GossipId, Awaiting>,
    pub(super) malice: Malice,
    seen: BTreeSet<GossipId>,
    seen_order: VecDeque<(u64, GossipId)>,
}

impl Machine {
    pub(super) fn new(identity: Identity, config: Config, skew_ms: i64) -> Machine {
        Machine {
            key: identity.key(),
            identity,
            config,
            node: None,
            incarnation: 0,
            disk: Disk::default(),
            backup: None,
            skew_ms,
            jump_ms: 0,
            wall_max: Timestamp::default(),
            suspended_until: 0,
            timer_at: None,
            timer_generation: 0,
            timers_now: (0, 0),
            awaiting: BTreeMap::new(),
            malice: Malice::default(),
            seen: BTreeSet::new(),
            seen_order: VecDeque::new(),
        }
    }

    /// What its clock shows when the true time is `wall`.
    pub(super) fn clock(&mut self, wall: u64) -> Timestamp {
        let shown = Timestamp(wall.saturating_add_signed(self.skew_ms).saturating_add_signed(self.jump_ms));
        self.wall_max = self.wall_max.max(shown);
        shown
    }

    /// The process ends; what the disk keeps is decided by the caller.
    pub(super) fn stop(&mut self) {
        self.node = None;
        self.incarnation += 1;
        self.timer_at = None;
        self.timer_generation += 1;
        self.awaiting.clear();
        self.seen.clear();
        self.seen_order.clear();
    }

    /// Notes a message id.
    pub(super) fn see(&mut self, now: u64, id: GossipId) -> Seen {
        while let Some((_, old)) = self.seen_order.pop_front_if(|(at, _)| *at + SEEN_MS <= now) {
            self.seen.remove(&old);
        }
        if !self.seen.insert(id) {
            return Seen::Again;
        }
        self.seen_order.push_back((now, id));
        Seen::First
    }
}
