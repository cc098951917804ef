//! Conversations that this node leads: one is opened with a peer, requests go out and responses come back in order.

use std::time::Duration;

use futures::io::{ReadHalf, WriteHalf};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{PeerId, StreamProtocol};
use libp2p_stream::Control;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::frames::{read_frame, write_frame};
use super::{FRAME_DEADLINE, GREETING, OPEN_ATTEMPTS_MAX, OPEN_DEADLINE, RESPONSE_DEADLINE};
use super::{RequestError, StreamLimits, limits};
use crate::net::addresses::peer_id;
use crate::proto::identity::PeerKey;
use crate::proto::io::Protocol;

/// The wait before a stream is opened again is drawn from this many milliseconds, so that a burst spreads out.
const REOPEN_MS: std::ops::Range<u64> = 5..50;

/// Opens conversations of one protocol with peers. Cheap to clone, usable from any task.
#[derive(Clone)]
pub struct RequestClient {
    control: Control,
    name: StreamProtocol,
    limits: &'static StreamLimits,
}

/// One open conversation. Dropping it closes the stream.
pub struct RequestStream {
    requests: mpsc::Sender<OutboundRequest>,
    limits: &'static StreamLimits,
}

struct OutboundRequest {
    bytes: Vec<u8>,
    response: ResponseSender,
}

type ResponseSender = oneshot::Sender<Result<Vec<u8>, RequestError>>;

impl RequestClient {
    /// A client of a protocol whose streams have this name.
    pub(crate) fn new(control: Control, protocol: Protocol, name: StreamProtocol) -> RequestClient {
        RequestClient { control, name, limits: limits(protocol) }
    }

    /// Opens a conversation, dialing the peer if an address of it is known. Ends within [`OPEN_DEADLINE`].
    pub async fn open(&self, peer: PeerKey) -> Result<RequestStream, RequestError> {
        let peer = peer_id(&peer).ok_or_else(|| RequestError::Unreachable("its key names no peer".into()))?;
        timeout(OPEN_DEADLINE, self.open_greeted(peer))
            .await
            .unwrap_or(Err(RequestError::TooSlow("open a stream")))
    }

    async fn open_greeted(&self, peer: PeerId) -> Result<RequestStream, RequestError> {
        for _ in 0..OPEN_ATTEMPTS_MAX {
            // A peer that is not reached or speaks another
            // protocol is not asked again: only a lost stream is.
            let mut stream = self.control.clone().open_stream(peer, self.name.clone()).await?;
            let mut greeting = [0];
            if stream.read_exact(&mut greeting).await.is_ok() && greeting == [GREETING] {
                return Ok(RequestStream::run(stream, self.limits));
            }
            tokio::time::sleep(Duration::from_millis(rand::random_range(REOPEN_MS))).await;
        }
        Err(RequestError::Busy)
    }
}

impl RequestStream {
    /// Sends a request and waits for its response. Several may be under way at once, as many as the protocol's pipeline
    /// takes: they go out in the order of the calls. An error ends the conversation for all of them.
    pub async fn request(&self, bytes: Vec<u8>) -> Result<Vec<u8>, RequestError> {
        if bytes.len() > self.limits.frame_bytes_max {
            return Err(RequestError::TooLarge(bytes.len()));
        }
        let (response, responded) = oneshot::channel();
        let closed = || RequestError::Closed("the conversation is over".into());
        self.requests.send(OutboundRequest { bytes, response }).await.map_err(|_| closed())?;
        responded.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Requests that may be under way at once.
    pub(crate) fn pipeline_max(&self) -> usize {
        self.limits.pipeline_max
    }

    fn run<S: AsyncRead + AsyncWrite + Send + 'static>(
        stream: S,
        limits: &'static StreamLimits,
    ) -> RequestStream {
        // One at a time, so that the order of the calls is the order on the wire.
        let (requests, requested) = mpsc::channel(1);
        // Its capacity is the pipeline: a request beyond it is not written before a response has come.
        let (sent, waiting) = mpsc::channel(limits.pipeline_max);
        // Two halves: a peer that answers before it reads on
        // would stop a loop that does one after the other.
        let (reader, writer) = stream.split();
        tokio::spawn(async move {
            let receive = receive_responses(reader, waiting, limits.frame_bytes_max);
            // Both to their ends: responses may be on their way when no more requests go out.
            tokio::join!(send_requests(writer, requested, sent), receive);
        });
        RequestStream { requests, limits }
    }
}

/// Ends when the conversation is dropped, a write fails, or the receiving half gave up.
async fn send_requests<S: AsyncWrite>(
    mut writer: WriteHalf<S>,
    mut requested: mpsc::Receiver<OutboundRequest>,
    sent: mpsc::Sender<ResponseSender>,
) {
    while let Some(OutboundRequest { bytes, response }) = requested.recv().await {
        // Queued before it is written: the response must find who waits for it.
        if sent.send(response).await.is_err()
            || write_frame(&mut writer, &bytes, FRAME_DEADLINE).await.is_err()
        {
            return;
        }
    }
    // It says that no more requests come; a peer that is gone need not hear it.
    let _ = writer.close().await;
}

async fn receive_responses<S: AsyncRead>(
    mut reader: ReadHalf<S>,
    mut waiting: mpsc::Receiver<ResponseSender>,
    frame_bytes_max: usize,
) {
    while let Some(response) = waiting.recv().await {
        let frame = read_frame(&mut reader, frame_bytes_max, RESPONSE_DEADLINE, FRAME_DEADLINE).await;
        // After a bad frame nobody knows where the next begins.
        // Those behind it are told by the drop of their senders.
        let over = frame.is_err();
        // Who asked may have gone; the frame had to be read all the same, for the next stands behind it.
        let _ = response.send(frame.map_err(RequestError::from));
        if over {
            return;
        }
    }
}
