//! Nodes on machines whose network changes under them: each test has a network and files of its own, in namespaces, and is left
//! out where the system does not allow that.

#![cfg(target_os = "linux")]

use std::process::Command;

use serde_json::Value;

/// Answers every question for an IPv4 address with 127.0.0.1.
const RESOLVER: &str = r#"
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", 53))
while True:
    q, asker = s.recvfrom(512)
    end = q.index(b"\0", 12) + 5
    is_a = struct.unpack(">H", q[end - 4:end - 2])[0] == 1
    a = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4\x7f\0\0\1" if is_a else b""
    s.sendto(q[:2] + b"\x84\0\0\1" + (b"\0\1" if is_a else b"\0\0") + b"\0\0\0\0" + q[12:end] + a, asker)
"#;

/// What every script begins with: `node NAME ARGS` starts one and waits for its ready line, `ask NAME PATH` asks it.
const BEGIN: &str = r#"
set -eu
trap 'kill $(jobs -p) 2>/dev/null' EXIT
ip link set lo up
node() {
    name=$1; shift
    "$AOP" node --json --http 127.0.0.1:0 --data-dir "$name" "$@" >"$name.out" 2>"$name.err" &
    for _ in $(seq 300); do [ -s "$name.out" ] && return; sleep 0.1; done
    cat "$name.err"; exit 1
}
field() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$1.out" "$2"; }
status() { "$AOP" status --json --node "$(field "$1" http)" || true; }
"#;

/// Runs a script in namespaces of its own; what it printed, or nothing where there can be none.
fn run(script: &str) -> Option<String> {
    let unshared = |args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--net", "--mount"]).args(args);
        command
    };
    if !unshared(&["ip", "link", "set", "lo", "up"]).output().is_ok_and(|tried| tried.status.success()) {
        eprintln!("left out: this system allows no namespaces");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("resolver.py"), RESOLVER).unwrap();
    let mut command = unshared(&["bash", "-c", &format!("{BEGIN}{script}")]);
    let output = command.current_dir(folder.path()).env("AOP", env!("CARGO_BIN_EXE_aop")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    Some(said)
}

#[test]
fn a_bootstrap_name_is_found_when_the_resolver_comes_after_the_node() {
    let script = r#"
        : >resolv.conf; mount --bind resolv.conf /etc/resolv.conf
        node seed --listen /ip4/127.0.0.1/tcp/30111
        node late --listen /ip4/127.0.0.1/tcp/0 --bootstrap "/dns4/seed.example.test/tcp/30111/p2p/$(field seed peer_id)"
        for _ in $(seq 100); do
            case "$(status late)" in *bootstrap_unreachable*) break;; esac
            sleep 0.1
        done
        status late; echo
        python3 resolver.py &
        echo "nameserver 127.0.0.1" >resolv.conf
        for _ in $(seq 300); do
            case "$(status late)" in *'"connections":0'*|*'"connections": 0'*) sleep 0.1;; *) break;; esac
        done
        status late
    "#;
    let Some(said) = run(script) else { return };
    let mut statuses = serde_json::Deserializer::from_str(&said).into_iter::<Value>();
    let [before, after] = [statuses.next().unwrap().unwrap(), statuses.next().unwrap().unwrap()];
    assert_eq!(before["connections"], 0);
    let problem = &before["problems"][0];
    assert_eq!(problem["code"], "bootstrap_unreachable", "{before}");
    assert!(problem["message"].as_str().unwrap().contains("no usable DNS settings"), "{problem}");
    assert_eq!((&after["connections"], &after["health"]), (&1.into(), &"ok".into()), "{after}");
}

#[test]
fn a_node_tells_the_addresses_that_its_machine_has_now() {
    let script = r#"
        ip addr add 10.9.8.7/24 dev lo
        node one --listen /ip4/0.0.0.0/tcp/7401 --listen /ip4/0.0.0.0/udp/7401/quic-v1
        cat one/node.json
        ip addr add 10.9.8.6/24 dev lo; ip addr del 10.9.8.7/24 dev lo; ip addr add 10.9.8.6/24 dev lo 2>/dev/null || true
        for _ in $(seq 100); do grep -q 10.9.8.7 one/node.json || break; sleep 0.1; done
        for _ in $(seq 100); do grep -q 10.9.8.6/udp one/node.json && break; sleep 0.1; done
        cat one/node.json; status one
    "#;
    let Some(said) = run(script) else { return };
    let told: Vec<Value> =
        serde_json::Deserializer::from_str(&said).into_iter().collect::<Result<_, _>>().unwrap();
    let peer = told[0]["peer_id"].as_str().unwrap();
    let at = |ip: &str| {
        [format!("/ip4/{ip}/tcp/7401/p2p/{peer}"), format!("/ip4/{ip}/udp/7401/quic-v1/p2p/{peer}")]
    };
    let of = |ip: &str| Value::from([at(ip), at("127.0.0.1")].concat());
    assert_eq!(told[0]["listen"], of("10.9.8.7"), "the ready line lacks nothing");
    for later in &told[1..] {
        assert_eq!(later["listen"], of("10.9.8.6"));
        assert_eq!(later["join"], format!("aop node --bootstrap {}", at("10.9.8.6")[0]));
    }
}

#[test]
fn a_node_listens_by_ipv6_where_there_is_any_and_is_silent_where_there_is_none() {
    let script = r#"
        node one
        cat one.out
        kill $!; wait $! || true
        ip -6 addr del ::1/128 dev lo
        rm one.out
        node one
        cat one.out; [ ! -s one.err ] || { cat one.err; exit 1; }
    "#;
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        eprintln!("left out: this machine has no IPv6");
        return;
    }
    let Some(said) = run(script) else { return };
    let told: Vec<Value> =
        serde_json::Deserializer::from_str(&said).into_iter().collect::<Result<_, _>>().unwrap();
    let peer = told[0]["peer_id"].as_str().unwrap();
    let four = [
        format!("/ip4/127.0.0.1/tcp/7401/p2p/{peer}"),
        format!("/ip4/127.0.0.1/udp/7401/quic-v1/p2p/{peer}"),
    ];
    let six = [format!("/ip6/::1/tcp/7401/p2p/{peer}"), format!("/ip6/::1/udp/7401/quic-v1/p2p/{peer}")];
    assert_eq!(told[0]["listen"], Value::from([&four[..], &six[..]].concat()));
    assert_eq!(told[1]["listen"], Value::from(four.to_vec()));
}
