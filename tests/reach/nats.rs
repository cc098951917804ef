//! Nodes behind routers: met directly where the routers allow it, else through a relay.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::lab::{Lab, Nat, Node, PATIENCE, in_lab};

const TCP: &str = "tcp/7401";
const QUIC: &str = "udp/7401/quic-v1";

/// After the first call two nodes whose routers can be crossed are connected directly within this time.
const DIRECT: Duration = Duration::from_secs(2);
/// An agent whose relay died is called through another one within this time.
const REPLACED: Duration = Duration::from_secs(10);
/// How long a node that is not reached looks for a relay before it says so.
const SEARCH: Duration = Duration::from_secs(30);
/// Where one is found within a second, none is found in this time.
const QUIET: Duration = Duration::from_secs(3);

/// A node that others can reach, and its address for them.
fn relay(lab: &Lab, name: &str, ip: &str, transports: &[&str]) -> (Node, String) {
    let announce = |transport: &&str| format!(" --announce /ip4/{ip}/{transport}");
    let announced: String = transports.iter().map(announce).collect();
    let node = lab.host(name, ip).node(&(listening(transports) + &announced));
    let address = format!("/ip4/{ip}/{}/p2p/{}", transports[0], node.id);
    (node, address)
}

/// What a node is started with that only speaks these.
fn listening(transports: &[&str]) -> String {
    transports.iter().map(|transport| format!(" --listen /ip4/0.0.0.0/{transport}")).collect()
}

/// Two nodes, each behind a router of its own.
fn homes(lab: &Lab, nat: Nat, transports: &[&str], bootstrap: &[&str]) -> [Node; 2] {
    let seeds: String = bootstrap.iter().map(|address| format!(" --bootstrap {address}")).collect();
    let arguments = listening(transports) + &seeds;
    [("a", "203.0.113.2"), ("b", "203.0.113.3")]
        .map(|(name, ip)| lab.behind_nat(name, nat, ip).node(&arguments))
}

/// What an answer of `aop peers` says of one that is connected.
fn connected<'a>(peers: &'a Value, node: &Node) -> Option<&'a Value> {
    let peers = peers["peers"].as_array().unwrap();
    peers.iter().find(|peer| peer["peer"] == node.id && peer["connected"] == true)
}

fn addresses(peers: &Value, node: &Node) -> Vec<String> {
    serde_json::from_value(connected(peers, node).unwrap()["addresses"].clone()).unwrap()
}

fn is_relayed(peers: &Value, node: &Node) -> Option<bool> {
    connected(peers, node)?["relayed"].as_bool()
}

/// What a node says of how it is reached.
fn reach_is(node: &Node, state: &str) -> Value {
    node.until(PATIENCE, "status", |status| status["reach"]["state"] == state)["reach"].clone()
}

/// A relay and two nodes that came to a direct connection after a call through it.
fn crossed(lab: &Lab, transport: &str) -> [Node; 3] {
    let (relay, seed) = relay(lab, "relay", "203.0.113.10", &[transport]);
    let [a, b] = homes(lab, Nat::PortPreserving, &[transport], &[&seed]);
    reach_is(&a, "relayed");
    b.until_called(PATIENCE, &a);
    let peers = b.until(DIRECT, "peers", |peers| is_relayed(peers, &a) == Some(false));
    let direct = format!("/ip4/203.0.113.2/{transport}");
    assert!(addresses(&peers, &a).iter().any(|address| address.starts_with(&direct)), "{peers:#}");
    [relay, a, b]
}

#[test]
fn routers_that_keep_ports_are_crossed_by_tcp() {
    in_lab(|lab| _ = crossed(lab, TCP));
}

#[test]
fn routers_that_keep_ports_are_crossed_by_quic() {
    in_lab(|lab| _ = crossed(lab, QUIC));
}

#[test]
fn no_call_goes_through_a_relay_where_there_is_a_direct_connection() {
    in_lab(|lab| {
        let [relay, a, b] = crossed(lab, TCP);
        relay.freeze();
        for nth in 1..=8 {
            let answer = b.ask(&format!("call {} --task hello --timeout 2", a.host.name));
            assert_eq!(answer["success"], true, "call {nth}: {answer:#}");
        }
    });
}

#[test]
fn nodes_behind_routers_that_cannot_be_crossed_call_through_a_relay() {
    in_lab(|lab| {
        let (relay, seed) = relay(lab, "relay", "203.0.113.10", &[TCP, QUIC]);
        let [a, b] = homes(lab, Nat::Symmetric, &[TCP, QUIC], &[&seed]);
        for (node, other) in [(&b, &a), (&a, &b)] {
            reach_is(other, "relayed");
            node.until_called(PATIENCE, other);
            let peers = node.ask("peers");
            assert_eq!(is_relayed(&peers, other), Some(true), "{peers:#}");
            assert_eq!(is_relayed(&peers, &relay), Some(false), "{peers:#}");
            let reach = reach_is(node, "relayed");
            assert_eq!(reach, json!({"state": "relayed", "addresses": [], "relays": [relay.id]}));
        }
        let announced = [TCP, QUIC].map(|transport| format!("/ip4/203.0.113.10/{transport}"));
        assert_eq!(
            reach_is(&relay, "public"),
            json!({"state": "public", "addresses": announced, "relays": []})
        );
        let answer = call_of_full_size(&b, &a);
        assert_eq!(answer["success"], true, "{}", answer["error"]);
    });
}

/// A call whose input and result are as large as calls usually get: many times what relays of the library let through.
fn call_of_full_size(node: &Node, host: &Node) -> Value {
    let calls = node.host.folder.join("calls.jsonl");
    let input = json!({"task": "x".repeat(2 << 20)});
    fs::write(&calls, json!({"agent": host.host.name, "input": input}).to_string()).unwrap();
    node.ask(&format!("call --batch {} --timeout 15", calls.display()))
}

#[test]
fn no_call_is_cut_because_others_went_through_the_circuit_before() {
    in_lab(|lab| {
        let (_relay, seed) = relay(lab, "relay", "203.0.113.10", &[TCP, QUIC]);
        let [a, b] = homes(lab, Nat::Symmetric, &[TCP, QUIC], &[&seed]);
        reach_is(&a, "relayed");
        b.until_called(PATIENCE, &a);
        for nth in 1..=4 {
            let answer = call_of_full_size(&b, &a);
            assert_eq!(answer["success"], true, "call {nth}: {}, {}", answer["error"], answer["outcome"]);
        }
    });
}

#[test]
fn a_relay_that_dies_is_replaced_by_another() {
    in_lab(|lab| {
        let mut relays = ["10", "11"]
            .map(|last| relay(lab, &format!("relay-{last}"), &format!("203.0.113.{last}"), &[TCP, QUIC]));
        let seeds = relays.each_ref().map(|(_, seed)| seed.as_str());
        let [a, b] = homes(lab, Nat::Symmetric, &[TCP, QUIC], &seeds);
        reach_is(&a, "relayed");
        b.until_called(PATIENCE, &a);
        let through = addresses(&b.ask("peers"), &a);
        let passes = |node: &Node| through.iter().any(|address| address.contains(&node.id));
        if passes(&relays[1].0) {
            relays.reverse();
        }
        let [(dying, _), (other, _)] = relays;
        assert!(passes(&dying), "{through:?}");
        dying.kill();
        b.until_called(REPLACED, &a);
        let peers = b.ask("peers");
        assert!(addresses(&peers, &a).iter().any(|address| address.contains(&other.id)), "{peers:#}");
        let is_noticed = |status: &Value| status["reach"]["relays"] == json!([other.id]);
        a.until(REPLACED, "status", is_noticed);
    });
}

#[test]
fn a_node_that_nobody_relays_for_is_private_and_its_callers_are_told() {
    in_lab(|lab| {
        let seed = lab.host("seed", "203.0.113.10");
        let _seed = seed.node("--announce /ip4/203.0.113.10/tcp/7401 --relay no");
        let [a, b] = homes(lab, Nat::PortPreserving, &[TCP], &["/ip4/203.0.113.10/tcp/7401"]);
        let private = json!({"state": "private", "addresses": [], "relays": []});
        assert_eq!(reach_is(&a, "private"), private);
        thread::sleep(QUIET);
        assert_eq!(a.ask("status")["reach"], private);
        b.until(PATIENCE, "find a", |answer| answer["results"][0]["agent"] == "a@.");
        let answer = b.ask("call a --task hello");
        assert_eq!(answer["error"]["code"], "unreachable", "{answer:#}");
        assert_eq!(answer["outcome"], "not_started", "{answer:#}");
        let found = b.ask("find a");
        assert_eq!(found["results"][0]["replicas"][0]["state"], "unreachable", "{found:#}");
    });
}

#[test]
fn a_node_says_that_it_found_no_relay_after_half_a_minute_and_until_there_is_one() {
    in_lab(|lab| {
        let seed = lab.host("seed", "203.0.113.10");
        let _seed = seed.node("--announce /ip4/203.0.113.10/tcp/7401 --relay no");
        let bootstrap = "--bootstrap /ip4/203.0.113.10/tcp/7401";
        let started = Instant::now();
        let home = lab.behind_nat("home", Nat::Symmetric, "203.0.113.2").node(bootstrap);
        let is_told = |status: &Value| {
            let told = status["problems"].as_array().unwrap();
            told.iter().any(|problem| problem["code"] == "not_reachable" && problem["degrades"] == false)
        };
        let status = home.until(SEARCH + PATIENCE, "status", is_told);
        assert!(started.elapsed() >= SEARCH, "too soon: {:?}", started.elapsed());
        assert_eq!(status["reach"]["state"], "private", "{status:#}");

        let relay = lab.host("relay", "203.0.113.11");
        let relay = relay.node(&format!("--announce /ip4/203.0.113.11/tcp/7401 {bootstrap}"));
        // Nobody tells it of the newcomer: it meets whom its next look into the DHT names.
        let status = home.until(5 * PATIENCE, "status", |status| !is_told(status));
        assert_eq!(
            status["reach"],
            json!({"state": "relayed", "addresses": [], "relays": [relay.id]}),
            "{status:#}"
        );
    });
}
