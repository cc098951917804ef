//! Calls as somebody watches them: who called whom and how it ended, never what was said.

use serde::{Deserialize, Serialize};

use super::{CallSide, CallState, Code};

/// A question for the calls of a node: `GET /v1/calls`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallsQuery {
    /// Most of them, 1 … 1000, default 50.
    pub limit: Option<usize>,
    /// Only those of this agent, by full name.
    pub agent: Option<String>,
    /// Only those that stand so.
    pub outcome: Option<CallState>,
}

/// Answer of `GET /v1/calls`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SeenCalls {
    /// Those under way, then those that ended, the latest first. Kept are the last 256 of this node's clients and the last 256 of
    /// other nodes.
    pub calls: Vec<SeenCall>,
}

/// A call as it is seen from this node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SeenCall {
    /// Its id, the same at the host and at the caller.
    pub call: String,
    /// Full name of the agent.
    pub agent: String,
    /// Whose part this node has in it.
    pub side: CallSide,
    /// PeerId of the other node; null for a call that stays on this one, and while no host has it.
    pub peer: Option<String>,
    /// How it stands.
    pub outcome: CallState,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// When it began, wall milliseconds of this node.
    pub began_ms: u64,
    /// How long it took, or takes until now.
    pub took_ms: f64,
    /// Of its input, where that went over the mesh and was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_bytes: Option<usize>,
    /// Of its output, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<usize>,
    /// The trace that it is part of, 32 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}
