//! What the node answers, as lines for the host.

use reqwest::header::CONTENT_TYPE;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use super::events::Events;
use super::message::error;
use crate::api::ErrorBody;

/// Largest answer in one document, bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Code of an error that is no fault of the message.
pub(super) const INTERNAL: i64 = -32603;

/// The messages of a response, in one document or in a stream.
pub(super) struct Answers {
    pub(super) status: StatusCode,
    response: Response,
    events: Option<Events>,
    is_read: bool,
}

impl Answers {
    pub(super) fn of(response: Response) -> Answers {
        let kind =
            response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let events = kind.starts_with("text/event-stream").then(Events::default);
        Answers { status: response.status(), response, events, is_read: false }
    }

    /// The next message on one line.
    pub(super) async fn next(&mut self) -> Result<Option<String>, String> {
        let Some(events) = &mut self.events else { return self.document().await };
        loop {
            // Several events may have come in one piece.
            if let Some(data) = events.next() {
                return line(&data).map(Some);
            }
            match self.response.chunk().await.map_err(|error| error.to_string())? {
                Some(bytes) => events.feed(&bytes).map_err(|_| "an event is too large".to_owned())?,
                None => return Ok(None),
            }
        }
    }

    async fn document(&mut self) -> Result<Option<String>, String> {
        // A document is one message, so the second look ends the answers.
        if std::mem::replace(&mut self.is_read, true) {
            return Ok(None);
        }
        let mut body = Vec::new();
        while let Some(bytes) = self.response.chunk().await.map_err(|error| error.to_string())? {
            body.extend_from_slice(&bytes);
            // At each piece, because a length in the head may be missing.
            if body.len() > ANSWER_BYTES_MAX {
                return Err(format!("the answer has more than {ANSWER_BYTES_MAX} bytes"));
            }
        }
        match body.is_empty() {
            true => Err(format!("HTTP status {}", self.status)),
            false => line(&body).map(Some),
        }
    }
}

/// One message on one line: only a document with line breaks is written anew.
fn line(document: &[u8]) -> Result<String, String> {
    let text = String::from_utf8(document.to_vec()).map_err(|_| "the answer is not UTF-8".to_owned())?;
    // Some readers take these two for line ends as well, and JSON has them in texts alone.
    let text = match text.contains(['\u{2028}', '\u{2029}']) {
        true => text.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029"),
        false => text,
    };
    if !text.contains(['\n', '\r']) {
        return Ok(text);
    }
    match serde_json::from_str::<Value>(&text) {
        Ok(document) => Ok(document.to_string()),
        // Not JSON either: it goes on as it is, but in one line, or the host would read several.
        Err(_) => Ok(text.replace(['\n', '\r'], " ")),
    }
}

/// The line for an answer that is no message of JSON-RPC, or one whose id the node could not read.
pub(super) fn told(document: &Value, status: StatusCode, id: &Value) -> Option<String> {
    if document.get("jsonrpc").is_some() {
        // The node could not read the id and answered null; the host waits for its own.
        let lost = document.get("error").filter(|_| document.get("id").is_none_or(Value::is_null))?;
        return Some(json!({"jsonrpc": "2.0", "id": id, "error": lost}).to_string());
    }
    let message = match serde_json::from_value::<ErrorBody>(document.clone()) {
        Ok(body) => format!("{} ({}); {}", body.error.message, body.error.code, body.error.fix),
        Err(_) => format!("what answers is no node of this version: HTTP status {status}"),
    };
    Some(error(id, INTERNAL, &message))
}
