//! Calling an agent: here, or at a host of the mesh.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures::FutureExt;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::Instrument;

use super::Handle;
use crate::agents::{CallLog, HostedAgent, Invocation};
use crate::api::{self, ApiError};
use crate::document::run_config::DEFAULT_LIMITS;
use crate::host::view;
use crate::net::calls::{CallResult, Kept, RemoteCall};
use crate::net::wall_clock;
use crate::proto::call::{self, CallContext, CallFailure, CallId, Incarnation, Outcome, Repeats, Report};
use crate::proto::card::{AgentCard, Balance, CallLimits, Residency};
use crate::proto::code::Code;
use crate::proto::grant::Grant;
use crate::proto::identity::{AgentId, PeerKey};
use crate::proto::io::Command;
use crate::proto::limits::{CALL_TIME_MAX, TASK_TIME_MAX};
use crate::proto::name::{AgentName, FullName, ZoneName};
use crate::proto::query::{self, Found};
use crate::telemetry::metrics::Side;
use crate::telemetry::recent_calls::CallSubject;
use crate::telemetry::{context, names};

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
    /// The call at work here in whose course it is made; one that is not known is passed over.
    pub within: Option<CallId>,
    /// Names in the log the request that it was made by, for a call that outlives it.
    pub request: Option<String>,
}

/// Stands for the agent of a call that is only asked for again.
static ASKED_AGAIN: LazyLock<AgentName> = LazyLock::new(|| "asked-again".parse().expect("a label"));

/// A call on its way.
pub(super) struct PendingCall {
    pub(super) id: CallId,
    pub(super) input: Value,
    pub(super) started: Instant,
    pub(super) options: CallOptions,
    /// Whether it is the call of a task, for which nobody waits.
    pub(super) is_task: bool,
}

impl Handle {
    /// Calls an agent given by full name, bare name, id or original name. An agent of this host that is named in full
    /// is called without a look at the registry. Without a `timeout` the agent's limits set the deadline. Dropping the
    /// future ends the work.
    ///
    /// # Errors
    /// The agent is unknown or ambiguous, the timeout is not within 0 … 300 s, or the agent may take longer. How the call ended
    /// is in the answer.
    pub async fn call(
        &self,
        agent: &str,
        input: Value,
        options: CallOptions,
    ) -> Result<api::CallAnswer, ApiError> {
        judge_time(options.timeout, CALL_TIME_MAX)?;
        let mut pending = PendingCall::new(input, options);
        pending.options.context = context_of(self, &pending.options);
        self.make(agent, pending).await
    }

    /// As [`Handle::call`], of a call whose timeout was judged and whose context is whole.
    pub(super) async fn make(&self, agent: &str, pending: PendingCall) -> Result<api::CallAnswer, ApiError> {
        if let Ok(name) = agent.parse::<FullName>()
            && let Some(local) = self.agents.list().get(&name).filter(|local| local.run_config.is_some())
            && self.is_for_here(&name, local, &pending.options)
            && meets(&local.offer.card, pending.options.context.residency())
        {
            pending.judge(local.offer.card.limits)?;
            return Ok(self.call_here(&name, local, pending).await);
        }
        let mut found = self.resolved(agent, Command::ResolveForCall(agent.to_owned())).await?;
        let card = found.card();
        if !card.callable {
            return Ok(view::not_callable(&found.record.name, &card, pending.id, pending.started));
        }
        pending.judge(card.limits)?;
        if let Err(failure) = keep_within(self, pending.options.context.residency(), &mut found) {
            return Ok(view::not_made(failure, pending.id, pending.started));
        }
        let is_here = found.replicas.iter().any(|replica| replica.peer() == self.key);
        let list = self.agents.list();
        let local = list.get(&found.record.name).filter(|local| is_here && local.run_config.is_some());
        let is_for_here = |local: &&HostedAgent| {
            found.replicas.len() == 1 || self.is_for_here(&found.record.name, local, &pending.options)
        };
        Ok(match local.filter(is_for_here) {
            Some(local) => self.call_here(&found.record.name, local, pending).await,
            None => self.call_at_any(found, card, pending).await,
        })
    }

    /// Whether an agent is run here whatever other hosts it has: by `load`, while it would begin at once, what is nearest comes
    /// first. Else this node is a host among the others.
    pub(super) fn is_for_here(&self, name: &FullName, local: &HostedAgent, options: &CallOptions) -> bool {
        let balance = options.balance.unwrap_or(local.offer.card.limits.unwrap_or(DEFAULT_LIMITS).balance);
        balance == Balance::Load && options.context.conversation.is_none() && self.agents.begins_at_once(name)
    }

    async fn call_here(&self, name: &FullName, local: &HostedAgent, pending: PendingCall) -> api::CallAnswer {
        let subject = pending.subject(name);
        let under_way = self.metrics.calls.begin(Side::Local, subject, wall_clock());
        let deadline = pending.deadline(local.offer.card.limits);
        let CallOptions { reports, context, stream, .. } = pending.options;
        let invocation = Invocation {
            reports,
            context,
            stream,
            stage: Some(under_way.stage()),
            ..Invocation::new(pending.id, pending.input, deadline)
        };
        let result = match chain_refusal(&invocation.context, &id_here(self.key, name, local)) {
            Some(failure) => Err(failure),
            None => run_here(self, name, invocation).await,
        };
        under_way.end(result.as_ref().err());
        // The own host is asked once, and needs no offer for it.
        view::call_answer(
            CallResult { result, host: Some(self.key), attempts: 1, carried: None },
            pending.id,
            pending.started,
        )
    }

    /// Calls an agent at whichever of its hosts takes the call first.
    async fn call_at_any(&self, found: Found, card: AgentCard, mut pending: PendingCall) -> api::CallAnswer {
        let limits = card.limits.unwrap_or(DEFAULT_LIMITS);
        let refusal = chain_refusal(&pending.options.context, &found.id);
        let span = names::invoke_elsewhere(&found.record.name, &found.id, pending.id);
        let context = &mut pending.options.context;
        context::adopt(&span, context.trace.as_ref());
        context::pass_on(&span, &mut context.trace);
        let subject = pending.subject(&found.record.name);
        let mut under_way = self.metrics.calls.begin(Side::Caller, subject, wall_clock());
        if let Some(failure) = refusal {
            under_way.end(Some(&failure));
            names::ended(&span, Some(&failure));
            return view::call_answer(CallResult::unmade(failure), pending.id, pending.started);
        }
        let balance = pending.options.balance.unwrap_or(limits.balance);
        let remote = RemoteCall {
            call: pending.id,
            agent: found.id,
            name: found.record.name.clone(),
            replicas: found.replicas.iter().map(|it| replica(it, balance)).collect(),
            deadline: pending.deadline(card.limits),
            schema: card.input_schema,
            input: std::mem::take(&mut pending.input),
            reports: pending.options.reports.take(),
            context: std::mem::take(&mut pending.options.context),
            stream: pending.options.stream,
            balance,
            repeats: Repeats { max: limits.max_retries, is_idempotent: limits.idempotent },
            kept: pending.is_task.then(|| kept(self, pending.id, None)),
            stage: Some(under_way.stage()),
        };
        let name = remote.name.clone();
        let called = self.calls.call(remote).instrument(span.clone()).await;
        under_way.with(called.host);
        if let Some((input, output)) = called.carried {
            under_way.carried(input, output);
        }
        under_way.end(called.result.as_ref().err());
        names::attempted(&span, called.attempts);
        names::ended(&span, called.result.as_ref().err());
        span.in_scope(|| log(self.agents.log(), &name, &pending, &called));
        view::call_answer(called, pending.id, pending.started)
    }
}

/// What this node's log has of a call at another host, by the id that the host's log names, too.
fn log(log: &CallLog, agent: &FullName, pending: &PendingCall, called: &CallResult) {
    let Some(left_out) = log.admit() else { return };
    let (call, took_ms) = (&pending.id, pending.started.elapsed().as_millis() as u64);
    let host = called.host.map(tracing::field::display);
    match &called.result {
        Ok(_) => {
            tracing::info!(
                target: "aop::call", event = "call_answered", side = "caller", %agent, %call, host, took_ms,
                left_out, "call answered"
            );
        }
        Err(failure) => {
            tracing::info!(
                target: "aop::call", event = "call_ended", side = "caller", %agent, %call, host, took_ms,
                left_out, code = %failure.code, outcome = failure.outcome.text(), "call ended: {}", failure.message
            );
        }
    }
}

/// Asks a host for a call that it accepted in an earlier run of this node. Nothing is offered: the host knows the call by its
/// id, and what it says is the end of it.
pub(super) async fn ask_again(
    handle: &Handle,
    pending: PendingCall,
    (host, incarnation): (PeerKey, Incarnation),
) -> api::CallAnswer {
    let remote = RemoteCall {
        call: pending.id,
        agent: AgentId([0; 20]),
        name: FullName { agent: ASKED_AGAIN.clone(), zone: ZoneName::root() },
        replicas: vec![call::Replica::unknown(host)],
        deadline: pending.deadline(None),
        schema: None,
        input: Value::Null,
        reports: pending.options.reports,
        context: CallContext::default(),
        stream: false,
        balance: Balance::default(),
        repeats: Repeats::default(),
        kept: Some(kept(handle, pending.id, Some((host, incarnation)))),
        stage: None,
    };
    view::call_answer(handle.calls.call(remote).await, pending.id, pending.started)
}

fn kept(handle: &Handle, call: CallId, sent: Option<(PeerKey, Incarnation)>) -> Kept {
    let tasks = handle.tasks.clone();
    let note_sent = move |host, incarnation| {
        let tasks = tasks.clone();
        async move { tasks.note_sent(call, host, Some(incarnation)).await }.boxed()
    };
    Kept { note_sent: Arc::new(note_sent), sent }
}

impl PendingCall {
    /// One that somebody waits for, under a new id.
    pub(super) fn new(input: Value, options: CallOptions) -> PendingCall {
        let id = CallId(rand::random());
        PendingCall { id, input, started: Instant::now(), options, is_task: false }
    }

    fn subject(&self, agent: &FullName) -> CallSubject {
        let trace = self.options.context.trace.clone();
        CallSubject { call: self.id, agent: agent.clone(), peer: None, trace }
    }

    /// The call's deadline; the host bounds the work of one attempt.
    fn deadline(&self, limits: Option<CallLimits>) -> Instant {
        let most = if self.is_task { TASK_TIME_MAX } else { CALL_TIME_MAX };
        self.started + self.options.timeout.unwrap_or_else(|| time_of(limits)).min(most)
    }

    /// Whether somebody may wait for an agent with these limits.
    fn judge(&self, limits: Option<CallLimits>) -> Result<(), ApiError> {
        let may_be_longer =
            limits.is_some_and(|limits| u64::from(limits.timeout_s) > CALL_TIME_MAX.as_secs());
        // Whoever says how long he waits knows that he may have waited in vain.
        if self.is_task || self.options.timeout.is_some() || !may_be_longer {
            return Ok(());
        }
        let seconds = limits.map_or(0, |limits| limits.timeout_s);
        Err(view::too_long(format!("the agent may take {seconds} s")))
    }
}

/// With the weight that the host gives itself, where that counts.
fn replica(found: &query::Replica, balance: Balance) -> call::Replica {
    let weight = || found.record.card()?.limits.map(|limits| limits.weight);
    let weight = (balance == Balance::Weighted).then(weight).flatten().unwrap_or(1);
    call::Replica { host: found.peer(), presence: found.presence, weight }
}

/// Leaves the hosts to which an input may be sent, by what their cards say of where data stays. What is not sent from this
/// node is bound by what its caller demands alone.
fn keep_within(handle: &Handle, demanded: &[Residency], found: &mut Found) -> Result<(), CallFailure> {
    if demanded.is_empty() && handle.residency.is_empty() {
        return Ok(());
    }
    found.replicas.retain(|replica| {
        let card = replica.record.card().unwrap_or_default();
        let is_sent = replica.peer() != handle.key && !handle.residency.is_empty();
        let is_allowed = !is_sent || Residency::of(&card).is_some_and(|it| handle.residency.contains(&it));
        is_allowed && meets(&card, demanded)
    });
    if !found.replicas.is_empty() {
        return Ok(());
    }
    let demands =
        [(demanded, "and", "its caller"), (&*handle.residency, "or", "calls.residency of this node")];
    let demands = demands.iter().filter(|(words, ..)| !words.is_empty()).map(|(words, between, by)| {
        let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
        format!("{} by {by}", words.join(&format!(" {between} ")))
    });
    let message = format!(
        "no host of {} says in its card that data stays where that is demanded ({}): \
         `aop find --residency` looks for agents whose cards do",
        found.record.name,
        demands.collect::<Vec<_>>().join(", and ")
    );
    Err(CallFailure::new(Code::NotAllowed, Outcome::NotStarted, message))
}

/// Whether a card says all of what is demanded of where data stays.
fn meets(card: &AgentCard, demanded: &[Residency]) -> bool {
    let says = Residency::of(card);
    demanded.iter().all(|demanded| says.as_ref() == Some(demanded))
}

/// What the limits of an agent add up to.
pub(super) fn time_of(limits: Option<CallLimits>) -> Duration {
    let CallLimits { timeout_s, max_retries, .. } = limits.unwrap_or(DEFAULT_LIMITS);
    Duration::from_secs(timeout_s.into()).saturating_mul(max_retries.saturating_add(1))
}

/// Whether a caller may wait so long.
pub(super) fn judge_time(timeout: Option<Duration>, most: Duration) -> Result<(), ApiError> {
    match timeout {
        Some(timeout) if timeout > most && most == CALL_TIME_MAX => {
            Err(view::too_long(format!("timeout: {} s", timeout.as_secs_f64())))
        }
        Some(timeout) if timeout.is_zero() || timeout > most => {
            Err(view::bad_request(format!("timeout: more than 0 and at most {} s", most.as_secs())))
        }
        _ => Ok(()),
    }
}

/// What a call is part of: that in whose course it is made, and what its caller says besides.
pub(super) fn context_of(handle: &Handle, options: &CallOptions) -> CallContext {
    let own = options.context.clone();
    let outer = options.within.and_then(|call| {
        let (name, context) = handle.agents.at_work(call)?;
        let list = handle.agents.list();
        Some(context.within(call, id_here(handle.key, &name, list.get(&name)?)))
    });
    match outer {
        Some(outer) => own.in_course_of(outer),
        None => own,
    }
}

/// Runs a call whose caller is told how it stands step by step; as soon as it has its place it counts as sent.
async fn run_here(handle: &Handle, name: &FullName, invocation: Invocation) -> Result<Value, CallFailure> {
    let Some(reports) = invocation.reports.clone() else {
        return handle.agents.call(name, invocation).await;
    };
    // Before any wait: an input that does not fit takes nobody's place.
    handle.agents.check_input(name, &invocation.input)?;
    let mut place = handle.agents.place(name, None, invocation.context.priority)?;
    if !place.is_given() {
        let ahead = u32::try_from(place.ahead()).unwrap_or(u32::MAX);
        // Reports are only a hint.
        let _full = reports.try_send(Report::Queued { ahead });
        let given = tokio::time::timeout_at(invocation.deadline, place.given()).await;
        given.unwrap_or_else(|_| Err(no_place()))?;
    }
    let unkept = |error: std::io::Error| {
        let message = format!("the task cannot be kept on disk, so it was not begun: {error}");
        CallFailure::new(Code::StoreFailed, Outcome::NotStarted, message)
    };
    handle.tasks.note_sent(invocation.call, handle.key, None).await.map_err(unkept)?;
    let _full = reports.try_send(Report::Working { host: handle.key });
    handle.agents.call_placed(place, invocation).await
}

fn no_place() -> CallFailure {
    let message = "the call waited for a free place of the agent until its deadline";
    CallFailure::new(Code::Deadline, Outcome::NotStarted, message)
}

fn chain_refusal(context: &CallContext, agent: &AgentId) -> Option<CallFailure> {
    let error = context.check(agent).err()?;
    Some(CallFailure::new(Code::CallChain, Outcome::NotStarted, error.to_string()))
}

/// The id of an agent of this host: whoever issued its first grant owns it, else this node.
pub(super) fn id_here(key: PeerKey, name: &FullName, local: &HostedAgent) -> AgentId {
    let grant = local.offer.grants.first().and_then(|grant| Grant::read(grant).ok());
    AgentId::of(grant.map_or(key, |grant| grant.issuer), name)
}
