//! Attacks by calls that are offered and never made, and by streams on which nothing more is said.

use aop::proto::call::{CallReply, CallRequest};
use aop::proto::limits::{CALL_BYTES_MAX, CALLS_PER_PEER_MAX};
use futures::stream::FuturesUnordered;
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, StreamExt};
use tokio::time::timeout;

use super::victim::{Memory, PATIENCE, Victim, alone};
use crate::strangers::{CALL, RawPeer, call_offer, read, write};

/// Streams of one peer that a host keeps for its next calls.
const KEPT_PER_PEER: usize = 64;

#[tokio::test(flavor = "multi_thread")]
async fn large_calls_that_are_offered_and_never_sent_keep_nobody_from_calling() {
    let _alone = alone().await;
    let host = Victim::offering(&["echo"], 1, Vec::new()).await;
    let key = host.node.handle.key();
    let caller = Victim::start(5, vec![host.address()]).await;
    caller.until("the agent is known", async || caller.show("echo@.").await.is_ok()).await;
    let (mut peers, mut held, memory) = (Vec::new(), Vec::new(), Memory::now());
    for seed in 10..14 {
        let peer = RawPeer::connect(CALL, seed, key, host.address()).await;
        let before = held.len();
        loop {
            match peer.offer(&call_offer(key, "echo", CALL_BYTES_MAX)).await {
                (stream, CallReply::Accepted { .. } | CallReply::Queued { .. }) => held.push(stream),
                (_, other) => {
                    assert!(matches!(&other, CallReply::Failed(it) if it.code.text() == "busy"), "{other:?}");
                    break;
                }
            }
        }
        assert_eq!(held.len() - before, CALLS_PER_PEER_MAX, "what one peer may hold");
        peers.push(peer);
    }
    for _ in 0..20 {
        assert_eq!(caller.call("echo@.").await, key.to_string());
    }
    host.register("honest").await;
    memory.assert_bounded();
    drop((held, peers));
    caller.node.stop().await.unwrap();
    host.node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_kept_and_left_silent_or_in_the_midst_of_an_offer_keep_nobody_from_calling() {
    const INPUT: &[u8] = br#"{"task":"x"}"#;
    let _alone = alone().await;
    let host = Victim::offering(&["echo"], 1, Vec::new()).await;
    let key = host.node.handle.key();
    let caller = Victim::start(5, vec![host.address()]).await;
    caller.until("the agent is known", async || caller.show("echo@.").await.is_ok()).await;
    let memory = Memory::now();
    let peer = RawPeer::connect(CALL, 10, key, host.address()).await;
    let (mut ends, mut writers) = (FuturesUnordered::new(), Vec::new());
    for _ in 0..CALLS_PER_PEER_MAX {
        let (mut stream, reply) = peer.offer(&call_offer(key, "echo", INPUT.len())).await;
        assert!(matches!(reply, CallReply::Accepted { keeps: true, .. }), "{reply:?}");
        write(&mut stream, INPUT).await;
        assert!(matches!(
            CallReply::decode(&read(&mut stream).await.unwrap()),
            Ok(CallReply::Answered { .. })
        ));
        assert_eq!(read(&mut stream).await.as_deref(), Some(&b"\"x\""[..]));
        write(&mut stream, &CallRequest::Taken.encode()).await;
        let (mut reader, writer) = stream.split();
        ends.push(async move { matches!(reader.read(&mut [0]).await, Ok(0) | Err(_)) });
        writers.push(writer);
    }
    for _ in 0..CALLS_PER_PEER_MAX - KEPT_PER_PEER {
        assert_eq!(timeout(PATIENCE, ends.next()).await.expect("no more are kept"), Some(true));
    }
    assert_eq!(caller.call("echo@.").await, key.to_string());
    assert!(ends.next().now_or_never().is_none(), "the others are kept");
    for writer in &mut writers {
        // Those that are closed take nothing.
        let _gone = writer.write_all(&[0, 0, 0, 200, 1, 2, 3]).await;
        let _gone = writer.flush().await;
    }
    for _ in 0..20 {
        assert_eq!(caller.call("echo@.").await, key.to_string());
    }
    for _ in 0..KEPT_PER_PEER {
        assert_eq!(timeout(PATIENCE, ends.next()).await.expect("the rest of an offer is due"), Some(true));
    }
    memory.assert_bounded();
    caller.node.stop().await.unwrap();
    host.node.stop().await.unwrap();
}
