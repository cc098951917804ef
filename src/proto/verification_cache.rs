//! What was read and judged before. A live node remembers keys alone: it meets equal bytes only a few times, and the mesh
//! and the registry drop them before they cost anything.
//!
//! A process that runs many nodes lends them one [`VerificationCache::shared`] in turn (`Node::lend`): equal bytes are then
//! decoded once, verified once and held once, whichever nodes they reach. What a node decides is the same with and without
//! it, because only what follows from the bytes alone is remembered, and bytes are compared whole.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::codec::Malformed;
use super::message::Message;
use super::record::{Refusal, SignedRecord};
use super::signature::Keys;

/// Messages and records of one generation: ten thousand nodes that all speak within a second. About 16 MiB.
const GENERATION_MAX: usize = 16_384;

/// What was read and judged before.
#[derive(Debug, Default)]
pub struct VerificationCache {
    /// Keys that signed something before.
    pub keys: Keys,
    /// Records of the input of this turn, read and judged before it.
    pub ahead: VecDeque<SignedRecord>,
    shared: Option<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    messages: Recent<Message>,
    records: Recent<SignedRecord>,
}

/// Values by the bytes they were read from. When a generation is full the one before it goes.
#[derive(Debug)]
struct Recent<T> {
    young: BTreeMap<Arc<[u8]>, T>,
    old: BTreeMap<Arc<[u8]>, T>,
}

impl VerificationCache {
    /// A cache for many nodes of one network.
    pub fn shared() -> VerificationCache {
        VerificationCache { shared: Some(Shared::default()), ..VerificationCache::default() }
    }

    /// Reads a gossip message.
    pub fn message(&mut self, bytes: &[u8]) -> Result<Message, Malformed> {
        match &mut self.shared {
            None => Message::read(bytes),
            Some(shared) => shared.messages.get_or_read(bytes, || Ok((bytes.into(), Message::read(bytes)?))),
        }
    }

    /// Keeps a record that was made here.
    pub fn keep(&mut self, record: &SignedRecord) {
        if let Some(shared) = &mut self.shared {
            shared.records.insert(record.bytes().clone(), record.clone());
        }
    }

    /// Reads a record, as [`SignedRecord::parse`].
    pub fn record(&mut self, bytes: &[u8], network: &str) -> Result<SignedRecord, Refusal> {
        if let Some(at) = self.ahead.iter().position(|record| **record.bytes() == *bytes)
            && let Some(record) = self.ahead.drain(..=at).next_back()
        {
            return Ok(record);
        }
        let read = || SignedRecord::parse(bytes, network);
        match &mut self.shared {
            None => read(),
            Some(shared) => {
                let kept = || read().map(|record| (record.bytes().clone(), record));
                let record = shared.records.get_or_read(bytes, kept)?;
                // Read again for another network, so that the refusal is the one that a node alone would give.
                if record.header().network == network { Ok(record) } else { read() }
            }
        }
    }
}

impl<T> Default for Recent<T> {
    fn default() -> Recent<T> {
        Recent { young: BTreeMap::new(), old: BTreeMap::new() }
    }
}

impl<T: Clone> Recent<T> {
    fn get_or_read<E>(
        &mut self,
        bytes: &[u8],
        read: impl FnOnce() -> Result<(Arc<[u8]>, T), E>,
    ) -> Result<T, E> {
        if let Some(value) = self.young.get(bytes) {
            return Ok(value.clone());
        }
        let (bytes, value) = match self.old.remove_entry(bytes) {
            Some(entry) => entry,
            None => read()?,
        };
        self.insert(bytes, value.clone());
        Ok(value)
    }

    fn insert(&mut self, bytes: Arc<[u8]>, value: T) {
        // A whole generation goes at once: no list of who was used last has to be kept at every hit.
        if self.young.len() >= GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(bytes, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_bytes_are_read_once_as_long_as_they_are_in_use() {
        let mut recent = Recent::default();
        let rounds = 2 * GENERATION_MAX as u64;
        let mut read = 0;
        for round in 0..rounds {
            for number in [0, round + 1] {
                let bytes: Arc<[u8]> = number.to_be_bytes()[..].into();
                let value = recent.get_or_read(&bytes.clone(), || {
                    read += 1;
                    Ok::<_, ()>((bytes, number))
                });
                assert_eq!(value, Ok(number));
            }
        }
        assert!(recent.young.len() + recent.old.len() <= 2 * GENERATION_MAX);
        assert_eq!(read, rounds + 1);
    }
}
