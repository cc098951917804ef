//! How the last day went, for whoever has no Prometheus: two rings of samples, one of ten seconds and an hour, one of two minutes
//! and a day, and beside them an hour by minutes of each zone and own agent. All of it takes 300 KB at most.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::proto::time::Timestamp;

/// Time between two samples.
pub(crate) const STEP: Duration = Duration::from_secs(10);
/// Samples of ten seconds that are kept: an hour.
const FINE_MAX: usize = 360;
/// Samples that make one of the longer steps, two minutes, and how many of those are kept: a day.
const COARSE_OF: usize = 12;
const COARSE_MAX: usize = 720;
/// Samples that make a minute, and minutes that are kept of a zone or an agent.
const MINUTE_OF: usize = 6;
const MINUTES_MAX: usize = 60;
/// Zones and agents of which minutes are kept; of more the first by name.
pub(crate) const PARTS_MAX: usize = 108;

/// Names of the numbers of a sample, in their order.
pub(crate) const SERIES: [&str; 26] = [
    "calls",
    "failed",
    "call_p50_s",
    "call_p95_s",
    "call_p99_s",
    "in_flight",
    "waiting",
    "finds",
    "find_p99_s",
    "http",
    "http_p99_s",
    "peers",
    "members",
    "unreachable",
    "lag_s",
    "records",
    "agents",
    "bytes_in",
    "bytes_out",
    "rtt_p50_s",
    "cpu",
    "rss_bytes",
    "fds",
    "driver_turn_p99_s",
    "spread_p50_s",
    "spread_p99_s",
];
/// Names of the numbers of a zone, and of an agent, in their order.
pub(crate) const ZONE_SERIES: [&str; 2] = ["agents", "members"];
pub(crate) const AGENT_SERIES: [&str; 3] = ["ok", "failed", "p95_s"];

/// One look at the node: a number a series, none where there is nothing to tell.
pub(crate) type Sample = [Option<f64>; SERIES.len()];

/// What a ring is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// An hour by ten seconds.
    Fine,
    /// A day by two minutes.
    Coarse,
}

/// The samples of one step, oldest first. A gap is a sample of nothing.
#[derive(Debug)]
struct Ring<const N: usize> {
    step: Duration,
    most: usize,
    samples: VecDeque<[f32; N]>,
    /// When the last one ended.
    end: Timestamp,
    /// What the next one is made of.
    parts: Vec<[f32; N]>,
    parts_of: usize,
}

/// What a ring tells.
#[derive(Debug, PartialEq)]
pub(crate) struct Told {
    pub(crate) step: Duration,
    pub(crate) end: Timestamp,
    /// By the place of the series, oldest first.
    pub(crate) values: Vec<Vec<Option<f32>>>,
}

/// All rings of a node.
#[derive(Debug)]
pub(crate) struct History {
    fine: Ring<{ SERIES.len() }>,
    coarse: Ring<{ SERIES.len() }>,
    zones: BTreeMap<String, Ring<{ ZONE_SERIES.len() }>>,
    agents: BTreeMap<String, Ring<{ AGENT_SERIES.len() }>>,
}

impl<const N: usize> Ring<N> {
    fn new(most: usize, parts_of: usize) -> Ring<N> {
        let (samples, parts) = (VecDeque::new(), Vec::new());
        Ring { step: STEP * parts_of as u32, most, samples, end: Timestamp::default(), parts, parts_of }
    }

    /// Takes a sample; what was missed since the last one is a gap.
    fn push(&mut self, now: Timestamp, sample: [Option<f64>; N]) {
        let since = now.since(self.end);
        if !self.samples.is_empty() && since > self.step * 2 {
            let missed = (since.as_secs() / self.step.as_secs().max(1)).saturating_sub(1) as usize;
            self.parts.clear();
            for _ in 0..missed.min(self.most) {
                self.add([f32::NAN; N]);
            }
            self.end = now;
        }
        self.parts.push(sample.map(|value| value.map_or(f32::NAN, |value| value as f32)));
        if self.parts.len() >= self.parts_of {
            let parts = std::mem::take(&mut self.parts);
            self.add(std::array::from_fn(|at| mean(parts.iter().map(|part| part[at]))));
            self.end = now;
        }
    }

    fn add(&mut self, sample: [f32; N]) {
        if self.samples.len() == self.most {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    fn told(&self) -> Told {
        Told { step: self.step, end: self.end, values: (0..N).map(|at| self.series(at)).collect() }
    }

    fn series(&self, at: usize) -> Vec<Option<f32>> {
        self.samples.iter().map(|sample| Some(sample[at]).filter(|value| value.is_finite())).collect()
    }
}

/// Of what is there; nothing of nothing.
fn mean(values: impl Iterator<Item = f32>) -> f32 {
    let (sum, count) = values
        .filter(|value| value.is_finite())
        .fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { f32::NAN } else { sum / count as f32 }
}

impl Default for History {
    fn default() -> History {
        History {
            fine: Ring::new(FINE_MAX, 1),
            coarse: Ring::new(COARSE_MAX, COARSE_OF),
            zones: BTreeMap::new(),
            agents: BTreeMap::new(),
        }
    }
}

impl History {
    /// A sample of the node.
    pub(crate) fn push(&mut self, now: Timestamp, sample: Sample) {
        self.fine.push(now, sample);
        self.coarse.push(now, sample);
    }

    /// Samples of all zones and agents that there are; of others nothing is kept.
    pub(crate) fn push_parts(
        &mut self,
        now: Timestamp,
        zones: BTreeMap<String, [Option<f64>; ZONE_SERIES.len()]>,
        agents: BTreeMap<String, [Option<f64>; AGENT_SERIES.len()]>,
    ) {
        push_all(&mut self.zones, now, zones, PARTS_MAX);
        let left = PARTS_MAX - self.zones.len();
        push_all(&mut self.agents, now, agents, left);
    }

    /// The numbers of the node.
    pub(crate) fn read(&self, step: Step) -> Told {
        match step {
            Step::Fine => self.fine.told(),
            Step::Coarse => self.coarse.told(),
        }
    }

    /// One series of the node, oldest first; empty where there is no such.
    pub(crate) fn series(&self, step: Step, name: &str) -> Vec<Option<f32>> {
        let ring = match step {
            Step::Fine => &self.fine,
            Step::Coarse => &self.coarse,
        };
        SERIES.iter().position(|series| *series == name).map(|at| ring.series(at)).unwrap_or_default()
    }

    /// An hour of a zone by minutes.
    pub(crate) fn zone(&self, name: &str) -> Option<Told> {
        self.zones.get(name).map(Ring::told)
    }

    /// An hour of an own agent by minutes.
    pub(crate) fn agent(&self, name: &str) -> Option<Told> {
        self.agents.get(name).map(Ring::told)
    }
}

fn push_all<const N: usize>(
    rings: &mut BTreeMap<String, Ring<N>>,
    now: Timestamp,
    samples: BTreeMap<String, [Option<f64>; N]>,
    most: usize,
) {
    rings.retain(|name, _| samples.contains_key(name));
    for (name, sample) in samples {
        let is_full = rings.len() >= most;
        match rings.get_mut(&name) {
            Some(ring) => ring.push(now, sample),
            None if is_full => {}
            None => {
                let mut ring = Ring::new(MINUTES_MAX, MINUTE_OF);
                ring.push(now, sample);
                rings.insert(name, ring);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Timestamp {
        Timestamp(1_800_000_000_000 + second * 1_000)
    }

    fn sample(calls: f64) -> Sample {
        let mut sample = [None; SERIES.len()];
        sample[0] = Some(calls);
        sample
    }

    #[test]
    fn a_day_is_kept_in_two_steps_and_no_more() {
        let mut history = History::default();
        for number in 0..20_000_u64 {
            history.push(at(number * 10), sample(number as f64));
        }
        let (fine, coarse) = (history.read(Step::Fine), history.read(Step::Coarse));
        assert_eq!((fine.values[0].len(), coarse.values[0].len()), (FINE_MAX, COARSE_MAX));
        assert_eq!(fine.values[0].last(), Some(&Some(19_999.0)));
        assert_eq!(fine.end, at(199_990));
        let coarse = coarse.values[0].clone();
        assert_eq!(coarse[1].unwrap() - coarse[0].unwrap(), 12.0, "each is the mean of twelve");
        assert_eq!(fine.values[1].last(), Some(&None), "nothing to tell is no zero");
        assert_eq!(history.series(Step::Fine, "calls"), fine.values[0]);
        assert_eq!(history.series(Step::Coarse, "none"), []);
    }

    #[test]
    fn a_node_that_slept_has_a_gap() {
        let mut history = History::default();
        (0..3).for_each(|number| history.push(at(number * 10), sample(1.0)));
        history.push(at(100), sample(2.0));
        let told = history.read(Step::Fine);
        let gaps = told.values[0].iter().filter(|value| value.is_none()).count();
        assert_eq!((gaps, told.end), (7, at(100)));
        history.push(at(100 + 30 * 86_400), sample(3.0));
        assert_eq!(history.read(Step::Fine).values[0].len(), FINE_MAX);
    }

    #[test]
    fn what_is_gone_is_forgotten_and_what_is_too_much_is_not_kept() {
        let mut history = History::default();
        let zones = |count: usize| (0..count).map(|it| (format!("z{it:04}"), [Some(1.0), None])).collect();
        let agents = |count: usize| (0..count).map(|it| (format!("a{it:04}"), [Some(1.0); 3])).collect();
        for minute in 0..MINUTE_OF as u64 {
            history.push_parts(at(minute * 10), zones(8), agents(1_000));
        }
        assert_eq!((history.zones.len(), history.agents.len()), (8, PARTS_MAX - 8));
        assert_eq!(history.agent("a0000").unwrap().values[0], [Some(1.0)]);
        history.push_parts(at(60), zones(1), agents(0));
        assert!(history.zone("z0000").is_some() && history.zone("z0001").is_none());
        assert!(history.agent("a0000").is_none());
    }
}
