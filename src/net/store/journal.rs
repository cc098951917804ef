//! The journal of own writes: a durable map from key to row in one append-only file.
//!
//! ```text
//! file    = header, frames
//! header  = "AOPJRNL1" | salt 8 bytes | next seq u64 | crc32 u32                        (little endian)
//! frame   = salt, first 4 bytes | payload length u32 | crc32(salt | payload) u32 | payload
//! payload = entries: key length u32 | row length u32 | key | row
//! ```
//!
//! Invariants: an append that returned is on disk; one append of up to [`FRAME_BYTES`] is one frame and is found whole
//! or not at all; the file is only ever appended to or replaced by a rename; after an error nothing is appended until
//! [`Journal::recover`] has put a whole file in place, because what an append after a failed sync would prove is unknown.
//!
//! The file is not allocated ahead: on ext4 that makes the median append 15 % faster, and costs a second way to end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::row::{RowKind, Salt, read_unauthenticated};
use super::{KEY_BYTES_MAX, StoreError, VALUE_BYTES_MAX, files};
use crate::private_file;
use scan::{Condition, Scan, scan};

mod scan;

/// Name of the journal in the data directory.
pub(super) const JOURNAL: &str = "journal";
const MAGIC: [u8; 8] = *b"AOPJRNL1";
const HEADER_BYTES: usize = 8 + 8 + 8 + 4;
const FRAME_HEAD_BYTES: usize = 4 + 4 + 4;
const ENTRY_HEAD_BYTES: usize = 4 + 4;
/// Entries are gathered into a frame until it is this long: a batch of a node, 128 KiB of records, is one frame.
const FRAME_BYTES: usize = 1024 * 1024;
/// Longest payload that is believed: a gathered frame and one more entry of full size.
const FRAME_BYTES_MAX: usize = FRAME_BYTES + KEY_BYTES_MAX + VALUE_BYTES_MAX + 1024;
/// A smaller journal is never compacted: it is read in a millisecond.
const COMPACT_BYTES_MIN: u64 = 1024 * 1024;
/// A journal is compacted when it is so many times longer than what lives in it: each byte is then copied at most
/// once for every three that were appended.
const COMPACT_FACTOR: u64 = 4;

/// A row to append.
#[derive(Clone, Copy)]
pub(super) struct JournalEntry<'a> {
    /// Its key.
    pub(super) key: &'a [u8],
    /// Its row, as [`super::row::RowMac::row`] made it.
    pub(super) row: &'a [u8],
}

/// Where the newest row of a key lies in the file.
#[derive(Clone, Copy, Debug)]
struct RowLocation {
    at: u64,
    length: usize,
    seq: u64,
    kind: RowKind,
}

/// The open journal.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    salt: Salt,
    end: u64,
    locations: BTreeMap<Vec<u8>, RowLocation>,
    live_bytes: u64,
    /// No compaction below this length: the last one found no room.
    compact_above: u64,
    /// Why nothing may be appended.
    failure: Option<String>,
}

/// A journal as it was found, before anything is changed.
pub(super) struct FoundJournal {
    bytes: Vec<u8>,
    scan: Scan,
}

impl FoundJournal {
    /// Reads the journal of `dir`; `None` if there is none. The whole file is held in memory for the time of the
    /// load: at most four times what lives in it, or 1 MiB.
    pub(super) fn read(dir: &Path, own_salt: Salt) -> Result<Option<FoundJournal>, StoreError> {
        let bytes = files::read_if_there(&dir.join(JOURNAL))?;
        Ok(bytes.map(|bytes| FoundJournal { scan: scan(&bytes, own_salt), bytes }))
    }

    /// Whether no acknowledged write is known to be missing.
    pub(super) fn is_whole(&self) -> bool {
        self.scan.condition != Condition::Damaged
    }

    /// Whether it was written under this salt.
    pub(super) fn is_salted(&self, salt: Salt) -> bool {
        self.scan.salt == salt
    }

    /// The lowest sequence number that no row here has, and that no row of an earlier journal had.
    pub(super) fn next_seq(&self) -> u64 {
        let seqs = self.entries().filter_map(|entry| read_unauthenticated(entry.key, entry.row));
        seqs.map(|(seq, _)| seq.saturating_add(1)).max().unwrap_or(0).max(self.scan.next_seq)
    }

    /// Every row in the order of writing; removed and overwritten ones too.
    pub(super) fn entries(&self) -> impl Iterator<Item = JournalEntry<'_>> {
        let part = |range: &std::ops::Range<usize>| &self.bytes[range.clone()];
        self.scan
            .entries
            .iter()
            .map(move |entry| JournalEntry { key: part(&entry.key), row: part(&entry.row) })
    }
}

impl Journal {
    /// Goes on where a whole journal ends. A torn tail is cut off.
    pub(super) fn resume(dir: &Path, found: &FoundJournal) -> Result<Journal, StoreError> {
        let path = dir.join(JOURNAL);
        let file = private_file::private().read(true).write(true).open(&path);
        let file = file.map_err(StoreError::io("open", &path))?;
        let end = found.scan.end as u64;
        if end < found.bytes.len() as u64 {
            // Cut before anything is appended: a good frame
            // behind a torn one would make it look like damage.
            file.set_len(end).and_then(|()| file.sync_all()).map_err(StoreError::io("truncate", &path))?;
        }
        let mut journal = Journal::empty(path, file, found.scan.salt, end);
        for (entry, locations) in found.entries().zip(&found.scan.entries) {
            journal.note(entry, locations.row.start as u64);
        }
        Ok(journal)
    }

    /// Replaces the journal of `dir` by one with these rows, at most one for a key. Where only the sync of the folder
    /// failed, the journal is the new one, and takes no rows.
    pub(super) fn replace<'a>(
        dir: &Path,
        salt: Salt,
        next_seq: u64,
        rows: impl Iterator<Item = JournalEntry<'a>>,
    ) -> Result<Journal, StoreError> {
        let mut draft = JournalDraft::begin(dir.join(JOURNAL), salt, next_seq)?;
        for entry in rows {
            draft.add(entry)?;
        }
        draft.put_in_place()
    }

    /// Whether a value of `key` lives in the journal.
    pub(super) fn holds(&self, key: &[u8]) -> bool {
        self.locations.get(key).is_some_and(|location| location.kind != RowKind::Removed)
    }

    /// Why nothing can be appended, if that is so.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Looks whether its file is still the one that the next start will read; where it is not, nothing is appended until
    /// [`Journal::recover`] has made it anew from what is still open here.
    pub(super) fn look(&mut self) {
        if self.failure.is_none() && !files::is_named(&self.file, &self.path) {
            self.failure = Some("it was removed or replaced while the node runs".into());
        }
    }

    /// Every key of which it has a row, removals too.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.locations.keys()
    }

    /// The newest row of a key, as sled is told of it: none of a key that was removed, or is not here.
    pub(super) fn row(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.locations.get(key).copied() {
            Some(location) if location.kind != RowKind::Removed => self.read_row(key, &location).map(Some),
            Some(_) | None => Ok(None),
        }
    }

    /// Appends rows in their order; they are on disk when it returns. After an error they may be there or not.
    pub(super) fn append(&mut self, entries: &[JournalEntry<'_>]) -> Result<(), StoreError> {
        // After a failed sync the system may have dropped the pages, and a second sync would report success.
        if let Some(reason) = &self.failure {
            return Err(StoreError::JournalFailed { path: self.path.clone(), reason: reason.clone() });
        }
        let appended = self.append_frames(entries);
        self.failure = appended.as_ref().err().map(StoreError::cause);
        appended
    }

    fn append_frames(&mut self, entries: &[JournalEntry<'_>]) -> Result<(), StoreError> {
        let (frames, offsets) = frames(&self.salt, entries);
        // Wherever a row was read since.
        self.file.seek(SeekFrom::Start(self.end)).map_err(StoreError::io("seek", &self.path))?;
        self.file.write_all(&frames).map_err(StoreError::io("append to", &self.path))?;
        // The length that reading needs is synced with the data; the times of the file are not needed.
        self.file.sync_data().map_err(StoreError::io("sync", &self.path))?;
        for (entry, offset) in entries.iter().zip(offsets) {
            // Noted after the sync: what may not be on disk does not count as held.
            self.note(*entry, self.end + offset as u64);
        }
        self.end += frames.len() as u64;
        Ok(())
    }

    /// Rewrites the file without what is overwritten or removed, if it has grown long; where that fails, the file stays as
    /// it is and grows on. A removal is forgotten only if its number is at most `removed_in_sled`: sled could otherwise
    /// bring the removed row back.
    pub(super) fn compact_if_due(&mut self, next_seq: u64, removed_in_sled: u64) {
        let due = COMPACT_BYTES_MIN.max(COMPACT_FACTOR * self.live_bytes).max(self.compact_above);
        if self.failure.is_none() && self.end > due && self.rewrite(next_seq, removed_in_sled).is_err() {
            self.compact_above = self.end + COMPACT_BYTES_MIN;
        }
    }

    /// After an error: puts a file in place that ends with the last append that returned.
    pub(super) fn recover(&mut self, next_seq: u64, removed_in_sled: u64) -> Result<(), StoreError> {
        // A new file first: it owes nothing to pages of which nobody knows whether they were written.
        match self.rewrite(next_seq, removed_in_sled) {
            Err(error) if error.is_no_room() => self.cut()?,
            rewritten => rewritten?,
        }
        match &self.failure {
            None => Ok(()),
            Some(reason) => {
                Err(StoreError::JournalFailed { path: self.path.clone(), reason: reason.clone() })
            }
        }
    }

    /// Takes off what lies behind the last append that returned; that needs no room.
    fn cut(&mut self) -> Result<(), StoreError> {
        let cut = self.file.set_len(self.end).and_then(|()| self.file.sync_all());
        cut.map_err(StoreError::io("truncate", &self.path))?;
        self.failure = None;
        Ok(())
    }

    /// Puts a new file in place; after an error the old one is still there, and as it was.
    fn rewrite(&mut self, next_seq: u64, removed_in_sled: u64) -> Result<(), StoreError> {
        let locations = std::mem::take(&mut self.locations);
        let copied = self.copy(&locations, next_seq, removed_in_sled);
        self.locations = locations;
        if copied.is_err() {
            // Half a file would only take room.
            files::discard_beside(&self.path);
        }
        *self = copied?;
        Ok(())
    }

    fn copy(
        &mut self,
        locations: &BTreeMap<Vec<u8>, RowLocation>,
        next_seq: u64,
        removed_in_sled: u64,
    ) -> Result<Journal, StoreError> {
        let mut draft = JournalDraft::begin(self.path.clone(), self.salt, next_seq)?;
        for (key, location) in locations {
            // A removal that sled has flushed has nothing left to bury.
            if location.kind != RowKind::Removed || location.seq > removed_in_sled {
                let row = self.read_row(key, location)?;
                draft.add(JournalEntry { key, row: &row })?;
            }
        }
        draft.put_in_place()
    }

    fn read_row(&mut self, key: &[u8], location: &RowLocation) -> Result<Vec<u8>, StoreError> {
        let mut row = vec![0; location.length];
        let read = self.file.seek(SeekFrom::Start(location.at)).and_then(|_| self.file.read_exact(&mut row));
        read.map_err(StoreError::io("read", &self.path))?;
        match read_unauthenticated(key, &row) {
            // The bytes may have changed on disk since: a compaction must not put a new frame around damage.
            Some((seq, _)) if seq == location.seq => Ok(row),
            _ => {
                let reason = "a row that was written to it cannot be read back".to_owned();
                Err(StoreError::JournalFailed { path: self.path.clone(), reason })
            }
        }
    }

    fn empty(path: PathBuf, file: File, salt: Salt, end: u64) -> Journal {
        let locations = BTreeMap::new();
        Journal { path, file, salt, end, locations, live_bytes: 0, compact_above: 0, failure: None }
    }

    /// Remembers where a row lies. Rows whose own CRC is wrong do not exist.
    fn note(&mut self, entry: JournalEntry<'_>, at: u64) {
        let Some((seq, kind)) = read_unauthenticated(entry.key, entry.row) else { return };
        let location = RowLocation { at, length: entry.row.len(), seq, kind };
        // Added before the old row is taken off, which is part of the sum: it never falls below zero.
        self.live_bytes += live_bytes(entry.key, &location);
        if let Some(old) = self.locations.insert(entry.key.to_vec(), location) {
            self.live_bytes -= live_bytes(entry.key, &old);
        }
    }
}

/// A journal that is being written beside the one it will replace.
struct JournalDraft {
    writer: BufWriter<File>,
    new: PathBuf,
    journal: Journal,
}

impl JournalDraft {
    fn begin(path: PathBuf, salt: Salt, next_seq: u64) -> Result<JournalDraft, StoreError> {
        let (file, new) = files::create_beside(&path)?;
        // Opened under its first name; it is the same file after the rename.
        let reader = private_file::private().read(true).write(true).open(&new);
        let reader = reader.map_err(StoreError::io("open", &new))?;
        let mut writer = BufWriter::new(file);
        writer.write_all(&header(salt, next_seq)).map_err(StoreError::io("write", &new))?;
        Ok(JournalDraft { writer, new, journal: Journal::empty(path, reader, salt, HEADER_BYTES as u64) })
    }

    fn add(&mut self, entry: JournalEntry<'_>) -> Result<(), StoreError> {
        // One frame for each row: damage of one then costs no other.
        let (frame, offsets) = frames(&self.journal.salt, &[entry]);
        self.writer.write_all(&frame).map_err(StoreError::io("write", &self.new))?;
        for offset in offsets {
            self.journal.note(entry, self.journal.end + offset as u64);
        }
        self.journal.end += frame.len() as u64;
        Ok(())
    }

    fn put_in_place(self) -> Result<Journal, StoreError> {
        let JournalDraft { writer, new, mut journal } = self;
        let file = writer.into_inner().map_err(|error| StoreError::io("write", &new)(error.into_error()))?;
        files::rename_synced(&file, &new, &journal.path)?;
        // Which of the two a crash would leave is unknown: until a sync has worked nothing is appended to either.
        journal.failure = files::sync_parent(&journal.path).err().map(|error| error.cause());
        Ok(journal)
    }
}

fn live_bytes(key: &[u8], location: &RowLocation) -> u64 {
    match location.kind {
        // Removals are what a compaction wants to be rid of, so a file full of them counts as long.
        RowKind::Removed => 0,
        RowKind::Value | RowKind::Journalled => {
            (FRAME_HEAD_BYTES + ENTRY_HEAD_BYTES + key.len() + location.length) as u64
        }
    }
}

fn header(salt: Salt, next_seq: u64) -> Vec<u8> {
    let mut header = [&MAGIC[..], &salt, &next_seq.to_le_bytes()].concat();
    let crc = header_crc(&header);
    header.extend_from_slice(&crc.to_le_bytes());
    header
}

fn header_crc(header: &[u8]) -> u32 {
    crc32fast::hash(header)
}

/// The bytes of the frames that hold `entries`, and where in them each row lies.
fn frames(salt: &Salt, entries: &[JournalEntry<'_>]) -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut offsets) = (Vec::new(), Vec::with_capacity(entries.len()));
    let mut rest = entries;
    while !rest.is_empty() {
        let start = bytes.len();
        bytes.extend_from_slice(&[0; FRAME_HEAD_BYTES]);
        while let [entry, others @ ..] = rest {
            // Before an entry and never after: a frame holds at least one, however long, and the loop ends.
            if bytes.len() - start > FRAME_BYTES {
                break;
            }
            add_entry(&mut bytes, entry);
            offsets.push(bytes.len() - entry.row.len());
            rest = others;
        }
        fill_frame_head(&mut bytes[start..], salt);
    }
    (bytes, offsets)
}

fn add_entry(bytes: &mut Vec<u8>, entry: &JournalEntry<'_>) {
    bytes.extend_from_slice(&length(entry.key));
    bytes.extend_from_slice(&length(entry.row));
    bytes.extend_from_slice(entry.key);
    bytes.extend_from_slice(entry.row);
}

fn fill_frame_head(frame: &mut [u8], salt: &Salt) {
    let (head, payload) = frame.split_at_mut(FRAME_HEAD_BYTES);
    head[..4].copy_from_slice(&salt[..4]);
    head[4..8].copy_from_slice(&length(payload));
    head[8..].copy_from_slice(&frame_crc(salt, payload).to_le_bytes());
}

/// Lengths are bounded far below 4 GiB before anything is written.
fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes()
}

fn frame_crc(salt: &Salt, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    // The whole salt, of which a head shows one half: a sum
    // cannot be made by who has only seen a frame's tag.
    hasher.update(salt);
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use proptest::prelude::*;

    use super::super::row::RowMac;
    use super::*;

    fn row_mac() -> RowMac {
        RowMac::new(&[3; 32])
    }

    fn fresh(dir: &Path) -> Journal {
        Journal::replace(dir, row_mac().salt(), 1, std::iter::empty()).unwrap()
    }

    fn found(dir: &Path) -> FoundJournal {
        FoundJournal::read(dir, row_mac().salt()).unwrap().unwrap()
    }

    /// Appends one batch of rows whose number is their place, from `seq` on.
    fn append(journal: &mut Journal, seq: u64, rows: &[(&[u8], Option<&[u8]>)]) {
        let numbered = (seq..).zip(rows);
        let rows: Vec<_> = numbered
            .map(|(seq, (key, value))| {
                let kind = if value.is_some() { RowKind::Journalled } else { RowKind::Removed };
                (*key, row_mac().row(key, seq, kind, value.unwrap_or_default()))
            })
            .collect();
        let entries: Vec<_> = rows.iter().map(|(key, row)| JournalEntry { key, row }).collect();
        journal.append(&entries).unwrap();
    }

    /// Every row as key and value, in order.
    fn values(found: &FoundJournal) -> Vec<(Vec<u8>, Vec<u8>)> {
        let value = |entry: JournalEntry<'_>| {
            let view = row_mac().read(entry.key, entry.row)?;
            Some((entry.key.to_vec(), entry.row[view.value].to_vec()))
        };
        found.entries().filter_map(value).collect()
    }

    /// A journal on disk from batches of values, its bytes, and where each batch lies.
    fn written(batches: &[Vec<Vec<u8>>]) -> (tempfile::TempDir, Vec<u8>, Vec<Range<usize>>) {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = fresh(dir.path());
        let (mut seq, mut ranges) = (1, Vec::new());
        for batch in batches {
            let start = journal.end as usize;
            let keys: Vec<_> = (seq..).take(batch.len()).map(u64::to_be_bytes).collect();
            let rows: Vec<_> =
                keys.iter().zip(batch).map(|(key, value)| (&key[..], Some(&value[..]))).collect();
            append(&mut journal, seq, &rows);
            seq += batch.len() as u64;
            ranges.push(start..journal.end as usize);
        }
        let bytes = std::fs::read(dir.path().join(JOURNAL)).unwrap();
        (dir, bytes, ranges)
    }

    fn scanned(bytes: Vec<u8>) -> FoundJournal {
        FoundJournal { scan: scan(&bytes, row_mac().salt()), bytes }
    }

    fn batches() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
        prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..4), 1..8)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn a_cut_loses_the_tail_and_nothing_else(batches in batches(), cut in any::<prop::sample::Index>()) {
            let (_dir, bytes, ranges) = written(&batches);
            let whole = values(&scanned(bytes.clone()));
            let cut = HEADER_BYTES + cut.index(bytes.len() + 1 - HEADER_BYTES);
            let left = scanned(bytes[..cut].to_vec());
            let kept: usize = ranges.iter().zip(&batches).filter(|(range, _)| range.end <= cut).map(|(_, b)| b.len()).sum();
            prop_assert_eq!(values(&left), &whole[..kept]);
            prop_assert!(left.is_whole());
        }

        #[test]
        fn changed_bytes_lose_only_their_own_batches_and_invent_nothing(
            batches in batches(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 1..6),
        ) {
            let (_dir, mut bytes, ranges) = written(&batches);
            let whole = values(&scanned(bytes.clone()));
            let original = bytes.clone();
            for (index, mask) in changes {
                let index = index.index(bytes.len());
                bytes[index] = original[index] ^ mask;
            }
            let hit = |range: &Range<usize>| bytes[range.clone()] != original[range.clone()];
            let mut kept = Vec::new();
            let mut from = 0;
            for (range, batch) in ranges.iter().zip(&batches) {
                if !hit(range) {
                    kept.extend_from_slice(&whole[from..from + batch.len()]);
                }
                from += batch.len();
            }
            let before_last = ranges.iter().rev().skip(1).any(hit) || bytes[..HEADER_BYTES] != original[..HEADER_BYTES];
            let last_hit = ranges.last().is_some_and(hit);
            let left = scanned(bytes.clone());
            prop_assert_eq!(values(&left), kept);
            prop_assert!(!(before_last && !last_hit && left.is_whole()), "damage must be told from a torn tail");
        }

        #[test]
        fn no_bytes_whatever_make_it_panic_or_yield_rows(
            bytes in prop::collection::vec(any::<u8>(), 0..2000), head in any::<bool>(),
        ) {
            let start = if head { header(row_mac().salt(), 1) } else { Vec::new() };
            let found = scanned([start, bytes].concat());
            prop_assert_eq!(values(&found), vec![]);
        }

        #[test]
        fn a_cut_and_changed_journal_can_be_resumed_or_replaced(
            batches in batches(),
            cut in any::<prop::sample::Index>(),
            change in any::<prop::sample::Index>(),
        ) {
            let (dir, mut bytes, _) = written(&batches);
            bytes.truncate(cut.index(bytes.len()) + 1);
            let index = change.index(bytes.len());
            bytes[index] ^= 0x40;
            std::fs::write(dir.path().join(JOURNAL), &bytes).unwrap();
            let found = found(dir.path());
            let mut journal = if found.is_whole() {
                Journal::resume(dir.path(), &found).unwrap()
            } else {
                Journal::replace(dir.path(), row_mac().salt(), 1, found.entries()).unwrap()
            };
            prop_assert_eq!(std::fs::metadata(dir.path().join(JOURNAL)).unwrap().len(), journal.end);
            append(&mut journal, 1000, &[(b"after", Some(b"damage"))]);
            let mut expected = values(&found);
            expected.push((b"after".to_vec(), b"damage".to_vec()));
            let again = FoundJournal::read(dir.path(), row_mac().salt()).unwrap().unwrap();
            prop_assert_eq!(values(&again), expected);
            prop_assert!(again.is_whole());
        }
    }

    #[test]
    fn a_value_that_contains_a_frame_is_not_taken_for_one() {
        let inner = row_mac().row(b"epoch", 99, RowKind::Journalled, b"forged");
        let (forged, _) = frames(&[9; 8], &[JournalEntry { key: b"epoch", row: &inner }]);
        let (_dir, mut bytes, ranges) = written(&[vec![forged], vec![b"after".to_vec()]]);
        bytes[ranges[0].start + 5] ^= 1;
        let found = scanned(bytes);
        assert!(!found.is_whole());
        assert_eq!(values(&found).len(), 1);
    }

    #[test]
    fn rows_are_found_without_the_header_under_the_own_salt() {
        let (_dir, mut bytes, _) = written(&[vec![b"a".to_vec()], vec![b"b".to_vec()]]);
        bytes[..HEADER_BYTES].fill(0);
        let found = scanned(bytes);
        assert!(!found.is_whole());
        assert_eq!(values(&found).len(), 2);
    }

    #[test]
    fn a_batch_longer_than_a_frame_is_found_whole() {
        let large = vec![vec![7; VALUE_BYTES_MAX]; 3];
        let (_dir, bytes, _) = written(std::slice::from_ref(&large));
        assert_eq!(values(&scanned(bytes)).into_iter().map(|(_, value)| value).collect::<Vec<_>>(), large);
    }

    #[test]
    fn compaction_keeps_what_lives_and_the_removals_sled_has_not_heard_of() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = fresh(dir.path());
        append(&mut journal, 1, &[(b"gone", Some(b"1")), (b"lost", Some(b"2")), (b"kept", Some(b"3"))]);
        append(&mut journal, 4, &[(b"gone", None), (b"lost", None)]);
        let noise = vec![1; 300_000];
        for seq in 6..12 {
            append(&mut journal, seq, &[(b"noise", Some(&noise))]);
            journal.compact_if_due(seq + 1, 4);
        }
        let left = found(dir.path());
        let keys: Vec<_> = values(&left).into_iter().map(|(key, _)| key).collect();
        assert!(!keys.contains(&b"gone".to_vec()) && keys.contains(&b"lost".to_vec()), "removals {keys:?}");
        assert!(journal.holds(b"kept") && !journal.holds(b"lost"));
        assert_eq!(left.next_seq(), 12);
    }

    #[test]
    fn each_point_at_which_a_compaction_may_be_cut_off_leaves_all_rows() {
        let noise = vec![1; 300_000];
        for leftover in [&b""[..], b"AOPJ", &header(row_mac().salt(), 1), &[0; 4096]] {
            let dir = tempfile::tempdir().unwrap();
            let mut journal = fresh(dir.path());
            append(&mut journal, 1, &[(b"kept", Some(b"1"))]);
            drop(journal);
            std::fs::write(dir.path().join("journal.new"), leftover).unwrap(); // written in part, not renamed
            let mut journal = Journal::resume(dir.path(), &found(dir.path())).unwrap();
            for seq in 2..9 {
                append(&mut journal, seq, &[(b"noise", Some(&noise))]);
            }
            let before = std::fs::read(dir.path().join(JOURNAL)).unwrap();
            journal.compact_if_due(9, 0);
            let after = std::fs::read(dir.path().join(JOURNAL)).unwrap();
            assert!(after.len() < before.len() / 4);
            for bytes in [before, after] {
                let found = scanned(bytes); // the rename is atomic: one or the other
                assert!(found.is_whole());
                let newest: BTreeMap<_, _> = values(&found).into_iter().collect();
                assert_eq!(newest.into_keys().collect::<Vec<_>>(), [b"kept".to_vec(), b"noise".to_vec()]);
            }
            append(&mut journal, 9, &[(b"later", Some(b"2"))]);
            assert_eq!(values(&found(dir.path())).last().unwrap().0, b"later");
        }
    }

    #[test]
    fn after_an_error_nothing_is_appended_until_a_whole_file_is_in_place_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = fresh(dir.path());
        append(&mut journal, 1, &[(b"a", Some(b"1"))]);
        let half = b"half a frame";
        let read_only = File::open(dir.path().join(JOURNAL)).unwrap();
        let mut writable = std::mem::replace(&mut journal.file, read_only);
        let row = row_mac().row(b"b", 2, RowKind::Journalled, b"2");
        let entry = JournalEntry { key: b"b", row: &row };
        assert!(matches!(journal.append(&[entry]), Err(StoreError::Io { .. })));
        writable.seek(SeekFrom::End(0)).unwrap();
        writable.write_all(half).unwrap();
        journal.file = writable;
        assert!(matches!(journal.append(&[entry]), Err(StoreError::JournalFailed { .. })));
        assert!(journal.failure().is_some_and(|reason| reason.contains("append to")));
        journal.recover(3, 0).unwrap();
        assert_eq!(journal.failure(), None);
        append(&mut journal, 3, &[(b"c", Some(b"3"))]);
        let found = found(dir.path());
        assert_eq!(values(&found), [(b"a".to_vec(), b"1".to_vec()), (b"c".to_vec(), b"3".to_vec())]);
        assert_eq!(found.scan.condition, Condition::Whole, "nothing of the failed append is left");
    }

    #[test]
    fn without_room_for_a_new_file_the_failed_append_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = fresh(dir.path());
        append(&mut journal, 1, &[(b"a", Some(b"1"))]);
        journal.file.seek(SeekFrom::End(0)).unwrap();
        journal.file.write_all(b"half a frame").unwrap();
        journal.failure = Some("no space".into());
        journal.cut().unwrap();
        append(&mut journal, 2, &[(b"b", Some(b"2"))]);
        let found = found(dir.path());
        assert_eq!(values(&found).len(), 2);
        assert_eq!(found.scan.condition, Condition::Whole);
    }

    #[test]
    fn a_compaction_that_fails_leaves_the_journal_and_it_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = fresh(dir.path());
        append(&mut journal, 1, &[(b"kept", Some(b"1"))]);
        let noise = vec![1; 300_000];
        for seq in 2..8 {
            append(&mut journal, seq, &[(b"noise", Some(&noise))]);
        }
        // Nobody can make a file under the name of a folder.
        let new = dir.path().join("journal.new");
        std::fs::create_dir(&new).unwrap();
        let before = journal.end;
        journal.compact_if_due(8, 0);
        assert_eq!((journal.end, journal.failure()), (before, None));
        append(&mut journal, 8, &[(b"later", Some(b"2"))]);
        assert_eq!(found(dir.path()).next_seq(), 9);
        std::fs::remove_dir(&new).unwrap();
        journal.compact_if_due(9, 0);
        assert!(journal.end > before, "it is not tried again at every write");
        for seq in 9..13 {
            append(&mut journal, seq, &[(b"noise", Some(&noise))]);
        }
        journal.compact_if_due(13, 0);
        assert!(journal.end < before);
        let newest: BTreeMap<_, _> = values(&found(dir.path())).into_iter().collect();
        assert_eq!(
            newest.into_keys().collect::<Vec<_>>(),
            [b"kept".to_vec(), b"later".to_vec(), b"noise".to_vec()]
        );
    }
}
