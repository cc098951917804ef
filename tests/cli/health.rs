//! What orchestrators ask of a node, and how it talks to the system's service manager.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::commands::{aop_in, code, err, out};
use super::processes::{Node, PATIENCE, until};

const LISTEN: &str = "/ip4/127.0.0.1/tcp/0";

fn aop(env: &[(&str, &Path)]) -> Command {
    let mut command = Command::new("env");
    command.args(env.iter().map(|(name, value)| format!("{name}={}", value.display())));
    command.arg(env!("CARGO_BIN_EXE_aop"));
    command
}

/// Status and body of a route below `url`.
fn get(url: &str, route: &str) -> (u16, String) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut answer = agent.get(format!("{url}{route}")).call().unwrap();
    (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
}

#[test]
fn health_is_open_and_metrics_only_at_an_address_of_their_own_that_has_nothing_else() {
    let dir = TempDir::new().unwrap();
    let token = dir.path().join("token");
    fs::write(&token, "0123456789abcdef\n").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    // Of a wildcard address the API would demand a token.
    let env = [("AOP_HTTP_TOKEN_FILE", token.as_path()), ("AOP_METRICS_ADDR", Path::new("0.0.0.0:0"))];
    let node = Node::start_by(aop(&env), &dir.path().join("data"), LISTEN, &[]);
    let (api, metrics) = (node.ready.http.as_str(), node.ready.metrics.as_deref().unwrap());
    for (url, route, status) in [
        (api, "/healthz", 200),
        (api, "/readyz", 200),
        (api, "/metrics", 401),
        (metrics, "/healthz", 200),
        (metrics, "/readyz", 200),
        (metrics, "/metrics", 200),
        (metrics, "/", 404),
        (metrics, "/v1/status", 404),
        (metrics, "/v1/agents", 404),
        (metrics, "/mcp", 404),
        (metrics, "/openapi.json", 404),
        (metrics, "/v0.1/servers", 404),
        (metrics, "/a2a", 404),
    ] {
        assert_eq!(get(url, route).0, status, "{url}{route}");
    }
    let text = get(metrics, "/metrics").1;
    assert!(text.contains("\naop_registry_records{"), "{text}");
    // What the API refuses is told here.
    let refused = |text: &str| {
        text.lines().any(|line| line.starts_with("aop_http_refused_total{reason=\"request_head\"} 1"))
    };
    assert!(!refused(&text));
    let mut long = ureq::get(format!("{api}/healthz")).header("x", &"x".repeat(100_000));
    long = long.config().http_status_as_error(false).build();
    _ = long.call();
    assert!(refused(&get(metrics, "/metrics").1), "{}", get(metrics, "/metrics").1);
    // A page of another site, by a name that leads here.
    let foreign = ureq::get(format!("{metrics}/metrics")).header("host", "evil.example").call();
    assert!(matches!(foreign, Err(ureq::Error::StatusCode(403))), "{foreign:?}");
}

#[test]
fn a_port_of_metrics_that_is_taken_is_told_with_its_flag() {
    let dir = TempDir::new().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let data = dir.path().join("data");
    let mut command = Command::new(env!("CARGO_BIN_EXE_aop"));
    command.args(["node", "--http", "127.0.0.1:0", "--listen", LISTEN, "--metrics", &addr]);
    let output = command.arg("--data-dir").arg(&data).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("is taken") && said.contains("--metrics 127.0.0.1:0"), "{said}");
    assert!(!data.exists(), "nothing was written");
}

/// The messages of a node, in order.
struct Manager(UnixDatagram);

impl Manager {
    fn next(&self) -> String {
        let mut message = [0; 1024];
        let length = self.0.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    }

    /// The next that is no sign of life.
    fn next_change(&self) -> String {
        loop {
            let message = self.next();
            if message != "WATCHDOG=1\n" {
                return message;
            }
        }
    }
}

#[test]
fn a_service_manager_is_told_of_a_nodes_life_and_its_agents_are_not_told_of_the_manager() {
    let dir = TempDir::new().unwrap();
    let [socket, agents] = ["notify", "agents"].map(|name| dir.path().join(name));
    fs::create_dir(&agents).unwrap();
    let file = "[agent]\nname = \"surroundings\"\ndescription = \"d\"\n[agent.run]\ncommand = [\"env\"]\n";
    fs::write(agents.join("a.toml"), file).unwrap();
    let manager = Manager(UnixDatagram::bind(&socket).unwrap());
    manager.0.set_read_timeout(Some(PATIENCE)).unwrap();
    let env = [
        ("NOTIFY_SOCKET", socket.as_path()),
        ("WATCHDOG_USEC", Path::new("200000")),
        ("AOP_AGENTS", agents.as_path()),
    ];
    let mut node = Node::start_by(aop(&env), &dir.path().join("data"), LISTEN, &[]);
    assert_eq!(manager.next_change(), "READY=1\n");
    assert_eq!([manager.next(), manager.next()], ["WATCHDOG=1\n"; 2]);
    let called =
        aop_in(Path::new("."), &["call", "surroundings", "--task", "x", "--node", &node.ready.http], &[]);
    let surroundings = out(&called);
    assert!(surroundings.contains("PATH="), "{surroundings} {}", err(&called));
    assert!(!surroundings.contains("NOTIFY") && !surroundings.contains("WATCHDOG"), "{surroundings}");
    node.signal("-HUP");
    let reloading = manager.next_change();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(manager.next_change(), "READY=1\n");
    node.signal("-TERM");
    assert_eq!(manager.next_change(), "STOPPING=1\n");
    assert_eq!(node.child.wait().unwrap().code(), Some(0));
}

/// As where all nodes of a group have one list, which names each of them.
#[test]
fn a_node_that_meets_itself_among_its_bootstrap_peers_says_nothing() {
    let dir = TempDir::new().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let own = [format!("/ip4/127.0.0.1/tcp/{port}"), format!("/dns4/localhost/tcp/{port}")];
    let log = dir.path().join("log");
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" 2>\"$LOG\"", "sh", env!("CARGO_BIN_EXE_aop")]).env("LOG", &log);
    let node = Node::start_by(command, &dir.path().join("data"), &format!("/ip4/0.0.0.0/tcp/{port}"), &own);
    let metrics = || get(&node.ready.http, "/metrics").1;
    until("it knows itself", PATIENCE, || metrics().contains("aop_bootstrap_peers{state=\"self\"} 2\n"));
    let told = get(&node.ready.http, "/v1/status").1;
    assert!(told.contains("\"problems\":[]"), "{told}");
    assert!(metrics().contains("aop_dials_total{result=\"self\"} 2\n"), "{}", metrics());
    assert!(metrics().contains("aop_dials_total{result=\"failed\"} 0\n"), "{}", metrics());
    assert_eq!(fs::read_to_string(&log).unwrap(), "");
}

#[test]
fn each_shell_has_a_script_that_it_reads() {
    let dir = TempDir::new().unwrap();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = aop_in(dir.path(), &["completions", shell], &[]);
        let script = out(&output);
        assert_eq!(code(&output), 0, "{}", err(&output));
        assert!(script.contains("deregister") && script.contains("data-dir"), "{shell}");
        fs::write(dir.path().join(shell), script).unwrap();
    }
    for shell in ["bash", "zsh"] {
        match Command::new(shell).args(["-n", shell]).current_dir(dir.path()).output() {
            Ok(output) => assert!(output.status.success(), "{shell}: {}", err(&output)),
            Err(_) => eprintln!("SKIPPED: {shell} is not here to read its script"),
        }
    }
    assert_eq!(code(&aop_in(dir.path(), &["completions", "tcsh"], &[])), 2);
}

#[test]
fn each_command_has_a_manual_page() {
    let dir = TempDir::new().unwrap();
    let output = aop_in(dir.path(), &["man", "--out", "."], &[]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    for page in ["aop.1", "aop-node.1", "aop-zone-join.1", "aop-config-init.1"] {
        let text = fs::read_to_string(dir.path().join(page)).unwrap();
        assert!(text.contains(".SH SYNOPSIS") || text.contains(".SH NAME"), "{page}: {text}");
    }
    assert!(!dir.path().join("aop-man.1").exists(), "it is for packages");
    assert_eq!(code(&aop_in(dir.path(), &["man", "--out", "nowhere"], &[])), 1);
    match Command::new("mandoc")
        .args(["-T", "lint", "-W", "error", "aop-node.1"])
        .current_dir(dir.path())
        .output()
    {
        Ok(output) => assert!(output.status.success(), "{}", out(&output)),
        Err(_) => eprintln!("SKIPPED: mandoc is not here to read a page"),
    }
}

#[test]
fn a_file_to_begin_with_is_right_and_its_schema_names_every_setting() {
    let dir = TempDir::new().unwrap();
    let begun = out(&aop_in(dir.path(), &["config", "init"], &[]));
    fs::write(dir.path().join("aop.toml"), &begun).unwrap();
    assert_eq!(code(&aop_in(dir.path(), &["config", "check", "aop.toml"], &[])), 0);
    let schema: serde_json::Value =
        serde_json::from_str(&out(&aop_in(dir.path(), &["config", "schema"], &[]))).unwrap();
    let shown = out(&aop_in(dir.path(), &["config", "show", "--config", "aop.toml", "--json"], &[]));
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    for setting in shown["settings"].as_array().unwrap() {
        let key = setting["key"].as_str().unwrap();
        let place = format!("/properties/{}", key.replace('.', "/properties/"));
        assert!(
            schema.pointer(&place).is_some_and(|found| found["description"] == setting["meaning"]),
            "{key}"
        );
        let name = key.rsplit('.').next().unwrap();
        assert!(begun.contains(&format!("\n#{name} = ")), "{key}");
    }
}

#[test]
fn the_file_of_the_user_is_read_where_none_is_named_and_the_start_says_so() {
    let dir = TempDir::new().unwrap();
    let (own, named) = (dir.path().join("aop/aop.toml"), dir.path().join("other.toml"));
    fs::create_dir(dir.path().join("aop")).unwrap();
    fs::write(&own, "network = \"own\"\n").unwrap();
    fs::write(&named, "network = \"named\"\n").unwrap();
    let folder = dir.path().to_str().unwrap();
    let shown = |args: &[&str], env: &[(&str, &str)]| {
        let env: Vec<_> = [("XDG_CONFIG_HOME", folder)].into_iter().chain(env.iter().copied()).collect();
        out(&aop_in(dir.path(), &[&["config", "show"], args].concat(), &env))
    };
    assert!(shown(&[], &[]).contains(&format!("network\town\t{}:1", own.display())));
    assert!(shown(&[], &[("AOP_CONFIG", "other.toml")]).contains("network\tnamed\t"));
    assert!(shown(&["--config", "other.toml"], &[]).contains("network\tnamed\t"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_aop"));
    command
        .args(["node", "--http", "127.0.0.1:0", "--listen", LISTEN, "--data-dir"])
        .arg(dir.path().join("data"));
    command.env("XDG_CONFIG_HOME", dir.path()).env_remove("AOP_CONFIG");
    let mut node = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(node.stderr.take().unwrap()).read_line(&mut line).unwrap();
    node.kill().unwrap();
    node.wait().unwrap();
    assert_eq!(line, format!("config  {}\n", own.display()));
}
