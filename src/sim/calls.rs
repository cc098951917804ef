//! Calls in the simulated world: beside each node runs its machine of calls, and this drives it as `net` does, on the virtual
//! clock. Streams open, carry frames, stall, break and are dropped; agents work for a while,
//! answer or fail; what a process did when it is killed is gone with it.
//!
//! Everything that is drawn here comes from a generator of its own, and nothing is drawn in a world without calls, so such
//! worlds run as if this did not exist. What was promised to callers is checked with every step (`law`).

mod conditions;
mod law;
mod streams;
mod work;

use std::collections::BTreeMap;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use self::conditions::{CallConditions, ClientCall, HostTraits, WorkLength};
use self::law::CallLaw;
pub use self::law::{CallCounts, CallEnding};
use self::streams::{Arrival, Frame, Streams, Toward};
use self::work::{Placed, word};
use super::checkers::Check;
use super::engine::OUTPUTS_MAX;
use super::event_log::At;
use super::fabric::Fabric;
use super::queue::Due;
use super::sim_node::{Firing, RestartFrom, Timer};
use crate::proto::call::{
    Access, CallFailure, CallId, CallReply, CallRequest, Calls, InboundStream, Incarnation, Input, Loss,
    OutboundStream, Output, Queue, Repeats, Replica, Turn, Wanted,
};
use crate::proto::identity::{AgentId, PeerKey};
use crate::proto::name::{FullName, ZoneName};

/// How long a search for a host takes at most, milliseconds: longer than a caller waits for it.
const SEARCH_MS_MAX: u64 = 6_000;
/// Something of a call that is due at one node.
#[derive(Debug)]
pub(super) struct CallEvent {
    pub(super) node: usize,
    /// The run of the node that it is for; any if none.
    run: Option<u64>,
    what: What,
}

#[derive(Debug)]
enum What {
    Timer(u64),
    Client(ClientCall),
    GiveUp(CallId),
    Searched(CallId),
    /// Something of a stream reaches one end of it.
    Stream(InboundStream, Toward, Arrival),
    /// What the queue of an agent says to one of its calls.
    Turn(Turn<InboundStream>),
    /// The deadline of a call whose input is here.
    Overdue(InboundStream),
    WorkEnds(InboundStream, Result<usize, CallFailure>),
}

/// The machines of calls, and what lies between them.
pub(super) struct CallWorld {
    /// None in a world without calls.
    conditions: Option<CallConditions>,
    rng: ChaCha8Rng,
    nodes: Vec<CallNode>,
    streams: Streams,
    law: CallLaw,
}

/// The machine of calls of one computer.
#[derive(Default)]
struct CallNode {
    /// None while it is down.
    calls: Option<Calls>,
    started_ms: u64,
    timer: Timer,
    /// The queues of its agents.
    queues: BTreeMap<AgentId, Queue<InboundStream>>,
    /// Calls that are in one of them, or at work.
    placed: BTreeMap<InboundStream, Placed>,
    traits: HostTraits,
    /// Until when it slept at most: what was due before is done then.
    slept_until_ms: u64,
    /// On its disk: the calls nobody waits at, of which the input left, for which host and which run of it.
    sent: BTreeMap<CallId, (PeerKey, Incarnation)>,
}

impl CallWorld {
    pub(super) fn new(seed: u64, nodes: usize, conditions: Option<CallConditions>) -> CallWorld {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // The world's own numbers and those of its plan are other streams of this generator.
        rng.set_stream(2);
        let nodes = (0..nodes).map(|_| CallNode::default()).collect();
        CallWorld { conditions, rng, nodes, streams: Streams::default(), law: CallLaw::default() }
    }

    /// What became of the calls so far.
    pub(super) fn law(&self) -> &CallLaw {
        &self.law
    }

    /// How a node runs its agents from now on.
    pub(super) fn set_traits(&mut self, at: usize, traits: HostTraits) {
        self.nodes[at].traits = traits;
    }

    /// A client's call, to be scheduled.
    pub(super) fn client(node: usize, call: ClientCall) -> Due {
        Due::Call(Box::new(CallEvent { node, run: None, what: What::Client(call) }))
    }

    /// A node started. Of its earlier calls those are remembered that are on its disk: their hosts are asked for them.
    pub(super) fn boot(&mut self, at: usize, from: RestartFrom, fabric: &mut Fabric) {
        if self.conditions.is_none() {
            return;
        }
        let (node, now) = (&mut self.nodes[at], fabric.kernel.now());
        node.calls = Some(Calls::new(self.rng.random()));
        (node.started_ms, node.timer) = (now, Timer::default());
        let sent = std::mem::take(&mut node.sent);
        for (call, sent) in sent.into_iter().filter(|_| matches!(from, RestartFrom::Disk)) {
            let Some(deadline_ms) = self.law.ask_again(call, now) else { continue };
            self.nodes[at].sent.insert(call, sent);
            let replicas = vec![Replica::unknown(sent.0)];
            let (name, deadline) = (asked_again(), Duration::from_millis(deadline_ms - now));
            let wanted = Wanted {
                is_detached: true,
                sent: Some(sent),
                ..Wanted::new(AgentId([0; 20]), name, replicas, 0, deadline)
            };
            self.tell(at, Input::Call { call, wanted }, fabric);
        }
    }

    /// What the process did is gone. The other ends of its streams notice, sooner or later or never.
    pub(super) fn crash(&mut self, at: usize, fabric: &mut Fabric) {
        let Some(conditions) = self.conditions else { return };
        let node = &mut self.nodes[at];
        node.calls = None;
        node.queues.clear();
        node.placed.clear();
        self.law.forget_caller(at);
        for (after, event) in self.streams.drop_ends_of(at, &conditions, &mut self.rng) {
            schedule(after, event, fabric);
        }
    }

    /// A node does nothing until then.
    pub(super) fn suspend(&mut self, at: usize, until_ms: u64) {
        let slept = &mut self.nodes[at].slept_until_ms;
        *slept = (*slept).max(until_ms);
    }

    /// All nodes are awake again; what waited for that is done now.
    pub(super) fn repair(&mut self, fabric: &mut Fabric) {
        for at in 0..self.nodes.len() {
            let node = &mut self.nodes[at];
            node.slept_until_ms = node.slept_until_ms.min(fabric.kernel.now());
            // A timer put off to the end of the sleep would still wait for that; it is set anew.
            node.timer.stop();
            self.set_timer(at, fabric);
        }
    }

    /// Every call that is waited for has an end by its deadline.
    pub(super) fn check(&mut self, fabric: &mut Fabric) {
        let nodes = &self.nodes;
        self.law.check_overdue(fabric.kernel.now(), |at| nodes[at].slept_until_ms);
        self.law.report(&mut fabric.kernel);
    }

    pub(super) fn handle(&mut self, event: CallEvent, fabric: &mut Fabric) {
        let CallEvent { node: at, run, what } = event;
        let is_of_this_run = run.is_none_or(|run| run == fabric.nodes[at].incarnation);
        match what {
            // A stream may reach a node that is down, which answers that nobody is there.
            What::Stream(stream, Toward::Host, Arrival::Stream) => self.reach_host(at, stream, fabric),
            // It was meant for a process that is gone.
            _ if !is_of_this_run || self.nodes[at].calls.is_none() => {}
            What::Timer(generation) => self.fire(at, generation, fabric),
            What::Client(call) => self.make(at, call, fabric),
            What::GiveUp(call) => {
                self.law.give_up(call);
                self.nodes[at].sent.remove(&call);
                self.tell(at, Input::GiveUp { call }, fabric);
            }
            What::Searched(call) => self.tell(at, Input::Searched { call }, fabric),
            What::Stream(stream, toward, arrival) => self.arrive(at, stream, toward, arrival, fabric),
            What::Turn(turn) => self.take_turn(at, turn, fabric),
            What::Overdue(stream) => self.end_overdue(at, stream, fabric),
            What::WorkEnds(stream, ended) => self.end_work(at, stream, ended, fabric),
        }
        self.law.report(&mut fabric.kernel);
    }

    /// A client calls what its node finds; what it does not find is not called.
    fn make(&mut self, at: usize, client: ClientCall, fabric: &mut Fabric) {
        let name = client.agent.clone();
        let agent = AgentId::of(fabric.nodes[client.host].key, &name);
        let found = fabric.read(at).and_then(|(node, now)| node.agent(now, &agent));
        let Some(found) = found else { return };
        let call = CallId(self.rng.random());
        let mut replicas: Vec<_> = found
            .replicas
            .iter()
            .map(|it| Replica { host: it.peer(), presence: it.presence, weight: 1 })
            .collect();
        // Of the others no more is known than of the first.
        if let Some(first) = replicas.first().copied() {
            replicas
                .extend(client.also.iter().map(|host| Replica { host: fabric.nodes[*host].key, ..first }));
        }
        let now = fabric.kernel.now();
        let deadline = self.clock(at, now) + Duration::from_millis(client.patience_ms);
        // Before the machine hears of it: that may end the call within the same turn.
        let due = (now, now + client.patience_ms);
        self.law.make(call, at, due, &client);
        if let Some(after) = client.gives_up_ms {
            self.schedule(after, at, What::GiveUp(call), fabric);
        }
        let wanted = Wanted {
            is_detached: client.is_detached,
            balance: client.balance,
            repeats: Repeats { max: client.repeats_max, is_idempotent: client.is_idempotent },
            ..Wanted::new(agent, name, replicas, client.size, deadline)
        };
        self.tell(at, Input::Call { call, wanted }, fabric);
    }

    /// What the machine's clock shows: the time since it started, whatever its node's clock says.
    fn clock(&self, at: usize, now: u64) -> Duration {
        Duration::from_millis(now - self.nodes[at].started_ms)
    }

    /// Something for the present run of a node.
    fn schedule(&self, in_ms: u64, at: usize, what: What, fabric: &mut Fabric) {
        let run = Some(fabric.nodes[at].incarnation);
        schedule(in_ms, CallEvent { node: at, run, what }, fabric);
    }

    fn fire(&mut self, at: usize, generation: u64, fabric: &mut Fabric) {
        let now = fabric.kernel.now();
        let clock = self.clock(at, now);
        let node = &mut self.nodes[at];
        match node.timer.fires(generation, now) {
            Firing::Stale => {}
            Firing::Spinning => {
                self.law.fail(Check::QueuesBounded, format!("the timer of the calls of node {at} spins"));
            }
            Firing::Due => {
                if let Some(calls) = &mut node.calls {
                    calls.handle_timeout(clock);
                }
                self.drain(at, fabric);
            }
        }
    }

    fn tell(&mut self, at: usize, input: Input, fabric: &mut Fabric) {
        let now = self.clock(at, fabric.kernel.now());
        log(at, "<", &input, fabric);
        if let Some(calls) = &mut self.nodes[at].calls {
            calls.handle(now, input);
        }
        self.drain(at, fabric);
    }

    /// Performs everything that a machine wants done, then sets its timer.
    fn drain(&mut self, at: usize, fabric: &mut Fabric) {
        for _ in 0..OUTPUTS_MAX {
            let Some(output) = self.nodes[at].calls.as_mut().and_then(Calls::poll_output) else {
                return self.set_timer(at, fabric);
            };
            log(at, ">", &output, fabric);
            self.perform(at, output, fabric);
        }
        self.law.fail(Check::QueuesBounded, format!("the calls of node {at} never run out of outputs"));
    }

    fn set_timer(&mut self, at: usize, fabric: &mut Fabric) {
        let now = fabric.kernel.now();
        let node = &mut self.nodes[at];
        let due = node.calls.as_ref().and_then(Calls::poll_timeout);
        // What is due between two milliseconds is done at the second.
        let due = due.map(|due| node.started_ms + due.as_nanos().div_ceil(1_000_000) as u64);
        // A deadline may have passed in a sleep, and no timer reaches back.
        if let Some((in_ms, generation)) = node.timer.set(now, due.map(|due| due.max(now))) {
            self.schedule(in_ms, at, What::Timer(generation), fabric);
        }
    }

    /// Interprets one output. Read side by side with the live tasks in `net/calls`.
    fn perform(&mut self, at: usize, output: Output, fabric: &mut Fabric) {
        match output {
            Output::Open { stream, host } => self.open(at, stream, host, fabric),
            Output::Offer { stream, offer } => {
                fabric.kernel.trace.call(fabric.kernel.clock.now(), at, 1, &stream.call.0);
                self.law.offer(stream.call);
                self.send_out(stream, Frame::Said(CallRequest::Offer(Box::new(offer)).encode()), fabric);
            }
            Output::Attach { stream, attach } => {
                self.send_out(stream, Frame::Said(CallRequest::Attach(attach).encode()), fabric);
            }
            Output::Cancel(stream) => self.close_outbound(stream, Some(&CallRequest::Cancel), fabric),
            Output::Taken(stream) => self.close_outbound(stream, Some(&CallRequest::Taken), fabric),
            Output::SendInput { stream, host, incarnation } => {
                if self.law.is_detached(stream.call) {
                    self.nodes[at].sent.insert(stream.call, (host, incarnation));
                }
                let size = self.law.size(stream.call);
                self.send_out(stream, Frame::Document(size), fabric);
            }
            // The output follows by itself, and reports are for the client.
            Output::TakeOutput { .. }
            | Output::Report { .. }
            | Output::Listen(_)
            | Output::LookFor { .. } => {}
            Output::Close(stream) => self.close_outbound(stream, None, fabric),
            Output::Search { call, .. } => {
                let after = self.rng.random_range(1..SEARCH_MS_MAX);
                self.schedule(after, at, What::Searched(call), fabric);
            }
            Output::Ended { call, end } => {
                fabric.kernel.trace.call(fabric.kernel.clock.now(), at, 2, &call.0);
                self.nodes[at].sent.remove(&call);
                self.law.end(call, &end, fabric.kernel.now(), self.nodes[at].slept_until_ms);
            }
            Output::Accept { stream, incarnation, .. } => {
                let word = word(self, at, (stream, true), fabric);
                self.reply(stream, CallReply::Accepted { incarnation, word, keeps: false }, fabric);
            }
            Output::WantPlace { stream, agent } => self.want_place(at, stream, agent, fabric),
            Output::SayQueued { stream, ahead } => {
                let word = word(self, at, (stream, false), fabric);
                self.reply(stream, CallReply::Queued { ahead: ahead as u32, word }, fabric);
            }
            Output::SayAlive(stream) => self.reply(stream, CallReply::Alive, fabric),
            Output::Run { stream, deadline } => self.ready(at, stream, deadline, fabric),
            Output::Resume { stream, .. } => self.reply(stream, CallReply::Alive, fabric),
            Output::Stop { work } => self.leave_queue(at, work, fabric),
            Output::Forget { .. } => {}
            Output::Answer { stream, size, .. } => {
                self.reply(stream, CallReply::Answered { size: size as u64 }, fabric);
                self.send_back(stream, Frame::Document(size), fabric);
                self.finish(at, stream, fabric);
            }
            Output::Refuse { stream, failure } => {
                self.leave_queue(at, stream, fabric);
                self.reply(stream, CallReply::Failed(failure), fabric);
                self.finish(at, stream, fabric);
            }
            Output::Drop(stream) => {
                self.leave_queue(at, stream, fabric);
                self.close(stream, Toward::Caller, fabric);
            }
        }
    }

    /// A caller closes a stream, with a last word or without.
    fn close_outbound(&mut self, stream: OutboundStream, word: Option<&CallRequest>, fabric: &mut Fabric) {
        if let Some(word) = word {
            self.send_out(stream, Frame::Said(word.encode()), fabric);
        }
        if let Some(id) = self.streams.inbound(stream) {
            self.close(id, Toward::Host, fabric);
        }
    }

    /// Something reaches an end of a stream that is still open there.
    fn arrive(
        &mut self,
        at: usize,
        id: InboundStream,
        toward: Toward,
        arrival: Arrival,
        fabric: &mut Fabric,
    ) {
        if !self.passes(id, &arrival, fabric) {
            return;
        }
        let Some((stream, caller)) = self.streams.open_end(id, toward) else { return };
        let Some(input) = (match (toward, arrival) {
            (Toward::Host, Arrival::Closed | Arrival::Gone) => {
                self.streams.close(id, Toward::Host);
                // What of the input was here counts as much as nothing.
                if self.nodes[at].placed.get(&id).is_some_and(|placed| placed.deadline.is_zero()) {
                    self.leave_queue(at, id, fabric);
                }
                Some(Input::Gone(id))
            }
            (Toward::Host, Arrival::Frame(Frame::Said(bytes))) => match CallRequest::decode(&bytes) {
                Ok(CallRequest::Offer(offer)) => {
                    let peer = fabric.nodes[caller].key;
                    let access = match self.law.runs_at(offer.call, at) {
                        true => Access::Granted,
                        false => access(at, offer.agent_id(), fabric),
                    };
                    Some(Input::Offered { stream: id, peer, source: None, offer: *offer, access })
                }
                Ok(CallRequest::Attach(attach)) => {
                    let peer = fabric.nodes[caller].key;
                    Some(Input::Attached { stream: id, peer, attach })
                }
                Ok(CallRequest::Cancel) => Some(Input::Cancelled(id)),
                Ok(CallRequest::Taken) => Some(Input::Delivered(id)),
                Err(_) => None,
            },
            (Toward::Host, Arrival::Frame(Frame::Document(size))) => {
                Some(Input::InputArrived { stream: id, size })
            }
            (Toward::Caller, Arrival::Stream) => Some(Input::Opened(stream)),
            (Toward::Caller, Arrival::Refused) => {
                Some(Input::NotOpened { stream, why: "nobody is there".into() })
            }
            (Toward::Caller, Arrival::Closed | Arrival::Gone) => {
                Some(Input::Lost { stream, loss: Loss::Closed("the stream broke".into()) })
            }
            (Toward::Caller, Arrival::Frame(Frame::Said(bytes))) => {
                CallReply::decode(&bytes).ok().map(|reply| Input::Reply { stream, reply })
            }
            (Toward::Caller, Arrival::Frame(Frame::Document(_))) => Some(Input::OutputTaken(stream)),
            (Toward::Host, Arrival::Stream | Arrival::Refused) => None,
        }) else {
            return self.law.fail(Check::CallClaims, format!("node {at} cannot read what is said of a call"));
        };
        self.tell(at, input, fabric);
    }
}

/// Whether a node offers an agent, as it would tell others.
fn access(at: usize, agent: AgentId, fabric: &mut Fabric) -> Access {
    let key = fabric.nodes[at].key;
    let found = fabric.read(at).and_then(|(node, now)| node.agent(now, &agent));
    let is_own = found.is_some_and(|found| found.replicas.iter().any(|replica| replica.peer() == key));
    if is_own { Access::Granted } else { Access::NotFound }
}

/// Stands for the agent of a call that is only asked for again, as in `host`.
fn asked_again() -> FullName {
    FullName { agent: "asked-again".parse().expect("a label"), zone: ZoneName::root() }
}

fn log(at: usize, way: &str, what: &impl std::fmt::Debug, fabric: &mut Fabric) {
    let Fabric { kernel, nodes, .. } = fabric;
    let at = At { node: at, now: kernel.now(), wall: kernel.wall() };
    kernel.log.call(at, way, what, nodes);
}

fn schedule(in_ms: u64, event: CallEvent, fabric: &mut Fabric) {
    fabric.kernel.schedule(in_ms, Due::Call(Box::new(event)));
}
