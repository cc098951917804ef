//! sled, handled as something that may fail in every way: `open` may return an error, panic or hang, and iteration
//! may yield one error for ever. Whatever happens, the answer is a tree that works and the rows that could be read.

use std::any::Any;
use std::fs;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::room::is_no_room;
use super::writer::TreeWrite;
use super::{StoreError, StoreIncident, files};
use crate::proto::code::Code;

/// Name of sled's folder in the data directory.
pub(super) const SLED: &str = "sled";
/// sled's page cache. Queries are answered from memory and never from here.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// How often a page is looked at until it has a turn to leave the cache. sled counts 64 looks in each of 256 parts of its cache
/// before any page leaves that part: pages that are read once, or written now and then, would all stay.
const LOOKS: usize = 16;
/// Longest time without progress before sled is given up; opening 1 GB takes 1.2 s.
const OPEN_WAIT: Duration = Duration::from_secs(10);
/// A second more for so many bytes of a large store: what a slow disk reads in that time.
const OPEN_BYTES_PER_SECOND: u64 = 100 * 1024 * 1024;
/// How long the lock on a file that was just closed may linger in sled's own threads.
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// Rows sent at once from the reading thread; the channel holds [`CHUNKS`] of them.
const CHUNK_ROWS: usize = 1024;
const CHUNKS: usize = 4;
/// Rows sled applies at once: larger gains nothing, and one batch of the largest rows stays at 16 MiB.
const BATCH_ROWS: usize = 256;

/// Key and row, as sled lends them.
pub(super) type TreeRow = (sled::IVec, sled::IVec);

/// sled, open.
pub(super) struct SledTree(sled::Db);

/// What [`SledTree::open`] found.
pub(super) struct OpenTree {
    /// The tree, which works; after damage it is empty.
    pub(super) tree: SledTree,
    /// See there.
    pub(super) contents: Contents,
    /// What was damaged.
    pub(super) incidents: Vec<StoreIncident>,
}

/// Whether the tree holds the rows that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contents {
    /// It does.
    Kept,
    /// It is new: they have to be written again.
    Saved,
}

/// Whether an earlier start got as far as making the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExpectedContents {
    /// It did.
    Rows,
    /// There may be none yet.
    Anything,
}

impl SledTree {
    /// Opens the tree of `dir`, and gives all its rows to `take` while it reads on: those of a damaged one as far as they can
    /// be saved.
    pub(super) fn open(
        dir: &Path,
        expectation: ExpectedContents,
        mut take: impl FnMut(Vec<TreeRow>),
    ) -> Result<OpenTree, StoreError> {
        let folder = dir.join(SLED);
        refuse_links(&folder)?;
        // Looked at first, because the attempt makes the file.
        let emptied = emptied(&folder, expectation);
        let first = attempt(&folder, &mut take);
        let attempt = match first.failure {
            // Only where opening failed: a folder that a hanging
            // thread still holds would hang the next one too.
            // Without room they are what makes some.
            Some(OpenFailure::Refused(_) | OpenFailure::NoRoom(_)) if remove_snapshots(&folder) => {
                attempt(&folder, &mut take)
            }
            _ => return conclude(&folder, first, emptied.into_iter().collect()),
        };
        let repaired = attempt.failure.is_none().then(snapshots_removed);
        conclude(&folder, attempt, emptied.into_iter().chain(repaired).collect())
    }

    /// Sets the tree aside and starts an empty one.
    pub(super) fn start_again(
        self,
        dir: &Path,
        reason: &str,
    ) -> Result<(SledTree, StoreIncident), StoreError> {
        std::mem::forget(self); // dropping a sled that failed may hang
        start_empty(&dir.join(SLED), reason)
    }

    /// Writes rows; they reach the file with the next [`SledTree::flush`].
    pub(super) fn write(&self, rows: Vec<TreeWrite>) -> Result<(), String> {
        for rows in rows.chunks(BATCH_ROWS) {
            let mut batch = sled::Batch::default();
            for (key, row) in rows {
                match row {
                    Some(row) => batch.insert(key.as_slice(), row.as_slice()),
                    None => batch.remove(key.as_slice()),
                }
            }
            self.0.apply_batch(batch).map_err(|error| error.to_string())?;
            rows.iter().for_each(|(key, _)| (0..LOOKS).for_each(|_| look_at(&self.0, key)));
        }
        Ok(())
    }

    /// Writes rows and flushes; a panic is an error.
    pub(super) fn write_through(&self, rows: Vec<TreeWrite>) -> Result<(), String> {
        let written = catch_unwind(AssertUnwindSafe(|| self.write(rows).and_then(|()| self.flush())));
        written.unwrap_or_else(|panic| Err(panic_text(panic.as_ref())))
    }

    /// Hands everything written to the operating system.
    pub(super) fn flush(&self) -> Result<(), String> {
        self.0.flush().map(drop).map_err(|error| error.to_string())
    }
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panic").to_owned()
}

struct Attempt {
    db: Option<sled::Db>,
    failure: Option<OpenFailure>,
}

enum OpenFailure {
    /// There is no room for what opening writes: nothing is known to be damaged.
    NoRoom(String),
    /// Opening failed or panicked.
    Refused(String),
    /// It opened, and reading failed or panicked; or nothing moved any more.
    Unreadable(String),
}

enum ReadEvent {
    Opened,
    Rows(Vec<TreeRow>),
    Done(sled::Db),
    Failed(OpenFailure),
}

/// Opens and reads on a thread of its own. A thread that hangs is left behind: its files are moved aside under it.
fn attempt(folder: &Path, take: &mut dyn FnMut(Vec<TreeRow>)) -> Attempt {
    let (sender, receiver) = sync_channel(CHUNKS);
    let thread = std::thread::Builder::new().name("store-open".into());
    let spawned = thread.spawn({
        let folder = folder.to_owned();
        move || open_and_read(&folder, &sender)
    });
    match spawned {
        Ok(_detached) => listen(&receiver, OPEN_WAIT + allowance(folder), take),
        Err(error) => Attempt { db: None, failure: Some(OpenFailure::Unreadable(error.to_string())) },
    }
}

fn allowance(folder: &Path) -> Duration {
    let bytes = fs::metadata(folder.join("db")).map_or(0, |file| file.len());
    Duration::from_secs(bytes / OPEN_BYTES_PER_SECOND)
}

fn listen(
    receiver: &Receiver<ReadEvent>,
    open_wait: Duration,
    take: &mut dyn FnMut(Vec<TreeRow>),
) -> Attempt {
    let failed = |failure| Attempt { db: None, failure: Some(failure) };
    let mut wait = open_wait;
    loop {
        match receiver.recv_timeout(wait) {
            // From here on every chunk is progress, so the size of the file no longer stretches the wait.
            Ok(ReadEvent::Opened) => wait = OPEN_WAIT,
            Ok(ReadEvent::Rows(rows)) => take(rows),
            Ok(ReadEvent::Done(db)) => return Attempt { db: Some(db), failure: None },
            Ok(ReadEvent::Failed(failure)) => return failed(failure),
            Err(RecvTimeoutError::Timeout) => {
                let text = format!("no progress in {} s", wait.as_secs());
                return failed(OpenFailure::Unreadable(text));
            }
            Err(RecvTimeoutError::Disconnected) => {
                let text = "the reading thread ended".to_owned();
                return failed(OpenFailure::Unreadable(text));
            }
        }
    }
}

fn open_and_read(folder: &Path, sender: &SyncSender<ReadEvent>) {
    let db = match catch_unwind(AssertUnwindSafe(|| open_patiently(folder))) {
        Ok(Ok(db)) => db,
        Ok(Err(error)) => return send(sender, ReadEvent::Failed(OpenFailure::of(&error))),
        Err(panic) => {
            return send(sender, ReadEvent::Failed(OpenFailure::Refused(panic_text(panic.as_ref()))));
        }
    };
    send(sender, ReadEvent::Opened);
    let mut reading = RowReader { db: &db, sender, chunk: Vec::new(), last: None };
    // A damaged page makes sled panic as easily as fail; both end here as a text.
    let read = caught(|| reading.take_until_error(db.iter()));
    if let Err(text) = read {
        // Saves what lies behind the damage; that it ends at the damage too is expected.
        reading.send_chunk();
        let rest = reading.last.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let _ = caught(|| reading.take_until_error(db.range((rest, Bound::Unbounded)).rev()));
        reading.send_chunk();
        send(sender, ReadEvent::Failed(OpenFailure::Unreadable(text)));
        return drop(db); // last, because it may hang
    }
    reading.send_chunk();
    send(sender, ReadEvent::Done(db));
}

fn send(sender: &SyncSender<ReadEvent>, event: ReadEvent) {
    let _ = sender.send(event); // nobody listens any more after a time-out
}

fn caught<T>(step: impl FnOnce() -> sled::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => Err(panic_text(panic.as_ref())),
    }
}

/// sled's own threads, or a program that is just being started, may hold the lock of a store this process has just closed
/// a little longer.
pub(super) fn open_patiently(folder: &Path) -> sled::Result<sled::Db> {
    let started = Instant::now();
    loop {
        // No flushes of its own: the writer must know up to which number everything is flushed.
        let config = sled::Config::new().path(folder).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        match config.open() {
            Err(sled::Error::Io(error))
                if error.to_string().contains("acquire lock") && started.elapsed() < LOCK_WAIT =>
            {
                std::thread::sleep(Duration::from_millis(10)); // sled offers nothing to wait for
            }
            result => return result,
        }
    }
}

/// Rows on their way out of the reading thread; what was read before a panic is still here after it.
struct RowReader<'a> {
    db: &'a sled::Db,
    sender: &'a SyncSender<ReadEvent>,
    chunk: Vec<TreeRow>,
    last: Option<sled::IVec>,
}

impl RowReader<'_> {
    /// Takes rows up to the first error: sled's iterators yield an error for ever.
    fn take_until_error(&mut self, rows: impl Iterator<Item = sled::Result<TreeRow>>) -> sled::Result<()> {
        for row in rows {
            let row = row?;
            // A page has about as many rows as it needs looks.
            look_at(self.db, &row.0);
            self.chunk.push(row);
            if self.chunk.len() == CHUNK_ROWS {
                self.send_chunk();
            }
        }
        Ok(())
    }

    fn send_chunk(&mut self) {
        // An empty chunk keeps the last key: reading from the far end stops where the first pass did.
        self.last = self.chunk.last().map(|(key, _)| key.clone()).or(self.last.take());
        send(self.sender, ReadEvent::Rows(std::mem::take(&mut self.chunk)));
    }
}

/// Looks at the page of a key, which is in the cache.
fn look_at(db: &sled::Db, key: &[u8]) {
    // What it says was read or written just before.
    let _known = db.get(key);
}

/// Turns the last attempt into a tree that works.
fn conclude(
    folder: &Path,
    attempt: Attempt,
    mut incidents: Vec<StoreIncident>,
) -> Result<OpenTree, StoreError> {
    let Attempt { db, failure } = attempt;
    let (tree, contents) = match (db, failure) {
        (Some(db), None) => (SledTree(db), Contents::Kept),
        (_, Some(OpenFailure::NoRoom(reason))) => return Err(StoreError::NoRoom { reason }),
        (_, failure) => {
            let (tree, incident) =
                start_empty(folder, failure.as_ref().map_or("unknown", OpenFailure::text))?;
            incidents.push(incident);
            (tree, Contents::Saved)
        }
    };
    Ok(OpenTree { tree, contents, incidents })
}

fn start_empty(folder: &Path, reason: &str) -> Result<(SledTree, StoreIncident), StoreError> {
    // Moved and not deleted: what cannot be opened today may be all that is left of some rows.
    let aside = files::set_aside(folder)?;
    let Attempt { db, failure } = attempt(folder, &mut |_none| {});
    if let Some(OpenFailure::NoRoom(reason)) = failure {
        return Err(StoreError::NoRoom { reason });
    }
    let Some(db) = db else {
        let reason = failure.as_ref().map_or("unknown", OpenFailure::text).to_owned();
        return Err(StoreError::Sled { reason });
    };
    let incident = StoreIncident {
        code: Code::SledDamaged,
        message: format!("sled could not be used ({reason}); it was moved to {}", aside.display()),
        fix: "Nothing to do: what could be read was kept, the rest comes again from peers. \
              If it happens again, check the disk; the moved folder may be deleted."
            .into(),
    };
    Ok((SledTree(db), incident))
}

/// Removes sled's snapshots and its settings, and says whether there were any. Snapshots only shorten the opening,
/// the settings are the defaults: sled makes both again, and one that is torn makes every opening fail.
fn remove_snapshots(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    let is_snapshot = |name: &str| name.starts_with("snap.") || name == "conf";
    let snapshots =
        entries.filter_map(Result::ok).filter(|entry| is_snapshot(&entry.file_name().to_string_lossy()));
    snapshots.map(|entry| fs::remove_file(entry.path())).filter(Result::is_ok).count() > 0
}

/// sled opens its files itself, and follows links.
fn refuse_links(folder: &Path) -> Result<(), StoreError> {
    let files = ["db", "conf", "blobs"].map(|name| folder.join(name));
    let is_link = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|file| file.is_symlink());
    match std::iter::once(folder.to_owned()).chain(files).find(is_link) {
        Some(path) => Err(StoreError::Link { path }),
        None => Ok(()),
    }
}

/// A tree without its data file, which sled would take for a new one.
fn emptied(folder: &Path, expectation: ExpectedContents) -> Option<StoreIncident> {
    let data = folder.join("db");
    let bytes = fs::metadata(&data).map_or(0, |file| file.len());
    // sled opens an empty folder without a word, and its loss would pass for a store without rows.
    (expectation == ExpectedContents::Rows && bytes == 0).then(|| StoreIncident {
        code: Code::SledMissing,
        message: format!("{} is missing or empty", data.display()),
        fix: "Nothing to do: own records are in the journal, the rest comes again from peers.".into(),
    })
}

fn snapshots_removed() -> StoreIncident {
    StoreIncident {
        code: Code::SledRepaired,
        message: "sled could not be opened until its snapshot and settings were removed; it made them again \
                  from its log"
            .into(),
        fix: "Nothing to do: should rows be missing, they come again from peers. Check the disk.".into(),
    }
}

impl OpenFailure {
    fn of(error: &sled::Error) -> OpenFailure {
        match error {
            sled::Error::Io(source) if is_no_room(source.kind()) => OpenFailure::NoRoom(source.to_string()),
            error => OpenFailure::Refused(error.to_string()),
        }
    }

    fn text(&self) -> &str {
        match self {
            OpenFailure::NoRoom(text) | OpenFailure::Refused(text) | OpenFailure::Unreadable(text) => text,
        }
    }
}
