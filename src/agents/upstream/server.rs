//! One MCP server over its whole life: up, down, up again.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::answer;
use super::child::Child;
use super::events::EventStream;
use super::http;
use super::session::{Connection, Opening, Session};
use super::union::Union;
use super::wire::AnyTransport;
use crate::agents::Invocation;
use crate::agents::secrets::Secrets;
use crate::document::run_config::McpServer;
use crate::proto::call::{CallFailure, Outcome};
use crate::proto::code::Code;
use crate::telemetry::names;

/// Calls in flight at one server: what an agent runs at once is far less, and inputs of this many fit in memory.
pub(super) const CALLS_MAX: usize = 64;
/// Longest first pause before a server is started again.
const PAUSE_START: Duration = Duration::from_millis(500);
/// Longest pause: a server that comes back is found within half a minute.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long a stream of the older transport has to say where messages are posted.
const STREAM_MAX: Duration = Duration::from_secs(10);
/// A server that was up this long is no crash loop, so its next pause is short again.
const STABLE_MIN: Duration = Duration::from_secs(60);

pub(super) struct Server {
    index: usize,
    address: McpServer,
    folder: PathBuf,
    secrets: Arc<Secrets>,
    union: Arc<Union>,
    /// Present while the server is up.
    connection: Mutex<Option<Arc<Connection>>>,
    calls: Semaphore,
}

impl Server {
    pub(super) fn new(index: usize, address: McpServer, folder: &Path, union: Arc<Union>) -> Server {
        Server {
            index,
            secrets: Arc::new(Secrets::of_server(&address, folder)),
            address,
            folder: folder.into(),
            union,
            connection: Mutex::default(),
            calls: Semaphore::new(CALLS_MAX),
        }
    }

    pub(super) async fn call(
        &self,
        tool: String,
        arguments: Value,
        invocation: &Invocation,
    ) -> Result<Value, CallFailure> {
        let Value::Object(arguments) = arguments else {
            let problem = "an MCP tool takes a JSON object; name each argument";
            return Err(CallFailure::new(Code::BadInput, Outcome::NotStarted, problem));
        };
        let connection = self.connection().clone().filter(|connection| !connection.is_closed());
        let connection = connection.ok_or_else(|| self.down())?;
        // No queue here: the agent has one, and its length is in the file.
        let Ok(_permit) = self.calls.try_acquire() else {
            let problem =
                format!("an MCP server of this agent has {CALLS_MAX} calls in flight; call again later");
            return Err(CallFailure::new(Code::Busy, Outcome::NotStarted, problem));
        };
        let transport = match &self.address {
            McpServer::Command(_) => "pipe",
            McpServer::Url(_) => "tcp",
        };
        let version = connection.peer.peer_info().map(|info| info.protocol_version.clone());
        names::spoken(&Span::current(), transport, version);
        connection.call(tool, arguments, invocation).await
    }

    /// Whether calls reach it.
    pub(super) fn is_up(&self) -> bool {
        self.connection().as_ref().is_some_and(|connection| !connection.is_closed())
    }

    /// The failure of a call while the server is down.
    pub(super) fn down(&self) -> CallFailure {
        answer::upstream_failed(Outcome::NotStarted, &format!("(number {}) is down", self.index + 1))
    }

    /// Which server a line of the log is about.
    pub(super) fn span(&self) -> tracing::Span {
        let name = match &self.address {
            McpServer::Command(program) => program.command.first().cloned(),
            McpServer::Url(endpoint) => {
                reqwest::Url::parse(&endpoint.url).ok().and_then(|url| url.host_str().map(str::to_owned))
            }
        };
        tracing::warn_span!("mcp", server = name, folder = %self.folder.display())
    }

    /// Keeps the server up until `stop`.
    pub(super) async fn supervise(self: Arc<Self>, stop: CancellationToken) {
        let mut restarts = RestartState::default();
        let mut said_down = false;
        loop {
            let why = self.run(&mut restarts, &stop).await;
            // Before the pause, so that calls fail at once and not into a connection that has ended.
            *self.connection() = None;
            if stop.is_cancelled() {
                return;
            }
            if std::mem::take(&mut restarts.at_once) {
                continue;
            }
            self.union.failed(self.index);
            // Once each time: a server that never comes up would fill the log.
            if restarts.up_since.is_some() || !said_down {
                tracing::warn!(
                    event = "mcp_server_down",
                    "an MCP server is down: {}",
                    self.secrets.hide_keys(&why)
                );
                said_down = true;
            }
            let pause = restarts.pause();
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// One start of the server, to its end; why it ended.
    async fn run(&self, restarts: &mut RestartState, stop: &CancellationToken) -> String {
        match &self.address {
            McpServer::Command(program) => match Child::start(program, &self.folder) {
                Ok((child, pipes)) => {
                    let why = self.connect(Box::new(pipes), restarts, stop).await;
                    format!("{why}; its process: {}", child.end().await)
                }
                Err(error) => format!("it cannot be started: {error}"),
            },
            McpServer::Url(endpoint) if restarts.opening == Opening::EventStream => {
                let opened = timeout(STREAM_MAX, EventStream::open(endpoint, self.secrets.clone()));
                let opened = tokio::select! {
                    opened = opened => opened.unwrap_or_else(|_| Err(format!("no stream within {STREAM_MAX:?}"))),
                    () = stop.cancelled() => Err("it is no longer wanted".into()),
                };
                match opened {
                    Ok(transport) => self.connect(Box::new(transport), restarts, stop).await,
                    Err(why) => {
                        restarts.turn();
                        format!("it takes no messages, and in the older way: {why}")
                    }
                }
            }
            McpServer::Url(endpoint) => {
                match http::transport(endpoint, self.secrets.clone(), restarts.is_refused.clone()) {
                    Ok(transport) => self.connect(Box::new(transport), restarts, stop).await,
                    Err(why) => format!("it cannot be asked: {why}"),
                }
            }
        }
    }

    async fn connect(
        &self,
        transport: AnyTransport,
        restarts: &mut RestartState,
        stop: &CancellationToken,
    ) -> String {
        let session = async {
            let (session, tools) = Session::open(transport, restarts.opening, self.secrets.clone())
                .await
                .inspect_err(|_| restarts.turn())?;
            if restarts.opening != Opening::EventStream {
                restarts.opening = session.opening();
            }
            restarts.up_since = Some(Instant::now());
            // Callable before it is listed: whoever learns of a tool finds its server there.
            *self.connection() = Some(session.connection.clone());
            self.union.listed(self.index, tools);
            tracing::info!(event = "mcp_server_up", "an MCP server is up");
            Err(session.watch(|tools| self.union.listed(self.index, tools)).await)
        };
        tokio::select! {
            ended = session => ended.unwrap_or_else(|why: String| why),
            () = stop.cancelled() => "it is no longer wanted".into(),
        }
    }

    fn connection(&self) -> MutexGuard<'_, Option<Arc<Connection>>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one start of a server leaves for the next.
#[derive(Default)]
struct RestartState {
    opening: Opening,
    /// The server takes no message at its address.
    is_refused: Arc<AtomicBool>,
    /// The next start goes on with this one.
    at_once: bool,
    up_since: Option<Instant>,
    failures: u32,
}

impl RestartState {
    /// Every opening is tried before a start counts as failed: there are servers that know the new one well enough to refuse
    /// it, slow ones that meet the end of its time, and those of the older transport.
    fn turn(&mut self) {
        let is_refused = self.is_refused.swap(false, Ordering::Relaxed);
        let next = match self.opening {
            Opening::Either => Some(Opening::Initialize),
            Opening::Initialize if is_refused => Some(Opening::EventStream),
            Opening::Initialize | Opening::EventStream => None,
        };
        self.at_once = next.is_some();
        self.opening = next.unwrap_or_default();
    }

    /// Exponential backoff with full jitter.
    fn pause(&mut self) -> Duration {
        if self.up_since.take().is_some_and(|since| since.elapsed() >= STABLE_MIN) {
            self.failures = 0;
        }
        // Full jitter: servers that one cause took down do not all start at the same moment.
        let longest = PAUSE_START.saturating_mul(2_u32.saturating_pow(self.failures)).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        longest.mul_f64(rand::random())
    }
}
