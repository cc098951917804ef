//! Reading a journal that may be damaged anywhere: every frame that still checks is found, and what is missing is
//! told apart as a torn tail (a write that was never acknowledged) or damage (own writes may be lost).

use std::ops::Range;

use super::super::row::Salt;
use super::{
    ENTRY_HEAD_BYTES, FRAME_BYTES_MAX, FRAME_HEAD_BYTES, HEADER_BYTES, MAGIC, frame_crc, header_crc,
};

/// One row of a journal, as places in its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EntryRange {
    /// Its key.
    pub(super) key: Range<usize>,
    /// Its row.
    pub(super) row: Range<usize>,
}

/// What the bytes of a journal hold.
#[derive(Debug)]
pub(super) struct Scan {
    /// Rows in the order they were written.
    pub(super) entries: Vec<EntryRange>,
    /// Where the last good frame ends.
    pub(super) end: usize,
    /// The salt of the frames.
    pub(super) salt: Salt,
    /// The sequence number the header promises to be unused.
    pub(super) next_seq: u64,
    /// See there.
    pub(super) condition: Condition,
}

/// How whole the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// To the last byte.
    Whole,
    /// The last write was cut short; it was not acknowledged.
    TornTail,
    /// Something before the last frame is wrong.
    Damaged,
}

/// Reads a whole journal. `own_salt` is tried where the header is lost.
pub(super) fn scan(bytes: &[u8], own_salt: Salt) -> Scan {
    let header = read_header(bytes);
    let (salt, next_seq) = header.unwrap_or((own_salt, 0));
    let start = HEADER_BYTES.min(bytes.len());
    // Without its header the file makes no promise of unused numbers, though its rows may all be there.
    let condition = if header.is_some() { Condition::Whole } else { Condition::Damaged };
    let mut scan = Scan { entries: Vec::new(), end: start, salt, next_seq, condition };
    let mut at = start;
    while at < bytes.len() {
        if let Some(next) = read_frame(bytes, at, &salt, &mut scan.entries) {
            (at, scan.end) = (next, next);
        } else if let Some(next) = find_frame(bytes, at + 1, &salt) {
            // Sought from the next byte on: the length of a bad frame says nothing of where another begins.
            scan.condition = Condition::Damaged;
            at = next;
        } else {
            scan.condition = scan.condition.max_with(classify_tail(&bytes[at..], &salt));
            break;
        }
    }
    scan
}

impl Condition {
    fn max_with(self, other: Condition) -> Condition {
        // A torn end is usual after a crash; it must not hide damage before it.
        if self == Condition::Damaged { self } else { other }
    }
}

fn read_header(bytes: &[u8]) -> Option<(Salt, u64)> {
    let header = bytes.get(..HEADER_BYTES)?;
    let (body, crc) = header.split_at(HEADER_BYTES - 4);
    if body[..8] != MAGIC || *crc != header_crc(body).to_le_bytes() {
        return None;
    }
    Some((body[8..16].try_into().ok()?, u64::from_le_bytes(body[16..24].try_into().ok()?)))
}

/// Adds the rows of the frame at `at` and returns where it ends; `None`, and nothing added, if there is no whole frame.
fn read_frame(bytes: &[u8], at: usize, salt: &Salt, entries: &mut Vec<EntryRange>) -> Option<usize> {
    let payload = frame_at(bytes, at, salt)?;
    let (before, mut at) = (entries.len(), payload.start);
    while at < payload.end {
        let Some(entry) = read_entry(bytes, at, payload.end) else {
            // The sum was right, so this is no accident of the disk; still half a batch is no batch.
            entries.truncate(before);
            return None;
        };
        at = entry.row.end;
        entries.push(entry);
    }
    Some(payload.end)
}

fn frame_at(bytes: &[u8], at: usize, salt: &Salt) -> Option<Range<usize>> {
    let (tag, length, crc) = read_frame_head(bytes.get(at..)?)?;
    // Before the sum: a wrong length would have it taken over the rest of the file, at every place tried.
    if tag != salt[..4] || length > FRAME_BYTES_MAX {
        return None;
    }
    let payload = at + FRAME_HEAD_BYTES..(at + FRAME_HEAD_BYTES).checked_add(length)?;
    (frame_crc(salt, bytes.get(payload.clone())?).to_le_bytes() == crc).then_some(payload)
}

fn read_frame_head(bytes: &[u8]) -> Option<([u8; 4], usize, [u8; 4])> {
    let head = bytes.get(..FRAME_HEAD_BYTES)?;
    let length = u32::from_le_bytes(head[4..8].try_into().ok()?);
    Some((head[..4].try_into().ok()?, usize::try_from(length).ok()?, head[8..].try_into().ok()?))
}

fn read_entry(bytes: &[u8], at: usize, end: usize) -> Option<EntryRange> {
    let head = bytes.get(at..at + ENTRY_HEAD_BYTES)?;
    let key_length = usize::try_from(u32::from_le_bytes(head[..4].try_into().ok()?)).ok()?;
    let row_length = usize::try_from(u32::from_le_bytes(head[4..].try_into().ok()?)).ok()?;
    let key = at + ENTRY_HEAD_BYTES..(at + ENTRY_HEAD_BYTES).checked_add(key_length)?;
    let row = key.end..key.end.checked_add(row_length)?;
    (row.end <= end).then_some(EntryRange { key, row })
}

/// The next whole frame at or after `from`. Its tag is a secret of this file, so values hardly ever contain it and
/// the search is linear.
fn find_frame(bytes: &[u8], from: usize, salt: &Salt) -> Option<usize> {
    let tail = bytes.get(from..)?;
    let tags = tail.windows(4).enumerate().filter(|(_, window)| **window == salt[..4]);
    tags.map(|(index, _)| from + index).find(|&at| frame_at(bytes, at, salt).is_some())
}

/// A bad frame that nothing good follows. If its head is whole and the file goes on behind it, it was not the last.
fn classify_tail(tail: &[u8], salt: &Salt) -> Condition {
    match read_frame_head(tail) {
        Some((tag, length, _)) if tag == salt[..4] && length <= FRAME_BYTES_MAX => {
            if tail.len() > FRAME_HEAD_BYTES + length { Condition::Damaged } else { Condition::TornTail }
        }
        // A head that is cut short, or zeros that the file system put behind the last write.
        _ => Condition::TornTail,
    }
}
