//! What happens, as watchers are told it.

use serde::{Deserialize, Serialize};

use super::{Problem, Removal, ReplicaState, SeenCall, Via};

/// A live event: one server-sent event of `GET /v1/events`, one line of `aop watch --jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// An agent appeared or changed.
    AgentChanged {
        /// Full name.
        agent: String,
        /// Stable id.
        id: String,
        /// PeerId of the host.
        host: String,
        /// By which way that came.
        via: Via,
    },
    /// An agent left a host: deleted, or its lease ended.
    AgentRemoved {
        /// Full name.
        agent: String,
        /// Stable id.
        id: String,
        /// PeerId of the host.
        host: String,
        /// Why.
        reason: Removal,
    },
    /// An agent of this node is in another state, and was for up to a second.
    AgentState {
        /// Full name.
        agent: String,
        /// `active`, `busy` or `error`.
        state: ReplicaState,
    },
    /// A connection opened.
    PeerConnected {
        /// PeerId.
        peer: String,
    },
    /// The last connection to a peer closed.
    PeerDisconnected {
        /// PeerId.
        peer: String,
    },
    /// A sync ended.
    Synced {
        /// PeerId of the other side.
        peer: String,
        /// The zone.
        zone: String,
        /// Records that came.
        received: usize,
        /// Records that went.
        sent: usize,
    },
    /// Something an operator should know.
    Problem(Problem),
    /// A call takes longer than a second.
    CallStarted(SeenCall),
    /// A call ended.
    CallEnded(SeenCall),
    /// There were more such events in this second than are told.
    CallsUnseen {
        /// How many.
        count: u64,
    },
    /// The reader was too slow; this many events were left out.
    Missed {
        /// How many.
        count: u64,
    },
}
