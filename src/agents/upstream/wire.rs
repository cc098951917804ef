//! The messages between this host and one MCP server, on any transport.
//!
//! Reports of progress are routed here, in the order in which they came. An answer to nothing that was asked ends whatever
//! waits: one of them was meant. A server that does not read what it is sent is given up, so that messages waiting for it
//! stay few.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use rmcp::model::{
    ClientNotification, ClientRequest, GetMeta, JsonRpcMessage, NumberOrString, ProgressNotificationParam,
    ProgressToken, RequestId, ServerNotification,
};
use rmcp::service::{RoleClient, RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::listing::cut;
use super::message::{FromServer, unreadable};
use super::server::CALLS_MAX;
use crate::agents::secrets::Secrets;
use crate::proto::call::{Progress, Report};

/// Messages on their way to a server: every call and the end of every call, so a server that reads at all never
/// comes near.
const WRITES_MAX: usize = 2 * CALLS_MAX;
/// Bytes of the text in a report of progress: a few lines.
const REPORT_BYTES_MAX: usize = 1024;

/// A transport, watched.
pub(super) struct Wire {
    transport: AnyTransport,
    reports: Arc<Reports>,
    writes: Arc<Semaphore>,
    unread: bool,
    requests: Arc<Requests>,
    /// Answers made here, to be given on first.
    made: VecDeque<FromServer>,
    /// Cancelled when no message will come any more. Closing the transport may wait for a server that does not read.
    closed: CancellationToken,
}

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// The transport says why.
    #[error(transparent)]
    Transport(BoxError),
    /// Too many messages wait already.
    #[error("the server does not read what it is sent")]
    Unread,
}

type BoxError = Box<dyn Error + Send + Sync>;

/// A transport of any kind. What serves a connection is large, and compiled once for all of them.
pub(super) type AnyTransport = Box<dyn BoxedTransport>;

/// [`Transport`] with boxed futures.
pub(super) trait BoxedTransport: Send {
    fn send(&mut self, message: TxJsonRpcMessage<RoleClient>) -> BoxFuture<'static, Result<(), BoxError>>;
    fn receive(&mut self) -> BoxFuture<'_, Option<RxJsonRpcMessage<RoleClient>>>;
    fn close(&mut self) -> BoxFuture<'_, Result<(), BoxError>>;
}

impl<T: Transport<RoleClient>> BoxedTransport for T {
    fn send(&mut self, message: TxJsonRpcMessage<RoleClient>) -> BoxFuture<'static, Result<(), BoxError>> {
        Transport::send(self, message).map_err(BoxError::from).boxed()
    }

    fn receive(&mut self) -> BoxFuture<'_, Option<RxJsonRpcMessage<RoleClient>>> {
        Transport::receive(self).boxed()
    }

    fn close(&mut self) -> BoxFuture<'_, Result<(), BoxError>> {
        Transport::close(self).map_err(BoxError::from).boxed()
    }
}

impl Wire {
    pub(super) fn new(transport: AnyTransport, reports: Arc<Reports>, closed: CancellationToken) -> Wire {
        let writes = Arc::new(Semaphore::new(WRITES_MAX));
        Wire {
            transport,
            reports,
            writes,
            unread: false,
            requests: Arc::default(),
            made: VecDeque::new(),
            closed,
        }
    }
}

impl Wire {
    /// The next message that matters here.
    async fn next(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        while !self.unread {
            if let Some(made) = self.made.pop_front() {
                return Some(made);
            }
            let message = self.transport.receive().await?;
            let notification = match &message {
                JsonRpcMessage::Notification(notification) => notification,
                JsonRpcMessage::Request(_) => return Some(message),
                answer => {
                    if self.requests.are_answered_by(answer) {
                        return Some(message);
                    }
                    self.made = self.requests.ended_by(message).into();
                    continue;
                }
            };
            match &notification.notification {
                ServerNotification::ProgressNotification(report) => self.reports.route(&report.params),
                ServerNotification::ToolListChangedNotification(_)
                | ServerNotification::CancelledNotification(_)
                | ServerNotification::SubscriptionsAcknowledgedNotification(_) => return Some(message),
                // Nobody here reads a server's logs, prompts and resources.
                _ => {}
            }
        }
        tracing::warn!(WRITES_MAX, "an MCP server does not read what it is sent; its connection ends");
        None
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

impl Transport<RoleClient> for Wire {
    type Error = WireError;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        // Never waited for: a server that reads nothing would hold up everything else of its connection.
        let permit = self.writes.clone().try_acquire_owned().ok();
        self.unread |= permit.is_none();
        self.reports.expect(&message);
        self.requests.note(&message);
        let (requests, request) = (self.requests.clone(), id_of_request(&message));
        let sent = permit.map(|permit| (permit, self.transport.send(message)));
        async move {
            // Held until the message is written, so that the permits count what waits.
            let sent = match sent {
                Some((_permit, sent)) => sent.await.map_err(WireError::Transport),
                None => Err(WireError::Unread),
            };
            // Whoever asked learns it from this error.
            if let (Err(_), Some(id)) = (&sent, request) {
                requests.remove(id);
            }
            sent
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        let message = self.next().await;
        // Calls in flight learn it here and not from the close that follows.
        if message.is_none() {
            self.closed.cancel();
        }
        message
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        self.transport.close().await.map_err(WireError::Transport)
    }
}

fn id_of_request(message: &TxJsonRpcMessage<RoleClient>) -> Option<i64> {
    match message {
        JsonRpcMessage::Request(request) => number(&request.id),
        _ => None,
    }
}

/// Requests are numbered here; some servers give a number back as text.
fn number(id: &RequestId) -> Option<i64> {
    match id {
        NumberOrString::Number(number) => Some(*number),
        NumberOrString::String(text) => text.parse().ok(),
    }
}

/// Requests without an answer so far.
#[derive(Default)]
struct Requests(Mutex<RequestIds>);

#[derive(Default)]
struct RequestIds {
    waiting: BTreeSet<i64>,
    /// The greatest that was sent: numbers only grow.
    last: Option<i64>,
}

impl Requests {
    /// Takes a message that is sent.
    fn note(&self, message: &TxJsonRpcMessage<RoleClient>) {
        if let Some(id) = id_of_request(message) {
            let mut ids = self.ids();
            ids.waiting.insert(id);
            ids.last = ids.last.max(Some(id));
        }
        let JsonRpcMessage::Notification(notification) = message else { return };
        let ClientNotification::CancelledNotification(cancelled) = &notification.notification else { return };
        if let Some(id) = cancelled.params.request_id.as_ref().and_then(number) {
            self.remove(id);
        }
    }

    fn remove(&self, id: i64) {
        self.ids().waiting.remove(&id);
    }

    /// Whether it is the answer of a request that was made; one that was given up may be answered late.
    fn are_answered_by(&self, answer: &FromServer) -> bool {
        let id = match answer {
            JsonRpcMessage::Response(response) => number(&response.id),
            JsonRpcMessage::Error(error) => error.id.as_ref().and_then(number),
            _ => None,
        };
        let mut ids = self.ids();
        let Some(id) = id.filter(|id| *id >= 0 && Some(*id) <= ids.last) else { return false };
        ids.waiting.remove(&id);
        true
    }

    /// What an answer that nobody asked for says to those who wait. Were one of them told and not the others, the one that
    /// was meant could wait until its deadline.
    fn ended_by(&self, answer: FromServer) -> Vec<FromServer> {
        let waiting = std::mem::take(&mut self.ids().waiting);
        tracing::warn!(
            waiting = waiting.len(),
            "an MCP server answers what it was not asked; whatever waits for it ends"
        );
        let ids: Vec<RequestId> = waiting.into_iter().map(RequestId::Number).collect();
        match (answer, ids.as_slice()) {
            // An error that can only be meant for this one.
            (JsonRpcMessage::Error(error), [id]) => {
                vec![JsonRpcMessage::error(error.error, Some(id.clone()))]
            }
            _ => ids.into_iter().map(|id| unreadable(Some(id))).collect(),
        }
    }

    fn ids(&self) -> MutexGuard<'_, RequestIds> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the reports of progress of each call go.
pub(super) struct Reports {
    readers: Mutex<BTreeMap<i64, Reader>>,
    secrets: Arc<Secrets>,
}

struct Reader {
    sender: mpsc::Sender<Report>,
    /// Reports grow; one that does not is late or wrong.
    last: f64,
}

impl Reports {
    /// Of a server whose configuration holds these secrets.
    pub(super) fn new(secrets: Arc<Secrets>) -> Reports {
        Reports { readers: Mutex::default(), secrets }
    }

    /// Takes the reader that a call carries with it. Its token is known only here, and the first report may come
    /// before the caller runs again.
    fn expect(&self, message: &TxJsonRpcMessage<RoleClient>) {
        let JsonRpcMessage::Request(request) = message else { return };
        let ClientRequest::CallToolRequest(call) = &request.request else { return };
        let Some(sender) = call.extensions.get::<mpsc::Sender<Report>>() else { return };
        let token = request.request.get_meta().get_progress_token();
        let Some(ProgressToken(NumberOrString::Number(token))) = token else { return };
        let mut readers = self.readers();
        // A call given up before it was sent was removed before it came here.
        readers.retain(|_, reader| !reader.sender.is_closed());
        readers.insert(token, Reader { sender: sender.clone(), last: f64::NEG_INFINITY });
    }

    pub(super) fn remove(&self, token: &ProgressToken) {
        if let NumberOrString::Number(token) = token.0 {
            self.readers().remove(&token);
        }
    }

    fn route(&self, report: &ProgressNotificationParam) {
        let NumberOrString::Number(token) = report.progress_token.0 else { return };
        let mut readers = self.readers();
        // A value that is no number is not greater than anything and falls out as well.
        let Some(reader) = readers.get_mut(&token).filter(|reader| report.progress > reader.last) else {
            return;
        };
        reader.last = report.progress;
        // Cut last, or the half of a secret would be left.
        let hidden = report.message.as_deref().map(|text| self.secrets.hide(text));
        let message = hidden.map(|text| cut(&text, REPORT_BYTES_MAX).to_owned());
        // A full channel loses reports, never delays the messages behind them.
        let progress = Progress { progress: report.progress, total: report.total, message };
        let _ = reader.sender.try_send(Report::Progress(progress));
    }

    fn readers(&self) -> MutexGuard<'_, BTreeMap<i64, Reader>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
