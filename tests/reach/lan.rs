//! Nodes on one network without a seed: `--mdns`.

use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::lab::{PATIENCE, in_lab};

/// How long it is watched that nothing happens, of which nothing tells.
const QUIET: Duration = Duration::from_secs(3);

#[test]
fn nodes_on_one_network_find_each_other_without_a_seed_and_ignore_those_of_other_networks() {
    in_lab(|lab| {
        let start = |name, address, network| lab.host(name, address).node(&["--mdns", "--network", network]);
        let a = start("a", "192.168.1.2", "lab");
        let c = start("c", "192.168.1.3", "other");
        let b = start("b", "192.168.1.4", "lab");
        let d = start("d", "192.168.1.5", "other");
        let pairs = [(&a, &b), (&b, &a), (&c, &d), (&d, &c)];
        for (node, friend) in pairs {
            node.until_called(PATIENCE, friend);
        }
        // Of what does not happen nothing tells.
        thread::sleep(QUIET);
        for (node, friend) in pairs {
            node.until_whole(PATIENCE, &[friend]);
            let status = node.ask("status");
            assert_eq!((&status["health"], &status["problems"]), (&json!("ok"), &json!([])), "{status:#}");
            let log = fs::read_to_string(node.host.folder.join("log")).unwrap();
            let of_others: Vec<&str> = log.lines().filter(|line| line.contains("another network")).collect();
            assert!(of_others.is_empty(), "{}: {of_others:#?}", node.host.name);
        }
    });
}
