//! Agents behind A2A (Agent2Agent, 1.0 and 0.3): a call is a message, and its answer the task that the server makes of it.
//!
//! The agent's file names the card; the card says where and in which version the agent is asked. The message is sent without
//! waiting for the task, for only then the task's id is known: it is asked after with growing pauses, and taken back where the
//! call ends before it.

mod answer;
mod card;
mod exchange;
mod streamed;

use std::sync::Arc;
use std::time::Duration;

use reqwest::Response;
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep, timeout};

pub(super) use self::card::CardCache;
use self::exchange::{ExchangeError, Sent, Server};
use self::streamed::TaskStream;
use super::Invocation;
use super::partial_output::PartialOutput;
use super::secrets::Secrets;
use super::web::Clients;
use crate::a2a::{Event, Message, Part, Role, Task};
use crate::document::run_config::Endpoint;
use crate::proto::call::CallFailure;
use crate::proto::code::Code;

/// Shortest pause before a task is asked after: what takes no longer is answered at once.
const PAUSE_MIN: Duration = Duration::from_millis(25);
/// Longest pause: what takes an hour is known a few seconds after it ended.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A pause is this part of the time that the task took so far, so that nobody waits much longer than its work.
const PAUSE_PART: u32 = 8;
/// Questions after a task in a row that may fail: one lost connection loses no task.
const QUESTIONS_LOST_MAX: u32 = 3;
/// How much longer each of them makes the pause: a server that restarts is back by the last.
const PAUSE_LOST: Duration = Duration::from_secs(2);
/// How long a server has to take a task back; nobody waits for it.
const CANCEL_MAX: Duration = Duration::from_secs(5);

/// Sends the call's input as a message, and follows its task to the end. Dropping the future takes the task back.
pub(super) async fn run(
    agent: &Endpoint,
    cards: &CardCache,
    secrets: &Arc<Secrets>,
    clients: &Clients,
    invocation: &Invocation,
) -> Result<Value, CallFailure> {
    let done = attempt(agent, cards, secrets, clients, invocation).await;
    // What failed on the way may be elsewhere by now; what the agent itself says has nothing to do with its card.
    if matches!(&done, Err(failure) if is_of_the_way(failure.code)) {
        cards.forget();
    }
    done
}

fn is_of_the_way(code: Code) -> bool {
    matches!(code, Code::StartFailed | Code::UpstreamFailed | Code::BadOutput)
}

async fn attempt(
    agent: &Endpoint,
    cards: &CardCache,
    secrets: &Arc<Secrets>,
    clients: &Clients,
    invocation: &Invocation,
) -> Result<Value, CallFailure> {
    let card = cards.card(agent, clients, secrets).await?;
    let server = |interface| Server::new(interface, agent, secrets, clients, invocation);
    let message = message(invocation);
    let mut partial = PartialOutput::of(invocation);
    let is_streamed = partial.is_wanted() && card.is_streaming;
    let mut asked = server(card.interface.clone());
    let mut sent = asked.send(&message, is_streamed).await;
    // Cards are wrong about it: one that says 1.0 may stand before a server of 0.3, and the other way round.
    if let (Err(ExchangeError::OtherVersion), Some(other)) = (&sent, card.other_version()) {
        asked = server(other.clone());
        sent = asked.send(&message, is_streamed).await;
        if sent.is_ok() {
            cards.prefer(other);
        }
    }
    match sent.map_err(|error| asked.failure(error))? {
        Sent::Stream(stream) => listen(asked, stream, &mut partial).await,
        Sent::Event(Event::Message(message)) => Ok(answer::of_parts(message.parts, asked.version())),
        Sent::Event(Event::Task(task)) => follow(RunningTask::new(&asked, &task), task).await,
        Sent::Event(Event::Status { .. } | Event::Artifact { .. }) => {
            let why = "it answers a message with an event of a stream".into();
            Err(asked.failure(ExchangeError::NotA2a(why)))
        }
    }
}

/// Takes what a stream tells of a task; one that ends before its task loses nothing, for the task can be asked after.
async fn listen(
    server: Server,
    mut response: Response,
    partial: &mut PartialOutput,
) -> Result<Value, CallFailure> {
    let (mut stream, mut running) = (TaskStream::default(), None);
    while !stream.is_over() {
        let part = match server.part(&mut response).await {
            Ok(Some(part)) => part,
            Ok(None) => break,
            Err(_) if running.is_some() => break,
            Err(error) => return Err(server.failure(error)),
        };
        stream.push(&part, server.binding(), partial).map_err(|error| server.failure(error))?;
        if let (None, Some(task)) = (&running, &stream.task) {
            running = Some(RunningTask::new(&server, task));
        }
    }
    match (stream.message, stream.task.zip(running)) {
        (Some(message), _) => Ok(answer::of_parts(message.parts, server.version())),
        (None, Some((task, running))) => follow(running, task).await,
        (None, None) => {
            let why = "its stream ended and named no task".into();
            Err(server.failure(ExchangeError::NotA2a(why)))
        }
    }
}

/// Asks after a task until it ends or waits for its client.
async fn follow(mut running: RunningTask, mut task: Task) -> Result<Value, CallFailure> {
    let (began, mut lost) = (Instant::now(), 0);
    while task.status.state.is_going_on() {
        let pause = (began.elapsed() / PAUSE_PART).clamp(PAUSE_MIN, PAUSE_MAX);
        sleep(pause.max(PAUSE_LOST * lost)).await;
        match running.server.task(&running.id).await {
            Ok(now) => (task, lost) = (now, 0),
            Err(_) if lost + 1 < QUESTIONS_LOST_MAX => lost += 1,
            Err(error) => return Err(running.server.lost(error)),
        }
    }
    running.is_over = true;
    answer::of_task(task, running.server.version(), running.server.secrets())
}

/// A task at its server. Dropped before it is over, it is taken back there.
struct RunningTask {
    server: Server,
    id: String,
    is_over: bool,
}

impl RunningTask {
    fn new(server: &Server, task: &Task) -> RunningTask {
        RunningTask { server: server.clone(), id: task.id.clone(), is_over: false }
    }
}

impl Drop for RunningTask {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        // A drop while the runtime ends has nobody left to take the task back.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (server, id) = (self.server.clone(), std::mem::take(&mut self.id));
        runtime.spawn(async move {
            // A server that does not take it back works on for nobody, and there is nobody to tell.
            let _not_taken = timeout(CANCEL_MAX, server.cancel(&id)).await;
        });
    }
}

/// The message that a call is. A task alone is a text; anything else goes as the document that it is.
fn message(invocation: &Invocation) -> Message {
    let part = match invocation.input.as_object().and_then(lone_task) {
        Some(task) => Part::text(task),
        None => Part::data(invocation.input.clone()),
    };
    Message {
        message_id: invocation.call.to_string(),
        context_id: invocation.context.conversation.as_ref().map(ToString::to_string),
        task_id: None,
        role: Role::User,
        parts: vec![part],
    }
}

/// The text of an input that has nothing but a `task`. Clients of the paper's schema send what they leave out as null.
fn lone_task(input: &Map<String, Value>) -> Option<&str> {
    let is_alone = input.iter().all(|(name, value)| name == "task" || value.is_null());
    input.get("task").and_then(Value::as_str).filter(|_| is_alone)
}
