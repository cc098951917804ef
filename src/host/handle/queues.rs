//! The queues of this host's own agents, as its operator sees and changes them. No registry is asked: what is called elsewhere
//! waits elsewhere.

use super::Handle;
use super::call::id_here;
use crate::agents::Agents;
use crate::api::{self, ApiError, QueueChange};
use crate::host::view;
use crate::proto::identity::PeerKey;
use crate::proto::name::FullName;

/// Shows queues and changes them. Cheap to make.
pub struct QueueClient {
    agents: Agents,
    key: PeerKey,
}

impl QueueClient {
    /// For the agents of this node.
    pub fn new(handle: &Handle) -> QueueClient {
        QueueClient { agents: handle.agents.clone(), key: handle.key }
    }

    /// What every agent that runs here has to do, by name.
    pub fn list(&self) -> api::Queues {
        let list = self.agents.list();
        let queue = |name| Some(view::queue(name, self.agents.queue(name)?, None));
        api::Queues { queues: list.keys().filter_map(queue).collect(), cleared: None }
    }

    /// What an agent has to do that is given by full name, bare name or id.
    ///
    /// # Errors
    /// It does not run here, or several of this name do.
    pub fn show(&self, agent: &str) -> Result<api::Queue, ApiError> {
        let name = self.named(agent)?;
        let state = self.agents.queue(&name).ok_or_else(|| view::no_queue(agent))?;
        Ok(view::queue(&name, state, None))
    }

    /// Changes the queue of an agent, given as for [`QueueClient::show`]; how it is then.
    ///
    /// # Errors
    /// As for [`QueueClient::show`]; nothing was changed.
    pub fn change(&self, agent: &str, change: QueueChange) -> Result<api::Queue, ApiError> {
        let name = self.named(agent)?;
        self.change_own(&name, change).ok_or_else(|| view::no_queue(agent))
    }

    /// Changes the queues of all agents that run here, one after the other; how they are then.
    pub fn change_all(&self, change: QueueChange) -> api::Queues {
        let list = self.agents.list();
        let queues: Vec<_> = list.keys().filter_map(|name| self.change_own(name, change)).collect();
        let cleared = (change == QueueChange::Clear).then(|| queues.iter().filter_map(|it| it.cleared).sum());
        api::Queues { queues, cleared }
    }

    /// None if the agent does not run here, such as a listing.
    fn change_own(&self, name: &FullName, change: QueueChange) -> Option<api::Queue> {
        let (state, cleared) = match change {
            QueueChange::Pause => (self.agents.pause(name)?, None),
            QueueChange::Resume => (self.agents.resume(name)?, None),
            QueueChange::Clear => {
                let cleared = self.agents.clear(name)?;
                (self.agents.queue(name)?, Some(cleared))
            }
        };
        tracing::info!(event = "queue_changed", agent = %name, %change, cleared, "its queue was changed");
        Some(view::queue(name, state, cleared))
    }

    fn named(&self, text: &str) -> Result<FullName, ApiError> {
        let list = self.agents.list();
        if let Some((name, _)) = text.parse().ok().and_then(|name: FullName| list.get_key_value(&name)) {
            return Ok(name.clone());
        }
        // A listing has no queue, and its name stands in nobody's way.
        let mut running = list.iter().filter(|(_, local)| local.run_config.is_some());
        let bare = running.clone().map(|(name, _)| name).filter(|name| name.agent.as_str() == text);
        let of_name: Vec<&FullName> = bare.collect();
        match of_name[..] {
            [name] => Ok(name.clone()),
            [] => {
                let named = running.find(|(name, local)| id_here(self.key, name, local).to_string() == text);
                named.map(|(name, _)| name.clone()).ok_or_else(|| view::no_queue(text))
            }
            // A call would take the one of the nearest zone; what is halted or ended is to be named.
            _ => Err(view::ambiguous_here(text, &of_name)),
        }
    }
}
