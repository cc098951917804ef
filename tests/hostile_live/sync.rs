//! Attacks in conversations of sync: askers that take everything again and again, and answers that never end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use aop::proto::fingerprint::{self, Digest, FANOUT, Prefix};
use aop::proto::message::{SyncAnswer, SyncFrame, SyncRequest};
use aop::proto::name::{ZoneId, ZoneName};
use aop::proto::record::KeyHash;
use futures::{AsyncWriteExt, StreamExt};
use libp2p::Stream;
use libp2p_stream::IncomingStreams;

use super::attacker::Attacker;
use super::victim::{Memory, Victim, alone};
use crate::strangers::{RawPeer, SYNC, now, read, write};

/// What one peer has for the asking: bytes of answers at once, and in each second after.
const BYTES_AT_ONCE: f64 = 128.0 * 1024.0 * 1024.0;
const BYTES_PER_SECOND: f64 = 8.0 * 1024.0 * 1024.0;
/// Pages that bring nothing: what an honest peer may have of them, and some that are on their way.
const EMPTY_PAGES_MAX: usize = 300;

fn framed(request: SyncRequest) -> Vec<u8> {
    SyncFrame { zone: ZoneId::open(ZoneName::root()), as_of: fingerprint::as_of(now()), request }.encode()
}

/// Asks for everything and for the keys of everything, again and again.
async fn take_everything(mut stream: Stream, taken: &AtomicUsize) {
    let leaves: Vec<Prefix> = (0..3)
        .fold(vec![Prefix::ROOT], |prefixes, _| prefixes.into_iter().flat_map(Prefix::children).collect());
    for round in 0.. {
        let request = match round % 16 {
            0 => SyncRequest::Items { leaves: leaves[..256].to_vec(), after: None },
            _ => SyncRequest::Subtree { prefix: Prefix::ROOT, after: None, stamped_by: None },
        };
        write(&mut stream, &framed(request)).await;
        let Some(answer) = read(&mut stream).await else { return };
        taken.fetch_add(answer.len(), Ordering::Relaxed);
        assert!(!matches!(SyncAnswer::decode(&answer), Ok(SyncAnswer::Refused)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asker_that_takes_everything_again_and_again_gets_its_share_and_costs_no_client_its_answer() {
    let _alone = alone().await;
    let victim = Victim::start(1, Vec::new()).await;
    // As many records of such a size as one answer takes.
    for number in 0..64 {
        victim.register_described(&format!("large-{number}"), &"x".repeat(1_800)).await;
    }
    let peer = RawPeer::connect(SYNC, 2, victim.node.handle.key(), victim.address()).await;
    let (taken, memory, began) = (AtomicUsize::new(0), Memory::now(), Instant::now());
    let streams = [peer.converse().await, peer.converse().await, peer.converse().await];
    let greedy = futures::future::join_all(streams.map(|stream| take_everything(stream, &taken)));
    let paced = "aop_requests_waited_total{how=\"paced\"}";
    let client = async {
        victim.until("the asker is held back", async || victim.metric(paced).await > 10).await;
        for number in 0..10 {
            victim.register(&format!("honest-{number}")).await;
        }
        assert_eq!(victim.found().await.len(), 74);
    };
    tokio::select! {
        () = client => {}
        _ = greedy => panic!("nobody is cut off for asking"),
    }
    let share = BYTES_AT_ONCE + BYTES_PER_SECOND * began.elapsed().as_secs_f64();
    // An answer for each conversation goes beyond it.
    let taken = taken.into_inner() as f64 - 3.0 * 256.0 * 1024.0;
    assert!(taken <= share, "{taken} of {share}");
    memory.assert_bounded();
    victim.node.stop().await.unwrap();
}

/// Claims to hold something everywhere, and answers each question for it with the place where to go on.
async fn lie(mut stream: Stream, pages: &AtomicUsize) {
    let _gone = stream.write_all(&[1]).await;
    let _gone = stream.flush().await;
    while let Some(frame) = read(&mut stream).await {
        let answer = match SyncFrame::decode(&frame).unwrap().request {
            SyncRequest::Open { .. } => SyncAnswer::Opened {
                root: Digest([9; 32]),
                head: 0,
                clock: now(),
                heard: None,
                whole: true,
                alive: Vec::new(),
            },
            SyncRequest::Children { prefixes } => {
                SyncAnswer::Children(vec![Digest([7; 32]); prefixes.len() * FANOUT])
            }
            SyncRequest::Subtree { prefix, after, .. } => {
                pages.fetch_add(1, Ordering::Relaxed);
                SyncAnswer::Records { records: Vec::new(), next: Some(next_key(prefix, after)) }
            }
            other => panic!("an empty registry does not ask for {other:?}"),
        };
        write(&mut stream, &answer.encode()).await;
    }
}

/// The next key below a prefix, and there are very many.
fn next_key(prefix: Prefix, after: Option<KeyHash>) -> KeyHash {
    let mut key = after.unwrap_or_else(|| {
        let mut first = [0; 32];
        first[..2].copy_from_slice(&((prefix.leaves().start as u16) << 4).to_be_bytes());
        KeyHash(first)
    });
    let count = u64::from_be_bytes(key.0[24..].try_into().unwrap());
    key.0[24..].copy_from_slice(&(count + 1).to_be_bytes());
    key
}

/// Lies in the first conversation that the node opens, until the node ends it.
async fn lie_once(mut asked: IncomingStreams, pages: Arc<AtomicUsize>) {
    let (_, stream) = asked.next().await.unwrap();
    lie(stream, &pages).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_never_end_are_an_end_of_the_conversation_and_of_nothing_else() {
    let _alone = alone().await;
    let victim = Victim::start(1, Vec::new()).await;
    let (memory, pages) = (Memory::now(), Arc::new(AtomicUsize::new(0)));
    let mut attacker = Attacker::new(2, victim.node.handle.key(), true);
    let lying = lie_once(attacker.asked(), pages.clone());
    attacker.enter(victim.address()).await;
    // Its conversation ends, whether or not it is cut off for it.
    let lying = async {
        tokio::select! {
            () = lying => {}
            _ = async { attacker.linger(std::future::pending()).await; std::future::pending().await } => {}
        }
    };
    tokio::time::timeout(super::victim::PATIENCE, lying).await.expect("the conversation ends");
    let pages = pages.load(Ordering::Relaxed);
    assert!((1..=EMPTY_PAGES_MAX).contains(&pages), "{pages}");
    for number in 0..10 {
        victim.register(&format!("honest-{number}")).await;
    }
    let joiner = Victim::start(4, vec![victim.address()]).await;
    joiner.until("a joiner is complete", async || joiner.found().await.len() >= 10).await;
    memory.assert_bounded();
    joiner.node.stop().await.unwrap();
    victim.node.stop().await.unwrap();
}
