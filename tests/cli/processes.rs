//! Real `aop node` processes on loopback: registered at one, found at another, nothing lost to `kill -9`, a frozen
//! process or a damaged store.
//!
//! `AOP_KILLS` and `AOP_DAMAGES` set how often a node is killed and a store is damaged (default 6 and 6).

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aop::api::{Ready, RegisterAnswer, Status};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest wait for anything here; what is promised faster is asserted where it is promised.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(20);

pub(crate) struct Node {
    pub(crate) child: Child,
    pub(crate) ready: Ready,
}

impl Node {
    fn start(dir: &Path, bootstrap: &[&Node]) -> Node {
        let addresses: Vec<String> = bootstrap.iter().map(|node| node.ready.listen[0].clone()).collect();
        Node::start_at(dir, "/ip4/127.0.0.1/tcp/0", &addresses)
    }

    fn start_at(dir: &Path, listen: &str, bootstrap: &[String]) -> Node {
        Node::start_by(Command::new(env!("CARGO_BIN_EXE_aop")), dir, listen, bootstrap)
    }

    /// A node none of whose files may grow beyond `bytes`, as if the disk were full.
    #[cfg(target_os = "linux")]
    fn start_with_room(dir: &Path, bytes: u64) -> Node {
        let mut command = Command::new("sh");
        // In blocks of 512 bytes. Without the trap the first byte too many would end the process.
        let limited = format!("trap '' XFSZ; ulimit -S -f {}; exec \"$@\"", bytes / 512);
        command.args(["-c", &limited, "sh", env!("CARGO_BIN_EXE_aop")]);
        Node::start_by(command, dir, "/ip4/127.0.0.1/tcp/0", &[])
    }

    pub(crate) fn start_by(mut command: Command, dir: &Path, listen: &str, bootstrap: &[String]) -> Node {
        command.args(["node", "--json", "--http", "127.0.0.1:0", "--listen", listen]);
        command.arg("--data-dir").arg(dir);
        // The file is not that of the machine.
        for (variable, usual) in [("AOP_CONFIG", "/dev/null"), ("AOP_NETWORK", "test")] {
            if !command.get_envs().any(|(name, _)| name == variable) {
                command.env(variable, usual);
            }
        }
        for address in bootstrap {
            command.args(["--bootstrap", address]);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        Node { child, ready }
    }

    pub(crate) fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Option<T> {
        let url = format!("{}{path}", self.ready.http);
        ureq::get(&url).call().ok()?.body_mut().read_json().ok()
    }

    fn register(&self, documents: &Value) -> Option<RegisterAnswer> {
        let url = format!("{}/v1/agents", self.ready.http);
        ureq::post(&url).send_json(documents).ok()?.body_mut().read_json().ok()
    }

    fn deregister(&self, agent: &str) -> bool {
        ureq::delete(format!("{}/v1/agents/{agent}", self.ready.http)).call().is_ok()
    }

    fn status(&self) -> Status {
        self.get("/v1/status").unwrap()
    }

    fn agents(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let mut cursor = String::new();
        loop {
            let page: Value = self.get(&format!("/v1/agents?limit=1000{cursor}")).unwrap();
            names.extend(
                page["results"].as_array().unwrap().iter().map(|it| it["agent"].as_str().unwrap().to_owned()),
            );
            match page["cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return names,
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Already ended where the test ended it.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Registers agents of some KiB until one is refused; answers with the names that were acknowledged, and why no more are.
#[cfg(target_os = "linux")]
fn fill(node: &Node, name: &str) -> (BTreeSet<String>, Value) {
    let mut acknowledged = BTreeSet::new();
    for number in 0..10_000 {
        let document = agent(&format!("{name}-{number}"), &"x ".repeat(2_000));
        let answer = node.register(&document).unwrap();
        if let Some(refusal) = answer.refused.first() {
            return (acknowledged, serde_json::to_value(refusal).unwrap());
        }
        acknowledged.extend(answer.registered.into_iter().map(|it| it.agent));
    }
    panic!("the disk is never full");
}

#[cfg(target_os = "linux")]
#[test]
fn a_node_on_a_full_disk_serves_refuses_writes_and_goes_on_when_there_is_room() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    const ROOM: u64 = 2 * 1024 * 1024;
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_with_room(dir.path(), ROOM);
    let (mut acknowledged, refusal) = fill(&node, "first");
    assert!(acknowledged.len() > 100, "{} fit, then {refusal}", acknowledged.len());
    assert_eq!(refusal["code"], "store_failed", "{refusal}");
    let failing = |node: &Node| node.status().problems.iter().any(|it| it.code.text() == "store_failed");
    assert!(failing(&node), "{:?}", node.status().problems);
    assert!(acknowledged.is_subset(&node.agents()), "everything acknowledged is served");
    assert!(!node.deregister("first-0"), "a delete is a write");
    // Killed while it is full, and started while it is still full.
    node.kill();
    let mut node = Node::start_with_room(dir.path(), ROOM);
    assert!(acknowledged.is_subset(&node.agents()), "everything acknowledged is served after a restart");
    let (more, refusal) = fill(&node, "second");
    assert_eq!(refusal["code"], "store_failed", "{refusal}");
    acknowledged.extend(more);
    // Room, and no restart.
    let pid = Pid::from_raw(node.child.id().cast_signed()).unwrap();
    prlimit(Some(pid), Resource::Fsize, Rlimit { current: None, maximum: None }).unwrap();
    until("the store is well again", PATIENCE, || !failing(&node));
    let answer = node.register(&agent("late", "x")).unwrap();
    acknowledged.extend(answer.registered.into_iter().map(|it| it.agent));
    assert!(node.deregister("first-0"));
    assert!(acknowledged.remove("first-0@."));
    assert_eq!(node.agents().len(), acknowledged.len());
    assert!(node.child.try_wait().unwrap().is_none(), "it never ended");
    node.kill();
    let node = Node::start(dir.path(), &[]);
    until("nothing is wrong", PATIENCE, || node.status().problems.is_empty());
    assert_eq!(node.agents(), acknowledged);
}

/// The folder is unlinked, and what the process has open would take writes that no start ever finds.
#[cfg(unix)]
#[test]
fn a_node_whose_data_folder_is_deleted_says_so_by_itself_refuses_writes_and_stops_well() {
    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("data");
    let mut node = Node::start(&dir, &[]);
    node.register(&agent("kept", "An agent of this host")).unwrap();
    fs::remove_dir_all(&dir).unwrap();
    let told = || node.status().problems.into_iter().find(|it| it.code.text() == "store_failed");
    until("it is noticed though nobody writes", PATIENCE, || told().is_some());
    let problem = told().unwrap();
    assert!(problem.message.contains("removed, moved or replaced"), "{problem:?}");
    let names_the_folder = |text: &str| text.contains(parent.path().to_str().unwrap());
    assert!(!names_the_folder(&problem.message), "{problem:?}");
    let refused = node.register(&agent("late", "x")).unwrap().refused.remove(0);
    assert_eq!(refused.code.text(), "store_failed");
    assert!(!names_the_folder(&refused.message), "{refused:?}");
    assert!(!node.deregister("kept"));
    assert_eq!(node.agents(), ["kept@.".to_owned()].into(), "reads go on");
    node.signal("-TERM");
    assert_eq!(node.child.wait().unwrap().code(), Some(0));
    assert!(!dir.exists(), "and nothing is left where the folder was");
}

/// A machine was cloned. Behind one seed each has the other's connections closed, and what it acknowledged might never spread.
#[test]
fn two_processes_with_one_key_hear_of_each_other_and_refuse_to_write() {
    let [dir_seed, dir_one, dir_two] = std::array::from_fn(|_| TempDir::new().unwrap());
    let seed = Node::start(dir_seed.path(), &[]);
    let one = Node::start(dir_one.path(), &[&seed]);
    connected(&[&seed, &one]);
    fs::copy(dir_one.path().join("node.key"), dir_two.path().join("node.key")).unwrap();
    let two = Node::start(dir_two.path(), &[&seed]);
    assert_eq!(one.ready.peer_id, two.ready.peer_id);
    let says_so =
        |node: &Node| node.status().problems.iter().any(|it| it.code.text() == "duplicate_identity");
    for node in [&one, &two] {
        // Each waits longer before it dials again, and then for its turn.
        until("it hears of the other", 3 * PATIENCE, || says_so(node));
        let refused = node.register(&agent("late", "x")).unwrap().refused.remove(0);
        assert_eq!(refused.code.text(), "duplicate_identity");
    }
    assert!(!says_so(&seed));
}

/// Waits until `is_met`; there is no event to await in another process.
pub(crate) fn until(what: &str, within: Duration, mut is_met: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !is_met() {
        assert!(started.elapsed() < within, "not within {within:?}: {what}");
        std::thread::park_timeout(TICK);
    }
    started.elapsed()
}

fn equal(nodes: &[&Node]) -> bool {
    let states: Vec<(String, String)> = nodes
        .iter()
        .map(|node| {
            let zone = node.status().zones.remove(0);
            (zone.as_of, zone.fingerprint)
        })
        .collect();
    states.iter().all(|state| *state == states[0])
}

fn connected(nodes: &[&Node]) {
    until("all nodes have peers", PATIENCE, || nodes.iter().all(|node| node.status().zones[0].peers > 0));
}

fn agent(name: &str, description: &str) -> Value {
    json!({"agent": {"name": name, "description": description}})
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn published_documents() -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let read =
        |name: &str| -> Vec<Value> { serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap() };
    let cards = read("a2a-cards.json").into_iter().map(|mut entry| entry["card"].take());
    read("mcp-servers.json").into_iter().chain(cards).collect()
}

#[test]
fn published_documents_registered_at_one_node_are_found_at_the_others() {
    let dirs: Vec<TempDir> = (0..3).map(|_| TempDir::new().unwrap()).collect();
    let a = Node::start(dirs[0].path(), &[]);
    let b = Node::start(dirs[1].path(), &[&a]);
    let c = Node::start(dirs[2].path(), &[&a]);
    connected(&[&a, &b, &c]);
    let documents = published_documents();
    let answer = a.register(&documents).unwrap();
    assert_eq!(answer.registered.len() + answer.refused.len(), documents.as_array().unwrap().len());
    assert!(answer.refused.iter().all(|it| it.code.text() == "older_version"), "{:?}", answer.refused);
    let took = until("equal fingerprints", Duration::from_secs(2), || equal(&[&a, &b, &c]));
    println!("{} registered, equal after {took:?}", answer.registered.len());
    let registered: BTreeSet<String> = answer.registered.into_iter().map(|it| it.agent).collect();
    assert_eq!(c.agents(), registered);
    let found: Value = c.get("/v1/find?q=weather").unwrap();
    assert_eq!(found["complete"], true);
    assert!(!found["results"].as_array().unwrap().is_empty());
}

/// Its one bootstrap peer does not exist: it may lack a whole world, and says so.
#[test]
fn a_node_that_never_met_anybody_finds_its_own_and_calls_nothing_complete() {
    let dir = TempDir::new().unwrap();
    let node = Node::start_at(dir.path(), "/ip4/127.0.0.1/tcp/0", &["/ip4/127.0.0.1/tcp/1".into()]);
    node.register(&agent("own", "An agent of this host")).unwrap();
    for path in ["/v1/find?q=host", "/v1/agents"] {
        let answer: Value = node.get(path).unwrap();
        assert_eq!(answer["results"].as_array().unwrap().len(), 1, "{path}");
        assert_eq!((&answer["complete"], &answer["age_ms"]), (&json!(false), &Value::Null), "{path}");
        let zones = json!([{"zone": ".", "status": "unreachable", "age_ms": null, "by": null}]);
        assert_eq!(answer["zones"], zones, "{path}");
    }
    let find = |args: &[&str]| {
        let mut aop = Command::new(env!("CARGO_BIN_EXE_aop"));
        aop.args(["find", "host", "--node", &node.ready.http]).args(args).output().unwrap()
    };
    assert_eq!((find(&[]).status.code(), find(&["--json"]).status.code()), (Some(5), Some(5)));
    assert!(String::from_utf8_lossy(&find(&[]).stderr).contains("not complete: . (unreachable)"));
}

#[test]
fn what_was_acknowledged_survives_kill_9_under_load() {
    let (dir_a, dir_b) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut a = Node::start(dir_a.path(), &[]);
    let b = Node::start_at(dir_b.path(), "/ip4/127.0.0.1/tcp/0", &[a.ready.listen[0].clone()]);
    let listen = a.ready.listen[0].split("/p2p/").next().unwrap().to_owned();
    let mut rng = SmallRng::seed_from_u64(1);
    let mut acknowledged = BTreeSet::new();
    let kills = setting("AOP_KILLS", 6);
    for round in 0..kills {
        let stop = AtomicBool::new(false);
        let pid_wait = Duration::from_millis(rng.random_range(100..600));
        acknowledged.extend(std::thread::scope(|scope| {
            let writers: Vec<_> = (0..3)
                .map(|writer| {
                    let (a, stop) = (&a, &stop);
                    scope.spawn(move || write_until(a, stop, round, writer))
                })
                .collect();
            std::thread::park_timeout(pid_wait);
            a.signal("-KILL");
            stop.store(true, Ordering::Relaxed);
            writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
        }));
        a.child.wait().unwrap();
        let started = Instant::now();
        a = Node::start_at(dir_a.path(), &listen, &[]);
        assert!(started.elapsed() < Duration::from_secs(5), "restart took {:?}", started.elapsed());
        let held = a.agents();
        let missing: Vec<&String> = acknowledged.difference(&held).collect();
        assert!(missing.is_empty(), "round {round}: lost {missing:?}");
    }
    println!("{kills} kills, {} acknowledged registrations, none missing", acknowledged.len());
    until("b has all of it", PATIENCE, || b.agents().is_superset(&acknowledged));
    a.kill();
}

/// What others wrote waits for a flush: a crash may cost it, and nothing that is said afterwards counts on it.
#[test]
fn what_others_wrote_since_the_last_flush_comes_again_after_kill_9_and_is_not_claimed_before() {
    let (dir_a, dir_b) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let a = Node::start(dir_a.path(), &[]);
    let names = |from: usize, to: usize| {
        (from..to).map(|at| agent(&format!("agent-{at}"), "Of a")).collect::<Value>()
    };
    let of_a = |to: usize| (0..to).map(|at| format!("agent-{at}@.")).collect::<BTreeSet<String>>();
    assert!(a.register(&names(0, 20)).unwrap().refused.is_empty());
    let mut b = Node::start(dir_b.path(), &[&a]);
    until("equal before", PATIENCE, || equal(&[&a, &b]));
    b.signal("-TERM");
    assert!(b.child.wait().unwrap().success(), "a clean stop flushes");

    let b = Node::start(dir_b.path(), &[&a]);
    assert!(a.register(&names(20, 40)).unwrap().refused.is_empty());
    assert!(b.register(&agent("own", "Of b")).unwrap().refused.is_empty());
    until("equal again", PATIENCE, || equal(&[&a, &b]));
    // With nobody to ask, for it remembers whom it met: what it holds by itself.
    a.signal("-STOP");
    b.kill();
    let alone = Node::start_at(dir_b.path(), "/ip4/127.0.0.1/tcp/0", &["/ip4/127.0.0.1/tcp/1".into()]);
    let kept = of_a(20).union(&["own@.".to_owned()].into()).cloned().collect::<BTreeSet<String>>();
    assert_eq!(alone.agents(), kept, "the flushed and the own, and none that was not flushed");
    let listed: Value = alone.get("/v1/agents").unwrap();
    assert_eq!((&listed["complete"], &listed["age_ms"]), (&json!(false), &Value::Null));
    alone.kill();
    a.signal("-CONT");

    let b = Node::start(dir_b.path(), &[&a]);
    let took = until("b has it again", PATIENCE, || equal(&[&a, &b]));
    println!("equal {took:?} after the start");
    let all = of_a(40).union(&kept).cloned().collect::<BTreeSet<String>>();
    assert_eq!(b.agents(), all);
}

/// Registers one agent after the other; returns what was acknowledged.
fn write_until(node: &Node, stop: &AtomicBool, round: usize, writer: usize) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for count in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("w{writer}-{round}-{count}");
        match node.register(&json!([agent(&name, "Written under fire")])) {
            Some(answer) if answer.refused.is_empty() => acknowledged.push(format!("{name}@.")),
            Some(answer) => panic!("{:?}", answer.refused),
            None => break,
        }
    }
    acknowledged
}

#[test]
fn a_frozen_node_catches_up_and_nothing_deleted_returns() {
    let frozen_for = Duration::from_secs(setting("AOP_FROZEN_S", 15) as u64);
    let dirs: Vec<TempDir> = (0..3).map(|_| TempDir::new().unwrap()).collect();
    let a = Node::start(dirs[0].path(), &[]);
    let b = Node::start(dirs[1].path(), &[&a]);
    let c = Node::start(dirs[2].path(), &[&a]);
    connected(&[&a, &b, &c]);
    let names = |from: usize, to: usize| {
        (from..to).map(|at| agent(&format!("agent-{at}"), "Of a")).collect::<Value>()
    };
    assert!(a.register(&names(0, 20)).unwrap().refused.is_empty());
    until("equal before", PATIENCE, || equal(&[&a, &b, &c]));

    b.signal("-STOP");
    let frozen = Instant::now();
    assert!(a.register(&names(20, 40)).unwrap().refused.is_empty());
    for at in 0..10 {
        assert!(a.deregister(&format!("agent-{at}@.")));
    }
    until("the freeze is over", frozen_for + TICK * 2, || frozen.elapsed() >= frozen_for);
    b.signal("-CONT");
    let took = until("equal after the freeze", Duration::from_secs(5), || equal(&[&a, &b, &c]));
    println!("frozen for {frozen_for:?}, equal after {took:?}");
    let expected: BTreeSet<String> = (10..40).map(|at| format!("agent-{at}@.")).collect();
    for node in [&a, &b, &c] {
        assert_eq!(node.agents(), expected);
    }
}

#[test]
fn a_damaged_store_is_noticed_never_served_and_heals() {
    let dirs: Vec<TempDir> = (0..3).map(|_| TempDir::new().unwrap()).collect();
    let a = Node::start(dirs[0].path(), &[]);
    let b = Node::start(dirs[1].path(), &[&a]);
    let bootstrap = [a.ready.listen[0].clone(), b.ready.listen[0].clone()];
    let mut c = Node::start_at(dirs[2].path(), "/ip4/127.0.0.1/tcp/0", &bootstrap);
    connected(&[&a, &b, &c]);
    let of = |node: &str| (0..40).map(|at| agent(&format!("{node}-{at}"), "To be kept")).collect::<Value>();
    for (node, name) in [(&a, "a"), (&b, "b"), (&c, "c")] {
        assert!(node.register(&of(name)).unwrap().refused.is_empty());
    }
    until("equal before", PATIENCE, || equal(&[&a, &b, &c]));
    let all = a.agents();
    assert_eq!(all.len(), 120);
    let seed = setting("AOP_SEED", 7) as u64;
    let mut rng = SmallRng::seed_from_u64(seed);
    for run in 0..setting("AOP_DAMAGES", 6) {
        match rng.random_bool(0.5) {
            true => c.kill(),
            false => {
                c.signal("-TERM");
                assert!(c.child.wait().unwrap().success());
            }
        }
        let damage = damage(dirs[2].path(), &mut rng);
        let started = Instant::now();
        c = Node::start_at(dirs[2].path(), "/ip4/127.0.0.1/tcp/0", &bootstrap);
        assert!(started.elapsed() < Duration::from_secs(10), "{damage}: start took {:?}", started.elapsed());
        let early = c.agents();
        assert!(early.is_subset(&all), "{damage}: serves what nobody registered");
        until(&format!("run {run} of seed {seed}, {damage}: healed"), Duration::from_secs(60), || {
            c.agents() == all && equal(&[&a, &b, &c])
        });
        println!("{damage}: {} of 120 at start, healed after {:?}", early.len(), started.elapsed());
    }
}

/// Damages one file of the store as a bad disk would; says what it did.
fn damage(dir: &Path, rng: &mut SmallRng) -> String {
    let mut files = store_files(dir);
    files.sort();
    let snapshots: Vec<PathBuf> = files
        .iter()
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("snap"))
        .cloned()
        .collect();
    let pool = if !snapshots.is_empty() && rng.random_bool(0.3) { &snapshots } else { &files };
    let path = &pool[rng.random_range(0..pool.len())];
    let mut bytes = fs::read(path).unwrap();
    let name = path.strip_prefix(dir).unwrap().display();
    let at = if bytes.is_empty() { 0 } else { rng.random_range(0..bytes.len()) };
    match rng.random_range(0..4) {
        0 => {
            for _ in 0..8 {
                if !bytes.is_empty() {
                    let at = rng.random_range(0..bytes.len());
                    bytes[at] ^= rng.random_range(1..=255u8);
                }
            }
            fs::write(path, &bytes).unwrap();
            format!("bytes of {name} flipped")
        }
        1 => {
            fs::write(path, &bytes[..at]).unwrap();
            format!("{name} cut to {at} of {} bytes", bytes.len())
        }
        2 => {
            fs::write(path, b"").unwrap();
            format!("{name} emptied")
        }
        _ => {
            fs::remove_file(path).unwrap();
            format!("{name} removed")
        }
    }
}

/// Files of the store; the node's key is no part of it.
fn store_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.contains("damaged") {
            files.extend(store_files(&path));
        } else if path.is_file()
            && !["node.key", "node.json", "lock"].contains(&name.as_str())
            && !name.contains("damaged")
        {
            files.push(path);
        }
    }
    files
}
