//! The harness: scenarios are played, cell by cell and seed by seed, and what they found is added up.
//!
//! A run uses one thread, whatever its size; different runs are played beside each other. Results come in the order of
//! scenario, cell, seed, so they are the same for any number of threads. The first run of each scenario is played
//! twice, and if the two differ, the checker `replay-is-exact` has failed. There is no clock here and no file: who
//! plays ([`Runner`]) and who shows the [`Results`](super::results::Results) is elsewhere, so the program of the mesh
//! tier uses the same harness.

mod answer;
mod command;
mod statistics;
mod sum;
mod verdict;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use serde_json::Value;

pub use answer::headlines;
pub use command::{quoted, setting};
pub use sum::results;

use super::measure::{Broken, Measured, Missing};
use super::scenario::{Cell, Document, Flaw, Scenario, Tier, plain};
use super::{model, play};

/// Nodes up to which a first run is played twice: about a second of the model, some seconds of real nodes.
const TWICE_NODES_MAX: [(Tier, usize); 3] = [(Tier::Model, 1_000_000), (Tier::Core, 300), (Tier::Mesh, 50)];

/// What plays one run of a cell.
pub type Runner = fn(&Scenario, u64) -> Result<Measured, Broken>;

/// The runner of a tier that lives in this crate; none for `mesh`, whose program brings its own.
pub fn runner(tier: Tier) -> Option<Runner> {
    match tier {
        Tier::Model => Some(|scenario, seed| Ok(model::play(scenario, seed))),
        Tier::Core => Some(play::play),
        Tier::Mesh => None,
    }
}

/// A scenario that is to be played.
#[derive(Clone, Debug)]
pub struct Job {
    document: Document,
    cells: Vec<Cell>,
    /// Parameters of each cell, as results show them.
    parameters: Vec<BTreeMap<String, Value>>,
    seeds: Vec<u64>,
    runner: Runner,
    replay: String,
}

impl Job {
    /// `replay` is the command that plays one run of the file, to which `--set key=value` and `--seed N` are added.
    pub fn new(document: Document, runner: Runner, replay: String) -> Result<Job, Flaw> {
        let cells = document.cells()?;
        let plain = |(key, value): (&String, &toml::Value)| (key.clone(), plain(value));
        let parameters = cells.iter().map(|cell| cell.parameters.iter().map(plain).collect()).collect();
        let seeds = document.scenario.seeds.iter().collect();
        Ok(Job { document, cells, parameters, seeds, runner, replay })
    }

    /// Its scenario, with the sweep.
    pub fn scenario(&self) -> &Scenario {
        &self.document.scenario
    }

    /// Its cells.
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// Runs of all its cells.
    pub fn runs(&self) -> usize {
        self.cells.len() * self.seeds.len()
    }

    /// Whether its first run is played twice.
    pub fn is_repeated(&self) -> bool {
        // There is a first cell: a sweep over nothing was refused, and without one there is one.
        let scenario = &self.cells[0].scenario;
        TWICE_NODES_MAX.iter().any(|(tier, most)| *tier == scenario.tier && scenario.network.nodes <= *most)
    }
}

/// A run that came to its end.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Position of its scenario among those that were planned.
    pub job: usize,
    /// Position of its cell.
    pub cell: usize,
    /// Its seed.
    pub seed: u64,
    /// What it found.
    pub outcome: Result<Measured, Broken>,
}

/// How far the runs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Position of the scenario of the run that just ended.
    pub job: usize,
    /// Runs that ended.
    pub done: usize,
}

/// What an interruption does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Nothing is stopped.
    No,
    /// Runs that have begun are finished, no other begins.
    Finish,
    /// Runs that have begun are abandoned too.
    Abandon,
}

/// Runs of some scenarios, planned and then played. A clone is the same runs, for interrupting them from elsewhere.
#[derive(Clone)]
pub struct Runs(Arc<Shared>);

struct Shared {
    runs: Vec<PlannedRun>,
    state: Mutex<State>,
    changed: Condvar,
}

struct PlannedRun {
    job: usize,
    cell: usize,
    seed: u64,
    scenario: Arc<Scenario>,
    runner: Runner,
    is_first_of_cell: bool,
    is_repeated: bool,
}

struct State {
    next: usize,
    running: usize,
    outcomes: Vec<Option<Result<Measured, Broken>>>,
    /// Runs that ended and were not told of yet.
    news: Vec<usize>,
    stop: Stop,
}

impl Runs {
    /// All runs of these scenarios.
    pub fn of(jobs: &[Job]) -> Runs {
        let mut runs = Vec::new();
        for (job, planned) in jobs.iter().enumerate() {
            for (cell, played) in planned.cells.iter().enumerate() {
                let scenario = Arc::new(played.scenario.clone());
                let of_cell = planned.seeds.iter().enumerate().map(|(at, seed)| PlannedRun {
                    job,
                    cell,
                    seed: *seed,
                    scenario: scenario.clone(),
                    runner: planned.runner,
                    is_first_of_cell: at == 0,
                    is_repeated: at == 0 && cell == 0 && planned.is_repeated(),
                });
                runs.extend(of_cell);
            }
        }
        let outcomes = runs.iter().map(|_| None).collect();
        let state = State { next: 0, running: 0, outcomes, news: Vec::new(), stop: Stop::No };
        Runs(Arc::new(Shared { runs, state: Mutex::new(state), changed: Condvar::new() }))
    }

    /// Plays them on `threads` threads and tells of each that ended. What is abandoned goes on in threads that nobody
    /// waits for.
    pub fn play(&self, threads: usize, mut told: impl FnMut(Progress)) -> Vec<Finished> {
        // Without any run the bounds of `clamp` would cross, and it would panic.
        for _ in 0..threads.clamp(1, self.0.runs.len().max(1)) {
            let shared = self.0.clone();
            // A scope would wait for its threads, also for those whose runs are abandoned.
            thread::spawn(move || shared.work());
        }
        let mut done = 0;
        let mut state = self.0.lock();
        loop {
            // Taken out first: telling may be slow, and no thread should wait for it to hand in its run.
            let news = std::mem::take(&mut state.news);
            if !news.is_empty() {
                drop(state);
                for run in news {
                    done += 1;
                    told(Progress { job: self.0.runs[run].job, done });
                }
                // More may have ended meanwhile, and their signal is past: waiting now could be for ever.
                state = self.0.lock();
                continue;
            }
            if state.is_over(self.0.runs.len()) {
                break;
            }
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let outcomes = std::mem::take(&mut state.outcomes);
        drop(state);
        self.0.runs.iter().zip(outcomes).filter_map(|(run, outcome)| run.finished(outcome)).collect()
    }

    /// Stops them: the first time gently, then at once. Says which.
    pub fn interrupt(&self) -> Stop {
        let mut state = self.0.lock();
        state.stop = if state.stop == Stop::No { Stop::Finish } else { Stop::Abandon };
        // Who waits for the next run to end must see it, though none may end.
        self.0.changed.notify_all();
        state.stop
    }
}

impl State {
    fn is_over(&self, runs: usize) -> bool {
        let begins_another = self.next < runs && self.stop == Stop::No;
        self.stop == Stop::Abandon || !begins_another && self.running == 0
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that may panic runs under the lock, so what it guards is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let mut state = self.lock();
            let at = state.next;
            if state.stop != Stop::No || at >= self.runs.len() {
                return;
            }
            state.next += 1;
            // Under the same lock as `next`: between the two all would seem to be over.
            state.running += 1;
            drop(state);
            let outcome = self.runs[at].play();
            let mut state = self.lock();
            state.running -= 1;
            // Whoever abandoned the runs has taken the outcomes already.
            if let Some(place) = state.outcomes.get_mut(at) {
                *place = Some(outcome);
                state.news.push(at);
            }
            self.changed.notify_all();
        }
    }
}

impl PlannedRun {
    fn play(&self) -> Result<Measured, Broken> {
        let mut measured = self.play_once()?;
        if self.is_repeated {
            // The trace is enough: every figure follows from what it covers.
            let again = self.play_once()?.trace;
            if again != measured.trace {
                let detail =
                    format!("the first run's trace is {:016x}, the second's {again:016x}", measured.trace);
                return Err(broken("replay-is-exact", detail));
            }
        }
        if !self.is_first_of_cell {
            // One animation a cell is shown, and it is as large as the world.
            measured.spread = None;
        }
        Ok(measured)
    }

    /// A run that panics is a broken run, and the others go on.
    fn play_once(&self) -> Result<Measured, Broken> {
        // A runner owns all that it changes, so nothing half changed is seen after a panic.
        let played = catch_unwind(AssertUnwindSafe(|| (self.runner)(&self.scenario, self.seed)));
        played.unwrap_or_else(|panic| {
            // A formatted message is carried as a `String`, a literal one as a `&str`.
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(broken("does-not-panic", text.unwrap_or("a panic without a text").into()))
        })
    }

    fn finished(&self, outcome: Option<Result<Measured, Broken>>) -> Option<Finished> {
        let outcome = outcome?;
        Some(Finished { job: self.job, cell: self.cell, seed: self.seed, outcome })
    }
}

fn broken(check: &str, detail: String) -> Broken {
    Broken { check: check.into(), at_ms: 0, detail, missing: Missing::Safety }
}

#[cfg(test)]
mod tests;
