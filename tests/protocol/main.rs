//! Laws, rules and documents: what holds of `proto` without a socket, a disk or a thread.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[cfg(feature = "net")]
mod documents;
mod full_disk;
mod laws;
mod rules;
mod zones;
