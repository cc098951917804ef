//! The HTTP API: routes over a [`Handle`], behind one pipeline that every request passes first.
//!
//! Invariants. No handler runs before the policy has judged Host, Origin, token and content type (a page in a browser
//! must not reach the node through DNS rebinding or a form). An address that is not loopback is bound only with a
//! token, or for metrics and health alone. Every answer but the page, `/metrics` and the event streams is JSON, errors as
//! `{"error":{code,message,fix}}`.
//! Connections, requests at work, bodies, uploads and event streams are counted against named limits; what is idle or slow makes
//! room for others.

mod a2a;
mod ard;
mod body;
mod call;
mod connections;
mod correlation;
mod events;
mod failure;
mod head;
mod health;
mod imports;
mod mcp;
mod page;
mod policy;
mod query;
mod queues;
mod registry;
mod routes;
mod surface;
mod tasks;
mod zones;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rmcp::ServerHandler;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};
use tower_service::Service as _;

use self::connections::{Connections, Place};
use self::failure::Failure;
use self::head::{HEAD_BYTES_MAX, HeadKind, Heads, Watched};
use self::health::ServerCounts;
pub use self::policy::{Token, TokenError};
pub use self::surface::RegistryAccess;
use self::surface::Surface;
use crate::host::{Handle, Reason, Refusals};
use crate::mcp::Mcp;
use crate::proto::address_block::TrustedNets;
use crate::proto::code::Code;
use crate::proto::time::Timestamp;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::names;

/// Requests at work at once; beyond it 429. Each costs one future and at most one question to the node.
const REQUESTS_MAX: usize = 512;
/// How long the head of a request may take, which also ends idle connections.
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);
/// Largest body that is read of any request; most routes take less.
const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long an answer to a reading request may take. A search has a budget of its own, far below.
const READ_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a writing request may take, upload included: 32 MiB of documents are signed and made durable in it, and the
/// longest call ends in it.
const WRITE_TIME_MAX: Duration = body::BODY_TIME_MAX.saturating_add(call::TIME_MAX);
/// How long open requests may take to end at a stop; the whole node has 5 s.
const STOP_TIME_MAX: Duration = Duration::from_millis(1500);
/// The last second of the year 9999, which is the last that RFC 3339 can say.
const LAST_SECOND: u64 = 253_402_300_799;
/// Pause after a failed accept, which means that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Where and for whom to serve.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address to bind; port 0 takes any free port.
    pub addr: SocketAddr,
    /// Further host names under which clients may ask, such as that of a reverse proxy.
    pub names: Vec<String>,
    /// Nets whose addresses have no share of the connections.
    pub trusted_nets: TrustedNets,
    /// Asked of every request but for the page, `/healthz` and `/readyz`; `None` is allowed on a loopback address only.
    pub token: Option<Token>,
    /// Who may read the registry of MCP servers without it.
    pub registry: RegistryAccess,
}

/// Why the address was not bound. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Anybody who reaches the address could register and deregister agents.
    #[error(
        "{0} is reachable from other machines and has no token: give --http-token-file FILE, or bind 127.0.0.1"
    )]
    NoToken(SocketAddr),
    /// Another program, often another node, has the port.
    #[error(
        "port {port} of {ip} is taken: stop the program that uses it, or choose another with {flag} {ip}:0",
        port = .0.port(), ip = .0.ip(), flag = .1
    )]
    Taken(SocketAddr, &'static str),
    /// The system refused for another reason.
    #[error("cannot bind the HTTP address {0}: {2}; choose another with {1} ADDR:PORT")]
    Refused(SocketAddr, &'static str, io::Error),
}

/// A bound address that is not served yet: the port is known and taken before the node starts.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    addr: SocketAddr,
    settings: Settings,
}

/// A bound address for metrics and health, which anybody who reaches it may read.
#[derive(Debug)]
pub struct MetricsListener(Listener);

/// A running server. Dropping it without [`Server::stop`] leaves it running until the runtime ends.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    closing: watch::Sender<bool>,
    accepting: JoinHandle<()>,
    counts: ServerCounts,
}

/// Binds the address of `settings`.
pub async fn bind(settings: Settings) -> Result<Listener, BindError> {
    let wanted = settings.addr;
    // Canonical, because `::ffff:127.0.0.1` is loopback and does not say so.
    if settings.token.is_none() && !wanted.ip().to_canonical().is_loopback() {
        return Err(BindError::NoToken(wanted));
    }
    listen(settings, "--http").await
}

/// Binds an address that has `/metrics`, `/healthz` and `/readyz` without a token, and nothing else.
pub async fn bind_metrics(
    addr: SocketAddr,
    names: Vec<String>,
    trusted_nets: TrustedNets,
) -> Result<MetricsListener, BindError> {
    let settings = Settings { addr, names, trusted_nets, token: None, registry: RegistryAccess::Own };
    Ok(MetricsListener(listen(settings, "--metrics").await?))
}

async fn listen(settings: Settings, flag: &'static str) -> Result<Listener, BindError> {
    let wanted = settings.addr;
    let refused = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::Taken(wanted, flag),
        _ => BindError::Refused(wanted, flag, error),
    };
    let socket = TcpListener::bind(wanted).await.map_err(refused)?;
    // Asked and not taken from the settings: for port 0 the system has chosen.
    let addr = socket.local_addr().map_err(refused)?;
    Ok(Listener { socket, addr, settings })
}

impl Listener {
    /// Starts to answer with what `handle` knows.
    pub fn serve(self, handle: Handle) -> Server {
        let mcp = Mcp::new(handle.clone());
        self.serve_with(handle, mcp)
    }

    /// As [`Listener::serve`], with `mcp` as the MCP server at `/mcp`.
    pub fn serve_with<H: ServerHandler + Clone>(self, handle: Handle, mcp: H) -> Server {
        let (counts, access) = (ServerCounts::default(), self.settings.registry);
        let asks_for_token = self.settings.token.is_some();
        self.answer(handle.clone(), counts.clone(), |closed| {
            let mcp = mcp::router(mcp, closed.clone(), handle.counted().clone(), counts.mcp.clone());
            routes::router(handle.clone(), closed.clone(), &counts, mcp)
                .merge(health::router(handle.clone(), counts))
                .merge(registry::router(handle.clone(), access))
                .merge(ard::router(handle.clone(), access))
                .merge(a2a::router(handle, closed, asks_for_token))
        })
    }

    fn answer(
        self,
        handle: Handle,
        counts: ServerCounts,
        routes: impl FnOnce(watch::Receiver<bool>) -> Router,
    ) -> Server {
        let (closing, closed) = watch::channel(false);
        let refusals = &counts.refusals;
        let pipeline = Arc::new(Pipeline {
            bodies: body::Memory::new(refusals.clone()),
            trusted_nets: self.settings.trusted_nets,
            connections: Connections::new(refusals.clone()),
            refusals: refusals.clone(),
            router: routes(closed.clone()).route_layer(from_fn(note_route)),
            metrics: handle.counted().clone(),
            policy: policy::RequestPolicy::new(
                self.addr,
                self.settings.names,
                self.settings.token,
                self.settings.registry,
            ),
            at_work: Semaphore::new(REQUESTS_MAX),
        });
        let accepting = tokio::spawn(accept(self.socket, pipeline, closed));
        Server { addr: self.addr, closing, accepting, counts }
    }
}

impl MetricsListener {
    /// Starts to tell what `handle` counts and what `beside`, its API, refused.
    pub fn serve(self, handle: Handle, beside: &Server) -> Server {
        let counts = beside.counts.clone();
        self.0.answer(handle.clone(), counts.clone(), |_| {
            health::router(handle, counts).fallback(health::nothing_else)
        })
    }
}

impl Server {
    /// Base URL for a client on this machine.
    pub fn url(&self) -> String {
        let mut addr = self.addr;
        // A wildcard is where a server listens, but not everywhere a place to connect to.
        if addr.ip().is_unspecified() {
            addr.set_ip(if addr.is_ipv4() { [127, 0, 0, 1].into() } else { [0, 0, 0, 0, 0, 0, 0, 1].into() });
        }
        format!("http://{addr}")
    }

    /// Accepts no more, ends event streams, waits at most 1.5 s for open requests.
    pub async fn stop(self) {
        self.closing.send_replace(true);
        let mut accepting = self.accepting;
        if timeout(STOP_TIME_MAX, &mut accepting).await.is_err() {
            // The task owns the set of connections, so this cuts those that are still open.
            accepting.abort();
        }
    }
}

/// What every request passes before a handler sees it.
struct Pipeline {
    trusted_nets: TrustedNets,
    connections: Connections,
    policy: policy::RequestPolicy,
    bodies: body::Memory,
    at_work: Semaphore,
    router: Router,
    refusals: Refusals,
    metrics: Arc<Metrics>,
}

/// One connection, as its requests see it.
struct Connection {
    pipeline: Arc<Pipeline>,
    place: Arc<Place>,
    heads: Heads,
}

async fn accept(socket: TcpListener, pipeline: Arc<Pipeline>, mut closing: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = closed(&mut closing) => break,
            accepted = socket.accept() => accepted,
        };
        // A task that has ended stays in the set until it is taken out.
        while connections.try_join_next().is_some() {}
        match accepted {
            // Where every place is at work the socket is dropped, which says so at once.
            Ok((stream, from)) => {
                let source = pipeline.trusted_nets.source(from.ip());
                if let Some((place, evicted)) = pipeline.connections.enter(source) {
                    let connection = serve_connection(stream, place, pipeline.clone(), closing.clone());
                    connections.spawn(async move {
                        tokio::select! {
                            () = connection => {}
                            // Only idle ones are, so that no answer is cut.
                            _ = evicted => {}
                        }
                    });
                }
            }
            Err(error) => {
                tracing::warn!(%error, "no HTTP connection accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Closed before the wait: a client that comes now is refused at once instead of hanging.
    drop(socket);
    connections.join_all().await;
}

async fn serve_connection(
    stream: TcpStream,
    place: Place,
    pipeline: Arc<Pipeline>,
    mut closing: watch::Receiver<bool>,
) {
    // Without it small answers wait for the other side's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let heads = Heads::default();
    let stream = Watched::new(stream, heads.clone());
    let connection = Arc::new(Connection { pipeline, place: Arc::new(place), heads });
    let service = service_fn(|request| answer(connection.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // How a connection ends is the client's business: there is nobody left to tell.
    let _ = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closed(&mut closing) => {
            // The request at work is finished, and the connection takes no other.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
}

/// A time in RFC 3339, as the documents of other standards have it.
fn date(at: Timestamp) -> String {
    let since = Duration::from_millis(at.0.min(LAST_SECOND * 1000));
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since).to_string()
}

/// Resolves when the server stops, at once if it has.
async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

async fn answer(
    connection: Arc<Connection>,
    mut request: hyper::Request<Incoming>,
) -> Result<Response, Infallible> {
    let (surface, method) = (Surface::of(request.uri().path()), known_method(request.method()));
    let began = Instant::now();
    let (id, spans) = correlation::begin(&request, method);
    // For work that outlives the request.
    request.headers_mut().insert(correlation::REQUEST_ID, id.clone());
    // For who works on it in a task of its own.
    request.extensions_mut().insert(spans.clone());
    let passed = async {
        judge_head(&connection)?;
        pass(&connection, request).await
    };
    let answered = spans.around(passed).await;
    let mut response = surface.shape(answered.unwrap_or_else(|failure| failure.into_response()));
    let route = response.extensions_mut().remove::<MatchedPath>();
    let (route, status) = (route.as_ref().map(MatchedPath::as_str), response.status().as_u16());
    connection.pipeline.metrics.answered(method, route, status, began.elapsed());
    names::http_answered(&spans.traced, method, route, status);
    response.headers_mut().insert(correlation::REQUEST_ID, id);
    // Where the next head begins is not known, or was not meant to be.
    if connection.heads.worst() != HeadKind::Plain {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Tells the pipeline, which calls the router by hand, which route it took.
async fn note_route(path: MatchedPath, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.extensions_mut().insert(path);
    response
}

/// The method where it is a usual one: a client may make up others.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "_OTHER",
    }
}

fn judge_head(connection: &Connection) -> Result<(), Failure> {
    let failure = match connection.heads.worst() {
        HeadKind::Plain | HeadKind::Chunked => return Ok(()),
        HeadKind::TooLong => Failure::long_head(HEAD_BYTES_MAX),
        HeadKind::TwoLengths => Failure::new(
            Code::BadRequest,
            "the request has both Content-Length and Transfer-Encoding",
            "send one of them: a length, or a body in chunks",
        ),
    };
    connection.pipeline.refusals.count(Reason::RequestHead);
    Err(failure)
}

async fn pass(connection: &Connection, request: hyper::Request<Incoming>) -> Result<Response, Failure> {
    let Connection { pipeline, place, .. } = connection;
    // Judged before it takes a place: strangers must not use up those of clients that may ask.
    let asker = pipeline.policy.judge(&request)?;
    let (mut head, body) = request.into_parts();
    head.extensions.insert(asker);
    // All of it before the request is at work: who sends slowly holds up nobody but himself.
    let (body, _memory) = pipeline.bodies.read(body, BODY_BYTES_MAX, || place.touch()).await?;
    let at_work = place.work();
    let request = Request::from_parts(head, Body::from(body));
    // Refused and not queued: a client that is told can wait, and a queue would take memory.
    let _permit = pipeline.at_work.try_acquire().map_err(|_| {
        pipeline.refusals.count(Reason::RequestPlaces);
        Failure::busy("requests", REQUESTS_MAX)
    })?;
    let time_max = match *request.method() {
        Method::GET | Method::HEAD => READ_TIME_MAX,
        _ => WRITE_TIME_MAX,
    };
    let mut router = pipeline.router.clone();
    // A panic would end the connection without an answer, and its client could not tell it from a crash.
    let work = AssertUnwindSafe(async move { router.call(request).await }).catch_unwind();
    match timeout(time_max, work).await {
        // At work until the answer has left, for event streams last.
        Ok(Ok(Ok(response))) => Ok(response.map(|body| Body::new(body::Held::new(body, at_work)))),
        Ok(Err(_)) => Err(Failure::panicked()),
        Err(_) => Err(Failure::late(time_max)),
    }
}
