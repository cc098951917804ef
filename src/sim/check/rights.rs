//! What honest machines are promised among others, hostile ones too: bounded memory, forks told, their own names.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, Look, World};
use crate::proto::config::Quota;
use crate::proto::config::RECORD_BYTES_MAX;
use crate::proto::io::NodeAlert;
use crate::proto::name::ZoneName;
use crate::proto::record::{Author, Record, RecordHash, SignedRecord};
use crate::proto::time::Timestamp;

/// Forks of more authors than this need not be told: a node remembers no more.
const FORKS_TOLD: usize = 256;

impl Look {
    /// What is held beyond a quota.
    pub(super) fn beyond(&self, quota: &Quota) -> Option<String> {
        let mut counts = BTreeMap::new();
        for record in &self.held {
            *counts.entry(record.author.key).or_insert(0usize) += 1;
        }
        let (most, bytes) = (counts.into_values().max().unwrap_or(0), self.bytes());
        let is_beyond = most > quota.records_per_author || bytes > quota.bytes;
        is_beyond.then(|| format!("{most} records of one author, {bytes} bytes in all"))
    }

    /// Whether a quota may have taken a record: its author has as many of smaller keys as it may have, or the zone is full.
    pub(super) fn is_evicted(&self, gone: &Record, quota: &Quota) -> bool {
        let smaller = self.held.iter().take_while(|record| record.key() < gone.key());
        let of_author = smaller.filter(|record| record.author.key == gone.author.key).count();
        let is_full = self.bytes() + RECORD_BYTES_MAX > quota.bytes;
        self.get(&gone.key()).is_none() && (of_author >= quota.records_per_author || is_full)
    }

    fn bytes(&self) -> usize {
        self.held.iter().map(|record| record.bytes().len()).sum()
    }
}

impl World {
    /// Machines that keep to the protocol.
    pub(in crate::sim) fn honest(&self) -> Vec<usize> {
        (0..self.machines.len()).filter(|at| self.is_honest(*at)).collect()
    }

    /// A record that a machine takes carries the right signature; each distinct one is verified once.
    pub(in crate::sim) fn check_signature(&mut self, at: usize, record: &Record) {
        if !self.is_honest(at) || !self.reference.verified.insert(record.hash()) {
            return;
        }
        let signed = SignedRecord::parse(record.bytes(), &self.machines[at].config.network);
        if !signed.is_ok_and(|signed| signed.verify(record.stamp.wall).is_ok()) {
            self.fail(Check::Verified, format!("machine {at} takes {record:?}, which does not verify"));
        }
    }

    /// Who holds two records of one author and version knows that the author is forked.
    pub(in crate::sim) fn check_forks(&mut self, at: usize) {
        let Some(node) = self.machines[at].node.as_ref() else { return };
        let mut versions: BTreeMap<(Author, u64), RecordHash> = BTreeMap::new();
        let mut forked = BTreeSet::new();
        for record in node.records(&ZoneName::root()).filter(|record| record.seq > 0) {
            if versions.insert((record.author, record.seq), record.hash()).is_some() {
                forked.insert(record.author);
            }
        }
        let told: BTreeSet<Author> = node
            .alerts()
            .filter_map(|problem| match problem {
                NodeAlert::ForkedAuthor(author) => Some(*author),
                _ => None,
            })
            .collect();
        if let Some(silent) = forked.difference(&told).next().filter(|_| told.len() < FORKS_TOLD) {
            self.fail(Check::ForksShown, format!("machine {at} holds a fork of {silent} and tells nobody"));
        }
    }

    /// No live card stands under a host's key but those it offers. A host gives up after a second writer under its key, and
    /// does not bury what it meets while its clock forbids it to write: that lapses by itself.
    pub(in crate::sim) fn check_own_keys(&mut self, at: usize) {
        let wall = self.wall();
        let machine = &self.machines[at];
        let Some(node) = machine.node.as_ref() else { return };
        let gave_up = self.reference.silenced.contains(&at)
            || node.alerts().any(|problem| matches!(problem, NodeAlert::DuplicateIdentity(_)));
        let ends_after = Timestamp(wall + crate::sim::settle::ENDING_MS);
        let root = ZoneName::root();
        let strange = node
            .records(&root)
            .filter(|it| it.host == machine.key && !it.is_tombstone() && it.expires_at > ends_after)
            .find(|record| {
                let row = machine.disk.rows().get([b"o", &record.key().0[..]].concat().as_slice());
                row.is_none_or(|row| row != record.bytes())
            })
            .cloned();
        if let Some(strange) = strange.filter(|_| !gave_up) {
            let detail = format!("machine {at} lets {strange:?} stand in its name and does not offer it");
            self.fail(Check::HostSpeaks, detail);
        }
    }
}
