//! Tasks: calls for which nobody waits, until their end or the end of this run; and calls that become tasks when waiting takes
//! too long.

use std::path::Path;
use std::time::Duration;

use serde_bytes::ByteBuf;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tracing::{Instrument, Span};

use super::call::{PendingCall, ask_again, context_of, judge_time, time_of};
use super::{CallOptions, Handle};
use crate::api::{self, ApiError};
use crate::document::run_config::DEFAULT_LIMITS;
use crate::host::tasks::{TaskSignals, Tasks};
use crate::host::view;
use crate::net::wall_clock;
use crate::private_file::FolderError;
use crate::proto::call::{CallFailure, CallId, Incarnation, Outcome, Report};
use crate::proto::card::CallLimits;
use crate::proto::code::Code;
use crate::proto::identity::PeerKey;
use crate::proto::io::Command;
use crate::proto::limits::TASK_TIME_MAX;
use crate::proto::name::FullName;
use crate::proto::task::{Task, TaskRow, TaskStage, TaskStatus, Unfinished};
use crate::proto::time::Timestamp;

/// Longest wait for the end of a task in one question, below what clients and proxies wait for an answer.
pub const TASK_WAIT_MAX: Duration = Duration::from_secs(55);
/// Most tasks on a page.
const PAGE_MAX: usize = 1_000;
/// Reports of one task on their way; of more some are lost.
const REPORTS_MAX: usize = 16;
/// The pause before a task that nobody took is offered again, doubled each time; jitter spreads those of a crowd.
const PAUSE: Duration = Duration::from_secs(1);
/// And never longer than that.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long after a restart an agent may be unknown: registry and agents are on their way.
const RESTART_PATIENCE: Duration = Duration::from_secs(60);
/// How often tasks that ended long ago are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// Makes tasks and tells how they stand. Cheap to clone.
#[derive(Clone)]
pub struct TaskClient(Handle);

/// A call that somebody waits for and that may become a task. Dropping it ends the call, unless it was [kept](OpenCall::keep).
pub struct OpenCall {
    client: TaskClient,
    task: CallId,
    signals: TaskSignals,
    answer: mpsc::Receiver<Result<api::CallAnswer, ApiError>>,
    is_kept: bool,
}

/// How the work on a task is begun.
#[derive(Clone, Copy, PartialEq)]
enum Beginning {
    New,
    AfterRestart,
}

impl TaskClient {
    /// The tasks of this node.
    pub fn new(handle: Handle) -> TaskClient {
        TaskClient(handle)
    }

    fn tasks(&self) -> &Tasks {
        &self.0.tasks
    }

    /// Goes on with the tasks of earlier runs: what was not sent is made again, and for what was sent its host is asked. Of what
    /// ran here nobody knows whether it was done.
    pub(in crate::host) async fn resume(&self, data_dir: &Path) -> Result<(), FolderError> {
        for unfinished in self.tasks().open(data_dir).await? {
            match unfinished {
                Unfinished::Sent(task) if self.sent(task).is_none() => self.lose(task).await,
                Unfinished::NotSent(task) | Unfinished::Sent(task) => {
                    _ = tokio::spawn(self.clone().drive(task, Beginning::AfterRestart))
                }
            }
        }
        let client = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = client.0.stopped() => return,
                    () = tokio::time::sleep(FORGET_EVERY) => client.tasks().forget_old().await,
                }
            }
        });
        Ok(())
    }

    /// Takes a call as a task; its timeout may be as long as a day. Durable when this returns. [`TaskClient::note_of`] tells
    /// `note` again.
    ///
    /// # Errors
    /// As for [`Handle::call`]; or there is no room, or no disk, for the task.
    pub async fn submit(
        &self,
        agent: &str,
        input: &Value,
        options: CallOptions,
        note: Option<String>,
    ) -> Result<api::Submitted, ApiError> {
        judge_time(options.timeout, TASK_TIME_MAX)?;
        let logged = logged(&options);
        let time = match options.timeout {
            Some(time) => time,
            None => time_of(self.limits(agent).await?),
        };
        let row = TaskRow { note, ..self.row(agent, input, &options, time) };
        let task = row.task;
        self.tasks().submit(row).await.map_err(|error| view::not_taken(&error))?;
        tokio::spawn(self.clone().drive(task, Beginning::New).instrument(logged));
        Ok(api::Submitted { task_id: task.to_string(), status: TaskStatus::Submitted })
    }

    /// Whether a call that is made now is run here at once, and takes no longer than `most`: it needs not become a task.
    pub fn is_brief(&self, agent: &FullName, options: &CallOptions, most: Duration) -> bool {
        let list = self.0.agents.list();
        let local = list.get(agent).filter(|local| local.run_config.is_some());
        local.is_some_and(|local| {
            let timeout_s = local.offer.card.limits.unwrap_or(DEFAULT_LIMITS).timeout_s;
            Duration::from_secs(timeout_s.into()) <= most && self.0.is_for_here(agent, local, options)
        })
    }

    /// Makes a call that somebody waits for, and that may become a task.
    ///
    /// # Errors
    /// The timeout is not within a day.
    pub fn open(&self, agent: &str, input: &Value, options: CallOptions) -> Result<OpenCall, ApiError> {
        judge_time(options.timeout, TASK_TIME_MAX)?;
        // Without a timeout the agent's limits say, which are looked up with the agent.
        let row = self.row(agent, input, &options, TASK_TIME_MAX);
        let (task, call) = (row.task, row.call);
        let signals = self.tasks().watch(row.clone());
        let (sender, answer) = mpsc::channel(1);
        let pending = PendingCall {
            id: call,
            input: input.clone(),
            started: Instant::now(),
            options: CallOptions { context: row.context, ..options },
            is_task: true,
        };
        let (client, agent, logged) = (self.clone(), agent.to_owned(), logged(&pending.options));
        let working = async move {
            let called = client.work_once(task, &agent, pending).await;
            let Some(called) = called else { return };
            if client.tasks().close(task) {
                // Whoever waited may be gone.
                _ = sender.try_send(called);
            } else {
                client.end(task, called.unwrap_or_else(|error| refused(error, task))).await;
            }
        };
        tokio::spawn(working.instrument(logged));
        Ok(OpenCall { client: self.clone(), task, signals, answer, is_kept: false })
    }

    /// How a task stands, at its end or after `wait`, whichever is first; longer ones than [`TASK_WAIT_MAX`] are cut.
    ///
    /// # Errors
    /// There is no such task.
    pub async fn show(&self, id: &str, wait: Duration) -> Result<api::Task, ApiError> {
        let task = self.find(id)?.row.task;
        if let Some(signals) = self.tasks().signals_of(task) {
            _ = timeout(wait.min(TASK_WAIT_MAX), signals.ended.cancelled()).await;
        }
        Ok(view::task(&self.find(id)?))
    }

    /// What was noted of a task when it became one.
    pub fn note_of(&self, id: &str) -> Option<String> {
        self.find(id).ok()?.row.note
    }

    /// A page of tasks, newest first.
    ///
    /// # Errors
    /// The cursor is none of this node's.
    pub fn list(&self, limit: usize, cursor: Option<&str>) -> Result<api::TaskPage, ApiError> {
        let limit = limit.clamp(1, PAGE_MAX);
        let after = cursor.map(parse_cursor).transpose()?;
        Ok(view::task_page(&self.tasks().list(after, limit), limit))
    }

    /// Ends a task: answers with how it ended, which may have been before.
    ///
    /// # Errors
    /// There is no such task.
    pub async fn cancel(&self, id: &str) -> Result<api::Task, ApiError> {
        let task = self.find(id)?.row.task;
        if let Some(signals) = self.tasks().signals_of(task) {
            signals.cancelled.cancel();
            _ = timeout(TASK_WAIT_MAX, signals.ended.cancelled()).await;
        }
        Ok(view::task(&self.find(id)?))
    }

    fn find(&self, id: &str) -> Result<Task, ApiError> {
        let found = id.parse::<CallId>().ok().and_then(|task| self.tasks().find_kept(task));
        found.ok_or_else(|| view::no_task(id))
    }

    fn row(&self, agent: &str, input: &Value, options: &CallOptions, time: Duration) -> TaskRow {
        let (task, now) = (CallId(rand::random()), wall_clock());
        TaskRow {
            task,
            call: task,
            agent: agent.to_owned(),
            submitted: now,
            deadline: now + time.min(TASK_TIME_MAX),
            context: context_of(&self.0, options),
            input: ByteBuf::from(input.to_string()),
            note: None,
            stage: TaskStage::NotSent,
        }
    }

    /// The limits of an agent, which is known then.
    async fn limits(&self, agent: &str) -> Result<Option<CallLimits>, ApiError> {
        if let Ok(name) = agent.parse::<FullName>()
            && let Some(local) = self.0.agents.list().get(&name).filter(|local| local.run_config.is_some())
        {
            return Ok(local.offer.card.limits);
        }
        Ok(self.0.resolved(agent, Command::ResolveForCall(agent.to_owned())).await?.card().limits)
    }

    /// Works on a task to its end, or to the end of this run.
    async fn drive(self, task: CallId, beginning: Beginning) {
        let started = Instant::now();
        let mut pause = PAUSE;
        loop {
            let Some(Task { row, .. }) = self.tasks().find(task) else { return };
            let left = row.deadline.since(wall_clock());
            if left.is_zero() {
                let message = "no host took the task before its deadline";
                let late = CallFailure::new(Code::Deadline, Outcome::NotStarted, message);
                return self.end(task, view::not_made(late, task, started)).await;
            }
            let Some(pending) = pending(&row, left) else {
                let lost = CallFailure::new(Code::Internal, Outcome::NotStarted, "the input cannot be read");
                return self.end(task, view::not_made(lost, task, started)).await;
            };
            let Some(called) = self.work_once(task, &row.agent, pending).await else { return };
            let is_early = beginning == Beginning::AfterRestart && started.elapsed() < RESTART_PATIENCE;
            let Some(at_least) = may_wait(&called, is_early) else {
                return self.end(task, called.unwrap_or_else(|error| refused(error, task))).await;
            };
            let wait = at_least.max(pause.mul_f64(rand::random_range(0.5..1.0)));
            pause = (pause * 2).min(PAUSE_MAX);
            let Some(signals) = self.tasks().signals_of(task) else { return };
            tokio::select! {
                () = self.0.stopped() => return,
                () = signals.cancelled.cancelled() => return self.end(task, self.cancelled(task, started)).await,
                () = tokio::time::sleep(wait.min(left)) => {}
            }
            if let Err(error) = self.tasks().make_again(task, CallId(rand::random())).await {
                // What is on disk is the call before, of which nobody took the input either.
                tracing::warn!(%error, %task, "a task is not kept on disk as it is");
            }
        }
    }

    /// Makes the call of a task once; none where this run ends before.
    async fn work_once(
        &self,
        task: CallId,
        agent: &str,
        mut pending: PendingCall,
    ) -> Option<Result<api::CallAnswer, ApiError>> {
        let (sender, reports) = mpsc::channel(REPORTS_MAX);
        let onward = pending.options.reports.replace(sender);
        let started = pending.started;
        let signals = self.tasks().signals_of(task)?;
        tokio::select! {
            biased;
            () = self.0.stopped() => None,
            () = signals.cancelled.cancelled() => Some(Ok(self.cancelled(task, started))),
            called = self.called(task, agent, pending) => Some(called.map(|answer| {
                api::CallAnswer { task_id: task.to_string(), ..answer }
            })),
            never = self.note(task, reports, onward) => match never {},
        }
    }

    /// Makes the call of a task, or asks for it the host that had it before this run of the node.
    async fn called(
        &self,
        task: CallId,
        agent: &str,
        pending: PendingCall,
    ) -> Result<api::CallAnswer, ApiError> {
        match self.sent(task) {
            Some(sent) => Ok(ask_again(&self.0, pending, sent).await),
            None => self.0.make(agent, pending).await,
        }
    }

    /// The other host that has the input of a task, and which run of it.
    fn sent(&self, task: CallId) -> Option<(PeerKey, Incarnation)> {
        match self.tasks().find(task)?.row.stage {
            TaskStage::Sent { host, incarnation: Some(incarnation) } => Some((host, incarnation)),
            _ => None,
        }
    }

    /// Tells how the call of a task stands, and passes it on.
    async fn note(
        &self,
        task: CallId,
        mut reports: mpsc::Receiver<Report>,
        onward: Option<mpsc::Sender<Report>>,
    ) -> std::convert::Infallible {
        while let Some(report) = reports.recv().await {
            self.tasks().report(task, &report);
            if let Some(onward) = &onward {
                // Reports are only a hint.
                _ = onward.try_send(report);
            }
        }
        // Only the answer ends the work.
        std::future::pending().await
    }

    async fn end(&self, task: CallId, answer: api::CallAnswer) {
        let status = status_of(&answer);
        // Our own types always encode.
        let answer = serde_json::to_vec(&answer).unwrap_or_default();
        self.tasks().end(task, status, answer).await;
    }

    fn cancelled(&self, task: CallId, started: Instant) -> api::CallAnswer {
        let is_sent = self.tasks().find(task).is_none_or(|found| found.row.stage != TaskStage::NotSent);
        let (outcome, message) = match is_sent {
            true => (Outcome::Unknown, "the call was taken back; the agent may have done some of the work"),
            false => (Outcome::NotStarted, "the call was taken back before the agent had it"),
        };
        view::not_made(CallFailure::new(Code::Cancelled, outcome, message), task, started)
    }

    /// A restart came between a host's acceptance and its answer.
    async fn lose(&self, task: CallId) {
        let message = "this node was started again while a host had the task: the agent may have done it";
        let lost = CallFailure::new(Code::HostRestarted, Outcome::Unknown, message);
        let host = self.tasks().find(task).and_then(|found| found.host);
        let answer = view::not_made(lost, task, Instant::now());
        self.end(task, api::CallAnswer { served_by: host.map(|host| host.to_string()), ..answer }).await;
    }
}

impl OpenCall {
    /// The task that it became; none while somebody waits for it.
    pub fn task(&self) -> Option<api::Task> {
        self.client.tasks().find_kept(self.task).as_ref().map(view::task)
    }

    /// How it ended.
    ///
    /// # Errors
    /// As for [`Handle::call`].
    pub async fn ended(&mut self) -> Result<api::CallAnswer, ApiError> {
        self.answer.recv().await.unwrap_or_else(|| Err(view::stopped()))
    }

    /// Nobody waits any more: it is a task from now on, and durable when this returns. [`TaskClient::note_of`] tells `note`
    /// again.
    ///
    /// # Errors
    /// There is no room, or no disk. The call is as it was.
    pub async fn keep(&mut self, note: Option<String>) -> Result<(), ApiError> {
        self.client.tasks().keep(self.task, note).await.map_err(|error| view::not_taken(&error))?;
        // It may have ended meanwhile: then its answer is here, and no task is there.
        self.is_kept = self.client.tasks().find_kept(self.task).is_some();
        Ok(())
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        if !self.is_kept {
            self.signals.cancelled.cancel();
        }
    }
}

/// What the log says of work that goes on without the request that it was made by; part of nothing, so that it keeps no other
/// span open.
fn logged(options: &CallOptions) -> Span {
    tracing::warn_span!(parent: None, "task", request = options.request)
}

fn pending(row: &TaskRow, left: Duration) -> Option<PendingCall> {
    let options = CallOptions { timeout: Some(left), context: row.context.clone(), ..CallOptions::default() };
    let input = serde_json::from_slice(&row.input).ok()?;
    Some(PendingCall { id: row.call, input, started: Instant::now(), options, is_task: true })
}

/// After which time at least it is worth another try; none where it is not, or may have been done.
fn may_wait(called: &Result<api::CallAnswer, ApiError>, is_early: bool) -> Option<Duration> {
    match called {
        Ok(answer) if answer.outcome == Some(Outcome::NotStarted) => {
            let error = answer.error.as_ref()?;
            let may =
                matches!(error.code, Code::Busy | Code::RateLimited | Code::Unreachable | Code::CircuitOpen)
                    || is_early && error.code == Code::NotFound;
            may.then(|| Duration::from_millis(error.retry_after_ms.unwrap_or(0)))
        }
        Ok(_) => None,
        Err(error) => {
            let may = matches!(error.code, Code::Busy | Code::Unavailable | Code::TimedOut);
            (may || is_early && error.code == Code::NotFound).then_some(Duration::ZERO)
        }
    }
}

fn status_of(answer: &api::CallAnswer) -> TaskStatus {
    match (&answer.error, answer.outcome) {
        (None, _) => TaskStatus::Completed,
        (Some(error), _) if error.code == Code::Cancelled => TaskStatus::Cancelled,
        (Some(_), Some(Outcome::Unknown)) => TaskStatus::Unknown,
        (Some(_), _) => TaskStatus::Failed,
    }
}

/// An error of the node as the end of a call.
pub(super) fn refused(error: ApiError, call: CallId) -> api::CallAnswer {
    let message = match error.fix.is_empty() {
        true => error.message,
        false => format!("{}; {}", error.message, error.fix),
    };
    view::not_made(CallFailure::new(error.code, Outcome::NotStarted, message), call, Instant::now())
}

fn parse_cursor(text: &str) -> Result<(Timestamp, CallId), ApiError> {
    let parsed = text
        .split_once('-')
        .and_then(|(submitted, task)| Some((Timestamp(submitted.parse().ok()?), task.parse().ok()?)));
    parsed
        .ok_or_else(|| view::bad_request("cursor: not one that this node gave out; start without it".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_waits_where_there_is_no_place_now_and_ends_where_waiting_helps_nothing() {
        let ended = |code, outcome| {
            let failure = CallFailure::new(code, outcome, "").with_retry(Duration::from_secs(7));
            Ok(view::not_made(failure, CallId([0; 16]), Instant::now()))
        };
        for code in [Code::Busy, Code::RateLimited, Code::Unreachable, Code::CircuitOpen] {
            let wait = may_wait(&ended(code, Outcome::NotStarted), false);
            assert_eq!(wait, Some(Duration::from_secs(7)), "{code}");
            assert_eq!(may_wait(&ended(code, Outcome::Unknown), false), None, "{code}: it may have run");
        }
        for code in [Code::BadInput, Code::Cancelled, Code::Deadline, Code::NotFound] {
            assert_eq!(may_wait(&ended(code, Outcome::NotStarted), false), None, "{code}");
        }
        assert!(
            may_wait(&ended(Code::NotFound, Outcome::NotStarted), true).is_some(),
            "soon after a restart"
        );
    }
}
