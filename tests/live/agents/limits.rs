//! What the host of an agent lets it take, and whom it lets in.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use aop::agents::AgentState;
use aop::proto::call::Outcome;
use serde_json::json;

use super::folder::{Folder, until};
use super::node::Node;
use super::server::Server;
use super::{all_gone, call, ended};

/// Takes so many megabytes, says that it has them, and would keep them for ten minutes.
fn hog(megabytes: u32) -> String {
    format!("x = b'x' * ({megabytes} << 20); print(len(x), flush=True); import time; time.sleep(600)")
}

#[tokio::test]
async fn a_program_that_takes_more_memory_than_its_file_says_is_ended() {
    let folder = Folder::new();
    folder.program("hog.sh", &format!("echo $$ > a.pid; exec python3 -c \"{}\"", hog(400)));
    folder.agent_with("hog", "max_memory = \"64M\"", "command = [\"./hog.sh\"]");
    let failure = call(&folder.agents(), "hog", json!({"task": ""})).await.unwrap_err();
    assert_eq!(ended(&failure), ("too_hungry", Outcome::Done));
    assert!(failure.message.contains("`max_memory`, 64 MiB"), "{failure}");
    all_gone(&folder).await;
}

#[tokio::test]
async fn a_program_and_its_children_have_one_memory() {
    let folder = Folder::new();
    let child = |number: u32| format!("python3 -c \"{}\" & echo $! > {number}.pid", hog(80));
    folder.program("two.sh", &format!("{}\n{}\nwait", child(1), child(2)));
    folder.agent_with("two", "max_memory = \"128M\"", "command = [\"./two.sh\"]");
    folder.agent_with(
        "one",
        "max_memory = \"128M\"",
        "command = [\"python3\", \"-c\", \"print(len(b'x' * (80 << 20)))\"]",
    );
    let agents = folder.agents();
    assert_eq!(call(&agents, "one", json!({"task": ""})).await.unwrap(), 80 << 20);
    let failure = call(&agents, "two", json!({"task": ""})).await.unwrap_err();
    assert_eq!(ended(&failure), ("too_hungry", Outcome::Done));
    all_gone(&folder).await;
}

#[tokio::test]
async fn a_program_that_starts_more_processes_than_its_file_says_is_ended() {
    let folder = Folder::new();
    let fork = |count: u32| {
        format!(
            "command = [\"sh\", \"-c\", \"for n in $(seq {count}); do sleep 600 & echo $! > $n.pid; done; wait\"]"
        )
    };
    folder.agent_with("forks", "max_processes = 4", &fork(8));
    // Without a word of its file, too.
    folder.agent("bomb", &fork(100));
    folder.agent_with(
        "pool",
        "max_processes = 4",
        "command = [\"sh\", \"-c\", \"sleep 0.5 & sleep 0.5 & wait; echo done\"]",
    );
    let agents = folder.agents();
    for (agent, words) in [("forks", "`max_processes`, 4;"), ("bomb", "`max_processes`, 64;")] {
        let failure = call(&agents, agent, json!({"task": ""})).await.unwrap_err();
        assert_eq!(ended(&failure), ("too_hungry", Outcome::Done), "{agent}");
        assert!(failure.message.contains(words), "{failure}");
        all_gone(&folder).await;
    }
    assert_eq!(call(&agents, "pool", json!({"task": ""})).await.unwrap(), "done");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_data_of_a_program_is_bounded_from_its_start() {
    let folder = Folder::new();
    // The bound is set right after the start, which a shell may outrun.
    let print = "command = [\"sh\", \"-c\", \"sleep 0.3; ulimit -d\"]";
    folder.agent_with("bounded", "max_memory = \"64M\"", print);
    folder.agent("free", print);
    let agents = folder.agents();
    let bound = call(&agents, "bounded", json!({"task": ""})).await.unwrap();
    assert_eq!(bound, (64 * 1024) + (2 * 1024 * 1024), "kilobytes");
    assert_ne!(call(&agents, "free", json!({"task": ""})).await.unwrap(), bound);
}

#[tokio::test]
async fn a_caller_that_calls_too_often_is_told_when_the_next_call_may_come() {
    let folder = Folder::new();
    folder.agent_with("rare", "rate_limit = \"2/h\"", "builtin = \"echo\"");
    let agents = folder.agents();
    // What does not fit the schema never begins, and costs nothing.
    call(&agents, "rare", json!({"img": "x"})).await.unwrap_err();
    for _ in 0..2 {
        call(&agents, "rare", json!({"task": "x"})).await.unwrap();
    }
    let failure = call(&agents, "rare", json!({"task": "x"})).await.unwrap_err();
    assert_eq!(ended(&failure), ("rate_limited", Outcome::NotStarted));
    let wait = failure.retry_after_ms.unwrap();
    assert!((1_700_000..=1_800_000).contains(&wait), "{wait}");
}

#[test]
fn every_node_that_calls_has_a_rate_of_its_own() {
    let folder = Folder::new();
    folder.agent_with("rare", "rate_limit = \"1/h\"\nmax_retries = 0", "builtin = \"echo\"");
    let host = Node::start(&[folder.path()], None);
    let others = [Node::start(&[], Some(&host)), Node::start(&[], Some(&host))];
    for node in others.iter().chain([&host]) {
        node.until("rare@.", "/callable", &json!(true));
        let answer = node.post("/v1/call/rare@.", &json!({"task": "x"}));
        assert_eq!(answer["result"], "x", "{answer}");
        let refused = node.post("/v1/call/rare@.", &json!({"task": "x"}));
        assert_eq!(refused["error"]["code"], "rate_limited", "{refused}");
        assert_eq!(refused["outcome"], "not_started", "{refused}");
        assert!(
            refused["error"]["retry_after_ms"].as_u64().is_some_and(|wait| wait > 3_000_000),
            "{refused}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_agent_finishes_what_runs_and_the_rest_waits_until_it_is_resumed_or_cleared() {
    let folder = Folder::new();
    folder.agent_with("slow", "max_concurrency = 1", "builtin = \"sleep\"");
    let agents = folder.agents();
    let name = "slow@.".parse().unwrap();
    let begin = |task: &'static str| {
        let agents = agents.clone();
        tokio::spawn(async move { call(&agents, "slow", json!({"task": task})).await })
    };
    let running = begin("500");
    until(|| agents.queue(&name).unwrap().running == 1).await;
    let paused = agents.pause(&name).unwrap();
    assert!(paused.is_paused && paused.running == 1 && paused.places == 1, "{paused:?}");
    let waiting = begin("1");
    until(|| agents.queue(&name).unwrap().queued == 1).await;
    running.await.unwrap().unwrap();
    let state = agents.queue(&name).unwrap();
    assert_eq!((state.running, state.queued, state.completed), (0, 1, 1), "{state:?}");
    assert!(state.mean_work.is_some_and(|mean| mean.as_millis() >= 500), "{state:?}");
    assert_eq!(agents.state(&name), Some(AgentState::Busy));
    assert!(!agents.resume(&name).unwrap().is_paused);
    waiting.await.unwrap().unwrap();

    agents.pause(&name).unwrap();
    let waiting = begin("1");
    until(|| agents.queue(&name).unwrap().queued == 1).await;
    assert_eq!(agents.clear(&name), Some(1));
    let failure = waiting.await.unwrap().unwrap_err();
    assert_eq!(ended(&failure), ("cancelled", Outcome::NotStarted));
    // What its file says since does not resume it, and who waits for what it said before calls again.
    let waiting = begin("1");
    until(|| agents.queue(&name).unwrap().queued == 1).await;
    let mut changed: Vec<_> = agents.list().values().cloned().collect();
    changed[0].offer.card.description = "changed".into();
    agents.replace(changed);
    assert!(agents.queue(&name).unwrap().is_paused);
    assert_eq!(ended(&waiting.await.unwrap().unwrap_err()), ("busy", Outcome::NotStarted));
    assert_eq!(agents.queue(&"nobody@.".parse().unwrap()), None);
}

/// A slow agent, one that crashes, one that takes memory, one that forks and one that never ends, all called all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_that_misbehave_are_ended_and_named_and_a_healthy_one_beside_them_answers() {
    let folder = Folder::new();
    folder.agent("well", "builtin = \"echo\"");
    folder.agent_with("slow", "max_concurrency = 1\ntimeout_s = 1", "builtin = \"sleep\"");
    folder.agent("crash", "command = [\"sh\", \"-c\", \"exit 3\"]");
    folder.program("hog.sh", &format!("exec python3 -c \"{}\"", hog(200)));
    folder.agent_with("hog", "max_memory = \"64M\"", "command = [\"./hog.sh\"]");
    let forks = "command = [\"sh\", \"-c\", \"for n in 1 2 3 4 5 6 7 8; do sleep 600 & done; wait\"]";
    folder.agent_with("forks", "max_processes = 4", forks);
    folder.agent_with(
        "endless",
        "timeout_s = 1",
        "command = [\"sh\", \"-c\", \"while :; do sleep 1; done\"]",
    );
    let agents = folder.agents();
    let is_over = Arc::new(AtomicBool::new(false));
    let bad = [
        ("slow", "deadline", Outcome::Unknown),
        ("crash", "agent_failed", Outcome::Done),
        ("hog", "too_hungry", Outcome::Done),
        ("forks", "too_hungry", Outcome::Done),
        ("endless", "deadline", Outcome::Unknown),
    ];
    let loops = bad.map(|(name, code, outcome)| {
        let (agents, is_over) = (agents.clone(), is_over.clone());
        tokio::spawn(async move {
            let mut ends = 0;
            while ends < 2 || !is_over.load(Relaxed) {
                let failure = call(&agents, name, json!({"task": "60000"})).await.unwrap_err();
                assert_eq!(ended(&failure), (code, outcome), "{name}: {failure}");
                ends += 1;
            }
        })
    });
    let mut answered = 0;
    while answered < 500 || loops.iter().filter(|one| one.is_finished()).count() < loops.len() {
        call(&agents, "well", json!({"task": "x"})).await.unwrap();
        answered += 1;
        is_over.store(answered >= 500, Relaxed);
        tokio::task::yield_now().await;
    }
    for one in loops {
        one.await.unwrap();
    }
    assert_eq!(agents.state(&"well@.".parse().unwrap()), Some(AgentState::Active));
    for (name, ..) in bad {
        assert_eq!(agents.state(&format!("{name}@.").parse().unwrap()), Some(AgentState::Error), "{name}");
    }
}

#[tokio::test]
async fn runs_that_fail_through_the_agent_are_counted_whoever_called() {
    let folder = Folder::new();
    folder.agent("crash", "command = [\"sh\", \"-c\", \"if [ -e well ]; then cat; else exit 3; fi\"]");
    let agents = folder.agents();
    let name = "crash@.".parse().unwrap();
    for failing in 1..3 {
        call(&agents, "crash", json!({"task": ""})).await.unwrap_err();
        call(&agents, "crash", json!({"img": "no task"})).await.unwrap_err();
        assert_eq!(agents.queue(&name).unwrap().failing, failing);
    }
    std::fs::write(folder.path().join("well"), "").unwrap();
    call(&agents, "crash", json!({"task": ""})).await.unwrap();
    let state = agents.queue(&name).unwrap();
    assert_eq!((state.failing, state.failed, state.completed), (0, 2, 1));
}

#[tokio::test]
async fn a_server_that_takes_no_calls_now_says_when_it_will() {
    let later = httpdate_in(120);
    let server = Server::start(move |request| match request.path.as_str() {
        "/seconds" => (503, "retry-after: 7".into()),
        "/date" => (503, format!("retry-after: {later}")),
        "/limited" => (429, "retry-after: 86400".into()),
        _ => (503, String::new()),
    })
    .await;
    let folder = Folder::new();
    for path in ["seconds", "date", "limited", "down"] {
        folder.agent(path, &format!("http = {{ url = \"{}/{path}\" }}", server.url()));
    }
    let agents = folder.agents();
    for (agent, waits) in
        [("seconds", 7_000..=7_000), ("date", 100_000..=120_000), ("limited", 3_600_000..=3_600_000)]
    {
        let failure = call(&agents, agent, json!({"task": ""})).await.unwrap_err();
        assert_eq!(ended(&failure), ("busy", Outcome::NotStarted), "{agent}");
        assert!(waits.contains(&failure.retry_after_ms.unwrap()), "{failure:?}");
    }
    let failure = call(&agents, "down", json!({"task": ""})).await.unwrap_err();
    assert_eq!((ended(&failure), failure.retry_after_ms), (("agent_failed", Outcome::Done), None));
}

/// The date so many seconds from now, as `date` writes it.
fn httpdate_in(seconds: u32) -> String {
    let date = std::process::Command::new("date")
        .args(["-u", "-d", &format!("+{seconds} seconds"), "+%a, %d %b %Y %H:%M:%S GMT"])
        .env("LC_ALL", "C")
        .output();
    String::from_utf8(date.unwrap().stdout).unwrap().trim().to_owned()
}

#[test]
fn metrics_tell_what_the_agents_of_a_node_do_together_and_each() {
    let folder = Folder::new();
    folder.agent("good", "builtin = \"echo\"");
    folder.agent("bad", "builtin = \"fail\"");
    let node = Node::start(&[folder.path()], None);
    for agent in ["good", "bad", "bad"] {
        node.post(&format!("/v1/call/{agent}@."), &json!({"task": "x"}));
    }
    let metrics = ureq::get(format!("{}/metrics", node.ready.http))
        .call()
        .unwrap()
        .body_mut()
        .read_to_string()
        .unwrap();
    for line in [
        "aop_agents{state=\"active\"} 1",
        "aop_agents{state=\"error\"} 1",
        "aop_agents_paused 0",
        "aop_agent_calls_in_flight{stage=\"queued\"} 0",
        "aop_agent_runs_total{result=\"completed\"} 1",
        "aop_agent_runs_total{result=\"failed\"} 2",
        "aop_agent_calls_total{agent=\"good@.\",outcome=\"ok\"} 1",
    ] {
        assert!(metrics.lines().any(|told| told == line), "{line} in {metrics}");
    }
}
