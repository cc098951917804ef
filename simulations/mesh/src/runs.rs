//! From scenario files to results: the harness of `aop sim run` plays every cell with every seed, and each run is a
//! process of its own.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread::available_parallelism;

use aop::lab::harness::{Finished, Job, Runs, Stop, quoted, results, setting};
use aop::lab::measure::{Broken, Measured, Metrics, Missing, Spread};
use aop::lab::results::{BrokenRun, Results};
use aop::lab::scenario::{Cell, Document, Flaw, Scenario, Seeds, Tier};
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use crate::arguments::{Arguments, Format, PROGRAM};
use crate::{refusals, show, world};

/// An expectation failed, or results could not be shown.
const FAILED: u8 = 1;
const USAGE: u8 = 2;
const CHECKER: u8 = 6;
const NO_PROGRESS: u8 = 7;
const INTERRUPTED: u8 = 130;

/// Why the program ends without results.
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// What went wrong.
    pub message: String,
}

/// What the process of one run prints.
#[derive(Serialize, Deserialize)]
struct Played {
    trace: u64,
    metrics: Metrics,
    curve: Vec<(f64, f64)>,
    spread: Option<(Vec<Option<u32>>, Vec<u8>)>,
    broken: Option<BrokenRun>,
    /// Most memory it took, MiB.
    peak_mib: u64,
}

/// Where a cell stands. The harness hands out scenarios, and the process of a run reads its own from the file.
struct Place {
    scenario: String,
    file: String,
    settings: Vec<(String, String)>,
    cell: usize,
}

static PLACES: OnceLock<Vec<Place>> = OnceLock::new();

/// Plays one run here and prints what it found.
pub fn play_one(arguments: &Arguments, cell: usize) -> Result<u8, Failure> {
    // Whoever asked may be killed, and nobody else would end this.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| failed(error.to_string()))?;
    let file = arguments.files.first().ok_or_else(|| failed("no file"))?;
    let (_, cells) = read(file, arguments)?;
    let cell = cells.get(cell).ok_or_else(|| failed("no such cell"))?;
    let outcome = world::play(&cell.scenario, arguments.seed.unwrap_or_default()).map_err(failed)?;
    let played = Played { peak_mib: peak_mib(), ..Played::from(outcome) };
    print!("{}", serde_json::to_string(&played).map_err(|error| failed(error.to_string()))?);
    Ok(0)
}

/// Plays every run and shows the results.
pub fn play_all(arguments: &Arguments) -> Result<u8, Failure> {
    let (mut jobs, mut places) = (Vec::new(), Vec::new());
    for file in &arguments.files {
        let (document, cells) = read(file, arguments)?;
        let file = file.display().to_string();
        places.extend(cells.iter().enumerate().map(|(cell, it)| Place {
            scenario: format!("{:?}", it.scenario),
            file: file.clone(),
            settings: arguments.settings.clone(),
            cell,
        }));
        let settings: String = arguments.settings.iter().map(|(key, value)| setting(key, value)).collect();
        let replay = format!("{PROGRAM} {}{settings}", quoted(&file));
        jobs.push(Job::new(document, play_in_process, replay).map_err(|flaw| usage(flaw.to_string()))?);
    }
    PLACES.get_or_init(|| places);
    let command = command(arguments);
    eprintln!("{command}");
    let finished = play(&jobs, arguments)?;
    let results = results(&jobs, &finished, &command);
    let json = serde_json::to_string_pretty(&results).map_err(|error| failed(error.to_string()))?;
    if let Some(path) = &arguments.out {
        std::fs::write(path, &json).map_err(|error| failed(format!("{}: {error}", path.display())))?;
    }
    match arguments.format {
        Format::Json => println!("{json}"),
        Format::Table => println!("{}", show::table(&results)),
    }
    eprintln!("{command}");
    Ok(exit_code(&results))
}

/// Plays until all is done or a signal comes; what is finished then is kept.
fn play(jobs: &[Job], arguments: &Arguments) -> Result<Vec<Finished>, Failure> {
    let runs = Runs::of(jobs);
    let interrupted = runs.clone();
    let listener = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let listener = listener.map_err(|error| failed(error.to_string()))?;
    std::thread::spawn(move || {
        listener.block_on(async {
            while tokio::signal::ctrl_c().await.is_ok() {
                if interrupted.interrupt() == Stop::Finish {
                    eprintln!("finishing the runs that have begun; once more abandons them");
                }
            }
        });
    });
    let threads = arguments.jobs.or(available_parallelism().ok()).map_or(1, usize::from);
    let planned: usize = jobs.iter().map(Job::runs).sum();
    Ok(runs.play(threads, |progress| {
        eprintln!("{}/{planned} {}", progress.done, jobs[progress.job].scenario().name);
    }))
}

/// A file and its cells. Everything is judged before anything runs.
fn read(path: &Path, arguments: &Arguments) -> Result<(Document, Vec<Cell>), Failure> {
    let file = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| usage(format!("{file}: {error}")))?;
    let flawed = |flaw: Flaw| {
        let before = flaw.span.as_ref().and_then(|span| text.get(..span.start));
        let line = before.map_or_else(String::new, |before| format!(":{}", before.matches('\n').count() + 1));
        usage(format!("{file}{line}: {flaw}"))
    };
    let mut document = Document::read(&text, &arguments.settings).map_err(flawed)?;
    if document.scenario.tier != Tier::Mesh {
        let tier = document.scenario.tier.name();
        return Err(usage(format!("{file}: tier = \"{tier}\" is played by `aop sim run {file}`")));
    }
    let cells = document.cells().map_err(flawed)?;
    if let Some(from) = arguments.seed {
        document.scenario.seeds = Seeds { from, count: 1 };
    }
    if let Some(count) = arguments.seeds {
        document.scenario.seeds.count = count.get();
    }
    for cell in &cells {
        refusals::judge(&cell.scenario).map_err(|message| usage(format!("{file}: {message}")))?;
    }
    Ok((document, cells))
}

/// Plays a run in a process of its own: what it draws and numbers is the process's.
fn play_in_process(scenario: &Scenario, seed: u64) -> Result<Measured, Broken> {
    let began = std::time::Instant::now();
    let played = ask_process(scenario, seed).map_err(|detail| Broken {
        check: "run-ends".into(),
        at_ms: 0,
        detail,
        missing: Missing::Safety,
    })?;
    let (nodes, name) = (scenario.network.nodes, &scenario.name);
    let seconds = began.elapsed().as_secs_f64();
    eprintln!("{name}: {nodes} nodes, seed {seed}: {seconds:.1} s, {} MiB", played.peak_mib);
    played.into()
}

fn ask_process(scenario: &Scenario, seed: u64) -> Result<Played, String> {
    let wanted = format!("{scenario:?}");
    let place = PLACES.get().into_iter().flatten().find(|place| place.scenario == wanted);
    let Place { file, settings, cell, .. } = place.ok_or("a scenario of no file")?;
    let mut child = Command::new(std::env::current_exe().map_err(|error| error.to_string())?);
    child.arg(file).args(["--play", &cell.to_string(), "--seed", &seed.to_string()]);
    for (key, value) in settings {
        child.arg("--set").arg(format!("{key}={value}"));
    }
    // A group of its own: an interruption is for this process, which lets the runs that have begun end.
    let output = child.stdin(Stdio::null()).stderr(Stdio::inherit()).process_group(0).output();
    let output = output.map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("the run ended with {}; what it said stands above", output.status));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
}

/// What must never happen goes before what did not come to pass, and that before what was measured.
fn exit_code(results: &Results) -> u8 {
    let broken: Vec<bool> =
        results.runs.iter().filter_map(|run| Some(run.broken.as_ref()?.progress)).collect();
    match broken.as_slice() {
        _ if results.unfinished > 0 => INTERRUPTED,
        broken if broken.contains(&false) => CHECKER,
        broken if broken.contains(&true) => NO_PROGRESS,
        _ if results.scenarios.iter().any(|scenario| !scenario.met) => FAILED,
        _ => 0,
    }
}

fn failed(message: impl Into<String>) -> Failure {
    Failure { code: FAILED, message: message.into() }
}

fn usage(message: String) -> Failure {
    Failure { code: USAGE, message }
}

/// The command that makes the same results again.
fn command(arguments: &Arguments) -> String {
    let files: Vec<String> = arguments.files.iter().map(|file| quoted(&file.display().to_string())).collect();
    let mut command = format!("{PROGRAM} {}", files.join(" "));
    command.extend(arguments.settings.iter().map(|(key, value)| setting(key, value)));
    command.extend(arguments.seed.map(|seed| format!(" --seed {seed}")));
    command.extend(arguments.seeds.map(|seeds| format!(" --seeds {seeds}")));
    command
}

/// Most memory this process took so far, as far as the system tells.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

impl From<Result<Measured, Broken>> for Played {
    fn from(outcome: Result<Measured, Broken>) -> Played {
        let (measured, broken) = match outcome {
            Ok(measured) => (measured, None),
            Err(Broken { check, at_ms, detail, missing }) => {
                let progress = missing == Missing::Progress;
                (Measured::default(), Some(BrokenRun { check, at_ms, detail, progress }))
            }
        };
        let Measured { trace, metrics, curve, spread } = measured;
        let spread = spread.map(|Spread { seen, regions }| (seen, regions));
        Played { trace, metrics, curve, spread, broken, peak_mib: 0 }
    }
}

impl From<Played> for Result<Measured, Broken> {
    fn from(played: Played) -> Result<Measured, Broken> {
        let Played { trace, metrics, curve, spread, broken, .. } = played;
        if let Some(BrokenRun { check, at_ms, detail, progress }) = broken {
            let missing = if progress { Missing::Progress } else { Missing::Safety };
            return Err(Broken { check, at_ms, detail, missing });
        }
        let spread = spread.map(|(seen, regions)| Spread { seen, regions });
        Ok(Measured { trace, metrics, curve, spread })
    }
}
