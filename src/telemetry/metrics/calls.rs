//! What a node counts of calls: those under way, and how they ended.

use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use super::{Counters, Gauges, Histograms, Labels, Maker};
use crate::proto::call::{CallFailure, Outcome};
use crate::proto::code::{Code, Fault};
use crate::telemetry::histogram::{Histogram, Reading};

/// What is counted of calls.
pub(crate) struct CallMetrics {
    /// All that ended, whoever's part they were, and those that failed.
    all: Histogram,
    failed: Counter,
    ended: Counters<3>,
    took: Histograms<Labels<2>>,
    /// By side: those that wait for a place of an agent, and those at work.
    in_flight: [[Gauge; 2]; 3],
    bytes: Counters<2>,
    offers: Counters<1>,
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
    gauges: [Gauge; 2],
}

const WAITING: u8 = 0;
const WORKING: u8 = 1;
const ENDED: u8 = 2;

/// A call of another node that waits for a place; it is not under way yet.
pub(crate) struct WaitingCall(Gauge);

impl CallMetrics {
    pub(super) fn new(maker: &mut Maker, call: fn() -> Histogram) -> CallMetrics {
        let in_flight: Gauges<2> = maker.gauges(
            "aop_calls_in_flight",
            "Calls that have not ended, by whose part it is and whether they wait for a place or are at work",
        );
        let gauges = |side: Side| {
            ["waiting", "working"]
                .map(|state| in_flight.get_or_create_owned(&[side.label(), ("state", state)]))
        };
        CallMetrics {
            all: call(),
            failed: Counter::default(),
            ended: maker.counters("aop_calls", "Calls that ended, by whose part it was and how"),
            took: maker.histograms("aop_call_duration_seconds", "How long calls took, waits included", call),
            in_flight: Side::ALL.map(gauges),
            bytes: maker.counters("aop_call_bytes", "Bytes of inputs and outputs of calls over the mesh"),
            offers: maker.counters("aop_call_offers", "Offers of calls to hosts, by what came of them"),
        }
    }

    /// A call begins, and waits for its place.
    pub(crate) fn begin(&self, side: Side) -> CallUnderWay<'_> {
        let gauges = self.in_flight[side as usize].clone();
        gauges[usize::from(WAITING)].inc();
        let stage = CallStage(Arc::new(StageInner { reached: AtomicU8::new(WAITING), gauges }));
        CallUnderWay { metrics: self, side, began: Instant::now(), stage, is_ended: false }
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

    /// An input and an output went over the mesh.
    pub(crate) fn carried(&self, side: Side, input: usize, output: usize) {
        let (input_way, output_way) = if side == Side::Host { ("in", "out") } else { ("out", "in") };
        for (direction, bytes) in [(input_way, input), (output_way, output)] {
            self.bytes.get_or_create(&[side.label(), ("direction", direction)]).inc_by(bytes as u64);
        }
    }

    /// A host answered an offer, or did not.
    pub(crate) fn offered(&self, result: &'static str) {
        self.offers.get_or_create(&[("result", result)]).inc();
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
        self.in_flight.iter().flatten().map(|gauge| gauge.get()).sum()
    }
}

impl CallUnderWay<'_> {
    /// Where it stands, for whoever knows when its work begins.
    pub(crate) fn stage(&self) -> CallStage {
        self.stage.clone()
    }

    /// It ended: with a failure, or well.
    pub(crate) fn end(mut self, failure: Option<&CallFailure>) {
        match failure {
            None => self.count("ok", ""),
            Some(failure) => {
                if failure.code.fault() != Fault::Sender {
                    self.metrics.failed.inc();
                }
                self.count(failure.outcome.text(), failure.code.text());
            }
        }
    }

    fn count(&mut self, outcome: &'static str, code: &'static str) {
        self.is_ended = true;
        self.stage.reach(ENDED);
        let (side, outcome) = (self.side.label(), ("outcome", outcome));
        self.metrics.ended.get_or_create(&[side, outcome, ("code", code)]).inc();
        let took = self.began.elapsed();
        self.metrics.took.get_or_create(&[side, outcome]).observe(took);
        self.metrics.all.observe(took);
    }
}

impl Drop for CallUnderWay<'_> {
    fn drop(&mut self) {
        if !self.is_ended {
            self.count(Outcome::Unknown.text(), Code::Cancelled.text());
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

    #[test]
    fn a_call_waits_then_works_and_is_neither_once_it_ended_whoever_still_holds_its_stage() {
        let metrics = Metrics::default();
        let of = |side: Side| {
            let [waiting, working] = &metrics.calls.in_flight[side as usize];
            (waiting.get(), working.get())
        };
        let (call, other) = (metrics.calls.begin(Side::Local), metrics.calls.begin(Side::Local));
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
