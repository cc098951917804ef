//! A node as a process, with the agents of a test.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aop::api::{CallAnswer, FindAnswer, Outcome, Ready};
use serde_json::Value;
use tempfile::TempDir;

/// Longest wait for anything here.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(20);

/// A node, and the folder of its agents.
pub(crate) struct Node {
    pub(crate) child: Child,
    pub(crate) ready: Ready,
    /// Of its agents, which is where their programs run.
    pub(crate) folder: TempDir,
}

impl Node {
    /// A node that runs these agents: name and `[agent.run]`.
    pub(crate) fn start(agents: &[(&str, String)], bootstrap: &[&Node]) -> Node {
        let folder = TempDir::new().unwrap();
        for (name, run) in agents {
            let text = format!(
                "[agent]\nname = \"{name}\"\ndescription = \"Agent of a test\"\n[agent.run]\n{run}\n"
            );
            fs::write(folder.path().join(format!("{name}.toml")), text).unwrap();
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_aop"));
        command.args(["node", "--json", "--http", "127.0.0.1:0", "--network", "test"]);
        command.args(["--listen", "/ip4/127.0.0.1/tcp/0", "--agents"]).arg(folder.path());
        command.arg("--data-dir").arg(folder.path().join("data"));
        for node in bootstrap {
            command.args(["--bootstrap", &node.ready.listen[0]]);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        Node { child, ready, folder }
    }

    pub(crate) fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Option<T> {
        let url = format!("{}{path}", self.ready.http);
        ureq::get(&url).call().ok()?.body_mut().read_json().ok()
    }

    /// Calls until the agent was reached: its server may be starting.
    pub(crate) fn call(&self, agent: &str, input: &Value) -> CallAnswer {
        let url = format!("{}/v1/call/{agent}", self.ready.http);
        let started = Instant::now();
        loop {
            let answer: CallAnswer =
                ureq::post(&url).send_json(input).unwrap().body_mut().read_json().unwrap();
            if answer.outcome != Some(Outcome::NotStarted) {
                return answer;
            }
            assert!(started.elapsed() < PATIENCE, "{answer:?}");
            std::thread::park_timeout(TICK);
        }
    }

    /// Waits until a search finds the agent and says that it can be called.
    pub(crate) fn finds(&self, agent: &str) {
        until(&format!("{agent} is found"), || {
            let found: Option<FindAnswer> = self.get(&format!("/v1/find?q={agent}"));
            let full = format!("{agent}@.");
            found.is_some_and(|found| found.results.iter().any(|it| it.agent == full && it.callable))
        });
    }

    /// Processes that the node started.
    pub(crate) fn children(&self) -> Vec<String> {
        let parent = self.child.id().to_string();
        let listed = Command::new("pgrep").args(["-P", &parent]).output().unwrap();
        String::from_utf8(listed.stdout).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Already ended where the test ended it.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Waits until `is_met`; there is no event to await in another process.
pub(crate) fn until(what: &str, mut is_met: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_met() {
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(TICK);
    }
}
