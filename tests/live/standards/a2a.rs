//! Agents of the mesh as A2A servers: both versions, both bindings, tasks that are the node's.

use aop::document::run_config::{Builtin, Endpoint, GivenValue, RunConfig, Runner};
use serde_json::{Value, json};

use super::{Setup, Site, TOKEN, echo, hosted};

fn message(text: &str) -> Value {
    json!({"message": {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": text}]}})
}

impl Site {
    /// Asks in JSON-RPC; an empty version is not sent.
    async fn rpc(&self, agent: &str, version: &str, method: &str, params: Value) -> Value {
        let request = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
        let mut asked = self.to(&format!("/a2a/{agent}")).json(&request);
        if !version.is_empty() {
            asked = asked.header("A2A-Version", version);
        }
        let answer: Value = asked.send().await.unwrap().json().await.unwrap();
        assert!(answer["id"] == 7 && answer["jsonrpc"] == "2.0", "{answer}");
        answer
    }

    /// The events of a stream, to its end.
    async fn stream(&self, path: &str, version: &str, body: &Value) -> Vec<Value> {
        let asked = self.to(path).header("A2A-Version", version).json(body);
        let text = asked.send().await.unwrap().text().await.unwrap();
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(|event| serde_json::from_str(event).unwrap()).collect()
    }
}

fn sites() -> Vec<aop::agents::HostedAgent> {
    vec![
        echo("echo"),
        hosted(json!({"name": "fail", "description": "fails"}), Builtin::Fail),
        hosted(json!({"name": "sleep", "description": "sleeps", "max_retries": 0}), Builtin::Sleep),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_answers_in_both_versions_and_its_tasks_are_found_again() {
    let site = Site::start(31, Setup { agents: sites(), ..Setup::default() }).await;
    for agent in ["echo", "fail", "sleep"] {
        site.hears_of(agent).await;
    }
    let (status, card) = site.get("/a2a/echo/.well-known/agent-card.json").await;
    assert_eq!((status, &card["name"]), (200, &json!("echo")));
    assert_eq!(card["url"], format!("{}/a2a/echo@.", site.base));
    assert_eq!(card["securitySchemes"]["bearer"]["type"], "http", "this node asks for its token: {card}");

    let answer = site.rpc("echo", "1.0", "SendMessage", message("hello")).await;
    let task = answer["result"]["task"].clone();
    assert_eq!(task["status"]["state"], "TASK_STATE_COMPLETED", "{answer}");
    assert_eq!(task["artifacts"][0]["parts"], json!([{"text": "hello"}]));
    assert_eq!(task["history"][0]["messageId"], "m1");
    let again = site.rpc("echo", "1.0", "GetTask", json!({"id": task["id"]})).await;
    assert_eq!(again["result"], task);
    let bare = site.rpc("echo", "1.0", "GetTask", json!({"id": task["id"], "historyLength": 0})).await;
    assert_eq!(bare["result"].get("history"), None);
    // The same task, as the node knows it and as a client of the version before sees it.
    let (_, known) = site.get(&format!("/v1/tasks/{}", task["id"].as_str().unwrap())).await;
    assert_eq!((&known["status"], &known["conversation"]), (&json!("completed"), &task["contextId"]));
    let old = site.rpc("echo", "", "tasks/get", json!({"id": task["id"]})).await["result"].clone();
    assert_eq!((&old["kind"], &old["status"]["state"]), (&json!("task"), &json!("completed")));
    assert_eq!(old["artifacts"][0]["parts"], json!([{"kind": "text", "text": "hello"}]));

    let old = json!({"message": {"kind": "message", "messageId": "m2", "role": "user", "contextId": "ours",
                                 "parts": [{"kind": "data", "data": {"task": "again"}}]}});
    let old = site.rpc("echo", "", "message/send", old).await["result"].clone();
    assert_eq!((&old["contextId"], &old["status"]["state"]), (&json!("ours"), &json!("completed")), "{old}");
    let listed = site.rpc("echo", "1.0", "ListTasks", json!({"contextId": "ours"})).await["result"].clone();
    assert_eq!((&listed["totalSize"], &listed["tasks"][0]["id"]), (&json!(1), &old["id"]));
    assert_eq!(listed["tasks"][0].get("artifacts"), None);
    let page = site.rpc("echo", "1.0", "ListTasks", json!({"pageSize": 1})).await["result"].clone();
    let (_, next) = site
        .get(&format!("/a2a/echo/tasks?pageSize=1&pageToken={}", page["nextPageToken"].as_str().unwrap()))
        .await;
    assert_eq!((&next["tasks"][0]["id"], &next["nextPageToken"]), (&task["id"], &json!("")), "{page} {next}");
    let others = site.rpc("fail", "1.0", "ListTasks", json!({})).await;
    assert_eq!(others["result"]["totalSize"], 0, "tasks of one agent are not another's");

    let failed = site.rpc("fail", "1.0", "SendMessage", message("x")).await["result"]["task"].clone();
    assert_eq!((&failed["status"]["state"], failed.get("artifacts")), (&json!("TASK_STATE_FAILED"), None));
    let why = failed["status"]["message"]["parts"][0]["text"].as_str().unwrap();
    assert!(why.starts_with("agent_failed: "), "{why}");

    let detached =
        json!({"message": message("60000")["message"], "configuration": {"returnImmediately": true}});
    let begun = site.rpc("sleep", "1.0", "SendMessage", detached).await["result"]["task"].clone();
    assert!(
        ["TASK_STATE_SUBMITTED", "TASK_STATE_WORKING"].contains(&begun["status"]["state"].as_str().unwrap())
    );
    let ended = site.rpc("sleep", "1.0", "CancelTask", json!({"id": begun["id"]})).await;
    assert_eq!(ended["result"]["status"]["state"], "TASK_STATE_CANCELED", "{ended}");
    let twice = site.rpc("sleep", "1.0", "CancelTask", json!({"id": begun["id"]})).await;
    assert_eq!(twice["error"]["code"], -32002);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_tells_of_a_task_to_its_end_and_the_http_binding_says_the_same() {
    let site = Site::start(32, Setup { agents: sites(), ..Setup::default() }).await;
    for agent in ["echo", "sleep"] {
        site.hears_of(agent).await;
    }
    let kinds = |events: &[Value]| -> Vec<String> {
        let first = |event: &Value| event.as_object().unwrap().keys().next().unwrap().clone();
        events.iter().map(|event| event.get("result").map_or_else(|| first(event), first)).collect()
    };
    let request =
        json!({"jsonrpc": "2.0", "id": "a", "method": "SendStreamingMessage", "params": message("hi")});
    let events = site.stream("/a2a/echo/", "1.0", &request).await;
    let told = kinds(&events);
    assert!(
        told[0] == "task" && told.ends_with(&["artifactUpdate".into(), "statusUpdate".into()]),
        "{events:?}"
    );
    let last = &events.last().unwrap()["result"]["statusUpdate"];
    assert_eq!(last["status"]["state"], "TASK_STATE_COMPLETED");
    let task = site.rpc("echo", "1.0", "GetTask", json!({"id": last["taskId"]})).await;
    assert_eq!(task["result"]["artifacts"][0]["parts"], json!([{"text": "hi"}]), "{task}");

    let old = json!({"kind": "message", "messageId": "m", "role": "user", "parts": [{"kind": "text", "text": "20"}]});
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": "message/stream", "params": {"message": old}});
    let events = site.stream("/a2a/sleep", "0.3", &request).await;
    let last = &events.last().unwrap()["result"];
    assert_eq!((&last["kind"], &last["final"]), (&json!("status-update"), &json!(true)), "{events:?}");
    assert!(events.iter().all(|event| event["result"]["kind"].is_string()));

    let events = site.stream("/a2a/sleep/message:stream", "1.0", &message("20")).await;
    assert!(kinds(&events).ends_with(&["artifactUpdate".into(), "statusUpdate".into()]), "{events:?}");
    let sent = site.to("/a2a/echo/message:send").header("content-type", "application/a2a+json");
    let sent = sent.body(message("rest").to_string()).send().await.unwrap();
    assert_eq!(sent.headers()["content-type"], "application/a2a+json");
    let task = sent.json::<Value>().await.unwrap()["task"].clone();
    assert_eq!(
        site.get(&format!("/a2a/echo/tasks/{}", task["id"].as_str().unwrap())).await,
        (200, task.clone())
    );
    let cancel = format!("/a2a/echo/tasks/{}:cancel", task["id"].as_str().unwrap());
    let (status, refused) = site.post(&cancel, &json!({})).await;
    assert_eq!((status, &refused["error"]["status"]), (400, &json!("FAILED_PRECONDITION")), "{refused}");
    let follow = format!("/a2a/echo/tasks/{}:subscribe", task["id"].as_str().unwrap());
    assert_eq!(site.post(&follow, &json!({})).await.0, 400, "nothing follows");

    // Whoever comes later follows a task to its end, too.
    let detached =
        json!({"message": message("700")["message"], "configuration": {"returnImmediately": true}});
    let id = site.rpc("sleep", "1.0", "SendMessage", detached).await["result"]["task"]["id"].clone();
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": "SubscribeToTask", "params": {"id": id}});
    let events = site.stream("/a2a/sleep", "1.0", &request).await;
    assert_eq!(
        events.last().unwrap()["result"]["statusUpdate"]["status"]["state"],
        "TASK_STATE_COMPLETED",
        "{events:?}"
    );
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_sends_wrong_is_told_by_the_codes_of_the_standard() {
    let site = Site::start(33, Setup { agents: sites(), ..Setup::default() }).await;
    site.hears_of("echo").await;
    let code = async |version: &str, method: &str, params: Value| {
        site.rpc("echo", version, method, params).await["error"]["code"].as_i64().unwrap()
    };
    let file = json!({"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"url": "https://a.example/b"}]}});
    let taken = json!({"message": {"messageId": "m", "role": "ROLE_USER", "taskId": "none", "parts": [{"text": "a"}]}});
    let context = json!({"message": {"messageId": "m", "role": "ROLE_USER", "contextId": "a b", "parts": [{"text": "a"}]}});
    for (version, method, params, expected) in [
        ("1.0", "SendMessage", json!({}), -32602),
        ("1.0", "SendMessage", file, -32005),
        ("1.0", "SendMessage", taken, -32001),
        ("1.0", "SendMessage", context, -32602),
        ("9.9", "SendMessage", message("x"), -32009),
        ("", "SendMessage", message("x"), -32009),
        ("1.0", "message/send", message("x"), -32601),
        ("1.0", "Nope", json!({}), -32601),
        ("1.0", "GetTask", json!({"id": "none"}), -32001),
        ("0.3", "tasks/get", json!({"id": "none"}), -32001),
        ("1.0", "CreateTaskPushNotificationConfig", json!({}), -32003),
        ("0.3", "tasks/pushNotificationConfig/set", json!({}), -32003),
        ("1.0", "GetExtendedAgentCard", json!({}), -32004),
        ("0.3", "agent/getAuthenticatedExtendedCard", json!({}), -32007),
        ("1.0", "SubscribeToTask", json!({"id": "none"}), -32001),
    ] {
        assert_eq!(code(version, method, params).await, expected, "{version} {method}");
    }
    let sent = async |body: &'static str, kind: &str| {
        let asked = site.to("/a2a/echo").header("content-type", kind).body(body);
        asked.send().await.unwrap().json::<Value>().await.unwrap()["error"]["code"].clone()
    };
    assert_eq!(sent("{", "application/json").await, -32700);
    assert_eq!(sent("[]", "application/json").await, -32600);
    assert_eq!(sent("hello", "text/plain").await, -32005);
    for (path, status) in [
        ("/a2a/nobody/.well-known/agent-card.json", 404),
        ("/a2a/echo/tasks/none", 404),
        ("/a2a/echo/tasks?pageSize=1000", 400),
        ("/a2a/echo/extendedAgentCard", 400),
    ] {
        let (given, refused) = site.get(path).await;
        assert!(given == status && refused["error"]["message"].is_string(), "{path}: {given} {refused}");
    }
    let without_token = site.ask("/a2a/echo/.well-known/agent-card.json", &[]).await;
    assert_eq!(without_token.0, 401);
    let listing = json!({"name": "x", "description": "d", "version": "1", "url": "https://a.example", "skills": [],
                         "capabilities": {}, "defaultInputModes": [], "defaultOutputModes": []});
    let registered = site.register(&listing).await.registered;
    let path = format!("/a2a/{}/.well-known/agent-card.json", registered[0].id);
    let (status, refused) = site.get(&path).await;
    assert_eq!(status, 409, "{refused}");
    assert!(refused.to_string().contains("listing"), "{refused}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_of_another_node_is_an_a2a_server_here_too() {
    let far = Site::start(34, Setup { agents: sites(), ..Setup::default() }).await;
    let here = Site::start(35, Setup { bootstrap: vec![far.address()], ..Setup::default() }).await;
    here.hears_of("echo").await;
    let (_, card) = here.get("/a2a/echo/.well-known/agent-card.json").await;
    // By its id, which nobody else can have.
    let path = card["url"].as_str().unwrap().strip_prefix(&here.base).unwrap().to_owned();
    assert_eq!(path.len(), "/a2a/".len() + 32, "{path}");
    let agent = path.strip_prefix("/a2a/").unwrap();
    let answer = here.rpc(agent, "1.0", "SendMessage", message("far")).await;
    assert_eq!(answer["result"]["task"]["artifacts"][0]["parts"], json!([{"text": "far"}]), "{answer}");
    assert!(!card.to_string().contains(TOKEN));

    // An agent of the mesh that is an A2A agent elsewhere, here the one of the other node, gives what that one gives.
    let card = format!("{}/a2a/echo@./.well-known/agent-card.json", far.base);
    let headers = [("Authorization".to_owned(), GivenValue::Literal(format!("Bearer {TOKEN}")))].into();
    let through = Runner::A2a(Endpoint { url: card, headers });
    let mut agent = echo("through");
    agent.run_config = Some(RunConfig::new(through, std::path::Path::new(".")));
    here.node.handle.local_agents().replace(vec![agent]);
    far.hears_of("through").await;
    for input in [json!({"task": "there and back"}), json!({"task": "x", "img": "https://a.example/b.png"})] {
        let (_, called) = far.post("/v1/call/through@.", &input).await;
        assert_eq!((&called["success"], &called["result"]), (&json!(true), &input["task"]), "{called}");
    }
    here.stop().await;
    far.stop().await;
}
