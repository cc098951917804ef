//! Real MCP servers behind real nodes: installed from their registries, offered by one node, found and called from
//! another.
//!
//! Where Python, Node or their registries are missing, a test says so and is skipped; with `CI` set it fails.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aop::api::{CallAnswer, FindAnswer, Outcome, Ready};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::installed::{Packages, packages, python};

/// Longest wait for anything here.
const PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(20);

/// A node, and the folder of its agents.
struct Node {
    child: Child,
    ready: Ready,
    _folder: TempDir,
}

impl Node {
    /// A node that runs these agents: name and `[agent.run]`.
    fn start(agents: &[(&str, String)], bootstrap: &[&Node]) -> Node {
        let folder = TempDir::new().unwrap();
        for (name, run) in agents {
            let text = format!(
                "[agent]\nname = \"{name}\"\ndescription = \"Real server of a test\"\n[agent.run]\n{run}\n"
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
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        Node { child, ready, _folder: folder }
    }

    fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Option<T> {
        let url = format!("{}{path}", self.ready.http);
        ureq::get(&url).call().ok()?.body_mut().read_json().ok()
    }

    /// Calls until the agent was reached: its server may be starting.
    fn call(&self, agent: &str, input: &Value) -> CallAnswer {
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
    fn finds(&self, agent: &str) {
        until(&format!("{agent} is found"), || {
            let found: Option<FindAnswer> = self.get(&format!("/v1/find?q={agent}"));
            let full = format!("{agent}@.");
            found.is_some_and(|found| found.results.iter().any(|it| it.agent == full && it.callable))
        });
    }

    /// Processes that the node started.
    fn children(&self) -> Vec<String> {
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
fn until(what: &str, mut is_met: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_met() {
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(TICK);
    }
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).status().is_ok_and(|status| status.success())
}

/// `[agent.run]` of an agent that is one tool of a server.
fn one_tool(command: &[&str], tool: &str) -> String {
    format!("mcp = {{ command = {command:?} }}\ntool = {tool:?}")
}

#[test]
fn a_server_from_pypi_is_found_and_called_from_another_node() {
    let Some(python) = python("upstream-python", include_str!("upstream/requirements.txt")) else { return };
    let command = [python.to_str().unwrap(), "-m", "mcp_server_time"];
    let host = Node::start(&[("clock", one_tool(&command, "convert_time"))], &[]);
    let asker = Node::start(&[], &[&host]);
    asker.finds("clock");

    let shown: Value = asker.get("/v1/agents/clock@.").unwrap();
    assert_eq!(shown["input_schema"]["properties"]["source_timezone"]["type"], "string", "{shown}");

    let input = json!({"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"});
    let answer = asker.call("clock", &input);
    assert!(answer.success, "{answer:?}");
    assert_eq!(answer.served_by.as_deref(), Some(host.ready.peer_id.as_str()));
    assert!(answer.result["target"]["datetime"].as_str().unwrap().contains("T21:00"), "{answer:?}");

    let input = json!({"source_timezone": "Nowhere", "time": "12:00", "target_timezone": "Asia/Tokyo"});
    let answer = asker.call("clock", &input);
    assert_eq!(answer.outcome, Some(Outcome::Done));
    let error = answer.error.unwrap();
    assert_eq!(error.code.text(), "agent_failed");
    assert!(error.message.contains("Nowhere"), "{error:?}");
}

/// Command of a server from npm that has a tool of every kind.
fn everything() -> Option<[String; 2]> {
    let Packages { node, folder } = packages()?;
    let script = folder.join("node_modules/@modelcontextprotocol/server-everything/dist/index.js");
    Some([node, script].map(|path| path.to_str().unwrap().to_owned()))
}

#[test]
fn a_dead_server_beside_a_real_one_hides_none_of_its_tools() {
    let Some(command) = everything() else { return };
    // Port 1 is nobody's.
    let both = format!("mcp = [{{ url = \"http://127.0.0.1:1/mcp\" }}, {{ command = {command:?} }}]");
    let host = Node::start(&[("kit", both)], &[]);
    let asker = Node::start(&[], &[&host]);
    asker.finds("kit_get-sum");
    asker.finds("kit_get-structured-content");

    let sum = json!({"a": 19, "b": 23});
    assert_eq!(asker.call("kit_get-sum", &sum).result, "The sum of 19 and 23 is 42.");
    let named = json!({"tool": "get-sum", "arguments": sum});
    assert_eq!(asker.call("kit", &named).result, "The sum of 19 and 23 is 42.");
    let weather = asker.call("kit_get-structured-content", &json!({"location": "Chicago"}));
    assert!(weather.result["temperature"].is_number(), "{weather:?}");
}

#[test]
fn a_server_from_npm_survives_a_kill_and_leaves_with_its_node() {
    let Some(command) = everything() else { return };
    let mut host =
        Node::start(&[("adder", one_tool(&command.each_ref().map(String::as_str), "get-sum"))], &[]);
    let asker = Node::start(&[], &[&host]);
    asker.finds("adder");
    let input = json!({"a": 19, "b": 23});
    assert_eq!(asker.call("adder", &input).result, "The sum of 19 and 23 is 42.");

    let before = host.children();
    assert_eq!(before.len(), 1, "{before:?}");
    assert!(succeeds("kill", &["-KILL", &before[0]]));
    until("another process answers", || {
        asker.call("adder", &input).success && host.children().iter().all(|process| *process != before[0])
    });

    let children = host.children();
    assert!(succeeds("kill", &["-TERM", &host.child.id().to_string()]));
    assert!(host.child.wait().unwrap().success());
    until("the server leaves with its node", || {
        children.iter().all(|process| !Path::new("/proc").join(process).exists())
    });
}
