//! What a node tells those who operate it while it works: traces at a collector of this test, and its log.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::processes::{Node, PATIENCE, until};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
/// Stands in the input, and must stand nowhere else.
const CANARY: &str = "the-secret-task";

/// A request as a server of this test got it: its head, its body.
type Heard = (String, Vec<u8>);

/// A server that answers everything with `answer`.
fn serve(answer: &'static str) -> (String, Receiver<Heard>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // More than a test asks.
    let (heard, requests) = sync_channel(1_024);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let heard = heard.clone();
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream.unwrap());
                // A client that is gone, and a test that has ended, end it.
                while let Some(request) = hear(&mut stream) {
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n", answer.len());
                    let whole = format!("{head}content-type: application/json\r\n\r\n{answer}");
                    if heard.send(request).is_err() || stream.get_mut().write_all(whole.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (url, requests)
}

fn hear(stream: &mut BufReader<TcpStream>) -> Option<Heard> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let head = head.to_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// The fields of a message of protobuf: numbers as eight bytes.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let size = match tag & 7 {
            0 => {
                found.push((tag >> 3, varint(&mut bytes).to_be_bytes().to_vec()));
                continue;
            }
            1 => 8,
            5 => 4,
            _ => varint(&mut bytes) as usize,
        };
        let (value, rest) = bytes.split_at(size);
        found.push((tag >> 3, value.to_vec()));
        bytes = rest;
    }
    found
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let length = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    let (these, rest) = bytes.split_at(length);
    *bytes = rest;
    these.iter().rev().fold(0, |number, byte| number << 7 | u64::from(byte & 0x7f))
}

fn all(bytes: &[u8], number: u64) -> Vec<Vec<u8>> {
    fields(bytes).into_iter().filter(|(at, _)| *at == number).map(|(_, value)| value).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(bytes: &[u8], number: u64) -> String {
    all(bytes, number).first().map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default()
}

/// Attributes that are texts and numbers.
fn attributes(of: &[u8], number: u64) -> BTreeMap<String, String> {
    let value = |value: &[u8]| match all(value, 3).first() {
        Some(number) => i64::from_be_bytes(number[..].try_into().unwrap()).to_string(),
        None => text(value, 1),
    };
    let pairs = all(of, number).into_iter();
    pairs.map(|pair| (text(&pair, 1), value(&all(&pair, 2)[0]))).collect()
}

#[derive(Clone, Debug)]
struct Span {
    name: String,
    kind: u64,
    trace: String,
    id: String,
    parent: String,
    node: String,
    attributes: BTreeMap<String, String>,
}

/// The spans of a batch.
fn spans(batch: &[u8]) -> Vec<Span> {
    let mut found = Vec::new();
    for of_resource in all(batch, 1) {
        let resource = attributes(&all(&of_resource, 1)[0], 1);
        assert_eq!(resource["service.name"], "aop");
        for span in all(&of_resource, 2).iter().flat_map(|of_scope| all(of_scope, 2)) {
            let id = |number| all(&span, number).first().map(|id| hex(id)).unwrap_or_default();
            found.push(Span {
                name: text(&span, 5),
                kind: all(&span, 6)
                    .first()
                    .map_or(0, |kind| u64::from_be_bytes(kind[..].try_into().unwrap())),
                trace: id(1),
                id: id(2),
                parent: id(4),
                node: resource.get("service.instance.id").cloned().unwrap_or_default(),
                attributes: attributes(&span, 9),
            });
        }
    }
    found
}

/// A node whose log goes into a file, with these variables.
fn start(dir: &Path, log: &Path, variables: &[(&str, &str)], bootstrap: &[String], agents: &Path) -> Node {
    let mut command = Command::new("sh");
    command
        .args(["-c", "log=$1; shift; exec \"$@\" 2>\"$log\"", "sh"])
        .arg(log)
        .arg(env!("CARGO_BIN_EXE_aop"));
    command.envs(variables.iter().copied()).env("AOP_LOG", "warn,aop=info").env("AOP_AGENTS", agents);
    Node::start_by(command, dir, "/ip4/127.0.0.1/tcp/0", bootstrap)
}

/// Waits for something.
fn awaited<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    until(what, PATIENCE, || {
        found = look();
        found.is_some()
    });
    found.unwrap()
}

/// The line of a log with this event.
fn line(log: &Path, event: &str) -> Value {
    awaited(&format!("{event} in {}", log.display()), || {
        let text = fs::read_to_string(log).unwrap_or_default();
        let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
        lines.rfind(|line| line["event"] == event)
    })
}

/// Calls an agent as a client of the newest revision of MCP does, as part of a trace.
fn call_by_mcp(node: &Node, agent: &str) -> (String, String) {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
        "traceparent": format!("00-{TRACE}-{PARENT}-01"),
    });
    let arguments = json!({"agent": agent, "input": {"task": CANARY}});
    let params = json!({"name": "call_agent", "arguments": arguments, "_meta": meta});
    let mut answer = ureq::post(format!("{}/mcp", node.ready.http))
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", "call_agent")
        .header("x-request-id", "order-17")
        .send_json(json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}))
        .unwrap();
    let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    (id, answer.body_mut().read_to_string().unwrap())
}

/// The span of this name and kind at this node.
fn named<'a>(spans: &'a [Span], node: &Node, name: &str, kind: u64) -> Option<&'a Span> {
    spans.iter().find(|it| (&*it.name, it.kind, &*it.node) == (name, kind, &*node.ready.peer_id))
}

/// Both logs name the call and the trace: that of its caller by the span `chain[1]`, that of its host by `chain[4]`.
fn assert_logged(chain: &[Span], (caller, caller_log): (&Node, &Path), host_log: &Path) {
    let (called, worked) = (line(caller_log, "call_answered"), line(host_log, "call_completed"));
    let call = &chain[1].attributes["aop.call.id"];
    for (line, span) in [(&called, &chain[1]), (&worked, &chain[4])] {
        assert_eq!((&line["call"], &line["trace_id"]), (&json!(call), &json!(TRACE)), "{line}");
        assert_eq!((&line["span_id"], &line["node"]), (&json!(span.id), &json!(span.node)), "{line}");
    }
    assert_eq!(worked["side"], "host", "{worked}");
    assert_eq!(worked["peer"], json!(caller.ready.peer_id), "{worked}");
    line(caller_log, "peer_connected");
    let again = ureq::post(format!("{}/v1/call/far@.", caller.ready.http)).header("x-request-id", "order 18");
    let again = again.send_json(json!({"task": CANARY})).unwrap();
    let request = again.headers()["x-request-id"].to_str().unwrap();
    assert!(request.len() == 16, "one that a log cannot have is replaced: {request}");
    awaited("the request is in the log", || {
        (line(caller_log, "call_answered")["request"] == request).then_some(())
    });
    let logs = fs::read_to_string(host_log).unwrap() + &fs::read_to_string(caller_log).unwrap();
    assert!(!logs.contains(CANARY), "{logs}");
}

/// The trace is found by the duration of its call, in the format that has a place for it.
fn assert_counted(host: &Node) {
    let metrics = |accept: &str| {
        let asked = ureq::get(format!("{}/metrics", host.ready.http)).header("accept", accept);
        asked.call().unwrap().into_body().read_to_string().unwrap()
    };
    let named = format!(" # {{trace_id=\"{TRACE}\"}} ");
    let open = metrics("application/openmetrics-text");
    let told: Vec<&str> = open.lines().filter(|line| line.contains(&named)).collect();
    assert!(told.len() == 1 && told[0].contains(",side=\"host\",outcome=\"ok\"} 1 # "), "{open}");
    assert!(!metrics("text/plain").contains("trace_id"));
}

/// Kinds of spans.
const INTERNAL: u64 = 1;
const SERVER: u64 = 2;
const CLIENT: u64 = 3;

#[test]
fn a_trace_leads_from_an_mcp_client_through_two_nodes_to_an_agent_and_both_logs_name_it() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (collector, batches) = serve("");
    let (agent, asked) = serve(r#"{"success": true, "result": "done"}"#);
    let [agents, none] = ["agents", "none"].map(|name| {
        fs::create_dir(path(name)).unwrap();
        path(name)
    });
    let file = format!(
        "[agent]\nname = \"far\"\ndescription = \"x\"\n[agent.run]\nhttp = {{ url = \"{agent}/run\" }}\n"
    );
    fs::write(agents.join("far.toml"), file).unwrap();
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector),
        ("OTEL_TRACES_SAMPLER_ARG", "1"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("AOP_LOG_FORMAT", "json"),
    ];
    let (host_log, caller_log) = (path("host.log"), path("caller.log"));
    let host = start(&path("host"), &host_log, &variables, &[], &agents);
    let bootstrap = [host.ready.listen[0].clone()];
    let caller = start(&path("caller"), &caller_log, &variables, &bootstrap, &none);
    awaited("the agent is found", || {
        let found: Value = caller.get("/v1/find?q=far")?;
        (found["results"][0]["agent"] == "far@.").then_some(())
    });

    let (request, answer) = call_by_mcp(&caller, "far@.");
    assert!(answer.contains("done"), "{answer}");
    assert_eq!(request, "order-17");

    let mut found: Vec<Span> = Vec::new();
    let mut bodies = Vec::new();
    let chain = awaited("all spans of the trace", || {
        while let Ok((head, body)) = batches.try_recv() {
            assert!(
                head.starts_with("post /v1/traces ") && head.contains("application/x-protobuf"),
                "{head}"
            );
            found.extend(spans(&body).into_iter().filter(|span| span.trace == TRACE));
            bodies.extend(body);
        }
        let at = |node, name, kind| named(&found, node, name, kind).cloned();
        Some([
            at(&caller, "tools/call call_agent", SERVER)?,
            at(&caller, "invoke_agent far@.", CLIENT)?,
            at(&caller, "aop.call/1 Offer", CLIENT)?,
            at(&host, "aop.call/1", SERVER)?,
            at(&host, "invoke_agent far@.", INTERNAL)?,
            at(&host, "POST", CLIENT)?,
        ])
    });
    let mut parent = PARENT;
    for span in &chain {
        assert_eq!(span.parent, parent, "{chain:#?}");
        assert!(!span.attributes.contains_key("error.type"), "{span:?}");
        parent = &span.id;
    }
    let (head, _) = asked.recv_timeout(PATIENCE).unwrap();
    assert!(head.contains(&format!("traceparent: 00-{TRACE}-{parent}-01")), "{head}");
    assert!(!String::from_utf8_lossy(&bodies).contains(CANARY), "an input left with a span");

    assert_counted(&host);
    assert_logged(&chain, (&caller, &caller_log), &host_log);
}

/// The spans that come until there are some by all of these names.
fn spans_named(batches: &Receiver<Heard>, names: &[&str]) -> Vec<Span> {
    let mut found: Vec<Span> = Vec::new();
    let missing =
        |found: &[Span]| names.iter().find(|name| found.iter().all(|span| span.name != **name)).copied();
    while let Some(name) = missing(&found) {
        let batch = batches.recv_timeout(PATIENCE);
        let (_, body) = batch.unwrap_or_else(|_| panic!("no span {name} among {found:#?}"));
        found.extend(spans(&body));
    }
    found
}

#[test]
fn spans_say_whom_they_ask_how_and_what_that_took_and_no_key() {
    let folder = TempDir::new().unwrap();
    let agents = folder.path().join("agents");
    fs::create_dir(&agents).unwrap();
    let (collector, batches) = serve("");
    let (model, _asked) = serve(
        r#"{"choices": [{"message": {"content": "done"}}], "usage": {"prompt_tokens": 7, "completion_tokens": 5}}"#,
    );
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mcp/upstream/server.py");
    for (name, run) in [
        ("program", "command = [\"sh\", \"-c\", \"exit 3\"]".to_owned()),
        (
            "model",
            format!("chat = {{ base_url = \"{model}/v1?key={CANARY}\", model = \"m\", max_loops = 3 }}"),
        ),
        ("tool", format!("mcp = {{ command = [\"python3\", {script:?}, \"echo\"] }}\ntool = \"echo\"")),
    ] {
        let file = format!("[agent]\nname = \"{name}\"\ndescription = \"x\"\n[agent.run]\n{run}\n");
        fs::write(agents.join(format!("{name}.toml")), file).unwrap();
    }
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector),
        ("OTEL_TRACES_SAMPLER", "always_on"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("AOP_LOG_FORMAT", "json"),
    ];
    let log = folder.path().join("log");
    let node = start(&folder.path().join("data"), &log, &variables, &[], &agents);
    awaited("the tool is there", || {
        let url = format!("{}/v1/call/tool@.", node.ready.http);
        let mut called = ureq::post(url).send_json(json!({"task": "x"})).ok()?;
        called.body_mut().read_json::<Value>().ok()?["success"].as_bool().filter(|success| *success)
    });
    let post = |path: &str| {
        let url = format!("{}{path}", node.ready.http);
        ureq::post(url).header("x-request-id", "order-19").send_json(json!({"task": "x"})).unwrap()
    };
    post("/v1/call/model@.");
    post("/v1/call/program@.?async=true");
    call_by_mcp(&node, "model@.");

    assert_described(&batches, &model, &node.ready.http);
    // The work of a task is told of by the request that made it, long after that was answered.
    let failed = line(&log, "call_failed");
    assert_eq!((&failed["request"], &failed["agent"]), (&json!("order-19"), &json!("program@.")), "{failed}");
}

/// What spans say of a model, a program, a tool, and of what was asked of the node.
fn assert_described(batches: &Receiver<Heard>, model: &str, node: &str) {
    let names = ["chat m", "run sh", "tools/call echo", "POST /v1/call/{*agent}", "tools/call call_agent"];
    let found = spans_named(batches, &names);
    let of = |name: &str| &found.iter().rfind(|span| span.name == name).unwrap().attributes;
    let port = |url: &str| url.rsplit(':').next().unwrap().to_owned();
    let (model_port, node_port) = (port(model), port(node));
    for (name, attribute, value) in [
        ("chat m", "gen_ai.provider.name", "openai"),
        // The answer is repeated unchanged, so there were two turns.
        ("chat m", "gen_ai.usage.input_tokens", "14"),
        ("chat m", "gen_ai.usage.output_tokens", "10"),
        ("chat m", "server.address", "127.0.0.1"),
        ("chat m", "server.port", &model_port),
        ("run sh", "process.exit.code", "3"),
        ("tools/call echo", "network.transport", "pipe"),
        ("tools/call call_agent", "network.transport", "tcp"),
        ("tools/call call_agent", "mcp.protocol.version", "2026-07-28"),
        ("POST /v1/call/{*agent}", "server.address", "127.0.0.1"),
        ("POST /v1/call/{*agent}", "server.port", &node_port),
        ("POST /v1/call/{*agent}", "network.protocol.version", "1.1"),
    ] {
        assert_eq!(
            of(name).get(attribute).map(String::as_str),
            Some(value),
            "{name} {attribute}: {found:#?}"
        );
    }
    assert!(of("tools/call echo").contains_key("mcp.protocol.version"), "{found:#?}");
    assert!(!format!("{found:?}").contains(CANARY), "{found:#?}");
}

/// One that refuses, and one that listens and says nothing.
#[test]
fn a_dead_collector_holds_nobody_up_and_what_it_lost_is_counted() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    collect_nothing(silent.local_addr().unwrap(), "4");
    // Given back: nobody listens there.
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    line(collect_nothing(dead, "2048").path().join("log").as_path(), "collector_lost");
}

/// A node whose collector takes none of its spans, of which so many may wait.
fn collect_nothing(dead: SocketAddr, waiting_max: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*format!("http://{dead}")),
        ("OTEL_TRACES_SAMPLER", "always_on"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", waiting_max),
        // Longer than this test: what waits for an answer is not given up meanwhile.
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "120000"),
        ("AOP_LOG_FORMAT", "json"),
    ];
    let log = path("log");
    let mut node = start(&path("data"), &log, &variables, &[], folder.path());
    awaited("spans are counted that were dropped", || {
        let asked = Instant::now();
        node.get::<Value>("/v1/find?q=x").unwrap();
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        let metrics = ureq::get(format!("{}/metrics", node.ready.http)).call().unwrap();
        let metrics = metrics.into_body().read_to_string().unwrap();
        let count = metrics.lines().find_map(|line| line.strip_prefix("aop_spans_dropped_total "));
        (count?.parse::<u64>().unwrap() > 0).then_some(())
    });
    let stopping = Instant::now();
    node.signal("-TERM");
    assert!(node.child.wait().unwrap().success());
    assert!(stopping.elapsed() < Duration::from_secs(5), "{:?}", stopping.elapsed());
    line(&log, "node_stopped");
    assert!(!fs::read_to_string(&log).unwrap().contains(&dead.to_string()), "it may hold a key");
    folder
}

#[cfg(unix)]
#[test]
fn a_wrong_setting_of_traces_is_told_at_the_start_and_the_journal_gets_its_level() {
    use std::os::unix::fs::MetadataExt as _;
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("log");
    let file = fs::File::create(&log).unwrap().metadata().unwrap();
    let journal = format!("{}:{}", file.dev(), file.ino());
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"),
        ("OTEL_TRACES_SAMPLER_ARG", "many"),
        ("JOURNAL_STREAM", &journal),
    ];
    let node = start(&folder.path().join("data"), &log, &variables, &[], folder.path());
    let told = fs::read_to_string(&log).unwrap();
    let first = told.lines().next().unwrap();
    assert!(first.starts_with("<4>aop::") && first.contains("OTEL_TRACES_SAMPLER_ARG"), "{told}");
    assert!(told.contains("\n<6>aop::cli::node: the node is up"), "{told}");
    let metrics = ureq::get(format!("{}/metrics", node.ready.http)).call().unwrap();
    assert!(!metrics.into_body().read_to_string().unwrap().contains("aop_spans_dropped"));
}
