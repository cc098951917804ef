//! Attacks by records that are valid: they take room, names and health from nobody.

use aop::api::Health;
use aop::proto::code::Code;
use aop::proto::identity::Identity;
use aop::proto::record::{Header, Record, RecordKind, SignedRecord};
use aop::proto::registry::Registry;

use super::attacker::{batch, card, header, message, signed};
use super::gossip::{attack, stranger};
use super::victim::{Victim, alone};
use crate::strangers::now;

/// Records of one stranger that fill slot after slot.
const FILLING: u64 = 3_200;
/// Slots below which their keys are ground, and names tried for each.
const GROUND: u64 = 40;
const TRIES: u64 = 64;

/// Cards and records of an unknown kind by turns, in slots 0, 1, 2 …; the first have keys as small as can be had.
fn filling(host: &Identity) -> Vec<SignedRecord> {
    let record = |seq: u64, name: String| {
        let header = header(host, &name, seq);
        let rumour = RecordKind::Unknown("rumour".parse().unwrap());
        Header { kind: if seq.is_multiple_of(2) { RecordKind::Agent } else { rumour }, ..header }
    };
    let smallest = |seq: u64| {
        let tries = if seq <= GROUND { TRIES } else { 1 };
        let tried = (0..tries).map(|number| record(seq, format!("fill-{seq}-{number}")));
        tried.min_by_key(Header::key).unwrap()
    };
    (1..=FILLING).map(|seq| signed(smallest(seq), host)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stranger_that_fills_slot_after_slot_displaces_no_honest_agent_anywhere() {
    let _alone = alone().await;
    let victim = Victim::start(1, Vec::new()).await;
    let other = Victim::start(4, vec![victim.address()]).await;
    let filling = filling(&stranger(0));
    attack(&victim, 2, filling.chunks(64).map(batch)).await;
    for node in [&victim, &other] {
        // Ten honest ones, and the last word.
        let all = FILLING as usize + 10 + 1;
        node.until("all is held", async || node.status().await.zones[0].records >= all).await;
        for number in 0..10 {
            assert!(node.show(&format!("honest-{number}")).await.is_ok(), "{number}");
        }
    }
    other.node.stop().await.unwrap();
    victim.node.stop().await.unwrap();
}

#[test]
fn a_full_zone_keeps_the_first_slots_of_an_honest_host_whatever_a_stranger_brings_and_when() {
    let verified = |record: SignedRecord| -> Record { record.verify(now()).unwrap() };
    let owner = Identity::from_seed([1; 32]);
    let honest: Vec<Record> =
        (1..=10).map(|seq| verified(card(&owner, &format!("honest-{seq}"), seq))).collect();
    let filling: Vec<Record> = filling(&stranger(0)).into_iter().take(400).map(verified).collect();
    let heaviest = honest.iter().chain(&filling).map(Record::weight).max().unwrap();
    for (first, second) in [(&honest, &filling), (&filling, &honest)] {
        // Each of two hosts has its first ten slots, and not much more.
        let mut registry = Registry::new(25 * heaviest);
        for record in first.iter().chain(second) {
            registry.merge(record.clone(), now());
        }
        assert!(registry.len() < 40, "the zone is full: {}", registry.len());
        assert!(honest.iter().all(|record| registry.get(&record.key()).is_some()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_called_means_its_first_owner_whoever_takes_it_as_well() {
    let _alone = alone().await;
    let owner = Victim::offering(&["echo"], 5, Vec::new()).await;
    let owner_id = owner.node.handle.key().to_string();
    let victim = Victim::start(1, vec![owner.address()]).await;
    victim.until("the agent is known", async || victim.show("echo@.").await.is_ok()).await;
    assert_eq!(victim.call("echo@.").await, owner_id);
    let taken = (0..300).flat_map(|number| {
        let host = stranger(number);
        ["echo", "contested"]
            .map(|name| message(card(&host, name, 1 + u64::from(name == "echo")).bytes().to_vec()))
    });
    attack(&victim, 2, taken).await;
    let contested = victim.show("contested@.").await.unwrap_err();
    assert_eq!(contested.code, Code::Ambiguous);
    assert!(contested.message.contains("300 owners"), "{}", contested.message);
    assert!((1..=10).contains(&contested.suggestions.len()) && contested.to_string().len() < 2_000);
    for name in ["echo", "echo@."] {
        assert_eq!(victim.call(name).await, owner_id);
    }
    let owners = victim.node.handle.owners().await.unwrap().owners;
    let owners: Vec<_> = owners.iter().map(|known| (known.name.as_str(), known.owner.clone())).collect();
    assert_eq!(owners, [("echo@.", owner_id)]);
    victim.node.stop().await.unwrap();
    owner.node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_forked_strangers_are_one_line_of_a_healthy_status() {
    let _alone = alone().await;
    let victim = Victim::start(1, Vec::new()).await;
    // Two records of one version each.
    let forks = (0..300).map(|number| {
        let host = stranger(number);
        let one = header(&host, &format!("fork-{number}"), 1);
        let other = Header { slot: 1, ..header(&host, &format!("other-{number}"), 1) };
        batch(&[signed(one, &host), signed(other, &host)])
    });
    attack(&victim, 2, forks).await;
    let status = victim.status().await;
    let codes: Vec<Code> = status.problems.iter().map(|problem| problem.code).collect();
    assert_eq!((status.health, codes), (Health::Ok, vec![Code::ForkedAuthor]), "{:?}", status.problems);
    let text = serde_json::to_string(&status).unwrap();
    assert!(text.len() < 4_096, "{} bytes", text.len());
    victim.node.stop().await.unwrap();
}
