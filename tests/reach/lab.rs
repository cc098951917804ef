//! An internet for one test: a bridge to which hosts are attached, some of them behind routers that translate addresses.
//!
//! A test runs itself a second time, as the first process of namespaces of its own: user, processes, files, network. It
//! stands on the bridge there, and every host is one more network namespace. So tests run side by side, names need not
//! differ between them, and whatever is there is removed by the kernel when that process ends, however it ends: hosts, routers,
//! nodes, files. Nothing of the machine is touched.
//!
//! Needs `ip` and `nft`, and root, or a system whose users may make namespaces. Elsewhere a test says that it was skipped; with
//! `CI` set it fails.

use std::any::type_name;
use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use aop::api::Ready;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longest wait for anything here; what is promised faster is asserted where it is promised.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Who stands on the bridge, and is everybody's way out: the test.
pub(crate) const HERE: &str = "203.0.113.1";
const HERE_V6: &str = "2001:db8::1";

/// Set in the second run of a test: the folder for its files.
const FOLDER: &str = "AOP_LAB";
/// How the second run is begun. The kernel ends it with the first, and all that it started with it.
const APART: [&str; 10] = [
    "--pdeathsig",
    "KILL",
    "unshare",
    "--map-root-user",
    "--net",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
];
/// Between two looks at another process, of which nothing tells.
const TICK: Duration = Duration::from_millis(50);

/// Runs a test in a lab of its own, or says why there can be none.
pub(crate) fn in_lab<T: FnOnce(&Lab)>(test: T) {
    if let Some(folder) = env::var_os(FOLDER) {
        return test(&Lab::build(folder.into()));
    }
    if let Err(why) = can_be_built() {
        return skip(&why);
    }
    let folder = tempfile::tempdir().unwrap();
    let name = type_name::<T>().trim_start_matches("reach::").trim_end_matches("::{{closure}}");
    let mut second = Command::new("setpriv");
    second.args(APART).arg(env::current_exe().unwrap()).args([
        "--exact",
        name,
        "--include-ignored",
        "--nocapture",
    ]);
    let output = second.env(FOLDER, folder.path()).output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    println!("{}{}", said[0], said[1]);
    assert!(output.status.success() && said[0].contains("1 passed"), "{name}: {}", output.status);
}

/// Whether the system has what a lab is made of, and allows it.
fn can_be_built() -> Result<(), String> {
    let try_out =
        "ip -V && nft --version && mkdir -p /run/netns && mount -t tmpfs lab /run/netns && ip netns add host";
    let tried = Command::new("setpriv").args(APART).args(["sh", "-ec", try_out]).output();
    match tried {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("setpriv: {error}")),
    }
}

fn skip(why: &str) {
    let required = env::var_os("CI").is_some_and(|value| !value.is_empty());
    assert!(!required, "CI is set, so nothing may be skipped, but there can be no lab: {why}");
    // Straight to the terminal: the harness would hide it, because a skipped test passes.
    let _closed = writeln!(
        io::stderr(),
        "\nSKIPPED, nodes were not tried behind routers: {why}\nNeeded are root or namespaces for users, `ip` and `nft`.\n"
    );
}

/// Runs a command whose words have no spaces.
fn run(line: &str) {
    run_with(line, "");
}

fn run_with(line: &str, input: &str) {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap());
    let mut child = command.args(words).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An internet: 203.0.113.0/24 and 2001:db8::/64.
pub(crate) struct Lab {
    folder: PathBuf,
}

/// How a router translates addresses. Neither lets in what was not asked for.
#[derive(Clone, Copy)]
pub(crate) enum Nat {
    /// A socket has the same port outside whomever it speaks to, so that two such routers can be crossed.
    PortPreserving,
    /// A socket has another port for each of those it speaks to.
    Symmetric,
}

impl Lab {
    fn build(folder: PathBuf) -> Lab {
        // In memory: a node's disk writes are not what is tried here.
        run(&format!("mount -t tmpfs lab {}", folder.display()));
        run("mount -t tmpfs lab /run/netns");
        run("ip link set dev lo up");
        // Without an address of its own it takes the least of its ports', so that a new host would cut off all others from it.
        run("ip link add internet address 02:00:00:00:00:01 type bridge");
        for address in [format!("{HERE}/24"), format!("{HERE_V6}/64 nodad")] {
            run(&format!("ip address add {address} dev internet"));
        }
        run("ip link set dev internet up");
        Lab { folder }
    }

    /// A host on the bridge, with one address: of IPv4 or of IPv6. Two with private ones are two hosts in one home.
    pub(crate) fn host(&self, name: &str, address: &str) -> Host {
        let host = self.namespace(name);
        run(&format!("ip link add wan netns {name} type veth peer name {name}"));
        run(&format!("ip link set dev {name} master internet up"));
        host.join("wan", address);
        // Packets to addresses of others' homes get lost there, as they do on the internet.
        let gateway = if address.contains(':') { HERE_V6 } else { HERE };
        host.run(&format!("ip route add default via {gateway} dev wan onlink"));
        host
    }

    /// A host in a home: all of its packets leave through a router with this public address.
    pub(crate) fn behind_nat(&self, name: &str, nat: Nat, address: &str) -> Host {
        let (home, router) = (self.namespace(name), self.host(&format!("{name}-nat"), address));
        run(&format!("ip link add lan netns {} type veth peer name wan netns {name}", router.name));
        // The same in every home, as it is out there.
        router.join("lan", "192.168.1.1");
        home.join("wan", "192.168.1.2");
        home.run("ip route add default via 192.168.1.1");
        router.run("sysctl -qw net.ipv4.ip_forward=1");
        let ports = match nat {
            Nat::PortPreserving => "",
            Nat::Symmetric => "fully-random",
        };
        let rules = format!(
            "table ip home {{
                chain translated {{ type nat hook postrouting priority srcnat; oifname wan masquerade {ports}; }}
                chain passing {{ type filter hook forward priority filter; policy drop;
                    ct state established,related accept; iifname lan accept; }}
                chain own {{ type filter hook input priority filter; iifname wan ct state new drop; }}
            }}"
        );
        run_with(&format!("ip netns exec {} nft -f -", router.name), &rules);
        home
    }

    /// Hosts that are made from now on ask this server for names.
    pub(crate) fn name_server(&self, address: &str) {
        let file = self.folder.join("resolv.conf");
        fs::write(&file, format!("nameserver {address}\n")).unwrap();
        run(&format!("mount --bind {} /etc/resolv.conf", file.display()));
    }

    fn namespace(&self, name: &str) -> Host {
        run(&format!("ip netns add {name}"));
        let host = Host { name: name.into(), folder: self.folder.join(name) };
        fs::create_dir(&host.folder).unwrap();
        host.run("ip link set dev lo up");
        host
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        for host in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let log = fs::read_to_string(host.path().join("log")).unwrap_or_default();
            if !log.is_empty() {
                eprintln!("-- {}\n{log}", host.file_name().display());
            }
        }
    }
}

/// A machine.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) name: String,
    /// Its files.
    pub(crate) folder: PathBuf,
}

impl Host {
    fn run(&self, line: &str) {
        run(&format!("ip netns exec {} {line}", self.name));
    }

    fn join(&self, interface: &str, address: &str) {
        let (prefix, flags) = match address.parse().unwrap() {
            IpAddr::V4(_) => (24, ""),
            // It is nobody else's, so it is there at once.
            IpAddr::V6(_) => (64, "nodad"),
        };
        self.run(&format!("ip address add {address}/{prefix} dev {interface} {flags}"));
        self.run(&format!("ip link set dev {interface} up"));
    }

    fn aop(&self, line: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, env!("CARGO_BIN_EXE_aop")]);
        command.args(line.split_whitespace()).arg("--json");
        command
    }

    /// Starts a node that keeps its files here from run to run, and has an agent named as the host, which echoes.
    pub(crate) fn node(&self, arguments: &str) -> Node {
        let text = "[agent]\nname = \"NAME\"\ndescription = \"echoes\"\n[agent.run]\nbuiltin = \"echo\"\n";
        let agents = self.folder.join("agents.toml");
        fs::write(&agents, text.replace("NAME", &self.name)).unwrap();
        let log = File::options().create(true).append(true).open(self.folder.join("log")).unwrap();
        let mut command = self.aop(&format!("node {arguments}"));
        // No file of the machine is read.
        command.env("AOP_CONFIG", "/dev/null").env("AOP_NETWORK", "lab").env("AOP_LOG", "info,aop=debug");
        command.arg("--data-dir").arg(self.folder.join("data")).arg("--agents").arg(agents);
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Ready = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        Node { child, host: self.clone(), id: ready.peer_id }
    }
}

/// A running node.
pub(crate) struct Node {
    child: Child,
    pub(crate) host: Host,
    /// Its PeerId.
    pub(crate) id: String,
}

impl Node {
    /// What a command answers here, or says where it has no answer.
    pub(crate) fn ask(&self, line: &str) -> Value {
        let output = self.host.aop(line).output().unwrap();
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| String::from_utf8_lossy(&output.stderr).trim().into())
    }

    /// Asks until it answers as wanted; answers with that.
    pub(crate) fn until(&self, within: Duration, line: &str, is_met: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let answer = self.ask(line);
            if is_met(&answer) {
                return answer;
            }
            let name = &self.host.name;
            assert!(started.elapsed() < within, "not within {within:?} at {name}: aop {line}: {answer:#}");
            thread::sleep(TICK);
        }
    }

    /// Waits until these and nobody else are connected.
    pub(crate) fn until_whole(&self, within: Duration, others: &[&Node]) {
        let mut ids: Vec<&str> = others.iter().map(|node| node.id.as_str()).collect();
        ids.sort_unstable();
        let are_there = |answer: &Value| {
            let connected =
                answer["peers"].as_array().unwrap().iter().filter(|peer| peer["connected"] == true);
            let mut there: Vec<&str> = connected.filter_map(|peer| peer["peer"].as_str()).collect();
            there.sort_unstable();
            there == ids
        };
        self.until(within, "peers", are_there);
    }

    /// Calls the agent of a host until that succeeds.
    pub(crate) fn until_called(&self, within: Duration, host: &Node) {
        let line = format!("call {} --task hello --timeout 5", host.host.name);
        self.until(within, &line, |answer| answer["result"] == "hello");
    }

    /// Ends it as a service manager does.
    pub(crate) fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }

    /// Lets it be silent, and its connections look alive.
    pub(crate) fn freeze(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).unwrap();
    }

    /// Ends it as a lost power supply does.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
