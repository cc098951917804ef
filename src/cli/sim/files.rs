//! Reading scenarios: all files are judged before anything is played, and every flaw is shown with its line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use miette::{Diagnostic, NamedSource, SourceSpan};
use thiserror::Error;

use crate::cli::failure::{Exit, Failure, report};
use crate::lab::harness::quoted;
use crate::lab::results::{Results, SCHEMA};
use crate::lab::scenario::{Document, Flaw};

/// Largest scenario, bytes: it is written by hand.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Name of the results in a folder of `--out`.
pub(super) const RESULT_FILE: &str = "result.json";

/// A scenario and where it came from.
pub(super) struct Loaded {
    pub(super) path: PathBuf,
    pub(super) document: Document,
}

/// A flaw under the name of its file.
#[derive(Debug, Diagnostic, Error)]
#[error("{message}")]
struct Report {
    message: String,
    #[help]
    fix: Option<String>,
    #[source_code]
    text: Option<NamedSource<String>>,
    #[label("here")]
    span: Option<SourceSpan>,
}

/// Reads them all; what is wrong has been reported.
pub(super) fn load(paths: &[PathBuf], settings: &[(String, String)]) -> Result<Vec<Loaded>, Failure> {
    let (loaded, flaws) = load_what_is_right(paths, settings);
    if flaws > 0 {
        return Err(Failure::already_reported(Exit::Usage));
    }
    Ok(loaded)
}

/// Reads what can be read and reports the rest: says how many flaws there were.
pub(super) fn load_what_is_right(paths: &[PathBuf], settings: &[(String, String)]) -> (Vec<Loaded>, usize) {
    let mut loaded: Vec<Loaded> = Vec::new();
    let mut flaws = 0;
    let mut tell = |path: &Path, text: &str, flaw: &Flaw| {
        flaws += 1;
        report(&diagnostic(path, text, flaw));
    };
    let plain = |message: String| Flaw { message, span: None };
    let mut seen = BTreeMap::new();
    for path in expanded(paths) {
        let text = match path.as_ref().map_err(Clone::clone).and_then(|path| read_text(path)) {
            Ok(text) => text,
            Err((path, why)) => {
                tell(&path, "", &plain(why));
                continue;
            }
        };
        let Ok(path) = path else { continue };
        // `a.toml` and `./a.toml` are one file.
        let same = path.canonicalize().unwrap_or_else(|_| path.clone());
        if seen.insert(same, ()).is_some() {
            tell(&path, &text, &plain("is given twice".into()));
            continue;
        }
        match Document::examine(&text, settings) {
            Ok(document) => loaded.push(Loaded { path, document }),
            Err(found) => found.iter().for_each(|flaw| tell(&path, &text, flaw)),
        }
    }
    // Results are matched by name, so two scenarios of one name would be taken for one.
    let mut names: BTreeMap<&str, &Path> = BTreeMap::new();
    for Loaded { path, document } in &loaded {
        let name = document.scenario.name.as_str();
        if let Some(first) = names.insert(name, path) {
            let message = format!("{} has a scenario of this name, too: `{name}`", first.display());
            let start = document.text.find(name);
            tell(path, &document.text, &Flaw { message, span: start.map(|at| at..at + name.len()) });
        }
    }
    (loaded, flaws)
}

type Unread = (PathBuf, String);

/// Files as they are, folders as the scenarios in them, by name.
fn expanded(paths: &[PathBuf]) -> Vec<Result<PathBuf, Unread>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(Ok(path.clone()));
            continue;
        }
        let entries = std::fs::read_dir(path).map(|entries| {
            let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
            let mut paths: Vec<PathBuf> =
                paths.filter(|path| path.extension().is_some_and(|it| it == "toml")).collect();
            // A file system lists in any order, and the results follow this one.
            paths.sort();
            paths
        });
        match entries {
            Ok(paths) if paths.is_empty() => files.push(Err((path.clone(), "has no *.toml".into()))),
            Ok(paths) => files.extend(paths.into_iter().map(Ok)),
            Err(error) => files.push(Err((path.clone(), error.to_string()))),
        }
    }
    files
}

fn read_text(path: &Path) -> Result<String, Unread> {
    let failed = |why: String| (path.to_path_buf(), why);
    let size = std::fs::metadata(path).map_err(|error| failed(format!("cannot be read: {error}")))?.len();
    if size > FILE_BYTES_MAX {
        return Err(failed(format!("{size} bytes are more than a scenario has, {FILE_BYTES_MAX}")));
    }
    std::fs::read_to_string(path).map_err(|error| failed(format!("cannot be read: {error}")))
}

/// A flaw with its lines; a suggestion stands below them.
fn diagnostic(path: &Path, text: &str, flaw: &Flaw) -> Report {
    let (message, fix) = match flaw.message.split_once("; did you mean ") {
        Some((message, fix)) => (message.to_string(), Some(format!("did you mean {fix}"))),
        None => (flaw.message.clone(), None),
    };
    match &flaw.span {
        Some(span) => Report {
            message,
            fix,
            text: Some(NamedSource::new(path.display().to_string(), text.into())),
            span: Some(span.clone().into()),
        },
        None => Report { message: format!("{}: {message}", path.display()), fix, text: None, span: None },
    }
}

/// Reads results from a file, or from the folder that `--out` made.
pub(super) fn read_results(path: &Path) -> Result<Results, Failure> {
    let file = if path.is_dir() { path.join(RESULT_FILE) } else { path.to_path_buf() };
    let fix = "`aop sim run FILE --out DIR` writes one, `--format json` prints one";
    let failed = |exit, why: String| Failure::new(exit, format!("{}: {why}", file.display()), fix);
    let bytes = std::fs::read(&file).map_err(|error| failed(Exit::NotFound, error.to_string()))?;
    let results: Results = serde_json::from_slice(&bytes)
        .map_err(|error| failed(Exit::Usage, format!("this is no result document: {error}")))?;
    match results.schema {
        SCHEMA => Ok(results),
        other => Err(failed(Exit::Usage, format!("its schema is {other}, this program reads {SCHEMA}"))),
    }
}

/// A path as a shell takes it.
pub(super) fn typed(path: &Path) -> String {
    quoted(&path.display().to_string())
}
