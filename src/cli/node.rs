//! `aop node`: settings to a running node with its HTTP API, a ready line, and `node.json` while it runs.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use serde_bytes::ByteBuf;
use tokio::sync::{Notify, watch};

use super::args::NodeCommand;
use super::failure::{Exit, Failure, report};
use super::log::json::name_node;
use super::output::{Console, print_json_line};
use super::process::{Signals, change_logs, live, run, start_logs, stop_traces};
use super::time::now_ms;
use super::{settings, supervisor};
use crate::agents::Agents;
use crate::agents::files::Files;
use crate::agents::grants::OfferingNode;
use crate::api::Ready;
use crate::config::{Anchor, Effective, Import, Origin, Settings};
use crate::document::CardKeys;
use crate::host::{self, HealthClient};
use crate::http::{self, Listener, MetricsListener, RegistryAccess, Token};
use crate::key_file::read_or_create_key;
use crate::private_file::make_folder;
use crate::proto::config::Config;
use crate::proto::grant::Grant;
use crate::proto::identity::PeerKey;
use crate::proto::name::ZoneName;
use crate::proto::time::Timestamp;
use crate::telemetry::otel::Traces;

/// How long lies between two writes of `node.json`: interfaces come in groups.
const REWRITE_INTERVAL: Duration = Duration::from_secs(1);

/// Runs a node until a signal.
pub(super) fn node(args: &NodeCommand, verbose: u8, console: Console) -> Result<Exit, Failure> {
    let (mut settings, effective) = settings::load(&args.settings)?;
    // What nobody asked for is left out in silence where the machine cannot have it.
    if is_default(&effective, "listen") && !host::has_ipv6() {
        settings.listen.retain(|address| !matches!(address.iter().next(), Some(Protocol::Ip6(_))));
    }
    let traces = start_logs(settings.log.as_deref(), settings.is_log_json, verbose, console.quiet)?;
    let file = settings::file(&args.settings);
    if let Some(file) = &file {
        tracing::info!(file = %file.display(), "settings were read");
        if !args.json {
            console.print(&format!("config  {}", file.display()));
        }
    }
    run(async {
        let reload = Reload { args, verbose, console, effective };
        let ended = run_node(settings, reload, traces.as_ref()).await;
        stop_traces(traces).await;
        ended
    })?;
    Ok(Exit::Done)
}

/// A node with its API, up.
struct Started {
    node: host::Running,
    servers: Vec<http::Server>,
    ready: Ready,
    from_files: usize,
    /// Follows the agents' files while it lives.
    files: Files,
}

async fn run_node(settings: Settings, reload: Reload<'_>, traces: Option<&Traces>) -> Result<(), Failure> {
    // Before anything starts: a signal that nobody catches ends the process half-way.
    let mut signals = Signals::catch()?;
    let wanted = signals.reload_at_hangup();
    let started = tokio::select! {
        started = start(&settings) => started?,
        // Asked to stop before it was up: there is nobody to say goodbye to.
        _ = signals.next() => return Ok(()),
    };
    let node = &started.ready.peer_id;
    name_node(node);
    if let Some(traces) = traces {
        traces.identify(node, &settings.network);
    }
    tracing::info!(event = "node_started", http = started.ready.http, zones = ?started.ready.zones, "the node is up");
    // Written once the API answers, so that whoever finds it may ask at once.
    let file = ReadyFile::write(&settings.data_dir, &started.ready)
        // A full disk has no room for it, and is served from all the same.
        .inspect_err(|failure| tracing::warn!("{failure}"))
        .ok();
    match reload.args.json {
        // A parent that no longer reads is no reason to stop.
        true => drop(print_json_line(&started.ready)),
        false => print_ready(&started, &settings, reload.console),
    }
    supervisor::ready();
    let addresses = started.node.addresses.clone();
    let health = HealthClient::new(started.node.handle.clone());
    let ended = tokio::select! {
        never = reload.whenever(&wanted, &started.files) => match never {},
        never = supervisor::keep_alive(&health) => match never {},
        ended = live(started.servers, vec![started.node], signals) => ended,
        never = follow(addresses, &started.ready, file.as_ref(), &settings.network) => match never {},
    };
    tracing::info!(event = "node_stopped", "the node has stopped");
    ended
}

/// What is read again while the node runs.
struct Reload<'a> {
    args: &'a NodeCommand,
    verbose: u8,
    console: Console,
    /// What the node runs with.
    effective: Vec<Effective>,
}

impl Reload<'_> {
    /// Reads the files of agents and the directives of the log again whenever that is wanted.
    async fn whenever(&self, wanted: &Notify, files: &Files) -> Infallible {
        loop {
            wanted.notified().await;
            supervisor::reloading();
            // What is wrong was reported, and nothing has changed.
            if let Ok((settings, effective)) = settings::load(&self.args.settings) {
                self.take(&settings, &effective);
            }
            files.read_again();
            supervisor::ready();
        }
    }

    fn take(&self, settings: &Settings, effective: &[Effective]) {
        if change_logs(settings.log.as_deref(), self.verbose, self.console.quiet)
            .inspect_err(|failure| tracing::warn!("{failure}"))
            .is_ok()
        {
            tracing::info!("settings and agents' files are read again");
        }
        let changed =
            |(now, before): &(&Effective, &Effective)| now.values != before.values && now.key != "log";
        let changed: Vec<&str> =
            effective.iter().zip(&self.effective).filter(changed).map(|(now, _)| now.key).collect();
        if !changed.is_empty() {
            let settings = changed.join(", ");
            tracing::warn!(settings, "settings that changed take effect at the next start");
        }
    }
}

/// Keeps `node.json` up with the addresses of the machine.
async fn follow(
    mut addresses: watch::Receiver<Vec<Multiaddr>>,
    ready: &Ready,
    file: Option<&ReadyFile>,
    network: &str,
) -> Infallible {
    // A node that ends tells no more; whoever waits for its end ends this.
    while let (Ok(()), Some(file)) = (addresses.changed().await, file) {
        let listen: Vec<String> = addresses.borrow_and_update().iter().map(ToString::to_string).collect();
        let ready = Ready { join: host::join_line(&listen, network), listen, ..ready.clone() };
        if let Err(failure) = file.rewrite(&ready) {
            tracing::warn!("{failure}");
        }
        tokio::time::sleep(REWRITE_INTERVAL).await;
    }
    std::future::pending().await
}

/// Whether nobody set it.
fn is_default(effective: &[Effective], key: &str) -> bool {
    effective.iter().any(|effective| effective.key == key && effective.origin == Origin::Default)
}

async fn start(settings: &Settings) -> Result<Started, Failure> {
    // The ports first: they are what fails most often, and nothing has been written yet.
    let listener = bind(settings).await?;
    let metrics = bind_metrics(settings).await?;
    make_folder(&settings.data_dir).map_err(|error| Failure::plain(Exit::Failure, &error))?;
    let (identity, new_key) =
        read_or_create_key(&settings.identity).map_err(|error| Failure::plain(Exit::Failure, &error))?;
    let peer_id = identity.key().to_string();
    check_delegations(&settings.anchors, identity.key())?;
    let card_keys = read_card_keys(&settings.card_keys)?;
    let home = settings.zones.first().cloned().unwrap_or_else(ZoneName::root);
    let host = OfferingNode { key: identity.key(), network: settings.network.clone(), home: home.clone() };
    let agents = Agents::new(home);
    let files = Files::start(&settings.agents, host, &agents, report).await;
    let from_files = agents.list().len();
    let node = host::start(host::Options {
        identity,
        new_key,
        name: settings.name.clone(),
        network: settings.network.clone(),
        zones: settings.zones.clone(),
        follows: settings.follow.clone(),
        zone_keys: settings.anchors.iter().map(|anchor| (anchor.zone.clone(), anchor.key)).collect(),
        delegation_grants: delegation_grants(&settings.anchors),
        gateway: settings.gateway,
        bootstrap: settings.bootstrap.clone(),
        listen: settings.listen.clone(),
        announce: settings.announce.clone(),
        reach: settings.reach,
        trusted_nets: settings.trusted_nets.clone(),
        data_dir: settings.data_dir.clone(),
        agents,
        residency: settings.residency.clone(),
        card_keys,
        imports: settings.imports.iter().map(repeated).collect(),
        timings: Config::default(),
    });
    let node = node.await.map_err(|error| Failure::plain(Exit::Failure, &error))?;
    let server = listener.serve(node.handle.clone());
    let metrics = metrics.map(|listener| listener.serve(node.handle.clone(), &server));
    let ready = Ready {
        metrics: metrics.as_ref().map(http::Server::url),
        ..ready(peer_id, &node, &server, &settings.network)
    };
    let servers = std::iter::once(server).chain(metrics).collect();
    Ok(Started { node, servers, ready, from_files, files })
}

fn read_card_keys(files: &[PathBuf]) -> Result<CardKeys, Failure> {
    let mut keys = CardKeys::default();
    for file in files {
        let text = std::fs::read_to_string(file).map_err(|error| error.to_string());
        let added = text.and_then(|text| keys.add(CardKeys::read(&text)?));
        added.map_err(|why| {
            let fix = r#"write a JSON Web Key Set: {"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "…", "x": "…"}]}"#;
            Failure::new(Exit::Failure, format!("cannot read the keys in {}: {why}", file.display()), fix)
        })?;
    }
    Ok(keys)
}

fn repeated(import: &Import) -> host::ImportSettings {
    let Import { url, zones, kind, every, header_env, origin: _ } = import.clone();
    host::ImportSettings { url, zones, kind, every, header_env }
}

/// The grants by which this node delegates its zones must have been given to it.
fn check_delegations(anchors: &[Anchor], own: PeerKey) -> Result<(), Failure> {
    for Anchor { zone, grant_file, grants, origin, .. } in anchors {
        let read: Vec<Grant> = grants.iter().filter_map(|signed| Grant::read(signed).ok()).collect();
        let (Some(last), Some(path)) = (read.last(), grant_file) else { continue };
        if last.subject != own {
            let message = format!(
                "the grants in {} ({origin}) were given to {}, and this node is {own}",
                path.display(),
                last.subject
            );
            let fix = format!("aop keys grant --key FILE --to {own} --zone {zone} --kind delegation");
            return Err(Failure::new(Exit::Usage, message, fix));
        }
        if read.iter().any(|grant| grant.expires_at <= Timestamp(now_ms())) {
            tracing::warn!(%zone, file = %path.display(), "its grants have ended: zones above hear nothing of it from here");
        }
    }
    Ok(())
}

fn delegation_grants(anchors: &[Anchor]) -> BTreeMap<ZoneName, Vec<ByteBuf>> {
    let granted = anchors.iter().filter(|anchor| !anchor.grants.is_empty());
    granted
        .map(|anchor| (anchor.zone.clone(), anchor.grants.iter().cloned().map(ByteBuf::from).collect()))
        .collect()
}

/// Binds the HTTP address with its token.
async fn bind(settings: &Settings) -> Result<Listener, Failure> {
    let token = settings.http_token_file.as_deref().map(Token::read).transpose();
    let token = token.map_err(|error| Failure::plain(Exit::Usage, &error))?;
    let bound = http::bind(http::Settings {
        addr: settings.http_addr,
        names: settings.http_names.clone(),
        trusted_nets: settings.trusted_nets.clone(),
        token,
        registry: if settings.is_registry_public { RegistryAccess::Public } else { RegistryAccess::Own },
    })
    .await;
    bound.map_err(|error| match error {
        // A missing token is a mistake in what was typed; a port that is taken is not.
        http::BindError::NoToken(_) => Failure::plain(Exit::Usage, &error),
        _ => Failure::plain(Exit::Failure, &error),
    })
}

/// Binds the address of metrics and health, if there is one.
async fn bind_metrics(settings: &Settings) -> Result<Option<MetricsListener>, Failure> {
    let Some(addr) = settings.metrics_addr else { return Ok(None) };
    let bound = http::bind_metrics(addr, settings.http_names.clone(), settings.trusted_nets.clone()).await;
    bound.map(Some).map_err(|error| Failure::plain(Exit::Failure, &error))
}

/// The ready line.
pub(super) fn ready(peer_id: String, node: &host::Running, server: &http::Server, network: &str) -> Ready {
    let listen: Vec<String> = node.listen.iter().map(ToString::to_string).collect();
    Ready {
        event: "ready".into(),
        peer_id,
        join: host::join_line(&listen, network),
        listen,
        http: server.url(),
        metrics: None,
        zones: node.zones.iter().map(ToString::to_string).collect(),
        // Who reads stdout started the process; only `node.json` is for others.
        pid: None,
    }
}

fn print_ready(started: &Started, settings: &Settings, console: Console) {
    let ready = &started.ready;
    let name = settings.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    console.print(&format!("node    {}{name}, aop {}", ready.peer_id, env!("CARGO_PKG_VERSION")));
    for address in &ready.listen {
        console.print(&format!("mesh    {address}"));
    }
    console.print(&format!("http    {}", ready.http));
    if let Some(metrics) = &ready.metrics {
        console.print(&format!("metrics {metrics}/metrics"));
    }
    console.print(&format!("zones   {}", ready.zones.join(", ")));
    if let Some(join) = &ready.join {
        console.print(&format!("join    {join}"));
    }
    console.print(&format!("agents  {} from files", started.from_files));
    console.print("ready; ctrl-c stops it");
}

/// `DATA_DIR/node.json`, removed at the end.
struct ReadyFile(PathBuf);

impl ReadyFile {
    fn write(folder: &Path, ready: &Ready) -> Result<ReadyFile, Failure> {
        let file = ReadyFile(folder.join("node.json"));
        file.rewrite(ready)?;
        Ok(file)
    }

    fn rewrite(&self, ready: &Ready) -> Result<(), Failure> {
        let ReadyFile(path) = self;
        let ready = Ready { pid: Some(std::process::id()), ..ready.clone() };
        let unwritable = |error: &dyn std::fmt::Display| {
            Failure::new(
                Exit::Failure,
                format!("cannot write {}: {error}", path.display()),
                "check the data folder",
            )
        };
        let text = serde_json::to_string(&ready).map_err(|error| unwritable(&error))?;
        // Renamed into place: a reader sees all of it or none.
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|error| unwritable(&error))?;
        writeln!(file, "{text}").map_err(|error| unwritable(&error))?;
        file.persist(path).map(drop).map_err(|error| unwritable(&error))
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        // The process is ending, and there is nobody left to tell.
        let _ = fs::remove_file(&self.0);
    }
}
