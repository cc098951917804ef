//! Plans of trees of zones: which zones there are, what happens to whole ones of them, and what clients ask meanwhile.

use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};

use super::{MINUTE_MS, Plan, SECOND_MS};
use crate::proto::name::{FullName, ZoneName};
use crate::sim::{Asked, ClientOp, Fault, Listing, RestartFrom, Setup, ZoneSetup};

/// By this time zones have found their parents, milliseconds.
const STANDS_MS: u64 = 2 * MINUTE_MS;
/// Mean time between two questions, milliseconds.
const QUESTION_MS: u64 = 800;
/// Mean time between two lists that are read page by page, milliseconds.
const READING_MS: u64 = 15 * SECOND_MS;
/// Questions of each node long after the last fault.
const LAST_QUESTIONS: u64 = 4;
/// When those are asked after the end of all faults, milliseconds: between when everybody must find everything again and the
/// end of the run.
const LAST_QUESTIONS_MS: (u64, u64) = (5 * MINUTE_MS, 10 * MINUTE_MS);

impl Plan {
    /// Draws a run of a tree of zones in which whole zones die, return without their disks, are cut off or begin late.
    pub(super) fn draw_tree(rng: &mut impl Rng) -> Plan {
        let zones = tree(rng);
        let nodes = 1 + zones.iter().flat_map(|zone| &zone.members).max().copied().unwrap_or(0);
        let setup = Setup { nodes, zones, dialable: true, bootstrapped: rng.random(), ..Setup::default() };
        let span_ms = rng.random_range(5 * MINUTE_MS..10 * MINUTE_MS);
        let mut plan = Plan {
            setup,
            late: 0,
            span_ms,
            faults: Vec::new(),
            operations: Vec::new(),
            calls: Vec::new(),
            questions: Vec::new(),
            clocks_jumped: false,
            horizon_ms: 0,
        };
        for _ in 0..rng.random_range(1..=4) {
            plan.strike(rng);
        }
        plan.write(rng);
        plan.ask(rng);
        // Drawn after the rest: what is asked otherwise does not change.
        plan.share(rng);
        plan.read(rng);
        plan.halve(rng);
        plan.leave(rng);
        plan
    }

    /// Something happens to a node, to a zone, or between zones.
    fn strike(&mut self, rng: &mut impl Rng) {
        let Some(zone) = self.setup.zones.choose(rng).cloned() else { return };
        let at = rng.random_range(STANDS_MS..self.span_ms);
        let length = *[5 * SECOND_MS, 30 * SECOND_MS, 3 * MINUTE_MS].choose(rng).unwrap_or(&SECOND_MS);
        let from = if rng.random_bool(0.4) { RestartFrom::Lost } else { RestartFrom::Disk };
        let nodes = self.setup.nodes;
        match rng.random_range(0..6) {
            0 | 1 => {
                let crash = |node| (at, Fault::Crash { node, from, down_ms: length });
                self.faults.extend(zone.members.iter().map(|node| crash(*node)));
            }
            2 | 3 => {
                for _ in 0..rng.random_range(1..=3) {
                    let (node, at) = (rng.random_range(0..nodes), rng.random_range(STANDS_MS..self.span_ms));
                    self.faults.push((at, Fault::Crash { node, from, down_ms: length }));
                }
            }
            4 => {
                let is_inside = |node| {
                    let mut served = self.setup.zones.iter().filter(|it| it.members.contains(&node));
                    served.any(|it| it.name.is_within(&zone.name))
                };
                let inside: Vec<u8> = (0..nodes).map(|node| u8::from(is_inside(node))).collect();
                let halves = (0..nodes).map(|_| rng.random_range(0..2)).collect();
                let parts = if zone.name.is_root() { halves } else { inside };
                self.faults.push((at, Fault::Part(parts)));
                self.faults.push((at + length, Fault::Part(vec![0; nodes])));
            }
            // It is down from the start, as good as not there, and begins late.
            _ if !zone.name.is_root() => {
                let crash = |node| (1, Fault::Crash { node, from: RestartFrom::Lost, down_ms: at });
                self.faults.extend(zone.members.iter().map(|node| crash(*node)));
            }
            _ => {}
        }
    }

    /// Every node offers something early, and some change or withdraw it later.
    fn write(&mut self, rng: &mut impl Rng) {
        for zone in &self.setup.zones {
            for node in &zone.members {
                let offer = |number: u32| {
                    let agent = agent_of(*node, &zone.name).agent;
                    ClientOp::Offer(vec![(agent, text(number))])
                };
                // Again and again until it is there: some nodes are down at first.
                for round in 0..self.span_ms / MINUTE_MS {
                    let at = rng.random_range(1..MINUTE_MS) + round * MINUTE_MS;
                    let operation = match rng.random_range(0..10) {
                        0 => ClientOp::Withdraw(agent_of(*node, &zone.name).agent),
                        1..=3 => offer(rng.random_range(0..3)),
                        _ if round == 0 => offer(0),
                        _ => continue,
                    };
                    self.operations.push((at, *node, zone.name.clone(), operation));
                }
            }
        }
        self.operations.sort_by_key(|(at, node, ..)| (*at, *node));
    }

    fn ask(&mut self, rng: &mut impl Rng) {
        let nodes = self.setup.nodes;
        for _ in 0..(self.span_ms - MINUTE_MS) / QUESTION_MS {
            let (at, node) = (rng.random_range(MINUTE_MS..self.span_ms), rng.random_range(0..nodes));
            self.questions.push((at, node, self.asked(rng)));
        }
        for node in 0..nodes {
            for _ in 0..LAST_QUESTIONS {
                let after = rng.random_range(LAST_QUESTIONS_MS.0..LAST_QUESTIONS_MS.1);
                self.questions.push((self.span_ms + after, node, self.asked(rng)));
            }
        }
    }

    /// The halves of some zones never heard of each other. Those of the root do: no zone above could tell them.
    fn halve(&mut self, rng: &mut impl Rng) {
        let below = self.setup.zones.iter().filter(|zone| !zone.name.is_root() && zone.members.len() > 1);
        let halved = below.filter(|_| rng.random_bool(0.25)).map(|zone| zone.name.clone());
        self.setup.halved = halved.collect();
    }

    /// All members of a zone offer an agent of one name.
    fn share(&mut self, rng: &mut impl Rng) {
        for zone in &self.setup.zones {
            for node in &zone.members {
                let shared = "shared".parse().expect("a label");
                let offer = ClientOp::Offer(vec![(shared, text(rng.random_range(0..3)))]);
                self.operations.push((rng.random_range(1..self.span_ms), *node, zone.name.clone(), offer));
            }
        }
        self.operations.sort_by_key(|(at, node, ..)| (*at, *node));
    }

    /// Some of those who take part in a second zone leave it.
    fn leave(&mut self, rng: &mut impl Rng) {
        for (number, zone) in self.setup.zones.iter().enumerate() {
            let is_home = |node: &usize| {
                let mut before = self.setup.zones[..number].iter();
                before.all(|other| !other.members.contains(node))
            };
            for guest in zone.members.iter().filter(|node| !is_home(node)) {
                if rng.random_bool(0.5) {
                    let at = rng.random_range(STANDS_MS..self.span_ms);
                    self.operations.push((at, *guest, zone.name.clone(), ClientOp::LeaveZone));
                }
            }
        }
        self.operations.sort_by_key(|(at, node, ..)| (*at, *node));
    }

    /// Lists that are read page by page, by name or by words, at one node or at one after the other.
    fn read(&mut self, rng: &mut impl Rng) {
        let nodes = self.setup.nodes;
        let during = (self.span_ms - MINUTE_MS) / READING_MS;
        for number in 0..during + nodes as u64 {
            let (from, until) = if number < during {
                (MINUTE_MS, self.span_ms)
            } else {
                (self.span_ms + LAST_QUESTIONS_MS.0, self.span_ms + LAST_QUESTIONS_MS.1 - MINUTE_MS)
            };
            let zone = match self.setup.zones.choose(rng) {
                Some(zone) if rng.random_bool(0.3) => zone.name.clone(),
                _ => ZoneName::root(),
            };
            let text = if rng.random() { "text so".into() } else { String::new() };
            let listing = Listing { zone, text, moves: rng.random() };
            let at = rng.random_range(from..until);
            self.questions.push((at, rng.random_range(0..nodes), Asked::Pages(listing)));
        }
    }

    fn asked(&self, rng: &mut impl Rng) -> Asked {
        let Some(zone) = self.setup.zones.choose(rng) else { return Asked::Agents(ZoneName::root()) };
        match rng.random_range(0..10) {
            0..=4 => Asked::Agents(ZoneName::root()),
            5 | 6 => Asked::Agents(zone.name.clone()),
            7 => Asked::Name(FullName { agent: "nobody".parse().expect("a label"), zone: zone.name.clone() }),
            _ => Asked::Name(agent_of(zone.members.choose(rng).copied().unwrap_or(0), &zone.name)),
        }
    }
}

/// A tree of four to seven zones, some below zones that nobody serves; each has members of its own, and some share one.
fn tree(rng: &mut impl Rng) -> Vec<ZoneSetup> {
    let mut names = vec![ZoneName::root()];
    for number in 0..rng.random_range(3..=6) {
        let above = names.choose(rng).cloned().unwrap_or_else(ZoneName::root);
        let between =
            if rng.random_bool(0.3) { format!("z{number}.unserved{number}") } else { format!("z{number}") };
        let name = if above.is_root() { between } else { format!("{between}.{above}") };
        names.extend(name.parse());
    }
    let mut first = 0;
    let zone = |name: ZoneName| {
        let count = rng.random_range(1..=3).max(if name.is_root() { 2 } else { 1 });
        let mut members: Vec<usize> = (first..first + count).collect();
        if first > 0 && rng.random_bool(0.2) {
            members.push(rng.random_range(0..first));
        }
        first += count;
        ZoneSetup { name, members, followers: Vec::new() }
    };
    names.into_iter().map(zone).collect()
}

/// Texts of three lengths, so that a word in them counts for more in some than in others.
fn text(number: u32) -> String {
    format!("text{}", " and so on".repeat(number as usize))
}

fn agent_of(node: usize, zone: &ZoneName) -> FullName {
    FullName { agent: format!("agent-{node}").parse().expect("a label"), zone: zone.clone() }
}
