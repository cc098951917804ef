//! What people call a node, as others show it.

use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::commands::{aop_in, code, err, out};
use super::processes::{Node, PATIENCE, until};

const LISTEN: &str = "/ip4/127.0.0.1/tcp/0";

#[test]
fn a_node_is_shown_by_its_name_where_ids_are_short() {
    let dir = TempDir::new().unwrap();
    let named = |name: &str, bootstrap: &[String]| {
        let mut command = Command::new("env");
        command.arg(format!("AOP_NAME={name}")).arg(env!("CARGO_BIN_EXE_aop"));
        Node::start_by(command, &dir.path().join(name), LISTEN, bootstrap)
    };
    let atlas = named("Büro 3", &[]);
    let other = named("other", &atlas.ready.listen[..1]);
    until("the name arrives with a beacon", 2 * PATIENCE, || {
        let peers: Value = other.get("/v1/peers").unwrap();
        peers["peers"][0]["name"] == "Büro 3"
    });
    let on = |args: &[&str]| out(&aop_in(dir.path(), &[args, &["--node", &other.ready.http]].concat(), &[]));
    let end = &atlas.ready.peer_id[atlas.ready.peer_id.len() - 6..];
    assert!(on(&["zones"]).contains(&format!("Büro 3 …{end}")), "{}", on(&["zones"]));
    let peers = on(&["peers"]);
    assert!(peers.contains("Büro 3") && peers.contains(&atlas.ready.peer_id), "{peers}");
    assert!(on(&["status"]).contains("other"), "{}", on(&["status"]));
    for name in ["a\u{202e}b", &"x".repeat(64)] {
        let refused = aop_in(dir.path(), &["config", "show"], &[("AOP_NAME", name)]);
        assert_ne!(code(&refused), 0, "{name:?}");
        assert!(err(&refused).contains("a name such as `atlas`"), "{}", err(&refused));
    }
}
