//! Whether a node is ready, and whether the one task that everything waits for still works. Whoever asks finds that out; nothing
//! polls while nobody does.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{Handle, snapshot};
use crate::api::{self, ApiError, Diagnosis};
use crate::host::view::{self, Detail, Examined, HttpReadings, Snapshot};
use crate::net::client::{NodeClient, Patience};
use crate::net::driver::ReadContext;
use crate::telemetry::exposition::Format;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::otel;

/// A node that hears no peer for this long after its start answers for itself.
const ALONE_AFTER: Duration = Duration::from_secs(5);
/// How long the driver may take to answer who asks for its health. A burst of work is over before.
const PATIENCE: Duration = Duration::from_secs(2);
/// Calls in a list without a limit.
const CALLS_LIMIT: usize = 50;

/// What the driver does, as far as those know who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverState {
    /// It answers, or its turns end while others wait before this question.
    Turning,
    /// For so long it has neither answered nor ended a turn.
    Silent(Duration),
    /// The node has stopped.
    Stopped,
}

/// Since when the driver is silent; shared by all who ask.
#[derive(Debug, Default)]
pub(super) struct DriverWatch(Mutex<Option<Silence>>);

#[derive(Clone, Copy, Debug)]
struct Silence {
    /// When the first question that got no answer was asked.
    since: Instant,
    /// How many turns had ended when that question was given up.
    turns: u64,
}

impl DriverWatch {
    /// Asks the driver, for as long as `patience` at most.
    async fn ask(&self, node: &NodeClient, metrics: &Metrics, patience: Duration) -> DriverState {
        let turns = || metrics.driver_turn.read().count();
        let (asked, before) = (Instant::now(), turns());
        let answer = timeout(patience, node.read(Patience::Endless, |_| ())).await;
        let mut silence = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(Ok(())) => *silence = None,
            Ok(Err(_)) => return DriverState::Stopped,
            Err(_) => {
                let turns = turns();
                let known = silence.filter(|known| known.turns == turns);
                *silence = known.or((turns == before).then_some(Silence { since: asked, turns }));
            }
        }
        silence.map_or(DriverState::Turning, |silence| DriverState::Silent(silence.since.elapsed()))
    }
}

/// Tells how a node fares. Cheap to clone.
#[derive(Clone)]
pub struct HealthClient(Handle);

impl HealthClient {
    /// Asks the node behind `handle`.
    pub fn new(handle: Handle) -> HealthClient {
        HealthClient(handle)
    }

    /// Whether the node has compared its records with a peer, expects none, or has waited 5 s for one.
    pub async fn ready(&self) -> bool {
        let HealthClient(handle) = self;
        let expects = handle.expects_peers;
        let ready = handle
            .read(move |seen| !expects || seen.started.elapsed() >= ALONE_AFTER || seen.node.is_synced());
        ready.await.unwrap_or(false)
    }

    /// Whether the node still works; answers within 2 s.
    pub async fn driver_state(&self) -> DriverState {
        let HealthClient(handle) = self;
        handle.driver.ask(&handle.node, &handle.metrics, PATIENCE).await
    }

    /// The calls under way and those that ended lately.
    pub fn calls(&self, query: &api::CallsQuery) -> api::SeenCalls {
        let calls =
            self.0.metrics.calls.recent.list(Instant::now()).into_iter().map(|call| view::seen_call(&call));
        let is_wanted = |call: &api::SeenCall| {
            query.agent.as_ref().is_none_or(|agent| *agent == call.agent)
                && query.outcome.is_none_or(|outcome| outcome == call.outcome)
        };
        let limit = query.limit.unwrap_or(CALLS_LIMIT);
        api::SeenCalls { calls: calls.filter(is_wanted).take(limit).collect() }
    }

    /// What a self-check finds that only the node can look at, and its own limits.
    pub async fn diagnose(&self) -> Result<Diagnosis, ApiError> {
        let HealthClient(handle) = self;
        let is_ready = self.ready().await;
        let look = |seen: &mut ReadContext<'_>| {
            let first = seen.node.own_offers().min_by_key(|record| record.expires_at);
            let first_end = first.map(|record| (record.name.clone(), record.expires_at));
            (Snapshot::take(seen, Detail::Fingerprints), seen.node.own_offers().count(), first_end)
        };
        let (snapshot, offered, first_end) = handle.read(look).await?;
        let counted = handle.metrics.read();
        // In the first ten seconds there is no history.
        let turn_p99 = handle.monitor.greatest("driver_turn_p99_s").map(f64::from);
        Ok(view::diagnosis(&Examined {
            problems: snapshot.problems(&handle.monitor.trends()),
            snapshot,
            is_ready,
            expects_peers: handle.expects_peers,
            turn_p99: turn_p99.or_else(|| counted.driver_turn.quantile(0.99)),
            agents: handle.agents.states(),
            calls: (counted.calls.count(), counted.failed),
            offered,
            first_end,
            spans: otel::dropped().zip(otel::is_collector_lost()),
        }))
    }

    /// Everything that is counted, as text; `http` is what that server counts by itself.
    pub async fn metrics(&self, format: Format, http: &HttpReadings) -> Result<String, ApiError> {
        let HealthClient(handle) = self;
        let waiting = handle.node.waiting();
        let snapshot = snapshot(handle, Detail::Numbers).await?;
        let mut readings = view::metrics(&snapshot, &handle.monitor.trends(), &handle.agents, http);
        let help = "Requests of clients that wait for the one task that decides";
        readings.gauge("aop_driver_requests_waiting", help, &[], waiting as f64);
        Ok(readings.write(&handle.metrics, format))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::{RwLock, mpsc};

    use super::*;
    use crate::net::wall_clock;
    use crate::proto::config::Config;
    use crate::proto::identity::Identity;
    use crate::proto::node::Node;
    use crate::proto::persistence::Stored;

    /// A driver that takes questions and ends no turn.
    #[tokio::test]
    async fn a_driver_is_silent_since_the_first_question_without_an_answer_until_a_turn_ends() {
        let (requests, hung) = mpsc::channel(1);
        let node = Node::new(
            Identity::from_seed([7; 32]),
            Config::default(),
            [7; 32],
            Stored::default(),
            wall_clock(),
        );
        let node = NodeClient::new(Arc::new(RwLock::new(node)), requests);
        let (metrics, watch) = (Metrics::default(), DriverWatch::default());
        let ask = |patience_ms| watch.ask(&node, &metrics, Duration::from_millis(patience_ms));
        let silent = |state| match state {
            DriverState::Silent(silent) => silent,
            other => panic!("{other:?}"),
        };
        let began = Instant::now();
        assert!(silent(ask(20).await) >= Duration::from_millis(20));
        let known = began.elapsed();
        // By now the queue is full as well.
        assert!(silent(ask(20).await) >= known + Duration::from_millis(19), "since the first question");
        let turned = Instant::now();
        metrics.driver_turn.observe(Duration::from_secs(1));
        assert!(silent(ask(20).await) <= turned.elapsed(), "a turn ended in between");
        let turning = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            metrics.driver_turn.observe(Duration::from_secs(1));
        };
        let ((), state) = futures::future::join(turning, ask(400)).await;
        assert_eq!(state, DriverState::Turning, "others are before this question");
        drop(hung);
        assert_eq!(ask(20).await, DriverState::Stopped);
    }
}
