//! A call over MCP beside the same tool of a bare rmcp server, both in this process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aop::document::run_config::Builtin;
use aop::host;
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

use crate::figure::{Aim, Figure, median};
use crate::hosted::hosted;
use crate::load::load;
use crate::nodes::options;
use crate::requests::ask;
use crate::server::Server;
use crate::tools::post;

const CONNECTIONS: usize = 16;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(1);

pub(crate) fn calls() -> Vec<Figure> {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let options = options(100, dir.path(), &[]);
        options.agents.replace(vec![hosted("echo", Builtin::Echo)]);
        let server = Server::of(host::start(options).await.expect("started")).await;
        let servers = [bare_server().await, server.addr];
        let mut rates = [Vec::new(), Vec::new()];
        let request = |addr| post(addr, "tools/call", Some("echo"), json!({"task": "hello"}));
        for addr in servers {
            let mut stream = TcpStream::connect(addr).await.expect("connected");
            let mut answer = Vec::new();
            ask(&mut stream, &request(addr), &mut answer).await;
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.contains(r#""structuredContent":{"result":"hello""#), "{answer}");
        }
        for _ in 0..ROUNDS {
            for (addr, rates) in servers.iter().zip(&mut rates) {
                let count = load(*addr, &[request(*addr)], CONNECTIONS, ROUND).await.len();
                rates.push(count as f64 / ROUND.as_secs_f64());
            }
        }
        let [bare, ours] = rates.map(|rates| median(&rates));
        let what = "tools/call of an agent that echoes, of bare rmcp's rate";
        vec![
            Figure::new("mcp", what, ours / bare, "", Aim::AtLeast(0.92))
                .of(format!("{ours:.0} of {bare:.0} a second")),
        ]
    })
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
