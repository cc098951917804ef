//! Where records stand in the orders of a registry.

use crate::proto::record::{Author, KeyHash, Record, RecordHash, Shelf};
use crate::proto::sorted::Place;
use crate::proto::time::Timestamp;

/// A slot of a shelf.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot(pub(super) Shelf, pub(super) u16);

/// Whose version a record is; by hash among those of a forked author.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) Author, pub(super) u64, pub(super) RecordHash);

/// When a lease ends, then by key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct End(Timestamp, KeyHash);

impl Place for Slot {
    fn of(record: &Record) -> Slot {
        Slot(record.shelf(), record.slot)
    }
}

impl Place for Version {
    fn of(record: &Record) -> Version {
        Version(record.author(), record.seq, record.hash())
    }
}

impl Place for End {
    fn of(record: &Record) -> End {
        End(record.expires_at, record.key())
    }
}
