//! The caller's side: performs what the machine wants done for the calls that this node makes.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, poll};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::Span;

use super::FRAME_DEADLINE;
use super::driver::{CallDriver, OutboundTask};
use super::input::prepare;
use super::leg::{Done, LastWord, Leg};
use crate::net::client::NodeClient;
use crate::net::streams::calls::CallStreams;
use crate::net::streams::frames::FrameError;
use crate::proto::call::{
    CallContext, CallFailure, CallId, CallReply, CallRequest, Incarnation, Input, Loss, OutboundStream,
    Outcome, Output, Repeats, Replica, Report, Wanted,
};
use crate::proto::card::Balance;
use crate::proto::code::Code;
use crate::proto::identity::{AgentId, PeerKey};
use crate::proto::limits::{CALL_TIME_MAX, TASK_TIME_MAX};
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
    /// Whether a stream was lost: those that were kept may be lost, too.
    opens_anew: bool,
    /// What is said when the answer is here.
    last_word: Option<LastWord>,
    /// That of the whole call.
    span: Span,
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
            opens_anew: false,
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
        if result.is_none() {
            self.client.driver.handle(Input::GiveUp { call: self.call });
            while let Ok(output) = self.task.outputs.try_recv() {
                let _over = self.perform(output);
            }
        }
        let last_word = self.last_word.take();
        let mut said = pin!(async {
            if let Some(last_word) = last_word {
                // Who does not hear it notices that the stream is gone.
                let _unheard = last_word.say(&self.client.streams.kept).await;
            }
        });
        // As a rule there is room for it, and the stream is there for the next call when the client has its answer.
        let is_said = poll!(&mut said).is_ready();
        if let Some(result) = result {
            // Whoever waited may be gone at this very moment.
            let _gone = answer.send(result);
        }
        if !is_said {
            said.await;
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
                if let Some(leg) = self.legs.get_mut(&stream.number) {
                    leg.listen(longest);
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
                self.legs.insert(0, Leg::new(search.boxed(), Span::none()));
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
        if let Some(leg) = self.legs.get_mut(&stream.number) {
            leg.take(size);
        }
    }

    fn open(&mut self, stream: OutboundStream, host: PeerKey) {
        // Before the dial: its connection must not be closed as excess while the stream opens.
        let under_way = self.client.streams.open_calls.open(host);
        let streams = self.client.streams.clone();
        let span = names::offer(&self.span, &host, self.call);
        let kept = if self.opens_anew { None } else { streams.kept.take(&host) };
        let is_unproven = kept.is_some();
        let opening = async move {
            match kept {
                Some(kept) => Done::Opened(Ok(Box::new(kept))),
                None => Done::Opened(streams.open(host).await.map(Box::new)),
            }
        };
        let (host, _under_way) = (Some(host), Some(under_way));
        let leg = Leg { host, is_unproven, _under_way, ..Leg::new(opening.boxed(), span) };
        self.legs.insert(stream.number, leg);
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
        if let Some(leg) = self.legs.get_mut(&stream.number) {
            leg.send(frame);
        }
    }

    /// The last word on a stream; it leaves when the call is over.
    fn close_with(&mut self, stream: OutboundStream, word: CallRequest) {
        let last_word = self.legs.remove(&stream.number).and_then(|leg| leg.close_with(word));
        self.last_word = last_word.or_else(|| self.last_word.take());
    }

    /// What the machine is to be told of what has come.
    fn note(&mut self, number: u32, done: Done) -> Option<Input> {
        let stream = OutboundStream { call: self.call, number };
        let longest = self.longest;
        let leg = self.legs.get_mut(&number)?;
        // A future that has finished must not be polled again.
        leg.waiting = pending().boxed();
        Some(match done {
            Done::Opened(Ok(opened)) => {
                leg.opened(*opened);
                Input::Opened(stream)
            }
            Done::Opened(Err(why)) => {
                self.client.metrics.calls.offered("not_opened");
                names::failed(&leg.span, "not_opened");
                Input::NotOpened { stream, why }
            }
            Done::Said(reader, writer) => {
                leg.writer = Some(writer);
                leg.reader = Some(reader);
                leg.listen(longest);
                return None;
            }
            Done::Heard(Ok((reader, reply))) => {
                leg.is_unproven = false;
                match &reply {
                    CallReply::Accepted { keeps, .. } => {
                        leg.keeps = *keeps;
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
            Done::Taken(Ok((reader, output))) => {
                leg.reader = Some(reader);
                self.output = Some(output);
                names::ended(&leg.span, None);
                Input::OutputTaken(stream)
            }
            Done::Heard(Err(error)) | Done::Taken(Err(error)) => {
                self.opens_anew = true;
                let loss = leg.loss(error);
                let why = if loss == Loss::Stale { "stale" } else { "lost" };
                self.client.metrics.calls.offered(why);
                names::failed(&leg.span, why);
                Input::Lost { stream, loss }
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
