//! What happens when in a run of a scenario: faults and whom they strike, drawn from the seed, and what clients do.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

use super::super::scenario::{FaultKind, Groups, Questions, Scenario, Who, Zone};
use crate::proto::limits::{DESCRIPTION_BYTES_MAX, SCHEMA_BYTES_MAX, SLOTS};
use crate::proto::name::{AgentName, ZoneName};
use crate::sim::regions::REGIONS;
use crate::sim::{Behaviour, Fault, RestartFrom};

/// By this time links are up and nodes have heard each other, milliseconds.
const WARM_MS: u64 = 15_000;
/// How long agents live that are withdrawn again in a run without an end of its own, milliseconds.
const WITHDRAWN_AFTER_MS: u64 = 15_000;
/// Hosts of an adversary that surround the victim of an eclipse.
const ECLIPSE_HOSTS: usize = 4;
/// Agents that each identity of a Sybil offers.
const SYBIL_OFFERS: u32 = 100;
/// What the records of a zone may weigh where there is a Sybil: some 550 records, so that the zone is full in a run. That
/// of the live node is 256 times as much.
pub(super) const FLOODED_WEIGHT_MAX: usize = 1024 * 1024;
/// Stamps no further ahead than this are taken everywhere, milliseconds.
const STAMPED_NEAR_MS: i64 = 50_000;
/// Share of the names asked for that nobody has.
const NOBODY: f64 = 0.2;
/// Bytes of a record beside the text of its card.
const FRAME_BYTES: usize = 410;

/// Something that happens in a run.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// Something goes wrong, or ends.
    Fault(Fault),
    /// An update is written by this author, or the next one who can.
    Write { update: usize, author: usize },
    /// What an update offered is withdrawn.
    Withdraw { update: usize },
    /// A client of this node, or of the next one that is up, asks something.
    Ask { node: usize, wanted: Wanted },
    /// A node joins a zone as a member.
    JoinZone(usize, ZoneName),
    /// A node leaves a zone.
    LeaveZone(usize, ZoneName),
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    /// All agents of a zone and those below it.
    Scope(ZoneName),
    /// The agent that an update offers, if it is written by then.
    Update(usize),
    /// An agent of a zone that nobody offers.
    Nobody(ZoneName),
}

/// How many hosts a run has: its nodes, then those of an adversary that come beside them.
pub(super) fn hosts(scenario: &Scenario) -> usize {
    let nodes = scenario.network.nodes;
    let strangers = scenario.faults.iter().map(|fault| match fault.kind {
        FaultKind::Sybil { who } => who.of(nodes),
        FaultKind::Eclipse { .. } => ECLIPSE_HOSTS,
        _ => 0,
    });
    nodes + strangers.sum::<usize>()
}

/// Everything that happens in a run, in order.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// Soonest last.
    actions: Vec<(u64, Action)>,
    /// Hosts that start later than the others.
    pub(super) late: BTreeSet<usize>,
    /// When the last fault ends; none without faults.
    pub(super) healed_at: Option<u64>,
    /// When nothing more happens.
    pub(super) quiet_at: u64,
    /// Until when the world at least rests.
    pub(super) until: u64,
    /// How far ahead a clock may have stamped what was written, milliseconds; 0 if that is within what others take.
    pub(super) stamped_ahead_ms: u64,
}

impl Timeline {
    pub(super) fn of(scenario: &Scenario, regions: &[u8], rng: &mut impl Rng) -> Timeline {
        let until = scenario.until.map(millis);
        let mut draw = Draw {
            rng,
            regions,
            nodes: scenario.network.nodes,
            zones: &scenario.zones,
            zone: None,
            total: hosts(scenario),
            hosts: scenario.network.nodes,
            authors: Vec::new(),
            until: until.unwrap_or(u64::MAX),
            backed_up: Vec::new(),
            timeline: Timeline::default(),
        };
        // Writers first: some faults strike them, and others spare them.
        let written_at = draw.writes(scenario);
        // Where writes go on past the end faults may meet them there.
        draw.until = draw.until.max(written_at);
        for fault in &scenario.faults {
            draw.zone = fault.zone.as_ref();
            draw.fault(millis(fault.at), &fault.kind, written_at);
        }
        draw.withdrawals(scenario, written_at);
        if let Some(questions) = &scenario.questions {
            draw.questions(questions, scenario.workload.updates);
        }
        let mut timeline = draw.timeline;
        let last = timeline.actions.iter().map(|(at, _)| *at).max().unwrap_or(0);
        timeline.quiet_at = last.max(timeline.healed_at.unwrap_or(0));
        timeline.until = until.unwrap_or(0);
        // Of one time, what was planned first happens first.
        timeline.actions.sort_by_key(|(at, _)| *at);
        timeline.actions.reverse();
        timeline
    }

    /// What happens next, if that is by `until`.
    pub(super) fn next(&mut self, until: u64) -> Option<(u64, Action)> {
        self.actions.pop_if(|(at, _)| *at <= until)
    }
}

struct Draw<'a, R> {
    rng: &'a mut R,
    regions: &'a [u8],
    nodes: usize,
    zones: &'a [Zone],
    /// The zone that the present fault is about.
    zone: Option<&'a ZoneName>,
    /// All hosts of the world.
    total: usize,
    /// Nodes, and the hosts of an adversary so far.
    hosts: usize,
    /// Nodes that write.
    authors: Vec<usize>,
    /// No fault lasts longer.
    until: u64,
    /// Hosts of which there is a backup.
    backed_up: Vec<usize>,
    timeline: Timeline,
}

impl<R: Rng> Draw<'_, R> {
    /// Plans all updates; when the last is written.
    fn writes(&mut self, scenario: &Scenario) -> u64 {
        let workload = &scenario.workload;
        let authors = workload.authors.unwrap_or(self.nodes).min(self.nodes).min(workload.updates);
        let mut order: Vec<usize> = (0..self.nodes).collect();
        order.shuffle(self.rng);
        order.truncate(authors);
        let first = workload.at.map_or(WARM_MS, millis);
        let gap = workload.rate.map_or(0.0, |rate| 1e3 / rate);
        let mut last = first;
        for update in 0..workload.updates {
            last = first + (update as f64 * gap) as u64;
            self.plan(last, Action::Write { update, author: order[update % authors] });
        }
        self.authors = order;
        last
    }

    /// Plans all questions: what is asked, and at whom it is tried first.
    fn questions(&mut self, questions: &Questions, updates: usize) {
        let first = questions.at.map_or(WARM_MS, millis);
        let nodes: Vec<usize> = (0..self.nodes)
            .filter(|node| questions.zone.as_ref().is_none_or(|it| self.serves(*node, it)))
            .collect();
        let mut catalogue: Vec<Wanted> = (0..updates).map(Wanted::Update).collect();
        catalogue.extend(self.zones.iter().map(|zone| Wanted::Scope(zone.name.clone())));
        catalogue.shuffle(self.rng);
        for number in 0..questions.count {
            let at = first + (number as f64 * 1e3 / questions.rate) as u64;
            let wanted = match questions.zipf {
                Some(exponent) => catalogue[self.some_rank(catalogue.len(), exponent)].clone(),
                None => self.wanted(questions, updates),
            };
            let node = nodes[self.rng.random_range(0..nodes.len())];
            self.plan(at, Action::Ask { node, wanted });
        }
    }

    fn wanted(&mut self, questions: &Questions, updates: usize) -> Wanted {
        let zone = self.zones[self.rng.random_range(0..self.zones.len())].name.clone();
        if self.rng.random_bool(questions.names) {
            match self.rng.random_bool(NOBODY) {
                true => Wanted::Nobody(zone),
                false => Wanted::Update(self.rng.random_range(0..updates)),
            }
        } else {
            let somewhere = if self.rng.random() { ZoneName::root() } else { zone };
            Wanted::Scope(questions.scope.clone().unwrap_or(somewhere))
        }
    }

    /// A rank by Zipf's law, 0 first.
    fn some_rank(&mut self, ranks: usize, exponent: f64) -> usize {
        let weight = |rank: usize| libm::pow(rank as f64 + 1.0, -exponent);
        let mut left = self.rng.random_range(0.0..1.0) * (0..ranks).map(weight).sum::<f64>();
        let passed = (0..ranks).find(|rank| {
            left -= weight(*rank);
            left <= 0.0
        });
        passed.unwrap_or(ranks - 1)
    }

    /// Half way between the last write and the end some of the agents are withdrawn.
    fn withdrawals(&mut self, scenario: &Scenario, written_at: u64) {
        let workload = &scenario.workload;
        let withdrawn = (workload.updates as f64 * workload.withdrawn).round() as usize;
        let end = self.timeline.healed_at.into_iter().chain(scenario.until.map(millis)).max();
        let end = end.filter(|end| *end > written_at).unwrap_or(written_at + 2 * WITHDRAWN_AFTER_MS);
        let mut updates: Vec<usize> = (0..workload.updates).collect();
        updates.shuffle(self.rng);
        for update in updates.into_iter().take(withdrawn) {
            self.plan(written_at + (end - written_at) / 2, Action::Withdraw { update });
        }
    }

    fn fault(&mut self, at: u64, kind: &FaultKind, written_at: u64) {
        match kind {
            FaultKind::Partition { groups, lasts } => self.partition(at, groups, *lasts),
            FaultKind::Churn { share, mean_off, lasts } => {
                let end = lasts.map_or(u64::MAX, |lasts| at + millis(lasts)).min(self.until);
                // Without any end it goes on until the last update had time to spread.
                let end = if end == u64::MAX { written_at.max(at) + 10 * millis(*mean_off) } else { end };
                self.churn(at, *share, millis(*mean_off), end);
            }
            FaultKind::Crash { who, memory, lasts } => self.crash(at, *who, *memory, *lasts),
            FaultKind::Backup { who } => {
                self.backed_up = self.pick(*who);
                for host in self.backed_up.clone() {
                    self.plan_fault(at, Fault::BackUp(host));
                }
            }
            FaultKind::Join { who } => {
                for host in self.pick(*who) {
                    self.timeline.late.insert(host);
                    self.plan_fault(at, Fault::Start(host));
                }
                self.heals(at);
            }
            FaultKind::JoinZone { who, zone } => self.join_zone(at, *who, zone),
            FaultKind::LeaveZone { who, zone } => self.leave_zone(at, *who, zone),
            FaultKind::Clock { who, error_ms, lasts } => self.clock(at, *who, *error_ms, *lasts, written_at),
            FaultKind::Freeze { who, lasts } => {
                let end = self.end(at, *lasts);
                for host in self.pick(*who) {
                    self.plan_fault(at, Fault::Suspend(host, end - at));
                }
            }
            FaultKind::Sleep { lasts } => {
                self.plan_fault(at, Fault::Skip(millis(*lasts)));
                self.heals(at);
            }
            FaultKind::Mute { who } => self.corrupt(at, *who, Behaviour::Mute),
            FaultKind::Lie { who } => self.corrupt(at, *who, Behaviour::Lie),
            FaultKind::Hollow { who } => self.corrupt(at, *who, Behaviour::Hollow),
            FaultKind::Hide { who } => self.corrupt(at, *who, Behaviour::Hide),
            FaultKind::Invent { who, zones } => {
                let zones = (*zones).min(usize::from(SLOTS)) as u32;
                self.corrupt(at, *who, Behaviour::Invent { zones });
            }
            FaultKind::Older { who } => self.corrupt(at, *who, Behaviour::Older),
            FaultKind::Equivocate { who } => {
                for author in self.authors.iter().copied().take(who.of(self.nodes)).collect::<Vec<_>>() {
                    self.plan_fault(at, Fault::Corrupt(author, Behaviour::Equivocate));
                }
            }
            FaultKind::Sybil { who } => {
                for host in self.strangers(who.of(self.nodes)) {
                    self.timeline.late.insert(host);
                    self.plan_fault(at, Fault::Corrupt(host, Behaviour::Sybil { offers: SYBIL_OFFERS }));
                    self.plan_fault(at, Fault::Start(host));
                }
            }
            FaultKind::Eclipse { lasts } => {
                for host in self.strangers(ECLIPSE_HOSTS) {
                    self.plan_fault(0, Fault::Corrupt(host, Behaviour::Stale));
                }
                let victim = self.rng.random_range(0..self.nodes);
                let end = self.end(at, *lasts);
                self.plan_fault(at, Fault::Eclipse(Some(victim)));
                self.plan_fault(end, Fault::Eclipse(None));
            }
        }
    }

    /// Nodes turn; those that write stay honest as long as there are others.
    fn corrupt(&mut self, at: u64, who: Who, behaviour: Behaviour) {
        let mut nodes = self.pick(Who::Share(1.0));
        // Stable: on either side of the line the draw still decides.
        nodes.sort_by_key(|node| self.authors.contains(node));
        for node in nodes.into_iter().take(who.of(self.nodes)) {
            self.plan_fault(at, Fault::Corrupt(node, behaviour));
        }
    }

    /// Hosts of an adversary beside the nodes.
    fn strangers(&mut self, count: usize) -> std::ops::Range<usize> {
        let first = self.hosts;
        self.hosts += count;
        first..self.hosts
    }

    fn partition(&mut self, at: u64, groups: &Groups, lasts: Duration) {
        let parts: Vec<u8> = match groups {
            Groups::Zone(zone) => (0..self.total).map(|node| u8::from(self.is_below(node, zone))).collect(),
            Groups::Random(count) => {
                // Dealt and then shuffled, so that groups are of one size and none is empty.
                let mut parts: Vec<u8> = (0..self.total).map(|at| (at % *count) as u8).collect();
                parts.shuffle(self.rng);
                parts
            }
            Groups::Regions => {
                self.regions.iter().map(|region| u8::from(usize::from(*region) >= REGIONS / 2)).collect()
            }
        };
        let end = self.end(at, lasts);
        self.plan_fault(at, Fault::Part(parts));
        self.plan_fault(end, Fault::Part(vec![0; self.total]));
    }

    /// Each host is away and back in turns of random length; at the start this share is away.
    fn churn(&mut self, at: u64, share: f64, mean_off_ms: u64, end: u64) {
        let mean_on_ms = mean_off_ms as f64 * (1.0 - share) / share;
        for host in 0..self.nodes {
            let mut now = at;
            // Decays have no memory: who is at home has a whole time before it, since whenever.
            if !self.rng.random_bool(share) {
                now += self.some_time(mean_on_ms);
            }
            while now < end {
                // Back by the end, for healing is counted from there.
                let down_ms = self.some_time(mean_off_ms as f64).max(1).min(end - now);
                self.plan_fault(now, Fault::Crash { node: host, from: RestartFrom::Disk, down_ms });
                now += down_ms + self.some_time(mean_on_ms).max(1);
            }
        }
        self.heals(end);
    }

    fn crash(&mut self, at: u64, who: Who, memory: RestartFrom, lasts: Duration) {
        let hosts = match memory {
            // Those with a backup first.
            RestartFrom::Backup | RestartFrom::Torn => {
                let mut hosts = self.backed_up.clone();
                let others = self.pick(Who::Share(1.0));
                hosts.extend(others.into_iter().filter(|it| !self.backed_up.contains(it)));
                hosts.truncate(who.of(self.nodes));
                hosts
            }
            RestartFrom::Disk | RestartFrom::Lost => self.pick(who),
        };
        let end = self.end(at, lasts);
        for host in hosts {
            self.plan_fault(at, Fault::Crash { node: host, from: memory, down_ms: (end - at).max(1) });
        }
    }

    fn clock(&mut self, at: u64, who: Who, error_ms: i64, lasts: Option<Duration>, written_at: u64) {
        let forever = self.until.min(u64::MAX - 1);
        // A clock wrong for ever would keep the world from ever agreeing.
        let forever = if self.until == u64::MAX { written_at.max(at) + WARM_MS } else { forever };
        let end = lasts.map_or(forever, |lasts| self.end(at, lasts));
        for host in self.pick(who) {
            self.plan_fault(at, Fault::Jump(host, error_ms));
            self.plan_fault(end, Fault::Jump(host, 0));
        }
        self.heals(end);
        if error_ms > STAMPED_NEAR_MS {
            self.timeline.stamped_ahead_ms = self.timeline.stamped_ahead_ms.max(error_ms as u64);
        }
    }

    /// When something ends that begins at `at`.
    fn end(&mut self, at: u64, lasts: Duration) -> u64 {
        let end = (at + millis(lasts)).min(self.until).max(at + 1);
        self.heals(end);
        end
    }

    fn heals(&mut self, at: u64) {
        self.timeline.healed_at = self.timeline.healed_at.max(Some(at));
    }

    fn plan(&mut self, at: u64, action: Action) {
        self.timeline.actions.push((at, action));
    }

    fn plan_fault(&mut self, at: u64, fault: Fault) {
        self.plan(at, Action::Fault(fault));
    }

    fn join_zone(&mut self, at: u64, who: Who, zone: &ZoneName) {
        let strangers = (0..self.nodes).filter(|node| !self.serves(*node, zone)).collect();
        for node in self.pick_among(strangers, who) {
            self.plan(at, Action::JoinZone(node, zone.clone()));
        }
        self.heals(at);
    }

    fn leave_zone(&mut self, at: u64, who: Who, zone: &ZoneName) {
        let guests = (0..self.nodes).filter(|node| self.is_away(*node, zone)).collect();
        for node in self.pick_among(guests, who) {
            self.plan(at, Action::LeaveZone(node, zone.clone()));
        }
        self.heals(at);
    }

    /// Some nodes; of the zone that the fault is about, if it is about one.
    fn pick(&mut self, who: Who) -> Vec<usize> {
        let nodes = (0..self.nodes).filter(|node| self.zone.is_none_or(|zone| self.serves(*node, zone)));
        self.pick_among(nodes.collect(), who)
    }

    fn pick_among(&mut self, mut nodes: Vec<usize>, who: Who) -> Vec<usize> {
        nodes.shuffle(self.rng);
        // `Who` takes one at least, of none it would panic.
        nodes.truncate(who.of(nodes.len().max(1)));
        nodes
    }

    fn serves(&self, node: usize, zone: &ZoneName) -> bool {
        let named = self.zones.iter().filter(|it| it.name == *zone);
        named.into_iter().any(|it| it.members.0.contains(&node) || it.followers.0.contains(&node))
    }

    fn is_below(&self, node: usize, zone: &ZoneName) -> bool {
        self.zones.iter().any(|it| it.name.is_within(zone) && self.serves(node, &it.name))
    }

    /// Whether a zone is not the home of a node, which it cannot leave.
    fn is_away(&self, node: usize, zone: &ZoneName) -> bool {
        let home = self.zones.iter().find(|it| it.members.0.contains(&node));
        self.serves(node, zone) && home.is_none_or(|home| home.name != *zone)
    }

    /// An exponential draw. Milliseconds.
    fn some_time(&mut self, mean_ms: f64) -> u64 {
        // 0 has no logarithm.
        let uniform: f64 = self.rng.random_range(f64::EPSILON..1.0);
        (-libm::log(uniform) * mean_ms) as u64
    }
}

/// Name of the agent that an update offers.
pub(super) fn name(update: usize) -> AgentName {
    format!("agent-{update}").parse().expect("a label")
}

/// Name of an agent that nobody offers.
pub(super) fn nobody() -> AgentName {
    "nobody".parse().expect("a label")
}

/// Text of a card whose record takes `record_bytes`, as near as the limits of a card allow.
pub(super) fn text(update: usize, record_bytes: usize) -> String {
    let mut text = format!("update {update}");
    let most = DESCRIPTION_BYTES_MAX + 2 * SCHEMA_BYTES_MAX;
    let wanted = record_bytes.saturating_sub(FRAME_BYTES).min(most);
    while text.len() < wanted {
        text.push_str(" and so on"[..].get(..wanted - text.len()).unwrap_or(" and so on"));
    }
    text
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}
