//! Hosts that are processes of their own: killed, frozen, gone.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aop::api::{CallAnswer, Ready};
use aop::host::CallOptions;
use aop::proto::call::Report;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Node, PATIENCE, SLACK, failure, task, timed};

/// An `aop node` that runs the three builtin agents, one that answers with its input, and one that says nothing for a minute.
pub(super) struct Process {
    child: Child,
    pub(super) ready: Ready,
    _folder: TempDir,
}

impl Process {
    pub(super) fn start() -> Process {
        Process::start_at(&[])
    }

    pub(super) fn start_at(bootstrap: &[&Process]) -> Process {
        Process::with_agents(bootstrap, &[])
    }

    /// One that runs further agents, each given by its name and the text of its file.
    pub(super) fn with_agents(bootstrap: &[&Process], agents: &[(&str, String)]) -> Process {
        let folder = TempDir::new().unwrap();
        for (name, text) in agents {
            std::fs::write(folder.path().join(format!("{name}.toml")), text).unwrap();
        }
        for builtin in ["echo", "sleep", "fail"] {
            let text = format!(
                "[agent]\nname = \"{builtin}\"\ndescription = \"d\"\nmax_concurrency = 1\n\
                 [agent.run]\nbuiltin = \"{builtin}\"\n"
            );
            std::fs::write(folder.path().join(format!("{builtin}.toml")), text).unwrap();
        }
        for (name, command) in [("mirror", "[\"cat\"]"), ("stall", "[\"sleep\", \"60\"]")] {
            let text = format!(
                "[agent]\nname = \"{name}\"\ndescription = \"d\"\nmax_concurrency = 1\n\
                 [agent.run]\ncommand = {command}\n"
            );
            std::fs::write(folder.path().join(format!("{name}.toml")), text).unwrap();
        }
        Process::in_folder(folder, bootstrap)
    }

    /// Kills it and starts it again, with the same agents and the same data.
    pub(super) fn killed_and_started(mut self, bootstrap: &[&Process]) -> Process {
        self.signal("-KILL");
        self.child.wait().unwrap();
        let folder = std::mem::replace(&mut self._folder, TempDir::new().unwrap());
        Process::in_folder(folder, bootstrap)
    }

    /// Until so many calls wait for one of its agents. Another process tells nobody, so it is asked.
    pub(super) async fn until_queued(&self, agent: &str, count: u64) {
        let queued = || super::tasks::get(self, &format!("/v1/queues/{agent}"))["queued"].as_u64().unwrap();
        let waits = async {
            while queued() < count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, waits).await.unwrap_or_else(|_| panic!("{count} calls wait for {agent}"));
    }

    pub(super) fn folder(&self) -> &std::path::Path {
        self._folder.path()
    }

    fn in_folder(folder: TempDir, bootstrap: &[&Process]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aop"));
        command.args(["node", "--json", "--http", "127.0.0.1:0", "--network", "test"]);
        command.args(["--listen", "/ip4/127.0.0.1/tcp/0", "--agents"]).arg(folder.path());
        for node in bootstrap {
            command.args(["--bootstrap", &node.ready.listen[0]]);
        }
        command.arg("--data-dir").arg(folder.path().join("data"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        Process { child, ready, _folder: folder }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Three nodes that run one agent `rep` of one owner, each with so many places.
pub(super) fn three_hosts(places: usize, run: &str) -> [Process; 3] {
    let folder = TempDir::new().unwrap();
    let key = folder.path().join("owner.key");
    let made = Command::new(env!("CARGO_BIN_EXE_aop")).args(["keys", "new", "--out"]).arg(&key).output();
    assert!(made.as_ref().is_ok_and(|made| made.status.success()), "{made:?}");
    let text = format!(
        "[agent]\nname = \"rep\"\ndescription = \"d\"\nmax_concurrency = {places}\nowner_key = {key:?}\n\
         [agent.run]\n{run}\n"
    );
    let agents = [("rep", text)];
    let seed = Process::with_agents(&[], &agents);
    let others = [Process::with_agents(&[&seed], &agents), Process::with_agents(&[&seed], &agents)];
    // The key is read while they start.
    let [second, third] = others;
    [seed, second, third]
}

async fn caller_of(host: &Process) -> Node {
    let caller = Node::start_at(2, vec![host.ready.listen[0].parse().unwrap()], Vec::new()).await;
    caller.knows(&["echo".into(), "sleep".into()]).await;
    caller
}

/// Calls the sleeper, does `harm` once it works, and tells how the call ended and how long after the harm.
async fn harmed(caller: &Node, seconds: u64, harm: impl FnOnce()) -> (CallAnswer, Duration) {
    let (progress, mut reports) = mpsc::channel(8);
    let options = CallOptions { reports: Some(progress), ..timed(Duration::from_secs(seconds)) };
    let call = caller.handle().call("sleep", task(60_000), options);
    let harming = async {
        while !matches!(reports.recv().await, Some(Report::Progress(_))) {
            assert!(!reports.is_closed(), "the call ended before it began");
        }
        harm();
        Instant::now()
    };
    let (answer, harmed) = tokio::join!(call, harming);
    (answer.unwrap(), harmed.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_killed_leaves_the_call_in_doubt_when_it_was_asked_for_in_vain() {
    let host = Process::start();
    let caller = caller_of(&host).await;
    let (answer, took) = harmed(&caller, 25, || host.signal("-KILL")).await;
    assert_eq!(failure(&answer), ("unreachable", "unknown"));
    assert_eq!(answer.served_by, Some(host.ready.peer_id.clone()));
    assert!(took < Duration::from_secs(10) + SLACK, "{took:?}");

    let started = Instant::now();
    let answer = caller.call("sleep", task(1), 25.0).await;
    assert_eq!(failure(&answer), ("circuit_open", "not_started"), "it was not reached a moment ago");
    assert!(started.elapsed() < SLACK, "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_host_leaves_the_call_in_doubt_at_its_deadline() {
    let host = Process::start();
    let caller = caller_of(&host).await;
    let started = Instant::now();
    let (answer, _) = harmed(&caller, 3, || host.signal("-STOP")).await;
    assert_eq!(failure(&answer), ("deadline", "unknown"));
    assert!(started.elapsed() < Duration::from_secs(3) + SLACK, "{:?}", started.elapsed());
    let answer = caller.call("echo", task(1), 2.0).await;
    let (code, outcome) = failure(&answer);
    assert!(["deadline", "unreachable"].contains(&code) && outcome == "not_started", "{answer:?}");
    host.signal("-CONT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_freezes_is_given_up_within_twenty_seconds_however_long_the_call_may_take() {
    let host = Process::start();
    let caller = caller_of(&host).await;
    let (answer, took) = harmed(&caller, 60, || host.signal("-STOP")).await;
    assert_eq!(failure(&answer), ("unreachable", "unknown"));
    assert!(took < Duration::from_secs(20) + SLACK, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_wait_for_a_slow_agent_have_not_begun_and_delay_no_other() {
    let host = Process::start();
    let caller = caller_of(&host).await;
    let slow = futures::future::join_all((0..70).map(|_| caller.call("sleep", task(20_000), 6.0)));
    let quick = async {
        // Nearly as many as one node may offer.
        host.until_queued("sleep", 40).await;
        let started = Instant::now();
        for number in 0..20 {
            let answer = caller.call("echo", task(number), 5.0).await;
            assert!(answer.success, "{answer:?}");
        }
        started.elapsed()
    };
    let (slow, quick) = tokio::join!(slow, quick);
    assert!(quick < SLACK, "{quick:?}");
    let not_started = slow.iter().filter(|answer| failure(answer).1 == "not_started").count();
    // The one with the only place, and some that get it in their last moment.
    assert!(not_started >= 64, "{not_started}");
}

/// An agent of one owner on three hosts, which lists the ids of its calls in a file; two of the hosts fail under load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_three_hosts_fail_and_the_third_serves_all_calls() {
    let folder = TempDir::new().unwrap();
    let ran = folder.path().join("ran");
    let run = format!(
        "command = [\"sh\", \"-c\", 'read -r task; echo \"$task\" >> \"$0\"; echo \"$task\"', {ran:?}]"
    );
    let [seed, killed, stopped] = three_hosts(8, &run);
    let caller = Node::start_at(2, vec![seed.ready.listen[0].parse().unwrap()], Vec::new()).await;
    let hosts = async || caller.handle().show("rep").await.map_or(0, |agent| agent.agent.replicas.len());
    let mut events = caller.handle().events();
    timeout(PATIENCE, async {
        while hosts().await < 3 {
            // A missed event only means that there is something to look at.
            let _event = events.recv().await;
        }
    })
    .await
    .expect("three hosts");
    let call = async |number: usize| {
        let started = Instant::now();
        let answer = caller.call("rep", json!({ "task": format!("call-{number}") }), 20.0).await;
        (answer, started.elapsed())
    };
    // Hosts that are not met yet are looked for and tried from time to time.
    let (mut number, mut served) = (0, BTreeSet::new());
    let began = Instant::now();
    while served.len() < 3 && began.elapsed() < PATIENCE {
        let (answer, _) = call(number).await;
        served.insert(answer.served_by.clone().unwrap_or_else(|| panic!("{answer:?}")));
        number += 1;
    }
    assert_eq!(served.len(), 3, "they share the work: {served:?}");

    killed.signal("-KILL");
    stopped.signal("-STOP");
    let failed_at = Instant::now();
    let (mut calls, mut slow) = (0, 0);
    while failed_at.elapsed() < Duration::from_secs(12) {
        let begins_late = failed_at.elapsed() > Duration::from_secs(5);
        let (answer, took) = call(number).await;
        number += 1;
        if begins_late {
            calls += 1;
            assert!(answer.success, "{answer:?}");
            assert_eq!(answer.served_by.as_ref(), Some(&seed.ready.peer_id));
            slow += usize::from(took > Duration::from_secs(1));
        }
    }
    stopped.signal("-CONT");
    assert!(calls > 20 && slow <= calls / 20, "{slow} of {calls}");
    let lines = std::fs::read_to_string(&ran).unwrap();
    let distinct: BTreeSet<&str> = lines.lines().collect();
    assert_eq!(distinct.len(), lines.lines().count(), "no call ran twice");
}
