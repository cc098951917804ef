//! Real MCP servers: child processes that run `tests/mcp/upstream/server.py`.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::*;
use crate::document::run_config::{Endpoint, GivenValue, Program};
use crate::proto::call::{CallId, Report};
use crate::proto::code::Code;

mod events;
mod http;
mod quirks;

/// Longer than any wait of a test that passes, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a call to a dead server may take: far below any wait for a server, far above a stall of a busy machine.
const AT_ONCE: Duration = Duration::from_millis(500);

fn server(arguments: &[&str]) -> McpServer {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mcp/upstream/server.py");
    let command = ["python3", script].into_iter().chain(arguments.iter().copied());
    program(command.map(str::to_owned).collect())
}

fn program(command: Vec<String>) -> McpServer {
    McpServer::Command(Program { command, ..Program::default() })
}

fn start(servers: impl IntoIterator<Item = McpServer>) -> Upstream {
    Upstream::start(servers.into_iter().collect(), Path::new("."))
}

fn invocation() -> Invocation {
    Invocation::new(CallId([7; 16]), Value::Null, Instant::now() + PATIENCE)
}

async fn call(upstream: &Upstream, tool: &str) -> Result<Value, CallFailure> {
    timeout(PATIENCE, upstream.call(tool, json!({"task": "hi"}), &invocation())).await.expect("an answer")
}

async fn until(upstream: &Upstream, wanted: impl FnMut(&ToolUnion) -> bool) -> ToolUnion {
    let mut tools = upstream.tools();
    timeout(PATIENCE, tools.wait_for(wanted)).await.expect("such tools in time").expect("an upstream").clone()
}

async fn ready(upstream: &Upstream) -> Vec<String> {
    names(&until(upstream, |tools| !tools.pending).await)
}

fn names(tools: &ToolUnion) -> Vec<String> {
    tools.list.iter().map(|tool| tool.name.clone()).collect()
}

/// Calls until the server answers, as a caller that retries would.
async fn recovered(upstream: &Upstream, tool: &str) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match call(upstream, tool).await {
            Ok(answer) => return answer,
            Err(failure) if failure.code == Code::UpstreamFailed => {}
            Err(failure) => panic!("{failure}"),
        }
        assert!(Instant::now() < deadline, "it never came back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn line_in(file: &Path, beginning: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if let Some(line) = text.lines().find(|line| line.starts_with(beginning)) {
            return line.to_owned();
        }
        assert!(Instant::now() < deadline, "no line {beginning} in {text:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn pid(answer: Value) -> rustix::process::Pid {
    let pid = answer.as_str().and_then(|pid| pid.parse().ok()).expect("a process id");
    rustix::process::Pid::from_raw(pid).expect("a process id")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tools_of_two_servers_are_one_list() {
    let upstream = start([server(&["pid", "echo"]), server(&["structured", "repeated"])]);
    assert_eq!(ready(&upstream).await, ["echo", "pid", "repeated", "structured"]);
    let tools = upstream.tools().borrow().clone();
    assert_eq!(tools.list[0].description, "Does echo");
    assert_eq!(tools.list[0].input_schema["properties"]["task"]["type"], "string");
    assert_eq!(call(&upstream, "echo").await, Ok(json!("{\"task\": \"hi\"}")));
    let both = json!({"structuredContent": {"sum": 3}, "content": [{"type": "text", "text": "not this"}]});
    assert_eq!(call(&upstream, "structured").await, Ok(both.clone()));
    assert_eq!(structure(both), json!({"sum": 3}), "which an output schema would speak of");
    assert_eq!(call(&upstream, "repeated").await, Ok(json!({"sum": 3})));
    assert_eq!(call(&upstream, "nobody").await.unwrap_err().code.text(), "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_two_servers_have_stays_with_the_first() {
    let upstream = start([server(&["pid"]), server(&["pid", "pid_2"])]);
    assert_eq!(ready(&upstream).await, ["pid", "pid_2", "pid_2_2"]);
    let first = call(&upstream, "pid").await.unwrap();
    let second = call(&upstream, "pid_2").await.unwrap();
    assert_ne!(pid(first), pid(second));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_keep_what_the_tool_said() {
    let upstream = start([server(&["image", "fail", "fault", "echo"])]);
    ready(&upstream).await;
    let image = call(&upstream, "image").await.unwrap();
    assert_eq!(image, json!([{"type": "image", "data": "AAAA", "mimeType": "image/png"}]));
    for (tool, words) in [("fail", "no more paper"), ("fault", "inner fault")] {
        let failure = call(&upstream, tool).await.unwrap_err();
        assert_eq!((failure.code.text(), failure.outcome), ("agent_failed", Outcome::Done));
        assert_eq!(failure.message, words);
    }
    let failure = upstream.call("echo", json!("no object"), &invocation()).await.unwrap_err();
    assert_eq!((failure.code.text(), failure.outcome), ("bad_input", Outcome::NotStarted));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_be_read_ends_its_call_at_once() {
    let unreadable = ["half_emoji", "nan", "truncated", "bytes", "other_answer", "broken_id", "deep"];
    let errors = ["null_id", "no_id", "other_id"];
    let upstream = start([server(&[&unreadable[..], &errors[..], &["scalar", "echo"]].concat())]);
    ready(&upstream).await;
    for tool in unreadable {
        let started = Instant::now();
        let failure = call(&upstream, tool).await.unwrap_err();
        assert!(started.elapsed() < AT_ONCE, "{tool}: {:?}", started.elapsed());
        assert_eq!((failure.code.text(), failure.outcome), ("upstream_failed", Outcome::Unknown), "{tool}");
        assert!(failure.message.contains("cannot be read"), "{tool}: {failure}");
    }
    for tool in errors {
        let failure = call(&upstream, tool).await.unwrap_err();
        assert_eq!((failure.code.text(), failure.message.as_str()), ("agent_failed", "no paper"), "{tool}");
    }
    let failure = call(&upstream, "scalar").await.unwrap_err();
    assert_eq!((failure.code.text(), failure.outcome), ("agent_failed", Outcome::Done));
    assert!(call(&upstream, "echo").await.is_ok(), "the server is as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_nobody_ends_whatever_waits() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("record");
    let upstream = start([server(&["--record", record.to_str().unwrap(), "wait", "null_id"])]);
    ready(&upstream).await;
    let invocation = invocation();
    let mut waiting = Box::pin(upstream.call("wait", json!({}), &invocation));
    tokio::select! {
        answer = &mut waiting => panic!("{answer:?}"),
        _ = line_in(&record, "waiting") => {}
    }
    let failure = call(&upstream, "null_id").await.unwrap_err();
    let waited = timeout(AT_ONCE, waiting).await.unwrap().unwrap_err();
    for failure in [failure, waited] {
        assert_eq!((failure.code.text(), failure.outcome), ("upstream_failed", Outcome::Unknown));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_larger_than_a_message_is_told_as_too_large() {
    let upstream = start([server(&["huge", "echo"])]);
    ready(&upstream).await;
    let bytes = json!({"bytes": session::MESSAGE_BYTES_MAX + 1});
    let failure = upstream.call("huge", bytes, &invocation()).await.unwrap_err();
    assert_eq!((failure.code.text(), failure.outcome), ("too_large", Outcome::Done));
    assert!(call(&upstream, "echo").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_structure_that_is_null_hides_no_text() {
    let upstream = start([server(&["null"])]);
    ready(&upstream).await;
    assert_eq!(call(&upstream, "null").await, Ok(json!("the text")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_leads_nowhere_ends_the_list() {
    for cursor in ["empty", "circle"] {
        let upstream = start([server(&["--cursor", cursor, "echo"])]);
        assert_eq!(ready(&upstream).await, ["echo"], "{cursor}");
        assert!(call(&upstream, "echo").await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_prompts_alone_is_up_and_stays_up() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("record");
    let upstream = start([server(&["--prompts", "--record", record.to_str().unwrap()])]);
    until(&upstream, |tools| !tools.unlisted).await;
    assert_eq!(call(&upstream, "any").await.unwrap_err().code.text(), "not_found");
    let starts = std::fs::read_to_string(&record).unwrap().lines().count();
    assert_eq!(starts, 1, "a failure of its list would have started it again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_gets_what_its_file_gives_and_no_more() {
    let with = |value| {
        let McpServer::Command(mut program) = server(&["variable"]) else { panic!("a program") };
        program.env = [("AOP_TEST_GIVEN".to_owned(), value)].into();
        McpServer::Command(program)
    };
    // Cargo sets this variable for the test, as an operator sets a key for the node.
    let named = McpServer::Command(Program {
        env: [("CARGO_PKG_NAME".to_owned(), GivenValue::Variable("CARGO_PKG_NAME".into()))].into(),
        ..match server(&["variable"]) {
            McpServer::Command(program) => program,
            McpServer::Url(_) => panic!("a program"),
        }
    });
    let variable = |name: &str| with(GivenValue::Variable(name.into()));
    for (server, value) in [
        (with(GivenValue::Literal("literal".into())), "literal"),
        (variable("CARGO_PKG_NAME"), "aop"),
        (named, "unset"),
    ] {
        let upstream = start([server]);
        ready(&upstream).await;
        assert_eq!(call(&upstream, "variable").await, Ok(json!(value)));
    }
    let upstream = start([variable("NO_SUCH_VARIABLE_HERE")]);
    until(&upstream, |tools| !tools.pending).await;
    let failure = call(&upstream, "variable").await.unwrap_err();
    assert_eq!((failure.code.text(), failure.outcome), ("upstream_failed", Outcome::NotStarted));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_starts_costs_only_its_own_tools() {
    let missing = program(vec!["./no-such-program".into()]);
    let upstream = start([missing, server(&["echo"])]);
    assert_eq!(ready(&upstream).await, ["echo"]);
    assert!(call(&upstream, "echo").await.is_ok());
    let started = Instant::now();
    let failure = call(&upstream, "search").await.unwrap_err();
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
    assert_eq!((failure.code.text(), failure.outcome), ("upstream_failed", Outcome::NotStarted));
    assert!(!failure.message.contains("no-such-program"), "{}", failure.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_beside_its_file_is_found_wherever_the_node_was_started() {
    let beside = program(vec!["./server.py".into(), "echo".into()]);
    let upstream = Upstream::start(vec![beside], Path::new("tests/mcp/upstream"));
    assert_eq!(ready(&upstream).await, ["echo"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_died_keeps_its_tools_and_fails_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    let upstream = start([server(&["--gate", gate.to_str().unwrap(), "crash", "pid"]), server(&["echo"])]);
    assert_eq!(ready(&upstream).await, ["crash", "echo", "pid"]);
    std::fs::write(&gate, "").unwrap();

    let failure = call(&upstream, "crash").await.unwrap_err();
    assert_eq!((failure.code.text(), failure.outcome), ("upstream_failed", Outcome::Unknown));
    for _ in 0..5 {
        let started = Instant::now();
        let failure = call(&upstream, "pid").await.unwrap_err();
        assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
        assert_eq!((failure.code.text(), failure.outcome), ("upstream_failed", Outcome::NotStarted));
        assert!(call(&upstream, "echo").await.is_ok());
    }
    assert_eq!(names(&upstream.tools().borrow()), ["crash", "echo", "pid"]);

    std::fs::remove_file(&gate).unwrap();
    recovered(&upstream, "pid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_comes_back_as_another_process() {
    let upstream = start([server(&["pid"])]);
    ready(&upstream).await;
    let first = pid(call(&upstream, "pid").await.unwrap());
    rustix::process::kill_process(first, rustix::process::Signal::KILL).unwrap();
    let second = loop {
        let again = pid(recovered(&upstream, "pid").await);
        if again != first {
            break again;
        }
    };
    assert_ne!(first, second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_list_is_seen() {
    let upstream = start([server(&["grow"])]);
    assert_eq!(ready(&upstream).await, ["grow"]);
    call(&upstream, "grow").await.unwrap();
    let grown = until(&upstream, |tools| tools.list.len() == 2).await;
    assert_eq!(names(&grown), ["grow", "grown"]);
    assert!(call(&upstream, "grown").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_arrives_in_order() {
    let upstream = start([server(&["progress"])]);
    ready(&upstream).await;
    let (progress, mut reports) = mpsc::channel(16);
    let invocation = Invocation { reports: Some(progress), ..invocation() };
    assert_eq!(upstream.call("progress", json!({}), &invocation).await, Ok(json!("done")));
    drop(invocation);
    let mut seen = Vec::new();
    while let Some(report) = reports.recv().await {
        let Report::Progress(progress) = report else { panic!("{report:?}") };
        seen.push(progress);
    }
    let steps: Vec<f64> = seen.iter().map(|report| report.progress).collect();
    assert_eq!(steps, [1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(seen[0].total, Some(5.0));
    assert_eq!(seen[0].message.as_deref(), Some("step 1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_nobody_waits_for_is_cancelled_at_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("record");
    let upstream = start([server(&["--record", record.to_str().unwrap(), "wait", "echo"])]);
    ready(&upstream).await;
    let invocation = invocation();
    let mut waiting = Box::pin(upstream.call("wait", json!({}), &invocation));
    let request = tokio::select! {
        answer = &mut waiting => panic!("{answer:?}"),
        line = line_in(&record, "waiting") => line.replace("waiting ", ""),
    };
    drop(waiting);
    assert_eq!(line_in(&record, "cancelled").await, format!("cancelled {request}"));
    assert!(call(&upstream, "echo").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_without_an_end_ends_the_server() {
    let upstream = start([server(&["endless", "pid"]), server(&["echo"])]);
    ready(&upstream).await;
    let failure = call(&upstream, "endless").await.unwrap_err();
    assert_eq!((failure.code.text(), failure.outcome), ("upstream_failed", Outcome::Unknown));
    assert!(call(&upstream, "echo").await.is_ok());
    recovered(&upstream, "pid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_reading_is_started_again() {
    let upstream = start([server(&["deaf", "pid"])]);
    ready(&upstream).await;
    let first = pid(call(&upstream, "pid").await.unwrap());
    let invocation = invocation();
    let mut deaf = Box::pin(upstream.call("deaf", json!({}), &invocation));
    let large = json!({"task": "x".repeat(100_000)});
    let failure = loop {
        let unread = upstream.call("pid", large.clone(), &invocation);
        tokio::select! {
            failure = &mut deaf => break failure.unwrap_err(),
            _ = timeout(Duration::from_millis(1), unread) => {}
        }
    };
    assert_eq!((failure.code.text(), failure.outcome), ("upstream_failed", Outcome::Unknown));
    assert_ne!(pid(recovered(&upstream, "pid").await), first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_and_does_not_read_the_answers_is_started_again() {
    let upstream = start([server(&["pings", "pid"])]);
    ready(&upstream).await;
    let failure = call(&upstream, "pings").await.unwrap_err();
    assert_eq!((failure.code.text(), failure.outcome), ("upstream_failed", Outcome::Unknown));
    recovered(&upstream, "pid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_keeps_nobody_waiting() {
    let upstream = start([server(&["--hang", "search"]), server(&["echo"])]);
    let tools = until(&upstream, |tools| !tools.list.is_empty()).await;
    assert_eq!((names(&tools), tools.pending), (vec!["echo".to_owned()], true));
    assert!(call(&upstream, "echo").await.is_ok());
    let started = Instant::now();
    assert_eq!(call(&upstream, "search").await.unwrap_err().code.text(), "upstream_failed");
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_in_pages_is_read_whole_and_a_huge_one_in_part() {
    let upstream = start([server(&["--pages", "7", "many=50"])]);
    assert_eq!(ready(&upstream).await.len(), 50);
    let upstream = start([server(&["--pages", "3", "many=2500"])]);
    assert_eq!(ready(&upstream).await.len(), 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_that_break_the_rules_hide_no_others() {
    let upstream = start([server(&["--broken", "echo"])]);
    let usable = ["broken_away", "broken_size", "broken_text", "broken_type", "echo"];
    assert_eq!(ready(&upstream).await, usable);
    let tools = upstream.tools().borrow().clone();
    for tool in tools.list.iter().filter(|tool| tool.name != "echo") {
        assert_eq!(tool.input_schema, json!({"type": "object"}), "{}", tool.name);
        assert_eq!(tool.output_schema, None);
    }
    assert_eq!(tools.list[1].description.len(), 4 * 1024);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_calls_than_places_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("record");
    let upstream = start([server(&["--record", record.to_str().unwrap(), "wait", "echo"])]);
    ready(&upstream).await;
    let invocation = invocation();
    let waiting = (0..server::CALLS_MAX).map(|_| Box::pin(upstream.call("wait", json!({}), &invocation)));
    let mut waiting = futures::future::select_all(waiting);
    tokio::select! {
        answer = &mut waiting => panic!("{:?}", answer.0),
        _ = line_in(&record, "waiting") => {}
    }
    let failure = call(&upstream, "echo").await.unwrap_err();
    assert_eq!((failure.code.text(), failure.outcome), ("busy", Outcome::NotStarted));
    drop(waiting);
    assert!(call(&upstream, "echo").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_upstream_leaves_no_process() {
    let upstream = start([server(&["pid", "spawn"])]);
    ready(&upstream).await;
    let leader = pid(call(&upstream, "pid").await.unwrap());
    let grandchild = pid(call(&upstream, "spawn").await.unwrap());
    drop(upstream);
    let deadline = Instant::now() + PATIENCE;
    for process in [leader, grandchild] {
        while is_running(process) {
            assert!(Instant::now() < deadline, "{process:?} is left");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A process that ended but was not yet collected by its parent no longer runs.
fn is_running(process: rustix::process::Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
    stat.is_ok_and(|stat| !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_told_the_trace_of_the_call_in_its_metadata() {
    let upstream = start([server(&["trace"])]);
    ready(&upstream).await;
    assert_eq!(call(&upstream, "trace").await, Ok(json!("none")));
    let mut traced = invocation();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    traced.context.trace = Some(trace.parse().unwrap());
    assert_eq!(upstream.call("trace", json!({}), &traced).await, Ok(json!(trace)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_answers_with_a_task_is_asked_until_it_has_a_result() {
    let upstream = start([server(&["task", "failing_task"])]);
    ready(&upstream).await;
    let (reports, mut told) = mpsc::channel(64);
    let waiting = Invocation { reports: Some(reports), ..invocation() };
    assert_eq!(upstream.call("task", json!({}), &waiting).await, Ok(json!("made in time")));
    let Some(Report::Progress(progress)) = told.recv().await else { panic!("a report") };
    assert_eq!(progress.message.as_deref(), Some("asked 1 times"));
    let failure = call(&upstream, "failing_task").await.unwrap_err();
    assert_eq!((failure.code.text(), failure.outcome), ("agent_failed", Outcome::Done));
    assert_eq!(failure.message, "no paper");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_ends_early_cancels_the_task_of_its_tool() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("record");
    let upstream = start([server(&["--record", record.to_str().unwrap(), "slow_task"])]);
    ready(&upstream).await;
    let (reports, mut told) = mpsc::channel(64);
    let waiting = Invocation { reports: Some(reports), ..invocation() };
    let mut calling = Box::pin(upstream.call("slow_task", json!({}), &waiting));
    tokio::select! {
        ended = &mut calling => panic!("{ended:?}"),
        report = told.recv() => assert!(report.is_some()),
    }
    drop(calling);
    assert!(line_in(&record, "cancelled").await.starts_with("cancelled slow_task-"));
}
