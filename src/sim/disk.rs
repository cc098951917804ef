//! A disk that keeps durable writes at once and others at the next flush, as the live store does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::proto::io::Write;

/// How long the live store may hold a write back, milliseconds.
const FLUSH_MS: u64 = 500;

/// Rows by name.
pub(super) type Rows = BTreeMap<Box<[u8]>, Arc<[u8]>>;

/// What one node has written.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    rows: Rows,
    /// Writes not yet flushed, oldest first, each with its time; none is older than one flush interval.
    unflushed: VecDeque<(u64, Row)>,
    /// Whether it takes no writes.
    is_full: bool,
}

/// A row's name and its value; none removes it.
type Row = (Box<[u8]>, Option<Arc<[u8]>>);

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
    pub(super) fn write(&mut self, now: u64, write: Write) {
        // What was due earlier is on the disk before this.
        self.flush(now);
        let row = (write.key.into_boxed_slice(), write.value);
        if write.durable {
            // An earlier value of this row must not come over it with the next flush.
            // A durable write of a row is newer than any that waits: the flush must not undo it.
            self.unflushed.retain(|(_, (earlier, _))| *earlier != row.0);
            self.apply(row);
        } else {
            self.unflushed.push_back((now, row));
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

    /// The node stops: of the writes not yet flushed the oldest `kept` reached the disk.
    pub(super) fn crash(&mut self, kept: usize) {
        // From the front: a journal loses its end and never its middle.
        for (_, row) in std::mem::take(&mut self.unflushed).into_iter().take(kept) {
            self.apply(row);
        }
    }

    /// Puts other rows in place of all there were.
    pub(super) fn replace(&mut self, rows: Rows) {
        // What is full is the machine's disk, whatever lies on it.
        *self = Disk { rows, unflushed: VecDeque::new(), is_full: self.is_full };
    }

    fn flush(&mut self, now: u64) {
        while self.unflushed.front().is_some_and(|(at, _)| at + FLUSH_MS <= now) {
            if let Some((_, row)) = self.unflushed.pop_front() {
                self.apply(row);
            }
        }
    }

    fn apply(&mut self, (name, value): Row) {
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
        disk.write(0, write(b"old", false));
        disk.write(400, write(b"new", false));
        disk.write(400, write(b"durable", true));
        assert_eq!(disk.unflushed(600), 1);
        disk.crash(0);
        assert_eq!(disk.rows().keys().map(|name| &**name).collect::<Vec<_>>(), [&b"durable"[..], b"old"]);
    }
}
