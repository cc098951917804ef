//! Local agents: what this host runs, how, and within which limits.
//!
//! [`Agents`] holds the agents of this host. It knows no peers and no sockets of its own: the node offers to the world
//! what [`Agents::offers`] says, and the surfaces call through [`Agents::call`]. Input and output are checked against the
//! agent's schemas, work ends at its deadline, and no agent takes more than its places, its output and its memory.

mod builtin;
#[cfg_attr(not(test), expect(dead_code, reason = "the runner of MCP agents is not joined to it yet"))]
mod upstream;

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::document::hosting::{Hosting, Runner};
use crate::proto::call::{CallFailure, Outcome, Progress};
use crate::proto::card::Offer;
use crate::proto::name::{FullName, ZoneName};

pub use crate::proto::config::CALL_BYTES_MAX;

/// An agent of this host: what the world sees, and how it runs here. A listing has no hosting.
#[derive(Clone, Debug, PartialEq)]
pub struct Local {
    /// What is offered to the world.
    pub offer: Offer,
    /// How it runs; none for a listing.
    pub hosting: Option<Hosting>,
}

/// One call of a local agent. Dropping its future ends the work.
#[derive(Debug)]
pub struct Task {
    /// The agent's own input document.
    pub input: Value,
    /// When the whole call ends, waiting included.
    pub deadline: Instant,
    /// Takes reports of progress; a full channel loses reports, never delays work.
    pub progress: Option<mpsc::Sender<Progress>>,
}

/// The agents of this host. Cheap to clone.
#[derive(Clone)]
pub struct Agents(Arc<Inner>);

struct Inner {
    home: ZoneName,
    agents: RwLock<Arc<BTreeMap<FullName, Local>>>,
    changes: watch::Sender<u64>,
}

impl Agents {
    /// No agents yet; those without a zone will lie in `home`.
    pub fn new(home: ZoneName) -> Agents {
        let (changes, _) = watch::channel(0);
        Agents(Arc::new(Inner { home, agents: RwLock::default(), changes }))
    }

    /// Takes these agents for all of this host's.
    pub fn replace(&self, agents: Vec<Local>) {
        let named = agents.into_iter().map(|local| {
            let zone = local.offer.zone.clone().unwrap_or_else(|| self.0.home.clone());
            (FullName { agent: local.offer.name.clone(), zone }, local)
        });
        let named = Arc::new(named.collect());
        *self.0.agents.write().unwrap_or_else(std::sync::PoisonError::into_inner) = named;
        self.0.changes.send_modify(|count| *count += 1);
    }

    /// Every agent of this host, by name.
    pub fn list(&self) -> Arc<BTreeMap<FullName, Local>> {
        self.0.agents.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// What the node is to offer to the world.
    pub fn offers(&self) -> Vec<Offer> {
        self.list().values().map(|local| local.offer.clone()).collect()
    }

    /// Counts changes of [`Agents::list`].
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Whether this host runs the agent.
    pub fn runs(&self, name: &FullName) -> bool {
        self.list().get(name).is_some_and(|local| local.hosting.is_some())
    }

    /// Runs one call to its end: the agent's output document, checked.
    ///
    /// # Errors
    /// Says in [`CallFailure::outcome`] whether the agent saw the input.
    pub async fn call(&self, name: &FullName, task: Task) -> Result<Value, CallFailure> {
        let list = self.list();
        let Some(Local { hosting: Some(hosting), .. }) = list.get(name) else {
            return Err(CallFailure::new(
                "not_found",
                Outcome::NotStarted,
                format!("{name} is not run here"),
            ));
        };
        let work = match &hosting.runner {
            Runner::Builtin(builtin) => builtin::run(*builtin, &task),
            _ => return Err(CallFailure::new("internal", Outcome::NotStarted, "not built yet")),
        };
        match tokio::time::timeout_at(task.deadline, work).await {
            Ok(done) => done,
            Err(_) => Err(CallFailure::new("deadline", Outcome::Unknown, "the deadline ended the work")),
        }
    }
}
