//! Writing 0.3, where it differs from 1.0 in more than words: `kind` everywhere, files in an object of their own, documents that
//! must be objects.

use serde_json::{Value, json};

use super::wire::put;
use super::{Content, Message, Part, Role};

impl Message {
    pub(super) fn write_v03(&self) -> Value {
        let role = match self.role {
            Role::User => "user",
            Role::Agent => "agent",
        };
        let mut written = json!({"kind": "message", "messageId": self.message_id, "role": role});
        put(&mut written, "contextId", &self.context_id);
        put(&mut written, "taskId", &self.task_id);
        written["parts"] = self.parts.iter().map(Part::write_v03).collect();
        written
    }
}

impl Part {
    pub(super) fn write_v03(&self) -> Value {
        let (key, place) = match &self.content {
            Content::Text(text) => return json!({"kind": "text", "text": text}),
            Content::Data(document) if document.is_object() => {
                return json!({"kind": "data", "data": document});
            }
            // Its readers refuse any other kind of document.
            Content::Data(document) => return json!({"kind": "data", "data": {"result": document}}),
            Content::Url(url) => ("uri", url),
            Content::Raw(raw) => ("bytes", raw),
        };
        let mut file = json!({ key: place });
        put(&mut file, "name", &self.filename);
        put(&mut file, "mimeType", &self.media_type);
        json!({"kind": "file", "file": file})
    }
}
