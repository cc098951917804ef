//! How a comparison ends before its work is done.

use std::time::Duration;

/// The other side broke the protocol. Records merged before stay: they verified by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyncError {
    /// The zone is not held there.
    #[error("the peer does not hold this zone")]
    Refused,
    /// An answer that does not fit its request.
    #[error("the peer's answer does not fit the request")]
    Unfitting,
    /// More requests or records than any honest difference needs.
    #[error("the comparison does not end")]
    Endless,
    /// The peer says that it has no time for this node for so long.
    #[error("the peer is busy")]
    Busy(Duration),
}

impl SyncError {
    /// Whether no honest peer does it. One that left the zone refuses, and one with too many askers is busy.
    pub fn is_offence(self) -> bool {
        matches!(self, SyncError::Unfitting | SyncError::Endless)
    }
}
