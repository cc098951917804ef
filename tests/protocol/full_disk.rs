//! A node whose store keeps nothing, or has little room: what it refuses, what it serves, and what it makes up for.

use std::collections::BTreeSet;

use aop::proto::io::{Command, Input, NodeAlert, Output, Reply, StoreCondition};
use aop::proto::registration::{Withdraw, WriteError};

use crate::rules::cluster::{Cluster, DAY, SECOND, key, name, offer};

const FULL: &str = "no space left";

fn failed() -> StoreCondition {
    StoreCondition::Failed(FULL.into())
}

fn refused<T>() -> Result<T, WriteError> {
    Err(WriteError::StoreFailed(FULL.into()))
}

/// Two linked nodes, and an agent of the first.
fn pair() -> Cluster {
    let mut cluster = Cluster::new(2);
    cluster.link(0, 1);
    cluster.register(0, offer("kept", "one")).unwrap();
    cluster
}

fn description(cluster: &Cluster, at: usize, agent: &str) -> Option<String> {
    let held = cluster.held(at, 0, agent).filter(|held| !held.is_tombstone())?;
    Some(held.card().unwrap().description)
}

fn has_row(cluster: &Cluster, at: usize, host: usize, agent: &str) -> bool {
    let held = cluster.held(at, host, agent).unwrap();
    cluster.rows[at].values().any(|value| value[..] == held.bytes()[..])
}

#[test]
fn a_write_that_is_not_kept_is_refused_taken_back_and_told_to_nobody() {
    let mut cluster = pair();
    cluster.full[0] = Some(FULL.into());
    let since = cluster.log.len();
    let rows = cluster.rows[0].clone();
    let offers = vec![offer("new", "x"), offer("kept", "two"), offer("new", "y")];
    let Reply::Registered(results) = cluster.command(0, Command::Register(offers)) else {
        panic!("no answer")
    };
    assert!(results.iter().all(|result| *result == refused()), "{results:?}");
    assert_eq!(cluster.deregister(0, "kept"), refused());
    assert_eq!(cluster.published_since(0, since), Vec::<Vec<u8>>::new());
    let told = cluster.outputs(0, since);
    let changes = told.iter().filter(|output| matches!(output, Output::Event(event) if !is_alert(event)));
    assert_eq!(changes.count(), 0, "{told:?}");
    for at in 0..2 {
        assert!(!cluster.shows(at, "new"));
        assert_eq!(description(&cluster, at, "kept").as_deref(), Some("one"));
    }
    assert_eq!(cluster.rows[0], rows);
    assert_eq!(cluster.problems(0), [NodeAlert::StoreFailed(FULL.into())]);
}

fn is_alert(event: &aop::proto::io::Event) -> bool {
    matches!(event, aop::proto::io::Event::Alert(_))
}

#[test]
fn a_store_that_keeps_again_is_written_to_and_no_version_is_used_twice() {
    let mut cluster = pair();
    cluster.full[0] = Some(FULL.into());
    assert_eq!(cluster.register(0, offer("lost", "x")), refused());
    // From here on the node does not even try.
    let since = cluster.log.len();
    cluster.full[0] = None;
    assert_eq!(cluster.register(0, offer("early", "x")), refused());
    assert!(!cluster.outputs(0, since).iter().any(|output| matches!(output, Output::Persist(_))));
    cluster.tell_store(0, StoreCondition::Well);
    assert!(cluster.problems(0).is_empty());
    cluster.register(0, offer("late", "x")).unwrap();
    assert!(cluster.shows(1, "late") && !cluster.shows(1, "lost"));
    // The record of version 2 may have reached the disk all the same.
    assert_eq!(cluster.held(0, 0, "late").unwrap().seq, 3);
    let rows = cluster.rows[0].clone();
    cluster.restart(0, rows);
    cluster.register(0, offer("after", "x")).unwrap();
    assert_eq!(cluster.held(0, 0, "after").unwrap().seq, 4);
}

#[test]
fn records_of_others_are_served_while_nothing_is_kept_and_kept_later() {
    let mut cluster = pair();
    cluster.tell_store(0, failed());
    cluster.register(1, offer("theirs", "x")).unwrap();
    assert!(cluster.shows(0, "theirs") && !has_row(&cluster, 0, 1, "theirs"));
    cluster.tell_store(0, StoreCondition::Well);
    cluster.pass(SECOND);
    assert!(has_row(&cluster, 0, 1, "theirs"));
}

#[test]
fn with_little_room_own_writes_are_kept_and_records_of_others_wait() {
    let mut cluster = pair();
    let little = StoreCondition::Short("63 MiB are free".into());
    cluster.tell_store(0, little);
    assert_eq!(cluster.problems(0), [NodeAlert::StoreShort("63 MiB are free".into())]);
    cluster.register(1, offer("theirs", "x")).unwrap();
    cluster.register(0, offer("own", "x")).unwrap();
    cluster.pass(SECOND);
    assert!(has_row(&cluster, 0, 0, "own") && !has_row(&cluster, 0, 1, "theirs"));
    assert!(cluster.shows(0, "theirs") && cluster.shows(1, "own"));
    cluster.tell_store(0, StoreCondition::Well);
    cluster.pass(SECOND);
    assert!(has_row(&cluster, 0, 1, "theirs") && cluster.problems(0).is_empty());
}

#[test]
fn what_a_store_forgot_of_others_is_given_to_it_again() {
    let mut cluster = pair();
    cluster.register(1, offer("theirs", "x")).unwrap();
    cluster.tell_store(0, failed());
    cluster.rows[0].retain(|key, _| key[0] != b'r');
    cluster.full[0] = None;
    cluster.give(0, Input::Store { condition: StoreCondition::Well, forgotten: true });
    cluster.settle();
    cluster.pass(SECOND);
    assert!(has_row(&cluster, 0, 1, "theirs"));
}

#[test]
fn an_agent_whose_file_is_gone_is_withdrawn_once_that_can_be_kept() {
    let mut cluster = pair();
    let files = |offers| Command::OfferFiles { offers, withdraw: Withdraw::Others };
    cluster.command(0, files(vec![offer("file", "x")]));
    let offered = cluster.rows[0].clone();
    cluster.full[0] = Some(FULL.into());
    cluster.command(0, files(vec![]));
    cluster.command(0, files(vec![]));
    assert!(cluster.shows(1, "file") && cluster.rows[0] == offered);
    cluster.tell_store(0, StoreCondition::Well);
    cluster.command(0, files(vec![]));
    assert!(!cluster.shows(1, "file") && !cluster.shows(0, "file"));
}

#[test]
fn leases_that_ran_out_while_nothing_was_kept_are_renewed_when_something_is() {
    let mut cluster = pair();
    cluster.tell_store(0, failed());
    cluster.now = cluster.now + 8 * DAY;
    cluster.pass(SECOND);
    assert!(!cluster.shows(0, "kept"), "no card lives for longer than its lease");
    cluster.tell_store(0, StoreCondition::Well);
    assert!(cluster.shows(0, "kept") && cluster.shows(1, "kept"));
    assert!(cluster.problems(0).is_empty());
}

#[test]
fn a_new_epoch_that_was_not_kept_is_kept_before_anything_is_written_in_it() {
    let mut cluster = Cluster::new(1);
    let folder = cluster.rows[0].clone();
    // A start whose store has noticed that own writes are missing takes a new epoch.
    cluster.rows[0].clear();
    cluster.full[0] = Some(FULL.into());
    let rows = cluster.rows[0].clone();
    cluster.restart(0, rows);
    assert!(cluster.rows[0].is_empty() && folder.contains_key(&b"e"[..]));
    assert_eq!(cluster.register(0, offer("a", "x")), refused());
    let since = cluster.log.len();
    cluster.tell_store(0, StoreCondition::Well);
    cluster.register(0, offer("a", "x")).unwrap();
    let written = cluster.outputs(0, since).into_iter().filter_map(|output| match output {
        Output::Persist(writes) => Some(writes.iter().map(|write| write.key[0]).collect::<BTreeSet<u8>>()),
        _ => None,
    });
    let written: Vec<BTreeSet<u8>> = written.collect();
    assert!(written[0].contains(&b'e') && !written[0].contains(&b'o'), "{written:?}");
    assert_eq!(cluster.held(0, 0, "a").unwrap().author().key, key(0));
    assert_eq!(cluster.held(0, 0, "a").unwrap().name, name("a"));
}
