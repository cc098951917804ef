//! The messages between this host and one MCP server, on any transport.
//!
//! Reports of progress are routed here, in the order in which they came. A server that does not read what it is sent is
//! given up, so that messages waiting for it stay few.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rmcp::model::{
    ClientRequest, GetMeta, JsonRpcMessage, NumberOrString, ProgressNotificationParam, ProgressToken,
    ServerNotification,
};
use rmcp::service::{RoleClient, RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::listing::cut;
use super::server::CALLS_MAX;
use crate::proto::call::Progress;

/// Messages on their way to a server: every call and the end of every call, so a server that reads at all never
/// comes near.
const WRITES_MAX: usize = 2 * CALLS_MAX;
/// Bytes of the text in a report of progress: a few lines.
const REPORT_BYTES_MAX: usize = 1024;

/// A transport, watched.
pub(super) struct Wire<T> {
    transport: T,
    reports: Arc<Reports>,
    writes: Arc<Semaphore>,
    unread: bool,
    /// Cancelled when no message will come any more. Closing the transport may wait for a server that does not read.
    closed: CancellationToken,
}

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError<E: std::error::Error> {
    /// The transport says why.
    #[error(transparent)]
    Transport(E),
    /// Too many messages wait already.
    #[error("the server does not read what it is sent")]
    Unread,
}

impl<T> Wire<T> {
    pub(super) fn new(transport: T, reports: Arc<Reports>, closed: CancellationToken) -> Wire<T> {
        Wire { transport, reports, writes: Arc::new(Semaphore::new(WRITES_MAX)), unread: false, closed }
    }
}

impl<T: Transport<RoleClient>> Wire<T> {
    /// The next message that matters here.
    async fn next(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        while !self.unread {
            let message = self.transport.receive().await?;
            let JsonRpcMessage::Notification(notification) = &message else { return Some(message) };
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

impl<T> Drop for Wire<T> {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

impl<T: Transport<RoleClient> + 'static> Transport<RoleClient> for Wire<T> {
    type Error = WireError<T::Error>;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        // Never waited for: a server that reads nothing would hold up everything else of its connection.
        let permit = self.writes.clone().try_acquire_owned().ok();
        self.unread |= permit.is_none();
        self.reports.expect(&message);
        let sent = permit.map(|permit| (permit, self.transport.send(message)));
        async move {
            // Held until the message is written, so that the permits count what waits.
            let Some((_permit, sent)) = sent else { return Err(WireError::Unread) };
            sent.await.map_err(WireError::Transport)
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

/// Where the reports of progress of each call go.
#[derive(Default)]
pub(super) struct Reports(Mutex<BTreeMap<i64, Reader>>);

struct Reader {
    sender: mpsc::Sender<Progress>,
    /// Reports grow; one that does not is late or wrong.
    last: f64,
}

impl Reports {
    /// Takes the reader that a call carries with it. Its token is known only here, and the first report may come
    /// before the caller runs again.
    fn expect(&self, message: &TxJsonRpcMessage<RoleClient>) {
        let JsonRpcMessage::Request(request) = message else { return };
        let ClientRequest::CallToolRequest(call) = &request.request else { return };
        let Some(sender) = call.extensions.get::<mpsc::Sender<Progress>>() else { return };
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
        let message = report.message.as_deref().map(|text| cut(text, REPORT_BYTES_MAX).to_owned());
        // A full channel loses reports, never delays the messages behind them.
        let _ = reader.sender.try_send(Progress { progress: report.progress, total: report.total, message });
    }

    fn readers(&self) -> MutexGuard<'_, BTreeMap<i64, Reader>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
