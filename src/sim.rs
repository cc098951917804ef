//! The simulated interpreter: many real [`Node`]s on one virtual clock and a faulty network.
//!
//! A run is a function of its seed: events are ordered by (time, sequence number), every choice is drawn from one seeded
//! generator, nothing iterates in an order that memory decides. `World::perform` is the counterpart of the live
//! driver's `perform`, same arms in the same order. Checkers are always on; the first broken promise ends the run and says
//! how to replay it.
//!
//! A [`World`] only routes; each part owns its state and is given the others as it needs them. `fabric` is what a world is
//! made of: the `kernel` (`clock`, `queue`, randomness, and what is noted of a run: `trace`, `event_log`, `metrics`), the
//! hosts (`nodes`, `sim_node`, `disk`), the `network` between them and the `mesh` over that. Beside it stand the `adversary`, the `calls` of agents and
//! the `checkers`. `fault` is what can go wrong, `clients` what is asked of nodes, `plan` a whole run drawn from a seed.
//! Scenarios, the epidemic model and reports are the laboratory's (`lab`), a client of this one.

mod adversary;
mod calls;
mod checkers;
mod clients;
mod clock;
mod disk;
mod event_log;
mod fabric;
mod fault;
mod kernel;
mod mesh;
mod metrics;
mod network;
mod nodes;
mod plan;
mod queue;
pub mod regions;
mod setup;
mod sim_node;
mod trace;

use std::collections::BTreeMap;

use rand::RngExt;

pub use adversary::{AdversaryReport, Behaviour};
pub use calls::{CallConditions, CallCounts, ClientCall};
pub use checkers::{Check, Promises, ReferenceModel, Violation};
pub use clients::ClientOp;
pub use clock::START;
pub use fault::Fault;
pub use metrics::{RunMetrics, Update};
pub use network::{Conditions, Counts, Graph, LossMode};
pub use plan::{
    Plan, play, play_calls, play_calls_told, play_hostile, play_hostile_told, play_told, play_zoned,
    play_zoned_told,
};
pub use setup::{Setup, ZoneSetup};
pub use sim_node::RestartFrom;

use crate::proto::identity::{Identity, PeerKey};
use crate::proto::io::{GossipId, Input, Output, Verdict};
use crate::proto::name::ZoneName;
use crate::proto::node::Node;
use crate::proto::time::Timestamp;
use adversary::Adversary;
use calls::CallWorld;
use checkers::Checkers;
use event_log::At;
use fabric::Fabric;
use kernel::Kernel;
use mesh::Mesh;
use network::{Network, Payload, Topology};
use nodes::Nodes;
use queue::Due;
use regions::Regions;
use sim_node::{Firing, SimNode};

/// Outputs one input may cause; the largest honest answer needs a few hundred.
const OUTPUTS_MAX: usize = 100_000;
/// Events of one virtual millisecond, for each node; more is a loop. When ten thousand nodes start at once, each has some
/// dozens.
const STEPS_A_MS_MAX: u64 = 10_000;
/// Virtual milliseconds between two checks of what must hold at any time.
const CHECK_MS: u64 = 20_000;

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
    fabric: Fabric,
    adversary: Adversary,
    calls: CallWorld,
    checkers: Checkers,
}

impl World {
    /// Nodes that are all down; start them with [`World::start`].
    pub fn new(seed: u64, setup: Setup) -> World {
        let mut kernel = Kernel::new(seed, setup.nodes);
        let rng = &mut kernel.rng;
        let identities: Vec<Identity> = (0..setup.nodes).map(|_| Identity::from_seed(rng.random())).collect();
        let keys: Vec<PeerKey> = identities.iter().map(Identity::key).collect();
        let topology = setup.regions.map(|Regions::Cloud8| Topology::spread(setup.nodes, rng));
        let network = Network::new(setup.nodes, setup.conditions, setup.graph, topology, rng);
        let nodes = identities
            .into_iter()
            .enumerate()
            .map(|(at, identity)| {
                let skew = rng.random_range(-setup.skew_ms_max..=setup.skew_ms_max);
                let others = network.links.neighbours(at).map(|other| keys[other]);
                let bootstrap_peers = if setup.bootstrapped { others.collect() } else { Vec::new() };
                SimNode::new(identity, setup.config_of(at, bootstrap_peers), skew)
            })
            .collect();
        kernel.schedule(CHECK_MS, Due::Check);
        let nodes = Nodes::new(nodes, setup.quota);
        World {
            fabric: Fabric { kernel, nodes, network, mesh: Mesh::default() },
            adversary: Adversary::new(setup.nodes),
            calls: CallWorld::new(seed, setup.nodes, setup.calls),
            checkers: Checkers::default(),
        }
    }

    /// Everything is repaired, ten minutes pass without faults or work, and all promises are checked.
    pub fn settle(&mut self) -> Result<(), Violation> {
        self.fabric.repair();
        self.calls.repair(&mut self.fabric);
        self.run(600_000)?;
        // Half past a minute, so that skewed clocks round to the same one.
        self.run(60_000 - (self.fabric.kernel.wall() + 30_000) % 60_000)?;
        self.check_settled()
    }

    /// Lets virtual time pass.
    pub fn run(&mut self, for_ms: u64) -> Result<(), Violation> {
        let until = self.now_ms() + for_ms;
        let steps_a_ms = STEPS_A_MS_MAX * self.size() as u64;
        while let Some(due) = self.fabric.kernel.next(until, steps_a_ms) {
            self.dispatch(due);
        }
        self.fabric.kernel.clock.advance(until);
        self.fabric.kernel.violated()
    }

    /// Checks now what must hold at any time.
    pub fn check(&mut self) -> Result<(), Violation> {
        self.checkers.check_all(&mut self.fabric);
        self.fabric.kernel.violated()
    }

    /// Checks what must hold once the world is repaired and quiet.
    pub fn check_settled(&mut self) -> Result<(), Violation> {
        self.checkers.check_settled(&mut self.fabric);
        self.fabric.kernel.violated()
    }

    /// What does not hold yet of what must hold in the end.
    pub fn unsettled(&mut self) -> Option<(Check, String)> {
        self.checkers.unsettled(&mut self.fabric)
    }

    /// What is served in the end, whatever the reason.
    pub fn promises(&mut self) -> Promises {
        self.checkers.promises(&mut self.fabric)
    }

    /// Starts a node that is down.
    pub fn start(&mut self, node: usize, from: RestartFrom) {
        self.fabric.kernel.schedule(0, Due::Start(node, from));
    }

    /// A client of a node wants something in the node's home zone, now.
    pub fn submit(&mut self, node: usize, operation: ClientOp) {
        let zone = self.fabric.nodes[node].home_zone();
        self.submit_in(0, node, zone, operation);
    }

    /// A client of a node wants something in a zone, in some milliseconds.
    pub fn submit_in(&mut self, in_ms: u64, node: usize, zone: ZoneName, operation: ClientOp) {
        self.fabric.kernel.schedule(in_ms, Due::Client(node, Box::new((zone, operation))));
    }

    /// A client of a node calls an agent of another, in some milliseconds.
    pub fn call_in(&mut self, in_ms: u64, node: usize, call: ClientCall) {
        self.fabric.kernel.schedule(in_ms, CallWorld::client(node, call));
    }

    /// The zones of which a node is a member by its settings, its home first.
    pub fn member_of(&self, node: usize) -> &[ZoneName] {
        &self.fabric.nodes[node].config.zones
    }

    /// Something goes wrong, now.
    pub fn fault(&mut self, fault: Fault) {
        self.fault_in(0, fault);
    }

    /// Something goes wrong, in some milliseconds.
    pub fn fault_in(&mut self, in_ms: u64, fault: Fault) {
        self.fabric.kernel.schedule(in_ms, Due::Fault(Box::new(fault)));
    }

    /// Wall time passes while every node sleeps: all timers are late, no message moves.
    pub fn skip(&mut self, for_ms: u64) {
        self.fabric.kernel.clock.skip(for_ms);
    }

    /// Changes how a node deals with others, now.
    pub fn corrupt(&mut self, node: usize, behaviour: Behaviour) {
        self.fault(Fault::Corrupt(node, behaviour));
    }

    /// A hostile node gives a message of its own making to the mesh, now.
    pub fn inject(&mut self, node: usize, bytes: Vec<u8>) {
        let has_records = !adversary::is_beacon(&bytes);
        let zone = self.fabric.nodes[node].home_zone();
        self.fabric.publish(node, zone, bytes, has_records);
    }

    /// What hostile nodes came to so far.
    pub fn adversary_report(&self) -> AdversaryReport {
        self.adversary.report(&self.fabric)
    }

    /// Virtual milliseconds since the start.
    pub fn now_ms(&self) -> u64 {
        self.fabric.kernel.now()
    }

    /// Number of nodes.
    pub fn size(&self) -> usize {
        self.fabric.nodes.count()
    }

    /// The region of each node; nothing without regions.
    pub fn regions(&self) -> &[u8] {
        self.fabric.network.regions()
    }

    /// Whether a node runs and does not sleep.
    pub fn is_up(&self, node: usize) -> bool {
        self.fabric.is_up(node)
    }

    /// Whether a node deals with others as the protocol says.
    pub fn is_honest(&self, node: usize) -> bool {
        self.fabric.nodes.is_honest(node)
    }

    /// Nodes that run and are honest.
    pub fn nodes(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.fabric.nodes.running()
    }

    /// A running node and the time on its clock; none while it is down.
    pub fn node(&mut self, node: usize) -> Option<(&mut Node, Timestamp)> {
        self.fabric.read(node)
    }

    /// What is counted of this run.
    pub fn metrics(&self) -> &RunMetrics {
        &self.fabric.kernel.metrics
    }

    /// What clients were told, and what nodes wrote.
    pub fn reference(&self) -> &ReferenceModel {
        &self.checkers.reference
    }

    /// From now on the run is told.
    pub fn listen(&mut self) {
        self.fabric.kernel.log.begin();
    }

    /// What was told of the run.
    pub fn told(&mut self) -> Vec<String> {
        self.fabric.kernel.log.take()
    }

    /// What happened so far.
    pub fn outcome(&self) -> Outcome {
        let reference = &self.checkers.reference;
        Outcome {
            trace: self.fabric.kernel.trace.value(),
            steps: self.fabric.kernel.steps(),
            counts: self.fabric.network.counts,
            acknowledged: reference.acknowledged,
            refused: reference.refused.clone(),
            calls: self.calls.counts(),
        }
    }

    fn dispatch(&mut self, due: Due) {
        let Fabric { kernel, nodes, network, .. } = &mut self.fabric;
        let now = kernel.now();
        // What concerns a sleeping node waits until it wakes.
        let asleep = due.needs_awake().map(|at| nodes[at].suspended_until).filter(|until| *until > now);
        if let Some(until) = asleep {
            return kernel.schedule(until - now, due);
        }
        match due {
            Due::Timer { node, generation } => self.fire(node, generation),
            Due::Tell { node, incarnation, input } => {
                if nodes[node].incarnation == incarnation {
                    self.tell(node, *input);
                }
            }
            Due::Arrive { to, link, epoch, payload } => {
                self.arrive(to as usize, (link as usize, epoch), payload)
            }
            Due::Connect { link } => {
                for (node, input) in network.connect(link, nodes, kernel) {
                    self.tell(node, input);
                }
            }
            Due::Closed { link, epoch } => network.closed(link, epoch, nodes, kernel),
            Due::Start(node, from) => self.boot(node, from),
            Due::Resume(node) => {
                if nodes[node].node.is_some() {
                    kernel.metrics.wakes(node, now);
                    self.tell(node, Input::Resumed);
                }
                self.fabric.connect_all(node);
            }
            Due::Fault(fault) => self.inject_fault(*fault),
            Due::Client(node, wanted) => self.ask(node, wanted.1, &wanted.0),
            Due::AdversaryTick(node) => {
                if let Some(tick) = self.adversary.tick(node, &mut self.fabric) {
                    tick.input.into_iter().for_each(|input| self.tell(node, input));
                    self.fabric.kernel.schedule(tick.again_ms, Due::AdversaryTick(node));
                }
            }
            Due::Call(event) => self.calls.handle(*event, &mut self.fabric),
            Due::Check => {
                self.checkers.check_some(&mut self.fabric);
                self.calls.check(&mut self.fabric);
                self.fabric.kernel.schedule(CHECK_MS, Due::Check);
            }
        }
    }

    fn inject_fault(&mut self, fault: Fault) {
        let Fabric { kernel, nodes, network, .. } = &mut self.fabric;
        kernel.log.fault(kernel.clock.now(), &fault);
        match fault {
            Fault::Part(groups) => network.part(groups, nodes, kernel),
            Fault::Crash { node, from, down_ms } => {
                if nodes[node].node.is_some() {
                    self.fabric.crash(node);
                    self.checkers.stopped(node);
                    self.calls.crash(node, &mut self.fabric);
                }
                self.fabric.kernel.schedule(down_ms, Due::Start(node, from));
            }
            Fault::BackUp(node) => nodes[node].back_up(kernel.steps()),
            Fault::Jump(node, error_ms) => nodes[node].clock.set_error(error_ms),
            Fault::Suspend(node, for_ms) => {
                self.calls.suspend(node, kernel.now() + for_ms);
                self.fabric.suspend(node, for_ms);
            }
            Fault::Skip(for_ms) => self.skip(for_ms),
            Fault::Start(node) => self.start(node, RestartFrom::Disk),
            Fault::Corrupt(node, behaviour) => self.adversary.corrupt(node, behaviour, &mut self.fabric),
            Fault::Eclipse(victim) => network.eclipse(victim, nodes, kernel),
        }
    }

    /// A node starts, if it is down.
    fn boot(&mut self, at: usize, from: RestartFrom) {
        let Fabric { kernel, nodes, .. } = &mut self.fabric;
        let seed = kernel.rng.random();
        if nodes[at].node.is_some() {
            return;
        }
        kernel.log.start(kernel.clock.now(), at, from);
        self.checkers.started(at, from, nodes);
        let unread = self.fabric.boot(at, from, seed);
        if unread > 0 {
            let detail = format!("node {at} cannot read {unread} of its own rows");
            self.fabric.kernel.fail(Check::Durable, detail);
        }
        self.calls.boot(at, &self.fabric);
        self.drain(at);
        self.fabric.connect_all(at);
    }

    /// A client asks something of a node; one that is down does not hear it.
    fn ask(&mut self, at: usize, operation: ClientOp, zone: &ZoneName) {
        if self.fabric.nodes[at].node.is_some() {
            let (operations, command) = operation.command(zone);
            let id = self.checkers.reference.expect_reply(operations);
            self.tell(at, Input::Command { id, command });
        }
    }

    fn fire(&mut self, at: usize, generation: u64) {
        let Fabric { kernel, nodes, .. } = &mut self.fabric;
        match nodes[at].fires(generation, kernel.now()) {
            Firing::Stale => {}
            Firing::Spinning => kernel.fail(Check::QueuesBounded, format!("the timer of node {at} spins")),
            Firing::Due => {
                kernel.trace.timer(kernel.clock.now(), at);
                nodes.handle_timeout(at, kernel.wall());
                self.drain(at);
            }
        }
    }

    /// A message reached the end of its link.
    fn arrive(&mut self, to: usize, (link, epoch): (usize, u32), payload: Payload) {
        let Fabric { kernel, nodes, network, mesh } = &mut self.fabric;
        let Some((from, payload)) = network.arrive(to, link, epoch, payload, kernel) else { return };
        match payload {
            Payload::Packet(packet) => {
                if let Some(input) = mesh.arrive(from, to, packet, nodes, kernel) {
                    self.tell(to, input);
                    if self.fabric.mesh.awaiting().is_some() {
                        self.fabric.kernel.fail(Check::QueuesBounded, format!("node {to} gives no verdict"));
                    }
                }
            }
            Payload::Frame(frame) => {
                if let Some(input) = network.input_of(*frame, from, nodes) {
                    self.tell(to, input);
                }
            }
        }
    }

    fn tell(&mut self, at: usize, input: Input) {
        let Fabric { kernel, nodes, .. } = &mut self.fabric;
        let (now, wall) = (kernel.now(), kernel.wall());
        kernel.trace.input(now, at, &input);
        kernel.log.input(At { node: at, now, wall }, &input, nodes);
        let Some(input) = self.adversary.filter_input(at, input, &mut self.fabric) else { return };
        self.fabric.nodes.handle(at, wall, input);
        self.drain(at);
    }

    /// Performs everything a node wants done, then sets its timer.
    fn drain(&mut self, at: usize) {
        for _ in 0..OUTPUTS_MAX {
            let Fabric { kernel, nodes, .. } = &mut self.fabric;
            let Some(output) = nodes.poll_output(at) else {
                return self.fabric.set_timer(at);
            };
            let (now, wall) = (kernel.now(), kernel.wall());
            kernel.log.output(At { node: at, now, wall }, &output, nodes);
            kernel.trace.output(now, at, &output);
            self.perform(at, output);
        }
        self.fabric.kernel.fail(Check::QueuesBounded, format!("node {at} never runs out of outputs"));
    }

    /// Interprets one output. Read side by side with the live driver's `perform`.
    fn perform(&mut self, at: usize, output: Output) {
        let (fabric, checkers) = (&mut self.fabric, &mut self.checkers);
        let Some(output) = self.adversary.tamper_output(at, output, fabric) else { return };
        match output {
            Output::Persist(writes) => {
                for write in writes {
                    checkers.note_write(at, &write, fabric);
                    fabric.nodes[at].disk.write(fabric.kernel.now(), write);
                }
            }
            Output::Publish { zone, bytes } => {
                let has_records = checkers.check_persisted(at, &bytes, fabric);
                fabric.publish(at, zone, bytes, has_records);
            }
            Output::Verdict { id, verdict } => self.forward(at, id, verdict),
            Output::Request { conversation, peer, protocol, bytes } => {
                fabric.request(at, conversation, &peer, protocol, bytes);
            }
            Output::EndConversation { conversation } => fabric.network.close_stream(at, conversation),
            Output::Respond { id, bytes } => match fabric.network.take_asked(id) {
                Some(stream) => fabric.respond(stream, bytes),
                None => {
                    fabric.kernel.fail(Check::QueuesBounded, format!("node {at} answers a question twice"))
                }
            },
            Output::Reply { id, reply } => checkers.note_reply(at, id, reply, fabric),
            // Who is found is who is linked: the graph of a world does not change.
            Output::JoinZone(_) | Output::LeaveZone(_) | Output::Provide(_) | Output::FindPeers(_) => {}
            Output::Penalize { peer, offence } => {
                self.adversary.note_blame(at, &peer, offence.text(), fabric);
            }
            Output::Event(event) => {
                checkers.check_event(at, &event, fabric);
                let (host, kernel) = (&fabric.nodes[at], &mut fabric.kernel);
                kernel.metrics.event(at, &event, &host.zones, kernel.clock.now());
            }
        }
    }

    /// A message is forwarded only after its verdict. Nobody honest may be blamed.
    fn forward(&mut self, at: usize, id: GossipId, verdict: Verdict) {
        let Some(awaiting) = self.fabric.mesh.take_awaiting(at, id) else {
            let detail = format!("node {at} judges a message twice");
            return self.fabric.kernel.fail(Check::QueuesBounded, detail);
        };
        let (from, nodes) = (awaiting.from, &self.fabric.nodes);
        match verdict {
            Verdict::Accept => self.fabric.spread(at, Some(from), &awaiting.packet),
            Verdict::Ignore => {}
            Verdict::Reject if !(nodes.is_honest(at) && nodes.is_honest(from)) => {}
            Verdict::Reject => {
                let detail = format!("node {at} rejects a message of node {from}");
                self.fabric.kernel.fail(Check::NobodyBlamed, detail);
            }
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
            (0..many).for_each(|_| world.fabric.kernel.schedule(at, due()));
        };
        (1..=3).for_each(|at| idle(&mut world, at, STEPS_A_MS_MAX));
        assert_eq!(world.run(10), Ok(()));
        idle(&mut world, 1, STEPS_A_MS_MAX + 1);
        let violation = world.run(10).expect_err("a loop");
        assert_eq!(violation.check, Check::QueuesBounded);
    }
}
