//! Sync streams: one libp2p stream per session, frames of at most [`SYNC_FRAME_BYTES_MAX`] bytes; one answer for every
//! question, in order (protocol section 3).
//!
//! The responder greets a stream it serves with one byte. A stream that closes before the greeting was never served:
//! the accept queue of the library holds one stream and drops the rest without a word, so the opener tries again.
//! Whatever is wrong closes the stream. This layer does not look into frames.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::io::{ReadHalf, WriteHalf};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::{PeerId, StreamProtocol};
use libp2p_stream::{Control, IncomingStreams, OpenStreamError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::admission::StreamAdmission;
use self::frames::{FrameError, read_frame, write_frame};
use crate::net::addresses::{peer_id, peer_key};
use crate::proto::config::SYNC_FRAME_BYTES_MAX;
use crate::proto::identity::PeerKey;

pub(crate) mod admission;
pub(crate) mod frames;

/// Inbound sessions served at once, all peers together. Each holds at most two frames: 32 MiB.
pub const SERVED_MAX: usize = 64;
/// Inbound sessions of one peer served at once; an honest peer runs one or two.
pub const SERVED_PER_PEER_MAX: usize = 4;
/// Inbound streams of one peer, served and waiting their turn. Waiting ones cost a task and a flow-control window.
pub const WAITING_PER_PEER_MAX: usize = 64;
/// Inbound streams of all peers, served and waiting.
pub const WAITING_MAX: usize = 512;
/// Questions of one session under way at once: enough to keep a link of 100 ms busy with 128 KiB answers.
pub const PIPELINE_MAX: usize = 8;
/// How often a stream is opened before its peer counts as busy. A loss in a burst is a few per cent each time.
pub const OPEN_ATTEMPTS_MAX: u32 = 5;
/// How long the opening of a stream may take: a dial, a handshake, the greeting, and the wait for a turn.
pub const OPEN_DEADLINE: Duration = Duration::from_secs(15);
/// How long one frame may take on the wire: 256 KiB in 20 s is 13 KiB/s.
pub const FRAME_DEADLINE: Duration = Duration::from_secs(20);
/// How long an answer may take from the last byte of the question.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// How long a served session may be silent between two questions.
pub const SILENCE_MAX: Duration = Duration::from_secs(20);

/// The first byte of a served stream.
const GREETING: u8 = 1;
/// The wait before a stream is opened again is drawn from this many milliseconds, so that a burst spreads out.
pub(crate) const REOPEN_MS: std::ops::Range<u64> = 5..50;

/// A question that arrived: the frame, and where its answer goes. Dropping `reply` closes the stream.
#[derive(Debug)]
pub struct InboundRequest {
    /// Who asks.
    pub peer: PeerKey,
    /// The frame, at most [`SYNC_FRAME_BYTES_MAX`] bytes.
    pub request: Vec<u8>,
    /// Takes the answer, at most [`SYNC_FRAME_BYTES_MAX`] bytes.
    pub reply: oneshot::Sender<Vec<u8>>,
}

/// Why a session could not be opened or went on no further. The session is over; the peer may have acted on what it
/// got, and nothing here was changed.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The peer could not be reached, or no address of it is known.
    #[error("cannot reach the peer: {0}")]
    Unreachable(String),
    /// The peer does not speak this network's sync protocol.
    #[error("the peer does not speak {0}")]
    OtherProtocol(StreamProtocol),
    /// The peer served none of [`OPEN_ATTEMPTS_MAX`] streams.
    #[error("the peer is too busy to serve a sync stream")]
    Busy,
    /// A deadline passed.
    #[error("the peer did not {0} in time")]
    TooSlow(&'static str),
    /// A frame longer than allowed, ours or the peer's.
    #[error("a frame of {0} bytes, more than {SYNC_FRAME_BYTES_MAX}")]
    TooLarge(usize),
    /// The stream ended before the answer.
    #[error("the peer closed the sync stream: {0}")]
    Closed(String),
}

/// Opens sessions with peers. Cheap to clone, usable from any task.
#[derive(Clone)]
pub struct SyncClient {
    control: Control,
    protocol: StreamProtocol,
}

/// One open session. Dropping it closes the stream.
pub struct SyncStream {
    questions: mpsc::Sender<Question>,
}

struct Question {
    request: Vec<u8>,
    answer: oneshot::Sender<Result<Vec<u8>, SyncError>>,
}

impl SyncClient {
    pub(crate) fn new(control: Control, protocol: StreamProtocol) -> SyncClient {
        SyncClient { control, protocol }
    }

    /// Opens a session, dialing the peer if an address of it is known. Ends within [`OPEN_DEADLINE`].
    pub async fn open(&self, peer: PeerKey) -> Result<SyncStream, SyncError> {
        let peer = peer_id(&peer).ok_or_else(|| SyncError::Unreachable("its key names no peer".into()))?;
        timeout(OPEN_DEADLINE, self.open_greeted(peer))
            .await
            .unwrap_or(Err(SyncError::TooSlow("open a stream")))
    }

    async fn open_greeted(&self, peer: PeerId) -> Result<SyncStream, SyncError> {
        for _ in 0..OPEN_ATTEMPTS_MAX {
            let mut stream = self.control.clone().open_stream(peer, self.protocol.clone()).await?;
            let mut greeting = [0];
            if stream.read_exact(&mut greeting).await.is_ok() && greeting == [GREETING] {
                return Ok(SyncStream::run(stream));
            }
            tokio::time::sleep(Duration::from_millis(rand::random_range(REOPEN_MS))).await;
        }
        Err(SyncError::Busy)
    }
}

impl From<OpenStreamError> for SyncError {
    fn from(error: OpenStreamError) -> SyncError {
        match error {
            OpenStreamError::UnsupportedProtocol(protocol) => SyncError::OtherProtocol(protocol),
            other => SyncError::Unreachable(other.to_string()),
        }
    }
}

impl SyncStream {
    /// Sends a question and waits for its answer. Several may be asked at once: they go out in the order of the
    /// calls and up to [`PIPELINE_MAX`] are under way. An error ends the session for all of them.
    pub async fn ask(&self, request: Vec<u8>) -> Result<Vec<u8>, SyncError> {
        if request.len() > SYNC_FRAME_BYTES_MAX {
            return Err(SyncError::TooLarge(request.len()));
        }
        let (answer, answered) = oneshot::channel();
        let closed = || SyncError::Closed("the session is over".into());
        self.questions.send(Question { request, answer }).await.map_err(|_| closed())?;
        answered.await.unwrap_or_else(|_| Err(closed()))
    }

    fn run<S: AsyncRead + AsyncWrite + Send + 'static>(stream: S) -> SyncStream {
        let (questions, asked) = mpsc::channel(1);
        let (sent, waiting) = mpsc::channel(PIPELINE_MAX);
        let (reader, writer) = stream.split();
        tokio::spawn(async move {
            tokio::join!(send_questions(writer, asked, sent), receive_answers(reader, waiting));
        });
        SyncStream { questions }
    }
}

/// Ends when the session is dropped, a write fails, or the receiving half gave up.
async fn send_questions<S: AsyncWrite>(
    mut writer: WriteHalf<S>,
    mut asked: mpsc::Receiver<Question>,
    sent: mpsc::Sender<oneshot::Sender<Result<Vec<u8>, SyncError>>>,
) {
    while let Some(Question { request, answer }) = asked.recv().await {
        if sent.send(answer).await.is_err()
            || write_frame(&mut writer, &request, FRAME_DEADLINE).await.is_err()
        {
            return;
        }
    }
    _ = writer.close().await;
}

async fn receive_answers<S: AsyncRead>(
    mut reader: ReadHalf<S>,
    mut waiting: mpsc::Receiver<oneshot::Sender<Result<Vec<u8>, SyncError>>>,
) {
    while let Some(answer) = waiting.recv().await {
        let frame = read_sync_frame(&mut reader, ANSWER_DEADLINE).await;
        let over = frame.is_err();
        _ = answer.send(frame);
        if over {
            return;
        }
    }
}

/// Serves inbound streams until `asked` has no receiver. Does nothing itself but start tasks: while it is busy the
/// library drops streams.
pub(crate) async fn serve(mut incoming: IncomingStreams, asked: mpsc::Sender<InboundRequest>) {
    let mut admission = StreamAdmission::<Arc<Semaphore>>::new(WAITING_MAX, WAITING_PER_PEER_MAX);
    let served = Arc::new(Semaphore::new(SERVED_MAX));
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            _ = asked.closed() => return,
            Some((peer, stream)) = incoming.next() => {
                let Some(peer) = peer_key(&peer) else { continue };
                if let Some(own) = admission.admit(peer, || Arc::new(Semaphore::new(SERVED_PER_PEER_MAX))) {
                    sessions.spawn(session(peer, stream, [own.clone(), served.clone()], asked.clone()));
                }
            }
            Some(ended) = sessions.join_next(), if !sessions.is_empty() => {
                if let Ok(peer) = ended {
                    admission.release(peer);
                }
            }
        }
    }
}

/// Waits for a turn, then answers questions until the peer is done or something is wrong.
async fn session<S: AsyncRead + AsyncWrite + Unpin>(
    peer: PeerKey,
    mut stream: S,
    turns: [Arc<Semaphore>; 2],
    asked: mpsc::Sender<InboundRequest>,
) -> PeerKey {
    if let Ok(Some(_turn)) = timeout(OPEN_DEADLINE, take_turns(turns)).await
        && let Err(error) = answer_questions(peer, &mut stream, &asked).await
    {
        tracing::debug!(%peer, %error, "inbound sync stream ended");
    }
    peer
}

async fn take_turns(turns: [Arc<Semaphore>; 2]) -> Option<[OwnedSemaphorePermit; 2]> {
    let [own, all] = turns;
    Some([own.acquire_owned().await.ok()?, all.acquire_owned().await.ok()?])
}

async fn answer_questions<S: AsyncRead + AsyncWrite + Unpin>(
    peer: PeerKey,
    stream: &mut S,
    asked: &mpsc::Sender<InboundRequest>,
) -> Result<(), SyncError> {
    stream.write_all(&[GREETING]).await?;
    stream.flush().await?;
    loop {
        let request = read_sync_frame(stream, SILENCE_MAX).await?;
        let (reply, answered) = oneshot::channel();
        let unanswered = || SyncError::Closed("this node did not answer".into());
        asked.send(InboundRequest { peer, request, reply }).await.map_err(|_| unanswered())?;
        let answer = timeout(ANSWER_DEADLINE, answered).await.map_err(|_| SyncError::TooSlow("answer"))?;
        let answer = answer.map_err(|_| unanswered())?;
        if answer.len() > SYNC_FRAME_BYTES_MAX {
            return Err(SyncError::TooLarge(answer.len()));
        }
        write_frame(stream, &answer, FRAME_DEADLINE).await?;
    }
}

async fn read_sync_frame<R: AsyncRead + Unpin>(
    reader: &mut R,
    patience: Duration,
) -> Result<Vec<u8>, SyncError> {
    Ok(read_frame(reader, SYNC_FRAME_BYTES_MAX, patience, FRAME_DEADLINE).await?)
}

impl From<FrameError> for SyncError {
    fn from(error: FrameError) -> SyncError {
        match error {
            FrameError::TooLarge(bytes) => SyncError::TooLarge(bytes),
            FrameError::TooSlow(what) => SyncError::TooSlow(what),
            FrameError::Closed(why) => SyncError::Closed(why),
            FrameError::Malformed => SyncError::Closed(error.to_string()),
        }
    }
}

impl From<io::Error> for SyncError {
    fn from(error: io::Error) -> SyncError {
        SyncError::Closed(error.to_string())
    }
}
