//! Attacks by calls that are offered and never made.

use aop::proto::call::CallReply;
use aop::proto::limits::{CALL_BYTES_MAX, CALLS_PER_PEER_MAX};

use super::victim::{Memory, Victim, alone};
use crate::strangers::{CALL, RawPeer, call_offer};

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
