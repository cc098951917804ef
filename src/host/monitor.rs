//! Looks at the node every ten seconds: what is seen becomes history, and what the last minutes show becomes a problem.
//!
//! The bounds are those of the alerts for Prometheus (`docs/deploy`), for nodes that nobody scrapes (paper section 9.4).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::time::Instant;

use super::Handle;
use crate::net::client::Patience;
use crate::net::driver::{Event, ReadContext, Trend};
use crate::net::wall_clock;
use crate::proto::code::Code;
use crate::proto::name::FullName;
use crate::proto::time::Timestamp;
use crate::proto::zone::ZoneState;
use crate::telemetry::histogram::Reading;
use crate::telemetry::history::{History, PARTS_MAX, STEP, Sample, Step, Told};
use crate::telemetry::metrics::Counted;
use crate::telemetry::process::Process;

/// Calls that fail: more than this share of them within so many samples, ten minutes, at more than so many a second.
const FAILING_SHARE: f32 = 0.05;
const FAILING_SAMPLES: usize = 60;
const FAILING_RATE: f32 = 0.05;
/// Samples of ten minutes.
const RECENT_SAMPLES: usize = 60;
/// Calls that are slow: by this factor within so many samples, a quarter of an hour, against a day without its last hour.
const SLOW_FACTOR: f32 = 3.0;
const SLOW_SAMPLES: usize = 90;
const HOUR_COARSE: usize = 30;
/// Samples with calls that either side of that comparison needs.
const SLOW_KNOWN_MIN: usize = 30;
/// A zone is stale that was compared with nobody for so long, and that for so long.
const STALE_AFTER: Duration = Duration::from_secs(180);
const STALE_FOR: Duration = Duration::from_secs(300);
/// An agent fails of whose runs within so many samples, a quarter of an hour, more than this share failed, of so many or more.
const AGENT_SAMPLES: usize = 90;
const AGENT_SHARE: f64 = 0.1;
const AGENT_RUNS_MIN: u64 = 5;

/// What was seen. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Monitor(Arc<Mutex<Monitored>>);

#[derive(Default)]
struct Monitored {
    history: History,
    trends: Trends,
}

/// What the last minutes show, each with the time since which they do; by code, and by what it is about.
type Trends = BTreeMap<(Code, String), (Trend, Timestamp)>;

impl Monitor {
    /// What the last minutes show, and since when.
    pub(super) fn trends(&self) -> Vec<(Trend, Timestamp)> {
        self.lock().trends.values().cloned().collect()
    }

    /// The greatest number of a series within the last ten minutes.
    pub(super) fn greatest(&self, series: &str) -> Option<f32> {
        let values = self.lock().history.series(Step::Fine, series);
        values.iter().rev().take(RECENT_SAMPLES).flatten().copied().reduce(f32::max)
    }

    /// The numbers of the node.
    pub(super) fn read(&self, step: Step) -> Told {
        self.lock().history.read(step)
    }

    /// An hour of a zone by minutes.
    pub(super) fn zone(&self, name: &str) -> Option<Told> {
        self.lock().history.zone(name)
    }

    /// An hour of an own agent by minutes.
    pub(super) fn agent(&self, name: &str) -> Option<Told> {
        self.lock().history.agent(name)
    }

    fn lock(&self) -> MutexGuard<'_, Monitored> {
        // Every change is one step, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks until the node stops.
pub(super) async fn keep(handle: Handle, events: broadcast::Sender<Event>) {
    let mut before = Look::of(&handle);
    let mut minutes = LastMinutes::default();
    loop {
        tokio::select! {
            () = tokio::time::sleep(STEP) => {}
            () = handle.stopped() => return,
        }
        let state =
            |seen: &mut ReadContext<'_>| (seen.node.zone_states(wall_clock()), seen.network.traffic().peers);
        let Ok((zones, peers)) = handle.node.read(Patience::Endless, state).await else { return };
        let (look, now) = (Look::of(&handle), wall_clock());
        let sample = look.since(&before, &zones, peers);
        let agents = look.agents_since(&before);
        let mut monitored = handle.monitor.lock();
        monitored.history.push(now, sample);
        let of_zones = zones
            .iter()
            .map(|zone| (zone.zone.to_string(), [Some(zone.agents as f64), Some(zone.members as f64)]));
        let of_agents = agents.iter().map(|(name, runs)| (name.to_string(), runs.rates()));
        monitored.history.push_parts(now, of_zones.collect(), of_agents.collect());
        minutes.note(&zones, agents, now);
        let seen = minutes.trends(&monitored.history, now);
        for (key, trend) in &seen {
            if !monitored.trends.contains_key(key) {
                tracing::warn!(code = %key.0, of = key.1, "the last minutes show a problem");
                // Nobody may be watching.
                let _unwatched = events.send(Event::Noticed(trend.clone()));
            }
        }
        for (code, of) in monitored.trends.keys().filter(|key| !seen.contains_key(key)) {
            tracing::info!(%code, of, "the problem is over");
        }
        let since = |key: &(Code, String)| monitored.trends.get(key).map_or(now, |(_, since)| *since);
        monitored.trends = seen.into_iter().map(|(key, trend)| (key.clone(), (trend, since(&key)))).collect();
        drop(monitored);
        before = look;
    }
}

/// What was counted until one moment.
struct Look {
    at: Instant,
    counted: Counted,
    process: Option<Process>,
    waiting: usize,
    agents: BTreeMap<FullName, (u64, u64, Reading)>,
}

/// The runs of an agent between two looks.
struct Runs {
    completed: u64,
    failed: u64,
    p95: Option<f64>,
    seconds: f64,
}

impl Runs {
    fn rates(&self) -> [Option<f64>; 3] {
        [Some(self.completed as f64 / self.seconds), Some(self.failed as f64 / self.seconds), self.p95]
    }
}

impl Look {
    fn of(handle: &Handle) -> Look {
        let work = handle.agents.work().into_iter().take(PARTS_MAX);
        Look {
            at: Instant::now(),
            counted: handle.metrics.read(),
            process: Process::look(),
            waiting: handle.agents.totals().queued,
            agents: work
                .map(|(name, work)| (name, (work.completed, work.failed, work.took.read())))
                .collect(),
        }
    }

    fn seconds_since(&self, before: &Look) -> f64 {
        self.at.saturating_duration_since(before.at).as_secs_f64().max(0.001)
    }

    /// In the order of the series.
    fn since(&self, before: &Look, zones: &[ZoneState], peers: usize) -> Sample {
        let (now, then, seconds) = (&self.counted, &before.counted, self.seconds_since(before));
        let rate = |count: u64| Some(count as f64 / seconds);
        let (calls, finds, http) =
            (now.calls.since(&then.calls), now.finds.since(&then.finds), now.http.since(&then.http));
        let (rtt, turn, spread) = (
            now.rtt.since(&then.rtt),
            now.driver_turn.since(&then.driver_turn),
            now.spread.since(&then.spread),
        );
        let sum = |of: fn(&ZoneState) -> usize| Some(zones.iter().map(of).sum::<usize>() as f64);
        let clock = wall_clock();
        let lag = zones.iter().filter_map(|zone| Some(clock.since(zone.lagging_since?).as_secs_f64()));
        let cpu = self
            .process
            .zip(before.process)
            .map(|(now, then)| (now.cpu_seconds - then.cpu_seconds) / seconds);
        [
            rate(calls.count()),
            rate(now.failed - then.failed),
            calls.quantile(0.5),
            calls.quantile(0.95),
            calls.quantile(0.99),
            Some(now.in_flight as f64),
            Some(self.waiting as f64),
            rate(finds.count()),
            finds.quantile(0.99),
            rate(http.count()),
            http.quantile(0.99),
            Some(peers as f64),
            sum(|zone| zone.members),
            sum(|zone| zone.unreachable),
            Some(lag.fold(0.0, f64::max)),
            sum(|zone| zone.records),
            sum(|zone| zone.agents),
            rate(now.received_bytes - then.received_bytes),
            rate(now.sent_bytes - then.sent_bytes),
            rtt.quantile(0.5),
            cpu,
            self.process.map(|process| process.resident_bytes as f64),
            self.process.map(|process| process.open_files as f64),
            turn.quantile(0.99),
            spread.quantile(0.5),
            spread.quantile(0.99),
        ]
    }

    /// An agent whose file was read anew counts from nothing.
    fn agents_since(&self, before: &Look) -> BTreeMap<FullName, Runs> {
        let seconds = self.seconds_since(before);
        let runs = |(name, (completed, failed, took)): (&FullName, &(u64, u64, Reading))| {
            let then = before.agents.get(name);
            let since = |now: u64, then: Option<u64>| now - then.filter(|then| *then <= now).unwrap_or(0);
            let runs = Runs {
                completed: since(*completed, then.map(|it| it.0)),
                failed: since(*failed, then.map(|it| it.1)),
                p95: then.map_or_else(|| took.clone(), |it| took.since(&it.2)).quantile(0.95),
                seconds,
            };
            (name.clone(), runs)
        };
        self.agents.iter().map(runs).collect()
    }
}

/// What the history does not keep in the detail that trends need.
#[derive(Default)]
struct LastMinutes {
    /// Since when a zone is stale, and how long before it was compared.
    stale: BTreeMap<String, (Timestamp, Trend)>,
    /// Completed and failed runs of each agent, a sample each.
    runs: BTreeMap<FullName, VecDeque<(u64, u64)>>,
}

impl LastMinutes {
    fn note(&mut self, zones: &[ZoneState], agents: BTreeMap<FullName, Runs>, now: Timestamp) {
        let is_stale = |zone: &&ZoneState| {
            !zone.peers.is_empty() && zone.synced_at.is_some_and(|at| now.since(at) > STALE_AFTER)
        };
        let earlier = std::mem::take(&mut self.stale);
        for zone in zones.iter().filter(is_stale) {
            let seconds = zone.synced_at.map_or(0, |at| now.since(at).as_secs());
            let name = zone.zone.to_string();
            let since = earlier.get(&name).map_or(now, |(since, _)| *since);
            self.stale.insert(name, (since, Trend::SyncStale { zone: zone.zone.clone(), seconds }));
        }
        self.runs.retain(|name, _| agents.contains_key(name));
        for (name, runs) in agents {
            let kept = self.runs.entry(name).or_default();
            if kept.len() == AGENT_SAMPLES {
                kept.pop_front();
            }
            kept.push_back((runs.completed, runs.failed));
        }
    }

    fn trends(&self, history: &History, now: Timestamp) -> BTreeMap<(Code, String), Trend> {
        let fine = |name| history.series(Step::Fine, name);
        let mut trends = BTreeMap::new();
        if let Some(share) = failing(&fine("calls"), &fine("failed")) {
            trends.insert((Code::CallsFailing, String::new()), Trend::CallsFailing { share });
        }
        if let Some((seconds, usual)) = slow(&fine("call_p95_s"), &history.series(Step::Coarse, "call_p95_s"))
        {
            trends.insert((Code::CallsSlow, String::new()), Trend::CallsSlow { seconds, usual });
        }
        for (zone, (since, trend)) in &self.stale {
            if now.since(*since) >= STALE_FOR {
                trends.insert((Code::SyncStale, zone.clone()), trend.clone());
            }
        }
        for (agent, runs) in &self.runs {
            let (completed, failed) = runs.iter().fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
            let runs = completed + failed;
            if runs >= AGENT_RUNS_MIN && failed as f64 > runs as f64 * AGENT_SHARE {
                let trend = Trend::AgentFailing { agent: agent.clone(), failed, runs };
                trends.insert((Code::AgentFailing, agent.to_string()), trend);
            }
        }
        trends
    }
}

/// The share of calls that fail, percent, where it is too great.
fn failing(calls: &[Option<f32>], failed: &[Option<f32>]) -> Option<f64> {
    let last = |of: &[Option<f32>]| -> Option<f32> {
        let of = of.get(of.len().checked_sub(FAILING_SAMPLES)?..)?;
        Some(of.iter().flatten().sum::<f32>() / FAILING_SAMPLES as f32)
    };
    let (calls, failed) = (last(calls)?, last(failed)?);
    (calls > FAILING_RATE && failed > calls * FAILING_SHARE).then(|| f64::from(failed / calls * 100.0))
}

/// What calls take and took, where that is much more.
fn slow(fine: &[Option<f32>], coarse: &[Option<f32>]) -> Option<(f64, f64)> {
    let mean = |of: &[Option<f32>]| {
        let known: Vec<f32> = of.iter().flatten().copied().collect();
        (known.len() >= SLOW_KNOWN_MIN).then(|| known.iter().sum::<f32>() / known.len() as f32)
    };
    let now = mean(fine.get(fine.len().checked_sub(SLOW_SAMPLES)?..)?)?;
    let usual = mean(coarse.get(..coarse.len().checked_sub(HOUR_COARSE)?)?)?;
    (now > usual * SLOW_FACTOR).then(|| (now.into(), usual.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::history::SERIES;

    #[test]
    fn calls_fail_when_one_in_twenty_does_for_ten_minutes_and_there_are_enough() {
        let all = |value: f32, count: usize| vec![Some(value); count];
        assert_eq!(failing(&all(1.0, 60), &all(0.1, 60)).map(|share| share.round()), Some(10.0));
        assert_eq!(failing(&all(1.0, 60), &all(0.04, 60)), None, "few");
        assert_eq!(failing(&all(0.04, 60), &all(0.04, 60)), None, "hardly any calls");
        assert_eq!(failing(&all(1.0, 59), &all(1.0, 59)), None, "not yet");
        let healed: Vec<Option<f32>> = [all(1.0, 60), all(0.0, 60)].concat();
        assert_eq!(failing(&all(1.0, 120), &healed), None, "over");
    }

    #[test]
    fn calls_that_fail_and_take_long_are_seen_in_the_history() {
        let mut history = History::default();
        let number = |name: &str, value: f64, sample: &mut Sample| {
            sample[SERIES.iter().position(|series| *series == name).unwrap()] = Some(value);
        };
        for at in 0..1_000_u64 {
            let mut sample: Sample = [None; SERIES.len()];
            number("calls", 1.0, &mut sample);
            number("failed", if at < 900 { 0.0 } else { 0.5 }, &mut sample);
            number("call_p95_s", if at < 900 { 0.1 } else { 1.0 }, &mut sample);
            history.push(Timestamp(1_800_000_000_000 + at * 10_000), sample);
        }
        let codes: Vec<Code> = LastMinutes::default()
            .trends(&history, Timestamp(1_800_010_000_000))
            .into_keys()
            .map(|key| key.0)
            .collect();
        assert_eq!(codes, [Code::CallsFailing, Code::CallsSlow]);
    }

    #[test]
    fn calls_are_slow_against_their_own_day() {
        let all = |value: f32, count: usize| vec![Some(value); count];
        assert!(slow(&all(0.4, 90), &all(0.1, 100)).is_some());
        assert_eq!(slow(&all(0.2, 90), &all(0.1, 100)), None);
        assert_eq!(slow(&all(0.4, 90), &all(0.1, 40)), None, "the day is too short");
        assert_eq!(slow(&vec![None; 90], &all(0.1, 100)), None, "nobody calls");
    }

    #[test]
    fn a_zone_is_stale_while_its_peers_are_there_and_an_agent_fails_by_its_share() {
        let name: FullName = "a@.".parse().unwrap();
        let zone = |synced: u64, peers: usize| ZoneState {
            zone: crate::proto::name::ZoneName::root(),
            key: None,
            role: crate::proto::io::Role::Member,
            records: 0,
            agents: 0,
            bytes: 0,
            peers: vec![crate::proto::identity::PeerKey([1; 32]); peers],
            members: 2,
            unreachable: 0,
            lagging_since: None,
            synced_at: Some(Timestamp(synced)),
            authors: 1,
        };
        let runs = |completed, failed| {
            BTreeMap::from([(name.clone(), Runs { completed, failed, p95: None, seconds: 10.0 })])
        };
        let mut minutes = LastMinutes::default();
        let codes = |minutes: &LastMinutes, at: u64| -> Vec<Code> {
            minutes.trends(&History::default(), Timestamp(at)).into_keys().map(|key| key.0).collect()
        };
        minutes.note(&[zone(0, 1)], runs(3, 1), Timestamp(200_000));
        assert_eq!(codes(&minutes, 200_000), [], "four runs are too few");
        minutes.note(&[zone(0, 1)], runs(1, 0), Timestamp(500_000));
        assert_eq!(codes(&minutes, 500_000), [Code::AgentFailing, Code::SyncStale]);
        minutes.note(&[zone(0, 0)], runs(5, 0), Timestamp(510_000));
        assert_eq!(
            codes(&minutes, 510_000),
            [],
            "nobody is there to compare with, and one of ten is no more than one in ten"
        );
    }
}
