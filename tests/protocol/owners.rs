//! Names that keep working: whoever comes later under a name is shown and never picked.

use aop::proto::card::AgentCard;
use aop::proto::codec;
use aop::proto::config::Config;
use aop::proto::identity::{AgentId, PeerKey};
use aop::proto::io::{Command, Output, Reply, Write};
use aop::proto::limits::OWNERS_MAX;
use aop::proto::name::{FullName, ZoneName};
use aop::proto::query::{ChosenBy, KnownOwner, OwnerError, Resolution};
use aop::proto::record::Header;

use crate::rules::cluster::{Cluster, SECOND, key, name, offer};
use crate::rules::{header, message};

/// A card that can be called, of an owner, in a zone.
fn add(cluster: &mut Cluster, at: usize, owner: usize, agent: &str, zone: &str) {
    let header = Header { zone: zone.parse().unwrap(), ..header(owner, agent, cluster.now) };
    let body = codec::encode(&AgentCard { callable: true, ..AgentCard::default() });
    let zone = header.zone.clone();
    let bytes = message(header, &body, owner);
    cluster.gossip_of(at, 9, &zone, bytes);
}

fn call(cluster: &mut Cluster, at: usize, text: &str) -> Resolution {
    match cluster.command(at, Command::ResolveForCall(text.into())) {
        Reply::Resolved(resolution) => resolution,
        other => panic!("{other:?}"),
    }
}

fn show(cluster: &mut Cluster, at: usize, text: &str) -> Resolution {
    match cluster.command(at, Command::Resolve(text.into())) {
        Reply::Resolved(resolution) => resolution,
        other => panic!("{other:?}"),
    }
}

/// Whose agent it is; none where it is anybody's guess.
fn owner(resolution: &Resolution) -> Option<PeerKey> {
    match resolution {
        Resolution::One(found) => Some(found.record.owner),
        _ => None,
    }
}

fn trust(cluster: &mut Cluster, text: &str, owner: PeerKey) -> Result<KnownOwner, OwnerError> {
    match cluster.command(0, Command::TrustOwner { name: text.into(), owner }) {
        Reply::Owner(owner) => owner,
        other => panic!("{other:?}"),
    }
}

fn forget(cluster: &mut Cluster, text: &str) -> Result<KnownOwner, OwnerError> {
    match cluster.command(0, Command::ForgetOwner(text.into())) {
        Reply::Owner(owner) => owner,
        other => panic!("{other:?}"),
    }
}

fn owners(cluster: &mut Cluster) -> Vec<KnownOwner> {
    match cluster.command(0, Command::Owners) {
        Reply::Owners(owners) => owners,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_name_goes_on_to_mean_the_owner_it_was_first_called_with_also_after_a_restart() {
    let mut cluster = Cluster::new(1);
    add(&mut cluster, 0, 5, "summarizer", ".");
    let since = cluster.log.len();
    assert_eq!(owner(&call(&mut cluster, 0, "summarizer")), Some(key(5)));
    let outputs = cluster.outputs(0, since);
    let kept = |writes: &[Write]| writes.iter().all(|write| write.durable);
    assert!(
        matches!(outputs[0], Output::Persist(writes) if kept(writes)),
        "kept before it is told: {outputs:?}"
    );
    for stranger in [2, 3, 4, 6, 7] {
        add(&mut cluster, 0, stranger, "summarizer", ".");
    }
    for round in 0..2 {
        for text in ["summarizer", "summarizer@."] {
            assert_eq!(owner(&call(&mut cluster, 0, text)), Some(key(5)), "{text}, round {round}");
            assert_eq!(owner(&show(&mut cluster, 0, text)), Some(key(5)), "{text}, round {round}");
        }
        let rows = cluster.rows[0].clone();
        cluster.restart(0, rows);
    }
    let id = AgentId::of(key(2), &name("summarizer")).to_string();
    assert_eq!(owner(&call(&mut cluster, 0, &id)), Some(key(2)), "whoever is picked by id is called");
    assert_eq!(owner(&call(&mut cluster, 0, "summarizer")), Some(key(5)), "and the name stays");
}

#[test]
fn a_name_that_was_never_called_and_has_several_owners_means_none_of_them() {
    let mut cluster = Cluster::new(1);
    for owner in 2..32 {
        add(&mut cluster, 0, owner, "summarizer", ".");
    }
    add(&mut cluster, 0, 20, "other", ".");
    call(&mut cluster, 0, "other");
    let Resolution::Ambiguous { candidates, count, known } = call(&mut cluster, 0, "summarizer") else {
        panic!("ambiguous")
    };
    assert_eq!((candidates.len(), count, known), (10, 30, None));
    assert_eq!(
        candidates[0],
        AgentId::of(key(20), &name("summarizer")),
        "first whoever is known by another name"
    );
    assert_eq!(owners(&mut cluster).len(), 1, "nothing is remembered of a question without an answer");
    trust(&mut cluster, "summarizer", key(7)).unwrap();
    assert_eq!(owner(&call(&mut cluster, 0, "summarizer")), Some(key(7)));
}

#[test]
fn when_the_owner_of_a_name_is_gone_nobody_takes_his_place() {
    let mut cluster = Cluster::new(1);
    trust(&mut cluster, "summarizer", key(5)).unwrap();
    assert!(matches!(call(&mut cluster, 0, "summarizer"), Resolution::Unknown));
    add(&mut cluster, 0, 6, "summarizer", ".");
    let Resolution::Ambiguous { candidates, known, .. } = call(&mut cluster, 0, "summarizer") else {
        panic!("the only one of its name, and not the one that is meant")
    };
    assert_eq!(candidates, [AgentId::of(key(6), &name("summarizer"))]);
    assert_eq!(known.unwrap().owner, key(5));
    assert_eq!(forget(&mut cluster, "summarizer@.").unwrap().owner, key(5));
    assert_eq!(forget(&mut cluster, "summarizer"), Err(OwnerError::Unknown(name("summarizer"))));
    assert_eq!(owner(&call(&mut cluster, 0, "summarizer")), Some(key(6)));
    assert_eq!(owners(&mut cluster)[0].by, ChosenBy::FirstCall);
}

#[test]
fn the_own_hosts_agent_comes_first_and_is_not_remembered() {
    let mut cluster = Cluster::new(1);
    add(&mut cluster, 0, 5, "summarizer", ".");
    trust(&mut cluster, "summarizer", key(5)).unwrap();
    cluster.register(0, offer("summarizer", "own")).unwrap();
    assert_eq!(owner(&call(&mut cluster, 0, "summarizer")), Some(key(0)));
    assert_eq!(owners(&mut cluster)[0].owner, key(5));
    cluster.deregister(0, "summarizer").unwrap();
    assert_eq!(owner(&call(&mut cluster, 0, "summarizer")), Some(key(5)));
}

#[test]
fn a_bare_name_that_was_called_is_not_taken_over_in_a_nearer_zone() {
    let zones: Vec<ZoneName> = ["acme.org", "."].map(|zone| zone.parse().unwrap()).to_vec();
    let mut cluster = Cluster::with(vec![Config { zones, ..Config::default() }]);
    add(&mut cluster, 0, 5, "summarizer", ".");
    assert_eq!(owner(&call(&mut cluster, 0, "summarizer")), Some(key(5)));
    let meant: FullName = "summarizer@.".parse().unwrap();
    assert_eq!(forget(&mut cluster, "summarizer").unwrap().name, meant, "by the name it was called with");
    assert_eq!(owner(&call(&mut cluster, 0, "summarizer")), Some(key(5)));
    add(&mut cluster, 0, 6, "summarizer", "acme.org");
    assert_eq!(owner(&call(&mut cluster, 0, "summarizer")), Some(key(5)));
    assert_eq!(owner(&call(&mut cluster, 0, "summarizer@acme.org")), Some(key(6)));
    assert_eq!(owner(&call(&mut cluster, 0, "summarizer")), Some(key(5)));
    trust(&mut cluster, "summarizer@.", key(7)).unwrap();
    let taken = call(&mut cluster, 0, "summarizer");
    assert!(matches!(taken, Resolution::Ambiguous { .. }), "{taken:?}");
    let full: FullName = "summarizer@acme.org".parse().unwrap();
    assert_eq!(trust(&mut cluster, "summarizer", key(6)).unwrap().name, full, "the zone where he has it");
    assert_eq!(owner(&call(&mut cluster, 0, "summarizer")), Some(key(6)), "nearer, and named");
}

#[test]
fn what_cannot_be_called_is_shown_and_not_remembered() {
    let mut cluster = Cluster::new(1);
    let header = header(5, "listing", cluster.now);
    let body = codec::encode(&AgentCard { callable: false, ..AgentCard::default() });
    cluster.gossip(0, 9, message(header, &body, 5));
    assert_eq!(owner(&call(&mut cluster, 0, "listing")), Some(key(5)));
    assert_eq!(owners(&mut cluster), []);
}

#[test]
fn names_that_were_called_make_room_and_those_the_operator_named_do_not() {
    let mut cluster = Cluster::new(1);
    add(&mut cluster, 0, 5, "first", ".");
    add(&mut cluster, 0, 5, "second", ".");
    assert!(owner(&call(&mut cluster, 0, "first")).is_some());
    for number in 2..OWNERS_MAX {
        trust(&mut cluster, &format!("named-{number}"), key(6)).unwrap();
    }
    cluster.pass(SECOND);
    assert!(owner(&call(&mut cluster, 0, "second")).is_some());
    assert_eq!(owners(&mut cluster).len(), OWNERS_MAX);
    assert_eq!(trust(&mut cluster, "one-more", key(6)), Err(OwnerError::Full(OWNERS_MAX)));
    assert!(trust(&mut cluster, "named-2", key(7)).is_ok(), "another owner of a known name takes no room");
    forget(&mut cluster, "named-2").unwrap();
    forget(&mut cluster, "named-3").unwrap();
    cluster.pass(SECOND);
    assert!(owner(&call(&mut cluster, 0, "first")).is_some());
    trust(&mut cluster, "named-2", key(6)).unwrap();
    trust(&mut cluster, "named-3", key(6)).unwrap();
    add(&mut cluster, 0, 5, "third", ".");
    assert!(owner(&call(&mut cluster, 0, "third")).is_some());
    let called: Vec<String> = owners(&mut cluster)
        .into_iter()
        .filter(|known| known.by == ChosenBy::FirstCall)
        .map(|known| known.name.agent.to_string())
        .collect();
    assert_eq!(called, ["first", "third"], "the one not called longest went");
    let bad = trust(&mut cluster, "no name", key(6));
    assert!(matches!(bad, Err(OwnerError::BadName(_))), "{bad:?}");
}

#[test]
fn a_bare_name_is_not_looked_up_further_while_a_nearer_zone_was_not_heard() {
    let zones: Vec<ZoneName> = ["acme.org", "."].map(|zone| zone.parse().unwrap()).to_vec();
    let config = Config { zones, expects_peers: true, ..Config::default() };
    let mut cluster = Cluster::with(vec![config]);
    add(&mut cluster, 0, 5, "summarizer", ".");
    assert_eq!(call(&mut cluster, 0, "summarizer"), Resolution::NotSynced);
    assert_eq!(owner(&call(&mut cluster, 0, "summarizer@.")), Some(key(5)), "in full it means what it says");
}
