//! Calling an agent: here, or at a host of the mesh.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Handle;
use crate::agents::{HostedAgent, Invocation};
use crate::api::{self, ApiError};
use crate::document::run_config::DEFAULT_LIMITS;
use crate::host::view;
use crate::net::calls::{CallResult, RemoteCall};
use crate::proto::call::{self, Balance, CallContext, CallId, Outcome, Repeats, Report};

use crate::proto::card::{AgentCard, CallLimits};
use crate::proto::io::Command;
use crate::proto::limits::CALL_TIME_MAX;
use crate::proto::name::FullName;
use crate::proto::query::{self, Found};

/// How a call is made.
#[derive(Clone, Debug, Default)]
pub struct CallOptions {
    /// When its caller gives up; without it the agent's limits say when.
    pub timeout: Option<Duration>,
    /// Takes reports; a full channel loses reports, never delays work.
    pub reports: Option<mpsc::Sender<Report>>,
    /// What it is part of.
    pub context: CallContext,
    /// Whether output is wanted before the work ends.
    pub stream: bool,
    /// In which order hosts are asked, if not as the agent says.
    pub balance: Option<Balance>,
}

/// A call on its way.
struct PendingCall {
    id: CallId,
    input: Value,
    started: Instant,
    options: CallOptions,
}

impl Handle {
    /// Calls an agent given by full name, bare name, id or original name. An agent of this host that is named in full
    /// is called without a look at the registry. Without a `timeout` the agent's limits set the deadline. Dropping the
    /// future ends the work.
    ///
    /// # Errors
    /// The agent is unknown or ambiguous, or the timeout is not within 0 … 300 s. How the call ended is in the answer.
    pub async fn call(
        &self,
        agent: &str,
        input: Value,
        options: CallOptions,
    ) -> Result<api::CallAnswer, ApiError> {
        if options.timeout.is_some_and(|timeout| timeout.is_zero() || timeout > CALL_TIME_MAX) {
            let most = CALL_TIME_MAX.as_secs();
            return Err(view::bad_request(format!("timeout: more than 0 and at most {most} s")));
        }
        let id = CallId(rand::random());
        let pending = PendingCall { id, input, started: Instant::now(), options };
        if let Ok(name) = agent.parse::<FullName>()
            && let Some(local) = self.agents.list().get(&name).filter(|local| local.run_config.is_some())
            && !self.agents.is_busy(&name)
        {
            return Ok(self.call_here(&name, local, pending).await);
        }
        let found = self.resolved(agent, Command::ResolveForCall(agent.to_owned())).await?;
        let card = found.card();
        if !card.callable {
            return Ok(view::not_callable(&found.record.name, &card, pending.id, pending.started));
        }
        let is_here = found.replicas.iter().any(|replica| replica.peer == self.key);
        let list = self.agents.list();
        let local = list.get(&found.record.name).filter(|local| is_here && local.run_config.is_some());
        Ok(match local {
            Some(local) if found.replicas.len() == 1 || !self.agents.is_busy(&found.record.name) => {
                self.call_here(&found.record.name, local, pending).await
            }
            Some(local) => self.call_anywhere(found.clone(), card, local, pending).await,
            None => self.call_there(found, card, pending, false).await,
        })
    }

    /// Calls an agent that is busy here at its other hosts, and here after all if none of them takes the call.
    async fn call_anywhere(
        &self,
        found: Found,
        card: AgentCard,
        local: &HostedAgent,
        pending: PendingCall,
    ) -> api::CallAnswer {
        let name = found.record.name.clone();
        let here = PendingCall { options: pending.options.clone(), input: pending.input.clone(), ..pending };
        let there = self.call_there(found, card, pending, true).await;
        match there.outcome {
            Some(Outcome::NotStarted) => self.call_here(&name, local, here).await,
            _ => there,
        }
    }

    async fn call_here(&self, name: &FullName, local: &HostedAgent, pending: PendingCall) -> api::CallAnswer {
        let deadline = pending.deadline(local.offer.card.limits);
        let CallOptions { reports, context, stream, .. } = pending.options;
        let invocation =
            Invocation { reports, context, stream, ..Invocation::new(pending.id, pending.input, deadline) };
        let result = self.agents.call(name, invocation).await;
        // The own host is asked once, and needs no offer for it.
        view::call_answer(
            CallResult { result, host: Some(self.key), attempts: 1 },
            pending.id,
            pending.started,
        )
    }

    /// `is_brief`: only where a host takes the call at once.
    async fn call_there(
        &self,
        found: Found,
        card: AgentCard,
        pending: PendingCall,
        is_brief: bool,
    ) -> api::CallAnswer {
        let limits = card.limits.unwrap_or(DEFAULT_LIMITS);
        let remote = RemoteCall {
            call: pending.id,
            agent: found.id,
            name: found.record.name.clone(),
            replicas: found.replicas.iter().map(replica).collect(),
            deadline: pending.deadline(card.limits),
            schema: card.input_schema,
            input: pending.input,
            reports: pending.options.reports,
            context: pending.options.context,
            stream: pending.options.stream,
            is_brief,
            balance: pending.options.balance.unwrap_or(limits.balance),
            repeats: Repeats { max: limits.max_retries, is_idempotent: limits.idempotent },
            kept: None,
        };
        view::call_answer(self.calls.call(remote).await, pending.id, pending.started)
    }
}

impl PendingCall {
    /// The call's deadline; the host bounds the work of one attempt.
    fn deadline(&self, limits: Option<CallLimits>) -> Instant {
        let CallLimits { timeout_s, max_retries, .. } = limits.unwrap_or(DEFAULT_LIMITS);
        let attempts = Duration::from_secs(timeout_s.into()).saturating_mul(max_retries.saturating_add(1));
        self.started + self.options.timeout.unwrap_or(attempts).min(CALL_TIME_MAX)
    }
}

fn replica(found: &query::Replica) -> call::Replica {
    call::Replica { host: found.peer, presence: found.presence, weight: found.weight }
}
