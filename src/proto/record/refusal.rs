//! Why a record is not taken, and what that means for whoever sent it.

use crate::proto::code::Code;
use crate::proto::limits::{RECORD_BYTES_MAX, SLOTS};

/// Why a record is not taken. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// Larger than 48 KiB, or than a record that names nothing may be.
    #[error("record is larger than {RECORD_BYTES_MAX} bytes, or than its kind may be")]
    TooLarge,
    /// A format of another version; ignored without penalty.
    #[error("record has an unknown format")]
    UnknownFormat,
    /// Not the bytes of a record.
    #[error("record is malformed")]
    Malformed,
    /// Belongs to another network.
    #[error("record belongs to another network")]
    ForeignNetwork,
    /// Belongs to a zone that is not held here.
    #[error("record belongs to a zone that is not held here")]
    ForeignZone,
    /// Its lease has ended.
    #[error("record has expired")]
    Expired,
    /// Stamped more than a minute ahead of the local clock; it may come again when it is due.
    #[error("record is stamped in the future")]
    Future,
    /// The author did not sign it.
    #[error("signature is wrong")]
    BadSignature,
    /// The author may not write this key.
    #[error("the author may not write this key")]
    BadAuthor,
    /// The grants do not carry it.
    #[error("the grants do not carry the record")]
    BadGrant,
    /// The lease is longer than allowed, or the tombstone's is not exact.
    #[error("the lease is not one that this kind of record may have")]
    BadLease,
    /// The generation is not that of the first grant.
    #[error("the generation is not the one its owner signed")]
    BadGeneration,
    /// Must not come over the network in this scope.
    #[error("the scope forbids it here")]
    BadScope,
    /// The card breaks a limit.
    #[error("the card breaks a limit")]
    BadCard,
    /// The slot is not one of a shelf, or none that its grants give.
    #[error("the slot is not one of 0 to {}, or not one that its grants give", SLOTS - 1)]
    BadSlot,
    /// It does not take back what its name says, or somebody else's.
    #[error("the revocation does not name a record of its owner by another host")]
    BadRevocation,
    /// It names a zone that does not lie below its own, or one that its name does not.
    #[error("the delegation does not name a zone below its own, as its name says")]
    BadDelegation,
}

/// Why a record has no room (protocol section 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoRoom {
    /// Another key stands in its slot.
    SlotTaken,
    /// The zone is full of what comes before it.
    ZoneFull,
}

/// What a refusal means for whoever sent the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// An honest peer may send this: another clock, another version, another configuration.
    None,
    /// Forged or malformed: no honest peer forwards it.
    Sender,
}

impl Refusal {
    /// Stable code for counters and messages.
    pub fn code(self) -> Code {
        match self {
            Refusal::TooLarge => Code::TooLarge,
            Refusal::UnknownFormat => Code::UnknownFormat,
            Refusal::Malformed => Code::Malformed,
            Refusal::ForeignNetwork => Code::ForeignNetwork,
            Refusal::ForeignZone => Code::ForeignZone,
            Refusal::Expired => Code::Expired,
            Refusal::Future => Code::Future,
            Refusal::BadSignature => Code::BadSignature,
            Refusal::BadAuthor => Code::BadAuthor,
            Refusal::BadGrant => Code::BadGrant,
            Refusal::BadLease => Code::BadLease,
            Refusal::BadGeneration => Code::BadGeneration,
            Refusal::BadScope => Code::BadScope,
            Refusal::BadCard => Code::BadCard,
            Refusal::BadSlot => Code::BadSlot,
            Refusal::BadRevocation => Code::BadRevocation,
            Refusal::BadDelegation => Code::BadDelegation,
        }
    }

    /// Whether an honest peer could have sent it. Never anybody's fault: time, because the wrong clock may be ours.
    pub fn blame(self) -> Blame {
        match self {
            Refusal::UnknownFormat | Refusal::Expired | Refusal::Future | Refusal::ForeignZone => Blame::None,
            Refusal::TooLarge
            | Refusal::Malformed
            | Refusal::ForeignNetwork
            | Refusal::BadSignature
            | Refusal::BadAuthor
            | Refusal::BadGrant
            | Refusal::BadLease
            | Refusal::BadGeneration
            | Refusal::BadScope
            | Refusal::BadCard
            | Refusal::BadSlot
            | Refusal::BadRevocation
            | Refusal::BadDelegation => Blame::Sender,
        }
    }
}
