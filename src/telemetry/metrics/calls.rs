//! What a node counts of calls: those under way, and how they ended.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use super::{Counters, DIRECTION, Gauges, Histograms, Labels, ListedCounters, Maker, begun};
use crate::proto::call::{CallFailure, Outcome};
use crate::proto::code::{Code, Fault};
use crate::proto::identity::PeerKey;
use crate::proto::time::Timestamp;
use crate::telemetry::context;
use crate::telemetry::histogram::{Histogram, Reading};
use crate::telemetry::recent_calls::{CallEnd, CallState, CallSubject, RecentCalls};

/// What is counted of calls.
pub(crate) struct CallMetrics {
    /// All that ended, whoever's part they were, and those that failed.
    all: Histogram,
    failed: Counter,
    ended: Counters<3>,
    /// Of these, those that ended well, by side.
    completed: [Counter; 3],
    /// By side, and by outcome.
    took: [[Histogram; 4]; 3],
    /// By side: those that wait for a place of an agent, and those at work.
    in_flight: [Arc<[Gauge; 2]>; 3],
    bytes: Counters<2>,
    offers: ListedCounters,
    /// Of each series of durations the last call that is part of a trace, one a second at most.
    exemplars: Mutex<BTreeMap<String, Exemplar>>,
    pub(crate) recent: RecentCalls,
}

/// A call that a collector knows.
#[derive(Clone, Debug)]
pub(crate) struct Exemplar {
    pub(crate) trace: String,
    pub(crate) seconds: f64,
    pub(crate) ended: SystemTime,
}

/// Whose part of a call it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// A client of this node calls an agent of this host.
    Local,
    /// A client of this node calls another host.
    Caller,
    /// Another node calls an agent of this host.
    Host,
}

/// A call under way. Dropped without an end it was cancelled.
pub(crate) struct CallUnderWay<'a> {
    metrics: &'a CallMetrics,
    side: Side,
    began: Instant,
    stage: CallStage,
    /// Among the recent calls.
    number: u64,
    end: CallEnd,
    is_ended: bool,
}

/// Whether a call under way waits for a place of its agent or is at work. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CallStage(Arc<StageInner>);

#[derive(Debug)]
struct StageInner {
    /// One of the numbers below; it only rises.
    reached: AtomicU8,
    /// Those that wait, and those at work.
    gauges: Arc<[Gauge; 2]>,
}

const WAITING: u8 = 0;
const WORKING: u8 = 1;
const ENDED: u8 = 2;

/// Name of the durations.
pub(crate) const DURATION: &str = "aop_call_duration_seconds";
/// The least time between two exemplars of a series.
const EXEMPLAR_EVERY: Duration = Duration::from_secs(1);
/// How a call may end: well, or with an outcome.
const ENDS: [Option<Outcome>; 4] =
    [None, Some(Outcome::NotStarted), Some(Outcome::Unknown), Some(Outcome::Done)];
/// What a label says of a call that ended well.
const OK: &str = "ok";

/// A call of another node that waits for a place; it is not under way yet.
pub(crate) struct WaitingCall(Gauge);

impl CallMetrics {
    pub(super) fn new(maker: &mut Maker, call: fn() -> Histogram) -> CallMetrics {
        let in_flight: Gauges<2> = maker.gauges(
            "aop_calls_in_flight",
            "Calls that have not ended, by whose part it is and whether they wait for a place or are at work",
        );
        let gauges = |side: Side| {
            let of = |state| in_flight.get_or_create_owned(&[side.label(), ("state", state)]);
            Arc::new(["waiting", "working"].map(of))
        };
        let ended: Counters<3> =
            maker.counters("aop_calls", "Calls that ended, by whose part it was and how");
        let completed =
            |side: Side| ended.get_or_create_owned(&[side.label(), ("outcome", OK), ("code", "")]);
        let took: Histograms<Labels<2>> =
            maker.histograms(DURATION, "How long calls took, waits included", call);
        let by_outcome = |side: Side| {
            ENDS.map(|outcome| took.get_or_create_owned(&[side.label(), ("outcome", text(outcome))]))
        };
        let (label, ways) = DIRECTION;
        let over_the_mesh = [Side::Caller, Side::Host].into_iter();
        CallMetrics {
            all: call(),
            failed: Counter::default(),
            completed: Side::ALL.map(completed),
            took: Side::ALL.map(by_outcome),
            in_flight: Side::ALL.map(gauges),
            bytes: begun(
                maker.counters("aop_call_bytes", "Bytes of inputs and outputs of calls over the mesh"),
                over_the_mesh.flat_map(|side| ways.map(|way| [side.label(), (label, way)])),
            ),
            offers: maker.listed(
                "aop_call_offers",
                "Offers of calls to hosts, by what came of them",
                ("result", ["made", "accepted", "failed", "lost", "stale", "not_opened"]),
            ),
            exemplars: Mutex::default(),
            recent: RecentCalls::default(),
            ended,
        }
    }

    /// A call begins, `now` by this node's clock, and waits for its place.
    pub(crate) fn begin(&self, side: Side, subject: CallSubject, now: Timestamp) -> CallUnderWay<'_> {
        let gauges = self.in_flight[side as usize].clone();
        gauges[usize::from(WAITING)].inc();
        let stage = CallStage(Arc::new(StageInner { reached: AtomicU8::new(WAITING), gauges }));
        let began = Instant::now();
        let number = self.recent.begin(subject, side, now, began);
        // What is dropped without a word was given up.
        let state = CallState::Failed(Outcome::Unknown, Code::Cancelled);
        let end = CallEnd { state, peer: None, bytes: None };
        CallUnderWay { metrics: self, side, began, stage, number, end, is_ended: false }
    }

    /// A call of another node waits for a place, until this is dropped.
    pub(crate) fn wait(&self) -> WaitingCall {
        let gauge = self.in_flight[Side::Host as usize][usize::from(WAITING)].clone();
        gauge.inc();
        WaitingCall(gauge)
    }

    /// A call that was not begun.
    pub(crate) fn refused(&self, side: Side, failure: &CallFailure) {
        let labels = [side.label(), ("outcome", failure.outcome.text()), ("code", failure.code.text())];
        self.ended.get_or_create(&labels).inc();
    }

    /// A host answered an offer, or did not.
    pub(crate) fn offered(&self, result: &'static str) {
        self.offers.inc(result);
    }

    fn note_exemplar(&self, side: Side, outcome: Option<Outcome>, trace: String, took: Duration) {
        let series = format!("side=\"{}\",outcome=\"{}\"", side.label().1, text(outcome));
        let exemplar = Exemplar { trace, seconds: took.as_secs_f64(), ended: SystemTime::now() };
        let mut exemplars = self.exemplars.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |known: &Exemplar| known.ended.elapsed().is_ok_and(|since| since < EXEMPLAR_EVERY);
        if !exemplars.get(&series).is_some_and(is_recent) {
            exemplars.insert(series, exemplar);
        }
    }

    /// Calls that a collector knows, by the labels of their series.
    pub(crate) fn exemplars(&self) -> BTreeMap<String, Exemplar> {
        self.exemplars.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How long all took that ended.
    pub(super) fn all(&self) -> Reading {
        self.all.read()
    }

    /// How many failed, and not by a mistake of their callers.
    pub(super) fn failed(&self) -> u64 {
        self.failed.get()
    }

    /// How many have not ended.
    pub(super) fn in_flight(&self) -> i64 {
        self.in_flight.iter().flat_map(|gauges| gauges.iter()).map(|gauge| gauge.get()).sum()
    }
}

impl CallUnderWay<'_> {
    /// Where it stands, for whoever knows when its work begins.
    pub(crate) fn stage(&self) -> CallStage {
        self.stage.clone()
    }

    /// This other node has to do with it.
    pub(crate) fn with(&mut self, peer: Option<PeerKey>) {
        self.end.peer = peer;
    }

    /// Its input and its output went over the mesh.
    pub(crate) fn carried(&mut self, input: usize, output: usize) {
        self.end.bytes = Some((input, output));
        let (input_way, output_way) = if self.side == Side::Host { ("in", "out") } else { ("out", "in") };
        for (direction, bytes) in [(input_way, input), (output_way, output)] {
            let labels = [self.side.label(), ("direction", direction)];
            self.metrics.bytes.get_or_create(&labels).inc_by(bytes as u64);
        }
    }

    /// It ended: with a failure, or well.
    pub(crate) fn end(mut self, failure: Option<&CallFailure>) {
        if failure.is_some_and(|failure| failure.code.fault() != Fault::Sender) {
            self.metrics.failed.inc();
        }
        self.end.state = CallState::of(failure);
        self.count();
    }

    fn count(&mut self) {
        self.is_ended = true;
        self.stage.reach(ENDED);
        let now = Instant::now();
        self.metrics.recent.end(self.number, self.end, now);
        let side = self.side as usize;
        let outcome = match self.end.state {
            CallState::Failed(outcome, code) => {
                let labels = [self.side.label(), ("outcome", outcome.text()), ("code", code.text())];
                self.metrics.ended.get_or_create(&labels).inc();
                Some(outcome)
            }
            CallState::UnderWay | CallState::Answered => {
                self.metrics.completed[side].inc();
                None
            }
        };
        let took = now - self.began;
        if let Some(trace) = context::sampled_trace() {
            self.metrics.note_exemplar(self.side, outcome, trace, took);
        }
        ENDS.iter()
            .zip(&self.metrics.took[side])
            .filter(|(end, _)| **end == outcome)
            .for_each(|(_, histogram)| histogram.observe(took));
        self.metrics.all.observe(took);
    }
}

impl Drop for CallUnderWay<'_> {
    fn drop(&mut self) {
        if !self.is_ended {
            self.count();
        }
    }
}

impl CallStage {
    /// The call has its place.
    pub(crate) fn begin_work(&self) {
        self.reach(WORKING);
    }

    fn reach(&self, stage: u8) {
        let before = self.0.reached.fetch_max(stage, Relaxed);
        if stage > before {
            // One that has ended is in neither.
            self.0.gauges.get(usize::from(before)).into_iter().for_each(|gauge| _ = gauge.dec());
            self.0.gauges.get(usize::from(stage)).into_iter().for_each(|gauge| _ = gauge.inc());
        }
    }
}

impl Drop for WaitingCall {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What a label says of an end.
fn text(outcome: Option<Outcome>) -> &'static str {
    outcome.map_or(OK, Outcome::text)
}

impl Side {
    /// In the order of their numbers.
    const ALL: [Side; 3] = [Side::Local, Side::Caller, Side::Host];

    fn label(self) -> (&'static str, &'static str) {
        let text = match self {
            Side::Local => "local",
            Side::Caller => "caller",
            Side::Host => "host",
        };
        ("side", text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::*;
    use crate::proto::call::CallId;

    #[test]
    fn a_call_waits_then_works_and_is_neither_once_it_ended_whoever_still_holds_its_stage() {
        let metrics = Metrics::default();
        let of = |side: Side| {
            let [waiting, working] = &*metrics.calls.in_flight[side as usize];
            (waiting.get(), working.get())
        };
        let begin = || {
            let agent = "a@.".parse().unwrap();
            let subject = CallSubject { call: CallId([1; 16]), agent, peer: None, trace: None };
            metrics.calls.begin(Side::Local, subject, Timestamp(0))
        };
        let (call, other) = (begin(), begin());
        let stage = call.stage();
        assert_eq!((of(Side::Local), of(Side::Host)), ((2, 0), (0, 0)));
        stage.begin_work();
        stage.begin_work();
        assert_eq!(of(Side::Local), (1, 1));
        call.end(None);
        stage.begin_work();
        drop(other);
        let waits = metrics.calls.wait();
        assert_eq!((of(Side::Local), of(Side::Host), metrics.calls.in_flight()), ((0, 0), (1, 0), 1));
        drop(waits);
        assert_eq!(metrics.calls.in_flight(), 0);
    }
}
