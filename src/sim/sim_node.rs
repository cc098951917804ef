//! One simulated host: a node or the lack of one, its disk, its clock, its timer.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_bytes::ByteBuf;

use super::adversary::Behaviour;
use super::clock::NodeClock;
use super::disk::{Disk, Rows};
use crate::proto::config::Config;
use crate::proto::identity::{Identity, PeerKey};
use crate::proto::name::ZoneName;
use crate::proto::node::Node;
use crate::proto::record::{KeyHash, Record, SignedRecord};
use crate::proto::time::Timestamp;

/// Times a timer may fire in one millisecond; an honest node asks for one or two.
const TIMERS_MAX: u32 = 100;

/// What a node finds on its disk when it starts again.
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

/// One simulated host.
pub(super) struct SimNode {
    pub(super) identity: Identity,
    pub(super) key: PeerKey,
    pub(super) config: Config,
    /// The grants by which its clients offer agents in zones with keys.
    pub(super) grants: BTreeMap<ZoneName, ByteBuf>,
    /// None while it is down.
    pub(super) node: Option<Node>,
    /// Counts starts and stops, so that what was meant for an earlier run does not reach a later one.
    pub(super) incarnation: u64,
    pub(super) disk: Disk,
    pub(super) backup: Option<Backup>,
    pub(super) clock: NodeClock,
    /// Nothing happens here before this virtual time.
    pub(super) suspended_until: u64,
    pub(super) behaviour: Behaviour,
    /// Zones in whose mesh it is while it runs, and since when.
    pub(super) zones: BTreeMap<ZoneName, u64>,
    timer: Timer,
}

/// The one timer of a node.
#[derive(Debug, Default)]
pub(super) struct Timer {
    /// When it fires.
    at: Option<u64>,
    /// Which of the scheduled timers counts.
    generation: u64,
    /// When it fired last, and how often then.
    fired: (u64, u32),
}

/// What a scheduled timer is when its time comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Firing {
    /// It was set anew since.
    Stale,
    /// It fires.
    Due,
    /// It fires again and again in one millisecond.
    Spinning,
}

impl SimNode {
    pub(super) fn new(
        identity: Identity,
        config: Config,
        grants: BTreeMap<ZoneName, ByteBuf>,
        skew_ms: i64,
    ) -> SimNode {
        SimNode {
            key: identity.key(),
            identity,
            config,
            grants,
            node: None,
            incarnation: 0,
            disk: Disk::default(),
            backup: None,
            clock: NodeClock::new(skew_ms),
            suspended_until: 0,
            behaviour: Behaviour::default(),
            zones: BTreeMap::new(),
            timer: Timer::default(),
        }
    }

    /// Whether it runs and does not sleep.
    pub(super) fn is_up(&self, now: u64) -> bool {
        self.node.is_some() && self.suspended_until <= now
    }

    /// The process ends; what the disk keeps is decided by the caller.
    pub(super) fn stop(&mut self) {
        self.node = None;
        self.zones.clear();
        self.incarnation += 1;
        self.timer.stop();
    }

    /// The zone in which its own agents lie unless something else is said.
    pub(super) fn home_zone(&self) -> ZoneName {
        self.config.zones.first().cloned().unwrap_or_else(ZoneName::root)
    }

    /// Whether it runs as a member of a zone: then others that look for one find it.
    pub(super) fn is_member(&self, zone: &ZoneName) -> bool {
        self.node.is_some() && self.config.zones.contains(zone)
    }

    /// It is in the mesh of a zone from now on. Its settings say so too, so that it is when it starts again.
    pub(super) fn enter(&mut self, zone: ZoneName, now: u64) {
        if !self.config.zones.contains(&zone) && !self.config.follows.contains(&zone) {
            self.config.follows.push(zone.clone());
        }
        self.zones.insert(zone, now);
    }

    /// It is a member of a zone that it is in the mesh of.
    pub(super) fn provide(&mut self, zone: ZoneName) {
        self.config.follows.retain(|it| *it != zone);
        if !self.config.zones.contains(&zone) {
            self.config.zones.push(zone);
        }
    }

    /// It is in the mesh of a zone no longer, nor when it starts again.
    pub(super) fn exit(&mut self, zone: &ZoneName) {
        self.zones.remove(zone);
        self.config.zones.retain(|it| it != zone);
        self.config.follows.retain(|it| it != zone);
    }

    /// Whether it is in the mesh of a zone.
    pub(super) fn serves(&self, zone: &ZoneName) -> bool {
        self.zones.contains_key(zone)
    }

    /// What it keeps on its disk under an own key.
    pub(super) fn own_record(&self, key: &KeyHash) -> Option<Arc<Record>> {
        let row = self.disk.rows().get(&[b"o", &key.0[..]].concat()[..])?;
        // What a host keeps of its own is read here, not judged; `rights` does that.
        Some(SignedRecord::parse(row, &self.config.network).ok()?.trust_sealed())
    }

    /// A copy of its disk is made.
    pub(super) fn back_up(&mut self, step: u64) {
        self.backup = Some(Backup { rows: self.disk.rows().clone(), step });
    }

    /// A scheduled timer is due.
    pub(super) fn fires(&mut self, generation: u64, now: u64) -> Firing {
        self.timer.fires(generation, now)
    }

    /// The timer that is to be scheduled, in how many milliseconds and as which: none if the present one is right. It is set
    /// as a sleeping process would, by the monotonic clock.
    pub(super) fn set_timer(&mut self, now: u64, wall: u64) -> Option<(u64, u64)> {
        let shown: Timestamp = self.clock.read(wall);
        let deadline = self.node.as_ref().and_then(Node::poll_timeout);
        let target = deadline.map(|deadline| now + deadline.since(shown).as_millis() as u64);
        self.timer.set(now, target)
    }
}

impl Timer {
    /// A scheduled timer is due.
    pub(super) fn fires(&mut self, generation: u64, now: u64) -> Firing {
        if self.generation != generation {
            return Firing::Stale;
        }
        self.at = None;
        let (when, count) = self.fired;
        self.fired = if when == now { (when, count + 1) } else { (now, 1) };
        if self.fired.1 > TIMERS_MAX { Firing::Spinning } else { Firing::Due }
    }

    /// It is to fire at `target`: in how many milliseconds that is and as which it is to be scheduled; none if it is set so.
    pub(super) fn set(&mut self, now: u64, target: Option<u64>) -> Option<(u64, u64)> {
        if target == self.at {
            return None;
        }
        self.at = target;
        self.generation += 1;
        // No caller names a time that is past.
        target.map(|target| (target - now, self.generation))
    }

    /// Nothing that was scheduled counts any more.
    pub(super) fn stop(&mut self) {
        self.at = None;
        self.generation += 1;
    }
}
