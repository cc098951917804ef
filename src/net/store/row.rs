//! One row as it lies on disk, the same in the journal and in sled: a CRC against accidents, a MAC against anything
//! else, a sequence number that says which of two rows of one key is newer.
//!
//! ```text
//! row = crc32 u32 | mac 16 bytes | seq u64 | kind u8 | value          (little endian)
//! crc32 over: key length u32 | key | everything after the crc
//! mac  = HMAC-SHA256(MAC key, key length u32 | key | seq | kind | value), first 16 bytes
//! ```

use std::ops::Range;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::Authenticated;

/// Bytes before the value.
pub(super) const ROW_HEAD_BYTES: usize = 4 + MAC_BYTES + 8 + 1;
/// Length of the secret the MACs are made with.
pub(super) const MAC_KEY_BYTES: usize = 32;
/// Half of SHA-256: guessing a MAC takes 2^128 tries, and a row of 100 bytes grows by 16 instead of 32.
const MAC_BYTES: usize = 16;

/// A secret that marks the frames of one journal file, so that a value which contains the bytes of a frame is never
/// taken for one.
pub(super) type Salt = [u8; 8];

/// What a row says, and which copies of it exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowKind {
    /// A value that lives in sled alone.
    Value,
    /// A value that lives in the journal and in sled.
    Journalled,
    /// The key was removed; only in the journal.
    Removed,
}

/// What [`RowMac::read`] finds in the bytes of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RowView {
    /// Rises with every write of one store.
    pub(super) seq: u64,
    /// See there.
    pub(super) kind: RowKind,
    /// Whether the MAC is right.
    pub(super) authenticated: Authenticated,
    /// Where the value lies in the bytes.
    pub(super) value: Range<usize>,
}

/// Makes and verifies MACs.
#[derive(Clone)]
pub(super) struct RowMac(Hmac<Sha256>);

impl RowMac {
    /// A MAC under `key`.
    pub(super) fn new(key: &[u8; MAC_KEY_BYTES]) -> RowMac {
        let mut block = [0; 64]; // HMAC itself fills a short key with zeros up to the block of its hash
        block[..MAC_KEY_BYTES].copy_from_slice(key);
        RowMac(<Hmac<Sha256> as KeyInit>::new(&block.into()))
    }

    /// The salt of journals written under this key.
    pub(super) fn salt(&self) -> Salt {
        // No row has this MAC: read as the length of a key, the label is far too long.
        let mac = self.0.clone().chain_update(b"aop journal salt").finalize().into_bytes();
        std::array::from_fn(|index| mac[index])
    }

    /// The bytes of a row of `key`.
    pub(super) fn row(&self, key: &[u8], seq: u64, kind: RowKind, value: &[u8]) -> Vec<u8> {
        let mut row = Vec::with_capacity(ROW_HEAD_BYTES + value.len());
        row.extend_from_slice(&[0; 4 + MAC_BYTES]);
        row.extend_from_slice(&seq.to_le_bytes());
        row.push(kind.to_byte());
        row.extend_from_slice(value);
        let mac = self.mac(key, &row[4 + MAC_BYTES..]).finalize().into_bytes();
        row[4..4 + MAC_BYTES].copy_from_slice(&mac[..MAC_BYTES]);
        let crc = crc(key, &row[4..]);
        row[..4].copy_from_slice(&crc.to_le_bytes());
        row
    }

    /// Reads a row of `key`; `None` if its CRC is wrong or it is no row at all.
    pub(super) fn read(&self, key: &[u8], row: &[u8]) -> Option<RowView> {
        // The sum first: a row that is only damaged is dropped and never taken for somebody's forgery.
        let (seq, kind) = read_unauthenticated(key, row)?;
        let verified = self.mac(key, &row[4 + MAC_BYTES..]).verify_truncated_left(&row[4..4 + MAC_BYTES]);
        let authenticated = if verified.is_ok() { Authenticated::Yes } else { Authenticated::No };
        Some(RowView { seq, kind, authenticated, value: ROW_HEAD_BYTES..row.len() })
    }

    fn mac(&self, key: &[u8], rest: &[u8]) -> Hmac<Sha256> {
        // With its length: otherwise bytes could move from the key into the row under the same MAC.
        self.0.clone().chain_update(key_length(key)).chain_update(key).chain_update(rest)
    }
}

/// Sequence number and kind of a row whose CRC is right; the MAC is not looked at.
pub(super) fn read_unauthenticated(key: &[u8], row: &[u8]) -> Option<(u64, RowKind)> {
    if row.len() < ROW_HEAD_BYTES || row[..4] != crc(key, &row[4..]).to_le_bytes() {
        return None;
    }
    let seq = u64::from_le_bytes(row[4 + MAC_BYTES..ROW_HEAD_BYTES - 1].try_into().ok()?);
    Some((seq, RowKind::from_byte(row[ROW_HEAD_BYTES - 1])?))
}

fn crc(key: &[u8], rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&key_length(key));
    hasher.update(key);
    hasher.update(rest);
    hasher.finalize()
}

/// Keys are at most [`super::KEY_BYTES_MAX`] long when written; what is read may be anything.
fn key_length(key: &[u8]) -> [u8; 4] {
    u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes()
}

impl RowKind {
    fn to_byte(self) -> u8 {
        match self {
            // Zero is no kind, so that zeroed bytes are none either.
            RowKind::Value => 1,
            RowKind::Journalled => 2,
            RowKind::Removed => 3,
        }
    }

    fn from_byte(byte: u8) -> Option<RowKind> {
        match byte {
            1 => Some(RowKind::Value),
            2 => Some(RowKind::Journalled),
            3 => Some(RowKind::Removed),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_back_and_only_under_its_own_key_and_mac_key() {
        let row_mac = RowMac::new(&[7; 32]);
        let row = row_mac.row(b"key", 9, RowKind::Journalled, b"value");
        let view = row_mac.read(b"key", &row).unwrap();
        assert_eq!((view.seq, view.kind, view.authenticated), (9, RowKind::Journalled, Authenticated::Yes));
        assert_eq!(&row[view.value], b"value");
        assert_eq!(row_mac.read(b"kez", &row), None);
        let other = RowMac::new(&[8; 32]).read(b"key", &row).unwrap();
        assert_eq!(other.authenticated, Authenticated::No);
    }

    #[test]
    fn every_flipped_byte_of_a_row_is_noticed() {
        let row_mac = RowMac::new(&[7; 32]);
        let row = row_mac.row(b"key", 9, RowKind::Value, b"value");
        for index in 0..row.len() {
            let mut flipped = row.clone();
            flipped[index] ^= 0x10;
            assert_eq!(row_mac.read(b"key", &flipped), None, "byte {index}");
        }
    }

    #[test]
    fn a_changed_value_with_a_right_crc_is_not_authenticated() {
        let row_mac = RowMac::new(&[7; 32]);
        let mut row = row_mac.row(b"key", 9, RowKind::Value, b"value");
        *row.last_mut().unwrap() ^= 1;
        let right = crc(b"key", &row[4..]);
        row[..4].copy_from_slice(&right.to_le_bytes());
        assert_eq!(row_mac.read(b"key", &row).unwrap().authenticated, Authenticated::No);
    }
}
