//! What a node keeps on disk, as rows of bytes, and what it makes of them at start.
//!
//! Rows: `o` + key hash: an own write (durable). `r` + key hash: a record of another node. `e`: the epoch. `f` + epoch:
//! versions of an earlier epoch that were lost. `s` + zone: the last own version. `n`: names offered by configured files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::{Node, Via, Write};
use crate::proto::codec;
use crate::proto::memo::Memo;
use crate::proto::name::{FullName, ZoneName};
use crate::proto::record::{KeyHash, Record, SignedRecord};
use crate::proto::time::Timestamp;

/// What the store held when it was opened.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// Epoch of the folder; none in a new folder.
    pub epoch: Option<u64>,
    /// Versions of earlier epochs that were lost.
    pub former: BTreeMap<u64, LostVersions>,
    /// Last own version of each zone.
    pub seqs: BTreeMap<ZoneName, u64>,
    /// Own writes.
    pub own: Vec<Arc<Record>>,
    /// Records of other nodes.
    pub others: Vec<Arc<Record>>,
    /// Names offered by configured files.
    pub file_offers: BTreeSet<FullName>,
    /// Whether own writes may be missing.
    pub damage: Damage,
}

/// Versions of one epoch that this folder wrote and no longer holds, in each zone.
pub type LostVersions = BTreeMap<ZoneName, Lost>;

/// Versions of one epoch and zone that were lost. Another process that still writes in that epoch is told apart by its
/// later stamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// The last version that is not lost.
    pub known: u64,
    /// The last version that is known to be lost, or the greatest number; peers may hold later ones.
    pub head: u64,
    /// When the epoch ended: a write stamped later is not of this folder.
    pub ended_at: Timestamp,
}

/// Whether own writes may be missing from what the store held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Damage {
    /// All own writes are there.
    #[default]
    None,
    /// The last own writes may be missing: the node takes a new epoch.
    OwnWritesMissing,
}

/// Whether a row is as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judged {
    Sealed,
    Unsealed,
}

impl Stored {
    /// Takes one row. A row whose seal could not be checked (`sealed` false) counts only if its signature verifies.
    /// Returns whether the row was understood.
    pub fn take_row(
        &mut self,
        key: &[u8],
        value: &[u8],
        sealed: bool,
        network: &str,
        now: Timestamp,
    ) -> bool {
        let judged = if sealed { Judged::Sealed } else { Judged::Unsealed };
        let record = || {
            let signed = SignedRecord::parse(value, network).ok()?;
            match judged {
                Judged::Sealed => Some(signed.trust_sealed()),
                Judged::Unsealed => signed.verify(now).ok().map(Arc::new),
            }
        };
        self.read_row(key, value, record).is_some()
    }

    /// Takes one sealed row of a store beside which many nodes share `memo`.
    pub fn take_shared_row(&mut self, key: &[u8], value: &[u8], network: &str, memo: &mut Memo) -> bool {
        let record = || memo.record(value, network).ok().map(SignedRecord::trust_sealed);
        self.read_row(key, value, record).is_some()
    }

    fn read_row(
        &mut self,
        key: &[u8],
        value: &[u8],
        record: impl FnOnce() -> Option<Arc<Record>>,
    ) -> Option<()> {
        let (kind, rest) = key.split_first()?;
        match kind {
            b'o' => self.own.push(record()?),
            b'r' => self.others.push(record()?),
            b'e' => self.epoch = Some(u64::from_be_bytes(value.try_into().ok()?)),
            b's' => {
                let zone: ZoneName = std::str::from_utf8(rest).ok()?.parse().ok()?;
                let seq = self.seqs.entry(zone).or_default();
                *seq = (*seq).max(u64::from_be_bytes(value.try_into().ok()?));
            }
            b'f' => {
                let epoch = u64::from_be_bytes(rest.try_into().ok()?);
                self.former.insert(epoch, codec::decode(value).ok()?);
            }
            b'n' => self.file_offers = codec::decode(value).ok()?,
            _ => return None,
        }
        Some(())
    }
}

impl Lost {
    fn contains(&self, record: &Record) -> bool {
        record.seq > self.known && (record.seq <= self.head || record.stamp.wall <= self.ended_at)
    }
}

impl Node {
    pub(super) fn load(&mut self, stored: Stored, now: Timestamp) {
        self.former = stored.former;
        self.file_offers = stored.file_offers;
        for record in stored.others {
            self.merge_stored(record, now);
        }
        for record in stored.own {
            let key = record.key();
            if self.own.get(&key).is_none_or(|held| held.order() < record.order()) {
                self.own.insert(key, record.clone());
            }
            self.merge_stored(record, now);
        }
        self.take_epoch_of(stored.epoch, stored.seqs, stored.damage, now);
        let keys: Vec<(KeyHash, ZoneName)> =
            self.own.iter().map(|(key, own)| (*key, own.name.zone.clone())).collect();
        for (key, zone) in keys {
            self.plan_renewal(&key);
            self.guard_own_key(now, &key, &zone);
        }
    }

    fn merge_stored(&mut self, record: Arc<Record>, now: Timestamp) {
        if !record.is_expired(now) {
            let zone = record.name.zone.clone();
            self.merge(record, &zone, now, Via::Store);
        }
    }

    fn take_epoch_of(
        &mut self,
        epoch: Option<u64>,
        seqs: BTreeMap<ZoneName, u64>,
        damage: Damage,
        now: Timestamp,
    ) {
        let Some(epoch) = epoch else { return self.take_new_epoch() };
        self.epoch = epoch;
        let own: Vec<Arc<Record>> = self.own.values().cloned().collect();
        for (name, zone) in &mut self.zones {
            let written = own.iter().filter(|own| own.name.zone == *name && own.author.epoch == epoch);
            let highest = written.map(|own| own.seq).max().unwrap_or(0);
            zone.seq = highest.max(seqs.get(name).copied().unwrap_or(0));
        }
        if damage == Damage::OwnWritesMissing {
            self.retire_epoch(&BTreeMap::new(), now);
        }
    }

    /// The present epoch ends: this folder wrote more in it than it holds, at least up to `heads` where that is known.
    pub(super) fn retire_epoch(&mut self, heads: &BTreeMap<ZoneName, u64>, ended_at: Timestamp) {
        let lost: LostVersions = self
            .zones
            .iter()
            .map(|(name, zone)| {
                let head = heads.get(name).copied().unwrap_or(u64::MAX);
                (name.clone(), Lost { known: zone.seq, head, ended_at })
            })
            .collect();
        self.writes.push(Write {
            key: [b"f", &self.epoch.to_be_bytes()[..]].concat(),
            value: Some(codec::encode(&lost).into()),
            durable: true,
        });
        self.former.insert(self.epoch, lost);
        self.take_new_epoch();
    }

    /// Whether this folder wrote the record and lost it.
    pub(super) fn is_lost_write(&self, record: &Record) -> bool {
        record.author.key == self.key()
            && self
                .former
                .get(&record.author.epoch)
                .and_then(|lost| lost.get(&record.name.zone))
                .is_some_and(|lost| lost.contains(record))
    }

    fn take_new_epoch(&mut self) {
        self.epoch = self.rng.random();
        let value = self.epoch.to_be_bytes();
        self.writes.push(Write { key: b"e".to_vec(), value: Some(value[..].into()), durable: true });
        // Versions are dense in each epoch: a restart must not go on from those of the last one.
        for (name, zone) in &mut self.zones {
            zone.seq = 0;
            self.writes.push(seq_row(name, 0));
        }
    }
}

pub(super) fn own_row(record: &Record) -> Write {
    Write { key: row(b'o', record.key()), value: Some(record.bytes().clone()), durable: true }
}

pub(super) fn other_row(record: &Record) -> Write {
    Write { key: row(b'r', record.key()), value: Some(record.bytes().clone()), durable: false }
}

pub(super) fn remove_own(key: KeyHash) -> Write {
    Write { key: row(b'o', key), value: None, durable: true }
}

pub(super) fn remove_other(key: KeyHash) -> Write {
    Write { key: row(b'r', key), value: None, durable: false }
}

pub(super) fn seq_row(zone: &ZoneName, seq: u64) -> Write {
    let key = [b"s", zone.as_str().as_bytes()].concat();
    Write { key, value: Some(seq.to_be_bytes()[..].into()), durable: true }
}

pub(super) fn file_offers_row(names: &BTreeSet<FullName>) -> Write {
    Write { key: b"n".to_vec(), value: Some(codec::encode(names).into()), durable: true }
}

fn row(kind: u8, key: KeyHash) -> Vec<u8> {
    [&[kind][..], &key.0[..]].concat()
}
