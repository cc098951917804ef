//! A real `aop node` process with agents of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aop::api::Ready;
use serde_json::Value;
use tempfile::TempDir;

/// A running node; killed when dropped.
pub(crate) struct Node {
    child: Child,
    pub(crate) ready: Ready,
    pub(crate) started_in: Duration,
    dir: Option<TempDir>,
}

impl Node {
    /// A node of its own data folder with these agents.
    pub(crate) fn start(agents: &[&Path], bootstrap: Option<&Node>) -> Node {
        Node::start_in(TempDir::new().unwrap(), agents, bootstrap)
    }

    /// A node of this data folder.
    pub(crate) fn start_in(dir: TempDir, agents: &[&Path], bootstrap: Option<&Node>) -> Node {
        Node::start_with(dir, agents, bootstrap, &[])
    }

    /// The same with these variables in its environment.
    pub(crate) fn start_with(
        dir: TempDir,
        agents: &[&Path],
        bootstrap: Option<&Node>,
        env: &[(&str, &str)],
    ) -> Node {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aop"));
        command.envs(env.iter().copied());
        command.args(["node", "--json", "--http", "127.0.0.1:0", "--network", "test"]);
        command.args(["--listen", "/ip4/127.0.0.1/tcp/0"]).arg("--data-dir").arg(dir.path().join("data"));
        for path in agents {
            command.arg("--agents").arg(path);
        }
        if let Some(peer) = bootstrap {
            command.args(["--bootstrap", &peer.ready.listen[0]]);
        }
        let stderr = fs::File::create(dir.path().join("stderr")).unwrap();
        let started = Instant::now();
        let mut child = command.stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        Node { child, ready, started_in: started.elapsed(), dir: Some(dir) }
    }

    /// Ends the process as an operator does; its folder stays.
    pub(crate) fn stop(mut self) -> TempDir {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
        self.dir.take().unwrap()
    }

    /// What it wrote for people.
    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(self.dir.as_ref().unwrap().path().join("stderr")).unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An agent as this node shows it; none if it does not.
    pub(crate) fn show(&self, agent: &str) -> Option<Value> {
        let url = format!("{}/v1/agents/{agent}", self.ready.http);
        ureq::get(&url).call().ok()?.body_mut().read_json().ok()
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Value {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut answer = agent.post(format!("{}{path}", self.ready.http)).send_json(body).unwrap();
        let told = answer.body_mut().read_to_string().unwrap();
        assert!(answer.status().is_success(), "{path}: {} {told}\n{}", answer.status(), self.stderr());
        serde_json::from_str(&told).unwrap()
    }

    /// Waits until an agent's field, by JSON pointer, is this; null where there is no agent.
    pub(crate) fn until(&self, agent: &str, pointer: &str, wanted: &Value) {
        self.until_shown(agent, |shown| shown.pointer(pointer).unwrap_or(&Value::Null) == wanted);
    }

    /// Waits until an agent is shown like this; there is no event to await in another process.
    pub(crate) fn until_shown(&self, agent: &str, is_met: impl Fn(&Value) -> bool) {
        let started = Instant::now();
        loop {
            let shown = self.show(agent).unwrap_or_default();
            if is_met(&shown) {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(20), "{agent} is {shown}\n{}", self.stderr());
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Waits until it told people this.
    pub(crate) fn until_told(&self, words: &str) {
        let started = Instant::now();
        while !self.stderr().contains(words) {
            assert!(started.elapsed() < Duration::from_secs(20), "not told: {words}\n{}", self.stderr());
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Already ended where the test ended it.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
