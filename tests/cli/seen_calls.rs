//! The calls of a node as they are watched: who called whom and how it ended, and nothing of what was said.

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::processes::{Node, PATIENCE, until};

const AOP: &str = env!("CARGO_BIN_EXE_aop");
const LISTEN: &str = "/ip4/127.0.0.1/tcp/0";
/// Stands in the inputs and the outputs, and must stand nowhere else.
const CANARY: &str = "the-secret-task";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// Calls an agent with the canary; answers with the id of the call.
fn call(node: &Node, agent: &str) -> String {
    let url = format!("{}/v1/call/{agent}", node.ready.http);
    let request = ureq::post(&url).header("traceparent", format!("00-{TRACE}-b7ad6b7169203331-00"));
    let request = request.config().http_status_as_error(false).build();
    let answer: Value = request.send_json(json!({ "task": CANARY })).unwrap().body_mut().read_json().unwrap();
    answer["task_id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

fn calls(node: &Node, query: &str) -> Vec<Value> {
    let answer: Value = node.get(&format!("/v1/calls{query}")).unwrap();
    assert!(!answer.to_string().contains(CANARY), "{answer}");
    answer["calls"].as_array().unwrap().clone()
}

/// What is said of a call without what differs from run to run.
fn told(call: &Value) -> [String; 6] {
    ["call", "agent", "side", "peer", "outcome", "code"]
        .map(|field| call[field].as_str().unwrap_or_default().to_owned())
}

/// A node with agents that answer, fail and take long, and one that has them from there.
fn host_and_caller(dir: &Path) -> (Node, Node) {
    let agents = dir.join("agents");
    fs::create_dir(&agents).unwrap();
    for (name, script) in [("good", "cat"), ("bad", "exit 1"), ("slow", "sleep 2; cat")] {
        let run = format!("[agent.run]\ncommand = [\"sh\", \"-c\", {script:?}]\n");
        let text = format!("[agent]\nname = \"{name}\"\ndescription = \"of a test\"\n{run}");
        fs::write(agents.join(format!("{name}.toml")), text).unwrap();
    }
    let mut command = Command::new("env");
    command.arg(format!("AOP_AGENTS={}", agents.display())).arg(AOP);
    let host = Node::start_by(command, &dir.join("host"), LISTEN, &[]);
    let caller = Node::start_by(Command::new(AOP), &dir.join("caller"), LISTEN, &host.ready.listen[..1]);
    until("the agents arrive", PATIENCE, || {
        let page: Value = caller.get("/v1/agents").unwrap();
        page["results"].as_array().unwrap().len() == 3
    });
    (host, caller)
}

/// `aop watch --jsonl`, ended with the test.
struct Watch(Child, Lines<BufReader<ChildStdout>>);

impl Watch {
    fn start(node: &Node) -> Watch {
        let mut command = Command::new(AOP);
        command.args(["watch", "--jsonl", "--node", &node.ready.http]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        until("the watcher is there", PATIENCE, || {
            let text = ureq::get(format!("{}/metrics", node.ready.http)).call().unwrap();
            text.into_body().read_to_string().unwrap().contains("aop_http_streams{kind=\"events\"} 1")
        });
        Watch(child, lines)
    }

    /// The next event of this kind.
    fn next(&mut self, kind: &str) -> Value {
        loop {
            let line = self.1.next().unwrap().unwrap();
            assert!(!line.contains(CANARY), "{line}");
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["event"] == kind {
                return event;
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Already ended where its node has.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[test]
fn both_nodes_of_a_call_tell_how_it_ended_by_one_id_and_never_what_was_said() {
    let dir = TempDir::new().unwrap();
    let (host, caller) = host_and_caller(dir.path());
    let (by, at) = (caller.ready.peer_id.as_str(), host.ready.peer_id.as_str());
    let mut watch = Watch::start(&caller);
    let good = call(&caller, "good@.");
    let ended = watch.next("call_ended");
    assert_eq!(told(&ended), [&*good, "good@.", "caller", at, "ok", ""]);
    assert_eq!((&ended["trace_id"], &ended["input_bytes"]), (&json!(TRACE), &json!(26)), "{ended}");
    let bad = call(&caller, "bad@.");
    let ended = watch.next("call_ended");
    assert_eq!(told(&ended), [&*bad, "bad@.", "caller", at, "done", "agent_failed"]);
    let own = call(&host, "good@.");
    let slow = std::thread::scope(|scope| {
        let slow = scope.spawn(|| call(&caller, "slow@."));
        let started = watch.next("call_started");
        assert_eq!((&started["agent"], &started["outcome"]), (&json!("slow@."), &json!("under_way")));
        assert!(started["took_ms"].as_f64().unwrap() >= 1_000.0, "{started}");
        let under_way = calls(&host, "?outcome=under_way");
        assert_eq!((under_way.len(), &under_way[0]["agent"]), (1, &json!("slow@.")));
        slow.join().unwrap()
    });
    assert_eq!(watch.next("call_ended")["call"], slow.as_str());
    let all: Vec<_> = calls(&host, "").iter().map(told).collect();
    let expected = [
        [&*slow, "slow@.", "host", by, "ok", ""],
        [&*own, "good@.", "local", "", "ok", ""],
        [&*bad, "bad@.", "host", by, "done", "agent_failed"],
        [&*good, "good@.", "host", by, "ok", ""],
    ];
    assert_eq!(all, expected);
    let of_one = calls(&host, "?agent=good@.&limit=1");
    assert_eq!((of_one.len(), &of_one[0]["call"]), (1, &json!(own)));
    let wrong = ureq::get(format!("{}/v1/calls?outcome=fine", host.ready.http)).call();
    assert!(matches!(wrong, Err(ureq::Error::StatusCode(400))), "{wrong:?}");
}
