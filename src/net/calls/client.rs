//! The caller's side: performs what the machine wants done for the calls that this node makes.

use std::borrow::Cow;
use std::future::pending;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::io::{ReadHalf, WriteHalf};
use futures::{AsyncReadExt, FutureExt};
use libp2p::Stream;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::driver::CallDriver;
use super::input::prepare;
use super::{FRAME_DEADLINE, read_json};
use crate::net::client::NodeClient;
use crate::net::streams::calls::{CallStreams, OpenCall};
use crate::net::streams::frames::{FrameError, read_frame, write_frame};
use crate::proto::call::{
    CallContext, CallFailure, CallId, CallReply, CallRequest, Input, Loss, OutboundStream, Outcome, Output,
    Report, Wanted,
};
use crate::proto::code::Code;
use crate::proto::identity::{AgentId, PeerKey};
use crate::proto::limits::{CALL_FRAME_BYTES_MAX, CALL_TIME_MAX};
use crate::proto::liveness::Presence;
use crate::proto::name::FullName;

/// Calls agents of other hosts. Cheap to clone, usable from any task.
#[derive(Clone)]
pub(crate) struct CallClient {
    driver: CallDriver,
    streams: CallStreams,
    node: NodeClient,
}

/// What is to be called, and with what.
pub(crate) struct RemoteCall {
    pub(crate) call: CallId,
    pub(crate) agent: AgentId,
    pub(crate) name: FullName,
    pub(crate) replicas: Vec<(PeerKey, Presence)>,
    /// Of the agent's input, if its card has one.
    pub(crate) schema: Option<String>,
    pub(crate) input: Value,
    pub(crate) deadline: Instant,
    pub(crate) reports: Option<mpsc::Sender<Report>>,
    pub(crate) context: CallContext,
    /// Whether the caller wants output before the work ends.
    pub(crate) stream: bool,
    /// Whether it is the call of a task, for which nobody waits.
    pub(crate) detached: bool,
    /// Whether only hosts that take it at once are asked.
    pub(crate) is_brief: bool,
}

/// How a call ended.
pub(crate) struct CallResult {
    pub(crate) result: Result<Value, CallFailure>,
    /// The host that it was offered to last.
    pub(crate) host: Option<PeerKey>,
    /// How many offers were made.
    pub(crate) attempts: u32,
}

/// How long the last word of a host that stopped reading may take: it was sent before.
const LAST_WORD_PATIENCE: Duration = Duration::from_secs(1);

/// An open stream between two frames.
type Halves = Box<(ReadHalf<Stream>, WriteHalf<Stream>)>;

/// What a call waited for of the network.
enum Done {
    Opened(OutboundStream, Result<Halves, String>),
    Heard(OutboundStream, Result<(Halves, CallReply), FrameError>),
    Taken(OutboundStream, Result<Value, FrameError>),
    Searched,
}

/// One call that is being made. The machine uses one stream of a call at a time: it is idle, or something is waited for.
struct Performance<'a> {
    client: &'a CallClient,
    call: CallId,
    input: &'a [u8],
    reports: Option<mpsc::Sender<Report>>,
    idle: Option<Halves>,
    waiting: BoxFuture<'a, Done>,
    output: Option<Value>,
    under_way: Option<OpenCall>,
}

impl CallClient {
    pub(super) fn new(driver: CallDriver, streams: CallStreams, node: NodeClient) -> CallClient {
        CallClient { driver, streams, node }
    }

    /// Runs one call to its end, at the latest at its deadline. Dropping the future ends the work at the host.
    pub(crate) async fn call(&self, wanted: RemoteCall) -> CallResult {
        let RemoteCall { call, agent, name, replicas, schema, input, deadline, reports, .. } = wanted;
        let RemoteCall { context, stream, detached, is_brief, .. } = wanted;
        let late = || {
            let message = "the input was not checked before the deadline";
            Err(CallFailure::new(Code::Deadline, Outcome::NotStarted, message))
        };
        // Before the machine hears of the call: a misfit takes no place and troubles no host.
        let input = match timeout_at(deadline, prepare(schema, input)).await.unwrap_or_else(|_| late()) {
            Ok(input) => input,
            Err(failure) => return CallResult { result: Err(failure), host: None, attempts: 0 },
        };
        // Dropped last, when nothing of the call is left here.
        let mut task = self.driver.outbound(call);
        let mut performance = Performance {
            client: self,
            call,
            input: &input,
            reports,
            idle: None,
            waiting: pending().boxed(),
            output: None,
            under_way: None,
        };
        let deadline = self.driver.time(deadline);
        let size = input.len();
        let wanted = Wanted { agent, name, replicas, size, deadline, is_brief, context, stream, detached };
        // After the mailbox is there, for the first output comes at once.
        self.driver.handle(Input::Call { call, wanted });
        loop {
            tokio::select! {
                // Outputs first: a close makes stale what may have come at the same moment.
                biased;
                Some(output) = task.outputs.recv() => {
                    if let Some(result) = performance.perform(output) {
                        return result;
                    }
                }
                done = &mut performance.waiting => self.driver.handle(performance.note(done)),
            }
        }
    }
}

impl<'a> Performance<'a> {
    /// Starts what the machine wants; the result once the call is over.
    fn perform(&mut self, output: Output) -> Option<CallResult> {
        let client = self.client;
        match output {
            Output::Open { stream, host } => {
                // Before the dial: its connection must not be closed as excess while the stream opens.
                self.under_way = Some(client.streams.open_calls.open(host));
                let opening = client.streams.open(host);
                self.waiting = opening
                    .map(move |opened| Done::Opened(stream, opened.map(|opened| Box::new(opened.split()))))
                    .boxed();
            }
            Output::Offer { stream, offer } => {
                let frame = CallRequest::Offer(offer).encode();
                self.hear(stream, Some((frame.into(), FRAME_DEADLINE)));
            }
            // The machine ends the call at its deadline, which is never further away than this.
            Output::SendInput(stream) => self.hear(stream, Some((self.input.into(), CALL_TIME_MAX))),
            Output::Report { report, .. } => {
                if let Some(reports) = &self.reports {
                    // Reports are only a hint.
                    let _full = reports.try_send(report);
                }
            }
            Output::Listen(stream) => self.hear(stream, None),
            Output::TakeOutput { stream, size } => {
                let halves = self.idle.take()?;
                self.waiting = take_output(halves, size).map(move |taken| Done::Taken(stream, taken)).boxed();
            }
            // Whichever of the two holds the stream, or the wish for one, lets go of it.
            Output::Close(_) => (self.idle, self.waiting) = (None, pending().boxed()),
            Output::Search { host, .. } => {
                self.waiting = client.node.search(host).map(|()| Done::Searched).boxed();
            }
            Output::LookFor { host, .. } => {
                let node = client.node.clone();
                tokio::spawn(async move { node.search(host).await });
            }
            Output::Ended { end, .. } => {
                // The machine heard of the output from here, so it is here; if not, nothing is claimed of it.
                let lost = || CallFailure::new(Code::Internal, Outcome::Unknown, "the output was lost");
                let result = end.failure.map_or_else(|| self.output.take().ok_or_else(lost), Err);
                return Some(CallResult { result, host: end.host, attempts: end.attempts });
            }
            // What a host does goes to the mailboxes of its streams, never to that of a call.
            Output::WantPlace { .. }
            | Output::SayQueued { .. }
            | Output::Accept { .. }
            | Output::Run { .. }
            | Output::SayAlive(_)
            | Output::Answer { .. }
            | Output::Refuse { .. }
            | Output::Drop(_) => {}
        }
        None
    }

    /// Says a frame, if there is one, and waits for what the host says next.
    fn hear(&mut self, stream: OutboundStream, said: Option<(Cow<'a, [u8]>, Duration)>) {
        if let Some(halves) = self.idle.take() {
            self.waiting = exchange(halves, said).map(move |heard| Done::Heard(stream, heard)).boxed();
        }
    }

    /// What the machine is to be told of what has come.
    fn note(&mut self, done: Done) -> Input {
        // A future that has finished must not be polled again.
        self.waiting = pending().boxed();
        match done {
            Done::Opened(stream, Ok(halves)) => {
                self.idle = Some(halves);
                Input::Opened(stream)
            }
            Done::Opened(stream, Err(why)) => Input::NotOpened { stream, why },
            Done::Heard(stream, Ok((halves, reply))) => {
                self.idle = Some(halves);
                Input::Reply { stream, reply }
            }
            Done::Taken(stream, Ok(output)) => {
                self.output = Some(output);
                Input::OutputTaken(stream)
            }
            Done::Heard(stream, Err(error)) | Done::Taken(stream, Err(error)) => {
                Input::Lost { stream, loss: loss(error) }
            }
            Done::Searched => Input::Searched { call: self.call },
        }
    }
}

/// A host may be silent for as long as the caller waits.
async fn exchange(
    mut halves: Halves,
    said: Option<(Cow<'_, [u8]>, Duration)>,
) -> Result<(Halves, CallReply), FrameError> {
    let (reader, writer) = &mut *halves;
    if let Some((frame, deadline)) = said
        && let Err(error) = write_frame(writer, &frame, deadline).await
    {
        // A host that takes no more of an input has said why before.
        let last = read_frame(reader, CALL_FRAME_BYTES_MAX, LAST_WORD_PATIENCE, LAST_WORD_PATIENCE).await;
        let reply = last.ok().and_then(|frame| CallReply::decode(&frame).ok()).ok_or(error)?;
        return Ok((halves, reply));
    }
    let frame = read_frame(reader, CALL_FRAME_BYTES_MAX, CALL_TIME_MAX, FRAME_DEADLINE).await?;
    let reply = CallReply::decode(&frame).map_err(|_| FrameError::Malformed)?;
    Ok((halves, reply))
}

/// The stream is held until the output is read, for it would be closed.
async fn take_output(mut halves: Halves, size: usize) -> Result<Value, FrameError> {
    let output = read_frame(&mut halves.0, size, CALL_TIME_MAX, CALL_TIME_MAX).await?;
    read_json(output).await.ok_or(FrameError::Malformed)
}

fn loss(error: FrameError) -> Loss {
    match error {
        FrameError::Closed(why) => Loss::Closed(why),
        FrameError::TooSlow(_) => Loss::TooSlow(error.to_string()),
        FrameError::Malformed | FrameError::TooLarge(_) => Loss::Violation(error.to_string()),
    }
}
