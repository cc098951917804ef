//! Bad files and what is said of them; settings and sweeps.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::lab::scenario::values::parse_duration;

/// A right file of the model.
const MODEL: &str = r#"name = "it"
question = "Does it?"
claim = "ours"
tier = "model"
[network]
nodes = 100
[protocol]
kind = "push"
"#;

/// A right file of real nodes.
const CORE: &str = r#"name = "it"
question = "Does it?"
claim = "ours"
tier = "core"
until = "60s"
[network]
nodes = 100
latency = "25ms"
[protocol]
kind = "mesh"
anti_entropy = { every = "30s" }
"#;

fn settings(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

/// Each flaw as `line:column: message`, and what it points at.
fn told(text: &str, set: &[(&str, &str)]) -> String {
    let Err(flaws) = Document::examine(text, &settings(set)) else { return "no flaw\n".into() };
    let mut told = String::new();
    for Flaw { message, span } in flaws {
        let place = span.map_or_else(
            || "nowhere".into(),
            |span| {
                let before = &text[..span.start];
                let line = before.matches('\n').count() + 1;
                let column = before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1;
                let excerpt = text[span].lines().next().unwrap_or_default();
                format!("{line}:{column} [{excerpt}]")
            },
        );
        writeln!(told, "{place}: {message}").unwrap();
    }
    told
}

#[test]
fn right_files_have_no_flaw() {
    assert_eq!(told(MODEL, &[]) + &told(CORE, &[]), "no flaw\nno flaw\n");
}

fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from}");
    text.replace(from, to)
}

fn model(more: &str) -> String {
    format!("{MODEL}{more}")
}

fn core(more: &str) -> String {
    format!("{CORE}{more}")
}

/// What is said of each, under what is wrong with it.
fn told_of_all<const MANY: usize>(bad: [(&str, String); MANY]) -> String {
    let mut all = String::new();
    for (what, text) in bad {
        let told = told(&text, &[]);
        assert_ne!(told, "no flaw\n", "{what}");
        writeln!(all, "{what}\n  {}", told.trim_end().replace('\n', "\n  ")).unwrap();
    }
    all
}

#[test]
fn a_bad_key_or_value_is_told_with_its_line_and_what_was_meant() {
    let all = told_of_all([
        ("a typo at the top", replaced(MODEL, "question", "qestion")),
        ("a typo in a table", replaced(MODEL, "nodes", "nodse")),
        ("a typo in a table in a table", replaced(MODEL, "nodes = 100", "nodes = 100\nloss = { rat = 0.1 }")),
        ("a typo in a value", replaced(MODEL, "\"model\"", "\"modle\"")),
        ("a typo in a fault", model("[[fault]]\nkind = \"join\"\nat = \"1s\"\nnode = 5\n")),
        ("a typo in an expectation", model("[[expect]]\nmetrik = \"coverage\"\nop = \">=\"\nvalue = 1\n")),
        ("a missing table", replaced(MODEL, "[protocol]\nkind = \"push\"\n", "")),
        ("a missing key", replaced(MODEL, "claim = \"ours\"\n", "")),
        ("a missing unit", model("interval = 1\n")),
        ("a missing unit in quotes", model("interval = \"1\"\n")),
        ("a latency without a unit", replaced(MODEL, "nodes = 100", "nodes = 100\nlatency = 25")),
        ("a unit that is none", model("interval = \"5 fortnights\"\n")),
        ("a time deep in a table", model("anti_entropy = { every = 30 }\n")),
        ("a switch that is no answer", model("anti_entropy = true\n")),
        ("a key twice", replaced(MODEL, "tier", "name = \"that\"\ntier")),
        ("no TOML", replaced(MODEL, "[network]", "[network")),
        ("a name with capitals", replaced(MODEL, "\"it\"", "\"It\"")),
    ]);
    insta::assert_snapshot!(all);
}

#[test]
fn an_impossible_world_is_told_with_its_line() {
    let all = told_of_all([
        ("latencies swapped", replaced(CORE, "\"25ms\"", "{ least = \"9ms\", most = \"5ms\" }")),
        ("no nodes", replaced(MODEL, "100", "0")),
        ("one node", replaced(MODEL, "100", "1")),
        ("nodes in quotes", replaced(MODEL, "100", "\"100\"")),
        ("half a node", replaced(MODEL, "100", "10.5")),
        ("more nodes than a tier plays", replaced(CORE, "100", "1e6")),
        ("a degree as large as the world", core("degree = 100\n")),
        ("a fan-out as large as the world", model("fanout = 100\n")),
        ("a fan-out for a mesh", core("fanout = 3\n")),
        ("loss above one", replaced(MODEL, "nodes = 100", "nodes = 100\nloss = { rate = 1.5 }")),
        ("loss as a number", replaced(MODEL, "nodes = 100", "nodes = 100\nloss = 0.1")),
        ("a push of real nodes", replaced(CORE, "\"mesh\"", "\"push\"")),
        ("two flaws", replaced(&replaced(MODEL, "100", "1"), "Does it?", "")),
        ("too many seeds", replaced(MODEL, "[network]", "seeds = { count = 1e6 }\n[network]")),
    ]);
    insta::assert_snapshot!(all);
}

#[test]
fn an_impossible_fault_is_told_with_its_line() {
    let all = told_of_all([
        (
            "a fault after the end",
            core("[[fault]]\nkind = \"crash\"\nat = \"60s\"\nnodes = 1\nlasts = \"1s\"\n"),
        ),
        (
            "a fault that the tier does not know",
            model("[[fault]]\nkind = \"sleep\"\nat = \"1s\"\nlasts = \"1s\"\n"),
        ),
        (
            "a fault that nobody knows",
            model("[[fault]]\nkind = \"partitoin\"\nat = \"1s\"\nlasts = \"1s\"\n"),
        ),
        ("a fault without a time", model("[[fault]]\nkind = \"join\"\nnodes = 5\n")),
        (
            "a fault with a key of another",
            model("[[fault]]\nkind = \"join\"\nat = \"1s\"\nnodes = 5\nlasts = \"1s\"\n"),
        ),
        (
            "a partition by regions without any",
            core("[[fault]]\nkind = \"partition\"\nat = \"1s\"\nlasts = \"1s\"\nby = \"region\"\n"),
        ),
    ]);
    insta::assert_snapshot!(all);
}

#[test]
fn an_impossible_zone_is_told_with_its_line() {
    let zone = |lines: &str| core(&format!("[[zone]]\nname = \"east.example\"\n{lines}"));
    let visit = |kind: &str, more: &str| {
        let fault = format!("[[fault]]\nkind = \"{kind}\"\nat = \"1s\"\nnodes = 1\n{more}");
        zone(&format!("members = \"0-4\"\n{fault}"))
    };
    let all = told_of_all([
        ("a zone in the model", model("[[zone]]\nname = \"east.example\"\nmembers = \"0-4\"\n")),
        ("a zone without members", zone("")),
        ("members that are no numbers", zone("members = \"all\"\n")),
        ("members backwards", zone("members = \"4-0\"\n")),
        ("a member that there is not", zone("members = \"0-100\"\n")),
        ("a member that follows", zone("members = \"0-4\"\nfollowers = \"4, 5\"\n")),
        ("a zone twice", zone("members = \"0\"\n[[zone]]\nname = \"east.example\"\nmembers = \"1\"\n")),
        ("a name that is none", replaced(&zone("members = \"0\"\n"), "east.example", "East!")),
        ("a visit to no zone", visit("join-zone", "")),
        ("a visit to a zone that there is not", visit("leave-zone", "zone = \"west.example\"\n")),
        ("a crash in a zone that there is not", visit("crash", "lasts = \"1s\"\nzone = \"west.example\"\n")),
        ("a Sybil of a zone", visit("sybil", "zone = \"east.example\"\n")),
    ]);
    insta::assert_snapshot!(all);
}

#[test]
fn impossible_questions_are_told_with_their_line() {
    let zone = "[[zone]]\nname = \"east.example\"\nmembers = \"0-4\"\n";
    let asked = |lines: &str| core(&format!("{zone}[questions]\ncount = 10\n{lines}"));
    let cut = |lines: &str| {
        let fault = "[[fault]]\nkind = \"partition\"\nby = \"zone\"\nat = \"1s\"\nlasts = \"1s\"\n";
        asked(&format!("rate = 1.0\n{fault}{lines}"))
    };
    let all = told_of_all([
        ("questions in the model", model("[questions]\ncount = 10\nrate = 1.0\n")),
        ("questions without zones", core("[questions]\ncount = 10\nrate = 1.0\n")),
        ("questions without a rate", asked("")),
        ("a rate that is none", asked("rate = nan\n")),
        ("more names than questions", asked("rate = 1.0\nnames = 1.5\n")),
        ("askers of a zone that there is not", asked("rate = 1.0\nzone = \"west.example\"\n")),
        ("a scope that there is not", asked("rate = 1.0\nscope = \"west.example\"\n")),
        ("an exponent that is none", asked("rate = 1.0\nzipf = -1.0\n")),
        ("a key that there is not", asked("rate = 1.0\nname = 0.1\n")),
        ("no member in each zone", core(&format!("{zone}each = 0\n"))),
        ("a cut around a zone that there is not", cut("zone = \"west.example\"\n")),
        ("a cut around no zone", cut("")),
    ]);
    insta::assert_snapshot!(all);
}

#[test]
fn a_zone_that_stands_for_many_is_dealt_to_the_nodes_that_there_are() {
    let zone = "[[zone]]\nname = \"example\"\nmembers = \"4-403\"\neach = 4\n";
    let cells = Document::read(&core(zone), &[]).unwrap().cells().unwrap();
    let zones = &cells[0].scenario.zones;
    assert_eq!((zones.len(), zones[23].name.as_str()), (24, "z23.example"));
    assert!(zones.iter().all(|zone| zone.members.0.len() == 4));
}

#[test]
fn what_cannot_be_asked_is_told_with_its_line() {
    let all = told_of_all([
        ("an unknown metric", model("[[expect]]\nmetric = \"covrage\"\nop = \">=\"\nvalue = 1\n")),
        ("a metric of another tier", model("[[claims]]\nmetric = \"zombies\"\nop = \"==\"\nvalue = 0\n")),
        ("no operator", model("[[expect]]\nmetric = \"coverage\"\nvalue = 1\n")),
        ("an unknown operator", model("[[expect]]\nmetric = \"coverage\"\nop = \"=>\"\nvalue = 1\n")),
        ("a value that is no number", model("[[expect]]\nmetric = \"coverage\"\nop = \">=\"\nvalue = nan\n")),
        ("no theory", model("[[expect]]\nmetric = \"rounds\"\nwithin = 1.5\nof = \"theory\"\n")),
        ("a sweep over an unknown key", model("[sweep]\n\"network.nodse\" = [10, 20]\n")),
        ("a sweep over nothing", model("[sweep]\n\"network.nodes\" = []\n")),
        ("a sweep over what is asked", model("[sweep]\ntier = [\"model\", \"core\"]\n")),
        ("a sweep with a bad value", model("[sweep]\n\"network.loss.rate\" = [0, 0.1, 1.5]\n")),
        ("a sweep that takes a value twice", model("[sweep]\nnetwork.nodes = [1000, 1e3]\n")),
        ("a sweep that makes another key wrong", model("fanout = 50\n[sweep]\nnetwork.nodes = [1000, 40]\n")),
        ("a sweep without a list", model("[sweep]\nnetwork.nodes = 1000\n")),
        (
            "an expectation where no cell is",
            model(
                "[sweep]\nnetwork.nodes = [10, 20]\n[[expect]]\nmetric = \"coverage\"\nop = \">=\"\nvalue = 1\n\
                 at = { network.nodes = 30 }\n",
            ),
        ),
        (
            "an expectation at a key that is not swept",
            model("[[expect]]\nmetric = \"coverage\"\nop = \">=\"\nvalue = 1\nat = { network.nodes = 30 }\n"),
        ),
        (
            "an answer with an unknown metric",
            replaced(MODEL, "claim", "answer = \"It is {covrage}.\"\nclaim"),
        ),
        (
            "an answer of a cell that is not there",
            replaced(
                &model("[sweep]\nnetwork.nodes = [10, 20]\n"),
                "claim",
                "answer = \"It is {coverage @ network.nodes = 30}.\"\nclaim",
            ),
        ),
        ("an open answer", replaced(MODEL, "claim", "answer = \"It is {coverage\"\nclaim")),
    ]);
    insta::assert_snapshot!(all);
}

#[test]
fn a_bad_setting_is_told_by_its_flag() {
    let swept = format!("{MODEL}[sweep]\n\"network.loss.rate\" = [0, 0.1]\n");
    let bad: [&[(&str, &str)]; 10] = [
        &[("network.nodse", "5")],
        &[("netwrk.nodes", "5")],
        &[("network.nodes", "0")],
        &[("network.nodes", "1")],
        &[("network.loss.mode", "drop")],
        &[("network.loss.rate", "2")],
        &[("network.loss.rate", "[0.5, 2]")],
        &[("network.nodes.many", "5")],
        &[("fault.0.at", "5s")],
        &[("sweep.network.nodes", "[1, 2]")],
    ];
    let mut all = String::new();
    for set in bad {
        let text = if set[0].0 == "network.loss.rate" { &swept } else { MODEL };
        let told = told(text, set);
        assert_ne!(told, "no flaw\n", "{set:?}");
        all.push_str(&told);
    }
    insta::assert_snapshot!(all);
}

fn set(text: &str, all: &[(&str, &str)]) -> Document {
    Document::examine(text, &settings(all)).unwrap()
}

#[test]
fn a_setting_reaches_keys_that_the_file_does_not_have() {
    let it = set(
        MODEL,
        &[
            ("network.loss.rate", "0.25"),
            ("protocol.anti_entropy.every", "30s"),
            ("protocol.rounds", "5"),
            ("seeds.count", "3"),
            ("workload.updates", "1e3"),
        ],
    );
    assert_eq!(it.scenario.network.loss.rate, 0.25);
    assert_eq!(it.scenario.protocol.anti_entropy.every, Some(std::time::Duration::from_secs(30)));
    assert_eq!((it.scenario.seeds.count, it.scenario.workload.updates), (3, 1_000));
    let again = Document::read(&it.source(), &[]).unwrap();
    assert_eq!(format!("{:?}", again.scenario), format!("{:?}", it.scenario), "the source says it all");
}

#[test]
fn settings_that_need_each_other_come_in_any_order() {
    let both = [("protocol.kind", "mesh"), ("protocol.degree", "4"), ("network.latency", "5ms")];
    let reversed: Vec<_> = both.iter().rev().copied().collect();
    for order in [&both[..], &reversed] {
        assert_eq!(set(MODEL, order).scenario.protocol.degree(), 4);
    }
    let fault = format!("{MODEL}[[fault]]\nkind = \"join\"\nat = \"1s\"\nnodes = 5\n");
    let churn = [("fault.0.kind", "churn"), ("fault.0.share", "0.2"), ("fault.0.mean_off", "30s")];
    assert!(told(&fault, &churn).contains("`nodes` means nothing for this kind"), "{}", told(&fault, &churn));
    assert_eq!(set(&fault, &[("fault.0.at", "9s")]).scenario.faults[0].at.as_secs(), 9);
    assert!(set(&fault, &[("fault", "[]")]).scenario.faults.is_empty(), "what is a list is not swept");
}

#[test]
fn a_swept_key_that_is_set_leaves_one_cell_which_keeps_its_place() {
    let text = format!(
        "{MODEL}[sweep]\nnetwork.loss.rate = [0, 0.1]\nnetwork.nodes = [10, 20, 30]\n\
         [[expect]]\nmetric = \"coverage\"\nop = \">=\"\nvalue = 1\nat = {{ network.loss.rate = 0.1 }}\n"
    );
    assert_eq!(set(&text, &[]).cells().unwrap().len(), 6);
    let it = set(&text, &[("network.loss.rate", "0"), ("network.nodes", "2e1")]);
    let cells = it.cells().unwrap();
    assert_eq!(cells.len(), 1);
    assert_eq!(cells[0].scenario.network.nodes, 20);
    let parameters: Vec<_> =
        cells[0].parameters.iter().map(|(key, value)| (key.as_str(), plain(value))).collect();
    assert_eq!(parameters, [("network.loss.rate", 0.into()), ("network.nodes", 20.into())]);
    // A list sweeps, also a key that was not swept.
    assert_eq!(set(&text, &[("protocol.fanout", "[2, 3]")]).cells().unwrap().len(), 12);
    assert_eq!(set(MODEL, &[("protocol.fanout", "[2, 3]")]).cells().unwrap().len(), 2);
}

#[test]
fn cells_come_in_one_order_the_last_key_fastest() {
    let text = format!("{MODEL}[sweep]\nprotocol.fanout = [2, 3]\nnetwork.nodes = [10, 20]\n");
    let cells = set(&text, &[]).cells().unwrap();
    let order: Vec<_> =
        cells.iter().map(|it| (it.scenario.network.nodes, it.scenario.protocol.fanout())).collect();
    assert_eq!(order, [(10, 2), (10, 3), (20, 2), (20, 3)]);
}

#[test]
fn a_file_that_nothing_was_set_of_is_its_own_source() {
    let text = format!("# why\n{MODEL}");
    assert_eq!(set(&text, &[]).source(), text);
}

proptest! {
    #[test]
    fn a_time_needs_a_unit_and_is_read_exactly(number in 0_u64..1_000_000, unit in 0_usize..4) {
        let (unit, ms) = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)][unit];
        let read = parse_duration(&format!("{number}{unit}")).unwrap();
        prop_assert_eq!(read.as_millis(), u128::from(number) * ms);
        let refused = parse_duration(&number.to_string()).unwrap_err();
        prop_assert!(refused.contains("needs a unit"), "{}", refused);
    }

    #[test]
    fn no_text_for_a_time_or_a_setting_panics(key in ".{0,20}", value in ".{0,20}") {
        let _ = parse_duration(&value);
        for text in [MODEL, CORE] {
            let set = [(key.clone(), value.clone())];
            if let Err(flaws) = Document::examine(text, &set) {
                prop_assert!(flaws.iter().all(|flaw| !flaw.message.is_empty()));
            }
        }
    }

    #[test]
    fn what_is_set_is_what_a_file_would_have(nodes in 10_u32..100_000, rate in 0.0_f64..0.99, fanout in 1_u32..9) {
        let set = settings(&[
            ("network.nodes", &nodes.to_string()),
            ("network.loss.rate", &rate.to_string()),
            ("protocol.fanout", &fanout.to_string()),
        ]);
        let by_setting = Document::examine(MODEL, &set).unwrap().scenario;
        let text = MODEL.replace("nodes = 100", &format!("nodes = {nodes}\nloss = {{ rate = {rate:?} }}"));
        let by_file = Document::read(&format!("{text}fanout = {fanout}\n"), &[]).unwrap().scenario;
        prop_assert_eq!(format!("{:?}", by_setting), format!("{:?}", by_file));
    }

    #[test]
    fn equal_numbers_are_one_value_in_results(number in -1_000_000_i64..1_000_000) {
        prop_assert_eq!(plain(&Value::Integer(number)), plain(&Value::Float(number as f64)));
    }
}
