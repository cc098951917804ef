//! The agents of files and folders (`--agents PATH`), followed while the node runs.
//!
//! A `.toml` is an agent's file, a `.json` holds documents that become listings. A file that cannot be read keeps what
//! it said before; at the start, where nothing is known of before, it keeps agents of earlier runs from being withdrawn.
//! Whatever is wrong is told once a change, and never stops the other files.

mod reading;
mod watching;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::Diagnostic;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use self::reading::Reading;
use self::watching::Watching;
use super::grants::OfferingNode;
use super::{Agents, HostedAgent};
use crate::proto::name::{AgentName, ZoneName};

/// Tells people what is wrong with a file.
type Report = Arc<dyn Fn(&dyn Diagnostic) + Send + Sync>;

/// Follows the agents' files. Dropping it ends that; the agents stay as they are.
pub struct Files {
    following: Option<AbortHandle>,
    again: Arc<Notify>,
}

/// Something wrong with a path as a whole.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{}: {problem}", path.display())]
struct PathDiagnostic {
    path: PathBuf,
    problem: String,
    #[help]
    fix: String,
}

impl Files {
    /// Reads the agents, gives them to `agents`, and follows the files from then on.
    pub(crate) async fn start(
        paths: &[PathBuf],
        host: OfferingNode,
        agents: &Agents,
        report: impl Fn(&dyn Diagnostic) + Send + Sync + 'static,
    ) -> Files {
        let paths: Vec<PathBuf> =
            // Events name absolute paths, and these are compared with them.
            paths.iter().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone())).collect();
        if paths.is_empty() {
            return Files { following: None, again: Arc::default() };
        }
        // Only now: later it is a file that was removed.
        for path in paths.iter().filter(|path| !path.exists()) {
            let problem = "does not exist yet".into();
            let fix = "check the name; its agents are offered as soon as it is there".into();
            report(&PathDiagnostic { path: path.clone(), problem, fix });
        }
        let mut watching = Watching::new(&report);
        let folder = Folder {
            paths,
            host,
            read: BTreeMap::new(),
            reported: BTreeSet::new(),
            report: Arc::new(report),
        };
        let folder = folder.take_all(&mut watching, agents).await;
        let again = Arc::new(Notify::new());
        let following = tokio::spawn(follow(folder, watching, agents.clone(), again.clone()));
        Files { following: Some(following.abort_handle()), again }
    }

    /// Reads them once more: some file systems, and links that lead elsewhere, tell of no change.
    pub(crate) fn read_again(&self) {
        self.again.notify_one();
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if let Some(following) = &self.following {
            following.abort();
        }
    }
}

async fn follow(mut folder: Option<Folder>, mut watching: Watching, agents: Agents, again: Arc<Notify>) {
    while let Some(known) = folder.take() {
        tokio::select! {
            is_change = watching.changed(|path| known.concerns(path)) => if !is_change { return },
            () = again.notified() => {}
        }
        folder = known.take_all(&mut watching, &agents).await;
    }
}

/// What all the paths say.
struct Folder {
    paths: Vec<PathBuf>,
    host: OfferingNode,
    read: BTreeMap<PathBuf, Reading>,
    /// What is wrong across files and was told.
    reported: BTreeSet<String>,
    report: Report,
}

impl Folder {
    /// Reads what changed until nothing new is to be watched, and hands the agents over.
    async fn take_all(mut self, watching: &mut Watching, agents: &Agents) -> Option<Folder> {
        loop {
            // Watched before it is read: a change between the two is an event.
            watching.watch(&self.folders());
            let scanned = tokio::task::spawn_blocking(move || {
                let scan = self.scan();
                (self, scan)
            });
            // A panic in a parser is told by its own message; the agents stay as they are.
            let Ok((folder, (locals, is_complete))) = scanned.await else { return None };
            self = folder;
            // Reading may name files in further folders, which
            // changed unwatched: then everything is read once more.
            if !watching.watch(&self.folders()) {
                agents.replace_known(locals, is_complete);
                return Some(self);
            }
        }
    }

    /// The agents now, and whether these are all.
    fn scan(&mut self) -> (Vec<HostedAgent>, bool) {
        let (mut found, mut is_complete, mut diagnostics) = (Vec::new(), true, Vec::new());
        for path in &self.paths {
            match list(path) {
                Ok(files) => found.extend(files),
                Err(error) => {
                    is_complete = false;
                    // A folder that cannot be listed keeps its files; each of them is still read.
                    found.extend(self.read.keys().filter(|file| file.starts_with(path)).cloned());
                    let (problem, fix) = (format!("cannot be read: {error}"), "check its permissions".into());
                    diagnostics.push(PathDiagnostic { path: path.clone(), problem, fix });
                }
            }
        }
        let mut read = BTreeMap::new();
        for path in found {
            // A file may be named both by itself and by its folder.
            if !read.contains_key(&path) {
                let before = self.read.remove(&path);
                read.insert(path.clone(), Reading::take(&path, before, &self.host, &*self.report));
            }
        }
        self.read = read;
        let locals = self.locals(&mut diagnostics);
        self.report_new(diagnostics);
        (locals, is_complete && self.read.values().all(|reading| reading.is_complete))
    }

    /// The agents of all files; of two with one name the first stays.
    fn locals(&self, diagnostics: &mut Vec<PathDiagnostic>) -> Vec<HostedAgent> {
        let schemas: BTreeSet<&PathBuf> = self.read.values().flat_map(|reading| &reading.beside).collect();
        let mut named: BTreeMap<(ZoneName, AgentName), (&Path, &HostedAgent)> = BTreeMap::new();
        for (path, reading) in &self.read {
            // A schema often lies beside the file that names it, and is no document of listings.
            if schemas.contains(path) {
                continue;
            }
            for local in &reading.locals {
                let zone = local.offer.zone.clone().unwrap_or_else(|| self.host.home.clone());
                let first = named.entry((zone, local.offer.name.clone())).or_insert((path, local));
                if !std::ptr::eq(first.1, local) {
                    let problem =
                        format!("`{}` is the agent of {} already", local.offer.name, first.0.display());
                    let fix = "give one of the two another name or zone, or remove it".into();
                    diagnostics.push(PathDiagnostic { path: path.clone(), problem, fix });
                }
            }
        }
        named.into_values().map(|(_, local)| local.clone()).collect()
    }

    fn report_new(&mut self, diagnostics: Vec<PathDiagnostic>) {
        let reported = std::mem::take(&mut self.reported);
        for diagnostic in diagnostics {
            // What is mended is forgotten, so that it is told again when it comes back.
            if !reported.contains(&diagnostic.to_string()) {
                (self.report)(&diagnostic);
            }
            self.reported.insert(diagnostic.to_string());
        }
    }

    /// Folders in which something may change that matters.
    fn folders(&self) -> BTreeSet<PathBuf> {
        let beside = self.read.values().flat_map(|reading| &reading.beside);
        let files = self.paths.iter().chain(beside);
        // The nearest folder that is there: what is missing may be made later, from the top down.
        let parents = files.filter_map(|path| path.ancestors().skip(1).find(|folder| folder.is_dir()));
        let folders = self.paths.iter().filter(|path| path.is_dir()).map(PathBuf::as_path);
        parents.chain(folders).map(Path::to_path_buf).collect()
    }

    /// Whether a change of this path may change an agent: agents write files of their own into these folders.
    fn concerns(&self, path: &Path) -> bool {
        is_agent_file(path)
            || self.paths.iter().any(|given| given.starts_with(path))
            || self.read.values().any(|reading| reading.beside.iter().any(|file| file.starts_with(path)))
    }
}

fn is_agent_file(path: &Path) -> bool {
    path.extension().is_some_and(|kind| kind == "toml" || kind == "json")
}

/// The path itself, or the agent files of a folder; nothing where there is nothing.
///
/// # Errors
/// It cannot be looked at.
pub(crate) fn list(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
        Ok(kind) if !kind.is_dir() => return Ok(vec![path.into()]),
        Ok(_) => {}
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        // What editors keep beside a file begins with a dot.
        let is_hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if is_agent_file(&file) && !is_hidden && !file.is_dir() {
            files.push(file);
        }
    }
    Ok(files)
}
