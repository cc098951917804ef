//! What theory says of a scenario: closed forms, and mean-field recurrences for the curves.
//!
//! `n` is the number of nodes, `k` the fan-out, `q` the share of messages that arrive, `degree` that of a random regular
//! graph. The formulas speak of one update's spread alone: without faults, heartbeats and reconciliation.

mod mean_field;

use super::measure::{CURVE_MAX, Metrics};
use super::scenario::{Curve, LossMode, Rounds, Scenario};

pub use mean_field::{mesh_curves, push_curve, push_pull_curve};

/// Steps of a fixed-point iteration: each gains at least a digit but near the threshold, where 1,000 give three.
const STEPS: usize = 1_000;

/// Rounds until all know what everybody pushes to `k` random peers in each round: log_{1+kq} n + (ln n)/(kq). The first
/// term is the exponential rise, the second the last stragglers (Frieze and Grimmett 1985, Pittel 1987 for k = q = 1).
/// Runs take about one round more, whatever `n`.
pub fn push_rounds(n: f64, k: f64, q: f64) -> f64 {
    n.ln() / (1.0 + k * q).ln() + n.ln() / (k * q)
}

/// Rounds until all know what every contact gives and asks for: log_{1+2kq} n for the rise, then a finish that is double
/// exponential without loss, log_{k+1} ln n (Karp and others 2000), and at least the exponential one that loss leaves,
/// (ln n)/(k(q - ln(1-q))). Runs take up to one round more.
pub fn push_pull_rounds(n: f64, k: f64, q: f64) -> f64 {
    let stragglers = n.ln() / (k * (q - (1.0 - q).ln()));
    n.ln() / (1.0 + 2.0 * k * q).ln() + (n.ln().ln() / (k + 1.0).ln()).max(stragglers)
}

/// Share of nodes that learn an update which each sends to `k` peers in `rounds` rounds and then no more: the root of
/// z = 1 - e^(-rounds·k·q·z), given that it does not die out at once. Paper, Algorithm 4 as written: 0.9405.
pub fn push_coverage(k: f64, rounds: f64, q: f64) -> f64 {
    // From above: 0 is a root as well, that of an update that died out.
    (0..STEPS).fold(1.0, |z, _| 1.0 - (-rounds * k * q * z).exp())
}

/// Chance that such an update does not die out among its first receivers: 1 - e with e = (1-q+qe)^(rounds·k).
pub fn push_survival(k: f64, rounds: f64, q: f64) -> f64 {
    // From below: 1 is a root as well, that of certain death.
    1.0 - (0..STEPS).fold(0.0, |e: f64, _| (1.0 - q + q * e).powf(rounds * k))
}

/// Links from a node to the farthest in a random graph of this degree: log_{degree-1} n + log_{degree-1} ln n (after
/// Bollobás and Fernandez de la Vega 1982). With equal latency on all links this is the time of a flood; with unequal
/// ones its paths have more, but shorter links.
pub fn mesh_hops(n: f64, degree: f64) -> f64 {
    if degree <= 2.0 { n / 2.0 } else { (n.ln() + n.ln().ln()) / (degree - 1.0).ln() }
}

/// Share of nodes that a flood reaches in a random graph of this degree, given that it does not die out at once; the
/// chance of that is the same number. A neighbour has it from one of its other links: t = 1 - (1-qt)^(degree-1).
pub fn mesh_coverage(degree: f64, q: f64) -> f64 {
    // From above, as 0 always is a root.
    let neighbour = (0..STEPS).fold(1.0, |t: f64, _| 1.0 - (1.0 - q * t).powf(degree - 1.0));
    1.0 - (1.0 - q * neighbour).powf(degree)
}

/// Copies sent per node when each forwards an update once over all its links but the one it came by.
pub fn mesh_messages(n: f64, degree: f64, coverage: f64) -> f64 {
    (degree - 1.0) * coverage + 1.0 / n
}

/// The paper's bound on discovery (eq. 10): d·(L_network + L_query) + L_cache, milliseconds.
pub fn discovery_ms(depth: f64, network_ms: f64, query_ms: f64, cache_ms: f64) -> f64 {
    depth * (network_ms + query_ms) + cache_ms
}

/// Share of time an agent with `k` replicas beside the first is there, if each host is with this availability and hosts
/// fail independently (paper 6.3): 1 - (1-a)^(k+1).
pub fn availability(host: f64, k: f64) -> f64 {
    1.0 - (1.0 - host).powf(k + 1.0)
}

/// Metrics that the formulas of the scenario's `[theory]` give; empty without one.
pub fn metrics(scenario: &Scenario) -> Metrics {
    let Some(theory) = scenario.theory else { return Metrics::new() };
    let found = match theory.curve {
        Curve::Push => of_push(scenario),
        Curve::PushPull => of_push_pull(scenario),
        Curve::Mesh => of_mesh(scenario),
    };
    found
        .into_iter()
        .filter(|(_, value)| value.is_finite())
        .map(|(name, value)| (name.into(), value))
        .collect()
}

/// Share of nodes by round or millisecond, as `Measured::curve`; empty without a theory, and where rounds have no length.
pub fn curve(scenario: &Scenario) -> Vec<(f64, f64)> {
    let Some(theory) = scenario.theory else { return Vec::new() };
    let shares = match theory.curve {
        Curve::Push | Curve::PushPull => rounds_curve(scenario, theory.curve),
        Curve::Mesh => mean_curve(mesh_curves(&scenario.network, scenario.protocol.degree())),
    };
    // One point is left for the last, which is drawn whatever the step.
    let step = shares.len().div_ceil(CURVE_MAX - 1).max(1);
    let last = shares.len().saturating_sub(1);
    let drawn = shares.into_iter().enumerate().filter(|(at, _)| at % step == 0 || *at == last);
    drawn.map(|(at, share)| (at as f64, share)).collect()
}

/// Mean of curves, each of which stays where it ends.
fn mean_curve(curves: Vec<Vec<f64>>) -> Vec<f64> {
    let length = curves.iter().map(Vec::len).max().unwrap_or(0);
    let at = |curve: &Vec<f64>, at: usize| curve.get(at).or(curve.last()).copied().unwrap_or(0.0);
    (0..length).map(|x| curves.iter().map(|curve| at(curve, x)).sum::<f64>() / curves.len() as f64).collect()
}

type Found = Vec<(&'static str, f64)>;

fn of_push(scenario: &Scenario) -> Found {
    let (n, k, q) = numbers(scenario);
    let Rounds::Times(times) = scenario.protocol.rounds else {
        let mut found = vec![("coverage", 1.0), ("complete", 1.0)];
        found.extend(of_rounds(scenario, push_rounds(n, k, q), Curve::Push));
        return found;
    };
    let times = f64::from(times);
    // A mean over runs has those that died out at once in it.
    let coverage = push_coverage(k, times, q) * push_survival(k, times, q);
    let mut found = vec![("coverage", coverage), ("messages_per_node", times * k * coverage)];
    found.extend(shares_reached(scenario, Curve::Push));
    found
}

fn of_push_pull(scenario: &Scenario) -> Found {
    let (n, k, q) = numbers(scenario);
    if scenario.protocol.rounds != Rounds::Forever {
        return shares_reached(scenario, Curve::PushPull);
    }
    let mut found = vec![("coverage", 1.0), ("complete", 1.0)];
    found.extend(of_rounds(scenario, push_pull_rounds(n, k, q), Curve::PushPull));
    found
}

fn of_rounds(scenario: &Scenario, rounds: f64, curve: Curve) -> Found {
    let shares = shares_reached(scenario, curve);
    if counts_rounds(scenario) { [vec![("rounds", rounds)], shares].concat() } else { shares }
}

/// Rounds to half and to 99 % of the nodes.
fn shares_reached(scenario: &Scenario, curve: Curve) -> Found {
    let curve = rounds_curve(scenario, curve);
    let reached = |name, share| Some((name, curve.iter().position(|known| *known >= share)? as f64));
    [reached("rounds.p50", 0.5), reached("rounds.p99", 0.99)].into_iter().flatten().collect()
}

fn rounds_curve(scenario: &Scenario, curve: Curve) -> Vec<f64> {
    if !counts_rounds(scenario) {
        return Vec::new();
    }
    let (n, k, q) = numbers(scenario);
    let rounds = scenario.protocol.rounds;
    if curve == Curve::PushPull { push_pull_curve(n, k, q, rounds) } else { push_curve(n, k, q, rounds) }
}

/// Whether time is counted in rounds, and a lost message does not come a round later, of which no formula speaks.
fn counts_rounds(scenario: &Scenario) -> bool {
    let network = &scenario.network;
    let late = network.loss.mode == LossMode::Retransmit && network.loss.rate > 0.0;
    network.regions.is_none() && network.latency.is_none() && !late
}

fn of_mesh(scenario: &Scenario) -> Found {
    let ((n, _, q), degree) = (numbers(scenario), scenario.protocol.degree() as f64);
    let reached = mesh_coverage(degree, q);
    // Once for not dying out, once for how far it then comes.
    let coverage = reached * reached;
    let mut found = vec![("coverage", coverage), ("messages_per_node", mesh_messages(n, degree, coverage))];
    let curves = mesh_curves(&scenario.network, scenario.protocol.degree());
    // The last node is reached when less than half of one is missing.
    let shares = [("latency_ms.p50", 0.5), ("latency_ms.p99", 0.99), ("latency_ms.p100", 1.0 - 0.5 / n)];
    for (name, share) in shares {
        // A share of those that are reached: what is never learnt has no latency.
        let times = curves.iter().map(|curve| curve.iter().position(|known| *known >= share * reached));
        if let Some(times) = times.collect::<Option<Vec<usize>>>().filter(|times| !times.is_empty()) {
            found.push((name, times.iter().sum::<usize>() as f64 / times.len() as f64));
        }
    }
    if scenario.network.latency.is_some_and(|latency| latency.least == latency.most) {
        found.push(("hops", mesh_hops(n, degree)));
    }
    found
}

/// `n`, `k` and `q` of a scenario.
fn numbers(scenario: &Scenario) -> (f64, f64, f64) {
    let loss = scenario.network.loss;
    // What is sent again comes late, but it comes.
    let q = if loss.mode == LossMode::Retransmit { 1.0 } else { 1.0 - loss.rate };
    (scenario.network.nodes as f64, scenario.protocol.fanout() as f64, q)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_near(pairs: &[(f64, f64)], within: f64) {
        for (at, (found, wanted)) in pairs.iter().enumerate() {
            assert!((found - wanted).abs() <= within, "number {at}: {found} instead of {wanted}");
        }
    }

    #[test]
    fn push_takes_the_rounds_of_the_literature() {
        let sizes = [1e3, 1e4, 1e5, 1e6];
        let once = sizes.map(|n| push_rounds(n, 1.0, 1.0)).into_iter().zip([16.9, 22.5, 28.1, 33.8]);
        let thrice = sizes.map(|n| push_rounds(n, 3.0, 1.0)).into_iter().zip([7.3, 9.7, 12.1, 14.6]);
        assert_near(&once.chain(thrice).collect::<Vec<_>>(), 0.06);
        let lossy = [0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5].map(|loss| push_rounds(1e4, 3.0, 1.0 - loss));
        let wanted = [9.7, 10.1, 10.5, 11.4, 12.5, 14.1, 16.2];
        assert_near(&lossy.into_iter().zip(wanted).collect::<Vec<_>>(), 0.06);
    }

    #[test]
    fn push_and_pull_takes_fewer_rounds_and_loss_costs_the_fast_finish() {
        let sizes = [1e3, 1e4, 1e5, 1e6].map(|n| push_pull_rounds(n, 1.0, 1.0));
        assert_near(&sizes.into_iter().zip([9.08, 11.58, 14.01, 16.4]).collect::<Vec<_>>(), 0.06);
        // Measured: 6.6, 7.5 and 10.2 rounds.
        let lossy = [1.0, 0.8, 0.5].map(|q| push_pull_rounds(1e4, 3.0, q));
        assert_near(&lossy.into_iter().zip([6.3, 6.8, 9.2]).collect::<Vec<_>>(), 0.06);
    }

    #[test]
    fn the_papers_algorithm_as_written_reaches_94_percent() {
        let rounds = [1.0, 2.0, 3.0].map(|rounds| push_coverage(3.0, rounds, 1.0));
        assert_near(&rounds.into_iter().zip([0.9405, 0.99748, 0.99988]).collect::<Vec<_>>(), 0.000_05);
        assert_eq!(push_survival(3.0, 1.0, 1.0), 1.0);
        // Half of the messages lost: 58 % where it lives on, and one update in four dies at once.
        let [coverage, survival] = [push_coverage(3.0, 1.0, 0.5), push_survival(3.0, 1.0, 0.5)];
        assert_near(&[(coverage, 0.583), (survival, 0.764)], 0.001);
        // Below one arrival for each sender nothing spreads.
        assert!(push_coverage(1.0, 1.0, 0.9) < 1e-9);
    }

    #[test]
    fn recurrences_end_where_the_closed_forms_do() {
        let curve = push_curve(1e4, 3.0, 1.0, Rounds::Forever);
        let last = (curve.len() - 1) as f64;
        assert!((last - push_rounds(1e4, 3.0, 1.0)).abs() < 2.0, "{last} rounds");
        assert_eq!((curve[0], curve.iter().position(|share| *share >= 0.5)), (1e-4, Some(7)));
        let once = push_curve(1e4, 3.0, 1.0, Rounds::Times(1));
        assert_near(&[(once[once.len() - 1], push_coverage(3.0, 1.0, 1.0))], 0.001);
        let both = push_pull_curve(1e4, 3.0, 1.0, Rounds::Forever);
        assert!(both.len() < curve.len() && both[both.len() - 1] > 0.9999, "{both:?}");
    }

    #[test]
    fn a_flood_reaches_the_farthest_node_in_as_many_hops_as_a_graph_is_wide() {
        assert_near(
            &[(mesh_hops(1e4, 8.0), 5.9), (mesh_hops(1e3, 8.0), 4.5), (mesh_hops(100.0, 2.0), 50.0)],
            0.06,
        );
        assert_eq!(mesh_messages(1e4, 8.0, 1.0), 7.0001);
    }

    #[test]
    fn a_mesh_of_degree_8_bears_a_loss_that_one_of_3_does_not() {
        let found = [
            mesh_coverage(8.0, 1.0),
            mesh_coverage(8.0, 0.7),
            mesh_coverage(8.0, 0.5),
            mesh_coverage(3.0, 0.7),
        ];
        assert_near(&found.into_iter().zip([1.0, 0.99993, 0.9958, 0.9213]).collect::<Vec<_>>(), 0.000_1);
        assert!(mesh_coverage(3.0, 0.49) < 1e-6, "below one arrival for each receiver nothing spreads");
    }

    #[test]
    fn world_wide_discovery_within_100_ms_is_one_hop() {
        assert_near(
            &[(discovery_ms(1.0, 98.0, 1.0, 0.1), 99.1), (discovery_ms(2.0, 80.0, 1.0, 0.1), 162.1)],
            1e-9,
        );
        assert_near(&[(availability(0.97, 1.0), 0.9991), (availability(0.9, 2.0), 0.999)], 1e-9);
    }
}
