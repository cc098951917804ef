//! What moves a world: what is due goes to whom it concerns, and what a node wants done is performed.
//!
//! [`Engine::perform`] is the counterpart of the live driver's `perform`, same arms in the same order.

use std::collections::BTreeMap;

use rand::RngExt;

use super::adversary::Adversary;
use super::calls::CallWorld;
use super::checkers::{Check, Checkers};
use super::clients::ClientOp;
use super::event_log::At;
use super::fabric::Fabric;
use super::fault::Fault;
use super::network::Payload;
use super::questions::{Asked, Questions, Reading};
use super::queue::Due;
use super::sim_node::{Firing, RestartFrom};
use crate::proto::io::{Command, GossipId, Input, Output, Reply, StoreCondition, Verdict, Write};
use crate::proto::name::ZoneName;

/// Outputs one input may cause; the largest honest answer needs a few hundred.
pub(super) const OUTPUTS_MAX: usize = 100_000;
/// Virtual milliseconds between two checks of what must hold at any time.
pub(super) const CHECK_MS: u64 = 20_000;

/// The parts of a world, and how one event moves them.
pub(super) struct Engine {
    pub(super) fabric: Fabric,
    pub(super) adversary: Adversary,
    pub(super) calls: CallWorld,
    pub(super) checkers: Checkers,
    pub(super) questions: Questions,
    /// Answers that whoever runs the world waits for, and those that came.
    pub(super) awaited: BTreeMap<u64, Option<Reply>>,
}

impl Engine {
    /// Something is due.
    pub(super) fn dispatch(&mut self, due: Due) {
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
                // The first end is told and acts before the second hears: what it sends draws first.
                for (node, input) in network.connect(link, nodes, kernel) {
                    self.tell(node, input);
                }
            }
            Due::Closed { link, epoch } => network.closed(link, epoch, nodes, kernel),
            Due::ZoneTold { to, link, epoch, zone } => {
                if let Some(input) = network.zone_told(to, (link, epoch), *zone, nodes) {
                    self.tell(to, input);
                }
            }
            Due::Start(node, from) => self.boot(node, from),
            Due::Resume(node) => {
                if nodes[node].node.is_some() {
                    kernel.metrics.wakes(node, now);
                    self.questions.note_start(now);
                    self.tell(node, Input::Resumed);
                }
                self.fabric.connect_all(node);
            }
            Due::Fault(fault) => self.inject_fault(*fault),
            Due::Client(node, wanted) => self.ask(node, wanted.1, &wanted.0),
            Due::Question(node, asked) => {
                if nodes[node].node.is_some() {
                    self.question(node, *asked);
                }
            }
            Due::Page(node, reading) => {
                if nodes[node].node.is_some() {
                    self.turn_page(node, *reading);
                }
            }
            Due::AdversaryTick(node) => {
                if let Some(tick) = self.adversary.tick(node, &mut self.fabric) {
                    // It acts before its next turn is planned, as whatever it causes at that time comes first.
                    tick.input.into_iter().for_each(|input| self.tell(node, input));
                    self.fabric.kernel.schedule(tick.again_ms, Due::AdversaryTick(node));
                }
            }
            Due::Call(event) => self.calls.handle(*event, &mut self.fabric),
            Due::Check => {
                self.checkers.check_some(&mut self.fabric);
                self.calls.check(&mut self.fabric);
                self.questions.check(&mut self.fabric);
                (0..self.fabric.nodes.count()).for_each(|at| self.fabric.look_for_mates(at));
                self.fabric.kernel.schedule(CHECK_MS, Due::Check);
            }
        }
    }

    fn inject_fault(&mut self, fault: Fault) {
        let Fabric { kernel, nodes, network, .. } = &mut self.fabric;
        kernel.log.fault(kernel.clock.now(), &fault);
        self.questions.note_fault(&fault, kernel.now());
        match fault {
            Fault::Part(groups) => network.part(groups, nodes, kernel),
            Fault::Crash { node, from, down_ms } => {
                if nodes[node].node.is_some() {
                    self.fabric.crash(node);
                    self.checkers.stopped(node);
                    self.questions.crash(node, self.fabric.kernel.now());
                    self.calls.crash(node, &mut self.fabric);
                }
                // Also where it was down already; `boot` leaves alone what runs by then.
                self.fabric.kernel.schedule(down_ms, Due::Start(node, from));
            }
            Fault::Room { node, ample } => {
                nodes[node].disk.set_full(!ample);
                // The live keeper looks by itself whether there is room again; that there is none shows at the next write.
                if ample && nodes[node].node.is_some() {
                    self.tell(node, Input::Store { condition: StoreCondition::Well, forgotten: false });
                }
            }
            Fault::BackUp(node) => nodes[node].back_up(kernel.steps()),
            Fault::Jump(node, error_ms) => nodes[node].clock.set_error(error_ms),
            Fault::Suspend(node, for_ms) => {
                self.calls.suspend(node, kernel.now() + for_ms);
                self.fabric.suspend(node, for_ms);
            }
            Fault::Skip(for_ms) => kernel.clock.skip(for_ms),
            Fault::Start(node) => kernel.schedule(0, Due::Start(node, RestartFrom::Disk)),
            Fault::Corrupt(node, behaviour) => self.adversary.corrupt(node, behaviour, &mut self.fabric),
            Fault::Eclipse(victim) => network.eclipse(victim, nodes, kernel),
        }
    }

    /// A node starts, if it is down.
    fn boot(&mut self, at: usize, from: RestartFrom) {
        let Fabric { kernel, nodes, .. } = &mut self.fabric;
        // Drawn in any case: whether the node runs must not move what others draw.
        // Drawn whether it starts or not: a fault that comes to nothing must not shift the draws of all that follows.
        let seed = kernel.rng.random();
        if nodes[at].node.is_some() {
            return;
        }
        kernel.log.start(kernel.clock.now(), at, from);
        // While it is still down, as it does not count among those that know what it forgot.
        // Before the disk changes: what the host forgets is judged by what it and the others hold now.
        self.checkers.started(at, from, nodes);
        self.questions.note_start(kernel.now());
        let unread = self.fabric.boot(at, from, seed);
        if unread > 0 {
            let detail = format!("node {at} cannot read {unread} of its own rows");
            self.fabric.kernel.fail(Check::Durable, detail);
        }
        self.calls.boot(at, from, &mut self.fabric);
        self.drain(at);
        if self.fabric.nodes.are_dialable {
            // An address of a kind of its own: whoever is named is found here by his key.
            let address = serde_bytes::ByteBuf::from(at.to_be_bytes().to_vec());
            self.tell(at, Input::Addresses(vec![address]));
        }
        self.fabric.connect_all(at);
        self.fabric.look_for_mates(at);
    }

    /// A client asks something of a node; one that is down does not hear it.
    fn ask(&mut self, at: usize, operation: ClientOp, zone: &ZoneName) {
        if self.fabric.nodes[at].node.is_some() {
            let grant = self.fabric.nodes[at].grants.get(zone).map(|grant| grant.to_vec());
            let (operations, command) = operation.command(zone, grant);
            let id = self.checkers.reference.expect_reply(operations);
            self.tell(at, Input::Command { id, command });
        }
    }

    /// Whoever runs the world asks a node something, and wants to know the answer.
    pub(super) fn inquire(&mut self, at: usize, command: Command) -> u64 {
        let id = self.checkers.reference.expect_reply(Vec::new());
        self.awaited.insert(id, None);
        self.tell(at, Input::Command { id, command });
        id
    }

    /// A client asks a node something.
    fn question(&mut self, at: usize, asked: Asked) {
        match asked {
            Asked::Pages(listing) => self.turn_page(at, Reading::of(listing, self.fabric.kernel.now())),
            Asked::Agents(_) | Asked::Name(_) => {
                let id = self.checkers.reference.expect_reply(Vec::new());
                self.tell(at, Input::Command { id, command: asked.command() });
            }
        }
    }

    /// A client asks a node for the next page of what it reads.
    fn turn_page(&mut self, at: usize, reading: Reading) {
        let id = self.checkers.reference.expect_reply(Vec::new());
        let command = reading.command();
        self.questions.note_reading(id, reading);
        self.tell(at, Input::Command { id, command });
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
                    // A verdict is given within the turn: the mesh keeps room for one message.
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
        // Before a hostile host may withhold it: the trace tells what reached the machine.
        // The hash counts what reaches a host, also what an adversary keeps from its node.
        kernel.trace.input(now, at, &input);
        kernel.log.input(At { node: at, now, wall }, &input, nodes);
        let Some(input) = self.adversary.filter_input(at, input, &mut self.fabric) else { return };
        self.questions.begin(at, &input, &self.fabric);
        self.fabric.nodes.handle(at, wall, input);
        self.drain(at);
        self.questions.end();
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
            // The hash counts what the node decided, before an adversary changes it.
            kernel.trace.output(now, at, &output);
            match output {
                Output::Persist(writes) if nodes[at].disk.is_full() => self.refuse(at, writes),
                output => self.perform(at, output),
            }
        }
        self.fabric.kernel.fail(Check::QueuesBounded, format!("node {at} never runs out of outputs"));
    }

    /// The disk keeps nothing: what the writes justify does not leave, as in the live driver.
    fn refuse(&mut self, at: usize, writes: Vec<Write>) {
        const REASON: &str = "no room";
        let (nodes, wall) = (&mut self.fabric.nodes, self.fabric.kernel.wall());
        let mut rest = Vec::new();
        while let Some(output) = nodes.poll_output(at) {
            rest.extend(output.without_its_writes(REASON));
        }
        for write in &writes {
            self.checkers.note_unkept(at, write, &mut self.fabric);
        }
        let failed = Input::StoreFailed { reason: REASON.into(), writes };
        self.fabric.nodes.handle(at, wall, failed);
        for output in rest {
            self.perform(at, output);
        }
    }

    /// Interprets one output. Read side by side with the live driver's `perform`.
    fn perform(&mut self, at: usize, output: Output) {
        let (fabric, checkers) = (&mut self.fabric, &mut self.checkers);
        let Some(output) = self.adversary.tamper_output(at, output, fabric) else { return };
        self.questions.note_output(at, &output, fabric);
        match output {
            Output::Persist(writes) => {
                for write in writes {
                    // Noted first: what is published next is checked against it.
                    checkers.note_write(at, &write, fabric);
                    fabric.nodes[at].disk.write(fabric.kernel.now(), write);
                }
            }
            Output::Publish { zone, bytes } => {
                // Outputs come in the node's order, so what it wrote before this is noted by now.
                let has_records = checkers.check_persisted(at, &bytes, fabric);
                // As in the live driver: what is repaired below no mesh takes.
                if fabric.nodes[at].serves(&zone) {
                    fabric.publish(at, zone, bytes, has_records);
                }
            }
            Output::Verdict { id, verdict } => self.forward(at, id, verdict),
            Output::Request { conversation, peer, protocol, bytes } => {
                fabric.request(at, conversation, &peer, protocol, bytes);
            }
            Output::Reach(contact) => fabric.reach(at, &contact.peer),
            Output::EndConversation { conversation } => fabric.network.close_stream(at, conversation),
            Output::Respond { id, bytes } => match fabric.network.take_asked(id) {
                Some(stream) => fabric.respond(stream, bytes),
                None => {
                    fabric.kernel.fail(Check::QueuesBounded, format!("node {at} answers a question twice"))
                }
            },
            Output::Reply { id, reply } => {
                self.questions.note_reply(id, &reply, &checkers.reference, fabric);
                match self.awaited.get_mut(&id) {
                    Some(answer) => *answer = Some(reply),
                    None => checkers.note_reply(at, id, reply, fabric),
                }
            }
            Output::JoinZone(id) => fabric.enter(at, id.zone),
            Output::LeaveZone(zone) => {
                fabric.exit(at, &zone);
                checkers.left(at, &zone, fabric);
            }
            Output::Provide(zone) => fabric.nodes.provide(at, zone),
            Output::FindPeers(zone) => fabric.find_peers(at, zone),
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
            // Hostile nodes send what deserves it, and reject what does not.
            Verdict::Reject if !(nodes.is_honest(at) && nodes.is_honest(from)) => {}
            Verdict::Reject => {
                let detail = format!("node {at} rejects a message of node {from}");
                self.fabric.kernel.fail(Check::NobodyBlamed, detail);
            }
        }
    }
}
