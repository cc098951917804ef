//! Peers that are no nodes, for the tests over real sockets: they speak one protocol by hand, or nothing at all.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aop::net::addresses::peer_id;
use aop::proto::call::{CallContext, CallId, CallOffer, CallReply, CallRequest};
use aop::proto::grant::{Grant, Reach};
use aop::proto::identity::{AgentId, Identity, PeerKey};
use aop::proto::name::ZoneName;
use aop::proto::record::RecordKind;
use aop::proto::time::Timestamp;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol as Part;
use libp2p::swarm::{NetworkBehaviour, Swarm};
use libp2p::{Multiaddr, Stream, StreamProtocol, SwarmBuilder, noise, tcp, yamux};
use libp2p_stream::Control;
use serde_bytes::ByteBuf;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

pub(crate) const CALL: StreamProtocol = StreamProtocol::new("/aop/test/call/1");
pub(crate) const SYNC: StreamProtocol = StreamProtocol::new("/aop/test/sync/1");

/// Far more than anything takes on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A peer over TCP that keeps its connections.
pub(crate) fn swarm<B: NetworkBehaviour>(
    keypair: Keypair,
    behaviour: impl FnOnce(&Keypair) -> B,
) -> Swarm<B> {
    SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|keypair| behaviour(keypair))
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE * 10))
        .build()
}

/// Runs it until the end of the test.
pub(crate) fn polled<B: NetworkBehaviour + Send>(mut swarm: Swarm<B>)
where
    B::ToSwarm: Send,
{
    tokio::spawn(async move { while swarm.next().await.is_some() {} });
}

/// A peer connected to one node, with streams of one protocol and nothing else.
pub(crate) struct RawPeer {
    pub(crate) control: Control,
    protocol: StreamProtocol,
    node: PeerKey,
}

impl RawPeer {
    pub(crate) async fn connect(
        protocol: StreamProtocol,
        seed: u8,
        node: PeerKey,
        address: Multiaddr,
    ) -> RawPeer {
        let keypair = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
        let mut swarm = swarm(keypair, |_| libp2p_stream::Behaviour::new());
        let control = swarm.behaviour().new_control();
        swarm.dial(address).unwrap();
        let connected = async {
            while !swarm.is_connected(&peer_id(&node).unwrap()) {
                swarm.next().await;
            }
        };
        timeout(PATIENCE, connected).await.unwrap();
        polled(swarm);
        RawPeer { control, protocol, node }
    }

    pub(crate) async fn open(&self) -> Stream {
        let peer = peer_id(&self.node).unwrap();
        let opened = self.control.clone().open_stream(peer, self.protocol.clone()).await;
        opened.unwrap()
    }

    /// Opens a stream of sync that is served: the node has greeted. The accept queue may have to be asked again.
    pub(crate) async fn converse(&self) -> Stream {
        let greeted = async {
            loop {
                let mut stream = self.open().await;
                if stream.read_exact(&mut [0]).await.is_ok() {
                    return stream;
                }
            }
        };
        timeout(PATIENCE, greeted).await.expect("a conversation is served")
    }

    /// Opens a stream, offers, and hears what the host says; the accept queue may have to be asked again.
    pub(crate) async fn offer(&self, offer: &CallOffer) -> (Stream, CallReply) {
        loop {
            let mut stream = self.open().await;
            write(&mut stream, &CallRequest::Offer(Box::new(offer.clone())).encode()).await;
            if let Some(frame) = read(&mut stream).await {
                return (stream, CallReply::decode(&frame).unwrap());
            }
        }
    }
}

/// A first offer of a call of an owner's agent in the root zone.
pub(crate) fn call_offer(owner: PeerKey, name: &str, size: usize) -> CallOffer {
    let name = format!("{name}@.").parse().unwrap();
    CallOffer {
        call: CallId(rand::random()),
        agent: AgentId::of(owner, &name).0,
        name,
        left_ms: 20_000,
        size: size as u64,
        attempt: 1,
        expected: None,
        context: CallContext::default(),
        detached: false,
        stream: false,
        again: false,
    }
}

pub(crate) async fn write(stream: &mut Stream, frame: &[u8]) {
    let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
    // A node that has hung up is noticed when it is heard.
    let _gone = stream.write_all(&[&length, frame].concat()).await;
    let _gone = stream.flush().await;
}

pub(crate) async fn read(stream: &mut Stream) -> Option<Vec<u8>> {
    let frame = async {
        let mut length = [0; 4];
        stream.read_exact(&mut length).await.ok()?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut frame).await.ok()?;
        Some(frame)
    };
    timeout(PATIENCE, frame).await.expect("the other side neither spoke nor closed")
}

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp(since.as_millis() as u64)
}

/// What the key of a zone gives a host, for so long.
pub(crate) fn granted(by: &Identity, to: PeerKey, zone: &ZoneName, life: Duration) -> ByteBuf {
    let grant = Grant {
        network: "test".into(),
        issuer: by.key(),
        subject: to,
        zone: zone.clone(),
        reach: Reach::Subtree,
        kinds: vec![RecordKind::Agent, RecordKind::Delegation],
        may_delegate: false,
        issued_at: now(),
        expires_at: now() + life,
        generation: 0,
        slots: Some(1_000),
    };
    ByteBuf::from(grant.sign(by))
}

/// Where the sockets of a TCP address are.
pub(crate) fn socket_of(address: &Multiaddr) -> SocketAddr {
    let mut parts = address.iter();
    match (parts.next(), parts.next()) {
        (Some(Part::Ip4(ip)), Some(Part::Tcp(port))) => (ip, port).into(),
        other => panic!("{other:?}"),
    }
}

/// Opens a silent socket to a node from one address of this host, again and again.
pub(crate) async fn knock(from: [u8; 4], to: SocketAddr) {
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        if let Ok(mut stream) = socket.connect(to).await {
            while stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
        }
    }
}

/// A door of somebody who has to do with nobody, and how many have knocked there.
pub(crate) async fn door() -> (Multiaddr, watch::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (count, counted) = watch::channel(0);
    tokio::spawn(async move {
        let mut open: Vec<TcpStream> = Vec::new();
        loop {
            open.push(listener.accept().await.unwrap().0);
            count.send_modify(|count| *count += 1);
        }
    });
    (format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap(), counted)
}
