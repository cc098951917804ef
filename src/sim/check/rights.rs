//! What honest machines are promised among others, hostile ones too: bounded memory, forks told, their own names.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, Held, World};
use crate::proto::name::ZoneName;
use crate::proto::node::Problem;
use crate::proto::record::{Author, KeyHash, Order, RecordHash};
use crate::proto::time::Timestamp;

/// Forks of more authors than this need not be told: a node remembers no more.
const FORKS_TOLD: usize = 256;

impl World {
    /// Machines that keep to the protocol.
    pub(super) fn honest(&self) -> Vec<usize> {
        (0..self.machines.len()).filter(|at| self.is_honest(*at)).collect()
    }

    pub(super) fn check_quota(&mut self, at: usize) {
        let Some(node) = self.machines[at].node.as_ref() else { return };
        let (mut bytes, mut counts) = (0, BTreeMap::new());
        for record in node.records(&ZoneName::root()) {
            bytes += record.bytes().len();
            *counts.entry(record.author.key).or_insert(0usize) += 1;
        }
        let most = counts.into_values().max().unwrap_or(0);
        if most > self.quota.records_per_author || bytes > self.quota.bytes {
            self.fail(Check::WithinQuota, format!("machine {at} holds {most} of one author, {bytes} bytes"));
        }
    }

    /// Whether a quota may have taken a record that is gone: those of smaller key are as many as there may be.
    pub(super) fn is_evicted(&self, at: usize, key: KeyHash, order: &Order, held: &Held) -> bool {
        let Some(node) = self.machines[at].node.as_ref().filter(|_| !held.contains_key(&key)) else {
            return false;
        };
        let smaller = held.range(..key).filter(|(_, (it, _))| it.author.key == order.author.key).count();
        let bytes: usize = node.records(&ZoneName::root()).map(|record| record.bytes().len()).sum();
        let is_full = bytes + crate::proto::config::RECORD_BYTES_MAX > self.quota.bytes;
        smaller >= self.quota.records_per_author || is_full
    }

    /// Who holds two records of one author and version knows that the author is forked.
    pub(super) fn check_forks(&mut self, at: usize) {
        let Some(node) = self.machines[at].node.as_ref() else { return };
        let mut versions: BTreeMap<(Author, u64), RecordHash> = BTreeMap::new();
        let mut forked = BTreeSet::new();
        for record in node.records(&ZoneName::root()).filter(|record| record.seq > 0) {
            if versions.insert((record.author, record.seq), record.hash()).is_some() {
                forked.insert(record.author);
            }
        }
        let told: BTreeSet<Author> = node
            .problems()
            .filter_map(|problem| match problem {
                Problem::ForkedAuthor(author) => Some(*author),
                _ => None,
            })
            .collect();
        if let Some(silent) = forked.difference(&told).next().filter(|_| told.len() < FORKS_TOLD) {
            self.fail(Check::ForksShown, format!("machine {at} holds a fork of {silent} and tells nobody"));
        }
    }

    /// No live card stands under a host's key but those it offers; after a second writer under its key it has given up.
    pub(super) fn check_own_keys(&mut self, at: usize) {
        let wall = self.wall();
        let machine = &self.machines[at];
        let Some(node) = machine.node.as_ref() else { return };
        let gave_up = node.problems().any(|problem| matches!(problem, Problem::DuplicateIdentity(_)));
        let ends_after = Timestamp(wall + super::ENDING_MS);
        let root = ZoneName::root();
        let strange = node
            .records(&root)
            .filter(|it| it.host == machine.key && !it.is_tombstone() && it.expires_at > ends_after)
            .find(|record| {
                let row = machine.disk.rows().get(&[b"o", &record.key().0[..]].concat());
                row.is_none_or(|row| row != record.bytes())
            })
            .cloned();
        if let Some(strange) = strange.filter(|_| !gave_up) {
            let detail = format!("machine {at} lets {strange:?} stand in its name and does not offer it");
            self.fail(Check::HostSpeaks, detail);
        }
    }
}
