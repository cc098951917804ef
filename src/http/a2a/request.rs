//! What clients ask, of either binding and version: read once, answered once.

use serde_json::Value;

use super::error::{A2aError, ErrorKind};
use crate::a2a::{Content, Message, Method, Version, texts};
use crate::proto::call::Conversation;

/// Tasks of a page where nothing is said, and at most.
const PAGE: usize = 50;
const PAGE_MAX: usize = 100;

/// A question about an agent's work.
#[derive(Debug)]
pub(super) enum Request {
    /// A message, and what becomes of it when it has become that.
    Send(Sent),
    /// A message, and what becomes of it as it does.
    Stream(Sent),
    /// A task.
    Get { id: String, history: History },
    /// Tasks.
    List(TaskQuery),
    /// The end of a task.
    Cancel { id: String },
    /// A task as it goes on.
    Subscribe { id: String },
}

/// A message for an agent.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) message: Message,
    /// Whether its sender waits for no result.
    pub(super) is_detached: bool,
    pub(super) history: History,
}

/// How much of what was said is wanted with a task; none where nothing is said of it, which is all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct History(Option<u64>);

impl History {
    pub(super) fn is_wanted(self) -> bool {
        self.0 != Some(0)
    }
}

/// Which tasks are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TaskQuery {
    pub(super) context: Option<String>,
    /// By its word in 1.0.
    pub(super) state: Option<String>,
    pub(super) size: usize,
    pub(super) token: Option<String>,
    pub(super) history: History,
    pub(super) has_artifacts: bool,
}

impl Request {
    pub(super) fn read(method: Method, params: &Value) -> Result<Request, A2aError> {
        let id = || {
            let id = params.get("id").and_then(Value::as_str).filter(|id| !id.is_empty());
            id.map(str::to_owned).ok_or_else(|| bad("`id` is missing"))
        };
        Ok(match method {
            Method::Send => Request::Send(Sent::read(params)?),
            Method::Stream => Request::Stream(Sent::read(params)?),
            Method::GetTask => Request::Get { id: id()?, history: History::read(params)? },
            Method::ListTasks => Request::List(TaskQuery::read(params)?),
            Method::CancelTask => Request::Cancel { id: id()? },
            Method::Subscribe => Request::Subscribe { id: id()? },
        })
    }
}

impl Sent {
    pub(super) fn read(params: &Value) -> Result<Sent, A2aError> {
        let message = params.get("message").filter(|message| message.is_object());
        let message = Message::read(message.ok_or_else(|| bad("`message` is missing"))?)?;
        let configuration = params.get("configuration").unwrap_or(&Value::Null);
        let says = |key: &str| configuration.get(key).and_then(Value::as_bool);
        let is_detached = says("returnImmediately").unwrap_or(says("blocking") == Some(false));
        Ok(Sent { message, is_detached, history: History::read(configuration)? })
    }

    /// The agent's own input document: the first document that was sent, else the text as its task.
    pub(super) fn input(&self) -> Result<Value, A2aError> {
        let mut document = None;
        for part in &self.message.parts {
            match &part.content {
                Content::Data(data) => document = document.or(Some(data)),
                Content::Text(_) => {}
                Content::Url(_) | Content::Raw(_) => {
                    let message =
                        "agents of the mesh take text and documents, and no files; send an address as text";
                    return Err(A2aError::new(ErrorKind::ContentType, message));
                }
            }
        }
        let task = || serde_json::json!({"task": texts(&self.message.parts)});
        Ok(document.map_or_else(task, Clone::clone))
    }

    /// The conversation that it is part of, if it names one.
    pub(super) fn conversation(&self) -> Result<Option<Conversation>, A2aError> {
        let context = self.message.context_id.as_deref().map(str::parse);
        context.transpose().map_err(|error| bad(format!("`contextId`: {error}")))
    }
}

impl History {
    fn read(from: &Value) -> Result<History, A2aError> {
        number(from, "historyLength").map(History)
    }
}

impl TaskQuery {
    fn read(params: &Value) -> Result<TaskQuery, A2aError> {
        let text = |key: &str| {
            params.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let size = match number(params, "pageSize")? {
            None | Some(0) => PAGE,
            Some(size) => usize::try_from(size).unwrap_or(PAGE_MAX),
        };
        if size > PAGE_MAX {
            return Err(bad(format!("`pageSize` is more than {PAGE_MAX}")));
        }
        Ok(TaskQuery {
            context: text("contextId"),
            state: text("status").filter(|state| state != "TASK_STATE_UNSPECIFIED"),
            size,
            token: text("pageToken"),
            history: History::read(params)?,
            has_artifacts: params.get("includeArtifacts").is_some_and(|says| says == true || says == "true"),
        })
    }
}

/// A number, which in a query is a text.
fn number(from: &Value, key: &str) -> Result<Option<u64>, A2aError> {
    match from.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(given) => {
            let number = given.as_u64().or_else(|| given.as_str()?.parse().ok());
            number.map(Some).ok_or_else(|| bad(format!("`{key}` is no whole number from 0")))
        }
    }
}

fn bad(message: impl Into<String>) -> A2aError {
    A2aError::new(ErrorKind::InvalidParams, message)
}

/// The version that a client names; none if it is neither.
pub(super) fn version_of(named: &str) -> Option<Version> {
    match named.trim() {
        "" => Some(Version::V03),
        "1.0" | "1" => Some(Version::V1),
        named if named.starts_with("1.0.") => Some(Version::V1),
        named if named == "0.3" || named.starts_with("0.3.") => Some(Version::V03),
        _ => None,
    }
}

pub(super) fn other_version(named: &str) -> A2aError {
    let shown: String = named.chars().take(16).collect();
    let message =
        format!("A2A version {} is not spoken here: send `A2A-Version: 1.0` or 0.3", shown.escape_debug());
    A2aError::new(ErrorKind::OtherVersion, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sent(parts: &Value) -> Result<Sent, A2aError> {
        Sent::read(&json!({"message": {"messageId": "m", "role": "user", "parts": parts}}))
    }

    #[test]
    fn a_document_is_the_input_and_a_text_the_task() {
        let table = [
            (json!([{"text": "a"}, {"kind": "text", "text": "b"}]), json!({"task": "a\nb"})),
            (json!([{"text": "a"}, {"data": {"x": 1}}, {"data": 2}]), json!({"x": 1})),
            (json!([{"data": 7}]), json!(7)),
        ];
        for (parts, input) in table {
            assert_eq!(sent(&parts).unwrap().input().unwrap(), input, "{parts}");
        }
        let file = sent(&json!([{"text": "see"}, {"url": "https://a.test/b.png"}])).unwrap();
        assert!(format!("{:?}", file.input()).contains("ContentType"));
    }

    #[test]
    fn who_waits_for_nothing_says_so_in_the_words_of_its_version() {
        let asked = |configuration: Value| {
            let message = json!({"messageId": "m", "role": "user", "parts": [{"text": "a"}]});
            Sent::read(&json!({"message": message, "configuration": configuration})).unwrap().is_detached
        };
        assert!(asked(json!({"returnImmediately": true})) && asked(json!({"blocking": false})));
        assert!(!asked(json!({})) && !asked(json!({"blocking": true})) && !asked(json!(null)));
    }

    #[test]
    fn what_is_no_question_is_refused_and_names_what_it_lacks() {
        let read = |method, params| format!("{:?}", Request::read(method, &params).unwrap_err());
        assert!(read(Method::Send, json!({})).contains("message"));
        assert!(read(Method::GetTask, json!({})).contains("id"));
        assert!(read(Method::ListTasks, json!({"pageSize": 101})).contains("100"));
        assert!(read(Method::ListTasks, json!({"pageSize": "many"})).contains("pageSize"));
        assert!(read(Method::GetTask, json!({"id": "a", "historyLength": -1})).contains("historyLength"));
        for (named, version) in [
            ("", Some(Version::V03)),
            ("1.0", Some(Version::V1)),
            ("0.3.0", Some(Version::V03)),
            ("9.9", None),
        ] {
            assert_eq!(version_of(named), version, "{named}");
        }
    }
}
