//! The store under `kill -9`: a child process writes without pause and reports what was acknowledged; it is killed
//! at a random point, and what it reported must be there (promise P2). Runs: `AOP_KILL_RUNS`, default 10.
//! And under a sled that fails while it runs, which takes every sled of its process with it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aop::net::store::{Authenticated, JournalState, Store, StoreCondition, VALUE_BYTES_MAX, Write};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Where a child finds the number of its first write and its folder.
const CHILD: &str = "AOP_STORE_KILL_CHILD";
/// Where a child whose sled shall fail finds its folder.
const FAILING_CHILD: &str = "AOP_STORE_FAILING_CHILD";
const RUNS: usize = 10;
/// The aim of a restart; the figures are far below.
const REOPEN_MAX: Duration = Duration::from_secs(5);

#[test]
fn every_acknowledged_durable_row_survives_kill_9() {
    if let Ok(task) = std::env::var(CHILD) {
        return child(&task);
    }
    let runs = std::env::var("AOP_KILL_RUNS").map_or(RUNS, |runs| runs.parse().unwrap());
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let (mut next, mut acknowledged, mut slowest) = (0, None, Duration::ZERO);
    for run in 0..runs {
        // Every fourth is killed while it opens, the others after some acknowledged writes.
        let lines = if run % 4 == 0 { 1 } else { rng.random_range(2..600) };
        acknowledged = run_and_kill(dir.path(), next, lines).or(acknowledged);
        let (last_seen, took) = verify(dir.path(), acknowledged, run);
        slowest = slowest.max(took);
        next = last_seen.map_or(0, |seen| seen + 1);
    }
    println!(
        "{runs} kills, {} acknowledged batches, slowest reopen {slowest:?}",
        acknowledged.unwrap_or(0) + 1
    );
    assert!(slowest < REOPEN_MAX, "slowest reopen {slowest:?}");
    assert!(acknowledged > Some(runs as u64), "the children wrote something");
}

#[test]
fn a_sled_that_fails_while_it_runs_loses_no_own_row_and_the_next_start_heals_it() {
    if let Ok(dir) = std::env::var(FAILING_CHILD) {
        return failing_child(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let name = "kill::a_sled_that_fails_while_it_runs_loses_no_own_row_and_the_next_start_heals_it";
    let output = itself(name).env(FAILING_CHILD, dir.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let acknowledged: usize =
        text.lines().find_map(|line| line.strip_prefix("child ack ")?.parse().ok()).unwrap();
    let (_store, loaded) = Store::open(dir.path()).unwrap();
    let own = loaded.rows.iter().filter(|row| row.key.starts_with(b"own")).count();
    assert!(own >= acknowledged && loaded.journal == JournalState::Whole, "{acknowledged}, found {own}");
}

/// Takes sled's folder for long values away, writes one, and goes on until the failure shows.
fn failing_child(dir: &Path) {
    let (mut store, _) = Store::open(dir).unwrap();
    let own = |number| Write { key: key(number), value: Some(value(number).into()), durable: true };
    store.write((0..100).map(own).collect::<Vec<_>>()).unwrap();
    let mut acknowledged = 100;
    std::fs::remove_dir_all(dir.join("sled/blobs")).unwrap();
    let long = Write { key: b"long".to_vec(), value: Some(vec![7; VALUE_BYTES_MAX].into()), durable: false };
    store.write(vec![long]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let failure = loop {
        // The journal takes own rows whatever sled does.
        store.write(vec![own(acknowledged)]).unwrap();
        acknowledged += 1;
        if let StoreCondition::Failed(reason) = store.condition() {
            break reason;
        }
        assert!(Instant::now() < deadline, "sled did not fail");
    };
    assert!(failure.contains("sled failed"), "{failure}");
    store.write(vec![own(acknowledged)]).unwrap();
    report(&format!("child ack {}", acknowledged + 1));
    store.close().unwrap();
}

/// This test binary, for one test.
fn itself(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    command
}

/// Starts a child, waits for so many lines, kills it, and returns the last write it acknowledged.
fn run_and_kill(dir: &Path, next: u64, lines: usize) -> Option<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "kill::every_acknowledged_durable_row_survives_kill_9",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(CHILD, format!("{next} {}", dir.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let reports = output.by_ref().filter(|line| line.starts_with("child "));
    let mut reports: Vec<String> = reports.take(lines).collect();
    kill(&mut child);
    reports.extend(output.filter(|line| line.starts_with("child ")));
    let mut acknowledged = reports.iter().filter_map(|line| line.strip_prefix("child ack ")?.parse().ok());
    acknowledged.next_back()
}

fn kill(child: &mut Child) {
    child.kill().unwrap(); // SIGKILL
    let status = child.wait().unwrap();
    assert!(!status.success(), "it was still running");
}

/// Opens the store, checks every row, and returns the last write that is there.
fn verify(dir: &Path, acknowledged: Option<u64>, run: usize) -> (Option<u64>, Duration) {
    let started = Instant::now();
    let (store, loaded) = Store::open(dir).unwrap();
    let took = started.elapsed();
    assert_eq!(loaded.incidents, [], "run {run}");
    assert_ne!(loaded.journal, JournalState::Damaged, "run {run}");
    assert!(loaded.rows.iter().all(|row| row.authenticated == Authenticated::Yes));
    let rows: BTreeMap<_, _> = loaded.rows.iter().map(|row| (&row.key[..], &row.value[..])).collect();
    assert_eq!(rows.len(), loaded.rows.len(), "one row for a key");
    let last = rows.get(&b"counter"[..]).map(|value| u64::from_be_bytes((*value).try_into().unwrap()));
    assert!(last >= acknowledged, "run {run}: acknowledged {acknowledged:?}, found {last:?}");
    for number in 0..last.map_or(0, |last| last + 1) {
        // A batch is there whole or not at all; a removed row does not come back.
        let expected = (!is_removed(number, last.unwrap_or(0))).then(|| value(number));
        assert_eq!(rows.get(&key(number)[..]).copied(), expected.as_deref(), "run {run}: row {number}");
    }
    for (key, row) in rows.iter().filter(|(key, _)| key.starts_with(b"replica")) {
        assert_eq!(row[..8], key[7..], "run {run}: a replica is whole");
    }
    store.close().unwrap();
    (last, took)
}

fn key(number: u64) -> Vec<u8> {
    format!("own {number}").into_bytes()
}

/// 2 to 4 KiB that only this write has.
fn value(number: u64) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(number);
    (0..2048 + number % 2048).map(|_| rng.random()).collect()
}

/// Two of three rows are removed 16 writes later, so that the journal is compacted again and again.
fn is_removed(number: u64, last: u64) -> bool {
    !number.is_multiple_of(3) && number + 16 <= last
}

fn child(task: &str) {
    let (next, dir) = task.split_once(' ').unwrap();
    report("child opens");
    let (mut store, _) = Store::open(Path::new(dir)).unwrap();
    for number in next.parse::<u64>().unwrap().. {
        store.write(batch(number)).unwrap();
        report(&format!("child ack {number}"));
    }
}

fn report(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line}").and_then(|()| out.flush()).unwrap();
}

fn batch(number: u64) -> Vec<Write> {
    let write =
        |key: Vec<u8>, value: Option<Vec<u8>>, durable| Write { key, value: value.map(Into::into), durable };
    let replica = [&b"replica"[..], &number.to_be_bytes()].concat();
    let mut batch = vec![
        write(replica, Some([&number.to_be_bytes()[..], &value(number)].concat()), false),
        write(key(number), Some(value(number)), true),
        write(b"counter".to_vec(), Some(number.to_be_bytes().to_vec()), true),
    ];
    if number >= 16 && is_removed(number - 16, number) {
        batch.push(write(key(number - 16), None, true));
    }
    batch
}
