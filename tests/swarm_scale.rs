//! Measures a world of N nodes on one loopback address: connections, time to deliver, idle traffic. Run by hand:
//! `cargo test --test swarm_scale -- --ignored --nocapture`; from the
//! environment: `NODES`, `LISTEN` (addresses with commas), `MESSAGES`, `GAP_US` between two, `SHORT` to settle 10 s only.

#![cfg(feature = "net")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::{Duration, Instant};

use aop::net::swarm::{Network, NetworkEvent, NetworkOptions, Traffic, Verdict};
use aop::net::transport::transport;
use aop::proto::identity::Identity;
use aop::proto::name::ZoneName;
use libp2p::Multiaddr;
use tokio::sync::{mpsc, oneshot};

enum Task {
    Traffic(oneshot::Sender<(Traffic, usize)>),
    Publish,
}

fn options(seed: u64, bootstrap: &[Multiaddr]) -> NetworkOptions {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(seed + 1).to_le_bytes());
    let listen = std::env::var("LISTEN").unwrap_or("/ip4/127.0.0.1/tcp/0".into());
    NetworkOptions {
        identity: Identity::from_seed(bytes),
        network: "scale".into(),
        zones: vec![ZoneName::root()],
        bootstrap: bootstrap.to_vec(),
        listen: listen.split(',').map(|text| text.parse().unwrap()).collect(),
    }
}

async fn drive(
    mut network: Network,
    start: Instant,
    mut tasks: mpsc::Receiver<Task>,
    late: mpsc::Sender<Duration>,
) {
    loop {
        tokio::select! {
            event = network.next() => if let NetworkEvent::Gossip { id, bytes, .. } = event {
                network.report(&id, Verdict::Accept);
                let sent = u64::from_le_bytes(bytes[..8].try_into().unwrap());
                _ = late.try_send(start.elapsed() - Duration::from_nanos(sent));
            },
            task = tasks.recv() => match task {
                None => return,
                Some(Task::Traffic(reply)) => {
                    let outbound = network.peers().filter(|peer| peer.outbound).count();
                    _ = reply.send((network.traffic(), outbound));
                }
                Some(Task::Publish) => {
                    let mut bytes = (start.elapsed().as_nanos() as u64).to_le_bytes().to_vec();
                    bytes.resize(1024, 7);
                    network.publish(&ZoneName::root(), bytes);
                }
            }
        }
    }
}

fn row(name: &str, mut values: Vec<usize>) {
    values.sort_unstable();
    let at = |part: f64| values[((values.len() - 1) as f64 * part) as usize];
    let mean = values.iter().sum::<usize>() as f64 / values.len() as f64;
    println!(
        "  {name:12} min {} median {} p95 {} max {} mean {mean:.1}",
        at(0.0),
        at(0.5),
        at(0.95),
        at(1.0)
    );
}

fn loopback_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/net/dev").unwrap();
    let line = text.lines().find(|line| line.trim().starts_with("lo:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn cpu_ms() -> u64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of minutes"]
async fn a_world_on_one_machine() {
    let count: u64 = std::env::var("NODES").map_or(20, |text| text.parse().unwrap());
    let start = Instant::now();
    let (late, mut lateness) = mpsc::channel(1_000_000);
    let (mut nodes, mut bootstrap) = (Vec::new(), Vec::new());
    for seed in 0..count {
        let options = options(seed, &bootstrap);
        let transport = transport(&options.keypair().unwrap()).unwrap();
        let mut network = Network::new(options, transport).unwrap();
        let addresses = network.listening().await;
        if bootstrap.is_empty() {
            bootstrap = vec![addresses[0].clone()];
        }
        let (tasks, receiver) = mpsc::channel(16);
        tokio::spawn(drive(network, start, receiver, late.clone()));
        nodes.push(tasks);
    }
    let waits: &[u64] = if std::env::var("SHORT").is_ok() { &[10] } else { &[2, 3, 5, 10, 20, 20] };
    for &wait in waits {
        tokio::time::sleep(Duration::from_secs(wait)).await;
        let mut all = Vec::new();
        for node in &nodes {
            let (reply, traffic) = oneshot::channel();
            node.send(Task::Traffic(reply)).await.unwrap();
            all.push(traffic.await.unwrap());
        }
        println!("{count} nodes after {:?}, cpu {} ms", start.elapsed(), cpu_ms());
        row("connections", all[1..].iter().map(|(traffic, _)| traffic.connections).collect());
        row("peers", all[1..].iter().map(|(traffic, _)| traffic.peers).collect());
        row("outbound", all[1..].iter().map(|(_, outbound)| *outbound).collect());
        row("mesh", all[1..].iter().map(|(traffic, _)| traffic.mesh[&ZoneName::root()]).collect());
        println!("  bootstrap node: {} connections, {} peers", all[0].0.connections, all[0].0.peers);
    }
    let (bytes, cpu) = (loopback_bytes(), cpu_ms());
    tokio::time::sleep(Duration::from_secs(20)).await;
    let idle = loopback_bytes() - bytes;
    println!("idle: {} B/s per node sent, cpu {} ms in 20 s for all", idle / 20 / count, cpu_ms() - cpu);
    let (bytes, cpu) = (loopback_bytes(), cpu_ms());
    let number = |name: &str, other: u64| std::env::var(name).map_or(other, |text| text.parse().unwrap());
    let messages = number("MESSAGES", 100) as usize;
    let mut pace = tokio::time::interval(Duration::from_micros(number("GAP_US", 100_000)));
    let began = Instant::now();
    for n in 0..messages {
        nodes[n * 7 % nodes.len()].send(Task::Publish).await.unwrap();
        pace.tick().await;
    }
    println!("sent in {:.1} s", began.elapsed().as_secs_f64());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let copies = (loopback_bytes() - bytes) as f64 / (messages as u64 * (count - 1)) as f64;
    let mut all = Vec::new();
    while let Ok(one) = lateness.try_recv() {
        all.push(one.as_micros() as usize);
    }
    println!(
        "delivered {} of {}, {copies:.0} B and {} us cpu per message and node",
        all.len(),
        messages as u64 * (count - 1),
        (cpu_ms() - cpu) * 1000 / (messages as u64 * count)
    );
    row("latency us", all.clone());
    all.sort_unstable();
    println!("  p99 {} us", all[all.len() * 99 / 100]);
}
