//! The words of the API: every state, status, role and reason is an enum, and one list gives it its text in JSON and
//! for people.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Makes an enum whose texts are the same in JSON and for people. The first is the default.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $(#[doc = $first_doc:literal])* $first:ident = $first_text:literal
        $(, $(#[doc = $doc:literal])* $variant:ident = $text:literal)* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $(#[doc = $first_doc])*
            #[default]
            #[serde(rename = $first_text)]
            $first,
            $($(#[doc = $doc])* #[serde(rename = $text)] $variant,)*
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.text())
            }
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [$name] = &[$name::$first, $($name::$variant,)*];

            /// Its text, as JSON has it.
            pub fn text(self) -> &'static str {
                match self {
                    $name::$first => $first_text,
                    $($name::$variant => $text,)*
                }
            }
        }
    };
}

words! {
    /// Whose part of a call a node has.
    CallSide {
        /// A client of this node calls an agent of this host.
        Local = "local",
        /// A client of this node calls another host.
        Caller = "caller",
        /// Another node calls an agent of this host.
        Host = "host",
    }
}

words! {
    /// How a call stands: the last three are those of [`Outcome`](super::Outcome).
    CallState {
        /// It has not ended.
        UnderWay = "under_way",
        /// It was answered.
        Ok = "ok",
        /// It failed, and the agent has not seen it.
        NotStarted = "not_started",
        /// It failed, and nobody knows what the agent has done.
        Unknown = "unknown",
        /// It failed after the agent had done its work.
        Done = "done",
    }
}

words! {
    /// From where a node is reached.
    ReachState {
        /// Nobody said.
        Unknown = "unknown",
        /// From everywhere, by what was announced or tried.
        Public = "public",
        /// Through relays.
        Relayed = "relayed",
        /// Only from its own network.
        Private = "private",
    }
}

words! {
    /// Where an agent came from.
    Origin {
        /// An agent's file.
        Native = "native",
        /// A server.json of the MCP registry format.
        ServerJson = "server.json",
        /// An A2A agent card.
        A2a = "a2a",
        /// A card of an MCP server, which the server shows itself.
        ServerCard = "server-card",
        /// A record of the Open Agentic Schema Framework.
        Oasf = "oasf",
    }
}

words! {
    /// What a host of an agent is good for, the best first.
    ReplicaState {
        /// Takes calls.
        Active = "active",
        /// Takes calls, which wait.
        Busy = "busy",
        /// Offers what is served outside the mesh.
        Listed = "listed",
        /// Takes calls, and its last one failed.
        Error = "error",
        /// Was not heard for a while.
        Unreachable = "unreachable",
    }
}

words! {
    /// How one zone took part in an answer.
    ZoneStatus {
        /// From what this node holds of it.
        Held = "held",
        /// By one of its members.
        Answered = "answered",
        /// From a recent answer.
        Cached = "cached",
        /// From an old answer.
        Stale = "stale",
        /// Nobody could be asked.
        Unreachable = "unreachable",
        /// Nobody was asked.
        Skipped = "skipped",
    }
}

words! {
    /// Who said whom a name means.
    ChosenBy {
        /// The operator.
        Operator = "operator",
        /// The first call by that name.
        FirstCall = "first_call",
    }
}

words! {
    /// How a node is.
    Health {
        /// Well.
        Ok = "ok",
        /// Works, but not well: the problems say why.
        Degraded = "degraded",
    }
}

words! {
    /// How something is that a self-check looked at, the worst last.
    CheckStatus {
        /// It was not looked at.
        Skip = "skip",
        /// Well.
        Ok = "ok",
        /// It works, and may not for long.
        Warn = "warn",
        /// It does not work, or not well.
        Fail = "fail",
    }
}

words! {
    /// What a self-check is about, in the order in which it is told: what comes first is often the cause of what comes later.
    CheckGroup {
        /// Settings.
        Configuration = "configuration",
        /// The data folder and what lies in it.
        Files = "files",
        /// What the system lets the process have.
        Limits = "limits",
        /// Whether it answers, and how quickly.
        Node = "node",
        /// Its time against that of others.
        Clock = "clock",
        /// Sockets and peers.
        Mesh = "mesh",
        /// What is held of zones, and what is offered.
        Registry = "registry",
        /// Agents of this host, and calls.
        Agents = "agents",
        /// What MCP clients meet.
        Mcp = "mcp",
        /// Metrics and traces.
        Telemetry = "telemetry",
    }
}

words! {
    /// What a node is to a zone.
    ZoneRole {
        /// It serves the zone.
        Member = "member",
        /// It holds the zone without serving it.
        Follower = "follower",
        /// It follows the zone as a gateway of one above.
        Below = "below",
        /// It knows of the zone, and holds nothing of it.
        Known = "known",
    }
}

words! {
    /// By which way a record came.
    Via {
        /// Written by this node.
        Local = "local",
        /// From the mesh.
        Gossip = "gossip",
        /// From a conversation with a peer.
        Sync = "sync",
        /// From the node's own store.
        Store = "store",
    }
}

words! {
    /// Why an agent left a host.
    Removal {
        /// It was withdrawn.
        Deleted = "deleted",
        /// Its lease ended.
        Expired = "expired",
        /// Its owner took it back from the host.
        Revoked = "revoked",
        /// Another record of the host stands in its slot.
        SlotTaken = "slot_taken",
        /// The zone is full of what comes before it.
        ZoneFull = "zone_full",
    }
}

impl ZoneStatus {
    /// Whether the answer has all that the zone has.
    pub fn is_whole(self) -> bool {
        match self {
            ZoneStatus::Held | ZoneStatus::Answered | ZoneStatus::Cached => true,
            ZoneStatus::Stale | ZoneStatus::Unreachable | ZoneStatus::Skipped => false,
        }
    }
}

words! {
    /// What an operator does with a queue.
    QueueChange {
        /// No call is begun any more; what has a place comes to its end.
        Pause = "pause",
        /// Calls are begun again.
        Resume = "resume",
        /// All calls that wait end as `busy`.
        Clear = "clear",
    }
}
