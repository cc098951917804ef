//! The files of `simulations/`: each can be read, is named as its file, and states what must come out.

use std::path::{Path, PathBuf};

use aop::lab::scenario::Document;

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("simulations");
    let mut files: Vec<PathBuf> = [folder.clone(), folder.join("large")]
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).expect("a folder of scenarios"))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|it| it == "toml"))
        .collect();
    files.sort();
    files
}

#[test]
fn every_scenario_can_be_read_and_says_what_must_come_out() {
    let mut problems = Vec::new();
    for path in files() {
        let text = std::fs::read_to_string(&path).expect("a text");
        match Document::read(&text, &[]) {
            Err(flaw) => problems.push(format!("{}: {flaw:?}", path.display())),
            Ok(document) => {
                let scenario = document.scenario;
                if path.file_stem().and_then(|stem| stem.to_str()) != Some(&scenario.name) {
                    problems.push(format!("{}: is named {}", path.display(), scenario.name));
                }
                if scenario.expectations.is_empty() || scenario.answer.is_none() {
                    problems.push(format!("{}: expects or answers nothing", path.display()));
                }
            }
        }
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// Plays the default set and leaves its results beside the build, where `aop sim compare` reads them. Unoptimised code
/// is too slow for it: `cargo test --release --no-default-features --features lab --test scenarios`. `AOP_SCENARIO=zones` plays
/// those with such a name alone, `AOP_SIM_SEEDS=100` as many seeds of each.
#[cfg(not(debug_assertions))]
#[test]
fn the_default_set_comes_out_as_expected() {
    use aop::lab::harness::{self, Job, Runs};

    let named = std::env::var("AOP_SCENARIO").unwrap_or_default();
    let seeds = std::env::var("AOP_SIM_SEEDS").ok().map(|seeds| ("seeds.count".to_owned(), seeds));
    let settings: Vec<(String, String)> = seeds.into_iter().collect();
    let mut jobs = Vec::new();
    for path in files().into_iter().filter(|path| !path.parent().is_some_and(|it| it.ends_with("large"))) {
        let text = std::fs::read_to_string(&path).expect("a text");
        let document = Document::read(&text, &settings).expect("a scenario");
        let name = path.file_name().unwrap_or_default().display();
        if !name.to_string().contains(&named) {
            continue;
        }
        let replay = format!("aop sim replay simulations/{name}");
        let Some(runner) = harness::runner(document.scenario.tier) else { continue };
        jobs.push(Job::new(document, runner, replay).expect("cells"));
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let begun = std::time::Instant::now();
    let finished = Runs::of(&jobs).play(threads, |_| ());
    let results = harness::results(&jobs, &finished, "aop sim run simulations/*.toml");
    println!("{} runs in {:.0?}", finished.len(), begun.elapsed());
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("scenarios.json");
    std::fs::write(&out, serde_json::to_string(&results.baseline()).expect("a document")).expect("written");
    println!("results: {}", out.display());
    let unmet: Vec<String> = results
        .scenarios
        .iter()
        .filter(|it| !it.met)
        .map(|it| format!("{}: {}", it.name, it.answer))
        .collect();
    let broken = results.runs.iter().filter_map(|run| Some((run, run.broken.as_ref()?)));
    let broken: Vec<String> =
        broken.map(|(run, broken)| format!("{}: {}: {}", run.replay, broken.check, broken.detail)).collect();
    if !named.is_empty() {
        results.scenarios.iter().for_each(|it| println!("{}: {}", it.name, it.answer));
    }
    assert!(unmet.is_empty() && broken.is_empty(), "\n{}\n{}", unmet.join("\n"), broken.join("\n"));
}
