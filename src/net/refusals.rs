//! What was refused because a place or a budget was used up, counted by reason: the operator sees it in `/metrics`. Nobody is
//! blamed for these.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What was refused, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// A handshake made room for a newer one of its address or block.
    HandshakeShare,
    /// A handshake made room for a newer one, for there were too many in all.
    HandshakePlaces,
    /// A handshake did not end in time.
    HandshakeDeadline,
    /// A connection beyond the share of its address or block.
    ConnectionShare,
    /// A connection beyond what the node takes.
    ConnectionPlaces,
    /// A connection that made room for a newer one.
    ConnectionReplaced,
    /// A stream beyond the share of its peer, or of its address or block.
    StreamShare,
    /// A stream beyond what the node takes.
    StreamPlaces,
    /// A silent conversation whose place another one needed.
    StreamIdle,
    /// A request whose body did not come as fast as it must.
    BodyLate,
    /// A request whose body found no memory.
    BodyMemory,
    /// A request beyond those at work at once.
    RequestPlaces,
    /// A request that names two lengths of its body, or whose head is too long.
    RequestHead,
    /// A relayed circuit beyond the share of its block.
    CircuitShare,
    /// An address that a peer named of a reach in which the peer was not met.
    DialReach,
    /// An address that a peer named, beyond what is dialed on the word of peers.
    DialBudget,
}

impl Reason {
    /// Those for which peers are refused.
    pub const OF_PEERS: [Reason; 12] = [
        Reason::HandshakeShare,
        Reason::HandshakePlaces,
        Reason::HandshakeDeadline,
        Reason::ConnectionShare,
        Reason::ConnectionPlaces,
        Reason::ConnectionReplaced,
        Reason::StreamShare,
        Reason::StreamPlaces,
        Reason::StreamIdle,
        Reason::CircuitShare,
        Reason::DialReach,
        Reason::DialBudget,
    ];
    /// Those for which HTTP clients are refused.
    pub const OF_CLIENTS: [Reason; 7] = [
        Reason::ConnectionShare,
        Reason::ConnectionPlaces,
        Reason::ConnectionReplaced,
        Reason::BodyLate,
        Reason::BodyMemory,
        Reason::RequestPlaces,
        Reason::RequestHead,
    ];

    /// How the metrics name it.
    pub fn text(self) -> &'static str {
        match self {
            Reason::HandshakeShare => "handshake_share",
            Reason::HandshakePlaces => "handshake_places",
            Reason::HandshakeDeadline => "handshake_deadline",
            Reason::ConnectionShare => "connection_share",
            Reason::ConnectionPlaces => "connection_places",
            Reason::ConnectionReplaced => "connection_replaced",
            Reason::StreamShare => "stream_share",
            Reason::StreamPlaces => "stream_places",
            Reason::StreamIdle => "stream_idle",
            Reason::BodyLate => "body_late",
            Reason::BodyMemory => "body_memory",
            Reason::RequestPlaces => "request_places",
            Reason::RequestHead => "request_head",
            Reason::CircuitShare => "circuit_share",
            Reason::DialReach => "dial_reach",
            Reason::DialBudget => "dial_budget",
        }
    }
}

/// How often each [`Reason`] came up since the start. Cheap to clone; all clones count together.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<Mutex<BTreeMap<Reason, u64>>>);

impl Refusals {
    /// Counts one.
    pub fn count(&self, reason: Reason) {
        *self.lock().entry(reason).or_default() += 1;
    }

    /// The counts.
    pub fn counts(&self) -> BTreeMap<Reason, u64> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Reason, u64>> {
        // Every change is one step, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
