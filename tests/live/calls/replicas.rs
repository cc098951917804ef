//! Calls that have to share a host with many others, and connections that break in their midst.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aop::host::CallOptions;
use aop::proto::call::Report;
use futures::future::join_all;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::processes::{Process, three_hosts};
use super::{Node, PATIENCE, SLACK, task, timed};

/// Passes bytes on between whoever connects and one address, until it is cut.
struct Relay {
    address: SocketAddr,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    fn to(target: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, open) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<TcpStream>>>::default());
        let sockets = open.clone();
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let (near, far) = (near.unwrap(), TcpStream::connect(target).unwrap());
                let copies = [near.try_clone().unwrap(), far.try_clone().unwrap()];
                for (from, to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
                    std::thread::spawn(move || pass_on(from, to));
                }
                sockets.lock().unwrap().extend(copies);
            }
        });
        Relay { address, open }
    }

    /// Closes all connections; how many there were.
    fn cut(&self) -> usize {
        let sockets = std::mem::take(&mut *self.open.lock().unwrap());
        // One that is closed already is cut as well.
        sockets.iter().for_each(|socket| drop(socket.shutdown(Shutdown::Both)));
        sockets.len() / 2
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(read) = from.read(&mut bytes)
        && read > 0
        && to.write_all(&bytes[..read]).is_ok()
    {}
    // The other side sees that nothing more comes.
    let _closed = to.shutdown(Shutdown::Both);
}

/// Where a node listens, and its address as it is reached through a relay.
fn through_relay(host: &Process) -> (Relay, Multiaddr) {
    let direct: Multiaddr = host.ready.listen[0].parse().unwrap();
    let port = direct.iter().find_map(|part| match part {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    let relay = Relay::to(SocketAddr::from(([127, 0, 0, 1], port.unwrap())));
    let peer = direct.iter().find(|part| matches!(part, Protocol::P2p(_))).unwrap();
    let address = Multiaddr::empty().with(Protocol::Ip4([127, 0, 0, 1].into()));
    let address = address.with(Protocol::Tcp(relay.address.port())).with(peer);
    (relay, address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_in_the_midst_of_a_call_costs_no_answer_and_no_second_run() {
    let slow = "[agent]\nname = \"slow\"\ndescription = \"d\"\n[agent.run]\n\
                command = [\"sh\", \"-c\", \"echo $AOP_CALL_ID >> ran; sleep 2; echo done\"]\n";
    let host = Process::with_agents(&[], &[("slow", slow.to_owned())]);
    let (relay, address) = through_relay(&host);
    let caller = Node::start_at(3, vec![address], Vec::new()).await;
    caller.knows_of("slow").await;
    let (reports, mut heard) = mpsc::channel(8);
    let options = CallOptions { reports: Some(reports), ..timed(Duration::from_secs(20)) };
    let call = caller.handle().call("slow", json!({"task": "x"}), options);
    let cutting = async {
        while !matches!(heard.recv().await, Some(Report::Working { .. })) {}
        let ran = host.folder().join("ran");
        let begun = async {
            while !ran.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, begun).await.expect("the agent has its input");
        assert!(relay.cut() > 0, "the call goes through the relay");
    };
    let (answer, ()) = tokio::join!(call, cutting);
    let answer = answer.unwrap();
    assert_eq!((answer.success, &answer.result), (true, &json!("done")), "{answer:?}");
    let ran = std::fs::read_to_string(host.folder().join("ran")).unwrap();
    assert_eq!(ran.lines().collect::<Vec<_>>(), [answer.task_id.as_str()], "it ran once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_call_of_a_node_does_not_wait_behind_sixty_of_another() {
    let sleeper = "[agent]\nname = \"four\"\ndescription = \"d\"\nmax_concurrency = 4\n\
                   [agent.run]\nbuiltin = \"sleep\"\n";
    let host = Process::with_agents(&[], &[("four", sleeper.to_owned())]);
    let bootstrap = || vec![host.ready.listen[0].parse().unwrap()];
    let greedy = Node::start_at(4, bootstrap(), Vec::new()).await;
    let modest = Node::start_at(5, bootstrap(), Vec::new()).await;
    greedy.knows_of("four").await;
    modest.knows_of("four").await;
    let many = join_all((0..60).map(|_| greedy.call("four", task(1_000), 25.0)));
    let one = async {
        host.until_queued("four", 20).await;
        let began = Instant::now();
        let answer = modest.call("four", task(1_000), 25.0).await;
        assert!(answer.success, "{answer:?}");
        began.elapsed()
    };
    let (_, took) = tokio::join!(many, one);
    // A turn of the others, and its own work; in their order it would be ten.
    assert!(took < Duration::from_secs(2) + SLACK, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inputs_of_nearly_full_size_share_the_places_of_an_agent() {
    let mirror = "[agent]\nname = \"four\"\ndescription = \"d\"\nmax_concurrency = 4\n\
                  [agent.run]\nbuiltin = \"echo\"\n";
    let host = Process::with_agents(&[], &[("four", mirror.to_owned())]);
    let caller = Node::start_at(6, vec![host.ready.listen[0].parse().unwrap()], Vec::new()).await;
    caller.knows_of("four").await;
    let large = "x".repeat(2_900 * 1024);
    for answer in join_all((0..4).map(|_| caller.call("four", task(&large), 25.0))).await {
        assert!(answer.success, "{:?}", answer.error);
        assert_eq!(answer.result.as_str().map(str::len), Some(large.len()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_whose_agent_fails_at_once_is_left_by_whoever_calls() {
    // It fails where there is a file of that name beside it.
    let run = "command = [\"sh\", \"-c\", \"test -e broken && exit 1; cat > /dev/null; echo fine\"]";
    let hosts = three_hosts(4, run);
    std::fs::write(hosts[1].folder().join("broken"), "").unwrap();
    let caller = Node::start_at(7, vec![hosts[0].ready.listen[0].parse().unwrap()], Vec::new()).await;
    caller.knows_of("rep").await;
    let began = Instant::now();
    let (mut served, mut failed) = (BTreeSet::new(), 0);
    while served.len() < 2 || failed < 5 {
        let answer = caller.call("rep", json!({"task": "x"}), 20.0).await;
        failed += u32::from(!answer.success);
        served.extend(answer.served_by.filter(|_| answer.success));
        assert!(began.elapsed() < PATIENCE, "{failed} failed, the rest by {served:?}");
    }
    let calls = join_all((0..4).map(async |_| {
        let mut failed = 0;
        for _ in 0..50 {
            failed += u32::from(!caller.call("rep", json!({"task": "x"}), 20.0).await.success);
        }
        failed
    }));
    let failed: u32 = calls.await.into_iter().sum();
    assert!(failed <= 2, "{failed} of 200 failed");
}
