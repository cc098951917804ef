//! Peers that speak the wire without being nodes: what a host and a caller do with what they hear.

use std::time::{Duration, Instant};

use aop::api::ReplicaState;
use aop::document::run_config::Builtin;
use aop::proto::call::{CallFailure, CallOffer, CallReply, Incarnation, Outcome, Progress, Word};
use aop::proto::card::Scope;
use aop::proto::code::Code;
use aop::proto::identity::Identity;
use aop::proto::limits::{CALL_BYTES_MAX, CALL_FRAME_BYTES_MAX, CALL_MESSAGE_BYTES_MAX, CALL_OFFERS_MAX};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::Stream;
use libp2p_stream::IncomingStreams;
use tokio::time::timeout;

use super::{Node, PATIENCE, SLACK, agent, builtins, failure, task, with_host};
use crate::strangers::{CALL, RawPeer, call_offer, read, write};

const HOST: u8 = 1;
const INPUT: &[u8] = br#"{"task":"hi"}"#;

async fn to(node: &Node) -> RawPeer {
    RawPeer::connect(CALL, 9, node.handle().key(), node.running.listen[0].clone()).await
}

fn offer(name: &str, size: usize) -> CallOffer {
    call_offer(Identity::from_seed([HOST; 32]).key(), name, size)
}

async fn refused(raw_peer: &RawPeer, offer: &CallOffer) -> (&'static str, Outcome) {
    match raw_peer.offer(offer).await.1 {
        CallReply::Failed(failure) => (failure.code.text(), failure.outcome),
        other => panic!("{other:?}"),
    }
}

/// One call over raw bytes: its output.
async fn call(raw_peer: &RawPeer, name: &str, input: &[u8]) -> CallReply {
    let (mut stream, reply) = raw_peer.offer(&offer(name, input.len())).await;
    assert!(matches!(reply, CallReply::Accepted { .. }), "{reply:?}");
    write(&mut stream, input).await;
    CallReply::decode(&read(&mut stream).await.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_runs_nothing_that_the_world_may_not_know_of() {
    let mut private = agent("private", Builtin::Echo);
    private.offer.scope = Scope::Node;
    let host = Node::start(HOST, &[], [builtins(), vec![private]].concat()).await;
    let raw_peer = to(&host).await;
    assert_eq!(call(&raw_peer, "echo", INPUT).await, CallReply::Answered { size: 4 });
    let unknown = ("not_found", Outcome::NotStarted);
    assert_eq!(refused(&raw_peer, &offer("private", INPUT.len())).await, unknown);
    assert_eq!(refused(&raw_peer, &offer("nobody", INPUT.len())).await, unknown);
    let other_owner = CallOffer { agent: [7; 20], ..offer("echo", INPUT.len()) };
    assert_eq!(refused(&raw_peer, &other_owner).await, unknown);
    assert!(host.call("private@.", task(1), 5.0).await.success, "it is there for its own host");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_runs_a_call_once_and_says_so_to_whoever_offers_it_again() {
    let host = Node::start(HOST, &[], builtins()).await;
    let raw_peer = to(&host).await;
    let first = offer("echo", INPUT.len());
    let (mut stream, reply) = raw_peer.offer(&first).await;
    let CallReply::Accepted { incarnation, .. } = reply else { panic!("{reply:?}") };
    let duplicate = ("duplicate_call", Outcome::Unknown);
    assert_eq!(refused(&raw_peer, &first).await, duplicate, "while its input is awaited");
    write(&mut stream, INPUT).await;
    assert!(matches!(CallReply::decode(&read(&mut stream).await.unwrap()), Ok(CallReply::Answered { .. })));
    let retry = CallOffer { attempt: 2, expected: Some(incarnation), ..first.clone() };
    assert_eq!(refused(&raw_peer, &retry).await, duplicate, "after it ran");

    let first = offer("echo", INPUT.len());
    let (mut late, _) = raw_peer.offer(&first).await;
    let (mut stream, reply) = raw_peer.offer(&CallOffer { attempt: 2, ..first }).await;
    assert!(
        matches!(reply, CallReply::Accepted { .. }),
        "no input came, so it may be offered again: {reply:?}"
    );
    write(&mut late, INPUT).await;
    assert_eq!(read(&mut late).await, None, "the earlier offer is void");
    write(&mut stream, INPUT).await;
    assert!(matches!(CallReply::decode(&read(&mut stream).await.unwrap()), Ok(CallReply::Answered { .. })));
    let elsewhere =
        CallOffer { expected: Some(Incarnation(incarnation.0 ^ 1)), ..offer("echo", INPUT.len()) };
    assert_eq!(refused(&raw_peer, &elsewhere).await, ("host_restarted", Outcome::Unknown));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offers_that_cannot_be_served_are_refused_before_the_input() {
    let host = Node::start(HOST, &[], builtins()).await;
    let raw_peer = to(&host).await;
    let large = offer("echo", CALL_BYTES_MAX + 1);
    assert_eq!(refused(&raw_peer, &large).await, ("too_large", Outcome::NotStarted));
    let late = CallOffer { left_ms: 0, ..offer("echo", INPUT.len()) };
    assert_eq!(refused(&raw_peer, &late).await, ("deadline", Outcome::NotStarted));
    let CallReply::Failed(failure) = call(&raw_peer, "echo", b"{no").await else {
        panic!("not JSON was taken")
    };
    assert_eq!((failure.code.text(), failure.outcome), ("bad_input", Outcome::NotStarted));
    let CallReply::Failed(failure) = call(&raw_peer, "echo", b"{}").await else {
        panic!("no task was taken")
    };
    assert_eq!((failure.code.text(), failure.outcome), ("bad_input", Outcome::NotStarted));
}

/// Garbage, lengths beyond the limit, an input of another size than announced, streams that say nothing: each ends with
/// its stream, and calls of others go on all the while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_streams_end_alone() {
    let (host, caller) = with_host(builtins()).await;
    let raw_peer = to(&host).await;
    let silent: Vec<Stream> = futures::future::join_all((0..200).map(|_| raw_peer.open())).await;
    let raw_peer = RawPeer::connect(CALL, 10, host.handle().key(), host.running.listen[0].clone()).await;
    for bytes in [
        vec![255; 64],
        (CALL_FRAME_BYTES_MAX as u32 + 1).to_be_bytes().to_vec(),
        [&[0, 0, 0, 3][..], &[0x81, 0x81, 0x81]].concat(),
        [&(CALL_FRAME_BYTES_MAX as u32).to_be_bytes()[..], &[0x9f; CALL_FRAME_BYTES_MAX]].concat(),
    ] {
        let mut stream = raw_peer.open().await;
        let _gone = stream.write_all(&bytes).await;
        let _gone = stream.flush().await;
        assert_eq!(read(&mut stream).await, None, "{bytes:?}");
        assert!(caller.call("echo", task(1), 10.0).await.success);
    }
    for wrong in [&b"{\"task\":\"longer\"}"[..], b"1"] {
        let (mut stream, _) = raw_peer.offer(&offer("echo", INPUT.len())).await;
        write(&mut stream, wrong).await;
        assert_eq!(read(&mut stream).await, None);
    }
    assert!(caller.call("echo", task(1), 10.0).await.success);
    drop(silent);
}

/// One peer may hold only so many places, however it goes about it; they are free again when it is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_takes_all_its_places_takes_nobody_elses() {
    let (host, caller) = with_host(builtins()).await;
    let raw_peer = to(&host).await;
    let mut held = Vec::new();
    loop {
        match raw_peer.offer(&offer("echo", INPUT.len())).await {
            (stream, CallReply::Accepted { .. } | CallReply::Queued { .. }) => held.push(stream),
            (_, CallReply::Failed(failure)) => {
                assert_eq!((failure.code.text(), failure.outcome), ("busy", Outcome::NotStarted));
                break;
            }
            (_, other) => panic!("{other:?}"),
        }
    }
    assert_eq!(held.len(), aop::proto::limits::CALLS_PER_PEER_MAX);
    assert!(caller.call("echo", task(1), 10.0).await.success);
    drop(held);
    until(async || matches!(raw_peer.offer(&offer("echo", INPUT.len())).await.1, CallReply::Accepted { .. }))
        .await;
}

/// A caller, and in the place of the host it knows a peer with the host's key that does as it is told.
pub(super) async fn with_raw_host() -> (Node, IncomingStreams) {
    let (host, caller) = with_host(builtins()).await;
    let key = host.handle().key().to_string();
    drop(host);
    until(async || caller.handle().peers().await.unwrap().peers.iter().all(|peer| peer.peer != key)).await;
    let raw_peer =
        RawPeer::connect(CALL, HOST, caller.handle().key(), caller.running.listen[0].clone()).await;
    let incoming = raw_peer.control.clone().accept(CALL).unwrap();
    // Until the caller sees the connection it would dial, and give the host as much more time as that takes.
    until(async || caller.handle().status().await.unwrap().connections > 0).await;
    (caller, incoming)
}

/// A node tells nobody of connections that come and go, nor of places that get free, so it is asked until it is so.
async fn until(mut is_met: impl AsyncFnMut() -> bool) {
    let asked = async {
        while !is_met().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, asked).await.unwrap();
}

/// What the caller makes of these frames after its offer.
async fn told(
    caller: &Node,
    incoming: &mut IncomingStreams,
    frames: &[Vec<u8>],
    seconds: f64,
) -> (String, String, String) {
    let host = async {
        while let Some((_, mut stream)) = incoming.next().await {
            // One that was given up meanwhile says nothing.
            let _offer = read(&mut stream).await;
            for frame in frames {
                let _gone = stream.write_all(frame).await;
                let _gone = stream.flush().await;
            }
            while stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
        }
    };
    let answer = tokio::select! {
        answer = caller.call("echo", task(1), seconds) => answer,
        () = host => unreachable!(),
    };
    let (code, outcome) = failure(&answer);
    // A slow rogue may be offered the call again before it speaks.
    let least = if code == "unreachable" { CALL_OFFERS_MAX } else { 1 };
    assert!((least..=CALL_OFFERS_MAX).contains(&answer.attempts), "{answer:?}");
    (code.into(), outcome.into(), answer.error.clone().unwrap().message)
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

fn said(reply: &CallReply) -> Vec<u8> {
    framed(&reply.encode())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_host_says_the_caller_claims_only_what_it_knows() {
    let (caller, mut incoming) = with_raw_host().await;
    let accepted =
        || said(&CallReply::Accepted { incarnation: Incarnation(1), word: Word::default(), keeps: false });
    let answered = |size| said(&CallReply::Answered { size });
    let report = CallReply::Progress(Progress { progress: 1.0, total: None, message: None });
    for (what, frames, seconds, code, outcome) in [
        ("silence", vec![], 30.0, "unreachable", "not_started"),
        ("garbage", vec![framed(&[0xff; 9])], 5.0, "internal", "not_started"),
        ("a long frame", vec![vec![255; 4]], 5.0, "internal", "not_started"),
        ("output out of turn", vec![answered(2)], 5.0, "internal", "not_started"),
        ("silence after acceptance", vec![accepted()], 1.0, "deadline", "unknown"),
        ("reports without end", vec![accepted(), said(&report).repeat(2_000)], 1.0, "deadline", "unknown"),
        ("a large output", vec![accepted(), answered(CALL_BYTES_MAX as u64 + 1)], 5.0, "internal", "unknown"),
        ("no JSON", vec![accepted(), answered(2), framed(b"{]")], 5.0, "internal", "unknown"),
        ("more than announced", vec![accepted(), answered(2), framed(b"{  }")], 5.0, "internal", "unknown"),
        ("acceptance twice", vec![accepted(), accepted()], 5.0, "internal", "unknown"),
    ] {
        let started = Instant::now();
        let told = told(&caller, &mut incoming, &frames, seconds).await;
        assert_eq!((told.0.as_str(), told.1.as_str()), (code, outcome), "{what}: {}", told.2);
        assert!(started.elapsed() < Duration::from_secs_f64(seconds) + SLACK, "{what}");
    }
    let message = format!("bad\u{1b}[2J\nnews{}", "!".repeat(5_000));
    let failed = CallReply::Failed(CallFailure::new(Code::AgentFailed, Outcome::Done, message));
    let (code, outcome, message) = told(&caller, &mut incoming, &[accepted(), said(&failed)], 5.0).await;
    assert_eq!((code.as_str(), outcome.as_str()), ("agent_failed", "done"));
    assert!(message.starts_with("bad [2J news!") && message.len() <= CALL_MESSAGE_BYTES_MAX, "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_takes_no_stream_is_given_up_before_anything_was_started() {
    let (caller, mut incoming) = with_raw_host().await;
    let refusing = async { while incoming.next().await.is_some() {} };
    let answer = tokio::select! {
        answer = caller.call("echo", task(1), 20.0) => answer,
        () = refusing => unreachable!(),
    };
    assert_eq!(failure(&answer), ("unreachable", "not_started"));
    assert!(answer.elapsed_ms < 5_000.0, "{answer:?}");
    let shown = caller.handle().show("echo").await.unwrap().agent.replicas;
    assert_eq!(shown[0].state, ReplicaState::Unreachable, "connected as it is, its agents cannot be called");
}
