//! What a task or a message of an A2A agent is as the answer of a call.

use serde_json::{Value, json};

use crate::a2a::{Content, Message, Part, Task, TaskState, Version, texts};
use crate::agents::secrets::Secrets;
use crate::agents::web::cut;
use crate::proto::call::{CallFailure, Outcome};
use crate::proto::code::Code;

/// The output document of a task that its server works on no more, or why there is none.
pub(super) fn of_task(task: Task, version: Version, secrets: &Secrets) -> Result<Value, CallFailure> {
    let Task { id, context_id, status, artifacts, .. } = task;
    let word = status.state.word(Version::V03);
    // Cut last, or the half of a secret would be left.
    let told = |text: &str| cut(&secrets.hide(text));
    let said = status.message.as_ref().map(|message| told(&texts(&message.parts))).unwrap_or_default();
    let failed = |code, message| Err(CallFailure::new(code, Outcome::Done, message));
    match status.state {
        TaskState::Completed => {
            let mut parts: Vec<Part> = artifacts.into_iter().flat_map(|artifact| artifact.parts).collect();
            // Agents that make nothing say their answer.
            if parts.is_empty() {
                parts = status.message.map(|message: Message| message.parts).unwrap_or_default();
            }
            Ok(of_parts(parts, version))
        }
        TaskState::InputRequired | TaskState::AuthRequired => {
            let asks = if said.is_empty() { format!("it is {word} and says no more") } else { said };
            let context = context_id.map(|id| format!(", context {}", told(&id))).unwrap_or_default();
            failed(Code::NeedsInput, format!("the agent asks: {asks} (task {}{context})", told(&id)))
        }
        TaskState::Failed | TaskState::Rejected | TaskState::Canceled => {
            let why = if said.is_empty() { "the agent does not say why".to_owned() } else { said };
            failed(Code::AgentFailed, format!("the task is {word}: {why}"))
        }
        TaskState::Submitted | TaskState::Working | TaskState::Unspecified => {
            let message = "the task is in a state that this version of the node does not know";
            Err(CallFailure::new(Code::BadOutput, Outcome::Unknown, message))
        }
    }
}

/// The document that parts are: a lone text, a lone document, else the parts themselves.
pub(super) fn of_parts(mut parts: Vec<Part>, version: Version) -> Value {
    if let [_] = parts.as_slice() {
        match parts.remove(0) {
            Part { content: Content::Text(text), .. } => return Value::String(text),
            Part { content: Content::Data(document), .. } => return unwrapped(document, version),
            part => parts.push(part),
        }
    }
    // An agent that did its work may have nothing to say.
    if parts.is_empty() { Value::Null } else { json!(parts.iter().map(Part::write).collect::<Vec<_>>()) }
}

/// Documents of 0.3 are objects, so what is none comes as the only member of one.
fn unwrapped(document: Value, version: Version) -> Value {
    match document {
        Value::Object(mut members) if version == Version::V03 && members.len() == 1 => {
            members.remove("result").unwrap_or(Value::Object(members))
        }
        document => document,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(part: Value) -> Part {
        Message::read(&json!({"messageId": "m", "parts": [part]})).unwrap().parts.remove(0)
    }

    #[test]
    fn a_lone_text_or_document_is_the_answer_and_anything_else_is_its_parts() {
        let of = |parts: &[Value], version| of_parts(parts.iter().cloned().map(part).collect(), version);
        let (text, result) = (json!({"text": "a"}), json!({"data": {"result": 7}}));
        let both = json!({"data": {"result": 7, "more": 8}});
        assert_eq!(of(std::slice::from_ref(&text), Version::V1), "a");
        assert_eq!(of(std::slice::from_ref(&result), Version::V1), json!({"result": 7}));
        assert_eq!(of(std::slice::from_ref(&result), Version::V03), 7);
        assert_eq!(of(&[json!({"data": {"results": 7}})], Version::V03), json!({"results": 7}));
        assert_eq!(of(std::slice::from_ref(&both), Version::V03), both["data"]);
        assert_eq!(of(&[text.clone(), text.clone()], Version::V03), json!([text, text]));
        let file = json!({"kind": "file", "file": {"uri": "https://a.test/b", "mimeType": "image/png"}});
        assert_eq!(of(&[file], Version::V03), json!([{"url": "https://a.test/b", "mediaType": "image/png"}]));
        assert_eq!(of(&[], Version::V1), Value::Null);
    }
}
