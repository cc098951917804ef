//! Calls as users make them: `POST /v1/call` and `aop call`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use aop::api::CallAnswer;
use serde_json::{Value, json};

use super::processes::{Process, three_hosts};
use super::{PATIENCE, SLACK};

const INPUT: &[u8] = br#"{"task":"x"}"#;

fn post(host: &Process, path: &str, body: &[u8]) -> (u16, Value) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let url = format!("{}/v1/call/{path}", host.ready.http);
    let mut response = agent.post(&url).content_type("application/json").send(body).unwrap();
    (response.status().as_u16(), response.body_mut().read_json().unwrap())
}

/// Ids and hosts of the agents of this name.
fn ids(node: &Process, name: &str) -> Vec<(String, String)> {
    let url = format!("{}/v1/agents?limit=100", node.ready.http);
    let page: Value = ureq::get(&url).call().unwrap().body_mut().read_json().unwrap();
    let named = page["results"].as_array().unwrap().iter().filter(|agent| agent["agent"] == name);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    named.map(|agent| (text(&agent["id"]), text(&agent["replicas"][0]["peer"]))).collect()
}

fn aop(host: &Process, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aop"));
    command.arg("call").args(args).args(["--node", &host.ready.http]);
    command.stdin(Stdio::null()).output().unwrap()
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

#[test]
fn http_answers_200_however_the_call_ends_and_says_who_is_to_blame_otherwise() {
    let host = Process::start();
    let (status, answer) = post(&host, "echo@.?timeout=5", br#"{"task":"hi"}"#);
    assert_eq!((status, &answer["result"], &answer["success"]), (200, &json!("hi"), &json!(true)));
    assert!(answer.get("error").is_none() && answer.get("outcome").is_none(), "{answer}");
    let (status, answer) = post(&host, "fail", br#"{"task":"x"}"#);
    assert_eq!((status, &answer["outcome"]), (200, &json!("done")));
    assert!(answer.get("result").is_none(), "{answer}");
    let (status, answer) = post(&host, "sleep?timeout=0.2", br#"{"task":"20000"}"#);
    assert_eq!(
        (status, &answer["error"]["code"], &answer["outcome"]),
        (200, &json!("deadline"), &json!("unknown"))
    );
    let large = vec![b' '; aop::agents::CALL_BYTES_MAX + 1];
    for (path, body, status, code) in [
        ("nobody@.", &b"{}"[..], 404, "not_found"),
        ("echo", b"{no", 400, "bad_request"),
        ("echo?timeout=never", b"{}", 400, "bad_request"),
        ("echo?timeout=-1", b"{}", 400, "bad_request"),
        ("echo?timeout=301", b"{}", 400, "bad_request"),
        ("echo?tiemout=3", b"{}", 400, "bad_request"),
        ("echo", &large, 413, "too_large"),
    ] {
        let (given, answer) = post(&host, path, body);
        assert_eq!((given, &answer["error"]["code"]), (status, &json!(code)), "{path}: {answer}");
        assert!(!answer["error"]["fix"].as_str().unwrap().is_empty(), "{path}");
    }
}

/// Until a node knows so many hosts of the agent `rep`.
fn until_hosts(node: &Process, count: usize) {
    let began = Instant::now();
    let known = || {
        let url = format!("{}/v1/agents/rep", node.ready.http);
        let mut shown = ureq::get(&url).call().ok()?;
        let shown: Value = shown.body_mut().read_json().ok()?;
        shown["replicas"].as_array().map(Vec::len)
    };
    while known() != Some(count) {
        assert!(began.elapsed() < PATIENCE, "{:?}", known());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Its own host is one of three to a node, in each order but that of `load`, and in a conversation.
#[test]
fn a_host_is_to_its_own_clients_one_of_the_hosts_of_its_agent() {
    let hosts = three_hosts(4, "builtin = \"echo\"");
    let last = &hosts[2];
    until_hosts(last, 3);
    let served = |query: &str| {
        let (_, answer) = post(last, &format!("rep{query}"), INPUT);
        assert_eq!(answer["success"], json!(true), "{answer}");
        answer["served_by"].as_str().unwrap().to_owned()
    };
    assert!((0..6).all(|_| served("") == last.ready.peer_id), "nothing is nearer than the own place");
    // Whoever was never met is looked for by the first calls.
    let began = Instant::now();
    let by_turns = |calls: usize| -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        (0..calls).for_each(|_| *counts.entry(served("?balance=round_robin")).or_default() += 1);
        counts
    };
    while by_turns(3).len() < 3 {
        assert!(began.elapsed() < PATIENCE, "all three are found");
    }
    assert!(by_turns(9).values().all(|count| *count == 3), "three each");
    let hosts_of: Vec<String> = (0..24).map(|number| served(&format!("?conversation=c{number}"))).collect();
    let again: Vec<String> = (0..24).map(|number| served(&format!("?conversation=c{number}"))).collect();
    assert_eq!(hosts_of, again, "a conversation stays where it is");
    assert_eq!(hosts_of.iter().collect::<BTreeSet<_>>().len(), 3, "and not all are at one host");
}

/// Twelve works of two seconds at three hosts with four places each, asked for at one of them.
#[test]
fn a_host_whose_places_are_taken_calls_the_other_hosts_of_its_agent() {
    let hosts = three_hosts(4, "builtin = \"sleep\"");
    let last = &hosts[2];
    until_hosts(last, 3);
    // Whoever was never met is looked for by the first calls.
    let began = Instant::now();
    let served = |count: usize, task: &'static [u8]| -> BTreeMap<String, usize> {
        let calls: Vec<_> = std::thread::scope(|scope| {
            let calls: Vec<_> =
                (0..count).map(|_| scope.spawn(|| post(last, "rep?timeout=30", task).1)).collect();
            calls.into_iter().map(|call| call.join().unwrap()).collect()
        });
        let mut served = BTreeMap::new();
        for answer in calls {
            assert_eq!(answer["success"], json!(true), "{answer}");
            *served.entry(answer["served_by"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        served
    };
    while served(12, br#"{"task":"300"}"#).len() < 3 {
        assert!(began.elapsed() < PATIENCE, "all three are found");
    }
    let began = Instant::now();
    let served = served(12, br#"{"task":"2000"}"#);
    // At one host they take six seconds; on a busy machine one of the others may be passed over.
    assert!(
        served.len() > 1 && began.elapsed() < Duration::from_millis(5_500),
        "{served:?} {:?}",
        began.elapsed()
    );
}

/// A client that goes away ends the work at the host that its node called: the one place of the agent is free again.
#[test]
fn a_client_that_goes_away_ends_the_work_on_another_node() {
    let host = Process::start();
    let caller = Process::start_at(&[&host]);
    // The caller has an agent of this name itself, so that the host's is called by its id.
    let id = loop {
        let of_host = ids(&caller, "stall@.").into_iter().find(|(_, peer)| *peer == host.ready.peer_id);
        match of_host {
            Some((id, _)) => break id,
            None => std::thread::park_timeout(Duration::from_millis(20)),
        }
    };
    for name in ["stall", "stall@."] {
        let (_, answer) = post(&caller, &format!("{name}?timeout=0.2"), INPUT);
        assert_eq!(answer["served_by"], caller.ready.peer_id.as_str(), "the node's own comes first");
    }

    let mut client = TcpStream::connect(caller.ready.http.trim_start_matches("http://")).unwrap();
    write!(
        client,
        "POST /v1/call/{id} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        INPUT.len()
    )
    .unwrap();
    client.write_all(INPUT).unwrap();
    // With the one place taken a call waits until its deadline; else it begins.
    let waits = || post(&host, "stall@.?timeout=0.2", INPUT).1["outcome"] == "not_started";
    let started = Instant::now();
    while !waits() {
        assert!(started.elapsed() < PATIENCE, "the call never reached the host");
    }
    drop(client);
    let started = Instant::now();
    while waits() {
        assert!(started.elapsed() < SLACK, "the work goes on though nobody waits for it");
    }
}

#[test]
fn the_command_prints_the_result_and_exits_by_how_the_call_ended() {
    let host = Process::start();
    let told = aop(&host, &["echo", "--task", "hello\n\u{1b}[2Jworld"]);
    assert_eq!((told.status.code(), out(&told)), (Some(0), "hello\n[2Jworld\n"));
    let told = aop(&host, &["mirror", r#"{"task": "a"}"#]);
    assert_eq!((told.status.code(), out(&told)), (Some(0), "{\n  \"task\": \"a\"\n}\n"));
    let told = aop(&host, &["echo", r#"{"task": "7"}"#, "--json"]);
    let answer: CallAnswer = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((answer.result, answer.served_by), (json!("7"), Some(host.ready.peer_id.clone())));
    for (args, code) in [
        (&["fail", "--task", "x"][..], 1),
        (&["fail", "--task", "x", "--json"], 1),
        (&["echo", "{no"], 2),
        (&["echo", "--timeout", "0"], 2),
        (&["echo", "{}", "--task", "x"], 2),
        (&["echo"], 1),
        (&["nobody"], 3),
        (&["sleep", "--task", "20000", "--timeout", "0.2"], 4),
        (&["sleep", "--task", "20000", "--timeout", "0.2", "--json"], 4),
    ] {
        let told = aop(&host, args);
        let said = String::from_utf8_lossy(&told.stderr);
        assert_eq!(told.status.code(), Some(code), "{args:?}: {said}");
        assert_eq!(
            out(&told).is_empty(),
            !args.contains(&"--json"),
            "{args:?}: data on stdout, talk on stderr"
        );
    }
}
