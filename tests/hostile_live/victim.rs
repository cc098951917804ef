//! The node that is attacked, and its honest clients.

use std::path::Path;
use std::time::Duration;

use aop::agents::{Agents, HostedAgent};
use aop::api::{AgentDetail, ApiError, Event, FindQuery, Status};
use aop::document::Offer;
use aop::document::run_config::{Builtin, RunConfig, Runner};
use aop::host::{self, CallOptions, HttpReadings, Options, Running};
use aop::proto::card::{AgentCard, Scope};
use aop::proto::code::Code;
use aop::proto::identity::Identity;
use aop::proto::name::ZoneName;
use aop::telemetry::exposition::Format;
use libp2p::Multiaddr;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

/// Far more than anything takes on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// What a client waits for an answer while the node is attacked.
const ANSWER: Duration = Duration::from_secs(20);
/// How much more memory this process may have in use after an attack: 64 MiB for the victim, and as much again for the attacker,
/// which is within the same process, and for what the allocator keeps.
const MEMORY_GROWTH_MAX: u64 = 128 * 1024 * 1024;

/// One attack at a time: each may use up this machine, and what it costs is measured.
pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// The memory of this process at some time, where the system tells.
pub(crate) struct Memory(u64);

impl Memory {
    pub(crate) fn now() -> Memory {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        Memory(kib.unwrap_or(0) * 1024)
    }

    pub(crate) fn assert_bounded(&self) {
        let growth = Memory::now().0.saturating_sub(self.0);
        assert!(growth <= MEMORY_GROWTH_MAX, "{} MiB more", growth >> 20);
    }
}

pub(crate) fn offer(name: &str) -> Offer {
    let (name, card) = (name.parse().unwrap(), AgentCard::default());
    Offer { name, zone: None, scope: Scope::Public, card, grants: Vec::new() }
}

fn echo(name: &str) -> HostedAgent {
    let card = AgentCard { callable: true, ..AgentCard::default() };
    let offer = Offer { card, ..offer(name) };
    let run_config = Some(RunConfig::new(Runner::Builtin(Builtin::Echo), Path::new(".")));
    HostedAgent { offer, run_config }
}

pub(crate) struct Victim {
    pub(crate) node: Running,
    _folder: TempDir,
}

impl Victim {
    pub(crate) async fn start(seed: u8, bootstrap: Vec<Multiaddr>) -> Victim {
        Victim::offering(&[], seed, bootstrap).await
    }

    /// A node that runs agents of these names, which answer with what they are asked.
    pub(crate) async fn offering(names: &[&str], seed: u8, bootstrap: Vec<Multiaddr>) -> Victim {
        let agents = Agents::new(ZoneName::root());
        agents.replace(names.iter().map(|name| echo(name)).collect());
        Victim::with(seed, |options| Options { bootstrap, agents, ..options }).await
    }

    pub(crate) async fn with(seed: u8, with: impl FnOnce(Options) -> Options) -> Victim {
        let folder = tempfile::tempdir().unwrap();
        let options = with(Options::new(Identity::from_seed([seed; 32]), "test", folder.path()));
        Victim { node: host::start(options).await.unwrap(), _folder: folder }
    }

    pub(crate) fn address(&self) -> Multiaddr {
        self.node.listen[0].clone()
    }

    /// Registers an agent, which must be acknowledged whatever else goes on.
    pub(crate) async fn register(&self, name: &str) {
        self.register_described(name, "honest").await;
    }

    pub(crate) async fn register_described(&self, name: &str, description: &str) {
        self.register_card(name, AgentCard { description: description.into(), ..AgentCard::default() }).await;
    }

    /// Registers an agent whose record has some 30 KiB.
    pub(crate) async fn register_large(&self, name: &str) {
        let schema = Some(json!({"type": "object", "description": "x".repeat(15 * 1024)}).to_string());
        let (input_schema, output_schema) = (schema.clone(), schema);
        self.register_card(name, AgentCard { input_schema, output_schema, ..AgentCard::default() }).await;
    }

    async fn register_card(&self, name: &str, card: AgentCard) {
        let offer = Offer { card, ..offer(name) };
        let answer = timeout(ANSWER, self.node.handle.register(None, vec![offer])).await;
        answer.expect("a client has its answer").unwrap().remove(0).unwrap();
    }

    /// The agents that a search finds, which must be answered whatever else goes on.
    pub(crate) async fn found(&self) -> Vec<String> {
        let query = FindQuery { limit: Some(1_000), ..FindQuery::default() };
        let answer = timeout(ANSWER, self.node.handle.find(query)).await.expect("a client has its answer");
        answer.unwrap().results.into_iter().map(|found| found.agent).collect()
    }

    /// An agent by its name, which must be answered whatever else goes on.
    pub(crate) async fn show(&self, name: &str) -> Result<AgentDetail, ApiError> {
        timeout(ANSWER, self.node.handle.show(name)).await.expect("a client has its answer")
    }

    /// Calls one of the agents of [`Victim::offering`], here or elsewhere: who answered. It must be answered, too.
    pub(crate) async fn call(&self, name: &str) -> String {
        let options = CallOptions { timeout: Some(ANSWER), ..CallOptions::default() };
        let call = self.node.handle.call(name, json!({"task": "hello"}), options);
        let answer = timeout(2 * ANSWER, call).await.expect("a client has its answer").unwrap();
        assert_eq!(answer.result, json!("hello"), "{answer:?}");
        answer.served_by.unwrap()
    }

    /// A counter of its metrics, zero as long as it is not there.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let health = aop::host::HealthClient::new(self.node.handle.clone());
        let metrics = timeout(ANSWER, health.metrics(Format::Text, &HttpReadings::default()))
            .await
            .expect("a client has its answer");
        let metrics = metrics.unwrap();
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |count| count.trim().parse().unwrap())
    }

    pub(crate) async fn status(&self) -> Status {
        timeout(ANSWER, self.node.handle.status()).await.expect("a client has its answer").unwrap()
    }

    /// How often something was refused for this reason.
    pub(crate) async fn refused(&self, code: Code) -> u64 {
        self.status().await.refused.get(&code).copied().unwrap_or(0)
    }

    /// Waits until `is_met`; looks again with each event.
    pub(crate) async fn until(&self, what: &str, is_met: impl AsyncFn() -> bool) {
        let mut events = self.node.handle.events();
        let waiting = async {
            while !is_met().await {
                // Not every change is an event.
                let _event: Result<Result<Event, _>, _> =
                    timeout(Duration::from_millis(200), events.recv()).await;
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("not in {PATIENCE:?}: {what}"));
    }
}
