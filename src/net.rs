//! Stand-in for the live node: a registry in memory without a network, to be replaced at the merge.

pub mod store;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::broadcast;

use crate::api::{self, ApiError, Event};
use crate::document::Refusal;
use crate::proto::card::Offer;
use crate::proto::identity::{AgentId, Identity, PeerKey};
use crate::proto::name::{FullName, ZoneName};

/// What a node needs to start.
pub struct Options {
    /// Its key.
    pub identity: Identity,
    /// Its world.
    pub network: String,
    /// Zones served.
    pub zones: Vec<ZoneName>,
    /// Zones followed.
    pub follows: Vec<ZoneName>,
    /// First peers.
    pub bootstrap: Vec<libp2p::Multiaddr>,
    /// Addresses to listen on.
    pub listen: Vec<libp2p::Multiaddr>,
    /// Where it keeps its state.
    pub data_dir: PathBuf,
    /// Agents from files.
    pub agent_files: Vec<Offer>,
}

/// Why a node did not start or stop.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

/// A running node.
pub struct Running {
    /// To talk to it.
    pub handle: Handle,
    /// Where it listens.
    pub listen: Vec<libp2p::Multiaddr>,
}

/// Talks to a node.
#[derive(Clone)]
pub struct Handle(Arc<Inner>);

struct Inner {
    key: PeerKey,
    network: String,
    home: ZoneName,
    started: Instant,
    agents: Mutex<BTreeMap<String, api::AgentDetail>>,
    events: broadcast::Sender<Event>,
}

/// Starts a node.
pub async fn start(options: Options) -> Result<Running, StartError> {
    let inner = Inner {
        key: options.identity.key(),
        network: options.network,
        home: options.zones[0].clone(),
        started: Instant::now(),
        agents: Mutex::default(),
        events: broadcast::channel(64).0,
    };
    let handle = Handle(Arc::new(inner));
    let _ = handle.register(None, options.agent_files).await;
    let listen = format!("/ip4/127.0.0.1/tcp/1/p2p/{}", options.identity.key());
    Ok(Running { handle, listen: vec![listen.parse().map_err(|_| StartError("address".into()))?] })
}

impl Running {
    /// Stops it.
    pub async fn stop(self) -> Result<(), StartError> {
        Ok(())
    }
    /// Resolves when it stopped by itself.
    pub async fn failed(&mut self) -> String {
        std::future::pending().await
    }
}

impl Handle {
    /// Registers, in order.
    pub async fn register(
        &self,
        zone: Option<ZoneName>,
        items: Vec<Offer>,
    ) -> Result<Vec<Result<api::Registered, Refusal>>, ApiError> {
        let zone = zone.unwrap_or_else(|| self.0.home.clone());
        let mut agents = self.0.agents.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(items
            .into_iter()
            .map(|item| {
                let full = FullName { agent: item.name, zone: item.zone.unwrap_or_else(|| zone.clone()) };
                let id = AgentId::of(self.0.key, &full).to_string();
                let agent = full.to_string();
                let mut detail = api::AgentDetail::default();
                detail.agent.agent = agent.clone();
                detail.agent.id = id.clone();
                detail.agent.description = item.card.description;
                agents.insert(agent.clone(), detail);
                let host = self.0.key.to_string();
                let _ = self.0.events.send(Event::AgentChanged {
                    agent: agent.clone(),
                    id: id.clone(),
                    host,
                    via: "local".into(),
                });
                Ok(api::Registered { agent, id })
            })
            .collect())
    }
    /// Deregisters.
    pub async fn deregister(&self, agent: &str) -> Result<api::Registered, ApiError> {
        let detail = self.show(agent).await?;
        self.0.agents.lock().unwrap_or_else(PoisonError::into_inner).remove(agent);
        Ok(api::Registered { agent: detail.agent.agent, id: detail.agent.id })
    }
    /// Finds.
    pub async fn find(&self, query: api::FindQuery) -> Result<api::FindAnswer, ApiError> {
        let agents = self.0.agents.lock().unwrap_or_else(PoisonError::into_inner);
        let results =
            agents.values().map(|d| d.agent.clone()).filter(|a| a.agent.contains(&query.q)).collect();
        Ok(api::FindAnswer { results, complete: true, ..Default::default() })
    }
    /// Shows.
    pub async fn show(&self, agent: &str) -> Result<api::AgentDetail, ApiError> {
        let agents = self.0.agents.lock().unwrap_or_else(PoisonError::into_inner);
        agents.get(agent).cloned().ok_or_else(|| ApiError {
            code: "not_found".into(),
            message: format!("no agent `{agent}`"),
            fix: "aop find".into(),
            close: agents.keys().take(3).cloned().collect(),
        })
    }
    /// Lists.
    pub async fn agents(
        &self,
        _zone: Option<String>,
        limit: usize,
        cursor: Option<String>,
    ) -> Result<api::AgentPage, ApiError> {
        let agents = self.0.agents.lock().unwrap_or_else(PoisonError::into_inner);
        let after = cursor.unwrap_or_default();
        let mut rest = agents.values().filter(|d| d.agent.agent > after).map(|d| d.agent.clone());
        let results: Vec<_> = rest.by_ref().take(limit).collect();
        let cursor = rest.next().and(results.last().map(|last| last.agent.clone()));
        Ok(api::AgentPage { results, cursor })
    }
    /// Health.
    pub async fn status(&self) -> Result<api::Status, ApiError> {
        Ok(api::Status {
            peer_id: self.0.key.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_s: self.0.started.elapsed().as_secs(),
            network: self.0.network.clone(),
            health: "ok".into(),
            ..Default::default()
        })
    }
    /// Peers.
    pub async fn peers(&self) -> Result<api::Peers, ApiError> {
        Ok(api::Peers::default())
    }
    /// Events.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.0.events.subscribe()
    }
    /// Whether the first sync is done.
    pub async fn ready(&self) -> bool {
        true
    }
    /// Prometheus text.
    pub async fn metrics(&self) -> Result<String, ApiError> {
        Ok("# TYPE aop_up gauge\naop_up 1\n".into())
    }
}
