//! `aop sim list`: what there is to find out, and what can be measured.

use serde_json::{Value, json};

use super::files::{Loaded, load_what_is_right};
use crate::cli::args::SimListArgs;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Console, Rows, print_json};
use crate::lab::measure::METRICS;
use crate::lab::scenario::Tier;

/// `aop sim list`: a file with a flaw is reported and does not hide the others.
pub(in crate::cli) fn list(args: &SimListArgs, console: Console) -> Result<Exit, Failure> {
    if args.metrics {
        return metrics(args.json);
    }
    // Mostly the default where the command was typed elsewhere: the fix says where to go.
    if let [path] = args.files.as_slice()
        && !path.exists()
    {
        return Err(Failure::new(
            Exit::NotFound,
            format!("there is no {}", path.display()),
            "name scenarios: aop sim list FILE…, or go where `simulations` is",
        ));
    }
    let (loaded, flaws) = load_what_is_right(&args.files, &[]);
    if args.json {
        print_json(&json!({"scenarios": loaded.iter().map(as_json).collect::<Vec<_>>()}))?;
    } else {
        let mut rows = Rows::new(&["NAME", "TIER", "RUNS", "CLAIM", "QUESTION"]);
        for it in &loaded {
            let scenario = &it.document.scenario;
            let runs = format!("{} × {}", cells(it), scenario.seeds.count);
            rows.push([
                scenario.name.clone(),
                scenario.tier.name().into(),
                runs,
                scenario.claim.clone(),
                scenario.question.clone(),
            ]);
        }
        rows.print()?;
        console.print(&format!("{} scenarios; runs are cells × seeds", loaded.len()));
    }
    Ok(if flaws > 0 { Exit::Usage } else { Exit::Done })
}

fn cells(loaded: &Loaded) -> usize {
    // Without a sweep the empty product is 1, the one cell there is.
    loaded.document.scenario.sweep.values().map(Vec::len).product()
}

fn as_json(loaded: &Loaded) -> Value {
    let scenario = &loaded.document.scenario;
    json!({
        "name": scenario.name,
        "file": loaded.path.display().to_string(),
        "tier": scenario.tier.name(),
        "claim": scenario.claim,
        "question": scenario.question,
        "cells": cells(loaded),
        "seeds": scenario.seeds.count,
    })
}

fn metrics(json: bool) -> Result<Exit, Failure> {
    let tiers = |tiers: &[Tier]| tiers.iter().map(|it| it.name()).collect::<Vec<_>>();
    if json {
        let metrics = METRICS
            .iter()
            .map(|it| json!({"metric": it.name, "says": it.says, "tiers": tiers(it.tiers)}))
            .collect::<Vec<_>>();
        print_json(&json!({"metrics": metrics}))?;
        return Ok(Exit::Done);
    }
    let mut rows = Rows::new(&["METRIC", "TIERS", "SAYS"]);
    for it in METRICS {
        rows.push([it.name.to_string(), tiers(it.tiers).join(" "), it.says.to_string()]);
    }
    rows.print()?;
    Ok(Exit::Done)
}
