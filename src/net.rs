//! The live interpreter: one task, the `driver`, owns the node, the network and the store; everything else asks it through
//! a `client`.
//!
//! Waits are counted in tokio's time and never in `std`'s, so that a runtime with a clock of its own moves the whole node.

pub(crate) mod address_book;
pub mod addresses;
pub mod bootstrap;
pub(crate) mod budget;
pub(crate) mod calls;
pub(crate) mod client;
mod counted;
pub(crate) mod driver;
pub(crate) mod handshakes;
pub mod peers;
pub mod refusals;
pub mod store;
pub(crate) mod store_keeper;
pub mod streams;
pub mod swarm;
pub mod transport;
pub(crate) mod verifier;

use crate::net::store::{Authenticated, JournalState, Loaded};
use crate::proto::io::Write;
use crate::proto::persistence::{Damage, Stored};
use crate::proto::time::Timestamp;

/// Requests that wait for the driver; beyond it callers wait.
pub(crate) const REQUESTS_MAX: usize = 256;
/// Events kept for a slow watcher; beyond it the watcher is told how many it missed. Their room is taken at once, 128 bytes
/// each.
pub(crate) const EVENTS_MAX: usize = 1_024;

/// The wall clock.
pub(crate) fn wall_clock() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp(since.map_or(0, |since| since.as_millis() as u64))
}

/// Rows that lost their MAC count only if their signature verifies, and are authenticated again.
pub(crate) fn read_rows(loaded: &Loaded, network: &str, now: Timestamp) -> (Stored, Vec<Write>) {
    let mut stored = Stored::default();
    let mut rewritten = Vec::new();
    for row in &loaded.rows {
        let authenticated = row.authenticated == Authenticated::Yes;
        let understood = stored.take_row(&row.key, &row.value, authenticated, network, now);
        if understood && !authenticated {
            let value = Some(row.value.as_slice().into());
            rewritten.push(Write { key: row.key.clone(), value, durable: row.key.first() != Some(&b'r') });
        }
    }
    stored.damage = match loaded.journal {
        JournalState::Fresh | JournalState::Whole => Damage::None,
        JournalState::Damaged => Damage::OwnWritesMissing,
    };
    (stored, rewritten)
}
