//! One simulated computer: a node or the lack of one, its disk, its clock.

use super::adversary::AdversaryState;
use super::disk::{Disk, Rows};
use crate::proto::config::Config;
use crate::proto::identity::{Identity, PeerKey};
use crate::proto::node::Node;
use crate::proto::time::Timestamp;

/// What a machine finds on its disk when it starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RestartFrom {
    /// What was durable or flushed.
    Disk,
    /// Nothing but its key.
    Lost,
    /// The last backup, if one was made; else the disk. The node is not told.
    Backup,
    /// As `Backup`, and the store has noticed that the last own writes are missing.
    Torn,
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

/// One simulated computer.
pub(super) struct SimNode {
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
    pub(super) adversary: AdversaryState,
}

impl SimNode {
    pub(super) fn new(identity: Identity, config: Config, skew_ms: i64) -> SimNode {
        SimNode {
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
            adversary: AdversaryState::default(),
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
    }
}
