//! The tasks of this node as A2A shows them: a task is a task, its conversation the context, its result one artifact. A failure
//! of the mesh is the message of a task that failed.

use std::collections::VecDeque;

use axum::http::HeaderMap;
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, stream};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::Duration;

use super::A2a;
use super::error::{A2aError, ErrorKind};
use super::request::{Request, Sent, TaskQuery};
use crate::a2a::{Artifact, Event, Message, Part, Role, Task, TaskState, TaskStatus, Version};
use crate::api;
use crate::host::{CallOptions, NamedAgent, TASK_WAIT_MAX, TaskClient};
use crate::http::call::in_course_of;
use crate::http::{closed, date};
use crate::proto::call::{CallId, Report};
use crate::proto::limits::CALL_TIME_MAX;
use crate::proto::task;
use crate::proto::time::Timestamp;

/// The artifact of a task; there is one.
const ARTIFACT: &str = "result";
/// Reports of one call on their way to its client; a slower reader loses some, and never holds the work up.
const REPORTS_MAX: usize = 64;
/// Longest message that is kept beside its task, bytes: the input itself goes when the task has ended.
const KEPT_MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Tasks that are looked at in one question.
const LOOKED_AT_ONCE: usize = 1_000;

/// What a question is answered with.
pub(super) enum Answer {
    Event(Event),
    Task(Task),
    List { tasks: Vec<Task>, total: usize, size: usize, next: String },
    Stream(Box<Follower>),
}

/// Answers a question about the work of an agent.
pub(super) async fn answer(
    a2a: &A2a,
    agent: &NamedAgent,
    headers: &HeaderMap,
    request: Request,
) -> Result<Answer, A2aError> {
    let work = Work { tasks: TaskClient::new(a2a.handle.clone()), agent, headers };
    match request {
        Request::Send(sent) => work.send(a2a, sent).await.map(|task| Answer::Event(Event::Task(task))),
        Request::Stream(sent) => work.stream(a2a, &sent).await.map(|it| Answer::Stream(Box::new(it))),
        Request::Get { id, history } => {
            Ok(Answer::Task(work.shown(&work.find(&id, Duration::ZERO).await?, history.is_wanted())))
        }
        Request::List(query) => work.list(&query).await,
        Request::Cancel { id } => work.cancel(&id).await.map(Answer::Task),
        Request::Subscribe { id } => work.subscribe(a2a, &id).await.map(|it| Answer::Stream(Box::new(it))),
    }
}

struct Work<'a> {
    tasks: TaskClient,
    agent: &'a NamedAgent,
    headers: &'a HeaderMap,
}

impl Work<'_> {
    async fn send(&self, a2a: &A2a, sent: Sent) -> Result<Task, A2aError> {
        let (input, options, note) = self.begun(&sent).await?;
        let submitted = self.tasks.submit(&self.agent.called, &input, options, note).await?;
        let begun = tokio::time::Instant::now();
        let mut closing = a2a.closing.clone();
        loop {
            let left = CALL_TIME_MAX.saturating_sub(begun.elapsed());
            let wait = if sent.is_detached { Duration::ZERO } else { left.min(TASK_WAIT_MAX) };
            let task = tokio::select! {
                task = self.find(&submitted.task_id, wait) => task?,
                // Whoever waits hears how it stands, and finds it after the restart.
                () = closed(&mut closing) => self.find(&submitted.task_id, Duration::ZERO).await?,
            };
            if task.status.is_end() || wait.is_zero() || *a2a.closing.borrow() {
                return Ok(self.shown(&task, sent.history.is_wanted()));
            }
        }
    }

    async fn stream(&self, a2a: &A2a, sent: &Sent) -> Result<Follower, A2aError> {
        let place = a2a.stream_place()?;
        let (input, options, note) = self.begun(sent).await?;
        let (sender, reports) = mpsc::channel(REPORTS_MAX);
        let options = CallOptions { reports: Some(sender), stream: true, ..options };
        let mut call = self.tasks.open(&self.agent.called, &input, options)?;
        // A task of A2A goes on where its client goes away.
        call.keep(note).await?;
        match call.task() {
            Some(task) => Ok(self.follower(a2a, place, &task, reports)),
            None => {
                // It ended before it was kept.
                let answer = call.ended().await?;
                let task = api::Task {
                    task_id: answer.task_id.clone(),
                    agent: self.agent.called.clone(),
                    status: if answer.success {
                        task::TaskStatus::Completed
                    } else {
                        task::TaskStatus::Failed
                    },
                    conversation: sent.message.context_id.clone(),
                    answer: Some(answer),
                    ..api::Task::default()
                };
                Ok(self.follower(a2a, place, &task, reports))
            }
        }
    }

    async fn subscribe(&self, a2a: &A2a, id: &str) -> Result<Follower, A2aError> {
        let place = a2a.stream_place()?;
        let task = self.find(id, Duration::ZERO).await?;
        if task.status.is_end() {
            let message = format!("task {id} has ended, and nothing follows");
            return Err(A2aError::new(ErrorKind::Unsupported, message));
        }
        let (_, reports) = mpsc::channel(1);
        Ok(self.follower(a2a, place, &task, reports))
    }

    fn follower(
        &self,
        a2a: &A2a,
        place: OwnedSemaphorePermit,
        task: &api::Task,
        reports: mpsc::Receiver<Report>,
    ) -> Follower {
        let mut follower = Follower {
            events: VecDeque::new(),
            reports,
            ended: None,
            closing: a2a.closing.clone(),
            id: task.task_id.clone(),
            context: context(task),
            has_partial: false,
            _place: place,
        };
        let mut first = self.shown(task, true);
        if task.status.is_end() {
            first.status = status(TaskState::Submitted, None, task.submitted_ms);
            first.artifacts.clear();
            follower.events.push_back(Event::Task(first));
            follower.push_end(task);
        } else {
            follower.events.push_back(Event::Task(first));
            follower.ended = Some(end_of(self.tasks.clone(), task.task_id.clone()).boxed());
        }
        follower
    }

    /// The input of a call, how it is made, and what is kept of its message.
    async fn begun(&self, sent: &Sent) -> Result<(Value, CallOptions, Option<String>), A2aError> {
        if let Some(id) = &sent.message.task_id {
            self.find(id, Duration::ZERO).await?;
            let message =
                format!("task {id} takes no more messages: each is answered with a task of its own");
            return Err(A2aError::new(ErrorKind::Unsupported, message));
        }
        let input = sent.input()?;
        let new = || CallId(rand::random()).to_string().parse().ok();
        let mut options = in_course_of(self.headers);
        options.context.conversation = sent.conversation()?.or_else(new);
        let message = sent.message.write(Version::V1).to_string();
        Ok((input, options, Some(message).filter(|message| message.len() <= KEPT_MESSAGE_BYTES_MAX)))
    }

    /// A task of this agent, at its end or after `wait`.
    async fn find(&self, id: &str, wait: Duration) -> Result<api::Task, A2aError> {
        let task = self.tasks.show(id, wait).await.map_err(|_| A2aError::no_task(id))?;
        if self.is_ours(&task) { Ok(task) } else { Err(A2aError::no_task(id)) }
    }

    /// Whether it was asked of this agent, by whatever name.
    fn is_ours(&self, task: &api::Task) -> bool {
        let NamedAgent { agent, called, .. } = self.agent;
        let bare = agent.name.agent.as_str();
        task.agent == *called
            || task.agent == bare
            || task.agent == agent.name.to_string()
            || task.agent == agent.id.to_string()
    }

    async fn cancel(&self, id: &str) -> Result<Task, A2aError> {
        if self.find(id, Duration::ZERO).await?.status.is_end() {
            return Err(A2aError::new(ErrorKind::TaskNotCancelable, "Task cannot be canceled: it has ended"));
        }
        Ok(self.shown(&self.tasks.cancel(id).await?, true))
    }

    async fn list(&self, query: &TaskQuery) -> Result<Answer, A2aError> {
        let (mut found, mut cursor) = (Vec::new(), None);
        loop {
            let page = self.tasks.list(LOOKED_AT_ONCE, cursor.as_deref())?;
            found.extend(page.tasks.into_iter().filter(|task| self.is_ours(task) && query.asks_for(task)));
            cursor = page.cursor;
            if cursor.is_none() {
                break;
            }
        }
        let total = found.len();
        let begin = match &query.token {
            None => 0,
            Some(token) => {
                1 + found.iter().position(|task| task.task_id == *token).ok_or_else(|| {
                    A2aError::new(
                        ErrorKind::InvalidParams,
                        "`pageToken` is none that this node gave; begin without it",
                    )
                })?
            }
        };
        let end = (begin + query.size).min(total);
        let next = if end < total { found[end - 1].task_id.clone() } else { String::new() };
        let mut tasks = Vec::new();
        for task in &found[begin..end] {
            let whole =
                if query.has_artifacts { self.find(&task.task_id, Duration::ZERO).await.ok() } else { None };
            tasks.push(self.shown(whole.as_ref().unwrap_or(task), query.history.is_wanted()));
        }
        Ok(Answer::List { tasks, total, size: query.size, next })
    }

    fn shown(&self, task: &api::Task, has_history: bool) -> Task {
        let message = self.tasks.note_of(&task.task_id).filter(|_| has_history);
        let message = message.and_then(|note| serde_json::from_str(&note).ok());
        let message = message.and_then(|message: Value| Message::read(&message).ok());
        let ids = |message| Message {
            context_id: Some(context(task)),
            task_id: Some(task.task_id.clone()),
            ..message
        };
        Task {
            id: task.task_id.clone(),
            context_id: Some(context(task)),
            status: status_of(task),
            artifacts: artifact(task).into_iter().collect(),
            history: message.map(ids).into_iter().collect(),
        }
    }
}

impl TaskQuery {
    fn asks_for(&self, task: &api::Task) -> bool {
        self.context.as_ref().is_none_or(|asked| *asked == context(task))
            && self.state.as_ref().is_none_or(|asked| asked == state(task.status).word(Version::V1))
    }
}

/// The conversation of a task; one without is its own.
fn context(task: &api::Task) -> String {
    task.conversation.clone().unwrap_or_else(|| task.task_id.clone())
}

fn state(of: task::TaskStatus) -> TaskState {
    match of {
        task::TaskStatus::Submitted | task::TaskStatus::Queued => TaskState::Submitted,
        task::TaskStatus::Working => TaskState::Working,
        task::TaskStatus::Completed => TaskState::Completed,
        // What may have been done has failed all the same, and its message says so.
        task::TaskStatus::Failed | task::TaskStatus::Unknown => TaskState::Failed,
        task::TaskStatus::Cancelled => TaskState::Canceled,
    }
}

fn status(state: TaskState, said: Option<Message>, at_ms: u64) -> TaskStatus {
    TaskStatus { state, message: said, timestamp: Some(date(Timestamp(at_ms))) }
}

fn status_of(task: &api::Task) -> TaskStatus {
    let why = task.answer.as_ref().and_then(|answer| {
        let error = answer.error.as_ref()?;
        let outcome = answer.outcome.filter(|outcome| *outcome == api::Outcome::Unknown);
        let known = outcome.map_or("", |_| " (it may have been done)");
        Some(format!("{}: {}{known}", error.code, error.message))
    });
    let said = why.or_else(|| task.message.clone().filter(|_| !task.status.is_end()));
    let said = said.map(|text| said_by_agent(&task.task_id, &context(task), text));
    status(state(task.status), said, task.ended_ms.unwrap_or(task.submitted_ms))
}

fn said_by_agent(task: &str, context: &str, text: String) -> Message {
    Message {
        message_id: CallId(rand::random()).to_string(),
        context_id: Some(context.to_owned()),
        task_id: Some(task.to_owned()),
        role: Role::Agent,
        parts: vec![Part::text(text)],
    }
}

fn artifact(task: &api::Task) -> Option<Artifact> {
    let answer = task.answer.as_ref().filter(|answer| answer.success)?;
    let part = match &answer.result {
        Value::String(text) => Part::text(text.as_str()),
        document => Part::data(document.clone()),
    };
    Some(Artifact { artifact_id: ARTIFACT.into(), name: Some(ARTIFACT.into()), parts: vec![part] })
}

/// The task at its end; none where this run of the node ends before.
async fn end_of(tasks: TaskClient, id: String) -> Option<api::Task> {
    loop {
        let task = tasks.show(&id, TASK_WAIT_MAX).await.ok()?;
        if task.status.is_end() {
            return Some(task);
        }
    }
}

/// Tells what becomes of a task.
pub(super) struct Follower {
    /// To be told next.
    events: VecDeque<Event>,
    reports: mpsc::Receiver<Report>,
    /// None once the end was told of.
    ended: Option<BoxFuture<'static, Option<api::Task>>>,
    closing: watch::Receiver<bool>,
    id: String,
    context: String,
    has_partial: bool,
    _place: OwnedSemaphorePermit,
}

impl Follower {
    pub(super) fn events(self) -> impl Stream<Item = Event> {
        stream::unfold(self, |mut follower| async { Some((follower.next().await?, follower)) })
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let ended = self.ended.as_mut()?;
            tokio::select! {
                // Reports that wait come before the end that they lead to.
                biased;
                () = closed(&mut self.closing) => return None,
                Some(report) = self.reports.recv() => self.push(report),
                ended = ended => {
                    self.ended = None;
                    self.push_end(&ended?);
                }
            }
        }
    }

    fn push(&mut self, report: Report) {
        let said = match report {
            Report::Queued { .. } => return,
            Report::Partial(text) => return self.push_artifact(Part::text(text), true),
            Report::Working { .. } => None,
            Report::Progress(progress) => progress.message,
        };
        let said = said.map(|text| said_by_agent(&self.id, &self.context, text));
        self.push_status(TaskStatus { state: TaskState::Working, message: said, timestamp: None });
    }

    fn push_end(&mut self, task: &api::Task) {
        if let Some(artifact) = artifact(task) {
            self.has_partial = false;
            artifact.parts.into_iter().for_each(|part| self.push_artifact(part, false));
        }
        self.push_status(status_of(task));
    }

    /// More of the result, or all of it, in the place of what came before.
    fn push_artifact(&mut self, part: Part, is_partial: bool) {
        let artifact =
            Artifact { artifact_id: ARTIFACT.into(), name: Some(ARTIFACT.into()), parts: vec![part] };
        self.events.push_back(Event::Artifact {
            task_id: self.id.clone(),
            context_id: Some(self.context.clone()),
            artifact,
            append: self.has_partial,
            last_chunk: !is_partial,
        });
        self.has_partial = is_partial;
    }

    fn push_status(&mut self, status: TaskStatus) {
        let (task_id, context_id) = (self.id.clone(), Some(self.context.clone()));
        self.events.push_back(Event::Status { task_id, context_id, status });
    }
}

impl Answer {
    /// What is sent, where it is one document.
    pub(super) fn document(self, version: Version) -> Result<Value, Box<Follower>> {
        Ok(match self {
            Answer::Event(event) => event.write(version),
            Answer::Task(task) => task.write(version),
            Answer::List { tasks, total, size, next } => {
                let tasks: Vec<Value> = tasks.iter().map(|task| task.write(version)).collect();
                json!({"tasks": tasks, "totalSize": total, "pageSize": size, "nextPageToken": next})
            }
            Answer::Stream(follower) => return Err(follower),
        })
    }
}
