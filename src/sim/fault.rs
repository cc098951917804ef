//! What goes wrong, drawn from a seed: each run has some kinds of faults and not others, so that none hides another.

use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Conditions, Conduct, Due, Memory, Outcome, Setup, Violation, Wish, World};
use crate::proto::name::AgentName;

const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 86_400_000;
/// Largest error of a clock that is wrong for a while.
const JUMP_MS_MAX: u64 = 6 * DAY_MS;
/// After this long everything written with a clock ahead is due, and every lease written before it has ended once.
const HORIZON_MS: (u64, u64) = (7 * DAY_MS, 8 * DAY_MS);

/// Something that goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Machines of different groups do not reach each other; all of one group ends a partition.
    Part(Vec<u8>),
    /// A machine stops at once and starts again after `down_ms` with what `memory` says.
    Crash {
        /// Which.
        machine: usize,
        /// What it finds on its disk then.
        memory: Memory,
        /// How long it is down, milliseconds.
        down_ms: u64,
    },
    /// A copy of a machine's disk is made; a later crash may restore it.
    BackUp(usize),
    /// A machine's clock shows this much more than it should, milliseconds.
    Jump(usize, i64),
    /// A machine does nothing for this long, milliseconds.
    Suspend(usize, u64),
    /// Wall time passes while every machine sleeps, milliseconds.
    Skip(u64),
    /// A machine starts for the first time.
    Start(usize),
    /// A machine deals with others in another way from now on.
    Corrupt(usize, Conduct),
    /// All links of a machine lead to hostile machines; none ends it.
    Eclipse(Option<usize>),
}

/// A run: its faults and its work.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How the world begins.
    pub setup: Setup,
    /// Machines that start later than the others; the last ones.
    pub late: usize,
    /// How long faults and work go on, virtual milliseconds.
    pub span_ms: u64,
    /// Faults and when they happen.
    pub faults: Vec<(u64, Fault)>,
    /// What clients want, when and where.
    pub wishes: Vec<(u64, usize, Wish)>,
    /// Whether some clock jumped: then everything is settled only after the horizon.
    pub clocks_jumped: bool,
    /// Wall time after which no stamp of this run lies ahead, milliseconds.
    pub horizon_ms: u64,
}

/// What a run is drawn from.
struct Draw<'a, R> {
    rng: &'a mut R,
    machines: usize,
    span_ms: u64,
    faults: Vec<(u64, Fault)>,
}

impl Plan {
    /// Draws a run of five machines.
    pub fn draw(rng: &mut impl Rng) -> Plan {
        Plan::draw_of(5, rng)
    }

    pub(super) fn draw_of(machines: usize, rng: &mut impl Rng) -> Plan {
        let setup = Setup {
            machines,
            skew_ms_max: if rng.random() { 2_000 } else { 0 },
            bootstrapped: rng.random(),
            conditions: conditions(rng),
            ..Setup::default()
        };
        let span_ms = rng.random_range(2 * MINUTE_MS..12 * MINUTE_MS);
        let mut draw = Draw { rng, machines, span_ms, faults: Vec::new() };
        let late = draw.late_starts();
        draw.partitions();
        draw.crashes();
        draw.jumps();
        draw.suspensions();
        draw.skips();
        let wishes = draw.wishes();
        let faults = draw.faults;
        let clocks_jumped = faults.iter().any(|(_, fault)| matches!(fault, Fault::Jump(..)));
        let horizon_ms = rng.random_range(HORIZON_MS.0..HORIZON_MS.1);
        Plan { setup, late, span_ms, faults, wishes, clocks_jumped, horizon_ms }
    }
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
        for machine in self.machines - late..self.machines {
            let at = self.time();
            self.faults.push((at, Fault::Start(machine)));
        }
        late
    }

    fn partitions(&mut self) {
        for _ in 0..self.count(3) {
            let groups = self.rng.random_range(2..=3);
            let groups = (0..self.machines).map(|_| self.rng.random_range(0..groups)).collect();
            let (at, length) = (self.time(), self.length());
            self.faults.push((at, Fault::Part(groups)));
            self.faults.push((at + length, Fault::Part(vec![0; self.machines])));
        }
    }

    fn crashes(&mut self) {
        let memories: &[Memory] = match self.rng.random_range(0..5) {
            0 => &[Memory::Disk],
            1 => &[Memory::Disk, Memory::Lost],
            2 => &[Memory::Disk, Memory::Backup],
            3 => &[Memory::Disk, Memory::Torn],
            _ => &[Memory::Disk, Memory::Lost, Memory::Backup, Memory::Torn],
        };
        for _ in 0..self.count(5) {
            let memory = *memories.choose(self.rng).unwrap_or(&Memory::Disk);
            let (machine, at, down_ms) = (self.machine(), self.time(), self.length());
            if matches!(memory, Memory::Backup | Memory::Torn) {
                self.faults.push((self.rng.random_range(0..at), Fault::BackUp(machine)));
            }
            self.faults.push((at, Fault::Crash { machine, memory, down_ms }));
        }
    }

    fn jumps(&mut self) {
        for _ in 0..self.count(4) {
            let (machine, at, length) = (self.machine(), self.time(), self.length());
            let most = *[10 * SECOND_MS, 5 * MINUTE_MS, JUMP_MS_MAX].choose(self.rng).unwrap_or(&DAY_MS);
            let most = most as i64;
            self.faults.push((at, Fault::Jump(machine, self.rng.random_range(-most..=most))));
            self.faults.push((at + length, Fault::Jump(machine, 0)));
        }
    }

    fn suspensions(&mut self) {
        for _ in 0..self.count(3) {
            let (machine, at, length) = (self.machine(), self.time(), self.length());
            self.faults.push((at, Fault::Suspend(machine, length)));
        }
    }

    fn skips(&mut self) {
        for _ in 0..self.count(2) {
            let most = *[5 * MINUTE_MS, DAY_MS, 10 * DAY_MS].choose(self.rng).unwrap_or(&DAY_MS);
            let (at, length) = (self.time(), self.rng.random_range(0..most));
            self.faults.push((at, Fault::Skip(length)));
        }
    }

    fn wishes(&mut self) -> Vec<(u64, usize, Wish)> {
        let wishes = self.rng.random_range(10..120);
        let own_names = self.rng.random_range(1..6);
        let withdrawals = self.rng.random_range(0.1..0.5);
        let mut wishes: Vec<(u64, usize, Wish)> = (0..wishes)
            .map(|number| {
                let (at, machine) = (self.time(), self.machine());
                let name = match self.rng.random_range(0..own_names + 2) {
                    shared @ 0..2 => format!("shared-{shared}"),
                    own => format!("own-{machine}-{own}"),
                };
                let name: AgentName = name.parse().expect("a label");
                let wish = if self.rng.random_bool(withdrawals) {
                    Wish::Withdraw(name)
                } else {
                    Wish::Offer(vec![(name, format!("text {number}"))])
                };
                (at, machine, wish)
            })
            .collect();
        wishes.sort_by_key(|(at, machine, _)| (*at, *machine));
        wishes
    }

    /// None in half of the runs.
    fn count(&mut self, most: usize) -> usize {
        if self.rng.random() { self.rng.random_range(1..=most) } else { 0 }
    }

    fn machine(&mut self) -> usize {
        self.rng.random_range(0..self.machines)
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

impl World {
    /// Plays the plan of a seed: faults and work, then repair, quiet, and checks of what must hold in the end.
    pub fn play(seed: u64) -> Result<Outcome, Violation> {
        let (mut world, plan) = World::planned(seed);
        world.play_plan(&plan)
    }

    /// As [`World::play`], with the story of the run.
    pub fn play_told(seed: u64) -> (Vec<String>, Result<Outcome, Violation>) {
        let (mut world, plan) = World::planned(seed);
        world.listen();
        let played = world.play_plan(&plan);
        (world.told(), played)
    }

    fn planned(seed: u64) -> (World, Plan) {
        let plan = Plan::draw(&mut World::rng_of_plans(seed));
        (World::new(seed, plan.setup.clone()), plan)
    }

    /// Another stream of numbers than the world's own.
    pub(super) fn rng_of_plans(seed: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(1);
        rng
    }

    pub(super) fn play_plan(&mut self, plan: &Plan) -> Result<Outcome, Violation> {
        for (at, fault) in &plan.faults {
            self.schedule(*at, Due::Fault(Box::new(fault.clone())));
        }
        for (at, machine, wish) in &plan.wishes {
            self.schedule(*at, Due::Wish(*machine, Box::new(wish.clone())));
        }
        for machine in 0..plan.setup.machines - plan.late {
            self.start(machine, Memory::Disk);
        }
        self.run(plan.span_ms)?;
        self.settle()?;
        if plan.clocks_jumped {
            // Past the end of every lease that was written with a clock ahead.
            self.skip(plan.horizon_ms);
            self.settle()?;
        }
        Ok(self.outcome())
    }

    /// A fault happens.
    pub(super) fn strike(&mut self, fault: Fault) {
        self.tell_fault(&fault);
        match fault {
            Fault::Part(groups) => self.part(groups),
            Fault::Crash { machine, memory, down_ms } => {
                self.crash(machine);
                self.schedule(down_ms, Due::Start(machine, memory));
            }
            Fault::BackUp(machine) => self.back_up(machine),
            Fault::Jump(machine, error_ms) => self.machines[machine].jump_ms = error_ms,
            Fault::Suspend(machine, for_ms) => self.suspend(machine, for_ms),
            Fault::Skip(for_ms) => self.skip(for_ms),
            Fault::Start(machine) => self.start(machine, Memory::Disk),
            Fault::Corrupt(machine, conduct) => self.turn(machine, conduct),
            Fault::Eclipse(victim) => self.eclipse(victim),
        }
    }
}
