//! An agent asks for a number of hosts, and they are told when there are fewer (`min_replicas`).

use std::time::Duration;

use aop::proto::card::{AgentCard, CallLimits, Offer};
use aop::proto::io::NodeAlert;
use aop::proto::name::ZoneName;
use aop::proto::record::RecordKind;

use crate::rules::MINUTE;
use crate::rules::cluster::{Cluster, grant, identity, key, name, offer};

/// Of the owner that is node 0, for another host.
fn granted(host: usize, min_replicas: u32) -> Offer {
    let limits = CallLimits { min_replicas, ..CallLimits::DEFAULT };
    let card = AgentCard { callable: true, limits: Some(limits), ..AgentCard::default() };
    let grant = grant(&identity(0), key(host), ZoneName::root(), RecordKind::Agent).sign(&identity(0));
    Offer { card, grants: vec![grant], ..offer("a", "of many") }
}

#[test]
fn a_host_tells_while_its_agent_has_fewer_hosts_than_it_asks_for() {
    let mut cluster = Cluster::new(3);
    cluster.link(1, 2);
    let few = [NodeAlert::FewReplicas(name("a"), 2)];
    cluster.register(1, granted(1, 2)).unwrap();
    cluster.pass(Duration::from_secs(30));
    assert_eq!(cluster.problems(1), [], "the others may be on their way");
    cluster.pass(MINUTE);
    assert_eq!(cluster.problems(1), few);
    cluster.register(2, granted(2, 2)).unwrap();
    cluster.pass(MINUTE);
    assert_eq!((cluster.problems(1), cluster.problems(2)), (vec![], vec![]));
    cluster.cut(1, 2);
    // Until nothing was heard of it for some beacons.
    cluster.pass(10 * MINUTE);
    assert_eq!(cluster.problems(1), few, "a host that is gone counts no more");
    cluster.register(1, granted(1, 1)).unwrap();
    cluster.pass(MINUTE);
    assert_eq!(cluster.problems(1), [], "one is enough now");
}
