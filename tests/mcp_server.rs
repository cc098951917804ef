//! The MCP server of a real node, asked byte by byte in both eras: tools, calls, changes, limits, guards, hostile text.
#![cfg(feature = "net")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "mcp_server/calls.rs"]
mod calls;
#[path = "mcp_server/guards.rs"]
mod guards;
#[path = "mcp_server/stdio.rs"]
mod stdio;
#[path = "mcp_server/tools.rs"]
mod tools;
#[path = "mcp_server/world.rs"]
mod world;
