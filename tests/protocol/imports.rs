//! Records of imports (protocol section 1): other keys than the node's sign them on this host, and they enter the node by one
//! door, are kept before they are told, spread, and make nobody a member.

use std::collections::BTreeSet;

use aop::proto::card::{AgentCard, Origin};
use aop::proto::identity::PeerKey;
use aop::proto::import::{Holdings, ImportAuthor};
use aop::proto::io::{Command, Reply, StoreCondition};
use aop::proto::limits::MESSAGE_RECORDS_MAX;
use aop::proto::name::ZoneName;
use aop::proto::record::{Record, Refusal, SignedRecord};
use aop::proto::registration::WriteError;

use crate::rules::cluster::{Cluster, DAY, NOW, SECOND, key, offer};

fn import(epoch: u64) -> ImportAuthor {
    ImportAuthor::new("world", [77; 32], epoch)
}

fn card(text: &str) -> AgentCard {
    AgentCard { description: text.into(), origin: Origin::ServerJson, ..AgentCard::default() }
}

/// What an import has at a node.
fn holdings(cluster: &Cluster, at: usize, author: &ImportAuthor) -> Holdings {
    let root = ZoneName::root();
    let shelves = author.shelves().into_iter();
    let records = shelves.flat_map(|shelf| cluster.nodes[at].on_shelf(&root, shelf).cloned());
    Holdings::new(author, ZoneName::root(), records.collect::<Vec<_>>())
}

fn named(cluster: &mut Cluster, author: &ImportAuthor) {
    let keys: BTreeSet<PeerKey> = author.keys().collect();
    assert_eq!(cluster.command(0, Command::NameImports(keys)), Reply::ImportsNamed);
}

fn publish(cluster: &mut Cluster, signed: Vec<SignedRecord>) -> Vec<Result<(), WriteError>> {
    match cluster.command(0, Command::Publish(signed)) {
        Reply::Published(results) => results,
        other => panic!("{other:?}"),
    }
}

fn offered(cluster: &Cluster, author: &mut ImportAuthor, names: &[&str], text: &str) -> Vec<SignedRecord> {
    let mut holdings = holdings(cluster, 0, author);
    let now = cluster.now;
    names
        .iter()
        .map(|name| holdings.offer(author, now, &name.parse().unwrap(), &card(text)).unwrap())
        .collect()
}

#[test]
fn what_an_import_signs_spreads_outlasts_a_crash_and_makes_nobody_a_member() {
    let mut cluster = Cluster::new(2);
    cluster.link(0, 1);
    let mut author = import(1);
    let signed = offered(&cluster, &mut author, &["one", "two"], "x");
    let unnamed = publish(&mut cluster, signed.clone());
    assert!(unnamed.iter().all(|it| *it == Err(WriteError::Refused(Refusal::BadAuthor))), "{unnamed:?}");
    named(&mut cluster, &author);
    assert_eq!(publish(&mut cluster, signed.clone()), [Ok(()), Ok(())]);
    assert_eq!(publish(&mut cluster, signed.clone()), [Ok(()), Ok(())], "again is nothing new");
    cluster.register(0, offer("own", "y")).unwrap();
    for at in 0..2 {
        assert!(["one", "two", "own"].into_iter().all(|agent| cluster.shows(at, agent)), "node {at}");
    }
    assert_eq!(cluster.fingerprint(0), cluster.fingerprint(1));
    cluster.pass(SECOND * 120);
    let states = cluster.nodes[1].zone_states(cluster.now);
    assert_eq!(states[0].members, 2, "{states:?}");
    assert!(cluster.problems(0).is_empty() && cluster.problems(1).is_empty());
    // The node's own versions are not those of its imports.
    assert_eq!(cluster.held(0, 0, "own").unwrap().seq, 1);

    let rows = cluster.rows[0].clone();
    cluster.restart(0, rows);
    let mut again = import(2);
    named(&mut cluster, &again);
    let mut held = holdings(&cluster, 0, &again);
    let now = cluster.now;
    assert_eq!(held.live(now), 2);
    let gone = held.withdraw(&mut again, now, &"one".parse().unwrap()).unwrap();
    assert_eq!(publish(&mut cluster, vec![gone]), [Ok(())]);
    cluster.link(0, 1);
    cluster.pass(SECOND * 60);
    assert!(!cluster.shows(1, "one") && cluster.shows(1, "two"));
    assert_eq!(cluster.nodes[1].forks().count(), 0);
}

#[test]
fn no_message_has_records_of_two_authors() {
    let mut cluster = Cluster::new(2);
    cluster.link(0, 1);
    let mut one = import(1);
    let mut other = ImportAuthor::new("world", [78; 32], 1);
    let keys: BTreeSet<PeerKey> = one.keys().chain(other.keys()).collect();
    cluster.command(0, Command::NameImports(keys));
    let mut signed = offered(&cluster, &mut one, &["a", "b"], "x");
    signed.extend(offered(&cluster, &mut other, &["a", "b"], "y"));
    let since = cluster.log.len();
    let results = publish(&mut cluster, signed);
    assert!(results.len() <= MESSAGE_RECORDS_MAX && results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(cluster.published_since(0, since).len(), 2);
    let of = |at: usize, author: &ImportAuthor| holdings(&cluster, at, author).live(NOW);
    assert_eq!((of(1, &one), of(1, &other)), (2, 2), "gossip alone brought all");
}

#[test]
fn what_the_store_did_not_keep_is_taken_back_and_told_to_nobody() {
    let mut cluster = Cluster::new(2);
    cluster.link(0, 1);
    let mut author = import(1);
    named(&mut cluster, &author);
    let first = offered(&cluster, &mut author, &["kept"], "one");
    publish(&mut cluster, first);
    cluster.full[0] = Some("no space left".into());
    let (since, rows) = (cluster.log.len(), cluster.rows[0].clone());
    let signed =
        [offered(&cluster, &mut author, &["new"], "x"), offered(&cluster, &mut author, &["kept"], "two")];
    let results = publish(&mut cluster, signed.concat());
    let failed = || Err(WriteError::StoreFailed("no space left".into()));
    assert_eq!(results, [failed(), failed()]);
    assert!(cluster.published_since(0, since).is_empty() && cluster.rows[0] == rows);
    let now = cluster.now;
    let held = holdings(&cluster, 0, &author);
    assert_eq!(held.card(&"kept".parse().unwrap(), now).map(|card| card.description), Some("one".into()));
    assert_eq!(held.card(&"new".parse().unwrap(), now), None);
    // Nothing is taken before the store is well, and then it is.
    let signed = offered(&cluster, &mut author, &["new"], "x");
    assert_eq!(publish(&mut cluster, signed.clone()), [failed()]);
    let short = StoreCondition::Short("no space left".into());
    cluster.tell_store(0, short);
    assert_eq!(publish(&mut cluster, signed.clone()), [failed()], "what is left is for own writes");
    cluster.tell_store(0, StoreCondition::Well);
    assert_eq!(publish(&mut cluster, signed), [Ok(())]);
    assert!(cluster.shows(1, "new"));
}

#[test]
fn only_records_of_named_keys_in_served_zones_that_peers_would_take_are_taken() {
    let mut cluster = Cluster::new(1);
    let mut author = import(1);
    named(&mut cluster, &author);
    let elsewhere: ZoneName = "elsewhere".parse().unwrap();
    let mut there = Holdings::new(&author, elsewhere.clone(), []);
    let signed = there.offer(&mut author, NOW, &"a".parse().unwrap(), &card("x")).unwrap();
    assert_eq!(publish(&mut cluster, vec![signed]), [Err(WriteError::ZoneNotServed(elsewhere))]);
    let own = cluster.register(0, offer("own", "x")).map(|_| cluster.held(0, 0, "own").unwrap()).unwrap();
    let copied = SignedRecord::parse(own.bytes(), "world").unwrap();
    assert_eq!(publish(&mut cluster, vec![copied]), [Err(WriteError::Refused(Refusal::BadAuthor))]);
    let stale = offered(&cluster, &mut author, &["a"], "old");
    cluster.pass(SECOND);
    let newer = offered(&cluster, &mut author, &["a"], "new");
    assert_eq!(publish(&mut cluster, newer), [Ok(())]);
    assert!(matches!(publish(&mut cluster, stale)[..], [Err(WriteError::Superseded(_))]));
    let late = offered(&cluster, &mut author, &["b"], "x");
    cluster.pass(DAY * 8);
    assert_eq!(publish(&mut cluster, late), [Err(WriteError::Refused(Refusal::Expired))]);
}

#[test]
fn an_import_that_is_named_no_more_lapses() {
    let mut cluster = Cluster::new(1);
    let mut author = import(1);
    named(&mut cluster, &author);
    let signed = offered(&cluster, &mut author, &["a"], "x");
    publish(&mut cluster, signed);
    assert!(cluster.nodes[0].may_renew(cluster.now));
    cluster.pass(DAY * 6);
    assert!(cluster.shows(0, "a"), "the node renews nothing of it by itself");
    cluster.pass(DAY * 2);
    assert!(!cluster.shows(0, "a"));
    let left: Vec<Record> = cluster.nodes[0].records(&ZoneName::root()).map(|it| Record::clone(it)).collect();
    assert!(left.iter().all(|record| record.host == key(0)), "{left:?}");
}
