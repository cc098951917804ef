//! What a tool's answer says: the output document of a call, or why there is none.
//!
//! Messages go to whoever called, so they hold the tool's own words and nothing of this host: no command, no address,
//! no stderr.

use rmcp::model::ServerResult;
use rmcp::service::ServiceError;
use rmcp::transport::streamable_http_client::StreamableHttpError;
use serde_json::Value;

use super::listing::cut;
use super::wire::WireError;
use crate::proto::call::{CallFailure, Outcome};
use crate::proto::code::Code;

/// Bytes of a server's own words in a failure: a screen of text.
const WORDS_BYTES_MAX: usize = 4 * 1024;

/// Reads the result of `tools/call`.
pub(super) fn read(result: ServerResult) -> Result<Value, CallFailure> {
    let mut result = match result {
        ServerResult::InputRequiredResult(_) => {
            return Err(failed("the tool asks for more input, which a call cannot give"));
        }
        ServerResult::CreateTaskResult(_) => {
            return Err(failed("the tool answered with a task, which it was not asked for"));
        }
        ServerResult::CustomResult(result) => result.0,
        result => serde_json::to_value(result).unwrap_or_default(),
    };
    // Asked first: a failure may bring structured content, which is no output then.
    let failed_itself = result.get("isError") == Some(&Value::Bool(true));
    if !failed_itself && let Some(structured) = result.get_mut("structuredContent") {
        return Ok(structured.take());
    }
    let content = match result.get_mut("content").map(Value::take) {
        Some(Value::Array(content)) => content,
        _ => Vec::new(),
    };
    if failed_itself {
        let words = texts(&content).join("\n");
        return Err(failed(if words.is_empty() { "the tool failed and does not say why" } else { &words }));
    }
    Ok(document(content))
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

/// Why a request that was sent has no result.
pub(super) fn failure(error: &ServiceError) -> CallFailure {
    match error {
        ServiceError::McpError(error) => failed(&error.message),
        ServiceError::UnexpectedResponse => failed("the MCP server's answer is not that of a tool"),
        error if never_arrived(error) => upstream_failed(Outcome::NotStarted, "could not be reached"),
        _ => upstream_failed(Outcome::Unknown, "was lost while the call was waiting"),
    }
}

/// Whether the server surely never saw the request: nobody took the connection.
pub(super) fn never_arrived(error: &ServiceError) -> bool {
    // A pipe that breaks may have taken the request before;
    // only a refused connection proves that nobody saw it.
    let ServiceError::TransportSend(error) = error else { return false };
    let http = error.error.downcast_ref::<WireError<StreamableHttpError<reqwest::Error>>>();
    matches!(http, Some(WireError::Transport(StreamableHttpError::Client(error))) if error.is_connect())
}

pub(super) fn upstream_failed(outcome: Outcome, what: &str) -> CallFailure {
    let message =
        format!("an MCP server of this agent {what}; its host keeps trying, another replica may have it");
    CallFailure::new(Code::UpstreamFailed, outcome, message)
}

fn failed(words: &str) -> CallFailure {
    CallFailure::new(Code::AgentFailed, Outcome::Done, cut(words, WORDS_BYTES_MAX))
}
