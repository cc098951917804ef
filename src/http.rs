//! The HTTP API: routes over a [`Handle`], behind one pipeline that every request passes first.
//!
//! Invariants. No handler runs before the policy has judged Host, Origin, token and content type (a page in a browser
//! must not reach the node through DNS rebinding or a form). An address that is not loopback is bound only with a
//! token. Every answer but the page, `/metrics` and the event stream is JSON, errors as `{"error":{code,message,fix}}`.
//! Connections, requests at work, uploads and event streams are counted against named limits.

mod body;
mod call;
mod events;
mod failure;
mod mcp;
mod page;
mod policy;
mod query;
mod routes;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rmcp::ServerHandler;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tower_service::Service as _;

use self::failure::Failure;
pub use self::policy::{Token, TokenError};
use crate::host::Handle;
use crate::mcp::Mcp;

/// Open connections. Above it new ones wait in the kernel's backlog; 1024 leaves file descriptors for the mesh.
const CONNECTIONS_MAX: usize = 1024;
/// Requests at work at once; beyond it 429. Each costs one future and at most one question to the node.
const REQUESTS_MAX: usize = 512;
/// How long the head of a request may take, which also ends idle connections.
const HEAD_TIME_MAX: Duration = Duration::from_secs(30);
/// Largest head of a request, bytes: names and queries are far shorter.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How long an answer to a reading request may take. A search has a budget of its own, far below.
const READ_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a writing request may take, upload included: 32 MiB of documents are signed and made durable in it, and the
/// longest call ends in it.
const WRITE_TIME_MAX: Duration = body::BODY_TIME_MAX.saturating_add(call::TIME_MAX);
/// How long open requests may take to end at a stop; the whole node has 5 s.
const STOP_TIME_MAX: Duration = Duration::from_millis(1500);
/// Pause after a failed accept, which means that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Where and for whom to serve.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address to bind; port 0 takes any free port.
    pub addr: SocketAddr,
    /// Further host names under which clients may ask, such as that of a reverse proxy.
    pub names: Vec<String>,
    /// Asked of every request but `/healthz`; `None` is allowed on a loopback address only.
    pub token: Option<Token>,
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
        "port {} of {ip} is taken: stop the program that uses it, or choose another with --http {ip}:0",
        .0.port(), ip = .0.ip()
    )]
    Taken(SocketAddr),
    /// The system refused for another reason.
    #[error("cannot bind the HTTP address {0}: {1}; choose another with --http ADDR:PORT")]
    Refused(SocketAddr, io::Error),
}

/// A bound address that is not served yet: the port is known and taken before the node starts.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    addr: SocketAddr,
    settings: Settings,
}

/// A running server. Dropping it without [`Server::stop`] leaves it running until the runtime ends.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    closing: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

/// Binds the address of `settings`.
pub async fn bind(settings: Settings) -> Result<Listener, BindError> {
    let wanted = settings.addr;
    // Canonical, because `::ffff:127.0.0.1` is loopback and does not say so.
    if settings.token.is_none() && !wanted.ip().to_canonical().is_loopback() {
        return Err(BindError::NoToken(wanted));
    }
    let refused = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::Taken(wanted),
        _ => BindError::Refused(wanted, error),
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
        let (closing, closed) = watch::channel(false);
        let pipeline = Arc::new(Pipeline {
            policy: policy::RequestPolicy::new(self.addr, self.settings.names, self.settings.token),
            at_work: Semaphore::new(REQUESTS_MAX),
            router: routes::router(handle, closed.clone(), mcp::router(mcp, closed.clone())),
        });
        let accepting = tokio::spawn(accept(self.socket, pipeline, closed));
        Server { addr: self.addr, closing, accepting }
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
    policy: policy::RequestPolicy,
    at_work: Semaphore,
    router: Router,
}

async fn accept(socket: TcpListener, pipeline: Arc<Pipeline>, mut closing: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = closed(&mut closing) => break,
            accepted = next_connection(&socket, &slots) => accepted,
        };
        // A task that has ended stays in the set until it is taken out.
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, slot)) => {
                connections.spawn(serve_connection(stream, slot, pipeline.clone(), closing.clone()));
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

async fn next_connection(
    socket: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    // The place first: a connection that is not accepted waits in the kernel and costs nothing here.
    let slot = slots.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = socket.accept().await?;
    Ok((stream, slot))
}

async fn serve_connection(
    stream: TcpStream,
    _slot: OwnedSemaphorePermit,
    pipeline: Arc<Pipeline>,
    mut closing: watch::Receiver<bool>,
) {
    // Without it small answers wait for the other side's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| answer(pipeline.clone(), request));
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

/// Resolves when the server stops, at once if it has.
async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

async fn answer(pipeline: Arc<Pipeline>, request: hyper::Request<Incoming>) -> Result<Response, Infallible> {
    Ok(pass(&pipeline, request).await.unwrap_or_else(|failure| failure.into_response()))
}

async fn pass(pipeline: &Pipeline, request: hyper::Request<Incoming>) -> Result<Response, Failure> {
    // Judged before it takes a place: strangers must not use up those of clients that may ask.
    pipeline.policy.judge(&request)?;
    // Refused and not queued: a client that is told can wait, and a queue would take memory.
    let _permit = pipeline.at_work.try_acquire().map_err(|_| Failure::busy("requests", REQUESTS_MAX))?;
    let time_max = match *request.method() {
        Method::GET | Method::HEAD => READ_TIME_MAX,
        _ => WRITE_TIME_MAX,
    };
    let mut router = pipeline.router.clone();
    let request: Request<Incoming> = request;
    // A panic would end the connection without an answer, and its client could not tell it from a crash.
    let work = AssertUnwindSafe(async move { router.call(request).await }).catch_unwind();
    match timeout(time_max, work).await {
        Ok(Ok(Ok(response))) => Ok(response),
        Ok(Err(_)) => Err(Failure::panicked()),
        Err(_) => Err(Failure::late(time_max)),
    }
}
