//! One file of agents: read when it or a file that it names changes, and never less than what it said before.

use std::fs;
use std::path::{Path, PathBuf};

use miette::Diagnostic;
use sha2::{Digest, Sha256};

use super::PathDiagnostic;
use crate::agents::grants::{OfferingNode, with_grants};
use crate::agents::{HostedAgent, command};
use crate::document::run_config::{McpServer, Runner};
use crate::document::{self, AgentFile, FileDiagnostic, Refusal, files_named_in, read_documents};
use crate::proto::code::Code;

/// What a file said when it was last read.
pub(super) struct Reading {
    text: Hash,
    all: Hash,
    /// The files that it names.
    pub(super) beside: Vec<PathBuf>,
    /// Its agents; those of an earlier reading where the last one failed.
    pub(super) locals: Vec<HostedAgent>,
    /// Whether these are all that it has; otherwise some may be known from an earlier run alone.
    pub(super) is_complete: bool,
}

type Hash = [u8; 32];
type BoxedDiagnostic = Box<dyn Diagnostic + Send + Sync>;

impl Reading {
    /// Reads the file if something changed since `before`.
    pub(super) fn take(
        path: &Path,
        before: Option<Reading>,
        host: &OfferingNode,
        report: &dyn Fn(&dyn Diagnostic),
    ) -> Reading {
        // What cannot be read counts as empty here; reading it as a document says why.
        let content = fs::read(path).unwrap_or_default();
        let text = Sha256::digest(&content).into();
        let beside = match &before {
            // Parsing is the dear part, and every event in the folder comes by here.
            Some(before) if before.text == text => before.beside.clone(),
            _ => named_by(path, &content),
        };
        // With the files it names: a schema that changes makes another agent of the same text.
        let all = hash_of_all(&content, &beside);
        if let Some(same) = before.as_ref().filter(|before| before.all == all) {
            return Reading {
                beside,
                locals: same.locals.clone(),
                text: same.text,
                all: same.all,
                is_complete: same.is_complete,
            };
        }
        let (earlier, was_known) =
            before.map_or((Vec::new(), false), |before| (before.locals, before.is_complete));
        let (locals, diagnostics) = read(path, host);
        diagnostics.iter().for_each(|diagnostic| report(&**diagnostic));
        // Once it was read in full, what a mistake hides is kept from that reading.
        let is_complete = diagnostics.is_empty() || was_known;
        let locals = if diagnostics.is_empty() { locals } else { with_earlier(locals, earlier) };
        locals.iter().for_each(|local| report_missing_programs(path, local, report));
        Reading { text, all, beside, locals, is_complete }
    }
}

/// What could be read, and what else the file had before: one of its documents is wrong, and which it was before is
/// not known.
fn with_earlier(mut locals: Vec<HostedAgent>, earlier: Vec<HostedAgent>) -> Vec<HostedAgent> {
    for local in earlier {
        if locals
            .iter()
            .all(|read| (&read.offer.name, &read.offer.zone) != (&local.offer.name, &local.offer.zone))
        {
            locals.push(local);
        }
    }
    locals
}

fn named_by(path: &Path, content: &[u8]) -> Vec<PathBuf> {
    match (is_toml(path), path.parent()) {
        (true, Some(folder)) => files_named_in(&String::from_utf8_lossy(content), folder),
        _ => Vec::new(),
    }
}

fn hash_of_all(content: &[u8], beside: &[PathBuf]) -> Hash {
    let mut hasher = Sha256::new();
    // Hashes of one length, so that bytes cannot move from one file to the next unnoticed.
    hasher.update(Sha256::digest(content));
    for path in beside {
        // One that is gone differs from one that is empty.
        hasher.update(fs::read(path).map_or([0; 32], |content| Sha256::digest(content).into()));
    }
    hasher.finalize().into()
}

fn is_toml(path: &Path) -> bool {
    path.extension().is_some_and(|kind| kind == "toml")
}

/// The agents of a file, and what is wrong with it.
fn read(path: &Path, host: &OfferingNode) -> (Vec<HostedAgent>, Vec<BoxedDiagnostic>) {
    let read = if is_toml(path) { read_agent(path, host) } else { read_listings(path) };
    read.unwrap_or_else(|diagnostic| (Vec::new(), vec![diagnostic]))
}

fn read_agent(
    path: &Path,
    host: &OfferingNode,
) -> Result<(Vec<HostedAgent>, Vec<BoxedDiagnostic>), BoxedDiagnostic> {
    let mut file = AgentFile::read(path)?;
    let run_config = file.run_config.take();
    let document = with_grants(file, host)?;
    let (mut locals, diagnostics) = read_all(path, document);
    for local in &mut locals {
        local.offer.card.callable = run_config.is_some();
        local.run_config.clone_from(&run_config);
    }
    Ok((locals, diagnostics))
}

fn read_listings(path: &Path) -> Result<(Vec<HostedAgent>, Vec<BoxedDiagnostic>), BoxedDiagnostic> {
    let wrong = |problem: String, fix: &str| -> BoxedDiagnostic {
        Box::new(PathDiagnostic { path: path.into(), problem, fix: fix.into() })
    };
    let text = fs::read(path)
        .map_err(|error| wrong(format!("cannot be read: {error}"), "check the path and its permissions"))?;
    let document = document::parse(&text).map_err(|why| wrong(why, "correct the text at that place"))?;
    Ok(read_all(path, document))
}

fn read_all(path: &Path, document: serde_json::Value) -> (Vec<HostedAgent>, Vec<BoxedDiagnostic>) {
    let (mut locals, mut diagnostics) = (Vec::new(), Vec::<BoxedDiagnostic>::new());
    for outcome in read_documents(document) {
        match outcome {
            Ok(offer) => locals.push(HostedAgent { offer, run_config: None }),
            // Of several versions of one server the greatest is meant.
            Err(Refusal { code: Code::OlderVersion, .. }) => {}
            Err(Refusal { name, code, message }) => {
                let problem = format!("{name}: {message} ({code})");
                diagnostics.push(Box::new(PathDiagnostic {
                    path: path.into(),
                    problem,
                    fix: "correct it; the others are registered".into(),
                }));
            }
        }
    }
    (locals, diagnostics)
}

/// A program that is not there yet may be installed later, so its agent is offered all the same.
fn report_missing_programs(path: &Path, local: &HostedAgent, report: &dyn Fn(&dyn Diagnostic)) {
    let Some(run_config) = &local.run_config else { return };
    let (programs, key): (Vec<&String>, &str) = match &run_config.runner {
        Runner::Command(program) => (program.command.first().into_iter().collect(), "command"),
        Runner::Mcp { servers, .. } => (servers.iter().filter_map(program).collect(), "mcp"),
        _ => return,
    };
    for program in programs {
        if command::find_program(program, &run_config.folder).is_none() {
            let problem = command::missing(program, &run_config.folder);
            let fix = "calls fail with `start_failed` until it is there";
            report(&FileDiagnostic::at(path, &["agent", "run", key], problem, fix));
        }
    }
}

fn program(server: &McpServer) -> Option<&String> {
    match server {
        McpServer::Command(program) => program.command.first(),
        McpServer::Url(_) => None,
    }
}
