//! The model in virtual time: many updates, latency, faults and reconciliation, event by event.
//!
//! Three ways to spread. Over a mesh a node forwards an update to all its links as soon as it learns it, and tells a few
//! random others for three heartbeats what it has. By push it sends it to random peers at once and again after each
//! interval. By push and pull it contacts random peers once in an interval, gives and asks. In all of them nodes may
//! reconcile with random peers; what comes by that is forwarded over a mesh, as the live node does, and not pushed.
//! Without latency the same is played in rounds of an interval each.
//!
//! Two simplifications: a digest is compared with what its sender holds when it arrives, not when it was sent; and the
//! links of a mesh stay as they are, over those of a node that is away nothing passes.

use std::collections::BTreeMap;

use super::dice::{Dice, Order, Purpose, Trace};
use super::event::{Event, Kind};
use super::graph::Graph;
use super::holdings::Holdings;
use super::links::{Links, TICKS_MS};
use super::post::{Post, ROOT_BYTES};
use super::tally::{Axis, ENVELOPE_BYTES, Tally};
use super::timer::{History, Periodic};
use super::trouble::{Troubles, ms, ticks};
use super::wheel::Queue;
use crate::lab::measure::Measured;
use crate::lab::scenario::{Digest, Kind as Way, Rounds, Scenario, Trouble};

/// Between two heartbeats, and how many of them speak of an update: gossipsub's.
const HEARTBEAT_TICKS: u64 = 1_000 * TICKS_MS;
const HEARTBEATS: u32 = 3;
/// Peers beyond its links to which a node says in a heartbeat what it has: the live node's.
const LAZY_PEERS: usize = 3;
/// Draws to find such peers, or one that can be reached for a reconciliation; then the turn is left out.
const TRIES: u64 = 16;
/// Bytes of an author and its version in a digest.
const DIGEST_BYTES: u64 = 10;
/// Pushes left of a node that pushes as long as the run lasts.
const FOREVER: u32 = super::event::NODES_MAX as u32 - 1;
/// An update that is younger than this is on its way and not missing.
const STALE_TICKS: u64 = 5_000 * TICKS_MS;

/// One run in play.
pub(super) struct World<'a, Q> {
    scenario: &'a Scenario,
    nodes: u32,
    interval: u64,
    until: u64,
    post: Post<'a, Q>,
    graph: Option<Graph>,
    holdings: Holdings,
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
    peers: Dice,
    trace: Trace,
    agreement: Agreement,
    chosen: Vec<u32>,
    found: Vec<u32>,
}

/// How far the nodes that are up agree.
#[derive(Debug, Default)]
struct Agreement {
    /// Nodes that are up.
    up: u64,
    /// Pairs of such a node and a written update that it lacks.
    lacking: u64,
    /// From when on staleness counts; none before the first update.
    from: Option<u64>,
    last: u64,
    /// Share of pairs lacking, summed over ticks.
    stale: f64,
    /// When all agreed after the last fault.
    healed: Option<u64>,
}

impl Agreement {
    /// Time passes.
    fn advance(&mut self, now: u64, written: u64) {
        if let Some(from) = self.from {
            let passed = now.saturating_sub(self.last.max(from));
            let pairs = self.up * written;
            if pairs > 0 {
                self.stale += passed as f64 * self.lacking as f64 / pairs as f64;
            }
        }
        self.last = now;
    }
}

/// Plays a scenario on a queue.
pub(super) fn play<Q: Queue<Event>>(scenario: &Scenario, seed: u64, until: u64) -> Measured {
    let mut world = World::<Q>::new(scenario, seed, until);
    world.run();
    world.finish()
}

impl<'a, Q: Queue<Event>> World<'a, Q> {
    fn new(scenario: &'a Scenario, seed: u64, until: u64) -> World<'a, Q> {
        let (network, protocol) = (&scenario.network, &scenario.protocol);
        let (nodes, updates) = (network.nodes, scenario.workload.updates);
        let mesh = protocol.kind == Way::Mesh;
        let interval = super::interval(scenario);
        let authors = scenario.workload.authors.unwrap_or(nodes).min(updates);
        let order = Order::new(Dice::new(seed, Purpose::Author), 0, nodes);
        let authors: Vec<u32> = (0..authors).map(|turn| order.at(turn)).collect();
        let mut authors_sorted = authors.clone();
        authors_sorted.sort_unstable();
        let links = Links::new(network, interval, seed);
        let axis = if links.round().is_some() { Axis::Rounds } else { Axis::Ticks };
        let timer =
            |purpose, period| Periodic::new(Order::new(Dice::new(seed, purpose), 0, nodes), nodes, period);
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
            post: Post {
                queue: Q::default(),
                links,
                troubles: Troubles::new(&scenario.faults, nodes, &authors_sorted, seed),
                tally: Tally::new(axis, nodes, updates),
                now: 0,
                record_bytes: scenario.workload.record_bytes as u64,
                in_flight: 0,
            },
            graph: mesh.then(|| Graph::random(nodes, protocol.degree(), Dice::new(seed, Purpose::Graph))),
            holdings: Holdings::new(nodes, updates, authors.len()),
            written_at: vec![0; updates],
            due: 0,
            authors,
            authors_sorted,
            pending: BTreeMap::new(),
            talk,
            reconcile: protocol.anti_entropy.every.map(|every| timer(Purpose::Reconcile, ticks(every))),
            history,
            peers: Dice::new(seed, Purpose::Peer),
            trace: Trace::new(seed),
            agreement: Agreement::default(),
            chosen: Vec::new(),
            found: Vec::new(),
        }
    }

    fn run(&mut self) {
        self.agreement.up = (0..self.nodes).filter(|node| self.post.troubles.is_up(*node)).count() as u64;
        for (number, fault) in self.scenario.faults.iter().enumerate() {
            self.schedule(ticks(fault.at), Kind::Strike, 0, number as u32);
            if let Some(end) = Troubles::end_of(fault) {
                self.schedule(end, Kind::Heal, 0, number as u32);
            }
        }
        self.schedule(ticks(self.scenario.workload.at.unwrap_or_default()), Kind::Write, 0, 0);
        let mut batch = Vec::new();
        loop {
            let settled = self.is_settled();
            if settled && self.post.in_flight == 0 {
                return;
            }
            let event = self.post.queue.next();
            let turn = if settled { None } else { self.next_turn() };
            let Some(now) = turn.into_iter().chain(event).min().filter(|now| *now <= self.until) else {
                break;
            };
            self.agreement.advance(now, self.post.tally.written);
            self.post.now = now;
            // Turns come before what arrives at the same tick.
            if turn == Some(now) {
                self.take_turns(now);
                continue;
            }
            self.post.queue.take(&mut batch);
            for event in &batch {
                self.happen(*event);
            }
            debug_assert!(
                self.post.is_balanced(),
                "sent is delivered, dropped or in flight: {:?}",
                self.post.tally
            );
            self.note_agreement();
        }
        self.agreement.advance(self.until.max(self.post.now), self.post.tally.written);
    }

    /// Whether nothing more can be learnt or go wrong.
    fn is_settled(&self) -> bool {
        self.agreement.lacking == 0
            && self.post.tally.written as usize == self.written_at.len()
            && self.post.troubles.are_over()
            && self.agreement.up == u64::from(self.nodes)
    }

    fn note_agreement(&mut self) {
        let troubles = &self.post.troubles;
        if self.agreement.lacking == 0 && self.agreement.healed.is_none() && troubles.are_over() {
            self.agreement.healed = Some(self.post.now);
        }
    }

    fn next_turn(&self) -> Option<u64> {
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
            if self.post.troubles.is_up(node) {
                self.begin_reconcile(node);
            }
        }
    }

    fn schedule(&mut self, at: u64, kind: Kind, from: u32, to: u32) {
        self.post.queue.push(at, Event::new(kind, from, to, 0, 0));
    }

    fn happen(&mut self, event: Event) {
        let (from, to, update) = (event.from(), event.to(), event.update());
        let (place, what) = event.content();
        self.trace.note(place, what << 40 ^ self.post.now);
        match event.kind() {
            Kind::Copy | Kind::Repair => self.take_copy(event),
            Kind::IHave => {
                if self.post.arrives(from, to) && !self.holdings.has(to, update) {
                    self.post.send(Kind::IWant, to, from, update, 0);
                }
            }
            Kind::IWant => {
                if self.post.arrives(from, to) && !self.post.troubles.is_mute(to) {
                    self.post.send(Kind::Repair, to, from, update, 0);
                }
            }
            Kind::Reconcile => {
                if self.post.arrives(from, to) {
                    self.answer_reconcile(from, to);
                }
            }
            Kind::Give => {
                if self.post.arrives(from, to) {
                    self.give(to, from);
                }
            }
            Kind::Pull => {
                if self.post.arrives(from, to) {
                    self.answer_pull(from, to);
                }
            }
            Kind::Push => self.push(to, update, event.hops(), from),
            Kind::Toggle => self.toggle(from as usize, to),
            Kind::Write => self.write_due(),
            Kind::Strike => self.strike(to as usize),
            Kind::Heal => self.post.troubles.heal(to as usize),
        }
    }

    fn take_copy(&mut self, event: Event) {
        let (from, to, update) = (event.from(), event.to(), event.update());
        if !self.post.arrives(from, to) {
            return;
        }
        self.post.tally.copies_received += 1;
        if self.holdings.has(to, update) {
            return;
        }
        let passed = self.post.now - self.written_at[update as usize];
        let delay = self.post.links.round().map_or(passed, |round| passed.div_ceil(round));
        self.post.tally.learnt(to, update, delay);
        if event.kind() == Kind::Copy && self.scenario.protocol.kind != Way::PushPull {
            let hops = &mut self.post.tally.hops;
            *hops = (*hops).max(Some(event.hops()));
        }
        self.spread(event, to, Some(from));
    }

    /// A node holds an update from now on, and does with it what its protocol says.
    fn spread(&mut self, event: Event, node: u32, from: Option<u32>) {
        let (update, hops) = (event.update(), event.hops());
        self.holdings.add(node, update);
        self.agreement.lacking -= 1;
        match self.scenario.protocol.kind {
            Way::Mesh => {
                self.forward(node, update, hops, from);
                self.remember(node, update);
            }
            Way::Push | Way::PushPull if event.kind() == Kind::Repair => {}
            Way::PushPull => self.remember(node, update),
            Way::Push => {
                let times = match self.scenario.protocol.rounds {
                    Rounds::Times(times) => times.min(FOREVER),
                    Rounds::Forever => FOREVER,
                };
                if self.post.links.round().is_none() {
                    return self.push(node, update, hops, times);
                }
                // What is learnt in a round is sent in the next.
                let push = Event::new(Kind::Push, times, node, update, hops);
                self.post.queue.push(self.post.now + 1, push);
            }
        }
    }

    fn forward(&mut self, node: u32, update: u32, hops: u32, from: Option<u32>) {
        if self.post.troubles.is_mute(node) {
            return;
        }
        let links = self.graph.as_ref().map_or(&[][..], |graph| graph.links(node));
        for peer in links.iter().filter(|peer| Some(**peer) != from) {
            self.post.send(Kind::Copy, node, *peer, update, hops + 1);
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
        if let Some(talk) = self.talk.as_mut().filter(|_| self.graph.is_some() && self.history.is_empty()) {
            talk.skip(self.post.now);
        }
        self.history.add(node, update);
    }

    fn push(&mut self, node: u32, update: u32, hops: u32, times: u32) {
        if self.is_settled() {
            return;
        }
        if self.post.troubles.is_up(node) && !self.post.troubles.is_mute(node) {
            let mut rolls = self.peers.rolls(u64::from(node) << 32 | u64::from(update), self.post.now);
            rolls.peers(node, self.nodes, self.scenario.protocol.fanout(), &mut self.chosen);
            for peer in &self.chosen {
                self.post.send(Kind::Copy, node, *peer, update, hops + 1);
            }
        }
        let left = if times == FOREVER { FOREVER } else { times - 1 };
        if left > 0 {
            let again = Event::new(Kind::Push, left, node, update, hops);
            self.post.queue.push(self.post.now + self.interval, again);
        }
    }

    /// A node gives what it spreads to some peers, and asks them for what they spread.
    fn contact(&mut self, node: u32) {
        if self.post.troubles.is_up(node) {
            let (mut chosen, mut found) = (std::mem::take(&mut self.chosen), std::mem::take(&mut self.found));
            let mut rolls = self.peers.rolls(u64::from(node), self.post.now);
            rolls.peers(node, self.nodes, self.scenario.protocol.fanout(), &mut chosen);
            self.spoken_of(node, &mut found);
            for peer in &chosen {
                for update in &found {
                    self.post.send(Kind::Copy, node, *peer, *update, 0);
                }
            }
            self.found = found;
            for peer in &chosen {
                if self.post.ask(Kind::Pull, node, *peer) {
                    self.answer_pull(node, *peer);
                }
            }
            self.chosen = chosen;
        }
        if !self.history.is_empty() {
            self.history.age(node);
        }
    }

    /// What a node spreads by push and pull.
    fn spoken_of(&self, node: u32, found: &mut Vec<u32>) {
        found.clear();
        match self.scenario.protocol.rounds {
            _ if self.post.troubles.is_mute(node) => {}
            Rounds::Times(_) => self.history.list(node, found),
            Rounds::Forever => self.holdings.list(node, found),
        }
    }

    fn answer_pull(&mut self, asker: u32, node: u32) {
        let mut found = std::mem::take(&mut self.found);
        self.spoken_of(node, &mut found);
        for update in found.iter().filter(|update| !self.holdings.has(asker, **update)) {
            self.post.send(Kind::Copy, node, asker, *update, 0);
        }
        self.found = found;
    }

    /// A node tells peers to which it has no link what it learnt in the last heartbeats.
    fn heartbeat(&mut self, node: u32) {
        self.history.list(node, &mut self.found);
        let speaks = self.post.troubles.is_up(node) && !self.post.troubles.is_mute(node);
        if speaks && !self.found.is_empty() {
            let links = self.graph.as_ref().map_or(&[][..], |graph| graph.links(node));
            let mut rolls = self.peers.rolls(u64::from(node), self.post.now);
            self.chosen.clear();
            for _ in 0..TRIES {
                let peer = super::dice::below(rolls.roll(), u64::from(self.nodes)) as u32;
                if peer != node && !links.contains(&peer) && !self.chosen.contains(&peer) {
                    self.chosen.push(peer);
                }
                if self.chosen.len() == LAZY_PEERS {
                    break;
                }
            }
            for peer in &self.chosen {
                self.post.tally.bytes += ENVELOPE_BYTES;
                for update in &self.found {
                    self.post.send(Kind::IHave, node, *peer, *update, 0);
                }
            }
        }
        self.history.age(node);
    }

    /// A node reconciles with a random peer it is connected to: one that is up, on its side of a partition.
    fn begin_reconcile(&mut self, node: u32) {
        let mut rolls = self.peers.rolls(u64::from(node), self.post.now << 1 | 1 << 63);
        let draws = (0..TRIES).map(|_| super::dice::below(rolls.roll(), u64::from(self.nodes)) as u32);
        let troubles = &self.post.troubles;
        let reaches = |peer: &u32| *peer != node && troubles.is_up(*peer) && troubles.are_linked(node, *peer);
        let Some(peer) = draws.collect::<Vec<_>>().into_iter().find(reaches) else { return };
        if self.post.ask(Kind::Reconcile, node, peer) {
            self.answer_reconcile(node, peer);
        }
    }

    fn answer_reconcile(&mut self, asker: u32, node: u32) {
        if self.post.troubles.is_mute(node) {
            return;
        }
        self.post.tally.bytes += ROOT_BYTES + ENVELOPE_BYTES;
        let digest = self.scenario.protocol.digest;
        let gave = self.give(node, asker);
        self.holdings.lacking(node, asker, digest, &mut self.found);
        let gets = !self.found.is_empty();
        if gave || gets {
            let vector = ENVELOPE_BYTES + DIGEST_BYTES * self.holdings.authors() as u64;
            // One each way, after the hashes differed.
            self.post.tally.bytes += 2 * vector;
        }
        if gets && self.post.ask(Kind::Give, node, asker) {
            self.give(asker, node);
        }
    }

    /// A node gives another what that asks for by its digest. Whether there was anything.
    fn give(&mut self, node: u32, taker: u32) -> bool {
        if self.post.troubles.is_mute(node) {
            return false;
        }
        self.holdings.lacking(taker, node, self.scenario.protocol.digest, &mut self.found);
        for update in &self.found {
            self.post.send(Kind::Repair, node, taker, *update, 0);
        }
        !self.found.is_empty()
    }

    /// Writes all updates that are due, and comes back for the next.
    fn write_due(&mut self) {
        let workload = &self.scenario.workload;
        let start = ticks(workload.at.unwrap_or_default());
        let ticks_each = workload.rate.map_or(0.0, |rate| 1e3 * TICKS_MS as f64 / rate);
        while self.due < self.written_at.len() {
            let at = start + (self.due as f64 * ticks_each) as u64;
            if at > self.post.now {
                return self.schedule(at, Kind::Write, 0, 0);
            }
            let author = self.authors[self.due % self.authors.len()];
            let update = self.holdings.nth_written(self.due);
            self.due += 1;
            if self.post.troubles.is_up(author) {
                self.write(author, update);
            } else {
                self.pending.entry(author).or_default().push(update);
            }
        }
    }

    fn write(&mut self, author: u32, update: u32) {
        self.written_at[update as usize] = self.post.now;
        self.agreement.from.get_or_insert(self.post.now + STALE_TICKS);
        self.agreement.lacking += self.agreement.up;
        self.post.tally.wrote(author, update);
        self.spread(Event::new(Kind::Copy, author, author, update, 0), author, None);
    }

    fn strike(&mut self, number: usize) {
        let fault = &self.scenario.faults[number];
        self.post.troubles.strike(number, &self.authors_sorted);
        match fault.trouble {
            Trouble::Churn { .. } => {
                for node in 0..self.nodes {
                    let writes = self.authors_sorted.binary_search(&node).is_ok();
                    if !writes && self.post.troubles.begins_away(number, node) {
                        self.toggle(number, node);
                    } else {
                        self.schedule_toggle(number, node);
                    }
                }
            }
            Trouble::Join { .. } => {
                for node in self.post.troubles.late(number, &self.authors_sorted) {
                    self.change(node, |troubles| troubles.start(node));
                }
            }
            _ => {}
        }
    }

    fn toggle(&mut self, number: usize, node: u32) {
        self.change(node, |troubles| troubles.toggle(number, node));
        self.schedule_toggle(number, node);
    }

    fn schedule_toggle(&mut self, number: usize, node: u32) {
        if let Some(at) = self.post.troubles.next_toggle(number, node, self.post.now) {
            self.schedule(at, Kind::Toggle, number as u32, node);
        }
    }

    /// Something changes about a node, and it may leave or come back by it.
    fn change(&mut self, node: u32, change: impl FnOnce(&mut Troubles<'_>)) {
        let was_up = self.post.troubles.is_up(node);
        change(&mut self.post.troubles);
        let is_up = self.post.troubles.is_up(node);
        let lacks = self.post.tally.written - self.holdings.count(node) as u64;
        match (was_up, is_up) {
            (true, false) => {
                self.agreement.up -= 1;
                self.agreement.lacking -= lacks;
            }
            (false, true) => {
                self.agreement.up += 1;
                self.agreement.lacking += lacks;
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
        let tally = &self.post.tally;
        self.trace.note(tally.sent, tally.dropped);
        self.trace.note(tally.pairs(), self.post.now);
        let updates = self.written_at.len();
        let complete = (0..self.nodes).filter(|node| self.holdings.count(*node) == updates).count();
        let mut found = vec![("complete", complete as f64 / f64::from(self.nodes))];
        if self.reconcile.is_some() {
            let holes: usize = match self.scenario.protocol.digest {
                Digest::Max => (0..self.nodes).map(|node| self.holdings.holes(node)).sum(),
                Digest::Prefix => 0,
            };
            found.push(("holes", holes as f64 / (f64::from(self.nodes) * updates as f64)));
        }
        if !self.scenario.faults.is_empty() {
            let Agreement { from, last, stale, healed, .. } = self.agreement;
            let watched = last.saturating_sub(from.unwrap_or(last));
            found.extend((watched > 0).then(|| ("stale", stale / watched as f64)));
            let healed = healed.zip(self.post.troubles.end());
            found.extend(healed.map(|(healed, end)| ("healed_ms", ms(healed.saturating_sub(end)))));
        }
        let mut measured =
            self.post.tally.measured(self.trace.value(), self.scenario.network.regions.is_some());
        measured.metrics.extend(found.into_iter().map(|(name, value)| (name.into(), value)));
        measured
    }
}
