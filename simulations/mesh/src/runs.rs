//! From scenario files to results: every cell with every seed, each run in a process of its own.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use aop::sim::measure::{Broken, Measured, Metrics, Missing, Spread};
use aop::sim::results::{BrokenRun, Results, Run, SCHEMA};
use aop::sim::scenario::{Cell, Document, Flaw, Tier};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::arguments::{Arguments, Format, PROGRAM};
use crate::{show, world};

/// An expectation failed, or a run could not be made.
const FAILED: u8 = 1;
const USAGE: u8 = 2;
const CHECKER: u8 = 6;
const NO_PROGRESS: u8 = 7;

/// Why the program ends without results.
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// What went wrong.
    pub message: String,
}

/// A file that is to be played.
struct Scene {
    file: String,
    document: Document,
    cells: Vec<Cell>,
    seeds: Vec<u64>,
}

/// One run of a scene.
#[derive(Clone, Copy)]
struct Job {
    scene: usize,
    cell: usize,
    seed: u64,
}

/// What the process of one run prints.
#[derive(Serialize, Deserialize)]
struct Played {
    trace: u64,
    metrics: Metrics,
    curve: Vec<(f64, f64)>,
    seen: Vec<Option<u32>>,
    regions: Vec<u8>,
    broken: Option<BrokenRun>,
    /// Most memory it took, MiB.
    peak_mib: u64,
}

/// Plays one run here and prints what it found.
pub fn play_one(arguments: &Arguments, cell: usize) -> Result<u8, Failure> {
    let scenes = scenes(arguments)?;
    let scene = scenes.first().ok_or_else(|| failed("no file"))?;
    let cell = scene.cells.get(cell).ok_or_else(|| failed("no such cell"))?;
    let seed = arguments.seed.unwrap_or_default();
    let outcome = world::play(&cell.scenario, seed).map_err(failed)?;
    let played = Played { peak_mib: peak_mib(), ..Played::from(outcome) };
    let text = serde_json::to_string(&played).map_err(|error| failed(error.to_string()))?;
    print(&text)?;
    Ok(0)
}

/// Plays every run and shows the results.
pub fn play_all(arguments: &Arguments) -> Result<u8, Failure> {
    let scenes = scenes(arguments)?;
    let jobs: Vec<Job> = scenes.iter().enumerate().flat_map(|(at, scene)| scene.jobs(at)).collect();
    let command = command(arguments);
    eprintln!("{command}");
    let mut finished: Vec<Option<Result<Measured, Broken>>> = jobs.iter().map(|_| None).collect();
    let mut failure = None;
    let next = AtomicUsize::new(0);
    let threads = arguments.jobs.or(thread::available_parallelism().ok()).map_or(1, usize::from);
    let (done, outcomes) = mpsc::channel();
    let stopped = Mutex::new(false);
    thread::scope(|scope| {
        for _ in 0..threads.min(jobs.len()) {
            let done = done.clone();
            scope.spawn(|| {
                let done = done;
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(at) else { return };
                    if stopped.lock().is_ok_and(|stopped| *stopped) {
                        return;
                    }
                    let outcome = play_in_process(&scenes[job.scene], *job, arguments);
                    if done.send((at, outcome)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        for (count, (at, outcome)) in outcomes.iter().enumerate() {
            match outcome {
                Ok((outcome, note)) => {
                    let job = jobs[at];
                    let name = &scenes[job.scene].document.scenario.name;
                    eprintln!("{}/{} {name}, seed {}: {note}", count + 1, jobs.len(), job.seed);
                    finished[at] = Some(outcome);
                }
                Err(error) => {
                    if let Ok(mut stopped) = stopped.lock() {
                        *stopped = true;
                    }
                    failure = Some(error);
                }
            }
            let written = write_out(arguments, &results(&scenes, &jobs, &finished, arguments));
            failure = failure.take().or(written.err());
        }
    });
    let results = results(&scenes, &jobs, &finished, arguments);
    match arguments.format {
        Format::Json => print(&json(&results)?)?,
        Format::Table => print(&show::table(&results))?,
    }
    eprintln!("{command}");
    match failure {
        Some(failure) => Err(failure),
        None => Ok(exit_code(&results)),
    }
}

/// Everything is read and judged before anything runs.
fn scenes(arguments: &Arguments) -> Result<Vec<Scene>, Failure> {
    arguments.files.iter().map(|file| scene(file, arguments)).collect()
}

fn scene(path: &Path, arguments: &Arguments) -> Result<Scene, Failure> {
    let file = path.display().to_string();
    let usage = |message: String| Failure { code: USAGE, message };
    let text = std::fs::read_to_string(path).map_err(|error| usage(format!("{file}: {error}")))?;
    let flawed = |flaw: Flaw| usage(format!("{}: {flaw}", place(&file, &text, &flaw)));
    let document = Document::read(&text, &arguments.settings).map_err(flawed)?;
    if document.scenario.tier != Tier::Mesh {
        let tier = document.scenario.tier.name();
        return Err(usage(format!("{file}: tier = \"{tier}\" is played by `aop sim run {file}`")));
    }
    let cells = document.cells().map_err(flawed)?;
    let mut seeds = document.scenario.seeds;
    if let Some(seed) = arguments.seed {
        (seeds.from, seeds.count) = (seed, 1);
    }
    seeds.count = arguments.seeds.map_or(seeds.count, usize::from);
    Ok(Scene { file, document, cells, seeds: seeds.iter().collect() })
}

/// The file, and the line if the flaw has one.
fn place(file: &str, text: &str, flaw: &Flaw) -> String {
    let before = flaw.span.as_ref().and_then(|span| text.get(..span.start));
    before.map_or_else(|| file.to_owned(), |before| format!("{file}:{}", before.matches('\n').count() + 1))
}

impl Scene {
    fn jobs(&self, scene: usize) -> impl Iterator<Item = Job> {
        let cells = 0..self.cells.len();
        cells.flat_map(move |cell| self.seeds.iter().map(move |seed| Job { scene, cell, seed: *seed }))
    }

    fn replay(&self, cell: usize, seed: u64, arguments: &Arguments) -> String {
        let swept = self.cells[cell].parameters.iter().map(|(key, value)| (key.clone(), value.to_string()));
        let settings: String =
            arguments.settings.iter().cloned().chain(swept).map(|(key, value)| setting(&key, &value)).collect();
        format!("{PROGRAM} {}{settings} --seed {seed}", quoted(&self.file))
    }
}

/// A run in a process of its own, and a line about it.
fn play_in_process(
    scene: &Scene,
    job: Job,
    arguments: &Arguments,
) -> Result<(Result<Measured, Broken>, String), Failure> {
    let began = std::time::Instant::now();
    let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let mut child = Command::new(program);
    child.arg(&scene.file).args(["--play", &job.cell.to_string(), "--seed", &job.seed.to_string()]);
    for (key, value) in &arguments.settings {
        child.arg("--set").arg(format!("{key}={value}"));
    }
    let output =
        child.stderr(Stdio::inherit()).stdin(Stdio::null()).output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let replay = scene.replay(job.cell, job.seed, arguments);
        return Err(failed(format!("a run could not be made ({}): {replay}", output.status)));
    }
    let played: Played = serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))?;
    let note = format!("{:.1} s, {} MiB", began.elapsed().as_secs_f64(), played.peak_mib);
    Ok((played.into(), note))
}

fn results(
    scenes: &[Scene],
    jobs: &[Job],
    finished: &[Option<Result<Measured, Broken>>],
    arguments: &Arguments,
) -> Results {
    let runs = jobs.iter().zip(finished).filter_map(|(job, outcome)| Some((job, outcome.as_ref()?)));
    Results {
        schema: SCHEMA,
        command: command(arguments),
        build: env!("CARGO_PKG_VERSION").into(),
        runs: runs.map(|(job, outcome)| run(&scenes[job.scene], *job, outcome, arguments)).collect(),
        scenarios: Vec::new(),
    }
}

fn run(scene: &Scene, job: Job, outcome: &Result<Measured, Broken>, arguments: &Arguments) -> Run {
    let parameters = &scene.cells[job.cell].parameters;
    let json = |value: &toml::Value| serde_json::to_value(value).unwrap_or(Value::Null);
    let mut run = Run {
        scenario: scene.document.scenario.name.clone(),
        tier: Tier::Mesh.name().into(),
        seed: job.seed,
        parameters: parameters.iter().map(|(key, value)| (key.clone(), json(value))).collect(),
        replay: scene.replay(job.cell, job.seed, arguments),
        ..Run::default()
    };
    match outcome {
        Ok(measured) => {
            run.trace_hash = format!("{:016x}", measured.trace);
            run.metrics = measured.metrics.clone();
        }
        Err(broken) => run.broken = Some(broken_run(broken)),
    }
    run
}

fn broken_run(broken: &Broken) -> BrokenRun {
    BrokenRun {
        check: broken.check.clone(),
        at_ms: broken.at_ms,
        detail: broken.detail.clone(),
        progress: broken.missing == Missing::Progress,
    }
}

fn exit_code(results: &Results) -> u8 {
    let broken: Vec<bool> = results.runs.iter().filter_map(|run| Some(run.broken.as_ref()?.progress)).collect();
    if broken.contains(&false) {
        CHECKER
    } else if broken.contains(&true) {
        NO_PROGRESS
    } else if results.scenarios.iter().any(|scenario| !scenario.met) {
        FAILED
    } else {
        0
    }
}

fn write_out(arguments: &Arguments, results: &Results) -> Result<(), Failure> {
    let Some(path) = &arguments.out else { return Ok(()) };
    std::fs::write(path, json(results)?).map_err(|error| failed(format!("{}: {error}", path.display())))
}

fn json(results: &Results) -> Result<String, Failure> {
    serde_json::to_string_pretty(results).map_err(|error| failed(error.to_string()))
}

fn print(text: &str) -> Result<(), Failure> {
    writeln!(io::stdout(), "{text}").map_err(|error| failed(error.to_string()))
}

fn failed(message: impl Into<String>) -> Failure {
    Failure { code: FAILED, message: message.into() }
}

/// This very command.
fn command(arguments: &Arguments) -> String {
    let mut command = PROGRAM.to_owned();
    for file in &arguments.files {
        command += &format!(" {}", quoted(&file.display().to_string()));
    }
    command.extend(arguments.settings.iter().map(|(key, value)| setting(key, value)));
    command.extend(arguments.seed.map(|seed| format!(" --seed {seed}")));
    command.extend(arguments.seeds.map(|seeds| format!(" --seeds {seeds}")));
    command
}

fn setting(key: &str, value: &str) -> String {
    format!(" --set {}", quoted(&format!("{key}={value}")))
}

/// A word of a command line, in quotes if a shell would read it otherwise.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=:,+@%".contains(&byte);
    if word.bytes().all(is_plain) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// Most memory this process took so far, as far as the system tells.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

impl From<Result<Measured, Broken>> for Played {
    fn from(outcome: Result<Measured, Broken>) -> Played {
        let (measured, broken) = match outcome {
            Ok(measured) => (measured, None),
            Err(broken) => (Measured::default(), Some(broken_run(&broken))),
        };
        let Measured { trace, metrics, curve, spread } = measured;
        let Spread { seen, regions } = spread.unwrap_or_default();
        Played { trace, metrics, curve, seen, regions, broken, peak_mib: 0 }
    }
}

impl From<Played> for Result<Measured, Broken> {
    fn from(played: Played) -> Result<Measured, Broken> {
        let Played { trace, metrics, curve, seen, regions, broken, .. } = played;
        match broken {
            Some(BrokenRun { check, at_ms, detail, progress }) => {
                let missing = if progress { Missing::Progress } else { Missing::Safety };
                Err(Broken { check, at_ms, detail, missing })
            }
            None => {
                let spread = (!seen.is_empty()).then_some(Spread { seen, regions });
                Ok(Measured { trace, metrics, curve, spread })
            }
        }
    }
}
