//! Over HTTP: searches and looks at one agent.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use aop::host;
use aop::proto::identity::AgentId;
use aop::proto::search::{self, Index, Query};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::agents::{Cards, NETWORK, fill};
use crate::cpu::process_cpu;
use crate::figure::{Aim, Figure, median, us};
use crate::load::load;
use crate::nodes::options;
use crate::process::NodeProcess;
use crate::requests::{Request, ask, get};
use crate::server::Server;

const HELD: usize = 10_000;
const CONNECTIONS: usize = 8;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(1);
/// Names that are asked for, one after the other.
const NAMES: usize = 500;
const TEXTS: usize = 300;
/// Words that they are made of.
const WORDS: usize = 25;

/// Searches beside a bare route that answers with as many bytes, both in this process.
pub(crate) fn find() -> Vec<Figure> {
    let dir = tempfile::tempdir().expect("a folder");
    fill(dir.path(), 100, HELD);
    runtime().block_on(async {
        let server = Server::of(host::start(options(100, dir.path(), &[])).await.expect("started")).await;
        let mut cards = Cards::new();
        let path = format!("/v1/find?limit=10&tag={}&capability={}", cards.label("tag"), cards.label("can"));
        let ours = get(server.addr, &path);
        let mut body = Vec::new();
        let bytes = ask(&mut connect(server.addr).await, &ours, &mut body).await;
        assert_eq!(hits(&body[body.len() - bytes..]), 10, "a whole page");
        let bare = bare_route(bytes).await;
        let (mut theirs, mut rates) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            for (addr, request, rates) in
                [(server.addr, ours.clone(), &mut rates), (bare, get(bare, "/"), &mut theirs)]
            {
                let count = load(addr, &[request], CONNECTIONS, ROUND).await.len();
                rates.push(count as f64 / ROUND.as_secs_f64());
            }
        }
        let (rate, bare) = (median(&rates), median(&theirs));
        let of = format!("{rate:.0} of {bare:.0} a second, {bytes} bytes");
        let what = "GET /v1/find, ten hits, of a bare route's rate";
        vec![Figure::new("find", what, rate / bare, "", Aim::AtLeast(0.5)).of(of)]
    })
}

/// Work of the binary a request, by that of the least one.
pub(crate) fn requests() -> Vec<Figure> {
    let dir = tempfile::tempdir().expect("a folder");
    let node = live(dir.path());
    let paths = |make: &dyn Fn(usize) -> String| -> Vec<Request> {
        (0..NAMES).map(|at| get(node.addr, &make(at))).collect()
    };
    let missing = |make: &dyn Fn(usize) -> String| -> Vec<Request> {
        paths(make).into_iter().map(|request| Request { status: 404, ..request }).collect()
    };
    let letters = |at: usize| String::from_iter([at / 26, at % 26].map(|at| char::from(b'a' + at as u8)));
    let kinds = [
        ("GET /healthz", paths(&|_| "/healthz".into()), Aim::Told),
        ("one tag, ten hits", paths(&|at| format!("/v1/find?limit=10&tag=tag{}", at % 20)), Aim::AtMost(3.0)),
        (
            "a tag and a capability, ten hits",
            paths(&|at| format!("/v1/find?limit=10&tag=tag{}&capability=can{}", at % 5, at / 5 % 4)),
            Aim::AtMost(3.0),
        ),
        ("one agent", paths(&|at| format!("/v1/agents/agent-{}", at * 17)), Aim::AtMost(2.0)),
        (
            "no such name, unlike others",
            missing(&|at| format!("/v1/agents/quixotic-gizmo-{}", letters(at))),
            Aim::AtMost(3.5),
        ),
        (
            "no such name, like 10,000",
            missing(&|at| format!("/v1/agents/agent-x{}", letters(at))),
            Aim::AtMost(3.5),
        ),
    ];
    let requests: Vec<&[Request]> = kinds.iter().map(|(_, requests, _)| requests.as_slice()).collect();
    let cpu = cpu_each(&node, &requests);
    let figure = |(at, (what, _, aim)): (usize, &(&str, Vec<Request>, Aim))| match aim {
        Aim::Told => Figure::new("requests", what, cpu[at], "us", *aim),
        _ => Figure::new("requests", &format!("CPU of {what}, x /healthz"), cpu[at] / cpu[0], "", *aim)
            .of(format!("{:.1} us", cpu[at])),
    };
    kinds.iter().enumerate().map(figure).collect()
}

/// Searches by two words: what they cost the binary beyond what the index itself works.
pub(crate) fn text() -> Vec<Figure> {
    let dir = tempfile::tempdir().expect("a folder");
    let node = live(dir.path());
    let mut cards = Cards::new();
    let mut index = Index::new();
    for at in 0..HELD {
        let name = format!("agent-{at}@.").parse().expect("a name");
        let mut id = [0; 20];
        id[..8].copy_from_slice(&(at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        index.insert(search::entry(AgentId(id), &name, &cards.card()));
    }
    // Words that are common: for others the index looks for slips and for what means the same, many times as long.
    let mut words: Vec<String> = Vec::new();
    while words.len() < WORDS {
        let word = cards.prose(1).trim().to_owned();
        if !words.contains(&word) {
            words.push(word);
        }
    }
    let pair = |at: usize| [words[at % WORDS].clone(), words[(at + 1 + at / WORDS) % WORDS].clone()];
    let texts: Vec<[String; 2]> = (0..TEXTS).map(pair).collect();
    let path = |[one, other]: &[String; 2]| format!("/v1/find?limit=10&q={one}+{other}");
    let requests: Vec<Request> = texts.iter().map(|words| get(node.addr, &path(words))).collect();
    let queries: Vec<Query> =
        texts.iter().map(|words| Query { text: words.join(" "), ..Query::default() }).collect();
    let (mut whole, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        whole.extend(cpu_of_round(&node, &[&requests]));
        let before = process_cpu();
        for query in &queries {
            std::hint::black_box(index.search(query, 10, None));
        }
        alone.push(us(process_cpu() - before) / TEXTS as f64);
    }
    let (whole, alone) = (median(&whole), median(&alone));
    let of = format!("{whole:.1} us a search, the index {alone:.1} us");
    vec![
        Figure::new(
            "text",
            "CPU of a text search beyond the index's",
            whole - alone,
            "us",
            Aim::AtMost(40.0),
        )
        .of(of),
    ]
}

/// The binary with [`HELD`] agents.
fn live(dir: &Path) -> NodeProcess {
    fill(dir, 100, HELD);
    crate::start::write_key(dir, 100);
    let node = NodeProcess::start(dir, &["--network", NETWORK]);
    let page = get(node.addr, "/v1/find?limit=10&tag=tag0");
    let answered = runtime().block_on(async {
        let mut body = Vec::new();
        ask(&mut connect(node.addr).await, &page, &mut body).await;
        hits(&body)
    });
    assert_eq!(answered, 10, "it holds them");
    node
}

/// Microseconds of the node's CPU a request of each kind, the kinds in turns.
fn cpu_each(node: &NodeProcess, kinds: &[&[Request]]) -> Vec<f64> {
    let rounds: Vec<Vec<f64>> = (0..ROUNDS).map(|_| cpu_of_round(node, kinds)).collect();
    (0..kinds.len()).map(|at| median(&rounds.iter().map(|round| round[at]).collect::<Vec<_>>())).collect()
}

fn cpu_of_round(node: &NodeProcess, kinds: &[&[Request]]) -> Vec<f64> {
    let runtime = runtime();
    let cpu_of = |requests: &&[Request]| {
        let before = node.cpu();
        let count = runtime.block_on(load(node.addr, requests, CONNECTIONS, ROUND)).len();
        (node.cpu() - before) * 1e6 / count as f64
    };
    kinds.iter().map(cpu_of).collect()
}

/// Results of a page, by a word that each has once.
fn hits(body: &[u8]) -> usize {
    String::from_utf8_lossy(body).matches("\"score\":").count()
}

async fn connect(addr: SocketAddr) -> TcpStream {
    TcpStream::connect(addr).await.expect("connected")
}

async fn bare_route(bytes: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let addr = listener.local_addr().expect("an address");
    let body = "x".repeat(bytes);
    let app = axum::Router::new().route("/", axum::routing::get(move || async move { body.clone() }));
    tokio::spawn(async move { axum::serve(listener, app).await });
    addr
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}
