//! The official conformance suite against our stack: a real node, our HTTP gate and route, our MCP server for everything
//! that is not one of the suite's fixtures.
//!
//! The fixtures are the tools, prompts and resources that the suite asks every server to have, laid over ours. What is
//! known to fail is in `conformance/expected-failures.yaml`.

mod asks;
mod mrtr;
mod overlay;
mod prompts;
mod resources;
mod tasks;
mod tools;

use std::io::{self, Write};
use std::process::Command;
use std::time::Duration;

use aop::agents::Agents;
use aop::host::{self, Options, Running};
use aop::http;
use aop::mcp::Mcp;
use aop::proto::address_block::TrustedNets;
use aop::proto::identity::Identity;
use aop::proto::name::ZoneName;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use self::overlay::{Overlay, echo};
use crate::installed::{Ended, packages, run};

/// A whole set takes seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// A node with the fixtures at its `/mcp`.
struct Fixture {
    runtime: Runtime,
    node: Running,
    server: http::Server,
    _folder: TempDir,
}

#[test]
fn the_suite_of_the_newest_revision_passes() {
    check_revision("2026-07-28", 196);
}

#[test]
fn the_suite_of_the_last_handshake_passes() {
    check_revision("2025-11-25", 83);
}

/// Runs a revision's set. `checks` are those that passed when these fixtures were written: a fixture that is no longer
/// found would pass fewer without failing any.
fn check_revision(revision: &str, checks: usize) {
    let Some(packages) = packages() else { return };
    let fixture = Fixture::start();
    let suite = "node_modules/@modelcontextprotocol/conformance/dist/index.js";
    let known = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mcp/conformance/expected-failures.yaml");
    let url = format!("{}/mcp", fixture.server.url());
    let mut node = Command::new(&packages.node);
    node.current_dir(&packages.folder).args([suite, "server", "--url", &url]);
    let ended = run(node.args(["--requirements", revision, "--expected-failures", known]), PATIENCE);
    fixture.stop();

    let told = || format!("{}\n{}", ended.stdout, ended.stderr);
    let (passed, failed) = figures(&ended).unwrap_or_else(|| panic!("no figures: {}", told()));
    // Straight to the terminal: these figures are for who reads the log of a run that passed.
    let _closed = writeln!(io::stderr(), "\nMCP conformance {revision}: {passed} passed, {failed} failed");
    assert!(ended.success, "{}", told());
    assert!(passed >= checks, "only {passed} of {checks} checks: {}", told());
}

/// Passed and failed, from the line `Total: 83 passed, 0 failed`.
fn figures(ended: &Ended) -> Option<(usize, usize)> {
    let total = ended.stdout.lines().find_map(|line| line.strip_prefix("Total: "))?;
    let mut numbers = total.split(' ').filter_map(|word| word.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

impl Fixture {
    fn start() -> Fixture {
        let runtime = Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let agents = Agents::new(ZoneName::root());
        agents.replace(vec![echo("echo")]);
        let options = Options {
            agents: agents.clone(),
            ..Options::new(Identity::from_seed([1; 32]), "test", folder.path())
        };
        let settings = http::Settings {
            addr: "127.0.0.1:0".parse().unwrap(),
            names: Vec::new(),
            trusted_nets: TrustedNets::default(),
            token: None,
            registry: http::RegistryAccess::Own,
        };
        let (node, server) = runtime.block_on(async {
            let node = host::start(options).await.unwrap();
            let listener = http::bind(settings).await.unwrap();
            let server =
                listener.serve_with(node.handle.clone(), Overlay::new(Mcp::new(node.handle.clone()), agents));
            (node, server)
        });
        Fixture { runtime, node, server, _folder: folder }
    }

    fn stop(self) {
        self.runtime.block_on(async {
            self.server.stop().await;
            self.node.stop().await.unwrap();
        });
    }
}
