//! What orchestrators ask of a node, and how it talks to the system's service manager.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::processes::Node;

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
