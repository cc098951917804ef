//! The MCP server of a node: `cargo bench --bench mcp [-- call|list|busy|many]`.
//!
//! `call`: a call of a trivial agent beside the same tool on a bare rmcp server, over real sockets with a lean client
//! (aim: 0.7 of its rate). `list`: the first page of `tools/list` with 10,000 agents known (aim: 2 ms). `busy`: `tools/list`
//! and `find` while 100 agents work 2 s each (aim: p99 10 ms). `many`: a node with 1,000 agents of files, as a process
//! (aim: ready in 0.5 s, 0.5 % CPU at rest).

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aop::agents::HostedAgent;
use aop::document::run_config::{Builtin, RunConfig, Runner};
use aop::host::{self, Running};
use aop::http;
use aop::proto::address_block::TrustedNets;
use aop::proto::card::{AgentCard, CallLimits, Offer, Scope};
use rmcp::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ErrorData, Implementation, ListToolsResult,
    PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

#[path = "samples/agents.rs"]
mod agents;
#[path = "samples/nodes.rs"]
mod nodes;
#[path = "samples/requests.rs"]
mod requests;
#[path = "samples/times.rs"]
mod times;

use agents::fill;
use nodes::options;
use requests::{ask, ask_for_a_while};
use times::Times;

const CONNECTIONS: usize = 16;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
const KNOWN: usize = 10_000;
const LISTS: usize = 500;
const BUSY_AGENTS: usize = 100;
const BUSY_MS: u64 = 2_000;
const MANY: usize = 1_000;
const REST: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(30);

fn main() {
    let mut parts: Vec<String> = std::env::args().skip(1).filter(|it| it != "--bench").collect();
    if parts.is_empty() {
        parts = ["call", "list", "busy", "many"].map(String::from).to_vec();
    }
    times::head("cargo bench --bench mcp");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    for part in parts {
        match part.as_str() {
            "call" => runtime.block_on(compare_calls()),
            "list" => runtime.block_on(list_with_many_known()),
            "busy" => runtime.block_on(ask_while_busy()),
            "many" => start_with_many(),
            other => panic!("no part `{other}`"),
        }
    }
}

/// A node with an MCP server, and what keeps it alive.
struct World {
    addr: SocketAddr,
    _node: Running,
    _server: http::Server,
    _dir: tempfile::TempDir,
}

impl World {
    async fn start(records: usize, local: Vec<HostedAgent>) -> World {
        let dir = tempfile::tempdir().expect("a folder");
        if records > 0 {
            fill(dir.path(), 100, records);
        }
        let options = options(100, dir.path(), &[]);
        options.agents.replace(local);
        let node = host::start(options).await.expect("started");
        let settings = http::Settings {
            addr: ([127, 0, 0, 1], 0).into(),
            names: Vec::new(),
            trusted_nets: TrustedNets::default(),
            token: None,
            registry: http::RegistryAccess::Own,
        };
        let server = http::bind(settings).await.expect("bound").serve(node.handle.clone());
        let addr = server.url().trim_start_matches("http://").parse().expect("an address");
        World { addr, _node: node, _server: server, _dir: dir }
    }
}

fn local(name: &str, builtin: Builtin) -> HostedAgent {
    let limits = CallLimits { timeout_s: 30, max_retries: 0, max_concurrency: 64, ..CallLimits::DEFAULT };
    let card = AgentCard {
        description: format!("The sample {name}"),
        callable: true,
        limits: Some(limits),
        ..AgentCard::default()
    };
    HostedAgent {
        offer: Offer {
            name: name.parse().expect("a name"),
            zone: None,
            scope: Scope::Public,
            card,
            grants: Vec::new(),
        },
        run_config: Some(RunConfig::new(Runner::Builtin(builtin), Path::new("."))),
    }
}

async fn compare_calls() {
    let node = World::start(0, vec![local("echo", Builtin::Echo)]).await;
    let bare = bare_server().await;
    let servers = [("bare rmcp server", bare), ("agent through /mcp", node.addr)];
    let mut measured = [(0, Times::default()), (0, Times::default())];
    for (name, addr) in servers {
        let mut stream = TcpStream::connect(addr).await.expect("connected");
        let mut answer = Vec::new();
        ask(&mut stream, &post(addr, "tools/call", Some("echo"), json!({"task": "hello"})), &mut answer)
            .await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.contains(r#""structuredContent":{"result":"hello""#), "{name}: {answer}");
    }
    for _ in 0..ROUNDS {
        for ((_, addr), (count, times)) in servers.iter().zip(&mut measured) {
            let asked = post(*addr, "tools/call", Some("echo"), json!({"task": "hello"}));
            let tasks: Vec<_> = (0..CONNECTIONS)
                .map(|_| tokio::spawn(ask_for_a_while(*addr, asked.clone(), ROUND)))
                .collect();
            for task in tasks {
                let took = task.await.expect("asked");
                *count += took.len();
                took.into_iter().for_each(|time| times.add(time));
            }
        }
    }
    println!("tools/call of an agent that echoes, {CONNECTIONS} connections");
    let whole = measured[0].0 as f64;
    for ((name, _), (count, times)) in servers.iter().zip(&mut measured) {
        times.line(name);
        let rate = *count as f64 / (ROUNDS as f64 * ROUND.as_secs_f64());
        println!("    {rate:.0} a second, {:.3} of bare", *count as f64 / whole);
    }
}

async fn list_with_many_known() {
    let own = (0..BUSY_AGENTS).map(|at| local(&format!("own-{at}"), Builtin::Echo)).collect();
    let node = World::start(KNOWN, own).await;
    let (mut times, bytes) = ask_often(node.addr, &post(node.addr, "tools/list", None, Value::Null)).await;
    println!("first page of tools/list, {KNOWN} agents known, {bytes} bytes");
    times.line("tools/list");
}

async fn ask_often(addr: SocketAddr, asked: &[u8]) -> (Times, usize) {
    let mut stream = TcpStream::connect(addr).await.expect("connected");
    let (mut times, mut buffer, mut bytes) = (Times::default(), Vec::new(), 0);
    for _ in 0..LISTS {
        let asking = Instant::now();
        bytes = ask(&mut stream, asked, &mut buffer).await;
        times.add(asking.elapsed());
    }
    (times, bytes)
}

/// A hundred sleepers over MCP at once; meanwhile lists and searches, one after the other.
async fn ask_while_busy() {
    let own = (0..BUSY_AGENTS).map(|at| local(&format!("sleeper-{at}"), Builtin::Sleep)).collect();
    let node = World::start(KNOWN, own).await;
    let addr = node.addr;
    let busy: Vec<_> = (0..BUSY_AGENTS)
        .map(|at| {
            let asked = post(
                addr,
                "tools/call",
                Some(&format!("sleeper-{at}")),
                json!({"task": BUSY_MS.to_string()}),
            );
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(addr).await.expect("connected");
                ask(&mut stream, &asked, &mut Vec::new()).await
            })
        })
        .collect();
    let find = format!("GET /v1/find?q=sample&limit=10 HTTP/1.1\r\nHost: {addr}\r\n\r\n").into_bytes();
    let list = post(addr, "tools/list", None, Value::Null);
    let (mut lists, mut finds) = (Times::default(), Times::default());
    let mut stream = TcpStream::connect(addr).await.expect("connected");
    let mut buffer = Vec::new();
    while !busy.iter().all(tokio::task::JoinHandle::is_finished) {
        for (asked, times) in [(&list, &mut lists), (&find, &mut finds)] {
            let asking = Instant::now();
            ask(&mut stream, asked, &mut buffer).await;
            times.add(asking.elapsed());
        }
    }
    for call in busy {
        call.await.expect("answered");
    }
    println!("while {BUSY_AGENTS} agents work {BUSY_MS} ms each, {KNOWN} agents known");
    lists.line("tools/list");
    finds.line("GET /v1/find");
}

/// A node with a thousand agent files, from outside.
fn start_with_many() {
    let dir = tempfile::tempdir().expect("a folder");
    let files = dir.path().join("agents");
    std::fs::create_dir(&files).expect("a folder");
    for at in 0..MANY {
        let text = format!(
            "[agent]\nname = \"agent-{at}\"\ndescription = \"Sample {at}\"\n[agent.run]\nbuiltin = \"echo\"\n"
        );
        std::fs::write(files.join(format!("{at}.toml")), text).expect("written");
    }
    println!("a node with {MANY} agents of files");
    for start in ["first start, everything is signed and written", "start again"] {
        let (mut node, took) = start_process(dir.path(), &files);
        println!("  {start}: ready after {:.3} s", took.as_secs_f64());
        std::thread::sleep(REST);
        let before = cpu_seconds(node.id());
        std::thread::sleep(IDLE);
        let share = (cpu_seconds(node.id()) - before) / IDLE.as_secs_f64();
        println!("  at rest: {:.3} % of one core, {} MiB resident", share * 100.0, resident_mib(node.id()));
        node.kill().expect("killed");
        node.wait().expect("ended");
    }
}

fn start_process(dir: &Path, files: &Path) -> (Child, Duration) {
    let began = Instant::now();
    let mut node = Command::new(env!("CARGO_BIN_EXE_aop"))
        .args(["node", "--json", "--http", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"])
        .arg("--data-dir")
        .arg(dir.join("data"))
        .arg("--agents")
        .arg(files)
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut line = String::new();
    BufReader::new(node.stdout.take().expect("piped")).read_line(&mut line).expect("a ready line");
    assert!(line.contains("ready"), "{line}");
    (node, began.elapsed())
}

/// User and system time of a process; Linux counts it in hundredths of a second.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("Linux");
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    (fields[11].parse::<f64>().expect("utime") + fields[12].parse::<f64>().expect("stime")) / 100.0
}

fn resident_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() / 1024
}

/// One request of the revision without sessions.
fn post(addr: SocketAddr, method: &str, name: Option<&str>, arguments: Value) -> Vec<u8> {
    const REVISION: &str = "2026-07-28";
    let mut params = json!({"_meta": {
        "io.modelcontextprotocol/protocolVersion": REVISION,
        "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }});
    let mut named = String::new();
    if let Some(name) = name {
        params["name"] = name.into();
        params["arguments"] = arguments;
        named = format!("Mcp-Name: {name}\r\n");
    }
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    format!(
        "POST /mcp HTTP/1.1\r\nHost: {addr}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: {REVISION}\r\nMcp-Method: {method}\r\n\
         {named}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The peer: rmcp with one tool and nothing around it.
#[derive(Clone)]
struct Bare(Arc<[Tool]>);

impl Bare {
    fn new() -> Bare {
        let object = |value: Value| Arc::new(value.as_object().cloned().unwrap_or_default());
        let input =
            json!({"type": "object", "properties": {"task": {"type": "string"}}, "required": ["task"]});
        Bare(Arc::new([Tool::new("echo", "Echoes", object(input))]))
    }
}

impl ServerHandler for Bare {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("bare", "1"))
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.0.to_vec()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let task = request.arguments.as_ref().and_then(|it| it.get("task")).cloned().unwrap_or_default();
        Ok(CallToolResult::structured(json!({"result": task, "success": true})).into())
    }
}

async fn bare_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let addr = listener.local_addr().expect("an address");
    let config =
        StreamableHttpServerConfig::default().with_legacy_session_mode(true).with_json_response(true);
    let handler = Bare::new();
    let service = StreamableHttpService::new(
        move || Ok(handler.clone()),
        Arc::new(LocalSessionManager::default()),
        config,
    );
    let app = axum::Router::new().route_service("/mcp", service);
    tokio::spawn(async move { axum::serve(listener, app).await });
    addr
}
