//! MCP from outside: our server, the official clients, the conformance suite, and real servers behind a node. Beside it
//! what else needs the packages of others: clients and servers of A2A, clients of ARD.

#![cfg(feature = "net")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod clients;
mod conformance;
mod installed;
mod node;
mod server;
mod standards;
mod upstream;
