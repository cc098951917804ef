//! Calls that nobody waits for, batches, calls that tell how they stand, and calls within calls: over HTTP and by the command.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::PATIENCE;
use super::processes::Process;

/// What a node of the debug build may take beside the time that is waited for.
const SOON: Duration = Duration::from_secs(15);

pub(super) fn ask(
    host: &Process,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> (u16, Value) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let url = format!("{}{path}", host.ready.http);
    let sent = match method {
        "POST" => {
            let request = agent.post(&url).content_type("application/json");
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send(body)
        }
        "DELETE" => agent.delete(&url).call(),
        _ => agent.get(&url).call(),
    };
    let mut response = sent.unwrap();
    (response.status().as_u16(), response.body_mut().read_json().unwrap())
}

pub(super) fn get(host: &Process, path: &str) -> Value {
    ask(host, "GET", path, &[], b"").1
}

fn submit(host: &Process, agent: &str, task: &str) -> String {
    let body = json!({ "task": task }).to_string();
    let path = format!("/v1/call/{agent}?async=true&timeout=600");
    let (status, answer) = ask(host, "POST", &path, &[], body.as_bytes());
    assert_eq!((status, &answer["status"]), (202, &json!("submitted")), "{answer}");
    answer["task_id"].as_str().unwrap().to_owned()
}

/// Waits until a task stands so.
fn until(host: &Process, task: &str, wanted: &str) -> Value {
    let began = Instant::now();
    loop {
        let told = get(host, &format!("/v1/tasks/{task}"));
        if told["status"] == wanted {
            return told;
        }
        assert!(began.elapsed() < PATIENCE, "{told}, not {wanted}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(super) fn aop(host: &Process, args: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aop"));
    command.args(args).args(["--node", &host.ready.http]).env_remove("AOP_CALL_ID");
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

pub(super) fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_task_is_looked_at_waited_for_and_cancelled() {
    let host = Process::start();
    let task = submit(&host, "echo", "hi");
    let done = get(&host, &format!("/v1/tasks/{task}?wait=30"));
    assert_eq!((&done["status"], &done["answer"]["result"]), (&json!("completed"), &json!("hi")), "{done}");
    assert_eq!((&done["answer"]["task_id"], &done["task_id"]), (&json!(task), &json!(task)));
    let began = Instant::now();
    assert_eq!(get(&host, &format!("/v1/tasks/{task}?wait=55"))["status"], "completed");
    assert!(began.elapsed() < SOON, "what has ended is told at once");

    let failed = submit(&host, "fail", "x");
    assert_eq!(until(&host, &failed, "failed")["answer"]["error"]["code"], "agent_failed");
    let stalled = submit(&host, "stall", "x");
    let told = until(&host, &stalled, "working");
    assert_eq!((&told["served_by"], told.get("answer")), (&json!(host.ready.peer_id), None), "{told}");
    let waits = submit(&host, "stall", "x");
    until(&host, &waits, "queued");
    let (status, ended) = ask(&host, "DELETE", &format!("/v1/tasks/{stalled}"), &[], b"");
    assert_eq!((status, &ended["status"]), (200, &json!("cancelled")));
    // The place of what was cancelled is free, so its work has ended.
    until(&host, &waits, "working");

    let page = get(&host, "/v1/tasks?limit=2");
    let ids = |page: &Value| -> Vec<String> {
        let tasks = page["tasks"].as_array().unwrap().iter();
        tasks.map(|task| task["task_id"].as_str().unwrap().to_owned()).collect()
    };
    let next = get(&host, &format!("/v1/tasks?cursor={}", page["cursor"].as_str().unwrap()));
    assert_eq!([ids(&page), ids(&next)].concat(), [waits, stalled, failed, task]);
    assert!(next["cursor"].is_null() && page["tasks"][0].get("answer").is_none());

    for (method, path, status, code) in [
        ("GET", "/v1/tasks/0123", 404, "not_found"),
        ("DELETE", "/v1/tasks/00000000000000000000000000000000", 404, "not_found"),
        ("GET", "/v1/tasks/0123?wait=56", 400, "bad_request"),
        ("GET", "/v1/tasks?cursor=x", 400, "bad_request"),
        ("POST", "/v1/call/nobody@.?async=true", 404, "not_found"),
        ("POST", "/v1/call/echo?async=true&timeout=86401", 400, "bad_request"),
        ("POST", "/v1/call/echo?priority=200", 400, "bad_request"),
    ] {
        let (given, answer) = ask(&host, method, path, &[], b"{}");
        assert_eq!((given, &answer["error"]["code"]), (status, &json!(code)), "{path}: {answer}");
        assert!(!answer["error"]["fix"].as_str().unwrap().is_empty(), "{path}");
    }
}

/// Beside them a file that is no task.
#[test]
fn tasks_of_all_kinds_are_as_they_must_be_after_their_node_was_killed() {
    let host = Process::start();
    let done = submit(&host, "echo", "kept");
    until(&host, &done, "completed");
    let cancelled = submit(&host, "stall", "x");
    until(&host, &cancelled, "working");
    ask(&host, "DELETE", &format!("/v1/tasks/{cancelled}"), &[], b"");
    let at_work = submit(&host, "stall", "x");
    until(&host, &at_work, "working");
    let waits = submit(&host, "stall", "x");
    until(&host, &waits, "queued");
    std::fs::write(host.folder().join("data/tasks/garbage"), b"no task").unwrap();

    let host = host.killed_and_started(&[]);
    let told = get(&host, &format!("/v1/tasks/{done}"));
    assert_eq!((&told["status"], &told["answer"]["result"]), (&json!("completed"), &json!("kept")), "{told}");
    assert_eq!(get(&host, &format!("/v1/tasks/{cancelled}"))["status"], "cancelled");
    let told = get(&host, &format!("/v1/tasks/{at_work}"));
    assert_eq!(
        (&told["status"], &told["answer"]["outcome"]),
        (&json!("unknown"), &json!("unknown")),
        "{told}"
    );
    // Nobody had its input: it is made again, and its agent is free now.
    until(&host, &waits, "working");
    assert_eq!(get(&host, "/v1/tasks")["tasks"].as_array().unwrap().len(), 4);
    let host = host.killed_and_started(&[]);
    assert_eq!(until(&host, &waits, "unknown")["answer"]["error"]["code"], "host_restarted");
}

#[test]
fn a_task_at_another_node_is_ended_there_and_asked_for_again_after_a_restart_of_its_own() {
    let text = "[agent]\nname = \"far\"\ndescription = \"d\"\nmax_concurrency = 1\n\
                [agent.run]\ncommand = [\"sleep\", \"8\"]\n";
    let host = Process::with_agents(&[], &[("far", text.into())]);
    let caller = Process::start_at(&[&host]);
    let began = Instant::now();
    while ask(&caller, "GET", "/v1/agents/far", &[], b"").0 != 200 {
        assert!(began.elapsed() < PATIENCE, "it is heard of");
        std::thread::sleep(Duration::from_millis(50));
    }
    let first = submit(&caller, "far", "x");
    assert_eq!(until(&caller, &first, "working")["served_by"], host.ready.peer_id.as_str());
    let second = submit(&caller, "far", "x");
    until(&caller, &second, "queued");
    ask(&caller, "DELETE", &format!("/v1/tasks/{first}"), &[], b"");
    until(&caller, &second, "working");
    let caller = caller.killed_and_started(&[&host]);
    let told = until(&caller, &second, "completed");
    assert_eq!(told["served_by"], host.ready.peer_id.as_str(), "{told}");
}

/// More than there is room for: the rest is refused, and what was taken stays.
#[test]
fn a_crowd_of_tasks_is_bounded() {
    let host = Process::start();
    let refused: usize = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let submit = || ask(&host, "POST", "/v1/call/stall?async=true", &[], b"{\"task\":\"x\"}");
                    let answers = (0..150).map(|_| submit());
                    let refused = answers.filter(|(status, answer)| {
                        assert!([202, 429].contains(status), "{answer}");
                        *status == 429
                    });
                    refused.count()
                })
            })
            .collect();
        senders.into_iter().map(|sender| sender.join().unwrap()).sum()
    });
    assert_eq!(refused, 8 * 150 - 1_024);
    let (status, answer) = ask(&host, "POST", "/v1/call/echo", &[], b"{\"task\":\"x\"}");
    assert_eq!((status, &answer["result"]), (200, &json!("x")), "calls go on");
    assert_eq!(get(&host, "/v1/tasks?limit=1000")["tasks"].as_array().unwrap().len(), 1_000);
}

/// The events of a call, as kind and data.
fn events(host: &Process, path: &str, body: &str) -> impl Iterator<Item = (String, Value)> + use<> {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let request = agent.post(format!("{}{path}", host.ready.http)).content_type("application/json");
    let response = request.header("Accept", "text/event-stream").send(body).unwrap();
    assert_eq!(response.status(), 200);
    let lines = BufReader::new(response.into_body().into_reader()).lines().map_while(Result::ok);
    let mut kind = String::new();
    lines.filter_map(move |line| {
        if let Some(name) = line.strip_prefix("event:") {
            kind = name.trim().to_owned();
        }
        let data = line.strip_prefix("data:")?;
        Some((kind.clone(), serde_json::from_str(data).unwrap()))
    })
}

#[test]
fn who_asks_for_events_is_told_how_a_call_stands_and_a_reader_that_is_gone_ends_it() {
    let host = Process::start();
    let told: Vec<_> = events(&host, "/v1/call/sleep", "{\"task\":\"350\"}").collect();
    assert_eq!((told[0].0.as_str(), &told[0].1["served_by"]), ("working", &json!(host.ready.peer_id)));
    assert!(told.iter().any(|(kind, data)| kind == "progress" && data["total"] == 0.35), "{told:?}");
    let (kind, answer) = told.last().unwrap();
    assert_eq!((kind.as_str(), &answer["result"]), ("answer", &json!("slept 350 ms")));
    let told: Vec<_> = events(&host, "/v1/call/nobody@.", "{}").collect();
    assert_eq!((told[0].0.as_str(), &told[0].1["error"]["code"]), ("error", &json!("not_found")));

    let mut client = TcpStream::connect(host.ready.http.trim_start_matches("http://")).unwrap();
    let body = "{\"task\":\"x\"}";
    write!(
        client,
        "POST /v1/call/stall@. HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Accept: text/event-stream\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains("event: working") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        read.push(byte[0]);
    }
    let told = events(&host, "/v1/call/stall@.?timeout=60", body);
    drop(client);
    // It waits for the one place until the reader is gone.
    let mut kinds = told.map(|(kind, _)| kind);
    let began = Instant::now();
    assert!(kinds.any(|kind| kind == "working") && began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[test]
fn a_batch_answers_in_the_order_of_its_calls_within_one_deadline() {
    let host = Process::start();
    let call = |agent: &str, task: &str| json!({"agent": agent, "input": {"task": task}});
    let mut calls: Vec<Value> = (0..40).map(|number| call("echo", &number.to_string())).collect();
    calls.extend([call("nobody@.", "x"), call("fail", "x"), call("stall", "x")]);
    let body = json!({ "calls": calls }).to_string();
    let began = Instant::now();
    let (status, answer) = ask(&host, "POST", "/v1/batch?timeout=8", &[], body.as_bytes());
    assert!(began.elapsed() < Duration::from_secs(8) + SOON, "{:?}", began.elapsed());
    let results = answer["results"].as_array().unwrap();
    assert_eq!((status, results.len()), (200, 43));
    for (number, result) in results[..40].iter().enumerate() {
        assert_eq!(result["result"], number.to_string(), "{result}");
    }
    let codes: Vec<&Value> = results[40..].iter().map(|result| &result["error"]["code"]).collect();
    assert_eq!(codes, ["not_found", "agent_failed", "deadline"]);
    let many: Vec<Value> = (0..1_001).map(|_| call("echo", "x")).collect();
    for body in [json!({ "calls": many }), json!({"call": []}), json!([])] {
        let (status, answer) = ask(&host, "POST", "/v1/batch", &[], body.to_string().as_bytes());
        assert_eq!((status, &answer["error"]["code"]), (400, &json!("bad_request")), "{answer}");
    }
}

#[test]
fn a_call_in_the_course_of_another_may_not_come_back_to_its_agent() {
    let host = Process::start();
    let outer = submit(&host, "stall", "x");
    until(&host, &outer, "working");
    let call = |agent: &str, id: &str| {
        let path = format!("/v1/call/{agent}?timeout=5");
        ask(&host, "POST", &path, &[("Aop-Call-Id", id)], b"{\"task\":\"x\"}").1
    };
    let refused = call("stall", &outer);
    assert_eq!(
        (&refused["error"]["code"], &refused["outcome"]),
        (&json!("call_chain"), &json!("not_started")),
        "{refused}"
    );
    assert_eq!(call("echo", &outer)["result"], "x");
    let mut command = Command::new(env!("CARGO_BIN_EXE_aop"));
    command.args(["call", "stall", "--task", "x", "--timeout", "5", "--node", &host.ready.http]);
    let told = command.env("AOP_CALL_ID", &outer).output().unwrap();
    let said = String::from_utf8_lossy(&told.stderr);
    assert!(
        told.status.code() == Some(1) && said.contains("call_chain"),
        "an agent calls by the command: {said}"
    );
    for unknown in ["00000000000000000000000000000000", "nonsense"] {
        assert_eq!(call("echo", unknown)["result"], "x", "an id that nobody knows says nothing");
    }
}

#[test]
fn an_agent_of_hours_is_called_as_a_task() {
    let text = "[agent]\nname = \"trainer\"\ndescription = \"d\"\ntimeout_s = 7200\n[agent.run]\nbuiltin = \"echo\"\n";
    let host = Process::with_agents(&[], &[("trainer", text.into())]);
    let (status, answer) = ask(&host, "POST", "/v1/call/trainer", &[], b"{\"task\":\"x\"}");
    let fix = answer["error"]["fix"].as_str().unwrap();
    assert!(status == 400 && fix.contains("--async"), "{answer}");
    let (_, answer) = ask(&host, "POST", "/v1/call/trainer?timeout=600", &[], b"{}");
    assert!(answer["error"]["fix"].as_str().unwrap().contains("--async"), "{answer}");
    let (_, answer) = ask(&host, "POST", "/v1/call/trainer?timeout=30", &[], b"{\"task\":\"x\"}");
    assert_eq!(answer["result"], "x", "who says how long he waits knows what he does");
    let (_, task) = ask(&host, "POST", "/v1/call/trainer?async=true", &[], b"{\"task\":\"x\"}");
    let told = get(&host, &format!("/v1/tasks/{}?wait=30", task["task_id"].as_str().unwrap()));
    assert_eq!(told["answer"]["result"], "x");
    let given = told["deadline_ms"].as_u64().unwrap() - told["submitted_ms"].as_u64().unwrap();
    assert_eq!(given, 4 * 7_200_000, "as long as its limits say");
}

#[test]
fn the_command_makes_tasks_batches_and_calls_that_tell_how_they_stand() {
    let host = Process::start();
    let told = aop(&host, &["call", "echo", "--task", "later", "--async"], "");
    let id = out(&told).trim().to_owned();
    assert!(told.status.success() && id.len() == 32, "{told:?}");
    assert!(String::from_utf8_lossy(&told.stderr).contains(&format!("aop task show {id}")), "{told:?}");
    let told = aop(&host, &["task", "show", &id, "--wait", "60"], "");
    assert_eq!((told.status.code(), out(&told).as_str()), (Some(0), "later\n"));
    let stalled = submit(&host, "stall", "x");
    until(&host, &stalled, "working");
    let told = aop(&host, &["task", "show", &stalled], "");
    assert_eq!((told.status.code(), out(&told)), (Some(0), format!("working at {}\n", host.ready.peer_id)));
    let told = aop(&host, &["task", "list"], "");
    let lines: Vec<String> = out(&told).lines().map(str::to_owned).collect();
    assert!(
        lines[0].starts_with(&format!("{stalled}\tstall\tworking")) && lines[1].contains("completed"),
        "{lines:?}"
    );
    let told = aop(&host, &["task", "cancel", &stalled], "");
    assert_eq!((told.status.code(), out(&told).as_str()), (Some(0), "cancelled\n"));
    assert_eq!(
        aop(&host, &["task", "show", &stalled], "").status.code(),
        Some(4),
        "it may have done some of it"
    );
    assert_eq!(aop(&host, &["task", "show", "0123"], "").status.code(), Some(3));

    let told = aop(&host, &["call", "sleep", "--task", "250", "--stream", "--priority", "-3"], "");
    assert_eq!((told.status.code(), out(&told).as_str()), (Some(0), "slept 250 ms\n"));
    assert!(String::from_utf8_lossy(&told.stderr).contains("working at"), "{told:?}");
    assert_eq!(aop(&host, &["call", "nobody@.", "--stream"], "").status.code(), Some(3));

    let calls = "{\"agent\":\"echo\",\"input\":{\"task\":\"a\"}}\n\n{\"agent\":\"fail\",\"input\":{\"task\":\"b\"}}\n\
                 {\"agent\":\"echo\",\"input\":{\"task\":\"c\"}}\n";
    let told = aop(&host, &["call", "--batch", "-", "--conversation", "c-7"], calls);
    let results: Vec<Value> = out(&told).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(told.status.code(), Some(1), "one of them failed");
    assert_eq!((&results[0]["result"], &results[2]["result"]), (&json!("a"), &json!("c")));
    assert_eq!(results[1]["error"]["code"], "agent_failed");
    for (args, input) in [
        (&["call"][..], ""),
        (&["call", "--batch", "-"], "no call\n"),
        (&["call", "--batch", "/nowhere/x"], ""),
        (&["call", "echo", "--batch", "-"], ""),
        (&["call", "echo", "--async", "--stream"], ""),
        (&["call", "echo", "--priority", "200"], ""),
        (&["call", "echo", "--conversation", "a b"], ""),
        (&["task", "show", "0123", "--wait", "-1"], ""),
    ] {
        let told = aop(&host, args, input);
        assert_eq!(told.status.code(), Some(2), "{args:?}: {}", String::from_utf8_lossy(&told.stderr));
    }
}
