//! `GET /v1/find` beside a bare axum route that answers with as many bytes: `cargo bench --bench http`.
//!
//! Keep-alive connections ask one question after the other, over real sockets of loopback, against a live node that
//! holds 10,000 records. Rounds alternate. Aim: at least half the rate of the bare route.

use std::net::SocketAddr;
use std::time::Duration;

use aop::host;
use aop::http;
use aop::proto::address_block::TrustedNets;
use tokio::net::{TcpListener, TcpStream};

#[path = "samples/agents.rs"]
mod agents;
#[path = "samples/nodes.rs"]
mod nodes;
#[path = "samples/requests.rs"]
mod requests;
#[path = "samples/times.rs"]
mod times;

use agents::{Cards, fill};
use nodes::options;
use requests::{ask, ask_for_a_while};
use times::Times;

const HELD: usize = 10_000;
const CONNECTIONS: usize = 8;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);

fn main() {
    times::head("cargo bench --bench http");
    let dir = tempfile::tempdir().expect("a folder");
    fill(dir.path(), 100, HELD);
    let options = options(100, dir.path(), &[]);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let node = host::start(options).await.expect("started");
        let settings = http::Settings {
            addr: ([127, 0, 0, 1], 0).into(),
            names: Vec::new(),
            trusted_nets: TrustedNets::default(),
            token: None,
            registry: http::RegistryAccess::Own,
        };
        let server = http::bind(settings).await.expect("bound").serve(node.handle.clone());
        let addr: SocketAddr = server.url().trim_start_matches("http://").parse().expect("an address");
        compare(addr).await;
    });
}

async fn compare(node: SocketAddr) {
    let mut cards = Cards::new();
    let find = format!("/v1/find?limit=10&tag={}&capability={}", cards.label("tag"), cards.label("can"));
    let mut probe = TcpStream::connect(node).await.expect("connected");
    let bytes = ask(&mut probe, &request(node, &find), &mut Vec::new()).await;
    let bare = bare_route(bytes).await;
    let mut measured = [(0, Times::default()), (0, Times::default())];
    for _ in 0..ROUNDS {
        for (kind, (count, times)) in measured.iter_mut().enumerate() {
            let (addr, path) = if kind == 0 { (bare, "/") } else { (node, find.as_str()) };
            let asked = request(addr, path);
            let tasks: Vec<_> =
                (0..CONNECTIONS).map(|_| tokio::spawn(ask_for_a_while(addr, asked.clone(), ROUND))).collect();
            for task in tasks {
                let took = task.await.expect("asked");
                *count += took.len();
                took.into_iter().for_each(|time| times.add(time));
            }
        }
    }
    println!("{CONNECTIONS} connections, {HELD} records, answers of {bytes} bytes");
    let whole = measured[0].0 as f64;
    for (name, (count, times)) in
        ["bare axum route", "GET /v1/find, a tag and a capability"].iter().zip(&mut measured)
    {
        times.line(name);
        let rate = *count as f64 / (ROUNDS as f64 * ROUND.as_secs_f64());
        println!("    {rate:.0} a second, {:.3} of bare", *count as f64 / whole);
    }
}

async fn bare_route(bytes: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let addr = listener.local_addr().expect("an address");
    let body = "x".repeat(bytes);
    let app = axum::Router::new().route("/", axum::routing::get(move || async move { body }));
    tokio::spawn(async move { axum::serve(listener, app).await });
    addr
}

fn request(addr: SocketAddr, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\n\r\n").into_bytes()
}
