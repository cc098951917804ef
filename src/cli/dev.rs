//! `aop dev`: five nodes of three zones in one process on real loopback connections, sample agents on four of them, and the
//! HTTP API of the first, which serves the root. Its folders are temporary and leave with it.
//!
//! The samples need no model and no key: some are built in, some are processes of tools that every POSIX system has, and
//! some are listings, which name an address outside the mesh.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::try_join_all;
use libp2p::Multiaddr;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::args::DevArgs;
use super::failure::{Exit, Failure, report};
use super::node::ready;
use super::output::{Console, print_json_line};
use super::process::{Signals, live, run, start_logs, stop_traces};
use crate::agents::files::Files;
use crate::agents::grants::OfferingNode;
use crate::agents::{Agents, HostedAgent};
use crate::api::{FindQuery, Ready};
use crate::config::{self, Flags};
use crate::document::{read_documents, read_run_config};
use crate::host::{self, Running};
use crate::http;
use crate::proto::address_block::TrustedNets;
use crate::proto::config::Config;
use crate::proto::identity::{Identity, PeerKey};
use crate::proto::name::ZoneName;

/// The zones of the nodes, the first node's first. Five are enough to see agents travel between nodes that do not host them,
/// and zones that answer for what lies below them.
const ZONES: [&str; 5] = [".", ".", "acme.org", "acme.org", "research.acme.org"];
/// Agents to try, each with its zone where that is not the root.
const SAMPLES: &str = include_str!("samples.json");
/// The world of these nodes, so that they never join a real one.
const NETWORK: &str = "dev";
/// How long the first node may wait to find all samples of all zones before it says it is ready.
const SPREAD_TIME_MAX: Duration = Duration::from_secs(4);
/// All start at once, and who asks its way to its zone before it is connected asks nobody: it asks again this soon.
const WALK_INTERVAL: Duration = Duration::from_secs(1);
/// The one node of a zone is whole by itself after this long, whatever its walks were told; two of one zone met long before.
const ALONE_AFTER: Duration = Duration::from_secs(3);
/// What is registered in one zone shows in the others after this long.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);
/// How often it looks meanwhile: that a zone is held has no event.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// A running node and its folder.
struct DevNode {
    running: Running,
    key: PeerKey,
    folder: TempDir,
    /// Follows the agents' files while it lives.
    files: Files,
}

/// Runs the world until a signal.
pub(super) fn dev(args: &DevArgs, verbose: u8, console: Console) -> Result<Exit, Failure> {
    let directives = std::env::var("AOP_LOG").ok().filter(|text| !text.is_empty());
    let is_json = std::env::var("AOP_LOG_FORMAT").is_ok_and(|format| format == "json");
    let traces = start_logs(directives.as_deref(), is_json, verbose, console.quiet)?;
    // The folder is not used. It is given because without a home folder there is no default.
    let flags = Flags::from([("http.addr", vec![args.http.clone()]), ("data_dir", vec![".".into()])]);
    // No environment: a variable that is meant for a real node must not count here.
    let (settings, _) = config::load(&flags, &|_| None, None).map_err(|_| {
        Failure::new(
            Exit::Usage,
            format!("`{}` is not an address and port", args.http),
            "write --http 127.0.0.1:0",
        )
    })?;
    let http = http::Settings {
        addr: settings.http_addr,
        names: Vec::new(),
        trusted_nets: TrustedNets::default(),
        token: None,
        registry: http::RegistryAccess::Own,
    };
    run(async {
        let ended = run_dev(http, &args.agents, args.json, console).await;
        stop_traces(traces).await;
        ended
    })?;
    Ok(Exit::Done)
}

async fn run_dev(
    http: http::Settings,
    agents: &[PathBuf],
    json: bool,
    console: Console,
) -> Result<(), Failure> {
    // Caught before there is a folder, so that a signal always removes them.
    let mut signals = Signals::catch()?;
    let listener = http::bind(http).await.map_err(|error| Failure::plain(Exit::Failure, &error))?;
    let nodes = tokio::select! {
        nodes = start_all(agents) => nodes?,
        _ = signals.next() => return Ok(()),
    };
    let first = &nodes[0];
    let server = listener.serve(first.running.handle.clone());
    let ready = ready(first.key.to_string(), &first.running, &server, NETWORK);
    match json {
        true => drop(print_json_line(&ready)),
        false => print_ready(&ready, console),
    }
    // The folders are kept until the nodes have stopped, which write until then.
    let (nodes, _folders): (Vec<_>, Vec<_>) =
        nodes.into_iter().map(|node| (node.running, (node.folder, node.files))).unzip();
    live(vec![server], nodes, signals).await
}

/// The nodes, the first first and with the agents of files, the samples dealt out to the others of their zones.
async fn start_all(agents: &[PathBuf]) -> Result<Vec<DevNode>, Failure> {
    let samples = samples()?;
    let zones = zones()?;
    // Alone before the others, because they need its address.
    let first = start(&zones[0], Vec::new(), Vec::new(), agents).await?;
    let count = samples.len() + first.running.handle.local_agents().list().len();
    // One address suffices on loopback; a second would only be dialed in vain.
    let bootstrap: Vec<_> = first.running.listen.first().cloned().into_iter().collect();
    let others = zones[1..].iter().zip(deal(samples, &zones[1..]));
    let others = others.map(|(zone, hosted)| start(zone, bootstrap.clone(), hosted, &[]));
    let others = try_join_all(others).await?;
    // Late samples still arrive; the world is usable without them.
    let _ = timeout(SPREAD_TIME_MAX, all_found(&first, count)).await;
    Ok(std::iter::once(first).chain(others).collect())
}

fn zones() -> Result<Vec<ZoneName>, Failure> {
    let parsed = ZONES.iter().map(|zone| zone.parse());
    parsed.collect::<Result<_, _>>().map_err(|error| Failure::plain(Exit::Failure, &error))
}

async fn start(
    zone: &ZoneName,
    bootstrap: Vec<Multiaddr>,
    hosted: Vec<HostedAgent>,
    paths: &[PathBuf],
) -> Result<DevNode, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::plain(Exit::Failure, error);
    let folder = tempfile::Builder::new().prefix("aop-dev-").tempdir().map_err(|error| failed(&error))?;
    let identity = Identity::from_seed(rand::random());
    let key = identity.key();
    let listen = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"].map(str::parse);
    let agents = Agents::new(zone.clone());
    agents.replace(hosted);
    let host = OfferingNode { key, network: NETWORK.into(), home: zone.clone() };
    let files = Files::start(paths, host, &agents, report).await;
    let options = host::Options {
        zones: vec![zone.clone()],
        bootstrap,
        agents,
        listen: listen.into_iter().collect::<Result<_, _>>().map_err(|error| failed(&error))?,
        timings: Config {
            walk_interval: WALK_INTERVAL,
            alone_after: ALONE_AFTER,
            follow_interval: FOLLOW_INTERVAL,
            ..Config::default()
        },
        ..host::Options::new(identity, NETWORK, folder.path())
    };
    let running = host::start(options).await.map_err(|error| failed(&error))?;
    Ok(DevNode { running, key, folder, files })
}

/// The samples in turn to each of the nodes in their zones.
fn deal(samples: Vec<HostedAgent>, zones: &[ZoneName]) -> Vec<Vec<HostedAgent>> {
    let mut hands: Vec<Vec<HostedAgent>> = zones.iter().map(|_| Vec::new()).collect();
    let mut dealt: BTreeMap<ZoneName, usize> = BTreeMap::new();
    for sample in samples {
        let zone = sample.offer.zone.clone().unwrap_or_else(ZoneName::root);
        let mut mates: Vec<_> = zones.iter().zip(&mut hands).filter(|(of, _)| **of == zone).collect();
        let turn = dealt.entry(zone).or_default();
        let next = *turn % mates.len().max(1);
        if let Some((_, hand)) = mates.get_mut(next) {
            hand.push(sample);
            *turn += 1;
        }
    }
    hands
}

/// Agents that run here, and listings.
fn samples() -> Result<Vec<HostedAgent>, Failure> {
    let documents: Vec<Value> =
        serde_json::from_str(SAMPLES).map_err(|error| Failure::plain(Exit::Failure, &error))?;
    let run_configs: Vec<_> =
        documents.iter().map(|document| read_run_config(document.as_object()?, Path::new("."))).collect();
    let locals =
        read_documents(documents.into()).into_iter().zip(run_configs).map(|(outcome, run_config)| {
            let mut offer = outcome.map_err(|refusal| Failure::plain(Exit::Failure, &refusal.message))?;
            // The reader makes listings; only this place knows which of them run.
            offer.card.callable = run_config.is_some();
            Ok(HostedAgent { offer, run_config })
        });
    locals.collect()
}

/// Resolves when the node finds `count` agents, and every zone has answered whole.
async fn all_found(node: &DevNode, count: usize) {
    loop {
        let everything = FindQuery { limit: Some(count), ..FindQuery::default() };
        // A question that fails counts as nothing seen; the caller's timeout ends the wait.
        let found = node.running.handle.find(everything).await.unwrap_or_default();
        if found.complete && found.results.len() >= count {
            return;
        }
        sleep(LOOK_INTERVAL).await;
    }
}

fn print_ready(ready: &Ready, console: Console) {
    let url = &ready.http;
    let node = match url.as_str() {
        "http://127.0.0.1:7400" => String::new(),
        other => format!(" --node {other}"),
    };
    console.print("five nodes of three zones are up; open the page of the first, which serves the root:");
    console.print(&format!("  {url}/"));
    console.print("or, in another terminal:");
    console.print(&format!("  aop find \"summarise a document\"{node}"));
    console.print(&format!("  aop call echo --task hello{node}"));
    console.print(&format!("  aop call clock@acme.org{node}"));
    console.print(&format!("  aop zones{node}"));
    console.print(&format!("  claude mcp add --transport http aop {url}/mcp     # any MCP host: {url}/mcp"));
    console.print("ctrl-c stops them and removes their data");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::run_config::Runner;

    fn named(name: &str) -> HostedAgent {
        let samples = samples().unwrap_or_else(|failure| panic!("{failure:?}"));
        samples.into_iter().find(|local| local.offer.name.as_str() == name).unwrap()
    }

    #[test]
    fn what_the_hints_name_can_be_called() {
        for name in ["echo", "summarizer"] {
            let local = named(name);
            assert!(local.run_config.is_some() && local.offer.card.callable, "{name}");
        }
        let listing = named("translator");
        assert!(listing.run_config.is_none() && !listing.offer.card.callable);
        assert!(!listing.offer.card.endpoints.is_empty());
    }

    #[test]
    fn each_zone_has_agents_that_run_and_each_other_node_hosts_some_agent() {
        let samples = samples().unwrap_or_else(|failure| panic!("{failure:?}"));
        let (zones, count) = (zones().unwrap_or_else(|failure| panic!("{failure:?}")), samples.len());
        let runs = |hand: &[HostedAgent]| hand.iter().any(|local| local.run_config.is_some());
        let hands = deal(samples, &zones[1..]);
        assert!(hands.iter().all(|hand| !hand.is_empty()));
        assert_eq!(hands.iter().map(Vec::len).sum::<usize>(), count, "none is of a zone that nobody serves");
        let serve =
            |zone: &ZoneName| zones[1..].iter().zip(&hands).any(|(of, hand)| of == zone && runs(hand));
        assert!(zones.iter().all(serve));
    }

    #[cfg(unix)]
    #[test]
    fn the_commands_of_the_samples_do_what_they_say() {
        let said = |name: &str, input: Value| {
            let Some(Runner::Command(program)) = named(name).run_config.map(|run_config| run_config.runner)
            else {
                panic!("{name} is no command");
            };
            answer_of(&program.command, &input)
        };
        let task = |text: &str| serde_json::json!({ "task": text });
        assert_eq!(said("word-counter", task("one two\nthree \"four\"")), "4");
        assert_eq!(said("word-counter", task("")), "0");
        assert_eq!(
            said("summarizer", task("One \"word\" {more}. Two. Three.")),
            "\"One \\\"word\\\" {more}.\""
        );
        assert_eq!(said("summarizer", task("Is it?\nYes. No.")), "\"Is it?\"");
        assert_eq!(said("summarizer", task("no sentence")), "\"no sentence\"");
        assert!(said("clock", task("")).ends_with('Z'));
        assert_eq!(said("headline-writer", task("agents find\n\"agents\"")), "AGENTS FIND \\\"AGENTS\\\"");
    }

    /// Runs a command as a host does: JSON on stdin, the answer on stdout.
    fn answer_of(command: &[String], input: &Value) -> String {
        use std::io::Write;
        use std::process::{Command, Stdio};
        let mut process = Command::new(&command[0]);
        let process = process.args(&command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = process.spawn().unwrap();
        // The clock does not read its input.
        let _unread = child.stdin.take().unwrap().write_all(input.to_string().as_bytes());
        let output = child.wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}
