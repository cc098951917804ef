//! A crowd of identities with names of their choice against honest hosts, in a zone that has room for half of all.

use std::collections::BTreeSet;

use aop::proto::card::AgentCard;
use aop::proto::codec;
use aop::proto::identity::Identity;
use aop::proto::record::{Header, KeyHash, Record, SignedRecord};

use super::generators::{NOW, card_header};
use super::{Contents, contents, kept_by_definition, replayed};

const STRANGERS: u16 = 1_000;
const HONEST_HOSTS: u16 = 100;
/// Records of each host, honest or not, in its first slots.
const SLOTS_OF_EACH: u16 = 3;
/// Names that a stranger tries for each record: it takes the one with the smallest key hash, which comes first.
const NAMES_TRIED: usize = 16;

fn identity(number: u16) -> Identity {
    let mut seed = [9; 32];
    seed[..2].copy_from_slice(&number.to_le_bytes());
    Identity::from_seed(seed)
}

/// The record in a slot of a host, under the best of so many names.
fn record(host: u16, slot: u16, names_tried: usize) -> Record {
    let writer = identity(host);
    let header = |name: usize| card_header(&writer, slot, &format!("a{slot}-{name}"));
    let best = (0..names_tried).map(header).min_by_key(Header::key).unwrap();
    let body = codec::encode(&AgentCard::default());
    SignedRecord::sign(best, &body, &writer).unwrap().verify(NOW).unwrap()
}

fn records(hosts: std::ops::Range<u16>, names_tried: usize) -> Vec<Record> {
    let slots = |host| (0..SLOTS_OF_EACH).map(move |slot| record(host, slot, names_tried));
    hosts.flat_map(slots).collect()
}

fn keys(records: &[Record]) -> BTreeSet<KeyHash> {
    records.iter().map(Record::key).collect()
}

#[test]
fn a_thousand_strangers_with_ground_names_take_from_300_honest_agents_what_the_rule_says_and_nothing_else() {
    let honest = records(0..HONEST_HOSTS, 1);
    let strangers = records(HONEST_HOSTS..HONEST_HOSTS + STRANGERS, NAMES_TRIED);
    let all = [honest.clone(), strangers.clone()].concat();
    let weight_max = all.iter().map(Record::weight).sum::<usize>() / 2;
    let kept: Contents = kept_by_definition(&all, weight_max);
    let alternating: Vec<Record> =
        strangers.chunks(10).zip(honest.chunks(1)).flat_map(|(a, b)| [a, b].concat()).collect();
    assert_eq!(alternating.len(), all.len());
    let strangers_first = [strangers, honest.clone()].concat();
    for order in [all.clone(), strangers_first, alternating] {
        assert!(contents(&replayed(weight_max, &order)) == kept, "another set is kept than the rule says");
    }
    let lost: Vec<&Record> = all.iter().filter(|record| !kept.contains_key(&record.key())).collect();
    let first_lost = lost.iter().map(|record| record.slot).min().unwrap();
    // Half of three equal slots: the first is whole, the second is where the room ends.
    assert_eq!(first_lost, 1);
    let honest_keys = keys(&honest);
    let honest_lost: Vec<u16> =
        lost.iter().filter(|record| honest_keys.contains(&record.key())).map(|record| record.slot).collect();
    assert!(honest_lost.iter().all(|slot| *slot >= first_lost), "a first slot was taken by names");
    // The arithmetic: what comes before a record is what has a smaller slot, or the same and a smaller key.
    let place = |record: &Record| (record.slot, record.key());
    for record in &honest {
        let before = all.iter().filter(|other| place(other) < place(record));
        let has_room = before.map(Record::weight).sum::<usize>() + record.weight() <= weight_max;
        assert!(!has_room || kept.contains_key(&record.key()), "{record:?} had room and is lost");
    }
    let kept_honest = honest.len() - honest_lost.len();
    println!("{kept_honest} of {} honest records and {} in all are kept", honest.len(), kept.len());
}
