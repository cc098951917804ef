//! Calls: results, failures, progress, cancellation, changes, and what a broken handler does.

use std::future::Future;
use std::sync::Arc;

use aop::document::hosting::Builtin;
use aop::mcp::Mcp;
use rmcp::model::*;
use rmcp::service::{NotificationContext, RequestContext};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::world::{Messages, PATIENCE, Setup, World, local, start, world};

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

async fn broken() -> (World, mpsc::Receiver<&'static str>) {
    let (told, heard) = mpsc::channel(16);
    let world = start(Setup::default(), |ours| Broken { ours, told: Arc::new(told) }).await;
    (world, heard)
}

async fn hear(heard: &mut mpsc::Receiver<&'static str>) -> &'static str {
    timeout(PATIENCE, heard.recv()).await.expect("something is told").unwrap()
}

#[tokio::test]
async fn a_failed_agent_is_an_answer_and_an_unknown_tool_is_a_protocol_error() {
    let world = world(vec![local("fails", Builtin::Fail)]).await;
    let failed = world.call("fails", json!({"task": "x"})).await;
    assert_eq!(failed["isError"], true);
    let told = &failed["structuredContent"];
    assert_eq!(
        (&told["success"], &told["code"], &told["outcome"]),
        (&json!(false), &json!("agent_failed"), &json!("done"))
    );
    assert!(told["error"].as_str().unwrap().contains("always fails"));

    let unknown =
        world.modern_request("tools/call", json!({"name": "nobody", "arguments": {}})).send().await.unwrap();
    assert_eq!(unknown.status(), 200);
    let unknown: serde_json::Value = unknown.json().await.unwrap();
    assert_eq!(unknown["error"]["code"], -32602);
    let legacy = world.session().await.ask("tools/call", json!({"name": "nobody", "arguments": {}})).await;
    assert_eq!(legacy["error"]["code"], -32602);
}

#[tokio::test]
async fn any_agent_is_called_by_its_full_name_with_a_task_or_an_input() {
    let world = world(vec![local("echo", Builtin::Echo)]).await;
    for arguments in
        [json!({"agent": "echo@.", "task": "hi"}), json!({"agent": "echo@.", "input": {"task": "hi"}})]
    {
        let answer = world.call("call_agent", arguments).await;
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
        let answer = world.call("call_agent", arguments).await;
        let told = &answer["structuredContent"];
        assert_eq!((&answer["isError"], &told["code"]), (&json!(true), &json!("bad_input")), "{answer}");
        assert!(told["error"].as_str().unwrap().contains(wrong), "{told}");
    }
}

#[tokio::test]
async fn progress_is_told_to_who_asks_for_it_and_to_nobody_else() {
    let world = world(vec![local("sleep", Builtin::Sleep)]).await;
    let params = json!({"name": "sleep", "arguments": {"task": "350"}});
    let quiet = world.modern_request("tools/call", params.clone()).send().await.unwrap();
    assert_eq!(quiet.headers()["content-type"], "application/json");

    let mut asking = params;
    asking["_meta"] = json!({"progressToken": "p"});
    let loud = world.modern_request("tools/call", asking.clone()).send().await.unwrap();
    let session = world.session().await;
    for response in [loud, session.send(7, "tools/call", asking).await] {
        let mut messages = Messages::of(response);
        let report = messages.find(|message| message["method"] == "notifications/progress").await;
        assert_eq!(
            (&report["params"]["progressToken"], &report["params"]["total"]),
            (&json!("p"), &json!(0.35))
        );
        let done = messages.find(|message| message.get("result").is_some()).await;
        assert_eq!(done["result"]["structuredContent"]["result"], "slept 350 ms");
    }
}

#[tokio::test]
async fn closing_the_connection_ends_the_work_of_the_newest_revision() {
    let (world, mut heard) = broken().await;
    let call = world.modern_request("tools/call", json!({"name": "hang", "arguments": {}})).send();
    tokio::select! {
        answered = call => panic!("{answered:?}"),
        started = hear(&mut heard) => assert_eq!(started, "started"),
    }
    assert_eq!(hear(&mut heard).await, "ended");
}

#[tokio::test]
async fn a_cancel_notice_and_the_end_of_a_session_end_the_work_of_older_revisions() {
    let (world, mut heard) = broken().await;
    let session = world.session().await;
    let hang = json!({"name": "hang", "arguments": {}});
    let _answer = session.send(5, "tools/call", hang.clone()).await;
    assert_eq!(hear(&mut heard).await, "started");
    session.notify("notifications/cancelled", json!({"requestId": 5})).await;
    assert_eq!(hear(&mut heard).await, "ended");

    let _answer = session.send(6, "tools/call", hang).await;
    assert_eq!(hear(&mut heard).await, "started");
    let delete = world.client.delete(world.url("/mcp")).header("Mcp-Session-Id", &session.id);
    assert!(delete.send().await.unwrap().status().is_success());
    assert_eq!(hear(&mut heard).await, "ended");
}

#[tokio::test]
async fn a_panic_in_a_handler_answers_an_error_in_both_eras() {
    let (world, _heard) = broken().await;
    let params = json!({"name": "panic", "arguments": {}});
    let modern = world.modern("tools/call", params.clone()).await;
    assert_eq!(modern["error"]["code"], -32603, "{modern}");
    let session = world.session().await;
    let legacy = session.ask("tools/call", params).await;
    assert_eq!(legacy["error"]["code"], -32603, "{legacy}");
    let after = session.ask("tools/list", json!({})).await;
    assert!(after["result"]["tools"].is_array(), "the session goes on");
}

#[tokio::test]
async fn a_change_of_the_agents_is_told_in_both_eras() {
    let world = world(vec![local("first", Builtin::Echo)]).await;
    let session = world.session().await;
    let mut legacy = Messages::of(session.listen().await);
    let wanted = json!({"notifications": {"toolsListChanged": true, "resourcesListChanged": true}});
    let listening = world.modern_request("subscriptions/listen", wanted).send().await.unwrap();
    let mut modern = Messages::of(listening);
    let accepted = modern.next().await.unwrap();
    assert_eq!(accepted["method"], "notifications/subscriptions/acknowledged", "{accepted}");

    world.agents.replace(vec![local("second", Builtin::Echo)]);
    for stream in [&mut legacy, &mut modern] {
        for kind in ["tools", "resources"] {
            let method = format!("notifications/{kind}/list_changed");
            let found = stream.find(|message| message["method"] == method);
            timeout(PATIENCE, found).await.expect("the change is told");
        }
    }
}
