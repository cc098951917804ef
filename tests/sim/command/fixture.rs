//! A folder with scenarios, and `aop sim` run in it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// Sent once: some nodes never hear of it.
pub(crate) const ONCE: &str = r#"name = "once"
question = "Does fan-out 3, sent once, reach every node?"
claim = "paper 7.6"
answer = "No, {coverage:%}."
tier = "model"
seeds = { from = 1, count = 4 }
[network]
nodes = 500
[protocol]
kind = "push"
fanout = 3
rounds = 1
[[claims]]
metric = "coverage"
op = ">="
value = 1
[[expect]]
metric = "coverage"
op = ">="
value = 0.8
"#;

/// Sent for ever, under loss.
pub(crate) const LOSS: &str = r#"name = "loss"
question = "What does loss do?"
claim = "paper 7.5"
tier = "model"
seeds = { from = 1, count = 3 }
[network]
nodes = 200
[protocol]
kind = "push"
[sweep]
"network.loss.rate" = [0, 0.3]
[[expect]]
metric = "coverage"
op = "=="
value = 1
"#;

/// Real nodes that are cut in two for a while.
pub(crate) const NODES: &str = r#"name = "nodes"
question = "Do they agree?"
claim = "ours"
tier = "core"
seeds = { from = 1, count = 2 }
until = "30s"
[network]
nodes = 5
latency = "25ms"
[protocol]
kind = "mesh"
degree = 3
anti_entropy = { every = "10s", on_join = true }
[workload]
updates = 3
at = "12s"
[[fault]]
kind = "partition"
at = "10s"
lasts = "10s"
[[expect]]
metric = "coverage"
op = "=="
value = 1
"#;

/// A folder with scenarios, and the binary in it.
pub(crate) struct ScenarioFolder(TempDir);

impl ScenarioFolder {
    pub(crate) fn new() -> ScenarioFolder {
        let folder = ScenarioFolder(tempfile::tempdir().unwrap());
        folder.write("once.toml", ONCE);
        folder.write("loss.toml", LOSS);
        folder
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aop"));
        command.arg("sim").args(args).current_dir(self.path()).env_clear().stdin(Stdio::null());
        command
    }

    pub(crate) fn sim(&self, args: &[&str]) -> Ended {
        Ended::from(self.command(args).output().unwrap())
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let ended = self.sim(args);
        serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
    }
}

#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Ended {
        Ended {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}
