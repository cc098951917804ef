//! What an answer in a conversation leads to, and how the conversation stands.

use serde_bytes::ByteBuf;

use crate::proto::message::Alive;
use crate::proto::record::Author;
use crate::proto::time::Timestamp;

/// What an answer leads to.
#[derive(Debug, Default)]
pub struct Step {
    /// Signed records to be verified and merged.
    pub records: Vec<ByteBuf>,
    /// How the other side opened the conversation.
    pub opened: Option<Opened>,
    /// Prefixes to adopt: both registries are equal.
    pub adopt: Vec<(Author, u64)>,
}

/// The other side's first words.
#[derive(Debug)]
pub struct Opened {
    /// The author that asked.
    pub author: Author,
    /// The last version that is known of it there.
    pub head: u64,
    /// The other side's clock.
    pub clock: Timestamp,
    /// The last beacon of the asker's key that was heard there, as it was signed.
    pub heard: Option<ByteBuf>,
    /// Whether the other side may speak for the zone.
    pub whole: bool,
    /// Hosts that it sees alive.
    pub alive: Vec<Alive>,
}

/// How the conversation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Requests are waiting for answers.
    Running,
    /// Both sides hold what the other had.
    Finished,
}
