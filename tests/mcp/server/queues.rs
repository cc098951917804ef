//! The queue tools, which act on this node's own agents alone.

use aop::api::Code;
use aop::document::run_config::Builtin;
use aop::host::QueueClient;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::fixture::{McpFixture, PATIENCE, fixture, local, local_of};
use super::tools::held;

/// Calls the echo, does something as soon as the call waits, and gives what both answered.
async fn while_a_call_waits(node: &McpFixture, tool: &str, arguments: Value) -> (Value, Value) {
    let act = async {
        while node.call("get_queue_stats", json!({"agent_name": "echo@."})).await["structuredContent"]["stats"]
            ["pending_tasks"]
            != 1
        {
            tokio::task::yield_now().await;
        }
        node.call(tool, arguments).await["structuredContent"].clone()
    };
    let both = async { tokio::join!(node.call("echo", json!({"task": "hi"})), act) };
    timeout(PATIENCE, both).await.expect("the call waits, and ends")
}

#[tokio::test]
async fn queues_are_shown_paused_resumed_and_cleared_by_the_tools_of_the_authors() {
    let node = fixture(vec![local("echo", Builtin::Echo), local("other", Builtin::Echo)]).await;
    held(&node, "echo@.").await;
    let told = async |tool: &str, arguments| node.call(tool, arguments).await["structuredContent"].clone();

    let paused = told("pause_agent_queue", json!({"agent_name": "echo"})).await;
    assert_eq!((&paused["success"], &paused["agent_name"]), (&json!(true), &json!("echo@.")), "{paused}");
    assert!(paused["message"].as_str().unwrap().contains("paused"), "{paused}");
    let other = node.call("other", json!({"task": "go"})).await;
    assert_eq!(other["structuredContent"]["result"], "go", "only that one is paused");
    let (answer, resumed) =
        while_a_call_waits(&node, "resume_agent_queue", json!({"agent_name": "echo@."})).await;
    assert_eq!(answer["structuredContent"]["result"], "hi", "{answer}");
    assert_eq!((&resumed["success"], &resumed["stats"]["queue_status"]), (&json!(true), &json!("running")));
    let stats = told("get_queue_stats", json!({"agent_name": "echo"})).await["stats"].clone();
    let counts =
        ["total_tasks", "completed_tasks", "failed_tasks", "pending_tasks", "processing_tasks", "queue_size"];
    assert_eq!(counts.map(|count| stats[count].as_u64().unwrap()), [1, 1, 0, 0, 0, 0], "{stats}");
    assert!(stats["average_processing_time"].is_f64() && stats["mean_work_ms"].is_f64(), "{stats}");

    let paused = told("pause_all_queues", json!({})).await;
    assert_eq!(paused["results"], json!({"echo@.": true, "other@.": true}), "{paused}");
    assert_eq!((&paused["total_agents"], &paused["successful_pauses"]), (&json!(2), &json!(2)));
    let (answer, cleared) = while_a_call_waits(&node, "clear_all_queues", json!({})).await;
    let failure = &answer["structuredContent"];
    let told_waiting = (&failure["code"], &failure["outcome"]);
    assert_eq!(told_waiting, (&json!("cancelled"), &json!("not_started")), "{answer}");
    assert_eq!(cleared["results"], json!({"echo@.": 1, "other@.": 0}), "{cleared}");
    assert_eq!((&cleared["success"], &cleared["total_cleared"]), (&json!(true), &json!(1)));
    let (_, cleared) = while_a_call_waits(&node, "clear_agent_queue", json!({"agent_name": "echo"})).await;
    assert_eq!((&cleared["success"], &cleared["cleared_tasks"]), (&json!(true), &json!(1)), "{cleared}");
    let info = told("get_server_info", json!({})).await["server_info"].clone();
    assert_eq!(info["queue_stats"]["other@."]["queue_status"], "paused", "{info}");
    assert_eq!(told("resume_all_queues", json!({})).await["successful_resumes"], 2);
    let all = told("get_queue_stats", json!({})).await;
    assert_eq!((&all["total_agents"], &all["stats"]["echo@."]["paused"]), (&json!(2), &json!(false)));
    node.stop().await;
}

#[tokio::test]
async fn queue_tools_say_what_they_end_and_refuse_what_does_not_run_here() {
    let node = fixture(vec![local("echo", Builtin::Echo)]).await;
    let destructive: Vec<Value> = node
        .tools()
        .await
        .into_iter()
        .filter(|tool| tool["name"].as_str().unwrap().contains("queue"))
        .filter(|tool| tool["annotations"]["destructiveHint"] == true)
        .map(|tool| tool["name"].clone())
        .collect();
    assert_eq!(destructive, ["clear_agent_queue", "clear_all_queues"]);
    for (tool, arguments, code) in [
        ("get_queue_stats", json!({"agent_name": "nobody"}), "not_found"),
        ("pause_agent_queue", json!({"agent_name": "nobody@."}), "not_found"),
        ("clear_agent_queue", json!({}), "bad_input"),
        ("clear_all_queues", json!({"agent_name": "echo"}), "bad_input"),
    ] {
        let refused = node.call(tool, arguments).await;
        let failure = &refused["structuredContent"];
        assert_eq!((&refused["isError"], &failure["code"]), (&json!(true), &json!(code)), "{refused}");
        assert!(code != "not_found" || failure["error"].as_str().unwrap().contains("get_queue_stats"));
        assert!(!refused.to_string().contains("`aop "), "a model has no shell: {refused}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_queue_is_named_in_full_or_by_id_where_two_agents_share_a_name() {
    let twin = json!({"name": "twin", "zone": "lab", "description": "d"});
    let node = fixture(vec![local("twin", Builtin::Echo), local_of(twin, Builtin::Echo)]).await;
    let queues = QueueClient::new(&node.node.handle);
    let refused = queues.show("twin").unwrap_err();
    assert_eq!(refused.code, Code::Ambiguous, "{refused:?}");
    assert_eq!(refused.suggestions, ["twin@.", "twin@lab"]);
    assert_eq!(queues.show("twin@lab").unwrap().agent, "twin@lab");
    let tools = node.tools().await;
    let own = tools.iter().map(|tool| &tool["_meta"]["aop/agent"]).filter(|own| own["id"].is_string());
    let named: Vec<bool> =
        own.map(|own| queues.show(own["id"].as_str().unwrap()).unwrap().agent == own["agent"]).collect();
    assert_eq!(named, [true, true]);
    node.stop().await;
}
