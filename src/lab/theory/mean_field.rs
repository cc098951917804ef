//! Mean-field recurrences: what a spread looks like if every node sees the average of all others.
//!
//! Exact in the limit of many nodes but for the luck of the first few receivers, which shifts a run's curve by up to a
//! round.

use crate::lab::scenario::{LossMode, Network, Rounds};
use crate::sim::regions::{LAST_MILE_MS, REGIONS, ROUND_TRIP_MS};

/// Rounds or milliseconds after which a curve is given up.
const LENGTH_MAX: usize = 60_000;
/// A curve that rises by less within the longest latency has ended.
const STILL: f64 = 1e-12;
/// Losses of one message in turn that a curve reckons with.
const LOSSES_MAX: i32 = 5;
/// As the model has it: jitter up to a sixteenth of the way, and a probe timeout of three ways and 25 ms.
const JITTER: f64 = 1.0 / 16.0;
const ACK_DELAY_MS: f64 = 25.0;
/// Points at which each random part of a latency is taken.
const POINTS: usize = 8;

/// Share of nodes that know an update after each round of push: who knows it sends it to `k` random peers.
pub fn push_curve(n: f64, k: f64, q: f64, rounds: Rounds) -> Vec<f64> {
    spread(n, rounds, |sending| (-k * q * sending).exp())
}

/// The same where each contact also asks.
pub fn push_pull_curve(n: f64, k: f64, q: f64, rounds: Rounds) -> Vec<f64> {
    spread(n, rounds, |sending| (-k * q * sending).exp() * (1.0 - q * sending).powf(k))
}

/// `missed` is the chance that nothing reaches a node in a round in which this share of nodes sends.
fn spread(n: f64, rounds: Rounds, missed: impl Fn(f64) -> f64) -> Vec<f64> {
    let mut known = vec![1.0 / n];
    while known.len() < LENGTH_MAX {
        let last = known[known.len() - 1];
        // Who learnt it so many rounds ago has stopped sending.
        let done = match rounds {
            Rounds::Forever => 0.0,
            Rounds::Times(times) => {
                known.len().checked_sub(times as usize + 1).map_or(0.0, |before| known[before])
            }
        };
        let sending = last - done;
        // Less than half a node is nobody; a mean would creep on for ever.
        if last >= 1.0 - 0.5 / n || sending * n < 0.5 {
            break;
        }
        known.push(1.0 - (1.0 - last) * missed(sending));
    }
    known
}

/// Share of nodes that know an update by each millisecond of a flood over a random regular graph, one curve for each
/// region that its author may be in; none without latency. A node lacks the update as long as it does not have it by
/// itself and no link has brought it. What a neighbour brings it has from its other links.
pub fn mesh_curves(network: &Network, degree: usize) -> Vec<Vec<f64>> {
    let ways = ways(network);
    (0..ways.len()).map(|source| mesh_curve(network.nodes as f64, degree as i32, &ways, source)).collect()
}

fn mesh_curve(n: f64, degree: i32, ways: &[Vec<Way>], source: usize) -> Vec<f64> {
    let regions = ways.len() as f64;
    let longest = ways.iter().flatten().flatten().map(|(ms, _)| *ms).max().unwrap_or(0);
    // By region and millisecond: the chance that a neighbour has it from others than the one who asks.
    let mut known: Vec<Vec<f64>> = vec![Vec::new(); ways.len()];
    let mut curve: Vec<f64> = Vec::new();
    while curve.len() < LENGTH_MAX {
        let now = curve.len();
        let brought_to = |from: &Vec<Way>| {
            let by_region = from.iter().zip(&known).map(|(way, known)| {
                let arrived = way.iter().filter(|(ms, _)| *ms <= now);
                arrived.map(|(ms, chance)| chance * known[now - ms]).sum::<f64>()
            });
            by_region.sum::<f64>() / regions
        };
        let brought: Vec<f64> = ways.iter().map(brought_to).collect();
        let mut share = 0.0;
        for (region, (known, brought)) in known.iter_mut().zip(brought).enumerate() {
            // Of the nodes of its region one is the author.
            let others = if region == source { 1.0 - regions / n } else { 1.0 };
            known.push(1.0 - others * (1.0 - brought).powi(degree - 1));
            share += (1.0 - others * (1.0 - brought).powi(degree)) / regions;
        }
        curve.push(share);
        // Within the longest way all that was sent has arrived; no rise since means no more.
        let before = now.checked_sub(longest).map_or(0.0, |before| curve[before]);
        if share >= 1.0 - 0.5 / n || share - before < STILL {
            break;
        }
    }
    curve
}

/// How long a copy takes, milliseconds, and how likely it comes so.
type Way = Vec<(usize, f64)>;

/// To each region from each; one region without regions. No copy takes less than a millisecond.
fn ways(network: &Network) -> Vec<Vec<Way>> {
    let loss = network.loss;
    let add_losses = |latencies: Vec<f64>| {
        let each = (1.0 - loss.rate) / latencies.len() as f64;
        let mean = latencies.iter().sum::<f64>() / latencies.len() as f64;
        let at_once = latencies.into_iter().map(|latency| (latency, each));
        // How long a lost copy waits differs so much by the number of losses that the mean latency will do.
        let late =
            (1..=LOSSES_MAX).filter(|_| loss.mode == LossMode::Retransmit && loss.rate > 0.0).map(|lost| {
                let wait = (2f64.powi(lost) - 1.0) * (3.0 * mean + ACK_DELAY_MS);
                (mean + wait, (1.0 - loss.rate) * loss.rate.powi(lost))
            });
        // A copy that took no time would need the very share that it is to bring about.
        merge(at_once.chain(late).map(|(ms, chance)| ((ms.round() as usize).max(1), chance)))
    };
    if network.regions.is_some() {
        let region = |row: [u16; REGIONS]| row.map(|ms| add_losses(between_regions(ms))).to_vec();
        return ROUND_TRIP_MS.map(region).to_vec();
    }
    let Some(latency) = network.latency else { return Vec::new() };
    let (least, most) = (latency.least.as_secs_f64() * 1e3, latency.most.as_secs_f64() * 1e3);
    vec![vec![add_losses(points().map(|at| least + (most - least) * at).collect())]]
}

/// Latencies, milliseconds, equally likely, between nodes of two regions with this round trip.
fn between_regions(round_trip_ms: u16) -> Vec<f64> {
    let (least, most) = (f64::from(LAST_MILE_MS.0), f64::from(LAST_MILE_MS.1));
    let way = f64::from(round_trip_ms) / 2.0;
    let mile = |at: f64| least + (most - least) * at;
    let miles = points().flat_map(|a| points().map(move |b| mile(a) + mile(b)));
    miles.flat_map(|miles| points().map(move |at| way * (1.0 + JITTER * at) + miles)).collect()
}

fn points() -> impl Iterator<Item = f64> {
    // Middles of equal parts, as at their ends the extremes would weigh too much.
    (0..POINTS).map(|at| (at as f64 + 0.5) / POINTS as f64)
}

fn merge(way: impl Iterator<Item = (usize, f64)>) -> Way {
    let mut merged = std::collections::BTreeMap::new();
    for (ms, chance) in way {
        *merged.entry(ms).or_insert(0.0) += chance;
    }
    merged.into_iter().collect()
}
