//! The simulated interpreter: many real [`Node`]s on one virtual clock and a faulty network.
//!
//! A run is a function of its seed: events are ordered by (time, sequence number), every choice is drawn from one seeded
//! generator, nothing iterates in an order that memory decides. Checkers are always on; the first broken promise ends the run
//! and says how to replay it.
//!
//! A [`World`] is what its users see of it; the `engine` moves it, and only routes. Each part owns its state and is given the
//! others as it needs them. `fabric` is what a world is made of: the `kernel` (`clock`, `queue`, randomness, and what is noted of
//! a run: `trace`, `event_log`, `metrics`), the hosts (`nodes`, `sim_node`, `disk`), the `network` between them and the `mesh`
//! over that. Beside it stand the `adversary`, the `calls` of agents, the `questions` of clients and the `checkers`. `fault` is
//! what can go wrong, `clients` what is asked of nodes, `owned` what keys of zones grant, `plan` a whole run drawn from a seed.
//! Scenarios, the epidemic model and reports are the laboratory's (`lab`), a client of this one.

mod adversary;
mod calls;
mod checkers;
mod clients;
mod clock;
mod disk;
mod engine;
mod event_log;
mod fabric;
mod fault;
mod kernel;
mod mesh;
mod meshes;
mod metrics;
mod network;
mod nodes;
mod owned;
mod plan;
mod questions;
mod queue;
pub mod regions;
mod setup;
mod sim_node;
mod trace;

use std::collections::BTreeMap;

use rand::RngExt;

pub use adversary::{AdversaryReport, Behaviour, Names};
pub use calls::{CallConditions, CallCounts, CallEnding, ClientCall, HostTraits, WorkLength};
pub use checkers::{Check, Promises, ReferenceModel, Violation};
pub use clients::ClientOp;
pub use clock::START;
pub use fault::Fault;
pub use metrics::{RunMetrics, Update};
pub use network::{Conditions, Counts, Graph, LossMode};
pub use owned::Granted;
pub use plan::{
    Plan, play, play_calls, play_calls_told, play_hostile, play_hostile_told, play_told, play_tree,
    play_tree_told, play_zoned, play_zoned_told,
};
pub use questions::{AnswerCounts, Asked, Listing};
pub use setup::{Setup, ZoneSetup};
pub use sim_node::RestartFrom;

use crate::proto::identity::{Identity, PeerKey};
use crate::proto::io::{Command, Reply};
use crate::proto::name::ZoneName;
use crate::proto::node::Node;
use crate::proto::time::Timestamp;
use adversary::Adversary;
use calls::CallWorld;
use checkers::Checkers;
use engine::{CHECK_MS, Engine};
use fabric::Fabric;
use kernel::Kernel;
use mesh::Mesh;
use network::{Network, Topology};
use nodes::Nodes;
use questions::Questions;
use queue::Due;
use regions::Regions;
use sim_node::SimNode;

/// Events of one virtual millisecond, for each node; more is a loop. When ten thousand nodes start at once, each has some
/// dozens.
const STEPS_A_MS_MAX: u64 = 10_000;

/// How a run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Hash over everything delivered and decided.
    pub trace: u64,
    /// Events.
    pub steps: u64,
    /// Messages.
    pub counts: Counts,
    /// Acknowledged writes.
    pub acknowledged: u64,
    /// Refused writes, by code.
    pub refused: BTreeMap<&'static str, u64>,
    /// What became of calls.
    pub calls: CallCounts,
}

/// Many nodes, one clock, one network.
pub struct World {
    engine: Engine,
}

impl World {
    /// Nodes that are all down; start them with [`World::start`].
    pub fn new(seed: u64, setup: Setup) -> World {
        let mut kernel = Kernel::new(seed, setup.nodes);
        let rng = &mut kernel.rng;
        // Who draws first decides what the others draw: in another order every seed is another run.
        // Keys, places, links and skews are drawn in this order: another would be other worlds under the same seeds.
        let identities: Vec<Identity> = (0..setup.nodes).map(|_| Identity::from_seed(rng.random())).collect();
        let keys: Vec<PeerKey> = identities.iter().map(Identity::key).collect();
        let topology = setup.regions.map(|Regions::Cloud8| Topology::spread(setup.nodes, rng));
        let network = Network::new(&setup, topology, rng);
        let nodes = identities
            .into_iter()
            .enumerate()
            .map(|(at, identity)| {
                let skew = rng.random_range(-setup.skew_ms_max..=setup.skew_ms_max);
                let others = network.links.neighbours(at).map(|other| keys[other]);
                let bootstrap_peers = if setup.bootstrapped { others.collect() } else { Vec::new() };
                let config = setup.config_of(at, keys[at], bootstrap_peers);
                SimNode::new(identity, config, setup.grants_of(at, keys[at]), skew)
            })
            .collect();
        // Planned before anything else: at its time it comes before what was planned later.
        kernel.schedule(CHECK_MS, Due::Check);
        let nodes = Nodes::new(nodes, &setup);
        let engine = Engine {
            fabric: Fabric { kernel, nodes, network, mesh: Mesh::default() },
            adversary: Adversary::new(setup.nodes),
            calls: CallWorld::new(seed, setup.nodes, setup.calls),
            checkers: Checkers::of(&setup),
            questions: Questions::new(setup.nodes),
            awaited: BTreeMap::new(),
        };
        World { engine }
    }

    /// Everything is repaired, ten minutes pass without faults or work, and all promises are checked.
    pub fn settle(&mut self) -> Result<(), Violation> {
        self.engine.fabric.repair();
        self.engine.calls.repair(&mut self.engine.fabric);
        self.run(600_000)?;
        // Half past a minute, so that skewed clocks round to the same one.
        self.run(60_000 - (self.engine.fabric.kernel.wall() + 30_000) % 60_000)?;
        self.check_settled()
    }

    /// Lets virtual time pass.
    pub fn run(&mut self, for_ms: u64) -> Result<(), Violation> {
        let until = self.now_ms() + for_ms;
        // A start of the whole world is a burst in proportion to its size, and no loop.
        let steps_a_ms = STEPS_A_MS_MAX * self.size() as u64;
        while let Some(due) = self.engine.fabric.kernel.next(until, steps_a_ms) {
            self.engine.dispatch(due);
        }
        // Time passes also where nothing is due.
        self.engine.fabric.kernel.clock.advance(until);
        self.engine.fabric.kernel.violated()
    }

    /// Checks now what must hold at any time.
    pub fn check(&mut self) -> Result<(), Violation> {
        self.engine.checkers.check_all(&mut self.engine.fabric);
        self.engine.fabric.kernel.violated()
    }

    /// Checks what must hold once the world is repaired and quiet.
    pub fn check_settled(&mut self) -> Result<(), Violation> {
        self.engine.checkers.check_settled(&mut self.engine.fabric);
        self.engine.fabric.kernel.violated()
    }

    /// What does not hold yet of what must hold in the end.
    pub fn unsettled(&mut self) -> Option<(Check, String)> {
        self.engine.checkers.unsettled(&mut self.engine.fabric)
    }

    /// What is served in the end, whatever the reason.
    pub fn promises(&mut self) -> Promises {
        self.engine.checkers.promises(&mut self.engine.fabric)
    }

    /// Starts a node that is down.
    pub fn start(&mut self, node: usize, from: RestartFrom) {
        self.engine.fabric.kernel.schedule(0, Due::Start(node, from));
    }

    /// Asks a node something, now; [`World::take_reply`] has the answer when it comes.
    pub fn ask(&mut self, node: usize, command: Command) -> u64 {
        self.engine.inquire(node, command)
    }

    /// The answer to a question, once it has come.
    pub fn take_reply(&mut self, number: u64) -> Option<Reply> {
        self.engine.awaited.get_mut(&number)?.take()
    }

    /// A client of a node wants something in the node's home zone, now.
    pub fn submit(&mut self, node: usize, operation: ClientOp) {
        let zone = self.engine.fabric.nodes[node].home_zone();
        self.submit_in(0, node, zone, operation);
    }

    /// A client of a node wants something in a zone, in some milliseconds.
    pub fn submit_in(&mut self, in_ms: u64, node: usize, zone: ZoneName, operation: ClientOp) {
        self.engine.fabric.kernel.schedule(in_ms, Due::Client(node, Box::new((zone, operation))));
    }

    /// How a node runs its agents from now on.
    pub fn set_host_traits(&mut self, node: usize, traits: HostTraits) {
        self.engine.calls.set_traits(node, traits);
    }

    /// What became of each call so far.
    pub fn call_ends(&self) -> impl Iterator<Item = &CallEnding> {
        self.engine.calls.law().ends()
    }

    /// A client of a node calls an agent of another, in some milliseconds.
    pub fn call_in(&mut self, in_ms: u64, node: usize, call: ClientCall) {
        self.engine.fabric.kernel.schedule(in_ms, CallWorld::client(node, call));
    }

    /// A client of a node asks something, in some milliseconds; its answer is judged and counted.
    pub fn question_in(&mut self, in_ms: u64, node: usize, asked: Asked) {
        self.engine.fabric.kernel.schedule(in_ms, Due::Question(node, Box::new(asked)));
    }

    /// What became of the questions so far.
    pub fn questions(&self) -> &AnswerCounts {
        self.engine.questions.counts()
    }

    /// The zones of which a node is a member by its settings, its home first.
    pub fn member_of(&self, node: usize) -> &[ZoneName] {
        &self.engine.fabric.nodes[node].config.zones
    }

    /// Something goes wrong, now.
    pub fn fault(&mut self, fault: Fault) {
        self.fault_in(0, fault);
    }

    /// Something goes wrong, in some milliseconds.
    pub fn fault_in(&mut self, in_ms: u64, fault: Fault) {
        self.engine.fabric.kernel.schedule(in_ms, Due::Fault(Box::new(fault)));
    }

    /// Wall time passes while every node sleeps: all timers are late, no message moves.
    pub fn skip(&mut self, for_ms: u64) {
        self.engine.fabric.kernel.clock.skip(for_ms);
    }

    /// Changes how a node deals with others, now.
    pub fn corrupt(&mut self, node: usize, behaviour: Behaviour) {
        self.fault(Fault::Corrupt(node, behaviour));
    }

    /// A hostile node gives a message of its own making to the mesh, now.
    pub fn inject(&mut self, node: usize, bytes: Vec<u8>) {
        let has_records = !adversary::is_beacon(&bytes);
        let zone = self.engine.fabric.nodes[node].home_zone();
        self.engine.fabric.publish(node, zone, bytes, has_records);
    }

    /// What hostile nodes came to so far.
    pub fn adversary_report(&self) -> AdversaryReport {
        self.engine.adversary.report(&self.engine.fabric)
    }

    /// Virtual milliseconds since the start.
    pub fn now_ms(&self) -> u64 {
        self.engine.fabric.kernel.now()
    }

    /// Number of nodes.
    pub fn size(&self) -> usize {
        self.engine.fabric.nodes.count()
    }

    /// The region of each node; nothing without regions.
    pub fn regions(&self) -> &[u8] {
        self.engine.fabric.network.regions()
    }

    /// Whether a node runs and does not sleep.
    pub fn is_up(&self, node: usize) -> bool {
        self.engine.fabric.is_up(node)
    }

    /// Whether a node deals with others as the protocol says.
    pub fn is_honest(&self, node: usize) -> bool {
        self.engine.fabric.nodes.is_honest(node)
    }

    /// Nodes that run and are honest.
    pub fn nodes(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.engine.fabric.nodes.running()
    }

    /// A running node and the time on its clock; none while it is down.
    pub fn node(&mut self, node: usize) -> Option<(&mut Node, Timestamp)> {
        self.engine.fabric.read(node)
    }

    /// What is counted of this run.
    pub fn metrics(&self) -> &RunMetrics {
        &self.engine.fabric.kernel.metrics
    }

    /// What clients were told, and what nodes wrote.
    pub fn reference(&self) -> &ReferenceModel {
        &self.engine.checkers.reference
    }

    /// From now on the run is told.
    pub fn listen(&mut self) {
        self.engine.fabric.kernel.log.begin();
    }

    /// What was told of the run.
    pub fn told(&mut self) -> Vec<String> {
        self.engine.fabric.kernel.log.take()
    }

    /// What happened so far.
    pub fn outcome(&self) -> Outcome {
        let reference = &self.engine.checkers.reference;
        Outcome {
            trace: self.engine.fabric.kernel.trace.value(),
            steps: self.engine.fabric.kernel.steps(),
            counts: self.engine.fabric.network.counts,
            acknowledged: reference.acknowledged,
            refused: reference.refused.clone(),
            calls: self.engine.calls.law().counts(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_millisecond_that_does_not_end_ends_the_run_and_a_long_run_does_not() {
        let mut world = World::new(1, Setup { nodes: 1, ..Setup::default() });
        let idle = |world: &mut World, at: u64, many: u64| {
            let due = || Due::Timer { node: 0, generation: u64::MAX };
            (0..many).for_each(|_| world.engine.fabric.kernel.schedule(at, due()));
        };
        (1..=3).for_each(|at| idle(&mut world, at, STEPS_A_MS_MAX));
        assert_eq!(world.run(10), Ok(()));
        idle(&mut world, 1, STEPS_A_MS_MAX + 1);
        let violation = world.run(10).expect_err("a loop");
        assert_eq!(violation.check, Check::QueuesBounded);
    }
}
