//! Real MCP servers behind real nodes: installed from their registries, offered by one node, found and called from
//! another.
//!
//! Where Python, Node or their registries are missing, a test says so and is skipped; with `CI` set it fails.

use std::path::Path;
use std::process::Command;

use aop::api::Outcome;
use serde_json::{Value, json};

use crate::installed::{Packages, packages, python};
use crate::node::{Node, until};

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
