//! Local agents: what this host runs, how, and within which limits.
//!
//! [`Agents`] holds the agents of this host. It knows no peers and no sockets of its own: the node offers to the world
//! what [`Agents::offers`] says, and the surfaces call through [`Agents::call`]. Input and output are checked against the
//! agent's schemas, work ends at its deadline, and no agent takes more than its places, its output and its memory.

mod a2a;
mod at_work;
mod builtin;
mod call_log;
mod chat;
pub(crate) mod command;
mod concurrency;
mod correlation;
mod event_stream;
pub mod files;
pub(crate) mod grants;
mod invocation;
mod partial_output;
mod rate_limit;
mod reach;
mod resource_watch;
mod running;
mod secrets;
mod state;
mod tools;
mod upstream;
pub(crate) mod web;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde_json::{Map, Value};
use tokio::sync::{Notify, Semaphore, watch};

pub use crate::document::schema;
pub use concurrency::QueueState;
pub use invocation::Invocation;
pub(crate) use reach::names_own_network;
pub use state::AgentState;

use crate::document::run_config::RunConfig;
use crate::proto::call::{CallContext, CallFailure, CallId, Outcome, Word};
use crate::proto::card::Offer;
use crate::proto::code::Code;
use crate::proto::identity::PeerKey;
use crate::proto::name::{FullName, ZoneName};
use crate::proto::registration::Withdraw;
use crate::telemetry::histogram::{FAST, Histogram};
pub(crate) use call_log::CallLog;
use running::RunningAgent;
use state::AgentEvent;
use tools::{Declared, ResolvedAgent};

pub use crate::proto::limits::CALL_BYTES_MAX;
use crate::proto::limits::CALL_FAILING_PAUSES;

/// Processes of all agents at once: each has three pipes and at most [`CALL_BYTES_MAX`] of output, so that they leave
/// room below the usual limit of 1,024 open files.
const PROCESSES_MAX: usize = 256;
/// Processes of one agent at once, so that one agent alone never takes all.
const PROCESSES_OF_ONE_MAX: usize = 64;

/// An agent of this host: what the world sees, and how it runs here. A listing has no `run_config`.
#[derive(Clone, Debug, PartialEq)]
pub struct HostedAgent {
    /// What is offered to the world.
    pub offer: Offer,
    /// How it runs; none for a listing.
    pub run_config: Option<RunConfig>,
}

/// A place of an agent for one call, or the wait for it. Dropping it gives it up.
pub(crate) struct Place {
    running: Arc<RunningAgent>,
    ticket: concurrency::Ticket,
}

/// The agents of this host. Cheap to clone.
#[derive(Clone)]
pub struct Agents(Arc<Inner>);

struct Inner {
    home: ZoneName,
    declared: Mutex<Declared>,
    table: RwLock<Arc<Table>>,
    changes: watch::Sender<u64>,
    shared: SharedResources,
}

/// What all agents of this host share.
struct SharedResources {
    processes: Semaphore,
    clients: web::Clients,
    at_work: at_work::CallsAtWork,
    watch: resource_watch::ResourceWatch,
    runs: Runs,
    log: CallLog,
    waits: Histogram,
    /// Some agent may be in another state than before.
    moved: Notify,
}

/// How the runs of all agents ended since the start; those of agents that have gone, too.
#[derive(Default)]
struct Runs {
    completed: AtomicU64,
    failed: AtomicU64,
}

/// What the agents of this host do, all together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Agents that run here, by where they are in their lives.
    pub agents: BTreeMap<AgentState, usize>,
    /// Agents that the operator has paused.
    pub paused: usize,
    /// Calls with a place.
    pub running: usize,
    /// Calls that wait for one.
    pub queued: usize,
    /// Runs that succeeded since the start.
    pub completed: u64,
    /// Runs that failed through their agents since the start.
    pub failed: u64,
}

/// What an agent of this host did since it was read from its file.
pub(crate) struct Work {
    /// Runs that succeeded, and that failed through the agent.
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    /// Calls that were not started.
    pub(crate) refused: u64,
    /// Where it is in its life.
    pub(crate) state: AgentState,
    /// How long its runs took.
    pub(crate) took: Histogram,
}

#[derive(Default)]
struct Table {
    list: Arc<BTreeMap<FullName, HostedAgent>>,
    running: BTreeMap<FullName, Arc<RunningAgent>>,
    offered: BTreeSet<FullName>,
    /// Below these names nothing is known yet: agents of earlier runs stay.
    unknown: BTreeSet<FullName>,
    /// Whether the list is all that there is to offer: no file was unreadable.
    is_complete: bool,
    /// Offered in this run and gone.
    retired: BTreeSet<FullName>,
}

impl Runs {
    fn note(&self, event: AgentEvent) {
        let count = if event == AgentEvent::Completion { &self.completed } else { &self.failed };
        count.fetch_add(1, Relaxed);
    }
}

impl Agents {
    /// No agents yet; those without a zone will lie in `home`.
    pub fn new(home: ZoneName) -> Agents {
        let (changes, _) = watch::channel(0);
        let shared = SharedResources {
            processes: Semaphore::new(PROCESSES_MAX),
            clients: web::Clients::default(),
            at_work: at_work::CallsAtWork::default(),
            watch: resource_watch::ResourceWatch::default(),
            runs: Runs::default(),
            log: CallLog::new(),
            waits: Histogram::new(FAST),
            moved: Notify::new(),
        };
        let (declared, table) = (Mutex::default(), RwLock::default());
        Agents(Arc::new(Inner { home, declared, table, changes, shared }))
    }

    /// Takes these agents for all of this host's. One that is as before keeps its places, its queue and its state;
    /// what runs of the others comes to its end. MCP servers are started on the present tokio runtime.
    pub fn replace(&self, agents: Vec<HostedAgent>) {
        self.replace_known(agents, true);
    }

    /// As [`Agents::replace`]; if these are not all, agents of earlier runs are not withdrawn.
    fn replace_known(&self, locals: Vec<HostedAgent>, is_complete: bool) {
        let mut declared = self.0.declared.lock().unwrap_or_else(PoisonError::into_inner);
        (declared.locals, declared.is_complete) = (locals, is_complete);
        // Servers first: the table asks them which tools they have.
        declared.start_upstreams(&Arc::downgrade(&self.0));
        self.take(&declared);
    }

    /// Whoever calls holds the lock of what is declared, so that tables follow each other in order.
    fn take(&self, declared: &Declared) {
        let before = self.table();
        let table = Table::new(&before, declared, &self.0.home);
        // Whoever watches is woken by a difference and not by every save of a file.
        if before.is_as(&table) {
            return;
        }
        for (name, running) in &before.running {
            if table.running.get(name).is_none_or(|now| !Arc::ptr_eq(now, running)) {
                running.remove();
            }
        }
        *self.0.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
        self.0.changes.send_modify(|count| *count += 1);
    }

    /// Every agent of this host, by name.
    pub fn list(&self) -> Arc<BTreeMap<FullName, HostedAgent>> {
        self.table().list.clone()
    }

    /// What the node is to offer to the world, and what of its earlier offers is to be withdrawn.
    pub fn offers(&self) -> (Vec<Offer>, Withdraw) {
        let table = self.table();
        let offered = table.list.iter().filter(|(name, _)| table.offered.contains(name));
        let offers = offered.map(|(_, local)| local.offer.clone()).collect();
        let is_unknown = |name: &FullName| table.unknown.iter().any(|unknown| name.is_or_below(unknown));
        // A file that cannot be read may hold any agent: then
        // only what this run offered itself is withdrawn.
        let withdraw = match (table.is_complete, table.unknown.is_empty()) {
            (true, true) => Withdraw::Others,
            (true, false) => Withdraw::OthersBut(table.unknown.clone()),
            (false, _) => {
                Withdraw::Only(table.retired.iter().filter(|name| !is_unknown(name)).cloned().collect())
            }
        };
        (offers, withdraw)
    }

    /// Counts changes of [`Agents::list`].
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Whether this host runs the agent.
    pub fn runs(&self, name: &FullName) -> bool {
        self.running(name).is_some()
    }

    /// The agent of this name and zone that this host runs.
    pub fn running_at(&self, offer: &Offer) -> Option<HostedAgent> {
        let zone = offer.zone.clone().unwrap_or_else(|| self.0.home.clone());
        self.get(&FullName { agent: offer.name.clone(), zone }).filter(|own| own.run_config.is_some())
    }

    /// An agent of this host.
    pub fn get(&self, name: &FullName) -> Option<HostedAgent> {
        self.table().list.get(name).cloned()
    }

    /// Where an agent that runs here is in its life; none if it does not run here.
    pub fn state(&self, name: &FullName) -> Option<AgentState> {
        self.running(name).map(|running| running.state())
    }

    /// Where each agent that runs here is in its life.
    pub fn states(&self) -> BTreeMap<FullName, AgentState> {
        self.table().running.iter().map(|(name, running)| (name.clone(), running.state())).collect()
    }

    /// Until one of [`Agents::states`] may have changed. For one waiter.
    pub(crate) async fn moved(&self) {
        self.0.shared.moved.notified().await;
    }

    /// What an agent that runs here has to do, and how its runs ended; none if it does not run here.
    pub fn queue(&self, name: &FullName) -> Option<QueueState> {
        self.running(name).map(|running| running.limiter().queue_state())
    }

    /// What the agents of this host do, all together.
    pub fn totals(&self) -> Totals {
        let runs = &self.0.shared.runs;
        let (completed, failed) = (runs.completed.load(Relaxed), runs.failed.load(Relaxed));
        let mut totals = Totals { completed, failed, ..Totals::default() };
        for running in self.table().running.values() {
            let queue = running.limiter().queue_state();
            *totals.agents.entry(running.state()).or_default() += 1;
            totals.paused += usize::from(queue.is_paused);
            totals.running += queue.running;
            totals.queued += queue.queued;
        }
        totals
    }

    /// What each agent of this host did, by name.
    pub(crate) fn work(&self) -> Vec<(FullName, Work)> {
        self.table().running.iter().map(|(name, running)| (name.clone(), running.work())).collect()
    }

    /// How long calls waited for places of agents.
    pub(crate) fn waits(&self) -> &Histogram {
        &self.0.shared.waits
    }

    /// Lets an agent begin no call until [`Agents::resume`], as it then is; none if it does not run here. What has a place comes
    /// to its end, and what comes waits in its queue within the bounds of any time. It holds until the node ends.
    pub fn pause(&self, name: &FullName) -> Option<QueueState> {
        let running = self.running(name)?;
        running.limiter().pause();
        self.0.shared.moved.notify_one();
        Some(running.limiter().queue_state())
    }

    /// Lets an agent begin calls again, as it then is; none if it does not run here.
    pub fn resume(&self, name: &FullName) -> Option<QueueState> {
        let running = self.running(name)?;
        running.limiter().resume();
        self.0.shared.moved.notify_one();
        Some(running.limiter().queue_state())
    }

    /// Ends all calls that wait for a place of an agent, as `cancelled` and not started; how many, or none if it does not run
    /// here.
    pub fn clear(&self, name: &FullName) -> Option<usize> {
        self.running(name).map(|running| running.limiter().clear())
    }

    /// Whether a call of an agent that runs here would begin at once, and its last runs did not all fail.
    pub fn begins_at_once(&self, name: &FullName) -> bool {
        self.running(name).is_some_and(|running| {
            let limiter = running.limiter();
            !limiter.is_busy() && limiter.queue_state().failing < CALL_FAILING_PAUSES
        })
    }

    /// What is said of the load of an agent that runs here to a caller which is given a place, or waits for one.
    pub(crate) fn word(&self, name: &FullName, has_place: bool) -> Word {
        self.running(name).map(|running| running.word(has_place)).unwrap_or_default()
    }

    /// What an agent that runs here takes: its own schema, else the paper's.
    pub fn input_schema(&self, name: &FullName) -> Arc<Map<String, Value>> {
        self.running(name).map_or_else(schema::default_input, |running| running.input_schema())
    }

    /// What an agent that runs here answers: its own schema, else the paper's.
    pub fn output_schema(&self, name: &FullName) -> Arc<Map<String, Value>> {
        self.running(name).map_or_else(schema::default_output, |running| running.output_schema())
    }

    /// Runs one call to its end: the agent's output document, checked. Dropping the future ends the work.
    ///
    /// # Errors
    /// Says in [`CallFailure::outcome`] whether the agent saw the input.
    pub async fn call(&self, name: &FullName, invocation: Invocation) -> Result<Value, CallFailure> {
        match self.running(name) {
            Some(running) => running.call(&self.0.shared, invocation, None).await,
            None => {
                Err(CallFailure::new(Code::NotFound, Outcome::NotStarted, format!("{name} is not run here")))
            }
        }
    }

    /// Whether an agent takes an input.
    ///
    /// # Errors
    /// It does not, or is not run here.
    pub(crate) fn check_input(&self, name: &FullName, input: &Value) -> Result<(), CallFailure> {
        self.running(name).map_or(Ok(()), |running| running.check_input(input))
    }

    /// The agent that works on a call now, and what the call is part of.
    pub(crate) fn at_work(&self, call: CallId) -> Option<(FullName, CallContext)> {
        self.0.shared.at_work.find(call)
    }

    /// Counts the lines of the log about calls.
    pub(crate) fn log(&self) -> &CallLog {
        &self.0.shared.log
    }

    /// A place of an agent for a call of a peer or of a client of this node, or one in its queue.
    ///
    /// # Errors
    /// The agent is not run here, too many wait, or its caller calls too often. Nothing was started.
    pub(crate) fn place(
        &self,
        name: &FullName,
        caller: Option<PeerKey>,
        priority: i8,
    ) -> Result<Place, CallFailure> {
        let running = self.running(name).ok_or_else(|| {
            CallFailure::new(Code::NotFound, Outcome::NotStarted, format!("{name} is not run here"))
        })?;
        let ticket = running.place(caller, priority)?;
        Ok(Place { running, ticket })
    }

    /// As [`Agents::call`], of the agent that gave the place.
    pub(crate) async fn call_placed(
        &self,
        place: Place,
        invocation: Invocation,
    ) -> Result<Value, CallFailure> {
        place.running.call(&self.0.shared, invocation, Some(place.ticket)).await
    }

    fn running(&self, name: &FullName) -> Option<Arc<RunningAgent>> {
        self.table().running.get(name).cloned()
    }

    fn table(&self) -> Arc<Table> {
        self.0.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Place {
    /// Whether the call has its place by now.
    pub(crate) fn is_given(&mut self) -> bool {
        self.ticket.is_placed()
    }

    /// How many calls waited before it when it came.
    pub(crate) fn ahead(&self) -> usize {
        self.ticket.ahead
    }

    /// Waits for the place.
    pub(crate) async fn given(&mut self) -> Result<(), CallFailure> {
        self.ticket.placed().await
    }
}

impl Table {
    fn new(before: &Table, declared: &Declared, home: &ZoneName) -> Table {
        let (resolved, unknown) = declared.resolved(home);
        let mut table = Table { unknown, is_complete: declared.is_complete, ..Table::default() };
        let mut list = BTreeMap::new();
        for ResolvedAgent { local, upstream, is_offered } in resolved {
            let zone = local.offer.zone.clone().unwrap_or_else(|| home.clone());
            let name = FullName { agent: local.offer.name.clone(), zone };
            // Agents of files come first, so a server cannot take a name from a file by listing a tool.
            if list.contains_key(&name) {
                tracing::warn!(agent = %name, "two agents of this host have this name; the second is left out");
                continue;
            }
            if let Some(run_config) = &local.run_config {
                let earlier = before.running.get(&name);
                let same = earlier.filter(|running| running.is_of(&local)).cloned();
                let running = same.unwrap_or_else(|| {
                    let new = RunningAgent::new(&name, &local, run_config, upstream);
                    // The operator paused the agent, whatever its file says since.
                    if earlier.is_some_and(|earlier| earlier.limiter().queue_state().is_paused) {
                        new.limiter().pause();
                    }
                    Arc::new(new)
                });
                table.running.insert(name.clone(), running);
            }
            if is_offered {
                table.offered.insert(name.clone());
            }
            list.insert(name, local);
        }
        let gone = before.retired.iter().chain(&before.offered).filter(|name| !list.contains_key(name));
        table.retired = gone.cloned().collect();
        table.list = Arc::new(list);
        table
    }

    fn is_as(&self, other: &Table) -> bool {
        self.list == other.list
            && self.offered == other.offered
            && self.unknown == other.unknown
            && self.is_complete == other.is_complete
    }
}
