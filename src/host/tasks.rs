//! The tasks of this node in memory and on disk: the book of them, a file for each in the folder `tasks` of the data folder, and
//! who waits for their end. What is done for them is the handle's.
//!
//! A file always becomes what the book says at that moment, one writer at a time: so whichever of two changes is written last,
//! the disk holds the later one.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Mutex as AsyncMutex;
use tokio_util::sync::CancellationToken;

use crate::net::wall_clock;
use crate::private_file::{FolderError, make_folder, replace, unlinked};
use crate::proto::call::{CallId, Incarnation, Report};
use crate::proto::codec;
use crate::proto::identity::PeerKey;
use crate::proto::limits::{CALL_BYTES_MAX, TASKS_MAX};
use crate::proto::task::{Task, TaskBook, TaskRow, TaskStatus, TasksFull, Unfinished};
use crate::proto::time::Timestamp;

/// The folder of a data folder.
const FOLDER: &str = "tasks";
/// How a file that is being written begins its name; one that a crash left is of no use.
const UNFINISHED: &str = ".tmp";
/// Largest file, bytes: an answer is an output and a few fields around it.
const FILE_BYTES_MAX: u64 = CALL_BYTES_MAX as u64 * 2;
/// Files that a start looks at: those of all tasks, and as many that crashes left.
const FILES_MAX: usize = TASKS_MAX * 2;
/// Writers at once: a disk takes no more, and no task waits long for another's file.
const WRITERS: usize = 64;

/// The tasks of a node. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Tasks(Arc<Inner>);

#[derive(Default)]
struct Inner {
    book: Mutex<TaskBook>,
    /// Of the open ones.
    signals: Mutex<BTreeMap<CallId, TaskSignals>>,
    /// None where nothing is kept.
    folder: OnceLock<PathBuf>,
    writers: Writers,
}

struct Writers(Vec<Arc<AsyncMutex<()>>>);

impl Default for Writers {
    fn default() -> Writers {
        Writers((0..WRITERS).map(|_| Arc::default()).collect())
    }
}

/// What is told to and by whoever works on an open task.
#[derive(Clone, Default)]
pub(super) struct TaskSignals {
    /// It is to end.
    pub(super) cancelled: CancellationToken,
    /// It has ended.
    pub(super) ended: CancellationToken,
}

/// Why a task was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotTaken {
    /// There is no room.
    #[error(transparent)]
    Full(#[from] TasksFull),
    /// It cannot be kept.
    #[error("the task cannot be kept on disk: {0}")]
    Unkept(#[from] io::Error),
}

impl Tasks {
    /// Reads the tasks of earlier runs, which are kept in this data folder from now on: those that had not ended.
    pub(super) async fn open(&self, data_dir: &Path) -> Result<Vec<Unfinished>, FolderError> {
        let folder = data_dir.join(FOLDER);
        make_folder(&folder)?;
        let reading = folder.clone();
        let rows = tokio::task::spawn_blocking(move || read_rows(&reading)).await.unwrap_or_default();
        // A folder is opened once: at a second time it would be this one.
        _ = self.0.folder.set(folder);
        let (unfinished, changed) = self.book().restore(wall_clock(), rows);
        for task in &unfinished {
            let (Unfinished::NotSent(task) | Unfinished::Sent(task)) = task;
            self.signals().insert(*task, TaskSignals::default());
        }
        self.keep_or_log(&changed).await;
        Ok(unfinished)
    }

    /// Takes a task, which is durable when this returns.
    pub(super) async fn submit(&self, row: TaskRow) -> Result<TaskSignals, NotTaken> {
        let task = row.task;
        let changed = self.book().submit(wall_clock(), row)?;
        let signals = self.signals().entry(task).or_default().clone();
        if let Err(error) = self.write(task).await {
            self.book().withdraw(task);
            self.signals().remove(&task);
            return Err(error.into());
        }
        self.keep_or_log(&changed[1..]).await;
        Ok(signals)
    }

    /// Takes a call that somebody waits for.
    pub(super) fn watch(&self, row: TaskRow) -> TaskSignals {
        let signals = self.signals().entry(row.task).or_default().clone();
        self.book().watch(row);
        signals
    }

    /// A call that somebody waited for is a task from now on, and durable when this returns.
    pub(super) async fn keep(&self, task: CallId, note: Option<String>) -> Result<(), NotTaken> {
        let changed = self.book().keep(wall_clock(), task, note)?;
        Ok(self.write_all(&changed).await?)
    }

    /// The input of a call is about to leave for this run of a host. Durable when this returns.
    ///
    /// # Errors
    /// The next start would not know. The input must not leave.
    pub(super) async fn note_sent(
        &self,
        call: CallId,
        host: PeerKey,
        incarnation: Option<Incarnation>,
    ) -> io::Result<()> {
        let changed = self.book().note_sent(call, host, incarnation);
        self.write_all(&changed).await
    }

    /// Nobody took the call of a task: it is made again under another id. Durable when this returns.
    pub(super) async fn make_again(&self, task: CallId, call: CallId) -> io::Result<()> {
        let changed = self.book().make_again(task, call);
        self.write_all(&changed).await
    }

    /// What the call of a task says.
    pub(super) fn report(&self, task: CallId, report: &Report) {
        self.book().report(task, report);
    }

    /// A task has ended; `answer` is JSON.
    pub(super) async fn end(&self, task: CallId, status: TaskStatus, answer: Vec<u8>) {
        let changed = self.book().end(wall_clock(), task, status, answer);
        // What cannot be written is known until the next start, which finds what was written before.
        self.keep_or_log(&changed).await;
        if let Some(signals) = self.signals().remove(&task) {
            signals.ended.cancel();
        }
    }

    /// A call that somebody waits for has ended; false where it has become a task.
    pub(super) fn close(&self, task: CallId) -> bool {
        let is_closed = self.book().close(task);
        if is_closed {
            self.signals().remove(&task);
        }
        is_closed
    }

    /// What a task is now.
    pub(super) fn find(&self, task: CallId) -> Option<Task> {
        self.book().find(task).cloned()
    }

    /// What it is now, for whoever may look at it.
    pub(super) fn find_kept(&self, task: CallId) -> Option<Task> {
        self.find(task).filter(|found| found.is_kept)
    }

    /// As [`TaskBook::list`].
    pub(super) fn list(&self, after: Option<(Timestamp, CallId)>, limit: usize) -> Vec<Task> {
        self.book().list(after, limit).into_iter().cloned().collect()
    }

    /// The signals of an open task.
    pub(super) fn signals_of(&self, task: CallId) -> Option<TaskSignals> {
        self.signals().get(&task).cloned()
    }

    /// Forgets what has ended for long.
    pub(super) async fn forget_old(&self) {
        let changed = self.book().make_room(wall_clock());
        self.keep_or_log(&changed).await;
    }

    async fn keep_or_log(&self, changed: &[CallId]) {
        if let Err(error) = self.write_all(changed).await {
            tracing::warn!(%error, "a task is not kept on disk as it is");
        }
    }

    async fn write_all(&self, changed: &[CallId]) -> io::Result<()> {
        for task in changed {
            self.write(*task).await?;
        }
        Ok(())
    }

    /// Makes a file what the book says of its task.
    async fn write(&self, task: CallId) -> io::Result<()> {
        let Some(folder) = self.0.folder.get() else { return Ok(()) };
        let path = folder.join(task.to_string());
        let writer = self.0.writers.0[usize::from(task.0[0]) % WRITERS].clone().lock_owned().await;
        let tasks = self.clone();
        // The thread holds the writer: it goes on where nobody waits for it any more.
        let written = tokio::task::spawn_blocking(move || {
            let _writer = writer;
            let row = tasks.book().row(task).map(codec::encode);
            match row {
                Some(row) => replace(&path, &row),
                None => match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                },
            }
        });
        written.await.map_err(io::Error::other)?
    }

    fn book(&self) -> MutexGuard<'_, TaskBook> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signals(&self) -> MutexGuard<'_, BTreeMap<CallId, TaskSignals>> {
        self.0.signals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rows that can be read; what cannot is told and left where it is.
fn read_rows(folder: &Path) -> Vec<TaskRow> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "the tasks of earlier runs cannot be read");
            return Vec::new();
        }
    };
    let mut rows = Vec::new();
    for entry in entries.filter_map(Result::ok).take(FILES_MAX) {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            // Whoever wrote it is gone.
            _ = fs::remove_file(&path);
            continue;
        }
        match read_row(&path) {
            Ok(row) => rows.push(row),
            Err(error) => {
                let path = path.display();
                tracing::warn!(
                    event = "task_unreadable", %path, %error, "this is no task and is passed over; remove it"
                );
            }
        }
    }
    rows
}

fn read_row(path: &Path) -> io::Result<TaskRow> {
    let mut bytes = Vec::new();
    let file = unlinked().read(true).open(path)?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    let row: TaskRow = codec::decode(&bytes).map_err(io::Error::other)?;
    // A copy under another name would be written and forgotten under its own.
    let is_its_name = path.file_name().is_some_and(|name| *name == *row.task.to_string());
    if is_its_name { Ok(row) } else { Err(io::Error::other("it has the name of another task")) }
}

#[cfg(test)]
mod tests {
    use serde_bytes::ByteBuf;

    use super::*;
    use crate::proto::call::CallContext;
    use crate::proto::task::TaskStage;

    const HOST: PeerKey = PeerKey([7; 32]);

    fn row(number: u8) -> TaskRow {
        let now = wall_clock();
        TaskRow {
            task: CallId([number; 16]),
            call: CallId([number; 16]),
            agent: "a@.".into(),
            submitted: now,
            deadline: Timestamp(now.0 + 60_000),
            context: CallContext::default(),
            input: ByteBuf::from(b"{}"),
            note: None,
            stage: TaskStage::NotSent,
        }
    }

    async fn opened(folder: &Path) -> (Tasks, Vec<Unfinished>) {
        let tasks = Tasks::default();
        let unfinished = tasks.open(folder).await.unwrap();
        (tasks, unfinished)
    }

    #[tokio::test]
    async fn what_is_said_of_a_task_is_on_disk_when_it_was_said() {
        let folder = tempfile::tempdir().unwrap();
        let (tasks, _) = opened(folder.path()).await;
        let stage = |number: u8| read_row(&folder.path().join("tasks").join(row(number).task.to_string()));
        tasks.submit(row(1)).await.unwrap();
        assert_eq!(stage(1).unwrap().stage, TaskStage::NotSent);
        tasks.note_sent(row(1).call, HOST, Some(Incarnation(9))).await.unwrap();
        let sent = TaskStage::Sent { host: HOST, incarnation: Some(Incarnation(9)) };
        assert_eq!(stage(1).unwrap().stage, sent);
        tasks.submit(row(2)).await.unwrap();
        let (again, unfinished) = opened(folder.path()).await;
        let mut of = unfinished.clone();
        of.sort_by_key(|unfinished| matches!(unfinished, Unfinished::Sent(_)));
        assert_eq!(of, [Unfinished::NotSent(row(2).task), Unfinished::Sent(row(1).task)]);
        again.end(row(1).task, TaskStatus::Unknown, b"{}".to_vec()).await;
        assert!(matches!(stage(1).unwrap().stage, TaskStage::Ended { .. }));
        let watched = row(3);
        again.watch(watched);
        assert!(stage(3).is_err(), "somebody waits for it");
        again.keep(row(3).task, None).await.unwrap();
        assert!(stage(3).is_ok());
    }

    #[tokio::test]
    async fn files_that_are_no_tasks_are_passed_over_and_left() {
        let folder = tempfile::tempdir().unwrap();
        let (tasks, _) = opened(folder.path()).await;
        tasks.submit(row(1)).await.unwrap();
        let of = |name: &str| folder.path().join("tasks").join(name);
        for (name, bytes) in [("garbage", &b"\xff\xff"[..]), ("empty", b""), (".tmpabc", b"x")] {
            fs::write(of(name), bytes).unwrap();
        }
        fs::copy(of(&row(1).task.to_string()), of(&row(2).task.to_string())).unwrap();
        fs::create_dir(of("folder")).unwrap();
        let (_, unfinished) = opened(folder.path()).await;
        assert_eq!(unfinished, [Unfinished::NotSent(row(1).task)]);
        assert!(of("garbage").exists() && of("empty").exists() && !of(".tmpabc").exists());
    }

    #[tokio::test]
    async fn a_task_that_cannot_be_kept_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let (tasks, _) = opened(folder.path()).await;
        fs::remove_dir_all(folder.path().join("tasks")).unwrap();
        assert!(matches!(tasks.submit(row(1)).await, Err(NotTaken::Unkept(_))));
        assert!(tasks.find(row(1).task).is_none() && tasks.signals_of(row(1).task).is_none());
        assert!(tasks.list(None, 10).is_empty());
    }

    /// However two changes come in between: the last is what the book says.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_word_that_is_written_late_undoes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (tasks, _) = opened(folder.path()).await;
        for number in 0..50 {
            tasks.submit(row(number)).await.unwrap();
            let (late, call) = (tasks.clone(), row(number).call);
            let sending = tokio::spawn(async move { late.note_sent(call, HOST, None).await });
            tasks.end(call, TaskStatus::Cancelled, b"{}".to_vec()).await;
            sending.await.unwrap().unwrap();
        }
        let (_, unfinished) = opened(folder.path()).await;
        assert_eq!(unfinished, []);
    }
}
