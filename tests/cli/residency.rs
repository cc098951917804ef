//! Where data stays: what files say of it, how it is searched for, and what a node's setting keeps in.

use std::fs;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::commands::{aop_in, code, err, out};
use super::processes::{Node, PATIENCE, until};

const AOP: &str = env!("CARGO_BIN_EXE_aop");
const LISTEN: &str = "/ip4/127.0.0.1/tcp/0";

#[test]
fn agents_are_found_and_called_by_where_data_stays_and_a_setting_holds_for_every_call() {
    let dir = TempDir::new().unwrap();
    let agents = dir.path().join("agents");
    fs::create_dir(&agents).unwrap();
    for (name, residency) in
        [("east", "residency = \"EU\"\n"), ("west", "residency = \"us\"\n"), ("none", "")]
    {
        let run = "[agent.run]\nbuiltin = \"echo\"\n";
        let text = format!("[agent]\nname = \"{name}\"\ndescription = \"of a test\"\n{residency}{run}");
        fs::write(agents.join(format!("{name}.toml")), text).unwrap();
    }
    let by = |env: String| {
        let mut command = Command::new("env");
        command.arg(env).arg(AOP);
        command
    };
    let host =
        Node::start_by(by(format!("AOP_AGENTS={}", agents.display())), &dir.path().join("host"), LISTEN, &[]);
    let bound = by("AOP_CALLS_RESIDENCY=eu,ch".into());
    let bound = Node::start_by(bound, &dir.path().join("bound"), LISTEN, &host.ready.listen[..1]);
    until("the agents arrive", PATIENCE, || {
        let page: Value = bound.get("/v1/agents").unwrap();
        page["results"].as_array().unwrap().len() == 3
    });
    let on = |node: &Node, args: &[&str]| {
        aop_in(dir.path(), &[args, &["--node", &node.ready.http][..]].concat(), &[])
    };
    let found = on(&bound, &["find", "--residency", "eu", "--json"]);
    let found: Value = serde_json::from_str(&out(&found)).unwrap();
    let names: Vec<_> = found["results"].as_array().unwrap().iter().map(|it| it["agent"].clone()).collect();
    assert_eq!(names, ["east@."]);
    for (agent, exit) in [("east", 0), ("west", 1), ("none", 1)] {
        let called = on(&bound, &["call", agent, "--task", "hello"]);
        assert_eq!(code(&called), exit, "{agent}: {}", err(&called));
        assert_eq!(out(&called).contains("hello"), exit == 0);
    }
    let kept_in = err(&on(&bound, &["call", "west", "--task", "hello"]));
    assert!(kept_in.contains("`eu` or `ch` by calls.residency of this node"), "{kept_in}");
    let demanded = on(&host, &["call", "west", "--task", "hello", "--residency", "eu"]);
    assert_eq!(code(&demanded), 1);
    assert!(err(&demanded).contains("`eu` by its caller"), "{}", err(&demanded));
    // Of a task as well, whose demand is kept with it.
    let submitted = on(&host, &["call", "none", "--task", "hello", "--residency", "eu", "--async"]);
    let task = out(&submitted).trim().to_owned();
    let ended = on(&host, &["task", "show", &task, "--wait", "20", "--json"]);
    assert!(out(&ended).contains("\"not_allowed\""), "{}{}", out(&ended), err(&ended));
    let wrong = on(&host, &["find", "--residency", ""]);
    assert_ne!(code(&wrong), 0);
    let refused = aop_in(dir.path(), &["config", "show"], &[("AOP_CALLS_RESIDENCY", "e\u{7}u")]);
    assert_ne!(code(&refused), 0);
    assert!(err(&refused).contains("a word such as `eu`"), "{}", err(&refused));
}
