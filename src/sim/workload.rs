//! What clients of the nodes do: offer agents, change them, withdraw them.

use super::World;
use super::check::Operation;
use crate::proto::card::{AgentCard, Offer, Scope};
use crate::proto::name::{AgentName, FullName, ZoneName};
use crate::proto::node::{Command, Input};

/// What a client of one machine wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Offer agents: names and descriptions.
    Offer(Vec<(AgentName, String)>),
    /// Withdraw an agent.
    Withdraw(AgentName),
}

impl World {
    /// Hands a wish to a machine's node; a machine that is down does not hear it.
    pub(super) fn grant(&mut self, at: usize, wish: Wish) {
        if self.machines[at].node.is_none() {
            return;
        }
        let (operations, command) = match wish {
            Wish::Offer(offers) => {
                let operations =
                    offers.iter().map(|(name, text)| (name.clone(), Operation::Offered(text.clone())));
                let operations = operations.collect();
                (operations, Command::Register(offers.into_iter().map(offer).collect()))
            }
            Wish::Withdraw(name) => {
                let full = full_name(name.clone());
                (vec![(name, Operation::Withdrawn)], Command::Deregister(full))
            }
        };
        let id = self.reference.expect_reply(operations);
        self.tell(at, Input::Command { id, command });
    }
}

/// All agents of the simulation lie in the root zone.
pub(super) fn full_name(agent: AgentName) -> FullName {
    FullName { agent, zone: ZoneName::root() }
}

pub(super) fn offer((name, description): (AgentName, String)) -> Offer {
    let card = AgentCard { description, callable: true, ..AgentCard::default() };
    Offer { name, zone: None, scope: Scope::Public, card, grants: Vec::new() }
}
