//! The host's side: performs what the machine wants done for the calls that other nodes offer.

use std::collections::BTreeMap;
use std::future::pending;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, try_join};
use futures::io::{ReadHalf, WriteHalf};
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, StreamExt};
use libp2p::Stream;
use libp2p_stream::IncomingStreams;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::access::AccessControl;
use super::driver::CallDriver;
use super::{FRAME_DEADLINE, read_json};
use crate::agents::{Agents, Invocation, Place};
use crate::net::addresses::peer_key;
use crate::net::client::NodeClient;
use crate::net::refusals::Refusals;
use crate::net::streams::admission::StreamAdmission;
use crate::net::streams::calls::{OpenCall, OpenCalls};
use crate::net::streams::frames::{FrameError, read_frame, write_frame};
use crate::net::streams::sources::PeerSources;
use crate::proto::address_block::Share;
use crate::proto::call::{
    CallFailure, CallOffer, CallReply, CallRequest, InboundStream, Input, Outcome, Output, Report, Word,
};
use crate::proto::code::Code;
use crate::proto::identity::PeerKey;
use crate::proto::limits::{CALL_FRAME_BYTES_MAX, CALLS_AT_WORK_MAX, CALLS_PER_PEER_MAX, CALLS_SHARE};

/// How long an offer may take to come after its stream was opened.
const OFFER_PATIENCE: Duration = Duration::from_secs(5);
/// Streams beyond the calls at work: offers that are being judged, and streams that are closing.
const STREAMS_BESIDE: usize = 32;
/// How long the rest of an input that was refused is read: an honest caller sends all the time.
const DROPPED_INPUT_TIME: Duration = Duration::from_secs(3);
/// Largest part of an input that is read at once.
const INPUT_PART_BYTES: usize = 64 * 1024;
/// Streams of one address, and of one block: what the machine lets in, and some that are being judged.
const SHARE: Share = Share {
    per_address: CALLS_SHARE.per_address + STREAMS_BESIDE,
    per_block: CALLS_SHARE.per_block + STREAMS_BESIDE,
};
/// Reports of progress that wait to be sent; more are lost.
const REPORTS_MAX: usize = 8;

/// Takes calls for the agents of this host.
pub(super) struct Host {
    pub(super) driver: CallDriver,
    pub(super) agents: Agents,
    pub(super) access: AccessControl,
    pub(super) open_calls: OpenCalls,
    pub(super) sources: PeerSources,
    pub(super) refusals: Refusals,
}

type Reader = ReadHalf<Stream>;
type Writer = WriteHalf<Stream>;

/// What a call waited for.
enum Done {
    /// A place of the agent, or the word that there is none.
    Placed(Reader, Result<Place, CallFailure>),
    /// A part of the input, and how much of it is still to come.
    Arrived(Reader, Vec<u8>, usize),
    /// The end of the work.
    Worked(Writer, Result<Vec<u8>, CallFailure>),
}

/// One call that is being taken.
struct Performance<'a> {
    host: &'a Host,
    peer: PeerKey,
    offer: CallOffer,
    /// The halves of the stream, while nothing is waited for on them.
    reader: Option<Reader>,
    writer: Option<Writer>,
    /// Of the agent, from the moment it was given until the work begins.
    place: Option<Place>,
    waiting: BoxFuture<'a, Result<Done, FrameError>>,
    /// What is here of the input, and after the work the output.
    document: Vec<u8>,
    /// Bytes of the input that are still to come.
    input_left: usize,
    deadline: Instant,
    /// While the agent works: tells who holds the stream to say that the call is still here.
    alive: Option<mpsc::Sender<()>>,
    under_way: Option<OpenCall>,
}

/// Serves inbound call streams until the node stops. Does nothing itself but start tasks: while it is busy the library
/// drops streams.
pub(super) async fn serve(mut incoming: IncomingStreams, host: Arc<Host>, node: NodeClient) {
    let per_peer = CALLS_PER_PEER_MAX + STREAMS_BESIDE;
    let mut admission = StreamAdmission::<()>::new(CALLS_AT_WORK_MAX + STREAMS_BESIDE, per_peer, SHARE);
    let mut calls = JoinSet::new();
    // A task that panics cannot say whose it was, and its place must be freed all the same.
    let mut peers = BTreeMap::new();
    loop {
        tokio::select! {
            // New streams before ended ones: the library holds one that waits and drops the rest.
            biased;
            () = node.stopped() => return,
            Some((peer, stream)) = incoming.next() => {
                let Some(peer) = peer_key(&peer) else { continue };
                let admitted = admission.admit(peer, host.sources.of(&peer), || ());
                if let Err(reason) = admitted {
                    host.refusals.count(reason);
                } else {
                    peers.insert(calls.spawn(take(host.clone(), peer, stream)).id(), peer);
                }
            }
            Some(ended) = calls.join_next_with_id(), if !calls.is_empty() => {
                let id = ended.map_or_else(|broken| broken.id(), |(id, ())| id);
                peers.remove(&id).into_iter().for_each(|peer| admission.release(peer));
            }
        }
    }
}

/// Takes one call. Whatever goes wrong with the stream ends it, and the work with it.
async fn take(host: Arc<Host>, peer: PeerKey, stream: Stream) {
    if let Err(error) = host.take(peer, stream).await {
        tracing::debug!(%peer, %error, "call stream broke");
    }
}

impl Host {
    async fn take(&self, peer: PeerKey, stream: Stream) -> Result<(), FrameError> {
        let (mut reader, writer) = stream.split();
        let offer = read_offer(&mut reader).await?;
        // Judged before the machine is told: this may wait for the node, and the machine never waits.
        let access = self.access.of(peer, &offer).await;
        // Dropped last, when nothing of the call is left here.
        let mut task = self.driver.inbound();
        let stream = task.stream;
        let mut performance = Performance {
            host: self,
            peer,
            offer: offer.clone(),
            reader: Some(reader),
            writer: Some(writer),
            place: None,
            waiting: pending().boxed(),
            document: Vec::new(),
            input_left: 0,
            deadline: Instant::now(),
            alive: None,
            under_way: None,
        };
        let source = self.sources.of(&peer);
        self.driver.handle(Input::Offered { stream, peer, source, offer, access });
        loop {
            tokio::select! {
                biased;
                Some(output) = task.outputs.recv() => {
                    if performance.perform(output).await?.is_break() {
                        return Ok(());
                    }
                }
                done = &mut performance.waiting => {
                    let done = done?;
                    self.driver.handle(performance.note(stream, done));
                }
            }
        }
    }
}

impl Performance<'_> {
    /// Does or starts what the machine wants; breaks once nothing more is wanted.
    async fn perform(&mut self, output: Output) -> Result<ControlFlow<()>, FrameError> {
        match output {
            Output::WantPlace { stream, .. } => {
                // Before the caller is told, so that its connection is not closed as excess in between.
                self.under_way = Some(self.host.open_calls.open(self.peer));
                self.want_place(stream);
            }
            Output::SayQueued { ahead, .. } => {
                let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
                self.say(&CallReply::Queued { ahead, word: Word::default() }).await?;
            }
            Output::Accept { incarnation, size, .. } => {
                self.say(&CallReply::Accepted { incarnation, word: Word::default() }).await?;
                self.input_left = size;
                if let Some(reader) = self.reader.take() {
                    self.waiting = begin_input(reader, size).boxed();
                }
            }
            Output::Run { deadline, .. } => {
                self.deadline = self.host.driver.instant(deadline);
                if let (Some(reader), Some(writer), Some(place)) =
                    (self.reader.take(), self.writer.take(), self.place.take())
                {
                    let input = std::mem::take(&mut self.document);
                    let (alive, words) = mpsc::channel(1);
                    self.alive = Some(alive);
                    let (reports, told) = mpsc::channel(REPORTS_MAX);
                    let invocation = Invocation {
                        input: Value::Null,
                        deadline: self.deadline,
                        reports: Some(reports),
                        call: self.offer.call,
                        caller: Some(self.peer),
                        context: self.offer.context.clone(),
                        stream: self.offer.stream,
                    };
                    let work = work(&self.host.agents, place, input, invocation);
                    self.waiting = run(work, told, words, reader, writer).boxed();
                }
            }
            Output::SayAlive(_) => match &self.alive {
                // One that waits to leave says as much as two.
                Some(alive) => drop(alive.try_send(())),
                None => self.say(&CallReply::Alive).await?,
            },
            Output::Answer { size, .. } => {
                self.say(&CallReply::Answered { size: size as u64 }).await?;
                // Work that ends in its last moment still has the time of a frame to be read.
                let deadline = self.deadline.saturating_duration_since(Instant::now()).max(FRAME_DEADLINE);
                if let Some(writer) = &mut self.writer {
                    write_frame(writer, &self.document, deadline).await?;
                }
                return self.close().await;
            }
            Output::Refuse { failure, .. } => {
                self.place = None;
                self.say(&CallReply::Failed(failure)).await?;
                let closed = self.close().await;
                self.drop_input().await;
                return closed;
            }
            // Who returns drops the halves, which is a close without a word.
            Output::Drop(_) => return Ok(ControlFlow::Break(())),
            Output::Open { .. }
            | Output::Offer { .. }
            | Output::SendInput(_)
            | Output::Listen(_)
            | Output::TakeOutput { .. }
            | Output::Close(_)
            | Output::Search { .. }
            | Output::LookFor { .. }
            | Output::Report { .. }
            | Output::Ended { .. } => {}
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Asks for a place of the agent, and waits for it where all are taken.
    fn want_place(&mut self, stream: InboundStream) {
        let place = self.host.agents.place(&self.offer.name, self.peer, self.offer.context.priority);
        let place = place.map(|mut place| (place.is_given(), place));
        let input = match place {
            Err(failure) => Input::NotPlaced { stream, failure },
            Ok((true, place)) => {
                self.place = Some(place);
                Input::Placed { stream }
            }
            Ok((false, place)) => {
                let ahead = place.ahead();
                if let Some(reader) = self.reader.take() {
                    self.waiting = wait_for(place, reader).boxed();
                }
                Input::Waits { stream, ahead }
            }
        };
        self.host.driver.handle(input);
    }

    /// What the machine is to be told of what has come.
    fn note(&mut self, stream: InboundStream, done: Done) -> Input {
        self.waiting = pending().boxed();
        match done {
            Done::Placed(reader, Ok(place)) => {
                (self.reader, self.place) = (Some(reader), Some(place));
                Input::Placed { stream }
            }
            Done::Placed(reader, Err(failure)) => {
                self.reader = Some(reader);
                Input::NotPlaced { stream, failure }
            }
            Done::Arrived(reader, part, left) => {
                self.document.extend_from_slice(&part);
                self.input_left = left;
                // With the last part the machine says what comes next; until then more is read.
                if left == 0 {
                    self.reader = Some(reader);
                } else {
                    self.waiting = take_part(reader, left).boxed();
                }
                Input::InputArrived { stream, size: self.document.len() }
            }
            Done::Worked(writer, ended) => {
                (self.writer, self.alive) = (Some(writer), None);
                let ended = ended.map(|output| {
                    self.document = output;
                    self.document.len()
                });
                Input::WorkEnded { stream, ended }
            }
        }
    }

    async fn say(&mut self, reply: &CallReply) -> Result<(), FrameError> {
        tracing::debug!(peer = %self.peer, call = %self.offer.call, ?reply, "call");
        match &mut self.writer {
            Some(writer) => say(writer, reply).await,
            None => Ok(()),
        }
    }

    /// Reads the rest of an input that is not wanted, so that its caller, who still sends, comes to read why.
    async fn drop_input(&mut self) {
        self.document = Vec::new();
        let waiting = std::mem::replace(&mut self.waiting, pending().boxed());
        if self.input_left == 0 {
            return;
        }
        let rest = async move {
            let mut arrived = waiting.await;
            while let Ok(Done::Arrived(reader, _, left)) = arrived
                && left > 0
            {
                arrived = take_part(reader, left).await;
            }
        };
        let _late = timeout(DROPPED_INPUT_TIME, rest).await;
    }

    async fn close(&mut self) -> Result<ControlFlow<()>, FrameError> {
        if let Some(writer) = &mut self.writer {
            writer.close().await?;
        }
        Ok(ControlFlow::Break(()))
    }
}

async fn read_offer(reader: &mut Reader) -> Result<CallOffer, FrameError> {
    let frame = read_frame(reader, CALL_FRAME_BYTES_MAX, OFFER_PATIENCE, OFFER_PATIENCE).await?;
    match CallRequest::decode(&frame) {
        Ok(CallRequest::Offer(offer)) => Ok(offer),
        _ => Err(FrameError::Malformed),
    }
}

/// Waits for a place until the caller is gone.
async fn wait_for(mut place: Place, mut reader: Reader) -> Result<Done, FrameError> {
    let mut early = [0];
    let given = tokio::select! {
        given = place.given() => given,
        // A caller says nothing before its input is drawn.
        _ = reader.read(&mut early) => {
            return Err(FrameError::Closed("the caller gave the call up".into()));
        }
    };
    Ok(Done::Placed(reader, given.map(|()| place)))
}

/// How long the input may take is for the machine to say, here and in the next.
async fn begin_input(mut reader: Reader, size: usize) -> Result<Done, FrameError> {
    let mut length = [0; 4];
    reader.read_exact(&mut length).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length != size {
        return Err(FrameError::TooLarge(length));
    }
    take_part(reader, length).await
}

/// The next part of an input of which `left` bytes are to come. Memory is taken for what arrives and not for what is announced.
async fn take_part(mut reader: Reader, left: usize) -> Result<Done, FrameError> {
    let mut part = vec![0; left.min(INPUT_PART_BYTES)];
    let read = reader.read(&mut part).await?;
    if read == 0 && left > 0 {
        return Err(FrameError::Closed("it ended within the input".into()));
    }
    part.truncate(read);
    Ok(Done::Arrived(reader, part, left - read))
}

/// Runs the agent on the input that has come.
async fn work(
    agents: &Agents,
    place: Place,
    input: Vec<u8>,
    invocation: Invocation,
) -> Result<Vec<u8>, CallFailure> {
    let Some(input) = read_json(input).await else {
        // The machine counts the call as begun, yet the agent never saw anything of it.
        return Err(CallFailure::new(Code::BadInput, Outcome::NotStarted, "the input is not JSON"));
    };
    as_bytes(&agents.call_placed(place, Invocation { input, ..invocation }).await?)
}

/// Waits until the work ends or the caller is gone.
async fn run(
    work: impl Future<Output = Result<Vec<u8>, CallFailure>>,
    reports: mpsc::Receiver<Report>,
    alive: mpsc::Receiver<()>,
    mut reader: Reader,
    mut writer: Writer,
) -> Result<Done, FrameError> {
    // The end of the reports does not tell the end of the work: an agent may keep its sender.
    let (working, worked) = oneshot::channel::<()>();
    let work = async {
        let answer = work.await;
        drop(working);
        Ok(answer)
    };
    let mut surplus = [0];
    let answer = tokio::select! {
        ended = try_join(work, pass_reports(reports, alive, worked, &mut writer)) => ended?.0,
        // A caller says nothing after its input.
        _ = reader.read(&mut surplus) => {
            return Err(FrameError::Closed("the caller gave the call up".into()));
        }
    };
    Ok(Done::Worked(writer, answer))
}

/// Sends reports, and that the call is still here, until the work has ended.
async fn pass_reports(
    mut reports: mpsc::Receiver<Report>,
    mut alive: mpsc::Receiver<()>,
    mut worked: oneshot::Receiver<()>,
    writer: &mut Writer,
) -> Result<(), FrameError> {
    loop {
        let report = tokio::select! {
            // Reports before the end: those made while it worked leave before the answer.
            biased;
            Some(report) = reports.recv() => report,
            Some(()) = alive.recv() => {
                say(writer, &CallReply::Alive).await?;
                continue;
            }
            _ = &mut worked => return Ok(()),
        };
        match report {
            // A report without numbers would break the protocol, and the caller would end the call for it.
            Report::Progress(progress) => {
                if let Some(progress) = progress.bounded() {
                    say(writer, &CallReply::Progress(progress)).await?;
                }
            }
            Report::Partial(text) => {
                for piece in CallReply::partials(&text) {
                    say(writer, &piece).await?;
                }
            }
            // The machine says these itself.
            Report::Queued { .. } | Report::Working { .. } => {}
        }
    }
}

fn as_bytes(output: &Value) -> Result<Vec<u8>, CallFailure> {
    serde_json::to_vec(output).map_err(|error| {
        let message = format!("the output cannot be written as JSON: {error}");
        CallFailure::new(Code::BadOutput, Outcome::Done, message)
    })
}

async fn say(writer: &mut Writer, reply: &CallReply) -> Result<(), FrameError> {
    write_frame(writer, &reply.encode(), FRAME_DEADLINE).await
}
