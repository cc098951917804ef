//! The host's side of a call stream.
//!
//! The driver is asked only where an agent names its callers, so calls go on while the node is busy with its registry.
//! Before the input of a call is taken it has a place in the ledger; the place ends with the stream.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::try_join;
use futures::io::WriteHalf;
use futures::{AsyncRead, AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::Stream;
use libp2p_stream::IncomingStreams;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::callers::Standings;
use super::open::{OpenCall, OpenCalls};
use super::{FRAME_DEADLINE, read_json};
use crate::agents::{HostedAgent, Invocation};
use crate::net::Handle;
use crate::net::addresses::peer_key;
use crate::net::streams::admission::StreamAdmission;
use crate::net::streams::frames::{FrameError, read_frame, write_frame};
use crate::proto::call::{
    CallFailure, CallOffer, CallReply, CallRequest, Incarnation, Ledger, Outcome, Progress, Ticket,
};
use crate::proto::card::Scope;
use crate::proto::code::Code;
use crate::proto::config::{CALL_BYTES_MAX, CALL_FRAME_BYTES_MAX, CALLS_AT_WORK_MAX, CALLS_PER_PEER_MAX};
use crate::proto::grant::Grant;
use crate::proto::identity::{AgentId, PeerKey};
use crate::proto::name::FullName;

/// How long an offer may take to come after its stream was opened.
const OFFER_PATIENCE: Duration = Duration::from_secs(5);
/// Streams beyond the calls at work: offers that are being judged, and streams that are closing.
const STREAMS_BESIDE: usize = 32;
/// Reports of progress that wait to be sent; more are lost.
const REPORTS_MAX: usize = 8;

/// Takes calls for the agents of this host.
pub(crate) struct Host {
    handle: Handle,
    ledger: Mutex<Ledger>,
    open_calls: OpenCalls,
    standings: Standings,
    started: Instant,
}

/// The place of one call in the ledger, until it is dropped.
struct Place<'a> {
    _open: OpenCall,
    host: &'a Host,
    ticket: Ticket,
    deadline: Instant,
}

impl Host {
    pub(crate) fn new(handle: Handle) -> Host {
        let ledger = Ledger::new(Incarnation(rand::random()));
        let open_calls = handle.open_calls();
        let standings = Standings::default();
        Host { handle, ledger: Mutex::new(ledger), open_calls, standings, started: Instant::now() }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn admit(&self, peer: PeerKey, offer: &CallOffer) -> Result<(Place<'_>, CallReply), CallFailure> {
        self.judge(peer, offer).await?;
        let mut ledger = self.ledger();
        let (ticket, time) = ledger.admit(self.started.elapsed(), peer, offer)?;
        let place =
            Place { _open: self.open_calls.open(peer), host: self, ticket, deadline: Instant::now() + time };
        Ok((place, CallReply::Accepted { incarnation: ledger.incarnation() }))
    }

    /// Whether the agent runs here and this peer may call it.
    async fn judge(&self, peer: PeerKey, offer: &CallOffer) -> Result<(), CallFailure> {
        let list = self.handle.local_agents().list();
        let refused = |code, message| Err(CallFailure::new(code, Outcome::NotStarted, message));
        let offered = list.get(&offer.name).filter(|local| self.offers(&offer.name, local, offer.agent_id()));
        let Some(run_config) = offered.and_then(|local| local.run_config.as_ref()) else {
            return refused(Code::NotFound, format!("{} is not run by this host", offer.name));
        };
        let callers = &run_config.callers;
        if !callers.is_empty() && !self.standings.includes(&self.handle, callers, peer).await {
            return refused(
                Code::NotAllowed,
                format!("the host of {} does not let this peer call it", offer.name),
            );
        }
        Ok(())
    }

    /// Whether the world may know that this host offers the agent of this id. An agent of `node` scope is as unknown as
    /// one that is not there.
    fn offers(&self, name: &FullName, local: &HostedAgent, id: AgentId) -> bool {
        let first = local.offer.grants.first().map(|signed| Grant::read(signed));
        let owner = match first {
            None => self.handle.key(),
            Some(Ok(grant)) => grant.issuer,
            Some(Err(_)) => return false,
        };
        local.offer.scope == Scope::Public && AgentId::of(owner, name) == id
    }
}

impl Place<'_> {
    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn begin(&self) -> bool {
        self.host.ledger().begin(self.ticket)
    }

    fn hold(&self, bytes: usize) -> bool {
        self.host.ledger().hold(self.ticket, bytes)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.host.ledger().end(self.ticket);
    }
}

/// Serves inbound call streams until the node stops. Does nothing itself but start tasks: while it is busy the library
/// drops streams.
pub(crate) async fn serve(mut incoming: IncomingStreams, host: Arc<Host>) {
    let per_peer = CALLS_PER_PEER_MAX + STREAMS_BESIDE;
    let mut admission = StreamAdmission::<()>::new(CALLS_AT_WORK_MAX + STREAMS_BESIDE, per_peer);
    let mut calls = JoinSet::new();
    let mut peers = BTreeMap::new();
    loop {
        tokio::select! {
            biased;
            () = host.handle.stopped() => return,
            Some((peer, stream)) = incoming.next() => {
                let Some(peer) = peer_key(&peer) else { continue };
                if admission.admit(peer, || ()).is_some() {
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
    let (mut reader, mut writer) = stream.split();
    let served = async {
        let offer = read_offer(&mut reader).await?;
        let call = offer.call;
        let reply = match host.admit(peer, &offer).await {
            Err(failure) => CallReply::Failed(failure),
            Ok((place, accepted)) => {
                say(&mut writer, &accepted).await?;
                let answer = run(&place, offer, &mut reader, &mut writer).await?;
                let (reply, output) = as_reply(&place, answer);
                tracing::debug!(%peer, %call, ?reply, "call ended");
                say(&mut writer, &reply).await?;
                if let Some(output) = output {
                    write_frame(&mut writer, &output, place.left().max(FRAME_DEADLINE)).await?;
                }
                return Ok(writer.close().await?);
            }
        };
        tracing::debug!(%peer, %call, ?reply, "call refused");
        say(&mut writer, &reply).await?;
        Ok::<(), FrameError>(writer.close().await?)
    };
    if let Err(error) = served.await {
        tracing::debug!(%peer, %error, "call stream broke");
    }
}

async fn read_offer<R: AsyncRead + Unpin>(reader: &mut R) -> Result<CallOffer, FrameError> {
    let frame = read_frame(reader, CALL_FRAME_BYTES_MAX, OFFER_PATIENCE, OFFER_PATIENCE).await?;
    let CallRequest::Offer(offer) = CallRequest::decode(&frame).map_err(|_| FrameError::Malformed)?;
    Ok(offer)
}

/// Takes the input and works, until the work ends or the caller is gone.
async fn run<R: AsyncRead + Unpin>(
    place: &Place<'_>,
    offer: CallOffer,
    reader: &mut R,
    writer: &mut WriteHalf<Stream>,
) -> Result<Result<Value, CallFailure>, FrameError> {
    let size = usize::try_from(offer.size).unwrap_or(usize::MAX);
    let input = read_frame(reader, size, place.left(), place.left()).await?;
    if input.len() != size || !place.begin() {
        return Err(FrameError::Malformed);
    }
    let Some(input) = read_json(input).await else {
        return Ok(Err(CallFailure::new(Code::BadInput, Outcome::NotStarted, "the input is not JSON")));
    };
    let (progress, reports) = mpsc::channel(REPORTS_MAX);
    let (working, worked) = oneshot::channel::<()>();
    let work = async {
        let invocation = Invocation { input, deadline: place.deadline, progress: Some(progress) };
        let answer = place.host.handle.local_agents().call(&offer.name, invocation).await;
        drop(working);
        Ok(answer)
    };
    let mut surplus = [0];
    tokio::select! {
        ended = try_join(work, pass_reports(reports, worked, writer)) => ended.map(|(answer, ())| answer),
        // A caller says nothing after its input.
        _ = reader.read(&mut surplus) => Err(FrameError::Closed("the caller gave the call up".into())),
    }
}

/// Sends reports of progress until the work has ended.
async fn pass_reports(
    mut reports: mpsc::Receiver<Progress>,
    mut worked: oneshot::Receiver<()>,
    writer: &mut WriteHalf<Stream>,
) -> Result<(), FrameError> {
    loop {
        let report = tokio::select! {
            biased;
            Some(report) = reports.recv() => report,
            _ = &mut worked => return Ok(()),
        };
        if let Some(report) = report.bounded() {
            say(writer, &CallReply::Progress(report)).await?;
        }
    }
}

/// How the host says how the work ended, and the output that follows.
fn as_reply(place: &Place<'_>, answer: Result<Value, CallFailure>) -> (CallReply, Option<Vec<u8>>) {
    let failed = |code, message| (CallReply::Failed(CallFailure::new(code, Outcome::Done, message)), None);
    let output = match answer.map(|output| serde_json::to_vec(&output)) {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => {
            return failed(Code::BadOutput, format!("the output cannot be written as JSON: {error}"));
        }
        Err(failure) => return (CallReply::Failed(failure.bounded()), None),
    };
    let size = output.len();
    if size > CALL_BYTES_MAX {
        return failed(Code::TooLarge, format!("the output has {size} bytes, more than {CALL_BYTES_MAX}"));
    }
    if !place.hold(size) {
        return failed(Code::Busy, "too many large outputs wait to be read; ask for fewer at once".into());
    }
    (CallReply::Answered { size: size as u64 }, Some(output))
}

async fn say(writer: &mut WriteHalf<Stream>, reply: &CallReply) -> Result<(), FrameError> {
    write_frame(writer, &reply.encode(), FRAME_DEADLINE).await
}
