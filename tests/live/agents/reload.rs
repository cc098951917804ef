//! Files of agents that come, change, break and go while real nodes run, seen from another node.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::folder::{Folder, lives};
use super::node::Node;

fn describe(folder: &Folder, name: &str, description: &str) {
    folder.agent_with(name, &format!("description = \"{description}\""), "builtin = \"echo\"");
}

/// Saves as editors do: a new file that is renamed over the old one.
fn save(path: &Path, text: &str) {
    let beside = path.with_extension("toml~");
    fs::write(&beside, text).unwrap();
    fs::rename(beside, path).unwrap();
}

#[test]
fn a_file_that_comes_changes_and_goes_is_seen_on_another_node() {
    let parent = TempDir::new().unwrap();
    let path = parent.path().join("agents");
    let host = Node::start(&[&path], None);
    let other = Node::start(&[], Some(&host));
    // The folder appears later than the node.
    host.until_told("agents: does not exist yet");
    let folder = Folder::at(&path);
    describe(&folder, "a", "first");
    describe(&folder, "stays", "x");
    other.until("a@.", "/description", &json!("first"));
    other.until("a@.", "/callable", &json!(true));

    let file = path.join("a.toml");
    save(
        &file,
        "[agent]\nname = \"a\"\ndescription = \"second\"\ninput_schema = \"in.schema\"\n[agent.run]\nbuiltin = \"echo\"\n",
    );
    host.until_told("in.schema");
    assert_eq!(host.show("a@.").unwrap()["description"], "first", "what cannot be read changes nothing");
    fs::write(path.join("in.schema"), "{\"type\": \"object\"}").unwrap();
    other.until("a@.", "/description", &json!("second"));
    fs::write(path.join("in.schema"), "{\"type\": \"object\", \"required\": [\"n\"]}").unwrap();
    other.until("a@.", "/input_schema/required", &json!(["n"]));

    save(&file, "[agent]\nname = \"a\"\ndescripton = \"third\"\n");
    host.until_told("a.toml:3:1: `agent.descripton` is not a known key");
    describe(&folder, "b", "x");
    other.until("b@.", "/description", &json!("x"));
    assert_eq!(other.show("a@.").unwrap()["description"], "second", "the version before goes on");
    assert_eq!(host.stderr().matches("descripton` is not a known key").count(), 1, "told once");
    save(&file, "[agent]\nname = \"a\"\ndescription = \"third\"\n[agent.run]\nbuiltin = \"echo\"\n");
    other.until("a@.", "/description", &json!("third"));

    fs::remove_file(&file).unwrap();
    other.until("a@.", "", &Value::Null);
    fs::rename(&path, parent.path().join("elsewhere")).unwrap();
    other.until("b@.", "", &Value::Null);
    fs::rename(parent.path().join("elsewhere"), &path).unwrap();
    other.until("stays@.", "/description", &json!("x"));
    describe(&folder, "c", "in the folder that came back");
    other.until("c@.", "/callable", &json!(true));
}

#[test]
fn a_file_that_cannot_be_read_at_the_start_withdraws_nothing() {
    let folder = Folder::new();
    describe(&folder, "a", "x");
    describe(&folder, "gone", "x");
    let host = Node::start(&[folder.path()], None);
    assert!(host.show("a@.").is_some() && host.show("gone@.").is_some());
    let dir = host.stop();

    let good = fs::read_to_string(folder.path().join("a.toml")).unwrap();
    fs::write(folder.path().join("a.toml"), "[agent\n").unwrap();
    fs::remove_file(folder.path().join("gone.toml")).unwrap();
    describe(&folder, "new", "x");
    let host = Node::start_in(dir, &[folder.path()], None);
    assert!(host.stderr().contains("a.toml:1:7: not valid TOML"), "{}", host.stderr());
    for agent in ["a@.", "gone@.", "new@."] {
        assert!(host.show(agent).is_some(), "{agent}: which of them the file offered is not known");
    }
    // What this run read and lost is known to be gone.
    fs::remove_file(folder.path().join("new.toml")).unwrap();
    host.until("new@.", "", &Value::Null);
    assert!(host.show("gone@.").is_some());
    save(&folder.path().join("a.toml"), &good);
    host.until("gone@.", "", &Value::Null);
    assert!(host.show("a@.").is_some());
}

#[test]
fn what_is_wrong_with_files_is_told_at_the_start_and_the_others_run() {
    let folder = Folder::new();
    describe(&folder, "good", "x");
    folder.agent("lost", "command = [\"no-such-program-here\"]");
    folder.agent_with("bad", "timeout_s = 0", "builtin = \"echo\"");
    fs::write(folder.path().join("good.toml.json"), "[").unwrap();
    fs::write(
        folder.path().join("twin.toml"),
        "[agent]\nname = \"good\"\ndescription = \"the other\"\n[agent.run]\nbuiltin = \"fail\"\n",
    )
    .unwrap();
    let node = Node::start(&[folder.path()], None);
    let told = node.stderr();
    for words in [
        "bad.toml:3:13",
        "lost.toml:5:11",
        "no-such-program-here",
        "good.toml.json: not JSON",
        "twin.toml: `good`",
    ] {
        assert!(told.contains(words), "{words} in {told}");
    }
    assert_eq!(node.show("good@.").unwrap()["description"], "x");
    assert!(node.show("lost@.").is_some(), "a program may be installed later");
}

#[test]
fn a_sent_document_runs_nothing_and_says_so() {
    let node = Node::start(&[], None);
    let document = json!([{"agent": {"name": "plain", "description": "d"}},
                          {"agent": {"name": "a", "description": "d", "run": {"builtin": "echo"}}}]);
    let answer = node.post("/v1/agents", &document);
    assert_eq!(answer["registered"][0].get("notes"), None);
    let note = answer["registered"][1]["notes"][0].as_str().unwrap();
    assert!(note.contains("--agents"), "{note}");
    assert_eq!(node.show("a@.").unwrap()["callable"], false);

    let folder = Folder::new();
    folder.agent("mine", "builtin = \"echo\"");
    let file = folder.path().join("mine.toml");
    let register = Command::new(env!("CARGO_BIN_EXE_aop"))
        .args(["register", "--node", &node.ready.http])
        .arg(file)
        .output();
    let register = register.unwrap();
    assert!(register.status.success());
    let told = String::from_utf8(register.stderr).unwrap();
    assert!(told.contains("note: mine@.: `[agent.run]` takes effect only in a file"), "{told}");
}

#[test]
fn a_sent_document_does_not_replace_what_a_file_runs() {
    let folder = Folder::new();
    folder.agent("mine", "builtin = \"echo\"");
    let node = Node::start(&[folder.path()], None);
    let named = |name: &str| json!({"agent": {"name": name, "description": "another"}});
    let answer = node.post("/v1/agents", &json!([named("first"), named("mine"), named("last")]));
    assert_eq!(answer["refused"][0]["index"], 1, "{answer}");
    assert_eq!(answer["refused"][0]["code"], "conflict");
    assert_eq!(node.show("mine@.").unwrap()["callable"], true);
    let taken: Vec<_> =
        answer["registered"].as_array().unwrap().iter().map(|it| it["agent"].clone()).collect();
    assert_eq!(taken, ["first@.", "last@."]);
}

#[test]
fn programs_end_with_their_node() {
    let folder = Folder::new();
    folder.agent_with("family", "max_concurrency = 1\ntimeout_s = 300", super::FAMILY);
    let node = Node::start(&[folder.path()], None);
    let url = format!("{}/v1/call/family@.", node.ready.http);
    let calling = std::thread::spawn(move || ureq::post(&url).send_json(json!({"task": ""})).map(drop));
    wait_for("the program runs", || folder.pids().len() == 2);
    let pids = folder.pids();
    assert_eq!(node.show("family@.").unwrap()["replicas"][0]["state"], "busy");
    let started = Instant::now();
    let _dir = node.stop();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    wait_for("they are gone", || pids.iter().all(|pid| !lives(*pid)));
    // Its connection was closed under it.
    let _answer = calling.join().unwrap();
}

fn wait_for(what: &str, is_met: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_met() {
        assert!(started.elapsed() < Duration::from_secs(20), "not in 20 s: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Ticks of processor time that a process has used.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_thousand_agents_start_soon_and_rest_quietly() {
    let folder = Folder::new();
    for at in 0..1_000 {
        let name = format!("a{at}");
        folder.agent_with(&name, "description = \"x\"\ntags = [\"t\"]", "command = [\"cat\"]");
    }
    let node = Node::start(&[folder.path()], None);
    assert!(node.show("a999@.").is_some());
    // A build without optimisation on a busy machine; the figures in docs/operations.md are of a release build.
    assert!(node.started_in.as_secs() < 10, "{:?}", node.started_in);
    // Work left over from the start ends; then nothing polls. A tick is a hundredth of a second.
    let mut before = ticks(node.pid());
    let quiet = (0..20).any(|_| {
        std::thread::park_timeout(Duration::from_secs(1));
        let now = ticks(node.pid());
        let used = now - before;
        before = now;
        used <= 1
    });
    assert!(quiet, "it never rests");
}
