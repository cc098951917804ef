//! The durable store: a map from byte strings to byte strings that survives crashes and notices damage.
//! What the values are is not known here: signed records, and small counters.
//!
//! Two parts lie in the data directory. **sled** holds every row; what it is told waits in a bounded queue, and a thread
//! writes and flushes all of it together, after minutes or some MiB (see `writer`). The **journal** holds the rows that must
//! not be lost, the own writes; each batch is synced before [`Store::write`] returns. A durable row is in both, so that damage
//! of either loses nothing.
//!
//! Invariants: a durable write that was acknowledged is found again after a crash, even where it replaced or removed
//! another; a row that was not written here is never [`Authenticated::Yes`]; opening ends, whatever the files hold, and
//! tells in [`Loaded::incidents`] what was damaged. Values are never logged.
//!
//! A disk that fails or has no room ends nothing: [`Store::condition`] says what is still kept, and [`Store::recover`] goes on
//! once it can. While room is short sled is told nothing, so that what is left is for the journal.
//!
//! ```text
//! lock              held by the process that uses the folder; its pid
//! journal           own writes                 (see `journal`)
//! journal.suspect   own writes were lost and no durable write has followed yet
//! seal.key          key of the MACs           (see `row`)
//! sled/             everything
//! *.damaged-N       what was set aside, at most two of each
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::private_file::{self, FolderError};
use crate::proto::code::Code;
pub use crate::proto::io::{StoreCondition, UNFLUSHED_MAX, Write};
use disk::DiskStore;
pub use files::{Holder, holder};
pub use room::{FLOOR_BYTES, free_bytes};

mod disk;
mod files;
mod journal;
mod load;
mod room;
mod row;
mod tree;
mod writer;

/// How many bytes sled and the journal take of the folder `dir`.
pub(crate) fn file_sizes(dir: &Path) -> [(&'static str, u64); 2] {
    [("sled", tree::SLED), ("journal", journal::JOURNAL)]
        .map(|(name, file)| (name, files::size(&dir.join(file))))
}

/// Longest key, bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest value, bytes: twenty records of full size.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;

/// A row that was found when the store was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRow {
    /// Its key.
    pub key: Vec<u8>,
    /// Its value: these are the bytes that whoever keeps it holds.
    pub value: Arc<[u8]>,
    /// Whether it is known to be what this store wrote.
    pub authenticated: Authenticated,
}

/// Whether a row is known to be what this store wrote under this key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authenticated {
    /// Its keyed hash, made when it was written, is right.
    Yes,
    /// It is undamaged, but the MAC key was lost or somebody else wrote it: verify the signature, and write it again
    /// to authenticate it.
    No,
}

/// What [`Store::open`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Every row. A key occurs twice, with different values, where journal and sled disagree and a MAC is wrong, so
    /// that it cannot be told which is newer: the caller merges.
    pub rows: Vec<StoredRow>,
    /// What was damaged, and what was done about it.
    pub incidents: Vec<StoreIncident>,
    /// Whether own writes may be missing.
    pub journal: JournalState,
}

/// Whether own writes may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalState {
    /// A new folder, or one in which nothing was ever written.
    Fresh,
    /// Every acknowledged durable write is there.
    Whole,
    /// Acknowledged durable writes may be missing: take a new epoch and write it durably. The state is reported
    /// again at every start until a durable write has been made.
    Damaged,
}

/// Something an operator should know about the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreIncident {
    /// Stable code: `journal_damaged`, `journal_missing`, `seal_key_lost`, `seal_wrong`, `row_damaged`,
    /// `sled_damaged`, `sled_missing`, `sled_repaired`.
    pub code: Code,
    /// One sentence.
    pub message: String,
    /// What to do.
    pub fix: String,
}

/// Why something could not be done.
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
    /// Others can write to the folder.
    #[error(transparent)]
    Exposed(FolderError),
    /// A file of the folder is a link; nothing was touched.
    #[error(
        "{} is a link, and no link is followed in a data directory; remove it, or put the file in its place",
        .path.display()
    )]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// The folder is no longer the one that was opened; nothing was written.
    #[error(
        "{} was removed, moved or replaced while the node runs; put the same folder back, or start the node again",
        .dir.display()
    )]
    Displaced {
        /// The data directory.
        dir: PathBuf,
    },
    /// A file operation failed. Rows of the batch may or may not be on disk.
    #[error("cannot {action} {}: {source}; free disk space or check the disk", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The journal failed before or does not hold what was written to it; the batch was not written.
    #[error("the journal {} failed ({reason}); check the disk", .path.display())]
    JournalFailed {
        /// The journal.
        path: PathBuf,
        /// What had failed.
        reason: String,
    },
    /// sled failed. Durable rows are in the journal, the others come again from peers.
    #[error("sled failed ({reason}); free disk space or check the disk")]
    Sled {
        /// What it said.
        reason: String,
    },
    /// sled cannot be opened for want of room; nothing was changed.
    #[error("there is no room to open sled ({reason}); free disk space")]
    NoRoom {
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
    Disk(Box<DiskStore>),
    Memory(MemoryFolder),
}

/// What stands for a data directory where nothing is written to disk: tests, virtual time. Clones are the same folder.
#[derive(Clone, Default)]
pub struct MemoryFolder(Arc<Mutex<MemoryRows>>);

#[derive(Default)]
struct MemoryRows {
    rows: BTreeMap<Vec<u8>, Arc<[u8]>>,
    /// What every write is told.
    failure: Option<String>,
}

/// What [`Store::recover`] did.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Rows that are not durable and were written before may be missing: give them again.
    pub forgotten: bool,
    /// What was damaged, and what was done about it.
    pub incidents: Vec<StoreIncident>,
}

impl Store {
    /// Opens the store of `dir`, heals it and reads all of it. Creates the folder for this user alone if it is missing.
    ///
    /// Takes time in proportion to what is stored, and 10 s more for each time that sled hangs. Fails if another
    /// process uses the folder, it cannot be written, or the disk fails; damage of the files is no failure, and a disk
    /// without room is none where there is a journal: its rows are read, and [`Store::condition`] says that it is full.
    pub fn open(dir: &Path) -> Result<(Store, Loaded), StoreError> {
        let (disk, loaded) = load::open(dir)?;
        Ok((Store(Backing::Disk(Box::new(disk))), loaded))
    }

    /// A store whose rows live in `folder` and are gone with the last clone of it.
    pub fn in_memory(folder: &MemoryFolder) -> (Store, Loaded) {
        let rows = folder.rows();
        // Memory loses nothing while its folder lives, so it is never damaged.
        let journal = if rows.is_empty() { JournalState::Fresh } else { JournalState::Whole };
        let loaded = Loaded { rows, incidents: Vec::new(), journal };
        (Store(Backing::Memory(folder.clone())), loaded)
    }

    /// Makes the changes in their order. When it returns, every durable one is on disk (one sync for the batch), and
    /// the others are queued for sled: a crash may lose those of the last [`UNFLUSHED_MAX`], some MiB.
    ///
    /// A durable batch up to 1 MiB is found whole or not at all after a crash. Blocks while 8,192 rows or 32 MiB wait
    /// for sled. After an error no durable row of the batch counts as written, and none is taken until
    /// [`Store::recover`] has worked; [`Store::condition`] says so, and what of the rest is kept.
    pub fn write(&mut self, batch: impl AsRef<[Write]>) -> Result<(), StoreError> {
        let batch = batch.as_ref();
        batch.iter().try_for_each(check_length)?;
        match &mut self.0 {
            Backing::Disk(disk) => disk.write(batch),
            Backing::Memory(folder) => folder.write(batch),
        }
    }

    /// What it can do at present, as its last call found it.
    pub fn condition(&self) -> StoreCondition {
        match &self.0 {
            Backing::Disk(disk) => disk.condition(),
            Backing::Memory(folder) => folder.condition(),
        }
    }

    /// Looks how much room there is and whether the files are where they were: [`Store::condition`] then tells of it. Cheap.
    pub fn look(&mut self) {
        if let Backing::Disk(disk) = &mut self.0 {
            disk.look();
        }
    }

    /// Looks whether there is room again, and mends what failed. May block for as long as [`Store::open`].
    pub fn recover(&mut self) -> Recovery {
        match &mut self.0 {
            Backing::Disk(disk) => disk.recover(),
            Backing::Memory(_) => Recovery::default(),
        }
    }

    /// Writes what is queued and flushes, within 3 s. Dropping the store does the same and tells nothing.
    pub fn close(self) -> Result<(), StoreError> {
        match self.0 {
            Backing::Disk(mut disk) => disk.close(),
            Backing::Memory(_) => Ok(()),
        }
    }
}

fn check_length(write: &Write) -> Result<(), StoreError> {
    let value_bytes = write.value.as_ref().map_or(0, |value| value.len());
    let lengths = [(write.key.len(), KEY_BYTES_MAX), (value_bytes, VALUE_BYTES_MAX)];
    match lengths.into_iter().find(|(bytes, limit)| bytes > limit) {
        Some((bytes, limit)) => Err(StoreError::TooLong { bytes, limit }),
        None => Ok(()),
    }
}

impl MemoryFolder {
    /// From now on writes fail with this reason, as on a disk that is full; without one they work again.
    pub fn set_failure(&self, reason: Option<&str>) {
        self.lock().failure = reason.map(str::to_owned);
    }

    fn rows(&self) -> Vec<StoredRow> {
        let stored = |(key, value): (&Vec<u8>, &Arc<[u8]>)| StoredRow {
            key: key.clone(),
            value: value.clone(),
            authenticated: Authenticated::Yes,
        };
        self.lock().rows.iter().map(stored).collect()
    }

    fn write(&self, batch: &[Write]) -> Result<(), StoreError> {
        let mut folder = self.lock();
        if let Some(reason) = &folder.failure {
            return Err(StoreError::JournalFailed { path: PathBuf::from("memory"), reason: reason.clone() });
        }
        for Write { key, value, .. } in batch {
            match value {
                Some(value) => folder.rows.insert(key.clone(), value.clone()),
                None => folder.rows.remove(key),
            };
        }
        Ok(())
    }

    fn condition(&self) -> StoreCondition {
        self.lock().failure.clone().map_or(StoreCondition::Well, StoreCondition::Failed)
    }

    fn lock(&self) -> MutexGuard<'_, MemoryRows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StoreError {
    /// What went wrong, without what to do about it, and without where: it is told to whoever asks the node.
    pub(crate) fn cause(&self) -> String {
        let file = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match self {
            StoreError::Io { action, path, source } => format!("cannot {action} `{}`: {source}", file(path)),
            StoreError::JournalFailed { path, reason } => format!("`{}` failed: {reason}", file(path)),
            StoreError::Displaced { .. } => {
                "the data folder was removed, moved or replaced while the node runs".into()
            }
            StoreError::Sled { reason } | StoreError::NoRoom { reason } => format!("sled failed: {reason}"),
            error => error.to_string(),
        }
    }

    fn is_no_room(&self) -> bool {
        match self {
            StoreError::Io { source, .. } => room::is_no_room(source.kind()),
            StoreError::NoRoom { .. } => true,
            _ => false,
        }
    }

    /// Turns an error of the system into one that names the action and the file.
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
        let path = path.to_owned();
        move |source| match private_file::is_link(&source) {
            true => StoreError::Link { path },
            false => StoreError::Io { action, path, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::row::{RowKind, RowMac};
    use super::*;

    fn put(key: &str, value: &str, durable: bool) -> Write {
        Write { key: key.into(), value: Some(value.as_bytes().into()), durable }
    }

    fn remove(key: &str, durable: bool) -> Write {
        Write { key: key.into(), value: None, durable }
    }

    fn rows(loaded: &Loaded) -> Vec<(String, String, Authenticated)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut rows: Vec<_> =
            loaded.rows.iter().map(|row| (text(&row.key), text(&row.value), row.authenticated)).collect();
        rows.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        rows
    }

    fn authentic(rows: &[(&str, &str)]) -> Vec<(String, String, Authenticated)> {
        rows.iter().map(|(key, value)| (key.to_string(), value.to_string(), Authenticated::Yes)).collect()
    }

    fn codes(loaded: &Loaded) -> Vec<&'static str> {
        loaded.incidents.iter().map(|incident| incident.code.text()).collect()
    }

    /// Opens, writes and closes.
    fn write_once(dir: &Path, batch: Vec<Write>) -> Loaded {
        let (mut store, loaded) = Store::open(dir).unwrap();
        store.write(batch).unwrap();
        store.close().unwrap();
        loaded
    }

    #[test]
    fn what_was_written_is_there_after_a_restart_and_what_was_removed_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let batch =
            vec![put("a", "1", true), put("b", "2", false), put("c", "3", true), put("a", "4", false)];
        let loaded = write_once(dir.path(), batch);
        assert_eq!(loaded, Loaded { rows: vec![], incidents: vec![], journal: JournalState::Fresh });
        let loaded =
            write_once(dir.path(), vec![remove("b", false), remove("c", true), put("d", "5", false)]);
        assert_eq!(rows(&loaded), authentic(&[("a", "4"), ("b", "2"), ("c", "3")]));
        let (_store, loaded) = Store::open(dir.path()).unwrap();
        assert_eq!(rows(&loaded), authentic(&[("a", "4"), ("d", "5")]));
        assert_eq!((loaded.incidents.len(), loaded.journal), (0, JournalState::Whole));
    }

    #[test]
    fn a_store_in_memory_keeps_its_rows_for_the_next_start_in_the_same_folder() {
        let folder = MemoryFolder::default();
        let (mut store, loaded) = Store::in_memory(&folder);
        assert_eq!(loaded.journal, JournalState::Fresh);
        store.write(vec![put("a", "1", true), put("b", "2", false), remove("a", true)]).unwrap();
        store.close().unwrap();
        let (_store, loaded) = Store::in_memory(&folder);
        assert_eq!((rows(&loaded), loaded.journal), (authentic(&[("b", "2")]), JournalState::Whole));
    }

    #[test]
    fn a_second_store_of_one_folder_is_refused_and_told_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let (_store, _) = Store::open(dir.path()).unwrap();
        let refused = Store::open(dir.path()).err().unwrap();
        assert!(matches!(refused, StoreError::InUse { pid: Some(pid), .. } if pid == std::process::id()));
        assert!(refused.to_string().contains("is in use by another node (process "), "{refused}");
    }

    #[test]
    fn who_only_looks_is_told_who_uses_a_folder_and_leaves_nothing_there() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(holder(dir.path()).unwrap(), None);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let (store, _) = Store::open(dir.path()).unwrap();
        assert_eq!(holder(dir.path()).unwrap(), Some(Holder::Process(Some(std::process::id()))));
        store.close().unwrap();
        assert_eq!(holder(dir.path()).unwrap(), Some(Holder::Nobody));
        assert!(Store::open(dir.path()).is_ok(), "the look is over");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_refused_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let refused = Store::open(&file.join("data")).err().unwrap();
        assert!(matches!(refused, StoreError::NotWritable { .. }));
        assert!(refused.to_string().contains("file/data"), "{refused}");
    }

    #[cfg(unix)]
    #[test]
    fn the_folder_and_its_secret_are_for_this_user_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("new/data");
        write_once(&data, vec![put("a", "1", true)]);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&data), 0o700);
        assert_eq!([mode(&data.join("seal.key")), mode(&data.join("journal"))], [0o600, 0o600]);
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_others_can_write_to_is_refused_and_nothing_is_made_in_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let refused = Store::open(dir.path()).err().unwrap();
        assert!(refused.to_string().contains("run `chmod 700"), "{refused}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn no_planted_link_is_followed_whatever_file_it_stands_for() {
        let names =
            ["lock", "journal", "journal.new", "seal.key", "sled", "sled/db", "sled/conf", "sled/blobs"];
        for name in names {
            let dir = tempfile::tempdir().unwrap();
            write_once(dir.path(), vec![put("a", "1", true)]);
            let elsewhere = tempfile::tempdir().unwrap();
            let precious = elsewhere.path().join("precious");
            let planted = dir.path().join(name);
            if planted.is_dir() {
                std::fs::remove_dir_all(&planted).unwrap();
                std::os::unix::fs::symlink(elsewhere.path(), &planted).unwrap();
            } else {
                _ = std::fs::remove_file(&planted);
                std::os::unix::fs::symlink(&precious, &planted).unwrap();
            }
            std::fs::write(&precious, "precious").unwrap();
            match Store::open(dir.path()) {
                Err(refused) => {
                    assert!(matches!(&refused, StoreError::Link { path } if *path == planted), "{refused}");
                    assert!(refused.to_string().contains("remove it"), "{refused}");
                }
                // It is never read, and made anew under another name.
                Ok(_) => assert_eq!(name, "journal.new"),
            }
            let left: Vec<_> = std::fs::read_dir(elsewhere.path()).unwrap().collect();
            assert_eq!(left.len(), 1, "{name}");
            assert_eq!(std::fs::read(&precious).unwrap(), b"precious", "{name}");
        }
    }

    #[test]
    fn a_row_that_is_too_long_is_refused_before_anything_of_its_batch_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = Store::open(dir.path()).unwrap();
        let long = Write { key: vec![0; KEY_BYTES_MAX + 1], value: None, durable: true };
        let refused = store.write(vec![put("a", "1", true), long]).unwrap_err();
        assert!(matches!(refused, StoreError::TooLong { bytes, .. } if bytes == KEY_BYTES_MAX + 1));
        store.close().unwrap();
        let (mut store, loaded) = Store::open(dir.path()).unwrap();
        assert!(loaded.rows.is_empty());
        let longest = Write {
            key: vec![7; KEY_BYTES_MAX],
            value: Some(vec![9; VALUE_BYTES_MAX].into()),
            durable: true,
        };
        store.write(vec![longest.clone()]).unwrap();
        store.close().unwrap();
        let (_store, loaded) = Store::open(dir.path()).unwrap();
        assert_eq!(Some(&loaded.rows[0].value), longest.value.as_ref());
    }

    #[test]
    fn a_lost_journal_is_reported_at_every_start_until_a_durable_write_was_made() {
        let dir = tempfile::tempdir().unwrap();
        write_once(dir.path(), vec![put("own", "1", true), put("other", "2", false)]);
        std::fs::remove_file(dir.path().join("journal")).unwrap();
        let loaded = write_once(dir.path(), vec![put("other", "3", false)]);
        assert_eq!((codes(&loaded), loaded.journal), (vec!["journal_missing"], JournalState::Damaged));
        assert_eq!(rows(&loaded), authentic(&[("other", "2"), ("own", "1")]));
        let loaded = write_once(dir.path(), vec![put("epoch", "1", true)]);
        assert_eq!((codes(&loaded), loaded.journal), (vec![], JournalState::Damaged));
        let (_store, loaded) = Store::open(dir.path()).unwrap();
        assert_eq!(loaded.journal, JournalState::Whole);
        assert_eq!(rows(&loaded), authentic(&[("epoch", "1"), ("other", "3"), ("own", "1")]));
    }

    #[test]
    fn without_its_mac_key_every_row_has_to_be_verified_again() {
        let dir = tempfile::tempdir().unwrap();
        write_once(dir.path(), vec![put("own", "1", true), put("other", "2", false)]);
        std::fs::write(dir.path().join("seal.key"), "short").unwrap();
        let loaded = write_once(dir.path(), vec![put("other", "2", false), put("own", "1", true)]);
        assert_eq!((codes(&loaded), loaded.journal), (vec!["seal_key_lost"], JournalState::Whole));
        assert!(
            loaded.rows.len() == 2 && loaded.rows.iter().all(|row| row.authenticated == Authenticated::No)
        );
        let (_store, loaded) = Store::open(dir.path()).unwrap();
        assert_eq!((codes(&loaded), rows(&loaded)), (vec![], authentic(&[("other", "2"), ("own", "1")])));
    }

    #[test]
    fn rows_written_under_another_mac_key_are_returned_and_not_authenticated() {
        let dir = tempfile::tempdir().unwrap();
        write_once(dir.path(), vec![put("own", "1", true), put("other", "2", false)]);
        std::fs::write(dir.path().join("seal.key"), [1; 32]).unwrap();
        let (_store, loaded) = Store::open(dir.path()).unwrap();
        assert_eq!((codes(&loaded), loaded.journal), (vec!["seal_wrong"], JournalState::Whole));
        assert!(
            loaded.rows.len() == 2 && loaded.rows.iter().all(|row| row.authenticated == Authenticated::No)
        );
    }

    /// A crash between journal and sled, as sled sees it: its folder is put back to what it was before.
    fn with_sled_of_before(first: Vec<Write>, second: Vec<Write>) -> (tempfile::TempDir, Loaded) {
        let dir = tempfile::tempdir().unwrap();
        write_once(dir.path(), first);
        let before = tempfile::tempdir().unwrap();
        copy(&dir.path().join("sled"), &before.path().join("sled"));
        write_once(dir.path(), second);
        std::fs::remove_dir_all(dir.path().join("sled")).unwrap();
        copy(&before.path().join("sled"), &dir.path().join("sled"));
        let (store, loaded) = Store::open(dir.path()).unwrap();
        store.close().unwrap();
        (dir, loaded)
    }

    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &target);
            } else {
                std::fs::copy(entry.path(), target).unwrap();
            }
        }
    }

    #[test]
    fn what_sled_had_not_heard_of_comes_from_the_journal_and_heals_sled() {
        let first = vec![put("a", "old", true), put("gone", "x", true), put("plain", "x", false)];
        let second =
            vec![put("a", "new", true), remove("gone", true), put("b", "1", true), remove("plain", true)];
        let (dir, loaded) = with_sled_of_before(first, second);
        assert_eq!(rows(&loaded), authentic(&[("a", "new"), ("b", "1")]));
        assert_eq!((codes(&loaded), loaded.journal), (vec![], JournalState::Whole));
        std::fs::remove_file(dir.path().join("journal")).unwrap();
        let (_store, loaded) = Store::open(dir.path()).unwrap();
        assert_eq!(rows(&loaded), authentic(&[("a", "new"), ("b", "1")]), "sled alone");
    }

    #[test]
    fn a_removed_row_stays_removed_after_compactions_and_a_crash() {
        let noise = |round: usize| put("noise", &"x".repeat(300_000 + round), true);
        let second = std::iter::once(remove("gone", true)).chain((0..40).map(noise));
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = Store::open(dir.path()).unwrap();
        store.write(vec![put("gone", "x", true)]).unwrap();
        for write in second {
            store.write(vec![write]).unwrap();
        }
        assert!(dir.path().join("journal").metadata().unwrap().len() < 3_000_000, "it was compacted");
        store.close().unwrap();
        let (_store, loaded) = Store::open(dir.path()).unwrap();
        assert_eq!(loaded.rows.iter().map(|row| &row.key[..]).collect::<Vec<_>>(), [b"noise"]);
    }

    #[test]
    fn a_removal_that_was_compacted_away_holds_against_a_sled_that_fell_back() {
        let dir = tempfile::tempdir().unwrap();
        write_once(dir.path(), vec![put("gone", "x", true), put("kept", "1", true)]);
        let before = tempfile::tempdir().unwrap();
        copy(&dir.path().join("sled"), &before.path().join("sled"));
        write_once(dir.path(), vec![remove("gone", true)]);
        let (mut store, _) = Store::open(dir.path()).unwrap();
        for _ in 0..6 {
            store.write(vec![put("noise", &"x".repeat(300_000), true)]).unwrap();
        }
        store.close().unwrap();
        let journal = std::fs::read(dir.path().join("journal")).unwrap();
        assert!(!journal.windows(4).any(|window| window == b"gone"), "the removal is forgotten");
        std::fs::remove_dir_all(dir.path().join("sled")).unwrap();
        copy(&before.path().join("sled"), &dir.path().join("sled"));
        let (_store, loaded) = Store::open(dir.path()).unwrap();
        assert_eq!(loaded.rows.iter().map(|row| &row.key[..]).collect::<Vec<_>>(), [&b"kept"[..], b"noise"]);
        assert_eq!((codes(&loaded), loaded.journal), (vec![], JournalState::Whole));
    }

    #[test]
    fn a_journal_older_than_sled_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        write_once(dir.path(), vec![put("a", "1", true)]);
        let journal = std::fs::read(dir.path().join("journal")).unwrap();
        write_once(dir.path(), vec![put("a", "2", true), put("b", "3", true)]);
        std::fs::write(dir.path().join("journal"), journal).unwrap();
        let (_store, loaded) = Store::open(dir.path()).unwrap();
        assert_eq!((codes(&loaded), loaded.journal), (vec!["journal_damaged"], JournalState::Damaged));
        assert_eq!(rows(&loaded), authentic(&[("a", "2"), ("b", "3")]));
    }

    #[test]
    fn a_key_is_durable_until_it_is_removed() {
        let first = vec![put("a", "1", true)];
        let second = vec![put("a", "2", false), put("b", "1", true), remove("b", false)];
        let (_dir, loaded) = with_sled_of_before(first, second);
        assert_eq!(rows(&loaded), authentic(&[("a", "2")]));
    }

    #[test]
    fn more_rows_than_the_queue_holds_all_arrive() {
        let dir = tempfile::tempdir().unwrap();
        let batch = (0..20_000).map(|index| put(&format!("{index:05}"), "value", false)).collect();
        write_once(dir.path(), batch);
        let (_store, loaded) = Store::open(dir.path()).unwrap();
        assert_eq!(loaded.rows.len(), 20_000);
    }

    /// Puts a row into sled behind the back of the store.
    fn plant(dir: &Path, key: &[u8], row: Vec<u8>) {
        let db = tree::open_patiently(&dir.join("sled")).unwrap();
        db.insert(key, row).unwrap();
        db.flush().unwrap();
    }

    #[test]
    fn a_planted_row_never_replaces_one_of_ours_and_is_not_authenticated() {
        for kind in [RowKind::Value, RowKind::Journalled] {
            let dir = tempfile::tempdir().unwrap();
            write_once(dir.path(), vec![put("own", "1", true), put("gone", "1", true), remove("gone", true)]);
            for (key, seq) in [(&b"own"[..], u64::MAX), (b"own", 2), (b"gone", u64::MAX)] {
                plant(dir.path(), key, RowMac::new(&[1; 32]).row(key, seq, kind, b"forged"));
            }
            plant(dir.path(), b"own", RowMac::new(&[1; 32]).row(b"own", u64::MAX, kind, b"forged"));
            let loaded = write_once(dir.path(), vec![put("next", "1", true)]);
            let mut expected = authentic(&[("own", "1")]);
            expected.push(("own".into(), "forged".into(), Authenticated::No));
            assert_eq!((rows(&loaded), codes(&loaded)), (expected, vec!["seal_wrong"]), "{kind:?}");
            assert_eq!(loaded.journal, JournalState::Whole);
            let (_store, loaded) = Store::open(dir.path()).unwrap();
            assert_eq!(rows(&loaded), authentic(&[("next", "1"), ("own", "1")]), "{kind:?}");
        }
    }

    #[test]
    fn a_row_with_a_wrong_crc_is_dropped_counted_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        write_once(dir.path(), vec![put("own", "1", true), put("other", "2", false)]);
        for key in [&b"own"[..], b"other"] {
            plant(dir.path(), key, vec![7; 100]);
        }
        let loaded = write_once(dir.path(), vec![]);
        assert_eq!((rows(&loaded), codes(&loaded)), (authentic(&[("own", "1")]), vec!["row_damaged"]));
        assert!(loaded.incidents[0].message.starts_with("2 rows"));
        let (_store, loaded) = Store::open(dir.path()).unwrap();
        assert_eq!((rows(&loaded), codes(&loaded)), (authentic(&[("own", "1")]), vec![]));
    }

    #[test]
    fn values_larger_than_a_segment_of_sled_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let big = |index: usize| put(&format!("{index}"), &"v".repeat(40_000 * index), false);
        write_once(dir.path(), (0..26).map(big).collect());
        let (_store, loaded) = Store::open(dir.path()).unwrap();
        assert_eq!(loaded.rows.iter().map(|row| row.value.len()).sum::<usize>(), 40_000 * 325);
    }
}
