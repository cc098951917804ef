//! Agents behind A2A servers, called from another node: both versions, every end of a task, and servers that do it wrong.

use std::sync::atomic::{AtomicUsize, Ordering};

use aop::agents::CALL_BYTES_MAX;
use aop::proto::call::Outcome;
use serde_json::{Value, json};

use super::folder::{Folder, until};
use super::node::Node;
use super::server::{Request, Server};
use super::streaming::streamed;
use super::{PATIENCE, call, ended, invocation};

/// A small A2A server. The first part of a path says how it serves, the text of a message what becomes of it.
async fn serve() -> Server {
    let questions = AtomicUsize::new(0);
    Server::start(move |request| {
        let (_, how) = request.path.split_at(1);
        let (how, rest) = how.split_once('/').unwrap_or((how, ""));
        if request.method == "GET" && !rest.starts_with("tasks") {
            return card(how, rest, request);
        }
        match how {
            "html" => (200, "<html>Welcome</html>".into()),
            "busy" => (429, "retry-after: 7".into()),
            "moved" => (302, "http://127.0.0.1:9/".into()),
            "broken" => (500, "no ink".into()),
            "denied" => (401, json!({"error": {"code": 401, "message": "the key is old"}}).to_string()),
            "large" => (200, "x".repeat(CALL_BYTES_MAX + 1)),
            "rest" => rest_answer(rest, request),
            _ => rpc_answer(how, request, &questions),
        }
    })
    .await
}

fn card(how: &str, rest: &str, request: &Request) -> (u16, String) {
    let base = format!("http://{}/{how}", request.headers["host"]);
    let interface = |url: &str, binding, version| {
        let one = json!({"url": url, "protocolBinding": binding, "protocolVersion": version});
        (200, json!({"name": how, "supportedInterfaces": [one]}).to_string())
    };
    match (how, rest) {
        ("page", _) => (200, "<html>Welcome</html>".into()),
        // Of these the own address is named, and the card lies at a known path.
        ("below", "") => (200, "<html>Welcome</html>".into()),
        ("below", ".well-known/agent-card.json") => interface(&base, "JSONRPC", "1.0"),
        (_, rest) if rest != "card.json" => (404, "no such page".into()),
        ("old" | "mute", _) => {
            (200, json!({"name": how, "url": base, "protocolVersion": "0.3.0"}).to_string())
        }
        ("rest", _) => interface(&base, "HTTP+JSON", "1.0"),
        ("private", _) => interface("http://192.168.7.7/rpc", "JSONRPC", "1.0"),
        ("streams" | "tears", _) => {
            let one = json!({"url": base, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"});
            let card =
                json!({"name": how, "capabilities": {"streaming": true}, "supportedInterfaces": [one]});
            (200, card.to_string())
        }
        // It names itself as servers that listen on every address do.
        _ => interface(&base.replace("127.0.0.1", "0.0.0.0"), "JSONRPC", "1.0"),
    }
}

/// A task that writes `Hello` in two pieces; the stream of one that tears ends before its task.
fn stream(how: &str) -> (u16, String) {
    let ids = |mut event: Value| {
        event["taskId"] = json!("slow");
        event
    };
    let piece = |text: &str, append: bool| {
        let artifact = json!({"artifactId": "a", "parts": [{"text": text}]});
        json!({"artifactUpdate": ids(json!({"artifact": artifact, "append": append}))})
    };
    let done = json!({"statusUpdate": ids(json!({"status": {"state": "TASK_STATE_COMPLETED"}}))});
    let mut begun = task(false, "working", &json!({"text": "soon"}));
    begun["id"] = json!("slow");
    let events = [json!({"task": begun}), piece("Hel", false), piece("lo", true), done];
    let events = &events[..if how == "tears" { 2 } else { 4 }];
    let lines = events.iter().map(|event| format!("data: {}\r\n\r\n", json!({"id": 1, "result": event})));
    (200, format!("event-stream:{}", lines.collect::<String>()))
}

fn rpc_answer(how: &str, request: &Request, questions: &AtomicUsize) -> (u16, String) {
    let body: Value = serde_json::from_str(&request.body).unwrap();
    if body["method"] == "SendStreamingMessage" {
        assert_eq!(request.headers["accept"], "text/event-stream");
        return stream(how);
    }
    let is_old = body["method"].as_str().unwrap().contains('/');
    let refused = |code: i64, message: &str| json!({"error": {"code": code, "message": message}});
    let answer = match (how, is_old) {
        // The card of this one says 1.0, of that one nothing that it speaks.
        ("wrong", false) => refused(-32_601, "Method not found"),
        ("mute", true) => refused(-32_601, "Method not found"),
        ("mute", false) => refused(-32_009, "Version not supported"),
        _ => match body["method"].as_str().unwrap() {
            "GetTask" | "tasks/get" => {
                let ends =
                    body["params"]["id"] == "slow" && questions.fetch_add(1, Ordering::Relaxed) % 3 == 2;
                json!({"result": task(is_old, if ends { "completed" } else { "working" }, &json!({"text": "late"}))})
            }
            "CancelTask" | "tasks/cancel" => refused(-32_002, "not cancelable"),
            _ => {
                let message = &body["params"]["message"];
                assert_eq!(message["role"], if is_old { "user" } else { "ROLE_USER" }, "{body}");
                assert_eq!(message["messageId"].as_str().map(str::len), Some(32), "{body}");
                json!({"result": sent(is_old, message)})
            }
        },
    };
    let mut answer = answer;
    answer["jsonrpc"] = json!("2.0");
    answer["id"] = body["id"].clone();
    (200, answer.to_string())
}

fn rest_answer(rest: &str, request: &Request) -> (u16, String) {
    match (request.method.as_str(), rest) {
        ("POST", "message:send") => {
            let body: Value = serde_json::from_str(&request.body).unwrap();
            let text = &body["message"]["parts"][0]["text"];
            let state = if text == "slow" { "working" } else { "failed" };
            (200, json!({"task": task(false, state, &json!({"text": text}))}).to_string())
        }
        ("GET", "tasks/a%20task%2F?historyLength=0") => {
            (200, task(false, "completed", &json!({"text": "by path"})).to_string())
        }
        _ => (404, json!({"error": {"code": 404, "message": "Task not found"}}).to_string()),
    }
}

/// What becomes of a message.
fn sent(is_old: bool, message: &Value) -> Value {
    let part = &message["parts"][0];
    let wrapped = |task: Value| if is_old { task } else { json!({"task": task}) };
    match part["text"].as_str() {
        Some("say it") => {
            let said =
                json!({"messageId": "m", "role": "agent", "parts": [{"kind": "text", "text": "said"}]});
            match is_old {
                true => json!({"kind": "message", "messageId": "m", "role": "agent", "parts": said["parts"]}),
                false => json!({"message": said}),
            }
        }
        Some("refuse") => json!({"surprise": 1}),
        Some(
            state @ ("failed" | "rejected" | "canceled" | "input-required" | "auth-required" | "working"),
        ) => wrapped(task(is_old, state, &json!({"text": "which city?"}))),
        Some("slow") => {
            let mut slow = task(is_old, "submitted", &json!({"text": "soon"}));
            slow["id"] = json!("slow");
            wrapped(slow)
        }
        // Everything else comes back as it is, with the conversation.
        _ => {
            let part = match (is_old, part.get("data")) {
                (true, Some(data)) => json!({"kind": "data", "data": {"result": data}}),
                _ => part.clone(),
            };
            let mut task = task(is_old, "completed", &part);
            task["contextId"] = message["contextId"].clone();
            wrapped(task)
        }
    }
}

/// A task whose status says `part`, and that made it where it is completed.
fn task(is_old: bool, state: &str, part: &Value) -> Value {
    let word = match is_old {
        true => state.to_owned(),
        false => format!("TASK_STATE_{}", state.to_uppercase().replace('-', "_")),
    };
    let message = json!({"kind": "message", "messageId": "m", "role": "agent", "parts": [part]});
    let mut task = json!({"id": "a task/", "contextId": "c", "status": {"state": word, "message": message}});
    if is_old {
        task["kind"] = json!("task");
    }
    if state == "completed" {
        task["artifacts"] = json!([{"artifactId": "a", "parts": [part]}]);
    }
    task
}

/// An agent of this name for each way of serving.
fn agents(folder: &Folder, server: &Server, settings: &str, hows: &[&str]) {
    for how in hows {
        let card = match *how {
            "below" => format!("{}/below", server.url()),
            _ => format!("{}/{how}/card.json", server.url()),
        };
        folder.agent_with(how, settings, &format!("a2a = {{ card = \"{card}\" }}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_of_both_versions_are_called_from_another_node() {
    let (server, folder) = (serve().await, Folder::new());
    let anything = "max_retries = 0\ninput_schema = { type = \"object\" }";
    agents(&folder, &server, anything, &["new", "old", "below", "wrong"]);
    let host = Node::start(&[folder.path()], None);
    let other = Node::start(&[], Some(&host));
    for agent in ["new", "old", "below", "wrong"] {
        let name = format!("{agent}@.");
        other.until(&name, "/callable", &json!(true));
        let call = |input: Value| other.post(&format!("/v1/call/{name}"), &input);
        let text = call(json!({"task": "hello", "img": null}));
        assert_eq!((&text["result"], &text["success"]), (&json!("hello"), &json!(true)), "{agent}: {text}");
        assert_eq!(text["served_by"], host.ready.peer_id);
        let document = json!({"task": "hello", "size": [1, {"of": null}]});
        assert_eq!(call(document.clone())["result"], document, "{agent}");
        assert_eq!(call(json!({"task": "say it"}))["result"], "said", "{agent}");
        assert_eq!(call(json!({"task": "slow"}))["result"], "late", "{agent}");
        for state in ["failed", "rejected", "canceled"] {
            let answer = call(json!({"task": state}));
            assert_eq!(
                (&answer["error"]["code"], &answer["outcome"]),
                (&json!("agent_failed"), &json!("done"))
            );
            assert_eq!(answer["error"]["message"], format!("the task is {state}: which city?"), "{agent}");
        }
        for state in ["input-required", "auth-required"] {
            let answer = call(json!({"task": state}));
            assert_eq!(
                (&answer["error"]["code"], &answer["success"]),
                (&json!("needs_input"), &json!(false))
            );
            let message = answer["error"]["message"].as_str().unwrap();
            assert_eq!(message, "the agent asks: which city? (task a task/, context c)", "{agent}");
        }
    }
    let of = |path: &str, method: &str| {
        server
            .requests()
            .iter()
            .filter(|it| it.path == path && it.body.contains(&format!("\"{method}\"")))
            .count()
    };
    // The version that works is kept, so the other was asked once.
    assert_eq!((of("/wrong", "SendMessage"), of("/new", "message/send")), (1, 0));
    let cards = server.requests().iter().filter(|it| it.path == "/new/card.json").count();
    assert_eq!(cards, 1, "a card is kept");
    let asked = server.requests().into_iter().find(|it| it.path == "/new" && it.method == "POST").unwrap();
    assert_eq!(asked.headers["a2a-version"], "1.0");
    assert!(!asked.headers.contains_key("aop-caller"), "{asked:?}");
    assert!(asked.body.contains("\"returnImmediately\":true"), "{}", asked.body);
}

#[tokio::test]
async fn servers_that_do_it_wrong_fail_their_call_alone_and_in_words_of_this_host() {
    let (server, folder) = (serve().await, Folder::new());
    let hows =
        ["html", "busy", "moved", "broken", "denied", "large", "page", "private", "mute", "gone", "new"];
    agents(&folder, &server, "", &hows[..9]);
    agents(&folder, &server, "", &hows[10..]);
    folder.agent("gone", "a2a = { card = \"http://127.0.0.1:9/card.json\" }");
    let agents = folder.agents();
    for (agent, code, outcome, told) in [
        ("html", "bad_output", Outcome::Unknown, "no answer of A2A"),
        ("busy", "busy", Outcome::NotStarted, "in 7 s"),
        ("moved", "upstream_failed", Outcome::Done, "elsewhere"),
        ("broken", "upstream_failed", Outcome::Done, "answered 500"),
        ("denied", "upstream_failed", Outcome::Done, "answered 401"),
        ("large", "too_large", Outcome::Done, "answer with less"),
        ("page", "start_failed", Outcome::NotStarted, "card cannot be read"),
        ("private", "start_failed", Outcome::NotStarted, "card cannot be read"),
        ("mute", "start_failed", Outcome::NotStarted, "cannot be asked"),
        ("gone", "start_failed", Outcome::NotStarted, "cannot be reached"),
    ] {
        let failure = call(&agents, agent, json!({"task": "x"})).await.unwrap_err();
        assert_eq!(ended(&failure), (code, outcome), "{agent}: {failure}");
        assert!(failure.message.contains(told), "{agent}: {failure}");
        for secret in ["127.0.0.1", "192.168", "no ink", "old", "Welcome"] {
            assert!(!failure.message.contains(secret), "{agent} tells {secret}: {failure}");
        }
    }
    let wait = call(&agents, "busy", json!({"task": "x"})).await.unwrap_err().retry_after_ms;
    assert_eq!(wait, Some(7_000));
    let failure = call(&agents, "new", json!({"task": "refuse"})).await.unwrap_err();
    assert_eq!(ended(&failure), ("bad_output", Outcome::Unknown));
    // What failed on the way has its card fetched again.
    assert_eq!(call(&agents, "new", json!({"task": "x"})).await.unwrap(), "x");
    let cards = server.requests().iter().filter(|it| it.path == "/new/card.json").count();
    assert_eq!(cards, 2);
}

#[tokio::test]
async fn a_task_that_nobody_waits_for_is_taken_back() {
    let (server, folder) = (serve().await, Folder::new());
    agents(&folder, &server, "timeout_s = 1", &["new", "old"]);
    let agents = folder.agents();
    let is_asked = |method: &str| {
        let asked = format!("\"{method}\"");
        server.requests().iter().any(|it| it.body.contains(&asked) && it.body.contains("\"a task/\""))
    };
    let failure = call(&agents, "old", json!({"task": "working"})).await.unwrap_err();
    assert_eq!(ended(&failure), ("deadline", Outcome::Unknown));
    let name = "new@.".parse().unwrap();
    let working = agents.call(&name, invocation(json!({"task": "working"}), PATIENCE));
    tokio::select! {
        done = working => panic!("{done:?}"),
        () = until(|| is_asked("GetTask")) => {}
    }
    until(|| is_asked("tasks/cancel") && is_asked("CancelTask")).await;
}

#[tokio::test]
async fn an_agent_of_http_and_json_is_asked_by_paths() {
    let (server, folder) = (serve().await, Folder::new());
    agents(&folder, &server, "", &["rest"]);
    let agents = folder.agents();
    assert_eq!(call(&agents, "rest", json!({"task": "slow"})).await.unwrap(), "by path");
    let failure = call(&agents, "rest", json!({"task": "x"})).await.unwrap_err();
    assert_eq!(ended(&failure), ("agent_failed", Outcome::Done));
}

#[tokio::test]
async fn the_text_of_a_task_is_passed_on_as_it_is_streamed_and_a_torn_stream_loses_no_task() {
    let (server, folder) = (serve().await, Folder::new());
    agents(&folder, &server, "", &["streams", "tears", "new"]);
    let agents = folder.agents();
    for (agent, result, told) in [("streams", "Hello", "Hello"), ("tears", "late", "Hel"), ("new", "x", "")] {
        let (answer, pieces) = streamed(&agents, agent, 8).await;
        assert_eq!((answer.unwrap(), pieces.concat().as_str()), (json!(result), told), "{agent}");
    }
    assert_eq!(
        call(&agents, "streams", json!({"task": "x"})).await.unwrap(),
        "x",
        "unasked it does not stream"
    );
}
