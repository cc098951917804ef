//! The official MCP clients against real nodes: every line of them, in both eras, over HTTP and over stdio.
//!
//! Each test starts two nodes. Its client talks to the first, which hosts more agents than fit on a page; one agent
//! is on the second. The clients print what they see, the assertions are here.

mod two_nodes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::installed::{Ended, Packages, packages, python, run};
use two_nodes::{OWN, TwoNodes};

/// Longest run of one client; the clients give up after a minute by themselves.
const PATIENCE: Duration = Duration::from_secs(90);

/// The revisions that the two eras end up with.
const HANDSHAKE: &str = "2025-11-25";
const NEWEST: &str = "2026-07-28";

/// What page 1 begins with.
const FIRST: [&str; 7] = [
    "search_agents",
    "discover_agents",
    "get_agent_details",
    "get_agents_info",
    "list_agents",
    "call_agent",
    "get_server_info",
];

/// Everything that a script found, by check.
type Findings = BTreeMap<String, Value>;

#[test]
fn the_python_client_2_works_in_both_eras() {
    let requirements = include_str!("clients/requirements.txt");
    let Some(python) = python("mcp-python", requirements) else { return };
    let nodes = TwoNodes::start();
    let client = |plan: &Value| client_py(&python, plan);
    check_each(&nodes, &[("legacy", Some(HANDSHAKE)), ("auto", Some(NEWEST))], &client);
}

#[test]
fn the_python_client_1_works_with_its_handshake() {
    let requirements = include_str!("clients/requirements-1.txt");
    let Some(python) = python("mcp-python-1", requirements) else { return };
    let nodes = TwoNodes::start();
    check_each(&nodes, &[("legacy", Some(HANDSHAKE))], &|plan| client_py(&python, plan));
}

#[test]
fn the_typescript_client_2_works_in_both_eras() {
    let Some(packages) = packages() else { return };
    let nodes = TwoNodes::start();
    let client = |plan: &Value| client_mjs(&packages, "2", plan);
    check_each(&nodes, &[("legacy", Some(HANDSHAKE)), ("auto", Some(NEWEST))], &client);
}

#[test]
fn the_typescript_client_1_works_with_its_handshake() {
    let Some(packages) = packages() else { return };
    let nodes = TwoNodes::start();
    // It does not tell the revision over stdio.
    check_each(&nodes, &[("legacy", None)], &|plan| client_mjs(&packages, "1", plan));
}

#[test]
fn the_inspector_works_in_both_eras() {
    let Some(packages) = packages() else { return };
    let nodes = TwoNodes::start();
    for era in ["legacy", "modern"] {
        for server in [nodes.http(), nodes.stdio()] {
            inspect(&Inspector { packages: &packages, server, era });
        }
    }
}

/// Runs the script over HTTP and over stdio, in each of the eras, and checks what it found.
fn check_each(nodes: &TwoNodes, eras: &[(&str, Option<&str>)], client: &dyn Fn(&Value) -> Ended) {
    for (era, version) in eras {
        for (transport, command) in [("http", None), ("stdio", Some(nodes.stdio()))] {
            let name = format!("{era}-{transport}");
            let ended = client(&nodes.plan(&name, era, command));
            let findings = findings(&ended);
            let told = || format!("{name}: {}\n{}", ended.stdout, ended.stderr);
            assert!(ended.success && findings.contains_key("end"), "it broke off, {}", told());
            for (what, holds) in judge(&findings, *version) {
                assert!(holds, "{what}, {}", told());
            }
        }
    }
}

fn client_py(python: &PathBuf, plan: &Value) -> Ended {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mcp/clients/client.py");
    run(Command::new(python).arg(script).arg(plan.to_string()), PATIENCE)
}

fn client_mjs(packages: &Packages, line: &str, plan: &Value) -> Ended {
    let mut node = Command::new(&packages.node);
    run(node.current_dir(&packages.folder).args(["client.mjs", line, &plan.to_string()]), PATIENCE)
}

fn findings(ended: &Ended) -> Findings {
    let lines = ended.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter_map(|finding| Some((finding["check"].as_str()?.to_owned(), finding))).collect()
}

/// What must hold, in words, and whether it does.
fn judge(findings: &Findings, version: Option<&str>) -> Vec<(&'static str, bool)> {
    let of = |check: &str| findings.get(check).unwrap_or(&Value::Null);
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|it| it.as_str().map(str::to_owned)).collect()
    };
    let names = texts(&of("list")["names"]);
    let reports = of("progress")["reports"].as_array().cloned().unwrap_or_default();
    let progress: Vec<f64> = reports.iter().filter_map(|report| report[0].as_f64()).collect();
    let succeeded = |check: &str| of(check)["error"] == false && of(check)["structured"]["success"] == true;
    vec![
        ("the revision", version.is_none_or(|version| of("connect")["version"] == version)),
        ("the server's name", of("connect")["server"] == "aop"),
        (
            "the first tools",
            names.iter().zip(FIRST).filter(|(name, first)| name == first).count() == FIRST.len(),
        ),
        ("own agents are tools", OWN.iter().all(|own| names.iter().any(|name| name == own))),
        (
            "several pages, each tool once",
            names.len() > 100 && names.iter().collect::<BTreeSet<_>>().len() == names.len(),
        ),
        (
            "a search finds the far agent",
            succeeded("search")
                && of("search")["text"].as_str().is_some_and(|text| text.contains("far-echo")),
        ),
        ("an own agent answers", succeeded("own") && of("own")["structured"]["result"] == "near"),
        (
            "an own schema is kept",
            of("schema")["error"] == false && of("schema")["structured"] == json!({ "words": 3 }),
        ),
        ("a far agent answers", succeeded("remote") && of("remote")["structured"]["result"] == "far"),
        ("a failed agent is an error", of("failing")["error"] == true && of("failing")["text"] != ""),
        ("so is one with a schema of its own", of("strict")["error"] == true && of("strict")["text"] != ""),
        ("an unknown tool is a protocol error", of("unknown")["code"] == -32602),
        ("progress grows", progress.len() >= 2 && progress.is_sorted() && succeeded("progress")),
        ("a cancelled call ends", of("cancel")["ended"] == true),
        ("and its work with it", of("cancel")["gone"] == true),
        (
            "resources are listed and read",
            !texts(&of("resources")["uris"]).is_empty() && of("resources")["contents"][0]["text"].is_string(),
        ),
        ("a new agent is told of", of("changed")["events"].as_u64() > Some(0)),
    ]
}

/// The Inspector on the command line: one process per method.
struct Inspector<'a> {
    packages: &'a Packages,
    server: Vec<String>,
    era: &'a str,
}

impl Inspector<'_> {
    fn ask(&self, method: &str, arguments: &[&str]) -> Ended {
        let launcher = "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js";
        let mut node = Command::new(&self.packages.node);
        node.current_dir(&self.packages.folder).args([launcher, "--cli"]).args(&self.server);
        node.args(["--protocol-era", self.era, "--format", "json", "--quiet", "--method", method]);
        run(node.args(arguments), PATIENCE)
    }

    fn call(&self, tool: &str, arguments: &Value) -> Ended {
        self.ask("tools/call", &["--tool-name", tool, "--tool-args-json", &arguments.to_string()])
    }
}

fn inspect(inspector: &Inspector<'_>) {
    let result = |ended: &Ended| {
        let document: Value = serde_json::from_str(ended.stdout.trim()).unwrap_or_default();
        document["result"].clone()
    };
    let told = |ended: &Ended| {
        format!("{} {:?}: {}\n{}", inspector.era, inspector.server, ended.stdout, ended.stderr)
    };

    let listed = inspector.ask("tools/list", &["--strict"]);
    assert!(listed.success, "the schemas are portable, {}", told(&listed));
    let tools = result(&listed)["tools"].as_array().cloned().unwrap_or_default();
    assert!(tools.len() > 100, "all pages, {}", told(&listed));
    assert!(tools.iter().zip(FIRST).all(|(tool, first)| tool["name"] == first), "{}", told(&listed));

    let found = inspector.call("search_agents", &json!({ "query": "parrot" }));
    let first = &result(&found)["structuredContent"]["matching_agents"][0]["agent_name"];
    assert_eq!(first, "far-echo@.", "{}", told(&found));
    let own = inspector.call("own-echo", &json!({ "task": "near" }));
    assert_eq!(result(&own)["structuredContent"]["result"], "near", "{}", told(&own));
    let far = inspector.call("call_agent", &json!({ "agent": "far-echo", "task": "far" }));
    assert_eq!(result(&far)["structuredContent"]["result"], "far", "{}", told(&far));
    let failed = inspector.call("own-fail", &json!({ "task": "x" }));
    assert!(!failed.success && result(&failed)["isError"] == true, "{}", told(&failed));
    let unknown = inspector.call("no_such_tool", &json!({}));
    assert!(!unknown.success && unknown.stderr.contains("tool_not_found"), "{}", told(&unknown));

    let resources = inspector.ask("resources/list", &[]);
    let uri = result(&resources)["resources"][0]["uri"].as_str().unwrap_or_default().to_owned();
    let read = inspector.ask("resources/read", &["--uri", &uri]);
    assert!(result(&read)["contents"][0]["text"].is_string(), "{}{}", told(&resources), told(&read));
}
