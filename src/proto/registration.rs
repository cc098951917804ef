//! Registering and withdrawing agents, joining and leaving zones: what a client may want, and what becomes of it.

use std::collections::BTreeSet;

use crate::proto::code::Code;
use crate::proto::grant::GrantError;
use crate::proto::identity::{AgentId, PeerKey};
use crate::proto::name::{FullName, ZoneName};
use crate::proto::record::Refusal;

/// An agent of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its full name.
    pub name: FullName,
    /// Its id.
    pub id: AgentId,
}

/// Which agents that files offered before, in this run of the process or an earlier one, are withdrawn when they are
/// not offered again. What stays is asked about again with the next offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Withdraw {
    /// All: what the files offer is known.
    Others,
    /// All but these, and but those below them, whose names go on with `_`: their tools are not known yet.
    OthersBut(BTreeSet<FullName>),
    /// Only these: some file could not be read, and what it offered in an earlier run is not known.
    Only(BTreeSet<FullName>),
}

/// Why a write was not made. Nothing was changed; of a store that failed just then a restart may find it made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The zone is not served here.
    #[error(
        "this node does not serve the zone {0}; start it with `--zone {0}`, or register at a node that does"
    )]
    ZoneNotServed(ZoneName),
    /// The local clock cannot be trusted.
    #[error("the bootstrap peers' clocks are {0} ms from the one of this node; set it, then try again")]
    ClockUnsafe(i64),
    /// The held record is stamped so far ahead that a new one would be refused everywhere.
    #[error(
        "{0} was last written with a clock that was far ahead, and its grant cannot overrule that; \
         let its owner sign one of a higher generation (`aop keys grant --generation N`)"
    )]
    StampedAhead(FullName),
    /// Another agent has the name on this node.
    #[error(
        "{0} is another agent here, {1}; register this one in another zone with `--zone`, or in its place with `--replace`"
    )]
    NameTaken(FullName, String),
    /// A newer version of it is registered by this node.
    #[error("`version` is {version}, and {name} is registered with {held} already; go back with `--replace`")]
    OlderVersion {
        /// The agent.
        name: FullName,
        /// The one that was to be registered.
        version: String,
        /// The one that stays.
        held: String,
    },
    /// A greater generation or another writer holds the key.
    #[error("{0} is held by a greater record; use a grant of a higher generation")]
    Superseded(FullName),
    /// The grants carry nothing here.
    #[error("the grant chain is not usable: {0}")]
    BadGrant(GrantError),
    /// The grant ends before the record that the write replaces.
    #[error(
        "the grant for {0} ends before the record it would replace; get a longer one, or let the record lapse"
    )]
    GrantTooShort(FullName),
    /// The record broke a rule.
    #[error("{0}")]
    Refused(Refusal),
    /// No slot is free.
    #[error(
        "this node has all the agents in this zone that one host may have there, or that its grant gives room for; \
         deregister agents first, or ask for a grant of more slots"
    )]
    QuotaExceeded,
    /// The zone is full of records that come before it.
    #[error(
        "the zone {0} is full, and what others keep in their first slots comes before it; try again later, \
         deregister what is not needed, or use a zone of your own"
    )]
    ZoneFull(ZoneName),
    /// Its owner took it back.
    #[error("the owner of {0} took it back from this host; ask for a grant of a higher generation")]
    Revoked(FullName),
    /// What stands under the key of this node is not known yet.
    #[error(
        "what an earlier data folder of this key wrote is not known before a peer was asked; \
         deregister {0} again when the node is synced"
    )]
    Pending(FullName),
    /// `zone` scope in a zone without a key.
    #[error("the scope `zone` needs an owned zone, and {0} is open; use `public` or `node`")]
    OpenZone(ZoneName),
    /// No grant of the zone's key.
    #[error(
        "the zone {0} has a key, and this host has no grant of it; ask whoever has that key for one (`aop keys grant`)"
    )]
    NotGranted(ZoneName),
    /// The store keeps nothing.
    #[error(
        "the store of this node takes no writes ({0}); free disk space or check the disk, then try again"
    )]
    StoreFailed(String),
    /// Another process writes under this node's key.
    #[error(
        "another process writes under this node's key; stop it, or give one of the two a new key and data folder"
    )]
    DuplicateIdentity,
    /// No such agent here.
    #[error("no agent {0} is registered here")]
    NotFound(FullName),
    /// It is another host's, and another owner's.
    #[error("{0} is offered by {1}; only its host or its owner may deregister it")]
    NotYours(FullName, PeerKey),
}

/// Why a zone was not joined or left. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ZoneError {
    /// It is not replicated here.
    #[error("this node takes no part in the zone {0}")]
    NotServed(ZoneName),
    /// It is replicated here in another role.
    #[error("this node takes part in the zone {0} in another way; leave it first")]
    OtherRole(ZoneName),
    /// Names without a zone are looked up there.
    #[error("the zone {0} is the home zone of this node, which it cannot leave")]
    Home(ZoneName),
}

impl WriteError {
    /// Stable code.
    pub fn code(&self) -> Code {
        match self {
            WriteError::ZoneNotServed(_) => Code::ZoneNotServed,
            WriteError::ClockUnsafe(_) => Code::ClockUnsafe,
            WriteError::StampedAhead(_) => Code::StampedAhead,
            WriteError::NameTaken(..) => Code::Conflict,
            WriteError::Superseded(_) | WriteError::OlderVersion { .. } => Code::Superseded,
            WriteError::BadGrant(_) | WriteError::GrantTooShort(_) => Code::BadGrant,
            WriteError::Refused(refusal) => refusal.code(),
            WriteError::QuotaExceeded => Code::QuotaExceeded,
            WriteError::ZoneFull(_) => Code::ZoneFull,
            WriteError::Revoked(_) => Code::Revoked,
            WriteError::Pending(_) => Code::Pending,
            WriteError::OpenZone(_) => Code::BadScope,
            WriteError::NotGranted(_) => Code::BadGrant,
            WriteError::StoreFailed(_) => Code::StoreFailed,
            WriteError::DuplicateIdentity => Code::DuplicateIdentity,
            WriteError::NotFound(_) => Code::NotFound,
            WriteError::NotYours(..) => Code::NotYours,
        }
    }
}

impl Withdraw {
    pub(super) fn includes(&self, name: &FullName) -> bool {
        match self {
            Withdraw::Others => true,
            Withdraw::OthersBut(kept) => !kept.iter().any(|kept| name.is_or_below(kept)),
            Withdraw::Only(gone) => gone.contains(name),
        }
    }
}
