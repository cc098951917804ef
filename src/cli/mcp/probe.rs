//! An MCP client that only looks: it opens what a host opens, by the bridge that a host uses, and counts the tools.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::LINES_MAX;
use super::bridge::Bridge;
use super::message::VERSION_META;
use crate::http::Token;

/// The last revision with a handshake.
const WITH_HANDSHAKE: &str = "2025-11-25";
/// The revision without.
const ALONE: &str = "2026-07-28";
/// The request for tools.
const LIST: u64 = 2;

/// How an MCP client begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Era {
    /// With `initialize`, in a session.
    Handshake,
    /// Each request stands alone.
    Alone,
}

/// How many tools the first page has that a client of this era is shown.
///
/// # Errors
/// In a sentence, what the node answered instead.
pub(in crate::cli) async fn count_tools(base: &str, token: Option<Token>, era: Era) -> Result<usize, String> {
    let (lines, mut answers) = mpsc::channel(LINES_MAX);
    let bridge = Arc::new(Bridge::new(base, token, lines).map_err(|failure| failure.to_string())?);
    let tools = ask(&bridge, &mut answers, era).await;
    // Without a reader the bridge waits for nothing but the end of its session.
    drop(answers);
    // A bridge without a node answers in its place.
    if bridge.finish().await { tools } else { Err(format!("no node answers at {base}")) }
}

async fn ask(bridge: &Arc<Bridge>, answers: &mut mpsc::Receiver<String>, era: Era) -> Result<usize, String> {
    let client = json!({"name": "aop doctor", "version": env!("CARGO_PKG_VERSION")});
    let params = match era {
        Era::Handshake => {
            let params = json!({"protocolVersion": WITH_HANDSHAKE, "capabilities": {}, "clientInfo": client});
            take(bridge, json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})).await;
            answer(answers, 1).await?;
            take(bridge, json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
            json!({})
        }
        Era::Alone => json!({"_meta": {
            VERSION_META: ALONE,
            "io.modelcontextprotocol/clientInfo": client,
            "io.modelcontextprotocol/clientCapabilities": {},
        }}),
    };
    take(bridge, json!({"jsonrpc": "2.0", "id": LIST, "method": "tools/list", "params": params})).await;
    let result = answer(answers, LIST).await?;
    let tools = result.get("tools").and_then(Value::as_array);
    tools.map(Vec::len).ok_or_else(|| "the answer to `tools/list` has no tools".into())
}

async fn take(bridge: &Arc<Bridge>, message: Value) {
    bridge.take(message.to_string().as_bytes()).await;
}

/// The result of the request `id`; what else the node says is passed over.
async fn answer(answers: &mut mpsc::Receiver<String>, id: u64) -> Result<Value, String> {
    while let Some(line) = answers.recv().await {
        let mut document: Value = serde_json::from_str(&line).unwrap_or_default();
        if document.get("id").and_then(Value::as_u64) != Some(id) {
            continue;
        }
        if let Some(message) = document.pointer("/error/message").and_then(Value::as_str) {
            return Err(message.to_owned());
        }
        return Ok(document["result"].take());
    }
    Err("the connection ended".into())
}
