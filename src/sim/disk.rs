//! A disk that keeps durable writes at once and others at the next flush, as the live store does.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::proto::io::{UNFLUSHED_MAX, Write};

/// Rows by name.
pub(super) type Rows = BTreeMap<Box<[u8]>, Arc<[u8]>>;

/// What one node has written.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    rows: Rows,
    /// Of the writes of each row that are not yet flushed the last; none removes it.
    unflushed: BTreeMap<Box<[u8]>, Option<Arc<[u8]>>>,
    /// When the oldest of them was made.
    since: u64,
    /// Whether it takes no writes.
    is_full: bool,
}

impl Disk {
    /// Whether it takes no writes.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// From now on it takes writes, or takes none.
    pub(super) fn set_full(&mut self, is_full: bool) {
        self.is_full = is_full;
    }

    /// Takes a write at `now`, milliseconds of virtual time.
    pub(super) fn write(&mut self, now: u64, Write { key, value, durable }: Write) {
        // What was due earlier is on the disk before this.
        self.flush(now);
        let name = key.into_boxed_slice();
        if durable {
            // A durable write of a row is newer than one that waits: the flush must not undo it.
            self.unflushed.remove(&name);
            self.apply(name, value);
        } else {
            if self.unflushed.is_empty() {
                self.since = now;
            }
            self.unflushed.insert(name, value);
        }
    }

    /// What survives a crash whatever its time.
    pub(super) fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Number of writes a crash at `now` could lose.
    pub(super) fn unflushed(&mut self, now: u64) -> usize {
        self.flush(now);
        self.unflushed.len()
    }

    /// The node stops: of the writes not yet flushed `kept` reached the disk.
    pub(super) fn crash(&mut self, kept: usize) {
        self.write_waiting(kept);
        self.unflushed.clear();
    }

    /// Puts other rows in place of all there were.
    pub(super) fn replace(&mut self, rows: Rows) {
        // What is full is the machine's disk, whatever lies on it.
        *self = Disk { rows, is_full: self.is_full, ..Disk::default() };
    }

    fn flush(&mut self, now: u64) {
        if self.since + UNFLUSHED_MAX.as_millis() as u64 <= now {
            self.write_waiting(usize::MAX);
        }
    }

    /// Writes the first `most` of what waits: by name, as the live store does when a flush is due.
    fn write_waiting(&mut self, most: usize) {
        for _ in 0..most.min(self.unflushed.len()) {
            if let Some((name, value)) = self.unflushed.pop_first() {
                self.apply(name, value);
            }
        }
    }

    fn apply(&mut self, name: Box<[u8]>, value: Option<Arc<[u8]>>) {
        match value {
            Some(value) => self.rows.insert(name, value),
            None => self.rows.remove(&name),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(key: &[u8], durable: bool) -> Write {
        Write { key: key.to_vec(), value: Some([1][..].into()), durable }
    }

    #[test]
    fn a_crash_loses_only_what_is_neither_durable_nor_flushed() {
        let mut disk = Disk::default();
        let due = UNFLUSHED_MAX.as_millis() as u64;
        disk.write(0, write(b"old", false));
        disk.write(due, write(b"new", false));
        disk.write(due, write(b"durable", true));
        assert_eq!(disk.unflushed(2 * due - 1), 1);
        disk.crash(0);
        assert_eq!(disk.rows().keys().map(|name| &**name).collect::<Vec<_>>(), [&b"durable"[..], b"old"]);
    }
}
