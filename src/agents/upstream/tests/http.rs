//! MCP servers behind a URL: rmcp's own server on a loopback socket, in both eras.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation, ListToolsResult,
    PaginatedRequestParams, ProgressNotificationParam, ProtocolVersion, ServerCapabilities, ServerConfig,
    SubscriptionFilter,
};
use rmcp::service::{NotificationContext, RequestContext, RoleServer, SubscriptionContext};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, ServerHandler};

use super::*;

/// A server with the tools `echo`, `progress`, `wait` and `grow`, and `grown` once it grew.
#[derive(Clone)]
struct Fixture {
    old: bool,
    grown: watch::Sender<bool>,
    waiting: Arc<AtomicBool>,
    cancelled: watch::Sender<bool>,
}

impl Fixture {
    fn new(old: bool) -> Fixture {
        Fixture {
            old,
            grown: watch::Sender::new(false),
            waiting: Arc::default(),
            cancelled: watch::Sender::new(false),
        }
    }

    async fn report(&self, cx: &RequestContext<RoleServer>) {
        let token = cx.meta.get_progress_token().expect("a token");
        for step in [1.0, 2.0, 3.0] {
            let report = ProgressNotificationParam::new(token.clone(), step).with_total(3.0);
            cx.peer.notify_progress(report).await.unwrap();
        }
    }

    async fn wait(&self, cx: &RequestContext<RoleServer>) {
        // Dropped or told to stop, the call counts as cancelled.
        struct Mark<'a>(&'a watch::Sender<bool>);
        impl Drop for Mark<'_> {
            fn drop(&mut self) {
                self.0.send_replace(true);
            }
        }
        let _mark = Mark(&self.cancelled);
        self.waiting.store(true, Ordering::Relaxed);
        cx.ct.cancelled().await;
    }
}

impl ServerHandler for Fixture {
    fn get_info(&self) -> ServerConfig {
        let tools = ServerCapabilities::builder().enable_tools().enable_tool_list_changed().build();
        ServerConfig::new(tools).with_server_info(Implementation::new("fixture", "1"))
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        const OLD: &[ProtocolVersion] = &[ProtocolVersion::V_2025_06_18, ProtocolVersion::V_2025_11_25];
        Cow::Borrowed(if self.old { OLD } else { ProtocolVersion::KNOWN_VERSIONS })
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        _cx: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let mut names = vec!["echo", "grow", "progress", "wait"];
        if *self.grown.borrow() {
            names.push("grown");
        }
        let schema = Arc::new(json!({"type": "object"}).as_object().cloned().unwrap());
        let tools = names.into_iter().map(|name| rmcp::model::Tool::new(name, "a tool", schema.clone()));
        Ok(ListToolsResult::with_all_items(tools.collect()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        cx: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        match &*request.name {
            "progress" => self.report(&cx).await,
            "wait" => self.wait(&cx).await,
            "grow" => drop(self.grown.send_replace(true)),
            _ => {}
        }
        Ok(CallToolResult::success(vec![ContentBlock::text("done")]).into())
    }

    async fn on_initialized(&self, cx: NotificationContext<RoleServer>) {
        let mut grown = self.grown.subscribe();
        tokio::spawn(async move {
            while grown.changed().await.is_ok() {
                if cx.peer.notify_tool_list_changed().await.is_err() {
                    return;
                }
            }
        });
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn listen(&self, cx: SubscriptionContext) -> Result<(), ErrorData> {
        let mut grown = self.grown.subscribe();
        loop {
            tokio::select! {
                () = cx.cancelled() => return Ok(()),
                _ = grown.changed() => cx.sink().notify_tool_list_changed().await.unwrap(),
            }
        }
    }
}

/// A server on a runtime of its own, so that its end closes every connection.
struct Running {
    address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Running {
    fn start(fixture: &Fixture, address: SocketAddr) -> Running {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let fixture = fixture.clone();
        let listener = std::net::TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        runtime.spawn(async move {
            let config =
                StreamableHttpServerConfig::default().with_legacy_session_mode(true).with_json_response(true);
            let sessions = Arc::new(LocalSessionManager::default());
            let service = StreamableHttpService::new(move || Ok(fixture.clone()), sessions, config);
            let routes = axum::Router::new().route_service("/mcp", service);
            axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), routes).await.unwrap();
        });
        Running { address, runtime: Some(runtime) }
    }

    fn upstream(&self) -> Upstream {
        super::start([url(&format!("http://{}/mcp", self.address))])
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

fn url(url: &str) -> McpServer {
    McpServer::Url(Endpoint { url: url.into(), ..Endpoint::default() })
}

fn anywhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Lists, calls, progress, changes and cancellation.
async fn everything_works(old: bool) {
    let fixture = Fixture::new(old);
    let running = Running::start(&fixture, anywhere());
    let upstream = running.upstream();
    assert_eq!(ready(&upstream).await, ["echo", "grow", "progress", "wait"]);
    assert_eq!(call(&upstream, "echo").await, Ok(json!("done")));

    let (progress, mut reports) = mpsc::channel(16);
    let reported = Invocation { reports: Some(progress), ..invocation() };
    assert_eq!(upstream.call("progress", json!({}), &reported).await, Ok(json!("done")));
    for step in [1.0, 2.0, 3.0] {
        assert!(matches!(reports.try_recv(), Ok(Report::Progress(it)) if it.progress == step));
    }

    call(&upstream, "grow").await.unwrap();
    until(&upstream, |tools| tools.list.len() == 5).await;

    let invocation = invocation();
    let mut waiting = Box::pin(upstream.call("wait", json!({}), &invocation));
    while !fixture.waiting.load(Ordering::Relaxed) {
        let _not_yet = timeout(Duration::from_millis(10), &mut waiting).await;
    }
    drop(waiting);
    let mut cancelled = fixture.cancelled.subscribe();
    timeout(PATIENCE, cancelled.wait_for(|cancelled| *cancelled)).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_of_the_newest_revision_does_everything() {
    everything_works(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_of_the_older_handshake_does_everything() {
    everything_works(true).await;
}

async fn comes_back(old: bool) {
    let fixture = Fixture::new(old);
    let running = Running::start(&fixture, anywhere());
    let (address, upstream) = (running.address, running.upstream());
    ready(&upstream).await;

    let invocation = invocation();
    let mut waiting = Box::pin(upstream.call("wait", json!({}), &invocation));
    while !fixture.waiting.load(Ordering::Relaxed) {
        let _not_yet = timeout(Duration::from_millis(10), &mut waiting).await;
    }
    drop(running);
    let failure = timeout(PATIENCE, waiting).await.unwrap().unwrap_err();
    assert_eq!((failure.code.text(), failure.outcome), ("upstream_failed", Outcome::Unknown));

    // One more call may be on its way while the server is found to be gone.
    assert_eq!(call(&upstream, "echo").await.unwrap_err().code.text(), "upstream_failed");
    for _ in 0..3 {
        let started = Instant::now();
        let failure = call(&upstream, "echo").await.unwrap_err();
        assert_eq!((failure.code.text(), failure.outcome), ("upstream_failed", Outcome::NotStarted));
        assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
    }
    assert_eq!(upstream.tools().borrow().list.len(), 4);

    let _running = Running::start(&fixture, address);
    assert_eq!(recovered(&upstream, "echo").await, json!("done"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_of_the_newest_revision_comes_back() {
    comes_back(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_of_the_older_handshake_comes_back() {
    comes_back(true).await;
}
