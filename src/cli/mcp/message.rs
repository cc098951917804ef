//! A line of JSON-RPC, looked at as far as HTTP needs: what kind it is, whose era, and which headers it takes.

use data_encoding::BASE64;
use serde_json::{Value, json};

/// A request of the revision without handshake says its revision here.
pub(super) const VERSION_META: &str = "io.modelcontextprotocol/protocolVersion";

/// A message of the host.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// The whole document.
    pub(super) document: Value,
}

impl Message {
    /// Reads a line; an error is the answer to it.
    pub(super) fn read(line: &[u8]) -> Result<Message, String> {
        match serde_json::from_slice::<Value>(line) {
            Ok(document) if document.is_object() => Ok(Message { document }),
            Ok(_) => Err(error(&Value::Null, -32600, "a line holds one JSON-RPC message, no batch")),
            Err(cause) => {
                let told =
                    format!("the line is not JSON, or longer than {} bytes: {cause}", super::LINE_BYTES_MAX);
                Err(error(&Value::Null, -32700, &told))
            }
        }
    }

    /// What it asks for; none for a response.
    pub(super) fn method(&self) -> Option<&str> {
        self.document.get("method").and_then(Value::as_str)
    }

    /// Id of a request; none for a notification.
    pub(super) fn id(&self) -> Option<&Value> {
        // A response has an id, too, but no method; a null id asks for no answer.
        self.document.get("id").filter(|id| !id.is_null() && self.method().is_some())
    }

    /// Revision of a request that has no session.
    pub(super) fn revision(&self) -> Option<&str> {
        self.document.get("params")?.get("_meta")?.get(VERSION_META)?.as_str()
    }

    /// Which request a cancel notice means.
    pub(super) fn cancels(&self) -> Option<&Value> {
        let params =
            self.document.get("params").filter(|_| self.method() == Some("notifications/cancelled"))?;
        params.get("requestId")
    }

    /// Whether the answer has no end of its own.
    pub(super) fn listens(&self) -> bool {
        self.method() == Some("subscriptions/listen")
    }

    /// What proxies read instead of the body in the newest revision.
    pub(super) fn headers(&self) -> Vec<(&'static str, String)> {
        // The older revisions say theirs with the session.
        let Some(revision) = self.revision() else { return Vec::new() };
        let mut headers = vec![("MCP-Protocol-Version", header(revision))];
        headers.extend(self.method().map(|method| ("Mcp-Method", header(method))));
        headers.extend(self.name().map(|name| ("Mcp-Name", header(name))));
        headers
    }

    fn name(&self) -> Option<&str> {
        let key = match self.method()? {
            "tools/call" | "prompts/get" => "name",
            "resources/read" | "resources/subscribe" | "resources/unsubscribe" => "uri",
            "tasks/get" | "tasks/update" | "tasks/cancel" => "taskId",
            _ => return None,
        };
        self.document.get("params")?.get(key)?.as_str()
    }
}

/// The value of a header: plain text, or base64 where a header could not carry it.
fn header(value: &str) -> String {
    let plain = value.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) && value.trim() == value;
    // A text that looks coded is coded once more, or it would be read as another.
    let looks_coded = value.starts_with("=?base64?") && value.ends_with("?=");
    match plain && !looks_coded {
        true => value.to_owned(),
        false => format!("=?base64?{}?=", BASE64.encode(value.as_bytes())),
    }
}

/// An answer that is an error, as one line.
pub(super) fn error(id: &Value, code: i64, message: &str) -> String {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(document: Value) -> Message {
        Message::read(document.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_request_of_the_newest_revision_has_its_headers() {
        let params = json!({"name": "écho", "_meta": {VERSION_META: "2026-07-28"}});
        let call = message(json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}));
        let headers = call.headers();
        assert_eq!(headers[0], ("MCP-Protocol-Version", "2026-07-28".into()));
        assert_eq!(headers[1], ("Mcp-Method", "tools/call".into()));
        assert_eq!(headers[2], ("Mcp-Name", "=?base64?w6ljaG8=?=".into()));
        let old =
            message(json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "x"}}));
        assert!(old.headers().is_empty());
    }

    #[test]
    fn lines_that_are_no_message_are_answered() {
        assert!(Message::read(b"{").unwrap_err().contains("-32700"));
        assert!(Message::read(b"[]").unwrap_err().contains("-32600"));
        assert!(Message::read(b"1").is_err());
    }

    #[test]
    fn a_response_has_no_id_that_waits_for_an_answer() {
        assert!(message(json!({"jsonrpc": "2.0", "id": 1, "result": {}})).id().is_none());
        assert!(message(json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).id().is_none());
        let cancel =
            json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "a"}});
        assert_eq!(message(cancel).cancels(), Some(&json!("a")));
    }
}
