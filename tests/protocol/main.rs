//! Laws, rules and documents: what holds of `proto` without a socket, a disk or a thread.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ahead;
mod answers;
mod completeness;
#[cfg(feature = "net")]
mod documents;
mod few_replicas;
mod full_disk;
mod imports;
mod key_use;
mod laws;
mod owned;
mod owners;
mod presence;
mod replacing;
mod restart;
mod room;
mod rules;
mod zones;
