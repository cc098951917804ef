//! A real node with its MCP server on loopback, and hand-written JSON-RPC over HTTP: both eras, byte by byte.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use aop::agents::{Agents, HostedAgent};
use aop::document::read_documents;
use aop::document::run_config::{Builtin, Program, RunConfig, Runner};
use aop::host;
use aop::http::{self, Server};
use aop::mcp::{Mcp, Patience};
use aop::proto::address_block::TrustedNets;
use aop::proto::identity::Identity;
use aop::proto::name::ZoneName;
use reqwest::{Client, RequestBuilder, Response};
use rmcp::ServerHandler;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest wait for anything here; what is promised faster is asserted where it is promised.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const MODERN: &str = "2026-07-28";
pub(crate) const LEGACY: &str = "2025-11-25";

/// A node and its server.
pub(crate) struct McpFixture {
    pub(crate) node: host::Running,
    pub(crate) server: Server,
    pub(crate) agents: Agents,
    site: Site,
    folder: TempDir,
}

/// Where a server is, and how it is asked.
pub(crate) struct Site {
    pub(crate) client: Client,
    pub(crate) base: String,
}

impl Deref for McpFixture {
    type Target = Site;
    fn deref(&self) -> &Site {
        &self.site
    }
}

/// How a fixture differs from the usual one.
#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) seed: u8,
    pub(crate) agents: Vec<HostedAgent>,
    pub(crate) bootstrap: Vec<String>,
    pub(crate) token: Option<&'static str>,
    /// When clients that wait are told something.
    pub(crate) patience: Patience,
    /// Where its HTTP API listens; any free port if nothing is said.
    pub(crate) http: Option<std::net::SocketAddr>,
}

/// An agent of this host that runs a builtin.
pub(crate) fn local(name: &str, builtin: Builtin) -> HostedAgent {
    local_of(json!({"name": name, "description": format!("The agent {name}")}), builtin)
}

pub(crate) fn local_of(agent: Value, builtin: Builtin) -> HostedAgent {
    run_by(agent, Runner::Builtin(builtin), Path::new("."))
}

/// An agent of this host that runs a shell script in `folder`.
pub(crate) fn script(agent: Value, script: &str, folder: &Path) -> HostedAgent {
    let command = vec!["sh".into(), "-c".into(), script.into()];
    run_by(agent, Runner::Command(Program { command, ..Program::default() }), folder)
}

fn run_by(mut agent: Value, runner: Runner, folder: &Path) -> HostedAgent {
    agent["run"] = json!({"builtin": "echo"});
    let run_config = RunConfig::new(runner, folder);
    let mut offer = read_documents(json!({"agent": agent})).remove(0).unwrap();
    offer.card.callable = true;
    HostedAgent { offer, run_config: Some(run_config) }
}

pub(crate) async fn fixture(agents: Vec<HostedAgent>) -> McpFixture {
    start(Setup { agents, ..Setup::default() }, |mcp| mcp).await
}

/// Starts a node whose MCP server is what `wrap` makes of ours.
pub(crate) async fn start<H: ServerHandler + Clone>(setup: Setup, wrap: impl FnOnce(Mcp) -> H) -> McpFixture {
    let folder = tempfile::tempdir().unwrap();
    let agents = Agents::new(ZoneName::root());
    agents.replace(setup.agents);
    let options = host::Options {
        bootstrap: setup.bootstrap.iter().map(|address| address.parse().unwrap()).collect(),
        agents: agents.clone(),
        ..host::Options::new(Identity::from_seed([setup.seed + 1; 32]), "test", folder.path())
    };
    let node = host::start(options).await.unwrap();
    let token = setup.token.map(|token| http::Token::parse(token).unwrap());
    let names = vec!["registry.example".into()];
    let addr = setup.http.unwrap_or("127.0.0.1:0".parse().unwrap());
    let bound = http::bind(http::Settings {
        addr,
        names,
        trusted_nets: TrustedNets::default(),
        token,
        registry: http::RegistryAccess::Own,
    })
    .await;
    let mcp = wrap(Mcp::with_patience(node.handle.clone(), setup.patience));
    let server = bound.unwrap().serve_with(node.handle.clone(), mcp);
    McpFixture { site: Site::new(server.url()), node, server, agents, folder }
}

impl McpFixture {
    pub(crate) async fn stop(self) {
        self.server.stop().await;
        self.node.stop().await.unwrap();
        drop(self.folder);
    }
}

impl Site {
    pub(crate) fn new(base: String) -> Site {
        Site { base, client: Client::builder().no_proxy().timeout(PATIENCE).build().unwrap() }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// A POST to `/mcp` with the headers that every client sends.
    pub(crate) fn post(&self) -> RequestBuilder {
        self.post_to("/mcp")
    }

    pub(crate) fn post_to(&self, path: &str) -> RequestBuilder {
        self.client
            .post(self.url(path))
            .header("Content-Type", "application/json")
            .header("Accept", "application/json, text/event-stream")
    }

    /// A request of the revision without a handshake, not sent yet.
    pub(crate) fn modern_request(&self, method: &str, params: Value) -> RequestBuilder {
        let (headers, body) = modern_message(1, method, params);
        headers.into_iter().fold(self.post(), |post, (name, value)| post.header(name, value)).body(body)
    }

    /// The whole JSON-RPC answer to a request of the newest revision.
    pub(crate) async fn modern(&self, method: &str, params: Value) -> Value {
        last_message(self.modern_request(method, params).send().await.unwrap()).await
    }

    /// The result of a tool.
    pub(crate) async fn call(&self, tool: &str, arguments: Value) -> Value {
        let answer = self.modern("tools/call", json!({"name": tool, "arguments": arguments})).await;
        assert!(answer.get("error").is_none(), "{answer}");
        answer["result"].clone()
    }

    /// Every tool, page by page.
    pub(crate) async fn tools(&self) -> Vec<Value> {
        let (mut tools, mut params) = (Vec::new(), json!({}));
        loop {
            let answer = self.modern("tools/list", params).await;
            tools.extend(answer["result"]["tools"].as_array().unwrap().clone());
            match answer["result"]["nextCursor"].as_str() {
                Some(cursor) => params = json!({"cursor": cursor}),
                None => return tools,
            }
        }
    }

    /// Opens a session with a handshake.
    pub(crate) async fn session(&self) -> Session<'_> {
        let params = json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
        let request = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        let response = self.post().body(request.to_string()).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let id = response.headers()["mcp-session-id"].to_str().unwrap().to_owned();
        let answer = last_message(response).await;
        assert_eq!(answer["result"]["protocolVersion"], LEGACY, "{answer}");
        let session = Session { site: self, id };
        session.notify("notifications/initialized", json!({})).await;
        session
    }
}

/// A session of a revision with a handshake.
pub(crate) struct Session<'a> {
    site: &'a Site,
    pub(crate) id: String,
}

impl Session<'_> {
    pub(crate) fn post(&self, message: &Value) -> RequestBuilder {
        let post = self.site.post().header("Mcp-Session-Id", &self.id);
        post.header("MCP-Protocol-Version", LEGACY).body(message.to_string())
    }

    pub(crate) async fn notify(&self, method: &str, params: Value) {
        let message = json!({"jsonrpc": "2.0", "method": method, "params": params});
        assert_eq!(self.post(&message).send().await.unwrap().status(), 202);
    }

    /// Sends a request; the answer is read by whoever holds the response.
    pub(crate) async fn send(&self, id: u64, method: &str, params: Value) -> Response {
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.post(&message).send().await.unwrap()
    }

    pub(crate) async fn ask(&self, method: &str, params: Value) -> Value {
        last_message(self.send(1, method, params).await).await
    }

    /// The stream on which the server speaks by itself.
    pub(crate) async fn listen(&self) -> Response {
        let get = self.site.client.get(self.site.url("/mcp")).header("Accept", "text/event-stream");
        let response = get.header("Mcp-Session-Id", &self.id).send().await.unwrap();
        assert_eq!(response.status(), 200);
        response
    }
}

/// Headers and body of a request without a handshake.
pub(crate) fn modern_message(
    id: u64,
    method: &str,
    mut params: Value,
) -> (BTreeMap<&'static str, String>, String) {
    let meta = params.as_object_mut().unwrap().entry("_meta").or_insert(json!({}));
    meta["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
    meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
    meta["io.modelcontextprotocol/clientInfo"] = json!({"name": "t", "version": "1"});
    let mut headers =
        BTreeMap::from([("MCP-Protocol-Version", MODERN.into()), ("Mcp-Method", method.to_owned())]);
    if let Some(name) = params["name"].as_str().or(params["uri"].as_str()) {
        headers.insert("Mcp-Name", name.to_owned());
    }
    let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
    (headers, body.to_string())
}

/// The messages of an answer as they come, whether it is one JSON document or a stream.
pub(crate) struct Messages {
    response: Response,
    buffer: String,
}

impl Messages {
    pub(crate) fn of(response: Response) -> Messages {
        Messages { response, buffer: String::new() }
    }

    /// The next message; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            while let Some((event, rest)) = self.buffer.split_once("\n\n") {
                let data =
                    event.lines().find_map(|line| line.strip_prefix("data:")).map(|it| it.trim().to_owned());
                self.buffer = rest.to_owned();
                if let Some(data) = data.filter(|data| !data.is_empty()) {
                    return Some(serde_json::from_str(&data).unwrap());
                }
            }
            let chunk = self.response.chunk().await.expect("a stream that ends ends well")?;
            self.buffer.push_str(&String::from_utf8(chunk.to_vec()).unwrap().replace("\r\n", "\n"));
        }
    }

    /// The next message that is `wanted`; others are left out.
    pub(crate) async fn find(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.next().await.expect("the stream ended");
            if wanted(&message) {
                return message;
            }
        }
    }
}

/// The answer to a request: the one document, or the last message of the stream.
pub(crate) async fn last_message(response: Response) -> Value {
    let is_stream = response.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream");
    if !is_stream {
        return response.json().await.unwrap();
    }
    Messages::of(response).find(|message| message.get("id").is_some()).await
}
