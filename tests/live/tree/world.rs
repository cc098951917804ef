//! Nodes of a tree of zones in one process, each on a runtime of its own, so that one can end as by `kill -9`.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use aop::agents::{Agents, HostedAgent};
use aop::api::{self, FindQuery, ZoneStatus};
use aop::document::Offer;
use aop::document::run_config::{Builtin, RunConfig, Runner};
use aop::host::{self, Handle, HttpReadings, Options, Running};
use aop::net::store::Store;
use aop::net::swarm::Discovery;
use aop::net::transport::transport;
use aop::proto::card::{AgentCard, CallLimits, Scope};
use aop::proto::config::Config;
use aop::proto::identity::{Identity, PeerKey};
use aop::proto::name::ZoneName;
use aop::telemetry::exposition::Format;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

/// Longest wait for anything that has no bound of its own.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Agents of a page.
const PAGE: usize = 20;
/// How often is looked at what no event tells of.
pub(super) const TICK: Duration = Duration::from_millis(50);

/// Timings of minutes made seconds, so that what takes a quarter of an hour is seen in one.
pub(super) fn quick() -> Config {
    let s = Duration::from_secs;
    Config {
        walk_interval: s(3),
        follow_interval: s(1),
        fresh_for: s(10),
        replica_kept: s(15),
        sync_interval: s(2),
        stale_after: s(10),
        alone_after: s(1),
        company_after: s(4),
        beacon_interval: s(2),
        sync_deadline: s(5),
        ..Config::default()
    }
}

/// How a node is started, again and again.
pub(super) struct Site {
    pub(super) name: &'static str,
    pub(super) seed: u8,
    pub(super) zone: ZoneName,
    /// With the port of the first start.
    listen: Multiaddr,
    bootstrap: Vec<Multiaddr>,
    discovery: Discovery,
    timings: Config,
    change: Box<dyn Fn(&mut Options) + Send + Sync>,
    folder: TempDir,
    is_new: bool,
    agents: Agents,
    node: Option<(Running, Runtime)>,
}

impl Site {
    pub(super) fn new(name: &'static str, seed: u8, zone: &str, timings: Config) -> Site {
        let zone: ZoneName = zone.parse().unwrap();
        Site {
            name,
            seed,
            listen: "/ip4/127.0.0.1/tcp/0".parse().unwrap(),
            bootstrap: Vec::new(),
            discovery: Discovery::Dht,
            timings,
            change: Box::new(|_| {}),
            folder: TempDir::new().unwrap(),
            is_new: true,
            agents: Agents::new(zone.clone()),
            node: None,
            zone,
        }
    }

    /// With these peers to start from.
    pub(super) fn knowing(mut self, sites: &[&Site]) -> Site {
        self.meet(sites);
        self
    }

    /// With these peers to start from the next time.
    pub(super) fn meet(&mut self, sites: &[&Site]) {
        self.bootstrap = sites.iter().map(|site| site.address()).collect();
    }

    pub(super) fn at(mut self, address: Multiaddr) -> Site {
        self.bootstrap = vec![address];
        self
    }

    pub(super) fn without_dht(mut self) -> Site {
        self.discovery = Discovery::Off;
        self
    }

    pub(super) fn with(mut self, change: impl Fn(&mut Options) + Send + Sync + 'static) -> Site {
        self.change = Box::new(change);
        self
    }

    pub(super) async fn started(mut self) -> Site {
        self.start().await;
        self
    }

    /// Its port and its store are free a moment after it was killed.
    pub(super) async fn start(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let (running, runtime) = loop {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
            match runtime.spawn(start(self.options(), self.discovery)).await.unwrap() {
                Ok(running) => break (running, runtime),
                Err(error) => assert!(Instant::now() < deadline, "{}: {error}", self.name),
            }
            runtime.shutdown_background();
            sleep(TICK).await;
        };
        self.listen = running.listen[0].clone();
        self.listen.pop();
        self.node = Some((running, runtime));
    }

    fn options(&self) -> Options {
        let mut options = Options {
            zones: vec![self.zone.clone()],
            new_key: self.is_new,
            bootstrap: self.bootstrap.clone(),
            listen: vec![self.listen.clone()],
            agents: self.agents.clone(),
            timings: self.timings.clone(),
            ..Options::new(Identity::from_seed([self.seed; 32]), "test", self.folder.path())
        };
        (self.change)(&mut options);
        options
    }

    /// Ends it as `kill -9` does: nothing is said, nothing is flushed.
    pub(super) fn kill(&mut self) {
        let (running, runtime) = self.node.take().unwrap();
        runtime.shutdown_background();
        // Nobody reads what it would say by now.
        drop(running);
    }

    /// Forgets its disk.
    pub(super) fn wipe(&mut self) {
        self.folder = TempDir::new().unwrap();
        self.is_new = false;
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.node.as_ref().unwrap().0.handle
    }

    pub(super) fn key(&self) -> PeerKey {
        Identity::from_seed([self.seed; 32]).key()
    }

    pub(super) fn peer(&self) -> String {
        self.key().to_string()
    }

    pub(super) fn address(&self) -> Multiaddr {
        let keypair = Keypair::ed25519_from_bytes([self.seed; 32]).unwrap();
        self.listen.clone().with(Protocol::P2p(PeerId::from(keypair.public())))
    }

    /// Offers these beside what it offers.
    pub(super) async fn register(&self, offers: Vec<Offer>) -> BTreeSet<String> {
        let answers = self.handle().register(None, offers).await.unwrap();
        answers.into_iter().filter_map(Result::ok).map(|registered| registered.agent).collect()
    }

    /// Runs an agent that answers with what it is asked.
    pub(super) fn run_echo(&self, name: &str) {
        let limits = CallLimits { timeout_s: 5, max_retries: 1, max_concurrency: 4, ..CallLimits::DEFAULT };
        let card = AgentCard { callable: true, limits: Some(limits), ..AgentCard::default() };
        let run_config = RunConfig::new(Runner::Builtin(Builtin::Echo), Path::new("."));
        let hosted = HostedAgent { offer: Offer { card, ..offer(name) }, run_config: Some(run_config) };
        self.agents.replace(vec![hosted]);
    }

    /// All pages of a search, past what others answered before.
    pub(super) async fn find(&self, query: FindQuery) -> Seen {
        let mut query = FindQuery { limit: Some(PAGE), max_age_ms: query.max_age_ms.or(Some(0)), ..query };
        let mut seen = Seen { complete: true, ..Seen::default() };
        loop {
            let page = self.handle().find(query.clone()).await.unwrap();
            seen.pages += 1;
            seen.repeated += page.results.iter().filter(|it| seen.agents.contains(&it.agent)).count();
            seen.agents.extend(page.results.into_iter().map(|found| found.agent));
            seen.complete &= page.complete;
            seen.age_ms = seen.age_ms.max(page.age_ms);
            seen.zones = page.zones;
            match page.cursor {
                Some(cursor) => query.cursor = Some(cursor),
                None => return seen,
            }
        }
    }

    /// Questions of its clients, and the messages that they cost it, since it was started.
    pub(super) async fn asked(&self) -> (u64, u64) {
        let health = aop::host::HealthClient::new(self.handle().clone());
        let metrics = health.metrics(Format::Text, &HttpReadings::default()).await.unwrap();
        let counted = |name: &str| {
            let line = format!("{name}{{origin=\"client\"}} ");
            metrics.lines().find_map(|it| it.strip_prefix(&line)).unwrap().parse().unwrap()
        };
        (counted("aop_questions_total"), counted("aop_questions_asked_total"))
    }

    pub(super) async fn everything(&self) -> Seen {
        self.find(FindQuery::default()).await
    }

    pub(super) async fn within(&self, zone: &str) -> Seen {
        self.find(FindQuery { zone: Some(zone.into()), ..FindQuery::default() }).await
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if self.node.is_some() {
            self.kill();
        }
    }
}

/// What a search found, all pages together.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) agents: BTreeSet<String>,
    pub(super) complete: bool,
    pub(super) age_ms: Option<u64>,
    pub(super) zones: Vec<api::ZoneAnswer>,
    pub(super) pages: usize,
    /// How often an agent was on a second page.
    pub(super) repeated: usize,
}

impl Seen {
    /// The status of a zone that is named. An entry that stands for several says nothing of one that has its own.
    pub(super) fn status(&self, zone: &str) -> Option<ZoneStatus> {
        let told = self.zones.iter().filter(|told| told.zone == zone);
        told.min_by_key(|told| told.count.is_some()).map(|told| told.status)
    }

    pub(super) fn has(&self, agents: &BTreeSet<String>) -> bool {
        self.agents.is_superset(agents)
    }

    /// What is missing of these, in few words.
    pub(super) fn lacks(&self, agents: &BTreeSet<String>) -> String {
        let missing: Vec<&String> = agents.difference(&self.agents).take(3).collect();
        format!("{missing:?} missing, complete {}, {:?}", self.complete, self.zones)
    }
}

async fn start(options: Options, discovery: Discovery) -> Result<Running, host::StartError> {
    if let Discovery::Dht = discovery {
        return host::start(options).await;
    }
    let keypair = Keypair::ed25519_from_bytes(options.identity.seed()).unwrap();
    let dir = options.data_dir.clone();
    let (store, loaded) = tokio::task::spawn_blocking(move || Store::open(&dir)).await.unwrap()?;
    host::start_with(options, discovery, transport(&keypair).unwrap(), store, loaded).await
}

pub(super) fn offer(name: &str) -> Offer {
    let card = AgentCard {
        description: format!("The probe called {name}"),
        tags: vec!["probe".into()],
        ..AgentCard::default()
    };
    Offer { name: name.parse().unwrap(), zone: None, scope: Scope::Public, card, grants: Vec::new() }
}

/// Real documents, each of another name.
pub(super) fn documents() -> Vec<Offer> {
    let text = include_str!("../../data/mcp-servers.json");
    let documents: Value = serde_json::from_str(text).unwrap();
    aop::document::read_documents(documents).into_iter().filter_map(Result::ok).collect()
}

/// Looks until `is_met` answers; what it said last where it never does.
pub(super) async fn until<T>(
    what: &str,
    patience: Duration,
    mut is_met: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let mut last = String::from("nothing was answered");
    let looking = async {
        loop {
            match is_met().await {
                Ok(met) => return met,
                Err(why) => last = why,
            }
            sleep(TICK).await;
        }
    };
    match timeout(patience, looking).await {
        Ok(met) => met,
        Err(_) => panic!("not in {patience:?}: {what}: {last}"),
    }
}

/// Waits until a search of each of these finds the agents and no others, and is complete.
pub(super) async fn until_whole(sites: &[&Site], agents: &BTreeSet<String>, patience: Duration) {
    let started = Instant::now();
    for site in sites {
        let left = patience.saturating_sub(started.elapsed());
        until(&format!("{} finds everything", site.name), left, async || {
            let seen = site.everything().await;
            let is_whole = seen.complete && seen.agents == *agents;
            if is_whole { Ok(()) } else { Err(seen.lacks(agents)) }
        })
        .await;
    }
}
