//! What calls are compared with: two swarms over the transport of a node that do nothing but open a stream, and send on it
//! what comes back.

use std::time::{Duration, Instant};

use aop::net::transport::transport;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::identity::Keypair;
use libp2p::swarm::{self, SwarmEvent};
use libp2p::{PeerId, Stream, StreamProtocol, Swarm};
use libp2p_stream::{Behaviour, Control};

const ECHO: StreamProtocol = StreamProtocol::new("/echo");

/// Asks the other swarm.
pub(crate) struct Bare {
    control: Control,
    peer: PeerId,
}

impl Bare {
    pub(crate) async fn start() -> Bare {
        let (mut host, mut caller) = (swarm(1), swarm(2));
        let peer = *host.local_peer_id();
        let mut incoming = host.behaviour().new_control().accept(ECHO).expect("the first");
        host.listen_on("/ip4/127.0.0.1/tcp/0".parse().expect("an address")).expect("a socket");
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = host.select_next_some().await {
                break address;
            }
        };
        caller.dial(address).expect("an address");
        let control = caller.behaviour().new_control();
        tokio::spawn(async move { while host.next().await.is_some() {} });
        while !caller.is_connected(&peer) {
            caller.next().await;
        }
        tokio::spawn(async move { while caller.next().await.is_some() {} });
        tokio::spawn(async move {
            while let Some((_, stream)) = incoming.next().await {
                tokio::spawn(echo(stream));
            }
        });
        Bare { control, peer }
    }

    /// How long a stream takes that brings so many bytes back.
    pub(crate) async fn ask(&self, bytes: usize) -> Duration {
        let began = Instant::now();
        let mut stream = self.control.clone().open_stream(self.peer, ECHO).await.expect("a stream");
        write(&mut stream, &vec![b'x'; bytes]).await;
        assert_eq!(read(&mut stream).await.len(), bytes);
        began.elapsed()
    }
}

async fn echo(mut stream: Stream) {
    let heard = read(&mut stream).await;
    write(&mut stream, &heard).await;
    let _closed = stream.close().await;
}

async fn write(stream: &mut Stream, bytes: &[u8]) {
    let frame = [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat();
    stream.write_all(&frame).await.expect("written");
    stream.flush().await.expect("flushed");
}

async fn read(stream: &mut Stream) -> Vec<u8> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.expect("a length");
    let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut bytes).await.expect("the rest");
    bytes
}

fn swarm(seed: u8) -> Swarm<Behaviour> {
    let keypair = Keypair::ed25519_from_bytes([seed; 32]).expect("a key");
    let wires = transport(&keypair).expect("a transport");
    let settings =
        swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(3_600));
    Swarm::new(wires, Behaviour::new(), keypair.public().to_peer_id(), settings)
}
