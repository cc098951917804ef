//! The queues of a node's agents as an operator handles them: over HTTP and by the command.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::PATIENCE;
use super::processes::Process;
use super::tasks::{aop, ask, get, out};

/// Calls the echo, does something once the call waits, and gives the call's answer.
fn while_a_call_waits(host: &Process, act: impl FnOnce()) -> Value {
    std::thread::scope(|scope| {
        let call =
            scope.spawn(|| ask(host, "POST", "/v1/call/echo?timeout=120", &[], b"{\"task\":\"hi\"}").1);
        let began = Instant::now();
        while get(host, "/v1/queues/echo")["queued"] != 1 {
            assert!(began.elapsed() < PATIENCE && !call.is_finished(), "the call waits");
            std::thread::sleep(Duration::from_millis(20));
        }
        act();
        call.join().unwrap()
    })
}

#[test]
fn calls_wait_in_a_paused_queue_until_it_is_resumed_or_cleared() {
    let host = Process::start();
    let began = Instant::now();
    while ask(&host, "GET", "/v1/agents/echo", &[], b"").0 != 200 {
        assert!(began.elapsed() < PATIENCE, "it is registered");
        std::thread::sleep(Duration::from_millis(20));
    }
    let told = aop(&host, &["queue", "pause", "echo", "--json"], "");
    let paused: Value = serde_json::from_str(&out(&told)).unwrap();
    assert_eq!((&paused["agent"], &paused["paused"]), (&json!("echo@."), &json!(true)), "{paused}");
    let answer = while_a_call_waits(&host, || {
        let (status, resumed) = ask(&host, "POST", "/v1/queues/echo/resume", &[], b"{}");
        assert_eq!((status, &resumed["paused"]), (200, &json!(false)), "{resumed}");
    });
    assert_eq!((&answer["success"], &answer["result"]), (&json!(true), &json!("hi")), "{answer}");
    let shown = get(&host, "/v1/queues/echo@.");
    assert!(shown["mean_work_ms"].is_number() && shown.get("cleared").is_none(), "{shown}");
    let counts = ["running", "queued", "places", "failing", "completed", "failed"];
    assert_eq!(counts.map(|count| shown[count].as_u64().unwrap()), [0, 0, 1, 0, 1, 0], "{shown}");

    let (status, all) = ask(&host, "POST", "/v1/queues/pause", &[], b"{}");
    let queues = all["queues"].as_array().unwrap();
    assert_eq!((status, queues.len()), (200, 5), "{all}");
    assert!(queues.iter().all(|queue| queue["paused"] == true), "{all}");
    let told = out(&aop(&host, &["queue", "show"], ""));
    assert!(told.lines().any(|line| line.starts_with("stall\tpaused\t0/1\t0\t-\t0\t0")), "{told}");
    let answer = while_a_call_waits(&host, || {
        let cleared: Value =
            serde_json::from_str(&out(&aop(&host, &["queue", "clear", "--json"], ""))).unwrap();
        assert_eq!(cleared["cleared"], 1, "{cleared}");
    });
    let told = (&answer["success"], &answer["error"]["code"], &answer["outcome"]);
    assert_eq!(told, (&json!(false), &json!("cancelled"), &json!("not_started")), "{answer}");
    let answer = while_a_call_waits(&host, || {
        let (status, cleared) = ask(&host, "POST", "/v1/queues/echo@./clear", &[], b"{}");
        let told = (&cleared["cleared"], &cleared["queued"], &cleared["paused"]);
        assert_eq!((status, told), (200, (&json!(1), &json!(0), &json!(true))), "{cleared}");
    });
    assert_eq!(answer["error"]["code"], "cancelled", "{answer}");
    assert_eq!(aop(&host, &["queue", "resume"], "").status.code(), Some(0));
    let (_, answer) = ask(&host, "POST", "/v1/call/echo", &[], b"{\"task\":\"again\"}");
    assert_eq!(answer["result"], "again", "{answer}");

    let refused = aop(&host, &["queue", "pause", "nobody"], "");
    assert_eq!(refused.status.code(), Some(3));
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(told.contains("`nobody`") && told.contains("aop queue show"), "{told}");
}
