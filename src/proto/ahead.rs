//! The records of an input, read before a node takes it: whoever has other threads judges them there, those of many inputs
//! together, and hands them over with the input (`io::Received`).
//!
//! What a node does is the same without: it reads and judges itself what was not judged before.

use serde_bytes::ByteBuf;

use super::message::{Message, SyncAnswer, SyncFrame, SyncRequest};
use super::record::{Blame, SignedRecord};

/// Those of a gossip message.
pub fn of_gossip(bytes: &[u8], network: &str) -> Vec<SignedRecord> {
    let Ok(Message::Records(records)) = Message::read(bytes) else { return Vec::new() };
    let mut read = read(&records, network);
    // No more of a message is taken: it would let one peer spend the time of many.
    let author = read.first().map(|first| first.header().author.key);
    let own = read.iter().take_while(|record| Some(record.header().author.key) == author).count();
    read.truncate(own);
    read
}

/// Those of a request of a sync.
pub fn of_request(bytes: &[u8], network: &str) -> Vec<SignedRecord> {
    match SyncFrame::decode(bytes) {
        Ok(SyncFrame { request: SyncRequest::Give { records, .. }, .. }) => read(&records, network),
        Ok(_) | Err(_) => Vec::new(),
    }
}

/// Those of an answer of a sync.
pub fn of_answer(bytes: &[u8], network: &str) -> Vec<SignedRecord> {
    match SyncAnswer::decode(bytes) {
        Ok(SyncAnswer::Records { records, .. }) => read(&records, network),
        Ok(_) | Err(_) => Vec::new(),
    }
}

/// No further than the first that ends its message.
fn read(records: &[ByteBuf], network: &str) -> Vec<SignedRecord> {
    let mut read = Vec::with_capacity(records.len());
    for bytes in records {
        match SignedRecord::parse(bytes, network) {
            Ok(record) => read.push(record),
            Err(refusal) if refusal.blame() == Blame::Sender => break,
            Err(_) => {}
        }
    }
    read
}
