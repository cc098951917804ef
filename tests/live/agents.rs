//! Local agents with real processes, real HTTP servers and real folders: what a call may do, and what ends it.

mod a2a;
mod context;
mod folder;
mod limits;
mod node;
mod reload;
mod secrets;
mod server;
mod streaming;
mod tools;

use std::time::Duration;

use aop::agents::{AgentState, Agents, CALL_BYTES_MAX, Invocation};
use aop::proto::call::{CallFailure, CallId, Outcome};
use folder::{Folder, lives, until};
use serde_json::{Value, json};
use server::Server;
use tokio::time::{Instant, timeout};

const PATIENCE: Duration = Duration::from_secs(20);

fn invocation(input: Value, limit: Duration) -> Invocation {
    Invocation::new(CallId([7; 16]), input, Instant::now() + limit)
}

async fn call(agents: &Agents, name: &str, input: Value) -> Result<Value, CallFailure> {
    agents.call(&format!("{name}@.").parse().unwrap(), invocation(input, PATIENCE)).await
}

fn ended(failure: &CallFailure) -> (&str, Outcome) {
    (failure.code.text(), failure.outcome)
}

#[tokio::test]
async fn a_program_gets_json_and_answers_with_json_or_text() {
    let folder = Folder::new();
    folder.agent("cat", "command = [\"cat\"]");
    folder.agent("words", "command = [\"sh\", \"-c\", \"cat > /dev/null; echo two words; echo noise >&2\"]");
    folder.agent("here", "command = [\"./run.sh\", \"an argument\"]");
    folder.program("run.sh", "echo \"$1 in $(pwd)\"");
    let agents = folder.agents();
    let input = json!({"task": "x", "n": [1, 2.5, null]});
    assert_eq!(call(&agents, "cat", input.clone()).await.unwrap(), input);
    assert_eq!(call(&agents, "words", input.clone()).await.unwrap(), "two words");
    let here = folder.path().canonicalize().unwrap();
    assert_eq!(call(&agents, "here", input).await.unwrap(), format!("an argument in {}", here.display()));
}

#[tokio::test]
async fn a_program_does_not_see_the_secrets_of_the_node() {
    let folder = Folder::new();
    folder.agent("env", "command = [\"env\"]");
    let seen = call(&folder.agents(), "env", json!({"task": ""})).await.unwrap();
    let seen = seen.as_str().unwrap();
    assert!(seen.contains("PATH="), "{seen}");
    // Cargo sets this one for the test, as an operator sets AOP_TOKEN for the node.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some() && !seen.contains("CARGO_"), "{seen}");
}

#[tokio::test]
async fn input_that_does_not_fit_the_schema_starts_nothing() {
    let folder = Folder::new();
    folder.agent_with(
        "typed",
        "input_schema = { type = \"object\", properties = { n = { type = \"integer\" } }, required = [\"n\"] }",
        "command = [\"sh\", \"-c\", \"touch ran; cat\"]",
    );
    folder.agent("plain", "command = [\"sh\", \"-c\", \"touch ran; cat\"]");
    let agents = folder.agents();
    let failure = call(&agents, "typed", json!({"n": "7"})).await.unwrap_err();
    assert_eq!(ended(&failure), ("bad_input", Outcome::NotStarted));
    assert!(failure.message.contains("`/n`") && failure.message.contains("integer"), "{failure}");
    let failure = call(&agents, "plain", json!({"img": "x"})).await.unwrap_err();
    assert!(failure.message.contains("\"task\" is a required property"), "{failure}");
    assert!(!folder.path().join("ran").exists());
    assert_eq!(call(&agents, "typed", json!({"n": 7})).await.unwrap(), json!({"n": 7}));
    assert!(folder.path().join("ran").exists(), "the same agent runs when the input fits");
}

#[tokio::test]
async fn output_that_does_not_fit_the_schema_is_a_failure_of_the_agent() {
    let folder = Folder::new();
    folder.agent_with("typed", "output_schema = { type = \"integer\" }", "command = [\"echo\", \"no\"]");
    let failure = call(&folder.agents(), "typed", json!({"task": ""})).await.unwrap_err();
    assert_eq!(ended(&failure), ("bad_output", Outcome::Done));
}

#[tokio::test]
async fn a_crash_is_told_with_its_exit_code_and_changes_the_state_until_a_success() {
    let folder = Folder::new();
    folder.agent("crash", "command = [\"sh\", \"-c\", \"if [ -e well ]; then cat; else exit 42; fi\"]");
    folder.agent("killed", "command = [\"sh\", \"-c\", \"kill -9 $$\"]");
    let agents = folder.agents();
    let name = "crash@.".parse().unwrap();
    assert_eq!(agents.state(&name), Some(AgentState::Active));
    let failure = call(&agents, "crash", json!({"task": ""})).await.unwrap_err();
    assert_eq!(ended(&failure), ("agent_failed", Outcome::Done));
    assert!(failure.message.contains("42"), "{failure}");
    assert_eq!(agents.state(&name), Some(AgentState::Error));
    std::fs::write(folder.path().join("well"), "").unwrap();
    call(&agents, "crash", json!({"task": ""})).await.unwrap();
    assert_eq!(agents.state(&name), Some(AgentState::Active));
    let failure = call(&agents, "killed", json!({"task": ""})).await.unwrap_err();
    assert_eq!(ended(&failure), ("agent_failed", Outcome::Done));
    assert!(failure.message.contains("signal: 9"), "{failure}");
}

#[tokio::test]
async fn the_papers_answer_is_unwrapped() {
    let folder = Folder::new();
    folder.agent("good", r#"command = ["echo", '{"result": [1], "success": true, "error": null}']"#);
    folder.agent("bad", r#"command = ["echo", '{"result": null, "success": false, "error": "no ink"}']"#);
    let agents = folder.agents();
    assert_eq!(call(&agents, "good", json!({"task": ""})).await.unwrap(), json!([1]));
    let failure = call(&agents, "bad", json!({"task": ""})).await.unwrap_err();
    assert_eq!((failure.code.text(), failure.message.as_str()), ("agent_failed", "no ink"));
}

#[tokio::test]
async fn a_missing_program_is_told_without_its_path() {
    let folder = Folder::new();
    folder.agent("lost", "command = [\"no-such-program-here\"]");
    folder.agent("moved", "command = [\"./gone.sh\"]");
    let agents = folder.agents();
    for (agent, program) in [("lost", "no-such-program-here"), ("moved", "./gone.sh")] {
        let failure = call(&agents, agent, json!({"task": ""})).await.unwrap_err();
        assert_eq!(ended(&failure), ("start_failed", Outcome::NotStarted));
        assert!(!failure.message.contains(program), "{failure}");
        assert!(!failure.message.contains(folder.path().to_str().unwrap()), "{failure}");
        assert!(failure.message.contains("log of its host"), "{failure}");
    }
}

#[tokio::test]
async fn a_deadline_kills_the_program_and_its_children() {
    let folder = Folder::new();
    folder.agent("family", FAMILY);
    let agents = folder.agents();
    let started = Instant::now();
    let failure = agents
        .call(&"family@.".parse().unwrap(), invocation(json!({"task": ""}), Duration::from_millis(700)))
        .await
        .unwrap_err();
    assert_eq!(ended(&failure), ("deadline", Outcome::Unknown));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    all_gone(&folder).await;
}

#[tokio::test]
async fn an_attempt_ends_after_its_own_time_though_the_call_has_more() {
    let folder = Folder::new();
    folder.agent_with("slow", "timeout_s = 1", FAMILY);
    let started = Instant::now();
    let failure = call(&folder.agents(), "slow", json!({"task": ""})).await.unwrap_err();
    assert_eq!(ended(&failure), ("deadline", Outcome::Unknown));
    assert!(failure.message.contains("`timeout_s`"), "{failure}");
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    all_gone(&folder).await;
}

#[tokio::test]
async fn a_dropped_call_ends_the_program_and_its_children() {
    let folder = Folder::new();
    folder.agent("family", FAMILY);
    let agents = folder.agents();
    let calling = tokio::spawn(async move { call(&agents, "family", json!({"task": ""})).await });
    until(|| folder.pids().len() == 2).await;
    assert!(folder.pids().iter().all(|pid| lives(*pid)));
    calling.abort();
    assert!(calling.await.unwrap_err().is_cancelled());
    all_gone(&folder).await;
}

#[tokio::test]
async fn children_that_a_program_leaves_behind_end_with_its_call() {
    let folder = Folder::new();
    folder.agent("litter", "command = [\"sh\", \"-c\", \"sleep 600 & echo $! > a.pid; echo done\"]");
    let started = Instant::now();
    let answer = timeout(PATIENCE, call(&folder.agents(), "litter", json!({"task": ""}))).await.unwrap();
    assert_eq!(answer.unwrap(), "done");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    all_gone(&folder).await;
}

#[tokio::test]
async fn a_talkative_program_is_cut_and_killed() {
    let folder = Folder::new();
    folder.agent("talk", "command = [\"sh\", \"-c\", \"echo $$ > a.pid; exec yes\"]");
    folder.agent("shout", "command = [\"sh\", \"-c\", \"yes | head -c 50000000 >&2; echo calm\"]");
    let full = CALL_BYTES_MAX - "\"\"".len();
    folder.agent("full", &format!("command = [\"sh\", \"-c\", \"yes | tr -d '\\\\n' | head -c {full}\"]"));
    folder.agent(
        "over",
        &format!("command = [\"sh\", \"-c\", \"yes | tr -d '\\\\n' | head -c {CALL_BYTES_MAX}\"]"),
    );
    let agents = folder.agents();
    let failure = call(&agents, "talk", json!({"task": ""})).await.unwrap_err();
    assert_eq!(ended(&failure), ("too_large", Outcome::Done));
    all_gone(&folder).await;
    assert_eq!(call(&agents, "shout", json!({"task": ""})).await.unwrap(), "calm");
    let answer = call(&agents, "full", json!({"task": ""})).await.unwrap();
    assert_eq!(answer.as_str().unwrap().len(), full, "the limit itself is allowed");
    let failure = call(&agents, "over", json!({"task": ""})).await.unwrap_err();
    assert_eq!(ended(&failure), ("too_large", Outcome::Done), "as JSON, in which it would travel");
}

#[tokio::test]
async fn a_program_that_reads_no_input_is_none_the_worse() {
    let folder = Folder::new();
    folder.agent("deaf", "command = [\"echo\", \"hello\"]");
    let large = json!({"task": "x".repeat(2 * 1024 * 1024)});
    assert_eq!(call(&folder.agents(), "deaf", large).await.unwrap(), "hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_beyond_the_places_wait_and_beyond_the_queue_are_refused() {
    let folder = Folder::new();
    folder.agent_with("narrow", "max_concurrency = 1\nmax_queue = 1", "builtin = \"sleep\"");
    let agents = folder.agents();
    let name = "narrow@.".parse().unwrap();
    let first = {
        let agents = agents.clone();
        tokio::spawn(async move { call(&agents, "narrow", json!({"task": "1500"})).await })
    };
    until(|| agents.state(&name) == Some(AgentState::Busy)).await;
    // Waits in the queue until its own deadline, which is no work begun.
    let mut second =
        Box::pin(agents.call(&name, invocation(json!({"task": "1"}), Duration::from_millis(300))));
    assert!(futures::poll!(second.as_mut()).is_pending());
    let third = call(&agents, "narrow", json!({"task": "1"})).await.unwrap_err();
    assert_eq!(ended(&third), ("busy", Outcome::NotStarted));
    assert!(third.message.contains("max_queue"), "{third}");
    assert_eq!(ended(&second.await.unwrap_err()), ("deadline", Outcome::NotStarted));
    // A place in the queue is free again, and its turn comes.
    call(&agents, "narrow", json!({"task": "1"})).await.unwrap();
    first.await.unwrap().unwrap();
    assert_eq!(agents.state(&name), Some(AgentState::Active));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_agent_delays_no_other() {
    let folder = Folder::new();
    folder.agent_with("slow", "max_concurrency = 100", "command = [\"sleep\", \"5\"]");
    folder.agent("quick", "builtin = \"echo\"");
    folder.agent("program", "command = [\"cat\"]");
    let agents = folder.agents();
    let slow: Vec<_> = (0..100)
        .map(|_| {
            let agents = agents.clone();
            tokio::spawn(async move { call(&agents, "slow", json!({"task": ""})).await })
        })
        .collect();
    until(|| agents.state(&"slow@.".parse().unwrap()) == Some(AgentState::Busy)).await;
    let started = Instant::now();
    for _ in 0..100 {
        call(&agents, "quick", json!({"task": "x"})).await.unwrap();
    }
    call(&agents, "program", json!({"task": "x"})).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    slow.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn an_agent_behind_http_gets_the_input_as_a_post() {
    let server = Server::start(|request| match request.path.as_str() {
        "/run" => (200, request.body.clone()),
        "/text" => (200, "plain words".into()),
        "/paper" => (200, json!({"success": false, "error": "no ink"}).to_string()),
        "/large" => (200, "x".repeat(CALL_BYTES_MAX + 1)),
        "/moved" => (302, "http://127.0.0.1:9/elsewhere".into()),
        "/slash" => (302, "/run".into()),
        "/circle" => (302, "/circle".into()),
        "/limited" => (429, "slow down".into()),
        _ => (500, json!({"error": {"message": "out of paper"}}).to_string()),
    })
    .await;
    let folder = Folder::new();
    for path in ["run", "slash", "text", "paper", "large", "moved", "circle", "limited", "broken"] {
        folder.agent(path, &format!("http = {{ url = \"{}/{path}\" }}", server.url()));
    }
    folder.agent("nobody", "http = { url = \"http://127.0.0.1:9/run\" }");
    let agents = folder.agents();
    let input = json!({"task": "x", "n": 1});
    assert_eq!(call(&agents, "run", input.clone()).await.unwrap(), input);
    assert_eq!(call(&agents, "slash", input.clone()).await.unwrap(), input, "within the origin");
    assert_eq!(call(&agents, "text", input.clone()).await.unwrap(), "plain words");
    let expected = [
        ("paper", "agent_failed", Outcome::Done, "no ink"),
        ("large", "too_large", Outcome::Done, "larger than"),
        ("moved", "agent_failed", Outcome::Done, "sends its callers elsewhere"),
        ("circle", "agent_failed", Outcome::Done, "sends its callers elsewhere"),
        ("limited", "busy", Outcome::NotStarted, "no more calls"),
        ("broken", "agent_failed", Outcome::Done, "500 Internal Server Error: out of paper"),
        ("nobody", "start_failed", Outcome::NotStarted, "cannot be reached"),
    ];
    for (agent, code, outcome, words) in expected {
        let failure = call(&agents, agent, input.clone()).await.unwrap_err();
        assert_eq!(ended(&failure), (code, outcome), "{agent}: {failure}");
        assert!(failure.message.contains(words), "{failure}");
    }
    assert!(server.requests().iter().all(|request| request.method == "POST"));
}

/// The one part that is not real: a model's server, which cannot run here. It speaks the same HTTP and the same shapes.
#[tokio::test]
async fn a_chat_agent_sends_its_prompt_and_takes_the_last_answer() {
    let server = Server::start(|request| {
        let body: Value = serde_json::from_str(&request.body).unwrap();
        let turns = body["messages"].as_array().unwrap().iter().filter(|it| it["role"] == "user").count();
        let answer =
            json!({"choices": [{"message": {"role": "assistant", "content": format!("answer {turns}")}}]});
        (if body["model"] == "m" { 200 } else { 404 }, answer.to_string())
    })
    .await;
    let folder = Folder::new();
    let base = format!("base_url = \"{}/v1\"", server.url());
    folder.agent(
        "bot",
        &format!(
            "chat = {{ {base}, model = \"m\", api_key_env = \"CARGO_PKG_NAME\", system_prompt = \"Be brief\", \
             temperature = 0.5, max_loops = 2 }}"
        ),
    );
    folder.agent("other", &format!("chat = {{ {base}, model = \"unknown\" }}"));
    folder
        .agent("keyless", &format!("chat = {{ {base}, model = \"m\", api_key_env = \"NO_SUCH_KEY_HERE\" }}"));
    let agents = folder.agents();
    let input = json!({"task": "Say it", "img": "data:image/png;base64,AAAA"});
    assert_eq!(call(&agents, "bot", input).await.unwrap(), "answer 2");
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(
        (requests[0].path.as_str(), requests[0].headers["authorization"].as_str()),
        ("/v1/chat/completions", "Bearer aop")
    );
    let body: Value = serde_json::from_str(&requests[1].body).unwrap();
    let roles: Vec<_> =
        body["messages"].as_array().unwrap().iter().map(|it| it["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user"]);
    assert_eq!(body["messages"][1]["content"][1]["image_url"]["url"], "data:image/png;base64,AAAA");
    assert_eq!((&body["model"], &body["temperature"]), (&json!("m"), &json!(0.5)));

    let path = json!({"task": "Say it", "img": "/etc/passwd"});
    assert_eq!(ended(&call(&agents, "bot", path).await.unwrap_err()), ("bad_input", Outcome::NotStarted));
    let other = call(&agents, "other", json!({"task": "x"})).await.unwrap_err();
    assert_eq!(ended(&other), ("upstream_failed", Outcome::Done));
    let keyless = call(&agents, "keyless", json!({"task": "x"})).await.unwrap_err();
    assert_eq!(ended(&keyless), ("start_failed", Outcome::NotStarted));
    assert!(!keyless.message.contains("NO_SUCH_KEY_HERE"), "{keyless}");
    assert_eq!(server.requests().len(), 3, "what is refused here never reaches the server");
}

/// A program with a child, both of which write their numbers and would run for ten minutes.
const FAMILY: &str =
    "command = [\"sh\", \"-c\", \"sleep 600 & echo $! > child.pid; echo $$ > parent.pid; wait\"]";

async fn all_gone(folder: &Folder) {
    let pids = folder.pids();
    assert!(!pids.is_empty());
    until(|| pids.iter().all(|pid| !lives(*pid))).await;
}
