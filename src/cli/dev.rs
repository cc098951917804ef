//! `aop dev`: five nodes in one process on real loopback connections, sample agents on four of them, and the HTTP API
//! of the first. Its folders are temporary and leave with it.

use std::time::Duration;

use futures::future::try_join_all;
use libp2p::Multiaddr;
use tempfile::TempDir;
use tokio::sync::broadcast::Receiver;
use tokio::time::timeout;

use super::args::DevArgs;
use super::failure::{Exit, Failure};
use super::life::{Signals, live, run, start_logs};
use super::node::ready;
use super::output::{Talk, print_json_line};
use crate::agents::Agents;
use crate::api::{Event, Ready};
use crate::config::{self, Flags};
use crate::document::{Offer, read_documents};
use crate::http;
use crate::net::{self, Running};
use crate::proto::identity::{Identity, PeerKey};
use crate::proto::name::ZoneName;

/// Nodes beside the first. Five in all are enough to see agents travel between nodes that do not host them.
const OTHER_NODES: usize = 4;
/// Agents to try.
const SAMPLES: &str = include_str!("samples.json");
/// The world of these nodes, so that they never join a real one.
const NETWORK: &str = "dev";
/// How long the first node may wait to hear of all samples before it says it is ready.
const SPREAD_TIME_MAX: Duration = Duration::from_secs(2);

/// A running node and its folder.
struct DevNode {
    running: Running,
    key: PeerKey,
    folder: TempDir,
}

/// Runs the world until a signal.
pub(super) fn dev(args: &DevArgs, verbose: u8, talk: Talk) -> Result<Exit, Failure> {
    let directives = std::env::var("AOP_LOG").ok().filter(|text| !text.is_empty());
    start_logs(directives.as_deref(), verbose, talk.quiet)?;
    let flags = Flags::from([("http.addr", vec![args.http.clone()]), ("data_dir", vec![".".into()])]);
    let (settings, _) = config::load(&flags, &|_| None, None).map_err(|_| {
        Failure::new(
            Exit::Usage,
            format!("`{}` is not an address and port", args.http),
            "write --http 127.0.0.1:0",
        )
    })?;
    let http = http::Settings { addr: settings.http_addr, names: Vec::new(), token: None };
    run(run_dev(http, args.json, talk))?;
    Ok(Exit::Done)
}

async fn run_dev(http: http::Settings, json: bool, talk: Talk) -> Result<(), Failure> {
    let mut signals = Signals::catch()?;
    let listener = http::bind(http).await.map_err(|error| Failure::plain(Exit::Failure, &error))?;
    let nodes = tokio::select! {
        nodes = start_all() => nodes?,
        () = signals.next() => return Ok(()),
    };
    let first = &nodes[0];
    let server = listener.serve(first.running.handle.clone());
    let ready = ready(first.key.to_string(), &first.running, &server, &[ZoneName::root()]);
    match json {
        true => drop(print_json_line(&ready)),
        false => tell_ready(&ready, talk),
    }
    let (nodes, _folders): (Vec<_>, Vec<_>) =
        nodes.into_iter().map(|node| (node.running, node.folder)).unzip();
    live(server, nodes, signals).await
}

/// The nodes, the first first, with the samples registered.
async fn start_all() -> Result<Vec<DevNode>, Failure> {
    let first = start(Vec::new()).await?;
    let events = first.running.handle.events();
    // One address suffices on loopback; a second would only be dialed in vain.
    let bootstrap: Vec<_> = first.running.listen.first().cloned().into_iter().collect();
    let others = try_join_all((0..OTHER_NODES).map(|_| start(bootstrap.clone()))).await?;
    let samples = register_samples(&others).await?;
    // Late samples still arrive; the world is usable without them.
    let _ = timeout(SPREAD_TIME_MAX, all_seen(&first, events, samples)).await;
    Ok(std::iter::once(first).chain(others).collect())
}

async fn start(bootstrap: Vec<Multiaddr>) -> Result<DevNode, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::plain(Exit::Failure, error);
    let folder = tempfile::Builder::new().prefix("aop-dev-").tempdir().map_err(|error| failed(&error))?;
    let identity = Identity::from_seed(rand::random());
    let key = identity.key();
    let listen = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"].map(str::parse);
    let options = net::Options {
        identity,
        network: NETWORK.into(),
        zones: vec![ZoneName::root()],
        follows: Vec::new(),
        bootstrap,
        listen: listen.into_iter().collect::<Result<_, _>>().map_err(|error| failed(&error))?,
        data_dir: folder.path().into(),
        agents: Agents::new(ZoneName::root()),
    };
    let running = net::start(options).await.map_err(|error| failed(&error))?;
    Ok(DevNode { running, key, folder })
}

/// Registers the samples in turn on each node; how many there are.
async fn register_samples(nodes: &[DevNode]) -> Result<usize, Failure> {
    let mut count = 0;
    for (offer, node) in samples()?.into_iter().zip(nodes.iter().cycle()) {
        let outcomes = node.running.handle.register(None, vec![offer]).await.map_err(Failure::answered)?;
        for outcome in outcomes {
            outcome.map_err(|refusal| Failure::plain(Exit::Failure, &refusal.message))?;
            count += 1;
        }
    }
    Ok(count)
}

fn samples() -> Result<Vec<Offer>, Failure> {
    let documents = serde_json::from_str(SAMPLES).map_err(|error| Failure::plain(Exit::Failure, &error))?;
    let refused = |refusal: crate::document::Refusal| Failure::plain(Exit::Failure, &refusal.message);
    read_documents(documents).into_iter().map(|outcome| outcome.map_err(refused)).collect()
}

/// Resolves when the node holds `count` agents. Events are only the hint to look: some may have come before.
async fn all_seen(node: &DevNode, mut events: Receiver<Event>, count: usize) {
    loop {
        let held = node.running.handle.agents(None, count, None).await.unwrap_or_default();
        if held.results.len() >= count {
            return;
        }
        // A lagging reader looks again as well; a closed one will never see more.
        if let Err(tokio::sync::broadcast::error::RecvError::Closed) = events.recv().await {
            return;
        }
    }
}

fn tell_ready(ready: &Ready, talk: Talk) {
    let node = match ready.http.as_str() {
        "http://127.0.0.1:7400" => String::new(),
        other => format!(" --node {other}"),
    };
    talk.say(&format!("five nodes are up; the first answers at {}", ready.http));
    talk.say("try:");
    talk.say(&format!("  aop find \"summarise a document\"{node}"));
    talk.say(&format!("  aop show translator{node}"));
    talk.say(&format!("  aop watch{node}"));
    talk.say("ctrl-c stops them and removes their data");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_an_agent() {
        let samples = samples().unwrap_or_else(|failure| panic!("{failure:?}"));
        assert!(samples.len() > OTHER_NODES, "each node beside the first has one");
        assert!(
            samples.iter().any(|sample| sample.name.as_str() == "translator"),
            "the printed command works"
        );
    }
}
