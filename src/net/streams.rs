//! Conversations over streams: one libp2p stream for each, requests and their responses as frames, in order (protocol
//! section 3). Each [`Protocol`] has streams under a name of its own, and limits of its own.
//!
//! The responder greets a stream it serves with one byte. A stream that closes before the greeting was never served:
//! the accept queue of the library holds one stream and drops the rest without a word, so the opener tries again.
//! Whatever is wrong closes the stream. This layer does not look into frames.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::StreamProtocol;
use libp2p_stream::{IncomingStreams, OpenStreamError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::admission::StreamAdmission;
use self::budget::RequestBudget;
use self::frames::{FrameError, read_frame, write_frame};
use self::sources::PeerSources;
use crate::net::addresses::peer_key;
use crate::net::refusals::{Reason, Refusals};
use crate::proto::address_block::{AddressBlock, Share};
use crate::proto::ask::Answer;
use crate::proto::identity::PeerKey;
use crate::proto::io::Protocol;
use crate::proto::limits::{ANSWER_BYTES_MAX, SYNC_FRAME_BYTES_MAX};
use crate::proto::message::SyncAnswer;

pub(crate) mod admission;
pub(crate) mod budget;
pub(crate) mod calls;
pub(crate) mod frames;
pub(crate) mod kept;
mod request;
pub(crate) mod sources;

pub use self::request::{RequestClient, RequestStream};

/// How often a stream is opened before its peer counts as busy. A loss in a burst is a few per cent each time.
pub const OPEN_ATTEMPTS_MAX: u32 = 5;
/// How long the opening of a stream may take: a dial, a handshake, the greeting, and the wait for a turn.
pub const OPEN_DEADLINE: Duration = Duration::from_secs(15);
/// How long one frame may take on the wire: 256 KiB in 20 s is 13 KiB/s.
pub const FRAME_DEADLINE: Duration = Duration::from_secs(20);
/// How long a response may take from the last byte of the request.
pub const RESPONSE_DEADLINE: Duration = Duration::from_secs(30);
/// How long a served conversation may be silent between two requests.
pub const SILENCE_MAX: Duration = Duration::from_secs(20);
/// And how long while others wait for a place: a few round trips, and the time to look at an answer.
pub const SILENCE_IN_CROWD_MAX: Duration = Duration::from_secs(2);

/// The first byte of a served stream.
const GREETING: u8 = 1;

/// What the conversations of one protocol may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Longest request and longest response, bytes.
    pub frame_bytes_max: usize,
    /// Requests of one conversation under way at once.
    pub pipeline_max: usize,
    /// Inbound conversations served at once, all peers together. Each holds at most two frames.
    pub served_max: usize,
    /// Inbound conversations of one peer served at once.
    pub served_per_peer_max: usize,
    /// Inbound conversations of the peers of one block of addresses served at once.
    pub served_per_block_max: usize,
    /// Inbound streams of all peers, served and waiting their turn.
    pub waiting_max: usize,
    /// Inbound streams of one peer, served and waiting. Waiting ones cost a task and a flow-control window.
    pub waiting_per_peer_max: usize,
    /// Inbound streams of one address, and of one block, served and waiting.
    pub waiting_share: Share,
}

/// Limits of sync. A pipeline of 8 keeps a link of 100 ms busy with responses of 128 KiB; 64 conversations hold 32 MiB; an
/// honest peer runs one or two at once.
pub const SYNC_LIMITS: StreamLimits = StreamLimits {
    frame_bytes_max: SYNC_FRAME_BYTES_MAX,
    pipeline_max: 8,
    served_max: 64,
    served_per_peer_max: 4,
    served_per_block_max: 16,
    waiting_max: 512,
    waiting_per_peer_max: 64,
    waiting_share: Share { per_address: 64, per_block: 128 },
};

/// Limits of questions between zones: one a stream. Of small answers many are under way at once, and the largest of them
/// hold as much as those of sync.
pub const ASK_LIMITS: StreamLimits = StreamLimits {
    frame_bytes_max: ANSWER_BYTES_MAX,
    pipeline_max: 1,
    served_max: 256,
    served_per_peer_max: 8,
    served_per_block_max: 64,
    waiting_max: 512,
    waiting_per_peer_max: 64,
    waiting_share: Share { per_address: 64, per_block: 128 },
};

/// The limits of a protocol.
pub const fn limits(protocol: Protocol) -> &'static StreamLimits {
    match protocol {
        Protocol::Sync => &SYNC_LIMITS,
        Protocol::Ask => &ASK_LIMITS,
    }
}

/// A request that arrived, and where its response goes. Dropping `reply` closes the stream.
#[derive(Debug)]
pub struct InboundRequest {
    /// Who asks.
    pub peer: PeerKey,
    /// What the stream speaks.
    pub protocol: Protocol,
    /// The request, within the limit of its protocol.
    pub bytes: Vec<u8>,
    /// Takes the response, within the same limit.
    pub reply: oneshot::Sender<Vec<u8>>,
}

/// Why a conversation could not be opened or went on no further. It is over; the peer may have acted on what it got, and
/// nothing here was changed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The peer could not be reached, or no address of it is known.
    #[error("cannot reach the peer: {0}")]
    Unreachable(String),
    /// The peer does not speak this protocol of this network.
    #[error("the peer does not speak {0}")]
    OtherProtocol(StreamProtocol),
    /// The peer served none of [`OPEN_ATTEMPTS_MAX`] streams.
    #[error("the peer is too busy to serve the stream")]
    Busy,
    /// A deadline passed.
    #[error("the peer did not {0} in time")]
    TooSlow(&'static str),
    /// A frame longer than the protocol allows, ours or the peer's.
    #[error("a frame of {0} bytes, more than its protocol allows")]
    TooLarge(usize),
    /// The stream ended before the response.
    #[error("the peer closed the stream: {0}")]
    Closed(String),
}

/// Serves inbound streams of a protocol until `requests` has no receiver. Does nothing itself but start tasks: while it is
/// busy the library drops streams.
pub(crate) async fn serve(
    protocol: Protocol,
    mut incoming: IncomingStreams,
    answers: Answers,
    sources: PeerSources,
    refusals: Refusals,
) {
    let limits = limits(protocol);
    let mut admission = StreamAdmission::<Arc<Semaphore>>::new(
        limits.waiting_max,
        limits.waiting_per_peer_max,
        limits.waiting_share,
    );
    // Places to wait are many and cheap, places to be served
    // are few: a burst waits instead of being refused.
    let places = Places { served: Arc::new(Semaphore::new(limits.served_max)), crowd: Crowd::default() };
    // Of blocks with open streams; those of trusted peers share none.
    let mut blocks: BTreeMap<AddressBlock, Arc<Semaphore>> = BTreeMap::new();
    let mut conversations = JoinSet::new();
    loop {
        tokio::select! {
            // New streams before ended ones: the accept queue holds one, and what comes behind it is lost.
            biased;
            () = answers.requests.closed() => return,
            Some((peer, stream)) = incoming.next() => {
                let Some(peer) = peer_key(&peer) else { continue };
                let turns_of_peer = || Arc::new(Semaphore::new(limits.served_per_peer_max));
                let source = sources.of(&peer);
                let own = match admission.admit(peer, source, turns_of_peer) {
                    Ok(own) => own.clone(),
                    Err(reason) => {
                        refusals.count(reason);
                        continue;
                    }
                };
                let turns_of_block = || Arc::new(Semaphore::new(limits.served_per_block_max));
                let block = source.map(|source| blocks.entry(source.block).or_insert_with(turns_of_block).clone());
                // Waiting for a turn is for the task: here it would hold up every other peer.
                let turns = Turns { own, block, places: places.clone() };
                let conversation =
                    Conversation { peer, protocol, answers: answers.clone(), refusals: refusals.clone() };
                conversations.spawn(conversation.run(stream, turns));
            }
            Some(ended) = conversations.join_next(), if !conversations.is_empty() => {
                if let Ok(peer) = ended {
                    admission.release(peer);
                }
                // A block without streams has its turns here and nowhere else.
                blocks.retain(|_, turns| Arc::strong_count(turns) > 1);
            }
        }
    }
}

/// The places of a protocol, and who waits for one.
#[derive(Clone)]
struct Places {
    served: Arc<Semaphore>,
    crowd: Crowd,
}

/// How many wait for a place.
#[derive(Clone, Default)]
struct Crowd(Arc<watch::Sender<usize>>);

/// One that waits, until it is dropped.
struct Waiting(Crowd);

impl Crowd {
    fn enter(&self) -> Waiting {
        self.0.send_modify(|waiting| *waiting += 1);
        Waiting(self.clone())
    }

    /// Resolves as soon as somebody waits.
    async fn gathered(&self) {
        // The sender is held here, so that the wait ends in no other way.
        let _ = self.0.subscribe().wait_for(|waiting| *waiting > 0).await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.0.send_modify(|waiting| *waiting -= 1);
    }
}

/// The turns that a conversation has to take before it is served.
struct Turns {
    own: Arc<Semaphore>,
    block: Option<Arc<Semaphore>>,
    places: Places,
}

impl Turns {
    async fn take(&self) -> Option<Vec<OwnedSemaphorePermit>> {
        // The peer's own turn first, its block's next: holding one of all while
        // waiting for either would let one party block the others.
        let mut taken = Vec::new();
        for turns in [Some(&self.own), self.block.as_ref()].into_iter().flatten() {
            taken.push(turns.clone().acquire_owned().await.ok()?);
        }
        // Who finds a place at once is no crowd, and hurries nobody.
        let place = match self.places.served.clone().try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                let _waiting = self.places.crowd.enter();
                self.places.served.clone().acquire_owned().await.ok()?
            }
        };
        taken.push(place);
        Some(taken)
    }
}

/// One inbound conversation.
struct Conversation {
    peer: PeerKey,
    protocol: Protocol,
    answers: Answers,
    refusals: Refusals,
}

impl Conversation {
    /// Waits for a turn, then answers requests until the peer is done or something is wrong.
    async fn run<S: AsyncRead + AsyncWrite + Unpin>(self, mut stream: S, turns: Turns) -> PeerKey {
        // The turn is held to the end of the conversation, the wait for it is bounded by the opener's patience.
        if let Ok(Some(_turns)) = timeout(OPEN_DEADLINE, turns.take()).await
            && let Err(error) = self.answer_requests(&mut stream, &turns.places.crowd).await
        {
            let Conversation { peer, protocol, .. } = &self;
            tracing::debug!(%peer, ?protocol, %error, "inbound stream ended");
        }
        self.peer
    }

    async fn answer_requests<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        crowd: &Crowd,
    ) -> Result<(), RequestError> {
        let Conversation { peer, protocol, .. } = *self;
        let frame_bytes_max = limits(protocol).frame_bytes_max;
        // Only now, with a turn in hand: the greeting promises that requests are read.
        stream.write_all(&[GREETING]).await?;
        stream.flush().await?;
        loop {
            let bytes = self.next_request(stream, crowd).await?;
            // Before anything is decoded, or takes the driver's time.
            let response = match self.answers.budget.turn(&peer).await {
                Some(wait) => busy(protocol, wait),
                None => self.answers.ask(peer, protocol, bytes).await?,
            };
            // The peer would close the stream at the length alone, so its bytes are not sent.
            if response.len() > frame_bytes_max {
                return Err(RequestError::TooLarge(response.len()));
            }
            self.answers.budget.charge(&peer, 1, response.len(), Duration::ZERO);
            write_frame(stream, &response, FRAME_DEADLINE).await?;
        }
    }

    /// The next request; while others wait for the place, who is silent loses it.
    async fn next_request<S: AsyncRead + Unpin>(
        &self,
        stream: &mut S,
        crowd: &Crowd,
    ) -> Result<Vec<u8>, RequestError> {
        let frame_bytes_max = limits(self.protocol).frame_bytes_max;
        let crowded = async {
            tokio::time::sleep(SILENCE_IN_CROWD_MAX).await;
            crowd.gathered().await;
        };
        tokio::select! {
            biased;
            frame = read_frame(stream, frame_bytes_max, SILENCE_MAX, FRAME_DEADLINE) => Ok(frame?),
            () = crowded => {
                self.refusals.count(Reason::StreamIdle);
                Err(RequestError::TooSlow("speak, and others wait"))
            }
        }
    }
}

/// Where answers come from, and what they may cost.
#[derive(Clone)]
pub(crate) struct Answers {
    pub(crate) requests: mpsc::Sender<InboundRequest>,
    pub(crate) budget: RequestBudget,
}

impl Answers {
    /// Has the driver answer a request.
    async fn ask(&self, peer: PeerKey, protocol: Protocol, bytes: Vec<u8>) -> Result<Vec<u8>, RequestError> {
        let (reply, replied) = oneshot::channel();
        let unanswered = || RequestError::Closed("this node did not answer".into());
        // A busy driver is felt here, and by flow control at the peer: nothing is read ahead.
        let request = InboundRequest { peer, protocol, bytes, reply };
        self.requests.send(request).await.map_err(|_| unanswered())?;
        let response =
            timeout(RESPONSE_DEADLINE, replied).await.map_err(|_| RequestError::TooSlow("answer"))?;
        response.map_err(|_| unanswered())
    }
}

/// The answer of a protocol to a peer that has to wait.
fn busy(protocol: Protocol, wait: Duration) -> Vec<u8> {
    match protocol {
        Protocol::Sync => SyncAnswer::Busy { wait_ms: wait.as_millis() as u64 }.encode(),
        Protocol::Ask => Answer::Busy { wait_ms: wait.as_millis() as u64 }.encode(),
    }
}

impl From<OpenStreamError> for RequestError {
    fn from(error: OpenStreamError) -> RequestError {
        match error {
            OpenStreamError::UnsupportedProtocol(protocol) => RequestError::OtherProtocol(protocol),
            other => RequestError::Unreachable(other.to_string()),
        }
    }
}

impl From<FrameError> for RequestError {
    fn from(error: FrameError) -> RequestError {
        match error {
            FrameError::TooLarge(bytes) => RequestError::TooLarge(bytes),
            FrameError::TooSlow(what) => RequestError::TooSlow(what),
            FrameError::Closed(why) => RequestError::Closed(why),
            FrameError::Malformed => RequestError::Closed(error.to_string()),
        }
    }
}

impl From<io::Error> for RequestError {
    fn from(error: io::Error) -> RequestError {
        RequestError::Closed(error.to_string())
    }
}
