//! The host's side: performs what the machine wants done for the calls that other nodes offer.

use std::future::pending;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::io::{ReadHalf, WriteHalf};
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tracing::{Instrument, Span};

use super::FRAME_DEADLINE;
use super::access::AccessControl;
use super::driver::CallDriver;
use super::works::{Told, Works, run};
use crate::agents::{Agents, Invocation, Place};
use crate::net::refusals::Refusals;
use crate::net::streams::calls::{CallStream, OpenCall, OpenCalls};
use crate::net::streams::frames::{FrameError, read_frame, write_frame};
use crate::net::streams::kept::Halves;
use crate::net::streams::sources::PeerSources;
use crate::net::wall_clock;
use crate::proto::call::{
    CallFailure, CallId, CallOffer, CallReply, CallRequest, InboundStream, Input, Outcome, Output, Report,
    Word,
};
use crate::proto::code::Code;
use crate::proto::identity::PeerKey;
use crate::proto::limits::{CALL_FRAME_BYTES_MAX, CALL_INPUT_BYTES_PER_SECOND, TASK_TIME_MAX};
use crate::telemetry::metrics::{Metrics, Side, WaitingCall};
use crate::telemetry::recent_calls::CallSubject;
use crate::telemetry::{context, names};

/// How long the rest of an input that was refused is read: an honest caller sends all the time.
const DROPPED_INPUT_TIME: Duration = Duration::from_secs(3);
/// Largest part of an input that is read at once.
const INPUT_PART_BYTES: usize = 64 * 1024;
/// Reports of progress that wait to be sent; more are lost.
const REPORTS_MAX: usize = 8;

/// Takes calls for the agents of this host.
pub(super) struct Host {
    pub(super) own: PeerKey,
    pub(super) driver: CallDriver,
    pub(super) works: Works,
    pub(super) agents: Agents,
    pub(super) access: AccessControl,
    pub(super) open_calls: OpenCalls,
    pub(super) sources: PeerSources,
    pub(super) refusals: Refusals,
    pub(super) metrics: Arc<Metrics>,
}

type Reader = ReadHalf<CallStream>;
type Writer = WriteHalf<CallStream>;

/// What a call waited for.
enum Done {
    /// A place of the agent, or the word that there is none.
    Placed(Reader, Result<Place, CallFailure>),
    /// A part of the input: so many bytes of the buffer.
    Arrived(Reader, Vec<u8>, usize),
    /// Something that the caller said after its input.
    Said(Reader, CallRequest),
}

/// One stream on which a call is taken, or asked for again.
struct Performance<'a> {
    host: &'a Host,
    peer: PeerKey,
    call: CallId,
    /// None where it is asked for again.
    offer: Option<CallOffer>,
    /// The halves of the stream; the reader while nothing is waited for on it.
    reader: Option<Reader>,
    writer: Writer,
    /// Of the agent, from the moment it was given until the work begins.
    place: Option<Place>,
    waiting: BoxFuture<'a, Result<Done, FrameError>>,
    /// What is here of the input.
    input: Vec<u8>,
    /// Bytes of it that are still to come.
    input_left: usize,
    /// The work whose reports go to the caller here.
    work: Option<InboundStream>,
    told: Option<Told>,
    /// Until when the word is waited for that the answer is taken.
    until: Option<Instant>,
    under_way: Option<OpenCall>,
    /// That of the offer; none where a call is asked for again.
    span: Span,
}

impl Host {
    /// Takes one call; the stream where it may carry another. Whatever goes wrong with the stream ends it, and the work with it
    /// if it has no other.
    pub(super) async fn take(
        &self,
        peer: PeerKey,
        (reader, writer): Halves,
        request: &[u8],
    ) -> Result<Option<Halves>, FrameError> {
        let request = CallRequest::decode(request).map_err(|_| FrameError::Malformed)?;
        let span = match &request {
            CallRequest::Offer(offer) => span_of(&peer, offer),
            _ => Span::none(),
        };
        // Judged before the machine is told: this may wait for the node, and the machine never waits.
        let access = match &request {
            CallRequest::Offer(offer) => Some(self.access.of(peer, offer).await),
            _ => None,
        };
        // Dropped last, when nothing of the call is left here.
        let mut task = self.driver.inbound();
        let stream = task.stream;
        let (call, offer, happened) = match (request, access) {
            (CallRequest::Offer(offer), Some(access)) => {
                let offer = *offer;
                let source = self.sources.of(&peer);
                let happened = Input::Offered { stream, peer, source, offer: offer.clone(), access };
                (offer.call, Some(offer), happened)
            }
            (CallRequest::Attach(attach), _) => (attach.call, None, Input::Attached { stream, peer, attach }),
            _ => return Err(FrameError::Malformed),
        };
        let mut performance = Performance {
            host: self,
            peer,
            call,
            offer,
            reader: Some(reader),
            writer,
            place: None,
            waiting: pending().boxed(),
            input: Vec::new(),
            input_left: 0,
            work: None,
            told: None,
            until: None,
            under_way: None,
            span,
        };
        self.driver.handle(happened);
        loop {
            tokio::select! {
                biased;
                Some(output) = task.outputs.recv() => {
                    if performance.perform(stream, output).await?.is_break() {
                        return Ok(None);
                    }
                }
                done = &mut performance.waiting => match performance.note(stream, done?) {
                    Some(happened) => self.driver.handle(happened),
                    None => return Err(FrameError::Malformed),
                },
                // Nothing follows the answer, for that is where the next call begins.
                report = next_report(&mut performance.told), if performance.until.is_none() => performance.pass_on(report).await?,
                // The caller has said nothing more, and may ask again.
                () = at(performance.until) => return Ok(performance.at_rest()),
            }
        }
    }
}

/// The work at this offer, as part of what its caller says.
fn span_of(peer: &PeerKey, offer: &CallOffer) -> Span {
    let span = names::offered(peer, offer.call);
    context::adopt(&span, offer.context.trace.as_ref());
    span
}

async fn next_report(told: &mut Option<Told>) -> Report {
    match told {
        Some(told) => told.next().await,
        None => pending().await,
    }
}

async fn at(until: Option<Instant>) {
    match until {
        // The timer would add a millisecond, and the next offer may be here.
        Some(until) if until <= Instant::now() => {}
        Some(until) => tokio::time::sleep_until(until).await,
        None => pending().await,
    }
}

impl Performance<'_> {
    /// Does or starts what the machine wants; breaks once nothing more is wanted.
    async fn perform(
        &mut self,
        stream: InboundStream,
        output: Output,
    ) -> Result<ControlFlow<()>, FrameError> {
        match output {
            Output::WantPlace { stream, .. } => {
                // Before the caller is told, so that its connection is not closed as excess in between.
                self.under_way = Some(self.host.open_calls.open(self.peer));
                self.want_place(stream);
            }
            Output::SayQueued { ahead, .. } => {
                let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
                self.say(&CallReply::Queued { ahead, word: self.word(false) }).await?;
            }
            Output::Accept { incarnation, size, .. } => {
                let keeps = self.keeps();
                self.say(&CallReply::Accepted { incarnation, word: self.word(true), keeps }).await?;
                self.input_left = size;
                if let Some(reader) = self.reader.take() {
                    self.waiting = begin_input(reader, size).boxed();
                }
            }
            Output::Run { stream, deadline } => self.begin(stream, self.host.driver.instant(deadline)),
            Output::Resume { work, .. } => {
                self.under_way = Some(self.host.open_calls.open(self.peer));
                self.work = Some(work);
                self.listen();
                self.say(&CallReply::Alive).await?;
            }
            Output::SayAlive(_) => self.say(&CallReply::Alive).await?,
            Output::Answer { work, size, .. } => {
                self.pass_on_rest().await?;
                let output = self.host.works.output(work);
                self.say(&CallReply::Answered { size: size as u64 }).await?;
                let transfer = Duration::from_secs((size / CALL_INPUT_BYTES_PER_SECOND) as u64);
                write_frame(&mut self.writer, &output, FRAME_DEADLINE + transfer).await?;
                self.expect_taken();
            }
            Output::Refuse { failure, .. } => {
                self.place = None;
                if self.work.is_none() {
                    self.host.metrics.calls.refused(Side::Host, &failure);
                    names::ended(&self.span, Some(&failure));
                }
                self.pass_on_rest().await?;
                self.say(&CallReply::Failed(failure)).await?;
                if self.work.is_some() {
                    self.expect_taken();
                    return Ok(ControlFlow::Continue(()));
                }
                self.writer.close().await?;
                self.drop_input().await;
                return Ok(ControlFlow::Break(()));
            }
            // Who returns drops the halves, which is a close without a word.
            Output::Drop(dropped) if dropped == stream => return Ok(ControlFlow::Break(())),
            // The rest is said to callers, or of works.
            _ => {}
        }
        // Another stream of the same call may have passed on until now what the work tells.
        if let (Some(work), None) = (self.work, &self.told) {
            self.told = self.host.works.told(work);
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Asks for a place of the agent, and waits for it where all are taken.
    fn want_place(&mut self, stream: InboundStream) {
        let Some(offer) = &self.offer else { return };
        let place = self.host.agents.place(&offer.name, self.caller(), offer.context.priority);
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
                    self.waiting = wait_for(place, reader, self.host.metrics.calls.wait()).boxed();
                }
                Input::Waits { stream, ahead }
            }
        };
        self.host.driver.handle(input);
    }

    /// Starts the work, in a task of its own: it may outlast this stream.
    fn begin(&mut self, work: InboundStream, deadline: Instant) {
        let (Some(place), Some(mut offer)) = (self.place.take(), self.offer.take()) else { return };
        context::pass_on(&self.span, &mut offer.context.trace);
        let (reports, told) = mpsc::channel(REPORTS_MAX);
        let invocation = Invocation {
            input: Value::Null,
            deadline,
            reports: Some(reports),
            call: offer.call,
            caller: self.caller(),
            context: offer.context,
            stream: offer.stream,
            stage: None,
        };
        let (works, driver, agents) =
            (self.host.works.clone(), self.host.driver.clone(), self.host.agents.clone());
        let metrics = self.host.metrics.clone();
        let input = std::mem::take(&mut self.input);
        let received = input.len();
        works.begin(work, told);
        let span = self.span.clone();
        let subject = CallSubject {
            call: invocation.call,
            agent: offer.name,
            peer: Some(self.peer),
            trace: invocation.context.trace.clone(),
        };
        let working = async move {
            let mut under_way = metrics.calls.begin(Side::Host, subject, wall_clock());
            let invocation = Invocation { stage: Some(under_way.stage()), ..invocation };
            names::took_in(&span, received);
            let ended = AssertUnwindSafe(run(&agents, place, input, invocation)).catch_unwind().await;
            let ended = ended.unwrap_or_else(|_| {
                Err(CallFailure::new(Code::Internal, Outcome::Unknown, "the agent's runner broke down"))
            });
            if let Ok(output) = &ended {
                names::gave_out(&span, output.len());
                under_way.carried(received, output.len());
            }
            under_way.end(ended.as_ref().err());
            names::ended(&span, ended.as_ref().err());
            let ended = ended.map(|output| {
                let size = output.len();
                works.end(work, output);
                size
            });
            driver.handle(Input::WorkEnded { stream: work, ended });
        };
        let task = tokio::spawn(working.instrument(self.span.clone()));
        self.host.works.set_task(work, task.abort_handle());
        self.work = Some(work);
        self.listen();
    }

    /// Waits for what the caller says while the agent works, and after.
    fn listen(&mut self) {
        if let Some(mut reader) = self.reader.take() {
            let word = async move {
                let frame =
                    read_frame(&mut reader, CALL_FRAME_BYTES_MAX, TASK_TIME_MAX, FRAME_DEADLINE).await?;
                let said = CallRequest::decode(&frame).map_err(|_| FrameError::Malformed)?;
                Ok(Done::Said(reader, said))
            };
            self.waiting = word.boxed();
        }
    }

    fn expect_taken(&mut self) {
        self.listen();
        self.until = Some(Instant::now() + FRAME_DEADLINE);
    }

    /// What the machine is to be told of what has come; none if it has no place here.
    fn note(&mut self, stream: InboundStream, done: Done) -> Option<Input> {
        self.waiting = pending().boxed();
        Some(match done {
            Done::Placed(reader, Ok(place)) => {
                (self.reader, self.place) = (Some(reader), Some(place));
                Input::Placed { stream }
            }
            Done::Placed(reader, Err(failure)) => {
                self.reader = Some(reader);
                Input::NotPlaced { stream, failure }
            }
            Done::Arrived(reader, part, read) => {
                self.input.extend_from_slice(&part[..read]);
                self.input_left -= read;
                // With the last part the machine says what comes next; until then more is read.
                if self.input_left == 0 {
                    self.reader = Some(reader);
                } else {
                    self.waiting = take_part(reader, part, self.input_left).boxed();
                }
                Input::InputArrived { stream, size: self.input.len() }
            }
            Done::Said(reader, said) => {
                // Nothing follows either.
                self.until = Some(Instant::now());
                match said {
                    CallRequest::Cancel => Input::Cancelled(stream),
                    CallRequest::Taken => {
                        self.reader = Some(reader);
                        Input::Delivered(stream)
                    }
                    CallRequest::Offer(_) | CallRequest::Attach(_) => return None,
                }
            }
        })
    }

    /// What the work told before it ended.
    async fn pass_on_rest(&mut self) -> Result<(), FrameError> {
        while let Some(report) = self.told.as_mut().and_then(Told::try_next) {
            self.pass_on(report).await?;
        }
        Ok(())
    }

    async fn pass_on(&mut self, report: Report) -> Result<(), FrameError> {
        match report {
            // A report without numbers would break the protocol, and the caller would end the call for it.
            Report::Progress(progress) => match progress.bounded() {
                Some(progress) => self.say(&CallReply::Progress(progress)).await,
                None => Ok(()),
            },
            Report::Partial(text) => {
                for piece in CallReply::partials(&text) {
                    self.say(&piece).await?;
                }
                Ok(())
            }
            // The machine says these itself.
            Report::Queued { .. } | Report::Working { .. } => Ok(()),
        }
    }

    /// Whether the stream may carry another call: to open one within this node costs nothing.
    fn keeps(&self) -> bool {
        self.peer != self.host.own
    }

    /// The stream, once the caller has taken the answer.
    fn at_rest(self) -> Option<Halves> {
        let (keeps, Performance { reader, writer, .. }) = (self.keeps(), self);
        reader.filter(|_| keeps).map(|reader| (reader, writer))
    }

    /// Who calls; none for a client of this node.
    fn caller(&self) -> Option<PeerKey> {
        (self.peer != self.host.own).then_some(self.peer)
    }

    fn word(&self, has_place: bool) -> Word {
        self.offer.as_ref().map(|offer| self.host.agents.word(&offer.name, has_place)).unwrap_or_default()
    }

    async fn say(&mut self, reply: &CallReply) -> Result<(), FrameError> {
        tracing::debug!(peer = %self.peer, call = %self.call, ?reply, "call");
        write_frame(&mut self.writer, &reply.encode(), FRAME_DEADLINE).await
    }

    /// Reads the rest of an input that is not wanted, so that its caller, who still sends, comes to read why.
    async fn drop_input(&mut self) {
        self.input = Vec::new();
        let waiting = std::mem::replace(&mut self.waiting, pending().boxed());
        if self.input_left == 0 {
            return;
        }
        let mut left = self.input_left;
        let rest = async move {
            let mut arrived = waiting.await;
            while let Ok(Done::Arrived(reader, part, read)) = arrived {
                left -= read;
                if left == 0 {
                    return;
                }
                arrived = take_part(reader, part, left).await;
            }
        };
        let _late = timeout(DROPPED_INPUT_TIME, rest).await;
    }
}

/// Waits for a place until the caller is gone.
async fn wait_for(mut place: Place, mut reader: Reader, _counted: WaitingCall) -> Result<Done, FrameError> {
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
    take_part(reader, vec![0; length.min(INPUT_PART_BYTES)], length).await
}

/// The next part of an input of which `left` bytes are to come. Memory is taken for what arrives and not for what is announced.
async fn take_part(mut reader: Reader, mut part: Vec<u8>, left: usize) -> Result<Done, FrameError> {
    let most = left.min(part.len());
    let read = reader.read(&mut part[..most]).await?;
    if read == 0 && left > 0 {
        return Err(FrameError::Closed("it ended within the input".into()));
    }
    Ok(Done::Arrived(reader, part, read))
}
