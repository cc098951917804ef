//! The durable store: a map from byte strings to byte strings that survives crashes and notices damage (promise P2).
//! What the values are is not known here: signed records, and small counters.
//!
//! Two parts lie in the data directory. **sled** holds every row; a thread writes to it behind a bounded queue and
//! flushes twice a second. The **journal** holds the rows that must not be lost, the own writes; each batch is synced
//! before [`Store::write`] returns. A durable row is in both, so that damage of either loses nothing.
//!
//! Invariants: a durable write that was acknowledged is found again after a crash, even where it replaced or removed
//! another; a row that was not written here is never [`Trust::Sealed`]; opening ends, whatever the files hold, and
//! tells in [`Loaded::incidents`] what was damaged. Values are never logged.
//!
//! ```text
//! lock              held by the process that uses the folder; its pid
//! journal           own writes                 (see `journal`)
//! journal.suspect   own writes were lost and no durable write has followed yet
//! seal.key          key of the seals           (see `row`)
//! sled/             everything
//! *.damaged-N       what was set aside, at most two of each
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use journal::{Entry, Journal};
use row::{RowKind, Seal};
use writer::{TreeWrite, Writer};

mod files;
mod journal;
mod load;
mod row;
mod tree;
mod writer;

/// Longest key, bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest value, bytes: twenty records of full size.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// At most [`KEY_BYTES_MAX`] bytes.
    pub key: Vec<u8>,
    /// At most [`VALUE_BYTES_MAX`] bytes; `None` removes the key.
    pub value: Option<Arc<[u8]>>,
    /// Whether it must be on disk before [`Store::write`] returns. A key that was once written durably stays so until
    /// it is removed: later writes of it, and its removal, are durable whatever this says.
    pub durable: bool,
}

/// A row that was found when the store was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRow {
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// Whether it is known to be what this store wrote.
    pub trust: Trust,
}

/// Whether a row is known to be what this store wrote under this key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Its keyed hash, made when it was written, is right.
    Sealed,
    /// It is undamaged, but the seal key was lost or somebody else wrote it: verify the signature, and write it again
    /// to seal it.
    Unsealed,
}

/// What [`Store::open`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Every row. A key occurs twice, with different values, where journal and sled disagree and a seal is wrong, so
    /// that it cannot be told which is newer: the caller merges.
    pub rows: Vec<StoredRow>,
    /// What was damaged, and what was done about it.
    pub incidents: Vec<Incident>,
    /// Whether own writes may be missing.
    pub journal: JournalState,
}

/// Whether own writes may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalState {
    /// A new folder.
    Fresh,
    /// Every acknowledged durable write is there.
    Whole,
    /// Acknowledged durable writes may be missing: take a new epoch and write it durably. The state is reported
    /// again at every start until a durable write has been made.
    Damaged,
}

/// Something an operator should know about the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// Stable code: `journal_damaged`, `journal_missing`, `seal_key_lost`, `seal_wrong`, `row_damaged`,
    /// `sled_damaged`, `sled_missing`, `sled_snapshot_damaged`.
    pub code: &'static str,
    /// One sentence.
    pub message: String,
    /// What to do.
    pub fix: String,
}

/// Why the store cannot go on. After an error of [`Store::write`] end the process: what was acknowledged is on disk,
/// and the next start heals what is damaged.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the folder; nothing was touched.
    #[error("{} is in use by another node{}; stop it, or choose another data directory", .dir.display(),
        .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    InUse {
        /// The data directory.
        dir: PathBuf,
        /// Who holds it, as far as the lock file tells.
        pid: Option<u32>,
    },
    /// The folder cannot be created or written; nothing was touched.
    #[error("cannot write to the data directory {}: {source}; check its owner and mode", .dir.display())]
    NotWritable {
        /// The data directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file operation failed. Rows of the batch may or may not be on disk.
    #[error("cannot {action} {}: {source}; free disk space or check the disk, then start the node again",
        .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The journal failed before or does not hold what was written to it; the batch was not written.
    #[error("the journal {} failed; check the disk, then start the node again", .path.display())]
    JournalFailed {
        /// The journal.
        path: PathBuf,
    },
    /// sled failed in the background. Durable rows of the batch are on disk.
    #[error(
        "sled failed ({reason}); start the node again: it is rebuilt from what can be read and the journal"
    )]
    Sled {
        /// What it said.
        reason: String,
    },
    /// A key or value is too long; nothing of the batch was written.
    #[error("a row of {bytes} bytes exceeds the limit of {limit} of the store")]
    TooLong {
        /// Length of the key or value.
        bytes: usize,
        /// Most.
        limit: usize,
    },
    /// The writing thread cannot be started.
    #[error("cannot start the thread of the store: {source}; raise the limit of processes of this user")]
    Thread {
        /// What the system said.
        source: io::Error,
    },
    /// Closing took longer than 3 s. Durable rows are on disk; others come again from peers.
    #[error(
        "{rows} rows were not written within 3 s; durable rows are safe, the rest comes again from peers"
    )]
    NotDrained {
        /// How many wait.
        rows: usize,
    },
}

/// The store of one node. Its calls block; one task owns it.
pub struct Store(Backing);

enum Backing {
    Disk(Box<Disk>),
    Memory(MemoryFolder),
}

/// What stands for a data directory where nothing is written to disk: tests, virtual time. Clones are the same folder.
#[derive(Clone, Default)]
pub struct MemoryFolder(Arc<Mutex<BTreeMap<Vec<u8>, Arc<[u8]>>>>);

impl Store {
    /// Opens the store of `dir`, heals it and reads all of it. Creates the folder for this user alone if it is missing.
    ///
    /// Takes time in proportion to what is stored, and 10 s more for each time that sled hangs. Fails if another
    /// process uses the folder, it cannot be written, or the disk fails; damage of the files is no failure.
    pub fn open(dir: &Path) -> Result<(Store, Loaded), StoreError> {
        let (disk, loaded) = load::open(dir)?;
        Ok((Store(Backing::Disk(Box::new(disk))), loaded))
    }

    /// A store whose rows live in `folder` and are gone with the last clone of it.
    pub fn in_memory(folder: &MemoryFolder) -> (Store, Loaded) {
        let rows = folder.rows();
        let journal = if rows.is_empty() { JournalState::Fresh } else { JournalState::Whole };
        let loaded = Loaded { rows, incidents: Vec::new(), journal };
        (Store(Backing::Memory(folder.clone())), loaded)
    }

    /// Makes the changes in their order. When it returns, every durable one is on disk (one sync for the batch), and
    /// the others are queued for sled: a crash may lose the last half second of them.
    ///
    /// A durable batch up to 1 MiB is found whole or not at all after a crash. Blocks while 8,192 rows or 32 MiB wait
    /// for sled. After an error end the process (see [`StoreError`]).
    pub fn write(&mut self, batch: Vec<Write>) -> Result<(), StoreError> {
        batch.iter().try_for_each(judge_length)?;
        match &mut self.0 {
            Backing::Disk(disk) => disk.write(batch),
            Backing::Memory(folder) => {
                folder.write(batch);
                Ok(())
            }
        }
    }

    /// Writes what is queued and flushes, within 3 s. Dropping the store does the same and tells nothing.
    pub fn close(self) -> Result<(), StoreError> {
        match self.0 {
            Backing::Disk(mut disk) => disk.writer.close(),
            Backing::Memory(_) => Ok(()),
        }
    }
}

fn judge_length(write: &Write) -> Result<(), StoreError> {
    let value_bytes = write.value.as_ref().map_or(0, |value| value.len());
    let lengths = [(write.key.len(), KEY_BYTES_MAX), (value_bytes, VALUE_BYTES_MAX)];
    match lengths.into_iter().find(|(bytes, limit)| bytes > limit) {
        Some((bytes, limit)) => Err(StoreError::TooLong { bytes, limit }),
        None => Ok(()),
    }
}

impl MemoryFolder {
    fn rows(&self) -> Vec<StoredRow> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stored = |(key, value): (&Vec<u8>, &Arc<[u8]>)| StoredRow {
            key: key.clone(),
            value: value.to_vec(),
            trust: Trust::Sealed,
        };
        rows.iter().map(stored).collect()
    }

    fn write(&self, batch: Vec<Write>) {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for Write { key, value, .. } in batch {
            match value {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        }
    }
}

/// The store on disk.
struct Disk {
    dir: PathBuf,
    seal: Seal,
    journal: Journal,
    suspicion: Suspicion,
    writer: Writer,
    next_seq: u64,
    /// Released when both the store and its thread are gone.
    _lock: Arc<File>,
}

/// Whether `journal.suspect` exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suspicion {
    None,
    Marked,
}

/// A change with its row made.
struct Sealed {
    key: Vec<u8>,
    row: Vec<u8>,
    kind: RowKind,
    home: Home,
}

/// Where a change goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Home {
    Both,
    SledAlone,
}

impl Disk {
    fn write(&mut self, batch: Vec<Write>) -> Result<(), StoreError> {
        self.writer.check()?;
        let sealed = self.seal_batch(batch);
        self.journal_rows(&sealed)?;
        let writes = sealed.into_iter().map(Sealed::into_tree_write).collect();
        self.writer.push(writes, self.next_seq - 1)?;
        self.journal.compact_if_due(self.next_seq, self.writer.flushed_seq())
    }

    fn seal_batch(&mut self, batch: Vec<Write>) -> Vec<Sealed> {
        let mut journalled = BTreeSet::new();
        let mut sealed = Vec::with_capacity(batch.len());
        for Write { key, value, durable } in batch {
            let both = durable || self.journal.holds(&key) || journalled.contains(&key);
            let (kind, home) = match (&value, both) {
                (None, true) => (RowKind::Removed, Home::Both),
                (None, false) => (RowKind::Removed, Home::SledAlone),
                (Some(_), true) => (RowKind::Journalled, Home::Both),
                (Some(_), false) => (RowKind::Value, Home::SledAlone),
            };
            if both {
                journalled.insert(key.clone());
            }
            let row = self.seal.row(&key, self.next_seq, kind, value.as_deref().unwrap_or_default());
            self.next_seq += 1;
            sealed.push(Sealed { key, row, kind, home });
        }
        sealed
    }

    fn journal_rows(&mut self, sealed: &[Sealed]) -> Result<(), StoreError> {
        let both = sealed.iter().filter(|sealed| sealed.home == Home::Both);
        let entries: Vec<_> = both.map(|sealed| Entry { key: &sealed.key, row: &sealed.row }).collect();
        if entries.is_empty() {
            return Ok(());
        }
        self.journal.append(&entries)?;
        if self.suspicion == Suspicion::Marked {
            files::remove(&load::suspect_path(&self.dir))?;
            self.suspicion = Suspicion::None;
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.writer.close(); // the caller chose not to know
    }
}

impl Sealed {
    fn into_tree_write(self) -> TreeWrite {
        (self.key, (self.kind != RowKind::Removed).then_some(self.row))
    }
}

impl StoreError {
    /// Turns an error of the system into one that names the action and the file.
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
        let path = path.to_owned();
        move |source| StoreError::Io { action, path, source }
    }
}
