//! Two nodes as processes, and their agents.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use aop::api::Ready;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest wait for anything here.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two looks at what another process does.
const TICK: Duration = Duration::from_millis(20);
/// Agents that only fill the list: more than fit on its first page.
const FILLERS: usize = 110;

/// The first node's agents that are called.
pub(crate) const OWN: [&str; 6] =
    ["own-echo", "own-fail", "own-sleep", "own-linger", "own-count", "own-strict"];

/// Reads its task, says that it runs by a file with its process id, and stays.
const LINGER: &str = r#"
import json, os, sys, time
task = json.load(sys.stdin)["task"]
path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "started-" + task)
with open(path + ".new", "w") as file:
    file.write(str(os.getpid()))
os.replace(path + ".new", path)
time.sleep(120)
"#;

/// Answers with a document of its own, not with the one that agents have by default.
const COUNT: &str = r#"
import json, sys
print(json.dumps({"words": len(json.load(sys.stdin)["text"].split())}))
"#;

/// Of agents that take a text and answer with the number of its words. A client over stdio has no headers to repeat a
/// text in, so the node must not ask for it.
const SCHEMAS: &str = r#"
max_retries = 0
input_schema = { type = "object", properties = { text = { type = "string", "x-mcp-header" = "Text" } }, required = ["text"] }
output_schema = { type = "object", properties = { words = { type = "integer" } }, required = ["words"] }"#;

/// Two nodes, each with the other's records. Both end with it.
pub(crate) struct TwoNodes {
    folder: TempDir,
    near: Node,
    _far: Node,
}

struct Node {
    child: Child,
    ready: Ready,
}

impl TwoNodes {
    /// Resolves when the first node has found the agent of the second.
    pub(crate) fn start() -> TwoNodes {
        let folder = tempfile::tempdir().unwrap();
        let agents = |name: &str| {
            let path = folder.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let near = agents("near-agents");
        write_own_agents(&near);
        let far = agents("far-agents");
        write_agent(&far, "far-echo", "Repeats what a parrot hears", r#"builtin = "echo""#, "");
        let near = Node::start(&folder.path().join("near"), &near, None);
        let far = Node::start(&folder.path().join("far"), &far, Some(&near));
        let nodes = TwoNodes { folder, near, _far: far };
        nodes.await_far_agent();
        nodes
    }

    /// What the Inspector needs to reach the first node over HTTP.
    pub(crate) fn http(&self) -> Vec<String> {
        vec![self.url(), "--transport".into(), "http".into()]
    }

    /// The program that speaks MCP over stdio for the first node.
    pub(crate) fn stdio(&self) -> Vec<String> {
        [env!("CARGO_BIN_EXE_aop"), "mcp", "--node", &self.near.ready.http].map(str::to_owned).into()
    }

    /// What a client's script is to do; `name` keeps runs apart.
    pub(crate) fn plan(&self, name: &str, era: &str, command: Option<Vec<String>>) -> Value {
        let added = format!("added-{name}");
        let path = self.agents().join(format!("{added}.toml"));
        json!({
            "url": self.url(),
            "command": command,
            "era": era,
            "calls": [
                { "check": "search", "tool": "search_agents", "arguments": { "query": "parrot" } },
                { "check": "own", "tool": "own-echo", "arguments": { "task": "near" } },
                { "check": "schema", "tool": "own-count", "arguments": { "text": "one two three" } },
                { "check": "remote", "tool": "call_agent", "arguments": { "agent": "far-echo", "task": "far" } },
                { "check": "failing", "tool": "own-fail", "arguments": { "task": "x" } },
                { "check": "strict", "tool": "own-strict", "arguments": { "text": "x" } },
            ],
            "slow": { "tool": "own-sleep", "arguments": { "task": "500" } },
            "lingering": {
                "tool": "own-linger",
                "arguments": { "task": name },
                "started": self.started(name),
            },
            "added": {
                "path": path,
                "text": agent_file(&added, "Came later", r#"builtin = "echo""#, ""),
                "tool": added,
            },
        })
    }

    fn await_far_agent(&self) {
        let url = format!("{}/v1/agents/far-echo", self.near.ready.http);
        await_that("the first node hears of the second one's agent", || ureq::get(&url).call().is_ok());
    }

    fn agents(&self) -> PathBuf {
        self.folder.path().join("near-agents")
    }

    fn started(&self, name: &str) -> PathBuf {
        self.agents().join(format!("started-{name}"))
    }

    fn url(&self) -> String {
        format!("{}/mcp", self.near.ready.http)
    }
}

impl Node {
    fn start(data: &Path, agents: &Path, bootstrap: Option<&Node>) -> Node {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aop"));
        command.args(["node", "--json", "--http", "127.0.0.1:0", "--network", "test"]);
        command.args(["--listen", "/ip4/127.0.0.1/tcp/0"]);
        command.arg("--data-dir").arg(data).arg("--agents").arg(agents);
        if let Some(node) = bootstrap {
            command.args(["--bootstrap", &node.ready.listen[0]]);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        Node { child, ready }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn write_own_agents(folder: &Path) {
    write_agent(folder, "own-echo", "Repeats its task", r#"builtin = "echo""#, "");
    write_agent(folder, "own-fail", "Always fails", r#"builtin = "fail""#, "max_retries = 0");
    write_agent(folder, "own-sleep", "Sleeps", r#"builtin = "sleep""#, "");
    let python = |name: &str, script: &str| {
        fs::write(folder.join(name), script).unwrap();
        format!(r#"command = ["python3", "{name}"]"#)
    };
    write_agent(
        folder,
        "own-linger",
        "Stays until it is ended",
        &python("linger.py", LINGER),
        "timeout_s = 120",
    );
    write_agent(folder, "own-count", "Counts words", &python("count.py", COUNT), SCHEMAS);
    write_agent(folder, "own-strict", "Fails to count", r#"builtin = "fail""#, SCHEMAS);
    for number in 0..FILLERS {
        write_agent(folder, &format!("filler-{number}"), "One of many", r#"builtin = "echo""#, "");
    }
}

fn write_agent(folder: &Path, name: &str, description: &str, run: &str, more: &str) {
    fs::write(folder.join(format!("{name}.toml")), agent_file(name, description, run, more)).unwrap();
}

fn agent_file(name: &str, description: &str, run: &str, more: &str) -> String {
    format!("[agent]\nname = \"{name}\"\ndescription = \"{description}\"\n{more}\n[agent.run]\n{run}\n")
}

fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "still not so after {PATIENCE:?}: {what}");
        thread::sleep(TICK);
    }
}
