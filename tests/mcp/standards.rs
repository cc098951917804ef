//! Clients and servers of A2A and ARD that others made, against real nodes: each line of the official A2A SDKs, and what
//! asks registries of ARD.
//!
//! The scripts print what they see, the assertions are here. Where Python, Node or their registries are missing, a test
//! says so and is skipped; with `CI` set it fails.

mod a2a_clients;
mod a2a_servers;
mod ard;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

/// Longest run of one script; the scripts give up after a minute by themselves.
const PATIENCE: Duration = Duration::from_secs(90);

/// The A2A SDK of 1.0 and the clients of ARD.
fn python() -> Option<PathBuf> {
    crate::installed::python("standards-python", include_str!("standards/requirements.txt"))
}

/// The A2A SDK of 0.3.
fn python_03() -> Option<PathBuf> {
    crate::installed::python("standards-python-03", include_str!("standards/requirements-03.txt"))
}

/// A script of this folder, in this Python.
fn script(python: &Path, name: &str) -> Command {
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mcp/standards").join(name));
    command
}

/// A server on this machine, which ends with it.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    /// Starts a script that prints its port once it listens.
    fn start(command: &mut Command) -> Server {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        Server { child, url: format!("http://127.0.0.1:{}", told["port"]) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}
