//! How `aop node` ends when it is asked to: once, however often it is asked within a second, and with all that it started.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
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
    for signal in ["-TERM", "-INT"] {
        let dir = TempDir::new().unwrap();
        let mut node = start(dir.path());
        node.signal(signal);
        node.signal(signal);
        assert_eq!(node.child.wait().unwrap().code(), Some(0), "{signal}");
        assert!(!dir.path().join("node.json").exists(), "{signal}");
    }
}

/// Its stop waits for the open call, for a second and a half.
#[test]
fn a_signal_that_comes_later_ends_the_node_at_once_as_that_signal_does() {
    let dir = TempDir::new().unwrap();
    let agents = dir.path().join("agents");
    fs::create_dir(&agents).unwrap();
    let (file, started) = (agents.join("slow.toml"), dir.path().join("started"));
    let run = format!("[\"sh\", \"-c\", \"touch {}; sleep 300\"]", started.display());
    fs::write(
        &file,
        format!("[agent]\nname = \"slow\"\ndescription = \"d\"\n[agent.run]\ncommand = {run}\n"),
    )
    .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_aop"));
    command.env("AOP_AGENTS", &agents);
    let mut node = Node::start_by(command, dir.path(), LISTEN, &[]);
    let url = node.ready.http.clone();
    let call = std::thread::spawn(move || {
        Command::new(env!("CARGO_BIN_EXE_aop")).args(["call", "slow", "--task", "x", "--node", &url]).output()
    });
    until("the program runs", PATIENCE, || started.exists());
    node.signal("-TERM");
    // Within a second it would be the same wish.
    std::thread::sleep(std::time::Duration::from_millis(1_050));
    node.signal("-TERM");
    assert_eq!(node.child.wait().unwrap().code(), Some(128 + 15));
    assert!(!dir.path().join("node.json").exists());
    _ = call.join().unwrap();
}

/// None of them tells the node by itself that it changed: the file of the agent is elsewhere, behind a link.
#[test]
fn a_node_that_is_hung_up_by_no_terminal_reads_its_files_again() {
    let dir = TempDir::new().unwrap();
    let [agents, elsewhere, etc] = ["agents", "elsewhere", "etc"].map(|name| dir.path().join(name));
    for folder in [&agents, &elsewhere, &etc] {
        fs::create_dir(folder).unwrap();
    }
    let (file, settings, log) = (elsewhere.join("a.toml"), etc.join("aop.toml"), dir.path().join("log"));
    let agent = |name: &str| {
        format!("[agent]\nname = \"{name}\"\ndescription = \"d\"\n[agent.run]\nbuiltin = \"echo\"\n")
    };
    let set = |level: &str, more: &str| {
        fs::write(&settings, format!("log = \"aop={level}\"\nagents = \"../agents\"\n{more}")).unwrap();
    };
    fs::write(&file, agent("first")).unwrap();
    std::os::unix::fs::symlink(&file, agents.join("a.toml")).unwrap();
    set("warn", "");
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" 2>\"$LOG\"", "sh", env!("CARGO_BIN_EXE_aop")]);
    command.env("AOP_CONFIG", &settings).env("LOG", &log);
    let mut node = Node::start_by(command, &dir.path().join("data"), LISTEN, &[]);
    let url = node.ready.http.clone();
    let shows = |name: &str| ureq::get(format!("{url}/v1/agents/{name}@.")).call().is_ok();
    until("it is offered", PATIENCE, || shows("first"));
    assert_eq!(fs::read_to_string(&log).unwrap(), "");

    fs::write(&file, agent("second")).unwrap();
    set("info", "name = \"atlas\"\n");
    node.signal("-HUP");
    until("another is offered", PATIENCE, || shows("second") && !shows("first"));
    let said = || fs::read_to_string(&log).unwrap();
    until("it is told", PATIENCE, || {
        said().contains("are read again") && said().contains("at the next start")
    });
    assert!(said().lines().any(|line| line.contains("next start") && line.contains("name")), "{}", said());

    fs::write(&settings, "log = 7\n").unwrap();
    node.signal("-HUP");
    until("what is wrong is told", PATIENCE, || said().contains("takes a text in quotes"));
    assert!(shows("second"), "and nothing has changed");
    node.signal("-TERM");
    assert_eq!(node.child.wait().unwrap().code(), Some(0));
}

/// A terminal that closes hangs up.
#[cfg(target_os = "linux")]
#[test]
fn a_node_whose_terminal_closes_leaves_neither_programs_nor_its_address_behind() {
    let dir = TempDir::new().unwrap();
    let (agents, pid_file) = (dir.path().join("agents"), dir.path().join("pid"));
    fs::create_dir(&agents).unwrap();
    let program = format!("echo $$ > {0}.new; mv {0}.new {0}; sleep 300; true", pid_file.display());
    let file = format!(
        "[agent]\nname = \"slow\"\ndescription = \"d\"\n\
         [agent.run]\ncommand = [\"sh\", \"-c\", \"{program}\"]\n"
    );
    fs::write(agents.join("slow.toml"), file).unwrap();
    if !Command::new("script").arg("--version").output().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: a terminal is made by `script` of util-linux, which is not here");
        assert!(std::env::var_os("CI").is_none(), "CI has it");
        return;
    }
    // A terminal, whose other end is `script`; a shell within it becomes the node.
    let mut command = Command::new("sh");
    command.args(["-c", "exec script --quiet --command \"exec $*\" /dev/null", "sh"]);
    command.arg(env!("CARGO_BIN_EXE_aop")).env("AOP_AGENTS", &agents).stdin(Stdio::null());
    let mut node = Node::start_by(command, dir.path(), LISTEN, &[]);
    let ready = fs::read_to_string(dir.path().join("node.json")).unwrap();
    let node_pid = serde_json::from_str::<aop::api::Ready>(&ready).unwrap().pid.unwrap().to_string();
    let url = node.ready.http.clone();
    let call = std::thread::spawn(move || {
        Command::new(env!("CARGO_BIN_EXE_aop")).args(["call", "slow", "--task", "x", "--node", &url]).output()
    });
    until("the program runs", PATIENCE, || pid_file.exists());
    let pid = fs::read_to_string(&pid_file).unwrap().trim().to_owned();
    assert!(is_running(&pid) && is_running(&node_pid));
    node.child.kill().unwrap();
    until("the node ended with its terminal", PATIENCE, || !is_running(&node_pid));
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
