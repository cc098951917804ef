//! Attacks by what is said in the mesh of a zone.

use std::time::Duration;

use aop::proto::code::Code;
use aop::proto::identity::Identity;

use super::attacker::{Attacker, Ended, beacon, card, message};
use super::victim::{Memory, Victim, alone};

/// Identities that nobody pays for.
pub(crate) fn stranger(number: u32) -> Identity {
    let mut seed = [0xee; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    Identity::from_seed(seed)
}

/// Says all of it while an honest client registers ten agents; returns when the node has dealt with it: it heard what the
/// attacker said last, an honest record, or has cut it off.
pub(crate) async fn attack(victim: &Victim, seed: u8, messages: impl IntoIterator<Item = Vec<u8>>) -> Ended {
    let mut attacker = Attacker::join(seed, victim.node.handle.key(), victim.address()).await;
    let last = message(card(&attacker.identity, "last-word", 1).bytes().to_vec());
    let said = async {
        match attacker.say(messages.into_iter().chain([last])).await {
            Ended::Cut => Ended::Cut,
            Ended::Said => {
                let heard = victim.until("the last word is heard", async || {
                    victim.found().await.contains(&"last-word@.".to_owned())
                });
                attacker.linger(heard).await
            }
        }
    };
    let client = async {
        for number in 0..10 {
            victim.register(&format!("honest-{number}")).await;
        }
    };
    let (ended, ()) = tokio::join!(said, client);
    ended
}

/// Everything that the honest client registered is found, and nothing else of `taken` but the last word.
async fn assert_unharmed(victim: &Victim) {
    let found = victim.found().await;
    let (honest, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|name| name.starts_with("honest-"));
    assert_eq!(honest.len(), 10);
    assert!(others.iter().all(|name| name == "last-word@."), "{others:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_records_are_taken_from_nobody_and_whoever_sends_them_is_cut_off() {
    let _alone = alone().await;
    let victim = Victim::start(1, Vec::new()).await;
    let forged = (0..500).map(|number| {
        let mut record = card(&stranger(number), "forged", 1).bytes().to_vec();
        record[9] ^= 1; // within the signature
        message(record)
    });
    assert_eq!(attack(&victim, 2, forged).await, Ended::Cut);
    assert_unharmed(&victim).await;
    let refused = victim.refused(Code::BadSignature).await;
    assert!((1..100).contains(&refused), "cut off long before the end: {refused}");
    // Whoever else comes is heard.
    let mut other = Attacker::join(3, victim.node.handle.key(), victim.address()).await;
    let word = message(card(&other.identity, "welcome", 1).bytes().to_vec());
    assert_eq!(other.say([word]).await, Ended::Said);
    let heard =
        victim.until("a newcomer is heard", async || victim.found().await.contains(&"welcome@.".to_owned()));
    assert_eq!(other.linger(heard).await, Ended::Said);
    victim.node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_an_unknown_format_are_taken_from_nobody_and_stop_nobody() {
    let _alone = alone().await;
    let victim = Victim::start(1, Vec::new()).await;
    let unknown = (0..20_000_u32).map(|number| message([&[0xfe][..], &number.to_be_bytes()].concat()));
    attack(&victim, 2, unknown).await;
    assert_unharmed(&victim).await;
    assert_eq!(victim.status().await.zones[0].records, victim.found().await.len());
    victim.node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn beacons_of_thousands_who_are_not_there_make_no_members() {
    let _alone = alone().await;
    let victim = Victim::start(1, Vec::new()).await;
    let hours = Duration::from_secs(6 * 3_600);
    let beacons = (0..3_000).map(|number| beacon(&stranger(number), hours));
    attack(&victim, 2, beacons).await;
    assert_unharmed(&victim).await;
    let members = victim.status().await.zones[0].members;
    // The node and the attacker itself, which has a record; three thousand others would be there otherwise.
    assert!(members <= 2, "{members} members");
    victim.node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joiner_is_complete_while_the_node_that_it_knows_is_attacked() {
    let _alone = alone().await;
    let victim = Victim::start(1, Vec::new()).await;
    for number in 0..50 {
        victim.register(&format!("before-{number}")).await;
    }
    let mut attacker = Attacker::join(2, victim.node.handle.key(), victim.address()).await;
    let unknown = (0_u32..).map(|number| message([&[0xfe][..], &number.to_be_bytes()].concat()));
    let joined = async {
        let joiner = Victim::start(4, vec![victim.address()]).await;
        joiner.until("the joiner is complete", async || joiner.found().await.len() >= 50).await;
        joiner
    };
    let joiner = tokio::select! {
        joiner = joined => joiner,
        // It ends only when it is cut off, and the joiner goes on alone.
        joiner = async { attacker.say(unknown).await; std::future::pending().await } => joiner,
    };
    joiner.node.stop().await.unwrap();
    victim.node.stop().await.unwrap();
}

/// Peers that take part in the mesh and then read nothing.
const DEAF: u8 = 16;
/// Agents that are registered beside them, each of some 30 KiB.
const LARGE: usize = 400;

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_read_nothing_make_no_heap_of_what_is_published() {
    let _alone = alone().await;
    let victim = Victim::start(1, Vec::new()).await;
    let mut deaf = Vec::new();
    for seed in 0..DEAF {
        deaf.push(Attacker::join(100 + seed, victim.node.handle.key(), victim.address()).await);
    }
    let memory = Memory::now();
    for number in 0..LARGE {
        victim.register_large(&format!("large-{number}")).await;
    }
    assert_eq!(victim.found().await.len(), LARGE);
    assert_eq!(victim.status().await.connections, usize::from(DEAF));
    memory.assert_bounded();
    drop(deaf);
    victim.node.stop().await.unwrap();
}
