//! Answers as text: whose they are, and what stands in the place of one that cannot be read.
//!
//! An answer that cannot be read ends its request all the same, so every reader of a server's bytes puts an error in its
//! place. The error has a code of this host, by which the call learns that nothing is known of the work.

use rmcp::RoleClient;
use rmcp::model::{ErrorCode, ErrorData, JsonRpcMessage, RequestId};
use rmcp::service::RxJsonRpcMessage;
use serde_json::{Value, json};

/// The answer of a request cannot be read, or was given to another. JSON-RPC leaves codes outside its reserved range to
/// programs.
pub(super) const UNREADABLE: ErrorCode = ErrorCode(-31_801);
/// The answer of a request is larger than a message may be.
pub(super) const OVERSIZED: ErrorCode = ErrorCode(-31_802);

/// A message of a server.
pub(super) type FromServer = RxJsonRpcMessage<RoleClient>;

/// The error that stands in the place of this text, if the text is an answer that cannot be read; without an id where the
/// text does not show whose answer it is.
pub(super) fn in_place_of(text: &[u8]) -> Option<FromServer> {
    let why = match serde_json::from_slice::<FromServer>(text) {
        Ok(_) => return None,
        Err(why) => why,
    };
    let id = id_of_answer(text)?;
    tracing::warn!("an answer of an MCP server cannot be read: {why}");
    Some(unreadable(id))
}

/// The error in the place of an answer that is too large for a message; `text` is as much of it as was kept.
pub(super) fn in_place_of_oversized(text: &[u8]) -> Option<FromServer> {
    let id = id_of_answer(text)?;
    tracing::warn!("an answer of an MCP server is larger than a message may be");
    Some(JsonRpcMessage::error(ErrorData::new(OVERSIZED, "the answer is too large", None), id))
}

/// Whose answer a broken text is, if it is an answer: programs print lines of their own among the messages, and what a
/// server asks or reports is nobody's answer.
fn id_of_answer(text: &[u8]) -> Option<Option<RequestId>> {
    let is_message = text.windows(JSON_RPC.len()).any(|part| part == JSON_RPC);
    if !is_message || member(text, "method").is_some() {
        return None;
    }
    Some(member(text, "id").and_then(|id| serde_json::from_value(id).ok()))
}

/// What every message has.
const JSON_RPC: &[u8] = b"\"jsonrpc\"";

/// The error in the place of an answer that cannot be used.
pub(super) fn unreadable(id: Option<RequestId>) -> FromServer {
    JsonRpcMessage::error(ErrorData::new(UNREADABLE, "the answer cannot be read", None), id)
}

/// A message as one line.
pub(super) fn line(message: &FromServer) -> String {
    let mut line = json!(message);
    // Null and not absent, as JSON-RPC wants it.
    if let Value::Object(line) = &mut line {
        line.entry("id").or_insert(Value::Null);
    }
    format!("{line}\n")
}

/// A member of the outermost object of a text that may be broken anywhere.
fn member(text: &[u8], name: &str) -> Option<Value> {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = text.get(at) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let end = end_of_text(text, at);
                let value = text.get(end..)?.trim_ascii_start();
                if depth == 1 && text.get(at + 1..end - 1) == Some(name.as_bytes()) && value.starts_with(b":")
                {
                    // The first value of a text that goes on behind it.
                    let values = serde_json::Deserializer::from_slice(value.get(1..)?);
                    return values.into_iter().next()?.ok();
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Behind the closing quote of the text that opens at `start`, or at the end.
fn end_of_text(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_in_place_of(text: &str) -> Option<Option<Value>> {
        in_place_of(text.as_bytes())
            .map(|message| Some(json!(message)["id"].clone()).filter(|id| !id.is_null()))
    }

    #[test]
    fn what_cannot_be_read_still_says_whose_answer_it_is() {
        for broken in [
            r#"{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"\ud83d"}]}}"#,
            r#"{"jsonrpc":"2.0","result":{"structuredContent":{"v":NaN}},"id":7}"#,
            r#"{"jsonrpc":"2.0","id":7,"result":{"content":[{"id":9},"#,
            r#"{"jsonrpc":"2.0", "id" : 7, "result": {"a \" id": "id"#,
        ] {
            assert_eq!(id_in_place_of(broken), Some(Some(json!(7))), "{broken}");
        }
        assert_eq!(id_in_place_of(r#"{"jsonrpc":"2.0","result":{"#), Some(None));
        assert_eq!(id_in_place_of(r#"{"jsonrpc":"2.0","id":{},"result":{}}"#), Some(None));
    }

    #[test]
    fn what_is_no_answer_has_nothing_in_its_place() {
        for text in [
            r#"{"jsonrpc":"2.0","id":7,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"no"}}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"later/thing","params":[NaN]}"#,
            "listening on stdio",
            r#"{"level": "info""#,
        ] {
            assert_eq!(id_in_place_of(text), None, "{text}");
        }
    }

    #[test]
    fn an_error_is_one_line_with_an_id() {
        let line = line(&unreadable(None));
        assert!(line.contains("\"id\":null") && line.ends_with("}\n"), "{line}");
        assert!(in_place_of(line.as_bytes()).is_none());
    }
}
