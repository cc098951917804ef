//! `aop sim theory`: what the formulas say of a world, without playing it.

use serde_json::{Value, json};

use crate::cli::args::SimTheoryArgs;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Console, Rows, print_json};
use crate::lab::measure::Unit;
use crate::lab::scenario::Document;
use crate::lab::theory;

/// Links of a mesh, where a time is asked for.
const LATENCY: &str = "25ms";

/// Protocols that have formulas: how each is called, its kind in a scenario, whether it pushes for some rounds only.
const PROTOCOLS: [(&str, &str, bool); 4] = [
    ("push", "push", false),
    ("push, a rounds", "push", true),
    ("push-pull", "pushpull", false),
    ("mesh", "mesh", false),
];

/// `aop sim theory`.
pub(in crate::cli) fn theory(args: &SimTheoryArgs, console: Console) -> Result<Exit, Failure> {
    let mut rows = Rows::new(&["PROTOCOL", "METRIC", "VALUE", "FORMULA"]);
    let mut documents: Vec<Value> = Vec::new();
    for (protocol, kind, is_bounded) in PROTOCOLS {
        // Read as a file would be, so that the same numbers are refused here and there.
        let document = Document::read(&scenario(args, kind, is_bounded), &[]);
        let document =
            document.map_err(|flaw| Failure::plain(Exit::Usage, &format!("{protocol}: {flaw}")))?;
        let metrics = theory::metrics(&document.scenario);
        for (metric, value) in metrics {
            let formula = formula(kind, is_bounded, &metric);
            documents
                .push(json!({"protocol": protocol, "metric": metric, "value": value, "formula": formula}));
            let shown = Unit::of(&metric).show(value);
            rows.push([protocol.into(), metric, shown, formula.into()]);
        }
    }
    let SimTheoryArgs { nodes: n, fanout: k, loss, degree, rounds: a, .. } = args;
    if args.json {
        print_json(&json!({
            "nodes": n, "fanout": k, "loss": loss, "degree": degree, "rounds": a, "formulas": documents,
        }))?;
        return Ok(Exit::Done);
    }
    rows.print()?;
    let q = Unit::Number.show(1.0 - loss);
    console.print(&format!("n = {n}, k = {k}, q = 1 - loss = {q}, a = {a}, degree d = {degree}"));
    Ok(Exit::Done)
}

/// How a metric is found.
fn formula(kind: &str, is_bounded: bool, metric: &str) -> &'static str {
    match (kind, metric) {
        ("push", "rounds") => "log_{1+kq} n + (ln n)/(kq)",
        ("push", "coverage") if is_bounded => {
            "z s: z = 1 - e^(-akqz); s = 1 - e, e = (1-q+qe)^(ak) for dying out at once"
        }
        ("push", "messages_per_node") => "ak times coverage",
        ("pushpull", "rounds") => "log_{1+2kq} n + max(log_{k+1} ln n, (ln n)/(k(q - ln(1-q))))",
        ("push" | "pushpull", "coverage" | "complete") => "all, as nobody stops",
        ("mesh", "hops") => "(ln n + ln ln n)/ln(d-1)",
        ("mesh", "coverage") => "z²: z = 1 - (1-qt)^d, t = 1 - (1-qt)^(d-1)",
        ("mesh", "messages_per_node") => "(d-1) times coverage, and one of the author",
        ("mesh", _) => "mean-field recurrence, links of 25 ms",
        _ => "mean-field recurrence",
    }
}

/// A scenario of this world, as a file would have it.
fn scenario(args: &SimTheoryArgs, kind: &str, is_bounded: bool) -> String {
    let SimTheoryArgs { nodes, fanout, loss, degree, rounds, .. } = args;
    let (peers, latency) = match (kind, is_bounded) {
        ("mesh", _) => (format!("degree = {degree}"), format!("latency = \"{LATENCY}\"\n")),
        (_, true) => (format!("fanout = {fanout}\nrounds = {}", rounds), String::new()),
        (_, false) => (format!("fanout = {fanout}"), String::new()),
    };
    // The debug form writes 0 as `0.0`: TOML tells the two apart.
    format!(
        "name = \"theory\"\nquestion = \"?\"\nclaim = \"\"\ntier = \"model\"\n\
         [network]\nnodes = {nodes}\n{latency}loss = {{ rate = {loss:?} }}\n\
         [protocol]\nkind = \"{kind}\"\n{peers}\n[theory]\ncurve = \"{kind}\"\n"
    )
}
