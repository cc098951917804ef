//! `aop sim theory`: what the formulas say of a world, without playing it.

use serde_json::{Value, json};

use crate::cli::args::SimTheoryArgs;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Rows, Talk, print_json};
use crate::sim::measure::{METRICS, Unit};
use crate::sim::scenario::Document;
use crate::sim::theory;

/// Families of formulas, as a scenario names them.
const CURVES: [&str; 3] = ["push", "pushpull", "mesh"];

/// `aop sim theory`.
pub(in crate::cli) fn theory(args: &SimTheoryArgs, talk: Talk) -> Result<Exit, Failure> {
    let mut rows = Rows::new(&["FORMULAS", "METRIC", "VALUE", "SAYS"]);
    let mut documents: Vec<Value> = Vec::new();
    for curve in CURVES {
        let document = Document::read(&scenario(args, curve), &[]);
        let document = document.map_err(|flaw| Failure::plain(Exit::Usage, &format!("{curve}: {flaw}")))?;
        let metrics = theory::metrics(&document.scenario);
        for (metric, value) in &metrics {
            let says = METRICS.iter().find(|it| it.name == metric).map_or("", |it| it.says);
            rows.push([curve.into(), metric.clone(), Unit::of(metric).show(*value), says.into()]);
        }
        let curve_points = theory::curve(&document.scenario);
        documents.push(json!({"formulas": curve, "metrics": metrics, "curve": curve_points}));
    }
    if args.json {
        print_json(&json!({"nodes": args.nodes, "theory": documents}))?;
        return Ok(Exit::Done);
    }
    rows.print()?;
    talk.say("a scenario draws these beside its curves: [theory] curve = \"push\"");
    Ok(Exit::Done)
}

/// A scenario of this world, as a file would have it.
fn scenario(args: &SimTheoryArgs, curve: &str) -> String {
    let SimTheoryArgs { nodes, fanout, loss, degree, rounds, .. } = args;
    let (peers, latency) = match curve {
        "mesh" => (format!("degree = {degree}"), "latency = \"25ms\"\n"),
        _ => {
            let rounds = rounds.map_or_else(|| "\"forever\"".into(), |rounds| rounds.to_string());
            (format!("fanout = {fanout}\nrounds = {rounds}"), "")
        }
    };
    format!(
        "name = \"theory\"\nquestion = \"?\"\nclaim = \"\"\ntier = \"model\"\n\
         [network]\nnodes = {nodes}\n{latency}loss = {{ rate = {loss:?} }}\n\
         [protocol]\nkind = \"{curve}\"\n{peers}\n[theory]\ncurve = \"{curve}\"\n"
    )
}
