//! One connection to an MCP server: handshake, list of tools, changes, calls, end.
//!
//! Both eras are spoken: `server/discover` is tried first, the older handshake follows where it is not known.

use std::sync::Arc;
use std::time::Duration;

use rmcp::ClientHandler;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientCapabilities, ClientConfig, ClientRequest, Implementation,
    JsonObject, ProtocolVersion, RequestMetaObject, ServerResult, SubscriptionFilter, TASKS_EXTENSION_ID,
};
use rmcp::service::{
    ClientInitializeError, ClientLifecycleMode, ClientServiceExt, NotificationContext, Peer,
    PeerRequestOptions, RequestHandle, RoleClient, RunningService, ServiceError, Subscription,
};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::wire::{AnyTransport, Reports, Wire};
use super::{Tool, answer, listing, task};
use crate::agents::secrets::Secrets;
use crate::agents::{CALL_BYTES_MAX, Invocation};
use crate::proto::call::{CallFailure, Outcome};

/// Bytes of a message: a structured output travels twice, the second time as escaped text.
pub(super) const MESSAGE_BYTES_MAX: usize = 4 * CALL_BYTES_MAX;
/// How long a server has from its start to its first list: package runners download on their first start.
const HANDSHAKE_MAX: Duration = Duration::from_secs(60);
/// How long a server has to acknowledge that it will report changes; without them it is as useful.
const LISTEN_MAX: Duration = Duration::from_secs(5);
/// How long a later list may take.
const LIST_MAX: Duration = Duration::from_secs(30);
/// Least time between two lists: a server that announces changes all the time costs two lists a second.
const LIST_PAUSE: Duration = Duration::from_millis(500);

/// Which handshake to open with.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Opening {
    /// `server/discover`, and `initialize` where it is refused.
    #[default]
    Either,
    /// `initialize` at once: what the server spoke last, or what is left to try.
    Initialize,
    /// The same over the older transport, of a server that takes no message at its address.
    EventStream,
}

/// An open connection, shared by its calls.
pub(super) struct Connection {
    pub(super) peer: Peer<RoleClient>,
    reports: Arc<Reports>,
    pub(super) secrets: Arc<Secrets>,
    /// Wakes [`Session::watch`]: the tools may have changed, or the server may be gone.
    recheck: Arc<Notify>,
    /// Cancelled at the end of the connection, and by the first call that finds nobody there.
    pub(super) closed: CancellationToken,
}

/// An open connection and what keeps it open.
pub(super) struct Session {
    service: RunningService<RoleClient, Client>,
    changes: Option<Subscription>,
    pub(super) connection: Arc<Connection>,
}

/// What this host is to a server: a client that waits for tasks, without other extras.
pub(super) struct Client {
    recheck: Arc<Notify>,
}

impl ClientHandler for Client {
    fn get_info(&self) -> ClientConfig {
        let own = Implementation::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        let mut capabilities = ClientCapabilities::default();
        capabilities.extensions = Some([(TASKS_EXTENSION_ID.to_owned(), JsonObject::new())].into());
        ClientConfig::new(capabilities, own).with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE)
    }

    async fn on_tool_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.recheck.notify_one();
    }
}

impl Session {
    /// Shakes hands and lists the tools.
    pub(super) async fn open(
        transport: AnyTransport,
        opening: Opening,
        secrets: Arc<Secrets>,
    ) -> Result<(Session, Vec<Tool>), String> {
        let opened = timeout(HANDSHAKE_MAX, Session::shake_hands(transport, opening, secrets)).await;
        let mut session = match opened {
            Ok(Ok(session)) => session,
            Ok(Err(ClientInitializeError::TransportError { error, .. })) => {
                return Err(error.error.to_string());
            }
            Ok(Err(error)) => return Err(format!("the handshake failed: {error}")),
            Err(_) => return Err(format!("no handshake within {HANDSHAKE_MAX:?}")),
        };
        // Changes are followed before the list is read, so none is lost between the two.
        session.listen().await;
        match timeout(LIST_MAX, listing::read(&session.connection.peer)).await {
            Ok(Ok(tools)) => Ok((session, tools)),
            Ok(Err(error)) => Err(format!("its tools cannot be listed: {error}")),
            Err(_) => Err(format!("no list of tools within {LIST_MAX:?}")),
        }
    }

    async fn shake_hands(
        transport: AnyTransport,
        opening: Opening,
        secrets: Arc<Secrets>,
    ) -> Result<Session, ClientInitializeError> {
        let (reports, recheck) = (Arc::new(Reports::new(secrets.clone())), Arc::<Notify>::default());
        let closed = CancellationToken::new();
        let wire = Wire::new(transport, reports.clone(), closed.clone());
        let lifecycle = match opening {
            Opening::Either => ClientLifecycleMode::Auto {
                preferred_versions: vec![ProtocolVersion::LATEST],
                legacy_version: Some(ProtocolVersion::LATEST_WITH_INITIALIZE),
            },
            Opening::Initialize | Opening::EventStream => ClientLifecycleMode::Initialize,
        };
        let service = Client { recheck: recheck.clone() }.serve_with_lifecycle(wire, lifecycle).await?;
        let connection = Connection { peer: service.peer().clone(), reports, secrets, recheck, closed };
        Ok(Session { service, changes: None, connection: Arc::new(connection) })
    }

    /// The opening to use next time.
    pub(super) fn opening(&self) -> Opening {
        match self.connection.peer.peer_info() {
            Some(server) if server.protocol_version.has_initialize() => Opening::Initialize,
            _ => Opening::Either,
        }
    }

    /// Subscribes to changes where that takes a request of its own; older servers report them unasked.
    async fn listen(&mut self) {
        let peer = &self.connection.peer;
        let server = peer.peer_info().filter(|server| !server.protocol_version.has_initialize());
        let reports_changes = |tools: &rmcp::model::ToolsCapability| tools.list_changed == Some(true);
        if server.is_some_and(|server| server.capabilities.tools.as_ref().is_some_and(reports_changes)) {
            let filter = SubscriptionFilter::builder().tools_list_changed().build();
            self.changes = timeout(LISTEN_MAX, peer.listen(filter)).await.ok().and_then(Result::ok);
        }
    }

    /// Follows the changes of the tools until the connection ends; why it did.
    pub(super) async fn watch(self, listed: impl Fn(Vec<Tool>)) -> String {
        // `_open` lives to the end of this function: dropped, the service would close the connection.
        let Session { service: _open, mut changes, connection } = self;
        let follow = async {
            loop {
                tokio::select! {
                    () = connection.recheck.notified() => {}
                    () = next_change(&mut changes) => {}
                }
                match connection.list().await {
                    Ok(Some(tools)) => listed(tools),
                    Ok(None) => {}
                    Err(why) => return why,
                }
                // A change during the pause is kept by `recheck`, so the last one is never missed.
                sleep(LIST_PAUSE).await;
            }
        };
        tokio::select! {
            () = connection.closed.cancelled() => "its connection ended".into(),
            why = follow => why,
        }
    }
}

/// Waits for a change. A subscription that ended is a reason to look once more, and then no more.
async fn next_change(changes: &mut Option<Subscription>) {
    match changes {
        Some(subscription) => {
            if !matches!(subscription.next().await, Ok(Some(_))) {
                *changes = None;
            }
        }
        None => std::future::pending().await,
    }
}

impl Connection {
    /// One `tools/call`. Dropping the future cancels it at the server.
    pub(super) async fn call(
        &self,
        tool: String,
        arguments: JsonObject,
        invocation: &Invocation,
    ) -> Result<Value, CallFailure> {
        let mut request = CallToolRequest::new(CallToolRequestParams::new(tool).with_arguments(arguments));
        if let Some(progress) = &invocation.reports {
            // The token of the request is made further below, so
            // the reader travels with it to where it is known.
            request.extensions.insert(progress.clone());
        }
        let mut options = PeerRequestOptions::default();
        options.meta = invocation.context.trace.as_ref().map(|trace| {
            let mut meta = RequestMetaObject::default();
            meta.set_traceparent(trace.as_str());
            meta
        });
        let request = ClientRequest::CallToolRequest(request);
        let sent = self.peer.send_request_with_option(request, options).await;
        let handle =
            sent.map_err(|_| answer::upstream_failed(Outcome::NotStarted, "has just closed its connection"))?;
        let mut waiting = PendingAnswer { connection: self, handle: Some(handle) };
        match waiting.answer().await.map_err(|error| self.failure(&error))? {
            ServerResult::CreateTaskResult(made) => task::follow(self, made.task, invocation).await,
            result => answer::read(result, &self.secrets),
        }
    }

    /// Takes what a failed call says of the connection.
    pub(super) fn failure(&self, error: &ServiceError) -> CallFailure {
        match error {
            error if answer::never_arrived(error) => self.closed.cancel(),
            ServiceError::McpError(_) | ServiceError::UnexpectedResponse => {}
            // Reading the list shows whether the server is still there.
            _ => self.recheck.notify_one(),
        }
        answer::failure(error, &self.secrets)
    }

    /// The tools as they are now; none if the server refuses to say.
    async fn list(&self) -> Result<Option<Vec<Tool>>, String> {
        match timeout(LIST_MAX, listing::read(&self.peer)).await {
            Ok(Ok(tools)) => Ok(Some(tools)),
            Ok(Err(ServiceError::McpError(error))) => {
                let error = self.secrets.hide_keys(&error.to_string());
                tracing::warn!(error, "an MCP server refuses to list its tools; the last list stays");
                Ok(None)
            }
            Ok(Err(error)) => Err(format!("its tools cannot be listed: {error}")),
            Err(_) => Err(format!("no list of tools within {LIST_MAX:?}")),
        }
    }

    /// Whether nobody is there any more.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }
}

/// A request without an answer so far. Dropped, it is cancelled at the server.
struct PendingAnswer<'a> {
    connection: &'a Connection,
    handle: Option<RequestHandle<RoleClient>>,
}

impl PendingAnswer<'_> {
    async fn answer(&mut self) -> Result<ServerResult, ServiceError> {
        let Some(handle) = &mut self.handle else { return Err(ServiceError::TransportClosed) };
        let token = handle.progress_token.clone();
        let answered = tokio::select! {
            // An answer that is there counts, even if the connection has ended since.
            biased;
            answered = &mut handle.rx => answered.unwrap_or(Err(ServiceError::TransportClosed)),
            () = self.connection.closed.cancelled() => Err(ServiceError::TransportClosed),
        };
        self.connection.reports.remove(&token);
        // Answered: dropping this must not cancel anything.
        self.handle = None;
        answered
    }
}

impl Drop for PendingAnswer<'_> {
    fn drop(&mut self) {
        let Some(handle) = self.handle.take() else { return };
        self.connection.reports.remove(&handle.progress_token);
        // A drop while the runtime ends has nobody left to send the cancellation.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(handle.cancel(Some("the caller no longer waits".into())));
        }
    }
}
