//! Planning, playing, interrupting and adding up, with players that a test makes.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::*;
use crate::lab::measure::Spread;

const FILE: &str = r#"name = "it"
question = "Does it?"
claim = "ours"
answer = "It reaches {coverage:%}, with loss {coverage:% @ network.loss.rate = 0.5} in {rounds} rounds."
tier = "model"
seeds = { from = 5, count = 4 }
[network]
nodes = 100
[protocol]
kind = "push"
[sweep]
network.loss.rate = [0, 0.5]
[[claims]]
metric = "coverage"
op = "=="
value = 1
[[expect]]
metric = "coverage"
op = ">="
value = 0.5
at = { network.loss.rate = 0.5 }
[[expect]]
metric = "rounds"
op = "<="
value = 6.5
of = "mean"
"#;

/// A run whose figures follow from its cell and seed.
fn measured(scenario: &Scenario, seed: u64) -> Measured {
    let coverage = 1.0 - scenario.network.loss.rate / (seed - 4) as f64;
    Measured {
        trace: seed * 100 + (scenario.network.loss.rate * 10.0) as u64,
        metrics: [("coverage".into(), coverage), ("rounds".into(), seed as f64)].into(),
        curve: vec![(0.0, 0.01), (seed as f64, coverage)],
        spread: Some(Spread { seen: vec![Some(seed as u32)], regions: Vec::new() }),
    }
}

fn honest(scenario: &Scenario, seed: u64) -> Result<Measured, Broken> {
    Ok(measured(scenario, seed))
}

fn job(text: &str, runner: Runner) -> Job {
    Job::new(Document::read(text, &[]).unwrap(), runner, "aop sim replay it.toml".into()).unwrap()
}

fn played(text: &str, runner: Runner) -> crate::lab::results::Results {
    let jobs = [job(text, runner)];
    results(&jobs, &Runs::of(&jobs).play(2, |_| ()), "aop sim run it.toml")
}

#[test]
fn results_do_not_depend_on_the_number_of_threads_or_the_order_of_runs() {
    let jobs = [job(FILE, honest)];
    let one = Runs::of(&jobs).play(1, |_| ());
    let animated = |run: &&Finished| run.outcome.as_ref().is_ok_and(|it| it.spread.is_some());
    assert_eq!(one.iter().filter(animated).count(), 2, "one for each cell");
    let mut four = Runs::of(&jobs).play(4, |_| ());
    assert_eq!(results(&jobs, &one, "c"), results(&jobs, &four, "c"));
    four.reverse();
    assert_eq!(results(&jobs, &one, "c"), results(&jobs, &four, "c"));
    let runs = results(&jobs, &one, "c").runs;
    assert_eq!(runs.iter().map(|run| run.seed).collect::<Vec<_>>(), [5, 6, 7, 8, 5, 6, 7, 8]);
    assert_eq!((runs[5].trace_hash.as_str(), runs[5].tier.as_str()), ("000000000000025d", "model"));
    assert_eq!(runs[5].replay, "aop sim replay it.toml --set network.loss.rate=0.5 --seed 6");
}

#[test]
fn a_scenario_is_answered_with_its_figures_and_the_worst_is_named() {
    let results = played(FILE, honest);
    let it = &results.scenarios[0];
    // With loss: 1 - 0.5/1, /2, /3, /4.
    assert_eq!(it.answer, "It reaches 86.98 %, with loss 73.96 % in 6.5 rounds.");
    assert!(it.met);
    let claim = &it.claims[0];
    assert_eq!((claim.met, claim.held, claim.worst), (false, (4, 8), 0.5));
    assert_eq!(claim.worst_cell, "network.loss.rate = 0.5");
    assert_eq!(claim.replay, "aop sim replay it.toml --set network.loss.rate=0.5 --seed 5");
    assert_eq!(it.expectations[0].wanted, "coverage >= 0.5 where network.loss.rate = 0.5");
    assert_eq!((it.expectations[0].held, it.expectations[1].held), ((4, 4), (2, 2)));
    let cell = &it.cells[1];
    assert_eq!((cell.runs, cell.metrics["coverage"].worst_seed), (4, 5));
    assert_eq!((cell.full.unwrap().0, it.cells[0].full.unwrap().0), (0, 4));
    assert_eq!(cell.seen, [Some(5)], "the spread of the first run only");
    assert_eq!((it.axis.as_str(), cell.band.len()), ("rounds", 9));
}

#[test]
fn an_expectation_that_fails_is_the_first_thing_said() {
    let results = played(&FILE.replace("value = 6.5", "value = 6"), honest);
    let it = &results.scenarios[0];
    assert!(!it.met);
    let start = "Measured rounds 6.5 at network.loss.rate = 0, wanted mean rounds <= 6. It reaches 86.98 %";
    assert!(it.answer.starts_with(start), "{}", it.answer);
    assert_eq!(it.expectations[1].replay, "aop sim replay it.toml --set network.loss.rate=0 --seed 8");
}

#[test]
fn what_was_not_measured_does_not_count_as_met() {
    fn silent(scenario: &Scenario, seed: u64) -> Result<Measured, Broken> {
        let mut measured = measured(scenario, seed);
        if seed == 6 {
            measured.metrics.insert("rounds".into(), f64::INFINITY);
        }
        Ok(measured)
    }
    let results = played(FILE, silent);
    let it = &results.scenarios[0].expectations[1];
    assert_eq!((it.met, it.held, it.unmeasured), (false, (0, 2), 2));
    assert!(it.replay.ends_with("--seed 6"), "{}", it.replay);
    assert!(results.scenarios[0].answer.starts_with("Measured no rounds in 2 of 2"));
    assert!(!results.runs[1].metrics.contains_key("rounds"), "JSON has no infinity");
}

#[test]
fn without_a_template_the_answer_names_what_the_scenario_judges() {
    let text: String =
        FILE.lines().filter(|line| !line.starts_with("answer")).map(|it| format!("{it}\n")).collect();
    let answer = &played(&text, honest).scenarios[0].answer;
    let expected =
        "coverage 73.96 % at network.loss.rate = 0.5 to 100 % at network.loss.rate = 0, rounds 6.5 (8 runs).";
    assert_eq!(answer, expected);
}

#[test]
fn a_broken_run_is_told_and_the_others_still_count() {
    fn fragile(scenario: &Scenario, seed: u64) -> Result<Measured, Broken> {
        match seed {
            7 => Err(Broken {
                check: "converges".into(),
                at_ms: 9,
                detail: "it does not".into(),
                missing: Missing::Progress,
            }),
            _ => Ok(measured(scenario, seed)),
        }
    }
    let results = played(FILE, fragile);
    let broken = results.runs[2].broken.as_ref().unwrap();
    assert_eq!((broken.check.as_str(), broken.at_ms, broken.progress), ("converges", 9, true));
    assert_eq!(results.runs[2].trace_hash, "");
    let it = &results.scenarios[0];
    assert!(
        !it.met && it.answer.starts_with("The checker converges failed in 2 of 8 runs."),
        "{}",
        it.answer
    );
    assert_eq!((it.cells[0].runs, it.cells[0].full.unwrap().0), (4, 3));
    assert_eq!(it.claims[0].unmeasured, 2);
}

#[test]
fn a_first_run_that_does_not_repeat_breaks_and_a_large_one_is_not_repeated() {
    static PLAYED: AtomicU64 = AtomicU64::new(0);
    fn fickle(scenario: &Scenario, seed: u64) -> Result<Measured, Broken> {
        Ok(Measured { trace: PLAYED.fetch_add(1, Ordering::SeqCst), ..measured(scenario, seed) })
    }
    let results = played(FILE, fickle);
    let checks: Vec<_> =
        results.runs.iter().map(|run| run.broken.as_ref().map(|it| it.check.as_str())).collect();
    assert_eq!((checks[0], &checks[1..]), (Some("replay-is-exact"), &[None; 7][..]));
    assert_eq!(PLAYED.load(Ordering::SeqCst), 9, "eight runs, one of them twice");
    assert!(job(&FILE.replace("nodes = 100", "nodes = 1e6"), honest).is_repeated());
    assert!(!job(&FILE.replace("nodes = 100", "nodes = 1_000_001"), honest).is_repeated());
}

#[test]
fn a_run_that_panics_is_a_broken_run() {
    fn clumsy(scenario: &Scenario, seed: u64) -> Result<Measured, Broken> {
        assert_ne!(seed, 8, "it fell");
        Ok(measured(scenario, seed))
    }
    let results = played(FILE, clumsy);
    let broken = results.runs[3].broken.as_ref().unwrap();
    assert_eq!(broken.check, "does-not-panic");
    assert!(broken.detail.contains("it fell") && !broken.progress, "{broken:?}");
    assert_eq!(results.runs.len(), 8);
}

#[test]
fn interrupted_runs_keep_what_is_finished() {
    static BEGUN: AtomicUsize = AtomicUsize::new(0);
    static GATE: Mutex<()> = Mutex::new(());
    /// The first run is played twice; the fourth waits.
    fn waiting(scenario: &Scenario, seed: u64) -> Result<Measured, Broken> {
        if BEGUN.fetch_add(1, Ordering::SeqCst) == 4 {
            drop(GATE.lock().unwrap());
        }
        Ok(measured(scenario, seed))
    }
    let mut held = Some(GATE.lock().unwrap());
    let jobs = [job(FILE, waiting)];
    let runs = Runs::of(&jobs);
    let other = runs.clone();
    let mut told = Vec::new();
    let finished = runs.play(1, |progress| {
        told.push(progress.done);
        if progress.done == 3 {
            other.interrupt();
            held = None;
        }
    });
    // The fourth may have begun before, and is finished then.
    assert!((3..=4).contains(&finished.len()), "{}", finished.len());
    assert_eq!(told, (1..=finished.len()).collect::<Vec<_>>());
    let results = results(&jobs, &finished, "c");
    assert_eq!((results.unfinished, results.runs.len()), (8 - finished.len(), finished.len()));
}

#[test]
fn a_second_interruption_does_not_wait_for_what_has_begun() {
    static BEGUN: AtomicUsize = AtomicUsize::new(0);
    static GATE: Mutex<()> = Mutex::new(());
    fn stuck(scenario: &Scenario, seed: u64) -> Result<Measured, Broken> {
        if BEGUN.fetch_add(1, Ordering::SeqCst) >= 3 {
            drop(GATE.lock().unwrap());
        }
        Ok(measured(scenario, seed))
    }
    let held = GATE.lock().unwrap();
    let jobs = [job(FILE, stuck)];
    let runs = Runs::of(&jobs);
    let other = runs.clone();
    let finished = runs.play(1, |progress| {
        // The first run is played twice, so the third to end never does.
        if progress.done == 2 {
            assert_eq!((other.interrupt(), other.interrupt()), (Stop::Finish, Stop::Abandon));
        }
    });
    assert_eq!(finished.iter().map(|run| run.seed).collect::<Vec<_>>(), [5, 6]);
    drop(held);
}

#[test]
fn nothing_that_was_not_played_is_answered() {
    let jobs = [job(FILE, honest), job(&FILE.replace("\"it\"", "\"that\""), honest)];
    let finished = Runs::of(&jobs[..1]).play(1, |_| ());
    let results = results(&jobs, &finished, "c");
    assert_eq!((results.scenarios.len(), results.unfinished), (1, 8));
}
