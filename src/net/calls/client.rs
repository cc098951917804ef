//! The caller's side: performs what the machine wants done for the calls that this node makes.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::io::{ReadHalf, WriteHalf};
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::Span;

use super::driver::{CallDriver, OutboundTask};
use super::input::prepare;
use super::{FRAME_DEADLINE, read_json};
use crate::net::client::NodeClient;
use crate::net::streams::calls::{CallStream, CallStreams, OpenCall};
use crate::net::streams::frames::{FrameError, read_frame, write_frame};
use crate::proto::call::{
    CallContext, CallFailure, CallId, CallReply, CallRequest, Incarnation, Input, Loss, OutboundStream,
    Outcome, Output, Repeats, Replica, Report, Wanted,
};
use crate::proto::card::Balance;
use crate::proto::code::Code;
use crate::proto::identity::{AgentId, PeerKey};
use crate::proto::limits::{CALL_FRAME_BYTES_MAX, CALL_TIME_MAX, TASK_TIME_MAX};
use crate::proto::name::FullName;
use crate::telemetry::metrics::{CallStage, Metrics};
use crate::telemetry::{context, names};

/// Calls agents at their hosts, of which this node may be one. Cheap to clone, usable from any task.
#[derive(Clone)]
pub(crate) struct CallClient {
    driver: CallDriver,
    streams: CallStreams,
    node: NodeClient,
    metrics: Arc<Metrics>,
}

/// What is to be called, and with what.
pub(crate) struct RemoteCall {
    pub(crate) call: CallId,
    pub(crate) agent: AgentId,
    pub(crate) name: FullName,
    pub(crate) replicas: Vec<Replica>,
    /// Of the agent's input, if its card has one.
    pub(crate) schema: Option<String>,
    pub(crate) input: Value,
    pub(crate) deadline: Instant,
    pub(crate) reports: Option<mpsc::Sender<Report>>,
    pub(crate) context: CallContext,
    /// Whether the caller wants output before the work ends.
    pub(crate) stream: bool,
    pub(crate) balance: Balance,
    pub(crate) repeats: Repeats,
    /// Where it outlives this run of the node.
    pub(crate) kept: Option<Kept>,
    /// Told when a host has accepted it, if that is counted.
    pub(crate) stage: Option<CallStage>,
}

/// A call that outlives this run of the node.
pub(crate) struct Kept {
    /// Makes durable that the input is about to leave for this run of this host; none of it leaves before.
    pub(crate) note_sent: NoteSent,
    /// What was noted so in an earlier run.
    pub(crate) sent: Option<(PeerKey, Incarnation)>,
}

/// See [`Kept::note_sent`].
pub(crate) type NoteSent =
    Arc<dyn Fn(PeerKey, Incarnation) -> BoxFuture<'static, std::io::Result<()>> + Send + Sync>;

/// How a call ended.
pub(crate) struct CallResult {
    pub(crate) result: Result<Value, CallFailure>,
    /// The host that it was offered to last.
    pub(crate) host: Option<PeerKey>,
    /// How many offers were made.
    pub(crate) attempts: u32,
    /// Bytes of the input and of the output where both went over the mesh.
    pub(crate) carried: Option<(usize, usize)>,
}

impl CallResult {
    /// No host was reached, or none was asked.
    pub(crate) fn unmade(failure: CallFailure) -> CallResult {
        CallResult { result: Err(failure), host: None, attempts: 0, carried: None }
    }
}

/// How long the last word of a host that stopped reading may take: it was sent before. And how long the caller's own may.
const LAST_WORD_PATIENCE: Duration = Duration::from_secs(1);

type Reader = ReadHalf<CallStream>;
type Writer = WriteHalf<CallStream>;
/// An open stream between two frames.
type Halves = Box<(Reader, Writer)>;

/// What a call waited for of the network.
enum Done {
    Opened(Result<Halves, String>),
    /// All was said that was to be said; the host is listened to now.
    Said(Reader, Writer),
    Heard(Result<(Reader, CallReply), FrameError>),
    Taken(Result<Value, FrameError>),
    Searched,
}

/// One call that is being made.
struct Performance {
    client: CallClient,
    task: OutboundTask,
    call: CallId,
    input: Arc<Vec<u8>>,
    longest: Duration,
    reports: Option<mpsc::Sender<Report>>,
    note_sent: Option<NoteSent>,
    stage: Option<CallStage>,
    /// By the numbers of the streams; 0 is a search.
    legs: BTreeMap<u32, Leg>,
    output: Option<Value>,
    output_size: Option<usize>,
    /// What is said when the client has its answer.
    last_word: Option<(Writer, CallRequest)>,
    /// That of the whole call.
    span: Span,
}

/// One stream of a call. Of its halves those are here on which nothing is waited for.
struct Leg {
    reader: Option<Reader>,
    writer: Option<Writer>,
    waiting: BoxFuture<'static, Done>,
    span: Span,
    _under_way: Option<OpenCall>,
}

impl CallClient {
    pub(super) fn new(
        driver: CallDriver,
        streams: CallStreams,
        node: NodeClient,
        metrics: Arc<Metrics>,
    ) -> CallClient {
        CallClient { driver, streams, node, metrics }
    }

    /// Hosts that the last call in vain looked for.
    pub(crate) fn unreached(&self) -> BTreeSet<PeerKey> {
        self.driver.unreached()
    }

    /// Runs one call to its end, at the latest at its deadline. Dropping the future ends the work at the host.
    pub(crate) async fn call(&self, wanted: RemoteCall) -> CallResult {
        let RemoteCall { call, agent, name, replicas, schema, input, deadline, reports, .. } = wanted;
        let RemoteCall { context, stream, balance, repeats, kept, stage, .. } = wanted;
        let late = || {
            let message = "the input was not checked before the deadline";
            Err(CallFailure::new(Code::Deadline, Outcome::NotStarted, message))
        };
        let is_asked_again = kept.as_ref().is_some_and(|kept| kept.sent.is_some());
        let prepared = async {
            // What a host has already is not sent again.
            if is_asked_again { Ok(Vec::new()) } else { prepare(schema, input).await }
        };
        // Before the machine hears of the call: a misfit takes no place and troubles no host.
        let input = match timeout_at(deadline, prepared).await.unwrap_or_else(|_| late()) {
            Ok(input) => input,
            Err(failure) => return CallResult::unmade(failure),
        };
        let wanted = Wanted {
            context,
            stream,
            is_detached: kept.is_some(),
            balance,
            repeats,
            sent: kept.as_ref().and_then(|kept| kept.sent),
            ..Wanted::new(agent, name, replicas, input.len(), self.driver.time(deadline))
        };
        let performance = Performance {
            client: self.clone(),
            task: self.driver.outbound(call),
            call,
            input: Arc::new(input),
            longest: if kept.is_some() { TASK_TIME_MAX } else { CALL_TIME_MAX },
            reports,
            note_sent: kept.map(|kept| kept.note_sent),
            stage,
            legs: BTreeMap::new(),
            output: None,
            output_size: None,
            last_word: None,
            span: Span::current(),
        };
        names::took_in(&performance.span, performance.input.len());
        let (answer, answered) = oneshot::channel();
        // In a task of its own: a host is told that nobody waits any more when whoever waited is gone.
        tokio::spawn(performance.run(wanted, answer));
        answered.await.unwrap_or_else(|_| {
            CallResult::unmade(CallFailure::new(Code::Internal, Outcome::Unknown, "the call broke down"))
        })
    }
}

impl Performance {
    async fn run(mut self, wanted: Wanted, mut answer: oneshot::Sender<CallResult>) {
        // After the mailbox is there, for the first output comes at once.
        self.client.driver.handle(Input::Call { call: self.call, wanted });
        let result = loop {
            tokio::select! {
                // Outputs first: a close makes stale what may have come at the same moment.
                biased;
                Some(output) = self.task.outputs.recv() => {
                    if let Some(result) = self.perform(output) {
                        break Some(result);
                    }
                }
                () = answer.closed() => break None,
                (number, done) = next_done(&mut self.legs) => {
                    if let Some(happened) = self.note(number, done) {
                        self.client.driver.handle(happened);
                    }
                }
            }
        };
        match result {
            // Whoever waited may be gone at this very moment.
            Some(result) => drop(answer.send(result)),
            None => {
                self.client.driver.handle(Input::GiveUp { call: self.call });
                while let Ok(output) = self.task.outputs.try_recv() {
                    let _over = self.perform(output);
                }
            }
        }
        if let Some((mut writer, word)) = self.last_word.take() {
            let said = async {
                write_frame(&mut writer, &word.encode(), LAST_WORD_PATIENCE).await?;
                Ok::<(), FrameError>(writer.close().await?)
            };
            // Who does not hear it notices that the stream is gone.
            let _unheard = timeout(LAST_WORD_PATIENCE, said).await;
        }
    }

    /// Starts what the machine wants; the result once the call is over.
    fn perform(&mut self, output: Output) -> Option<CallResult> {
        match output {
            Output::Open { stream, host } => self.open(stream, host),
            Output::Offer { stream, mut offer } => {
                self.client.metrics.calls.offered("made");
                if let Some(leg) = self.legs.get(&stream.number) {
                    context::pass_on(&leg.span, &mut offer.context.trace);
                }
                self.say(stream, CallRequest::Offer(Box::new(offer)));
            }
            Output::Attach { stream, attach } => self.say(stream, CallRequest::Attach(attach)),
            Output::SendInput { stream, host, incarnation } => self.send_input(stream, host, incarnation),
            Output::Report { report, .. } => {
                if let Some(reports) = &self.reports {
                    // Reports are only a hint.
                    let _full = reports.try_send(report);
                }
            }
            Output::Listen(stream) => {
                let longest = self.longest;
                if let Some(leg) = self.legs.get_mut(&stream.number)
                    && let Some(reader) = leg.reader.take()
                {
                    leg.waiting = hear(reader, longest).boxed();
                }
            }
            Output::TakeOutput { stream, size } => self.take(stream, size),
            Output::Close(stream) => drop(self.legs.remove(&stream.number)),
            Output::Cancel(stream) => self.close_with(stream, CallRequest::Cancel),
            Output::Taken(stream) => self.close_with(stream, CallRequest::Taken),
            Output::Search { host, .. } => {
                let node = self.client.node.clone();
                let search = async move {
                    node.search(host).await;
                    Done::Searched
                };
                self.insert(0, search.boxed(), Span::none(), None);
            }
            Output::LookFor { host, .. } => {
                let node = self.client.node.clone();
                tokio::spawn(async move { node.search(host).await });
            }
            Output::Ended { end, .. } => {
                // The machine heard of the output from here, so it is here; if not, nothing is claimed of it.
                let lost = || CallFailure::new(Code::Internal, Outcome::Unknown, "the output was lost");
                let result = end.failure.map_or_else(|| self.output.take().ok_or_else(lost), Err);
                let carried = self.output_size.map(|size| (self.input.len(), size));
                return Some(CallResult { result, host: end.host, attempts: end.attempts, carried });
            }
            // What a host does goes to the mailboxes of its streams, never to that of a call.
            Output::WantPlace { .. }
            | Output::SayQueued { .. }
            | Output::Accept { .. }
            | Output::Run { .. }
            | Output::Resume { .. }
            | Output::Stop { .. }
            | Output::Forget { .. }
            | Output::SayAlive(_)
            | Output::Answer { .. }
            | Output::Refuse { .. }
            | Output::Drop(_) => {}
        }
        None
    }

    fn take(&mut self, stream: OutboundStream, size: usize) {
        self.output_size = Some(size);
        names::gave_out(&self.span, size);
        if let Some(leg) = self.legs.get_mut(&stream.number)
            && let Some(reader) = leg.reader.take()
        {
            leg.waiting = take_output(reader, size).map(Done::Taken).boxed();
        }
    }

    fn open(&mut self, stream: OutboundStream, host: PeerKey) {
        // Before the dial: its connection must not be closed as excess while the stream opens.
        let under_way = self.client.streams.open_calls.open(host);
        let streams = self.client.streams.clone();
        let opening =
            async move { Done::Opened(streams.open(host).await.map(|opened| Box::new(opened.split()))) };
        let span = names::offer(&self.span, &host, self.call);
        self.insert(stream.number, opening.boxed(), span, Some(under_way));
    }

    fn insert(
        &mut self,
        number: u32,
        waiting: BoxFuture<'static, Done>,
        span: Span,
        under_way: Option<OpenCall>,
    ) {
        self.legs.insert(number, Leg { reader: None, writer: None, waiting, span, _under_way: under_way });
    }

    /// Says the first word on a stream, and waits for what the host says.
    fn say(&mut self, stream: OutboundStream, request: CallRequest) {
        self.send(stream, async move { Ok((Arc::new(request.encode()), FRAME_DEADLINE)) });
    }

    fn send_input(&mut self, stream: OutboundStream, host: PeerKey, incarnation: Incarnation) {
        let noted = self.note_sent.as_ref().map(|note| note(host, incarnation));
        let (input, longest) = (self.input.clone(), self.longest);
        self.send(stream, async move {
            if let Some(noted) = noted {
                let unkept = |error| FrameError::Closed(format!("the call cannot be kept: {error}"));
                noted.await.map_err(unkept)?;
            }
            // The machine ends the call at its deadline, which is never further away than this.
            Ok((input, longest))
        });
    }

    fn send(
        &mut self,
        stream: OutboundStream,
        frame: impl Future<Output = Result<(Arc<Vec<u8>>, Duration), FrameError>> + Send + 'static,
    ) {
        let Some(leg) = self.legs.get_mut(&stream.number) else { return };
        if let (Some(mut reader), Some(mut writer)) = (leg.reader.take(), leg.writer.take()) {
            let sending = async move {
                let sent = match frame.await {
                    Ok((frame, longest)) => write_frame(&mut writer, &frame, longest).await,
                    Err(error) => return Done::Heard(Err(error)),
                };
                match sent {
                    Ok(()) => Done::Said(reader, writer),
                    // A host that takes no more of an input has said why before.
                    Err(error) => {
                        let last = last_word(&mut reader, error).await;
                        Done::Heard(last.map(|reply| (reader, reply)))
                    }
                }
            };
            leg.waiting = sending.boxed();
        }
    }

    /// The last word on a stream; it leaves once nobody waits for that.
    fn close_with(&mut self, stream: OutboundStream, word: CallRequest) {
        let writer = self.legs.remove(&stream.number).and_then(|leg| leg.writer);
        self.last_word = writer.map(|writer| (writer, word)).or_else(|| self.last_word.take());
    }

    /// What the machine is to be told of what has come.
    fn note(&mut self, number: u32, done: Done) -> Option<Input> {
        let stream = OutboundStream { call: self.call, number };
        let longest = self.longest;
        let leg = self.legs.get_mut(&number)?;
        // A future that has finished must not be polled again.
        leg.waiting = pending().boxed();
        Some(match done {
            Done::Opened(Ok(halves)) => {
                (leg.reader, leg.writer) = (Some(halves.0), Some(halves.1));
                Input::Opened(stream)
            }
            Done::Opened(Err(why)) => {
                self.client.metrics.calls.offered("not_opened");
                names::failed(&leg.span, "not_opened");
                Input::NotOpened { stream, why }
            }
            Done::Said(reader, writer) => {
                leg.writer = Some(writer);
                leg.waiting = hear(reader, longest).boxed();
                return None;
            }
            Done::Heard(Ok((reader, reply))) => {
                match &reply {
                    CallReply::Accepted { .. } => {
                        self.client.metrics.calls.offered("accepted");
                        self.stage.iter().for_each(CallStage::begin_work);
                    }
                    CallReply::Failed(failure) => {
                        self.client.metrics.calls.offered("failed");
                        names::ended(&leg.span, Some(failure));
                    }
                    _ => {}
                }
                leg.reader = Some(reader);
                Input::Reply { stream, reply }
            }
            Done::Taken(Ok(output)) => {
                self.output = Some(output);
                names::ended(&leg.span, None);
                Input::OutputTaken(stream)
            }
            Done::Heard(Err(error)) | Done::Taken(Err(error)) => {
                self.client.metrics.calls.offered("lost");
                names::failed(&leg.span, "lost");
                Input::Lost { stream, loss: loss(error) }
            }
            Done::Searched => {
                self.legs.remove(&number);
                Input::Searched { call: self.call }
            }
        })
    }
}

/// What comes next of the streams of a call.
async fn next_done(legs: &mut BTreeMap<u32, Leg>) -> (u32, Done) {
    std::future::poll_fn(|cx| {
        for (number, leg) in legs.iter_mut() {
            if let Poll::Ready(done) = leg.waiting.as_mut().poll(cx) {
                return Poll::Ready((*number, done));
            }
        }
        Poll::Pending
    })
    .await
}

/// A host may be silent for as long as the caller waits; the machine says when that is too long.
async fn hear(mut reader: Reader, longest: Duration) -> Done {
    let frame = read_frame(&mut reader, CALL_FRAME_BYTES_MAX, longest, FRAME_DEADLINE).await;
    let reply = frame.and_then(|frame| CallReply::decode(&frame).map_err(|_| FrameError::Malformed));
    Done::Heard(reply.map(|reply| (reader, reply)))
}

/// What a host that reads no more said before.
async fn last_word(reader: &mut Reader, error: FrameError) -> Result<CallReply, FrameError> {
    let last = read_frame(reader, CALL_FRAME_BYTES_MAX, LAST_WORD_PATIENCE, LAST_WORD_PATIENCE).await;
    last.ok().and_then(|frame| CallReply::decode(&frame).ok()).ok_or(error)
}

async fn take_output(mut reader: Reader, size: usize) -> Result<Value, FrameError> {
    let output = read_frame(&mut reader, size, CALL_TIME_MAX, CALL_TIME_MAX).await?;
    read_json(output).await.ok_or(FrameError::Malformed)
}

fn loss(error: FrameError) -> Loss {
    match error {
        FrameError::Closed(why) => Loss::Closed(why),
        FrameError::TooSlow(_) => Loss::TooSlow(error.to_string()),
        FrameError::Malformed | FrameError::TooLarge(_) => Loss::Violation(error.to_string()),
    }
}
