//! Calls that take longer than hosts of models wait: words from time to time, ids of tasks, and the tasks extension.

use std::time::{Duration, Instant};

use aop::document::run_config::Builtin;
use aop::mcp::Patience;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::fixture::{
    McpFixture, Messages, PATIENCE, Setup, Site, fixture, last_message, local, modern_message, script, start,
};

/// Everything far sooner than for users, and as late as a busy machine needs.
fn hasty() -> Patience {
    Patience {
        report_every: Duration::from_millis(100),
        task_after: Duration::from_millis(500),
        handle_after: Duration::from_secs(1),
        handle_after_reports: Duration::from_millis(2_300),
    }
}

/// A node with an agent that says nothing for a minute, one that sleeps for a while, and one that answers at once.
async fn hasty_node(folder: &tempfile::TempDir) -> McpFixture {
    let silent = script(
        json!({"name": "silent", "description": "d", "max_concurrency": 1}),
        "echo $$ >> pids; exec sleep 60",
        folder.path(),
    );
    let brief = script(json!({"name": "brief", "description": "d"}), "sleep 3; echo done", folder.path());
    let agents = vec![silent, brief, local("echo", Builtin::Echo), local("fails", Builtin::Fail)];
    start(Setup { agents, patience: hasty(), ..Setup::default() }, |mcp| mcp).await
}

async fn until(site: &Site, task: &Value, status: &str) -> Value {
    let waiting = async {
        loop {
            let told = site.call("get_task_status", json!({"task_id": task})).await;
            if told["structuredContent"]["status"] == status {
                return told["structuredContent"].clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("it comes to that")
}

#[tokio::test]
async fn a_call_that_takes_long_is_answered_with_a_task_that_has_the_answer_later() {
    let folder = tempfile::tempdir().unwrap();
    let node = hasty_node(&folder).await;
    let long = node.call("call_agent", json!({"agent_name": "brief@.", "task": "x"})).await;
    let handle = &long["structuredContent"];
    assert_ne!(long["isError"], json!(true));
    assert_eq!((&handle["status"], &handle["next"]), (&json!("working"), &json!("get_task_status")));
    let asked = json!({"task_id": handle["task_id"], "agent_name": "brief", "wait": 30});
    let began = Instant::now();
    let told = node.call("get_task_status", asked).await["structuredContent"].clone();
    assert!(began.elapsed() < Duration::from_secs(20), "it is told at its end");
    assert_eq!((&told["status"], &told["result"]), (&json!("completed"), &json!("done")), "{told}");
    assert_eq!((&told["task"]["status"], &told["task"]["result"]), (&json!("completed"), &json!("done")));
    let quick = node.call("call_agent", json!({"agent": "echo@.", "task": "x"})).await;
    assert_eq!(quick["structuredContent"]["result"], "x", "who is quick answers himself");
    let known = node.call("get_task_status", json!({"task_id": quick["structuredContent"]["task_id"]})).await;
    assert_eq!(known["structuredContent"]["code"], "not_found", "and is no task");
    node.stop().await;
}

#[tokio::test]
async fn a_tool_that_takes_long_is_answered_with_a_task_too_in_no_shape_that_its_schema_forbids() {
    let folder = tempfile::tempdir().unwrap();
    let schema = json!({"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"]});
    let typed = json!({"name": "typed", "description": "d", "output_schema": schema});
    let agents = vec![
        script(typed, "sleep 3; echo '{\"n\": 7}'", folder.path()),
        script(json!({"name": "brief", "description": "d"}), "sleep 3; echo done", folder.path()),
    ];
    let node = start(Setup { agents, patience: hasty(), ..Setup::default() }, |mcp| mcp).await;
    let handle = node.call("brief", json!({"task": "x"})).await;
    assert_eq!(
        (&handle["isError"], &handle["structuredContent"]["status"]),
        (&json!(false), &json!("working"))
    );
    let told = until(&node, &handle["structuredContent"]["task_id"], "completed").await;
    assert_eq!(told["result"], "done", "{told}");
    // A client would refuse what does not fit the tool's schema, and takes an error as it is.
    let handle = node.call("typed", json!({"task": "x"})).await;
    assert_eq!((&handle["isError"], handle.get("structuredContent")), (&json!(true), None), "{handle}");
    let text = handle["content"][0]["text"].as_str().unwrap();
    let handle: Value = serde_json::from_str(text).unwrap();
    assert_eq!((&handle["status"], &handle["next"]), (&json!("working"), &json!("get_task_status")));
    let told = until(&node, &handle["task_id"], "completed").await;
    assert_eq!(told["result"], json!({"n": 7}), "{told}");
    node.stop().await;
}

#[tokio::test]
async fn a_call_can_be_a_task_from_the_start_and_is_ended_by_its_id() {
    let folder = tempfile::tempdir().unwrap();
    let node = hasty_node(&folder).await;
    let submitted = node.call("call_agent", json!({"agent": "silent@.", "task": "x", "async": true})).await;
    let task = &submitted["structuredContent"]["task_id"];
    assert_eq!(submitted["structuredContent"]["status"], "submitted");
    let told = until(&node, task, "working").await;
    assert_eq!((&told["task"]["status"], &told["next"]), (&json!("processing"), &json!("get_task_status")));
    let second = node.call("call_agent", json!({"agent": "silent@.", "task": "x", "async": true})).await;
    let told = until(&node, &second["structuredContent"]["task_id"], "queued").await;
    assert_eq!((&told["ahead"], &told["task"]["status"]), (&json!(0), &json!("pending")));
    let ended = node.call("cancel_task", json!({"task_id": task, "agent_name": "silent"})).await;
    assert_eq!(ended["structuredContent"]["success"], true);
    let again = node.call("cancel_task", json!({"task_id": task})).await;
    assert_eq!(again["structuredContent"]["status"], "cancelled");
    until(&node, &second["structuredContent"]["task_id"], "working").await;
    for (tool, arguments, code) in [
        ("get_task_status", json!({"task_id": "x"}), "not_found"),
        ("get_task_status", json!({"task_id": task, "wait": 51}), "bad_input"),
        ("cancel_task", json!({}), "bad_input"),
        ("call_agent", json!({"agent": "nobody@.", "task": "x", "async": true}), "not_found"),
        ("call_agent", json!({"agent": "echo@.", "task": "x", "conversation": "a b"}), "bad_input"),
    ] {
        let refused = node.call(tool, arguments).await;
        assert_eq!(
            (&refused["isError"], &refused["structuredContent"]["code"]),
            (&json!(true), &json!(code))
        );
    }
    node.stop().await;
}

#[tokio::test]
async fn who_asks_for_progress_hears_of_a_silent_agent_at_once_and_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let node = hasty_node(&folder).await;
    let call = json!({"name": "call_agent", "arguments": {"agent": "silent@.", "task": "x"},
        "_meta": {"progressToken": "p"}});
    let mut messages = Messages::of(node.modern_request("tools/call", call).send().await.unwrap());
    let (mut reports, mut last) = (0, -1.0);
    let handle = loop {
        let message = timeout(PATIENCE, messages.next()).await.unwrap().unwrap();
        if message.get("id").is_some() {
            break message["result"]["structuredContent"].clone();
        }
        let progress = message["params"]["progress"].as_f64().unwrap();
        assert!(progress > last, "{message}");
        (reports, last) = (reports + 1, progress);
        let said = message["params"]["message"].as_str().unwrap();
        assert!(said == "submitted" || said.starts_with("working at 12D3"), "{message}");
    };
    assert!(reports >= 10, "{reports}");
    assert!(last >= 1.5, "with a token it is waited for longer: {last}");
    assert_eq!(handle["status"], "working");
    // It goes on though its request was answered.
    until(&node, &handle["task_id"], "working").await;
    node.stop().await;
}

#[tokio::test]
async fn a_request_that_is_dropped_before_it_has_a_task_ends_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let node = hasty_node(&folder).await;
    let pids = folder.path().join("pids");
    let arguments = json!({"name": "call_agent", "arguments": {"agent": "silent@.", "task": "x"},
        "_meta": {"progressToken": "p"}});
    let call = node.modern_request("tools/call", arguments).send().await.unwrap();
    let mut messages = Messages::of(call);
    messages
        .find(|message| message["params"]["message"].as_str().is_some_and(|it| it.starts_with("working")))
        .await;
    let pid = async {
        loop {
            if let Some(pid) = std::fs::read_to_string(&pids).ok().filter(|pid| pid.ends_with('\n')) {
                return pid.trim().to_owned();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let pid = timeout(PATIENCE, pid).await.unwrap();
    drop(messages);
    let gone = async {
        while std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z")) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("its process ends");
    node.stop().await;
}

#[tokio::test]
async fn many_agents_are_called_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let node = hasty_node(&folder).await;
    let calls = json!([{"agent": "echo@.", "task": "a"}, {"agent_name": "fails@.", "task": "b"},
        {"agent": "echo@.", "input": {"task": "c"}}]);
    let told = node.call("call_agents", json!({"calls": calls, "timeout": 30})).await;
    let results = told["structuredContent"]["results"].as_array().unwrap();
    assert_eq!((&results[0]["result"], &results[2]["result"]), (&json!("a"), &json!("c")));
    assert_eq!(results[1]["error"]["code"], "agent_failed");
    let refused = node.call("call_agents", json!({"calls": [{"agent": "echo@."}]})).await;
    assert_eq!(refused["structuredContent"]["code"], "bad_input");
    node.stop().await;
}

/// A request of a client that knows tasks.
async fn knowing(site: &Site, method: &str, params: Value) -> Value {
    let (mut headers, body) = modern_message(1, method, params);
    let mut body: Value = serde_json::from_str(&body).unwrap();
    body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] =
        json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
    if let Some(task) = body["params"]["taskId"].as_str() {
        headers.insert("Mcp-Name", task.to_owned());
    }
    let request = headers.into_iter().fold(site.post(), |post, (name, value)| post.header(name, value));
    last_message(request.body(body.to_string()).send().await.unwrap()).await
}

#[tokio::test]
async fn a_client_that_knows_tasks_gets_one_and_polls_and_cancels_it() {
    let folder = tempfile::tempdir().unwrap();
    let node = hasty_node(&folder).await;
    for call in [
        json!({"name": "call_agent", "arguments": {"agent": "brief@.", "task": "x"}}),
        json!({"name": "brief", "arguments": {"task": "x"}}),
    ] {
        let created = knowing(&node, "tools/call", call).await["result"].clone();
        assert_eq!(
            (&created["resultType"], &created["status"]),
            (&json!("task"), &json!("working")),
            "{created}"
        );
        let got = async {
            loop {
                let got =
                    knowing(&node, "tasks/get", json!({"taskId": created["taskId"]})).await["result"].clone();
                if got["status"] != "working" {
                    return got;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let got = timeout(PATIENCE, got).await.unwrap();
        assert_eq!(got["status"], "completed", "{got}");
        let told = &got["result"]["structuredContent"];
        assert_eq!((&told["success"], &told["result"]), (&json!(true), &json!("done")), "{got}");
    }
    let silent = json!({"name": "silent", "arguments": {"task": "x"}});
    let created = knowing(&node, "tools/call", silent).await["result"].clone();
    let task = json!({"taskId": created["taskId"]});
    knowing(&node, "tasks/cancel", task.clone()).await;
    assert_eq!(knowing(&node, "tasks/get", task.clone()).await["result"]["status"], "cancelled");
    let quick = knowing(&node, "tools/call", json!({"name": "fails", "arguments": {"task": "x"}})).await;
    assert_eq!(quick["result"]["isError"], true, "what is over at once is no task");
    let unknown = knowing(&node, "tasks/get", json!({"taskId": "nothing"})).await;
    assert_eq!(unknown["error"]["code"], -32602);
    let (mut headers, body) = modern_message(1, "tasks/get", task.clone());
    headers.insert("Mcp-Name", task["taskId"].as_str().unwrap().to_owned());
    let request = headers.into_iter().fold(node.post(), |post, (name, value)| post.header(name, value));
    let ignorant = last_message(request.body(body).send().await.unwrap()).await;
    assert_eq!(ignorant["error"]["code"], -32021, "{ignorant}");
    node.stop().await;
}

/// With the times that users meet: hosts of models give up after a minute.
#[tokio::test]
#[ignore = "it takes more than a minute"]
async fn an_agent_that_is_silent_for_more_than_a_minute_is_answered_for_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let slow = script(
        json!({"name": "slow", "description": "d", "timeout_s": 120}),
        "sleep 70; echo done",
        folder.path(),
    );
    let node = fixture(vec![slow]).await;
    let began = Instant::now();
    let arguments = json!({"agent": "slow@.", "task": "x"});
    let request = json!({"name": "call_agent", "arguments": arguments});
    let post = node.modern_request("tools/call", request).timeout(Duration::from_secs(100));
    let handle = last_message(post.send().await.unwrap()).await["result"]["structuredContent"].clone();
    assert!(began.elapsed() < Duration::from_secs(55), "{:?}", began.elapsed());
    assert_eq!(handle["status"], "working");
    let asked = json!({"name": "get_task_status", "arguments": {"task_id": handle["task_id"], "wait": 50}});
    let post = node.modern_request("tools/call", asked).timeout(Duration::from_secs(100));
    let told = last_message(post.send().await.unwrap()).await["result"]["structuredContent"].clone();
    assert_eq!((&told["status"], &told["result"]), (&json!("completed"), &json!("done")), "{told}");
    assert!(began.elapsed() < Duration::from_secs(85), "{:?}", began.elapsed());
    node.stop().await;
}
