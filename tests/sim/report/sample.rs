//! Believable results: a spread over eight regions, sweeps of one key and of two, a broken run, hostile text.

use std::collections::BTreeMap;

use aop::lab::measure::Metrics;
use aop::lab::results::{Answered, Band, BrokenRun, CellResult, Results, Run, SCHEMA, Summary, Verdict};
use serde_json::{Value, json};

/// What must never become part of the page.
pub(crate) const HOSTILE: &str = "</script><script>document.title='owned'</script>\
    <img src=x onerror=\"document.title='owned'\"> 'q' {{data}}";

/// Numbers between 0 and 1, the same each time.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A scenario in the making.
struct Asked {
    answered: Answered,
    runs: Vec<Run>,
    noise: Noise,
}

impl Asked {
    fn new(name: &str, tier: &str, axis: &str, question: &str, answer: &str) -> Asked {
        let answered = Answered {
            name: name.to_owned(),
            question: question.to_owned(),
            claim: "paper 7.6".to_owned(),
            tier: tier.to_owned(),
            axis: axis.to_owned(),
            answer: answer.to_owned(),
            met: true,
            source: format!("name = {name:?}\ntier = {tier:?}\n\n[network]\nnodes = 10_000\n"),
            ..Answered::default()
        };
        Asked { answered, runs: Vec::new(), noise: Noise(name.len() as u64) }
    }

    /// Plays a cell: each metric is about its middle, give or take.
    fn cell(&mut self, parameters: Value, seeds: u64, middles: &[(&str, f64, f64)]) -> &mut CellResult {
        let parameters: BTreeMap<String, Value> = serde_json::from_value(parameters).unwrap();
        let set: String = parameters.iter().map(|(key, value)| format!(" --set {key}={value}")).collect();
        let mut all: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for seed in 1..=seeds {
            let mut metrics = Metrics::new();
            for (name, middle, give) in middles {
                let drawn = middle + give * (self.noise.next() + self.noise.next() - 1.0);
                let value = if *middle <= 1.0 { drawn.min(1.0) } else { drawn };
                metrics.insert((*name).to_owned(), value);
                all.entry(name).or_default().push(value);
            }
            let name = &self.answered.name;
            self.runs.push(Run {
                scenario: name.clone(),
                tier: self.answered.tier.clone(),
                seed,
                parameters: parameters.clone(),
                trace_hash: format!("{:016x}", (self.noise.next() * 1e18) as u64),
                metrics,
                broken: None,
                replay: format!("aop sim replay simulations/{name}.toml --seed {seed}{set}"),
            });
        }
        let metrics = all.into_iter().map(|(name, values)| (name.to_owned(), summary(&values))).collect();
        let cell = CellResult { parameters, runs: seeds as usize, metrics, ..CellResult::default() };
        self.answered.cells.push(cell);
        self.answered.cells.last_mut().unwrap()
    }
}

fn summary(values: &[f64]) -> Summary {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    let half = 2.1 * (variance / count).sqrt();
    let worst = (0..values.len()).max_by(|a, b| values[*a].total_cmp(&values[*b])).unwrap();
    let (min, max) =
        values.iter().fold((f64::MAX, f64::MIN), |(low, high), it| (low.min(*it), high.max(*it)));
    Summary { mean, low: mean - half, high: mean + half, min, max, worst_seed: worst as u64 + 1 }
}

fn logistic(x: f64, half: f64, wide: f64, top: f64) -> f64 {
    top / (1.0 + (-(x - half) / wide).exp())
}

fn band(points: usize, step: f64, half: f64, wide: f64, top: f64) -> Vec<Band> {
    let share = |x: f64, half: f64| logistic(x, half, wide, top).clamp(0.000_1, 1.0);
    (0..points)
        .map(|at| at as f64 * step)
        .map(|x| Band { x, p5: share(x, half * 1.06), p50: share(x, half), p95: share(x, half * 0.94) })
        .collect()
}

fn verdict(wanted: &str, held: (usize, usize), counts: &str, worst: f64, worst_cell: &str) -> Verdict {
    Verdict {
        wanted: wanted.to_owned(),
        met: held.0 == held.1,
        held,
        counts: counts.to_owned(),
        worst,
        worst_cell: worst_cell.to_owned(),
        replay: "aop sim replay simulations/loss-sweep.toml --seed 17 --set network.loss.rate=0".to_owned(),
        ..Verdict::default()
    }
}

/// 10,000 nodes in eight regions, with curve, theory and animation.
fn regions() -> Asked {
    let mut asked = Asked::new(
        "wan-spread",
        "model",
        "ms",
        "How long does one record take to reach 10,000 nodes in eight regions of the world?",
        "Half of the nodes have it after 133 ms, 99 % after 211 ms and the last after 240 ms, over at most 18 links.",
    );
    asked.answered.claims = vec![verdict("latency_ms.p99 <= 5000", (20, 20), "runs", 231.4, "")];
    asked.answered.expectations = vec![
        verdict("coverage == 1", (20, 20), "runs", 1.0, ""),
        verdict("latency_ms.p100 <= 400", (20, 20), "runs", 268.0, ""),
    ];
    let mut noise = Noise(8);
    let regions: Vec<u8> = (0..10_000).map(|node| (node % 8) as u8).collect();
    let seen = regions
        .iter()
        .map(|region| {
            let share = noise.next();
            let late = (share / (1.0 - share)).ln() * 17.0 + 95.0 + f64::from(*region) * 11.0;
            (noise.next() > 0.001).then(|| late.clamp(0.0, 420.0) as u32)
        })
        .collect();
    let cell = asked.cell(
        json!({}),
        20,
        &[
            ("coverage", 1.0, 0.0),
            ("latency_ms.p50", 133.0, 6.0),
            ("latency_ms.p99", 211.0, 9.0),
            ("latency_ms.p100", 240.0, 20.0),
            ("hops", 17.0, 1.4),
            ("messages_per_node", 6.99, 0.02),
            ("bytes_per_node", 12_440.0, 40.0),
            ("duplicates", 5.99, 0.02),
        ],
    );
    cell.full = Some((20, 0.839, 1.0));
    cell.band = band(160, 2.0, 133.0, 17.0, 1.0);
    cell.theory = BTreeMap::from([("hops".to_owned(), 16.2), ("messages_per_node".to_owned(), 7.0)]);
    cell.theory_curve =
        (0..80).map(|at| (f64::from(at) * 4.0, logistic(f64::from(at) * 4.0, 126.0, 16.0, 1.0))).collect();
    cell.seen = seen;
    cell.regions = regions;
    asked
}

/// One swept key, a claim that fails.
fn loss() -> Asked {
    let mut asked = Asked::new(
        "loss-sweep",
        "model",
        "rounds",
        "Does fan-out 3, each node sending once, reach every node, and what does loss do to it?",
        "No: it stops at 94.05 % of the nodes without loss and at 43.2 % with half of the messages lost.",
    );
    asked.answered.claims = vec![
        verdict("coverage >= 1", (0, 300), "runs", 0.432_17, "network.loss.rate = 0.5"),
        verdict("rounds within 1.5 of theory", (300, 300), "runs", 1.221_3, "network.loss.rate = 0.5"),
    ];
    asked.answered.expectations =
        vec![verdict("coverage within 0.01 of theory", (6, 6), "cells", 0.9408, "network.loss.rate = 0")];
    for (loss, coverage) in
        [(0.0, 0.9408), (0.1, 0.916), (0.2, 0.871), (0.3, 0.79), (0.4, 0.663), (0.5, 0.432)]
    {
        let half = 7.0 + loss * 6.0;
        let cell = asked.cell(
            json!({"network.loss.rate": loss}),
            50,
            &[
                ("coverage", coverage, 0.004 + loss * loss * 0.2),
                ("complete", coverage, 0.004),
                ("rounds", half + 4.0, 1.2),
                ("messages_per_node", 3.0 * coverage, 0.01),
            ],
        );
        cell.full = Some((0, 0.0, 0.071));
        cell.band = band(22, 1.0, half, 0.9, coverage);
        cell.theory =
            BTreeMap::from([("coverage".to_owned(), coverage - 0.0004), ("rounds".to_owned(), half + 3.1)]);
        cell.theory_curve =
            (0..22).map(|x| (f64::from(x), logistic(f64::from(x), half - 0.3, 0.8, coverage))).collect();
        cell.seen = (0..2_000)
            .map(|node| (f64::from(node) < coverage * 2_000.0).then_some((node % 7 + node % 5 + 1) as u32))
            .collect();
    }
    asked
}

/// Two swept keys, an expectation that fails in one corner.
fn degrees() -> Asked {
    let mut asked = Asked::new(
        "loss-by-degree",
        "model",
        "ms",
        "How wide must the mesh be for the loss it meets?",
        "Six links are enough up to 20 % loss, eight up to 30 %; with three links and 50 % loss the last node waits 38 s.",
    );
    asked.answered.claim = "paper 5.2, facts on mesh degree".to_owned();
    asked.answered.met = false;
    asked.answered.expectations = vec![
        verdict(
            "latency_ms.p100 <= 30000",
            (199, 200),
            "runs",
            38_214.7,
            "network.loss.rate = 0.5, protocol.degree = 3",
        ),
        verdict(
            "mean coverage >= 0.999",
            (20, 20),
            "cells",
            0.999_96,
            "network.loss.rate = 0.5, protocol.degree = 3",
        ),
    ];
    for loss in [0.0, 0.1, 0.2, 0.3, 0.5] {
        for degree in [3, 6, 8, 12] {
            let late = 240.0 * (1.0 + loss * loss * 1_800.0 / f64::from(degree * degree - 7));
            let cell = asked.cell(
                json!({"network.loss.rate": loss, "protocol.degree": degree}),
                10,
                &[
                    ("coverage", 1.0 - loss * loss * 0.0001 / f64::from(degree), 0.0),
                    ("latency_ms.p50", 133.0 + loss * 120.0, 8.0),
                    ("latency_ms.p100", late, late * 0.1),
                    ("bytes_per_node", f64::from(degree) * 1_560.0, 12.0),
                ],
            );
            cell.full = Some((10, 0.722, 1.0));
            cell.band = band(120, 3.0, 133.0 + loss * 130.0, 18.0 + loss * 20.0, 1.0);
        }
    }
    asked
}

/// From a thousand to a million nodes.
fn scaling() -> Asked {
    let mut asked = Asked::new(
        "log-n",
        "model",
        "rounds",
        "Do rounds grow with the logarithm of the number of nodes?",
        "Yes: 8.2 rounds for 1,000 nodes and 15.3 for a million, 0.9 above the formula at every size.",
    );
    asked.answered.claims =
        vec![verdict("rounds within 1.5 of theory", (40, 40), "runs", 1.13, "network.nodes = 1000")];
    for (nodes, rounds) in [(1_000, 8.2), (10_000, 10.6), (100_000, 13.1), (1_000_000, 15.3)] {
        let cell = asked.cell(
            json!({"network.nodes": nodes}),
            10,
            &[("coverage", 1.0, 0.0), ("rounds", rounds, 0.9), ("rounds.p50", rounds * 0.66, 0.0)],
        );
        cell.full = Some((10, 0.722, 1.0));
        cell.band = band(19, 1.0, rounds * 0.66, 0.6, 1.0);
        cell.theory = BTreeMap::from([("rounds".to_owned(), rounds - 0.9)]);
    }
    asked
}

/// Real nodes, one run of which broke.
fn partition() -> Asked {
    let mut asked = Asked::new(
        "partition-heal",
        "core",
        "ms",
        "Do both sides of a partition agree again after it heals?",
        "Yes in 9 of 10 runs, 2.4 s after the last link came back; in seed 7 they did not.",
    );
    asked.answered.met = false;
    asked.answered.claim = "paper 6.4".to_owned();
    asked.answered.expectations = vec![verdict("healed_ms <= 60000", (10, 10), "runs", 3_480.0, "")];
    let cell = asked.cell(
        json!({}),
        10,
        &[
            ("coverage", 1.0, 0.0),
            ("healed_ms", 2_400.0, 900.0),
            ("traffic_bytes_per_s", 1_234.0, 40.0),
            ("syncs", 118.0, 4.0),
            ("node_hours", 5.6, 0.0),
            ("stale", 0.001_44, 0.000_2),
            ("refused_writes", 0.0, 0.0),
        ],
    );
    cell.full = Some((9, 0.596, 0.982));
    asked.runs[6].broken = Some(BrokenRun {
        check: "agreement".to_owned(),
        at_ms: 184_250,
        detail: "node 3 serves summarizer@. version 4, node 17 version 5".to_owned(),
        progress: true,
    });
    asked
}

/// Text that wants to be markup, wherever text goes.
fn hostile() -> Asked {
    let mut asked = Asked::new(&format!("hostile {HOSTILE}"), "core", "ms", HOSTILE, HOSTILE);
    asked.answered.claim = HOSTILE.to_owned();
    asked.answered.source = HOSTILE.to_owned();
    asked.answered.claims = vec![verdict(HOSTILE, (1, 2), HOSTILE, f64::NAN, HOSTILE)];
    for value in [HOSTILE, "{{script}}"] {
        let cell = asked.cell(json!({HOSTILE: value}), 2, &[(HOSTILE, 0.5, 0.1), ("coverage", 0.9, 0.05)]);
        cell.band = band(10, 10.0, 40.0, 8.0, 0.9);
    }
    for run in &mut asked.runs {
        HOSTILE.clone_into(&mut run.trace_hash);
        run.broken = Some(BrokenRun {
            check: HOSTILE.to_owned(),
            at_ms: 5,
            detail: HOSTILE.to_owned(),
            progress: false,
        });
    }
    asked
}

/// All of them.
pub(crate) fn results() -> Results {
    let asked = [regions(), loss(), degrees(), scaling(), partition(), hostile()];
    let mut results = Results {
        schema: SCHEMA,
        command: "aop sim run simulations/*.toml --seeds 20 --jobs 2 --out out".to_owned(),
        build: "aop 0.1.0 (3494bfd)".to_owned(),
        ..Results::default()
    };
    for Asked { answered, runs, .. } in asked {
        results.scenarios.push(answered);
        results.runs.extend(runs);
    }
    results
}
