//! The tasks of a node (protocol section 5): calls that are asked for now and looked at later, also after a restart.
//!
//! A pure book: time is an argument, and whatever changes a row answers with the tasks whose rows are to be kept on disk as
//! they are now ([`TaskBook::row`]), or forgotten, before anything that follows from it. A row is kept before the call is
//! made, and says which host may have the input before it has it: so after a restart what was not sent is made again, and what
//! was sent runs no second time.
//!
//! Open tasks and their inputs are bounded, and more are refused. What has ended is kept for [`TASK_KEPT`]; where there is no
//! room the oldest of it goes first.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::call::{CallContext, CallId, Incarnation, Report};
use super::identity::PeerKey;
use super::limits::{TASK_BYTES_MAX, TASK_INPUTS_BYTES_MAX, TASK_KEPT, TASKS_MAX, TASKS_OPEN_MAX};
use super::time::Timestamp;

/// How a task stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// Nothing is known of it yet but that it will be called.
    #[default]
    Submitted,
    /// It waits for a place.
    Queued,
    /// A host has it.
    Working,
    /// The agent answered.
    Completed,
    /// It gave no answer.
    Failed,
    /// Its owner took it back.
    Cancelled,
    /// Nobody can say whether the agent did it.
    Unknown,
}

impl TaskStatus {
    /// As it is written.
    pub fn text(self) -> &'static str {
        match self {
            TaskStatus::Submitted => "submitted",
            TaskStatus::Queued => "queued",
            TaskStatus::Working => "working",
            TaskStatus::Completed => "completed",
            TaskStatus::Failed => "failed",
            TaskStatus::Cancelled => "cancelled",
            TaskStatus::Unknown => "unknown",
        }
    }

    /// Whether it is an end.
    pub fn is_end(self) -> bool {
        !matches!(self, TaskStatus::Submitted | TaskStatus::Queued | TaskStatus::Working)
    }
}

/// A task as it is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRow {
    /// Names it for ever.
    pub task: CallId,
    /// The call that is made for it now: one that nobody took is made again under another id.
    pub call: CallId,
    /// The agent as it was asked for.
    pub agent: String,
    /// When it was asked for.
    pub submitted: Timestamp,
    /// When it is given up.
    pub deadline: Timestamp,
    /// What its call is part of.
    #[serde(default, skip_serializing_if = "CallContext::is_empty")]
    pub context: CallContext,
    /// The input, JSON; empty once it has ended.
    pub input: ByteBuf,
    /// What whoever made it a task wants to know when it looks at it again; nobody else reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// How far it came.
    pub stage: TaskStage,
}

/// How far a task came, as far as a restart must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskStage {
    /// The input has left for no host.
    NotSent,
    /// A host may have run it.
    Sent {
        /// Which.
        host: PeerKey,
        /// And in which run; none where nobody told.
        incarnation: Option<Incarnation>,
    },
    /// It is over.
    Ended {
        /// Since when.
        at: Timestamp,
        /// How.
        status: TaskStatus,
        /// How the call ended, JSON.
        answer: ByteBuf,
    },
}

/// Tasks whose rows are to be kept as they are now, or forgotten.
pub type Changed = Vec<CallId>;

/// Why there is no room for a task. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TasksFull {
    /// So many are open.
    #[error("{TASKS_OPEN_MAX} tasks are at work or waiting already")]
    Open,
    /// Their inputs take as much.
    #[error("the inputs of the tasks at work take {TASK_INPUTS_BYTES_MAX} bytes already")]
    Inputs,
}

/// What a restart finds of a task that had not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfinished {
    /// Nobody has its input: it is made again.
    NotSent(CallId),
    /// A host may have run it.
    Sent(CallId),
}

/// What is known of a task now.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// What is kept of it.
    pub row: TaskRow,
    /// How it stands.
    pub status: TaskStatus,
    /// How many wait before it; only where it is queued.
    pub ahead: Option<u32>,
    /// The host that has it.
    pub host: Option<PeerKey>,
    /// What the agent last said of its progress.
    pub message: Option<String>,
    /// Whether it is on disk, and listed: a call that somebody still waits for is neither.
    pub is_kept: bool,
}

/// All tasks of a node.
#[derive(Debug, Default)]
pub struct TaskBook {
    tasks: BTreeMap<CallId, Task>,
    /// By the call that is made for it now; of open ones alone.
    calls: BTreeMap<CallId, CallId>,
    /// Those that have ended, by when they did.
    ended: BTreeSet<(Timestamp, CallId)>,
    /// Open ones that are kept.
    open: usize,
    /// Bytes of their inputs.
    input_bytes: usize,
    /// Bytes of inputs, answers and notes of all that are kept.
    bytes: usize,
}

impl TaskBook {
    /// Takes a task. It is open from now on.
    ///
    /// # Errors
    /// There is no room.
    pub fn submit(&mut self, now: Timestamp, row: TaskRow) -> Result<Changed, TasksFull> {
        self.has_room(&row)?;
        let mut changed = vec![row.task];
        self.insert(row, true);
        changed.extend(self.make_room(now));
        Ok(changed)
    }

    /// Takes a call that somebody waits for: it is on no disk and in no list unless it is [kept](TaskBook::keep).
    pub fn watch(&mut self, row: TaskRow) {
        self.insert(row, false);
    }

    /// A call that somebody waited for becomes a task. What nobody knows to be unsent counts as sent. None where there is no such
    /// call any more.
    ///
    /// # Errors
    /// There is no room. The call is as it was.
    pub fn keep(&mut self, now: Timestamp, task: CallId, note: Option<String>) -> Result<Changed, TasksFull> {
        let Some(found) = self.tasks.get(&task).filter(|found| !found.is_kept) else {
            return Ok(Changed::new());
        };
        let mut row = found.row.clone();
        if matches!(row.stage, TaskStage::Ended { .. }) {
            return Ok(Changed::new());
        }
        self.has_room(&row)?;
        let note_bytes = note.as_ref().map_or(0, String::len);
        if let (TaskStage::NotSent, Some(host)) = (&row.stage, found.host) {
            row.stage = TaskStage::Sent { host, incarnation: None };
        }
        let Some(found) = self.tasks.get_mut(&task) else { return Ok(Changed::new()) };
        (found.is_kept, found.row.stage, found.row.note) = (true, row.stage.clone(), note);
        self.open += 1;
        self.count_in(row.input.len(), row.input.len() + note_bytes);
        let mut changed = vec![task];
        changed.extend(self.make_room(now));
        Ok(changed)
    }

    /// The input of a call is about to leave for this run of a host.
    pub fn note_sent(&mut self, call: CallId, host: PeerKey, incarnation: Option<Incarnation>) -> Changed {
        let Some(task) = self.calls.get(&call).and_then(|task| self.tasks.get_mut(task)) else {
            return Changed::new();
        };
        // Whoever knows less says nothing new.
        if matches!(task.row.stage, TaskStage::Sent { host: known, .. } if known == host)
            && incarnation.is_none()
        {
            return Changed::new();
        }
        task.row.stage = TaskStage::Sent { host, incarnation };
        task.changed()
    }

    /// Nobody took the call of an open task: it is made again under another id.
    pub fn make_again(&mut self, task: CallId, call: CallId) -> Changed {
        let Some(found) = self.tasks.get_mut(&task).filter(|found| found.is_open()) else {
            return Changed::new();
        };
        self.calls.remove(&found.row.call);
        self.calls.insert(call, task);
        (found.row.call, found.row.stage) = (call, TaskStage::NotSent);
        (found.status, found.ahead, found.host) = (TaskStatus::Submitted, None, None);
        found.changed()
    }

    /// What its call says of an open task.
    pub fn report(&mut self, task: CallId, report: &Report) {
        let Some(found) = self.tasks.get_mut(&task).filter(|found| found.is_open()) else { return };
        match report {
            Report::Queued { ahead } => {
                (found.status, found.ahead, found.host) = (TaskStatus::Queued, Some(*ahead), None);
            }
            Report::Working { host } => {
                (found.status, found.ahead, found.host) = (TaskStatus::Working, None, Some(*host));
            }
            Report::Progress(progress) => {
                found.status = TaskStatus::Working;
                found.message.clone_from(&progress.message);
            }
            Report::Partial(_) => found.status = TaskStatus::Working,
        }
    }

    /// A call that somebody waits for is over, and forgotten; false where it has become a task.
    pub fn close(&mut self, call: CallId) -> bool {
        if self.row(call).is_some() {
            return false;
        }
        if let Some(found) = self.tasks.remove(&call) {
            self.calls.remove(&found.row.call);
        }
        true
    }

    /// An open task is over; `answer` is JSON.
    pub fn end(&mut self, now: Timestamp, task: CallId, status: TaskStatus, answer: Vec<u8>) -> Changed {
        let open = self.tasks.get_mut(&task).filter(|found| found.is_open() && found.is_kept);
        let Some(found) = open else { return Changed::new() };
        self.calls.remove(&found.row.call);
        let input = std::mem::take(&mut found.row.input).len();
        let output = answer.len();
        found.row.stage = TaskStage::Ended { at: now, status, answer: ByteBuf::from(answer) };
        (found.status, found.ahead) = (status, None);
        let mut changed = found.changed();
        self.ended.insert((now, task));
        self.open -= 1;
        self.input_bytes -= input;
        self.bytes = self.bytes - input + output;
        changed.extend(self.make_room(now));
        changed
    }

    /// Takes the rows that a restart finds on disk: those that had not ended, and what is to be forgotten.
    pub fn restore(
        &mut self,
        now: Timestamp,
        rows: impl IntoIterator<Item = TaskRow>,
    ) -> (Vec<Unfinished>, Changed) {
        let mut unfinished = Vec::new();
        for row in rows {
            match row.stage {
                TaskStage::NotSent => unfinished.push(Unfinished::NotSent(row.task)),
                TaskStage::Sent { .. } => unfinished.push(Unfinished::Sent(row.task)),
                TaskStage::Ended { .. } => {}
            }
            self.insert(row, true);
        }
        (unfinished, self.make_room(now))
    }

    /// Forgets what has ended for long, and the oldest of it where there is too much.
    pub fn make_room(&mut self, now: Timestamp) -> Changed {
        let mut forgotten = Vec::new();
        while let Some((at, task)) = self.ended.first().copied() {
            let has_room = self.open + self.ended.len() <= TASKS_MAX && self.bytes <= TASK_BYTES_MAX;
            if has_room && now.since(at) < TASK_KEPT {
                break;
            }
            self.ended.pop_first();
            if let Some(found) = self.tasks.remove(&task) {
                self.bytes -= found.bytes();
                forgotten.push(task);
            }
        }
        forgotten
    }

    /// There is no disk for the row of a task that was just taken: it was never taken.
    pub fn withdraw(&mut self, task: CallId) {
        if let Some(found) = self.tasks.remove(&task) {
            self.calls.remove(&found.row.call);
            self.open -= 1;
            self.input_bytes -= found.row.input.len();
            self.bytes -= found.bytes();
        }
    }

    /// What the disk is to hold of a task; none where it is to hold nothing.
    pub fn row(&self, task: CallId) -> Option<&TaskRow> {
        self.tasks.get(&task).filter(|found| found.is_kept).map(|found| &found.row)
    }

    /// A task, or a call that somebody waits for.
    pub fn find(&self, task: CallId) -> Option<&Task> {
        self.tasks.get(&task)
    }

    /// The tasks after `after`, newest first; each names its place in this order.
    pub fn list(&self, after: Option<(Timestamp, CallId)>, limit: usize) -> Vec<&Task> {
        let mut tasks: Vec<&Task> = self.tasks.values().filter(|task| task.is_kept).collect();
        tasks.retain(|task| after.is_none_or(|after| task.place() < after));
        tasks.sort_unstable_by_key(|task| std::cmp::Reverse(task.place()));
        tasks.truncate(limit);
        tasks
    }

    fn has_room(&self, row: &TaskRow) -> Result<(), TasksFull> {
        if self.open >= TASKS_OPEN_MAX {
            return Err(TasksFull::Open);
        }
        let fits = self.input_bytes + row.input.len() <= TASK_INPUTS_BYTES_MAX;
        if fits { Ok(()) } else { Err(TasksFull::Inputs) }
    }

    fn insert(&mut self, row: TaskRow, is_kept: bool) {
        let status = match row.stage {
            TaskStage::NotSent => TaskStatus::Submitted,
            TaskStage::Sent { .. } => TaskStatus::Working,
            TaskStage::Ended { status, .. } => status,
        };
        let host = match row.stage {
            TaskStage::Sent { host, .. } => Some(host),
            TaskStage::NotSent | TaskStage::Ended { .. } => None,
        };
        let task = Task { row, status, ahead: None, host, message: None, is_kept };
        match task.row.stage {
            TaskStage::Ended { at, .. } => _ = self.ended.insert((at, task.row.task)),
            TaskStage::NotSent | TaskStage::Sent { .. } => {
                _ = self.calls.insert(task.row.call, task.row.task)
            }
        }
        if is_kept {
            self.open += usize::from(task.is_open());
            self.count_in(task.row.input.len(), task.bytes());
        }
        self.tasks.insert(task.row.task, task);
    }

    fn count_in(&mut self, input: usize, all: usize) {
        self.input_bytes += input;
        self.bytes += all;
    }
}

impl Task {
    /// Whether it has not ended.
    pub fn is_open(&self) -> bool {
        !matches!(self.row.stage, TaskStage::Ended { .. })
    }

    /// Its place in the list of tasks.
    pub fn place(&self) -> (Timestamp, CallId) {
        (self.row.submitted, self.row.task)
    }

    fn changed(&self) -> Changed {
        if self.is_kept { vec![self.row.task] } else { Changed::new() }
    }

    fn bytes(&self) -> usize {
        let note = self.row.note.as_ref().map_or(0, String::len);
        note + match &self.row.stage {
            TaskStage::Ended { answer, .. } => answer.len(),
            TaskStage::NotSent | TaskStage::Sent { .. } => self.row.input.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::call::Progress;
    use crate::proto::codec;

    const NOW: Timestamp = Timestamp(1_000_000);
    const HOST: PeerKey = PeerKey([7; 32]);

    fn id(number: u32) -> CallId {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        CallId(id)
    }

    fn row(number: u32) -> TaskRow {
        TaskRow {
            task: id(number),
            call: id(number),
            agent: "a@.".into(),
            submitted: Timestamp(NOW.0 + u64::from(number)),
            deadline: Timestamp(NOW.0 + 60_000),
            context: CallContext::default(),
            input: ByteBuf::from(b"{}"),
            note: None,
            stage: TaskStage::NotSent,
        }
    }

    fn ended(book: &mut TaskBook, number: u32, at: Timestamp) -> Changed {
        book.end(at, id(number), TaskStatus::Completed, b"{}".to_vec())
    }

    #[test]
    fn a_task_is_kept_before_it_is_called_and_before_its_input_leaves_and_when_it_ends() {
        let mut book = TaskBook::default();
        assert_eq!(book.submit(NOW, row(1)), Ok(vec![id(1)]));
        assert_eq!(book.row(id(1)), Some(&row(1)));
        book.report(id(1), &Report::Queued { ahead: 3 });
        let task = book.find(id(1)).unwrap();
        assert_eq!((task.status, task.ahead), (TaskStatus::Queued, Some(3)));
        assert_eq!(book.note_sent(id(1), HOST, Some(Incarnation(9))), [id(1)]);
        let stage = TaskStage::Sent { host: HOST, incarnation: Some(Incarnation(9)) };
        assert_eq!(book.row(id(1)), Some(&TaskRow { stage, ..row(1) }));
        assert_eq!(book.note_sent(id(1), HOST, None), [], "the run is known");
        book.report(id(1), &Report::Working { host: HOST });
        let message = Some("half".to_owned());
        book.report(id(1), &Report::Progress(Progress { progress: 1.0, total: None, message }));
        let task = book.find(id(1)).unwrap();
        assert_eq!((task.status, task.message.as_deref()), (TaskStatus::Working, Some("half")));
        assert_eq!(ended(&mut book, 1, NOW), [id(1)]);
        let kept = book.row(id(1)).unwrap().clone();
        assert!(kept.input.is_empty() && matches!(kept.stage, TaskStage::Ended { .. }));
        assert_eq!(ended(&mut book, 1, NOW), [], "it ends once");
        assert_eq!(book.note_sent(id(1), HOST, None), [], "and is sent no more");
        let read: TaskRow = codec::decode(&codec::encode(&kept)).unwrap();
        assert_eq!(read, kept);
    }

    #[test]
    fn a_restart_makes_again_what_was_not_sent_and_keeps_what_has_ended() {
        let rows = [
            row(1),
            TaskRow { stage: TaskStage::Sent { host: HOST, incarnation: None }, ..row(2) },
            TaskRow {
                stage: TaskStage::Ended { at: NOW, status: TaskStatus::Failed, answer: ByteBuf::from(b"[]") },
                input: ByteBuf::new(),
                ..row(3)
            },
        ];
        let mut book = TaskBook::default();
        let (unfinished, changed) = book.restore(NOW, rows.clone());
        assert_eq!(unfinished, [Unfinished::NotSent(id(1)), Unfinished::Sent(id(2))]);
        assert_eq!(changed, []);
        assert_eq!(book.make_again(id(1), id(9)), [id(1)]);
        assert_eq!(book.row(id(1)), Some(&TaskRow { call: id(9), ..row(1) }));
        assert_eq!(book.note_sent(id(1), HOST, None), [], "the call before is no more");
        assert_eq!(book.note_sent(id(9), HOST, None).len(), 1);
        assert_eq!(book.find(id(3)).unwrap().status, TaskStatus::Failed);
        let (_, changed) = book.restore(NOW + TASK_KEPT, rows);
        assert_eq!((changed, book.row(id(3))), (vec![id(3)], None), "an hour later");
    }

    #[test]
    fn open_tasks_are_bounded_and_the_oldest_ended_ones_make_room() {
        let mut book = TaskBook::default();
        let open = TASKS_OPEN_MAX as u32;
        let (mut taken, mut refused, mut forgotten) = (0, 0, Vec::new());
        for number in 0..10_000 {
            match book.submit(NOW, row(number)) {
                Ok(_) => taken += 1,
                Err(full) => {
                    assert_eq!(full, TasksFull::Open);
                    refused += 1;
                }
            }
        }
        assert_eq!((taken, refused), (open, 10_000 - open));
        for number in 10_000..10_010 + TASKS_MAX as u32 {
            let oldest = book.tasks.values().find(|task| task.is_open()).unwrap().row.task;
            let changed = book.end(NOW + TASK_KEPT / 2, oldest, TaskStatus::Completed, Vec::new());
            forgotten.extend(changed.into_iter().skip(1));
            forgotten.extend(book.submit(NOW, row(number)).unwrap().into_iter().skip(1));
        }
        assert_eq!(book.tasks.len(), TASKS_MAX);
        assert_eq!((&forgotten[0], book.open), (&id(0), TASKS_OPEN_MAX));
        book.make_room(NOW + TASK_KEPT * 2);
        assert_eq!(book.tasks.len(), TASKS_OPEN_MAX, "what has ended is kept for an hour");
        let large = TaskRow { input: ByteBuf::from(vec![0; TASK_INPUTS_BYTES_MAX]), ..row(1) };
        let mut book = TaskBook::default();
        book.submit(NOW, row(2)).unwrap();
        assert_eq!(book.submit(NOW, large), Err(TasksFull::Inputs));
    }

    #[test]
    fn bytes_of_answers_are_bounded_and_counted_out_again() {
        let mut book = TaskBook::default();
        let answer = TASK_BYTES_MAX / 10;
        for number in 0..30 {
            // One of them is a call that becomes a task, whose note counts, too.
            if number > 0 {
                book.submit(NOW, row(number)).unwrap();
            } else {
                book.watch(row(number));
                book.keep(NOW, id(number), Some("x".repeat(1_000))).unwrap();
                assert_eq!(book.bytes, row(number).input.len() + 1_000);
            }
            book.end(
                Timestamp(NOW.0 + u64::from(number)),
                id(number),
                TaskStatus::Completed,
                vec![0; answer],
            );
            assert!(book.bytes <= TASK_BYTES_MAX);
        }
        assert!(book.find(id(0)).is_none() && book.find(id(29)).is_some());
        book.make_room(NOW + TASK_KEPT * 2);
        assert_eq!((book.tasks.len(), book.bytes, book.input_bytes, book.open), (0, 0, 0, 0));
    }

    #[test]
    fn a_call_that_somebody_waits_for_is_on_no_disk_until_it_is_kept() {
        let mut book = TaskBook::default();
        book.watch(row(1));
        book.watch(row(2));
        assert_eq!(book.note_sent(id(1), HOST, Some(Incarnation(9))), []);
        assert_eq!(book.list(None, 10).len(), 0);
        let stage = TaskStage::Sent { host: HOST, incarnation: Some(Incarnation(9)) };
        assert_eq!(book.row(id(1)), None);
        assert_eq!(book.keep(NOW, id(1), None), Ok(vec![id(1)]));
        assert_eq!(book.row(id(1)), Some(&TaskRow { stage, ..row(1) }));
        assert_eq!(book.list(None, 10).len(), 1);
        assert!(book.close(id(2)) && !book.close(id(1)), "nobody looks at it later");
        assert!(book.find(id(2)).is_none() && book.keep(NOW, id(2), None) == Ok(Vec::new()));
        // Working somewhere is sent there, whatever else was told.
        book.watch(row(3));
        book.report(id(3), &Report::Working { host: HOST });
        book.keep(NOW, id(3), None).unwrap();
        let stage = TaskStage::Sent { host: HOST, incarnation: None };
        assert_eq!(book.row(id(3)), Some(&TaskRow { stage, ..row(3) }));
    }

    #[test]
    fn pages_of_the_list_follow_each_other_newest_first() {
        let mut book = TaskBook::default();
        for number in 0..10 {
            book.submit(NOW, row(number)).unwrap();
        }
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = book.list(after, 3);
            let Some(last) = page.last() else { break };
            after = Some(last.place());
            seen.extend(page.iter().map(|task| task.row.task));
        }
        assert_eq!(seen, (0..10).rev().map(id).collect::<Vec<_>>());
    }
}
