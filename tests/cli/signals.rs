//! How `aop node` ends when it is asked to: once, however often it is asked within a second, and with all that it started.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use tempfile::TempDir;

use super::processes::{Node, PATIENCE, until};

const LISTEN: &str = "/ip4/127.0.0.1/tcp/0";

fn start(dir: &Path) -> Node {
    Node::start_by(Command::new(env!("CARGO_BIN_EXE_aop")), dir, LISTEN, &[])
}

fn is_running(pid: &str) -> bool {
    // A zombie runs no more: who started it is gone, and nobody of this test collects it.
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[test]
fn a_signal_that_comes_twice_is_one_and_the_end_is_clean() {
    for signal in ["-TERM", "-INT", "-HUP"] {
        let dir = TempDir::new().unwrap();
        let mut node = start(dir.path());
        node.signal(signal);
        node.signal(signal);
        assert_eq!(node.child.wait().unwrap().code(), Some(0), "{signal}");
        assert!(!dir.path().join("node.json").exists(), "{signal}");
    }
}

/// A terminal that closes hangs up.
#[cfg(target_os = "linux")]
#[test]
fn a_node_that_is_hung_up_leaves_neither_programs_nor_its_address_behind() {
    let dir = TempDir::new().unwrap();
    let (agents, pid_file) = (dir.path().join("agents"), dir.path().join("pid"));
    fs::create_dir(&agents).unwrap();
    let program = format!("echo $$ > {0}.new; mv {0}.new {0}; sleep 300; true", pid_file.display());
    let file = format!(
        "[agent]\nname = \"slow\"\ndescription = \"d\"\n\
         [agent.run]\ncommand = [\"sh\", \"-c\", \"{program}\"]\n"
    );
    fs::write(agents.join("slow.toml"), file).unwrap();
    let mut command = Command::new("env");
    command.arg(format!("AOP_AGENTS={}", agents.display())).arg(env!("CARGO_BIN_EXE_aop"));
    let mut node = Node::start_by(command, dir.path(), LISTEN, &[]);
    let url = node.ready.http.clone();
    let call = std::thread::spawn(move || {
        Command::new(env!("CARGO_BIN_EXE_aop")).args(["call", "slow", "--task", "x", "--node", &url]).output()
    });
    until("the program runs", PATIENCE, || pid_file.exists());
    let pid = fs::read_to_string(&pid_file).unwrap().trim().to_owned();
    assert!(is_running(&pid));
    node.signal("-HUP");
    assert_eq!(node.child.wait().unwrap().code(), Some(0));
    until("the program ended with its node", PATIENCE, || !is_running(&pid));
    assert!(!dir.path().join("node.json").exists());
    let called = call.join().unwrap().unwrap();
    assert_ne!(called.status.code(), Some(0), "the call did not work");
}

#[cfg(target_os = "linux")]
#[test]
fn a_node_that_was_started_to_outlive_its_terminal_does() {
    let dir = TempDir::new().unwrap();
    let mut command = Command::new("nohup");
    command.arg(env!("CARGO_BIN_EXE_aop"));
    let mut node = Node::start_by(command, dir.path(), LISTEN, &[]);
    node.signal("-HUP");
    let asked = Instant::now();
    let answers = || ureq::get(format!("{}/healthz", node.ready.http)).call().is_ok();
    until("it answers after a second of its own stop time", PATIENCE, || {
        assert!(answers());
        asked.elapsed().as_millis() > 500
    });
    assert!(node.child.try_wait().unwrap().is_none());
    node.signal("-TERM");
    assert_eq!(node.child.wait().unwrap().code(), Some(0));
}
