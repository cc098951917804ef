//! MCP from outside: our server, the official clients, the conformance suite, and real servers behind a node.

#![cfg(feature = "net")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod clients;
mod conformance;
mod installed;
mod server;
mod upstream;
