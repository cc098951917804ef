//! Calls: results, failures, progress, cancellation, changes, and what a broken handler does.

use std::future::Future;
use std::process::{Command, Stdio};
use std::sync::Arc;

use aop::document::run_config::Builtin;
use aop::mcp::Mcp;
use rmcp::model::*;
use rmcp::service::{NotificationContext, RequestContext};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::fixture::{LEGACY, McpFixture, Messages, PATIENCE, Setup, fixture, local, script, start};
use super::tools::held;

/// Our server with a tool that panics and one that never ends.
#[derive(Clone)]
struct Broken {
    ours: Mcp,
    told: Arc<mpsc::Sender<&'static str>>,
}

/// Tells when the work on a call is dropped.
struct Ended(Arc<mpsc::Sender<&'static str>>);

impl Drop for Ended {
    fn drop(&mut self) {
        let _full = self.0.try_send("ended");
    }
}

impl ServerHandler for Broken {
    fn get_info(&self) -> ServerConfig {
        self.ours.get_info()
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        cx: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        match request.name.as_ref() {
            "panic" => panic!("this tool panics"),
            "hang" => {
                let _ended = Ended(self.told.clone());
                self.told.send("started").await.unwrap();
                std::future::pending().await
            }
            _ => self.ours.call_tool(request, cx).await,
        }
    }

    fn on_initialized(&self, cx: NotificationContext<RoleServer>) -> impl Future<Output = ()> {
        self.ours.on_initialized(cx)
    }
}

async fn broken() -> (McpFixture, mpsc::Receiver<&'static str>) {
    let (told, heard) = mpsc::channel(16);
    let fixture = start(Setup::default(), |ours| Broken { ours, told: Arc::new(told) }).await;
    (fixture, heard)
}

async fn hear(heard: &mut mpsc::Receiver<&'static str>) -> &'static str {
    timeout(PATIENCE, heard.recv()).await.expect("something is told").unwrap()
}

#[tokio::test]
async fn a_failed_agent_is_an_answer_and_an_unknown_tool_is_a_protocol_error() {
    let fixture = fixture(vec![local("fails", Builtin::Fail)]).await;
    let failed = fixture.call("fails", json!({"task": "x"})).await;
    assert_eq!(failed["isError"], true);
    let told = &failed["structuredContent"];
    assert_eq!(
        (&told["success"], &told["code"], &told["outcome"]),
        (&json!(false), &json!("agent_failed"), &json!("done"))
    );
    assert!(told["error"].as_str().unwrap().contains("always fails"));

    let unknown = fixture
        .modern_request("tools/call", json!({"name": "nobody", "arguments": {}}))
        .send()
        .await
        .unwrap();
    assert_eq!(unknown.status(), 200);
    let unknown: Value = unknown.json().await.unwrap();
    assert_eq!(unknown["error"]["code"], -32602);
    let legacy = fixture.session().await.ask("tools/call", json!({"name": "nobody", "arguments": {}})).await;
    assert_eq!(legacy["error"]["code"], -32602);
}

#[tokio::test]
async fn arguments_that_do_not_fit_are_told_with_place_and_rule_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let schema = json!({"type": "object", "required": ["city"],
        "properties": {"city": {"type": "string"}, "days": {"type": "array", "items": {"type": "integer"}}}});
    let output = json!({"type": "object", "required": ["sky"], "properties": {"sky": {"type": "string"}}});
    let agent =
        json!({"name": "weather", "description": "d", "input_schema": schema, "output_schema": output});
    let touch = "touch worked; echo '{\"sky\": \"blue\"}'";
    let fixture = fixture(vec![script(agent, touch, folder.path()), local("echo", Builtin::Echo)]).await;
    let tools = fixture.tools().await;
    let tool = tools.iter().find(|tool| tool["name"] == "weather").unwrap();
    assert_eq!((&tool["inputSchema"], &tool["outputSchema"]), (&schema, &output));

    for (arguments, place, rule) in [
        (json!({}), "city", "required"),
        (json!({"city": 7}), "/city", "string"),
        (json!({"city": "Oslo", "days": [1, "x"]}), "/days/1", "integer"),
    ] {
        let refused = fixture.call("weather", arguments).await;
        // The agent's own output schema knows no failures: the document is in the text alone.
        assert_eq!((&refused["isError"], refused.get("structuredContent")), (&json!(true), None));
        let told: Value = serde_json::from_str(refused["content"][0]["text"].as_str().unwrap()).unwrap();
        assert_eq!((&told["code"], &told["outcome"]), (&json!("bad_input"), &json!("not_started")));
        let error = told["error"].as_str().unwrap();
        assert!(error.contains(place) && error.contains(rule), "{error}");
    }
    assert!(!folder.path().join("worked").exists());
    let answer = fixture.call("weather", json!({"city": "Oslo"})).await;
    assert_eq!((&answer["structuredContent"], &answer["isError"]), (&json!({"sky": "blue"}), &json!(false)));
    assert!(folder.path().join("worked").exists());

    let missing = fixture.call("echo", json!({"img": "x"})).await;
    assert!(missing["structuredContent"]["error"].as_str().unwrap().contains("task"), "{missing}");
    let nulls =
        fixture.call("echo", json!({"task": "x", "img": null, "imgs": null, "correct_answer": null})).await;
    assert_eq!(nulls["structuredContent"], json!({"result": "x", "success": true}));
}

/// Waits until `is_so`; there is no event to await in another process.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let so = async {
        while !is_so() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, so).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn a_cancelled_call_ends_the_process_in_both_eras() {
    let folder = tempfile::tempdir().unwrap();
    let agent = json!({"name": "slow", "description": "d"});
    let fixture =
        fixture(vec![script(agent, "echo $$ > pid.new; mv pid.new pid; exec sleep 60", folder.path())]).await;
    let pid = folder.path().join("pid");
    let started = || std::fs::read_to_string(&pid).ok();
    let runs = |pid: &str| {
        Command::new("kill").args(["-0", pid.trim()]).stderr(Stdio::null()).status().unwrap().success()
    };
    let params = json!({"name": "slow", "arguments": {"task": "x"}});

    tokio::select! {
        answered = fixture.modern_request("tools/call", params.clone()).send() => panic!("{answered:?}"),
        () = until("the process starts", || started().is_some()) => {}
    }
    let first = started().unwrap();
    until("the process ends when the connection closes", || !runs(&first)).await;
    std::fs::remove_file(&pid).unwrap();

    let session = fixture.session().await;
    let _answer = session.send(3, "tools/call", params).await;
    until("the process starts", || started().is_some()).await;
    let second = started().unwrap();
    assert!(runs(&second));
    session.notify("notifications/cancelled", json!({"requestId": 3})).await;
    until("the process ends at the notice", || !runs(&second)).await;
}

#[tokio::test]
async fn any_agent_is_called_by_its_full_name_with_a_task_or_an_input() {
    let fixture = fixture(vec![local("echo", Builtin::Echo)]).await;
    for arguments in
        [json!({"agent": "echo@.", "task": "hi"}), json!({"agent": "echo@.", "input": {"task": "hi"}})]
    {
        let answer = fixture.call("call_agent", arguments).await;
        assert_eq!(
            (&answer["structuredContent"]["result"], &answer["isError"]),
            (&json!("hi"), &json!(false))
        );
    }
    for (arguments, wrong) in [
        (json!({"agent": "echo@."}), "either `task` or `input`"),
        (json!({"agent": "echo@.", "task": "a", "input": {}}), "either `task` or `input`"),
        (json!({"agent": "echo@.", "task": 1}), "`task`"),
        (json!({"agent": "echo@.", "task": "a", "timeout": -1}), "`timeout`"),
        (json!({"agent": "echo@.", "task": "a", "tiemout": 1}), "unknown field `tiemout`"),
        (json!({"task": "a"}), "missing field `agent`"),
    ] {
        let answer = fixture.call("call_agent", arguments).await;
        let told = &answer["structuredContent"];
        assert_eq!((&answer["isError"], &told["code"]), (&json!(true), &json!("bad_input")), "{answer}");
        assert!(told["error"].as_str().unwrap().contains(wrong), "{told}");
    }
}

#[tokio::test]
async fn an_agent_of_another_node_is_called_with_progress_and_a_deadline() {
    let agents = vec![local("far", Builtin::Sleep)];
    let there = start(Setup { seed: 1, agents, ..Setup::default() }, |mcp| mcp).await;
    let bootstrap = vec![there.node.listen[0].to_string()];
    let here = start(Setup { seed: 2, bootstrap, ..Setup::default() }, |mcp| mcp).await;
    held(&here, "far@.").await;
    let call = json!({"name": "call_agent", "arguments": {"agent": "far@.", "task": "350"}, "_meta": {"progressToken": 9}});
    let mut messages = Messages::of(here.modern_request("tools/call", call).send().await.unwrap());
    let report = messages.find(|message| message["method"] == "notifications/progress").await;
    assert_eq!(report["params"]["progressToken"], 9);
    let done = messages.find(|message| message.get("id").is_some()).await;
    let told = &done["result"]["structuredContent"];
    assert_eq!((&told["success"], &told["result"]), (&json!(true), &json!("slept 350 ms")));
    assert_eq!(told["served_by"], there.node.handle.key().to_string());

    let late = json!({"agent": "far@.", "task": "60000", "timeout": 0.3});
    let late = here.call("call_agent", late).await;
    let told = &late["structuredContent"];
    assert_eq!(
        (&late["isError"], &told["code"], &told["outcome"]),
        (&json!(true), &json!("deadline"), &json!("unknown"))
    );
    let unknown = here.call("call_agent", json!({"agent": "nobody@.", "task": "x"})).await;
    assert_eq!(unknown["structuredContent"]["code"], "not_found");
}

#[tokio::test]
async fn progress_is_told_to_who_asks_for_it_and_to_nobody_else() {
    let fixture = fixture(vec![local("sleep", Builtin::Sleep)]).await;
    let params = json!({"name": "sleep", "arguments": {"task": "350"}});
    let quiet = fixture.modern_request("tools/call", params.clone()).send().await.unwrap();
    assert_eq!(quiet.headers()["content-type"], "application/json");

    let mut asking = params;
    asking["_meta"] = json!({"progressToken": "p"});
    let loud = fixture.modern_request("tools/call", asking.clone()).send().await.unwrap();
    let session = fixture.session().await;
    for response in [loud, session.send(7, "tools/call", asking).await] {
        let mut messages = Messages::of(response);
        let report = messages.find(|message| message["method"] == "notifications/progress").await;
        assert_eq!(report["params"]["progressToken"], "p");
        let of_agent = |message: &Value| {
            message["params"]["message"].as_str().is_some_and(|message| message.ends_with("of 0.3"))
        };
        messages.find(of_agent).await;
        let done = messages.find(|message| message.get("result").is_some()).await;
        assert_eq!(done["result"]["structuredContent"]["result"], "slept 350 ms");
    }
}

#[tokio::test]
async fn closing_the_connection_ends_the_work_of_the_newest_revision() {
    let (fixture, mut heard) = broken().await;
    let call = fixture.modern_request("tools/call", json!({"name": "hang", "arguments": {}})).send();
    tokio::select! {
        answered = call => panic!("{answered:?}"),
        started = hear(&mut heard) => assert_eq!(started, "started"),
    }
    assert_eq!(hear(&mut heard).await, "ended");
}

#[tokio::test]
async fn a_cancel_notice_and_the_end_of_a_session_end_the_work_of_older_revisions() {
    let (fixture, mut heard) = broken().await;
    let session = fixture.session().await;
    let hang = json!({"name": "hang", "arguments": {}});
    let _answer = session.send(5, "tools/call", hang.clone()).await;
    assert_eq!(hear(&mut heard).await, "started");
    session.notify("notifications/cancelled", json!({"requestId": 5})).await;
    assert_eq!(hear(&mut heard).await, "ended");

    let _answer = session.send(6, "tools/call", hang).await;
    assert_eq!(hear(&mut heard).await, "started");
    let delete = fixture.client.delete(fixture.url("/mcp")).header("Mcp-Session-Id", &session.id);
    assert_eq!(delete.send().await.unwrap().status(), 204);
    assert_eq!(hear(&mut heard).await, "ended");
}

#[tokio::test]
async fn only_clients_that_know_it_get_an_event_without_data() {
    let fixture = fixture(Vec::new()).await;
    for (revision, has_empty) in
        [("2024-11-05", false), ("2025-03-26", false), ("2025-06-18", false), (LEGACY, true)]
    {
        let params = json!({"protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
        let request = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        for path in ["/mcp", "/mcp/"] {
            let post = fixture.post_to(path).body(request.to_string());
            let text = post.send().await.unwrap().text().await.unwrap();
            let has = text
                .lines()
                .any(|line| line.strip_prefix("data:").is_some_and(|data| data.trim().is_empty()));
            assert_eq!(has, has_empty, "{revision}: {text}");
            assert!(text.contains("\"serverInfo\""), "{text}");
        }
    }
}

#[tokio::test]
async fn arguments_as_a_text_are_read() {
    let fixture = fixture(vec![local("echo", Builtin::Echo)]).await;
    let session = fixture.session().await;
    let arguments = json!({"task": "a \"b\" \u{2028} c"}).to_string();
    let params = json!({"name": "echo", "arguments": arguments});
    let modern = fixture.modern("tools/call", params.clone()).await;
    for answer in [session.ask("tools/call", params).await, modern] {
        assert_eq!(answer["result"]["structuredContent"]["result"], "a \"b\" \u{2028} c", "{answer}");
    }
    for wrong in ["no json", "[1]"] {
        let answer = session.ask("tools/call", json!({"name": "echo", "arguments": wrong})).await;
        assert!(answer.get("error").is_some(), "{answer}");
    }
}

#[tokio::test]
async fn images_and_audio_of_an_agent_stay_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = json!([
        {"type": "text", "text": "look"},
        {"type": "image", "data": "AAAA", "mimeType": "image/png"},
        {"type": "audio", "data": "AAAA", "mimeType": "audio/wav"},
        {"type": "resource", "resource": {"uri": "file:///a", "text": "b"}},
        {"type": "resource_link", "uri": "file:///a", "name": "a"},
    ]);
    let says = |name: &str, answer: &Value| {
        script(json!({"name": name, "description": "d"}), &format!("echo '{answer}'"), folder.path())
    };
    let plain = json!([{"type": "invoice", "total": 3}]);
    let fixture = fixture(vec![says("artist", &blocks), says("clerk", &plain)]).await;
    held(&fixture, "artist@.").await;
    let own = fixture.call("artist", json!({"task": "x"})).await;
    let any = fixture.call("call_agent", json!({"agent": "artist@.", "task": "x"})).await;
    for result in [own, any] {
        let kinds: Vec<&str> = result["content"]
            .as_array()
            .unwrap()
            .iter()
            .map(|block| block["type"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, ["text", "image", "audio", "resource", "resource_link"], "{result}");
        assert_eq!(result["structuredContent"]["result"], blocks);
    }
    let clerk = fixture.call("clerk", json!({"task": "x"})).await;
    assert_eq!(clerk["content"][0]["type"], "text", "a list of anything else is data: {clerk}");
}

#[tokio::test]
async fn a_panic_in_a_handler_answers_an_error_in_both_eras() {
    let (fixture, _heard) = broken().await;
    let params = json!({"name": "panic", "arguments": {}});
    let modern = fixture.modern("tools/call", params.clone()).await;
    assert_eq!(modern["error"]["code"], -32603, "{modern}");
    let session = fixture.session().await;
    let legacy = session.ask("tools/call", params).await;
    assert_eq!(legacy["error"]["code"], -32603, "{legacy}");
    let after = session.ask("tools/list", json!({})).await;
    assert!(after["result"]["tools"].is_array(), "the session goes on");
}

#[tokio::test]
async fn a_change_of_the_agents_is_told_in_both_eras() {
    let fixture = fixture(vec![local("first", Builtin::Echo)]).await;
    let session = fixture.session().await;
    let mut legacy = Messages::of(session.listen().await);
    let wanted = json!({"notifications": {"toolsListChanged": true, "resourcesListChanged": true}});
    let listening = fixture.modern_request("subscriptions/listen", wanted).send().await.unwrap();
    let mut modern = Messages::of(listening);
    let accepted = modern.next().await.unwrap();
    assert_eq!(accepted["method"], "notifications/subscriptions/acknowledged", "{accepted}");

    fixture.agents.replace(vec![local("second", Builtin::Echo)]);
    for stream in [&mut legacy, &mut modern] {
        for kind in ["tools", "resources"] {
            let method = format!("notifications/{kind}/list_changed");
            let found = stream.find(|message| message["method"] == method);
            timeout(PATIENCE, found).await.expect("the change is told");
        }
    }
}
