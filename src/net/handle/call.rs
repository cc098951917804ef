//! Calling an agent: here, or at a host of the mesh.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::Handle;
use crate::agents::{HostedAgent, Invocation};
use crate::api::{self, ApiError};
use crate::document::run_config::DEFAULT_LIMITS;
use crate::net::calls::{OpenCalls, Wanted, prepare};
use crate::net::{view, wall_clock};
use crate::proto::call::{CallFailure, CallId, Outcome, Progress};
use crate::proto::card::{AgentCard, CallLimits};
use crate::proto::config::CALL_TIME_MAX;
use crate::proto::directory::{Found, PeerProfile};
use crate::proto::identity::PeerKey;
use crate::proto::name::FullName;

/// How long a host is looked for. A walk through the DHT takes a few round trips.
const SEARCH_TIME_MAX: Duration = Duration::from_secs(5);

/// A call on its way.
struct Asked {
    id: CallId,
    input: Value,
    started: Instant,
    /// As the caller wishes.
    timeout: Option<Duration>,
    progress: Option<mpsc::Sender<Progress>>,
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
        timeout: Option<Duration>,
        progress: Option<mpsc::Sender<Progress>>,
    ) -> Result<api::CallAnswer, ApiError> {
        if timeout.is_some_and(|timeout| timeout.is_zero() || timeout > CALL_TIME_MAX) {
            let most = CALL_TIME_MAX.as_secs();
            return Err(view::bad_request(format!("timeout: more than 0 and at most {most} s")));
        }
        let id = CallId(rand::random());
        let asked = Asked { id, input, started: Instant::now(), timeout, progress };
        if let Ok(name) = agent.parse::<FullName>()
            && let Some(local) = self.agents.list().get(&name).filter(|local| local.run_config.is_some())
        {
            return Ok(self.call_here(&name, local, asked).await);
        }
        let found = self.resolve(agent).await?;
        let card = found.card();
        if !card.callable {
            return Ok(view::not_callable(&found.record.name, &card, asked.id, self.key, asked.started));
        }
        let is_here = found.replicas.iter().any(|replica| replica.peer == self.key);
        match self.agents.list().get(&found.record.name).filter(|local| is_here && local.run_config.is_some())
        {
            Some(local) => Ok(self.call_here(&found.record.name, local, asked).await),
            None => Ok(self.call_there(&found, card, asked).await),
        }
    }

    async fn call_here(&self, name: &FullName, local: &HostedAgent, asked: Asked) -> api::CallAnswer {
        let deadline = asked.deadline(local.offer.card.limits);
        let invocation = Invocation { input: asked.input, deadline, progress: asked.progress };
        let ended = self.agents.call(name, invocation).await;
        view::call_answer(ended, asked.id, self.key, asked.started)
    }

    async fn call_there(&self, found: &Found, card: AgentCard, asked: Asked) -> api::CallAnswer {
        let (id, started) = (asked.id, asked.started);
        let Some(host) = found.replicas.iter().map(|replica| replica.peer).find(|peer| *peer != self.key)
        else {
            let message = "no host runs this agent any more";
            let failure = CallFailure::new("not_found", Outcome::NotStarted, message);
            return view::call_answer(Err(failure), id, self.key, started);
        };
        let deadline = asked.deadline(card.limits);
        let late = || {
            let message = "the input was not checked before the deadline";
            Err(CallFailure::new("deadline", Outcome::NotStarted, message))
        };
        let prepared = timeout_at(deadline, prepare(card.input_schema, asked.input)).await;
        let ended = match prepared.unwrap_or_else(|_| late()) {
            Ok(input) => {
                let (name, progress) = (found.record.name.clone(), asked.progress);
                let wanted = Wanted { call: id, host, agent: found.id, name, input, deadline, progress };
                self.calls.call(&wanted, self.search(host)).await
            }
            Err(failure) => Err(failure),
        };
        view::call_answer(ended, id, host, started)
    }

    /// Looks for a peer whose address is not known; returns when it is connected or was not found.
    async fn search(&self, peer: PeerKey) {
        let (over, waiting) = oneshot::channel();
        // A node that is stopping finds nobody.
        let _stopped = self.read(move |seen| seen.network.look_up(&peer, over)).await;
        let _over = timeout(SEARCH_TIME_MAX, waiting).await;
    }

    /// What a peer is, as far as this node knows; nothing once it is stopping.
    pub(in crate::net) async fn standing(&self, peer: PeerKey) -> PeerProfile {
        self.read(move |seen| seen.node.profile(&peer, wall_clock())).await.unwrap_or_default()
    }

    /// Where open calls are counted.
    pub(in crate::net) fn open_calls(&self) -> OpenCalls {
        self.calls.open_calls.clone()
    }
}

impl Asked {
    /// The call's deadline; the host bounds the work of one attempt.
    fn deadline(&self, limits: Option<CallLimits>) -> Instant {
        let CallLimits { timeout_s, max_retries, .. } = limits.unwrap_or(DEFAULT_LIMITS);
        let attempts = Duration::from_secs(timeout_s.into()).saturating_mul(max_retries.saturating_add(1));
        self.started + self.timeout.unwrap_or(attempts).min(CALL_TIME_MAX)
    }
}
