//! Who learnt which update when, and what follows from it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aop::api::Event;
use aop::host::Events;
use aop::lab::measure::{CURVE_MAX, Measured, Metrics, SPREAD_MAX, Spread, percentile};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;

use crate::entropy;
use crate::links::Links;
use crate::plan::Plan;
use crate::tap::Copies;
use crate::updates::number;

/// The notes of one run. Clones are the same.
#[derive(Clone)]
pub struct Notebook(Arc<Inner>);

struct Inner {
    notes: Mutex<Notes>,
    complete: Notify,
}

struct Notes {
    /// When each update was acknowledged to its author.
    written: Vec<Option<u64>>,
    /// When each node had each update: by update, then node.
    learnt: Vec<Vec<Option<u64>>>,
    /// The same in the order in which it happened: update, node, time.
    events: Vec<(usize, usize, u64)>,
    /// A watcher that fell behind.
    missed: bool,
}

impl Notebook {
    /// An empty one.
    pub fn new(updates: usize, nodes: usize) -> Notebook {
        let notes = Notes {
            written: vec![None; updates],
            learnt: vec![vec![None; nodes]; updates],
            events: Vec::new(),
            missed: false,
        };
        Notebook(Arc::new(Inner { notes: Mutex::new(notes), complete: Notify::new() }))
    }

    /// An update was acknowledged.
    pub fn written(&self, update: usize) {
        self.notes().written[update] = Some(now_ms());
    }

    /// Notes what a node learns, as long as it runs.
    pub async fn watch(self, node: usize, mut events: Events) {
        loop {
            match events.recv().await {
                Ok(Event::AgentChanged { agent, .. }) => {
                    number(&agent).into_iter().for_each(|update| self.learnt(update, node));
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => self.notes().missed = true,
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn learnt(&self, update: usize, node: usize) {
        let mut notes = self.notes();
        let now = now_ms();
        let first = &mut notes.learnt[update][node];
        if first.is_none() {
            *first = Some(now);
            notes.events.push((update, node, now));
        }
        if notes.is_complete() {
            self.0.complete.notify_one();
        }
    }

    /// Returns when every node has every update.
    pub async fn complete(&self) {
        while !self.is_complete() {
            self.0.complete.notified().await;
        }
    }

    /// Whether every node has every update.
    pub fn is_complete(&self) -> bool {
        self.notes().is_complete()
    }

    /// Whether something happened that was not noted.
    pub fn has_gaps(&self) -> bool {
        self.notes().missed
    }

    /// What a run found. `bytes` are all that were put on the way, and stand for everything that is not in the notes.
    pub fn measured(&self, plan: &Plan, links: &Links, copies: Copies, bytes: u64) -> Measured {
        let notes = self.notes();
        Measured {
            trace: notes.trace(copies, bytes),
            metrics: notes.metrics(plan, copies),
            curve: notes.curve(plan),
            spread: notes.spread(plan, links),
        }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Notes {
    fn is_complete(&self) -> bool {
        self.events.len() == self.pairs()
    }

    fn pairs(&self) -> usize {
        self.learnt.len() * self.learnt.first().map_or(0, Vec::len)
    }

    fn author(&self, plan: &Plan, update: usize) -> usize {
        plan.authors[update % plan.authors.len()]
    }

    /// Milliseconds from writing an update, or from the start of a node that joined later, to the node's having it.
    /// An author has what it writes and is left out.
    fn latency_ms(&self, plan: &Plan, update: usize, node: usize) -> Option<u64> {
        if node == self.author(plan, update) {
            return None;
        }
        let since = self.written[update]?.max(plan.starts_ms[node]);
        Some(self.learnt[update][node]?.saturating_sub(since))
    }

    fn metrics(&self, plan: &Plan, copies: Copies) -> Metrics {
        let (updates, nodes) = (self.learnt.len(), plan.starts_ms.len());
        let pairs = self.pairs() as f64;
        let has_all = |node: &usize| self.learnt.iter().all(|learnt| learnt[*node].is_some());
        let own = self
            .learnt
            .iter()
            .enumerate()
            .filter(|(update, learnt)| learnt[self.author(plan, *update)].is_some());
        let told = self.events.len() - own.count();
        let sent = (copies.gossip + copies.sync) as f64;
        let mut metrics = Metrics::from([
            ("coverage".into(), self.events.len() as f64 / pairs),
            ("complete".into(), (0..nodes).filter(has_all).count() as f64 / nodes as f64),
            ("messages_per_node".into(), sent / pairs),
            ("bytes_per_node".into(), copies.bytes as f64 / pairs),
            ("duplicates".into(), (sent - told as f64).max(0.0) / pairs),
        ]);
        let every = (0..updates).flat_map(|update| (0..nodes).map(move |node| (update, node)));
        let mut latencies: Vec<f64> = every
            .filter_map(|(update, node)| self.latency_ms(plan, update, node))
            .map(|ms| ms as f64)
            .collect();
        latencies.sort_by(f64::total_cmp);
        for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p100", 1.0)] {
            if let Some(latency) = percentile(&latencies, share) {
                metrics.insert(format!("latency_ms.{name}"), latency);
            }
        }
        if let Some(healed) = plan.healed_ms.filter(|_| self.is_complete()) {
            let agreed = self.events.last().map_or(healed, |(_, _, at)| *at);
            metrics.insert("healed_ms".into(), agreed.saturating_sub(healed) as f64);
        }
        metrics
    }

    /// Share of nodes that have the first update, by milliseconds since it was written.
    fn curve(&self, plan: &Plan) -> Vec<(f64, f64)> {
        let Some(written) = self.written.first().copied().flatten() else { return Vec::new() };
        let nodes = plan.starts_ms.len() as f64;
        let mut times: Vec<u64> =
            self.learnt[0].iter().flatten().map(|at| at.saturating_sub(written)).collect();
        times.sort_unstable();
        let every = times.len().div_ceil(CURVE_MAX).max(1);
        let mut curve: Vec<(f64, f64)> = Vec::new();
        for (count, at) in times.iter().enumerate() {
            let point = (*at as f64, (count + 1) as f64 / nodes);
            match curve.last_mut() {
                Some(last) if last.0 == point.0 => *last = point,
                _ if count % every == 0 || count + 1 == times.len() => curve.push(point),
                _ => {}
            }
        }
        curve
    }

    fn spread(&self, plan: &Plan, links: &Links) -> Option<Spread> {
        let nodes = plan.starts_ms.len();
        let written = self.written.first().copied().flatten().filter(|_| nodes <= SPREAD_MAX)?;
        let seen =
            |at: &Option<u64>| at.map(|at| u32::try_from(at.saturating_sub(written)).unwrap_or(u32::MAX));
        Some(Spread {
            seen: self.learnt[0].iter().map(seen).collect(),
            regions: (0..nodes).filter_map(|node| links.region(node).map(|region| region as u8)).collect(),
        })
    }

    fn trace(&self, copies: Copies, bytes: u64) -> u64 {
        let mut hash = Sha256::new();
        for (update, node, at) in &self.events {
            for number in [*update as u64, *node as u64, *at] {
                hash.update(number.to_be_bytes());
            }
        }
        for number in [copies.gossip, copies.sync, copies.bytes, bytes] {
            hash.update(number.to_be_bytes());
        }
        let digest = hash.finalize();
        digest.first_chunk().map_or(0, |head| u64::from_be_bytes(*head))
    }
}

fn now_ms() -> u64 {
    entropy::elapsed().as_millis() as u64
}
