//! A node as a process of its own, seen from outside.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running `aop node`; ended when it is dropped.
pub(crate) struct NodeProcess {
    child: Child,
    pub(crate) addr: SocketAddr,
    /// From its start to its word that it is ready.
    pub(crate) ready: Duration,
}

impl NodeProcess {
    /// A node with its state in `data`, on free ports of the loopback.
    pub(crate) fn start(data: &Path, arguments: &[&str]) -> NodeProcess {
        let began = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_aop"))
            .args(["node", "--json", "--http", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"])
            .arg("--data-dir")
            .arg(data)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a ready line");
        let ready: serde_json::Value = serde_json::from_str(&line).expect("a ready line");
        let url = ready["http"].as_str().expect("an address");
        let addr = url.trim_start_matches("http://").parse().expect("an address");
        NodeProcess { child, addr, ready: began.elapsed() }
    }

    /// User and system time of all its threads, seconds; Linux counts it in hundredths of a second.
    pub(crate) fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("Linux");
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        (fields[11].parse::<f64>().expect("utime") + fields[12].parse::<f64>().expect("stime")) / 100.0
    }

    /// What it holds of the memory.
    pub(crate) fn resident_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("Linux");
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() / 1024
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}
