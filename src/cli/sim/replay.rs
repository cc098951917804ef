//! `aop sim replay`: one run again, with what happened in it.

use serde_json::json;

use super::files::{RESULT_FILE, load, read_results, typed};
use super::table::{borderless, lines};
use super::verdict;
use crate::cli::args::SimReplayArgs;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Console, print_json, write};
use crate::lab::harness::{self, Job, Runs, setting};
use crate::lab::measure::{Measured, Unit};
use crate::lab::play;
use crate::lab::results::{Results, Run};
use crate::lab::scenario::{Document, Seeds, Tier, label, plain};

/// `aop sim replay`.
pub(in crate::cli) fn replay(args: &SimReplayArgs, console: Console) -> Result<Exit, Failure> {
    // A folder may also hold scenarios; only the file says that it is one of `--out`.
    let recorded = if args.from.join(RESULT_FILE).is_file() { Some(read_results(&args.from)?) } else { None };
    let mut document = document(args, recorded.as_ref())?;
    document.scenario.seeds = Seeds { from: args.seed, count: 1 };
    let Some(runner) = harness::runner(document.scenario.tier) else {
        return Err(mesh(args, &document));
    };
    let name = document.scenario.name.clone();
    let job = Job::new(document, runner, format!("aop sim replay {}", typed(&args.from)))
        .map_err(|flaw| Failure::plain(Exit::Usage, &flaw))?;
    the_only_cell(&job)?;
    let finished = Runs::of(std::slice::from_ref(&job)).play(1, |_| ());
    let results = harness::results(std::slice::from_ref(&job), &finished, &command(args));
    let [run] = results.runs.as_slice() else {
        return Err(Failure::new(Exit::Failure, "the run did not end", ""));
    };
    let measured = finished.first().and_then(|it| it.outcome.as_ref().ok());
    let story = if args.trace { story(&job, args.seed, measured) } else { Vec::new() };
    print(args, &results, run, story)?;
    let same = recorded.and_then(|recorded| was_same(&recorded, &name, run, console));
    Ok(match verdict(&results) {
        // What a checker says goes before whether this is the run that was recorded.
        broken @ (Exit::Checker | Exit::Stalled) => broken,
        _ if same == Some(false) => Exit::Failure,
        _ => Exit::Done,
    })
}

/// From a file, or from what results say that was played.
fn document(args: &SimReplayArgs, recorded: Option<&Results>) -> Result<Document, Failure> {
    let Some(recorded) = recorded else {
        let mut loaded = load(std::slice::from_ref(&args.from), &args.settings)?;
        return match (loaded.len(), loaded.pop()) {
            (1, Some(loaded)) => Ok(loaded.document),
            _ => Err(Failure::new(Exit::Usage, "several scenarios; a replay plays one", "name its file")),
        };
    };
    let names: Vec<&str> = recorded.scenarios.iter().map(|it| it.name.as_str()).collect();
    let wanted = |name: &str| args.scenario.as_deref().is_none_or(|wanted| wanted == name);
    let mut found = recorded.scenarios.iter().filter(|it| wanted(&it.name));
    match (found.next(), found.next()) {
        (Some(one), None) => Document::read(&one.source, &args.settings)
            .map_err(|flaw| Failure::plain(Exit::Usage, &format!("{}: {flaw}", one.name))),
        _ => Err(Failure::new(
            Exit::Usage,
            format!("{} has the scenarios {}", args.from.display(), names.join(", ")),
            "choose one with --scenario NAME",
        )),
    }
}

fn mesh(args: &SimReplayArgs, document: &Document) -> Failure {
    let settings: String = args.settings.iter().map(|(key, value)| setting(key, value)).collect();
    let command = "cargo run --release --manifest-path simulations/mesh/Cargo.toml --";
    Failure::new(
        Exit::Usage,
        format!("{} is not played here: its tier is mesh", document.scenario.name),
        format!("{command} {}{settings} --seed {}", typed(&args.from), args.seed),
    )
}

fn command(args: &SimReplayArgs) -> String {
    let settings: String = args.settings.iter().map(|(key, value)| setting(key, value)).collect();
    format!("aop sim replay {}{settings} --seed {}", typed(&args.from), args.seed)
}

/// A sweep has several cells, and a replay plays one: which there are, and how one is chosen.
fn the_only_cell(job: &Job) -> Result<(), Failure> {
    let [first, _, ..] = job.cells() else { return Ok(()) };
    let keys: Vec<String> = job
        .scenario()
        .sweep
        .iter()
        .map(|(key, values)| {
            let values: Vec<String> = values.iter().map(|value| plain(value).to_string()).collect();
            format!("{key} = {}", values.join(", "))
        })
        .collect();
    let flags = first.parameters.iter().map(|(key, value)| {
        let value = plain(value);
        setting(key, value.as_str().unwrap_or(&value.to_string()))
    });
    let message = format!("a replay plays one cell; {} sweeps {}", job.scenario().name, keys.join("; "));
    Err(Failure::new(Exit::Usage, message, format!("choose one, such as{}", flags.collect::<String>())))
}

/// What happened: real nodes tell what they did, which takes another run, and the model its curve.
fn story(job: &Job, seed: u64, measured: Option<&Measured>) -> Vec<String> {
    let scenario = &job.cells()[0].scenario;
    if scenario.tier == Tier::Core {
        return play::play_told(scenario, seed).0;
    }
    let curve = measured.map(|it| it.curve.as_slice()).unwrap_or_default();
    curve.iter().map(|(x, share)| format!("{x}\t{share}")).collect()
}

fn print(args: &SimReplayArgs, results: &Results, run: &Run, story: Vec<String>) -> Result<(), Failure> {
    if args.json {
        let mut document =
            serde_json::to_value(run).map_err(|error| Failure::plain(Exit::Failure, &error))?;
        if args.trace {
            document["trace"] = json!(story);
        }
        return print_json(&document);
    }
    let mut text: String = story.iter().map(|line| format!("{line}\n")).collect();
    let cell = results.scenarios.first().and_then(|it| it.cells.first());
    let mut table = borderless();
    let kept = if cell.is_some_and(|cell| !cell.theory.is_empty()) { 3 } else { 2 };
    table.set_header(&["METRIC", "MEASURED", "THEORY"][..kept]);
    for (metric, value) in &run.metrics {
        let unit = Unit::of(metric);
        let theory = cell.and_then(|cell| cell.theory.get(metric));
        let theory = theory.map_or_else(String::new, |it| unit.show(*it));
        table.add_row([metric.clone(), unit.show(*value), theory].into_iter().take(kept));
    }
    let parameters =
        if run.parameters.is_empty() { String::new() } else { format!(" · {}", label(&run.parameters)) };
    text.push_str(&format!("{} · {}{parameters} · seed {}\n", run.scenario, run.tier, run.seed));
    match &run.broken {
        Some(broken) => {
            text.push_str(&format!(
                " {} failed after {} ms: {}\n",
                broken.check, broken.at_ms, broken.detail
            ));
        }
        None => text.push_str(&format!("{} trace {}\n", lines(&table), run.trace_hash)),
    }
    write(&text)
}

/// Whether the run is the one that was recorded, if it was.
fn was_same(recorded: &Results, name: &str, run: &Run, console: Console) -> Option<bool> {
    let same = |it: &&Run| it.scenario == name && it.seed == run.seed && it.parameters == run.parameters;
    let Some(before) = recorded.runs.iter().find(same) else {
        console.print("this run is not among those recorded");
        return None;
    };
    // Broken runs have no trace, so it also counts how they broke.
    let is_same = before.trace_hash == run.trace_hash && before.broken == run.broken;
    if is_same {
        console.print("the same run as recorded")
    } else {
        console.warn(&format!(
            "not the run that was recorded: its trace was {} with version {}",
            before.trace_hash, recorded.build
        ))
    }
    Some(is_same)
}
