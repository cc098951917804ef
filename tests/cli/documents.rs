//! Documents on the command line: what is registered, replaced, skipped and refused, in files and on stdin.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use aop::document::read_agent_file;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::commands::{Started, aop_in, code, err, out, start};

/// A node, and a folder of documents for it.
struct Desk {
    folder: TempDir,
    started: Started,
}

impl Desk {
    fn new() -> Desk {
        let folder = tempfile::tempdir().unwrap();
        let listen = "/ip4/127.0.0.1/tcp/0";
        let args = ["node", "--json", "--data-dir", "d", "--http", "127.0.0.1:0", "--listen", listen];
        let started = start(folder.path(), &args);
        Desk { folder, started }
    }

    fn url(&self) -> &str {
        self.started.ready["http"].as_str().unwrap()
    }

    fn aop(&self, args: &[&str]) -> Output {
        aop_in(self.folder.path(), args, &[("AOP_NODE", self.url())])
    }

    fn register(&self, document: &Value, args: &[&str]) -> Output {
        std::fs::write(self.folder.path().join("sent.json"), document.to_string()).unwrap();
        self.aop(&[&["register", "sent.json"], args].concat())
    }

    fn stdin(&self, text: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_aop"))
            .args(["register", "-", "--node", self.url()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// The agents that the node holds, by name.
    fn agents(&self) -> Vec<String> {
        let page: Value = serde_json::from_str(&out(&self.aop(&["agents", "--json"]))).unwrap();
        let names = page["results"].as_array().unwrap().iter();
        names.map(|one| one["agent"].as_str().unwrap().trim_end_matches("@.").to_owned()).collect()
    }

    fn version(&self, agent: &str) -> Value {
        let shown: Value = serde_json::from_str(&out(&self.aop(&["show", agent, "--json"]))).unwrap();
        shown["card"]["version"].clone()
    }
}

fn server(name: &str, version: &str) -> Value {
    json!({"name": name, "version": version, "description": "Looks things up", "packages": []})
}

fn card(name: &str, url: &str, description: &str) -> Value {
    json!({"protocolVersion": "0.3.0", "name": name, "description": description, "version": "1", "url": url,
           "capabilities": {}, "skills": []})
}

/// A server.json as a registry answers with it.
fn answered(name: &str, version: &str, status: &str) -> Value {
    let official = json!({"status": status, "statusMessage": "look at a.b/d", "isLatest": true});
    json!({"server": server(name, version), "_meta": {"io.modelcontextprotocol.registry/official": official}})
}

#[test]
fn older_versions_of_one_request_are_told_in_a_line_and_are_no_failure() {
    let desk = Desk::new();
    let versions: Vec<_> = (0..30).map(|at| server("a.b/c", &format!("1.{at}.0"))).collect();
    let done = desk.register(&json!(versions), &[]);
    assert_eq!((code(&done), err(&done).trim()), (0, "1 registered, 29 older versions skipped"));
    assert_eq!(desk.version("a.b/c"), "1.29.0");
    let each = err(&desk.register(&json!(versions), &["-v"]));
    assert_eq!(each.matches("(older_version)").count(), 29, "{each}");
    let told: Value = serde_json::from_str(&out(&desk.register(&json!(versions), &["--json"]))).unwrap();
    assert_eq!(told["refused"].as_array().unwrap().len(), 29);
    let mixed = desk.register(&json!([versions[0], versions[1], 7]), &[]);
    assert_eq!(code(&mixed), 1);
    assert!(err(&mixed).contains("1 older version skipped, 2 refused"), "{}", err(&mixed));
}

#[test]
fn an_older_version_replaces_a_newer_one_only_if_it_is_asked_to() {
    let native = |version: &str| json!({"agent": {"name": "native", "description": "d", "version": version}});
    let a2a = |version: &str| {
        let mut card = card("Route Planner", "https://one.example", "d");
        card["version"] = version.into();
        card
    };
    let desk = Desk::new();
    for (name, document) in [
        ("a.b/c", &(|version: &str| server("a.b/c", version)) as &dyn Fn(&str) -> Value),
        ("Route Planner", &a2a),
        ("native", &native),
    ] {
        assert_eq!(code(&desk.register(&document("1.10.0"), &[])), 0, "{name}");
        assert_eq!(code(&desk.register(&document("1.10.0"), &[])), 0, "{name}: the same again");
        let older = desk.register(&document("1.9.0"), &["--json"]);
        assert_eq!(code(&older), 1, "{name}");
        let told: Value = serde_json::from_str(&out(&older)).unwrap();
        let refused = &told["refused"][0];
        assert_eq!((&refused["code"], &refused["index"]), (&json!("superseded"), &json!(0)), "{told}");
        let message = refused["message"].as_str().unwrap();
        assert!(message.contains("1.10.0") && message.contains("--replace"), "{message}");
        assert_eq!(desk.version(name), "1.10.0");
        assert_eq!(code(&desk.register(&document("1.9.0"), &["--replace"])), 0, "{name}");
        assert_eq!(desk.version(name), "1.9.0");
    }
}

#[test]
fn two_providers_cards_of_one_name_are_two_agents_whatever_comes_first() {
    let (one, two) = (
        card("Route Planner", "https://one.example/a2a", "of provider one"),
        card("Route Planner", "https://two.example/a2a", "of provider two"),
    );
    let named = |documents: [&Value; 2]| {
        let desk = Desk::new();
        for document in documents {
            let done = desk.register(document, &[]);
            assert_eq!((code(&done), err(&done).trim()), (0, "1 registered"));
        }
        let both = out(&desk.aop(&["find", "provider"]));
        assert!(both.contains("provider one") && both.contains("provider two"), "{both}");
        desk.agents()
    };
    assert_eq!(named([&one, &two]), named([&two, &one]), "names follow from the documents alone");
}

#[test]
fn another_agent_of_a_taken_name_is_a_conflict_that_names_the_first() {
    let desk = Desk::new();
    let first = card("planner", "https://one.example/a2a", "of provider one");
    assert_eq!(code(&desk.register(&first, &[])), 0);
    let others = [
        card("planner", "https://two.example/a2a", "of provider two"),
        json!({"agent": {"name": "planner", "description": "an own one"}}),
        json!({"name": "planner", "packages": []}),
    ];
    for other in &others {
        let refused = desk.register(other, &[]);
        assert_eq!(code(&refused), 1, "{other}");
        let told = err(&refused);
        assert!(told.contains("(conflict)") && told.contains("https://one.example/a2a"), "{told}");
        assert!(out(&desk.aop(&["find", "provider"])).contains("of provider one"), "{other}");
    }
    let moved = card("planner", "HTTPS://one.example:443/a2a/", "of provider one, moved nowhere");
    assert_eq!(code(&desk.register(&moved, &[])), 0, "the same address in another spelling");
    assert_eq!(code(&desk.register(&others[0], &["--replace"])), 0);
    assert_eq!(desk.agents(), ["planner"]);
}

#[test]
fn what_its_registry_has_deleted_is_withdrawn_or_refused_and_what_it_advises_against_is_shown() {
    let desk = Desk::new();
    let none = desk.register(&answered("a.b/c", "1.0.0", "deleted"), &[]);
    assert_eq!(code(&none), 1);
    assert!(err(&none).contains("(deleted)"), "{}", err(&none));
    let page = json!({"servers": [answered("a.b/c", "1.0.0", "active"), answered("a.b/e", "1.0.0", "deprecated")],
                      "metadata": {"count": 2}});
    let done = desk.register(&page, &[]);
    assert_eq!((code(&done), err(&done).trim()), (0, "2 registered"));
    let shown = out(&desk.aop(&["show", "a.b/e", "--json"]));
    assert!(shown.contains("\"deprecated\":\"look at a.b/d\""), "{shown}");
    assert!(out(&desk.aop(&["find", "--tag", "deprecated"])).contains("a-b_e"));
    assert_eq!(code(&desk.register(&answered("a.b/c", "0.9.0", "deleted"), &[])), 1, "another version");
    assert_eq!(desk.agents(), ["a-b_c", "a-b_e"]);
    let gone = desk.register(&answered("a.b/c", "1.0.0", "deleted"), &["--json"]);
    assert_eq!(code(&gone), 0, "{}", err(&gone));
    let told: Value = serde_json::from_str(&out(&gone)).unwrap();
    assert_eq!((&told["withdrawn"][0]["agent"], &told["refused"]), (&json!("a-b_c@."), &json!([])));
    assert_eq!(desk.agents(), ["a-b_e"]);
}

#[test]
fn notes_are_told_one_a_line() {
    let desk = Desk::new();
    let odd = json!({"name": "Feed", "url": "https://a.example", "capabilities": ["reasoning"], "tags": "maps, routes"});
    let done = desk.register(&odd, &[]);
    assert_eq!(code(&done), 0, "{}", err(&done));
    let told = err(&done);
    let notes: Vec<&str> = told.lines().filter(|line| line.starts_with("note: feed-")).collect();
    assert_eq!(notes.len(), 2, "{told}");
    assert!(notes[0].contains("`tags` is a text") && notes[1].contains("`capabilities` is a list"), "{told}");
}

#[test]
fn files_of_other_editors_and_stdin_are_read() {
    let desk = Desk::new();
    let marked = format!("\u{feff}{}", json!([server("a.b/c", "1")]));
    std::fs::write(desk.folder.path().join("marked.json"), &marked).unwrap();
    assert_eq!(code(&desk.aop(&["register", "marked.json"])), 0);
    assert_eq!(code(&desk.stdin(&marked.replace("a.b/c", "a.b/d"))), 0);
    let toml = desk.stdin("# an agent\n[agent]\nname = \"typed\"\n");
    assert_eq!(code(&toml), 0, "{}", err(&toml));
    assert_eq!(desk.agents(), ["a-b_c", "a-b_d", "typed"]);
    let wrong = desk.stdin("[agent]\nname = \"typed\"\ntags = \"text\"\n");
    let told = err(&wrong);
    assert!(code(&wrong) == 1 && told.contains(":3:8") && told.contains("tags = [\"text\"]"), "{told}");
    let outside = desk.stdin("description = \"d\"\n");
    assert!(err(&outside).contains("put it below a line `[agent]`"), "{}", err(&outside));
}

#[test]
fn a_name_that_begins_with_a_dash_can_be_given() {
    let desk = Desk::new();
    for name in ["-x", "---"] {
        assert_eq!(code(&desk.register(&json!({"agent": {"name": name}}), &[])), 0);
        let shown = desk.aop(&["show", name, "--json"]);
        assert_eq!(code(&shown), 0, "{}", err(&shown));
        let called = desk.aop(&["call", name, "--task", "x", "--json"]);
        assert!(out(&called).contains("not_callable"), "{}", err(&called));
        let gone = desk.aop(&["deregister", name, "--json"]);
        assert_eq!(code(&gone), 0, "{}", err(&gone));
    }
    assert_eq!(code(&desk.aop(&["show", "--jsn"])), 2, "a misspelt option is none");
    let korean = desk.register(&card("날씨 도우미", "https://one.example", "d"), &[]);
    let name = out(&korean).split('\t').next().unwrap().to_owned();
    assert!(name.starts_with("agent-"), "{name}");
    for asked in [name.as_str(), "날씨 도우미"] {
        assert_eq!(code(&desk.aop(&["show", asked])), 0, "{asked}");
    }
}

#[test]
fn a_listing_is_adopted_only_as_it_was_shown() {
    let desk = Desk::new();
    let mut hostile = server("ai.exa/exa", "1.2.3");
    hostile["description"] = json!("Searches\nRUNS nothing, said \"\"\" [agent.run]");
    hostile["packages"] = json!([{
        "registryType": "npm", "identifier": "exa-mcp", "version": "^1.2", "transport": {"type": "stdio"},
        "packageArguments": [{"type": "positional", "value": "--privileged; $(reboot) \"x\""}],
        "environmentVariables": [{"name": "EXA_API_KEY", "isRequired": true, "description": "from \u{1b}[2Jexa"}],
    }]);
    let mut private = card("Inner", "http://127.0.0.1:9/rpc", "d");
    private["supportedInterfaces"] =
        json!([{"url": "http://127.0.0.1:9/rpc", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}]);
    assert_eq!(code(&desk.register(&json!([hostile, private, server("a.b/bare", "1")]), &[])), 0);
    let called = desk.aop(&["call", "ai.exa/exa", "--task", "x"]);
    assert!(err(&called).contains("aop adopt"), "{}", err(&called));

    let asked = desk.aop(&["adopt", "ai.exa/exa"]);
    assert_eq!(code(&asked), 2, "nobody can be asked here: {}", err(&asked));
    let file = desk.folder.path().join("ai-exa_exa.toml");
    assert!(!file.exists() && err(&asked).contains("--yes"));
    let adopted = desk.aop(&["adopt", "ai.exa/exa", "--yes"]);
    assert_eq!((code(&adopted), out(&adopted).trim()), (0, "./ai-exa_exa.toml"), "{}", err(&adopted));
    for told in [
        r#"RUNS       ["npx","-y","exa-mcp","--privileged; $(reboot) \"x\""]"#,
        "EXA_API_KEY (from [2Jexa)",
        "\"^1.2\" is no exact version",
        "owner      12D3",
        "aop node --agents ./ai-exa_exa.toml",
    ] {
        assert!(err(&adopted).contains(told), "{told} is not in {}", err(&adopted));
    }
    assert!(
        !err(&adopted).contains('\u{1b}') && !err(&adopted).contains("\nRUNS nothing"),
        "{}",
        err(&adopted)
    );
    let document = read_agent_file(&file).unwrap();
    assert_eq!(
        document["agent"]["run"],
        json!({"mcp": {"command": ["npx", "-y", "exa-mcp", "--privileged; $(reboot) \"x\""], "env": ["EXA_API_KEY"]}})
    );
    assert_eq!(document["agent"]["description"], hostile["description"]);
    assert!(std::fs::read_to_string(&file).unwrap().starts_with("# Adopted from the listing ai-exa_exa@. "));
    let again = desk.aop(&["adopt", "ai.exa/exa", "--yes"]);
    assert!(code(&again) == 1 && err(&again).contains("exists already"), "{}", err(&again));

    let inner = desk.aop(&["adopt", "Inner", "--yes", "--name", "inner", "--json"]);
    assert!(err(&inner).contains("the node's own machine or network"), "{}", err(&inner));
    let told: Value = serde_json::from_str(&out(&inner)).unwrap();
    assert_eq!(told["run"], json!({"a2a": {"card": "http://127.0.0.1:9/rpc"}}));
    read_agent_file(&desk.folder.path().join("inner.toml")).unwrap();
    let bare = desk.aop(&["adopt", "a.b/bare", "--yes"]);
    assert!(code(&bare) == 1 && err(&bare).contains("nothing to run or to ask"), "{}", err(&bare));
}

#[test]
fn an_agent_of_ones_own_runs_as_the_readme_says() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let new = |args: &[&str]| aop_in(folder.path(), &[&["agent", "new"], args].concat(), &[]);
    let made = new(&["word-count"]);
    assert_eq!(code(&made), 0, "{}", err(&made));
    for file in ["word-count.toml", "word-count.py"] {
        let text = std::fs::read_to_string(folder.path().join(file)).unwrap();
        let indented: Vec<String> = text
            .lines()
            .map(|line| if line.is_empty() { String::new() } else { format!("    {line}") })
            .collect();
        assert!(readme.contains(&indented.join("\n")), "README.md shows another {file}");
        assert!(out(&made).contains(file));
    }
    let next = "aop dev --agents ./word-count.toml";
    assert!(err(&made).contains(next) && readme.contains(next), "{}", err(&made));
    let before = std::fs::read(folder.path().join("word-count.toml")).unwrap();
    assert_eq!(code(&new(&["word-count"])), 1, "no file is written over");
    assert_eq!(std::fs::read(folder.path().join("word-count.toml")).unwrap(), before);
    let wrong = new(&["Größe"]);
    assert_eq!(code(&wrong), 2);
    assert!(err(&wrong).contains("aop agent new grosse"), "{}", err(&wrong));

    if !has_python() {
        assert!(std::env::var_os("CI").is_none(), "no python3");
        eprintln!("skipped: no python3");
        return;
    }
    let path = std::env::var("PATH").unwrap();
    let dev = ["dev", "--agents", "./word-count.toml", "--http", "127.0.0.1:0", "--json"];
    let started = start(folder.path(), &dev);
    let url = started.ready["http"].as_str().unwrap().to_owned();
    let call = ["call", "word-count", "--task", "one two three", "--node", &url];
    let called = aop_in(folder.path(), &call, &[("PATH", &path)]);
    assert_eq!((code(&called), out(&called).trim()), (0, "3 words"), "{}", err(&called));
}

fn has_python() -> bool {
    let version = Command::new("python3").arg("--version").output();
    version.is_ok_and(|output| output.status.success()) && Path::new("/usr/bin/env").exists()
}

#[test]
fn a_registry_is_imported_listed_kept_while_it_is_down_and_removed() {
    let upstream = Desk::new();
    upstream.register(&json!([server("a.b/one", "1"), server("a.b/two", "1")]), &[]);
    let registry = upstream.url().to_owned();
    let desk = Desk::new();
    let imported = desk.aop(&["import", &registry, "--json"]);
    assert_eq!(code(&imported), 0, "{}", err(&imported));
    let document: Value = serde_json::from_str(&out(&imported)).unwrap();
    assert_eq!(
        (&document["kind"], &document["held"], &document["last"]["new"]),
        (&json!("mcp"), &json!(2), &json!(2))
    );
    assert!(err(&imported).contains("2 new"), "{}", err(&imported));
    assert_eq!(desk.agents(), ["a-b_one", "a-b_two"]);
    let not_yours = desk.aop(&["deregister", "a-b_one"]);
    assert!(code(&not_yours) == 1 && err(&not_yours).contains("not_yours"), "{}", err(&not_yours));

    drop(upstream);
    let failed = desk.aop(&["import", &registry]);
    assert!(code(&failed) == 4 && err(&failed).contains("upstream_failed"), "{}", err(&failed));
    let listed = out(&desk.aop(&["import"]));
    assert!(listed.starts_with(&registry) && listed.contains("failed: "), "{listed}");
    assert_eq!(desk.agents(), ["a-b_one", "a-b_two"]);
    assert_eq!(code(&desk.aop(&["import", &registry, "--remove"])), 0);
    assert!(desk.agents().is_empty() && out(&desk.aop(&["import"])).is_empty());
    assert_eq!(code(&desk.aop(&["import", &registry, "--remove"])), 3);
    assert_eq!(code(&desk.aop(&["import", "a.b", "--kind", "mcp"])), 2);
}
