//! Two live nodes of which one calls what the other runs.

use std::time::{Duration, Instant};

use aop::agents::{Agents, HostedAgent};
use aop::host::{self, CallOptions, Options, Running};
use aop::proto::name::ZoneName;
use serde_json::json;
use tempfile::TempDir;

use crate::nodes::options;

/// The host of these agents, among them `echo`, and a node that knows of them.
pub(crate) async fn host_and_caller(folders: &[TempDir; 2], hosted: Vec<HostedAgent>) -> (Running, Running) {
    let agents = Agents::new(ZoneName::root());
    agents.replace(hosted);
    let host = Options { agents, ..options(1, folders[0].path(), &[]) };
    let host = host::start(host).await.expect("a node");
    let caller = host::start(options(2, folders[1].path(), &[&host])).await.expect("a node");
    let mut events = caller.handle.events();
    while caller.handle.show("echo").await.is_err() {
        // A missed event only means that there is something to look at.
        let _event = events.recv().await;
    }
    (host, caller)
}

/// How long a call of `echo` takes.
pub(crate) async fn call(node: &Running, text: &str) -> Duration {
    let began = Instant::now();
    let answer = node.handle.call("echo@.", json!({ "task": text }), CallOptions::default()).await;
    let answer = answer.expect("known");
    let took = began.elapsed();
    assert!(answer.success, "{answer:?}");
    took
}
