//! Streams that carry one call after the other.

use std::sync::atomic::{AtomicUsize, Ordering};

use aop::proto::call::{CallOffer, CallReply, CallRequest, Incarnation, Word};
use futures::StreamExt;
use libp2p::Stream;
use libp2p_stream::IncomingStreams;
use serde_json::json;

use super::raw_peer::with_raw_host;
use super::{pair, task};
use crate::strangers::{CALL, RawPeer, call_offer, read, write};

const CALLS: usize = 10;
const INPUT: &[u8] = br#"{"task":"hi"}"#;

/// What a caller says next on a stream; none once it is closed.
async fn heard(stream: &mut Stream) -> Option<CallRequest> {
    read(stream).await.map(|frame| CallRequest::decode(&frame).unwrap())
}

async fn say(stream: &mut Stream, reply: CallReply) {
    write(stream, &reply.encode()).await;
}

/// Answers an offer, until the caller has taken the answer.
async fn answer(stream: &mut Stream, keeps: bool) {
    say(stream, CallReply::Accepted { incarnation: Incarnation(1), word: Word::default(), keeps }).await;
    assert!(read(stream).await.is_some(), "the input");
    say(stream, CallReply::Answered { size: 4 }).await;
    write(stream, b"\"ok\"").await;
    assert_eq!(heard(stream).await, Some(CallRequest::Taken));
}

/// A host that answers all offers on all streams.
async fn serve(incoming: &mut IncomingStreams, keeps: bool, streams: &AtomicUsize) {
    while let Some((_, mut stream)) = incoming.next().await {
        streams.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            while let Some(CallRequest::Offer(_)) = heard(&mut stream).await {
                answer(&mut stream, keeps).await;
                if !keeps {
                    assert_eq!(heard(&mut stream).await, None, "the caller closes it");
                }
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_carries_one_call_after_the_other_where_the_host_says_so_and_one_elsewhere() {
    let (caller, mut incoming) = with_raw_host().await;
    for keeps in [false, true] {
        let streams = AtomicUsize::new(0);
        let calling = async {
            for _ in 0..CALLS {
                let answer = caller.call("echo", task(1), 10.0).await;
                assert_eq!((answer.success, &answer.result), (true, &json!("ok")), "{answer:?}");
            }
        };
        tokio::select! {
            () = calling => {}
            () = serve(&mut incoming, keeps, &streams) => unreachable!(),
        }
        let streams = streams.into_inner();
        // The next call may come before the last word of the one before has left.
        let expected = if keeps { 1..=2 } else { CALLS..=CALLS };
        assert!(expected.contains(&streams), "{streams} for {CALLS} calls");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_on_a_stream_that_its_host_closed_is_made_on_another_and_once() {
    let (caller, mut incoming) = with_raw_host().await;
    let host = async {
        let mut offers: Vec<CallOffer> = Vec::new();
        let (_, mut stream) = incoming.next().await.unwrap();
        assert!(matches!(heard(&mut stream).await, Some(CallRequest::Offer(_))));
        answer(&mut stream, true).await;
        // It closes just when the next call comes.
        let Some(CallRequest::Offer(offer)) = heard(&mut stream).await else { panic!("no offer") };
        offers.push(*offer);
        drop(stream);
        let (_, mut stream) = incoming.next().await.unwrap();
        let Some(CallRequest::Offer(offer)) = heard(&mut stream).await else { panic!("no offer") };
        offers.push(*offer);
        answer(&mut stream, true).await;
        offers
    };
    let calling = async {
        assert!(caller.call("echo", task(1), 10.0).await.success);
        caller.call("echo", task(2), 10.0).await
    };
    let (offers, answer) = tokio::join!(host, calling);
    assert_eq!((answer.success, answer.attempts), (true, 2), "{answer:?}");
    let of: Vec<_> = offers.iter().map(|offer| (offer.call, offer.attempt)).collect();
    // A host that read the first offer all the same runs the later and not both.
    assert_eq!(of, [(offers[0].call, 1), (offers[0].call, 2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_takes_offers_on_one_stream_in_turns_and_a_failure_ends_nothing() {
    let (host, _caller) = pair().await;
    let key = host.handle().key();
    let raw_peer = RawPeer::connect(CALL, 9, key, host.running.listen[0].clone()).await;
    let (mut stream, mut reply) = raw_peer.offer(&call_offer(key, "echo", INPUT.len())).await;
    for (next, is_output) in [("fail", true), ("echo", false), ("echo", true)] {
        assert!(matches!(reply, CallReply::Accepted { keeps: true, .. }), "{reply:?}");
        write(&mut stream, INPUT).await;
        let end = CallReply::decode(&read(&mut stream).await.unwrap()).unwrap();
        assert_eq!(matches!(end, CallReply::Answered { size: 4 }), is_output, "{end:?}");
        if is_output {
            assert_eq!(read(&mut stream).await.as_deref(), Some(&b"\"hi\""[..]));
        }
        write(&mut stream, &CallRequest::Taken.encode()).await;
        let offer = call_offer(key, next, INPUT.len());
        write(&mut stream, &CallRequest::Offer(Box::new(offer)).encode()).await;
        reply = CallReply::decode(&read(&mut stream).await.unwrap()).unwrap();
    }
}
