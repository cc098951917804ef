//! The simulated interpreter: many real [`Node`]s on one virtual clock and a faulty network.
//!
//! A run is a function of its seed: events are ordered by (time, sequence number), every choice is drawn from one seeded
//! generator, nothing iterates in an order that memory decides. `World::perform` is the counterpart of the live
//! driver's `perform`, same arms in the same order. Checkers (`check`) are always on; the first broken promise ends
//! the run and says how to replay it.
//!
//! Files below: `links`, `mesh`, `network` and `regions` (who reaches whom and how), `machine`, `life` and `disk` (one computer),
//! `queue` (what is due), `fault` (what goes wrong, drawn from the seed), `hostile` (machines of an adversary), `workload` (what
//! clients do), `check` and `settle` (what must hold), `tally` (what is counted), `trace` (the hash of a run), `story` (a run as
//! text). Scenarios, the epidemic model and reports are the laboratory's (`lab`), a client of this one.

mod check;
mod disk;
mod fault;
mod hostile;
mod life;
mod links;
mod machine;
mod mesh;
mod network;
mod places;
mod queue;
pub mod regions;
mod settle;
mod story;
mod tally;
mod trace;
mod workload;

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use check::{Check, Reference, Violation};
pub use fault::{Fault, Plan};
pub use hostile::{Conduct, Hostilities};
pub use links::Graph;
pub use machine::Memory;
pub use mesh::LossMode;
pub use network::{Conditions, Counts};
pub use settle::Kept;
pub use tally::{Tally, Update};
pub use workload::Wish;

use crate::proto::config::Config;
use crate::proto::config::Quota;
use crate::proto::identity::{Identity, PeerKey};
use crate::proto::io::{Input, Output};
use crate::proto::memo::Memo;
use crate::proto::node::Node;
use crate::proto::time::Timestamp;
use machine::Machine;
use mesh::{Mesh, Packet};
use network::{Network, Toward};
use places::Places;
use queue::Queue;
use regions::Regions;
use story::Story;
use trace::Trace;

/// True time at which every run begins.
pub const START: Timestamp = Timestamp(1_800_000_000_000);
/// Outputs one input may cause; the largest honest answer needs a few hundred.
const OUTPUTS_MAX: usize = 100_000;
/// Times a timer may fire in one millisecond; an honest node asks for one or two.
const TIMERS_MAX: u32 = 100;
/// Events of one virtual millisecond, for each machine; more is a loop. When ten thousand nodes start at once, each has some
/// dozens.
const STEPS_A_MS_MAX: u64 = 10_000;
/// Virtual milliseconds between two checks of what must hold at any time.
const CHECK_MS: u64 = 20_000;

/// How a world begins.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Number of machines.
    pub machines: usize,
    /// Settings of every node; `bootstrap_peers` are set by [`Setup::bootstrapped`].
    pub config: Config,
    /// Constant clock errors are drawn from plus or minus this, milliseconds.
    pub skew_ms_max: i64,
    /// Whether the clocks of the machines it may be linked with judge a node's own.
    pub bootstrapped: bool,
    /// The network at the start.
    pub conditions: Conditions,
    /// Who may be linked with whom.
    pub graph: Graph,
    /// Where machines are; then latency is that between regions.
    pub regions: Option<Regions>,
    /// What the zone may hold at every node.
    pub quota: Quota,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            machines: 5,
            config: Config { expects_peers: true, ..Config::default() },
            skew_ms_max: 0,
            bootstrapped: false,
            conditions: Conditions::default(),
            graph: Graph::Random(Graph::DEGREE),
            regions: None,
            quota: Quota::default(),
        }
    }
}

/// Something that is due at a time.
enum Due {
    /// A machine's timer, if it is still the one that was set last.
    Timer { machine: usize, generation: u64 },
    /// Something for one run of a machine.
    Tell { machine: usize, incarnation: u64, input: Box<Input> },
    /// A message reaches the end of its link.
    Arrive { to: u32, link: u32, epoch: u32, cargo: Cargo },
    /// The ends of a link try to connect.
    Connect { link: usize },
    /// Both ends of a severed link notice.
    Closed { link: usize, epoch: u32 },
    /// A machine starts.
    Start(usize, Memory),
    /// A machine was suspended and works again.
    Resume(usize),
    /// Something goes wrong.
    Fault(Box<Fault>),
    /// A client wants something, somewhere.
    Wish(usize, Box<Wish>),
    /// A hostile machine does something by itself.
    Scheme(usize),
    /// What must hold at any time is checked.
    Check,
}

/// What travels over a link.
enum Cargo {
    /// A copy of a mesh message.
    Packet(Arc<Packet>),
    /// A part of a conversation.
    Frame(Box<Frame>),
}

/// A part of a conversation on its way.
struct Frame {
    stream: u64,
    toward: Toward,
    bytes: Vec<u8>,
}

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
}

/// Many nodes, one clock, one network.
pub struct World {
    seed: u64,
    rng: ChaCha8Rng,
    /// Virtual milliseconds since the start, as monotonic clocks count.
    now: u64,
    /// Wall time that passed while everything was suspended, milliseconds.
    skipped_ms: u64,
    queue: Queue,
    steps: u64,
    /// Steps before the present millisecond.
    steps_before: u64,
    machines: Vec<Machine>,
    by_key: BTreeMap<PeerKey, usize>,
    network: Network,
    mesh: Mesh,
    tally: Tally,
    /// Equal bytes are decoded, verified and held once in this world.
    memo: Memo,
    reference: Reference,
    trace: Trace,
    story: Story,
    quota: Quota,
    /// Times that an honest machine blamed a hostile one, by reason.
    blamed: BTreeMap<&'static str, u64>,
    violation: Option<Violation>,
}

impl World {
    /// Machines that are all down; start them with [`World::start`].
    pub fn new(seed: u64, setup: Setup) -> World {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let identities: Vec<Identity> =
            (0..setup.machines).map(|_| Identity::from_seed(rng.random())).collect();
        let keys: Vec<PeerKey> = identities.iter().map(Identity::key).collect();
        let places = setup.regions.map(|Regions::Cloud8| Places::spread(setup.machines, &mut rng));
        let network = Network::new(setup.machines, setup.conditions, setup.graph, places, &mut rng);
        let machines = identities
            .into_iter()
            .enumerate()
            .map(|(at, identity)| {
                let skew = rng.random_range(-setup.skew_ms_max..=setup.skew_ms_max);
                let others = network.links.neighbours(at).map(|other| keys[other]);
                let bootstrap_peers = if setup.bootstrapped { others.collect() } else { Vec::new() };
                Machine::new(identity, Config { bootstrap_peers, ..setup.config.clone() }, skew)
            })
            .collect();
        let mut world = World {
            seed,
            rng,
            now: 0,
            skipped_ms: 0,
            queue: Queue::default(),
            steps: 0,
            steps_before: 0,
            machines,
            by_key: keys.iter().enumerate().map(|(at, key)| (*key, at)).collect(),
            network,
            mesh: Mesh::default(),
            tally: Tally::new(setup.machines),
            memo: Memo::shared(),
            reference: Reference::default(),
            trace: Trace::default(),
            story: Story::default(),
            quota: setup.quota,
            blamed: BTreeMap::new(),
            violation: None,
        };
        world.schedule(CHECK_MS, Due::Check);
        world
    }

    /// Everything is repaired, ten minutes pass without faults or work, and all promises are checked.
    pub fn settle(&mut self) -> Result<(), Violation> {
        self.repair();
        self.run(600_000)?;
        // Half past a minute, so that skewed clocks round to the same one.
        self.run(60_000 - (START.0 + self.skipped_ms + self.now + 30_000) % 60_000)?;
        self.check_settled()
    }

    /// Lets virtual time pass.
    pub fn run(&mut self, for_ms: u64) -> Result<(), Violation> {
        let until = self.now + for_ms;
        while self.violation.is_none() {
            let Some((at, due)) = self.queue.pop(until) else { break };
            if at > self.now {
                self.steps_before = self.steps;
            }
            self.now = at;
            self.steps += 1;
            if self.steps - self.steps_before > STEPS_A_MS_MAX * self.machines.len() as u64 {
                self.fail(Check::QueuesBounded, "a millisecond does not end".into());
            }
            self.happen(due);
        }
        self.now = until;
        self.violated()
    }

    /// Checks now what must hold at any time.
    pub fn check(&mut self) -> Result<(), Violation> {
        self.check_all_machines();
        self.violated()
    }

    /// Starts a machine that is down.
    pub fn start(&mut self, machine: usize, memory: Memory) {
        self.schedule(0, Due::Start(machine, memory));
    }

    /// A client of a machine wants something, now.
    pub fn wish(&mut self, machine: usize, wish: Wish) {
        self.schedule(0, Due::Wish(machine, Box::new(wish)));
    }

    /// Something goes wrong, now.
    pub fn fault(&mut self, fault: Fault) {
        self.schedule(0, Due::Fault(Box::new(fault)));
    }

    /// Wall time passes while every machine sleeps: all timers are late, no message moves.
    pub fn skip(&mut self, for_ms: u64) {
        self.skipped_ms += for_ms;
    }

    /// A running node and the time on its clock; none while its machine is down.
    pub fn node(&mut self, machine: usize) -> Option<(&mut Node, Timestamp)> {
        let wall = self.wall();
        let machine = self.machines.get_mut(machine)?;
        let now = machine.clock(wall);
        machine.node.as_mut().map(|node| (node, now))
    }

    /// What happened so far.
    pub fn outcome(&self) -> Outcome {
        Outcome {
            trace: self.trace.value(),
            steps: self.steps,
            counts: self.network.counts,
            acknowledged: self.reference.acknowledged,
            refused: self.reference.refused.clone(),
        }
    }

    /// Virtual milliseconds since the start.
    pub fn now_ms(&self) -> u64 {
        self.now
    }

    /// Number of machines.
    pub fn size(&self) -> usize {
        self.machines.len()
    }

    /// The region of each machine; nothing without regions.
    pub fn regions(&self) -> &[u8] {
        self.network.places.as_ref().map_or(&[], Places::regions)
    }

    /// Whether a machine runs and does not sleep.
    pub fn is_up(&self, at: usize) -> bool {
        let machine = &self.machines[at];
        machine.node.is_some() && machine.suspended_until <= self.now
    }

    /// Nodes that run and are honest.
    pub fn nodes(&self) -> impl Iterator<Item = (usize, &Node)> {
        let honest = self.machines.iter().enumerate().filter(|(at, _)| self.is_honest(*at));
        honest.filter_map(|(at, machine)| Some((at, machine.node.as_ref()?)))
    }

    /// What is counted of this run.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// What clients were told, and what nodes wrote.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    fn violated(&self) -> Result<(), Violation> {
        self.violation.clone().map_or(Ok(()), Err)
    }

    fn schedule(&mut self, in_ms: u64, due: Due) {
        self.queue.push(self.now + in_ms, due);
    }

    /// True wall time, milliseconds.
    fn wall(&self) -> u64 {
        START.0 + self.skipped_ms + self.now
    }

    fn happen(&mut self, due: Due) {
        if let Some(until) = self.suspended(&due) {
            return self.schedule(until - self.now, due);
        }
        match due {
            Due::Timer { machine, generation } => self.fire(machine, generation),
            Due::Tell { machine, incarnation, input } => {
                if self.machines[machine].incarnation == incarnation {
                    self.tell(machine, *input);
                }
            }
            Due::Arrive { to, link, epoch, cargo } => self.arrive(to as usize, link as usize, epoch, cargo),
            Due::Connect { link } => self.connect(link),
            Due::Closed { link, epoch } => self.closed(link, epoch),
            Due::Start(machine, memory) => self.boot(machine, memory),
            Due::Resume(machine) => {
                if self.machines[machine].node.is_some() {
                    self.tally.wakes(machine, self.now);
                    self.tell(machine, Input::Resumed);
                }
                self.connect_all(machine);
            }
            Due::Fault(fault) => self.strike(*fault),
            Due::Wish(machine, wish) => self.grant(machine, *wish),
            Due::Scheme(machine) => self.scheme(machine),
            Due::Check => {
                self.check_always();
                self.schedule(CHECK_MS, Due::Check);
            }
        }
    }

    /// Until when the machine sleeps that this concerns.
    fn suspended(&self, due: &Due) -> Option<u64> {
        let machine = match due {
            Due::Timer { machine, .. } | Due::Tell { machine, .. } | Due::Wish(machine, _) => *machine,
            Due::Arrive { to, .. } => *to as usize,
            Due::Connect { .. }
            | Due::Closed { .. }
            | Due::Start(..)
            | Due::Resume(_)
            | Due::Fault(_)
            | Due::Scheme(_)
            | Due::Check => {
                return None;
            }
        };
        Some(self.machines[machine].suspended_until).filter(|until| *until > self.now)
    }

    fn fire(&mut self, at: usize, generation: u64) {
        let wall = self.wall();
        let machine = &mut self.machines[at];
        if machine.timer_generation != generation {
            return;
        }
        machine.timer_at = None;
        let (when, count) = machine.timers_now;
        machine.timers_now = if when == self.now { (when, count + 1) } else { (self.now, 1) };
        if machine.timers_now.1 > TIMERS_MAX {
            return self.fail(Check::QueuesBounded, format!("the timer of machine {at} spins"));
        }
        self.trace.timer(self.now, at);
        let now = machine.clock(wall);
        if let Some(node) = machine.node.as_mut() {
            node.lend(&mut self.memo);
            node.handle_timeout(now);
            node.lend(&mut self.memo);
        }
        self.drain(at);
    }

    fn tell(&mut self, at: usize, input: Input) {
        self.trace.input(self.now, at, &input);
        self.tell_input(at, &input);
        let Some(input) = self.withhold(at, input) else { return };
        let wall = self.wall();
        let machine = &mut self.machines[at];
        let now = machine.clock(wall);
        if let Some(node) = machine.node.as_mut() {
            node.lend(&mut self.memo);
            node.handle(now, input);
            node.lend(&mut self.memo);
        }
        self.drain(at);
    }

    /// Performs everything a node wants done, then sets its timer as a sleeping process would: by the monotonic clock.
    fn drain(&mut self, at: usize) {
        for _ in 0..OUTPUTS_MAX {
            let Some(output) = self.machines[at].node.as_mut().and_then(Node::poll_output) else {
                return self.set_timer(at);
            };
            self.tell_output(at, &output);
            self.trace.output(self.now, at, &output);
            self.perform(at, output);
        }
        self.fail(Check::QueuesBounded, format!("machine {at} never runs out of outputs"));
    }

    /// Interprets one output. Read side by side with the live driver's `perform`.
    fn perform(&mut self, at: usize, output: Output) {
        let Some(output) = self.distort(at, output) else { return };
        match output {
            Output::Persist(writes) => {
                for write in writes {
                    self.note_write(at, &write);
                    self.machines[at].disk.write(self.now, write);
                }
            }
            Output::Publish { zone: _, bytes } => {
                let has_records = self.check_persisted(at, &bytes);
                self.publish(at, bytes, has_records);
            }
            Output::Verdict { id, verdict } => self.judge(at, id, verdict),
            Output::Request { conversation, peer, protocol, bytes } => {
                self.ask(at, conversation, peer, protocol, bytes);
            }
            Output::EndConversation { conversation } => self.close_stream(at, conversation),
            Output::Respond { id, bytes } => self.answer(at, id, bytes),
            Output::Reply { id, reply } => self.note_reply(at, id, reply),
            // One zone, whose mesh all machines are in; links are those of the graph.
            Output::JoinZone(_) | Output::LeaveZone(_) | Output::Provide(_) | Output::FindPeers(_) => {}
            Output::Penalize { peer, offence } => self.note_blame(at, &peer, offence.code()),
            Output::Event(event) => {
                self.check_event(at, &event);
                self.count_event(at, &event);
            }
        }
    }

    fn set_timer(&mut self, at: usize) {
        let wall = self.wall();
        let machine = &mut self.machines[at];
        let now = machine.clock(wall);
        let deadline = machine.node.as_ref().and_then(Node::poll_timeout);
        let target = deadline.map(|deadline| self.now + deadline.since(now).as_millis() as u64);
        if target == machine.timer_at {
            return;
        }
        machine.timer_at = target;
        machine.timer_generation += 1;
        let generation = machine.timer_generation;
        if let Some(target) = target {
            self.schedule(target - self.now, Due::Timer { machine: at, generation });
        }
    }

    fn fail(&mut self, check: Check, detail: String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { check, seed: self.seed, at_ms: self.now, detail });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_millisecond_that_does_not_end_ends_the_run_and_a_long_run_does_not() {
        let mut world = World::new(1, Setup { machines: 1, ..Setup::default() });
        let idle = |world: &mut World, at: u64, many: u64| {
            (0..many).for_each(|_| world.schedule(at, Due::Timer { machine: 0, generation: u64::MAX }));
        };
        (1..=3).for_each(|at| idle(&mut world, at, STEPS_A_MS_MAX));
        assert_eq!(world.run(10), Ok(()));
        idle(&mut world, 1, STEPS_A_MS_MAX + 1);
        let violation = world.run(10).expect_err("a loop");
        assert_eq!(violation.check, Check::QueuesBounded);
    }
}
