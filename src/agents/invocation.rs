//! A call as an agent of this host gets it.

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::proto::call::{CallContext, CallId, Report};
use crate::proto::identity::PeerKey;
use crate::telemetry::metrics::CallStage;

/// One call of a local agent. Dropping its future ends the work.
#[derive(Debug)]
pub struct Invocation {
    /// The agent's own input document.
    pub input: Value,
    /// When the whole call ends, waiting included.
    pub deadline: Instant,
    /// Takes reports; a full channel loses reports, never delays work.
    pub reports: Option<mpsc::Sender<Report>>,
    /// Names the call wherever it is spoken of.
    pub call: CallId,
    /// Who calls; none for a client of this node.
    pub caller: Option<PeerKey>,
    /// What the call is part of.
    pub context: CallContext,
    /// Whether the caller wants output before the work ends.
    pub stream: bool,
    /// Told when the call has its place, if that is counted.
    pub stage: Option<CallStage>,
}

impl Invocation {
    /// A call of a client of this node that is part of nothing and is told nothing before its end.
    pub fn new(call: CallId, input: Value, deadline: Instant) -> Invocation {
        let context = CallContext::default();
        Invocation { input, deadline, reports: None, call, caller: None, context, stream: false, stage: None }
    }
}
