//! The store on disk: journal and sled together, what each is told, and how both are mended while the node runs.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use super::journal::{Journal, JournalEntry};
use super::room::Room;
use super::row::{RowKind, RowMac, read_unauthenticated};
use super::tree::{ExpectedContents, OpenTree, SledTree, TreeRow};
use super::writer::{TreeWrite, Writer};
use super::{Recovery, StoreCondition, StoreError, Write, files, load};

/// Journalled rows of which sled is told at once when there is room again: as many as it takes in some milliseconds.
const UNTOLD_AT_ONCE: usize = 256;

/// The store of a folder.
pub(super) struct DiskStore {
    pub(super) dir: PathBuf,
    pub(super) row_mac: RowMac,
    pub(super) journal: Journal,
    pub(super) marker: JournalMarker,
    pub(super) tree: Tree,
    /// Keys of journalled rows of which sled was not told.
    pub(super) untold: BTreeSet<Vec<u8>>,
    pub(super) room: Room,
    /// Whether the folder is still the one that was opened.
    pub(super) displaced: bool,
    pub(super) next_seq: u64,
    /// Released when both the store and its thread are gone.
    pub(super) lock: Arc<File>,
}

/// Whether `journal.suspect` exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JournalMarker {
    Absent,
    Present,
}

/// sled, behind its thread.
pub(super) enum Tree {
    Running(Writer),
    /// It takes nothing any more.
    Failed {
        reason: String,
        /// The highest number up to which everything had reached its file.
        flushed_seq: u64,
    },
}

/// A change with its row made.
struct RowWrite {
    key: Vec<u8>,
    row: Vec<u8>,
    kind: RowKind,
    destination: Destination,
}

/// Where a change goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Destination {
    Both,
    SledAlone,
}

impl DiskStore {
    /// Looks how much room there is, and whether the files are still where they were.
    pub(super) fn look(&mut self) {
        self.room.look(&self.dir);
        self.displaced = !files::is_named(&self.lock, &self.dir.join(files::LOCK));
        self.journal.look();
    }

    pub(super) fn write(&mut self, batch: &[Write]) -> Result<(), StoreError> {
        self.look();
        if self.displaced {
            return Err(StoreError::Displaced { dir: self.dir.clone() });
        }
        let rows = self.make_rows(batch);
        // The journal first: a journalled row that sled alone has is taken for a lost end of the journal.
        self.journal_rows(&rows)?;
        self.tell_tree(rows);
        if !self.room.is_short() {
            self.tell_untold();
        }
        self.journal.compact_if_due(self.next_seq, self.tree.flushed_seq());
        Ok(())
    }

    pub(super) fn condition(&self) -> StoreCondition {
        if self.displaced {
            return StoreCondition::Failed(StoreError::Displaced { dir: self.dir.clone() }.cause());
        }
        match self.journal.failure().map(str::to_owned).or_else(|| self.tree.failure()) {
            Some(reason) => StoreCondition::Failed(reason),
            None if self.room.is_short() => StoreCondition::Short(self.room.to_string()),
            None => StoreCondition::Well,
        }
    }

    pub(super) fn recover(&mut self) -> Recovery {
        let mut recovery = Recovery::default();
        self.look();
        // What lies there now belongs to somebody else.
        if self.displaced {
            return recovery;
        }
        if self.journal.failure().is_some() {
            // What still fails is told by the journal itself.
            let _still_failed = self.journal.recover(self.next_seq, self.tree.flushed_seq());
        }
        if let Some(reason) = self.tree.failure() {
            let flushed_seq = self.tree.flushed_seq();
            // The last of its thread goes first, and with it the lock on sled's file, if sled lets go of it.
            self.tree = Tree::Failed { reason, flushed_seq };
            // Above every number in it, or a new row might lose against an old one at the next start.
            let mut highest = 0;
            let note = |rows: Vec<TreeRow>| {
                let seqs = rows.iter().filter_map(|(key, row)| read_unauthenticated(key, row));
                highest = seqs.map(|(seq, _)| seq).max().unwrap_or(0).max(highest);
            };
            match SledTree::open(&self.dir, ExpectedContents::Anything, note) {
                Ok(opened) => {
                    self.next_seq = self.next_seq.max(highest.min(load::SEQ_MAX - 1) + 1);
                    recovery = self.take_tree(opened, flushed_seq);
                }
                Err(error) => self.tree = Tree::Failed { reason: error.cause(), flushed_seq },
            }
        }
        if !self.room.is_short() {
            self.tell_untold();
        }
        recovery
    }

    /// Goes on with a tree that was opened again: it knows nothing of what was journalled meanwhile.
    fn take_tree(&mut self, opened: OpenTree, flushed_seq: u64) -> Recovery {
        let OpenTree { tree, incidents, .. } = opened;
        match Writer::start(tree, self.lock.clone(), flushed_seq) {
            Ok(writer) => {
                self.tree = Tree::Running(writer);
                self.untold = self.journal.keys().cloned().collect();
                Recovery { forgotten: true, incidents }
            }
            Err(error) => {
                self.tree = Tree::Failed { reason: error.cause(), flushed_seq };
                Recovery { forgotten: false, incidents }
            }
        }
    }

    pub(super) fn close(&mut self) -> Result<(), StoreError> {
        match &mut self.tree {
            Tree::Running(writer) => writer.close(),
            Tree::Failed { .. } => Ok(()),
        }
    }

    fn make_rows(&mut self, batch: &[Write]) -> Vec<RowWrite> {
        let mut journalled = BTreeSet::new();
        let mut rows = Vec::with_capacity(batch.len());
        for Write { key, value, durable } in batch {
            // What was durable stays so until it is removed, or a
            // crash could bring the older row back from the journal.
            let both = *durable || self.journal.holds(key) || journalled.contains(key);
            let (kind, destination) = match (value, both) {
                (None, true) => (RowKind::Removed, Destination::Both),
                (None, false) => (RowKind::Removed, Destination::SledAlone),
                (Some(_), true) => (RowKind::Journalled, Destination::Both),
                (Some(_), false) => (RowKind::Value, Destination::SledAlone),
            };
            if both {
                // `holds` knows only what was appended, and this batch is appended as a whole further on.
                journalled.insert(key);
            }
            let row = self.row_mac.row(key, self.next_seq, kind, value.as_deref().unwrap_or_default());
            self.next_seq += 1;
            rows.push(RowWrite { key: key.clone(), row, kind, destination });
        }
        rows
    }

    fn journal_rows(&mut self, rows: &[RowWrite]) -> Result<(), StoreError> {
        let both = rows.iter().filter(|row| row.destination == Destination::Both);
        let entries: Vec<_> = both.map(|write| JournalEntry { key: &write.key, row: &write.row }).collect();
        if entries.is_empty() {
            return Ok(());
        }
        self.journal.append(&entries)?;
        // Only now: the durable write that ends the suspicion is on disk. A mark that stays costs an epoch at the next start.
        if self.marker == JournalMarker::Present && files::remove(&load::suspect_path(&self.dir)).is_ok() {
            self.marker = JournalMarker::Absent;
        }
        Ok(())
    }

    /// Queues rows for sled. Own rows have room to wait in the journal; what was sent of others while there was room is
    /// still taken, for the floor leaves room for it.
    fn tell_tree(&mut self, rows: Vec<RowWrite>) {
        let mut writes = Vec::with_capacity(rows.len());
        for row in rows {
            if row.destination == Destination::Both && self.room.is_short() {
                self.untold.insert(row.key);
            } else {
                self.untold.remove(&row.key);
                writes.push(row.into_tree_write());
            }
        }
        self.push(writes);
    }

    /// Queues for sled what the journal has and it lacks.
    fn tell_untold(&mut self) {
        if self.untold.is_empty() {
            return;
        }
        let keys: Vec<Vec<u8>> = self.untold.iter().take(UNTOLD_AT_ONCE).cloned().collect();
        let mut writes = Vec::with_capacity(keys.len());
        for key in keys {
            // A row that cannot be read back is told by the next compaction; sled may have it.
            if let Ok(row) = self.journal.row(&key) {
                writes.push((key.clone(), row));
            }
            self.untold.remove(&key);
        }
        self.push(writes);
    }

    fn push(&mut self, writes: Vec<TreeWrite>) {
        let Tree::Running(writer) = &self.tree else { return };
        // Numbers begin at 1, so the difference is never negative. While sled lacks a row no number is raised: the journal
        // forgets removals up to it.
        let seq = if self.untold.is_empty() { self.next_seq - 1 } else { 0 };
        if let Err(error) = writer.push(writes, seq) {
            let flushed_seq = writer.flushed_seq();
            self.tree = Tree::Failed { reason: error.cause(), flushed_seq };
        }
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        let _ = self.close(); // the caller chose not to know
    }
}

impl Tree {
    /// Why it takes nothing more, if that is so.
    fn failure(&self) -> Option<String> {
        match self {
            Tree::Running(writer) => writer.check().err().map(|error| error.cause()),
            Tree::Failed { reason, .. } => Some(reason.clone()),
        }
    }

    fn flushed_seq(&self) -> u64 {
        match self {
            Tree::Running(writer) => writer.flushed_seq(),
            Tree::Failed { flushed_seq, .. } => *flushed_seq,
        }
    }
}

impl RowWrite {
    fn into_tree_write(self) -> TreeWrite {
        (self.key, (self.kind != RowKind::Removed).then_some(self.row))
    }
}
