//! Calls at another node beside a bare libp2p stream that is opened for as many bytes, all in this process.

use std::time::{Duration, Instant};

use aop::agents::Agents;
use aop::document::run_config::Builtin;
use aop::host::{self, CallOptions, Options, Running};
use aop::proto::name::ZoneName;
use futures::future::join_all;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, noise, tcp, yamux};
use serde_json::json;

use crate::figure::{Aim, Figure, median, ms};
use crate::hosted::hosted;
use crate::nodes::options;

/// Names, bytes of the document, calls, and the share of the bare rate.
const SIZES: [(&str, usize, usize, f64); 3] =
    [("20 B", 20, 1_000, 1.0), ("64 KiB", 64 * 1024, 300, 0.8), ("1 MiB", 1024 * 1024, 100, 0.9)];
const WARM_UP: usize = 50;
const AT_ONCE: usize = 64;
const ROUNDS: usize = 30;
const PROTOCOL: StreamProtocol = StreamProtocol::new("/bench/echo/1");
/// Longer than the row takes.
const IDLE: Duration = Duration::from_secs(600);

pub(crate) fn remote() -> Vec<Figure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
        let agents = Agents::new(ZoneName::root());
        agents.replace(vec![hosted("echo", Builtin::Echo)]);
        let host = Options { agents, ..options(1, folders[0].path(), &[]) };
        let host = host::start(host).await.expect("a node");
        let caller = host::start(options(2, folders[1].path(), &[&host])).await.expect("a node");
        let mut events = caller.handle.events();
        while caller.handle.show("echo").await.is_err() {
            // A missed event only means that there is something to look at.
            let _event = events.recv().await;
        }
        let bare = Bare::start().await;
        let mut figures = Vec::new();
        for (name, bytes, calls, least) in SIZES {
            let (ours, theirs) = in_turns(bytes, calls, &caller, &bare).await;
            let of = format!("{ours:.3} of {theirs:.3} ms, p50");
            let what = format!("a call of {name} at another node, of a bare stream's rate");
            figures.push(Figure::new("calls", &what, theirs / ours, "", Aim::AtLeast(least)).of(of));
        }
        let at_once = at_once(&caller).await;
        figures.push(Figure::new("calls", "64 of 20 B at once", at_once, "ms", Aim::AtMost(7.0)));
        caller.stop().await.expect("stopped");
        host.stop().await.expect("stopped");
        figures
    })
}

/// Milliseconds in the median: a call, and the bare stream.
async fn in_turns(bytes: usize, calls: usize, caller: &Running, bare: &Bare) -> (f64, f64) {
    let text = "x".repeat(bytes);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for at in 0..WARM_UP + calls {
        let (call, stream) = (call(caller, &text).await, bare.echo(text.as_bytes()).await);
        if at >= WARM_UP {
            ours.push(ms(call));
            theirs.push(ms(stream));
        }
    }
    (median(&ours), median(&theirs))
}

async fn at_once(caller: &Running) -> f64 {
    let text = "x".repeat(SIZES[0].1);
    let mut all = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        join_all((0..AT_ONCE).map(|_| call(caller, &text))).await;
        all.push(ms(began.elapsed()));
    }
    median(&all)
}

async fn call(node: &Running, text: &str) -> Duration {
    let began = Instant::now();
    let answer = node.handle.call("echo@.", json!({ "task": text }), CallOptions::default()).await;
    let answer = answer.expect("known");
    let took = began.elapsed();
    assert!(answer.success, "{answer:?}");
    took
}

/// Two hosts that know streams and nothing else; one answers with what it gets.
struct Bare {
    control: libp2p_stream::Control,
    peer: PeerId,
}

impl Bare {
    async fn start() -> Bare {
        let (mut host, mut caller) = (swarm(), swarm());
        let peer = *host.local_peer_id();
        host.listen_on("/ip4/127.0.0.1/tcp/0".parse().expect("an address")).expect("bound");
        let address: Multiaddr = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = host.select_next_some().await {
                break address;
            }
        };
        let mut streams = host.behaviour().new_control().accept(PROTOCOL).expect("the first to ask");
        tokio::spawn(async move {
            while let Some((_, stream)) = streams.next().await {
                tokio::spawn(answer(stream));
            }
        });
        tokio::spawn(run(host));
        caller.dial(address).expect("dialed");
        while !matches!(caller.select_next_some().await, SwarmEvent::ConnectionEstablished { .. }) {}
        let control = caller.behaviour().new_control();
        tokio::spawn(run(caller));
        Bare { control, peer }
    }

    /// From the opening of a stream to the last byte that comes back.
    async fn echo(&self, bytes: &[u8]) -> Duration {
        let began = Instant::now();
        let mut stream = self.control.clone().open_stream(self.peer, PROTOCOL).await.expect("opened");
        stream.write_all(&(bytes.len() as u32).to_be_bytes()).await.expect("sent");
        stream.write_all(bytes).await.expect("sent");
        stream.flush().await.expect("sent");
        let mut back = vec![0; bytes.len()];
        stream.read_exact(&mut back).await.expect("received");
        let took = began.elapsed();
        assert_eq!(back, bytes);
        took
    }
}

async fn answer(mut stream: libp2p::Stream) {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.expect("received");
    let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut bytes).await.expect("received");
    stream.write_all(&bytes).await.expect("sent");
    stream.close().await.expect("sent");
}

fn swarm() -> Swarm<libp2p_stream::Behaviour> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .expect("a transport")
        .with_behaviour(|_| libp2p_stream::Behaviour::new())
        .expect("a behaviour")
        .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE))
        .build()
}

async fn run(mut swarm: Swarm<libp2p_stream::Behaviour>) {
    loop {
        swarm.select_next_some().await;
    }
}
