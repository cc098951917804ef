//! The life of a machine: it starts with what its disk has, crashes, sleeps, is backed up and repaired.

use std::collections::BTreeMap;

use rand::RngExt;

use super::check::Check;
use super::machine::Backup;
use super::{Due, Memory, World};
use crate::proto::config::Config;
use crate::proto::node::Node;
use crate::proto::persistence::{Damage, Stored};
use crate::proto::time::Timestamp;

/// A suspension longer than this closes connections, milliseconds.
const SUSPENSION_NOTICED_MS: u64 = 10_000;

impl World {
    /// A machine starts with what `memory` says.
    pub(super) fn boot(&mut self, at: usize, memory: Memory) {
        let (now, seed) = (self.wall(), self.rng.random());
        if self.machines[at].node.is_some() {
            return;
        }
        self.tell_start(at, memory);
        self.reference.started(at, memory, &self.machines);
        let machine = &mut self.machines[at];
        match (memory, &machine.backup) {
            (Memory::Lost, _) => machine.disk.replace(BTreeMap::new()),
            (Memory::Backup | Memory::Torn, Some(backup)) => machine.disk.replace(backup.rows.clone()),
            (Memory::Disk | Memory::Backup | Memory::Torn, _) => {}
        }
        machine.wall_max = Timestamp::default();
        let wall = machine.clock(now);
        let damage = if memory == Memory::Torn { Damage::OwnWritesMissing } else { Damage::None };
        let mut stored = Stored { damage, ..Stored::default() };
        let network = &machine.config.network;
        let rows = machine.disk.rows().iter();
        let memo = &mut self.memo;
        let unread = rows.filter(|(key, value)| !stored.take_shared_row(key, value, network, memo)).count();
        let (identity, config) = (machine.identity.clone(), machine.config.clone());
        let quota = machine.malice.quota(self.quota);
        machine.node = Some(Node::new(identity, Config { quota, ..config }, seed, stored, wall));
        machine.incarnation += 1;
        self.tally.wakes(at, self.now);
        if unread > 0 {
            self.fail(Check::Durable, format!("machine {at} cannot read {unread} of its own rows"));
        }
        self.drain(at);
        self.connect_all(at);
    }

    /// A machine stops at once; of its unflushed writes some reached the disk.
    pub(super) fn crash(&mut self, at: usize) {
        if self.machines[at].node.is_none() {
            return;
        }
        let unflushed = self.machines[at].disk.unflushed(self.now);
        let kept = self.rng.random_range(0..=unflushed);
        self.machines[at].disk.crash(kept);
        self.machines[at].stop();
        self.mesh.forget(at);
        self.tally.sleeps(at, self.now);
        self.reference.stopped(at);
        self.sever_all(at);
        self.forget_streams(at);
    }

    /// A machine does nothing for a while; if that is long its peers notice.
    pub(super) fn suspend(&mut self, at: usize, for_ms: u64) {
        self.machines[at].suspended_until = self.now + for_ms;
        self.tally.sleeps(at, self.now);
        if for_ms > SUSPENSION_NOTICED_MS {
            self.sever_all(at);
        }
        self.schedule(for_ms, Due::Resume(at));
    }

    /// A copy of a machine's disk is made.
    pub(super) fn back_up(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        machine.backup = Some(Backup { rows: machine.disk.rows().clone(), step: self.steps });
    }

    /// The end of all faults: links up and clean, clocks right but for their constant skew, all machines up.
    pub(super) fn repair(&mut self) {
        self.network.repair();
        for at in 0..self.machines.len() {
            self.machines[at].jump_ms = 0;
            self.machines[at].suspended_until = self.now;
            if self.machines[at].node.is_none() {
                self.start(at, Memory::Disk);
            } else {
                self.connect_all(at);
            }
        }
    }
}
