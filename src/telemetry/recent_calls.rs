//! The calls under way and those that ended lately: who called whom and how it ended, never what was said.
//!
//! Calls of this node's own clients and those of other nodes have room of their own, so that nobody from outside can push out of
//! sight what was called here, or keep the watchers busy.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::time::Instant;

use super::metrics::Side;
use crate::proto::call::{CallFailure, CallId, Outcome, TraceParent};
use crate::proto::code::Code;
use crate::proto::identity::PeerKey;
use crate::proto::name::FullName;
use crate::proto::time::Timestamp;

/// Ended calls that are kept of each of both.
const KEPT_MAX: usize = 256;
/// Events of calls in a second of each of both.
const EVENTS_MAX: u32 = 25;
/// A call that takes longer is told before it ends.
const LONG: Duration = Duration::from_secs(1);
/// Events kept for a slow watcher.
const WATCHER_EVENTS_MAX: usize = 256;

/// Which call it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CallSubject {
    pub(crate) call: CallId,
    pub(crate) agent: FullName,
    /// The other node; none while it is not known, and for what begins and ends here.
    pub(crate) peer: Option<PeerKey>,
    pub(crate) trace: Option<TraceParent>,
}

/// A call as it is seen from this node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SeenCall {
    pub(crate) subject: CallSubject,
    pub(crate) side: Side,
    /// By this node's clock.
    pub(crate) began: Timestamp,
    /// Until now, where it has not ended.
    pub(crate) took: Duration,
    pub(crate) state: CallState,
    /// Of input and output, where they went over the mesh.
    pub(crate) bytes: Option<(usize, usize)>,
}

/// How a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallState {
    UnderWay,
    Answered,
    Failed(Outcome, Code),
}

impl CallState {
    pub(crate) fn of(failure: Option<&CallFailure>) -> CallState {
        failure.map_or(CallState::Answered, |failure| CallState::Failed(failure.outcome, failure.code))
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallEnd {
    pub(crate) state: CallState,
    /// The other node, where that was not known before.
    pub(crate) peer: Option<PeerKey>,
    /// See [`SeenCall::bytes`].
    pub(crate) bytes: Option<(usize, usize)>,
}

/// What watchers are told of calls.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum CallEvent {
    /// It takes long.
    Started(Arc<SeenCall>),
    Ended(Arc<SeenCall>),
    /// So many more began to take long, or ended.
    Unseen(u64),
}

/// What is kept of the calls of one node.
pub(crate) struct RecentCalls {
    kept: Mutex<Kept>,
    watchers: broadcast::Sender<CallEvent>,
}

#[derive(Default)]
struct Kept {
    /// By the order in which they began.
    under_way: BTreeMap<u64, UnderWay>,
    next: u64,
    /// Those of own clients, and those of other nodes; the last that ended is the last.
    ended: [VecDeque<Arc<SeenCall>>; 2],
    /// Events of both in this second.
    told: [u32; 2],
    untold: u64,
}

struct UnderWay {
    call: SeenCall,
    since: Instant,
    is_told: bool,
}

impl UnderWay {
    fn seen(&self, now: Instant) -> SeenCall {
        SeenCall { took: now.saturating_duration_since(self.since), ..self.call.clone() }
    }
}

/// Whose calls they are among the two.
fn lane(side: Side) -> usize {
    usize::from(side == Side::Host)
}

impl Default for RecentCalls {
    fn default() -> RecentCalls {
        RecentCalls { kept: Mutex::default(), watchers: broadcast::channel(WATCHER_EVENTS_MAX).0 }
    }
}

impl RecentCalls {
    /// A call begins; answers with its number.
    pub(super) fn begin(&self, subject: CallSubject, side: Side, began: Timestamp, since: Instant) -> u64 {
        let (took, state, bytes) = (Duration::ZERO, CallState::UnderWay, None);
        let call = SeenCall { subject, side, began, took, state, bytes };
        let mut kept = self.lock();
        let number = kept.next;
        kept.next += 1;
        kept.under_way.insert(number, UnderWay { call, since, is_told: false });
        number
    }

    /// It ended.
    pub(super) fn end(&self, number: u64, end: CallEnd, now: Instant) {
        let mut kept = self.lock();
        let Some(ended) = kept.under_way.remove(&number) else { return };
        let mut call = SeenCall { state: end.state, bytes: end.bytes, ..ended.seen(now) };
        call.subject.peer = end.peer.or(call.subject.peer);
        let (lane, call) = (lane(call.side), Arc::new(call));
        let ring = &mut kept.ended[lane];
        if ring.len() == KEPT_MAX {
            ring.pop_front();
        }
        ring.push_back(call.clone());
        self.tell(&mut kept, lane, CallEvent::Ended(call));
    }

    /// Those under way and then those that ended, the latest first.
    pub(crate) fn list(&self, now: Instant) -> Vec<Arc<SeenCall>> {
        let kept = self.lock();
        let mut ended: Vec<_> = kept.ended.iter().flatten().cloned().collect();
        let under_way: Vec<_> = kept.under_way.values().rev().map(|it| Arc::new(it.seen(now))).collect();
        drop(kept);
        ended.sort_by_key(|call| std::cmp::Reverse(call.began.0 + call.took.as_millis() as u64));
        under_way.into_iter().chain(ended).collect()
    }

    /// Events from now on.
    pub(crate) fn watch(&self) -> broadcast::Receiver<CallEvent> {
        self.watchers.subscribe()
    }

    /// A second has gone by: what takes long by now is told, and how much was not.
    pub(crate) fn next_second(&self, now: Instant) {
        let mut kept = self.lock();
        kept.told = [0; 2];
        let untold = std::mem::take(&mut kept.untold);
        if untold > 0 {
            let _unwatched = self.watchers.send(CallEvent::Unseen(untold));
        }
        let mut long = Vec::new();
        for under_way in kept.under_way.values_mut() {
            if !under_way.is_told && now.saturating_duration_since(under_way.since) >= LONG {
                under_way.is_told = true;
                long.push(Arc::new(under_way.seen(now)));
            }
        }
        for call in long {
            self.tell(&mut kept, lane(call.side), CallEvent::Started(call));
        }
    }

    fn tell(&self, kept: &mut Kept, lane: usize, event: CallEvent) {
        if kept.told[lane] < EVENTS_MAX {
            kept.told[lane] += 1;
            let _unwatched = self.watchers.send(event);
        } else {
            kept.untold += 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Every change is one step, so a panic elsewhere leaves nothing half done.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(calls: &RecentCalls, number: u8, side: Side, now: Instant) -> u64 {
        let agent = format!("a{number}@.").parse().unwrap();
        let subject = CallSubject { call: CallId([number; 16]), agent, peer: None, trace: None };
        calls.begin(subject, side, Timestamp(u64::from(number)), now)
    }

    fn answered(calls: &RecentCalls, number: u64, now: Instant) {
        calls.end(number, CallEnd { state: CallState::Answered, peer: None, bytes: None }, now);
    }

    fn told(watcher: &mut broadcast::Receiver<CallEvent>) -> Vec<CallEvent> {
        std::iter::from_fn(|| watcher.try_recv().ok()).collect()
    }

    #[test]
    fn a_call_is_told_when_it_takes_long_and_when_it_ends() {
        let (calls, now) = (RecentCalls::default(), Instant::now());
        let mut watcher = calls.watch();
        let (short, long) = (begin(&calls, 1, Side::Local, now), begin(&calls, 2, Side::Caller, now));
        answered(&calls, short, now);
        let later = now + LONG;
        calls.next_second(later);
        calls.next_second(later);
        let listed = calls.list(later);
        let listed: Vec<_> = listed.iter().map(|call| (call.subject.call.0[0], call.state)).collect();
        assert_eq!(listed, [(2, CallState::UnderWay), (1, CallState::Answered)]);
        let peer = PeerKey([7; 32]);
        let failed = CallState::Failed(Outcome::Unknown, Code::Deadline);
        calls.end(long, CallEnd { state: failed, peer: Some(peer), bytes: Some((3, 4)) }, later);
        let told = told(&mut watcher);
        let [CallEvent::Ended(first), CallEvent::Started(second), CallEvent::Ended(third)] = &told[..] else {
            panic!("{told:?}")
        };
        assert_eq!((first.subject.call.0[0], first.took), (1, Duration::ZERO));
        assert_eq!((second.subject.call.0[0], second.took, second.state), (2, LONG, CallState::UnderWay));
        let end = (third.subject.peer, third.state, third.bytes, third.took);
        assert_eq!(end, (Some(peer), failed, Some((3, 4)), LONG));
        assert_eq!(calls.list(later).len(), 2);
    }

    #[test]
    fn calls_of_others_neither_push_out_own_ones_nor_silence_them() {
        let (calls, now) = (RecentCalls::default(), Instant::now());
        let mut watcher = calls.watch();
        let own = begin(&calls, 1, Side::Local, now);
        answered(&calls, own, now);
        for _ in 0..1_000 {
            let other = begin(&calls, 2, Side::Host, now);
            answered(&calls, other, now);
        }
        let last = begin(&calls, 3, Side::Caller, now);
        answered(&calls, last, now);
        let of = |number| calls.list(now).iter().filter(|call| call.subject.call.0[0] == number).count();
        assert_eq!((of(1), of(2), of(3)), (1, KEPT_MAX, 1));
        assert_eq!(told(&mut watcher).len(), 2 + EVENTS_MAX as usize);
        calls.next_second(now);
        assert_eq!(told(&mut watcher), [CallEvent::Unseen(1_000 - u64::from(EVENTS_MAX))]);
        calls.next_second(now);
        assert_eq!(told(&mut watcher), []);
    }
}
