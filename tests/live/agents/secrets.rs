//! What an agent's file keeps on its host: planted in every place of every kind of agent, and looked for in everything that
//! the host says, to its own clients and to another node.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::folder::Folder;
use super::node::Node;

/// Stands in everything that is planted, in a form that any part of a file may have.
const CANARY: &str = "canary-7f3a";

/// A server on loopback that does `serve` to each connection.
fn server(serve: impl Fn(std::net::TcpStream, &str) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = std::sync::Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, serve) = (stream.unwrap(), serve.clone());
            std::thread::spawn(move || {
                let _hung = stream.set_read_timeout(Some(Duration::from_secs(2)));
                let mut head = vec![0; 64 * 1024];
                let read = stream.read(&mut head).unwrap_or(0);
                let head = String::from_utf8_lossy(&head[..read]).into_owned();
                serve(stream, &head);
            });
        }
    });
    port
}

/// An answer that repeats all that it was asked with.
fn echoing(status: &str, kind: &str) -> impl Fn(std::net::TcpStream, &str) + Send + Sync + use<> {
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n");
    move |mut stream, request| {
        let body = match head.contains("json") {
            true => json!({"error": {"message": format!("not for {request}")}}).to_string(),
            false => request.to_owned(),
        };
        let _gone = stream.write_all(format!("{head}{body}").as_bytes());
    }
}

/// Addresses that fail each in its own way, with a canary in user, path and query; in the host where it needs no server.
fn addresses() -> Vec<(&'static str, String)> {
    let elsewhere = format!(
        "HTTP/1.1 307 Moved\r\nlocation: http://{CANARY}.test/x?{CANARY}\r\nconnection: close\r\n\r\n"
    );
    let say = |text: String| server(move |mut stream, _| drop(stream.write_all(text.as_bytes())));
    let ports = [
        ("down", 9),
        ("cut", server(|stream, _| drop(stream))),
        ("redirect", say(elsewhere)),
        ("status", server(echoing("500 Broken", "application/json"))),
        ("denied", server(echoing("401 No", "application/json"))),
        ("refused", server(echoing("400 Bad", "text/plain"))),
        ("busy", server(echoing("429 Slow", "application/json"))),
        ("later", server(echoing("503 Later\r\nretry-after: 60", "application/json"))),
        (
            "half",
            say("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{\"a\":"
                .into()),
        ),
        ("garbage", say(format!("{CANARY}\r\n\r\n"))),
        ("slow", server(|_stream, _| std::thread::sleep(Duration::from_secs(5)))),
    ];
    let place = |scheme: &str, host: &str| {
        format!("{scheme}://{CANARY}-user:{CANARY}-word@{host}/{CANARY}-path?key={CANARY}-query")
    };
    let plain = server(|mut stream, _| drop(stream.write_all(b"HTTP/1.1 400 No TLS\r\n\r\n")));
    ports
        .into_iter()
        .map(|(failure, port)| (failure, place("http", &format!("127.0.0.1:{port}"))))
        .chain([
            ("dns", place("http", &format!("{CANARY}.invalid"))),
            ("tls", place("https", &format!("127.0.0.1:{plain}"))),
        ])
        .collect()
}

/// A2A agents whose cards are read, and that repeat what they were asked with each in its own way; the addresses of their cards.
fn a2a_servers() -> impl Iterator<Item = (&'static str, String)> {
    let ways = [
        ("refuses", r#"{"error": {"code": -32000, "message": "not for REQUEST"}}"#),
        (
            "asks",
            r#"{"result": {"task": {"id": "REQUEST", "status": {"state": "TASK_STATE_INPUT_REQUIRED",
                "message": {"messageId": "m", "parts": [{"text": "are you REQUEST?"}]}}}}}"#,
        ),
        ("babbles", "<html>REQUEST</html>"),
    ];
    ways.into_iter().map(|(end, said)| {
        let port = server(move |mut stream, request| {
            let card = json!({"url": "/rpc", "preferredTransport": "JSONRPC"}).to_string();
            let quoted = request.escape_default().to_string().replace("\\'", "'");
            let body = if request.starts_with("GET") { card } else { said.replace("REQUEST", &quoted) };
            drop(stream.write_all(format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{body}").as_bytes()));
        });
        let place = format!("{CANARY}-user:{CANARY}-word@127.0.0.1:{port}");
        (end, format!("http://{place}/{CANARY}-path/card.json?key={CANARY}-query"))
    })
}

/// Every kind of agent with every failure that it can meet; the names.
fn plant(folder: &Folder) -> Vec<String> {
    let mut names = Vec::new();
    let mut agent = |name: String, run: String| {
        let settings = "timeout_s = 1\nmax_retries = 0";
        folder.agent_with(&name, settings, &run);
        names.push(name);
    };
    let headers = format!(
        "headers = {{ Authorization = \"Bearer {CANARY}-header\", X-{CANARY} = \"{CANARY}-value\" }}"
    );
    for (failure, url) in addresses() {
        agent(format!("http-{failure}"), format!("http = {{ url = \"{url}\", {headers} }}"));
        agent(format!("mcp-{failure}"), format!("mcp = {{ url = \"{url}\", {headers} }}"));
        agent(format!("a2a-{failure}"), format!("a2a = {{ card = \"{url}\", {headers} }}"));
        let chat =
            format!("base_url = \"{url}\", {headers}, model = \"m\", system_prompt = \"{CANARY}-prompt\"");
        agent(format!("chat-{failure}"), format!("chat = {{ {chat} }}"));
    }
    for (end, card) in a2a_servers() {
        agent(format!("a2a-{end}"), format!("a2a = {{ card = \"{card}\", {headers} }}"));
    }
    let key =
        format!("base_url = \"http://127.0.0.1:9/{CANARY}\", model = \"m\", api_key_env = \"{CANARY}_KEY\"");
    agent("chat-keyless".into(), format!("chat = {{ {key} }}"));
    agent(
        "http-keyless".into(),
        format!(
            "http = {{ url = \"http://127.0.0.1:9/{CANARY}\", header_env = {{ A = \"{CANARY}_KEY\" }} }}"
        ),
    );
    let events = |end: &str| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        let begin = json!({"choices": [{"delta": {"content": "Well"}}]});
        let end = end.to_owned();
        let port = server(move |mut stream, request| {
            let error = json!({"error": {"message": format!("not for {request}")}});
            let end = end.replace("ERROR", &error.to_string());
            drop(stream.write_all(format!("{head}data: {begin}\n\n{end}").as_bytes()));
        });
        format!(
            "base_url = \"http://{CANARY}-user:{CANARY}-word@127.0.0.1:{port}/{CANARY}\", {headers}, model = \"m\""
        )
    };
    agent("chat-torn".into(), format!("chat = {{ {} }}", events("")));
    agent("chat-events".into(), format!("chat = {{ {} }}", events("data: ERROR\n\n")));
    let env = format!("env = {{ SECRET = \"{CANARY}-env\" }}");
    let shell = |script: &str| json!(["sh", "-c", script, format!("{CANARY}-argument")]);
    let commands = [
        ("missing", json!([format!("./{CANARY}-program")])),
        ("absent", json!([format!("{CANARY}-program")])),
        ("crash", shell("echo $SECRET $0 $PWD >&2; exit 3")),
        ("slow", shell("echo $SECRET >&2; sleep 60")),
        ("paper", shell("echo \"{\\\"success\\\": false, \\\"error\\\": \\\"$SECRET $0 $PWD\\\"}\"")),
        ("bytes", shell("printf '\\377'; echo $SECRET >&2")),
    ];
    for (failure, command) in &commands {
        agent(format!("command-{failure}"), format!("command = {command}\n{env}"));
        agent(format!("stdio-{failure}"), format!("mcp = {{ command = {command}, {env} }}"));
    }
    let hungry = shell("for n in $(seq 99); do sleep 60 & done; echo $SECRET $0 >&2; wait");
    agent("command-hungry".into(), format!("command = {hungry}\n{env}"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mcp/upstream/tells.py");
    agent(
        "stdio-tells".into(),
        format!("mcp = {{ command = {}, {env} }}", json!(["python3", script, format!("{CANARY}-argument")])),
    );
    agent("builtin".into(), "builtin = \"fail\"".into());
    names
}

fn get(node: &Node, path: &str) -> String {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut response = agent.get(format!("{}{path}", node.ready.http)).call().unwrap();
    response.body_mut().read_to_string().unwrap()
}

/// The events of a node as they come, from now on.
fn events_of(node: &Node) -> std::sync::Arc<std::sync::Mutex<String>> {
    let address = node.ready.http.strip_prefix("http://").unwrap().to_owned();
    let mut stream = std::net::TcpStream::connect(&address).unwrap();
    write!(stream, "GET /v1/events HTTP/1.1\r\nhost: {address}\r\n\r\n").unwrap();
    let told = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let writer = told.clone();
    std::thread::spawn(move || {
        let mut part = [0; 4096];
        // Ends with the node.
        while let Ok(count @ 1..) = stream.read(&mut part) {
            writer.lock().unwrap().push_str(&String::from_utf8_lossy(&part[..count]));
        }
    });
    told
}

/// One request of the newest revision to `/mcp`.
fn ask_mcp(node: &Node, method: &str, name: &str, params: Value) -> String {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut params = params;
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let mut request = agent
        .post(format!("{}/mcp", node.ready.http))
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", method);
    if !name.is_empty() {
        request = request.header("mcp-name", name);
    }
    request.send_json(message).unwrap().body_mut().read_to_string().unwrap()
}

fn assert_silent(what: &str, text: &str, folder: &Folder) {
    let folder = folder.path().to_str().unwrap();
    for secret in [CANARY, folder] {
        assert!(!text.to_lowercase().contains(&secret.to_lowercase()), "{what} tells {secret}: {text}");
    }
}

#[test]
fn nothing_of_a_configuration_leaves_its_host() {
    let folder = Folder::new();
    let names = plant(&folder);
    let host = Node::start(&[folder.path()], None);
    let other = Node::start(&[], Some(&host));
    let events = [&host, &other].map(events_of);
    let mut asked: Vec<(String, Value)> =
        names.iter().map(|name| (name.clone(), json!({"task": "x", "tool": "x"}))).collect();
    for tool in ["error", "fault", "progress"] {
        asked.push((format!("stdio-tells_{tool}"), json!({})));
    }
    for (name, _) in &asked {
        other.until(&format!("{name}@."), "/callable", &json!(true));
    }
    let input_of = |name: &str| json!({"name": name, "arguments": {"task": "x", "tool": "x"}});
    std::thread::scope(|scope| {
        for (name, input) in &asked {
            let (host, other, folder) = (&host, &other, &folder);
            scope.spawn(move || {
                for node in [host, other] {
                    let answer = node.post(&format!("/v1/call/{name}@."), input);
                    assert_eq!(answer["success"], false, "{name}: {answer}");
                    assert!(answer["error"]["message"].as_str().is_some_and(|told| told.len() > 10), "{name}: {answer}");
                    assert_silent(name, &answer.to_string(), folder);
                    assert_silent(name, &get(node, &format!("/v1/agents/{name}@.")), folder);
                }
                assert_silent(name, &ask_mcp(host, "tools/call", name, input_of(name)), folder);
                let call = json!({"name": "call_agent", "arguments": {"agent": format!("{name}@."), "input": input}});
                assert_silent(name, &ask_mcp(other, "tools/call", "call_agent", call), folder);
            });
        }
    });
    for node in [&host, &other] {
        for path in
            ["/v1/agents?limit=1000", "/v1/find?q=mcp&limit=1000", "/v1/status", "/v1/peers", "/metrics", "/"]
        {
            assert_silent(path, &get(node, path), &folder);
        }
        assert_silent("tools/list", &ask_mcp(node, "tools/list", "", json!({})), &folder);
        let info = json!({"name": "get_server_info", "arguments": {}});
        assert_silent("get_server_info", &ask_mcp(node, "tools/call", "get_server_info", info), &folder);
    }
    for events in events {
        assert_silent("events", &events.lock().unwrap(), &folder);
    }
    // The log of the other node is a place that its host does not own; that of the host may name places, and no key.
    assert_silent("the log of the other node", &other.stderr(), &folder);
    let log = host.stderr();
    assert!(log.contains(&format!("{CANARY}-program")), "whoever runs it is told why: {log}");
    for key in ["word", "query", "header", "value", "env"] {
        let key = format!("{CANARY}-{key}");
        assert!(!log.contains(&key), "the log tells {key}: {log}");
    }
}

#[test]
fn what_is_on_this_machine_is_asked_without_a_proxy_and_with_its_headers() {
    let port = server(|mut stream, request| {
        let body = json!({"has": request.to_lowercase().contains("x-api-key: from the node")}).to_string();
        let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{body}");
        drop(stream.write_all(answer.as_bytes()));
    });
    let proxied = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = proxied.clone();
    let proxy = server(move |_stream, _| seen.store(true, std::sync::atomic::Ordering::Relaxed));
    let folder = Folder::new();
    for (name, host) in [("number", "127.0.0.1"), ("name", "localhost")] {
        let header = "header_env = { X-Api-Key = \"GIVEN_KEY\" }";
        folder.agent(name, &format!("http = {{ url = \"http://{host}:{port}/run\", {header} }}"));
    }
    let proxy = format!("http://127.0.0.1:{proxy}");
    let env =
        [("HTTP_PROXY", proxy.as_str()), ("http_proxy", proxy.as_str()), ("GIVEN_KEY", "from the node")];
    let host = Node::start_with(tempfile::TempDir::new().unwrap(), &[folder.path()], None, &env);
    for name in ["number", "name"] {
        let answer = host.post(&format!("/v1/call/{name}@."), &json!({"task": "x"}));
        assert_eq!(answer["result"], json!({"has": true}), "{answer}");
    }
    assert!(!proxied.load(std::sync::atomic::Ordering::Relaxed), "nobody but the server was asked");
}

#[test]
fn an_agent_of_a_file_is_there_as_long_as_its_file() {
    let folder = Folder::new();
    folder.agent_with("adder", "description = \"d\"", "builtin = \"echo\"");
    let host = Node::start(&[folder.path()], None);
    host.until("adder@.", "/callable", &json!(true));
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut refused = agent.delete(format!("{}/v1/agents/adder@.", host.ready.http)).call().unwrap();
    assert_eq!(refused.status(), 409);
    let refused: Value = refused.body_mut().read_json().unwrap();
    assert_eq!(refused["error"]["code"], "conflict", "{refused}");
    let file = folder.path().join("adder.toml");
    assert!(refused["error"]["message"].as_str().unwrap().contains(file.to_str().unwrap()), "{refused}");
    let listing = json!({"agent": {"name": "adder", "description": "another"}});
    let registered = host.post("/v1/agents", &listing);
    assert_eq!(registered["refused"][0]["code"], "conflict", "{registered}");
    assert!(registered["refused"][0]["message"].as_str().unwrap().contains("adder.toml"), "{registered}");
    // One truth: it is found, shown, called, and a tool.
    assert_eq!(host.show("adder@.").unwrap()["description"], "d");
    assert_eq!(host.post("/v1/call/adder@.", &json!({"task": "x"}))["result"], "x");
    assert!(ask_mcp(&host, "tools/list", "", json!({})).contains("\"adder\""));
    std::fs::remove_file(file).unwrap();
    host.until("adder@.", "", &Value::Null);
    let started = Instant::now();
    while ask_mcp(&host, "tools/list", "", json!({})).contains("\"adder\"") {
        assert!(started.elapsed() < Duration::from_secs(20), "the tool stays");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
