//! `aop sim` from outside: formats, exit codes, flaws with their lines, interruption, comparison, replay.
//!
//! Exit code 6 needs a checker that fails, and what is shipped has none that a scenario could make fail: how it follows
//! from results is a unit test beside `aop sim`.

mod fixture;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use fixture::{LOSS, NODES, ONCE, ScenarioFolder};
use serde_json::Value;

fn runs(document: &Value) -> &Vec<Value> {
    document["runs"].as_array().unwrap()
}

#[test]
fn a_run_begins_and_ends_with_the_command_that_makes_it_again() {
    let folder = ScenarioFolder::new();
    let ended =
        folder.sim(&["run", "once.toml", "--seeds", "2", "--set", "network.nodes=300", "--jobs", "1"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let command = "aop sim run once.toml --set network.nodes=300 --seeds 2";
    assert_eq!((ended.err.lines().next(), ended.err.lines().last()), (Some(command), Some(command)));
    let document =
        folder.json(&["run", "once.toml", "--set", "network.nodes=300", "--seeds", "2", "--format", "json"]);
    assert_eq!(document["command"], command);
    assert_eq!(runs(&document).len(), 2);
}

#[test]
fn a_table_answers_the_question_and_says_how_claims_stand() {
    let folder = ScenarioFolder::new();
    let ended = folder.sim(&["run", "once.toml", "loss.toml"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    for part in [
        "once · paper 7.6 · model · 4 runs",
        "question  Does fan-out 3, sent once, reach every node?",
        "answer    No, 9",
        "claimed   coverage >= 1: does not hold, measured 9",
        "expected  coverage >= 0.8: met, 4 of 4",
        "full      0 of 4 runs (95 %: 0 % to 49 %)",
        "METRIC",
        "± 95 %",
        "messages_per_node",
        "loss · paper 7.5 · model · 6 runs",
        "LOSS.RATE",
        "0.3        3/3",
    ] {
        assert!(ended.out.contains(part), "{part} in {}", ended.out);
    }
    assert!(
        !ended.out.contains('\u{1b}') && !ended.err.contains('\u{1b}'),
        "no colours away from a terminal"
    );
    assert!(ended.out.lines().all(|line| line.chars().count() <= 101), "{}", ended.out);
}

#[test]
fn json_is_the_contract() {
    let folder = ScenarioFolder::new();
    let document = folder.json(&["run", "once.toml", "loss.toml", "--format", "json"]);
    assert_eq!(runs(&document).len(), 4 + 2 * 3);
    for run in runs(&document) {
        let hash = run["trace_hash"].as_str().unwrap();
        assert!(hash.len() == 16 && hash.bytes().all(|it| it.is_ascii_hexdigit()), "{run}");
        for metric in ["coverage", "rounds", "messages_per_node", "bytes_per_node"] {
            assert!(run["metrics"][metric].is_f64(), "{metric} in {run}");
        }
        assert!(run["seed"].is_u64() && run["scenario"].is_string());
    }
    assert_eq!(document["runs"][4]["parameters"], serde_json::json!({"network.loss.rate": 0}));
    let answered = &document["scenarios"][1];
    assert_eq!((&answered["name"], &answered["met"]), (&"loss".into(), &true.into()));
    assert_eq!(answered["cells"].as_array().unwrap().len(), 2);
    assert_eq!(document.get("unfinished"), None);
}

#[test]
fn results_are_the_same_for_any_number_of_jobs() {
    let folder = ScenarioFolder::new();
    let with = |jobs| folder.sim(&["run", "once.toml", "loss.toml", "--format", "json", "--jobs", jobs]).out;
    assert_eq!(with("1"), with("4"));
}

#[test]
fn a_failed_expectation_says_measured_wanted_and_how_to_replay_it() {
    let folder = ScenarioFolder::new();
    folder.write(
        "strict.toml",
        &ONCE.replace("value = 0.8", "value = 0.999").replace("\"once\"", "\"strict\""),
    );
    let ended = folder.sim(&["run", "strict.toml", "--format", "json"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.err.contains("strict: wanted coverage >= 0.999, measured 9"), "{}", ended.err);
    let replay = ended.err.lines().find_map(|line| line.trim().strip_prefix("replay: aop sim ")).unwrap();
    let document: Value = serde_json::from_str(&ended.out).unwrap();
    let answer = document["scenarios"][0]["answer"].as_str().unwrap();
    assert!(
        answer.starts_with("Measured coverage 9") && answer.contains("wanted coverage >= 0.999"),
        "{answer}"
    );
    // The replay is the worst run.
    let worst = document["scenarios"][0]["expectations"][0]["worst"].as_f64().unwrap();
    let args: Vec<&str> = replay.split(' ').chain(["--json"]).collect();
    assert_eq!(folder.json(&args)["metrics"]["coverage"].as_f64(), Some(worst));
    let table = folder.sim(&["run", "strict.toml"]);
    assert_eq!(table.code, 1);
    assert!(table.out.contains("coverage >= 0.999: NOT MET, measured 9"), "{}", table.out);
    assert!(table.out.contains("replay: aop sim replay strict.toml --seed "), "{}", table.out);
}

#[test]
fn every_flaw_of_every_file_is_shown_with_its_line_before_anything_runs() {
    let folder = ScenarioFolder::new();
    folder.write("typo.toml", &ONCE.replace("fanout", "fanot"));
    folder.write("many.toml", &ONCE.replace("nodes = 500", "nodes = 3\nloss = { rate = 1.5 }"));
    let ended = folder.sim(&["run", "once.toml", "typo.toml", "many.toml", "gone.toml", "--out", "report"]);
    assert_eq!((ended.code, ended.out.as_str()), (2, ""), "{ended:?}");
    for part in [
        "typo.toml:11:1",
        "unknown key `fanot`",
        "did you mean `fanout`?",
        "many.toml:9:17",
        "a loss rate is a share",
        "many.toml:12:10",
        "3 peers of 3 nodes",
        "gone.toml: cannot be read",
    ] {
        assert!(ended.err.contains(part), "{part} in {}", ended.err);
    }
    assert!(!folder.path().join("report").exists(), "nothing was made");
    let set = folder.sim(&["run", "once.toml", "--set", "network.nodse=5"]);
    assert!(
        set.code == 2 && set.err.contains("once.toml: --set network.nodse=5: unknown key `nodse`"),
        "{set:?}"
    );
    assert!(set.err.contains("did you mean `nodes`?"), "{set:?}");
}

#[test]
fn a_file_twice_or_a_name_twice_is_a_flaw() {
    let folder = ScenarioFolder::new();
    let twice = folder.sim(&["run", "once.toml", "./once.toml"]);
    assert!(twice.code == 2 && twice.err.contains("./once.toml: is given twice"), "{twice:?}");
    folder.write("copy.toml", ONCE);
    let named = folder.sim(&["run", "once.toml", "copy.toml"]);
    assert!(named.code == 2 && named.err.contains("copy.toml:1:9"), "{named:?}");
    assert!(named.err.contains("once.toml has a scenario of this name, too: `once`"), "{named:?}");
}

#[test]
fn wrong_usage_exits_2() {
    let folder = ScenarioFolder::new();
    for args in [
        &[][..],
        &["run"],
        &["run", "once.toml", "--seeds", "0"],
        &["run", "once.toml", "--seed", "1", "--seeds", "2"],
        &["run", "once.toml", "--jobs", "0"],
        &["run", "once.toml", "--set", "nodes"],
        &["run", "once.toml", "--format", "yaml"],
        &["compare", "a.json"],
        &["compare", "a.json", "b.json", "--fail-on", "5"],
        &["theory", "-n", "1"],
        &["theory", "-n", "10", "-k", "10"],
        &["theory", "-n", "10", "--loss", "1.5"],
        &["replay", "once.toml"],
        &["replay", "loss.toml", "--seed", "1"],
    ] {
        let ended = folder.sim(args);
        assert!(ended.code == 2 && ended.out.is_empty() && !ended.err.is_empty(), "{args:?}: {ended:?}");
    }
}

#[test]
fn help_leads_with_examples() {
    let folder = ScenarioFolder::new();
    for command in [
        &["--help"][..],
        &["run", "--help"],
        &["compare", "--help"],
        &["theory", "--help"],
        &["replay", "--help"],
        &["list", "--help"],
    ] {
        let help = folder.sim(command).out;
        let head: Vec<&str> = help.lines().take(3).collect();
        assert!(
            head[0] == "Examples:" && head[1..].iter().all(|it| it.contains("aop sim ")),
            "{command:?}: {help}"
        );
    }
}

#[test]
fn a_mesh_file_is_named_with_its_command_and_the_rest_goes_on() {
    let folder = ScenarioFolder::new();
    let mesh = "name = \"live\"\nquestion = \"?\"\nclaim = \"ours\"\ntier = \"mesh\"\n[network]\nnodes = 50\n\
                latency = \"25ms\"\n[protocol]\nkind = \"mesh\"\n";
    folder.write("live.toml", mesh);
    let advice = "cargo run --release --manifest-path simulations/mesh/Cargo.toml -- live.toml --seeds 2";
    let both = folder.sim(&["run", "live.toml", "once.toml", "--seeds", "2", "-q", "--format", "csv"]);
    assert!(both.code == 0 && both.err.contains(advice), "{both:?}");
    let alone = folder.sim(&["run", "live.toml", "--seeds", "2"]);
    assert!(alone.code == 2 && alone.err.contains(advice) && alone.out.is_empty(), "{alone:?}");
    let replay = folder.sim(&["replay", "live.toml", "--seed", "7"]);
    assert!(replay.code == 2 && replay.err.contains("-- live.toml --seed 7"), "{replay:?}");
}

#[test]
fn quiet_talks_only_of_what_failed() {
    let folder = ScenarioFolder::new();
    let ended = folder.sim(&["run", "once.toml", "-q"]);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{ended:?}");
}

#[test]
fn a_folder_has_everything_and_replays() {
    let folder = ScenarioFolder::new();
    let ended = folder.sim(&[
        "run",
        "once.toml",
        "--out",
        "made/report",
        "--format",
        "json",
        "--set",
        "seeds.from=7",
    ]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.err.contains("written to made/report/report.html"), "{}", ended.err);
    let report = folder.path().join("made/report");
    for name in ["report.html", "runs.csv", "curve.csv", "result.json"] {
        assert!(report.join(name).exists(), "{name}");
    }
    let printed: Value = serde_json::from_str(&ended.out).unwrap();
    let written: Value = serde_json::from_slice(&fs::read(report.join("result.json")).unwrap()).unwrap();
    assert_eq!(printed, written);
    // The folder replays without the file it came from.
    fs::remove_file(folder.path().join("once.toml")).unwrap();
    let replay = folder.sim(&["replay", "made/report", "--seed", "8", "--json"]);
    assert!(replay.code == 0 && replay.err.contains("the same run as recorded"), "{replay:?}");
    let run: Value = serde_json::from_str(&replay.out).unwrap();
    assert_eq!(run["trace_hash"], printed["runs"][1]["trace_hash"]);
    let forged = String::from_utf8(fs::read(report.join("result.json")).unwrap()).unwrap();
    let hash = printed["runs"][1]["trace_hash"].as_str().unwrap();
    folder.write("made/report/result.json", &forged.replace(hash, "0123456789abcdef"));
    let other = folder.sim(&["replay", "made/report", "--seed", "8"]);
    assert!(other.code == 1 && other.err.contains("not the run that was recorded"), "{other:?}");
}

#[test]
fn a_replay_is_the_run_and_tells_its_curve() {
    let folder = ScenarioFolder::new();
    let document = folder.json(&["run", "loss.toml", "--format", "json"]);
    let run = &runs(&document)[4];
    assert_eq!(run["replay"], "aop sim replay loss.toml --set network.loss.rate=0.3 --seed 2");
    let args = ["replay", "loss.toml", "--set", "network.loss.rate=0.3", "--seed", "2"];
    let replay = folder.sim(&args);
    assert_eq!(replay.code, 0, "{replay:?}");
    for part in
        ["loss · model · network.loss.rate = 0.3 · seed 2", run["trace_hash"].as_str().unwrap(), "coverage"]
    {
        assert!(replay.out.contains(part), "{part} in {}", replay.out);
    }
    let traced = folder.sim(&[&args[..], &["--trace"]].concat());
    let curve: Vec<(f64, f64)> = traced
        .out
        .lines()
        .map_while(|line| {
            let (x, share) = line.split_once('\t')?;
            Some((x.parse().ok()?, share.parse().ok()?))
        })
        .collect();
    assert!(curve.len() > 5 && curve.last().unwrap().1 == 1.0, "{traced:?}");
    let set = [
        "run",
        "loss.toml",
        "--set",
        "network.loss.rate=[0.3]",
        "--set",
        "network.nodes=90",
        "--format",
        "json",
    ];
    let replay = "aop sim replay loss.toml --set network.nodes=90 --set network.loss.rate=0.3 --seed 1";
    assert_eq!(folder.json(&set)["runs"][0]["replay"], replay, "each key once");
    let unclear = folder.sim(&["replay", "loss.toml", "--seed", "2"]);
    assert!(unclear.code == 2 && unclear.err.contains("sweeps network.loss.rate = 0, 0.3"), "{unclear:?}");
}

#[test]
fn an_interrupted_run_keeps_what_is_finished_and_exits_130() {
    let folder = ScenarioFolder::new();
    let many = LOSS.replace("count = 3", "count = 100_000");
    folder.write("loss.toml", &many);
    let args = ["run", "once.toml", "loss.toml", "--jobs", "1", "--format", "json", "--out", "report"];
    let mut child = folder.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let printed = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        text
    });
    let mut talk = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(talk.by_ref().any(|line| line.starts_with("once: played")), "the first scenario ends");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let rest: Vec<String> = talk.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(
        rest.iter().any(|line| line.starts_with("interrupted: ") && line.contains("of 200004 runs are kept")),
        "{rest:?}"
    );
    let document: Value = serde_json::from_str(&printed.join().unwrap()).unwrap();
    let kept = runs(&document).len();
    assert!(kept >= 4, "{kept}");
    assert_eq!(document["unfinished"].as_u64(), Some(200_004 - kept as u64));
    assert_eq!(document["scenarios"][0]["cells"][0]["runs"], 4);
    let written: Value =
        serde_json::from_slice(&fs::read(folder.path().join("report/result.json")).unwrap()).unwrap();
    assert_eq!(written, document);
}

#[test]
fn a_comparison_marks_what_got_worse_and_fails_beyond_the_threshold() {
    let folder = ScenarioFolder::new();
    let run = |set: &str, out: &str| {
        let ended = folder.sim(&["run", "loss.toml", "--seeds", "20", "--set", set, "--out", out, "-q"]);
        assert_eq!(ended.code, 0, "{ended:?}");
    };
    run("protocol.fanout=3", "base");
    run("protocol.fanout=3", "same");
    run("protocol.fanout=1", "slow");
    let same = folder.sim(&["compare", "base", "same/result.json", "--fail-on", "0%"]);
    assert!(same.code == 0 && same.out.contains("2 cells are the same, of 2"), "{same:?}");
    let kept = folder.sim(&["compare", "base/baseline.json", "same", "--fail-on", "0%"]);
    assert!(
        kept.code == 0 && !kept.err.contains("itself is different"),
        "a baseline has no sources: {kept:?}"
    );
    let slow = folder.sim(&["compare", "base", "slow"]);
    assert_eq!(slow.code, 0, "nothing fails unless it is asked for: {slow:?}");
    assert!(slow.out.contains("loss · network.loss.rate = 0.3"), "{}", slow.out);
    let rounds = slow.out.lines().find(|line| line.trim().starts_with("rounds ")).unwrap();
    assert!(rounds.contains('%') && rounds.ends_with("WORSE"), "{rounds}");
    assert!(slow.out.contains("0 of 20 traces are equal in slow"), "{}", slow.out);
    assert!(slow.err.contains("loss itself is different in slow"), "{}", slow.err);
    let failed = folder.sim(&["compare", "base", "slow", "--fail-on", "5%"]);
    assert!(failed.code == 1 && failed.err.contains("are for the worse beyond 5 %"), "{failed:?}");
    // It takes more rounds by less than this, and fewer messages are no failure.
    let lenient = folder.sim(&["compare", "base", "slow", "--fail-on", "900%"]);
    assert_eq!(lenient.code, 0, "{lenient:?}");
    let document = folder.json(&["compare", "base", "slow", "same", "--fail-on", "5%", "--json"]);
    assert_eq!((&document["failed"], document["cells"].as_array().unwrap().len()), (&true.into(), 2));
    let rounds = &document["cells"][0]["beside"][0]["metrics"]["rounds"];
    assert!(rounds["new"].as_f64() > rounds["base"].as_f64() && rounds["verdict"] == "worse", "{rounds}");
    assert_eq!(document["cells"][0]["beside"][1]["traces"], serde_json::json!([20, 20]));
}

#[test]
fn tiers_are_laid_over_one_another() {
    let folder = ScenarioFolder::new();
    folder.write("nodes.toml", NODES);
    for tier in ["core", "model"] {
        let ended = folder.sim(&[
            "run",
            "nodes.toml",
            "--set",
            &format!("tier={tier}"),
            "--seeds",
            "12",
            "--out",
            tier,
            "-q",
        ]);
        assert_eq!(ended.code, 0, "{ended:?}");
    }
    let both = folder.sim(&["compare", "core", "model", "core"]);
    assert_eq!(both.code, 0, "{both:?}");
    for part in ["core (core)", "model (model)", "coverage ", "zombies", "12 of 12 traces are equal in core"]
    {
        assert!(both.out.contains(part), "{part} in {}", both.out);
    }
    assert!(!both.out.contains("traces are equal in model"), "traces of tiers are not alike: {}", both.out);
    // The tiers differ in some latency, and that is what a threshold is for.
    let strict = folder.sim(&["compare", "core", "model", "--fail-on", "0.001%"]);
    assert!(strict.code == 1 && strict.out.contains(" differs"), "{strict:?}");
}

#[test]
fn results_of_other_scenarios_cannot_be_compared() {
    let folder = ScenarioFolder::new();
    for (file, out) in [("once.toml", "once"), ("loss.toml", "loss")] {
        assert_eq!(folder.sim(&["run", file, "--out", out, "-q"]).code, 0);
    }
    let ended = folder.sim(&["compare", "once", "loss"]);
    assert!(ended.code == 3 && ended.err.contains("has no scenario and cell"), "{ended:?}");
    let gone = folder.sim(&["compare", "once", "gone.json"]);
    assert!(gone.code == 3 && gone.err.contains("gone.json"), "{gone:?}");
    folder.write("no.json", "{}");
    let wrong = folder.sim(&["compare", "once", "no.json"]);
    assert!(wrong.code == 2 && wrong.err.contains("this is no result document"), "{wrong:?}");
}

#[test]
fn the_list_names_questions_and_metrics() {
    let folder = ScenarioFolder::new();
    let nothing = folder.sim(&["list"]);
    assert!(nothing.code == 3 && nothing.err.contains("there is no simulations"), "{nothing:?}");
    folder.write("simulations/once.toml", ONCE);
    folder.write("simulations/loss.toml", LOSS);
    let list = folder.sim(&["list"]);
    assert_eq!(
        (list.code, list.out.as_str()),
        (
            0,
            "loss\tmodel\t2 × 3\tpaper 7.5\tWhat does loss do?\n\
             once\tmodel\t1 × 4\tpaper 7.6\tDoes fan-out 3, sent once, reach every node?\n"
        )
    );
    let document = folder.json(&["list", "once.toml", "--json"]);
    let once = &document["scenarios"][0];
    assert_eq!((&once["name"], &once["cells"], &once["seeds"]), (&"once".into(), &1.into(), &4.into()));
    folder.write("simulations/bad.toml", &LOSS.replace("model", "modle"));
    let flawed = folder.sim(&["list"]);
    assert!(flawed.code == 2 && flawed.out == list.out && flawed.err.contains("bad.toml:4:8"), "{flawed:?}");
    let metrics = folder.sim(&["list", "--metrics"]).out;
    assert!(metrics.lines().any(|line| line.starts_with("coverage\tmodel core mesh\tshare of")), "{metrics}");
    assert_eq!(folder.json(&["list", "--metrics", "--json"])["metrics"][0]["metric"], "coverage");
}

#[test]
fn theory_names_its_formulas_and_a_scenario_is_held_against_them() {
    let folder = ScenarioFolder::new();
    let text = folder.sim(&["theory", "-n", "1e4", "-k", "3"]);
    assert_eq!(text.code, 0, "{text:?}");
    for line in [
        "push\trounds\t9.714\tlog_{1+kq} n + (ln n)/(kq)",
        "push, a rounds\tcoverage\t94.05 %\tz s: z = 1 - e^(-akqz)",
    ] {
        assert!(text.out.contains(line), "{line} in {}", text.out);
    }
    let document = folder.json(&["theory", "-n", "10000", "--loss", "0.5", "--json"]);
    let rounds = document["formulas"].as_array().unwrap().iter().find(|it| it["metric"] == "rounds").unwrap();
    assert!((rounds["value"].as_f64().unwrap() - 16.2).abs() < 0.1, "{rounds}");
    let theory = "[theory]\ncurve = \"push\"\n[[expect]]\nmetric = \"coverage\"\nof = \"theory\"\nwithin = ";
    for (within, code) in [("0.05", 0), ("0.000001", 1)] {
        folder.write("held.toml", &format!("{ONCE}{theory}{within}\n"));
        let ended = folder.sim(&["run", "held.toml"]);
        assert_eq!(ended.code, code, "{ended:?}");
        assert!(ended.out.contains("THEORY") && ended.out.contains("94.05 %"), "{}", ended.out);
        assert!(ended.out.contains(&format!("coverage within {within} of theory")), "{}", ended.out);
    }
    folder.write("held.toml", &format!("{ONCE}{}1\n", theory.replace("coverage", "duplicates")));
    let unknown = folder.sim(&["run", "held.toml"]);
    assert!(
        unknown.code == 2 && unknown.err.contains("theory says nothing of `duplicates` here; it has"),
        "{unknown:?}"
    );
}

#[test]
fn a_replay_of_real_nodes_tells_their_story() {
    let folder = ScenarioFolder::new();
    folder.write("nodes.toml", NODES);
    let document = folder.json(&["run", "nodes.toml", "--format", "json"]);
    let replay = folder.sim(&["replay", "nodes.toml", "--seed", "2", "--trace"]);
    assert_eq!(replay.code, 0, "{replay:?}");
    for part in ["node 0 starts", " Part([", "publish [record agent-0@.", "nodes · core · seed 2"] {
        assert!(replay.out.contains(part), "{part} in {}", replay.out);
    }
    assert!(replay.out.contains(&format!("trace {}", document["runs"][1]["trace_hash"].as_str().unwrap())));
    let json = folder.json(&["replay", "nodes.toml", "--seed", "2", "--trace", "--json"]);
    assert_eq!(json["trace_hash"], document["runs"][1]["trace_hash"]);
    assert!(json["trace"].as_array().unwrap().len() > 20);
}

#[test]
fn a_world_that_never_agrees_exits_7_and_tells_the_checker() {
    let folder = ScenarioFolder::new();
    // Nearly everything is lost, and nobody reconciles in time.
    let lossy =
        NODES.replace("latency", "loss = { rate = 0.999 }\nlatency").replace("10s\", on_join = true", "2h\"");
    folder.write("nodes.toml", &lossy[..lossy.find("[[fault]]").unwrap()]);
    let ended = folder.sim(&["run", "nodes.toml"]);
    assert_eq!(ended.code, 7, "{ended:?}");
    for part in [
        "answer    The checker liveness-after-heal failed in 2 of 2 runs.",
        "replay: aop sim replay nodes.toml --seed 2",
    ] {
        assert!(ended.out.contains(part), "{part} in {}", ended.out);
    }
    let document = folder.sim(&["run", "nodes.toml", "--format", "json"]);
    assert_eq!(document.code, 7);
    assert!(document.err.contains("nodes: liveness-after-heal failed after "), "{}", document.err);
    let document: Value = serde_json::from_str(&document.out).unwrap();
    assert_eq!(document["runs"][0]["broken"]["progress"], true);
    assert_eq!(document["scenarios"][0]["met"], false);
    let replay = folder.sim(&["replay", "nodes.toml", "--seed", "1"]);
    assert!(replay.code == 7 && replay.out.contains("liveness-after-heal failed after "), "{replay:?}");
}

#[test]
fn csv_has_a_row_for_each_run() {
    let folder = ScenarioFolder::new();
    let ended = folder.sim(&["run", "loss.toml", "--format", "csv"]);
    let mut rows = csv::Reader::from_reader(ended.out.as_bytes());
    let heads = rows.headers().unwrap().clone();
    let column = |name: &str| heads.iter().position(|it| it == name).unwrap();
    let (seed, coverage) = (column("seed"), column("coverage"));
    let rows: Vec<_> = rows.records().map(Result::unwrap).collect();
    assert_eq!(rows.iter().map(|row| &row[seed]).collect::<Vec<_>>(), ["1", "2", "3", "1", "2", "3"]);
    assert!(rows.iter().all(|row| &row[coverage] == "1"), "{ended:?}");
}
