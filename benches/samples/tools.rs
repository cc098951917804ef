//! Requests of MCP, of the revision without sessions.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::requests::Request;

/// Calls a method, or a tool by its name.
pub(crate) fn post(addr: SocketAddr, method: &str, name: Option<&str>, arguments: Value) -> Request {
    const REVISION: &str = "2026-07-28";
    let mut params = json!({"_meta": {
        "io.modelcontextprotocol/protocolVersion": REVISION,
        "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }});
    let mut named = String::new();
    if let Some(name) = name {
        params["name"] = name.into();
        params["arguments"] = arguments;
        named = format!("Mcp-Name: {name}\r\n");
    }
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    let bytes = format!(
        "POST /mcp HTTP/1.1\r\nHost: {addr}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: {REVISION}\r\nMcp-Method: {method}\r\n\
         {named}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    Request { bytes: bytes.into_bytes(), status: 200 }
}
