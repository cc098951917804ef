//! `aop sim run`: play, show progress, print, write.

use std::fs;
use std::io::Write as _;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::files::{Loaded, RESULT_FILE, load, typed};
use super::{table, verdict};
use crate::cli::args::{Format, SimRunArgs};
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Console, print_json, write};
use crate::cli::process::at_signals;
use crate::lab::harness::{self, Finished, Job, Runs, Stop, setting};
use crate::lab::report;
use crate::lab::results::{Results, Verdict};
use crate::lab::scenario::Seeds;
use crate::private_file;

/// How often the progress bar is drawn.
const TICK: Duration = Duration::from_millis(100);

/// `aop sim run`.
pub(in crate::cli) fn run(args: &SimRunArgs, console: Console) -> Result<Exit, Failure> {
    let loaded = load(&args.files, &args.settings)?;
    let jobs = jobs(loaded, args, console)?;
    if let Some(out) = &args.out {
        // Before hours of playing, not after.
        fs::create_dir_all(out).map_err(|error| unwritable(out, &error))?;
    }
    let command = command(args);
    let finished = play(&jobs, args, &command, console)?;
    let results = harness::results(&jobs, &finished, &command);
    // Judged after the files are written: a closed pipe must not cost hours of playing.
    let printed = match args.format {
        Format::Table => table::print(&results),
        Format::Json => print_json(&results),
        Format::Csv => write(&report::runs_csv(&results)),
    };
    if let Some(out) = &args.out {
        write_all(out, &results)?;
        console.print(&format!("written to {}", out.join("report.html").display()));
    }
    printed?;
    // The table has them already.
    if args.format != Format::Table {
        tell_failures(&results, console);
    }
    if results.unfinished > 0 {
        console.warn(&format!("interrupted: {} of {} runs are kept", finished.len(), planned(&jobs)));
    }
    console.print(&command);
    Ok(if results.unfinished > 0 { Exit::Interrupted } else { verdict(&results) })
}

/// What can be played here; what cannot is named with the command that can.
fn jobs(loaded: Vec<Loaded>, args: &SimRunArgs, console: Console) -> Result<Vec<Job>, Failure> {
    let mut jobs = Vec::new();
    let mut elsewhere = Vec::new();
    for Loaded { path, mut document } in loaded {
        let name = &document.scenario.name;
        let Some(runner) = harness::runner(document.scenario.tier) else {
            elsewhere.push((name.clone(), mesh_command(&path, args)));
            continue;
        };
        if let Some(seed) = args.seed {
            document.scenario.seeds = Seeds { from: seed, count: 1 };
        } else if let Some(count) = args.seeds {
            document.scenario.seeds.count = count as usize;
        }
        // What is swept is a parameter of each run, and its command has it anyway.
        let sweep = &document.scenario.sweep;
        let settings = args.settings.iter().filter(|(key, _)| !sweep.contains_key(key));
        let settings: String = settings.map(|(key, value)| setting(key, value)).collect();
        let replay = format!("aop sim replay {}{settings}", typed(&path));
        let job = Job::new(document, runner, replay).map_err(|flaw| Failure::plain(Exit::Usage, &flaw))?;
        if !job.is_repeated() {
            let (name, nodes) = (&job.scenario().name, job.cells()[0].scenario.network.nodes);
            console.print(&format!("{name}: {nodes} nodes are many, so no run is played twice to compare"));
        }
        jobs.push(job);
    }
    // The only scenario asked for: its command is then the fix of the failure, not one warning of several.
    if let ([(name, command)], true) = (elsewhere.as_slice(), jobs.is_empty()) {
        return Err(Failure::new(
            Exit::Usage,
            format!("{name} is not played here: its tier is mesh"),
            command,
        ));
    }
    for (name, command) in &elsewhere {
        console.warn(&format!("{name} is not played here: its tier is mesh\n  run: {command}"));
    }
    if jobs.is_empty() {
        return Err(Failure::already_reported(Exit::Usage));
    }
    Ok(jobs)
}

fn mesh_command(path: &Path, args: &SimRunArgs) -> String {
    let flags = flags(args);
    format!("cargo run --release --manifest-path simulations/mesh/Cargo.toml -- {}{flags}", typed(path))
}

/// The command that makes the same results again.
fn command(args: &SimRunArgs) -> String {
    let files: Vec<String> = args.files.iter().map(|path| typed(path)).collect();
    format!("aop sim run {}{}", files.join(" "), flags(args))
}

/// The flags that results depend on.
fn flags(args: &SimRunArgs) -> String {
    let mut flags: String = args.settings.iter().map(|(key, value)| setting(key, value)).collect();
    flags.extend(args.seed.map(|seed| format!(" --seed {seed}")));
    flags.extend(args.seeds.map(|seeds| format!(" --seeds {seeds}")));
    flags
}

fn planned(jobs: &[Job]) -> usize {
    jobs.iter().map(Job::runs).sum()
}

/// Plays with a progress bar on a terminal and a line for each scenario elsewhere, until all is done or a signal comes.
fn play(jobs: &[Job], args: &SimRunArgs, command: &str, console: Console) -> Result<Vec<Finished>, Failure> {
    let runs = Runs::of(jobs);
    let bar = progress_bar(planned(jobs), console);
    let (interrupted, told) = (runs.clone(), bar.clone());
    at_signals(move || {
        let line = match interrupted.interrupt() {
            Stop::Finish => "finishing the runs that have begun; once more abandons them",
            Stop::No | Stop::Abandon => "abandoned the runs that had begun",
        };
        told.suspend(|| console.print(line));
    })?;
    // From here on a signal keeps what is finished.
    console.print(command);
    let threads = args.jobs.map_or_else(|| available_parallelism().map_or(1, NonZero::get), usize::from);
    let mut left: Vec<usize> = jobs.iter().map(Job::runs).collect();
    let finished = runs.play(threads, |progress| {
        let name = &jobs[progress.job].scenario().name;
        // Each run is told once, so the count cannot fall below 0.
        left[progress.job] -= 1;
        if bar.is_hidden() && left[progress.job] == 0 {
            console.print(&format!("{name}: played, {} of {} runs are done", progress.done, planned(jobs)));
        }
        bar.set_message(name.clone());
        bar.set_position(progress.done as u64);
    });
    bar.finish_and_clear();
    Ok(finished)
}

fn progress_bar(runs: usize, console: Console) -> ProgressBar {
    if console.quiet {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(runs as u64);
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} runs  {elapsed}, {eta} to go  {msg}");
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("━╸─"));
    }
    bar.enable_steady_tick(TICK);
    bar
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        Exit::Failure,
        format!("cannot write {}: {error}", path.display()),
        "choose another folder with --out",
    )
}

fn write_all(out: &Path, results: &Results) -> Result<(), Failure> {
    let document = |results: &Results| {
        serde_json::to_string(results).map_err(|error| Failure::plain(Exit::Failure, &error))
    };
    let mut files: Vec<(PathBuf, String)> = vec![
        (out.join(RESULT_FILE), document(results)? + "\n"),
        (out.join("baseline.json"), document(&results.baseline())? + "\n"),
        (out.join("runs.csv"), report::runs_csv(results)),
        (out.join("curve.csv"), report::curve_csv(results)),
        (out.join("report.html"), report::html(results)),
    ];
    for scenario in &results.scenarios {
        let charts = report::svg(scenario).into_iter();
        files.extend(charts.map(|(name, svg)| (out.join(format!("{name}.svg")), svg)));
    }
    for (path, text) in files {
        let file = private_file::unlinked().write(true).create(true).truncate(true).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| unwritable(&path, &error))?;
    }
    Ok(())
}

/// Each failure with what was measured, what was wanted, and how to see it again.
fn tell_failures(results: &Results, console: Console) {
    for run in &results.runs {
        if let Some(broken) = &run.broken {
            let (check, at, detail) = (&broken.check, broken.at_ms, &broken.detail);
            console.warn(&format!("{}: {check} failed after {at} ms: {detail}", run.scenario));
            console.warn(&format!("  replay: {}", run.replay));
        }
    }
    for scenario in &results.scenarios {
        for failed in scenario.expectations.iter().filter(|it| !it.met) {
            console.warn(&format!("{}: wanted {}, {}", scenario.name, failed.wanted, measured(failed)));
            console.warn(&format!("  replay: {}", failed.replay));
        }
    }
}

/// "measured 93.6 % at worst, where network.loss.rate = 0; 3 of 50 runs held".
pub(super) fn measured(verdict: &Verdict) -> String {
    let (held, all) = verdict.held;
    let at = match verdict.worst_cell.as_str() {
        "" => String::new(),
        cell => format!(", where {cell}"),
    };
    let value = match verdict.unmeasured {
        0 => format!("measured {} at worst", table::figure(&verdict.wanted, verdict.worst)),
        unmeasured => format!("nothing measured in {unmeasured} {}", verdict.counts),
    };
    format!("{value}{at}; {held} of {all} {} held", verdict.counts)
}
