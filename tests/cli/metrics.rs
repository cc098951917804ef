//! What a node exposes to Prometheus, and the rules and the dashboard that rely on it: `docs/deploy`.
//!
//! One node of a root and of seven more zones, with 120 agents, is asked for everything by clients and by a peer whose zone lies
//! below; each test looks at what it said then. `promtool` is in Debian's package `prometheus`: where it is missing, a test says
//! so and is skipped; with `CI` set it fails.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::processes::{Node, PATIENCE, until};

const LISTEN: &str = "/ip4/127.0.0.1/tcp/0";
/// Own agents: more than those with series of their own.
const AGENTS: usize = 120;
/// Scrapers that never read, and where the answers are counted that they got.
const HANGING: usize = 16;
const SCRAPES: &str = "http_server_request_duration_seconds_count{http_request_method=\"GET\",\
                       http_route=\"/metrics\",http_response_status_code=\"200\"}";
/// What a node may cost who keeps its numbers.
const SERIES_MAX: usize = 3_000;
/// An agent with one place, which is free once there is a file `open` beside its own.
const GATED: &str = "a-gated";
/// In every name that a client or a peer of this test makes up.
const CANARY: &str = "canary";
/// What an own metric begins with. Those of the process and of the protocols have names that others chose.
const PREFIXES: [&str; 4] = ["aop_", "process_", "http_server_", "mcp_server_"];

/// What the node said when everything had been asked of it.
struct Exercised {
    text: String,
    /// The same in the other format, and how it was called.
    open: String,
    open_type: String,
}

/// A file of `docs/deploy`.
fn deployed(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/deploy").join(path)
}

fn skipped<T>(why: &str) -> Option<T> {
    let required = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    assert!(!required, "CI is set, so nothing may be skipped, but {why}");
    // Straight to the terminal: the harness would hide it, because a skipped test passes.
    let _closed = writeln!(io::stderr(), "\nSKIPPED, rules or dashboard were not tried: {why}\n");
    None
}

/// Gives `promtool` these arguments and this input; none where there is no such program.
fn promtool(arguments: &[&str], input: &str) -> Option<()> {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return skipped("there is no promtool: install Debian's package prometheus");
        }
        Err(error) => panic!("{error}"),
    };
    // It may have ended without reading.
    let _unread = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "promtool {arguments:?}: {}\n{}{}", output.status, said[0], said[1]);
    Some(())
}

/// Asks byte by byte, as no library would; answers with the whole answer.
fn ask(node: &Node, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(node.ready.http.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    write!(stream, "{head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = Vec::new();
    // A connection that is cut has said what it had to say.
    let _cut = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The same with a usual head; answers with the status.
fn request(node: &Node, line: &str, body: &Value) -> u16 {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let head = format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: {CANARY}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream"
    );
    let answer = ask(node, &head, &body);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.unwrap_or_else(|| panic!("{line}: {answer}"))
}

/// The code with which a call ended, empty where it went well.
fn call(node: &Node, agent: &str, input: &Value) -> String {
    let url = format!("{}/v1/call/{agent}?timeout=2", node.ready.http);
    let mut answer = ureq::post(&url).config().http_status_as_error(false).build().send_json(input).unwrap();
    let answer: Value = answer.body_mut().read_json().unwrap();
    answer["error"]["code"].as_str().unwrap_or_default().to_owned()
}

fn metrics(node: &Node, accept: &str) -> (String, String) {
    let url = format!("{}/metrics", node.ready.http);
    let mut answer = ureq::get(&url).header("accept", accept).call().unwrap();
    let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
    (answer.body_mut().read_to_string().unwrap(), kind)
}

/// A file of an agent with these lines, the last of which are of `[agent.run]`.
fn write_agent(folder: &Path, name: &str, lines: &str) {
    let text = format!("[agent]\nname = \"{name}\"\ndescription = \"of a test\"\n{lines}\n");
    fs::write(folder.join(format!("{name}.toml")), text).unwrap();
}

fn run(script: &str) -> String {
    format!("[agent.run]\ncommand = [\"sh\", \"-c\", {script:?}]")
}

/// Agents that end in as many ways as agents do, and those that fail if their input says so.
fn write_agents(folder: &Path) {
    let picky = "input_schema = { type = \"object\", required = [\"n\"] }\n";
    let loose = "output_schema = { type = \"object\", required = [\"n\"] }\n";
    for (name, lines) in [
        ("a-picky", picky.to_owned() + &run("cat")),
        ("a-loose", loose.to_owned() + &run("echo '[1]'")),
        ("a-missing", "[agent.run]\ncommand = [\"/no/such/program\"]".to_owned()),
        ("a-slow", run("sleep 60")),
        ("a-web", "[agent.run]\nhttp = { url = \"http://127.0.0.1:1/\" }".to_owned()),
        ("a-tools", "[agent.run]\nmcp = { url = \"http://127.0.0.1:1/mcp\" }".to_owned()),
        ("a-rare", "rate_limit = \"1/h\"\n".to_owned() + &run("cat")),
        (
            GATED,
            "max_concurrency = 1\n".to_owned() + &run("while [ ! -e open ]; do sleep 0.02; done; echo '{}'"),
        ),
    ] {
        write_agent(folder, name, &lines);
    }
    for number in 0..AGENTS - 8 {
        write_agent(folder, &format!("b-{number:03}"), &run("! grep -q bad && echo '{}'"));
    }
}

fn start(folder: &Path, name: &str, zones: &str, bootstrap: &[String]) -> Node {
    let agents = folder.join(name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_aop"));
    command.env("AOP_AGENTS", &agents).env("AOP_ZONES", zones).env("AOP_GATEWAY", "yes");
    Node::start_by(command, &agents.join("data"), LISTEN, bootstrap)
}

/// Calls that end well and badly, at the own host and over the mesh.
fn make_calls(node: &Node, peer: &Node) {
    for (agent, code) in [
        ("a-picky", "bad_input"),
        ("a-loose", "bad_output"),
        ("a-missing", "start_failed"),
        ("a-slow", "deadline"),
        ("a-web", "start_failed"),
        ("a-tools", "upstream_failed"),
        ("a-rare", ""),
        ("a-rare", "rate_limited"),
        ("canary-listing", "not_callable"),
    ] {
        let input = json!({"task": "x", "tool": "x", "arguments": {}});
        assert_eq!(call(node, &format!("{agent}@."), &input), code, "{agent}");
    }
    let calls: Vec<Value> = (0..AGENTS - 8)
        .flat_map(|number| ["good", "bad"].map(|task| (number, task)))
        .map(|(number, task)| json!({"agent": format!("b-{number:03}@."), "input": {"task": task}}))
        .collect();
    assert_eq!(request(node, "POST /v1/batch", &json!({"calls": calls})), 200);
    assert_eq!(call(node, "canary-good@canary.org", &json!({"task": "x"})), "");
    assert_eq!(call(node, "canary-bad@canary.org", &json!({"task": "x"})), "agent_failed");
    assert_eq!(call(peer, "b-000@.", &json!({"task": "good"})), "");
    assert_eq!(call(peer, "b-000@.", &json!({"task": "bad"})), "agent_failed");
    assert_ne!(call(node, "canary-nobody@.", &json!({})), "");
}

/// The number of a series.
fn counted(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

/// Calls of which one is at work and the others wait, of both nodes; they end before this does.
fn make_waiting_calls(node: &Node, peer: &Node, folder: &Path) {
    let agent = format!("{GATED}@.");
    let call = |node| assert_eq!(self::call(node, &agent, &json!({"task": "x"})), "");
    let in_flight = |node, side: &str, state: &str| {
        let series = format!("aop_calls_in_flight{{side=\"{side}\",state=\"{state}\"}}");
        counted(&metrics(node, "*/*").0, &series).unwrap()
    };
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| call(node));
        }
        until("one is at work and one waits", PATIENCE, || {
            (in_flight(node, "local", "working"), in_flight(node, "local", "waiting")) == (1.0, 1.0)
        });
        threads.spawn(|| call(peer));
        until("that of the peer waits at both ends", PATIENCE, || {
            (in_flight(peer, "caller", "waiting"), in_flight(node, "host", "waiting")) == (1.0, 1.0)
        });
        assert_eq!(in_flight(peer, "caller", "working") + in_flight(node, "host", "working"), 0.0);
        fs::write(folder.join("open"), "").unwrap();
    });
    let nodes = [node, peer];
    let all = nodes.iter().flat_map(|node| {
        ["local", "caller", "host"]
            .map(|side| in_flight(node, side, "waiting") + in_flight(node, side, "working"))
    });
    assert_eq!(all.sum::<f64>(), 0.0);
}

/// Everything that a client can make up.
fn make_requests(node: &Node) {
    for line in [
        "GET /canary",
        "CANARY /v1/find",
        "CANARY /canary",
        "GET /v1/find?q=canary&canary=canary",
        "GET /v1/agents/canary",
        "DELETE /v1/agents/canary",
        "GET /v1/tasks/canary",
        "GET /v1/queues/canary",
        "POST /v1/queues/canary/canary",
        "PUT /v1/owners/canary",
        "POST /v1/call/canary?canary=1",
        "GET /a2a/canary",
        "GET /v0.1/servers/canary",
        "GET /ard/canary",
        "GET /mcp/canary",
    ] {
        assert!(request(node, line, &Value::Null) >= 400, "{line}");
    }
    for path in [
        "/",
        "/v1/find?q=b",
        "/v1/agents",
        "/v1/status",
        "/v1/peers",
        "/v1/zones",
        "/healthz",
        "/openapi.json",
    ] {
        assert_eq!(request(node, &format!("GET {path}"), &Value::Null), 200, "{path}");
    }
    // Another host, and a head that means two bodies.
    assert!(ask(node, "GET /v1/status HTTP/1.1\r\nHost: canary.example", "").contains("forbidden"));
    ask(node, "POST /v1/find HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked", "");
}

/// The same over MCP, of an older revision and of the newest.
fn make_mcp_requests(node: &Node) {
    let client = json!({"name": CANARY, "version": CANARY});
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
    assert_eq!(request(node, "POST /mcp", &initialize), 200);
    for (method, mut params) in [
        ("tools/list", json!({})),
        ("tools/call", json!({"name": "discover_agents", "arguments": {"query": CANARY}})),
        ("tools/call", json!({"name": "canary_tool", "arguments": {"canary": CANARY}})),
        ("resources/list", json!({})),
        ("resources/read", json!({"uri": "canary://canary"})),
        ("prompts/get", json!({"name": CANARY})),
        ("canary/method", json!({"canary": CANARY})),
    ] {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": client,
        });
        let name = params["name"].as_str().or(params["uri"].as_str()).unwrap_or_default();
        let head = format!(
            "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\nMcp-Protocol-Version: 2026-07-28\r\n\
             Mcp-Method: {method}\r\nMcp-Name: {name}"
        );
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let answer = ask(node, &head, &body);
        assert!(answer.contains("jsonrpc"), "{method}: {answer}");
    }
}

fn exercised() -> &'static Exercised {
    static EXERCISED: OnceLock<Exercised> = OnceLock::new();
    EXERCISED.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        for name in ["node", "peer"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        write_agents(&folder.path().join("node"));
        write_agent(&folder.path().join("peer"), "canary-good", &run("echo '{}'"));
        write_agent(&folder.path().join("peer"), "canary-bad", &run("exit 1"));
        let zones = ".,a.org,b.org,c.org,d.org,e.org,f.org,g.org";
        let node = start(folder.path(), "node", zones, &["/ip4/127.0.0.1/tcp/1".into()]);
        let peer = start(folder.path(), "peer", "canary.org,.", &[node.ready.listen[0].clone()]);
        assert_eq!(
            request(
                &node,
                "POST /v1/agents",
                &json!({"agent": {
            "name": "canary-listing", "description": "canary"}})
            ),
            200
        );
        // Somebody who never says anything, for whom there is a deadline.
        let port = node.ready.listen[0].split('/').nth(4).unwrap().parse().unwrap();
        let _silent = TcpStream::connect(("127.0.0.1", port)).unwrap();
        until("the node follows the zone of its peer", PATIENCE, || {
            let zones: Value = node.get("/v1/zones").unwrap();
            zones["zones"]
                .as_array()
                .unwrap()
                .iter()
                .any(|it| it["zone"] == "canary.org" && it["role"] == "below")
        });
        until("the agents of the peer are found", PATIENCE, || {
            request(&node, "GET /v1/agents/canary-bad@canary.org", &Value::Null) == 200
        });
        make_calls(&node, &peer);
        make_waiting_calls(&node, &peer, &folder.path().join("node"));
        make_requests(&node);
        make_mcp_requests(&node);
        for late in [
            "aop_refused_total{reason=\"handshake_deadline\"} 1",
            "aop_registry_last_sync_timestamp_seconds{",
        ] {
            until(late, PATIENCE, || metrics(&node, "*/*").0.contains(late));
        }
        let mut events = TcpStream::connect(node.ready.http.strip_prefix("http://").unwrap()).unwrap();
        write!(events, "GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        // It is open when it answers.
        events.read_exact(&mut [0; 15]).unwrap();
        let (text, _) = metrics(&node, "*/*");
        let (open, open_type) = metrics(&node, "application/openmetrics-text; version=1.0.0");
        Exercised { text, open, open_type }
    })
}

/// Names of metrics in an expression or a sentence.
fn names_in<'a>(text: &'a str, prefixes: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    words.filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix)))
}

/// The expressions of the dashboard.
fn shown() -> Vec<String> {
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string(deployed("grafana/aop.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

fn rules() -> String {
    fs::read_to_string(deployed("prometheus/aop.rules.yml")).unwrap()
}

#[test]
fn prometheus_finds_nothing_to_say_of_the_metrics() {
    let text = &exercised().text;
    promtool(&["check", "metrics"], text);
    // It says nothing of histograms of which no percentile can be taken.
    let histograms = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" histogram"));
    for histogram in histograms {
        let begins = |part: &str| text.matches(&format!("\n{histogram}_{part}")).count();
        let last = text.lines().filter(|line| line.starts_with(histogram) && line.contains("le=\"+Inf\""));
        assert_eq!(begins("count"), last.count(), "{histogram}");
    }
}

#[test]
fn every_alert_is_silent_on_healthy_nodes_and_told_of_sick_ones() {
    let [rules, tests] = ["aop.rules.yml", "aop.rules.test.yml"]
        .map(|name| deployed("prometheus").join(name).to_str().unwrap().to_owned());
    let done =
        promtool(&["check", "rules", &rules], "").and_then(|()| promtool(&["test", "rules", &tests], ""));
    let tests = fs::read_to_string(&tests).unwrap();
    for alert in self::rules().lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let tried = tests.matches(&format!("alertname: {alert},")).count();
        let told = tests.matches(&format!("alertname: {alert}\n")).count();
        assert!(tried >= 1 && told >= 1, "{alert} is not tried in both directions ({done:?})");
    }
}

#[test]
fn what_rules_and_dashboard_name_is_exposed() {
    let text = &exercised().text;
    let series =
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(['{', ' ']).next());
    // A histogram is called by its name in a sentence, and by its parts in an expression.
    let histograms = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" histogram"));
    let exposed: BTreeSet<&str> = series.chain(histograms).collect();
    let (rules, shown) = (rules(), shown().join("\n"));
    let named: BTreeSet<&str> = names_in(&rules, &PREFIXES).chain(names_in(&shown, &PREFIXES)).collect();
    assert!(named.len() > 40, "{named:?}");
    let missing: Vec<&&str> = named.difference(&exposed).collect();
    assert!(missing.is_empty(), "not exposed: {missing:?}\n{text}");
    let recorded = |name: &&str| rules.contains(&format!("- record: {name}\n"));
    let unrecorded: Vec<&str> = names_in(&shown, &["aop:"]).filter(|name| !recorded(name)).collect();
    assert!(unrecorded.is_empty(), "{unrecorded:?}");
}

#[test]
fn every_metric_is_explained_to_operators() {
    let documented = include_str!("../../docs/operations.md");
    let told = exercised().text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let missing: Vec<&str> = told.filter(|name| !documented.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "not in docs/operations.md: {missing:?}");
}

#[test]
fn the_dashboard_is_what_its_script_writes() {
    let mut python = Command::new("python3");
    let print =
        "import json, runpy, sys; print(json.dumps(runpy.run_path(sys.argv[1])['DASHBOARD'], indent=1))";
    // Without the cache it would leave a folder in the repository.
    python.args(["-B", "-c", print]).arg(deployed("grafana/dashboard.py"));
    let Ok(written) = python.output() else { return skipped("there is no python3").unwrap_or_default() };
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    let kept = fs::read_to_string(deployed("grafana/aop.json")).unwrap();
    assert!(kept == String::from_utf8_lossy(&written.stdout), "run python3 docs/deploy/grafana/dashboard.py");
}

#[test]
fn every_query_of_the_dashboard_is_one() {
    let rules: Vec<Value> = shown()
        .iter()
        .enumerate()
        .map(|(number, query)| json!({"record": format!("query:{number}"), "expr": query.replace("$__rate_interval", "1m")}))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("queries.yml");
    fs::write(&file, json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string()).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()], "");
}

#[test]
fn a_node_with_120_agents_and_8_zones_that_met_every_error_has_at_most_3000_series() {
    let series: Vec<&str> = exercised().text.lines().filter(|line| !line.starts_with('#')).collect();
    eprintln!("{} series", series.len());
    assert!((1_500..=SERIES_MAX).contains(&series.len()), "{}", series.join("\n"));
    let once: BTreeSet<&str> = series.iter().filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect();
    assert_eq!(once.len(), series.len(), "a series is told twice");
}

#[test]
fn no_label_has_a_value_that_a_client_or_a_peer_made_up() {
    for text in [&exercised().text, &exercised().open] {
        let told: Vec<&str> = text.lines().filter(|line| line.to_lowercase().contains(CANARY)).collect();
        assert!(told.is_empty(), "{told:#?}");
    }
}

#[test]
fn open_streams_and_bytes_of_comparisons_are_counted() {
    let text = &exercised().text;
    let counted = |series: &str| counted(text, series).unwrap_or_else(|| panic!("{series}\n{text}"));
    let [events, calls, mcp] =
        ["events", "calls", "mcp"].map(|kind| counted(&format!("aop_http_streams{{kind=\"{kind}\"}}")));
    assert_eq!((events, calls, mcp), (1.0, 0.0, 0.0));
    for direction in ["in", "out"] {
        let of = |what: &str| counted(&format!("aop_sync_{what}_total{{direction=\"{direction}\"}}"));
        assert!(of("bytes") > 100.0 * of("records"), "{direction}: {} {}", of("bytes"), of("records"));
    }
}

#[test]
fn connections_bytes_files_servers_and_the_log_are_counted() {
    let text = &exercised().text;
    let counted = |series: &str| counted(text, series).unwrap_or_else(|| panic!("{series}\n{text}"));
    // The peer dialed; what comparisons carried is part of what went both ways.
    assert_eq!(counted("aop_connections{direction=\"in\",transport=\"tcp\"}"), 1.0);
    for direction in ["in", "out"] {
        let by_tcp =
            counted(&format!("aop_network_bytes_total{{direction=\"{direction}\",transport=\"tcp\"}}"));
        let synced = counted(&format!("aop_sync_bytes_total{{direction=\"{direction}\"}}"));
        assert!(by_tcp > synced && synced > 0.0, "{direction}: {by_tcp} {synced}");
    }
    for file in ["sled", "journal"] {
        assert!(counted(&format!("aop_store_bytes{{file=\"{file}\"}}")) > 0.0, "{file}");
    }
    assert_eq!(counted("aop_upstream_up{server=\"a-tools@.\"}"), 0.0);
    assert!(counted("aop_log_records_total{level=\"warn\"}") >= 1.0, "a bootstrap peer is not there");
}

#[test]
fn a_connection_over_quic_is_counted_by_who_opened_it_while_it_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let start = |name: &str, bootstrap: &[String]| {
        let command = Command::new(env!("CARGO_BIN_EXE_aop"));
        Node::start_by(command, &folder.path().join(name), "/ip4/127.0.0.1/udp/0/quic-v1", bootstrap)
    };
    let node = start("node", &[]);
    let peer = start("peer", &node.ready.listen);
    let of = |node: &Node, name: &str, direction: &str| {
        let series = format!("{name}{{direction=\"{direction}\",transport=\"quic\"}}");
        counted(&metrics(node, "*/*").0, &series).unwrap()
    };
    let open = |node, direction| of(node, "aop_connections", direction);
    until("it is open at both ends", PATIENCE, || (open(&node, "in"), open(&peer, "out")) == (1.0, 1.0));
    for node in [&node, &peer] {
        until("something was said both ways", PATIENCE, || {
            ["in", "out"].iter().all(|direction| of(node, "aop_network_bytes_total", direction) > 0.0)
        });
    }
    peer.signal("-TERM");
    until("it has ended", PATIENCE, || open(&node, "in") == 0.0);
}

#[test]
fn what_has_not_happened_yet_is_counted_as_never() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("quiet")).unwrap();
    write_agent(&folder.path().join("quiet"), "idle", &run("cat"));
    let node = start(folder.path(), "quiet", ".", &[]);
    let text = metrics(&node, "*/*").0;
    for series in [
        "aop_agent_calls_total{agent=\"idle@.\",outcome=\"failed\"}",
        "aop_call_bytes_total{side=\"host\",direction=\"in\"}",
        "aop_call_duration_seconds_count{side=\"caller\",outcome=\"unknown\"}",
        "aop_call_offers_total{result=\"lost\"}",
        "aop_calls_total{side=\"local\",outcome=\"ok\",code=\"\"}",
        "aop_connections{direction=\"in\",transport=\"quic\"}",
        "aop_dials_total{result=\"failed\"}",
        "aop_find_duration_seconds_count{complete=\"false\"}",
        "aop_find_zones_total{status=\"unreachable\"}",
        "aop_gossip_dropped_total{reason=\"over_budget\"}",
        "aop_gossip_verdicts_total{verdict=\"reject\"}",
        "aop_http_refused_total{reason=\"request_places\"}",
        "aop_network_bytes_total{direction=\"in\",transport=\"tcp\"}",
        "aop_offences_total{kind=\"record\"}",
        "aop_record_propagation_seconds_count{via=\"sync\"}",
        "aop_records_total{via=\"gossip\",result=\"refused\"}",
        "aop_refused_total{reason=\"stream_share\"}",
        "aop_requests_waited_total{how=\"busy\"}",
        "aop_sync_records_total{direction=\"out\"}",
        "aop_sync_sessions_total{result=\"failed\"}",
    ] {
        assert_eq!(counted(&text, series), Some(0.0), "{series}\n{text}");
    }
}

/// Each has asked many times on one connection and reads nothing: what is said to it waits in its own place.
#[test]
fn scrapers_that_never_read_hold_up_no_call_and_no_other_scraper() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("scraped")).unwrap();
    write_agent(&folder.path().join("scraped"), "busy", &run("cat"));
    let node = start(folder.path(), "scraped", ".", &[]);
    let address = node.ready.http.strip_prefix("http://").unwrap();
    let asked = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1_000);
    let hanging: Vec<TcpStream> = (0..HANGING)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(asked.as_bytes()).unwrap();
            stream
        })
        .collect();
    let series = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    // By now each has been told as much as its connection takes.
    let mut looked = 0.0;
    until("they are told nothing more", PATIENCE, || {
        let text = metrics(&node, "*/*").0;
        let told = counted(&text, SCRAPES).unwrap_or_default();
        std::mem::replace(&mut looked, told) + 1.0 >= told && told > HANGING as f64
    });
    let before = series(&metrics(&node, "*/*").0);
    let begin = Instant::now();
    assert_eq!(call(&node, "busy@.", &json!({"task": "x"})), "");
    let text = metrics(&node, "*/*").0;
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    // The call has none that was not there.
    assert!(series(&text) <= before + 20, "{text}");
    assert!(counted(&text, SCRAPES).unwrap() < 1_000.0 * HANGING as f64, "all was said to nobody");
    drop(hanging);
}

#[test]
fn openmetrics_has_its_end_and_its_type() {
    let Exercised { open, open_type, text } = exercised();
    assert!(open.ends_with("\n# EOF\n") && open.matches("# EOF").count() == 1);
    assert_eq!(open_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(!text.contains("# EOF"));
}

/// What a caller does wrong is no failure of whom it calls: as docs/codes.md has it.
#[test]
fn only_mistakes_of_the_sender_are_left_out_of_failing_calls() {
    let (rules, codes) = (rules(), include_str!("../../docs/codes.md"));
    let left_out = rules.split("outcome!=\"ok\",code!~\"").nth(1).unwrap().split('"').next().unwrap();
    for code in left_out.split('|') {
        let line = codes.lines().find(|line| line.starts_with(&format!("| `{code}` |"))).unwrap();
        assert_eq!(line.split('|').nth(5).unwrap().trim(), "sender", "{code}");
    }
}
