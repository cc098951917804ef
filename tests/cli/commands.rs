//! The `aop` binary from outside, and the HTTP API through a real socket: exit codes, messages, guards.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aop::api::{ErrorBody, RegisterAnswer};
use aop::host;
use aop::http;
use aop::proto::address_block::TrustedNets;
use aop::proto::grant::{Grant, Reach};
use aop::proto::identity::Identity;
use aop::proto::name::ZoneName;
use aop::proto::record::RecordKind;
use aop::proto::time::Timestamp;
use serde_json::{Value, json};

fn aop(args: &[&str]) -> Output {
    aop_in(Path::new("."), args, &[])
}

pub(crate) fn aop_in(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_aop"))
        .args(args)
        .current_dir(folder)
        .env_clear()
        .env("HOME", "/nonexistent/home")
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

pub(crate) fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// The URL of a port that nobody has.
fn closed_port() -> String {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", socket.local_addr().unwrap())
}

#[test]
fn help_leads_with_examples() {
    insta::assert_snapshot!(out(&aop(&["--help"])));
    for command in [
        "dev",
        "node",
        "find",
        "show",
        "call",
        "task",
        "queue",
        "register",
        "deregister",
        "agents",
        "adopt",
        "zones",
        "zone",
        "peers",
        "status",
        "doctor",
        "watch",
        "mcp",
    ] {
        let help = out(&aop(&[command, "--help"]));
        let head: Vec<_> = help.lines().take(3).collect();
        assert!(
            head[0] == "Examples:" && head[1..].iter().all(|line| line.contains("aop ")),
            "{command}: {help}"
        );
    }
}

#[test]
fn wrong_usage_exits_2() {
    for args in [
        &[][..],
        &["fnid"],
        &["find", "--limit", "0"],
        &["find", "--limit", "many"],
        &["show"],
        &["register"],
        &["keys", "new"],
        &["keys", "grant", "--key", "k", "--to", "p", "--zone", ".", "--days", "91"],
        &["status", "--node", "https://example.org"],
        &["node", "--http", "nonsense"],
        &["dev", "--http", "nonsense"],
        &["config", "show", "--zone", "NotAZone"],
    ] {
        let output = aop(args);
        assert_eq!(code(&output), 2, "{args:?}: {}", err(&output));
        assert!(!err(&output).is_empty() && out(&output).is_empty(), "{args:?}: talk belongs to stderr");
    }
}

#[test]
fn a_node_that_does_not_answer_exits_4_with_the_next_command() {
    let url = closed_port();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/samples.json");
    for args in [
        &["find", "x"][..],
        &["show", "x"],
        &["call", "x"],
        &["agents"],
        &["zones"],
        &["zone", "join", "lab"],
        &["zone", "leave", "."],
        &["peers"],
        &["status"],
        &["watch"],
        &["register", file],
        &["deregister", "x"],
    ] {
        let output = aop_in(Path::new("."), args, &[("AOP_NODE", &url)]);
        assert_eq!(code(&output), 4, "{args:?}: {}", err(&output));
        let told = err(&output);
        assert!(told.contains(&format!("no node answers at {url}")) && told.contains("`aop node`"), "{told}");
        assert!(out(&output).is_empty());
    }
}

#[test]
fn with_json_every_error_is_the_document_that_a_node_answers() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bad.toml"), "zonse = [\".\"]\n").unwrap();
    let url = closed_port();
    for (args, exit, told) in [
        (&["find", "x", "--json"][..], 4, "unavailable"),
        (&["show", "x", "--json"], 4, "unavailable"),
        (&["call", "x", "--json"], 4, "unavailable"),
        (&["agents", "--json"], 4, "unavailable"),
        (&["agents", "adopt", "x", "--json"], 4, "unavailable"),
        (&["owner", "list", "--json"], 4, "unavailable"),
        (&["zones", "--json"], 4, "unavailable"),
        (&["zone", "join", "lab", "--json"], 4, "unavailable"),
        (&["zone", "join", "Lab", "--json"], 2, "bad_request"),
        (&["zone", "leave", "lab", "--json"], 4, "unavailable"),
        (&["zone", "init", "Lab", "--out", "k", "--json"], 2, "bad_request"),
        (&["peers", "--json"], 4, "unavailable"),
        (&["status", "--json"], 4, "unavailable"),
        (&["watch", "--jsonl"], 4, "unavailable"),
        (&["deregister", "x", "--json"], 4, "unavailable"),
        (&["show", "", "--json"], 2, "bad_request"),
        (&["show", "--json"], 2, "bad_request"),
        (&["find", "--limit", "0", "--json"], 2, "bad_request"),
        (&["find", "--json", "--tga", "x"], 2, "bad_request"),
        (&["fnid", "--json"], 2, "bad_request"),
        (&["call", "x", "not json", "--json"], 2, "bad_request"),
        (&["status", "--node", "https://example.org", "--json"], 2, "bad_request"),
        (&["config", "show", "--config", "bad.toml", "--json"], 2, "bad_request"),
        (&["node", "--config", "bad.toml", "--data-dir", "d", "--json"], 2, "bad_request"),
        (&["dev", "--http", "nonsense", "--json"], 2, "bad_request"),
        (&["keys", "show", "nowhere.key", "--json"], 1, "failed"),
    ] {
        let output = aop_in(folder.path(), args, &[("AOP_NODE", &url)]);
        assert_eq!(code(&output), exit, "{args:?}: {}", err(&output));
        assert_eq!(error_code_of(&out(&output)), told, "{args:?}");
        let is_node = ["node", "dev"].contains(&args[0]);
        assert!(is_node || !err(&output).contains("error:"), "{args:?}: it is told once: {}", err(&output));
    }
    let flag = out(&aop(&["find", "--json", "--tga", "x"]));
    assert!(flag.contains("--tga") && flag.contains("--tag") && !flag.contains("as a value"), "{flag}");
}

/// As [`error_code`], where the sentence may say what to do itself.
fn error_code_of(body: &str) -> String {
    let body: ErrorBody = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
    assert!(!body.error.message.is_empty(), "{body:?}");
    body.error.code.text().into()
}

#[test]
fn a_missing_key_is_told_with_how_it_comes_about() {
    let folder = tempfile::tempdir().unwrap();
    let own = aop_in(folder.path(), &["keys", "show", "--data-dir", "d"], &[]);
    assert_eq!(code(&own), 1);
    assert!(err(&own).contains("run `aop node` once") && !err(&own).contains("chmod"), "{}", err(&own));
    for args in [
        &["keys", "show", "owner.key"][..],
        &["keys", "grant", "--key", "owner.key", "--to", "x", "--zone", "."],
    ] {
        let other = aop_in(folder.path(), args, &[]);
        assert_eq!(code(&other), 1);
        assert!(err(&other).contains("`aop keys new --out owner.key`"), "{}", err(&other));
        assert!(!err(&other).contains("--identity") && !err(&other).contains("chmod"), "{}", err(&other));
    }
}

/// A started client, to be waited for.
struct Waiting(std::process::Child);

impl Waiting {
    fn start(args: &[&str]) -> Waiting {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aop"));
        command.args(args).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Waiting(command.spawn().unwrap())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(unix)]
#[test]
fn a_call_that_is_interrupted_says_what_became_of_it() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    for (json, place) in [(None, 1), (Some("--json"), 0)] {
        let args = ["call", "sleeper", "--node", &url];
        let mut call = Waiting::start(&[&args[..], json.as_slice()].concat());
        // Its request is there: it waits for the answer.
        let (mut asked, _) = silent.accept().unwrap();
        asked.read_exact(&mut [0; 4]).unwrap();
        let pid = call.0.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        assert_eq!(call.0.wait().unwrap().code(), Some(130));
        let (mut out, mut err) = (String::new(), String::new());
        call.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        call.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        let told = [out, err];
        assert!(
            told[place].contains("was interrupted") && told[place].contains("look before you call again"),
            "{told:?}"
        );
        assert!(told[1 - place].is_empty(), "{told:?}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_watch_ends_well_when_nobody_reads_it_any_more() {
    let served = serve(None).await;
    let url = served.server.url();
    let ended = tokio::task::spawn_blocking(move || {
        let mut watch = Waiting::start(&["watch", "--node", &url]);
        let mut told = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(watch.0.stderr.take().unwrap()), &mut told)
            .unwrap();
        assert!(told.contains("watching"), "{told}");
        // As `head` does; nothing happens in this world that would make it write.
        drop(watch.0.stdout.take());
        watch.0.wait().unwrap().code()
    });
    assert_eq!(tokio::time::timeout(Duration::from_secs(20), ended).await.expect("an end").unwrap(), Some(0));
}

#[tokio::test]
async fn people_read_names_dates_and_how_to_call_and_programs_what_they_always_did() {
    let served = serve(None).await;
    let documents = serde_json::json!([
        {"agent": {"name": "summarizer", "description": "Summarises a document", "tags": ["text"]}},
        {"agent": {"name": "storage", "description": "Keeps a document of a customer"}},
        {"agent": {"name": "echo", "description": "Gives a text back"}},
        {"name": "Ledger Helper", "protocolVersion": "0.3.0", "description": "General purpose", "url": "https://a.example",
         "version": "1", "capabilities": {}, "skills": [
            {"id": "s1", "name": "convertUnits", "description": "Turns invoices into spreadsheets", "tags": [],
             "examples": ["make an xlsx of my receipts"]}]},
    ]);
    assert_eq!(ask(served.addr, "POST /v1/agents", &[HOST, JSON], &documents.to_string()).await.0, 200);
    let url = served.server.url();
    let run = async |args: &[&str]| {
        let args: Vec<String> =
            args.iter().map(|arg| arg.to_string()).chain(["--node".into(), url.clone()]).collect();
        let aop = move || aop(&args.iter().map(String::as_str).collect::<Vec<_>>());
        tokio::task::spawn_blocking(aop).await.unwrap()
    };
    let found = run(&["find", "summarise a document"]).await;
    assert_eq!((code(&found), out(&found).lines().count()), (0, 1), "{}", out(&found));
    assert!(out(&found).starts_with("summarizer\t"), "{}", out(&found));
    assert!(err(&found).contains("left out: 1 that match far less; --json has them"), "{}", err(&found));
    let whole: Value =
        serde_json::from_str(&out(&run(&["find", "summarise a document", "--json"]).await)).unwrap();
    let names: Vec<_> = whole["results"].as_array().unwrap().iter().map(|agent| &agent["agent"]).collect();
    assert_eq!(names, ["summarizer@.", "storage@."]);
    for word in ["invoices", "spreadsheets", "receipts", "xlsx", "units", "convertunits"] {
        let found = run(&["find", word]).await;
        assert!(out(&found).starts_with("Ledger Helper (ledger-helper"), "{word}: {}", out(&found));
    }
    for name in ["summarizer", "summarizer@.", "Ledger Helper"] {
        let shown = run(&["show", name]).await;
        assert_eq!(code(&shown), 0, "{name}: {}", err(&shown));
        let text = out(&shown);
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(&format!("{name}\t"))).unwrap_or_default()
        };
        assert!(field("expires").starts_with("in 6 d 23 h, 20") && field("expires").ends_with('Z'), "{text}");
        assert!(field("written").contains(" ago, 20") && field("written").contains("version "), "{text}");
        assert!(!text.contains("@."), "{text}");
    }
    let missed = run(&["show", "summarizr"]).await;
    assert_eq!(code(&missed), 3);
    assert!(
        err(&missed).contains("did you mean summarizer?") && !err(&missed).contains("  or:"),
        "{}",
        err(&missed)
    );
    let status = run(&["status"]).await;
    let fingerprint =
        out(&status).lines().find_map(|line| line.strip_prefix("fingerprint\t. ").map(str::to_owned));
    let fingerprint = fingerprint.unwrap_or_else(|| panic!("{}", out(&status)));
    assert_eq!(fingerprint.split(" as of 20").next().unwrap().len(), 12, "{fingerprint}");
    let typo = run(&["find", "summarizer", "--zone", "acme.org"]).await;
    // The root is whole, and delegates no such zone.
    assert_eq!(code(&typo), 0, "{}", err(&typo));
    assert!(
        err(&typo).contains("nobody serves the zone acme.org") && err(&typo).contains("held here: ."),
        "{}",
        err(&typo)
    );
    for args in [&["agents", "--zone", "acme.org"][..], &["find", "--local", "--zone", "acme.org"]] {
        let typo = run(args).await;
        assert_eq!(code(&typo), 5, "{args:?}");
        assert!(err(&typo).contains("nothing of acme.org is held here"), "{}", err(&typo));
        assert!(err(&typo).contains("held here: ."), "{}", err(&typo));
    }
}

#[test]
fn a_flag_wins_over_the_variable_for_the_address_of_the_node() {
    let (flag, variable) = (closed_port(), "http://127.0.0.1:1");
    let output = aop_in(Path::new("."), &["status", "--node", &flag], &[("AOP_NODE", variable)]);
    assert!(err(&output).contains(&flag), "{}", err(&output));
}

#[test]
fn a_wrong_configuration_is_shown_with_file_line_key_and_fix() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bad.toml"), "network = \"lab\"\n\nzonse = [\".\"]\n").unwrap();
    let output = aop_in(folder.path(), &["config", "check", "bad.toml"], &[]);
    assert_eq!(code(&output), 2);
    for part in ["bad.toml:3:1", "`zonse`", "did you mean `zones`?"] {
        assert!(err(&output).contains(part), "{part} in {}", err(&output));
    }
    assert!(!err(&output).contains('\u{1b}'), "no colours away from a terminal");
    let started = aop_in(folder.path(), &["node", "--config", "bad.toml", "--data-dir", "data"], &[]);
    assert_eq!(code(&started), 2);
    assert!(!folder.path().join("data").exists(), "nothing was made");
}

#[test]
fn right_files_pass_the_check_and_one_wrong_file_does_not_hide_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("good.toml", "network = \"lab\"\n");
    write("agent.toml", "[agent]\nname = \"a\"\ndescription = \"d\"\n[agent.run]\nbuiltin = \"echo\"\n");
    write(
        "wrong-agent.toml",
        "[agent]\nname = \"a\"\ndescription = \"d\"\ntgas = []\n[agent.run]\nbuiltin = \"echo\"\n",
    );
    let good = aop_in(folder.path(), &["config", "check", "good.toml", "agent.toml"], &[]);
    assert_eq!(code(&good), 0, "{}", err(&good));
    let mixed =
        aop_in(folder.path(), &["config", "check", "wrong-agent.toml", "missing.toml", "good.toml"], &[]);
    assert_eq!(code(&mixed), 2);
    for part in ["wrong-agent.toml:4", "missing.toml", "good.toml: ok"] {
        assert!(err(&mixed).contains(part), "{part} in {}", err(&mixed));
    }
}

#[test]
fn config_show_names_the_origin_of_every_value() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("aop.toml"),
        "network = \"lab\"\nname = \"a\"\n[http]\naddr = \"[::1]:0\"\n",
    )
    .unwrap();
    let args = ["config", "show", "--config", "aop.toml", "--zone", "acme.org", "--json"];
    let output = aop_in(folder.path(), &args, &[("AOP_NAME", "b"), ("AOP_DATA_DIR", "/d")]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let shown: Value = serde_json::from_str(&out(&output)).unwrap();
    let setting = |key: &str| {
        let all = shown["settings"].as_array().unwrap();
        let found = all.iter().find(|setting| setting["key"] == key).unwrap();
        (found["value"].clone(), found["origin"].as_str().unwrap().to_string())
    };
    assert_eq!(setting("zones"), (serde_json::json!(["acme.org"]), "--zone".into()));
    assert_eq!(setting("name"), ("b".into(), "AOP_NAME".into()));
    assert_eq!(setting("network"), ("lab".into(), "aop.toml:1".into()));
    assert_eq!(setting("http.addr"), ("[::1]:0".into(), "aop.toml:4".into()));
    assert_eq!(setting("identity"), ("/d/node.key".into(), "default".into()));
    let plain = aop_in(folder.path(), &args[..6], &[]);
    assert!(out(&plain).contains("zones\tacme.org\t--zone\n"), "{}", out(&plain));
}

#[test]
fn a_key_is_made_shown_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let made = aop_in(folder.path(), &["keys", "new", "--out", "owner.key"], &[]);
    assert_eq!(code(&made), 0, "{}", err(&made));
    assert!(out(&made).starts_with("12D3KooW"));
    let shown = aop_in(folder.path(), &["keys", "show", "owner.key"], &[]);
    assert_eq!(out(&shown), out(&made));
    let again = aop_in(folder.path(), &["keys", "new", "--out", "owner.key"], &[]);
    assert_eq!(code(&again), 1);
    assert!(err(&again).contains("exists already"), "{}", err(&again));
    assert_eq!(out(&aop_in(folder.path(), &["keys", "show", "owner.key"], &[])), out(&made));
}

#[test]
fn a_taken_port_is_told_in_one_sentence_with_the_fix() {
    let folder = tempfile::tempdir().unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = socket.local_addr().unwrap().to_string();
    for args in [&["node", "--http", &taken, "--data-dir", "d"][..], &["dev", "--http", &taken]] {
        let output = aop_in(folder.path(), args, &[]);
        assert_eq!(code(&output), 1, "{}", err(&output));
        assert!(
            err(&output).contains("is taken") && err(&output).contains("--http 127.0.0.1:0"),
            "{}",
            err(&output)
        );
    }
    assert!(!folder.path().join("d").exists(), "nothing was made");
}

#[cfg(unix)]
#[test]
fn a_token_file_that_others_can_read_is_refused_as_a_key_is() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "secret").unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).unwrap();
    let file = token.to_str().unwrap();
    let data = folder.path().join("data");
    let node =
        ["node", "--http", "127.0.0.1:0", "--http-token-file", file, "--data-dir", data.to_str().unwrap()];
    let refused = |help: &str| {
        for command in [&node[..], &["find", "x", "--http-token-file", file]] {
            let output = aop(command);
            assert_eq!(output.status.code(), Some(2), "{command:?}: {}", err(&output));
            assert!(err(&output).contains(help), "{}", err(&output));
        }
    };
    refused(&format!("others can read the token file {file} (mode 644): run `chmod 600 {file}`"));
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    refused("can be guessed: make one with `openssl rand -hex 32");
    assert!(!data.exists());
}

#[test]
fn an_open_address_without_a_token_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = aop_in(folder.path(), &["node", "--http", "0.0.0.0:0", "--data-dir", "d"], &[]);
    assert_eq!(code(&output), 2, "{}", err(&output));
    assert!(err(&output).contains("--http-token-file"), "{}", err(&output));
}

/// The HTTP API of a lone node.
struct Served {
    addr: SocketAddr,
    _node: host::Running,
    server: http::Server,
    _folder: tempfile::TempDir,
}

async fn serve(token: Option<&str>) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let options = host::Options::new(Identity::from_seed([7; 32]), "test", folder.path());
    let node = host::start(options).await.unwrap();
    let token = token.map(|token| http::Token::parse(token).unwrap());
    let settings = http::Settings {
        addr: "127.0.0.1:0".parse().unwrap(),
        names: vec!["a.example".into()],
        trusted_nets: TrustedNets::default(),
        token,
        registry: http::RegistryAccess::Own,
    };
    let server = http::bind(settings).await.unwrap().serve(node.handle.clone());
    let addr = server.url().strip_prefix("http://").unwrap().parse().unwrap();
    Served { addr, _node: node, server, _folder: folder }
}

/// Sends bytes, returns status and body.
async fn send(addr: SocketAddr, request: Vec<u8>) -> (u16, String) {
    let exchange = move || {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.write_all(&request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = tokio::task::spawn_blocking(exchange).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_string())
}

async fn ask(addr: SocketAddr, line: &str, headers: &[&str], body: &str) -> (u16, String) {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    let head = format!("{line} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n");
    send(addr, [head.as_bytes(), body.as_bytes()].concat()).await
}

/// The code of an error, which must have the shape of all errors.
fn error_code(body: &str) -> String {
    let body: ErrorBody = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
    assert!(!body.error.message.is_empty() && !body.error.fix.is_empty(), "{body:?}");
    body.error.code.text().into()
}

const HOST: &str = "Host: localhost";
const JSON: &str = "Content-Type: application/json";

/// A grant of another owner to the node of [`serve`], for so many milliseconds from now on.
fn grant_for(life_ms: u64) -> String {
    let owner = Identity::from_seed([9; 32]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let grant = Grant {
        network: "test".into(),
        issuer: owner.key(),
        subject: Identity::from_seed([7; 32]).key(),
        zone: ZoneName::root(),
        reach: Reach::Zone,
        kinds: vec![RecordKind::Agent],
        may_delegate: false,
        issued_at: Timestamp(now),
        expires_at: Timestamp(now + life_ms),
        generation: 0,
        slots: None,
    };
    data_encoding::BASE64.encode(&grant.sign(&owner))
}

/// Two owners have an agent of one name here, until the grant of one ends: then its offer cannot be withdrawn.
#[tokio::test]
async fn a_write_that_is_refused_says_whose_fault_it_is_and_what_to_do() {
    let served = serve(None).await;
    let documents = serde_json::json!([
        {"agent": {"name": "a", "description": "for another", "grants": [grant_for(2_000)]}},
        {"agent": {"name": "a2", "description": "too late", "grants": [grant_for(0)]}},
        {"agent": {"name": "b", "description": "elsewhere", "zone": "acme.org"}},
    ]);
    let (status, body) = ask(served.addr, "POST /v1/agents", &[HOST, JSON], &documents.to_string()).await;
    let answer: RegisterAnswer = serde_json::from_str(&body).unwrap();
    let codes: Vec<&str> = answer.refused.iter().map(|refused| refused.code.text()).collect();
    assert_eq!((status, codes), (200, vec!["bad_grant", "zone_not_served"]), "{body}");
    let own = serde_json::json!({"agent": {"name": "a", "description": "my own"}}).to_string();
    assert_eq!(ask(served.addr, "POST /v1/agents", &[HOST, JSON], &own).await.0, 200);

    let withdraw = || ask(served.addr, "DELETE /v1/agents/a", &[HOST], "");
    let (status, body) = withdraw().await;
    assert_eq!((status, error_code(&body).as_str()), (409, "ambiguous"));
    // The grant ends after two seconds; a clock tells nobody, so it is asked, with a deadline.
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut ended = withdraw().await;
    while ended.0 == 409 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
        ended = withdraw().await;
    }
    assert_eq!((ended.0, error_code(&ended.1).as_str()), (403, "bad_lease"), "{}", ended.1);
    assert!(ended.1.contains("aop keys grant"), "{}", ended.1);
}

#[tokio::test]
async fn a_status_counts_authors_and_names_them_only_where_it_is_asked_to() {
    let served = serve(None).await;
    let own = serde_json::json!({"agent": {"name": "a", "description": "my own"}}).to_string();
    assert_eq!(ask(served.addr, "POST /v1/agents", &[HOST, JSON], &own).await.0, 200);
    let zone = async |line: &str| {
        let (status, text) = ask(served.addr, line, &[HOST], "").await;
        assert_eq!(status, 200, "{text}");
        serde_json::from_str::<Value>(&text).unwrap()["zones"][0].clone()
    };
    for line in ["GET /v1/status", "GET /v1/status?vector=0"] {
        let zone = zone(line).await;
        assert_eq!((&zone["authors"], zone.get("version_vector")), (&1.into(), None), "{line}");
        assert_eq!(zone["fingerprint"].as_str().unwrap().len(), 64, "{line}");
    }
    let versions = zone("GET /v1/status?vector=1").await["version_vector"].clone();
    assert_eq!(versions.as_object().unwrap().values().collect::<Vec<_>>(), [&Value::from(1)]);
    let (_, text) = ask(served.addr, "GET /v1/status?vectors=1", &[HOST], "").await;
    assert_eq!(error_code(&text), "bad_request");
    let (_, metrics) = ask(served.addr, "GET /metrics", &[HOST], "").await;
    assert!(metrics.contains("aop_registry_authors{zone=\".\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn an_owner_is_trusted_listed_and_forgotten_under_a_name() {
    let served = serve(None).await;
    let owner = Identity::from_seed([9; 32]).key().to_string();
    let body = serde_json::json!({ "owner": owner }).to_string();
    let (status, text) = ask(served.addr, "PUT /v1/owners/summarizer", &[HOST, JSON], &body).await;
    let trusted: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (status, &trusted["name"], &trusted["owner"]),
        (200, &"summarizer@.".into(), &owner.clone().into())
    );
    assert_eq!((&trusted["by"], &trusted["bare"]), (&"operator".into(), &true.into()));
    let (_, text) = ask(served.addr, "GET /v1/owners", &[HOST], "").await;
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), serde_json::json!({ "owners": [trusted] }));
    for (line, body, status, code) in [
        ("PUT /v1/owners/no%20name", body.as_str(), 400, "bad_name"),
        ("PUT /v1/owners/summarizer", r#"{"owner":"nobody"}"#, 400, "bad_request"),
        ("PUT /v1/owners/summarizer", r#"{"owners":"x"}"#, 400, "bad_request"),
        ("DELETE /v1/owners/painter", "", 404, "not_found"),
    ] {
        let (given, text) = ask(served.addr, line, &[HOST, JSON], body).await;
        assert_eq!((given, error_code(&text).as_str()), (status, code), "{line}: {text}");
    }
    let node = format!("http://{}", served.addr);
    let aop = async |args: &'static [&str], last: Option<String>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aop"));
        command.arg("owner").args(args).args(last).args(["--node", &node]);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    };
    let listed = aop(&["list"], None).await;
    assert_eq!(String::from_utf8_lossy(&listed.stdout), format!("summarizer@.\t{owner}\toperator\tbare\n"));
    assert_eq!(aop(&["forget", "summarizer"], None).await.status.code(), Some(0));
    assert_eq!(aop(&["forget", "summarizer"], None).await.status.code(), Some(3));
    let trusted = aop(&["trust", "painter@."], Some(owner.clone())).await;
    assert_eq!(String::from_utf8_lossy(&trusted.stdout), format!("painter@.\t{owner}\toperator\t-\n"));
}

#[tokio::test]
async fn every_route_is_guarded_against_foreign_hosts_and_pages() {
    let served = serve(None).await;
    let routes = [
        "GET /v1/find",
        "GET /v1/agents",
        "POST /v1/agents",
        "GET /v1/agents/a@.",
        "DELETE /v1/agents/a@.",
        "GET /v1/queues",
        "GET /v1/queues/a@.",
        "POST /v1/queues/pause",
        "POST /v1/queues/a@./clear",
        "GET /v1/imports",
        "POST /v1/imports",
        "DELETE /v1/imports/https:%2F%2Fa.example",
        "GET /v1/owners",
        "PUT /v1/owners/a@.",
        "DELETE /v1/owners/a@.",
        "GET /v1/zones",
        "POST /v1/zones",
        "DELETE /v1/zones/lab",
        "GET /v1/status",
        "GET /v1/peers",
        "GET /v1/events",
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",
        "GET /openapi.json",
        "GET /nowhere",
    ];
    for route in routes {
        for headers in [
            &["Host: evil.example"][..],
            &[],
            &[HOST, "Origin: http://evil.example"],
            &[HOST, "Origin: null"],
        ] {
            let (status, body) = ask(served.addr, route, headers, "").await;
            assert_eq!((status, error_code(&body).as_str()), (403, "forbidden"), "{route} {headers:?}");
        }
    }
    let own = format!("Origin: http://127.0.0.1:{}", served.addr.port());
    for headers in [&[HOST][..], &["Host: a.example"], &[HOST, &own]] {
        assert_eq!(ask(served.addr, "GET /v1/status", headers, "").await.0, 200, "{headers:?}");
    }
}

#[tokio::test]
async fn a_token_is_asked_for_everywhere_but_on_health() {
    let served = serve(Some("s3cret")).await;
    for route in ["GET /v1/status", "GET /metrics", "DELETE /v1/agents/a@.", "GET /nowhere"] {
        for headers in
            [&[HOST][..], &[HOST, "Authorization: Bearer wrong"], &[HOST, "Authorization: Basic s3cret"]]
        {
            let (status, body) = ask(served.addr, route, headers, "").await;
            assert_eq!((status, error_code(&body).as_str()), (401, "unauthorized"), "{route} {headers:?}");
            assert_eq!(body.contains("none was sent"), headers.len() == 1, "{body}");
        }
    }
    assert_eq!(ask(served.addr, "GET /v1/status", &[HOST, "Authorization: Bearer s3cret"], "").await.0, 200);
    assert_eq!(ask(served.addr, "GET /healthz", &[HOST], "").await.0, 200);
    let url = served.server.url();
    let client = |token: &'static str| {
        let url = url.clone();
        tokio::task::spawn_blocking(move || {
            code(&aop_in(Path::new("."), &["status", "--node", &url], &[("AOP_TOKEN", token)]))
        })
    };
    assert_eq!(client("s3cret").await.unwrap(), 0);
    assert_eq!(client("wrong").await.unwrap(), 1);
}

#[tokio::test]
async fn every_error_has_a_code_a_message_and_a_fix() {
    let served = serve(None).await;
    for (line, headers, body, status, code) in [
        ("GET /nowhere", &[HOST][..], "", 404, "unknown_route"),
        ("GET /v1/agents/nobody@.", &[HOST], "", 404, "not_found"),
        ("GET /v1/agents/%ff", &[HOST], "", 400, "bad_request"),
        ("DELETE /v1/status", &[HOST], "", 405, "bad_method"),
        ("GET /v1/find?limit=x", &[HOST], "", 400, "bad_request"),
        ("GET /v1/queues/nobody@.", &[HOST], "", 404, "not_found"),
        ("POST /v1/queues/nobody@./pause", &[HOST, JSON], "", 404, "not_found"),
        ("POST /v1/queues/pause", &[HOST], "", 415, "bad_request"),
        ("POST /v1/queues/nobody@./halt", &[HOST, JSON], "", 404, "unknown_route"),
        ("POST /v1/queues/halt", &[HOST, JSON], "", 404, "unknown_route"),
        ("DELETE /v1/queues/nobody@.", &[HOST], "", 405, "bad_method"),
        ("POST /v1/agents", &[HOST], "{}", 415, "bad_request"),
        ("POST /v1/agents", &[HOST, "Content-Type: text/plain"], "{}", 415, "bad_request"),
        ("POST /v1/agents?zone=NotAZone", &[HOST, JSON], "{}", 400, "bad_request"),
        ("POST /v1/agents", &[HOST, JSON], "", 400, "bad_request"),
        ("POST /v1/zones", &[HOST, JSON], r#"{"zone":"lab","role":"below"}"#, 400, "bad_request"),
        ("POST /v1/zones", &[HOST, JSON], r#"{"zone":"lab","role":"king"}"#, 400, "bad_request"),
        ("POST /v1/zones", &[HOST, JSON], r#"{"zone":"lab","rolle":"member"}"#, 400, "bad_request"),
        ("POST /v1/zones", &[HOST, JSON], r#"{"zone":"xn--lab"}"#, 400, "bad_request"),
        ("DELETE /v1/zones/xn--lab", &[HOST], "", 400, "bad_request"),
        ("DELETE /v1/zones/%ff", &[HOST], "", 400, "bad_request"),
        ("DELETE /v1/zones/lab", &[HOST], "", 409, "zone_not_served"),
        ("DELETE /v1/zones/.", &[HOST], "", 409, "conflict"),
        ("DELETE /v1/zones/", &[HOST], "", 409, "conflict"),
        ("PUT /v1/zones/lab", &[HOST, JSON], "{}", 405, "bad_method"),
    ] {
        let (got, answer) = ask(served.addr, line, headers, body).await;
        assert_eq!((got, error_code(&answer).as_str()), (status, code), "{line}");
    }
    let (_, answer) = ask(served.addr, "POST /v1/agents", &[HOST, JSON], "[1,\n 2,,]").await;
    assert!(answer.contains("line 2 column 4"), "{answer}");
}

#[tokio::test]
async fn a_node_joins_so_many_zones_and_no_more() {
    let served = serve(None).await;
    let join = async |zone: &str| {
        let body = serde_json::json!({ "zone": zone }).to_string();
        ask(served.addr, "POST /v1/zones", &[HOST, JSON], &body).await
    };
    for number in 0..64 {
        let (status, answer) = join(&format!("z{number}")).await;
        assert_eq!(status, 200, "{answer}");
    }
    let (status, answer) = join("one-more").await;
    assert_eq!((status, error_code(&answer).as_str()), (413, "too_large"), "{answer}");
    assert!(answer.contains("64"), "{answer}");
    assert_eq!(join("z7").await.0, 200, "it is joined already");
    assert_eq!(join(".").await.0, 200, "the settings name it");
    assert_eq!(ask(served.addr, "DELETE /v1/zones/z7", &[HOST], "").await.0, 200);
    assert_eq!(join("one-more").await.0, 200);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_even_while_it_is_still_sent() {
    let served = serve(None).await;
    let large = format!("[\"{}\"]", " ".repeat(60 * 1024 * 1024));
    let (status, body) = ask(served.addr, "POST /v1/agents", &[HOST, JSON], &large).await;
    assert_eq!((status, error_code(&body).as_str()), (413, "too_large"));
}

#[tokio::test]
async fn a_mixed_request_is_answered_with_the_positions_of_what_was_refused() {
    let served = serve(None).await;
    let agent = |name: &str| {
        format!(r#"{{"agent":{{"name":"{name}","description":"d","run":{{"builtin":"echo"}}}}}}"#)
    };
    let body = format!("[{}, 7, {}, {}]", agent("a"), agent("NOT A NAME"), agent("b"));
    let (status, answer) =
        ask(served.addr, "POST /v1/agents", &[HOST, "Content-Type: application/json; charset=utf-8"], &body)
            .await;
    assert_eq!(status, 200, "{answer}");
    let answer: RegisterAnswer = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer.registered.iter().map(|done| done.agent.as_str()).collect::<Vec<_>>(), ["a@.", "b@."]);
    assert_eq!(answer.refused.iter().map(|refused| refused.index).collect::<Vec<_>>(), [1, 2]);
    let shown = ask(served.addr, "GET /v1/agents/a@.", &[HOST], "").await;
    assert_eq!(shown.0, 200, "{}", shown.1);
    assert_eq!(ask(served.addr, "DELETE /v1/agents/a%40.", &[HOST], "").await.0, 200);
    assert_eq!(ask(served.addr, "GET /v1/agents/a@.", &[HOST], "").await.0, 404);
}

#[tokio::test]
async fn register_says_which_document_of_which_file_was_refused() {
    let served = serve(None).await;
    let folder = tempfile::tempdir().unwrap();
    let agent = r#"{"agent":{"name":"a","description":"d","run":{"builtin":"echo"}}}"#;
    std::fs::write(folder.path().join("one.json"), agent).unwrap();
    std::fs::write(
        folder.path().join("mixed.json"),
        format!("[{}, {{\"x\":1}}]", agent.replace("\"a\"", "\"b\"")),
    )
    .unwrap();
    std::fs::write(folder.path().join("broken.json"), "{").unwrap();
    let url = served.server.url();
    let run = |files: &'static [&'static str]| {
        let (folder, url) = (folder.path().to_path_buf(), url.clone());
        tokio::task::spawn_blocking(move || {
            aop_in(&folder, &[&["register", "--json", "--node", &url], files].concat(), &[])
        })
    };
    let good = run(&["one.json"]).await.unwrap();
    assert_eq!(code(&good), 0, "{}", err(&good));
    let mixed = run(&["broken.json", "one.json", "mixed.json"]).await.unwrap();
    assert_eq!(code(&mixed), 1);
    assert!(err(&mixed).contains("mixed.json[1]") && err(&mixed).contains("broken.json"), "{}", err(&mixed));
    let told: Value = serde_json::from_str(&out(&mixed)).unwrap();
    assert_eq!(told["registered"].as_array().unwrap().len(), 2);
    let refused: Vec<_> = told["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|refused| (&refused["file"], &refused["index"]))
        .collect();
    assert_eq!(refused, [(&"broken.json".into(), &0.into()), (&"mixed.json".into(), &1.into())]);
}

#[tokio::test]
async fn an_unknown_agent_exits_3() {
    let served = serve(None).await;
    let url = served.server.url();
    let output =
        tokio::task::spawn_blocking(move || aop(&["show", "nobody@.", "--node", &url])).await.unwrap();
    assert_eq!(code(&output), 3, "{}", err(&output));
}

#[tokio::test]
async fn events_are_streamed_and_end_with_the_server() {
    let served = serve(None).await;
    let mut stream = TcpStream::connect(served.addr).unwrap();
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = vec![0; 4096];
    let (mut stream, mut answer) = tokio::task::spawn_blocking(move || {
        // The head comes at once, and with it the subscription.
        let size = stream.read(&mut answer).unwrap();
        answer.truncate(size);
        (stream, answer)
    })
    .await
    .unwrap();
    let agent = r#"{"agent":{"name":"a","description":"d","run":{"builtin":"echo"}}}"#;
    assert_eq!(ask(served.addr, "POST /v1/agents", &[HOST, JSON], agent).await.0, 200);
    let rest = tokio::task::spawn_blocking(move || {
        let mut rest = Vec::new();
        while !String::from_utf8_lossy(&rest).contains("agent_changed") {
            let mut chunk = [0; 4096];
            let size = stream.read(&mut chunk).unwrap();
            assert!(size > 0, "the stream ended early");
            rest.extend_from_slice(&chunk[..size]);
        }
        (stream, rest)
    });
    let (mut stream, rest) = rest.await.unwrap();
    answer.extend(rest);
    let text = String::from_utf8(answer).unwrap();
    assert!(
        text.contains("content-type: text/event-stream")
            && text.contains("data: {\"event\":\"agent_changed\""),
        "{text}"
    );
    served.server.stop().await;
    tokio::task::spawn_blocking(move || stream.read_to_end(&mut Vec::new()).unwrap()).await.unwrap();
}

#[tokio::test]
async fn the_description_of_the_api_lists_routes_that_exist() {
    let served = serve(None).await;
    let (_, text) = ask(served.addr, "GET /openapi.json", &[HOST], "").await;
    let description: Value = serde_json::from_str(&text).unwrap();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys().filter(|_| path != "/v1/events") {
            let line = format!("{} {}", method.to_uppercase(), path.replace("{agent}", "nobody@."));
            let (status, body) = ask(served.addr, &line, &[HOST, JSON], "").await;
            assert!(status != 405 && !body.contains("unknown_route"), "{line}: {status} {body}");
            for response in methods[method]["responses"].as_object().unwrap().values() {
                let is_error = response["$ref"] == "#/components/responses/Error";
                let response =
                    if is_error { &description["components"]["responses"]["Error"] } else { response };
                assert!(response["headers"]["x-request-id"].is_object(), "{line}: {response}");
            }
        }
    }
}

/// A started process that prints a ready line; killed when dropped.
pub(crate) struct Started {
    child: std::process::Child,
    pub(crate) ready: Value,
}

pub(crate) fn start(folder: &Path, args: &[&str]) -> Started {
    let mut child = Command::new(env!("CARGO_BIN_EXE_aop"))
        .args(args)
        .current_dir(folder)
        .env_clear()
        .env("TMPDIR", folder)
        // Programs of agents are looked up there.
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
        .unwrap();
    Started { child, ready: serde_json::from_str(&line).unwrap() }
}

impl Started {
    /// Sends a signal and waits for the exit code.
    fn end(mut self, signal: &str) -> i32 {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(unix)]
#[test]
fn dev_is_a_tree_of_three_zones_that_is_found_whole_at_once_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let started = start(folder.path(), &["dev", "--http", "127.0.0.1:0", "--json"]);
    let url = started.ready["http"].as_str().unwrap().to_string();
    let asked = |args: &[&str]| {
        let output = aop(&[args, &["--json", "--node", &url]].concat());
        assert_eq!(code(&output), 0, "{args:?}: {}{}", out(&output), err(&output));
        serde_json::from_str::<Value>(&out(&output)).unwrap()
    };
    let found = asked(&["find", "--limit", "100"]);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let names = |rows: &Value, field: &str| {
        let rows = rows.as_array().unwrap().iter();
        rows.map(|row| row[field].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let zones = [".", "acme.org", "research.acme.org"];
    assert_eq!((&found["complete"], found["results"].as_array().unwrap().len()), (&json!(true), 12));
    assert_eq!(names(&found["zones"], "zone"), zones);
    let agents = names(&found["results"], "agent");
    for zone in zones {
        assert!(agents.iter().any(|agent| agent.split_once('@').unwrap().1 == zone), "{zone}: {agents:?}");
    }
    let tree = asked(&["zones"]);
    assert_eq!(names(&tree["zones"], "zone"), zones);
    assert_eq!(names(&tree["zones"], "role"), ["member", "below", "below"]);

    let detail = asked(&["show", "translator"]);
    assert_ne!(detail["replicas"][0]["peer"], started.ready["peer_id"], "it lies on another node");
    let called = asked(&["call", "headline-writer@research.acme.org", "--task", "agents find agents"]);
    assert_eq!(called["result"], "AGENTS FIND AGENTS");
    let told = err(&aop(&["find", "-v", "--zone", "acme.org", "--node", &url]));
    assert!(told.contains("this node") && told.contains("research.acme.org"), "{told}");
    assert_eq!(started.end("-TERM"), 0);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "no temporary folder stays");
}

#[cfg(unix)]
#[test]
fn a_node_describes_itself_in_its_data_folder_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let args =
        ["node", "--json", "--data-dir", "d", "--http", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"];
    let started = start(folder.path(), &args);
    let file = folder.path().join("d/node.json");
    let mut expected = started.ready.clone();
    expected["pid"] = started.child.id().into();
    let described: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(described, expected);
    let second = aop_in(folder.path(), &[&args[..], &["--zone", "."]].concat(), &[]);
    assert_eq!(code(&second), 1, "{}", err(&second));
    assert!(file.exists(), "a refused second node leaves the file of the first");
    assert_eq!(started.end("-INT"), 0);
    assert!(!file.exists());
}

/// Sockets that sent `bytes` and say nothing more.
fn silent(addr: SocketAddr, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let open = |_| {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    };
    (0..count).map(open).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_nothing_keep_nobody_from_an_answer() {
    let served = serve(Some("s3cret")).await;
    let held = silent(served.addr, 1_100, b"");
    let partial = silent(served.addr, 100, b"GET /healthz HTTP/1.1\r\nHost: loc");
    for _ in 0..3 {
        let asked = ask(served.addr, "GET /healthz", &[HOST], "");
        let (status, _) = tokio::time::timeout(Duration::from_secs(3), asked).await.expect("an answer");
        assert_eq!(status, 200);
    }
    drop((held, partial));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_closed_when_no_further_request_comes() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let served = serve(None).await;
    for asked in ["", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        let mut stream = tokio::net::TcpStream::connect(served.addr).await.unwrap();
        stream.write_all(asked.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
        closed.expect("it is closed").unwrap();
        assert_eq!(answer.starts_with(b"HTTP/1.1 200"), !asked.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_does_not_come_holds_up_nobody_and_is_refused_soon() {
    let served = serve(None).await;
    let head = |path: &str| {
        format!("POST {path} HTTP/1.1\r\n{HOST}\r\n{JSON}\r\nContent-Length: 1000\r\n\r\n{{").into_bytes()
    };
    let mut held = silent(served.addr, 600, &head("/v1/call/x"));
    held.extend(silent(served.addr, 8, &head("/v1/agents")));
    held.extend(silent(served.addr, 40, &head("/mcp")));
    let asked = ask(served.addr, "GET /v1/status", &[HOST], "");
    assert_eq!(tokio::time::timeout(Duration::from_secs(3), asked).await.expect("an answer").0, 200);
    let document =
        serde_json::json!({"agent": {"name": "a", "description": "beside slow uploads"}}).to_string();
    let registered = ask(served.addr, "POST /v1/agents", &[HOST, JSON], &document);
    assert_eq!(tokio::time::timeout(Duration::from_secs(3), registered).await.expect("an answer").0, 200);
    let mut last = held.pop().unwrap();
    last.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let refused = tokio::task::spawn_blocking(move || {
        let mut answer = [0; 2_000];
        let read = last.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..read]).into_owned()
    });
    let refused = refused.await.unwrap();
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("timed_out"), "{refused}");
    let (_, metrics) = ask(served.addr, "GET /metrics", &[HOST], "").await;
    assert!(metrics.contains("aop_http_refused_total{reason=\"body_late\"}"), "{metrics}");
}

#[tokio::test]
async fn a_head_that_is_too_long_or_names_two_lengths_is_refused() {
    let served = serve(None).await;
    let post = |headers: &str| {
        format!("POST /v1/agents HTTP/1.1\r\n{HOST}\r\n{JSON}\r\n{headers}\r\n0\r\n\r\n").into_bytes()
    };
    let (length, chunks) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
    for headers in [format!("{length}{chunks}"), format!("{chunks}{length}")] {
        let (status, body) = send(served.addr, post(&headers)).await;
        assert_eq!((status, error_code(&body).as_str()), (400, "bad_request"), "{headers}");
    }
    // Chunks alone are fine, and what is wrong with the document is said.
    let (status, body) = send(served.addr, post(chunks)).await;
    assert_eq!((status, error_code(&body).as_str()), (400, "bad_request"));
    assert!(body.contains("not JSON"), "{body}");
    let long = format!("X: {}", "y".repeat(70_000));
    let (status, body) = ask(served.addr, "GET /v1/status", &[HOST, &long], "").await;
    assert_eq!(status, 431, "{body}");
}

#[tokio::test]
async fn refusals_of_mcp_are_json_as_all_errors() {
    let served = serve(None).await;
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    for (headers, body, status) in [
        (&[HOST, JSON, "Accept: text/html"][..], ping, 406),
        (&[HOST, JSON, "Accept: application/json, text/event-stream"], "[1]", 415),
        (&[HOST, "Content-Type: text/plain"], ping, 415),
    ] {
        let (got, answer) = ask(served.addr, "POST /mcp", headers, body).await;
        assert_eq!((got, error_code(&answer).as_str()), (status, "bad_request"), "{headers:?} {answer}");
    }
}
