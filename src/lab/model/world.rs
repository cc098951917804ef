//! The model in virtual time: many updates, latency, faults and reconciliation, event by event.
//!
//! Three ways to spread. Over a mesh a node forwards an update to all its links as soon as it learns it, and tells a few
//! random others for three heartbeats what it has. By push it sends it to random peers at once and again after each
//! interval. By push and pull it contacts random peers once in an interval, gives and asks. In all of them nodes may
//! reconcile with random peers; what comes by that is forwarded over a mesh, as the live node does, and not pushed.
//! Without latency the same is played in rounds of an interval each.
//!
//! What nodes exchange in turns is in `exchange`.
//!
//! Two simplifications: a digest is compared with what its sender holds when it arrives, not when it was sent; and the
//! links of a mesh stay as they are, over those of a node that is away nothing passes.

mod exchange;

use std::collections::BTreeMap;

use super::agreement::Agreement;
use super::counter_rng::{CounterRng, Order, Purpose, TraceHash};
use super::event::{Event, EventKind};
use super::faults::{ActiveFaults, ms, ticks};
use super::graph::Graph;
use super::links::{Links, TICKS_MS};
use super::run_metrics::{Axis, RunMetrics};
use super::timer::{History, Periodic};
use super::timing_wheel::TimingWheel;
use super::transport::Transport;
use super::update_bitmap::UpdateBitmap;
use crate::lab::measure::Measured;
use crate::lab::scenario::{Digest, FaultKind, Rounds, Scenario, SpreadProtocol as Way};

/// Between two heartbeats, and how many of them speak of an update: gossipsub's.
const HEARTBEAT_TICKS: u64 = 1_000 * TICKS_MS;
const HEARTBEATS: u32 = 3;
/// Pushes left of a node that pushes as long as the run lasts.
const FOREVER: u32 = super::event::NODES_MAX as u32 - 1;
/// An update that is younger than this is on its way and not missing.
const STALE_TICKS: u64 = 5_000 * TICKS_MS;

/// One run in play.
pub(super) struct World<'a> {
    scenario: &'a Scenario,
    nodes: u32,
    interval: u64,
    until: u64,
    transport: Transport<'a>,
    graph: Option<Graph>,
    updates_held: UpdateBitmap,
    /// Ticks, by update.
    written_at: Vec<u64>,
    /// Updates that were due so far, in the order of writing.
    due: usize,
    /// Writers by turn, and the same nodes in order.
    authors: Vec<u32>,
    authors_sorted: Vec<u32>,
    /// Updates whose authors were away when they were due.
    pending: BTreeMap<u32, Vec<u32>>,
    /// Heartbeats of a mesh; contacts of push and pull.
    talk: Option<Periodic>,
    reconcile: Option<Periodic>,
    history: History,
    peers: CounterRng,
    trace: TraceHash,
    agreement: Agreement,
    chosen: Vec<u32>,
    found: Vec<u32>,
}

/// Plays a scenario.
pub(super) fn play(scenario: &Scenario, seed: u64, until: u64) -> Measured {
    let mut world = World::new(scenario, seed, until);
    world.run();
    world.finish()
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, seed: u64, until: u64) -> World<'a> {
        let (network, protocol) = (&scenario.network, &scenario.protocol);
        let (nodes, updates) = (network.nodes, scenario.workload.updates);
        let mesh = protocol.kind == Way::Mesh;
        let interval = super::interval(scenario);
        // An author without an update would only make every digest longer.
        let authors = scenario.workload.authors.unwrap_or(nodes).min(updates);
        let order = Order::new(CounterRng::new(seed, Purpose::Author), 0, nodes);
        let authors: Vec<u32> = (0..authors).map(|turn| order.at(turn)).collect();
        let mut authors_sorted = authors.clone();
        authors_sorted.sort_unstable();
        let links = Links::new(network, interval, seed);
        let axis = if links.round().is_some() { Axis::Rounds } else { Axis::Ticks };
        let timer = |purpose, period| {
            Periodic::new(Order::new(CounterRng::new(seed, purpose), 0, nodes), nodes, period)
        };
        let talk = match protocol.kind {
            Way::Mesh => protocol.lazy.then(|| timer(Purpose::Heartbeat, HEARTBEAT_TICKS)),
            Way::Push => None,
            Way::PushPull => Some(timer(Purpose::Contact, interval)),
        };
        let history = match (protocol.kind, protocol.rounds) {
            (Way::Mesh, _) if protocol.lazy => History::new(nodes, HEARTBEATS),
            (Way::PushPull, Rounds::Times(times)) => History::new(nodes, times),
            _ => History::default(),
        };
        World {
            scenario,
            nodes: nodes as u32,
            interval,
            until,
            transport: Transport {
                queue: TimingWheel::default(),
                links,
                faults: ActiveFaults::new(&scenario.faults, nodes, &authors_sorted, seed),
                metrics: RunMetrics::new(axis, nodes, updates),
                now: 0,
                record_bytes: scenario.workload.record_bytes as u64,
                in_flight: 0,
            },
            graph: mesh
                .then(|| Graph::random(nodes, protocol.degree(), CounterRng::new(seed, Purpose::Graph))),
            updates_held: UpdateBitmap::new(nodes, updates, authors.len()),
            written_at: vec![0; updates],
            due: 0,
            authors,
            authors_sorted,
            pending: BTreeMap::new(),
            talk,
            reconcile: protocol.anti_entropy.every.map(|every| timer(Purpose::Reconcile, ticks(every))),
            history,
            peers: CounterRng::new(seed, Purpose::Peer),
            trace: TraceHash::new(seed),
            agreement: Agreement::default(),
            chosen: Vec::new(),
            found: Vec::new(),
        }
    }

    fn run(&mut self) {
        self.agreement.up = (0..self.nodes).filter(|node| self.transport.faults.is_up(*node)).count() as u64;
        for (number, fault) in self.scenario.faults.iter().enumerate() {
            self.schedule(ticks(fault.at), EventKind::Begin, 0, number as u32);
            if let Some(end) = ActiveFaults::end_of(fault) {
                self.schedule(end, EventKind::Heal, 0, number as u32);
            }
        }
        // Behind the faults: one of the same tick strikes before the first write.
        self.schedule(ticks(self.scenario.workload.at.unwrap_or_default()), EventKind::Write, 0, 0);
        let mut batch = Vec::new();
        loop {
            let settled = self.is_settled();
            // Copies under way teach nobody anything, but they are duplicates to be counted.
            if settled && self.transport.in_flight == 0 {
                return;
            }
            let event = self.transport.queue.next_tick();
            // Turns never run out, and would keep a finished world going up to its end.
            let turn = if settled { None } else { self.next_turn() };
            let Some(now) = turn.into_iter().chain(event).min().filter(|now| *now <= self.until) else {
                break;
            };
            self.agreement.advance(now, self.transport.metrics.written);
            self.transport.now = now;
            // Turns come before what arrives at the same tick.
            if turn == Some(now) {
                self.take_turns(now);
                continue;
            }
            self.transport.queue.take(&mut batch);
            for event in &batch {
                self.dispatch(*event);
            }
            debug_assert!(
                self.transport.is_balanced(),
                "sent is delivered, dropped or in flight: {:?}",
                self.transport.metrics
            );
            self.note_agreement();
        }
        // Quiet time counts too: whoever lacks something lacks it up to the end.
        self.agreement.advance(self.until.max(self.transport.now), self.transport.metrics.written);
    }

    /// Whether nothing more can be learnt or go wrong.
    fn is_settled(&self) -> bool {
        self.agreement.lacking == 0
            && self.transport.metrics.written as usize == self.written_at.len()
            && self.transport.faults.are_over()
            && self.agreement.up == u64::from(self.nodes)
    }

    fn note_agreement(&mut self) {
        let faults = &self.transport.faults;
        if self.agreement.lacking == 0 && self.agreement.healed.is_none() && faults.are_over() {
            self.agreement.healed = Some(self.transport.now);
        }
    }

    fn next_turn(&self) -> Option<u64> {
        // A mesh at rest skips its heartbeats, or an idle hour would cost as much as a busy one.
        let talk = self.talk.as_ref().filter(|_| self.graph.is_none() || !self.history.is_empty());
        talk.into_iter().chain(&self.reconcile).map(Periodic::at).min()
    }

    fn take_turns(&mut self, now: u64) {
        let talking = self.graph.is_none() || !self.history.is_empty();
        while let Some(node) = self.talk.as_mut().filter(|it| talking && it.at() == now).map(Periodic::take) {
            match self.scenario.protocol.kind {
                Way::PushPull => self.contact(node),
                Way::Mesh | Way::Push => self.heartbeat(node),
            }
        }
        while let Some(node) = self.reconcile.as_mut().filter(|it| it.at() == now).map(Periodic::take) {
            if self.transport.faults.is_up(node) {
                self.begin_reconcile(node);
            }
        }
    }

    fn schedule(&mut self, at: u64, kind: EventKind, from: u32, to: u32) {
        self.transport.queue.push(at, Event::new(kind, from, to, 0, 0));
    }

    fn dispatch(&mut self, event: Event) {
        let (from, to, update) = (event.from(), event.to(), event.update());
        let (place, what) = event.content();
        // The update above, the time below: 2^40 ticks are more than three years.
        self.trace.note(place, what << 40 ^ self.transport.now);
        match event.kind() {
            EventKind::Copy | EventKind::Repair => self.take_copy(event),
            EventKind::IHave => {
                if self.transport.arrives(from, to) && !self.updates_held.has(to, update) {
                    self.transport.send(EventKind::IWant, to, from, update, 0);
                }
            }
            EventKind::IWant => {
                if self.transport.arrives(from, to) && !self.transport.faults.is_mute(to) {
                    self.transport.send(EventKind::Repair, to, from, update, 0);
                }
            }
            EventKind::Reconcile => {
                if self.transport.arrives(from, to) {
                    self.answer_reconcile(from, to);
                }
            }
            EventKind::Give => {
                if self.transport.arrives(from, to) {
                    self.give(to, from);
                }
            }
            EventKind::Pull => {
                if self.transport.arrives(from, to) {
                    self.answer_pull(from, to);
                }
            }
            EventKind::Push => self.push(to, update, event.hops(), from),
            EventKind::Toggle => self.toggle(from as usize, to),
            EventKind::Write => self.write_due(),
            EventKind::Begin => self.begin(to as usize),
            EventKind::Heal => self.transport.faults.heal(to as usize),
        }
    }

    fn take_copy(&mut self, event: Event) {
        let (from, to, update) = (event.from(), event.to(), event.update());
        if !self.transport.arrives(from, to) {
            return;
        }
        self.transport.metrics.copies_received += 1;
        if self.updates_held.has(to, update) {
            return;
        }
        let passed = self.transport.now - self.written_at[update as usize];
        let delay = self.transport.links.round().map_or(passed, |round| passed.div_ceil(round));
        self.transport.metrics.learnt(to, update, delay);
        // Repairs and contacts do not carry on the count.
        if event.kind() == EventKind::Copy && self.scenario.protocol.kind != Way::PushPull {
            let hops = &mut self.transport.metrics.hops;
            *hops = (*hops).max(Some(event.hops()));
        }
        self.spread(event, to, Some(from));
    }

    /// A node holds an update from now on, and does with it what its protocol says.
    fn spread(&mut self, event: Event, node: u32, from: Option<u32>) {
        let (update, hops) = (event.update(), event.hops());
        self.updates_held.add(node, update);
        self.agreement.lacking -= 1;
        match self.scenario.protocol.kind {
            Way::Mesh => {
                self.forward(node, update, hops, from);
                self.remember(node, update);
            }
            Way::Push | Way::PushPull if event.kind() == EventKind::Repair => {}
            Way::PushPull => self.remember(node, update),
            Way::Push => {
                let times = match self.scenario.protocol.rounds {
                    Rounds::Times(times) => times.min(FOREVER),
                    Rounds::Forever => FOREVER,
                };
                if self.transport.links.round().is_none() {
                    return self.push(node, update, hops, times);
                }
                // What is learnt in a round is sent in the next.
                let push = Event::new(EventKind::Push, times, node, update, hops);
                self.transport.queue.push(self.transport.now + 1, push);
            }
        }
    }

    fn forward(&mut self, node: u32, update: u32, hops: u32, from: Option<u32>) {
        if self.transport.faults.is_mute(node) {
            return;
        }
        let links = self.graph.as_ref().map_or(&[][..], |graph| graph.links(node));
        for peer in links.iter().filter(|peer| Some(**peer) != from) {
            self.transport.send(EventKind::Copy, node, *peer, update, hops + 1);
        }
    }

    fn remember(&mut self, node: u32, update: u32) {
        let speaks = match self.scenario.protocol.kind {
            Way::Mesh => self.talk.is_some(),
            _ => self.scenario.protocol.rounds != Rounds::Forever,
        };
        if !speaks {
            return;
        }
        // Before the first entry is there: the turns of the silence would all be taken at once.
        if let Some(talk) = self.talk.as_mut().filter(|_| self.graph.is_some() && self.history.is_empty()) {
            talk.skip(self.transport.now);
        }
        self.history.add(node, update);
    }

    fn push(&mut self, node: u32, update: u32, hops: u32, times: u32) {
        // Who pushes for ever would plan the next time for ever.
        if self.is_settled() {
            return;
        }
        if self.transport.faults.is_up(node) && !self.transport.faults.is_mute(node) {
            let mut draws = self.peers.draws(u64::from(node) << 32 | u64::from(update), self.transport.now);
            draws.peers(node, self.nodes, self.scenario.protocol.fanout(), &mut self.chosen);
            for peer in &self.chosen {
                self.transport.send(EventKind::Copy, node, *peer, update, hops + 1);
            }
        }
        // A turn missed while away is not made up for.
        let left = if times == FOREVER { FOREVER } else { times - 1 };
        if left > 0 {
            let again = Event::new(EventKind::Push, left, node, update, hops);
            self.transport.queue.push(self.transport.now + self.interval, again);
        }
    }

    /// Writes all updates that are due, and comes back for the next.
    fn write_due(&mut self) {
        let workload = &self.scenario.workload;
        let start = ticks(workload.at.unwrap_or_default());
        let ticks_each = workload.rate.map_or(0.0, |rate| 1e3 * TICKS_MS as f64 / rate);
        while self.due < self.written_at.len() {
            // From the start and not from the last write, so that rounding does not add up.
            let at = start + (self.due as f64 * ticks_each) as u64;
            if at > self.transport.now {
                return self.schedule(at, EventKind::Write, 0, 0);
            }
            let author = self.authors[self.due % self.authors.len()];
            let update = self.updates_held.nth_written(self.due);
            self.due += 1;
            if self.transport.faults.is_up(author) {
                self.write(author, update);
            } else {
                self.pending.entry(author).or_default().push(update);
            }
        }
    }

    fn write(&mut self, author: u32, update: u32) {
        self.written_at[update as usize] = self.transport.now;
        self.agreement.from.get_or_insert(self.transport.now + STALE_TICKS);
        // The author lacks it too, for the moment until `spread` takes one off again.
        self.agreement.lacking += self.agreement.up;
        self.transport.metrics.wrote(author, update);
        self.spread(Event::new(EventKind::Copy, author, author, update, 0), author, None);
    }

    fn begin(&mut self, number: usize) {
        let fault = &self.scenario.faults[number];
        self.transport.faults.begin(number, &self.authors_sorted);
        match fault.kind {
            FaultKind::Churn { .. } => {
                for node in 0..self.nodes {
                    // Writers are there when churn begins, or the first updates would wait for their return.
                    let writes = self.authors_sorted.binary_search(&node).is_ok();
                    if !writes && self.transport.faults.begins_away(number, node) {
                        self.toggle(number, node);
                    } else {
                        self.schedule_toggle(number, node);
                    }
                }
            }
            FaultKind::Join { .. } => {
                for node in self.transport.faults.late(number, &self.authors_sorted) {
                    self.change(node, |faults| faults.start(node));
                }
            }
            _ => {}
        }
    }

    fn toggle(&mut self, number: usize, node: u32) {
        self.change(node, |faults| faults.toggle(number, node));
        self.schedule_toggle(number, node);
    }

    fn schedule_toggle(&mut self, number: usize, node: u32) {
        if let Some(at) = self.transport.faults.next_toggle(number, node, self.transport.now) {
            self.schedule(at, EventKind::Toggle, number as u32, node);
        }
    }

    /// Something changes about a node, and it may leave or come back by it.
    fn change(&mut self, node: u32, change: impl FnOnce(&mut ActiveFaults<'_>)) {
        let was_up = self.transport.faults.is_up(node);
        change(&mut self.transport.faults);
        let is_up = self.transport.faults.is_up(node);
        // Only what was written is held, so this is never below zero.
        let lacks = self.transport.metrics.written - self.updates_held.count(node) as u64;
        match (was_up, is_up) {
            (true, false) => {
                self.agreement.up -= 1;
                self.agreement.lacking -= lacks;
            }
            (false, true) => {
                self.agreement.up += 1;
                self.agreement.lacking += lacks;
                // Once it counts as up: a write is lacked by all that are, its author among them.
                for update in self.pending.remove(&node).unwrap_or_default() {
                    self.write(node, update);
                }
                if self.scenario.protocol.anti_entropy.on_join {
                    self.begin_reconcile(node);
                }
            }
            _ => {}
        }
    }

    fn finish(mut self) -> Measured {
        let metrics = &self.transport.metrics;
        self.trace.note(metrics.sent, metrics.dropped);
        self.trace.note(metrics.pairs(), self.transport.now);
        let updates = self.written_at.len();
        let complete = (0..self.nodes).filter(|node| self.updates_held.count(*node) == updates).count();
        let mut found = vec![("complete", complete as f64 / f64::from(self.nodes))];
        if self.reconcile.is_some() {
            let holes: usize = match self.scenario.protocol.digest {
                Digest::Max => (0..self.nodes).map(|node| self.updates_held.holes(node)).sum(),
                // It is asked for from the first gap on, so repair comes to every hole.
                Digest::Prefix => 0,
            };
            found.push(("holes", holes as f64 / (f64::from(self.nodes) * updates as f64)));
        }
        if !self.scenario.faults.is_empty() {
            let Agreement { from, last, stale, healed, .. } = self.agreement;
            let watched = last.saturating_sub(from.unwrap_or(last));
            found.extend((watched > 0).then(|| ("stale", stale / watched as f64)));
            let healed = healed.zip(self.transport.faults.end());
            found.extend(healed.map(|(healed, end)| ("healed_ms", ms(healed.saturating_sub(end)))));
        }
        let mut measured =
            self.transport.metrics.measured(self.trace.value(), self.scenario.network.regions.is_some());
        measured.metrics.extend(found.into_iter().map(|(name, value)| (name.into(), value)));
        measured
    }
}
