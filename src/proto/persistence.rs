//! What a node keeps on disk, as rows of bytes, and what it makes of them at start.
//!
//! Rows: `o` + key hash: an own write (durable). `r` + key hash: a record of another node. `e`: the epoch. `f` + epoch:
//! versions of an earlier epoch that were lost. `s` + zone: the last own version. `n`: names offered by configured files.
//! `u`: there while peers may hold records of this key that the folder does not know.
//! `w` + name: whom it means here. `c`: who was met of which zone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::CryptoRng;
use serde::{Deserialize, Serialize};

use super::ask::Contact;
use super::card::AgentCard;
use super::codec;
use super::identity::AgentId;
use super::io::Write;
use super::name::{FullName, ZoneId, ZoneName};
use super::query::KnownOwner;
use super::record::{KeyHash, Record, SignedRecord, verify_together};
use super::search::{Index, entry};
use super::time::Timestamp;
use super::verification_cache::VerificationCache;

/// What the store held when it was opened.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// Epoch of the folder; none in a new folder.
    pub epoch: Option<u64>,
    /// Versions of earlier epochs that were lost.
    pub retired_epochs: BTreeMap<u64, LostRanges>,
    /// Last own version of each zone.
    pub seqs: BTreeMap<ZoneName, u64>,
    /// Own writes.
    pub own: Vec<Arc<Record>>,
    /// Records of other nodes.
    pub others: Vec<Arc<Record>>,
    /// Names offered by configured files.
    pub file_offers: BTreeSet<FullName>,
    /// Whether peers may hold records of this key that the folder does not know, as when it was last closed.
    pub incomplete: bool,
    /// Whom names mean here.
    pub owners: Vec<KnownOwner>,
    /// Who was met of which zone.
    pub contacts: Vec<(ZoneId, Vec<Contact>)>,
    /// Whether own writes may be missing.
    pub damage: Damage,
    /// Agents of these records that were indexed already.
    pub indexed: Indexed,
}

/// An index that was made before it is known which of the records stand.
#[derive(Debug, Default)]
pub struct Indexed {
    index: Index,
    /// From which record each agent's entry was made.
    records: BTreeMap<AgentId, Arc<Record>>,
}

/// Versions of one epoch that this folder wrote and no longer holds, in each zone.
pub type LostRanges = BTreeMap<ZoneName, LostRange>;

/// Versions of one epoch and zone that were lost. Another process that still writes in that epoch is told apart by its
/// later stamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostRange {
    /// The last version that is not lost.
    pub known: u64,
    /// The last version that is known to be lost, or the greatest number; peers may hold later ones.
    pub head: u64,
    /// When the epoch ended: a write stamped later is not of this folder.
    pub ended_at: Timestamp,
}

/// What a store can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StoreCondition {
    /// It keeps what it is given.
    #[default]
    Well,
    /// Its room is short, as the text says: what is left is for durable writes.
    Short(String),
    /// It keeps nothing, for this reason.
    Failed(String),
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
        let record = || {
            let signed = SignedRecord::parse(value, network).ok()?;
            if sealed { Some(signed.trust_sealed()) } else { signed.verify(now).ok().map(Arc::new) }
        };
        self.read_row(key, value, record).is_some()
    }

    /// As [`Stored::take_row`], of bytes that are held on, whose seal holds; enters the agent into the index.
    pub fn index_row(&mut self, key: &[u8], value: &Arc<[u8]>, network: &str) -> bool {
        let parse = || SignedRecord::parse_held(value.clone(), network).ok();
        self.index(key, value, || Some(parse()?.trust_sealed_with_card()))
    }

    /// As [`Stored::index_row`], rows whose seals do not hold: the signatures of their records are judged together.
    pub fn index_unsealed_rows(
        &mut self,
        rows: &[(&[u8], &Arc<[u8]>)],
        network: &str,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Vec<bool> {
        let is_record = |key: &[u8]| matches!(key.first(), Some(b'o' | b'r'));
        let parse = |value: &Arc<[u8]>| SignedRecord::parse_held(value.clone(), network).ok();
        let parsed: Vec<Option<SignedRecord>> =
            rows.iter().map(|&(key, value)| if is_record(key) { parse(value) } else { None }).collect();
        let records: Vec<SignedRecord> = parsed.iter().flatten().cloned().collect();
        verify_together(&records, now, rng);
        let taken = rows.iter().zip(parsed).map(|(&(key, value), signed)| {
            self.index(key, value, || {
                let record = Arc::new(signed?.verify(now).ok()?);
                let card = record.card();
                Some((record, card))
            })
        });
        taken.collect()
    }

    fn index(
        &mut self,
        key: &[u8],
        value: &[u8],
        read: impl FnOnce() -> Option<(Arc<Record>, Option<AgentCard>)>,
    ) -> bool {
        let mut agent = None;
        let record = || {
            let (record, card) = read()?;
            agent = card.map(|card| (record.clone(), card));
            Some(record)
        };
        let is_read = self.read_row(key, value, record).is_some();
        if let Some((record, card)) = agent {
            self.indexed.enter(record, &card);
        }
        is_read
    }

    /// Takes what was read of later rows of the same store.
    pub fn append(&mut self, later: Stored) {
        self.epoch = later.epoch.or(self.epoch);
        self.retired_epochs.extend(later.retired_epochs);
        for (zone, seq) in later.seqs {
            let highest = self.seqs.entry(zone).or_default();
            *highest = (*highest).max(seq);
        }
        self.own.extend(later.own);
        self.others.extend(later.others);
        self.file_offers.extend(later.file_offers);
        self.incomplete |= later.incomplete;
        self.owners.extend(later.owners);
        self.contacts.extend(later.contacts);
        self.indexed.append(later.indexed);
    }

    /// Takes one sealed row of a store beside which many nodes share `cache`.
    pub fn take_shared_row(
        &mut self,
        key: &[u8],
        value: &[u8],
        network: &str,
        cache: &mut VerificationCache,
    ) -> bool {
        let record = || cache.record(value, network).ok().map(SignedRecord::trust_sealed);
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
                // The greatest, should a damaged store bring a row twice: versions must never be used again.
                *seq = (*seq).max(u64::from_be_bytes(value.try_into().ok()?));
            }
            b'f' => {
                let epoch = u64::from_be_bytes(rest.try_into().ok()?);
                self.retired_epochs.insert(epoch, codec::decode(value).ok()?);
            }
            b'n' => self.file_offers = codec::decode(value).ok()?,
            b'u' => self.incomplete = true,
            b'w' => self.owners.push(codec::decode(value).ok()?),
            b'c' => self.contacts = codec::decode(value).ok()?,
            // A row of a later version is left where it is.
            _ => return None,
        }
        Some(())
    }
}

impl Indexed {
    /// Of the records of one agent the greatest speaks for all.
    fn enter(&mut self, record: Arc<Record>, card: &AgentCard) {
        let id = record.agent_id();
        if self.records.get(&id).is_none_or(|entered| entered.order() < record.order()) {
            self.index.insert(entry(id, &record.name, card));
            self.records.insert(id, record);
        }
    }

    fn append(&mut self, later: Indexed) {
        self.index.absorb(later.index);
        for (id, record) in later.records {
            // As in the index: what is there stays.
            self.records.entry(id).or_insert(record);
        }
    }

    /// The index, and from which record each agent's entry was made.
    pub(super) fn into_parts(self) -> (Index, BTreeMap<AgentId, Arc<Record>>) {
        (self.index, self.records)
    }
}

/// A copy is indexed anew by whoever asks it.
impl Clone for Indexed {
    fn clone(&self) -> Indexed {
        Indexed::default()
    }
}

pub(super) fn own_row(record: &Record) -> Write {
    Write { key: row(b'o', record.key()), value: Some(record.bytes().clone()), durable: true }
}

pub(super) fn other_row(record: &Record) -> Write {
    Write { key: row(b'r', record.key()), value: Some(record.bytes().clone()), durable: false }
}

/// A record that this host signed with another key than the node's: it is a record of another node, but kept before it is told.
pub(super) fn imported_row(record: &Record) -> Write {
    Write { durable: true, ..other_row(record) }
}

pub(super) fn remove_own(key: KeyHash) -> Write {
    Write { key: row(b'o', key), value: None, durable: true }
}

pub(super) fn remove_other(key: KeyHash) -> Write {
    Write { key: row(b'r', key), value: None, durable: false }
}

/// The key of a record that this host wrote, where the write is of one.
pub(super) fn written_key(write: &Write) -> Option<KeyHash> {
    let (kind, hash) = write.key.split_first()?;
    let is_written = *kind == b'o' || *kind == b'r' && write.durable;
    is_written.then(|| hash.try_into().ok().map(KeyHash)).flatten()
}

/// Whether the write is of the names that configured files offer.
pub(super) fn is_file_offers(write: &Write) -> bool {
    write.key == b"n"
}

pub(super) fn seq_row(zone: &ZoneName, seq: u64) -> Write {
    let key = [b"s", zone.as_str().as_bytes()].concat();
    Write { key, value: Some(seq.to_be_bytes()[..].into()), durable: true }
}

pub(super) fn file_offers_row(names: &BTreeSet<FullName>) -> Write {
    Write { key: b"n".to_vec(), value: Some(codec::encode(names).into()), durable: true }
}

pub(super) fn incomplete_row(is_incomplete: bool) -> Write {
    Write { key: b"u".to_vec(), value: is_incomplete.then(|| Arc::from([])), durable: true }
}

pub(super) fn owner_row(known: &KnownOwner) -> Write {
    Write { key: owner_key(&known.name), value: Some(codec::encode(known).into()), durable: true }
}

pub(super) fn remove_owner(name: &FullName) -> Write {
    Write { key: owner_key(name), value: None, durable: true }
}

pub(super) fn contacts_row(contacts: &[(&ZoneId, &Vec<Contact>)]) -> Write {
    Write { key: b"c".to_vec(), value: Some(codec::encode(&contacts).into()), durable: false }
}

fn owner_key(name: &FullName) -> Vec<u8> {
    [b"w", name.to_string().as_bytes()].concat()
}

fn row(kind: u8, key: KeyHash) -> Vec<u8> {
    [&[kind][..], &key.0[..]].concat()
}
