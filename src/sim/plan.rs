//! Runs drawn from a seed: faults, work, and whether some nodes are hostile. Each run has some kinds of faults and not
//! others, so that none hides another.

mod calls;
mod trees;

use rand::seq::{IndexedRandom, IteratorRandom, SliceRandom};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    Asked, Behaviour, ClientCall, ClientOp, Conditions, Fault, Names, Outcome, RestartFrom, Setup, Violation,
    World, ZoneSetup,
};
use crate::proto::io::Role;
use crate::proto::name::{AgentName, ZoneName};

const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 86_400_000;
/// Largest error of a clock that is wrong for a while.
const JUMP_MS_MAX: u64 = 6 * DAY_MS;
/// After this long everything written with a clock ahead is due, and every lease written before it has ended once.
const HORIZON_MS: (u64, u64) = (7 * DAY_MS, 8 * DAY_MS);

/// What the records of a zone may weigh among hostile nodes: less than what one of them fills it with, and more than what
/// honest nodes of a plan write together with the first slots, as many as those take, of the nine keys that three of them
/// fill it with.
const HOSTILE_ZONE_WEIGHT_MAX: usize = 192 * 1024;
/// Records of one node that fills a zone.
const FILL_RECORDS: u32 = 300;
/// Beacons that one node makes up: many times what a zone remembers of strangers in the time that it takes to send them.
const FALSE_BEACONS: u32 = 600;

/// A run: its faults and its work.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How the world begins.
    pub setup: Setup,
    /// Nodes that start later than the others; the last ones.
    pub late: usize,
    /// How long faults and work go on, virtual milliseconds.
    pub span_ms: u64,
    /// Faults and when they happen.
    pub faults: Vec<(u64, Fault)>,
    /// What clients want: when, of which node, in which zone.
    pub operations: Vec<(u64, usize, ZoneName, ClientOp)>,
    /// What clients call, when and where.
    pub calls: Vec<(u64, usize, ClientCall)>,
    /// What clients ask, when and where.
    pub questions: Vec<(u64, usize, Asked)>,
    /// Whether some clock jumped: then everything is settled only after the horizon.
    pub clocks_jumped: bool,
    /// Wall time after which no stamp of this run lies ahead, milliseconds.
    pub horizon_ms: u64,
}

/// What a run is drawn from.
struct Draw<'a, R> {
    rng: &'a mut R,
    nodes: usize,
    span_ms: u64,
    faults: Vec<(u64, Fault)>,
}

impl Plan {
    /// Draws a run of five nodes.
    pub fn draw(rng: &mut impl Rng) -> Plan {
        Plan::draw_of(5, rng)
    }

    /// Draws a run in which one to three of five to seven nodes are hostile.
    pub fn draw_hostile(rng: &mut impl Rng) -> Plan {
        let hostile = rng.random_range(1..=3);
        let nodes = 4 + hostile;
        let mut plan = Plan::draw_of(nodes, rng);
        let victim = rng.random_range(0..nodes);
        // Whom an eclipse strikes stays honest: hostile nodes are promised nothing.
        let others = (0..nodes).filter(|at| *at != victim);
        for at in others.sample(rng, hostile) {
            let names = if rng.random() { Names::Plain } else { Names::Ground };
            let behaviour = match rng.random_range(0..12) {
                0 => Behaviour::Mute,
                1 => Behaviour::Stale,
                2 => Behaviour::Sybil { offers: 40 },
                3 => Behaviour::Equivocate,
                4 | 5 => {
                    Behaviour::Fill { records: FILL_RECORDS, identities: rng.random_range(1..=3), names }
                }
                6 => Behaviour::FalseBeacons { beacons: FALSE_BEACONS },
                7 | 8 => Behaviour::Stall,
                _ => Behaviour::Lie,
            };
            // Some are hostile from the start, some turn.
            let at_ms = if rng.random() { 0 } else { rng.random_range(0..plan.span_ms) };
            plan.faults.push((at_ms, Fault::Corrupt(at, behaviour)));
        }
        if rng.random_bool(0.3) {
            let (from, until) = (rng.random_range(0..plan.span_ms), rng.random_range(0..plan.span_ms));
            plan.faults.push((from.min(until), Fault::Eclipse(Some(victim))));
            plan.faults.push((from.max(until), Fault::Eclipse(None)));
        }
        if rng.random_bool(0.3) {
            // A saved key is put on a new disk.
            let down_ms = rng.random_range(SECOND_MS..MINUTE_MS);
            let lost = Fault::Crash { node: victim, from: RestartFrom::Lost, down_ms };
            plan.faults.push((rng.random_range(1..plan.span_ms), lost));
        }
        plan.setup.zone_weight_max = HOSTILE_ZONE_WEIGHT_MAX;
        plan
    }

    /// Draws a run of six nodes in two or three zones: some serve several of them.
    pub fn draw_zoned(rng: &mut impl Rng) -> Plan {
        const NODES: usize = 6;
        let mut plan = Plan::draw_of(NODES, rng);
        // Drawn after the rest: zones do not change which faults a seed has.
        plan.setup.zones = zones(NODES, rng);
        for (_, node, zone, _) in &mut plan.operations {
            let served = plan.setup.zones.iter().filter(|it| it.members.contains(node));
            *zone = served.choose(rng).map_or_else(ZoneName::root, |it| it.name.clone());
        }
        for _ in 0..rng.random_range(0..=4) {
            plan.visit(rng);
        }
        plan
    }

    /// A node joins a zone that it does not serve, writes there, and perhaps leaves again.
    fn visit(&mut self, rng: &mut impl Rng) {
        let node = rng.random_range(0..self.setup.nodes);
        let strange = |it: &&ZoneSetup| !it.members.contains(&node) && !it.followers.contains(&node);
        let Some(zone) = self.setup.zones.iter().filter(strange).choose(rng) else { return };
        let (zone, mut at) = (zone.name.clone(), rng.random_range(1..self.span_ms));
        let role = if rng.random_bool(0.7) { Role::Member } else { Role::Follower };
        let visitor = format!("visitor-{node}").parse().expect("a label");
        let offer = ClientOp::Offer(vec![(visitor, "hello".into())]);
        let mut visit = vec![ClientOp::JoinZone(role), offer, ClientOp::LeaveZone];
        visit.truncate(rng.random_range(2..=3));
        for operation in visit {
            self.operations.push((at, node, zone.clone(), operation));
            at += rng.random_range(1..MINUTE_MS);
        }
    }

    /// Adds what machines do to their nodes: clocks that are ahead at the start, as before the first answer of a time
    /// service, and disks that are full for a while.
    fn add_machines(&mut self, rng: &mut impl Rng) {
        let (nodes, span_ms) = (self.setup.nodes, self.span_ms);
        let mut draw = Draw { rng, nodes, span_ms, faults: Vec::new() };
        draw.clocks_ahead_at_start(&self.faults);
        draw.full_disks();
        self.faults.append(&mut draw.faults);
        self.clocks_jumped = self.faults.iter().any(|(_, fault)| matches!(fault, Fault::Jump(..)));
    }

    fn draw_of(nodes: usize, rng: &mut impl Rng) -> Plan {
        let setup = Setup {
            nodes,
            skew_ms_max: if rng.random() { 2_000 } else { 0 },
            bootstrapped: rng.random(),
            conditions: conditions(rng),
            ..Setup::default()
        };
        let span_ms = rng.random_range(2 * MINUTE_MS..12 * MINUTE_MS);
        let mut draw = Draw { rng, nodes, span_ms, faults: Vec::new() };
        // The order of draws is part of every seed: another one makes all of them other runs.
        let late = draw.late_starts();
        draw.partitions();
        draw.crashes();
        draw.jumps();
        draw.suspensions();
        draw.skips();
        let operations = draw.operations();
        let faults = draw.faults;
        let clocks_jumped = faults.iter().any(|(_, fault)| matches!(fault, Fault::Jump(..)));
        let horizon_ms = rng.random_range(HORIZON_MS.0..HORIZON_MS.1);
        let (calls, questions) = (Vec::new(), Vec::new());
        Plan { setup, late, span_ms, faults, operations, calls, questions, clocks_jumped, horizon_ms }
    }
}

/// Zones of which every node serves one or two, and may follow a third. Each has two members at least: a member that never
/// meets another renews nothing, for it cannot know what was deleted while it was away.
fn zones(nodes: usize, rng: &mut impl Rng) -> Vec<ZoneSetup> {
    let names = ["east.example", "west.example", "."];
    let zone = |name: &&str| ZoneSetup {
        name: name.parse().expect("a zone's name"),
        members: Vec::new(),
        followers: Vec::new(),
    };
    let mut zones: Vec<ZoneSetup> = names[..rng.random_range(2..=names.len())].iter().map(zone).collect();
    for node in 0..nodes {
        zones.shuffle(rng);
        let serves = rng.random_range(1..=2);
        zones[..serves].iter_mut().for_each(|zone| zone.members.push(node));
        if let Some(zone) = zones.get_mut(serves).filter(|_| rng.random()) {
            zone.followers.push(node);
        }
    }
    for zone in &mut zones {
        for node in 0..nodes {
            if zone.members.len() < 2 && !zone.members.contains(&node) {
                zone.members.push(node);
                zone.followers.retain(|it| *it != node);
            }
        }
    }
    zones
}

fn conditions(rng: &mut impl Rng) -> Conditions {
    let mut some = |most: f64| if rng.random() { rng.random_range(0.0..most) } else { 0.0 };
    let (loss, duplication, breaks, stalls) = (some(0.3), some(0.3), some(0.05), some(0.01));
    let slowest = *[10, 200, 3_000].choose(rng).unwrap_or(&10);
    let detection_ms_max = *[0, 1_000, 15_000].choose(rng).unwrap_or(&0);
    let latency_ms = (1, slowest);
    Conditions { loss, duplication, latency_ms, breaks, stalls, detection_ms_max, ..Conditions::default() }
}

impl<R: Rng> Draw<'_, R> {
    fn late_starts(&mut self) -> usize {
        let late = if self.rng.random() { self.rng.random_range(1..=2) } else { 0 };
        for node in self.nodes - late..self.nodes {
            let at = self.time();
            self.faults.push((at, Fault::Start(node)));
        }
        late
    }

    fn partitions(&mut self) {
        for _ in 0..self.count(3) {
            let groups = self.rng.random_range(2..=3);
            let groups = (0..self.nodes).map(|_| self.rng.random_range(0..groups)).collect();
            let (at, length) = (self.time(), self.length());
            self.faults.push((at, Fault::Part(groups)));
            self.faults.push((at + length, Fault::Part(vec![0; self.nodes])));
        }
    }

    fn crashes(&mut self) {
        // Mostly one kind of loss a run: with all of them mixed a run hides which of them breaks a promise.
        let restarts: &[RestartFrom] = match self.rng.random_range(0..5) {
            0 => &[RestartFrom::Disk],
            1 => &[RestartFrom::Disk, RestartFrom::Lost],
            2 => &[RestartFrom::Disk, RestartFrom::Backup],
            3 => &[RestartFrom::Disk, RestartFrom::Torn],
            _ => &[RestartFrom::Disk, RestartFrom::Lost, RestartFrom::Backup, RestartFrom::Torn],
        };
        for _ in 0..self.count(5) {
            let from = *restarts.choose(self.rng).unwrap_or(&RestartFrom::Disk);
            let (node, at, down_ms) = (self.node(), self.time(), self.length());
            // `time` is never 0, so there is one before it.
            if matches!(from, RestartFrom::Backup | RestartFrom::Torn) {
                // Without a copy made before it there is nothing to restore.
                self.faults.push((self.rng.random_range(0..at), Fault::BackUp(node)));
            }
            self.faults.push((at, Fault::Crash { node, from, down_ms }));
        }
    }

    fn jumps(&mut self) {
        for _ in 0..self.count(4) {
            let (node, at, length) = (self.node(), self.time(), self.length());
            // Errors that others take, that they refuse for minutes, and that outlast the run.
            let most = *[10 * SECOND_MS, 5 * MINUTE_MS, JUMP_MS_MAX].choose(self.rng).unwrap_or(&DAY_MS);
            let most = most as i64;
            self.faults.push((at, Fault::Jump(node, self.rng.random_range(-most..=most))));
            self.faults.push((at + length, Fault::Jump(node, 0)));
        }
    }

    fn clocks_ahead_at_start(&mut self, faults: &[(u64, Fault)]) {
        for _ in 0..self.count(2) {
            let (node, length) = (self.node(), self.length());
            let starts = faults.iter().find(|(_, fault)| matches!(fault, Fault::Start(at) if *at == node));
            // Nodes that are not late start at once, after the faults of that moment.
            let at = starts.map_or(0, |(at, _)| *at);
            let most = *[MINUTE_MS, 60 * MINUTE_MS, JUMP_MS_MAX].choose(self.rng).unwrap_or(&MINUTE_MS);
            self.faults.push((at, Fault::Jump(node, self.rng.random_range(0..=most as i64))));
            self.faults.push((at + length, Fault::Jump(node, 0)));
        }
    }

    fn full_disks(&mut self) {
        for _ in 0..self.count(3) {
            let (node, at, length) = (self.node(), self.time(), self.length());
            self.faults.push((at, Fault::Room { node, ample: false }));
            self.faults.push((at + length, Fault::Room { node, ample: true }));
        }
    }

    fn suspensions(&mut self) {
        for _ in 0..self.count(3) {
            let (node, at, length) = (self.node(), self.time(), self.length());
            self.faults.push((at, Fault::Suspend(node, length)));
        }
    }

    fn skips(&mut self) {
        for _ in 0..self.count(2) {
            // The longest is beyond every lease, so that all may end asleep.
            let most = *[5 * MINUTE_MS, DAY_MS, 10 * DAY_MS].choose(self.rng).unwrap_or(&DAY_MS);
            let (at, length) = (self.time(), self.rng.random_range(0..most));
            self.faults.push((at, Fault::Skip(length)));
        }
    }

    fn operations(&mut self) -> Vec<(u64, usize, ZoneName, ClientOp)> {
        let operations = self.rng.random_range(10..120);
        let own_names = self.rng.random_range(1..6);
        let withdrawals = self.rng.random_range(0.1..0.5);
        let mut operations: Vec<(u64, usize, ZoneName, ClientOp)> = (0..operations)
            .map(|number| {
                let (at, node) = (self.time(), self.node());
                // Shared names meet under several hosts, own ones are written again and again.
                let name = match self.rng.random_range(0..own_names + 2) {
                    shared @ 0..2 => format!("shared-{shared}"),
                    own => format!("own-{node}-{own}"),
                };
                let name: AgentName = name.parse().expect("a label");
                let operation = if self.rng.random_bool(withdrawals) {
                    ClientOp::Withdraw(name)
                } else {
                    ClientOp::Offer(vec![(name, format!("text {number}"))])
                };
                (at, node, ZoneName::root(), operation)
            })
            .collect();
        // Two operations of one moment and node stay in the order in which they were drawn.
        operations.sort_by_key(|(at, node, ..)| (*at, *node));
        operations
    }

    /// None in half of the runs.
    fn count(&mut self, most: usize) -> usize {
        if self.rng.random() { self.rng.random_range(1..=most) } else { 0 }
    }

    fn node(&mut self) -> usize {
        self.rng.random_range(0..self.nodes)
    }

    fn time(&mut self) -> u64 {
        self.rng.random_range(1..self.span_ms)
    }

    /// Often short, sometimes as long as the run.
    fn length(&mut self) -> u64 {
        let most = *[5 * SECOND_MS, MINUTE_MS, self.span_ms].choose(self.rng).unwrap_or(&MINUTE_MS);
        self.rng.random_range(SECOND_MS..most)
    }
}

/// Plays the plan of a seed: faults and work, then repair, quiet, and checks of what must hold in the end.
pub fn play(seed: u64) -> Result<Outcome, Violation> {
    let plan = with_machines(seed, Plan::draw(&mut rng_of_plans(seed)));
    plan.play(&mut World::new(seed, plan.setup.clone()))
}

/// As [`play`], with the log of the run.
pub fn play_told(seed: u64) -> (Vec<String>, Result<Outcome, Violation>) {
    with_machines(seed, Plan::draw(&mut rng_of_plans(seed))).play_told(seed)
}

/// As [`play`], in several zones.
pub fn play_zoned(seed: u64) -> Result<Outcome, Violation> {
    let plan = Plan::draw_zoned(&mut rng_of_plans(seed));
    plan.play(&mut World::new(seed, plan.setup.clone()))
}

/// As [`play_zoned`], with the log of the run.
pub fn play_zoned_told(seed: u64) -> (Vec<String>, Result<Outcome, Violation>) {
    Plan::draw_zoned(&mut rng_of_plans(seed)).play_told(seed)
}

/// As [`play`], in a tree of zones whose nodes are asked.
pub fn play_tree(seed: u64) -> Result<Outcome, Violation> {
    let plan = Plan::draw_tree(&mut rng_of_plans(seed));
    plan.play(&mut World::new(seed, plan.setup.clone()))
}

/// As [`play_tree`], with the log of the run.
pub fn play_tree_told(seed: u64) -> (Vec<String>, Result<Outcome, Violation>) {
    Plan::draw_tree(&mut rng_of_plans(seed)).play_told(seed)
}

/// As [`play`], among hostile nodes.
pub fn play_hostile(seed: u64) -> Result<Outcome, Violation> {
    let plan = with_machines(seed, Plan::draw_hostile(&mut rng_of_plans(seed)));
    plan.play(&mut World::new(seed, plan.setup.clone()))
}

/// As [`play_hostile`], with the log of the run.
pub fn play_hostile_told(seed: u64) -> (Vec<String>, Result<Outcome, Violation>) {
    with_machines(seed, Plan::draw_hostile(&mut rng_of_plans(seed))).play_told(seed)
}

/// As [`play`], while clients call the agents of other nodes.
pub fn play_calls(seed: u64) -> Result<Outcome, Violation> {
    let plan = plan_with_calls(seed);
    plan.play(&mut World::new(seed, plan.setup.clone()))
}

/// As [`play_calls`], with the log of the run.
pub fn play_calls_told(seed: u64) -> (Vec<String>, Result<Outcome, Violation>) {
    plan_with_calls(seed).play_told(seed)
}

impl Plan {
    fn play_told(&self, seed: u64) -> (Vec<String>, Result<Outcome, Violation>) {
        let mut world = World::new(seed, self.setup.clone());
        world.listen();
        let played = self.play(&mut world);
        (world.told(), played)
    }

    fn play(&self, world: &mut World) -> Result<Outcome, Violation> {
        // Faults before work: of one millisecond, what was planned first comes first.
        for (at, fault) in &self.faults {
            world.fault_in(*at, fault.clone());
        }
        for (at, node, zone, operation) in &self.operations {
            world.submit_in(*at, *node, zone.clone(), operation.clone());
        }
        for (at, node, asked) in &self.questions {
            world.question_in(*at, *node, asked.clone());
        }
        for (at, node, call) in &self.calls {
            world.call_in(*at, *node, call.clone());
        }
        for node in 0..self.setup.nodes - self.late {
            world.start(node, RestartFrom::Disk);
        }
        world.run(self.span_ms)?;
        world.settle()?;
        if self.clocks_jumped {
            // Past the end of every lease that was written with a clock ahead.
            world.skip(self.horizon_ms);
            world.settle()?;
        }
        Ok(world.outcome())
    }
}

/// What is drawn of other faults and of work is drawn as without these.
fn with_machines(seed: u64, mut plan: Plan) -> Plan {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(4);
    plan.add_machines(&mut rng);
    plan
}

/// What is drawn of faults and work is drawn as without calls.
fn plan_with_calls(seed: u64) -> Plan {
    let mut plan = Plan::draw(&mut rng_of_plans(seed));
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(3);
    plan.add_calls(&mut rng);
    plan
}

/// Another stream of numbers than the world's own.
fn rng_of_plans(seed: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(1);
    rng
}
