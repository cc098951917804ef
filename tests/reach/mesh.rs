//! Meshes on an internet where not every host reaches every other.

use std::time::Duration;

use serde_json::{Value, json};

use super::lab::{Nat, Node, PATIENCE, in_lab};

/// Within this time a mesh that was whole is whole again.
const WHOLE: Duration = Duration::from_secs(15);

#[test]
fn two_nodes_without_ipv4_find_and_call_each_other() {
    in_lab(|lab| {
        let a = lab.host("a", "2001:db8::2").node("");
        let b = lab.host("b", "2001:db8::3").node("--bootstrap /ip6/2001:db8::2/tcp/7401");
        for (node, other) in [(&a, &b), (&b, &a)] {
            let name = &other.host.name;
            let is_found = |answer: &Value| answer["results"][0]["agent"] == format!("{name}@.");
            node.until(PATIENCE, &format!("find {name}"), is_found);
            node.until_called(PATIENCE, other);
            let status = node.ask("status");
            assert_eq!((&status["health"], &status["problems"]), (&json!("ok"), &json!([])), "{status:#}");
        }
    });
}

#[test]
fn a_mesh_whose_seed_is_gone_is_whole_after_a_restart_of_all_others() {
    in_lab(|lab| {
        let seed = lab.host("seed", "203.0.113.10").node("");
        let hosts = [
            lab.host("a", "203.0.113.2"),
            lab.host("b", "203.0.113.3"),
            // It is found by nobody, and finds the others.
            lab.behind_nat("home", Nat::Symmetric, "203.0.113.4"),
        ];
        let start = || hosts.each_ref().map(|host| host.node("--bootstrap /ip4/203.0.113.10/tcp/7401"));
        let [a, b, home] = start();
        seed.until_whole(PATIENCE, &[&a, &b, &home]);
        home.until_whole(PATIENCE, &[&a, &b, &seed]);
        a.until_whole(PATIENCE, &[&b, &home, &seed]);
        seed.kill();
        [a, b, home].into_iter().for_each(Node::stop);
        let [a, b, home] = start();
        a.until_whole(WHOLE, &[&b, &home]);
        b.until_whole(WHOLE, &[&a, &home]);
        home.until_called(WHOLE, &b);
    });
}
