//! What a tool's answer says: the output document of a call, or why there is none.
//!
//! Messages go to whoever called, so they hold the tool's own words and nothing of this host: no command, no address,
//! no stderr.

use rmcp::model::ServerResult;
use rmcp::service::ServiceError;
use rmcp::transport::streamable_http_client::StreamableHttpError;
use serde_json::{Value, json};

use super::listing::cut;
use super::message::{OVERSIZED, UNREADABLE};
use super::wire::WireError;
use crate::agents::command::too_talkative;
use crate::agents::secrets::Secrets;
use crate::agents::web;
use crate::proto::call::{CallFailure, Outcome};
use crate::proto::code::Code;

/// Bytes of a server's own words in a failure: a screen of text.
const WORDS_BYTES_MAX: usize = 4 * 1024;

/// Reads the result of `tools/call`.
pub(super) fn read(result: ServerResult, secrets: &Secrets) -> Result<Value, CallFailure> {
    let result = match result {
        ServerResult::InputRequiredResult(_) => {
            return Err(failed("the tool asks for more input, which a call cannot give"));
        }
        ServerResult::CustomResult(result) => result.0,
        result => serde_json::to_value(result).unwrap_or_default(),
    };
    read_document(result, secrets)
}

/// Reads the result of `tools/call`, or of the task that it made.
pub(super) fn read_document(mut result: Value, secrets: &Secrets) -> Result<Value, CallFailure> {
    if !result.is_object() {
        return Err(failed("the MCP server's answer is not that of a tool"));
    }
    let content = match result.get_mut("content").map(Value::take) {
        Some(Value::Array(content)) => content,
        _ => Vec::new(),
    };
    // Asked first: a failure may bring structured content, which is no output then.
    if result.get("isError") == Some(&Value::Bool(true)) {
        let words = secrets.hide(&texts(&content).join("\n"));
        return Err(failed(if words.is_empty() { "the tool failed and does not say why" } else { &words }));
    }
    // Null is how some libraries write that there is none.
    match result.get_mut("structuredContent").map(Value::take).filter(|structured| !structured.is_null()) {
        Some(structured) if says_all(&structured, &content) => Ok(structured),
        Some(structured) => Ok(json!({"structuredContent": structured, "content": content})),
        None => Ok(document(content)),
    }
}

/// Whether the content only repeats the structure, as servers do for clients that know no structures. Some put a value that
/// is no object below `result`.
fn says_all(structured: &Value, content: &[Value]) -> bool {
    let texts = texts(content);
    let repeats = |text: &&str| {
        let said = serde_json::from_str::<Value>(text).unwrap_or_else(|_| Value::String((*text).to_owned()));
        [Some(structured), structured.get("result")].into_iter().flatten().any(|value| *value == said)
    };
    texts.len() == content.len() && texts.iter().all(repeats)
}

/// The structure of an answer that has content beside it: what an output schema speaks of.
pub(crate) fn structure(mut answer: Value) -> Value {
    match answer.get("content").is_some() && answer.get("structuredContent").is_some() {
        true => answer["structuredContent"].take(),
        false => answer,
    }
}

/// Content without structure: text if all of it is text, else the blocks as they came.
fn document(content: Vec<Value>) -> Value {
    let texts = texts(&content);
    if texts.len() == content.len() { Value::String(texts.join("\n")) } else { Value::Array(content) }
}

fn texts(content: &[Value]) -> Vec<&str> {
    let text = |block: &'_ Value| block.get("type").and_then(Value::as_str) == Some("text");
    content.iter().filter(|block| text(block)).filter_map(|block| block.get("text")?.as_str()).collect()
}

/// Why a request that was sent has no result. What is not for callers is in the log.
pub(super) fn failure(error: &ServiceError, secrets: &Secrets) -> CallFailure {
    match error {
        ServiceError::McpError(error) if error.code == OVERSIZED => too_talkative(),
        ServiceError::McpError(error) if error.code == UNREADABLE => {
            upstream_failed(Outcome::Unknown, "gave an answer that cannot be read")
        }
        // The library's own error: the session was opened again, and the answer went with the old one.
        ServiceError::McpError(error) if error.message.starts_with(SESSION_REOPENED) => {
            upstream_failed(Outcome::Unknown, "forgot its session while the call was waiting")
        }
        ServiceError::McpError(error) => failed(&secrets.hide(&error.message)),
        ServiceError::UnexpectedResponse => failed("the MCP server's answer is not that of a tool"),
        error if never_arrived(error) => upstream_failed(Outcome::NotStarted, "could not be reached"),
        error => http_error(error).map_or_else(
            || upstream_failed(Outcome::Unknown, "was lost while the call was waiting"),
            |error| http_failure(error, secrets),
        ),
    }
}

/// How the library's error begins for answers that were on their way in a session that was forgotten.
const SESSION_REOPENED: &str = "streamable HTTP session was re-initialized";

fn http_failure(error: &StreamableHttpError<reqwest::Error>, secrets: &Secrets) -> CallFailure {
    tracing::warn!("a call of an MCP server gave no answer: {}", secrets.hide_keys(&web::chain(error)));
    match error {
        StreamableHttpError::HttpStatus(error) => {
            let after = error.retry_after.as_deref();
            match web::refuses_for_now(error.status, after) {
                true => web::busy("an MCP server of this agent", after.and_then(web::wait_asked)),
                false => {
                    upstream_failed(Outcome::Unknown, &format!("answered with HTTP status {}", error.status))
                }
            }
        }
        // Asked twice, it did not look at the request.
        StreamableHttpError::SessionExpired | StreamableHttpError::ReinitializationFailed(_) => {
            upstream_failed(Outcome::NotStarted, "keeps no session")
        }
        StreamableHttpError::ResponseBodyTooLarge { .. } => too_talkative(),
        StreamableHttpError::UnexpectedServerResponse(_)
        | StreamableHttpError::UnexpectedContentType(_)
        | StreamableHttpError::Deserialize(_) => {
            upstream_failed(Outcome::Unknown, "gave an answer that cannot be read")
        }
        _ => upstream_failed(Outcome::Unknown, "was lost while the call was waiting"),
    }
}

/// Whether the server surely never saw the request: nobody took the connection.
pub(super) fn never_arrived(error: &ServiceError) -> bool {
    // A pipe that breaks may have taken the request before;
    // only a refused connection proves that nobody saw it.
    matches!(http_error(error), Some(StreamableHttpError::Client(error)) if error.is_connect())
}

fn http_error(error: &ServiceError) -> Option<&StreamableHttpError<reqwest::Error>> {
    let ServiceError::TransportSend(error) = error else { return None };
    match error.error.downcast_ref::<WireError>()? {
        WireError::Transport(error) => error.downcast_ref(),
        WireError::Unread => None,
    }
}

pub(super) fn upstream_failed(outcome: Outcome, what: &str) -> CallFailure {
    let message =
        format!("an MCP server of this agent {what}; its host keeps trying, another replica may have it");
    CallFailure::new(Code::UpstreamFailed, outcome, message)
}

pub(super) fn failed(words: &str) -> CallFailure {
    CallFailure::new(Code::AgentFailed, Outcome::Done, cut(words, WORDS_BYTES_MAX))
}
