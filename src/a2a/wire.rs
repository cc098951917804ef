//! Reading both versions, and writing 1.0.
//!
//! What only one version has is known by its names: 0.3 says `kind`, lower-case states and roles, and puts files into an object
//! of their own. So one reader takes either, and even peers that mix them.

use serde_json::{Value, json};

use super::{Artifact, Content, Event, Message, Part, Role, Task, TaskState, TaskStatus, Version};

/// What of a document is no A2A.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

/// A member that has nothing in it counts as absent: some servers write every member there is.
fn text(from: &Value, key: &str) -> Option<String> {
    from.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}

fn required(from: &Value, key: &str, of: &str) -> Result<String, Malformed> {
    text(from, key).ok_or_else(|| Malformed(format!("{of} has no `{key}`")))
}

fn list<T>(from: &Value, key: &str, read: fn(&Value) -> Result<T, Malformed>) -> Result<Vec<T>, Malformed> {
    match from.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => items.iter().map(read).collect(),
        Some(_) => Err(Malformed(format!("`{key}` is no array"))),
    }
}

impl Message {
    /// Reads a message of either version.
    ///
    /// # Errors
    /// What it lacks: a `messageId`, a part, or a part that can be read.
    pub fn read(message: &Value) -> Result<Message, Malformed> {
        let parts = list(message, "parts", Part::read)?;
        if parts.is_empty() {
            return Err(Malformed("the message has no `parts`".into()));
        }
        let is_agent = matches!(message["role"].as_str(), Some("ROLE_AGENT" | "agent"));
        Ok(Message {
            message_id: required(message, "messageId", "the message")?,
            context_id: text(message, "contextId"),
            task_id: text(message, "taskId"),
            role: if is_agent { Role::Agent } else { Role::User },
            parts,
        })
    }

    /// The message on the wire of a version.
    pub fn write(&self, version: Version) -> Value {
        if version == Version::V03 {
            return self.write_v03();
        }
        let role = match self.role {
            Role::User => "ROLE_USER",
            Role::Agent => "ROLE_AGENT",
        };
        let mut written = json!({"messageId": self.message_id, "role": role});
        put(&mut written, "contextId", &self.context_id);
        put(&mut written, "taskId", &self.task_id);
        written["parts"] = self.parts.iter().map(Part::write).collect();
        written
    }
}

impl Part {
    fn read(part: &Value) -> Result<Part, Malformed> {
        let file = part.get("file").unwrap_or(part);
        let of = |key: &str| file.get(key).and_then(Value::as_str).map(str::to_owned);
        let content = match (part.get("text"), part.get("data")) {
            (Some(Value::String(text)), _) => Some(Content::Text(text.clone())),
            (_, Some(document)) => Some(Content::Data(document.clone())),
            _ => (of("url").or_else(|| of("uri")).map(Content::Url))
                .or_else(|| of("raw").or_else(|| of("bytes")).map(Content::Raw)),
        };
        let content =
            content.ok_or_else(|| Malformed("a part has none of `text`, `data`, `url` and `raw`".into()))?;
        let filename = text(file, "filename").or_else(|| text(file, "name"));
        let media_type = text(part, "mediaType").or_else(|| text(file, "mimeType"));
        Ok(Part { content, filename, media_type })
    }

    /// The part on the wire of 1.0.
    pub fn write(&self) -> Value {
        let mut written = match &self.content {
            Content::Text(text) => json!({"text": text}),
            Content::Data(document) => json!({"data": document}),
            Content::Url(url) => json!({"url": url}),
            Content::Raw(raw) => json!({"raw": raw}),
        };
        put(&mut written, "filename", &self.filename);
        put(&mut written, "mediaType", &self.media_type);
        written
    }
}

/// States by their words in 1.0 and in 0.3.
pub(super) const STATES: [(TaskState, &str, &str); 9] = [
    (TaskState::Unspecified, "TASK_STATE_UNSPECIFIED", "unknown"),
    (TaskState::Submitted, "TASK_STATE_SUBMITTED", "submitted"),
    (TaskState::Working, "TASK_STATE_WORKING", "working"),
    (TaskState::Completed, "TASK_STATE_COMPLETED", "completed"),
    (TaskState::Failed, "TASK_STATE_FAILED", "failed"),
    (TaskState::Canceled, "TASK_STATE_CANCELED", "canceled"),
    (TaskState::InputRequired, "TASK_STATE_INPUT_REQUIRED", "input-required"),
    (TaskState::Rejected, "TASK_STATE_REJECTED", "rejected"),
    (TaskState::AuthRequired, "TASK_STATE_AUTH_REQUIRED", "auth-required"),
];

impl TaskState {
    fn read(state: &Value) -> TaskState {
        let word = state.as_str().unwrap_or_default();
        let found = STATES.iter().find(|(_, v1, v03)| word == *v1 || word == *v03);
        // A state of a later version is none that anything here follows from.
        found.map_or(TaskState::Unspecified, |(state, ..)| *state)
    }

    /// Its word in a version.
    pub fn word(self, version: Version) -> &'static str {
        let (_, v1, v03) = STATES[self as usize];
        match version {
            Version::V1 => v1,
            Version::V03 => v03,
        }
    }
}

impl TaskStatus {
    fn read(status: &Value) -> Result<TaskStatus, Malformed> {
        let message = status.get("message").filter(|message| !message.is_null());
        Ok(TaskStatus {
            state: TaskState::read(&status["state"]),
            message: message.map(Message::read).transpose()?,
            timestamp: text(status, "timestamp"),
        })
    }

    pub(super) fn write(&self, version: Version) -> Value {
        let mut written = json!({"state": self.state.word(version)});
        if let Some(message) = &self.message {
            written["message"] = message.write(version);
        }
        put(&mut written, "timestamp", &self.timestamp);
        written
    }
}

impl Artifact {
    fn read(artifact: &Value) -> Result<Artifact, Malformed> {
        Ok(Artifact {
            // Nothing here needs it, so an answer is not lost for want of it.
            artifact_id: text(artifact, "artifactId").unwrap_or_default(),
            name: text(artifact, "name"),
            parts: list(artifact, "parts", Part::read)?,
        })
    }

    fn write(&self, version: Version) -> Value {
        let mut written = json!({"artifactId": self.artifact_id});
        put(&mut written, "name", &self.name);
        written["parts"] = match version {
            Version::V1 => self.parts.iter().map(Part::write).collect(),
            Version::V03 => self.parts.iter().map(Part::write_v03).collect(),
        };
        written
    }
}

impl Task {
    /// Reads a task of either version.
    ///
    /// # Errors
    /// It has no `id` or no `status`, or something of it cannot be read.
    pub fn read(task: &Value) -> Result<Task, Malformed> {
        let status = task.get("status").ok_or_else(|| Malformed("the task has no `status`".into()))?;
        Ok(Task {
            id: required(task, "id", "the task")?,
            context_id: text(task, "contextId"),
            status: TaskStatus::read(status)?,
            artifacts: list(task, "artifacts", Artifact::read)?,
            history: list(task, "history", Message::read)?,
        })
    }

    /// The task on the wire of a version.
    pub fn write(&self, version: Version) -> Value {
        let mut written = json!({"id": self.id});
        put(&mut written, "contextId", &self.context_id);
        written["status"] = self.status.write(version);
        if !self.artifacts.is_empty() {
            written["artifacts"] = self.artifacts.iter().map(|artifact| artifact.write(version)).collect();
        }
        if !self.history.is_empty() {
            written["history"] = self.history.iter().map(|message| message.write(version)).collect();
        }
        if version == Version::V03 {
            written["kind"] = json!("task");
        }
        written
    }
}

/// What can come, by the member that holds it in 1.0 and by its `kind` in 0.3.
const EVENTS: [(&str, &str); 4] = [
    ("task", "task"),
    ("message", "message"),
    ("statusUpdate", "status-update"),
    ("artifactUpdate", "artifact-update"),
];

impl Event {
    /// Reads the answer of a message, or an event of its stream, of either version.
    ///
    /// # Errors
    /// It is none of the four, or cannot be read.
    pub fn read(event: &Value) -> Result<Event, Malformed> {
        let found = EVENTS.iter().find_map(|(member, kind)| {
            let body = event.get(member).filter(|body| body.is_object());
            Some((*kind, body.or_else(|| (event["kind"] == *kind).then_some(event))?))
        });
        let (kind, body) = found.ok_or_else(|| Malformed("there is neither a task nor a message".into()))?;
        let ids = || Ok((required(body, "taskId", "the update")?, text(body, "contextId")));
        let flag = |key: &str| body.get(key).and_then(Value::as_bool).unwrap_or_default();
        match kind {
            "task" => Task::read(body).map(Event::Task),
            "message" => Message::read(body).map(Event::Message),
            "status-update" => {
                let ((task_id, context_id), status) = (ids()?, TaskStatus::read(&body["status"])?);
                Ok(Event::Status { task_id, context_id, status })
            }
            _ => {
                let ((task_id, context_id), artifact) = (ids()?, Artifact::read(&body["artifact"])?);
                let (append, last_chunk) = (flag("append"), flag("lastChunk"));
                Ok(Event::Artifact { task_id, context_id, artifact, append, last_chunk })
            }
        }
    }

    /// The answer, or the event, on the wire of a version.
    pub fn write(&self, version: Version) -> Value {
        let (member, kind) = EVENTS[match self {
            Event::Task(_) => 0,
            Event::Message(_) => 1,
            Event::Status { .. } => 2,
            Event::Artifact { .. } => 3,
        }];
        let mut written = match self {
            Event::Task(task) => task.write(version),
            Event::Message(message) => message.write(version),
            Event::Status { task_id, context_id, status } => {
                let mut written = json!({"taskId": task_id});
                put(&mut written, "contextId", context_id);
                written["status"] = status.write(version);
                written
            }
            Event::Artifact { task_id, context_id, artifact, append, last_chunk } => {
                let mut written = json!({"taskId": task_id});
                put(&mut written, "contextId", context_id);
                written["artifact"] = artifact.write(version);
                written["append"] = json!(append);
                written["lastChunk"] = json!(last_chunk);
                written
            }
        };
        if version == Version::V1 {
            return json!({ member: written });
        }
        written["kind"] = json!(kind);
        if let Event::Status { status, .. } = self {
            written["final"] = json!(!status.state.is_going_on());
        }
        written
    }
}

/// Puts a text that there is.
pub(super) fn put(into: &mut Value, key: &str, text: &Option<String>) {
    if let Some(text) = text {
        into[key] = json!(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> Task {
        let message = Message {
            message_id: "m1".into(),
            context_id: Some("c1".into()),
            task_id: None,
            role: Role::User,
            parts: vec![Part::text("hello"), Part::data(json!([1, 2]))],
        };
        let file = Part {
            content: Content::Url("https://a.test/b.png".into()),
            filename: Some("b.png".into()),
            media_type: None,
        };
        let status =
            TaskStatus { state: TaskState::InputRequired, message: Some(message.clone()), timestamp: None };
        Task {
            id: "t1".into(),
            context_id: Some("c1".into()),
            status,
            artifacts: vec![Artifact {
                artifact_id: "a1".into(),
                name: Some("result".into()),
                parts: vec![file],
            }],
            history: vec![message],
        }
    }

    #[test]
    fn a_task_of_1_0_is_written_and_read_back() {
        let written = task().write(Version::V1);
        let message = json!({"messageId": "m1", "role": "ROLE_USER", "contextId": "c1",
                             "parts": [{"text": "hello"}, {"data": [1, 2]}]});
        assert_eq!(
            written,
            json!({"id": "t1", "contextId": "c1", "status": {"state": "TASK_STATE_INPUT_REQUIRED", "message": message},
                   "artifacts": [{"artifactId": "a1", "name": "result",
                                  "parts": [{"url": "https://a.test/b.png", "filename": "b.png"}]}],
                   "history": [message]})
        );
        assert_eq!(Task::read(&written), Ok(task()));
    }

    #[test]
    fn a_task_of_0_3_is_written_and_read_back_but_for_documents_that_are_no_objects() {
        let written = task().write(Version::V03);
        let message = json!({"kind": "message", "messageId": "m1", "role": "user", "contextId": "c1",
                             "parts": [{"kind": "text", "text": "hello"}, {"kind": "data", "data": {"result": [1, 2]}}]});
        assert_eq!(
            written,
            json!({"kind": "task", "id": "t1", "contextId": "c1", "status": {"state": "input-required", "message": message},
                   "artifacts": [{"artifactId": "a1", "name": "result",
                                  "parts": [{"kind": "file", "file": {"uri": "https://a.test/b.png", "name": "b.png"}}]}],
                   "history": [message]})
        );
        let mut read = task();
        read.history[0].parts[1] = Part::data(json!({"result": [1, 2]}));
        read.status.message = Some(read.history[0].clone());
        assert_eq!(Task::read(&written), Ok(read));
    }

    #[test]
    fn every_event_is_read_as_it_was_written() {
        let Task { status, mut artifacts, .. } = task();
        let (task_id, context_id) = ("t1".to_owned(), Some("c1".to_owned()));
        let status = TaskStatus { state: TaskState::Completed, message: None, ..status };
        let events = [
            Event::Task(task()),
            Event::Message(task().history.remove(0)),
            Event::Status { task_id: task_id.clone(), context_id: context_id.clone(), status },
            Event::Artifact {
                task_id,
                context_id,
                artifact: artifacts.remove(0),
                append: true,
                last_chunk: false,
            },
        ];
        for event in &events {
            assert_eq!(Event::read(&event.write(Version::V1)).as_ref(), Ok(event));
        }
        let written: Vec<Value> = events.iter().map(|event| event.write(Version::V03)).collect();
        let kinds = ["task", "message", "status-update", "artifact-update"];
        assert_eq!(written.iter().map(|event| &event["kind"]).collect::<Vec<_>>(), kinds);
        assert_eq!(written[2]["final"], true);
        assert_eq!(Event::read(&written[2]).as_ref(), Ok(&events[2]));
        assert_eq!(Event::read(&written[3]).as_ref(), Ok(&events[3]));
    }

    #[test]
    fn what_is_not_known_is_passed_over_and_what_is_needed_is_named() {
        let task = json!({"id": "t", "weight": 3, "status": {"state": "TASK_STATE_DREAMING"}, "artifacts": null,
                          "history": [{"messageId": "m", "role": "ROLE_AGENT", "mood": "good", "taskId": "",
                                       "parts": [{"text": "x", "filename": "", "mediaType": ""}]}]});
        let task = Task::read(&task).unwrap();
        assert_eq!((task.status.state, task.history[0].role), (TaskState::Unspecified, Role::Agent));
        assert_eq!((&task.history[0].task_id, &task.history[0].parts), (&None, &vec![Part::text("x")]));
        // Version 0.2 said `type`.
        let old = json!({"messageId": "m", "role": "user", "parts": [{"type": "text", "text": "x"}]});
        assert_eq!(Message::read(&old).unwrap().parts, [Part::text("x")]);
        for (message, lack) in [
            (json!({"role": "user", "parts": [{"text": "x"}]}), "messageId"),
            (json!({"messageId": "m", "parts": []}), "parts"),
            (json!({"messageId": "m", "parts": "x"}), "parts"),
            (json!({"messageId": "m", "parts": [{"video": "x"}]}), "part"),
            (json!("hello"), "parts"),
        ] {
            let error = Message::read(&message).unwrap_err().to_string();
            assert!(error.contains(lack), "{message}: {error}");
        }
        for event in [json!({}), json!({"task": "t"}), json!({"kind": "smell"}), json!([])] {
            Event::read(&event).unwrap_err();
        }
    }

    #[test]
    fn words_of_both_versions_stand_in_the_order_of_their_kinds() {
        for (at, (state, v1, v03)) in STATES.iter().enumerate() {
            assert_eq!((*state as usize, state.word(Version::V1), state.word(Version::V03)), (at, *v1, *v03));
            assert_eq!((TaskState::read(&json!(v1)), TaskState::read(&json!(v03))), (*state, *state));
        }
    }
}
