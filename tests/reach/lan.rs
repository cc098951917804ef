//! Nodes on one network without a seed: `--mdns`.

use std::time::{Duration, Instant};

use super::lab::{PATIENCE, in_lab};

/// How long it is watched that nothing happens, of which nothing tells.
const QUIET: Duration = Duration::from_secs(3);

#[test]
#[ignore = "there is no --mdns yet"]
fn nodes_on_one_network_find_each_other_without_a_seed_and_ignore_those_of_other_networks() {
    in_lab(|lab| {
        let at =
            |name, address, network: &[&str]| lab.host(name, address).node(&[&["--mdns"], network].concat());
        let other = ["--network", "other"];
        let [a, c] = [("a", "192.168.1.2", &[][..]), ("c", "192.168.1.3", &other[..])]
            .map(|(name, address, network)| at(name, address, network));
        let [b, d] = [("b", "192.168.1.4", &[][..]), ("d", "192.168.1.5", &other[..])]
            .map(|(name, address, network)| at(name, address, network));
        for (node, friend) in [(&a, &b), (&c, &d), (&d, &c), (&b, &a)] {
            node.until_called(PATIENCE, friend);
        }
        let since = Instant::now();
        while since.elapsed() < QUIET {
            for (node, friend) in [(&a, &b), (&c, &d), (&d, &c), (&b, &a)] {
                let status = node.ask("status");
                assert!(status["problems"].as_array().unwrap().is_empty(), "{status:#}");
                node.until_whole(PATIENCE, &[friend]);
            }
        }
    });
}
