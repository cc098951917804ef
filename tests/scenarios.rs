//! The files of `simulations/`: each can be read, is named as its file, and states what must come out.

use std::path::{Path, PathBuf};

use aop::sim::scenario::Document;

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
