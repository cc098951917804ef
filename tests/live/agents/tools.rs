//! Agents that are tools of real MCP servers, offered by one node, seen and called from another.

use std::fs;

use serde_json::{Value, json};

use super::folder::Folder;
use super::node::Node;

/// `[agent.run]` of an agent whose server is `tests/mcp/upstream/server.py` with these arguments.
fn server(arguments: &[&str]) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mcp/upstream/server.py");
    let command: Vec<&str> = ["python3", script].into_iter().chain(arguments.iter().copied()).collect();
    format!("mcp = {{ command = {} }}", json!(command))
}

#[test]
fn every_tool_of_a_server_is_an_agent_and_all_of_them_are_one() {
    let folder = Folder::new();
    let lines = "description = \"A kit\"\ntags = [\"tools\"]\nmax_concurrency = 2";
    folder.agent_with("kit", lines, &server(&["echo", "grow"]));
    let one = format!("{}\ntool = \"echo\"", server(&["echo"]));
    folder.agent("one", &one);
    let host = Node::start(&[folder.path()], None);
    let other = Node::start(&[], Some(&host));
    other.until("kit_echo@.", "/description", &json!("Does echo"));
    other.until("kit_echo@.", "/callable", &json!(true));
    other.until("kit_echo@.", "/tags", &json!(["tools"]));
    other.until("kit_echo@.", "/input_schema/properties/task/type", &json!("string"));
    other.until("kit_echo@.", "/card/limits/max_concurrency", &json!(2));
    other.until("kit@.", "/description", &json!("A kit"));
    other.until("one@.", "/description", &json!("Does echo"));

    let echoed = other.post("/v1/call/kit_echo@.", &json!({"task": "x"}));
    assert_eq!(echoed["result"], "{\"task\": \"x\"}", "{echoed}");
    let echoed = other.post("/v1/call/one@.", &json!({"task": "y"}));
    assert_eq!(echoed["result"], "{\"task\": \"y\"}", "{echoed}");
    let by_union = json!({"tool": "echo", "arguments": {"n": 1}});
    let echoed = other.post("/v1/call/kit@.", &by_union);
    assert_eq!(echoed["result"], "{\"n\": 1}", "{echoed}");
    let refused = other.post("/v1/call/kit_echo@.", &json!({"task": 7}));
    assert_eq!(refused["error"]["code"], "bad_input", "{refused}");
    let unknown = other.post("/v1/call/kit@.", &json!({"tool": "no such", "arguments": {}}));
    assert_eq!(unknown["error"]["code"], "not_found", "{unknown}");

    assert_eq!(other.post("/v1/call/kit_grow@.", &json!({}))["result"], "grown");
    other.until("kit_grown@.", "/callable", &json!(true));
    folder.agent_with("kit", lines, &server(&["grow"]));
    other.until("kit_echo@.", "", &Value::Null);
    assert_eq!(other.show("kit@.").unwrap()["description"], "A kit");
    fs::remove_file(folder.path().join("kit.toml")).unwrap();
    other.until("kit_grow@.", "", &Value::Null);
    other.until("kit@.", "", &Value::Null);
    assert!(other.show("one@.").is_some());
}

#[test]
fn tools_stay_while_their_server_does_not_answer_after_a_restart() {
    let folder = Folder::new();
    let gate = folder.path().join("gate");
    let run = server(&["--gate", gate.to_str().unwrap(), "echo"]);
    folder.agent("kit", &run);
    folder.agent("one", &format!("{run}\ntool = \"echo\""));
    folder.agent("plain", "builtin = \"echo\"");
    let host = Node::start(&[folder.path()], None);
    host.until("kit_echo@.", "/callable", &json!(true));
    host.until("one@.", "/description", &json!("Does echo"));
    let dir = host.stop();

    fs::write(&gate, "").unwrap();
    fs::remove_file(folder.path().join("plain.toml")).unwrap();
    let host = Node::start_in(dir, &[folder.path()], None);
    assert!(host.show("plain@.").is_none(), "its file is gone");
    let down = host.post("/v1/call/kit@.", &json!({"tool": "echo"}));
    assert_eq!(down["outcome"], "not_started", "{down}");
    host.until_told("an MCP server is down");
    // Offered after the server failed: by then all that is to be withdrawn is.
    folder.agent("later", "builtin = \"echo\"");
    host.until("later@.", "/callable", &json!(true));
    assert_eq!(host.show("kit_echo@.").unwrap()["description"], "Does echo");
    assert_eq!(host.show("one@.").unwrap()["description"], "Does echo", "its card is as it was");
    fs::remove_file(&gate).unwrap();
    folder.agent("kit", &server(&["--gate", gate.to_str().unwrap(), "pid"]));
    host.until("kit_pid@.", "/callable", &json!(true));
    host.until("kit_echo@.", "", &Value::Null);
}
