//! The caller's side of a call stream.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::io::{ReadHalf, WriteHalf};
use futures::{AsyncRead, AsyncReadExt};
use libp2p::{PeerId, Stream, StreamProtocol};
use libp2p_stream::{Control, OpenStreamError};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout, timeout_at};

use super::open::OpenCalls;
use super::{FRAME_DEADLINE, read_json};
use crate::net::addresses::peer_id;
use crate::net::streams::frames::{FrameError, read_frame, write_frame};
use crate::net::streams::{OPEN_ATTEMPTS_MAX, OPEN_DEADLINE, REOPEN_MS};
use crate::proto::call::{
    Call, CallFailure, CallId, CallReply, CallRequest, Progress, Step, accept_patience,
};
use crate::proto::code::Code;
use crate::proto::config::{CALL_FRAME_BYTES_MAX, CALL_OFFERS_MAX, CALL_TIME_MAX, CALLS_PER_HOST_MAX};
use crate::proto::identity::{AgentId, PeerKey};
use crate::proto::name::FullName;

/// Longest wait for one opening of a stream. The library may lose a wish to dial when two come at once, so another try
/// comes well before [`OPEN_DEADLINE`].
const OPEN_PATIENCE: Duration = Duration::from_secs(5);
/// Hosts whose places are kept though nobody uses them.
const HOSTS_KEPT: usize = 256;

/// Calls agents of other hosts. Cheap to clone, usable from any task.
#[derive(Clone)]
pub(crate) struct CallClient {
    control: Control,
    protocol: StreamProtocol,
    pub(crate) open_calls: OpenCalls,
    places: Arc<Mutex<BTreeMap<PeerKey, Arc<Semaphore>>>>,
}

/// What is to be called, where, and with what.
pub(crate) struct Wanted {
    pub(crate) call: CallId,
    pub(crate) host: PeerKey,
    pub(crate) agent: AgentId,
    pub(crate) name: FullName,
    /// JSON.
    pub(crate) input: Vec<u8>,
    pub(crate) deadline: Instant,
    pub(crate) progress: Option<mpsc::Sender<Progress>>,
}

/// A stream on which the host has answered the offer.
struct Answered {
    reader: ReadHalf<Stream>,
    writer: WriteHalf<Stream>,
    reply: CallReply,
}

impl CallClient {
    pub(crate) fn new(control: Control, protocol: StreamProtocol, open_calls: OpenCalls) -> CallClient {
        CallClient { control, protocol, open_calls, places: Arc::default() }
    }

    /// Runs one call to its end, at the latest at its deadline. Dropping the future ends the work at the host. A host
    /// that cannot be dialed is looked for once with `search`.
    pub(crate) async fn call(
        &self,
        wanted: &Wanted,
        search: impl Future<Output = ()>,
    ) -> Result<Value, CallFailure> {
        let mut call = Call::new(wanted.call);
        let ended = timeout_at(wanted.deadline, self.run(&mut call, wanted, search)).await;
        ended
            .unwrap_or_else(|_| Err(call.lose(Code::Deadline, "the host did not answer before the deadline")))
    }

    async fn run(
        &self,
        call: &mut Call,
        wanted: &Wanted,
        search: impl Future<Output = ()>,
    ) -> Result<Value, CallFailure> {
        let peer = peer_id(&wanted.host);
        let peer = peer.ok_or_else(|| call.lose(Code::Unreachable, "the host's key names no peer"))?;
        let _place = self.place(wanted.host).await;
        let _open = self.open_calls.open(wanted.host);
        let Answered { mut reader, mut writer, mut reply } = self.offer(call, wanted, peer, search).await?;
        loop {
            match call.handle(reply) {
                Step::SendInput => {
                    let sent = write_frame(&mut writer, &wanted.input, CALL_TIME_MAX).await;
                    sent.map_err(|error| broke(call, &error))?;
                }
                Step::Progress(report) => {
                    if let Some(progress) = &wanted.progress {
                        // Reports are only a hint.
                        let _full = progress.try_send(report);
                    }
                }
                Step::TakeOutput(size) => return take_output(call, &mut reader, size).await,
                Step::End(failure) => return Err(failure),
            }
            reply = read_reply(&mut reader).await.map_err(|error| broke(call, &error))?;
        }
    }

    /// Waits for one of the streams that may be open to a host.
    async fn place(&self, host: PeerKey) -> Option<OwnedSemaphorePermit> {
        let own = {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            if places.len() > HOSTS_KEPT {
                places.retain(|_, own| Arc::strong_count(own) > 1);
            }
            places.entry(host).or_insert_with(|| Arc::new(Semaphore::new(CALLS_PER_HOST_MAX))).clone()
        };
        own.acquire_owned().await.ok()
    }

    /// Opens a stream and offers the call on it, until the host answers. The accept queue of the library holds one
    /// stream and drops the rest without a word: a stream that closes before any answer was not seen by the host. An
    /// offer that was not accepted in time is made again, which voids it: a host that stood still does not run it later.
    async fn offer(
        &self,
        call: &mut Call,
        wanted: &Wanted,
        peer: PeerId,
        search: impl Future<Output = ()>,
    ) -> Result<Answered, CallFailure> {
        let give_up = Instant::now() + OPEN_DEADLINE;
        let mut why = String::from("the host took no stream in time");
        let (mut search, mut unanswered) = (Some(search), 0);
        for _ in 0..OPEN_ATTEMPTS_MAX {
            let started = Instant::now();
            let opening = self.open(peer, OPEN_PATIENCE.min(give_up - started)).await;
            let stream = match opening {
                Ok(Some(stream)) => stream,
                Ok(None) if Instant::now() < give_up => continue,
                Ok(None) => break,
                Err(error) => {
                    why = format!("the host cannot be reached: {error}");
                    match search.take() {
                        Some(search) => search.await,
                        None => break,
                    }
                    continue;
                }
            };
            let patience = accept_patience(started.elapsed(), unanswered);
            match self.offer_on(stream, call, wanted, patience).await {
                Err(FrameError::Closed(closed)) => why = format!("the host serves no call stream: {closed}"),
                Err(FrameError::TooSlow(_)) => {
                    why = "the host did not accept the call in time; it may be overloaded".into();
                    unanswered += 1;
                    if unanswered == CALL_OFFERS_MAX {
                        break;
                    }
                    continue;
                }
                answered => return answered.map_err(|error| broke(call, &error)),
            }
            tokio::time::sleep(Duration::from_millis(rand::random_range(REOPEN_MS))).await;
        }
        Err(call.lose(Code::Unreachable, why))
    }

    /// A stream; none if that takes too long.
    async fn open(&self, peer: PeerId, patience: Duration) -> Result<Option<Stream>, OpenStreamError> {
        timeout(patience, self.control.clone().open_stream(peer, self.protocol.clone()))
            .await
            .ok()
            .transpose()
    }

    async fn offer_on(
        &self,
        stream: Stream,
        call: &mut Call,
        wanted: &Wanted,
        patience: Duration,
    ) -> Result<Answered, FrameError> {
        let (mut reader, mut writer) = stream.split();
        let left = wanted.deadline.saturating_duration_since(Instant::now());
        let offer = call.offer(wanted.agent, wanted.name.clone(), wanted.input.len(), left);
        write_frame(&mut writer, &CallRequest::Offer(offer).encode(), FRAME_DEADLINE).await?;
        let reply = timeout(patience, read_reply(&mut reader)).await;
        let reply = reply.map_err(|_| FrameError::TooSlow("accept the call"))??;
        Ok(Answered { reader, writer, reply })
    }
}

/// A host may be silent for as long as the caller waits.
async fn read_reply<R: AsyncRead + Unpin>(reader: &mut R) -> Result<CallReply, FrameError> {
    let frame = read_frame(reader, CALL_FRAME_BYTES_MAX, CALL_TIME_MAX, FRAME_DEADLINE).await?;
    CallReply::decode(&frame).map_err(|_| FrameError::Malformed)
}

async fn take_output<R: AsyncRead + Unpin>(
    call: &mut Call,
    reader: &mut R,
    size: usize,
) -> Result<Value, CallFailure> {
    let output = read_frame(reader, size, CALL_TIME_MAX, CALL_TIME_MAX).await;
    let output = output.map_err(|error| broke(call, &error))?;
    read_json(output).await.ok_or_else(|| broke(call, &FrameError::Malformed))
}

fn broke(call: &mut Call, error: &FrameError) -> CallFailure {
    let code = match error {
        FrameError::Malformed | FrameError::TooLarge(_) => Code::Internal,
        FrameError::TooSlow(_) | FrameError::Closed(_) => Code::Unreachable,
    };
    call.lose(code, format!("the call broke off: {error}"))
}
