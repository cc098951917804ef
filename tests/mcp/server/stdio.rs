//! `aop mcp`: the bridge as a host starts it, spoken to line by line in both eras.

use std::net::SocketAddr;
use std::process::Stdio;

use aop::document::run_config::Builtin;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::fixture::{LEGACY, McpFixture, PATIENCE, Setup, fixture, local, modern_message, start};

/// A running bridge.
struct Bridge {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines<BufReader<ChildStdout>>,
}

fn bridge(base: &str, token: Option<&str>) -> Bridge {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aop"));
    command.args(["mcp", "--node", base]).env_clear().envs(token.map(|token| ("AOP_TOKEN", token)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    Bridge { stdin: child.stdin.take(), child, stdout }
}

impl Bridge {
    async fn say(&mut self, message: &Value) {
        let line = format!("{message}\n");
        self.stdin.as_mut().unwrap().write_all(line.as_bytes()).await.unwrap();
    }

    /// The next line, which must be JSON-RPC.
    async fn hear(&mut self) -> Value {
        let line = timeout(PATIENCE, self.stdout.next_line()).await.expect("a line comes").unwrap().unwrap();
        let message: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(message["jsonrpc"], "2.0", "{message}");
        message
    }

    /// The next line that is `wanted`; others are left out.
    async fn find(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.hear().await;
            if wanted(&message) {
                return message;
            }
        }
    }

    async fn answer(&mut self, id: u64) -> Value {
        self.find(|message| message["id"] == id).await
    }

    async fn ask(&mut self, id: u64, method: &str, params: Value) -> Value {
        self.say(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await;
        self.answer(id).await
    }

    async fn ask_modern(&mut self, id: u64, method: &str, params: Value) {
        let (_, body) = modern_message(id, method, params);
        self.say(&serde_json::from_str(&body).unwrap()).await;
    }

    async fn shake_hands(&mut self) {
        let params = json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
        let answer = self.ask(0, "initialize", params).await;
        assert_eq!(answer["result"]["serverInfo"]["name"], "aop", "{answer}");
        self.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
    }

    /// Ends stdin; everything that was still written, and the exit code.
    async fn end(mut self) -> (Vec<Value>, i32) {
        drop(self.stdin.take());
        let mut rest = Vec::new();
        while let Some(line) = timeout(PATIENCE, self.stdout.next_line()).await.unwrap().unwrap() {
            rest.push(serde_json::from_str(&line).unwrap());
        }
        let status = timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
        (rest, status.code().unwrap())
    }
}

async fn sleeper() -> McpFixture {
    fixture(vec![local("echo", Builtin::Echo), local("sleep", Builtin::Sleep)]).await
}

#[tokio::test]
async fn a_host_with_a_handshake_lists_calls_hears_progress_and_changes() {
    let fixture = sleeper().await;
    let mut bridge = bridge(&fixture.base, None);
    bridge.shake_hands().await;
    let listed = bridge.ask(1, "tools/list", json!({})).await;
    assert_eq!(listed["result"]["tools"][0]["name"], "search_agents");
    let called = bridge.ask(2, "tools/call", json!({"name": "echo", "arguments": {"task": "a\nb"}})).await;
    assert_eq!(called["result"]["structuredContent"]["result"], "a\nb");

    // A slow call does not hold a quick one up, and its progress comes in between.
    let params = json!({"name": "sleep", "arguments": {"task": "600"}, "_meta": {"progressToken": "p"}});
    bridge.say(&json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": params})).await;
    bridge.say(&json!({"jsonrpc": "2.0", "id": 4, "method": "ping"})).await;
    let mut seen = Vec::new();
    while !seen.iter().any(|message: &Value| message["id"] == 3) {
        seen.push(bridge.hear().await);
    }
    let at = |wanted: &dyn Fn(&Value) -> bool| seen.iter().position(wanted).unwrap();
    assert!(at(&|it| it["id"] == 4) < at(&|it| it["id"] == 3));
    assert!(at(&|it| it["method"] == "notifications/progress") < at(&|it| it["id"] == 3));

    fixture.agents.replace(vec![local("other", Builtin::Echo)]);
    bridge.find(|message| message["method"] == "notifications/tools/list_changed").await;
    let (rest, code) = bridge.end().await;
    assert!(rest.iter().all(|message| message.get("id").is_none()) && code == 0, "{rest:?}");
}

#[tokio::test]
async fn a_host_of_the_newest_revision_lists_calls_listens_and_cancels() {
    let fixture = sleeper().await;
    let mut bridge = bridge(&fixture.base, None);
    bridge.ask_modern(1, "server/discover", json!({})).await;
    assert!(bridge.answer(1).await["result"]["supportedVersions"].is_array());
    bridge.ask_modern(2, "tools/call", json!({"name": "echo", "arguments": {"task": "hi"}})).await;
    assert_eq!(bridge.answer(2).await["result"]["structuredContent"]["result"], "hi");
    bridge.ask_modern(3, "resources/read", json!({"uri": "zone://."})).await;
    assert!(bridge.answer(3).await["result"]["contents"].is_array());
    bridge.ask_modern(4, "tools/call", json!({"name": "nobody", "arguments": {}})).await;
    assert_eq!(bridge.answer(4).await["error"]["code"], -32602);

    bridge.ask_modern(5, "subscriptions/listen", json!({"notifications": {"toolsListChanged": true}})).await;
    bridge.find(|message| message["method"] == "notifications/subscriptions/acknowledged").await;
    fixture.agents.replace(vec![local("sleep", Builtin::Sleep)]);
    bridge.find(|message| message["method"] == "notifications/tools/list_changed").await;

    // A cancelled call is never answered: the one after it is the next answer, and the end does not wait for it.
    bridge.ask_modern(6, "tools/call", json!({"name": "sleep", "arguments": {"task": "60000"}})).await;
    bridge
        .say(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 6}}))
        .await;
    bridge.ask_modern(7, "tools/list", json!({})).await;
    let next = bridge.find(|message| message.get("id").is_some()).await;
    assert_eq!(next["id"], 7);
    assert_eq!(bridge.end().await, (Vec::new(), 0));
}

#[tokio::test]
async fn what_was_asked_before_the_end_of_stdin_is_still_answered() {
    let fixture = sleeper().await;
    let mut bridge = bridge(&fixture.base, None);
    bridge.ask_modern(1, "tools/call", json!({"name": "sleep", "arguments": {"task": "300"}})).await;
    let (rest, code) = bridge.end().await;
    assert_eq!((rest.len(), &rest[0]["id"], code), (1, &json!(1), 0));
}

#[tokio::test]
async fn a_node_that_does_not_run_is_told_in_each_tools_answer_and_by_the_exit_code() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", socket.local_addr().unwrap());
    drop(socket);
    let mut bridge = bridge(&base, None);
    bridge.shake_hands().await;
    assert!(bridge.ask(1, "ping", json!({})).await["result"].is_object());
    let listed = bridge.ask(2, "tools/list", json!({})).await;
    assert_eq!(listed["result"]["tools"][5]["name"], "call_agent");
    let call = json!({"name": "search_agents", "arguments": {"query": "x"}});
    let called = bridge.ask(3, "tools/call", call.clone()).await;
    bridge.ask_modern(4, "tools/call", call).await;
    for called in [called, bridge.answer(4).await] {
        assert_eq!(called["result"]["isError"], true, "{called}");
        let told = called["result"]["structuredContent"]["error"].as_str().unwrap();
        assert!(told.contains("start one with `aop node`") && told.contains(&base), "{told}");
    }
    bridge.ask_modern(5, "server/discover", json!({})).await;
    assert!(bridge.answer(5).await["result"]["supportedVersions"].is_array());
    bridge.ask_modern(6, "resources/read", json!({"uri": "zone://."})).await;
    assert!(bridge.answer(6).await["error"]["message"].as_str().unwrap().contains(&base));
    assert_eq!(bridge.end().await, (Vec::new(), 4));
}

#[tokio::test]
async fn a_host_that_started_before_the_node_goes_on_once_there_is_one() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    drop(socket);
    let mut bridge = bridge(&format!("http://{addr}"), None);
    bridge.shake_hands().await;
    bridge.ask_modern(1, "subscriptions/listen", json!({"notifications": {"toolsListChanged": true}})).await;
    let agents = vec![local("later", Builtin::Echo)];
    let _node = start(Setup { agents, http: Some(addr), ..Setup::default() }, |mcp| mcp).await;
    // Nothing was asked since: the bridge looks for the node by itself, in both eras.
    let told = bridge.find(|message| message["method"] == "notifications/tools/list_changed");
    let told = told.await;
    assert!(told.get("id").is_none(), "{told}");
    let listed = bridge.ask(2, "tools/list", json!({})).await;
    assert_eq!(listed["result"]["tools"][17]["name"], "later");
    let called = bridge.ask(3, "tools/call", json!({"name": "later", "arguments": {"task": "x"}})).await;
    assert_eq!(called["result"]["structuredContent"]["result"], "x");
    assert_eq!(bridge.end().await.1, 0);
}

#[tokio::test]
async fn a_token_is_sent_and_a_wrong_one_is_told() {
    let fixture = start(Setup { token: Some("s3cret"), ..Setup::default() }, |mcp| mcp).await;
    let mut right = bridge(&fixture.base, Some("s3cret"));
    right.shake_hands().await;
    assert!(right.ask(1, "tools/list", json!({})).await["result"].is_object());
    let mut wrong = bridge(&fixture.base, Some("wrong"));
    wrong.ask_modern(1, "tools/list", json!({})).await;
    let told = wrong.answer(1).await;
    assert!(told["error"]["message"].as_str().unwrap().contains("AOP_TOKEN"), "{told}");
}

#[tokio::test]
async fn a_session_goes_on_when_the_node_starts_again() {
    let first = sleeper().await;
    let addr: SocketAddr = first.base.strip_prefix("http://").unwrap().parse().unwrap();
    let mut bridge = bridge(&first.base, None);
    bridge.shake_hands().await;
    assert!(bridge.ask(1, "tools/list", json!({})).await["result"].is_object());
    first.stop().await;
    let down = bridge.ask(2, "tools/list", json!({})).await;
    assert!(down["error"]["message"].is_string(), "{down}");

    let agents = vec![local("later", Builtin::Echo)];
    let _second = start(Setup { seed: 1, agents, http: Some(addr), ..Setup::default() }, |mcp| mcp).await;
    let listed = bridge.ask(3, "tools/list", json!({})).await;
    assert_eq!(listed["result"]["tools"][17]["name"], "later");
    assert_eq!(bridge.end().await.1, 0);
}

#[tokio::test]
async fn lines_that_are_no_messages_are_answered_with_errors() {
    let fixture = sleeper().await;
    let mut bridge = bridge(&fixture.base, None);
    for (line, code) in [("{", -32700), ("[]", -32600), ("nonsense", -32700)] {
        bridge.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).await.unwrap();
        assert_eq!(bridge.hear().await["error"]["code"], code, "{line}");
    }
    let long = format!("{{\"x\":\"{}\"}}\n", "y".repeat(5 * 1024 * 1024));
    bridge.stdin.as_mut().unwrap().write_all(long.as_bytes()).await.unwrap();
    assert_eq!(bridge.hear().await["error"]["code"], -32700);
    let lost = bridge.ask(1, "tools/list", json!({})).await;
    assert!(lost.get("error").is_some(), "there is no session yet: {lost}");
    bridge.shake_hands().await;
    assert!(bridge.ask(2, "tools/list", json!({})).await["result"].is_object());
}
