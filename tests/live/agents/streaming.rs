//! Output that is passed on before the work ends.

use std::sync::Arc;

use aop::agents::{Agents, Invocation};
use aop::proto::call::{CallFailure, CallId, Outcome, Report};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::folder::Folder;
use super::server::Server;
use super::{PATIENCE, ended};

/// A call whose caller wants output as it comes, with so much room for it.
pub(super) async fn streamed(
    agents: &Agents,
    name: &str,
    room: usize,
) -> (Result<Value, CallFailure>, Vec<String>) {
    let (reports, mut told) = mpsc::channel(room);
    let invocation = Invocation {
        reports: Some(reports),
        stream: true,
        ..Invocation::new(CallId([7; 16]), json!({"task": "x"}), Instant::now() + PATIENCE)
    };
    let answer = agents.call(&format!("{name}@.").parse().unwrap(), invocation).await;
    let mut pieces = Vec::new();
    while let Ok(report) = told.try_recv() {
        if let Report::Partial(text) = report {
            pieces.push(text);
        }
    }
    (answer, pieces)
}

#[tokio::test]
async fn what_a_program_prints_is_passed_on_while_it_works() {
    let folder = Folder::new();
    folder.agent(
        "steps",
        "command = [\"sh\", \"-c\", \"echo one; until [ -e go ]; do sleep 0.01; done; echo two\"]",
    );
    let agents = folder.agents();
    let (reports, mut told) = mpsc::channel(8);
    let invocation = Invocation {
        reports: Some(reports),
        stream: true,
        ..Invocation::new(CallId([7; 16]), json!({"task": "x"}), Instant::now() + PATIENCE)
    };
    let calling = {
        let agents = agents.clone();
        tokio::spawn(async move { agents.call(&"steps@.".parse().unwrap(), invocation).await })
    };
    assert_eq!(timeout(PATIENCE, told.recv()).await.unwrap(), Some(Report::Partial("one\n".into())));
    assert!(!calling.is_finished(), "it goes on after it was asked to");
    std::fs::write(folder.path().join("go"), "").unwrap();
    assert_eq!(timeout(PATIENCE, told.recv()).await.unwrap(), Some(Report::Partial("two\n".into())));
    assert_eq!(calling.await.unwrap().unwrap(), "one\ntwo");
}

#[tokio::test]
async fn a_character_that_comes_in_two_halves_is_whole_and_a_document_is_not_streamed() {
    let folder = Folder::new();
    folder.agent(
        "euro",
        "command = [\"sh\", \"-c\", \"printf '5\\\\342\\\\202'; sleep 0.2; printf '\\\\254 net'\"]",
    );
    folder.agent("paper", r#"command = ["echo", '{"result": 1, "success": true}']"#);
    let agents = folder.agents();
    let (answer, pieces) = streamed(&agents, "euro", 8).await;
    assert_eq!((answer.unwrap(), pieces.concat()), (json!("5€ net"), "5€ net".to_owned()));
    let (answer, pieces) = streamed(&agents, "paper", 8).await;
    assert_eq!((answer.unwrap(), pieces), (json!(1), Vec::new()));
}

#[tokio::test]
async fn a_reader_that_does_not_read_delays_no_program() {
    let folder = Folder::new();
    folder.agent("many", "command = [\"sh\", \"-c\", \"seq 100000\"]");
    let (answer, pieces) = streamed(&folder.agents(), "many", 1).await;
    let answer = answer.unwrap();
    let answer = answer.as_str().unwrap();
    assert!(answer.ends_with("\n100000"), "the result is whole");
    assert_eq!(pieces.len(), 1);
    assert!(answer.starts_with(pieces[0].as_str()));
}

/// Events with these pieces of text, as model servers send them.
fn events(pieces: &[&str], end: &str) -> String {
    let event = |piece: &&str| format!("data: {}\n\n", json!({"choices": [{"delta": {"content": piece}}]}));
    format!("event-stream:{}{end}", pieces.iter().map(event).collect::<String>())
}

#[tokio::test]
async fn a_models_server_that_streams_is_understood_and_asked_to_where_the_caller_wants_it() {
    let asked: Arc<std::sync::Mutex<Vec<Value>>> = Arc::default();
    let seen = asked.clone();
    let server = Server::start(move |request| {
        seen.lock().unwrap().push(serde_json::from_str(&request.body).unwrap());
        let body = match request.path.as_str() {
            "/whole/chat/completions" => events(&["Well ", "dönе"], "data: [DONE]\n\n"),
            "/broken/chat/completions" => events(&["Well "], ""),
            "/failing/chat/completions" => {
                events(&["Well "], "data: {\"error\": {\"message\": \"no ink in key-of-mine\"}}\n\n")
            }
            _ => json!({"choices": [{"message": {"content": "at once"}}]}).to_string(),
        };
        (200, body)
    })
    .await;
    let folder = Folder::new();
    for agent in ["whole", "broken", "failing", "plain"] {
        let base = format!("base_url = \"{}/{agent}\", model = \"m\"", server.url());
        folder.agent(agent, &format!("chat = {{ {base} }}"));
    }
    let agents = folder.agents();
    let unasked = super::call(&agents, "whole", json!({"task": "x"})).await.unwrap();
    assert_eq!(unasked, "Well dönе");
    let (answer, pieces) = streamed(&agents, "whole", 8).await;
    assert_eq!((answer.unwrap(), pieces.concat()), (json!("Well dönе"), "Well dönе".to_owned()));
    let wants: Vec<_> = asked.lock().unwrap().iter().map(|body| body["stream"].clone()).collect();
    assert_eq!(wants, [Value::Null, json!(true)]);
    let (answer, pieces) = streamed(&agents, "plain", 8).await;
    assert_eq!((answer.unwrap(), pieces), (json!("at once"), Vec::new()), "it need not stream");
    for agent in ["broken", "failing"] {
        let (answer, pieces) = streamed(&agents, agent, 8).await;
        let failure = answer.unwrap_err();
        assert_eq!(ended(&failure), ("upstream_failed", Outcome::Unknown), "{agent}");
        assert!(!failure.message.contains("ink"), "{failure}");
        assert_eq!(pieces.concat(), "Well ");
    }
}
