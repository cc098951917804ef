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

use std::num::NonZero;
use std::panic::resume_unwind;
use std::thread::{self, available_parallelism};

use crate::net::store::{Authenticated, JournalState, Loaded, StoredRow};
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

/// Rows that a thread reads at least: fewer are read sooner than it starts.
const ROWS_EACH_MIN: usize = 1_024;

/// What rows say, with the agents in an index: all cores read, each a part of them. Rows that lost their MAC count only if their
/// signature verifies, and are to be written again as the second answer says.
pub fn read_rows(loaded: &mut Loaded, network: &str, now: Timestamp) -> (Stored, Vec<Write>) {
    let rows = std::mem::take(&mut loaded.rows);
    let threads = available_parallelism().map_or(1, NonZero::get).min(rows.len() / ROWS_EACH_MIN).max(1);
    let mut parts = rows.chunks(rows.len().div_ceil(threads).max(1));
    let first = parts.next().unwrap_or_default();
    let (mut stored, rewritten) = thread::scope(|scope| {
        let others: Vec<_> = parts.map(|rows| scope.spawn(move || read_part(rows, network, now))).collect();
        let (mut stored, mut rewritten) = read_part(first, network, now);
        for other in others {
            let (part, again) = other.join().unwrap_or_else(|panic| resume_unwind(panic));
            stored.append(part);
            rewritten.extend(again);
        }
        (stored, rewritten)
    });
    stored.damage = match loaded.journal {
        JournalState::Fresh | JournalState::Whole => Damage::None,
        JournalState::Damaged => Damage::OwnWritesMissing,
    };
    (stored, rewritten)
}

fn read_part(rows: &[StoredRow], network: &str, now: Timestamp) -> (Stored, Vec<Write>) {
    let (mut stored, mut rewritten) = (Stored::default(), Vec::new());
    let (sealed, unsealed): (Vec<&StoredRow>, Vec<&StoredRow>) =
        rows.iter().partition(|row| row.authenticated == Authenticated::Yes);
    for row in sealed {
        stored.index_row(&row.key, &row.value, network);
    }
    let borrowed: Vec<(&[u8], _)> = unsealed.iter().map(|row| (&row.key[..], &row.value)).collect();
    let understood = stored.index_unsealed_rows(&borrowed, network, now, &mut rand::rng());
    for (StoredRow { key, value, .. }, _) in unsealed.into_iter().zip(understood).filter(|(_, it)| *it) {
        let durable = key.first() != Some(&b'r');
        rewritten.push(Write { key: key.clone(), value: Some(value.clone()), durable });
    }
    (stored, rewritten)
}
