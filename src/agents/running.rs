//! One agent at work: its schemas, its limiter, and the path of a call through them (paper Algorithm 2, one attempt).

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures::FutureExt;
use serde_json::{Map, Value};
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument, Span};

use super::call_log::CallLog;
use super::command::{self, StderrTail, too_talkative};
use super::concurrency::{ConcurrencyLimiter, Ticket};
use super::correlation::labels;
use super::reach::Reach;
use super::schema::{self, Schema};
use super::secrets::Secrets;
use super::state::{AgentEvent, AgentState};
use super::tools::McpUpstream;
use super::upstream::structure;
use super::web::Server;
use super::{
    CALL_BYTES_MAX, HostedAgent, Invocation, PROCESSES_OF_ONE_MAX, SharedResources, Work, a2a, builtin, chat,
};
use crate::document::json;
use crate::document::run_config::{DEFAULT_LIMITS, RunConfig, Runner};
use crate::proto::call::{CallFailure, Outcome, Word};
use crate::proto::code::Code;
use crate::proto::identity::PeerKey;
use crate::proto::name::FullName;
use crate::telemetry::histogram::{AGENT, Histogram};
use crate::telemetry::metrics::CallStage;
use crate::telemetry::{context, names};

/// The paper's input schema, for the many agents that have no other.
static PAPER_INPUT: LazyLock<Option<Arc<Schema>>> =
    LazyLock::new(|| Schema::compile(&Value::Object((*schema::default_input()).clone())).ok().map(Arc::new));

/// An agent that runs on this host.
pub(super) struct RunningAgent {
    name: FullName,
    local: HostedAgent,
    run_config: RunConfig,
    timeout: Duration,
    input: Checked,
    output: Checked,
    limiter: Arc<ConcurrencyLimiter>,
    secrets: Arc<Secrets>,
    /// The card of an agent that is behind A2A.
    cards: a2a::CardCache,
    /// The servers of an agent that is tools of them.
    upstream: Option<Arc<McpUpstream>>,
    took: Histogram,
    refused: AtomicU64,
}

/// A schema as it is shown, and compiled where the agent gives its own.
struct Checked {
    shown: Arc<Map<String, Value>>,
    own: Option<Arc<Schema>>,
}

impl Checked {
    /// The schema of a card, else `default`. One that cannot be used here is left to the agent: files with such a
    /// schema were refused before.
    fn new(name: &FullName, text: Option<&str>, default: Arc<Map<String, Value>>) -> Checked {
        let given = text.and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
        let Some(given) = given else { return Checked { shown: default, own: None } };
        let own = Schema::compile(&Value::Object(given.clone()));
        if let Err(why) = &own {
            tracing::warn!(agent = %name, "a schema is not checked: it {why}");
        }
        Checked { shown: Arc::new(given), own: own.ok().map(Arc::new) }
    }
}

impl RunningAgent {
    pub(super) fn new(
        name: &FullName,
        local: &HostedAgent,
        run_config: &RunConfig,
        upstream: Option<Arc<McpUpstream>>,
    ) -> RunningAgent {
        let card = &local.offer.card;
        let limits = card.limits.unwrap_or(DEFAULT_LIMITS);
        let count = match run_config.runner {
            // A card may promise any number; processes are this host's to give.
            Runner::Command(_) => (limits.max_concurrency as usize).min(PROCESSES_OF_ONE_MAX),
            _ => limits.max_concurrency as usize,
        };
        let mut input = Checked::new(name, card.input_schema.as_deref(), schema::default_input());
        // The paper's schema asks for a task; what runs here is held to it like to any other.
        if card.input_schema.is_none() {
            input.own = PAPER_INPUT.clone();
        }
        RunningAgent {
            input,
            output: Checked::new(name, card.output_schema.as_deref(), schema::default_output()),
            timeout: Duration::from_secs(u64::from(limits.timeout_s)),
            limiter: Arc::new(ConcurrencyLimiter::new(count, run_config.max_queue, run_config.rate_limit)),
            secrets: Arc::new(Secrets::of(run_config)),
            cards: a2a::CardCache::default(),
            name: name.clone(),
            local: local.clone(),
            run_config: run_config.clone(),
            upstream,
            took: Histogram::new(AGENT),
            refused: AtomicU64::new(0),
        }
    }

    /// Whether it is this agent with these settings.
    pub(super) fn is_of(&self, local: &HostedAgent) -> bool {
        self.local == *local
    }

    pub(super) fn remove(&self) {
        self.limiter.note(AgentEvent::Removal);
        // Nobody could resume it any more.
        if self.limiter.queue_state().is_paused {
            self.limiter.clear();
        }
    }

    pub(super) fn state(&self) -> AgentState {
        self.limiter.state()
    }

    pub(super) fn work(&self) -> Work {
        let queue = self.limiter.queue_state();
        Work {
            completed: queue.completed,
            failed: queue.failed,
            refused: self.refused.load(Relaxed),
            state: self.state(),
            took: self.took.clone(),
        }
    }

    pub(super) fn word(&self, has_place: bool) -> Word {
        self.limiter.word(has_place)
    }

    pub(super) fn input_schema(&self) -> Arc<Map<String, Value>> {
        self.input.shown.clone()
    }

    pub(super) fn output_schema(&self) -> Arc<Map<String, Value>> {
        self.output.shown.clone()
    }

    /// A place for a call whose input comes when it has one.
    pub(super) fn place(&self, caller: Option<PeerKey>, priority: i8) -> Result<Ticket, CallFailure> {
        self.limiter.ask(caller, priority, false)
    }

    /// Its queue, to look at and to hold.
    pub(super) fn limiter(&self) -> &ConcurrencyLimiter {
        &self.limiter
    }

    /// Place, work, output; every step says what is known of the work when it fails. A call of a peer has its `ticket`, one of a
    /// client of this node gets one here.
    pub(super) async fn call(
        &self,
        shared: &SharedResources,
        mut invocation: Invocation,
        ticket: Option<Ticket>,
    ) -> Result<Value, CallFailure> {
        let started = Instant::now();
        let span = names::invoke_here(&self.name, runner_of(&self.run_config.runner), invocation.call);
        context::adopt(&span, invocation.context.trace.as_ref());
        context::pass_on(&span, &mut invocation.context.trace);
        let logged = tracing::warn_span!("agent", agent = %self.name, call = %invocation.call);
        let attempt = Box::pin(self.attempt(shared, &mut invocation, ticket, &span));
        let done = attempt.instrument(logged).instrument(span.clone()).await;
        names::ended(&span, done.as_ref().err());
        // Counted only for those who are told.
        if !span.is_disabled() {
            names::took_in(&span, json::length(&invocation.input));
            done.iter().for_each(|output| names::gave_out(&span, json::length(output)));
        }
        shared.moved.notify_one();
        if done.as_ref().is_err_and(|failure| failure.outcome == Outcome::NotStarted) {
            self.refused.fetch_add(1, Relaxed);
        }
        span.in_scope(|| self.log(&shared.log, &invocation, started.elapsed(), done.as_ref().err()));
        done
    }

    async fn attempt(
        &self,
        shared: &SharedResources,
        invocation: &mut Invocation,
        ticket: Option<Ticket>,
        span: &Span,
    ) -> Result<Value, CallFailure> {
        // Before any wait: an input that does not fit takes nobody's place.
        self.check_input(&invocation.input)?;
        // The agent's place first: whoever waits for one must
        // not hold a process of the whole host meanwhile.
        let priority = invocation.context.priority;
        let mut ticket = ticket.map_or_else(|| self.limiter.ask(invocation.caller, priority, true), Ok)?;
        let asked = Instant::now();
        ticket.begin(invocation.deadline).await?;
        shared.waits.observe(asked.elapsed());
        names::waited(span, asked.elapsed());
        invocation.stage.iter().for_each(CallStage::begin_work);
        shared.moved.notify_one();
        let _process = self.process_permit(shared, invocation.deadline).await?;
        let runs = self.span();
        context::pass_on(&runs, &mut invocation.context.trace);
        let _known = shared.at_work.begin(invocation.call, &self.name, &invocation.context);
        let began = Instant::now();
        let is_hurried = invocation.deadline < Instant::now() + self.timeout;
        let run = self.run(shared, invocation).instrument(runs.clone());
        let done = self.bounded(invocation.deadline, run).await;
        if let Err(failure) = &done {
            names::failed(&runs, failure.code.text());
        }
        ticket.end();
        self.took.observe(began.elapsed());
        if let Some(event) = event_of(&done, is_hurried) {
            shared.runs.note(event);
            self.limiter.note_run(event == AgentEvent::Failure);
        }
        done
    }

    /// Whether it takes an input.
    pub(super) fn check_input(&self, input: &Value) -> Result<(), CallFailure> {
        let Some(schema) = &self.input.own else { return Ok(()) };
        schema.check(input).map_err(|why| {
            let message = format!("the input does not fit the input schema of {}: {why}", self.name);
            CallFailure::new(Code::BadInput, Outcome::NotStarted, message)
        })
    }

    /// A process more on this host, if the agent is one.
    async fn process_permit<'a>(
        &self,
        shared: &'a SharedResources,
        deadline: Instant,
    ) -> Result<Option<SemaphorePermit<'a>>, CallFailure> {
        if !matches!(self.run_config.runner, Runner::Command(_)) {
            return Ok(None);
        }
        match timeout_at(deadline, shared.processes.acquire()).await {
            Ok(Ok(permit)) => Ok(Some(permit)),
            _ => Err(CallFailure::new(
                Code::Deadline,
                Outcome::NotStarted,
                "the call waited until its deadline for other agents' processes on this host to end",
            )),
        }
    }

    /// The work within its time; a panic in it is this call's failure and nobody else's.
    async fn bounded(
        &self,
        deadline: Instant,
        work: impl Future<Output = Result<Value, CallFailure>>,
    ) -> Result<Value, CallFailure> {
        // From here on, so that the wait for a place is not taken off the agent's own time.
        let limit = Instant::now() + self.timeout;
        let answer = match timeout_at(limit.min(deadline), AssertUnwindSafe(work).catch_unwind()).await {
            Ok(Ok(done)) => done?,
            Ok(Err(_)) => {
                return Err(CallFailure::new(
                    Code::Internal,
                    Outcome::Unknown,
                    "the agent's runner broke down",
                ));
            }
            Err(_) => return Err(self.too_slow(limit <= deadline)),
        };
        self.check_output(answer)
    }

    fn too_slow(&self, by_attempt: bool) -> CallFailure {
        let message = if by_attempt {
            format!("{} was stopped after {} s, its `timeout_s`", self.name, self.timeout.as_secs())
        } else {
            format!("{} was stopped at the deadline of the call", self.name)
        };
        CallFailure::new(Code::Deadline, Outcome::Unknown, message)
    }

    async fn run(&self, shared: &SharedResources, invocation: &Invocation) -> Result<Value, CallFailure> {
        match &self.run_config.runner {
            Runner::Builtin(builtin) => builtin::run(*builtin, invocation).await,
            Runner::Command(program) => {
                let tail = StderrTail::new(&self.name, &self.secrets, self.run_config.traceback_enabled);
                command::run(program, &self.run_config, &shared.watch, invocation, tail).await
            }
            Runner::Http(endpoint) => {
                let (url, headers, secrets) = (&*endpoint.url, &endpoint.headers, &*self.secrets);
                let labels = labels(invocation).into_iter();
                let told = labels.map(|(label, value)| (label.header(), value)).collect();
                let (reach, failed) = (Reach::Named, Code::AgentFailed);
                let server = Server { url, reach, headers, told, failed, secrets };
                server.post(&shared.clients, &invocation.input).await
            }
            Runner::A2a(agent) => {
                a2a::run(agent, &self.cards, &self.secrets, &shared.clients, invocation).await
            }
            Runner::Chat(chat) => chat::run(chat, &self.secrets, &shared.clients, invocation).await,
            Runner::Mcp { tool, .. } => match &self.upstream {
                Some(upstream) => upstream.call(tool.as_deref(), invocation).await,
                None => {
                    Err(CallFailure::new(Code::Internal, Outcome::NotStarted, "its servers were not started"))
                }
            },
        }
    }

    /// An agent without a schema may answer in the shape of the paper; with one, its answer has that schema's shape.
    fn check_output(&self, answer: Value) -> Result<Value, CallFailure> {
        // Here as over the mesh, so that an agent has one size wherever it is called from.
        if json::length(&answer) > CALL_BYTES_MAX {
            return Err(too_talkative());
        }
        if let Some(schema) = &self.output.own {
            let is_tool = matches!(self.run_config.runner, Runner::Mcp { .. });
            let answer = if is_tool { structure(answer) } else { answer };
            return schema.check(&answer).map(|()| answer).map_err(|why| {
                let message = format!("the answer of {} does not fit its output schema: {why}", self.name);
                CallFailure::new(Code::BadOutput, Outcome::Done, message)
            });
        }
        match self.run_config.runner {
            Runner::Command(_) | Runner::Http(_) | Runner::Mcp { .. } => {
                unwrap_answer(answer).map_err(|failure| self.hidden(failure))
            }
            // An echo gives back what it got, even where that looks like the paper's output; in A2A the task says how it ended.
            Runner::Chat(_) | Runner::A2a(_) | Runner::Builtin(_) => Ok(answer),
        }
    }

    /// A failure in the agent's own words.
    fn hidden(&self, failure: CallFailure) -> CallFailure {
        CallFailure { message: self.secrets.hide(&failure.message), ..failure }
    }

    /// What a run asks or starts; none of what this program is itself.
    fn span(&self) -> Span {
        match &self.run_config.runner {
            Runner::Builtin(_) => Span::none(),
            Runner::Command(program) => {
                let path = program.command.first().map(Path::new).and_then(Path::file_name);
                names::run(&path.unwrap_or_default().to_string_lossy())
            }
            Runner::Http(endpoint) => names::post(Some(&endpoint.url)),
            // Its card says where it is asked.
            Runner::A2a(_) => names::post(None),
            Runner::Chat(chat) => names::chat(&chat.model, &chat.base.url),
            Runner::Mcp { tool, .. } => names::tool(tool.as_deref().unwrap_or("*")),
        }
    }

    /// One id: the call is named here as its caller names it.
    fn log(&self, log: &CallLog, invocation: &Invocation, took: Duration, failure: Option<&CallFailure>) {
        let (agent, call, took_ms) = (&self.name, invocation.call, took.as_millis() as u64);
        // What was not started cost nothing here, and anybody can cause it.
        let is_quiet = failure.is_some_and(|failure| failure.outcome == Outcome::NotStarted);
        let left_out = match self.run_config.verbose {
            true => None,
            false if is_quiet => return,
            false => match log.admit() {
                Some(left_out) => left_out,
                None => return,
            },
        };
        let side = if invocation.caller.is_some() { "host" } else { "local" };
        let peer = invocation.caller.map(tracing::field::display);
        let (input_bytes, task_hash) = log.describe(&invocation.input);
        match failure {
            None => tracing::info!(
                target: "aop::call", event = "call_completed", %agent, %call, side, peer, took_ms, input_bytes,
                task_hash, left_out, "call completed"
            ),
            Some(failure) => tracing::warn!(
                event = "call_failed", %agent, %call, side, peer, took_ms, input_bytes, task_hash, left_out,
                code = %failure.code, outcome = failure.outcome.text(), "call failed: {}", failure.message
            ),
        }
    }
}

fn runner_of(runner: &Runner) -> &'static str {
    match runner {
        Runner::Builtin(_) => "builtin",
        Runner::Command(_) => "command",
        Runner::Http(_) => "http",
        Runner::A2a(_) => "a2a",
        Runner::Chat(_) => "chat",
        Runner::Mcp { .. } => "mcp",
    }
}

/// What the end of a run says of its agent; nothing where it was the caller's fault, or nobody's. A call `is_hurried` whose
/// deadline came before the end of the agent's own time.
fn event_of(done: &Result<Value, CallFailure>, is_hurried: bool) -> Option<AgentEvent> {
    match done {
        Ok(_) => Some(AgentEvent::Completion),
        // A tool that is not there is named by the caller, and who is asked something did not fail.
        Err(CallFailure {
            code: Code::BadInput | Code::Busy | Code::NeedsInput | Code::NotFound, ..
        }) => None,
        // Else whoever calls with little time could make any agent look broken.
        Err(CallFailure { code: Code::Deadline, .. }) if is_hurried => None,
        Err(_) => Some(AgentEvent::Failure),
    }
}

/// The paper's output (section 4.3): `success` with `result` or `error`. Anything else is the result itself.
fn unwrap_answer(mut answer: Value) -> Result<Value, CallFailure> {
    // `success` alone is a word that other answers use too.
    let is_paper = answer.get("success").is_some_and(Value::is_boolean)
        && (answer.get("result").is_some() || answer.get("error").is_some());
    if !is_paper {
        return Ok(answer);
    }
    if answer["success"] == true {
        return Ok(answer["result"].take());
    }
    let message = match &answer["error"] {
        Value::String(error) => error.clone(),
        Value::Null => "the agent says that it failed, and not why".into(),
        other => other.to_string(),
    };
    Err(CallFailure::new(Code::AgentFailed, Outcome::Done, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::run_config::Builtin;
    use crate::proto::card::{AgentCard, Offer};
    use serde_json::json;

    fn running(output_schema: Option<&str>) -> RunningAgent {
        let name: FullName = "a@.".parse().unwrap();
        let card = AgentCard { output_schema: output_schema.map(Into::into), ..AgentCard::default() };
        let offer = Offer {
            name: name.agent.clone(),
            zone: None,
            scope: Default::default(),
            card,
            grants: Vec::new(),
        };
        let run_config =
            RunConfig { max_queue: 0, ..RunConfig::new(Runner::Builtin(Builtin::Echo), Path::new(".")) };
        let local = HostedAgent { offer, run_config: Some(run_config.clone()) };
        RunningAgent::new(&name, &local, &run_config, None)
    }

    #[tokio::test]
    async fn a_panic_is_the_failure_of_one_call() {
        let deadline = Instant::now() + Duration::from_secs(10);
        let failure = running(None).bounded(deadline, async { panic!("a test") }).await.unwrap_err();
        assert_eq!((failure.code.text(), failure.outcome), ("internal", Outcome::Unknown));
    }

    #[tokio::test]
    async fn an_answer_is_checked_and_with_a_schema_not_unwrapped() {
        let deadline = Instant::now() + Duration::from_secs(10);
        let answer = json!({"success": false, "error": "x"});
        let typed = running(Some("{\"required\": [\"success\"]}"));
        assert_eq!(typed.bounded(deadline, async { Ok(answer.clone()) }).await.unwrap(), answer);
        let failure = typed.bounded(deadline, async { Ok(json!({})) }).await.unwrap_err();
        assert_eq!((failure.code.text(), failure.outcome), ("bad_output", Outcome::Done));
    }

    #[test]
    fn only_what_fails_through_the_agent_counts_against_it() {
        let failed = |code| Err(CallFailure::new(code, Outcome::Unknown, ""));
        assert_eq!(event_of(&Ok(Value::Null), true), Some(AgentEvent::Completion));
        for code in
            [Code::AgentFailed, Code::StartFailed, Code::UpstreamFailed, Code::TooHungry, Code::Deadline]
        {
            assert_eq!(event_of(&failed(code), false), Some(AgentEvent::Failure), "{code}");
        }
        for (code, is_hurried) in [Code::BadInput, Code::Busy, Code::NeedsInput, Code::NotFound]
            .map(|code| (code, false))
            .into_iter()
            .chain([(Code::Deadline, true)])
        {
            assert_eq!(event_of(&failed(code), is_hurried), None, "{code}");
        }
    }

    #[test]
    fn answers_in_the_shape_of_the_paper_are_unwrapped() {
        let good = [
            (json!({"result": 7, "success": true, "error": null}), json!(7)),
            (json!({"success": true, "error": null}), Value::Null),
            (json!({"success": true}), json!({"success": true})),
            (json!({"result": 7, "success": "yes"}), json!({"result": 7, "success": "yes"})),
            (json!("text"), json!("text")),
        ];
        for (answer, result) in good {
            assert_eq!(unwrap_answer(answer).unwrap(), result);
        }
        let failure = unwrap_answer(json!({"result": "", "success": false, "error": "no ink"})).unwrap_err();
        assert_eq!((failure.code.text(), failure.message.as_str()), ("agent_failed", "no ink"));
        assert_eq!(failure.outcome, Outcome::Done);
        unwrap_answer(json!({"result": "half", "success": false})).unwrap_err();
    }
}
