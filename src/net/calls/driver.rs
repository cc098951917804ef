//! Drives the machine of calls: gives it what happens, and each of its outputs to the task that performs it.
//!
//! One call is one task, so that a slow one delays no other. All of them share the machine, behind a lock that is held for
//! microseconds and never over an await. What the machine wants of a call is in that call's mailbox when the lock is free.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::works::Works;
use crate::proto::call::{CallId, Calls, InboundStream, Input, OutboundStream, Output};
use crate::proto::identity::PeerKey;

/// Outputs that wait for their task. The machine says each next thing to do only after the one before was done, or when a
/// timer fires, and few timers fire for one call: two outputs for each of its openings.
const OUTPUTS_MAX: usize = 32;

/// The machine, and the tasks that perform its outputs. Cheap to clone.
#[derive(Clone)]
pub(super) struct CallDriver(Arc<Shared>);

struct Shared {
    driven: Mutex<Driven>,
    /// Its clock counts from here, in tokio's time.
    started: Instant,
    /// A timer is due before the one that is slept for.
    is_earlier: Notify,
}

struct Driven {
    calls: Calls,
    outbound: BTreeMap<CallId, mpsc::Sender<Output>>,
    inbound: BTreeMap<InboundStream, mpsc::Sender<Output>>,
    inbound_streams: u64,
    works: Works,
    /// Until when the keeper of the time sleeps.
    wake: Option<Duration>,
}

/// What the machine wants done for one call that this node makes. Dropping it gives the call up.
pub(super) struct OutboundTask {
    driver: CallDriver,
    call: CallId,
    pub(super) outputs: mpsc::Receiver<Output>,
}

/// What the machine wants done for one stream on which a call is offered. Dropping it tells the machine that the stream is
/// gone, so what serves the stream is to be dropped before.
pub(super) struct InboundTask {
    driver: CallDriver,
    pub(super) stream: InboundStream,
    pub(super) outputs: mpsc::Receiver<Output>,
}

impl CallDriver {
    /// Stops and forgets `works` as the machine says.
    pub(super) fn new(calls: Calls, works: Works) -> CallDriver {
        let (outbound, inbound) = (BTreeMap::new(), BTreeMap::new());
        let driven = Mutex::new(Driven { calls, outbound, inbound, inbound_streams: 0, works, wake: None });
        CallDriver(Arc::new(Shared { driven, started: Instant::now(), is_earlier: Notify::new() }))
    }

    /// Tells the machine what happened.
    pub(super) fn handle(&self, input: Input) {
        let mut driven = self.lock();
        // Read under the lock: of two tasks the later must not bring the earlier time.
        let now = self.0.started.elapsed();
        driven.calls.handle(now, input);
        driven.dispatch();
        // A timer that moved away needs no word: the keeper wakes once in vain and sleeps anew.
        if let Some(due) = driven.calls.poll_timeout()
            && driven.wake.is_none_or(|wake| due < wake)
        {
            // Noted here, so that further inputs before the keeper runs do not wake it again. A notice that
            // finds the keeper between two sleeps is kept for the next.
            driven.wake = Some(due);
            self.0.is_earlier.notify_one();
        }
    }

    /// Hosts that this node does not reach.
    pub(super) fn unreached(&self) -> BTreeSet<PeerKey> {
        self.lock().calls.unreached(self.0.started.elapsed()).collect()
    }

    /// A task for a call that this node makes.
    pub(super) fn outbound(&self, call: CallId) -> OutboundTask {
        let (mailbox, outputs) = mpsc::channel(OUTPUTS_MAX);
        self.lock().outbound.insert(call, mailbox);
        OutboundTask { driver: self.clone(), call, outputs }
    }

    /// A task for a stream on which a call is offered.
    pub(super) fn inbound(&self) -> InboundTask {
        let (mailbox, outputs) = mpsc::channel(OUTPUTS_MAX);
        let mut driven = self.lock();
        driven.inbound_streams += 1;
        let stream = InboundStream(driven.inbound_streams);
        driven.inbound.insert(stream, mailbox);
        InboundTask { driver: self.clone(), stream, outputs }
    }

    /// A point in time on the machine's clock.
    pub(super) fn time(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.0.started)
    }

    /// The other way round.
    pub(super) fn instant(&self, time: Duration) -> Instant {
        self.0.started + time
    }

    /// Tells the machine when something is due, for ever.
    pub(super) async fn keep_time(&self) {
        loop {
            // The lock ends with this block, before the sleep.
            let wake = {
                let mut driven = self.lock();
                driven.calls.handle_timeout(self.0.started.elapsed());
                driven.dispatch();
                driven.wake = driven.calls.poll_timeout();
                driven.wake
            };
            let due = async {
                match wake {
                    Some(wake) => tokio::time::sleep_until(self.instant(wake)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.0.is_earlier.notified() => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Driven> {
        // A panic in the task of one call is no reason to end the calls of all others.
        self.0.driven.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Driven {
    /// Puts every output into the mailbox of its task. A task that has ended needs none.
    fn dispatch(&mut self) {
        while let Some(output) = self.calls.poll_output() {
            let mailbox = match &output {
                Output::Open { stream: OutboundStream { call, .. }, .. }
                | Output::Offer { stream: OutboundStream { call, .. }, .. }
                | Output::SendInput { stream: OutboundStream { call, .. }, .. }
                | Output::Attach { stream: OutboundStream { call, .. }, .. }
                | Output::Cancel(OutboundStream { call, .. })
                | Output::Taken(OutboundStream { call, .. })
                | Output::Listen(OutboundStream { call, .. })
                | Output::TakeOutput { stream: OutboundStream { call, .. }, .. }
                | Output::Close(OutboundStream { call, .. })
                | Output::Report { call, .. }
                | Output::Search { call, .. }
                | Output::LookFor { call, .. }
                | Output::Ended { call, .. } => self.outbound.get(call),
                Output::WantPlace { stream, .. }
                | Output::SayQueued { stream, .. }
                | Output::Accept { stream, .. }
                | Output::Run { stream, .. }
                | Output::Resume { stream, .. }
                | Output::SayAlive(stream)
                | Output::Answer { stream, .. }
                | Output::Refuse { stream, .. }
                | Output::Drop(stream) => self.inbound.get(stream),
                Output::Stop { work } | Output::Forget { work } => {
                    self.works.stop(*work);
                    continue;
                }
            };
            // Never waited for: one task that hangs must not hold the lock that all others need.
            if let Some(mailbox) = mailbox
                && let Err(mpsc::error::TrySendError::Full(output)) = mailbox.try_send(output)
            {
                tracing::error!(?output, "a task of a call does not perform what it is to do");
            }
        }
    }
}

impl Drop for OutboundTask {
    fn drop(&mut self) {
        // The mailbox first: nobody is left to perform what giving up would put into it.
        self.driver.lock().outbound.remove(&self.call);
        self.driver.handle(Input::GiveUp { call: self.call });
    }
}

impl Drop for InboundTask {
    fn drop(&mut self) {
        self.driver.lock().inbound.remove(&self.stream);
        self.driver.handle(Input::Gone(self.stream));
    }
}
