//! What clients of the nodes do: offer agents, change them, withdraw them.

use super::World;
use super::check::Operation;
use crate::proto::card::{AgentCard, Offer, Scope};
use crate::proto::config::{DESCRIPTION_BYTES_MAX, SCHEMA_BYTES_MAX};
use crate::proto::io::{Command, Input};
use crate::proto::name::{AgentName, FullName, ZoneName};

/// What a client of one machine wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Offer agents: names, and what their cards say.
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

/// A card that says a text. What is longer than a description fills the schemas, which nobody reads here.
pub(super) fn offer((name, text): (AgentName, String)) -> Offer {
    let (description, rest) = text.split_at(text.floor_char_boundary(DESCRIPTION_BYTES_MAX));
    let (input, output) = rest.split_at(rest.floor_char_boundary(SCHEMA_BYTES_MAX));
    let filled = |part: &str| (!part.is_empty()).then(|| part.to_owned());
    let card = AgentCard {
        description: description.into(),
        input_schema: filled(input),
        output_schema: filled(output),
        callable: true,
        ..AgentCard::default()
    };
    Offer { name, zone: None, scope: Scope::Public, card, grants: Vec::new() }
}

/// The text that a card was made to say.
pub(super) fn text_of(card: &AgentCard) -> String {
    let schemas = [&card.input_schema, &card.output_schema].into_iter().flatten();
    schemas.fold(card.description.clone(), |text, schema| text + schema)
}
