//! Clients of ARD: one that searches, one that navigates, and a registry that asks the node as its upstream.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{PATIENCE, Server, python, script};
use crate::installed::run;
use crate::node::{Node, until};

/// A node that holds an agent of its own, one of another node, and a published server.
struct Registry {
    near: Node,
    _far: Node,
}

impl Registry {
    fn start() -> Registry {
        let echo = |name| [(name, r#"builtin = "echo""#.to_owned())];
        let near = Node::start(&echo("own-parrot"), &[]);
        let far = Node::start(&echo("far-parrot"), &[&near]);
        near.finds("far-parrot");
        let server = json!({
            "$schema": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json",
            "name": "org.example/parrot", "description": "keeps a parrot", "version": "1.2.0",
            "remotes": [{"type": "streamable-http", "url": "https://mcp.example.org/mcp"}],
        });
        ureq::post(format!("{}/v1/agents", near.ready.http)).send_json(server).unwrap();
        Registry { near, _far: far }
    }

    /// Base of its API.
    fn base(&self) -> String {
        format!("{}/ard", self.near.ready.http)
    }
}

/// What all of the node's three are called, in order.
const NAMES: [&str; 3] = ["far-parrot", "org.example/parrot", "own-parrot"];

fn names(answer: &Value) -> Vec<&str> {
    let results = answer["results"].as_array().into_iter().flatten();
    let mut names: Vec<&str> = results.filter_map(|result| result["displayName"].as_str()).collect();
    names.sort_unstable();
    names
}

/// Runs hf-discover, which is told to leave the network alone.
fn hf_discover(python: &Path, arguments: &[&str]) -> Value {
    let mut command = Command::new(python.with_file_name("hf-discover"));
    command.env("HF_HUB_OFFLINE", "1").args(arguments).arg("--json");
    let ended = run(&mut command, PATIENCE);
    assert!(ended.success, "{arguments:?}: {}\n{}", ended.stdout, ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}", ended.stdout))
}

#[test]
fn hf_discover_searches_and_navigates() {
    let Some(python) = python() else { return };
    let registry = Registry::start();
    let base = registry.base();
    let search = |more: &[&str]| hf_discover(&python, &[&["search", "--registry-url", &base], more].concat());
    let found = search(&["parrot"]);
    assert_eq!(names(&found), NAMES, "{found}");
    assert_eq!(found["complete"], true, "it passes on what it does not know: {found}");
    assert!(found["results"].as_array().unwrap().iter().all(|result| result["source"] == base), "{found}");
    assert_eq!(names(&search(&["parrot", "--federation", "none"])), NAMES);
    assert_eq!(names(&search(&["parrot", "--limit", "1"])).len(), 1);
    assert_eq!(names(&search(&["zebra"])), [""; 0]);

    // From the manifest to the registry that it names.
    let navigated = hf_discover(&python, &["navigate", &registry.near.ready.http, "parrot"]);
    assert_eq!(names(&navigated), NAMES, "{navigated}");
}

#[test]
fn an_ard_registry_shows_what_the_node_has_as_its_upstream() {
    let Some(python) = python() else { return };
    let registry = Registry::start();
    let folder = tempfile::tempdir().unwrap();
    let catalog = folder.path().join("empty.json");
    fs::write(&catalog, json!({"specVersion": "1.0", "entries": []}).to_string()).unwrap();
    let mut command = script(&python, "registry.py");
    command.arg("--catalog").arg(&catalog).args(["--upstreams", &registry.base()]);
    let peer = Server::start(&mut command);
    let search = |federation: &str| -> Value {
        let asked = json!({"query": {"text": "parrot"}, "federation": federation});
        let answer = ureq::post(format!("{}/search", peer.url)).send_json(asked);
        answer.unwrap().body_mut().read_json().unwrap()
    };
    // It waits three seconds for an upstream, and a busy machine may take longer.
    until("the rows of the node are merged", || names(&search("auto")) == NAMES);
    assert_eq!(names(&search("none")), [""; 0], "it has nothing of its own");
}
