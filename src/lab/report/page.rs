//! The HTML: what was asked and answered stands in it as text, what is drawn is left to the script (`page.js`).
//!
//! Without a script it still says every answer and verdict, and how to get them again. The policy in its head names the
//! style and the two scripts by their hashes: nothing else runs, nothing is loaded, no script makes markup from text.

use std::collections::BTreeSet;
use std::fmt::Write;

use data_encoding::BASE64;
use sha2::{Digest, Sha256};

use super::super::measure::Unit;
use super::super::results::{Answered, Results, Run, Verdict};
use super::data;
use super::text::{Escaped, counted, number, slug};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = concat!(include_str!("uplot/uPlot.min.css"), "\n", include_str!("page.css"));
// Its licence has to stand in every copy, and each page is one.
const LIBRARY: &str =
    concat!("/*\n", include_str!("uplot/LICENSE"), "*/\n", include_str!("uplot/uPlot.iife.min.js"));
const SCRIPT: &str = include_str!("page.js");

/// Scenarios up to which a page opens unfolded; of more only as many that were not as expected.
const OPEN_MAX: usize = 6;
/// Broken runs that are told in full; the table of runs has all.
const BROKEN_TOLD: usize = 3;

/// How a scenario went.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Every expectation was met.
    Met,
    /// One was not.
    Missed,
    /// A checker failed.
    Broken,
}

impl Outcome {
    fn of(answered: &Answered, runs: &[&Run]) -> Outcome {
        match (runs.iter().any(|run| run.broken.is_some()), answered.met) {
            (true, _) => Outcome::Broken,
            (false, true) => Outcome::Met,
            (false, false) => Outcome::Missed,
        }
    }

    fn class(self) -> &'static str {
        match self {
            Outcome::Met => "met",
            Outcome::Missed => "missed",
            Outcome::Broken => "broken",
        }
    }

    fn says(self) -> &'static str {
        match self {
            Outcome::Met => "As expected",
            Outcome::Missed => "An expectation was not met",
            Outcome::Broken => "A checker failed",
        }
    }

    fn mark(self) -> String {
        format!("<span class=\"mark {}\" role=\"img\" aria-label=\"{}\"></span>", self.class(), self.says())
    }
}

/// A scenario with what belongs to it.
struct Section<'a> {
    at: usize,
    id: String,
    answered: &'a Answered,
    runs: Vec<&'a Run>,
    outcome: Outcome,
}

/// The page.
pub(super) fn page(results: &Results) -> String {
    let sections = sections(results);
    // Hashes and no nonce: nobody draws a new one each time a file is opened.
    let hash = |text: &str| BASE64.encode(&Sha256::digest(text));
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}' 'sha256-{}'; style-src 'sha256-{}'; img-src data:; base-uri 'none'; \
         form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        hash(LIBRARY),
        hash(SCRIPT),
        hash(STYLE)
    );
    let mut page = String::new();
    let mut rest = PAGE;
    // One pass over the template: what was put in is never searched for places again.
    while let Some((before, (name, after))) =
        rest.split_once("{{").and_then(|(before, rest)| Some((before, rest.split_once("}}")?)))
    {
        page.push_str(before);
        page.push_str(&match name {
            "policy" => policy.clone(),
            "style" => STYLE.to_owned(),
            "library" => LIBRARY.to_owned(),
            "script" => SCRIPT.to_owned(),
            "build" => Escaped(&results.build).to_string(),
            "summary" => summary(results, &sections),
            "figures" => figures(results, &sections),
            "command" => command(&results.command),
            "index" => index(&sections),
            "scenarios" => sections.iter().map(|it| section(it, results, opens(it, &sections))).collect(),
            "data" => data::block(results),
            _ => String::new(),
        });
        rest = after;
    }
    page + rest
}

fn sections(results: &Results) -> Vec<Section<'_>> {
    let mut taken = BTreeSet::new();
    let numbered = results.scenarios.iter().enumerate();
    numbered
        .map(|(at, answered)| {
            let runs: Vec<&Run> = results
                .runs
                .iter()
                .filter(|run| run.scenario == answered.name && run.tier == answered.tier)
                .collect();
            let name = format!("s-{}", slug(&answered.name));
            // One document may have the same scenario of several tiers, and an anchor is unique.
            let id = if taken.insert(name.clone()) {
                name
            } else {
                format!("{name}-{}-{at}", slug(&answered.tier))
            };
            let outcome = Outcome::of(answered, &runs);
            Section { at, id, answered, runs, outcome }
        })
        .collect()
}

fn summary(results: &Results, sections: &[Section<'_>]) -> String {
    let count = |outcome| sections.iter().filter(|it| it.outcome == outcome).count();
    let (met, missed, broken) = (count(Outcome::Met), count(Outcome::Missed), count(Outcome::Broken));
    let asked =
        format!("{} and {}: ", counted(sections.len(), "question"), counted(results.runs.len(), "run"));
    let went = match (met, missed, broken) {
        (0, 0, 0) => "nothing was asked".to_owned(),
        (_, 0, 0) => "everything was as expected".to_owned(),
        (_, missed, 0) => format!("{met} as expected, {missed} not"),
        (_, 0, broken) => format!("{met} as expected, in {broken} a checker failed"),
        (_, missed, broken) => format!("{met} as expected, {missed} not, and in {broken} a checker failed"),
    };
    let missing = match results.unfinished {
        0 => String::new(),
        runs => format!(" It was interrupted: {} of those planned did not end.", counted(runs, "run")),
    };
    format!("{asked}{went}.{missing}")
}

fn figures(results: &Results, sections: &[Section<'_>]) -> String {
    let share = |name: &str, count: usize, all: usize, bad: &str| {
        let class = if count == all { "" } else { bad };
        let [count, all] = [count, all].map(|it| Unit::Number.show(it as f64));
        format!("<div><dt>{name}</dt><dd class=\"{class}\">{count}<small> of {all}</small></dd></div>")
    };
    let met = sections.iter().filter(|it| it.outcome == Outcome::Met).count();
    let claims = || results.scenarios.iter().flat_map(|it| &it.claims);
    let held = claims().filter(|it| it.met).count();
    let sound = results.runs.iter().filter(|run| run.broken.is_none()).count();
    let mut out = share("Scenarios as expected", met, sections.len(), "bad");
    out += &share("Claims of the paper that hold", held, claims().count(), "warn");
    out + &share("Runs with every check kept", sound, results.runs.len(), "bad")
}

fn index(sections: &[Section<'_>]) -> String {
    let mut out = String::new();
    for Section { id, answered, outcome, .. } in sections {
        let (name, mark) = (Escaped(&answered.name), outcome.mark());
        let class = outcome.class();
        let paper =
            claim(answered).map(|(_, short, _)| format!("<small>{short}</small>")).unwrap_or_default();
        // Writing to a `String` cannot fail.
        _ = write!(out, "<li class=\"{class}\"><a href=\"#{id}\">{mark}<span>{name}{paper}</span></a></li>");
    }
    out
}

/// Whether the paper's claim held: class, few words, many words.
fn claim(answered: &Answered) -> Option<(&'static str, &'static str, &'static str)> {
    let held = answered.claims.iter().filter(|it| it.met).count();
    match (held, answered.claims.len()) {
        (_, 0) => None,
        (held, all) if held == all => Some(("good", "claim holds", "The claim holds")),
        (0, _) => Some(("warn", "claim fails", "The claim does not hold")),
        _ => Some(("warn", "claim holds in part", "The claim holds in part")),
    }
}

/// Whether a section stands open at first.
fn opens(section: &Section<'_>, sections: &[Section<'_>]) -> bool {
    let unmet = sections.iter().filter(|it| it.outcome != Outcome::Met).count();
    sections.len() <= OPEN_MAX || section.outcome != Outcome::Met && unmet <= OPEN_MAX
}

fn section(section: &Section<'_>, results: &Results, open: bool) -> String {
    let Section { at, id, answered, runs, outcome } = section;
    let open = if open { " open" } else { "" };
    let pill = claim(answered)
        .map(|(class, _, says)| format!("<span class=\"pill {class}\">{says}</span>"))
        .unwrap_or_default();
    let mut out = format!(
        "<details class=\"scenario {class}\" id=\"{id}\" data-at=\"{at}\"{open}><summary>{mark}\
         <span class=\"about\"><b>{name}</b><span>{claim}</span><span>{tier}</span><span>{runs}</span>{pill}</span>\
         <h2>{question}</h2><span class=\"answer\">{answer}</span></summary><div class=\"body\">",
        class = outcome.class(),
        mark = outcome.mark(),
        name = Escaped(&answered.name),
        claim = Escaped(&answered.claim),
        tier = Escaped(&answered.tier),
        runs = counted(runs.len(), "run"),
        question = Escaped(&answered.question),
        answer = Escaped(&answered.answer),
    );
    out += &broken(runs);
    out += &verdicts("What the paper says", &answered.claims, "warn");
    out += &verdicts("What is expected", &answered.expectations, "bad");
    out += "<div class=\"drawn\"></div>";
    out += &reproduce(answered, runs, results);
    out + "</div></details>"
}

fn broken(runs: &[&Run]) -> String {
    let all: Vec<_> = runs.iter().filter_map(|run| Some((run, run.broken.as_ref()?))).collect();
    let mut out = String::new();
    for (run, broken) in all.iter().take(BROKEN_TOLD) {
        let what = if broken.progress { "No progress" } else { "A promise was broken" };
        let place = super::label(&run.parameters);
        let place = if place.is_empty() { place } else { format!(" where {place}") };
        _ = write!(
            out,
            "<div class=\"notice\"><p><strong>{what}: {check}</strong> after {moment} in seed {seed}{place}: \
             {detail}</p>{copy}</div>",
            check = Escaped(&broken.check),
            moment = Unit::Ms.show(broken.at_ms as f64),
            seed = run.seed,
            place = Escaped(&place),
            detail = Escaped(&broken.detail),
            copy = copy("Copy replay", &run.replay),
        );
    }
    if all.len() > BROKEN_TOLD {
        let more = counted(all.len() - BROKEN_TOLD, "more run");
        _ = write!(out, "<p class=\"soft\">A checker failed in {more}; the table of runs names them.</p>");
    }
    out
}

fn verdicts(title: &str, verdicts: &[Verdict], bad: &str) -> String {
    if verdicts.is_empty() {
        return String::new();
    }
    let mut out = format!("<section class=\"verdicts\"><h3>{title}</h3><ul>");
    for verdict in verdicts {
        let class = if verdict.met { "good" } else { bad };
        let (wanted, says) = (Escaped(&verdict.wanted), outcome(verdict));
        let replay = if verdict.met { String::new() } else { copy("Copy replay", &verdict.replay) };
        _ = write!(
            out,
            "<li class=\"{class}\"><code>{wanted}</code><span class=\"says\">{says}</span>{replay}</li>"
        );
    }
    out + "</ul></section>"
}

/// For example `holds in 10 of 10 runs`, or `fails in 3 of 10 runs: measured 0.9405 where network.loss.rate = 0`.
fn outcome(verdict: &Verdict) -> String {
    let (held, all) = verdict.held;
    // Some documents do not say.
    let things = if verdict.counts.is_empty() { "values" } else { &verdict.counts };
    let place = if verdict.worst_cell.is_empty() { "" } else { " where " };
    let (what, count) = if verdict.met { ("holds", held) } else { ("fails", all.saturating_sub(held)) };
    let start = format!("<b>{what}</b> in {count} of {all} {}", Escaped(things));
    if verdict.unmeasured >= all {
        return format!("{start}: none has such a value");
    }
    let none = match verdict.unmeasured {
        0 => String::new(),
        some => format!(", of which {some} without such a value"),
    };
    let furthest = if verdict.met { "; worst" } else { ": measured" };
    format!("{start}{none}{furthest} {}{place}{}", number(verdict.worst), Escaped(&verdict.worst_cell))
}

fn reproduce(answered: &Answered, runs: &[&Run], results: &Results) -> String {
    let shared = match answered.tier.as_str() {
        "core" => {
            "<p>These are real nodes in one process. Every distinct record is verified once per world and then shared \
             between its nodes, so speed and memory are those of the world, not of a node alone.</p>"
        }
        _ => "",
    };
    format!(
        "<details class=\"fold\"><summary>How to get this again</summary><dl class=\"pairs\"><dt>Command</dt>\
         <dd><code>{}</code></dd><dt>Build</dt><dd>{}</dd><dt>Played by</dt><dd>{}</dd><dt>Seeds</dt><dd>{}</dd></dl>\
         {shared}<h4>Scenario as it was run</h4><pre tabindex=\"0\">{}</pre><details class=\"fold runs\">\
         <summary>Trace hashes of {}</summary><div class=\"rows\"></div></details></details>",
        Escaped(&results.command),
        Escaped(&results.build),
        Escaped(&answered.tier),
        seeds(runs),
        Escaped(&answered.source),
        counted(runs.len(), "run"),
    )
}

/// Seeds as ranges: `1–10, 12`.
fn seeds(runs: &[&Run]) -> String {
    let seeds: BTreeSet<u64> = runs.iter().map(|run| run.seed).collect();
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for seed in seeds {
        match ranges.last_mut() {
            // The greatest seed has no next one.
            Some((_, last)) if last.checked_add(1) == Some(seed) => *last = seed,
            _ => ranges.push((seed, seed)),
        }
    }
    let words =
        ranges.iter().map(|(from, to)| if from == to { from.to_string() } else { format!("{from}–{to}") });
    words.collect::<Vec<String>>().join(", ")
}

fn command(text: &str) -> String {
    format!(
        "<div class=\"command\"><code tabindex=\"0\">{}</code>{}</div>",
        Escaped(text),
        copy("Copy", text)
    )
}

fn copy(says: &str, text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let text = Escaped(text);
    format!("<button type=\"button\" class=\"copy\" data-copy=\"{text}\" title=\"{text}\">{says}</button>")
}
