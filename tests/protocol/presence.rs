//! Who is there, among those who only say so: strangers are free, members are not.

use aop::proto::code::Code;
use aop::proto::identity::Identity;
use aop::proto::io::Verdict;
use aop::proto::liveness::Presence;
use aop::proto::message::{Beacon, Envelope, Gateway};
use aop::proto::name::ZoneName;
use aop::proto::record::Author;

use crate::rules::cluster::{Cluster, SECOND, key};
use crate::rules::{beacon, body, header, message};

const HOURS_MS: u64 = 6 * 3_600_000;

/// A beacon of the `number`th of many keys.
fn of_crowd(cluster: &Cluster, number: u32, interval_ms: u64) -> Vec<u8> {
    let mut seed = [9; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    let stranger = Identity::from_seed(seed);
    let beacon = Beacon {
        network: "world".into(),
        zone: ZoneName::root(),
        author: Author { key: stranger.key(), epoch: 1 },
        counter: cluster.now.0,
        clock: cluster.now,
        interval_ms,
        seq: 1,
        gateway: Gateway::Auto,
        name: None,
    };
    Envelope::Beacon(beacon.sign(&stranger)).encode()
}

/// The intervals that a node announced since a place in the log.
fn announced(cluster: &Cluster, at: usize, since: usize) -> Vec<u64> {
    let of = |bytes: Vec<u8>| match Envelope::decode(&bytes) {
        Ok(Envelope::Beacon(beacon)) => Some(Beacon::read(&beacon).unwrap().interval_ms),
        _ => None,
    };
    cluster.published_since(at, since).into_iter().filter_map(of).collect()
}

fn members(cluster: &mut Cluster, at: usize) -> usize {
    let now = cluster.clock(at);
    cluster.nodes[at].zone_states(now)[0].members
}

#[test]
fn a_crowd_of_strangers_is_dropped_unforwarded_and_changes_nobodys_interval() {
    let mut cluster = Cluster::new(2);
    cluster.link(0, 1);
    cluster.pass(SECOND * 2);
    let since = cluster.log.len();
    let crowd = (0..3_000).map(|number| of_crowd(&cluster, number, HOURS_MS)).collect::<Vec<_>>();
    let verdicts: Vec<_> = crowd.into_iter().map(|bytes| cluster.gossip(0, 1, bytes)).collect();
    let taken = verdicts.iter().filter(|verdict| **verdict == Verdict::Accept).count();
    assert_eq!(taken, 20);
    assert_eq!(
        verdicts.iter().filter(|verdict| **verdict == Verdict::Ignore).count(),
        2_980,
        "nobody is blamed"
    );
    assert_eq!(cluster.nodes[0].refused()[&Code::ExcessBeacon], 2_980);
    assert_eq!(members(&mut cluster, 0), 2);
    cluster.pass(SECOND * 60);
    let intervals = announced(&cluster, 0, since);
    assert!(intervals.len() >= 2 && intervals.iter().all(|interval| *interval == 24_000), "{intervals:?}");
}

#[test]
fn beacons_of_members_are_never_dropped_for_their_number_and_the_interval_has_an_end() {
    let mut cluster = Cluster::new(2);
    cluster.link(0, 1);
    cluster.pass(SECOND * 2);
    let now = cluster.now;
    for host in 2..202 {
        cluster.gossip(0, 1, message(header(host, "agent", now), &body("text"), host));
    }
    // Strangers have used up what they share.
    for number in 0..100 {
        let bytes = of_crowd(&cluster, number, HOURS_MS);
        cluster.gossip(0, 1, bytes);
    }
    let since = cluster.log.len();
    let heard = (2..202).filter(|host| cluster.gossip(0, 1, beacon(*host, 77, 1, now, 1)) == Verdict::Accept);
    assert_eq!(heard.count(), 200);
    assert_eq!(members(&mut cluster, 0), 202);
    cluster.pass(SECOND * 24);
    assert_eq!(announced(&cluster, 0, since), [72_000], "101 s would be fair and leave too many in doubt");
}

#[test]
fn one_that_speaks_more_often_than_it_may_is_heard_as_often_as_it_may() {
    let mut cluster = Cluster::new(2);
    cluster.link(0, 1);
    cluster.pass(SECOND * 30);
    let mut heard = 0;
    for counter in 0..600 {
        let beacon = beacon(1, 5, counter + 1, cluster.now, 0);
        heard += usize::from(cluster.gossip(0, 1, beacon) == Verdict::Accept);
        cluster.now = cluster.now + SECOND / 10;
    }
    assert!((8..=10).contains(&heard), "{heard} in a minute: four at once, then one in ten seconds");
}

#[test]
fn a_forged_beacon_takes_nothing_from_whom_it_names() {
    let mut cluster = Cluster::new(2);
    cluster.link(0, 1);
    cluster.pass(SECOND * 30);
    for counter in 0..20 {
        let mut forged = beacon(1, 5, cluster.now.0 + counter, cluster.now, 0);
        let last = forged.len() - 1;
        forged[last] ^= 1;
        assert_ne!(cluster.gossip(0, 1, forged), Verdict::Accept);
    }
    assert_eq!(cluster.gossip(0, 1, beacon(1, 5, 1, cluster.now, 0)), Verdict::Accept);
}

#[test]
fn an_interval_of_hours_is_believed_for_minutes() {
    let mut cluster = Cluster::new(2);
    cluster.link(0, 1);
    let mut seed = [9; 32];
    seed[..4].copy_from_slice(&1u32.to_be_bytes());
    let stranger = Identity::from_seed(seed).key();
    cluster.gossip(0, 1, of_crowd(&cluster, 1, HOURS_MS));
    let heard_at = cluster.now;
    let presence = |cluster: &Cluster, at| {
        cluster.nodes[0].zone(&ZoneName::root()).unwrap().liveness().presence(&stranger, at)
    };
    assert_eq!(presence(&cluster, heard_at + SECOND * 216), Presence::Reachable);
    assert_eq!(presence(&cluster, heard_at + SECOND * 217), Presence::Unreachable);
    assert_eq!(
        cluster.nodes[0].zone(&ZoneName::root()).unwrap().liveness().presence(&key(9), heard_at),
        Presence::Unknown
    );
}
