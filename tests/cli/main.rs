//! The `aop` binary from outside: its commands and its processes.

#![cfg(feature = "net")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod commands;
mod namespaces;
mod processes;
