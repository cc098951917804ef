//! One run: live nodes on one thread and a paused runtime, whose clock jumps to the next timer whenever all wait.
//!
//! A node here is the one of `aop node`: driver, swarm, gossipsub, Kademlia, noise and yamux. Below them is the [`Wire`]
//! instead of sockets, and a map instead of the disk.

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Duration;

use aop::host::{Options, Running, start_with};
use aop::lab::measure::{Broken, Measured, Missing};
use aop::lab::scenario::Scenario;
use aop::net::store::{MemoryFolder, Store};
use aop::net::swarm::NetworkOptions;
use aop::net::transport::PeerTransport;
use aop::proto::address_block::TrustedNets;
use aop::proto::identity::Identity;
use aop::proto::name::{ZoneId, ZoneName};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::entropy;
use crate::links::Links;
use crate::notebook::Notebook;
use crate::plan::{Plan, Step};
use crate::tap::Tap;
use crate::transport::{address, transport};
use crate::updates::{NETWORK, offer};
use crate::wire::Wire;

/// First updates are written this long after the last start at the earliest: handshakes and first syncs are over, and
/// nearly every gossip mesh has its size.
const WARM_UP: Duration = Duration::from_secs(10);
/// A world whose nodes have not all a mesh peer by then never will.
const FORMED_BY: Duration = Duration::from_secs(60);
/// How long after the last write and the last fault a world may take to agree: several syncs of each node.
const AGREED_WITHIN: Duration = Duration::from_secs(180);
/// Once all is known, copies on their way and the next heartbeats still count.
const TRAILING: Duration = Duration::from_secs(3);
/// Stack of the thread a run has for itself.
const STACK_BYTES: usize = 16 * 1024 * 1024;

/// Plays one run. Needs a process of its own: chance and ids are the process's.
///
/// # Errors
/// The run cannot be made, with a sentence that says why.
pub fn play(scenario: &Scenario, seed: u64) -> Result<Result<Measured, Broken>, String> {
    entropy::seed(seed);
    let scenario = scenario.clone();
    // A new thread, because hash maps and generators take their keys once for each.
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || run(&scenario, seed));
    let ended = thread.map_err(|error| error.to_string())?.join();
    ended.map_err(|_| "the run broke down; what it said stands above".to_owned())?
}

fn run(scenario: &Scenario, seed: u64) -> Result<Result<Measured, Broken>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| error.to_string())?;
    let ended = runtime.block_on(async {
        entropy::start_clock();
        World::new(scenario, seed)?.play().await
    });
    // A node takes its leave in many steps, and nobody is left to watch them.
    std::mem::forget(runtime);
    ended
}

struct World<'a> {
    scenario: &'a Scenario,
    plan: Plan,
    links: Links,
    wire: Wire,
    tap: Tap,
    notebook: Notebook,
    identities: Vec<Identity>,
    /// Transports of the nodes that have not started.
    transports: RefCell<Vec<Option<PeerTransport>>>,
    nodes: RefCell<Vec<Option<Running>>>,
    started: Instant,
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, seed: u64) -> Result<World<'a>, String> {
        let nodes = scenario.network.nodes;
        let links = Links::new(&scenario.network, seed);
        let wire = Wire::new(links.clone(), scenario.network.loss.rate, seed);
        tokio::spawn(wire.clone().carry());
        let world = World {
            scenario,
            plan: Plan::new(scenario, &links, seed)?,
            links,
            wire,
            tap: Tap::default(),
            notebook: Notebook::new(scenario.workload.updates, nodes),
            identities: (0..nodes).map(|node| identity(seed, node)).collect(),
            transports: RefCell::default(),
            nodes: RefCell::new((0..nodes).map(|_| None).collect()),
            started: Instant::now(),
        };
        for node in 0..nodes {
            let keypair = world.network_options(node).keypair().map_err(|error| error.to_string())?;
            let transport =
                transport(&world.wire, &world.tap, node, &keypair).map_err(|error| error.to_string())?;
            world.transports.borrow_mut().push(Some(transport));
        }
        Ok(world)
    }

    async fn play(self) -> Result<Result<Measured, Broken>, String> {
        let until = self.scenario.until.map(|until| self.started + until);
        let forever = self.started + Duration::from_secs(u32::MAX.into());
        let all = async {
            tokio::try_join!(self.steps(), self.writes())?;
            let deadline = until.unwrap_or(Instant::now() + AGREED_WITHIN);
            if timeout_at(deadline, self.notebook.complete()).await.is_ok() {
                sleep(TRAILING).await;
            }
            Ok::<(), Stop>(())
        };
        match timeout_at(until.unwrap_or(forever), all).await {
            Ok(Err(Stop::Broken(broken))) => return Ok(Err(broken)),
            Ok(Err(Stop::Failed(why))) => return Err(why),
            Ok(Ok(())) | Err(_) => {}
        }
        if self.notebook.has_gaps() {
            return Err("a node had more events than were read; fewer updates at once".into());
        }
        if let Some(broken) = self.judge().await? {
            return Ok(Err(broken));
        }
        Ok(Ok(self.notebook.measured(&self.plan, &self.links, self.tap.copies(), self.wire.bytes())))
    }

    /// Plays the plan.
    async fn steps(&self) -> Result<(), Stop> {
        for (at, step) in &self.plan.steps {
            sleep_until(self.started + Duration::from_millis(*at)).await;
            match step {
                Step::Start(node) => self.start(*node).await.map_err(Stop::Failed)?,
                Step::Part(number, groups) => self.wire.part(*number, groups.clone()),
                Step::Break => self.wire.break_across(),
                Step::Heal(number) => self.wire.heal(*number),
            }
        }
        Ok(())
    }

    async fn start(&self, node: usize) -> Result<(), String> {
        let transport = self.transports.borrow_mut()[node].take().ok_or("a node starts once")?;
        let NetworkOptions {
            identity, network, bootstrap, listen, announce, trusted_nets, discovery, ..
        } = self.network_options(node);
        let options = Options {
            bootstrap,
            listen,
            announce,
            trusted_nets,
            ..Options::new(identity, &network, PathBuf::new())
        };
        let (store, loaded) = Store::in_memory(&MemoryFolder::default());
        let running = start_with(options, discovery, transport, store, loaded)
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(self.notebook.clone().watch(node, running.handle.events()));
        self.nodes.borrow_mut()[node] = Some(running);
        Ok(())
    }

    fn network_options(&self, node: usize) -> NetworkOptions {
        NetworkOptions {
            identity: self.identities[node].clone(),
            network: NETWORK.into(),
            zones: vec![ZoneId::open(ZoneName::root())],
            bootstrap: self.plan.known[node].iter().map(|other| self.named_address(*other)).collect(),
            listen: vec![address(node)],
            announce: Vec::new(),
            peers_file: None,
            trusted_nets: TrustedNets::default(),
            discovery: self.plan.discovery,
            reach: Default::default(),
        }
    }

    fn named_address(&self, node: usize) -> Multiaddr {
        let peer: Option<PeerId> = self.identities[node].key().to_string().parse().ok();
        peer.map_or_else(|| address(node), |peer| address(node).with(Protocol::P2p(peer)))
    }

    /// Writes the updates, in turns, when the world stands.
    async fn writes(&self) -> Result<(), Stop> {
        match self.scenario.workload.at {
            Some(at) => sleep_until(self.started + at).await,
            None => self.formed().await?,
        }
        let began = Instant::now();
        let workload = &self.scenario.workload;
        for update in 0..workload.updates {
            if let Some(rate) = workload.rate {
                let wait_ms = (update as f64 * 1_000.0 / rate).round();
                sleep_until(began + Duration::from_millis(wait_ms as u64)).await;
            }
            self.write(update).await.map_err(Stop::Failed)?;
        }
        Ok(())
    }

    async fn write(&self, update: usize) -> Result<(), String> {
        let author = self.plan.authors[update % self.plan.authors.len()];
        let handle = self.nodes.borrow()[author].as_ref().map(|running| running.handle.clone());
        let handle = handle.ok_or("an author has not started; write later")?;
        let offer = offer(update, self.scenario.workload.record_bytes, &self.identities[author])
            .map_err(|error| error.to_string())?;
        let answers = handle.register(None, vec![offer]).await.map_err(|error| error.message)?;
        if let Some(Err(refusal)) = answers.into_iter().next() {
            return Err(format!("update {update} was refused: {} ({})", refusal.message, refusal.code));
        }
        self.notebook.written(update);
        Ok(())
    }

    /// Waits until every node that has started has a peer in its gossip mesh.
    async fn formed(&self) -> Result<(), Stop> {
        let present = self.started + Duration::from_millis(self.plan.present_ms);
        sleep_until(present + WARM_UP).await;
        loop {
            let mut lonely = Vec::new();
            for (node, handle) in self.handles() {
                let health = aop::host::HealthClient::new(handle.clone());
                let none = aop::host::HttpReadings::default();
                let metrics = health
                    .metrics(aop::telemetry::exposition::Format::Text, &none)
                    .await
                    .map_err(|error| Stop::Failed(error.message))?;
                if mesh_peers(&metrics) == 0 {
                    lonely.push(node);
                }
            }
            if lonely.is_empty() {
                return Ok(());
            }
            if present.elapsed() >= FORMED_BY {
                let detail =
                    format!("{} nodes without a mesh peer, node {} among them", lonely.len(), lonely[0]);
                return Err(Stop::Broken(self.broken("mesh-formed", Missing::Progress, detail)));
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// Whether what was promised came true in the end.
    async fn judge(&self) -> Result<Option<Broken>, String> {
        let agreed = self.notebook.is_complete();
        if !agreed && self.scenario.until.is_none() {
            let detail = "some node lacks an update long after the last write and the last fault".to_owned();
            return Ok(Some(self.broken("convergence", Missing::Progress, detail)));
        }
        let mut registries: Vec<(String, String, usize)> = Vec::new();
        for (node, handle) in self.handles() {
            let status = handle.status().await.map_err(|error| error.message)?;
            registries.extend(status.zones.into_iter().map(|zone| (zone.as_of, zone.fingerprint, node)));
        }
        let (_, first, _) = registries.first().cloned().unwrap_or_default();
        let other = registries.iter().find(|(_, fingerprint, _)| *fingerprint != first);
        Ok(other.filter(|_| agreed).map(|(_, _, node)| {
            let detail = format!("node {node} holds every update, and yet another registry than node 0");
            self.broken("agreement", Missing::Safety, detail)
        }))
    }

    fn handles(&self) -> Vec<(usize, aop::host::Handle)> {
        let nodes = self.nodes.borrow();
        let running = nodes.iter().enumerate().filter_map(|(node, running)| Some((node, running.as_ref()?)));
        running.map(|(node, running)| (node, running.handle.clone())).collect()
    }

    fn broken(&self, check: &str, missing: Missing, detail: String) -> Broken {
        Broken { check: check.into(), at_ms: self.started.elapsed().as_millis() as u64, detail, missing }
    }
}

/// Why a run ends early.
enum Stop {
    /// A promise was not kept.
    Broken(Broken),
    /// It cannot be made.
    Failed(String),
}

fn identity(seed: u64, node: usize) -> Identity {
    let mut hash = Sha256::new_with_prefix(b"aop-mesh-node");
    hash.update(seed.to_be_bytes());
    hash.update((node as u64).to_be_bytes());
    Identity::from_seed(hash.finalize().into())
}

/// Peers in the gossip mesh of the one zone there is.
fn mesh_peers(metrics: &str) -> u64 {
    let gauge = metrics.lines().find_map(|line| line.strip_prefix("aop_gossip_mesh_peers{zone=\".\"} "));
    gauge.and_then(|number| number.parse().ok()).unwrap_or(0)
}
