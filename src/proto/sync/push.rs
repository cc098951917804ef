//! Records that one side of a comparison gives to the other, found and packed when their turn comes.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_bytes::ByteBuf;

use crate::proto::fingerprint::Prefix;
use crate::proto::limits::{MESSAGE_RECORDS_MAX, SYNC_ANSWER_BYTES, SYNC_LOOKED_MAX};
use crate::proto::record::{KeyHash, Record};
use crate::proto::registry::Registry;

/// What is to be given, in order.
#[derive(Debug, Default)]
pub(super) struct Pushes {
    queue: VecDeque<Push>,
    known: usize,
}

#[derive(Debug)]
enum Push {
    One(Arc<Record>),
    /// All below a prefix, after a key.
    Below(Prefix, Option<KeyHash>),
}

impl Pushes {
    /// A record is to be given.
    pub(super) fn one(&mut self, record: Arc<Record>) {
        self.known += 1;
        self.queue.push_back(Push::One(record));
    }

    /// All of what is held below a prefix and `is_to_give`. They are counted only up to more than `count_max`.
    pub(super) fn below(
        &mut self,
        prefix: Prefix,
        registry: &Registry,
        count_max: usize,
        is_to_give: impl Fn(&Record) -> bool,
    ) {
        let given = registry.below(prefix, None).take(SYNC_LOOKED_MAX).filter(|held| is_to_give(held));
        self.known += given.take((count_max + 1).saturating_sub(self.known)).count();
        self.queue.push_back(Push::Below(prefix, None));
    }

    /// These were given, and not taken.
    pub(super) fn again(&mut self, records: Vec<Arc<Record>>) {
        records.into_iter().rev().for_each(|record| self.queue.push_front(Push::One(record)));
    }

    /// How many there were so far, as far as they were counted.
    pub(super) fn known(&self) -> usize {
        self.known
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// What goes next: as much as fits a message, or nothing if there is nothing left.
    pub(super) fn next(
        &mut self,
        registry: &Registry,
        is_to_give: impl Fn(&Record) -> bool,
    ) -> Option<Batch> {
        let mut batch = Batch::default();
        while let Some(push) = self.queue.pop_front() {
            let rest = match push {
                Push::One(record) => (!batch.take(&record)).then_some(Push::One(record)),
                Push::Below(prefix, after) => {
                    let mut last = after;
                    let mut below = registry.below(prefix, after).filter(|held| is_to_give(held));
                    // The walk goes on after the last that found room.
                    let is_over = below.all(|held| {
                        let taken = batch.take(held);
                        last = if taken { Some(held.key()) } else { last };
                        taken
                    });
                    (!is_over).then_some(Push::Below(prefix, last))
                }
            };
            if let Some(rest) = rest {
                self.queue.push_front(rest);
                break;
            }
        }
        (!batch.records.is_empty()).then_some(batch)
    }
}

/// Records of one message.
#[derive(Default)]
pub(super) struct Batch {
    records: Vec<Arc<Record>>,
    bytes: usize,
}

impl Batch {
    /// Takes a record, if it fits. The first always does.
    pub(super) fn take(&mut self, record: &Arc<Record>) -> bool {
        let bytes = self.bytes + record.bytes().len();
        let full = bytes > SYNC_ANSWER_BYTES || self.records.len() == MESSAGE_RECORDS_MAX;
        if full && !self.records.is_empty() {
            return false;
        }
        self.bytes = bytes;
        self.records.push(record.clone());
        true
    }

    /// Its records as they travel.
    pub(super) fn bytes(&self) -> Vec<ByteBuf> {
        self.records.iter().map(|record| ByteBuf::from(record.bytes().to_vec())).collect()
    }

    pub(super) fn into_records(self) -> Vec<Arc<Record>> {
        self.records
    }
}
