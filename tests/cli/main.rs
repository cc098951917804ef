//! The `aop` binary from outside: its commands and its processes.

#![cfg(feature = "net")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod commands;
#[cfg(unix)]
mod doctor;
#[cfg(unix)]
mod documents;
#[cfg(unix)]
mod health;
#[cfg(target_os = "linux")]
mod metrics;
mod namespaces;
#[cfg(unix)]
mod node_names;
mod processes;
#[cfg(unix)]
mod residency;
#[cfg(unix)]
mod seen_calls;
#[cfg(unix)]
mod signals;
mod telemetry;
#[cfg(unix)]
mod zones;
