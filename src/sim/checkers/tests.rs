//! That the checkers bite, and let pass what they must.

use std::sync::Arc;
use std::time::Duration;

use super::reference::{Acknowledged, header_of};
use super::*;
use crate::proto::identity::{Identity, PeerKey};
use crate::proto::record::{Header, SignedRecord};
use crate::proto::time::Stamp;

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const LEASE: Duration = Duration::from_secs(60);

/// A record of the agent `name` with version `seq`, of which higher ones are greater.
fn record(name: &str, seq: u64) -> Arc<Record> {
    record_until(name, seq, NOW + LEASE)
}

fn record_until(name: &str, seq: u64, expires_at: Timestamp) -> Arc<Record> {
    let identity = Identity::from_seed([1; 32]);
    let (host, name) = (identity.key(), root(name));
    let stamp = Stamp { wall: NOW, counter: seq as u32 };
    let author = Author { key: host, epoch: 1 };
    let header = Header { seq, stamp, author, expires_at, ..header_of(host, &name) };
    SignedRecord::sign(header, b"body", &identity).expect("signed").trust_sealed()
}

fn root(name: &str) -> FullName {
    FullName { agent: name.parse().expect("a label"), zone: ZoneName::root() }
}

fn look(held: &[&Arc<Record>], prefix: u64) -> Snapshot {
    let mut held: Vec<Arc<Record>> = held.iter().map(|record| Arc::clone(record)).collect();
    held.sort_by_key(|record| record.key());
    let author = Author { key: Identity::from_seed([1; 32]).key(), epoch: 1 };
    Snapshot { held, prefixes: [(author, prefix)].into() }
}

#[test]
fn a_node_that_holds_less_than_before_stepped_back_unless_the_lease_ended() {
    let (old, new, other) = (record("a", 1), record("a", 2), record("b", 3));
    let before = look(&[&new, &other], 3);
    for (after, lost) in [
        (look(&[&new, &other], 3), false),
        (look(&[&other], 3), true),
        (look(&[&old, &other], 3), true),
        (look(&[&new, &other, &record("c", 4)], 4), false),
    ] {
        assert_eq!(after.lost_since(&before, NOW, |_| false).is_some(), lost);
        assert!(after.lost_since(&before, NOW + LEASE, |_| false).is_none());
    }
    let earlier = look(&[&old], 1);
    assert!(before.lost_since(&earlier, NOW, |_| false).is_none(), "a greater record is no loss");
    let after = look(&[&other], 3);
    assert!(after.lost_since(&before, NOW, |_| true).is_none(), "what a quota took is no loss");
}

#[test]
fn versions_may_shrink_only_with_the_last_record_of_their_author() {
    let (one, two) = (record("a", 1), record("b", 2));
    const SOMEBODY: PeerKey = PeerKey([9; 32]);
    let before = look(&[&one, &two], 2);
    assert!(look(&[&one, &two], 2).shrunk_since(&before, SOMEBODY, NOW).is_none());
    assert!(look(&[&two], 1).shrunk_since(&before, SOMEBODY, NOW).is_some());
    assert!(look(&[], 0).shrunk_since(&before, SOMEBODY, NOW).is_none(), "forgotten");
    assert!(
        look(&[&record("c", 3)], 1).shrunk_since(&before, SOMEBODY, NOW).is_none(),
        "forgotten and met again"
    );
}

#[test]
fn an_offer_need_not_show_once_every_lease_ended_before_its_restored_host_heard_of_it() {
    let (offered, renewed) = (record("a", 1), record_until("a", 2, NOW + 2 * LEASE));
    let mut reference = ReferenceModel::default();
    assert!(reference.note_write(0, &offered));
    let (key, order) = (offered.key(), offered.order());
    let operation = Operation::Offered("text".into());
    let agent = Acknowledged {
        operation,
        step: 1,
        key,
        order,
        unheard: true,
        lapses: false,
        exempt: None,
        left: false,
    };
    let exempt = |reference: &ReferenceModel, agent: &Acknowledged, at: Timestamp| {
        reference.is_exempt(&ZoneName::root(), agent, at.0)
    };
    assert!(!exempt(&reference, &agent, NOW) && exempt(&reference, &agent, NOW + LEASE));
    let withdrawn = Acknowledged { operation: Operation::Withdrawn, ..agent.clone() };
    assert!(!exempt(&reference, &withdrawn, NOW + LEASE), "a deletion is kept");
    assert!(reference.note_write(0, &renewed));
    assert!(!exempt(&reference, &agent, NOW + LEASE), "somebody holds the renewal");
    reference.agents.insert((0, root("a")), agent);
    reference.heard(0, &renewed);
    assert!(!exempt(&reference, &reference.agents[&(0, root("a"))], NOW + 3 * LEASE), "it heard");
}
