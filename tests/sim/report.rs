//! The report of a simulation: what the page, the charts and the tables say, and that text in it stays text.

#[cfg(feature = "net")]
mod browser;
#[cfg(feature = "net")]
#[path = "../browser/driver.rs"]
mod driver;
mod sample;

use std::collections::BTreeSet;

use aop::lab::report::{curve_csv, html, runs_csv, svg};
use aop::lab::results::{Answered, Results};
use sample::{HOSTILE, results};
use serde_json::Value;

/// Bytes of a page without data.
const PAGE_BYTES_MAX: usize = 150_000;

/// The figures in a page.
fn figures(page: &str) -> Value {
    let block = page.split("<script type=\"application/json\" id=\"data\">").nth(1).unwrap();
    serde_json::from_str(block.split("</script>").next().unwrap()).unwrap()
}

#[test]
fn the_page_says_question_answer_claims_and_expectations() {
    let page = html(&results());
    for part in [
        "How long does one record take to reach 10,000 nodes",
        "No: it stops at 94.05 % of the nodes without loss",
        "<b>holds</b> in 20 of 20 runs",
        "<b>fails</b> in 300 of 300 runs: measured 0.4322 where network.loss.rate = 0.5",
        "<b>fails</b> in 1 of 200 runs: measured 38215 where network.loss.rate = 0.5, protocol.degree = 3",
        "<b>holds</b> in 20 of 20 cells; worst 0.99996",
        "The claim holds in part",
        "6 questions and 574 runs: 3 as expected, 1 not, and in 2 a checker failed.",
        "aop sim run simulations/*.toml --seeds 20 --jobs 2 --out out",
        "data-copy=\"aop sim replay simulations/partition-heal.toml --seed 7\"",
        "No progress: agreement</strong> after 3.071 min in seed 7",
        "<dt>Seeds</dt><dd>1–50</dd>",
        "verified once per world",
    ] {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn what_was_not_measured_is_said_to_be_missing() {
    let mut results = results();
    results.unfinished = 3;
    let expectations = &mut results.scenarios[4].expectations;
    expectations.push(expectations[0].clone());
    (expectations[0].met, expectations[0].held, expectations[0].unmeasured) = (false, (8, 10), 1);
    (expectations[1].met, expectations[1].held, expectations[1].unmeasured) = (false, (0, 10), 10);
    let page = html(&results);
    for part in [
        "It was interrupted: 3 runs of those planned did not end.",
        "<b>fails</b> in 2 of 10 runs, of which 1 without such a value: measured 3480",
        "<b>fails</b> in 10 of 10 runs: none has such a value<",
    ] {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn text_of_scenarios_never_becomes_markup() {
    let page = html(&results());
    assert_eq!(page.matches("<script").count(), 3, "data, library, script");
    assert_eq!(page.matches("</script").count(), 3);
    assert!(!page.contains("<img"), "no markup from text");
    assert!(
        page.contains("&lt;img src=x onerror=&quot;document.title=&#39;owned&#39;&quot;&gt;"),
        "shown as it is"
    );
    let figures = figures(&page);
    assert_eq!(figures["scenarios"][5]["keys"][0], HOSTILE, "the figures have it as it was");
    for (name, chart) in results().scenarios.iter().flat_map(svg) {
        assert!(name.chars().all(|it| it.is_ascii_alphanumeric() || "-_.".contains(it)), "{name}");
        assert!(!chart.contains("<script") && !chart.contains("<img"), "{name}");
    }
}

#[test]
fn the_page_loads_nothing_and_runs_only_its_own_scripts() {
    let page = html(&results());
    assert!(page.contains("content=\"default-src 'none'; script-src 'sha256-") && !page.contains("unsafe-"));
    for loading in [" src=\"", "@import", "url(", "<link rel=\"stylesheet", " style=\"", " onclick"] {
        assert!(!page.contains(loading), "{loading}");
    }
    assert_eq!(page.matches("<style").count(), 1);
    let empty = html(&Results::default());
    assert!(empty.len() < PAGE_BYTES_MAX, "{} bytes", empty.len());
    assert!(empty.contains("nothing was asked"));
}

#[test]
fn figures_are_small_and_exact() {
    let page = html(&results());
    let figures = figures(&page);
    let spread = &figures["scenarios"][0]["cells"][0]["spread"];
    let nodes: u64 = spread
        .as_array()
        .unwrap()
        .iter()
        .map(|region| {
            let pairs = region[1][0].as_array().unwrap();
            pairs.iter().skip(1).step_by(2).map(|count| count.as_u64().unwrap()).sum::<u64>()
                + region[1][1].as_u64().unwrap()
        })
        .sum();
    assert_eq!((spread.as_array().unwrap().len(), nodes), (8, 10_000), "every node is in one region");
    assert!(spread.to_string().len() < 30_000, "{} bytes", spread.to_string().len());
    let cell = &figures["scenarios"][1]["cells"][2];
    let seed = cell["metrics"]["coverage"][5].as_str().unwrap();
    let run = cell["played"].as_array().unwrap().iter().find(|run| run[0] == seed).unwrap();
    let [before, middle, after] =
        [&cell["replay"][0], &run[2], &cell["replay"][1]].map(|it| it.as_str().unwrap());
    let replay =
        format!("aop sim replay simulations/loss-sweep.toml --seed {seed} --set network.loss.rate=0.2");
    assert_eq!(format!("{before}{middle}{after}"), replay, "the worst seed's command");
    assert_eq!(figures["scenarios"][1]["first"], "coverage", "what is judged and differs comes first");
    assert_eq!(figures["scenarios"][2]["first"], "latency_ms.p100");
}

#[test]
fn equal_results_give_equal_bytes() {
    let (one, other) = (results(), results());
    assert_eq!(html(&one), html(&other));
    let charts = |results: &Results| results.scenarios.iter().flat_map(svg).collect::<Vec<_>>();
    assert_eq!(charts(&one), charts(&other));
    assert_eq!((runs_csv(&one), curve_csv(&one)), (runs_csv(&other), curve_csv(&other)));
}

#[test]
fn a_scenario_has_the_charts_that_its_sweep_asks_for() {
    let results = results();
    let names = |at: usize| svg(&results.scenarios[at]).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(0), ["wan-spread-spread"]);
    assert_eq!(names(1), ["loss-sweep-spread", "loss-sweep-sweep"]);
    assert_eq!(names(2), ["loss-by-degree-spread", "loss-by-degree-heat"]);
    assert_eq!(names(4), [""; 0], "nothing to draw");
    for (name, chart) in results.scenarios.iter().flat_map(svg) {
        assert!(chart.starts_with("<svg ") && chart.trim_end().ends_with("</svg>"), "{name}");
        assert_well_formed(&name, &chart);
        assert!(chart.len() < 50_000, "{name}: {} bytes", chart.len());
        assert!(
            chart.matches("<text").count() > 8 && chart.contains("sans-serif"),
            "{name}: axes say what they are"
        );
    }
    let heat = &svg(&results.scenarios[2])[1].1;
    assert_eq!(heat.matches("<rect").count(), 2 + 20, "ground, frame, and a square for each pair of values");
    let shades: BTreeSet<&str> =
        heat.split("<rect ").filter_map(|it| it.split("fill=\"").nth(1)?.split('"').next()).collect();
    assert!(shades.len() > 12, "darker for more: {shades:?}");
    let curve = &svg(&results.scenarios[1])[0].1;
    assert!(curve.contains(">\nloss.rate = 0.5") && curve.contains("dashed: theory"), "{curve}");
}

/// Every element is closed, and no text holds a bare mark.
fn assert_well_formed(name: &str, xml: &str) {
    let mut open = Vec::new();
    for part in xml.split('<').skip(1) {
        let (tag, text) = part.split_once('>').unwrap_or_else(|| panic!("{name}: {part}"));
        assert!(!text.contains('"') || !text.contains('='), "{name}: {text}");
        let element = tag.split([' ', '\n', '/']).find(|it| !it.is_empty()).unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(element), "{name}");
        } else if !tag.ends_with('/') {
            open.push(element);
        }
    }
    assert!(open.is_empty(), "{name}: {open:?}");
}

#[test]
fn a_sweep_without_numbers_and_a_single_value_can_be_drawn() {
    let mut answered = results().scenarios.swap_remove(1);
    for (at, cell) in answered.cells.iter_mut().enumerate() {
        cell.parameters = [("protocol.kind".to_owned(), Value::from(["push", "pushpull"][at % 2]))].into();
        cell.metrics.retain(|name, _| name == "rounds");
        cell.theory.clear();
    }
    answered.cells.truncate(2);
    let charts = svg(&answered);
    assert!(charts[1].1.contains("pushpull") && charts[1].1.contains("rounds"), "{}", charts[1].1);
    answered.cells.truncate(1);
    assert_eq!(svg(&answered).len(), 2);
    answered.cells[0].band.clear();
    answered.cells[0].metrics.clear();
    assert_eq!(svg(&answered), [], "nothing was measured");
    assert_eq!(svg(&Answered::default()), []);
}

#[test]
fn a_row_for_each_run_and_each_point() {
    let results = results();
    let runs = runs_csv(&results);
    let mut read = csv::Reader::from_reader(runs.as_bytes());
    let head: Vec<String> = read.headers().unwrap().iter().map(str::to_owned).collect();
    assert_eq!(head[..3], ["scenario", "tier", "seed"]);
    assert_eq!(head[head.len() - 2..], ["trace_hash", "broken"]);
    // The last of that name: the hostile scenario calls a parameter like its metric.
    let column = |name: &str| head.iter().rposition(|it| it == name).unwrap();
    let rows: Vec<csv::StringRecord> = read.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), results.runs.len());
    let broken = rows.iter().find(|row| &row[0] == "partition-heal" && &row[2] == "7").unwrap();
    assert_eq!(&broken[column("broken")], "agreement");
    let hash = &results.runs.iter().find(|run| run.broken.is_some()).unwrap().trace_hash;
    assert_eq!((&broken[column("trace_hash")], hash.len()), (hash.as_str(), 16));
    assert_eq!(&broken[column("network.loss.rate")], "", "it has no such key");
    let swept = rows.iter().rev().find(|row| &row[0] == "loss-sweep").unwrap();
    assert_eq!(&swept[column("network.loss.rate")], "0.5");
    let coverage: f64 = swept[column("coverage")].parse().unwrap();
    assert!((0.3..0.6).contains(&coverage), "{coverage}");
    assert_eq!(
        &rows.last().unwrap()[column(HOSTILE)].parse::<f64>().unwrap().to_string(),
        &rows.last().unwrap()[column(HOSTILE)]
    );

    let curves = curve_csv(&results);
    let mut read = csv::Reader::from_reader(curves.as_bytes());
    assert_eq!(read.headers().unwrap(), vec!["scenario", "cell", "x", "p5", "p50", "p95", "theory"]);
    let rows: Vec<csv::StringRecord> = read.records().map(Result::unwrap).collect();
    let one: Vec<_> = rows.iter().filter(|row| &row[0] == "wan-spread").collect();
    assert_eq!(one.len(), 160, "theory lies on the points of the curve");
    assert_eq!((&one[2][2], one[2][6].is_empty(), one[1][6].is_empty()), ("4", false, true));
    assert!(rows.iter().any(|row| &row[1] == "network.loss.rate = 0.5"));
    assert!(
        one.windows(2).all(|pair| pair[0][2].parse::<f64>().unwrap() < pair[1][2].parse::<f64>().unwrap())
    );
}
