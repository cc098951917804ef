//! The façades of standards beside this node's own API, and an import beside bare signing: `cargo bench --bench standards`.
//!
//! A node imports 10,000 documents of MCP servers from a registry of this machine; then as many records are signed and nothing
//! else. Then keep-alive connections ask for ten results, over real sockets of loopback; rounds alternate. Aims: an
//! import at half the rate of signing or better, a search or a page within 1.3 times the time of `GET /v1/find`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aop::api::StartImport;
use aop::host::{self, ImportClient, Options, Running};
use aop::proto::card::Scope;
use aop::proto::codec;
use aop::proto::identity::Identity;
use aop::proto::name::ZoneName;
use aop::proto::record::{Author, Header, RecordKind, SignedRecord};
use aop::proto::time::{Stamp, Timestamp};
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

#[path = "samples/cards.rs"]
mod cards;
#[path = "samples/load.rs"]
mod load;
#[path = "samples/requests.rs"]
mod requests;
#[path = "samples/server.rs"]
mod server;
#[path = "samples/times.rs"]
mod times;

use cards::Cards;
use load::load;
use requests::{Request, ask, get};
use server::Server;
use times::Times;

const NETWORK: &str = "bench";
const HELD: usize = 10_000;
const PAGE: usize = 100;
const CONNECTIONS: usize = 4;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);

fn main() {
    times::head("cargo bench --bench standards");
    let dir = tempfile::tempdir().expect("a folder");
    let options = Options::new(Identity::from_seed([100; 32]), NETWORK, dir.path());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let node = host::start(options).await.expect("started");
        let entries = entries();
        import(&node, entries).await;
        compare(Server::of(node).await.addr).await;
    });
}

/// Documents as a registry lists them, about 1.5 KiB each.
fn entries() -> Vec<Value> {
    let mut cards = Cards::new();
    let entry = |at: usize| {
        let variables: Vec<Value> = (0..8)
            .map(|at| {
                json!({"name": cards.label("SETTING_"), "description": cards.prose(60), "isRequired": at < 2})
            })
            .collect();
        let package = json!({"registryType": "npm", "identifier": format!("server-{at}"), "version": "1.0.0",
            "transport": {"type": "stdio"}, "environmentVariables": variables});
        let server = json!({"name": format!("io.github.user-{}/server-{at}", at % 997), "version": "1.0.0",
            "description": cards.prose(90), "packages": [package]});
        let status = json!({"status": "active", "isLatest": true, "publishedAt": "2026-10-01T00:00:00Z",
            "updatedAt": "2026-10-01T00:00:00Z"});
        json!({"server": server, "_meta": {"io.modelcontextprotocol.registry/official": status}})
    };
    (0..HELD).map(entry).collect()
}

async fn import(node: &Running, entries: Vec<Value>) {
    let entries = Arc::new(entries);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let app = Router::new().fallback(page).with_state(entries);
    tokio::spawn(async move { axum::serve(listener, app).await });
    let imports = ImportClient::new(node.handle.clone());
    let began = Instant::now();
    imports.start(StartImport { url, ..StartImport::default() }).await.expect("begun");
    let run = loop {
        let list = imports.list();
        if let Some(run) = list.imports[0].last.as_ref().filter(|run| run.ended_ms.is_some()) {
            break run.clone();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let took = began.elapsed();
    assert_eq!((run.new, &run.error), (HELD, &None), "{run:?}");
    let bare = sign_all();
    let rate = |took: Duration| HELD as f64 / took.as_secs_f64();
    println!("import of {HELD} documents, {} pages", run.pages);
    println!(
        "  imported {:.0} a second, signed {:.0} a second: {:.2} of bare",
        rate(took),
        rate(bare),
        rate(took) / rate(bare)
    );
}

async fn page(State(entries): State<Arc<Vec<Value>>>, RawQuery(raw): RawQuery) -> Response {
    let query = raw.unwrap_or_default();
    let from = query.split('&').find_map(|part| part.strip_prefix("cursor=")?.parse().ok()).unwrap_or(0);
    let servers = &entries[from..(from + PAGE).min(HELD)];
    let next = (from + PAGE < HELD).then(|| (from + PAGE).to_string());
    axum::Json(json!({"servers": servers, "metadata": {"count": servers.len(), "nextCursor": next}}))
        .into_response()
}

/// As many records, of about 2 KiB as well.
fn sign_all() -> Duration {
    let mut cards = Cards::new();
    let bodies: Vec<Vec<u8>> = (0..HELD).map(|_| codec::encode(&cards.card())).collect();
    let author = Identity::from_seed([7; 32]);
    let wall = Timestamp(1_800_000_000_000);
    let began = Instant::now();
    for (at, body) in bodies.iter().enumerate() {
        let header = Header {
            network: NETWORK.into(),
            zone: ZoneName::root(),
            kind: RecordKind::Agent,
            name: format!("agent-{at}").parse().expect("a label"),
            owner: author.key(),
            host: author.key(),
            author: Author { key: author.key(), epoch: 1 },
            seq: at as u64 + 1,
            stamp: Stamp { wall, counter: 0 },
            generation: 0,
            expires_at: Timestamp(wall.0 + 86_400_000),
            scope: Scope::Public,
            slot: at as u16,
            grants: Vec::new(),
        };
        std::hint::black_box(SignedRecord::sign(header, body, &author).expect("signed"));
    }
    began.elapsed()
}

async fn compare(node: SocketAddr) {
    let get = |path: &str| get(node, path);
    let words = Cards::new().prose(8);
    let words = words.trim();
    let search = json!({"query": {"text": words}, "federation": "none", "pageSize": 10}).to_string();
    let searched = format!(
        "POST /ard/search HTTP/1.1\r\nHost: {node}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{search}",
        search.len()
    );
    let asked = [
        ("GET /v1/find, words", get(&format!("/v1/find?limit=10&q={}", words.replace(' ', "+")))),
        ("POST /ard/search, the same words", Request { bytes: searched.into_bytes(), status: 200 }),
        ("GET /v1/find, all", get("/v1/find?limit=10")),
        ("GET /v0.1/servers", get("/v0.1/servers?limit=10")),
    ];
    let mut measured = asked.each_ref().map(|_| (0, Times::default()));
    let mut bytes = [0; 4];
    for ((_, request), bytes) in asked.iter().zip(&mut bytes) {
        let mut probe = TcpStream::connect(node).await.expect("connected");
        *bytes = ask(&mut probe, request, &mut Vec::new()).await;
    }
    for _ in 0..ROUNDS {
        for ((_, request), (count, times)) in asked.iter().zip(&mut measured) {
            let took = load(node, std::slice::from_ref(request), CONNECTIONS, ROUND).await;
            *count += took.len();
            took.into_iter().for_each(|time| times.add(time));
        }
    }
    println!("{CONNECTIONS} connections, {HELD} records, ten results");
    let counts = measured.each_ref().map(|(count, _)| *count);
    for (at, ((name, _), (count, times))) in asked.iter().zip(&mut measured).enumerate() {
        times.line(name);
        let rate = *count as f64 / (ROUNDS as f64 * ROUND.as_secs_f64());
        let share = counts[at / 2 * 2] as f64 / *count as f64;
        println!("    {rate:.0} a second, answers of {} bytes, {share:.2} times the time of find", bytes[at]);
    }
}
