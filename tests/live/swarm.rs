//! The network layer on real loopback sockets: every test awaits events, bounded by [`PATIENCE`].

use std::collections::BTreeSet;
use std::time::Duration;

use aop::net::streams::{RequestError, SYNC_LIMITS};
use aop::net::swarm::{
    Discovery, Network, NetworkAlert, NetworkError, NetworkEvent, NetworkOptions, Published, Verdict,
};
use aop::net::transport::transport;
use aop::proto::address_block::TrustedNets;
use aop::proto::identity::{Identity, PeerKey};
use aop::proto::io::{Offence, Protocol};
use aop::proto::limits::{GOSSIP_BYTES_MAX, SYNC_FRAME_BYTES_MAX};
use aop::proto::name::ZoneName;
use aop::proto::record::Refusal;
use futures::future::join_all;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::core::transport::MemoryTransport;
use libp2p::core::upgrade::Version;
use libp2p::{Multiaddr, StreamProtocol, SwarmBuilder, Transport, noise, tcp, yamux};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Far more than anything takes on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);
const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// What a peer is blocked for.
const FORGED: Offence = Offence::Record(Refusal::BadSignature);

type Task = Box<dyn FnOnce(&mut Network) + Send>;

/// A node whose driver accepts all gossip but what begins with `bad`, and answers every question with itself, except
/// `drop`, whose reply it drops.
struct Node {
    key: PeerKey,
    addresses: Vec<Multiaddr>,
    events: mpsc::Receiver<NetworkEvent>,
    tasks: mpsc::Sender<Task>,
    running: tokio::task::JoinHandle<()>,
}

impl Node {
    async fn start(options: NetworkOptions) -> Node {
        let key = options.identity.key();
        let mut network = Node::open(options).await;
        let addresses = network.listening().await;
        let (sender, events) = mpsc::channel(100_000);
        let (tasks, receiver) = mpsc::channel(16);
        let running = tokio::spawn(drive(network, sender, receiver));
        Node { key, addresses, events, tasks, running }
    }

    /// QUIC gives its port back a moment after the last connection was closed.
    async fn open(options: NetworkOptions) -> Network {
        let opened = async {
            loop {
                let transport = transport(&options.keypair().unwrap()).unwrap();
                match Network::new(options.clone(), transport) {
                    Err(NetworkError::PortTaken(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                    opened => return opened.unwrap(),
                }
            }
        };
        timeout(PATIENCE, opened).await.expect("the port never became free")
    }

    async fn with<T: Send + 'static>(&self, task: impl FnOnce(&mut Network) -> T + Send + 'static) -> T {
        let (sender, receiver) = oneshot::channel();
        let task: Task = Box::new(move |network| _ = sender.send(task(network)));
        self.tasks.send(task).await.ok().unwrap();
        receiver.await.unwrap()
    }

    async fn publish(&self, bytes: &[u8]) -> Published {
        let bytes = bytes.to_vec();
        self.with(move |network| network.publish(&ZoneName::root(), bytes)).await
    }

    /// The first event that `find` picks; earlier ones are dropped.
    async fn until<T>(&mut self, what: &str, mut find: impl FnMut(NetworkEvent) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = find(self.events.recv().await.unwrap()) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("never: {what}"))
    }

    async fn until_connected(&mut self, to: PeerKey) {
        let is = |event| matches!(event, NetworkEvent::Connected { peer, .. } if peer == to).then_some(());
        self.until("connected", is).await;
    }

    async fn until_subscribed(&mut self, to: PeerKey) {
        let is = |event| matches!(event, NetworkEvent::Subscribed { peer, .. } if peer == to).then_some(());
        self.until("subscribed", is).await;
    }

    async fn publish_in(&self, zone: &ZoneName, bytes: &[u8]) -> Published {
        let (zone, bytes) = (zone.clone(), bytes.to_vec());
        self.with(move |network| network.publish(&zone, bytes)).await
    }

    async fn join(&self, zone: &ZoneName) {
        let zone = zone.clone();
        self.with(move |network| network.join_zone(&aop::proto::name::ZoneId::open(zone))).await;
    }

    async fn leave(&self, zone: &ZoneName) {
        let zone = zone.clone();
        self.with(move |network| network.leave_zone(&zone)).await;
    }

    async fn until_subscribed_in(&mut self, in_zone: &ZoneName, to: PeerKey) {
        let is = |event| match event {
            NetworkEvent::Subscribed { peer, zone } => (peer == to && zone == *in_zone).then_some(()),
            _ => None,
        };
        self.until("subscribed to the zone", is).await;
    }

    async fn until_gossip(&mut self, expected: &[u8]) {
        let is =
            |event| matches!(event, NetworkEvent::Gossip { bytes, .. } if bytes == expected).then_some(());
        self.until("gossip", is).await;
    }

    async fn stop(self) {
        drop((self.tasks, self.events));
        self.running.await.unwrap();
    }
}

async fn drive(mut network: Network, events: mpsc::Sender<NetworkEvent>, mut tasks: mpsc::Receiver<Task>) {
    loop {
        let event = tokio::select! {
            event = network.next() => event,
            task = tasks.recv() => match task {
                Some(task) => { task(&mut network); continue; }
                None => return network.shutdown().await,
            },
        };
        match event {
            NetworkEvent::Request(request) if request.bytes == b"drop" => {}
            NetworkEvent::Request(request) => _ = request.reply.send(request.bytes),
            NetworkEvent::Gossip { id, ref bytes, .. } => {
                let bad = bytes.starts_with(b"bad");
                network.report(&id, if bad { Verdict::Reject } else { Verdict::Accept });
                _ = events.try_send(event);
            }
            other => _ = events.try_send(other),
        }
    }
}

fn options(seed: u8, listen: &str, bootstrap: &[Multiaddr]) -> NetworkOptions {
    NetworkOptions {
        identity: Identity::from_seed([seed; 32]),
        network: "test".into(),
        zones: vec![aop::proto::name::ZoneId::open(ZoneName::root())],
        bootstrap: bootstrap.to_vec(),
        listen: vec![listen.parse().unwrap()],
        announce: Vec::new(),
        peers_file: None,
        trusted_nets: TrustedNets::default(),
        discovery: Discovery::Dht,
        reach: Default::default(),
    }
}

async fn pair(listen: &str) -> (Node, Node) {
    let mut a = Node::start(options(1, listen, &[])).await;
    let mut b = Node::start(options(2, listen, &a.addresses)).await;
    a.until_connected(b.key).await;
    b.until_connected(a.key).await;
    (a, b)
}

/// The part of an address before `/p2p/`.
fn anonymous(address: &Multiaddr) -> Multiaddr {
    let mut address = address.clone();
    address.pop();
    address
}

#[tokio::test]
async fn two_nodes_meet_over_tcp_and_over_quic() {
    for listen in [TCP, QUIC] {
        let (a, b) = pair(listen).await;
        let agents =
            b.with(|network| network.peers().map(|peer| peer.agent.clone()).collect::<Vec<_>>()).await;
        assert!(agents.len() == 1 && agents[0].starts_with(concat!("aop/", env!("CARGO_PKG_VERSION"), " ")));
        a.stop().await;
        b.stop().await;
    }
}

/// The layer takes any transport: here one that never leaves the process.
#[tokio::test]
async fn two_nodes_meet_over_a_memory_transport() {
    let open = |options: NetworkOptions| {
        let keypair = options.keypair().unwrap();
        let transport = MemoryTransport::new()
            .upgrade(Version::V1Lazy)
            .authenticate(noise::Config::new(&keypair).unwrap())
            .multiplex(yamux::Config::default());
        Network::new(options, transport.boxed()).unwrap()
    };
    let mut a = open(options(1, "/memory/0", &[]));
    let addresses = a.listening().await;
    let mut b = open(options(2, "/memory/0", &addresses));
    let met = async {
        loop {
            let event = tokio::select! { event = a.next() => event, event = b.next() => event };
            if let NetworkEvent::Connected { .. } = event {
                return;
            }
        }
    };
    timeout(PATIENCE, met).await.unwrap();
}

#[tokio::test]
async fn a_bootstrap_address_needs_no_peer_id_and_may_be_our_own() {
    let mut a = Node::start(options(1, TCP, &[])).await;
    let mut known: Vec<Multiaddr> = a.addresses.iter().map(anonymous).collect();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let own = format!("/ip4/127.0.0.1/tcp/{taken}");
    known.push(own.parse().unwrap());
    let b = Node::start(options(2, &own, &known)).await;
    a.until_connected(b.key).await;
}

#[tokio::test]
async fn a_clean_shutdown_is_noticed_at_once() {
    let (a, mut b) = pair(TCP).await;
    let key = a.key;
    a.stop().await;
    b.until("disconnected", |event| {
        matches!(event, NetworkEvent::Disconnected { peer } if peer == key).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_lone_node_publishes_to_nobody() {
    let a = Node::start(options(1, TCP, &[])).await;
    assert_eq!(a.publish(b"hello").await, Published::NobodyListens);
    assert_eq!(a.publish(&vec![0; GOSSIP_BYTES_MAX + 1]).await, Published::TooLarge);
    let elsewhere: ZoneName = "elsewhere".parse().unwrap();
    assert_eq!(a.with(move |network| network.publish(&elsewhere, vec![1])).await, Published::OtherZone);
}

/// With the default score weight for peers on one IP address the 15th node is cut off.
#[tokio::test(flavor = "multi_thread")]
async fn gossip_reaches_sixteen_nodes_on_one_ip_address_through_one_bootstrap_address() {
    let mut nodes = vec![Node::start(options(1, TCP, &[])).await];
    for seed in 2..=16 {
        let bootstrap = nodes[0].addresses.clone();
        nodes.push(Node::start(options(seed, TCP, &bootstrap)).await);
    }
    for node in &mut nodes {
        for _ in 0..4 {
            node.until("four subscribed", |event| {
                matches!(event, NetworkEvent::Subscribed { .. }).then_some(())
            })
            .await;
        }
    }
    // Scores are refreshed every second: three rounds outlive the first refresh with everybody connected.
    for round in 0..3 {
        for (sender, node) in nodes.iter().enumerate() {
            let text = format!("round {round} from {sender}");
            assert_eq!(node.publish(text.as_bytes()).await, Published::Sent);
            assert_eq!(node.publish(text.as_bytes()).await, Published::Duplicate);
        }
        let texts: BTreeSet<Vec<u8>> =
            (0..nodes.len()).map(|sender| format!("round {round} from {sender}").into_bytes()).collect();
        for (index, node) in nodes.iter_mut().enumerate() {
            let mut missing = texts.clone();
            missing.remove(format!("round {round} from {index}").as_bytes());
            node.until("all gossip of a round", |event| {
                let NetworkEvent::Gossip { bytes, .. } = event else { return None };
                missing.remove(&bytes);
                missing.is_empty().then_some(())
            })
            .await;
        }
        // One heartbeat, in which the mesh judges its peers anew: the library tells of none.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
}

/// The third node blocks the first, so that only the second could forward to it.
#[tokio::test]
async fn a_rejected_message_is_not_forwarded_and_a_blocked_peer_is_not_heard() {
    let (a, mut b) = pair(TCP).await;
    let mut c = Node::start(options(3, TCP, &[])).await;
    let outlaw = a.key;
    c.with(move |network| (0..4).for_each(|_| network.penalize(outlaw, FORGED))).await;
    let blocked = |event| {
        matches!(event, NetworkEvent::Alert(NetworkAlert::Blocked { peer }) if peer == outlaw).then_some(())
    };
    c.until("blocked", blocked).await;
    let bootstrap = c.addresses.clone();
    let mut d = Node::start(options(4, TCP, &[bootstrap, b.addresses.clone()].concat())).await;
    let third = c.key;
    d.with(move |network| (0..4).for_each(|_| network.penalize(outlaw, FORGED))).await;
    d.until_subscribed(third).await;
    d.until_subscribed(b.key).await;
    b.until_subscribed(d.key).await;

    assert_eq!(a.publish(b"bad apple").await, Published::Sent);
    b.until_gossip(b"bad apple").await;
    assert_eq!(a.publish(b"good apple").await, Published::Sent);
    for node in [&mut c, &mut d] {
        let first = node
            .until("gossip", |event| match event {
                NetworkEvent::Gossip { bytes, peer, .. } => {
                    assert_ne!(peer, outlaw);
                    Some(bytes)
                }
                _ => None,
            })
            .await;
        assert_eq!(first, b"good apple");
    }
}

fn lab() -> ZoneName {
    "lab".parse().unwrap()
}

/// As [`options`], in the zone `lab` too.
fn options_in_lab(seed: u8, bootstrap: &[Multiaddr]) -> NetworkOptions {
    NetworkOptions {
        zones: [ZoneName::root(), lab()].map(aop::proto::name::ZoneId::open).to_vec(),
        ..options(seed, TCP, bootstrap)
    }
}

#[tokio::test]
async fn a_zone_joined_at_run_time_gets_gossip_from_peers_that_were_there_before_and_after() {
    let mut before = Node::start(options_in_lab(1, &[])).await;
    let mut joining = Node::start(options(2, TCP, &before.addresses)).await;
    joining.until_subscribed(before.key).await;
    before.until_subscribed(joining.key).await;
    assert_eq!(joining.publish_in(&lab(), b"early").await, Published::OtherZone);

    joining.join(&lab()).await;
    joining.until_subscribed_in(&lab(), before.key).await;
    before.until_subscribed_in(&lab(), joining.key).await;
    assert_eq!(before.publish_in(&lab(), b"from before").await, Published::Sent);
    joining.until_gossip(b"from before").await;
    assert_eq!(joining.publish_in(&lab(), b"from the new one").await, Published::Sent);
    before.until_gossip(b"from the new one").await;

    let mut after = Node::start(options_in_lab(3, &joining.addresses)).await;
    joining.until_subscribed_in(&lab(), after.key).await;
    after.until_subscribed_in(&lab(), joining.key).await;
    assert_eq!(after.publish_in(&lab(), b"from after").await, Published::Sent);
    joining.until_gossip(b"from after").await;
}

#[tokio::test]
async fn a_zone_that_was_left_is_silent_and_its_peers_see_it() {
    let mut stays = Node::start(options_in_lab(1, &[])).await;
    let mut leaves = Node::start(options_in_lab(2, &stays.addresses)).await;
    leaves.until_subscribed_in(&lab(), stays.key).await;
    stays.until_subscribed_in(&lab(), leaves.key).await;

    // The last message before: whether it is told or not, nothing of the zone is told after.
    stays.publish_in(&lab(), b"to the zone").await;
    leaves.leave(&lab()).await;
    while leaves.events.try_recv().is_ok() {}
    let gone = |event| match event {
        NetworkEvent::Unsubscribed { peer, zone } => (peer == leaves.key && zone == lab()).then_some(()),
        _ => None,
    };
    stays.until("unsubscribed", gone).await;
    assert_eq!(leaves.publish_in(&lab(), b"late").await, Published::OtherZone);
    assert_eq!(stays.publish_in(&lab(), b"alone").await, Published::NobodyListens);
    assert_eq!(stays.publish(b"to the root").await, Published::Sent);
    let root = |event| match event {
        NetworkEvent::Gossip { zone, bytes, .. } => {
            assert_eq!(zone, ZoneName::root());
            (bytes == b"to the root").then_some(())
        }
        NetworkEvent::Subscribed { zone, .. } | NetworkEvent::Unsubscribed { zone, .. } => {
            assert_eq!(zone, ZoneName::root());
            None
        }
        _ => None,
    };
    leaves.until("gossip of the root zone alone", root).await;

    leaves.join(&lab()).await;
    leaves.until_subscribed_in(&lab(), stays.key).await;
    stays.until_subscribed_in(&lab(), leaves.key).await;
    assert_eq!(leaves.publish_in(&lab(), b"back again").await, Published::Sent);
    stays.until_gossip(b"back again").await;
}

/// Both know the hub alone; the provider is in no zone of the one that looks for it.
#[tokio::test]
async fn find_peers_finds_a_provider_that_nobody_dialed() {
    let hub = Node::start(options(1, TCP, &[])).await;
    let mut provider = Node::start(options_in_lab(2, &hub.addresses)).await;
    provider.until_connected(hub.key).await;
    provider.with(|network| network.provide(&lab())).await;
    let mut seeker = Node::start(options(3, TCP, &hub.addresses)).await;
    seeker.until_connected(hub.key).await;
    loop {
        seeker.with(|network| network.find_peers(&lab())).await;
        let found = |event| match event {
            NetworkEvent::ZonePeers { zone, peers } if zone == lab() => Some(peers),
            _ => None,
        };
        let found = seeker.until("an answer", found).await;
        if found == [provider.key] {
            break;
        }
        assert_eq!(found, []);
        // Nobody tells when the provider's word has reached the hub.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let provider = provider.key;
    while !seeker.with(move |network| network.peers().any(|peer| peer.key == provider)).await {
        seeker.until("an event", Some).await;
    }
    seeker.join(&lab()).await;
    seeker.until_subscribed_in(&lab(), provider).await;
}

#[tokio::test]
async fn without_a_dht_nobody_is_found_and_nothing_fails() {
    let without = |seed, bootstrap: &[Multiaddr]| NetworkOptions {
        discovery: Discovery::Off,
        reach: Default::default(),
        ..options_in_lab(seed, bootstrap)
    };
    let a = Node::start(without(1, &[])).await;
    let mut b = Node::start(without(2, &a.addresses)).await;
    b.until_connected(a.key).await;
    for node in [&a, &b] {
        node.with(|network| {
            network.provide(&lab());
            network.find_peers(&lab());
        })
        .await;
    }
    b.until_subscribed(a.key).await;
    a.publish_in(&lab(), b"still there").await;
    let heard = |event| match event {
        NetworkEvent::ZonePeers { .. } => panic!("found without a DHT"),
        NetworkEvent::Gossip { bytes, .. } => (bytes == b"still there").then_some(()),
        _ => None,
    };
    b.until("gossip", heard).await;
    b.with(|network| network.stop_providing(&lab())).await;
}

#[tokio::test]
async fn a_restarted_bootstrap_peer_is_rejoined_without_help() {
    for listen in [TCP, QUIC] {
        let (a, mut b) = pair(listen).await;
        let (key, address) = (a.key, anonymous(&a.addresses[0]).to_string());
        a.stop().await;
        let gone = |event| matches!(event, NetworkEvent::Disconnected { peer } if peer == key).then_some(());
        b.until("disconnected", gone).await;
        let mut a = Node::start(options(1, &address, &[])).await;
        b.until_connected(key).await;
        a.until_subscribed(b.key).await;
        b.until_subscribed(a.key).await;
        assert_eq!(a.publish(b"back").await, Published::Sent);
        b.until_gossip(b"back").await;
    }
}

/// Every peer that answers has another key, so that only the address can lead to it.
#[tokio::test]
async fn a_bootstrap_address_is_dialed_again_until_somebody_answers_and_after_he_left() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("/ip4/127.0.0.1/tcp/{port}");
    let mut b = Node::start(options(2, TCP, &[address.parse().unwrap()])).await;
    let refused = |event| {
        matches!(event, NetworkEvent::Alert(NetworkAlert::BootstrapUnreachable { failures: 1, .. }))
            .then_some(())
    };
    b.until("nobody answers", refused).await;
    for seed in [3, 4] {
        let a = Node::start(options(seed, &address, &[])).await;
        b.until_connected(a.key).await;
        a.stop().await;
    }
}

/// The peer is killed without a goodbye and is back before anybody missed it: its old connection still looks alive.
#[test]
fn a_peer_that_was_killed_and_restarted_at_once_gets_gossip_again() {
    for listen in [TCP, QUIC] {
        let first = tokio::runtime::Runtime::new().unwrap();
        let second = tokio::runtime::Runtime::new().unwrap();
        let a = first.block_on(Node::start(options(1, listen, &[])));
        let address = anonymous(&a.addresses[0]).to_string();
        let mut b = second.block_on(Node::start(options(2, listen, &a.addresses)));
        second.block_on(b.until_subscribed(a.key));
        first.shutdown_background();
        let bootstrap = b.addresses.clone();
        second.block_on(async {
            let mut a = Node::start(options(1, &address, &bootstrap)).await;
            a.until_subscribed(b.key).await;
            b.until_subscribed(a.key).await;
            assert_eq!(a.publish(b"from a").await, Published::Sent);
            b.until_gossip(b"from a").await;
            assert_eq!(b.publish(b"from b").await, Published::Sent);
            a.until_gossip(b"from b").await;
        });
    }
}

#[tokio::test]
async fn a_peer_of_another_network_is_refused() {
    let mut a = Node::start(options(1, TCP, &[])).await;
    let mut foreign = options(2, TCP, &a.addresses);
    foreign.network = "elsewhere".into();
    let mut b = Node::start(foreign).await;
    let refused = |event| match event {
        NetworkEvent::Connected { .. } => panic!("a foreign peer was welcomed"),
        NetworkEvent::Alert(NetworkAlert::OtherNetwork { speaks, .. }) => Some(speaks),
        _ => None,
    };
    // Whoever is first closes the connection, maybe before the other has read who it is.
    tokio::select! {
        speaks = a.until("refused", refused) => assert_eq!(speaks, "/aop/elsewhere/1"),
        speaks = b.until("refused", refused) => assert_eq!(speaks, "/aop/test/1"),
    }
    for node in [&a, &b] {
        assert_eq!(node.with(|network| network.peers().count()).await, 0);
    }
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let a = Node::start(options(1, TCP, &[])).await;
    let address = anonymous(&a.addresses[0]);
    let options = options(2, &address.to_string(), &[]);
    let transport = transport(&options.keypair().unwrap()).unwrap();
    let error = Network::new(options, transport).err().unwrap();
    assert!(matches!(&error, NetworkError::PortTaken(taken) if *taken == address), "{error}");
}

#[tokio::test]
async fn a_node_dials_although_another_program_has_its_port_on_another_address() {
    let other = std::net::TcpListener::bind("127.0.1.1:0").unwrap();
    let listen = format!("/ip4/127.0.0.1/tcp/{}", other.local_addr().unwrap().port());
    let mut a = Node::start(options(1, TCP, &[])).await;
    let b = Node::start(options(2, &listen, &a.addresses)).await;
    a.until_connected(b.key).await;
    drop(other);
}

#[tokio::test]
async fn questions_of_256_kib_are_answered_in_order_while_more_are_asked() {
    for listen in [TCP, QUIC] {
        let (a, b) = pair(listen).await;
        let session =
            b.with(|network| network.request_client(Protocol::Sync)).await.open(a.key).await.unwrap();
        let question = |n: u8| vec![n; SYNC_FRAME_BYTES_MAX];
        let answers = join_all((0..24).map(|n| session.request(question(n)))).await;
        for (n, answer) in answers.into_iter().enumerate() {
            assert!(answer.unwrap() == question(n as u8), "answer {n}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_fifty_streams_loses_none() {
    let (a, b) = pair(TCP).await;
    let client = b.with(|network| network.request_client(Protocol::Sync)).await;
    let ask = |n: u8| {
        let (client, peer) = (client.clone(), a.key);
        async move { client.open(peer).await?.request(vec![n]).await }
    };
    for (n, answer) in join_all((0..50).map(ask)).await.into_iter().enumerate() {
        assert_eq!(answer.unwrap(), [n as u8]);
    }
}

#[tokio::test]
async fn an_unanswered_question_ends_its_session_and_no_other() {
    let (a, b) = pair(TCP).await;
    let client = b.with(|network| network.request_client(Protocol::Sync)).await;
    let (one, other) = (client.open(a.key).await.unwrap(), client.open(a.key).await.unwrap());
    assert!(matches!(one.request(b"drop".to_vec()).await, Err(RequestError::Closed(_))));
    assert!(one.request(b"more".to_vec()).await.is_err());
    assert_eq!(other.request(b"more".to_vec()).await.unwrap(), b"more");
}

#[tokio::test]
async fn sessions_beyond_the_limit_wait_for_their_turn() {
    let (a, b) = pair(TCP).await;
    let client = b.with(|network| network.request_client(Protocol::Sync)).await;
    let mut held = Vec::new();
    for _ in 0..SYNC_LIMITS.served_per_peer_max {
        held.push(client.open(a.key).await.unwrap());
    }
    let mut next = Box::pin(client.open(a.key));
    assert!(timeout(Duration::from_millis(300), &mut next).await.is_err());
    held.pop();
    assert!(timeout(PATIENCE, next).await.unwrap().is_ok());
}

#[tokio::test]
async fn an_unknown_peer_cannot_be_asked() {
    let (_a, b) = pair(TCP).await;
    let client = b.with(|network| network.request_client(Protocol::Sync)).await;
    let stranger = Identity::from_seed([99; 32]).key();
    assert!(matches!(client.open(stranger).await, Err(RequestError::Unreachable(_))));
}

/// A peer that announces a frame above the limit: the stream is closed without waiting for its bytes.
#[tokio::test]
async fn an_oversized_frame_closes_the_stream() {
    let a = Node::start(options(1, TCP, &[])).await;
    let mut rogue = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| libp2p_stream::Behaviour::new())
        .unwrap()
        .build();
    rogue.dial(a.addresses[0].clone()).unwrap();
    let mut control = rogue.behaviour().new_control();
    let peer = aop::net::addresses::peer_id(&a.key).unwrap();
    tokio::spawn(async move { while rogue.next().await.is_some() {} });
    let mut stream = control.open_stream(peer, StreamProtocol::new("/aop/test/sync/1")).await.unwrap();
    stream.read_exact(&mut [0]).await.unwrap();
    stream.write_all(&(SYNC_FRAME_BYTES_MAX as u32 + 1).to_be_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut rest = Vec::new();
    let end =
        timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await.expect("the stream stayed open");
    assert!(rest.is_empty(), "{end:?}");
}
