//! What an operator should know of a node.

use super::name::{FullName, ZoneName};
use super::record::Author;

/// Something an operator should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeAlert {
    /// The local clock is off from the median of the bootstrap peers by this many milliseconds.
    ClockUnsafe(i64),
    /// Another process runs with this node's key, as what it signed shows: own writes are refused.
    KeyInUse,
    /// Another process writes this agent under this node's key.
    DuplicateIdentity(FullName),
    /// An author on whom this node relies signed two records with one version.
    ForkedAuthor(Author),
    /// The data folder is an older copy of itself, as a record of its own shows; a new epoch was taken.
    RestoredBackup,
    /// The same by a peer's word alone: a new epoch costs nothing, and the word may be a lie.
    ClaimedHead,
    /// Own records are stamped by a clock that was ahead: nobody takes them before they are written again.
    StampedAhead,
    /// The local clock is off from the median of the connected peers by this many milliseconds; no bootstrap peer tells its own.
    ClockOff(i64),
    /// Agents of this node's key that this data folder does not know are held, and wait for a word of the operator.
    RestoredKey,
    /// The owner of an agent that this node offers took it back.
    Revoked(FullName),
    /// Fewer hosts than this offer an own agent and are there: its `min_replicas`.
    FewReplicas(FullName, u32),
    /// A zone is full: some records have no room.
    ZoneFull(ZoneName),
    /// The store keeps nothing, for this reason: own writes are refused.
    StoreFailed(String),
    /// The room of the store is short, as the text says: records of others are not kept.
    StoreShort(String),
}

impl NodeAlert {
    /// Whether it is about a clock on which own writes cannot rely.
    pub fn is_clock_unsafe(&self) -> bool {
        matches!(self, NodeAlert::ClockUnsafe(_))
    }

    /// Whether it is about a clock that others doubt.
    pub fn is_clock_off(&self) -> bool {
        matches!(self, NodeAlert::ClockOff(_))
    }

    /// Whether the node works less well for it. What any stranger can cause is told and no more.
    pub fn degrades(&self) -> bool {
        match self {
            NodeAlert::ClockUnsafe(_)
            | NodeAlert::KeyInUse
            | NodeAlert::StampedAhead
            | NodeAlert::DuplicateIdentity(_)
            | NodeAlert::ForkedAuthor(_)
            | NodeAlert::StoreFailed(_)
            | NodeAlert::StoreShort(_)
            | NodeAlert::RestoredKey
            | NodeAlert::Revoked(_)
            | NodeAlert::ZoneFull(_) => true,
            NodeAlert::RestoredBackup
            | NodeAlert::ClaimedHead
            | NodeAlert::ClockOff(_)
            | NodeAlert::FewReplicas(..) => false,
        }
    }
}
