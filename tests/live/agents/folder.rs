//! A real folder of agents, and what can be seen of the processes that run in it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aop::agents::{Agents, HostedAgent};
use aop::document::{AgentFile, read_documents};
use aop::proto::name::ZoneName;
use tempfile::TempDir;
use tokio::time::Instant;

/// A folder of agents' files.
pub(crate) struct Folder {
    path: PathBuf,
    /// Removes it at the end, unless another folder does.
    _own: Option<TempDir>,
}

impl Folder {
    pub(crate) fn new() -> Folder {
        let own = TempDir::new().unwrap();
        Folder { path: own.path().into(), _own: Some(own) }
    }

    /// Makes this folder.
    pub(crate) fn at(path: &Path) -> Folder {
        fs::create_dir(path).unwrap();
        Folder { path: path.into(), _own: None }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `NAME.toml` with this line below `[agent.run]`.
    pub(crate) fn agent(&self, name: &str, run: &str) {
        self.agent_with(name, "", run);
    }

    /// As [`Folder::agent`], with lines for `[agent]`.
    pub(crate) fn agent_with(&self, name: &str, lines: &str, run: &str) {
        let text = format!("[agent]\nname = \"{name}\"\n{lines}\n[agent.run]\n{run}\n");
        fs::write(self.path().join(format!("{name}.toml")), text).unwrap();
    }

    /// Writes an executable script.
    pub(crate) fn program(&self, name: &str, script: &str) {
        let path = self.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The agents of all files, ready to be called.
    pub(crate) fn agents(&self) -> Agents {
        let mut locals = Vec::new();
        for entry in fs::read_dir(self.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|kind| kind == "toml") {
                let file = AgentFile::read(&path).unwrap();
                let offer = read_documents(file.document).remove(0).unwrap();
                locals.push(HostedAgent { offer, run_config: file.run_config });
            }
        }
        let agents = Agents::new(ZoneName::root());
        agents.replace(locals);
        agents
    }

    /// The process numbers that agents wrote into `*.pid`.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let files = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path());
        let pids = files.filter(|path| path.extension().is_some_and(|kind| kind == "pid"));
        pids.filter_map(|path| fs::read_to_string(path).unwrap().trim().parse().ok()).collect()
    }
}

/// Whether a process is there; one that ended and was not waited for counts, so that none is left.
pub(crate) fn lives(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Processes and files tell nobody when they change, so they are looked at until they have.
pub(crate) async fn until(is_met: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_met() {
        assert!(started.elapsed() < Duration::from_secs(20), "not met in 20 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
