//! What a registration takes the place of on its own host: the same agent in the same or an earlier version (protocol
//! section 1), unless it is told to take any.

use aop::proto::card::{Endpoint, Offer, Origin, Scope};
use aop::proto::code::Code;
use aop::proto::io::{Command, Reply};
use aop::proto::registration::{Registered, WriteError};

use crate::rules::cluster::{Cluster, offer};

fn versioned(version: &str) -> Offer {
    let mut offer = offer("a", version);
    offer.card.version = Some(version.into());
    offer
}

fn a2a(address: &str) -> Offer {
    let mut offer = offer("a", address);
    offer.card.origin = Origin::A2a;
    offer.card.endpoints =
        vec![Endpoint { kind: "JSONRPC".into(), address: address.into(), ..Endpoint::default() }];
    offer
}

fn replace(cluster: &mut Cluster, offer: Offer) -> Result<Registered, WriteError> {
    match cluster.command(0, Command::Replace(vec![offer])) {
        Reply::Registered(mut results) => results.remove(0),
        other => panic!("{other:?}"),
    }
}

fn withdraw(cluster: &mut Cluster, offer: Offer) -> Result<Registered, WriteError> {
    match cluster.command(0, Command::WithdrawVersion(Box::new(offer))) {
        Reply::Deregistered(result) => result,
        other => panic!("{other:?}"),
    }
}

fn description(cluster: &Cluster) -> String {
    cluster.held(0, 0, "a").unwrap().card().unwrap().description
}

fn code(result: Result<Registered, WriteError>) -> Code {
    result.unwrap_err().code()
}

#[test]
fn a_newer_version_stays_until_it_is_to_be_replaced() {
    let mut cluster = Cluster::new(1);
    cluster.register(0, versioned("1.10.0")).unwrap();
    assert_eq!(code(cluster.register(0, versioned("1.9.0"))), Code::Superseded);
    // A scope is another record, and yet the same agent.
    let hidden = Offer { scope: Scope::Node, ..versioned("1.9.0") };
    assert_eq!(code(cluster.register(0, hidden)), Code::Superseded);
    assert_eq!(description(&cluster), "1.10.0");
    for version in ["v1.10", "1.10.0", "1.11.0"] {
        cluster.register(0, versioned(version)).unwrap();
        assert_eq!(description(&cluster), version);
    }
    replace(&mut cluster, versioned("1.9.0")).unwrap();
    assert_eq!(description(&cluster), "1.9.0");
    cluster.register(0, offer("a", "says no version")).unwrap();
    cluster.register(0, versioned("0.1.0")).unwrap();
    assert_eq!(description(&cluster), "0.1.0", "nothing is older than no version");
}

#[test]
fn what_was_deleted_is_in_nobodys_way() {
    let mut cluster = Cluster::new(1);
    cluster.register(0, versioned("2.0.0")).unwrap();
    cluster.deregister(0, "a").unwrap();
    cluster.register(0, versioned("1.0.0")).unwrap();
    cluster.deregister(0, "a").unwrap();
    cluster.register(0, a2a("https://one.example")).unwrap();
    assert_eq!(description(&cluster), "https://one.example");
}

#[test]
fn another_agent_of_the_name_stays_until_it_is_to_be_replaced() {
    let mut cluster = Cluster::new(1);
    cluster.register(0, a2a("https://one.example")).unwrap();
    for other in [a2a("https://two.example"), a2a("https://one.example/x"), offer("a", "native")] {
        assert_eq!(code(cluster.register(0, other)), Code::Conflict);
        assert_eq!(description(&cluster), "https://one.example");
    }
    cluster.register(0, a2a("HTTPS://ONE.example/")).unwrap();
    assert_eq!(description(&cluster), "HTTPS://ONE.example/");
    replace(&mut cluster, a2a("https://two.example")).unwrap();
    assert_eq!(description(&cluster), "https://two.example");
}

#[test]
fn others_agents_of_the_name_are_in_nobodys_way() {
    let mut cluster = Cluster::new(2);
    cluster.link(0, 1);
    cluster.register(0, versioned("2.0.0")).unwrap();
    cluster.register(1, versioned("1.0.0")).unwrap();
    assert_eq!(cluster.held(0, 1, "a").unwrap().card().unwrap().description, "1.0.0");
}

#[test]
fn one_version_is_withdrawn_and_no_other() {
    let mut cluster = Cluster::new(1);
    cluster.register(0, versioned("2.0.0")).unwrap();
    for other in [versioned("1.0.0"), versioned("2.0"), offer("a", "2.0.0"), a2a("https://one.example")] {
        assert_eq!(code(withdraw(&mut cluster, other)), Code::NotFound);
    }
    assert!(cluster.shows(0, "a"));
    withdraw(&mut cluster, versioned("2.0.0")).unwrap();
    assert!(!cluster.shows(0, "a"));
    assert_eq!(code(withdraw(&mut cluster, versioned("2.0.0"))), Code::NotFound);
}
