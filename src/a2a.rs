//! A2A (Agent2Agent) as values: what clients and servers of it say to each other, in the words of version 1.0.
//!
//! There is one inner form. `wire` reads both versions into it, for they can be told apart everywhere, and writes 1.0; `v03`
//! writes 0.3. Reading passes over what it does not know, writing says no more than the specification has. Nothing here opens
//! a connection, and nothing is kept.

mod v03;
mod wire;

use serde_json::Value;

pub use self::wire::Malformed;

/// Which version a peer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 1.0.
    V1,
    /// 0.3, the one before it.
    V03,
}

impl Version {
    /// Its value of the header `A2A-Version`. A request without the header is of 0.3.
    pub fn header(self) -> &'static str {
        match self {
            Version::V1 => "1.0",
            Version::V03 => "0.3",
        }
    }
}

/// Methods of the JSON-RPC binding that both sides here know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A message, and its answer when that is there.
    Send,
    /// A message, and what becomes of it as it comes.
    Stream,
    /// A task as it stands.
    GetTask,
    /// All tasks; 0.3 has no such method.
    ListTasks,
    /// The end of a task.
    CancelTask,
    /// A running task as it goes on.
    Subscribe,
}

/// A method by its name in 1.0 and in 0.3.
const METHODS: [(Method, &str, &str); 6] = [
    (Method::Send, "SendMessage", "message/send"),
    (Method::Stream, "SendStreamingMessage", "message/stream"),
    (Method::GetTask, "GetTask", "tasks/get"),
    (Method::ListTasks, "ListTasks", "tasks/list"),
    (Method::CancelTask, "CancelTask", "tasks/cancel"),
    (Method::Subscribe, "SubscribeToTask", "tasks/resubscribe"),
];

impl Method {
    /// Its name in a version.
    pub fn name(self, version: Version) -> &'static str {
        let (_, v1, v03) = METHODS[self as usize];
        match version {
            Version::V1 => v1,
            Version::V03 => v03,
        }
    }

    /// The method of this name, and the version that calls it so.
    pub fn parse(name: &str) -> Option<(Method, Version)> {
        METHODS.iter().find_map(|(method, v1, v03)| match name {
            _ if name == *v1 => Some((*method, Version::V1)),
            _ if name == *v03 => Some((*method, Version::V03)),
            _ => None,
        })
    }
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Chosen by its sender.
    pub message_id: String,
    /// The conversation that it is part of.
    pub context_id: Option<String>,
    /// The task that it is about.
    pub task_id: Option<String>,
    /// Who says it.
    pub role: Role,
    /// What it says; at least one.
    pub parts: Vec<Part>,
}

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The client.
    User,
    /// The server.
    Agent,
}

/// A piece of a message or of an artifact.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// What it is.
    pub content: Content,
    /// The name of a file.
    pub filename: Option<String>,
    /// Its media type, where it says one.
    pub media_type: Option<String>,
}

/// What a part holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// A JSON document. In 0.3 it must be an object, so another is written as `{"result": …}`.
    Data(Value),
    /// Where a file lies.
    Url(String),
    /// A file itself, in base64.
    Raw(String),
}

impl Part {
    /// A text.
    pub fn text(text: impl Into<String>) -> Part {
        Part { content: Content::Text(text.into()), filename: None, media_type: None }
    }

    /// A document.
    pub fn data(document: Value) -> Part {
        Part { content: Content::Data(document), filename: None, media_type: None }
    }
}

/// The texts among parts, each on lines of its own.
pub fn texts(parts: &[Part]) -> String {
    let texts = parts.iter().filter_map(|part| match &part.content {
        Content::Text(text) => Some(text.as_str()),
        _ => None,
    });
    texts.collect::<Vec<_>>().join("\n")
}

/// A piece of work, as its server sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Chosen by the server.
    pub id: String,
    /// The conversation that it is part of. Servers should always say it.
    pub context_id: Option<String>,
    /// Where it stands.
    pub status: TaskStatus,
    /// What it made.
    pub artifacts: Vec<Artifact>,
    /// What was said in it.
    pub history: Vec<Message>,
}

/// Where a task stands.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskStatus {
    /// In a word.
    pub state: TaskState,
    /// Why, or what is asked.
    pub message: Option<Message>,
    /// Since when, RFC 3339.
    pub timestamp: Option<String>,
}

/// The states of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// None that is known here.
    Unspecified,
    /// Taken, not begun.
    Submitted,
    /// At work.
    Working,
    /// Done.
    Completed,
    /// It failed.
    Failed,
    /// Its client took it back.
    Canceled,
    /// It waits for a word of its client.
    InputRequired,
    /// Its server would not do it.
    Rejected,
    /// It waits for credentials of its client.
    AuthRequired,
}

impl TaskState {
    /// Whether nothing follows.
    pub fn is_terminal(self) -> bool {
        matches!(self, TaskState::Completed | TaskState::Failed | TaskState::Canceled | TaskState::Rejected)
    }

    /// Whether its server works on, so that asking again may tell more.
    pub fn is_going_on(self) -> bool {
        matches!(self, TaskState::Submitted | TaskState::Working)
    }
}

/// What a task made.
#[derive(Clone, Debug, PartialEq)]
pub struct Artifact {
    /// Unique within the task.
    pub artifact_id: String,
    /// For people.
    pub name: Option<String>,
    /// Its content.
    pub parts: Vec<Part>,
}

/// The answer of a message, or one event of its stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A task, whole.
    Task(Task),
    /// The agent answers at once, without a task.
    Message(Message),
    /// A task moved on.
    Status {
        /// Which task.
        task_id: String,
        /// Its conversation.
        context_id: Option<String>,
        /// Where it stands now.
        status: TaskStatus,
    },
    /// A task made something, or more of it.
    Artifact {
        /// Which task.
        task_id: String,
        /// Its conversation.
        context_id: Option<String>,
        /// What it made.
        artifact: Artifact,
        /// Whether its parts follow those that came before.
        append: bool,
        /// Whether no more of it follows.
        last_chunk: bool,
    },
}
