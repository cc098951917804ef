//! The official A2A SDKs as clients of a node, for an agent of it and for one of another node.

use std::process::Command;

use serde_json::{Value, json};

use super::{PATIENCE, python, python_03, script};
use crate::installed::{Ended, packages, run};
use crate::node::Node;

/// Writes a piece, and the rest when whoever hears it has said so.
const TELL: &str =
    r#"command = ["sh", "-c", "printf 'one, '; until [ -e go ]; do sleep 0.01; done; rm go; echo two"]"#;

/// Takes a document and answers with a number, which no document of 0.3 may be.
const NUMBER: &str = r#"builtin = "echo"
[agent.input_schema]
type = "object"
properties.task.type = "number"
[agent.output_schema]
type = "number""#;

#[test]
fn the_python_sdk_of_1_0_calls_agents_in_both_bindings() {
    let Some(python) = python() else { return };
    let client = |plan: &Value| run(script(&python, "client.py").arg(plan.to_string()), PATIENCE);
    check(&["JSONRPC", "HTTP+JSON"], &json!(7.5), client);
}

#[test]
fn the_python_sdk_of_0_3_calls_agents() {
    let Some(python) = python_03() else { return };
    let number = json!({"result": 7.5});
    check(&["JSONRPC"], &number, |plan| run(script(&python, "client.py").arg(plan.to_string()), PATIENCE));
}

#[test]
fn the_javascript_sdk_calls_agents_in_both_bindings() {
    let Some(packages) = packages() else { return };
    check(&["JSONRPC", "HTTP+JSON"], &json!(7.5), |plan| {
        let mut node = Command::new(&packages.node);
        run(node.current_dir(&packages.folder).args(["a2a.mjs", &plan.to_string()]), PATIENCE)
    });
}

/// What an agent is expected to do with a message.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// Says it again.
    Echo,
    /// Gives the number back that it got.
    Number,
    /// Tells it in pieces.
    Pieces,
    Failure,
    /// There is no such agent.
    Nobody,
}

struct Exchange {
    asked: Value,
    is_streamed: bool,
    expected: Expected,
}

/// Runs a client; `number` is how it sees the answer of the agent that gives numbers.
fn check(bindings: &[&str], number: &Value, client: impl Fn(&Value) -> Ended) {
    let runs = |name, run: &str| (name, run.to_owned());
    let (echo, fail) = (|name| runs(name, r#"builtin = "echo""#), runs("own-fail", r#"builtin = "fail""#));
    let near = [echo("own-echo"), fail, runs("own-number", NUMBER), runs("own-tell", TELL)];
    let near = Node::start(&near, &[]);
    let far = Node::start(&[echo("far-echo"), ("far-tell", TELL.to_owned())], &[&near]);
    near.finds("far-echo");
    near.finds("far-tell");

    let exchanges: Vec<Exchange> =
        bindings.iter().flat_map(|binding| exchanges(binding, &near, &far)).collect();
    let ended = client(&exchanges.iter().map(|exchange| exchange.asked.clone()).collect());
    let told = format!("{}\n{}", ended.stdout, ended.stderr);
    let findings: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(ended.success && findings.len() == exchanges.len(), "it broke off: {told}");
    for (exchange, findings) in exchanges.iter().zip(&findings) {
        assert_eq!(findings["check"], exchange.asked["check"], "{told}");
        exchange.judge(findings, number);
    }
}

/// Everything that is asked in one binding.
fn exchanges(binding: &str, near: &Node, far: &Node) -> Vec<Exchange> {
    let of = |agent: &str, is_streamed: bool, expected, go: Option<&Node>| {
        let asked = json!({
            "check": format!("{binding} {agent} streamed: {is_streamed}"),
            "agent": format!("{}/a2a/{agent}", near.ready.http),
            "binding": binding,
            "stream": is_streamed,
            "text": "hello",
            "document": matches!(expected, Expected::Number).then(|| json!({"task": 7.5})),
            "go": go.map(|host| host.folder.path().join("go")),
        });
        Exchange { asked, is_streamed, expected }
    };
    let twice = |agent, expected| [of(agent, false, expected, None), of(agent, true, expected, None)];
    let agents = [
        ("own-echo", Expected::Echo),
        ("far-echo", Expected::Echo),
        ("own-number", Expected::Number),
        ("own-fail", Expected::Failure),
    ];
    let mut all: Vec<Exchange> =
        agents.into_iter().flat_map(|(agent, expected)| twice(agent, expected)).collect();
    all.push(of("own-tell", true, Expected::Pieces, Some(near)));
    all.push(of("far-tell", true, Expected::Pieces, Some(far)));
    all.push(of("no-such-agent", false, Expected::Nobody, None));
    all
}

impl Exchange {
    fn judge(&self, findings: &Value, number: &Value) {
        let kinds: Vec<&str> = texts(&findings["kinds"]);
        let wanted: &[&str] = match (self.expected, self.is_streamed) {
            (Expected::Nobody, _) => &[],
            (_, false) => &["task"],
            (Expected::Failure, true) => &["status"],
            (Expected::Echo | Expected::Number | Expected::Pieces, true) => &["artifact", "status"],
        };
        // A task first; what is told of it ends with its state, after the last artifact.
        assert!(kinds.ends_with(wanted), "{findings}");
        assert!(kinds.first().is_none_or(|first| *first == "task"), "{findings}");
        let number = number.to_string();
        let (state, text) = match self.expected {
            Expected::Echo => ("completed", "hello"),
            Expected::Number => ("completed", number.as_str()),
            Expected::Pieces => ("completed", "one, two"),
            Expected::Failure => ("failed", ""),
            Expected::Nobody => {
                assert!(findings["error"].as_str().is_some_and(|error| error.contains("404")), "{findings}");
                return;
            }
        };
        assert_eq!(findings.get("error"), None, "{findings}");
        assert_eq!((&findings["state"], &findings["text"]), (&json!(state), &json!(text)), "{findings}");
        assert_eq!(
            findings["again"],
            json!([state, text]),
            "the task says the same when it is asked after: {findings}"
        );
        match self.expected {
            Expected::Pieces => assert_eq!(texts(&findings["pieces"])[0], "one, ", "{findings}"),
            Expected::Failure => {
                let why = findings["message"].as_str().unwrap_or_default();
                assert!(why.starts_with("agent_failed: "), "{findings}");
            }
            Expected::Echo | Expected::Number | Expected::Nobody => {}
        }
    }
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}
