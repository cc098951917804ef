//! Nodes on one network without a seed: `--mdns`.

use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::lab::{Lab, Node, PATIENCE, in_lab};

/// How long it is waited for what must not happen, of which nothing tells.
const QUIET: Duration = Duration::from_secs(3);

/// Two worlds of two nodes each in one home, when each node has found its friend.
fn two_worlds(lab: &Lab) -> [Node; 4] {
    let start = |name, address, network| lab.host(name, address).node(&format!("--mdns --network {network}"));
    let nodes = [
        start("a", "192.168.1.2", "lab"),
        start("c", "192.168.1.3", "other"),
        start("b", "192.168.1.4", "lab"),
        start("d", "192.168.1.5", "other"),
    ];
    for (node, friend) in with_friends(&nodes) {
        node.until_called(PATIENCE, friend);
    }
    nodes
}

fn with_friends([a, c, b, d]: &[Node; 4]) -> [(&Node, &Node); 4] {
    [(a, b), (b, a), (c, d), (d, c)]
}

#[test]
fn nodes_on_one_network_find_each_other_without_a_seed_and_nobody_else() {
    in_lab(|lab| {
        let nodes = two_worlds(lab);
        thread::sleep(QUIET);
        for (node, friend) in with_friends(&nodes) {
            node.until_whole(PATIENCE, &[friend]);
            let status = node.ask("status");
            assert_eq!((&status["health"], &status["problems"]), (&json!("ok"), &json!([])), "{status:#}");
        }
    });
}

#[test]
fn programs_of_other_worlds_on_one_network_are_passed_over_in_silence() {
    in_lab(|lab| {
        let nodes = two_worlds(lab);
        thread::sleep(QUIET);
        for node in &nodes {
            let log = fs::read_to_string(node.host.folder.join("log")).unwrap();
            let told: Vec<&str> = log.lines().filter(|line| line.contains("another network")).collect();
            assert!(told.is_empty(), "{}: {told:#?}", node.host.name);
        }
    });
}
